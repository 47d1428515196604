"""The conformance kit: proves that a store keeps every promise of ``jam.stores.base.Store``.

For an engine of your own::

    class TestMyStore(StoreContract):
        @pytest.fixture
        def opener(self):
            return functools.partial(MyStore, "my://test")

Each call of the opener opens the *same* store once more; for a shared store it is called in other processes
too, so it must be picklable. The store may be full of other records: the kit makes subjects of its own.
Needs pytest and hypothesis (``pip install jam-auth[testing]``).
"""

from __future__ import annotations

import multiprocessing
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, multiple, rule, run_state_machine_as_test

from jam.crypto.handles import bucket_of, id_for, new_handle, new_id
from jam.errors import GenerationOutdated, InvalidValue, RecordExists
from jam.stores.base import COLLECT_AFTER, MAX_DATA, REVOKED_TOKEN, Record, Store

__all__ = ["StoreContract", "new_record"]

Opener = Callable[[], Store]

NOW = 1_800_000_000.0
THREADS = 8
ROUNDS = 60
PROCESSES = 3
PROCESS_ROUNDS = 100


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
    """Subclass it in a test module and say with ``opener`` how to open the store."""

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
        assert _get(store, record).data == {"data": {"list": [1]}}

    # -- two ends of life -----------------------------------------------------------------------------------

    def test_an_idle_record_is_dead_to_the_second(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        assert store.get("session", record.id, NOW + 599.9) is not None
        assert store.get("session", record.id, NOW + 600) is None

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

    def test_who_read_an_older_version_loses(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        winner = store.swap(record, changed(record, data={"data": {"a": 1}}), NOW)
        assert store.swap(record, changed(record, data={"data": {"b": 2}}), NOW) is None
        assert _get(store, record) == winner

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
        assert _get(store, moved) == moved
        assert [one.id for one in store.list(subject, "session", NOW)] == [moved.id]

    def test_a_swap_never_brings_a_removed_record_back(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        store.remove("session", record.id)
        assert store.swap(record, record, NOW) is None
        assert store.get("session", record.id, NOW) is None

    def test_a_swap_never_brings_a_dead_record_back(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        assert store.swap(record, changed(record, ends_at=NOW + 9999, idle_for=None), NOW + 600) is None
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

    def test_advance_counts_up_and_get_tells_the_generation(self, store: Store, subject: str) -> None:
        base = store.marks(subject, "", NOW).generation("session")
        assert store.advance(subject, ("session",), NOW)["session"] == base + 1
        assert store.advance(subject, ("session", "api_token"), NOW)["session"] == base + 2
        assert store.marks(subject, "", NOW).generation("session") == base + 2
        record = new_record(subject, generation=base + 2)
        store.add(record, NOW)
        found = store.get("session", record.id, NOW)
        assert found is not None
        assert found.generations["session"] == base + 2

    def test_an_older_generation_may_not_be_added(self, store: Store, subject: str) -> None:
        before = store.marks(subject, "", NOW).generation("session")
        store.advance(subject, ("session",), NOW)
        with pytest.raises(GenerationOutdated):
            store.add(new_record(subject, generation=before), NOW)

    def test_a_mark_outlives_everything(self, store: Store, subject: str) -> None:
        base = store.marks(subject, "", NOW).generation("session")
        store.advance(subject, ("session",), NOW)
        while store.purge(NOW + 1e9):
            pass
        assert store.marks(subject, "", NOW + 1e9).generation("session") == base + 1

    def test_everyone_can_be_revoked_at_once(self, store: Store, subject: str) -> None:
        kind = f"kind_{secrets.token_hex(8)}".translate(_DIGITS_TO_LETTERS)
        records = [new_record(name, kind=kind) for name in (subject, f"{subject}-2", "")]
        for record in records:
            store.add(record, NOW)
        store.advance(subject, (kind,), NOW)
        store.advance(None, (kind,), NOW)
        assert [store.get(kind, record.id, NOW) for record in records] == [None, None, None]
        assert store.marks(subject, "", NOW).generation(kind) == 2
        assert store.marks(f"{subject}-2", "", NOW).generation(kind) == 1
        fresh = new_record(subject, kind=kind, generation=2)
        store.add(fresh, NOW)
        assert store.list(subject, kind, NOW) == [fresh]

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

    # -- list -----------------------------------------------------------------------------------------------

    def test_a_list_has_the_subjects_live_records_in_order(self, store: Store, subject: str) -> None:
        mine = [new_record(subject) for _ in range(5)]
        dead = new_record(subject, ends_at=NOW + 1)
        other = new_record(subject, kind="api_token")
        for record in (*mine, dead, other, new_record(f"{subject}-2")):
            store.add(record, NOW)
        assert store.list(subject, "session", NOW + 1) == sorted(mine, key=lambda record: record.id)

    def test_a_list_comes_in_pages_without_gaps(self, store: Store, subject: str) -> None:
        records = [new_record(subject, ends_at=NOW + (1 if n % 3 == 0 else 100)) for n in range(25)]
        for record in records:
            store.add(record, NOW)
        live = sorted(record.id for record in records if record.ends_at > NOW + 1)
        pages: list[list[str]] = []
        after = ""
        while page := store.list(subject, "session", NOW + 1, after, 4):
            pages.append([record.id for record in page])
            after = page[-1].id
        assert [record_id for page in pages for record_id in page] == live
        assert {len(page) for page in pages[:-1]} == {4}

    def test_records_of_a_dead_generation_take_no_place_on_a_page(self, store: Store, subject: str) -> None:
        for _ in range(10):
            store.add(new_record(subject), NOW)
        generation = store.advance(subject, ("session",), NOW)["session"]
        fresh = [new_record(subject, generation=generation) for _ in range(3)]
        for record in fresh:
            store.add(record, NOW)
        assert store.list(subject, "session", NOW, "", 3) == sorted(fresh, key=lambda record: record.id)

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

    def test_a_count_can_be_forgotten(self, store: Store, subject: str) -> None:
        store.count_up(subject, 60, 1, NOW)
        store.count_reset(subject)
        store.count_reset(subject)
        assert store.count_up(subject, 60, 1, NOW).count == 1

    def test_names_are_counted_apart(self, store: Store, subject: str) -> None:
        store.count_up(subject, 60, 1, NOW)
        assert store.count_up(subject.upper(), 60, 1, NOW).count == 1

    def test_a_clock_that_goes_back_does_not_lock_for_longer_than_a_window(self, store: Store, subject: str) -> None:
        store.count_up(subject, 60, 0, NOW + 1e6)
        assert store.count_up(subject, 60, 0, NOW).retry_after <= 60

    # -- purge ----------------------------------------------------------------------------------------------

    def test_purge_removes_the_dead_a_bounded_number_at_a_time(self, store: Store, subject: str) -> None:
        now = NOW + 1e8  # when nothing of the other tests is alive any more
        while store.purge(now):
            pass
        alive = new_record(subject, touched_at=now, ends_at=now + 2 * COLLECT_AFTER, idle_for=None)
        for record in (alive, *(new_record(subject, touched_at=now, ends_at=now + 10) for _ in range(10))):
            store.add(record, now)
        store.count_up(subject, 10, 1, now)
        assert store.purge(now + 9 + COLLECT_AFTER) == 0
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

    def test_purge_leaves_a_clock_that_goes_back_what_it_needs(self, store: Store, subject: str) -> None:
        revocation = new_record(subject, kind=REVOKED_TOKEN, idle_for=None)
        store.add(revocation, NOW)
        store.purge(NOW + 3600 + COLLECT_AFTER - 1)
        assert store.marks(subject, revocation.id, NOW + 3599).revoked

    # -- sequences ------------------------------------------------------------------------------------------

    def test_any_sequence_of_verbs_agrees_with_a_simple_model(self, store: Store) -> None:
        run_state_machine_as_test(
            lambda: _Model(store),  # type: ignore[arg-type]  # a factory does as well as a class
            settings=settings(
                max_examples=40,
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                database=None,
            ),
        )

    # -- threads --------------------------------------------------------------------------------------------

    def test_one_thread_takes_a_record(self, store: Store, subject: str) -> None:
        for _ in range(ROUNDS):
            record = new_record(subject)
            store.add(record, NOW)
            taken = _race(lambda _: store.take("session", record.id, NOW))
            assert [one for one in taken if one is not None] == [record]

    def test_one_thread_adds_a_record(self, store: Store, subject: str) -> None:
        for _ in range(ROUNDS):
            record = new_record(subject)
            added = _race(lambda _: _outcome(lambda: store.add(record, NOW)))
            assert sorted(added) == ["RecordExists"] * (THREADS - 1) + ["done"]

    def test_one_thread_swaps_a_version(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        for _ in range(ROUNDS):
            old = _get(store, record)
            swapped = _race(lambda n: store.swap(old, changed(old, data={"data": {"by": n}}), NOW))
            winners = [one for one in swapped if one is not None]
            assert len(winners) == 1
            assert _get(store, record) == winners[0]

    def test_one_thread_moves_a_record_to_a_new_id(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        for _ in range(ROUNDS):
            (old,) = store.list(subject, "session", NOW)
            moved = _race(lambda _: store.swap(old, changed(old, id=new_id(subject)), NOW))
            winners = [one for one in moved if one is not None]
            assert list(store.list(subject, "session", NOW)) == winners
            assert len(winners) == 1

    def test_no_count_is_lost_between_threads(self, store: Store, subject: str) -> None:
        counted = _race(lambda _: [store.count_up(subject, 60, 10, NOW) for _ in range(ROUNDS)])
        counts = sorted(answer.count for answers in counted for answer in answers)
        assert counts == list(range(1, THREADS * ROUNDS + 1))
        assert sum(answer.allowed for answers in counted for answer in answers) == 10

    def test_no_advance_is_lost_between_threads(self, store: Store, subject: str) -> None:
        base = store.marks(subject, "", NOW).generation("session")
        _race(lambda _: [store.advance(subject, ("session",), NOW) for _ in range(10)])
        assert store.marks(subject, "", NOW).generation("session") == base + 10 * THREADS

    def test_nothing_survives_an_advance_that_came_after_it(self, store: Store, subject: str) -> None:
        """Sign-ins, renewals and uses race a revocation: whatever is alive afterwards is of the new generation."""
        for _ in range(ROUNDS // 2):
            before = store.marks(subject, "", NOW).generation("session")
            existing = new_record(subject, generation=before)
            store.add(existing, NOW)

            def act(n: int) -> None:
                if n == 0:
                    store.advance(subject, ("session",), NOW)
                elif n % 3 == 0:
                    _outcome(lambda: store.add(new_record(subject, generation=before), NOW))
                elif n % 3 == 1:
                    _outcome(lambda: store.swap(existing, changed(existing, id=new_id(subject)), NOW))
                else:
                    store.get("session", existing.id, NOW + 100, touch_after=60)

            _race(act)
            assert store.list(subject, "session", NOW + 100) == []

    def test_a_use_never_brings_a_removed_record_back(self, store: Store, subject: str) -> None:
        for _ in range(ROUNDS):
            record = new_record(subject)
            store.add(record, NOW)

            def act(n: int) -> None:
                if n == 0:
                    store.remove("session", record.id)
                else:
                    store.get("session", record.id, NOW + 100, touch_after=60)

            _race(act)
            assert store.get("session", record.id, NOW + 100) is None

    def test_a_record_that_is_changed_at_that_moment_is_taken_all_the_same(self, store: Store, subject: str) -> None:
        for _ in range(ROUNDS // 2):
            record = new_record(subject)
            store.add(record, NOW)

            def act(n: int) -> object:
                if n == 0:
                    return store.take("session", record.id, NOW)
                found = store.get("session", record.id, NOW)
                return None if found is None else store.swap(found.record, found.record, NOW) and None

            assert _race(act)[0] is not None
            assert store.get("session", record.id, NOW) is None

    # -- processes ------------------------------------------------------------------------------------------

    def test_processes_share_one_truth(self, opener: Opener, store: Store, subject: str) -> None:
        """Taken once, added once, swapped without loss and counted exactly, among processes."""
        if not store.shared:
            pytest.skip("this store is not shared among processes")
        for n in range(PROCESS_ROUNDS):
            store.add(new_record(subject, kind="one_time", id=id_for(subject, str(n))), NOW)
        tally = new_record(subject, data={"data": {"n": 0}}, idle_for=None)
        store.add(tally, NOW)
        arguments = (opener, subject, tally.id)
        context = multiprocessing.get_context("spawn")
        with context.Pool(PROCESSES) as pool:
            results = pool.starmap(_work, [arguments] * PROCESSES)
        assert sum(result["taken"] for result in results) == PROCESS_ROUNDS
        assert sum(result["added"] for result in results) == PROCESS_ROUNDS
        assert _get(store, tally).data == {"data": {"n": PROCESSES * PROCESS_ROUNDS}}
        counts = sorted(count for result in results for count in result["counts"])
        assert counts == list(range(1, PROCESSES * PROCESS_ROUNDS + 1))

    def test_a_store_works_on_both_sides_of_a_fork(self, store: Store, subject: str) -> None:
        record = new_record(subject)
        store.add(record, NOW)
        context = multiprocessing.get_context("fork")
        answers = context.Queue()
        child = context.Process(target=_in_a_fork, args=(store, record, answers))
        child.start()
        seen = answers.get(timeout=30)
        child.join(30)
        assert child.exitcode == 0
        assert seen == record
        mark = new_record(subject)
        store.add(mark, NOW)
        assert _get(store, mark) == mark
        if store.shared:
            assert store.get("session", record.id, NOW) is None  # the child took it

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


# -- what the races do --------------------------------------------------------------------------------------


def _race(act: Callable[[int], Any]) -> list[Any]:
    """Call ``act`` with 0 to 7, each in a thread of its own, all at the same moment."""
    barrier = threading.Barrier(THREADS)

    def run(number: int) -> Any:
        barrier.wait(30)
        return act(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


def _outcome(act: Callable[[], object]) -> str:
    try:
        act()
    except (RecordExists, GenerationOutdated) as refused:
        return type(refused).__name__
    return "done"


def _work(opener: Opener, subject: str, tally_id: str) -> dict[str, Any]:
    store = opener()
    taken = added = 0
    counts = []
    for n in range(PROCESS_ROUNDS):
        taken += store.take("one_time", id_for(subject, str(n)), NOW) is not None
        added += _outcome(lambda: store.add(new_record(subject, id=id_for(subject, str(n))), NOW)) == "done"
        counts.append(store.count_up(subject, 60, 1, NOW).count)
        while True:
            found = store.get("session", tally_id, NOW)
            assert found is not None
            old = found.record
            if store.swap(old, changed(old, data={"data": {"n": old.data["data"]["n"] + 1}}), NOW) is not None:
                break
    store.close()
    return {"taken": taken, "added": added, "counts": counts}


def _in_a_fork(store: Store, record: Record, answers: Any) -> None:
    answers.put(store.take("session", record.id, NOW))


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

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self.now = NOW
        run = secrets.token_hex(6)
        self.subjects = [f"{run}-a", f"{run}-b"]
        self.kept: dict[str, Record] = {}
        self.generation = {name: store.marks(name, "", NOW).generation("session") for name in self.subjects}
        self.counts: dict[str, tuple[int, float]] = {}

    def live(self, record_id: str) -> Record | None:
        record = self.kept.get(record_id)
        if record is None or record.dies_at <= self.now or record.generation < self.generation[record.subject]:
            return None
        return record

    @rule(seconds=st.sampled_from([0.0, 1.0, 59.0, 61.0, 599.0, 600.0, 3600.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=records, who=st.integers(0, 1), value=st.integers(), idle=st.sampled_from([None, 60.0, 600.0]))
    def add(self, who: int, value: int, idle: float | None) -> Any:
        record = new_record(
            self.subjects[who],
            data={"data": {"value": str(value)}},
            created_at=self.now,
            touched_at=self.now,
            idle_for=idle,
            ends_at=self.now + 1800,
            generation=self.generation[self.subjects[who]],
        )
        self.store.add(record, self.now)
        self.kept[record.id] = record
        return record.id

    @rule(record_id=records, touch=st.sampled_from([None, 0.0, 60.0]))
    def get(self, record_id: str, touch: float | None) -> None:
        expected = self.live(record_id)
        if expected is not None and touch is not None and self.now - expected.touched_at > touch:
            expected = self.kept[record_id] = changed(expected, touched_at=self.now)
        found = self.store.get("session", record_id, self.now, touch)
        assert (None if found is None else found.record) == expected

    @rule(target=records, record_id=records, value=st.integers(), stale=st.booleans(), move=st.booleans())
    def swap(self, record_id: str, value: int, stale: bool, move: bool) -> Any:
        old = self.kept.get(record_id)
        if old is None:
            return multiple()
        read = changed(old, version=old.version + 1) if stale else old
        new = changed(old, data={"data": {"value": str(value)}}, id=new_id(old.subject) if move else old.id)
        expected = None
        if self.live(record_id) is not None and not stale:
            expected = changed(new, version=old.version + 1)
            del self.kept[record_id]
            self.kept[new.id] = expected
        assert self.store.swap(read, new, self.now) == expected
        return new.id if expected is not None and move else multiple()

    @rule(record_id=records)
    def take(self, record_id: str) -> None:
        expected = self.live(record_id)
        assert self.store.take("session", record_id, self.now) == expected
        if expected is not None:
            del self.kept[record_id]

    @rule(record_id=records)
    def remove(self, record_id: str) -> None:
        self.store.remove("session", record_id)
        self.kept.pop(record_id, None)

    @rule(who=st.integers(0, 1))
    def advance(self, who: int) -> None:
        self.generation[self.subjects[who]] += 1
        after = self.store.advance(self.subjects[who], ("session",), self.now)
        assert after["session"] == self.generation[self.subjects[who]]

    @rule(who=st.integers(0, 1), limit=st.integers(1, 5))
    def list(self, who: int, limit: int) -> None:
        mine = sorted(i for i, record in self.kept.items() if record.subject == self.subjects[who])
        expected = [record for i in mine if (record := self.live(i)) is not None]
        assert [*self.store.list(self.subjects[who], "session", self.now, "", limit)] == expected[:limit]

    @rule(who=st.integers(0, 1), limit=st.integers(0, 3))
    def count_up(self, who: int, limit: int) -> None:
        name = self.subjects[who]
        count, ends_at = self.counts.get(name, (0, 0.0))
        if ends_at <= self.now:
            count, ends_at = 0, self.now + 90
        self.counts[name] = count + 1, ends_at
        answer = self.store.count_up(name, 90, limit, self.now)
        assert (answer.count, answer.allowed) == (count + 1, count + 1 <= limit)

    @rule()
    def purge(self) -> None:
        self.store.purge(self.now)
