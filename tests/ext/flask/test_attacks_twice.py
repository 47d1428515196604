"""What a second attack on Jam's Flask extensions got away with, and must not again."""

import sqlite3

import msgspec
import pytest
from flask import jsonify, request, session
from werkzeug.exceptions import ServiceUnavailable

from jam import Jam
from jam.credentials.sessions import KIND
from jam.errors import SessionInvalid, StoreUnavailable
from jam.ext.flask import (
    JWTExtension,
    SessionCheckpoint,
    SessionExtension,
    UserMixin,
    checkpoint,
    confirm_login,
    create_access_token,
    create_refresh_token,
    current_identity,
    current_user,
    end_other_logins,
    jwt_required,
    login_required,
    login_user,
    set_access_cookies,
    set_refresh_cookies,
    verify_jwt_in_request,
)
from jam.stores import open_store
from jam.stores.memory import MemoryStore
from jam.stores.rehearsal import RehearsalStore
from jam.testing.stores import NOW, new_record
from tests.ext.flask.callers import SAME_ORIGIN, answer, bearer, cookies, raw_client, set_cookies

COOKIE, ACCESS, REFRESH, REMEMBER = "sessionId", "access_token_cookie", "refresh_token_cookie", "remember_token"
MIXED = (403, "credentials_mixed")
REVOKED = (401, "token_revoked")
UNAVAILABLE = (503, "store_unavailable")
TAGGED_TRUE = "true"  # as flask.session keeps True


class User(UserMixin):
    def __init__(self, id, is_active=True):  # noqa: A002 - what models call it
        self.id, self.active = id, is_active

    @property
    def is_active(self):
        return self.active


def set_up(app, jam):
    """An app with tokens and sessions, where anybody may sign in."""
    app.tokens = JWTExtension(jam, app)
    app.sessions = SessionExtension(jam, app, flask_session=True)

    @app.post("/login/<name>")
    def login(name):
        login_user(User(name), remember="remember" in request.args)
        return {"who": current_identity.subject}

    @app.get("/me")
    @login_required
    def me():
        return {"who": current_identity.subject, "method": current_identity.method}

    return app


@pytest.fixture
def app(new_app, jam):
    return set_up(new_app(JWT_TOKEN_LOCATION=["headers", "cookies"]), jam)


def made(app, function, *args, **options):
    """A token as the app makes it outside of a request."""
    with app.app_context():
        return function(*args, **options)


def lives(app, handle):
    return raw_client(app).get("/me", headers=cookies((COOKIE, handle))).status_code == 200


# -- 1: one person's flask.session beside another's token -----------------------------------------------------


@pytest.fixture
def admins(app):
    """Views for whoever has ``is_admin`` in flask.session, and what was done there."""
    done = []

    def view():
        done.append(current_identity.subject)
        return {"who": current_identity.subject}

    is_admin = checkpoint(SessionCheckpoint("is_admin", True))
    for name, guarded in {
        "any": login_required(is_admin(view)),
        "token": jwt_required()(is_admin(view)),
        "alone": is_admin(view),
        "below": is_admin(jwt_required()(view)),
    }.items():
        app.add_url_rule(f"/{name}", name, guarded)
    return done


def asked_by(app, jam, path, of_session, of_token):
    handle = jam.sessions.create(of_session, values={"is_admin": TAGGED_TRUE})
    headers = {**SAME_ORIGIN, **cookies((COOKIE, handle)), **bearer(made(app, create_access_token, of_token))}
    return raw_client(app).get(f"/{path}", headers=headers)


@pytest.mark.parametrize("path", ["any", "token", "alone"])
def test_asvs_8_2_1_one_persons_flask_session_lets_no_token_of_another_pass_a_session_checkpoint(
    app, jam, admins, path
):
    assert answer(asked_by(app, jam, path, "alice", "bob")) == MIXED
    assert admins == []


@pytest.mark.parametrize("path", ["any", "token", "alone", "below"])
def test_one_persons_flask_session_and_token_pass_a_session_checkpoint(app, jam, admins, path):
    assert asked_by(app, jam, path, "alice", "alice").json == {"who": "alice"}
    assert admins == ["alice"]


def test_asvs_8_2_1_one_persons_flask_session_and_anothers_token_do_not_pass_a_checkpoint_and_a_guard(app, jam, admins):
    assert answer(asked_by(app, jam, "below", "alice", "bob")) == MIXED
    assert admins == []


