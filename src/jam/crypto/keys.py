"""Keys, each bound to one algorithm for its whole life (RFC 8725 3.1), and sets of them.

``Key.from_secret``, ``Key.from_pem``, ``Key.from_jwk`` and ``Key.generate`` are the ways in; what they refuse
(short, weak, marked for another use, off its curve) is refused there and then, with ``InvalidKey``.
A ``KeySet`` has one key that signs and any number that verify, which is what makes rotation possible.
"""

from __future__ import annotations

import contextlib
import functools
import hmac
import secrets
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, ClassVar, NoReturn, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from jam.crypto.encoding import b64url_decode, b64url_encode, json_decode_object, json_encode
from jam.crypto.weak_keys import RSA_EXPONENT, check_ed25519_point, check_rsa_numbers, repeats
from jam.errors import InvalidKey

__all__ = ["ECKey", "Ed25519Key", "HMACKey", "Key", "KeySet", "RSAKey", "derive"]

_GENERATED_RSA_BITS = 3072  # 128-bit strength, ASVS 11.2.3
_MAX_KEY_TEXT = 64 * 1024
_MAX_KID = 256


class Key:
    """One key for one algorithm.

    Attributes:
        algorithm: The JWS ``alg`` this key signs with and accepts.
        kid: Its name in token headers and key sets: the RFC 7638 thumbprint unless the JWK names another.
        can_sign: Whether the secret or private half is here.
    """

    family: ClassVar[str]
    algorithm: str
    kid: str
    can_sign: bool

    # -- ways in --------------------------------------------------------------------------------------------

    @staticmethod
    def generate(algorithm: str = "ES256") -> Key:
        """Make a new key from the system's random source.

        Args:
            algorithm: Any supported ``alg``. RSA keys get 3072 bits, HMAC secrets the length of the hash.

        Raises:
            InvalidKey: For an unknown algorithm.
        """
        if algorithm in _HASH:
            if algorithm.startswith("HS"):
                return HMACKey(secrets.token_bytes(_HASH[algorithm].digest_size), algorithm)
            if algorithm.startswith("ES"):
                return ECKey(ec.generate_private_key(_EC_CURVE[algorithm]()))
            return RSAKey(rsa.generate_private_key(RSA_EXPONENT, _GENERATED_RSA_BITS), algorithm)
        if algorithm in _ED25519_NAMES:
            return Ed25519Key(ed25519.Ed25519PrivateKey.generate(), algorithm)
        raise _unsupported(algorithm)

    @staticmethod
    def from_secret(secret: str | bytes, algorithm: str = "HS256", *, kid: str | None = None) -> Key:
        """An HMAC key from shared bytes.

        Args:
            secret: At least as long as the hash: 32, 48 or 64 bytes (RFC 7518 3.2). A ``str`` is UTF-8.
            algorithm: ``HS256``, ``HS384`` or ``HS512``.
            kid: Its name; the thumbprint if left out.

        Raises:
            InvalidKey: If it is short, guessable or looks like a public key (RFC 8725 2.1).
        """
        return HMACKey(_bytes(secret), algorithm, kid=kid)

    @staticmethod
    def from_pem(pem: str | bytes, algorithm: str | None = None, *, password: bytes | None = None) -> Key:
        """A key from PEM text: a private key (PKCS#8, SEC1, PKCS#1) or a public one.

        Args:
            pem: The text. Certificates are not keys and are refused.
            algorithm: Needed only where the key leaves a choice. An RSA key is for ``PS256`` unless another
                name is given; ``RS256`` and its kin are used only when asked for here.
            password: Of an encrypted private key.

        Raises:
            InvalidKey: If it cannot be read or is not fit for the algorithm.
        """
        data = _key_text(pem)
        try:
            loaded: object
            if b"PRIVATE KEY" in data:
                loaded = serialization.load_pem_private_key(data, password=password)
            else:
                loaded = serialization.load_pem_public_key(data)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise InvalidKey(
                "The PEM text does not hold a key that can be read.",
                hint="Check that it is a private or public key (not a certificate) and its password is right.",
            ) from error
        return _wrap(loaded, algorithm, None)

    @staticmethod
    def from_jwk(jwk: Mapping[str, Any] | str | bytes, algorithm: str | None = None) -> Key:
        """A key from a JWK (RFC 7517), given as a mapping or as JSON text.

        Args:
            jwk: ``use`` must be ``sig``, ``key_ops`` must allow signing or verifying, ``alg`` must name the
                algorithm the key is used for; each only if present.
            algorithm: Needed only where neither the JWK nor its curve decides.

        Raises:
            InvalidKey: If anything in it is missing, malformed, inconsistent or meant for another purpose.
        """
        if isinstance(jwk, (str, bytes)):
            try:
                jwk = json_decode_object(_key_text(jwk))
            except ValueError:
                raise InvalidKey("The JWK is not a JSON object.") from None
        if not isinstance(jwk, Mapping):
            raise InvalidKey("A JWK is a mapping, or the JSON text of one.")
        return _from_jwk(jwk, algorithm)

    # -- use ------------------------------------------------------------------------------------------------

    def sign(self, data: bytes) -> bytes:
        """The raw JWS signature of ``data``.

        Raises:
            InvalidKey: If only the public half is here.
        """
        raise NotImplementedError

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Whether ``signature`` (raw bytes) is this key's over ``data``; never raises for a bad one."""
        raise NotImplementedError

    def verify_segment(self, data: bytes, segment: bytes) -> bool:
        """As ``verify``, for a signature still in base64url; any other spelling of it is refused."""
        try:
            return self.verify(data, b64url_decode(segment))
        except ValueError:
            return False

    def accepts(self, algorithm: object) -> bool:
        """Whether a header's ``alg`` is this key's, compared exactly (RFC 8725bis 3.1)."""
        return algorithm == self.algorithm

    # -- ways out -------------------------------------------------------------------------------------------

    def to_jwk(self, *, private: bool = False) -> dict[str, Any]:
        """The key as a JWK with ``kid``, ``alg`` and ``use``.

        Args:
            private: Whether to include the secret or private members. An HMAC key has no public form.

        Raises:
            InvalidKey: If there is no such half.
        """
        members = self._members(private=private)
        return {**members, "alg": self.algorithm, "use": "sig", "kid": self.kid}

    def _members(self, *, private: bool) -> dict[str, str]:
        raise NotImplementedError

    def thumbprint(self) -> str:
        """RFC 7638: SHA-256 over the required members in lexicographic order."""
        members = self._required_members()
        return b64url_encode(sha256(json_encode(dict(sorted(members.items())))).digest()).decode()

    def _required_members(self) -> dict[str, str]:
        return self._members(private=False)

    def __repr__(self) -> str:
        half = "signing" if self.can_sign else "verifying"
        return f"<{type(self).__name__} {self.algorithm} {self.kid} {half}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("Keys are not pickled: export them on purpose with to_jwk(private=True) or to_pem().")


