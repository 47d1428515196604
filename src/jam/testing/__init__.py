"""For tests: a clock that is moved instead of waited for, and the kit that proves a store."""

from jam.testing.clock import MovableClock

__all__ = ["MovableClock"]
