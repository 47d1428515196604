"""Tokens in views: what makes them, which views take them, and how the rest is refused."""

import json
from datetime import timedelta

import flask_restful
import pytest
from flask import Blueprint, abort, g
from flask.views import MethodView

from jam import Jam
from jam.crypto.encoding import b64url_decode, b64url_encode
from jam.crypto.jws import Signer
from jam.errors import ConfigError, InvalidValue, TokenExpired, TokenInvalid, TokenRevoked
from jam.ext.flask import (
    Authenticated,
    Fresh,
    HasRole,
    HasScope,
    JWTExtension,
    Method,
    SessionExtension,
    checkpoint,
    create_access_token,
    create_refresh_token,
    current_identity,
    decode_token,
    deny_by_default,
    get_csrf_token,
    get_jti,
    get_jwt,
    get_jwt_header,
    get_jwt_identity,
    get_jwt_request_location,
    get_unverified_jwt_headers,
    jwt_required,
    protect,
    rotate_refresh_token,
    verify_jwt_in_request,
)
from tests.ext.flask.callers import CROSS_SITE, SAME_ORIGIN, answer, bearer, challenges, cookies, raw_client

NOBODY = (401, "authentication_required")
INVALID = (401, "token_invalid")
STALE = (401, "insufficient_user_authentication")
TWICE = (400, "invalid_request")
EVERYWHERE = ["headers", "cookies", "query_string", "json"]
NESTED = {"a": [[[[[[[[[[1]]]]]]]]]]}


def too_deep():
    nested = []
    for _ in range(2000):
        nested = [nested]
    return nested


HOSTILE_TOKENS = [
    "",
    ".",
    "..",
    "a.b.c",
    "\0",
    "é.ü.ñ",
    "日本語",
    "null",
    "Bearer",
    "eyJhbGciOiJub25lIn0.e30.",
    "x" * 100_000,
    "." * 100_000,
    "%00",
    "eyJ" * 6000 + ".e30.x",
]


@pytest.fixture
def app(new_app, jam):
    app = new_app(JWT_TOKEN_LOCATION=EVERYWHERE)
    app.extension = JWTExtension(jam, app)

    @app.route("/", methods=["GET", "POST"])
    @jwt_required()
    def home():
        return {"sub": get_jwt_identity(), "where": get_jwt_request_location()}

    @app.route("/optional", methods=["GET", "POST"])
    @jwt_required(optional=True)
    def optional():
        return {"sub": get_jwt_identity(), "claims": get_jwt(), "header": get_jwt_header()}

    @app.route("/refresh", methods=["GET", "POST"])
    @jwt_required(refresh=True)
    def refresh():
        return {"sub": get_jwt_identity(), "where": get_jwt_request_location()}

    @app.get("/fresh")
    @jwt_required(fresh=True)
    def fresh():
        return {"sub": get_jwt_identity()}

    @app.route("/either", methods=["GET", "POST"])
    @jwt_required(verify_type=False)
    def either():
        return {"sub": get_jwt_identity(), "type": get_jwt()["type"]}

    return app


@pytest.fixture
def ask(app):
    """Sends a request and gives the response; without cookies of its own."""

    def send(path="/", token=None, method="GET", headers=None, **options):
        headers = {**(headers or {}), **({} if token is None else bearer(token))}
        return raw_client(app).open(path, method=method, headers=headers, **options)

    return send


@pytest.fixture
def made(app):
    """Calls one of the makers where an app is at hand."""

    def make(function, *args, **options):
        with app.app_context():
            return function(*args, **options)

    return make


@pytest.fixture
def refresh_token(jam):
    return jam.refresh_tokens.issue("alice")


def forged(keys, typ, jam, **claims):
    """A token with a good signature of this app's own key, made for some other purpose."""
    now = int(jam.clock())
    payload = {"iss": jam.settings.name, "aud": jam.settings.name, "sub": "alice", "client_id": "c", "jti": "j"}
    return Signer(keys, typ).sign(json.dumps({**payload, "iat": now, "exp": now + 60, **claims}).encode())


# -- which token opens which door: all of them against all of them ------------------------------------------

CREDENTIALS = {
    "access": lambda jam: jam.access_tokens.issue("alice"),
    "plain JWT": lambda jam: jam.gen_jwt_token({"sub": "alice"}),
    "refresh": lambda jam: jam.refresh_tokens.issue("alice"),
    "session": lambda jam: jam.create_session("alice"),
    "other typ": lambda jam: forged(jam.access_tokens.keys, "password-reset+jwt", jam),
    "foreign": lambda jam: Jam({"secret": "T" + jam.create_session("x") * 3}, clock=jam.clock).access_tokens.issue(
        "alice"
    ),
}
OPENS = {
    "/access": {"access", "plain JWT"},
    "/refreshing": {"refresh"},
    "/revoking": {"access", "plain JWT", "refresh"},
    "/session": {"session"},
    "/headers": {"access", "plain JWT"},
    "/known": {"access", "plain JWT", "session"},
}


@pytest.fixture
def doors(new_app, jam):
    app = new_app()
    JWTExtension(jam, app)
    SessionExtension(jam, app, header_name="Authorization", cookie_name=None)
    guards = {
        "/access": jwt_required(),
        "/refreshing": jwt_required(refresh=True),
        "/revoking": jwt_required(verify_type=False),
        "/session": checkpoint(Method("session")),
        "/headers": jwt_required(locations="headers"),
        "/known": checkpoint(Authenticated()),
    }
    for path, guard in guards.items():
        app.get(path, endpoint=path.strip("/"))(guard(lambda: "in"))
    return raw_client(app)


@pytest.mark.parametrize("door", OPENS)
@pytest.mark.parametrize("kind", CREDENTIALS)
def test_no_kind_of_credential_is_accepted_where_another_is_due(doors, jam, door, kind):
    response = doors.get(door, headers=bearer(CREDENTIALS[kind](jam)))
    assert (response.status_code == 200) == (kind in OPENS[door])
    assert response.status_code in (200, 401, 403)


