"""Parts of the benchmark on the ELBO: is it the same, and what do likelihoods cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pandas as pd
import scvi
import torch
import torch.nn.functional as F
from anndata import AnnData
from scvi.distributions import ZeroInflatedNegativeBinomial
from scvi.model.base import BaseModelClass
from scvi.module.base import BaseModuleClass
from torch import Tensor

from benchmarks.speed.training import (
    Sizes,
    best_seconds,
    make_adata,
    make_model,
    train,
)
from scovert.core._losses import EPS, SparseCounts, negative_binomial

KL_RAMP = 0.25
N_SAMPLES = 10
BATCH_SIZE = 128


def parity(quick: bool) -> Iterator[dict]:
    """Negative ELBO of held-out cells after the same training, KL weight 1, by the same code.

    PairedVAE is fitted from its own first weights and from those of SCVI.
    """
    n_cells, n_epochs = (1000, 2) if quick else (4096, 60)
    adata = make_adata(Sizes(n_cells + n_cells // 4, 200 if quick else 2000))
    held_out, adata = adata[n_cells:].copy(), adata[:n_cells].copy()
    rows = []
    for seed in range(1 if quick else 3):
        models = _fitted(adata, seed, n_epochs)
        losses = {name: negative_elbo(model, held_out) for name, model in models.items()}
        for name, model in models.items():
            training = negative_elbo(model, adata)
            rows.append(_row(str(seed), name, losses[name], training, losses["SCVI"]))
    yield from rows
    yield from _means(rows)


def _fitted(adata: AnnData, seed: int, n_epochs: int) -> dict[str, BaseModelClass]:
    scvi.settings.seed = seed
    models = {method: make_model(method, adata) for method in ("SCVI", "none")}
    models["none, first weights of SCVI"] = make_model("none", adata)
    copy_weights(models["SCVI"].module, models["none, first weights of SCVI"].module)
    for name, model in models.items():
        scvi.settings.seed = seed
        schedule = _schedule(name, adata.n_obs, n_epochs)
        train(model, n_epochs, batch_size=BATCH_SIZE, plan_kwargs=schedule)
    return models


def _row(seed: str, name: str, held_out: float, training: float, scvi_held_out: float) -> dict:
    return {
        "seed": seed,
        "method": name,
        "held out": f"{held_out:.2f}",
        "training cells": f"{training:.2f}",
        "difference from SCVI, %": 100 * (held_out / scvi_held_out - 1),
        "spread of the seeds, %": None,
    }


def _means(rows: list[dict]) -> Iterator[dict]:
    """Means over the seeds, and the distance of the largest from the smallest."""
    frame = pd.DataFrame(rows)
    values = frame[["held out", "training cells"]].astype(float)
    means = values.groupby(frame["method"], sort=False).mean()
    for name, mean in means.iterrows():
        held_out = values.loc[frame["method"] == name, "held out"]
        row = _row("mean", name, *mean, means.loc["SCVI", "held out"])
        spread = 100 * (held_out.max() - held_out.min()) / held_out.mean()
        yield row | {"spread of the seeds, %": spread}


def _schedule(name: str, n_cells: int, n_epochs: int) -> dict[str, float | None]:
    """Let the KL weight rise by the same amount every step."""
    if name != "SCVI":
        return {"kl_ramp": KL_RAMP}
    n_steps = -(-n_cells // BATCH_SIZE) * n_epochs
    return {"n_epochs_kl_warmup": None, "n_steps_kl_warmup": int(KL_RAMP * n_steps)}


@torch.no_grad()
def copy_weights(source: BaseModuleClass, target: BaseModuleClass) -> None:
    """Copy the weights of SCVI's networks into those of PairedVAE."""
    weights = source.state_dict()
    for name, parameter in target.named_parameters():
        name = name.replace("px_scale_decoder.", "px_scale_decoder.0.")
        parameter.copy_(weights[name].view_as(parameter))