class HMACKey(Key):
    """HS256, HS384 or HS512 (RFC 7518 3.2)."""

    family = "hmac"

    def __init__(self, secret: bytes, algorithm: str = "HS256", *, kid: str | None = None) -> None:
        if not algorithm.startswith("HS") or algorithm not in _HASH:
            raise InvalidKey(f"A shared secret cannot be used for {algorithm!r}.", hint="Use HS256, HS384 or HS512.")
        digest = _HASH[algorithm]
        if len(secret) < digest.digest_size:
            raise InvalidKey(
                f"The secret for {algorithm} has {len(secret)} bytes; it needs at least {digest.digest_size}.",
                hint='Make one with: python -c "import secrets; print(secrets.token_urlsafe(64))"',
            )
        if looks_asymmetric(secret):
            raise InvalidKey("An asymmetric key must not be used as a shared secret (RFC 8725 2.1).")
        if repeats(secret):
            raise InvalidKey("The secret repeats too few different bytes to be a secret.")
        self._secret = secret
        self._prepared = HMAC(secret, digest)
        self._copy = self._prepared.copy
        self.can_sign = True
        self.algorithm = algorithm
        self.kid = checked_kid(kid) if kid is not None else self.thumbprint()

    def sign(self, data: bytes) -> bytes:
        if not self.can_sign:
            raise InvalidKey(f"Key {self.kid} may only verify (its key_ops say so).")
        context = self._copy()
        context.update(data)
        return context.finalize()

    def verify(self, data: bytes, signature: bytes) -> bool:
        context = self._copy()
        context.update(data)
        return hmac.compare_digest(context.finalize(), signature)

    def verify_segment(self, data: bytes, segment: bytes) -> bool:
        # Comparing in base64url saves a decoding and leaves no second spelling to accept.
        context = self._copy()
        context.update(data)
        return hmac.compare_digest(b64url_encode(context.finalize()), segment)

    def _members(self, *, private: bool) -> dict[str, str]:
        if not private:
            raise InvalidKey("An HMAC key has no public half.", hint="Use an asymmetric key to publish a JWKS.")
        return {"kty": "oct", "k": b64url_encode(self._secret).decode()}

    def _required_members(self) -> dict[str, str]:
        return self._members(private=True)


