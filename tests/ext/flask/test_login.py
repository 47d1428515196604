"""Signing in and out with the names of Flask-Login, and what that library's users have been bitten by."""

import json
import logging
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import requests
from flask import Blueprint, get_flashed_messages, render_template_string, request, session
from flask.testing import FlaskClient
from werkzeug.serving import make_server

from jam import Jam
from jam.errors import ConfigError, InvalidValue, StoreUnavailable
from jam.ext.flask import (
    AnonymousUserMixin,
    Fresh,
    HasRole,
    JWTExtension,
    Method,
    SessionExtension,
    UserMixin,
    checkpoint,
    confirm_login,
    create_access_token,
    current_identity,
    current_user,
    deny_by_default,
    end_login,
    end_other_logins,
    fresh_login_required,
    list_logins,
    login_fresh,
    login_remembered,
    login_required,
    login_user,
    logout_user,
)
from tests.ext.flask.callers import (
    CROSS_SITE,
    PAGE,
    SAME_ORIGIN,
    UNREACHABLE,
    answer,
    bearer,
    called,
    cookies,
    raw_client,
    set_cookies,
    vary,
)

DAY = 86400
NOBODY = (401, "authentication_required")
PHONE = {"User-Agent": "Phone/1"}


class User(UserMixin):
    def __init__(self, id, is_active=True):  # noqa: A002 - what models call it
        self.id, self.active = id, is_active

    @property
    def is_active(self):
        return self.active


class Browser(FlaskClient):
    """A browser: it says where its requests come from, and can be closed and opened again."""

    def open(self, *args, **options):
        if options.get("method", "GET") not in {"GET", "HEAD"}:
            options["headers"] = {**SAME_ORIGIN, **(options.get("headers") or {})}
        return super().open(*args, **options)

    def restart(self):
        """What is for this sitting alone is gone."""
        self.delete_cookie("sessionId")

    def value(self, name):
        cookie = self.get_cookie(name)
        return cookie and cookie.value

    @property
    def handle(self):
        return self.value("sessionId")

    @property
    def token(self):
        return self.value("remember_token")


def views(app, users, jam):
    """A small site, with a view for each thing a person may do."""

    @app.post("/sign-in/<name>")
    def sign_in(name):
        arguments = json.loads(request.args.get("with", "{}"))
        done = login_user(users[name], **arguments)
        return {"done": done, "user": current_user.get_id()}

    @app.post("/sign-out")
    def sign_out():
        done = logout_user()
        return {"done": done, "user": current_user.get_id(), "subject": current_identity.subject}

    @app.route("/me", methods=["GET", "POST"])
    @login_required
    def me():
        return {"user": current_user.id, "method": current_identity.method}

    @app.get("/who")
    def who():
        return {"user": current_user.get_id(), "fresh": login_fresh(), "remembered": login_remembered()}

    @app.get("/page")
    def page():
        return render_template_string(
            "{% if current_user.is_authenticated %}{{ current_user.id }}{% else %}-{% endif %}"
        )

    @app.get("/public")
    def public():
        return "for everyone"

    @app.get("/secret")
    @fresh_login_required
    def secret():
        return {"user": current_user.id}

    @app.post("/confirm")
    def confirm():
        confirm_login()
        return {"user": current_user.id, "fresh": login_fresh()}

    @app.get("/logins")
    def logins():
        return [
            {"id": one.id, "current": one.current, "remembered": one.remembered, **one.device} for one in list_logins()
        ]

    @app.post("/logins/<name>/end")
    def end(name):
        return {"ended": end_login(name)}

    @app.post("/logins/end-others")
    def end_others():
        end_other_logins()
        return {"user": current_user.id}

    @app.post("/password")
    def password():
        jam.revoke_all(current_identity.subject)
        return ""


@pytest.fixture
def users():
    return {name: User(name) for name in ("alice", "bob", "root")} | {"gone": User("gone", is_active=False)}


@pytest.fixture
def new_site(new_app, users):
    def make(jam, cookie_name="sessionId", header_name=None, **config):
        app = new_app(**config)
        app.logins = SessionExtension(jam, app, header_name=header_name, cookie_name=cookie_name)
        app.logins.user_loader(users.get)
        app.test_client_class = Browser
        views(app, users, jam)
        return app

    return make


@pytest.fixture
def site(new_site, jam):
    return new_site(jam)


@pytest.fixture
def browser(site):
    return site.test_client()


def sign_in(browser, name="alice", headers=None, **arguments):
    return browser.post(f"/sign-in/{name}", query_string={"with": json.dumps(arguments)}, headers=headers)


def is_in(browser, path="/me", **options):
    return browser.get(path, **options).status_code == 200


def alone(app, **values):
    """What somebody can do who has nothing but these cookies."""
    return raw_client(app).get("/me", headers=cookies(*values.items())).status_code == 200


# -- signing in ---------------------------------------------------------------------------------------------


def test_who_signs_in_is_the_current_user_at_once_and_from_then_on(browser):
    assert sign_in(browser).json == {"done": True, "user": "alice"}
    assert browser.get("/me").json == {"user": "alice", "method": "session"}


def test_the_current_user_is_known_in_templates(browser):
    assert browser.get("/page").text == "-"
    sign_in(browser)
    assert browser.get("/page").text == "alice"


def test_asvs_7_2_4_a_handle_that_somebody_planted_is_not_the_one_of_the_login(site, browser, jam):
    planted = jam.sessions.create("mallory")
    browser.set_cookie("sessionId", planted)
    sign_in(browser)
    assert browser.handle != planted
    assert not alone(site, sessionId=planted)
    assert browser.get("/me").json["user"] == "alice"


@pytest.mark.parametrize("planted", ["x", "A" * 24 + "." + "A" * 43])
def test_asvs_7_2_4_a_made_up_handle_is_not_taken_over(browser, planted):
    browser.set_cookie("sessionId", planted)
    sign_in(browser)
    assert browser.handle != planted


def test_asvs_7_2_4_who_signs_in_again_gets_a_new_handle_and_the_old_one_is_dead(site, browser):
    sign_in(browser)
    old = browser.handle
    sign_in(browser)
    assert browser.handle != old
    assert not alone(site, sessionId=old)


def test_signing_in_here_leaves_other_browsers_alone(site, browser):
    other = site.test_client()
    sign_in(other)
    sign_in(browser)
    assert is_in(other)


def test_of_two_sign_ins_in_one_request_the_last_one_counts_and_one_session_lives(site, browser, users, jam):
    @site.post("/twice")
    def twice():
        login_user(users["alice"], remember=True)
        login_user(users["bob"])
        return ""

    browser.post("/twice")
    assert browser.get("/me").json["user"] == "bob"
    assert jam.logins.list("alice") == []
    assert len(jam.logins.list("bob")) == 1


