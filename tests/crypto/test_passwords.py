"""Passwords: hashed, checked against all kinds of hashes, and never telling by their cost whom there is.

What a check costs is counted in calls of the libraries that do the work, which are wrapped, not replaced.
"""

import base64
import hashlib
import os
import subprocess
import sys
import threading
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import argon2.low_level
import bcrypt
import pytest
from argon2 import PasswordHasher, Type
from argon2.low_level import hash_secret
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.security import generate_password_hash

from jam.config import PasswordSettings
from jam.crypto.passwords import Checked, Passwords, normalized
from jam.errors import Busy, ConfigError, InvalidValue

PASSWORD = "correct horse battery staple"
COMPOSED = unicodedata.normalize("NFC", "crème brûlée à volonté")
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)
CHEAP = {"memory_kib": 64, "iterations": 1}
PATIENCE = 60

MATCH = Checked(matches=True, outdated=False, readable=True)
OUTDATED = Checked(matches=True, outdated=True, readable=True)
NO_MATCH = Checked(matches=False, outdated=False, readable=True)
UNREADABLE = Checked(matches=False, outdated=False, readable=False)


def cheap(**options):
    return Passwords(PasswordSettings(**{**CHEAP, **options}))


@pytest.fixture(scope="module")
def passwords():
    return cheap()


def argon2_of(password, *, kind=Type.ID, memory=64, iterations=1, lanes=1, version=19, salt=b"s" * 16, size=32):
    """A hash as another app would have made it."""
    return hash_secret(password.encode(), salt, iterations, memory, lanes, size, kind, version).decode()


def bcrypt_of(password, prefix="2b"):
    data = password if isinstance(password, bytes) else password.encode()
    return bcrypt.hashpw(data, bcrypt.gensalt(4)).decode().replace("$2b$", f"${prefix}$")


# -- hashing ------------------------------------------------------------------------------------------------


def test_asvs_11_4_2_a_hash_is_argon2id_with_the_configured_parameters():
    assert Passwords(PasswordSettings()).hash(PASSWORD).startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    hashed = cheap(memory_kib=128, iterations=3, parallelism=2).hash(PASSWORD)
    assert hashed.startswith("$argon2id$v=19$m=128,t=3,p=2$")
    salt, digest = (base64.b64decode(part + "==") for part in hashed.split("$")[-2:])
    assert (len(salt), len(digest)) == (16, 32)


def test_another_program_reads_a_hash(passwords):
    assert PasswordHasher().verify(passwords.hash(PASSWORD), PASSWORD) is True
    assert PasswordHasher().verify(passwords.hash(DECOMPOSED), COMPOSED) is True


def test_no_two_hashes_of_a_password_are_alike(passwords):
    assert passwords.hash(PASSWORD) != passwords.hash(PASSWORD)


def test_a_hash_is_of_its_password_and_of_no_other(passwords):
    hashed = passwords.hash(PASSWORD)
    assert passwords.check(hashed, PASSWORD) == MATCH
    assert passwords.check(hashed, PASSWORD + "r") == NO_MATCH


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=1, max_size=80), st.text(min_size=1, max_size=80))
def test_whatever_can_be_hashed_matches_itself_and_nothing_else(passwords, one, other):
    try:
        hashed = passwords.hash(one)
    except InvalidValue:
        assert {"Cs", "Cn"} & set(map(unicodedata.category, one))
        return
    assert passwords.check(hashed, one) == MATCH
    same = unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)
    assert passwords.check(hashed, other).matches is same


@pytest.mark.parametrize(
    "other",
    ["pw of Mary and me", " Pw of Mary and me", "Pw of Mary and me ", "Pw of Mary  and me", "Pw of Mary and m", "Pw"],
)
def test_asvs_6_2_8_a_password_is_checked_exactly_as_it_was_received(passwords, other):
    assert passwords.check(passwords.hash("Pw of Mary and me"), other) == NO_MATCH


@pytest.mark.parametrize("length", [64, 72, 73, 128, 1024])
def test_asvs_6_2_9_every_character_of_a_long_password_counts(passwords, length):
    password = "é" * (length - 1)
    hashed = passwords.hash(password + "a")
    assert passwords.check(hashed, password + "a") == MATCH
    assert passwords.check(hashed, password + "b") == NO_MATCH
    assert passwords.check(hashed, password) == NO_MATCH


