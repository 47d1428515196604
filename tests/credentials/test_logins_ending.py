"""A login that was ended stays so, whoever is giving its session a new handle meanwhile, on every engine."""

import contextlib
import dataclasses
import functools
import itertools
import secrets
import threading
import time

import pytest

from jam import Jam
from jam.errors import CredentialError, JamError, RefreshTokenReused
from jam.stores import open_store

OVERLAP = 60  # seconds; longer than that after a rotation, the token before it is a thief's
RACING = 0.12  # seconds for each way to end a login, on each engine
PATIENCE = 30.0


@pytest.fixture
def url(shared_url):
    return shared_url


@pytest.fixture
def jam(secret, clock, url):
    jam = Jam({"secret": secret, "store": url, "remember_me": {"overlap": OVERLAP}}, clock=clock)
    yield jam
    jam.store.close()


@dataclasses.dataclass
class Browser:
    """A remembered browser whose session is under way."""

    subject: str
    handle: str
    token: str
    family: str
    superseded: str  # the token before the last rotation, which nobody but a thief has any more


def a_name():
    """The engines are shared."""
    return f"alice-{secrets.token_hex(6)}"


def remembered(jam, clock, subject):
    superseded, family = jam.logins.remember(subject)
    handle, token, _ = jam.logins.restore(superseded)
    clock.move(OVERLAP + 1)
    return Browser(subject, handle, token, family, superseded)


def login_id(jam, subject):
    (login,) = jam.logins.list(subject)
    return login.id


def end_as_listed_before(jam, browser):
    jam.logins.end(browser.subject, browser.family)


def end_own_by_handle(jam, browser):
    """By the handle that the browser had when it asked; a handle that is no more ends nothing."""
    jam.logins.end_own([browser.handle], [])


def end_own_by_token(jam, browser):
    jam.logins.end_own([], [browser.token])


def notice_the_thief(jam, browser):
    with pytest.raises(RefreshTokenReused):
        jam.logins.restore(browser.superseded)


ENDINGS = {
    "end": end_as_listed_before,
    "end_own by the token": end_own_by_token,
    "reuse": notice_the_thief,
}
endings = pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)


def rework(jam, handle):
    return jam.sessions.rework(handle)


def confirm(jam, handle):
    return jam.sessions.rework(handle, authenticated_at=jam.clock(), fresh=True)


def end_others(jam, handle):
    return jam.logins.end_others(handle)[0]


RENEWALS = {"rework": rework, "confirming": confirm, "end_others": end_others}
renewals = pytest.mark.parametrize("renew", RENEWALS.values(), ids=RENEWALS)
# Whoever ends all others ends the token they had, too: it is the name alone that ends the login from then on.
PAIRS = {
    f"{ending}, {renewal}": (ENDINGS[ending], RENEWALS[renewal])
    for ending, renewal in itertools.product(ENDINGS, RENEWALS)
    if ending == "end" or renewal != "end_others"
}
pairs = pytest.mark.parametrize(("ending", "renew"), PAIRS.values(), ids=PAIRS)


# -- in every order -----------------------------------------------------------------------------------------


class Interrupted:
    """A real store, before certain calls of which something else happens."""

    def __init__(self, store):
        self._store = store
        self._act = None

    def __getattr__(self, name):
        found = getattr(self._store, name)
        if name not in {"add", "get", "marks", "swap", "take", "remove", "advance", "list"}:
            return found

        def verb(*args, **options):
            act, self._act = self._act, None  # what happens meanwhile is not interrupted itself
            if act is not None and act():
                self._act = act
            return found(*args, **options)

        return verb

    def before_each_call(self, act):
        """Until it returns something false."""
        self._act = act

    def let_be(self):
        self._act = None


@pytest.fixture(params=["memory", "SQLite"])
def interrupted(request, secret, clock, tmp_path):
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/interrupted.sqlite3"
    jam = Jam({"secret": secret, "remember_me": {"overlap": OVERLAP}}, clock=clock, store=Interrupted(open_store(url)))
    yield jam
    jam.store.close()


def at_call(number, act):
    """What happens before that call, counted from nought, and whether it did."""
    happened = []
    calls = itertools.count()

    def before():
        if next(calls) < number:
            return True
        happened.append(True)
        with contextlib.suppress(CredentialError):
            act()
        return False

    return before, happened


@pairs
def test_asvs_7_4_1_a_session_that_gets_a_new_handle_while_its_login_is_ended_is_dead(
    interrupted, clock, ending, renew
):
    jam = interrupted
    for number in itertools.count():
        browser = remembered(jam, clock, a_name())
        before, happened = at_call(number, functools.partial(renew, jam, browser.handle))
        jam.store.before_each_call(before)
        ending(jam, browser)
        jam.store.let_be()
        if not happened:
            assert number > 0
            return
        assert jam.sessions.list(browser.subject) == [], number
        assert jam.logins.list(browser.subject) == [], number


@pairs
def test_asvs_7_4_1_a_session_whose_login_is_ended_while_it_gets_a_new_handle_is_dead(
    interrupted, clock, ending, renew
):
    jam = interrupted
    for number in itertools.count():
        browser = remembered(jam, clock, a_name())
        before, happened = at_call(number, functools.partial(ending, jam, browser))
        jam.store.before_each_call(before)
        with contextlib.suppress(CredentialError):
            renew(jam, browser.handle)
        jam.store.let_be()
        if not happened:
            assert number > 0
            return
        assert jam.sessions.list(browser.subject) == [], number
        assert jam.logins.list(browser.subject) == [], number


