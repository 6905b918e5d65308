"""Network blocks."""

from __future__ import annotations

import torch
from scvi.nn import FCLayers
from torch import Tensor, nn

__all__ = ["CellEncoder", "CountDecoder", "Discriminator", "PerDataset", "reverse_gradient"]

MIN_VARIANCE = 1e-4
"""Variance of a posterior at least, as in scvi-tools."""


class CellEncoder(nn.Module):
    """Encode cells into the posterior of their latent position.

    Parameters
    ----------
    n_input
        Number of genes.
    n_output
        Number of latent dimensions.
    n_layers, n_hidden
        Number of hidden layers and of nodes in each.
    dropout_rate
        Dropout in the hidden layers.
    """

    def __init__(
        self, n_input: int, n_output: int, *, n_layers: int, n_hidden: int, dropout_rate: float
    ) -> None:
        super().__init__()
        self.encoder = FCLayers(
            n_input, n_hidden, n_layers=n_layers, n_hidden=n_hidden, dropout_rate=dropout_rate
        )
        self.mean_encoder = nn.Linear(n_hidden, n_output)
        self.var_encoder = nn.Linear(n_hidden, n_output)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of the posterior, both of shape ``(n_cells, n_output)``."""
        hidden = self.encoder(x)
        return self.mean_encoder(hidden), self.var_encoder(hidden).exp() + MIN_VARIANCE


class CountDecoder(nn.Module):
    """Decode latent positions and covariates into the share of each gene in a cell's counts.

    Parameters
    ----------
    n_input
        Number of latent dimensions.
    log_mean
        Logarithm of the mean share of each gene, shape ``(n_genes,)``: the output's first bias, so
        that training starts at the mean of the data.
    n_cat_list
        Number of categories of each categorical covariate.
    n_cont
        Number of continuous covariates.
    n_layers, n_hidden
        Number of hidden layers and of nodes in each.
    """

    def __init__(
        self,
        n_input: int,
        log_mean: Tensor,
        *,
        n_cat_list: list[int],
        n_cont: int,
        n_layers: int,
        n_hidden: int,
    ) -> None:
        super().__init__()
        self.px_decoder = FCLayers(
            n_input,
            n_hidden,
            n_cat_list=n_cat_list,
            n_cont=n_cont,
            n_layers=n_layers,
            n_hidden=n_hidden,
            dropout_rate=0,
        )
        self.px_scale_decoder = nn.Linear(n_hidden, len(log_mean))
        with torch.no_grad():
            self.px_scale_decoder.bias.copy_(log_mean)

    def forward(
        self, z: Tensor, categories: Tensor, continuous: Tensor, offset: Tensor | float = 0.0
    ) -> Tensor:
        """Return shares that sum to one over the genes, shape ``(n_cells, n_genes)``.

        `categories` has shape ``(n_cells, len(n_cat_list))``, `continuous` ``(n_cells, n_cont)``;
        `offset`, of the logarithms of shares, is broadcast to that of the result.
        """
        columns = categories.unsqueeze(-1).unbind(1)
        hidden = self.px_decoder(z, *columns, cont=continuous)
        return (self.px_scale_decoder(hidden) + offset).softmax(dim=-1)


class PerDataset(nn.ModuleList):
    """A network for each dataset; every cell goes through that of its own."""

    def forward(self, batch: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of the networks in the order of the cells.

        `batch` holds the dataset of each cell, shape ``(n_cells,)``; the rows of all `inputs` are
        cells.
        """
        rows = [torch.nonzero(batch == b).squeeze(-1) for b in range(len(self))]
        order = torch.cat(rows).argsort()
        parts = [self[b](*(x[r] for x in inputs)) for b, r in enumerate(rows) if len(r)]
        parts = [part if isinstance(part, tuple) else (part,) for part in parts]
        return tuple(torch.cat(output)[order] for output in zip(*parts, strict=True))


class Discriminator(nn.Sequential):
    """Guess the dataset of a cell from its latent position.

    Parameters
    ----------
    n_input
        Number of latent dimensions.
    n_classes
        Number of datasets.
    n_hidden
        Nodes in each of the two hidden layers.
    """

    def __init__(self, n_input: int, n_classes: int, *, n_hidden: int = 64) -> None:
        super().__init__(
            nn.Linear(n_input, n_hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(n_hidden, n_hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(n_hidden, n_classes),
        )


class _ReverseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, gradient: Tensor
    ) -> tuple[Tensor, None]:
        return -ctx.weight * gradient, None


def reverse_gradient(x: Tensor, weight: float) -> Tensor:
    """Return `x` unchanged and multiply its gradient by ``-weight`` :cite:p:`Ganin16`.

    Parameters
    ----------
    x
        Any tensor.
    weight
        Strength of the reversal; 0 stops the gradient.

    Returns
    -------
    A tensor equal to `x`.
    """
    return _ReverseGradient.apply(x, weight)
