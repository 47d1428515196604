# ruff: noqa: RUF012 - as Flask's documentation writes it
"""``flask jam``: what guards each route, and what is wrong with the set-up."""

import json
import os
import subprocess
import sys
import textwrap
import time

import pytest
from flask import Blueprint, Flask
from flask.views import MethodView, View

from jam import Jam
from jam.ext.flask import (
    APIKeyCheckpoint,
    Authenticated,
    Fresh,
    HasRole,
    JamExtension,
    JWTExtension,
    SameOrigin,
    SessionCheckpoint,
    SessionExtension,
    checkpoint,
    deny_by_default,
    login_required,
    protect,
    public,
)
from jam.stores import open_store
from jam.stores.base import COLLECT_AFTER
from jam.stores.memory import MemoryStore
from jam.testing import MovableClock
from tests.ext.flask.callers import UNREACHABLE


@pytest.fixture
def app(app, jam):
    JWTExtension(jam, app)
    return app


def run(app, *arguments):
    return app.test_cli_runner().invoke(args=["jam", *arguments])


def routes(app):
    """Every route as its status and guards, by method and rule."""
    found = {}
    for route in json.loads(run(app, "routes", "--json").stdout):
        for method in route["methods"]:
            found[f"{method} {route['rule']}"] = (route["status"], route["guards"])
    return found


def status(app, key="GET /"):
    return routes(app)[key][0]


def fails(app):
    return run(app, "routes", "--fail-unprotected").exit_code == 1


# -- routes -------------------------------------------------------------------------------------------------


def test_routes_shows_every_route_with_its_guards(app):
    app.get("/open")(lambda: "")
    app.get("/told", endpoint="told")(public(lambda: ""))
    app.get("/in", endpoint="in")(login_required(checkpoint(HasRole("admin"), Fresh(60))(lambda: "")))
    assert routes(app) == {
        "GET /open": ("unprotected", []),
        "GET /told": ("public", []),
        "GET /in": ("guarded", ["Authenticated()", "HasRole('admin')", "Fresh(60)"]),
        "GET /static/<path:filename>": ("static", []),
    }


def test_routes_prints_a_table(app):
    app.route("/in", methods=["GET", "POST"])(login_required(lambda: ""))
    done = run(app, "routes")
    assert done.exit_code == 0
    head, rule, first, *_ = done.output.splitlines()
    assert head.split() == ["Route", "Methods", "Status", "Guards"]
    assert set(rule) == {"-", " "}
    assert first.split() == ["/in", "GET,POST", "guarded", "Authenticated()"]


def test_routes_of_an_app_without_any_is_an_empty_table(new_app, jam):
    app = type(new_app())(__name__, static_folder=None)
    JamExtension(jam, app)
    assert run(app, "routes").exit_code == 0
    assert json.loads(run(app, "routes", "--json").stdout) == []


@pytest.mark.parametrize(
    ("guard", "expected"),
    [
        (login_required, "guarded"),
        (checkpoint(HasRole("a") | HasRole("b")), "guarded"),
        (checkpoint(SessionCheckpoint("user", "a")), "guarded"),
        (checkpoint(APIKeyCheckpoint("k")), "guarded"),
        (checkpoint(SessionCheckpoint("user", "a").action(fail_url="/login")), "guarded"),
        (checkpoint(SessionCheckpoint("user", "a") & HasRole("a")), "guarded"),
        (checkpoint(~HasRole("a")), "unprotected"),
        (checkpoint(~SessionCheckpoint("banned", True)), "unprotected"),
        (checkpoint(~APIKeyCheckpoint("k")), "unprotected"),
        (checkpoint(HasRole("a") | ~HasRole("a")), "unprotected"),
        (checkpoint(Authenticated() & ~HasRole("a")), "guarded"),
        (checkpoint(SameOrigin()), "unprotected"),
        (checkpoint(~SameOrigin()), "unprotected"),
        (checkpoint(SameOrigin() & Authenticated()), "guarded"),
        (checkpoint(SessionCheckpoint("user", "a").action(pass_url="/home", disable_default_fail=True)), "unprotected"),
        (public, "public"),
    ],
)
def test_only_what_keeps_somebody_out_counts_as_protection(app, guard, expected):
    app.get("/")(guard(lambda: ""))
    assert status(app) == expected
    assert fails(app) is (expected == "unprotected")


def test_routes_tells_the_methods_of_a_view_class_apart(app):
    class Page(MethodView):
        def get(self):
            return ""

        @checkpoint(HasRole("admin"))
        def post(self):
            return ""

    app.add_url_rule("/", view_func=Page.as_view("page"))
    assert status(app, "GET /") == "unprotected"
    assert routes(app)["POST /"] == ("guarded", ["HasRole('admin')"])


