"""The helpers for an app's own tests, used as somebody uses them who writes an app."""

import subprocess
import sys
import textwrap

import pytest
from flask import Blueprint, Flask, jsonify, session
from flask.views import MethodView

from jam import Jam
from jam.errors import ConfigError, InvalidValue
from jam.events import SessionEnded, SessionStarted
from jam.ext.flask import (
    Fresh,
    HasRole,
    HasScope,
    JWTExtension,
    SessionExtension,
    UserMixin,
    checkpoint,
    create_access_token,
    create_refresh_token,
    current_identity,
    current_user,
    deny_by_default,
    fresh_login_required,
    get_jwt_identity,
    jwt_required,
    login_required,
    login_user,
    protect,
    public,
    set_access_cookies,
    set_refresh_cookies,
)
from jam.testing.apps import CapturedEvents, JamClient, assert_guarded

CROSS_SITE = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}


class Person(UserMixin):
    def __init__(self, number, roles=(), active=True):
        self.id, self.roles, self.active = number, roles, active

    @property
    def is_active(self):
        return self.active


def shop(jam, secret, *, sessions=True, tokens=True, **config):
    """An app as somebody writes one who takes sessions and tokens."""
    app = Flask(__name__)
    app.config.update({"TESTING": True, "SECRET_KEY": secret, **config})
    app.test_client_class = JamClient
    if sessions:
        app.sessions = SessionExtension(jam, app)
    if tokens:
        app.tokens = JWTExtension(jam, app)

    @app.route("/who", methods=["GET", "POST"])
    def who():
        return {"who": current_identity.subject, "method": current_identity.method}

    @app.route("/members", methods=["GET", "POST"])
    @login_required
    def members():
        identity = current_identity
        return {"roles": sorted(identity.roles), "scopes": sorted(identity.scopes), "amr": list(identity.amr)}

    @app.get("/admins")
    @checkpoint(HasRole("admin"))
    def admins():
        return {}

    @app.get("/orders")
    @checkpoint(HasScope("orders:read"))
    def orders():
        return {}

    @app.get("/settings")
    @fresh_login_required
    def settings():
        return {}

    @app.get("/close")
    @checkpoint(Fresh(600))
    def close():
        return {}

    return app


@pytest.fixture
def app(jam, secret):
    return shop(jam, secret)


@pytest.fixture
def client(app):
    return app.test_client()


BY = pytest.mark.parametrize("by", ["session", "token"])


# -- to be somebody -----------------------------------------------------------------------------------------


@BY
def test_the_client_is_whoever_it_signs_in_as(client, by):
    assert client.get("/who").json["who"] is None
    found = client.login_as("alice", by=by).get("/who").json
    assert found == {"who": "alice", "method": {"session": "session", "token": "jwt"}[by]}


def test_the_client_signs_in_by_a_session_if_nothing_is_said(client):
    assert client.login_as("alice").get("/who").json["method"] == "session"


@BY
def test_a_user_is_signed_in_by_their_id(client, by):
    assert client.login_as(Person(7), by=by).get("/who").json["who"] == "7"


@BY
def test_the_user_is_the_apps_own(app, client, by):
    people = {"7": Person(7)}
    app.sessions.user_loader(people.get)
    app.add_url_rule("/name", "name", login_required(lambda: {"same": current_user == people["7"]}))
    assert client.login_as(people["7"], by=by).get("/name").json == {"same": True}


@BY
def test_the_apps_user_identity_loader_is_asked(app, client, by):
    app.tokens.user_identity_loader(lambda user: f"person-{user.id}")
    assert client.login_as(Person(7), by=by).get("/who").json["who"] == "person-7"


@BY
@pytest.mark.parametrize("user", ["", None, 7, object()])
def test_who_has_no_subject_cannot_be_signed_in(client, by, user):
    with pytest.raises(InvalidValue):
        client.login_as(user, by=by)


@BY
def test_nothing_is_switched_off_for_a_user_who_is_not_active(app, client, by):
    banned = Person(7, active=False)
    app.sessions.user_loader({"7": banned}.get)
    response = client.login_as(banned, by=by).get("/members")
    assert (response.status_code, response.json["code"]) == (403, "user_inactive")


@BY
def test_nothing_is_switched_off_for_a_user_who_is_gone(app, client, by):
    app.sessions.user_loader({}.get)
    response = client.login_as("nobody", by=by).get("/members")
    assert (response.status_code, response.json["code"]) == (401, "user_unknown")


