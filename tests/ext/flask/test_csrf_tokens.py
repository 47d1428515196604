"""The signed value: where neither the browser nor what is between says where a request comes from, it proves it."""

import gzip
import hmac
import re
import secrets

import pytest
from flask import flash, jsonify, redirect, render_template_string, request, session, stream_with_context

from jam import Jam
from jam.errors import ConfigError
from jam.ext.flask import (
    Authenticated,
    JWTExtension,
    SameOrigin,
    SessionCheckpoint,
    SessionExtension,
    checkpoint,
    confirm_login,
    create_access_token,
    create_refresh_token,
    csrf_token,
    current_identity,
    get_csrf_token,
    get_jwt_identity,
    jwt_required,
    login_required,
    login_user,
    logout_user,
    rotate_refresh_token,
    set_access_cookies,
    set_refresh_cookies,
    unset_jwt_cookies,
)
from tests.ext.flask.callers import CROSS_SITE, SAME_ORIGIN, answer, bearer, cookies, raw_client, set_cookies

ACCESS, REFRESH = "access_token_cookie", "refresh_token_cookie"
EVIL = {"Origin": "https://evil.example"}  # of a browser without Sec-Fetch-Site
FORGED = (403, "csrf_failed")
FORM = "application/x-www-form-urlencoded"
HEADER = "X-CSRF-TOKEN"
CHANGING = ["POST", "PUT", "PATCH", "DELETE"]


def site_of(app, jam, *, flask_session=False):
    """An app with sessions, tokens in cookies, remembered browsers, and pages that show a value."""
    JWTExtension(jam, app)
    app.jam, app.sessions = jam, SessionExtension(jam, app, flask_session=flask_session)

    @app.get("/value")
    def value():
        return csrf_token()

    @app.route("/", methods=["GET", *CHANGING])
    @checkpoint(Authenticated())
    def home():
        return {"who": current_identity.subject, "method": current_identity.method}

    @app.route("/open", methods=["GET", "POST"])
    def unguarded():
        return {"who": current_identity.subject}

    @app.post("/jwt")
    @jwt_required()
    def by_access_token():
        return {"who": get_jwt_identity()}

    @app.post("/auth/refresh")
    @jwt_required(refresh=True)
    def by_refresh_token():
        response = jsonify(who=get_jwt_identity())
        set_refresh_cookies(response, rotate_refresh_token())
        return response

    @app.post("/either")
    @jwt_required(verify_type=False)
    def by_either_token():
        return {"who": get_jwt_identity()}

    @app.post("/same-origin")
    @checkpoint(SameOrigin())
    def same_origin():
        return {"passed": True}

    @app.post("/sign-in/<name>")
    def sign_in(name):
        return {"who": app.sessions.sign_in(name).subject}

    @app.post("/login/<name>")
    def login(name):
        login_user(name, remember=True)
        return {"who": current_identity.subject, "value": csrf_token()}

    @app.post("/logout")
    def logout():
        return {"done": logout_user()}

    @app.post("/confirm")
    def confirm():
        confirm_login()
        return {"value": csrf_token()}

    return app


@pytest.fixture
def make(new_app, jam):
    return lambda flask_session=False, **config: site_of(
        new_app(JWT_TOKEN_LOCATION=["headers", "cookies"], **config), jam, flask_session=flask_session
    )


@pytest.fixture
def site(make):
    return make()


@pytest.fixture
def raw(site):
    return raw_client(site)


@pytest.fixture
def refresh_token(jam):
    return jam.refresh_tokens.issue("alice")


def value_for(app, *own):
    """A value as a page shows it to a browser with these cookies."""
    response = raw_client(app).get("/value", headers=cookies(*own))
    assert response.status_code == 200
    return response.text


def value_of_token(app, token):
    with app.app_context():
        return get_csrf_token(token)


def stranger(app):
    """The cookie of a browser that nobody has signed in by yet, and a value for it."""
    response = raw_client(app).get("/value")
    ((name, (held, _)),) = set_cookies(response).items()
    return (name, held), response.text


def ask(app, path, own, value=None, *, method="POST", **options):
    headers = {**cookies(*own), **options.pop("headers", {})}
    if value is not None:
        headers[HEADER] = value
    return raw_client(app).open(path, method=method, headers=headers, **options)


# -- what a value proves ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", CHANGING)
def test_a_value_for_the_session_proves_where_a_request_comes_from(site, handle, method):
    own = ("sessionId", handle)
    assert ask(site, "/", [own], value_for(site, own), method=method).json == {"who": "bob", "method": "session"}


@pytest.mark.parametrize("header", ["X-CSRF-TOKEN", "X-CSRF-Token", "x-csrf-token", "X-CSRFToken"])
def test_the_value_is_in_a_header_that_scripts_know(site, handle, header):
    own = ("sessionId", handle)
    assert ask(site, "/", [own], headers={header: value_for(site, own)}).status_code == 200


@pytest.mark.parametrize("header", ["X-XSRF-TOKEN", "X-CSRF", "CSRF-Token", "X_CSRF", "Authorization"])
def test_asvs_3_5_1_the_value_in_another_header_proves_nothing(site, handle, header):
    own = ("sessionId", handle)
    assert answer(ask(site, "/", [own], headers={header: value_for(site, own)})) == FORGED


@pytest.mark.parametrize("content", [FORM, "multipart/form-data"])
def test_the_value_is_in_a_forms_field(site, handle, content):
    own = ("sessionId", handle)
    fields = {"csrf_token": value_for(site, own), "amount": "7"}
    assert ask(site, "/", [own], data=fields, content_type=content).status_code == 200


def test_a_form_that_sends_a_file_may_have_the_value_behind_it(site, handle):
    own = ("sessionId", handle)
    with open(__file__, "rb") as file:
        fields = {"file": (file, "name.bin"), "csrf_token": value_for(site, own)}
        assert ask(site, "/", [own], data=fields).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "", "https://localhost", "http://localhost:8080"])
def test_a_value_helps_where_the_origin_that_arrives_is_not_ours(site, handle, origin):
    """As behind a proxy that terminates https, or with a Referrer-Policy that makes it null."""
    own = ("sessionId", handle)
    assert ask(site, "/", [own], value_for(site, own), headers={"Origin": origin}).status_code == 200


