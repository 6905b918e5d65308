"""What a trained BulkDeconvolution knows, as tensors that are saved with the model."""

from __future__ import annotations

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["BulkModule"]


class BulkModule(nn.Module):
    """Tables of the signatures of one or several studies, whose shapes training finds.

    The tables of study ``i`` are called ``i/counts``, ``i/between`` and so on, after the
    attributes of :class:`scovert.model.bulk._signature.Signature`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("_place", torch.zeros(()), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the module is."""
        return self._place.device

    def keep(self, tables: dict[str, NDArray]) -> None:
        """Keep tables instead of those that are there."""
        for name in self.tables:
            delattr(self, name)
        for name, table in tables.items():
            self.register_buffer(name, torch.as_tensor(table))

    @property
    def tables(self) -> dict[str, NDArray]:
        """The tables by name."""
        return {k: v.cpu().numpy() for k, v in self._buffers.items() if "/" in k}

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *rest: object) -> None:
        for name in state:
            if name.startswith(prefix) and "/" in name:
                self.register_buffer(name.removeprefix(prefix), torch.empty_like(state[name]))
        super()._load_from_state_dict(state, prefix, *rest)
