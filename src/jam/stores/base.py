"""What the server remembers, and the contract of whoever keeps it.

A ``Record`` is one revocable thing: a session, a revoked token, later a refresh family or an API token. A
``Store`` keeps records. Every verb of it is atomic among threads, processes and hosts, is one trip to the
engine, and takes ``now``: Jam's clock decides about life and death, an engine's own expiry only collects
what is dead already. ``jam.testing.stores`` proves an engine against this contract.

Besides records a store keeps one *mark* per subject: a generation number for each kind of credential.
``advance`` raises it, and everything made in an older generation is dead at once, without being touched.
The mark of everyone is that of the subject ``None``; the generation that counts is the sum of both.
"""

from __future__ import annotations

import logging
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from jam.crypto.encoding import json_encode_exactly
from jam.crypto.handles import ID, bucket_of_id
from jam.errors import InvalidValue, StoreUnavailable

__all__ = [
    "COLLECT_AFTER",
    "MAX_DATA",
    "MAX_LIST",
    "REVOKED_TOKEN",
    "Counted",
    "Found",
    "Marks",
    "Problem",
    "Record",
    "Store",
]

logger = logging.getLogger("jam.stores")

COLLECT_AFTER = 86_400.0  #: for how long the dead are kept, in seconds: a clock that goes back finds them again
MAX_DATA = 4 * 1024 * 1024  #: how large a record's data may be, in bytes of JSON: what every engine takes by default
MAX_LIST = 1000
REVOKED_TOKEN = "revoked_token"  # noqa: S105 - no secret  #: the kind of record that ``marks`` looks for
_MAX_SKEW = 5.0  # seconds
_MAX_SUBJECT = 255
_MAX_CHECK = 64
_MAX_GENERATION = 2**53 - 1  # what a double still counts exactly
_DECODE_DATA = msgspec.json.Decoder(dict[str, Any]).decode
_DECODE_MARKS = msgspec.json.Decoder(dict[str, int]).decode
_KIND = re.compile(r"[a-z_]{1,32}", re.ASCII)


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What the server remembers about a credential it handed out.

    Attributes:
        kind: What it is about: ``"session"``, ``"revoked_token"``, ... (a-z and underscore).
        id: Its public name, made by ``jam.crypto.handles``, unique within its kind.
        subject: Whose it is: at most 255 characters, ``""`` for nobody's.
        check: SHA-256 of the credential's secret part, or ``b""`` where there is none.
        generation: The generation it was made in.
        data: Anything JSON can hold.
        created_at: Seconds since the epoch.
        touched_at: When it was last used, as far as the store was told, in seconds since the epoch.
        idle_for: Seconds without use after which it is dead; ``None`` for never.
        ends_at: When it is dead in any case, in seconds since the epoch.
        version: Counts the swaps.
    """

    kind: str
    id: str
    subject: str
    check: bytes = b""
    generation: int = 0
    data: dict[str, Any] = {}
    created_at: float
    touched_at: float
    idle_for: float | None = None
    ends_at: float
    version: int = 1

    @property
    def dies_at(self) -> float:
        """When it is dead unless it is used before, in seconds since the epoch."""
        if self.idle_for is None:
            return self.ends_at
        return min(self.ends_at, self.touched_at + self.idle_for)


class Marks(msgspec.Struct, frozen=True):
    """What a token check needs to know.

    Attributes:
        revoked: Whether this one token was revoked.
        generations: The subject's current generation of each kind that was ever advanced.
    """

    revoked: bool
    generations: Mapping[str, int]

    def generation(self, kind: str) -> int:
        """The current generation of a kind: 0 until it is first advanced."""
        return self.generations.get(kind, 0)


class Found(msgspec.Struct, frozen=True):
    """A live record and its subject's current generations, read together."""

    record: Record
    generations: Mapping[str, int]


class Counted(msgspec.Struct, frozen=True):
    """The answer of ``count_up``.

    Attributes:
        allowed: Whether the count is within the limit.
        count: How many times it was counted in this window, this time included.
        retry_after: Seconds until the window ends; 0 if allowed.
    """

    allowed: bool
    count: int
    retry_after: float


class Problem(msgspec.Struct, frozen=True):
    """Something about an engine's set-up that breaks a promise.

    Attributes:
        message: What is so.
        advice: What to do about it.
    """

    message: str
    advice: str


