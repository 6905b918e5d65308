"""Fitting of a DistanceEmbedding: the linear map, the network, and what held-out samples show."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scvi.model.base import BaseModelClass

from scovert.core.training._checkpoint import Resumable
from scovert.core.training._run import Networks, run
from scovert.model.distance._data import SampleData
from scovert.model.distance._features import Projection, project
from scovert.model.distance._held_out import Prediction, squared_between, traits_of
from scovert.model.distance._linear import N_FOLDS, LinearMap, fit_linear, folds_of
from scovert.model.distance._module import DistanceModule
from scovert.model.distance._plan import GRADIENT_NORM, default_epochs, make_plan
from scovert.model.distance._samples import Samples

__all__ = ["Fit", "Options", "cross_validate", "fit", "fit_map"]

MARGIN = 1e-3
"""R2 by which more features must be better than fewer."""
N_TRIED = 1000
"""Samples by which features are chosen, at most."""


def fit_map(
    samples: Samples,
    kinds: list[tuple[str, ...]],
    n_latent: int,
    unit: float,
    rng: np.random.Generator,
) -> tuple[Projection, LinearMap]:
    """Fit the linear map by each set of features, and return that with the best held-out R2.

    Fewer features are taken where more are not clearly better.

    Parameters
    ----------
    samples
        Samples to fit to.
    kinds
        Sets of blocks of features, in the order of preference.
    n_latent
        Number of axes.
    unit
        What distances are divided by.
    rng
        Generator of folds and pairs.
    """

    def fit_to(samples: Samples, projection: Projection) -> LinearMap:
        features = projection.components * (samples.totals > 0)[:, None]
        return fit_linear(features, samples.distances / unit, n_latent, samples.groups, rng)

    if len(kinds) > 1:
        rows = np.sort(rng.permutation(len(samples.names))[:N_TRIED])
        tried = samples.part(rows)
        projections = project(tried.blocks, kinds)
        r2 = np.array([fit_to(tried, p).held_out_r2 for p in projections])
        kinds = [projections[int(np.argmax(r2 >= r2.max() - MARGIN))].kinds]
    projection = project(samples.blocks, kinds)[0]
    return projection, fit_to(samples, projection)


class Options(NamedTuple):
    """What a fit is asked for; see `DistanceEmbedding.train`."""

    kinds: list[tuple[str, ...]]
    method: str
    max_epochs: int | None
    batch_size: int
    early_stopping: bool
    plan_kwargs: dict


class Fit(NamedTuple):
    """Outcome of a fit.

    Attributes
    ----------
    linear, unit
        The linear map that it began with, and what distances were divided by.
    predictions
        Of each method, ``"linear"`` and ``"network"``, for the samples that were held out.
    """

    linear: LinearMap
    unit: float
    predictions: dict[str, Prediction]


def fit(
    model: BaseModelClass | Networks,
    samples: Samples,
    split: tuple[NDArray, NDArray],
    options: Options,
    resumable: Resumable,
    *,
    watch: bool = True,
    **run_options: object,
) -> Fit:
    """Fit the linear map, and the network from there, to some samples.

    Parameters
    ----------
    model
        What has the module.
    samples, split
        All samples, and the rows to train on and to predict.
    options
        How to fit.
    resumable
        Where the state of training is kept, and its seed.
    watch
        Whether the samples to predict decide when training stops and which state is the best.
    **run_options
        For :func:`scovert.core.training._run.run`.
    """
    module, (train, held_out) = model.module, split
    own = samples.part(train)
    unit = root_mean_square(own.distances)
    rng = np.random.default_rng(resumable.seed)
    projection, linear = fit_map(own, options.kinds, module.n_latent, unit, rng)
    components, novelty = projection.of(samples.blocks, samples.totals > 0)
    module.features.take(projection)
    module.start(linear, unit, is_linear=True)

    def predicted() -> Prediction:
        traits = samples.totals, novelty
        return predict(module, components, train, held_out, *traits)

    found = {"linear": predicted()}
    data = SampleData(
        components,
        samples.distances / unit,
        train,
        held_out if watch else held_out[:0],
        names=samples.names,
        batch_size=options.batch_size,
    )
    if options.method == "linear":
        model.history_ = stress_of_linear(module, data)
        return Fit(linear, unit, found)
    module.start(linear, unit, is_linear=False)
    run(
        model,
        make_plan(module, options.plan_kwargs),
        data,
        default_epochs(data) if options.max_epochs is None else options.max_epochs,
        early_stopping=options.early_stopping,
        resumable=resumable,
        **{"gradient_clip_val": GRADIENT_NORM} | run_options,
    )
    return Fit(linear, unit, found | {"network": predicted()})


def root_mean_square(distances: NDArray) -> float:
    """Return the root mean square of the distances between different samples."""
    n = len(distances)
    return float(np.sqrt(np.square(distances, dtype=float).sum() / (n * (n - 1))))


@torch.inference_mode()
def predict(
    module: DistanceModule,
    components: NDArray,
    fitted: NDArray,
    held_out: NDArray,
    totals: NDArray,
    novelty: NDArray,
) -> Prediction:
    """Predict the distances of held-out samples, in the unit of the matrix."""
    module.eval()
    z, u = module.embedder(torch.from_numpy(components).float().to(module.unit.device))
    unit = float(module.unit)
    z, u = z.double().cpu().numpy() * unit, u.double().cpu().numpy() * unit**2
    new, old = (z[held_out], u[held_out]), (z[fitted], u[fitted])
    squared = squared_between(new, old)
    traits = traits_of(u[held_out], totals[held_out], novelty[held_out], squared)
    return Prediction(held_out, fitted, squared, squared_between(new, new), traits)


def cross_validate(
    make_module: Callable[[], DistanceModule],
    samples: Samples,
    options: Options,
    resumable: Resumable,
    **run_options: object,
) -> list[Fit]:
    """Fit to four fifths of the samples and predict the others, five times."""
    folds = folds_of(samples.groups, N_FOLDS, np.random.default_rng(resumable.seed))
    apart = Resumable.none(resumable.seed)
    quiet = run_options | {"enable_progress_bar": False, "watch": False}
    return [
        fit(
            Networks(make_module()),
            samples,
            (np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)),
            options,
            apart,
            **quiet,
        )
        for fold in np.unique(folds)
    ]


def stress_of_linear(module: DistanceModule, data: SampleData) -> dict[str, pd.DataFrame]:
    """Return the history of a fit that takes no steps: its stress."""
    with torch.inference_mode():
        loss = module(data.minibatch(data.train_idx))[2].loss
    index = pd.Index([0], name="epoch")
    return {"train_loss": pd.DataFrame({"train_loss": [float(loss)]}, index=index)}
