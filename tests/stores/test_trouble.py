"""Every engine behind a network, in trouble: cut off, killed, restarted, frozen, with a clock of its own."""

import contextlib
import subprocess
import sys
import time
from types import MappingProxyType

import pytest
from flask import Flask, render_template_string
from sqlalchemy.engine import make_url

from jam import Jam
from jam.errors import JamError, StoreUnavailable
from jam.ext.flask import Authenticated, SessionExtension, checkpoint, current_identity, public
from jam.stores import open_store
from jam.stores.sql import SQLStore
from jam.testing.stores import NOW, new_record
from jam.testing.trouble import TroubleContract
from tests.own_servers import OwnMariaDB, OwnPostgreSQL, OwnRedis

ENGINES = {"PostgreSQL": OwnPostgreSQL, "MariaDB": OwnMariaDB, "Redis": OwnRedis}
PATIENCE = 20  # seconds; a guard against hanging, not a measurement


class TestRedisInTrouble(TroubleContract):
    @pytest.fixture
    def server(self, redis_url):
        url = make_url(redis_url)
        return url.host, url.port

    @pytest.fixture
    def open_at(self, redis_url):
        url = make_url(redis_url)
        return lambda host, port: open_store(
            f"redis://{host}:{port}/{url.database}?prefix={url.query['prefix']}&timeout=1"
        )


class SQLInTrouble(TroubleContract):
    @pytest.fixture
    def server(self, url):
        with contextlib.closing(SQLStore(url)) as store:
            store.create_tables()
        address = make_url(url)
        return address.host, address.port

    @pytest.fixture
    def open_at(self, url):
        return lambda host, port: SQLStore(make_url(url).set(host=host, port=port), timeout=1)


class TestPostgreSQLInTrouble(SQLInTrouble):
    extra_trips = MappingProxyType({"advance": 1, "purge": 1})

    @pytest.fixture
    def url(self, postgresql_url):
        return postgresql_url


class TestMariaDBInTrouble(SQLInTrouble):
    extra_trips = MappingProxyType({"advance": 1, "purge": 1, "take": 1, "get that touches": 1})

    @pytest.fixture
    def url(self, mysql_url):
        return mysql_url


# -- servers that can be stopped ----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=ENGINES)
def server(request):
    with ENGINES[request.param]() as server:
        with contextlib.closing(open_store(server.url)) as store:
            store.create_tables()
        yield server


@pytest.fixture
def store(server):
    url = make_url(server.url)
    if url.drivername == "redis":
        store = open_store(f"{server.url}?timeout=1")
    else:
        store = SQLStore(url, timeout=1)
    yield store
    store.close()


def some_records(store, number=50):
    records = [new_record(f"subject-{n}", idle_for=None) for n in range(number)]
    for record in records:
        store.add(record, NOW)
    return records


def are_there(store, records):
    return [record.id for record in records if store.get("session", record.id, NOW) is None] == []


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_server_that_restarted_is_used_again_and_has_all_that_was_acknowledged(server, store, end):
    records = some_records(store)
    getattr(server, end)()
    try:
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                store.get("session", records[0].id, NOW)
            with pytest.raises(StoreUnavailable):
                store.add(new_record("x"), NOW)
    finally:
        server.start()
    assert are_there(store, records)
    store.add(new_record("x"), NOW)


def test_a_restart_between_two_uses_is_not_noticed(server, store):
    records = some_records(store)
    server.stop()
    server.start()
    store.add(new_record("x"), NOW)
    assert are_there(store, records)


def test_a_frozen_server_means_unavailable_in_time_and_is_used_again(server, store):
    records = some_records(store, 5)
    with server.frozen():
        for act in (
            lambda: store.get("session", records[0].id, NOW),
            lambda: store.add(new_record("x"), NOW),
            lambda: store.count_up("x", 60, 5, NOW),
        ):
            before = time.monotonic()
            with pytest.raises(StoreUnavailable):
                act()
            assert time.monotonic() - before < PATIENCE
    assert are_there(store, records)


def test_an_acknowledged_write_survives_the_sudden_death_of_the_app(server, store):
    writer = subprocess.Popen([sys.executable, "-c", WRITER, server.url], stdout=subprocess.PIPE, text=True)
    try:
        acknowledged = [writer.stdout.readline().strip() for _ in range(100)]
    finally:
        writer.kill()
        acknowledged += [line.strip() for line in writer.stdout if line.endswith("\n")]
        writer.wait(PATIENCE)
        writer.stdout.close()
    assert [one for one in acknowledged if store.get("session", one, NOW) is None] == []


WRITER = """
import sys
from jam.stores import open_store
from jam.testing.stores import new_record, NOW
store = open_store(sys.argv[1])
while True:
    one = new_record("alice", idle_for=None)
    store.add(one, NOW)
    print(one.id, flush=True)
"""


def test_a_clock_that_differs_from_the_engines_is_a_problem(server, store):
    assert store.problems(time.time()) == ()
    for skew, word in ((60, "behind"), (-60, "ahead")):
        (problem,) = store.problems(time.time() + skew)
        assert word in problem.message
        assert "NTP" in problem.advice


