"""The extensions: where this app looks for credentials.

All of an app's extensions share one ``Jam``. Header carriers are tried before cookies, each kind in the order of
set-up; an invalid credential never hides a valid one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from flask import Flask

from jam.errors import (
    ConfigError,
    JamError,
)
from jam.ext.flask.callbacks import Callbacks
from jam.ext.flask.carriers import CookieCarrier, HeaderCarrier
from jam.ext.flask.cli import jam_cli
from jam.ext.flask.negotiation import handle_jam_error
from jam.ext.flask.payload import globals_class
from jam.ext.flask.refresh_routes import refresh_path
from jam.ext.flask.request import STATE, JamState
from jam.ext.flask.response import have_the_last_word
from jam.ext.flask.users import current_user, vet
from jam.jam import Jam

__all__ = ["CredentialExtension", "JamExtension"]

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

    def get_user_scopes(self, function: F) -> F:
        """``function(user) -> names``: the scopes the user may have at most; a credential with others loses them."""
        self.callbacks.register("get_user_scopes", function)
        return function


class CredentialExtension(JamExtension):
    """Looks for one kind of credential in a header, a cookie or both."""

    def __init__(self, jam: Jam, app: Flask | None, header_name: str | None, cookie_name: str | None) -> None:
        if not header_name and not cookie_name:
            raise ConfigError("The extension looks nowhere.", hint="Give it a header_name or a cookie_name.")
        self.header_name = checked_name(header_name) if header_name else None
        self.cookie_name = checked_name(cookie_name) if cookie_name else None
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


def checked_name(name: str) -> str:
    """What a header or cookie can be called.

    Raises:
        ConfigError: If it is not that.
    """
    if not _TOKEN.fullmatch(name):
        raise ConfigError(f"{name!r} cannot be the name of a header or cookie (RFC 9110 5.6.2).")
    return name


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
    state.find_refresh_path = refresh_path
    app.extensions["jam"] = jam
    app.extensions[STATE] = state
    app.app_ctx_globals_class = globals_class(app.app_ctx_globals_class)
    app.error_handler_spec[None][None].setdefault(JamError, handle_jam_error)  # the app's own, if it has one, counts
    have_the_last_word(app, state)
    app.context_processor(_in_templates)
    if "jam" not in app.cli.commands:
        app.cli.add_command(jam_cli)
    return state