def test_asvs_6_2_8_what_follows_a_nul_counts(passwords):
    hashed = passwords.hash("before\0after")
    assert passwords.check(hashed, "before\0after") == MATCH
    assert passwords.check(hashed, "before\0") == NO_MATCH
    assert passwords.check(hashed, "before") == NO_MATCH


def test_the_two_unicode_spellings_of_a_password_are_one(passwords):
    assert COMPOSED != DECOMPOSED
    for kept, typed in ((COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED), (DECOMPOSED, DECOMPOSED)):
        assert passwords.check(passwords.hash(kept), typed) == MATCH


def test_letters_that_only_look_alike_are_different(passwords):
    assert passwords.check(passwords.hash("ｐａｓｓ"), "pass") == NO_MATCH
    assert passwords.check(passwords.hash("ﬁne"), "fine") == NO_MATCH


IMPOSSIBLE = {
    "empty": "",
    "half a character": "\ud800 and some text",
    "too long": "x" * 1025,
    "a number": 12345678,
    "bytes": b"correct horse battery staple",
    "nothing": None,
    "a list": [PASSWORD],
    "an object": {"$ne": ""},
}


@pytest.mark.parametrize("password", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_asvs_15_3_5_what_is_no_password_is_neither_hashed_nor_matched(passwords, password):
    with pytest.raises(InvalidValue):
        passwords.hash(password)
    for stored in (passwords.hash(PASSWORD), argon2_of(""), bcrypt_of(""), generate_password_hash(""), None):
        assert passwords.check(stored, password) == NO_MATCH


@pytest.mark.parametrize("char", ["\u0378", "\U000e0080", "\uffff", "\U0010ffff"], ids=ascii)
def test_a_character_that_unicode_may_yet_define_is_not_hashed(passwords, char):
    with pytest.raises(InvalidValue):
        passwords.hash(PASSWORD + char)
    assert passwords.check(passwords.hash(PASSWORD), PASSWORD + char) == NO_MATCH


def test_a_hash_made_before_a_character_was_refused_still_matches(passwords):
    assert passwords.check(argon2_of(PASSWORD + "\u0378"), PASSWORD + "\u0378") == MATCH


def test_a_password_may_grow_by_its_normal_form_up_to_the_limit():
    grows = "\u0958"  # two code points in NFC
    assert normalized(grows * 32, 64) == "\u0915\u093c" * 32
    with pytest.raises(InvalidValue, match="at most 64 characters"):
        normalized(grows * 33, 64)


# -- hashes that an app has already --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", Type)
@pytest.mark.parametrize("version", [16, 19])
def test_other_argon2_hashes_match_and_are_outdated(passwords, kind, version):
    hashed = argon2_of(PASSWORD, kind=kind, version=version)
    assert passwords.check(hashed, PASSWORD) == (MATCH if (kind, version) == (Type.ID, 19) else OUTDATED)
    assert passwords.check(hashed, PASSWORD + "x") == NO_MATCH


def test_an_argon2_hash_that_names_no_version_is_of_the_first(passwords):
    hashed = argon2_of(PASSWORD, version=16)
    assert passwords.check(hashed.replace("$v=16", ""), PASSWORD) == OUTDATED
    assert passwords.check(argon2_of(PASSWORD).replace("$v=19", ""), PASSWORD) == NO_MATCH


@pytest.mark.parametrize(
    "less",
    [{"memory": 120}, {"iterations": 1}, {"lanes": 1}, {"salt": b"s" * 15}, {"size": 31}, {"memory": 4096, "lanes": 1}],
    ids=str,
)
def test_a_hash_that_is_weaker_in_anything_is_outdated(less):
    stronger = {"memory": 128, "iterations": 2, "lanes": 2}
    checked = cheap(memory_kib=128, iterations=2, parallelism=2).check(argon2_of(PASSWORD, **stronger | less), PASSWORD)
    assert checked == OUTDATED


@pytest.mark.parametrize(
    "more", [{"memory": 256}, {"iterations": 4}, {"lanes": 4}, {"salt": b"s" * 32}, {"size": 64}], ids=str
)
def test_a_hash_that_is_stronger_is_not_made_again(more):
    own = {"memory": 128, "iterations": 2, "lanes": 2}
    assert (
        cheap(memory_kib=128, iterations=2, parallelism=2).check(argon2_of(PASSWORD, **own | more), PASSWORD) == MATCH
    )


def test_an_argon2_hash_of_unnormalized_text_matches_that_and_is_outdated(passwords):
    foreign = argon2_of(DECOMPOSED)
    assert passwords.check(foreign, DECOMPOSED) == OUTDATED
    assert passwords.check(foreign, COMPOSED) == NO_MATCH


WERKZEUG = [
    "scrypt:32768:8:1", "scrypt:1024:8:1", "scrypt:1024:8:4", "scrypt:32768:1:1", "pbkdf2:sha256:1000", "pbkdf2:sha1:1000",
    "pbkdf2:sha512:1", "pbkdf2:sha224:7", "pbkdf2:sha384:7", "pbkdf2:md5:7", "pbkdf2:sha3_256:7", "pbkdf2:blake2b:7",
]  # fmt: skip


@pytest.mark.parametrize("method", WERKZEUG)
@pytest.mark.parametrize("salt_length", [1, 16, 128])
def test_what_werkzeug_has_hashed_matches_and_is_outdated(passwords, method, salt_length):
    hashed = generate_password_hash(PASSWORD, method, salt_length)
    assert passwords.check(hashed, PASSWORD) == OUTDATED
    assert passwords.check(hashed, PASSWORD + "x") == NO_MATCH


def test_werkzeugs_scrypt_without_parameters_means_its_default(passwords):
    name, rest = generate_password_hash(PASSWORD).split("$", 1)
    assert name == "scrypt:32768:8:1"
    assert passwords.check(f"scrypt${rest}", PASSWORD) == OUTDATED


@pytest.mark.parametrize("prefix", ["2a", "2b", "2y"])
def test_bcrypt_hashes_match_and_are_outdated(passwords, prefix):
    hashed = bcrypt_of(PASSWORD, prefix)
    assert passwords.check(hashed, PASSWORD) == OUTDATED
    assert passwords.check(hashed, PASSWORD + "x") == NO_MATCH


@pytest.mark.parametrize("password", ["x" * 72, "é" * 36, "x" + "é" * 36])
def test_bcrypt_hashes_are_of_72_bytes_and_only_they(passwords, password):
    hashed = bcrypt_of(password.encode()[:72])
    assert passwords.check(hashed, password) == OUTDATED
    assert passwords.check(hashed, password + " and more") == OUTDATED
    assert passwords.check(hashed, password[:-2]) == NO_MATCH


@pytest.mark.parametrize(
    "password", ["pass\0word", "\0", "pass\0", "\0" * 80, "x" * 80 + "\0", "pass?word\0"], ids=ascii
)
def test_no_nul_ever_matches_a_bcrypt_hash(passwords, password):
    for kept in (
        password.encode()[:72],
        password.encode().replace(b"\0", b"?")[:72],
        password.split("\0")[0].encode()[:72],
    ):
        assert passwords.check(bcrypt_of(kept), password) == NO_MATCH


@pytest.mark.parametrize("make", [generate_password_hash, bcrypt_of])
def test_older_hashes_are_of_the_text_as_it_was_received(passwords, make):
    assert passwords.check(make(DECOMPOSED), DECOMPOSED) == OUTDATED
    assert passwords.check(make(DECOMPOSED), COMPOSED) == NO_MATCH
    assert passwords.check(make(COMPOSED), DECOMPOSED) == NO_MATCH


@pytest.mark.parametrize("prefix", ["", "sha1$", "md5$salt$", "plain$", "{SSHA}", "pbkdf2_sha256$600000$salt$"])
@pytest.mark.parametrize("digest", [PASSWORD, hashlib.sha1(PASSWORD.encode()).hexdigest(), ""])
def test_what_protects_no_password_is_no_hash(passwords, prefix, digest):
    assert passwords.check(prefix + digest, PASSWORD) == UNREADABLE


SALT, DIGEST = "c2FsdHNhbHRzYWx0c2FsdA", "A" * 43
MALFORMED = {
    "argon2: unknown kind": f"$argon2x$v=19$m=64,t=1,p=1${SALT}${DIGEST}",
    "argon2: unknown version": f"$argon2id$v=18$m=64,t=1,p=1${SALT}${DIGEST}",
    "argon2: a line after it": f"$argon2id$v=19$m=64,t=1,p=1${SALT}${DIGEST}\n",
    "argon2: order": f"$argon2id$v=19$t=1,m=64,p=1${SALT}${DIGEST}",
    "argon2: padded": f"$argon2id$v=19$m=64,t=1,p=1${SALT}==${DIGEST}=",
    "argon2: other base64": f"$argon2id$v=19$m=64,t=1,p=1${SALT}${'-' * 43}",
    "argon2: bits to spare": f"$argon2id$v=19$m=64,t=1,p=1${SALT}${'A' * 42}B",
    "argon2: impossible length": f"$argon2id$v=19$m=64,t=1,p=1${SALT}${'A' * 41}",
    "argon2: short salt": f"$argon2id$v=19$m=64,t=1,p=1$c2FsdA${DIGEST}",
    "argon2: long salt": f"$argon2id$v=19$m=64,t=1,p=1${'A' * 88}${DIGEST}",
    "argon2: short hash": f"$argon2id$v=19$m=64,t=1,p=1${SALT}${'A' * 20}",
    "argon2: long hash": f"$argon2id$v=19$m=64,t=1,p=1${SALT}${'A' * 176}",
    "argon2: no memory": f"$argon2id$v=19$m=0,t=1,p=1${SALT}${DIGEST}",
    "argon2: memory below its lanes": f"$argon2id$v=19$m=64,t=1,p=9${SALT}${DIGEST}",
    "argon2: 1 GiB and more": f"$argon2id$v=19$m=1048577,t=1,p=1${SALT}${DIGEST}",
    "argon2: 4 TiB": f"$argon2id$v=19$m=4294967295,t=1,p=1${SALT}${DIGEST}",
    "argon2: for hours": f"$argon2id$v=19$m=64,t=4294967295,p=1${SALT}${DIGEST}",
    "argon2: big and slow": f"$argon2id$v=19$m=1048576,t=5,p=1${SALT}${DIGEST}",
    "argon2: many threads": f"$argon2id$v=19$m=65536,t=1,p=65${SALT}${DIGEST}",
    "argon2: huge numbers": f"$argon2id$v=19$m={'9' * 300},t=1,p=1${SALT}${DIGEST}",
    "argon2: other digits": f"$argon2id$v=19$m=٦٤,t=1,p=1${SALT}${DIGEST}",
    "argon2: only the name": "$argon2id",
    "scrypt: not a power of two": f"scrypt:1000:8:1$salt${'a' * 128}",
    "scrypt: one": f"scrypt:1:8:1$salt${'a' * 128}",
    "scrypt: too much for r": f"scrypt:65536:1:1$salt${'a' * 128}",
    "scrypt: 2 GiB": f"scrypt:2097152:8:1$salt${'a' * 128}",
    "scrypt: for minutes": f"scrypt:1048576:8:64$salt${'a' * 128}",
    "scrypt: wide blocks": f"scrypt:2:4194304:1$salt${'a' * 128}",
    "scrypt: many": f"scrypt:2:1:4194304$salt${'a' * 128}",
    "scrypt: zero": f"scrypt:0:8:1$salt${'a' * 128}",
    "scrypt: negative": f"scrypt:-2:8:1$salt${'a' * 128}",
    "scrypt: three numbers too few": f"scrypt:$salt${'a' * 128}",
    "scrypt: huge": f"scrypt:{2**64}:8:1$salt${'a' * 128}",
    "scrypt: short hash": f"scrypt:2:1:1$salt${'a' * 126}",
    "scrypt: capital digits": f"scrypt:2:1:1$salt${'A' * 128}",
    "scrypt: no salt": f"scrypt:2:1:1$${'a' * 128}",
    "scrypt: long salt": f"scrypt:2:1:1${'s' * 129}${'a' * 128}",
    "pbkdf2: not said how often": f"pbkdf2:sha256$salt${'a' * 64}",
    "pbkdf2: not said of what": f"pbkdf2$salt${'a' * 64}",
    "pbkdf2: for minutes": f"pbkdf2:sha256:10000001$salt${'a' * 64}",
    "pbkdf2: never": f"pbkdf2:sha256:0$salt${'a' * 64}",
    "pbkdf2: no hash": f"pbkdf2:rot13:1000$salt${'a' * 64}",
    "pbkdf2: no fixed length": f"pbkdf2:shake_128:1000$salt${'a' * 64}",
    "pbkdf2: short hash": f"pbkdf2:sha256:1000$salt${'a' * 62}",
    "pbkdf2: odd": f"pbkdf2:sha256:1000$salt${'a' * 63}",
    "bcrypt: too cheap": "$2b$03$" + "." * 53,
    "bcrypt: for minutes": "$2b$17$" + "." * 53,
    "bcrypt: forever": "$2b$31$" + "." * 53,
    "bcrypt: broken kind": "$2x$04$" + "." * 53,
    "bcrypt: first kind": "$2$04$" + "." * 53,
    "bcrypt: short": "$2b$04$" + "." * 52,
    "bcrypt: long": "$2b$04$" + "." * 54,
    "bcrypt: bits to spare in the salt": "$2b$04$" + "." * 21 + "A" + "." * 31,
    "bcrypt: bits to spare in the hash": "$2b$04$" + "." * 52 + "/",
    "bytes": b"$2b$04$" + b"." * 53,
    "a number": 7,
    "nothing": "",
    "half a character": "\ud800",
    "NUL": "\0",
    "dollars": "$" * 400,
    "long": "scrypt:" + "1" * 1_000_000,
}  # fmt: skip


@pytest.mark.parametrize("stored", MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_or_asks_too_much_is_unreadable(passwords, stored):
    assert passwords.check(stored, PASSWORD) == UNREADABLE


@pytest.mark.parametrize(
    "stored",
    [
        f"$argon2id$v=19$m=1024,t=16,p=64${SALT}${DIGEST}",
        f"$argon2d$m=8,t=1000,p=1${'A' * 11}$" + "A" * 22,
        f"scrypt:2:1:1024$!%${'a' * 128}",
        f"pbkdf2:sha1:100000$salt${'a' * 40}",
        "$2y$04$" + "." * 53,
    ],
)
def test_what_is_unusual_and_within_bounds_is_readable(passwords, stored):
    assert passwords.check(stored, PASSWORD) == NO_MATCH


def test_a_hash_that_the_settings_themselves_ask_for_is_within_bounds():
    large, more = 1024 * 1024 + 8, 4 * 1024 * 1024 + 32
    stored = f"$argon2id$v=19$m={large},t=4,p=1${SALT}${DIGEST}"
    assert large * 4 == more
    assert cheap()._read(stored) is None
    read = Passwords(PasswordSettings(memory_kib=large, iterations=4))._read(stored)
    assert (read.method.memory_kib, read.method.iterations) == (large, 4)


PIECES = st.sampled_from([
    "$", ":", ",", "=", "argon2id", "argon2i", "v=19", "m=64", "t=1", "p=1", "scrypt", "pbkdf2", "sha256", "2b", "04",
    "1", "2", "8", "1024", SALT, DIGEST, "salt", "a" * 64, "a" * 128, "." * 53, "\n", "\0", "é", "\ud800", "-1", "9" * 30,
    "$argon2id$v=19$m=64,t=1,p=1$", "scrypt:2:1:1$salt$", "pbkdf2:sha256:1$salt$", "$2b$04$",
])  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), st.lists(PIECES, max_size=8).map("".join)), st.one_of(st.just(PASSWORD), st.text()))
def test_no_stored_string_and_no_password_ever_does_harm(passwords, stored, password):
    checked = passwords.check(stored, password)
    assert (checked.matches, checked.outdated) == (False, False)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_hash_does_no_harm_and_matches_nothing_but_its_password(passwords, data):
    stored = data.draw(st.sampled_from(DAMAGED))
    where = data.draw(st.integers(0, len(stored) - 1))
    damaged = (
        stored[:where] + data.draw(st.sampled_from(["", "$", "1", "9", "A", "z", "é", "\0"])) + stored[where + 1 :]
    )
    assert passwords.check(damaged, PASSWORD + "x").matches is False