class Store(ABC):
    """The contract every engine keeps. See the module's docstring and ``jam.testing.stores``.

    Every method raises ``StoreUnavailable`` if the engine cannot be asked; then nothing may be assumed.
    """

    shared = True  #: whether other processes see the same records
    durable = True  #: whether an acknowledged write survives the end of this process

    @abstractmethod
    def add(self, record: Record, now: float) -> None:
        """Keep a new record. A dead one of the same kind and id counts as absent.

        Raises:
            RecordExists: If there is a live one of this kind and id.
            GenerationOutdated: If its generation is older than its subject's.
            InvalidValue: If it cannot be stored.
        """

    @abstractmethod
    def get(self, kind: str, record_id: str, now: float, touch_after: float | None = None) -> Found | None:
        """The live record and its subject's generations, or ``None``.

        Args:
            kind: The kind.
            record_id: The id.
            now: Seconds since the epoch.
            touch_after: Note the use (``touched_at = now``) if the last noted one is older than this many
                seconds; ``None`` never does. Touching leaves ``version`` alone and never moves backwards.
        """

    @abstractmethod
    def marks(self, subject: str, revocation_id: str, now: float) -> Marks:
        """Whether there is a live ``revoked_token`` record of that id, and the subject's generations.

        Args:
            subject: Whose; ``""`` for nobody: everyone's generations alone.
            revocation_id: The record's id, in the subject's bucket; ``""`` asks for the generations alone.
            now: Seconds since the epoch.
        """

    @abstractmethod
    def swap(self, old: Record, new: Record, now: float) -> Record | None:
        """Replace ``old`` by ``new`` if nobody did so before: one winner among concurrent callers.

        Args:
            old: The record as it was read; its id and ``version`` are compared.
            new: What to keep. Same kind, subject and bucket; a new id ends the old one in the same step.
                Its ``version`` is ignored and its ``touched_at`` too: the store goes on with its own.
            now: Seconds since the epoch.

        Returns:
            The record as it is kept now, or ``None`` for whoever lost: the record changed, died or was removed.

        Raises:
            GenerationOutdated: If ``new`` is of an older generation than its subject's.
            RecordExists: If ``new`` has a new id, and there is a live record of it.
            InvalidValue: If ``new`` is another's or cannot be stored.
        """

    @abstractmethod
    def take(self, kind: str, record_id: str, now: float) -> Record | None:
        """Get and remove a live record: one winner among concurrent callers, ``None`` for the others."""

    @abstractmethod
    def remove(self, kind: str, record_id: str) -> None:
        """Remove a record, dead or alive; no matter if there is none."""

    @abstractmethod
    def advance(self, subject: str | None, kinds: Collection[str], now: float) -> Mapping[str, int]:
        """Kill everything of these kinds that the subject (``None``: everyone) holds, without touching it.

        Returns:
            The subject's generations after it.
        """

    @abstractmethod
    def list(self, subject: str, kind: str, now: float, after: str = "", limit: int = 100) -> Sequence[Record]:
        """The subject's live records of a kind, ordered by id.

        Args:
            subject: Whose. Nobody's records (``""``) are in no list.
            kind: Which.
            now: Seconds since the epoch.
            after: The last id of the page before.
            limit: At most so many, 1 to 1000. A shorter page is the last.
        """

    @abstractmethod
    def count_up(self, name: str, window: float, limit: int, now: float) -> Counted:
        """Count one attempt, before the expensive work it guards, so that parallel ones cannot slip through.

        Args:
            name: What is counted. A keyed hash of it: people type passwords into user-name fields.
            window: Seconds, from the first count on.
            limit: How many are allowed in a window.
            now: Seconds since the epoch.
        """

    @abstractmethod
    def count_back(self, name: str, now: float) -> None:
        """Take one count back: an attempt that turned out well.

        Within a window that lasts, the count goes down by one, never below zero, and the window ends when it would have
        ended. What was never counted, and a window that is over, are left alone.

        Args:
            name: What was counted.
            now: Seconds since the epoch.
        """

    @abstractmethod
    def count_reset(self, name: str) -> None:
        """Forget a count."""

    @abstractmethod
    def purge(self, now: float, limit: int = 1000) -> int:
        """Remove at most ``limit`` records and counts that are over for a day; returns how many went.

        Not at once: a revocation that is gone when its token has just expired would be missed by a clock that
        lags, or goes back, by a second.
        """

    def check(self) -> None:  # noqa: B027 - most engines make what they need
        """Whether the engine has what the store needs; asked when an app starts to use it.

        Raises:
            ConfigError: Saying what is missing and how to make it.
            StoreUnavailable: If it cannot be asked.
        """

    def problems(self, now: float) -> Sequence[Problem]:  # noqa: ARG002 - for engines with a clock of their own
        """What else is wrong with the engine's set-up; for ``flask jam doctor``.

        Args:
            now: Jam's time, to compare the engine's with, in seconds since the epoch.

        Raises:
            StoreUnavailable: If it cannot be asked.
        """
        return ()

    def create_tables(self) -> None:  # noqa: B027 - most engines make what they need
        """Make what the engine lacks.

        Raises:
            StoreUnavailable: If it could not be made.
        """

    def close(self) -> None:  # noqa: B027 - not every engine holds something
        """Let go of the engine's resources. The store may be used again afterwards."""


