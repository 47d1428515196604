"""How Jam sets a cookie: not for scripts, by https alone, and not in silence where a browser would drop it."""

from __future__ import annotations

import logging
from typing import Literal

from flask import Response, request

from jam.errors import ConfigError, InvalidValue
from jam.ext.flask.request import JamState

__all__ = ["drop_cookie", "set_cookie"]

logger = logging.getLogger("jam.flask")

MAX_COOKIE = 4096  #: bytes of name and value that every browser keeps (RFC 6265bis 5.6)
_reported: set[str] = set()


def set_cookie(
    state: JamState,
    response: Response,
    name: str,
    value: str,
    *,
    max_age: int | None = None,
    path: str = "/",
    domain: str | None = None,
    samesite: Literal["Lax", "Strict", "None"] = "Lax",
    secure: bool | None = None,
    readable: bool = False,
) -> None:
    """Set a cookie on a response, which is then for nobody's cache.

    Args:
        state: The app's state, prepared.
        response: The response.
        name: The cookie's name.
        value: Its value.
        max_age: For how many seconds it lasts; ``None``: until the browser is closed.
        path: The path it is for.
        domain: The domain it is for; ``None``: this host alone.
        samesite: Which requests from other sites it goes with.
        secure: Whether it is for https alone; ``None``: as ``JAM_HTTPS`` says.
        readable: Whether scripts may read it.

    Raises:
        InvalidValue: If it is longer than browsers keep.
        ConfigError: If its name has a prefix whose promise the cookie does not keep (RFC 6265bis 4.1.3).
    """
    secure = state.https if secure is None else secure
    if name.lower().startswith("__host-") and (domain is not None or path != "/"):
        raise ConfigError(
            f"Browsers take the cookie {name} only for the whole of one host: with the path / and without a domain.",
            hint="Give it a name without the prefix (JWT_ACCESS_COOKIE_NAME, REMEMBER_COOKIE_NAME).",
        )
    if len(name) + len(value) > MAX_COOKIE:
        raise InvalidValue(
            f"The cookie {name} would have {len(name) + len(value)} bytes; browsers keep {MAX_COOKIE}.",
            hint="Put less into the token: additional claims, roles.",
        )
    if not secure:
        state.lookup.check_cookie_name(name)
    if secure and not request.is_secure and name not in _reported:
        _reported.add(name)
        logger.error(
            "The cookie %r is set with Secure on a request that came by plain http: the browser drops it and the "
            "login does not last. Serve the app by https (behind a proxy, with werkzeug's ProxyFix), or set "
            "JAM_HTTPS = False for local work.", name,
        )  # fmt: skip
    response.set_cookie(
        name, value, max_age=max_age, path=path, domain=domain, secure=secure, httponly=not readable, samesite=samesite
    )
    response.headers["Cache-Control"] = "no-store"


def drop_cookie(
    state: JamState,
    response: Response,
    name: str,
    *,
    path: str = "/",
    domain: str | None = None,
    samesite: Literal["Lax", "Strict", "None"] = "Lax",
    secure: bool | None = None,
) -> None:
    """Have the browser forget a cookie; the arguments are those it was set with."""
    set_cookie(state, response, name, "", max_age=0, path=path, domain=domain, samesite=samesite, secure=secure)
