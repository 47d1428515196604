"""``flask.session`` on Jam's store: read when it is looked at, written when it changed, merged, and gone with the login.

What happens "meanwhile" is another request of the same browser that runs in the middle of a view.
"""

import contextlib
import copy
import io
import itertools
import logging
import os
import secrets
import textwrap
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import requests
from flask import (
    Flask,
    flash,
    get_flashed_messages,
    render_template_string,
    request,
    send_file,
    session,
    stream_with_context,
)
from flask.sessions import SessionMixin
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from jam import Jam
from jam.crypto.handles import bucket_of, new_handle
from jam.errors import ConfigError, InvalidValue, SessionInvalid, StoreUnavailable
from jam.events import SessionConflict
from jam.ext.flask import (
    JWTExtension,
    SessionCheckpoint,
    SessionExtension,
    UserMixin,
    checkpoint,
    confirm_login,
    current_identity,
    current_user,
    end_other_logins,
    login_required,
    login_user,
    logout_user,
)
from jam.stores import open_store
from jam.stores.memory import MemoryStore
from jam.testing import MovableClock
from tests.ext.flask.callers import CROSS_SITE, PAGE, SAME_ORIGIN, UNREACHABLE, answer, bearer, set_cookies, vary
from tests.processes import PYTHON, free_port, serving

VERBS = ("add", "get", "marks", "swap", "take", "remove", "advance", "list", "count_up", "count_back", "count_reset")
WRITES = {"add", "swap", "take", "remove", "advance"}
COOKIE = "sessionId"


class WatchedStore(MemoryStore):
    """Counts its verbs, fails on demand, and lets somebody else come in between."""

    def __init__(self):
        super().__init__()
        self.calls = []
        self.down = set()
        self.before = {}

    @property
    def writes(self):
        return [verb for verb in self.calls if verb in WRITES]


def watched(verb):
    honest = getattr(MemoryStore, verb)

    def act(self, *arguments, **options):
        self.calls.append(verb)
        if verb in self.down:
            raise StoreUnavailable
        hook = self.before.pop(verb, None)
        if hook is not None:
            hook()
        return honest(self, *arguments, **options)

    return act


for _verb in VERBS:
    setattr(WatchedStore, _verb, watched(_verb))


@pytest.fixture
def store():
    return WatchedStore()


@pytest.fixture
def jam(secret, clock, store):
    return Jam({"secret": secret}, store=store, clock=clock)


def page(app, rule):
    """A view for any method; it answers with an empty object if it returns nothing."""

    def register(function):
        def view(**values):
            answered = function(**values)
            return {} if answered is None else answered

        if app.view_functions.get("test_page") is None:
            app.add_url_rule(rule, function.__name__, view, methods=["GET", "POST"])
        else:  # Flask takes no more rules after the first request
            app.test_pages[rule] = view
        return function

    return register


class User(UserMixin):
    def __init__(self, name):
        self.id = name


def set_up(app, jam, **options):
    app.sessions = SessionExtension(jam, app, flask_session=True, **options)

    @page(app, "/untouched")
    def untouched():
        pass

    @page(app, "/whoami")
    def whoami():
        return {"subject": current_identity.subject}

    @page(app, "/read")
    def read():
        return {key: session[key] for key in session if not key.startswith("_")}

    @page(app, "/write/<key>/<value>")
    def write(key, value):
        session[key] = value

    @page(app, "/drop/<key>")
    def drop(key):
        session.pop(key, None)

    @page(app, "/flash/<message>")
    def add_message(message):
        flash(message)

    @page(app, "/flashed")
    def flashed():
        return {"messages": get_flashed_messages()}

    @page(app, "/sign-in/<name>")
    def sign_in(name):
        app.sessions.sign_in(name)

    @page(app, "/remember/<name>")
    def remember(name):
        login_user(User(name), remember=True)

    @page(app, "/sign-out")
    def sign_out():
        logout_user()

    @page(app, "/confirm")
    def confirm():
        confirm_login()

    @page(app, "/end-others")
    def end_others():
        end_other_logins()

    @page(app, "/clear")
    def clear():
        session.clear()
        return {"subject": current_identity.subject}

    app.test_pages = {}

    @app.route("/<path:rule>", methods=["GET", "POST"])
    def test_page(rule):
        return app.test_pages[f"/{rule}"]()

    return app


@pytest.fixture
def app(new_app, jam):
    return set_up(new_app(), jam)


def browser_of(app):
    client = app.test_client()
    client.environ_base["HTTP_SEC_FETCH_SITE"] = "same-origin"
    return client


@pytest.fixture
def browser(app):
    return browser_of(app)


def handle_of(browser, name=COOKIE):
    cookie = browser.get_cookie(name)
    return cookie.value if cookie is not None and cookie.value else None


def with_handle(app, handle):
    client = browser_of(app)
    if handle is not None:
        client.set_cookie(COOKIE, handle)
    return client


def meanwhile(browser, path):
    """Another request of this browser, in the middle of one; the browser has its cookies before the first ends."""
    client = with_handle(browser.application, handle_of(browser))
    response = client.post(path)
    assert response.status_code == 200
    if handle_of(client) != handle_of(browser):
        browser.set_cookie(COOKIE, handle_of(client) or "")
    return response


def during(app, browser, path, rule="/slow"):
    """A page that writes ``mine`` and, before it ends, has the same browser ask for ``path``."""

    @page(app, rule)
    def slow():
        session["mine"] = "slow"
        meanwhile(browser, path)


def values(browser):
    return browser.get("/read").json


def subject(browser):
    return browser.get("/whoami").json["subject"]


# -- opened lazily --------------------------------------------------------------------------------------------


def test_a_route_that_does_not_touch_it_asks_the_store_nothing(app, browser, store):
    browser.post("/write/a/1")
    store.calls.clear()
    response = browser.get("/untouched")
    assert (store.calls, set_cookies(response), vary(response)) == ([], {}, set())
    assert "Cache-Control" not in response.headers


def test_the_first_look_of_a_stranger_sets_no_cookie_and_asks_the_store_nothing(browser, store):
    response = browser.get("/read")
    assert (set_cookies(response), store.calls) == ({}, [])


def test_a_page_that_looked_is_private_and_varies(browser):
    response = browser.get("/read")
    assert "cookie" in vary(response)
    assert response.headers["Cache-Control"] == "private"


def test_a_request_that_only_asks_who_is_calling_reads_the_record_once(browser, store):
    browser.post("/sign-in/alice")
    store.calls.clear()
    assert subject(browser) == "alice"
    assert store.calls == ["get"]


def test_the_caller_and_the_session_are_read_together(app, browser, store):
    @page(app, "/both")
    def both():
        return {"subject": current_identity.subject, "a": session.get("a")}

    browser.post("/sign-in/alice")
    browser.post("/write/a/1")
    store.calls.clear()
    assert browser.get("/both").json == {"subject": "alice", "a": "1"}
    assert store.calls == ["get"]


