"""A plot beside the tables. matplotlib is imported when one is drawn; without it the tables are all there is."""

import importlib
import importlib.util
from collections.abc import Sequence
from math import inf
from pathlib import Path
from statistics import median
from typing import Any, Final, Literal

from attrs import frozen

INCHES: Final = (10.0, 4.8)
DOTS_PER_INCH: Final = 110
GOAL: Final = "#3a8f5c"
COLOURS: Final = ("#c0392b", "#2d6a9f", "#3a8f5c", "#8e6bb0", "#888888", "#b8860b")


@frozen(kw_only=True)
class Group:
    """Points of one colour: ``(x, y, label)``, an empty label is none."""

    name: str
    points: tuple[tuple[float, float, str], ...]
    marker: str = "o"
    joined: bool = False
    """Whether a line runs through them, in their order."""


@frozen(kw_only=True)
class Panel:
    """One picture: delays upwards."""

    title: str
    x_label: str
    y_label: str
    groups: tuple[Group, ...]
    box: tuple[float, float, float, float]
    """Left, bottom, right and top of the corner that the goal allows; infinity is no bound."""
    y_top: float | None = None
    """Points above lie on the upper edge, with their value beside them."""


@frozen(kw_only=True)
class Bar:
    """One who was measured, again and again."""

    name: str
    values: tuple[float, ...]
    kind: Literal["ours", "raw", "peer"]


@frozen(kw_only=True)
class Bars:
    """One picture: medians as bars, with a line from the least to the greatest."""

    title: str
    x_label: str
    bars: tuple[Bar, ...]
    digits: int


_BAR_COLOURS: Final = {"ours": "#c0392b", "raw": "#888888", "peer": "#2d6a9f"}


def can_draw() -> bool:
    """Say whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(panels: Sequence[Panel | Bars], target: Path) -> None:
    """Draw panels side by side into a PNG file.

    Raises:
        ImportError: matplotlib isn't installed.
    """
    figure_module: Any = importlib.import_module("matplotlib.figure")  # no pyplot: it would look for a screen
    figure = figure_module.Figure(figsize=INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        if isinstance(panel, Bars):
            _draw_bars(axes, panel)
        else:
            _draw(axes, panel)
    figure.savefig(target, format="png", metadata={"Software": None})


def _draw(axes: Any, panel: Panel) -> None:
    top = inf if panel.y_top is None else panel.y_top
    for group, colour in zip(panel.groups, COLOURS, strict=False):
        xs, ys = [x for x, *_ in group.points], [min(y, top) for _, y, _ in group.points]
        line = "-" if group.joined else ""
        axes.plot(xs, ys, linestyle=line, marker=group.marker, color=colour, label=group.name, linewidth=1)
        for number, (x, y, label) in enumerate(group.points):
            # Words stand above and below by turns, so that those of neighbours don't cover each other.
            offset = 6 if number % 2 == 0 else -12
            words = {"horizontalalignment": "center", "fontsize": 7, "color": colour}
            text = f"{label} ({y:.0f} s)" if y > top else label
            axes.annotate(text, (x, min(y, top)), xytext=(0, offset), textcoords="offset points", **words)
    axes.set_title(panel.title, fontsize=9)
    axes.set(xlabel=panel.x_label, ylabel=panel.y_label)
    axes.set_ylim(bottom=0, top=1.1 * min(top, max(y for group in panel.groups for _, y, _ in group.points)))
    axes.margins(x=0.18)
    _shade(axes, panel.box)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)  # where it covers nothing


def _draw_bars(axes: Any, panel: Bars) -> None:
    middles = [median(bar.values) for bar in panel.bars]
    reach = (
        [middle - min(bar.values) for middle, bar in zip(middles, panel.bars, strict=True)],
        [max(bar.values) - middle for middle, bar in zip(middles, panel.bars, strict=True)],
    )
    names, colours = [bar.name for bar in panel.bars], [_BAR_COLOURS[bar.kind] for bar in panel.bars]
    axes.barh(names, middles, xerr=reach, color=colours, ecolor="#333333", capsize=2)
    for row, (middle, bar) in enumerate(zip(middles, panel.bars, strict=True)):
        words = {"textcoords": "offset points", "verticalalignment": "center", "fontsize": 8}
        axes.annotate(f"{middle:,.{panel.digits}f}", (max(bar.values), row), xytext=(4, 0), **words)
    axes.invert_yaxis()  # the first on top
    axes.set_title(panel.title, fontsize=9, loc="left")
    axes.set(xlabel=panel.x_label)
    axes.margins(x=0.2)
    axes.grid(alpha=0.3, axis="x")


def _shade(axes: Any, box: tuple[float, float, float, float]) -> None:
    """Shade what the goal allows, and leave the axes as they are."""
    (x_low, x_high), (y_low, y_high) = axes.get_xlim(), axes.get_ylim()
    left, bottom, right, top = box
    axes.fill_between([max(left, x_low), min(right, x_high)], max(bottom, y_low), min(top, y_high), color=GOAL, alpha=0.12, label="must")
    axes.set(xlim=(x_low, x_high), ylim=(y_low, y_high))
