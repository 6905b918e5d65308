"""Names next to points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_labels"]

_DISTANCES = (4, 10, 18, 28, 40)  # 1/72 inch, of a label from its point: up to half an inch
_ANGLES = np.deg2rad((0, 180, 30, 150, -30, 210, 60, 120, -60, 240, 90, -90))  # the best first
_COVERED = 10  # 1/72 inch that a label goes further away rather than to cover a point: one line
_GAP = 1  # 1/72 inch, between labels and from the frame


def draw_labels(ax: Axes, names: Sequence[str], xy: NDArray, points: NDArray) -> None:
    """Write names next to points: inside of the frame, off each other, off points if possible.

    Lengths are in points, 1/72 inch. A name for which there is no room is left out.

    Parameters
    ----------
    ax
        Axes with their final limits.
    names, xy
        Names, and what they belong to, shape ``(n_names, 2)``.
    points
        All points that are drawn, shape ``(n_points, 2)``.
    """
    ax.figure.draw_without_rendering()  # fixes the layout
    unit = ax.figure.dpi / 72
    points, anchors = (ax.transData.transform(a) / unit for a in (points, xy))
    frame = ax.bbox.extents / unit
    taken = np.empty((0, 4))
    for name, place, anchor in zip(names, xy, anchors, strict=True):
        label = ax.annotate(
            name,
            place,
            (0, 0),
            textcoords="offset points",
            horizontalalignment="center",
            verticalalignment="center",
            fontsize="x-small",
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "0.5", "shrinkA": 0},
        )
        label.set_in_layout(False)
        size = np.array(label.get_window_extent().size) / unit
        offset = _find_room(anchor, size, frame, taken, points)
        if offset is None:
            label.remove()
            continue
        label.set_position(offset)
        taken = np.vstack([taken, _box(anchor + offset, size)])


def _find_room(
    anchor: NDArray, size: NDArray, frame: NDArray, taken: NDArray, points: NDArray
) -> NDArray | None:
    """Return the best offset of the centre of a label from its point, `None` if there is none."""
    best, lowest = None, np.inf
    for distance in _DISTANCES:
        for angle in _ANGLES:
            ray = np.array([np.cos(angle), np.sin(angle)]).round(9)
            offset = distance * ray + np.sign(ray) * size / 2
            box = _box(anchor + offset, size + 2 * _GAP)
            is_inside = (box[:2] > frame[:2]).all() and (box[2:] < frame[2:]).all()
            if not is_inside or _overlaps(box, taken).any():
                continue
            cost = distance + _COVERED * _overlaps(box, np.hstack([points, points])).sum()
            if cost < lowest:
                best, lowest = offset, cost
    return best


def _box(centre: NDArray, size: NDArray) -> NDArray:
    """Left, lower, right and upper end."""
    return np.concatenate([centre - size / 2, centre + size / 2])


def _overlaps(box: NDArray, others: NDArray) -> NDArray:
    """Which of the other boxes, shape ``(n_boxes, 4)``, share an inner point with this one."""
    return (others[:, :2] < box[2:]).all(axis=1) & (others[:, 2:] > box[:2]).all(axis=1)