@pytest.mark.parametrize("typ", ["refresh+jwt", "remember-me+jwt", "dpop+jwt", "application/refresh+jwt", "x", ""])
@pytest.mark.parametrize("path", ["/", "/refresh", "/either"])
def test_a_token_of_another_typ_opens_nothing_although_the_access_token_key_signed_it(app, ask, jam, typ, path):
    assert answer(ask(path, forged(jam.access_tokens.keys, typ, jam, type="access", fresh=True))) == INVALID


def test_a_token_without_a_typ_opens_nothing(ask, token):
    header, payload, signature = token.split(".")
    bare = {name: value for name, value in json.loads(b64url_decode(header.encode())).items() if name != "typ"}
    assert answer(ask("/", f"{b64url_encode(json.dumps(bare).encode()).decode()}.{payload}.{signature}")) == INVALID


def test_a_refresh_token_is_not_accepted_as_an_access_token(ask, refresh_token):
    assert answer(ask("/", refresh_token)) == INVALID


def test_an_access_token_is_not_accepted_as_a_refresh_token(ask, token):
    assert answer(ask("/refresh", token)) == INVALID


def test_a_type_claim_of_the_callers_own_cannot_be_minted(made):
    with pytest.raises(InvalidValue, match="type"):
        made(create_access_token, "alice", additional_claims={"type": "password_reset"})


@pytest.mark.parametrize("claimed", ["refresh", "password_reset"])
def test_a_type_claim_neither_makes_a_refresh_token_of_a_plain_jwt_nor_leaves_it_an_access_token(
    app, ask, jam, claimed
):
    token = forged(jam.access_tokens.keys, "JWT", jam, type=claimed)
    assert answer(ask("/refresh", token)) == INVALID
    assert answer(ask("/", token)) == INVALID


def test_a_view_that_takes_both_kinds_takes_both(ask, made, refresh_token):
    access = made(create_access_token, "alice")
    assert [ask("/either", one).json["type"] for one in (access, refresh_token)] == ["access", "refresh"]


@pytest.mark.parametrize("place", ["query_string", "json"])
def test_a_view_that_takes_both_kinds_takes_them_from_everywhere(ask, made, place):
    access = made(create_access_token, "alice")
    options = {"query_string": {"jwt": access}} if place == "query_string" else {"json": {"access_token": access}}
    assert ask("/either", method="POST", **options).json == {"sub": "alice", "type": "access"}


def test_an_access_guard_within_a_refresh_guard_does_not_take_its_refresh_token(new_app, jam, refresh_token):
    app = new_app()
    JWTExtension(jam, app)
    app.get("/")(jwt_required(refresh=True)(jwt_required()(lambda: "in")))
    assert raw_client(app).get("/", headers=bearer(refresh_token)).status_code == 401


def test_a_hook_that_looked_for_either_kind_does_not_open_access_views_to_refresh_tokens(new_app, jam, refresh_token):
    app = new_app()
    JWTExtension(jam, app)

    @app.before_request
    def note():
        verify_jwt_in_request(optional=True, verify_type=False)

    app.get("/")(jwt_required()(lambda: "in"))
    assert raw_client(app).get("/", headers=bearer(refresh_token)).status_code == 401


def test_a_hook_that_looked_for_a_refresh_token_does_not_hide_the_access_token(new_app, jam, token):
    app = new_app()
    JWTExtension(jam, app)

    @app.before_request
    def note():
        verify_jwt_in_request(optional=True, refresh=True)

    app.get("/")(jwt_required()(get_jwt_identity))
    assert raw_client(app).get("/", headers=bearer(token)).text == "alice"


def test_a_hook_that_looked_elsewhere_does_not_widen_where_a_view_looks(new_app, jam, token):
    app = new_app()
    JWTExtension(jam, app)

    @app.before_request
    def note():
        verify_jwt_in_request(optional=True, locations="query_string")

    app.get("/")(jwt_required()(lambda: "in"))
    assert answer(raw_client(app).get("/", query_string={"jwt": token})) == NOBODY


# -- where a token may be -----------------------------------------------------------------------------------


def in_header(token):
    return {"headers": bearer(token)}


def in_cookie(token):
    return {"headers": {**cookies(("access_token_cookie", token)), **SAME_ORIGIN}}


def in_query(token):
    return {"query_string": {"jwt": token}}


def in_body(token):
    return {"json": {"access_token": token}}


PLACES = {"headers": in_header, "cookies": in_cookie, "query_string": in_query, "json": in_body}


@pytest.mark.parametrize("place", PLACES)
def test_a_token_is_found_in_each_place_the_app_names(ask, token, place):
    assert ask(method="POST", **PLACES[place](token)).json == {"sub": "alice", "where": place}


@pytest.mark.parametrize("place", ["cookies", "query_string", "json"])
def test_only_headers_are_looked_at_unless_the_app_says_otherwise(new_app, jam, token, place):
    app = new_app()
    JWTExtension(jam, app)
    app.post("/")(jwt_required()(lambda: "in"))
    assert answer(raw_client(app).post("/", **PLACES[place](token))) == NOBODY


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("named", PLACES)
def test_a_view_may_name_the_places_itself(new_app, jam, token, place, named):
    app = new_app()
    JWTExtension(jam, app)
    app.post("/")(jwt_required(locations=[named])(lambda: "in"))
    assert (raw_client(app).post("/", **PLACES[place](token)).status_code == 200) == (place == named)


@pytest.mark.parametrize("locations", [[], "header", ["headers", "body"], "", [""]])
def test_places_that_do_not_exist_are_refused(locations):
    with pytest.raises(ConfigError, match="locations"):
        jwt_required(locations=locations)


@pytest.mark.parametrize("locations", [5, [["headers"]], True])
def test_places_that_are_no_names_are_refused(locations):
    with pytest.raises(ConfigError, match="locations"):
        jwt_required(locations=locations)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_the_scheme_is_compared_without_regard_to_case(ask, token, scheme):
    assert ask(headers={"Authorization": f"{scheme} {token}"}).json["sub"] == "alice"


