"""Throttling: what is refused, whom nobody can lock out, and what the store gives away; on every engine.

Each test has a key of its own, so that no count of one is another's.
"""

import ipaddress
import multiprocessing
import secrets
import sqlite3
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jam.accounts.throttle import KNOWN_ADDRESS, Throttle, address_key
from jam.config import ThrottlingSettings
from jam.errors import InvalidKey, InvalidValue, StoreUnavailable, TooManyAttempts
from jam.events import Events, Throttled
from jam.stores import open_store
from jam.stores.memory import MemoryStore
from jam.testing import MovableClock

HOUR, DAY = 3600, 86400
WINDOW = 900
HOME, OFFICE, AWAY = "203.0.113.5", "203.0.113.77", "192.0.2.9"
STRANGERS = [f"198.51.{n // 250}.{n % 250}" for n in range(200)]
PATIENCE = 60
PROCESSES = 3


@pytest.fixture
def make(engine_store, clock):
    """Makes a throttle on the engine under test; its events are in ``heard``."""
    return lambda **limits: make_throttle(engine_store, clock, **limits)


@pytest.fixture
def throttle(make):
    return make()


@pytest.fixture
def in_memory(clock):
    return lambda **limits: make_throttle(MemoryStore(), clock, **limits)


def make_throttle(store, clock, *, key=None, **limits):
    events, heard = Events(), []
    events.subscribe(heard.append)
    key = secrets.token_bytes(32) if key is None else key
    throttle = Throttle(store, key, ThrottlingSettings(**limits), clock=clock, events=events)
    throttle.heard = heard
    return throttle


def refusal(act, *arguments):
    with pytest.raises(TooManyAttempts) as caught:
        act(*arguments)
    return caught.value


def is_allowed(throttle, name, address):
    try:
        throttle.sign_in(name, address)
    except TooManyAttempts:
        return False
    return True


def looked_at(throttle, name, addresses):
    """How many guesses get through, one from each of the addresses."""
    return sum(is_allowed(throttle, name, address) for address in addresses)


def signed_in(throttle, name, address):
    return throttle.sign_in(name, address).succeeded(f"subject of {name}")


# -- one address, one name ----------------------------------------------------------------------------------


def test_asvs_6_3_1_ten_wrong_passwords_are_looked_at_and_then_none_until_the_window_ends(throttle, clock):
    for _ in range(10):
        throttle.sign_in("alice", AWAY)
        clock.move(1)
    assert refusal(throttle.sign_in, "alice", AWAY).retry_after == WINDOW - 10
    clock.move(WINDOW - 11)
    assert refusal(throttle.sign_in, "alice", AWAY).retry_after == 1
    clock.move(1)
    assert looked_at(throttle, "alice", [AWAY] * 11) == 10


def test_asvs_6_3_1_a_refusal_is_the_same_whether_the_name_is_somebodys_or_not(throttle):
    signed_in(throttle, "alice", HOME)
    errors = []
    for name in ("alice", "nobody"):
        assert looked_at(throttle, name, [AWAY] * 10) == 10
        errors.append(refusal(throttle.sign_in, name, AWAY))
    assert {(str(error), error.retry_after, error.code) for error in errors} == {
        ("Too many attempts. Try again later.", WINDOW, "too_many_attempts")
    }


def test_refused_attempts_do_not_prolong_the_window(throttle, clock):
    for _ in range(30):
        is_allowed(throttle, "alice", AWAY)
        clock.move(30)
    assert is_allowed(throttle, "alice", AWAY)


def test_a_success_begins_the_count_anew(throttle):
    assert looked_at(throttle, "alice", [HOME] * 9) == 9
    signed_in(throttle, "alice", HOME)
    assert looked_at(throttle, "alice", [HOME] * 11) == 10


def test_a_success_of_one_name_is_none_of_another(throttle):
    assert looked_at(throttle, "alice", [OFFICE] * 10) == 10
    signed_in(throttle, "mallory", OFFICE)
    assert not is_allowed(throttle, "alice", OFFICE)


