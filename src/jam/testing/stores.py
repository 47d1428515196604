"""The conformance kit: proves that a store keeps every promise of ``jam.stores.base.Store``.

For an engine of your own::

    class TestMyStore(StoreContract):
        @pytest.fixture
        def opener(self):
            return functools.partial(MyStore, "my://test")

Each call of the opener opens the *same* store once more; for a shared or durable store it is called in other
processes too, so it must be picklable. The store may be full of other records: the kit makes subjects of its own.
Needs pytest and hypothesis (``pip install jam-auth[testing]``).

What the kit cannot see is what happens within the engine. That no verb reads a whole table is proved here only of
the client; of the server prove it by its plans.
"""

from __future__ import annotations

import gc
import inspect
import itertools
import multiprocessing
import os
import random
import secrets
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from types import FrameType
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from jam.crypto.handles import bucket_of, id_for, new_handle, new_id
from jam.errors import GenerationOutdated, InvalidValue, RecordExists
from jam.stores.base import COLLECT_AFTER, MAX_DATA, MAX_LIST, REVOKED_TOKEN, Record, Store

__all__ = ["StoreContract", "new_record"]

Opener = Callable[[], Store]

NOW = 1_800_000_000.0
RACERS = 4  # so many threads of an app, and SQLAlchemy's pool, of 5 by default, makes no connection during a race
STUMBLING_ROUNDS = 150
PATIENCE = 60  # seconds until a racer, or a child, is given up
OTHERS = 300  # how many records, marks and counts of others the cost of a verb must not depend on


def new_record(subject: str, **members: Any) -> Record:
    """A record as a session would have it, with the given members changed."""
    _, record_id, check = new_handle(bucket_of(subject))
    defaults: dict[str, Any] = {
        "kind": "session",
        "id": record_id,
        "subject": subject,
        "check": check,
        "data": {"data": {}},
        "created_at": NOW,
        "touched_at": NOW,
        "idle_for": 600.0,
        "ends_at": NOW + 3600.0,
    }
    return Record(**{**defaults, **members})


def changed(record: Record, **members: Any) -> Record:
    """The record with some members changed."""
    return msgspec.structs.replace(record, **members)


