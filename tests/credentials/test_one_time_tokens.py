"""One-time tokens, on every engine: used once, for one purpose, by nobody but who holds them, while nothing changed."""

import itertools
import logging
import multiprocessing
import secrets
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jam import Jam
from jam.credentials.one_time_tokens import KIND
from jam.errors import GenerationOutdated, InvalidValue, JamError, OneTimeTokenInvalid
from jam.events import OneTimeTokenIssued, OneTimeTokenUsed, SubjectRevoked

PURPOSES = ("reset_password", "register", "verify_email", "change_email", "sign_in")
STATE = ("$argon2id$v=19$...", "alice@example.org")
RACERS = 16
PATIENCE = 60
HOSTILE = st.one_of(
    st.none(), st.integers(), st.binary(max_size=20), st.text(max_size=100), st.lists(st.text(), max_size=2),
    st.from_regex(r"[A-Za-z0-9_-]{24}\.[A-Za-z0-9_-]{43}", fullmatch=True),
)  # fmt: skip


@pytest.fixture
def make_jam(store, secret, clock):
    """Makes a Jam on the engine under test; its events are in ``heard``."""

    def make(**options):
        jam = Jam({"secret": secret, **options}, store=store, clock=clock)
        jam.heard = []
        jam.events.subscribe(jam.heard.append)
        return jam

    return make


@pytest.fixture
def shared(make_jam):
    return make_jam()


@pytest.fixture
def tokens(shared):
    return shared.one_time_tokens


@pytest.fixture
def alice():
    """Somebody of whom the store knows nothing yet."""
    return f"alice-{secrets.token_hex(6)}"


def refused(act, *arguments, kind=OneTimeTokenInvalid, **options):
    with pytest.raises(JamError) as caught:
        act(*arguments, **options)
    assert type(caught.value) is kind
    return caught.value


def dead(tokens, token, purpose="reset_password", state=()):
    """The token is good for nothing."""
    refused(tokens.peek, token, purpose)
    refused(tokens.check_state, token, purpose, state)
    refused(tokens.replace, token, purpose, {})
    refused(tokens.take, token, purpose, state)


def together(*acts):
    """What the acts, begun at the same moment in as many threads, return; an error's class if one is raised."""
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


def test_a_token_stands_for_what_was_put_into_it(tokens, alice, clock):
    data = {"n": [1, None, 0.5], "name": "Älice", "nested": {"a": True}}
    token = tokens.issue("register", alice, lifetime=60, data=data)
    shown = tokens.peek(token, "register")
    assert (shown.purpose, shown.subject, shown.data) == ("register", alice, data)
    assert (shown.created_at, shown.ends_at) == (clock.now, clock.now + 60)
    assert token.startswith(f"{shown.id}.")


def test_looking_does_not_use_a_token_up(tokens, alice):
    token = tokens.issue("reset_password", alice, lifetime=60, state=STATE)
    for _ in range(3):
        tokens.peek(token, "reset_password")
        tokens.check_state(token, "reset_password", STATE)
    assert tokens.take(token, "reset_password", STATE).subject == alice


def test_asvs_6_5_1_a_token_is_good_once(tokens, alice):
    token = tokens.issue("reset_password", alice, lifetime=60)
    tokens.take(token, "reset_password")
    dead(tokens, token)


def test_a_token_may_be_nobodys_yet(tokens):
    token = tokens.issue("register", "", lifetime=60, data={"email": "a@example.org"})
    assert tokens.take(token, "register").data == {"email": "a@example.org"}


def test_asvs_6_5_3_no_two_tokens_are_alike(tokens, alice):
    made = [tokens.issue("reset_password", alice, lifetime=60) for _ in range(100)]
    assert len({part for token in made for part in token.split(".")}) == 200
    assert all(len(token.partition(".")[2]) == 43 for token in made)  # 256 bits


def test_asvs_6_5_2_the_store_cannot_give_a_token_away(tokens, store, alice, clock):
    token = tokens.issue("reset_password", alice, lifetime=60, state=STATE)
    kept = repr(store.list(alice, KIND, clock.now))
    for secret in (token, token.partition(".")[2], *STATE):
        assert secret not in kept


# -- for one purpose ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("purpose", PURPOSES)
def test_asvs_9_2_2_a_token_is_good_for_its_own_purpose_alone(tokens, alice, purpose):
    token = tokens.issue(purpose, alice, lifetime=60)
    for other in PURPOSES:
        if other != purpose:
            dead(tokens, token, other)
    assert tokens.take(token, purpose).purpose == purpose  # no attempt has used it up


