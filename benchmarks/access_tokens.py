"""Access tokens: verifying and signing, beside a strict verifier made by hand and beside other libraries.

All verify the same tokens, which Jam issued, and demand the same of ``exp``, ``iss`` and ``aud``; the floor, made
for one app, demands only what its types and ``exp`` demand. No token comes twice, save where a row says so.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from typing import Any

import authlib.jose
import itsdangerous
import joserfc.jwk
import joserfc.jwt
import jwt as pyjwt
import msgspec
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.hmac import HMAC
from interleaved import Contestant, Timings, measure
from table import Group, Row, at_least, at_most

from jam import Jam
from jam.crypto.encoding import json_encode_exactly
from jam.crypto.jws import Signer
from jam.crypto.keys import Key, KeySet

_NAME = "jam"  # issuer and audience
_UNSEEN = 2048  # twice what AccessTokens remembers: going round, none is ever found there
_FLOOR, _ALONE, _PYJWT = "floor: strict verifier made by hand", "floor: cryptography alone", "PyJWT"
_JAM = "Jam, token never seen: signature and claims"
_JAM_WHOLE = "Jam, token never seen: .verify, time and cache included"
_JAM_AGAIN = "Jam, token seen before: .verify from the cache"

Verify = Callable[[str], object]


def run(scale: float, *, million: bool) -> list[Group]:
    """All groups of this section, ``scale`` times the full time."""
    return [
        _hs256_verify(8 * scale),
        _hs256_sign(6 * scale),
        _asymmetric("RS256", Key.from_pem(_pem(rsa.generate_private_key(65537, 2048)), "RS256"), 8 * scale, 1.15),
        _asymmetric("ES256", Key.generate("ES256"), 8 * scale, 1.1),
        _asymmetric("EdDSA", Key.generate("EdDSA"), 8 * scale, 1.1),
    ]


# -- HS256 --------------------------------------------------------------------------------------------------


def _hs256_verify(seconds: float) -> Group:
    secret = secrets.token_bytes(32)
    keys = KeySet(Key.from_secret(secret))
    tokens = _tokens(keys)
    timed = itsdangerous.URLSafeTimedSerializer(secret, signer_kwargs={"digest_method": hashlib.sha256})
    itsdangerous_tokens = [timed.dumps(_claims()) for _ in range(_UNSEEN)]
    t = measure(
        [
            Contestant(_FLOOR, hand_made_verifier(secret, tokens[0]), tokens),
            *_jam(keys, tokens),
            Contestant(_PYJWT, _pyjwt_verify(secret, "HS256"), tokens),
            Contestant("joserfc", _joserfc_verify(joserfc.jwk.OctKey.import_key(secret), "HS256"), tokens),
            Contestant("authlib", _authlib_verify(secret, "HS256"), tokens),
            Contestant("itsdangerous", lambda token: timed.loads(token, max_age=900), itsdangerous_tokens),
        ],
        seconds,
        "HS256 verify",
    )
    rows = [_row(t, name, _FLOOR) for name in t.rounds]
    for index, row in enumerate(rows):
        if row.name in (_JAM, _JAM_WHOLE):
            floor, faster = t.median(row.name) / t.median(_FLOOR), t.median(_PYJWT) / t.median(row.name)
            checks = (at_most(floor, 1.5, "× floor"), at_least(faster, 6, "× faster than PyJWT"))
            rows[index] = Row(row.name, row.amount, checks)
    return Group("HS256: verify one token", tuple(rows))


def _hs256_sign(seconds: float) -> Group:
    secret = secrets.token_bytes(32)
    keys = KeySet(Key.from_secret(secret))
    jam, floor = "Jam: strict JSON and jws.Signer, as AccessTokens signs", "floor: signed by hand"
    sign = Signer(keys, "at+jwt").sign
    oct_key = joserfc.jwk.OctKey.import_key(secret)
    header = {"alg": "HS256", "typ": "at+jwt", "kid": keys.current.kid}
    extra = {"typ": "at+jwt", "kid": keys.current.kid}
    authlib_jwt = authlib.jose.JsonWebToken(["HS256"])
    timed = itsdangerous.URLSafeTimedSerializer(secret, signer_kwargs={"digest_method": hashlib.sha256})
    payloads = [_claims() for _ in range(_UNSEEN)]
    t = measure(
        [
            Contestant(floor, hand_made_signer(secret, header), payloads),
            Contestant(jam, lambda payload: sign(json_encode_exactly(payload)), payloads),
            Contestant(_PYJWT, lambda payload: pyjwt.encode(payload, secret, "HS256", extra), payloads),
            Contestant("joserfc", lambda payload: joserfc.jwt.encode(header, payload, oct_key), payloads),
            Contestant("authlib", lambda payload: authlib_jwt.encode(header, payload, secret), payloads),
            Contestant("itsdangerous", timed.dumps, payloads),
        ],
        seconds,
        "HS256 sign",
    )
    rows = [_row(t, name, floor, {jam: 2.0}) for name in t.rounds]
    return Group("HS256: sign one token", tuple(rows))


class Claims(msgspec.Struct):
    """What the floor reads of a token: a type for each claim it knows."""

    iss: str
    aud: str
    sub: str
    client_id: str
    iat: int
    exp: int
    jti: str
    role: str


_TO_STANDARD = bytes.maketrans(b"-_+/=", b"+/!!!")
_TO_URLSAFE = bytes.maketrans(b"+/", b"-_")
_LAST = {2: frozenset(b"AQgw"), 3: frozenset(b"AEIMQUYcgkosw048")}


def _strict_decode(text: bytes) -> bytes:
    left = len(text) & 3
    if left and text[-1] not in _LAST.get(left, ()):
        raise ValueError("not canonical")
    return binascii.a2b_base64(text.translate(_TO_STANDARD) + b"="[: -left & 3] * (-left & 3), strict_mode=True)


def hand_made_verifier(secret: bytes, example: str) -> Verify:
    """The least a strict verifier for one app's own HS256 tokens does; others have another header."""
    copy = HMAC(secret, hashes.SHA256()).copy
    known = example.partition(".")[0].encode()
    decode = msgspec.json.Decoder(Claims).decode
    clock, equal = time.time, hmac.compare_digest

    def verify(token: str) -> Claims:
        signing_input, _, signature = token.encode().rpartition(b".")
        header, _, payload = signing_input.partition(b".")
        if header != known:
            raise ValueError("another header")
        context = copy()
        context.update(signing_input)
        if not equal(context.finalize(), _strict_decode(signature)):
            raise ValueError("wrongly signed")
        claims = decode(_strict_decode(payload))
        if claims.exp <= clock():
            raise ValueError("expired")
        return claims

    return verify