@pytest.mark.parametrize("value", ["", "Bearer", "Basic YTpi", "Token x", "Bearerx y", "bearer\tx"])
def test_a_header_of_another_scheme_is_no_token(ask, value):
    assert answer(ask(headers={"Authorization": value})) == NOBODY


@pytest.mark.parametrize("value", ["Bearer ", "Bearer a b", "Bearer a, Bearer b", "Bearer Bearer x"])
def test_a_bearer_header_without_one_token_is_invalid(ask, value):
    assert answer(ask(headers={"Authorization": value})) == INVALID


@pytest.mark.parametrize("place", ["query_string", "json"])
def test_rfc6750_2_a_token_in_the_header_and_in_a_body_is_400(ask, token, place):
    assert answer(ask("/", token, method="POST", **PLACES[place](token))) == TWICE


def test_rfc6750_2_a_token_in_query_and_body_is_400(ask, token):
    assert answer(ask(method="POST", **in_query(token), **in_body(token))) == TWICE


def test_rfc6750_2_two_tokens_in_the_query_are_400(ask, token):
    assert answer(ask(query_string=[("jwt", token), ("jwt", token)])) == TWICE


@pytest.mark.parametrize("place", ["headers", "query_string", "json"])
def test_a_cookie_beside_a_token_is_not_400(ask, token, place):
    options = PLACES[place](token)
    options["headers"] = {**options.get("headers", {}), **cookies(("access_token_cookie", token)), **SAME_ORIGIN}
    assert ask(method="POST", **options).json["sub"] == "alice"


def test_an_access_token_in_the_header_beside_a_refresh_token_in_the_body_is_not_400(ask, token, refresh_token):
    """They are two kinds: clients put the one on every request."""
    response = ask("/refresh", token, method="POST", json={"refresh_token": refresh_token})
    assert response.json == {"sub": "alice", "where": "json"}


@pytest.mark.parametrize("broken", ["expired", "garbage"])
def test_a_bad_cookie_never_hides_a_valid_bearer_token(ask, jam, clock, broken):
    old = jam.access_tokens.issue("mallory", lifetime=60) if broken == "expired" else "garbage"
    clock.move(61)
    token = jam.access_tokens.issue("alice")
    response = ask("/", token, method="POST", headers={**cookies(("access_token_cookie", old)), **SAME_ORIGIN})
    assert response.json == {"sub": "alice", "where": "headers"}


@pytest.mark.parametrize("place", ["query_string", "json"])
def test_a_bad_cookie_never_hides_a_valid_token_elsewhere(ask, token, place):
    headers = {**cookies(("access_token_cookie", "garbage")), **SAME_ORIGIN}
    assert ask(method="POST", headers=headers, **PLACES[place](token)).json["where"] == place


@pytest.mark.parametrize("origin", [{}, CROSS_SITE])
@pytest.mark.parametrize("place", ["headers", "query_string", "json"])
def test_a_cookie_that_may_not_be_opened_never_hides_a_valid_token_elsewhere(ask, token, place, origin):
    options = PLACES[place](token)
    options["headers"] = {**options.get("headers", {}), **cookies(("access_token_cookie", "any")), **origin}
    assert ask(method="POST", **options).json == {"sub": "alice", "where": place}


def test_a_bad_bearer_token_does_not_hide_a_good_cookie(ask, token):
    assert ask("/", "garbage", headers=cookies(("access_token_cookie", token))).json["where"] == "cookies"


def test_asvs_3_5_1_a_cookie_from_another_site_is_not_opened(ask, token):
    headers = {**cookies(("access_token_cookie", token)), **CROSS_SITE}
    assert answer(ask(method="POST", headers=headers)) == (403, "csrf_failed")


# -- hostile input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hostile", HOSTILE_TOKENS)
def test_a_hostile_header_is_401(app, hostile):
    raw = f"Bearer {hostile}".encode().decode("latin-1")
    response = raw_client(app).get("/", environ_overrides={"HTTP_AUTHORIZATION": raw})
    assert answer(response) == INVALID


@pytest.mark.parametrize("hostile", HOSTILE_TOKENS)
def test_a_hostile_query_parameter_is_401(ask, hostile):
    assert answer(ask(query_string={"jwt": hostile})) == INVALID


@pytest.mark.parametrize("hostile", HOSTILE_TOKENS)
def test_a_hostile_cookie_is_401(app, hostile):
    raw = f"access_token_cookie={hostile}".encode().decode("latin-1")
    assert answer(raw_client(app).get("/", environ_overrides={"HTTP_COOKIE": raw})) == INVALID


@pytest.mark.parametrize("hostile", [*HOSTILE_TOKENS, "\ud800", "\U0010ffff"])
@pytest.mark.parametrize("path", ["/", "/refresh", "/either"])
def test_a_hostile_member_is_401(ask, hostile, path):
    name = "access_token" if path == "/" else "refresh_token"
    response = ask(path, method="POST", data=json.dumps({name: hostile}), content_type="application/json")
    assert response.status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"7",
        b"\xff\xfe",
        b'{"access_token": null}',
        b'{"access_token": ["x"]}',
        b'{"access_token": {"a": 1}}',
        b'{"access_token": 1e999}',
        b'{"access_token": "x", "access_token": "y"}',
        b'[{"access_token": "x"}]',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        json.dumps({"access_token": NESTED}).encode(),
    ],
)
def test_a_hostile_body_holds_no_token(ask, body):
    assert answer(ask(method="POST", data=body, content_type="application/json")) == NOBODY


def test_a_duplicate_member_is_not_decided_by_order(ask, token):
    for first, second in ((token, "x"), ("x", token)):
        body = f'{{"access_token": "{first}", "access_token": "{second}"}}'
        assert answer(ask(method="POST", data=body, content_type="application/json")) == NOBODY


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_body_that_does_not_say_it_is_json_holds_no_token(ask, token, kind):
    """Other sites can send these without asking."""
    body = json.dumps({"access_token": token})
    assert answer(ask(method="POST", data=body, content_type=kind)) == NOBODY