@pytest.mark.parametrize("said", ["cross-site", "same-site", "", "nonsense", "Same-Origin"])
@pytest.mark.parametrize("origin", [{}, EVIL, {"Origin": "http://localhost"}])
def test_asvs_3_5_1_what_sec_fetch_site_says_of_another_site_is_final(site, handle, said, origin):
    own = ("sessionId", handle)
    headers = {"Sec-Fetch-Site": said, **origin}
    value = value_for(site, own)
    assert answer(ask(site, "/", [own], value, headers=headers)) == FORGED
    assert answer(ask(site, "/same-origin", [own], value, headers=headers)) == FORGED
    assert answer(ask(site, "/sign-in/mallory", [own], value, headers=headers)) == FORGED
    assert answer(ask(site, "/", [own], headers=headers, data={"csrf_token": value})) == FORGED


def test_who_says_that_the_request_is_the_sites_own_needs_no_value(site, handle):
    assert ask(site, "/", [("sessionId", handle)], "nonsense", headers=SAME_ORIGIN).status_code == 200


def test_a_value_does_not_expire_before_its_session(site, jam, handle, clock):
    own = ("sessionId", handle)
    value = value_for(site, own)
    for _ in range(20):
        clock.move(1700)
        assert ask(site, "/", [own], value).status_code == 200


def test_a_value_may_be_used_again(site, handle):
    own = ("sessionId", handle)
    value = value_for(site, own)
    assert {ask(site, "/", [own], value).status_code for _ in range(3)} == {200}


def test_a_value_does_not_stand_in_for_a_session(site, jam, handle):
    own = ("sessionId", handle)
    value = value_for(site, own)
    jam.sessions.delete(handle)
    assert answer(ask(site, "/", [own], value)) == (401, "session_invalid")
    assert answer(ask(site, "/", [], value)) == (401, "authentication_required")


def test_a_caller_by_a_header_needs_no_value(site, token):
    assert raw_client(site).post("/", headers={**bearer(token), HEADER: "nonsense"}).json["who"] == "alice"


def test_a_page_that_a_header_asked_for_shows_a_value_for_the_browsers_own_cookie(site, token):
    response = raw_client(site).get("/value", headers=bearer(token))
    held = set_cookies(response)["jam_csrf"][0]
    assert ask(site, "/same-origin", [("jam_csrf", held)], response.text).status_code == 200
    assert answer(ask(site, "/jwt", [(ACCESS, token)], response.text)) == FORGED


# -- bound to the very cookie -------------------------------------------------------------------------------


def test_asvs_3_5_1_a_value_of_another_person_proves_nothing(site, jam, handle):
    own, others = ("sessionId", handle), ("sessionId", jam.create_session("mallory"))
    assert answer(ask(site, "/", [own], value_for(site, others))) == FORGED


def test_asvs_3_5_1_a_value_of_another_session_of_the_same_person_proves_nothing(site, jam, handle):
    own, others = ("sessionId", handle), ("sessionId", jam.create_session("bob"))
    assert answer(ask(site, "/", [own], value_for(site, others))) == FORGED


def test_asvs_3_5_1_a_value_of_before_the_sign_in_does_not_open_the_session(site, handle):
    cookie, value = stranger(site)
    assert answer(ask(site, "/", [("sessionId", handle), cookie], value)) == FORGED


def test_asvs_3_5_1_a_value_of_the_access_cookie_does_not_open_the_session(site, handle, token):
    both = [("sessionId", handle), (ACCESS, token)]
    response = ask(site, "/open", both, value_of_token(site, token))
    assert response.json["who"] != "bob"


def test_asvs_3_5_1_a_value_of_the_session_does_not_open_the_access_cookie(site, handle, token):
    value = value_for(site, ("sessionId", handle))
    assert answer(ask(site, "/jwt", [("sessionId", handle), (ACCESS, token)], value)) == FORGED


def test_asvs_3_5_1_a_value_of_the_access_token_does_not_open_the_refresh_cookie(site, token, refresh_token):
    both = [(ACCESS, token), (REFRESH, refresh_token)]
    assert answer(ask(site, "/auth/refresh", both, value_of_token(site, token))) == FORGED


def test_asvs_3_5_1_a_value_of_the_refresh_token_does_not_open_the_access_cookie(site, token, refresh_token):
    both = [(ACCESS, token), (REFRESH, refresh_token)]
    assert answer(ask(site, "/jwt", both, value_of_token(site, refresh_token))) == FORGED


def test_asvs_3_5_1_a_value_of_a_session_before_the_handle_changed_proves_nothing(site, handle):
    old = ("sessionId", handle)
    before = value_for(site, old)
    response = ask(site, "/confirm", [old], before)
    new = ("sessionId", set_cookies(response)["sessionId"][0])
    assert new != old
    assert answer(ask(site, "/", [new], before)) == FORGED
    assert ask(site, "/", [new], response.json["value"]).status_code == 200


def test_asvs_3_5_1_a_value_of_a_former_session_of_the_browser_proves_nothing(site):
    browser = site.test_client()
    browser.post("/sign-in/alice", headers=SAME_ORIGIN)
    before = browser.get("/value").text
    browser.post("/sign-in/alice", headers=SAME_ORIGIN)
    assert answer(browser.post("/", headers={HEADER: before})) == FORGED
    assert browser.post("/", headers={HEADER: browser.get("/value").text}).status_code == 200


def test_asvs_3_5_1_a_value_of_another_app_proves_nothing(site, new_app, clock, handle):
    other_jam = Jam({"secret": secrets.token_urlsafe(64)}, clock=clock)
    other = site_of(new_app(SECRET_KEY=None), other_jam)
    own = ("sessionId", other_jam.create_session("bob"))
    assert answer(ask(site, "/", [("sessionId", handle)], value_for(other, own))) == FORGED


def test_asvs_3_5_1_the_cookie_itself_is_no_value(site, handle):
    (name, held), _ = stranger(site)
    assert answer(ask(site, "/", [("sessionId", handle)], handle)) == FORGED
    assert answer(ask(site, "/same-origin", [(name, held)], held)) == FORGED


def test_asvs_3_5_1_a_cookie_that_repeats_the_header_proves_nothing(site, handle):
    """The naive double submit: whoever can set a cookie could do that."""
    value = "A" * 64
    own = [("sessionId", handle), ("csrf_token", value), ("csrf_access_token", value), ("jam_csrf", value)]
    assert answer(ask(site, "/", own, value)) == FORGED
    assert answer(ask(site, "/same-origin", own, value)) == FORGED


