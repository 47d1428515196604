"""Logins: browsers that are remembered and restored, listed and ended, on every engine."""

import contextlib
import dataclasses
import functools
import itertools
import multiprocessing
import secrets
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import timedelta

import pytest

from jam import Jam
from jam.errors import (
    CredentialError,
    InvalidValue,
    JamError,
    RefreshTokenReused,
    SessionInvalid,
    StoreUnavailable,
    TokenExpired,
    TokenInvalid,
    TokenRevoked,
)
from jam.events import FamilyEnded, RefreshReused, SessionEnded, SubjectRevoked
from jam.stores import open_store
from jam.testing import MovableClock
from tests.credentials.conftest import SERVERS

DAY = 86400
LAPTOP = {"user_agent": "Firefox", "address": "192.0.2.7"}
TABS = 10


@pytest.fixture
def url(shared_url):
    return shared_url


@pytest.fixture
def jam(secret, clock, url):
    jam = Jam({"secret": secret, "store": url}, clock=clock)
    yield jam
    jam.store.close()


@pytest.fixture
def here(secret, clock):
    """One that keeps everything in this process, for what does not depend on the engine."""
    return Jam({"secret": secret}, clock=clock)


@pytest.fixture
def alice():
    """A name of this test's own: the engines are shared."""
    return f"alice-{secrets.token_hex(6)}"


@dataclasses.dataclass
class Browser:
    """What a browser keeps for a site: the session's cookie, and the one that remembers it."""

    handle: str
    token: str
    family: str


def signed_in(jam, subject, device=LAPTOP, **options):
    token, family = jam.logins.remember(subject, device=device, **options)
    return Browser(jam.sessions.create(subject, device=device, family_id=family), token, family)


def restored(jam, browser, device=None):
    """Open a browser again that has lost its session."""
    browser.handle, browser.token, identity = jam.logins.restore(browser.token, device=device)
    return identity


def is_live(jam, handle):
    return jam.sessions.get(handle) is not None


def is_remembered(jam, token):
    try:
        jam.remember_me.verify(token)
    except CredentialError:
        return False
    return True


# -- remembering and restoring ------------------------------------------------------------------------------


def test_a_remembered_browser_gets_a_session_of_the_same_person(jam, alice, clock):
    browser = signed_in(jam, alice)
    clock.move(2 * DAY)
    identity = restored(jam, browser)
    assert (identity.subject, identity.method) == (alice, "session")
    assert jam.sessions.get(browser.handle).subject == alice


def test_asvs_7_5_1_a_restored_session_is_not_fresh_and_remembers_when_and_how_the_person_signed_in(jam, alice, clock):
    then = clock.now
    browser = signed_in(jam, alice, amr=["pwd", "otp"])
    clock.move(2 * DAY)
    identity = restored(jam, browser)
    assert identity.fresh is False
    assert (identity.authenticated_at, identity.amr) == (then, ("pwd", "otp"))


def test_asvs_7_2_2_every_restoring_gives_another_handle_and_another_token(jam, alice, clock):
    browser = signed_in(jam, alice)
    seen = {browser.handle, browser.token}
    for _ in range(5):
        clock.move(DAY)
        restored(jam, browser)
        seen |= {browser.handle, browser.token}
    assert len(seen) == 12


def test_a_restored_session_shows_the_browser_as_it_is_now(here, alice, clock):
    browser = signed_in(here, alice)
    clock.move(DAY)
    restored(here, browser, {"user_agent": "Firefox 2", "address": "192.0.2.9"})
    assert here.sessions.get(browser.handle).device == {"user_agent": "Firefox 2", "address": "192.0.2.9"}


def test_asvs_7_2_3_nothing_in_the_store_or_the_token_is_enough_to_make_a_restored_handle(jam, alice):
    browser = signed_in(jam, alice)
    restored(jam, browser)
    secret = browser.handle.partition(".")[2]
    record = jam.store.get("session", browser.handle.partition(".")[0], jam.clock()).record
    assert len(secret) == 43
    assert secret not in repr(record)
    assert secret not in browser.token


def test_browsers_of_one_person_are_restored_to_sessions_of_their_own(jam, alice):
    laptop, phone = signed_in(jam, alice), signed_in(jam, alice)
    restored(jam, laptop)
    restored(jam, phone)
    assert laptop.handle != phone.handle


# -- how long -----------------------------------------------------------------------------------------------


