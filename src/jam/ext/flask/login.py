"""Signing in and out in a view. The names are those of Flask-Login.

A login is a session's cookie, and if the person asked for it a second one that remembers the browser when the session
has ended. Every sign-in makes a new handle and ends what the browser had before; signing out ends all on the server.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar, overload

from flask import Request, Response, current_app, request, session

from jam.checkpoints import Checkpoint
from jam.credentials.logins import Login
from jam.errors import (
    AuthenticationRequired,
    ConfigError,
    CredentialError,
    CSRFFailed,
    FreshnessRequired,
    JamError,
    SessionInvalid,
    UserInactive,
    UserUnknown,
)
from jam.ext.flask.callbacks import call
from jam.ext.flask.carriers import MAX_COOKIES, Carrier, CookieCarrier, cookie_values
from jam.ext.flask.cookies import drop_cookie, set_cookie
from jam.ext.flask.guards import Guard
from jam.ext.flask.negotiation import to_raise
from jam.ext.flask.request import JamState, device_of, prepared_state, resolve
from jam.ext.flask.resolved import ANSWER, Resolved
from jam.ext.flask.session import JamSession, cookie_age, flask_session_works, is_permanent
from jam.ext.flask.token_cookies import unset_access_cookies, unset_refresh_cookies
from jam.ext.flask.tokens import TokenRequired, claims_of, end_token
from jam.ext.flask.users import roles_of, says, subject_of
from jam.identity import ANONYMOUS, Identity

__all__ = [
    "FreshLogin",
    "confirm_login",
    "end_login",
    "end_other_logins",
    "fresh_login_required",
    "list_logins",
    "login_fresh",
    "login_remembered",
    "login_user",
    "logout_user",
]

logger = logging.getLogger("jam.flask")

V = TypeVar("V", bound=Callable[..., Any])


# -- signing in ---------------------------------------------------------------------------------------------


def login_user(
    user: Any,
    remember: bool = False,
    duration: timedelta | None = None,
    force: bool = False,
    fresh: bool = True,
    *,
    generation: int | None = None,
) -> bool:
    """Sign a user in: a new session, its cookie on this request's response, and ``current_user`` from here on.

    Args:
        user: The app's user; or their subject, by which the ``user_loader`` finds them.
        remember: Whether the browser is to be remembered when the session has ended.
        duration: For how long it is remembered; ``REMEMBER_COOKIE_DURATION`` if left out.
        force: Sign in a user who is not active, too. Guards will turn them away all the same.
        fresh: Whether the person has just proved who they are.
        generation: As ``jam.sessions.generation(subject)`` gave it *before* the password was checked, so that a sign-in
            that races a password change fails.

    Returns:
        ``False`` if the user is not active, or there is none; then nothing was done.

    Raises:
        CSRFFailed: If the request comes from another site.
        ConfigError: If the app has no ``SessionExtension`` with a cookie, or the response's headers have left already.
        InvalidValue: If the user has no id, or the duration is longer than the configured one.
        GenerationOutdated: If the subject was revoked since ``generation`` was read.
        StoreUnavailable: As an ``HTTPException``, if the session could not be kept.
    """
    if isinstance(user, str) and (loader := prepared_state().callback("user_loader")) is not None:
        try:
            found = call(loader, user)
        except UserInactive:
            return False
        if found is None:
            return False
        user = found
    if not force and not says(user, "is_active"):
        return False
    state, cookie_name = changeable()
    known = user if callable(getattr(user, "get_id", None)) else None
    start_login(
        state, cookie_name, subject_of(state, user), roles=roles_of(state, user) or (), generation=generation,
        fresh=fresh, remember=remember, duration=duration, user=known,
    )  # fmt: skip
    return True


def start_login(
    state: JamState,
    cookie_name: str,
    subject: str,
    *,
    data: Mapping[str, Any] | None = None,
    roles: Collection[str] = (),
    scopes: Collection[str] = (),
    amr: Sequence[str] = (),
    generation: int | None = None,
    fresh: bool = True,
    remember: bool = False,
    duration: timedelta | None = None,
    user: Any = None,
) -> Identity:
    """Start a login for the caller and end the one they had; see ``SessionExtension.sign_in``."""
    jam, device = state.jam, device_of(request)
    with state.answering_503():
        before = list(state.presented(request, cookie_name, None)), _remember_tokens(state, request, None)
        kept = session._get_current_object() if state.keeps_flask_session else None  # type: ignore[attr-defined]  # noqa: SLF001
        values: Mapping[str, str] = {}
        if isinstance(kept, JamSession):
            if kept.belongs_to() not in (None, "", subject):
                kept.forget()  # what is in it was somebody else's
            values = kept.values_now()
        token, family_id = None, None
        if remember:
            token, family_id = jam.logins.remember(subject, lifetime=duration, amr=amr, device=device)
        try:
            handle = jam.sessions.create(
                subject, data, roles=roles, scopes=scopes, amr=amr, generation=generation, fresh=fresh, device=device,
                family_id=family_id, values=values,
            )  # fmt: skip
        except JamError:
            if family_id is not None:
                jam.remember_me.revoke_by_id(subject, family_id)
            raise
        ended = jam.logins.end_own(*before)
        if isinstance(kept, JamSession):
            kept.goes_on(handle, values, ended)
        elif any(one.subject not in ("", subject) for one in ended):
            _clear_flask_session()
        identity = jam.sessions.verify(handle)
        others = _tokens_of_others(state, subject)
    age = _goes_on(state, handle)
    state.remember(request, identity, _cookies(state, request, cookie_name, handle, token, age=age), handle, user)
    if others:
        state.change(request, _drop_tokens)
    return identity


def _tokens_of_others(state: JamState, subject: str) -> bool:
    """End the tokens in cookies that are somebody else's; whether there are any."""
    found = False
    if state.lookup.looks_in_cookies():
        for name in (state.lookup.access_cookie, state.lookup.refresh_cookie):
            for token in cookie_values(request.environ, name, None):
                with suppress(CredentialError):
                    if claims_of(state, token).get("sub") != subject:
                        _end_token(state, token)
                        found = True
    return found


