"""What makes a key guessable, forgeable or useless: checked when a key is imported (RFC 8725 3.4 and 3.5)."""

from __future__ import annotations

import itertools
import math
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric import rsa

from jam.errors import InvalidKey

__all__ = ["RSA_EXPONENT", "check_ed25519_point", "check_rsa_numbers", "repeats", "weakness_of"]

RSA_EXPONENT = 65537
_MIN_RSA_BITS = 2048  # RFC 7518 3.3
_MAX_RSA_BITS = 16384  # OpenSSL's own bound; larger keys only serve to slow a verifier down
_MIN_SECRET_BYTES = 32
_MIN_DISTINCT_BYTES = 8
# A random secret may well begin with three or four letters of a word, hardly with eight.
_TELLING_PREFIX = 8
_WELL_KNOWN = frozenset({
    b"changeme", b"changethis", b"replaceme", b"dev", b"development", b"secret", b"secretkey", b"supersecret",
    b"topsecret", b"mysecret", b"mysecretkey", b"yoursecret", b"yoursecretkey", b"yourkey", b"your256bitsecret",
    b"password", b"passw0rd", b"insecure", b"default", b"test", b"testing", b"example", b"abc", b"abc123", b"abcde",
    b"123", b"123456", b"12345678", b"qwerty", b"hardtoguess", b"youwillneverguess", b"notsosecret", b"verysecret",
    b"keepitsecret", b"flask", b"letmein", b"admin", b"arandomstring", b"randomstring", b"foobar", b"none", b"null",
    b"undefined", b"astringsecretatleast256bitslong", b"qwertyuiop", b"thisismysecret", b"thisisasecret",
    b"djangoinsecure", b"jwtsecret", b"jwtsecretkey",
})  # fmt: skip
# Secrets that look random and stand in much-read documentation (SHA-256, so that they do not stand here too).
_PUBLISHED = frozenset(bytes.fromhex(digest) for digest in (
    "2598f7d6adc142d88161630f3db12ab2bd3403521c281811e5e1ce60d4ac5d76",
    "570dad43de1af4c925f92c16a68a50936da42b7dd6fdeb24850507a1199aac89",
))  # fmt: skip


def weakness_of(secret: str | bytes) -> str | None:
    """Why a configured secret should not be trusted, or ``None`` (ASVS 13.3.1, RFC 8725 3.5)."""
    try:
        data = secret.encode() if isinstance(secret, str) else secret
    except UnicodeEncodeError:
        return "is not proper text"
    if sha256(data).digest() in _PUBLISHED:
        return "stands in a tutorial"
    letters = bytes(byte for byte in data.lower() if byte not in b"-_ .!")
    if letters in _WELL_KNOWN or letters.startswith(tuple(w for w in _WELL_KNOWN if len(w) >= _TELLING_PREFIX)):
        return "is one that everybody knows"
    if len(data) < _MIN_SECRET_BYTES:
        return f"has {len(data)} bytes; at least {_MIN_SECRET_BYTES} random ones are needed"
    if repeats(data) or _runs(data):
        return "repeats too few different characters, or runs along the alphabet"
    return None


def _runs(data: bytes) -> bool:
    """Whether most neighbours are equal or next to each other, as in 0123456789."""
    steps = sum(abs(one - other) <= 1 for one, other in itertools.pairwise(data))
    return steps > len(data) // 2


def repeats(secret: bytes) -> bool:
    """Whether a secret consists of so few different bytes that it cannot be random."""
    return len(set(secret)) < _MIN_DISTINCT_BYTES


_PRIMES = tuple(n for n in range(3, 168) if all(n % d for d in range(2, n)))
_SMALL_PRIMES = 2 * math.prod(_PRIMES)
# A ROCA modulus is a power of 65537 modulo each small prime; by chance that happens once in about 2^27 keys.
_ROCA = {prime: frozenset(pow(RSA_EXPONENT, k, prime) for k in range(prime)) for prime in _PRIMES}


def check_rsa_numbers(numbers: rsa.RSAPublicNumbers) -> None:
    """Refuse an RSA key of the wrong size or exponent, or one that is known to be factorable.

    Raises:
        InvalidKey: Saying which.
    """
    bits = numbers.n.bit_length()
    if bits < _MIN_RSA_BITS:
        raise InvalidKey(f"The RSA key has {bits} bits; at least {_MIN_RSA_BITS} are needed (RFC 7518 3.3).")
    if bits > _MAX_RSA_BITS:
        raise InvalidKey(f"The RSA key has {bits} bits; more than {_MAX_RSA_BITS} is refused.")
    if numbers.e != RSA_EXPONENT:
        raise InvalidKey(f"The RSA key's public exponent is not {RSA_EXPONENT}.")
    if math.gcd(numbers.n, _SMALL_PRIMES) != 1:
        raise InvalidKey("The RSA key's modulus has a small factor.")
    if all(numbers.n % prime in powers for prime, powers in _ROCA.items()):
        raise InvalidKey("The RSA key was made by a defective chip and can be factored (ROCA, CVE-2017-15361).")


_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
# The y coordinates of the eight points of small order: under such a "public key" signatures can be forged.
_SMALL_ORDER_Y = frozenset({
    0, 1, _P - 1,
    2707385501144840649318225287225658788936804267575313519463743609750303402022,  # the two of order 8
    55188659117513257062467267217118295137698188065244968500265048394206261417927,
})  # fmt: skip


def check_ed25519_point(data: bytes) -> None:
    """Refuse a public key that is no point of the curve, or one under which signatures can be forged (RFC 8032).

    Args:
        data: The 32 bytes.

    Raises:
        InvalidKey: If it is not a point of full order.
    """
    y = int.from_bytes(data, "little") & (2**255 - 1)
    x_squared = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    on_curve = y < _P and pow(x_squared, (_P - 1) // 2, _P) in (0, 1)
    if not on_curve or y in _SMALL_ORDER_Y:
        raise InvalidKey("The Ed25519 key is not a point of full order on its curve.")
