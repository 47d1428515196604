"""What a framework's session object keeps in a session: for strangers too, merged, and never brought back.

The races run against every engine.
"""

import secrets
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from jam import Jam
from jam.errors import ConcurrentUpdate, InvalidValue, SessionInvalid
from jam.events import SessionEnded, SessionStarted

RACERS = 6
PATIENCE = 60


@pytest.fixture
def jam(store, secret, clock):
    return Jam({"secret": secret}, store=store, clock=clock)


@pytest.fixture
def sessions(jam):
    return jam.sessions


@pytest.fixture
def alice():
    """Somebody of whom the store knows nothing yet."""
    return f"alice-{secrets.token_hex(6)}"


@pytest.fixture(params=["a stranger's", "a person's"])
def handle(request, sessions, alice):
    """A session with one value, before and after signing in."""
    if request.param == "a person's":
        return sessions.create(alice, values={"old": "1"})
    return sessions.create_anonymous({"old": "1"})


def with_value(key, text):
    return lambda present: {**present, key: text}


def racing(*acts):
    """Run all of these at the same moment; gives what each returned, or the error it raised."""
    start = threading.Barrier(len(acts))

    def run(act):
        start.wait(PATIENCE)
        try:
            return act()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(acts)) as pool:
        return [future.result(PATIENCE) for future in [pool.submit(run, act) for act in acts]]


# -- strangers' sessions -----------------------------------------------------------------------------------------


def test_a_strangers_session_is_found_by_its_handle(sessions):
    session = sessions.get(sessions.create_anonymous({"a": "1"}))
    assert (session.subject, session.data, session.values) == ("", {}, {"a": "1"})


def test_a_strangers_session_proves_nobody(sessions):
    with pytest.raises(SessionInvalid):
        sessions.verify(sessions.create_anonymous({"a": "1"}))


def test_a_strangers_session_is_no_login(sessions, alice):
    sessions.create_anonymous({"a": "1"})
    assert list(sessions.list(alice)) == []


def test_nobody_hears_of_a_strangers_session(sessions, events):
    sessions.delete(sessions.create_anonymous({"a": "1"}))
    assert not [event for event in events if isinstance(event, (SessionStarted, SessionEnded))]


def test_a_strangers_session_ends_by_its_handle(sessions):
    handle = sessions.create_anonymous({"a": "1"})
    assert (sessions.delete(handle), sessions.get(handle), sessions.delete(handle)) == (True, None, False)


def test_a_strangers_session_dies_unused(sessions, clock):
    handle = sessions.create_anonymous({"a": "1"})
    clock.move(3601)
    assert sessions.get(handle) is None


def test_use_keeps_a_strangers_session_alive_to_its_absolute_end(sessions, clock):
    handle = sessions.create_anonymous({"a": "1"})
    for _ in range(28):
        clock.move(3000)
        assert sessions.get(handle) is not None
    clock.move(2401)
    assert sessions.get(handle) is None


@pytest.mark.parametrize("idle_for", [2, 30, 600])
def test_use_keeps_it_alive_however_short_it_may_be_idle(store, secret, clock, idle_for):
    options = {"secret": secret, "sessions": {"anonymous_idle_for": idle_for}}
    sessions = Jam(options, store=store, clock=clock).sessions
    handle = sessions.create_anonymous({"a": "1"})
    for _ in range(5):
        clock.move(idle_for * 0.7)
        assert sessions.get(handle) is not None
    clock.move(idle_for + 1)
    assert sessions.get(handle) is None


def test_how_long_a_stranger_may_be_idle_does_not_change_how_long_a_person_may(store, secret, clock, alice):
    options = {"secret": secret, "sessions": {"anonymous_idle_for": 60}}
    sessions = Jam(options, store=store, clock=clock).sessions
    handle = sessions.create(alice)
    clock.move(3000)
    assert sessions.verify(handle).subject == alice


def test_ending_everyones_sessions_ends_the_strangers_too(sessions):
    handle = sessions.create_anonymous({"a": "1"})
    sessions.clear(None)
    assert sessions.get(handle) is None


def test_ending_one_persons_sessions_leaves_the_strangers(sessions, alice):
    handle = sessions.create_anonymous({"a": "1"})
    sessions.clear(alice)
    assert sessions.get(handle).values == {"a": "1"}


# -- open --------------------------------------------------------------------------------------------------------