def test_who_signs_in_and_out_in_one_request_is_out_and_keeps_no_cookie(site, browser, users, jam):
    @site.post("/in-and-out")
    def in_and_out():
        login_user(users["alice"], remember=True)
        logout_user()
        return ""

    browser.post("/in-and-out")
    assert not is_in(browser)
    assert jam.logins.list("alice") == []
    assert (browser.handle, browser.token) == (None, None)


def test_a_user_who_is_not_active_cannot_sign_in_and_nothing_is_done(browser, jam):
    response = sign_in(browser, "gone", remember=True)
    assert response.json == {"done": False, "user": None}
    assert set_cookies(response) == {}
    assert jam.logins.list("gone") == []


def test_a_user_who_is_not_active_may_be_signed_in_by_force_and_is_forbidden_then(browser):
    assert sign_in(browser, "gone", force=True).json["done"] is True
    assert answer(browser.get("/me")) == (403, "user_inactive")


def test_a_refused_sign_in_leaves_the_login_before_it_as_it_was(browser):
    sign_in(browser)
    sign_in(browser, "gone")
    assert browser.get("/me").json["user"] == "alice"


def test_asvs_3_5_1_nobody_is_signed_in_by_another_site(browser):
    response = sign_in(browser, headers=CROSS_SITE)
    assert answer(response) == (403, "csrf_failed")
    assert set_cookies(response) == {}


@pytest.mark.parametrize("user_id", [None, ""])
def test_a_user_without_an_id_cannot_sign_in(site, users, user_id):
    users["nobody"] = User(user_id)
    with site.test_request_context("/", method="POST", headers=SAME_ORIGIN), pytest.raises(InvalidValue):
        login_user(users["nobody"])


def test_a_users_number_becomes_the_name_in_the_session(site, users):
    with site.test_request_context("/", method="POST", headers=SAME_ORIGIN):
        login_user(User(7))
        assert (current_identity.subject, current_user.id) == ("7", 7)


def test_without_a_session_extension_nobody_can_sign_in(app, jam):
    JWTExtension(jam, app)
    with app.test_request_context("/", method="POST", headers=SAME_ORIGIN), pytest.raises(ConfigError):
        login_user(User("alice"))


def test_a_sign_in_that_races_a_password_change_fails_and_leaves_nothing(site, browser, users, jam):
    @site.post("/slow")
    def slow():
        generation = jam.sessions.generation("alice")
        jam.revoke_all("alice")
        login_user(users["alice"], remember=True, generation=generation)
        return ""

    response = browser.post("/slow")
    assert answer(response) == (409, "generation_outdated")
    assert set_cookies(response) == {}
    assert jam.logins.list("alice") == []


def test_an_async_view_may_sign_in(site, browser, users):
    @site.post("/async")
    async def view():
        return {"done": login_user(users["alice"]), "user": current_user.id}

    assert browser.post("/async").json == {"done": True, "user": "alice"}
    assert is_in(browser)


def test_the_roles_the_app_gives_are_those_of_the_login_and_asked_for_anew(site, browser):
    roles = {"alice": ["admin"]}
    site.logins.get_user_roles(lambda user: roles.get(user.id, ()))
    site.get("/admin")(checkpoint(HasRole("admin"))(lambda: "in"))
    sign_in(browser)
    assert is_in(browser, "/admin")
    roles.clear()
    assert answer(browser.get("/admin")) == (403, "role_required")


# -- cookies ------------------------------------------------------------------------------------------------


def test_asvs_3_3_1_the_cookies_of_a_login_are_not_for_scripts_nor_for_other_sites(browser):
    found = set_cookies(sign_in(browser, remember=True))
    assert set(found) == {"sessionId", "remember_token"}
    for _, attributes in found.values():
        assert {"httponly", "samesite=lax", "path=/"} <= attributes
        assert not any(one.startswith("domain") for one in attributes)


def test_asvs_3_3_3_by_https_the_cookies_are_secure_and_jams_own_name_says_so(new_site, jam):
    browser = new_site(jam, JAM_HTTPS=True).test_client()
    response = browser.post("/sign-in/alice", query_string={"with": '{"remember": true}'}, base_url="https://localhost")
    found = set_cookies(response)
    assert set(found) == {"sessionId", "__Host-remember_token"}
    assert all("secure" in attributes for _, attributes in found.values())


def test_the_sessions_cookie_ends_with_the_sitting_and_the_other_one_does_not(browser):
    found = set_cookies(sign_in(browser, remember=True))
    lasting = {
        name: [one for one in attributes if one.startswith("max-age")] for name, (_, attributes) in found.items()
    }
    assert lasting == {"sessionId": [], "remember_token": [f"max-age={365 * DAY}"]}


@pytest.mark.parametrize("act", [sign_in, lambda browser: browser.post("/sign-out")])
def test_what_sets_cookies_is_for_nobodys_cache(browser, act):
    assert act(browser).headers["Cache-Control"] == "no-store"


def test_a_secure_cookie_on_a_plain_http_request_is_one_error_in_the_log_that_names_the_setting(new_site, jam, caplog):
    name = f"session-{secrets.token_hex(4)}"
    browser = new_site(jam, cookie_name=name, JAM_HTTPS=True).test_client()
    for _ in range(3):
        sign_in(browser)
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert name in errors[0].getMessage()
    assert "JAM_HTTPS" in errors[0].getMessage()


@pytest.mark.parametrize("config", [{"JAM_HTTPS": False}, {}])
def test_without_secure_cookies_nothing_is_logged(new_site, jam, caplog, config):
    browser = new_site(jam, cookie_name=f"session-{secrets.token_hex(4)}", **config).test_client()
    sign_in(browser)
    assert is_in(browser)
    assert [record for record in caplog.records if record.levelno == logging.ERROR] == []


@pytest.mark.parametrize(
    "config",
    [
        {"REMEMBER_COOKIE_HTTPONLY": False},
        {"REMEMBER_COOKIE_SECURE": False, "JAM_HTTPS": True},
        {"REMEMBER_COOKIE_SAMESITE": "None", "JAM_HTTPS": False},
        {"REMEMBER_COOKIE_SAMESITE": "none"},
        {"REMEMBER_COOKIE_NAME": ""},
        {"REMEMBER_COOKIE_NAME": "__Host-x", "JAM_HTTPS": False},
        {"REMEMBER_COOKIE_NAME": "__Host-x", "REMEMBER_COOKIE_PATH": "/x", "JAM_HTTPS": True},
        {"REMEMBER_COOKIE_NAME": "__Host-x", "REMEMBER_COOKIE_DOMAIN": "shop.example", "JAM_HTTPS": True},
        {"REMEMBER_COOKIE_NAME": "a b;c"},
        {"REMEMBER_COOKIE_NAME": "sessionId"},
        {"REMEMBER_COOKIE_DURATION": -1},
        {"LOGIN_DISABLED": True},
    ],
    ids=str,
)
def test_asvs_3_3_3_a_configuration_that_is_unsafe_or_that_no_browser_takes_is_refused_at_the_first_request(
    new_site, jam, config
):
    with pytest.raises(ConfigError):
        new_site(jam, **config).test_client().get("/me", base_url="https://localhost")


