"""Rules for which job to read next where submits and reads share one budget: simulated without sockets, side by side, in seconds.

The service gives one request every fifth of a second. It goes to a read where the rule says that one is due and reads haven't had their
share while submits wait, else to a submit where one waits, else to nobody.
"""

import math
import random
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from statistics import fmean
from typing import Final, Protocol

from attrs import define, field, frozen

from benchmarks.durations import Durations
from dryapi_async.protocol import cadence
from dryapi_async.protocol.cadence import KNOWN_ENDS, LONGEST, POT_SHARE, SHARE, SHORTEST, Budget, next_wait

GAP: Final = 0.2
"""Seconds between requests: 300 a minute, spaced."""
JOBS: Final = 600
AT_ONCE: Final = 200
MEDIAN: Final = 20.0
SIGMA: Final = 0.5
TAUGHT: Final = 30
"""Jobs that a first guess is worth."""
INDEX_SHARE: Final = 0.8
"""Reads' share where the index chooses them: it asks for few by itself."""
SITTING: Final = 0.08
"""Its threshold while no submit waits, in seconds."""
KEPT: Final = 60
"""The newest durations, which a quantile or a mean is taken of."""


class Rule(Protocol):
    """What decides when a job is read next."""

    share: float
    """The part of all requests that reads take at the most while submits wait."""

    def due(self, seen: float, *, waiting: int, chance: float) -> float:
        """Say at what age to read a job that was last seen unfinished at the age ``seen``; so many submits wait."""
        ...

    def learn(self, earlier: float, later: float, *, ended: bool) -> None:
        """Note that a job was unfinished at one age, and at a later one had ended or not."""
        ...


@define
class Proportional:
    """Read a job after a quarter of its age, by ``next_wait``'s numbers: nothing is learned."""

    share: float = INDEX_SHARE

    def due(self, seen: float, *, waiting: int, chance: float) -> float:  # noqa: ARG002  every rule is told
        """Give the age that is a quarter more."""
        return seen + min(max(seen * SHARE, SHORTEST), LONGEST) * (0.9 + 0.2 * chance)

    def learn(self, earlier: float, later: float, *, ended: bool) -> None:
        """Learn nothing."""


@define
class LongestUnread:
    """Read whichever was left unread for longest, as often as reads' share allows: nothing is learned."""

    share: float

    def due(self, seen: float, *, waiting: int, chance: float) -> float:  # noqa: ARG002  every rule is told
        """Say that it is due."""
        return seen

    def learn(self, earlier: float, later: float, *, ended: bool) -> None:
        """Learn nothing."""


@define
class Quantile:
    """Read first at the age that 60 % of the jobs seen had when they were found ended, then in proportion."""

    guess: float
    share: float = INDEX_SHARE
    _found: list[float] = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin with the guess."""
        self._found = [self.guess] * 5

    def due(self, seen: float, *, waiting: int, chance: float) -> float:  # noqa: ARG002  every rule is told
        """Give the quantile, or a quarter more."""
        return seen * (1 + SHARE) if seen else sorted(self._found)[int(0.6 * len(self._found))]

    def learn(self, earlier: float, later: float, *, ended: bool) -> None:  # noqa: ARG002  when it was found is all that it knows
        """Note how old it was."""
        if ended:
            self._found = [*self._found, later][-KEPT:]


@define
class Mean:
    """Read first at 60 % of the mean age at which jobs ended (halfway between their last two reads), then whichever is longest unread."""

    share: float
    guess: float | None = None
    _ended: list[float] = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin with the guess."""
        self._ended = [] if self.guess is None else [self.guess] * KNOWN_ENDS

    def due(self, seen: float, *, waiting: int, chance: float) -> float:  # noqa: ARG002  every rule is told
        """Give the part of the mean, or say that it is due."""
        return 0.6 * fmean(self._ended) if not seen and waiting and len(self._ended) >= KNOWN_ENDS else seen

    def learn(self, earlier: float, later: float, *, ended: bool) -> None:
        """Note when it is likely to have ended."""
        if ended:
            self._ended = [*self._ended, (earlier + later) / 2][-KEPT:]


