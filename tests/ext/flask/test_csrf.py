# ruff: noqa: PLR0917 - a table of cases
"""Unsafe requests with cookies must come from the site's own pages, or the cookies are not opened."""

import pytest
from flask import Flask, g, session

from jam import Jam
from jam.errors import ConfigError
from jam.ext.flask import (
    Authenticated,
    HasRole,
    JWTExtension,
    SameOrigin,
    SessionCheckpoint,
    SessionExtension,
    checkpoint,
    current_identity,
    deny_by_default,
    protect,
)
from tests.ext.flask.callers import (
    CROSS_SITE,
    SAME_ORIGIN,
    answer,
    bearer,
    called,
    cookies,
    raw_client,
    set_cookies,
    vary,
)

SAFE = ["GET", "HEAD", "OPTIONS", "TRACE"]
UNSAFE = ["POST", "PUT", "PATCH", "DELETE", "PROPFIND", "CUSTOM"]
FRIEND = "https://friend.example"
FORGED = (403, "csrf_failed")


@pytest.fixture
def site(new_app, secret, clock):
    jam = Jam({"secret": secret, "csrf": {"trusted_origins": [FRIEND]}}, clock=clock)
    app = new_app()
    app.jam = jam
    JWTExtension(jam, app, cookie_name="jwt")
    app.sessions = SessionExtension(jam, app)
    methods = {"methods": [method for method in SAFE + UNSAFE if method != "OPTIONS"]}

    @app.route("/", **methods)
    @checkpoint(Authenticated())
    def by_identity():
        return {"who": current_identity.subject}

    @app.route("/flask", **methods)
    @checkpoint(SessionCheckpoint("user", "alice"))
    def by_flask_session():
        return {"who": session["user"]}

    @app.route("/open", **methods)
    def unguarded():
        return {"who": current_identity.subject, "payload": g.payload, "there": "payload" in g}

    return app


def by_session(site):
    return "/", cookies(("sessionId", site.jam.create_session("alice")))


def by_jwt_cookie(site):
    return "/", cookies(("jwt", site.jam.access_tokens.issue("alice")))


def by_flask_session(site):
    client = site.test_client()
    with client.session_transaction() as stored:
        stored["user"] = "alice"
    return "/flask", cookies(("session", client.get_cookie("session").value))


COOKIES = [by_session, by_jwt_cookie, by_flask_session]


def ask(site, who, method, headers, **options):
    path, own = who(site)
    return raw_client(site).open(path, method=method, headers={**own, **headers}, **options)


# -- the matrix ---------------------------------------------------------------------------------------------

OWN = "http://localhost"
EVIL = "https://evil.example"
MATRIX = [
    # Sec-Fetch-Site, Origin, passes
    ("same-origin", None, True),
    ("same-origin", OWN, True),
    ("none", None, True),
    ("same-site", None, False),
    ("same-site", "http://sub.localhost", False),
    ("same-site", FRIEND, True),
    ("cross-site", None, False),
    ("cross-site", EVIL, False),
    ("cross-site", "null", False),
    ("cross-site", FRIEND, True),
    ("cross-site", OWN, False),
    ("Same-Origin", None, False),
    ("same-origin, cross-site", None, False),
    ("", None, False),
    ("nonsense", None, False),
    (None, OWN, True),
    (None, EVIL, False),
    (None, "null", False),
    (None, FRIEND, True),
    (None, "", False),
    (None, None, False),
]


@pytest.mark.parametrize("who", COOKIES)
@pytest.mark.parametrize("method", ["POST", "DELETE", "CUSTOM"])
@pytest.mark.parametrize(("site_header", "origin", "passes"), MATRIX)
def test_asvs_3_5_1_an_unsafe_request_with_a_cookie_must_come_from_the_site_itself(
    site, who, method, site_header, origin, passes
):
    headers = {"Sec-Fetch-Site": site_header, "Origin": origin}
    response = ask(site, who, method, {name: value for name, value in headers.items() if value is not None})
    if passes:
        assert response.json == {"who": "alice"}
    else:
        assert answer(response) == FORGED


@pytest.mark.parametrize("who", COOKIES)
@pytest.mark.parametrize("method", UNSAFE)
def test_asvs_3_5_1_every_method_that_is_not_safe_is_checked(site, who, method):
    assert answer(ask(site, who, method, CROSS_SITE)) == FORGED