def test_static_files_cost_nothing(app, browser, store, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    app.static_folder = str(tmp_path)
    browser.post("/write/a/1")
    store.calls.clear()
    with browser.get("/static/a.txt") as response:
        assert (response.status_code, store.calls, set_cookies(response)) == (200, [], {})


def test_it_needs_no_secret_key_of_flasks(secret, clock):
    app = set_up(Flask(__name__), Jam({"secret": secret}, store=WatchedStore(), clock=clock))
    app.testing = True
    browser = browser_of(app)
    browser.post("/write/a/1")
    assert values(browser) == {"a": "1"}


def test_it_needs_a_cookie(jam):
    with pytest.raises(ConfigError, match=r"flask\.session needs a cookie"):
        SessionExtension(jam, header_name="X-Session", cookie_name=None, flask_session=True)


# -- saved only if something changed ----------------------------------------------------------------------------


def test_what_is_written_is_there_in_the_next_request(browser):
    browser.post("/write/a/1")
    assert values(browser) == {"a": "1"}


def test_the_cookie_holds_a_handle_and_nothing_of_what_is_kept(browser):
    browser.post("/write/colour/aubergine")
    assert "aubergine" not in handle_of(browser)
    assert len(handle_of(browser)) < 100


def test_the_store_never_sees_the_handle(jam, browser, store):
    browser.post("/write/a/1")
    record_id, secret_part = handle_of(browser).split(".")
    record = store.get("session", record_id, jam.clock()).record
    assert secret_part.encode() not in record.check
    assert secret_part not in repr(record)


def test_a_request_that_only_reads_never_writes(browser, store):
    browser.post("/write/a/1")
    store.calls.clear()
    response = browser.get("/read")
    assert (store.writes, set_cookies(response)) == ([], {})


def test_writing_the_same_value_again_writes_nothing(browser, store):
    browser.post("/write/a/1")
    store.calls.clear()
    browser.post("/write/a/1")
    assert store.writes == []


def test_modified_without_a_change_writes_nothing(app, browser, store):
    @page(app, "/modified")
    def modified():
        session.modified = True

    browser.post("/write/a/1")
    store.calls.clear()
    browser.post("/modified")
    assert store.writes == []


def test_a_write_costs_one_write(browser, store):
    browser.post("/write/a/1")
    store.calls.clear()
    response = browser.post("/write/b/2")
    assert (store.calls, set_cookies(response)) == (["get", "get", "swap"], {})


def test_a_change_deep_inside_a_value_is_noticed(app, browser):
    @page(app, "/begin")
    def begin():
        session["cart"] = {"items": [{"name": "plum", "tags": ["blue"]}]}

    @page(app, "/change")
    def change():
        session["cart"]["items"][0]["tags"].append("ripe")

    browser.post("/begin")
    browser.post("/change")
    assert values(browser) == {"cart": {"items": [{"name": "plum", "tags": ["blue", "ripe"]}]}}


def test_numbers_as_keys_inside_a_value_are_not_mistaken_for_a_change(app, browser, store):
    """Flask sorts the keys as numbers when it writes them, and as texts when it has read them."""

    @page(app, "/begin")
    def begin():
        session["places"] = {10: "ten", 9: "nine"}

    browser.post("/begin")
    store.calls.clear()
    assert values(browser) == {"places": {"9": "nine", "10": "ten"}}
    assert store.writes == []


def test_one_value_that_changes_leaves_the_others_as_they_are(browser):
    browser.post("/write/a/1")
    browser.post("/write/b/2")
    browser.post("/write/a/3")
    browser.post("/drop/b")
    assert values(browser) == {"a": "3"}


# -- what may be kept ------------------------------------------------------------------------------------------

KEPT = [
    (1, 2),
    b"\x00\xff",
    datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    uuid.UUID(int=7),
    Markup("<b>bold</b>"),
    {"deep": [(b"x", {"u": uuid.UUID(int=8)})], " t": [1]},
    {1: "one"},
    {" d": "no date"},
    None,
    1.5,
    2**80,
    "\ud800",
    "a\0b",
    "",
    [],
]


def typed(value):
    """A value with the types of all that is in it."""
    if isinstance(value, dict):
        return (type(value), {key: typed(one) for key, one in value.items()})
    if isinstance(value, (list, tuple)):
        return (type(value), [typed(one) for one in value])
    return (type(value), value)


@pytest.mark.parametrize("value", KEPT, ids=repr)
def test_a_value_comes_back_as_from_flasks_own_session(new_app, app, value):
    stock = new_app()
    found = []
    for one in (stock, app):
        seen = []

        @page(one, "/keep")
        def keep():
            session["it"] = value

        @page(one, "/look")
        def look(seen=seen):
            seen.append(typed(session["it"]))

        client = browser_of(one)
        client.post("/keep")
        client.get("/look")
        found += seen
    assert found[1] == found[0]


@pytest.mark.parametrize("key", [1, 2.5, None, True], ids=repr)
def test_a_key_that_is_no_string_is_found_under_it_in_the_same_request(app, browser, key):
    seen = []

    @page(app, "/keep")
    def keep():
        session[key] = "it"
        seen.append((session[key], key in session, session.get(key)))
        session.pop(key)
        seen.append(key in session)

    browser.post("/keep")
    assert seen == [("it", True, "it"), False]


@pytest.mark.parametrize("key", [1, 2.5, None, True, "", "a\0b", " t"], ids=repr)
def test_a_key_comes_back_as_from_flasks_own_session(new_app, app, key):
    stock = new_app()
    seen = []
    for one in (stock, app):

        @page(one, "/keep")
        def keep():
            session[key] = "it"

        @page(one, "/look")
        def look():
            seen.append(dict(session))

        client = browser_of(one)
        client.post("/keep")
        client.get("/look")
    assert seen[1] == seen[0] != {}


TEXTS = st.text(alphabet="ab \0é<", max_size=4)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXTS, st.binary(max_size=4),
    st.uuids(), TEXTS.map(Markup),
    st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2100, 1, 1), timezones=st.just(UTC)),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.sampled_from(["a", "b", " t", " di", " b__"]), inner, max_size=3),
        st.dictionaries(st.integers(0, 20), inner, max_size=3),
    ),
    max_leaves=6,
)
KEYS = st.sampled_from(["a", "b", " t", "_c", "d__"])
STEPS = st.one_of(
    st.tuples(st.just("set"), KEYS, VALUES),
    st.tuples(st.just("delete"), KEYS),
    st.tuples(st.just("pop"), KEYS),
    st.tuples(st.just("setdefault"), KEYS, VALUES),
    st.tuples(st.just("update"), KEYS, VALUES),
    st.tuples(st.just("grow"), KEYS, VALUES),
    st.tuples(st.just("clear")),
    st.tuples(st.just("flash"), TEXTS),
    st.tuples(st.just("flashed")),
    st.tuples(st.just("permanent"), st.booleans()),
)