# -- 2: a new handle between two guards -------------------------------------------------------------------------


@pytest.fixture
def between(app):
    """A view with a session's guard, that does something and demands a token then."""
    acts = {
        "nothing": lambda: None,
        "confirm": confirm_login,
        "end-others": end_other_logins,
        "both": lambda: (confirm_login(), end_other_logins()),
        "again": lambda: login_user(User("alice")),
        "other": lambda: login_user(User("bob")),
    }

    @app.post("/between/<act>")
    @login_required(methods=["session"])
    def view(act):
        acts[act]()
        verify_jwt_in_request(locations="headers")
        return {"who": current_identity.subject}

    def ask(act, of_token):
        handle = set_cookies(raw_client(app).post("/login/alice", headers=SAME_ORIGIN))[COOKIE][0]
        headers = {**SAME_ORIGIN, **cookies((COOKIE, handle)), **bearer(made(app, create_access_token, of_token))}
        return raw_client(app).post(f"/between/{act}", headers=headers)

    return ask


@pytest.mark.parametrize("act", ["nothing", "confirm", "end-others", "both", "again"])
def test_asvs_8_2_1_a_new_handle_between_two_guards_lets_no_token_of_another_pass(between, act):
    assert answer(between(act, "bob")) == MIXED


@pytest.mark.parametrize("act", ["nothing", "confirm", "both", "again"])
def test_a_new_handle_between_two_guards_lets_the_same_persons_token_pass(between, act):
    assert between(act, "alice").json == {"who": "alice"}


def test_whom_the_app_signs_in_between_two_guards_passes_with_their_own_token(between):
    assert between("other", "bob").json == {"who": "bob"}


# -- 3: who signs in where somebody else's tokens are ------------------------------------------------------------


@pytest.fixture
def tokens(app):
    """An app that gives tokens in cookies beside the session."""

    @app.post("/both/<name>")
    def both(name):
        login_user(User(name))
        access, refresh = create_access_token(name, fresh=True), create_refresh_token(name)
        response = jsonify(access=access, refresh=refresh)
        set_access_cookies(response, access)
        set_refresh_cookies(response, refresh)
        return response

    @app.post("/refresh")
    @jwt_required(refresh=True)
    def refresh():
        return {"who": current_identity.subject}

    @app.get("/by-token")
    @jwt_required()
    def by_token():
        return {"who": current_identity.subject}

    @app.post("/clear")
    def clear():
        session.clear()
        return {}

    return app


def is_good(app, kind, token):
    if kind == ACCESS:
        return raw_client(app).get("/by-token", headers=bearer(token)).status_code == 200
    return raw_client(app).post("/refresh", headers=bearer(token)).status_code == 200


def token_of(app, kind, name):
    return made(app, create_access_token if kind == ACCESS else create_refresh_token, name)


def is_dropped(response, name):
    value, attributes = set_cookies(response).get(name, (None, set()))
    return value == "" and "max-age=0" in attributes


kinds = pytest.mark.parametrize("kind", [ACCESS, REFRESH])


@kinds
def test_asvs_7_4_1_who_signs_in_ends_another_persons_token_in_a_cookie_and_drops_it(tokens, kind):
    token = token_of(tokens, kind, "alice")
    assert is_good(tokens, kind, token)
    response = raw_client(tokens).post("/login/bob", headers={**SAME_ORIGIN, **cookies((kind, token))})
    assert response.json == {"who": "bob"}
    assert is_dropped(response, kind)
    assert not is_good(tokens, kind, token)


def test_asvs_7_4_1_of_several_cookies_of_a_name_every_other_persons_token_is_ended(tokens):
    planted = [token_of(tokens, ACCESS, name) for name in ("bob", "alice", "carol")]
    raw_client(tokens).post("/login/bob", headers={**SAME_ORIGIN, **cookies(*[(ACCESS, token) for token in planted])})
    assert [is_good(tokens, ACCESS, token) for token in planted] == [True, False, False]


@kinds
def test_who_signs_in_again_keeps_their_own_token_in_a_cookie(tokens, kind):
    token = token_of(tokens, kind, "alice")
    response = raw_client(tokens).post("/login/alice", headers={**SAME_ORIGIN, **cookies((kind, token))})
    assert kind not in set_cookies(response)
    assert is_good(tokens, kind, token)