def test_the_view_reads_the_body_after_the_guard(app, ask, token):
    @app.post("/echo")
    @jwt_required()
    def echo():
        from flask import request

        return request.get_json()["said"]

    assert ask("/echo", method="POST", json={"access_token": token, "said": "hello"}).text == "hello"


# -- optional -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["", "garbage", "a.b.c", "\0"])
def test_optional_treats_a_bad_token_as_anonymous(ask, bad):
    assert ask("/optional", query_string={"jwt": bad}).json == {"sub": None, "claims": {}, "header": {}}


def test_optional_treats_an_expired_token_as_anonymous(ask, token, clock):
    clock.move(86401)
    assert ask("/optional", token).json["sub"] is None


def test_optional_treats_a_revoked_token_as_anonymous(ask, token, jam):
    jam.access_tokens.revoke(token)
    assert ask("/optional", token).json["sub"] is None


def test_optional_treats_a_refresh_token_as_anonymous(ask, refresh_token):
    assert ask("/optional", refresh_token).json["sub"] is None


def test_optional_sees_who_is_there(ask, token):
    assert ask("/optional", token).json["sub"] == "alice"


def test_optional_opens_no_cookie_from_another_site(ask, token):
    headers = {**cookies(("access_token_cookie", token)), **CROSS_SITE}
    assert ask("/optional", method="POST", headers=headers).json["sub"] is None


# -- fresh --------------------------------------------------------------------------------------------------


def test_a_fresh_token_opens_a_fresh_view(ask, made):
    assert ask("/fresh", made(create_access_token, "alice", fresh=True)).status_code == 200


def test_a_token_that_is_not_fresh_does_not(ask, made):
    response = ask("/fresh", made(create_access_token, "alice"))
    assert answer(response) == STALE
    assert 'error="insufficient_user_authentication"' in challenges(response)[0]


@pytest.mark.parametrize("freshness", [60, 60.0, timedelta(minutes=1)])
def test_freshness_may_end_before_the_token(ask, made, clock, freshness):
    token = made(create_access_token, "alice", fresh=freshness)
    clock.move(59)
    assert ask("/fresh", token).status_code == 200
    clock.move(1)
    assert answer(ask("/fresh", token)) == STALE
    assert ask("/", token).status_code == 200


def test_fresh_asks_nobody_for_freshness_but_for_a_token(ask):
    assert answer(ask("/fresh")) == NOBODY


@pytest.mark.parametrize("claim", ["yes", "true", [1], {"a": 1}, None, False, 0, 1, -1])
def test_a_fresh_claim_of_another_type_is_not_fresh(ask, jam, claim):
    assert answer(ask("/fresh", jam.gen_jwt_token({"sub": "alice", "fresh": claim}))) == STALE


@pytest.mark.parametrize("fresh", [0, -1, float("nan"), float("inf"), timedelta(0), timedelta(-1), "yes", None, [1]])
def test_freshness_is_a_bool_or_a_positive_time(made, fresh):
    with pytest.raises(InvalidValue, match="fresh"):
        made(create_access_token, "alice", fresh=fresh)


def test_fresh_cannot_be_set_by_additional_claims(made):
    for make in (create_access_token, create_refresh_token):
        with pytest.raises(InvalidValue, match="fresh"):
            made(make, "alice", additional_claims={"fresh": True})


def test_a_refreshed_access_token_keeps_the_time_of_the_sign_in(app, ask, clock, made, jam):
    app.get("/new")(jwt_required(refresh=True)(lambda: create_access_token(get_jwt_identity())))
    signed_in_at = int(clock())
    refresh_token = made(create_refresh_token, "alice")
    clock.move(3600)
    token = ask("/new", refresh_token).text
    assert made(decode_token, token)["auth_time"] == signed_in_at
    assert made(decode_token, token)["fresh"] is False


def test_a_refresh_token_made_of_a_refresh_token_keeps_the_time_of_the_sign_in(app, ask, clock, made):
    """Nobody has proved anything anew: ``Fresh`` must not be satisfied by refreshing twice."""
    app.get("/renew", endpoint="renew")(jwt_required(refresh=True)(lambda: create_refresh_token(get_jwt_identity())))
    app.get("/new", endpoint="new")(jwt_required(refresh=True)(lambda: create_access_token(get_jwt_identity())))
    app.get("/bank", endpoint="bank")(checkpoint(Fresh(300))(lambda: "in"))
    first = made(create_refresh_token, "alice")
    clock.move(3600)
    token = ask("/new", ask("/renew", first).text).text
    assert answer(ask("/bank", token)) == STALE


def test_a_token_for_somebody_else_does_not_take_over_the_callers_sign_in(app, ask, made):
    app.get("/for-bob")(jwt_required()(lambda: create_access_token("bob")))
    token = ask("/for-bob", made(create_access_token, "alice", fresh=True)).text
    assert "auth_time" not in made(decode_token, token)


# -- making access tokens -----------------------------------------------------------------------------------


def test_an_access_token_says_who_when_and_what_it_is(made, clock, jam):
    claims = made(decode_token, made(create_access_token, "alice"))
    now = int(clock())
    assert (claims["sub"], claims["iat"], claims["nbf"], claims["exp"]) == ("alice", now, now, now + 900)
    assert (claims["type"], claims["fresh"]) == ("access", False)
    assert claims["jti"]


def test_an_access_token_carries_no_csrf_claim(made):
    assert "csrf" not in made(decode_token, made(create_access_token, "alice"))


def test_no_two_tokens_have_the_same_jti(made):
    assert len({made(get_jti, made(create_access_token, "alice")) for _ in range(50)}) == 50


