"""Tokens in cookies: set, and dropped. The names are those of Flask-JWT-Extended.

Scripts cannot read them; other sites cannot have them used (see ``csrf``). A refresh token's cookie goes only to the
routes that ask for one.
"""

from __future__ import annotations

from typing import Any

from flask import Response, request

from jam.credentials.refresh_tokens import is_refresh_token
from jam.errors import ConfigError, InvalidValue
from jam.ext.flask.cookies import drop_cookie, set_cookie
from jam.ext.flask.request import JamState, prepared_state
from jam.ext.flask.tokens import claims_of, get_csrf_token

__all__ = [
    "set_access_cookies",
    "set_refresh_cookies",
    "unset_access_cookies",
    "unset_jwt_cookies",
    "unset_refresh_cookies",
]


def set_access_cookies(
    response: Response, encoded_access_token: str, max_age: int | None = None, domain: str | None = None
) -> None:
    """Have the browser keep an access token.

    Args:
        response: The response.
        encoded_access_token: The token.
        max_age: For how many seconds; as ``JWT_SESSION_COOKIE`` says if left out.
        domain: For which domain; ``JWT_COOKIE_DOMAIN`` if left out.

    Raises:
        ConfigError: If the app does not look for tokens in cookies.
        TokenInvalid: If it is no token of this app's.
        InvalidValue: If it is longer than browsers keep.
    """
    _set(response, "access", encoded_access_token, max_age, domain)


def set_refresh_cookies(
    response: Response, encoded_refresh_token: str, max_age: int | None = None, domain: str | None = None
) -> None:
    """Have the browser keep a refresh token, for the routes that ask for one; otherwise as ``set_access_cookies``."""
    _set(response, "refresh", encoded_refresh_token, max_age, domain)


def unset_jwt_cookies(response: Response, domain: str | None = None) -> None:
    """Have the browser forget both tokens, and what the pages showed. They stay good: see ``revoke_jwt``."""
    unset_access_cookies(response, domain)
    unset_refresh_cookies(response, domain)
    prepared_state().forget_caller(request)  # so that nothing renews, later in this request, what was dropped
    response.headers["Clear-Site-Data"] = '"cache", "storage"'  # ASVS 14.3.1


def unset_access_cookies(response: Response, domain: str | None = None) -> None:
    """Have the browser forget the access token."""
    _unset(response, "access", domain)


def unset_refresh_cookies(response: Response, domain: str | None = None) -> None:
    """Have the browser forget the refresh token."""
    _unset(response, "refresh", domain)


def _set(response: Response, which: str, token: str, max_age: int | None, domain: str | None) -> None:
    state = prepared_state()
    if not state.lookup.looks_in_cookies():
        raise ConfigError(
            "A token is put into a cookie, and the app does not look for tokens there.",
            hint="Set JWT_TOKEN_LOCATION = ['headers', 'cookies'], or give JWTExtension a cookie_name.",
        )
    options = state.lookup.tokens
    claims = claims_of(state, token)
    if is_refresh_token(token) != (which == "refresh"):
        raise InvalidValue(f"The {which} token's cookie is for {which} tokens alone.")
    if max_age is None and not options.session_cookie:
        max_age = max(0, int(claims["exp"] - state.clock()))
    place = _place(state, domain)
    name, path = _name_and_path(state, which)
    set_cookie(state, response, name, token, max_age=max_age, path=path, **place)
    if options.csrf_in_cookies:
        name, path = _csrf_name_and_path(state, which)
        set_cookie(state, response, name, get_csrf_token(token), max_age=max_age, path=path, readable=True, **place)


def _unset(response: Response, which: str, domain: str | None) -> None:
    state = prepared_state()
    pairs = [_name_and_path(state, which)]
    if state.lookup.tokens.csrf_in_cookies:
        pairs.append(_csrf_name_and_path(state, which))
    for name, path in pairs:
        drop_cookie(state, response, name, path=path, **_place(state, domain))


def _place(state: JamState, domain: str | None) -> dict[str, Any]:
    options = state.lookup.tokens
    secure = True if options.cookie_secure else None
    return {"domain": domain or options.cookie_domain, "samesite": options.cookie_samesite, "secure": secure}


def _name_and_path(state: JamState, which: str) -> tuple[str, str]:
    options = state.lookup.tokens
    if which == "access":
        return state.lookup.access_cookie, options.access_cookie_path
    return state.lookup.refresh_cookie, options.refresh_cookie_path or request.script_root + (
        state.refresh_path() or "/"
    )


def _csrf_name_and_path(state: JamState, which: str) -> tuple[str, str]:
    options = state.lookup.tokens
    if which == "access":
        return options.access_csrf_cookie_name, options.access_csrf_cookie_path
    return options.refresh_csrf_cookie_name, options.refresh_csrf_cookie_path
