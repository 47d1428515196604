"""``sqlite:///file``: one file on this machine, shared by all its threads and processes.

The standard library's ``sqlite3`` in WAL mode. An acknowledged write survives the death of the app; whether
it survives a power cut is ``synchronous``: NORMAL (the default here and much faster) may lose the last
moments, FULL does not. Connections are pooled, one to a caller at a time, and never cross a fork.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from jam.errors import ConfigError, GenerationOutdated, JamError, RecordExists, StoreUnavailable
from jam.stores.base import (
    COLLECT_AFTER,
    MAX_LIST,
    Counted,
    Found,
    Marks,
    Record,
    Store,
    add_up,
    check_kinds,
    check_record,
    check_swap,
    decode_data,
    decode_marks,
    touch_is_due,
)
from jam.stores.forks import around_forks

__all__ = ["SCHEMA_VERSION", "SQLiteStore", "switch_to_wal"]

logger = logging.getLogger("jam.stores.sqlite")

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    kind TEXT NOT NULL, id TEXT NOT NULL, subject TEXT NOT NULL, "check" BLOB NOT NULL,
    generation INTEGER NOT NULL, data BLOB NOT NULL, created_at REAL NOT NULL, touched_at REAL NOT NULL,
    idle_for REAL, ends_at REAL NOT NULL, dies_at REAL NOT NULL, version INTEGER NOT NULL,
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS records_by_subject ON records (subject, kind, id);
CREATE INDEX IF NOT EXISTS records_by_death ON records (dies_at);
CREATE TABLE IF NOT EXISTS marks (subject TEXT PRIMARY KEY, generations BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counts (name TEXT PRIMARY KEY, count INTEGER NOT NULL, ends_at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS counts_by_end ON counts (ends_at);
"""

_COLUMNS = 'kind, id, subject, "check", generation, data, created_at, touched_at, idle_for, ends_at, version'
# A record and both marks that decide about its generation, everyone's being kept under the subject "".
_WITH_MARKS = f"""{_COLUMNS},
    (SELECT generations FROM marks WHERE marks.subject = records.subject),
    (SELECT generations FROM marks WHERE marks.subject = '')"""  # noqa: S608 - nothing but constants
_GET = f"SELECT {_WITH_MARKS} FROM records WHERE kind = ? AND id = ? AND dies_at > ?"  # noqa: S608
_TAKE = f"DELETE FROM records WHERE kind = ? AND id = ? AND dies_at > ? RETURNING {_WITH_MARKS}"  # noqa: S608
_TOUCH = """UPDATE records SET touched_at = :now, dies_at = min(ends_at, ifnull(:now + idle_for, ends_at))
    WHERE kind = :kind AND id = :id AND touched_at < :now"""
_MARKS = """SELECT
    (SELECT dies_at FROM records WHERE kind = 'revoked_token' AND id = ?),
    (SELECT generations FROM marks WHERE subject = ?),
    (SELECT generations FROM marks WHERE subject = '')"""
