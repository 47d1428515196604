"""A fair queue: so many at once, in the order in which they came.

For work that fills a processor and takes memory, as hashing does. With a semaphore, who is quick could come first
forever: a thread that gives its turn back is running already, and the first to ask for the next one.
"""

from __future__ import annotations

import threading
from collections import deque

__all__ = ["Turns"]


class Turns:
    """Hands out a number of turns, in the order in which they were asked for.

    After a fork the child makes its own: those who had a turn, or waited for one, do not exist there.

    Args:
        number: How many can be had at once, 1 or more.
    """

    def __init__(self, number: int) -> None:
        self._lock = threading.Lock()
        self._free = number
        self._waiting: deque[threading.Lock] = deque()

    def take(self, patience: float) -> bool:
        """Wait for a turn.

        Args:
            patience: For how long at most, in seconds; 0 not to wait.

        Returns:
            Whether one was had; if so, it is to be given back.
        """
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            call = threading.Lock()
            call.acquire()
            self._waiting.append(call)
        try:
            if call.acquire(timeout=patience):
                return True
        except BaseException:  # the turn of somebody who went away must not be lost
            if not self._leave(call):
                self.give_back()
            raise
        return not self._leave(call)

    def give_back(self) -> None:
        """Let the next one have the turn, or keep it for whoever comes."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1

    def _leave(self, call: threading.Lock) -> bool:
        """Whether one was still waiting, and not called at the last moment."""
        with self._lock:
            if call not in self._waiting:
                return False
            self._waiting.remove(call)
            return True
