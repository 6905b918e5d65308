"""What is measured by the benchmark of speed: parts, and the goals of their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import NamedTuple

from benchmarks.goals import Bound, Goal
from benchmarks.speed import likelihood, scale, step, training, whole

__all__ = ["PARTS", "Part", "measure"]


class Part(NamedTuple):
    """Title, what yields the rows, what the columns mean, the goal of a row, and what it needs."""

    title: str
    measure: Callable[[bool], Iterator[dict]]
    about: str
    goal: Callable[[dict], Goal | None] = lambda row: None
    needs: str = ""


def goal(column: str, relation: str, bound: Bound, aim: Bound | None = None) -> Goal:
    """Say what a column of a row has to be."""
    return Goal(column, itemgetter(column), relation, bound, aim)


def training_goal(row: dict) -> Goal | None:
    if row["method"] == "default":
        return goal("x SCVI", ">=", 1.7, 2.0)
    if row["method"] == "none" and "4000" in row["data"]:
        return goal("x SCVI", ">=", 2.5, 3.0)
    if row["method"] == "none":
        return goal("x SCVI", ">=", 2.3, 2.7 if row["minibatch"] == 128 else 2.8)
    return None


def parity_goal(row: dict) -> Goal | None:
    return None if row["method"] == "SCVI" else goal("difference from SCVI, %", "<=", 0.5)


def memory_goal(row: dict) -> Goal | None:
    return None if row["method"] == "SCVI" else goal("above the data, GB", "<=", 0.5)


def anchors_goal(row: dict) -> Goal | None:
    return goal("epochs", "<=", 5.0) if row["cells"] >= 100_000 else None


PARTS = {
    "whole": Part(
        "Whole analyses",
        whole.whole,
        "Each model as it comes, with data in memory: `setup_anndata` and `train`, the search for "
        "anchors included, then `annotate` without the dense layer. LatentConfounder seeks the "
        "number of confounders itself. BulkDeconvolution takes 20 samples, with intervals; its "
        "cells are those of the reference. DistanceEmbedding takes samples and their weighted "
        "UniFrac distances; of MaskedImputation the second dataset lacks a third of the genes. "
        "Memory is the peak above the data.",
    ),
    "training": Part(
        "Training",
        training.training,
        "A cell counts once for each time it is drawn; partners of anchored cells are encoded but "
        "not drawn. Starting is left out (a call with 4 epochs less one with 1), and so is the "
        "search for anchors, which happens once before training and is shown apart.",
        training_goal,
    ),
    "profiles": Part(
        "Where the time of a step goes",
        step.profiles,
        "Own time by cProfile, which makes Python code look up to twice as dear. 8,000 x 2000.",
    ),
    "ladder": Part(
        "What each optimisation gains",
        step.ladder,
        "*none*, 8,000 x 2000, with one optimisation taken away.",
    ),
    "parity": Part(
        "The same ELBO",
        likelihood.parity,
        "Negative ELBO per cell with KL weight 1 after 60 epochs, with the same minibatches and "
        "the same KL weight in every step: 4,096 cells x 2000 genes to train on, 1,024 others "
        "held out, ten samples of each posterior, the same code for both. A negative difference "
        "(of the held-out cells) means that PairedVAE is better. PairedVAE starts its decoder at "
        "the mean of the data; the third row starts it at the random weights of that SCVI.",
        parity_goal,
    ),
    "inference": Part(
        "Latent space",
        scale.inference,
        "`get_latent_representation`, all of the call.",
        lambda row: goal("x SCVI", ">=", 1.0, 1.2),
    ),
    "memory": Part(
        "Memory",
        scale.memory,
        "Peak memory above that before `setup_anndata`, when the data (2000 genes) are in memory "
        "and the libraries are loaded: the model, an epoch with minibatches of 1,024, the latent "
        "space. A new process for each row; beyond 20,000 the cells repeat.",
        memory_goal,
    ),
    "files": Part(
        "Training from a file",
        training.files,
        "*none*, from an uncompressed `.h5ad` that is opened with `backed='r'`.",
        lambda row: goal("x memory", "<=", 1.15, 1.05),
    ),
    "stores": Part(
        "Reading from a file",
        scale.stores,
        "Nothing but the reading, in shuffled minibatches of 128, of 100,000 cells x 2000 genes "
        "that the system does not hold in memory; `speed/stores.py`. Training on these cells "
        "takes 100 times what *Training* shows for 1,000. All but the h5ad are compressed. "
        "*zarrs* is a faster decoder that zarr can be told to use.",
        needs="python3.12",
    ),
    "processes": Part(
        "Two processes",
        scale.processes,
        "*none*, `strategy='ddp'` with gloo on the CPU; epochs after the first. The minibatch is "
        "that of each process, so two take half the steps.",
        lambda row: goal("x one", "<=", 0.7, 0.55),
    ),
    "anchors": Part(
        "Search for anchors",
        scale.anchors,
        "`measure` of `speed/anchors.py` with 2000 genes and 2 datasets, compilation included. An "
        "epoch is one of *default* with minibatches of 128, at the cost per cell with 20,000.",
        anchors_goal,
    ),
    "kernels": Part(
        "Likelihoods by themselves",
        likelihood.kernels,
        "Forward and backward. The sparse zero-inflated one is a sketch in "
        "`speed/likelihood.py` with plain autograd, no part of scovert.",
    ),
    "gpu": Part(
        "Training on a GPU",
        training.gpu,
        "Seconds of the clock on the wall, as in *Training*.",
        needs="a GPU",
    ),
}


def measure(name: str, quick: bool) -> list[dict]:
    rows = []
    for row in PARTS[name].measure(quick):
        print(name, row, flush=True)
        rows.append(row)
    return rows
