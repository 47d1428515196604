"""``flask.session`` on Jam's store: the login and what the app keeps are one record, and the cookie is its handle.

Opened when somebody first looks, saved only if something changed. Two requests that write at once are merged key by
key, flashed messages by message; of two values for one key the later one counts, and an event says so. ``clear()``,
Flask's idiom for it, signs out. Before anybody signs in, a record is made only when something is written.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from flask import Flask, Request, Response, current_app, session
from flask.globals import request_ctx
from flask.json.tag import TaggedJSONSerializer
from flask.sessions import NullSession, SessionInterface, SessionMixin

from jam.credentials.sessions import Session
from jam.errors import (
    ConfigError,
    CredentialError,
    InvalidValue,
    JamError,
    SessionInvalid,
    SessionNotSaved,
    StoreError,
    UserInactive,
)
from jam.events import SessionConflict
from jam.ext.flask.cookies import drop_cookie, set_cookie
from jam.ext.flask.negotiation import error_response
from jam.ext.flask.request import JamState, state_of
from jam.ext.flask.resolved import RESOLVED, VETTING, Resolved, current_context
from jam.stores.base import unreadable

__all__ = ["JamSession", "JamSessionInterface"]

logger = logging.getLogger("jam.flask")

_FLASHES = "_flashes"
_PERMANENT = "_permanent"


class JamSession(SessionMixin):
    """What ``flask.session`` is then: a dict that is read from the store when it is first used.

    Attributes:
        modified: Set by whoever changes something inside a value; changes of keys, and of lists and dicts under
            them, are noticed anyway.
    """

    modified = False

    def __init__(self, state: JamState, request: Request) -> None:
        self._state = state
        self._request = request
        self._values: dict[str, Any] | None = None
        self._texts: dict[str, str] = {}
        self._handle: str | None = None
        self._nobodys = False
        self._sealed = False
        self._refusal: JamError | None = None
        self._cleared = False
        self._unjudged = False
        self._conflicts: list[str] = []

    # -- as a dict --

    def __getitem__(self, key: str) -> Any:
        return self._opened()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._opened()[key] = value
        self.modified = True

    def __delitem__(self, key: str) -> None:
        del self._opened()[key]
        self.modified = True

    def __iter__(self) -> Iterator[str]:
        return iter(self._opened())

    def __len__(self) -> int:
        return len(self._opened())

    def __contains__(self, key: object) -> bool:
        return key in self._opened()

    def copy(self) -> dict[str, Any]:
        """What is in it now."""
        return dict(self._opened())

    def clear(self) -> None:
        """Forget everything, and sign out whoever is signed in by this session.

        Raises:
            StoreUnavailable: As an ``HTTPException``, if the login could not be ended; it is still good.
        """
        values = self._opened()
        self.modified = True
        if self._sealed or self._handle is None or self._nobodys:
            values.clear()
            self._cleared = True
            return
        if not self._in_its_request():  # a test's own hands on it
            self._state.jam.logins.end_own([self._handle], [])
        elif self._state.sign_out is not None:
            self._state.sign_out()
        self.forget()

    @property
    def new(self) -> bool:  # type: ignore[override]
        """Whether nothing was kept for this browser so far."""
        self._opened()
        return self._handle is None

    def __repr__(self) -> str:
        return f"<JamSession {'not opened' if self._values is None else sorted(self._values)}>"

    # -- from the store and back --

    @property
    def opened(self) -> bool:
        """Whether somebody has looked."""
        return self._values is not None

    def _opened(self) -> dict[str, Any]:
        if self._values is None:
            self._open()
        return self._values  # type: ignore[return-value]

    def _open(self) -> None:
        state, request = self._state, self._request
        resolved = request.__dict__.get(RESOLVED)
        failed = resolved is not None and resolved.retry_after is not None  # then this is an error page
        with state.answering_503():
            state.prepare()
            self._refusal = None if failed else state.csrf_refusal(request)
            found = None if failed or self._refusal is not None else self._find()
            if failed or self._refusal is not None or (found is not None and not self._may_use(found)):
                self._sealed, self._values = True, {}  # nothing is opened, and nothing saved
                return
            if self._values is not None and found is not None and self._handle == found[0]:
                return  # the app opened it while it was asked, and may have written
            texts = {} if found is None else dict(found[1].values)
            try:
                self._values = {key: _SERIALIZER.loads(text) for key, text in texts.items()}
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise unreadable(error) from error
            self._texts = texts
            self._unjudged = VETTING in request.__dict__
            if found is not None:
                self._handle, self._nobodys = found[0], not found[1].subject

    def _find(self) -> tuple[str, Session] | None:
        """The session that is to be opened, and its handle: a login rather than what was kept before it."""
        found = self._look()
        remembered = self._state.lookup.remember_cookie in self._request.environ.get("HTTP_COOKIE", "")
        if remembered and (found is None or not found[1].subject) and self._in_its_request():
            self._state.resolve(self._request)  # the browser may get its login back by that
            found = self._look()
        return found

    def _look(self) -> tuple[str, Session] | None:
        nobodys: tuple[str, Session] | None = None
        for handle in self._state.presented(self._request, self._state.lookup.session_cookie or ""):
            opened = self._state.open_session(self._request, handle)
            if opened is not None and opened[1].subject:
                return handle, opened[1]
            if opened is not None:
                nobodys = nobodys or (handle, opened[1])
        return nobodys

    def _may_use(self, found: tuple[str, Session]) -> bool:
        """Whether the request may open it, and the app lets its owner in at all: a user who is there, and active."""
        state, request, (handle, session) = self._state, self._request, found
        resolved = request.__dict__.get(RESOLVED)
        begun_here = resolved is not None and resolved.handle == handle
        if session.subject and not begun_here:  # a value that belongs to another cookie opens no login
            self._refusal = state.csrf_refusal(request, handle)
            if self._refusal is not None:
                return False
        if not session.subject or not self._in_its_request() or VETTING in request.__dict__:
            return True
        resolved = state.resolve(request)
        if handle in (resolved.handle, resolved.credential) and resolved.identity.subject is not None:
            return True
        opened = state.open_session(request, handle)
        try:
            if opened is not None and opened[0] is not None:
                state.ask_app(request, Resolved(opened[0], None, handle, "cookies"))
        except (CredentialError, UserInactive):
            return False
        return True

    def _in_its_request(self) -> bool:
        return bool(request_ctx) and current_context().request is self._request

    def values_now(self) -> Mapping[str, str]:
        """Everything in it, as text.

        Raises:
            InvalidValue: If a value cannot be kept.
        """
        try:
            dumped = {_name(key): _SERIALIZER.dumps(value) for key, value in self._opened().items()}
            return {key: self._as_before(key, text) for key, text in dumped.items()}
        except Exception as error:  # noqa: BLE001 - a value's own methods are called, and may raise anything
            raise InvalidValue(
                "flask.session holds a value that cannot be kept.", hint=f"{type(error).__name__}: {error}."
            ) from None

    def _as_before(self, key: str, text: str) -> str:
        """The text that is kept, if the value is the same: Flask writes some values in another order the next time."""
        kept = self._texts.get(key)
        if kept is None or kept == text:
            return text
        return kept if _SERIALIZER.dumps(_SERIALIZER.loads(kept)) == text else text

    @property
    def cookie_age(self) -> int | None:
        """For how many seconds its cookie lasts; ``None``: until the browser is closed."""
        return cookie_age(self._state, permanent=self.permanent)

    def belongs_to(self) -> str | None:
        """Whose it is: a subject, ``""`` for nobody's; ``None`` if nothing was kept so far."""
        self._opened()
        opened = None if self._handle is None else self._state.open_session(self._request, self._handle)
        return None if opened is None else opened[1].subject

    def goes_on(self, handle: str, texts: Mapping[str, str], ended: Sequence[Session]) -> None:
        """From now on it is kept in another session, which holds these values already.

        Args:
            handle: That session's.
            texts: The values.
            ended: What this one was when it ended: a request that changed it meanwhile is merged.
        """
        old_id = (self._handle or "").partition(".")[0]
        for one in ended:
            if one.id == old_id and one.values != self._texts:
                texts = self._state.jam.sessions.change_values(
                    handle, partial(_instead, self._merged(one.values, texts))
                )
                self._tell_of_conflicts()
                self._values = {key: _SERIALIZER.loads(text) for key, text in texts.items()}
        self._handle, self._texts, self._nobodys, self._sealed = handle, dict(texts), False, False

    def moves_to(self, handle: str) -> None:
        """It is the same one under another handle."""
        if self._handle is not None:
            self._handle = handle

    def close_unjudged(self, agreed_on: str | None) -> None:
        """Not be open any more, if it was opened while the app was asked about its owner and the app said no.

        Args:
            agreed_on: Whom the app said yes to, if anybody.
        """
        if self._unjudged and agreed_on is not None and self.belongs_to() in (None, "", agreed_on):
            self._unjudged = False
        if self._unjudged:
            self._values, self._texts, self._handle = None, {}, None
            self._nobodys = self._sealed = self._unjudged = False

    def forget(self) -> None:
        """Be empty, and of no record: the one there was has ended."""
        self._values, self._texts, self._handle = {}, {}, None

    def save(self, response: Response) -> None:
        """Write what changed.

        Raises:
            InvalidValue: If a value cannot be kept.
            StoreUnavailable: If nothing could be written.
        """
        if self._sealed:
            if self._refusal is not None and self._values:
                logger.warning("What was written to flask.session is dropped: %s", self._refusal)
            return
        texts = self.values_now()
        if texts == self._texts:
            return
        sessions = self._state.jam.sessions
        if self._handle is not None and self._nobodys and not texts and self._cleared:
            sessions.delete(self._handle)
            self._change_cookie(response, None)
            self.forget()
            return
        if self._handle is not None:
            try:
                sessions.change_values(self._handle, lambda present: self._merged(present, texts))
            except SessionInvalid:
                # It was ended or has a new handle, and the browser its cookie: a late write brings nothing back.
                logger.warning("What was written to flask.session is dropped: the session has ended meanwhile.")
                return
            self._tell_of_conflicts()
        if self._handle is None:
            self._handle, self._nobodys = sessions.create_anonymous(texts), True
            self._change_cookie(response, self._handle)
        elif texts.get(_PERMANENT) != self._texts.get(_PERMANENT):
            self._change_cookie(response, self._handle)
        self._texts = dict(texts)

    def _change_cookie(self, response: Response, handle: str | None) -> None:
        """Set the cookie, or drop it; after what else happens to it in this request."""
        state, name = self._state, self._state.lookup.session_cookie or ""
        age = None if handle is None else self.cookie_age

        def change(response: Response) -> None:
            if handle is None:
                drop_cookie(state, response, name)
            else:
                set_cookie(state, response, name, handle, max_age=age)

        resolved = self._request.__dict__.get(RESOLVED)
        if resolved is not None and resolved.marked:
            resolved.changes += (change,)
        else:
            change(response)

    def _tell_of_conflicts(self) -> None:
        session_id = (self._handle or "").partition(".")[0]
        for key in self._conflicts:
            self._state.jam.events.emit(SessionConflict(at=self._state.clock(), session_id=session_id, key=key))

    def _merged(self, present: Mapping[str, str], texts: Mapping[str, str]) -> Mapping[str, str]:
        """The new values, if these are in the store by now and those are ours."""
        self._conflicts = []
        merged = dict(present)
        for key in self._texts.keys() | texts.keys():
            old, new, there = self._texts.get(key), texts.get(key), present.get(key)
            if old == new:
                continue
            if there not in (old, new):
                if key == _FLASHES:
                    new = _merged_flashes(old, new, there)
                else:
                    self._conflicts.append(key)
            if new is None:
                merged.pop(key, None)
            else:
                merged[key] = new
        return merged


