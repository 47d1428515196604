"""Accounts in an app that has other things: Flask-WTF, extensions of its own, another app, deny by default."""

import pytest
import sqlalchemy as sa
from flask import Blueprint, Flask
from flask_sqlalchemy import SQLAlchemy
from flask_wtf import CSRFProtect

from jam import Jam
from jam.accounts.accounts import Accounts
from jam.accounts.sql_users import SQLUsers, open_users
from jam.errors import ConfigError, JamError, TooManyAttempts
from jam.ext.flask import (
    JWTExtension,
    SessionExtension,
    UserMixin,
    current_identity,
    current_user,
    deny_by_default,
    login_required,
    login_user,
)
from jam.ext.flask.accounts import AccountsExtension
from jam.ext.flask.api_token_extension import APITokenExtension
from jam.ext.flask.basic import BasicExtension
from jam.testing.apps import JamClient, assert_guarded
from tests.ext.flask.accounts.conftest import PASSWORD, basic
from tests.ext.flask.callers import SAME_ORIGIN, answer, bearer, set_cookies

RIGHT = {"username": "alice", "password": PASSWORD}


def whoami():
    return {"name": getattr(current_user, "username", None), "method": current_identity.method}


# -- Flask-WTF ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [True, False], ids=["set up before", "set up after"])
def test_with_flask_wtfs_protection_the_json_views_still_work(new_site, secret, first):
    def protect(jam, app):
        app.secret_key = secret
        if first:
            CSRFProtect(app)

    site = new_site(set_up=protect)
    if not first:
        CSRFProtect(site.app)
    site.app.add_url_rule("/own", "own", dict, methods=["POST"])
    site.person("alice")
    client = site.client()
    pair = client.post("/auth/api", json=RIGHT)
    assert pair.status_code == 200
    assert client.post("/auth/refresh", json={"refresh_token": pair.json["refresh_token"]}).status_code == 200
    assert client.post("/auth/revoke", data={"token": "x"}).status_code == 200
    assert client.post("/api/tokens", headers=basic("alice")).status_code == 200
    browser = site.stranger()
    assert browser.post("/auth/sign-in", json=RIGHT).status_code == 200
    assert browser.put("/api/users/1", json={"username": "alicia"}).status_code == 200
    assert browser.post("/auth/sign-out").status_code == 204
    assert client.post("/own").status_code == 400  # the app's own views are Flask-WTF's affair


def test_with_flask_wtfs_protection_jam_still_looks_where_a_request_comes_from(new_site, secret):
    site = new_site(set_up=lambda jam, app: CSRFProtect(app), config={"SECRET_KEY": secret})
    alice = site.person("alice")
    browser = site.browser(alice)
    del browser.environ_base["HTTP_SEC_FETCH_SITE"]
    assert answer(browser.put("/api/users/1", json={"username": "mallory"})) == (403, "csrf_failed")


# -- deny by default ----------------------------------------------------------------------------------------


def test_under_deny_by_default_what_is_public_stays_public_and_the_rest_is_guarded(new_site):
    site = new_site(set_up=lambda jam, app: deny_by_default(app))
    alice = site.person("alice")
    site.app.add_url_rule("/own", "own", dict)
    client = site.client()
    assert client.get("/own").status_code == 401
    assert client.post("/auth/api", json=RIGHT).status_code == 200
    assert client.get("/auth/openapi.json").status_code == 200
    assert client.get("/.well-known/jwks.json").status_code == 200
    assert client.get("/api/users").status_code == 401
    assert client.get("/api/users", headers=site.held(alice)).status_code == 200
    assert client.post("/api/tokens", headers=basic("alice")).status_code == 200


def test_no_route_is_left_open_by_mistake(site):
    assert_guarded(site.app)


# -- extensions of the app's own ----------------------------------------------------------------------------


def test_extensions_that_the_app_set_up_before_are_kept(new_site):
    def own(jam, app):
        SessionExtension(jam, app, cookie_name="blog")
        JWTExtension(jam, app, cookie_name="blog_token")

    site = new_site(set_up=own)
    alice = site.person("alice")
    client = site.client()
    response = client.post("/auth/sign-in", json=RIGHT, headers=SAME_ORIGIN)
    assert set(set_cookies(response)) == {"blog"}
    in_cookies = client.post("/auth/api", json={**RIGHT, "cookies": True}, headers=SAME_ORIGIN)
    assert "blog_token" in set_cookies(in_cookies)
    assert client.get("/auth/me", headers=site.api_token(alice)).status_code == 403
    assert client.get("/auth/openapi.json").json["components"]["securitySchemes"]["session"]["name"] == "blog"