def test_the_known_names_of_the_remember_cookies_options_are_understood(new_site, jam):
    browser = new_site(
        jam,
        REMEMBER_COOKIE_NAME="keep",
        REMEMBER_COOKIE_PATH="/me",
        REMEMBER_COOKIE_SAMESITE="Strict",
        REMEMBER_COOKIE_DURATION=timedelta(days=30),
    ).test_client()
    _, attributes = set_cookies(sign_in(browser, remember=True))["keep"]
    assert {"path=/me", "samesite=strict", f"max-age={30 * DAY}"} <= attributes


# -- signing out --------------------------------------------------------------------------------------------


def test_asvs_7_4_1_who_signs_out_is_nobody_at_once_and_the_handle_is_dead(site, browser):
    sign_in(browser)
    handle = browser.handle
    assert browser.post("/sign-out").json == {"done": True, "user": None, "subject": None}
    assert browser.handle is None
    assert answer(browser.get("/me")) == NOBODY
    assert not alone(site, sessionId=handle)


def test_asvs_7_4_1_a_remember_cookie_is_worth_nothing_after_signing_out(site, browser):
    sign_in(browser, remember=True)
    token = browser.token
    browser.post("/sign-out")
    assert browser.token is None
    assert not alone(site, remember_token=token)


def test_asvs_7_4_1_who_is_restored_and_signs_out_in_one_request_is_out(site, browser, jam):
    sign_in(browser, remember=True)
    first = browser.token
    browser.restart()
    browser.post("/sign-out")
    assert (browser.handle, browser.token) == (None, None)
    assert jam.logins.list("alice") == []
    assert not alone(site, remember_token=first)


def test_asvs_14_3_1_the_browser_is_told_to_clear_what_it_kept(browser):
    sign_in(browser)
    assert browser.post("/sign-out").headers["Clear-Site-Data"] == '"cache", "storage"'


def test_signing_out_when_nobody_is_signed_in_does_no_harm(browser):
    assert browser.post("/sign-out").json["done"] is True


def test_signing_out_here_leaves_other_browsers_alone(site, browser):
    other = site.test_client()
    sign_in(other)
    sign_in(browser)
    browser.post("/sign-out")
    assert is_in(other)


def test_asvs_3_5_1_nobody_is_signed_out_by_another_site(browser):
    sign_in(browser)
    response = browser.post("/sign-out", headers=CROSS_SITE)
    assert answer(response) == (403, "csrf_failed")
    assert set_cookies(response) == {}
    assert is_in(browser)


def test_asvs_7_4_1_a_session_that_came_in_a_header_is_ended_too(new_site, jam):
    app = new_site(jam, header_name="Authorization")
    handle = jam.sessions.create("alice")
    assert app.test_client().post("/sign-out", headers=bearer(handle)).json["user"] is None
    assert jam.sessions.get(handle) is None


def test_asvs_7_4_1_a_token_that_proved_the_caller_is_revoked(new_site, jam):
    app = new_site(jam)
    JWTExtension(jam, app)
    token = jam.access_tokens.issue("alice")
    app.test_client().post("/sign-out", headers=bearer(token))
    assert answer(raw_client(app).get("/me", headers=bearer(token))) == (401, "token_revoked")


@pytest.mark.parametrize("order", [("session", "jwt"), ("jwt", "session")])
def test_asvs_7_4_1_a_browser_with_a_session_and_a_token_in_cookies_is_signed_out_of_both(new_app, jam, users, order):
    app = new_app(JWT_TOKEN_LOCATION=["cookies"])
    app.test_client_class = Browser
    for kind in order:
        (SessionExtension if kind == "session" else JWTExtension)(jam, app).user_loader(users.get)
    views(app, users, jam)
    browser = app.test_client()
    sign_in(browser)
    browser.set_cookie("access_token_cookie", jam.access_tokens.issue("alice"))
    browser.post("/sign-out")
    assert answer(browser.get("/me"))[0] == 401


def test_what_flask_kept_for_a_person_is_not_for_the_next_one(site, browser):
    @site.post("/cart")
    def fill():
        session["cart"] = "a book"
        return ""

    site.get("/cart", endpoint="look")(lambda: {"cart": session.get("cart")})
    browser.post("/cart")
    sign_in(browser)
    assert browser.get("/cart").json == {"cart": "a book"}, "what was put in before signing in stays"
    sign_in(browser, "bob")
    assert browser.get("/cart").json == {"cart": None}
    browser.post("/cart")
    browser.post("/sign-out")
    assert browser.get("/cart").json == {"cart": None}


# -- who is turned away, and where to -----------------------------------------------------------------------


@pytest.fixture
def doors(site):
    site.logins.login_view = "sign_in_page"
    site.get("/sign-in")(sign_in_page)
    return site


def sign_in_page():
    return {"flashed": get_flashed_messages(with_categories=True)}


def test_who_looks_for_a_page_is_sent_to_sign_in_with_a_way_back_and_a_message(doors):
    browser = doors.test_client()
    response = browser.get("/me?x=1", headers=PAGE)
    assert (response.status_code, response.headers["Location"]) == (302, "/sign-in?next=%2Fme%3Fx%3D1")
    assert browser.get("/sign-in").json == {"flashed": [["message", "Please log in to access this page."]]}


def test_the_way_to_sign_in_is_for_nobodys_shared_cache(doors):
    response = doors.test_client().get("/me", headers=PAGE)
    assert "private" in response.headers["Cache-Control"]
    assert "cookie" in vary(response)


@pytest.mark.parametrize(
    "headers",
    [
        {"Accept": "application/json"},
        {"Accept": "*/*"},
        {"Accept": "application/problem+json"},
        {**PAGE, "X-Requested-With": "XMLHttpRequest"},
        {**PAGE, "Sec-Fetch-Mode": "cors"},
        {**PAGE, "Sec-Fetch-Mode": "same-origin"},
        {**PAGE, "Sec-Fetch-Mode": "no-cors"},
        {**PAGE, "Authorization": "Bearer x"},
        {**PAGE, "Content-Type": "application/json"},
        {"Accept": "image/png"},
    ],
    ids=str,
)
def test_who_is_no_person_looking_at_a_page_gets_the_401(doors, headers):
    response = doors.test_client().get("/me", headers=headers)
    assert response.status_code == 401
    assert "WWW-Authenticate" in response.headers
    assert set_cookies(response) == {}


