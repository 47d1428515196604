"""Refresh tokens: rotated, found to be in two hands, and ended, on every engine.

Hostile tokens are signed with the real key: only the rule under test can refuse them.
"""

import base64
import contextlib
import itertools
import json
import math
import multiprocessing
import secrets
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import timedelta

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jam import Jam
from jam.crypto.jws import MAX_TOKEN_LENGTH, read_header
from jam.errors import (
    ConcurrentUpdate,
    ConfigError,
    CredentialError,
    GenerationOutdated,
    InvalidValue,
    JamError,
    RefreshTokenReused,
    StoreUnavailable,
    TokenExpired,
    TokenInvalid,
    TokenRevoked,
)
from jam.events import FamilyEnded, FamilyStarted, RefreshReused, RefreshRotated, SubjectRevoked
from jam.identity import ANONYMOUS
from jam.stores import open_store
from jam.testing import MovableClock

MISSING = object()
DAY = 86400
OVERLAP = 10
LIFETIME = 30 * DAY
RACERS = 4
PATIENCE = 60


@pytest.fixture
def app(store, secret, clock):
    """Makes a Jam on the engine under test; its events are in ``heard``."""

    def app(**options):
        jam = Jam({"secret": secret, **options}, store=store, clock=clock)
        jam.heard = []
        jam.events.subscribe(jam.heard.append)
        return jam

    return app


@pytest.fixture
def shared(app):
    return app()


@pytest.fixture
def alice():
    """Somebody of whom the store knows nothing yet."""
    return f"alice-{secrets.token_hex(6)}"


def refused(act, kind=TokenInvalid):
    with pytest.raises(JamError) as caught:
        act()
    assert type(caught.value) is kind
    return caught.value


def dead(jam, *tokens, kind=TokenRevoked):
    """Every one of the tokens is good for nothing."""
    for token in tokens:
        refused(lambda token=token: jam.refresh_tokens.verify(token), kind)
        refused(lambda token=token: jam.refresh_tokens.rotate(token), kind)


def kinds_of(events):
    return [type(event) for event in events]


def family_of(token):
    return json.loads(part(token, 1))["jti"].partition(".")[0]


def part(token, number):
    text = token.split(".")[number]
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def key_of(jam):
    return jam.derived_keys("refresh tokens HS256", for_tokens=True).current


def signed(jam, token, *, header=None, key=None, **changes):
    """A token as the given one, with changes, truly signed; MISSING leaves something out."""
    key = key or key_of(jam)
    parts = []
    for number, change in ((0, header or {}), (1, changes)):
        full = {**json.loads(part(token, number)), **change}
        parts.append(b64(json.dumps({name: value for name, value in full.items() if value is not MISSING}).encode()))
    text = ".".join(parts)
    return f"{text}.{b64(key.sign(text.encode()))}"


def pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


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


# -- what a token is ----------------------------------------------------------------------------------------


def test_a_token_proves_its_subject(shared, alice, clock):
    token = shared.refresh_tokens.issue(alice, authenticated_at=clock.now - 60, amr=["pwd", "otp"])
    identity = shared.refresh_tokens.verify(token)
    assert (identity.subject, identity.method, identity.credential_id) == (alice, "refresh_token", family_of(token))
    assert (identity.amr, identity.authenticated_at) == (("pwd", "otp"), clock.now - 60)
    assert (identity.expires_at, identity.generation) == (clock.now + LIFETIME, 0)
    assert (identity.roles, identity.scopes) == (frozenset(), frozenset())


def test_a_token_says_what_it_is_and_nothing_more(jam, clock):
    token = jam.refresh_tokens.issue("alice")
    assert read_header(token) == {"alg": "HS256", "typ": "refresh+jwt", "kid": key_of(jam).kid}
    payload = json.loads(part(token, 1))
    family, _, number = payload.pop("jti").partition(".")
    assert (len(family), number) == (24, "1")
    assert payload == {
        "iss": "jam", "aud": "jam", "sub": "alice", "iat": clock.now, "exp": clock.now + LIFETIME, "type": "refresh",
    }  # fmt: skip


def test_another_implementation_reads_a_token(jam, clock):
    token = jam.refresh_tokens.issue("alice")
    assert pyjwt.get_unverified_header(token)["typ"] == "refresh+jwt"
    assert pyjwt.decode(token, options={"verify_signature": False})["sub"] == "alice"


def test_a_successor_is_a_token_of_the_same_family_with_the_next_number(shared, alice, clock):
    first = shared.refresh_tokens.issue(alice)
    clock.move(100)
    second = shared.refresh_tokens.rotate(first)
    assert second != first
    before, after = (json.loads(part(token, 1)) for token in (first, second))
    assert after == {**before, "jti": f"{family_of(first)}.2", "iat": before["iat"] + 100}
    assert shared.refresh_tokens.verify(second).subject == alice


def test_every_token_of_a_family_carries_what_it_was_made_with(shared, alice, clock):
    token = shared.refresh_tokens.issue(
        alice, claims={"tenant": "a", "z": {"y": [1, None, "ü"], "x": 0.5}, "b": 2**60}, headers={"device": {"n": 1}},
        amr=["pwd"], authenticated_at=clock.now - 5, details={"name": "Alice's phone"},
    )  # fmt: skip
    for number in range(1, 5):
        payload = json.loads(part(token, 1))
        assert payload["jti"].endswith(f".{number}")
        assert (payload["tenant"], payload["z"], payload["b"]) == ("a", {"y": [1, None, "ü"], "x": 0.5}, 2**60)
        assert (payload["amr"], payload["auth_time"]) == (["pwd"], clock() - 5 - (number - 1) * 20)
        assert read_header(token)["device"] == {"n": 1}
        assert "phone" not in part(token, 1).decode() + part(token, 0).decode()
        identity = shared.refresh_tokens.verify(token)
        assert (identity.amr, identity.payload) == (("pwd",), payload)
        clock.move(20)
        token = shared.refresh_tokens.rotate(token)


def test_the_claims_of_an_expired_superseded_or_revoked_token_can_be_read(shared, alice, clock):
    first = shared.refresh_tokens.issue(alice, claims={"n": 1})
    second = shared.refresh_tokens.rotate(first)
    shared.refresh_tokens.revoke(second)
    clock.move(LIFETIME * 2)
    assert [shared.refresh_tokens.claims(token)["n"] for token in (first, second)] == [1, 1]


# -- rotation: calm within the overlap ----------------------------------------------------------------------


def test_the_same_token_within_the_overlap_gets_the_same_successor(shared, alice, clock):
    first = shared.refresh_tokens.issue(alice)
    clock.move(0.7)
    second = shared.refresh_tokens.rotate(first)
    for _ in range(3):
        clock.move(3.3)
        assert shared.refresh_tokens.rotate(first) == second
    assert kinds_of(shared.heard) == [FamilyStarted, RefreshRotated]


def test_within_the_overlap_both_tokens_are_good(shared, alice, clock):
    first = shared.refresh_tokens.issue(alice)
    second = shared.refresh_tokens.rotate(first)
    clock.move(9.9)
    assert [shared.refresh_tokens.verify(token).subject for token in (first, second)] == [alice, alice]


@pytest.mark.parametrize("length", [2, 12, 32])
def test_a_chain_of_rotations_within_one_overlap_is_told_again_link_by_link(shared, alice, clock, length):
    chain = [shared.refresh_tokens.issue(alice)]
    for _ in range(length):
        clock.move(9 / length)
        chain.append(shared.refresh_tokens.rotate(chain[-1]))
    assert len(set(chain)) == length + 1
    assert [shared.refresh_tokens.rotate(token) for token in chain[:-1]] == chain[1:]
    assert kinds_of(shared.heard).count(RefreshRotated) == length


