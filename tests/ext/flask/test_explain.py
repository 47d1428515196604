# ruff: noqa: RUF012 - as flask-restful's documentation writes it
"""Every refusal is explained: in the log, to a developer in debug mode, and by ``flask jam explain``; without secrets."""

import json
import logging
import re
import secrets
from datetime import timedelta

import flask_restful
import pytest
from flask import Blueprint, Flask, jsonify, session
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from werkzeug.routing import BaseConverter

from jam import Jam
from jam.checkpoints import Checkpoint
from jam.errors import AccessDenied, JamError, StoreUnavailable
from jam.ext.flask import (
    APIKeyCheckpoint,
    Authenticated,
    BearerCheckpoint,
    Claim,
    Fresh,
    HasRole,
    HasScope,
    JWTExtension,
    Method,
    SameOrigin,
    SessionCheckpoint,
    SessionExtension,
    UserMixin,
    checkpoint,
    deny_by_default,
    fresh_login_required,
    jwt_required,
    login_required,
    login_user,
    protect,
    public,
    verify_jwt_in_request,
)
from jam.stores.memory import MemoryStore
from jam.testing import MovableClock
from tests.ext.flask.callers import CROSS_SITE, PAGE, SAME_ORIGIN, bearer, cookies, raw_client

LINE = re.compile(
    r"Refused (?P<method>\S+) '(?P<path>.*)' \(request (?P<id>\S+)\): (?P<status>\d+) (?P<code>\w+); (?P<rest>.*)"
)


class Account(UserMixin):
    def __init__(self, name, *, active=True, roles=()):
        self.id = name
        self.active = active
        self.roles = roles

    @property
    def is_active(self):
        return self.active


class UncertainStore(MemoryStore):
    """Goes away in the middle of the day."""

    away = False

    def marks(self, *arguments):
        if self.away:
            raise StoreUnavailable
        return super().marks(*arguments)

    def get(self, *arguments):
        if self.away:
            raise StoreUnavailable
        return super().get(*arguments)


class Counting(Checkpoint):
    """Counts how often it is asked, and how often it is asked to account for itself."""

    def __init__(self):
        self.asked = self.evaluated = self.shown = 0

    def refusal(self, identity, now):
        self.asked += 1
        return AccessDenied()

    def evaluate(self, identity, now):
        self.evaluated += 1
        return super().evaluate(identity, now)

    def __repr__(self):
        self.shown += 1
        return "Counting()"


class Anything(BaseConverter):
    """A part of a path that may hold whatever there is, line ends too."""

    regex = "(?s:.+)"
    part_isolating = False


class Hostile(Checkpoint):
    """A checkpoint whose words come from somewhere else."""

    def refusal(self, identity, now):
        return AccessDenied("No.\r\nSet-Cookie: a=b <script>alert(1)</script> é", hint="Try\n<b>harder</b>.")

    def __repr__(self):
        return "Hostile('\r\n<img src=x>')"


@pytest.fixture
def app(app, jam):
    """Takes tokens in the header and sessions in the cookie ``sessionId``."""
    JWTExtension(jam, app)
    app.sessions = SessionExtension(jam, app)
    return app


@pytest.fixture
def log(caplog):
    """The lines that explain a refusal."""
    caplog.set_level(logging.INFO, logger="jam.flask")
    return lambda: [record.getMessage() for record in caplog.records if record.getMessage().startswith("Refused")]


@pytest.fixture
def ask(app):
    def send(path="/", method="GET", headers=None, **options):
        return raw_client(app).open(path, method=method, headers=headers, **options)

    return send


@pytest.fixture
def told(ask, log):
    """Sends a request that is refused and gives the parts of the one line that explains it."""

    def send(*arguments, **options):
        ask(*arguments, **options)
        (line,) = log()
        return LINE.fullmatch(line).groupdict()

    return send


def guarded(app, guard, path="/"):
    app.route(path, methods=["GET", "POST"], endpoint=f"view {path}")(guard(lambda: "in"))


def run(app, *arguments):
    return app.test_cli_runner().invoke(args=["jam", "explain", *arguments])


