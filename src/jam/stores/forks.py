"""Stores and forks: what must stand still while the process forks, and be made anew in the child."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakSet

__all__ = ["Gate", "around_forks"]

logger = logging.getLogger("jam.stores")

T = TypeVar("T")


class Gate:
    """Lets threads in, as a context, and can be closed for the time of a fork, when nobody may be inside."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._open = True

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._open)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def close(self, patience: float) -> None:
        """Let nobody in, and wait until nobody is inside, for at most so many seconds."""
        with self._changed:
            self._open = False
            try:
                alone = self._changed.wait_for(lambda: not self._inside, patience)
            except BaseException:  # nobody else would open it again
                self._open = True
                self._changed.notify_all()
                raise
            if not alone:
                logger.error("The process forks while a connection is being made; the child may find it locked.")

    def open(self) -> None:
        """Let threads in again."""
        with self._changed:
            self._open = True
            self._changed.notify_all()


def around_forks(
    stores: WeakSet[T],
    *,
    before: Callable[[T], None],
    after_in_parent: Callable[[T], None],
    after_in_child: Callable[[T], None],
) -> None:
    """Call these for every store that is alive when the process forks; one fork at a time.

    Args:
        stores: The stores of one engine, as they come and go.
        before: Brings a store to a standstill, in the parent.
        after_in_parent: Lets it go on.
        after_in_child: Makes it usable where none of the other threads exist any more.
    """
    forking = threading.Lock()
    held: list[T] = []

    def stop_all() -> None:
        forking.acquire()
        for store in list(stores):
            try:
                before(store)
            except Exception:  # one store's trouble must not leave the others unprepared
                logger.exception("A store could not be made ready for a fork")
            else:
                held.append(store)

    def go_on(act: Callable[[T], None]) -> Callable[[], None]:
        def go_on_with_all() -> None:
            while held:
                act(held.pop())
            forking.release()

        return go_on_with_all

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=stop_all, after_in_parent=go_on(after_in_parent), after_in_child=go_on(after_in_child)
        )
