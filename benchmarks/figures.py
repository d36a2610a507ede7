"""Figures beside their goals: a median of repetitions, the least and the greatest, and whether that is what was wanted."""

from collections.abc import Sequence
from statistics import median
from typing import Literal

from attrs import frozen


@frozen
class Goal:
    """A limit. ``word`` says whose: a promise, what must be, what is aimed at."""

    word: str
    sign: Literal["<=", ">="]
    limit: float

    def holds(self, value: float) -> bool:
        """Say whether a value reaches it."""
        return value <= self.limit if self.sign == "<=" else value >= self.limit

    def judge(self, values: Sequence[float]) -> str:
        """Say in words whether the median reaches it, and how many repetitions don't."""
        reached = sum(map(self.holds, values))
        if not self.holds(median(values)):
            return f"**not met** ({reached} of {len(values)} repetitions do)"
        return "met" if reached == len(values) else f"met by the median, **not by {len(values) - reached} of {len(values)}**"

    def __str__(self) -> str:
        return f"{self.word} {self.sign} {self.limit:g}"


@frozen(kw_only=True)
class Figure:
    """One figure of two subjects in the same repetitions; the goals are for ours, or for the ratio of ours to the other's."""

    name: str
    digits: int
    ours: tuple[float, ...]
    raw: tuple[float, ...]
    judged: Literal["ours", "ratio"]
    goals: tuple[Goal, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ours to the other's, repetition by repetition."""
        return tuple(ours / raw if raw else 0.0 for ours, raw in zip(self.ours, self.raw, strict=True))

    @property
    def judged_values(self) -> tuple[float, ...]:
        """What the goals are for."""
        return self.ours if self.judged == "ours" else self.ratios

    def row(self) -> str:
        """Write the figure as a row of a Markdown table."""
        what = "ours" if self.judged == "ours" else "ratio"
        goals = "<br>".join(f"{what} {goal}: {goal.judge(self.judged_values)}" for goal in self.goals)
        cells = (self.name, spread(self.ours, self.digits), spread(self.raw, self.digits), spread(self.ratios, 2), goals)
        return f"| {' | '.join(cells)} |"


def spread(values: Sequence[float], digits: int) -> str:
    """Write a median, and the least and the greatest in brackets."""
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def table(figures: Sequence[Figure]) -> str:
    """Write figures as a Markdown table."""
    head = "| figure | ours | raw aiohttp | ours / raw | goals |\n|---|---|---|---|---|\n"
    return head + "\n".join(figure.row() for figure in figures)


def goal_table(figures: Sequence[Figure]) -> str:
    """Write figures of ours alone, and their goals, as a Markdown table."""
    rows = (
        f"| {one.name} | {spread(one.ours, one.digits)} | {'<br>'.join(f'{goal}: {goal.judge(one.ours)}' for goal in one.goals)} |"
        for one in figures
    )
    return "| figure | ours | goals |\n|---|---|---|\n" + "\n".join(rows)


def misses(figures: Sequence[Figure]) -> list[str]:
    """List the goals that a median doesn't reach, and those that single repetitions don't."""
    found: list[str] = []
    for figure in figures:
        for goal in figure.goals:
            values = figure.judged_values
            missing = [value for value in values if not goal.holds(value)]
            if not goal.holds(median(values)):
                found.append(f"{figure.name}: {goal} is not met, the median is {median(values):.3g}")
            elif missing:
                worst = max(missing) if goal.sign == "<=" else min(missing)
                share = f"{len(missing)} of {len(values)} repetitions: the worst is {worst:.3g}"
                found.append(f"{figure.name}: {goal} is met by the median, but not by {share}")
    return found
