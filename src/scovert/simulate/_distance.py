"""Cohorts of samples with a tree of their taxa, and the distances between them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from scovert.core.trees import Branches, bray_curtis, unifrac

__all__ = ["distance"]

_DISTANCES = ("unweighted_unifrac", "weighted_unifrac", "bray_curtis")
_N_CLUSTERS, _N_GRADIENTS = 6, 2
_N_NUISANCES, _NUISANCE = 6, 0.4
"""Directions along which samples vary for no known reason, and how far (log scale)."""
_BASE, _NOISE = 1.5, 0.7
"""Standard deviations of log abundance: between taxa, and of a taxon between samples."""
_ABSENT, _GONE = 0.5, -20.0
"""Share of the taxa that are absent at most, and the log abundance that stands for it."""
_ALONG_TREE = 0.7
"""Weight of what follows the tree, and of what does not: the variances add up to about one."""
_DEPTH_SD, _LEAST_DEPTH = 0.8, 500
"""Of the log of the total count of a sample; and the total at least."""
_STEP, _POWER, _TIP = 0.05, 0.6, 0.002
"""Of the tree: height of a merger, power that lengthens those near the root, and mean length that
each branch has besides."""


def distance(
    n_samples: int = 200,
    n_taxa: int = 500,
    *,
    distances: Sequence[str] = _DISTANCES,
    signal: float = 1.5,
    depth: float = 8000,
    seed: int = 0,
) -> AnnData:
    r"""Simulate a cohort of microbiomes with a tree and exact distances.

    With :math:`c_i` the cluster of sample i and :math:`t_i \sim U(-1, 1)^2` its place on two
    gradients, the counts are multinomial with

    .. math:: \log p_{ig} = 1.5\, b_g + s\,(C_{g c_i} + G_g t_i) + 0.7\, \varepsilon_{ig}
        + 0.4\, H_g h_i - \log Z_i,

    where columns of b, C, G and H are half Brownian motion along the tree and half noise,
    :math:`\varepsilon, h \sim N(0, 1)`, taxon g is absent from a sample with probability
    :math:`U(0, 1) / 2`, and the total is log-normal, 500 at least.

    Parameters
    ----------
    n_samples, n_taxa
        Samples, and tips of the tree.
    distances
        Which to compute: ``"unweighted_unifrac"``, ``"weighted_unifrac"``, ``"bray_curtis"``.
    signal
        Effect s of clusters and gradients on the log scale; 0 for none.
    depth
        Median total count of a sample.
    seed
        Seed of all random numbers.

    Returns
    -------
    AnnData with counts (CSR, float32) in ``X``; the tree in ``varm["tree"]`` and ``uns["tree"]``;
    each matrix under its name in ``obsp``; ``obs["truth_cluster"]``, ``obsm["truth_gradients"]``;
    and ``uns["truth"]`` with ``signal``, ``depth`` and ``seed``.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> from scovert.simulate import distance
    >>> adata = distance(20, 31)
    >>> adata.shape, sorted(adata.obsp)
    ((20, 31), ['bray_curtis', 'unweighted_unifrac', 'weighted_unifrac'])
    """
    _check(n_samples, n_taxa, distances, signal, depth)
    rng = np.random.default_rng(seed)
    parent, length = _tree(n_taxa, rng)
    above = Branches.of_parents(parent, np.ones(len(parent)), np.arange(n_taxa)).above
    step = np.sqrt(length[: above.shape[1]])[:, None]  # (n_branches, 1), of Brownian motion

    def draw(n: int) -> NDArray:  # (n_taxa, n)
        along = above @ (step * rng.normal(size=(2 * n_taxa - 1, n))[: above.shape[1]])
        return _ALONG_TREE * (_scaled(along) + _scaled(rng.normal(size=(n_taxa, n))))

    base = _BASE * draw(1)[:, 0]
    weights = rng.dirichlet(np.full(_N_CLUSTERS, 4.0))
    cluster = rng.choice(_N_CLUSTERS, n_samples, p=weights)
    centres = draw(_N_CLUSTERS)
    gradient = rng.uniform(-1, 1, (n_samples, _N_GRADIENTS))
    log_share = base + signal * centres[:, cluster].T + signal * gradient @ draw(_N_GRADIENTS).T
    log_share += _NOISE * rng.normal(size=(n_samples, n_taxa))
    log_share += _NUISANCE * rng.normal(size=(n_samples, _N_NUISANCES)) @ draw(_N_NUISANCES).T
    log_share[rng.random((n_samples, n_taxa)) < _ABSENT * rng.random(n_taxa)] = _GONE

    share = np.exp(log_share - log_share.max(1, keepdims=True))
    total = np.exp(rng.normal(np.log(depth), _DEPTH_SD, n_samples)).astype(int).clip(_LEAST_DEPTH)
    counts = np.stack([rng.multinomial(n, p / p.sum()) for n, p in zip(total, share, strict=True)])
    adata = AnnData(
        sparse.csr_matrix(counts.astype(np.float32)),
        obs=pd.DataFrame(
            {"truth_cluster": pd.Categorical([f"cluster_{k + 1}" for k in cluster])},
            index=[f"sample_{i}" for i in range(n_samples)],
        ),
        var=pd.DataFrame(index=[f"taxon_{g}" for g in range(n_taxa)]),
        obsm={"truth_gradients": gradient},
        uns={"truth": {"signal": signal, "depth": depth, "seed": seed}},
    )
    branches = Branches.of_parents(parent, length, np.arange(n_taxa))
    branches.write(adata, "tree")
    for name in distances:
        adata.obsp[name] = _distances(name, adata.X, branches)
    return adata


def _tree(n_taxa: int, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """Join tips at random, as a coalescent does: the parent of each node, -1 for the root.

    Returns
    -------
    Parents and lengths, shape ``(2 n_taxa - 1,)``; the tips are the first nodes.
    """
    n_nodes = 2 * n_taxa - 1
    parent, height, length = np.full(n_nodes, -1), np.zeros(n_nodes), np.zeros(n_nodes)
    live, now = list(range(n_taxa)), 0.0
    for node in range(n_taxa, n_nodes):
        n = len(live)
        now += _STEP * rng.exponential(2 / (n * (n - 1))) ** _POWER
        i, j = rng.choice(n, 2, replace=False)
        for child in (live[i], live[j]):
            parent[child] = node
            length[child] = now - height[child] + rng.exponential(_TIP)
        height[node] = now
        live = [v for k, v in enumerate(live) if k not in (i, j)] + [node]
    return parent, length


def _scaled(values: NDArray) -> NDArray:
    """Bring columns to mean 0 and standard deviation 1."""
    return (values - values.mean(0)) / values.std(0)


def _distances(name: str, counts: sparse.csr_matrix, branches: Branches) -> NDArray:
    if name == "bray_curtis":
        return bray_curtis(counts)
    return unifrac(counts, branches, weighted=name == "weighted_unifrac")


def _check(
    n_samples: int, n_taxa: int, distances: Sequence[str], signal: float, depth: float
) -> None:
    for name, value, least in (("n_samples", n_samples, 2), ("n_taxa", n_taxa, 3)):
        if value < least:
            raise ValueError(f"`{name}={value}` is too small. Pass at least {least}.")
    unknown = [name for name in distances if name not in _DISTANCES]
    if isinstance(distances, str) or unknown:
        raise ValueError(f"`distances={distances!r}` is not known. Pass a list of {_DISTANCES}.")
    if not 0 <= signal < np.inf:
        raise ValueError(f"`signal={signal}` is out of range. Pass 0 or more.")
    if not 1 <= depth < np.inf:
        raise ValueError(f"`depth={depth}` is out of range. Pass a count, 1 or more.")