def rehearsed(app, *arguments):
    """What the command says, for machines."""
    done = run(app, *arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def verdict(app, *arguments):
    found = rehearsed(app, *arguments)
    return found["status"], found["code"]


def asked(found):
    return [(step["checkpoint"], step["allowed"]) for step in found["checkpoints"]]


def held(found):
    """What each place held, and what became of it, by the place."""
    return {look["place"]: (look["held"], look["outcome"].partition(":")[0]) for look in found["looked"]}


def as_header(headers):
    return [part for name, value in headers.items() for part in ("--header", f"{name}: {value}")]


# -- the line in the log ------------------------------------------------------------------------------------


def test_a_refusal_is_one_line_in_the_log_at_info(app, ask, caplog):
    guarded(app, login_required)
    with caplog.at_level(logging.INFO, logger="jam.flask"):
        ask()
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("jam.flask", logging.INFO)


def test_the_line_says_what_was_asked_for_and_what_was_answered(app, told):
    guarded(app, login_required, "/in")
    line = told("/in", headers={"X-Request-ID": "r-1"})
    assert (line["method"], line["path"], line["id"]) == ("GET", "/in", "r-1")
    assert (line["status"], line["code"]) == ("401", "authentication_required")


def test_the_line_says_who_called_where_was_looked_what_was_asked_what_decided_and_what_to_do(app, told, token):
    guarded(app, checkpoint(Authenticated() & HasRole("admin")))
    assert told(headers=bearer(token))["rest"] == (
        "caller: 'alice' by jwt; "
        "looked in: header Authorization held an access token counted, cookie sessionId; "
        "asked: Authenticated() passed, HasRole('admin') refused; "
        "decided by: the credential's roles, or the app's get_user_roles; "
        "Give the user the role."
    )


def credential_cases(jam, clock):
    """Each credential that does not count, as the headers that bring it."""
    expired = jam.access_tokens.issue("alice", lifetime=10)
    clock.move(60)
    revoked = jam.access_tokens.issue("alice")
    jam.access_tokens.revoke(revoked)
    ended = jam.create_session("bob", {})
    jam.sessions.delete(ended)
    other = Jam({"secret": secrets.token_urlsafe(64)}, clock=clock)
    return {
        "nothing": ({}, "authentication_required", ""),
        "expired": (bearer(expired), "token_expired", "an access token"),
        "revoked": (bearer(revoked), "token_revoked", "an access token"),
        "refresh": (bearer(jam.refresh_tokens.issue("alice")), "token_invalid", "a refresh token"),
        "foreign": (bearer(other.access_tokens.issue("alice")), "token_invalid", "an access token"),
        "garbage": (bearer("nonsense"), "token_invalid", "something of 8 characters"),
        "ended": (cookies(("sessionId", ended)), "session_invalid", "a session's handle"),
        "no handle": (cookies(("sessionId", "nonsense")), "session_invalid", "something of 8 characters"),
    }


CREDENTIALS = ["nothing", "expired", "revoked", "refresh", "foreign", "garbage", "ended", "no handle"]


@pytest.mark.parametrize("case", CREDENTIALS)
def test_a_credential_that_does_not_count_is_named_with_its_reason(app, told, jam, clock, case):
    guarded(app, login_required)
    headers, code, kind = credential_cases(jam, clock)[case]
    line = told(headers=headers)
    assert (line["status"], line["code"]) == ("401", code)
    if kind:
        assert re.search(rf"held {kind}[^,;]*(, id \S+)? {code}: ", line["rest"])
    else:
        assert "held" not in line["rest"]


@pytest.mark.parametrize("case", CREDENTIALS)
def test_the_command_line_gives_the_verdict_of_the_request(app, ask, jam, clock, case):
    guarded(app, login_required)
    headers, code, _ = credential_cases(jam, clock)[case]
    response = ask(headers=headers)
    assert verdict(app, "GET", "/", *as_header(headers)) == (response.status_code, response.json["code"])
    assert response.json["code"] == code


DEMANDS = {
    "role": (HasRole("admin"), 403, "role_required"),
    "scope": (HasScope("write"), 403, "insufficient_scope"),
    "claim": (Claim("tenant", "a"), 403, "claim_required"),
    "method": (Method("session"), 403, "method_required"),
    "not": (~Authenticated(), 403, "access_denied"),
    "fresh": (Fresh(60), 401, "insufficient_user_authentication"),
    "flask.session": (SessionCheckpoint("admin", True), 403, "claim_required"),
    "api key": (APIKeyCheckpoint("k" * 40), 403, "authentication_required"),
    "bearer": (BearerCheckpoint("k" * 40), 403, "api_key_invalid"),
}


@pytest.mark.parametrize("case", DEMANDS)
def test_a_demand_that_the_caller_does_not_meet_is_named(app, told, jam, clock, case):
    demand, status, code = DEMANDS[case]
    guarded(app, checkpoint(demand))
    token = jam.access_tokens.issue("alice", authenticated_at=clock())
    clock.move(120)
    line = told(headers=bearer(token))
    assert (line["status"], line["code"]) == (str(status), code)
    assert f"asked: {demand!r} refused" in line["rest"]
    assert "caller: 'alice' by jwt" in line["rest"]


@pytest.mark.parametrize("case", DEMANDS)
def test_the_command_line_finds_the_same_demand_unmet(app, ask, jam, clock, case):
    demand, status, code = DEMANDS[case]
    guarded(app, checkpoint(demand))
    token = jam.access_tokens.issue("alice", authenticated_at=clock())
    clock.move(120)
    assert ask(headers=bearer(token)).status_code == status
    assert verdict(app, "GET", "/", *as_header(bearer(token))) == (status, code)


def test_every_refusal_says_what_decided_and_what_to_do(app, ask, log, jam, clock):
    guarded(app, login_required, "/in")
    for number, (demand, *_) in enumerate(DEMANDS.values()):
        guarded(app, checkpoint(demand), f"/{number}")
    for number in range(len(DEMANDS)):
        ask(f"/{number}", headers=bearer(jam.access_tokens.issue("alice", authenticated_at=1.0)))
    for headers, *_ in credential_cases(jam, clock).values():
        ask("/in", headers=headers)
    assert len(log()) == len(DEMANDS) + len(CREDENTIALS)
    for line in log():
        assert re.search(r"; decided by: [^;]+; [^;]+", line), line


@pytest.mark.parametrize(
    ("function", "given"),
    [(lambda _: None, "user_unknown"), (lambda name: Account(name, active=False), "user_inactive")],
)
def test_a_good_credential_of_a_user_who_is_gone_or_not_active_is_told_with_that_reason(
    app, told, token, function, given
):
    app.sessions.user_loader(function)
    guarded(app, login_required)
    line = told(headers=bearer(token))
    assert line["code"] == given
    assert f"held an access token {given}: " in line["rest"]


def test_a_forged_request_is_told_with_the_cookie_that_was_not_opened(app, told, handle):
    guarded(app, login_required)
    line = told(method="POST", headers={**cookies(("sessionId", handle)), **CROSS_SITE})
    assert (line["status"], line["code"]) == ("403", "csrf_failed")
    assert f"cookie sessionId held a session's handle, id {handle.partition('.')[0]} csrf_failed: " in line["rest"]
    assert "csrf.trusted_origins" in line["rest"]


def test_a_request_with_two_tokens_is_told_with_both(new_app, jam, token, caplog):
    app = new_app(JWT_TOKEN_LOCATION=["headers", "query_string"])
    JWTExtension(jam, app)
    guarded(app, login_required)
    with caplog.at_level(logging.INFO, logger="jam.flask"):
        assert raw_client(app).get(f"/?jwt={token}", headers=bearer(token)).status_code == 400
    (line,) = [LINE.fullmatch(record.getMessage()) for record in caplog.records]
    assert line["code"] == "invalid_request"
    assert "header Authorization held an access token" in line["rest"]
    assert "query parameter jwt held an access token" in line["rest"]


def test_a_store_that_is_away_is_told(new_app, secret, clock, caplog):
    store = UncertainStore()
    jam = Jam({"secret": secret}, clock=clock, store=store)
    app = new_app()
    JWTExtension(jam, app)
    guarded(app, login_required)
    token = jam.access_tokens.issue("alice")
    assert raw_client(app).get("/", headers=bearer(token)).status_code == 200
    store.away = True
    with caplog.at_level(logging.INFO, logger="jam.flask"):
        assert raw_client(app).get("/", headers=bearer(token)).status_code == 503
    lines = [LINE.fullmatch(record.getMessage()) for record in caplog.records]
    assert [line and (line["status"], line["code"]) for line in lines] == [("503", "store_unavailable")]


def test_a_credential_that_did_not_count_is_told_even_if_another_one_did(app, told, jam, clock, handle):
    guarded(app, checkpoint(HasRole("admin")))
    token = jam.access_tokens.issue("alice", lifetime=10)
    clock.move(60)
    line = told(headers={**bearer(token), **cookies(("sessionId", handle))})
    assert "caller: 'bob' by session" in line["rest"]
    assert "cookie sessionId held a session's handle" in line["rest"]
    assert "header Authorization held an access token token_expired: " in line["rest"]


def test_each_of_two_cookies_of_one_name_is_told(app, told, jam):
    guarded(app, login_required)
    handles = [jam.create_session(name, {}) for name in ("alice", "bob")]
    for handle in handles:
        jam.sessions.delete(handle)
    line = told(headers=cookies(*(("sessionId", handle) for handle in handles)))
    for handle in handles:
        assert f"id {handle.partition('.')[0]} session_invalid" in line["rest"]


def test_the_public_name_of_a_session_is_told_so_that_it_can_be_found_in_lists(app, told, handle, jam):
    guarded(app, checkpoint(HasRole("admin")))
    assert (
        f"id {jam.sessions.verify(handle).credential_id} counted"
        in told(headers=cookies(("sessionId", handle)))["rest"]
    )


def test_another_scheme_is_told_by_its_name(app, told):
    guarded(app, login_required)
    rest = told(headers={"Authorization": "Basic YTpi"})["rest"]
    assert "header Authorization held another scheme, Basic, cookie sessionId;" in rest


@pytest.mark.parametrize(
    ("setting", "headers"),
    [
        ({"JWT_HEADER_TYPE": "JWT"}, {"Authorization": "Bearer x"}),
        ({"JWT_HEADER_NAME": "X-Token"}, {"X-Token": "Basic x"}),
        ({"JWT_HEADER_NAME": "X-Token"}, {"X-Token": "x"}),
    ],
)
def test_a_header_that_holds_something_else_than_it_should_is_not_said_to_be_empty(
    new_app, jam, caplog, setting, headers
):
    app = new_app(**setting)
    JWTExtension(jam, app)
    guarded(app, login_required)
    with caplog.at_level(logging.INFO, logger="jam.flask"):
        raw_client(app).get("/", headers=headers)
    (line,) = [record.getMessage() for record in caplog.records]
    assert f"looked in: header {next(iter(headers))} held " in line


def test_a_credential_counts_for_one_kind_only_where_two_share_a_header(new_app, jam, handle, caplog):
    app = new_app()
    JWTExtension(jam, app)
    SessionExtension(jam, app, header_name="Authorization", cookie_name=None)
    guarded(app, checkpoint(HasRole("admin")))
    with caplog.at_level(logging.INFO, logger="jam.flask"):
        raw_client(app).get("/", headers=bearer(handle))
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.count(" counted") == 1


def test_what_should_have_remembered_a_browser_is_told_with_its_reason(app, told):
    guarded(app, login_required)
    line = told(headers=cookies(("remember_token", "nonsense")))
    assert line["code"] == "token_invalid"
    assert "cookie remember_token held something of 8 characters token_invalid: " in line["rest"]


def test_a_session_of_nobody_is_told(new_app, jam, caplog):
    app = new_app()
    SessionExtension(jam, app, flask_session=True)
    app.post("/cart")(lambda: session.update(cart=1) or "")
    guarded(app, login_required)
    client = app.test_client()
    client.post("/cart", headers=SAME_ORIGIN)
    with caplog.at_level(logging.INFO, logger="jam.flask"):
        assert client.get("/").status_code == 401
    (line,) = [record.getMessage() for record in caplog.records]
    assert "cookie sessionId held a session's handle" in line


def test_a_forged_request_to_a_form_is_told(app, told):
    guarded(app, checkpoint(SameOrigin()))
    line = told(method="POST", headers=CROSS_SITE)
    assert (line["status"], line["code"]) == ("403", "csrf_failed")
    assert "asked: SameOrigin() refused;" in line["rest"]


def test_of_a_missing_api_key_the_checkpoint_decided_and_not_where_the_app_looks_for_tokens(app, told):
    guarded(app, checkpoint(APIKeyCheckpoint("k" * 40)))
    assert "JWT_TOKEN_LOCATION" not in told()["rest"]


def test_of_a_malformed_request_no_checkpoint_is_said_to_have_been_asked(new_app, jam, token, caplog):
    app = new_app(JWT_TOKEN_LOCATION=["headers", "query_string"])
    JWTExtension(jam, app)
    demand = Counting()
    guarded(app, checkpoint(demand))
    with caplog.at_level(logging.INFO, logger="jam.flask"):
        raw_client(app).get(f"/?jwt={token}", headers=bearer(token))
    assert demand.asked == 0


def test_a_cookie_whose_name_only_ends_like_the_one_that_remembers_a_browser_is_not_taken_for_it(app, told):
    guarded(app, login_required)
    assert "remembers a browser" not in told(headers=cookies(("my_remember_token", "x")))["rest"]


def test_of_checkpoints_that_were_not_reached_nothing_is_said(app, told):
    guarded(app, checkpoint(Authenticated(), HasRole("admin")))
    assert "asked: Authenticated() refused;" in told()["rest"]


def test_all_checkpoints_that_an_or_asked_are_told(app, told, token):
    guarded(app, checkpoint(HasRole("a") | HasScope("b")))
    assert "asked: HasRole('a') refused, HasScope('b') refused;" in told(headers=bearer(token))["rest"]


def test_a_checkpoint_whose_failure_shows_the_view_is_not_the_one_that_said_no(app, told, token):
    already = HasScope("staff").action(pass_url="/home", disable_default_fail=True)
    guarded(app, checkpoint(already, HasRole("admin")))
    assert "HasRole('admin') refused; decided by" in told(headers=bearer(token))["rest"]


def test_a_checkpoint_is_asked_once_even_if_the_answer_is_explained(app, ask, log):
    demand = Counting()
    guarded(app, checkpoint(demand))
    ask()
    assert log()
    assert demand.asked == 1


# -- every shape of guard -----------------------------------------------------------------------------------


def by_checkpoint(app):
    guarded(app, checkpoint(Authenticated()))


def by_login_required(app):
    guarded(app, login_required)


def by_login_required_for_sessions(app):
    guarded(app, login_required(methods={"session"}))


def by_login_required_for_tokens(app):
    guarded(app, login_required(methods={"jwt"}))


def by_jwt_required(app):
    guarded(app, jwt_required())


def by_protecting_the_app(app):
    protect(app)
    app.route("/", endpoint="view")(lambda: "in")


def by_protecting_a_blueprint(app):
    blueprint = Blueprint("part", __name__)
    blueprint.route("/")(lambda: "in")
    protect(blueprint)
    app.register_blueprint(blueprint)


def by_default(app):
    deny_by_default(app)
    app.route("/", endpoint="view")(lambda: "in")


def by_flask_restful(app):
    class Thing(flask_restful.Resource):
        method_decorators = [login_required]

        def get(self):
            return "in"

    flask_restful.Api(app).add_resource(Thing, "/")


def by_flask_restful_for_one_method(app):
    class Thing(flask_restful.Resource):
        method_decorators = {"get": [checkpoint(Authenticated())]}

        def get(self):
            return "in"

    flask_restful.Api(app).add_resource(Thing, "/")


def before_an_async_view(app):
    @app.get("/")
    @login_required
    async def view():
        return "in"


SHAPES = [
    by_checkpoint, by_login_required, by_login_required_for_sessions, by_login_required_for_tokens, by_jwt_required,
    by_protecting_the_app, by_protecting_a_blueprint, by_default, by_flask_restful, by_flask_restful_for_one_method,
    before_an_async_view,
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_guard_explains_itself_once(app, told, shape):
    shape(app)
    line = told()
    assert (line["status"], line["code"]) == ("401", "authentication_required")


@pytest.mark.parametrize("shape", SHAPES)
def test_in_debug_mode_every_shape_of_guard_says_it_in_a_header(app, ask, shape):
    shape(app)
    app.debug = True
    assert ask().headers["Jam-Explanation"].startswith("401 authentication_required; caller: anonymous")


@pytest.mark.parametrize("shape", SHAPES)
def test_the_command_line_knows_every_shape_of_guard(app, shape):
    shape(app)
    assert verdict(app, "GET", "/") == (401, "authentication_required")


@pytest.mark.parametrize("shape", SHAPES)
def test_the_command_line_takes_the_caller_to_be_a_subject_before_every_shape_of_guard(app, shape):
    shape(app)
    found = rehearsed(app, "GET", "/", "--as", "alice")
    assert (found["status"], found["caller"].partition(" ")[0]) == (None, "'alice'")


def test_a_guard_in_the_middle_of_a_view_explains_itself(app, told):
    app.get("/")(lambda: str(verify_jwt_in_request()))
    assert told()["code"] == "authentication_required"


def test_only_the_places_that_a_guard_takes_are_listed(app, told):
    by_login_required_for_sessions(app)
    assert "looked in: cookie sessionId;" in told()["rest"]


def test_a_token_where_only_sessions_count_is_refused_on_the_command_line_too_whatever_guard_stands_before(
    app, ask, token
):
    protect(app)
    by_login_required_for_sessions(app)
    assert ask(headers=bearer(token)).status_code == 401
    assert verdict(app, "GET", "/", *as_header(bearer(token))) == (401, "authentication_required")


# -- answers of the app's own -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "action",
    [
        {"fail_url": "/login"},
        {"fail_json": {"no": "entry"}},
        {"fail_response": lambda: ("No.", 418)},
        {"fail_status": 404},
    ],
    ids=lambda action: next(iter(action)),
)
def test_a_checkpoint_with_an_answer_of_its_own_explains_its_refusal(app, ask, log, action):
    guarded(app, checkpoint(Authenticated().action(**action)))
    assert ask().status_code != 200
    assert ["Authenticated() refused" in line for line in log()] == [True]


@pytest.mark.parametrize(
    "action",
    [{"fail_url": "/login"}, {"fail_json": {"no": "entry"}}, {"fail_response": lambda: ("No.", 418)}],
    ids=lambda action: next(iter(action)),
)
def test_the_command_line_does_not_say_that_who_gets_such_an_answer_is_let_in(app, action):
    guarded(app, checkpoint(Authenticated().action(**action)))
    assert rehearsed(app, "GET", "/")["code"] == "authentication_required"


@pytest.mark.parametrize("key", [401, JamError])
def test_a_handler_of_the_apps_own_changes_nothing_about_the_explanation(app, ask, log, key):
    app.register_error_handler(key, lambda _: (jsonify(own=True), 401))
    app.debug = True
    guarded(app, login_required)
    response = ask()
    assert response.json == {"own": True}
    assert len(log()) == 1
    assert response.headers["Jam-Explanation"].startswith("401 authentication_required;")


def test_a_page_of_the_apps_own_is_left_as_it_is(app, ask):
    app.register_error_handler(401, lambda _: ("<!doctype html><p>Mine</p>", 401))
    app.debug = True
    guarded(app, login_required)
    response = ask(headers=PAGE)
    assert response.text == "<!doctype html><p>Mine</p>"
    assert "Jam-Explanation" in response.headers


def test_who_is_sent_to_sign_in_is_explained_too(app, ask, log):
    app.sessions.login_view = "/login"
    app.debug = True
    guarded(app, login_required)
    response = ask(headers=PAGE)
    assert response.status_code == 302
    assert "authentication_required; caller: anonymous" in response.headers["Jam-Explanation"]
    assert len(log()) == 1


def test_an_unauthorized_handler_is_explained_too(app, ask, log):
    app.sessions.callbacks.register("unauthorized_handler", lambda: ("Who are you?", 401))
    guarded(app, login_required)
    assert ask().text == "Who are you?"
    assert len(log()) == 1


# -- the request's name -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "x" * 128, "0b8f0a2e-5c8d-4f6e-9d2e-1a2b3c4d5e6f", "Root=1-67:a/b+c=_."])
def test_a_sound_request_id_is_taken_over(app, told, name):
    guarded(app, login_required)
    assert told(headers={"X-Request-ID": name})["id"] == name


@pytest.mark.parametrize(
    "name", ["", "x" * 129, "a b", "a\tb", "é", "<b>", "'", '"', "a;b", "%0a", "\x7f", "(x)", "\x1b[31m"]
)
def test_asvs_16_4_1_an_unsound_request_id_never_reaches_the_log(app, told, name):
    guarded(app, login_required)
    assert re.fullmatch(r"[0-9a-f]{16}", told(headers={"X-Request-ID": name})["id"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0")))
def test_asvs_16_4_1_whatever_the_request_id_is_the_line_keeps_its_form(app, caplog, name):
    if "view /" not in app.view_functions:
        guarded(app, login_required)
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="jam.flask"):
        app.test_client().get("/", environ_overrides={"HTTP_X_REQUEST_ID": name})
    (line,) = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(r"[A-Za-z0-9._:/+=-]{1,128}", LINE.fullmatch(line)["id"])


def test_without_one_each_request_gets_a_name_of_its_own(app, ask, log):
    guarded(app, login_required)
    ask()
    ask()
    assert len({LINE.fullmatch(line)["id"] for line in log()}) == 2


@pytest.mark.parametrize("headers", [{}, {"X-Request-ID": "r-1"}])
def test_log_header_and_page_have_the_same_name(app, ask, log, headers):
    guarded(app, login_required)
    app.debug = True
    response = ask(headers={**PAGE, **headers})
    (line,) = log()
    name = LINE.fullmatch(line)["id"]
    assert response.headers["X-Request-ID"] == name
    assert f"<td>{name}</td>" in response.text


# -- debug mode ---------------------------------------------------------------------------------------------


def test_in_debug_mode_the_header_is_what_the_log_says(app, ask, log):
    guarded(app, login_required)
    app.debug = True
    response = ask()
    (line,) = log()
    assert line.endswith(f": {response.headers['Jam-Explanation']}")


def test_in_debug_mode_jams_error_page_explains(app, ask, token):
    guarded(app, checkpoint(HasRole("admin")))
    app.debug = True
    page = ask(headers={**PAGE, **bearer(token)}).text
    for words in (
        "Why",
        "&#39;alice&#39; by jwt",
        "an access token",
        "HasRole(&#39;admin&#39;) refused",
        "Give the user the role.",
    ):
        assert words in page


def test_in_debug_mode_the_length_of_the_page_is_true(app, ask):
    guarded(app, login_required)
    app.debug = True
    response = ask(headers=PAGE)
    assert int(response.headers["Content-Length"]) == len(response.data)


def test_in_debug_mode_json_stays_as_it_is(app, ask):
    guarded(app, login_required)
    plain = ask().json
    app.debug = True
    assert ask().json == plain


def test_outside_debug_mode_nobody_is_told(app, ask, log):
    guarded(app, login_required)
    response = ask(headers=PAGE)
    assert not {"Jam-Explanation", "X-Request-ID"} & set(response.headers.keys())
    assert "Looked in" not in response.text
    assert "Authenticated()" not in response.text
    assert log()


@pytest.mark.parametrize("setting", [{"TESTING": True}, {"JAM_DEBUG": True}])
def test_neither_testing_nor_jams_own_debug_setting_shows_it(new_app, jam, setting):
    app = new_app(**setting)
    JWTExtension(jam, app)
    guarded(app, login_required)
    assert "Jam-Explanation" not in raw_client(app).get("/").headers


def test_outside_debug_mode_and_below_info_nothing_is_worked_out(app, ask, caplog):
    demand = Counting()
    guarded(app, checkpoint(demand))
    with caplog.at_level(logging.WARNING, logger="jam.flask"):
        assert ask().status_code == 401
    assert (demand.evaluated, demand.shown) == (0, 0)
    assert not caplog.records


def test_debug_mode_explains_whatever_the_log_level_is(app, ask, caplog):
    guarded(app, login_required)
    app.debug = True
    with caplog.at_level(logging.WARNING, logger="jam.flask"):
        assert "Jam-Explanation" in ask().headers
    assert not caplog.records


def test_who_is_let_in_is_not_told_anything(app, ask, log, token):
    guarded(app, login_required)
    app.debug = True
    response = ask(headers=bearer(token))
    assert response.status_code == 200
    assert not log()
    assert "Jam-Explanation" not in response.headers


def test_a_public_route_says_nothing(app, ask, log):
    deny_by_default(app)
    app.get("/")(public(lambda: "in"))
    app.debug = True
    assert "Jam-Explanation" not in ask(headers=bearer("nonsense")).headers
    assert not log()


def test_a_guard_that_lets_the_anonymous_pass_says_nothing(app, ask, log):
    guarded(app, jwt_required(optional=True))
    app.debug = True
    assert "Jam-Explanation" not in ask(headers=bearer("nonsense")).headers
    assert not log()


def test_a_page_that_does_not_exist_says_nothing(app, ask, log):
    deny_by_default(app)
    app.debug = True
    assert "Jam-Explanation" not in ask("/nowhere").headers
    assert not log()


# -- no secrets ---------------------------------------------------------------------------------------------


def pieces(credential, longer_than=8):
    """The parts of a secret that nobody may see."""
    size = longer_than + 1
    return {credential[at : at + size] for at in range(len(credential) - size + 1)}


def everything_said(app, caplog, headers):
    """All that log, header, page and command line tell about a request."""
    caplog.clear()
    app.debug = True  # which the command line sets by the environment
    with caplog.at_level(logging.DEBUG):
        response = raw_client(app).get("/", headers={**PAGE, **headers})
    assert "Jam-Explanation" in response.headers
    assert "<h2>Why</h2>" in response.text
    assert response.status_code in (401, 403)
    said = [*(record.getMessage() for record in caplog.records), str(response.headers), response.text]
    said += [
        run(app, "GET", "/", *as_header(headers)).output,
        run(app, "GET", "/", *as_header(headers), "--json").output,
    ]
    return "\n".join(said)


@pytest.fixture(scope="module")
def talkative():
    """An app in debug mode that refuses everybody, with its ``Jam``."""
    secret = secrets.token_urlsafe(64)
    jam = Jam({"secret": secret}, clock=MovableClock())
    app = Flask("talkative")
    app.config.update(TESTING=True, SECRET_KEY=secret)
    JWTExtension(jam, app)
    SessionExtension(jam, app)
    guarded(app, checkpoint(HasRole("nobody has it")))
    app.url_map.converters["anything"] = Anything
    app.url_map.merge_slashes = False
    guarded(app, login_required, "/any/<anything:rest>")
    return app, jam


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=1, max_size=30), st.booleans())
def test_asvs_16_2_5_no_part_of_a_sessions_secret_is_told(talkative, caplog, subject, alive):
    app, jam = talkative
    subject = subject.replace("\0", "0").encode("utf-8", "replace").decode()
    handle = jam.create_session(subject, {})
    if not alive:
        jam.sessions.delete(handle)
    said = everything_said(app, caplog, cookies(("sessionId", handle)))
    assert handle.partition(".")[0] in said
    assert not [piece for piece in pieces(handle.partition(".")[2]) if piece in said]


