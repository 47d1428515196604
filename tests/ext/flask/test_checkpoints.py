"""Checkpoints that look at Flask's request, and their own answers (``.action``)."""

import asyncio

import pytest
from flask import Blueprint, flash, get_flashed_messages, make_response, session

from jam.errors import ConfigError
from jam.ext.flask import (
    APIKeyCheckpoint,
    Authenticated,
    BearerCheckpoint,
    Claim,
    HasRole,
    HasScope,
    JWTExtension,
    Method,
    SameOrigin,
    SessionCheckpoint,
    SessionExtension,
    checkpoint,
    lazy_url_for,
)
from tests.ext.flask.callers import CROSS_SITE, SAME_ORIGIN, answer, bearer, called, challenges, cookies, raw_client

LOGGED_IN = SessionCheckpoint("logged_in", True)


@pytest.fixture
def app(app, jam):
    JWTExtension(jam, app)
    SessionExtension(jam, app)

    @app.get("/login")
    def login_page():
        return {"flashed": get_flashed_messages(with_categories=True)}

    @app.get("/home")
    def home():
        return {"flashed": get_flashed_messages(with_categories=True)}

    return app


@pytest.fixture
def client(app):
    return app.test_client()


def put(client, **values):
    with client.session_transaction() as stored:
        stored.update(values)


def guard(app, *demands, methods=("GET",)):
    """Puts ``/`` behind the demands; gives the list of who saw the view."""
    seen = []

    @app.route("/", methods=methods)
    @checkpoint(*demands)
    def view():
        seen.append("seen")
        return "in"

    return seen


# -- SessionCheckpoint --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "stored", "passes"),
    [
        (True, True, True),
        (True, 1, False),
        (1, True, False),
        (1, 1, True),
        (0, False, False),
        (False, False, True),
        (True, "True", False),
        ("1", 1, False),
        (1, 1.0, False),
        ("admin", "admin", True),
        ("admin", "Admin", False),
        ("admin", "administrator", False),
        (["admin", "editor"], "editor", True),
        (["admin", "editor"], "guest", False),
        (["admin", 1, True], 1, True),
        ([1, 2], True, False),
        ("admin", ["admin"], False),
        ("admin", None, False),
        ("", "", True),
        ("", None, False),
    ],
)
def test_asvs_15_3_5_the_stored_value_must_be_one_of_those_allowed_type_included(app, client, allowed, stored, passes):
    guard(app, SessionCheckpoint("key", allowed))
    put(client, key=stored)
    assert client.get("/").status_code == (200 if passes else 401)


@pytest.mark.parametrize("sequence", [["a", "b"], ("a", "b"), {"a", "b"}, frozenset(["a", "b"])])
def test_values_allowed_may_be_any_collection(app, client, sequence):
    guard(app, SessionCheckpoint("key", sequence))
    put(client, key="b")
    assert client.get("/").text == "in"


def test_without_the_key_nobody_passes(app, client):
    seen = guard(app, LOGGED_IN)
    assert answer(client.get("/")) == (401, "authentication_required")
    put(client, other=True)
    assert client.get("/").status_code == 401
    assert seen == []


def test_somebody_whom_the_session_does_not_allow_is_403(app, client, token):
    guard(app, LOGGED_IN)
    assert answer(client.get("/", headers=bearer(token))) == (403, "claim_required")


def test_a_session_checkpoint_is_found_by_its_arguments_names(app, client):
    guard(app, SessionCheckpoint(session_key="user_type", values_allowed="admin"))
    put(client, user_type="admin")
    assert client.get("/").text == "in"


def test_a_forged_flask_session_is_no_session(app, client):
    guard(app, LOGGED_IN)
    client.set_cookie("session", "eyJsb2dnZWRfaW4iOnRydWV9.aaaaaa.bbbbbbbbbbbbbbbbbbbbbbbbbbb")
    assert client.get("/").status_code == 401


@pytest.mark.parametrize("arguments", [("", True), (None, True), (1, True), ("key", [])])
def test_a_session_checkpoint_that_could_never_pass_is_refused(arguments):
    with pytest.raises(ConfigError):
        SessionCheckpoint(*arguments)


def test_the_session_is_not_written_by_being_looked_at(app, client):
    guard(app, LOGGED_IN)
    put(client, logged_in=True)
    assert "Set-Cookie" not in client.get("/").headers


