"""Stores that break one promise each, for the kit to catch. See ``test_kit.py``.

They are beside the tests and not in them because other processes import them.
"""

import functools
import json
import multiprocessing
import os
import threading
import time
import unicodedata
from dataclasses import dataclass

from jam.errors import GenerationOutdated, InvalidValue, RecordExists, StoreUnavailable
from jam.stores.base import COLLECT_AFTER, REVOKED_TOKEN, Counted, Found, Marks, check_record
from jam.stores.memory import MemoryStore
from jam.stores.sqlite import SQLiteStore
from jam.testing.stores import changed, new_record


@dataclass(frozen=True)
class Sabotage:
    """A store, what is wrong with it, and the kit's tests that must say so."""

    name: str
    store: type
    caught_by: tuple[str, ...]


SABOTAGES: list[Sabotage] = []


def wrong(name, *caught_by):
    def remember(store):
        SABOTAGES.append(Sabotage(name, store, tuple(f"test_{test}" for test in caught_by)))
        return store

    return remember


def wrong_in_each(name, verbs, make):
    """The same mistake in one verb after the other; ``verbs`` says who notices."""
    for verb, caught_by in verbs.items():
        wrong(name.format(verb), *caught_by)(type("Wrong", (MemoryStore,), {verb: make(verb)}))


def pause():
    """Long enough for every other racer to come in between."""
    time.sleep(0.004)


def hesitate(store_class, *verbs):
    """Let these verbs come into the middle of another's pause instead of before it."""

    def later(honest):
        def act(self, *args, **options):
            time.sleep(0.001)
            return honest(self, *args, **options)

        return act

    return type(store_class.__name__, (store_class,), {verb: later(getattr(store_class, verb)) for verb in verbs})


# -- what is kept


class Altering(MemoryStore):
    def alter(self, record):
        return record

    def add(self, record, now):
        super().add(self.alter(record), now)

    @classmethod
    def by(cls, alter):
        return type("Altered", (cls,), {"alter": lambda self, record: alter(record)})


def replaced(record, old, new):
    return changed(record, data=json.loads(json.dumps(record.data, ensure_ascii=False).replace(old, new)))


wrong("data is kept as ASCII", "a_record_is_found_as_it_was_added", "whatever_json_holds_is_kept")(
    Altering.by(
        lambda r: changed(r, data=json.loads(json.dumps(r.data, ensure_ascii=False).encode("ascii", "replace")))
    )
)
wrong("text ends at NUL", "whatever_json_holds_is_kept")(Altering.by(lambda r: replaced(r, "\\u0000", "")))
wrong("numbers are kept as doubles", "whatever_json_holds_is_kept")(
    Altering.by(lambda r: changed(r, data=json.loads(json.dumps(r.data), parse_int=float)))
)
wrong("a kind has 16 characters", "every_member_is_kept_up_to_its_limits")(
    Altering.by(lambda r: changed(r, kind=r.kind[:16]))
)
wrong("a check has 32 bytes", "every_member_is_kept_up_to_its_limits")(
    Altering.by(lambda r: changed(r, check=r.check[:32]))
)
wrong("zeros at the end of a check are lost", "every_member_is_kept_up_to_its_limits")(
    Altering.by(lambda r: changed(r, check=r.check.rstrip(b"\0")))
)
wrong("a generation has 32 bits", "every_member_is_kept_up_to_its_limits")(
    Altering.by(lambda r: changed(r, generation=min(r.generation, 2**31 - 1)))
)
wrong("a version begins at 1", "every_member_is_kept_up_to_its_limits")(
    Altering.by(lambda r: changed(r, version=max(r.version, 1)))
)
wrong("times are kept in milliseconds", "every_member_is_kept_up_to_its_limits")(
    Altering.by(lambda r: changed(r, created_at=round(r.created_at, 3), touched_at=round(r.touched_at, 3)))
)
wrong("idle times are kept in seconds", "every_member_is_kept_up_to_its_limits")(
    Altering.by(lambda r: changed(r, idle_for=r.idle_for and round(r.idle_for)))
)
wrong("subjects are trimmed", "any_other_subject_is_kept_as_it_is")(
    Altering.by(lambda r: changed(r, subject=r.subject.strip()))
)
wrong("a subject has 64 characters", "any_other_subject_is_kept_as_it_is")(
    Altering.by(lambda r: changed(r, subject=r.subject[:64]))
)
wrong("an idle record lives a second longer", "an_idle_record_is_dead_to_the_second")(
    Altering.by(lambda r: changed(r, idle_for=r.idle_for and r.idle_for + 1))
)
wrong("a record without an idle time gets one", "a_record_without_an_idle_time_lives_to_its_end")(
    Altering.by(lambda r: changed(r, idle_for=600.0))
)
wrong("what is dead on arrival gets a moment to live", "a_record_that_is_dead_on_arrival_is_absent")(
    Altering.by(lambda r: changed(r, ends_at=r.ends_at + 1))
)


@wrong("a record has 64 KB", "every_member_is_kept_up_to_its_limits")
class Small(MemoryStore):
    def add(self, record, now):
        if len(check_record(record)) > 65536:
            raise InvalidValue("too large")
        super().add(record, now)


@wrong(
    "nothing is refused",
    "a_subject_that_cannot_be_kept_everywhere_is_refused",
    "a_record_that_cannot_be_kept_everywhere_is_refused",
)
class Indulgent(MemoryStore):
    def add(self, record, now):
        try:
            super().add(record, now)
        except InvalidValue:
            pass


@wrong("data is kept by reference", "what_was_put_in_cannot_be_changed_from_outside")
class ByReference(MemoryStore):
    def __init__(self):
        super().__init__()
        self.data = {}

    def add(self, record, now):
        super().add(record, now)
        self.data[record.id] = record.data

    def get(self, kind, record_id, now, touch_after=None):
        found = super().get(kind, record_id, now, touch_after)
        return found and Found(changed(found.record, data=self.data[record_id]), found.generations)


@wrong("a list hands out what is kept", "what_was_put_in_cannot_be_changed_from_outside")
class ListByReference(ByReference):
    def add(self, record, now):
        record = changed(record, data=json.loads(json.dumps(record.data)))
        super().add(record, now)

    def list(self, *args):
        return [changed(record, data=self.data[record.id]) for record in super().list(*args)]

    def get(self, *args):
        found = super().get(*args)
        return found and Found(changed(found.record, data=json.loads(json.dumps(found.record.data))), {})


@wrong("a swap hands back what was handed in", "what_was_swapped_in_cannot_be_changed_from_outside")
class SwapByReference(MemoryStore):
    def swap(self, old, new, now):
        kept = super().swap(old, new, now)
        return kept and changed(kept, data=new.data)


# -- ids and kinds


@wrong("an unknown record is made up", "an_unknown_record_is_absent")
class Inventive(MemoryStore):
    def get(self, kind, record_id, now, touch_after=None):
        found = super().get(kind, record_id, now, touch_after)
        return found or Found(new_record("nobody", kind=kind, id=record_id), {})


@wrong("a get looks at no kind", "a_record_of_another_kind_is_absent", "kinds_are_kept_apart")
class AnyKind(MemoryStore):
    def get(self, kind, record_id, now, touch_after=None):
        kinds = sorted(known for known, known_id in self._records if known_id == record_id)
        return super().get(kinds[0] if kinds else kind, record_id, now, touch_after)


@wrong("an id is used once in all kinds", "kinds_are_kept_apart")
class OneIdForAll(MemoryStore):
    def add(self, record, now):
        if any(known_id == record.id for _, known_id in self._records):
            raise RecordExists
        super().add(record, now)


@wrong("a removal removes the id from every kind", "kinds_are_kept_apart")
class RemovesAllKinds(MemoryStore):
    def remove(self, kind, record_id):
        for known in ("session", "api_token"):
            super().remove(known, record_id)