@pytest.mark.parametrize("lifetime", [60, 60.0, timedelta(minutes=1)])
def test_an_access_token_lives_as_long_as_its_maker_says(ask, made, clock, lifetime):
    token = made(create_access_token, "alice", expires_delta=lifetime)
    clock.move(59)
    assert ask("/", token).status_code == 200
    clock.move(1)
    assert answer(ask("/", token)) == (401, "token_expired")


@pytest.mark.parametrize("make", [create_access_token, create_refresh_token])
@pytest.mark.parametrize("forever", [False, True])
def test_a_token_that_never_expires_is_refused_with_the_safe_way(made, make, forever):
    with pytest.raises(InvalidValue, match="never expires") as caught:
        made(make, "alice", expires_delta=forever)
    assert "refresh token" in caught.value.hint


@pytest.mark.parametrize("make", [create_access_token, create_refresh_token])
@pytest.mark.parametrize(
    "lifetime", [0, -1, float("nan"), float("inf"), "60", [60], timedelta(0), timedelta(-1), timedelta.max, 10**400]
)
def test_a_lifetime_that_is_none_is_refused(made, make, lifetime):
    with pytest.raises(InvalidValue):
        made(make, "alice", expires_delta=lifetime)


@pytest.mark.parametrize("make", [create_access_token, create_refresh_token])
@pytest.mark.parametrize(
    "identity", [None, "", 7, 7.0, True, b"alice", ["alice"], {"sub": "alice"}, "a\0b", "\ud800", "x" * 256]
)
def test_an_identity_is_a_non_empty_string(made, make, identity):
    with pytest.raises(InvalidValue):
        made(make, identity)


@pytest.mark.parametrize("identity", ["日本", "a b", "a\nb", "x" * 255, "<script>"])
def test_any_other_string_is_an_identity(ask, made, identity):
    assert ask("/", made(create_access_token, identity)).json["sub"] == identity


@pytest.mark.parametrize("make", [create_access_token, create_refresh_token])
@pytest.mark.parametrize(
    "claim", ["sub", "iss", "aud", "exp", "iat", "nbf", "jti", "client_id", "auth_time", "amr", "type", "fresh"]
)
def test_additional_claims_cannot_override_registered_ones(made, make, claim):
    with pytest.raises(InvalidValue, match=claim):
        made(make, "alice", additional_claims={claim: "mallory"})


@pytest.mark.parametrize("value", ["x", {"exp": 99999999999}])
def test_additional_claims_cannot_name_a_generation(made, value):
    with pytest.raises(InvalidValue, match="jam_gen"):
        made(create_access_token, "alice", additional_claims={"jam_gen": value})


@pytest.mark.parametrize("name", ["alg", "typ", "kid", "crit", "jwk", "jku", "b64", "x5c"])
@pytest.mark.parametrize("make", [create_access_token, create_refresh_token])
def test_additional_headers_cannot_override_registered_ones(made, make, name):
    with pytest.raises(InvalidValue, match=name):
        made(make, "alice", additional_headers={name: "none"})


@pytest.mark.parametrize("make", [create_access_token, create_refresh_token])
def test_additional_claims_and_headers_are_read_back(app, ask, made, make):
    app.get("/both")(jwt_required(verify_type=False)(lambda: [get_jwt()["plan"], get_jwt_header()["tenant"]]))
    token = made(make, "alice", additional_claims={"plan": ["gold", {"é": None}]}, additional_headers={"tenant": "ü"})
    assert ask("/both", token).json == [["gold", {"é": None}], "ü"]


@pytest.mark.parametrize("make", [create_access_token, create_refresh_token])
@pytest.mark.parametrize("argument", ["additional_claims", "additional_headers"])
@pytest.mark.parametrize(
    "value",
    [
        "abc",
        7,
        ["a"],
        {1: 2},
        {"x": float("nan")},
        {"x": {1}},
        {"x": b"1"},
        {"x": "\ud800"},
        {"x": too_deep()},
        {"x": "y" * 20_000},
    ],
)  # fmt: skip
def test_what_cannot_be_in_a_token_is_refused(made, make, argument, value):
    with pytest.raises(InvalidValue):
        made(make, "alice", **{argument: value})


def test_scope_and_roles_mean_what_the_checkpoints_ask(app, ask, made):
    app.get("/scope", endpoint="scope")(checkpoint(HasScope("read"))(lambda: "in"))
    app.get("/role", endpoint="role")(checkpoint(HasRole("admin"))(lambda: "in"))
    token = made(create_access_token, "alice", additional_claims={"scope": "read write", "roles": ["admin"]})
    assert [ask(path, token).text for path in ("/scope", "/role")] == ["in", "in"]


@pytest.mark.parametrize(
    "claims", [{"roles": "admin"}, {"roles": [1]}, {"roles": {"admin": 1, 2: 3}}, {"scope": ["a"]}, {"scope": None}]
)
def test_scope_and_roles_of_other_types_are_refused(made, claims):
    with pytest.raises(InvalidValue):
        made(create_access_token, "alice", additional_claims=claims)


def test_the_apps_loaders_add_claims_and_headers(app, made):
    app.extension.additional_claims_loader(lambda identity: {"greeting": f"hello {identity}"})
    app.extension.additional_headers_loader(lambda identity: {"tenant": identity.upper()})
    token = made(create_access_token, "alice")
    assert made(decode_token, token)["greeting"] == "hello alice"
    assert made(get_unverified_jwt_headers, token)["tenant"] == "ALICE"


def test_what_the_maker_names_counts_instead_of_the_loaders(app, made):
    app.extension.additional_claims_loader(lambda identity: {"a": 1})
    claims = made(decode_token, made(create_access_token, "alice", additional_claims={"b": 2}))
    assert "a" not in claims
    assert claims["b"] == 2


def test_a_loader_cannot_override_registered_claims_either(app, made):
    app.extension.additional_claims_loader(lambda identity: {"sub": "mallory"})
    with pytest.raises(InvalidValue, match="sub"):
        made(create_access_token, "alice")