def close_unjudged(agreed_on: str | None) -> None:
    """See ``JamSession.close_unjudged``; for the current request."""
    kept = session._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - werkzeug's own API
    if isinstance(kept, JamSession):
        kept.close_unjudged(agreed_on)


def flask_session_works() -> bool:
    """Whether there is a ``flask.session``: not Flask's own, without a secret key."""
    return not isinstance(session, NullSession)


def cookie_age(state: JamState, *, permanent: bool) -> int | None:
    """For how many seconds a session's cookie lasts; ``None``: until the browser is closed."""
    if not permanent:
        return None
    seconds = current_app.permanent_session_lifetime.total_seconds()
    return int(min(seconds, state.jam.settings.sessions.lifetime))


def is_permanent(values: Mapping[str, str]) -> bool:
    """Whether a session that nobody has opened says that it is permanent."""
    return _PERMANENT in values and bool(_SERIALIZER.loads(values[_PERMANENT]))


def _instead(values: Mapping[str, str], present: Mapping[str, str]) -> Mapping[str, str]:  # noqa: ARG001
    return values


def _merged_flashes(old: str | None, new: str | None, there: str | None) -> str | None:
    """Whoever showed messages takes those away that they saw; whoever added some, adds them to what is there."""
    seen, mine, others = (list(_SERIALIZER.loads(text)) if text else [] for text in (old, new, there))
    if mine[: len(seen)] == seen:  # messages were added
        kept = others + mine[len(seen) :]
    else:  # they were shown, and maybe others added
        gone = others[: len(seen)] == seen
        kept = (others[len(seen) :] if gone else others) + mine
    return _SERIALIZER.dumps(kept) if kept else None