def test_asvs_3_5_1_a_value_without_its_cookie_proves_nothing(site):
    _, value = stranger(site)
    assert answer(ask(site, "/same-origin", [], value)) == FORGED
    assert answer(ask(site, "/sign-in/mallory", [], value)) == FORGED


def test_asvs_3_5_1_an_empty_cookie_has_no_value(site):
    for name in ("jam_csrf", "sessionId", ACCESS):
        assert answer(ask(site, "/same-origin", [(name, "")], "A" * 64)) == FORGED


# -- more cookies than one ----------------------------------------------------------------------------------


def test_a_worthless_cookie_of_the_same_name_does_not_hide_the_one_with_the_value(site, handle):
    own = ("sessionId", handle)
    both = [("sessionId", "left-over-of-another-path"), own]
    assert ask(site, "/", both, value_for(site, own)).json == {"who": "bob", "method": "session"}


def test_a_dead_session_does_not_hide_the_access_cookie_with_the_value(site, jam, handle, token):
    jam.sessions.delete(handle)
    both = [("sessionId", handle), (ACCESS, token)]
    assert ask(site, "/", both, value_of_token(site, token)).json == {"who": "alice", "method": "jwt"}


def test_a_view_for_either_kind_of_token_takes_the_value_of_either(site, token, refresh_token):
    both = [(ACCESS, token), (REFRESH, refresh_token)]
    for one in (token, refresh_token):
        assert ask(site, "/either", both, value_of_token(site, one)).json == {"who": "alice"}


def test_asvs_3_5_1_a_cookie_slipped_in_with_its_value_does_not_open_the_one_beside_it(site, jam, handle):
    """Another host of the domain can add a cookie of its own account, where the name has no prefix."""
    mallorys = ("sessionId", jam.create_session("mallory"))
    for order in ([("sessionId", handle), mallorys], [mallorys, ("sessionId", handle)]):
        response = ask(site, "/open", order, value_for(site, mallorys), headers=EVIL)
        assert response.json["who"] != "bob"


# -- hostile values -----------------------------------------------------------------------------------------


def _changed(value, at):
    return value[:at] + ("A" if value[at] != "A" else "B") + value[at + 1 :]


@pytest.mark.parametrize("at", [0, 10, 21, 22, 40, 63])
def test_asvs_3_5_1_a_value_changed_in_one_character_proves_nothing(site, handle, at):
    own = ("sessionId", handle)
    assert answer(ask(site, "/", [own], _changed(value_for(site, own), at))) == FORGED


@pytest.mark.parametrize(
    "spell",
    [
        lambda value: value + "=",
        lambda value: value + "==",
        lambda value: value + "A",
        lambda value: value + "\u0660",
        lambda value: value[:-1],
        lambda value: value[1:],
        lambda value: value[:32],
        lambda value: value[:22],
        lambda value: value[22:],
        lambda value: value * 2,
        lambda value: f"{value},{value}",
        lambda value: f"{value}, x",
        lambda value: f'"{value}"',
        lambda value: f"Bearer {value}",
        lambda value: value.swapcase(),
        lambda value: value.upper(),
        lambda value: value[:32] + "%2D" + value[33:],
        lambda value: f"{value[:32]} {value[32:]}",
    ],
)
def test_asvs_3_5_1_a_value_in_another_spelling_proves_nothing(site, handle, spell):
    own = ("sessionId", handle)
    value = spell(value_for(site, own))
    in_header = {"HTTP_X_CSRF_TOKEN": value.encode().decode("latin-1"), "HTTP_COOKIE": f"sessionId={handle}"}
    assert answer(raw_client(site).post("/", environ_overrides=in_header)) == FORGED
    assert answer(ask(site, "/", [own], data={"csrf_token": value})) == FORGED


@pytest.mark.parametrize(
    "value",
    ["", " ", "x", "null", "undefined", "é", "日本", "\xff" * 64, "\x00" * 64, "A" * 63, "A" * 64, "A" * 200_000],
)
def test_asvs_16_5_1_a_hostile_value_is_refused_and_no_error(site, handle, value):
    own = ("sessionId", handle)
    in_header = {"HTTP_X_CSRF_TOKEN": value.encode().decode("latin-1"), "HTTP_COOKIE": f"sessionId={handle}"}
    for path in ("/", "/same-origin", "/sign-in/mallory", "/logout"):
        assert answer(raw_client(site).post(path, environ_overrides=in_header)) == FORGED
        assert answer(ask(site, path, [own], data={"csrf_token": value})) == FORGED


def test_asvs_16_5_1_a_hostile_cookie_is_refused_and_no_error(site):
    for held in ("é", "日本", "\xff\xfe", "A" * 50_000, "\x00"):
        environ = {
            "HTTP_X_CSRF_TOKEN": "A" * 64,
            "HTTP_COOKIE": f"sessionId={held}; jam_csrf={held}".encode().decode("latin-1"),
        }
        for path in ("/", "/same-origin", "/sign-in/mallory"):
            assert answer(raw_client(site).post(path, environ_overrides=environ)) == FORGED


def test_many_fields_do_not_multiply_the_guesses(site, handle):
    own = ("sessionId", handle)
    fields = {"csrf_token": ["A" * 64, value_for(site, own)]}
    assert answer(ask(site, "/", [own], data=fields)) == FORGED


def test_many_cookies_do_not_multiply_the_guesses(site):
    cookie, value = stranger(site)
    crowd = [("jam_csrf", secrets.token_urlsafe(32)) for _ in range(50)]
    for planted in ([*crowd, cookie], [cookie, *crowd], [cookie, crowd[0]]):
        assert answer(ask(site, "/same-origin", planted, value)) == FORGED
    assert ask(site, "/same-origin", [cookie], value).status_code == 200


def test_asvs_3_5_1_the_value_in_the_query_string_proves_nothing(site, handle):
    own = ("sessionId", handle)
    assert answer(ask(site, "/", [own], query_string={"csrf_token": value_for(site, own)})) == FORGED