class StoreContract:
    """Subclass it in a test module and say with ``opener`` how to open the store.

    Attributes:
        rounds: How often the races among threads for one winner or an exact count are run. That of a revocation,
            which is several verbs long, is run half as often, those about rarer encounters a quarter as often.
        process_rounds: How often a race among processes is run.
    """

    rounds = 1000
    process_rounds = 200

    @pytest.fixture
    def opener(self) -> Opener:
        """Opens the store; override it."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, opener: Opener) -> Iterator[Store]:
        """The store under test."""
        store = opener()
        yield store
        store.close()

    @pytest.fixture
    def subject(self) -> str:
        """A subject nobody else uses."""
        return f"subject-{secrets.token_hex(8)}"

    @pytest.fixture
    def kind(self) -> str:
        """A kind nobody else uses, for what concerns everyone."""
        return f"kind_{secrets.token_hex(8)}".translate(_DIGITS_TO_LETTERS)

    @pytest.fixture
    def processes(self, request: pytest.FixtureRequest) -> Processes:
        """Other processes to race in, started once for all tests of a class."""
        owner = request.node.getparent(pytest.Class)
        processes: Processes | None = owner.stash.get(_PROCESSES, None)
        if processes is None:
            processes = owner.stash[_PROCESSES] = Processes()
            owner.addfinalizer(processes.close)
        return processes

    # -- add and get ----------------------------------------------------------------------------------------

    def test_a_record_is_found_as_it_was_added(self, store: Store, subject: str) -> None:
        record = new_record(subject, data={"data": {"n": 1, "list": [1, "ü", None, 1.5, {"deep": True}]}})
        store.add(record, NOW)
        found = store.get("session", record.id, NOW)
        assert found is not None
        assert found.record == record

    def test_an_unknown_record_is_absent(self, store: Store, subject: str) -> None:
        assert store.get("session", new_id(subject), NOW) is None

    def test_a_record_of_another_kind_is_absent(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        assert store.get("api_token", record.id, NOW) is None

    def test_kinds_are_kept_apart(self, store: Store, subject: str) -> None:
        session = new_record(subject)
        token = changed(session, kind="api_token", data={"data": {"token": True}})
        store.add(session, NOW)
        store.add(token, NOW)
        assert (_get(store, session), _get(store, token)) == (session, token)
        assert store.take("session", session.id, NOW) == session
        assert _get(store, token) == token
        store.add(session, NOW)
        store.remove("api_token", token.id)
        assert _get(store, session) == session

    @pytest.mark.parametrize(
        "members",
        [
            {"kind": "a_" * 16},
            {"check": b""},
            {"check": bytes(range(192, 256))},
            {"check": b"\0" * 64},
            {"generation": 2**53 - 1},
            {"version": 2**53 - 1},
            {"version": 0},
            {"created_at": NOW - 0.123456, "touched_at": NOW + 0.654321, "ends_at": NOW + 1e9 + 0.000001},
            {"idle_for": 600.125},
            {"data": {}},
            {"data": {"x": "x" * (MAX_DATA - 8)}},
        ],
    )
    def test_every_member_is_kept_up_to_its_limits(self, store: Store, subject: str, members: dict[str, Any]) -> None:
        record = new_record(subject, **members)
        store.add(record, NOW)
        assert _get(store, record) == record
        assert store.take(record.kind, record.id, NOW) == record

    @pytest.mark.parametrize(
        "value",
        [
            "",
            "\0",
            "🙂 ü \u2028",
            "\\\"'",
            2**63,
            -(2**53) - 1,
            1e300,
            5e-324,
            0.1 + 0.2,
            None,
            False,
            [[], {}],
            {"": ""},
        ],
    )
    def test_whatever_json_holds_is_kept(self, store: Store, subject: str, value: Any) -> None:
        record = new_record(subject, data={"data": {"value": value}})
        store.add(record, NOW)
        assert _get(store, record) == record
        assert store.swap(record, record, NOW) == changed(record, version=2)
        assert store.take("session", record.id, NOW) == changed(record, version=2)

    def test_ids_differ_by_case(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        assert store.get("session", record.id.swapcase(), NOW) is None

    def test_a_live_id_is_not_added_twice(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        with pytest.raises(RecordExists):
            store.add(changed(record, data={"data": {"other": 1}}), NOW)
        assert _get(store, record).data == record.data

    def test_a_dead_id_is_free_again(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        later = changed(record, created_at=NOW + 3600, touched_at=NOW + 3600, ends_at=NOW + 7200)
        store.add(later, NOW + 3600)
        assert _get(store, later, NOW + 3600) == later

    def test_an_id_of_a_dead_generation_is_free_again(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        generation = store.advance(subject, ("session",), NOW)["session"]
        later = changed(record, generation=generation)
        store.add(later, NOW)
        assert _get(store, later) == later

    def test_a_dead_id_is_free_for_somebody_else_too(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        later = changed(record, subject=_namesake(subject), touched_at=NOW + 3600, ends_at=NOW + 7200)
        store.add(later, NOW + 3600)
        assert store.list(subject, "session", NOW + 3600) == []
        assert store.list(later.subject, "session", NOW + 3600) == [later]

    def test_a_record_that_is_dead_on_arrival_is_absent(self, store: Store, subject: str) -> None:
        record = new_record(subject, ends_at=NOW)
        store.add(record, NOW)
        assert store.get("session", record.id, NOW) is None
        assert store.list(subject, "session", NOW) == []

    @pytest.mark.parametrize("subject", ["x" * 256, "a\0b", "\ud800", 7, None])
    def test_a_subject_that_cannot_be_kept_everywhere_is_refused(self, store: Store, subject: Any) -> None:
        with pytest.raises(InvalidValue):
            store.add(changed(new_record("x"), subject=subject), NOW)

    @pytest.mark.parametrize(
        "members",
        [
            {"id": ""},
            {"id": "short"},
            {"id": "a" * 23 + "\n"},
            {"kind": ""},
            {"kind": "Session"},
            {"kind": "se ssion"},
            {"ends_at": float("inf"), "idle_for": None},
            {"ends_at": float("nan")},
            {"ends_at": NOW, "touched_at": float("nan")},
            {"created_at": float("-inf")},
            {"check": b"x" * 65},
            {"generation": 2**53},
            {"generation": -1},
            {"version": 2**70},
            {"data": {"x": "x" * MAX_DATA}},
            {"data": {"x": object()}},
            {"data": {"x": "\ud800"}},
        ],
    )
    def test_a_record_that_cannot_be_kept_everywhere_is_refused(
        self, store: Store, subject: str, members: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidValue):
            store.add(new_record(subject, **members), NOW)

    @pytest.mark.parametrize(
        "subject", ["", "Ünïcödé-名前-🙂", " leading and trailing ", "' OR 1=1 --", "a" * 255, "{x}:*"]
    )
    def test_any_other_subject_is_kept_as_it_is(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        assert _get(store, record).subject == subject

    def test_what_was_put_in_cannot_be_changed_from_outside(self, store: Store, subject: str) -> None:
        data = {"data": {"list": [1]}}
        record = new_record(subject, data=data)
        store.add(record, NOW)
        data["data"]["list"].append(2)
        _get(store, record).data["data"]["list"].append(3)
        store.list(subject, "session", NOW)[0].data["data"]["list"].append(4)
        assert _get(store, record).data == {"data": {"list": [1]}}

    def test_what_was_swapped_in_cannot_be_changed_from_outside(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        data = {"data": {"list": [1]}}
        kept = store.swap(record, changed(record, data=data), NOW)
        assert kept is not None
        data["data"]["list"].append(2)
        assert kept.data == {"data": {"list": [1]}}
        kept.data["data"]["list"].append(3)
        assert _get(store, record).data == {"data": {"list": [1]}}

    # -- two ends of life -----------------------------------------------------------------------------------

    def test_an_idle_record_is_dead_to_the_second(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        assert store.get("session", record.id, NOW + 599.9) is not None
        assert store.get("session", record.id, NOW + 600) is None
        assert [one.id for one in store.list(subject, "session", NOW + 599.9)] == [record.id]
        assert store.list(subject, "session", NOW + 600) == []

    @pytest.mark.parametrize("when", [1e6, 4e9])
    def test_only_the_given_time_counts(self, store: Store, subject: str, when: float) -> None:
        """An app's clock may be movable: neither 1970 nor 2096 is dead or without end by the engine's own clock."""
        life = {"created_at": when, "touched_at": when, "ends_at": when + 3600}
        used, listed = new_record(subject, **life), new_record(subject, **life)
        revocation = new_record(subject, kind=REVOKED_TOKEN, idle_for=None, **life)
        for record in (used, listed, revocation):
            store.add(record, when)
        found = store.get("session", used.id, when + 599, touch_after=60)
        assert found is not None
        assert found.record.touched_at == when + 599
        assert store.list(subject, "session", when + 599) == sorted([found.record, listed], key=_id)
        assert store.list(subject, "session", when + 600) == [found.record]
        assert store.swap(listed, listed, when + 600) is None
        assert store.swap(found.record, found.record, when + 1198) is not None
        assert store.take("session", used.id, when + 1199) is None
        assert store.take("session", used.id, when + 1198) is not None
        assert store.marks(subject, revocation.id, when + 3599).revoked
        assert not store.marks(subject, revocation.id, when + 3600).revoked
        assert [store.count_up(subject, 60, 1, when + n).retry_after for n in (0, 1, 60)] == [0, 59, 0]

    def test_a_clock_that_goes_back_finds_the_dead_again(self, store: Store, subject: str) -> None:
        """Whoever looks at a dead record leaves it as it is."""
        record = new_record(subject)
        revocation = new_record(subject, kind=REVOKED_TOKEN)
        store.add(record, NOW)
        store.add(revocation, NOW)
        late = NOW + 3600
        assert store.get("session", record.id, late, touch_after=0) is None
        assert store.list(subject, "session", late) == []
        assert store.swap(record, record, late) is None
        assert store.take("session", record.id, late) is None
        assert not store.marks(subject, revocation.id, late).revoked
        store.add(new_record(subject, created_at=late, touched_at=late, ends_at=late + 3600), late)
        assert _get(store, record, NOW + 599) == record
        assert store.get("session", record.id, NOW + 600) is None
        assert store.marks(subject, revocation.id, NOW + 599).revoked

    def test_use_keeps_a_record_from_idling(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        assert store.get("session", record.id, NOW + 500, touch_after=60) is not None
        assert store.get("session", record.id, NOW + 1000) is not None
        assert store.get("session", record.id, NOW + 1100) is None

    def test_use_never_moves_the_absolute_end(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        for minute in range(5, 60, 5):
            assert store.get("session", record.id, NOW + 60 * minute, touch_after=60) is not None
        assert store.get("session", record.id, NOW + 3599.9, touch_after=60) is not None
        assert store.get("session", record.id, NOW + 3600, touch_after=60) is None

    def test_a_record_without_an_idle_time_lives_to_its_end(self, store: Store, subject: str) -> None:
        record = new_record(subject, idle_for=None)
        store.add(record, NOW)
        assert store.get("session", record.id, NOW + 3599) is not None
        assert store.get("session", record.id, NOW + 3600) is None

    def test_a_recent_use_is_not_noted_again(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        store.get("session", record.id, NOW + 60, touch_after=60)
        assert _get(store, record, NOW + 60).touched_at == NOW
        store.get("session", record.id, NOW + 61, touch_after=60)
        assert _get(store, record, NOW + 61).touched_at == NOW + 61

    def test_touching_shows_at_once_and_leaves_the_version_alone(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        found = store.get("session", record.id, NOW + 100, touch_after=60)
        assert found is not None
        assert (found.record.touched_at, found.record.version) == (NOW + 100, record.version)
        assert _get(store, record, NOW + 100).version == record.version

    def test_a_use_is_known_to_every_verb(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        store.get("session", record.id, NOW + 500, touch_after=60)
        assert [one.touched_at for one in store.list(subject, "session", NOW + 1099)] == [NOW + 500]
        swapped = store.swap(record, record, NOW + 1099)
        assert swapped is not None
        taken = store.take("session", record.id, NOW + 1099)
        assert taken is not None
        assert taken.touched_at == NOW + 500

    def test_only_a_get_that_may_notes_a_use(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        revocation = new_record(subject, kind=REVOKED_TOKEN)
        store.add(record, NOW)
        store.add(revocation, NOW)
        store.get("session", record.id, NOW + 500)
        store.list(subject, "session", NOW + 500)
        store.marks(subject, revocation.id, NOW + 500)
        assert store.swap(record, record, NOW + 500) is not None
        assert _get(store, record, NOW + 599).touched_at == NOW
        assert store.get("session", record.id, NOW + 600) is None
        assert not store.marks(subject, revocation.id, NOW + 600).revoked

    def test_a_clock_that_lags_does_not_move_the_last_use_back(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        store.get("session", record.id, NOW + 300, touch_after=60)
        store.get("session", record.id, NOW + 100, touch_after=0)
        assert _get(store, record, NOW + 300).touched_at == NOW + 300

    # -- swap -----------------------------------------------------------------------------------------------

    def test_a_swap_keeps_the_new_record_with_the_next_version(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        kept = store.swap(record, changed(record, data={"data": {"a": 1}}), NOW)
        assert kept is not None
        assert (kept.version, kept.data) == (record.version + 1, {"data": {"a": 1}})
        assert _get(store, record) == kept

    def test_a_swap_keeps_all_of_the_new_record(self, store: Store, subject: str) -> None:
        """All but the version and the last use, which are the store's own."""
        record = new_record(subject)
        store.add(record, NOW)
        new = changed(
            record, check=b"new", generation=7, data={"data": {"a": 1}}, created_at=NOW - 5, idle_for=None,
            ends_at=NOW + 7200, touched_at=NOW + 99, version=41,
        )  # fmt: skip
        expected = changed(new, touched_at=NOW, version=2)
        assert store.swap(record, new, NOW) == expected
        assert _get(store, record) == expected
        moved = changed(new, id=new_id(subject), check=b"moved", generation=8, ends_at=NOW + 9000)
        expected = changed(moved, touched_at=NOW, version=3)
        assert store.swap(_get(store, record), moved, NOW) == expected
        assert _get(store, moved) == expected

    def test_who_read_an_older_version_loses(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        winner = store.swap(record, changed(record, data={"data": {"a": 1}}), NOW)
        assert store.swap(record, changed(record, data={"data": {"b": 2}}), NOW) is None
        assert _get(store, record) == winner

    def test_who_claims_a_version_that_never_was_loses(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        assert store.swap(changed(record, version=2), changed(record, data={"data": {"b": 2}}), NOW) is None
        assert _get(store, record) == record

    def test_who_lost_moves_nothing(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        winner = store.swap(record, record, NOW)
        assert store.swap(record, changed(record, id=new_id(subject)), NOW) is None
        assert store.list(subject, "session", NOW) == [winner]

    def test_a_swap_returns_the_record_as_it_is_kept(self, store: Store, subject: str) -> None:
        """Also if it was used between its being read and swapped."""
        record = new_record(subject)
        store.add(record, NOW)
        store.get("session", record.id, NOW + 500, touch_after=60)
        kept = store.swap(record, changed(record, data={"data": {"a": 1}}), NOW + 500)
        assert kept == changed(record, data={"data": {"a": 1}}, version=2, touched_at=NOW + 500)
        assert _get(store, record, NOW + 500) == kept

    def test_a_swap_goes_on_with_the_stores_own_last_use(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        store.get("session", record.id, NOW + 500, touch_after=60)
        assert store.swap(record, changed(record, data={"data": {}}, touched_at=NOW - 1000), NOW + 500) is not None
        assert _get(store, record, NOW + 1099).touched_at == NOW + 500

    def test_a_swap_may_change_both_ends_of_life(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        store.swap(record, changed(record, idle_for=None, ends_at=NOW + 100), NOW)
        assert store.get("session", record.id, NOW + 99) is not None
        assert store.get("session", record.id, NOW + 100) is None

    def test_a_swap_to_a_new_id_ends_the_old_one(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        moved = store.swap(record, changed(record, id=new_id(subject), check=b"new"), NOW)
        assert moved is not None
        assert store.get("session", record.id, NOW) is None
        assert store.take("session", record.id, NOW) is None
        assert store.swap(changed(record, version=2), record, NOW) is None
        assert _get(store, moved) == moved
        assert [one.id for one in store.list(subject, "session", NOW)] == [moved.id]
        store.add(record, NOW)  # the old id is free

    def test_a_swap_never_brings_a_removed_record_back(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        store.remove("session", record.id)
        assert store.swap(record, record, NOW) is None
        assert store.swap(record, changed(record, id=new_id(subject)), NOW) is None
        assert store.get("session", record.id, NOW) is None
        assert store.list(subject, "session", NOW) == []

    def test_a_swap_never_brings_a_dead_record_back(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        assert store.swap(record, changed(record, ends_at=NOW + 9999, idle_for=None), NOW + 600) is None
        assert store.swap(record, changed(record, id=new_id(subject), idle_for=None), NOW + 600) is None
        store.advance(subject, ("session",), NOW)
        assert store.swap(record, changed(record, generation=99), NOW) is None

    def test_a_swap_into_an_older_generation_is_refused(self, store: Store, subject: str) -> None:
        generation = store.advance(subject, ("session",), NOW)["session"]
        record = new_record(subject, generation=generation)
        store.add(record, NOW)
        with pytest.raises(GenerationOutdated):
            store.swap(record, changed(record, generation=generation - 1), NOW)
        assert _get(store, record) == record

    def test_a_swap_onto_another_live_record_is_refused(self, store: Store, subject: str) -> None:
        record, other = new_record(subject), new_record(subject)
        store.add(record, NOW)
        store.add(other, NOW)
        with pytest.raises(RecordExists):
            store.swap(record, changed(record, id=other.id), NOW)
        assert _get(store, record) == record
        assert _get(store, other) == other

    def test_a_swap_may_use_the_id_of_a_dead_record(self, store: Store, subject: str) -> None:
        record, dead = new_record(subject), new_record(subject, ends_at=NOW + 1)
        store.add(record, NOW)
        store.add(dead, NOW)
        moved = store.swap(record, changed(record, id=dead.id), NOW + 1)
        assert moved == changed(record, id=dead.id, version=2)
        assert store.list(subject, "session", NOW + 1) == [moved]

    @pytest.mark.parametrize(
        "members", [{"check": b"x" * 65}, {"generation": -1}, {"ends_at": float("nan")}, {"data": {"x": (1, 2)}}]
    )
    def test_a_swap_to_what_cannot_be_kept_is_refused(
        self, store: Store, subject: str, members: dict[str, Any]
    ) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        with pytest.raises(InvalidValue):
            store.swap(record, changed(record, **members), NOW)
        assert _get(store, record) == record

    def test_a_swap_never_hands_a_record_to_somebody_else(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        for other in (
            changed(record, subject="somebody-else"),
            changed(record, kind="api_token"),
            changed(record, id=_id_of_another_bucket(record.id)),
        ):
            with pytest.raises(InvalidValue):
                store.swap(record, other, NOW)
        assert _get(store, record) == record

    # -- take and remove ------------------------------------------------------------------------------------

    def test_a_record_is_taken_once(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        assert store.take("session", record.id, NOW) == record
        assert store.take("session", record.id, NOW) is None
        assert store.get("session", record.id, NOW) is None
        assert store.list(subject, "session", NOW) == []

    def test_a_dead_record_cannot_be_taken(self, store: Store, subject: str) -> None:
        idle, outdated = new_record(subject), new_record(subject)
        store.add(idle, NOW)
        assert store.take("session", idle.id, NOW + 600) is None
        store.add(outdated, NOW)
        store.advance(subject, ("session",), NOW)
        assert store.take("session", outdated.id, NOW) is None

    def test_removing_twice_is_no_error(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        store.remove("session", record.id)
        store.remove("session", record.id)
        assert store.get("session", record.id, NOW) is None
        assert store.list(subject, "session", NOW) == []

    def test_the_dead_can_be_removed(self, store: Store, subject: str) -> None:
        """By no clock: a revocation must be gone for good, also for a clock that goes back."""
        record = new_record(subject, created_at=1e9, touched_at=1e9, ends_at=1e9 + 60)
        store.add(record, 1e9)
        store.remove("session", record.id)
        assert store.get("session", record.id, 1e9) is None

    # -- generations ----------------------------------------------------------------------------------------

    def test_generations_begin_at_nothing(self, store: Store, subject: str) -> None:
        base = store.marks("", "", NOW).generation("session")
        assert store.marks(subject, "", NOW).generation("session") == base

    def test_advance_kills_all_of_a_kind_at_once(self, store: Store, subject: str) -> None:
        records = [new_record(subject) for _ in range(3)]
        for record in records:
            store.add(record, NOW)
        store.advance(subject, ("session",), NOW)
        assert [store.get("session", record.id, NOW) for record in records] == [None, None, None]
        assert store.list(subject, "session", NOW) == []

    def test_advance_leaves_other_kinds_and_subjects_alone(self, store: Store, subject: str) -> None:
        other_kind = new_record(subject, kind="api_token")
        others = [new_record(name) for name in (subject.upper(), f"{subject} ", subject + "\u0301", subject[:-1])]
        for record in (other_kind, *others):
            store.add(record, NOW)
        store.advance(subject, ("session", "refresh_family"), NOW)
        assert _get(store, other_kind) == other_kind
        assert [_get(store, record) for record in others] == others
        assert [store.list(record.subject, "session", NOW) for record in others] == [[record] for record in others]
        base = store.marks("", "", NOW).generation("session")
        assert [store.marks(record.subject, "", NOW).generation("session") for record in others] == [base] * len(others)

    def test_advance_counts_up_and_get_tells_the_generation(self, store: Store, subject: str) -> None:
        base = store.marks(subject, "", NOW).generation("session")
        assert store.advance(subject, ("session",), NOW)["session"] == base + 1
        assert store.advance(subject, ("session", "api_token"), NOW)["session"] == base + 2
        assert store.marks(subject, "", NOW).generation("session") == base + 2
        record = new_record(subject, generation=base + 2)
        store.add(record, NOW)
        found = store.get("session", record.id, NOW)
        assert found is not None
        assert found.generations.get("session") == base + 2

    def test_every_kind_that_was_ever_advanced_is_told(self, store: Store, subject: str) -> None:
        before = dict(store.marks(subject, "", NOW).generations)
        store.advance(subject, ["session", "api_token"], NOW)
        after = store.advance(subject, {"refresh_family"}, NOW)
        expected = {**before, **{kind: before.get(kind, 0) + 1 for kind in ("session", "api_token", "refresh_family")}}
        record = new_record(subject, generation=expected["session"])
        store.add(record, NOW)
        found = store.get("session", record.id, NOW)
        assert found is not None
        assert after == expected
        assert store.marks(subject, "", NOW).generations == expected
        assert found.generations == expected
        assert store.advance(subject, (), NOW) == expected

    def test_a_newer_generation_is_alive(self, store: Store, subject: str) -> None:
        base = store.marks(subject, "", NOW).generation("session")
        records = [new_record(subject, generation=base + n) for n in (1, 2, 3)]
        for record in records:
            store.add(record, NOW)
        store.advance(subject, ("session",), NOW)
        assert [_get(store, record) for record in records] == records
        store.advance(subject, ("session",), NOW)
        assert store.list(subject, "session", NOW) == sorted(records[1:], key=_id)

    def test_an_older_generation_may_not_be_added(self, store: Store, subject: str) -> None:
        before = store.marks(subject, "", NOW).generation("session")
        store.advance(subject, ("session",), NOW)
        record = new_record(subject, generation=before)
        with pytest.raises(GenerationOutdated):
            store.add(record, NOW)
        assert store.get("session", record.id, NOW) is None
        with pytest.raises(GenerationOutdated):  # what it did not keep does not stand in its way either
            store.add(record, NOW)

    def test_a_mark_outlives_everything(self, store: Store, subject: str) -> None:
        base = store.marks(subject, "", NOW).generation("session")
        store.advance(subject, ("session",), NOW)
        _purge_all(store, NOW + 1e9)
        assert store.marks(subject, "", NOW + 1e9).generation("session") == base + 1

    def test_everyone_can_be_revoked_at_once(self, store: Store, subject: str, kind: str) -> None:
        records = [new_record(name, kind=kind) for name in (subject, f"{subject}-2", "")]
        for record in records:
            store.add(record, NOW)
        store.advance(None, (kind,), NOW)
        assert [store.get(kind, record.id, NOW) for record in records] == [None, None, None]
        assert store.list(subject, kind, NOW) == []

    def test_what_everyone_lost_is_neither_taken_nor_swapped(self, store: Store, subject: str, kind: str) -> None:
        record = new_record(subject, kind=kind)
        store.add(record, NOW)
        store.advance(None, (kind,), NOW)
        assert store.swap(record, changed(record, generation=1), NOW) is None
        assert store.swap(record, changed(record, id=new_id(subject), generation=1), NOW) is None
        assert store.take(kind, record.id, NOW) is None

    def test_an_older_generation_of_everyone_may_not_come_in(self, store: Store, subject: str, kind: str) -> None:
        store.advance(None, (kind,), NOW)
        for name in (subject, ""):
            with pytest.raises(GenerationOutdated):
                store.add(new_record(name, kind=kind), NOW)
            record = new_record(name, kind=kind, generation=1)
            store.add(record, NOW)
            with pytest.raises(GenerationOutdated):
                store.swap(record, changed(record, generation=0), NOW)
            assert _get(store, record) == record

    def test_the_generation_that_counts_is_the_sum_of_both(self, store: Store, subject: str, kind: str) -> None:
        assert store.advance(subject, (kind,), NOW)[kind] == 1
        assert store.advance(None, (kind,), NOW)[kind] == 1
        assert store.advance(subject, (kind,), NOW)[kind] == 3
        generations = [store.marks(name, "", NOW).generation(kind) for name in (subject, f"{subject}-2", "")]
        assert generations == [3, 1, 1]
        older, fresh = new_record(subject, kind=kind, generation=2), new_record(subject, kind=kind, generation=3)
        with pytest.raises(GenerationOutdated):
            store.add(older, NOW)
        store.add(fresh, NOW)
        found = store.get(kind, fresh.id, NOW)
        assert found is not None
        assert found.generations.get(kind) == 3
        assert store.list(subject, kind, NOW) == [fresh]
        assert store.swap(fresh, fresh, NOW) is not None
        assert store.take(kind, fresh.id, NOW) is not None

    @pytest.mark.parametrize("kinds", ["session", ("Session",), ("",), (REVOKED_TOKEN,)])
    def test_only_kinds_that_can_die_are_advanced(self, store: Store, subject: str, kinds: Any) -> None:
        with pytest.raises(InvalidValue):
            store.advance(subject, kinds, NOW)

    def test_nobody_cannot_be_advanced(self, store: Store) -> None:
        with pytest.raises(InvalidValue):
            store.advance("", ("session",), NOW)

    def test_a_revoked_token_is_marked_until_its_end(self, store: Store, subject: str) -> None:
        revocation = new_record(subject, kind=REVOKED_TOKEN, idle_for=None)
        assert not store.marks(subject, revocation.id, NOW).revoked
        store.add(revocation, NOW)
        assert store.marks(subject, revocation.id, NOW).revoked
        assert store.marks(subject, revocation.id, NOW + 3599).revoked
        assert not store.marks(subject, revocation.id, NOW + 3600).revoked
        assert not store.marks(subject, new_id(subject), NOW).revoked

    def test_a_revocation_that_was_removed_is_none(self, store: Store, subject: str) -> None:
        revocation = new_record(subject, kind=REVOKED_TOKEN, idle_for=None)
        store.add(revocation, NOW)
        assert store.marks(subject, revocation.id, NOW).revoked
        store.remove(REVOKED_TOKEN, revocation.id)
        assert not store.marks(subject, revocation.id, NOW).revoked

    def test_only_a_revocation_revokes(self, store: Store, subject: str) -> None:
        session = new_record(subject)
        store.add(session, NOW)
        assert not store.marks(subject, session.id, NOW).revoked

    # -- list -----------------------------------------------------------------------------------------------

    def test_a_list_has_the_subjects_live_records_in_order(self, store: Store, subject: str) -> None:
        mine = [new_record(subject) for _ in range(5)]
        dead = new_record(subject, ends_at=NOW + 1)
        other = new_record(subject, kind="api_token")
        for record in (*mine, dead, other, new_record(f"{subject}-2")):
            store.add(record, NOW)
        assert store.list(subject, "session", NOW + 1) == sorted(mine, key=_id)

    def test_a_list_has_nobody_elses_records(self, store: Store, subject: str) -> None:
        names = (subject, subject.upper(), f"{subject} ", subject + "\u0301", subject[:-1])
        records = [new_record(name) for name in names]
        for record in records:
            store.add(record, NOW)
        assert [store.list(record.subject, "session", NOW) for record in records] == [[record] for record in records]

    def test_nobodys_records_are_in_no_list(self, store: Store, kind: str) -> None:
        store.add(new_record("", kind=kind), NOW)
        assert store.list("", kind, NOW) == []

    def test_a_list_is_in_the_order_of_the_characters_codes(self, store: Store, subject: str) -> None:
        """Not of an alphabet: a page that began elsewhere would have gaps."""
        first = new_id(subject)
        records = [new_record(subject, id=first[:-2] + end) for end in ("b0", "B0", "_0", "-0", "a0", "A0", "00", "z0")]
        for record in records:
            store.add(record, NOW)
        ids = [record.id for record in store.list(subject, "session", NOW)]
        assert ids == [first[:-2] + end for end in ("-0", "00", "A0", "B0", "_0", "a0", "b0", "z0")]
        assert [record.id for record in store.list(subject, "session", NOW, first[:-2] + "_0")] == ids[5:]

    def test_a_page_may_begin_after_what_is_gone(self, store: Store, subject: str) -> None:
        for _ in range(4):
            store.add(new_record(subject), NOW)
        before = store.list(subject, "session", NOW)
        store.remove("session", before[1].id)
        assert store.list(subject, "session", NOW, before[1].id) == before[2:]

    def test_a_page_has_at_most_so_many(self, store: Store, subject: str) -> None:
        for n in range(MAX_LIST + 1):
            store.add(_nth(subject, n), NOW)
        pages = [len(store.list(subject, "session", NOW, "", limit)) for limit in (-1, 0, 1, 1000, 1001, 10**6)]
        assert pages == [0, 0, 1, 1000, 1000, 1000]
        assert len(store.list(subject, "session", NOW)) == 100

    def test_a_list_comes_in_pages_without_gaps(self, store: Store, subject: str) -> None:
        records = [new_record(subject, ends_at=NOW + (1 if n % 3 == 0 else 100)) for n in range(25)]
        for record in records:
            store.add(record, NOW)
        live = sorted(record.id for record in records if record.ends_at > NOW + 1)
        pages = [[record.id for record in page] for page in _pages(store, subject, NOW + 1, 4)]
        assert [record_id for page in pages for record_id in page] == live
        assert {len(page) for page in pages[:-1]} == {4}

    def test_records_of_a_dead_generation_take_no_place_on_a_page(self, store: Store, subject: str) -> None:
        for _ in range(10):
            store.add(new_record(subject), NOW)
        generation = store.advance(subject, ("session",), NOW)["session"]
        fresh = [new_record(subject, generation=generation) for _ in range(3)]
        for record in fresh:
            store.add(record, NOW)
        assert store.list(subject, "session", NOW, "", 3) == sorted(fresh, key=_id)

    # -- counts ---------------------------------------------------------------------------------------------

    def test_counts_are_allowed_up_to_the_limit(self, store: Store, subject: str) -> None:
        answers = [store.count_up(subject, 60, 3, NOW + n) for n in range(5)]
        assert [answer.allowed for answer in answers] == [True, True, True, False, False]
        assert [answer.count for answer in answers] == [1, 2, 3, 4, 5]
        assert [answer.retry_after for answer in answers] == [0, 0, 0, 57, 56]

    def test_a_window_ends_on_time_and_is_not_extended(self, store: Store, subject: str) -> None:
        for second in range(60):
            store.count_up(subject, 60, 1, NOW + second)
        assert store.count_up(subject, 60, 1, NOW + 60).allowed

    def test_a_window_begins_with_the_first_count_in_it(self, store: Store, subject: str) -> None:
        """Not when a clock strikes, nor when the window before it ended."""
        waits = [store.count_up(subject, 60, 0, NOW + seconds).retry_after for seconds in (17.5, 60, 137.25, 190)]
        assert waits == [60, 17.5, 60, 7.25]

    def test_the_limit_is_that_of_the_call(self, store: Store, subject: str) -> None:
        allowed = [store.count_up(subject, 60, limit, NOW).allowed for limit in (0, 5, 2, 4, 2**40)]
        assert allowed == [False, True, False, True, True]

    def test_a_count_can_be_forgotten(self, store: Store, subject: str) -> None:
        store.count_up(subject, 60, 1, NOW)
        store.count_reset(subject)
        store.count_reset(subject)
        again = store.count_up(subject, 60, 0, NOW + 30)
        assert (again.count, again.retry_after) == (1, 60)

    def test_a_count_can_be_taken_back(self, store: Store, subject: str) -> None:
        for seconds in (0, 1, 2):
            store.count_up(subject, 60, 5, NOW + seconds)
        store.count_back(subject, NOW + 59)
        assert store.count_up(subject, 60, 5, NOW + 59).count == 3

    def test_a_count_that_is_taken_back_leaves_the_window_as_it_was(self, store: Store, subject: str) -> None:
        """Also if nothing is left of it: who always succeeds in between would otherwise never come to an end."""
        for names in (subject, f"{subject}-2"):
            store.count_up(names, 60, 5, NOW)
        store.count_up(subject, 60, 5, NOW + 1)
        answers = []
        for name in (subject, f"{subject}-2"):
            store.count_back(name, NOW + 10)
            answers.append(store.count_up(name, 60, 0, NOW + 20))
        assert [(answer.count, answer.retry_after) for answer in answers] == [(2, 40), (1, 40)]
        assert store.count_up(subject, 60, 0, NOW + 60).count == 1

    def test_a_count_is_never_less_than_nothing(self, store: Store, subject: str) -> None:
        store.count_up(subject, 60, 5, NOW)
        for _ in range(3):
            store.count_back(subject, NOW)
        assert store.count_up(subject, 60, 5, NOW).count == 1

    def test_what_was_never_counted_is_not_taken_back(self, store: Store, subject: str) -> None:
        store.count_back(subject, NOW)
        first = store.count_up(subject, 60, 0, NOW + 30)
        assert (first.count, first.retry_after) == (1, 60)

    def test_a_window_that_is_over_is_left_alone(self, store: Store, subject: str) -> None:
        """A clock that goes back finds it as it was."""
        for _ in range(2):
            store.count_up(subject, 60, 5, NOW)
        store.count_back(subject, NOW + 60)
        assert store.count_up(subject, 60, 5, NOW + 59).count == 3

    def test_a_count_is_taken_back_of_one_name_alone(self, store: Store, subject: str) -> None:
        names = (subject, subject.upper(), f"{subject} ", subject + "\u0301", subject[:-1])
        for name in names:
            store.count_up(name, 60, 5, NOW)
        store.count_back(subject, NOW)
        assert [store.count_up(name, 60, 5, NOW).count for name in names] == [1] + [2] * (len(names) - 1)

    def test_names_are_counted_apart(self, store: Store, subject: str) -> None:
        names = (subject, subject.upper(), f"{subject} ", subject + "\u0301", subject[:-1])
        assert [store.count_up(name, 60, 1, NOW).count for name in names] == [1] * len(names)
        store.count_reset(subject)
        assert [store.count_up(name, 60, 1, NOW).count for name in names] == [1] + [2] * (len(names) - 1)

    def test_a_clock_that_goes_back_does_not_lock_for_longer_than_a_window(self, store: Store, subject: str) -> None:
        store.count_up(subject, 60, 0, NOW + 1e6)
        assert store.count_up(subject, 60, 0, NOW).retry_after <= 60

    # -- purge ----------------------------------------------------------------------------------------------

    def test_purge_removes_the_dead_a_bounded_number_at_a_time(self, store: Store, subject: str) -> None:
        now = NOW + 1e8  # when nothing of the other tests is alive any more
        _purge_all(store, now)
        alive = new_record(subject, touched_at=now, ends_at=now + 2 * COLLECT_AFTER, idle_for=None)
        for record in (alive, *(new_record(subject, touched_at=now, ends_at=now + 10) for _ in range(10))):
            store.add(record, now)
        store.count_up(subject, 10, 1, now)
        assert store.purge(now + 9 + COLLECT_AFTER) == 0
        assert store.purge(now + 10 + COLLECT_AFTER, 0) == 0
        gone = [store.purge(now + 10 + COLLECT_AFTER, 4) for _ in range(4)]
        assert max(gone) <= 4
        assert sum(gone) == 11
        assert _get(store, alive, now + 10) == alive

    def test_purge_spares_what_was_used_meanwhile(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        store.get("session", record.id, NOW + 500, touch_after=60)
        store.purge(NOW + 700 + COLLECT_AFTER)
        assert store.get("session", record.id, NOW + 700) is not None

    def test_purge_spares_what_was_prolonged_meanwhile(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        longer = changed(record, idle_for=None, ends_at=NOW + 10 * COLLECT_AFTER)
        kept = store.swap(record, longer, NOW)
        store.purge(NOW + 3600 + COLLECT_AFTER)
        assert _get(store, record, NOW + 9 * COLLECT_AFTER) == kept

    def test_purge_spares_the_counts_whose_window_lasts(self, store: Store, subject: str) -> None:
        store.count_up(subject, 10 * COLLECT_AFTER, 1, NOW)
        store.purge(NOW + 9 * COLLECT_AFTER)
        assert store.count_up(subject, 10 * COLLECT_AFTER, 1, NOW + 9 * COLLECT_AFTER).count == 2

    def test_purge_removes_a_thousand_unless_told_otherwise(self, store: Store, subject: str) -> None:
        now = NOW + 1e8
        _purge_all(store, now)
        for n in range(1001):
            store.add(_nth(subject, n, touched_at=now - 1e6, ends_at=now - 1e6), now - 1e6)
        assert [store.purge(now), store.purge(now)] == [1000, 1]

    def test_purge_goes_on_until_nothing_is_left(self, store: Store, subject: str) -> None:
        """``while store.purge(now): ...`` is how all of it is collected: 0 must mean that nothing is left."""
        now = NOW + 1e8
        _purge_all(store, now)
        dead = {"touched_at": now - 1e6, "ends_at": now - 1e6}
        for n in range(10):
            store.add(_nth(subject, n, **dead), now - 1e6)
            store.remove("session", _nth(subject, n).id)
        for n in range(3):
            store.add(_nth(subject, 100 + n, **dead), now - 1e6)
        assert _purge_all(store, now, 2) == 3

    def test_purge_leaves_a_clock_that_goes_back_what_it_needs(self, store: Store, subject: str) -> None:
        revocation = new_record(subject, kind=REVOKED_TOKEN, idle_for=None)
        store.add(revocation, NOW)
        store.purge(NOW + 3600 + COLLECT_AFTER - 1)
        assert store.marks(subject, revocation.id, NOW + 3599).revoked

    def test_the_dead_of_today_outlive_many_a_new_record(self, store: Store, subject: str) -> None:
        """A store that collects while it adds collects a day late, too."""
        revocation = new_record(subject, kind=REVOKED_TOKEN, idle_for=None)
        store.add(revocation, NOW)
        now = NOW + 3600 + COLLECT_AFTER - 1
        for n in range(OTHERS):
            store.add(_nth(subject, n, touched_at=now, ends_at=now + 3600), now)
        assert store.marks(subject, revocation.id, NOW + 3599).revoked

    # -- the table ------------------------------------------------------------------------------------------

    def test_making_what_is_there_already_changes_nothing(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        store.create_tables()
        store.check()
        assert _get(store, record) == record

    def test_a_store_may_be_used_again_after_it_was_closed(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        store.close()
        store.close()
        assert _get(store, record) == record
        store.close()
        store.add(new_record(subject), NOW)
        store.check()

    def test_what_several_threads_opened_is_closed_with_it(self, opener: Opener, subject: str) -> None:
        """Also if all of them were the first to use it."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ResourceWarning)
            for _ in range(5):
                store = opener()
                _race_on(store, subject, _race_to_open, 1)
                store.close()
                del store
            gc.collect()
        assert [str(one.message) for one in caught if issubclass(one.category, ResourceWarning)] == []

    def test_no_verb_goes_through_what_is_others(self, store: Store, subject: str) -> None:
        """Told by counting Python's steps, not by a watch: one for each record of others would be too many."""
        store.add(new_record(subject), NOW)
        store.advance(subject, ("api_token",), NOW)  # a subject that has a mark may take another way
        before = _steps_of_each_verb(store, subject)
        for n in range(OTHERS):
            name = f"{subject}-{n}"
            store.add(new_record(name), NOW)
            store.add(new_record(f"{subject}-other"), NOW)
            store.advance(name, ("session",), NOW)
            store.count_up(name, 60, 1, NOW)
        after = _steps_of_each_verb(store, subject)
        grown = {verb: steps - before[verb] for verb, steps in after.items()}
        assert {verb: steps for verb, steps in grown.items() if steps >= OTHERS} == {}

    # -- sequences ------------------------------------------------------------------------------------------

    def test_any_sequence_of_verbs_agrees_with_a_simple_model(self, store: Store, kind: str) -> None:
        run_state_machine_as_test(
            lambda: _Model(store, kind),  # type: ignore[arg-type]  # a factory does as well as a class
            settings=settings(
                max_examples=40,
                stateful_step_count=30,
                deadline=None,
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
                database=None,
            ),
        )

    # -- threads --------------------------------------------------------------------------------------------

    def test_one_thread_takes_a_record(self, store: Store, subject: str) -> None:
        _judge_take(store, subject, _among_threads(store, subject, _race_to_take, self.rounds))

    def test_one_thread_adds_a_record(self, store: Store, subject: str) -> None:
        _judge_add(store, subject, _among_threads(store, subject, _race_to_add, self.rounds))

    def test_one_thread_adds_a_record_whose_id_was_a_dead_ones(self, store: Store, subject: str) -> None:
        _judge_add(
            store, subject, _among_threads(store, subject, _race_to_add_again, self._share_of_rounds(4)), NOW + 3600
        )

    def test_one_thread_swaps_a_version(self, store: Store, subject: str) -> None:
        _judge_swap(store, subject, _among_threads(store, subject, _race_to_swap, self.rounds))

    def test_one_thread_moves_a_record_to_a_new_id(self, store: Store, subject: str) -> None:
        _judge_swap(store, subject, _among_threads(store, subject, _race_to_move, self._share_of_rounds(4)))

    def test_one_thread_moves_its_record_to_an_id_that_was_free(self, store: Store, subject: str) -> None:
        _judge_move_onto_one(store, subject, _among_threads(store, subject, _race_to_one_id, self._share_of_rounds(4)))

    def test_a_moving_record_is_always_in_one_place(self, store: Store, subject: str) -> None:
        _judge_moving(_among_threads(store, subject, _race_to_see_a_move, self._share_of_rounds(4)))

    def test_no_count_is_lost_between_threads(self, store: Store, subject: str) -> None:
        _judge_counts(_among_threads(store, subject, _race_to_count, self.rounds))

    def test_no_count_is_lost_while_others_are_taken_back(self, store: Store, subject: str) -> None:
        _among_threads(store, subject, _race_to_count_back, self._share_of_rounds(4))
        _judge_counts_back(store, subject, self._share_of_rounds(4))

    def test_no_advance_is_lost_between_threads(self, store: Store, subject: str) -> None:
        _judge_advances(store, subject, _among_threads(store, subject, _race_to_advance, self._share_of_rounds(4)))

    def test_nothing_survives_an_advance_that_came_after_it(self, store: Store, subject: str) -> None:
        """Sign-ins, renewals and uses race a revocation: whatever is alive afterwards is of the new generation."""
        _judge_revocation(store, subject, _among_threads(store, subject, _race_a_revocation, self._share_of_rounds(2)))

    def test_neither_a_use_nor_a_swap_brings_a_removed_record_back(self, store: Store, subject: str) -> None:
        _judge_removal(store, subject, _among_threads(store, subject, _race_a_removal, self._share_of_rounds(4)))

    def test_a_record_that_is_changed_at_that_moment_is_taken_all_the_same(self, store: Store, subject: str) -> None:
        _judge_take_and_swap(
            store, subject, _among_threads(store, subject, _race_to_take_what_changes, self._share_of_rounds(4))
        )

    def test_a_use_and_a_swap_at_the_same_moment_are_both_kept(self, store: Store, subject: str) -> None:
        _judge_use_and_swap(
            store, subject, _among_threads(store, subject, _race_to_use_and_swap, self._share_of_rounds(4))
        )

    def test_what_is_purged_by_several_threads_is_counted_once(self, store: Store, subject: str) -> None:
        now = NOW + 1e8
        _purge_all(store, now)
        gone = _among_threads(store, subject, _race_to_purge, self._share_of_rounds(4))
        assert sum(map(sum, gone)) + store.purge(now) == len(gone)

    def _share_of_rounds(self, divisor: int) -> int:
        return max(1, self.rounds // divisor)

    # -- processes ------------------------------------------------------------------------------------------

    def test_all_processes_see_the_same_records(
        self, opener: Opener, store: Store, processes: Processes, subject: str
    ) -> None:
        if not store.shared:
            pytest.skip("this store is not shared among processes")
        record = new_record(subject)
        store.add(record, NOW)
        first, second = processes.race(opener, subject, _race_to_meet, 2)
        assert first == [[record]] * RACERS
        everything = store.list(subject, "session", NOW)
        assert len(everything) == 1 + RACERS
        assert second == [everything] * RACERS

    def test_one_process_takes_a_record(self, opener: Opener, store: Store, processes: Processes, subject: str) -> None:
        _judge_take(store, subject, self._among_processes(processes, opener, store, subject, _race_to_take))

    def test_one_process_adds_a_record(self, opener: Opener, store: Store, processes: Processes, subject: str) -> None:
        _judge_add(store, subject, self._among_processes(processes, opener, store, subject, _race_to_add))

    def test_one_process_swaps_a_version(
        self, opener: Opener, store: Store, processes: Processes, subject: str
    ) -> None:
        _judge_swap(store, subject, self._among_processes(processes, opener, store, subject, _race_to_swap))

    def test_one_process_moves_a_record_to_a_new_id(
        self, opener: Opener, store: Store, processes: Processes, subject: str
    ) -> None:
        _judge_swap(store, subject, self._among_processes(processes, opener, store, subject, _race_to_move))

    def test_no_count_is_lost_between_processes(
        self, opener: Opener, store: Store, processes: Processes, subject: str
    ) -> None:
        _judge_counts(self._among_processes(processes, opener, store, subject, _race_to_count))

    def test_no_count_is_lost_while_other_processes_take_theirs_back(
        self, opener: Opener, store: Store, processes: Processes, subject: str
    ) -> None:
        self._among_processes(processes, opener, store, subject, _race_to_count_back)
        _judge_counts_back(store, subject, self.process_rounds)

    def test_no_advance_is_lost_between_processes(
        self, opener: Opener, store: Store, processes: Processes, subject: str
    ) -> None:
        _judge_advances(store, subject, self._among_processes(processes, opener, store, subject, _race_to_advance))

    def test_nothing_survives_an_advance_in_another_process(
        self, opener: Opener, store: Store, processes: Processes, subject: str
    ) -> None:
        _judge_revocation(store, subject, self._among_processes(processes, opener, store, subject, _race_a_revocation))

    def test_a_use_and_a_swap_in_two_processes_are_both_kept(
        self, opener: Opener, store: Store, processes: Processes, subject: str
    ) -> None:
        results = self._among_processes(processes, opener, store, subject, _race_to_use_and_swap)
        _judge_use_and_swap(store, subject, results)

    def _among_processes(
        self, processes: Processes, opener: Opener, store: Store, subject: str, race: Race
    ) -> list[list[Any]]:
        if not store.shared:
            pytest.skip("this store is not shared among processes")
        store.marks(subject, "", NOW)  # how it is made is not what is raced for
        return processes.race(opener, subject, race, self.process_rounds)

    def test_a_store_works_on_both_sides_of_a_fork(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        assert _run_child(_forks().Process(target=_take_in_a_fork, args=(store, record))) == 0
        mark = new_record(subject)
        store.add(mark, NOW)
        assert _get(store, mark) == mark
        if store.shared:
            assert store.get("session", record.id, NOW) is None  # the child took it

    def test_a_fork_while_threads_are_at_work_harms_nobody(self, store: Store, subject: str) -> None:
        """A child has none of the parent's threads, but whatever they held at that moment."""
        stop, at_work = threading.Event(), threading.Barrier(RACERS + 1)

        def work() -> None:
            waiting = True
            while not stop.is_set():
                record = new_record(subject)
                store.add(record, NOW)
                store.count_up(subject, 60, 1, NOW)
                store.take("session", record.id, NOW)
                if waiting:  # until each has its connection: a driver may not bear a fork while it makes one
                    waiting = False
                    at_work.wait(PATIENCE)

        context = _forks()
        with ThreadPoolExecutor(RACERS) as pool:
            workers = [pool.submit(work) for _ in range(RACERS)]
            try:
                at_work.wait(PATIENCE)
                for _ in range(5):
                    assert _run_child(context.Process(target=_work_in_a_fork, args=(store,))) == 0
            finally:
                stop.set()
                at_work.abort()
        for worker in workers:
            worker.result()

    def test_what_was_acknowledged_is_there_for_whoever_opens_the_store_next(
        self, opener: Opener, store: Store, subject: str
    ) -> None:
        if not store.durable:
            pytest.skip("this store ends with its process")
        record = new_record(subject)
        store.add(record, NOW)
        store.close()
        again = opener()
        assert _get(again, record) == record
        again.close()

    def test_what_was_acknowledged_survives_the_sudden_end_of_its_process(
        self, opener: Opener, store: Store, subject: str
    ) -> None:
        if not store.durable:
            pytest.skip("this store ends with its process")
        store.add(new_record(subject, id=id_for(subject, "taken")), NOW)
        child = multiprocessing.get_context("spawn").Process(target=_write_and_die, args=(opener, subject))
        assert _run_child(child) == _SUDDEN_END
        swapped = _get(store, new_record(subject, id=id_for(subject, "swapped")))
        assert (swapped.version, swapped.data) == (2, {"data": {"a": 1}})
        assert store.get("session", id_for(subject, "taken"), NOW) is None
        assert store.count_up(subject, 60, 1, NOW).count == 2
        assert store.advance(subject, ("api_token",), NOW)["api_token"] == 2


# -- racing -------------------------------------------------------------------------------------------------


class Racer:
    """One of several, in threads or processes, that do something at the same moment, round after round.

    Attributes:
        store: The store as this one opened it.
        subject: Whose records they race for.
        number: Which of the racers this is, from 0.
        number_of_rounds: How often they race.
    """

    def __init__(self, store: Store, subject: str, number: int, rounds: int, barrier: threading.Barrier) -> None:
        self.store = store
        self.subject = subject
        self.number = number
        self.number_of_rounds = rounds
        self._barrier = barrier
        self._trace = _stumbler(store)

    def prepare(self, make: Callable[[int], Record]) -> None:
        """Add this one's share of what is raced for: a record for each round."""
        for n in range(self.number, self.number_of_rounds, RACERS):
            self.store.add(make(n), NOW)

    def rounds(self) -> Iterator[int]:
        """The number of each round, as soon as everybody is there.

        In the first ones everybody stumbles now and then on the way through the store: a verb in memory is
        otherwise over before anybody else has begun.
        """
        before = sys.gettrace()
        try:
            for n in range(self.number_of_rounds):
                self.wait()
                sys.settrace(self._trace if n < STUMBLING_ROUNDS else before)
                yield n
        finally:
            sys.settrace(before)

    def wait(self) -> None:
        """Wait for all others."""
        self._barrier.wait(PATIENCE)

    def run(self, race: Race) -> list[Any]:
        """What came of it, by rounds; if anything goes wrong, nobody waits for this one any longer."""
        try:
            return race(self)
        except BaseException:
            self._barrier.abort()
            raise


Race = Callable[[Racer], list[Any]]


def _stumbler(store: Store) -> Callable[[FrameType, str, object], Any]:
    """A trace function that gives up the processor before one in five lines of the store's own modules."""
    files = {inspect.getfile(each) for each in type(store).__mro__ if each not in Store.__mro__}

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename not in files:
            return None
        if event == "line" and random.random() < 0.2:
            time.sleep(1e-6)
        return trace

    return trace


class Processes:
    """Other processes to race in."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._barrier = context.Barrier(RACERS)
        self._pool = ProcessPoolExecutor(RACERS, context, initializer=_remember_barrier, initargs=(self._barrier,))

    def race(self, opener: Opener, subject: str, race: Race, rounds: int) -> list[list[Any]]:
        """The outcomes of all rounds, each with those of all racers."""
        self._barrier.reset()
        racing = [self._pool.submit(_race_in_a_process, opener, subject, n, rounds, race) for n in range(RACERS)]
        return _outcomes(racing)

    def close(self) -> None:
        """End them."""
        self._pool.shutdown()


_PROCESSES = pytest.StashKey[Processes]()
_barriers: list[threading.Barrier] = []  # the one of this process, if it is one of Processes


def _remember_barrier(barrier: threading.Barrier) -> None:
    _barriers[:] = [barrier]


def _race_in_a_process(opener: Opener, subject: str, number: int, rounds: int, race: Race) -> list[Any]:
    store = opener()
    try:
        return Racer(store, subject, number, rounds, _barriers[0]).run(race)
    finally:
        store.close()


def _among_threads(store: Store, subject: str, race: Race, rounds: int) -> list[list[Any]]:
    """The outcomes of all rounds, each with those of all racers."""
    store.marks(subject, "", NOW)  # how it is opened is not what is raced for
    return _race_on(store, subject, race, rounds)


def _race_on(store: Store, subject: str, race: Race, rounds: int) -> list[list[Any]]:
    barrier = threading.Barrier(RACERS)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # with the usual 5 ms a verb of a store in memory is over before anybody else runs
    try:
        with ThreadPoolExecutor(RACERS) as pool:
            racers = [Racer(store, subject, number, rounds, barrier) for number in range(RACERS)]
            racing = [pool.submit(racer.run, race) for racer in racers]
            return _outcomes(racing)
    finally:
        sys.setswitchinterval(interval)


def _outcomes(racing: list[Future[list[Any]]]) -> list[list[Any]]:
    errors = [error for future in racing if (error := future.exception()) is not None]
    for error in errors:
        if not isinstance(error, threading.BrokenBarrierError):  # whose race ended because of another's trouble
            raise error
    return [list(outcomes) for outcomes in zip(*(future.result() for future in racing), strict=True)]


def _outcome(act: Callable[[], object]) -> object:
    """What the act returned, or the name of its refusal."""
    try:
        return act()
    except (RecordExists, GenerationOutdated) as refused:
        return type(refused).__name__


# -- the races and what must come of them -------------------------------------------------------------------


def _race_to_meet(racer: Racer) -> list[Any]:
    """All look, and then each adds a record; all look again."""
    seen: list[Any] = []
    for n in racer.rounds():
        seen.append(racer.store.list(racer.subject, "session", NOW))
        racer.wait()
        if n == 0:
            racer.store.add(new_record(racer.subject), NOW)
    return seen


def _race_to_open(racer: Racer) -> list[Any]:
    return [racer.store.marks(racer.subject, "", NOW) for _ in racer.rounds()]


def _race_to_take(racer: Racer) -> list[Any]:
    racer.prepare(lambda n: _nth(racer.subject, n))
    return [racer.store.take("session", _nth(racer.subject, n).id, NOW) for n in racer.rounds()]


def _judge_take(store: Store, subject: str, results: list[list[Any]]) -> None:
    for n, taken in enumerate(results):
        assert [one for one in taken if one is not None] == [_nth(subject, n)]
    assert _all(store, subject) == {}


def _race_to_add(racer: Racer) -> list[Any]:
    data = {"by": racer.number}
    return [_outcome(lambda: racer.store.add(_nth(racer.subject, n, data=data), NOW)) for n in racer.rounds()]


def _race_to_add_again(racer: Racer) -> list[Any]:
    racer.prepare(lambda n: _nth(racer.subject, n))
    now = NOW + 3600
    members = {"data": {"by": racer.number}, "touched_at": now, "ends_at": now + 3600}
    return [_outcome(lambda: racer.store.add(_nth(racer.subject, n, **members), now)) for n in racer.rounds()]


def _judge_add(store: Store, subject: str, results: list[list[Any]], now: float = NOW) -> None:
    kept = _all(store, subject, now)
    assert len(kept) == len(results)
    for n, added in enumerate(results):
        assert sorted(map(str, added)) == ["None"] + ["RecordExists"] * (RACERS - 1)
        assert kept[_nth(subject, n).id].data == {"by": added.index(None)}


def _race_to_swap(racer: Racer) -> list[Any]:
    racer.prepare(lambda n: _nth(racer.subject, n))
    records = (_nth(racer.subject, n) for n in racer.rounds())
    return [racer.store.swap(old, changed(old, data={"by": racer.number}), NOW) for old in records]


def _race_to_move(racer: Racer) -> list[Any]:
    racer.prepare(lambda n: _nth(racer.subject, n))
    records = (_nth(racer.subject, n) for n in racer.rounds())
    return [racer.store.swap(old, changed(old, id=new_id(racer.subject)), NOW) for old in records]


def _judge_swap(store: Store, subject: str, results: list[list[Any]]) -> None:
    winners = [[one for one in swapped if one is not None] for swapped in results]
    assert {len(each) for each in winners} == {1}
    assert _all(store, subject) == {one.id: one for each in winners for one in each}


def _race_to_one_id(racer: Racer) -> list[Any]:
    """Two records each round, two racers for each of them, one id that all of them move to."""
    subject, mine = racer.subject, racer.number % 2
    racer.prepare(lambda n: _nth(subject, n, id=id_for(subject, f"{n}-0")))
    racer.prepare(lambda n: _nth(subject, n, id=id_for(subject, f"{n}-1")))
    outcomes = []
    for n in racer.rounds():
        old = _nth(subject, n, id=id_for(subject, f"{n}-{mine}"))
        outcomes.append(_outcome(lambda: racer.store.swap(old, _nth(subject, n, data={"by": mine}), NOW)))
    return outcomes


def _judge_move_onto_one(store: Store, subject: str, results: list[list[Any]]) -> None:
    kept = _all(store, subject)
    assert len(kept) == 2 * len(results)
    for n, moved in enumerate(results):
        winners = [one for one in moved if isinstance(one, Record)]
        assert len(winners) == 1
        assert kept[winners[0].id] == winners[0]
        assert id_for(subject, f"{n}-{1 - winners[0].data['by']}") in kept


def _race_to_see_a_move(racer: Racer) -> list[Any]:
    """One moves a record on and on, the others count how many there are."""
    current = new_record(racer.subject)
    if racer.number == 0:
        racer.store.add(current, NOW)
    seen = []
    for _ in racer.rounds():
        if racer.number == 0:
            moved = racer.store.swap(current, changed(current, id=new_id(racer.subject)), NOW)
            assert moved is not None
            current = moved
            seen.append(1)
        else:
            seen.append(len(racer.store.list(racer.subject, "session", NOW)))
    return seen


def _judge_moving(results: list[list[Any]]) -> None:
    assert {count for seen in results for count in seen} == {1}


def _race_to_count(racer: Racer) -> list[Any]:
    """A window each round, so that its beginning is raced for too."""
    return [racer.store.count_up(racer.subject, 60, 2, NOW + 60 * n) for n in racer.rounds()]


def _judge_counts(results: list[list[Any]]) -> None:
    for answers in results:
        assert sorted(answer.count for answer in answers) == list(range(1, RACERS + 1))
        assert all(answer.allowed == (answer.count <= 2) for answer in answers)


def _race_to_count_back(racer: Racer) -> list[Any]:
    """In each round all count, and every other one takes theirs back; and all take back what was counted once."""
    for n in range(racer.number, racer.number_of_rounds, RACERS):
        racer.store.count_up(f"{racer.subject}-once-{n}", 60, 1, NOW)
    for n in racer.rounds():
        racer.store.count_up(f"{racer.subject}-{n}", 60, 1, NOW)
        if racer.number % 2:
            racer.store.count_back(f"{racer.subject}-{n}", NOW)
        racer.store.count_back(f"{racer.subject}-once-{n}", NOW)
    return []


def _judge_counts_back(store: Store, subject: str, rounds: int) -> None:
    left = [store.count_up(f"{subject}-{n}", 60, 1, NOW).count - 1 for n in range(rounds)]
    assert left == [RACERS // 2] * rounds
    nothing = [store.count_up(f"{subject}-once-{n}", 60, 1, NOW).count - 1 for n in range(rounds)]
    assert nothing == [0] * rounds


def _race_to_advance(racer: Racer) -> list[Any]:
    """One kind that all of them advance, and one of each racer's own."""
    mine = _KINDS[racer.number]
    return [racer.store.advance(racer.subject, ("session", mine), NOW)[mine] for _ in racer.rounds()]


def _judge_advances(store: Store, subject: str, results: list[list[Any]]) -> None:
    base, marks = store.marks("", "", NOW), store.marks(subject, "", NOW)
    assert marks.generation("session") == base.generation("session") + RACERS * len(results)
    for number, kind in enumerate(_KINDS):
        first = base.generation(kind) + 1
        assert [answers[number] for answers in results] == list(range(first, first + len(results)))


def _race_a_revocation(racer: Racer) -> list[Any]:
    """One revokes and signs in anew, one signs in with what it knew before, one renews, one uses.

    The last one's answer is whether what it saw belonged together, and was over when the revocation was.
    """
    store = racer.store
    base = store.marks(racer.subject, "", NOW).generation("session")

    def existing(n: int) -> Record:
        return _nth(f"{racer.subject}-{n}", n, generation=base)

    racer.prepare(existing)
    outcomes: list[Any] = []
    for n in racer.rounds():
        old, found = existing(n), None
        if racer.number == 0:
            generation = store.advance(old.subject, ("session",), NOW)["session"]
            store.add(new_record(old.subject, generation=generation), NOW)
        elif racer.number == 1:
            _outcome(lambda: store.add(new_record(old.subject, generation=base), NOW))
        elif racer.number == 2:
            new = changed(old, id=new_id(old.subject)) if n % 2 else old
            _outcome(lambda: store.swap(old, new, NOW))
        else:
            found = store.get("session", old.id, NOW + 100, touch_after=60)
        racer.wait()
        if found is not None and found.record.generation < found.generations.get("session", 0):
            outcomes.append("seen alive with the generation that killed it")
        elif racer.number == 3 and store.get("session", old.id, NOW + 100) is not None:
            outcomes.append("seen alive after its end")
        else:
            outcomes.append("well")
    return outcomes


def _judge_revocation(store: Store, subject: str, results: list[list[Any]]) -> None:
    assert {outcome for outcomes in results for outcome in outcomes} == {"well"}
    base = store.marks(subject, "", NOW).generation("session")
    for n in range(len(results)):
        alive = store.list(f"{subject}-{n}", "session", NOW + 100)
        assert [record.generation for record in alive] == [base + 1]


def _race_a_removal(racer: Racer) -> list[Any]:
    racer.prepare(lambda n: _nth(racer.subject, n))
    for n in racer.rounds():
        old = _nth(racer.subject, n)
        if racer.number == 0:
            racer.store.remove("session", old.id)
        elif racer.number == 1:
            racer.store.swap(old, old, NOW)
        else:
            racer.store.get("session", old.id, NOW + 100, touch_after=60)
    return [None] * racer.number_of_rounds


def _judge_removal(store: Store, subject: str, results: list[list[Any]]) -> None:
    assert [n for n in range(len(results)) if store.get("session", _nth(subject, n).id, NOW + 100) is not None] == []
    assert _all(store, subject, NOW + 100) == {}


def _race_to_take_what_changes(racer: Racer) -> list[Any]:
    """One takes, the others change; answers what was taken, and whether a change was made."""
    racer.prepare(lambda n: _nth(racer.subject, n))
    outcomes: list[Any] = []
    for n in racer.rounds():
        record_id = _nth(racer.subject, n).id
        if racer.number == 0:
            outcomes.append(racer.store.take("session", record_id, NOW))
            continue
        found = racer.store.get("session", record_id, NOW)
        outcomes.append(found is not None and racer.store.swap(found.record, found.record, NOW) is not None)
    return outcomes


def _judge_take_and_swap(store: Store, subject: str, results: list[list[Any]]) -> None:
    for taken, *swaps in results:
        assert taken is not None
        assert taken.version == 1 + sum(swaps)
    assert _all(store, subject) == {}


def _race_to_use_and_swap(racer: Racer) -> list[Any]:
    racer.prepare(lambda n: _nth(racer.subject, n))
    outcomes: list[Any] = []
    for n in racer.rounds():
        old = _nth(racer.subject, n)
        if racer.number < 2:
            outcomes.append(racer.store.swap(old, changed(old, data={"by": racer.number}), NOW + 100))
        else:
            racer.store.get("session", old.id, NOW + 100, touch_after=60)
            outcomes.append(None)
    return outcomes


def _judge_use_and_swap(store: Store, subject: str, results: list[list[Any]]) -> None:
    kept = _all(store, subject, NOW + 100)
    for n, outcomes in enumerate(results):
        winners = [number for number, outcome in enumerate(outcomes) if outcome is not None]
        assert len(winners) == 1
        expected = _nth(subject, n, data={"by": winners[0]}, touched_at=NOW + 100, version=2)
        assert kept[expected.id] == expected


def _race_to_purge(racer: Racer) -> list[Any]:
    dead_at = NOW + 1e8 - 1e6
    racer.prepare(lambda n: _nth(racer.subject, n, touched_at=dead_at, ends_at=dead_at))
    return [racer.store.purge(NOW + 1e8, 2) for _ in racer.rounds()]


# -- children -----------------------------------------------------------------------------------------------

_SUDDEN_END = 9


def _forks() -> Any:
    if not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    return multiprocessing.get_context("fork")


def _run_child(child: Any) -> int | None:
    """Its exit code; it never outlives this call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of a fork beside threads: that is the test
        child.start()
    try:
        child.join(PATIENCE)
        code: int | None = child.exitcode
    finally:
        child.kill()
        child.join()
        child.close()
    return code


def _take_in_a_fork(store: Store, record: Record) -> None:
    if store.take("session", record.id, NOW) != record:
        raise AssertionError("The child did not find what its parent had kept.")


def _work_in_a_fork(store: Store) -> None:
    record = new_record("child", idle_for=None)
    store.add(record, NOW)
    if _get(store, record) != record or store.take("session", record.id, NOW) != record:
        raise AssertionError("The child did not find what it had kept.")


def _write_and_die(opener: Opener, subject: str) -> None:
    """One acknowledged write of each verb, and an end that nothing can prepare for."""
    store = opener()
    record = new_record(subject, id=id_for(subject, "swapped"))
    store.add(record, NOW)
    store.swap(record, changed(record, data={"data": {"a": 1}}), NOW)
    store.take("session", id_for(subject, "taken"), NOW)
    store.count_up(subject, 60, 1, NOW)
    store.advance(subject, ("api_token",), NOW)
    os._exit(_SUDDEN_END)


# -- what the tests are made of ----------------------------------------------------------------------------

_KINDS = [f"kind_of_{letter}" for letter in "abcdefgh"[:RACERS]]


def _nth(subject: str, n: int, **members: Any) -> Record:
    """The same record wherever it is asked for, in whichever process."""
    return new_record(subject, **{"id": id_for(subject, str(n)), "check": b"", **members})


def _all(store: Store, subject: str, now: float = NOW) -> dict[str, Record]:
    """All sessions of a subject, by their ids."""
    return {record.id: record for page in _pages(store, subject, now, MAX_LIST) for record in page}


def _pages(store: Store, subject: str, now: float, limit: int) -> Iterator[Sequence[Record]]:
    after = ""
    while page := store.list(subject, "session", now, after, limit):
        yield page
        assert page[-1].id > after  # or it would go on for ever
        after = page[-1].id


def _purge_all(store: Store, now: float, limit: int = MAX_LIST) -> int:
    gone = 0
    for _ in range(10**4):  # or it would go on for ever
        removed = store.purge(now, limit)
        gone += removed
        if not removed:
            return gone
    raise AssertionError("A purge never comes to an end.")


def _id(record: Record) -> str:
    return record.id


def _namesake(subject: str) -> str:
    """Somebody else whose records lie in the same bucket."""
    bucket = bucket_of(subject)
    return next(name for n in itertools.count() if bucket_of(name := f"{subject}-{n}") == bucket)


def _steps_of_each_verb(store: Store, subject: str) -> Mapping[str, int]:
    """How many steps each verb takes at least: it may do more now and then, such as collecting the dead."""
    steps: dict[str, int] = {}
    for attempt in range(4):  # the first one of a process may have to prepare something
        record, name = new_record(subject, kind="one_time"), f"{subject}-{attempt}-{secrets.token_hex(4)}"
        verbs: dict[str, Callable[[], object]] = {
            "add": lambda: store.add(record, NOW),
            "get": lambda: store.get("one_time", record.id, NOW + 100, 60),
            "marks": lambda: store.marks(subject, record.id, NOW),
            "swap": lambda: store.swap(record, record, NOW),
            "list": lambda: store.list(subject, "session", NOW),
            "take": lambda: store.take("one_time", record.id, NOW),
            "remove": lambda: store.remove("one_time", record.id),
            "advance": lambda: store.advance(subject, ("api_token",), NOW),
            "count_up": lambda: store.count_up(name, 60, 1, NOW),
            "count_back": lambda: store.count_back(name, NOW),
            "count_reset": lambda: store.count_reset(name),
            "purge": lambda: store.purge(NOW),
        }
        for verb, act in verbs.items():
            counted = _steps(act)
            steps[verb] = min(counted, steps.get(verb, counted))
    return steps


def _steps(act: Callable[[], object]) -> int:
    """How many instructions of Python an act takes in this thread: as many on a busy machine as on an idle one."""
    steps = 0

    def trace(frame: Any, event: str, _: object) -> Any:
        nonlocal steps
        frame.f_trace_opcodes = True
        steps += event in ("line", "opcode")
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    return steps


def _id_of_another_bucket(record_id: str) -> str:
    return ("B" if record_id[0] == "A" else "A") + record_id[1:]


_DIGITS_TO_LETTERS = str.maketrans("0123456789", "ghijklmnop")


def _get(store: Store, record: Record, now: float = NOW) -> Record:
    found = store.get(record.kind, record.id, now)
    assert found is not None
    return found.record


class _Model(RuleBasedStateMachine):
    """What a store must do, written as plainly as possible, beside the store."""

    records = Bundle("records")

    def __init__(self, store: Store, kind: str) -> None:
        super().__init__()
        self.store = store
        self.kind = kind
        self.now = self.latest = NOW
        run = secrets.token_hex(6)
        self.subjects = [f"{run}-a", f"{run}-b"]
        self.kept: dict[str, Record] = {}
        self.own = dict.fromkeys(self.subjects, 0)
        self.everyones = store.marks("", "", NOW).generation(kind)
        self.counts: dict[str, tuple[int, float]] = {}

    def generation(self, subject: str) -> int:
        return self.own[subject] + self.everyones

    def live(self, record_id: str) -> Record | None:
        record = self.kept.get(record_id)
        if record is None or record.dies_at <= self.now or record.generation < self.generation(record.subject):
            return None
        return record

    def new(self, who: int, idle: float | None, life: float, older: int) -> Record:
        subject = self.subjects[who]
        return new_record(
            subject,
            kind=self.kind,
            created_at=self.now,
            touched_at=self.now,
            idle_for=idle,
            ends_at=self.now + life,
            generation=max(0, self.generation(subject) - older),
        )

    def kept_if_young_enough(self, record: Record) -> str:
        if record.generation < self.generation(record.subject):
            return "GenerationOutdated"
        self.kept[record.id] = record
        return "None"

    @initialize(target=records)
    def some_are_there(self) -> Any:
        return multiple(*(self.added(self.new(who, None, 1800.0, 0)) for who in (0, 0, 1)))

    @invariant()
    def the_living_are_listed_and_nobody_else(self) -> None:
        for subject in self.subjects:
            mine = sorted(i for i, record in self.kept.items() if record.subject == subject)
            expected = [record for i in mine if (record := self.live(i)) is not None]
            assert [*self.store.list(subject, self.kind, self.now)] == expected

    @rule(seconds=st.sampled_from([1.0, 59.0, 61.0, 600.0, 3600.0, COLLECT_AFTER, -1.0, -600.0, -3600.0]))
    def time_passes_or_the_clock_goes_back(self, seconds: float) -> None:
        """By less than a day in all: what was dead for a day may be gone."""
        self.now = max(self.now + seconds, self.latest - COLLECT_AFTER)
        self.latest = max(self.latest, self.now)

    @rule(
        target=records,
        who=st.integers(0, 1),
        idle=st.sampled_from([None, None, 60.0, 600.0]),
        life=st.sampled_from([1800.0, 10 * COLLECT_AFTER]),
        older=st.sampled_from([0, 0, 0, 1]),
    )
    def add(self, who: int, idle: float | None, life: float, older: int) -> Any:
        return self.added(self.new(who, idle, life, older))

    def added(self, record: Record) -> str:
        expected = self.kept_if_young_enough(record)
        assert str(_outcome(lambda: self.store.add(record, self.now))) == expected
        return record.id

    @rule(record_id=records)
    def add_again(self, record_id: str) -> None:
        old = self.kept.get(record_id)
        if old is None:
            return
        record = changed(self.new(self.subjects.index(old.subject), None, 1800, 0), id=record_id)
        expected = "RecordExists" if self.live(record_id) is not None else self.kept_if_young_enough(record)
        assert str(_outcome(lambda: self.store.add(record, self.now))) == expected

    @rule(record_id=records, touch=st.sampled_from([None, 0.0, 60.0]))
    def get(self, record_id: str, touch: float | None) -> None:
        expected = self.live(record_id)
        if expected is not None and touch is not None and self.now - expected.touched_at > touch:
            expected = self.kept[record_id] = changed(expected, touched_at=self.now)
        found = self.store.get(self.kind, record_id, self.now, touch)
        assert (None if found is None else found.record) == expected
        if found is not None:
            assert found.generations.get(self.kind, 0) == self.generation(found.record.subject)

    @rule(
        target=records,
        record_id=records,
        value=st.integers(),
        how=st.sampled_from(["in place", "to a new id", "stale", "stale to a new id"]),
        life=st.sampled_from([None, 100.0, 5000.0]),
        newer=st.sampled_from([-1, 0, 0, 0, 1]),
    )
    def swap(self, record_id: str, value: int, how: str, life: float | None, newer: int) -> Any:
        old = self.kept.get(record_id)
        if old is None:
            return multiple()
        stale, move = "stale" in how, "new id" in how
        read = changed(old, version=old.version + stale, touched_at=NOW)
        new = changed(
            old,
            data={"data": {"value": str(value)}},
            id=new_id(old.subject) if move else old.id,
            ends_at=old.ends_at if life is None else self.now + life,
            generation=max(0, old.generation + newer),
        )
        expected: Record | str | None = None
        if self.live(record_id) is not None and not stale:
            if new.generation < self.generation(new.subject):
                expected = "GenerationOutdated"
            else:
                expected = changed(new, version=old.version + 1)
                del self.kept[record_id]
                self.kept[new.id] = expected
        assert _outcome(lambda: self.store.swap(read, new, self.now)) == expected
        return new.id if isinstance(expected, Record) and move else multiple()

    @rule(record_id=records)
    def take(self, record_id: str) -> None:
        expected = self.live(record_id)
        assert self.store.take(self.kind, record_id, self.now) == expected
        if expected is not None:
            del self.kept[record_id]

    @rule(record_id=records)
    def remove(self, record_id: str) -> None:
        self.store.remove(self.kind, record_id)
        self.kept.pop(record_id, None)

    @rule(who=st.sampled_from([None, 0, 1]))
    def advance(self, who: int | None) -> None:
        subject = None if who is None else self.subjects[who]
        if subject is None:
            self.everyones += 1
        else:
            self.own[subject] += 1
        after = self.store.advance(subject, (self.kind,), self.now)
        assert after[self.kind] == (self.everyones if subject is None else self.generation(subject))
        for name in self.subjects:
            assert self.store.marks(name, "", self.now).generation(self.kind) == self.generation(name)

    @rule(who=st.integers(0, 1), limit=st.integers(0, 5), start=st.integers(0, 3))
    def list(self, who: int, limit: int, start: int) -> None:
        mine = sorted(i for i, record in self.kept.items() if record.subject == self.subjects[who])
        after = mine[start] if start < len(mine) else ""
        expected = [record for i in mine if i > after and (record := self.live(i)) is not None]
        assert [*self.store.list(self.subjects[who], self.kind, self.now, after, limit)] == expected[:limit]

    @rule(who=st.integers(0, 1), limit=st.integers(0, 3))
    def count_up(self, who: int, limit: int) -> None:
        name = f"{self.subjects[who]}-{self.kind}"
        now = self.latest  # what becomes of a window when the clock goes back is up to the store
        count, ends_at = self.counts.get(name, (0, 0.0))
        if ends_at <= now:
            count, ends_at = 0, now + 90
        self.counts[name] = count + 1, ends_at
        answer = self.store.count_up(name, 90, limit, now)
        assert (answer.count, answer.allowed) == (count + 1, count + 1 <= limit)
        assert answer.retry_after == (0 if answer.allowed else ends_at - now)

    @rule(who=st.integers(0, 1))
    def count_back(self, who: int) -> None:
        name = f"{self.subjects[who]}-{self.kind}"
        count, ends_at = self.counts.get(name, (0, 0.0))
        if ends_at > self.latest:
            self.counts[name] = max(0, count - 1), ends_at
        self.store.count_back(name, self.latest)

    @rule(who=st.integers(0, 1))
    def count_reset(self, who: int) -> None:
        name = f"{self.subjects[who]}-{self.kind}"
        self.counts.pop(name, None)
        self.store.count_reset(name)

    @rule()
    def purge(self) -> None:
        self.store.purge(self.now)