def test_asvs_6_3_5_a_success_tells_how_many_failed_before_it_wherever_they_came_from(throttle):
    assert looked_at(throttle, "alice", [HOME] * 2 + STRANGERS[:3]) == 5
    assert signed_in(throttle, "alice", HOME) == 5
    assert looked_at(throttle, "alice", [HOME] * 2 + STRANGERS[:4]) == 6
    assert signed_in(throttle, "alice", HOME) == 6
    assert looked_at(throttle, "alice", [HOME]) == 1
    assert signed_in(throttle, "alice", AWAY) == 1
    assert signed_in(throttle, "alice", HOME) == 0


def test_refused_attempts_are_no_failures(make):
    throttle = make(attempts=3, attempts_per_account=5)
    assert looked_at(throttle, "alice", [AWAY] * 9) == 3
    assert signed_in(throttle, "alice", HOME) == 3
    assert looked_at(throttle, "alice", STRANGERS[:9]) == 5
    assert signed_in(throttle, "alice", HOME) == 5


def test_a_success_told_twice_counts_once(make):
    throttle = make(attempts_per_address=3)
    for name in ("a", "b"):
        throttle.sign_in(name, OFFICE)
    throttle.sign_in("alice", HOME)
    attempt = throttle.sign_in("alice", OFFICE)
    assert [attempt.succeeded("1"), attempt.succeeded("1")] == [1, 1]
    assert [is_allowed(throttle, name, OFFICE) for name in ("c", "d")] == [True, False]


@pytest.mark.parametrize("subject", ["", None, "a\0b", "\ud800"])
def test_an_attempt_succeeds_as_nobody_else_than_somebody(in_memory, subject):
    throttle = in_memory(attempts=1)
    attempt = throttle.sign_in("alice", HOME)
    with pytest.raises(InvalidValue):
        attempt.succeeded(subject)
    assert not is_allowed(throttle, "alice", HOME)


# -- what was not looked at ---------------------------------------------------------------------------------


def test_an_attempt_that_was_withdrawn_counts_nowhere(make):
    throttle = make(attempts=1, attempts_per_address=1, attempts_per_account=1)
    attempt = throttle.sign_in("alice", AWAY)
    attempt.withdraw()
    throttle.sign_in("alice", AWAY)
    attempt.withdraw()  # the second time it takes nothing back that is another's
    assert [is_allowed(throttle, *one) for one in (("alice", AWAY), ("bob", AWAY), ("alice", HOME))] == [False] * 3


def test_whoever_was_never_let_pass_takes_nothing_back(make):
    throttle = make(attempts=2)
    attempts = [throttle.sign_in("alice", AWAY) for _ in range(2)]
    assert looked_at(throttle, "alice", [AWAY] * 2) == 0
    attempts[0].withdraw()
    assert looked_at(throttle, "alice", [AWAY]) == 0


def test_an_attempt_is_withdrawn_or_succeeds(in_memory):
    throttle = in_memory(attempts=2, attempts_per_address=2)
    attempt = throttle.sign_in("alice", HOME)
    attempt.withdraw()
    with pytest.raises(InvalidValue):
        attempt.succeeded("1")
    attempt = throttle.sign_in("alice", HOME)
    throttle.sign_in("bob", HOME)
    attempt.succeeded("1")
    attempt.withdraw()
    assert [is_allowed(throttle, name, HOME) for name in ("carol", "dave")] == [True, False]


# -- one address, many names --------------------------------------------------------------------------------


def test_asvs_6_3_1_an_address_that_tries_one_password_at_many_names_is_refused(throttle, clock):
    allowed = [is_allowed(throttle, f"user-{n}", AWAY) for n in range(103)]
    assert allowed == [True] * 100 + [False] * 3
    assert refusal(throttle.sign_in, "user-0", AWAY).retry_after == WINDOW
    assert is_allowed(throttle, "user-102", HOME)
    clock.move(WINDOW)
    assert is_allowed(throttle, "user-102", AWAY)


def test_of_many_colleagues_behind_one_address_who_sign_in_none_is_refused(throttle):
    for n in range(150):
        signed_in(throttle, f"colleague-{n}", OFFICE)
    assert throttle.heard == []


