"""PostgreSQL's connections, made to give up.

The server can be told to end a statement after some time, but a server that is frozen, or behind a network that
swallows packets, does not keep such promises, and libpq waits for ever.
"""

from __future__ import annotations

import selectors
import time
from typing import Any

import psycopg
from psycopg.waiting import Ready

__all__ = ["ImpatientConnection"]


class ImpatientConnection(psycopg.Connection[Any]):
    """A connection that is closed if the server does not answer within ``patience`` seconds (``None``: for ever)."""

    patience: float | None = None

    def wait(self, gen: Any, *arguments: Any, **named: Any) -> Any:
        """Wait for an answer, as psycopg does, but not for ever.

        Args:
            gen: psycopg's conversation with the server. It yields what it waits for and is sent what is there.
            arguments: What else psycopg passes.
            named: The same.

        Raises:
            psycopg.OperationalError: If the answer did not come.
        """
        if self.patience is None:
            return super().wait(gen, *arguments, **named)
        deadline = time.monotonic() + self.patience
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self.pgconn.socket, next(gen))
                while events := selector.select(deadline - time.monotonic()):
                    selector.modify(self.pgconn.socket, gen.send(Ready(events[0][1])))
            gen.throw(psycopg.OperationalError("the server did not answer in time"))
        except StopIteration as done:
            return done.value
        except BaseException:
            if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                self.pgconn.finish()  # nobody will read the rest of its answer
            raise