def perform(step):
    """One step of a program; what it gives, or how it fails."""
    verb, *arguments = copy.deepcopy(step)
    try:
        if verb == "set":
            session[arguments[0]] = arguments[1]
        elif verb == "delete":
            del session[arguments[0]]
        elif verb == "pop":
            return session.pop(arguments[0], "nothing")
        elif verb == "setdefault":
            return session.setdefault(*arguments)
        elif verb == "update":
            session.update({arguments[0]: arguments[1]})
        elif verb == "grow":  # Flask's own session has to be told; Jam's sees it
            session.modified = True
            inner = session[arguments[0]]
            inner.append(arguments[1])
        elif verb == "clear":
            session.clear()
        elif verb == "flash":
            flash(arguments[0])
        elif verb == "flashed":
            return get_flashed_messages(with_categories=True)
        else:
            session.permanent = arguments[0]
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        return type(error).__name__
    return None


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(program=st.lists(st.lists(STEPS, max_size=4), min_size=1, max_size=4))
def test_any_program_sees_what_it_sees_with_flasks_own_session(secret, program):
    """Requests of several steps each, then one that only reads: and that one does not write."""
    store = WatchedStore()
    stock, ours = Flask(__name__), Flask(__name__)
    for one in (stock, ours):
        one.testing, one.secret_key = True, secret
    SessionExtension(Jam({"secret": secret}, store=store, clock=MovableClock()), ours, flask_session=True)
    told = []
    for one in (stock, ours):
        seen = []
        requests_of_it = iter([*program, []])

        @page(one, "/")
        def run(seen=seen, steps=requests_of_it):
            for step in next(steps):
                seen.append(typed(perform(step)))
                seen.append((session.permanent, typed(copy.deepcopy(dict(session)))))
            seen.append((len(session), bool(session), session.permanent, typed(copy.deepcopy(dict(session)))))

        client = browser_of(one)
        for _ in program:
            client.post("/")
        store.calls.clear()
        client.get("/")
        told.append(seen)
    assert told[1] == told[0]
    assert store.writes == []


# -- Flask's own uses of it --------------------------------------------------------------------------------------


def test_it_is_flasks_session_to_flask(app):
    with app.test_request_context():
        assert isinstance(session._get_current_object(), SessionMixin)


def test_a_message_is_shown_once(browser):
    browser.post("/flash/saved")
    assert browser.get("/flashed").json == {"messages": ["saved"]}
    assert browser.get("/flashed").json == {"messages": []}


def test_a_message_may_be_markup(app, browser):
    @page(app, "/flash-markup")
    def flash_markup():
        flash(Markup("<b>saved</b>"), "info")

    @page(app, "/show")
    def show():
        return render_template_string("{% for message in get_flashed_messages() %}{{ message }}{% endfor %}")

    browser.post("/flash-markup")
    assert browser.get("/show").text == "<b>saved</b>"


def test_a_stranger_who_is_sent_to_sign_in_finds_the_message_there(app, browser):
    app.sessions.login_view = "/flashed"

    @page(app, "/members")
    @login_required
    def members():
        pass

    response = browser.get("/members", headers=PAGE)
    assert response.status_code == 302
    assert browser.get("/flashed").json == {"messages": ["Please log in to access this page."]}


def test_session_checkpoint_looks_into_it(app, browser):
    @page(app, "/members")
    @checkpoint(SessionCheckpoint("plan", "gold"))
    def members():
        pass

    refused = browser.get("/members").status_code
    browser.post("/write/plan/gold")
    assert (refused, browser.get("/members").status_code) == (401, 200)


def test_a_form_token_kept_in_it_matches_in_the_next_request(app, browser):
    """What Flask-WTF's CSRFProtect does with it."""

    @page(app, "/form")
    def form():
        if "csrf_token" not in session:
            session["csrf_token"] = secrets.token_hex(20)
        return session["csrf_token"]

    @page(app, "/submit")
    def submit():
        return {"matches": request.form["token"] == session["csrf_token"]}

    token = browser.get("/form").text
    assert browser.get("/form").text == token
    assert browser.post("/submit", data={"token": token}).json == {"matches": True}


def test_templates_see_the_values(app, browser):
    @page(app, "/greet")
    def greet():
        return render_template_string("{{ session.colour }} {{ session['colour'] }}")

    browser.post("/write/colour/plum")
    assert browser.get("/greet").text == "plum plum"


def test_a_hook_after_the_view_may_write(app, browser):
    @app.after_request
    def count(response):
        session["answers"] = session.get("answers", 0) + 1
        return response

    for _ in range(3):
        browser.get("/untouched")
    with browser.session_transaction() as kept:
        assert kept["answers"] == 3


def test_a_user_loader_may_look_into_it(app, browser):
    @app.sessions.user_loader
    def load_user(name):
        user = User(name)
        user.colour = session.get("colour")
        return user

    @page(app, "/colour")
    def colour():
        return {"colour": current_user.colour}

    browser.post("/sign-in/alice")
    browser.post("/write/colour/plum")
    assert browser.get("/colour").json == {"colour": "plum"}


def test_new_says_whether_nothing_was_kept_so_far(app, browser):
    @page(app, "/new")
    def new():
        return {"new": session.new}

    first = browser.get("/new").json
    browser.post("/write/a/1")
    assert (first, browser.get("/new").json) == ({"new": True}, {"new": False})


def test_a_streamed_body_may_be_the_first_to_look(app, browser):
    @page(app, "/stream")
    def stream():
        def body():
            yield "colour: "
            yield session["colour"]

        return stream_with_context(body())

    browser.post("/write/colour/plum")
    response = browser.get("/stream")
    assert response.text == "colour: plum"
    assert "cookie" in vary(response)


def test_what_a_streamed_body_writes_is_too_late(app, browser, store):
    @page(app, "/stream")
    def stream():
        def body():
            session["colour"] = "red"
            yield session["colour"]

        return stream_with_context(body())

    browser.post("/write/colour/plum")
    store.calls.clear()
    assert browser.get("/stream").text == "red"
    assert store.writes == []


def test_an_async_view_writes_it_like_any_other(app, browser):
    @app.post("/async")
    async def view():
        session["colour"] = "plum"
        return {}

    browser.post("/async")
    assert values(browser) == {"colour": "plum"}


# -- permanent ---------------------------------------------------------------------------------------------------


@pytest.fixture
def lasting(app):
    app.permanent_session_lifetime = timedelta(hours=2)

    @page(app, "/permanent/yes")
    def permanent():
        session.permanent = True

    @page(app, "/permanent/no")
    def impermanent():
        session.permanent = False

    @page(app, "/permanent-then-sign-in")
    def permanent_then_sign_in():
        session.permanent = True
        app.sessions.sign_in("alice")

    return app


def age(response, name=COOKIE):
    """How long the last cookie of that name lasts, in seconds; ``None`` until the browser closes."""
    lines = [line for line in response.headers.getlist("Set-Cookie") if line.startswith(f"{name}=")]
    found = [part for part in lines[-1].split("; ") if part.startswith("Max-Age=")]
    return int(found[0].removeprefix("Max-Age=")) if found else None


def test_the_cookie_lasts_until_the_browser_closes(browser):
    assert age(browser.post("/write/a/1")) is None


def test_a_permanent_session_outlives_the_browser(lasting, browser):
    assert age(browser.post("/permanent/yes")) == 7200


def test_it_is_no_longer_permanent_when_the_app_says_so(lasting, browser):
    browser.post("/permanent/yes")
    assert age(browser.post("/permanent/no")) is None


def test_a_permanent_cookie_does_not_outlive_what_it_stands_for(lasting, browser):
    lasting.permanent_session_lifetime = timedelta(days=31)
    assert age(browser.post("/permanent/yes")) == 86400


def test_permanent_after_signing_in_counts(lasting, browser):
    browser.post("/sign-in/alice")
    assert age(browser.post("/permanent/yes")) == 7200
    assert subject(browser) == "alice"


def test_permanent_in_the_request_that_signs_in_counts(lasting, browser):
    assert age(browser.post("/permanent-then-sign-in")) == 7200