_PUT = f"""INSERT OR REPLACE INTO records ({_COLUMNS}, dies_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""  # noqa: S608
_SWAP_UNMARKED = """UPDATE records SET
        "check" = ?, generation = ?, data = ?, created_at = ?, idle_for = ?, ends_at = ?,
        dies_at = min(ifnull(touched_at + ?, 9e99), ?), version = version + 1
    WHERE kind = ? AND id = ? AND version = ? AND subject = ? AND dies_at > ?
    AND NOT EXISTS (SELECT 1 FROM marks WHERE marks.subject = records.subject)
    AND NOT EXISTS (SELECT 1 FROM marks WHERE marks.subject = '')
    RETURNING touched_at"""
_REMOVE = "DELETE FROM records WHERE kind = ? AND id = ?"
_LIST = f"""SELECT {_COLUMNS} FROM records
    WHERE subject = :subject AND kind = :kind AND id > :after AND dies_at > :now
    AND generation >=
        ifnull((SELECT json_extract(generations, '$.' || :kind) FROM marks WHERE subject = :subject), 0)
        + CASE :subject WHEN '' THEN 0 ELSE
          ifnull((SELECT json_extract(generations, '$.' || :kind) FROM marks WHERE subject = ''), 0) END
    ORDER BY id LIMIT :limit"""  # noqa: S608
_MARK = "SELECT generations FROM marks WHERE subject = ?"
_PUT_MARK = "INSERT OR REPLACE INTO marks (subject, generations) VALUES (?, ?)"
_COUNT_UP = """INSERT INTO counts (name, count, ends_at) VALUES (:name, 1, :now + :window)
    ON CONFLICT (name) DO UPDATE SET
        count = CASE WHEN ends_at <= :now THEN 1 ELSE count + 1 END,
        ends_at = CASE WHEN ends_at <= :now THEN :now + :window ELSE min(ends_at, :now + :window) END
    RETURNING count, ends_at"""
_COUNT_BACK = "UPDATE counts SET count = count - 1 WHERE name = ? AND ends_at > ? AND count > 0"
_PURGE = """DELETE FROM records WHERE (kind, id) IN
    (SELECT kind, id FROM records WHERE dies_at <= ? ORDER BY dies_at LIMIT ?)"""
_PURGE_COUNTS = """DELETE FROM counts WHERE name IN
    (SELECT name FROM counts WHERE ends_at <= ? ORDER BY ends_at LIMIT ?)"""

Rows = list[Any]  # the class below has a method named list

_PURGE_EVERY = 128
_POOL_SIZE = 32
_ENCODE = msgspec.json.Encoder().encode


class SQLiteStore(Store):
    """See ``jam.stores.base.Store`` for the promises of each method.

    Args:
        path: The file; made (readable only by its owner) when first used. Its directory must exist.
        synchronous: ``NORMAL`` or ``FULL``.
        timeout: How long to wait for another process's write, in seconds.
    """

    def __init__(self, path: str | os.PathLike[str], *, synchronous: str = "NORMAL", timeout: float = 5.0) -> None:
        if synchronous.upper() not in ("NORMAL", "FULL"):
            raise ConfigError("SQLite's synchronous is NORMAL or FULL.")
        if not 0 < timeout <= 60:  # noqa: PLR2004
            raise ConfigError("SQLite's timeout is more than 0 and at most 60 seconds.")
        self._path = Path(path).absolute()
        self._synchronous = synchronous.upper()
        self._timeout = timeout
        self._adds = 0
        self._pool: deque[sqlite3.Connection] = deque()  # those nobody uses at the moment
        self._opened: set[sqlite3.Connection] = set()  # all of them
        self._forking = False
        self._writing = threading.Lock()
        self._opening = threading.Lock()
        _all_stores.add(self)

    @classmethod
    def from_url(cls, url: str) -> Self:
        """The store behind ``sqlite:///relative.db`` or ``sqlite:////absolute/path.db``.

        Raises:
            ConfigError: If the URL has no file or an unknown option.
        """
        parts = urlsplit(url)
        path = unquote(parts.path).removeprefix("/")
        if parts.netloc or not path or path == ":memory:":
            raise ConfigError(
                "A SQLite URL is sqlite:///relative.db or sqlite:////absolute/path.db.",
                hint="For records that live only in this process, use memory://.",
            )
        options: dict[str, Any] = dict(parse_qsl(parts.query, keep_blank_values=True))
        unknown = options.keys() - {"synchronous", "timeout"}
        if unknown:
            raise ConfigError(f"SQLite URLs know no option {min(unknown)!r}.", hint="Use synchronous or timeout.")
        if "timeout" in options:
            try:
                options["timeout"] = float(options["timeout"])
            except ValueError:
                raise ConfigError("SQLite's timeout is a number of seconds.") from None
        return cls(path, **options)

    # -- the verbs ------------------------------------------------------------------------------------------

    def add(self, record: Record, now: float) -> None:
        data = check_record(record)
        with self._transaction() as execute:
            row = execute(_MARKS, ("", record.subject)).fetchone()
            generations = _generations(record.subject, row[1], row[2])
            if record.generation < generations.get(record.kind, 0):
                raise GenerationOutdated
            existing = execute(_GET, (record.kind, record.id, now)).fetchone()
            if existing is not None and _found(existing) is not None:
                raise RecordExists
            execute(_PUT, _row(record, data))
        self._adds += 1
        if self._adds % _PURGE_EVERY == 0:
            with suppress(StoreUnavailable):  # the record is kept, whatever becomes of the dead
                self.purge(now, 2 * _PURGE_EVERY)

    def get(self, kind: str, record_id: str, now: float, touch_after: float | None = None) -> Found | None:
        rows = self._run(_GET, (kind, record_id, now))
        found = _found(rows[0]) if rows else None
        if found is not None and touch_is_due(found.record, now, touch_after):
            self._write(_TOUCH, {"kind": kind, "id": record_id, "now": now})
            return Found(msgspec.structs.replace(found.record, touched_at=now), found.generations)
        return found

    def marks(self, subject: str, revocation_id: str, now: float) -> Marks:
        ((dies_at, subjects, everyones),) = self._run(_MARKS, (revocation_id, subject))
        return Marks(dies_at is not None and dies_at > now, _generations(subject, subjects, everyones))

    def swap(self, old: Record, new: Record, now: float) -> Record | None:
        data = check_swap(old, new)
        if new.id == old.id:
            # The common case in one statement: the same id, and a subject nothing of which was ever revoked.
            arguments = (new.check, new.generation, data, new.created_at, new.idle_for, new.ends_at, new.idle_for,
                         new.ends_at, old.kind, old.id, old.version, old.subject, now)  # fmt: skip
            rows = self._write(_SWAP_UNMARKED, arguments)
            if rows:
                touched_at = rows[0][0]
                return msgspec.structs.replace(
                    new, touched_at=touched_at, version=old.version + 1, data=decode_data(data)
                )
        with self._transaction() as execute:
            row = execute(_GET, (old.kind, old.id, now)).fetchone()
            found = None if row is None else _found(row)
            if found is None or found.record.version != old.version or found.record.subject != old.subject:
                return None
            if new.generation < found.generations.get(new.kind, 0):
                raise GenerationOutdated
            if new.id != old.id:
                existing = execute(_GET, (new.kind, new.id, now)).fetchone()
                if existing is not None and _found(existing) is not None:
                    raise RecordExists
                execute(_REMOVE, (old.kind, old.id))
            kept = msgspec.structs.replace(new, touched_at=found.record.touched_at, version=old.version + 1)
            execute(_PUT, _row(kept, data))
        return msgspec.structs.replace(kept, data=decode_data(data))

    def take(self, kind: str, record_id: str, now: float) -> Record | None:
        rows = self._write(_TAKE, (kind, record_id, now))
        found = _found(rows[0]) if rows else None
        return None if found is None else found.record

    def remove(self, kind: str, record_id: str) -> None:
        self._write(_REMOVE, (kind, record_id))

    def advance(self, subject: str | None, kinds: Collection[str], now: float) -> Mapping[str, int]:  # noqa: ARG002
        name = check_kinds(subject, kinds)
        with self._transaction() as execute:
            row = execute(_MARK, (name,)).fetchone()
            known = {} if row is None else decode_marks(row[0])
            mark = _ENCODE({**known, **{kind: known.get(kind, 0) + 1 for kind in kinds}})
            execute(_PUT_MARK, (name, mark))
            everyones = execute(_MARK, ("",)).fetchone()
        return _generations(name, mark, None if everyones is None else everyones[0])

    def list(self, subject: str, kind: str, now: float, after: str = "", limit: int = 100) -> Sequence[Record]:
        bounded = max(0, min(limit, MAX_LIST))
        if not subject:
            return []
        arguments = {"subject": subject, "kind": kind, "now": now, "after": after, "limit": bounded}
        return [_record(row) for row in self._run(_LIST, arguments)]

    def count_up(self, name: str, window: float, limit: int, now: float) -> Counted:
        ((count, ends_at),) = self._write(_COUNT_UP, {"name": name, "window": window, "now": now})
        allowed = count <= limit
        return Counted(allowed, count, 0.0 if allowed else ends_at - now)

    def count_back(self, name: str, now: float) -> None:
        self._write(_COUNT_BACK, (name, now))

    def count_reset(self, name: str) -> None:
        self._write("DELETE FROM counts WHERE name = ?", (name,))

    def purge(self, now: float, limit: int = 1000) -> int:
        until = now - COLLECT_AFTER
        with self._transaction() as execute:
            gone: int = execute(_PURGE, (until, limit)).rowcount
            gone += execute(_PURGE_COUNTS, (until, limit - gone)).rowcount
        return gone

    def close(self) -> None:
        while (connection := self._idle()) is not None:
            self._discard(connection)

    # -- connections ----------------------------------------------------------------------------------------

    def _run(self, statement: str, arguments: Any) -> Rows:
        """One statement on a connection of this caller's own, atomic by itself; all its rows."""
        connection = self._take_connection()
        try:
            rows = connection.execute(statement, arguments).fetchall()
        except sqlite3.Error as error:
            self._discard(connection)
            raise _unavailable(error) from error
        except BaseException:
            self._discard(connection)
            raise
        self._give_back(connection)
        return rows

    def _write(self, statement: str, arguments: Any) -> Rows:
        """As ``_run``, for one writer of this process at a time, which is fairer than SQLite's own waiting."""
        with self._writing:
            return self._run(statement, arguments)

    @contextmanager
    def _transaction(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        """A write of several statements; leaving it by an exception undoes it."""
        with self._writing:
            connection = self._take_connection()
            try:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection.execute
                except JamError:
                    connection.execute("ROLLBACK")
                    self._give_back(connection)
                    raise
                connection.execute("COMMIT")
            except JamError:
                raise
            except sqlite3.Error as error:
                self._discard(connection)
                raise _unavailable(error) from error
            except BaseException:
                self._discard(connection)
                raise
            self._give_back(connection)

    def _take_connection(self) -> sqlite3.Connection:
        connection = self._idle()
        return self._open() if connection is None else connection

    def _idle(self) -> sqlite3.Connection | None:
        try:
            return self._pool.pop()
        except IndexError:  # asking first would race the other threads
            return None

    def _give_back(self, connection: sqlite3.Connection) -> None:
        if len(self._pool) < _POOL_SIZE and not self._forking:
            self._pool.append(connection)
        else:
            self._discard(connection)

    def _discard(self, connection: sqlite3.Connection) -> None:
        connection.close()
        self._opened.discard(connection)

    def _open(self) -> sqlite3.Connection:
        with self._opening:
            try:
                if not self._path.exists():
                    # SQLite gives its side files (-wal, -shm) the mode of the file itself.
                    os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
                connection = sqlite3.connect(
                    self._path, timeout=self._timeout, isolation_level=None, check_same_thread=False
                )
                self._opened.add(connection)
                try:
                    self._prepare(connection)
                except BaseException:
                    self._discard(connection)
                    raise
            except (sqlite3.Error, OSError) as error:
                raise _unavailable(error) from error
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == SCHEMA_VERSION:
            return
        if version > SCHEMA_VERSION:
            raise ConfigError(
                f"The store was made by a newer version of Jam (schema {version}, this one knows {SCHEMA_VERSION}).",
                hint="Upgrade jam-auth, or name another file.",
            )
        switch_to_wal(connection, self._timeout)
        connection.execute("BEGIN IMMEDIATE")
        foreign = connection.execute("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchone()
        if foreign is not None and connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            connection.execute("ROLLBACK")
            raise ConfigError(
                "The SQLite file belongs to something else.", hint="Jam wants a file of its own: name another one."
            )
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")

    # -- forks ----------------------------------------------------------------------------------------------
    # SQLite's locks do not go through a fork, and its memory of them does: a child would believe it holds what
    # it does not. So none of our connections is open while the process forks.

    def before_fork(self) -> None:
        """See ``around_forks``."""
        self._opening.acquire()  # held until the fork is done: whoever needs a new connection waits for it
        self._forking = True  # and whoever has one does not give it back
        patience = time.monotonic() + self._timeout + 1
        try:
            while self._opened:
                connection = self._idle()
                if connection is not None:
                    self._discard(connection)
                elif time.monotonic() > patience:
                    logger.error("The process forks while a SQLite connection is in use; the child may find it locked.")
                    break
                else:
                    time.sleep(0.0005)  # other threads are closing theirs
        except BaseException:
            self.after_fork_in_parent()
            raise

    def after_fork_in_parent(self) -> None:
        """See ``around_forks``."""
        self._forking = False
        self._opening.release()

    def after_fork_in_child(self) -> None:
        """See ``around_forks``."""
        # The threads that may have held these are not here.
        _inherited.extend(self._opened)  # closing them here would be as wrong as using them
        self._opened = set()
        self._pool = deque()
        self._forking = False
        self._writing = threading.Lock()
        self._opening = threading.Lock()


def switch_to_wal(connection: sqlite3.Connection, timeout: float) -> None:
    """Let readers and a writer go on at once. For this one statement SQLite does not wait itself for others that do it.

    Args:
        connection: To the file.
        timeout: How long to wait for them, in seconds.

    Raises:
        sqlite3.OperationalError: If that was not enough.
    """
    until = time.monotonic() + timeout
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.002)
        else:
            return


def _unavailable(error: Exception) -> StoreUnavailable:
    logger.error("The SQLite store failed: %s: %s", type(error).__name__, error)
    return StoreUnavailable(hint=f"SQLite says: {error}.")


def _row(record: Record, data: bytes) -> tuple[Any, ...]:
    return (
        record.kind, record.id, record.subject, record.check, record.generation, data, record.created_at,
        record.touched_at, record.idle_for, record.ends_at, record.version, record.dies_at,
    )  # fmt: skip


def _record(row: Sequence[Any]) -> Record:
    return Record(
        kind=row[0], id=row[1], subject=row[2], check=row[3], generation=row[4], data=decode_data(row[5]),
        created_at=row[6], touched_at=row[7], idle_for=row[8], ends_at=row[9], version=row[10],
    )  # fmt: skip


def _found(row: Sequence[Any]) -> Found | None:
    """A row of ``_WITH_MARKS``, or ``None`` if its generation is over."""
    generations = _generations(row[2], row[11], row[12])
    if row[4] < generations.get(row[0], 0):
        return None
    return Found(_record(row), generations)


_NO_MARKS: Mapping[str, int] = {}


def _generations(subject: str, subjects: bytes | None, everyones: bytes | None) -> Mapping[str, int]:
    if subjects is None and everyones is None:
        return _NO_MARKS
    if not subject:
        return decode_marks(everyones) if everyones is not None else _NO_MARKS
    return add_up(
        decode_marks(subjects) if subjects is not None else _NO_MARKS,
        decode_marks(everyones) if everyones is not None else _NO_MARKS,
    )


_all_stores: weakref.WeakSet[SQLiteStore] = weakref.WeakSet()
_inherited: Rows = []


around_forks(
    _all_stores,
    before=SQLiteStore.before_fork,
    after_in_parent=SQLiteStore.after_fork_in_parent,
    after_in_child=SQLiteStore.after_fork_in_child,
)