DAMAGED = [
    argon2_of(PASSWORD),
    generate_password_hash(PASSWORD, "scrypt:1024:8:1"),
    generate_password_hash(PASSWORD, "pbkdf2:sha256:1"),
    bcrypt_of(PASSWORD),
]


# -- what a check costs --------------------------------------------------------------------------------------


@pytest.fixture
def work(monkeypatch):
    """What the libraries were made to do, in order of kind."""
    done = []

    def noted(owner, name, note):
        real = getattr(owner, name)

        def call(*arguments, **named):
            done.append(note(*arguments, **named))
            return real(*arguments, **named)

        monkeypatch.setattr(owner, name, call)

    noted(
        argon2.low_level,
        "hash_secret_raw",
        lambda secret, salt, t, m, p, size, kind, version: ("argon2", m, t, p, kind.name, version, size),
    )
    noted(hashlib, "scrypt", lambda secret, salt, n, r, p, maxmem: ("scrypt", n, r, p))
    noted(hashlib, "pbkdf2_hmac", lambda name, secret, salt, iterations: ("pbkdf2", name, iterations))
    noted(bcrypt, "hashpw", lambda secret, salt: ("bcrypt", salt[4:6]))

    def work(act):
        done.clear()
        act()
        return sorted(done)

    return work