def hand_made_signer(secret: bytes, header: dict[str, str]) -> Callable[[dict[str, Any]], str]:
    """The least that signing HS256 takes."""
    copy = HMAC(secret, hashes.SHA256()).copy
    to_json = msgspec.json.Encoder().encode

    def encode(data: bytes) -> bytes:
        return binascii.b2a_base64(data, newline=False).translate(_TO_URLSAFE).rstrip(b"=")

    prefix = encode(to_json(header)) + b"."

    def sign(payload: dict[str, Any]) -> str:
        signing_input = prefix + encode(to_json(payload))
        context = copy()
        context.update(signing_input)
        return (signing_input + b"." + encode(context.finalize())).decode()

    return sign


# -- RS256, ES256, Ed25519 ----------------------------------------------------------------------------------


def _asymmetric(algorithm: str, key: Key, seconds: float, limit: float) -> Group:
    keys = KeySet(key)
    tokens = _tokens(keys)
    pem = key.public_key().to_pem()  # type: ignore[attr-defined]  # every asymmetric key has it
    public = serialization.load_pem_public_key(pem.encode())
    # Verified with the keys of each library, made once.
    joserfc_key = joserfc.jwk.import_key(pem, {"RS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}[algorithm])
    authlib_key = authlib.jose.JsonWebKey.import_key(pem)
    t = measure(
        [
            Contestant(_ALONE, _alone(public), [_prepared(token, algorithm) for token in tokens]),
            *_jam(keys, tokens),
            Contestant(_PYJWT, _pyjwt_verify(public, algorithm), tokens),
            Contestant("joserfc", _joserfc_verify(joserfc_key, algorithm), tokens),
            Contestant("authlib", _authlib_verify(authlib_key, algorithm), tokens),
        ],
        seconds,
        f"{algorithm} verify",
    )
    rows = [_row(t, name, _ALONE, {_JAM: limit, _JAM_WHOLE: limit}, "× cryptography alone") for name in t.rounds]
    title = {"RS256": "RS256 (2048 bits)", "EdDSA": "Ed25519"}.get(algorithm, algorithm)
    return Group(f"{title}: verify one token", tuple(rows))


def _alone(public: Any) -> Callable[[tuple[bytes, bytes]], None]:
    """Only the signature, decoded and ready: no token, no JSON, no claims."""
    sha256, pkcs1, ecdsa = hashes.SHA256(), padding.PKCS1v15(), ec.ECDSA(hashes.SHA256())
    if isinstance(public, rsa.RSAPublicKey):
        return lambda prepared: public.verify(prepared[0], prepared[1], pkcs1, sha256)
    if isinstance(public, ec.EllipticCurvePublicKey):
        return lambda prepared: public.verify(prepared[0], prepared[1], ecdsa)
    assert isinstance(public, ed25519.Ed25519PublicKey)
    return lambda prepared: public.verify(prepared[0], prepared[1])


def _prepared(token: str, algorithm: str) -> tuple[bytes, bytes]:
    signing_input, _, segment = token.encode().rpartition(b".")
    signature = _strict_decode(segment)
    if algorithm == "ES256":
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        signature = utils.encode_dss_signature(r, s)
    return signature, signing_input


def _pem(key: rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


# -- the contestants ----------------------------------------------------------------------------------------


def _jam(keys: KeySet, tokens: list[str]) -> list[Contestant]:
    def stateless() -> Any:
        return Jam({"access_tokens": {"stateless": True}}, keys=keys).access_tokens

    return [
        Contestant(_JAM, stateless()._verify_unseen, tokens),
        Contestant(_JAM_WHOLE, stateless().verify, tokens),
        Contestant(_JAM_AGAIN, stateless().verify, tokens[:256]),
    ]


def _pyjwt_verify(key: Any, algorithm: str) -> Verify:
    return lambda token: pyjwt.decode(token, key, [algorithm], audience=_NAME, issuer=_NAME)


def _joserfc_verify(key: Any, algorithm: str) -> Verify:
    registry = joserfc.jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": _NAME}, aud={"essential": True, "value": _NAME}, exp={"essential": True}
    )

    def verify(token: str) -> object:
        decoded = joserfc.jwt.decode(token, key, [algorithm])
        registry.validate(decoded.claims)
        return decoded

    return verify


def _authlib_verify(key: Any, algorithm: str) -> Verify:
    decoder = authlib.jose.JsonWebToken([algorithm])
    demands = {name: {"essential": True, "value": _NAME} for name in ("iss", "aud")}

    def verify(token: str) -> object:
        claims = decoder.decode(token, key, claims_options=demands)
        claims.validate()
        return claims

    return verify


# -- small things -------------------------------------------------------------------------------------------


def _tokens(keys: KeySet) -> list[str]:
    tokens = Jam({"access_tokens": {"stateless": True}}, keys=keys).access_tokens
    return [tokens.issue("user-4711", claims={"role": "editor"}) for _ in range(_UNSEEN)]


def _claims() -> dict[str, Any]:
    now = int(time.time())
    return {
        "iss": _NAME, "aud": _NAME, "sub": "user-4711", "client_id": _NAME, "iat": now, "exp": now + 900,
        "jti": secrets.token_urlsafe(18), "role": "editor",
    }  # fmt: skip


def _row(t: Timings, name: str, floor: str, limits: dict[str, float] | None = None, of: str = "× floor") -> Row:
    if name == floor:
        return Row(name, t.median(name))
    check = at_most(t.median(name) / t.median(floor), (limits or {}).get(name), of)
    return Row(name, t.median(name), (check,))