def test_asvs_3_5_2_the_value_in_a_json_body_proves_nothing(site, handle):
    own = ("sessionId", handle)
    value = value_for(site, own)
    assert answer(ask(site, "/", [own], json={"csrf_token": value})) == FORGED
    assert answer(ask(site, "/", [own], data=f"csrf_token={value}", content_type="text/plain")) == FORGED
    assert answer(ask(site, "/", [own], data=f"csrf_token={value}", content_type="")) == FORGED


def test_a_json_request_has_the_value_in_the_header(site, handle):
    own = ("sessionId", handle)
    assert ask(site, "/", [own], value_for(site, own), json={"amount": 7}).status_code == 200


def test_asvs_3_5_1_a_wrong_value_in_the_header_is_not_mended_by_the_form(site, handle):
    own = ("sessionId", handle)
    fields = {"csrf_token": value_for(site, own)}
    assert answer(ask(site, "/", [own], "A" * 64, data=fields)) == FORGED


def test_a_good_value_in_the_header_is_not_spoilt_by_the_form(site, handle):
    own = ("sessionId", handle)
    assert ask(site, "/", [own], value_for(site, own), data={"csrf_token": "A" * 64}).status_code == 200


def test_a_broken_multipart_body_is_refused_and_no_error(site, handle):
    response = ask(
        site, "/", [("sessionId", handle)], data=b"--x\r\nnonsense", content_type="multipart/form-data; boundary=y"
    )
    assert answer(response) == FORGED


def test_asvs_16_5_1_an_error_page_of_a_body_that_is_too_large_may_ask_who_is_calling(make, handle):
    app = make(MAX_CONTENT_LENGTH=1000, JAM_HTTPS=False)
    app.testing = False

    @app.errorhandler(413)
    def too_large(_):
        return {"code": "too_large", "who": current_identity.subject}, 413

    response = ask(app, "/", [("sessionId", handle)], data={"csrf_token": "x" * 5000})
    assert response.status_code in (403, 413)


def test_a_view_that_does_not_read_a_body_that_is_too_large_answers_all_the_same(make, handle):
    """As it does for a request whose origin is known."""
    app = make(MAX_CONTENT_LENGTH=1000)
    options = {"data": {"text": "x" * 5000}}
    assert ask(app, "/open", [("sessionId", handle)], headers=SAME_ORIGIN, **options).json == {"who": "bob"}
    assert ask(app, "/open", [("sessionId", handle)], **options).json == {"who": None}