def test_asvs_7_4_1_a_browser_in_which_another_person_signs_in_is_that_persons_alone(tokens):
    browser = tokens.test_client()
    hers = browser.post("/both/alice", headers=SAME_ORIGIN).json
    assert browser.get("/me").json["who"] == "alice"
    browser.post("/login/bob", headers=SAME_ORIGIN)
    assert browser.get("/me").json == {"who": "bob", "method": "session"}
    assert browser.get("/by-token").status_code == 401
    assert browser.post("/refresh", headers=SAME_ORIGIN).status_code == 401
    assert not is_good(tokens, ACCESS, hers["access"])
    assert not is_good(tokens, REFRESH, hers["refresh"])


def test_another_sign_in_of_the_person_who_was_there_before_goes_on(tokens):
    elsewhere = raw_client(tokens).post("/both/alice", headers=SAME_ORIGIN).json
    browser = tokens.test_client()
    browser.post("/both/alice", headers=SAME_ORIGIN)
    browser.post("/login/bob", headers=SAME_ORIGIN)
    assert is_good(tokens, ACCESS, elsewhere["access"])
    assert is_good(tokens, REFRESH, elsewhere["refresh"])


def test_asvs_7_4_1_clearing_flask_session_ends_the_tokens_in_cookies_too(tokens):
    browser = tokens.test_client()
    hers = browser.post("/both/alice", headers=SAME_ORIGIN).json
    response = browser.post("/clear", headers=SAME_ORIGIN)
    assert is_dropped(response, ACCESS)
    assert is_dropped(response, REFRESH)
    assert browser.get("/me").status_code == 401
    assert not is_good(tokens, ACCESS, hers["access"])
    assert not is_good(tokens, REFRESH, hers["refresh"])


# -- 4: a store that fails, and a token that needs none -----------------------------------------------------------


class FailingStore(MemoryStore):
    """Fails from when it is told to on."""

    fails = False

    def get(self, *args, **options):
        if self.fails:
            raise StoreUnavailable
        return super().get(*args, **options)


@pytest.fixture
def outage(new_app, secret, clock):
    """An app whose tokens need no store, and that goes on when flask.session cannot be read."""
    jam = Jam({"secret": secret, "access_tokens": {"stateless": True}}, store=FailingStore(), clock=clock)
    app = set_up(new_app(JWT_TOKEN_LOCATION=["headers"]), jam)
    app.swallowed = []

    def read():
        try:
            session.get("theme")
        except ServiceUnavailable as error:
            app.swallowed.append(error)

    def both():
        current_identity.subject
        read()

    acts = {"read": read, "ask-and-read": both}
    app.before_request(lambda: acts.get(request.args.get("first"), lambda: None)())

    @app.get("/by-session")
    @login_required(methods="session")
    def by_session():
        return {"who": current_identity.subject, "method": current_identity.method}

    @app.get("/inside")
    def inside():
        both()
        return login_required(methods=["session"])(by_session)()

    def ask(path, first):
        token = made(app, create_access_token, "alice")
        handle = jam.sessions.create("alice")

        def sent():
            return raw_client(app).get(
                path,
                query_string={"first": first},
                headers={**SAME_ORIGIN, **cookies((COOKIE, handle)), **bearer(token)},
            )

        working = sent()
        jam.store.fails = True
        return working, sent()

    return app, ask


@pytest.mark.parametrize("first", ["nothing", "read", "ask-and-read"])
@pytest.mark.parametrize("path", ["/by-session", "/inside"])
def test_asvs_16_5_3_a_guard_for_sessions_takes_no_token_when_the_store_fails(outage, path, first):
    app, ask = outage
    working, failing = ask(path, first)
    assert working.json == {"who": "alice", "method": "session"}
    assert answer(failing) == UNAVAILABLE
    assert bool(app.swallowed) == (first != "nothing" or path == "/inside")


# -- 5: what the user_loader writes into flask.session ---------------------------------------------------------


@pytest.fixture
def counting(app):
    """An app whose user_loader counts in flask.session how often it was asked."""
    app.find = User

    @app.sessions.user_loader
    def load(name):
        session["asked"] = session.get("asked", 0) + 1
        session.setdefault("names", []).append(name)
        return app.find(name)

    @app.get("/guarded")
    @login_required
    def guarded():
        return dict(session)

    @app.get("/read-first")
    def read_first():
        session["read"] = True
        return {**session, "who": current_user.get_id()}

    @app.get("/who")
    def who():
        return {"who": current_identity.subject, **session}

    return app