def test_asvs_7_3_2_no_rotation_extends_for_how_long_a_browser_is_remembered(jam, alice, clock):
    browser = signed_in(jam, alice, lifetime=10 * DAY)
    for _ in range(9):
        clock.move(DAY)
        restored(jam, browser)
    clock.move(DAY)
    with pytest.raises(TokenExpired):
        jam.logins.restore(browser.token)


def test_asvs_7_3_2_a_restored_session_ends_when_its_browser_is_forgotten_at_the_latest(jam, alice, clock):
    browser = signed_in(jam, alice, lifetime=2 * DAY)
    clock.move(2 * DAY - 60)
    identity = restored(jam, browser)
    assert identity.expires_at == clock.now + 60
    clock.move(60)
    assert not is_live(jam, browser.handle)


def test_asvs_7_3_2_a_restored_session_has_an_end_of_its_own_too(jam, alice, clock):
    browser = signed_in(jam, alice)
    clock.move(2 * DAY)
    assert restored(jam, browser).expires_at == clock.now + DAY


def test_asvs_7_3_1_a_restored_session_idles_out(jam, alice, clock):
    browser = signed_in(jam, alice)
    restored(jam, browser)
    clock.move(3600)
    assert not is_live(jam, browser.handle)


def test_asvs_7_3_1_a_browser_that_is_not_used_for_long_is_forgotten_if_that_is_set(secret, clock):
    jam = Jam({"secret": secret, "remember_me": {"idle_for": 30 * DAY}}, clock=clock)
    browser = signed_in(jam, "alice")
    clock.move(29 * DAY)
    restored(jam, browser)
    clock.move(30 * DAY)
    with pytest.raises(TokenInvalid):
        jam.logins.restore(browser.token)


@pytest.mark.parametrize("lifetime", [DAY, float(DAY), timedelta(days=1)])
def test_for_how_long_may_be_said_at_the_sign_in(here, alice, clock, lifetime):
    browser = signed_in(here, alice, lifetime=lifetime)
    clock.move(DAY - 1)
    restored(here, browser)
    clock.move(1)
    assert not is_remembered(here, browser.token)


@pytest.mark.parametrize("lifetime", [0, -1, 366 * DAY, timedelta(days=366), float("nan"), float("inf"), True, "1d"])
def test_a_lifetime_that_is_longer_than_the_configured_one_or_nonsense_is_refused(here, alice, lifetime):
    with pytest.raises(InvalidValue):
        here.logins.remember(alice, lifetime=lifetime)
    assert here.logins.list(alice) == []


# -- what is no such token ----------------------------------------------------------------------------------

HOSTILE = [
    "",
    "x",
    "..",
    "a.b.c",
    "\0",
    "é" * 50,
    "\ud800",
    "eyJhbGciOiJub25lIn0.e30.",
    "A" * 100_000,
    "alice|0123456789abcdef",
    "\r\nSet-Cookie: x=y",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_asvs_7_2_1_what_we_did_not_sign_restores_nobody_and_ends_nothing(here, alice, text):
    browser = signed_in(here, alice)
    with pytest.raises(TokenInvalid):
        here.logins.restore(text)
    here.logins.end_own([text], [text])
    assert here.logins.end(alice, text) is False
    assert is_live(here, browser.handle)
    assert is_remembered(here, browser.token)


def test_asvs_7_2_1_an_altered_token_restores_nobody(here, alice):
    token = signed_in(here, alice).token
    head, body, mac = token.split(".")
    for wrong in (
        f"{head}.{body}.{mac[::-1]}",
        f"{head}.{body[::-1]}.{mac}",
        f"{head}.{body}.",
        token + "A",
        token[1:],
    ):
        with pytest.raises(TokenInvalid):
            here.logins.restore(wrong)


def test_asvs_9_2_2_other_kinds_of_tokens_restore_nobody(here, alice):
    for token in (
        here.access_tokens.issue(alice),
        here.refresh_tokens.issue(alice),
        here.gen_jwt_token({"sub": alice}),
    ):
        with pytest.raises(TokenInvalid):
            here.logins.restore(token)


def test_asvs_9_2_2_a_token_that_remembers_a_browser_is_nothing_else(here, alice):
    token = signed_in(here, alice).token
    for verify in (
        here.access_tokens.verify,
        here.refresh_tokens.verify,
        here.refresh_tokens.rotate,
        here.sessions.verify,
    ):
        with pytest.raises(CredentialError):
            verify(token)


def test_browsers_stay_remembered_when_the_secret_is_replaced(secret, clock, tmp_path):
    store = f"sqlite:///{tmp_path}/jam.sqlite3"
    browser = signed_in(Jam({"secret": secret, "store": store}, clock=clock), "alice")
    clock.move(DAY)
    replaced = {"secret": secrets.token_urlsafe(64), "secret_fallbacks": [secret], "store": store}
    assert restored(Jam(replaced, clock=clock), browser).subject == "alice"
    forgotten = {"secret": secrets.token_urlsafe(64), "store": store}
    with pytest.raises(TokenInvalid):
        Jam(forgotten, clock=clock).logins.restore(browser.token)


# -- ten tabs -----------------------------------------------------------------------------------------------


def among_threads(*acts):
    """Do it all at once; the results, or the errors of Jam's that came instead."""
    barrier = threading.Barrier(len(acts))

    def run(act):
        barrier.wait(30)
        try:
            return act()
        except JamError as error:
            return error

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(run, acts))


