"""Networks of a DistanceEmbedding and its loss."""

from __future__ import annotations

import math

import torch
from scvi.module.base import BaseModuleClass, LossOutput
from torch import Tensor, nn

from scovert.core.trees import Branches
from scovert.model.distance._features import Features
from scovert.model.distance._linear import LinearMap

__all__ = [
    "COMPONENTS",
    "DISTANCES",
    "DistanceModule",
    "ResidualMap",
    "squared_distances",
    "stress",
]

COMPONENTS, DISTANCES = "components", "distances"
"""Keys of a minibatch: features of its samples, and the distances of the first of them."""
LEAST_SQUARE = 1e-12
"""Added under the root, which has no slope at 0; by the mean squared distance."""


class ResidualMap(nn.Module):
    r"""A linear map with a network as its correction, which is 0 at the start.

    .. math:: (z, \log u) = W^\top f + b + \mathrm{MLP}(f)

    Parameters
    ----------
    n_input
        Number of features.
    n_latent
        Number of axes; the output has one more, the logarithm of the uniqueness.
    n_layers, n_hidden
        Hidden layers of the network and nodes in each; without layers the map is linear.
    dropout_rate
        Dropout in the hidden layers.
    """

    def __init__(
        self, n_input: int, n_latent: int, *, n_layers: int, n_hidden: int, dropout_rate: float
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(n_input, n_latent + 1)
        self.mlp = None
        if n_layers > 0:
            layers: list[nn.Module] = []
            for size in [n_input, *[n_hidden] * (n_layers - 1)]:
                layers += [nn.Linear(size, n_hidden), nn.LayerNorm(n_hidden), nn.GELU()]
                layers.append(nn.Dropout(dropout_rate))
            last = nn.Linear(n_hidden, n_latent + 1)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.mlp = nn.Sequential(*layers, last)

    @torch.no_grad()
    def start(self, linear: LinearMap) -> None:
        """Take the weights of a linear map."""
        self.linear.weight.zero_()
        self.linear.weight[:-1] = torch.from_numpy(linear.weight.T)
        self.linear.bias[:-1] = torch.from_numpy(linear.bias)
        self.linear.bias[-1] = math.log(linear.uniqueness)

    def forward(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Return positions ``(n_samples, n_latent)`` and uniqueness ``(n_samples,)``."""
        out = self.linear(f) if self.mlp is None else self.linear(f) + self.mlp(f)
        return out[:, :-1], out[:, -1].exp()


def squared_distances(z: Tensor, u: Tensor, n_first: int) -> Tensor:
    r""":math:`\lVert z_i - z_j \rVert^2 + u_i + u_j` of the first samples to the others.

    Parameters
    ----------
    z, u
        Positions ``(n_samples, n_latent)`` and uniqueness ``(n_samples,)``.
    n_first
        How many; if these are all samples, the others are the same ones.

    Returns
    -------
    Shape ``(n_first, n_others)``.
    """
    start = 0 if n_first == len(z) else n_first
    between = (z[:n_first, None] - z[None, start:]).square().sum(-1)  # (n_first, n_others)
    return between + u[:n_first, None] + u[start:]


def stress(predicted: Tensor, true: Tensor, *, among_themselves: bool) -> Tensor:
    r"""Mean squared error of the distances of each sample :cite:p:`Kruskal64`.

    .. math:: s_i = \operatorname{mean}_{j \ne i} (\hat d_{ij} - d_{ij})^2

    Parameters
    ----------
    predicted, true
        Distances, shape ``(n_samples, n_others)``.
    among_themselves
        Whether the others are the same samples: the diagonal is left out.

    Returns
    -------
    One value per sample, shape ``(n_samples,)``, 0 when the distances agree.
    """
    error = (predicted - true).square()
    if not among_themselves:
        return error.mean(1)
    return (error.sum(1) - error.diagonal()) / (len(error) - 1)


class DistanceModule(BaseModuleClass):
    """Counts to a position and a uniqueness.

    Parameters
    ----------
    branches
        Branches above the taxa; `None` without a tree.
    n_latent
        Number of axes.
    n_layers, n_hidden, dropout_rate
        Of the network.
    """

    def __init__(
        self,
        branches: Branches | None,
        *,
        n_latent: int,
        n_layers: int,
        n_hidden: int,
        dropout_rate: float,
    ) -> None:
        super().__init__()
        self.n_latent = n_latent
        self.sizes = {"n_layers": n_layers, "n_hidden": n_hidden, "dropout_rate": dropout_rate}
        self.features = Features(branches)
        self.register_module("embedder", None)
        self.register_buffer("unit", torch.ones(()))
        """Root mean square of the distances: what the networks see is divided by it."""
        self.register_buffer("of_empty", torch.ones(()))
        """Uniqueness of a sample without counts."""

    def start(self, linear: LinearMap, unit: float, *, is_linear: bool) -> None:
        """Place samples by a linear map.

        Parameters
        ----------
        linear
            Fitted to distances in their `unit`.
        unit
            Root mean square of the distances.
        is_linear
            Whether there is to be no network.
        """
        n_layers = 0 if is_linear else self.sizes["n_layers"]
        network = ResidualMap(
            len(linear.weight), self.n_latent, **self.sizes | {"n_layers": n_layers}
        )
        network.start(linear)
        self.embedder = network.to(self.unit.device)
        self.unit.fill_(unit)

    def _get_inference_input(self, tensors: dict[str, Tensor], **_: object) -> dict[str, Tensor]:
        return {"f": tensors[COMPONENTS]}

    def inference(self, f: Tensor) -> dict[str, Tensor]:
        """Return positions and uniqueness, in units of the distances."""
        z, u = self.embedder(f)
        return {"z": z, "u": u}

    def _get_generative_input(
        self, tensors: dict[str, Tensor], inference_outputs: dict[str, Tensor], **_: object
    ) -> dict[str, Tensor | int]:
        return inference_outputs | {"n_first": len(tensors[DISTANCES])}

    def generative(self, z: Tensor, u: Tensor, n_first: int) -> dict[str, Tensor]:
        """Return the distances of the first samples to the others, which nothing bounds."""
        return {"predicted": (squared_distances(z, u, n_first) + LEAST_SQUARE).sqrt()}

    def loss(
        self,
        tensors: dict[str, Tensor],
        inference_outputs: dict[str, Tensor],
        generative_outputs: dict[str, Tensor],
    ) -> LossOutput:
        """Return the stress, by the mean squared distance."""
        true, n_samples = tensors[DISTANCES], len(tensors[COMPONENTS])
        s = stress(generative_outputs["predicted"], true, among_themselves=len(true) == n_samples)
        return LossOutput(s.mean(), s, n_obs_minibatch=len(s))

    def place(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Place samples in the unit of the matrix.

        Parameters
        ----------
        x
            Counts, shape ``(n_samples, n_taxa)``.

        Returns
        -------
        Positions ``(n_samples, n_latent)``, uniqueness and novelty ``(n_samples,)``.
        """
        components, novelty = self.features(x)
        z, u = self.embedder(components)
        u = torch.where(x.sum(1) > 0, u, self.of_empty)
        return z * self.unit, u * self.unit.square(), novelty

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *rest: object) -> None:
        """Give parts the sizes that a file has; torch then fills them."""
        for name, buffer in self.features.named_buffers():
            found = state.get(f"{prefix}features.{name}")
            if found is not None and found.shape != buffer.shape:
                setattr(self.features, name, torch.empty_like(found, device=self.unit.device))
        self._resize_embedder(
            {k: v for k, v in state.items() if k.startswith(f"{prefix}embedder.")}
        )
        super()._load_from_state_dict(state, prefix, *rest)

    def _resize_embedder(self, state: dict[str, Tensor]) -> None:
        shapes = {name.partition("embedder.")[2]: v.shape for name, v in state.items()}
        own = {} if self.embedder is None else self.embedder.state_dict()
        if not shapes or shapes == {name: v.shape for name, v in own.items()}:
            return
        n_output, n_input = shapes["linear.weight"]
        n_matrices = sum(name.startswith("mlp.") and len(v) == 2 for name, v in shapes.items())
        first = shapes.get("mlp.0.weight", (1, n_input))
        self.n_latent = n_output - 1
        self.sizes |= {"n_layers": max(0, n_matrices - 1), "n_hidden": first[0]}
        with torch.random.fork_rng():
            network = ResidualMap(n_input, self.n_latent, **self.sizes)
        self.embedder = network.to(self.unit.device)