def test_each_overlap_begins_with_its_own_rotation(shared, alice, clock):
    first = shared.refresh_tokens.issue(alice)
    second = shared.refresh_tokens.rotate(first)
    clock.move(9)
    third = shared.refresh_tokens.rotate(second)
    clock.move(9)
    assert shared.refresh_tokens.rotate(second) == third
    refused(lambda: shared.refresh_tokens.rotate(first), RefreshTokenReused)


def test_the_current_token_is_never_too_old_to_rotate(shared, alice, clock):
    token = shared.refresh_tokens.issue(alice)
    clock.move(20 * DAY)
    token = shared.refresh_tokens.rotate(token)
    clock.move(9 * DAY)
    assert shared.refresh_tokens.verify(shared.refresh_tokens.rotate(token)).subject == alice


@pytest.mark.parametrize("algorithm", ["HS256", "HS512", "ES256", "EdDSA"])
def test_successors_are_the_same_byte_for_byte_whatever_signs_access_tokens(app, alice, algorithm):
    keys = {"ES256": lambda: ec.generate_private_key(ec.SECP256R1()), "EdDSA": ed25519.Ed25519PrivateKey.generate}
    given = {"private_key": pem(keys[algorithm]())} if algorithm in keys else {"algorithm": algorithm}
    jam = app(access_tokens=given)
    assert read_header(jam.access_tokens.issue(alice))["alg"] in (algorithm, "Ed25519")
    first = jam.refresh_tokens.issue(alice)
    assert read_header(first)["alg"] == "HS256"
    assert len({jam.refresh_tokens.rotate(first) for _ in range(3)}) == 1
    assert len(set(together(*[lambda: jam.refresh_tokens.rotate(first)] * RACERS))) == 1


def test_a_remembered_browser_has_an_overlap_of_its_own(shared, alice, clock):
    first = shared.remember_me.issue(alice)
    second = shared.remember_me.rotate(first)
    clock.move(59.9)
    assert shared.remember_me.rotate(first) == second
    clock.move(0.1)
    refused(lambda: shared.remember_me.rotate(first), RefreshTokenReused)
    refused(lambda: shared.remember_me.verify(second), TokenRevoked)


def test_the_overlap_is_a_setting(app, alice, clock):
    jam = app(refresh_tokens={"overlap": 2.5})
    first = jam.refresh_tokens.issue(alice)
    second = jam.refresh_tokens.rotate(first)
    clock.move(2.25)
    assert jam.refresh_tokens.rotate(first) == second
    clock.move(0.25)
    refused(lambda: jam.refresh_tokens.rotate(first), RefreshTokenReused)


# -- rotation: reuse ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", ["rotate", "verify"])
def test_rfc9700_4_14_2_a_superseded_token_that_comes_back_ends_its_family(shared, alice, clock, use):
    chain = [shared.refresh_tokens.issue(alice)]
    for _ in range(3):
        clock.move(60)
        chain.append(shared.refresh_tokens.rotate(chain[-1]))
    bystander = shared.refresh_tokens.issue(alice)
    clock.move(OVERLAP)
    refused(lambda: getattr(shared.refresh_tokens, use)(chain[1]), RefreshTokenReused)
    dead(shared, *chain)
    assert [family.id for family in shared.refresh_tokens.list(alice)] == [family_of(bystander)]
    assert shared.refresh_tokens.verify(bystander).subject == alice


def test_asvs_10_4_5_the_overlap_ends_to_the_moment(shared, alice, clock):
    first = shared.refresh_tokens.issue(alice)
    second = shared.refresh_tokens.rotate(first)
    clock.move(OVERLAP - 0.001)
    assert shared.refresh_tokens.rotate(first) == second
    clock.move(0.001)
    refused(lambda: shared.refresh_tokens.rotate(first), RefreshTokenReused)
    dead(shared, first, second)


def test_reuse_is_told_once_with_whose_and_which_family(shared, alice, clock):
    first = shared.refresh_tokens.issue(alice)
    second = shared.refresh_tokens.rotate(first)
    clock.move(OVERLAP)
    del shared.heard[:]
    for _ in range(3):
        for token in (first, second):
            with pytest.raises(TokenRevoked):
                shared.refresh_tokens.rotate(token)
    assert shared.heard == [
        RefreshReused(at=clock.now, kind="refresh_token", subject=alice, family_id=family_of(first)),
        SubjectRevoked(at=clock.now, subject=alice, kinds=("access_token",)),
    ]


@pytest.mark.parametrize("use", ["rotate", "verify"])
def test_without_an_overlap_every_second_presentation_is_reuse(app, alice, use):
    jam = app(refresh_tokens={"overlap": 0})
    first = jam.refresh_tokens.issue(alice)
    second = jam.refresh_tokens.rotate(first)
    assert jam.refresh_tokens.verify(second).subject == alice
    refused(lambda: getattr(jam.refresh_tokens, use)(first), RefreshTokenReused)
    dead(jam, first, second)


def test_without_an_overlap_a_lagging_clock_gives_none(app, alice, clock):
    jam = app(refresh_tokens={"overlap": 0})
    first = jam.refresh_tokens.issue(alice)
    jam.refresh_tokens.rotate(first)
    clock.move(-1)  # another host, say
    refused(lambda: jam.refresh_tokens.rotate(first), RefreshTokenReused)


def test_a_reused_token_says_so_to_a_client_and_is_a_revoked_one(shared, alice, clock):
    first = shared.refresh_tokens.issue(alice)
    shared.refresh_tokens.rotate(first)
    clock.move(OVERLAP)
    error = refused(lambda: shared.refresh_tokens.rotate(first), RefreshTokenReused)
    assert isinstance(error, TokenRevoked)
    assert (error.status, error.code) == (401, "refresh_token_reused")
    assert first not in str(error) + repr(error.__dict__)


def test_a_superseded_token_that_has_expired_is_expired_and_no_theft(shared, alice, clock):
    first = shared.refresh_tokens.issue(alice)
    second = shared.refresh_tokens.rotate(first)
    clock.move(LIFETIME)
    dead(shared, first, second, kind=TokenExpired)
    assert RefreshReused not in kinds_of(shared.heard)


def test_reading_or_revoking_a_superseded_token_is_no_reuse(shared, alice, clock):
    first = shared.refresh_tokens.issue(alice)
    shared.refresh_tokens.rotate(first)
    clock.move(OVERLAP)
    shared.refresh_tokens.claims(first)
    assert len(shared.refresh_tokens.list(alice)) == 1
    assert shared.refresh_tokens.revoke(first) is True
    assert kinds_of(shared.heard) == [FamilyStarted, RefreshRotated, FamilyEnded]


# -- races among threads ------------------------------------------------------------------------------------


def test_asvs_15_4_2_one_of_many_threads_rotates_and_all_get_its_successor(shared, alice, clock):
    for _ in range(8):
        first = shared.refresh_tokens.issue(alice)
        del shared.heard[:]
        (second,) = set(together(*[lambda first=first: shared.refresh_tokens.rotate(first)] * RACERS))
        assert kinds_of(shared.heard) == [RefreshRotated]
        assert shared.refresh_tokens.verify(second).subject == alice
        assert json.loads(part(second, 1))["jti"] == f"{family_of(first)}.2"


def test_ten_tabs_that_each_go_on_walk_along_one_chain(shared, alice):
    first = shared.refresh_tokens.issue(alice)
    del shared.heard[:]

    def walk():
        chain = [first]
        for _ in range(4):
            chain.append(shared.refresh_tokens.rotate(chain[-1]))
        return tuple(chain)

    (chain,) = set(together(*[walk] * 10))
    assert len(set(chain)) == 5
    assert kinds_of(shared.heard) == [RefreshRotated] * 4