_barriers = []


def _remember_barrier(barrier):
    _barriers[:] = [barrier]


@functools.cache
def _jam_of_this_process(secret, url):
    return Jam({"secret": secret, "store": url}, clock=MovableClock())


def _tabs_of_a_process(secret, url, now, token, tabs):
    jam = _jam_of_this_process(secret, url)
    jam.clock.now = now
    jam.store.marks("", "", now)

    def tab(_):
        _barriers[0].wait(30)
        return jam.logins.restore(token)[:2]

    with ThreadPoolExecutor(tabs) as pool:
        return list(pool.map(tab, range(tabs)))


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(TABS)
    with ProcessPoolExecutor(5, context, initializer=_remember_barrier, initargs=(barrier,)) as pool:
        yield pool


def test_ten_tabs_that_are_restored_at_once_end_in_one_session_and_one_successor(jam, alice):
    for _ in range(5):
        browser = signed_in(jam, alice)
        jam.sessions.delete(browser.handle)
        tabs = among_threads(*[lambda browser=browser: jam.logins.restore(browser.token)[:2]] * TABS)
        ((handle, successor),) = set(tabs)
        assert [session.id for session in jam.sessions.list(alice)] == [handle.partition(".")[0]]
        assert is_remembered(jam, successor)
        (login,) = jam.logins.list(alice, handle=handle)
        assert login.current
        jam.logins.end_own([handle], [successor])