@wrong("ids are compared without case", "ids_differ_by_case")
class IdsWithoutCase(MemoryStore):
    def get(self, kind, record_id, now, touch_after=None):
        same = [known for _, known in self._records if known.lower() == record_id.lower()]
        return super().get(kind, same[0] if same else record_id, now, touch_after)


@wrong("a live record is overwritten", "a_live_id_is_not_added_twice")
class Overwriting(MemoryStore):
    def add(self, record, now):
        try:
            super().add(record, now)
        except RecordExists:
            self.remove(record.kind, record.id)
            super().add(record, now)


@wrong(
    "an id is never free again",
    "a_dead_id_is_free_again",
    "an_id_of_a_dead_generation_is_free_again",
    "a_dead_id_is_free_for_somebody_else_too",
)
class NeverFree(MemoryStore):
    def add(self, record, now):
        if (record.kind, record.id) in self._records:
            raise RecordExists
        super().add(record, now)


@wrong("an id is free by time only", "an_id_of_a_dead_generation_is_free_again")
class FreeByTime(MemoryStore):
    def add(self, record, now):
        known = self._records.get((record.kind, record.id))
        if known is not None and known[0].dies_at > now:
            raise RecordExists
        super().add(record, now)


@wrong("the index of a subject keeps what is another's now", "a_dead_id_is_free_for_somebody_else_too")
class StaleIndex(MemoryStore):
    def __init__(self):
        super().__init__()
        self.index = {}

    def add(self, record, now):
        super().add(record, now)
        self.index.setdefault((record.subject, record.kind), set()).add(record.id)

    def list(self, subject, kind, now, after="", limit=100):
        found = (self.get(kind, record_id, now) for record_id in sorted(self.index.get((subject, kind), ())))
        return [one.record for one in found if one]


# -- two ends of life


@wrong("a list shows who has just died", "an_idle_record_is_dead_to_the_second")
class LateList(MemoryStore):
    def list(self, subject, kind, now, after="", limit=100):
        return super().list(subject, kind, now - 1, after, limit)


def by_the_engines_clock(verb):
    honest = getattr(MemoryStore, verb)
    position = {"get": 2, "marks": 2, "swap": 2, "take": 2, "list": 2, "count_up": 3}[verb]

    def dishonest(self, *args, **options):
        return honest(self, *args[:position], time.time(), *args[position + 1 :], **options)

    return dishonest


wrong_in_each(
    "{} goes by the engine's clock",
    {verb: ["only_the_given_time_counts"] for verb in ("get", "marks", "swap", "take", "list")}
    | {"count_up": ["a_window_ends_on_time_and_is_not_extended"]},
    by_the_engines_clock,
)


@wrong("the engine's own expiry takes what is alive", "only_the_given_time_counts")
class OwnExpiry(MemoryStore):
    def get(self, kind, record_id, now, touch_after=None):
        found = super().get(kind, record_id, now, touch_after)
        return found if found and found.record.ends_at + COLLECT_AFTER > time.time() else None


def burying(verb):
    honest = getattr(MemoryStore, verb)

    def bury(self, *args, **options):
        answer = honest(self, *args, **options)
        now = args[1] if verb == "add" else args[2]
        for kind, record_id in [key for key, (record, _) in self._records.items() if record.dies_at <= now]:
            self.remove(kind, record_id)
        return answer

    return bury


wrong_in_each(
    "the dead are gone after a look at them by {}",
    {verb: ["a_clock_that_goes_back_finds_the_dead_again"] for verb in ("get", "list", "swap", "take", "marks", "add")},
    burying,
)


@wrong("a dead record is used", "a_clock_that_goes_back_finds_the_dead_again")
class UsesTheDead(MemoryStore):
    def get(self, kind, record_id, now, touch_after=None):
        found = super().get(kind, record_id, now, touch_after)
        entry = self._records.get((kind, record_id))
        if found is None and entry and touch_after is not None:
            self._records[kind, record_id] = changed(entry[0], touched_at=now), entry[1]
        return found


@wrong("a use does not prolong life", "use_keeps_a_record_from_idling")
class UselessUse(MemoryStore):
    def get(self, kind, record_id, now, touch_after=None):
        found = super().get(kind, record_id, now, touch_after)
        idle = found and found.record.idle_for and found.record.created_at + found.record.idle_for
        return None if idle and idle <= now else found


@wrong("a use moves the absolute end", "use_never_moves_the_absolute_end")
class Immortal(MemoryStore):
    def get(self, kind, record_id, now, touch_after=None):
        found = super().get(kind, record_id, now, touch_after)
        if found and touch_after is not None:
            record, data = self._records[kind, record_id]
            self._records[kind, record_id] = changed(record, ends_at=now + 3600), data
        return found


@wrong("every get notes a use", "only_a_get_that_may_notes_a_use", "use_keeps_a_record_from_idling")
class AlwaysNotes(MemoryStore):
    def get(self, kind, record_id, now, touch_after=None):
        return super().get(kind, record_id, now, touch_after or 0)


def noting(verb):
    honest = getattr(MemoryStore, verb)

    def note(self, *args):
        answer = honest(self, *args)
        for kind, record_id in list(self._records):
            self.get(kind, record_id, args[2], touch_after=0)
        return answer

    return note


wrong_in_each(
    "{} notes a use",
    {verb: ["only_a_get_that_may_notes_a_use"] for verb in ("list", "marks", "swap")},
    noting,
)


@wrong("a recent use is noted again", "a_recent_use_is_not_noted_again")
class NotesAgain(MemoryStore):
    def get(self, kind, record_id, now, touch_after=None):
        return super().get(kind, record_id, now, touch_after and touch_after - 0.5)


@wrong("a use is noted a little too late", "a_recent_use_is_not_noted_again")
class NotesLate(MemoryStore):
    def get(self, kind, record_id, now, touch_after=None):
        return super().get(kind, record_id, now, touch_after and touch_after + 1)


@wrong("a use counts as a swap", "touching_shows_at_once_and_leaves_the_version_alone")
class UseIsSwap(MemoryStore):
    def get(self, kind, record_id, now, touch_after=None):
        found = super().get(kind, record_id, now, touch_after)
        if found and touch_after is not None:
            record, data = self._records[kind, record_id]
            self._records[kind, record_id] = changed(record, version=record.version + 1), data
        return found


@wrong("a use shows the next time", "touching_shows_at_once_and_leaves_the_version_alone")
class ShowsLater(MemoryStore):
    def get(self, kind, record_id, now, touch_after=None):
        before = super().get(kind, record_id, now)
        super().get(kind, record_id, now, touch_after)
        return before


@wrong("only get knows of a use", "a_use_is_known_to_every_verb")
class UseApart(MemoryStore):
    def list(self, *args):
        return [changed(record, touched_at=record.created_at) for record in super().list(*args)]


@wrong("take does not know of a use", "a_use_is_known_to_every_verb")
class TakeWithoutUse(MemoryStore):
    def take(self, *args):
        taken = super().take(*args)
        return taken and changed(taken, touched_at=taken.created_at)


@wrong("a clock that lags moves the last use back", "a_clock_that_lags_does_not_move_the_last_use_back")
class MovesBack(MemoryStore):
    def get(self, kind, record_id, now, touch_after=None):
        found = super().get(kind, record_id, now, touch_after)
        if found and touch_after is not None:
            record, data = self._records[kind, record_id]
            self._records[kind, record_id] = changed(record, touched_at=now), data
        return found


# -- swap


class Swapping(MemoryStore):
    def put(self, old, kept):
        """Whatever is there, no questions asked."""
        with self._lock:
            self._forget(old.kind, old.id)
            self._keep(kept, check_record(kept))

    def stored(self, record):
        entry = self._records.get((record.kind, record.id))
        return entry and entry[0]


@wrong(
    "a swap leaves the version", "a_swap_keeps_the_new_record_with_the_next_version", "who_read_an_older_version_loses"
)
class SameVersion(Swapping):
    def swap(self, old, new, now):
        kept = super().swap(old, new, now)
        if kept:
            kept = changed(kept, version=old.version)
            self.put(kept, kept)
        return kept