def test_rfc9700_4_14_2_many_thieves_at_once_are_one_theft(shared, alice, clock):
    for _ in range(8):
        first = shared.refresh_tokens.issue(alice)
        second = shared.refresh_tokens.rotate(first)
        clock.move(OVERLAP)
        del shared.heard[:]
        uses = [shared.refresh_tokens.rotate, shared.refresh_tokens.verify] * (RACERS // 2)
        outcomes = together(*[lambda first=first, use=use: use(first) for use in uses])
        assert set(outcomes) <= {RefreshTokenReused, TokenRevoked}
        assert RefreshTokenReused in outcomes
        assert kinds_of(shared.heard) == [RefreshReused, SubjectRevoked]
        dead(shared, first, second)


def test_without_an_overlap_a_race_never_leaves_two_live_branches(app, alice):
    jam = app(refresh_tokens={"overlap": 0})
    for _ in range(5):
        first = jam.refresh_tokens.issue(alice)
        del jam.heard[:]
        outcomes = together(*[lambda first=first: jam.refresh_tokens.rotate(first)] * RACERS)
        (second,) = (outcome for outcome in outcomes if isinstance(outcome, str))
        assert {outcome for outcome in outcomes if outcome != second} <= {RefreshTokenReused, TokenRevoked}
        assert kinds_of(jam.heard).count(RefreshRotated) == kinds_of(jam.heard).count(RefreshReused) == 1
        dead(jam, first, second)


def test_a_thief_and_the_owner_at_once_leave_no_family(shared, alice, clock):
    for _ in range(5):
        first = shared.refresh_tokens.issue(alice)
        second = shared.refresh_tokens.rotate(first)
        clock.move(OVERLAP)
        outcomes = together(
            lambda first=first: shared.refresh_tokens.rotate(first),
            lambda second=second: shared.refresh_tokens.rotate(second),
        )
        assert outcomes[0] is RefreshTokenReused
        dead(shared, first, second, *(one for one in outcomes if isinstance(one, str)))
        assert shared.refresh_tokens.list(alice) == []


@pytest.mark.parametrize("ending", ["revoke", "revoke_by_id", "revoke_all", "jam.revoke_all"])
def test_asvs_7_4_1_a_rotation_never_brings_an_ended_family_back(shared, alice, ending):
    tokens = shared.refresh_tokens
    for _ in range(5):
        first = tokens.issue(alice)
        end = {
            "revoke": lambda first=first: tokens.revoke(first),
            "revoke_by_id": lambda first=first: tokens.revoke_by_id(alice, family_of(first)),
            "revoke_all": lambda: tokens.revoke_all(alice),
            "jam.revoke_all": lambda: shared.revoke_all(alice),
        }[ending]
        ended, *outcomes = together(end, *[lambda first=first: tokens.rotate(first)] * 3)
        assert ended in (True, None)
        assert {one for one in outcomes if not isinstance(one, str)} <= {TokenRevoked}
        dead(shared, first, *(one for one in outcomes if isinstance(one, str)))
        assert tokens.list(alice) == []


def test_asvs_7_4_3_a_sign_in_racing_a_revocation_does_not_survive_it(shared, alice):
    tokens = shared.refresh_tokens
    for _ in range(5):
        generation = tokens.generation(alice)
        issued, _ = together(
            lambda generation=generation: tokens.issue(alice, generation=generation), lambda: shared.revoke_all(alice)
        )
        if isinstance(issued, str):
            dead(shared, issued)
        else:
            assert issued is GenerationOutdated
        assert tokens.list(alice) == []


def test_a_family_is_ended_once_by_many_at_once(shared, alice):
    for _ in range(5):
        token = shared.refresh_tokens.issue(alice)
        del shared.heard[:]
        outcomes = together(*[lambda token=token: shared.refresh_tokens.revoke(token)] * RACERS)
        assert sorted(outcomes) == [False] * (RACERS - 1) + [True]
        assert kinds_of(shared.heard) == [FamilyEnded]


class ContestedStore:
    """A real store in front of which somebody else is always faster."""

    def __init__(self, store):
        self._store = store

    def __getattr__(self, name):
        return getattr(self._store, name)

    def swap(self, old, new, now):
        self._store.swap(old, old, now)
        return self._store.swap(old, new, now)


def test_a_rotation_that_never_wins_says_so_and_writes_nothing(secret, clock):
    jam = Jam({"secret": secret}, clock=clock, store=ContestedStore(open_store("memory://")))
    token = jam.refresh_tokens.issue("alice")
    refused(lambda: jam.refresh_tokens.rotate(token), ConcurrentUpdate)
    clock.move(100)
    assert jam.refresh_tokens.verify(token).subject == "alice"


class OvertakenStore:
    """A real store in which something else happens just before one verb."""

    def __init__(self, store, verb):
        self._store, self._verb, self.before = store, verb, []

    def __getattr__(self, name):
        if name == self._verb and self.before:
            self.before.pop()()
        return getattr(self._store, name)


@pytest.mark.parametrize("ending", ["revoke_all", "revoke"])
def test_asvs_7_4_1_a_rotation_that_a_revocation_overtakes_is_refused(store, secret, clock, ending):
    overtaken = OvertakenStore(store, "swap")
    alice, heard = f"alice-{secrets.token_hex(6)}", []
    jam, other = (Jam({"secret": secret}, clock=clock, store=each) for each in (overtaken, store))
    jam.events.subscribe(heard.append)
    token = jam.refresh_tokens.issue(alice)
    overtaken.before = [lambda: getattr(other.refresh_tokens, ending)(alice if ending == "revoke_all" else token)]
    refused(lambda: jam.refresh_tokens.rotate(token), TokenRevoked)
    assert (overtaken.before, kinds_of(heard)) == ([], [FamilyStarted])


@pytest.mark.parametrize("use", ["revoke", "rotate"])
def test_what_somebody_else_has_just_ended_is_not_told_again(store, secret, clock, use):
    overtaken = OvertakenStore(store, "take")
    alice, heard = f"alice-{secrets.token_hex(6)}", []
    jam, other = (Jam({"secret": secret}, clock=clock, store=each) for each in (overtaken, store))
    first = jam.refresh_tokens.issue(alice)
    jam.refresh_tokens.rotate(first)
    clock.move(OVERLAP)
    jam.events.subscribe(heard.append)
    overtaken.before = [lambda: other.refresh_tokens.revoke(first)]
    if use == "revoke":
        assert jam.refresh_tokens.revoke(first) is False
    else:
        refused(lambda: jam.refresh_tokens.rotate(first), RefreshTokenReused)
    assert (overtaken.before, heard) == ([], [])


# -- races among processes ----------------------------------------------------------------------------------


_barrier = []


def _remember(barrier):
    _barrier[:] = [barrier]


def _race(config, now, use, tokens, steps):
    """In another process: what comes of using each token, ``steps`` links long, and the names of the events."""
    heard = []
    jam = Jam(config, clock=lambda: now)
    jam.events.subscribe(lambda event: heard.append(type(event).__name__))
    jam.store.marks("alice", "", now)  # how it is opened is not what is raced for
    outcomes = []
    for token in tokens:
        _barrier[0].wait(PATIENCE)
        chain = [token]
        try:
            for _ in range(steps):
                chain.append(getattr(jam.refresh_tokens, use)(chain[-1]))
        except JamError as error:
            chain.append(type(error).__name__)
        outcomes.append(tuple(chain))
    jam.store.close()
    return outcomes, heard


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(RACERS)
    with ProcessPoolExecutor(RACERS, context, initializer=_remember, initargs=(barrier,)) as pool:
        yield pool


@pytest.fixture
def race(processes, store, url, secret):
    """Uses each token in all processes at once; gives, by token, what came of it in each, and all events' names."""
    if not store.shared:
        pytest.skip("no other process sees a store in memory")

    def race(*arguments):
        racing = [processes.submit(_race, {"secret": secret, "store": url}, *arguments) for _ in range(RACERS)]
        outcomes, heard = zip(*(future.result(PATIENCE) for future in racing), strict=True)
        return list(zip(*outcomes, strict=True)), list(itertools.chain(*heard))

    return race


def test_asvs_15_4_2_processes_that_rotate_at_once_walk_along_one_chain(shared, alice, race, clock):
    tokens = [shared.refresh_tokens.issue(alice) for _ in range(12)]
    outcomes, heard = race(clock.now + 1.25, "rotate", tokens, 3)
    for token, chains in zip(tokens, outcomes, strict=True):
        (chain,) = set(chains)
        assert chain[0] == token
        assert len(set(chain)) == 4
        assert shared.refresh_tokens.verify(chain[-1]).subject == alice
    assert heard == ["RefreshRotated"] * 12 * 3


def test_rfc9700_4_14_2_processes_that_reuse_at_once_are_one_theft(shared, alice, race, clock):
    tokens = [shared.refresh_tokens.issue(alice) for _ in range(12)]
    successors = [shared.refresh_tokens.rotate(token) for token in tokens]
    outcomes, heard = race(clock.now + OVERLAP, "rotate", tokens, 1)
    for chains in outcomes:
        names = {name for _, name in chains}
        assert "RefreshTokenReused" in names
        assert names <= {"RefreshTokenReused", "TokenRevoked"}
    assert heard == ["RefreshReused", "SubjectRevoked"] * 12
    dead(shared, *tokens, *successors)


# -- a family's life against a model of it ------------------------------------------------------------------


class Model:
    """What a family has to do, in the simplest words."""

    def __init__(self, now, first, overlap, idle_for):
        self.tokens, self.made = [first], [now]
        self.overlap, self.idle_for = overlap, idle_for
        self.ends_at, self.touched_at, self.ended, self.thefts = now + 1000, now, False, 0

    def says(self, number, now):
        """What a use of that token must raise, or ``None``."""
        if now >= self.ends_at:
            return TokenExpired
        if self.ended or (self.idle_for is not None and now >= self.touched_at + self.idle_for):
            self.ended = True
            return TokenRevoked
        if number + 1 < len(self.tokens) and now >= self.made[number + 1] + self.overlap:
            self.ended, self.thefts = True, 1
            return RefreshTokenReused
        if self.idle_for is not None and now - self.touched_at > self.idle_for / 10:  # when a use is noted
            self.touched_at = now
        return None


USES = st.tuples(st.sampled_from(["rotate"] * 4 + ["verify", "revoke", "revoke_all"]), st.integers(0, 4))
MOVES = st.tuples(st.just("move"), st.sampled_from([0.25, 1, 4, 9.75, 10, 30, 119, 500]))
LIVES = st.lists(USES | MOVES, max_size=25)


def live(jam, clock, life):
    """Lives that life with a new family and its model side by side."""
    tokens, subject, options = jam.refresh_tokens, f"model-{secrets.token_hex(6)}", jam.settings.refresh_tokens
    model = Model(clock.now, tokens.issue(subject, lifetime=1000), options.overlap, options.idle_for)
    for act, value in life:
        now, number = clock.now, max(0, len(model.tokens) - 1 - int(value))  # counted back from the current one
        if act == "move":
            clock.move(value)
        elif act == "revoke_all":
            tokens.revoke_all(subject)
            model.ended = True
        elif act == "revoke":
            idle = model.idle_for is not None and now >= model.touched_at + model.idle_for
            assert tokens.revoke(model.tokens[number]) is not (model.ended or idle or now >= model.ends_at)
            model.ended = True
        elif (error := model.says(number, now)) is not None:
            refused(lambda number=number, act=act: getattr(tokens, act)(model.tokens[number]), error)
        elif act == "verify":
            assert tokens.verify(model.tokens[number]).subject == subject
        else:
            successor = tokens.rotate(model.tokens[number])
            if number + 1 == len(model.tokens):
                assert successor not in model.tokens
                model.tokens.append(successor)
                model.made.append(now)
            assert successor == model.tokens[number + 1]
    assert kinds_of(jam.heard).count(RefreshReused) == model.thefts
    assert kinds_of(jam.heard).count(RefreshRotated) == len(model.tokens) - 1


@pytest.mark.parametrize("overlap", [0, 10])
@pytest.mark.parametrize("idle_for", [None, 120])
def test_a_family_lives_as_its_model_says(store, url, secret, overlap, idle_for):
    embedded = url.startswith(("memory", "sqlite"))

    @settings(
        max_examples=120 if embedded else 25, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(LIVES)
    def lives(life):
        clock = MovableClock()
        config = {"secret": secret, "refresh_tokens": {"overlap": overlap, "idle_for": idle_for}}
        jam = Jam(config, store=store, clock=clock)
        jam.heard = []
        jam.events.subscribe(jam.heard.append)
        live(jam, clock, life)

    lives()


# -- two ends of life ---------------------------------------------------------------------------------------


def test_asvs_7_3_2_rotation_does_not_extend_the_end(shared, alice, clock):
    token = shared.refresh_tokens.issue(alice)
    ends_at = clock.now + LIFETIME
    chain = [token]
    for _ in range(29):
        clock.move(DAY)
        chain.append(shared.refresh_tokens.rotate(chain[-1]))
        assert json.loads(part(chain[-1], 1))["exp"] == ends_at
        assert shared.refresh_tokens.verify(chain[-1]).expires_at == ends_at
    clock.now = ends_at - 0.001
    assert shared.refresh_tokens.verify(chain[-1]).subject == alice
    clock.now = ends_at
    dead(shared, *chain, kind=TokenExpired)
    assert shared.refresh_tokens.list(alice) == []


def test_asvs_10_4_8_a_rotation_within_the_last_second_gives_a_token_for_that_second(shared, alice, clock):
    first = shared.refresh_tokens.issue(alice, lifetime=60)
    clock.move(59.5)
    second = shared.refresh_tokens.rotate(first)
    assert shared.refresh_tokens.verify(second).subject == alice
    clock.move(0.5)
    dead(shared, first, second, kind=TokenExpired)


def test_asvs_7_3_1_an_idle_family_is_dead(app, alice, clock):
    jam = app(refresh_tokens={"idle_for": 3600})
    token = jam.refresh_tokens.issue(alice)
    clock.move(3599)
    token = jam.refresh_tokens.rotate(token)
    clock.move(3599)
    assert jam.refresh_tokens.verify(token).subject == alice
    clock.move(3599)
    assert jam.refresh_tokens.verify(token).subject == alice
    clock.move(3600)
    dead(jam, token)
    assert jam.refresh_tokens.list(alice) == []
    assert RefreshReused not in kinds_of(jam.heard)


def test_asvs_7_3_2_no_use_extends_the_end_of_a_family_that_could_idle(app, alice, clock):
    jam = app(refresh_tokens={"idle_for": 3600, "lifetime": 7000})
    token = jam.refresh_tokens.issue(alice)
    clock.move(3500)
    token = jam.refresh_tokens.rotate(token)
    clock.move(3499)
    token = jam.refresh_tokens.rotate(token)
    clock.move(1)
    dead(jam, token, kind=TokenExpired)


def test_without_an_idle_end_a_family_may_rest_until_its_end(shared, alice, clock):
    token = shared.refresh_tokens.issue(alice)
    clock.move(LIFETIME - 1)
    assert shared.refresh_tokens.verify(token).subject == alice


@pytest.mark.parametrize("lifetime", [60, 60.0, 60.9, timedelta(minutes=1)])
def test_a_family_may_be_made_to_end_sooner(jam, clock, lifetime):
    token = jam.refresh_tokens.issue("alice", lifetime=lifetime)
    assert jam.refresh_tokens.verify(token).expires_at == clock.now + 60
    clock.move(60)
    dead(jam, token, kind=TokenExpired)


@pytest.mark.parametrize(
    "lifetime",
    [0, 0.5, -1, LIFETIME + 1, timedelta(0), timedelta.max, math.nan, math.inf, -math.inf, 10**400, "60", True, [], {}],
    ids=repr,
)
def test_asvs_10_4_8_no_family_lives_longer_than_the_settings_allow_or_not_at_all(jam, events, lifetime):
    refused(lambda: jam.refresh_tokens.issue("alice", lifetime=lifetime), InvalidValue)
    assert (jam.refresh_tokens.list("alice"), events) == ([], [])


@pytest.mark.parametrize("section", ["refresh_tokens", "remember_me"])
@pytest.mark.parametrize("wrong", [
    {"overlap": -1}, {"overlap": 301}, {"overlap": math.nan}, {"overlap": "10"}, {"lifetime": 0}, {"lifetime": math.inf},
    {"idle_for": 0}, {"idle_for": 20, "lifetime": 10}, {"rotate": True},
])  # fmt: skip
def test_nonsense_in_the_settings_is_refused_when_they_are_given(secret, section, wrong):
    with pytest.raises(ConfigError) as caught:
        Jam({"secret": secret, section: wrong})
    assert section in str(caught.value)


# -- clocks -------------------------------------------------------------------------------------------------


def test_a_clock_that_goes_back_makes_no_thief_of_anybody(shared, alice, clock):
    first = shared.refresh_tokens.issue(alice)
    second = shared.refresh_tokens.rotate(first)
    clock.move(-5)
    assert shared.refresh_tokens.rotate(first) == second
    third = shared.refresh_tokens.rotate(second)
    assert shared.refresh_tokens.rotate(second) == third
    assert [shared.refresh_tokens.verify(token).subject for token in (first, second, third)] == [alice] * 3
    assert RefreshReused not in kinds_of(shared.heard)


def test_after_a_clock_went_back_reuse_is_found_again_in_the_end(shared, alice, clock):
    first = shared.refresh_tokens.issue(alice)
    clock.move(-5)
    second = shared.refresh_tokens.rotate(first)
    clock.move(OVERLAP)
    refused(lambda: shared.refresh_tokens.verify(first), RefreshTokenReused)
    dead(shared, first, second)


def test_a_family_shows_when_its_current_token_was_made_even_after_a_clock_went_back(jam, clock):
    first = jam.refresh_tokens.issue("alice")
    clock.move(-5)
    jam.refresh_tokens.rotate(first)
    assert [family.rotated_at for family in jam.refresh_tokens.list("alice")] == [clock.now]


def test_a_clock_that_counts_whole_seconds_is_as_good(secret):
    now = [1_800_000_000]
    jam = Jam({"secret": secret}, clock=lambda: now[0])
    first = jam.refresh_tokens.issue("alice")
    second = jam.refresh_tokens.rotate(first)
    now[0] += 9
    assert jam.refresh_tokens.rotate(first) == second


# -- ending -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1, 2])
def test_asvs_7_4_1_any_token_of_a_family_ends_all_of_them(shared, alice, clock, which):
    chain = [shared.refresh_tokens.issue(alice)]
    for _ in range(2):
        clock.move(60)
        chain.append(shared.refresh_tokens.rotate(chain[-1]))
    other = shared.refresh_tokens.issue(alice)
    assert shared.refresh_tokens.revoke(chain[which]) is True
    dead(shared, *chain)
    assert shared.refresh_tokens.revoke(chain[which]) is False
    assert shared.refresh_tokens.verify(other).subject == alice


def test_an_identity_ends_the_family_that_proved_it(shared, alice):
    token = shared.refresh_tokens.issue(alice)
    assert shared.refresh_tokens.revoke(shared.refresh_tokens.verify(token)) is True
    dead(shared, token)


def test_an_identity_proved_otherwise_ends_no_family(jam):
    token = jam.remember_me.issue("alice")
    others = [
        jam.remember_me.verify(token),
        jam.access_tokens.verify(jam.access_tokens.issue("alice")),
        jam.sessions.verify(jam.sessions.create("alice")),
        ANONYMOUS,
    ]
    for identity in others:
        refused(lambda identity=identity: jam.refresh_tokens.revoke(identity), InvalidValue)
    assert jam.remember_me.verify(token).subject == "alice"


def test_what_has_expired_needs_no_ending(shared, alice, clock):
    token = shared.refresh_tokens.issue(alice, lifetime=60)
    clock.move(60)
    assert shared.refresh_tokens.revoke(token) is False
    assert FamilyEnded not in kinds_of(shared.heard)


def test_asvs_10_4_9_a_family_is_ended_by_its_public_name(shared, alice):
    token = shared.refresh_tokens.issue(alice)
    assert shared.refresh_tokens.revoke_by_id(alice, family_of(token)) is True
    dead(shared, token)
    assert shared.refresh_tokens.revoke_by_id(alice, family_of(token)) is False


@pytest.mark.parametrize("mallory", ["mallory", "", "\0", "x" * 300])
def test_asvs_8_2_2_nobody_ends_the_family_of_another(shared, alice, mallory):
    token = shared.refresh_tokens.issue(alice)
    assert shared.refresh_tokens.revoke_by_id(mallory, family_of(token)) is False
    assert shared.refresh_tokens.verify(token).subject == alice


def test_asvs_8_2_2_the_anonymous_caller_ends_nobodys_family(shared, alice):
    token = shared.refresh_tokens.issue(alice)
    with contextlib.suppress(InvalidValue):
        assert shared.refresh_tokens.revoke_by_id(ANONYMOUS.subject, family_of(token)) is False
    assert shared.refresh_tokens.verify(token).subject == alice


@pytest.mark.parametrize("family_id", ["\ud800", "a\0b", "", "x" * 1000, "é" * 24, "A" * 24 + "\n"], ids=ascii)
def test_an_id_nobody_can_have_ends_nothing(shared, alice, family_id):
    assert shared.refresh_tokens.revoke_by_id(alice, family_id) is False


@pytest.mark.parametrize("family_id", [None, 7, b"A" * 24, []], ids=repr)
def test_an_id_that_is_no_text_ends_nothing_either(jam, family_id):
    with contextlib.suppress(InvalidValue):
        assert jam.refresh_tokens.revoke_by_id("alice", family_id) is False


def test_asvs_7_4_3_everything_of_one_kind_that_a_subject_holds_is_ended(shared, alice):
    bob = f"bob-{alice}"
    mine = [shared.refresh_tokens.issue(alice) for _ in range(3)]
    mine.append(shared.refresh_tokens.rotate(mine[0]))
    remembered, others = shared.remember_me.issue(alice), shared.refresh_tokens.issue(bob)
    del shared.heard[:]
    shared.refresh_tokens.revoke_all(alice)
    dead(shared, *mine)
    assert shared.refresh_tokens.list(alice) == []
    assert shared.remember_me.verify(remembered).subject == alice
    assert shared.refresh_tokens.verify(others).subject == bob
    assert kinds_of(shared.heard) == [SubjectRevoked]
    assert (shared.heard[0].subject, shared.heard[0].kinds) == (alice, ("refresh_token",))


def test_asvs_7_4_3_revoking_a_subject_ends_families_of_both_kinds_and_a_new_sign_in_works(shared, alice):
    token, remembered = shared.refresh_tokens.issue(alice), shared.remember_me.issue(alice)
    shared.revoke_all(alice)
    dead(shared, token)
    refused(lambda: shared.remember_me.rotate(remembered), TokenRevoked)
    again = shared.refresh_tokens.issue(alice)
    assert shared.refresh_tokens.verify(shared.refresh_tokens.rotate(again)).subject == alice


def test_everyone_can_be_revoked(shared, alice):
    tokens = [shared.refresh_tokens.issue(one) for one in (alice, f"bob-{alice}")]
    shared.refresh_tokens.revoke_all(None)
    dead(shared, *tokens)
    assert shared.refresh_tokens.verify(shared.refresh_tokens.issue(alice)).subject == alice


def test_a_sign_in_that_began_before_a_revocation_is_refused(shared, alice):
    before = shared.refresh_tokens.generation(alice)
    shared.revoke_all(alice)
    del shared.heard[:]
    refused(lambda: shared.refresh_tokens.issue(alice, generation=before), GenerationOutdated)
    assert (shared.refresh_tokens.list(alice), shared.heard) == ([], [])
    after = shared.refresh_tokens.generation(alice)
    assert after == before + 1
    token = shared.refresh_tokens.issue(alice, generation=after)
    assert shared.refresh_tokens.verify(token).generation == after


def test_each_kind_has_generations_of_its_own(shared, alice):
    before = shared.remember_me.generation(alice)
    shared.refresh_tokens.revoke_all(alice)
    token = shared.remember_me.issue(alice, generation=before)
    assert shared.remember_me.verify(token).subject == alice


# -- lists --------------------------------------------------------------------------------------------------


def test_asvs_10_4_9_a_list_shows_families_and_nothing_to_sign_in_with(shared, alice, clock):
    made_at = clock.now
    first = shared.refresh_tokens.issue(
        alice, amr=["pwd"], authenticated_at=made_at - 7, details={"name": "phone", "n": [1]}, claims={"tenant": "a"}
    )
    clock.move(100.5)
    token = shared.refresh_tokens.rotate(first)
    (family,) = shared.refresh_tokens.list(alice)
    assert (family.id, family.subject) == (family_of(token), alice)
    assert (family.created_at, family.rotated_at, family.ends_at) == (made_at, clock.now, made_at + LIFETIME)
    assert (family.authenticated_at, family.amr, family.details) == (
        made_at - 7,
        ("pwd",),
        {"name": "phone", "n": [1]},
    )
    assert token.rpartition(".")[2] not in repr(family)


def test_a_list_is_turned_page_by_page(shared, alice):
    ids = sorted(family_of(shared.refresh_tokens.issue(alice)) for _ in range(7))
    shared.remember_me.issue(alice)
    shared.refresh_tokens.issue(f"bob-{alice}")
    pages, after = [], ""
    while page := [family.id for family in shared.refresh_tokens.list(alice, after, 3)]:
        pages.append(page)
        after = page[-1]
    assert pages == [ids[:3], ids[3:6], ids[6:]]
    assert [family.id for family in shared.refresh_tokens.list(alice)] == ids


@pytest.mark.parametrize("after", ["\ud800", "\0", "x" * 9999, "é", "zz\n"], ids=ascii)
def test_a_page_after_an_id_nobody_can_have_is_a_page_or_refused_as_such(shared, alice, after):
    shared.refresh_tokens.issue(alice)
    with contextlib.suppress(InvalidValue):
        assert len(shared.refresh_tokens.list(alice, after)) in (0, 1)
    assert len(shared.refresh_tokens.list(alice)) == 1


def test_nobody_has_no_families(shared):
    assert shared.refresh_tokens.list("") == []


# -- events and secrets -------------------------------------------------------------------------------------


def test_a_familys_life_is_told_in_order(shared, alice, clock):
    first = shared.refresh_tokens.issue(alice)
    clock.move(1)
    second = shared.refresh_tokens.rotate(first)
    clock.move(1)
    shared.refresh_tokens.revoke(second)
    about = {"kind": "refresh_token", "subject": alice, "family_id": family_of(first)}
    assert shared.heard == [
        FamilyStarted(at=clock.now - 2, **about),
        RefreshRotated(at=clock.now - 1, **about),
        FamilyEnded(at=clock.now, **about),
    ]


def test_no_event_and_no_record_holds_a_token_or_its_signature(shared, alice, clock):
    chain = [shared.remember_me.issue(alice, details={"name": "phone"})]
    for _ in range(3):
        clock.move(30)
        chain.append(shared.remember_me.rotate(chain[-1]))
        record = shared.store.get("remember_me", family_of(chain[0]), clock.now).record
        assert record.check == b""
        for token in chain:
            assert token.rpartition(".")[2] not in repr(record)
            assert token.partition(".")[0] not in repr(record)
    clock.move(60)
    with pytest.raises(RefreshTokenReused):
        shared.remember_me.verify(chain[0])
    assert {event.kind for event in shared.heard} == {"remember_me"}
    assert not [token for token in chain if token.rpartition(".")[2] in repr(shared.heard)]


def test_a_listener_that_fails_disturbs_no_rotation(jam):
    def fail(event):
        raise ValueError("of its own")

    jam.events.subscribe(fail)
    token = jam.refresh_tokens.rotate(jam.refresh_tokens.issue("alice"))
    assert jam.refresh_tokens.verify(token).subject == "alice"


def test_a_record_stays_small_however_often_its_family_rotates(shared, alice, clock):
    token = shared.refresh_tokens.issue(alice)
    for _ in range(100):
        clock.move(0.05)
        token = shared.refresh_tokens.rotate(token)
    record = shared.store.get("refresh_token", family_of(token), clock.now).record
    assert len(json.dumps(record.data)) < 1200
    clock.move(60)
    shared.refresh_tokens.rotate(token)
    record = shared.store.get("refresh_token", family_of(token), clock.now).record
    assert len(json.dumps(record.data)) < 100


# -- what is refused ----------------------------------------------------------------------------------------


def refused_everywhere(tokens, token, kind=TokenInvalid):
    for use in (tokens.verify, tokens.rotate):
        refused(lambda use=use: use(token), kind)


@pytest.mark.parametrize("change", [
    lambda token: "",
    lambda token: "x",
    lambda token: "..",
    lambda token: token[:-1],
    lambda token: token + "A",
    lambda token: token[:-2] + ("AA" if token[-2:] != "AA" else "BA"),
    lambda token: token.rpartition(".")[0] + ".",
    lambda token: token.rpartition(".")[0],
    lambda token: " " + token,
    lambda token: token + "\n",
    lambda token: token + "=",
    lambda token: token.encode(),
    lambda token: None,
    lambda token: 7,
    lambda token: [token],
    lambda token: "\ud800" * 200,
    lambda token: token.replace(".", "\0.", 1),
    lambda token: token * 1000,
    lambda token: b64(b'{"alg":"none","typ":"refresh+jwt"}') + "." + token.split(".")[1] + ".",
])  # fmt: skip
def test_asvs_9_1_1_an_altered_token_is_nobodys(jam, change):
    token = jam.refresh_tokens.issue("alice")
    wrong = change(token)
    refused_everywhere(jam.refresh_tokens, wrong)
    refused(lambda: jam.refresh_tokens.revoke(wrong))
    refused(lambda: jam.refresh_tokens.claims(wrong))
    assert jam.refresh_tokens.verify(token).subject == "alice"


@settings(max_examples=100, deadline=None, database=None)
@given(st.text(max_size=100))
def test_no_text_is_a_token_by_chance(text):
    refused_everywhere(Jam({"store": "memory://"}).refresh_tokens, text)


@pytest.mark.parametrize("header", [
    {"typ": "JWT"}, {"typ": "at+jwt"}, {"typ": "remember-me+jwt"}, {"typ": MISSING}, {"typ": None}, {"typ": ["refresh+jwt"]},
    {"typ": "refresh"}, {"alg": "none"}, {"alg": "HS512"}, {"alg": "ES256"}, {"alg": "hs256"}, {"alg": MISSING}, {"alg": None},
    {"kid": "another"}, {"kid": ""}, {"kid": None}, {"kid": 7}, {"kid": "../../dev/null"}, {"crit": ["exp"]}, {"b64": False},
    {"zip": "DEF"},
], ids=str)  # fmt: skip
def test_rfc8725_3_11_a_header_of_another_type_algorithm_or_key_is_refused(jam, header):
    token = jam.refresh_tokens.issue("alice")
    refused_everywhere(jam.refresh_tokens, signed(jam, token, header=header))
    assert jam.refresh_tokens.verify(signed(jam, token)).subject == "alice"  # so it was that change


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "exp", "jti"])
@pytest.mark.parametrize("value", [MISSING, None, 7.5, "", [], ["jam"], {}, True, "mallory"], ids=str)
def test_a_claim_that_is_not_as_it_was_signed_for_is_refused(jam, name, value):
    if (name, value) == ("exp", 7.5):
        value = "1800000100"
    wrong = signed(jam, jam.refresh_tokens.issue("alice"), **{name: value})
    with pytest.raises(TokenInvalid):
        jam.refresh_tokens.verify(wrong)
    with pytest.raises(TokenInvalid):
        jam.refresh_tokens.rotate(wrong)
    assert len(jam.refresh_tokens.list("alice")) == 1


