"""The audit log: who did what, when and from where, kept apart from what the app prints (ASVS 16.2.1, 16.3.1, 16.3.2).

``record`` writes down what ``jam.events.Events`` tells. An ``AuditLog`` is anything that can append and search; here is
one of JSON lines in a file, and ``jam.accounts.sql_audit`` has one in a database. Entries hold what the events hold, so
nothing secret.
"""

from __future__ import annotations

import functools
import json
import logging
import math
import os
import re
import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import msgspec

from jam.errors import ConfigError, InvalidValue, JamError, StoreUnavailable
from jam.events import AccessRefused, Event, Events, SessionConflict
from jam.stores.forks import around_forks

__all__ = [
    "COUNT_FOR",
    "MAX_DETAILS",
    "MAX_TEXT",
    "AuditLog",
    "Entry",
    "JSONLinesAuditLog",
    "Recorder",
    "asked_texts",
    "checked_limit",
    "checked_time",
    "kept",
    "make_private_file",
    "match_cursor",
    "open_audit_log",
    "record",
]

logger = logging.getLogger("jam.accounts.audit")

COUNT_FOR = 60.0  #: seconds for which refusals of callers without a credential are counted before they are written
MAX_TEXT = 255  #: of a subject, an address and an event's name, in characters
MAX_DETAILS = 32_768  #: of an entry's details, in bytes of JSON
MAX_LIST = 1000
_MAX_MEMBER = 2048  # of one field of an event, in bytes of JSON
_MAX_LINE = 2 * MAX_DETAILS  # more than any entry takes
_BLOCK = 65_536
_CLOCK_SLACK = 86_400.0  # seconds by which a host's clock may have been set back
_CURSOR = re.compile(r"([0-9]{1,20})-([0-9]{1,18})", re.ASCII)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the log.

    Attributes:
        at: When it happened, in seconds since the epoch.
        event: The name of the event's class, such as ``SignedIn``.
        subject: Whose account it is about, if that is known.
        address: Where the request came from, if that is known.
        details: The event's other fields, as JSON has them.
        count: How many of the same kind it stands for.
        cursor: Where it stands in the log that it was found in: what ``search`` takes as ``before``. Not kept.
    """

    at: float
    event: str
    subject: str | None = None
    address: str | None = None
    details: Mapping[str, Any] = {}
    count: int = 1
    cursor: str | None = None


class AuditLog(Protocol):
    """Where entries are kept.

    ``subject``, ``address`` and ``event`` have at most 255 characters: of what is longer the first 254 are kept, with
    ``…`` behind them. NUL and lone surrogates in them are written out by a backslash and their number. ``search``
    treats what it is given likewise, so that it finds what was appended.
    """

    def append(self, entry: Entry) -> None:
        """Keep an entry. When this returns, the operating system or the database has it.

        Raises:
            InvalidValue: If it cannot be kept: details that are no JSON or take more than 32,768 bytes.
            StoreUnavailable: If it was not kept.
        """

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
        """The entries of which everything that is asked for is true, those that were appended last first.

        Args:
            subject: Whose.
            event: The name of an event's class.
            address: Where the requests came from.
            since: Not those before this time, in seconds since the epoch.
            until: Only those before this time, in seconds since the epoch.
            limit: At most so many, 1 to 1000. A shorter page is the last.
            before: The ``cursor`` of the last entry of the page before.

        Raises:
            InvalidValue: If an argument cannot be what it is, or the log no longer has the place of ``before``.
            StoreUnavailable: If the log cannot be read.
        """

    def close(self) -> None:
        """Let go of what the log holds. It may be used again afterwards."""


def open_audit_log(url: str) -> AuditLog:
    """The audit log behind a URL.

    Args:
        url: ``file:///var/log/app/audit.jsonl``, with the whole path: a log whose place depends on where the app was
            started is soon lost; or ``sqlite:///relative.db``, ``sqlite:////absolute/path.db``,
            ``postgresql+psycopg://...``, ``mysql+pymysql://...`` as SQLAlchemy has them.

    Raises:
        ConfigError: If the URL names no log this version has, or the file cannot be written. A database that cannot
            be reached shows at the first use, as ``StoreUnavailable``.
    """
    scheme = url.partition(":")[0]
    if scheme == "file":
        return JSONLinesAuditLog(_path_of(url))
    if scheme in _DATABASES:
        return _open_sql(url)
    # The URL may hold a password, and without a scheme that is known nobody can tell where.
    raise ConfigError(
        "There is no audit log for this kind of URL.",
        hint="Use file:///..., sqlite:///..., postgresql+psycopg://... or mysql+pymysql://...",
    )


_DATABASES = ("sqlite", "postgresql+psycopg", "mysql+pymysql", "mariadb+pymysql")


def _open_sql(url: str) -> AuditLog:
    try:
        from jam.accounts.sql_audit import SQLAuditLog  # noqa: PLC0415 - a log in a file does not need SQLAlchemy
    except ImportError:
        raise ConfigError("SQLAlchemy is not installed.", hint="pip install jam-auth[accounts]") from None
    return SQLAuditLog(url)


def _path_of(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("file:")
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path.startswith("/") or parts.query or parts.fragment:
        raise ConfigError(
            "An audit log's file URL is file:///absolute/path.jsonl.", hint="Write ? and # in a path as %3F and %23."
        )
    return path


# -- what is kept, and what is asked for --------------------------------------------------------------------


def _to_json(value: Any) -> str:
    """JSON in printable ASCII: no line of it can be made two, and no terminal takes a part of it for a command."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def _kept_text(text: str) -> str:
    """A text as every log keeps it; see ``AuditLog``."""
    if not isinstance(text, str):
        raise InvalidValue(f"Subject, address and event are strings, not {type(text).__name__}.")
    clean = text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    return clean if len(clean) <= MAX_TEXT else clean[: MAX_TEXT - 1] + "…"