@BY
def test_a_client_that_signed_in_can_change_things_as_a_page_of_the_site_does(client, by):
    assert client.login_as("alice", by=by).post("/members").status_code == 200


def test_another_site_is_refused_in_the_same_client(client):
    response = client.login_as("alice").post("/members", headers=CROSS_SITE)
    assert (response.status_code, response.json["code"]) == (403, "csrf_failed")


@BY
@pytest.mark.parametrize("other", ["session", "token"])
def test_the_client_is_the_last_one_it_signed_in_as(client, by, other):
    client.login_as("alice", by=other)
    assert client.login_as("bob", by=by).get("/who").json["who"] == "bob"
    assert client.get("/who").json["method"] == {"session": "session", "token": "jwt"}[by]


@BY
def test_clients_are_apart(app, by):
    alice, bob = app.test_client().login_as("alice", by=by), app.test_client().login_as("bob", by=by)
    assert [one.get("/who").json["who"] for one in (alice, bob, app.test_client())] == ["alice", "bob", None]


@BY
def test_it_works_within_a_with_block_and_an_application_context(app, by):
    with app.app_context(), app.test_client() as client:
        client.login_as("alice", by=by)
        assert client.get("/who").json["who"] == "alice"
        client.login_as("bob", by=by)
        assert client.get("/who").json["who"] == "bob"


def test_another_way_of_signing_in_is_refused(client):
    with pytest.raises(ConfigError, match="'session' or by 'token'"):
        client.login_as("alice", by="password")


@BY
def test_an_app_that_is_reached_by_https_is_tested_with_its_own_cookie_names(jam, secret, by):
    app = shop(jam, secret, JAM_HTTPS=True)
    client = app.test_client().login_as("alice", by=by)
    assert client.get("/who", base_url="https://localhost").json["who"] == "alice"


@BY
@pytest.mark.parametrize("name", ["shop.example", "shop.example:8080"])
def test_an_app_with_a_server_name_has_its_clients_signed_in(jam, secret, by, name):
    client = shop(jam, secret, SERVER_NAME=name).test_client().login_as("alice", by=by)
    assert client.get("/who").json["who"] == "alice"
    client.logout()
    assert client.get("/who").json["who"] is None


@BY
def test_an_app_with_a_root_path_has_its_clients_signed_in(jam, secret, by):
    client = shop(jam, secret, APPLICATION_ROOT="/shop").test_client().login_as("alice", by=by)
    assert client.get("/who").json["who"] == "alice"


@pytest.mark.parametrize(
    "config", [{"JWT_HEADER_NAME": "X-Token"}, {"JWT_HEADER_TYPE": "JWT"}, {"JWT_HEADER_TYPE": ""}]
)
def test_the_token_is_where_the_app_looks_for_it(jam, secret, config):
    client = shop(jam, secret, **config).test_client()
    assert client.login_as("alice", by="token").get("/who").json["who"] == "alice"
    client.logout()
    assert client.get("/who").json["who"] is None


def test_the_token_passes_a_guard_that_demands_one(app, client):
    app.add_url_rule("/jwt", "jwt", jwt_required(fresh=True)(lambda: {"who": get_jwt_identity()}))
    assert client.login_as("alice", by="token").get("/jwt").json == {"who": "alice"}
    assert client.login_as("alice", by="token", fresh=False).get("/jwt").status_code == 401
    assert client.login_as("alice").get("/jwt").status_code == 401


def test_a_session_keeps_what_a_test_puts_into_flask_session(jam, secret):
    app = shop(jam, secret, sessions=False)
    SessionExtension(jam, app, flask_session=True)
    app.add_url_rule("/cart", "cart", login_required(lambda: {"cart": session.get("cart")}))
    client = app.test_client().login_as("alice")
    with client.session_transaction() as kept:
        kept["cart"] = "plums"
    assert client.get("/cart").json == {"cart": "plums"}
    assert client.login_as("bob").get("/cart").json == {"cart": None}


# -- what the app does not take -----------------------------------------------------------------------------


def test_an_app_without_sessions_says_how_to_sign_in(jam, secret):
    client = shop(jam, secret, sessions=False).test_client()
    with pytest.raises(ConfigError) as refused:
        client.login_as("alice")
    assert "by='token'" in refused.value.hint
    assert client.login_as("alice", by="token").get("/who").json["who"] == "alice"


def test_an_app_without_tokens_in_headers_says_how_to_sign_in(jam, secret):
    client = shop(jam, secret, tokens=False).test_client()
    with pytest.raises(ConfigError) as refused:
        client.login_as("alice", by="token")
    assert "login_as(user)" in refused.value.hint
    assert client.login_as("alice").get("/who").json["who"] == "alice"