def check_record(record: Record) -> bytes:
    """Refuse what some engine could not keep; returns the encoded data.

    Raises:
        InvalidValue: Naming the member.
    """
    check_subject(record.subject)
    if not _KIND.fullmatch(record.kind):
        raise InvalidValue("A record's kind has 1 to 32 characters of a-z and underscore.")
    if not ID.fullmatch(record.id):
        raise InvalidValue("A record's id is made by jam.crypto.handles.")
    if len(record.check) > _MAX_CHECK:
        raise InvalidValue(f"A record's check has at most {_MAX_CHECK} bytes.")
    if not (0 <= record.generation <= _MAX_GENERATION and 0 <= record.version <= _MAX_GENERATION):
        raise InvalidValue("A record's generation and version are counted from 0 to 2**53 - 1.")
    if not all(map(math.isfinite, (record.created_at, record.touched_at, record.ends_at, record.idle_for or 0.0))):
        raise InvalidValue("A record's times are finite, and it has an end.")
    try:
        data = json_encode_exactly(record.data)
    except ValueError as error:
        raise InvalidValue("The data cannot be kept as JSON.", hint=f"{error}.") from None
    if len(data) > MAX_DATA:
        raise InvalidValue(
            f"The data takes {len(data)} bytes; a record holds {MAX_DATA}.",
            hint="Keep large things in your own tables.",
        )
    return data


def check_subject(subject: str) -> None:
    """Refuse a subject that some engine could not keep.

    Raises:
        InvalidValue: If it is no string, too long, or holds NUL or a lone surrogate.
    """
    if not isinstance(subject, str):
        raise InvalidValue(
            f"A subject is a string, not {type(subject).__name__}.", hint="Pass str(user.id), for example."
        )
    try:
        subject.encode()
    except UnicodeEncodeError:
        raise InvalidValue("A subject must be valid Unicode.") from None
    if len(subject) > _MAX_SUBJECT or "\0" in subject:
        raise InvalidValue(f"A subject has at most {_MAX_SUBJECT} characters and no NUL.")


def check_page(after: str, limit: int) -> None:
    """Refuse what is no place in a list.

    Raises:
        InvalidValue: Naming what is wrong.
    """
    if not isinstance(after, str) or (after and not ID.fullmatch(after)):
        raise InvalidValue("A page begins after the last id of the page before.")
    if limit.__class__ is not int or not 1 <= limit <= MAX_LIST:
        raise InvalidValue(f"A page has 1 to {MAX_LIST} entries.")


def check_swap(old: Record, new: Record) -> bytes:
    """Refuse a swap that would hand a record to somebody else; returns the new one's encoded data.

    Raises:
        InvalidValue: If kind, subject or bucket differ, or ``new`` cannot be stored.
    """
    data = check_record(new)
    same = (old.kind, old.subject) == (new.kind, new.subject)
    if not same or (old.id != new.id and bucket_of_id(old.id) != bucket_of_id(new.id)):
        raise InvalidValue("A swap keeps a record's kind, subject and bucket.")
    return data


def decode_data(data: bytes) -> dict[str, Any]:
    """A record's data, as ``check_record`` encoded it.

    Raises:
        StoreUnavailable: If somebody else changed it into something else.
    """
    try:
        return _DECODE_DATA(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise unreadable(error) from error


def decode_marks(marks: bytes | str) -> Mapping[str, int]:
    """A subject's generations, kept as JSON.

    Raises:
        StoreUnavailable: If somebody else changed them into something else.
    """
    try:
        return _DECODE_MARKS(marks)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise unreadable(error) from error


def unreadable(error: Exception) -> StoreUnavailable:
    """What to raise for a value that no store has written: nobody can tell what it was, so nobody passes."""
    logger.error("A value in the store cannot be read: %s: %s", type(error).__name__, error)
    return StoreUnavailable(hint="A value in the store cannot be read; the log says more.")


def add_up(subjects: Mapping[str, int], everyones: Mapping[str, int]) -> Mapping[str, int]:
    """The generations that count: the subject's and everyone's together.

    Both only ever rise, so whatever was made before a rise of either has a smaller sum than what is made after.
    """
    if not everyones:
        return subjects
    return {kind: subjects.get(kind, 0) + everyones.get(kind, 0) for kind in subjects.keys() | everyones.keys()}


def check_kinds(subject: str | None, kinds: Collection[str]) -> str:
    """Refuse kinds no record can have; returns the name under which a store keeps the mark (``""``: everyone's).

    Raises:
        InvalidValue: Naming what is wrong.
    """
    if isinstance(kinds, str) or not all(_KIND.fullmatch(kind) for kind in kinds):
        raise InvalidValue("Kinds are a collection of names such as ('session', 'access_token').")
    if REVOKED_TOKEN in kinds:
        raise InvalidValue("A revocation cannot be revoked: it would bring the token back.")
    if subject is None:
        return ""
    check_subject(subject)
    if not subject:
        raise InvalidValue("Nobody's records cannot be revoked together; None means everyone's.")
    return subject


def clock_problem(theirs: float, now: float) -> Problem | None:
    """What is wrong if the engine's clock and Jam's differ, both in seconds since the epoch."""
    skew = theirs - now
    if abs(skew) <= _MAX_SKEW:
        return None
    return Problem(
        f"The engine's clock is {abs(skew):.0f} seconds {'ahead of' if skew > 0 else 'behind'} this host's; where "
        "hosts disagree, records die early or late.",
        "Let all hosts keep time by NTP.",
    )


def touch_is_due(record: Record, now: float, touch_after: float | None) -> bool:
    """Whether a use at ``now`` is worth a write."""
    return touch_after is not None and now - record.touched_at > touch_after
