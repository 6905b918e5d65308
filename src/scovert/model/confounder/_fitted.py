"""What a fit of LatentConfounder keeps."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from numpy.typing import NDArray

from scovert.core._saving import SavedModel

__all__ = ["Fitted", "from_earlier"]

EARLIER = {"naive": "unadjusted", "naive_se": "unadjusted_se"}
"""Names of arrays in files of schema 1, and today's."""


@dataclass(frozen=True)
class Fitted:
    """Arrays of a fit, in double precision, which the model has as attributes (``scores_``, ...).

    Attributes
    ----------
    scores
        Scores or, of binary confounders, probabilities, shape ``(n_cells, n_latent)``.
    coefficients, dispersion, covariance, sandwich
        Regression of the counts on covariates, treatment and scores, as in
        :class:`scovert.model.confounder.glm.Regression`.
    unadjusted, unadjusted_se
        Coefficients of the arms in the regression without scores and their standard errors, shape
        ``(n_arms, n_genes)``.
    states
        Probability of every combination of binary confounders, shape ``(n_cells, n_states)``.
    scree
        Largest singular value and its threshold by number of factors, shape ``(n, 2)``, if the
        number was looked for.
    """

    scores: NDArray
    coefficients: NDArray
    dispersion: NDArray
    covariance: NDArray
    sandwich: NDArray
    unadjusted: NDArray
    unadjusted_se: NDArray
    states: NDArray | None = None
    scree: NDArray | None = None

    @classmethod
    def of(cls, model: object) -> Fitted:
        """Return the arrays that a model has as attributes."""
        return cls(**{f.name: getattr(model, f"{f.name}_") for f in fields(cls)})

    @classmethod
    def none(cls) -> dict[str, None]:
        """Return the attributes of a model that is not trained."""
        return {f"{f.name}_": None for f in fields(cls)}

    def attributes(self) -> dict[str, NDArray | None]:
        """Return the arrays by the names that a model has them under."""
        return {f"{f.name}_": getattr(self, f.name) for f in fields(self)}


def from_earlier(saved: SavedModel) -> SavedModel:
    """Return what a file of schema 1 holds under the names of today, and later files as they are.

    The arrays were weights of the module, beside those of its network, whose names had slashes.
    """
    names, weights = {f.name for f in fields(Fitted)}, {}
    attributes = dict(saved.attributes)
    for name, weight in saved.weights.items():
        if (own := EARLIER.get(name, name)) in names:
            attributes[f"{own}_"] = weight.numpy()
        else:
            weights[name.replace("/", ".")] = weight
    if attributes.get("solver_") == "exact":
        attributes["solver_"] = "full_batch"
    return replace(saved, weights=weights, attributes=attributes)
