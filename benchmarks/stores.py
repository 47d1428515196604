"""Stores: each verb on each engine, beside a prototype made by hand on the same engine.

The prototypes keep sessions only: no kinds, no generations of everyone, no validation, one table or one dict. What
they share with Jam is what any app needs of a store: safe among threads, dead sessions not found, data that nobody
changes by changing what they got, and in SQLite WAL with ``synchronous = NORMAL``.
"""

from __future__ import annotations

import dataclasses
import gc
import heapq
import itertools
import random
import sqlite3
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec
from interleaved import Contestant, Timings, measure
from table import Group, Row, at_most

from jam.crypto.handles import bucket_of, id_for, new_handle
from jam.stores import Record, Store, open_store

_PER_SUBJECT = 5
_SAMPLE = 4096  # sessions that are asked for, picked at random among all
_LIMIT = 2.0
_GROWTH_LIMIT = 3.0  # from a thousand to a million
_TRACED = 10_000
_ENCODE = msgspec.json.Encoder().encode
_DECODE = msgspec.json.Decoder(dict[str, Any]).decode
_NOW = time.time()


def run(scale: float, *, million: bool) -> list[Group]:
    """All groups of this section, ``scale`` times the full time."""
    sizes = [1_000] if scale < 1 else [1_000, 100_000]
    if million:
        sizes.append(1_000_000)
    groups = []
    for engine in ("memory", "SQLite"):
        grown: dict[int, Timings] = {}
        for size in sizes:
            with tempfile.TemporaryDirectory() as directory:
                group, grown[size] = _engine(engine, size, 10 * scale, Path(directory))
            groups.append(group)
            if size == 1_000_000:
                groups.append(_growth(engine, grown[1_000], grown[size]))
    return groups


class Prototype(Protocol):
    """What a store by hand can do. A session is ``(id, subject, check, data, ends_at, version)``."""

    def get(self, session_id: str, now: float) -> tuple[Any, ...] | None: ...
    def touch(self, session_id: str, now: float) -> None: ...
    def list(self, subject: str, now: float) -> list[tuple[Any, ...]]: ...
    def add(self, session_id: str, subject: str, check: bytes, data: dict[str, Any], now: float) -> None: ...
    def swap(self, session_id: str, version: int, data: dict[str, Any]) -> int | None: ...
    def marks(self, subject: str, token_id: str, now: float) -> tuple[bool, int]: ...
    def remove(self, session_id: str) -> None: ...


class DictPrototype:
    """Dicts and a lock; data is kept encoded. As in SQLite an id is taken once, and what ends first is at hand."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: dict[str, list[Any]] = {}  # id: subject, check, data, touched_at, ends_at, version
        self._by_subject: dict[str, set[str]] = {}
        self._by_end: list[tuple[float, str]] = []
        self._revoked: dict[str, float] = {}
        self._generations: dict[str, int] = {}

    def get(self, session_id: str, now: float) -> tuple[Any, ...] | None:
        with self._lock:
            session = self._sessions.get(session_id)
            if session is None or session[4] <= now:
                return None
            subject, check, data, touched_at, ends_at, version = session
        return session_id, subject, check, _DECODE(data), touched_at, ends_at, version

    def touch(self, session_id: str, now: float) -> None:
        with self._lock:
            session = self._sessions[session_id]
            if session[4] > now:
                session[3] = now

    def list(self, subject: str, now: float) -> list[tuple[Any, ...]]:
        with self._lock:
            ids = sorted(self._by_subject.get(subject, ()))
            live = [(session_id, *self._sessions[session_id]) for session_id in ids]
        return [(*session[:3], _DECODE(session[3]), *session[4:]) for session in live if session[5] > now]

    def add(self, session_id: str, subject: str, check: bytes, data: dict[str, Any], now: float) -> None:
        encoded = _ENCODE(data)
        with self._lock:
            if session_id in self._sessions:
                raise ValueError("the id is taken")
            self._sessions[session_id] = [subject, check, encoded, now, now + 86400, 1]
            heapq.heappush(self._by_end, (now + 86400, session_id))
            self._by_subject.setdefault(subject, set()).add(session_id)

    def swap(self, session_id: str, version: int, data: dict[str, Any]) -> int | None:
        encoded = _ENCODE(data)
        with self._lock:
            session = self._sessions.get(session_id)
            if session is None or session[5] != version:
                return None
            session[2] = encoded
            session[5] = version + 1
        return version + 1

    def marks(self, subject: str, token_id: str, now: float) -> tuple[bool, int]:
        with self._lock:
            return self._revoked.get(token_id, 0.0) > now, self._generations.get(subject, 0)

    def remove(self, session_id: str) -> None:
        with self._lock:
            session = self._sessions.pop(session_id)
            self._by_subject[session[0]].discard(session_id)


_PROTOTYPE_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE sessions (id TEXT PRIMARY KEY, subject TEXT, hash BLOB, data BLOB, created_at REAL, touched_at REAL,
    ends_at REAL, version INTEGER) WITHOUT ROWID;
CREATE INDEX by_subject ON sessions (subject);
CREATE INDEX by_end ON sessions (ends_at);
CREATE TABLE revoked (id TEXT PRIMARY KEY, ends_at REAL) WITHOUT ROWID;
CREATE TABLE generations (subject TEXT PRIMARY KEY, generation INTEGER) WITHOUT ROWID
"""