def kept(jam, handle):
    return dict(jam.sessions.get(handle).values)


@pytest.mark.parametrize("path", ["/guarded", "/who"])
def test_what_the_user_loader_writes_into_flask_session_is_saved_when_the_app_agrees(counting, jam, path):
    handle = jam.sessions.create("alice")
    for number in (1, 2, 3):
        response = raw_client(counting).get(path, headers=cookies((COOKIE, handle)))
        assert (response.json["asked"], response.json["names"]) == (number, ["alice"] * number)
        assert kept(jam, handle)["asked"] == str(number)


def test_what_the_view_has_written_is_still_there_after_the_user_loader_has(counting, jam):
    handle = jam.sessions.create("alice")
    assert raw_client(counting).get("/read-first", headers=cookies((COOKIE, handle))).json["who"] == "alice"
    assert kept(jam, handle)["read"] == "true"
    assert kept(jam, handle)["asked"] == "1"


GONE = {"deactivated": lambda name: User(name, is_active=False), "deleted": lambda name: None}


@pytest.mark.parametrize("state", GONE)
@pytest.mark.parametrize("path", ["/guarded", "/read-first", "/who"])
def test_asvs_7_4_2_what_the_user_loader_writes_into_flask_session_vanishes_when_the_app_refuses(
    counting, jam, path, state
):
    counting.find = GONE[state]
    handle = jam.sessions.create("alice", values={"colour": '"plum"'})
    response = raw_client(counting).get(path, headers=cookies((COOKIE, handle)))
    assert "colour" not in (response.json or {})
    assert "asked" not in (response.json or {})
    assert kept(jam, handle) == {"colour": '"plum"'}


# -- 6: tabs of a remembered browser -----------------------------------------------------------------------------


@pytest.fixture
def tabs(app, jam):
    """An app where another tab may do something while the user_loader is asked in one; and a browser's token."""
    app.meanwhile = []

    @app.sessions.user_loader
    def load(name):
        if app.meanwhile:
            app.meanwhile.pop()()
        return User(name)

    @app.post("/confirm")
    def confirm():
        confirm_login()
        return {"who": current_identity.subject}

    jar = set_cookies(raw_client(app).post("/login/alice?remember", headers=SAME_ORIGIN))
    jam.sessions.delete(jar[COOKIE][0])
    return jar[REMEMBER][0]


def opened(app, token, method="get", path="/me"):
    """A tab that is opened with nothing but what remembers the browser."""
    return getattr(raw_client(app), method)(path, headers={**SAME_ORIGIN, **cookies((REMEMBER, token))})


def test_a_tab_in_which_the_user_loader_fails_leaves_the_other_tab_signed_in(app, tabs):
    app.testing = False  # as in production: 500 is an answer
    others = []

    def other_tab_and_failure():
        others.append(opened(app, tabs))
        raise RuntimeError

    app.meanwhile.append(other_tab_and_failure)
    assert opened(app, tabs).status_code == 500
    (other,) = others
    assert other.json["who"] == "alice"
    assert lives(app, set_cookies(other)[COOKIE][0])
    assert opened(app, set_cookies(other)[REMEMBER][0]).status_code == 200


def test_a_browser_whose_only_tab_failed_in_the_user_loader_may_come_again(app, tabs):
    app.testing = False

    def failure():
        raise RuntimeError

    app.meanwhile.append(failure)
    assert opened(app, tabs).status_code == 500
    again = opened(app, tabs)
    assert again.json["who"] == "alice"
    assert lives(app, set_cookies(again)[COOKIE][0])


def test_a_tab_that_comes_late_leaves_a_session_alone_that_was_confirmed_meanwhile(app, jam, tabs):
    confirmed = []

    def other_tab():
        confirmed.append(opened(app, tabs, "post", "/confirm"))

    app.meanwhile.append(other_tab)
    opened(app, tabs)
    (response,) = confirmed
    assert response.json == {"who": "alice"}
    handle = set_cookies(response)[COOKIE][0]
    assert jam.sessions.verify(handle).fresh is True
    assert lives(app, handle)
    assert len(jam.sessions.list("alice")) == 1


