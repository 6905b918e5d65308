"""Tables of the benchmark of deconvolution, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from benchmarks.bulk.goals import GATES, GOALS, Results
from benchmarks.bulk.scenarios import (
    AVERAGES,
    COUNTED,
    INTERVALS,
    METHODS,
    OURS,
    PARTS,
    SCENARIOS,
    SPEED,
    STUDY,
)
from benchmarks.goals import goal_lines
from benchmarks.runs import header, markdown

__all__ = ["COLUMNS", "report"]

COLUMNS = {  # of the tables: heading and digits
    "rmse": ("RMSE", 3),
    "rmse_single": ("RMSE, single", 3),
    "bias": ("bias", 3),
    "within": ("within", 3),
    "ccc": ("CCC", 3),
    "r": ("r", 2),
    "measured_1": ("1 measured", 3),
    "measured_2": ("2 measured", 3),
    "measured_3": ("3 measured", 3),
    "measured_2_coverage": ("coverage, 2 measured", 2),
    "measured_2_half_width": ("half-width, 2 measured", 3),
    "coverage": ("coverage", 2),
    "half_width": ("half-width", 3),
    "between": ("coverage, between samples", 2),
    "relative_coverage": ("coverage, sampling alone", 2),
    "relative_half_width": ("half-width, sampling alone", 3),
    "relative_ratio_coverage": ("coverage, ratios", 2),
    "relative_ratio_half_width": ("half-width, ratios", 2),
    "factor": ("multiplier", 2),
    "disagreement": ("disagreement", 3),
    "r_response": ("r", 2),
    "r_specific": ("r, specific", 2),
    "cpu": ("CPU s", 1),
    "gib": ("GiB", 2),
}
NAMES = {"CD4 T": "CD4", "CD8 T": "CD8", "Monocyte": "Mono"}  # one name for a type
OF_WAYS = {  # tables of the ways to the sampling error
    "relative_coverage": "Coverage by the sampling error alone",
    "relative_ratio_coverage": "Coverage of ratios between samples by the sampling error alone",
    "coverage": "Coverage with the errors of samples and those that all share",
}
LEGEND = """\
Errors of cell fractions. *RMSE*: over all samples and types; *bias*: its part that is constant
over the samples, by type; *within*: the rest. *CCC*: Lin's concordance over all entries; *r*: mean
over the types of the correlation over the samples. *1, 2, 3 measured*: RMSE of the other samples
when so many have measured fractions, mean of 20 random choices. *coverage* and *half-width*: of
90 % intervals; *between samples*: of log fractions less their mean over the samples, by the
relative intervals. *CPU s*, *GiB*: one run on one thread, and the memory that it adds. Means over
the seeds; means over studies are means over the references of a study first.

*joint* is `BulkDeconvolution` as it comes; *network* has `method="network"`, *prototype VAE*
`signature="prototype_vae"`. MuSiC, BayesPrism (fixed point, reference updated), nu-SVR,
dtangle and NNLS (on the genes of ours) are written for the benchmark; fractions of RNA become
fractions of cells by the table and formula of ours, and measured samples correct them by the same
rule. rectangle and Scaden are their packages with their own corrections.
"""
WAYS_NOTE = """\
From one fit, fractions of RNA are drawn in several ways; the rest of the chain is that of the
model. *bootstrap x multiplier* is what the model does. *Laplace*: normal approximation with the
expected information of the t distributions at the fit, shifts of genes integrated out, to first
order in log shares; *at the mode*: Hessian and logits of the mode, which lies beyond the fit.
*multiplier*: by the rule of the model, from two simulated cohorts. *Pyro*: normal distributions
fitted to the posterior of everything, standard deviations included, by 6,000 steps at a falling
rate, without a multiplier. *Sampling alone* leaves out what is wrong with a type in a sample and
in all of them (in blood also the RNA content, so that it cannot cover); *ratios* are log fractions
less their mean over the samples, from which what all share cancels. *CPU s* are of the draws and
the multiplier, without the fit. Two seeds, of blood one.

Found: with the other errors, all ways cover alike, since the sampling error is a small part; the
ways differ in what the sampling error covers, and that of the bootstrap with its multiplier covers
most of fractions and of ratios between samples in most sets. So it stays, though Laplace takes a
quarter of the time. All of them are too narrow by themselves, as real references differ from bulks
by more than the simulated cohorts do. At the mode, logits of states with next to no cells have run
off to where the density is flat. Pyro's are the narrowest, and with a multiplier would take
minutes; its rows are of a version that also took genes whose differences sampling explains, and
whose other errors were those of all samples only, .45 on the log scale. Their bounds still rose a
little in the last steps (stored with the rows), that of low rank by more."""
NOTES = {  # of parts
    "genes": "The table of RNA content is fixed, and so is the offset of the logarithm, 10 counts "
    "per million: it is no option of the model.",
    "averages": "*RMSE, single*: mean over the fits with one reference that are averaged.",
    "pseudobulks": "*Kang donors*: controls and stimulated cells of four donors with a gene "
    "shift, three samples of each, reference of four other donors, controls only. *Kang x Hao*: "
    "controls as they were counted. RNA content of the reference.",
    "mixtures": "RNA content of the reference for cells, none for RNA.",
    "simulations": "RNA content of the reference. The truth counts cells of a missing type, the "
    "estimates cannot. *unknown*: `unknown=True`; *50 genes*: `n_genes_per_type=50`, without "
    "intervals; the best of such variants is known by hindsight only.",
    "posteriors": WAYS_NOTE,
    "expression": "Log fold changes of stimulated over control samples of *Kang donors*, against "
    "those of the cells that were mixed, for genes with 50 counts per million; *specific*: "
    "without the mean over the types, for genes that all of them express. Means over the types.",
    "speed": "100 bulks, 30 states of 10 types, about 1,000 informative genes, without intervals; "
    "the memory is that of a process that does nothing else.",
}


def report(results: list[dict]) -> str:
    """Goals and tables of all parts, in Markdown, with versions and machine in the header."""
    texts = ["# Deconvolution of bulks", header(results), LEGEND]
    if not results:
        return "\n\n".join(texts)
    rows = in_order(pd.DataFrame(results))
    found = Results(rows)
    for part, title in PARTS.items():
        own = rows[rows["part"] == part]
        if len(own):
            goals = [markdown(goal_lines(GOALS[part], found))] if GOALS[part] else []
            note = [NOTES[part]] if part in NOTES else []
            texts += [f"## {title}", *note, *goals, *tables(part, own, found)]
    return "\n\n".join(text.strip() for text in texts) + "\n"


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Sort by set and method, whatever ran first."""
    sets = {name: i for i, name in enumerate((*SCENARIOS, *AVERAGES, SPEED))}
    methods = {name: i for i, name in enumerate(METHODS)}
    keys = pd.DataFrame({"set": rows["scenario"].map(sets), "method": rows["method"].map(methods)})
    return rows.loc[keys.sort_values(["set", "method"], kind="stable").index]


