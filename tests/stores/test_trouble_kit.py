"""What ``jam.testing.trouble`` is worth: stores that do the wrong thing in trouble, and the tests that say so."""

import contextlib
import inspect
import secrets

import msgspec
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from jam.errors import RecordExists, StoreUnavailable
from jam.stores.base import Counted, Marks
from jam.stores.redis import RedisStore
from jam.testing.trouble import TroubleContract, Wire

KIT = {name: test for name, test in vars(TroubleContract).items() if name.startswith("test_")}
NOT_THERE = "a_server_that_is_not_there_means_unavailable_for_every_verb"
TOO_EARLY = "a_store_that_was_opened_too_early_works_when_the_server_comes"
WENT_AWAY = "a_server_that_went_away_means_unavailable_until_it_is_back"
HALF_WAY = "what_was_lost_half_way_is_unavailable_and_never_a_refusal"
WHOLE = "a_write_whose_answer_was_lost_happened_whole_or_not_at_all"
IDLE = "a_read_does_not_notice_that_idle_connections_were_cut"
SECOND_TIME = "every_verb_works_at_the_latest_the_second_time_after_a_cut"
CUTS = "while_connections_are_cut_nothing_acknowledged_is_lost_and_nobody_wins_twice"
SILENT = "a_server_that_never_answers_means_unavailable_in_time"
ONE_TRIP = "each_verb_is_one_trip"

CALM = {
    "add": None,
    "get": None,
    "marks": Marks(False, {}),
    "swap": None,
    "take": None,
    "remove": None,
    "list": [],
    "count_up": Counted(True, 1, 0.0),
    "count_back": None,
    "count_reset": None,
    "advance": {"session": 1},
    "purge": 0,
}


class AsksAtOnce(RedisStore):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        with contextlib.suppress(StoreUnavailable):
            self.check()


def calm(verb):
    """Takes an engine that does not answer for one that has nothing to say."""

    def act(self, *arguments, **options):
        try:
            return getattr(RedisStore, verb)(self, *arguments, **options)
        except StoreUnavailable:
            return CALM[verb]

    return type("Calm", (RedisStore,), {verb: act})


def leaking(verb):
    """Lets the driver's own exception out."""

    def act(self, *arguments, **options):
        try:
            return getattr(RedisStore, verb)(self, *arguments, **options)
        except StoreUnavailable as error:
            raise error.__cause__ from None

    return type("Leaking", (RedisStore,), {verb: act})


def insisting(verb):
    """Does it again when nobody knows whether it was done."""

    def act(self, *arguments, **options):
        try:
            return getattr(RedisStore, verb)(self, *arguments, **options)
        except StoreUnavailable:
            return getattr(RedisStore, verb)(self, *arguments, **options)

    return type("Insisting", (RedisStore,), {verb: act})


def chatty(verb):
    """Asks something else first."""

    def act(self, *arguments, **options):
        RedisStore.marks(self, "", "", 0.0)
        return getattr(RedisStore, verb)(self, *arguments, **options)

    return type("Chatty", (RedisStore,), {verb: act})


class GivesUpForEver(RedisStore):
    broken = False

    def _run(self, act, *, again=False):
        if self.broken:
            raise StoreUnavailable
        try:
            return super()._run(act, again=again)
        except StoreUnavailable:
            self.broken = True
            raise


class ReadsOnce(RedisStore):
    """Neither looks at a connection before it is used, nor asks again."""

    def _run(self, act, *, again=False):
        return super()._run(act)

    def __init__(self, url, **options):
        super().__init__(url, **options)

        class Unseen(redis.Connection):
            def can_read(self, *_, **__):
                return False

        own = self._own

        def make():
            client = own()
            client.connection_pool.connection_class = Unseen
            return client

        self._own = make


class GivesUpForAWhile(ReadsOnce):
    """Two more refusals after each failure."""

    owed = 0

    def _run(self, act, *, again=False):
        if self.owed:
            self.owed -= 1
            raise StoreUnavailable
        try:
            return super()._run(act)
        except StoreUnavailable:
            self.owed = 2
            raise


class WaitsForEver(RedisStore):
    def __init__(self, url, **_):
        host, port = url.split("//")[1].split("/")[0].split(":")
        super().__init__(redis.Redis(host, int(port), socket_timeout=None, retry=Retry(NoBackoff(), 0), protocol=2))


class MovesInTwoSteps(RedisStore):
    def swap(self, old, new, now):
        if old.id == new.id:
            return super().swap(old, new, now)
        self.add(new, now)
        self.remove(old.kind, old.id)
        return msgspec.structs.replace(new, version=old.version + 1)


SABOTAGES = [
    ("asks at once", AsksAtOnce, "nothing_is_asked_before_the_first_use"),
    *((f"{verb} is calm", calm(verb), NOT_THERE) for verb in CALM),
    *((f"{verb} is calm when the server goes", calm(verb), WENT_AWAY) for verb in CALM),
    *((f"{verb} lets the driver speak", leaking(verb), NOT_THERE) for verb in CALM),
    *((f"{verb} lets the driver speak half-way", leaking(verb), HALF_WAY) for verb in ("add", "swap", "take")),
    *((f"{verb} is done again", insisting(verb), HALF_WAY) for verb in ("add", "swap", "take")),
    *((f"{verb} is two trips", chatty(verb), ONE_TRIP) for verb in CALM),
    ("what was not written is acknowledged", calm("add"), CUTS),
    ("gives up for ever, early", GivesUpForEver, TOO_EARLY),
    ("gives up for ever, late", GivesUpForEver, WENT_AWAY),
    ("gives up for a while", GivesUpForAWhile, SECOND_TIME),
    ("reads once", ReadsOnce, IDLE),
    ("waits for ever", WaitsForEver, SILENT),
    ("moves in two steps", MovesInTwoSteps, WHOLE),
]


def run(name, store_class, redis_url):
    """One test of the kit, with each of its parameters."""
    test = KIT[f"test_{name}"]
    host, port = redis_url.split("//")[1].split("/")[0].split(":")
    rest = redis_url.rpartition("/")[2]
    parameters = [{}]
    for mark in getattr(test, "pytestmark", []):
        parameters = [{mark.args[0]: value} for value in mark.args[1]]
    for given in parameters:
        with Wire(host, int(port)) as wire:

            def open_at(host, port):
                return store_class(f"redis://{host}:{port}/{rest}", timeout=0.5)

            store = open_at(*wire.address)
            given |= {"wire": wire, "open_at": open_at, "store": store, "subject": f"subject-{secrets.token_hex(8)}"}
            wanted = inspect.signature(test).parameters.keys() - {"self"}
            try:
                test(Contract(), **{each: given[each] for each in wanted})
            finally:
                store.close()


class Contract(TroubleContract):
    patience = 4.0


@pytest.mark.parametrize(
    ("store_class", "caught_by"), [one[1:] for one in SABOTAGES], ids=[one[0] for one in SABOTAGES]
)
def test_a_store_that_does_the_wrong_thing_is_caught(store_class, caught_by, redis_url):
    with pytest.raises((AssertionError, redis.exceptions.RedisError, StoreUnavailable, RecordExists)):
        run(caught_by, store_class, redis_url)


@pytest.mark.parametrize("name", sorted({one[2] for one in SABOTAGES}))
def test_a_sound_store_passes_what_catches_the_others(name, redis_url):
    run(name, RedisStore, redis_url)


def test_every_test_of_the_kit_catches_somebody():
    assert {f"test_{one[2]}" for one in SABOTAGES} == KIT.keys()