@pytest.mark.parametrize("path", ["/sign-in/alice", "/confirm", "/end-others"])
def test_a_permanent_session_stays_permanent_under_a_new_handle(lasting, browser, path):
    browser.post("/sign-in/alice")
    browser.post("/permanent/yes")
    assert age(browser.post(path)) == 7200


# -- the test client ---------------------------------------------------------------------------------------------


def test_session_transaction_writes_what_the_app_reads(browser):
    with browser.session_transaction() as kept:
        kept["a"] = "1"
    assert values(browser) == {"a": "1"}


def test_session_transaction_reads_what_the_app_wrote(browser):
    browser.post("/write/a/1")
    with browser.session_transaction() as kept:
        assert dict(kept) == {"a": "1"}


def test_session_transaction_works_on_a_signed_in_browser(browser):
    browser.post("/sign-in/alice")
    with browser.session_transaction() as kept:
        kept["a"] = "1"
    assert (subject(browser), values(browser)) == ("alice", {"a": "1"})


def test_clearing_in_a_session_transaction_signs_out(browser):
    browser.post("/sign-in/alice")
    with browser.session_transaction() as kept:
        kept.clear()
    assert subject(browser) is None


def test_clearing_in_a_session_transaction_signs_out_while_the_client_keeps_its_context(browser):
    browser.post("/sign-in/alice")
    with browser:
        browser.get("/whoami")
        with browser.session_transaction() as kept:
            kept.clear()
    assert subject(browser) is None


def test_a_test_may_look_at_it_after_the_request(browser):
    with browser:
        browser.post("/write/a/1")
        assert session["a"] == "1"


# -- two requests at once ----------------------------------------------------------------------------------------


@pytest.fixture(params=["a stranger", "alice"])
def started(request, browser):
    """A browser that has a session already, before and after signing in."""
    if request.param == "alice":
        browser.post("/sign-in/alice")
    browser.post("/write/old/1")
    return browser


def test_two_requests_that_write_different_keys_both_survive(app, started):
    during(app, started, "/write/theirs/fast")
    started.post("/slow")
    assert values(started) == {"old": "1", "mine": "slow", "theirs": "fast"}


def test_a_key_that_somebody_dropped_meanwhile_stays_dropped(app, started):
    during(app, started, "/drop/old")
    started.post("/slow")
    assert values(started) == {"mine": "slow"}


def test_of_two_values_for_one_key_the_later_one_counts_and_an_event_says_so(app, started, events):
    during(app, started, "/write/mine/fast")
    started.post("/slow")
    assert values(started) == {"old": "1", "mine": "slow"}
    conflicts = [event for event in events if isinstance(event, SessionConflict)]
    assert [(event.key, event.session_id) for event in conflicts] == [("mine", handle_of(started).split(".")[0])]


def test_different_keys_are_no_conflict(app, started, events):
    during(app, started, "/write/theirs/fast")
    started.post("/slow")
    assert not [event for event in events if isinstance(event, SessionConflict)]


def test_the_same_value_twice_is_no_conflict(app, started, events):
    during(app, started, "/write/mine/slow")
    started.post("/slow")
    assert not [event for event in events if isinstance(event, SessionConflict)]


def test_a_conflict_is_told_once_even_if_the_write_has_to_be_tried_again(app, started, store, events):
    during(app, started, "/write/mine/fast")

    def write_in_between():
        jam = app.extensions["jam"]
        jam.sessions.change_values(handle_of(started), lambda present: {**present, "third": '"3"'})

    def before_the_second_swap():
        store.before["swap"] = write_in_between

    store.before["swap"] = before_the_second_swap  # the first is the fast request's
    started.post("/slow")
    assert values(started) == {"old": "1", "mine": "slow", "third": "3"}
    assert len([event for event in events if isinstance(event, SessionConflict)]) == 1


def test_messages_added_by_two_requests_both_arrive(app, started):
    @page(app, "/slow")
    def slow():
        flash("first")
        meanwhile(started, "/flash/second")

    started.post("/slow")
    assert sorted(started.get("/flashed").json["messages"]) == ["first", "second"]


def test_a_message_added_while_others_are_shown_arrives(app, started):
    @page(app, "/slow")
    def slow():
        get_flashed_messages()
        meanwhile(started, "/flash/late")

    started.post("/flash/early")
    started.get("/slow")
    assert started.get("/flashed").json == {"messages": ["late"]}


def test_a_message_shown_by_two_requests_is_gone(app, started):
    @page(app, "/slow")
    def slow():
        get_flashed_messages()
        meanwhile(started, "/flashed")

    started.post("/flash/early")
    started.get("/slow")
    assert started.get("/flashed").json == {"messages": []}


def test_a_message_added_while_another_request_shows_the_earlier_ones_is_alone(app, started):
    @page(app, "/slow")
    def slow():
        flash("late")
        meanwhile(started, "/flashed")

    started.post("/flash/early")
    started.post("/slow")
    assert started.get("/flashed").json == {"messages": ["late"]}


def test_what_is_written_while_another_request_takes_the_last_thing_away_survives(app, browser):
    """A stranger's session whose only content is a message that is just being shown."""

    @page(app, "/slow")
    def slow():
        get_flashed_messages()
        meanwhile(browser, "/write/theirs/fast")

    browser.post("/flash/early")
    browser.get("/slow")
    assert values(browser) == {"theirs": "fast"}


def test_a_message_added_while_the_only_one_is_shown_arrives(app, browser):
    @page(app, "/slow")
    def slow():
        get_flashed_messages()
        meanwhile(browser, "/flash/late")

    browser.post("/flash/early")
    browser.get("/slow")
    assert browser.get("/flashed").json == {"messages": ["late"]}


def test_a_slow_request_that_only_reads_overwrites_nothing(app, started):
    @page(app, "/slow")
    def slow():
        dict(session)
        meanwhile(started, "/write/old/2")

    started.get("/slow")
    assert values(started) == {"old": "2"}


@pytest.mark.parametrize("way_out", ["/sign-out", "/clear"])
def test_a_slow_request_that_only_reads_does_not_bring_back_who_signed_out(app, browser, way_out):
    @page(app, "/slow")
    def slow():
        dict(session)
        meanwhile(browser, way_out)

    browser.post("/sign-in/alice")
    browser.post("/write/a/1")
    handle = handle_of(browser)
    response = browser.get("/slow")
    assert set_cookies(response) == {}
    again = with_handle(app, handle)
    assert (subject(again), values(again)) == (None, {})


@pytest.mark.parametrize("way_out", ["/sign-out", "/clear"])
def test_a_late_write_does_not_bring_back_who_signed_out(app, browser, store, way_out):
    browser.post("/sign-in/alice")
    handle = handle_of(browser)
    during(app, browser, way_out)
    assert browser.post("/slow").status_code == 200
    assert values(browser) == {}
    assert (subject(with_handle(app, handle)), values(with_handle(app, handle))) == (None, {})


@pytest.mark.parametrize("path", ["/sign-in/alice", "/confirm", "/end-others"])
def test_a_late_write_to_a_handle_that_was_replaced_does_not_sign_out(app, browser, path):
    """Its browser has the new handle by now; dropping the cookie would take that."""
    browser.post("/sign-in/alice")
    during(app, browser, path)
    response = browser.post("/slow")
    assert COOKIE not in set_cookies(response)
    assert subject(browser) == "alice"


