"""Setting up: extensions, apps, configuration, and the cookie that a sign-in sets."""

import logging
import secrets
import subprocess
import sys

import pytest
from flask import Flask, current_app, g

from jam import Jam
from jam.errors import ConfigError
from jam.ext.flask import (
    Authenticated,
    JamExtension,
    JWTExtension,
    SessionExtension,
    checkpoint,
    current_identity,
    deny_by_default,
)
from tests.ext.flask.callers import CROSS_SITE, SAME_ORIGIN, answer, bearer, cookies, raw_client, set_cookies

EXTENSIONS = [JamExtension, JWTExtension, SessionExtension]


def subject_in(app, headers):
    """Whom an app sees, asked the way a view asks; errors come through as they are."""
    with app.test_request_context(headers=headers):
        return current_identity.subject


# -- one app, several extensions, several apps --------------------------------------------------------------


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_the_jam_is_found_among_the_apps_extensions(app, jam, extension):
    extension(jam, app)
    with app.app_context():
        assert current_app.extensions["jam"] is jam


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_init_app_sets_up_an_app_later(app, jam, extension):
    extension(jam).init_app(app)
    assert app.extensions["jam"] is jam


def test_jam_extension_alone_looks_for_no_credential(app, jam, token, handle):
    JamExtension(jam, app)
    assert subject_in(app, {**bearer(token), **cookies(("sessionId", handle))}) is None


def test_jwt_extension_takes_tokens_only(app, jam, token, handle):
    JWTExtension(jam, app)
    assert subject_in(app, bearer(token)) == "alice"
    assert subject_in(app, bearer(handle)) is None


def test_session_extension_takes_sessions_only(app, jam, token, handle):
    SessionExtension(jam, app)
    assert subject_in(app, cookies(("sessionId", handle))) == "bob"
    assert subject_in(app, cookies(("sessionId", token))) is None


def test_all_three_work_together_on_one_app(app, jam, token, handle):
    JamExtension(jam, app)
    JWTExtension(jam, app)
    SessionExtension(jam, app)
    assert subject_in(app, bearer(token)) == "alice"
    assert subject_in(app, cookies(("sessionId", handle))) == "bob"


def test_two_kinds_of_credential_may_share_one_header(app, jam, token, handle):
    JWTExtension(jam, app)
    SessionExtension(jam, app, header_name="Authorization", cookie_name=None)
    assert subject_in(app, bearer(token)) == "alice"
    assert subject_in(app, bearer(handle)) == "bob"


def test_one_extension_serves_several_apps(new_app, jam, token):
    extension = JWTExtension(jam)
    apps = [new_app(), new_app()]
    for app in apps:
        extension.init_app(app)
    assert [subject_in(app, bearer(token)) for app in apps] == ["alice", "alice"]


def test_setting_up_the_same_extension_twice_changes_nothing(app, jam, token):
    extension = JWTExtension(jam, app)
    extension.init_app(app)
    assert subject_in(app, bearer(token)) == "alice"


def test_an_extension_that_comes_after_the_first_request_counts_too(app, jam, token, handle):
    JWTExtension(jam, app)
    assert subject_in(app, bearer(token)) == "alice"
    SessionExtension(jam, app)
    assert subject_in(app, cookies(("sessionId", handle))) == "bob"


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_second_jam_on_one_app_is_refused(app, jam, extension):
    JWTExtension(jam, app)
    with pytest.raises(ConfigError, match="another Jam"):
        extension(Jam(), app)


@pytest.mark.parametrize("extension", [JWTExtension, SessionExtension])
@pytest.mark.parametrize("nothing", [None, ""])
def test_an_extension_that_looks_nowhere_is_refused(jam, extension, nothing):
    with pytest.raises(ConfigError, match="looks nowhere"):
        extension(jam, header_name=nothing, cookie_name=nothing)


def test_apps_of_one_jam_keep_their_carriers_apart(new_app, jam, token):
    api, pages = new_app(), new_app()
    JWTExtension(jam, api)
    SessionExtension(jam, pages)
    assert subject_in(api, bearer(token)) == "alice"
    assert subject_in(pages, bearer(token)) is None


# -- configuration ------------------------------------------------------------------------------------------


