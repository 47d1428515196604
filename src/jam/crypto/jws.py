"""Compact JWS (RFC 7515): sign a JSON object, verify one.

Nothing of a token is looked at before its signature holds, save its header, and of that only what is needed
to find the key (RFC 8725 3.10): there is no ``none``, and no key is ever taken from the token.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from jam.crypto.encoding import b64url_decode, b64url_encode, json_decode_object, json_encode, json_encode_exactly
from jam.crypto.keys import Key, KeySet
from jam.errors import InvalidKey, InvalidValue, TokenInvalid

__all__ = ["MAX_TOKEN_LENGTH", "Signer", "Verifier", "read_header"]

MAX_TOKEN_LENGTH = 16 * 1024
_MAX_HEADER_LENGTH = 2 * 1024
# What a header parameter means is not for an app to say (RFC 7515 4.1, 7516 4.1, 7797).
_REGISTERED = frozenset({
    "alg", "typ", "kid", "cty", "crit", "b64", "enc", "zip", "jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256",
})  # fmt: skip


class Signer:
    """Signs with the key set's current key.

    Args:
        keys: The key set.
        typ: The ``typ`` of what is signed (RFC 8725 3.11).

    Raises:
        InvalidKey: If the current key cannot sign.
    """

    def __init__(self, keys: KeySet, typ: str) -> None:
        if not keys.current.can_sign:
            raise InvalidKey("The current key can only verify.", hint="Give the private key to whoever issues tokens.")
        self._key = keys.current
        self._typ = typ
        self._sign = keys.current.sign
        self._prefix = header_segment(keys.current, typ) + b"."

    def sign(self, payload: bytes, headers: Mapping[str, Any] | None = None) -> str:
        """The token for a payload that is JSON already.

        Args:
            payload: The payload.
            headers: More header parameters; those that RFC 7515 and its family register cannot be among them.

        Raises:
            InvalidValue: If one is registered, or no JSON, or they are too long for a verifier.
        """
        prefix = self._prefix if not headers else self._prefix_with(headers)
        signing_input = prefix + b64url_encode(payload)
        return (signing_input + b"." + b64url_encode(self._sign(signing_input))).decode()

    def _prefix_with(self, headers: Mapping[str, Any]) -> bytes:
        if not isinstance(headers, Mapping) or not all(isinstance(name, str) for name in headers):
            raise InvalidValue("Headers are a mapping whose keys are strings.")
        if taken := _REGISTERED & headers.keys():
            raise InvalidValue(f"The header {min(taken)!r} is not the caller's to set.")
        own = {"alg": self._key.algorithm, "typ": self._typ, "kid": self._key.kid}
        try:
            text = json_encode_exactly({**own, **headers})
            json_decode_object(text)  # refuses what is nested too deeply
        except ValueError as error:
            raise InvalidValue("The headers cannot be written as JSON.", hint=f"{error}.") from None
        segment = b64url_encode(text)
        if len(segment) > _MAX_HEADER_LENGTH:
            raise InvalidValue(f"The header would be longer than {_MAX_HEADER_LENGTH} bytes, which no verifier takes.")
        return segment + b"."


class Verifier:
    """Verifies against all keys of a set.

    Args:
        keys: The key set.
        types: The values of ``typ`` that are accepted, without the ``application/`` that RFC 7515 4.1.9 lets
            a header add; compared without regard to case. A token without ``typ`` is refused.
    """

    def __init__(self, keys: KeySet, types: Collection[str]) -> None:
        self._keys = keys
        self._types = {name.lower(): name for name in types}
        # What our own signers write is recognised by comparing bytes, without parsing anything.
        self._known = {header_segment(key, typ): (key, typ) for key in keys.keys for typ in types}

    def verify(self, token: str) -> tuple[str, dict[str, Any], bytes]:
        """The ``typ``, the payload and the payload's JSON text of a token whose signature holds.

        Raises:
            TokenInvalid: In every other case.
        """
        if not isinstance(token, str):
            raise TokenInvalid
        try:
            data = token.encode()
            if len(data) > MAX_TOKEN_LENGTH:
                raise TokenInvalid
            signing_input, _, signature = data.rpartition(b".")
            header, _, payload = signing_input.partition(b".")
            known = self._known.get(header)
            if known is not None:
                key, typ = known
                if not key.verify_segment(signing_input, signature):
                    raise TokenInvalid
            else:
                typ = self._verify_foreign(header, signing_input, signature)
            text = b64url_decode(payload)
            return typ, json_decode_object(text), text
        except ValueError:  # the cause is dropped: it may quote what was presented
            raise TokenInvalid from None

    def _verify_foreign(self, segment: bytes, signing_input: bytes, signature: bytes) -> str:
        """Verify a token with a header that none of our signers writes; return its ``typ``."""
        if len(segment) > _MAX_HEADER_LENGTH:
            raise TokenInvalid
        header = json_decode_object(b64url_decode(segment))
        if "crit" in header or "b64" in header or "zip" in header or "enc" in header:
            # RFC 7515 4.1.11: a critical extension that is not understood; we understand none.
            raise TokenInvalid
        typ = header.get("typ")
        if not isinstance(typ, str):
            raise TokenInvalid
        typ = self._types.get(typ.lower().removeprefix("application/"))
        if typ is None:
            raise TokenInvalid
        algorithm = header.get("alg")
        for key in self._candidates(header):
            if key.accepts(algorithm) and key.verify_segment(signing_input, signature):
                return typ
        raise TokenInvalid

    def _candidates(self, header: Mapping[str, Any]) -> tuple[Key, ...]:
        if "kid" not in header:
            return self._keys.keys
        kid = header["kid"]
        key = self._keys.get(kid) if isinstance(kid, str) else None
        return () if key is None else (key,)


def read_header(token: str) -> dict[str, Any]:
    """The header of a token, *unverified*: anybody may have written it.

    Raises:
        TokenInvalid: If it has none.
    """
    if not isinstance(token, str) or len(token) > MAX_TOKEN_LENGTH or "." not in token:
        raise TokenInvalid
    try:
        segment = token.encode().partition(b".")[0]
        if len(segment) > _MAX_HEADER_LENGTH:
            raise TokenInvalid
        return json_decode_object(b64url_decode(segment))
    except ValueError:
        raise TokenInvalid from None


def header_segment(key: Key, typ: str) -> bytes:
    """The header our signers write, encoded."""
    return b64url_encode(json_encode({"alg": key.algorithm, "typ": typ, "kid": key.kid}))
