"""LatentConfounder and its peers, fitted to the same data; prints goals and tables in Markdown.

    python -m benchmarks.confounder --quick                     # smoke run: one seed, few sets
    python -m benchmarks.confounder --jobs 2                    # continues a run that was stopped
    python -m benchmarks.confounder --parts donors arms         # only these; the others stay
    python -m benchmarks.confounder --methods auto oracle       # only these
    python -m benchmarks.confounder --table                     # only renders what is stored

Each finished fit is a line of the results file, and is not repeated: to fit it again, delete its
line.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pandas as pd

from benchmarks import runs
from benchmarks.confounder.fits import fit
from benchmarks.confounder.goals import GOALS, Results
from benchmarks.confounder.methods import CAUSARRAY_VERSION, METHODS, make_causarray_environment
from benchmarks.confounder.pseudobulk import PYDESEQ2_VERSION
from benchmarks.confounder.scenarios import FULL_BATCH, PARTS, QUICK, SCENARIOS
from benchmarks.data import is_missing
from benchmarks.goals import goal_lines

FIRST_SEED = 100
PEERS = ("causarray", "causarray, tight")

COLUMNS = {  # of the tables: heading and digits
    "abs_r": ("r", 3),
    "R": ("R", 3),
    "auroc": ("AUROC", 4),
    "rank_r": ("rank r", 3),
    "rank_r_unadjusted": ("unadjusted", 3),
    "sign": ("sign", 3),
    "flips": ("flips", 0),
    "rmse": ("RMSE", 3),
    "coverage": ("coverage", 3),
    "called": ("called", 1),
    "called_unadjusted": ("called, unadjusted", 1),
    "fpr": ("FPR", 3),
    "fdp": ("FDP", 3),
    "power": ("power", 3),
    "precision": ("precision", 3),
    "recall": ("recall", 3),
    "leakage": ("leakage", 3),
    "dbpr_treatment": ("DBPR treatment", 4),
    "dbpr_counts": ("DBPR counts", 4),
    "n_latent": ("factors", 1),
    "cpu": ("fit, s", 1),
    "cpu_effects": ("effects, s", 1),
    "wall": ("wall, s", 1),
    "gib_before": ("GiB, data", 2),
    "gib_train": ("GiB, fit", 2),
    "gib_effects": ("GiB, effects", 2),
    "distance_randomised": ("distance, se", 4),
    "distance_randomised_worst": ("worst", 3),
    "distance_auto": ("distance of auto, se", 4),
    "distance_auto_worst": ("worst of auto", 3),
}
WORST_OF = ("called", "fdp")
LEGEND = """\
Means over the seeds; in brackets the worst seed. Effects and RMSE on the log2 scale. *called*:
genes at 5 % by Benjamini-Hochberg; *FDP*: mean of the realised shares of false discoveries, 0
without discoveries. *rank r*, *sign* (where the reference is 3 standard errors from zero),
*precision* and *recall* are against the fit that knows the type, *oracle*; of ordinary experiments
against *pseudobulk*, where *unadjusted* is the rank r of effects without confounders, and *flips*
are opposite signs among genes that both call. *leakage*: largest
correlation of an inferred confounder with the treatment given the covariates and the true
confounders. *DBPR*: held-out share of the deviance that the confounders explain. *coverage*: of
the effect plus and minus 1.96 standard errors. *fit* and *effects*: CPU seconds of one thread.
*choice*: what identified the effects, with the number of seeds.

