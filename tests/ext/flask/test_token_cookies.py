"""Tokens in cookies: how they are set, where they are sent, and how the browser forgets them."""

import pytest
from flask import Blueprint, Flask, Response, jsonify
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from jam.errors import ConfigError, CSRFFailed, InvalidValue, JamError, TokenInvalid
from jam.ext.flask import (
    JWTExtension,
    create_access_token,
    create_refresh_token,
    decode_token,
    get_csrf_token,
    get_jwt,
    get_jwt_identity,
    jwt_required,
    set_access_cookies,
    set_refresh_cookies,
    unset_access_cookies,
    unset_jwt_cookies,
    unset_refresh_cookies,
    verify_jwt_in_request,
)
from tests.ext.flask.callers import CROSS_SITE, SAME_ORIGIN, answer, bearer, cookies, raw_client, set_cookies

ACCESS, REFRESH = "access_token_cookie", "refresh_token_cookie"


def pages(app, jam):
    """A site whose pages are signed in by cookies."""
    app.extension = JWTExtension(jam, app)

    @app.post("/login")
    def login():
        response = jsonify(login=True)
        set_access_cookies(response, create_access_token("alice", fresh=True))
        set_refresh_cookies(response, create_refresh_token("alice"))
        return response

    @app.post("/logout")
    def logout():
        response = jsonify(logout=True)
        unset_jwt_cookies(response)
        return response

    @app.post("/auth/refresh")
    @jwt_required(refresh=True)
    def refresh():
        response = jsonify(refresh=True)
        set_access_cookies(response, create_access_token(get_jwt_identity()))
        return response

    @app.route("/", methods=["GET", "POST"])
    @jwt_required()
    def home():
        return {"sub": get_jwt_identity()}

    return app


@pytest.fixture
def make(new_app, jam):
    return lambda **config: pages(new_app(JWT_TOKEN_LOCATION=["headers", "cookies"], **config), jam)


@pytest.fixture
def app(make):
    return make()


@pytest.fixture
def refresh_token(jam):
    return jam.refresh_tokens.issue("alice")


def after(app, function, *args, **options):
    """The cookies of a response that the function was called with."""
    response = Response()
    with app.test_request_context():
        function(response, *args, **options)
    return set_cookies(response)


# -- as a browser goes through it ---------------------------------------------------------------------------


def test_who_signs_in_by_cookies_stays_signed_in(app):
    browser = app.test_client()
    assert browser.get("/").status_code == 401
    browser.post("/login")
    assert browser.get("/").json == {"sub": "alice"}
    assert browser.post("/", headers=SAME_ORIGIN).json == {"sub": "alice"}


def test_who_signs_out_is_signed_out(app):
    browser = app.test_client()
    browser.post("/login")
    browser.post("/logout", headers=SAME_ORIGIN)
    assert browser.get("/").status_code == 401
    assert browser.post("/auth/refresh", headers=SAME_ORIGIN).status_code == 401


def test_the_refresh_cookie_gets_a_new_access_cookie(app, clock):
    browser = app.test_client()
    browser.post("/login")
    clock.move(901)
    assert answer(browser.get("/")) == (401, "token_expired")
    assert browser.post("/auth/refresh", headers=SAME_ORIGIN).status_code == 200
    assert browser.get("/").json == {"sub": "alice"}


def test_asvs_3_5_1_other_sites_can_use_neither_cookie(app):
    browser = app.test_client()
    browser.post("/login")
    for path in ("/", "/auth/refresh"):
        assert answer(browser.post(path, headers=CROSS_SITE)) == (403, "csrf_failed")
        assert answer(browser.post(path)) == (403, "csrf_failed")


def test_an_expired_cookie_never_hides_a_valid_bearer_token(app, clock, jam):
    browser = app.test_client()
    browser.post("/login")
    clock.move(901)
    headers = {**bearer(jam.access_tokens.issue("bob")), **SAME_ORIGIN}
    assert browser.post("/", headers=headers).json == {"sub": "bob"}


