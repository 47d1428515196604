"""Whether an unsafe request comes from this site's own pages, without tokens in forms.

The browser says so itself: in ``Sec-Fetch-Site``, or, if it is too old for that, in ``Origin``. A request
that says neither is refused: cookies are for browsers, and all of them send one of the two. Where something on the
way takes them out, a signed value that only the site's own pages know proves it instead.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection

from flask import Request
from werkzeug.exceptions import HTTPException

from jam.crypto.encoding import b64url_decode, b64url_encode
from jam.crypto.keys import KeySet
from jam.errors import CSRFFailed

__all__ = ["csrf_refusal", "csrf_token_matches", "new_csrf_token", "sent_csrf_tokens"]

_FORMS = frozenset(("application/x-www-form-urlencoded", "multipart/form-data"))
_SALT_BYTES = 16
_CSRF_TOKEN = re.compile(r"[A-Za-z0-9_-]{64}", re.ASCII)  # 16 random bytes and 32 of HMAC-SHA256

_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")  # as browsers send it (RFC 9110 7.2)
_SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))  # RFC 9110 9.2.1


def new_csrf_token(keys: KeySet, credential: str) -> str:
    """A value that only who was given it with this credential can send back: signed, and different each time.

    Each has random bytes of its own, so that compressed pages do not give it away bit by bit (BREACH).

    Args:
        keys: The HMAC keys of this purpose.
        credential: What the cookie holds.
    """
    salt = secrets.token_bytes(_SALT_BYTES)
    return b64url_encode(salt + keys.current.sign(salt + credential.encode("utf-8", "surrogateescape"))).decode()


def csrf_token_matches(keys: KeySet, credential: str, value: object) -> bool:
    """Whether ``new_csrf_token`` made the value for this credential; compared in constant time."""
    if not isinstance(value, str) or not _CSRF_TOKEN.fullmatch(value):
        return False
    try:
        raw = b64url_decode(value.encode())
    except ValueError:  # other spellings of the same bytes
        return False
    salt, mac = raw[:_SALT_BYTES], raw[_SALT_BYTES:]
    signed = salt + credential.encode("utf-8", "surrogateescape")
    return any(key.verify(signed, mac) for key in keys.keys)


def sent_csrf_tokens(request: Request, header_keys: Collection[str], fields: Collection[str]) -> list[str]:
    """The values that a request sends to prove where it comes from, in a header or else in a form.

    Args:
        request: The request.
        header_keys: The headers, by their names in a WSGI environment.
        fields: The form's fields.
    """
    environ = request.environ
    found = [value for key in header_keys if (value := environ.get(key))]
    if not found and request.mimetype in _FORMS:
        try:
            if request.mimetype == "application/x-www-form-urlencoded":
                request.get_data()  # so that the view can still read what the form is made of
            found = [value for name in dict.fromkeys(fields) for value in request.form.getlist(name)[:1]]
        except (OSError, HTTPException):  # what cannot be read is for the view to find out
            return []
    return found


def csrf_refusal(request: Request, trusted_origins: Collection[str]) -> CSRFFailed | None:
    """Why no cookie of this request may be opened, or ``None``.

    Args:
        request: The request.
        trusted_origins: Other origins whose pages may send requests with cookies.
    """
    if request.method in _SAFE_METHODS:
        return None
    environ = request.environ
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site in ("same-origin", "none"):
        return None
    origin = environ.get("HTTP_ORIGIN")
    if origin is not None and origin in trusted_origins:
        return None
    if (
        site is None
        and origin is not None
        and _HOST.fullmatch(request.host)
        and origin.lower() == f"{request.scheme}://{request.host}".lower()
    ):
        return None
    if site is not None:
        return CSRFFailed(f"The request was sent from another site ({_shown(site)}).")
    if origin is not None:
        return CSRFFailed("The request was sent from another origin.")
    return CSRFFailed("The request does not say where it was sent from.")


def _shown(site: str) -> str:
    return site if site in ("cross-site", "same-site") else "unknown"
