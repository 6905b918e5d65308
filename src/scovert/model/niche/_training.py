"""Training of NicheVAE: where it starts, and its plan."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scvi.model.base import BaseModelClass
from torch import Tensor

from scovert.core._arguments import check_known
from scovert.core._checks import check_number
from scovert.core._counts import as_csr, as_rows, in_parts, row_blocks
from scovert.core._minibatch import cells_of
from scovert.core.dataloaders._cells import Cells, CellTensors
from scovert.core.training._plan import ACCEPTED, Plan, rise
from scovert.model.niche._batches import batch_codes, batch_names
from scovert.model.niche._checks import positions_of, samples_of
from scovert.model.niche._data import NicheData, split_patches
from scovert.model.niche._features import TRANSFORMS, choose_transform, moments_of
from scovert.model.niche._graph import nearest_neighbors
from scovert.model.niche._module import IS_NEIGHBOR, NEIGHBORS, NicheModule, mixture_nll
from scovert.model.niche._states import initial_states, means_of

__all__ = [
    "GRADIENT_NORM",
    "NichePlan",
    "default_epochs",
    "held_out_gain",
    "in_memory",
    "make_plan",
    "read_data",
    "start",
]

NEIGHBOR_WEIGHT = 10.0
"""Neighbourhoods overlap: each cell is a neighbour of about 20 others, so that 20 counts every
cell 20 times and 1 once. Measured on osmFISH and STARmap, 10 gave the best regions."""
LEARNING_RATE, EPS = 2e-3, 1e-8
"""Of Adam; scvi-tools takes 0.01 for `eps`, which slows parameters with small gradients."""
FALL = 0.3
"""Share of training, its last, over which the learning rate falls to a fiftieth."""
LAST_RATE = 0.02
"""Of the learning rate, what is left of it at the end."""
KEPT = 0.1
"""Share of training, its last, in which the best state counts: before, the steps are so large that
the validation loss of an epoch is luck, and regions come out worse (osmFISH: ARI by .02)."""
GRADIENT_NORM = 10.0
"""Norm at which the gradient is clipped: twice that of a fit that goes well."""
STEPS = (500, 800)
"""Steps of training at least, which suffice for 4,500 cells, and at most: 200,000 niches."""
N_CLUSTERED = 20_000
"""Cells that are clustered for the first states, at most."""
LEAST_COUNT = 0.01
"""Added to mean counts before the logarithm."""
N_DECODED = 1024
"""Validation cells that are decoded at once."""


class NichePlan(Plan):
    """The shared plan with a learning rate that falls at the end.

    Parameters
    ----------
    module
        Module to train.
    neighbor_weight, free_bits
        Of the loss.
    **kwargs
        For :class:`~scovert.core.training._plan.Plan`.
    """

    def __init__(
        self,
        module: NicheModule,
        *,
        neighbor_weight: float = NEIGHBOR_WEIGHT,
        free_bits: float = 0.0,
        **kwargs: object,
    ) -> None:
        super().__init__(module, **{"lr": LEARNING_RATE, "eps": EPS, "weight_decay": 0} | kwargs)
        self.loss_kwargs |= {"neighbor_weight": neighbor_weight, "free_bits": free_bits}

    def first_full_epoch(self, max_epochs: int) -> int:
        """Return the first epoch in which the rate has fallen far enough."""
        return max(super().first_full_epoch(max_epochs), int((1 - KEPT) * max_epochs))

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Set the weights and the learning rate of this step."""
        super().on_train_batch_start(batch, batch_idx)
        fall = 1 - rise(self.progress, 1 - FALL, FALL)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.lr * max(fall, LAST_RATE)


def make_plan(module: NicheModule, plan_kwargs: dict) -> NichePlan:
    """Make the plan from the options of a user.

    Raises
    ------
    TypeError
        For options that are not known.
    """
    check_known("plan_kwargs", plan_kwargs, [*ACCEPTED, "neighbor_weight", "free_bits"])
    for name in ("lr", "weight_decay", "max_kl_weight", "min_kl_weight", "neighbor_weight"):
        if name in plan_kwargs:
            check_number(name, plan_kwargs[name], 0)
    check_number("kl_ramp", plan_kwargs.get("kl_ramp", 0), 0, 1)
    check_number("free_bits", plan_kwargs.get("free_bits", 0), 0)
    return NichePlan(module, **plan_kwargs)


def default_epochs(data: NicheData) -> int:
    """Return the epochs of one pass over the cells, within the bounds of the steps."""
    steps = min(max(data.n_train / data.batch_size, STEPS[0]), STEPS[1])
    return math.ceil(steps / data.n_steps)


