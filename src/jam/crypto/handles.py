"""Handles: what a client holds of a record, ``<id>.<secret>``.

The ``id`` is public: a two-byte bucket taken from the subject (so that all of one subject can live in one
slot of a cluster) and 128 random bits, 24 characters in all. It names the record in lists, logs and URLs.
The ``secret`` is 256 random bits, 43 characters. The store holds only ``check``, the SHA-256 of the secret:
with 256 bits of entropy nothing slower is needed (ASVS 6.5.2, 7.2.3, 11.5.1).

An API token is a handle that people paste into files: ``jam_<id>_<secret><checksum>``, of base62 digits in fixed
widths (25, 43 and 6), 79 characters in all. Whoever searches files for secrets knows it by its prefix and its
checksum, the CRC-32 of everything before it, without asking anybody.
"""

from __future__ import annotations

import hmac
import re
import secrets
import zlib
from hashlib import sha256

from jam.crypto.base62 import base62_decode, base62_encode
from jam.crypto.encoding import b64url_decode, b64url_encode

__all__ = [
    "API_TOKEN_PREFIX",
    "ID",
    "MATERIAL_BYTES",
    "bucket_of",
    "bucket_of_id",
    "handle_from",
    "id_for",
    "matches",
    "new_api_token",
    "new_handle",
    "new_id",
    "split_api_token",
    "split_handle",
]

_BUCKET_BYTES = 2
_ID_BYTES = 16
_SECRET_BYTES = 32
MATERIAL_BYTES = _ID_BYTES + _SECRET_BYTES  #: what a handle is made of, besides its bucket
API_TOKEN_PREFIX = "jam_"  # noqa: S105 - what secret scanners look for
ID = re.compile(r"[A-Za-z0-9_-]{24}", re.ASCII)  #: the form of an id
_HANDLE = re.compile(r"([A-Za-z0-9_-]{24})\.([A-Za-z0-9_-]{43})", re.ASCII)
_ID_DIGITS = 25
_SECRET_DIGITS = 43
_CHECKSUM_DIGITS = 6
_LAST_SECRET = base62_encode(2 ** (8 * _SECRET_BYTES) - 1, _SECRET_DIGITS)
_API_TOKEN = re.compile(
    rf"({API_TOKEN_PREFIX}([0-9A-Za-z]{{{_ID_DIGITS}}})_([0-9A-Za-z]{{{_SECRET_DIGITS}}}))([0-9A-Za-z]{{{_CHECKSUM_DIGITS}}})",
    re.ASCII,
)


def bucket_of(subject: str) -> bytes:
    """The two bytes that everything of ``subject`` shares; random for an anonymous record (``""``)."""
    if not subject:
        return secrets.token_bytes(_BUCKET_BYTES)
    return sha256(subject.encode()).digest()[:_BUCKET_BYTES]


def bucket_of_id(record_id: str) -> bytes:
    """The bucket an id lies in."""
    return b64url_decode(record_id[:4].encode())[:_BUCKET_BYTES]


def new_id(subject: str) -> str:
    """A new public id in the subject's bucket."""
    return b64url_encode(bucket_of(subject) + secrets.token_bytes(_ID_BYTES)).decode()


def id_for(subject: str, name: str) -> str:
    """The id of the record about ``name`` (such as a ``jti``), always the same one, in the subject's bucket."""
    bucket = sha256(subject.encode()).digest()[:_BUCKET_BYTES]
    return b64url_encode(bucket + sha256(name.encode()).digest()[:_ID_BYTES]).decode()


def new_handle(bucket: bytes) -> tuple[str, str, bytes]:
    """A new ``(handle, id, check)`` in a bucket. The handle goes to the client, id and check to the store."""
    return handle_from(bucket, secrets.token_bytes(MATERIAL_BYTES))


def handle_from(bucket: bytes, material: bytes) -> tuple[str, str, bytes]:
    """The ``(handle, id, check)`` that come of a bucket and of bytes that nobody can guess: always the same ones."""
    record_id = b64url_encode(bucket + material[:_ID_BYTES]).decode()
    secret = b64url_encode(material[_ID_BYTES:MATERIAL_BYTES]).decode()
    return f"{record_id}.{secret}", record_id, sha256(secret.encode()).digest()


def split_handle(handle: str) -> tuple[str, bytes] | None:
    """``(id, check)`` of a presented handle, or ``None`` if it does not have the form of one."""
    match = _HANDLE.fullmatch(handle)
    if match is None:
        return None
    record_id, secret = match.groups()
    return record_id, sha256(secret.encode()).digest()


def new_api_token(bucket: bytes) -> tuple[str, str, bytes]:
    """A new ``(token, id, check)`` in a bucket. The token goes to the client, id and check to the store."""
    name = bucket + secrets.token_bytes(_ID_BYTES)
    secret = base62_encode(secrets.randbits(8 * _SECRET_BYTES), _SECRET_DIGITS)
    text = f"{API_TOKEN_PREFIX}{base62_encode(int.from_bytes(name, 'big'), _ID_DIGITS)}_{secret}"
    return text + _checksum(text), b64url_encode(name).decode(), sha256(secret.encode()).digest()


def split_api_token(token: str) -> tuple[str, bytes] | None:
    """``(id, check)`` of a presented API token, or ``None`` if it does not have the form of one.

    No two texts give the same: what is mistyped, and a number that is too large to have been written, is none.
    """
    match = _API_TOKEN.fullmatch(token)
    if match is None:
        return None
    text, name, secret, checksum = match.groups()
    # Of texts of one length the larger number comes later in the alphabet: its digits are in the order of ASCII.
    if secret > _LAST_SECRET or checksum != _checksum(text):
        return None
    try:
        record_id = base62_decode(name).to_bytes(_BUCKET_BYTES + _ID_BYTES, "big")
    except OverflowError:
        return None
    return b64url_encode(record_id).decode(), sha256(secret.encode()).digest()


def _checksum(text: str) -> str:
    return base62_encode(zlib.crc32(text.encode()), _CHECKSUM_DIGITS)


def matches(check: bytes, presented: bytes) -> bool:
    """Whether two checks are equal, in constant time (ASVS 11.2.4)."""
    return hmac.compare_digest(check, presented)