def test_an_app_without_any_extension_is_told_so():
    app = Flask(__name__)
    with pytest.raises(ConfigError, match="xtension"):
        JamClient(app, app.response_class).login_as("alice")


# -- fresh, roles, scopes -----------------------------------------------------------------------------------


@BY
def test_who_signs_in_is_fresh(client, by):
    client.login_as("alice", by=by)
    assert [client.get(path).status_code for path in ("/settings", "/close")] == [200, 200]


@BY
def test_who_is_not_fresh_is_asked_to_sign_in_again(client, by):
    client.login_as("alice", by=by, fresh=False)
    for path in ("/settings", "/close"):
        assert client.get(path).json["code"] == "insufficient_user_authentication"
    assert client.get("/members").status_code == 200


@BY
def test_freshness_ends_when_the_clock_moves(client, clock, by):
    client.login_as("alice", by=by)
    clock.move(600)
    assert client.get("/close").status_code == 200
    clock.move(1)
    assert client.get("/close").json["code"] == "insufficient_user_authentication"


@BY
def test_the_credential_has_the_roles_scopes_and_methods_that_are_given(client, by):
    client.login_as("alice", by=by, roles=["admin", "clerk"], scopes=["orders:read"], amr=["pwd", "otp"])
    assert client.get("/members").json == {
        "roles": ["admin", "clerk"], "scopes": ["orders:read"], "amr": ["pwd", "otp"],
    }  # fmt: skip
    assert [client.get(path).status_code for path in ("/admins", "/orders")] == [200, 200]


@BY
def test_who_is_given_nothing_has_nothing(client, by):
    client.login_as("alice", by=by)
    assert client.get("/members").json == {"roles": [], "scopes": [], "amr": []}
    assert [client.get(path).status_code for path in ("/admins", "/orders")] == [403, 403]


@BY
def test_roles_of_one_sign_in_do_not_last_into_the_next(client, by):
    client.login_as("alice", by=by, roles=["admin"])
    assert client.login_as("alice", by=by).get("/admins").status_code == 403


@BY
def test_where_the_app_decides_about_roles_the_test_cannot(app, client, by):
    people = {"1": Person(1, ["admin"]), "2": Person(2)}
    app.sessions.user_loader(people.get)
    app.sessions.get_user_roles(lambda user: user.roles)
    with pytest.raises(ConfigError, match="get_user_roles"):
        client.login_as(people["2"], by=by, roles=["admin"])
    assert client.login_as(people["1"], by=by).get("/admins").status_code == 200
    assert client.login_as(people["2"], by=by).get("/admins").status_code == 403


def test_a_refused_sign_in_leaves_the_client_as_it_was(app, client):
    app.sessions.get_user_roles(lambda user: [])
    client.login_as("alice")
    with pytest.raises(ConfigError):
        client.login_as("bob", roles=["admin"])
    assert client.get("/who").json["who"] == "alice"


# -- to be nobody -------------------------------------------------------------------------------------------


@BY
def test_the_client_is_nobody_after_logout(client, by):
    client.login_as("alice", by=by).logout()
    assert client.get("/who").json["who"] is None
    assert client.get("/members").status_code == 401


def test_logout_is_nothing_special_for_who_is_nobody(client):
    client.logout()
    assert client.get("/who").json["who"] is None


def test_logout_ends_nothing_on_the_server(client, jam):
    client.login_as("alice")
    handle = client.get_cookie("sessionId").value
    client.logout()
    assert jam.get_session(handle) is not None


def by_password(app, *, remember):
    def sign_in():
        login_user("alice", remember=remember)
        return {}

    app.add_url_rule("/password", "password", sign_in, methods=["POST"])


@pytest.mark.parametrize("remember", [False, True])
def test_logout_forgets_who_signed_in_by_the_apps_own_form(app, client, remember):
    by_password(app, remember=remember)
    client.post("/password")
    client.logout()
    assert client.get("/who").json["who"] is None


@BY
def test_a_browser_that_was_remembered_is_somebody_else_after_login_as(app, client, by):
    by_password(app, remember=True)
    client.post("/password")
    client.login_as("bob", by=by)
    assert client.get("/who").json["who"] == "bob"
    client.logout()
    assert client.get("/who").json["who"] is None