@pytest.mark.parametrize("jti", [
    "", "{}", "{}.", "{}.0", "{}.-1", "{}.01", "{}.+1", "{}.1.1", "{}. 1", "{}.1\n", "{}.\u00b9", "{}.\uff11", "{}.1e3", ".1", "x.1",
    "{}x.1", "{}.9999999999999999", "{}.\0", "{}.1" + "1" * 5000, "../{}.1",
], ids=ascii)  # fmt: skip
def test_a_jti_has_one_spelling(jam, jti):
    token = jam.refresh_tokens.issue("alice")
    refused_everywhere(jam.refresh_tokens, signed(jam, token, jti=jti.replace("{}", family_of(token))))
    assert jam.refresh_tokens.verify(token).subject == "alice"


def test_a_token_of_a_family_that_never_was_is_refused(shared, alice):
    token = shared.refresh_tokens.issue(alice)
    refused_everywhere(shared.refresh_tokens, signed(shared, token, jti="A" * 24 + ".1"), TokenRevoked)


def test_a_token_with_another_subject_than_its_familys_is_refused(shared, alice):
    token = shared.refresh_tokens.issue(alice)
    refused_everywhere(shared.refresh_tokens, signed(shared, token, sub="mallory"), TokenRevoked)
    assert shared.refresh_tokens.verify(token).subject == alice