# -- APIKeyCheckpoint ---------------------------------------------------------------------------------------


def test_an_api_key_in_the_header(app, client):
    guard(app, APIKeyCheckpoint("s3cret"))
    assert client.get("/", headers={"X-API-Key": "s3cret"}).text == "in"
    assert client.get("/", headers={"x-api-key": "s3cret"}).text == "in"


@pytest.mark.parametrize(
    "wrong", ["", "S3CRET", "s3cre", "s3cret ", "s3cretx", "s3cret,s3cret", "é", "\x00", "s3cret\x00"]
)
def test_a_wrong_api_key_is_401(app, wrong):
    guard(app, APIKeyCheckpoint("s3cret"))
    assert called(app, HTTP_X_API_KEY=wrong)[0] == 401


def test_no_api_key_is_401(app, client):
    guard(app, APIKeyCheckpoint("s3cret"))
    assert answer(client.get("/")) == (401, "authentication_required")


def test_an_api_key_in_the_query_where_the_app_asks_for_it(app, client):
    guard(app, APIKeyCheckpoint("s3cret", type_="query_param", header_or_param="key"))
    assert client.get("/?key=s3cret").text == "in"
    assert client.get("/", headers={"key": "s3cret"}).status_code == 401


@pytest.mark.parametrize(
    "query", ["", "key=", "key=wrong", "key=s3cret&key=s3cret", "key=wrong&key=s3cret", "KEY=s3cret", "key=%ff"]
)
def test_asvs_15_3_7_a_wrong_missing_or_repeated_query_key_is_401(app, client, query):
    guard(app, APIKeyCheckpoint("s3cret", type_="query_param", header_or_param="key"))
    assert client.get(f"/?{query}").status_code == 401


def test_asvs_14_2_1_a_header_key_is_not_taken_from_the_query(app, client):
    guard(app, APIKeyCheckpoint("s3cret"))
    assert client.get("/?x-api-key=s3cret").status_code == 401


def test_a_header_of_the_apps_own_carries_the_key(app, client):
    guard(app, APIKeyCheckpoint("s3cret", header_or_param="X-Partner"))
    assert client.get("/", headers={"X-Partner": "s3cret"}).text == "in"
    assert client.get("/", headers={"X-API-Key": "s3cret"}).status_code == 401


@pytest.mark.parametrize("kind", ["header", "query_param"])
def test_a_key_beyond_ascii_works(app, client, kind):
    guard(app, APIKeyCheckpoint("ключ", type_=kind))
    header = "ключ".encode().decode("latin-1")
    headers, query = ({"x-api-key": header}, {}) if kind == "header" else ({}, {"x-api-key": "ключ"})
    assert client.get("/", headers=headers, query_string=query).text == "in"


def test_an_api_key_needs_no_origin(app, client):
    guard(app, APIKeyCheckpoint("s3cret"), methods=["POST"])
    assert client.post("/", headers={"X-API-Key": "s3cret"}).text == "in"
    assert client.post("/", headers={"X-API-Key": "s3cret", **CROSS_SITE}).text == "in"


@pytest.mark.parametrize("arguments", [("",), (None,), (7,), ("s3cret", "cookie")])
def test_an_api_key_checkpoint_without_a_key_or_place_is_refused(arguments):
    with pytest.raises(ConfigError):
        APIKeyCheckpoint(*arguments)


def test_rfc9110_11_6_1_the_challenge_says_where_the_key_goes(app, client):
    guard(app, APIKeyCheckpoint("s3cret", header_or_param="X-Partner"))
    (challenge,) = challenges(client.get("/"))
    assert challenge.startswith('APIKey realm="jam"')
    assert "X-Partner" in challenge


# -- BearerCheckpoint ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_one_bearer_token_for_a_route(app, client, scheme):
    guard(app, BearerCheckpoint("s3cret"))
    assert client.get("/", headers={"Authorization": f"{scheme} s3cret"}).text == "in"


@pytest.mark.parametrize(
    "wrong", ["", "Bearer", "Bearer ", "s3cret", "Bearer x", "Basic s3cret", "Bearer é", "Bearer s3cret s3cret"]
)
def test_any_other_bearer_token_is_401(app, wrong):
    guard(app, BearerCheckpoint("s3cret"))
    assert called(app, HTTP_AUTHORIZATION=wrong)[0] == 401


