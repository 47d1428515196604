"""API tokens: made, used, listed, renamed and revoked, on every engine."""

import functools
import math
import re
import secrets
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jam import Jam
from jam.config import APITokenSettings
from jam.credentials.api_tokens import APIToken, APITokens, is_api_token
from jam.crypto.handles import ID, split_api_token
from jam.errors import (
    AccessDenied,
    APITokenInvalid,
    ConcurrentUpdate,
    ConfigError,
    CredentialError,
    GenerationOutdated,
    InvalidValue,
    JamError,
    MethodRequired,
    RoleRequired,
    ScopeRequired,
    StoreUnavailable,
)
from jam.events import APITokenCreated, Events, Revoked, SubjectRevoked
from jam.identity import ANONYMOUS, Identity
from jam.stores import open_store
from jam.stores.base import Record

DAY = 86400
LIFETIME = 90 * DAY
MAX_LIFETIME = 366 * DAY
RACERS = 4
PATIENCE = 60
DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def shared(store, secret, clock):
    """A Jam on the engine under test; its events are in ``heard``."""
    jam = Jam({"secret": secret}, store=store, clock=clock)
    jam.heard = []
    jam.events.subscribe(jam.heard.append)
    return jam


@pytest.fixture
def alice():
    """Somebody of whom the store knows nothing yet."""
    return f"alice-{secrets.token_hex(6)}"


def refused(act, kind=APITokenInvalid):
    with pytest.raises(JamError) as caught:
        act()
    assert type(caught.value) is kind
    return caught.value


def dead(jam, *tokens):
    """Every one of the tokens is good for nothing."""
    for token in tokens:
        refused(lambda token=token: jam.api_tokens.verify(token))
        assert jam.api_tokens.revoke(token) is False


def id_of(token):
    return split_api_token(token)[0]


def secret_of(token):
    return token[30:73]


def checksummed(text):
    """The text with the right checksum, so that only the rule under test can refuse it."""
    number, digits = zlib.crc32(text.encode()), ""
    for _ in range(6):
        digits = DIGITS[number % 62] + digits
        number //= 62
    return text + digits


def with_secret(token, digits):
    return checksummed(token[:30] + digits)


def record_of(jam, token):
    return jam.store.get("api_token", id_of(token), jam.clock()).record