OWN = ("argon2", 64, 1, 1, "ID", 19, 32)
TYPED = {"plain": PASSWORD, "composed": COMPOSED, "NUL": "a\0b", "long": "x" * 1000, **IMPOSSIBLE}


@pytest.mark.parametrize("typed", TYPED.values(), ids=TYPED)
def test_asvs_6_3_8_nobodys_password_costs_as_much_as_somebodys(passwords, work, typed):
    for stored in (None, passwords.hash(PASSWORD), "", "no hash", *MALFORMED.values()):
        assert work(lambda stored=stored: passwords.check(stored, typed)) == [OWN]


def test_asvs_6_3_8_a_second_spelling_costs_the_same_for_everybody(passwords, work):
    for stored in (None, passwords.hash(PASSWORD), passwords.hash(DECOMPOSED), argon2_of(DECOMPOSED), "no hash"):
        assert work(lambda stored=stored: passwords.check(stored, DECOMPOSED)) == [OWN, OWN]


FORMER = {
    "scrypt:1024:8:1": ("scrypt", 1024, 8, 1),
    "pbkdf2:sha256:1000": ("pbkdf2", "sha256", 1000),
    "pbkdf2:sha512:1000": ("pbkdf2", "sha512", 1000),
    "bcrypt:4": ("bcrypt", b"04"),
    "bcrypt:04": ("bcrypt", b"04"),
}