@pytest.mark.parametrize("purpose", ["", "RESET_PASSWORD", "reset_password ", "reset", None, 7, b"reset_password"])
def test_a_purpose_is_compared_whole(tokens, alice, purpose):
    token = tokens.issue("reset_password", alice, lifetime=60)
    refused(tokens.take, token, purpose)


def test_asvs_9_2_2_no_other_credential_is_a_one_time_token(shared, alice):
    jam = shared
    others = [
        jam.sessions.create(alice), jam.api_tokens.create(alice, "x"), jam.access_tokens.issue(alice),
        jam.refresh_tokens.issue(alice), jam.remember_me.issue(alice),
    ]  # fmt: skip
    for credential, purpose in itertools.product(others, PURPOSES):
        dead(jam.one_time_tokens, credential, purpose)
    token = jam.one_time_tokens.issue("sign_in", alice, lifetime=60)
    assert jam.sessions.get(token) is None
    for verify in (jam.api_tokens.verify, jam.access_tokens.verify, jam.refresh_tokens.verify):
        with pytest.raises(JamError):
            verify(token)


# -- while nothing has changed ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state",
    [(), (STATE[0],), (STATE[1], STATE[0]), (None, STATE[1]), (STATE[0], None), (*STATE, None), (*STATE, ""),
     (STATE[0] + STATE[1],), (STATE[0] + '","' + STATE[1],), (STATE[0], STATE[1].upper())],
)  # fmt: skip
def test_a_token_of_another_state_is_refused_and_not_used_up(tokens, alice, state):
    token = tokens.issue("reset_password", alice, lifetime=60, state=STATE)
    refused(tokens.check_state, token, "reset_password", state)
    refused(tokens.take, token, "reset_password", state)
    assert tokens.take(token, "reset_password", STATE).subject == alice


@settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.none() | st.text(max_size=5), max_size=3), st.lists(st.none() | st.text(max_size=5), max_size=3))
@example([""], [None])
@example(["null"], [None])
@example(["a", "b"], ["ab"])
@example(['a","b'], ["a", "b"])
@example(["\ud800"], ["?"])
def test_no_two_states_are_taken_for_one_another(jam, one, other):
    token = jam.one_time_tokens.issue("reset_password", "alice", lifetime=60, state=tuple(one))
    if one == other:
        jam.one_time_tokens.check_state(token, "reset_password", tuple(other))
    else:
        refused(jam.one_time_tokens.check_state, token, "reset_password", tuple(other))


def test_asvs_6_4_1_a_token_ends_to_the_moment(tokens, alice, clock):
    token = tokens.issue("reset_password", alice, lifetime=60)
    clock.move(59.999)
    tokens.peek(token, "reset_password")
    clock.move(0.001)
    dead(tokens, token)


def test_a_token_dies_with_everything_of_its_subject(shared, alice):
    tokens, bob = shared.one_time_tokens, f"bob-{secrets.token_hex(6)}"
    hers, his = (tokens.issue("reset_password", one, lifetime=60) for one in (alice, bob))
    shared.revoke_all(alice)
    dead(tokens, hers)
    assert tokens.peek(his, "reset_password").subject == bob


def test_all_tokens_of_a_subject_can_be_ended_alone(shared, alice, clock):
    token, session = shared.one_time_tokens.issue("sign_in", alice, lifetime=60), shared.sessions.create(alice)
    shared.one_time_tokens.revoke_all(alice)
    dead(shared.one_time_tokens, token, "sign_in")
    assert shared.sessions.verify(session).subject == alice
    assert shared.heard[-2:] == [
        shared.heard[1], SubjectRevoked(at=clock.now, subject=alice, kinds=(KIND,)),
    ]  # fmt: skip


def test_everyones_tokens_can_be_ended_also_nobodys(shared, alice):
    made = [shared.one_time_tokens.issue("register", subject, lifetime=60) for subject in (alice, "")]
    shared.one_time_tokens.revoke_all(None)
    for token in made:
        dead(shared.one_time_tokens, token, "register")


def test_a_token_of_before_everything_ended_is_not_made(shared, alice):
    generation = shared.one_time_tokens.generation(alice)
    shared.revoke_all(alice)
    refused(shared.one_time_tokens.issue, "sign_in", alice, lifetime=60, generation=generation, kind=GenerationOutdated)
    assert OneTimeTokenIssued not in map(type, shared.heard)


