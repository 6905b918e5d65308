"""What known genes that were held back teach a model: levels and errors of imputed ones."""

from __future__ import annotations

import numpy as np
import torch
from scvi.model.base import BaseModelClass

from scovert.core._minibatch import cells_of, check_trained
from scovert.model.imputation._intervals import Spread, spread_of
from scovert.model.imputation._levels import levels, nearest_totals
from scovert.model.imputation._panels import panels_of
from scovert.model.imputation._sums import moments_by_dataset

__all__ = ["calibrate", "calibrate_once", "check_calibrated", "errors_of"]


def calibrate(model: BaseModelClass) -> None:
    """Learn levels and errors, and keep them in the model."""
    cells, panels, module = cells_of(model), panels_of(model), model.module
    module.level.zero_()
    found = moments_by_dataset(model, cells.batch)
    level = levels(found.true, found.imputed, nearest_totals(cells, panels), panels)
    module.level.copy_(torch.from_numpy(level))
    moments = moments_by_dataset(model, cells.batch)
    model.explained_ = np.where(panels.measured, moments.explained, np.nan)
    pairs = zip(moments.true, moments.imputed, panels.calibration, strict=True)
    model.spread_ = np.array([spread_of(true[own], imputed[own]) for true, imputed, own in pairs])


def calibrate_once(model: BaseModelClass) -> None:
    """Calibrate a trained model that is not: the best one of training that was cut off."""
    check_trained(model)
    if model.spread_ is None:
        calibrate(model)


def check_calibrated(model: BaseModelClass) -> None:
    """Refuse intervals of an untrained model, and without genes that were held back."""
    calibrate_once(model)
    if not panels_of(model).calibration.any():
        raise RuntimeError(
            "Intervals come from genes that are held back, and this model has none: "
            "`calibration=0`, or too few shared genes with 20 counts. Fit a model with "
            "`calibration=0.1`, or ask without an interval."
        )


def errors_of(model: BaseModelClass, b: int) -> Spread:
    """Return the errors of genes in a dataset, none where there is nothing to impute."""
    spread = Spread(*model.spread_[b])
    return spread if np.isfinite(spread.centre) else Spread(0.0, 0.0)