@wrong("a swap goes on with the new record's version", "a_swap_keeps_all_of_the_new_record")
class NewsVersion(Swapping):
    def swap(self, old, new, now):
        kept = super().swap(old, new, now)
        if kept:
            kept = changed(kept, version=new.version + 1)
            self.put(kept, kept)
        return kept


def keeping(member):
    class Keeping(Swapping):
        def swap(self, old, new, now):
            before = super().get(old.kind, old.id, now)
            return super().swap(old, changed(new, **{member: getattr(before.record, member)}) if before else new, now)

    return Keeping


for changing in ("check", "generation", "data", "created_at", "idle_for", "ends_at"):
    wrong(f"a swap forgets the new {changing}", "a_swap_keeps_all_of_the_new_record")(keeping(changing))
wrong("a swap leaves the end of life", "a_swap_may_change_both_ends_of_life")(keeping("ends_at"))
wrong("a swap leaves the idle time", "a_swap_keeps_all_of_the_new_record")(keeping("idle_for"))


@wrong("a swap compares no version", "who_read_an_older_version_loses", "who_claims_a_version_that_never_was_loses")
class NoCompare(MemoryStore):
    def swap(self, old, new, now):
        found = self.get(old.kind, old.id, now)
        return super().swap(changed(old, version=found.record.version) if found else old, new, now)


@wrong("a swap takes any newer version", "who_claims_a_version_that_never_was_loses")
class NewerWins(MemoryStore):
    def swap(self, old, new, now):
        found = self.get(old.kind, old.id, now)
        version = min(old.version, found.record.version) if found else old.version
        return super().swap(changed(old, version=version), new, now)


@wrong("who lost leaves a new record behind", "who_lost_moves_nothing")
class LoserMoves(Swapping):
    def swap(self, old, new, now):
        kept = super().swap(old, new, now)
        if kept is None and new.id != old.id:
            self.put(new, new)
        return kept


@wrong("a swap answers with the last use its caller knew", "a_swap_returns_the_record_as_it_is_kept")
class AnswersOldUse(MemoryStore):
    def swap(self, old, new, now):
        kept = super().swap(old, new, now)
        return kept and changed(kept, touched_at=old.touched_at)


@wrong("a swap keeps the new record's last use", "a_swap_goes_on_with_the_stores_own_last_use")
class NewsUse(Swapping):
    def swap(self, old, new, now):
        kept = super().swap(old, new, now)
        if kept:
            kept = changed(kept, touched_at=new.touched_at)
            self.put(kept, kept)
        return kept


@wrong("a move leaves the old record", "a_swap_to_a_new_id_ends_the_old_one")
class Copies(Swapping):
    def swap(self, old, new, now):
        before = super().get(old.kind, old.id, now)
        kept = super().swap(old, new, now)
        if kept and new.id != old.id:
            self.put(before.record, before.record)
        return kept


@wrong("a move blocks the old id", "a_swap_to_a_new_id_ends_the_old_one")
class Blocks(MemoryStore):
    gone = frozenset()

    def swap(self, old, new, now):
        kept = super().swap(old, new, now)
        if kept and new.id != old.id:
            self.gone |= {old.id}
        return kept

    def add(self, record, now):
        if record.id in self.gone:
            raise RecordExists
        super().add(record, now)


@wrong("a swap brings back what was removed", "a_swap_never_brings_a_removed_record_back")
class Upserts(Swapping):
    def swap(self, old, new, now):
        if self.stored(old) is None:
            self.put(new, new)
            return new
        return super().swap(old, new, now)


@wrong("a swap brings back the dead", "a_swap_never_brings_a_dead_record_back")
class Revives(Swapping):
    def swap(self, old, new, now):
        stored = self.stored(old)
        if stored and stored.version == old.version:
            kept = changed(new, version=old.version + 1, touched_at=stored.touched_at)
            self.put(old, kept)
            return kept
        return None


@wrong("a swap looks at no generation", "a_swap_into_an_older_generation_is_refused")
class SwapsIntoOld(Swapping):
    def swap(self, old, new, now):
        try:
            return super().swap(old, new, now)
        except GenerationOutdated:
            self.put(old, new)
            return new


@wrong("a swap overwrites another record", "a_swap_onto_another_live_record_is_refused")
class Tramples(MemoryStore):
    def swap(self, old, new, now):
        if new.id != old.id:
            self.remove(new.kind, new.id)
        return super().swap(old, new, now)


@wrong("a dead record keeps its id from a swap", "a_swap_may_use_the_id_of_a_dead_record")
class HauntedId(Swapping):
    def swap(self, old, new, now):
        if new.id != old.id and self.stored(new) is not None:
            raise RecordExists
        return super().swap(old, new, now)


@wrong(
    "a swap refuses nothing",
    "a_swap_to_what_cannot_be_kept_is_refused",
    "a_swap_never_hands_a_record_to_somebody_else",
)
class SwapsAnything(MemoryStore):
    def swap(self, old, new, now):
        try:
            return super().swap(old, new, now)
        except InvalidValue:
            return None


def handing_over(member):
    class HandsOver(Swapping):
        def swap(self, old, new, now):
            try:
                return super().swap(old, new, now)
            except InvalidValue:
                if getattr(old, member) == getattr(new, member):
                    raise
                return None

    return HandsOver


for identifying in ("subject", "kind", "id"):
    wrong(f"a swap changes the {identifying}", "a_swap_never_hands_a_record_to_somebody_else")(
        handing_over(identifying)
    )


# -- take and remove


@wrong("a take leaves the record", "a_record_is_taken_once")
class Leaves(MemoryStore):
    def take(self, kind, record_id, now):
        found = self.get(kind, record_id, now)
        return found and found.record


@wrong("what was taken is still listed", "a_record_is_taken_once")
class ListsTheTaken(StaleIndex):
    def take(self, kind, record_id, now):
        taken = super().take(kind, record_id, now)
        if taken:
            self.index["", ""] = taken
        return taken

    def list(self, subject, kind, now, after="", limit=100):
        return [self.index["", ""]] if ("", "") in self.index else super().list(subject, kind, now, after, limit)


@wrong("the idle are taken", "a_dead_record_cannot_be_taken")
class TakesTheIdle(MemoryStore):
    def take(self, kind, record_id, now):
        return super().take(kind, record_id, now - 1)


@wrong("the revoked are taken", "a_dead_record_cannot_be_taken")
class TakesTheRevoked(Swapping):
    def take(self, kind, record_id, now):
        stored = self._records.get((kind, record_id))
        self.remove(kind, record_id)
        return stored[0] if stored and stored[0].dies_at > now else None


@wrong("it is an error to remove what is gone", "removing_twice_is_no_error")
class RemovesOnce(MemoryStore):
    def remove(self, kind, record_id):
        if (kind, record_id) not in self._records:
            raise InvalidValue("gone")
        super().remove(kind, record_id)


@wrong("the dead cannot be removed", "the_dead_can_be_removed")
class SparesTheDead(MemoryStore):
    def remove(self, kind, record_id):
        entry = self._records.get((kind, record_id))
        if entry and entry[0].dies_at > time.time():
            super().remove(kind, record_id)


# -- generations


class Advancing(MemoryStore):
    def without_everyones(self, act):
        hidden = self._marks.pop("", None)
        try:
            return act()
        finally:
            if hidden is not None:
                self._marks[""] = hidden


@wrong("generations begin at one", "generations_begin_at_nothing")
class BeginsAtOne(MemoryStore):
    def marks(self, subject, revocation_id, now):
        marks = super().marks(subject, revocation_id, now)
        return Marks(marks.revoked, {"session": 1, **marks.generations}) if subject else marks


@wrong("an advance kills nothing", "advance_kills_all_of_a_kind_at_once", "a_dead_record_cannot_be_taken")
class Harmless(MemoryStore):
    def advance(self, subject, kinds, now):
        return self.marks(subject, "", now).generations