def test_the_callers_own_mapping_is_not_changed(made):
    claims = {"scope": "read", "roles": ["a"], "plan": "gold"}
    made(create_access_token, "alice", additional_claims=claims)
    assert claims == {"scope": "read", "roles": ["a"], "plan": "gold"}


def test_an_access_token_dies_with_everything_of_its_subject(ask, made, jam):
    token = made(create_access_token, "alice")
    jam.revoke_all("alice")
    assert answer(ask("/", token)) == (401, "token_revoked")


def test_making_a_token_needs_an_extension(new_app):
    with new_app().app_context(), pytest.raises(ConfigError):
        create_access_token("alice")


# -- refresh tokens -----------------------------------------------------------------------------------------


@pytest.fixture
def rotating(app):
    app.post("/rotate")(jwt_required(refresh=True)(rotate_refresh_token))
    return app


def test_a_refresh_token_says_what_it_is(made, refresh_token):
    claims = made(decode_token, made(create_refresh_token, "alice"))
    assert (claims["sub"], claims["type"], claims["fresh"]) == ("alice", "refresh", False)


def test_a_rotated_token_that_comes_again_late_ends_its_family(rotating, ask, clock, refresh_token):
    successor = ask("/rotate", refresh_token, method="POST").text
    clock.move(11)
    assert answer(ask("/refresh", refresh_token)) == (401, "refresh_token_reused")
    assert answer(ask("/refresh", successor)) == (401, "token_revoked")


def test_within_the_overlap_everybody_gets_the_same_successor(rotating, ask, clock, refresh_token):
    first = ask("/rotate", refresh_token, method="POST").text
    clock.move(9)
    assert ask("/rotate", refresh_token, method="POST").text == first


def test_rotation_keeps_the_additional_claims(rotating, ask, made):
    token = made(create_refresh_token, "alice", additional_claims={"device": "phone"})
    assert made(decode_token, ask("/rotate", token, method="POST").text)["device"] == "phone"


def test_rotation_does_not_lengthen_the_familys_life(rotating, ask, made, clock):
    token = made(create_refresh_token, "alice", expires_delta=100)
    clock.move(60)
    successor = ask("/rotate", token, method="POST").text
    clock.move(40)
    assert answer(ask("/refresh", successor)) == (401, "token_expired")


def test_rotating_where_no_refresh_token_was_demanded_is_the_developers_mistake(app, ask, token):
    app.post("/rotate")(jwt_required()(rotate_refresh_token))
    with pytest.raises(ConfigError, match="no refresh token"):
        ask("/rotate", token, method="POST")


def test_a_family_that_ended_while_the_view_ran_is_401(app, ask, jam, refresh_token):
    @app.post("/rotate")
    @jwt_required(refresh=True)
    def view():
        jam.refresh_tokens.revoke_all("alice")
        return rotate_refresh_token()

    assert answer(ask("/rotate", refresh_token, method="POST")) == (401, "token_revoked")


def test_rotation_works_in_an_async_view(app, ask, refresh_token):
    @app.post("/rotate")
    @jwt_required(refresh=True)
    async def rotate():
        return rotate_refresh_token()

    assert ask("/refresh", ask("/rotate", refresh_token, method="POST").text).json["sub"] == "alice"


@pytest.mark.parametrize("kind", ["access", "refresh"])
def test_logging_out_everywhere_ends_tokens_of_both_kinds(ask, jam, kind):
    token = CREDENTIALS[kind](jam)
    jam.revoke_all("alice")
    assert answer(ask("/either", token)) == (401, "token_revoked")


def test_a_refresh_token_outlives_its_configured_lifetime_never(made):
    with pytest.raises(InvalidValue):
        made(create_refresh_token, "alice", expires_delta=timedelta(days=31))


# -- reading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [get_jwt_identity, get_jwt_request_location])
def test_without_a_token_there_is_nothing_to_read(app, ask, read):
    app.get("/read")(lambda: [read()])
    assert ask("/read").json == [None]


@pytest.mark.parametrize("read", [get_jwt, get_jwt_header])
def test_without_a_token_claims_and_header_are_empty(app, ask, read):
    app.get("/read")(lambda: read())
    assert ask("/read").json == {}


@pytest.mark.parametrize("read", [get_jwt_identity, get_jwt, get_jwt_header, get_jwt_request_location])
def test_options_on_a_view_that_reads_the_token_is_not_500(app, ask, read):
    app.route("/read", methods=["GET", "OPTIONS"])(lambda: [bool(read())])
    assert ask("/read", method="OPTIONS").json == [False]


def test_a_session_is_no_token(new_app, jam, handle):
    app = new_app()
    JWTExtension(jam, app)
    SessionExtension(jam, app)
    app.get("/")(lambda: [current_identity.subject, get_jwt_identity(), get_jwt(), get_jwt_header()])
    assert raw_client(app).get("/", headers=cookies(("sessionId", handle))).json == ["bob", None, {}, {}]


def test_the_claims_a_view_reads_are_its_own_to_change(app, ask, token):
    @app.get("/change")
    @jwt_required()
    def change():
        get_jwt()["sub"] = "mallory"
        return [get_jwt()["sub"], get_jwt_identity(), g.payload["sub"]]

    assert ask("/change", token).json == ["alice", "alice", "alice"]


def test_the_header_that_is_read_is_that_of_the_token_that_counted(app, ask, made):
    token = made(create_access_token, "alice", additional_headers={"tenant": "t1"})
    app.get("/header")(jwt_required()(lambda: get_jwt_header()))
    headers = cookies(("access_token_cookie", token))
    assert ask("/header", "garbage", headers=headers).json["tenant"] == "t1"


# -- decode_token and its kin -------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [decode_token, get_jti, get_unverified_jwt_headers])
@pytest.mark.parametrize("hostile", [*HOSTILE_TOKENS[:-1], None, 7, b"a.b.c", "\ud800"])
def test_reading_what_is_no_token_raises_jams_own_error(made, read, hostile):
    if read is get_unverified_jwt_headers and hostile == "eyJhbGciOiJub25lIn0.e30.":
        assert made(read, hostile) == {"alg": "none"}
        return
    with pytest.raises(TokenInvalid):
        made(read, hostile)