def test_a_good_access_token_is_not_that_bearer_token(app, client, token):
    guard(app, BearerCheckpoint("s3cret"))
    assert answer(client.get("/", headers=bearer(token))) == (403, "api_key_invalid")  # somebody, and not allowed


@pytest.mark.parametrize("token", ["", None, 7])
def test_a_bearer_checkpoint_without_a_token_is_refused(token):
    with pytest.raises(ConfigError):
        BearerCheckpoint(token)


def test_rfc6750_3_1_a_wrong_bearer_token_is_invalid_token(app, client):
    guard(app, BearerCheckpoint("s3cret"))
    (challenge,) = challenges(client.get("/", headers=bearer("wrong")))
    assert 'error="invalid_token"' in challenge


def test_rfc6750_3_1_no_bearer_token_is_no_error_code(app, client):
    guard(app, BearerCheckpoint("s3cret"))
    assert challenges(client.get("/")) == ['Bearer realm="jam"']


@pytest.mark.parametrize("one", [APIKeyCheckpoint("s3cret"), BearerCheckpoint("s3cret")])
def test_asvs_16_2_5_a_checkpoint_does_not_show_its_key(one):
    assert "s3cret" not in repr(one)
    assert "s3cret" not in repr(one.action(fail_json={}))


# -- SameOrigin ---------------------------------------------------------------------------------------------


def test_same_origin_keeps_other_sites_from_a_form_without_a_session(app, client):
    guard(app, SameOrigin(), methods=["GET", "POST"])
    assert client.post("/", headers=SAME_ORIGIN).text == "in"
    assert answer(client.post("/", headers=CROSS_SITE)) == (403, "csrf_failed")
    assert answer(client.post("/")) == (403, "csrf_failed")
    assert client.get("/", headers=CROSS_SITE).text == "in"


# -- the core ones, over HTTP -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("demand", "passes"),
    [
        (HasRole("editor"), True),
        (HasRole("admin", "editor"), True),
        (HasRole("admin"), False),
        (HasScope("posts:read"), True),
        (HasScope("posts:read", "posts:write"), False),
        (HasScope("posts"), False),
        (Claim("tenant", "a"), True),
        (Claim("tenant", "b", "a"), True),
        (Claim("tenant", "b"), False),
        (Claim("level", True), False),
        (Method("jwt"), True),
        (Method("session"), False),
        (Method("session", "jwt"), True),
        (HasRole("editor") & HasScope("posts:read"), True),
        (HasRole("editor") & HasScope("posts:write"), False),
        (HasRole("admin") | HasScope("posts:read"), True),
        (HasRole("admin") | HasScope("posts:write"), False),
        (~HasRole("admin"), True),
        (~HasRole("editor"), False),
        (Authenticated() & ~(HasRole("admin") | HasRole("guest")), True),
    ],
)
def test_asvs_10_3_2_the_core_checkpoints_decide_by_the_credential(app, client, jam, demand, passes):
    guard(app, demand)
    token = jam.access_tokens.issue(
        "alice", roles=["editor"], scopes=["posts:read"], claims={"tenant": "a", "level": 1}
    )
    assert client.get("/", headers=bearer(token)).status_code == (200 if passes else 403)
    assert client.get("/").status_code in (200, 401)


def test_asvs_8_4_1_another_tenants_token_is_refused(app, client, jam):
    guard(app, Claim("tenant", "a"))
    token = jam.access_tokens.issue("alice", claims={"tenant": "b"})
    assert answer(client.get("/", headers=bearer(token))) == (403, "claim_required")


# -- combinations -------------------------------------------------------------------------------------------

KEY, TOKEN = {"X-API-Key": "key"}, {"Authorization": "Bearer token"}
EITHER = APIKeyCheckpoint("key") | BearerCheckpoint("token")
BOTH = APIKeyCheckpoint("key") & BearerCheckpoint("token")