def test_a_cookie_from_another_site_never_hides_a_valid_bearer_token(app, jam):
    browser = app.test_client()
    browser.post("/login")
    headers = {**bearer(jam.access_tokens.issue("bob")), **CROSS_SITE}
    assert browser.post("/", headers=headers).json == {"sub": "bob"}


def test_a_cookie_of_the_same_name_for_another_path_does_not_hide_the_good_one(app, token):
    headers = cookies((ACCESS, "garbage"), (ACCESS, token))
    assert raw_client(app).get("/", headers=headers).json == {"sub": "alice"}


@pytest.mark.parametrize("kind", ["refresh", "session"])
def test_what_is_no_access_token_is_none_in_the_access_cookie_either(app, jam, refresh_token, kind):
    value = refresh_token if kind == "refresh" else jam.create_session("alice")
    assert answer(raw_client(app).get("/", headers=cookies((ACCESS, value)))) == (401, "token_invalid")


def test_an_access_token_is_no_refresh_token_in_the_refresh_cookie_either(app, token):
    headers = {**cookies((REFRESH, token)), **SAME_ORIGIN}
    assert answer(raw_client(app).post("/auth/refresh", headers=headers)) == (401, "token_invalid")


# -- how they are set ---------------------------------------------------------------------------------------


def test_asvs_3_3_4_scripts_cannot_read_the_tokens(app, token, refresh_token):
    assert "httponly" in after(app, set_access_cookies, token)[ACCESS][1]
    assert "httponly" in after(app, set_refresh_cookies, refresh_token)[REFRESH][1]


def test_asvs_3_3_2_both_cookies_are_samesite(app, token, refresh_token):
    assert "samesite=lax" in after(app, set_access_cookies, token)[ACCESS][1]
    assert "samesite=lax" in after(app, set_refresh_cookies, refresh_token)[REFRESH][1]


def test_asvs_3_3_1_by_https_both_are_secure_and_have_a_prefix_that_says_so(make, token, refresh_token):
    app = make(JAM_HTTPS=True)
    access, refresh = after(app, set_access_cookies, token), after(app, set_refresh_cookies, refresh_token)
    assert "secure" in access[f"__Host-{ACCESS}"][1]
    assert "secure" in refresh[f"__Secure-{REFRESH}"][1]


def test_a_cookie_that_keeps_the_promise_of_host_has_no_domain_and_the_whole_path(make, token):
    attributes = after(make(JAM_HTTPS=True), set_access_cookies, token)[f"__Host-{ACCESS}"][1]
    assert "path=/" in attributes
    assert not any(attribute.startswith("domain") for attribute in attributes)


def test_a_domain_given_at_the_call_does_not_break_the_promise_of_the_name(make, token):
    """A browser would drop such a cookie in silence."""
    with pytest.raises(ConfigError, match="__Host-"):
        after(make(JAM_HTTPS=True), set_access_cookies, token, domain="example.com")


@pytest.mark.parametrize(
    "config",
    [
        {"JWT_ACCESS_COOKIE_NAME": "__Host-a", "JWT_COOKIE_DOMAIN": "example.com"},
        {"JWT_ACCESS_COOKIE_NAME": "__Host-a", "JWT_ACCESS_COOKIE_PATH": "/api"},
        {"JWT_ACCESS_COOKIE_NAME": "__host-a", "JWT_ACCESS_COOKIE_PATH": "/api"},
    ],
)
def test_a_name_whose_promise_the_cookie_cannot_keep_is_refused(make, token, config):
    with pytest.raises(ConfigError, match=r"__[Hh]ost-a"):
        after(make(JAM_HTTPS=True, **config), set_access_cookies, token)


def test_a_refresh_cookie_whose_name_promises_the_whole_host_is_refused_for_a_part_of_it(make, refresh_token):
    with pytest.raises(ConfigError, match="__Host-r"):
        after(make(JAM_HTTPS=True, JWT_REFRESH_COOKIE_NAME="__Host-r"), set_refresh_cookies, refresh_token)