# -- safe methods -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("headers", [{}, CROSS_SITE, EVIL, {HEADER: "nonsense"}])
def test_asvs_3_5_3_safe_methods_are_asked_for_no_value(site, handle, method, headers):
    assert ask(site, "/", [("sessionId", handle)], method=method, headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/sign-in/mallory", "/login/mallory", "/logout", "/confirm"])
def test_asvs_3_5_3_nobody_signs_in_or_out_by_a_link(site, handle, path):
    own = ("sessionId", handle)
    assert ask(site, path, [own], value_for(site, own), method="GET").status_code == 405
    assert ask(site, "/", [own], method="GET").json["who"] == "bob"


# -- making one ---------------------------------------------------------------------------------------------


def test_asvs_3_3_1_the_cookie_of_who_has_not_signed_in_is_for_this_host_and_https_alone(make):
    response = raw_client(make(JAM_HTTPS=True)).get("/value", base_url="https://localhost")
    ((name, (held, attributes)),) = set_cookies(response).items()
    assert name == "__Host-jam_csrf"
    assert attributes == {"secure", "httponly", "path=/", "samesite=lax"}
    assert len(held) == 43


def test_each_value_is_another_one(site, handle):
    """What a page repeats, and a reader of its compressed size could guess bit by bit (BREACH)."""
    own = ("sessionId", handle)
    values = {value_for(site, own) for _ in range(50)}
    assert len(values) == 50
    starts = {value[:8] for value in values} | {value[22:30] for value in values}
    assert len(starts) == 100


def test_a_value_holds_nothing_of_the_cookie(site, handle):
    own = ("sessionId", handle)
    value = value_for(site, own)
    together = len(gzip.compress((handle + value).encode()))
    apart = len(gzip.compress((handle + secrets.token_urlsafe(48)).encode()))
    assert abs(together - apart) < 8
    assert re.fullmatch(r"[A-Za-z0-9_-]{64}", value)


def test_all_values_of_one_page_are_good(site):
    @site.get("/page")
    def page():
        return {"values": [csrf_token() for _ in range(5)]}

    response = raw_client(site).get("/page")
    assert len(response.headers.getlist("Set-Cookie")) == 1
    held = set_cookies(response)["jam_csrf"][0]
    values = response.json["values"]
    assert len(set(values)) == 5
    assert all(ask(site, "/same-origin", [("jam_csrf", held)], value).status_code == 200 for value in values)


def test_a_browser_that_has_the_cookie_keeps_it(site):
    browser = site.test_client()
    first = browser.get("/value").text
    kept = browser.get_cookie("jam_csrf").value
    response = browser.get("/value")
    assert set_cookies(response) == {}
    assert browser.get_cookie("jam_csrf").value == kept
    assert browser.post("/same-origin", headers={HEADER: first}).status_code == 200
    assert browser.post("/same-origin", headers={HEADER: response.text}).status_code == 200


@pytest.mark.parametrize("held", ["", "short", "A" * 42, "A" * 44, "A" * 42 + "=", "é" * 43])
def test_a_cookie_that_is_none_of_ours_is_replaced(site, held):
    environ = {"HTTP_COOKIE": f"jam_csrf={held}".encode().decode("latin-1")}
    response = raw_client(site).get("/value", environ_overrides=environ)
    made = set_cookies(response)["jam_csrf"][0]
    assert made != held
    assert ask(site, "/same-origin", [("jam_csrf", made)], response.text).status_code == 200


def test_who_is_signed_in_gets_no_cookie_for_a_value(site, handle):
    response = raw_client(site).get("/value", headers=cookies(("sessionId", handle)))
    assert set_cookies(response) == {}


def test_a_page_with_a_value_is_for_no_shared_cache(site, handle):
    first = raw_client(site).get("/value")
    assert first.headers["Cache-Control"] == "no-store"
    for own in (("sessionId", handle), ("jam_csrf", set_cookies(first)["jam_csrf"][0])):
        response = raw_client(site).get("/value", headers=cookies(own))
        assert {"private", "no-store"} & set(response.headers["Cache-Control"].split(", "))
        assert "Cookie" in response.headers["Vary"]


def test_a_value_is_made_in_a_template_and_an_after_request_function(site):
    @site.get("/template")
    def template():
        return render_template_string("{{ csrf_token() }}", csrf_token=csrf_token)

    @site.after_request
    def tell(response):
        response.headers["X-Value"] = csrf_token()
        return response

    response = raw_client(site).get("/template")
    held = set_cookies(response)["jam_csrf"][0]
    for value in (response.text, response.headers["X-Value"]):
        assert ask(site, "/same-origin", [("jam_csrf", held)], value).status_code == 200


def test_a_value_is_made_in_an_async_view(site, handle):
    @site.get("/async")
    async def asynchronous():
        return csrf_token()

    own = ("sessionId", handle)
    value = raw_client(site).get("/async", headers=cookies(own)).text
    assert ask(site, "/", [own], value).status_code == 200


def test_a_value_on_an_error_page_keeps_its_cookie(site):
    site.register_error_handler(404, lambda _: (csrf_token(), 404))
    response = raw_client(site).get("/nowhere")
    held = set_cookies(response)["jam_csrf"][0]
    assert ask(site, "/same-origin", [("jam_csrf", held)], response.text).status_code == 200


def test_a_value_made_while_the_app_looks_for_the_user_keeps_its_cookie(site, handle):
    def nobody(_):
        csrf_token()

    site.sessions.user_loader(nobody)
    response = raw_client(site).get("/value", headers=cookies(("sessionId", handle)))
    held = set_cookies(response)["jam_csrf"][0]
    assert ask(site, "/same-origin", [("jam_csrf", held)], response.text).status_code == 200


def test_a_streamed_page_shows_a_value_for_the_session(site, handle):
    @site.get("/streamed")
    def streamed():
        return site.response_class(stream_with_context(csrf_token() for _ in range(2)))

    own = ("sessionId", handle)
    values = raw_client(site).get("/streamed", headers=cookies(own)).text
    assert ask(site, "/", [own], values[:64]).status_code == 200
    assert ask(site, "/", [own], values[64:]).status_code == 200


def test_a_streamed_page_uses_the_cookie_that_the_view_has_had_set(site):
    @site.get("/streamed")
    def streamed():
        first = csrf_token()
        return site.response_class(stream_with_context(one() for one in (lambda: first, csrf_token)))

    response = raw_client(site).get("/streamed")
    held, values = set_cookies(response)["jam_csrf"][0], response.text
    for value in (values[:64], values[64:]):
        assert ask(site, "/same-origin", [("jam_csrf", held)], value).status_code == 200


def test_a_streamed_page_cannot_set_the_cookie_when_its_headers_have_left(site):
    @site.get("/streamed")
    def streamed():
        return site.response_class(stream_with_context(csrf_token() for _ in range(1)))

    with pytest.raises(ConfigError, match="headers have left"):
        _ = raw_client(site).get("/streamed").text


def test_a_value_made_before_the_sign_in_keeps_its_cookie_and_one_after_it_is_the_sessions(site):
    @site.post("/both")
    def both():
        before = csrf_token()
        site.sessions.sign_in("alice")
        return {"before": before, "after": csrf_token()}

    response = raw_client(site).post("/both", headers=SAME_ORIGIN)
    found = {name: held for name, (held, _) in set_cookies(response).items()}
    own = [("jam_csrf", found["jam_csrf"]), ("sessionId", found["sessionId"])]
    assert ask(site, "/", own, response.json["after"]).json["who"] == "alice"
    assert answer(ask(site, "/", own, response.json["before"])) == FORGED
    assert ask(site, "/same-origin", own[:1], response.json["before"]).status_code == 200


def test_a_value_made_after_signing_out_is_for_the_next_sign_in(site, handle):
    @site.post("/out")
    def out():
        site.sessions.sign_out()
        return csrf_token()

    own = ("sessionId", handle)
    response = ask(site, "/out", [own], value_for(site, own))
    held = set_cookies(response)["jam_csrf"][0]
    assert ask(site, "/sign-in/alice", [("jam_csrf", held)], response.text).status_code == 200


def test_a_value_of_a_request_that_restored_the_login_belongs_to_the_new_session(site, clock):
    browser = site.test_client()
    browser.post("/login/alice", headers=SAME_ORIGIN)
    browser.delete_cookie("sessionId")
    value = browser.get("/value").text
    assert browser.post("/", headers={HEADER: value}).json == {"who": "alice", "method": "session"}


# -- signing in and out -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/sign-in/alice", "/login/alice", "/same-origin"])
@pytest.mark.parametrize("headers", [{}, EVIL, {"Origin": "null"}])
def test_asvs_3_5_1_a_sign_in_is_proved_by_the_browsers_own_value(site, path, headers):
    cookie, value = stranger(site)
    assert ask(site, path, [cookie], value, headers=headers).status_code == 200
    assert ask(site, path, [cookie], data={"csrf_token": value}, headers=headers).status_code == 200
    assert answer(ask(site, path, [cookie], headers=headers)) == FORGED


def test_asvs_3_5_1_a_value_from_mallorys_browser_signs_nobody_in_elsewhere(site, jam):
    _, mallorys = stranger(site)
    cookie, _ = stranger(site)
    for own in ([cookie], []):
        for path in ("/sign-in/mallory", "/login/mallory", "/same-origin"):
            response = ask(site, path, own, mallorys, headers=EVIL)
            assert answer(response) == FORGED
            assert set_cookies(response) == {}
    assert list(jam.sessions.list("mallory")) == []


def test_a_form_signs_in_and_out_where_nothing_says_where_it_comes_from(site):
    browser = site.test_client()
    assert browser.post("/login/alice", data={"csrf_token": browser.get("/value").text}).json["who"] == "alice"
    assert answer(browser.post("/logout")) == FORGED
    assert browser.post("/logout", data={"csrf_token": browser.get("/value").text}).json == {"done": True}
    assert browser.get("/").status_code == 401
    assert browser.get_cookie("remember_token") is None


def test_the_value_of_the_answer_to_a_sign_in_is_good_at_once(site):
    browser = site.test_client()
    value = browser.post("/login/alice", headers=SAME_ORIGIN).json["value"]
    assert browser.post("/", headers={HEADER: value}).json["who"] == "alice"


def test_who_was_signed_in_once_signs_in_again_by_the_browsers_own_value(site, jam, handle):
    """The dead session's cookie is still in the browser."""
    jam.sessions.delete(handle)
    dead = ("sessionId", handle)
    response = raw_client(site).get("/value", headers=cookies(dead))
    made = ("jam_csrf", set_cookies(response)["jam_csrf"][0])
    assert ask(site, "/login/alice", [dead, made], response.text).json["who"] == "alice"


def test_signing_out_with_nobody_signed_in_is_proved_by_the_browsers_own_value(site):
    cookie, value = stranger(site)
    assert ask(site, "/logout", [cookie], value).json == {"done": True}
    assert answer(ask(site, "/logout", [cookie])) == FORGED


def test_asvs_3_5_1_a_forged_sign_out_ends_nothing(site, jam, handle):
    own, mallorys = ("sessionId", handle), ("sessionId", jam.create_session("mallory"))
    response = ask(site, "/logout", [own], value_for(site, mallorys), headers=EVIL)
    assert answer(response) == FORGED
    assert jam.get_session(handle) is not None


# -- remembered browsers ------------------------------------------------------------------------------------


def remembered(site):
    """A browser that is remembered, and whose session has ended."""
    browser = site.test_client()
    browser.post("/login/alice", headers=SAME_ORIGIN)
    return browser.get_cookie("remember_token").value


def test_asvs_3_5_1_a_remembered_browser_is_not_restored_for_another_site(site, jam):
    own = ("remember_token", remembered(site))
    cookie, value = stranger(site)
    before = len(list(jam.sessions.list("alice")))
    for headers in ({}, EVIL, CROSS_SITE):
        for shown in (None, "A" * 64, value):
            response = ask(site, "/", [own, cookie], shown, headers=headers)
            assert answer(response) == FORGED
            assert set_cookies(response) == {}
    assert len(list(jam.sessions.list("alice"))) == before


def test_the_page_that_restored_the_login_has_the_value_for_what_comes_next(site):
    browser = site.test_client()
    browser.set_cookie("remember_token", remembered(site))
    value = browser.get("/value").text
    assert browser.post("/", data={"csrf_token": value}).json == {"who": "alice", "method": "session"}


def test_a_form_that_was_open_when_the_session_ended_is_refused_and_its_page_shows_a_new_value(site, clock):
    """The value was the session's; the remembered browser's cookie is another one."""
    browser = site.test_client()
    browser.post("/login/alice", headers=SAME_ORIGIN)
    fields = {"csrf_token": browser.get("/value").text}
    clock.move(3601)
    assert answer(browser.post("/", data=fields)) == FORGED
    fields = {"csrf_token": browser.get("/value").text}
    assert browser.post("/", data=fields).json["who"] == "alice"


# -- flask.session ------------------------------------------------------------------------------------------


@pytest.fixture
def shop(make):
    """An app whose ``flask.session`` is on Jam's store."""
    app = make(flask_session=True)

    @app.route("/cart/<thing>", methods=["GET", "POST"])
    def cart(thing):
        session["cart"] = thing
        return {}

    @app.get("/cart")
    def show():
        return dict(session)

    @app.post("/admin")
    @checkpoint(SessionCheckpoint("cart", "plums"))
    def admin():
        return {"passed": True}

    @app.post("/clear")
    def clear():
        session.clear()
        return {}

    return app


def test_a_value_opens_flask_session_of_who_is_signed_in(shop, handle):
    own = ("sessionId", handle)
    ask(shop, "/cart/plums", [own], value_for(shop, own))
    assert ask(shop, "/cart", [own], method="GET").json == {"cart": "plums"}
    assert ask(shop, "/admin", [own], value_for(shop, own)).json == {"passed": True}


def test_asvs_3_5_1_without_a_value_flask_session_stays_shut(shop, handle):
    own = ("sessionId", handle)
    ask(shop, "/cart/plums", [own], method="GET")
    ask(shop, "/cart/stones", [own], "A" * 64)
    ask(shop, "/clear", [own])
    assert ask(shop, "/cart", [own], method="GET").json == {"cart": "plums"}
    assert answer(ask(shop, "/admin", [own])) == FORGED


def test_before_the_sign_in_the_browsers_own_value_opens_flask_session(shop):
    browser = shop.test_client()
    browser.get("/cart/plums")
    value = browser.get("/value").text
    browser.post("/cart/pears", headers={HEADER: value})
    assert browser.get("/cart").json == {"cart": "pears"}
    browser.get("/cart/plums")
    assert browser.post("/admin", headers={HEADER: value}).json == {"passed": True}


def test_a_cart_of_before_the_sign_in_comes_along_through_a_form_with_a_value(shop):
    browser = shop.test_client()
    browser.get("/cart/plums")
    browser.post("/login/alice", data={"csrf_token": browser.get("/value").text})
    assert browser.get("/cart").json == {"cart": "plums"}


def test_asvs_3_5_1_a_cookie_slipped_in_with_its_value_does_not_open_somebodys_flask_session(shop, jam, handle):
    own, mallorys = ("sessionId", handle), ("sessionId", jam.create_session("mallory"))
    ask(shop, "/cart/plums", [own], method="GET")
    ask(shop, "/cart/stones", [own, mallorys], value_for(shop, mallorys), headers=EVIL)
    assert ask(shop, "/cart", [own], method="GET").json == {"cart": "plums"}


def test_asvs_3_5_1_a_value_of_before_the_sign_in_does_not_open_somebodys_flask_session(shop, handle):
    own = ("sessionId", handle)
    cookie, value = stranger(shop)
    ask(shop, "/cart/plums", [own], method="GET")
    ask(shop, "/cart/stones", [own, cookie], value, headers=EVIL)
    assert ask(shop, "/cart", [own], method="GET").json == {"cart": "plums"}


def test_signing_out_by_clear_is_proved_by_the_value(shop, jam, handle):
    own = ("sessionId", handle)
    ask(shop, "/clear", [own], value_for(shop, own))
    assert jam.get_session(handle) is None


def test_flasks_own_session_passes_its_checkpoint_by_the_browsers_own_value(site):
    site.add_url_rule("/grant", "grant", lambda: session.update(user="alice") or "")
    granted = checkpoint(SessionCheckpoint("user", "alice"))(lambda: {"passed": True})
    site.add_url_rule("/granted", "granted", granted, methods=["POST"])
    browser = site.test_client()
    browser.get("/grant")
    value = browser.get("/value").text
    assert browser.post("/granted", data={"csrf_token": value}).json == {"passed": True}
    assert answer(browser.post("/granted", data={"csrf_token": "A" * 64})) == FORGED
    assert answer(browser.post("/granted")) == FORGED


# -- the body is still the view's ---------------------------------------------------------------------------


@pytest.fixture
def reader(site):
    @site.post("/form")
    @login_required
    def form():
        return {"form": request.form.to_dict(), "files": {name: len(one.read()) for name, one in request.files.items()}}

    @site.post("/bytes")
    @login_required
    def all_bytes():
        return request.get_data()

    @site.post("/stream")
    @login_required
    def stream():
        return b"".join(iter(lambda: request.stream.read(7), b""))

    return site


def test_the_view_sees_the_fields_of_the_form(reader, handle):
    own = ("sessionId", handle)
    fields = {"csrf_token": value_for(reader, own), "amount": "7"}
    assert ask(reader, "/form", [own], data=fields).json == {"form": fields, "files": {}}


def test_the_view_sees_the_files_of_the_form(reader, handle):
    own = ("sessionId", handle)
    with open(__file__, "rb") as file:
        size = len(file.read())
        file.seek(0)
        found = ask(reader, "/form", [own], data={"csrf_token": value_for(reader, own), "file": (file, "a.bin")}).json
    assert found["files"] == {"file": size}


def test_the_view_sees_the_bytes_of_the_form(reader, handle):
    """As somebody needs who verifies a signature of the whole body."""
    own = ("sessionId", handle)
    body = f"csrf_token={value_for(reader, own)}&amount=7"
    assert ask(reader, "/bytes", [own], data=body, content_type=FORM).text == body


@pytest.mark.parametrize("path", ["/bytes", "/stream"])
@pytest.mark.parametrize("content", [FORM, "multipart/form-data; boundary=x", "application/json", "text/plain"])
def test_with_the_value_in_the_header_nobody_touches_the_body(reader, handle, path, content):
    own = ("sessionId", handle)
    body = "amount=7&" * 1000
    assert ask(reader, path, [own], value_for(reader, own), data=body, content_type=content).text == body


def test_a_webhook_without_any_cookie_keeps_its_bytes(shop):
    """It is in ``flask.session`` that somebody looks, such as a hook that counts visits."""

    @shop.before_request
    def look():
        session.get("cart")

    @shop.post("/webhook")
    def webhook():
        return request.get_data()

    assert raw_client(shop).post("/webhook", data="a=1&b=2", content_type=FORM).text == "a=1&b=2"


# -- keys ---------------------------------------------------------------------------------------------------


def test_a_value_of_a_former_secret_is_good_still_and_new_ones_are_of_the_new(make, new_app, clock, tmp_path):
    old, new = secrets.token_urlsafe(64), secrets.token_urlsafe(64)
    store = f"sqlite:///{tmp_path / 'jam.sqlite3'}"

    def app_with(*known):
        jam = Jam({"secret": known[0], "secret_fallbacks": list(known[1:]), "store": store}, clock=clock)
        return site_of(new_app(SECRET_KEY=None), jam)

    before, during, after = app_with(old), app_with(new, old), app_with(new)
    own = ("sessionId", before.jam.create_session("alice"))
    value = value_for(before, own)
    assert ask(during, "/", [own], value).status_code == 200
    assert ask(during, "/", [own], value_for(during, own)).status_code == 200
    assert ask(after, "/", [own], value_for(during, own)).status_code == 200
    assert answer(ask(after, "/", [own], value)) == FORGED
    assert answer(ask(before, "/", [own], value_for(during, own))) == FORGED


def test_asvs_11_2_4_values_are_compared_in_constant_time(site, handle, monkeypatch):
    compared = []
    genuine = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((len(a), len(b))) or genuine(a, b))
    own = ("sessionId", handle)
    assert answer(ask(site, "/", [own], _changed(value_for(site, own), 63))) == FORGED
    assert (32, 32) in compared