@define
class Index:
    """Read a job when it is expected to have sat finished for a threshold of seconds while submits wait; the durations are learned."""

    sitting: float
    guess: float | None = None
    """The median that it was taught before; None is nothing."""
    share: float = INDEX_SHARE
    durations: Durations = field(factory=Durations, init=False)

    def __attrs_post_init__(self) -> None:
        """Be taught the guess."""
        chances = random.Random(TAUGHT)  # noqa: S311  durations, no secret
        for _ in range(0 if self.guess is None else TAUGHT):
            duration = chances.lognormvariate(math.log(self.guess or 1), SIGMA)
            self.learn(0, 0.9 * duration, ended=False)
            self.learn(0.9 * duration, duration, ended=True)

    def due(self, seen: float, *, waiting: int, chance: float) -> float:  # noqa: ARG002  every rule is told
        """Ask what was learned."""
        return self.durations.due(seen, self.sitting if waiting else SITTING)

    def learn(self, earlier: float, later: float, *, ended: bool) -> None:
        """Teach the durations."""
        self.durations.learn(earlier, later, ended=ended)


@define
class Code:
    """The rule that the client has: ``protocol.cadence.next_wait``."""

    guess: float | None = None
    share: float = POT_SHARE
    _known: cadence.Durations = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin with the guess."""
        self._known = cadence.Durations() if self.guess is None else cadence.Durations(mean=self.guess, ends=TAUGHT)

    def due(self, seen: float, *, waiting: int, chance: float) -> float:
        """Ask the client's own function."""
        budget = Budget(limit=round(1 / GAP), seconds=1.0, shared=True, waiting=waiting)
        return seen + next_wait(self._known, seen, first=not seen, budget=budget, chance=chance)

    def learn(self, earlier: float, later: float, *, ended: bool) -> None:
        """Teach the mean."""
        if ended:
            self._known.learn(earlier, later)


@frozen(kw_only=True)
class Outcome:
    """What a rule reaches: the mean over some seeds."""

    name: str
    jobs_a_minute: float
    mean_delay: float
    reads_a_job: float


RULES: Final[dict[str, Callable[[], Rule]]] = {
    "in proportion to its age": Proportional,
    "in proportion, reads take 60 %": lambda: Proportional(share=0.6),
    "longest unread, reads take 55 %": lambda: LongestUnread(0.55),
    "longest unread, reads take 60 %": lambda: LongestUnread(0.6),
    "longest unread, reads take 65 %": lambda: LongestUnread(0.65),
    "longest unread, reads take 80 %": lambda: LongestUnread(0.8),
    "60 % of the mean, then longest unread, reads take 60 %; no guess": lambda: Mean(0.6),
    "60 % of the mean, then longest unread, reads take 60 %; guess 20 s": lambda: Mean(0.6, 20),
    "60 % of the mean, then longest unread, reads take 60 %; guess 100 s": lambda: Mean(0.6, 100),
    "60 % of the mean, then longest unread, reads take 60 %; guess 4 s": lambda: Mean(0.6, 4),
    "60 % quantile, then in proportion; guess 20 s": lambda: Quantile(20),
    "60 % quantile, then in proportion; guess 100 s": lambda: Quantile(100),
    "60 % quantile, then in proportion; guess 4 s": lambda: Quantile(4),
    **{
        f"index, threshold {sitting} s; {'no guess' if guess is None else f'guess {guess} s'}": partial(Index, sitting, guess)
        for sitting in (1, 4, 5, 8)
        for guess in (None, 20, 100, 4)
    },
    "index, threshold 4 s, reads take 65 %; no guess": lambda: Index(4, share=0.65),
    "index, threshold 4 s, reads take 65 %; guess 100 s": lambda: Index(4, 100, share=0.65),
    "the client's; no guess": Code,
    "the client's; guess 20 s": lambda: Code(guess=20),
    "the client's; guess 100 s": lambda: Code(guess=100),
    "the client's; guess 4 s": lambda: Code(guess=4),
}
"""A guess is what the rule believes of the median before the first job; it is 20 s in truth."""