@pytest.mark.parametrize("former", FORMER)
@pytest.mark.parametrize("typed", [PASSWORD, "wrong", "", "\ud800", "x" * 2000, "a\0b", COMPOSED], ids=ascii)
def test_asvs_6_3_8_while_an_app_migrates_everybody_costs_the_same(work, former, typed):
    passwords = cheap(migrating_from=former)
    old = bcrypt_of(PASSWORD) if former.startswith("bcrypt") else generate_password_hash(PASSWORD, former)
    for stored in (None, passwords.hash(PASSWORD), old, "no hash"):
        assert work(lambda stored=stored: passwords.check(stored, typed)) == [OWN, FORMER[former]]


def test_asvs_6_3_8_while_an_app_migrates_a_second_spelling_costs_the_same_for_everybody(work):
    former = "scrypt:1024:8:1"
    passwords = cheap(migrating_from=former)
    for stored in (None, passwords.hash(PASSWORD), generate_password_hash(DECOMPOSED, former), "no hash"):
        assert work(lambda stored=stored: passwords.check(stored, DECOMPOSED)) == [OWN, OWN, FORMER[former]]


@pytest.mark.parametrize("former", FORMER)
def test_while_an_app_migrates_both_kinds_of_hashes_match(former):
    passwords = cheap(migrating_from=former)
    old = bcrypt_of(PASSWORD) if former.startswith("bcrypt") else generate_password_hash(PASSWORD, former)
    assert passwords.check(old, PASSWORD) == OUTDATED
    assert passwords.check(passwords.hash(PASSWORD), PASSWORD) == MATCH
    for stored in (old, passwords.hash(PASSWORD), None):
        assert passwords.check(stored, PASSWORD + "x") == NO_MATCH


