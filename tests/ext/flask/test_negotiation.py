"""How a refusal looks: JSON, problem+json or a page; its headers; and what is in no answer and no log."""

import json
import logging

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.routing import BaseConverter

from jam import Jam
from jam.checkpoints import Checkpoint
from jam.errors import AccessDenied, JamError
from jam.ext.flask import (
    APIKeyCheckpoint,
    Authenticated,
    BearerCheckpoint,
    Fresh,
    HasRole,
    HasScope,
    JWTExtension,
    SessionExtension,
    checkpoint,
    current_identity,
)
from tests.ext.flask.callers import (
    PAGE,
    SAME_ORIGIN,
    UNREACHABLE,
    answer,
    bearer,
    called,
    challenges,
    cookies,
    raw_client,
    vary,
)

JSON, PROBLEM, HTML = "application/json", "application/problem+json", "text/html"


class Refused(Checkpoint):
    """Refuses everybody with the error it is given."""

    def __init__(self, error):
        self.error = error

    def refusal(self, identity, now):
        return self.error

    def __repr__(self):
        return "Refused()"


class Anything(BaseConverter):
    """Also line breaks, which Flask's own converters keep out."""

    regex = r"[\s\S]+"
    part_isolating = False


@pytest.fixture
def app(app, jam):
    JWTExtension(jam, app)

    for path, demand in {
        "/": Authenticated(),
        "/role": HasRole("admin"),
        "/scope": HasScope("posts:write", "posts:read"),
        "/fresh": Fresh(600),
        "/key": APIKeyCheckpoint("k"),
        "/bearer": BearerCheckpoint("t"),
    }.items():
        app.route(path, endpoint=path.replace("/", "at-"), methods=["GET", "POST"])(checkpoint(demand)(lambda: "in"))
    return app


@pytest.fixture
def ask(app):
    def send(path="/", headers=None, **options):
        return raw_client(app).get(path, headers=headers, **options)

    return send


# -- the form -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        (JSON, JSON),
        (HTML, HTML),
        (PROBLEM, PROBLEM),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8", HTML),
        ("application/json, text/plain, */*", JSON),
        ("application/json, text/html", JSON),
        ("text/html, application/json", JSON),
        ("text/html;q=0.9, application/json;q=0.9", JSON),
        ("text/html, application/json;q=0.9", HTML),
        ("text/html;q=0.9, application/json", JSON),
        ("application/problem+json, application/json", JSON),
        ("application/problem+json, application/json;q=0.9", PROBLEM),
        ("application/problem+json;q=0.9, application/json", JSON),
        ("application/problem+json, text/html", PROBLEM),
        ("application/problem+json;q=0.5, text/html", HTML),
        ("application/problem+json;q=0.5, text/html;q=0.1", PROBLEM),
        ("application/*", JSON),
        ("application/*;q=0.5, text/html;q=0.4", JSON),
        ("text/*", HTML),
        ("text/*, application/json;q=0.5", HTML),
        ("*/*, text/html", JSON),
        ("*/*;q=0.1, text/html;q=0.2", HTML),
        ("text/html;q=0", JSON),
        ("application/json;q=0, text/html;q=0", JSON),
        ("application/json;q=0, text/html", HTML),
        ("application/json;q=0, application/problem+json;q=0.1", PROBLEM),
        ("text/plain", JSON),
        ("image/png", JSON),
        ("APPLICATION/PROBLEM+JSON", PROBLEM),
        ("Text/Html", HTML),
        ("nonsense", JSON),
        (";;;,,,", JSON),
        ("text/html;q=nan", JSON),
        ("text/html;q=-1", JSON),
    ],
)
def test_accept_chooses_the_form_and_ties_go_to_json(ask, accept, expected):
    response = ask(headers={} if accept is None else {"Accept": accept})
    assert response.status_code == 401
    assert response.mimetype == expected


@pytest.mark.parametrize(
    ("accept", "content_type"), [(JSON, JSON), (PROBLEM, PROBLEM), (HTML, "text/html; charset=utf-8")]
)
def test_asvs_4_1_1_the_body_is_declared_as_what_it_is(ask, accept, content_type):
    response = ask(headers={"Accept": accept})
    assert response.headers["Content-Type"] == content_type
    assert int(response.headers["Content-Length"]) == len(response.data)
    response.data.decode("utf-8")


def test_json_has_the_words_of_the_seeds_and_a_code(ask):
    assert ask().json == {
        "error": "Unauthorized",
        "message": "Authentication is required.",
        "code": "authentication_required",
    }