@wrong("an advance kills a hundred", "nothing_survives_an_advance_that_came_after_it")
class KillsWhatItSees(hesitate(MemoryStore, "add")):
    def advance(self, subject, kinds, now):
        for kind in kinds:
            for record in self.list(subject, kind, now):
                pause()
                self.remove(kind, record.id)
        return {"session": 1}


@wrong("the revoked are listed", "advance_kills_all_of_a_kind_at_once")
class ListsTheRevoked(MemoryStore):
    def list(self, subject, kind, now, after="", limit=100):
        ids = sorted(self._ids.get((subject, kind), ()))
        return [self._records[kind, record_id][0] for record_id in ids]


@wrong("an advance kills every kind", "advance_leaves_other_kinds_and_subjects_alone")
class KillsAllKinds(MemoryStore):
    def advance(self, subject, kinds, now):
        return super().advance(subject, {*kinds, "session", "api_token"}, now)


def unaccented(text):
    return "".join(each for each in unicodedata.normalize("NFKD", text) if not unicodedata.combining(each))


FOLDED = {
    "without case": str.lower,
    "without spaces at the end": str.rstrip,
    "without accents": unaccented,
    "by their beginning": lambda text: text[:24],
}


def folding(verb, fold):
    honest = getattr(MemoryStore, verb)
    position = 1 if verb == "marks" else 0

    class Folding(MemoryStore):
        def same(self, name):
            known = {record.subject for record, _ in self._records.values()}
            return sorted({one for one in known if fold(one) == fold(name)} | {name})

    def folded(self, *args):
        answers = {name: honest(self, name, *args[1:]) for name in self.same(args[0])}
        if verb == "list":
            return [record for records in answers.values() for record in records]
        if verb == "marks":
            return max(answers.values(), key=lambda marks: marks.generation("session"))
        return answers[args[position]]

    setattr(Folding, verb, folded)
    return Folding


for how, folded_by in FOLDED.items():
    for verb in ("advance", "marks"):
        wrong(f"{verb} compares subjects {how}", "advance_leaves_other_kinds_and_subjects_alone")(
            folding(verb, folded_by)
        )
    wrong(f"list compares subjects {how}", "a_list_has_nobody_elses_records")(folding("list", folded_by))


@wrong("get tells the generation it told before", "advance_counts_up_and_get_tells_the_generation")
class StaleGenerations(MemoryStore):
    told = None

    def get(self, kind, record_id, now, touch_after=None):
        found = super().get(kind, record_id, now, touch_after)
        return found and Found(found.record, {})


@wrong("advance tells only what it raised", "every_kind_that_was_ever_advanced_is_told")
class TellsTheRaised(MemoryStore):
    def advance(self, subject, kinds, now):
        generations = super().advance(subject, kinds, now)
        return {kind: generations[kind] for kind in kinds}


@wrong("get tells only the record's own kind", "every_kind_that_was_ever_advanced_is_told")
class TellsOneKind(MemoryStore):
    def get(self, kind, record_id, now, touch_after=None):
        found = super().get(kind, record_id, now, touch_after)
        return found and Found(found.record, {kind: found.generations.get(kind, 0)})


@wrong("marks tells only sessions", "every_kind_that_was_ever_advanced_is_told")
class TellsSessions(MemoryStore):
    def marks(self, subject, revocation_id, now):
        marks = super().marks(subject, revocation_id, now)
        return Marks(marks.revoked, {"session": marks.generation("session")})


@wrong("an advance of nothing counts", "every_kind_that_was_ever_advanced_is_told")
class CountsNothing(MemoryStore):
    def advance(self, subject, kinds, now):
        return super().advance(subject, kinds or ("session",), now)


@wrong("only the very same generation is alive", "a_newer_generation_is_alive")
class SameGeneration(MemoryStore):
    def get(self, kind, record_id, now, touch_after=None):
        found = super().get(kind, record_id, now, touch_after)
        return found if found and found.record.generation == found.generations.get(kind, 0) else None


@wrong("an older generation is added", "an_older_generation_may_not_be_added")
class AddsTheOld(MemoryStore):
    def add(self, record, now):
        try:
            super().add(record, now)
        except GenerationOutdated:
            pass


@wrong("what was refused is in the way", "an_older_generation_may_not_be_added")
class KeepsTheRefused(Swapping):
    def add(self, record, now):
        if self.stored(record) is not None:
            raise RecordExists
        try:
            super().add(record, now)
        except GenerationOutdated:
            self.put(record, record)
            raise


@wrong("a purge takes the marks", "a_mark_outlives_everything")
class PurgesMarks(MemoryStore):
    def purge(self, now, limit=1000):
        self._marks.clear()
        return super().purge(now, limit)


@wrong(
    "everyone is whoever is known",
    "an_older_generation_of_everyone_may_not_come_in",
    "the_generation_that_counts_is_the_sum_of_both",
)
class KnownPeople(MemoryStore):
    def advance(self, subject, kinds, now):
        if subject is not None:
            return super().advance(subject, kinds, now)
        for name in {record.subject for record, _ in self._records.values() if record.subject}:
            super().advance(name, kinds, now)
        return dict.fromkeys(kinds, 1)


def blind_to_everyone(verb):
    honest = getattr(MemoryStore, verb)

    def blind(self, *args):
        hidden = self._marks.pop("", None)
        try:
            return honest(self, *args)
        finally:
            if hidden is not None:
                self._marks[""] = hidden

    return blind


wrong_in_each(
    "{} ignores everyone's mark",
    {
        "get": ["everyone_can_be_revoked_at_once"],
        "list": ["everyone_can_be_revoked_at_once"],
        "take": ["what_everyone_lost_is_neither_taken_nor_swapped"],
        "swap": ["what_everyone_lost_is_neither_taken_nor_swapped", "an_older_generation_of_everyone_may_not_come_in"],
        "add": ["an_older_generation_of_everyone_may_not_come_in"],
        "marks": ["the_generation_that_counts_is_the_sum_of_both"],
    },
    blind_to_everyone,
)


@wrong("get does not tell everyone's generation", "the_generation_that_counts_is_the_sum_of_both")
class HidesEveryones(MemoryStore):
    def get(self, kind, record_id, now, touch_after=None):
        found = super().get(kind, record_id, now, touch_after)
        return found and Found(found.record, self._marks.get(found.record.subject, {}))


@wrong("advance does not tell everyone's generation", "the_generation_that_counts_is_the_sum_of_both")
class AdvanceHidesEveryones(MemoryStore):
    def advance(self, subject, kinds, now):
        super().advance(subject, kinds, now)
        return dict(self._marks["" if subject is None else subject])


@wrong("the larger of both marks counts", "the_generation_that_counts_is_the_sum_of_both")
class LargerMark(MemoryStore):
    def _generations(self, subject):
        own, everyones = self._marks.get(subject, {}), self._marks.get("", {})
        return {kind: max(own.get(kind, 0), everyones.get(kind, 0)) for kind in own.keys() | everyones.keys()}


@wrong("everyone's mark counts twice for nobody", "an_older_generation_of_everyone_may_not_come_in")
class TwiceForNobody(MemoryStore):
    def _generations(self, subject):
        own, everyones = self._marks.get(subject, {}), self._marks.get("", {})
        return {kind: own.get(kind, 0) + everyones.get(kind, 0) for kind in own.keys() | everyones.keys()}


@wrong("anything can be advanced", "only_kinds_that_can_die_are_advanced", "nobody_cannot_be_advanced")
class AdvancesAnything(MemoryStore):
    def advance(self, subject, kinds, now):
        try:
            return super().advance(subject, kinds, now)
        except InvalidValue:
            return {}


@wrong("a revocation has no end", "a_revoked_token_is_marked_until_its_end")
class EndlessRevocation(MemoryStore):
    def marks(self, subject, revocation_id, now):
        return Marks((REVOKED_TOKEN, revocation_id) in self._records, super().marks(subject, "", now).generations)


