"""Checkpoints that look at Flask's request, and what a guard does when one fails or passes.

``SessionCheckpoint("logged_in", True).action(lazy_url_for("login_page"), message="Login required")``
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import partial
from typing import Any

from flask import current_app, flash, redirect, request, session, url_for
from flask.typing import ResponseReturnValue

from jam.checkpoints import Action, Checkpoint, Target, same_as_any
from jam.errors import APIKeyInvalid, AuthenticationRequired, ClaimRequired, ConfigError, CredentialsMixed, JamError
from jam.ext.flask.carriers import bearer_token, header_key
from jam.ext.flask.negotiation import quoted
from jam.ext.flask.request import state_of
from jam.identity import Identity

__all__ = [
    "APIKeyCheckpoint",
    "BearerCheckpoint",
    "FlaskCheckpoint",
    "SameOrigin",
    "SessionCheckpoint",
    "answer_failure",
    "answer_success",
    "lazy_url_for",
]


def lazy_url_for(
    endpoint: str,
    *,
    _anchor: str | None = None,
    _method: str | None = None,
    _scheme: str | None = None,
    _external: bool | None = None,
    **values: Any,
) -> Callable[[], str]:
    """``url_for``, called when the URL is needed: checkpoints are written where no app is there yet."""
    return partial(url_for, endpoint, _anchor=_anchor, _method=_method, _scheme=_scheme, _external=_external, **values)


def answer_failure(answer: Action) -> ResponseReturnValue | None:
    """The app's own answer to who failed, or ``None`` for the default."""
    if answer.fail_response is not None:
        response: ResponseReturnValue = current_app.ensure_sync(answer.fail_response)()
        return response
    if answer.fail_json is not None:
        return current_app.json.response(dict(answer.fail_json)), answer.fail_status
    target = _url(answer.fail_url, answer.fail_endpoint)
    if target is None:
        return None
    _flash(answer)
    return redirect(target)


def answer_success(answer: Action) -> ResponseReturnValue | None:
    """Where who passed is sent, or ``None`` to let them in; the message is a failure's if that has a target."""
    target = None if answer.fail_json is not None else _url(answer.pass_url, answer.pass_endpoint)
    if target is None:
        return None
    if answer.fail_url is None and answer.fail_endpoint is None:
        _flash(answer)
    return redirect(target)


def _url(target: Target | None, endpoint: str | None) -> str | None:
    if endpoint is not None:
        return url_for(endpoint)
    return target if target is None or isinstance(target, str) else str(target())


def _flash(answer: Action) -> None:
    if answer.message is not None:
        flash(answer.message, answer.message_category)


class FlaskCheckpoint(Checkpoint):
    """A checkpoint that looks at the request; derive your own from it."""

    def protects(self) -> bool:
        return True


class SessionCheckpoint(FlaskCheckpoint):
    """``flask.session[session_key]`` is one of ``values_allowed``. ``1`` is not ``True``.

    Args:
        session_key: The key.
        values_allowed: A value or a list of them.
    """

    def __init__(self, session_key: str, values_allowed: list[str | int | bool] | str | int | bool) -> None:
        if not isinstance(session_key, str) or not session_key:
            raise ConfigError("SessionCheckpoint needs the name of a session key.")
        values = values_allowed if isinstance(values_allowed, (list, tuple, set, frozenset)) else [values_allowed]
        if not values:
            raise ConfigError("SessionCheckpoint needs the values it allows.")
        self.session_key = session_key
        self.values_allowed = tuple(values)

    def refusal(self, identity: Identity, now: float) -> JamError | None:  # noqa: ARG002
        state = state_of(current_app)
        forged = state.csrf_refusal(request)
        if forged is not None:  # the session came in a cookie, so it is not opened
            return forged
        owner = session.belongs_to() if state.keeps_flask_session else None  # type: ignore[attr-defined]
        if owner and identity.subject not in (None, owner):
            return CredentialsMixed()
        if self.session_key in session and same_as_any(session[self.session_key], self.values_allowed):
            return None
        return ClaimRequired("The session does not allow this.")

    def __repr__(self) -> str:
        return f"SessionCheckpoint({self.session_key!r}, {', '.join(map(repr, self.values_allowed))})"


class APIKeyCheckpoint(FlaskCheckpoint):
    """The request carries this API key.

    Args:
        key: The key, compared in constant time.
        type_: ``"header"``, or ``"query_param"``, which puts the key into logs and histories.
        header_or_param: The header's or parameter's name.
    """

    def __init__(self, key: str, type_: str = "header", header_or_param: str = "x-api-key") -> None:
        if type_ not in ("header", "query_param"):
            raise ConfigError("APIKeyCheckpoint's type_ is 'header' or 'query_param'.")
        self._key = _checked_key(key)
        self.type_ = type_
        self.header_or_param = header_or_param
        self._environ_key = header_key(header_or_param)
        self.challenge = f"APIKey realm={{realm}}, {type_.replace('_', '-')}={quoted(header_or_param)}"

    def refusal(self, identity: Identity, now: float) -> JamError | None:  # noqa: ARG002
        if self.type_ == "header":
            presented = _header_bytes(request.environ.get(self._environ_key, ""))
        else:
            given = request.args.getlist(self.header_or_param)
            presented = given[0].encode("utf-8", "surrogateescape") if len(given) == 1 else b""
        if hmac.compare_digest(presented, self._key):
            return None
        return APIKeyInvalid() if presented else AuthenticationRequired()

    def __repr__(self) -> str:
        return f"APIKeyCheckpoint({self.type_} {self.header_or_param!r})"


class BearerCheckpoint(FlaskCheckpoint):
    """The request carries this one token: ``Authorization: Bearer <token>``.

    Args:
        token: The token, compared in constant time.
    """

    challenge = "Bearer realm={realm}"

    def __init__(self, token: str) -> None:
        self._token = _checked_key(token)

    def refusal(self, identity: Identity, now: float) -> JamError | None:  # noqa: ARG002
        presented = bearer_token(request.environ.get("HTTP_AUTHORIZATION"))
        if presented is None:
            return AuthenticationRequired()
        if hmac.compare_digest(_header_bytes(presented), self._token):
            return None
        return APIKeyInvalid("The bearer token is not valid.")

    def __repr__(self) -> str:
        return "BearerCheckpoint()"


class SameOrigin(FlaskCheckpoint):
    """The request comes from this site's own pages: for sign-in forms and other views without a session yet."""

    judges_caller = False

    def protects(self) -> bool:
        return False

    def refusal(self, identity: Identity, now: float) -> JamError | None:  # noqa: ARG002
        return state_of(current_app).csrf_refusal(request)

    def __repr__(self) -> str:
        return "SameOrigin()"


def _checked_key(key: str) -> bytes:
    if not isinstance(key, str) or not key:
        raise ConfigError("A checkpoint's key is a non-empty string.")
    return key.encode()


def _header_bytes(value: str) -> bytes:
    """The bytes the client sent: WSGI hands them over as latin-1."""
    return value.encode("latin-1", "replace")