def tables(part: str, rows: pd.DataFrame, found: Results) -> Iterator[str]:
    """RMSE of each set and method; means, and of blood the types and the gate of the variants."""
    methods = [m for m in METHODS if m in set(rows["method"])]
    if part == "posteriors":
        yield from of_ways(rows, methods)
        return
    if part in ("averages", "expression", "speed"):
        yield by_set(rows)
        return
    yield "RMSE:"
    yield wide(rows, methods, "rmse")
    if part == "genes":
        return
    if part == "blood":
        yield "Means over the three studies, of the methods that were run on all sets:"
        yield by_method(rows.assign(study=rows["scenario"].map(STUDY)), methods)
        yield "Correlation of each type, mean over the references:"
        yield by_type(rows)
        yield "What a variant needs to become the default:"
        yield markdown(goal_lines(GATES, found))
        return
    yield "Means over the sets:"
    yield by_method(rows.assign(study=rows["scenario"]), methods)


def of_ways(rows: pd.DataFrame, methods: list[str]) -> Iterator[str]:
    """Coverage, half-width and cost of the ways to the sampling error."""
    rows = rows.assign(scenario=rows["scenario"].str.removesuffix(INTERVALS))
    n_ways = rows.groupby(["scenario", "seed"])["method"].transform("nunique")
    rows = rows[n_ways == len(methods)]  # the seeds that all have
    is_blood = rows["scenario"].isin(STUDY)
    for column, about in OF_WAYS.items():
        yield f"{about}:"
        yield wide(rows, methods, column, digits=2, has_best=False)
    for about, own in (("blood", is_blood), ("pseudobulks and simulations", ~is_blood)):
        yield f"Means over the sets, {about}:"
        yield by_method(rows[own].assign(study=rows["scenario"]), methods)


def wide(
    rows: pd.DataFrame,
    methods: list[str],
    column: str,
    *,
    digits: int = 3,
    has_best: bool = True,
) -> str:
    """One line for each set, one column for each method; the least is bold if it is the best."""
    table = rows.groupby(["scenario", "method"], sort=False)[column].mean().unstack("method")
    lines = [["set", *methods]]
    for name in dict.fromkeys(rows["scenario"]):
        values = table.loc[name].reindex(methods)
        shown = [_shown(v, digits) for v in values]
        if has_best:
            shown = [
                f"**{x}**" if v == values.min() else x for x, v in zip(shown, values, strict=True)
            ]
        lines.append([name.removesuffix(", genes"), *shown])
    return markdown(lines)


def by_method(rows: pd.DataFrame, methods: list[str]) -> str:
    """One line for each method: means over the sets of a study, then over the studies."""
    sets = rows["scenario"].nunique()
    columns = [c for c in COLUMNS if c in rows and rows[c].notna().any()]
    lines = [["method", *(COLUMNS[c][0] for c in columns)]]
    for method in methods:
        own = rows[rows["method"] == method]
        if own["scenario"].nunique() == sets:
            means = own.groupby(["study", "scenario"])[columns].mean().groupby("study").mean()
            lines.append([method, *(_shown(means[c].mean(), COLUMNS[c][1]) for c in columns)])
    return markdown(lines)


def by_set(rows: pd.DataFrame) -> str:
    """One line for each set and method, with all that was measured."""
    columns = [c for c in COLUMNS if c in rows and rows[c].notna().any()]
    lines = [["set", "method", *(COLUMNS[c][0] for c in columns), "seeds"]]
    for (name, method), own in rows.groupby(["scenario", "method"], sort=False):
        shown = [_shown(own[c].mean(), COLUMNS[c][1]) for c in columns]
        lines.append([name, method, *shown, str(len(own))])
    return markdown(lines)


def by_type(rows: pd.DataFrame) -> str:
    """One line for each study and method, one column for each type."""
    rows = rows[rows["method"].isin((*OURS, *COUNTED))]
    rows = rows.assign(study=rows["scenario"].map(STUDY))
    r = pd.DataFrame(list(rows["r_of"]), rows.index).rename(columns=NAMES)
    r = r.T.groupby(level=0, sort=False).first().T
    table = r.groupby([rows["study"], rows["method"]], sort=False).mean()
    lines = [["study", "method", *table.columns]]
    for (study, method), values in table.iterrows():
        lines.append([study, method, *(_shown(v, 2) for v in values)])
    return markdown(lines)


def _shown(value: float, digits: int) -> str:
    return "-" if pd.isna(value) else f"{value:.{digits}f}"