@pytest.mark.parametrize("number", [2, 3, 999_999_999_999_999])
def test_a_number_beyond_the_record_is_refused_and_harms_nobody(shared, alice, number):
    token = shared.refresh_tokens.issue(alice)
    ahead = signed(shared, token, jti=f"{family_of(token)}.{number}")
    refused_everywhere(shared.refresh_tokens, ahead, TokenRevoked)
    assert shared.refresh_tokens.verify(token).subject == alice


def test_a_token_newer_than_a_restored_backup_is_refused(shared, alice, clock):
    first = shared.refresh_tokens.issue(alice)
    second = shared.refresh_tokens.rotate(first)
    backup = shared.store.get("refresh_token", family_of(first), clock.now).record
    clock.move(60)
    third = shared.refresh_tokens.rotate(second)
    shared.store.remove("refresh_token", family_of(first))
    shared.store.add(backup, clock.now)
    refused_everywhere(shared.refresh_tokens, third, TokenRevoked)
    assert RefreshReused not in kinds_of(shared.heard)
    assert shared.refresh_tokens.verify(second).subject == alice


def test_asvs_9_2_2_each_kind_of_credential_is_good_for_its_own_purpose_alone(shared, alice):
    credentials = {
        "access_tokens": shared.access_tokens.issue(alice),
        "refresh_tokens": shared.refresh_tokens.issue(alice),
        "remember_me": shared.remember_me.issue(alice),
        "sessions": shared.sessions.create(alice),
    }
    for (purpose, right), (name, presented) in itertools.product(credentials.items(), repeat=2):
        if name == purpose:
            assert getattr(shared, purpose).verify(right).subject == alice
        else:
            with pytest.raises(CredentialError):
                getattr(shared, purpose).verify(presented)
    for purpose, name in itertools.permutations(("access_tokens", "refresh_tokens", "remember_me"), 2):
        if purpose != "access_tokens":
            refused(lambda purpose=purpose, name=name: getattr(shared, purpose).rotate(credentials[name]))
            refused(lambda purpose=purpose, name=name: getattr(shared, purpose).revoke(credentials[name]))


