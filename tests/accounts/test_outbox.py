"""The outbox on every engine: what was added is sent, once if nobody dies, and whoever dies is stood in for."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jam.accounts import outbox as module
from jam.accounts.mail import Mail
from jam.accounts.outbox import CLAIM, KIND, MAX_AGE, MAX_ATTEMPTS, SUBJECT, Letter, Outbox
from jam.crypto.handles import new_id
from jam.errors import ConfigError, InvalidValue, MailNotSent, StoreUnavailable
from jam.events import Events, MailFailed
from jam.stores import Record, open_store
from jam.testing import MovableClock

PATIENCE = 30
LINK = "https://app.example/reset#Zm9vYmFy"
WORKERS = 4


class Post:
    """A mailer that keeps what it is given, unless it is told to fail or to wait."""

    def __init__(self):
        self.mails, self.failure = [], None
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.began = threading.Event()

    def send(self, mail):
        self.began.set()
        assert self.may_go_on.wait(PATIENCE)
        if self.failure is not None:
            raise self.failure
        self.mails.append(mail)


def write(letter):
    """The mail of a letter: nothing for whoever is unknown."""
    if letter.to in ("", "nobody@example.org"):
        return None
    return Mail(to=letter.to, subject=letter.template, text=f"{LINK} {letter.data}")


@pytest.fixture
def store(engine_store, clock):
    """A store of each engine with nothing in its outbox."""
    for record in engine_store.list(SUBJECT, KIND, clock(), "", 1000):
        engine_store.remove(KIND, record.id)
    return engine_store


@pytest.fixture
def post():
    return Post()


@pytest.fixture
def make(store, clock, post):
    """Makes an outbox that sends when it is told to; its events are in ``heard``."""
    made = []

    def make(write=write, *, mailer=post, store=store, background=False):
        events, heard = Events(), []
        events.subscribe(heard.append)
        outbox = Outbox(store, mailer, write, clock=clock, events=events, background=background)
        outbox.heard = heard
        made.append(outbox)
        return outbox

    yield make
    post.may_go_on.set()
    for outbox in made:
        assert outbox.join(PATIENCE)


@pytest.fixture
def outbox(make):
    return make()


def templates(post):
    return [mail.subject for mail in post.mails]


def told(delivered):
    return delivered.sent, delivered.failed, delivered.dropped


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "jam-outbox"]


def eventually(fact):
    until = time.monotonic() + PATIENCE
    while not fact() and time.monotonic() < until:
        time.sleep(0.005)
    assert fact()


# -- adding and sending -------------------------------------------------------------------------------------


def test_a_letter_is_sent_when_it_is_delivered(outbox, post):
    outbox.add("reset_password", to="alice@example.org", subject="7", data={"name": "Älice", "n": [1, None, 0.5]})
    assert post.mails == []
    delivered = outbox.deliver()
    assert (told(delivered), delivered.next_at) == ((1, 0, 0), None)
    (mail,) = post.mails
    assert (mail.to, mail.subject) == ("alice@example.org", "reset_password")
    assert "Älice" in mail.text
    assert told(outbox.deliver()) == (0, 0, 0)
    assert (outbox.waiting(), outbox.heard, len(post.mails)) == ([], [], 1)


def test_whoever_writes_the_mail_sees_the_whole_letter(make, clock):
    letters = []
    outbox = make(letters.append)
    outbox.add("verify_email", to="alice@example.org", subject="7", data={"a": 1})
    outbox.add("welcome", to="bob@example.org")
    added_at = clock()
    clock.move(5)
    waiting = outbox.waiting()
    outbox.deliver()
    assert [letter.attempts for letter in waiting] == [0, 0]
    first, second = sorted(letters, key=lambda letter: letter.template)
    assert first == Letter(
        template="verify_email", to="alice@example.org", subject="7", data={"a": 1}, created_at=added_at, id=first.id,
        attempts=1,
    )  # fmt: skip
    assert (second.subject, second.data) == (None, {})
    assert {letter.id for letter in waiting} == {first.id, second.id}


def test_any_other_outbox_on_the_same_store_sends_it(make, post):
    make(mailer=Post()).add("welcome", to="alice@example.org")
    assert told(make().deliver()) == (1, 0, 0)
    assert templates(post) == ["welcome"]


def test_a_letter_that_needs_no_mail_is_dropped(outbox, post):
    outbox.add("reset_password", to="nobody@example.org")
    outbox.add("reset_password", to="")
    assert told(outbox.deliver()) == (0, 0, 2)
    assert (outbox.waiting(), post.mails, outbox.heard) == ([], [], [])


def test_the_oldest_are_sent_first_and_no_more_than_asked_for(outbox, post, clock):
    for number in "abcde":
        outbox.add(f"letter_{number}", to="alice@example.org")
        clock.move(1)
    delivered = outbox.deliver(2)
    assert templates(post) == ["letter_a", "letter_b"]
    assert (told(delivered), delivered.next_at <= clock()) == ((2, 0, 0), True)
    assert [letter.template for letter in outbox.waiting()] == ["letter_c", "letter_d", "letter_e"]
    assert outbox.deliver(3).next_at is None
    assert templates(post) == [f"letter_{number}" for number in "abcde"]


def test_an_outbox_of_many_pages_is_read_to_its_end(outbox, post, monkeypatch):
    monkeypatch.setattr(module, "MAX_LIST", 2)
    for _ in range(6):
        outbox.add("welcome", to="alice@example.org")
    assert len(outbox.waiting()) == 6
    assert told(outbox.deliver()) == (6, 0, 0)


def test_nothing_secret_rests_in_the_outbox(outbox, post, store, clock):
    outbox.add("reset_password", to="alice@example.org", data={"name": "Alice"})
    post.failure = MailNotSent()
    outbox.deliver()
    kept = [repr(record) for record in store.list(SUBJECT, KIND, clock())]
    assert len(kept) == 1
    assert LINK not in kept[0]
    post.failure = None
    clock.move(60)
    outbox.deliver()
    assert LINK in post.mails[0].text


def test_a_letter_that_nobody_takes_is_gone_after_three_days(outbox, clock):
    outbox.add("welcome", to="alice@example.org")
    clock.move(3 * 86400 - 1)
    assert len(outbox.waiting()) == 1
    clock.move(1)
    assert outbox.waiting() == []


def test_an_outbox_that_was_emptied_takes_letters_again(outbox, post, store, clock):
    outbox.add("welcome", to="alice@example.org")
    store.advance(SUBJECT, [KIND], clock())
    assert outbox.waiting() == []
    outbox.add("welcome_again", to="alice@example.org")
    outbox.deliver()
    assert templates(post) == ["welcome_again"]


@pytest.mark.parametrize("method", ["add", "deliver"])
def test_asvs_16_5_3_without_a_mailer_nothing_is_promised(make, method):
    outbox = make(mailer=None)
    arguments = {"add": {"template": "welcome", "to": "alice@example.org"}, "deliver": {}}[method]
    with pytest.raises(ConfigError, match=r"mail\.url"):
        getattr(outbox, method)(**arguments)
    assert (outbox.can_send, outbox.waiting()) == (False, [])


def test_with_a_mailer_it_can_send(outbox):
    assert outbox.can_send is True


# -- what cannot be kept ------------------------------------------------------------------------------------


@pytest.fixture
def memory(clock, post):
    return Outbox(open_store("memory://"), post, write, clock=clock, events=Events(), background=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"template": ""}, {"template": "../../etc/passwd"}, {"template": "A"}, {"template": "a" * 65}, {"template": None},
        {"template": "a\n"}, {"to": None}, {"to": 7}, {"to": "\ud800"}, {"subject": 7}, {"subject": "a\0"},
        {"subject": "x" * 256}, {"data": [1]}, {"data": "x"}, {"data": {"a": object()}}, {"data": {"a": float("nan")}},
        {"data": {"a": "\ud800"}}, {"data": {"a": "x" * 5_000_000}}, {"data": {1: 2}},
    ],
    ids=lambda wrong: ascii(wrong)[:60],
)  # fmt: skip
def test_a_letter_that_cannot_be_is_refused(memory, wrong):
    with pytest.raises(InvalidValue):
        memory.add(**{"template": "welcome", "to": "alice@example.org", **wrong})
    assert memory.waiting() == []


@pytest.mark.parametrize("limit", [0, -1, 1.5, "2", None, True])
def test_a_limit_is_a_positive_number(memory, limit):
    with pytest.raises(InvalidValue):
        memory.deliver(limit)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    to=st.text(max_size=30), subject=st.none() | st.text(max_size=30), data=st.dictionaries(st.text(), JSON, max_size=3)
)
@example(to="alice@example.org\r\nBcc: mallory@example.org", subject=None, data={})
def test_whatever_is_kept_comes_out_as_it_went_in_and_ends(to, subject, data):
    clock, post = MovableClock(), Post()
    outbox = Outbox(open_store("memory://"), post, write, clock=clock, events=Events(), background=False)
    try:
        outbox.add("welcome", to=to, subject=subject, data=data)
    except InvalidValue:
        assert outbox.waiting() == []
        return
    (letter,) = outbox.waiting()
    assert (letter.to, letter.subject, letter.data) == (to, subject, data)
    while (next_at := outbox.deliver().next_at) is not None:
        clock.now = next_at
    assert all(mail.to == to for mail in post.mails)
    assert clock() - letter.created_at < 2 * MAX_AGE


def test_what_the_caller_changes_afterwards_changes_no_letter(memory):
    data = {"names": ["Alice"]}
    memory.add("welcome", to="alice@example.org", data=data)
    data["names"].append("Mallory")
    assert memory.waiting()[0].data == {"names": ["Alice"]}


def test_a_letter_that_nobody_can_read_keeps_no_other(outbox, post, store, clock, caplog):
    broken = Record(
        kind=KIND, id=new_id(SUBJECT), subject=SUBJECT, generation=store.marks(SUBJECT, "", clock()).generation(KIND),
        data={"template": 7}, created_at=clock(), touched_at=clock(), ends_at=clock() + 60,
    )  # fmt: skip
    store.add(broken, clock())
    outbox.add("welcome", to="alice@example.org")
    assert told(outbox.deliver()) == (1, 0, 0)
    assert broken.id in caplog.text


# -- what fails ---------------------------------------------------------------------------------------------


def test_a_mail_that_fails_is_tried_again_after_pauses_that_grow_until_it_is_given_up(outbox, post, clock):
    post.failure = MailNotSent()
    outbox.add("welcome", to="alice@example.org", subject="7")
    began, tried = clock(), []
    while True:
        delivered = outbox.deliver()
        assert told(delivered) == (0, 1, 0)
        tried.append(clock() - began)
        if delivered.next_at is None:
            break
        assert [letter.attempts for letter in outbox.waiting()] == [len(tried)]
        clock.now = delivered.next_at - 1
        assert (told(outbox.deliver()), outbox.deliver().next_at) == ((0, 0, 0), delivered.next_at)
        clock.now = delivered.next_at
    assert tried == [0, 60, 360, 1260, 4860, 26460, 48060, 69660]
    assert outbox.heard == [
        MailFailed(at=began + at, subject="7", template="welcome", attempts=number, gave_up=number == MAX_ATTEMPTS)
        for number, at in enumerate(tried, 1)
    ]
    assert outbox.waiting() == []


def test_a_mail_that_failed_leaves_when_it_can(outbox, post, clock):
    post.failure = MailNotSent()
    outbox.add("welcome", to="alice@example.org")
    outbox.deliver()
    post.failure = None
    clock.move(60)
    assert told(outbox.deliver()) == (1, 0, 0)
    assert (len(post.mails), outbox.waiting()) == (1, [])


def test_a_mail_that_is_refused_for_good_is_given_up_at_once(outbox, post, clock):
    post.failure = MailNotSent(permanent=True)
    outbox.add("welcome", to="alice@example.org", subject="7")
    delivered = outbox.deliver()
    assert (told(delivered), delivered.next_at, outbox.waiting()) == ((0, 1, 0), None, [])
    assert outbox.heard == [MailFailed(at=clock(), subject="7", template="welcome", attempts=1, gave_up=True)]


def test_a_letter_that_lay_for_a_day_is_tried_once(outbox, post, clock):
    post.failure = MailNotSent()
    outbox.add("welcome", to="alice@example.org")
    clock.move(MAX_AGE)
    outbox.deliver()
    assert (outbox.waiting(), [event.gave_up for event in outbox.heard]) == ([], [True])


def test_one_that_fails_keeps_no_other(make, post):
    def write_all_but_one(letter):
        if letter.template == "bad":
            raise KeyError(LINK)
        return write(letter)

    outbox = make(write_all_but_one)
    for template in ("good", "bad", "fine"):
        outbox.add(template, to="alice@example.org")
    assert told(outbox.deliver()) == (2, 1, 0)
    assert [letter.template for letter in outbox.waiting()] == ["bad"]


@pytest.mark.parametrize(
    "failure", [KeyError(LINK), StoreUnavailable(LINK), InvalidValue(LINK), RecursionError(LINK)], ids=repr
)
def test_asvs_16_2_5_what_goes_wrong_while_a_mail_is_written_is_logged_without_the_mail(make, caplog, clock, failure):
    def fail(_):
        raise failure

    outbox = make(fail)
    outbox.add("reset_password", to="alice@example.org")
    assert told(outbox.deliver()) == (0, 1, 0)
    assert "reset_password" in caplog.text
    assert type(failure).__name__ in caplog.text
    for secret in (LINK, "alice", "Traceback"):
        assert secret not in caplog.text
    assert [(event.attempts, event.gave_up) for event in outbox.heard] == [(1, False)]
    assert outbox.deliver().next_at == clock() + 60


def test_asvs_16_2_5_what_goes_wrong_while_a_mail_is_sent_is_logged_without_the_mail(outbox, post, caplog):
    post.failure = MailNotSent(hint="The mail server refused the recipient: 450.")
    outbox.add("reset_password", to="alice@example.org")
    outbox.deliver()
    assert "450" in caplog.text
    assert "alice" not in caplog.text


def test_asvs_16_5_3_a_store_that_cannot_keep_a_letter_promises_nothing(clock, post):
    outbox = Outbox(
        open_store("sqlite:////no/such/place/jam.db"), post, write, clock=clock, events=Events(), background=True
    )
    for attempt in (lambda: outbox.add("welcome", to="alice@example.org"), outbox.deliver, outbox.waiting):
        with pytest.raises(StoreUnavailable):
            attempt()
    assert threads() == []


# -- claims -------------------------------------------------------------------------------------------------


class Died(BaseException):
    """Stands for the end of a process, within this one."""


def die(_):
    raise Died


def test_what_somebody_has_claimed_is_theirs_until_the_claim_runs_out(make, post, clock):
    outbox = make()
    outbox.add("welcome", to="alice@example.org")
    with pytest.raises(Died):
        make(die).deliver()
    clock.move(CLAIM - 1)
    delivered = outbox.deliver()
    assert (told(delivered), delivered.next_at) == ((0, 0, 0), clock() + 1)
    clock.move(1)
    assert told(outbox.deliver()) == (1, 0, 0)
    assert len(post.mails) == 1


def test_a_letter_that_kills_whoever_writes_it_comes_to_an_end(make, clock):
    outbox = make(die)
    outbox.add("welcome", to="alice@example.org")
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(Died):
            outbox.deliver()
        clock.move(CLAIM)
    assert told(outbox.deliver()) == (0, 1, 0)
    assert [(event.attempts, event.gave_up) for event in outbox.heard] == [(MAX_ATTEMPTS, True)]
    assert outbox.waiting() == []


def test_whoever_takes_longer_than_the_claim_does_not_disturb_the_next(make, post, clock):
    def dawdle(_):
        clock.move(CLAIM)
        with pytest.raises(Died):
            make(die).deliver()
        raise MailNotSent

    slow, other = make(dawdle), make()
    other.add("welcome", to="alice@example.org")
    assert told(slow.deliver()) == (0, 1, 0)
    assert slow.heard == []
    assert told(other.deliver()) == (0, 0, 0)  # somebody else's by now
    clock.move(CLAIM)
    assert told(other.deliver()) == (1, 0, 0)


def test_an_outbox_that_is_emptied_while_a_letter_is_written_keeps_none(make, store, clock):
    def empty(_):
        store.advance(SUBJECT, [KIND], clock())
        raise MailNotSent

    outbox = make(empty)
    outbox.add("welcome", to="alice@example.org")
    assert told(outbox.deliver()) == (0, 1, 0)
    assert outbox.waiting() == []


def test_of_many_threads_each_letter_is_sent_by_one(make, post):
    outbox = make()
    for _ in range(50):
        outbox.add("welcome", to="alice@example.org")
    barrier = threading.Barrier(WORKERS)

    def deliver(_):
        barrier.wait(PATIENCE)
        return make().deliver()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # with the usual 5 ms a store in memory is done before anybody else runs
    try:
        with ThreadPoolExecutor(WORKERS) as pool:
            results = list(pool.map(deliver, range(WORKERS)))
    finally:
        sys.setswitchinterval(interval)
    assert (len(post.mails), sum(result.sent for result in results)) == (50, 50)
    assert outbox.waiting() == []


# -- processes ----------------------------------------------------------------------------------------------


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@contextlib.contextmanager
def child(act):
    """A forked process that does it; killed at the end if it is not over."""
    process = multiprocessing.get_context("fork").Process(target=act)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of a fork beside threads: that is the test
        process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join(PATIENCE)
        process.close()


def done(act):
    """Whether a forked process did it."""
    with child(act) as process:
        process.join(PATIENCE)
        return process.exitcode == 0


class SharedPost:
    """A mailer that any number of processes may use: it writes a line for each mail."""

    def __init__(self, path):
        self.path = path
        path.touch()

    def send(self, mail):
        line = f"{os.getpid()} {mail.text.rpartition(' ')[2]}\n".encode()
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(file, line)
        finally:
            os.close(file)

    def lines(self):
        return [line.split() for line in self.path.read_text().splitlines()]


@forks
def test_of_many_processes_each_letter_is_sent_by_one(make, store, tmp_path):
    if not store.shared:
        pytest.skip("this store is one process's own")
    post = SharedPost(tmp_path / "sent")
    together, waited = multiprocessing.get_context("fork").Barrier(WORKERS), []

    def write(letter):
        if not waited:  # each process has its first letter before anybody goes on to a second
            waited.append(together.wait(PATIENCE))
        return Mail(to=letter.to, subject="Hi", text=f"{LINK} {letter.id}")

    outbox = make(write, mailer=post)
    for _ in range(50):
        outbox.add("welcome", to="alice@example.org")
    letters = {letter.id for letter in outbox.waiting()}
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(child(outbox.deliver)) for _ in range(WORKERS)]
        for worker in workers:
            worker.join(PATIENCE)
        assert [worker.exitcode for worker in workers] == [0] * WORKERS
    sent = [letter for _, letter in post.lines()]
    assert (len(sent), set(sent)) == (50, letters)
    assert len({process for process, _ in post.lines()}) == WORKERS
    assert outbox.waiting() == []


@forks
def test_who_is_killed_while_sending_is_stood_in_for(make, store, clock, post, tmp_path):
    if not store.shared:
        pytest.skip("this store is one process's own")
    claimed = tmp_path / "claimed"

    def hang(_):
        claimed.touch()
        time.sleep(PATIENCE)

    outbox = make()
    outbox.add("welcome", to="alice@example.org")
    with child(make(hang).deliver) as process:
        eventually(claimed.exists)
        os.kill(process.pid, signal.SIGKILL)
        process.join(PATIENCE)
        assert process.exitcode == -signal.SIGKILL
    assert told(outbox.deliver()) == (0, 0, 0)
    clock.move(CLAIM)
    assert told(outbox.deliver()) == (1, 0, 0)
    assert len(post.mails) == 1


@forks
def test_what_a_process_had_added_when_it_was_killed_is_sent(make, store, post):
    if not store.shared:
        pytest.skip("this store is one process's own")
    outbox = make()

    def add_and_die():
        outbox.add("welcome", to="alice@example.org")
        os.kill(os.getpid(), signal.SIGKILL)

    assert not done(add_and_die)
    assert told(outbox.deliver()) == (1, 0, 0)
    assert templates(post) == ["welcome"]


@forks
def test_a_letter_that_was_there_before_a_fork_is_sent_by_one_side(make, store, tmp_path):
    post = SharedPost(tmp_path / "sent")
    outbox = make(mailer=post)
    outbox.add("welcome", to="alice@example.org")
    assert done(outbox.deliver)
    outbox.deliver()
    assert len(post.lines()) == 1
    assert outbox.waiting() == []


@forks
def test_a_child_sends_with_a_thread_of_its_own(make, tmp_path):
    post = SharedPost(tmp_path / "sent")
    outbox = make(mailer=post, background=True)

    def add():
        assert threads() == []
        outbox.add("from_the_child", to="alice@example.org")
        assert outbox.join(PATIENCE)

    outbox.add("from_the_parent", to="alice@example.org")
    assert done(add)
    assert outbox.join(PATIENCE)
    assert outbox.waiting() == []
    assert len(post.lines()) == 2
    assert len({process for process, _ in post.lines()}) == 2


@forks
def test_a_fork_while_mails_are_added_and_sent_harms_nobody(make, tmp_path):
    post = SharedPost(tmp_path / "sent")
    outbox, stop = make(mailer=post, background=True), threading.Event()
    added = []

    def work():
        while not stop.is_set():
            outbox.add("welcome", to="alice@example.org")
            added.append(1)
            time.sleep(0.002)

    def add():
        outbox.add("from_the_child", to="alice@example.org")
        if not outbox.join(PATIENCE):
            os._exit(1)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        assert [done(add) for _ in range(5)] == [True] * 5
    finally:
        stop.set()
        worker.join(PATIENCE)
        assert outbox.join(PATIENCE)
    outbox.deliver(10_000)
    assert outbox.waiting() == []
    assert len(post.lines()) == len(added) + 5


# -- in the background --------------------------------------------------------------------------------------


def test_adding_does_not_wait_for_the_mail_to_leave(make, post):
    outbox = make(background=True)
    post.may_go_on.clear()
    outbox.add("welcome", to="alice@example.org")
    assert post.began.wait(PATIENCE)
    outbox.add("welcome_again", to="alice@example.org")
    assert post.mails == []
    assert outbox.join(0.01) is False
    post.may_go_on.set()
    assert outbox.join(PATIENCE) is True
    assert sorted(templates(post)) == ["welcome", "welcome_again"]


def test_the_thread_ends_when_there_is_nothing_left_and_comes_back(make, post):
    outbox = make(background=True)
    for number in range(1, 4):
        outbox.add("welcome", to="alice@example.org")
        eventually(lambda: not threads())
        assert len(post.mails) == number
    assert outbox.join(0) is True


def test_a_letter_that_is_added_when_the_thread_has_just_ended_is_sent(make, post, monkeypatch):
    """A thread that has seen that nothing is left may live on for a moment."""
    outbox = make(background=True)
    ended, may_go = threading.Event(), threading.Event()
    has_work = outbox._has_work

    def linger(next_at):
        more = has_work(next_at)
        if not more and not ended.is_set():
            ended.set()
            may_go.wait(PATIENCE)
        return more

    monkeypatch.setattr(outbox, "_has_work", linger)
    try:
        outbox.add("welcome", to="alice@example.org")
        assert ended.wait(PATIENCE)
        outbox.add("welcome_again", to="alice@example.org")
        eventually(lambda: len(post.mails) == 2)
    finally:
        may_go.set()
    eventually(lambda: not threads())


def test_there_is_one_thread_for_all_letters(make, post):
    outbox = make(background=True)
    post.may_go_on.clear()
    for _ in range(20):
        outbox.add("welcome", to="alice@example.org")
    assert len(threads()) == 1
    assert threads()[0].daemon
    post.may_go_on.set()
    assert outbox.join(PATIENCE)
    assert len(post.mails) == 20


def test_more_letters_than_are_delivered_at_once_leave_as_well(make, post):
    outbox = make(store=open_store("memory://"))
    for _ in range(250):
        outbox.add("welcome", to="alice@example.org")
    outbox.wake()
    assert outbox.join(PATIENCE)
    assert len(post.mails) == 250


def test_what_failed_is_sent_by_the_thread_when_its_time_has_come(make, post, clock):
    outbox = make(background=True)
    post.failure = MailNotSent()
    outbox.add("welcome", to="alice@example.org")
    eventually(lambda: outbox.heard)
    assert len(threads()) == 1  # it rests
    post.failure = None
    clock.move(60)
    outbox.wake()
    eventually(lambda: post.mails)
    assert outbox.join(PATIENCE)


def test_the_thread_looks_by_itself(make, post, clock, monkeypatch):
    monkeypatch.setattr(module, "_MAX_REST", 0.05)
    outbox = make(background=True)
    post.failure = MailNotSent()
    outbox.add("welcome", to="alice@example.org")
    eventually(lambda: outbox.heard)
    post.failure = None
    clock.move(60)
    eventually(lambda: post.mails)
    eventually(lambda: not threads())


def test_a_thread_that_rests_is_ended_by_join(make, post):
    outbox = make(background=True)
    post.failure = MailNotSent()
    outbox.add("welcome", to="alice@example.org")
    eventually(lambda: outbox.heard)
    assert outbox.join(PATIENCE) is True
    assert threads() == []
    assert len(outbox.waiting()) == 1


def test_waking_sends_what_others_have_left_behind(make, post):
    make().add("welcome", to="alice@example.org")
    outbox = make(background=True)
    outbox.wake()
    assert outbox.join(PATIENCE)
    assert templates(post) == ["welcome"]


class FailingStore:
    """A real store of which some verbs stop answering."""

    def __init__(self, store):
        self._store, self.fails = store, ()

    def __getattr__(self, name):
        if name in self.fails:
            raise StoreUnavailable
        return getattr(self._store, name)


@pytest.mark.parametrize("verb", ["list", "swap", "remove"])
def test_a_store_that_fails_for_a_while_loses_no_letter(make, post, clock, caplog, verb):
    store = FailingStore(open_store("memory://"))
    outbox = make(store=store, background=True)
    store.fails = (verb,)
    outbox.add("welcome", to="alice@example.org")
    eventually(lambda: "could not be emptied" in caplog.text)
    store.fails = ()
    assert len(threads()) == 1  # it rests, and would look again
    assert len(outbox.waiting()) == 1
    clock.move(CLAIM)
    outbox.wake()
    assert outbox.join(PATIENCE)
    # What has left and could not be noted leaves again: at least once is the promise.
    assert (outbox.waiting(), len(post.mails)) == ([], 2 if verb == "remove" else 1)


def test_where_no_thread_can_be_started_the_letter_waits(make, post, monkeypatch, caplog):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    outbox = make(background=True)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        outbox.add("welcome", to="alice@example.org")
    assert "sent later" in caplog.text
    outbox.add("welcome_again", to="alice@example.org")
    assert outbox.join(PATIENCE)
    assert sorted(templates(post)) == ["welcome", "welcome_again"]


SCRIPT = """
import threading, time
from jam.accounts.outbox import Outbox
from jam.events import Events
from jam.stores import open_store
began = threading.Event()
def write(letter):
    began.set()
    time.sleep(60)
outbox = Outbox(open_store("memory://"), object(), write, clock=time.time, events=Events())
outbox.add("welcome", to="alice@example.org")
assert began.wait(20)
"""


def test_a_mail_that_is_being_sent_keeps_no_process_alive():
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