class JamSessionInterface(SessionInterface):
    """Flask's way to ``flask.session``."""

    def open_session(self, app: Flask, request: Request) -> JamSession:
        """A session that nobody has looked at yet."""
        return JamSession(state_of(app), request)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Save what changed. An exception here would bypass the app's error handlers, so the response becomes the
        error's; only what is the developer's to mend is raised, in debug and testing.

        Raises:
            ConfigError: If a cookie cannot be set as it is configured.
            JamError: In debug and testing, if a value cannot be kept.
        """
        if not isinstance(session, JamSession) or not session.opened:
            return
        state = state_of(app)
        try:
            session.save(response)
        except StoreError as error:
            logger.warning("flask.session could not be saved: %s", error)
            _answer_instead(response, error)
        except JamError as error:
            if app.testing or app.debug or app.config.get("PROPAGATE_EXCEPTIONS") or isinstance(error, ConfigError):
                raise
            logger.exception("flask.session could not be saved")
            _answer_instead(response, SessionNotSaved())
        state.lookup.write_dependence(response, private=True)


def _answer_instead(response: Response, error: JamError) -> None:
    """Make of a response the one that tells of an error."""
    other = error_response(error)
    if hasattr(response.response, "close"):
        response.response.close()
    response.status = other.status
    response.headers.clear()
    response.headers.extend(other.headers)
    response.set_data(other.get_data())


def _name(key: object) -> str:
    """A key as it comes back: JSON knows only strings."""
    return key if isinstance(key, str) else json.loads(json.dumps({key: 0}).partition(":")[0].removeprefix("{"))


_SERIALIZER = TaggedJSONSerializer()