@pytest.mark.parametrize("kind", ["access", "refresh", "remember", "forged", "twisted"])
def test_asvs_16_2_5_no_part_of_a_tokens_signature_or_claims_is_told(talkative, caplog, kind):
    app, jam = talkative
    match kind:
        case "refresh":
            token = jam.refresh_tokens.issue("alice")
        case "remember":
            token = jam.logins.remember("alice")[0]
        case "forged":
            token = Jam({"secret": secrets.token_urlsafe(64)}, clock=jam.clock).access_tokens.issue("alice")
        case _:
            token = jam.access_tokens.issue("alice")
    if kind == "twisted":
        token = ".".join(reversed(token.split(".")))
    said = everything_said(app, caplog, bearer(token))
    _, claims, signature = token.split(".")
    assert not [piece for piece in pieces(signature) | pieces(claims) if piece in said]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=';,"\\'), min_size=9, max_size=80),
    st.sampled_from(["bearer", "cookie"]),
)
@example("eyJ0eXAiOiJodW50ZXIyaHVudGVyMiJ9.e30.c2lnbmF0dXJl", "bearer")
def test_asvs_16_2_5_no_part_of_anything_else_that_is_presented_is_told(talkative, caplog, marked, where):
    app, _ = talkative
    value = f"{secrets.token_urlsafe(12)}{marked}"
    headers = bearer(value) if where == "bearer" else cookies(("sessionId", value))
    said = everything_said(app, caplog, headers)
    assert not [piece for piece in pieces(value[:16]) if piece in said]