@pytest.mark.parametrize("headers", [PAGE, {**PAGE, "Sec-Fetch-Mode": "navigate"}, {"Sec-Fetch-Mode": "navigate"}, {}])
def test_who_may_be_a_person_looking_at_a_page_is_sent_to_sign_in(doors, headers):
    assert doors.test_client().get("/me", headers=headers).status_code == 302


def test_without_a_login_view_a_page_says_401_and_how_to_authenticate(browser):
    response = browser.get("/me", headers=PAGE)
    assert response.status_code == 401
    assert "WWW-Authenticate" in response.headers


def test_a_login_view_may_be_a_url(site):
    site.logins.login_view = "https://sso.example/in?app=1"
    location = site.test_client().get("/me", headers=PAGE).headers["Location"]
    assert location == "https://sso.example/in?app=1&next=%2Fme"


def test_the_message_can_be_changed_translated_and_left_out(doors):
    doors.logins.login_message, doors.logins.login_message_category = "Who are you?", "warning"
    browser = doors.test_client()
    browser.get("/me", headers=PAGE)
    doors.logins.localize_callback = str.upper
    browser.get("/me", headers=PAGE)
    doors.logins.login_message = None
    browser.get("/me", headers=PAGE)
    assert browser.get("/sign-in").json["flashed"] == [["warning", "Who are you?"], ["warning", "WHO ARE YOU?"]]


def test_a_blueprint_may_have_a_login_view_of_its_own(doors):
    shop = Blueprint("shop", __name__, url_prefix="/shop")
    shop.get("/cart")(login_required(lambda: "in"))
    doors.logins.set_login_view("/shop/door", shop)
    doors.register_blueprint(shop)
    locations = [doors.test_client().get(path, headers=PAGE).headers["Location"] for path in ("/shop/cart", "/me")]
    assert locations == ["/shop/door?next=%2Fshop%2Fcart", "/sign-in?next=%2Fme"]


def test_the_app_may_answer_itself(doors):
    doors.logins.unauthorized_handler(lambda: ("who?", 418))
    doors.logins.needs_refresh_handler(lambda: ("again!", 419))
    browser = doors.test_client()
    for headers in (PAGE, {"Accept": "application/json"}):
        assert browser.get("/me", headers=headers).text == "who?"
    sign_in(browser, fresh=False)
    assert browser.get("/secret").text == "again!"


def test_who_may_not_is_told_so_and_not_sent_to_sign_in(doors):
    doors.get("/admin")(checkpoint(HasRole("admin"))(lambda: "in"))
    browser = doors.test_client()
    sign_in(browser)
    assert browser.get("/admin", headers=PAGE).status_code == 403


def test_a_message_needs_no_secret_key(new_site, jam):
    app = new_site(jam, SECRET_KEY=None)
    app.logins.login_view = "/sign-in"
    assert app.test_client().get("/me", headers=PAGE).status_code == 302
    browser = app.test_client()
    sign_in(browser)
    assert browser.post("/sign-out").status_code == 200


@pytest.mark.parametrize("view", ["//evil.example", "https://evil.example/"])
def test_asvs_3_7_2_the_host_a_request_names_is_not_where_people_are_sent(doors, view):
    response = doors.test_client().get("/me", headers={**PAGE, "Host": "evil.example", "X-Forwarded-Host": view})
    assert response.headers["Location"] == "/sign-in?next=%2Fme"


# -- freshness ----------------------------------------------------------------------------------------------


def test_asvs_7_5_1_who_just_signed_in_is_fresh_and_a_restored_browser_is_not(browser):
    sign_in(browser, remember=True)
    assert (is_in(browser, "/secret"), browser.get("/who").json["fresh"]) == (True, True)
    browser.restart()
    assert answer(browser.get("/secret")) == (401, "insufficient_user_authentication")
    assert (browser.get("/me").status_code, browser.get("/who").json["fresh"]) == (200, False)


def test_nobody_is_not_fresh(browser):
    assert browser.get("/who").json["fresh"] is False
    assert answer(browser.get("/secret")) == NOBODY


def test_asvs_7_2_4_who_proves_again_who_they_are_is_fresh_under_a_new_handle(site, browser):
    sign_in(browser, remember=True)
    browser.restart()
    browser.get("/me")
    old = browser.handle
    assert browser.post("/confirm").json == {"user": "alice", "fresh": True}
    assert is_in(browser, "/secret")
    assert browser.handle != old
    assert not alone(site, sessionId=old)


def test_who_is_restored_and_proves_who_they_are_in_one_request_is_fresh(browser, jam):
    sign_in(browser, remember=True)
    browser.restart()
    assert browser.post("/confirm").json["fresh"] is True
    assert is_in(browser, "/secret")
    assert len(jam.logins.list("alice")) == 1


def test_who_has_no_session_cannot_prove_it_again(new_site, jam):
    app = new_site(jam)
    JWTExtension(jam, app)
    assert app.test_client().post("/confirm").status_code == 401
    assert app.test_client().post("/confirm", headers=bearer(jam.access_tokens.issue("alice"))).status_code == 401


def test_asvs_3_5_1_nobody_is_made_fresh_by_another_site(browser):
    sign_in(browser, fresh=False)
    assert answer(browser.post("/confirm", headers=CROSS_SITE)) == (403, "csrf_failed")
    assert not is_in(browser, "/secret")


def test_asvs_7_5_1_a_sign_in_that_is_not_fresh_satisfies_no_guard_that_asks_for_a_recent_proof(site, browser):
    site.get("/recent")(checkpoint(Fresh(60))(lambda: "in"))
    sign_in(browser, fresh=False)
    assert not is_in(browser, "/secret")
    assert not is_in(browser, "/recent")


def test_asvs_7_5_1_a_restored_browser_satisfies_no_guard_that_asks_for_a_recent_proof(site, browser, clock):
    site.get("/recent")(checkpoint(Fresh(60))(lambda: "in"))
    sign_in(browser, remember=True)
    assert is_in(browser, "/recent")
    clock.move(2 * DAY)
    assert not is_in(browser, "/recent")
    browser.post("/confirm")
    assert is_in(browser, "/recent")


def test_who_is_not_fresh_is_sent_to_prove_it_with_a_way_back_and_a_message(doors):
    doors.logins.refresh_view = "/again"
    browser = doors.test_client()
    sign_in(browser, fresh=False)
    assert browser.get("/secret", headers=PAGE).headers["Location"] == "/again?next=%2Fsecret"
    assert browser.get("/sign-in").json["flashed"] == [["message", "Please reauthenticate to access this page."]]
    assert browser.get("/secret", headers={"Accept": "application/json"}).status_code == 401


