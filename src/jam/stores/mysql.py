"""MariaDB's connections, without the words that are not needed.

In autocommit there is nothing to roll back or to commit, but PyMySQL asks the server to do it all the same, which
would make each verb two trips.
"""

from __future__ import annotations

from typing import Any

import pymysql.connections  # type: ignore[import-untyped]

__all__ = ["AutocommitConnection"]


class AutocommitConnection(pymysql.connections.Connection):  # type: ignore[misc]
    """A connection that is always in autocommit."""

    def commit(self) -> None:
        """Nothing: each statement is a transaction of its own."""

    def rollback(self) -> None:
        """Nothing: each statement is a transaction of its own."""

    @property
    def closed(self) -> bool:
        """Whether there is no socket any more."""
        return not self.open

    def fileno(self) -> int:
        """The socket's descriptor."""
        socket: Any = self._sock
        number: int = socket.fileno()
        return number
