"""Passwords: kept as argon2id hashes (RFC 9106; ASVS 11.4.2), and checked against those or against an app's older ones.

Whoever asks learns from the time an answer takes nothing about whom there is: nobody's password costs as much as
somebody's. How much one process does at once is bounded, and so is what one stored hash can make it do.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import importlib
import logging
import os
import re
import secrets
import unicodedata
import weakref
from collections.abc import Iterator

import msgspec

from jam.config import PasswordSettings
from jam.crypto.encoding import b64url_decode
from jam.crypto.turns import Turns
from jam.errors import Busy, ConfigError, InvalidValue

__all__ = ["Checked", "Passwords", "normalized"]

logger = logging.getLogger("jam.crypto.passwords")

_SALT_SIZE = 16
_DIGEST_SIZE = 32
_ARGON2_VERSION = 19

# What a stored hash may ask for, so that a forged or damaged row cannot stop the process. Jam's own hashes are always
# within: where the settings ask for more argon2 than this, it is the settings that bound it.
_MAX_STORED = 512  # characters
_MAX_ARGON2_KIB = 1024 * 1024  # 1 GiB of memory
_MAX_ARGON2_WORK = 4 * 1024 * 1024  # KiB times iterations: some seconds
_MAX_ARGON2_LANES = 64  # each is a thread
_MAX_SCRYPT_WORK = 1024 * 1024 * 1024  # 128 * N * r * p, of which 128 * N * r is memory: 1 GiB, some seconds
_MAX_SCRYPT_RP = 1024
_MAX_PBKDF2_ITERATIONS = 10_000_000
_BCRYPT_BYTES = 72  # of a password count for bcrypt

_ARGON2_FORM = re.compile(
    r"\$(argon2id|argon2i|argon2d)(?:\$v=(16|19))?\$m=([1-9]\d{0,9}),t=([1-9]\d{0,9}),p=([1-9]\d{0,9})"
    r"\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,171})",  # 8 to 64 bytes of salt, 16 to 128 of hash
    re.ASCII,
)
_WERKZEUG_FORM = re.compile(r"([a-z0-9_:]{6,64})\$([!-#%-~]{1,128})\$((?:[0-9a-f]{2}){16,64})", re.ASCII)
_SCRYPT_FORM = re.compile(r"scrypt:([1-9]\d{0,9}):([1-9]\d{0,9}):([1-9]\d{0,9})", re.ASCII)
_PBKDF2_FORM = re.compile(r"pbkdf2:([a-z0-9_]{1,16}):([1-9]\d{0,9})", re.ASCII)
_BCRYPT_FORM = re.compile(
    # the last characters of salt and hash have bits to spare, which are zero
    r"\$2[aby]\$(0[4-9]|1[0-6])\$([./A-Za-z0-9]{21}[.Oeu])([./A-Za-z0-9]{30}[.CGKOSWaeimquy26])",
    re.ASCII,
)
_MIGRATING_BCRYPT_FORM = re.compile(r"bcrypt:(0?[4-9]|1[0-6])", re.ASCII)
_TO_URLSAFE = str.maketrans("+/", "-_")


class Checked(msgspec.Struct, frozen=True):
    """What came of a check.

    Attributes:
        matches: Whether the hash is of this password.
        outdated: It matches, and is of a kind or of parameters below the configured ones: keep a new hash instead.
        readable: Whether the hash was one; ``False`` for a string that is no hash Jam knows, or is damaged, or asks
            for more time or memory than is sane.
    """

    matches: bool
    outdated: bool
    readable: bool


class _Argon2(msgspec.Struct, frozen=True):
    """RFC 9106; memory in KiB."""

    variant: str
    version: int
    memory_kib: int
    iterations: int
    parallelism: int
    digest_size: int = _DIGEST_SIZE

    def derive(self, secret: bytes, salt: bytes) -> bytes:
        from argon2.low_level import Type, hash_secret_raw  # noqa: PLC0415 - an extra

        return hash_secret_raw(
            secret, salt, self.iterations, self.memory_kib, self.parallelism, self.digest_size,
            Type[self.variant.removeprefix("argon2").upper()], self.version,
        )  # fmt: skip

    def new_salt(self) -> bytes:
        return secrets.token_bytes(_SALT_SIZE)

    def is_below(self, other: _Argon2) -> bool:
        """Whether anything of it is less than the other's: what is stronger throughout is never made again, weaker."""
        return (
            (self.variant, self.version) != (other.variant, other.version)
            or self.memory_kib < other.memory_kib
            or self.iterations < other.iterations
            or self.parallelism < other.parallelism
            or self.digest_size < other.digest_size
        )