def test_open_gives_the_identity_and_the_session(sessions, alice):
    handle = sessions.create(alice, {"colour": "plum"}, roles=["admin"], values={"a": "1"})
    identity, session = sessions.open(handle)
    assert (identity.subject, identity.roles, identity.credential_id) == (alice, {"admin"}, session.id)
    assert (session.subject, session.data, session.values) == (alice, {"colour": "plum"}, {"a": "1"})


def test_open_gives_no_identity_for_a_stranger(sessions):
    identity, session = sessions.open(sessions.create_anonymous({"a": "1"}))
    assert (identity, session.values) == (None, {"a": "1"})


@pytest.mark.parametrize("wrong", ["", "a.b", "no handle", "A" * 24 + "." + "A" * 43])
def test_open_gives_nothing_for_what_is_no_handle(sessions, wrong):
    assert sessions.open(wrong) is None


def test_open_gives_nothing_for_an_id_with_another_secret(sessions, handle):
    other = sessions.create_anonymous({})
    assert sessions.open(f"{handle.split('.')[0]}.{other.split('.')[1]}") is None


# -- change_values -----------------------------------------------------------------------------------------------


def test_values_are_changed_as_they_are_at_that_moment(sessions, handle):
    assert sessions.change_values(handle, with_value("a", "1")) == {"old": "1", "a": "1"}
    assert sessions.change_values(handle, lambda present: {"n": str(len(present))}) == {"n": "2"}
    assert sessions.get(handle).values == {"n": "2"}


def test_a_change_is_made_again_of_what_somebody_faster_left(sessions, handle):
    seen = []

    def change(present):
        seen.append(dict(present))
        if len(seen) == 1:
            sessions.change_values(handle, with_value("faster", "1"))
        return {**present, "mine": "1"}

    sessions.change_values(handle, change)
    assert seen == [{"old": "1"}, {"old": "1", "faster": "1"}]
    assert sessions.get(handle).values == {"old": "1", "faster": "1", "mine": "1"}


def test_whoever_is_always_too_late_is_told_and_has_changed_nothing(secret, clock):
    sessions = Jam({"secret": secret}, clock=clock).sessions
    handle = sessions.create_anonymous({"n": "0"})

    def outrun(present):
        sessions.change_values(handle, lambda now: {"n": str(int(now["n"]) + 1)})
        return {**present, "mine": "1"}

    with pytest.raises(ConcurrentUpdate):
        sessions.change_values(handle, outrun)
    assert set(sessions.get(handle).values) == {"n"}


def test_a_late_change_never_brings_an_ended_session_back(sessions, handle):
    sessions.delete(handle)
    with pytest.raises(SessionInvalid):
        sessions.change_values(handle, with_value("a", "1"))
    assert sessions.get(handle) is None


def test_a_session_that_ends_while_it_is_changed_stays_ended(sessions, handle):
    def change(present):
        sessions.delete(handle)
        return {**present, "a": "1"}

    with pytest.raises(SessionInvalid):
        sessions.change_values(handle, change)
    assert sessions.get(handle) is None


def test_a_session_that_is_revoked_with_all_others_while_it_is_changed_stays_ended(sessions, alice):
    handle = sessions.create(alice, values={"old": "1"})

    def change(present):
        sessions.clear(alice)
        return {**present, "a": "1"}

    with pytest.raises(SessionInvalid):
        sessions.change_values(handle, change)
    assert sessions.get(handle) is None


def test_values_and_data_do_not_touch_each_other(sessions, alice):
    handle = sessions.create(alice, {"key": "data"}, roles=["admin"], values={"key": "value"})
    sessions.change_values(handle, with_value("key", "changed"))
    sessions.update(handle, {"key": "updated"})
    session = sessions.get(handle)
    assert (session.data, session.values, session.roles) == ({"key": "updated"}, {"key": "changed"}, {"admin"})


def test_values_are_no_part_of_the_identity(sessions, alice):
    handle = sessions.create(alice, {"key": "data"})
    sessions.change_values(handle, with_value("roles", '["admin"]'))
    identity = sessions.verify(handle)
    assert (identity.payload, identity.roles) == ({"key": "data"}, frozenset())


@pytest.mark.parametrize("text", ["x" * (4 * 1024 * 1024), "\ud800"], ids=["too much", "no Unicode"])
def test_a_value_that_cannot_be_kept_is_refused_and_changes_nothing(sessions, handle, text):
    with pytest.raises(InvalidValue):
        sessions.change_values(handle, with_value("a", text))
    assert sessions.get(handle).values == {"old": "1"}