def test_rfc8725_3_12_even_under_one_key_the_type_tells_the_kinds_apart(jam):
    token = jam.refresh_tokens.issue("alice")
    key = jam.derived_keys("remember me HS256").current
    refused_everywhere(jam.remember_me, signed(jam, token, key=key, header={"kid": key.kid}))
    right_type = signed(jam, token, key=key, header={"kid": key.kid, "typ": "remember-me+jwt"})
    refused_everywhere(jam.remember_me, right_type, TokenRevoked)  # the family is of another kind


@pytest.mark.parametrize(
    "options",
    [
        {"name": "another"},
        {"access_tokens": {"issuer": "another"}},
        {"access_tokens": {"audience": "another"}},
        {"secret": secrets.token_urlsafe(64)},
        {"access_tokens": {"secret": secrets.token_urlsafe(64)}},
    ],
    ids=["name", "issuer", "audience", "secret", "access_tokens.secret"],
)
def test_asvs_9_2_3_a_token_of_another_app_on_the_same_store_is_refused(app, alice, options):
    one, other = app(), app(**options)
    token = one.refresh_tokens.issue(alice)
    refused_everywhere(other.refresh_tokens, token)
    refused(lambda: other.refresh_tokens.revoke(token))
    assert one.refresh_tokens.verify(token).subject == alice


