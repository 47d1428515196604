"""PostgreSQL's connections, made to give up.

The server can be told to end a statement after some time, but a server that is frozen, or behind a network that
swallows packets, does not keep such promises, and libpq waits for ever.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import psycopg

__all__ = ["ImpatientConnection"]


class ImpatientConnection(psycopg.Connection[Any]):
    """A connection that is closed if the server does not answer within ``patience`` seconds (``None``: for ever)."""

    patience: float | None = None

    def wait(self, gen: Any, *arguments: Any, **named: Any) -> Any:
        """Wait for an answer, as psycopg does, but not for ever.

        Raises:
            psycopg.OperationalError: If it did not come.
        """
        if self.patience is not None:
            gen = self._until(time.monotonic() + self.patience, gen)
        return super().wait(gen, *arguments, **named)

    def _until(self, deadline: float, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Hand everything through; psycopg comes by every tenth of a second even if nothing happened."""
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > deadline:
                    self.pgconn.finish()
                    raise psycopg.OperationalError("the server did not answer in time")
                wanted = gen.send(ready)
        except StopIteration as done:
            return done.value