class _Scrypt(msgspec.Struct, frozen=True):
    """RFC 7914, as werkzeug uses it."""

    n: int
    r: int
    p: int

    @property
    def digest_size(self) -> int:
        return 64

    def derive(self, secret: bytes, salt: bytes) -> bytes:
        memory = 128 * self.r * (self.n + self.p + 2)  # what OpenSSL counts, to the byte
        return hashlib.scrypt(secret, salt=salt, n=self.n, r=self.r, p=self.p, maxmem=memory)

    def new_salt(self) -> bytes:
        return secrets.token_bytes(_SALT_SIZE)


class _PBKDF2(msgspec.Struct, frozen=True):
    """RFC 8018 5.2, as werkzeug uses it."""

    hash_name: str
    iterations: int

    @property
    def digest_size(self) -> int:
        return hashlib.new(self.hash_name, usedforsecurity=False).digest_size

    def derive(self, secret: bytes, salt: bytes) -> bytes:
        return hashlib.pbkdf2_hmac(self.hash_name, secret, salt, self.iterations)

    def new_salt(self) -> bytes:
        return secrets.token_bytes(_SALT_SIZE)


class _Bcrypt(msgspec.Struct, frozen=True):
    """Salt and digest are in bcrypt's own base64."""

    cost: int

    @property
    def digest_size(self) -> int:
        return 31

    def derive(self, secret: bytes, salt: bytes) -> bytes:
        import bcrypt  # noqa: PLC0415 - an extra

        # Its versions before 5 took so many bytes by themselves, and the app's hashes are of those; a NUL they refused,
        # or took for the end.
        counted = secret.replace(b"\0", b"?")[:_BCRYPT_BYTES]
        hashed = bcrypt.hashpw(counted, b"$2b$%02d$" % self.cost + salt)
        return b"" if b"\0" in secret else hashed[-self.digest_size :]

    def new_salt(self) -> bytes:
        import bcrypt  # noqa: PLC0415 - an extra

        return bcrypt.gensalt(self.cost)[-22:]


_Method = _Argon2 | _Scrypt | _PBKDF2 | _Bcrypt


class _Hash(msgspec.Struct, frozen=True):
    method: _Method
    salt: bytes
    digest: bytes

    def is_of(self, secret: bytes) -> bool:
        """Whether the secret gives this digest."""
        return hmac.compare_digest(self.method.derive(secret, self.salt), self.digest)


def _nobodys(method: _Method) -> _Hash:
    """A hash that costs what the method costs, and that no password has."""
    return _Hash(method, method.new_salt(), secrets.token_bytes(method.digest_size))