@pytest.mark.parametrize(
    ("demand", "headers", "passes"),
    [
        (EITHER, KEY, True),
        (EITHER, TOKEN, True),
        (EITHER, {}, False),
        (BOTH, KEY, False),
        (BOTH, TOKEN, False),
        (BOTH, {**KEY, **TOKEN}, True),
        (~APIKeyCheckpoint("key"), KEY, False),
        (~APIKeyCheckpoint("key"), {}, True),
        (~~APIKeyCheckpoint("key"), KEY, True),
        (~EITHER, {}, True),
        (~EITHER, KEY, False),
        (LOGGED_IN | APIKeyCheckpoint("key"), KEY, True),
        (LOGGED_IN & APIKeyCheckpoint("key"), KEY, False),
        (Authenticated() | APIKeyCheckpoint("key"), KEY, True),
        (Authenticated() & APIKeyCheckpoint("key"), KEY, False),
    ],
)
def test_checkpoints_combine(app, client, demand, headers, passes):
    guard(app, demand)
    assert (client.get("/", headers=headers).status_code == 200) is passes


def test_rfc9110_11_6_1_a_combination_challenges_for_each_of_its_parts(app, client):
    guard(app, EITHER)
    said = challenges(client.get("/"))
    assert any(challenge.startswith("APIKey") for challenge in said)
    assert any(challenge.startswith("Bearer") for challenge in said)


def test_rfc9110_11_6_1_a_combination_with_a_flask_checkpoint_keeps_its_challenge(app, client):
    guard(app, APIKeyCheckpoint("key") & HasRole("admin"))
    assert any(challenge.startswith("APIKey") for challenge in challenges(client.get("/")))


def test_asvs_3_5_1_a_negated_session_checkpoint_is_not_content_with_a_forged_request(app, client):
    """The session was not opened, so that nobody can say the key is not in it."""
    seen = guard(app, ~SessionCheckpoint("banned", True), methods=["POST"])
    put(client, banned=True)
    assert client.post("/", headers=CROSS_SITE).status_code == 403
    assert seen == []


@pytest.mark.parametrize(
    "combine", [lambda a: a & LOGGED_IN, lambda a: a | LOGGED_IN, lambda a: LOGGED_IN & a, lambda a: ~a]
)
def test_a_checkpoint_with_an_answer_stands_alone(combine):
    with pytest.raises(ConfigError, match="cannot be combined"):
        combine(LOGGED_IN.action(fail_json={}))


def test_a_combination_may_have_an_answer(app, client):
    guard(app, (LOGGED_IN & SessionCheckpoint("user_type", "admin")).action(fail_url="/login"))
    put(client, logged_in=True)
    assert client.get("/").headers["Location"] == "/login"


def test_a_core_checkpoint_may_have_an_answer(app, client, token):
    guard(app, Authenticated().action(fail_url="/login"))
    assert client.get("/").headers["Location"] == "/login"
    assert client.get("/", headers=bearer(token)).text == "in"


# -- .action: who fails -------------------------------------------------------------------------------------


def test_without_an_action_a_failure_is_401_for_nobody(app, client):
    guard(app, LOGGED_IN)
    assert client.get("/").status_code == 401


def test_an_empty_action_answers_403(app, client):
    seen = guard(app, LOGGED_IN.action())
    assert answer(client.get("/"))[0] == 403
    assert seen == []


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 410, 418, 429, 451, 500, 503, 599])
def test_fail_status_is_the_status_of_the_default_refusal(app, client, status):
    guard(app, LOGGED_IN.action(fail_status=status))
    assert client.get("/").status_code == status


@pytest.mark.parametrize("status", [200, 204, 302, 399, 600, 0, -1])
def test_a_fail_status_that_is_no_failure_is_refused(status):
    with pytest.raises(ConfigError, match="fail_status"):
        LOGGED_IN.action(fail_status=status)


@pytest.mark.parametrize("target", ["/login", lazy_url_for("login_page"), lambda: "/login"])
def test_fail_url_redirects(app, client, target):
    seen = guard(app, LOGGED_IN.action(fail_url=target))
    response = client.get("/")
    assert (response.status_code, response.headers["Location"]) == (302, "/login")
    assert seen == []


def test_fail_url_is_the_first_positional_argument(app, client):
    guard(app, LOGGED_IN.action(lazy_url_for("login_page"), message="Login required for this page!"))
    assert client.get("/").headers["Location"] == "/login"


def test_fail_endpoint_names_an_endpoint(app, client):
    guard(app, LOGGED_IN.action(fail_endpoint="login_page"))
    assert client.get("/").headers["Location"] == "/login"