@pytest.mark.parametrize(("path", "status", "title"), [("/", 401, "Unauthorized"), ("/role", 403, "Forbidden")])
def test_rfc9457_problem_details(ask, token, path, status, title):
    headers = {"Accept": PROBLEM, **(bearer(token) if status == 403 else {})}
    response = ask(path, headers)
    problem = json.loads(response.data)
    assert response.status_code == problem["status"] == status
    assert (problem["type"], problem["title"]) == ("about:blank", title)
    assert problem["detail"]
    assert problem["code"]
    assert set(problem) == {"type", "title", "status", "detail", "code"}


def test_rfc9457_the_status_in_the_body_is_that_of_the_response_even_if_the_app_chose_it(app, ask):
    app.get("/hidden")(checkpoint(APIKeyCheckpoint("k").action(fail_status=404))(lambda: "in"))
    response = ask("/hidden", {"Accept": PROBLEM})
    assert response.status_code == json.loads(response.data)["status"] == 404


def test_the_page_says_what_happened(ask):
    page = ask(headers=PAGE).text
    assert page.startswith("<!doctype html>")
    assert "401 Unauthorized" in page
    assert "Authentication is required." in page
    assert "authentication_required" in page


def test_asvs_16_5_1_the_page_is_escaped(app, ask):
    hostile = "<script>alert(1)</script>&\"'"
    app.get("/hostile")(checkpoint(Refused(AccessDenied(hostile, code="<b>")))(lambda: "in"))
    app.get("/hostile-error", endpoint="x")(lambda: (_ for _ in ()).throw(JamError(hostile)))
    headers = {**PAGE, **bearer(app.extensions["jam"].access_tokens.issue("alice"))}
    for path in ("/hostile", "/hostile-error"):
        page = ask(path, headers).text
        assert "<script>" not in page
        assert "<b>" not in page
        assert "&lt;script&gt;" in page


def test_a_head_request_gets_the_headers_and_no_body(app):
    response = raw_client(app).head("/")
    assert (response.status_code, response.data) == (401, b"")
    assert challenges(response)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    accept=st.text(st.characters(max_codepoint=255), max_size=100)
    | st.lists(
        st.sampled_from([JSON, PROBLEM, HTML, "*/*", "text/*", ";q=", "0.5", "1e9", ",", " ", '"', ";", "\x00"])
    ).map("".join)
)
def test_asvs_16_5_1_no_accept_header_is_an_internal_error(app, accept):
    assert called(app, HTTP_ACCEPT=accept)[0] == 401


# -- headers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", [JSON, PROBLEM, HTML])
@pytest.mark.parametrize("path", ["/", "/role", "/key", "/bearer", "/fresh"])
def test_asvs_14_3_2_a_refusal_is_never_cached(ask, accept, path):
    response = ask(path, {"Accept": accept})
    assert response.headers["Cache-Control"] == "no-store"
    assert vary(response) >= {"accept", "authorization", "cookie"}


@pytest.mark.parametrize("handled", [False, True], ids=["Jam answers", "the app's handler answers"])
def test_asvs_14_3_2_headers_do_not_depend_on_who_answers(app, ask, handled):
    if handled:
        app.register_error_handler(401, lambda error: error)
    response = ask()
    assert response.headers["Cache-Control"] == "no-store"
    assert vary(response) >= {"accept", "authorization", "cookie"}
    assert challenges(response) == ['Bearer realm="jam"']


def test_asvs_3_4_2_no_answer_opens_itself_to_other_origins(ask, token):
    for headers in ({}, bearer(token), {"Origin": "https://evil.example"}):
        assert not any(name.lower().startswith("access-control") for name, _ in ask(headers=headers).headers)


# -- challenges ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", [JSON, PROBLEM, HTML])
def test_rfc9110_11_6_1_every_401_carries_a_challenge(ask, accept):
    for path in ("/", "/role", "/scope", "/fresh", "/key", "/bearer"):
        for headers in ({}, bearer("junk")):
            response = ask(path, {"Accept": accept, **headers})
            assert response.status_code == 401
            assert challenges(response)


def test_rfc6750_3_1_no_error_code_when_nothing_was_presented(ask):
    assert challenges(ask()) == ['Bearer realm="jam"']
    assert challenges(ask("/role")) == ['Bearer realm="jam"']