def test_a_tab_that_comes_after_the_session_was_confirmed_leaves_it_alone(app, jam, tabs):
    handle = set_cookies(opened(app, tabs, "post", "/confirm"))[COOKIE][0]
    opened(app, tabs)
    assert lives(app, handle)
    assert len(jam.sessions.list("alice")) == 1


def test_a_tab_that_comes_late_gets_no_handle_that_is_dead(app, jam, tabs):
    opened(app, tabs, "post", "/confirm")
    late = set_cookies(opened(app, tabs)).get(COOKIE, ("", None))[0]
    assert late == "" or jam.sessions.get(late) is not None


# -- 7: an app with many routes ----------------------------------------------------------------------------------


def test_no_route_is_looked_at_again_for_each_token(app, monkeypatch):
    for number in range(300):
        app.add_url_rule(f"/route/{number}", f"route-{number}", login_required(lambda: "x"))
    walks = []
    found = app.url_map.iter_rules

    def counted(*args):
        walks.append(args)
        return found(*args)

    monkeypatch.setattr(app.url_map, "iter_rules", counted)
    for _ in range(20):
        with app.test_request_context():
            create_access_token("alice")
    assert len(walks) <= 1


# -- 8: rehearsals ------------------------------------------------------------------------------------------------


class Everything:
    """A store, and everything that is in it, whoever's it is and whether it is dead or not."""

    def __init__(self, store, dump):
        self.store, self.dump = store, dump


@pytest.fixture(params=["memory", "SQLite"])
def real(request, tmp_path):
    path = tmp_path / "jam.sqlite3"
    if request.param == "memory":
        store = open_store("memory://")
        dump = lambda: repr(vars(store))  # noqa: E731
    else:
        store = open_store(f"sqlite:///{path}")

        def dump():
            connection = sqlite3.connect(path)
            try:
                tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
                return {name: sorted(connection.execute(f"SELECT * FROM {name}"), key=repr) for (name,) in tables}
            finally:
                connection.close()

    yield Everything(store, dump)
    store.close()


@pytest.fixture
def here(real):
    """Records of alice's in a store: one that lives, one that is dead, and one of a generation before."""
    records = {
        "live": new_record("alice", data={"data": {"n": 1}}),
        "other": new_record("alice"),
        "dead": new_record("alice", ends_at=NOW + 1),
    }
    real.store.create_tables()
    for record in records.values():
        real.store.add(record, NOW)
    real.store.count_up("attempts", 600.0, 5, NOW)
    real.store.advance("bob", ["session"], NOW)
    return records


LATER = NOW + 60
VERBS = {
    "add": lambda store, here: store.add(new_record("alice"), LATER),
    "add one that is there": lambda store, here: store.add(here["live"], LATER),
    "add one where a dead one is": lambda store, here: store.add(
        msgspec.structs.replace(here["dead"], ends_at=LATER + 1), LATER
    ),
    "add an outdated one": lambda store, here: store.add(new_record("bob"), LATER),
    "get": lambda store, here: store.get(KIND, here["live"].id, LATER),
    "get and touch": lambda store, here: store.get(KIND, here["live"].id, LATER, 0) is not None,
    "get a dead one": lambda store, here: store.get(KIND, here["dead"].id, LATER),
    "get none": lambda store, here: store.get(KIND, "A" * 24, LATER),
    "marks": lambda store, here: (store.marks("alice", "", LATER), store.marks("bob", "", LATER)),
    "swap": lambda store, here: store.swap(
        here["live"], msgspec.structs.replace(here["live"], data={"data": {"n": 2}}), LATER
    ),
    "swap for a new id": lambda store, here: store.swap(
        here["live"], msgspec.structs.replace(here["live"], id=here["live"].id[:-4] + "aaaa"), LATER
    ),
    "swap what changed": lambda store, here: store.swap(
        msgspec.structs.replace(here["live"], version=7), here["live"], LATER
    ),
    "swap a dead one": lambda store, here: store.swap(here["dead"], here["dead"], LATER),
    "take": lambda store, here: store.take(KIND, here["live"].id, LATER),
    "take a dead one": lambda store, here: store.take(KIND, here["dead"].id, LATER),
    "remove": lambda store, here: store.remove(KIND, here["live"].id),
    "remove none": lambda store, here: store.remove(KIND, "A" * 24),
    "advance": lambda store, here: store.advance("alice", ["session", "access_token"], LATER),
    "advance everyone": lambda store, here: store.advance(None, ["session"], LATER),
    "list": lambda store, here: store.list("alice", KIND, LATER),
    "list a page": lambda store, here: store.list("alice", KIND, LATER, min(here["live"].id, here["other"].id), 1),
    "count_up": lambda store, here: store.count_up("attempts of another name", 600.0, 5, LATER),
    "count_back": lambda store, here: store.count_back("attempts", LATER),
    "count_reset": lambda store, here: store.count_reset("attempts"),
    "purge": lambda store, here: store.purge(LATER),
    "check": lambda store, here: store.check(),
}
ANSWERED = [name for name in VERBS if not name.startswith("advance")]  # that answers with what was there
verbs = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)