@pytest.fixture
def cookie_shop(jam, secret):
    app = shop(jam, secret, JWT_TOKEN_LOCATION=["headers", "cookies"], JWT_ACCESS_COOKIE_PATH="/")

    @app.post("/tokens")
    def tokens():
        response = jsonify()
        set_access_cookies(response, create_access_token("alice"))
        set_refresh_cookies(response, create_refresh_token("alice"))
        return response

    @app.post("/auth/refresh")
    @jwt_required(refresh=True)
    def refresh():
        return {"who": get_jwt_identity()}

    return app


def test_logout_forgets_tokens_in_cookies(cookie_shop):
    client = cookie_shop.test_client()
    client.post("/tokens")
    assert client.get("/who").json["who"] == "alice"
    client.logout()
    assert client.get("/who").json["who"] is None
    assert client.post("/auth/refresh").status_code == 401


@BY
def test_login_as_is_not_hidden_by_tokens_in_cookies(cookie_shop, by):
    client = cookie_shop.test_client()
    client.post("/tokens")
    assert client.login_as("bob", by=by).get("/who").json["who"] == "bob"
    assert client.post("/auth/refresh").status_code == 401


def test_the_apps_own_cookies_stay_after_logout(client):
    client.set_cookie("theme", "dark")
    client.login_as("alice").logout()
    assert client.get_cookie("theme").value == "dark"


# -- events -------------------------------------------------------------------------------------------------


def test_events_of_one_kind_are_picked_out(jam):
    heard = CapturedEvents()
    forget = jam.events.subscribe(heard.append)
    first = jam.create_session("alice")
    jam.create_session("bob")
    jam.sessions.delete(first)
    forget()
    jam.create_session("carol")
    assert [event.subject for event in heard.of(SessionStarted)] == ["alice", "bob"]
    assert [event.subject for event in heard.of(SessionEnded)] == ["alice"]
    assert len(heard) == 3


# -- no route left open -------------------------------------------------------------------------------------


@pytest.fixture
def routes(jam, secret):
    app = Flask(__name__)
    app.config.update(TESTING=True, SECRET_KEY=secret)
    SessionExtension(jam, app)
    app.add_url_rule("/shut", "shut", login_required(lambda: ""))
    app.add_url_rule("/front", "front", public(lambda: ""))
    return app


def complaints(app, *listed):
    with pytest.raises(AssertionError) as failed:
        assert_guarded(app, *listed)
    return str(failed.value).splitlines()


def test_asvs_8_2_1_an_app_with_guarded_and_public_routes_passes(routes):
    assert_guarded(routes)


def test_asvs_8_2_1_a_route_that_was_forgotten_is_named(routes):
    routes.add_url_rule("/forgotten/<int:number>", "forgotten", lambda number: "", methods=["GET", "POST"])
    (line,) = complaints(routes)
    assert line.startswith("GET,POST /forgotten/<int:number> (forgotten) is open to everybody")


def test_asvs_8_2_1_every_forgotten_route_is_named(routes):
    for name in ("one", "two"):
        routes.add_url_rule(f"/{name}", name, lambda: "")
    assert [line.split()[1] for line in complaints(routes)] == ["/one", "/two"]


@pytest.mark.parametrize("listed", [["health"], ["/health"], {"health"}, ("health",), "health", "/health"])
def test_a_route_on_the_list_may_be_open(routes, listed):
    routes.add_url_rule("/health", "health", lambda: "")
    assert_guarded(routes, listed)


@pytest.mark.parametrize("listed", ["shut", "/shut", "front", "nowhere", "/nowhere", ""])
def test_asvs_8_2_1_a_list_of_more_than_there_is_to_list_fails(routes, listed):
    (line,) = complaints(routes, [listed])
    assert line == f"{listed!r} is on the list and not an unprotected route"


def test_asvs_8_2_1_a_route_that_is_guarded_for_one_method_is_named_for_the_other(routes):
    class Items(MethodView):
        def get(self):
            return ""

        @login_required
        def post(self):
            return ""

    routes.add_url_rule("/items", view_func=Items.as_view("items"))
    (line,) = complaints(routes)
    assert line.startswith("GET /items (items)")


def test_asvs_8_2_1_a_guard_that_lets_everybody_in_is_none(routes):
    routes.add_url_rule("/maybe", "maybe", jwt_required(optional=True)(lambda: ""))
    (line,) = complaints(routes)
    assert "/maybe" in line


@pytest.mark.parametrize("shut", [protect, deny_by_default])
def test_asvs_8_2_1_an_app_that_is_shut_as_a_whole_passes(routes, shut):
    routes.add_url_rule("/forgotten", "forgotten", lambda: "")
    shut(routes)
    assert_guarded(routes)


