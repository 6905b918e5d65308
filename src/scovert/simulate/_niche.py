"""Tissue with regions whose neighbourhoods agree in the mean and differ in the cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

__all__ = ["niche"]

REGIONS = ("A", "B", "C", "D")
_SHARES = np.array(
    [[0.5, 0.5, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0.5, 0.5, 0], [0, 0, 0, 0, 0, 1]]
)
"""Types of a region; those of A have the mean of the one in B, and those of C that of D."""
_SIDE, _STRIPE = 1000.0, 125.0  # of a section and of a region, in micrometres
_WAVE, _WAVELENGTH = 60.0, 120.0  # of the borders, in micrometres (per radian)
_LEAST, _SCALE = 0.2, 3.0  # of the mean count of a gene in a type
_NOISE_SD = 0.25  # of the log intensity of a channel


def niche(
    n_cells: int = 2000,
    n_samples: int = 3,
    *,
    n_genes: int = 30,
    likelihood: str = "nb",
    mixing: float = 0.15,
    batch_sd: float = 0.3,
    inverse_dispersion: float = 3.0,
    seed: int = 0,
) -> AnnData:
    r"""Simulate sections whose regions agree in the mean in pairs and differ in their cells.

    Cell i lies uniformly in a square of 1 mm; the regions are stripes with wavy borders. Region A
    holds the types 1 and 2 in equal parts, B type 3, whose mean profile is that of 1 and 2
    together; C and D are the same with the types 4, 5 and 6. With type k of a cell of section s,

    .. math:: x_{ig} \sim \mathrm{NB}(\mathrm{mean} = \ell_i e^{s_{sg}} m_{kg},\
        \mathrm{variance} = \mu + \mu^2 / \theta),

    with :math:`m_{kg} \sim 0.2 + 3\,\mathrm{Exp}(1)`, :math:`s_{sg} \sim N(0,
    \mathrm{batch\_sd}^2)` and :math:`\log \ell_i \sim N(0, 0.3^2)`. Intensities are
    :math:`e^{s_{sg}} m_{kg} e^{\varepsilon}` with :math:`\varepsilon \sim N(0, 0.25^2)`.

    Parameters
    ----------
    n_cells
        Cells of a section.
    n_samples
        Sections.
    n_genes
        Genes or channels.
    likelihood
        ``"nb"`` for counts, ``"gaussian"`` for intensities.
    mixing
        Share of the cells whose type is drawn from all six, in [0, 1]; at 1 there are no regions.
    batch_sd
        Standard deviation of the shifts of a section, natural log scale; 0 for none.
    inverse_dispersion
        Inverse dispersion :math:`\theta` of the counts, positive.
    seed
        Seed of all random numbers.

    Returns
    -------
    AnnData with counts (CSR) or intensities (dense) in ``X``, float32; positions in micrometres in
    ``obsm["spatial"]``; ``obs["sample"]``, ``obs["cell_type"]``, ``obs["truth_region"]``; and in
    ``uns["truth"]`` the mean ``profiles`` ``(6, n_genes)``, ``shifts`` ``(n_samples, n_genes)``,
    ``shares`` of the types in the regions ``(4, 6)``, ``mixing`` and ``seed``.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> from scovert.simulate import niche
    >>> adata = niche(50, 2, n_genes=11)
    >>> adata.shape, adata.obsm["spatial"].shape
    ((100, 11), (100, 2))
    """
    _check(n_cells, n_samples, n_genes, likelihood, mixing, batch_sd, inverse_dispersion)
    rng = np.random.default_rng(seed)
    n = n_cells * n_samples
    sample = np.repeat(np.arange(n_samples), n_cells)

    # Parameters
    profiles = _LEAST + _SCALE * rng.gamma(1.0, 1.0, (6, n_genes))
    profiles[2], profiles[5] = profiles[:2].mean(0), profiles[3:5].mean(0)
    shifts = rng.normal(0, batch_sd, (n_samples, n_genes))
    shares = (1 - mixing) * _SHARES + mixing / 6

    # Cells
    positions = rng.uniform(0, _SIDE, (n, 2))
    region = _region_at(positions)
    types = (rng.random(n)[:, None] > shares.cumsum(1)[region]).sum(1).clip(max=5)
    mean = profiles[types] * np.exp(shifts[sample])  # (n, n_genes)
    values: NDArray | sparse.csr_matrix
    if likelihood == "nb":
        mean *= rng.lognormal(0, 0.3, n)[:, None]
        theta = inverse_dispersion
        counts = rng.negative_binomial(theta, theta / (theta + mean))
        values = sparse.csr_matrix(counts.astype(np.float32))
    else:
        values = (mean * rng.lognormal(0, _NOISE_SD, mean.shape)).astype(np.float32)

    return AnnData(
        values,
        obs=pd.DataFrame(
            {
                "sample": pd.Categorical.from_codes(
                    sample, [f"section_{s}" for s in range(n_samples)]
                ),
                "cell_type": pd.Categorical.from_codes(types, [f"type_{k + 1}" for k in range(6)]),
                "truth_region": pd.Categorical.from_codes(region, list(REGIONS)),
            },
            index=[f"cell_{i}" for i in range(n)],
        ),
        var=pd.DataFrame(index=[f"gene_{g}" for g in range(n_genes)]),
        obsm={"spatial": positions},
        uns={
            "truth": {
                "profiles": profiles,
                "shifts": shifts,
                "shares": shares,
                "mixing": mixing,
                "seed": seed,
            }
        },
    )


def _region_at(positions: NDArray) -> NDArray:
    """Find the region at a position, shape ``(n_cells,)``."""
    x = positions[:, 0] + _WAVE * np.sin(positions[:, 1] / _WAVELENGTH)
    return np.floor(x / _STRIPE).astype(np.int64) % len(REGIONS)


def _check(
    n_cells: int,
    n_samples: int,
    n_genes: int,
    likelihood: str,
    mixing: float,
    batch_sd: float,
    inverse_dispersion: float,
) -> None:
    for name, value in (("n_cells", n_cells), ("n_samples", n_samples), ("n_genes", n_genes)):
        if value < 1:
            raise ValueError(f"`{name}={value}` is too small. Pass at least 1.")
    if likelihood not in ("nb", "gaussian"):
        raise ValueError(f"`likelihood={likelihood!r}` is not known. Pass 'nb' or 'gaussian'.")
    if not 0 <= mixing <= 1:
        raise ValueError(f"`mixing={mixing}` is no share. Pass a number in [0, 1].")
    if not 0 <= batch_sd < np.inf:
        raise ValueError(f"`batch_sd={batch_sd}` is not a standard deviation. Pass 0 or more.")
    if not 0 < inverse_dispersion < np.inf:
        raise ValueError(
            f"`inverse_dispersion={inverse_dispersion}` is out of range. Pass a positive number."
        )