*auto* is `LatentConfounder` as it comes; *binary* has `n_latent=1, z_type="binary"`. *unadjusted*
and *oracle* are `LatentConfounder(n_latent=0)`, the latter with the hidden label or the true
confounders among the covariates. *Wilcoxon*: on log-normalised values. causarray is given the
true number of confounders and the size factors; *tight* stops at `max_iters=300, rel_tol=1e-6,
warmup=50, patience=20`.
"""


def tasks_of(args: argparse.Namespace) -> Iterator[list[runs.Task]]:
    """List the fits that were asked for and can be done, by data set."""
    for name, scenario in SCENARIOS.items():
        is_wanted = scenario.part in args.parts and (name in QUICK or not args.quick)
        if not is_wanted or is_missing(name, scenario.file):
            continue
        methods = [m for m in scenario.methods if m in args.methods]
        n_seeds = min(scenario.n_seeds, args.n_seeds or scenario.n_seeds)
        for seed in range(FIRST_SEED, FIRST_SEED + n_seeds):
            yield [runs.Task(name, method, seed) for method in methods]


def run(args: argparse.Namespace) -> int:
    """Fit what is missing, and return the number of failures."""
    groups = runs.not_stored(tasks_of(args), args.results)
    if any(task.method in PEERS for group in groups for task in group):
        make_causarray_environment()
    made_with = runs.run_facts("scipy") | {
        "causarray": CAUSARRAY_VERSION,
        "pydeseq2": PYDESEQ2_VERSION,
    }
    return runs.run_tasks(
        groups,
        fit,
        args,
        made_with=made_with | {"threads per fit": str(args.threads)},
        summary=lambda result: f"{result.get('choice', '')}: {runs.in_words(result, COLUMNS)}",
    )


def report(results: list[dict]) -> str:
    """Goals and tables of all parts, in Markdown, with versions and machine in the header."""
    texts = ["# Hidden confounders", runs.header(results), LEGEND]
    for part, title in PARTS.items():
        rows = pd.DataFrame([r for r in results if r["part"] == part])
        if len(rows):
            texts += [f"## {title}", goals(part, rows), *tables(part, rows)]
    return "\n\n".join(text.strip() for text in texts) + "\n"


def goals(part: str, rows: pd.DataFrame) -> str:
    return runs.markdown(goal_lines(GOALS[part], Results(rows)))


def tables(part: str, rows: pd.DataFrame) -> Iterator[str]:
    """One table for each scenario; of the part on scaling one for all."""
    if part == "scaling":
        yield table(rows, "scenario", [*SCENARIOS])
        return
    for name, scenario in SCENARIOS.items():
        own = rows[rows["scenario"] == name]
        if scenario.part == part and len(own):
            yield f"### {name}: {scenario.about}"
            yield knock_outs(own) if name == "knock-outs" else table(own, "method", METHODS)


def table(rows: pd.DataFrame, by: str, order: list[str]) -> str:
    """One line for each method, or each scenario."""
    shown = [c for c in COLUMNS if c in rows and rows[c].notna().any()]
    has_choice = "choice" in rows or "fake_choice" in rows
    headings = [by, *(COLUMNS[c][0] for c in shown), *(["choice"] * has_choice), "seeds"]
    lines = [headings]
    for name in [n for n in order if n in set(rows[by])]:
        own = rows[rows[by] == name]
        line = [name, *(_number(own, c) for c in shown)]
        choices = [_choices(own)] if has_choice else []
        lines.append([*line, *choices, str(len(own))])
    return runs.markdown(lines)


def _number(rows: pd.DataFrame, column: str) -> str:
    values = rows[column].dropna().astype(float)
    if values.empty:
        return "-"
    digits = COLUMNS[column][1]
    worst = f" ({values.max():.{digits}f})" if column in WORST_OF and len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{worst}"


def _choices(rows: pd.DataFrame) -> str:
    """Say what identified the effects, where there was something to identify."""
    if "fake_choice" in rows:
        choice, has_latent = rows["fake_choice"], rows["n_latent"] > 0
    else:
        choice, has_latent = rows["choice"], rows.get("n_latent", 0) > 0
    refused = rows["is_refused"] == True  # noqa: E712
    words = choice.where(~refused, choice + ", refused").where(has_latent).dropna()
    return ", ".join(f"{word} {n}" for word, n in words.value_counts().items()) or "-"


def knock_outs(rows: pd.DataFrame) -> str:
    """One line for each arm."""
    found = rows.set_index("method")["arms"]
    lines = [["arm", "unadjusted", *(f"{m}, kept" for m in found.index), "auto by"]]
    for arm in sorted(found.iloc[0], key=lambda a: -found.iloc[0][a]["unadjusted"]):
        kept = (f"{t[arm]['called']}, {t[arm]['kept']}" for t in found)
        lines.append(
            [arm, str(found.iloc[0][arm]["unadjusted"]), *kept, found["auto"][arm]["choice"]]
        )
    return runs.markdown(lines)


def arguments() -> argparse.Namespace:
    methods = [*METHODS, FULL_BATCH]
    parser = runs.benchmark_parser(__doc__, "confounder", parts=PARTS, methods=methods)
    parser.add_argument("--n-seeds", type=int, help="at most so many, from 100; default: all")
    parser.add_argument("--quick", action="store_true", help="one seed, a set of most parts")
    args = runs.parsed(parser, "confounder")
    if args.quick:
        args.n_seeds = 1
        args.methods = [method for method in args.methods if method not in PEERS]
    return args


def main() -> None:
    args = arguments()
    failures = 0 if args.table else run(args)
    runs.finish(args, report, failures)


if __name__ == "__main__":
    main()