class Passwords:
    """Hashes passwords, and checks them.

    Args:
        settings: The parameters of argon2id, how much is done at once, and what kind of hashes the app had before.

    Raises:
        ConfigError: If ``migrating_from`` is no kind of hash that Jam knows, or a package is not installed.
    """

    def __init__(self, settings: PasswordSettings) -> None:
        _require("argon2", "argon2-cffi", "accounts")
        self._max_length = settings.max_length
        self._wait_for = settings.wait_for
        self._concurrency = settings.concurrency or os.cpu_count() or 1
        self._turns = Turns(self._concurrency)
        self._own = _Argon2("argon2id", _ARGON2_VERSION, settings.memory_kib, settings.iterations, settings.parallelism)
        self._nobodys = _nobodys(self._own)
        former = None if settings.migrating_from is None else _former_method(settings.migrating_from)
        self._nobodys_former = None if former is None else _nobodys(former)
        _all_passwords.add(self)

    def hash(self, password: str) -> str:
        """A new argon2id hash of the password's NFC form in UTF-8: what to keep.

        Args:
            password: As the person typed it; nothing is trimmed or cut off (ASVS 6.2.8).

        Returns:
            The hash with its parameters and its salt, as a PHC string of ASCII characters.

        Raises:
            InvalidValue: If nobody can have such a password; see ``normalized``.
            Busy: If it was not its turn within ``wait_for`` seconds, or memory is lacking.
        """
        secret = normalized(password, self._max_length).encode()
        from argon2.low_level import Type, hash_secret  # noqa: PLC0415 - an extra

        own = self._own
        with self._turn():
            hashed = hash_secret(
                secret, own.new_salt(), own.iterations, own.memory_kib, own.parallelism, own.digest_size, Type.ID
            )
        return hashed.decode("ascii")

    def check(self, stored: str | None, password: str) -> Checked:
        """Whether a stored hash is of this password.

        Jam's own hashes, and other argon2 hashes, are of the password's NFC form; others, of the password exactly as
        it was received (for bcrypt: of its first 72 bytes). That nobody is there, that the hash is unreadable or the
        password impossible takes the same time as a wrong password. With ``migrating_from``, so does each kind of hash.

        Args:
            stored: What the app has kept; ``None`` if there is no such account, or none with a password.
            password: As it was received.

        Raises:
            Busy: If it was not its turn within ``wait_for`` seconds, or memory is lacking.
        """
        hashed = None if stored is None else self._read(stored)
        spellings = self._spellings(password)
        by_argon2: _Hash | None = self._nobodys
        by_former = self._nobodys_former
        if hashed is not None and isinstance(hashed.method, _Argon2):
            by_argon2 = hashed
        elif hashed is not None:
            by_argon2 = None if by_former is None else by_argon2
            by_former = hashed
        normal, received = (spellings[0], spellings[-1]) if spellings else (b"", b"")
        with self._turn():
            of_normal = by_argon2 is not None and by_argon2.is_of(normal)
            # Also where it cannot match: how often it is done depends on the password alone.
            of_received = by_argon2 is not None and received != normal and by_argon2.is_of(received)
            of_former = by_former is not None and by_former.is_of(received)
        if hashed is None or not spellings:
            return Checked(matches=False, outdated=False, readable=stored is None or hashed is not None)
        matches = of_normal or of_received or of_former
        return Checked(
            matches=matches, outdated=matches and not (of_normal and self._is_current(hashed)), readable=True
        )

    def _is_current(self, hashed: _Hash) -> bool:
        method = hashed.method
        return isinstance(method, _Argon2) and not method.is_below(self._own) and len(hashed.salt) >= _SALT_SIZE

    def _read(self, stored: str) -> _Hash | None:
        """The hash in a stored string, if there is one that is well-formed and within bounds."""
        if not isinstance(stored, str) or len(stored) > _MAX_STORED:
            return None
        if stored.startswith("$argon2"):
            own = self._own
            return _read_argon2(
                stored,
                max_kib=max(_MAX_ARGON2_KIB, own.memory_kib),
                max_work=max(_MAX_ARGON2_WORK, own.memory_kib * own.iterations),
            )
        if stored.startswith("$2"):
            return _read_bcrypt(stored)
        return _read_werkzeug(stored)

    def _spellings(self, password: str) -> tuple[bytes, ...]:
        """The password in NFC, and as it was received if that is something else; nothing if nobody can have it."""
        if not isinstance(password, str) or not 0 < len(password) <= self._max_length:
            return ()
        try:
            received = password.encode()
        except UnicodeEncodeError:
            return ()
        normal = unicodedata.normalize("NFC", password).encode()
        return (received,) if normal == received else (normal, received)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        turns = self._turns
        if not turns.take(self._wait_for):
            raise Busy
        try:
            yield
        except Exception:
            # Parameters and secret were checked, so that it is the machine that cannot: for lack of memory, as a rule.
            logger.exception("A password could not be hashed")
            raise Busy from None
        finally:
            turns.give_back()


_all_passwords: weakref.WeakSet[Passwords] = weakref.WeakSet()


def _after_fork() -> None:
    # Those who had a turn at the moment of the fork, or waited for one, do not exist in the child.
    for passwords in list(_all_passwords):
        passwords._turns = Turns(passwords._concurrency)  # noqa: SLF001 - this module's own class


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def normalized(password: str, max_length: int) -> str:
    """The one written form of a new password: NFC (UAX #15; NIST SP 800-63B-4 3.1.1.2), and otherwise unchanged.

    Args:
        password: As it was received.
        max_length: In characters (code points), of both forms.

    Raises:
        InvalidValue: If it is empty, too long, no proper Unicode text, or holds a code point that Unicode has not
            assigned yet: a later version may normalize it differently, and the password would not be found again.
    """
    if not isinstance(password, str):
        raise InvalidValue("A password is text.")
    if not password:
        raise InvalidValue("The password is empty.")
    too_long = InvalidValue(f"The password is too long: use at most {max_length} characters.")
    if len(password) > max_length:
        raise too_long
    categories = set(map(unicodedata.category, password))
    if "Cs" in categories:
        raise InvalidValue("The password is not proper text: it holds half of a character.")
    if "Cn" in categories:
        raise InvalidValue("The password holds a character that is not known here: use others.")
    normal = unicodedata.normalize("NFC", password)
    if len(normal) > max_length:
        raise too_long
    return normal