def test_asvs_16_2_5_a_credential_whose_scheme_was_forgotten_is_not_told(talkative, caplog, token):
    app, _ = talkative
    for value in (secrets.token_urlsafe(32), token, f"{secrets.token_urlsafe(32)} more"):
        said = everything_said(app, caplog, {"Authorization": value})
        assert not [piece for piece in pieces(value) if piece in said]


def test_asvs_16_2_5_credentials_of_other_schemes_are_not_told(talkative, caplog):
    app, _ = talkative
    value = secrets.token_urlsafe(32)
    said = everything_said(app, caplog, {"Authorization": f"Basic {value}"})
    assert "Basic" in said
    assert not [piece for piece in pieces(value) if piece in said]


@pytest.mark.parametrize(
    "demand", [APIKeyCheckpoint, lambda key: APIKeyCheckpoint(key, "query_param", "key"), BearerCheckpoint]
)
def test_asvs_16_2_5_neither_the_right_api_key_nor_the_wrong_one_is_told(app, log, demand):
    right, wrong = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    guarded(app, checkpoint(demand(right)))
    app.debug = True
    headers = {**PAGE, "X-API-Key": wrong, **bearer(wrong)}
    response = raw_client(app).get(f"/?key={wrong}", headers=headers)
    assert response.status_code == 401
    shown = run(app, "GET", f"/?key={wrong}", *as_header(headers)).output
    said = f"{log()}{response.headers}{response.text}{shown}"
    assert "api_key_invalid" in said
    assert not [piece for piece in pieces(right) | pieces(wrong) if piece in said]