@pytest.mark.parametrize("who", COOKIES)
@pytest.mark.parametrize("method", ["GET", "HEAD", "TRACE"])
def test_rfc9110_9_2_1_safe_methods_are_not_checked(site, who, method):
    assert ask(site, who, method, CROSS_SITE).status_code == 200


@pytest.mark.parametrize("who", COOKIES)
@pytest.mark.parametrize(
    "content", ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain", "application/json", ""]
)
def test_asvs_3_5_2_the_type_of_the_body_proves_nothing(site, who, content):
    assert answer(ask(site, who, "POST", {**CROSS_SITE, "Content-Type": content})) == FORGED


@pytest.mark.parametrize(
    "header", ["X-Requested-With", "X-CSRF-Token", "X-CSRFToken", "Referer", "X-Forwarded-Host", "X-Forwarded-Proto"]
)
def test_asvs_3_5_1_no_other_header_proves_anything(site, header):
    assert answer(ask(site, by_session, "POST", {**CROSS_SITE, header: "http://localhost/"})) == FORGED
    assert answer(ask(site, by_session, "POST", {header: "http://localhost/"})) == FORGED


@pytest.mark.parametrize("override", ["X-HTTP-Method-Override", "X-HTTP-Method"])
def test_asvs_3_5_1_a_method_override_makes_nothing_safe(site, override):
    assert answer(ask(site, by_session, "POST", {**CROSS_SITE, override: "GET"})) == FORGED


# -- hostile spellings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "NULL",
        "",
        " ",
        "localhost",
        "//localhost",
        "http://",
        "http:localhost",
        "http:///localhost",
        "https://localhost",
        "ftp://localhost",
        "http://localhost:8080",
        "http://localhost:080",
        "http://localhost.",
        "http://localhost/",
        "http://localhost/x",
        "http://localhost?",
        "http://localhost#",
        "http://localhost.evil.example",
        "http://evil.example/http://localhost",
        "http://evillocalhost",
        "http://localhostevil.example",
        "http://sub.localhost",
        "http://localhost@evil.example",
        "http://evil.example@localhost",
        "http://user@localhost",
        "http://localhost%2eevil.example",
        "http://localhost\\.evil.example",
        "http://loc\u0430lhost",
        "http://localhost http://evil.example",
        "http://evil.example http://localhost",
        "http://evil.example, http://localhost",
        "http://localhost, http://evil.example",
        " http://localhost",
        "http://localhost\t",
        "http://localhost\x00",
        "http://*",
        "*",
        "http://127.0.0.1",
        "http://[::1]",
    ],
)
def test_asvs_3_5_1_an_origin_that_is_not_exactly_ours_is_another(site, origin):
    headers = {"Origin": origin.encode().decode("latin-1")}
    assert answer(ask(site, by_session, "POST", headers)) == FORGED


@pytest.mark.parametrize("origin", ["http://localhost", "HTTP://LOCALHOST", "http://LocalHost"])
def test_scheme_and_host_of_our_own_origin_may_have_any_case(site, origin):
    assert ask(site, by_session, "POST", {"Origin": origin}).json == {"who": "alice"}


@pytest.mark.parametrize(
    ("base_url", "origin", "passes"),
    [
        ("http://shop.example", "http://shop.example", True),
        ("http://SHOP.example", "http://shop.example", True),
        ("http://shop.example:80", "http://shop.example", True),
        ("https://shop.example", "https://shop.example", True),
        ("https://shop.example:443", "https://shop.example", True),
        ("https://shop.example:8443", "https://shop.example:8443", True),
        ("https://shop.example:8443", "https://shop.example", False),
        ("https://shop.example", "https://shop.example:8443", False),
        ("https://shop.example", "http://shop.example", False),
        ("http://shop.example", "https://shop.example", False),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000", True),
        ("http://127.0.0.1:5000", "http://localhost:5000", False),
        ("http://[::1]:5000", "http://[::1]:5000", True),
        ("http://xn--mnchen-3ya.example", "http://xn--mnchen-3ya.example", True),
        ("http://shop.example/mounted", "http://shop.example", True),
    ],
)
def test_our_own_origin_is_scheme_host_and_port(site, base_url, origin, passes):
    response = ask(site, by_session, "POST", {"Origin": origin}, base_url=base_url)
    assert response.json.get("who") == ("alice" if passes else None)


