"""How a refusal looks to the client: JSON, problem+json or a page, as ``Accept`` asks; ties go to JSON.

Towards Flask every error is an ``HTTPException``, so that an app's, a blueprint's or an API library's own
error handlers see it. Where there are none, a ready response is answered instead: raising costs ten times as much.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from flask import Flask, Request, Response, current_app, request
from markupsafe import escape
from werkzeug import exceptions
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException

from jam.crypto.encoding import json_encode
from jam.errors import (
    BadCredentials,
    ConfigError,
    CredentialError,
    CSRFFailed,
    FreshnessRequired,
    JamError,
    OneTimeTokenInvalid,
    ScopeRequired,
    SignInIncomplete,
    StoreUnavailable,
    TooManyAttempts,
)

__all__ = ["HTTPError", "as_http", "error_response", "handle_jam_error", "to_raise"]

_JSON, _PROBLEM, _HTML = "application/json", "application/problem+json", "text/html"
_VARY = "Accept, Authorization, Cookie"
_VARY_FORGED = f"{_VARY}, Sec-Fetch-Site, Origin"
_REASONS = {status.value: status.phrase for status in HTTPStatus}


class HTTPError(HTTPException):
    """A ``JamError`` on its way through Flask.

    Attributes:
        error: The error itself, with its stable ``code``.
        challenges: What goes into ``WWW-Authenticate`` if the status is 401.
        data: The JSON body, for API libraries that make their own response of it.
    """

    def __init__(self, error: JamError, status: int | None = None, challenges: Sequence[str] = ()) -> None:
        super().__init__(error.message)
        self.error = error
        self.code = error.status if status is None else status
        self.challenges = challenges
        self.data = body_of(error, self.code)

    def get_response(self, environ: Any = None, scope: Any = None) -> Response:  # noqa: ARG002
        """The negotiated response."""
        return error_response(self.error, self.code, self.challenges)

    def get_body(self, environ: Any = None, scope: Any = None) -> str:  # noqa: ARG002
        """The negotiated body."""
        return self.get_response().get_data(as_text=True)


def _class_for(status: int) -> type[HTTPError]:
    """``HTTPError`` as a subclass of Werkzeug's class for the status, so that handlers for either match."""
    base = exceptions.default_exceptions.get(status)
    bases = (HTTPError,) if base is None else (HTTPError, base)
    return type(f"HTTPError{status}", bases, {"code": status})


_CLASSES: dict[int, type[HTTPError]] = {}


def as_http(error: JamError, status: int | None = None, challenges: Sequence[str] = ()) -> HTTPError:
    """The error as the exception Flask knows what to do with."""
    code = error.status if status is None else status
    if code not in _CLASSES:
        _CLASSES[code] = _class_for(code)
    return _CLASSES[code](error, code, challenges)


def to_raise(
    app: Flask, error: JamError, status: int | None = None, challenges: Sequence[str] = ()
) -> JamError | HTTPError:
    """What to raise in a request: the error itself if the app has a handler for its very class, else as HTTP."""
    view = app.view_functions.get(request.endpoint or "")
    if is_api_resource(getattr(view, "view_class", None)):
        return as_http(error, status, challenges)  # the library makes 500 of any other exception
    for scope in (*request.blueprints, None):
        handlers = app.error_handler_spec[scope][None]
        for error_class in type(error).__mro__:
            if (
                issubclass(error_class, JamError)
                and handlers.get(error_class, handle_jam_error) is not handle_jam_error
            ):
                return error
    return as_http(error, status, challenges)


def handle_jam_error(error: JamError) -> Any:
    """The error handler for ``JamError``: what Flask makes of the same error as an ``HTTPException``.

    A ``ConfigError`` is the developer's: it is raised on, so that it is logged, and seen in debug and tests.
    """
    if isinstance(error, ConfigError):
        raise error
    state = current_app.extensions["jam.flask"]
    try:
        if not isinstance(error, StoreUnavailable):
            state.prepare()
    except StoreUnavailable as unavailable:
        error = unavailable
    if isinstance(error, StoreUnavailable):
        state.note_unavailable(request, error)
    return current_app.handle_http_exception(as_http(error, None, state.challenges))


def is_api_resource(view_class: Any) -> bool:
    """Whether a view class is one of flask-restful or flask-restx, which handle errors themselves."""
    bases = [getattr(sys.modules.get(library), "Resource", None) for library in ("flask_restful", "flask_restx")]
    return isinstance(view_class, type) and any(base is not None and issubclass(view_class, base) for base in bases)


def has_handlers(app: Flask) -> bool:
    """Whether somebody but Jam wants to see errors: a registered handler, or a library that took over."""
    if "handle_user_exception" in app.__dict__ or type(app).handle_user_exception is not Flask.handle_user_exception:
        return True
    for by_code in app.error_handler_spec.values():
        for by_class in by_code.values():
            for handler in by_class.values():
                if handler is not handle_jam_error:
                    return True
    return False


def body_of(error: JamError, status: int) -> dict[str, Any]:
    """The JSON body: ``error``, ``message`` and ``code``, and what else the error has to tell."""
    return {
        "error": _REASONS.get(status, "Error"), "message": error.message, "code": error.code, **error.details()
    }  # fmt: skip


