"""Datasets that share one latent space but not the abundance of the genes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

__all__ = ["paired"]

_TYPE_SD = 1.5  # of the centres of the types, in each latent dimension
_CELL_SD = 0.5  # of the cells around the centre of their type: a third, so that types are apart
_OFFSET_SD = 1.0  # nats, of the abundance of the genes: 95 % within a factor of 7 of the median
_LIBRARY_SD = 0.3  # nats, of the library size of the cells: 95 % within a factor of 1.8


def paired(
    n_cells: Sequence[int] = (300, 200),
    *,
    n_genes: int = 100,
    n_latent: int = 3,
    n_types: int = 4,
    batch_sd: float = 0.4,
    inverse_dispersion: float = 2.0,
    library_size: float = 1000.0,
    seed: int = 0,
) -> AnnData:
    r"""Simulate datasets that share one latent space but not the abundance of the genes.

    Cell i of type k in dataset b has the latent position, mean and counts

    .. math::
        z_i &\sim N(c_k, 0.5^2 I), \qquad c_k \sim N(0, 1.5^2 I), \\
        \mu_i &= \ell_i \, \mathrm{softmax}(W z_i + o + s_b), \\
        x_{ig} &\sim \mathrm{NB}(\mathrm{mean} = \mu_{ig},\
            \mathrm{variance} = \mu_{ig} + \mu_{ig}^2 / \theta),

    with loadings :math:`W_{gd} \sim N(0, 1 / n_\mathrm{latent})`, offsets
    :math:`o_g \sim N(0, 1)`, shifts :math:`s_{bg} \sim N(0, \mathrm{batch\_sd}^2)` and library
    sizes :math:`\ell_i` that are log-normal with standard deviation 0.3 on the log scale. The
    types are equally frequent in every dataset, up to one cell.

    Parameters
    ----------
    n_cells
        Cells of each dataset, two or more datasets.
    n_genes
        Genes, at least 2.
    n_latent
        Dimensions of the latent space, at least 1.
    n_types
        Cell types, at least 1 and at most the cells of the smallest dataset.
    batch_sd
        Standard deviation of the gene shifts of a dataset, natural log scale; 0 for none.
    inverse_dispersion
        Inverse dispersion :math:`\theta` of the counts, positive; large values approach Poisson.
    library_size
        Mean library size, in counts; positive.
    seed
        Seed of all random numbers.

    Returns
    -------
    AnnData with raw counts in ``X`` (CSR, float32), datasets one after the other,
    ``obs["batch"]``, ``obs["cell_type"]``, and the truth: ``obs["truth_library"]``,
    ``obsm["truth_latent"]`` of shape ``(n_cells, n_latent)``, and in ``uns["truth"]`` the arrays
    ``loadings`` ``(n_genes, n_latent)``, ``offset`` ``(n_genes,)``, ``shifts``
    ``(n_datasets, n_genes)`` and ``centres`` ``(n_types, n_latent)``, in the order of the
    categories, and the numbers ``inverse_dispersion``, ``batch_sd``, ``library_size`` and
    ``seed``.

    Raises
    ------
    TypeError
        If `n_cells` is one number.
    ValueError
        If there are fewer than two datasets or a parameter is out of range.

    Examples
    --------
    >>> from scovert.simulate import paired
    >>> adata = paired((30, 20), n_genes=11)
    >>> adata.shape, list(adata.obs["batch"].cat.categories)
    ((50, 11), ['batch_0', 'batch_1'])
    """
    _check_sizes(n_cells, n_genes=n_genes, n_latent=n_latent, n_types=n_types)
    _check_scales(batch_sd, inverse_dispersion=inverse_dispersion, library_size=library_size)
    rng = np.random.default_rng(seed)
    n_datasets, n_total = len(n_cells), sum(n_cells)

    # Parameters
    loadings = rng.normal(0, n_latent**-0.5, (n_genes, n_latent))
    offset = rng.normal(0, _OFFSET_SD, n_genes)
    shifts = rng.normal(0, batch_sd, (n_datasets, n_genes))
    centres = rng.normal(0, _TYPE_SD, (n_types, n_latent))

    # Cells
    batch = np.repeat(np.arange(n_datasets), n_cells)  # (n_total,)
    types = np.concatenate([rng.permutation(n) % n_types for n in n_cells])  # (n_total,)
    z = rng.normal(centres[types], _CELL_SD)  # (n_total, n_latent)
    library = library_size * rng.lognormal(-(_LIBRARY_SD**2) / 2, _LIBRARY_SD, n_total)

    # Counts
    weights = np.exp(z @ loadings.T + offset + shifts[batch])  # (n_total, n_genes)
    mean = library[:, None] * weights / weights.sum(1, keepdims=True)
    theta = inverse_dispersion
    counts = rng.negative_binomial(theta, theta / (theta + mean))

    return AnnData(
        sparse.csr_matrix(counts.astype(np.float32)),
        obs=pd.DataFrame(
            {
                "batch": _categorical("batch", batch, n_datasets),
                "cell_type": _categorical("type", types, n_types),
                "truth_library": library,
            },
            index=[f"cell_{i}" for i in range(n_total)],
        ),
        var=pd.DataFrame(index=[f"gene_{g}" for g in range(n_genes)]),
        obsm={"truth_latent": z},
        uns={
            "truth": {
                "loadings": loadings,
                "offset": offset,
                "shifts": shifts,
                "centres": centres,
                "inverse_dispersion": inverse_dispersion,
                "batch_sd": batch_sd,
                "library_size": library_size,
                "seed": seed,
            }
        },
    )


def _categorical(name: str, codes: np.ndarray, n_categories: int) -> pd.Categorical:
    return pd.Categorical.from_codes(codes, [f"{name}_{k}" for k in range(n_categories)])


def _check_sizes(n_cells: Sequence[int], *, n_genes: int, n_latent: int, n_types: int) -> None:
    if np.ndim(n_cells) == 0:
        raise TypeError(
            f"`n_cells={n_cells!r}` is one number. At least two datasets are needed: pass one "
            "number of cells for each, for example `(300, 200)`."
        )
    if len(n_cells) < 2:
        raise ValueError(
            f"`n_cells={n_cells!r}` has {len(n_cells)} entry. At least two datasets are needed: "
            "pass one number of cells for each, for example `(300, 200)`."
        )
    for name, value, smallest in [
        ("n_genes", n_genes, 2),
        ("n_latent", n_latent, 1),
        ("n_types", n_types, 1),
    ]:
        if value < smallest:
            raise ValueError(f"`{name}={value}` is too small. Pass at least {smallest}.")
    if min(n_cells) < n_types:
        raise ValueError(
            f"`n_cells={n_cells!r}` has a dataset with fewer cells than `n_types={n_types}`. "
            "Every dataset holds every type: pass more cells or fewer types."
        )


def _check_scales(batch_sd: float, *, inverse_dispersion: float, library_size: float) -> None:
    if not 0 <= batch_sd < np.inf:
        raise ValueError(f"`batch_sd={batch_sd}` is not a standard deviation. Pass 0 or more.")
    scales = {"inverse_dispersion": inverse_dispersion, "library_size": library_size}
    for name, value in scales.items():
        if not 0 < value < np.inf:
            raise ValueError(f"`{name}={value}` is out of range. Pass a positive, finite number.")