def kept(entry: Entry) -> dict[str, Any]:
    """An entry's members as every log keeps them, the details as JSON text.

    Raises:
        InvalidValue: Naming what cannot be kept.
    """
    try:
        details = _to_json(dict(entry.details))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidValue("An entry's details are what JSON can hold.", hint=f"{type(error).__name__}.") from None
    if len(details) > MAX_DETAILS:
        raise InvalidValue(f"An entry's details take at most {MAX_DETAILS} bytes of JSON.")
    if entry.count.__class__ is not int or not 1 <= entry.count < 2**63:
        raise InvalidValue("An entry counts for one or more.")
    return {
        "at": checked_time(entry.at),
        "event": _kept_text(entry.event),
        "subject": None if entry.subject is None else _kept_text(entry.subject),
        "address": None if entry.address is None else _kept_text(entry.address),
        "details": details,
        "count": entry.count,
    }


def checked_time(at: float) -> float:
    """A time in seconds since the epoch.

    Raises:
        InvalidValue: If it is none.
    """
    if not isinstance(at, bool) and isinstance(at, (int, float)):
        with suppress(OverflowError):  # an integer may be larger than any float
            if math.isfinite(at):
                return float(at)
    raise InvalidValue("A time is a finite number of seconds since the epoch.")


def checked_limit(limit: int) -> int:
    """A number of entries, 1 to 1000.

    Raises:
        InvalidValue: If it is none.
    """
    if limit.__class__ is not int or not 1 <= limit <= MAX_LIST:
        raise InvalidValue(f"A page has 1 to {MAX_LIST} entries.")
    return limit


def asked_texts(subject: str | None, event: str | None, address: str | None) -> dict[str, str]:
    """The texts that a search asks for, by an entry's member, as they are kept."""
    given = {"subject": subject, "event": event, "address": address}
    return {name: _kept_text(text) for name, text in given.items() if text is not None}


def match_cursor(pattern: re.Pattern[str], cursor: str) -> re.Match[str]:
    """A cursor taken apart.

    Raises:
        InvalidValue: If it is none of this log's.
    """
    match = pattern.fullmatch(cursor) if isinstance(cursor, str) else None
    if match is None:
        raise InvalidValue("A page begins before the cursor of the last entry of the page before.")
    return match


def _open_file(path: Path) -> int:
    """Open a file to append; if it is not there it is made, for its owner alone."""
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)


def make_private_file(path: Path) -> None:
    """Make a log's file, readable by its owner alone, unless it is there.

    Raises:
        ConfigError: If it cannot be written.
    """
    try:
        os.close(_open_file(path))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no such path is possible"
        raise ConfigError(
            "The audit log's file cannot be written.",
            hint=f"{str(path)!r}: {reason}. Its directory must exist, and the app must be allowed to write.",
        ) from None


# -- JSON lines ---------------------------------------------------------------------------------------------


