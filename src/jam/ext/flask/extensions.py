"""The extensions: where this app looks for credentials.

All of an app's extensions share one ``Jam``. Header carriers are tried before cookies, each kind in the order of
set-up; an invalid credential never hides a valid one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from flask import Flask, Response, current_app, request

from jam.errors import (
    AuthenticationRequired,
    ClaimsRefused,
    ConfigError,
    FreshnessRequired,
    InvalidRequest,
    JamError,
    StoreUnavailable,
    TokenExpired,
    TokenInvalid,
    TokenRevoked,
    UserUnknown,
)
from jam.ext.flask.callbacks import call
from jam.ext.flask.carriers import CookieCarrier, HeaderCarrier
from jam.ext.flask.cli import jam_cli
from jam.ext.flask.cookies import set_cookie
from jam.ext.flask.negotiation import handle_jam_error, to_raise
from jam.ext.flask.request import STATE, Callbacks, JamState, globals_class, state_of
from jam.ext.flask.response import have_the_last_word
from jam.ext.flask.tokens import refused_token
from jam.ext.flask.users import current_user, vet
from jam.identity import Identity
from jam.jam import Jam

__all__ = ["JWTExtension", "JamExtension", "SessionExtension"]

F = TypeVar("F", bound=Callable[..., Any])
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)


class JamExtension:
    """Makes the ``Jam`` available as ``current_app.extensions["jam"]``; looks for no credential itself.

    Args:
        jam: The ``Jam``.
        app: The app to set up now; or call ``init_app`` later, on as many apps as wanted.
    """

    method: ClassVar[str] = ""

    def __init__(self, jam: Jam, app: Flask | None = None) -> None:
        self.jam = jam
        self.callbacks = Callbacks(self.method)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Set up the app. Its configuration is read later, when first needed.

        Raises:
            ConfigError: If the app has another ``Jam`` already.
        """
        self._attach(app)

    def _attach(self, app: Flask) -> JamState:
        state = _attach(app, self.jam)
        if self.callbacks not in state.callbacks:
            state.callbacks.append(self.callbacks)
        return state

    # -- the app's own functions, sync or async; see docs/users.md --

    def user_loader(self, function: F) -> F:
        """``function(subject) -> user or None``: the app's user behind a credential, for ``current_user``.

        From then on a credential whose user is gone, or whose ``is_active`` is false, counts no more.
        """
        self.callbacks.register("user_loader", function)
        return function

    def get_user_roles(self, function: F) -> F:
        """``function(user) -> names``: the user's roles, asked for anew in every request that looks for its user."""
        self.callbacks.register("get_user_roles", function)
        return function


class _CredentialExtension(JamExtension):
    """Looks for one kind of credential in a header, a cookie or both."""

    def __init__(self, jam: Jam, app: Flask | None, header_name: str | None, cookie_name: str | None) -> None:
        if not header_name and not cookie_name:
            raise ConfigError("The extension looks nowhere.", hint="Give it a header_name or a cookie_name.")
        for name in (header_name, cookie_name):
            if name and not _TOKEN.fullmatch(name):
                raise ConfigError(f"{name!r} cannot be the name of a header or cookie (RFC 9110 5.6.2).")
        self.header_name = header_name
        self.cookie_name = cookie_name
        super().__init__(jam, app)

    def init_app(self, app: Flask) -> None:
        """Set up the app. Its configuration is read later, when first needed.

        Raises:
            ConfigError: If the app has another ``Jam`` already.
        """
        state = self._attach(app)
        if self.header_name:
            state.carry(HeaderCarrier, self.header_name, self.method)
        if self.cookie_name:
            state.carry(CookieCarrier, self.cookie_name, self.method)


