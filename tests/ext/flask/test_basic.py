"""HTTP Basic (RFC 7617): a name and a password in a header, where a view asks for them."""

import base64

import flask_restful
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jam.errors import BadCredentials, ConfigError
from jam.events import SignInFailed
from jam.ext.flask import SessionExtension, UserMixin, current_identity, current_user, login_required
from jam.ext.flask.basic import BasicExtension, basic_credentials
from tests.ext.flask.accounts.conftest import PASSWORD, basic, making_sites
from tests.ext.flask.callers import CROSS_SITE, answer, bearer, challenges


def encoded(data):
    return {"Authorization": "Basic " + base64.b64encode(data).decode()}


def whoami():
    return {"subject": current_identity.subject, "method": current_identity.method}


@pytest.fixture
def new_site(tmp_path, secret, clock):
    yield from making_sites(tmp_path, secret, clock)


@pytest.fixture
def site(new_site):
    site = new_site()
    site.app.add_url_rule("/basic", "basic", login_required(methods=("basic",))(whoami))
    site.app.add_url_rule("/either", "either", login_required(methods=("basic", "session", "api_token"))(whoami))
    site.app.add_url_rule("/anybody", "anybody", login_required(whoami))
    return site


def attempts(site):
    return [event.reason for event in site.heard if isinstance(event, SignInFailed)]


@pytest.fixture
def alice(site):
    return site.person("alice")


@pytest.fixture
def client(site):
    return site.client()


# -- where it counts ----------------------------------------------------------------------------------------


def test_a_name_and_a_password_are_taken_where_a_view_asks_for_them(client, alice):
    assert client.get("/basic", headers=basic("alice")).json == {"subject": "1", "method": "basic"}
    assert client.get("/either", headers=basic("ALICE@example.org")).json["subject"] == "1"


def test_they_are_taken_nowhere_else_and_cost_nothing_there(site, client, alice):
    for path in ("/anybody", "/auth/me", "/api/users"):
        refused = client.get(path, headers=basic("alice"))
        assert answer(refused) == (401, "authentication_required")
        assert not any(line.startswith("Basic") for line in challenges(refused))
    assert attempts(site) == []


def test_they_are_asked_for_where_they_are_taken(client):
    assert challenges(client.get("/basic")) == ['Basic realm="jam", charset="UTF-8"']
    assert 'Basic realm="jam", charset="UTF-8"' in challenges(client.get("/either"))


def test_beside_them_other_credentials_count_where_a_view_takes_either(site, client, alice):
    assert client.get("/either", headers=site.api_token(alice)).json["method"] == "api_token"
    assert site.browser(alice).get("/either").json["method"] == "session"
    assert answer(client.get("/either", headers=site.held(alice))) == (401, "authentication_required")


def test_who_is_wrong_is_told_so_by_the_same_challenge(client, alice):
    refused = client.get("/basic", headers=basic("alice", "wrong"))
    assert (answer(refused), challenges(refused)) == ((401, "bad_credentials"), ['Basic realm="jam", charset="UTF-8"'])


def test_the_password_is_checked_once_in_a_request(site, client, alice):
    client.get("/basic", headers=basic("alice", "wrong"))
    assert attempts(site) == ["wrong_password"]


def test_a_deactivated_person_is_refused_as_a_wrong_password_is(site, client, alice):
    wrong = client.get("/basic", headers=basic("alice", "wrong"))
    site.users.update(alice.subject, {"is_active": False})
    assert client.get("/basic", headers=basic("alice")).data == wrong.data