@torch.inference_mode()
def held_out_gain(module: NicheModule, data: NicheData) -> float | None:
    """Return how much more likely neighbours of held-out cells are than under the mean niche.

    Returns
    -------
    Nats per neighbour, the mean over validation cells; `None` without states or such cells.
    """
    if module.matching is not None or data.n_val == 0:
        return None
    module.eval()
    parts = [data.minibatch(rows) for rows in in_parts(data.val_idx, N_DECODED)]
    found = [module.inference(**module._get_inference_input(part)) for part in parts]
    log_pi = [module.generative(one["qz"].mean)["log_pi"] for one in found]
    log_mean = torch.cat(log_pi).exp().mean(0).log()
    gain = 0.0
    for part, one, own in zip(parts, found, log_pi, strict=True):
        by_state = module.by_state(part, one["f"])
        around = by_state, part[NEIGHBORS], part[IS_NEIGHBOR]
        gain += float(
            (mixture_nll(log_mean.expand_as(own), *around) - mixture_nll(own, *around)).sum()
        )
    return gain / data.n_val


def read_data(model: BaseModelClass, train_size: float, batch_size: int, seed: int) -> NicheData:
    """Return minibatches of the cells of a model, split as arguments and seed of ``train`` say."""
    adata, registry = model.adata, model.registry
    setup, counted = registry["setup_args"], model.likelihood == "nb"
    positions = positions_of(adata, setup["spatial_key"])
    graph = nearest_neighbors(positions, samples_of(adata, setup["sample_key"]), model.n_neighbors)
    return NicheData(
        in_memory(cells_of(model), counted=counted),
        graph,
        batch_codes(adata, setup["batch_key"], batch_names(registry))[0],
        split_patches(graph, 1 - train_size, np.random.default_rng(seed)),
        batch_size=batch_size,
        counted=counted,
    )


def in_memory(cells: Cells, *, counted: bool) -> Cells:
    """Read cells into memory: sets of neighbours lie all over a file.

    Parameters
    ----------
    cells
        Cells, in memory or in a file.
    counted
        Whether they are counts, which become a CSR matrix. Intensities become an array.
    """
    if cells.is_in_memory and not (counted and isinstance(cells.counts, np.ndarray)):
        return cells
    if counted:
        counts = as_csr(cells.counts)
    else:
        counts = np.concatenate([dense(block) for _, block in row_blocks(cells.counts)])
    counts = counts if cells.genes is None else counts[:, cells.genes]
    return Cells(counts, cells.columns, names=cells.names)


def dense(block: object) -> NDArray:
    """Return rows as an array of float32."""
    rows = as_rows(block)
    return np.asarray(rows if isinstance(rows, np.ndarray) else rows.toarray(), np.float32)


@torch.no_grad()
def start(
    module: NicheModule,
    cells: Cells,
    batch: NDArray,
    seed: int,
    *,
    transform: str,
    cofactor: float,
) -> None:
    """Measure the features, and place the shared states where cells are.

    Parameters
    ----------
    module
        Module that was not trained.
    cells
        Cells in memory.
    batch
        Number of the batch of each cell, shape ``(n_cells,)``.
    seed
        Of the cells that are clustered, and of their clusters.
    transform, cofactor
        How values become features; ``"auto"`` goes by the values.
    """
    chosen, median = choose_transform(cells)
    transform = chosen if transform == "auto" else transform
    moments = moments_of(cells, batch, module.n_batch, transform, cofactor, median)
    module.transform_code.fill_(TRANSFORMS.index(transform))
    module.median_total.fill_(median)
    module.cofactor.fill_(cofactor)
    module.feature_mean.copy_(torch.from_numpy(moments.mean))
    module.feature_scale.copy_(torch.from_numpy(moments.scale))
    if module.matching is None:
        _place_states(module, cells, batch, seed)


def _place_states(module: NicheModule, cells: Cells, batch: NDArray, seed: int) -> None:
    """Start states at clusters of cells, less what is different between the batches."""
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(len(cells))[:N_CLUSTERED])
    x = CellTensors(cells)[rows]["X"]
    code = torch.from_numpy(batch[rows])
    mean, scale = (t.cpu() for t in (module.feature_mean, module.feature_scale))
    f = module.cpu().features(x, mean[code], scale[code]).numpy()
    shift = means_of(f, batch[rows], module.n_batch) - f.mean(0)
    n_states = len(module.states)
    cluster = initial_states(f - shift[batch[rows]], n_states, seed)
    if module.likelihood == "gaussian":
        module.states.copy_(torch.from_numpy(means_of(f - shift[batch[rows]], cluster, n_states)))
    else:
        counts = means_of(x.numpy(), cluster, n_states)
        module.states.copy_(torch.from_numpy(np.log(counts + LEAST_COUNT)))