def test_a_message_is_flashed_once_with_its_category(app, client):
    guard(app, LOGGED_IN.action(fail_url="/login", message="Please sign in", message_category="warning"))
    client.get("/")
    assert client.get("/login").json == {"flashed": [["warning", "Please sign in"]]}
    assert client.get("/login").json == {"flashed": []}


def test_the_category_is_message_if_left_out(app, client):
    guard(app, LOGGED_IN.action(fail_url="/login", message="Please sign in"))
    assert client.get("/", follow_redirects=True).json == {"flashed": [["message", "Please sign in"]]}


def test_without_a_message_nothing_is_flashed(app, client):
    guard(app, LOGGED_IN.action(fail_url="/login"))
    assert client.get("/", follow_redirects=True).json == {"flashed": []}


def test_a_failures_message_is_not_flashed_to_who_passes(app, client):
    guard(app, LOGGED_IN.action(fail_url="/login", message="Please sign in"))
    put(client, logged_in=True)
    assert client.get("/").text == "in"
    assert client.get("/login").json == {"flashed": []}


@pytest.mark.parametrize("status", [401, 403, 418])
def test_fail_json_is_answered_with_fail_status(app, client, status):
    guard(app, LOGGED_IN.action(fail_json={"error": "no", "n": [1]}, fail_status=status))
    response = client.get("/")
    assert (response.status_code, response.json) == (status, {"error": "no", "n": [1]})
    assert response.mimetype == "application/json"


def test_fail_json_is_json_even_for_a_browser(app, client):
    guard(app, LOGGED_IN.action(fail_json={"error": "no"}))
    response = client.get("/", headers={"Accept": "text/html"})
    assert (response.status_code, response.json) == (403, {"error": "no"})


def test_an_empty_fail_json_is_an_answer_too(app, client):
    guard(app, LOGGED_IN.action(fail_json={}))
    assert client.get("/").json == {}


def test_rfc9110_11_6_1_fail_json_with_401_carries_a_challenge(app, client):
    guard(app, LOGGED_IN.action(fail_json={"error": "no"}, fail_status=401))
    assert challenges(client.get("/"))


def test_rfc9110_11_6_1_the_default_refusal_with_fail_status_401_carries_a_challenge(app, client):
    guard(app, LOGGED_IN.action(fail_status=401))
    assert challenges(client.get("/"))


def sync_response():
    return make_response("made", 418, {"X-Made": "yes"})


async def async_response():
    await asyncio.sleep(0)
    return make_response("made", 418, {"X-Made": "yes"})


def sync_tuple():
    return {"made": True}, 418


@pytest.mark.parametrize("is_async", [False, True], ids=["sync view", "async view"])
@pytest.mark.parametrize("make", [sync_response, async_response])
def test_fail_response_makes_the_answer(app, client, make, is_async):
    seen = []

    def sync_view():
        seen.append("seen")
        return "in"

    async def async_view():
        return sync_view()

    app.get("/")(checkpoint(LOGGED_IN.action(fail_response=make))(async_view if is_async else sync_view))
    response = client.get("/")
    assert (response.status_code, response.text, response.headers["X-Made"]) == (418, "made", "yes")
    assert seen == []


def test_fail_response_may_give_anything_a_view_may(app, client):
    guard(app, LOGGED_IN.action(fail_response=sync_tuple))
    response = client.get("/")
    assert (response.status_code, response.json) == (418, {"made": True})


@pytest.mark.parametrize("make", [sync_response, async_response])
def test_fail_response_counts_more_than_fail_json_and_that_more_than_fail_url(app, client, make):
    guard(app, LOGGED_IN.action(fail_url="/login", fail_json={"a": 1}, fail_response=make))
    assert client.get("/").text == "made"


def test_fail_json_counts_more_than_fail_url(app, client):
    guard(app, LOGGED_IN.action(fail_url="/login", fail_json={"a": 1}, message="not flashed"))
    assert client.get("/").json == {"a": 1}
    assert client.get("/login").json == {"flashed": []}


@pytest.mark.parametrize(
    "both", [{"fail_url": "/a", "fail_endpoint": "home"}, {"pass_url": "/a", "pass_endpoint": "home"}]
)
def test_a_url_and_an_endpoint_for_the_same_exclude_each_other(both):
    with pytest.raises(ConfigError, match="exclude each other"):
        LOGGED_IN.action(**both)