# -- for clients of Flask-JWT-Extended ----------------------------------------------------------------------


@pytest.fixture
def ecosystem(make):
    """As its documentation writes an app with cookies."""

    def build(**config):
        app = make(JWT_CSRF_IN_COOKIES=True, **config)

        @app.post("/api/login")
        def api_login():
            response = jsonify(login=True)
            set_access_cookies(response, create_access_token("alice", fresh=True))
            set_refresh_cookies(response, create_refresh_token("alice"))
            return response

        @app.post("/api/refresh")
        @jwt_required(refresh=True)
        def api_refresh():
            response = jsonify(refresh=True)
            set_access_cookies(response, create_access_token(get_jwt_identity()))
            return response

        @app.post("/api/logout")
        def api_logout():
            response = jsonify(logout=True)
            unset_jwt_cookies(response)
            return response

        return app

    return build


def in_script(browser, name):
    """What ``document.cookie`` shows of a cookie."""
    cookie = browser.get_cookie(name)
    assert not cookie.http_only
    return cookie.value


def test_a_client_of_flask_jwt_extended_goes_through_unchanged(ecosystem, clock):
    browser = ecosystem().test_client()
    browser.post("/api/login")
    assert browser.post("/jwt").status_code == 403
    first = in_script(browser, "csrf_access_token")
    assert browser.post("/jwt", headers={HEADER: first}).json == {"who": "alice"}

    clock.move(901)
    headers = {HEADER: browser.get_cookie("csrf_refresh_token").value}
    assert browser.post("/jwt", headers={HEADER: first}).status_code == 401
    assert browser.post("/api/refresh", headers=headers).status_code == 200
    second = in_script(browser, "csrf_access_token")
    assert browser.post("/jwt", headers={HEADER: second}).json == {"who": "alice"}
    assert answer(browser.post("/jwt", headers={HEADER: first})) == FORGED

    browser.post("/api/logout")
    assert [browser.get_cookie(name) for name in ("csrf_access_token", "csrf_refresh_token")] == [None, None]
    assert browser.post("/jwt", headers={HEADER: second}).status_code == 401