def together(*acts):
    """What the acts, begun at the same moment in as many threads, return or raise."""
    barrier = threading.Barrier(len(acts))

    def run(act):
        barrier.wait(PATIENCE)
        try:
            return act()
        except JamError as error:
            return type(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # with the usual 5 ms a store in memory is done before anybody else runs
    try:
        with ThreadPoolExecutor(len(acts)) as pool:
            return list(pool.map(run, acts))
    finally:
        sys.setswitchinterval(interval)


class CountingStore:
    """A real store, and what was asked of it."""

    def __init__(self, store):
        self._store, self.asked = store, []

    def __getattr__(self, name):
        self.asked.append(name)
        return getattr(self._store, name)


class OvertakenStore:
    """A real store in which something else happens just before one verb."""

    def __init__(self, store, verb):
        self._store, self._verb, self.before = store, verb, []

    def __getattr__(self, name):
        if name == self._verb and self.before:
            self.before.pop()()
        return getattr(self._store, name)


class ContestedStore:
    """A real store in front of which somebody else is always faster."""

    def __init__(self, store):
        self._store = store

    def __getattr__(self, name):
        return getattr(self._store, name)

    def swap(self, old, new, now):
        self._store.swap(old, old, now)
        return self._store.swap(old, new, now)


# -- what a token is ----------------------------------------------------------------------------------------


def test_a_token_proves_its_subject_and_carries_its_scopes_and_roles(shared, alice, clock):
    token = shared.api_tokens.create(alice, "backup", scopes=["posts:read", "posts:write"], roles=["editor"])
    identity = shared.api_tokens.verify(token)
    assert (identity.subject, identity.method, identity.credential_id) == (alice, "api_token", id_of(token))
    assert (identity.scopes, identity.roles) == ({"posts:read", "posts:write"}, {"editor"})
    assert (identity.expires_at, identity.generation) == (clock.now + LIFETIME, 0)
    assert identity.payload == {"token_name": "backup"}


def test_asvs_7_5_1_a_token_is_never_a_recent_sign_in(shared, alice):
    identity = shared.api_tokens.verify(shared.api_tokens.create(alice, "backup"))
    assert (identity.authenticated_at, identity.fresh, identity.amr) == (None, False, ())


def test_a_token_is_79_plain_characters_that_a_search_for_secrets_finds(jam):
    token = jam.api_tokens.create("alice", "backup")
    assert re.fullmatch(r"jam_[0-9A-Za-z]{25}_[0-9A-Za-z]{49}", token)
    assert checksummed(token[:-6]) == token
    assert is_api_token(token)


def test_a_token_has_no_scope_and_no_role_unless_somebody_said_so(shared, alice):
    identity = shared.api_tokens.verify(shared.api_tokens.create(alice, "backup"))
    assert (identity.scopes, identity.roles) == (frozenset(), frozenset())


def test_a_scope_named_twice_is_carried_once(jam):
    token = jam.api_tokens.create("alice", "backup", scopes=["b", "a", "b"], roles={"x", "y"})
    assert record_of(jam, token).data == {"name": "backup", "scopes": ["a", "b"], "roles": ["x", "y"]}


def test_asvs_7_2_3_no_two_tokens_are_alike(jam):
    tokens = [jam.api_tokens.create("alice", "backup") for _ in range(100)]
    assert len({secret_of(token) for token in tokens}) == len({id_of(token) for token in tokens}) == 100


def test_asvs_6_5_2_the_store_keeps_a_hash_of_the_secret_and_nothing_else_of_it(shared, alice):
    token = shared.api_tokens.create(alice, "backup")
    record = record_of(shared, token)
    assert len(record.check) == 32
    assert record.check == split_api_token(token)[1]
    assert secret_of(token) not in repr(record)
    assert secret_of(token).encode() not in record.check


def test_a_token_is_shown_once(shared, alice):
    token = shared.api_tokens.create(alice, "backup")
    shared.api_tokens.verify(token)
    shown = [
        shared.api_tokens.get(alice, id_of(token)),
        *shared.api_tokens.list(alice),
        shared.api_tokens.verify(token),
    ]
    assert len(shown) == 3
    assert secret_of(token) not in repr(shown)


def test_asvs_16_2_5_no_secret_is_in_an_event_a_log_or_an_error(jam, events, caplog):
    caplog.set_level(0)
    token = jam.api_tokens.create("alice", "backup")
    jam.api_tokens.verify(token)
    jam.api_tokens.rename("alice", id_of(token), "other")
    jam.api_tokens.revoke(token)
    error = refused(lambda: jam.api_tokens.verify(token))
    seen = (
        repr(events) + caplog.text + str(error) + repr(error) + repr(error.__dict__) + error.hint + repr(jam.api_tokens)
    )
    assert len(events) == 2
    assert secret_of(token) not in seen
    assert token[:30] not in seen


# -- what makes one -----------------------------------------------------------------------------------------


def test_a_token_is_trimmed_of_blanks_around_its_name(shared, alice):
    token = shared.api_tokens.create(alice, "  nightly backup \t\n")
    assert shared.api_tokens.get(alice, id_of(token)).name == "nightly backup"


@pytest.mark.parametrize(
    "name", ["x", "x" * 100, "é" * 100, "日本語", "CI (main) #1 <b>", "🙂", "'; DROP TABLE jam_records; --"]
)
def test_a_token_can_be_called_that(shared, alice, name):
    token = shared.api_tokens.create(alice, name)
    assert shared.api_tokens.verify(token).payload == {"token_name": name}
    assert shared.api_tokens.rename(alice, id_of(token), "x").name == "x"
    assert shared.api_tokens.rename(alice, id_of(token), name).name == name


UNFIT_NAMES = [
    "", " ", "\n", "x" * 101, "a\nb", "a\r\nSet-Cookie: b", "a\0", "\x1b[31mred", "a\u202eb", "a\u2028b", "a\ud800", "\ue000",
    "x" * 1_000_000, None, 7, b"backup", ["backup"],
]  # fmt: skip


@pytest.mark.parametrize("name", UNFIT_NAMES, ids=lambda name: ascii(name)[:20])
def test_asvs_16_4_1_a_token_cannot_be_called_that(jam, events, name):
    refused(lambda: jam.api_tokens.create("alice", name), InvalidValue)
    assert (jam.api_tokens.list("alice"), events) == ([], [])
    token = jam.api_tokens.create("alice", "backup")
    refused(lambda: jam.api_tokens.rename("alice", id_of(token), name), InvalidValue)
    assert jam.api_tokens.get("alice", id_of(token)).name == "backup"


@given(st.text(max_size=120))
@settings(deadline=None, max_examples=50, database=None)
def test_any_text_is_refused_as_a_name_or_kept_as_it_is_without_blanks_around(name):
    jam = Jam({"store": "memory://"})
    try:
        token = jam.api_tokens.create("alice", name)
    except InvalidValue:
        assert not name.strip().isprintable() or not 1 <= len(name.strip()) <= 100
    else:
        assert jam.api_tokens.verify(token).payload == {"token_name": name.strip()}


@pytest.mark.parametrize("subject", ["", "\ud800", "a\0b", "x" * 256, 7, None, b"alice", True], ids=ascii)
def test_asvs_15_3_5_nobody_can_have_such_a_name(jam, events, subject):
    refused(lambda: jam.api_tokens.create(subject, "backup"), InvalidValue)
    if subject != "":
        refused(lambda: jam.api_tokens.generation(subject), InvalidValue)
        refused(lambda: jam.api_tokens.list(subject), InvalidValue)
    if subject is not None:
        refused(lambda: jam.api_tokens.revoke_all(subject), InvalidValue)
    assert jam.api_tokens.get(subject, "A" * 24) is None
    assert jam.api_tokens.rename(subject, "A" * 24, "x") is None
    assert jam.api_tokens.revoke_by_id(subject, "A" * 24) is False
    assert events == []


@pytest.mark.parametrize(
    "scopes", ["read", b"read", None, 7, [""], ["a b"], ['a"b'], ["a\\b"], ["ü"], ["a\n"], [7], [None]], ids=ascii
)
def test_rfc6749_3_3_what_is_no_scope_is_refused(jam, events, scopes):
    refused(lambda: jam.api_tokens.create("alice", "backup", scopes=scopes), InvalidValue)
    assert (jam.api_tokens.list("alice"), events) == ([], [])


@pytest.mark.parametrize("roles", ["admin", b"admin", None, 7, [""], [7], [None], ["\ud800"]], ids=ascii)
def test_what_is_no_role_is_refused(jam, events, roles):
    refused(lambda: jam.api_tokens.create("alice", "backup", roles=roles), InvalidValue)
    assert (jam.api_tokens.list("alice"), events) == ([], [])


@pytest.mark.parametrize("generation", ["0", [], -1, 0.5, True, 2**53, math.nan, math.inf], ids=repr)
def test_a_generation_that_is_none_is_refused(jam, events, generation):
    refused(lambda: jam.api_tokens.create("alice", "backup", generation=generation), InvalidValue)
    assert events == []


def test_a_subject_has_at_most_100_live_tokens(shared, alice, clock):
    tokens = [shared.api_tokens.create(alice, f"n{n}", lifetime=60 if n else DAY) for n in range(100)]
    error = refused(lambda: shared.api_tokens.create(alice, "one more"), InvalidValue)
    assert "revoke" in str(error)
    shared.api_tokens.create(f"{alice}-and-bob", "another's")
    assert shared.api_tokens.revoke(tokens[5]) is True
    shared.api_tokens.create(alice, "one more")
    refused(lambda: shared.api_tokens.create(alice, "and another"), InvalidValue)
    clock.move(60)
    assert len(shared.api_tokens.list(alice)) == 2
    shared.api_tokens.create(alice, "and another")


def test_callers_at_once_get_no_more_tokens_beyond_the_limit_than_they_are(jam):
    for n in range(99):
        jam.api_tokens.create("alice", f"n{n}")
    outcomes = together(*[lambda: jam.api_tokens.create("alice", "racer")] * RACERS)
    made = [one for one in outcomes if isinstance(one, str)]
    assert 1 <= len(made) <= RACERS
    assert {one for one in outcomes if not isinstance(one, str)} <= {InvalidValue}
    refused(lambda: jam.api_tokens.create("alice", "one more"), InvalidValue)


# -- who makes one ------------------------------------------------------------------------------------------


def caller(subject="alice", method="session", **members):
    return Identity(subject, method, **members)


def test_asvs_8_2_1_a_creator_passes_on_what_they_have_or_less(shared, alice):
    creator = caller(alice, scopes=frozenset({"read", "write"}), roles=frozenset({"editor", "author"}))
    for scopes, roles in (((), ()), (["read"], ["author"]), (["write", "read"], ["author", "editor"])):
        token = shared.api_tokens.create(alice, "backup", scopes=scopes, roles=roles, creator=creator)
        identity = shared.api_tokens.verify(token)
        assert (identity.scopes, identity.roles) == (set(scopes), set(roles))


def test_asvs_8_2_1_nobody_gets_a_scope_by_a_token_that_they_do_not_have(jam, events):
    creator = caller(scopes=frozenset({"read"}), roles=frozenset({"write", "admin"}))
    wanted = ["write", "read", "admin"]
    error = refused(lambda: jam.api_tokens.create("alice", "x", scopes=wanted, creator=creator), ScopeRequired)
    assert (error.scopes, error.status) == ("admin write", 403)
    assert (jam.api_tokens.list("alice"), events) == ([], [])


def test_asvs_8_2_1_nobody_gets_a_role_by_a_token_that_they_do_not_have(jam, events):
    creator = caller(scopes=frozenset({"admin"}), roles=frozenset({"editor"}))
    error = refused(
        lambda: jam.api_tokens.create("alice", "x", roles=["editor", "admin"], creator=creator), RoleRequired
    )
    assert "'admin'" in error.hint
    assert "editor" not in error.hint
    assert (jam.api_tokens.list("alice"), events) == ([], [])


def test_asvs_6_3_4_a_token_makes_no_tokens_not_even_narrower_ones(shared, alice):
    token = shared.api_tokens.create(alice, "backup", scopes=["read"])
    creator = shared.api_tokens.verify(token)
    refused(lambda: shared.api_tokens.create(alice, "another", creator=creator), MethodRequired)
    assert len(shared.api_tokens.list(alice)) == 1


@pytest.mark.parametrize(
    "creator", [caller("mallory"), ANONYMOUS, caller(None, "jwt"), caller("alice ")], ids=lambda one: ascii(one.subject)
)
def test_asvs_8_2_2_nobody_makes_a_token_for_another(jam, events, creator):
    refused(lambda: jam.api_tokens.create("alice", "backup", creator=creator), AccessDenied)
    assert (jam.api_tokens.list("alice"), events) == ([], [])


def test_asvs_7_4_3_what_a_session_makes_while_everything_is_revoked_does_not_survive_it(shared, alice):
    creator = shared.sessions.verify(shared.sessions.create(alice))
    shared.revoke_all(alice)
    refused(lambda: shared.api_tokens.create(alice, "backup", creator=creator), GenerationOutdated)
    creator = shared.sessions.verify(shared.sessions.create(alice))
    token = shared.api_tokens.create(alice, "backup", creator=creator)
    assert shared.api_tokens.verify(token).subject == alice


def test_a_creator_with_an_access_token_makes_one_after_a_revocation_too(shared, alice):
    shared.revoke_all(alice)
    creator = shared.access_tokens.verify(shared.access_tokens.issue(alice, scopes=["read"]))
    token = shared.api_tokens.create(alice, "backup", scopes=["read"], creator=creator)
    assert shared.api_tokens.verify(token).scopes == {"read"}


def test_a_creator_whose_access_token_knows_of_no_revocation_makes_one_all_the_same(store, clock, alice):
    jam = Jam({"secret": secrets.token_urlsafe(64), "access_tokens": {"stateless": True}}, clock=clock, store=store)
    jam.revoke_all(alice)
    creator = jam.access_tokens.verify(jam.access_tokens.issue(alice))
    token = jam.api_tokens.create(alice, "backup", creator=creator)
    assert jam.api_tokens.verify(token).subject == alice


# -- how long -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lifetime", [None, 1, 3600, 0.5 + 1, timedelta(days=2), MAX_LIFETIME], ids=repr)
def test_a_token_ends_to_the_moment_used_or_not(shared, alice, clock, lifetime):
    token = shared.api_tokens.create(alice, "backup", lifetime=lifetime)
    seconds = {None: LIFETIME, timedelta(days=2): 2 * DAY}.get(lifetime, lifetime)
    assert shared.api_tokens.verify(token).expires_at == clock.now + seconds
    clock.move(seconds - 0.25)
    assert shared.api_tokens.verify(token).subject == alice
    clock.move(0.25)
    dead(shared, token)
    assert (shared.api_tokens.list(alice), shared.api_tokens.get(alice, id_of(token))) == ([], None)
    assert shared.api_tokens.rename(alice, id_of(token), "late") is None
    assert shared.api_tokens.revoke_by_id(alice, id_of(token)) is False


@pytest.mark.parametrize(
    "lifetime",
    [0, 0.5, -1, MAX_LIFETIME + 1, timedelta(0), timedelta.max, math.nan, math.inf, -math.inf, 10**400, "60", True, [], {}],
    ids=lambda lifetime: repr(lifetime)[:20],
)  # fmt: skip
def test_no_token_lives_longer_than_the_settings_allow_or_not_at_all(jam, events, lifetime):
    refused(lambda: jam.api_tokens.create("alice", "backup", lifetime=lifetime), InvalidValue)
    assert (jam.api_tokens.list("alice"), events) == ([], [])


def test_both_lifetimes_are_settings(secret, clock):
    jam = Jam({"secret": secret, "api_tokens": {"lifetime": 60, "max_lifetime": 120}}, clock=clock)
    assert jam.api_tokens.verify(jam.api_tokens.create("alice", "x")).expires_at == clock.now + 60
    assert jam.api_tokens.verify(jam.api_tokens.create("alice", "x", lifetime=120)).expires_at == clock.now + 120
    error = refused(lambda: jam.api_tokens.create("alice", "x", lifetime=121), InvalidValue)
    assert "api_tokens.max_lifetime" in error.hint


def test_nonsense_in_the_settings_is_refused_when_they_are_given(secret):
    with pytest.raises(ConfigError, match="api_tokens"):
        Jam({"secret": secret, "api_tokens": {"lifetime": 120, "max_lifetime": 60}})


# -- when it was used ---------------------------------------------------------------------------------------


def last_use(jam, subject, token):
    return jam.api_tokens.get(subject, id_of(token)).last_used_at


def test_a_token_that_was_never_used_says_so(shared, alice, clock):
    token = shared.api_tokens.create(alice, "backup")
    clock.move(3600)
    shared.api_tokens.list(alice)
    shared.api_tokens.rename(alice, id_of(token), "other")
    assert last_use(shared, alice, token) is None
    assert [each.last_used_at for each in shared.api_tokens.list(alice)] == [None]


@pytest.mark.parametrize("later", [0, 0.5, 30, 3600])
def test_the_first_use_is_noted_even_if_it_comes_at_once(shared, alice, clock, later):
    token = shared.api_tokens.create(alice, "backup")
    clock.move(later)
    shared.api_tokens.verify(token)
    assert last_use(shared, alice, token) == clock.now


def test_a_use_is_noted_at_most_once_a_minute(shared, alice, clock):
    token = shared.api_tokens.create(alice, "backup")
    shared.api_tokens.verify(token)
    then = clock.now
    for _ in range(4):
        clock.move(15)
        shared.api_tokens.verify(token)
    assert last_use(shared, alice, token) == then
    clock.move(0.25)
    shared.api_tokens.verify(token)
    assert last_use(shared, alice, token) == clock.now


def test_a_name_changes_nothing_about_the_last_use(shared, alice, clock):
    token = shared.api_tokens.create(alice, "backup")
    shared.api_tokens.verify(token)
    then = clock.now
    clock.move(600)
    assert shared.api_tokens.rename(alice, id_of(token), "other").last_used_at == then


def test_a_clock_that_goes_back_after_the_first_use_does_not_undo_it(shared, alice, clock):
    token = shared.api_tokens.create(alice, "backup")
    clock.move(-5)
    assert shared.api_tokens.verify(token).subject == alice
    assert last_use(shared, alice, token) == clock.now
    clock.move(-3600)
    assert shared.api_tokens.verify(token).subject == alice
    assert last_use(shared, alice, token) == clock.now + 3600


def test_knowing_the_public_id_does_not_look_like_use(shared, alice, clock):
    token = shared.api_tokens.create(alice, "backup")
    clock.move(600)
    refused(lambda: shared.api_tokens.verify(with_secret(token, "0" * 43)))
    assert last_use(shared, alice, token) is None


def test_a_token_costs_one_trip_to_the_store_and_once_a_minute_two(store, secret, clock, alice):
    counting = CountingStore(store)
    jam = Jam({"secret": secret}, store=counting, clock=clock)
    token = jam.api_tokens.create(alice, "backup")
    trips = []
    for _ in range(6):
        del counting.asked[:]
        jam.api_tokens.verify(token)
        trips.append(counting.asked[:])
        clock.move(30)
    once, twice = ["get"], ["get", "get"]
    assert trips == [twice, once, once, twice, once, once]


# -- what is refused ----------------------------------------------------------------------------------------


def flipped(token, position):
    return token[:position] + ("0" if token[position] != "0" else "1") + token[position + 1 :]


HOSTILE = [
    "", "x", "jam_", "jam__", "\0", "\ud800" * 79, "jam_" * 100_000, "0" * 79, "jam_" + "0" * 25 + "_" + "0" * 49, None, 7, True,
    b"jam_", [], {}, object(), float("nan"), "../../etc/passwd", "' OR 1=1 --", "%00", "a.b.c",
]  # fmt: skip


@pytest.mark.parametrize("token", HOSTILE, ids=lambda token: ascii(token)[:20])
def test_a_hostile_token_is_nobodys(shared, token):
    dead(shared, token)
    assert is_api_token(token) is False


@pytest.mark.parametrize("change", [
    lambda token: token[:-1],
    lambda token: token + "0",
    lambda token: token + "\n",
    lambda token: " " + token,
    lambda token: token.upper(),
    lambda token: token.lower(),
    lambda token: token.swapcase(),
    lambda token: token[4:],
    lambda token: token * 2,
    lambda token: token * 10_000,
    lambda token: token.replace("_", "-"),
    lambda token: token.replace("_", "."),
    lambda token: token.replace("_", "\0"),
    lambda token: token.encode(),
    lambda token: [token],
    lambda token: f"Bearer {token}",
    lambda token: f"{id_of(token)}.{secret_of(token)}",
    lambda token: token[:-6] + "000000",
])  # fmt: skip
def test_an_altered_token_is_nobodys_and_does_no_harm(jam, change):
    token = jam.api_tokens.create("alice", "backup")
    dead(jam, change(token))
    assert jam.api_tokens.verify(token).subject == "alice"


@given(st.one_of(st.text(max_size=100), st.text(DIGITS + "_", max_size=90).map("jam_".__add__), st.binary(), st.none()))
@settings(deadline=None, max_examples=200, database=None)
def test_no_text_is_a_token_by_chance(text):
    dead(Jam({"store": "memory://"}), text)


@given(st.text(DIGITS, min_size=25, max_size=25), st.text(DIGITS, min_size=43, max_size=43))
@settings(deadline=None, max_examples=100, database=None)
def test_no_well_formed_token_is_one_by_chance(name, digits):
    dead(Jam({"store": "memory://"}), checksummed(f"jam_{name}_{digits}"))


@given(st.integers(0, 78), st.characters())
@settings(deadline=None, max_examples=100, database=None)
def test_a_token_with_a_changed_character_is_nobodys(position, character):
    jam = Jam({"store": "memory://"})
    token = jam.api_tokens.create("alice", "backup")
    changed = token[:position] + character + token[position + 1 :]
    if changed != token:
        dead(jam, changed)
    assert jam.api_tokens.verify(token).subject == "alice"


@pytest.mark.parametrize("position", [0, 4, 10, 28, 29, 30, 50, 72, 73, 78])
def test_a_mistyped_token_is_refused_without_asking_the_store(secret, clock, position):
    counting = CountingStore(open_store("memory://"))
    jam = Jam({"secret": secret}, store=counting, clock=clock)
    wrong = flipped(jam.api_tokens.create("alice", "backup"), position)
    del counting.asked[:]
    dead(jam, wrong)
    assert counting.asked == []


@pytest.mark.parametrize("position", [30, 31, 50, 71, 72])
def test_asvs_11_2_4_a_right_id_with_another_secret_is_nobodys(shared, alice, position):
    token = shared.api_tokens.create(alice, "backup")
    dead(shared, checksummed(flipped(token, position)[:-6]))
    assert shared.api_tokens.verify(token).subject == alice


def test_the_secret_of_another_token_is_no_use(shared, alice):
    mine, theirs = shared.api_tokens.create(alice, "mine"), shared.api_tokens.create(f"{alice}-and-bob", "theirs")
    dead(shared, with_secret(theirs, secret_of(mine)))
    assert [shared.api_tokens.revoke(token) for token in (mine, theirs)] == [True, True]


def test_a_record_without_a_check_is_nobodys_token(shared, alice, clock):
    token = shared.api_tokens.create(alice, "backup")
    shared.api_tokens.revoke(token)
    shared.store.add(Record(
        kind="api_token", id=id_of(token), subject=alice, data={"name": "x", "scopes": [], "roles": []},
        created_at=clock.now, touched_at=clock.now, ends_at=clock.now + DAY,
    ), clock.now)  # fmt: skip
    dead(shared, token)


def test_asvs_9_2_2_each_kind_of_credential_is_good_for_its_own_purpose_alone(shared, alice):
    token = shared.api_tokens.create(alice, "backup")
    others = [
        shared.access_tokens.issue(alice),
        shared.refresh_tokens.issue(alice),
        shared.remember_me.issue(alice),
        shared.sessions.create(alice),
    ]
    dead(shared, *others)
    assert [is_api_token(other) for other in others] == [False] * 4
    for part in (shared.access_tokens, shared.refresh_tokens, shared.remember_me, shared.sessions):
        with pytest.raises(CredentialError):
            part.verify(token)


def test_a_text_of_the_right_form_is_told_from_others_without_a_store(jam):
    token = jam.api_tokens.create("alice", "backup")
    jam.api_tokens.revoke(token)
    assert is_api_token(token) is True
    assert not any(is_api_token(flipped(token, position)) for position in range(len(token)))


# -- lists, and whose they are ------------------------------------------------------------------------------


def test_a_token_is_shown_as_it_was_made(shared, alice, clock):
    token = shared.api_tokens.create(alice, "backup", scopes=["read"], roles=["editor"], lifetime=DAY)
    expected = APIToken(
        id=id_of(token), subject=alice, name="backup", scopes=frozenset({"read"}), roles=frozenset({"editor"}),
        created_at=clock.now, last_used_at=None, ends_at=clock.now + DAY,
    )  # fmt: skip
    assert shared.api_tokens.list(alice) == [expected]
    assert shared.api_tokens.get(alice, id_of(token)) == expected


def test_a_list_comes_in_pages_of_ones_own_tokens(shared, alice):
    ids = sorted(id_of(shared.api_tokens.create(alice, f"n{n}")) for n in range(5))
    shared.api_tokens.create(f"{alice}-and-bob", "another's")
    shared.sessions.create(alice)
    first = shared.api_tokens.list(alice, limit=3)
    second = shared.api_tokens.list(alice, first[-1].id, 3)
    assert [token.id for token in (*first, *second)] == ids
    assert shared.api_tokens.list(alice, second[-1].id) == []


@pytest.mark.parametrize("page", [
    {"limit": 0}, {"limit": 1001}, {"limit": True}, {"limit": "1"}, {"limit": None}, {"after": "x"}, {"after": None}, {"after": 7},
    {"after": "\0" * 24}, {"after": "\ud800" * 24},
], ids=ascii)  # fmt: skip
def test_what_is_no_place_in_a_list_is_refused(jam, page):
    refused(lambda: jam.api_tokens.list("alice", **page), InvalidValue)


def test_a_token_is_renamed_and_stays_good(shared, alice, clock):
    token = shared.api_tokens.create(alice, "backup", scopes=["read"], roles=["editor"])
    before = shared.api_tokens.get(alice, id_of(token))
    clock.move(10)
    renamed = shared.api_tokens.rename(alice, id_of(token), " nightly ")
    assert (renamed.name, renamed.scopes, renamed.roles) == ("nightly", {"read"}, {"editor"})
    assert (renamed.created_at, renamed.ends_at) == (before.created_at, before.ends_at)
    assert shared.api_tokens.get(alice, id_of(token)) == renamed
    identity = shared.api_tokens.verify(token)
    assert (identity.payload, identity.scopes, identity.roles) == ({"token_name": "nightly"}, {"read"}, {"editor"})


@pytest.mark.parametrize("mallory", ["mallory", "", "\0", "\ud800", "x" * 300, None, 7, ANONYMOUS.subject], ids=ascii)
def test_asvs_8_2_2_nobody_sees_renames_or_revokes_the_token_of_another(shared, alice, mallory):
    token = shared.api_tokens.create(alice, "backup")
    del shared.heard[:]
    assert shared.api_tokens.get(mallory, id_of(token)) is None
    assert shared.api_tokens.rename(mallory, id_of(token), "stolen") is None
    assert shared.api_tokens.revoke_by_id(mallory, id_of(token)) is False
    assert shared.api_tokens.verify(token).payload == {"token_name": "backup"}
    assert shared.heard == []


@pytest.mark.parametrize("token_id", [
    "", "x", "A" * 24, "A" * 23, "A" * 25, "A" * 23 + "\n", "A" * 24 + "\n", "é" * 24, "\0" * 24, "\ud800" * 24, "*" * 24, "../" * 8, None, 7,
    b"A" * 24, ["A" * 24], {}, "A" * 1_000_000,
], ids=lambda token_id: ascii(token_id)[:30])  # fmt: skip
def test_a_hostile_id_names_nothing(shared, alice, token_id):
    shared.api_tokens.create(alice, "backup")
    assert shared.api_tokens.get(alice, token_id) is None
    assert shared.api_tokens.rename(alice, token_id, "x") is None
    assert shared.api_tokens.revoke_by_id(alice, token_id) is False
    assert len(shared.api_tokens.list(alice)) == 1


def test_the_id_of_another_kind_of_record_names_nothing(shared, alice):
    handle = shared.sessions.create(alice)
    session_id = handle.partition(".")[0]
    assert ID.fullmatch(session_id)
    assert shared.api_tokens.get(alice, session_id) is None
    assert shared.api_tokens.revoke_by_id(alice, session_id) is False
    assert shared.sessions.verify(handle).subject == alice


# -- ending -------------------------------------------------------------------------------------------------


def test_asvs_7_4_1_whoever_holds_a_token_can_revoke_it(shared, alice):
    token, other = shared.api_tokens.create(alice, "backup"), shared.api_tokens.create(alice, "other")
    assert shared.api_tokens.revoke(token) is True
    dead(shared, token)
    assert shared.api_tokens.verify(other).subject == alice
    assert [each.id for each in shared.api_tokens.list(alice)] == [id_of(other)]


def test_asvs_7_4_1_an_owner_revokes_a_token_by_its_public_name(shared, alice):
    token = shared.api_tokens.create(alice, "backup")
    assert shared.api_tokens.revoke_by_id(alice, id_of(token)) is True
    dead(shared, token)
    assert shared.api_tokens.revoke_by_id(alice, id_of(token)) is False


def test_all_tokens_of_a_subject_are_revoked_together(shared, alice):
    tokens = [shared.api_tokens.create(alice, f"n{n}") for n in range(3)]
    bobs, session = shared.api_tokens.create(f"{alice}-and-bob", "x"), shared.sessions.create(alice)
    shared.api_tokens.revoke_all(alice)
    dead(shared, *tokens)
    assert shared.api_tokens.list(alice) == []
    assert shared.api_tokens.verify(bobs).subject == f"{alice}-and-bob"
    assert shared.sessions.verify(session).subject == alice
    new = shared.api_tokens.verify(shared.api_tokens.create(alice, "new"))
    assert (new.subject, new.generation) == (alice, shared.api_tokens.generation(alice))


def test_everyones_tokens_are_revoked_together(shared, alice):
    tokens = [shared.api_tokens.create(subject, "backup") for subject in (alice, f"{alice}-and-bob")]
    before = shared.api_tokens.generation(alice)
    shared.api_tokens.revoke_all(None)
    dead(shared, *tokens)
    assert shared.api_tokens.generation(alice) == before + 1
    assert shared.api_tokens.verify(shared.api_tokens.create(alice, "new")).subject == alice


def test_asvs_7_4_3_revoking_everything_of_a_subject_ends_api_tokens_too(shared, alice):
    token = shared.api_tokens.create(alice, "backup")
    shared.revoke_all(alice)
    dead(shared, token)
    assert "api_token" in shared.heard[-1].kinds


def test_asvs_7_4_3_a_token_of_a_generation_that_was_revoked_is_never_made(shared, alice):
    generation = shared.api_tokens.generation(alice)
    shared.api_tokens.revoke_all(alice)
    refused(lambda: shared.api_tokens.create(alice, "backup", generation=generation), GenerationOutdated)
    assert shared.api_tokens.list(alice) == []


def test_a_token_knows_the_generations_of_its_subject(shared, alice):
    shared.sessions.clear(alice)
    identity = shared.api_tokens.verify(shared.api_tokens.create(alice, "backup"))
    assert identity.generations == shared.store.marks(alice, "", shared.clock()).generations
    assert identity.generations["session"] >= 1


# -- events -------------------------------------------------------------------------------------------------


def test_what_happens_to_tokens_is_told(shared, alice, clock):
    token = shared.api_tokens.create(alice, "backup")
    clock.move(1)
    shared.api_tokens.verify(token)
    shared.api_tokens.revoke(token)
    other = shared.api_tokens.create(alice, "other")
    shared.api_tokens.revoke_by_id(alice, id_of(other))
    shared.api_tokens.revoke_all(alice)
    assert shared.heard == [
        APITokenCreated(at=clock.now - 1, subject=alice, token_id=id_of(token), name="backup"),
        Revoked(at=clock.now, kind="api_token", subject=alice, credential_id=id_of(token)),
        APITokenCreated(at=clock.now, subject=alice, token_id=id_of(other), name="other"),
        Revoked(at=clock.now, kind="api_token", subject=alice, credential_id=id_of(other)),
        SubjectRevoked(at=clock.now, subject=alice, kinds=("api_token",)),
    ]


def test_what_was_not_done_is_not_told(shared, alice):
    token = shared.api_tokens.create(alice, "backup")
    shared.api_tokens.revoke(token)
    del shared.heard[:]
    dead(shared, token)
    shared.api_tokens.revoke_by_id(alice, id_of(token))
    assert shared.heard == []


def test_a_rehearsal_makes_and_revokes_nothing(jam, events):
    token = jam.api_tokens.create("alice", "backup")
    rehearsed = jam.rehearsing()
    rehearsed.api_tokens.verify(token)
    assert rehearsed.api_tokens.revoke(token) is True
    dead(rehearsed, token)
    assert jam.api_tokens.get("alice", id_of(token)).last_used_at is None
    assert len(events) == 1


# -- races --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["revoke", "revoke_by_id", "revoke_all", "jam.revoke_all"])
def test_asvs_7_4_1_a_use_or_a_new_name_never_brings_a_revoked_token_back(shared, alice, clock, ending):
    tokens = shared.api_tokens
    for _ in range(8):
        token = tokens.create(alice, "backup")
        clock.move(61)  # so that every use wants to be noted
        end = {
            "revoke": lambda token=token: tokens.revoke(token),
            "revoke_by_id": lambda token=token: tokens.revoke_by_id(alice, id_of(token)),
            "revoke_all": lambda: tokens.revoke_all(alice),
            "jam.revoke_all": lambda: shared.revoke_all(alice),
        }[ending]

        def use(token=token):
            return tokens.verify(token).subject

        def rename(token=token):
            renamed = tokens.rename(alice, id_of(token), "renamed")
            return None if renamed is None else renamed.name

        ended, one, other, name = together(end, use, use, rename)
        assert ended in (True, None)
        assert {one, other} <= {alice, APITokenInvalid}
        assert name in ("renamed", None)
        dead(shared, token)
        assert tokens.list(alice) == []


def test_a_token_is_revoked_once_by_many_at_once(shared, alice):
    for _ in range(8):
        token = shared.api_tokens.create(alice, "backup")
        del shared.heard[:]
        acts = [
            lambda token=token: shared.api_tokens.revoke(token),
            lambda token=token: shared.api_tokens.revoke_by_id(alice, id_of(token)),
        ]
        assert sorted(together(*acts * (RACERS // 2))) == [False] * (RACERS - 1) + [True]
        assert [type(event) for event in shared.heard] == [Revoked]


def test_asvs_15_4_2_of_many_new_names_at_once_one_is_the_last_and_none_is_half_written(shared, alice):
    for _ in range(5):
        token = shared.api_tokens.create(alice, "backup", scopes=["read"])
        names = [f"name {n}" for n in range(RACERS)]
        rename = functools.partial(shared.api_tokens.rename, alice, id_of(token))
        renamed = together(*[functools.partial(rename, name) for name in names])
        assert [each.name for each in renamed] == names
        assert shared.api_tokens.get(alice, id_of(token)).name in names
        assert record_of(shared, token).version == 1 + RACERS
        assert shared.api_tokens.verify(token).scopes == {"read"}


def test_asvs_7_4_3_a_token_made_while_everything_is_revoked_does_not_survive_it(shared, alice):
    for _ in range(5):
        generation = shared.api_tokens.generation(alice)
        made, _ = together(
            lambda generation=generation: shared.api_tokens.create(alice, "backup", generation=generation),
            lambda: shared.revoke_all(alice),
        )
        if isinstance(made, str):
            dead(shared, made)
        else:
            assert made is GenerationOutdated
        assert shared.api_tokens.list(alice) == []


def test_a_new_name_that_never_wins_says_so_and_writes_nothing(secret, clock):
    jam = Jam({"secret": secret}, clock=clock, store=ContestedStore(open_store("memory://")))
    token = jam.api_tokens.create("alice", "backup")
    refused(lambda: jam.api_tokens.rename("alice", id_of(token), "other"), ConcurrentUpdate)
    assert jam.api_tokens.get("alice", id_of(token)).name == "backup"


class OutdatingStore(ContestedStore):
    """A real store whose swaps find, as the contract has it, that the subject was revoked meanwhile."""

    def swap(self, old, new, now):
        self._store.advance(old.subject, (old.kind,), now)
        raise GenerationOutdated


def test_asvs_7_4_1_a_new_name_for_what_was_revoked_meanwhile_is_no_name(secret, clock):
    jam = Jam({"secret": secret}, clock=clock, store=OutdatingStore(open_store("memory://")))
    token = jam.api_tokens.create("alice", "backup")
    assert jam.api_tokens.rename("alice", id_of(token), "other") is None
    dead(jam, token)


@pytest.mark.parametrize("ending", ["revoke", "revoke_all"])
@pytest.mark.parametrize("verb", ["swap", "take"])
def test_asvs_7_4_1_what_a_revocation_overtakes_does_nothing(shared, clock, alice, ending, verb):
    overtaken, heard = OvertakenStore(shared.store, verb), []
    jam, other = Jam({"secret": secrets.token_urlsafe(64)}, clock=clock, store=overtaken), shared
    token = jam.api_tokens.create(alice, "backup")
    jam.events.subscribe(heard.append)
    overtaken.before = [lambda: getattr(other.api_tokens, ending)(alice if ending == "revoke_all" else token)]
    if verb == "swap":
        assert jam.api_tokens.rename(alice, id_of(token), "other") is None
    else:
        assert jam.api_tokens.revoke(token) is False
    assert (overtaken.before, heard) == ([], [])
    dead(other, token)


def test_asvs_7_4_1_a_token_revoked_while_its_use_is_noted_is_nobodys(store, secret, clock, alice):
    jam = Jam({"secret": secret}, clock=clock, store=store)
    token = jam.api_tokens.create(alice, "backup")

    class RevokedBetween(CountingStore):
        def get(self, kind, record_id, now, touch_after=None):
            if touch_after is not None:
                assert jam.api_tokens.revoke(token) is True
            return store.get(kind, record_id, now, touch_after)

    overtaken = APITokens(RevokedBetween(store), APITokenSettings(), clock=clock, events=Events())
    refused(lambda: overtaken.verify(token))


# -- without a store ----------------------------------------------------------------------------------------


def test_asvs_16_5_3_a_store_that_cannot_be_asked_lets_nobody_pass(secret, clock):
    good = Jam({"secret": secret}, clock=clock).api_tokens.create("alice", "backup")
    jam = Jam({"secret": secret, "store": "sqlite:////no/such/place/jam.db"}, clock=clock)
    tokens, heard = jam.api_tokens, []
    jam.events.subscribe(heard.append)
    for attempt in (
        lambda: tokens.create("alice", "backup"),
        lambda: tokens.create("alice", "backup", generation=0),
        lambda: tokens.verify(good),
        lambda: tokens.list("alice"),
        lambda: tokens.get("alice", id_of(good)),
        lambda: tokens.rename("alice", id_of(good), "other"),
        lambda: tokens.revoke(good),
        lambda: tokens.revoke_by_id("alice", id_of(good)),
        lambda: tokens.revoke_all("alice"),
        lambda: tokens.generation("alice"),
    ):
        refused(attempt, StoreUnavailable)
    assert heard == []
    refused(lambda: tokens.verify(flipped(good, 40)))  # what is bad without asking is bad all the same