@pytest.mark.parametrize("hostile", [None, 7, b"a.b.c", "\ud800"])
def test_a_double_submit_value_for_what_is_no_token_raises_jams_own_error(made, hostile):
    with pytest.raises(TokenInvalid):
        made(get_csrf_token, hostile)


@pytest.mark.parametrize("kind", ["session", "other typ", "foreign"])
@pytest.mark.parametrize("read", [decode_token, get_jti])
def test_decode_token_reads_access_and_refresh_tokens_of_this_app_alone(made, jam, kind, read):
    with pytest.raises(TokenInvalid):
        made(read, CREDENTIALS[kind](jam))


def test_decode_token_of_an_expired_token_says_so(made, clock, token):
    clock.move(86401)
    with pytest.raises(TokenExpired):
        made(decode_token, token)


@pytest.mark.parametrize("kind", ["access", "refresh"])
def test_an_expired_token_is_decoded_if_that_is_allowed(made, jam, clock, kind):
    token = CREDENTIALS[kind](jam)
    clock.move(31 * 86400)
    assert made(decode_token, token, allow_expired=True)["sub"] == "alice"


def test_decode_token_of_a_revoked_token_says_so(made, jam, token):
    jam.access_tokens.revoke(token)
    with pytest.raises(TokenRevoked):
        made(decode_token, token)


@pytest.mark.parametrize("kind", ["access", "refresh"])
def test_get_jti_and_get_csrf_token_work_on_an_expired_token(made, jam, clock, kind):
    token = CREDENTIALS[kind](jam)
    name = made(decode_token, token)["jti"]
    clock.move(31 * 86400)
    assert made(get_jti, token) == name
    assert made(get_csrf_token, token)


def test_a_tampered_expired_token_has_no_jti(made, clock, token):
    header, payload, signature = token.split(".")
    claims = {**json.loads(b64url_decode(payload.encode())), "sub": "root"}
    clock.move(86401)
    with pytest.raises(TokenInvalid):
        made(
            decode_token,
            f"{header}.{b64url_encode(json.dumps(claims).encode()).decode()}.{signature}",
            allow_expired=True,
        )


# -- how refusals look --------------------------------------------------------------------------------------


def test_every_401_says_how_to_authenticate(ask, clock, token):
    assert any(line.startswith("Bearer") for line in challenges(ask()))
    assert 'error="invalid_token"' in challenges(ask("/", "garbage"))[0]
    clock.move(86401)
    assert 'error="invalid_token"' in challenges(ask("/", token))[0]


def test_a_refusal_has_jams_own_body(ask):
    response = ask("/", "garbage")
    assert response.json == {"error": "Unauthorized", "message": "The token is not valid.", "code": "token_invalid"}
    assert response.headers["Cache-Control"] == "no-store"


def test_a_view_that_reads_somebody_elses_token_answers_for_itself(app, ask):
    """Jam has no handler for what other libraries raise."""

    @app.get("/third-party")
    def view():
        raise ValueError("not Jam's")

    with pytest.raises(ValueError, match="not Jam's"):
        ask("/third-party")


def test_jams_error_for_a_token_that_a_view_decodes_is_401(app, ask):
    app.get("/decode")(lambda: decode_token("garbage"))
    assert answer(ask("/decode")) == INVALID


# -- verify_jwt_in_request ----------------------------------------------------------------------------------


def test_verify_jwt_in_request_gives_header_and_payload(app, ask, token):
    @app.get("/verify")
    def view():
        header, payload = verify_jwt_in_request()
        return [header["typ"], payload["sub"], get_jwt_identity()]

    assert ask("/verify", token).json == ["at+jwt", "alice", "alice"]


def test_verify_jwt_in_request_refuses_as_the_decorator_does(app, ask, token):
    app.get("/verify")(lambda: str(verify_jwt_in_request()))
    for bad in (None, "garbage"):
        refused, same = ask("/verify", bad), ask("/", bad)
        assert (answer(refused), challenges(refused)) == (answer(same), challenges(same))


def test_verify_jwt_in_request_gives_nothing_for_the_anonymous(app, ask):
    app.get("/verify")(lambda: [verify_jwt_in_request(optional=True)])
    assert ask("/verify").json == [None]
    assert ask("/verify", "garbage").json == [None]


def test_verify_jwt_in_request_works_in_an_async_view(app, ask, token):
    @app.get("/verify")
    async def view():
        verify_jwt_in_request()
        return get_jwt_identity()

    assert ask("/verify", token).text == "alice"
    assert answer(ask("/verify")) == NOBODY


def test_a_refusal_in_a_hook_ends_the_request(app, ask, token):
    ran = []
    app.before_request(lambda: verify_jwt_in_request() and None)
    app.get("/open")(lambda: ran.append(1) or "in")
    assert answer(ask("/open")) == NOBODY
    assert ran == []
    assert ask("/open", token).text == "in"


def test_verify_jwt_in_request_can_demand_more_than_the_guard(app, ask, made):
    @app.get("/stepped")
    @jwt_required()
    def view():
        verify_jwt_in_request(fresh=True)
        return "in"

    assert answer(ask("/stepped", made(create_access_token, "alice"))) == STALE
    assert ask("/stepped", made(create_access_token, "alice", fresh=True)).text == "in"


# -- every shape of view ------------------------------------------------------------------------------------


def test_without_its_parentheses_the_decorator_says_so():
    with pytest.raises(ConfigError, match="parentheses"):
        jwt_required(lambda: "in")


def test_a_method_view_is_guarded_method_by_method(app, ask, token):
    class Page(MethodView):
        @jwt_required(optional=True)
        def get(self):
            return "read"

        @jwt_required()
        def post(self):
            return "written"

    app.add_url_rule("/page", view_func=Page.as_view("page"))
    assert ask("/page").text == "read"
    assert answer(ask("/page", method="POST")) == NOBODY
    assert ask("/page", token, method="POST").text == "written"