def test_a_stranger_whose_values_cannot_be_kept_gets_no_session(sessions):
    with pytest.raises(InvalidValue):
        sessions.create_anonymous({"a": "x" * (4 * 1024 * 1024)})


@pytest.mark.parametrize("key", ["", " ", "a\0b", "é", "😀", "'", '"', "$.a", "x" * 300])
def test_any_key_and_any_text_come_back(sessions, key):
    handle = sessions.create_anonymous({key: key})
    sessions.change_values(handle, with_value("other", "1"))
    assert sessions.get(handle).values == {key: key, "other": "1"}


# -- new handles -------------------------------------------------------------------------------------------------


def test_a_reworked_session_keeps_its_values(sessions, handle):
    new = sessions.rework(handle)
    assert sessions.get(new).values == {"old": "1"}
    with pytest.raises(SessionInvalid):
        sessions.change_values(handle, with_value("a", "1"))


def test_the_login_that_is_left_when_the_others_end_keeps_its_values(jam, sessions, alice):
    handle = sessions.create(alice, values={"old": "1"})
    new, _ = jam.logins.end_others(handle)
    assert sessions.get(new).values == {"old": "1"}


def test_whoever_ends_a_session_gets_what_was_in_it(jam, sessions, handle):
    sessions.change_values(handle, with_value("a", "1"))
    assert [ended.values for ended in jam.logins.end_own([handle], [])] == [{"old": "1", "a": "1"}]


# -- races -------------------------------------------------------------------------------------------------------


def test_racing_changes_of_different_keys_all_survive(sessions, handle):
    def writes(number):
        return lambda: [sessions.change_values(handle, with_value(f"{number}-{n}", "1")) for n in range(4)]

    outcomes = racing(*(writes(number) for number in range(RACERS)))
    assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert sessions.get(handle).values == {"old": "1", **{f"{m}-{n}": "1" for m in range(RACERS) for n in range(4)}}


def test_racing_changes_of_values_and_data_all_survive(sessions, alice):
    handle = sessions.create(alice)
    acts = [lambda n=n: sessions.change_values(handle, with_value(str(n), "1")) for n in range(3)]
    acts += [lambda n=n: sessions.update(handle, {str(n): 1}) for n in range(3)]
    racing(*acts)
    session = sessions.get(handle)
    assert (session.data, session.values) == ({str(n): 1 for n in range(3)}, {str(n): "1" for n in range(3)})


def test_whoever_ends_a_session_gets_every_change_that_was_acknowledged(sessions, handle):
    acts = [lambda n=n: sessions.change_values(handle, with_value(str(n), "1")) for n in range(RACERS)]
    *changes, ended = racing(*acts, lambda: sessions.take(handle))
    assert sessions.get(handle) is None
    acknowledged = {str(n) for n, outcome in enumerate(changes) if not isinstance(outcome, Exception)}
    assert set(ended.values) == {"old", *acknowledged}
    assert {type(outcome) for outcome in changes if isinstance(outcome, Exception)} <= {SessionInvalid}


def test_a_new_handle_has_every_change_that_was_acknowledged_under_the_old_one(sessions, handle):
    acts = [lambda n=n: sessions.change_values(handle, with_value(str(n), "1")) for n in range(RACERS)]
    *changes, new = racing(*acts, lambda: sessions.rework(handle))
    assert sessions.get(handle) is None
    acknowledged = {str(n) for n, outcome in enumerate(changes) if not isinstance(outcome, Exception)}
    assert set(sessions.get(new).values) == {"old", *acknowledged}


def test_the_login_that_is_left_has_every_change_that_was_acknowledged(jam, sessions, alice):
    """Repeated: the moment between reading it and ending the others is short."""
    for _ in range(10):
        handle = sessions.create(alice, values={"old": "1"})
        acts = [lambda n=n, handle=handle: sessions.change_values(handle, with_value(str(n), "1")) for n in range(3)]
        *changes, kept = racing(*acts, lambda handle=handle: jam.logins.end_others(handle))
        acknowledged = {str(n) for n, outcome in enumerate(changes) if not isinstance(outcome, Exception)}
        assert set(sessions.get(kept[0]).values) == {"old", *acknowledged}


def test_one_racer_ends_a_session_and_the_others_find_none(sessions, handle):
    outcomes = racing(*(lambda: sessions.take(handle) for _ in range(RACERS)))
    assert sorted(outcome is not None for outcome in outcomes) == [False] * (RACERS - 1) + [True]