def test_records_live_and_die_by_the_callers_clock_whatever_the_engines_says(server, store):
    for now in (1.0, 1e9, 4e9):
        record = new_record("alice", created_at=now, touched_at=now, ends_at=now + 3600)
        store.add(record, now)
        assert store.get("session", record.id, now + 599).record == record
        assert store.get("session", record.id, now + 600) is None


# -- as an app's users see it -------------------------------------------------------------------------------


@pytest.fixture
def app(server, store, secret, request):
    app = Flask(__name__)
    app.config.update(SECRET_KEY=secret, JAM_HTTPS=False)
    app.jam = Jam(store=store)
    app.sessions = SessionExtension(app.jam, app)

    @app.post("/sign-in")
    @public
    def sign_in():
        app.sessions.sign_in("alice")
        return "welcome"

    @app.get("/me")
    @checkpoint(Authenticated())
    def me():
        return f"hello {current_identity.subject}"

    @app.errorhandler(503)
    def unavailable(_):
        page = render_template_string("sorry, {{ who or 'stranger' }}", who=current_identity.subject)
        return page, 503

    return app


def test_asvs_16_5_3_an_app_answers_503_while_its_engine_is_away_and_recovers_by_itself(app, server):
    browser = app.test_client()
    same_site = {"Sec-Fetch-Site": "same-origin"}
    assert browser.post("/sign-in", headers=same_site).text == "welcome"
    assert browser.get("/me", headers=same_site).text == "hello alice"
    server.stop()
    try:
        for answer in (browser.get("/me", headers=same_site), browser.post("/sign-in", headers=same_site)):
            assert (answer.status_code, answer.text) == (503, "sorry, stranger")
            assert int(answer.headers["Retry-After"]) > 0
    finally:
        server.start()
    assert browser.get("/me", headers=same_site).text == "hello alice"


def test_an_engine_that_is_away_at_the_start_stops_no_app_from_coming_up(app, server):
    same_site = {"Sec-Fetch-Site": "same-origin"}
    server.stop()
    try:
        browser = app.test_client()
        assert browser.post("/sign-in", headers=same_site).status_code == 503
    finally:
        server.start()
    assert browser.post("/sign-in", headers=same_site).status_code == 200
    assert browser.get("/me", headers=same_site).text == "hello alice"


@pytest.mark.parametrize("handled", [503, JamError, StoreUnavailable, Exception])
@pytest.mark.parametrize("place", ["a guard", "the view", "a hook after it", "a page for what is not there"])
def test_whoever_asks_first_and_whoever_answers_the_answer_is_503(server, store, secret, handled, place):
    app = Flask(__name__)
    app.config.update(SECRET_KEY=secret, JAM_HTTPS=False)
    jam = Jam(store=store)
    sessions = SessionExtension(jam, app)
    asked = []

    @app.errorhandler(handled)
    def sorry(error):
        asked.append(current_identity.subject)
        return "sorry", 503

    if place == "a guard":
        app.get("/")(checkpoint(Authenticated())(lambda: "in"))
    elif place == "the view":
        app.get("/")(lambda: str(jam.sessions.generation("alice")))
    elif place == "a hook after it":
        app.get("/")(lambda: "in")
        app.after_request(lambda response: (asked.append(current_identity.subject), response)[1])
    elif handled is not Exception:
        app.errorhandler(404)(lambda error: (f"{current_identity.subject} lost", 404))
    browser = app.test_client()
    browser.set_cookie(sessions.cookie_name, jam.create_session("alice"))
    server.stop()
    try:
        answer = browser.get("/", headers={"Sec-Fetch-Site": "same-origin"})
    finally:
        server.start()
    assert (answer.status_code, answer.text) == (503, "sorry")
    assert int(answer.headers["Retry-After"]) > 0
    assert set(asked) == {None}


def test_a_caller_who_was_known_before_the_store_failed_is_told_when_to_try_again(app, server):
    @app.get("/stopping")
    @checkpoint(Authenticated())
    def stopping():
        server.stop()
        return str(app.jam.sessions.generation("alice"))

    browser = app.test_client()
    same_site = {"Sec-Fetch-Site": "same-origin"}
    browser.post("/sign-in", headers=same_site)
    try:
        answer = browser.get("/stopping", headers=same_site)
    finally:
        server.start()
    assert (answer.status_code, answer.text) == (503, "sorry, alice")
    assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.parametrize("used_before", [True, False])
def test_a_view_that_asks_the_store_itself_gets_its_503_too(app, server, used_before):
    @app.get("/sessions")
    def sessions():
        return {"generation": app.jam.sessions.generation("alice")}

    browser = app.test_client()
    if used_before:
        assert browser.get("/sessions").status_code == 200
    server.stop()
    try:
        answer = browser.get("/sessions")
        assert (answer.status_code, answer.text) == (503, "sorry, stranger")
        assert int(answer.headers["Retry-After"]) > 0
    finally:
        server.start()
    assert browser.get("/sessions").status_code == 200
