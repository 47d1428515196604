"""``memory://``: records in this process, gone with it. For tests, scripts and trying things out.

Forked workers each have their own. Data is kept encoded, so that nobody can change a record by changing
what they put in or got out.
"""

from __future__ import annotations

import heapq
import math
import threading
import weakref
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from jam.errors import GenerationOutdated, RecordExists
from jam.stores.base import (
    COLLECT_AFTER,
    MAX_LIST,
    REVOKED_TOKEN,
    Counted,
    Found,
    Marks,
    Record,
    Store,
    add_up,
    check_kinds,
    check_record,
    check_swap,
    touch_is_due,
)
from jam.stores.forks import around_forks

__all__ = ["MemoryStore"]

_PURGE_EVERY = 128
_NO_MARKS: Mapping[str, int] = {}
_DECODE = msgspec.json.Decoder(dict[str, Any]).decode


class MemoryStore(Store):
    """See ``jam.stores.base.Store`` for the promises of each method."""

    shared = False
    durable = False

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # The records as they are, save that their data is encoded and their own data member is empty.
        self._records: dict[tuple[str, str], tuple[Record, bytes]] = {}
        self._ids: dict[tuple[str, str], set[str]] = {}
        self._deaths: list[tuple[float, str, str]] = []  # when, kind and id of records; of counts, "" and their name
        self._marks: dict[str, dict[str, int]] = {}
        self._counts: dict[str, tuple[int, float]] = {}
        self._adds = 0
        _all_stores.add(self)

    def add(self, record: Record, now: float) -> None:
        data = check_record(record)
        with self._lock:
            generations = self._generations(record.subject)
            if record.generation < generations.get(record.kind, 0):
                raise GenerationOutdated
            if self._live(record.kind, record.id, now) is not None:
                raise RecordExists
            self._keep(record, data)
            self._adds += 1
            if self._adds % _PURGE_EVERY == 0:
                self._purge(now, 2 * _PURGE_EVERY)

    def get(self, kind: str, record_id: str, now: float, touch_after: float | None = None) -> Found | None:
        with self._lock:
            entry = self._live(kind, record_id, now)
            if entry is None:
                return None
            record, data = entry
            if touch_is_due(record, now, touch_after):
                record = msgspec.structs.replace(record, touched_at=now)
                self._records[kind, record_id] = record, data
            generations = self._generations(record.subject)
        return Found(_with_data(record, data), generations)

    def marks(self, subject: str, revocation_id: str, now: float) -> Marks:
        # Each look-up is atomic by itself, and nobody could tell in which order two of them happened.
        entry = self._records.get((REVOKED_TOKEN, revocation_id))
        return Marks(entry is not None and entry[0].dies_at > now, self._generations(subject))

    def swap(self, old: Record, new: Record, now: float) -> Record | None:
        data = check_swap(old, new)
        with self._lock:
            entry = self._live(old.kind, old.id, now)
            if entry is None or entry[0].version != old.version or entry[0].subject != old.subject:
                return None
            if new.generation < self._generations(new.subject).get(new.kind, 0):
                raise GenerationOutdated
            if new.id != old.id and self._live(new.kind, new.id, now) is not None:
                raise RecordExists
            kept = msgspec.structs.replace(new, touched_at=entry[0].touched_at, version=old.version + 1)
            if new.id == old.id and kept.dies_at >= entry[0].dies_at:  # its place in the heap is early enough
                self._records[new.kind, new.id] = msgspec.structs.replace(kept, data={}), data
            else:
                self._forget(old.kind, old.id)
                self._keep(kept, data)
        return _with_data(kept, data)

    def take(self, kind: str, record_id: str, now: float) -> Record | None:
        with self._lock:
            entry = self._live(kind, record_id, now)
            if entry is None:
                return None
            self._forget(kind, record_id)
        return _with_data(*entry)

    def remove(self, kind: str, record_id: str) -> None:
        with self._lock:
            self._forget(kind, record_id)

    def advance(self, subject: str | None, kinds: Collection[str], now: float) -> Mapping[str, int]:  # noqa: ARG002
        name = check_kinds(subject, kinds)
        with self._lock:
            known = self._marks.get(name, _NO_MARKS)
            self._marks[name] = {**known, **{kind: known.get(kind, 0) + 1 for kind in kinds}}
            return self._generations(name)

    def list(self, subject: str, kind: str, now: float, after: str = "", limit: int = 100) -> Sequence[Record]:
        found: list[Record] = []
        if not subject:
            return found
        with self._lock:
            for record_id in sorted(self._ids.get((subject, kind), ())):
                if len(found) >= min(limit, MAX_LIST):
                    break
                if record_id > after and (entry := self._live(kind, record_id, now)) is not None:
                    found.append(_with_data(*entry))
        return found

    def count_up(self, name: str, window: float, limit: int, now: float) -> Counted:
        with self._lock:
            count, ends_at = self._counts.get(name, (0, -math.inf))
            if ends_at <= now:
                count, ends_at = 0, now + window
                heapq.heappush(self._deaths, (ends_at, "", name))
            count, ends_at = count + 1, min(ends_at, now + window)
            self._counts[name] = count, ends_at
        allowed = count <= limit
        return Counted(allowed, count, 0.0 if allowed else ends_at - now)

    def count_back(self, name: str, now: float) -> None:
        with self._lock:
            count, ends_at = self._counts.get(name, (0, 0.0))
            if count > 0 and ends_at > now:
                self._counts[name] = count - 1, ends_at

    def count_reset(self, name: str) -> None:
        with self._lock:
            self._counts.pop(name, None)

    def purge(self, now: float, limit: int = 1000) -> int:
        with self._lock:
            return self._purge(now, limit)

    # -- the rest is called with the lock held --------------------------------------------------------------

    def _live(self, kind: str, record_id: str, now: float) -> tuple[Record, bytes] | None:
        entry = self._records.get((kind, record_id))
        if entry is None:
            return None
        record = entry[0]
        if record.dies_at <= now:
            return None
        if self._marks and record.generation < self._generations(record.subject).get(kind, 0):
            return None
        return entry

    def _generations(self, subject: str) -> Mapping[str, int]:
        if not self._marks:
            return _NO_MARKS
        everyones = self._marks.get("", _NO_MARKS)
        return add_up(self._marks.get(subject, _NO_MARKS), everyones) if subject else everyones

    def _keep(self, record: Record, data: bytes) -> None:
        self._forget(record.kind, record.id)
        self._records[record.kind, record.id] = msgspec.structs.replace(record, data={}), data
        self._ids.setdefault((record.subject, record.kind), set()).add(record.id)
        heapq.heappush(self._deaths, (record.dies_at, record.kind, record.id))

    def _forget(self, kind: str, record_id: str) -> None:
        entry = self._records.pop((kind, record_id), None)
        if entry is None:
            return
        subject = entry[0].subject
        ids = self._ids[subject, kind]
        ids.discard(record_id)
        if not ids:
            del self._ids[subject, kind]

    def _purge(self, now: float, limit: int) -> int:
        gone = 0
        until = now - COLLECT_AFTER
        while gone < limit and self._deaths and self._deaths[0][0] <= until:
            _, kind, record_id = heapq.heappop(self._deaths)
            if not kind:
                gone += self._purge_count(record_id, until)
                continue
            entry = self._records.get((kind, record_id))
            if entry is None:
                continue
            if entry[0].dies_at <= until:
                self._forget(kind, record_id)
                gone += 1
            else:  # it was used meanwhile
                heapq.heappush(self._deaths, (entry[0].dies_at, kind, record_id))
        return gone

    def _purge_count(self, name: str, until: float) -> int:
        if name not in self._counts or self._counts[name][1] > until:  # a newer window has an entry of its own
            return 0
        del self._counts[name]
        return 1

    def before_fork(self) -> None:
        """See ``around_forks``."""
        self._lock.acquire()

    def after_fork(self) -> None:
        """See ``around_forks``."""
        self._lock.release()


def _with_data(record: Record, data: bytes) -> Record:
    return Record(
        kind=record.kind, id=record.id, subject=record.subject, check=record.check, generation=record.generation,
        data=_DECODE(data), created_at=record.created_at, touched_at=record.touched_at, idle_for=record.idle_for,
        ends_at=record.ends_at, version=record.version,
    )  # fmt: skip


_all_stores: weakref.WeakSet[MemoryStore] = weakref.WeakSet()

# A fork waits until no thread is in the middle of a change: the child would inherit half of it.
around_forks(
    _all_stores,
    before=MemoryStore.before_fork,
    after_in_parent=MemoryStore.after_fork,
    after_in_child=MemoryStore.after_fork,
)