def test_who_satisfies_the_checkpoint_sees_the_view_whatever_the_answer_to_others(app, client):
    guard(app, LOGGED_IN.action(fail_url="/login", fail_json={"a": 1}, fail_response=sync_response, fail_status=418))
    put(client, logged_in=True)
    assert client.get("/").text == "in"


def test_a_refusal_by_action_is_never_cached_for_others(app, client):
    guard(app, LOGGED_IN.action(fail_json={"a": 1}))
    assert client.get("/").headers["Cache-Control"] in ("private", "no-store")


# -- .action: who passes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target", [{"pass_url": "/home"}, {"pass_url": lazy_url_for("home")}, {"pass_endpoint": "home"}]
)
def test_pass_url_redirects_who_passes(app, client, target):
    seen = guard(app, LOGGED_IN.action(**target))
    put(client, logged_in=True)
    response = client.get("/")
    assert (response.status_code, response.headers["Location"]) == (302, "/home")
    assert seen == []


def test_pass_url_alone_refuses_who_fails(app, client):
    seen = guard(app, LOGGED_IN.action(pass_url="/home"))
    assert client.get("/").status_code == 403
    assert seen == []


def test_the_message_of_a_pass_url_is_flashed_to_who_passes(app, client):
    guard(app, LOGGED_IN.action(pass_url="/home", message="Already logged in", disable_default_fail=True))
    put(client, logged_in=True)
    assert client.get("/", follow_redirects=True).json == {"flashed": [["message", "Already logged in"]]}


def test_the_message_of_a_pass_url_is_not_flashed_to_who_fails(app, client):
    guard(app, LOGGED_IN.action(pass_url="/home", message="Already logged in", disable_default_fail=True))
    assert client.get("/").text == "in"
    assert client.get("/home").json == {"flashed": []}


def test_with_both_targets_the_message_is_the_failures(app, client):
    guard(app, LOGGED_IN.action(fail_url="/login", pass_url="/home", message="Please sign in"))
    assert client.get("/", follow_redirects=True).json == {"flashed": [["message", "Please sign in"]]}
    put(client, logged_in=True)
    assert client.get("/", follow_redirects=True).json == {"flashed": []}


def test_fail_json_switches_pass_url_off(app, client):
    guard(app, LOGGED_IN.action(fail_json={"a": 1}, pass_url="/home"))
    put(client, logged_in=True)
    assert client.get("/").text == "in"


def test_disable_default_fail_shows_the_view_to_who_fails(app, client):
    seen = guard(app, LOGGED_IN.action(pass_endpoint="home", disable_default_fail=True))
    assert client.get("/").text == "in"
    put(client, logged_in=True)
    assert client.get("/").headers["Location"] == "/home"
    assert seen == ["seen"]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"message": "hello"},
        {"fail_status": 404},
        {"fail_url": "/login"},
        {"fail_json": {"a": 1}},
        {"fail_json": {"a": 1}, "pass_url": "/home"},
    ],
)
def test_disable_default_fail_without_a_pass_target_is_refused(arguments):
    """flask-imp would show the protected view to everyone."""
    with pytest.raises(ConfigError, match="disable_default_fail"):
        LOGGED_IN.action(disable_default_fail=True, **arguments)


def test_asvs_3_5_1_a_forged_request_gets_the_reason_and_no_flash(app, client):
    seen = guard(app, LOGGED_IN.action(fail_url="/login", message="Please sign in"), methods=["POST"])
    response = client.post("/", headers=CROSS_SITE)
    assert answer(response) == (403, "csrf_failed")
    assert "Set-Cookie" not in response.headers
    assert seen == []


def test_asvs_3_5_1_a_forged_request_does_not_see_a_view_whose_default_failure_is_disabled(app, client):
    seen = guard(app, LOGGED_IN.action(pass_url="/home", disable_default_fail=True), methods=["POST"])
    put(client, logged_in=True)
    assert answer(client.post("/", headers=CROSS_SITE)) == (403, "csrf_failed")
    assert seen == []


def test_an_action_leaves_the_checkpoint_it_was_made_from_alone(app, client):
    LOGGED_IN.action(fail_url="/login")
    guard(app, LOGGED_IN)
    assert client.get("/").status_code == 401


