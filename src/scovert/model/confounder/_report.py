"""What a report says of effects."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import pandas as pd
from scvi.model.base import BaseModelClass

from scovert.core.report import Figure, Report, Table, parameters_of

__all__ = ["report_of"]

FDR = 0.05
"""False discovery rate at which genes are counted."""
MAX_ARMS = 4
"""Arms that are drawn, those with most genes called: more would make a page that nobody reads."""
WHOLE = "`model.get_treatment_effects()`, or `--effects EFFECTS.csv` on the command line."
COMMON = (
    "What was measured and may differ between the arms was named as a covariate, and nothing that "
    "the treatment changes was.",
    "Counts are negative binomial, log-linear in treatment, covariates and confounders.",
)
INDEPENDENT = "Cells count as independent: no donors or samples were named (`cluster_key`)."
BY_DONOR = "Errors are by donors or samples: those of `cluster_key`, which count as independent."
REFERENCES = (
    "Wang et al. Confounder adjustment in multiple hypothesis testing. The Annals of Statistics "
    "45, 1863-1894 (2017).",
    "Benjamini and Hochberg. Controlling the false discovery rate. Journal of the Royal "
    "Statistical Society B 57, 289-300 (1995).",
)
DONORS = (
    "Bell and McCaffrey. Bias reduction in standard errors for linear regression with multi-stage "
    "samples. Survey Methodology 28, 169-181 (2002).",
)


def report_of(model: BaseModelClass, effects: pd.DataFrame, check: pd.DataFrame) -> Report:
    """Describe a trained LatentConfounder.

    Parameters
    ----------
    model
        The model.
    effects, check
        What ``get_treatment_effects`` and ``check`` return of one identification.
    """
    arms = {"": effects}
    if effects.index.nlevels > 1:
        arms = {arm: own.droplevel("arm") for arm, own in effects.groupby(level="arm")}
    counted = [f"{arm}{': ' if arm else ''}{_count(own)}" for arm, own in arms.items()]
    cluster_key = model.registry["setup_args"]["cluster_key"]
    assumed = effects.attrs["assumption"].split("; ")
    said = [f"{sentence}." for sentence in assumed]
    design = [f"{effects.attrs['design']}."] if effects.attrs["design"] else []
    n_genes = effects.index.get_level_values("gene").nunique()
    cells = (
        f"{model.adata.n_obs:,} cells, {n_genes:,} genes, {model.n_latent} inferred confounders"
    )
    return Report(
        model="LatentConfounder",
        title=f"Effects of {effects.attrs['reference']}",
        summary=(f"{cells}.", *design, *said, *counted),
        check=check,
        overview=_overview(arms) if len(arms) > 1 else pd.DataFrame(),
        assumptions=(*said, INDEPENDENT if cluster_key is None else BY_DONOR, *COMMON),
        parameters=parameters_of(model),
        references=REFERENCES if cluster_key is None else (*REFERENCES, *DONORS),
        figures=tuple(_figures(model, arms)),
        tables=(Table("Genes with the smallest q-values", _sorted(effects), WHOLE),),
    )


def _count(table: pd.DataFrame) -> str:
    """Say how many genes respond."""
    n_tested = int(table["q_value"].notna().sum())
    if n_tested == 0:
        return "no gene has a p-value; the column `reason` of the effects says why."
    called, unadjusted = (int((table[q] < FDR).sum()) for q in ("q_value", "q_value_naive"))
    return (
        f"{called} of {n_tested} genes have q < {FDR} ({unadjusted} without regard to unmeasured "
        "confounders)."
    )


def _overview(arms: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return how many genes respond in each arm."""
    rows = {
        arm: {
            "genes tested": int(own["q_value"].notna().sum()),
            f"q < {FDR}": int((own["q_value"] < FDR).sum()),
            f"unadjusted q < {FDR}": int((own["q_value_naive"] < FDR).sum()),
            "identified by": own["identification"].iloc[0],
        }
        for arm, own in arms.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("arm")


def _sorted(effects: pd.DataFrame) -> pd.DataFrame:
    """Return the effects, those that are least likely by chance first."""
    by_size = effects.assign(size=-effects["log2_fc"].abs())
    return by_size.sort_values(["q_value", "size"]).drop(columns="size")


def _figures(model: BaseModelClass, arms: Mapping[str, pd.DataFrame]) -> list[Figure]:
    from scovert import pl

    tested = {arm: own for arm, own in arms.items() if own["q_value"].notna().any()}
    most = sorted(tested, key=lambda arm: -(tested[arm]["q_value"] < FDR).sum())[:MAX_ARMS]
    figures = [
        Figure(
            f"Effects{f' of {arm}' if arm else ''} before and after adjustment",
            "Each point is a gene: left without, right with regard to what was inferred. Colour "
            "and shape say which of the two analyses calls it.",
            partial(pl.volcano, tested[arm]),
        )
        for arm in most
    ]
    if model.scree_ is not None:
        figures.append(
            Figure(
                "How many confounders",
                "Structure that is left in the residuals, and what chance reaches in permuted "
                "data: confounders are added as long as the first is above the second.",
                partial(pl.scree, model.scree),
            )
        )
    caption = "What the fit lowered, by round. It should level off."
    return [*figures, Figure("Fit", caption, partial(pl.history, model))]
