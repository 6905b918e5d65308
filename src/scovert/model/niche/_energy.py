"""Places whose Euclidean distance is the energy distance of what is around two cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

__all__ = ["energy_map"]

LEAST = 1e-6
"""Least variance of an axis, as a share of that of the first; below it there is but rounding."""


def energy_map(centers: NDArray) -> NDArray:
    r"""Place cell states so that mixtures of them are as far apart as their energy distance.

    With the distances :math:`D_{mn} = \lVert W_m - W_n \rVert` and :math:`J = I - 11^\top / M`,

    .. math:: -J D J = V \Lambda V^\top, \qquad
        \lVert (\pi - \rho) V \Lambda^{1/2} \rVert^2
        = 2 \pi^\top D \rho - \pi^\top D \pi - \rho^\top D \rho,

    which is the energy distance :cite:p:`Szekely13` of two mixtures with the shares :math:`\pi`
    and :math:`\rho` of the centres.

    Parameters
    ----------
    centers
        Centres of the states, shape ``(n_states, n_dims)``.

    Returns
    -------
    Axes of the map, shape ``(n_states, n_axes)``: shares of states times them are the places.
    """
    distance = cdist(centers, centers)
    centered = distance - distance.mean(axis=0)
    centered -= centered.mean(axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(-(centered + centered.T) / 2)
    kept = values > max(LEAST * values[-1], np.finfo(float).tiny)
    axes = (vectors[:, kept] * np.sqrt(values[kept]))[:, ::-1]
    largest = np.abs(axes).argmax(axis=0)
    return axes * np.sign(axes[largest, np.arange(axes.shape[1])])