@pytest.mark.parametrize(
    "limits",
    [{"attempts": 2, "attempts_per_address": 3}, {"attempts_per_account": 2, "attempts_per_address": 3}],
    ids=["refused at the name and address", "refused at the account"],
)
def test_an_attempt_that_is_refused_uses_up_nothing_of_the_address(make, limits):
    throttle = make(**limits)
    assert looked_at(throttle, "alice", [OFFICE] * 9) == 2
    assert [is_allowed(throttle, "bob", OFFICE) for _ in range(2)] == [True, False]


def test_an_attempt_that_is_refused_uses_up_nothing_of_the_account(make):
    throttle = make(attempts=1, attempts_per_account=2)
    assert looked_at(throttle, "alice", [AWAY] * 9) == 1
    assert looked_at(throttle, "alice", STRANGERS[:3]) == 1


# -- many addresses, one name -------------------------------------------------------------------------------


def test_asvs_6_3_1_strangers_with_many_addresses_have_a_days_count_together(throttle, clock):
    assert looked_at(throttle, "alice", STRANGERS[:60]) == 50
    clock.move(WINDOW)
    assert refusal(throttle.sign_in, "alice", AWAY).retry_after == DAY - WINDOW
    assert is_allowed(throttle, "bob", STRANGERS[0])
    clock.move(DAY - WINDOW)
    assert looked_at(throttle, "alice", STRANGERS[:51]) == 50


def test_asvs_6_1_1_strangers_cannot_lock_somebody_out_where_they_are_known(throttle, clock):
    signed_in(throttle, "alice", HOME)
    assert looked_at(throttle, "alice", STRANGERS) == 50
    assert not is_allowed(throttle, "alice", AWAY)
    assert signed_in(throttle, "alice", HOME) == 50


def test_a_known_address_allows_no_more_guesses_than_strangers_have(make, clock):
    throttle = make(window=HOUR)
    signed_in(throttle, "alice", HOME)
    guesses = 0
    for _ in range(24):
        guesses += looked_at(throttle, "alice", [HOME] * 11)
        clock.move(HOUR)
    assert guesses == 50
    assert is_allowed(throttle, "alice", HOME)  # the next day


def test_whoever_uses_up_the_known_addresses_does_not_lock_somebody_out_elsewhere(throttle, clock):
    signed_in(throttle, "alice", HOME)
    for _ in range(6):
        looked_at(throttle, "alice", [HOME] * 10)
        clock.move(WINDOW)
    assert not is_allowed(throttle, "alice", HOME)
    assert is_allowed(throttle, "alice", AWAY)


def test_nist_3_2_2_at_most_a_hundred_guesses_in_a_day_whatever_the_mix_of_addresses(make, clock):
    throttle = make(window=HOUR)
    known = (HOME, OFFICE, "2001:db8:1::1")
    for address in known:
        signed_in(throttle, "alice", address)
    guesses = 0
    for _ in range(24):
        for address in (*known, *STRANGERS[:4], "2001:db8:2::1", "", None):
            while is_allowed(throttle, "alice", address):
                guesses += 1
        clock.move(HOUR)
    assert guesses == 100


def test_two_names_of_one_person_have_counts_of_their_own(throttle):
    assert looked_at(throttle, "alice", STRANGERS[:60]) == 50
    assert looked_at(throttle, "alice@example.com", STRANGERS[:60]) == 50


# -- known addresses ----------------------------------------------------------------------------------------


def is_known(throttle, name, address):
    """Whether strangers can shut it out."""
    looked_at(throttle, name, STRANGERS[:5])
    return is_allowed(throttle, name, address)


def test_an_address_is_known_for_the_name_that_signed_in_from_there_and_no_other(make):
    throttle = make(attempts_per_account=3)
    signed_in(throttle, "alice", OFFICE)
    throttle.sign_in("bob", OFFICE)
    assert [is_known(throttle, name, OFFICE) for name in ("alice", "bob")] == [True, False]
    assert not is_known(throttle, "alice", HOME)