@pytest.mark.parametrize(
    "headers", [CROSS_SITE, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"}]
)
def test_asvs_3_5_1_another_site_does_nothing_by_the_password_that_a_browser_remembers(site, client, alice, headers):
    refused = client.post("/api/tokens", headers={**basic("alice"), **headers})
    assert answer(refused) == (403, "csrf_failed")
    assert site.jam.api_tokens.list(alice.subject) == []
    assert attempts(site) == []


@pytest.mark.parametrize("headers", [{}, {"Sec-Fetch-Site": "same-origin"}, {"Origin": "http://localhost"}])
def test_scripts_and_the_sites_own_pages_do(client, alice, headers):
    assert client.post("/api/tokens", headers={**basic("alice"), **headers}).status_code == 200


# -- what comes in the header -------------------------------------------------------------------------------


def test_a_password_may_hold_colons_and_letters_of_any_script(site, client):
    password = "пароль: длинный: 密码 ✓"
    account = site.users.create(username="ivan", email=None, password_hash=site.accounts.passwords.hash(password))
    assert client.get("/basic", headers=encoded(f"ivan:{password}".encode())).json["subject"] == account.subject


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
def test_the_scheme_is_written_in_any_case(client, alice, scheme):
    value = basic("alice")["Authorization"].removeprefix("Basic ")
    assert client.get("/basic", headers={"Authorization": f"{scheme} {value}"}).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic YWxpY2U",
        "Basic YWxpY2U=",
        "Basic " + base64.b64encode(b"alice").decode(),
        "Basic " + base64.b64encode(b"alice:\xff\xfe").decode(),
        "Basic " + base64.b64encode(b"alice:a\x00b").decode(),
        "Basic " + base64.b64encode(b"alice\n:ab").decode(),
        "Basic " + base64.b64encode("alice:a\x85b".encode()).decode(),
        "Basic " + base64.b64encode(b":").decode(),
        "Basic " + base64.b64encode(b"alice:").decode(),
        "Basic " + base64.b64encode(b":" + PASSWORD.encode()).decode(),
        "Basic " + base64.b64encode(b"alice:" + b"x" * 7000).decode(),
        "Basic " + base64.urlsafe_b64encode("alice:ÿÿÿ??>".encode()).decode(),
        "Basic alice:" + PASSWORD,
        "Bearer " + base64.b64encode(f"alice:{PASSWORD}".encode()).decode(),
        "Digest username=alice",
    ],
)
def test_what_is_not_well_formed_is_a_401(client, alice, header):
    response = client.get("/basic", headers={"Authorization": header})
    assert response.status_code == 401
    assert response.json["code"] in {"bad_credentials", "authentication_required"}


@pytest.mark.parametrize(
    "value",
    [
        base64.b64encode(b"alice:a\x00b").decode(),
        base64.b64encode(b"alice\r\n:ab").decode(),
        base64.b64encode("alice:a\x85b".encode()).decode(),
        base64.b64encode(b"alice:\xff").decode(),
        base64.b64encode(b"alice").decode(),
        base64.b64encode(b"alice:" + b"x" * 6200).decode(),
        base64.b64encode(b"alice:cats").decode().rstrip("="),
        "YWxpY2U6Y2F0!",
        "YWxp Y2U6Y2F0",
        "YWxpY2U6Y2F0\n",
        "",
        "é",
    ],
)
def test_what_is_not_well_formed_is_nobodys(value):
    with pytest.raises(BadCredentials):
        basic_credentials(value)


@given(st.text(max_size=60))
def test_no_header_is_more_than_a_bad_credential(value):
    try:
        name, password = basic_credentials(value)
    except BadCredentials:
        return
    assert base64.b64decode(value).decode() == f"{name}:{password}"


def test_what_is_well_formed_is_a_name_and_a_password():
    assert basic_credentials("YWxpY2U6Y2F0") == ("alice", "cat")
    assert basic_credentials(base64.b64encode(b":").decode()) == ("", "")


@given(st.text(max_size=20).filter(lambda t: ":" not in t), st.text(max_size=20))
def test_what_is_well_formed_comes_out_as_it_went_in(name, password):
    value = base64.b64encode(f"{name}:{password}".encode(errors="surrogatepass")).decode()
    try:
        assert basic_credentials(value) == (name, password)
    except BadCredentials:
        assert any(ord(one) < 32 or 127 <= ord(one) < 160 or 0xD800 <= ord(one) < 0xE000 for one in name + password)


