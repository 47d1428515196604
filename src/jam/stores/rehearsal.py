"""A store over another one that changes nothing: what would be written is kept for as long as the rehearsal lasts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

from jam.errors import GenerationOutdated, RecordExists
from jam.stores.base import Counted, Found, Marks, Record, Store, check_record, check_swap

__all__ = ["RehearsalStore"]


class RehearsalStore(Store):
    """For ``flask jam explain``: answers as the other store would, and leaves it as it is.

    Args:
        real: The store that is read.
    """

    def __init__(self, real: Store) -> None:
        self._real = real
        self._written: dict[tuple[str, str], Record | None] = {}

    def add(self, record: Record, now: float) -> None:
        """Keep it for the rehearsal."""
        check_record(record)
        if record.generation < self._real.marks(record.subject, "", now).generation(record.kind):
            raise GenerationOutdated
        if self.get(record.kind, record.id, now) is not None:
            raise RecordExists
        self._written[record.kind, record.id] = record

    def get(self, kind: str, record_id: str, now: float, touch_after: float | None = None) -> Found | None:  # noqa: ARG002
        """The record; its use is not noted."""
        if (kind, record_id) not in self._written:
            return self._real.get(kind, record_id, now)
        record = self._written[kind, record_id]
        if record is None or record.dies_at <= now:
            return None
        return Found(record, self._real.marks(record.subject, "", now).generations)

    def marks(self, subject: str, revocation_id: str, now: float) -> Marks:
        """As the other store has them."""
        return self._real.marks(subject, revocation_id, now)

    def swap(self, old: Record, new: Record, now: float) -> Record | None:
        """Keep the new one for the rehearsal."""
        check_swap(old, new)
        found = self.get(old.kind, old.id, now)
        if found is None or found.record.version != old.version:
            return None
        if new.generation < found.generations.get(new.kind, 0):
            raise GenerationOutdated
        self._written[old.kind, old.id] = None
        kept = msgspec.structs.replace(new, version=old.version + 1)
        self._written[new.kind, new.id] = kept
        return kept

    def take(self, kind: str, record_id: str, now: float) -> Record | None:
        """The record, absent from then on for the rehearsal."""
        found = self.get(kind, record_id, now)
        self._written[kind, record_id] = None
        return None if found is None else found.record

    def remove(self, kind: str, record_id: str) -> None:
        """Absent from then on for the rehearsal."""
        self._written[kind, record_id] = None

    def advance(self, subject: str | None, kinds: Collection[str], now: float) -> Mapping[str, int]:  # noqa: ARG002
        """The generations as they are."""
        return self._real.marks(subject or "", "", now).generations

    def list(self, subject: str, kind: str, now: float, after: str = "", limit: int = 100) -> Sequence[Record]:
        """As the other store has them."""
        return self._real.list(subject, kind, now, after, limit)

    def count_up(self, name: str, window: float, limit: int, now: float) -> Counted:  # noqa: ARG002 - the contract's
        """Always the first time."""
        return Counted(allowed=True, count=1, retry_after=0.0)

    def count_back(self, name: str, now: float) -> None:
        """Nothing was counted."""

    def count_reset(self, name: str) -> None:
        """Nothing was counted."""

    def purge(self, now: float, limit: int = 1000) -> int:  # noqa: ARG002 - the contract's
        """Nothing."""
        return 0

    def check(self) -> None:
        """As the other store finds it."""
        self._real.check()
