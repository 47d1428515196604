"""Where in a request a credential may be: a header, a cookie, the query string, a JSON body.

They are read straight from the WSGI environment: a request carries many headers and cookies, and Jam wants one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from flask import Request
from werkzeug.exceptions import HTTPException

from jam.crypto.encoding import json_decode_object
from jam.crypto.handles import API_TOKEN_PREFIX
from jam.identity import Identity

__all__ = [
    "MAX_COOKIES",
    "APITokenCarrier",
    "BasicCarrier",
    "Carrier",
    "CookieCarrier",
    "HeaderCarrier",
    "JSONCarrier",
    "QueryCarrier",
    "bearer_token",
    "cookie_values",
    "header_key",
]

MAX_COOKIES = 4  #: of one name that are opened: a browser may send several, of different paths and domains
_OWS = " \t"  # RFC 9110 5.6.3; Python's own idea of white space is wider, and would uncover hidden names


class Carrier:
    """One place to look, and who judges what is found there.

    Args:
        name: Of the header, cookie, parameter or member.
        verify: Proves an identity or raises ``CredentialError``.

    Attributes:
        location: Its kind, by the names that ``JWT_TOKEN_LOCATION`` has for them.
    """

    location: ClassVar[str]

    def __init__(self, name: str, verify: Callable[[str], Identity]) -> None:
        self.name = name
        self.verify = verify


class HeaderCarrier(Carrier):
    """A header of the form ``Bearer <credential>`` (RFC 6750 2.1), the scheme in any case.

    Args:
        name: Of the header.
        verify: Proves an identity or raises ``CredentialError``.
        scheme: Instead of ``Bearer``; empty: the header holds nothing but the credential.
    """

    location = "headers"

    def __init__(self, name: str, verify: Callable[[str], Identity], scheme: str = "Bearer") -> None:
        super().__init__(name, verify)
        self.scheme = scheme
        self._scheme = scheme.lower()
        self._key = header_key(name)

    def read(self, environ: Mapping[str, Any]) -> str | None:
        """What the header carries, or ``None``."""
        return bearer_token(environ.get(self._key), self._scheme)


class APITokenCarrier(HeaderCarrier):
    """A header with an API token, which may hold a token of another kind as well."""

    def read(self, environ: Mapping[str, Any]) -> str | None:
        """What the header carries, if it looks like an API token; or ``None``."""
        value = super().read(environ)
        return value if value is not None and value.startswith(API_TOKEN_PREFIX) else None


class BasicCarrier(HeaderCarrier):
    """A header of the form ``Basic <credentials>`` (RFC 7617)."""

    def __init__(self, verify: Callable[[str], Identity]) -> None:
        super().__init__("Authorization", verify, "Basic")


class CookieCarrier(Carrier):
    """A cookie, its name compared exactly."""

    location = "cookies"

    def read(self, environ: Mapping[str, Any]) -> Iterator[str]:
        """What the cookies of that name carry: a browser may send several, of different paths and domains."""
        return cookie_values(environ, self.name)


def cookie_values(environ: Mapping[str, Any], wanted: str, limit: int | None = MAX_COOKIES) -> Iterator[str]:
    """What the cookies of that name hold.

    Args:
        environ: The WSGI environment.
        wanted: The name.
        limit: How many of them; ``None`` for all.
    """
    header = environ.get("HTTP_COOKIE", "")
    if wanted not in header:
        return
    left = limit or 0
    for part in header.split(";"):
        name, _, value = part.partition("=")
        if name.strip(_OWS) == wanted:
            yield value.strip(_OWS)
            left -= 1
            if not left:
                return


class QueryCarrier(Carrier):
    """A parameter of the query string (RFC 6750 2.3): off unless asked for, since URLs are logged and shared.

    Args:
        name: Of the parameter.
        verify: Proves an identity or raises ``CredentialError``.
        prefix: What stands before the credential.
    """

    location = "query_string"

    def __init__(self, name: str, verify: Callable[[str], Identity], prefix: str = "") -> None:
        super().__init__(name, verify)
        self._prefix = prefix

    def read(self, request: Request) -> list[str]:
        """What the parameters of that name carry."""
        found = request.args.getlist(self.name) if request.environ.get("QUERY_STRING") else []
        return [value.removeprefix(self._prefix) for value in found if value.startswith(self._prefix)]


class JSONCarrier(Carrier):
    """A member of a JSON body."""

    location = "json"

    def read(self, request: Request) -> list[str]:
        """What the member carries; nothing if the body is no JSON object, or the member no string."""
        if request.mimetype != "application/json":
            return []
        try:
            value = json_decode_object(request.get_data()).get(self.name)
        except (ValueError, OSError, HTTPException):  # what cannot be read is for the view to find out
            return []
        return [value] if isinstance(value, str) else []


def header_key(name: str) -> str:
    """The header's name in a WSGI environment (PEP 3333)."""
    return "HTTP_" + name.upper().replace("-", "_")


def bearer_token(header: str | None, scheme: str = "bearer") -> str | None:
    """The token of a header of the Bearer scheme (or another, in lower case), or ``None``."""
    if header is None:
        return None
    if not scheme:
        return header.strip(_OWS)
    given, separator, token = header.partition(" ")
    return token.strip(_OWS) if separator and given.lower() == scheme else None