# -- hostile tokens -----------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(HOSTILE)
@example("")
@example(".")
@example("é" * 24 + "." + "b" * 43)
@example("\ud800")
@example("a" * 24 + "." + "b" * 43 + "\n")
def test_what_is_no_token_is_refused_and_never_another_error(jam, text):
    dead(jam.one_time_tokens, text)
    jam.one_time_tokens.discard(text)


@settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_token_changed_in_one_character_is_refused_and_the_right_one_stays_good(jam, data):
    token = jam.one_time_tokens.issue("reset_password", "alice", lifetime=60)
    at = data.draw(st.integers(0, len(token) - 1))
    other = token[:at] + data.draw(st.sampled_from("ABab01-_.=é ")) + token[at + 1 :]
    if other != token:
        dead(jam.one_time_tokens, other)
        jam.one_time_tokens.discard(other)
    assert jam.one_time_tokens.take(token, "reset_password").subject == "alice"


def test_the_id_alone_neither_opens_nor_ends_a_token(tokens, alice):
    token = tokens.issue("reset_password", alice, lifetime=60)
    token_id = token.partition(".")[0]
    for guess in (token_id, f"{token_id}.", f"{token_id}.{'A' * 43}"):
        dead(tokens, guess)
        tokens.discard(guess)
    assert tokens.take(token, "reset_password").id == token_id


@pytest.mark.parametrize("lifetime", [float("nan"), float("inf"), "60", None, True])
def test_a_lifetime_is_a_number_of_seconds(tokens, alice, lifetime):
    refused(tokens.issue, "reset_password", alice, lifetime=lifetime, kind=InvalidValue)


@pytest.mark.parametrize("lifetime", [0, -1, -1e9])
def test_a_token_without_a_lifetime_is_dead_from_the_beginning(tokens, alice, lifetime):
    dead(tokens, tokens.issue("reset_password", alice, lifetime=lifetime))


@pytest.mark.parametrize("subject", [None, 7, "\0", "\ud800", "x" * 256])
def test_a_subject_that_cannot_be_is_refused(tokens, subject):
    refused(tokens.issue, "reset_password", subject, lifetime=60, kind=InvalidValue)


@pytest.mark.parametrize("data", [{"x": object()}, {"x": float("nan")}, {"x": "\ud800"}, {1: "x"}, {"x": {1, 2}}])
def test_data_that_is_no_json_is_refused(tokens, alice, data):
    refused(tokens.issue, "register", alice, lifetime=60, data=data, kind=InvalidValue)
    token = tokens.issue("sign_in", alice, lifetime=60)
    refused(tokens.replace, token, "sign_in", data, kind=InvalidValue)
    tokens.peek(token, "sign_in")


# -- replaced and thrown away -------------------------------------------------------------------------------


def test_a_successor_has_other_data_and_the_rest_stays(tokens, alice, clock):
    first = tokens.issue("sign_in", alice, lifetime=60, state=STATE, data={"done": []})
    clock.move(10)
    second = tokens.replace(first, "sign_in", {"done": ["otp"]})
    dead(tokens, first, "sign_in", STATE)
    shown = tokens.peek(second, "sign_in")
    assert (shown.subject, shown.data, shown.ends_at) == (alice, {"done": ["otp"]}, clock.now + 50)
    refused(tokens.take, second, "sign_in", ())
    assert tokens.take(second, "sign_in", STATE).subject == alice


def test_a_successor_ends_when_the_first_would_have(tokens, alice, clock):
    token = tokens.issue("sign_in", alice, lifetime=60)
    clock.move(59)
    token = tokens.replace(token, "sign_in", {})
    clock.move(1)
    dead(tokens, token, "sign_in")


def test_a_token_that_is_thrown_away_is_dead(tokens, alice):
    token = tokens.issue("sign_in", alice, lifetime=60)
    tokens.discard(token)
    tokens.discard(token)
    dead(tokens, token, "sign_in")


# -- at once ------------------------------------------------------------------------------------------------


def test_asvs_15_4_2_of_many_who_use_a_token_at_once_one_succeeds(shared, alice):
    for _ in range(3):
        token = shared.one_time_tokens.issue("reset_password", alice, lifetime=60, state=STATE)
        outcomes = together(*[lambda token=token: shared.one_time_tokens.take(token, "reset_password", STATE)] * RACERS)
        assert outcomes.count(OneTimeTokenInvalid) == RACERS - 1
    assert [type(event) for event in shared.heard].count(OneTimeTokenUsed) == 3