def test_a_rotated_refresh_token_brings_a_new_value(ecosystem):
    app = ecosystem()
    browser = app.test_client()
    browser.post("/api/login")
    first = in_script(browser, "csrf_refresh_token")
    # the route is not below the cookie's path here: the path is what all refresh routes share
    assert browser.post("/auth/refresh", headers={HEADER: first}).json == {"who": "alice"}
    second = in_script(browser, "csrf_refresh_token")
    assert answer(browser.post("/auth/refresh", headers={HEADER: first})) == FORGED
    assert browser.post("/auth/refresh", headers={HEADER: second}).status_code == 200


def test_asvs_3_5_1_the_double_submit_does_not_help_another_site_whose_browser_says_so(ecosystem):
    browser = ecosystem().test_client()
    browser.post("/api/login")
    headers = {HEADER: in_script(browser, "csrf_access_token"), **CROSS_SITE}
    assert answer(browser.post("/jwt", headers=headers)) == FORGED


@pytest.mark.parametrize(
    ("path", "key", "cookie"),
    [
        ("/jwt", "JWT_ACCESS_CSRF_HEADER_NAME", "csrf_access_token"),
        ("/api/refresh", "JWT_REFRESH_CSRF_HEADER_NAME", "csrf_refresh_token"),
    ],
)
def test_the_header_may_have_the_apps_own_name(ecosystem, path, key, cookie):
    browser = ecosystem(**{key: "X-Shop-Token"}).test_client()
    browser.post("/api/login")
    value = in_script(browser, cookie)
    assert browser.post(path, headers={"X-Shop-Token": value}).status_code == 200
    assert browser.post(path, headers={HEADER: value}).status_code == 200  # the usual one is read besides