def test_a_token_is_fresh_if_it_says_so(new_site, jam):
    app = new_site(jam)
    JWTExtension(jam, app)
    app.post("/token/<int:fresh>")(lambda fresh: create_access_token("alice", fresh=bool(fresh)))
    browser = app.test_client()
    for fresh, status in ((1, 200), (0, 401)):
        assert browser.get("/secret", headers=bearer(browser.post(f"/token/{fresh}").text)).status_code == status


# -- remembered browsers ------------------------------------------------------------------------------------


def test_a_browser_that_is_opened_again_is_signed_in_and_both_its_cookies_are_new(browser):
    sign_in(browser, remember=True)
    before = browser.handle, browser.token
    browser.restart()
    assert browser.get("/me").json == {"user": "alice", "method": "session"}
    assert browser.handle not in (None, before[0])
    assert browser.token not in (None, before[1])
    assert browser.get("/who").json["remembered"] is True


def test_a_browser_that_was_not_asked_to_be_remembered_is_not(browser):
    assert "remember_token" not in set_cookies(sign_in(browser))
    assert browser.get("/who").json["remembered"] is False
    browser.restart()
    assert not is_in(browser)


def test_a_session_that_idled_out_is_followed_by_another(browser, clock):
    sign_in(browser, remember=True)
    handle = browser.handle
    clock.move(2 * DAY)
    assert is_in(browser)
    assert browser.handle != handle


def test_while_the_session_lives_the_remember_cookie_is_left_alone(browser):
    sign_in(browser, remember=True)
    token = browser.token
    assert set_cookies(browser.get("/me")) == {}
    assert browser.token == token


def test_a_page_that_asks_for_nobody_restores_nobody(browser):
    sign_in(browser, remember=True)
    browser.restart()
    assert set_cookies(browser.get("/public")) == {}


@pytest.mark.parametrize("duration", [{"days": 7}])
def test_for_how_long_may_be_said_at_the_sign_in(site, browser, users, clock, duration):
    site.post("/week")(lambda: {"done": login_user(users["alice"], remember=True, duration=timedelta(**duration))})
    _, attributes = set_cookies(browser.post("/week"))["remember_token"]
    assert f"max-age={7 * DAY}" in attributes
    clock.move(7 * DAY - 100)
    browser.restart()
    response = browser.get("/me")
    assert "max-age=100" in set_cookies(response)["remember_token"][1]
    clock.move(100)
    assert not is_in(browser)


def test_asvs_3_5_1_no_browser_is_restored_for_another_sites_request(browser):
    sign_in(browser, remember=True)
    browser.restart()
    token = browser.token
    response = browser.post("/me", headers=CROSS_SITE)
    assert answer(response) == (403, "csrf_failed")
    assert set_cookies(response) == {}
    assert browser.post("/me").status_code == 200
    assert browser.token != token


def test_a_login_that_is_not_to_be_remembered_forgets_the_one_before_it(site, browser):
    sign_in(browser, remember=True)
    token = browser.token
    sign_in(browser, "bob")
    assert browser.token is None
    assert not alone(site, remember_token=token)


def test_a_stolen_token_is_noticed_and_ends_thief_and_owner(site, browser, clock):
    sign_in(browser, remember=True)
    browser.restart()
    thief = site.test_client()
    thief.set_cookie("remember_token", browser.token)
    assert is_in(thief)
    clock.move(120)
    response = browser.get("/me")
    assert answer(response) == (401, "refresh_token_reused")
    assert browser.token is None
    assert not is_in(thief)


def test_after_a_password_change_that_ends_the_others_this_browser_alone_goes_on(site, browser, clock):
    other, sitting = site.test_client(), site.test_client()
    for one, remember in ((browser, True), (other, True), (sitting, False)):
        sign_in(one, remember=remember)
    old = browser.handle, browser.token
    assert browser.post("/logins/end-others").json == {"user": "alice"}
    assert [is_in(one) for one in (browser, other, sitting)] == [True, False, False]
    assert (browser.handle in old, browser.token in old) == (False, False)
    clock.move(2 * DAY)
    assert [is_in(one) for one in (browser, other, sitting)] == [True, False, False]
    assert not alone(site, sessionId=old[0], remember_token=old[1])


def test_after_a_password_change_that_revokes_all_nobody_goes_on(site, browser):
    other = site.test_client()
    for one in (browser, other):
        sign_in(one, remember=True)
    browser.post("/password")
    assert [is_in(one) for one in (browser, other)] == [False, False]


def test_remembered_browsers_survive_a_new_secret_whose_predecessor_is_named(new_site, secret, clock, tmp_path):
    store = f"sqlite:///{tmp_path}/jam.sqlite3"
    old = new_site(Jam({"store": store}, clock=clock)).test_client()
    sign_in(old, remember=True)
    replaced = {"SECRET_KEY": secrets.token_urlsafe(64), "SECRET_KEY_FALLBACKS": [secret]}
    new = new_site(Jam({"store": store}, clock=clock), **replaced).test_client()
    new.set_cookie("remember_token", old.token)
    assert is_in(new)


def test_a_remembered_browser_whose_user_is_gone_is_nobodys_and_leaves_nothing_behind(browser, users, jam):
    sign_in(browser, remember=True)
    browser.restart()
    del users["alice"]
    assert answer(browser.get("/me")) == (401, "user_unknown")
    assert (browser.handle, browser.token) == (None, None)
    assert jam.logins.list("alice") == []


def test_a_cookie_that_remembers_nobody_is_dropped(browser):
    browser.set_cookie("remember_token", "alice|0123456789")
    assert answer(browser.get("/me")) == (401, "token_invalid")
    assert browser.token is None


def test_a_cookie_that_remembers_nobody_is_no_remembered_browser(browser):
    sign_in(browser)
    browser.set_cookie("remember_token", "alice|0123456789")
    assert browser.get("/who").json["remembered"] is False


def test_asvs_16_5_3_while_the_store_is_away_nobody_is_restored_and_no_cookie_is_dropped(new_site, secret, clock):
    token, _ = Jam({"secret": secret}, clock=clock).logins.remember("alice")
    browser = new_site(Jam({"secret": secret, "store": UNREACHABLE}, clock=clock)).test_client()
    browser.set_cookie("remember_token", token)
    response = browser.get("/me")
    assert answer(response) == (503, "store_unavailable")
    assert set_cookies(response) == {}