def logout_user() -> bool:
    """Sign the caller out: whatever this request brought is ended on the server, and its cookies are dropped.

    Returns:
        ``True``.

    Raises:
        CSRFFailed: If the request comes from another site.
        ConfigError: If the app has no ``SessionExtension`` with a cookie, or the response's headers have left already.
        StoreUnavailable: If something could not be ended.
    """
    state, cookie_name = changeable(signing_out=True)
    with state.answering_503():
        handles, tokens = state.lookup.everything_brought(request)
        state.jam.logins.end_own(handles, [])
        for token in tokens:
            _end_token(state, token)
    finish_login(state, cookie_name)
    if state.lookup.looks_in_cookies():
        state.change(request, _drop_tokens)
    _clear_flask_session()
    return True


def _end_token(state: JamState, token: str) -> None:
    """End a token, if it is one, and if tokens can be ended."""
    with suppress(CredentialError, ConfigError):
        end_token(state, token)


def _drop_tokens(response: Response) -> None:
    unset_access_cookies(response)
    unset_refresh_cookies(response)


def finish_login(state: JamState, cookie_name: str) -> None:
    """End the caller's login; see ``SessionExtension.sign_out``."""
    with state.answering_503():
        state.jam.logins.end_own(
            list(state.presented(request, cookie_name, None)), _remember_tokens(state, request, None)
        )
    state.remember(request, None, _cookies(state, request, cookie_name, "", ""))
    if state.keeps_flask_session:
        _clear_flask_session()


def _clear_flask_session() -> None:
    kept = session._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - werkzeug's own API
    if isinstance(kept, JamSession):
        kept.forget()
    elif flask_session_works():
        session.clear()


def changeable(*, signing_out: bool = False) -> tuple[JamState, str]:
    """The app's state and the session cookie's name, if cookies may be set in this request.

    Args:
        signing_out: A request without cookies may do that, wherever it comes from: it signs nobody's browser out.

    Raises:
        CSRFFailed: If the request comes from another site.
        ConfigError: If there is no such cookie, or the response's headers have left already.
    """
    state = prepared_state()
    if state.lookup.session_cookie is None:
        raise ConfigError(
            "No SessionExtension of this app has a cookie.", hint="Set up SessionExtension(jam, app) to sign people in."
        )
    refuse_forged(state, signing_out=signing_out)
    return state, state.lookup.session_cookie


def refuse_forged(state: JamState, *, signing_out: bool = False) -> None:
    """Refuse to change cookies for another site's request, or when it is too late.

    Raises:
        CSRFFailed: If the request comes from another site.
        ConfigError: If the response's headers have left already.
    """
    state.refuse_if_answered(request)
    without_cookies = signing_out and "HTTP_COOKIE" not in request.environ
    forged = None if without_cookies else state.csrf_refusal(request)
    if forged is not None:
        raise to_raise(current_app, forged)