class _AsymmetricKey(Key):
    """What the asymmetric keys share: two halves, PEM, and a public half to hand out."""

    _private: Any  # the cryptography key of the subclass's own type, or None
    _public: Any

    def public_key(self) -> Self:
        """This key without its private half."""
        raise NotImplementedError

    def to_pem(self, *, private: bool = False, password: bytes | None = None) -> str:
        """The key as PEM: SubjectPublicKeyInfo, or PKCS#8 (encrypted if a password is given).

        Raises:
            InvalidKey: If the private half is asked for and not here.
        """
        if not private:
            public = self._public.public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            return str(public, "ascii")
        self._require_private()
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password is not None:
            encryption = serialization.BestAvailableEncryption(password)
        pem = self._private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        return str(pem, "ascii")

    def _require_private(self) -> None:
        if self._private is None:
            raise InvalidKey(f"Key {self.kid} has no private half.", hint="Sign with the key set's current key.")


class ECKey(_AsymmetricKey):
    """ES256, ES384 or ES512: the curve decides (RFC 7518 3.4)."""

    family = "asymmetric"

    def __init__(self, key: ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey, *, kid: str | None = None) -> None:
        private = key if isinstance(key, ec.EllipticCurvePrivateKey) else None
        public = key.public_key() if isinstance(key, ec.EllipticCurvePrivateKey) else key
        algorithm = _EC_ALGORITHM.get(public.curve.name)
        if algorithm is None:
            raise InvalidKey(f"The curve {public.curve.name} is not supported.", hint="Use P-256, P-384 or P-521.")
        self._private, self._public = private, public
        self._size = (public.curve.key_size + 7) // 8
        self._ecdsa = ec.ECDSA(_HASH[algorithm])
        self.can_sign = private is not None
        self.algorithm = algorithm
        self.kid = checked_kid(kid) if kid is not None else self.thumbprint()

    def sign(self, data: bytes) -> bytes:
        self._require_private()
        r, s = utils.decode_dss_signature(self._private.sign(data, self._ecdsa))
        return r.to_bytes(self._size, "big") + s.to_bytes(self._size, "big")

    def verify(self, data: bytes, signature: bytes) -> bool:
        size = self._size
        if len(signature) != 2 * size:
            return False
        r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
        try:
            self._public.verify(utils.encode_dss_signature(r, s), data, self._ecdsa)
        except InvalidSignature:
            return False
        return True

    def public_key(self) -> ECKey:
        return ECKey(self._public, kid=self.kid)

    def _members(self, *, private: bool) -> dict[str, str]:
        numbers = self._public.public_numbers()
        members = {
            "kty": "EC",
            "crv": _EC_JWK_NAME[self._public.curve.name],
            "x": _encode_uint(numbers.x, self._size),
            "y": _encode_uint(numbers.y, self._size),
        }
        if private:
            self._require_private()
            members["d"] = _encode_uint(self._private.private_numbers().private_value, self._size)
        return members