def test_an_address_is_forgotten_so_long_after_the_last_sign_in_from_there(make, clock):
    throttle = make(attempts_per_account=3, known_for=10 * DAY)
    signed_in(throttle, "alice", HOME)
    clock.move(9 * DAY)
    signed_in(throttle, "alice", HOME)
    clock.move(10 * DAY - 1)
    assert is_known(throttle, "alice", HOME)
    clock.move(DAY)
    assert not is_known(throttle, "alice", HOME)


def test_attempts_that_fail_do_not_keep_an_address_known(make, clock):
    throttle = make(attempts_per_account=3, known_for=10 * DAY)
    signed_in(throttle, "alice", HOME)
    for _ in range(10):
        clock.move(DAY)
        is_allowed(throttle, "alice", HOME)
    assert not is_known(throttle, "alice", HOME)


@pytest.mark.parametrize("address", ["", "unix:", "not an address", "203.0.113.5:4711"])
def test_what_cannot_be_told_from_others_never_becomes_known(make, address):
    throttle = make(attempts_per_account=3)
    signed_in(throttle, "alice", address)
    assert not is_known(throttle, "alice", address)


def test_whatever_is_no_address_is_one_address(make):
    throttle = make(attempts=2)
    assert looked_at(throttle, "alice", ["", "x", "@"]) == 2


def test_an_address_that_was_noted_at_the_same_moment_is_known(clock):
    class NotedMeanwhile(MemoryStore):
        def add(self, record, now):
            super().add(record, now)
            super().add(record, now)

    throttle = make_throttle(NotedMeanwhile(), clock, attempts_per_account=3)
    assert signed_in(throttle, "alice", HOME) == 0
    assert is_known(throttle, "alice", HOME)


def test_known_addresses_can_be_revoked_and_become_known_again(make, engine_store, clock):
    throttle = make(attempts_per_account=3)
    signed_in(throttle, "alice", HOME)
    engine_store.advance(None, (KNOWN_ADDRESS,), clock())
    assert not is_known(throttle, "alice", HOME)
    clock.move(DAY)
    signed_in(throttle, "alice", HOME)
    assert is_known(throttle, "alice", HOME)


def test_an_address_that_is_noted_while_all_are_revoked_is_not_known(clock):
    class RevokedMeanwhile(MemoryStore):
        def add(self, record, now):
            self.advance(None, (KNOWN_ADDRESS,), now)
            super().add(record, now)

    throttle = make_throttle(RevokedMeanwhile(), clock, attempts_per_account=3)
    assert signed_in(throttle, "alice", HOME) == 0
    assert not is_known(throttle, "alice", HOME)


# -- without a request --------------------------------------------------------------------------------------


def test_without_an_address_the_days_count_alone_decides(throttle, clock):
    assert looked_at(throttle, "alice", [None] * 60) == 50
    assert refusal(throttle.sign_in, "alice", None).retry_after == DAY
    assert not is_allowed(throttle, "alice", AWAY)
    clock.move(DAY)
    assert is_allowed(throttle, "alice", None)


def test_a_success_without_an_address_begins_the_count_anew_and_makes_none_known(make):
    throttle = make(attempts_per_account=3)
    assert looked_at(throttle, "alice", [None, AWAY]) == 2
    assert signed_in(throttle, "alice", None) == 2
    assert looked_at(throttle, "alice", [None] * 4) == 3


# -- forgiving ----------------------------------------------------------------------------------------------


def test_whoever_reset_the_password_by_mail_may_sign_in_at_once_wherever_they_are(make):
    throttle = make(attempts=2, attempts_per_account=4)
    signed_in(throttle, "alice", HOME)
    assert looked_at(throttle, "alice", [AWAY] * 3 + STRANGERS[:5]) == 4
    throttle.forgive("alice", AWAY)
    assert is_allowed(throttle, "alice", AWAY)


def test_forgiving_a_name_forgets_the_days_counts_and_no_addresses(make, clock):
    throttle = make(attempts=2, attempts_per_account=2)
    signed_in(throttle, "alice", HOME)
    assert looked_at(throttle, "alice", [AWAY] * 2 + [HOME] * 2) == 4
    throttle.forgive("alice")
    assert [is_allowed(throttle, "alice", address) for address in (AWAY, HOME, STRANGERS[0])] == [False, False, True]
    clock.move(WINDOW)
    assert is_allowed(throttle, "alice", HOME)