@pytest.mark.parametrize(
    "former",
    [
        "scrypt", "scrypt:", "scrypt:1000:8:1", "scrypt:32768:8", "scrypt:4194304:8:1", "pbkdf2", "pbkdf2:sha256",
        "pbkdf2:sha256:0", "pbkdf2:sha256:99999999", "pbkdf2:nohash:1000", "bcrypt", "bcrypt:3", "bcrypt:17", "bcrypt:",
        "bcrypt:012", "argon2", "sha1", "", " bcrypt:12", "bcrypt:12\n", "plain", "\ud800", "bcrypt:١٢",
    ],
    ids=ascii,
)  # fmt: skip
def test_a_kind_of_hash_that_nobody_knows_cannot_be_migrated_from(former):
    with pytest.raises(ConfigError) as caught:
        cheap(migrating_from=former)
    assert "passwords.migrating_from" in caught.value.message
    assert all(kind in caught.value.hint for kind in ("scrypt:", "pbkdf2:", "bcrypt:"))


# -- many at once --------------------------------------------------------------------------------------------


def test_other_threads_work_while_a_password_is_hashed():
    """Were the interpreter held, none of the ticks could fall between the beginning and the end."""
    passwords = cheap(memory_kib=256 * 1024, iterations=2)
    ended, ticks = threading.Event(), 0

    def tick():
        nonlocal ticks
        while not ended.wait(0.001):
            ticks += 1

    ticker = threading.Thread(target=tick)
    ticker.start()
    try:
        before = ticks
        passwords.hash(PASSWORD)
        during = ticks - before
    finally:
        ended.set()
        ticker.join(PATIENCE)
    assert during >= 10


