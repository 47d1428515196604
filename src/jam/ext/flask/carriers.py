"""Where in a request a credential may be: a header, a cookie.

They are read straight from the WSGI environment: a request carries many headers and cookies, and Jam wants one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jam.identity import Identity

__all__ = ["Carrier", "CookieCarrier", "HeaderCarrier", "bearer_token", "header_key"]

_MAX_COOKIES_OF_ONE_NAME = 4
_OWS = " \t"  # RFC 9110 5.6.3; Python's own idea of white space is wider, and would uncover hidden names


class Carrier:
    """One place to look, and who judges what is found there.

    Args:
        name: Of the header or cookie.
        verify: Proves an identity or raises ``CredentialError``.
    """

    def __init__(self, name: str, verify: Callable[[str], Identity]) -> None:
        self.name = name
        self.verify = verify


class HeaderCarrier(Carrier):
    """A header of the form ``Bearer <credential>`` (RFC 6750 2.1), the scheme in any case."""

    def __init__(self, name: str, verify: Callable[[str], Identity]) -> None:
        super().__init__(name, verify)
        self._key = header_key(name)

    def read(self, environ: Mapping[str, Any]) -> str | None:
        """What the header carries, or ``None``."""
        return bearer_token(environ.get(self._key))


class CookieCarrier(Carrier):
    """A cookie, its name compared exactly."""

    def read(self, environ: Mapping[str, Any]) -> Iterator[str]:
        """What the cookies of that name carry: a browser may send several, of different paths and domains."""
        header = environ.get("HTTP_COOKIE", "")
        if self.name not in header:
            return
        left = _MAX_COOKIES_OF_ONE_NAME
        for part in header.split(";"):
            name, _, value = part.partition("=")
            if name.strip(_OWS) == self.name:
                yield value.strip(_OWS)
                left -= 1
                if not left:
                    return


def header_key(name: str) -> str:
    """The header's name in a WSGI environment (PEP 3333)."""
    return "HTTP_" + name.upper().replace("-", "_")


def bearer_token(header: str | None) -> str | None:
    """The token of a header of the Bearer scheme, or ``None``."""
    if header is None:
        return None
    scheme, separator, token = header.partition(" ")
    return token.strip(_OWS) if separator and scheme.lower() == "bearer" else None