class JWTExtension(_CredentialExtension):
    """Looks for an access token.

    Args:
        jam: The ``Jam``.
        app: The app to set up now, if any.
        header_name: A header of the form ``Bearer <token>``, or ``None`` not to look in one.
        cookie_name: A cookie, or ``None`` not to look in one.

    Raises:
        ConfigError: If both are ``None``.
    """

    method = "jwt"

    def __init__(
        self,
        jam: Jam,
        app: Flask | None = None,
        header_name: str | None = "Authorization",
        cookie_name: str | None = None,
    ) -> None:
        super().__init__(jam, app, header_name, cookie_name)
        self.callbacks.answer = self._answer

    # -- about people --

    def user_identity_loader(self, function: F) -> F:
        """``function(identity) -> subject``: what ``create_access_token`` was given, as a string."""
        self.callbacks.register("user_identity_loader", function)
        return function

    def user_lookup_loader(self, function: F) -> F:
        """``function(header, payload) -> user or None``: as ``user_loader``, for tokens."""
        self.callbacks.register("user_lookup_loader", function)
        return function

    # -- about tokens --

    def additional_claims_loader(self, function: F) -> F:
        """``function(identity) -> dict``: more claims for a token whose maker names none."""
        self.callbacks.register("additional_claims_loader", function)
        return function

    def additional_headers_loader(self, function: F) -> F:
        """``function(identity) -> dict``: more JOSE headers for a token whose maker names none."""
        self.callbacks.register("additional_headers_loader", function)
        return function

    def token_in_blocklist_loader(self, function: F) -> F:
        """``function(header, payload) -> bool``: whether the app's own list has the token; Jam keeps one already."""
        self.callbacks.register("token_in_blocklist_loader", function)
        return function

    def token_verification_loader(self, function: F) -> F:
        """``function(header, payload) -> bool``: whether a token that is good otherwise is to count."""
        self.callbacks.register("token_verification_loader", function)
        return function

    # -- about refusals --

    def unauthorized_loader(self, function: F) -> F:
        """``function(message) -> response``: the answer where a token is demanded and none came."""
        self.callbacks.register("unauthorized_loader", function)
        return function

    def invalid_token_loader(self, function: F) -> F:
        """``function(message) -> response``: the answer to a token that is not good."""
        self.callbacks.register("invalid_token_loader", function)
        return function

    def expired_token_loader(self, function: F) -> F:
        """``function(header, payload) -> response``: the answer to a token that was good once."""
        self.callbacks.register("expired_token_loader", function)
        return function

    def revoked_token_loader(self, function: F) -> F:
        """``function(header, payload) -> response``: the answer to a token that was revoked, or used twice."""
        self.callbacks.register("revoked_token_loader", function)
        return function

    def needs_fresh_token_loader(self, function: F) -> F:
        """``function(header, payload) -> response``: the answer to a token that is not fresh where that is demanded."""
        self.callbacks.register("needs_fresh_token_loader", function)
        return function

    def token_verification_failed_loader(self, function: F) -> F:
        """``function(header, payload) -> response``: the answer where ``token_verification_loader`` said no."""
        self.callbacks.register("token_verification_failed_loader", function)
        return function

    def user_lookup_error_loader(self, function: F) -> F:
        """``function(header, payload) -> response``: the answer to a good token whose user is gone."""
        self.callbacks.register("user_lookup_error_loader", function)
        return function

    def _answer(self, error: JamError) -> Any:
        """The app's own answer to a refusal, or ``None`` for Jam's."""
        for kinds, name in _ANSWERS:
            if isinstance(error, kinds):
                function = self.callbacks.get(name)
                if function is None:
                    return None
                if name in ("unauthorized_loader", "invalid_token_loader"):
                    return call(function, error.message)
                return call(function, *refused_token(state_of(current_app), request))
        return None


