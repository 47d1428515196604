"""Times contestants in turn, a few milliseconds each, for many rounds: whatever slows the machine slows them all.

Of each contestant the median over the rounds counts, and of a difference the median of the differences within a
round, so that a burst of somebody else's work in one slice decides nothing.
"""

from __future__ import annotations

import gc
import itertools
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

_SLICE = 0.003  # seconds: long against a timer's error, short against a machine's change of mind
_MIN_ROUNDS = 15
_WARM_UP = 0.02  # seconds
_WARM_UP_SLICES = 4


class Contestant:
    """One way to do a job.

    Args:
        name: What the table calls it.
        act: Does the job once, with one argument.
        arguments: Given one after the other and again from the start; longer than a cache if none is to help.
        after: Runs after each slice, outside of the time measured: puts back what the slice used up.
        most: At most so many operations in a slice.
    """

    def __init__(
        self,
        name: str,
        act: Callable[[Any], object],
        arguments: Sequence[Any] = (None,),
        *,
        after: Callable[[], object] | None = None,
        most: int = 10_000,
    ) -> None:
        self.name = name
        self._act = act
        self._arguments: Iterator[Any] = itertools.cycle(arguments)
        self._after = after
        self._most = most
        self._count = 1

    def time_slice(self) -> float:
        """Microseconds for one operation, as an average over one slice."""
        act, arguments = self._act, list(itertools.islice(self._arguments, self._count))
        start = time.perf_counter_ns()
        for argument in arguments:
            act(argument)
        end = time.perf_counter_ns()
        if self._after is not None:
            self._after()
        return (end - start) / len(arguments) / 1000

    def warm_up(self) -> None:
        """Run for a while, and learn how many operations fill a slice."""
        self.time_slice()  # the first one sets things up and says nothing about the others
        until = time.perf_counter() + _WARM_UP
        quickest, slices = math.inf, 0
        while slices < _WARM_UP_SLICES or time.perf_counter() < until:
            # The quickest counts: an interruption would make all slices short, and short slices start cold.
            quickest = min(quickest, self.time_slice())
            self._count = max(1, min(self._most, int(_SLICE * 1e6 / quickest)))
            slices += 1


class Timings:
    """What came of it: microseconds of each contestant, one figure a round."""

    def __init__(self, rounds: dict[str, list[float]]) -> None:
        self.rounds = rounds

    def median(self, name: str) -> float:
        """Microseconds for one operation."""
        return statistics.median(self.rounds[name])

    def added(self, name: str, base: str) -> float:
        """Microseconds that ``name`` costs more than ``base``."""
        pairs = zip(self.rounds[name], self.rounds[base], strict=True)
        return statistics.median(one - other for one, other in pairs)


def measure(contestants: Iterable[Contestant], seconds: float, what: str) -> Timings:
    """Time the contestants for about so many seconds, in a new order each round."""
    order = list(contestants)
    random.seed(1)
    progress = _Progress(what, seconds)
    for contestant in order:
        contestant.warm_up()
    rounds: dict[str, list[float]] = {contestant.name: [] for contestant in order}
    gc.collect()
    gc.freeze()  # what the set-up left behind is not gone through again in every round
    until = time.perf_counter() + seconds
    try:
        while time.perf_counter() < until or len(rounds[order[0].name]) < _MIN_ROUNDS:
            random.shuffle(order)
            gc.disable()  # a collection would hit one contestant with the garbage of all
            for contestant in order:
                rounds[contestant.name].append(contestant.time_slice())
            gc.enable()
            gc.collect()
            progress.show()
    finally:
        gc.enable()
        gc.unfreeze()
    progress.end(len(rounds[order[0].name]))
    return Timings(rounds)


class _Progress:
    """A line on stderr: what is running, a dot for each tenth of its time, how many rounds it was."""

    def __init__(self, what: str, seconds: float) -> None:
        print(f"  {what} ", end="", file=sys.stderr, flush=True)
        self._start = time.perf_counter()
        self._step = seconds / 10
        self._dots = 0

    def show(self) -> None:
        while self._dots < 10 and time.perf_counter() - self._start > self._step * (self._dots + 1):
            self._dots += 1
            print(".", end="", file=sys.stderr, flush=True)

    def end(self, rounds: int) -> None:
        print(f" {rounds} rounds", file=sys.stderr, flush=True)