def test_asvs_16_2_5_a_token_in_the_query_string_is_not_told(new_app, jam, caplog):
    app = new_app(JWT_TOKEN_LOCATION=["query_string"])
    JWTExtension(jam, app)
    guarded(app, checkpoint(HasRole("admin")))
    app.debug = True
    token = jam.access_tokens.issue("alice")
    with caplog.at_level(logging.DEBUG):
        response = raw_client(app).get(f"/?jwt={token}", headers=PAGE)
    said = f"{caplog.text}{response.headers}{response.text}{run(app, 'GET', f'/?jwt={token}').output}"
    assert "query parameter jwt" in said
    assert not [piece for piece in pieces(token.rpartition(".")[2]) if piece in said]


# -- nobody can write into the log, a header or a page ------------------------------------------------------


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=1, max_size=40))
@example("\r\nRefused GET '/' (request x): 200 ok")
@example("\u2028\u202e<script>")
def test_asvs_16_4_1_a_hostile_subject_stays_in_its_line_and_out_of_the_markup(talkative, caplog, subject):
    app, jam = talkative
    subject = subject.replace("\0", "0").encode("utf-8", "replace").decode()
    token = jam.access_tokens.issue(subject)
    app.debug = True
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="jam.flask"):
        response = raw_client(app).get("/", headers={**PAGE, **bearer(token)})
    assert response.status_code == 403
    (line,) = [record.getMessage() for record in caplog.records]
    assert all(" " <= character <= "~" for character in line)
    assert all(" " <= character <= "~" for character in response.headers["Jam-Explanation"])
    assert set(re.findall(r"<(/?[a-zA-Z0-9]+)", response.text)) <= {
        "html", "meta", "title", "/title", "h1", "/h1", "p", "/p", "small", "/small",
        "h2", "/h2", "table", "/table", "tr", "/tr", "th", "/th", "td", "/td",
    }  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=40))
