"""Data of the benchmark of hidden confounders: counts, treatment, what is hidden, the truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from numpy.typing import NDArray

from benchmarks.data import read
from scovert.simulate import hidden_covariate

__all__ = [
    "FAKE",
    "HAO",
    "KANG",
    "MAX_CONTROL_EFFECT",
    "MIN_CONTROL_P",
    "N_CONTROLS",
    "ONEK1K",
    "PAPALEXI",
    "Case",
    "Columns",
    "arms",
    "donors",
    "hao",
    "kang_controls",
    "kang_stimulated",
    "log_normalised",
    "simulated",
]

HAO, KANG, ONEK1K = "deconv_ref_hao_pbmc", "kang_ifnb_pbmc", "confounding_onek1k_subset"
PAPALEXI = "confounding_papalexi_perturbseq"

MIN_TYPE = 80  # cells of a type that is kept, Hao
MYELOID = ("CD14+ Monocytes", "CD16+ Monocytes", "DC")
CONTROL_DONORS = ("donor_1015", "donor_107", "donor_101", "donor_1039")
N_CONTROL_CELLS, N_CONTROLS = 2500, 150
MAX_CONTROL_EFFECT, MIN_CONTROL_P = 0.15, 0.1  # natural log scale; on the donors left out
N_CELLS, N_GENES, N_DONOR_GENES = 2000, 1000, 500
MIN_DETECTED, MIN_DETECTED_ARMS = 0.05, 0.02
MAX_REFERENCE, MAX_ARM = 1600, 250  # cells, Papalexi
HIDDEN, FAKE, NON_TARGETING = "hidden_", "fake", "non-targeting"


class Columns(NamedTuple):
    """Columns of ``obs`` by kind."""

    categorical: tuple[str, ...] = ()
    continuous: tuple[str, ...] = ()


@dataclass
class Case:
    """Cells with a treatment, and what the methods may and may not know.

    Attributes
    ----------
    adata
        Counts, ``obs["treatment"]`` and ``obs["size_factor"]``; the truth in ``var``, if known.
    known, hidden
        Covariates for all methods, and those only for the oracle.
    cluster_key
        Column with the donors, if the methods use it.
    reference
        Level of the treatment that the others are compared with.
    options
        Of the model: ``n_latent`` and ``z_type``.
    confounder
        True confounders, shape ``(n_cells, n_confounders)``.
    others
        Cells that are left out, for negative controls.
    """

    adata: AnnData
    known: Columns = Columns()
    hidden: Columns = Columns()
    cluster_key: str | None = None
    reference: object = None
    options: dict = field(default_factory=dict)
    confounder: NDArray | None = None
    others: AnnData | None = None

    @property
    def has_truth(self) -> bool:
        return "truth_log2_fc" in self.adata.var


# Simulations ------------------------------------------------------------------------------------


def simulated(seed: int, simulate: Callable[..., AnnData], options: dict) -> Case:
    """Cells of a simulator; the oracle is given the true confounders."""
    adata = simulate(seed=seed)
    z = adata.obsm["truth_confounder"]
    hidden = [f"{HIDDEN}{i}" for i in range(z.shape[1])]
    adata.obs[hidden] = z
    known = tuple(c for c in adata.obs if c.startswith("covariate"))
    columns = {"known": Columns(continuous=known), "hidden": Columns(continuous=tuple(hidden))}
    return Case(adata, **columns, options=options, confounder=z)


# Real counts ------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def load(file: str) -> AnnData:
    """Cells of a file, with size factors from all of its genes, not yet centred."""
    adata = read(file)
    totals = adata.obs.get("total_counts", pd.Series(np.ravel(adata.X.sum(1)), adata.obs_names))
    obs = adata.obs[[c for c in adata.obs if not c.startswith("frac_")]].copy()
    obs["size_factor"] = totals.astype(float)
    return AnnData(adata.X, obs=obs, var=pd.DataFrame(index=adata.var_names))


def drawn(
    adata: AnnData, cells: NDArray, n_genes: int, rng: np.random.Generator, detected: float
) -> AnnData:
    """Take some cells, and draw genes among those that are detected in enough of them."""
    part = adata[cells]
    share = np.ravel((part.X > 0).mean(0))
    usable = np.flatnonzero(share >= detected)
    genes = np.sort(rng.choice(usable, min(n_genes, len(usable)), replace=False))
    part = part[:, genes].copy()
    part.obs["size_factor"] /= np.exp(np.log(part.obs["size_factor"]).mean())
    return part


def hao(seed: int, fraction: float, programme: float | None = None) -> Case:
    """PBMC whose types are hidden, and perhaps a programme within the types."""
    rng, adata = np.random.default_rng(seed), load(HAO)
    sizes = adata.obs["cell_type"].value_counts()
    cells = np.flatnonzero(adata.obs["cell_type"].isin(sizes.index[sizes >= MIN_TYPE]))
    part = drawn(adata, cells, N_GENES, rng, MIN_DETECTED)
    if programme is None:
        keys, strength = ["cell_type"], 1.0
    else:
        part.obs["programme"] = programme_within(part, "cell_type")
        keys, strength = ["cell_type", "programme"], [1.0, programme]
    fake = hidden_covariate(
        part, keys, strength=strength, effect_fraction=fraction, seed=rng.integers(2**31)
    )
    return Case(fake, hidden=Columns(("cell_type",), tuple(keys[1:])))


def programme_within(adata: AnnData, labels_key: str) -> NDArray:
    """First principal component of log-normalised values, less the means of the labels."""
    size = adata.obs["size_factor"].to_numpy()
    log = np.log1p(3 * adata.X.toarray() / size[:, None])
    means = pd.DataFrame(log).groupby(adata.obs[labels_key].to_numpy()).transform("mean")
    component = np.linalg.svd(log - means.to_numpy(), full_matrices=False)[0][:, 0]
    return component.astype(float) / component.std()


def kang_controls(seed: int, fraction: float, *, by_donor: bool = False) -> Case:
    """Unstimulated PBMC whose types are hidden; treated cell by cell, in all donors."""
    rng, adata = np.random.default_rng(seed), load(KANG)
    unstimulated = np.flatnonzero(adata.obs["stim"] == "ctrl")
    cells = np.sort(rng.choice(unstimulated, N_CELLS, replace=False))
    n_genes = N_DONOR_GENES if by_donor else N_GENES
    part = drawn(adata, cells, n_genes, rng, MIN_DETECTED)
    fake = hidden_covariate(part, "cell_type", effect_fraction=fraction, seed=rng.integers(2**31))
    key = "donor" if by_donor else None
    return Case(fake, hidden=Columns(("cell_type",)), cluster_key=key)


def kang_stimulated(seed: int, *, all_donors: bool) -> Case:
    """PBMC with and without interferon beta; types are unequally frequent in the arms.

    Of four donors, myeloid cells are kept in the stimulated arm and all others in the control
    arm with odds of 1 to .3; or, of all donors, with log odds that are drawn for every type.
    """
    adata, rng = load(KANG), np.random.default_rng(seed)
    is_stim, types = (adata.obs["stim"] == "stim").to_numpy(), adata.obs["cell_type"].to_numpy()
    is_control_donor = adata.obs["donor"].isin(CONTROL_DONORS).to_numpy()
    if all_donors:
        codes, names = pd.factorize(types.astype(str), sort=True)
        odds = rng.normal(size=len(names))
        odds = ((odds - odds.mean()) / odds.std())[codes]
        weight = 1 / (1 + np.exp(-np.where(is_stim, odds, -odds)))
    else:
        weight = np.where(np.isin(types, MYELOID) == is_stim, 1.0, 0.3)
        weight[is_control_donor] = 0
    weight = weight / weight.sum()
    cells = np.sort(rng.choice(adata.n_obs, N_CELLS, replace=False, p=weight))
    part = drawn(adata, cells, N_GENES, rng, MIN_DETECTED)
    part.obs["treatment"] = is_stim[cells]
    others = None
    if not all_donors:
        rows = np.flatnonzero(is_control_donor)
        rows = np.sort(rng.choice(rows, N_CONTROL_CELLS, replace=False))
        others = adata[rows, part.var_names].copy()
        others.obs["treatment"] = is_stim[rows]
    return Case(part, hidden=Columns(("cell_type",)), others=others)


def donors(seed: int, file: str, n_donors: int, fraction: float) -> Case:
    """Half of some donors are treated; their types differ by chance and are hidden."""
    rng, adata = np.random.default_rng(seed), load(file)
    usable = adata.obs["stim"] == "ctrl" if file == KANG else pd.Series(True, adata.obs_names)
    names = rng.permutation(np.unique(adata.obs["donor"][usable].astype(str)))[:n_donors]
    rows = np.flatnonzero(usable & adata.obs["donor"].isin(names))
    cells = np.sort(rng.choice(rows, min(N_CELLS, len(rows)), replace=False))
    part = drawn(adata, cells, N_DONOR_GENES, rng, MIN_DETECTED)
    fake = hidden_covariate(
        part,
        "cell_type",
        effect_fraction=fraction,
        cluster_key="donor",
        seed=rng.integers(2**31),
    )
    return Case(fake, hidden=Columns(("cell_type",)), cluster_key="donor")


def arms(seed: int, fake: str) -> Case:
    """All knock-outs of Papalexi, and a fake one among the cells without any.

    At most 250 cells of an arm and 1,600 without a target are drawn, once for all seeds. The fake
    arm is half of the latter: at ``"random"``, by ``"guide"``, or as a ``"replicate"`` has it that
    is then hidden; ``"none"`` for no fake arm.
    """
    adata, fixed = load(PAPALEXI), np.random.default_rng(0)
    groups = adata.obs.reset_index().groupby("perturbation", observed=True).indices
    most = {name: MAX_REFERENCE if name == NON_TARGETING else MAX_ARM for name in groups}
    cells = [
        fixed.choice(rows, min(most[name], len(rows)), replace=False)
        for name, rows in sorted(groups.items())
    ]
    part = drawn(adata, np.sort(np.concatenate(cells)), N_GENES, fixed, MIN_DETECTED_ARMS)
    level = part.obs["perturbation"].astype(str).to_numpy().astype(object)
    is_reference = level == NON_TARGETING
    rng = np.random.default_rng(seed)
    level[is_reference & _is_fake(part.obs, is_reference, fake, rng)] = FAKE
    part.obs["treatment"] = pd.Categorical(level)
    replicate = Columns(("replicate",))
    columns = {"hidden": replicate} if fake == "replicate" else {"known": replicate}
    return Case(part, **columns, reference=NON_TARGETING)


def _is_fake(
    obs: pd.DataFrame, is_reference: NDArray, kind: str, rng: np.random.Generator
) -> NDArray:
    if kind == "none":
        return np.zeros(len(obs), bool)
    if kind == "guide":
        guides = rng.permutation(np.unique(obs["guide"][is_reference].astype(str)))
        return obs["guide"].isin(guides[: len(guides) // 2]).to_numpy()
    probability = np.full(len(obs), 0.5)
    if kind == "replicate":
        codes, names = pd.factorize(obs["replicate"].astype(str), sort=True)
        probability = rng.permutation(np.linspace(0.2, 0.8, len(names)))[codes]
    return rng.random(len(obs)) < probability


def log_normalised(adata: AnnData) -> NDArray:
    """Divide counts by size factors; return the logarithm of one more."""
    size = adata.obs["size_factor"].to_numpy()
    return sc.pp.log1p(adata.X.toarray() / size[:, None])