def test_an_app_that_says_itself_how_its_users_are_called_is_asked_about_them(new_site):
    def own(jam, app):
        JWTExtension(jam, app).user_identity_loader(lambda user: str(user.id))

    site = new_site(set_up=own)
    alice = site.person("alice")
    pair = site.tokens(alice)
    assert site.jam.access_tokens.verify(pair["access_token"]).subject == alice.subject
    again = site.client().post("/auth/refresh", json={"refresh_token": pair["refresh_token"]})
    assert site.client().get("/auth/me", headers=bearer(again.json["access_token"])).json["username"] == "alice"


def test_carriers_that_the_app_set_up_before_are_kept(new_site):
    def own(jam, app):
        APITokenExtension(jam, app, header_name="X-API-Token")
        BasicExtension(jam, app).verify_password(lambda name, password: "1" if password == "cat" else None)

    site = new_site(set_up=own)
    alice = site.person("alice")
    client = site.client()
    script = site.api_token(alice)["Authorization"]
    assert client.get("/api/users", headers={"X-API-Token": script}).status_code == 200
    assert client.get("/api/users", headers={"Authorization": script}).status_code == 401
    assert client.post("/api/tokens", headers=basic("whoever", "cat")).status_code == 200
    assert client.post("/api/tokens", headers=basic("alice")).status_code == 401


def test_who_is_known_to_a_cache_of_the_apps_own_alone_has_no_account(new_site):
    cache = {}
    site = new_site(set_up=lambda jam, app: SessionExtension(jam, app).user_loader(cache.get))
    alice = site.person("alice")
    cache[alice.subject] = alice.user
    headers, pair = site.held(alice), site.tokens(alice)
    site.users.delete(alice.subject)
    client = site.client()
    assert answer(client.get("/auth/me", headers=headers)) == (401, "user_unknown")
    assert answer(client.post("/auth/refresh", json={"refresh_token": pair["refresh_token"]})) == (401, "user_unknown")


def test_a_session_that_comes_in_a_header_is_no_error_of_the_server(new_site):
    site = new_site(set_up=lambda jam, app: SessionExtension(jam, app, header_name="X-Session"))
    alice = site.person("alice")
    site.app.testing = False
    client = site.client()
    for method, path, given in (
        ("GET", "/auth/me", None),
        ("GET", "/auth/sessions", None),
        ("POST", "/auth/reauthenticate", {"password": PASSWORD}),
        ("POST", "/auth/password", {"current_password": PASSWORD, "new_password": "purple lantern gravel"}),
        ("POST", "/auth/sign-out/others", None),
        ("POST", "/auth/sign-out/everywhere", None),
    ):
        headers = {"X-Session": f"Bearer {site.jam.sessions.create(alice.subject)}", **SAME_ORIGIN}
        assert client.open(path, method=method, json=given, headers=headers).status_code < 500, path


def test_flask_session_may_be_jams(new_site):
    site = new_site(set_up=lambda jam, app: SessionExtension(jam, app, flask_session=True))
    alice = site.person("alice")
    browser = site.browser(alice)
    assert browser.post("/auth/reauthenticate", json={"password": PASSWORD}).status_code == 204
    changed = {"current_password": PASSWORD, "new_password": "purple lantern gravel"}
    assert browser.post("/auth/password", json=changed).status_code == 204
    assert browser.post("/auth/sign-out/others").status_code == 204
    assert browser.get("/auth/me").status_code == 200
    assert browser.post("/auth/sign-out").status_code == 204
    assert browser.get("/auth/me").status_code == 401


def test_an_error_handler_of_the_apps_own_sees_jams_errors(new_site):
    site = new_site(config={"JAM_THROTTLING_ATTEMPTS": 1})
    site.person("alice")
    site.app.register_error_handler(TooManyAttempts, lambda error: ({"slow": "down"}, 429))
    site.app.register_error_handler(JamError, lambda error: ({"mine": error.code}, error.status))
    client = site.client()
    wrong = {**RIGHT, "password": "x"}
    assert client.post("/auth/api", json=wrong).json == {"mine": "bad_credentials"}
    assert client.post("/auth/api", json=wrong).json == {"slow": "down"}
    assert client.get("/auth/me").json == {"mine": "authentication_required"}
    assert client.post("/auth/api", data=b"[]", content_type="application/json").json == {"mine": "body_invalid"}
    assert client.post("/auth/api", data=b"x" * 70_000).json == {"mine": "body_invalid"}


def test_an_error_handler_by_status_sees_jams_errors(new_site):
    site = new_site()
    site.app.register_error_handler(400, lambda error: ({"mine": error.error.code}, 400))
    assert site.client().post("/auth/api", json={}).json == {"mine": "body_invalid"}


# -- several apps -------------------------------------------------------------------------------------------