def test_a_prefix_by_plain_http_is_refused(make, token):
    with pytest.raises(ConfigError, match="__Secure-a"):
        after(make(JWT_ACCESS_COOKIE_NAME="__Secure-a"), set_access_cookies, token)


def test_a_response_that_sets_a_token_is_for_nobodys_cache(app):
    assert app.test_client().post("/login").headers["Cache-Control"] == "no-store"


def test_without_the_double_submit_no_other_cookie_is_set(app, token, refresh_token):
    assert list(after(app, set_access_cookies, token)) == [ACCESS]
    assert list(after(app, set_refresh_cookies, refresh_token)) == [REFRESH]


@pytest.mark.parametrize("max_age", [0, 60])
def test_max_age_may_be_given(app, token, refresh_token, max_age):
    assert f"max-age={max_age}" in after(app, set_access_cookies, token, max_age=max_age)[ACCESS][1]
    assert f"max-age={max_age}" in after(app, set_refresh_cookies, refresh_token, max_age=max_age)[REFRESH][1]


def test_a_domain_may_be_given(app, token):
    assert "domain=example.com" in after(app, set_access_cookies, token, domain="example.com")[ACCESS][1]


@pytest.mark.parametrize(
    "hostile", ["", "garbage", "a.b.c", "x; Path=/", "x\r\nSet-Cookie: a=b", "é", "\0", None, 7, b"x"]
)
@pytest.mark.parametrize("put", [set_access_cookies, set_refresh_cookies])
def test_what_is_no_token_of_this_app_is_not_set(app, put, hostile):
    with pytest.raises(TokenInvalid):
        after(app, put, hostile)


def test_a_refresh_token_is_not_put_into_the_access_cookie(app, refresh_token):
    """It would be sent with every request."""
    with pytest.raises(JamError):
        after(app, set_access_cookies, refresh_token)


def test_an_access_token_is_not_put_into_the_refresh_cookie(app, token):
    with pytest.raises(JamError):
        after(app, set_refresh_cookies, token)


def test_a_token_that_is_longer_than_browsers_keep_is_refused(app, jam):
    token = jam.access_tokens.issue("alice", claims={"x": "y" * 4096})
    with pytest.raises(InvalidValue, match="4096"):
        after(app, set_access_cookies, token)


def test_where_no_cookie_is_looked_at_none_is_set(new_app, jam, token):
    app = pages(new_app(), jam)
    with pytest.raises(ConfigError, match="does not look for tokens there"):
        after(app, set_access_cookies, token)


# -- where the refresh cookie goes --------------------------------------------------------------------------


def path_of(app, refresh_token, **options):
    with app.test_request_context(**options):
        response = Response()
        set_refresh_cookies(response, refresh_token)
    [(_, attributes)] = set_cookies(response).values()
    [path] = [attribute.removeprefix("path=") for attribute in attributes if attribute.startswith("path=")]
    return path


def refreshing(new_app, jam, *rules):
    app = new_app(JWT_TOKEN_LOCATION="cookies")
    JWTExtension(jam, app)
    for number, rule in enumerate(rules):
        app.post(rule, endpoint=str(number))(jwt_required(refresh=True)(lambda **_: "in"))
    return app


@pytest.mark.parametrize(
    ("rules", "path"),
    [
        ([], "/"),
        (["/refresh"], "/refresh"),
        (["/auth/refresh/"], "/auth/refresh"),
        (["/auth/refresh", "/auth/logout"], "/auth"),
        (["/auth/refresh", "/auth/refresh/all"], "/auth/refresh"),
        (["/auth/refresh", "/authors"], "/"),
        (["/refresh", "/logout"], "/"),
        (["/tenants/<name>/refresh"], "/tenants"),
        (["/tenants/x<name>"], "/tenants"),
        (["/<name>"], "/"),
        (["/"], "/"),
    ],
)
def test_the_refresh_cookie_goes_to_the_routes_that_demand_it_alone(new_app, jam, refresh_token, rules, path):
    assert path_of(refreshing(new_app, jam, *rules), refresh_token) == path