@pytest.mark.parametrize("shared_url", ["SQLite", *SERVERS], indirect=True)
def test_ten_tabs_in_five_processes_end_in_one_session_and_one_successor(jam, alice, secret, url, processes):
    for _ in range(3):
        browser = signed_in(jam, alice)
        jam.sessions.delete(browser.handle)
        asked = [
            processes.submit(_tabs_of_a_process, secret, url, jam.clock.now, browser.token, TABS // 5) for _ in range(5)
        ]
        ((handle, successor),) = {tab for one in asked for tab in one.result(60)}
        assert [session.id for session in jam.sessions.list(alice)] == [handle.partition(".")[0]]
        assert is_remembered(jam, successor)
        jam.logins.end_own([handle], [successor])


def test_tabs_that_come_a_little_later_get_the_same_session(jam, alice, clock):
    browser = signed_in(jam, alice)
    jam.sessions.delete(browser.handle)
    tabs = set()
    for _ in range(TABS):
        tabs.add(jam.logins.restore(browser.token)[:2])
        clock.move(5)
    assert len(tabs) == 1
    assert len(jam.sessions.list(alice)) == 1


def test_a_browser_that_is_closed_and_opened_again_has_one_session_and_not_two(jam, alice, clock):
    """Its cookie went when it was closed; the session of before lives on the server, and nobody can use it."""
    browser = signed_in(jam, alice)
    before = browser.handle
    clock.move(300)
    restored(jam, browser)
    assert not is_live(jam, before)
    assert [login.remembered for login in jam.logins.list(alice)] == [True]


def test_asvs_7_2_4_a_tab_that_comes_late_does_not_bring_a_superseded_handle_back(jam, alice, clock):
    browser = signed_in(jam, alice)
    jam.sessions.delete(browser.handle)
    token = browser.token
    restored(jam, browser)
    new = jam.sessions.rework(browser.handle, authenticated_at=clock.now, fresh=True)
    with contextlib.suppress(CredentialError):
        jam.logins.restore(token)  # a tab of before, still under way
    assert not is_live(jam, browser.handle)
    assert len(jam.sessions.list(alice)) == 1
    assert is_live(jam, new)


# -- theft --------------------------------------------------------------------------------------------------


def test_a_token_that_comes_back_after_the_overlap_ends_its_family(jam, alice, clock, events):
    browser = signed_in(jam, alice)
    stolen = browser.token
    restored(jam, browser)
    clock.move(60)
    with pytest.raises(RefreshTokenReused):
        jam.logins.restore(stolen)
    with pytest.raises(TokenRevoked):
        jam.logins.restore(browser.token)
    assert [event.family_id for event in events if isinstance(event, RefreshReused)] == [browser.family]


def test_a_theft_that_is_noticed_ends_the_sessions_that_came_of_the_token_too(jam, alice, clock):
    """Whoever was first has a session; nobody can tell whether that is the thief."""
    browser = signed_in(jam, alice)
    jam.sessions.delete(browser.handle)
    handle, _, _ = jam.logins.restore(browser.token)
    clock.move(120)
    with pytest.raises(RefreshTokenReused):
        jam.logins.restore(browser.token)
    assert not is_live(jam, handle)
    assert jam.logins.list(alice) == []


def test_a_theft_in_one_browser_leaves_the_others_alone(jam, alice, clock):
    stolen, other = signed_in(jam, alice), signed_in(jam, alice)
    first = stolen.token
    restored(jam, stolen)
    clock.move(120)
    with pytest.raises(RefreshTokenReused):
        jam.logins.restore(first)
    assert is_live(jam, other.handle)
    assert is_remembered(jam, other.token)


# -- lists --------------------------------------------------------------------------------------------------


def test_asvs_7_5_2_a_list_shows_device_address_and_when_it_was_last_seen(jam, alice, clock):
    then = clock.now
    browser = signed_in(jam, alice)
    clock.move(600)
    jam.sessions.get(browser.handle)
    (login,) = jam.logins.list(alice)
    assert (login.subject, login.device, login.remembered) == (alice, LAPTOP, True)
    assert (login.signed_in_at, login.last_seen_at) == (then, clock.now)
    assert login.ends_at == then + 365 * DAY


def test_asvs_7_5_2_a_login_that_is_not_remembered_ends_with_its_session(here, alice, clock):
    here.sessions.create(alice)
    (login,) = here.logins.list(alice)
    assert (login.remembered, login.ends_at) == (False, clock.now + DAY)
    clock.move(3600)
    assert here.logins.list(alice) == []


def test_the_callers_own_login_is_marked(jam, alice):
    mine, _ = signed_in(jam, alice), signed_in(jam, alice)
    marked = {login.id: login.current for login in jam.logins.list(alice, handle=mine.handle)}
    assert sorted(marked.values()) == [False, True]
    assert marked[jam.sessions.get(mine.handle).login_id] is True


def test_without_a_live_handle_of_ones_own_no_login_is_marked(here, alice):
    browser = signed_in(here, alice)
    others = here.sessions.create(f"bob-{alice}")
    for handle in (None, "x", others):
        assert [login.current for login in here.logins.list(alice, handle=handle)] == [False]
    assert is_live(here, browser.handle)


def test_what_was_used_last_comes_first(jam, alice, clock):
    handles = []
    for _ in range(3):
        handles.append(jam.sessions.create(alice))
        clock.move(100)
    jam.sessions.get(handles[0])
    expected = [handles[0], handles[2], handles[1]]
    assert [login.id for login in jam.logins.list(alice)] == [handle.partition(".")[0] for handle in expected]


def test_a_remembered_browser_without_a_session_is_listed(jam, alice, clock):
    then = clock.now
    browser = signed_in(jam, alice)
    clock.move(2 * DAY)
    (login,) = jam.logins.list(alice)
    assert (login.id, login.remembered, login.device) == (browser.family, True, LAPTOP)
    assert (login.signed_in_at, login.last_seen_at, login.ends_at) == (then, then, then + 365 * DAY)


def test_nobody_elses_logins_are_listed(jam, alice):
    signed_in(jam, f"bob-{alice}")
    assert jam.logins.list(alice) == []


def test_no_list_shows_what_signs_somebody_in(here, alice):
    browser = signed_in(here, alice)
    here.logins.restore(browser.token)
    shown = repr(here.logins.list(alice, handle=browser.handle))
    assert browser.handle.partition(".")[2] not in shown
    assert browser.token not in shown


def test_more_logins_than_one_page_holds_are_all_listed_and_ended(secret, clock):
    jam = Jam({"secret": secret}, clock=clock)
    handles = [jam.sessions.create("alice") for _ in range(2001)]
    last = max(handle.partition(".")[0] for handle in handles)
    assert len({login.id for login in jam.logins.list("alice")}) == 2001
    assert jam.logins.end("alice", last) is True
    assert len(jam.logins.list("alice")) == 2000


# -- ending -------------------------------------------------------------------------------------------------


def test_asvs_7_5_2_one_login_is_ended_with_what_remembers_it(jam, alice):
    laptop, phone = signed_in(jam, alice), signed_in(jam, alice)
    assert jam.logins.end(alice, laptop.handle.partition(".")[0]) is True
    assert not is_live(jam, laptop.handle)
    assert not is_remembered(jam, laptop.token)
    assert is_live(jam, phone.handle)
    assert is_remembered(jam, phone.token)


def test_every_listed_login_can_be_ended_by_the_name_it_is_listed_under(jam, alice, clock):
    signed_in(jam, alice)
    clock.move(2 * DAY)  # at rest
    signed_in(jam, alice)
    jam.sessions.create(alice)
    for left in (2, 1, 0):
        assert jam.logins.end(alice, jam.logins.list(alice)[0].id) is True
        assert len(jam.logins.list(alice)) == left


def test_a_login_is_ended_once(jam, alice):
    session_id = signed_in(jam, alice).handle.partition(".")[0]
    assert jam.logins.end(alice, session_id) is True
    assert jam.logins.end(alice, session_id) is False


def test_asvs_8_2_2_nobody_ends_somebody_elses_login(jam, alice):
    browser, mallory = signed_in(jam, alice), f"mallory-{alice}"
    for name in (browser.handle.partition(".")[0], browser.family):
        assert jam.logins.end(mallory, name) is False
    assert is_live(jam, browser.handle)
    assert is_remembered(jam, browser.token)


def test_the_name_under_which_a_browser_was_listed_at_rest_ends_it_also_when_it_is_back(jam, alice, clock):
    browser = signed_in(jam, alice)
    clock.move(2 * DAY)
    (listed,) = jam.logins.list(alice)
    restored(jam, browser)
    assert jam.logins.end(alice, listed.id) is True
    assert not is_live(jam, browser.handle)
    assert jam.logins.list(alice) == []


def test_the_name_under_which_a_browser_was_listed_ends_it_also_when_its_session_is_another_now(jam, alice, clock):
    """The page with the list stays open for longer than a session idles."""
    browser = signed_in(jam, alice)
    (listed,) = jam.logins.list(alice)
    clock.move(2 * DAY)
    restored(jam, browser)
    assert jam.logins.end(alice, listed.id) is True
    assert not is_live(jam, browser.handle)
    assert jam.logins.list(alice) == []


def test_asvs_7_4_3_all_but_this_login_are_ended_and_this_one_goes_on_under_a_new_handle(jam, alice):
    mine, other, third = signed_in(jam, alice), signed_in(jam, alice), jam.sessions.create(alice)
    handle, token = jam.logins.end_others(mine.handle)
    assert [is_live(jam, one) for one in (mine.handle, other.handle, third, handle)] == [False, False, False, True]
    assert [is_remembered(jam, one) for one in (mine.token, other.token, token)] == [False, False, True]
    (login,) = jam.logins.list(alice, handle=handle)
    assert (login.current, login.remembered) == (True, True)


def test_asvs_7_4_3_what_a_session_is_stays_when_all_others_are_ended(jam, alice, clock):
    old = jam.sessions.create(alice, {"a": 1}, roles=["admin"], scopes=["x"], amr=["pwd"], device=LAPTOP)
    before = jam.sessions.get(old)
    clock.move(600)
    new, token = jam.logins.end_others(old)
    after = jam.sessions.get(new)
    for name in ("data", "roles", "scopes", "amr", "authenticated_at", "fresh", "device", "ends_at"):
        assert getattr(after, name) == getattr(before, name), name
    assert token is None


def test_asvs_7_3_2_ending_all_others_does_not_extend_for_how_long_a_browser_is_remembered(jam, alice, clock):
    browser = signed_in(jam, alice, lifetime=10 * DAY)
    clock.move(5 * DAY)
    restored(jam, browser)
    browser.handle, browser.token = jam.logins.end_others(browser.handle)
    clock.move(5 * DAY - 1)
    restored(jam, browser)
    clock.move(1)
    assert not is_remembered(jam, browser.token)
    assert not is_live(jam, browser.handle)


def test_a_restored_session_is_no_fresher_after_ending_all_others(here, alice):
    browser = signed_in(here, alice)
    restored(here, browser)
    handle, _ = here.logins.end_others(browser.handle)
    assert here.sessions.verify(handle).fresh is False


@pytest.mark.parametrize("handle", ["", "x", "\0", "é" * 68, None])
def test_who_has_no_session_ends_nobody_elses(here, alice, handle):
    browser = signed_in(here, alice)
    with pytest.raises(SessionInvalid):
        here.logins.end_others(handle)
    assert is_live(here, browser.handle)


def test_asvs_7_4_5_all_logins_of_a_person_are_ended_and_nobody_elses(jam, alice):
    browsers, other = [signed_in(jam, alice) for _ in range(3)], signed_in(jam, f"bob-{alice}")
    jam.logins.end_all(alice)
    assert not any(is_live(jam, one.handle) or is_remembered(jam, one.token) for one in browsers)
    assert jam.logins.list(alice) == []
    assert is_live(jam, other.handle)
    assert is_remembered(jam, other.token)


def test_asvs_7_4_5_everybodys_logins_are_ended(secret, clock):
    jam = Jam({"secret": secret}, clock=clock)
    browsers = [signed_in(jam, name) for name in ("alice", "bob")]
    jam.logins.end_all(None)
    assert not any(is_live(jam, one.handle) or is_remembered(jam, one.token) for one in browsers)


def test_ending_all_logins_leaves_api_tokens_alone_and_revoking_all_does_not(jam, alice):
    browser, token = signed_in(jam, alice), jam.access_tokens.issue(alice)
    jam.logins.end_all(alice)
    assert jam.access_tokens.verify(token).subject == alice
    browser = signed_in(jam, alice)
    jam.revoke_all(alice)
    assert not is_live(jam, browser.handle)
    assert not is_remembered(jam, browser.token)
    with pytest.raises(TokenRevoked):
        jam.access_tokens.verify(token)


def test_asvs_7_4_1_what_a_browser_brought_is_ended(jam, alice):
    browser, other = signed_in(jam, alice), signed_in(jam, alice)
    jam.logins.end_own([browser.handle], [browser.token])
    assert not is_live(jam, browser.handle)
    assert not is_remembered(jam, browser.token)
    assert is_live(jam, other.handle)
    assert is_remembered(jam, other.token)


def test_asvs_7_4_1_a_session_takes_what_remembers_its_browser_along(jam, alice):
    browser = signed_in(jam, alice)
    jam.logins.end_own([browser.handle], [])
    assert not is_remembered(jam, browser.token)


def test_asvs_7_4_1_a_token_takes_the_sessions_of_its_browser_along(jam, alice):
    browser = signed_in(jam, alice)
    jam.logins.end_own([], [browser.token])
    assert not is_live(jam, browser.handle)


def test_asvs_7_4_1_a_superseded_token_ends_its_browser_all_the_same(jam, alice, clock):
    browser = signed_in(jam, alice)
    first = browser.token
    clock.move(2 * DAY)
    restored(jam, browser)
    clock.move(600)
    jam.logins.end_own([], [first])
    assert not is_live(jam, browser.handle)
    assert not is_remembered(jam, browser.token)


def test_asvs_7_4_1_of_several_browsers_in_one_request_all_are_ended(jam, alice):
    first, second = signed_in(jam, alice), signed_in(jam, f"bob-{alice}")
    jam.logins.end_own(["x", first.handle, second.handle], ["y", first.token, second.token])
    assert not any(is_live(jam, one.handle) or is_remembered(jam, one.token) for one in (first, second))


def test_asvs_16_3_3_what_is_ended_is_told(secret, clock):
    jam = Jam({"secret": secret}, clock=clock)
    browser = signed_in(jam, "alice")
    heard = []
    jam.events.subscribe(heard.append)
    jam.logins.end("alice", browser.handle.partition(".")[0])
    jam.logins.end_all("alice")
    assert {type(event) for event in heard} == {SessionEnded, FamilyEnded, SubjectRevoked}
    assert not any(browser.token in repr(event) for event in heard)


# -- one thing at a time, in every order --------------------------------------------------------------------


class Interrupted:
    """A real store, before one call of which something else happens."""

    def __init__(self, store):
        self._store = store
        self._left, self._act = 0, None

    def __getattr__(self, name):
        found = getattr(self._store, name)
        if name not in {"add", "get", "marks", "swap", "take", "remove", "advance", "list"}:
            return found

        def verb(*args, **options):
            if self._act is not None:
                self._left -= 1
                if self._left < 0:
                    act, self._act = self._act, None
                    act()
            return found(*args, **options)

        return verb

    def before_call(self, number, act):
        self._left, self._act = number, act

    def has_happened(self):
        happened, self._act = self._act is None, None
        return happened


@pytest.fixture(params=["memory", "SQLite"])
def interrupted(request, secret, clock, tmp_path):
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/interrupted.sqlite3"
    jam = Jam({"secret": secret}, clock=clock, store=Interrupted(open_store(url)))
    yield jam
    jam.store.close()


def suppressing(act):
    def suppressed():
        with contextlib.suppress(CredentialError):
            act()

    return suppressed


def in_every_order(jam, set_up, act, meanwhile, check):
    """Let something happen before the first call that ``act`` makes of the store, before the second, and so on."""
    for number in itertools.count():
        subject = f"alice-{secrets.token_hex(6)}"
        scene = set_up(jam, subject)
        jam.store.before_call(number, suppressing(functools.partial(meanwhile, jam, scene)))
        try:
            result = act(jam, scene)
        except CredentialError as error:
            result = error
        if not jam.store.has_happened():
            assert number > 0
            return
        check(jam, scene, result, number)


@dataclasses.dataclass
class Scene:
    subject: str
    browser: Browser
    other: str  # another session of the same person
    first: str


def scene(jam, subject):
    browser = signed_in(jam, subject)
    jam.sessions.delete(browser.handle)
    return Scene(subject, browser, jam.sessions.create(subject), browser.token)


def live_scene(jam, subject):
    browser = signed_in(jam, subject)
    return Scene(subject, browser, jam.sessions.create(subject), browser.token)


def restore(jam, scene):
    with contextlib.suppress(CredentialError):
        return jam.logins.restore(scene.first)


ENDINGS = {
    "end": (lambda jam, scene: jam.logins.end(scene.subject, scene.browser.family), 1),
    "end_own": (lambda jam, scene: jam.logins.end_own([], [scene.first]), 1),
    "end_all": (lambda jam, scene: jam.logins.end_all(scene.subject), 0),
    "end_all of everyone": (lambda jam, scene: jam.logins.end_all(None), 0),
    "revoke_all": (lambda jam, scene: jam.revoke_all(scene.subject), 0),
    "end_others": (lambda jam, scene: jam.logins.end_others(scene.other), 1),
}  # fmt: skip
endings = pytest.mark.parametrize(("end", "left"), ENDINGS.values(), ids=ENDINGS)


def nothing_is_left_but(left):
    def check(jam, scene, result, number):
        assert len(jam.logins.list(scene.subject)) == left, number
        assert len(jam.sessions.list(scene.subject)) == left, number
        if isinstance(result, tuple) and len(result) == 3:
            assert not is_live(jam, result[0]), number
            assert not is_remembered(jam, result[1]), number

    return check


@endings
def test_a_login_that_is_ended_while_it_is_restored_is_ended(interrupted, end, left):
    in_every_order(interrupted, scene, restore, end, nothing_is_left_but(left))


@endings
def test_a_login_that_is_restored_while_it_is_ended_is_ended(interrupted, end, left):
    in_every_order(interrupted, scene, end, restore, nothing_is_left_but(left))


def test_a_thief_who_is_noticed_while_being_restored_gets_no_session(interrupted, clock):
    def stolen_scene(jam, subject):
        played = live_scene(jam, subject)
        restored(jam, played.browser)
        clock.move(120)
        return played

    def go_on(jam, scene):
        with contextlib.suppress(CredentialError):
            return jam.logins.restore(scene.browser.token)

    in_every_order(interrupted, stolen_scene, go_on, restore, nothing_is_left_but(1))
    in_every_order(interrupted, stolen_scene, restore, go_on, nothing_is_left_but(1))


def test_a_browser_that_is_opened_again_while_a_tab_of_before_is_under_way_has_no_two_sessions(interrupted):
    def opened_again(jam, subject):
        played = scene(jam, subject)
        restored(jam, played.browser)
        return played

    def open_again(jam, scene):
        return jam.logins.restore(scene.browser.token)

    def check(jam, scene, result, number):
        families = [one.family_id for one in jam.sessions.list(scene.subject) if one.family_id]
        assert len(families) <= 1, number

    in_every_order(interrupted, opened_again, open_again, restore, check)
    in_every_order(interrupted, opened_again, restore, open_again, check)


def test_ending_all_others_brings_nobody_back_who_was_ended_meanwhile(interrupted):
    in_every_order(
        interrupted,
        live_scene,
        lambda jam, scene: jam.logins.end_others(scene.browser.handle),
        lambda jam, scene: jam.revoke_all(scene.subject),
        nothing_is_left_but(0),
    )


def test_ending_all_others_brings_nobody_back_who_signed_out_meanwhile(interrupted):
    signed_out = set()

    def sign_out(jam, scene):
        if is_live(jam, scene.browser.handle):
            signed_out.add(scene.subject)
        jam.logins.end_own([scene.browser.handle], [scene.first])

    def check(jam, scene, result, number):
        if scene.subject in signed_out:
            assert isinstance(result, CredentialError) or not is_live(jam, result[0]), number

    in_every_order(
        interrupted, live_scene, lambda jam, scene: jam.logins.end_others(scene.browser.handle), sign_out, check
    )
    assert signed_out


def test_of_two_who_end_all_others_at_once_at_most_one_is_left(interrupted):
    def check(jam, scene, result, number):
        assert len(jam.sessions.list(scene.subject)) <= 1, number
        assert len(jam.logins.list(scene.subject)) <= 1, number

    in_every_order(
        interrupted,
        live_scene,
        lambda jam, scene: jam.logins.end_others(scene.browser.handle),
        lambda jam, scene: jam.logins.end_others(scene.other),
        check,
    )


def test_a_login_that_is_said_to_be_ended_is_not_alive_under_a_new_handle(interrupted):
    def check(jam, scene, result, number):
        assert result is False or len(jam.sessions.list(scene.subject)) == 1, number

    in_every_order(
        interrupted,
        live_scene,
        lambda jam, scene: jam.logins.end(scene.subject, scene.other.partition(".")[0]),
        lambda jam, scene: jam.sessions.rework(scene.other, fresh=True),
        check,
    )


# -- all at once --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["end", "end_own", "end_all", "end_others"])
def test_no_session_of_an_ended_login_survives_whoever_was_first(jam, alice, ending):
    end, left = ENDINGS[ending]
    for _ in range(4):
        played = scene(jam, alice)
        *tabs, ended = among_threads(
            *[lambda played=played: jam.logins.restore(played.first)] * 4, lambda played=played: end(jam, played)
        )
        assert not isinstance(ended, JamError)
        for tab in tabs:
            assert isinstance(tab, CredentialError) or not is_live(jam, tab[0])
        assert len(jam.sessions.list(alice)) == len(jam.logins.list(alice)) == left
        jam.logins.end_all(alice)


# -- trouble ------------------------------------------------------------------------------------------------


def test_asvs_16_5_3_a_store_that_cannot_be_asked_is_an_error_and_never_a_session(secret, tmp_path):
    jam = Jam({"secret": secret, "store": f"sqlite:///{tmp_path}/missing/jam.sqlite3"}, clock=MovableClock())
    browser = signed_in(Jam({"secret": secret}, clock=MovableClock()), "alice")
    for act in (
        lambda: jam.logins.remember("alice"),
        lambda: jam.logins.restore(browser.token),
        lambda: jam.logins.list("alice"),
        lambda: jam.logins.end("alice", browser.family),
        lambda: jam.logins.end_own([browser.handle], [browser.token]),
        lambda: jam.logins.end_own([], [browser.token]),
        lambda: jam.logins.end_all("alice"),
        lambda: jam.logins.end_others(browser.handle),
    ):
        with pytest.raises(StoreUnavailable):
            act()
