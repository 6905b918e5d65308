"""What a report says of positions whose distances reproduce a matrix."""

from __future__ import annotations

from functools import partial

from scvi.model.base import BaseModelClass

from scovert.core._words import counted
from scovert.core.report import Figure, Report, parameters_of

__all__ = ["report_of"]

ASSUMPTIONS = (
    "Counts tell the distances: samples of equal composition are at the same place.",
    "What a sample shares with no other is one number, its uniqueness, and its position says "
    "nothing of it.",
    "Agreement is that of samples like those at hand; of another study it may be less.",
)
REFERENCES = (
    "Gower. Some distance properties of latent root and vector methods used in multivariate "
    "analysis. Biometrika 53, 325-338 (1966).",
    "Lozupone and Knight. UniFrac: a new phylogenetic method for comparing microbial communities. "
    "Applied and Environmental Microbiology 71, 8228-8235 (2005).",
)
CAPTION = "A point for each pair of samples; the dashed line is where they agree."
WHOLE = " All samples were fitted: how far new ones agree is in the table at the top."
METHODS = {
    "linear": "by a linear map of the counts, which a network did not improve",
    "network": "by a network that corrects a linear map of the counts",
}


def report_of(model: BaseModelClass) -> Report:
    """Describe a trained DistanceEmbedding."""
    agreement = model.get_agreement()
    fitted, new = agreement.loc["train", "r2"], agreement.loc["new-train", "r2"]
    key = model.registry["setup_args"]["distances_key"]
    is_whole = (model.get_split() == "train").all()
    return Report(
        model="DistanceEmbedding",
        title=f"Positions of {counted(model.adata.n_obs, 'sample')}",
        summary=(
            f"{counted(model.adata.n_obs, 'sample')} with {model.adata.n_vars:,} taxa or genes "
            f"were placed {METHODS[model.method_]}.",
            f"R2 of the distances {key!r}: {fitted:.3f} between fitted samples, {new:.3f} from "
            "new samples to these; the mean distance has 0.",
            f"What was read of the counts: {', '.join(model.module.features.kinds)}.",
        ),
        check=model.check(),
        overview=agreement.round(3),
        assumptions=ASSUMPTIONS,
        parameters=parameters_of(model),
        references=REFERENCES,
        figures=(
            Figure(
                "Predicted and true distances",
                f"{CAPTION}{WHOLE if is_whole else ''}",
                partial(_draw_agreement, model, key),
            ),
        ),
    )


def _draw_agreement(model: BaseModelClass, key: str) -> object:
    from scovert import pl

    distances = model.get_distances().to_numpy()
    return pl.distance_agreement(distances, model.adata.obsp[key], model.get_split())