def test_the_apps_configuration_fills_in_what_the_jam_lacks(new_app):
    app, jam = new_app(JAM_NAME="shop", JAM_ACCESS_TOKENS_LIFETIME=60), Jam()
    JWTExtension(jam, app)
    assert (jam.settings.name, jam.settings.access_tokens.lifetime) == ("shop", 60)


def test_what_the_jam_was_told_itself_counts_more(new_app, secret):
    app, jam = new_app(JAM_NAME="shop"), Jam({"name": "bakery", "secret": secret})
    JWTExtension(jam, app)
    assert jam.settings.name == "bakery"


def test_a_secret_key_that_is_set_after_init_app_is_used(secret):
    app, jam = Flask(__name__), Jam()
    JWTExtension(jam, app)
    app.secret_key = secret
    assert subject_in(app, bearer(Jam({"secret": secret}).access_tokens.issue("alice"))) == "alice"


def test_jam_secret_counts_more_than_secret_key(new_app, secret):
    own = secrets.token_urlsafe(64)
    app = new_app(JAM_SECRET=own)
    JWTExtension(Jam(), app)
    assert subject_in(app, bearer(Jam({"secret": own}).access_tokens.issue("alice"))) == "alice"
    assert subject_in(app, bearer(Jam({"secret": secret}).access_tokens.issue("alice"))) is None


def test_secret_key_fallbacks_keep_verifying(new_app, secret):
    former = secrets.token_urlsafe(64)
    app = new_app(SECRET_KEY_FALLBACKS=[former])
    JWTExtension(Jam(), app)
    assert subject_in(app, bearer(Jam({"secret": former}).access_tokens.issue("alice"))) == "alice"


def test_secret_key_fallbacks_do_not_sign(new_app, secret):
    app, jam = new_app(SECRET_KEY_FALLBACKS=[secrets.token_urlsafe(64)]), Jam()
    JWTExtension(jam, app)
    assert Jam({"secret": secret}).verify_jwt_token(jam.access_tokens.issue("alice"))["sub"] == "alice"


def test_two_apps_with_different_secrets_cannot_share_a_jam(new_app):
    jam, one, other = Jam(), new_app(), new_app(SECRET_KEY=secrets.token_urlsafe(64))
    JWTExtension(jam, one)
    JWTExtension(jam, other)
    with pytest.raises(ConfigError, match="do not agree on secret"):
        subject_in(one, {})


def test_an_app_that_comes_late_with_another_secret_is_refused_and_the_first_goes_on(new_app, token, secret):
    jam, one, other = Jam(), new_app(), new_app(SECRET_KEY=secrets.token_urlsafe(64))
    JWTExtension(jam, one)
    headers = bearer(jam.access_tokens.issue("alice"))
    JWTExtension(jam, other)
    with pytest.raises(ConfigError, match="secret"):
        subject_in(other, headers)
    assert subject_in(one, headers) == "alice"


def test_apps_with_the_same_secret_share_a_jam(new_app):
    jam, one, other = Jam(), new_app(), new_app()
    JWTExtension(jam, one)
    JWTExtension(jam, other)
    headers = bearer(jam.access_tokens.issue("alice"))
    assert subject_in(one, headers) == subject_in(other, headers) == "alice"


@pytest.mark.parametrize("silent_one_first", [True, False])
@pytest.mark.parametrize("comes_late", [True, False])
def test_an_app_without_a_secret_shares_that_of_the_other(new_app, silent_one_first, comes_late):
    jam = Jam()
    apps = [new_app(), new_app(SECRET_KEY=None)]
    if silent_one_first and not comes_late:
        apps.reverse()
    JWTExtension(jam, apps[0])
    if not comes_late:
        JWTExtension(jam, apps[1])
    headers = bearer(jam.access_tokens.issue("alice"))
    if comes_late:
        JWTExtension(jam, apps[1])
    assert [subject_in(app, headers) for app in apps] == ["alice", "alice"]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("JAM_SECRE", "JAM_SECRET"),
        ("JAM_SESSION_IDLE_FOR", "JAM_SESSIONS_IDLE_FOR"),
        ("JAM_HTTP", "JAM_HTTPS"),
        ("JAM_ACCESS_TOKEN_LIFETIME", "JAM_ACCESS_TOKENS_LIFETIME"),
    ],
)
def test_an_unknown_option_under_jam_is_refused_with_the_nearest_name(new_app, wrong, right):
    app = new_app(**{wrong: 60})
    JWTExtension(Jam(), app)
    with pytest.raises(ConfigError, match=f"{wrong}.*Did you mean {right}"):
        subject_in(app, {})