def test_routes_shows_class_and_method_guards_together(app):
    @login_required
    class Page(MethodView):
        @checkpoint(HasRole("admin"))
        def get(self):
            return ""

    app.add_url_rule("/", view_func=Page.as_view("page"))
    assert routes(app)["GET /"] == ("guarded", ["Authenticated()", "HasRole('admin')"])


def test_routes_does_not_hide_an_open_head_behind_a_guarded_get(app):
    class Page(MethodView):
        @login_required
        def get(self):
            return ""

        def head(self):
            return "", 200, {"X-Secret": "yes"}

    app.add_url_rule("/", view_func=Page.as_view("page"))
    assert fails(app)


def test_routes_does_not_hide_an_open_options_behind_a_guarded_get(app):
    class Page(MethodView):
        provide_automatic_options = False

        @login_required
        def get(self):
            return ""

        def options(self):
            return "secret"

    app.add_url_rule("/", view_func=Page.as_view("page"))
    assert fails(app)


def test_routes_does_not_believe_in_lists_that_flask_does_not_read(app):
    class Page(MethodView):
        method_decorators = [login_required()]

        def get(self):
            return ""

    app.add_url_rule("/", view_func=Page.as_view("page"))
    assert status(app) == "unprotected"


def test_routes_does_not_believe_in_guards_on_what_never_runs(app):
    class Page(View):
        methods = ["GET"]

        @login_required
        def get(self):
            return ""

        def dispatch_request(self):
            return ""

    app.add_url_rule("/", view_func=Page.as_view("page"))
    assert status(app) == "unprotected"


def test_routes_counts_protect_on_a_blueprint_and_on_those_in_it(app):
    outer, inner, other = (Blueprint(name, __name__, url_prefix=f"/{name}") for name in ("outer", "inner", "other"))
    protect(outer, HasRole("admin"), exempt=["sign_in"])
    outer.get("/")(lambda: "")
    outer.get("/sign-in", endpoint="sign_in")(lambda: "")
    outer.get("/public", endpoint="public")(public(lambda: ""))
    inner.get("/")(lambda: "")
    other.get("/")(lambda: "")
    outer.register_blueprint(inner)
    app.register_blueprint(outer)
    app.register_blueprint(other)
    seen = routes(app)
    assert seen["GET /outer/"] == seen["GET /outer/inner/"] == ("guarded", ["HasRole('admin')"])
    assert seen["GET /outer/sign-in"][0] == seen["GET /outer/public"][0] == "public"
    assert seen["GET /other/"][0] == "unprotected"


def test_routes_counts_protect_and_deny_by_default_on_the_app(app):
    app.get("/")(lambda: "")
    assert fails(app)
    deny_by_default(app)
    assert routes(app)["GET /"] == ("guarded", ["Authenticated()"])
    assert not fails(app)


def test_deny_by_default_adds_nothing_to_a_guarded_route(app):
    deny_by_default(app, HasRole("x"))
    app.get("/")(login_required(lambda: ""))
    assert routes(app)["GET /"] == ("guarded", ["Authenticated()"])


def test_exempt_endpoints_are_public(app):
    deny_by_default(app, exempt=["index"])
    app.get("/", endpoint="index")(lambda: "")
    assert status(app) == "public"


def test_fail_unprotected_says_how_many_and_what_to_do(app):
    app.get("/")(lambda: "")
    done = run(app, "routes", "--fail-unprotected")
    assert done.exit_code == 1
    assert "1 of 2 routes are unprotected" in done.stderr
    assert "@public" in done.stderr


def test_fail_unprotected_is_content_with_guarded_public_and_static(app):
    app.get("/a")(login_required(lambda: ""))
    app.get("/b", endpoint="b")(public(lambda: ""))
    assert run(app, "routes", "--fail-unprotected").exit_code == 0


def test_json_stays_json_when_the_command_fails(app):
    app.get("/")(lambda: "")
    done = run(app, "routes", "--json", "--fail-unprotected")
    assert done.exit_code == 1
    assert json.loads(done.stdout)


def test_asvs_16_2_5_routes_shows_no_key(app):
    app.get("/")(checkpoint(APIKeyCheckpoint("s3cret"))(lambda: ""))
    assert "s3cret" not in run(app, "routes").output


def test_routes_agrees_with_what_the_app_does(app):
    """The table is worth nothing if it is not the truth."""
    part = Blueprint("part", __name__, url_prefix="/part")
    protect(part)
    part.get("/")(lambda: "")
    part.get("/public", endpoint="public")(public(lambda: ""))
    app.register_blueprint(part)
    app.get("/guarded")(login_required(lambda: ""))
    app.get("/open", endpoint="open")(lambda: "")
    client = app.test_client()
    for key, (said, _) in routes(app).items():
        path = key.removeprefix("GET ")
        if "<" not in path:
            assert (client.get(path).status_code == 401) is (said == "guarded"), key