@pytest.mark.parametrize("host", ["[", "a b", "a:b", "a:999999999", "[::1", "\xff", "a/b", "a@b", "", "a\x00b"])
def test_asvs_16_5_1_an_odd_host_header_is_no_internal_error(site, host):
    path, own = by_session(site)
    odd = {"HTTP_HOST": host, "HTTP_ORIGIN": f"http://{host}", "HTTP_COOKIE": own["Cookie"]}
    assert called(site, REQUEST_METHOD="POST", PATH_INFO=path, **odd)[0] in (400, 403)


@pytest.mark.parametrize(
    "origin",
    [
        "https://friend.example.evil.example",
        "https://evilfriend.example",
        "https://friend.example:443",
        "https://friend.example:8443",
        "http://friend.example",
        "https://sub.friend.example",
        "https://friend.example/",
        "https://friend.example@evil.example",
        "HTTPS://FRIEND.EXAMPLE.",
        "https://friend.example https://evil.example",
    ],
)
def test_asvs_3_5_1_a_trusted_origin_is_compared_whole(site, origin):
    assert answer(ask(site, by_session, "POST", {"Origin": origin})) == FORGED


@pytest.mark.parametrize(
    "nonsense",
    ["*", "https://*.example", "friend.example", "https://friend.example/", "null", "https://Friend.example", ""],
)
def test_a_trusted_origin_that_is_no_origin_is_refused_at_once(nonsense):
    with pytest.raises(ConfigError, match=r"trusted_origins"):
        Jam({"csrf": {"trusted_origins": [nonsense]}})


def test_trusted_origins_may_come_from_the_apps_configuration(new_app):
    app, jam = new_app(JAM_CSRF_TRUSTED_ORIGINS=[FRIEND]), Jam()
    SessionExtension(jam, app)
    app.post("/")(lambda: {"who": current_identity.subject})
    headers = {**cookies(("sessionId", jam.create_session("alice"))), "Origin": FRIEND, "Sec-Fetch-Site": "cross-site"}
    assert raw_client(app).post("/", headers=headers).json == {"who": "alice"}


# -- what is exempt -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, CROSS_SITE, {"Origin": "null"}])
def test_credentials_in_a_header_need_no_origin(site, headers):
    token = site.jam.access_tokens.issue("alice")
    assert raw_client(site).post("/", headers={**bearer(token), **headers}).json == {"who": "alice"}


def test_a_header_counts_even_beside_a_forged_cookie(site):
    token = site.jam.access_tokens.issue("alice")
    own = cookies(("sessionId", site.jam.create_session("bob")))
    assert raw_client(site).post("/", headers={**bearer(token), **own, **CROSS_SITE}).json == {"who": "alice"}


def test_asvs_3_5_1_an_invalid_header_does_not_open_a_forged_cookie(site):
    own = cookies(("sessionId", site.jam.create_session("bob")))
    assert answer(raw_client(site).post("/", headers={**bearer("junk"), **own, **CROSS_SITE})) == FORGED


def test_a_request_without_any_cookie_of_ours_is_simply_nobody(site):
    assert answer(raw_client(site).post("/", headers=CROSS_SITE)) == (401, "authentication_required")
    own = cookies(("analytics", "1"))
    assert answer(raw_client(site).post("/", headers={**CROSS_SITE, **own})) == (401, "authentication_required")


# -- what is not opened -------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", [by_session, by_jwt_cookie])
def test_asvs_3_5_1_an_unguarded_view_sees_nobody(site, who):
    _, own = who(site)
    response = raw_client(site).post("/open", headers={**own, **CROSS_SITE})
    assert response.json == {"who": None, "payload": None, "there": False}


def test_asvs_3_5_1_the_session_is_not_even_looked_up(site, clock):
    """Looking it up would count as use and keep it alive."""
    handle = site.jam.create_session("alice")
    for _ in range(4):
        clock.move(1000)
        raw_client(site).post("/open", headers={**cookies(("sessionId", handle)), **CROSS_SITE})
    assert site.jam.get_session(handle) is None


