"""The way to the sign-in: who is nobody and looks for a page is sent there, and everybody else gets the 401."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote_plus, urlsplit

from flask import Request, flash, redirect, request, session

from jam.errors import AuthenticationRequired, CredentialError, FreshnessRequired, JamError
from jam.ext.flask.callbacks import call
from jam.ext.flask.explain import is_credential
from jam.ext.flask.next_url import login_url
from jam.ext.flask.request import prepared_state
from jam.ext.flask.session import flask_session_works

__all__ = ["answer_unauthorized", "wants_a_page"]

_IN_A_PATH = "/:@!$&'()*+,;=~"  # RFC 3986 3.3
_IN_A_QUERY = _IN_A_PATH + "?%"


def answer_unauthorized(extension: Any, error: JamError) -> Any:
    """The app's own answer to a caller who is nobody, or not fresh; ``None`` for Jam's.

    A browser that is looking for a page is sent to where it can sign in, with a way back; everybody else gets the 401.
    """
    stale = isinstance(error, FreshnessRequired)
    if not stale and not isinstance(error, (AuthenticationRequired, CredentialError)):
        return None
    handler = extension.callbacks.get("needs_refresh_handler" if stale else "unauthorized_handler")
    if handler is not None:
        return call(handler)
    view = extension.refresh_view if stale else _login_view(extension)
    if view is None or not wants_a_page(request):
        return None
    if (
        urlsplit(login_url(view)).path == request.script_root + request.path
    ):  # it is shut itself: no way round in circles
        return None
    if stale:
        message, category = extension.needs_refresh_message, extension.needs_refresh_message_category
    else:
        message, category = extension.login_message, extension.login_message_category
    if message and flask_session_works():
        flash(message if extension.localize_callback is None else call(extension.localize_callback, message), category)
    here = _here(request)
    if prepared_state().lookup.login.session_for_next:
        session["next"] = here
        return redirect(login_url(view))
    return redirect(login_url(view, here))


def _here(request: Request) -> str:
    """The path and query of a request, as they stand in a URL."""
    path = quote(request.script_root + request.path, safe=_IN_A_PATH)
    query = quote("&".join(_without_credentials(request)), safe=_IN_A_QUERY)
    return f"{path}?{query}" if query else path


def _without_credentials(request: Request) -> Iterator[str]:
    """The pairs of the query string, but for what may let somebody in: the way back is seen, kept and logged."""
    tokens = prepared_state().lookup.tokens
    for pair in request.query_string.decode("latin-1").split("&"):
        name, _, value = pair.partition("=")
        held = unquote_plus(value or name).removeprefix(tokens.query_string_value_prefix)
        if unquote_plus(name) != tokens.query_string_name and not is_credential(held):
            yield pair


def _login_view(extension: Any) -> str | None:
    for name in request.blueprints:
        for known in (name, name.rpartition(".")[2]):  # nested ones are registered under a longer name
            if known in extension.blueprint_login_views:
                found: str | None = extension.blueprint_login_views[known]
                return found
    view: str | None = extension.login_view
    return view


def wants_a_page(request: Request) -> bool:
    """Whether a person is looking at what is answered: not a script, a ``fetch``, or a client of an API."""
    environ = request.environ
    mode = environ.get("HTTP_SEC_FETCH_MODE")
    if mode is not None:
        return bool(mode == "navigate")
    if environ.get("HTTP_X_REQUESTED_WITH", "").lower() == "xmlhttprequest" or "HTTP_AUTHORIZATION" in environ:
        return False
    if request.mimetype == "application/json":
        return False
    if "HTTP_ACCEPT" not in environ:
        return True
    accepted = request.accept_mimetypes
    return bool(accepted["text/html"] > accepted["application/json"])