@example("\r\nRefused GET '/' (request x): 200 ok")
@example("\u2028\x1b[31m<script>")
def test_asvs_16_4_1_a_hostile_path_stays_in_its_line(talkative, caplog, path):
    app, _ = talkative
    caplog.clear()
    raw = f"/any/x{path}".encode("utf-8", "replace").decode("latin-1")
    with caplog.at_level(logging.INFO, logger="jam.flask"):
        app.test_client().get("/", environ_overrides={"PATH_INFO": raw})
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.isprintable()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), min_size=1, max_size=60))
@example("<script>alert(1)</script> x")
def test_asvs_16_4_1_a_hostile_scheme_stays_in_its_line_and_out_of_the_markup(talkative, caplog, scheme):
    app, _ = talkative
    app.debug = True
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="jam.flask"):
        response = app.test_client().get("/", headers=PAGE, environ_overrides={"HTTP_AUTHORIZATION": f"{scheme} x"})
    (line,) = [record.getMessage() for record in caplog.records]
    assert all(" " <= character <= "~" for character in line)
    assert "<script" not in response.text


def test_asvs_16_4_1_a_checkpoints_own_words_stay_in_their_line_and_out_of_the_markup(app, ask, log, token):
    guarded(app, checkpoint(Hostile()))
    app.debug = True
    response = ask(headers={**PAGE, **bearer(token)})
    (line,) = log()
    assert line.isascii()
    assert line.isprintable()
    assert "Set-Cookie" not in response.headers
    assert "<script" not in response.text
    assert "<img" not in response.text
    assert "<b>" not in response.text


def test_asvs_16_4_1_a_header_longer_than_servers_take_is_cut(app, ask):
    guarded(app, checkpoint(HasRole(*(f"role-{number}" for number in range(2000)))))
    app.debug = True
    assert len(ask().headers["Jam-Explanation"]) == 2000


# -- flask jam explain --------------------------------------------------------------------------------------