@pytest.mark.parametrize("trouble", ["the app's", "the store's"])
def test_trouble_while_a_browser_is_restored_is_not_taken_for_theft_afterwards(
    site, browser, users, monkeypatch, trouble
):
    """The successor was made and never reached the browser, which comes back with what it has."""
    site.config["PROPAGATE_EXCEPTIONS"] = False
    sign_in(browser, remember=True)
    browser.restart()
    with monkeypatch.context() as broken:
        if trouble == "the app's":
            broken.setitem(users, "alice", Unreadable())
        else:
            broken.setattr(site.extensions["jam"].store, "add", unavailable)
        assert browser.get("/me").status_code in {500, 503}
    site.extensions["jam"].clock.move(3600)
    assert is_in(browser)


class Unreadable:
    @property
    def is_active(self):
        raise RuntimeError("the database is away")


def unavailable(*_):
    raise StoreUnavailable


def test_a_login_view_that_is_guarded_itself_is_no_endless_redirect(doors):
    deny_by_default(doors)
    assert doors.test_client().get("/sign-in?next=%2Fme", headers=PAGE).status_code == 401


# -- hostile cookies ----------------------------------------------------------------------------------------

HOSTILE = {
    "empty": "",
    "non-ASCII": "é" * 20,
    "non-ASCII digest": "alice|" + "é" * 128,
    "UTF-8 read as Latin-1": "alice|café".encode().decode("latin-1"),
    "NUL": "alice\0",
    "control characters": "\x01\x7f\x1b[31m",
    "huge": "A" * 200_000,
    "dots": "." * 5000,
    "quotes": '"\\"',
    "flask-login's": "1|" + "0" * 128,
    "unsigned": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.",
    "deep": "W" * 3000 + ".e30.x",
}


@pytest.mark.parametrize("name", ["sessionId", "remember_token"])
@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_cookie_is_nobodys_and_no_error(site, name, value):
    status, body = called(site, PATH_INFO="/me", HTTP_COOKIE=f"{name}={value}")
    assert status == 401
    assert json.loads(body)["code"] in {"session_invalid", "token_invalid"}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_cookie_hides_no_good_one_and_no_token(new_site, jam, value):
    app = new_site(jam)
    JWTExtension(jam, app)
    handle, token = jam.sessions.create("alice"), jam.logins.remember("alice")[0]
    bad = f"sessionId={value}; remember_token={value}"
    for good in ({"HTTP_COOKIE": f"{bad}; sessionId={handle}"}, {"HTTP_COOKIE": f"{bad}; remember_token={token}"},
                 {"HTTP_COOKIE": bad, "HTTP_AUTHORIZATION": f"Bearer {jam.access_tokens.issue('alice')}"}):  # fmt: skip
        assert called(app, PATH_INFO="/me", **good)[0] == 200


@pytest.mark.parametrize("path", ["/sign-out", "/confirm", "/logins/end-others", "/sign-in/alice"])
@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_cookie_makes_no_view_fail(site, path, value):
    status, _ = called(
        site, PATH_INFO=path, REQUEST_METHOD="POST", HTTP_SEC_FETCH_SITE="same-origin",
        HTTP_COOKIE=f"sessionId={value}; remember_token={value}",
    )  # fmt: skip
    assert status in {200, 401}


def test_thousands_of_cookies_of_one_name_do_not_keep_the_store_busy(site, jam, monkeypatch):
    asked = []
    real = jam.store.get
    monkeypatch.setattr(jam.store, "get", lambda *args, **options: asked.append(args) or real(*args, **options))
    many = [f"{'A' * 24}.{number:043}" for number in range(2000)]
    tokens = [jam.logins.remember("alice")[0] for _ in range(20)]
    for token in tokens:
        jam.remember_me.revoke(token)
    asked.clear()
    sent = [*(f"sessionId={one}" for one in many), *(f"remember_token={one}" for one in tokens)]
    assert called(site, PATH_INFO="/me", HTTP_COOKIE="; ".join(sent))[0] == 401
    assert len(asked) <= 8


def test_a_cookie_whose_name_differs_in_case_is_another(site, jam):
    handle = jam.sessions.create("alice")
    for name in ("SESSIONID", "sessionid", " sessionId x", "=sessionId"):
        assert not alone(site, **{name: handle})


def test_one_persons_session_and_another_ones_remember_cookie_make_the_sessions_person(site, jam):
    handle, token = jam.sessions.create("alice"), jam.logins.remember("bob")[0]
    response = raw_client(site).get("/me", headers=cookies(("sessionId", handle), ("remember_token", token)))
    assert response.json["user"] == "alice"


# -- users --------------------------------------------------------------------------------------------------


def test_asvs_7_4_2_who_is_deactivated_is_forbidden_at_once_and_not_anonymous(browser, users):
    sign_in(browser)
    users["alice"].active = False
    assert answer(browser.get("/me")) == (403, "user_inactive")
    users["alice"].active = True
    assert is_in(browser)


def test_asvs_7_4_2_who_is_deleted_is_nobody_at_once(browser, users):
    sign_in(browser)
    del users["alice"]
    assert answer(browser.get("/me")) == (401, "user_unknown")
    assert browser.get("/who").json["user"] is None


def test_a_user_loader_may_be_async(new_app, jam, users):
    app = new_app()
    app.test_client_class = Browser
    logins = SessionExtension(jam, app)

    @logins.user_loader
    async def load(subject):
        return users.get(subject)

    views(app, users, jam)

    @app.get("/async-me")
    @login_required
    async def async_me():
        return {"user": current_user.id}

    browser = app.test_client()
    sign_in(browser)
    for path in ("/me", "/async-me"):
        assert browser.get(path).json["user"] == "alice"
    assert browser.get("/page").text == "alice"


def test_the_user_of_one_request_is_not_the_next_ones_under_a_pushed_app_context(site):
    with site.app_context():
        browser, other = site.test_client(), site.test_client()
        sign_in(browser)
        assert browser.get("/page").text == "alice"
        assert other.get("/page").text == "-"
        assert not is_in(other)


def test_the_user_is_loaded_once_in_a_request(site, browser, users):
    asked = []
    site.logins.user_loader(lambda subject: asked.append(subject) or users[subject])
    sign_in(browser)
    asked.clear()
    browser.get("/me")
    assert asked == ["alice"]


def test_outside_a_request_there_is_nobody(site):
    with site.app_context():
        assert not current_user.is_authenticated


def test_the_anonymous_user_may_be_the_apps_own(site, browser):
    class Guest(AnonymousUserMixin):
        def get_id(self):
            return "guest"

    site.logins.anonymous_user = Guest
    assert browser.get("/who").json["user"] == "guest"
    assert not is_in(browser)