def test_asvs_11_2_2_tokens_of_a_former_secret_are_good_and_get_successors_of_the_new_one(app, alice, secret):
    new = secrets.token_urlsafe(64)
    first = app().refresh_tokens.issue(alice)
    moved, forgetful = app(secret=new, secret_fallbacks=[secret]), app(secret=new)
    refused_everywhere(forgetful.refresh_tokens, first)
    assert moved.refresh_tokens.verify(first).subject == alice
    second = moved.refresh_tokens.rotate(first)
    assert moved.refresh_tokens.rotate(first) == second
    assert forgetful.refresh_tokens.verify(second).subject == alice
    refused_everywhere(app().refresh_tokens, second)


def test_a_remembered_browser_outlives_a_new_secret_too(app, alice, secret):
    first = app().remember_me.issue(alice)
    moved = app(secret=secrets.token_urlsafe(64), secret_fallbacks=[secret])
    assert moved.remember_me.verify(moved.remember_me.rotate(first)).subject == alice


# -- arguments ----------------------------------------------------------------------------------------------


def nested(depth):
    value = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def cyclic():
    value = {}
    value["a"] = value
    return value


UNFIT = {
    "no mapping": [1], "a text": "x", "a number": 7, "a key that is no text": {1: 2}, "no key at all": {None: 1},
    "NaN": {"a": math.nan}, "infinity": {"a": math.inf}, "a lone surrogate": {"a": "\ud800"}, "one in a key": {"\ud800": 1},
    "bytes": {"a": b"x"}, "a tuple": {"a": (1,)}, "an object": {"a": object()}, "too deep": nested(100_000), "a ring": cyclic(),
    "huge": {"a": "x" * 5_000_000},
}  # fmt: skip


@pytest.mark.parametrize("option", ["claims", "headers", "details"])
@pytest.mark.parametrize("value", UNFIT.values(), ids=UNFIT)
def test_what_cannot_be_kept_as_it_is_is_refused_and_nothing_is_made(jam, events, option, value):
    refused(lambda: jam.refresh_tokens.issue("alice", **{option: value}), InvalidValue)
    assert (jam.refresh_tokens.list("alice"), events) == ([], [])