def test_forgiving_a_name_forgives_no_other(make):
    throttle = make(attempts_per_account=1)
    assert looked_at(throttle, "bob", STRANGERS[:5]) == 1
    throttle.forgive("alice", STRANGERS[0])
    assert looked_at(throttle, "bob", STRANGERS[:5]) == 0


# -- mail ---------------------------------------------------------------------------------------------------


def is_sent(throttle, to, address):
    try:
        throttle.mail(to, address)
    except TooManyAttempts:
        return False
    return True


def test_asvs_6_3_1_nobody_is_sent_more_than_five_mails_in_an_hour_whoever_asks(throttle, clock):
    assert [is_sent(throttle, "alice@example.com", address) for address in STRANGERS[:7]] == [True] * 5 + [False] * 2
    clock.move(60)
    assert refusal(throttle.mail, "alice@example.com", HOME).retry_after == HOUR - 60
    clock.move(HOUR - 60)
    assert is_sent(throttle, "alice@example.com", HOME)


def test_asvs_6_3_1_nobody_has_more_than_twenty_mails_sent_in_an_hour(throttle):
    assert [is_sent(throttle, f"{n}@example.com", AWAY) for n in range(22)] == [True] * 20 + [False] * 2
    assert is_sent(throttle, "21@example.com", HOME)


def test_mails_that_are_refused_use_up_nothing(make):
    throttle = make(mails=2, mails_per_address=3)
    assert sum(is_sent(throttle, "alice@example.com", OFFICE) for _ in range(9)) == 2
    assert [is_sent(throttle, "bob@example.com", OFFICE) for _ in range(9)] == [True] + [False] * 8
    assert is_sent(throttle, "bob@example.com", HOME)


def test_a_mail_without_a_request_counts_for_its_recipient_alone(throttle):
    assert all(is_sent(throttle, f"{n}@example.com", None) for n in range(25))
    assert sum(is_sent(throttle, "0@example.com", None) for _ in range(9)) == 4


def test_mails_and_attempts_are_counted_apart(make):
    throttle = make(attempts=1, attempts_per_address=1, attempts_per_account=1, mails=1, mails_per_address=1)
    assert is_sent(throttle, "alice", HOME)
    assert is_allowed(throttle, "alice", HOME)


# -- events -------------------------------------------------------------------------------------------------


def test_asvs_16_3_1_a_refusal_is_told_once_a_window_and_not_with_every_attempt(throttle, clock):
    assert looked_at(throttle, "alice", [AWAY] * 10) == 10
    assert throttle.heard == []
    clock.move(100)
    assert looked_at(throttle, "alice", [AWAY] * 20) == 0
    assert throttle.heard == [Throttled(at=clock(), subject=None, address=AWAY, what="sign_in")]
    clock.move(WINDOW - 100)
    assert looked_at(throttle, "alice", [AWAY] * 20) == 10
    assert [event.at for event in throttle.heard] == [clock() - WINDOW + 100, clock()]


def test_each_count_that_refuses_is_told(make):
    throttle = make(attempts=1, attempts_per_address=2)
    for name in ("alice", "alice", "bob", "bob", "carol", "dave"):
        is_allowed(throttle, name, AWAY)
    assert len(throttle.heard) == 2  # alice at this address, and then the address; bob was refused by it, too


def test_a_mail_that_is_refused_is_told(make, clock):
    throttle = make(mails=1)
    for _ in range(5):
        is_sent(throttle, "alice@example.com", None)
    assert throttle.heard == [Throttled(at=clock(), subject=None, address=None, what="mail")]


def test_no_event_says_the_name(throttle):
    looked_at(throttle, "hunter2 typed into the wrong field", [AWAY] * 12)
    assert "hunter2" not in repr(throttle.heard)
    assert len(throttle.heard) == 1


def test_whoever_tries_many_names_leaves_no_trace_of_those_that_were_refused(clock):
    store = MemoryStore()
    throttle = make_throttle(store, clock, attempts_per_address=2)
    for n in range(9):
        is_allowed(throttle, f"user-{n}", AWAY)
    assert len(store._counts) == 1 + 2 * 2


