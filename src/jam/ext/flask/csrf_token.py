"""The signed value for forms and scripts, where browsers or what is between do not say where a request comes from."""

from __future__ import annotations

import re
import secrets

from flask import Response, request

from jam.ext.flask.carriers import cookie_values
from jam.ext.flask.cookies import set_cookie
from jam.ext.flask.csrf import new_csrf_token
from jam.ext.flask.request import prepared_state, resolve
from jam.ext.flask.resolved import VETTING
from jam.identity import ANONYMOUS

__all__ = ["csrf_token"]

_BOUND_TO = "_jam_csrf_cookie"
_COOKIE = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


def csrf_token() -> str:
    """A value for a form's field ``csrf_token`` or the header ``X-CSRF-TOKEN``: a new one each time, all of them good.

    It belongs to the caller's cookie: to that of the session or token, or for somebody who has not signed in yet to
    one that is set for it, so that a sign-in can prove where it comes from, too.

    Raises:
        ConfigError: If there is no such cookie yet, and the response's headers have left already.
        StoreUnavailable: If nobody can tell who is calling.
    """
    state = prepared_state()
    resolved = resolve()
    in_cookie = resolved.location == "cookies" and resolved.identity is not ANONYMOUS
    credential = resolved.handle or (resolved.credential if in_cookie else None) or request.__dict__.get(_BOUND_TO)
    if credential is None:
        known = (
            value for value in cookie_values(request.environ, state.lookup.csrf_cookie) if _COOKIE.fullmatch(value)
        )
        credential = next(known, None)
        if credential is None:
            state.refuse_if_answered(request)
            credential = made = secrets.token_urlsafe(32)

            def change(response: Response) -> None:
                set_cookie(state, response, state.lookup.csrf_cookie, made)

            resolved.changes += (change,)
        if VETTING not in request.__dict__:  # what is changed while the app is asked about the caller is not kept
            request.__dict__[_BOUND_TO] = credential
    return new_csrf_token(state.csrf_keys(), credential)