@wrong("a revocation is noticed late", "a_revoked_token_is_marked_until_its_end")
class LateRevocation(MemoryStore):
    def marks(self, subject, revocation_id, now):
        return super().marks(subject, revocation_id, now + 10)


@wrong("a revocation is remembered", "a_revocation_that_was_removed_is_none")
class RemembersRevocations(MemoryStore):
    revoked = frozenset()

    def marks(self, subject, revocation_id, now):
        marks = super().marks(subject, revocation_id, now)
        if marks.revoked:
            self.revoked |= {revocation_id}
        return Marks(revocation_id in self.revoked, marks.generations)


@wrong("any record revokes", "only_a_revocation_revokes")
class AnyRecordRevokes(MemoryStore):
    def marks(self, subject, revocation_id, now):
        return Marks(
            any(record_id == revocation_id for _, record_id in self._records),
            super().marks(subject, revocation_id, now).generations,
        )


# -- list


class Listing(MemoryStore):
    def all(self, subject, kind, now):
        return super().list(subject, kind, now, "", 1000)


@wrong("a list is in no order", "a_list_has_the_subjects_live_records_in_order")
class Unordered(Listing):
    def list(self, *args):
        return list(reversed(super().list(*args)))


@wrong("a list is in the order of the alphabet", "a_list_is_in_the_order_of_the_characters_codes")
class Alphabetical(Listing):
    def list(self, *args):
        return sorted(super().list(*args), key=lambda record: (record.id.lower(), record.id))


@wrong("a list has all kinds", "a_list_has_the_subjects_live_records_in_order")
class AllKinds(Listing):
    def list(self, subject, kind, now, after="", limit=100):
        return [record for each in ("session", "api_token") for record in self.all(subject, each, now)]


@wrong("a list has the dead", "a_list_has_the_subjects_live_records_in_order")
class ListsTheDead(Listing):
    def list(self, subject, kind, now, after="", limit=100):
        return super().list(subject, kind, now - 100, after, limit)


@wrong("a page begins with the last of the one before", "a_list_comes_in_pages_without_gaps")
class Overlapping(Listing):
    def list(self, subject, kind, now, after="", limit=100):
        return [record for record in self.all(subject, kind, now) if record.id >= after][:limit]


@wrong("a page leaves one out", "a_list_comes_in_pages_without_gaps")
class Gaps(Listing):
    def list(self, subject, kind, now, after="", limit=100):
        page = super().list(subject, kind, now, after, limit + 1)
        return page[1:] if after else page[:limit]


@wrong("a page begins anew if the last record is gone", "a_page_may_begin_after_what_is_gone")
class LooksUp(Listing):
    def list(self, subject, kind, now, after="", limit=100):
        return super().list(subject, kind, now, after if (kind, after) in self._records else "", limit)


@wrong("a page has no end", "a_page_has_at_most_so_many", "a_list_comes_in_pages_without_gaps")
class Endless(Listing):
    def list(self, subject, kind, now, after="", limit=100):
        return super().list(subject, kind, now, after, 1000)


@wrong("no limit means all", "a_page_has_at_most_so_many")
class NoLimit(Listing):
    def list(self, subject, kind, now, after="", limit=100):
        return super().list(subject, kind, now, after, limit or 1000)


@wrong("a limit below nothing means all", "a_page_has_at_most_so_many")
class NegativeLimit(Listing):
    def list(self, subject, kind, now, after="", limit=100):
        return super().list(subject, kind, now, after, 1000 if limit < 0 else limit)


@wrong("a page may have more than a thousand", "a_page_has_at_most_so_many")
class LargePages(Listing):
    def list(self, subject, kind, now, after="", limit=100):
        page = super().list(subject, kind, now, after, limit)
        rest = limit - len(page)
        return page + super().list(subject, kind, now, page[-1].id, rest) if rest > 0 and page else page


@wrong("a page has fifty if nothing is said", "a_page_has_at_most_so_many")
class SmallPages(Listing):
    def list(self, subject, kind, now, after="", limit=50):
        return super().list(subject, kind, now, after, limit)


@wrong("the dead take a place on the page", "a_list_comes_in_pages_without_gaps")
class DeadInPages(Listing):
    def list(self, subject, kind, now, after="", limit=100):
        page = super().list(subject, kind, now - 1, after, limit)
        return [record for record in page if record.dies_at > now]


@wrong("the revoked take a place on the page", "records_of_a_dead_generation_take_no_place_on_a_page")
class RevokedInPages(Listing):
    def list(self, subject, kind, now, after="", limit=100):
        ids = [one for one in sorted(self._ids.get((subject, kind), ())) if one > after][:limit]
        return [found.record for one in ids if (found := self.get(kind, one, now))]


@wrong("nobody's records are listed", "nobodys_records_are_in_no_list")
class ListsNobodys(Listing):
    def list(self, subject, kind, now, after="", limit=100):
        if subject:
            return super().list(subject, kind, now, after, limit)
        return [found.record for one in self._ids.get(("", kind), ()) if (found := self.get(kind, one, now))]


# -- counts


@wrong("one more than the limit is allowed", "counts_are_allowed_up_to_the_limit")
class Generous(MemoryStore):
    def count_up(self, name, window, limit, now):
        return super().count_up(name, window, limit + 1, now)


@wrong("what is refused does not count", "counts_are_allowed_up_to_the_limit")
class CountsTheAllowed(MemoryStore):
    def count_up(self, name, window, limit, now):
        answer = super().count_up(name, window, limit, now)
        if not answer.allowed:
            self._counts[name] = limit, self._counts[name][1]
        return answer


@wrong("one always waits for a whole window", "counts_are_allowed_up_to_the_limit")
class WholeWindow(MemoryStore):
    def count_up(self, name, window, limit, now):
        answer = super().count_up(name, window, limit, now)
        return Counted(answer.allowed, answer.count, 0.0 if answer.allowed else window)


@wrong("who may go on is told to wait", "counts_are_allowed_up_to_the_limit")
class AlwaysWait(MemoryStore):
    def count_up(self, name, window, limit, now):
        answer = super().count_up(name, window, limit, now)
        return Counted(answer.allowed, answer.count, answer.retry_after or 1.0)


@wrong("each count prolongs the window", "a_window_ends_on_time_and_is_not_extended")
class Prolongs(MemoryStore):
    def count_up(self, name, window, limit, now):
        answer = super().count_up(name, window, limit, now)
        self._counts[name] = answer.count, now + window
        return answer