def test_a_user_is_somebody_and_the_anonymous_one_is_nobody():
    user, nobody = UserMixin(), AnonymousUserMixin()
    user.id = 7
    assert (user.is_active, user.is_authenticated, user.is_anonymous, user.get_id()) == (True, True, False, "7")
    assert (nobody.is_active, nobody.is_authenticated, nobody.is_anonymous, nobody.get_id()) == (
        False,
        False,
        True,
        None,
    )
    assert user
    assert not nobody


def test_two_objects_of_one_user_are_equal_and_those_of_two_are_not():
    assert User("alice") == User("alice")
    assert User("alice") != User("bob")
    assert User("alice") != "alice"
    assert len({User("alice"), User("alice")}) == 2


def test_users_that_are_not_saved_yet_can_be_compared():
    new, other = User(None), User(None)
    assert new == new  # noqa: PLR0124
    assert new != other
    assert new != User("alice")


# -- no dependence where nobody asks ------------------------------------------------------------------------


def test_a_public_page_does_not_depend_on_cookies(browser):
    sign_in(browser)
    assert "cookie" not in vary(browser.get("/public"))


@pytest.mark.parametrize("path", ["/page", "/me", "/who"])
def test_a_page_that_asks_depends_on_cookies_and_is_private(browser, path):
    sign_in(browser)
    response = browser.get(path)
    assert "cookie" in vary(response)
    assert "private" in response.headers["Cache-Control"]


# -- time-outs ----------------------------------------------------------------------------------------------


def test_asvs_7_3_1_who_does_nothing_for_an_hour_is_signed_out_and_who_does_something_is_not(browser, clock):
    sign_in(browser)
    for _ in range(3):
        clock.move(3000)
        assert is_in(browser)
    clock.move(3600)
    assert not is_in(browser)


def test_asvs_7_3_2_nobody_stays_signed_in_for_longer_than_a_day(browser, clock):
    sign_in(browser)
    for _ in range(47):
        clock.move(1800)
        assert is_in(browser)
    clock.move(1800)
    assert not is_in(browser)


def test_asvs_7_3_2_confirming_does_not_extend_the_absolute_end(browser, clock):
    sign_in(browser)
    for _ in range(47):
        clock.move(1800)
        assert browser.post("/confirm").status_code == 200
    clock.move(1800)
    assert not is_in(browser)


def test_time_outs_are_settings_of_the_app(new_site, clock):
    browser = new_site(Jam(clock=clock), JAM_SESSIONS_IDLE_FOR=60, JAM_SESSIONS_LIFETIME=100).test_client()
    sign_in(browser)
    clock.move(59)
    assert is_in(browser)
    clock.move(41)
    assert not is_in(browser)


# -- a person's logins --------------------------------------------------------------------------------------


def test_asvs_7_5_2_a_person_sees_their_logins_and_which_one_is_this(site, browser):
    phone = site.test_client()
    sign_in(phone, headers=PHONE, remember=True)
    sign_in(browser, headers={"User-Agent": "Laptop/2"})
    sign_in(site.test_client(), "bob")
    seen = {one.pop("id"): one for one in browser.get("/logins").json}
    assert sorted(seen.values(), key=lambda one: one["current"]) == [
        {"current": False, "remembered": True, "user_agent": "Phone/1", "address": "127.0.0.1"},
        {"current": True, "remembered": False, "user_agent": "Laptop/2", "address": "127.0.0.1"},
    ]


def test_who_was_just_restored_is_marked_in_the_same_request(browser):
    sign_in(browser, remember=True)
    browser.restart()
    assert [one["current"] for one in browser.get("/logins").json] == [True]


def test_asvs_7_5_2_a_person_ends_one_of_their_logins(site, browser, clock):
    phone = site.test_client()
    sign_in(phone, headers=PHONE, remember=True)
    sign_in(browser)
    (theirs,) = [one["id"] for one in browser.get("/logins").json if not one["current"]]
    assert browser.post(f"/logins/{theirs}/end").json == {"ended": True}
    assert not is_in(phone)
    clock.move(60)
    assert not is_in(phone)
    assert is_in(browser)


def test_asvs_8_2_2_nobody_ends_another_persons_login(site, browser):
    other = site.test_client()
    sign_in(other, "bob")
    sign_in(browser)
    (theirs,) = [one["id"] for one in other.get("/logins").json]
    assert browser.post(f"/logins/{theirs}/end").json == {"ended": False}
    assert is_in(other)


@pytest.mark.parametrize("name", ["x", "%00", "A" * 24, "A" * 10_000, "%C3%A9"])
def test_a_login_that_is_not_there_cannot_be_ended(browser, name):
    sign_in(browser)
    response = browser.post(f"/logins/{name}/end")
    assert response.status_code == 404 or response.json == {"ended": False}
    assert is_in(browser)


def test_who_ends_their_own_login_is_out(browser):
    sign_in(browser, remember=True)
    (mine,) = browser.get("/logins").json
    browser.post(f"/logins/{mine['id']}/end")
    assert not is_in(browser)


@pytest.mark.parametrize(("method", "path"), [("GET", "/logins"), ("POST", "/logins/x/end")])
def test_nobody_has_no_logins(browser, method, path):
    assert answer(browser.open(path, method=method)) == NOBODY


def test_who_has_no_session_cannot_end_the_others(browser):
    assert browser.post("/logins/end-others").status_code == 401


@pytest.mark.parametrize("path", ["/logins/x/end", "/logins/end-others"])
def test_asvs_3_5_1_no_other_site_ends_logins(site, browser, path):
    other = site.test_client()
    sign_in(other)
    sign_in(browser)
    theirs = next(one["id"] for one in browser.get("/logins").json if not one["current"])
    response = browser.post(path.replace("x", theirs), headers=CROSS_SITE)
    assert response.status_code in {401, 403}
    assert (is_in(browser), is_in(other)) == (True, True)


def test_asvs_4_1_3_the_address_is_not_what_the_client_says_it_is(browser):
    sign_in(browser, headers={"X-Forwarded-For": "192.0.2.1", "X-Real-IP": "192.0.2.2", "Forwarded": "for=192.0.2.3"})
    assert [one["address"] for one in browser.get("/logins").json] == ["127.0.0.1"]


def test_a_hostile_user_agent_is_kept_short_and_printable(site, jam):
    called(
        site, PATH_INFO="/sign-in/alice", REQUEST_METHOD="POST", HTTP_SEC_FETCH_SITE="same-origin",
        HTTP_USER_AGENT="\x1b[31m\0é\n" + "x" * 10_000,
    )  # fmt: skip
    (login,) = jam.logins.list("alice")
    assert login.device["user_agent"].startswith("?[31m???x")
    assert len(login.device["user_agent"]) == 255


# -- sessions and tokens alike ------------------------------------------------------------------------------


