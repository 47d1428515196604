"""Where this app looks for sessions; who signs in and out by it; and where people are sent to sign in."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from flask import Blueprint, Flask

from jam.errors import ConfigError
from jam.ext.flask.extensions import CredentialExtension, F
from jam.ext.flask.login import finish_login, logout_user, refuse_forged, restore, start_login
from jam.ext.flask.login_view import answer_unauthorized
from jam.ext.flask.request import JamState, prepared_state, state_of
from jam.ext.flask.session import JamSessionInterface, close_unjudged
from jam.ext.flask.users import AnonymousUserMixin
from jam.identity import Identity
from jam.jam import Jam

__all__ = ["SessionExtension"]


class SessionExtension(CredentialExtension):
    """Looks for a session's handle.

    Args:
        jam: The ``Jam``.
        app: The app to set up now, if any.
        header_name: A header of the form ``Bearer <handle>``, or ``None`` not to look in one.
        cookie_name: A cookie, or ``None`` not to look in one.
        flask_session: Keep ``flask.session`` in the same session, on the server; see ``docs/flask_session.md``.

    Attributes:
        login_view: The endpoint or URL where people sign in: who looks for a page and is nobody is sent there.
        blueprint_login_views: Others, by the name of a blueprint.
        login_message: What is flashed then; ``None`` for nothing.
        login_message_category: Its category.
        refresh_view: Where people prove again who they are.
        needs_refresh_message: What is flashed then; ``None`` for nothing.
        needs_refresh_message_category: Its category.
        localize_callback: Translates the messages.

    Raises:
        ConfigError: If both names are ``None``.
    """

    method = "session"

    def __init__(
        self,
        jam: Jam,
        app: Flask | None = None,
        header_name: str | None = None,
        cookie_name: str | None = "sessionId",
        *,
        flask_session: bool = False,
    ) -> None:
        if flask_session and not cookie_name:
            raise ConfigError("flask.session needs a cookie.", hint="Give SessionExtension a cookie_name.")
        self.flask_session = flask_session
        self.login_view: str | None = None
        self.blueprint_login_views: dict[str, str] = {}
        self.login_message: str | None = "Please log in to access this page."
        self.login_message_category = "message"
        self.refresh_view: str | None = None
        self.needs_refresh_message: str | None = "Please reauthenticate to access this page."
        self.needs_refresh_message_category = "message"
        self.localize_callback: Callable[[str], str] | None = None
        super().__init__(jam, app, header_name, cookie_name)
        self.callbacks.answer = partial(answer_unauthorized, self)

    def init_app(self, app: Flask) -> None:
        """Set up the app. Its configuration is read later, when first needed.

        Raises:
            ConfigError: If the app has another ``Jam`` already.
        """
        super().init_app(app)
        if self.cookie_name:
            state = state_of(app)
            state.lookup.session_cookie = state.lookup.session_cookie or self.cookie_name
            state.restore = restore
        if self.flask_session:
            state.keeps_flask_session = True
            state.lookup.session_cookie = self.cookie_name
            state.sign_out = logout_user
            state.after_vetting = close_unjudged
            app.session_interface = JamSessionInterface()

    @property
    def anonymous_user(self) -> Callable[[], Any]:
        """What makes the user of an anonymous request."""
        return self.callbacks.get("anonymous_user") or AnonymousUserMixin

    @anonymous_user.setter
    def anonymous_user(self, make: Callable[[], Any]) -> None:
        self.callbacks.register("anonymous_user", make)

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
        state, name = self._cookie()
        return start_login(
            state, name, subject, data=data, roles=roles, scopes=scopes, amr=amr, generation=generation, fresh=True
        )

    def sign_out(self) -> None:
        """End the caller's session on the server and drop its cookie from the browser.

        Raises:
            CSRFFailed: If the request comes from another site.
            ConfigError: If the extension has no cookie, or the response's headers have left already; the session
                is still good.
            StoreUnavailable: If the session could not be ended; it is still good.
        """
        state, name = self._cookie(signing_out=True)
        finish_login(state, name)

    def _cookie(self, *, signing_out: bool = False) -> tuple[JamState, str]:
        """The app's state and the cookie's name, if the cookie may be touched in this request."""
        state = prepared_state()
        if self.cookie_name is None:
            raise ConfigError("This SessionExtension has no cookie.", hint="Use jam.sessions.create(...) for a header.")
        refuse_forged(state, signing_out=signing_out)
        return state, self.cookie_name

    # -- the app's own answers, by the names of Flask-Login; see docs/logins.md --

    def unauthorized_handler(self, function: F) -> F:
        """``function() -> response``: the answer to a caller who is nobody, instead of the way to ``login_view``."""
        self.callbacks.register("unauthorized_handler", function)
        return function

    def needs_refresh_handler(self, function: F) -> F:
        """``function() -> response``: the answer to a caller who is not fresh where that is demanded."""
        self.callbacks.register("needs_refresh_handler", function)
        return function

    def set_login_view(self, login_view: str, blueprint: Blueprint | None = None) -> None:
        """Say where to sign in: everywhere, or in one blueprint."""
        if blueprint is None:
            self.login_view = login_view
        else:
            self.blueprint_login_views = {**self.blueprint_login_views, blueprint.name: login_view}