@wrong("a window begins when the clock strikes", "a_window_begins_with_the_first_count_in_it")
class OnTheMinute(MemoryStore):
    def count_up(self, name, window, limit, now):
        answer = super().count_up(name, window, limit, now)
        if answer.count == 1:
            self._counts[name] = 1, (now // window + 1) * window
        return Counted(answer.allowed, answer.count, 0.0 if answer.allowed else self._counts[name][1] - now)


@wrong("a window begins where the last one ended", "a_window_begins_with_the_first_count_in_it")
class Adjoining(MemoryStore):
    def count_up(self, name, window, limit, now):
        _, ended_at = self._counts.get(name, (0, now))
        answer = super().count_up(name, window, limit, now)
        if answer.count == 1:
            self._counts[name] = 1, now + window - (now - ended_at) % window
        return Counted(answer.allowed, answer.count, 0.0 if answer.allowed else self._counts[name][1] - now)


@wrong("the first limit counts for ever", "the_limit_is_that_of_the_call")
class FirstLimit(MemoryStore):
    limit = None

    def count_up(self, name, window, limit, now):
        self.limit = limit if self.limit is None else self.limit
        return super().count_up(name, window, self.limit, now)


@wrong("a count is never forgotten", "a_count_can_be_forgotten")
class NeverForgets(MemoryStore):
    def count_reset(self, name):
        pass


@wrong("a forgotten count's window goes on", "a_count_can_be_forgotten")
class WindowGoesOn(MemoryStore):
    def count_reset(self, name):
        if name in self._counts:
            self._counts[name] = 0, self._counts[name][1]


@wrong("all counts are forgotten together", "names_are_counted_apart")
class ForgetsAll(MemoryStore):
    def count_reset(self, name):
        self._counts.clear()


def counting(fold):
    class CountsFolded(MemoryStore):
        def count_up(self, name, window, limit, now):
            return super().count_up(fold(name), window, limit, now)

    return CountsFolded


for how, folded_by in FOLDED.items():
    wrong(f"names are counted {how}", "names_are_counted_apart")(counting(folded_by))


@wrong(
    "a count is never taken back", "a_count_can_be_taken_back", "a_count_that_is_taken_back_leaves_the_window_as_it_was"
)
class TakesNothingBack(MemoryStore):
    def count_back(self, name, now):
        pass


@wrong(
    "all is taken back at once",
    "a_count_can_be_taken_back",
    "a_count_that_is_taken_back_leaves_the_window_as_it_was",
    "no_count_is_lost_while_others_are_taken_back",
)
class TakesAllBack(MemoryStore):
    def count_back(self, name, now):
        self.count_reset(name)


@wrong("a window ends when nothing is left of its count", "a_count_that_is_taken_back_leaves_the_window_as_it_was")
class EndsWhenNothingIsLeft(MemoryStore):
    def count_back(self, name, now):
        super().count_back(name, now)
        if self._counts.get(name, (1, 0.0))[0] == 0:
            self.count_reset(name)


@wrong("a window begins anew when a count is taken back", "a_count_that_is_taken_back_leaves_the_window_as_it_was")
class BeginsAnew(MemoryStore):
    window = None

    def count_up(self, name, window, limit, now):
        self.window = window
        return super().count_up(name, window, limit, now)

    def count_back(self, name, now):
        super().count_back(name, now)
        if name in self._counts:
            self._counts[name] = self._counts[name][0], now + self.window


@wrong(
    "a count falls below nothing", "a_count_is_never_less_than_nothing", "no_count_is_lost_while_others_are_taken_back"
)
class FallsBelowNothing(MemoryStore):
    def count_back(self, name, now):
        count, ends_at = self._counts.get(name, (0, 0.0))
        if ends_at > now:
            self._counts[name] = count - 1, ends_at


@wrong("what was never counted is taken back", "what_was_never_counted_is_not_taken_back")
class TakesBackWhatIsNot(MemoryStore):
    def count_back(self, name, now):
        count, ends_at = self._counts.get(name, (0, now + 60))
        self._counts[name] = count - 1, ends_at


@wrong("a window that is over is taken back from", "a_window_that_is_over_is_left_alone")
class TakesBackWhatIsOver(MemoryStore):
    def count_back(self, name, now):
        super().count_back(name, min(now, self._counts.get(name, (0, 0.0))[1] - 1))


@wrong("all counts are taken back together", "a_count_is_taken_back_of_one_name_alone")
class TakesBackOfAll(MemoryStore):
    def count_back(self, name, now):
        for each in tuple(self._counts):
            super().count_back(each, now)


for how, folded_by in FOLDED.items():
    wrong(f"count_up and count_back know names {how}", "a_count_is_taken_back_of_one_name_alone")(
        type(
            "CountsFolded",
            (counting(folded_by),),
            {"count_back": lambda self, name, now, fold=folded_by: MemoryStore.count_back(self, fold(name), now)},
        )
    )


@wrong("a clock that goes back locks for long", "a_clock_that_goes_back_does_not_lock_for_longer_than_a_window")
class LocksForLong(MemoryStore):
    def count_up(self, name, window, limit, now):
        _, ends_at = self._counts.get(name, (0, 0.0))
        answer = super().count_up(name, window, limit, now)
        self._counts[name] = answer.count, max(ends_at, self._counts[name][1])
        return Counted(answer.allowed, answer.count, 0.0 if answer.allowed else self._counts[name][1] - now)


# -- purge


class Purging(SQLiteStore):
    """On SQLite, which says what is there."""

    def records(self):
        return self._run("SELECT kind, id, dies_at FROM records ORDER BY dies_at", ())


@wrong("a purge knows no limit", "purge_removes_the_dead_a_bounded_number_at_a_time")
class PurgesAll(Purging):
    def purge(self, now, limit=1000):
        return super().purge(now, 10**6)


@wrong("a purge has a limit for each table", "purge_removes_the_dead_a_bounded_number_at_a_time")
class TwoLimits(Purging):
    def purge(self, now, limit=1000):
        gone = super().purge(now, limit)
        return gone + len(
            self._write("DELETE FROM counts WHERE ends_at <= ? RETURNING name", (now - COLLECT_AFTER,)) if limit else ()
        )


@wrong(
    "a purge removes at once",
    "purge_removes_the_dead_a_bounded_number_at_a_time",
    "purge_leaves_a_clock_that_goes_back_what_it_needs",
    "the_dead_of_today_outlive_many_a_new_record",
)
class PurgesAtOnce(Purging):
    def purge(self, now, limit=1000):
        return super().purge(now + COLLECT_AFTER, limit)


@wrong("a purge removes the counts at once", "purge_removes_the_dead_a_bounded_number_at_a_time")
class PurgesCountsAtOnce(Purging):
    def purge(self, now, limit=1000):
        gone = self._write("DELETE FROM counts WHERE ends_at <= ? RETURNING name", (now,))
        return super().purge(now, limit) + len(gone)


@wrong("a limit of nothing is none", "purge_removes_the_dead_a_bounded_number_at_a_time")
class PurgesWithoutLimit(Purging):
    def purge(self, now, limit=1000):
        return super().purge(now, limit or 1000)


@wrong("a purge removes nothing", "purge_removes_the_dead_a_bounded_number_at_a_time")
class PurgesNothing(Purging):
    def purge(self, now, limit=1000):
        return 0


@wrong("a purge removes the living", "purge_removes_the_dead_a_bounded_number_at_a_time")
class PurgesTheLiving(Purging):
    def purge(self, now, limit=1000):
        gone = super().purge(now, limit)
        if gone == 3:
            self._write("DELETE FROM records", ())
        return gone


@wrong("a purge does not say how many went", "purge_goes_on_until_nothing_is_left")
class SilentPurge(Purging):
    def purge(self, now, limit=1000):
        return min(super().purge(now, limit), 0)


@wrong("a purge goes by the first end it knew", "purge_spares_what_was_used_meanwhile")
class FirstEnd(Purging):
    def purge(self, now, limit=1000):
        return len(
            self._write("DELETE FROM records WHERE created_at + idle_for <= ? RETURNING id", (now - COLLECT_AFTER,))
        )


@wrong("a purge does not know of swaps", "purge_spares_what_was_prolonged_meanwhile")
class FirstDeath(Purging):
    def __init__(self, path):
        super().__init__(path)
        self.deaths = {}

    def add(self, record, now):
        super().add(record, now)
        self.deaths[record.kind, record.id] = record.dies_at

    def purge(self, now, limit=1000):
        for key, dies_at in self.deaths.items():
            if dies_at <= now - COLLECT_AFTER:
                self.remove(*key)
        return super().purge(now, limit)


@wrong("a purge takes all counts", "purge_spares_the_counts_whose_window_lasts")
class PurgesAllCounts(Purging):
    def purge(self, now, limit=1000):
        return len(self._write("DELETE FROM counts RETURNING name", ())) + super().purge(now, limit)


@wrong("a purge removes a hundred if nothing is said", "purge_removes_a_thousand_unless_told_otherwise")
class SmallPurge(Purging):
    def purge(self, now, limit=100):
        return super().purge(now, limit)


@wrong("a purge stops at what is gone already", "purge_goes_on_until_nothing_is_left")
class StopsEarly(Purging):
    def __init__(self, path):
        super().__init__(path)
        self.removed = 0

    def remove(self, kind, record_id):
        super().remove(kind, record_id)
        self.removed += 1

    def purge(self, now, limit=1000):
        stale = min(self.removed, limit)
        self.removed -= stale
        return super().purge(now, limit - stale)


# -- the table


@wrong("making the tables empties them", "making_what_is_there_already_changes_nothing")
class EmptiesTables(Purging):
    def create_tables(self):
        self._write("DELETE FROM records", ())


@wrong("a good table fails the check", "making_what_is_there_already_changes_nothing")
class StrictCheck(Purging):
    def check(self):
        raise StoreUnavailable


@wrong("all is lost when it is closed", "a_store_may_be_used_again_after_it_was_closed")
class LostOnClose(Purging):
    def close(self):
        self._write("DELETE FROM records", ())
        super().close()


@wrong("who closed it may not use it again", "a_store_may_be_used_again_after_it_was_closed")
class ClosedForGood(Purging):
    closed = False

    def close(self):
        self.closed = True
        super().close()

    def _take_connection(self):
        if self.closed:
            raise StoreUnavailable
        return super()._take_connection()


@wrong("what it opened stays open", "what_several_threads_opened_is_closed_with_it")
class LeavesOpen(Purging):
    def marks(self, subject, revocation_id, now):
        self.file = open(os.devnull)
        return super().marks(subject, revocation_id, now)


def reading_all(verb, table):
    honest = getattr(SQLiteStore, verb)

    def read_all(self, *args):
        for _row in self._run(f"SELECT * FROM {table}", ()):
            pass
        return honest(self, *args)

    return type("ReadsAll", (Purging,), {verb: read_all})


for reading, whole in {
    "add": "records",
    "get": "marks",
    "marks": "marks",
    "swap": "records",
    "list": "records",
    "take": "records",
    "remove": "records",
    "advance": "marks",
    "count_up": "counts",
    "count_back": "counts",
    "count_reset": "counts",
    "purge": "counts",
}.items():
    wrong(f"{reading} goes through all {whole}", "no_verb_goes_through_what_is_others")(reading_all(reading, whole))


@wrong("a removed record is still there", "any_sequence_of_verbs_agrees_with_a_simple_model")
class RemovesNothing(MemoryStore):
    def remove(self, kind, record_id):
        pass


# -- threads


@wrong("take is two steps", "one_thread_takes_a_record")
class TakesInTwoSteps(MemoryStore):
    def take(self, kind, record_id, now):
        found = self.get(kind, record_id, now)
        pause()
        self.remove(kind, record_id)
        return found and found.record


@wrong("add is two steps", "one_thread_adds_a_record", "one_thread_adds_a_record_whose_id_was_a_dead_ones")
class AddsInTwoSteps(Swapping):
    def add(self, record, now):
        if self.get(record.kind, record.id, now) is not None:
            raise RecordExists
        pause()
        self.put(record, record)


@wrong("a dead record is replaced in two steps", "one_thread_adds_a_record_whose_id_was_a_dead_ones")
class ReplacesInTwoSteps(Swapping):
    def add(self, record, now):
        if self.stored(record) is None:
            super().add(record, now)
        elif self.get(record.kind, record.id, now) is not None:
            raise RecordExists
        else:
            pause()
            self.put(record, record)


@wrong(
    "swap is two steps",
    "one_thread_swaps_a_version",
    "one_thread_moves_a_record_to_a_new_id",
    "neither_a_use_nor_a_swap_brings_a_removed_record_back",
    "a_record_that_is_changed_at_that_moment_is_taken_all_the_same",
)
class SwapsInTwoSteps(hesitate(Swapping, "remove", "take")):
    def swap(self, old, new, now):
        found = self.get(old.kind, old.id, now)
        if found is None or found.record.version != old.version:
            return None
        pause()
        kept = changed(new, version=old.version + 1, touched_at=found.record.touched_at)
        self.put(old, kept)
        return kept


@wrong("whether an id is free is asked before a move", "one_thread_moves_its_record_to_an_id_that_was_free")
class AsksBeforeMoving(Swapping):
    def swap(self, old, new, now):
        if new.id != old.id and self.get(new.kind, new.id, now) is not None:
            raise RecordExists
        pause()
        if new.id != old.id and self.take(old.kind, old.id, now) is None:
            return None
        kept = changed(new, version=old.version + 1)
        self.put(old, kept)
        return kept


@wrong("a move leaves a moment without either", "a_moving_record_is_always_in_one_place")
class NeitherMoment(hesitate(Swapping, "list")):
    def swap(self, old, new, now):
        taken = self.take(old.kind, old.id, now)
        pause()
        kept = changed(new, version=old.version + 1)
        self.put(old, kept)
        return taken and kept


@wrong("a move leaves a moment with both", "a_moving_record_is_always_in_one_place")
class BothMoment(hesitate(Swapping, "list")):
    def swap(self, old, new, now):
        kept = changed(new, version=old.version + 1)
        self.put(new, kept)
        pause()
        self.remove(old.kind, old.id)
        return kept


@wrong("count_up is two steps", "no_count_is_lost_between_threads")
class CountsInTwoSteps(MemoryStore):
    def count_up(self, name, window, limit, now):
        count, ends_at = self._counts.get(name, (0, 0.0))
        pause()
        if ends_at <= now:
            count, ends_at = 0, now + window
        self._counts[name] = count + 1, ends_at
        return Counted(count < limit, count + 1, 0.0 if count < limit else ends_at - now)


@wrong("a window begins in two steps", "no_count_is_lost_between_threads")
class BeginsInTwoSteps(MemoryStore):
    def count_up(self, name, window, limit, now):
        if self._counts.get(name, (0, 0.0))[1] <= now:
            pause()
            self.count_reset(name)
        return super().count_up(name, window, limit, now)


@wrong("count_back is two steps", "no_count_is_lost_while_others_are_taken_back")
class CountsBackInTwoSteps(hesitate(MemoryStore, "count_up")):
    def count_back(self, name, now):
        count, ends_at = self._counts.get(name, (0, 0.0))
        pause()
        if count > 0 and ends_at > now:
            self._counts[name] = count - 1, ends_at


@wrong("whether there is something to take back is asked before", "no_count_is_lost_while_others_are_taken_back")
class AsksBeforeCountingBack(MemoryStore):
    def count_back(self, name, now):
        if self._counts.get(name, (0, 0.0))[0] > 0:
            pause()
            with self._lock:
                count, ends_at = self._counts[name]
                self._counts[name] = count - 1, ends_at


@wrong("advance is two steps", "no_advance_is_lost_between_threads")
class AdvancesInTwoSteps(MemoryStore):
    def advance(self, subject, kinds, now):
        known = self._marks.get(subject, {})
        pause()
        raised = {**known, **{kind: known.get(kind, 0) + 1 for kind in kinds}}
        self._marks[subject] = raised
        return raised


@wrong("the kinds of a subject overwrite each other", "no_advance_is_lost_between_threads")
class OverwritesKinds(MemoryStore):
    def advance(self, subject, kinds, now):
        others = {kind: one for kind, one in self._marks.get(subject, {}).items() if kind not in kinds}
        pause()
        raised = {**super().advance(subject, kinds, now), **others}
        self._marks[subject] = raised
        return raised


@wrong("get reads the generations before the record", "nothing_survives_an_advance_that_came_after_it")
class ReadsApart(hesitate(MemoryStore, "advance")):
    def get(self, kind, record_id, now, touch_after=None):
        found = super().get(kind, record_id, now, touch_after)
        pause()
        return found and Found(found.record, self.marks(found.record.subject, "", now).generations)


@wrong(
    "a use writes back the whole record",
    "neither_a_use_nor_a_swap_brings_a_removed_record_back",
    "a_use_and_a_swap_at_the_same_moment_are_both_kept",
)
class WritesBack(hesitate(Swapping, "swap", "remove")):
    def get(self, kind, record_id, now, touch_after=None):
        found = super().get(kind, record_id, now)
        if found is None or touch_after is None:
            return found
        pause()
        used = changed(found.record, touched_at=now)
        self.put(used, used)
        return Found(used, found.generations)


@wrong("a swap writes back the last use it read", "a_use_and_a_swap_at_the_same_moment_are_both_kept")
class ForgetsUse(Swapping):
    def get(self, kind, record_id, now, touch_after=None):
        if touch_after is not None:
            time.sleep(0.001)
        return super().get(kind, record_id, now, touch_after)

    def swap(self, old, new, now):
        found = self.get(old.kind, old.id, now)
        pause()
        kept = super().swap(old, new, now)
        if kept:
            kept = changed(kept, touched_at=found.record.touched_at)
            self.put(kept, kept)
        return kept


@wrong("take gives up if the record is changed", "a_record_that_is_changed_at_that_moment_is_taken_all_the_same")
class GivesUp(hesitate(MemoryStore, "swap")):
    def take(self, kind, record_id, now):
        found = self.get(kind, record_id, now)
        pause()
        with self._lock:
            entry = self._live(kind, record_id, now)
            if found is None or entry is None or entry[0].version != found.record.version:
                return None
            self._forget(kind, record_id)
        return found.record


@wrong("a purge counts what it saw", "what_is_purged_by_several_threads_is_counted_once")
class CountsWhatItSaw(Purging):
    def purge(self, now, limit=1000):
        seen = [row for row in self.records() if row[2] <= now - COLLECT_AFTER][:limit]
        pause()
        for kind, record_id, _ in seen:
            self.remove(kind, record_id)
        return len(seen)


# -- processes


@wrong(
    "each process has records of its own",
    "all_processes_see_the_same_records",
    "one_process_adds_a_record",
    "one_process_swaps_a_version",
    "no_advance_is_lost_between_processes",
)
class ToEachItsOwn(MemoryStore):
    shared = True


@wrong("take is two steps among processes", "one_process_takes_a_record")
class SharedTake(Purging):
    def take(self, kind, record_id, now):
        found = self.get(kind, record_id, now)
        pause()
        self.remove(kind, record_id)
        return found and found.record


class SharedSwapping(SQLiteStore):
    def put(self, old, kept):
        self.remove(old.kind, old.id)
        self.remove(kept.kind, kept.id)
        try:
            super().add(kept, 0.0)
        except RecordExists:
            self.put(old, kept)


@wrong("add is two steps among processes", "one_process_adds_a_record")
class SharedAdd(SharedSwapping):
    def add(self, record, now):
        if self.get(record.kind, record.id, now) is not None:
            raise RecordExists
        pause()
        self.put(record, record)


@wrong(
    "swap is two steps among processes",
    "one_process_swaps_a_version",
    "one_process_moves_a_record_to_a_new_id",
    "a_use_and_a_swap_in_two_processes_are_both_kept",
)
class SharedSwap(SharedSwapping):
    def get(self, kind, record_id, now, touch_after=None):
        if touch_after is not None:
            time.sleep(0.001)
        return super().get(kind, record_id, now, touch_after)

    def swap(self, old, new, now):
        found = self.get(old.kind, old.id, now)
        if found is None or found.record.version != old.version:
            return None
        pause()
        kept = changed(new, version=old.version + 1, touched_at=found.record.touched_at)
        self.put(old, kept)
        return kept


@wrong("count_up is two steps among processes", "no_count_is_lost_between_processes")
class SharedCount(SQLiteStore):
    def count_up(self, name, window, limit, now):
        rows = self._run("SELECT count, ends_at FROM counts WHERE name = ?", (name,))
        count, ends_at = rows[0] if rows and rows[0][1] > now else (0, now + window)
        pause()
        self._write("INSERT OR REPLACE INTO counts (name, count, ends_at) VALUES (?, ?, ?)", (name, count + 1, ends_at))
        return Counted(count < limit, count + 1, 0.0)


@wrong("count_back is two steps among processes", "no_count_is_lost_while_other_processes_take_theirs_back")
class SharedCountBack(SQLiteStore):
    def count_back(self, name, now):
        rows = self._run("SELECT count FROM counts WHERE name = ? AND ends_at > ? AND count > 0", (name, now))
        pause()
        for (count,) in rows:
            self._write("UPDATE counts SET count = ? WHERE name = ?", (count - 1, name))


@wrong("advance is two steps among processes", "no_advance_is_lost_between_processes")
class SharedAdvance(SQLiteStore):
    def advance(self, subject, kinds, now):
        known = dict(self.marks(subject, "", now).generations)
        pause()
        for kind in kinds:
            known[kind] = known.get(kind, 0) + 1
        mark = json.dumps(known).encode()
        self._write("INSERT OR REPLACE INTO marks (subject, generations) VALUES (?, ?)", (subject, mark))
        return known


@wrong("a process remembers the marks it read", "nothing_survives_an_advance_in_another_process")
class RemembersMarks(SQLiteStore):
    def __init__(self, path):
        super().__init__(path)
        self.known = {}

    def advance(self, subject, kinds, now):
        time.sleep(0.002)
        return super().advance(subject, kinds, now)

    def get(self, kind, record_id, now, touch_after=None):
        rows = self._run("SELECT subject, generation FROM records WHERE kind = ? AND id = ?", (kind, record_id))
        if not rows:
            return None
        subject, generation = rows[0]
        known = self.known.setdefault(subject, self.known.get(subject) or self.marks(subject, "", now))
        if generation < known.generation(kind):
            return None
        return Found(new_record(subject, kind=kind, id=record_id, generation=generation), known.generations)


# -- forks and ends


@wrong("a child may not use it", "a_store_works_on_both_sides_of_a_fork")
class ParentOnly(MemoryStore):
    def __init__(self):
        super().__init__()
        self.process = os.getpid()

    def take(self, *args):
        if os.getpid() != self.process:
            raise StoreUnavailable
        return super().take(*args)


@wrong("a child inherits a lock that somebody holds", "a_fork_while_threads_are_at_work_harms_nobody")
class HeldLock(MemoryStore):
    def __init__(self):
        super().__init__()
        self.held = threading.Lock()

    def add(self, record, now):
        with self.held:
            pause()
            super().add(record, now)


@wrong("what it keeps ends with it", "what_was_acknowledged_is_there_for_whoever_opens_the_store_next")
class NotDurable(MemoryStore):
    durable = True


def written_at_the_end(verb):
    """What another process acknowledged is written when it closes the store."""
    honest = getattr(SQLiteStore, verb)
    answer = {"count_up": Counted(allowed=True, count=1, retry_after=0.0), "advance": {"api_token": 1}}.get(verb)

    class WritesLater(SQLiteStore):
        def __init__(self, path):
            super().__init__(path)
            self.waiting = []

        def close(self):
            for write in self.waiting:
                write()
            self.waiting.clear()
            super().close()

    def later(self, *args):
        if multiprocessing.parent_process() is None:
            return honest(self, *args)
        self.waiting.append(functools.partial(honest, self, *args))
        return answer

    setattr(WritesLater, verb, later)
    WritesLater.__qualname__ = WritesLater.__name__ = f"Writes_{verb}_later"
    globals()[WritesLater.__name__] = WritesLater  # where another process looks for it
    return WritesLater


for writing in ("swap", "take", "count_up", "advance"):
    wrong(
        f"{writing} is written when the store is closed",
        "what_was_acknowledged_survives_the_sudden_end_of_its_process",
    )(written_at_the_end(writing))


@wrong("a record is written when the store is closed", "what_was_acknowledged_survives_the_sudden_end_of_its_process")
class AddsLater(SQLiteStore):
    def __init__(self, path):
        super().__init__(path)
        self.early = MemoryStore()
        self.waiting = []

    def add(self, record, now):
        self.waiting.append((record, now))

    def close(self):
        for record, now in self.waiting:
            super().add(record, now)
        self.waiting.clear()
        super().close()

    def get(self, kind, record_id, now, touch_after=None):
        for record, _ in self.waiting:
            if record.id == record_id:
                return Found(record, {})
        return super().get(kind, record_id, now, touch_after)