@pytest.fixture
def both(new_site, jam):
    app = new_site(jam)
    JWTExtension(jam, app)
    app.get("/by-token", endpoint="by-token")(login_required(methods=("jwt",))(lambda: {"user": current_user.id}))
    app.get("/by-session", endpoint="by-session")(
        login_required(methods=("session",))(lambda: {"user": current_user.id})
    )
    app.get("/by-both", endpoint="by-both")(
        login_required(methods=("session", "jwt"))(lambda: {"user": current_user.id})
    )
    app.get("/token-only", endpoint="token-only")(checkpoint(Method("jwt"))(lambda: {"user": current_user.id}))
    return app


def test_a_view_takes_a_session_and_a_token_alike(both, jam):
    browser = both.test_client()
    sign_in(browser)
    assert browser.get("/me").json == {"user": "alice", "method": "session"}
    token = bearer(jam.access_tokens.issue("bob"))
    assert raw_client(both).get("/me", headers=token).json == {"user": "bob", "method": "jwt"}


def test_an_expired_session_does_not_hide_a_good_token(both, jam, clock):
    browser = both.test_client()
    sign_in(browser)
    clock.move(2 * DAY)
    token = bearer(jam.access_tokens.issue("bob"))
    assert browser.get("/me", headers=token).json == {"user": "bob", "method": "jwt"}


def test_an_expired_token_does_not_hide_a_good_session(both, jam, clock):
    token = bearer(jam.access_tokens.issue("bob"))
    clock.move(DAY)
    browser = both.test_client()
    sign_in(browser)
    assert browser.get("/me", headers=token).json == {"user": "alice", "method": "session"}


@pytest.mark.parametrize(
    ("path", "by_session", "by_token"),
    [("/by-token", 401, 200), ("/by-session", 200, 401), ("/by-both", 200, 200), ("/token-only", 403, 200)],
)
def test_a_view_may_take_one_kind_alone(both, jam, path, by_session, by_token):
    browser = both.test_client()
    sign_in(browser)
    assert browser.get(path).status_code == by_session
    assert raw_client(both).get(path, headers=bearer(jam.access_tokens.issue("bob"))).status_code == by_token


def test_where_a_view_takes_sessions_alone_a_session_counts_beside_a_token(both, jam):
    browser = both.test_client()
    sign_in(browser)
    token = bearer(jam.access_tokens.issue("bob"))
    seen = [browser.get(path, headers=token).json["user"] for path in ("/by-session", "/by-token")]
    assert seen == ["alice", "bob"]


def test_where_a_view_takes_tokens_alone_no_browser_is_restored(both):
    browser = both.test_client()
    sign_in(browser, remember=True)
    browser.restart()
    response = browser.get("/by-token")
    assert response.status_code == 401
    assert set_cookies(response) == {}
    assert is_in(browser, "/by-session")


def test_a_good_token_leaves_a_remembered_browser_as_it_is(both, jam):
    browser = both.test_client()
    sign_in(browser, remember=True)
    browser.restart()
    response = browser.get("/me", headers=bearer(jam.access_tokens.issue("bob")))
    assert response.json == {"user": "bob", "method": "jwt"}
    assert set_cookies(response) == {}


def test_who_asked_before_the_guard_narrows_is_restored_once(both, jam):
    @both.before_request
    def asks():
        assert current_user is not None

    browser = both.test_client()
    sign_in(browser, remember=True)
    browser.restart()
    assert is_in(browser, "/by-session")
    assert len(jam.logins.list("alice")) == 1
    assert is_in(browser, "/by-session")


# -- a real server, and browsers in a hurry -----------------------------------------------------------------


@pytest.fixture
def served(new_site, jam):
    """The site on a port of this machine, each request in a thread of its own; yields its address."""
    app = new_site(jam)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(10)
    server.server_close()


def ask(url, path, method="GET", **jar):
    headers = {"Connection": "close", **({"Sec-Fetch-Site": "same-origin"} if method == "POST" else {})}
    with requests.Session() as one:
        return one.request(method, url + path, cookies=jar, headers=headers, timeout=20)


def at_once(*acts):
    barrier = threading.Barrier(len(acts))

    def run(act):
        barrier.wait(20)
        return act()

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(run, acts))


REMEMBERED = '/sign-in/alice?with={"remember":true}'


def test_ten_tabs_of_a_browser_that_is_opened_again_end_in_one_session(served, jam):
    for _ in range(3):
        jam.logins.end_all("alice")
        token = ask(served, REMEMBERED, "POST").cookies["remember_token"]
        tabs = at_once(*[lambda token=token: ask(served, "/me", remember_token=token)] * 10)
        assert {tab.status_code for tab in tabs} == {200}
        ((handle, successor),) = {(tab.cookies["sessionId"], tab.cookies["remember_token"]) for tab in tabs}
        assert successor != token
        assert [one.id for one in jam.sessions.list("alice")] == [handle.partition(".")[0]]
        assert len(jam.logins.list("alice")) == 1


def test_tabs_that_are_open_while_one_signs_out_are_all_out(served, jam):
    for _ in range(5):
        signed = ask(served, REMEMBERED, "POST").cookies
        jar = {"sessionId": signed["sessionId"], "remember_token": signed["remember_token"]}
        tabs = at_once(
            lambda jar=jar: ask(served, "/sign-out", "POST", **jar),
            *[lambda jar=jar: ask(served, "/me", remember_token=jar["remember_token"])] * 5,
        )
        assert {tab.status_code for tab in tabs} <= {200, 401}
        for tab in tabs:
            assert ask(served, "/me", **tab.cookies.get_dict()).status_code == 401
        assert jam.logins.list("alice") == []


def test_a_person_who_signs_in_in_many_places_at_once_has_as_many_logins(served, jam):
    answers = at_once(*[lambda: ask(served, "/sign-in/alice", "POST")] * 8)
    handles = {one.cookies["sessionId"] for one in answers}
    assert len(handles) == len(jam.logins.list("alice")) == 8


def test_of_many_confirmations_at_once_of_one_session_one_counts(served, jam):
    handle = ask(served, "/sign-in/alice", "POST").cookies["sessionId"]
    answers = at_once(*[lambda: ask(served, "/confirm", "POST", sessionId=handle)] * 6)
    assert sorted(one.status_code for one in answers) == [200, *[401] * 5]
    assert len(jam.logins.list("alice")) == 1


def test_people_who_call_at_once_are_not_confused(served):
    handles = {name: ask(served, f"/sign-in/{name}", "POST").cookies["sessionId"] for name in ("alice", "bob", "root")}
    names = list(handles) * 10
    answers = at_once(*[lambda name=name: ask(served, "/me", sessionId=handles[name]) for name in names])
    assert [one.json()["user"] for one in answers] == names