def error_response(error: JamError, status: int | None = None, challenges: Sequence[str] = ()) -> Response:
    """The response for an error in the current request."""
    code = error.status if status is None else status
    reasons: tuple[str, ...] = ()
    if code == HTTPStatus.UNAUTHORIZED:
        reasons = tuple([with_reason(challenge, error) for challenge in challenges])
    elif isinstance(error, ScopeRequired):  # a missing scope is told to who has a token (RFC 6750 3)
        reasons = tuple([with_reason(challenge, error) for challenge in challenges if challenge.startswith("Bearer")])
    forged = isinstance(error, CSRFFailed)
    kind = preferred_type(request)
    details = error.details()
    render = _rendered.__wrapped__ if details or isinstance(error, TooManyAttempts) else _rendered
    body, line, pairs = render(kind, code, str(error.message), error.code, reasons, error.retry_after, forged)
    if details and kind != _HTML:  # never kept: there may be a token among them
        body = body[:-1] + b"," + json_encode(dict(details))[1:]
        pairs = tuple((name, str(len(body)) if name == "Content-Length" else value) for name, value in pairs)
    headers = Headers()
    headers._list = list(pairs)  # noqa: SLF001 - adding them one by one costs more than all the rest
    return Response([body], line, headers)


@functools.lru_cache(maxsize=256)
def _rendered(  # noqa: PLR0917 - what the response depends on, all of it
    kind: str,
    status: int,
    message: str,
    code: str,
    challenges: tuple[str, ...],
    retry_after: int | None,
    forged: bool,
) -> tuple[bytes, str, tuple[tuple[str, str], ...]]:
    """Body, status line and headers: the same few errors are answered again and again."""
    reason = _REASONS.get(status, "Error")
    if kind == _JSON:
        body = json_encode({"error": reason, "message": message, "code": code})
    elif kind == _PROBLEM:  # RFC 9457; about:blank because the code says the rest
        body = json_encode({"type": "about:blank", "title": reason, "status": status, "detail": message, "code": code})
    else:
        body = _page(status, message, code).encode()
    pairs = [
        ("Content-Type", "text/html; charset=utf-8" if kind == _HTML else kind),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        ("Vary", _VARY_FORGED if forged else _VARY),
        *(("WWW-Authenticate", challenge) for challenge in challenges),
    ]
    if retry_after is not None:
        pairs.append(("Retry-After", str(retry_after)))
    return body, f"{status} {reason.upper()}", tuple(pairs)


def preferred_type(request: Request) -> str:
    """``application/json``, ``application/problem+json`` or ``text/html``; in doubt the first."""
    accept = request.environ.get("HTTP_ACCEPT")
    if not accept or accept in ("*/*", _JSON):
        return _JSON
    accepted = request.accept_mimetypes
    json, problem, html = accepted[_JSON], accepted[_PROBLEM], accepted[_HTML]
    if _PROBLEM in accept.lower() and problem > json and problem >= html:  # asked for by name, not by a wildcard
        return _PROBLEM
    return _HTML if html > json else _JSON


@functools.lru_cache(maxsize=256)
def quoted(text: str) -> str:
    """A quoted-string (RFC 9110 5.6.4) of the characters a header may hold."""
    safe = "".join(character if " " <= character <= "~" else "?" for character in text)
    return '"' + safe.replace("\\", "\\\\").replace('"', '\\"') + '"'


def with_reason(challenge: str, error: JamError) -> str:
    """A Bearer challenge says why (RFC 6750 3, RFC 9470 3); no reason where no credential came."""
    if not challenge.startswith("Bearer"):
        return challenge
    if isinstance(error, FreshnessRequired):
        max_age = "" if error.max_age is None else f", max_age={int(error.max_age)}"
        return f'{challenge}, error="insufficient_user_authentication"{max_age}'
    if isinstance(error, ScopeRequired):
        return f'{challenge}, error="insufficient_scope", scope={quoted(error.scopes)}'
    if isinstance(error, CredentialError) and not isinstance(error, _NO_TOKENS):
        return f'{challenge}, error="invalid_token", error_description={quoted(error.message)}'
    return challenge


_NO_TOKENS = (BadCredentials, OneTimeTokenInvalid, SignInIncomplete)  # what they are about came in a body
_PAGE_BEGINS = "<!doctype html>\n<!-- Jam -->\n"


def is_error_page(page: str) -> bool:
    """Whether a page is one of Jam's own."""
    return page.startswith(_PAGE_BEGINS)


def explanation_section(explanation: Any) -> str:
    """What a developer sees below an error page in debug mode.

    Args:
        explanation: An ``Explanation``.
    """
    rows = [("Request", explanation.request_id), ("Caller", explanation.caller)]
    rows += [("Looked in", " · ".join(filter(None, (one.place, one.held, one.outcome)))) for one in explanation.looked]
    rows += [
        ("Asked", f"{step.checkpoint} {'passed' if step.allowed else 'refused: ' + step.reason}")
        for step in explanation.checkpoints
    ]
    rows += [("Decided by", explanation.setting), ("What to do", explanation.advice)]
    cells = "".join(
        f"<tr><th align=left>{escape(name)}</th><td>{escape(text)}</td></tr>\n" for name, text in rows if text
    )
    return f"<h2>Why</h2>\n<p>You see this because the app runs in debug mode.</p>\n<table>\n{cells}</table>\n"


def _page(status: int, message: str, code: str) -> str:
    title = f"{status} {_REASONS.get(status, 'Error')}"
    return (
        f'{_PAGE_BEGINS}<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{title}</title>\n'
        f"<h1>{title}</h1>\n<p>{escape(message)}</p>\n<p><small>{escape(code)}</small></p>\n"
    )
