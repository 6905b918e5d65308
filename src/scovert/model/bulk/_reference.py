"""Signatures of a reference: found in its cells, kept as tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scovert.core._counts import as_csr, get_counts
from scovert.core._slots import slot_name
from scovert.core.training._checkpoint import Resumable
from scovert.model.bulk._checks import check_studies
from scovert.model.bulk._signature import Signature
from scovert.model.bulk._states import find_states
from scovert.model.bulk.variants._prototypes import learn_prototypes

__all__ = ["Learning", "find_signatures", "restored", "stored"]

TABLES = ("state_type", "counts", "between", "detected", "n_cells")
"""Attributes of a signature that are arrays; names of genes and types are stored by the model."""


@dataclass(frozen=True)
class Learning:
    """How profiles are learned: arguments of the model, seed, and options of the training."""

    n_states: int
    signature: str
    min_cells: int
    seed: int
    resumable: Resumable
    trainer_kwargs: dict[str, object]


def find_signatures(
    adata: AnnData, is_kept: NDArray, setup: dict, learning: Learning
) -> tuple[dict[str, Signature], dict[str, pd.DataFrame]]:
    """Return the signature of every study of a reference by its name, and what was recorded.

    They hold the genes that are kept. A type with too few cells in a study is left out of its
    signature.
    """
    counts = as_csr(get_counts(adata, setup["layer"]))
    counts = counts.astype(np.result_type(counts.dtype, np.float32), copy=False)
    counts, genes = counts[:, is_kept], adata.var_names[is_kept]
    labels = adata.obs[setup["labels_key"]].astype(str).to_numpy()
    batch, subject = (
        None if setup[key] is None else adata.obs[setup[key]].astype(str).to_numpy()
        for key in ("batch_key", "subject_key")
    )
    studies = {"": np.ones(len(labels), bool)}
    if batch is not None:
        studies = {str(name): batch == name for name in pd.unique(batch)}
    check_studies(labels, studies, learning.min_cells)
    signatures, history = {}, {}
    for name, is_own in studies.items():
        sizes = pd.Series(labels[is_own]).value_counts()
        enough = sizes.index[sizes >= learning.min_cells]
        rows = np.flatnonzero(is_own & np.isin(labels, enough))
        types = pd.Categorical(labels[rows])
        own = counts[rows]
        subjects = None if subject is None else subject[rows]
        if learning.signature == "states":
            states = find_states(own, types, learning.n_states, learning.seed)
            signatures[name] = Signature.of(own, genes, types, states, subjects)
            continue
        fit = learn_prototypes(
            own,
            types,
            learning.n_states,
            names=adata.obs_names[rows],
            seed=learning.seed,
            resumable=learning.resumable.part(slot_name(name)),
            **learning.trainer_kwargs,
        )
        learned = Signature.of(own, genes, types, fit.states, subjects)
        signatures[name] = learned.with_shares(fit.shares)
        prefix = f"{name}/" if len(studies) > 1 else ""
        history |= {prefix + k: v.set_axis([prefix + k], axis=1) for k, v in fit.history.items()}
    return signatures, history


def stored(signatures: dict[str, Signature]) -> dict[str, NDArray]:
    """Return the tables of signatures by names that hold the number of the study."""
    return {
        f"{i}/{name}": getattr(signature, name)
        for i, signature in enumerate(signatures.values())
        for name in TABLES
    }


def restored(
    tables: dict[str, NDArray], studies: dict[str, list[str]], genes: pd.Index
) -> dict[str, Signature]:
    """Return signatures from their tables, the types of every study, and the genes they hold."""
    return {
        study: Signature(genes, tuple(types), **{name: tables[f"{i}/{name}"] for name in TABLES})
        for i, (study, types) in enumerate(studies.items())
    }
