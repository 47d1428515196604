"""A clock that stands still until it is moved."""

from __future__ import annotations

__all__ = ["MovableClock"]


class MovableClock:
    """Give it to ``Jam(clock=...)``, and move it instead of sleeping.

    Args:
        now: Where it starts, in seconds since the epoch.
    """

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """What it shows, in seconds since the epoch."""
        return self.now

    def move(self, seconds: float) -> None:
        """Move it forwards, or back."""
        self.now += seconds
