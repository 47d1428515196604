"""Handles: what a client holds of a record, ``<id>.<secret>``.

The ``id`` is public: a two-byte bucket taken from the subject (so that all of one subject can live in one
slot of a cluster) and 128 random bits, 24 characters in all. It names the record in lists, logs and URLs.
The ``secret`` is 256 random bits, 43 characters. The store holds only ``check``, the SHA-256 of the secret:
with 256 bits of entropy nothing slower is needed (ASVS 6.5.2, 7.2.3, 11.5.1).
"""

from __future__ import annotations

import hmac
import re
import secrets
from hashlib import sha256

from jam.crypto.encoding import b64url_decode, b64url_encode

__all__ = [
    "ID",
    "MATERIAL_BYTES",
    "bucket_of",
    "bucket_of_id",
    "handle_from",
    "id_for",
    "matches",
    "new_handle",
    "new_id",
    "split_handle",
]

_BUCKET_BYTES = 2
_ID_BYTES = 16
_SECRET_BYTES = 32
MATERIAL_BYTES = _ID_BYTES + _SECRET_BYTES  #: what a handle is made of, besides its bucket
ID = re.compile(r"[A-Za-z0-9_-]{24}", re.ASCII)  #: the form of an id
_HANDLE = re.compile(r"([A-Za-z0-9_-]{24})\.([A-Za-z0-9_-]{43})", re.ASCII)


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


def matches(check: bytes, presented: bytes) -> bool:
    """Whether two checks are equal, in constant time (ASVS 11.2.4)."""
    return hmac.compare_digest(check, presented)
