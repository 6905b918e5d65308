"""Rows of ``check()`` of a model of niches."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scvi.model.base import BaseModelClass
from sklearn.neighbors import NearestNeighbors

from scovert.core._diagnostics import HealthRow, dispersion_row, finite_row, row
from scovert.model.niche._expression import decoded_and_true
from scovert.model.niche._neighborhood import Asked, ask_about, decode, encode, own_states

__all__ = [
    "certainty_row",
    "crowding_row",
    "diagnose",
    "diversity_row",
    "gain_row",
    "latent_rows",
    "separation_row",
    "state_row",
]

N_LOOKED_AT = 2000
"""Cells that are decoded, at most."""

ACTIVE_SD = 0.1
"""Standard deviation of the posterior means of a latent dimension that tells something."""
FAINT = 0.05
"""Divergence in nats that shuffled positions stay below."""
IN_USE = 0.1
"""Mean share of a state in use, by that if all were as frequent."""
MIN_IN_USE = 0.25
"""Tissue of six types uses about half of 32 states: fewer in use than this are a waste."""
MIN_DIVERSITY = 0.5
"""Of decoded neighbourhoods by true ones: 0.73 to 0.86 on real slides."""
MIN_CERTAINTY = 0.5
"""Probability of the likeliest state below which a cell is more likely in another."""
MAX_CROWDED_OUT = 0.05
"""Share of cells with fewer neighbours that hardly moves the shares of a slide."""
N_LIKE = 15
"""Cells in like surroundings that are looked at, as where niches are judged by nearest cells."""
MAX_SEPARATION = 0.5
"""Of samples that were measured alike .04; of sections of one cortex .67 that were not, and .22 if
they are named as batches."""
NOTHING = (
    "what is around a cell tells nothing, or the latent space has collapsed. Look whether "
    "`spatial_key` and `sample_key` are right; then train with a larger "
    "`plan_kwargs={'neighbor_weight': 20}`."
)


def diagnose(model: BaseModelClass) -> list[HealthRow]:
    """Return all rows of a trained model."""
    asked = ask_about(model)
    means, log_variance = encode(model, asked)
    rows = [finite_row(model.history), *latent_rows(means, log_variance)]
    rows.append(crowding_row(asked.graph))
    if model.module.matching is None:
        rows += _rows_of_states(model, asked, decode(model, means))
    if model.held_out_gain_ is not None:
        rows.append(gain_row(model.held_out_gain_))
    return [*rows, *_rows_of_samples(model)]


def _rows_of_states(model: BaseModelClass, asked: Asked, pi: NDArray) -> list[HealthRow]:
    """Return rows about the states, some of them by a part of the cells."""
    some = np.arange(0, len(pi), -(-len(pi) // N_LOOKED_AT))
    looked = asked._replace(rows=some)
    rows = [
        diversity_row(*decoded_and_true(model, looked, pi[some])),
        state_row(pi),
        certainty_row(own_states(model, looked, pi[some])),
    ]
    if model.likelihood == "nb":
        rows.append(dispersion_row(model.module.log_spread.detach().exp().cpu().numpy()))
    return rows


def _rows_of_samples(model: BaseModelClass) -> list[HealthRow]:
    """Return a row about samples, if there are several."""
    setup = model.registry["setup_args"]
    key, n_cells = setup["sample_key"], model.adata.n_obs
    if key is None or model.adata.obs[key].nunique() == 1:
        return []
    rng = np.random.default_rng(0)
    some = np.sort(rng.permutation(n_cells)[:N_LOOKED_AT])  # a step might meet their order
    positions = model.get_latent_representation(indices=some)
    sample = model.adata.obs[key].iloc[some]
    return [separation_row(positions, sample, has_batches=setup["batch_key"] is not None)]


def latent_rows(means: NDArray, log_variance: NDArray) -> list[HealthRow]:
    """Return whether anything is told: dimensions that vary, their sd, and the divergence.

    Parameters
    ----------
    means, log_variance
        Of the posteriors, shape ``(n_cells, n_latent)``.
    """
    sd = means.std(axis=0)
    active = int((sd > ACTIVE_SD).sum())
    kl = float(0.5 * (means**2 + np.exp(log_variance) - 1 - log_variance).sum(1).mean())
    nothing = f"No latent dimension varies between cells: {NOTHING}" if active == 0 else ""
    return [
        row("active latent dimensions", active, nothing),
        row("sd of the latent means", float(sd.mean()), ""),
        row(
            "divergence from the prior",
            kl,
            f"The posteriors are the prior: {NOTHING}" if kl < FAINT else "",
        ),
    ]


def diversity_row(decoded: NDArray, true: NDArray) -> HealthRow:
    """Return how much decoded means of neighbourhoods vary between cells, by how true ones do."""
    ratio = float(np.sqrt(decoded.var(0).sum() / true.var(0).sum()))
    advice = ""
    if not ratio >= MIN_DIVERSITY:
        advice = (
            "Decoded neighbourhoods are more alike than true ones: train with a larger "
            "`plan_kwargs={'neighbor_weight': 20}`."
        )
    return row("diversity of decoded neighbourhoods", ratio, advice)


def state_row(pi: NDArray) -> HealthRow:
    """Return the share of the states whose mean share is above a tenth of the even one."""
    used = float((pi.mean(0) > IN_USE / pi.shape[1]).mean())
    advice = "" if used >= MIN_IN_USE else "Most states are not in use: lower `n_states`."
    return row("states in use", used, advice)


def certainty_row(own: NDArray) -> HealthRow:
    """Return the mean over cells of the largest probability of a state of their own."""
    certainty = float(own.max(axis=1).mean())
    advice = ""
    if certainty < MIN_CERTAINTY:
        advice = "Cells are hardly of one state: read compositions by states with care."
    return row("certainty of states", certainty, advice)


def crowding_row(graph: NDArray) -> HealthRow:
    """Return the share of cells with fewer neighbours than asked for."""
    share = float((graph < 0).any(axis=1).mean())
    advice = ""
    if share > MAX_CROWDED_OUT:
        advice = (
            "Many cells lie in samples with too few cells: lower `n_neighbors`, or look at "
            "`sample_key`."
        )
    return row("cells with too few neighbours", share, advice)


def gain_row(gain: float) -> HealthRow:
    """Return what z tells of a neighbour of a held-out cell, in nats, beyond the mean niche."""
    advice = "" if gain > 0 else f"Niches do not predict neighbours of held-out cells: {NOTHING}"
    return row("held-out gain per neighbour", gain, advice)


def separation_row(positions: NDArray, sample: ArrayLike, *, has_batches: bool) -> HealthRow:
    """Return how far cells of like surroundings are of the same sample beyond chance, 1 if all.

    Parameters
    ----------
    positions
        Of the cells in the map of niches, shape ``(n_cells, n_dimensions)``.
    sample
        Of each cell.
    has_batches
        Whether the model was told which samples were measured alike.
    """
    codes = pd.factorize(np.asarray(sample))[0]
    n_like = min(N_LIKE, len(codes) - 1)
    search = NearestNeighbors(n_neighbors=n_like).fit(positions)
    like = codes[search.kneighbors(return_distance=False)]
    own, by_chance = like == codes[:, None], (np.bincount(codes) / len(codes))[codes]
    apart = float(((own.mean(axis=1) - by_chance) / (1 - by_chance)).mean())
    advice = ""
    if apart > MAX_SEPARATION and not has_batches:
        advice = (
            "Niches follow the samples. If these were measured apart, name them, or what was "
            "measured together, as `batch_key`; else they differ in what surrounds their cells."
        )
    return row("separation of samples", apart, advice)