def test_explain_prints_the_verdict_two_tables_and_what_to_do(app, token):
    guarded(app, checkpoint(HasRole("admin")), "/admin")
    done = run(app, "GET", "/admin", "--header", f"Authorization: Bearer {token}")
    assert done.exit_code == 0
    lines = [re.sub(r"  +", " | ", line) for line in done.output.splitlines()]
    assert lines == [
        "GET /admin: 403 role_required",
        "caller: 'alice' by jwt",
        "",
        "Looked in | Held | Outcome",
        lines[4],
        "header Authorization | an access token | counted",
        "cookie sessionId",
        "",
        "Asked | Answer | Reason",
        lines[9],
        "HasRole('admin') | refused | A role is required: 'admin'.",
        "",
        "Decided by: the credential's roles, or the app's get_user_roles",
        "",
        "What to do: Give the user the role.",
    ]


def test_explain_says_that_somebody_is_let_in(app, token):
    guarded(app, login_required)
    done = run(app, "GET", "/", "--header", f"Authorization: Bearer {token}")
    assert done.exit_code == 0
    assert done.output.startswith("GET /: let in\n")
    assert "What to do" not in done.output


def test_explain_for_machines_is_an_object(app):
    guarded(app, login_required)
    found = rehearsed(app, "GET", "/")
    assert set(found) == {
        "request_id", "method", "path", "caller", "looked", "checkpoints", "status", "code", "message", "setting", "advice",
    }  # fmt: skip


def test_a_cookie_can_be_given_by_itself(app, handle):
    guarded(app, login_required)
    found = rehearsed(app, "GET", "/", "--cookie", f"sessionId={handle}")
    assert found["caller"] == "'bob' by session"
    assert held(found)["cookie sessionId"] == (f"a session's handle, id {handle.partition('.')[0]}", "counted")


def test_several_cookies_and_headers_can_be_given(app, handle, token):
    guarded(app, login_required)
    found = rehearsed(
        app, "POST", "/", "--cookie", "a=b", "--cookie", f"sessionId={handle}",
        "--header", "Sec-Fetch-Site: same-origin", "--header", "Accept: */*",
    )  # fmt: skip
    assert found["caller"] == "'bob' by session"


def test_a_cookie_of_an_unsafe_request_is_not_opened_here_either(app, handle):
    guarded(app, login_required)
    assert verdict(app, "POST", "/", "--cookie", f"sessionId={handle}") == (403, "csrf_failed")


def test_the_method_may_be_written_in_small_letters(app):
    guarded(app, login_required)
    assert rehearsed(app, "post", "/")["method"] == "POST"


def test_the_methods_of_a_route_are_told_apart(app):
    app.get("/", endpoint="read")(checkpoint(HasScope("read"))(lambda: ""))
    app.post("/", endpoint="write")(checkpoint(HasScope("write"))(lambda: ""))
    assert asked(rehearsed(app, "GET", "/")) == [("HasScope('read')", False)]
    assert asked(rehearsed(app, "POST", "/")) == [("HasScope('write')", False)]


def test_guards_are_asked_in_the_order_of_a_request(app, token):
    blueprint = Blueprint("part", __name__)
    blueprint.get("/")(checkpoint(HasRole("view"))(lambda: ""))
    protect(blueprint, HasRole("part"))
    protect(app, HasRole("app"))
    app.register_blueprint(blueprint)
    roles = []
    for expected in ("app", "part", "view"):
        found = rehearsed(
            app, "GET", "/", *as_header(bearer(app.extensions["jam"].access_tokens.issue("a", roles=roles)))
        )
        assert asked(found)[-1] == (f"HasRole('{expected}')", False)
        roles.append(expected)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", "/", 405), ("BREW", "/", 405)]
)
def test_what_reaches_no_route_is_said_to_be_answered_before_any_guard(app, method, path, status):
    guarded(app, login_required)
    done = run(app, method, path)
    assert done.exit_code == 1
    assert f"{method} {path} is answered {status} before any guard." in done.output


def test_a_route_without_a_guard_is_said_to_be_open(app):
    app.get("/")(lambda: "in")
    done = run(app, "GET", "/")
    assert done.exit_code == 1
    assert "No guard was found before this route" in done.output


def test_a_public_route_under_deny_by_default_is_said_to_be_open(app):
    deny_by_default(app)
    app.get("/")(public(lambda: "in"))
    assert "No guard was found before this route" in run(app, "GET", "/").output


def test_options_that_flask_answers_itself_are_open(app, ask):
    guarded(app, login_required)
    assert ask(method="OPTIONS").status_code == 200
    assert "No guard was found before this route" in run(app, "OPTIONS", "/").output


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("GET",),
        ("GET", "/", "--header", "nonsense"),
        ("GET", "/", "--header", "X: a\nb"),
        ("GET", "/", "--cookie", "nonsense"),
        ("GET", "/", "--as", ""),
        ("GET", "/", "--nonsense"),
    ],
)
def test_wrong_usage_is_told_with_exit_status_2(app, arguments):
    guarded(app, login_required)
    done = run(app, *arguments)
    assert done.exit_code == 2
    assert done.output.startswith("Usage:")


def test_an_app_without_an_extension_that_looks_for_credentials_is_a_message_and_no_traceback(new_app, jam):
    app = new_app()
    SessionExtension(jam, app)
    guarded(app, jwt_required())
    done = run(app, "GET", "/")
    assert done.exit_code == 1
    assert done.output.startswith("Error: A guard demands a token")


def test_a_store_that_is_away_is_not_mistaken_for_being_let_in(new_app, secret, clock):
    store = UncertainStore()
    jam = Jam({"secret": secret}, clock=clock, store=store)
    app = new_app()
    JWTExtension(jam, app)
    guarded(app, login_required)
    headers = as_header(bearer(jam.access_tokens.issue("alice")))
    assert verdict(app, "GET", "/", *headers) == (None, None)
    store.away = True
    done = run(app, "GET", "/", *headers)
    assert "let in" not in done.output
    assert "503" in done.output or "temporarily unavailable" in done.output


def test_an_app_at_a_host_of_its_own_is_asked_there(new_app, jam):
    app = new_app(SERVER_NAME="shop.example", JAM_HTTPS=True)
    SessionExtension(jam, app, cookie_name="__Host-session")
    guarded(app, login_required)
    arguments = (
        "--cookie",
        f"__Host-session={jam.create_session('bob', {})}",
        "--header",
        "Origin: https://shop.example",
    )
    assert verdict(app, "POST", "/", *arguments) == (None, None)