def test_two_apps_with_one_jam_know_the_same_people_and_credentials(new_site):
    first = new_site()
    second = new_site(jam=first.jam, users=first.users)
    alice = first.person("alice")
    headers = first.fresh(alice)
    assert second.client().get("/auth/me", headers=headers).json["username"] == "alice"
    assert second.client().post("/auth/sign-out/everywhere", headers=headers).status_code == 204
    assert first.client().get("/auth/me", headers=headers).status_code == 401


def test_one_extension_serves_many_apps(site, new_site):
    other = Flask("other")
    other.config.update(site.app.config)
    site.extension.init_app(other)
    site.person("alice")
    assert other.test_client().post("/auth/api", json=RIGHT).status_code == 200
    assert site.client().post("/auth/api", json=RIGHT).status_code == 200


def test_an_app_has_accounts_once(site):
    with pytest.raises(ConfigError, match="accounts already"):
        AccountsExtension(site.jam, site.app, users=site.users)


def test_the_extension_takes_people_or_flows_and_not_both(site):
    with pytest.raises(ConfigError, match="either"):
        AccountsExtension(site.jam)
    with pytest.raises(ConfigError, match="either"):
        AccountsExtension(site.jam, users=site.users, accounts=site.accounts)


def test_an_app_factory_sets_it_up_later(site):
    extension = AccountsExtension(site.jam, accounts=Accounts(site.jam, site.users, mailer=site.box))

    def make_app():
        app = Flask("made")
        app.config.update(site.app.config)
        extension.init_app(app)
        return app

    site.person("alice")
    for app in (make_app(), make_app()):
        assert app.test_client().post("/auth/api", json=RIGHT).status_code == 200


def test_the_prefixes_are_the_apps_to_choose(new_site):
    site = new_site(url_prefix="/account", api_prefix="/v2")
    alice = site.person("alice")
    client = site.client()
    assert client.post("/account/api", json=RIGHT).status_code == 200
    assert client.get("/v2/users/1", headers=site.held(alice)).json["_links"] == {"self": "/v2/users/1"}
    assert client.get("/auth/me").status_code == 404


@pytest.mark.parametrize("name", ["url_prefix", "api_prefix"])
def test_a_prefix_that_is_none_is_a_mistake(site, name):
    with pytest.raises(ConfigError, match="slash"):
        AccountsExtension(site.jam, users=site.users, **{name: "auth"})


def test_an_app_may_do_without_the_api(new_site):
    site = new_site(api_prefix=None)
    alice = site.person("alice")
    client = site.client()
    assert client.get("/auth/me", headers=site.held(alice)).json["_links"] == {}
    assert client.get("/api/users", headers=site.held(alice)).status_code == 404
    client.post("/auth/register", json={"username": "carol", "email": "c@example.org", "password": PASSWORD})
    made = client.post("/auth/register/confirm", json={"token": site.token(), "password": PASSWORD})
    assert made.status_code == 201
    assert made.headers.get("Location") is None


# -- the app's own views ------------------------------------------------------------------------------------


def test_current_user_is_the_apps_own_and_nobody_is_none_of_them(site, client, alice):
    site.app.add_url_rule("/whoami", "whoami", whoami)
    assert client.get("/whoami").json == {"name": None, "method": "anonymous"}
    assert client.get("/whoami", headers=site.held(alice)).json == {"name": "alice", "method": "jwt"}
    assert client.get("/whoami", headers=site.api_token(alice)).json == {"name": "alice", "method": "api_token"}
    assert site.browser(alice).get("/whoami").json == {"name": "alice", "method": "session"}


def test_the_apps_own_sign_in_is_known_to_the_accounts(site, alice):
    @site.app.post("/own-sign-in")
    def own_sign_in():
        login_user(site.users.load(alice.subject))
        return {}

    browser = site.stranger()
    assert browser.post("/own-sign-in").status_code == 200
    assert browser.get("/auth/me").json["username"] == "alice"
    assert len(browser.get("/auth/sessions").json["items"]) == 1


def test_a_user_is_named_by_their_subject_whether_or_not_they_can_say_so_themselves(site, alice):
    class Person(UserMixin):
        id = 7

    subject_of = site.extension.subject_of
    assert (subject_of(Person()), subject_of(alice.user), subject_of("1")) == ("7", "1", "1")


def test_a_view_of_the_apps_own_takes_every_credential(site, client, alice):
    site.app.add_url_rule("/own", "own", login_required(whoami))
    for headers in (site.held(alice), site.api_token(alice)):
        assert client.get("/own", headers=headers).json["name"] == "alice"
    site.users.update(alice.subject, {"is_active": False})
    for headers in (site.held(alice), site.api_token(alice)):
        assert answer(client.get("/own", headers=headers)) == (403, "user_inactive")