def test_the_path_of_a_blueprint_counts(new_app, jam, refresh_token):
    app = refreshing(new_app, jam)
    inner = Blueprint("inner", __name__, url_prefix="/v1")
    inner.post("/refresh")(jwt_required(refresh=True)(lambda: "in"))
    app.register_blueprint(inner)
    assert path_of(app, refresh_token) == "/v1/refresh"


def test_the_place_where_the_app_is_mounted_counts(app, refresh_token):
    assert path_of(app, refresh_token, base_url="http://localhost/shop") == "/shop/auth/refresh"


def test_a_mounted_app_gets_its_cookies_back(app):
    browser = Client(DispatcherMiddleware(Flask("outer"), {"/shop": app}))
    browser.post("/shop/login")
    assert browser.post("/shop/auth/refresh", headers=SAME_ORIGIN).status_code == 200


def test_a_route_that_takes_both_kinds_is_sent_the_refresh_cookie_too(new_app, jam, refresh_token):
    app = refreshing(new_app, jam, "/auth/refresh")
    app.post("/auth/revoke")(jwt_required(verify_type=False)(lambda: "in"))
    assert path_of(app, refresh_token) == "/auth"


def test_a_route_that_takes_access_tokens_does_not_widen_the_path(app, refresh_token):
    assert path_of(app, refresh_token) == "/auth/refresh"


def test_a_browser_sends_the_refresh_cookie_to_its_route_alone(app):
    browser = app.test_client()
    browser.post("/login")
    assert browser.get_cookie(REFRESH, path="/auth/refresh") is not None
    assert browser.get_cookie(REFRESH, path="/") is None


def test_the_configured_path_counts_more(make, refresh_token):
    assert path_of(make(JWT_REFRESH_COOKIE_PATH="/auth"), refresh_token) == "/auth"


# -- forgetting ---------------------------------------------------------------------------------------------


def test_unset_jwt_cookies_drops_both_with_the_attributes_they_were_set_with(make, token, refresh_token):
    app = make(JAM_HTTPS=True, JWT_CSRF_IN_COOKIES=True, JWT_COOKIE_SAMESITE="Strict")
    put = {**after(app, set_access_cookies, token), **after(app, set_refresh_cookies, refresh_token)}
    dropped = after(app, unset_jwt_cookies)
    assert dropped.keys() == put.keys()
    for name, (value, attributes) in dropped.items():
        assert value == ""
        assert "max-age=0" in attributes
        assert put[name][1] - {"httponly"} <= attributes  # by which a browser knows a cookie again


def test_one_cookie_may_be_dropped_alone(app):
    assert list(after(app, unset_access_cookies)) == [ACCESS]
    assert list(after(app, unset_refresh_cookies)) == [REFRESH]


def test_a_cookie_of_a_domain_is_dropped_there(app):
    assert "domain=example.com" in after(app, unset_jwt_cookies, domain="example.com")[ACCESS][1]


def test_asvs_14_3_1_signing_out_clears_what_the_pages_showed(app):
    response = app.test_client().post("/logout", headers=SAME_ORIGIN)
    assert response.headers["Clear-Site-Data"] == '"cache", "storage"'
    assert response.headers["Cache-Control"] == "no-store"


def test_cookies_can_be_dropped_when_they_have_expired(app, clock):
    browser = app.test_client()
    browser.post("/login")
    clock.move(40 * 86400)
    assert browser.post("/logout", headers=SAME_ORIGIN).status_code == 200
    assert browser.get_cookie(ACCESS) is None


# -- the double submit --------------------------------------------------------------------------------------