class Ed25519Key(_AsymmetricKey):
    """Ed25519 (RFC 8037), known as ``Ed25519`` (RFC 9864) and, to older software, as ``EdDSA``."""

    family = "asymmetric"
    algorithm = "Ed25519"

    def __init__(
        self,
        key: ed25519.Ed25519PrivateKey | ed25519.Ed25519PublicKey,
        algorithm: str | None = None,
        *,
        kid: str | None = None,
    ) -> None:
        self._private = key if isinstance(key, ed25519.Ed25519PrivateKey) else None
        self._public = key.public_key() if isinstance(key, ed25519.Ed25519PrivateKey) else key
        check_ed25519_point(self._public.public_bytes_raw())
        self.can_sign = self._private is not None
        # EdDSA is what other libraries read today, so it is what is written unless the new name is asked for.
        self.algorithm = algorithm if algorithm is not None else "EdDSA"
        self.kid = checked_kid(kid) if kid is not None else self.thumbprint()

    def accepts(self, algorithm: object) -> bool:
        return algorithm in ("EdDSA", "Ed25519")

    def sign(self, data: bytes) -> bytes:
        self._require_private()
        return bytes(self._private.sign(data))

    def verify(self, data: bytes, signature: bytes) -> bool:
        try:
            self._public.verify(signature, data)
        except InvalidSignature:
            return False
        return True

    def public_key(self) -> Ed25519Key:
        return Ed25519Key(self._public, self.algorithm, kid=self.kid)

    def _members(self, *, private: bool) -> dict[str, str]:
        members = {"kty": "OKP", "crv": "Ed25519", "x": b64url_encode(self._public.public_bytes_raw()).decode()}
        if private:
            self._require_private()
            members["d"] = b64url_encode(self._private.private_bytes_raw()).decode()
        return members


class RSAKey(_AsymmetricKey):
    """PS256/384/512, and RS256/384/512 when asked for by name (ASVS App. C disallows them for new use)."""

    family = "asymmetric"

    def __init__(
        self, key: rsa.RSAPrivateKey | rsa.RSAPublicKey, algorithm: str = "PS256", *, kid: str | None = None
    ) -> None:
        if algorithm[:2] not in ("PS", "RS") or algorithm not in _HASH:
            raise _unsupported(algorithm)
        self._private = key if isinstance(key, rsa.RSAPrivateKey) else None
        self._public = key.public_key() if isinstance(key, rsa.RSAPrivateKey) else key
        check_rsa_numbers(self._public.public_numbers())
        self._digest = _HASH[algorithm]
        self._padding: padding.AsymmetricPadding = padding.PKCS1v15()
        if algorithm.startswith("PS"):
            self._padding = padding.PSS(padding.MGF1(self._digest), self._digest.digest_size)
        self._size = (self._public.key_size + 7) // 8
        self.can_sign = self._private is not None
        self.algorithm = algorithm
        self.kid = checked_kid(kid) if kid is not None else self.thumbprint()

    def sign(self, data: bytes) -> bytes:
        self._require_private()
        return bytes(self._private.sign(data, self._padding, self._digest))

    def verify(self, data: bytes, signature: bytes) -> bool:
        if len(signature) != self._size:
            return False
        try:
            self._public.verify(signature, data, self._padding, self._digest)
        except InvalidSignature:
            return False
        return True

    def public_key(self) -> RSAKey:
        return RSAKey(self._public, self.algorithm, kid=self.kid)

    def _members(self, *, private: bool) -> dict[str, str]:
        public = self._public.public_numbers()
        members = {"kty": "RSA", "n": _encode_uint(public.n), "e": _encode_uint(public.e)}
        if private:
            self._require_private()
            numbers = self._private.private_numbers()
            members |= {
                "d": _encode_uint(numbers.d),
                "p": _encode_uint(numbers.p),
                "q": _encode_uint(numbers.q),
                "dp": _encode_uint(numbers.dmp1),
                "dq": _encode_uint(numbers.dmq1),
                "qi": _encode_uint(numbers.iqmp),
            }
        return members