def test_who_is_not_active_is_refused_whatever_the_apps_model_calls_that(new_site, tmp_path):
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path}/people.sqlite3"
    db = SQLAlchemy(app)

    class User(db.Model):
        id = db.Column(db.Integer, primary_key=True)
        username = db.Column(db.String(64), unique=True)
        email = db.Column(db.String(120), unique=True)
        email_verified = db.Column(db.Boolean, default=False)
        password_hash = db.Column(db.String(128))
        active = db.Column(db.Boolean, nullable=False, default=True)

    with app.app_context():
        db.create_all()
        engine = db.engine
    try:
        site = new_site(app, users=SQLUsers(User, db))
        headers = site.held(site.person("alice"))
        assert site.client().get("/auth/me", headers=headers).status_code == 200
        with app.app_context():
            site.users.update("1", {"is_active": False})
        assert answer(site.client().get("/auth/me", headers=headers)) == (403, "user_inactive")
    finally:
        engine.dispose()


def test_a_blueprint_of_the_apps_own_may_share_the_prefix(site, client):
    own = Blueprint("own", "own", url_prefix="/auth")
    own.add_url_rule("/hello", "hello", lambda: "hello")
    site.app.register_blueprint(own)
    assert client.get("/auth/hello").text == "hello"


# -- an app's own tests -------------------------------------------------------------------------------------


def test_jams_own_test_client_is_whoever_it_is_told_to_be(site, alice):
    site.app.test_client_class = JamClient
    browser = site.app.test_client().login_as(alice.user)
    assert browser.get("/auth/me").json["username"] == "alice"
    assert (
        browser.post(
            "/auth/password", json={"current_password": PASSWORD, "new_password": "purple lantern gravel"}
        ).status_code
        == 204
    )
    assert browser.get("/auth/me").status_code == 200
    assert answer(browser.login_as(alice.user, fresh=False).get("/auth/export")) == (
        401,
        "insufficient_user_authentication",
    )
    by_token = site.app.test_client().login_as(alice.subject, by="token")
    assert by_token.get("/auth/export").status_code == 200
    assert by_token.post("/api/tokens").status_code == 200
    by_token.logout()
    assert by_token.get("/auth/me").status_code == 401


def test_flasks_test_client_signs_in_as_a_browser_does(site, alice):
    browser = site.app.test_client()
    assert answer(browser.post("/auth/sign-in", json=RIGHT)) == (403, "csrf_failed")
    assert browser.post("/auth/sign-in", json=RIGHT, headers=SAME_ORIGIN).status_code == 200
    assert browser.get("/auth/me").json["username"] == "alice"


# -- what cannot be asked -----------------------------------------------------------------------------------


def test_asvs_16_5_3_a_store_that_cannot_be_asked_lets_nobody_in(new_site, secret, clock):
    site = new_site(jam=Jam({"secret": secret, "store": "sqlite:////dev/null/jam.sqlite3"}, clock=clock))
    site.person("alice")
    client = site.client()
    for path, given in (("/auth/api", RIGHT), ("/auth/forgot", {"email": "alice@example.org"}), ("/api/tokens", None)):
        response = client.post(path, json=given, headers=basic("alice"))
        assert answer(response) == (503, "store_unavailable"), path
        assert "Retry-After" in response.headers


def test_asvs_16_5_3_people_who_cannot_be_asked_about_let_nobody_in(new_site, tmp_path):
    site = new_site(users=open_users(f"sqlite:///{tmp_path}/people.sqlite3"))
    headers, client = site.held(site.person("alice")), site.client()
    engine = sa.create_engine(f"sqlite:///{tmp_path}/people.sqlite3", poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE jam_users RENAME TO lost"))
    for method, path, given in (
        ("POST", "/auth/api", RIGHT),
        ("POST", "/auth/forgot", {"email": "alice@example.org"}),
        ("GET", "/auth/me", None),
        ("GET", "/api/users", None),
        ("PUT", "/api/users/1", {"username": "x1"}),
    ):
        response = client.open(path, method=method, json=given, headers=headers)
        assert answer(response) == (503, "store_unavailable"), path
    assert answer(client.post("/api/tokens", headers=basic("alice"))) == (503, "store_unavailable")


def test_an_app_that_can_send_no_mail_is_the_developers_mistake(new_site):
    site = new_site()
    AccountsExtension(site.jam, app := Flask("mute"), users=site.users)
    app.testing = True
    with pytest.raises(ConfigError, match="mail"):
        app.test_client().post("/auth/forgot", json={"email": "alice@example.org"})


def test_an_access_token_of_another_jam_is_no_good(site, client, alice, clock):
    other = Jam({"secret": "another-secret-of-sufficient-length-and-entropy-8fj39"}, clock=clock)
    assert answer(client.get("/auth/me", headers=bearer(other.access_tokens.issue(alice.subject)))) == (
        401,
        "token_invalid",
    )