# -- --as ---------------------------------------------------------------------------------------------------


@pytest.fixture
def people(app):
    """Users that the app knows, and the names that were asked for."""
    known = {"ann": Account("ann", roles=["admin"]), "ian": Account("ian", active=False), "una": Account("una")}
    app.sessions.user_loader(known.get)
    app.sessions.get_user_roles(lambda user: user.roles)
    return known


def test_as_a_subject_has_the_roles_that_the_app_gives_its_user(app, people):
    guarded(app, checkpoint(HasRole("admin")))
    assert verdict(app, "GET", "/", "--as", "ann") == (None, None)
    assert verdict(app, "GET", "/", "--as", "una") == (403, "role_required")


def test_as_a_subject_whom_the_app_does_not_know_is_refused(app, people):
    guarded(app, login_required)
    assert verdict(app, "GET", "/", "--as", "zoe") == (401, "user_unknown")


def test_as_a_user_who_is_not_active_is_refused(app, people):
    guarded(app, login_required)
    assert verdict(app, "GET", "/", "--as", "ian") == (403, "user_inactive")


def test_as_a_user_who_is_not_authenticated_is_refused_as_in_a_request(app, ask, jam):
    class Ghost(Account):
        is_authenticated = False

    app.sessions.user_loader(Ghost)
    guarded(app, login_required)
    assert ask(headers=bearer(jam.access_tokens.issue("ann"))).json["code"] == "user_unknown"
    assert verdict(app, "GET", "/", "--as", "ann") == (401, "user_unknown")


def test_as_a_subject_for_whom_the_loader_gives_false_is_refused_as_in_a_request(app, ask, jam):
    app.sessions.user_loader(lambda _: False)
    guarded(app, login_required)
    assert ask(headers=bearer(jam.access_tokens.issue("ann"))).json["code"] == "user_unknown"
    assert verdict(app, "GET", "/", "--as", "ann") == (401, "user_unknown")


def test_as_a_subject_an_async_user_loader_is_asked_too(app):
    @app.sessions.user_loader
    async def load(name):
        return Account(name, active=False)

    guarded(app, login_required)
    assert verdict(app, "GET", "/", "--as", "ann") == (403, "user_inactive")


@pytest.mark.parametrize("guard", [checkpoint(Fresh(60)), fresh_login_required])
def test_as_a_subject_somebody_has_just_signed_in(app, guard):
    guarded(app, guard)
    assert verdict(app, "GET", "/", "--as", "ann") == (None, None)


def test_as_a_subject_an_unsafe_request_needs_no_cookie_and_is_not_forged(app):
    guarded(app, login_required)
    assert verdict(app, "POST", "/", "--as", "ann") == (None, None)


def test_as_a_subject_a_credential_that_is_given_too_proves_nobody(app, token):
    guarded(app, login_required)
    assert rehearsed(app, "GET", "/", "--as", "ann", *as_header(bearer(token)))["caller"] == "'ann' by session"


def test_as_a_hostile_subject_the_output_keeps_its_lines(app):
    guarded(app, checkpoint(HasRole("admin")))
    lines = run(app, "GET", "/", "--as", "a\nGET /: let in\x1b[31m").output.splitlines()
    assert "GET /: let in" not in lines
    assert all(line.isprintable() for line in lines)


def test_a_checkpoints_own_words_keep_to_their_line_of_the_table(app):
    guarded(app, checkpoint(Hostile()))
    assert all(line.isprintable() for line in run(app, "GET", "/", "--as", "ann").output.split("\n"))


# -- nothing is changed -------------------------------------------------------------------------------------


def test_explain_runs_no_view(app, token):
    ran = []
    app.get("/")(login_required(lambda: ran.append(1) or ""))
    assert verdict(app, "GET", "/", *as_header(bearer(token))) == (None, None)
    assert not ran


def test_explain_runs_none_of_the_apps_hooks(app, token):
    ran = []
    app.before_request(lambda: ran.append("before"))
    app.after_request(lambda response: ran.append("after") or response)
    guarded(app, login_required)
    run(app, "GET", "/", *as_header(bearer(token)))
    assert not ran


def test_explain_does_not_count_as_use_of_a_session(app, jam, clock):
    guarded(app, login_required)
    handle = jam.create_session("bob", {})
    idle = jam.settings.sessions.idle_for
    clock.move(idle - 10)
    assert verdict(app, "GET", "/", "--cookie", f"sessionId={handle}") == (None, None)
    clock.move(20)
    assert verdict(app, "GET", "/", "--cookie", f"sessionId={handle}") == (401, "session_invalid")


def remembering(app):
    @app.post("/sign-in")
    def sign_in():
        login_user(Account("ann"), remember=True, duration=timedelta(days=10))
        return ""

    guarded(app, login_required, "/in")
    client = app.test_client()
    client.post("/sign-in", headers=SAME_ORIGIN)
    return client


def test_explain_does_not_rotate_what_remembers_a_browser(app, jam):
    client = remembering(app)
    token = client.get_cookie("remember_token").value
    before = jam.remember_me.standing(token)[1:]
    run(app, "GET", "/in", "--cookie", f"remember_token={token}")
    assert jam.remember_me.standing(token)[1:] == before
    assert len(jam.logins.list("ann")) == 1


def test_explain_gives_a_remembered_browser_the_verdict_of_the_request(app, ask):
    client = remembering(app)
    client.delete_cookie("sessionId")
    token = client.get_cookie("remember_token").value
    found = verdict(app, "GET", "/in", "--cookie", f"remember_token={token}")
    assert client.get("/in").status_code == 200
    assert found == (None, None)


def test_explain_does_not_end_the_family_of_a_refresh_token_that_was_superseded(app, jam, clock):
    guarded(app, jwt_required(refresh=True))
    old = jam.refresh_tokens.issue("alice")
    new = jam.refresh_tokens.rotate(old)
    clock.move(3600)
    assert verdict(app, "GET", "/", *as_header(bearer(old))) == (401, "refresh_token_reused")
    assert jam.refresh_tokens.verify(new).subject == "alice"


def test_explain_tells_no_refusal_that_nobody_met_to_the_log(app, log):
    guarded(app, login_required)
    run(app, "GET", "/")
    assert not log()


def test_explain_leaves_the_next_request_as_it_was(app, ask, token):
    guarded(app, login_required)
    run(app, "GET", "/", "--as", "ann")
    assert ask().status_code == 401
    assert ask(headers=bearer(token)).status_code == 200