@pytest.mark.parametrize("one", [APIKeyCheckpoint("key"), BearerCheckpoint("token"), SameOrigin()])
def test_every_flask_checkpoint_takes_an_action(app, client, one):
    guard(app, one.action(fail_url="/login"), methods=["POST"])
    response = client.post("/")
    assert response.headers.get("Location") == "/login" or answer(response) == (403, "csrf_failed")


def test_stacked_actions_each_give_their_own_answer(app, client):
    inner = SessionCheckpoint("user_type", "admin").action(fail_url="/home", message="Admins only")
    outer = LOGGED_IN.action(fail_url="/login", message="Login needed")
    guard(app, outer, inner)
    assert client.get("/").headers["Location"] == "/login"
    put(client, logged_in=True)
    assert client.get("/").headers["Location"] == "/home"
    put(client, user_type="admin")
    assert client.get("/").text == "in"


def test_a_flash_of_the_views_own_is_kept(app, client):
    app.get("/note")(lambda: flash("noted", "info") or "ok")
    guard(app, LOGGED_IN.action(fail_url="/login", message="Please sign in"))
    client.get("/note")
    client.get("/")
    assert client.get("/login").json == {"flashed": [["info", "noted"], ["message", "Please sign in"]]}


# -- lazy_url_for -------------------------------------------------------------------------------------------


def test_lazy_url_for_knows_blueprints_and_values(app, client):
    part = Blueprint("part", __name__, url_prefix="/part")
    part.get("/user/<name>", endpoint="user")(lambda name: name)
    app.register_blueprint(part)
    guard(app, LOGGED_IN.action(lazy_url_for("part.user", name="alice", page=2)))
    assert client.get("/").headers["Location"] == "/part/user/alice?page=2"


def test_lazy_url_for_knows_relative_endpoints_of_the_current_blueprint(app, client):
    part = Blueprint("part", __name__, url_prefix="/part")
    part.get("/login", endpoint="login")(lambda: "please")
    part.get("/")(checkpoint(LOGGED_IN.action(lazy_url_for(".login")))(lambda: "in"))
    app.register_blueprint(part)
    assert client.get("/part/").headers["Location"] == "/part/login"


def test_lazy_url_for_keeps_what_url_for_understands(app):
    target = lazy_url_for("home", _external=True, _scheme="https", _anchor="top")
    with app.test_request_context():
        assert target() == "https://localhost/home#top"


def test_lazy_url_for_is_not_asked_before_it_is_needed(app, client):
    guard(app, LOGGED_IN.action(lazy_url_for("nowhere")))
    put(client, logged_in=True)
    assert client.get("/").text == "in"


def test_lazy_url_for_can_be_written_where_no_app_is_there_yet():
    assert callable(lazy_url_for("login_page"))


# -- checkpoints of the app's own ---------------------------------------------------------------------------


def test_flask_session_and_jams_session_may_both_be_there(app, client, jam, handle):
    @app.get("/")
    @checkpoint(LOGGED_IN & Method("session"))
    def view():
        return {"flask": dict(session)}

    put(client, logged_in=True)
    assert client.get("/").status_code == 401
    client.set_cookie("sessionId", handle)
    assert client.get("/").json == {"flask": {"logged_in": True}}
    assert raw_client(app).get("/", headers=cookies(("sessionId", handle))).status_code == 403


@pytest.mark.parametrize(
    "demand",
    [
        ~(HasRole("guest") | SessionCheckpoint("banned", True)),
        ~(SessionCheckpoint("banned", True) | HasRole("guest")),
        ~(APIKeyCheckpoint("banned key") | SessionCheckpoint("banned", True)),
        ~HasRole("guest") & ~SessionCheckpoint("banned", True),
        ~~~SessionCheckpoint("banned", True),
    ],
)
def test_asvs_3_5_1_no_combination_around_a_negation_is_content_with_a_forged_request(app, client, demand):
    seen = guard(app, demand, methods=["POST"])
    put(client, banned=True)
    assert client.post("/", headers=SAME_ORIGIN).status_code == 401
    assert answer(client.post("/", headers=CROSS_SITE)) == (403, "csrf_failed")
    assert seen == []


def test_a_header_credential_satisfies_its_half_of_a_choice_even_in_a_forged_request(app, client, token):
    guard(app, SessionCheckpoint("logged_in", True) | Authenticated(), methods=["POST"])
    assert client.post("/", headers={**CROSS_SITE, **bearer(token)}).text == "in"