class KeySet:
    """One key that signs and others that still verify.

    Args:
        current: The key for new tokens; a public key makes a set that only verifies.
        others: Retired keys, and keys announced before they become current.

    Raises:
        InvalidKey: If HMAC and asymmetric keys are mixed (an attacker could sign with a public key as the
            secret: RFC 8725 2.1, ASVS 9.1.2) or two keys share a ``kid`` or are the same.
    """

    def __init__(self, current: Key, *others: Key) -> None:
        self.current = current
        self.keys = (current, *others)
        if len({key.family for key in self.keys}) > 1:
            raise InvalidKey("HMAC and asymmetric keys must not verify the same tokens.", hint="Use two key sets.")
        self._by_kid = {key.kid: key for key in self.keys}
        if len(self._by_kid) != len(self.keys):
            raise InvalidKey("Two keys of one set have the same kid.")
        if len({key.thumbprint() for key in self.keys}) != len(self.keys):
            raise InvalidKey("One key is in the set twice: one key is for one algorithm (RFC 8725 3.1).")

    def get(self, kid: str) -> Key | None:
        """The key of that name."""
        return self._by_kid.get(kid)

    def rotate(self, new: Key) -> KeySet:
        """A set that signs with ``new`` and still verifies what the keys of this one signed."""
        return KeySet(new, *self.keys)

    def to_jwks(self) -> dict[str, list[dict[str, Any]]]:
        """The public keys as a JWK set (RFC 7517 5), fit for publication: HMAC keys are never in it."""
        return {"keys": [key.to_jwk() for key in self.keys if key.family == "asymmetric"]}

    def __repr__(self) -> str:
        return f"KeySet({', '.join(map(repr, self.keys))})"


def derive(secret: bytes, purpose: str, length: int = 32) -> bytes:
    """A key of its own for each purpose from the app's one secret (HKDF-SHA256, RFC 5869)."""
    return HKDF(hashes.SHA256(), length, salt=None, info=b"jam " + purpose.encode()).derive(secret)


# -- tables and checks --------------------------------------------------------------------------------------

_HASH: dict[str, hashes.HashAlgorithm] = {
    prefix + size: digest()
    for prefix in ("HS", "ES", "PS", "RS")
    for size, digest in (("256", hashes.SHA256), ("384", hashes.SHA384), ("512", hashes.SHA512))
}
_EC_CURVE: dict[str, Callable[[], ec.EllipticCurve]] = {
    "ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1,
}  # fmt: skip
_EC_ALGORITHM = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_EC_JWK_NAME = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_EC_JWK_CURVE: dict[str, Callable[[], ec.EllipticCurve]] = {
    "P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1,
}  # fmt: skip
_ED25519_NAMES = ("EdDSA", "Ed25519")
_SUPPORTED = (*sorted(_HASH), *_ED25519_NAMES)


def _unsupported(algorithm: object) -> InvalidKey:
    return InvalidKey(f"The algorithm {algorithm!r:.40} does not fit.", hint=f"Supported are {', '.join(_SUPPORTED)}.")


def _wrap(key: object, algorithm: str | None, kid: str | None) -> Key:
    if isinstance(key, (rsa.RSAPrivateKey, rsa.RSAPublicKey)):
        return RSAKey(key, algorithm if algorithm is not None else "PS256", kid=kid)
    wrapped: Key
    if isinstance(key, (ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey)):
        wrapped = ECKey(key, kid=kid)
    elif isinstance(key, (ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey)):
        wrapped = Ed25519Key(key, algorithm if algorithm in _ED25519_NAMES else None, kid=kid)
    else:
        raise InvalidKey(f"Keys of type {type(key).__name__} are not for signing tokens.")
    if algorithm is not None and not wrapped.accepts(algorithm):
        raise InvalidKey(f"This key is for {wrapped.algorithm}, not for {algorithm!r}.")
    return wrapped


