"""Sessions: records on the server, found by a handle that the client keeps.

A session's own facts (roles, when and how the person signed in) stand beside the app's data in the record,
not in it, so that the app's code cannot change who somebody is by writing a key.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from jam.config import SessionSettings
from jam.credentials.access_tokens import checked_names
from jam.crypto.encoding import json_encode
from jam.crypto.handles import ID, bucket_of, bucket_of_id, handle_from, id_for, matches, new_handle, split_handle
from jam.errors import ConcurrentUpdate, GenerationOutdated, InvalidValue, RecordExists, SessionInvalid
from jam.events import Events, SessionEnded, SessionRenewed, SessionStarted, SubjectRevoked
from jam.identity import Identity
from jam.stores.base import Found, Record, Store, check_page, check_subject, touch_is_due

__all__ = ["Session", "Sessions"]

KIND = "session"
_ENDED = "ended_login"
_ENDED_FOR = 600.0  # seconds; whoever was giving out a new handle has long finished then
_TOUCH_AFTER = 60.0
_MAX_ATTEMPTS = 100
_MAX_PAUSE = 0.02


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """What may be shown of a session; its handle is not in it. Times are in seconds since the epoch.

    Attributes:
        id: Its public name, for lists and logs.
        subject: Whose it is.
        data: What the app keeps in it.
        created_at: When it was made.
        last_seen_at: When it was last used, give or take a minute.
        ends_at: When it ends in any case.
        authenticated_at: When the person last proved who they are; ``None`` if nobody said.
        roles: The roles it carries.
        scopes: The scopes it carries.
        amr: How the person signed in (RFC 8176).
        fresh: Whether the person proved who they are in this session; not if a remembered browser got it.
        device: What was said of the browser when it signed in, for lists: never trusted for anything else.
        family_id: The name of the family in ``Jam.remember_me`` that it belongs to, if its browser is remembered.
        values: What a framework's own session object keeps in it, each value as text.
        login_id: The public name of the login, which stays the same under every new handle.
    """

    id: str
    subject: str
    data: Mapping[str, Any]
    created_at: float
    last_seen_at: float
    ends_at: float
    authenticated_at: float | None
    roles: frozenset[str]
    scopes: frozenset[str]
    amr: tuple[str, ...]
    fresh: bool = True
    device: Mapping[str, str] = {}
    family_id: str | None = None
    values: Mapping[str, str] = {}
    login_id: str = ""


class Sessions:
    """Makes, finds, changes and ends sessions.

    Args:
        store: Where they are kept.
        settings: How long they live.
        clock: Seconds since the epoch.
        events: Hears of their beginnings and ends.
    """

    def __init__(self, store: Store, settings: SessionSettings, *, clock: Callable[[], float], events: Events) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._events = events

    def create(
        self,
        subject: str,
        data: Mapping[str, Any] | None = None,
        *,
        roles: Collection[str] = (),
        scopes: Collection[str] = (),
        amr: Sequence[str] = (),
        generation: int | None = None,
        authenticated_at: float | None = None,
        fresh: bool = True,
        device: Mapping[str, str] | None = None,
        family_id: str | None = None,
        login_id: str | None = None,
        ends_at: float | None = None,
        values: Mapping[str, str] | None = None,
        material: bytes | None = None,
    ) -> str:
        """Start a session; always with a new handle (ASVS 7.2.4).

        Args:
            subject: Whose it is.
            data: What to keep in it: anything JSON can hold, under string keys.
            roles: The roles it carries.
            scopes: The scopes it carries.
            amr: How the person signed in.
            generation: The subject's generation as read *before* the caller was authenticated; read now if
                left out.
            authenticated_at: When the person proved who they are, in seconds since the epoch; if left out, now, or
                unknown if that was not for this session.
            fresh: Whether that was for this session.
            device: What to show of the browser in lists.
            family_id: The family in ``Jam.remember_me`` that it belongs to.
            login_id: The login that it goes on with; it begins a new one if left out.
            ends_at: When it ends in any case, if that is before the end of its lifetime.
            values: What a framework's own session object keeps in it.
            material: ``MATERIAL_BYTES`` that nobody can guess, to make the handle of instead of random ones: whoever
                is first starts the session, and the others find out by ``RecordExists``.

        Returns:
            The handle. It is not kept anywhere; only whoever holds it can use the session.

        Raises:
            InvalidValue: If an argument cannot be what it is.
            RecordExists: If there is a live session of that ``material`` already.
            GenerationOutdated: If the subject was revoked since ``generation`` was read.
            StoreUnavailable: If nothing could be kept.
        """
        now = self._clock()
        bucket = bucket_of(_checked_subject(subject))
        handle, session_id, check = new_handle(bucket) if material is None else handle_from(bucket, material)
        content: dict[str, Any] = {
            "data": _checked_data(data or {}),
            "auth_time": now if authenticated_at is None and fresh else authenticated_at,
        }
        if not fresh:
            content["fresh"] = False
        if device:
            content["device"] = dict(device)
        if family_id is not None:
            content["family"] = family_id
        if login_id is not None:
            content["login"] = login_id
        if values:
            content["values"] = dict(values)
        if generation is not None and generation.__class__ is not int:
            raise InvalidValue("A generation is what generation() returned.")
        for name, given in (("roles", roles), ("scopes", scopes), ("amr", amr)):
            if listed := checked_names(name, given):
                content[name] = listed
        record = Record(
            kind=KIND, id=session_id, subject=subject, check=check,
            generation=self.generation(subject) if generation is None else generation,
            data=content, created_at=now, touched_at=now,
            idle_for=self._settings.idle_for, ends_at=min(now + self._settings.lifetime, ends_at or float("inf")),
        )  # fmt: skip
        self._store.add(record, now)
        self._events.emit(SessionStarted(at=now, subject=subject, session_id=session_id))
        return handle

    def create_anonymous(self, values: Mapping[str, str]) -> str:
        """Start a session of nobody's, for what a framework's session object keeps before anybody signs in.

        It proves nothing (``verify`` refuses its handle), and dies unused after ``anonymous_idle_for``.

        Args:
            values: What to keep.

        Returns:
            The handle.

        Raises:
            StoreUnavailable: If nothing could be kept.
        """
        now = self._clock()
        handle, session_id, check = new_handle(bucket_of(""))
        record = Record(
            kind=KIND, id=session_id, subject="", check=check, generation=self.generation(""),
            data={"data": {}, "auth_time": now, "values": dict(values)}, created_at=now, touched_at=now,
            idle_for=self._settings.anonymous_idle_for, ends_at=now + self._settings.lifetime,
        )  # fmt: skip
        self._store.add(record, now)
        return handle

    def generation(self, subject: str) -> int:
        """The generation a session for ``subject`` made now belongs to.

        Read it before a password is checked and hand it to ``create`` afterwards: a sign-in that races a
        password change then fails instead of surviving it.
        """
        check_subject(subject)
        return self._store.marks(subject, "", self._clock()).generation(KIND)

    def get(self, handle: str) -> Session | None:
        """The live session of a handle, or ``None``. Counts as use.

        Raises:
            StoreUnavailable: If nobody can tell.
        """
        found = self._find(handle)
        return None if found is None else _session(found.record)

    def verify(self, handle: str) -> Identity:
        """Who the handle proves the caller to be. Counts as use.

        Raises:
            SessionInvalid: If there is no live session behind it.
            StoreUnavailable: If nobody can tell.
        """
        found = self._find(handle)
        if found is None or not found.record.subject:
            raise SessionInvalid
        return _identity(found)

    def open(self, handle: str) -> tuple[Identity | None, Session] | None:
        """The live session of a handle, and whom it proves if anybody; or ``None``. Counts as use.

        Raises:
            StoreUnavailable: If nobody can tell.
        """
        found = self._find(handle)
        if found is None:
            return None
        return (_identity(found) if found.record.subject else None), _session(found.record)

    def update(self, handle: str, data: Mapping[str, Any], drop: Iterable[str] = ()) -> Mapping[str, Any]:
        """Merge ``data`` into the session's, top-level key by key; a concurrent update of other keys is kept.

        Args:
            handle: The handle.
            data: New values; the same key written twice keeps the later one.
            drop: Keys to remove, before the new values are set.

        Returns:
            All of the session's data after it.

        Raises:
            SessionInvalid: If there is no live session; a late write never brings one back.
            ConcurrentUpdate: If others kept changing it and nothing was written.
            InvalidValue: If the data is not JSON.
            StoreUnavailable: If nothing could be written.
        """
        changes, dropped = _checked_data(data), frozenset(drop)

        def merge(record: Record) -> Record:
            kept = {key: value for key, value in record.data["data"].items() if key not in dropped}
            return msgspec.structs.replace(record, data={**record.data, "data": {**kept, **changes}})

        result: dict[str, Any] = self._change(handle, merge).data["data"]
        return result

    def change_values(self, handle: str, change: Callable[[Mapping[str, str]], Mapping[str, str]]) -> Mapping[str, str]:
        """Change what a framework's session object keeps, as it is at that moment; a concurrent change is merged.

        Args:
            handle: The handle.
            change: Makes the new values of the present ones; called again if somebody else was faster.

        Returns:
            The values after it.

        Raises:
            SessionInvalid: If there is no live session; a late write never brings one back.
            ConcurrentUpdate: If others kept changing it and nothing was written.
            InvalidValue: If they are too large.
            StoreUnavailable: If nothing could be written.
        """

        def merge(record: Record) -> Record:
            values = dict(change(record.data.get("values", {})))
            return msgspec.structs.replace(record, data={**record.data, "values": values})

        kept: dict[str, str] = self._change(handle, merge).data["values"]
        return kept

    def delete(self, handle: str) -> bool:
        """End the session; ``False`` if there was none.

        Raises:
            StoreUnavailable: If it could not be ended.
        """
        return self.take(handle) is not None

    def take(self, handle: str) -> Session | None:
        """As ``delete``; gives what the session was."""
        found = self._find(handle)
        record = None if found is None else self._store.take(KIND, found.record.id, self._clock())
        if record is None:
            return None
        if record.subject:
            self._events.emit(SessionEnded(at=self._clock(), subject=record.subject, session_id=record.id))
        return _session(record)

    def delete_by_id(self, subject: str, session_id: str) -> bool:
        """End one of a subject's own sessions by its public name; ``False`` if it is not theirs (ASVS 8.2.2)."""
        now = self._clock()
        if not isinstance(session_id, str) or not subject:
            return False
        found = self._store.get(KIND, session_id, now) if ID.fullmatch(session_id) else None
        if found is None or found.record.subject != subject or self._store.take(KIND, session_id, now) is None:
            return False
        self._events.emit(SessionEnded(at=now, subject=subject, session_id=session_id))
        return True

    def clear(self, subject: str | None) -> None:
        """End every session of a subject (``None``: of everyone).

        Raises:
            StoreUnavailable: If it could not be done.
        """
        now = self._clock()
        self._store.advance(subject, (KIND,), now)
        self._events.emit(SubjectRevoked(at=now, subject=subject, kinds=(KIND,)))

    def rework(self, handle: str, *, authenticated_at: float | None = None, fresh: bool | None = None) -> str:
        """A new handle for the session; the old one is dead in the same step. The absolute end stays.

        Args:
            handle: The old handle.
            authenticated_at: When the person proved who they are again, if that is why.
            fresh: Whether that was for this session, if it is to change.

        Raises:
            SessionInvalid, ConcurrentUpdate, StoreUnavailable: As for ``update``.
        """
        parts = split_handle(handle) if isinstance(handle, str) else None
        if parts is None:
            raise SessionInvalid
        old_id = parts[0]
        new, new_id, check = new_handle(bucket_of_id(old_id))

        def renew(record: Record) -> Record:
            data = {"login": _login_id(record), **record.data}
            if authenticated_at is not None:
                data["auth_time"] = authenticated_at
            if fresh is not None:
                data["fresh"] = fresh
            return msgspec.structs.replace(record, id=new_id, check=check, data=data)

        kept = self._change(handle, renew)
        self.refuse_ended(kept.subject, _login_id(kept), new_id)
        self._events.emit(SessionRenewed(at=self._clock(), subject=kept.subject, session_id=new_id, previous_id=old_id))
        return new

    def note_ended(self, subject: str, login_id: str) -> None:
        """Remember for a while that a login was ended, *before* its sessions are looked for: one that is just getting a
        new handle finds it out afterwards, by ``refuse_ended``. So none escapes.

        Raises:
            StoreUnavailable: If it could not be remembered.
        """
        now = self._clock()
        record = Record(
            kind=_ENDED, id=id_for(subject, login_id), subject=subject, created_at=now, touched_at=now,
            ends_at=now + _ENDED_FOR,
        )  # fmt: skip
        with suppress(RecordExists):
            self._store.add(record, now)

    def refuse_ended(self, subject: str, login_id: str, session_id: str) -> None:
        """End a session that was given a handle while its login was being ended.

        Raises:
            SessionInvalid: If it was.
            StoreUnavailable: If nobody can tell.
        """
        if self._store.get(_ENDED, id_for(subject, login_id), self._clock()) is not None:
            self._store.remove(KIND, session_id)
            raise SessionInvalid

    def list(self, subject: str, after: str = "", limit: int = 100) -> Sequence[Session]:
        """A page of the subject's live sessions, ordered by id.

        Args:
            subject: Whose.
            after: The last id of the page before.
            limit: At most so many, 1 to 1000.
        """
        check_subject(subject)
        check_page(after, limit)
        return [_session(record) for record in self._store.list(subject, KIND, self._clock(), after, limit)]

    def _find(self, handle: str) -> Found | None:
        parts = split_handle(handle) if isinstance(handle, str) else None
        if parts is None:
            return None
        session_id, check = parts
        now = self._clock()
        found = self._store.get(KIND, session_id, now)
        if found is None or not matches(found.record.check, check):
            return None
        # Only now, and seldom, is it noted as used: the id alone, which lists and logs show, keeps no session alive.
        after = min(_TOUCH_AFTER, (found.record.idle_for or _TOUCH_AFTER) / 10)
        if touch_is_due(found.record, now, after):
            return self._store.get(KIND, session_id, now, after)
        return found

    def _change(self, handle: str, change: Callable[[Record], Record]) -> Record:
        """Apply ``change`` to the record as it is at that moment: read, swap, and again if somebody was faster."""
        for attempt in range(_MAX_ATTEMPTS):
            found = self._find(handle)
            if found is None:
                raise SessionInvalid
            try:
                kept = self._store.swap(found.record, change(found.record), self._clock())
            except GenerationOutdated:
                raise SessionInvalid from None
            if kept is not None:
                return kept
            time.sleep(random.uniform(0, min(_MAX_PAUSE, 0.001 * attempt)))  # noqa: S311 - spreads the retries
        raise ConcurrentUpdate


