"""Sessions: made, found, changed and ended."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jam import Jam
from jam.errors import ConcurrentUpdate, GenerationOutdated, InvalidValue, SessionInvalid, StoreUnavailable
from jam.events import SessionEnded, SessionRenewed, SessionStarted, SubjectRevoked
from jam.stores import open_store
from jam.testing import MovableClock


@pytest.fixture(params=["memory://", "sqlite"])
def jam(request, secret, clock, tmp_path):
    url = request.param if "://" in request.param else f"sqlite:///{tmp_path}/jam.sqlite3"
    return Jam({"secret": secret, "store": url}, clock=clock)


@pytest.fixture
def sessions(jam):
    return jam.sessions


def test_a_session_is_found_by_its_handle(sessions, clock):
    handle = sessions.create("alice", {"colour": "plum"}, roles=["admin"], scopes=["posts:write"], amr=["pwd"])
    session = sessions.get(handle)
    assert (session.subject, session.data) == ("alice", {"colour": "plum"})
    assert (session.roles, session.scopes, session.amr) == ({"admin"}, {"posts:write"}, ("pwd",))
    assert session.created_at == session.last_seen_at == session.authenticated_at == clock.now
    assert session.id == handle.partition(".")[0]


def test_a_session_proves_an_identity(sessions, clock):
    handle = sessions.create("alice", {"colour": "plum"}, roles=["admin"])
    identity = sessions.verify(handle)
    assert (identity.subject, identity.method, identity.payload) == ("alice", "session", {"colour": "plum"})
    assert (identity.roles, identity.authenticated_at) == ({"admin"}, clock.now)
    assert identity.credential_id == handle.partition(".")[0]


def test_asvs_7_2_3_a_handle_holds_256_random_bits_and_the_store_only_their_hash(jam, sessions):
    handles = {sessions.create("alice") for _ in range(200)}
    assert len({handle.partition(".")[2] for handle in handles}) == 200
    assert {len(handle.partition(".")[2]) for handle in handles} == {43}
    for handle in handles:
        session_id, _, secret = handle.partition(".")
        record = jam.store.get("session", session_id, jam.clock()).record
        assert secret.encode() not in record.check
        assert secret not in repr(record)
        assert len(record.check) == 32


def test_asvs_7_2_2_two_sign_ins_get_two_handles(sessions):
    assert sessions.create("alice") != sessions.create("alice")


@pytest.mark.parametrize("change", [
    lambda handle: "",
    lambda handle: "x",
    lambda handle: handle[:-1],
    lambda handle: handle + "A",
    lambda handle: handle[:-1] + ("A" if handle[-1] != "A" else "B"),
    lambda handle: handle.partition(".")[0],
    lambda handle: handle.partition(".")[0] + "." + "A" * 43,
    lambda handle: handle.swapcase(),
    lambda handle: " " + handle,
    lambda handle: handle + "\n",
    lambda handle: handle.replace(".", ".."),
    lambda handle: handle.encode(),
    lambda handle: None,
    lambda handle: 7,
    lambda handle: "\ud800" * 68,
    lambda handle: "é" * 24 + "." + "é" * 43,
    lambda handle: handle * 1000,
])  # fmt: skip
def test_asvs_7_2_1_an_altered_handle_is_nobodys(sessions, change):
    handle = sessions.create("alice")
    wrong = change(handle)
    assert sessions.get(wrong) is None
    with pytest.raises(SessionInvalid):
        sessions.verify(wrong)
    with pytest.raises(SessionInvalid):
        sessions.update(wrong, {"a": 1})
    with pytest.raises(SessionInvalid):
        sessions.rework(wrong)
    assert sessions.delete(wrong) is False
    assert sessions.get(handle).data == {}


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=100))
def test_no_text_is_a_handle_by_chance(text):
    sessions = Jam({"store": "memory://"}).sessions
    assert sessions.get(text) is None


def test_knowing_the_public_id_is_not_enough_to_end_a_session(sessions):
    handle = sessions.create("alice")
    assert sessions.delete(handle.partition(".")[0] + "." + "A" * 43) is False
    assert sessions.get(handle) is not None


# -- two ends of life


def test_asvs_7_3_1_an_idle_session_is_dead(sessions, clock):
    handle = sessions.create("alice")
    clock.move(3599)
    assert sessions.get(handle) is not None
    clock.move(3599)
    assert sessions.get(handle) is not None
    clock.move(3600)
    assert sessions.get(handle) is None


def test_asvs_7_3_2_no_use_and_no_renewal_extends_the_absolute_end(sessions, clock):
    handle = sessions.create("alice")
    ends_at = sessions.get(handle).ends_at
    for _ in range(47):
        clock.move(1800)
        sessions.get(handle)
        handle = sessions.rework(handle, authenticated_at=clock.now)
        assert sessions.get(handle).ends_at == ends_at
    clock.move(1799)
    assert sessions.get(handle) is not None
    clock.move(1)
    assert sessions.get(handle) is None


def test_lifetimes_are_settings(secret, clock):
    sessions = Jam({"secret": secret, "sessions": {"idle_for": 10, "lifetime": 15}}, clock=clock).sessions
    handle = sessions.create("alice")
    clock.move(9)
    assert sessions.get(handle) is not None
    clock.move(6)
    assert sessions.get(handle) is None


# -- update


def test_an_update_merges_top_level_keys(sessions):
    handle = sessions.create("alice", {"a": 1, "b": {"x": 1}})
    assert sessions.update(handle, {"b": {"y": 2}, "c": 3}) == {"a": 1, "b": {"y": 2}, "c": 3}
    assert sessions.get(handle).data == {"a": 1, "b": {"y": 2}, "c": 3}


def test_an_update_drops_the_keys_it_names(sessions):
    handle = sessions.create("alice", {"a": 1, "b": 2, "c": 3})
    assert sessions.update(handle, {"a": 9}, drop=["a", "b", "never there"]) == {"a": 9, "c": 3}


def test_the_apps_data_cannot_change_who_somebody_is(sessions):
    handle = sessions.create("alice", {"roles": ["admin"], "data": 1})
    sessions.update(handle, {"roles": ["admin"], "scopes": ["all"], "auth_time": 9e9, "subject": "root"})
    identity = sessions.verify(handle)
    assert (identity.subject, identity.roles, identity.scopes) == ("alice", frozenset(), frozenset())
    assert identity.authenticated_at < 9e9


@pytest.mark.parametrize(
    "data", [{"x": object()}, {"x": {1, 2}}, {1: "x"}, [1], "text", {"x": float("nan")}, {"x": "\ud800"}]
)
def test_data_that_is_not_json_is_refused_and_nothing_changes(sessions, data):
    handle = sessions.create("alice", {"a": 1})
    with pytest.raises(InvalidValue):
        sessions.update(handle, data)
    with pytest.raises(InvalidValue):
        sessions.create("alice", data)
    assert sessions.get(handle).data == {"a": 1}


def test_concurrent_updates_of_one_session_lose_nothing(sessions):
    handle = sessions.create("alice")
    barrier = threading.Barrier(8)

    def write(number):
        barrier.wait(30)
        for n in range(15):
            sessions.update(handle, {f"{number}-{n}": n})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert sessions.get(handle).data == {f"{number}-{n}": n for number in range(8) for n in range(15)}


def test_a_late_write_never_brings_an_ended_session_back(sessions):
    for _ in range(40):
        handle = sessions.create("alice")
        barrier = threading.Barrier(5)

        def act(number, handle=handle, barrier=barrier):
            barrier.wait(30)
            try:
                if number == 0:
                    return sessions.delete(handle)
                return sessions.update(handle, {"n": number})
            except SessionInvalid:
                return None

        with ThreadPoolExecutor(5) as pool:
            results = list(pool.map(act, range(5)))
        assert results[0] is True
        assert sessions.get(handle) is None
        assert sessions.list("alice") == []


def test_one_of_many_concurrent_renewals_wins_and_no_second_session_appears(sessions):
    handle = sessions.create("alice", {"a": 1})
    barrier = threading.Barrier(8)

    def renew(_):
        barrier.wait(30)
        try:
            return sessions.rework(handle)
        except SessionInvalid:
            return None

    with ThreadPoolExecutor(8) as pool:
        handles = [one for one in pool.map(renew, range(8)) if one is not None]
    assert len(handles) == 1
    assert sessions.get(handles[0]).data == {"a": 1}
    assert [session.id for session in sessions.list("alice")] == [handles[0].partition(".")[0]]


class ContestedStore:
    """A real store in front of which somebody else is always faster."""

    def __init__(self, store):
        self._store = store

    def __getattr__(self, name):
        return getattr(self._store, name)

    def swap(self, old, new, now):
        self._store.swap(old, old, now)
        return self._store.swap(old, new, now)


def test_a_write_that_never_wins_says_so(secret, clock):
    jam = Jam({"secret": secret}, clock=clock, store=ContestedStore(open_store("memory://")))
    handle = jam.sessions.create("alice")
    with pytest.raises(ConcurrentUpdate):
        jam.sessions.update(handle, {"a": 1})
    assert jam.sessions.get(handle).data == {}


# -- rework


def test_asvs_7_2_4_rework_gives_a_new_handle_and_the_old_one_is_dead(sessions):
    handle = sessions.create("alice", {"a": 1}, roles=["admin"])
    before = sessions.get(handle)
    fresh = sessions.rework(handle)
    assert sessions.get(handle) is None
    after = sessions.get(fresh)
    assert (after.data, after.roles, after.created_at) == ({"a": 1}, {"admin"}, before.created_at)
    assert after.id != before.id


def test_rework_can_note_a_new_proof_of_the_person(sessions, clock):
    handle = sessions.create("alice")
    clock.move(500)
    assert sessions.get(sessions.rework(handle)).authenticated_at == clock.now - 500
    handle = sessions.create("alice")
    clock.move(500)
    assert sessions.get(sessions.rework(handle, authenticated_at=clock.now)).authenticated_at == clock.now


# -- ending


def test_asvs_7_4_1_a_deleted_session_is_over(sessions):
    handle = sessions.create("alice")
    assert sessions.delete(handle) is True
    assert sessions.get(handle) is None
    assert sessions.delete(handle) is False


def test_clear_ends_all_of_a_subject_and_nobody_elses(sessions):
    mine = [sessions.create("alice") for _ in range(3)]
    other = sessions.create("bob")
    sessions.clear("alice")
    assert [sessions.get(handle) for handle in mine] == [None] * 3
    assert sessions.get(other) is not None
    assert sessions.get(sessions.create("alice")) is not None


def test_asvs_7_4_5_everyone_can_be_signed_out(sessions):
    handles = [sessions.create(name) for name in ("alice", "bob")]
    sessions.clear(None)
    assert [sessions.get(handle) for handle in handles] == [None, None]
    assert sessions.get(sessions.create("alice")) is not None


def test_a_sign_in_that_races_a_revocation_does_not_survive_it(sessions):
    generation = sessions.generation("alice")
    sessions.clear("alice")  # the password was changed while it was being checked
    with pytest.raises(GenerationOutdated):
        sessions.create("alice", generation=generation)


def test_an_update_after_a_revocation_finds_no_session(sessions):
    handle = sessions.create("alice")
    sessions.clear("alice")
    with pytest.raises(SessionInvalid):
        sessions.update(handle, {"a": 1})


def test_asvs_8_2_2_a_session_is_ended_by_id_only_for_its_owner(sessions):
    handle = sessions.create("alice")
    session_id = handle.partition(".")[0]
    assert sessions.delete_by_id("bob", session_id) is False
    assert sessions.get(handle) is not None
    assert sessions.delete_by_id("alice", "no such id") is False
    assert sessions.delete_by_id("alice", session_id) is True
    assert sessions.get(handle) is None


# -- list


def test_asvs_7_5_2_a_subjects_sessions_are_listed_without_their_handles(sessions, clock):
    handles = [sessions.create("alice", {"n": n}) for n in range(5)]
    sessions.create("bob")
    clock.move(100)
    sessions.get(handles[0])
    listed = sessions.list("alice")
    assert [session.id for session in listed] == sorted(handle.partition(".")[0] for handle in handles)
    seen = {session.data["n"]: session.last_seen_at for session in listed}
    assert seen == {0: clock.now, **dict.fromkeys(range(1, 5), clock.now - 100)}
    assert not any(handle.partition(".")[2] in repr(listed) for handle in handles)
    page = sessions.list("alice", limit=2)
    assert [*page, *sessions.list("alice", after=page[-1].id)] == listed


# -- arguments, events, trouble


@pytest.mark.parametrize("subject", ["", None, 7, "x" * 256, "a\0b", "\ud800"])
def test_a_subject_must_be_a_proper_name(sessions, subject):
    with pytest.raises(InvalidValue):
        sessions.create(subject)


@pytest.mark.parametrize("members", [{"roles": "admin"}, {"roles": [""]}, {"scopes": [1]}, {"amr": "pwd"}])
def test_roles_scopes_and_methods_are_collections_of_names(sessions, members):
    with pytest.raises(InvalidValue):
        sessions.create("alice", **members)


def test_beginnings_and_ends_are_told(jam, sessions, events, clock):
    handle = sessions.create("alice")
    fresh = sessions.rework(handle)
    sessions.delete(fresh)
    sessions.clear("alice")
    old, new = handle.partition(".")[0], fresh.partition(".")[0]
    assert events == [
        SessionStarted(at=clock.now, subject="alice", session_id=old),
        SessionRenewed(at=clock.now, subject="alice", session_id=new, previous_id=old),
        SessionEnded(at=clock.now, subject="alice", session_id=new),
        SubjectRevoked(at=clock.now, subject="alice", kinds=("session",)),
    ]
    assert not any(handle.partition(".")[2] in repr(event) for event in events)


def test_a_listener_that_fails_disturbs_nobody(jam, sessions, events, caplog):
    jam.events.subscribe(lambda event: 1 / 0)
    assert sessions.get(sessions.create("alice")) is not None
    assert len(events) == 1
    assert "SessionStarted" in caplog.text


def test_who_unsubscribes_hears_no_more(jam, sessions):
    heard = []
    stop = jam.events.subscribe(heard.append)
    sessions.create("alice")
    stop()
    sessions.create("alice")
    assert len(heard) == 1


def test_asvs_16_5_3_a_store_that_cannot_be_asked_is_an_error_and_never_a_session(secret, tmp_path):
    jam = Jam({"secret": secret, "store": f"sqlite:///{tmp_path}/missing/jam.sqlite3"}, clock=MovableClock())
    handle = Jam({"secret": secret}).sessions.create("alice")
    for act in (
        lambda: jam.sessions.get(handle),
        lambda: jam.sessions.create("alice"),
        lambda: jam.sessions.delete(handle),
    ):
        with pytest.raises(StoreUnavailable):
            act()


def test_knowing_the_public_id_keeps_no_session_from_idling(sessions, clock):
    session_id = sessions.create("alice").partition(".")[0]
    for _ in range(3):
        clock.move(1800)
        assert sessions.get(f"{session_id}.{'A' * 43}") is None
    assert sessions.list("alice") == []


@pytest.mark.parametrize("subject", ["\ud800", "a\0b", "x" * 256, 7])
def test_asvs_15_3_5_a_name_nobody_can_have_is_refused_wherever_it_is_asked_for(jam, sessions, subject):
    for ask in (sessions.generation, sessions.list, sessions.clear, jam.access_tokens.generation):
        with pytest.raises(InvalidValue):
            ask(subject)


@pytest.mark.parametrize("session_id", ["\ud800", "a\0b", "", "x" * 1000])
def test_an_id_nobody_can_have_ends_nothing(sessions, session_id):
    assert sessions.delete_by_id("alice", session_id) is False