# -- what the store knows -----------------------------------------------------------------------------------


def test_asvs_14_2_6_neither_names_nor_addresses_can_be_read_from_the_store(tmp_path, clock):
    store = open_store(f"sqlite:///{tmp_path}/jam.sqlite3")
    throttle = make_throttle(store, clock, attempts=2)
    try:
        signed_in(throttle, "alice-the-admin", HOME)
        signed_in(throttle, "alice-the-admin", "2001:db8:77::1")
        looked_at(throttle, "correct horse battery staple", [AWAY] * 3)
        is_sent(throttle, "alice@example.com", AWAY)
        files = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        rows = sqlite3.connect(tmp_path / "jam.sqlite3")
        try:
            kept = repr([rows.execute(f"SELECT * FROM {table}").fetchall() for table in ("records", "counts", "marks")])
        finally:
            rows.close()
    finally:
        store.close()
    assert kept.count(KNOWN_ADDRESS) == 2
    for secret in ("alice", "admin", "subject of", "horse", "example.com", HOME, AWAY, "2001:db8", "203.0.113"):
        assert secret.encode() not in files
        assert secret not in kept


def test_another_key_finds_nothing_of_what_was_counted(clock):
    store, limits = MemoryStore(), {"attempts_per_account": 1}
    first, second = (make_throttle(store, clock, key=bytes([n]) * 32, **limits) for n in (1, 2))
    assert [looked_at(one, "alice", STRANGERS[:2]) for one in (first, second, first)] == [1, 1, 0]


@given(st.lists(st.text(st.characters()), unique=True, max_size=8))
def test_names_are_told_apart_exactly(names):
    throttle = make_throttle(MemoryStore(), MovableClock(), attempts_per_account=1)
    for name in names:
        assert [is_allowed(throttle, name, None) for _ in range(2)] == [True, False]


PARTS = st.lists(st.text(st.sampled_from("a?\0\1\ud800\ud801"), max_size=3), min_size=1, max_size=3)


@given(PARTS, PARTS)
@example(["ab", "c"], ["a", "bc"])
@example(["\ud800"], ["\ud801"])
@example(["\ud800"], ["?"])
def test_name_and_address_cannot_be_cut_elsewhere(these, those):
    throttle = make_throttle(MemoryStore(), MovableClock(), key=b"k" * 32)
    assert (throttle._hash(*these) == throttle._hash(*those)) == (these == those)


def test_a_name_of_any_length_is_counted_by_its_beginning(in_memory):
    throttle = in_memory(attempts_per_account=1)
    assert [is_allowed(throttle, "x" * 4095 + end, None) for end in ("", "x", "xy", "x" * 10**6)] == [
        True, True, False, False,
    ]  # fmt: skip


def test_a_short_key_is_refused(clock):
    with pytest.raises(InvalidKey):
        make_throttle(MemoryStore(), clock, key=b"x" * 31)


def test_asvs_16_5_3_if_the_store_cannot_be_asked_nobody_may_try(tmp_path, clock):
    (tmp_path / "store").mkdir()
    store = open_store(f"sqlite:///{tmp_path}/store/jam.sqlite3")
    throttle = make_throttle(store, clock)
    attempt = throttle.sign_in("alice", HOME)
    store.close()
    (tmp_path / "store").rename(tmp_path / "gone")
    for act in (
        lambda: throttle.sign_in("alice", HOME),
        lambda: throttle.mail("alice@example.com", HOME),
        lambda: throttle.forgive("alice"),
        lambda: attempt.succeeded("1"),
        attempt.withdraw,
    ):
        with pytest.raises(StoreUnavailable):
            act()
    store.close()


# -- at the same moment -------------------------------------------------------------------------------------