class JSONLinesAuditLog:
    """A file with one JSON object a line, in printable ASCII whatever people call themselves (ASVS 16.4.1).

    Any number of threads and processes of one host may append at once: each entry is one write to the end of the
    file. The file is opened for each, so that it may be renamed at any time and nothing is held across a fork.
    When old lines go, and whether former files are kept, is the business of the system's log rotation
    (``logrotate``); ``search`` reads the present file alone, from its end.

    Args:
        path: The file; made, readable only by its owner, if it is not there. Its directory must exist.

    Raises:
        ConfigError: If it cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path).absolute()
        make_private_file(self._path)

    def append(self, entry: Entry) -> None:
        """See ``AuditLog.append``."""
        line = _to_json({**kept(entry), "details": dict(entry.details)}).encode() + b"\n"
        try:
            descriptor = _open_file(self._path)
            try:
                written = _write_line(descriptor, line)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StoreUnavailable(hint=f"The audit log's file cannot be written: {error.strerror}.") from None
        if not written:
            raise StoreUnavailable(hint="The audit log's file took a part of the entry only; is the disk full?")

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
        """See ``AuditLog.search``. Lines that are no entries are passed over, and their number is logged.

        It takes time in proportion to the file, unless enough is found or ``since`` ends it; for that, a host's clock
        may not have been set back by more than a day.
        """
        asked = asked_texts(subject, event, address)
        start = -math.inf if since is None else checked_time(since)
        end = math.inf if until is None else checked_time(until)
        checked_limit(limit)
        found: list[Entry] = []
        for entry in self._entries(before):
            if entry.at < start - _CLOCK_SLACK:
                break
            if start <= entry.at < end and all(getattr(entry, name) == text for name, text in asked.items()):
                found.append(entry)
                if len(found) == limit:
                    break
        return found

    def _entries(self, before: str | None) -> Iterator[Entry]:
        """All entries, the last first."""
        place = None if before is None else match_cursor(_CURSOR, before)
        skipped = 0
        try:
            with self._path.open("rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                end = status.st_size if place is None else _offset(file.fileno(), status, place)
                for offset, line in _lines_backwards(file.fileno(), end):
                    entry = _entry_of_line(line, f"{status.st_ino}-{offset}")
                    if entry is not None:
                        yield entry
                    elif line:
                        skipped += 1
        except FileNotFoundError:  # it was renamed a moment ago, and nothing was appended since
            if place is not None:
                raise _rotated() from None
        except OSError as error:
            raise StoreUnavailable(hint=f"The audit log's file cannot be read: {error.strerror}.") from None
        finally:
            if skipped:
                logger.warning("%d lines of the audit log are no entries; they were passed over.", skipped)

    def close(self) -> None:
        """See ``AuditLog.close``: nothing is held."""


def _write_line(descriptor: int, line: bytes) -> bool:
    """Append a line in one write; whether all of it was written."""
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        line = b"\n" + line  # a full disk or a power cut tore the line before: it must not take this one with it
    return os.write(descriptor, line) == len(line)


def _offset(descriptor: int, status: os.stat_result, place: re.Match[str]) -> int:
    """Where a cursor's line begins.

    Raises:
        InvalidValue: If this is not the file any more, or it was cut.
    """
    offset = int(place[2])
    is_this_file = int(place[1]) == status.st_ino
    if not is_this_file or (offset and os.pread(descriptor, 1, offset - 1) != b"\n"):
        raise _rotated()
    return offset


def _rotated() -> InvalidValue:
    return InvalidValue("The audit log was rotated meanwhile.", hint="Search again, without a cursor.")


def _lines_backwards(descriptor: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Each line and where it begins, the last first. Holds a block and a line at a time, however large the file is."""
    tail = b""  # of a line that begins in a block before
    while end > 0:
        size = min(_BLOCK, end)
        end -= size
        data = os.pread(descriptor, size, end) + tail
        stop = len(data)
        while (newline := data.rfind(b"\n", 0, stop)) >= 0:
            yield end + newline + 1, data[newline + 1 : stop]
            stop = newline
        tail = data[: min(stop, _MAX_LINE + 1)]  # what is longer is no entry: enough of it to see that
    yield 0, tail


def _entry_of_line(line: bytes, cursor: str) -> Entry | None:
    """The entry, or ``None`` if it is none."""
    if not line or len(line) > _MAX_LINE:
        return None
    try:
        entry = msgspec.convert(json.loads(line), Entry)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return None
    return msgspec.structs.replace(entry, cursor=cursor) if math.isfinite(entry.at) else None


# -- from events to entries ---------------------------------------------------------------------------------