def test_rfc6750_3_1_another_scheme_is_nothing_presented(ask):
    assert challenges(ask(headers={"Authorization": "Basic YTpi"})) == ['Bearer realm="jam"']


def test_rfc6750_3_1_a_token_that_does_not_count_is_invalid_token(ask):
    assert challenges(ask(headers=bearer("junk"))) == [
        'Bearer realm="jam", error="invalid_token", error_description="The token is not valid."'
    ]


def test_rfc6750_3_1_an_expired_or_revoked_token_is_invalid_token_with_the_reason(ask, jam, clock):
    revoked = jam.access_tokens.issue("alice")
    jam.access_tokens.revoke(revoked)
    expired = jam.access_tokens.issue("alice", lifetime=1)
    clock.move(2)
    for token, word in ((revoked, "revoked"), (expired, "expired")):
        (challenge,) = challenges(ask(headers=bearer(token)))
        assert 'error="invalid_token"' in challenge
        assert word in challenge


def test_rfc6750_3_1_a_missing_scope_is_403_insufficient_scope_and_names_it(ask, token):
    response = ask("/scope", bearer(token))
    assert answer(response) == (403, "insufficient_scope")
    assert challenges(response) == ['Bearer realm="jam", error="insufficient_scope", scope="posts:read posts:write"']


def test_rfc6750_3_1_a_missing_role_is_403_without_a_challenge(ask, token):
    response = ask("/role", bearer(token))
    assert response.status_code == 403
    assert challenges(response) == []


def test_rfc9470_3_a_stale_sign_in_is_told_how_fresh_it_must_be(ask, jam, clock):
    stale = jam.access_tokens.issue("alice", authenticated_at=clock.now - 700)
    for token in (stale, jam.access_tokens.issue("alice")):
        response = ask("/fresh", bearer(token))
        assert answer(response) == (401, "insufficient_user_authentication")
        (challenge,) = challenges(response)
        assert 'error="insufficient_user_authentication"' in challenge
        assert "max_age=600" in challenge.replace('"600"', "600")


def test_rfc9470_3_nobody_is_not_told_to_be_fresh(ask):
    response = ask("/fresh")
    assert answer(response) == (401, "authentication_required")
    assert challenges(response) == ['Bearer realm="jam"']


def test_challenges_name_the_credentials_of_this_app(new_app, jam):
    app = new_app()
    SessionExtension(jam, app, cookie_name="sid")
    app.get("/")(checkpoint(Authenticated())(lambda: "in"))
    assert challenges(raw_client(app).get("/")) == ['Cookie realm="jam", cookie-name="sid"']


def test_no_challenge_ever_asks_for_basic(ask):
    """A browser would open its own dialog for it."""
    for path in ("/", "/role", "/key", "/bearer", "/fresh"):
        assert not any("basic" in challenge.lower() for challenge in challenges(ask(path, PAGE)))


def test_rfc9110_5_6_4_the_realm_is_quoted(new_app, secret):
    app = new_app()
    JWTExtension(Jam({"secret": secret, "name": 'the "shop" \\ é\r\nX-Evil: 1'}), app)
    app.get("/")(checkpoint(Authenticated())(lambda: "in"))
    response = raw_client(app).get("/")
    assert challenges(response) == ['Bearer realm="the \\"shop\\" \\\\ ???X-Evil: 1"']
    assert "X-Evil" not in response.headers


def test_rfc6750_3_the_challenge_can_be_read_by_a_standard_parser(ask):
    (challenge,) = challenges(ask(headers=bearer("junk")))
    parsed = WWWAuthenticate.from_header(challenge)
    assert parsed.type == "bearer"
    assert parsed.parameters == {
        "realm": "jam",
        "error": "invalid_token",
        "error_description": "The token is not valid.",
    }


# -- what is nowhere ----------------------------------------------------------------------------------------


@pytest.fixture
def everything(new_app, secret, clock, caplog):
    """An app that answers every kind of refusal, all of its log kept."""
    caplog.set_level(logging.DEBUG)
    app = new_app(JAM_HTTPS=False)
    jam = Jam({"secret": secret}, clock=clock)
    app.jam = jam
    JWTExtension(jam, app, cookie_name="jwt")
    app.sessions = SessionExtension(jam, app)
    for number, demand in enumerate([
        Authenticated(), HasRole("admin"), HasScope("a"), Fresh(60), APIKeyCheckpoint("api-key-s3cret"),
        BearerCheckpoint("bearer-s3cret"),
        APIKeyCheckpoint("query-s3cret", type_="query_param", header_or_param="key"),
    ]):  # fmt: skip
        app.route(f"/{number}", endpoint=str(number), methods=["GET", "POST"])(checkpoint(demand)(lambda: "in"))
    app.post("/sign-in", endpoint="in")(lambda: {"who": app.sessions.sign_in("alice", {"pin": "data-s3cret"}).subject})
    app.post("/sign-out", endpoint="out")(lambda: app.sessions.sign_out() or {"who": current_identity.subject})
    return app