def test_other_libraries_options_are_none_of_jams_business(new_app, token, secret):
    app = new_app(JWT_SECRET_KEY="x", JAMMED=True, REMEMBER_COOKIE_NAME="r")
    JWTExtension(Jam(), app)
    assert subject_in(app, {}) is None


def test_a_configuration_error_reaches_the_developer_and_not_the_client(new_app, caplog):
    app = new_app(TESTING=False, JAM_NAME=7)
    JWTExtension(Jam(), app)
    app.get("/")(checkpoint(Authenticated())(lambda: "in"))
    response = raw_client(app).get("/")
    assert response.status_code == 500
    assert "JAM_NAME" not in response.text
    assert "JAM_NAME" in caplog.text


def test_a_configuration_error_is_raised_in_the_apps_own_tests(new_app):
    app = new_app(JAM_NAME=7)
    JWTExtension(Jam(), app)
    app.get("/")(checkpoint(Authenticated())(lambda: "in"))
    with pytest.raises(ConfigError, match="JAM_NAME"):
        raw_client(app).get("/")


# -- secrets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weak", ["dev", "abcd12345678", "change-me", "a" * 64, "your-secret-key"])
def test_asvs_13_3_1_a_weak_secret_is_refused_outside_debug_and_testing(weak):
    app = Flask(__name__)
    app.secret_key = weak
    JWTExtension(Jam(), app)
    with pytest.raises(ConfigError, match="secret") as caught:
        subject_in(app, {})
    assert "secrets.token_urlsafe" in caught.value.hint


@pytest.mark.parametrize("mode", ["TESTING", "DEBUG"])
def test_asvs_13_3_1_a_weak_secret_warns_once_in_debug_and_testing(mode, caplog):
    app = Flask(__name__)
    app.config.update({"SECRET_KEY": "abcd12345678", mode: True})
    jam = Jam()
    JWTExtension(jam, app)
    for _ in range(3):
        assert subject_in(app, bearer(jam.access_tokens.issue("alice"))) == "alice"
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "secret" in warnings[0]
    assert "abcd12345678" not in warnings[0]


def test_asvs_13_3_1_a_weak_fallback_is_refused_like_a_weak_secret(new_app):
    app = new_app(TESTING=False, SECRET_KEY_FALLBACKS=["dev"])
    JWTExtension(Jam(), app)
    with pytest.raises(ConfigError, match="fallback"):
        subject_in(app, {})


def test_asvs_13_3_1_an_app_in_testing_does_not_excuse_one_that_is_not(new_app):
    jam, testing, real = Jam(), new_app(SECRET_KEY="dev"), new_app(SECRET_KEY="dev", TESTING=False)
    JWTExtension(jam, testing)
    assert subject_in(testing, {}) is None
    JWTExtension(jam, real)
    with pytest.raises(ConfigError, match="secret"):
        subject_in(real, {})


def test_asvs_13_3_1_without_a_secret_keys_live_as_long_as_the_process(caplog):
    app, jam = Flask(__name__), Jam()
    JWTExtension(jam, app)
    token = jam.access_tokens.issue("alice")
    assert subject_in(app, bearer(token)) == "alice"
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "SECRET_KEY" in warnings[0]
    other = Flask(__name__)
    JWTExtension(Jam(), other)
    assert subject_in(other, bearer(token)) is None


