"""Fake treatments of the user's own cells, analysed as the real one."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scvi.model.base import BaseModelClass

from scovert.core._diagnostics import HealthRow, row
from scovert.core._progress import stage
from scovert.model.confounder._data import TreatmentData
from scovert.model.confounder._tables import MIN_COUNTS

__all__ = ["PlaceboCells", "placebo_row", "run_placebo"]

FAKE, SIZE = "fake treatment", "size factor"
"""Columns of the cells with a fake treatment."""

MAX_CELLS, MAX_GENES = 3_000, 500
"""Drawn anew for each fake treatment, so that its analysis takes seconds."""

MIN_CELLS, MIN_UNITS = 80, 6
"""Untreated cells, and guides or donors of them, that a fake treatment needs: arms of forty cells
and of three donors."""

LEVELS = {"below_0.05": 0.05, "below_0.01": 0.01}
"""Columns of the shares of p-values below a level."""

FDR = 0.05
"""False discovery rate of the genes that are counted."""

MAX_SHARE, MAX_CALLED = 0.08, 0.002
"""Share of p-values below .05, and of genes called, up to which the tests hold: chance and an
error of three fifths; two of a thousand genes."""


class PlaceboCells:
    """Untreated cells that are given fake treatments.

    Parameters
    ----------
    adata
        The cells of the model.
    cells
        Their data.
    setup
        Arguments of ``setup_anndata``.
    is_between
        Whether whole donors are treated, as the real treatment was given.
    unit_key
        Column of ``obs`` with what is treated as a whole.
    """

    def __init__(
        self,
        adata: AnnData,
        cells: TreatmentData,
        setup: dict,
        *,
        is_between: bool,
        unit_key: str | None,
    ) -> None:
        self.rows = np.flatnonzero(cells.level == 0)
        self.cells, self.setup = cells, setup
        self.unit_key = setup["cluster_key"] if unit_key is None and is_between else unit_key
        self.categorical = list(setup["categorical_covariate_keys"] or [])
        self.continuous = list(setup["continuous_covariate_keys"] or [])
        keys = {*self.categorical, *self.continuous, self.unit_key, setup["cluster_key"]} - {None}
        self.obs = adata.obs.iloc[self.rows][sorted(keys)]
        self._check()

    def _check(self) -> None:
        where = f"`adata.obs[{self.setup['treatment_key']!r}]`"
        if len(self.rows) < MIN_CELLS:
            raise ValueError(
                f"The reference {self.setup['reference']!r} of {where} has {len(self.rows)} "
                f"cells, half of which are to be given a fake treatment: {MIN_CELLS} are needed."
            )
        if self.unit_key is None:
            return
        n_units = self.obs[self.unit_key].nunique()
        if n_units < MIN_UNITS:
            raise ValueError(
                f"The cells of the reference {self.setup['reference']!r} of {where} are of "
                f"{n_units} levels of `adata.obs[{self.unit_key!r}]`, half of which are to be "
                f"given a fake treatment: {MIN_UNITS} are needed. No placebo can tell whether "
                "p-values hold with fewer."
            )

    def draw(self, rng: np.random.Generator) -> AnnData:
        """Return some of the cells with some of their genes, half of them treated."""
        some = np.sort(rng.permutation(len(self.rows))[:MAX_CELLS])
        counts = self.cells.counts[self.rows[some]]
        usable = np.flatnonzero(np.asarray(counts.sum(0)).ravel() >= MIN_COUNTS)
        genes = np.sort(rng.permutation(usable)[:MAX_GENES])
        obs = self.obs.iloc[some].reset_index(drop=True)
        obs[FAKE] = self._treated(obs, rng)
        obs[SIZE] = self.cells.size[self.rows[some]]
        obs.index = obs.index.astype(str)
        var = pd.DataFrame(index=[f"gene_{gene}" for gene in genes])
        return AnnData(counts[:, genes], obs=obs, var=var)

    def _treated(self, obs: pd.DataFrame, rng: np.random.Generator) -> NDArray:
        """Return which cells are treated: half of those of every donor or sample, or of units."""
        if self.unit_key is not None:
            units = rng.permutation(obs[self.unit_key].unique())
            return obs[self.unit_key].isin(units[: len(units) // 2]).to_numpy()
        within = [key for key in (self.setup["cluster_key"], *self.categorical) if key is not None]
        order = pd.Series(rng.permutation(len(obs)), obs.index)
        if not within:
            return (order < len(obs) // 2).to_numpy()
        rank = order.groupby([obs[key] for key in within], observed=True).rank(method="first")
        return (rank % 2 == 0).to_numpy()

    def options(self, cells: AnnData) -> dict:
        """Return the arguments of ``setup_anndata`` for cells with a fake treatment."""
        varying = [k for k in (*self.categorical, *self.continuous) if cells.obs[k].nunique() > 1]
        return {
            "treatment_key": FAKE,
            "size_factor_key": SIZE,
            "cluster_key": self.setup["cluster_key"],
            "categorical_covariate_keys": [key for key in self.categorical if key in varying],
            "continuous_covariate_keys": [key for key in self.continuous if key in varying],
        }


def run_placebo(
    model: type[BaseModelClass],
    cells: PlaceboCells,
    init: dict,
    *,
    n: int,
    seed: int,
    identification: str,
    enable_progress_bar: bool,
) -> pd.DataFrame:
    """Give fake treatments and test for their effects; arguments as of `LatentConfounder`."""
    rng, lines, p_values = np.random.default_rng(seed), [], {}
    with stage("Placebo", n, unit="fit", is_shown=enable_progress_bar) as bar:
        for number in range(n):
            fake = cells.draw(rng)
            with _quiet():
                model.setup_anndata(fake, **cells.options(fake))
                fitted = model(fake, **init)
                fitted.train(accelerator="cpu", enable_progress_bar=False)
                effects = fitted.get_treatment_effects(identification=identification)
            known = effects["p_value"].dropna().to_numpy()
            lines.append(_line(known, effects))
            p_values[number] = known.tolist()
            bar.update()
    table = pd.DataFrame(lines, index=pd.RangeIndex(n, name="fake treatment"))
    table.attrs = {"p_values": p_values}
    return table


def _line(p_values: NDArray, effects: pd.DataFrame) -> dict[str, object]:
    """Return the row of one fake treatment."""
    return {
        "n_genes": len(p_values),
        **{name: (p_values < level).mean() for name, level in LEVELS.items()},
        "called": int((effects["q_value"] < FDR).sum()),
        "identification": effects.attrs["identification"],
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what is said of fake treatments from being taken for the real one."""
    logger = logging.getLogger("scovert.model.confounder")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def placebo_row(found: dict[str, list[float]]) -> HealthRow:
    """Return the verdict of a placebo, by the columns of its table."""
    share = float(np.mean(found["below_0.05"]))
    called = float(np.sum(found["called"]) / max(np.sum(found["n_genes"]), 1))
    advice = ""
    if share > MAX_SHARE or called > MAX_CALLED:
        advice = (
            f"Of fake treatments {share:.0%} of the p-values are below .05, and {called:.1%} of "
            "the genes are called: p-values are too small on these cells. Compare with "
            "pseudobulk, or name what is treated as a whole (`cluster_key`)."
        )
    return row("placebo: share of p-values below .05", share, advice)