class SQLitePrototype:
    """One table, one connection, one statement for each verb."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._execute = connection.execute
        self.close = connection.close
        for statement in _PROTOTYPE_SCHEMA.split(";"):
            connection.execute(statement)

    def get(self, session_id: str, now: float) -> tuple[Any, ...] | None:
        with self._lock:
            row = self._execute("SELECT * FROM sessions WHERE id = ? AND ends_at > ?", (session_id, now)).fetchone()
        return None if row is None else (*row[:3], _DECODE(row[3]), *row[4:])

    def touch(self, session_id: str, now: float) -> None:
        with self._lock:
            self._execute("UPDATE sessions SET touched_at = ? WHERE id = ? AND ends_at > ?", (now, session_id, now))

    def list(self, subject: str, now: float) -> list[tuple[Any, ...]]:
        statement = "SELECT * FROM sessions WHERE subject = ? AND ends_at > ? ORDER BY id LIMIT 100"
        with self._lock:
            rows = self._execute(statement, (subject, now)).fetchall()
        return [(*row[:3], _DECODE(row[3]), *row[4:]) for row in rows]

    def add(self, session_id: str, subject: str, check: bytes, data: dict[str, Any], now: float) -> None:
        row = (session_id, subject, check, _ENCODE(data), now, now, now + 86400, 1)
        with self._lock:
            self._execute("INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def swap(self, session_id: str, version: int, data: dict[str, Any]) -> int | None:
        statement = "UPDATE sessions SET data = ?, version = version + 1 WHERE id = ? AND version = ?"
        with self._lock:
            done = self._execute(statement, (_ENCODE(data), session_id, version)).rowcount
        return version + 1 if done else None

    def marks(self, subject: str, token_id: str, now: float) -> tuple[bool, int]:
        statement = (
            "SELECT (SELECT ends_at > ? FROM revoked WHERE id = ?),"
            " (SELECT generation FROM generations WHERE subject = ?)"
        )
        with self._lock:
            revoked, generation = self._execute(statement, (now, token_id, subject)).fetchone()
        return bool(revoked), generation or 0

    def remove(self, session_id: str) -> None:
        with self._lock:
            self._execute("DELETE FROM sessions WHERE id = ?", (session_id,))


# -- sessions -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Sample:
    """Some of the sessions that are in both stores."""

    ids: list[str]
    subjects: list[str]


def _records(count: int, first: int = 0) -> Iterator[Record]:
    """Sessions as Jam makes them, a few for each subject."""
    for number in range(first, first + count):
        subject = f"user-{number // _PER_SUBJECT}"
        _, session_id, check = new_handle(bucket_of(subject))
        data = {"data": {"theme": "dark", "cart": [number, 4711]}, "auth_time": _NOW, "roles": ["editor"]}
        yield Record(
            kind="session", id=session_id, subject=subject, check=check, data=data,
            created_at=_NOW, touched_at=_NOW, idle_for=3600.0, ends_at=_NOW + 86400,
        )  # fmt: skip


def _fill(store: Store, prototype: Prototype, size: int) -> Sample:
    """The same sessions in both; returns some of them."""
    picked = set(random.Random(1).sample(range(size), min(size, _SAMPLE)))
    ids, subjects = [], []
    for number, record in enumerate(_records(size)):
        store.add(record, _NOW)
        prototype.add(record.id, record.subject, record.check, record.data, _NOW)
        if number in picked:
            ids.append(record.id)
            subjects.append(record.subject)
    together = list(zip(ids, subjects, strict=True))
    random.Random(2).shuffle(together)
    return Sample([session_id for session_id, _ in together], [subject for _, subject in together])


# -- one engine at one size ---------------------------------------------------------------------------------


def _engine(engine: str, size: int, seconds: float, directory: Path) -> tuple[Group, Timings]:
    print(f"  {engine}: filling with {size:,} sessions", file=sys.stderr, flush=True)
    store, prototype = _open(engine, directory)
    sample = _fill(store, prototype, size)
    sizes = _file_sizes(directory, size) if engine == "SQLite" else _traced_sizes()
    contestants = [*_jam(store, sample, size), *_by_hand(prototype, sample, size)]
    t = measure(contestants, seconds, f"{engine}, {size:,} sessions")
    store.close()
    if isinstance(prototype, SQLitePrototype):
        prototype.close()
    rows = []
    for verb in ("get", "touch", "list by subject", "add", "swap", "marks"):
        jam, by_hand = t.median(f"Jam {verb}"), t.median(f"prototype {verb}")
        rows += [Row(f"{verb}: prototype", by_hand)]
        rows += [Row(f"{verb}: Jam", jam, (at_most(jam / by_hand, _LIMIT, "× prototype"),))]
    rows += [
        Row("space for a session: prototype", sizes[1], unit="B"),
        Row("space for a session: Jam", sizes[0], (at_most(sizes[0] / sizes[1], _LIMIT, "× prototype"),), unit="B"),
    ]
    kind = "a dict" if engine == "memory" else "sqlite3"
    return Group(f"Store, {engine}, {size:,} sessions (prototype: {kind})", tuple(rows)), t


def _open(engine: str, directory: Path) -> tuple[Store, Prototype]:
    if engine == "memory":
        return open_store("memory://"), DictPrototype()
    return open_store(f"sqlite:///{directory / 'jam.db'}"), SQLitePrototype(directory / "prototype.db")


def _jam(store: Store, sample: Sample, size: int) -> list[Contestant]:
    ids = sample.ids
    later = itertools.count(1)
    added: list[Record] = []
    fresh = _records(sys.maxsize, size)
    read = {session_id: found.record for session_id in ids if (found := store.get("session", session_id, _NOW))}

    def touch(session_id: str) -> None:
        # Each is a moment later than the last, so that it is always due; reading the session is part of the verb.
        store.get("session", session_id, _NOW + next(later) * 1e-6, 0.0)

    def add(_: object) -> None:
        record = ready.pop()
        added.append(record)
        store.add(record, _NOW)

    def tidy() -> None:
        for record in added:
            store.remove("session", record.id)
        added.clear()
        ready.extend(itertools.islice(fresh, _MOST_ADDED - len(ready)))

    def swap(session_id: str) -> None:
        kept = store.swap(read[session_id], read[session_id], _NOW)
        assert kept is not None
        read[session_id] = kept

    token_ids = [id_for(subject, "token") for subject in sample.subjects]
    ready = list(itertools.islice(fresh, _MOST_ADDED))
    return [
        Contestant("Jam get", lambda session_id: store.get("session", session_id, _NOW), ids),
        Contestant("Jam touch", touch, ids),
        Contestant("Jam list by subject", lambda subject: store.list(subject, "session", _NOW), sample.subjects),
        Contestant("Jam add", add, after=tidy, most=_MOST_ADDED),
        Contestant("Jam swap", swap, ids),
        Contestant(
            "Jam marks",
            lambda pair: store.marks(pair[0], pair[1], _NOW),
            list(zip(sample.subjects, token_ids, strict=True)),
        ),
    ]


_MOST_ADDED = 200


def _by_hand(prototype: Prototype, sample: Sample, size: int) -> list[Contestant]:
    ids = sample.ids
    later = itertools.count(1)
    added: list[str] = []
    fresh = _records(sys.maxsize, 2 * size)
    versions = dict.fromkeys(ids, 1)
    found = {session_id: kept for session_id in ids if (kept := prototype.get(session_id, _NOW))}

    def touch(session_id: str) -> None:
        now = _NOW + next(later) * 1e-6
        prototype.get(session_id, now)
        prototype.touch(session_id, now)

    def add(_: object) -> None:
        record = ready.pop()
        added.append(record.id)
        prototype.add(record.id, record.subject, record.check, record.data, _NOW)

    def tidy() -> None:
        for session_id in added:
            prototype.remove(session_id)
        added.clear()
        ready.extend(itertools.islice(fresh, _MOST_ADDED - len(ready)))

    def swap(session_id: str) -> None:
        version = prototype.swap(session_id, versions[session_id], found[session_id][3])
        assert version is not None
        versions[session_id] = version

    token_ids = [id_for(subject, "token") for subject in sample.subjects]
    ready = list(itertools.islice(fresh, _MOST_ADDED))
    return [
        Contestant("prototype get", lambda session_id: prototype.get(session_id, _NOW), ids),
        Contestant("prototype touch", touch, ids),
        Contestant("prototype list by subject", lambda subject: prototype.list(subject, _NOW), sample.subjects),
        Contestant("prototype add", add, after=tidy, most=_MOST_ADDED),
        Contestant("prototype swap", swap, ids),
        Contestant(
            "prototype marks",
            lambda pair: prototype.marks(pair[0], pair[1], _NOW),
            list(zip(sample.subjects, token_ids, strict=True)),
        ),
    ]


def _growth(engine: str, small: Timings, large: Timings) -> Group:
    rows = [
        Row(name, large.median(name), (at_most(large.median(name) / small.median(name), _GROWTH_LIMIT, "× at 1,000"),))
        for name in large.rounds
        if name.startswith("Jam")
    ]
    return Group(f"Store, {engine}: a million sessions beside a thousand", tuple(rows))


# -- space --------------------------------------------------------------------------------------------------


def _file_sizes(directory: Path, size: int) -> tuple[float, float]:
    """Bytes a session of Jam's file and of the prototype's, nothing left in the log."""
    found = []
    for name in ("jam.db", "prototype.db"):
        with sqlite3.connect(directory / name) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        found.append((directory / name).stat().st_size / size)
    return found[0], found[1]


def _traced_sizes() -> tuple[float, float]:
    """Bytes a session of Jam's memory store and of the prototype, as Python's own allocator counts them."""
    store, prototype = open_store("memory://"), DictPrototype()

    def fill_prototype(record: Record) -> None:
        prototype.add(record.id, record.subject, record.check, record.data, _NOW)

    return _traced(lambda record: store.add(record, _NOW)), _traced(fill_prototype)


def _traced(keep: Callable[[Record], None]) -> float:
    gc.collect()
    tracemalloc.start()
    for record in _records(_TRACED):
        keep(record)
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return taken / _TRACED