@torch.inference_mode()
def negative_elbo(model: BaseModelClass, adata: AnnData) -> float:
    """Mean over cells, from 10 samples of the posterior of each, with scvi-tools' likelihood."""
    torch.manual_seed(0)
    module = model.module.eval()
    total = 0.0
    for rows in np.array_split(np.arange(adata.n_obs), -(-adata.n_obs // 512)):
        x = torch.from_numpy(adata.X[rows].toarray())
        batch = torch.from_numpy(adata.obs["batch"].cat.codes.to_numpy(np.int64)[rows])[:, None]
        tensors = {"X": x, "batch": batch, "labels": torch.zeros_like(batch)}
        for _ in range(N_SAMPLES):
            latent = module.inference(**module._get_inference_input(tensors))
            inputs = module._get_generative_input(tensors, latent)
            likelihood = module.generative(**inputs)["px"].log_prob(x).sum()
            mean, variance = latent["qz"].mean, latent["qz"].variance
            kl = 0.5 * (mean.square() + variance - 1 - variance.log()).sum()
            total += float(kl - likelihood) / N_SAMPLES
    return total / adata.n_obs


def kernels(quick: bool) -> Iterator[dict]:
    """Forward and backward of one likelihood, for a minibatch with 8 % counts."""
    n_steps, rounds = (2, 1) if quick else (20, 5)
    for n_cells, n_genes in [(128, 2000), (1024, 2000)]:
        x = torch.from_numpy(make_adata(Sizes(n_cells, n_genes)).X.toarray())
        inputs = _decoded(n_cells, n_genes)
        steps = {
            name: partial(_steps, partial(function, *inputs[:n], argument), inputs[:n], n_steps)
            for name, (function, n, argument) in _likelihoods(x).items()
        }
        best_seconds(steps, 1)
        seconds = best_seconds(steps, rounds)
        for family in ("NB", "ZINB"):
            dense, sparse = f"{family}, dense", f"{family}, sparse"
            yield {
                "minibatch": f"{n_cells} x {n_genes}",
                "likelihood": family,
                "scvi-tools, ms": 1000 * seconds[dense] / n_steps,
                "sparse, ms": 1000 * seconds[sparse] / n_steps,
                "x faster": seconds[dense] / seconds[sparse],
                "largest relative difference": _difference(steps[dense], steps[sparse]),
            }


def _decoded(n_cells: int, n_genes: int) -> list[Tensor]:
    """Means, inverse dispersions and logits of zero inflation, as a decoder gives them."""
    torch.manual_seed(0)
    share = torch.randn(n_cells, n_genes).softmax(-1)
    tensors = [300 * share, torch.randn(n_genes).exp(), torch.randn(n_cells, n_genes) - 2]
    return [t.requires_grad_() for t in tensors]


def _likelihoods(x: Tensor) -> dict[str, tuple[Callable, int, Tensor | SparseCounts]]:
    """Likelihood, number of inputs, counts."""
    counts = SparseCounts.of(x)
    return {
        "NB, dense": (dense_negative_binomial_of, 2, x),
        "NB, sparse": (negative_binomial, 2, counts),
        "ZINB, dense": (dense_zinb, 3, x),
        "ZINB, sparse": (sparse_zinb, 3, counts),
    }


def _steps(likelihood: Callable[[], Tensor], inputs: list[Tensor], n_steps: int) -> Tensor:
    for _ in range(n_steps):
        for tensor in inputs:
            tensor.grad = None
        values = likelihood()
        values.mean().backward()
    return values.detach()


def _difference(dense: Callable[[], Tensor], sparse: Callable[[], Tensor]) -> float:
    expected = dense()
    return float(((sparse() - expected) / expected).abs().max())


def dense_negative_binomial_of(mean: Tensor, theta: Tensor, x: Tensor) -> Tensor:
    px = scvi.distributions.NegativeBinomial(mu=mean, theta=theta, validate_args=False)
    return -px.log_prob(x).sum(-1)


def dense_zinb(mean: Tensor, theta: Tensor, logits: Tensor, x: Tensor) -> Tensor:
    px = ZeroInflatedNegativeBinomial(mu=mean, theta=theta, zi_logits=logits, validate_args=False)
    return -px.log_prob(x).sum(-1)


def sparse_zinb(mean: Tensor, theta: Tensor, logits: Tensor, counts: SparseCounts) -> Tensor:
    """Equal `dense_zinb`, with gamma functions only where there are counts; plain autograd."""
    log_ratio = torch.log1p(mean / (theta + EPS))
    zero = -logits - theta * log_ratio  # logarithm of the odds that a zero is not inflated
    dense = F.softplus(zero) - F.softplus(-logits)
    # Where there are counts
    flat = counts.row * mean.shape[-1] + counts.col
    zero_at, mean_at, ratio_at = (
        t.view(-1).index_select(0, flat) for t in (zero, mean, log_ratio)
    )
    theta_at = theta.index_select(0, counts.col)
    gammas = torch.lgamma(counts.value + theta_at) - counts.log_factorial
    gammas = gammas - torch.lgamma(theta).index_select(0, counts.col)
    log_both = ratio_at + (theta_at + EPS).log()
    at_counts = counts.value * ((mean_at + EPS).log() - log_both) + gammas - F.softplus(-zero_at)
    return -dense.sum(-1).index_add(0, counts.row, at_counts)