def test_a_late_write_of_a_stranger_who_signed_in_meanwhile_does_not_sign_out(app, browser):
    browser.post("/write/a/1")
    during(app, browser, "/sign-in/alice")
    response = browser.post("/slow")
    assert COOKIE not in set_cookies(response)
    assert subject(browser) == "alice"


def test_ended_from_elsewhere_a_late_write_is_dropped(app, browser, jam):
    @page(app, "/slow")
    def slow():
        session["mine"] = "slow"
        jam.sessions.clear("alice")

    browser.post("/sign-in/alice")
    assert browser.post("/slow").status_code == 200
    assert (subject(browser), values(browser)) == (None, {})


# -- clear() signs out -------------------------------------------------------------------------------------------


def test_clear_ends_the_login_on_the_server_and_drops_the_cookie(app, browser):
    browser.post("/sign-in/alice")
    handle = handle_of(browser)
    response = browser.post("/clear")
    assert set_cookies(response)[COOKIE][0] == ""
    assert handle_of(browser) is None
    assert subject(with_handle(app, handle)) is None


def test_the_caller_is_nobody_at_once(browser):
    browser.post("/sign-in/alice")
    assert browser.post("/clear").json == {"subject": None}


def test_clear_forgets_the_values(app, browser):
    browser.post("/sign-in/alice")
    browser.post("/write/a/1")
    handle = handle_of(browser)
    browser.post("/clear")
    assert (values(browser), values(with_handle(app, handle))) == ({}, {})


def test_a_message_after_clear_arrives(app, browser):
    @page(app, "/bye")
    def bye():
        session.clear()
        flash("bye")

    browser.post("/sign-in/alice")
    browser.post("/write/a/1")
    old = handle_of(browser)
    browser.post("/bye")
    assert browser.get("/flashed").json == {"messages": ["bye"]}
    assert (subject(browser), values(browser)) == (None, {})
    assert handle_of(browser) != old


def test_a_message_after_signing_out_arrives(app, browser):
    @page(app, "/bye")
    def bye():
        logout_user()
        flash("bye")

    browser.post("/sign-in/alice")
    browser.post("/bye")
    assert browser.get("/flashed").json == {"messages": ["bye"]}


def test_clear_signs_a_remembered_browser_out_too(browser):
    browser.post("/remember/alice")
    browser.post("/clear")
    assert subject(browser) is None
    assert handle_of(browser, "remember_token") is None


def test_clear_takes_what_a_stranger_kept(app, browser):
    browser.post("/write/a/1")
    handle = handle_of(browser)
    browser.post("/clear")
    assert (values(browser), values(with_handle(app, handle))) == ({}, {})


def test_clear_where_nothing_was_kept_changes_nothing(browser, store):
    response = browser.post("/clear")
    assert (set_cookies(response), store.writes) == ({}, [])


def test_clear_and_sign_in_in_one_request(app, browser):
    @page(app, "/switch")
    def switch():
        session.clear()
        app.sessions.sign_in("bob")
        session["b"] = "2"

    browser.post("/sign-in/alice")
    browser.post("/write/a/1")
    browser.post("/switch")
    assert (subject(browser), values(browser)) == ("bob", {"b": "2"})


def test_clear_that_cannot_end_the_login_says_so_and_leaves_it_whole(browser, store):
    browser.post("/sign-in/alice")
    browser.post("/write/a/1")
    store.down = {"take"}
    assert answer(browser.post("/clear")) == (503, "store_unavailable")
    store.down = set()
    assert (subject(browser), values(browser)) == ("alice", {"a": "1"})


def test_clear_from_another_site_signs_nobody_out(app, browser):
    browser.post("/sign-in/alice")
    browser.post("/clear", headers=CROSS_SITE)
    assert subject(browser) == "alice"


# -- signing in --------------------------------------------------------------------------------------------------


def test_signing_in_carries_over_what_a_stranger_kept_under_a_new_handle(app, browser):
    browser.post("/write/cart/plums")
    old = handle_of(browser)
    browser.post("/sign-in/alice")
    assert handle_of(browser) not in (None, old)
    assert (subject(browser), values(browser)) == ("alice", {"cart": "plums"})


def test_asvs_7_2_4_the_strangers_handle_is_dead_after_signing_in(app, browser):
    browser.post("/write/cart/plums")
    old = with_handle(app, handle_of(browser))
    browser.post("/sign-in/alice")
    assert (subject(old), values(old)) == (None, {})


def test_what_is_written_before_signing_in_in_the_same_request_is_carried_over(app, browser):
    @page(app, "/both")
    def both():
        session["before"] = 1
        app.sessions.sign_in("alice")
        session["after"] = 2

    browser.post("/both")
    assert (subject(browser), values(browser)) == ("alice", {"before": 1, "after": 2})


def test_what_another_request_wrote_meanwhile_is_carried_over(app, browser):
    @page(app, "/slow")
    def slow():
        session["mine"] = "slow"
        meanwhile(browser, "/write/theirs/fast")
        app.sessions.sign_in("alice")

    browser.post("/write/old/1")
    browser.post("/slow")
    assert (subject(browser), values(browser)) == ("alice", {"old": "1", "mine": "slow", "theirs": "fast"})


def test_what_another_request_wrote_at_the_very_last_moment_is_carried_over(app, browser, store):
    def write():
        meanwhile(browser, "/write/theirs/fast")

    browser.post("/write/old/1")
    store.before["take"] = write
    browser.post("/sign-in/alice")
    assert (subject(browser), values(browser)) == ("alice", {"old": "1", "theirs": "fast"})


def test_signing_in_again_keeps_ones_own_values(browser):
    browser.post("/sign-in/alice")
    browser.post("/write/a/1")
    browser.post("/sign-in/alice")
    assert (subject(browser), values(browser)) == ("alice", {"a": "1"})


def test_another_persons_values_are_not_carried_over(browser):
    browser.post("/sign-in/alice")
    browser.post("/write/secret/1")
    browser.post("/sign-in/bob")
    assert (subject(browser), values(browser)) == ("bob", {})


def test_another_persons_values_are_not_even_seen_in_the_request_that_signs_in(app, browser):
    @page(app, "/switch")
    def switch():
        assert session["secret"] == "1"
        app.sessions.sign_in("bob")
        return dict(session)

    browser.post("/sign-in/alice")
    browser.post("/write/secret/1")
    assert browser.post("/switch").json == {}


def test_what_is_written_after_signing_in_as_somebody_else_is_theirs(app, browser):
    @page(app, "/switch")
    def switch():
        app.sessions.sign_in("bob")
        session["b"] = "2"

    browser.post("/sign-in/alice")
    browser.post("/write/secret/1")
    browser.post("/switch")
    assert (subject(browser), values(browser)) == ("bob", {"b": "2"})


def test_nothing_is_left_after_signing_out(browser):
    browser.post("/sign-in/alice")
    browser.post("/write/a/1")
    browser.post("/sign-out")
    assert values(browser) == {}
    browser.post("/sign-in/alice")
    assert values(browser) == {}


@pytest.mark.parametrize("path", ["/confirm", "/end-others"])
def test_a_new_handle_keeps_the_values(browser, path):
    browser.post("/sign-in/alice")
    browser.post("/write/a/1")
    old = handle_of(browser)
    browser.post(path)
    assert handle_of(browser) != old
    assert (subject(browser), values(browser)) == ("alice", {"a": "1"})