def test_no_more_passwords_are_hashed_at_once_than_configured(monkeypatch):
    passwords = cheap(memory_kib=2048, concurrency=2, wait_for=PATIENCE)
    real, lock, most, now = argon2.low_level.hash_secret_raw, threading.Lock(), 0, 0

    def counted(*arguments):
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        try:
            return real(*arguments)
        finally:
            with lock:
                now -= 1

    monkeypatch.setattr(argon2.low_level, "hash_secret_raw", counted)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: passwords.check(None, PASSWORD), range(64))) == [NO_MATCH] * 64
    assert most == 2


@pytest.fixture
def held():
    """Holds the only turn of a Passwords until the test lets go."""
    begun, go_on, threads = threading.Event(), threading.Event(), []

    def held(passwords):
        def hold():
            with passwords._turn():
                begun.set()
                go_on.wait(PATIENCE)

        threads.append(threading.Thread(target=hold))
        threads[-1].start()
        assert begun.wait(PATIENCE)

    held.let_go = go_on.set
    yield held
    go_on.set()
    for thread in threads:
        thread.join(PATIENCE)


@pytest.mark.parametrize("wait_for", [0, 0.05])
def test_whoever_would_wait_too_long_is_told_that_the_service_is_busy(held, wait_for):
    passwords = cheap(concurrency=1, wait_for=wait_for)
    stored = passwords.hash(PASSWORD)
    held(passwords)
    for attempt in (
        lambda: passwords.hash(PASSWORD),
        lambda: passwords.check(stored, PASSWORD),
        lambda: passwords.check(None, PASSWORD),
    ):
        with pytest.raises(Busy) as caught:
            attempt()
        assert (caught.value.status, caught.value.retry_after) == (503, 2)


def test_whoever_waited_in_vain_takes_nobodys_turn(held):
    passwords = cheap(concurrency=1, wait_for=0.01)
    held(passwords)
    for _ in range(5):
        with pytest.raises(Busy):
            passwords.hash(PASSWORD)
    held.let_go()
    patient = cheap(concurrency=1, wait_for=PATIENCE)
    patient._turns = passwords._turns
    assert patient.check(None, PASSWORD) == NO_MATCH
    assert (patient._turns._free, list(patient._turns._waiting)) == (1, [])


def test_turns_are_taken_in_the_order_of_arrival(held):
    passwords = cheap(concurrency=1, wait_for=PATIENCE)
    held(passwords)
    order, threads = [], []

    def come(number):
        with passwords._turn():
            order.append(number)

    for number in range(6):
        threads.append(threading.Thread(target=come, args=(number,)))
        threads[-1].start()
        while len(passwords._turns._waiting) <= number:
            assert threads[-1].is_alive()
    held.let_go()
    for thread in threads:
        thread.join(PATIENCE)
    assert order == list(range(6))