@define
class _Job:
    born: float
    ends: float
    seen: float
    chance: float


@define
class _Run:
    """One simulated run."""

    rule: Rule
    chances: random.Random
    unsent: int
    now: float = 0.0
    out: int = 0
    reads: int = 0
    delays: list[float] = field(factory=list[float])
    _plans: list[tuple[float, int, _Job]] = field(factory=list[tuple[float, int, _Job]])
    _count: int = 0
    _next: float = 0.0

    def step(self) -> None:
        """Give one request to somebody."""
        waiting = min(self.unsent, AT_ONCE - self.out)
        job = self._turn(waiting) if not waiting or self._next <= self.now else None
        if job is not None:
            self._next = max(self._next, self.now - 2 * GAP) + GAP / self.rule.share
            self._read(job, waiting)
        elif waiting:
            self.unsent, self.out = self.unsent - 1, self.out + 1
            ends = self.now + self.chances.lognormvariate(math.log(MEDIAN), SIGMA)
            self._plan(_Job(self.now, ends, 0.0, self.chances.random()), waiting)
        self.now += GAP

    def _plan(self, job: _Job, waiting: int) -> None:
        self._count += 1
        due = job.born + self.rule.due(job.seen, waiting=waiting, chance=job.chance)
        heappush(self._plans, (due, self._count, job))

    def _turn(self, waiting: int) -> _Job | None:
        """Take the job whose turn it is: what was learned since it was planned counts."""
        while self._plans and self._plans[0][0] <= self.now:
            _, _, job = heappop(self._plans)
            if job.born + self.rule.due(job.seen, waiting=waiting, chance=job.chance) <= self.now + GAP / 10:
                return job
            self._plan(job, waiting)
        return None

    def _read(self, job: _Job, waiting: int) -> None:
        self.reads += 1
        ended, age = self.now >= job.ends, self.now - job.born
        self.rule.learn(job.seen, age, ended=ended)
        if ended:
            self.delays.append(self.now - job.ends)
            self.out -= 1
        else:
            job.seen, job.chance = age, self.chances.random()
            self._plan(job, waiting)


def simulate(rule: Rule, *, seed: int, jobs: int = JOBS) -> tuple[float, float, float]:
    """Run one rule once; give jobs a minute, mean delay in seconds, and reads a job."""
    run = _Run(rule, random.Random(seed), jobs)  # noqa: S311  durations, no secret
    while len(run.delays) < jobs:
        run.step()
    return jobs / (run.now - GAP) * 60, fmean(run.delays), run.reads / jobs


def compare(*, seeds: int, jobs: int = JOBS) -> list[Outcome]:
    """Run every rule with so many seeds, the same for all."""
    outcomes: list[Outcome] = []
    for name, make in RULES.items():
        runs = [simulate(make(), seed=seed, jobs=jobs) for seed in range(1, seeds + 1)]
        speed, delay, reads = (fmean(values) for values in zip(*runs, strict=True))
        outcomes.append(Outcome(name=name, jobs_a_minute=speed, mean_delay=delay, reads_a_job=reads))
    return outcomes


def table(outcomes: list[Outcome]) -> str:
    """Write outcomes as a Markdown table."""
    head = "| rule | jobs a minute | mean delay, s | reads a job |\n|---|---|---|---|\n"
    return head + "\n".join(f"| {one.name} | {one.jobs_a_minute:.1f} | {one.mean_delay:.1f} | {one.reads_a_job:.2f} |" for one in outcomes)