@pytest.mark.parametrize("option", ["claims", "headers"])
def test_what_is_nested_deeper_than_a_verifier_reads_is_refused(jam, option):
    refused(lambda: jam.refresh_tokens.issue("alice", **{option: nested(33)}), InvalidValue)
    token = jam.refresh_tokens.issue("alice", **{option: nested(30)})
    assert jam.refresh_tokens.verify(jam.refresh_tokens.rotate(token)).subject == "alice"


def test_details_nested_as_deep_as_they_are_taken_can_be_read_in_a_deep_stack(jam):
    for depth in (900, 800, 600, 400, 200, 100, 20):
        with contextlib.suppress(InvalidValue):
            jam.refresh_tokens.issue("alice", details=nested(depth))

    def read(frames):
        return read(frames - 1) if frames else jam.refresh_tokens.list("alice")

    limit = sys.getrecursionlimit()
    here = sum(1 for _ in frames_of(sys._getframe()))
    assert nested(20) in [family.details for family in read((limit - here) // 2)]


def frames_of(frame):
    while frame is not None:
        yield frame
        frame = frame.f_back


@pytest.mark.parametrize(
    "name", ["iss", "aud", "sub", "iat", "nbf", "exp", "jti", "client_id", "auth_time", "amr", "type"]
)
def test_a_claim_that_jam_sets_is_not_the_callers(jam, name):
    error = refused(lambda: jam.refresh_tokens.issue("alice", claims={"fine": 1, name: "x"}), InvalidValue)
    assert name in str(error)


@pytest.mark.parametrize("name", ["alg", "typ", "kid", "crit", "b64", "zip", "enc", "jku", "jwk", "x5u", "x5c"])
def test_a_header_with_a_meaning_is_not_the_callers(jam, name):
    error = refused(lambda: jam.refresh_tokens.issue("alice", headers={"fine": 1, name: "x"}), InvalidValue)
    assert name in str(error)


@pytest.mark.parametrize("subject", ["", "\ud800", "a\0b", "x" * 256, 7, None, b"alice", True], ids=ascii)
def test_asvs_15_3_5_nobody_can_have_such_a_name(jam, events, subject):
    refused(lambda: jam.refresh_tokens.issue(subject), InvalidValue)
    if subject != "":
        refused(lambda: jam.refresh_tokens.generation(subject), InvalidValue)
        refused(lambda: jam.refresh_tokens.list(subject), InvalidValue)
    if subject is not None:
        refused(lambda: jam.refresh_tokens.revoke_all(subject), InvalidValue)
    assert events == []


@pytest.mark.parametrize("subject", ["x" * 255, "é" * 255, "🙂", "'; DROP TABLE jam_records; --", " ", "a:b{c}*"])
def test_any_other_name_is_somebodys(shared, subject):
    token = shared.refresh_tokens.issue(subject)
    assert shared.refresh_tokens.verify(shared.refresh_tokens.rotate(token)).subject == subject
    assert shared.refresh_tokens.revoke(token) is True


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "x", "5", [], True, b"5"], ids=repr)
def test_a_time_of_authentication_that_is_no_time_is_refused(jam, events, value):
    refused(lambda: jam.refresh_tokens.issue("alice", authenticated_at=value), InvalidValue)
    assert events == []


@pytest.mark.parametrize("value", [7, "pwd", b"pwd", [1], [["pwd"]], [None], [""], ["\ud800"], None], ids=ascii)
def test_methods_of_authentication_that_are_no_list_of_names_are_refused(jam, events, value):
    refused(lambda: jam.refresh_tokens.issue("alice", amr=value), InvalidValue)
    assert events == []


@pytest.mark.parametrize("value", ["0", [], -1, 0.5, True, 2**53, math.nan, math.inf], ids=repr)
def test_a_generation_that_is_none_is_refused(jam, events, value):
    refused(lambda: jam.refresh_tokens.issue("alice", generation=value), InvalidValue)
    assert events == []


def test_a_family_whose_first_token_fits_can_rotate_as_often_as_it_likes(jam, clock):
    """The number in a token grows by a digit at times, and the last token must still be one that a verifier takes."""
    size, token = MAX_TOKEN_LENGTH, None
    while token is None:
        size -= 1
        with contextlib.suppress(InvalidValue):
            token = jam.refresh_tokens.issue("alice", claims={"a": "x" * size})
    for _ in range(110):
        clock.move(60)
        token = jam.refresh_tokens.rotate(token)
    assert jam.refresh_tokens.verify(token).subject == "alice"


def test_a_token_longer_than_a_verifier_takes_is_never_made(jam, events):
    refused(lambda: jam.refresh_tokens.issue("alice", claims={"a": "x" * MAX_TOKEN_LENGTH}), InvalidValue)
    assert events == []


def test_what_the_caller_changes_afterwards_changes_no_token(jam):
    claims, headers, details = {"list": [1]}, {"device": [1]}, {"name": ["phone"]}
    token = jam.refresh_tokens.issue("alice", claims=claims, headers=headers, details=details)
    for mine in (claims["list"], headers["device"], details["name"]):
        mine.append("changed")
    successor = jam.refresh_tokens.rotate(token)
    assert json.loads(part(successor, 1))["list"] == [1]
    assert read_header(successor)["device"] == [1]
    assert jam.refresh_tokens.list("alice")[0].details == {"name": ["phone"]}


# -- without a store ----------------------------------------------------------------------------------------


def test_asvs_16_5_3_a_store_that_cannot_be_asked_lets_nobody_pass(secret, clock):
    good = Jam({"secret": secret}, clock=clock).refresh_tokens.issue("alice")
    jam = Jam({"secret": secret, "store": "sqlite:////no/such/place/jam.db"}, clock=clock)
    tokens, heard = jam.refresh_tokens, []
    jam.events.subscribe(heard.append)
    for attempt in (
        lambda: tokens.issue("alice"),
        lambda: tokens.issue("alice", generation=0),
        lambda: tokens.verify(good),
        lambda: tokens.rotate(good),
        lambda: tokens.revoke(good),
        lambda: tokens.revoke_by_id("alice", family_of(good)),
        lambda: tokens.revoke_all("alice"),
        lambda: tokens.generation("alice"),
        lambda: tokens.list("alice"),
        lambda: jam.revoke_all("alice"),
    ):
        refused(attempt, StoreUnavailable)
    assert heard == []
    refused(lambda: tokens.verify("a.b.c"))  # what is bad without asking is bad all the same
    assert tokens.claims(good)["sub"] == "alice"


class FailingStore:
    """A real store of which one verb stops answering."""

    def __init__(self, store):
        self._store, self.fails = store, ()

    def __getattr__(self, name):
        if name in self.fails:
            raise StoreUnavailable
        return getattr(self._store, name)


def test_asvs_16_5_3_a_rotation_that_could_not_be_kept_gives_no_token(secret, clock):
    store = FailingStore(open_store("memory://"))
    jam = Jam({"secret": secret}, clock=clock, store=store)
    first = jam.refresh_tokens.issue("alice")
    store.fails = ("swap",)
    refused(lambda: jam.refresh_tokens.rotate(first), StoreUnavailable)
    store.fails = ()
    clock.move(60)
    assert jam.refresh_tokens.verify(jam.refresh_tokens.rotate(first)).subject == "alice"


def test_asvs_16_5_3_a_theft_that_could_not_be_ended_is_ended_at_the_next_attempt(secret, clock):
    store, heard = FailingStore(open_store("memory://")), []
    jam = Jam({"secret": secret}, clock=clock, store=store)
    first = jam.refresh_tokens.issue("alice")
    second = jam.refresh_tokens.rotate(first)
    jam.events.subscribe(heard.append)
    clock.move(OVERLAP)
    store.fails = ("take",)
    refused(lambda: jam.refresh_tokens.rotate(first), StoreUnavailable)
    assert heard == []
    store.fails = ()
    refused(lambda: jam.refresh_tokens.rotate(first), RefreshTokenReused)
    assert kinds_of(heard) == [RefreshReused, SubjectRevoked]
    dead(jam, first, second)