def _cookies(
    state: JamState, request: Request, cookie_name: str, handle: str, token: str | None, *, age: int | None = None
) -> Callable[[Response], None]:
    """What sets the cookies of a login; empty values drop them, and so does ``None`` if the browser sent one."""
    sent = bool(_remember_tokens(state, request))

    def change(response: Response) -> None:
        if handle:
            set_cookie(state, response, cookie_name, handle, max_age=age)
        else:
            drop_cookie(state, response, cookie_name)
            response.headers["Clear-Site-Data"] = '"cache", "storage"'  # ASVS 14.3.1
        if token or sent:
            _set_remember_cookie(state, response, token or "")

    return change


def _set_remember_cookie(state: JamState, response: Response, token: str) -> None:
    options = state.lookup.login
    age = 0 if not token else max(0, int(state.jam.remember_me.claims(token)["exp"] - state.clock()))
    set_cookie(
        state, response, state.lookup.remember_cookie, token, max_age=age, path=options.path, domain=options.domain,
        samesite=options.samesite, secure=True if options.secure else None,
    )  # fmt: skip


def _remember_tokens(state: JamState, request: Request, limit: int | None = MAX_COOKIES) -> list[str]:
    return list(cookie_values(request.environ, state.lookup.remember_cookie, limit))


# -- remembered browsers ------------------------------------------------------------------------------------


def restore(state: JamState, request: Request) -> Resolved | None:
    """Whom a remembered browser stands for, now that nothing else of its request says who is calling.

    It gets a new session and a new token; see ``Logins.restore``.

    Raises:
        StoreUnavailable: If nobody can tell.
    """
    if ANSWER in request.__dict__ or state.lookup.session_cookie is None:  # too late to hand over the successor
        return None
    error: JamError | None = None
    asked: list[Resolved] = []
    tried: tuple[tuple[Carrier, str, JamError], ...] = ()
    carrier = CookieCarrier(state.lookup.remember_cookie, state.jam.remember_me.verify)

    def agree(handle: str, identity: Identity) -> None:
        resolved = Resolved(identity, None, handle, "cookies")
        resolved.handle = handle
        state.ask_app(request, resolved)
        asked.append(resolved)

    for token in _remember_tokens(state, request):
        forged = state.csrf_refusal(request, token)
        if forged is not None:
            return Resolved(ANONYMOUS, forged)
        try:
            handle, successor, _ = state.jam.logins.restore(token, device=device_of(request), agree=agree)
        except SessionInvalid:  # a tab that comes late: the browser has a newer cookie by now
            return None
        except (CredentialError, UserInactive) as refused:
            if isinstance(refused, (UserUnknown, UserInactive)):
                state.jam.logins.end_own([], [token])
            error = refused
            tried += ((carrier, token, refused),)
            continue
        resolved = asked[-1]
        resolved.tried = tried
        resolved.changes = (_cookies(state, request, state.lookup.session_cookie, handle, successor),)
        return resolved
    if error is None:
        return None
    refused_all = Resolved(ANONYMOUS, error)
    refused_all.tried = tried
    refused_all.changes = (lambda response: _set_remember_cookie(state, response, ""),)
    return refused_all


# -- freshness ----------------------------------------------------------------------------------------------


_FRESH_TOKEN = TokenRequired(fresh=True)


class FreshLogin(Checkpoint):
    """The person proved who they are in this login: it was not made by a remembered browser, or a refresh token."""

    def refusal(self, identity: Identity, now: float) -> JamError | None:
        """Why not, or ``None``."""
        if identity.subject is None:
            return AuthenticationRequired()
        if identity.method == "jwt":
            return _FRESH_TOKEN.refusal(identity, now)
        return None if identity.fresh else FreshnessRequired()

    def __repr__(self) -> str:
        return "FreshLogin()"


@overload
def fresh_login_required(view: V) -> V: ...
@overload
def fresh_login_required() -> Guard: ...
def fresh_login_required(view: V | None = None) -> V | Guard:
    """Guard a view: the caller must have proved who they are in this login. With or without parentheses."""
    guard = Guard((FreshLogin(),))
    return guard if view is None else guard(view)


def login_fresh() -> bool:
    """Whether the caller proved who they are in this login."""
    identity = resolve().identity
    return FreshLogin().refusal(identity, prepared_state().clock()) is None