def test_nobody_who_comes_again_and_again_keeps_others_waiting():
    """A thread that gives its turn back is still running: it would be the first to ask for the next one."""
    passwords = cheap(memory_kib=4096, concurrency=1, wait_for=PATIENCE)
    together, counts = threading.Barrier(4), [0] * 4

    def work(number):
        together.wait(PATIENCE)
        while max(counts) < 25:
            passwords.hash(PASSWORD)
            counts[number] += 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert min(counts) >= 15


def test_a_fork_while_another_thread_hashes_leaves_the_child_its_turns(held):
    passwords = cheap(concurrency=1, wait_for=0)
    stored = passwords.hash(PASSWORD)
    held(passwords)
    child = os.fork()
    if not child:
        code = 1
        try:
            good = passwords.check(stored, PASSWORD) == MATCH and passwords.check(stored, "x") == NO_MATCH
            code = 0 if good and passwords.hash(PASSWORD) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with pytest.raises(Busy):
        passwords.hash(PASSWORD)


# -- what is lacking -----------------------------------------------------------------------------------------


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_without_argon2_the_extra_is_named():
    done = run("""
import sys
sys.modules["argon2"] = None
from jam.config import PasswordSettings
from jam.crypto.passwords import Passwords
from jam.errors import ConfigError
try:
    Passwords(PasswordSettings())
except ConfigError as error:
    print(error.hint)
""")
    assert (done.stdout, done.stderr) == ("pip install jam-auth[accounts]\n", "")


def test_without_bcrypt_its_hashes_are_unreadable_and_the_log_names_the_extra_once():
    done = run(f"""
import sys
sys.modules["bcrypt"] = None
from jam.config import PasswordSettings
from jam.crypto.passwords import Passwords
from jam.errors import ConfigError
passwords = Passwords(PasswordSettings(memory_kib=64, iterations=1))
for _ in range(3):
    print(passwords.check({bcrypt_of(PASSWORD)!r}, {PASSWORD!r}))
try:
    Passwords(PasswordSettings(migrating_from="bcrypt:12"))
except ConfigError as error:
    print(error.hint)
""")
    assert done.stdout == f"{UNREADABLE}\n" * 3 + "pip install jam-auth[bcrypt]\n"
    assert done.stderr.count("jam-auth[bcrypt]") == 1


def test_argon2_is_not_imported_before_it_is_needed():
    done = run("""
import sys
from jam.config import PasswordSettings
from jam.crypto.passwords import Passwords
print("argon2" in sys.modules)
Passwords(PasswordSettings())
print("argon2" in sys.modules)
""")
    assert (done.stdout, done.stderr) == ("False\nTrue\n", "")


def test_without_memory_nobody_passes_and_the_service_is_busy():
    done = run(f"""
import resource
from jam.config import PasswordSettings
from jam.crypto.passwords import Passwords
from jam.errors import Busy
passwords = Passwords(PasswordSettings(memory_kib=900 * 1024, concurrency=1))
resource.setrlimit(resource.RLIMIT_AS, (512 * 1024 * 1024,) * 2)
stored = "$argon2id$v=19$m=921600,t=1,p=1${SALT}${DIGEST}"
for attempt in (
    lambda: passwords.hash({PASSWORD!r}), lambda: passwords.check(None, {PASSWORD!r}),
    lambda: passwords.check(stored, {PASSWORD!r}), lambda: passwords.check("scrypt:524288:8:1$s$" + 128 * "a", {PASSWORD!r}),
):
    try:
        print(attempt())
    except Busy as error:
        print("busy", error.__cause__)
""")
    assert done.stdout == "busy None\n" * 4
    assert PASSWORD not in done.stderr


# -- secrecy -------------------------------------------------------------------------------------------------


def test_asvs_16_2_5_no_password_is_in_an_error_or_a_log(passwords, caplog):
    password = PASSWORD + "\ud800"
    with pytest.raises(InvalidValue) as caught:
        passwords.hash(password)
    assert PASSWORD not in f"{caught.value!r} {caught.value} {caught.value.hint}"
    for stored in (None, "no hash", passwords.hash(PASSWORD)):
        passwords.check(stored, password)
    assert caplog.text == ""
    assert PASSWORD not in repr(passwords)