# -- doctor -------------------------------------------------------------------------------------------------


def findings(app):
    done = run(app, "doctor", "--json")
    return {finding["topic"]: finding for finding in json.loads(done.stdout)}, done.exit_code


def healthy(new_app, tmp_path, **config):
    app = new_app(TESTING=False, JAM_STORE=f"sqlite:///{tmp_path}/jam.sqlite3", **config)
    deny_by_default(app)
    SessionExtension(Jam(), app)
    return app


def test_doctor_is_content_with_a_good_set_up(new_app, tmp_path):
    found, code = findings(healthy(new_app, tmp_path))
    assert code == 0
    assert {finding["level"] for finding in found.values()} == {"ok"}
    assert {"secret", "https", "store", "routes", "installation"} <= set(found)


def test_doctor_speaks_to_people_and_to_machines(new_app, tmp_path):
    app = healthy(new_app, tmp_path)
    done = run(app, "doctor")
    assert done.exit_code == 0
    for topic in findings(app)[0]:
        assert f"{topic}:" in done.output


def test_asvs_13_3_1_doctor_fails_without_a_secret(new_app, tmp_path):
    found, code = findings(healthy(new_app, tmp_path, SECRET_KEY=None))
    assert (code, found["secret"]["level"]) == (1, "problem")
    assert "SECRET_KEY" in found["secret"]["advice"]


def test_asvs_13_3_1_doctor_fails_with_a_weak_secret_even_in_testing(new_app):
    app = new_app(SECRET_KEY="abcd12345678")
    JWTExtension(Jam(), app)
    found, code = findings(app)
    assert (code, found["secret"]["level"]) == (1, "problem")
    assert "abcd12345678" not in json.dumps(found)


def test_asvs_13_3_1_doctor_fails_with_a_weak_fallback(new_app):
    app = new_app(SECRET_KEY_FALLBACKS=["changeme"])
    JWTExtension(Jam(), app)
    found, code = findings(app)
    assert (code, found["secret"]["level"]) == (1, "problem")


def test_doctor_reports_a_configuration_that_would_be_refused(new_app):
    app = new_app(TESTING=False, SECRET_KEY="changeme")
    JWTExtension(Jam(), app)
    found, code = findings(app)
    assert (code, found["configuration"]["level"]) == (1, "problem")
    assert "secrets.token_urlsafe" in found["configuration"]["advice"]


def test_doctor_names_the_option_that_was_meant(new_app):
    app = new_app(JAM_SESSION_IDLE_FOR=60)
    JWTExtension(Jam(), app)
    found, code = findings(app)
    assert code == 1
    assert "JAM_SESSIONS_IDLE_FOR" in found["configuration"]["advice"]


def test_asvs_3_3_1_doctor_fails_without_https(new_app, tmp_path):
    found, code = findings(healthy(new_app, tmp_path, JAM_HTTPS=False))
    assert (code, found["https"]["level"]) == (1, "problem")
    assert "JAM_HTTPS" in found["https"]["advice"]


def test_asvs_16_5_3_doctor_fails_if_the_store_cannot_be_reached(new_app):
    app = new_app(JAM_STORE=UNREACHABLE)
    JWTExtension(Jam(), app)
    found, code = findings(app)
    assert (code, found["store"]["level"]) == (1, "problem")


def test_doctor_fails_if_the_store_is_this_process_alone(new_app):
    app = new_app(TESTING=False)
    SessionExtension(Jam(), app)
    found, code = findings(app)
    assert (code, found["store"]["level"]) == (1, "problem")
    assert "JAM_STORE" in found["store"]["advice"]


def test_doctor_only_warns_of_what_is_usual_in_development(new_app):
    app = new_app()
    SessionExtension(Jam(), app)
    found, code = findings(app)
    assert code == 0
    assert found["store"]["level"] == found["https"]["level"] == "warning"


def test_doctor_warns_of_tokens_that_cannot_be_revoked(new_app, tmp_path):
    found, code = findings(healthy(new_app, tmp_path, JAM_ACCESS_TOKENS_STATELESS=True))
    assert (code, found["tokens"]["level"]) == (0, "warning")


def test_doctor_warns_of_routes_nobody_spoke_of(new_app, tmp_path):
    app = new_app(TESTING=False, JAM_STORE=f"sqlite:///{tmp_path}/jam.sqlite3")
    JWTExtension(Jam(), app)
    app.get("/")(lambda: "")
    found, code = findings(app)
    assert (code, found["routes"]["level"]) == (0, "warning")
    assert "flask jam routes" in found["routes"]["advice"]


