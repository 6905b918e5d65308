"""Robust residuals of expression on a log scale, with their gradient."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

__all__ = ["DF", "robust_residual"]

DF = 4.0
"""Degrees of freedom of the t distribution of residuals and of gene shifts."""


def robust_residual(
    mixed: Tensor, shift: Tensor, scale: Tensor, log_sd: Tensor, observed: tuple[Tensor, ...]
) -> Tensor:
    r"""Negative log-likelihood of t-distributed residuals on a log scale, up to a constant.

    .. math::
        r_{bg} = \log(y_{bg} + c) - \log(\lambda_{bg} e^{s_g + a_b} + c), \quad
        \sum_{bg} v_g \left[ \frac{\nu + 1}{2} \log(\nu \sigma_{bg}^2 + r_{bg}^2)
        - \frac{\nu}{2} \log \sigma_{bg}^2 \right], \quad \sigma_{bg}^2 = e^{2 t} + n_{bg}

    Parameters
    ----------
    mixed
        Mixed profiles :math:`\lambda` in counts per million, shape ``(n_fits, n_samples,
        n_genes)``.
    shift
        Log shift of genes :math:`s`, shape ``(n_fits, 1, n_genes)``.
    scale
        Log scale of samples :math:`a`, shape ``(n_fits, n_samples, 1)``.
    log_sd
        Log of the residual standard deviation :math:`t`, shape ``(n_fits, 1, 1)``.
    observed
        :math:`\log(y + c)` and the sampling variance :math:`n`, each ``(n_samples, n_genes)``, the
        weights of genes :math:`v`, shape ``(n_fits, 1, n_genes)``, and the offset :math:`c`.

    Returns
    -------
    The sum over fits, samples and genes. Its gradient is computed along with it: autograd would
    keep ten matrices of this size.
    """
    return _RobustResidual.apply(mixed, shift, scale, log_sd, *observed)


class _RobustResidual(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0913
        ctx: FunctionCtx,
        mixed: Tensor,
        shift: Tensor,
        scale: Tensor,
        log_sd: Tensor,
        log_y: Tensor,
        noise: Tensor,
        weights: Tensor,
        offset: Tensor,
    ) -> Tensor:
        factor = shift.exp() * scale.exp()  # (n_fits, n_samples, n_genes)
        mean = mixed * factor
        with_offset = mean + offset
        residual = log_y - with_offset.log()
        own = log_sd.mul(2).exp()
        variance = own + noise
        spread = (residual * residual).add_(variance, alpha=DF)
        value = spread.log().mul_((DF + 1) / 2).sub_(variance.log(), alpha=DF / 2)
        total = (value * weights).sum()
        slope = residual.mul_(-(DF + 1)).div_(spread).mul_(weights).div_(with_offset)
        by_mean = (slope * mean).sum(1, keepdim=True), (slope * mean).sum(2, keepdim=True)
        by_sd = spread.reciprocal_().mul_(DF + 1).sub_(variance.reciprocal_()).mul_(weights)
        by_sd = by_sd.sum((1, 2), keepdim=True) * own * DF
        ctx.save_for_backward(slope.mul_(factor), *by_mean, by_sd)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return *(gradient * saved for saved in ctx.saved_tensors), None, None, None, None