@pytest.mark.parametrize("renew", [confirm_login, end_other_logins])
def test_what_is_written_beside_a_new_handle_is_kept_and_nobody_is_signed_out(app, browser, renew):
    @page(app, "/renew")
    def renewing():
        session["before"] = 1
        renew()
        session["after"] = 2
        flash("confirmed")

    browser.post("/sign-in/alice")
    browser.post("/renew")
    assert (subject(browser), values(browser)) == ("alice", {"before": 1, "after": 2})
    assert browser.get("/flashed").json == {"messages": ["confirmed"]}


@pytest.mark.parametrize("renew", [confirm_login, end_other_logins])
def test_what_another_request_wrote_before_a_new_handle_is_kept(app, browser, renew):
    @page(app, "/renew")
    def renewing():
        dict(session)
        meanwhile(browser, "/write/theirs/fast")
        renew()
        session["mine"] = "slow"

    browser.post("/sign-in/alice")
    browser.post("/renew")
    assert (subject(browser), values(browser)) == ("alice", {"theirs": "fast", "mine": "slow"})


def test_a_write_that_is_acknowledged_while_the_other_logins_are_ended_survives(browser, jam, store):
    acknowledged = {}

    def write():
        with contextlib.suppress(SessionInvalid):
            jam.sessions.change_values(handle_of(browser), lambda present: {**present, "theirs": '"fast"'})
            acknowledged["theirs"] = "fast"

    browser.post("/sign-in/alice")
    store.before["advance"] = write
    browser.post("/end-others")
    assert (subject(browser), values(browser)) == ("alice", acknowledged)


# -- remembered browsers -----------------------------------------------------------------------------------------


@pytest.fixture
def remembered(browser):
    """A browser that was opened again: its session's cookie is gone."""
    browser.post("/remember/alice")
    browser.post("/write/before/1")
    browser.delete_cookie(COOKIE)
    return browser


def test_a_remembered_browser_begins_with_an_empty_session(remembered):
    assert (subject(remembered), values(remembered)) == ("alice", {})


@pytest.mark.parametrize("first", ["the caller", "the session", "the session alone"])
def test_what_a_remembered_browser_writes_is_kept_whichever_is_asked_first(app, remembered, first):
    @page(app, "/first")
    def view():
        if first == "the caller":
            assert current_identity.subject == "alice"
        session["a"] = "1"
        if first == "the session":
            assert current_identity.subject == "alice"

    remembered.post("/first")
    assert subject(remembered) == "alice"
    assert values(remembered) == {"a": "1"}


def test_a_remembered_browser_gets_one_session_not_one_in_every_request(app, remembered, jam):
    @page(app, "/first")
    def view():
        session["a"] = "1"
        assert current_identity.subject == "alice"

    remembered.post("/first")
    handle = handle_of(remembered)
    assert subject(remembered) == "alice"
    assert handle_of(remembered) == handle


# -- forged requests ---------------------------------------------------------------------------------------------


def test_a_request_from_another_site_sees_an_empty_session(app, browser):
    @page(app, "/look")
    def look():
        return dict(session)

    browser.post("/write/a/1")
    assert browser.post("/look", headers=CROSS_SITE).json == {}


@pytest.mark.parametrize("path", ["/write/a/2", "/flash/hello", "/drop/a", "/clear"])
def test_a_request_from_another_site_saves_nothing(browser, store, path):
    browser.post("/write/a/1")
    store.calls.clear()
    response = browser.post(path, headers=CROSS_SITE)
    assert (store.calls, set_cookies(response)) == ([], {})
    assert values(browser) == {"a": "1"}


def test_a_stranger_from_another_site_gets_no_session(browser, store):
    response = browser.post("/write/a/1", headers=CROSS_SITE)
    assert (store.writes, set_cookies(response)) == ([], {})


def test_a_link_from_another_site_opens_it(browser):
    browser.post("/write/a/1")
    assert browser.get("/read", headers=CROSS_SITE).json == {"a": "1"}


# -- the store is away -------------------------------------------------------------------------------------------


def test_reading_while_the_store_is_away_is_a_503(browser, store):
    browser.post("/write/a/1")
    store.down = {"get"}
    response = browser.get("/read")
    assert answer(response) == (503, "store_unavailable")
    assert "Retry-After" in response.headers


def test_an_engine_that_cannot_be_reached_is_a_503(new_app, secret):
    browser = browser_of(set_up(new_app(), Jam({"secret": secret, "store": UNREACHABLE})))
    browser.set_cookie(COOKIE, new_handle(bucket_of(""))[0])
    assert answer(browser.get("/read")) == (503, "store_unavailable")


def test_the_error_page_is_rendered_with_an_empty_session(app, browser, store):
    @app.errorhandler(503)
    def away(error):
        return render_template_string("away {{ session.get('a') }} {{ get_flashed_messages() }}"), 503

    browser.post("/write/a/1")
    store.down = set(VERBS)
    response = browser.get("/read")
    assert (response.status_code, response.text) == (503, "away None []")


def test_an_error_page_that_writes_destroys_nothing(app, browser, store):
    @app.errorhandler(503)
    def away(error):
        session["seen"] = "the error page"
        return "away", 503

    browser.post("/write/a/1")
    store.down = {"get"}
    assert browser.get("/read").text == "away"
    store.down = set()
    assert values(browser) == {"a": "1"}


def test_a_value_that_cannot_be_read_is_a_503_and_stays_for_whoever_looks_into_it(app, browser, jam, caplog):
    @app.errorhandler(503)
    def away(error):
        return render_template_string("away {{ session.get('a') }}"), 503

    handle = jam.sessions.create("alice", values={"a": "1", "broken": '{" u": "no uuid"}'})
    browser.set_cookie(COOKIE, handle)
    response = browser.get("/read")
    assert (response.status_code, response.text) == (503, "away None")
    assert jam.sessions.get(handle).values == {"a": "1", "broken": '{" u": "no uuid"}'}


@pytest.mark.parametrize(("known", "verb"), [(False, "add"), (True, "swap")])
def test_saving_while_the_store_is_away_is_a_503_with_nothing_of_the_page(app, browser, store, known, verb):
    @page(app, "/page")
    def written():
        session["b"] = 2
        return "the page", 200, {"X-Page": "1", "Content-Type": "text/plain", "Set-Cookie": "theirs=1"}

    if known:
        browser.post("/write/a/1")
    store.down = {verb}
    response = browser.post("/page")
    assert answer(response) == (503, "store_unavailable")
    assert "the page" not in response.text
    assert not {"X-Page", "Set-Cookie"} & {name for name, _ in response.headers}
    assert int(response.headers["Retry-After"]) > 0
    assert response.headers["Cache-Control"] == "no-store"


def test_what_cannot_be_saved_is_told_by_jam_and_not_by_the_apps_own_error_page(app, browser, store):
    """When a session is saved, the app's handlers have run already."""

    @app.errorhandler(503)
    def away(error):
        return "the app's own", 503

    store.down = {"add"}
    assert answer(browser.post("/write/a/1")) == (503, "store_unavailable")