def test_asvs_8_2_1_routes_of_a_blueprint_are_asked_about(routes):
    admin, api = Blueprint("admin", __name__), Blueprint("api", __name__)
    protect(admin)
    for one in (admin, api):
        one.add_url_rule(f"/{one.name}", "index", lambda: "")
        routes.register_blueprint(one)
    (line,) = complaints(routes)
    assert line.startswith("GET /api (api.index)")
    assert_guarded(routes, ["api.index"])


def test_static_files_need_no_place_on_the_list(routes):
    assert any(rule.endpoint == "static" for rule in routes.url_map.iter_rules())
    assert_guarded(routes)


def test_an_app_without_jam_has_every_route_named():
    app = Flask(__name__)
    app.add_url_rule("/", "index", lambda: "")
    (line,) = complaints(app)
    assert line.startswith("GET / (index)")


# -- the plugin ---------------------------------------------------------------------------------------------

_APP = """
import secrets
from flask import Flask
from jam import Jam
from jam.ext.flask import SessionExtension, login_required, checkpoint, HasRole


def create_app(clock):
    app = Flask(__name__)
    app.config.update(SECRET_KEY=secrets.token_urlsafe(64), TESTING=True)
    SessionExtension(Jam(clock=clock), app)

    @app.route("/account", methods=["GET", "POST"])
    @login_required
    def account():
        return {}

    @app.get("/admin")
    @checkpoint(HasRole("admin"))
    def admin():
        return {}

    @app.get("/health")
    def health():
        return {}

    return app
"""

_CONFTEST = """
import pytest
from shop import create_app

pytest_plugins = ["jam.testing.plugin"]


@pytest.fixture
def app(jam_clock):
    return create_app(jam_clock)
"""


@pytest.fixture
def project(tmp_path):
    """A project with an app and its tests; runs them as their author does."""

    def run(tests, *options):
        files = {"shop.py": _APP, "conftest.py": _CONFTEST, "test_shop.py": textwrap.dedent(tests)}
        for name, text in files.items():
            (tmp_path / name).write_text(text, "utf-8")
        (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n", "utf-8")
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *options],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    return run


def test_the_fixtures_serve_the_tests_of_an_app(project):
    done = project(
        """
        from jam.events import SessionEnded, SessionStarted
        from jam.testing.apps import assert_guarded

        def test_a_stranger_is_sent_away(jam_client):
            assert jam_client.get("/account").status_code == 401

        def test_roles(jam_client):
            assert jam_client.login_as("alice").get("/admin").status_code == 403
            assert jam_client.login_as("alice", roles=["admin"]).get("/admin").status_code == 200

        def test_a_form(jam_client):
            assert jam_client.login_as("alice").post("/account").status_code == 200

        def test_the_session_ends(jam_client, jam_clock):
            jam_client.login_as("alice")
            jam_clock.move(3601)
            assert jam_client.get("/account").json["code"] == "session_invalid"

        def test_events(jam_client, jam_events, app):
            jam_client.login_as("alice")
            app.extensions["jam"].revoke_all("alice")
            assert [event.subject for event in jam_events.of(SessionStarted)] == ["alice"]

        def test_tests_are_apart(jam_client, jam_clock, jam_events):
            assert jam_client.get("/account").status_code == 401
            assert (jam_clock(), jam_events.of(SessionStarted)) == (1_800_000_000.0, [])

        def test_refusals_are_heard(jam_client, jam_events):
            jam_client.get("/account")
            assert [event.code for event in jam_events] == ["authentication_required"]

        def test_no_route_is_open(app):
            assert_guarded(app, ["health"])
        """
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 passed" in done.stdout


def test_asvs_8_2_1_a_forgotten_guard_fails_the_tests_of_an_app(project):
    done = project(
        """
        from jam.testing.apps import assert_guarded

        def test_no_route_is_open(app):
            assert_guarded(app)
        """
    )
    assert done.returncode == 1
    assert "GET /health (health) is open to everybody" in done.stdout


def test_the_fixtures_are_told_of_by_pytest(project):
    done = project("", "--fixtures")
    for name in ("jam_client", "jam_clock", "jam_events"):
        assert f"\n{name}" in done.stdout


def test_the_client_and_the_clock_need_no_pytest():
    code = "import sys; sys.modules['pytest'] = None; import jam.testing, jam.testing.apps, jam.testing.clock"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_jam_of_the_apps_own_test_setup_works_with_the_client(secret, clock):
    app = shop(Jam({"secret": secret}, clock=clock), secret)
    assert app.test_client().login_as("alice").get("/who").json["who"] == "alice"