def _identity(found: Found) -> Identity:
    record = found.record
    content = record.data
    return Identity(
        record.subject,
        KIND,
        json_encode(content["data"]),
        frozenset(content.get("roles", ())),
        frozenset(content.get("scopes", ())),
        tuple(content.get("amr", ())),
        content["auth_time"],
        record.ends_at,
        record.id,
        None,
        record.generation,
        content.get("fresh", True),
        found.generations,
    )


def _login_id(record: Record) -> str:
    """The name of the login that a session belongs to: that of its first session, or of its family."""
    name: str = record.data.get("login") or record.data.get("family") or record.id
    return name


def _session(record: Record) -> Session:
    content = record.data
    return Session(
        id=record.id, subject=record.subject, data=content["data"], created_at=record.created_at,
        last_seen_at=record.touched_at, ends_at=record.ends_at, authenticated_at=content["auth_time"],
        roles=frozenset(content.get("roles", ())), scopes=frozenset(content.get("scopes", ())),
        amr=tuple(content.get("amr", ())), fresh=content.get("fresh", True), device=content.get("device", {}),
        family_id=content.get("family"), values=content.get("values", {}),
        login_id=_login_id(record),
    )  # fmt: skip


def _checked_subject(subject: str) -> str:
    check_subject(subject)
    if not subject:
        raise InvalidValue("A subject is not empty.")
    return subject


def _checked_data(data: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(data, Mapping) or not all(isinstance(key, str) for key in data):
        raise InvalidValue("A session's data is a mapping whose keys are strings.")
    return dict(data)