def test_a_whole_view_class_is_guarded(app, ask, token):
    @jwt_required()
    class Page(MethodView):
        def get(self):
            return get_jwt_identity()

    app.add_url_rule("/page", view_func=Page.as_view("page"))
    assert answer(ask("/page")) == NOBODY
    assert ask("/page", token).text == "alice"


def test_an_async_view_is_guarded(app, ask, token):
    @app.get("/async")
    @jwt_required()
    async def view():
        return create_access_token(get_jwt_identity())

    assert answer(ask("/async")) == NOBODY
    assert ask("/async", token).status_code == 200


def test_head_is_guarded_like_get(ask, token):
    assert ask(method="HEAD").status_code == 401
    assert ask("/", token, method="HEAD").status_code == 200


def test_options_that_flask_answers_itself_needs_no_token(ask):
    assert ask(method="OPTIONS").status_code == 200


def test_a_view_in_a_blueprint_is_guarded(app, ask, token):
    inner = Blueprint("inner", __name__, url_prefix="/inner")
    inner.get("/")(jwt_required()(lambda: "in"))
    app.register_blueprint(inner)
    assert answer(ask("/inner/")) == NOBODY
    assert ask("/inner/", token).text == "in"


def test_a_protected_blueprint_may_hold_a_refresh_view_for_who_has_both(app, ask, token, refresh_token):
    inner = Blueprint("inner", __name__, url_prefix="/inner")
    protect(inner)
    inner.get("/")(jwt_required(refresh=True)(get_jwt_identity))
    app.register_blueprint(inner)
    headers = cookies(("refresh_token_cookie", refresh_token))
    assert ask("/inner/", token, headers=headers).text == "alice"
    assert answer(ask("/inner/", refresh_token)) == INVALID


def test_under_deny_by_default_jwt_required_answers_for_itself_and_optional_does_not_open(app, ask, refresh_token):
    deny_by_default(app)
    assert ask("/refresh", refresh_token).status_code == 200
    assert answer(ask("/optional")) == NOBODY


def test_a_flask_restful_resource_is_guarded(app, ask, token):
    class Thing(flask_restful.Resource):
        method_decorators = [jwt_required()]  # noqa: RUF012 - as its documentation writes it

        def get(self):
            return {"sub": get_jwt_identity()}

        def post(self):
            return abort(409)

    flask_restful.Api(app).add_resource(Thing, "/thing")
    assert answer(ask("/thing")) == NOBODY
    assert ask("/thing", token).json == {"sub": "alice"}
    assert ask("/thing", token, method="POST").status_code == 409


def test_verify_jwt_in_request_refuses_in_a_flask_restful_resource(app, ask):
    class Thing(flask_restful.Resource):
        def get(self):
            verify_jwt_in_request()

    flask_restful.Api(app).add_resource(Thing, "/thing")
    response = ask("/thing")
    assert answer(response) == NOBODY
    assert any(line.startswith("Bearer") for line in challenges(response))


def test_the_apps_own_answer_counts_in_a_flask_restful_resource(app, ask):
    app.extension.unauthorized_loader(lambda message: ({"mine": message}, 401))

    class Decorated(flask_restful.Resource):
        @jwt_required()
        def get(self):
            return {}

    class Verifying(flask_restful.Resource):
        def get(self):
            verify_jwt_in_request()

    api = flask_restful.Api(app)
    api.add_resource(Decorated, "/decorated")
    api.add_resource(Verifying, "/verifying")
    for path in ("/decorated", "/verifying"):
        assert ask(path).json == {"mine": "Authentication is required."}


def test_an_error_handler_of_the_apps_for_one_of_jams_errors_is_asked(app, ask, token, clock):
    app.register_error_handler(TokenExpired, lambda error: ({"renew": True}, 401))
    app.get("/verify")(lambda: str(verify_jwt_in_request()))
    clock.move(86401)
    for path in ("/", "/verify"):
        response = ask(path, token)
        assert response.json == {"renew": True}
        assert challenges(response)


# -- apps and extensions ------------------------------------------------------------------------------------


def test_tokens_work_in_an_app_that_is_set_up_later(new_app, jam):
    extension = JWTExtension(jam)
    extension.additional_claims_loader(lambda identity: {"early": True})
    app = new_app()
    app.get("/")(jwt_required()(lambda: get_jwt()["early"] and "in"))
    extension.init_app(app)
    with app.app_context():
        token = create_access_token("alice")
    assert raw_client(app).get("/", headers=bearer(token)).text == "in"


def test_two_apps_that_share_an_extension_take_each_others_tokens(new_app, jam):
    extension = JWTExtension(jam)
    one, other = new_app(), new_app(JWT_HEADER_NAME="X-Token", JWT_HEADER_TYPE="")
    for app in (one, other):
        extension.init_app(app)
        app.get("/")(jwt_required()(get_jwt_identity))
    with one.app_context():
        token = create_access_token("alice")
    assert raw_client(one).get("/", headers=bearer(token)).text == "alice"
    assert raw_client(other).get("/", headers={"X-Token": token}).text == "alice"
    assert answer(raw_client(other).get("/", headers=bearer(token))) == NOBODY


def test_the_current_app_decides_within_the_context_of_another(new_app, jam):
    one, other = new_app(), new_app(JWT_ENCODE_NBF=False)
    for app in (one, other):
        JWTExtension(jam, app)
    with one.app_context():
        with other.app_context():
            assert "nbf" not in decode_token(create_access_token("alice"))
        assert "nbf" in decode_token(create_access_token("alice"))


def test_a_guard_that_demands_a_token_in_an_app_that_looks_for_none_says_so(new_app, jam):
    app = new_app()
    SessionExtension(jam, app)
    app.get("/")(jwt_required()(lambda: "in"))
    with pytest.raises(ConfigError, match="JWTExtension"):
        raw_client(app).get("/")