def _from_jwk(jwk: Mapping[str, Any], algorithm: str | None) -> Key:
    named = jwk.get("alg")
    if named is not None:
        if not isinstance(named, str):
            raise InvalidKey("The JWK's alg must be a string.")
        if algorithm is not None and named != algorithm and {named, algorithm} != set(_ED25519_NAMES):
            raise InvalidKey(f"The JWK is for {named}, not for {algorithm!r} (RFC 7517 4.4).")
        algorithm = named
    if jwk.get("use", "sig") != "sig":
        raise InvalidKey("The JWK's use is not sig (RFC 7517 4.2).")
    kid = jwk.get("kid")
    if "kid" in jwk:
        checked_kid(kid)
    key = _JWK_READERS.get(jwk["kty"] if isinstance(jwk.get("kty"), str) else "", _unknown_kty)(jwk, algorithm, kid)
    operations = jwk.get("key_ops")
    if operations is not None:
        if not isinstance(operations, (list, tuple)) or not all(isinstance(name, str) for name in operations):
            raise InvalidKey("The JWK's key_ops must be an array of strings.")
        if len(set(operations)) != len(operations):
            raise InvalidKey("The JWK's key_ops repeats a value (RFC 7517 4.3).")
        if not set(operations) & {"sign", "verify"}:
            raise InvalidKey("The JWK's key_ops allow neither sign nor verify (RFC 7517 4.3).")
        if "sign" not in operations:
            key = key.public_key() if isinstance(key, _AsymmetricKey) else _verify_only(key)
        elif "verify" not in operations and not key.can_sign:
            raise InvalidKey("The JWK's key_ops allow only sign and its private half is missing.")
    return key


def _bytes(text: str | bytes) -> bytes:
    """The bytes of a key or secret.

    Raises:
        InvalidKey: If it is neither bytes nor proper text.
    """
    if isinstance(text, bytes):
        return text
    try:
        return text.encode()
    except (UnicodeEncodeError, AttributeError, TypeError):
        raise InvalidKey("A key is bytes or text.") from None


def _key_text(text: str | bytes) -> bytes:
    data = _bytes(text)
    if len(data) > _MAX_KEY_TEXT:
        raise InvalidKey("The key text is too long.")
    return data


def checked_kid(kid: object) -> str:
    """The kid, if it can stand in a header.

    Raises:
        InvalidKey: If it is not a string of 1 to 256 printable characters.
    """
    if not isinstance(kid, str) or not 0 < len(kid) <= _MAX_KID or not kid.isprintable():
        raise InvalidKey(f"A kid is a string of 1 to {_MAX_KID} printable characters.")
    return kid


def looks_asymmetric(secret: bytes) -> bool:
    """Whether bytes are the text or DER form of an asymmetric key, published or not."""
    if b"-----BEGIN" in secret or b'"kty"' in secret or secret.lstrip().startswith((b"ssh-", b"ecdsa-")):
        return True
    for load in (
        serialization.load_der_public_key,
        functools.partial(serialization.load_der_private_key, password=None),
    ):
        with contextlib.suppress(ValueError, TypeError, UnsupportedAlgorithm):
            load(secret)
            return True
    return False


def _verify_only(key: Key) -> Key:
    key.can_sign = False
    return key


def _read_oct(jwk: Mapping[str, Any], algorithm: str | None, kid: str | None) -> Key:
    return HMACKey(_member(jwk, "k"), algorithm if algorithm is not None else "HS256", kid=kid)


def _read_ec(jwk: Mapping[str, Any], algorithm: str | None, kid: str | None) -> Key:
    crv = jwk.get("crv")
    curve = _EC_JWK_CURVE.get(crv if isinstance(crv, str) else "")
    if curve is None:
        raise InvalidKey(f"The JWK's curve {crv!r:.40} is not supported.", hint="Use P-256, P-384, P-521 or Ed25519.")
    size = (curve().key_size + 7) // 8
    x, y = (_uint(jwk, name, size) for name in ("x", "y"))
    numbers = ec.EllipticCurvePublicNumbers(x, y, curve())
    try:
        if "d" in jwk:
            return _wrap(ec.EllipticCurvePrivateNumbers(_uint(jwk, "d", size), numbers).private_key(), algorithm, kid)
        public = numbers.public_key()
        if public.public_numbers() != numbers:
            raise InvalidKey("The JWK's coordinates are not reduced modulo the curve's prime.")
        return _wrap(public, algorithm, kid)
    except ValueError as error:
        raise InvalidKey("The JWK's point is not on its curve, or its halves do not belong together.") from error