@pytest.mark.parametrize(
    ("path", "key", "cookie"),
    [
        ("/jwt", "JWT_ACCESS_CSRF_FIELD_NAME", "csrf_access_token"),
        ("/api/refresh", "JWT_REFRESH_CSRF_FIELD_NAME", "csrf_refresh_token"),
    ],
)
def test_the_form_field_may_have_the_apps_own_name(ecosystem, path, key, cookie):
    browser = ecosystem(**{key: "shop_token"}).test_client()
    browser.post("/api/login")
    value = in_script(browser, cookie)
    assert browser.post(path, data={"shop_token": value}).status_code == 200
    assert browser.post(path, data={"csrf_token": value}).status_code == 200
    assert answer(browser.post(path, data={"other": value})) == FORGED


@pytest.mark.parametrize("check_form", [True, False, None])
def test_a_form_field_counts_whatever_jwt_csrf_check_form_says(ecosystem, check_form):
    browser = ecosystem(JWT_CSRF_CHECK_FORM=check_form).test_client()
    browser.post("/api/login")
    assert browser.post("/jwt", data={"csrf_token": in_script(browser, "csrf_access_token")}).status_code == 200


def test_the_cookies_of_the_double_submit_have_the_apps_own_names_and_paths(ecosystem):
    app = ecosystem(
        JWT_ACCESS_CSRF_COOKIE_NAME="a", JWT_REFRESH_CSRF_COOKIE_NAME="r",
        JWT_ACCESS_CSRF_COOKIE_PATH="/shop", JWT_REFRESH_CSRF_COOKIE_PATH="/auth",
    )  # fmt: skip
    found = set_cookies(raw_client(app).post("/api/login"))
    assert "path=/shop" in found["a"][1]
    assert "path=/auth" in found["r"][1]
    assert ask(app, "/jwt", [(ACCESS, found[ACCESS][0])], found["a"][0]).status_code == 200


@pytest.mark.parametrize(
    "names",
    [
        {"JWT_ACCESS_CSRF_COOKIE_NAME": ACCESS},
        {"JWT_ACCESS_CSRF_COOKIE_NAME": "sessionId"},
        {"JWT_ACCESS_CSRF_COOKIE_NAME": "csrf", "JWT_REFRESH_CSRF_COOKIE_NAME": "csrf"},
    ],
)
def test_a_cookie_of_the_double_submit_does_not_overwrite_another(ecosystem, names):
    with pytest.raises(ConfigError, match="name"):
        raw_client(ecosystem(**names)).post("/api/login")


def test_a_value_for_a_token_is_good_without_the_cookie_that_shows_it(site, token, refresh_token):
    assert ask(site, "/jwt", [(ACCESS, token)], value_of_token(site, token)).json == {"who": "alice"}
    shown = value_of_token(site, refresh_token)
    assert ask(site, "/auth/refresh", [(REFRESH, refresh_token)], shown).json == {"who": "alice"}


def test_a_page_for_who_came_by_the_access_cookie_shows_a_value_for_it(site, token):
    own = (ACCESS, token)
    assert ask(site, "/jwt", [own], value_for(site, own)).json == {"who": "alice"}


def test_tokens_have_no_claim_for_all_this(site):
    with site.app_context():
        assert "csrf" not in site.jam.access_tokens.verify(create_access_token("alice")).payload


# -- what the form that is refused can do -------------------------------------------------------------------


def test_the_form_of_another_library_is_left_to_it(site):
    """Flask-WTF names its field likewise; for Jam its value is none, and the origin decides."""
    theirs = {"csrf_token": "ImE0N2Y4ZTcwNjQ5ZTY2ZmQ4NTI2ZjE0ODZiMTYwMjcxYTQxZTMi.ZQ.signature"}
    own = [("sessionId", site.jam.create_session("alice"))]
    assert ask(site, "/", own, data=theirs, headers={"Origin": "http://localhost"}).status_code == 200
    assert answer(ask(site, "/", own, data=theirs)) == FORGED


def test_the_message_repeats_nothing_of_what_was_sent(site, handle):
    response = ask(site, "/", [("sessionId", handle)], "<script>" + "A" * 56)
    assert "<script>" not in response.text
    assert "AAAA" not in response.text


def test_flashed_messages_pass_through_a_form_with_a_value(shop):
    @shop.post("/flash")
    def save():
        flash("saved")
        return redirect("/cart")

    browser = shop.test_client()
    value = browser.get("/value").text
    browser.post("/flash", data={"csrf_token": value})
    assert browser.get("/cart").json == {"_flashes": [["message", "saved"]]}
