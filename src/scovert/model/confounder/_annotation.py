"""What `annotate` writes of the results, and where."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scovert.core._annotating import Slot
from scovert.core._slots import slot_name
from scovert.model.confounder._data import TreatmentData
from scovert.model.confounder._inference import Inference
from scovert.model.confounder._tables import for_genes
from scovert.model.confounder.effects import Estimate

__all__ = ["record", "slots", "values"]


def slots(
    key: str, levels: Sequence[str], *, has_classes: bool, write_layer: bool
) -> dict[str, Slot]:
    """Return container and name of every slot."""
    arms, names = levels[1:], _names(levels)
    places = {"latent": ("obsm", f"X_{key}")}
    if write_layer:
        places["layer"] = ("layers", key)
    places["propensity"] = ("obs" if len(arms) == 1 else "obsm", f"{key}_propensity")
    if has_classes:
        places["class"] = ("obs", f"{key}_class")
    for arm in arms:
        suffix = "" if len(arms) == 1 else f"_{names[arm]}"
        places[f"effects {arm}"] = ("varm", f"{key}_effects{suffix}")
    return places


def values(
    target: AnnData,
    cells: TreatmentData,
    genes: pd.Index,
    inference: Inference,
    estimates: list[Estimate],
    effects: pd.DataFrame,
    places: dict[str, Slot],
) -> dict[Slot, object]:
    """Return the values of the slots.

    Parameters
    ----------
    target, cells
        The cells, and their data.
    genes
        Genes of the model.
    inference, estimates, effects
        What is written.
    places
        As `slots` returns them.
    """
    levels, latents = inference.levels, inference.latents
    is_one_arm = len(levels) == 2
    found = {places["latent"]: latents.of_cells(cells, estimates).astype(np.float32)}
    if "layer" in places:
        columns = genes.get_indexer(target.var_names)
        found[places["layer"]] = inference.means(cells, cells.level, estimates, columns)
    propensity = inference.propensity_scores(cells, estimates)
    names = list(_names(levels).values())
    found[places["propensity"]] = (
        propensity[:, 1] if is_one_arm else pd.DataFrame(propensity, target.obs_names, names)
    )
    if "class" in places:
        classes = latents.class_probabilities(cells)
        labels = [f"class_{i + 1}" for i in range(classes.shape[1])]
        found[places["class"]] = pd.Categorical.from_codes(classes.argmax(1), labels)
    for arm in levels[1:]:
        own = effects if is_one_arm else effects.loc[arm]
        found[places[f"effects {arm}"]] = for_genes(own, target.var_names)
    return found


def record(attrs: dict, levels: Sequence[str], scree: NDArray | None) -> dict[str, object]:
    """Return what ``uns`` keeps of the attributes of a table of effects."""
    by_arm = ("identification", "facts", "alternatives")
    kept = {key: attrs[key] for key in ("reference", "design", "assumption", *by_arm)}
    if len(levels) > 2:
        names = _names(levels)
        for key in by_arm:
            kept[key] = {names[arm]: value for arm, value in attrs[key].items()}
        kept["arms"] = {name: arm for arm, name in names.items()}
    return kept if scree is None else kept | {"scree": scree}


def _names(levels: Sequence[str]) -> dict[str, str]:
    """Return what stands for every level in the names of slots; refuse names that become one."""
    names = {level: slot_name(level) for level in levels}
    if len(set(names.values())) < len(names):
        raise ValueError(
            f"The levels {levels} are not told apart once a slash has become '_', as names of "
            "slots need. Rename them."
        )
    return names