def test_importing_and_setting_up_reads_no_key_and_opens_no_store():
    program = (
        "import sys; from flask import Flask; from jam import Jam; from jam.ext.flask import JWTExtension\n"
        "app = Flask('shop'); app.config['JAM_STORE'] = 'sqlite:////dev/null/x'; JWTExtension(Jam(), app)\n"
        "print(app.test_client().get('/').status_code, 'jam.stores.sqlite' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split() == ["404", "False"]


# -- the cookie ---------------------------------------------------------------------------------------------


def signing_in(app, jam, cookie_name="sid"):
    extension = SessionExtension(jam, app, cookie_name=cookie_name)

    @app.post("/sign-in")
    def sign_in():
        extension.sign_in("alice")
        return {"signed in": "yes"}

    @app.post("/sign-out")
    def sign_out():
        extension.sign_out()
        return {"signed in": "no"}

    return extension


def signed_in(app, **options):
    response = raw_client(app).post("/sign-in", headers=SAME_ORIGIN, **options)
    assert response.status_code == 200
    return response


@pytest.mark.parametrize(
    ("config", "secure"),
    [
        ({"TESTING": False}, True),
        ({"TESTING": False, "DEBUG": True}, False),
        ({"TESTING": True}, False),
        ({"TESTING": True, "JAM_HTTPS": True}, True),
        ({"TESTING": False, "JAM_HTTPS": False}, False),
        ({"TESTING": False, "JAM_HTTPS": None}, True),
    ],
)
def test_asvs_3_3_1_jam_https_decides_about_secure(new_app, jam, config, secure):
    app = new_app(**config)
    signing_in(app, jam)
    _, attributes = set_cookies(signed_in(app))["sid"]
    assert ("secure" in attributes) is secure


def test_asvs_3_3_1_secure_does_not_depend_on_how_this_one_request_came(new_app, jam):
    app = new_app(JAM_HTTPS=False)
    signing_in(app, jam)
    _, attributes = set_cookies(signed_in(app, base_url="https://localhost"))["sid"]
    assert "secure" not in attributes


def test_two_apps_of_one_jam_may_differ_in_https(new_app, jam):
    plain, tls = new_app(JAM_HTTPS=False), new_app(JAM_HTTPS=True)
    for app in (plain, tls):
        signing_in(app, jam)
    assert "secure" not in set_cookies(signed_in(plain))["sid"][1]
    assert "secure" in set_cookies(signed_in(tls))["sid"][1]


def test_asvs_3_3_2_the_cookie_is_lax(app, jam):
    signing_in(app, jam)
    assert "samesite=lax" in set_cookies(signed_in(app))["sid"][1]


def test_asvs_3_3_4_page_scripts_cannot_read_the_cookie_and_the_body_does_not_repeat_it(app, jam):
    signing_in(app, jam)
    response = signed_in(app)
    value, attributes = set_cookies(response)["sid"]
    assert "httponly" in attributes
    assert value not in response.text


def test_asvs_3_3_3_a_host_cookie_keeps_its_promises(new_app, jam):
    app = new_app(JAM_HTTPS=True)
    signing_in(app, jam, "__Host-sid")
    _, attributes = set_cookies(signed_in(app, base_url="https://localhost"))["__Host-sid"]
    assert {"secure", "path=/"} <= attributes
    assert not any(attribute.startswith("domain") for attribute in attributes)


@pytest.mark.parametrize("name", ["__Host-sid", "__Secure-sid", "__host-sid", "__SECURE-sid"])
@pytest.mark.parametrize("extension", [JWTExtension, SessionExtension])
def test_asvs_3_3_3_a_prefix_without_https_is_refused(new_app, jam, name, extension):
    app = new_app(JAM_HTTPS=False)
    extension(jam, app, cookie_name=name)
    with pytest.raises(ConfigError, match="JAM_HTTPS"):
        subject_in(app, {})


def test_names_that_the_app_gives_are_used_verbatim(app, jam):
    signing_in(app, jam, "My-Own.Name")
    assert list(set_cookies(signed_in(app))) == ["My-Own.Name"]


@pytest.mark.parametrize("name", ["two words", "semi;colon", "equals=sign", "new\nline", "comma,", "ünicode", 'quo"te'])
def test_a_name_that_no_cookie_can_have_is_refused(app, jam, name):
    with pytest.raises(ConfigError, match="cannot be the name"):
        SessionExtension(jam, app, cookie_name=name)


@pytest.mark.parametrize("name", ["two words", "new\nline", "co:lon", "ünicode"])
def test_a_name_that_no_header_can_have_is_refused(app, jam, name):
    with pytest.raises(ConfigError, match="cannot be the name"):
        JWTExtension(jam, app, header_name=name)


def test_a_secure_cookie_on_plain_http_logs_one_error_naming_jam_https(new_app, jam, caplog):
    app = new_app(JAM_HTTPS=True)
    signing_in(app, jam, "sid-by-http")
    for _ in range(3):
        signed_in(app)
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "JAM_HTTPS" in errors[0]
    assert "sid-by-http" in errors[0]


def test_a_secure_cookie_on_https_logs_nothing(new_app, jam, caplog):
    app = new_app(JAM_HTTPS=True)
    signing_in(app, jam, "sid-by-https")
    signed_in(app, base_url="https://localhost")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_asvs_14_3_2_signing_in_and_out_are_never_cached(app, jam):
    signing_in(app, jam)
    client = app.test_client()
    for path in ("/sign-in", "/sign-out"):
        assert client.post(path, headers=SAME_ORIGIN).headers["Cache-Control"] == "no-store"


# -- signing in and out -------------------------------------------------------------------------------------


def test_sign_in_makes_the_caller_somebody_in_the_same_request(site):
    assert site.test_client().post("/sign-in/alice", headers=SAME_ORIGIN).json == {"subject": "alice"}


def test_sign_in_gives_the_identity_what_it_was_told(app, jam):
    extension = SessionExtension(jam, app)
    with app.test_request_context():
        identity = extension.sign_in("alice", {"n": 1}, roles=["admin"], scopes=["a"], amr=["pwd"])
    assert (identity.subject, identity.method, identity.payload) == ("alice", "session", {"n": 1})
    assert (identity.roles, identity.scopes, identity.amr) == ({"admin"}, {"a"}, ("pwd",))
    assert identity.authenticated_at == jam.clock()


def test_the_browser_stays_signed_in(site):
    client = site.test_client()
    client.post("/sign-in/alice", headers=SAME_ORIGIN)
    assert client.get("/members").json == {"hello": "alice"}


def test_asvs_7_2_4_signing_in_again_gives_a_new_handle_and_ends_the_old_one(site, jam):
    client = site.test_client()
    client.post("/sign-in/alice", headers=SAME_ORIGIN)
    old = client.get_cookie("sessionId").value
    client.post("/sign-in/alice", headers=SAME_ORIGIN)
    new = client.get_cookie("sessionId").value
    assert new != old
    assert jam.get_session(old) is None
    assert jam.get_session(new) is not None


@pytest.mark.parametrize("planted", ["chosen-by-the-attacker", "A" * 24 + "." + "B" * 43])
def test_asvs_7_2_4_a_handle_that_the_server_did_not_make_is_not_adopted(site, jam, planted):
    response = raw_client(site).post("/sign-in/alice", headers={**SAME_ORIGIN, **cookies(("sessionId", planted))})
    assert set_cookies(response)["sessionId"][0] != planted
    assert jam.get_session(planted) is None


def test_asvs_7_2_4_signing_in_ends_the_session_that_was_recognized_whichever_of_several_cookies_held_it(site, jam):
    old = jam.create_session("alice")
    headers = {**SAME_ORIGIN, **cookies(("sessionId", "junk"), ("sessionId", old))}
    assert raw_client(site).post("/sign-in/alice", headers=headers).status_code == 200
    assert jam.get_session(old) is None


def test_asvs_7_4_1_a_signed_out_session_cannot_be_used_again(site, jam):
    client = site.test_client()
    client.post("/sign-in/alice", headers=SAME_ORIGIN)
    handle = client.get_cookie("sessionId").value
    assert client.post("/sign-out", headers=SAME_ORIGIN).json == {"subject": None}
    assert jam.get_session(handle) is None
    assert answer(raw_client(site).get("/members", headers=cookies(("sessionId", handle)))) == (401, "session_invalid")


def test_asvs_7_4_1_signing_out_ends_the_session_that_was_recognized_whichever_of_several_cookies_held_it(site, jam):
    handle = jam.create_session("alice")
    headers = {**SAME_ORIGIN, **cookies(("sessionId", "junk"), ("sessionId", handle))}
    assert raw_client(site).post("/sign-out", headers=headers).status_code == 200
    assert jam.get_session(handle) is None


def test_asvs_7_4_1_signing_out_right_after_signing_in_ends_the_new_session_too(app, jam):
    extension = SessionExtension(jam, app)

    @app.post("/")
    def changed_my_mind():
        extension.sign_in("alice")
        extension.sign_out()
        return {"subject": current_identity.subject}

    response = raw_client(app).post("/", headers=SAME_ORIGIN)
    assert response.json == {"subject": None}
    assert list(jam.sessions.list("alice")) == []


def test_signing_in_twice_in_one_request_leaves_one_session(app, jam):
    extension = SessionExtension(jam, app)

    @app.post("/")
    def twice():
        extension.sign_in("alice")
        extension.sign_in("alice")
        return ""

    response = raw_client(app).post("/", headers=SAME_ORIGIN)
    (session,) = jam.sessions.list("alice")
    last = response.headers.getlist("Set-Cookie")[-1].partition("=")[2].partition(";")[0]
    assert jam.sessions.get(last).id == session.id


def test_asvs_14_3_1_signing_out_removes_the_cookie_from_the_browser(site):
    client = site.test_client()
    client.post("/sign-in/alice", headers=SAME_ORIGIN)
    client.post("/sign-out", headers=SAME_ORIGIN)
    assert client.get_cookie("sessionId") is None


def test_signing_out_without_a_session_is_no_error(site):
    assert raw_client(site).post("/sign-out", headers=SAME_ORIGIN).status_code == 200


def test_signing_in_without_a_cookie_to_set_is_a_configuration_error(app, jam):
    extension = SessionExtension(jam, app, header_name="Authorization", cookie_name=None)
    with app.test_request_context(), pytest.raises(ConfigError, match="has no cookie"):
        extension.sign_in("alice")


@pytest.mark.parametrize("path", ["/sign-in/alice", "/sign-out"])
def test_asvs_3_5_1_another_site_can_sign_nobody_in_or_out(site, jam, path):
    handle = jam.create_session("alice")
    response = raw_client(site).post(path, headers={**CROSS_SITE, **cookies(("sessionId", handle))})
    assert answer(response) == (403, "csrf_failed")
    assert set_cookies(response) == {}
    assert len(jam.sessions.list("alice")) == 1


def test_asvs_7_4_5_a_sign_in_that_raced_a_revocation_fails(app, jam):
    extension = SessionExtension(jam, app)

    @app.post("/")
    def sign_in():
        generation = jam.sessions.generation("alice")
        jam.clear_sessions("alice")  # as a password change would, while the password is still being checked
        extension.sign_in("alice", generation=generation)
        return ""

    response = raw_client(app).post("/", headers=SAME_ORIGIN)
    assert answer(response) == (409, "generation_outdated")
    assert set_cookies(response) == {}


def test_asvs_7_2_2_every_sign_in_has_a_handle_of_its_own(site):
    handles = {
        set_cookies(raw_client(site).post("/sign-in/alice", headers=SAME_ORIGIN))["sessionId"][0] for _ in range(20)
    }
    assert len(handles) == 20


def test_an_app_without_jam_is_left_alone(app):
    app.get("/")(lambda: {"payload": g.get("payload", "none of Jam's business")})
    assert app.test_client().get("/").json == {"payload": "none of Jam's business"}


def test_a_guard_on_an_app_without_extension_is_an_error_and_not_a_pass(app):
    app.get("/")(checkpoint(Authenticated())(lambda: "in"))
    with pytest.raises(ConfigError, match="No extension"):
        app.test_client().get("/")


def test_deny_by_default_on_an_app_without_extension_is_an_error_and_not_a_pass(app):
    deny_by_default(app)
    app.get("/")(lambda: "in")
    with pytest.raises(ConfigError, match="No extension"):
        app.test_client().get("/")


def test_asvs_16_5_3_outside_testing_a_guard_without_extension_answers_500(new_app):
    app = new_app(TESTING=False)
    app.get("/")(checkpoint(Authenticated())(lambda: "in"))
    assert app.test_client().get("/").status_code == 500