def test_asvs_16_2_5_no_secret_is_in_any_answer_or_log(everything, secret, caplog):
    jam = everything.jam
    token, handle = jam.access_tokens.issue("alice", claims={"pin": "claim-s3cret"}), jam.create_session("bob")
    dead = jam.access_tokens.issue("carol")
    jam.access_tokens.revoke(dead)
    attempts = [
        {}, bearer(token), bearer(token + "x"), bearer(dead), bearer(handle), bearer("guess-s3cret"),
        cookies(("sessionId", handle)), cookies(("sessionId", handle + "x")), cookies(("jwt", token)),
        {"X-API-Key": "guess-s3cret"}, {**cookies(("sessionId", handle)), "Origin": "https://evil.example"},
    ]  # fmt: skip
    said = []
    for path in range(7):
        for headers in attempts:
            for form in (JSON, PROBLEM, HTML):
                for method in ("GET", "POST"):
                    response = raw_client(everything).open(
                        f"/{path}?key=guess-s3cret", method=method, headers={**headers, "Accept": form}
                    )
                    said += [response.text, str(response.headers)]
    client = everything.test_client()
    signed_in = client.post("/sign-in", headers=SAME_ORIGIN)
    made = client.get_cookie("sessionId").value
    said += [signed_in.text, client.post("/sign-out", headers=SAME_ORIGIN).text]
    everywhere = "\n".join([*said, caplog.text])
    for hidden in (secret, token, dead, handle, made, handle.partition(".")[2], "s3cret"):
        assert hidden not in everywhere
    assert len(said) > 900


def test_asvs_16_5_1_a_store_failure_shows_no_internals(new_app, secret):
    app = new_app(JAM_STORE=UNREACHABLE)
    JWTExtension(Jam(), app)
    app.get("/")(checkpoint(Authenticated())(lambda: "in"))
    token = Jam({"secret": secret}).access_tokens.issue("alice")
    for form in (JSON, PROBLEM, HTML):
        response = raw_client(app).get("/", headers={**bearer(token), "Accept": form})
        assert response.status_code == 503
        for internal in ("sqlite", "/dev/null", "Traceback", "Error:"):
            assert internal not in response.text


def test_asvs_16_4_1_line_breaks_in_a_path_do_not_forge_a_log_line(app, caplog):
    caplog.set_level(logging.INFO, "jam.flask")
    app.url_map.converters["anything"] = Anything
    app.get("/<anything:rest>")(checkpoint(Authenticated())(lambda rest: "in"))
    for hostile in ("a\r\nINFO jam.flask Refused nobody", "a\nb", "a\x1b[2Jb", "a\u2028b", "a\x85b"):
        called(app, PATH_INFO="/" + hostile.encode().decode("latin-1"))
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 5
    for message in messages:
        assert len(message.splitlines()) == 1
        assert message.isprintable()


def test_asvs_16_4_1_line_breaks_in_a_subject_do_not_forge_a_log_line(app, jam, caplog):
    caplog.set_level(logging.INFO, "jam.flask")
    token = jam.access_tokens.issue("alice\r\nINFO root may pass")
    raw_client(app).get("/role", headers=bearer(token))
    (message,) = [record.getMessage() for record in caplog.records]
    assert len(message.splitlines()) == 1


def test_asvs_16_3_2_a_refusal_is_logged_whoever_answers_it(app, caplog):
    caplog.set_level(logging.INFO, "jam.flask")
    app.register_error_handler(401, lambda error: ("mine", 401))
    raw_client(app).get("/")
    assert [record.getMessage() for record in caplog.records if "authentication_required" in record.getMessage()]


def test_hints_are_for_developers_and_reach_no_client(ask, jam, clock):
    expired = jam.access_tokens.issue("alice", lifetime=1)
    clock.move(2)
    for form in (JSON, PROBLEM, HTML):
        assert "refresh token" not in ask(headers={**bearer(expired), "Accept": form}).text