def test_asvs_3_5_1_a_good_session_is_not_harmed_by_a_forged_request(site):
    handle = site.jam.create_session("alice")
    raw_client(site).post("/", headers={**cookies(("sessionId", handle)), **CROSS_SITE})
    response = raw_client(site).post("/", headers={**cookies(("sessionId", handle)), **SAME_ORIGIN})
    assert response.json == {"who": "alice"}


@pytest.mark.parametrize("shut", [protect, deny_by_default])
def test_asvs_3_5_1_protect_and_deny_by_default_give_the_reason_too(new_app, jam, handle, shut):
    app = new_app()
    SessionExtension(jam, app)
    shut(app)
    app.post("/")(lambda: "in")
    assert answer(raw_client(app).post("/", headers={**cookies(("sessionId", handle)), **CROSS_SITE})) == FORGED


def test_asvs_3_5_1_the_reason_is_the_same_whatever_the_guard_demands(new_app, jam, handle):
    app = new_app()
    SessionExtension(jam, app)
    app.post("/")(checkpoint(HasRole("admin"))(lambda: "in"))
    assert answer(raw_client(app).post("/", headers={**cookies(("sessionId", handle)), **CROSS_SITE})) == FORGED


def test_asvs_3_5_1_a_bad_cookie_in_a_forged_request_is_not_told_from_a_good_one(site):
    good, bad = by_session(site)[1], cookies(("sessionId", "junk"))
    answers = {raw_client(site).post("/", headers={**own, **CROSS_SITE}).text for own in (good, bad)}
    assert len(answers) == 1


def test_asvs_3_5_1_a_stranger_can_sign_nobody_in(site):
    site.post("/sign-in")(lambda: {"who": site.sessions.sign_in("mallory").subject})
    for headers in (CROSS_SITE, {"Origin": "null"}, {}):
        response = raw_client(site).post("/sign-in", headers=headers)
        assert answer(response) == FORGED
        assert set_cookies(response) == {}
    assert list(site.jam.sessions.list("mallory")) == []


def test_asvs_3_5_1_a_stranger_can_sign_nobody_out(site):
    site.post("/sign-out")(lambda: site.sessions.sign_out() or "out")
    handle = site.jam.create_session("alice")
    response = raw_client(site).post("/sign-out", headers={**cookies(("sessionId", handle)), **CROSS_SITE})
    assert answer(response) == FORGED
    assert set_cookies(response) == {}
    assert site.jam.get_session(handle) == {}


def test_asvs_3_5_1_a_trusted_origin_may_sign_somebody_in(site):
    site.post("/sign-in")(lambda: {"who": site.sessions.sign_in("alice").subject})
    headers = {"Origin": FRIEND, "Sec-Fetch-Site": "cross-site"}
    assert raw_client(site).post("/sign-in", headers=headers).json == {"who": "alice"}


def test_asvs_3_5_1_a_sign_in_form_is_guarded_before_its_password_is_looked_at(site):
    looked = []
    site.post("/form")(checkpoint(SameOrigin())(lambda: looked.append(1) or "in"))
    assert answer(raw_client(site).post("/form", headers=CROSS_SITE)) == FORGED
    assert looked == []


# -- what is said -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [CROSS_SITE, {"Origin": EVIL}, {}, {"Sec-Fetch-Site": "<script>"}])
def test_the_refusal_says_why_without_repeating_what_was_sent(site, headers):
    message = ask(site, by_session, "POST", headers).json["message"]
    assert message.startswith("The request")
    assert "evil" not in message
    assert "<script>" not in message


def test_asvs_3_5_1_the_refusal_depends_on_where_the_request_came_from(site):
    response = ask(site, by_session, "POST", CROSS_SITE)
    assert vary(response) >= {"sec-fetch-site", "origin"}


def test_a_forged_request_is_no_reason_to_ask_for_credentials(site):
    assert "WWW-Authenticate" not in ask(site, by_session, "POST", CROSS_SITE).headers


def test_an_app_of_cookies_alone_needs_no_secret_for_all_this(clock):
    app, jam = Flask(__name__), Jam({"https": False}, clock=clock)
    SessionExtension(jam, app)
    app.post("/")(checkpoint(Authenticated())(lambda: "in"))
    own = cookies(("sessionId", jam.create_session("alice")))
    assert raw_client(app).post("/", headers={**own, **SAME_ORIGIN}).text == "in"
    assert answer(raw_client(app).post("/", headers={**own, **CROSS_SITE})) == FORGED