class SessionExtension(_CredentialExtension):
    """Looks for a session's handle.

    Args:
        jam: The ``Jam``.
        app: The app to set up now, if any.
        header_name: A header of the form ``Bearer <handle>``, or ``None`` not to look in one.
        cookie_name: A cookie, or ``None`` not to look in one.

    Raises:
        ConfigError: If both are ``None``.
    """

    method = "session"

    def __init__(
        self,
        jam: Jam,
        app: Flask | None = None,
        header_name: str | None = None,
        cookie_name: str | None = "sessionId",
    ) -> None:
        super().__init__(jam, app, header_name, cookie_name)

    def sign_in(
        self,
        subject: str,
        data: Mapping[str, Any] | None = None,
        *,
        roles: Collection[str] = (),
        scopes: Collection[str] = (),
        amr: Sequence[str] = (),
        generation: int | None = None,
    ) -> Identity:
        """Start a session for the caller and set its cookie on this request's response.

        Always a new handle; a session the caller had before ends (ASVS 7.2.4). From here on
        ``current_identity`` is the new one.

        Args:
            subject: Who was just authenticated.
            data: What to keep in the session.
            roles: The roles it carries.
            scopes: The scopes it carries.
            amr: How the person signed in (RFC 8176).
            generation: As ``jam.sessions.generation(subject)`` gave it *before* the password was checked.

        Raises:
            CSRFFailed: If the request comes from another site: signing somebody in unasked is an attack too.
            ConfigError: If the extension has no cookie, or the response's headers have left already.
            StoreUnavailable: If the session could not be kept.
        """
        name, state = self._cookie()
        before = list(state.presented(request, name))
        try:
            handle = self.jam.sessions.create(subject, data, roles=roles, scopes=scopes, amr=amr, generation=generation)
            for old in before:
                self.jam.sessions.delete(old)
            identity = self.jam.sessions.verify(handle)
        except StoreUnavailable as error:
            state.note_unavailable(request, error)
            raise to_raise(current_app, error) from error
        state.remember(request, identity, self._cookie_setter(name, handle, None), handle)
        return identity

    def sign_out(self) -> None:
        """End the caller's session on the server and drop its cookie from the browser.

        Raises:
            CSRFFailed: If the request comes from another site.
            ConfigError: If the extension has no cookie, or the response's headers have left already; the session
                is still good.
            StoreUnavailable: If the session could not be ended; it is still good.
        """
        name, state = self._cookie()
        try:
            for handle in state.presented(request, name):
                self.jam.sessions.delete(handle)
        except StoreUnavailable as error:
            state.note_unavailable(request, error)
            raise to_raise(current_app, error) from error
        state.remember(request, None, self._cookie_setter(name, "", 0))

    def _cookie(self) -> tuple[str, JamState]:
        """The cookie's name and the app's state, if the cookie may be touched in this request."""
        app = current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - werkzeug's own API
        state = state_of(app)
        if self.cookie_name is None:
            raise ConfigError("This SessionExtension has no cookie.", hint="Use jam.sessions.create(...) for a header.")
        state.refuse_if_answered(request)
        forged = state.csrf_refusal(request)
        if forged is not None:
            raise to_raise(app, forged)
        return self.cookie_name, state

    def _cookie_setter(self, name: str, value: str, max_age: int | None) -> Callable[[Response], None]:
        state = state_of(current_app)

        def set_cookie_on(response: Response) -> None:
            set_cookie(state, response, name, value, max_age=max_age)
            if not value:  # what the pages showed and kept is nobody's any more (ASVS 14.3.1)
                response.headers["Clear-Site-Data"] = '"cache", "storage"'

        return set_cookie_on


# Which of the app's functions answers which refusal: the first that fits.
_ANSWERS: tuple[tuple[type[JamError], str], ...] = (
    (TokenExpired, "expired_token_loader"),
    (TokenRevoked, "revoked_token_loader"),
    (ClaimsRefused, "token_verification_failed_loader"),
    (UserUnknown, "user_lookup_error_loader"),
    (TokenInvalid, "invalid_token_loader"),
    (InvalidRequest, "invalid_token_loader"),
    (FreshnessRequired, "needs_fresh_token_loader"),
    (AuthenticationRequired, "unauthorized_loader"),
)


def _in_templates() -> dict[str, Any]:
    return {"current_user": current_user}


def _attach(app: Flask, jam: Jam) -> JamState:
    """The app's state, made and hooked in when first asked for.

    Raises:
        ConfigError: If the app has another ``Jam`` already.
    """
    known = app.extensions.get(STATE)
    if known is not None:
        if known.jam is not jam:
            raise ConfigError("This app has another Jam already.", hint="Give all its extensions the same one.")
        state: JamState = known
        return state
    state = JamState(app, jam)
    state.vet = vet
    app.extensions["jam"] = jam
    app.extensions[STATE] = state
    app.app_ctx_globals_class = globals_class(app.app_ctx_globals_class)
    app.error_handler_spec[None][None].setdefault(JamError, handle_jam_error)  # the app's own, if it has one, counts
    have_the_last_word(app, state)
    app.context_processor(_in_templates)
    if "jam" not in app.cli.commands:
        app.cli.add_command(jam_cli)
    return state
