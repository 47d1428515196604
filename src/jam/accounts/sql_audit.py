"""The audit log in a database, through SQLAlchemy: SQLite, PostgreSQL or MariaDB."""

from __future__ import annotations

import json
import logging
import re
import sqlite3
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from jam.accounts.audit import (
    MAX_TEXT,
    Entry,
    asked_texts,
    checked_limit,
    checked_time,
    kept,
    make_private_file,
    match_cursor,
)
from jam.errors import ConfigError, StoreUnavailable
from jam.stores.engines import (
    SERVERS,
    checked_url,
    driver_error,
    exact_bytes,
    may_try_again,
    refuse_shared_connection,
    server_engine,
)
from jam.stores.forks import Gate, around_forks
from jam.stores.sqlite import switch_to_wal

__all__ = ["SQLAuditLog", "audit_table"]

logger = logging.getLogger("jam.accounts.audit")

T = TypeVar("T")

_MAX_ATTEMPTS = 4
_TABLE = re.compile(r"[a-z_][a-z0-9_]{0,40}", re.ASCII)
_CURSOR = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)


def audit_table(metadata: sa.MetaData, name: str = "jam_audit") -> sa.Table:
    """Put the audit log's table into an app's own metadata, so that its migrations see it.

    Args:
        metadata: Such as ``db.metadata`` of Flask-SQLAlchemy.
        name: Of the table.

    Raises:
        ConfigError: If the name is no plain one.
    """
    if not _TABLE.fullmatch(name):
        raise ConfigError("The audit log's table has a name of a-z, 0-9 and underscore.")
    if name in metadata.tables:
        return metadata.tables[name]
    text = exact_bytes(MAX_TEXT, 4)
    # Ids of entries that were pruned must not come again: a cursor would point to another entry.
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Table(
        name,
        metadata,
        sa.Column("id", number, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("event", text, nullable=False),
        sa.Column("subject", text),
        sa.Column("address", text),
        sa.Column("details", sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb"), nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        # A page is read from the end of one of these, in the order of ids: nothing needs to be sorted.
        sa.Index(f"ix_{name}_subject", "subject", "id"),
        sa.Index(f"ix_{name}_event", "event", "id"),
        sa.Index(f"ix_{name}_address", "address", "id"),
        sa.Index(f"ix_{name}_at", "at"),
        sqlite_autoincrement=True,
    )


class SQLAuditLog:
    """A table in SQLite, PostgreSQL or MariaDB, made when first needed. Entries stay until ``prune`` removes them.

    Each entry is a statement of its own in autocommit, on a connection apart from the app's ORM session: what the
    app rolls back stays in the log. SQLite runs in WAL mode with ``synchronous=NORMAL``: an entry survives the death of
    the app, and a power cut may take the last moments with it. If a connection breaks so that nobody knows whether an
    entry was kept, it is written again: twice is better than not at all.

    Args:
        source: A URL as ``open_audit_log`` takes them, or an ``Engine`` the app has.
        table: The table's name.
        timeout: How long to wait for the database, in seconds: for so long a sign-in may have to wait if it does not
            answer. An app's engine keeps its own times.

    Raises:
        ConfigError: If the URL names no database Jam knows, or its driver is not installed.
    """

    def __init__(self, source: str | sa.URL | sa.Engine, table: str = "jam_audit", *, timeout: float = 5.0) -> None:
        self._timeout = timeout
        self._gate = Gate()
        self._owned = isinstance(source, (str, sa.URL))
        self._engine = self._own_engine(source) if self._owned else _checked_engine(source)
        self._autocommit = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._table = audit_table(sa.MetaData(), table)
        self._has_table = False
        self._driver_error = driver_error(self._engine)
        self._is_sqlite = self._engine.dialect.name == "sqlite"
        self._binary_text = self._engine.dialect.name in ("mysql", "mariadb")
        _all_logs.add(self)

    def append(self, entry: Entry) -> None:
        """See ``AuditLog.append``."""
        row = kept(entry)
        for name in ("event", "subject", "address"):
            row[name] = self._text(row[name])
        self._run(lambda connection: connection.execute(self._table.insert(), row))

    def search(
        self,
        *,
        subject: str | None = None,
        event: str | None = None,
        address: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> Sequence[Entry]:
        """See ``AuditLog.search``."""
        columns = self._table.c
        chosen = self._table.select().order_by(columns.id.desc()).limit(checked_limit(limit))
        for name, text in asked_texts(subject, event, address).items():
            chosen = chosen.where(columns[name] == self._text(text))
        if since is not None:
            chosen = chosen.where(columns.at >= checked_time(since))
        if until is not None:
            chosen = chosen.where(columns.at < checked_time(until))
        if before is not None:
            chosen = chosen.where(columns.id < int(match_cursor(_CURSOR, before)[0]))
        return [_entry_of_row(row) for row in self._run(lambda connection: connection.execute(chosen).all())]

    def prune(self, before: float, limit: int = 1000) -> int:
        """Remove entries that are older than they must be kept (ASVS 14.2.7); returns how many went.

        Args:
            before: Those before this time go, in seconds since the epoch.
            limit: At most so many at once, the oldest first, so that nobody waits for long; 1 to 1000.

        Raises:
            InvalidValue: If an argument cannot be what it is.
            StoreUnavailable: If they could not be removed.
        """
        columns = self._table.c
        old = self._table.select().with_only_columns(columns.id).where(columns.at < checked_time(before))
        # MariaDB knows no LIMIT within IN, but one level further down it does.
        oldest = old.order_by(columns.at).limit(checked_limit(limit)).subquery().select()
        gone: int = self._run(
            lambda connection: connection.execute(self._table.delete().where(columns.id.in_(oldest))).rowcount
        )
        return gone

    def close(self) -> None:
        """See ``AuditLog.close``. An app's engine stays open."""
        if self._owned:
            self._engine.dispose()

    # -- engine ---------------------------------------------------------------------------------------------

    def _own_engine(self, source: Any) -> sa.Engine:
        url = checked_url(source, "The audit log's", ("sqlite", *SERVERS))
        if url.drivername == "sqlite":
            return _sqlite_engine(url, self._timeout)
        return server_engine(url, self._timeout, lambda: self._gate)

    def _run(self, act: Callable[[sa.Connection], T]) -> T:
        if not self._has_table:
            self._attempt(self._create_table)
            self._has_table = True
        return self._attempt(act)

    def _attempt(self, act: Callable[[sa.Connection], T]) -> T:
        """Act on a connection of its own; again if writers got in each other's way or the connection was lost.

        Raises:
            StoreUnavailable: If the database cannot be asked.
        """
        start = time.monotonic()
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            try:
                with self._standing(), self._autocommit.connect() as connection:
                    return act(connection)
            except sa.exc.DBAPIError as error:
                lost = error.connection_invalidated and time.monotonic() - start < self._timeout / 2
                if attempt == _MAX_ATTEMPTS or not (lost or may_try_again(error)):
                    raise _unavailable(error.orig or error) from None
            except self._driver_error as error:  # while a connection was made ready
                if attempt == _MAX_ATTEMPTS or time.monotonic() - start >= self._timeout / 2:
                    raise _unavailable(error) from None
            except (sa.exc.SQLAlchemyError, OSError) as error:
                raise _unavailable(error) from None
            time.sleep(0.002 * 2**attempt)
        raise AssertionError("unreachable")  # pragma: no cover

    def _create_table(self, connection: sa.Connection) -> None:
        try:
            self._table.create(connection, checkfirst=True)
        except sa.exc.DBAPIError:
            if not connection.dialect.has_table(connection, self._table.name):
                raise  # or else another process was a little faster

    def _text(self, text: str | None) -> Any:
        return text.encode() if self._binary_text and text is not None else text

    # -- forks ----------------------------------------------------------------------------------------------

    def _standing(self) -> AbstractContextManager[None]:
        """What a fork waits for: any use of SQLite, but of servers no more than the making of a connection."""
        return self._gate if self._is_sqlite else nullcontext()

    def before_fork(self) -> None:
        """See ``around_forks``. SQLite's locks do not go through a fork, so its file is closed meanwhile."""
        self._gate.close(self._timeout)
        if self._is_sqlite and self._owned:
            self._engine.dispose()

    def after_fork_in_parent(self) -> None:
        """See ``around_forks``."""
        self._gate.open()

    def after_fork_in_child(self) -> None:
        """See ``around_forks``: the child must not talk on the parent's sockets, nor say good-bye on them."""
        self._gate = Gate()
        self._engine.dispose(close=False)


def _checked_engine(engine: Any) -> sa.Engine:
    if not isinstance(engine, sa.Engine):
        raise ConfigError("The audit log needs a URL or a SQLAlchemy Engine.")
    refuse_shared_connection(engine)
    return engine


def _sqlite_engine(url: sa.URL, timeout: float) -> sa.Engine:
    """An engine whose file only its owner reads."""
    if not url.database or url.database.startswith((":memory:", "file:")) or url.host or url.query:
        raise ConfigError("A SQLite URL is sqlite:///relative.db or sqlite:////absolute/path.db, without options.")
    path = Path(url.database).absolute()
    make_private_file(path)
    engine = sa.create_engine(url.set(database=str(path)), max_overflow=-1, connect_args={"timeout": timeout})

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: object) -> None:
        # Writers must be quick: where each waits for the disk, others get their turn too late and give up.
        switch_to_wal(connection, timeout)
        connection.execute("PRAGMA synchronous = NORMAL")

    return engine


def _entry_of_row(row: Any) -> Entry:
    # The last by its place: ``count`` is a method of every row.
    return Entry(
        at=row.at, event=_read_text(row.event) or "", subject=_read_text(row.subject),
        address=_read_text(row.address), details=_read_details(row.details), count=row[-1], cursor=str(row.id),
    )  # fmt: skip


def _read_text(value: str | bytes | None) -> str | None:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def _read_details(text: str) -> dict[str, Any]:
    """The details, or a note that somebody changed them: an entry that is there is shown."""
    try:
        details = json.loads(text)
    except (ValueError, RecursionError):
        details = None
    return details if isinstance(details, dict) else {"unreadable": True}


def _unavailable(error: BaseException) -> StoreUnavailable:
    logger.error("The audit log's database failed: %s: %s", type(error).__name__, error)
    return StoreUnavailable(hint=f"The audit log's database says: {type(error).__name__}.")


_all_logs: weakref.WeakSet[SQLAuditLog] = weakref.WeakSet()

around_forks(
    _all_logs,
    before=SQLAuditLog.before_fork,
    after_in_parent=SQLAuditLog.after_fork_in_parent,
    after_in_child=SQLAuditLog.after_fork_in_child,
)
