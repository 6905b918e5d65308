"""The loss terms of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scovert.pl._input import SIZE, finish
from scovert.pl._marks import BLUE, GREEN, ORANGE, PURPLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["history"]

_NATS = "nats per cell"
_TITLES = {  # in the order of the panels
    "loss": ("Loss", _NATS),
    "elbo": ("Negative ELBO", _NATS),
    "reconstruction_loss": ("Reconstruction", _NATS),
    "kl_local": ("KL divergence", _NATS),
    "pull": ("Pull between anchored cells", "squared latent distance per cell"),
    "components": ("Aligned components", "nats per cell"),
    "cross_reconstruction": ("Cross-reconstruction", _NATS),
    "confusion": ("Confusion of the discriminator", _NATS),
    "discriminator": ("Cross-entropy of the discriminator", _NATS),
    "treatment_loss": ("Treatment (odd rounds)", "nats per held-out cell"),
    "outcome_loss": ("Counts (odd rounds)", "nats per held-out cell"),
    "generator_loss": ("Generator (even rounds)", "loss per cell"),
    "deviance": ("Deviance", "$-2$ log-likelihood per cell"),
    "weights": ("Weights", "weight"),
}
_MODES = ("train", "validation")
_COLOURS = {
    "train": BLUE,
    "validation": ORANGE,
    "KL weight": GREEN,
    "alignment strength": PURPLE,
}
_COVERED = (5, 95)  # percentiles of the values of a panel, without the steep first epochs
_STEEP = 3.0  # times what these span: all are shown, unless they span more
_MARGIN = 0.1  # of what they span, on both sides, so that lines keep off the frame
_MAX_COLUMNS = 3  # as wide as a slide

Lines = dict[str, pd.Series]


def history(model: object, *, show: bool = False) -> np.ndarray:
    """Draw every loss term of a training by epoch or round, one panel for each (array of Axes).

    Training and validation share a panel, and so do the weights of the terms. Terms that are zero
    throughout are left out. The limits of a panel cover all values, or 90 % of them and the last
    ones where the first epochs would flatten the rest. The lines hold all values.

    Parameters
    ----------
    model
        A trained model, or its ``history``, which maps names to DataFrames with one column. The
        name of their index, such as ``"round"``, is that of the axis; without one it is
        ``"epoch"``.
    show
        Show the figure, as :func:`matplotlib.pyplot.show` does.

    Returns
    -------
    Array of :class:`matplotlib.axes.Axes`, one for each panel, shape ``(n_panels,)``. The figure
    is ``axes[0].figure``.

    Raises
    ------
    RuntimeError
        If the model has no history.

    Examples
    --------
    >>> import pandas as pd
    >>> from types import SimpleNamespace
    >>> from scovert.pl import history
    >>> loss = pd.DataFrame({"train_loss": [9.0, 5.0, 4.0]})
    >>> [axes.get_title() for axes in history(SimpleNamespace(history={"train_loss": loss}))]
    ['Loss']
    """
    import matplotlib.pyplot as plt

    table = model if isinstance(model, Mapping) else getattr(model, "history", None)
    panels = _panels(table or {})
    if not panels:
        is_trained = getattr(model, "is_trained", False)
        remedy = "Its results may have one, such as `result.history`: pass that."
        raise RuntimeError(
            f"This {type(model).__name__} has no history of training. A trained model or its "
            f"`history` can be drawn. {remedy if is_trained else 'Call `model.train()` first.'}"
        )
    n_columns = min(_MAX_COLUMNS, len(panels))
    n_rows = -(-len(panels) // n_columns)
    size = (n_columns * SIZE[0], n_rows * SIZE[1])
    figure, axes = plt.subplots(
        n_rows, n_columns, figsize=size, squeeze=False, layout="constrained"
    )
    for ax in axes.flat[len(panels) :]:
        ax.remove()
    used = axes.ravel()[: len(panels)]
    for ax, (term, lines) in zip(used, panels.items(), strict=True):
        _draw(ax, term, lines)
    return finish(used, show=show)


def _panels(table: Mapping[str, pd.DataFrame]) -> dict[str, Lines]:
    """Lines of each panel by label, panels in the order in which they are drawn."""
    panels: dict[str, Lines] = {}
    for name, frame in table.items():
        values = frame.iloc[:, 0].astype(float).dropna()
        if values.any():
            term, label = _place(name)
            panels.setdefault(term, {})[label] = values
    terms = sorted(panels, key=[*_TITLES, *panels].index)
    return {term: dict(sorted(panels[term].items(), key=_rank)) for term in terms}


def _rank(line: tuple[str, pd.Series]) -> int:
    """Training first, then validation, then the rest."""
    return [*_MODES, line[0]].index(line[0])


def _place(name: str) -> tuple[str, str]:
    """Panel and label of an entry of the history."""
    if name.endswith(("_weight", "_strength")):
        return "weights", name.replace("_", " ").replace("kl", "KL")
    for mode in _MODES:
        if name == f"{mode}_loss":
            return "loss", mode
        if name.endswith(f"_chance_{mode}"):
            return name.removesuffix(f"_chance_{mode}"), "chance"
        if name.endswith(f"_{mode}"):
            return name.removesuffix(f"_{mode}"), mode
    return name, name


def _draw(ax: Axes, term: str, lines: Lines) -> None:
    title, unit = _TITLES.get(term, (term.replace("_", " ").capitalize(), ""))
    for label, values in lines.items():
        if label == "chance":
            ax.axhline(values.iloc[-1], color="0.4", linestyle="--", label=label)
        else:
            marker = "." if len(values) == 1 else None
            ax.plot(values.index, values, color=_COLOURS.get(label), marker=marker, label=label)
    _set_limits(ax, lines, is_whole=term == "weights")
    index = next(iter(lines.values())).index
    ax.set(title=title, xlabel=index.name or "epoch", ylabel=unit)
    if list(lines) != [term]:  # else the title says it
        ax.legend(frameon=False, loc="lower right" if term == "weights" else "best")


def _set_limits(ax: Axes, lines: Lines, *, is_whole: bool) -> None:
    """Cover all values, or most and the last ones if the first would flatten them."""
    values = np.concatenate([line[np.isfinite(line)] for line in lines.values()])
    if len(values) == 0:
        return
    last = [line.iloc[-1] for line in lines.values() if np.isfinite(line.iloc[-1])]
    low, high = np.percentile(values, _COVERED)
    low, high = min([low, *last]), max([high, *last])
    if is_whole or np.ptp(values) <= _STEEP * (high - low):
        low, high = values.min(), values.max()
    margin = _MARGIN * (high - low)
    if margin > 0:
        ax.set_ylim(low - margin, high + margin)