def _read_okp(jwk: Mapping[str, Any], algorithm: str | None, kid: str | None) -> Key:
    if jwk.get("crv") != "Ed25519":
        raise InvalidKey(f"The JWK's curve {jwk.get('crv')!r:.40} is not supported.", hint="Use Ed25519.")
    x = _member(jwk, "x")
    try:
        if "d" not in jwk:
            return _wrap(ed25519.Ed25519PublicKey.from_public_bytes(x), algorithm, kid)
        private = ed25519.Ed25519PrivateKey.from_private_bytes(_member(jwk, "d"))
    except ValueError as error:
        raise InvalidKey("An Ed25519 key has 32 bytes.") from error
    if private.public_key().public_bytes_raw() != x:
        raise InvalidKey("The JWK's halves do not belong together.")
    return _wrap(private, algorithm, kid)


def _read_rsa(jwk: Mapping[str, Any], algorithm: str | None, kid: str | None) -> Key:
    if "oth" in jwk:
        raise InvalidKey("RSA keys of more than two primes are not supported.")
    public = rsa.RSAPublicNumbers(_uint(jwk, "e"), _uint(jwk, "n"))
    check_rsa_numbers(public)
    try:
        if "d" not in jwk:
            return _wrap(public.public_key(), algorithm, kid)
        d, *others = (_uint(jwk, name) for name in ("d", "p", "q", "dp", "dq", "qi") if name in jwk)
        if max(d, *others, 0) >= public.n:  # before any arithmetic with it
            raise InvalidKey("The JWK's private numbers are larger than its modulus.")
        if "p" in jwk or "q" in jwk:
            p, q = _uint(jwk, "p"), _uint(jwk, "q")
        else:
            p, q = rsa.rsa_recover_prime_factors(public.n, public.e, d)
        dp = _uint(jwk, "dp") if "dp" in jwk else rsa.rsa_crt_dmp1(d, p)
        dq = _uint(jwk, "dq") if "dq" in jwk else rsa.rsa_crt_dmq1(d, q)
        qi = _uint(jwk, "qi") if "qi" in jwk else rsa.rsa_crt_iqmp(p, q)
        return _wrap(rsa.RSAPrivateNumbers(p, q, d, dp, dq, qi, public).private_key(), algorithm, kid)
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise InvalidKey("The JWK's RSA numbers do not belong together.") from error


def _unknown_kty(jwk: Mapping[str, Any], algorithm: str | None, kid: str | None) -> NoReturn:  # noqa: ARG001
    raise InvalidKey(f"The JWK's kty {jwk.get('kty')!r:.40} is not supported.", hint="Use oct, EC, OKP or RSA.")


_JWK_READERS: dict[str, Callable[[Mapping[str, Any], str | None, str | None], Key]] = {
    "oct": _read_oct, "EC": _read_ec, "OKP": _read_okp, "RSA": _read_rsa,
}  # fmt: skip


def _member(jwk: Mapping[str, Any], name: str) -> bytes:
    value = jwk.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidKey(f"The JWK lacks its member {name}.")
    try:
        return b64url_decode(value.encode())
    except ValueError as error:
        raise InvalidKey(f"The JWK's member {name} is not base64url.") from error


def _uint(jwk: Mapping[str, Any], name: str, size: int | None = None) -> int:
    data = _member(jwk, name)
    if size is not None and len(data) != size:
        raise InvalidKey(f"The JWK's member {name} has {len(data)} bytes instead of {size} (RFC 7518 6.2.1).")
    return int.from_bytes(data, "big")


def _encode_uint(value: int, size: int | None = None) -> str:
    return b64url_encode(value.to_bytes(size or (value.bit_length() + 7) // 8 or 1, "big")).decode()