def test_what_could_not_be_saved_is_not_there_later(browser, store):
    browser.post("/write/a/1")
    store.down = {"swap"}
    browser.post("/write/a/2")
    store.down = set()
    assert values(browser) == {"a": "1"}


def test_a_file_whose_session_cannot_be_saved_is_closed_and_not_sent(app, browser, store):
    files = []

    @page(app, "/download")
    def download():
        session["downloads"] = 1
        files.append(io.BytesIO(b"the file"))
        return send_file(files[0], mimetype="text/plain")

    store.down = {"add"}
    with browser.post("/download") as response:
        assert response.status_code == 503
        assert b"the file" not in response.data
    assert files[0].closed


def test_after_signing_in_a_failure_to_save_does_not_undo_it(app, browser, store):
    @page(app, "/slow")
    def slow():
        app.sessions.sign_in("alice")
        session["a"] = 1

    store.down = {"swap"}
    assert browser.post("/slow").status_code == 503
    store.down = set()
    assert (subject(browser), values(browser)) == ("alice", {})


# -- what cannot be kept -----------------------------------------------------------------------------------------


class Unspeakable:
    def __html__(self):
        raise RuntimeError("no words")


UNKEPT = {
    "an object": object(),
    "a set": {1, 2},
    "a set in a list": [{1, 2}],
    "too much": "x" * (4 * 1024 * 1024),
    "keys that are tuples": {(1, 2): 3},
    "markup that fails": Unspeakable(),
}


@pytest.fixture
def in_production(new_app, jam):
    return set_up(new_app(TESTING=False, JAM_HTTPS=False), jam)


@pytest.mark.parametrize("value", UNKEPT.values(), ids=list(UNKEPT))
def test_in_production_a_value_that_cannot_be_kept_is_a_500_with_a_code(in_production, value, caplog):
    @page(in_production, "/keep")
    def keep():
        session["a"] = value
        return "the page"

    browser = browser_of(in_production)
    browser.post("/write/old/1")
    with caplog.at_level(logging.ERROR):
        response = browser.post("/keep")
    assert answer(response) == (500, "session_not_saved")
    assert "the page" not in response.text
    assert any(record.levelno == logging.ERROR and record.exc_info for record in caplog.records)
    assert values(browser) == {"old": "1"}


@pytest.mark.parametrize("value", list(UNKEPT.values())[:5], ids=list(UNKEPT)[:5])
@pytest.mark.parametrize("mode", ["TESTING", "DEBUG"])
def test_in_testing_and_debug_it_is_an_exception(new_app, jam, mode, value):
    app = set_up(new_app(**{"TESTING": False, "JAM_HTTPS": False, mode: True}), jam)

    @page(app, "/keep")
    def keep():
        session["a"] = value

    with pytest.raises(InvalidValue):
        browser_of(app).post("/keep")


def test_in_production_it_is_a_500_also_when_somebody_signs_in_with_it(in_production, caplog):
    """The app's mistake, not the caller's: no 400."""

    @page(in_production, "/keep")
    def keep():
        session["a"] = {1, 2}
        in_production.sessions.sign_in("alice")

    browser = browser_of(in_production)
    assert browser.post("/keep").status_code == 500
    assert subject(browser) is None


def test_a_large_value_that_still_fits_is_kept(app, browser):
    @page(app, "/keep")
    def keep():
        session["a"] = "x" * (3 * 1024 * 1024)

    @page(app, "/size")
    def size():
        return {"size": len(session["a"])}

    browser.post("/keep")
    assert browser.get("/size").json == {"size": 3 * 1024 * 1024}


# -- hostile cookies ---------------------------------------------------------------------------------------------

HOSTILE = [
    "", ".", "a", "a.b", "a.b.c", "%00", "x" * 5000, "é", '"', "\\", "null", "0", "../../etc/passwd", "'; DROP TABLE",
    "A" * 24 + "." + "A" * 43, "eyJhIjoxfQ.Zz.sig",
]  # fmt: skip


@pytest.mark.parametrize("cookie", HOSTILE, ids=lambda cookie: cookie[:20])
def test_a_hostile_cookie_is_an_empty_session(app, cookie):
    response = app.test_client(use_cookies=False).get("/read", headers={"Cookie": f"{COOKIE}={cookie}"})
    assert (response.status_code, response.json) == (200, {})


@pytest.mark.parametrize("cookie", HOSTILE, ids=lambda cookie: cookie[:20])
def test_a_handle_that_the_server_did_not_make_is_never_taken_over(app, cookie):
    client = app.test_client(use_cookies=False)
    response = client.post("/write/a/1", headers={"Cookie": f"{COOKIE}={cookie}", **SAME_ORIGIN})
    assert set_cookies(response)[COOKIE][0] not in ("", cookie)


def test_an_altered_handle_opens_nothing(app, browser):
    browser.post("/write/a/1")
    handle = handle_of(browser)
    altered = handle[:-2] + ("AA" if handle[-2:] != "AA" else "BB")
    assert values(with_handle(app, altered)) == {}


def cookies_in_order(*handles):
    return {"Cookie": "; ".join(f"{COOKIE}={handle}" for handle in handles), **SAME_ORIGIN}


def test_a_strangers_handle_planted_before_ones_own_is_not_read(app, jam):
    """A neighbouring subdomain can set a cookie of that name that comes first."""
    planted = jam.sessions.create_anonymous({"csrf_token": '"known"'})
    own = jam.sessions.create("alice", values={"csrf_token": '"secret"'})
    client = app.test_client(use_cookies=False)
    assert client.get("/read", headers=cookies_in_order(planted, own)).json == {"csrf_token": "secret"}


def test_a_strangers_handle_planted_before_ones_own_does_not_keep_one_signed_in(app, jam):
    planted, own = jam.sessions.create_anonymous({"a": "1"}), jam.sessions.create("alice")
    client = app.test_client(use_cookies=False)
    assert client.post("/clear", headers=cookies_in_order(planted, own)).json == {"subject": None}
    assert jam.sessions.get(own) is None


def test_a_dead_handle_before_a_live_one_hides_nothing(app, browser):
    browser.post("/write/a/1")
    client = app.test_client(use_cookies=False)
    assert client.get("/read", headers=cookies_in_order("A" * 24 + ".x", handle_of(browser))).json == {"a": "1"}


# -- strangers' records ------------------------------------------------------------------------------------------


def test_a_strangers_record_is_nobodys_login(app, browser, jam):
    @page(app, "/members")
    @login_required
    def members():
        pass

    browser.post("/write/a/1")
    assert subject(browser) is None
    assert answer(browser.get("/members")) == (401, "authentication_required")


def test_a_strangers_record_dies_unused(browser, clock):
    browser.post("/write/a/1")
    clock.move(3601)
    assert values(browser) == {}


def test_use_keeps_a_strangers_record_alive(browser, clock):
    browser.post("/write/a/1")
    for _ in range(4):
        clock.move(3000)
        assert values(browser) == {"a": "1"}


def test_how_long_is_an_option(new_app, secret, clock):
    jam = Jam({"secret": secret, "sessions": {"anonymous_idle_for": 600}}, store=WatchedStore(), clock=clock)
    browser = browser_of(set_up(new_app(), jam))
    browser.post("/write/a/1")
    clock.move(601)
    assert values(browser) == {}