def test_the_double_submit_value_is_in_a_cookie_that_scripts_can_read(make, token):
    found = after(make(JWT_CSRF_IN_COOKIES=True), set_access_cookies, token)
    assert "httponly" not in found["csrf_access_token"][1]
    assert "httponly" in found[ACCESS][1]


def test_the_double_submit_value_belongs_to_its_token(make, token, jam):
    app = make(JWT_CSRF_IN_COOKIES=True)
    value = after(app, set_access_cookies, token)["csrf_access_token"][0]
    with app.app_context():
        assert decode_token(token, csrf_value=value)["sub"] == "alice"
        with pytest.raises(CSRFFailed):
            decode_token(jam.access_tokens.issue("alice"), csrf_value=value)


@pytest.mark.parametrize("value", ["", "x", "é", "日本", "\0", "\ud800", "A" * 64, "A" * 100_000, 7, b"x", ["x"], True])
def test_a_hostile_double_submit_value_is_refused(app, token, value):
    with app.app_context(), pytest.raises(CSRFFailed):
        decode_token(token, csrf_value=value)


def test_a_double_submit_value_is_different_each_time(app, token):
    with app.app_context():
        assert get_csrf_token(token) != get_csrf_token(token)


def test_a_double_submit_value_does_not_help_another_site(make, token):
    app = make(JWT_CSRF_IN_COOKIES=True)
    value = after(app, set_access_cookies, token)["csrf_access_token"][0]
    headers = {**cookies((ACCESS, token), ("csrf_access_token", value)), **CROSS_SITE}
    assert answer(raw_client(app).post("/", headers=headers)) == (403, "csrf_failed")


@pytest.mark.parametrize("value", ["é", "日本", "", "x" * 100_000])
def test_a_hostile_double_submit_header_is_no_500(make, token, value):
    app = make(JWT_CSRF_IN_COOKIES=True)
    environ = {"HTTP_X_CSRF_TOKEN": value.encode().decode("latin-1"), "HTTP_COOKIE": f"{ACCESS}={token}"}
    assert raw_client(app).post("/", environ_overrides=environ).status_code == 403


# -- shapes -------------------------------------------------------------------------------------------------


def test_cookies_are_set_in_an_async_view(app, token):
    @app.post("/async-login")
    async def async_login():
        response = jsonify(login=True)
        set_access_cookies(response, create_access_token("alice"))
        return response

    browser = app.test_client()
    browser.post("/async-login")
    assert browser.get("/").json == {"sub": "alice"}


def test_cookies_are_set_in_an_after_request_function(app):
    @app.after_request
    def renew(response):
        if verify_jwt_in_request(optional=True) is not None:
            set_access_cookies(response, create_access_token(get_jwt_identity()))
        return response

    browser = app.test_client()
    assert ACCESS not in set_cookies(browser.get("/"))
    browser.post("/login")
    assert ACCESS in set_cookies(browser.get("/"))


def test_a_hook_that_renews_cookies_does_not_undo_a_sign_out(make, clock):
    """As Flask-JWT-Extended's documentation writes it, by the name of implicit refreshing."""
    app = make(JWT_ACCESS_TOKEN_EXPIRES=900)

    @app.after_request
    def refresh_expiring_tokens(response):
        try:
            if clock() + 1800 > get_jwt()["exp"]:
                set_access_cookies(response, create_access_token(identity=get_jwt_identity()))
        except (RuntimeError, KeyError):
            pass
        return response

    @app.post("/sign-out")
    @jwt_required()
    def sign_out():
        response = jsonify(logout=True)
        unset_jwt_cookies(response)
        return response

    browser = app.test_client()
    browser.post("/login")
    assert browser.post("/sign-out", headers=SAME_ORIGIN).status_code == 200
    assert browser.get("/").status_code == 401


def test_a_head_request_opens_the_cookie_too(app):
    browser = app.test_client()
    browser.post("/login")
    assert browser.head("/").status_code == 200
