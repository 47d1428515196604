"""The conformance kit is only worth what it catches: stores that break one promise each, and the tests that say so."""

import contextlib
import functools
import inspect
import itertools

import pytest

from jam.errors import JamError
from jam.stores.memory import MemoryStore
from jam.stores.sqlite import SQLiteStore
from jam.testing import stores as kit
from jam.testing.stores import StoreContract
from tests.stores.sabotaged import SABOTAGES

KIT = {name: test for name, test in vars(StoreContract).items() if name.startswith("test_")}
FIXTURES = {"opener", "store", "subject", "kind", "processes"}


class Contract(StoreContract):
    rounds = 40  # a sabotaged store loses every race: it pauses where it should not
    process_rounds = 20


@pytest.fixture(scope="module")
def processes():
    processes = kit.Processes()
    yield processes
    processes.close()


@pytest.fixture
def run(processes, tmp_path):
    """Runs one test of the kit, with each of its parameters."""
    paths = (tmp_path / f"{n}.sqlite3" for n in itertools.count())

    def run(name, store_class):
        for values in parameters(KIT[name]):
            opener = opens(store_class, next(paths))
            store = opener()
            given = {
                "opener": opener,
                "store": store,
                "subject": f"subject-{tmp_path.name[-6:]:->16}",
                "kind": "a_kind",
            }
            given |= {"processes": processes} | values
            try:
                KIT[name](
                    Contract(),
                    **{each: given[each] for each in inspect.signature(KIT[name]).parameters if each != "self"},
                )
            finally:
                store.close()

    return run


def opens(store_class, path):
    if issubclass(store_class, SQLiteStore):
        return functools.partial(store_class, path)
    if store_class.shared or store_class.durable:
        return store_class
    store = store_class()
    return lambda: store


def parameters(test):
    """What ``parametrize`` gives the test: one set of arguments for each time it is run."""
    marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
    if not marks:
        return [{}]
    (mark,) = marks
    name, values = mark.args
    return [{name: value} for value in values]


@pytest.mark.parametrize(
    ("store_class", "test"),
    [
        pytest.param(sabotage.store, test, id=f"{sabotage.name}: {test}".replace(" ", "_"))
        for sabotage in SABOTAGES
        for test in sabotage.caught_by
    ],
)
def test_a_sabotaged_store_is_caught(run, store_class, test, monkeypatch):
    if "fork" in test:
        monkeypatch.setattr(kit, "PATIENCE", 3)  # what hangs in a child would hang for ever
    with pytest.raises((AssertionError, KeyError, JamError, pytest.fail.Exception)):
        run(test, store_class)


class Unlocked(MemoryStore):
    """Sound but for its lock, and without any pause: only a race that is close enough shows what it lacks."""

    def __init__(self):
        super().__init__()
        self._lock = contextlib.nullcontext()

    def before_fork(self):
        """There is nothing to hold."""

    after_fork = before_fork


def test_a_store_in_memory_without_a_lock_is_caught_by_its_races():
    caught = 0
    for name in ("one_thread_takes_a_record", "one_thread_swaps_a_version", "no_count_is_lost_between_threads"):
        try:
            getattr(StoreContract(), f"test_{name}")(Unlocked(), "subject")
        except (AssertionError, KeyError):
            caught += 1
    assert caught


@pytest.mark.parametrize("test", KIT)
def test_a_sound_store_passes(run, test):
    run(test, SQLiteStore)


def test_every_test_of_the_kit_has_caught_a_store():
    assert set(KIT) - {test for sabotage in SABOTAGES for test in sabotage.caught_by} == set()


def test_every_sabotage_breaks_a_store_that_is_sound_otherwise():
    assert all(issubclass(sabotage.store, MemoryStore | SQLiteStore) for sabotage in SABOTAGES)
    assert len({sabotage.name for sabotage in SABOTAGES}) == len(SABOTAGES)