def outcome(store, here, verb):
    try:
        return verb(store, here)
    except Exception as error:
        return type(error)


@verbs
def test_a_rehearsal_leaves_the_store_as_it_was(real, here, verb):
    before = real.dump()
    outcome(RehearsalStore(real.store), here, verb)
    assert real.dump() == before


@pytest.mark.parametrize("verb", [VERBS[name] for name in ANSWERED], ids=ANSWERED)
def test_a_rehearsal_answers_as_the_store_would(real, here, verb):
    rehearsed = outcome(RehearsalStore(real.store), here, verb)
    assert outcome(real.store, here, verb) == rehearsed  # in this order: now it happens


@pytest.mark.parametrize("name", ["add", "swap", "take", "remove", "advance", "count_back", "count_reset"])
def test_what_a_rehearsal_must_not_do_shows_when_the_store_does_it(real, here, name):
    before = real.dump()
    outcome(real.store, here, VERBS[name])
    assert real.dump() != before


def test_what_is_added_in_a_rehearsal_is_found_in_it_and_in_no_other_one(real, here):
    rehearsal, record = RehearsalStore(real.store), new_record("alice")
    rehearsal.add(record, NOW)
    assert rehearsal.get(KIND, record.id, NOW).record == record
    assert RehearsalStore(real.store).get(KIND, record.id, NOW) is None
    assert real.store.get(KIND, record.id, NOW) is None


def test_what_is_swapped_in_a_rehearsal_is_found_in_it_under_its_new_id_alone(real, here):
    rehearsal, old = RehearsalStore(real.store), here["live"]
    new = msgspec.structs.replace(old, id=old.id[:-4] + "aaaa")
    kept = rehearsal.swap(old, new, NOW)
    assert rehearsal.get(KIND, new.id, NOW).record == kept
    assert rehearsal.get(KIND, old.id, NOW) is None
    assert RehearsalStore(real.store).get(KIND, old.id, NOW).record == old


@pytest.mark.parametrize("end", ["take", "remove"])
def test_what_is_ended_in_a_rehearsal_is_gone_in_it_and_there_in_every_other_one(real, here, end):
    rehearsal, record = RehearsalStore(real.store), here["live"]
    if end == "take":
        assert rehearsal.take(KIND, record.id, NOW) == record
        assert rehearsal.take(KIND, record.id, NOW) is None
    else:
        rehearsal.remove(KIND, record.id)
    assert rehearsal.get(KIND, record.id, NOW) is None
    assert RehearsalStore(real.store).get(KIND, record.id, NOW).record == record


def test_what_is_added_in_a_rehearsal_dies_in_it_at_its_time(real, here):
    rehearsal, record = RehearsalStore(real.store), new_record("alice", ends_at=NOW + 10)
    rehearsal.add(record, NOW)
    assert rehearsal.get(KIND, record.id, NOW + 10) is None


def test_a_session_that_begins_in_a_rehearsal_is_good_in_it_alone(real, secret, clock):
    jam = Jam({"secret": secret}, store=real.store, clock=clock)
    real.store.create_tables()
    token, _ = jam.logins.remember("alice")
    before = real.dump()
    rehearsal = jam.rehearsing()
    handle, _, identity = rehearsal.logins.restore(token)
    assert (identity.subject, rehearsal.sessions.verify(handle).subject) == ("alice", "alice")
    for other in (jam, jam.rehearsing()):
        with pytest.raises(SessionInvalid):
            other.sessions.verify(handle)
    assert real.dump() == before
