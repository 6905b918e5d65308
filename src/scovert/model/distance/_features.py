"""What an embedding reads of a sample: roots of shares, of taxa or of branches of a tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scovert.core.trees import Branches
from scovert.model.distance._pcoa import leading

__all__ = ["KINDS", "Features", "Projection", "candidates", "chosen", "project"]

KINDS = ("abundance", "presence", "branch_abundance", "branch_presence")
"""Blocks of features."""
N_COMPONENTS = 256
"""Principal components that are kept, at most."""
LEAST = 1e-12
"""Squared length of features that stands for none; the mean is one per block."""
CHUNK = 4096
"""Features that are in double precision at once."""


def candidates(has_tree: bool) -> list[tuple[str, ...]]:
    """Return the sets of features that ``features="auto"`` chooses from, the simplest first."""
    taxa = [("abundance",), ("abundance", "presence")]
    branches = [("branch_abundance",), ("branch_abundance", "branch_presence")]
    return [*(branches if has_tree else []), *taxa]


def chosen(features: Literal["auto"] | Sequence[str], has_tree: bool) -> list[tuple[str, ...]]:
    """Return the sets of features to choose from; refuse what is not known."""
    if features == "auto":
        return candidates(has_tree)
    known = KINDS if has_tree else KINDS[:2]
    if isinstance(features, str) or not features or set(features) - set(known):
        tree = "" if has_tree else " Those of branches need a tree: name it as `tree_key`."
        raise ValueError(
            f"`features={features!r}` is not known. Pass 'auto' or a list of {list(known)}.{tree}"
        )
    return [tuple(kind for kind in KINDS if kind in features)]


class Projection:
    """Principal components of blocks of features, each of which has total variance 1.

    Attributes
    ----------
    kinds
        Names of the blocks.
    centre, scale
        Mean and factor of each feature, shape ``(n_features,)``.
    directions
        Orthonormal, shape ``(n_features, n_components)``.
    components
        Of the samples they were found with, shape ``(n_samples, n_components)``.
    """

    def __init__(self, kinds: Sequence[str], blocks: dict[str, NDArray]) -> None:
        self.kinds = tuple(kinds)
        self.centre = np.concatenate([blocks[kind].mean(0, dtype=float) for kind in kinds])
        factors, inner = [], 0.0
        for kind in kinds:
            own = _inner(blocks[kind])
            factor = 1 / np.sqrt(np.trace(own) / len(own))
            factors.append(np.full(blocks[kind].shape[1], factor))
            inner = inner + factor**2 * own
        self.scale = np.concatenate(factors)
        values, vectors = leading(inner, N_COMPONENTS)
        self.components = vectors * np.sqrt(values)
        raw = np.hstack([blocks[kind] for kind in kinds])
        parts = [
            self._centred(raw, at).T @ (vectors / np.sqrt(values)) for at in _chunks(raw.shape[1])
        ]
        self.directions = np.concatenate(parts)

    def of(self, blocks: dict[str, NDArray], has_counts: NDArray) -> tuple[NDArray, NDArray]:
        """Return components and novelty of samples, as :class:`Features` does of counts."""
        raw = np.hstack([blocks[kind] for kind in self.kinds])
        components, whole = 0.0, 0.0
        for at in _chunks(raw.shape[1]):
            centred = self._centred(raw, at) * has_counts[:, None]
            components = components + centred @ self.directions[at]
            whole = whole + np.square(centred).sum(1)
        return components, _outside(components, whole)

    def _centred(self, raw: NDArray, at: slice) -> NDArray:
        return (raw[:, at] - self.centre[at]) * self.scale[at]


def _outside(components: NDArray, whole: NDArray) -> NDArray:
    """Return the share of the features that the components do not show, in [0, 1]."""
    seen = np.square(components).sum(1)
    return np.clip(1 - seen / np.maximum(whole, LEAST), 0, 1) * (whole > 0)


def _chunks(n_features: int) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, n_features, CHUNK)]


def _inner(block: NDArray) -> NDArray:
    """Return inner products of samples, centred."""
    centre, found = block.mean(0, dtype=float), np.zeros((len(block), len(block)))
    for at in _chunks(block.shape[1]):
        part = block[:, at] - centre[at]
        found += part @ part.T
    return found


def project(blocks: dict[str, NDArray], kinds: Sequence[tuple[str, ...]]) -> list[Projection]:
    """Return the components of several sets of blocks; blocks that do not vary are left out.

    Raises
    ------
    ValueError
        If none varies.
    """
    varies = {kind for kind, block in blocks.items() if np.ptp(block, axis=0).any()}
    usable = dict.fromkeys(tuple(k for k in chosen if k in varies) for chosen in kinds)
    if not any(usable):
        raise ValueError(
            f"The features {sorted(blocks)} are the same in all samples, so that counts tell "
            "nothing of distances. Pass samples that differ, or other `features`."
        )
    return [Projection(chosen, blocks) for chosen in usable if chosen]


class Features(nn.Module):
    """Counts of taxa to principal components.

    Parameters
    ----------
    branches
        Branches above the taxa; `None` without a tree.
    """

    def __init__(self, branches: Branches | None) -> None:
        super().__init__()
        above = None if branches is None else branches.above.T.tocoo()  # (n_branches, n_taxa)
        entries = np.zeros((2, 0), np.int64) if above is None else np.stack(above.coords)
        length = np.zeros(0) if branches is None else branches.length
        self.register_buffer("above", torch.from_numpy(entries.astype(np.int64)))
        self.register_buffer("root_length", torch.from_numpy(np.sqrt(length)).float())
        self.register_buffer("chosen", torch.zeros(len(KINDS), dtype=torch.bool))
        for name in ("centre", "scale"):
            self.register_buffer(name, torch.zeros(0))
        self.register_buffer("directions", torch.zeros(0, 0))

    @property
    def has_tree(self) -> bool:
        """Whether there are branches."""
        return len(self.root_length) > 0

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the blocks that are read."""
        return tuple(k for k, is_read in zip(KINDS, self.chosen.tolist(), strict=True) if is_read)

    def take(self, projection: Projection) -> None:
        """Read these blocks from now on, and return these components of them."""
        self.chosen = torch.tensor(
            [k in projection.kinds for k in KINDS], device=self.chosen.device
        )
        for name in ("centre", "scale", "directions"):
            values = torch.from_numpy(getattr(projection, name)).float()
            setattr(self, name, values.to(self.chosen.device))

    def block(self, x: Tensor, kind: str) -> Tensor:
        """Return a block of features of counts, shape ``(n_samples, n_features)``."""
        if kind == "presence":
            return (x > 0).float()
        if kind == "branch_presence":
            return (self._below(x) > 0) * self.root_length
        share = x / x.sum(1, keepdim=True).clamp(min=1)
        if kind == "abundance":
            return share.sqrt()
        return self._below(share).sqrt() * self.root_length

    def _below(self, x: Tensor) -> Tensor:
        """Sum over the taxa below each branch, shape ``(n_samples, n_branches)``."""
        ones = torch.ones(self.above.shape[1], device=x.device)
        shape = (len(self.root_length), x.shape[1])
        above = torch.sparse_coo_tensor(self.above, ones, shape, check_invariants=False)
        return torch.sparse.mm(above, x.T).T

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return components, and the share of a sample's features that they do not show.

        Parameters
        ----------
        x
            Counts, shape ``(n_samples, n_taxa)``.

        Returns
        -------
        Shapes ``(n_samples, n_components)`` and ``(n_samples,)``, in [0, 1]. A sample without
        counts is at the centre.
        """
        raw = torch.cat([self.block(x, kind) for kind in self.kinds], dim=1)
        centred = (raw - self.centre) * self.scale * (x.sum(1, keepdim=True) > 0)
        components = centred @ self.directions
        whole = centred.square().sum(1)
        seen = components.square().sum(1)
        return components, (1 - seen / whole.clamp(min=LEAST)).clamp(0, 1) * (whole > 0)