def test_asvs_6_3_1_of_guesses_in_forty_threads_at_once_exactly_ten_get_through(throttle):
    barrier = threading.Barrier(40)

    def guess():
        barrier.wait(PATIENCE)
        return is_allowed(throttle, "alice", AWAY)

    with ThreadPoolExecutor(40) as pool:
        guesses = [pool.submit(guess) for _ in range(40)]
        assert sum(one.result(PATIENCE) for one in guesses) == 10
    assert len(throttle.heard) == 1
    assert looked_at(throttle, "bob", [AWAY] * 11) == 10  # what was refused did not use up the address


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(PROCESSES)
    with ProcessPoolExecutor(PROCESSES, context, initializer=remember, initargs=(barrier,)) as pool:
        yield pool


def remember(barrier):
    globals()["BARRIER"] = barrier


def guess_in_a_process(url, key, now):
    store = open_store(url)
    try:
        throttle = make_throttle(store, MovableClock(now), key=key)
        looked_at(throttle, "somebody else", ["192.0.2.1"])  # how it connects is not what is raced for
        globals()["BARRIER"].wait(PATIENCE)
        return looked_at(throttle, "alice", [AWAY] * 20), looked_at(throttle, "bob", STRANGERS[:40])
    finally:
        store.close()


def test_asvs_6_3_1_of_guesses_in_several_processes_at_once_no_more_get_through(
    processes, engine_store, engine_url, clock
):
    if not engine_store.shared:
        pytest.skip("no other process sees a store in memory")
    arguments = engine_url, secrets.token_bytes(32), clock()
    guessing = [processes.submit(guess_in_a_process, *arguments) for _ in range(PROCESSES)]
    alices, bobs = zip(*(one.result(PATIENCE) for one in guessing), strict=True)
    assert sum(alices) == 10
    assert sum(bobs) == 50


# -- addresses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:C000:0201", "192.0.2.1"),
        ("::ffff:192.0.2.1%eth0", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:0DB8:0:0:ffff::1", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("fe80::2%any thing", "fe80::/64"),
        ("::1", "::/64"),
        ("2002:c000:201::1", "192.0.2.1"),
        ("2002:c000:201:ffff::9", "192.0.2.1"),
        ("2001:0:cb00:7101:8000:63bf:3fff:fdfe", "192.0.2.1"),
        ("2001:0:cb00:7101:0:1234:3fff:fdfe", "192.0.2.1"),
        ("64:ff9b::192.0.2.1", "192.0.2.1"),
        ("64:ff9b:1::192.0.2.1", "64:ff9b:1::/64"),
    ],
)
def test_an_address_is_counted_as_what_its_owner_has(address, key):
    assert address_key(address) == key


@pytest.mark.parametrize(
    "address",
    ["", " ", "localhost", "192.0.2.1:80", "[::1]", "192.0.2", "192.0.2.01", "192.0.2.1%eth0", "١.٢.٣.٤", "1" * 10**5,
     ":" * 10**5, "fe80::1%", "fe80::1%a/b", "2001:db8::/64", "192.0.2.1, 192.0.2.2", "\ud800", None, 1, b"\1\2\3\4"],
)  # fmt: skip
def test_what_is_no_address_is_unknown(address):
    assert address_key(address) == "unknown"


@given(st.text() | st.ip_addresses().map(str))
def test_whatever_is_said_there_is_a_key_and_it_is_its_own(address):
    key = address_key(address)
    assert key == "unknown" or address_key(key.removesuffix("/64")) == key


NETWORKS = st.integers(0x2001_0DB8_0000_0000, 0x2001_0DB8_FFFF_FFFF)
HOSTS = st.integers(0, 2**64 - 1)


def ipv6(network, host):
    return str(ipaddress.IPv6Address(network << 64 | host))


@given(NETWORKS, st.lists(HOSTS, min_size=11, max_size=11))
def test_asvs_6_3_1_who_rotates_addresses_within_a_network_is_one_address(network, hosts):
    throttle = make_throttle(MemoryStore(), MovableClock())
    assert looked_at(throttle, "alice", [ipv6(network, host) for host in hosts]) == 10


@given(st.lists(NETWORKS, unique=True, min_size=11, max_size=11), HOSTS)
def test_other_networks_are_other_addresses(networks, host):
    throttle = make_throttle(MemoryStore(), MovableClock())
    assert looked_at(throttle, "alice", [ipv6(network, host) for network in networks]) == 11