def _read_argon2(stored: str, *, max_kib: int, max_work: int) -> _Hash | None:
    found = _ARGON2_FORM.fullmatch(stored)
    if found is None:
        return None
    variant, version, *numbers, salt_text, digest_text = found.groups()
    memory_kib, iterations, parallelism = map(int, numbers)
    if not 8 * parallelism <= memory_kib <= max_kib:  # RFC 9106 3.1
        return None
    if parallelism > _MAX_ARGON2_LANES or memory_kib * iterations > max_work:
        return None
    try:
        salt, digest = (b64url_decode(text.translate(_TO_URLSAFE).encode()) for text in (salt_text, digest_text))
    except ValueError:
        return None
    # Before its version 1.3, argon2 did not write it.
    method = _Argon2(variant, int(version or 16), memory_kib, iterations, parallelism, len(digest))
    return _Hash(method, salt, digest)


def _read_werkzeug(stored: str) -> _Hash | None:
    found = _WERKZEUG_FORM.fullmatch(stored)
    if found is None:
        return None
    name, salt, digest = found.groups()
    # Werkzeug reads this too, though it never wrote it. Of pbkdf2 the defaults have changed: nobody can tell which.
    method = _werkzeug_method("scrypt:32768:8:1" if name == "scrypt" else name)
    if method is None or len(digest) != 2 * method.digest_size:
        return None
    return _Hash(method, salt.encode(), bytes.fromhex(digest))


def _werkzeug_method(name: str) -> _Scrypt | _PBKDF2 | None:
    """What werkzeug calls ``scrypt:N:r:p`` or ``pbkdf2:hash:iterations``, if it is within bounds."""
    if found := _SCRYPT_FORM.fullmatch(name):
        n, r, p = map(int, found.groups())
        is_proper = n > 1 and n.bit_count() == 1 and n.bit_length() <= 16 * r  # RFC 7914 2
        if is_proper and r * p <= _MAX_SCRYPT_RP and 128 * n * r * p <= _MAX_SCRYPT_WORK:
            return _Scrypt(n, r, p)
    elif found := _PBKDF2_FORM.fullmatch(name):
        hash_name, iterations = found[1], int(found[2])
        known = hash_name in hashlib.algorithms_guaranteed and not hash_name.startswith("shake")
        if known and iterations <= _MAX_PBKDF2_ITERATIONS:
            return _PBKDF2(hash_name, iterations)
    return None


def _read_bcrypt(stored: str) -> _Hash | None:
    found = _BCRYPT_FORM.fullmatch(stored)
    if found is None:
        return None
    try:
        import bcrypt  # noqa: F401, PLC0415 - an extra
    except ImportError:
        _say_that_bcrypt_is_lacking()
        return None
    cost, salt, digest = found.groups()
    return _Hash(_Bcrypt(int(cost)), salt.encode(), digest.encode())


@functools.cache
def _say_that_bcrypt_is_lacking() -> None:
    logger.error(
        "There are bcrypt hashes, and nobody can sign in with them, as bcrypt is not installed: "
        "pip install jam-auth[bcrypt]"
    )


def _former_method(name: str) -> _Method:
    """What ``passwords.migrating_from`` names.

    Raises:
        ConfigError: If it names nothing that Jam knows, or bcrypt, which is not installed.
    """
    if found := _MIGRATING_BCRYPT_FORM.fullmatch(name):
        _require("bcrypt", "bcrypt", "bcrypt")
        return _Bcrypt(int(found[1]))
    method = _werkzeug_method(name)
    if method is None:
        raise ConfigError(
            f"passwords.migrating_from is {name!r}, which is no kind of hash that Jam can check.",
            hint="Write scrypt:N:r:p (such as scrypt:32768:8:1, at most 1 GiB), pbkdf2:hash:iterations (such as "
            "pbkdf2:sha256:600000, at most 10000000) or bcrypt:cost (such as bcrypt:12, from 4 to 16).",
        )
    return method


def _require(module: str, package: str, extra: str) -> None:
    try:
        importlib.import_module(module)
    except ImportError:
        raise ConfigError(f"{package} is not installed.", hint=f"pip install jam-auth[{extra}]") from None