def test_asvs_15_4_2_of_those_who_use_replace_and_throw_away_at_once_one_succeeds_at_most(shared, alice):
    tokens = shared.one_time_tokens
    for _ in range(3):
        token = tokens.issue("sign_in", alice, lifetime=60)
        *outcomes, _ = together(
            *[lambda token=token: tokens.take(token, "sign_in")] * 3,
            *[lambda token=token: tokens.replace(token, "sign_in", {})] * 3,
            lambda token=token: tokens.discard(token),
        )
        assert outcomes.count(OneTimeTokenInvalid) >= 5
        dead(tokens, token, "sign_in")
        live = [one for one in outcomes if isinstance(one, str)]
        assert all(tokens.take(successor, "sign_in").subject == alice for successor in live)


def test_no_successor_survives_what_ends_everything_at_the_same_moment(shared, alice):
    for _ in range(3):
        token = shared.one_time_tokens.issue("sign_in", alice, lifetime=60)
        outcomes = together(
            *[lambda token=token: shared.one_time_tokens.replace(token, "sign_in", {})] * 3,
            lambda: shared.revoke_all(alice),
        )
        for successor in (one for one in outcomes if isinstance(one, str)):
            dead(shared.one_time_tokens, successor, "sign_in")


_barrier = []


def _remember(barrier):
    _barrier[:] = [barrier]


def _take(config, now, made):
    """In another process: what comes of using each token."""
    jam = Jam(config, clock=lambda: now)
    jam.store.marks("alice", "", now)  # how it is opened is not what is raced for
    outcomes = []
    for token in made:
        _barrier[0].wait(PATIENCE)
        try:
            outcomes.append(jam.one_time_tokens.take(token, "reset_password", STATE).id)
        except JamError as error:
            outcomes.append(type(error).__name__)
    jam.store.close()
    return outcomes


@pytest.fixture
def take_in_processes(store, url, secret, clock):
    """What comes of using each token in two processes at once."""
    if not store.shared:
        pytest.skip("no other process sees a store in memory")

    def take_in_processes(made):
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(2, context, initializer=_remember, initargs=(context.Barrier(2),)) as pool:
            racing = [pool.submit(_take, {"secret": secret, "store": url}, clock.now, made) for _ in range(2)]
            return list(zip(*(future.result(PATIENCE) for future in racing), strict=True))

    return take_in_processes


def test_asvs_15_4_2_of_processes_that_use_a_token_at_once_one_succeeds(tokens, alice, take_in_processes):
    made = [tokens.issue("reset_password", alice, lifetime=60, state=STATE) for _ in range(12)]
    for token, each in zip(made, take_in_processes(made), strict=True):
        assert sorted(each, key=lambda one: one == "OneTimeTokenInvalid") == [
            token.partition(".")[0], "OneTimeTokenInvalid",
        ]  # fmt: skip


# -- events -------------------------------------------------------------------------------------------------


def test_what_is_made_and_used_is_told_and_nothing_secret_with_it(shared, alice, clock, caplog):
    tokens = shared.one_time_tokens
    with caplog.at_level(logging.DEBUG):
        token = tokens.issue("reset_password", alice, lifetime=60, state=STATE, data={"password_hash": "hash-of-it"})
        peeked, taken = tokens.peek(token, "reset_password"), tokens.take(token, "reset_password", STATE)
        error = refused(tokens.take, token, "reset_password", STATE)
    assert shared.heard == [
        OneTimeTokenIssued(at=clock.now, subject=alice, purpose="reset_password"),
        OneTimeTokenUsed(at=clock.now, subject=alice, purpose="reset_password"),
    ]
    told = f"{caplog.text}{shared.heard!r}{peeked!r}{taken!r}{error!r}{error}{error.hint}"
    for secret in (token, token.partition(".")[2], *STATE, "hash-of-it"):
        assert secret not in told


def test_a_refused_token_tells_of_nothing(shared, alice):
    token = shared.one_time_tokens.issue("reset_password", alice, lifetime=60)
    del shared.heard[:]
    refused(shared.one_time_tokens.take, token, "sign_in")
    refused(shared.one_time_tokens.take, "x", "sign_in")
    assert shared.heard == []
