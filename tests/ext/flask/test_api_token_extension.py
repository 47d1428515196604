"""API tokens beside access tokens, in the same header or another."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jam.errors import ConfigError
from jam.ext.flask import JWTExtension, SessionExtension, current_identity, jwt_required, login_required
from jam.ext.flask.api_token_extension import APITokenExtension
from tests.ext.flask.callers import answer, bearer, challenges, cookies


def whoami():
    return {
        "subject": current_identity.subject,
        "method": current_identity.method,
        "scopes": sorted(current_identity.scopes),
    }


def with_views(app):
    app.add_url_rule("/anybody", "anybody", login_required(whoami), methods=["GET", "POST"])
    app.add_url_rule("/scripts", "scripts", login_required(methods=("api_token",))(whoami))
    app.add_url_rule("/people", "people", login_required(methods=("session", "jwt"))(whoami))
    return app


@pytest.fixture(params=["tokens first", "API tokens first"])
def site(request, app, jam):
    extensions = [JWTExtension, APITokenExtension]
    for extension in extensions if request.param == "tokens first" else reversed(extensions):
        extension(jam, app)
    SessionExtension(jam, app)
    return with_views(app)


@pytest.fixture
def client(site):
    return site.test_client(use_cookies=False)


@pytest.fixture
def script(jam):
    return jam.api_tokens.create("alice", "a script", scopes=["read"])


def test_an_api_token_proves_whose_it_is_and_what_it_may(client, script):
    for path in ("/anybody", "/scripts"):
        assert client.get(path, headers=bearer(script)).json == {
            "subject": "alice",
            "method": "api_token",
            "scopes": ["read"],
        }


def test_an_access_token_in_the_same_header_is_still_one(client, token):
    assert client.get("/anybody", headers=bearer(token)).json["method"] == "jwt"
    assert answer(client.get("/scripts", headers=bearer(token))) == (401, "authentication_required")


def test_where_people_are_asked_for_an_api_token_is_none(client, script):
    assert client.get("/people", headers=bearer(script)).status_code == 401


def test_the_scheme_is_written_in_any_case(client, script):
    for scheme in ("bearer", "BEARER"):
        assert client.get("/anybody", headers={"Authorization": f"{scheme} {script}"}).status_code == 200


def test_a_revoked_token_is_refused_at_the_next_request_as_what_it_is(client, jam, script):
    jam.api_tokens.revoke(script)
    refused = client.get("/anybody", headers=bearer(script))
    assert answer(refused) == (401, "api_token_invalid")
    assert any('error="invalid_token"' in line for line in challenges(refused))


def test_a_token_that_has_reached_its_end_is_refused(client, jam, clock):
    script = jam.api_tokens.create("alice", "a script", lifetime=60)
    clock.move(61)
    assert answer(client.get("/anybody", headers=bearer(script))) == (401, "api_token_invalid")


def test_a_mistyped_token_is_refused(client, script):
    for wrong in (script[:-1], script + "0", script.swapcase(), script.replace("jam_", "jam_0"), "jam_", "jam_x_y"):
        assert client.get("/anybody", headers=bearer(wrong)).status_code == 401


def test_asvs_3_5_1_an_api_token_needs_no_proof_of_where_a_request_comes_from(client, script):
    headers = {**bearer(script), "Sec-Fetch-Site": "cross-site", "Origin": "https://other.example"}
    assert client.post("/anybody", headers=headers).status_code == 200


def test_an_api_token_counts_in_no_cookie_and_no_query(client, script):
    for name in ("sessionId", "access_token_cookie", "token"):
        assert client.get("/anybody", headers=cookies((name, script))).status_code == 401
    for name in ("jwt", "token", "access_token"):
        assert client.get(f"/anybody?{name}={script}").status_code == 401


def test_it_may_have_a_header_of_its_own(app, jam, script, token):
    JWTExtension(jam, app)
    APITokenExtension(jam, app, header_name="X-API-Token")
    client = with_views(app).test_client()
    assert client.get("/anybody", headers={"X-API-Token": f"Bearer {script}"}).json["method"] == "api_token"
    assert client.get("/anybody", headers={"X-API-Token": script}).status_code == 401
    assert client.get("/anybody", headers={"X-API-Token": f"Bearer {token}"}).status_code == 401
    assert answer(client.get("/anybody", headers=bearer(script)))[0] == 401


def test_a_view_that_demands_an_access_token_takes_no_api_token(app, jam, script):
    JWTExtension(jam, app)
    APITokenExtension(jam, app)
    app.add_url_rule("/jwt", "jwt", jwt_required()(whoami))
    assert app.test_client().get("/jwt", headers=bearer(script)).status_code == 401


def test_what_depends_on_the_token_says_so(client, script):
    response = client.get("/anybody", headers=bearer(script))
    assert "Authorization" in response.headers["Vary"]
    assert "private" in response.headers["Cache-Control"]


def test_a_header_that_is_none_is_a_mistake(jam):
    for name in ("", "X Token", "X-Token:", "é"):
        with pytest.raises(ConfigError):
            APITokenExtension(jam, header_name=name)


def test_one_extension_serves_many_apps(new_app, jam, script):
    extension = APITokenExtension(jam)
    for app in (new_app(), new_app()):
        extension.init_app(app)
        assert with_views(app).test_client().get("/scripts", headers=bearer(script)).status_code == 200


def test_the_app_is_asked_whose_token_it_is(app, jam, script):
    people = {"alice": object()}
    APITokenExtension(jam, app).user_loader(people.get)
    client = with_views(app).test_client()
    assert client.get("/scripts", headers=bearer(script)).status_code == 200
    people.clear()
    assert answer(client.get("/scripts", headers=bearer(script))) == (401, "user_unknown")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rest=st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=255), max_size=120))
def test_no_header_makes_a_view_fail(client, rest):
    assert client.get("/anybody", headers={"Authorization": f"Bearer jam_{rest}"}).status_code == 401
