"""Treatment effects in the presence of unmeasured confounders."""

from scovert.model._confounder._model import LatentConfounder

__all__ = ["LatentConfounder"]
