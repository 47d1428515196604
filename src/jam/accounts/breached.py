"""Whether a password is known from a data breach (ASVS 6.2.12), asked so that nobody learns which password it is."""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import re
import time
import urllib.error
import urllib.request
from urllib.parse import SplitResult, urlsplit

from jam.errors import ConfigError, JamError

__all__ = ["PwnedPasswords"]

_PREFIX = 5  # hexadecimal digits, shared by some hundred thousand passwords of every billion
_MAX_ANSWER = 1024 * 1024  # bytes; the real ones have about 50,000
_CHUNK = 65536
_LINE = re.compile(rb"([0-9A-Fa-f]{35}):(\d{1,15})\r?")


class PwnedPasswords:
    """Asks Have I Been Pwned, or a service with the same interface, by k-anonymity.

    Of the password's SHA-1 only the first five digits are sent; what the service knows with that beginning comes back,
    filled up with entries of no meaning so that its length tells nothing. Redirects are not followed (ASVS 15.3.2).

    Args:
        url: What the five digits are put behind; ``https``, or ``http`` on this machine.
        timeout: How long to wait for the service each time, in seconds, and for the whole of its answer.

    Raises:
        ConfigError: If the URL is no such place.
    """

    def __init__(self, url: str = "https://api.pwnedpasswords.com/range/", timeout: float = 2.0) -> None:
        if not _is_fit(url):
            raise ConfigError(
                "The URL of the service that knows breached passwords is not acceptable.",
                hint="Write https://host/path/, without user, query and fragment; http is for this machine alone.",
            )
        self._url = url.removesuffix("/") + "/"
        self._timeout = timeout
        self._open = urllib.request.build_opener(_NoRedirects).open

    def __call__(self, password: str) -> bool:
        """Whether the service knows the password.

        Args:
            password: As ``PasswordPolicy`` gives it: in NFC.

        Raises:
            JamError: If the service could not be asked, or did not answer as it should.
        """
        digest = hashlib.sha1(password.encode(errors="surrogatepass"), usedforsecurity=False).hexdigest().upper()
        try:
            answer = self._ask(digest[:_PREFIX])
            return _holds(answer, digest[_PREFIX:].encode())
        except (OSError, http.client.HTTPException, ValueError) as error:
            # Not chained: the request that is in there has the beginning of the hash in it.
            raise JamError(
                "The service that knows breached passwords could not be asked.",
                hint=f"It is reached at {urlsplit(self._url).hostname}; the trouble was {_name_of(error)}.",
                code="breach_check_failed",
            ) from None

    def _ask(self, prefix: str) -> bytes:
        headers = {"Add-Padding": "true", "User-Agent": "jam-auth"}
        request = urllib.request.Request(self._url + prefix, headers=headers)  # noqa: S310 - see _is_fit
        until = time.monotonic() + self._timeout
        answer = b""
        with self._open(request, timeout=self._timeout) as response:
            if response.status != http.HTTPStatus.OK:
                raise ValueError("not an answer")
            while chunk := response.read1(_CHUNK):
                answer += chunk
                if len(answer) > _MAX_ANSWER or time.monotonic() > until:
                    raise ValueError("too long an answer")
            if response.length:
                raise ValueError("half an answer")
        return answer


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Never: a redirect is then an answer like any other, and not the right one."""


def _holds(answer: bytes, suffix: bytes) -> bool:
    """Whether the suffix is among the lines; those that count no breaches are there for their length.

    Raises:
        ValueError: If a line is something else, such as a page of a proxy that wants somebody to sign in.
    """
    found = False
    for line in answer.rstrip(b"\r\n").split(b"\n") if answer else ():
        entry = _LINE.fullmatch(line)
        if entry is None:
            raise ValueError("not a list of hashes")
        found = found or (entry[1].upper() == suffix and int(entry[2]) > 0)
    return found


def _name_of(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        return f"status {error.code}"
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return type(reason).__name__


def _is_fit(url: str) -> bool:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises ValueError if it is none
    except ValueError:
        return False
    if not parts.hostname or "@" in parts.netloc or parts.query or parts.fragment:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts))


def _is_loopback(parts: SplitResult) -> bool:
    try:
        return parts.hostname == "localhost" or ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False
