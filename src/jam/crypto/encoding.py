"""Strict base64url (RFC 7515 2) and strict JSON (RFC 8259, RFC 7515 4, RFC 8725 3.7).

"Strict" means that every byte string has exactly one spelling: no padding, no whitespace, no other
alphabet, no stray bits at the end; and that a JSON text has no duplicate names, no NaN, no byte order mark.
"""

from __future__ import annotations

import binascii
import json
import re
from typing import Any

import msgspec

__all__ = ["b64url_decode", "b64url_encode", "json_decode_object", "json_encode", "json_encode_exactly"]

_TO_URLSAFE = bytes.maketrans(b"+/", b"-_")
# The standard alphabet's own "+", "/" and "=" become "!", which the strict decoder refuses.
_FROM_URLSAFE = bytes.maketrans(b"-_+/=", b"+/!!!")
_PADDING = (b"", None, b"==", b"=")
# What the last character may be when 4 (of 2 characters) or 2 (of 3) of its bits are unused and must be zero.
_LAST_OF_TWO = frozenset(b"AQgw")
_LAST_OF_THREE = frozenset(b"AEIMQUYcgkosw048")

_MAX_DEPTH = 32
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_DECODE_OBJECT = msgspec.json.Decoder(dict[str, Any]).decode
_ENCODE = msgspec.json.Encoder().encode


def b64url_encode(data: bytes) -> bytes:
    """Encode without padding."""
    return binascii.b2a_base64(data, newline=False).translate(_TO_URLSAFE).rstrip(b"=")


def b64url_decode(text: bytes) -> bytes:
    """Decode the one valid spelling of a byte string.

    Raises:
        ValueError: For any other character, padding, impossible length or non-zero unused bits.
    """
    remainder = len(text) & 3
    if remainder == 0:
        return binascii.a2b_base64(text.translate(_FROM_URLSAFE), strict_mode=True)
    padding = _PADDING[remainder]
    if padding is None or text[-1] not in (_LAST_OF_TWO if remainder == 2 else _LAST_OF_THREE):  # noqa: PLR2004
        raise ValueError("not canonical base64url")
    return binascii.a2b_base64(text.translate(_FROM_URLSAFE) + padding, strict_mode=True)


def json_encode(value: Any) -> bytes:
    """Encode compactly what Jam itself made of JSON's own types."""
    return _ENCODE(value)


def json_encode_exactly(value: dict[str, Any]) -> bytes:
    """Encode compactly what comes back as it went in, and nothing else.

    Raises:
        ValueError: If JSON cannot hold the value, or would give back another: a tuple comes back as a list, a
            set or a date as something else still, NaN as null, and the key ``1`` as ``"1"``.
    """
    try:
        data = _ENCODE(value)
        if _DECODE_OBJECT(data) == value:
            return data
    except (TypeError, OverflowError, RecursionError, ValueError, msgspec.MsgspecError) as error:
        raise ValueError(f"JSON cannot hold it: {error}") from None
    raise ValueError("it would come back from JSON as something else: convert tuples, sets, dates and other keys first")


def json_decode_object(data: bytes) -> dict[str, Any]:
    """Decode a JSON object and refuse everything ambiguous in it.

    The common case costs one decode and one encode: a text that comes out again byte for byte cannot have
    had a duplicate name. Only other spellings pay for the slow check.

    Raises:
        ValueError: For anything that is not one strict JSON object in UTF-8.
    """
    try:
        value = _DECODE_OBJECT(data)
        if data.count(b"{") + data.count(b"[") > _MAX_DEPTH and _depth(data) > _MAX_DEPTH:
            raise ValueError("JSON is nested too deeply")
        if _ENCODE(value) != data:
            json.loads(data.decode(), object_pairs_hook=_unique)
    except (RecursionError, msgspec.MsgspecError) as error:
        raise ValueError("not a JSON object") from error
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("JSON has a duplicate name")
    return found


def _depth(data: bytes) -> int:
    """The deepest nesting, brackets inside strings not counted."""
    depth = deepest = 0
    for byte in _STRING.sub(b"", data):
        if byte in b"{[":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"}]":
            depth -= 1
    return deepest