def test_asvs_16_2_5_doctor_shows_no_secret(new_app, tmp_path, secret):
    app = healthy(new_app, tmp_path)
    assert secret not in run(app, "doctor").output + run(app, "doctor", "--json").output


# -- the real program ---------------------------------------------------------------------------------------

PROGRAM = """
import os
from flask import Flask
from jam import Jam
from jam.ext.flask import SessionExtension, login_required

def create_app():
    app = Flask(__name__)
    app.config.from_prefixed_env()
    app.get("/")(lambda: "")
    app.get("/in", endpoint="in")(login_required(lambda: ""))
    SessionExtension(Jam(), app)
    return app
"""


@pytest.fixture
def flask(tmp_path, secret):
    (tmp_path / "shop.py").write_text(textwrap.dedent(PROGRAM))

    def call(*arguments, **environment):
        return subprocess.run(
            [sys.executable, "-m", "flask", "--app", "shop", "jam", *arguments],
            cwd=tmp_path,
            env={**os.environ, "FLASK_SECRET_KEY": secret, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return call


def test_the_commands_work_from_a_shell(flask, tmp_path):
    listed = flask("routes", "--fail-unprotected")
    assert listed.returncode == 1
    assert "unprotected" in listed.stdout
    assert "Authenticated()" in listed.stdout
    examined = flask("doctor", FLASK_JAM_STORE=f"sqlite:///{tmp_path}/jam.sqlite3")
    assert examined.returncode == 0, examined.stdout + examined.stderr
    assert "warning" in examined.stdout
    assert "1 routes" in examined.stdout


def test_doctor_of_an_app_without_jam_says_so(flask, tmp_path):
    (tmp_path / "shop.py").write_text("from flask import Flask\napp = Flask(__name__)")
    examined = flask("doctor")
    assert examined.returncode == 1
    assert "No extension" in examined.stdout
    assert "Traceback" not in examined.stderr


def test_a_broken_set_up_ends_the_command_with_1_and_no_traceback(flask):
    examined = flask("doctor", FLASK_SECRET_KEY="dev")
    assert examined.returncode == 1
    assert "PROBLEM" in examined.stdout
    assert "Traceback" not in examined.stderr


def test_asvs_13_3_1_debug_lets_a_weak_secret_pass_with_one_warning_and_doctor_fails_all_the_same(flask):
    examined = flask("doctor", FLASK_SECRET_KEY="dev", FLASK_DEBUG="1")
    assert examined.returncode == 1
    assert "everybody knows" in examined.stdout


def test_purge_removes_the_dead_and_says_how_many(app, jam, clock):
    for _ in range(3):
        jam.create_session("alice")
    clock.move(3600 + COLLECT_AFTER)
    alive = jam.create_session("alice")
    result = run(app, "purge")
    assert (result.exit_code, result.stdout) == (0, "3 dead records and ended counts removed.\n")
    assert jam.get_session(alive) == {}
    assert run(app, "purge").stdout == "0 dead records and ended counts removed.\n"


# -- doctor and the store


def examined_with(secret, store, clock=None):
    app = Flask(__name__)
    app.config.update(SECRET_KEY=secret, JAM_HTTPS=True)
    jam = Jam(store=store) if clock is None else Jam(store=store, clock=clock)
    SessionExtension(jam, app)
    result = run(app, "doctor", "--json")
    return [finding for finding in json.loads(result.stdout) if finding["topic"] == "store"]


def test_doctor_finds_that_several_workers_share_nothing(secret, monkeypatch):
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    (finding,) = examined_with(secret, MemoryStore())
    assert (finding["level"], "4 workers" in finding["message"]) == ("problem", True)


@pytest.mark.parametrize("said", ["1", "", "many", "\u00b2"])
def test_doctor_takes_what_says_nothing_of_workers_for_one(secret, monkeypatch, said):
    monkeypatch.setenv("WEB_CONCURRENCY", said)
    (finding,) = examined_with(secret, MemoryStore())
    assert "workers do not see" in finding["message"]


def test_doctor_finds_nothing_wrong_with_an_engine_that_is_set_up_well(secret, redis_url):
    store = open_store(redis_url)
    (finding,) = examined_with(secret, store)
    assert finding["level"] == "ok"
    store.close()


def test_doctor_finds_that_clocks_disagree(secret, redis_url):
    store = open_store(redis_url)
    (finding,) = examined_with(secret, store, MovableClock(time.time() + 60))
    assert finding["level"] == "problem"
    assert "60 seconds behind" in finding["message"]
    store.close()


def test_doctor_finds_that_the_engine_is_not_there(secret):
    (finding,) = examined_with(secret, open_store("redis://127.0.0.1:1/0"))
    assert finding["level"] == "problem"