def test_an_error_and_a_repr_hold_no_password(client, alice):
    with pytest.raises(BadCredentials) as caught:
        basic_credentials(base64.b64encode(b"secret-without-colon").decode())
    assert "secret" not in repr(caught.value) + str(caught.value)
    assert caught.value.__cause__ is None


# -- an app's own function ----------------------------------------------------------------------------------


class Person(UserMixin):
    def __init__(self, name):
        self.id = name


def own_app(app, jam, function):
    BasicExtension(jam, app).verify_password(function)
    app.add_url_rule("/basic", "basic", login_required(methods=("basic",))(whoami))
    return app.test_client()


@pytest.mark.parametrize("answered", [Person("alice"), "alice", True], ids=["a user", "a subject", "True"])
def test_an_apps_own_function_says_whose_the_password_is(app, jam, answered):
    client = own_app(app, jam, lambda name, password: answered if (name, password) == ("alice", "cat") else None)
    assert client.get("/basic", headers=basic("alice", "cat")).json["subject"] == "alice"
    assert answer(client.get("/basic", headers=basic("alice", "dog"))) == (401, "bad_credentials")


def test_an_apps_own_function_may_be_async_and_may_say_false(app, jam):
    async def check(name, password):
        return name if password == "cat" else False

    client = own_app(app, jam, check)
    assert client.get("/basic", headers=basic("alice", "cat")).json["subject"] == "alice"
    assert client.get("/basic", headers=basic("alice", "dog")).status_code == 401


def test_an_apps_own_function_is_not_asked_about_nothing(app, jam):
    client = own_app(app, jam, lambda name, password: True)
    for name, password in (("", "cat"), ("alice", ""), ("", "")):
        assert answer(client.get("/basic", headers=basic(name, password))) == (401, "bad_credentials")


def test_who_did_not_say_whom_to_ask_is_told(app, jam):
    BasicExtension(jam, app)
    app.add_url_rule("/basic", "basic", login_required(methods=("basic",))(whoami))
    with pytest.raises(ConfigError, match="whom to ask"):
        app.test_client().get("/basic", headers=basic("alice"))


def test_a_view_that_asks_for_basic_in_an_app_without_it_is_a_mistake(app, jam):
    SessionExtension(jam, app)
    app.add_url_rule("/basic", "basic", login_required(methods=("basic",))(whoami))
    with pytest.raises(ConfigError, match="basic"):
        app.test_client().get("/basic", headers=basic("alice"))


# -- an API library -----------------------------------------------------------------------------------------


class Greeting(flask_restful.Resource):
    method_decorators = (login_required(methods=("basic",)),)

    def get(self):
        return {"hello": current_user.username}


def test_flask_restful_makes_its_own_answers_of_401_and_429(new_site):
    site = new_site(config={"JAM_THROTTLING_ATTEMPTS": 2})
    flask_restful.Api(site.app).add_resource(Greeting, "/hello")
    site.person("alice")
    client = site.client()
    assert client.get("/hello", headers=basic("alice")).json == {"hello": "alice"}
    for _ in range(2):
        refused = client.get("/hello", headers=basic("alice", "wrong"))
        assert answer(refused) == (401, "bad_credentials")
        assert any(line.startswith("Basic") for line in challenges(refused))
    throttled = client.get("/hello", headers=basic("alice"))
    assert answer(throttled) == (429, "too_many_attempts")
    assert int(throttled.headers["Retry-After"]) > 0


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=40))
def test_no_header_makes_a_view_fail(app, jam, data):
    if "basic" not in app.view_functions:
        own_app(app, jam, lambda name, password: None)
    assert app.test_client().get("/basic", headers=encoded(data)).status_code == 401


def test_a_bearer_token_is_no_password(site, client, alice):
    token = site.jam.api_tokens.create(alice.subject, "a script")
    assert answer(client.get("/basic", headers=basic(token, ""))) == (401, "bad_credentials")
    assert answer(client.get("/basic", headers=basic("alice", token))) == (401, "bad_credentials")
    assert answer(client.get("/basic", headers=bearer(token))) == (401, "authentication_required")