def record(
    events: Events,
    log: AuditLog,
    *,
    clock: Callable[[], float],
    leave_out: Collection[type[Event]] = (SessionConflict,),
) -> Callable[[], None]:
    """Write down every event from now on; returns a function that ends it.

    Refusals of callers who showed no credential at all (``AccessRefused`` with ``anonymous``) are what any scanner
    makes by the thousand: they are counted, and written as one entry for each code once a minute has passed, with the
    next event that comes, or at the end. Every other event is an entry of its own. A log that fails is told to the
    logger ``jam.accounts.audit``, by the event's name alone, and does not disturb what the event tells of.

    Args:
        events: What happens.
        log: Where it is kept. It is not closed at the end.
        clock: Seconds since the epoch.
        leave_out: The classes of events that are not written. ``SessionConflict`` says nothing about access.
    """
    recorder = Recorder(log, clock, tuple(leave_out))
    unsubscribe = events.subscribe(recorder.hear)

    def stop() -> None:
        unsubscribe()
        recorder.write_counts()

    return stop


class Recorder:
    """What ``record`` subscribes, for who has a stream already.

    Args:
        log: Where events are kept.
        clock: Seconds since the epoch.
        leave_out: The classes of events that are not written.
    """

    def __init__(
        self, log: AuditLog, clock: Callable[[], float], leave_out: tuple[type[Event], ...] = (SessionConflict,)
    ) -> None:
        self._log = log
        self._clock = clock
        self._leave_out = leave_out
        self._counts: dict[str, int] = {}  # of refusals, by code
        self._counted_since = 0.0
        self._waiting_since = 0.0  # for the next time that counts are written
        self._counting = threading.Lock()
        _all_recorders.add(self)

    def hear(self, event: Event) -> None:
        """Write an event down, or count it; see ``record``."""
        left_out = isinstance(event, self._leave_out)
        counted = False
        if not left_out and isinstance(event, AccessRefused) and event.anonymous:
            counted, now = True, self._clock()
            self._count(event.code, 1, since=now, now=now)
        # A clock that was set back must not keep them for ever.
        if self._counts and abs(self._clock() - self._waiting_since) >= COUNT_FOR:
            self.write_counts()
        if not counted and not left_out:
            self._append(event.__class__.__name__, functools.partial(_entry_of_event, event))

    def write_counts(self) -> None:
        """Write what was counted; what the log does not take is counted on."""
        with self._counting:
            counts, since = self._counts, self._counted_since
            self._counts = {}
        now = self._clock()
        for code, count in counts.items():
            details = {"code": code, "anonymous": True, "since": since}
            make = functools.partial(Entry, at=now, event="AccessRefused", details=details, count=count)
            if not self._append("AccessRefused", make):
                self._count(code, count, since=since, now=now)

    def _count(self, code: str, count: int, *, since: float, now: float) -> None:
        with self._counting:
            if not self._counts:
                self._counted_since, self._waiting_since = since, now
            self._counted_since = min(self._counted_since, since)
            self._counts[code] = self._counts.get(code, 0) + count

    def _append(self, name: str, make: Callable[[], Entry]) -> bool:
        """Append an entry, which may fail to be made; whether it was kept."""
        try:
            self._log.append(make())
        except JamError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 - a log that the app wrote raises what it will, and it may tell too much
            reason = f"{type(error).__name__}."
        else:
            return True
        logger.error("The audit log did not take an event %s: %s", name, reason)
        return False

    # -- forks: the parent writes what it has counted, and the child begins anew

    def before_fork(self) -> None:
        self._counting.acquire()

    def after_fork_in_parent(self) -> None:
        self._counting.release()

    def after_fork_in_child(self) -> None:
        self._counting = threading.Lock()
        self._counts = {}


_all_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()

around_forks(
    _all_recorders,
    before=Recorder.before_fork,
    after_in_parent=Recorder.after_fork_in_parent,
    after_in_child=Recorder.after_fork_in_child,
)


def _entry_of_event(event: Event) -> Entry:
    fields: dict[str, Any] = msgspec.to_builtins(event, enc_hook=lambda value: f"<{type(value).__name__}>")
    at, subject, address = fields.pop("at"), fields.pop("subject", None), fields.pop("address", None)
    return Entry(
        at=at, event=event.__class__.__name__, subject=subject, address=address,
        details={name: _bounded(value) for name, value in fields.items()},
    )  # fmt: skip


def _bounded(value: Any) -> Any:
    """A field's value, or the beginning of its JSON and ``…``: what a stranger made long must not crowd out the rest.

    The text is cut between any two characters of the JSON: it is for people to read.
    """
    text = _to_json(value)
    return value if len(text) <= _MAX_MEMBER else text[: _MAX_MEMBER - 1] + "…"