def test_use_keeps_it_alive_however_short_the_option(new_app, secret, clock):
    jam = Jam({"secret": secret, "sessions": {"anonymous_idle_for": 30}}, store=WatchedStore(), clock=clock)
    browser = browser_of(set_up(new_app(), jam))
    browser.post("/write/a/1")
    for _ in range(4):
        clock.move(20)
        assert values(browser) == {"a": "1"}


def test_what_is_written_after_it_died_begins_anew(browser, clock):
    browser.post("/write/a/1")
    clock.move(3601)
    browser.post("/write/b/2")
    assert values(browser) == {"b": "2"}


def test_signed_in_the_options_of_logins_count(new_app, secret, clock):
    jam = Jam({"secret": secret, "sessions": {"anonymous_idle_for": 600}}, store=WatchedStore(), clock=clock)
    browser = browser_of(set_up(new_app(), jam))
    browser.post("/write/a/1")
    browser.post("/sign-in/alice")
    clock.move(3000)
    assert (subject(browser), values(browser)) == ("alice", {"a": "1"})


def test_a_caller_with_a_token_has_a_session_beside_it(new_app, jam):
    app = set_up(new_app(), jam)
    JWTExtension(jam, app)
    browser = browser_of(app)
    token = bearer(jam.access_tokens.issue("carol"))
    browser.post("/write/a/1", headers=token)
    assert browser.get("/whoami", headers=token).json == {"subject": "carol"}
    assert browser.get("/read", headers=token).json == {"a": "1"}


def test_a_handle_in_a_header_proves_the_caller_and_opens_no_session(new_app, jam):
    app = set_up(new_app(), jam, header_name="X-Session")
    header = {"X-Session": f"Bearer {jam.sessions.create('alice', values={'a': '1'})}"}
    client = app.test_client(use_cookies=False)
    assert client.get("/whoami", headers=header).json == {"subject": "alice"}
    assert client.get("/read", headers=header).json == {}


# -- threads, engines, servers -----------------------------------------------------------------------------------


@pytest.fixture(params=["SQLite", "PostgreSQL", "MariaDB", "Redis"])
def engine_url(request, tmp_path):
    if request.param == "SQLite":
        return f"sqlite:///{tmp_path}/jam.sqlite3"
    return request.getfixturevalue(
        {"PostgreSQL": "postgresql_url", "MariaDB": "mysql_url", "Redis": "redis_url"}[request.param]
    )


@pytest.fixture
def on_engine(new_app, secret, engine_url):
    store = open_store(engine_url)
    store.create_tables()
    yield set_up(new_app(), Jam({"secret": secret}, store=store))
    store.close()


THREADS = 6


def at_once(app, handle, paths_of):
    """Every thread is a tab of the same browser and asks for its paths, all of them at the same time."""
    start = threading.Barrier(THREADS)

    def ask(number):
        client = with_handle(app, handle)
        start.wait(20)
        return [client.post(path).status_code for path in paths_of(number)]

    with ThreadPoolExecutor(THREADS) as pool:
        return {code for codes in pool.map(ask, range(THREADS)) for code in codes}


@pytest.mark.parametrize("first", ["/write/old/1", "/sign-in/alice"])
def test_threads_that_write_different_keys_lose_nothing(on_engine, first):
    browser = browser_of(on_engine)
    browser.post(first)
    browser.post("/write/old/1")
    assert at_once(on_engine, handle_of(browser), lambda n: [f"/write/{n}-{m}/x" for m in range(4)]) == {200}
    assert values(browser) == {"old": "1", **{f"{n}-{m}": "x" for n in range(THREADS) for m in range(4)}}


def test_threads_that_add_messages_lose_none(on_engine):
    browser = browser_of(on_engine)
    browser.post("/flash/first")
    assert at_once(on_engine, handle_of(browser), lambda n: [f"/flash/{n}-{m}" for m in range(3)]) == {200}
    messages = browser.get("/flashed").json["messages"]
    assert sorted(messages) == sorted(["first", *(f"{n}-{m}" for n in range(THREADS) for m in range(3))])


def test_threads_that_write_while_one_signs_out_bring_nobody_back(on_engine):
    browser = browser_of(on_engine)
    browser.post("/sign-in/alice")
    handle = handle_of(browser)
    paths = [["/untouched", "/sign-out"], *([f"/write/{n}/x", f"/write/{n}/y"] for n in range(1, THREADS))]
    assert at_once(on_engine, handle, lambda n: paths[n]) == {200}
    again = with_handle(on_engine, handle)
    assert (subject(again), values(again)) == (None, {})


SERVED = """
    import os
    from flask import Flask, flash, get_flashed_messages, session
    from jam import Jam
    from jam.ext.flask import SessionExtension, current_identity

    jam = Jam({"secret": os.environ["SERVED_SECRET"], "store": os.environ["SERVED_STORE"], "https": False})
    app = Flask(__name__)
    sessions = SessionExtension(jam, app, flask_session=True)

    @app.get("/")
    def index():
        return {"worker": os.getpid()}

    @app.post("/write/<key>")
    def write(key):
        session[key] = 1
        flash(key)
        return {"worker": os.getpid()}

    @app.post("/sign-in")
    def sign_in():
        sessions.sign_in("alice")
        return {}

    @app.get("/read")
    def read():
        return {"keys": [key for key in session if key != "_flashes"], "subject": current_identity.subject}

    @app.get("/flashed")
    def flashed():
        return get_flashed_messages()

    @app.post("/clear")
    def clear():
        session.clear()
        return {}
"""


def test_the_workers_of_a_real_server_share_it(secret, tmp_path):
    (tmp_path / "served_session.py").write_text(textwrap.dedent(SERVED))
    environment = {**os.environ, "SERVED_SECRET": secret, "SERVED_STORE": f"sqlite:///{tmp_path}/jam.sqlite3"}
    url = f"http://127.0.0.1:{free_port()}"
    command = [
        PYTHON, "-m", "gunicorn", "--bind", url.removeprefix("http://"), "--workers", "2", "--threads", "4",
        "served_session:app",
    ]  # fmt: skip
    with serving(command, url=url, cwd=tmp_path, env=environment):
        browser = requests.Session()
        browser.headers["Origin"] = url
        assert browser.post(f"{url}/write/first", timeout=10).status_code == 200
        assert browser.post(f"{url}/sign-in", timeout=10).status_code == 200
        cookies, workers = browser.cookies.get_dict(), set()

        def write(number):
            response = requests.post(f"{url}/write/k{number}", cookies=cookies, headers={"Origin": url}, timeout=20)
            workers.add(response.json()["worker"])
            return response.status_code

        for turn in itertools.count():  # which worker takes a connection is the system's choice
            with ThreadPoolExecutor(8) as pool:
                assert set(pool.map(write, range(turn * 20, turn * 20 + 20))) == {200}
            if len(workers) == 2 or turn == 9:
                break
        assert len(workers) == 2
        expected = sorted(["first", *(f"k{number}" for number in range(turn * 20 + 20))])
        answered = browser.get(f"{url}/read", timeout=10).json()
        assert (answered["subject"], sorted(answered["keys"])) == ("alice", expected)
        assert sorted(browser.get(f"{url}/flashed", timeout=10).json()) == expected
        browser.post(f"{url}/clear", timeout=10)
        for _ in range(10):
            again = requests.get(f"{url}/read", cookies=cookies, timeout=10).json()
            assert again == {"keys": [], "subject": None}