@endings
def test_asvs_7_4_1_a_session_that_gets_a_new_handle_before_every_step_of_the_ending_is_dead(
    interrupted, clock, ending
):
    jam = interrupted
    browser = remembered(jam, clock, a_name())
    handles = [browser.handle]

    def go_on():
        with contextlib.suppress(CredentialError):
            handles.append(jam.sessions.rework(handles[-1]))
        return True

    jam.store.before_each_call(go_on)
    ending(jam, browser)
    jam.store.let_be()
    assert len(handles) > 1
    assert not any(jam.sessions.get(handle) for handle in handles)
    assert jam.logins.list(browser.subject) == []


@renewals
def test_asvs_7_4_1_who_signs_out_with_the_handle_that_is_just_replaced_is_signed_out_if_it_was_still_good(
    interrupted, clock, renew
):
    jam = interrupted
    was_good = []
    for number in itertools.count():
        browser = remembered(jam, clock, a_name())

        def sign_out(browser=browser):
            if jam.sessions.get(browser.handle) is not None:
                was_good.append(browser.subject)
            end_own_by_handle(jam, browser)

        before, happened = at_call(number, sign_out)
        jam.store.before_each_call(before)
        with contextlib.suppress(CredentialError):
            renew(jam, browser.handle)
        jam.store.let_be()
        if not happened:
            break
        assert browser.subject not in was_good or jam.sessions.list(browser.subject) == [], number
    assert was_good


@renewals
def test_asvs_7_4_1_nothing_is_left_of_what_is_said_to_be_signed_out_whatever_handle_it_has_by_then(
    interrupted, clock, renew
):
    jam = interrupted
    said = 0
    for number in itertools.count():
        browser = remembered(jam, clock, a_name())
        before, happened = at_call(number, functools.partial(renew, jam, browser.handle))
        jam.store.before_each_call(before)
        ended = jam.logins.end_own([browser.handle], [])
        jam.store.let_be()
        if not happened:
            break
        if ended:
            said += 1
            assert jam.sessions.list(browser.subject) == [], number
            assert jam.logins.list(browser.subject) == [], number
    assert said > 0


# -- all at once --------------------------------------------------------------------------------------------


def race(jam, browser, act, renew):
    """End a login while another thread keeps on giving its session a new handle; the last one that it got."""
    handles, stop, started = [browser.handle], threading.Event(), threading.Event()

    def go_on():
        with contextlib.suppress(JamError):
            while not stop.is_set():
                handles.append(renew(jam, handles[-1]))
                started.set()
        started.set()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        assert started.wait(PATIENCE)
        act(jam, browser)
    finally:
        stop.set()
        thread.join(PATIENCE)
    return handles


@endings
def test_asvs_7_4_1_no_session_outruns_the_end_of_its_login(jam, clock, ending):
    until = time.monotonic() + RACING
    while time.monotonic() < until:
        browser = remembered(jam, clock, a_name())
        handles = race(jam, browser, ending, rework)
        assert len(handles) > 1
        assert jam.sessions.get(handles[-1]) is None
        assert jam.logins.list(browser.subject) == []


def test_asvs_7_4_1_no_session_outruns_the_end_of_its_login_by_ending_all_others(jam, clock):
    until = time.monotonic() + RACING
    while time.monotonic() < until:
        subject = a_name()
        browser = Browser(subject, jam.sessions.create(subject), "", "", "")
        browser.family = login_id(jam, subject)
        handles = race(jam, browser, end_as_listed_before, end_others)
        assert len(handles) > 1
        assert jam.sessions.get(handles[-1]) is None
        assert jam.logins.list(subject) == []


# -- the name of a login ------------------------------------------------------------------------------------


def test_a_login_keeps_its_name_when_its_session_gets_a_new_handle(jam):
    subject = a_name()
    handle = jam.sessions.create(subject)
    name = login_id(jam, subject)
    for renew in RENEWALS.values():
        handle = renew(jam, handle)
        assert login_id(jam, subject) == jam.sessions.get(handle).login_id == name


def test_a_remembered_browsers_login_keeps_its_name_when_its_session_gets_a_new_handle(jam, clock):
    browser = remembered(jam, clock, a_name())
    name = login_id(jam, browser.subject)
    handle = browser.handle
    for renew in (rework, confirm, end_others, rework):
        handle = renew(jam, handle)
        assert login_id(jam, browser.subject) == name


def test_a_remembered_browsers_login_keeps_its_name_when_it_is_restored(jam):
    subject = a_name()
    token, family = jam.logins.remember(subject)
    jam.sessions.create(subject, family_id=family)
    name = login_id(jam, subject)
    for _ in range(3):
        handle, token, _ = jam.logins.restore(token)
        assert login_id(jam, subject) == name
        jam.sessions.delete(handle)
        assert login_id(jam, subject) == name


@renewals
def test_the_name_that_was_listed_before_ends_the_login_under_its_new_handle(jam, clock, renew):
    for make in (lambda subject: jam.sessions.create(subject), lambda subject: remembered(jam, clock, subject).handle):
        subject = a_name()
        handle = make(subject)
        name = login_id(jam, subject)
        handle = renew(jam, handle)
        assert jam.logins.end(subject, name) is True
        assert jam.sessions.get(handle) is None
        assert jam.logins.list(subject) == []


def test_another_login_of_the_same_person_goes_on_when_one_is_ended(jam, clock):
    subject = a_name()
    browser, other = remembered(jam, clock, subject), jam.sessions.create(subject)
    jam.logins.end(subject, browser.family)
    other = rework(jam, other)
    assert jam.sessions.get(other) is not None
    assert end_others(jam, other)