def login_remembered() -> bool:
    """Whether the browser that calls is remembered."""
    state = prepared_state()
    with state.answering_503():
        resolved = resolve()
        own = own_handle(resolved)
        opened = None if own is None else state.open_session(request, own)
    return opened is not None and opened[1].family_id is not None


def confirm_login() -> None:
    """Say that the caller has just proved who they are again: the session is fresh, under a new handle (ASVS 7.2.4).

    Raises:
        SessionInvalid: If there is no session.
        CSRFFailed: If the request comes from another site.
        ConfigError: If the response's headers have left already.
        StoreUnavailable: If nothing could be written.
    """
    state, cookie_name = changeable()
    with state.answering_503():
        resolved = resolve()
        own = own_handle(resolved)
        if own is None:
            raise to_raise(current_app, SessionInvalid())
        jam = state.jam
        handle = jam.sessions.rework(own, authenticated_at=jam.clock(), fresh=True)
        identity = jam.sessions.verify(handle)
        age = _goes_on(state, handle)

    def change(response: Response) -> None:
        set_cookie(state, response, cookie_name, handle, max_age=age)

    state.remember(request, identity, change, handle, resolved.user)


# -- a person's logins --------------------------------------------------------------------------------------


def list_logins() -> Sequence[Login]:
    """The caller's logins: device, address, last seen; their own one is marked.

    Raises:
        AuthenticationRequired, CSRFFailed: As an ``HTTPException``, if nobody is calling, or another site's page.
        StoreUnavailable: If nobody can tell.
    """
    state = prepared_state()
    with state.answering_503():
        resolved = resolve()
        own = resolved.handle or resolved.credential if resolved.identity.method == "session" else None
        return state.jam.logins.list(_caller(resolved), handle=own)


def end_login(login_id: str) -> bool:
    """End one of the caller's logins by its public name; ``False`` if it is not theirs.

    Raises:
        AuthenticationRequired, CSRFFailed: As an ``HTTPException``, if nobody is calling, or another site's page.
        StoreUnavailable: If it could not be ended.
    """
    state = prepared_state()
    with state.answering_503():
        return state.jam.logins.end(_caller(resolve()), login_id)


def end_other_logins() -> None:
    """End every login of the caller's but this one, which goes on under a new handle; after a password change, say.

    Raises:
        SessionInvalid: If the caller has no session.
        CSRFFailed: If the request comes from another site.
        ConfigError: If the response's headers have left already.
        StoreUnavailable: As an ``HTTPException``, if it could not be done.
    """
    state, cookie_name = changeable()
    with state.answering_503():
        resolved = resolve()
        own = own_handle(resolved)
        if own is None:
            raise to_raise(current_app, SessionInvalid())
        handle, token = state.jam.logins.end_others(own)
    continue_login(state, cookie_name, handle, token)


def continue_login(state: JamState, cookie_name: str, handle: str, token: str | None) -> None:
    """Have the caller's login go on under a new handle.

    Args:
        state: The app's state.
        cookie_name: That of the session's cookie.
        handle: The new handle.
        token: The first token of a new family, if the browser is remembered.
    """
    with state.answering_503():
        user = resolve().user
        identity = state.jam.sessions.verify(handle)
        age = _goes_on(state, handle)
    state.remember(request, identity, _cookies(state, request, cookie_name, handle, token, age=age), handle, user)


def own_handle(resolved: Resolved) -> str | None:
    """The handle of the caller's session, if a session is what proves them."""
    if resolved.identity.method != "session":
        return None
    if resolved.location == "headers" and resolved.handle is None:
        raise ConfigError(
            "The caller's session came in a header, where no new handle can be set.",
            hint="Use jam.sessions.rework(handle, ...) or jam.logins.end_others(handle), and send the handle back.",
        )
    return resolved.handle or resolved.credential


def _goes_on(state: JamState, handle: str) -> int | None:
    """Have ``flask.session`` go on under a new handle; for how many seconds the cookie lasts, if it says so."""
    if not state.keeps_flask_session:
        return None
    kept = session._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - werkzeug's own API
    if isinstance(kept, JamSession) and kept.opened:
        kept.moves_to(handle)
        return kept.cookie_age
    opened = state.open_session(request, handle)
    return None if opened is None else cookie_age(state, permanent=is_permanent(opened[1].values))


def _caller(resolved: Resolved) -> str:
    if resolved.identity.subject is None:
        forged = resolved.error if isinstance(resolved.error, CSRFFailed) else None
        raise to_raise(current_app, forged or AuthenticationRequired())
    return resolved.identity.subject
