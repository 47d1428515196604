"""The ``JWT_*`` keys of an app's configuration: which count, which are refused, and which have no effect."""

import logging
import secrets
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flask import Flask, Response

from jam import Jam
from jam.errors import ConfigError
from jam.ext.flask import (
    JWTExtension,
    create_access_token,
    create_refresh_token,
    decode_token,
    get_jwt_identity,
    get_jwt_request_location,
    get_unverified_jwt_headers,
    jwt_required,
    set_access_cookies,
    set_refresh_cookies,
)
from jam.ext.flask import settings as flask_settings
from tests.ext.flask.callers import SAME_ORIGIN, answer, bearer, cookies, raw_client, set_cookies

NOBODY = (401, "authentication_required")
DAY = 86400

# All 43, with the defaults of Flask-JWT-Extended 4.7.4.
THEIR_DEFAULTS = {
    "JWT_ACCESS_TOKEN_EXPIRES": timedelta(minutes=15),
    "JWT_REFRESH_TOKEN_EXPIRES": timedelta(days=30),
    "JWT_ALGORITHM": "HS256",
    "JWT_DECODE_ALGORITHMS": None,
    "JWT_SECRET_KEY": None,
    "JWT_PRIVATE_KEY": None,
    "JWT_PUBLIC_KEY": None,
    "JWT_DECODE_AUDIENCE": None,
    "JWT_ENCODE_AUDIENCE": None,
    "JWT_DECODE_ISSUER": None,
    "JWT_ENCODE_ISSUER": None,
    "JWT_DECODE_LEEWAY": 0,
    "JWT_ENCODE_NBF": True,
    "JWT_VERIFY_SUB": True,
    "JWT_IDENTITY_CLAIM": "sub",
    "JWT_ERROR_MESSAGE_KEY": "msg",
    "JWT_TOKEN_LOCATION": ("headers",),
    "JWT_HEADER_NAME": "Authorization",
    "JWT_HEADER_TYPE": "Bearer",
    "JWT_QUERY_STRING_NAME": "jwt",
    "JWT_QUERY_STRING_VALUE_PREFIX": "",
    "JWT_JSON_KEY": "access_token",
    "JWT_REFRESH_JSON_KEY": "refresh_token",
    "JWT_ACCESS_COOKIE_NAME": "access_token_cookie",
    "JWT_ACCESS_COOKIE_PATH": "/",
    "JWT_REFRESH_COOKIE_NAME": "refresh_token_cookie",
    "JWT_REFRESH_COOKIE_PATH": "/",
    "JWT_COOKIE_DOMAIN": None,
    "JWT_COOKIE_SAMESITE": None,
    "JWT_COOKIE_SECURE": False,
    "JWT_SESSION_COOKIE": True,
    "JWT_COOKIE_CSRF_PROTECT": True,
    "JWT_CSRF_IN_COOKIES": True,
    "JWT_CSRF_METHODS": ["POST", "PUT", "PATCH", "DELETE"],
    "JWT_CSRF_CHECK_FORM": False,
    "JWT_ACCESS_CSRF_COOKIE_NAME": "csrf_access_token",
    "JWT_ACCESS_CSRF_COOKIE_PATH": "/",
    "JWT_ACCESS_CSRF_HEADER_NAME": "X-CSRF-TOKEN",
    "JWT_ACCESS_CSRF_FIELD_NAME": "csrf_token",
    "JWT_REFRESH_CSRF_COOKIE_NAME": "csrf_refresh_token",
    "JWT_REFRESH_CSRF_COOKIE_PATH": "/",
    "JWT_REFRESH_CSRF_HEADER_NAME": "X-CSRF-TOKEN",
    "JWT_REFRESH_CSRF_FIELD_NAME": "csrf_token",
}

WITHOUT_EFFECT = {"JWT_ERROR_MESSAGE_KEY", "JWT_CSRF_CHECK_FORM"}


@pytest.fixture
def make(new_app, clock):
    """An app with a Jam of its own, that is told nothing but what the configuration says."""

    def made(**config):
        app = new_app(**config)
        app.extension = JWTExtension(Jam(clock=clock), app)

        @app.route("/", methods=["GET", "POST"])
        @jwt_required()
        def view():
            return {"sub": get_jwt_identity(), "where": get_jwt_request_location()}

        @app.route("/refresh", methods=["GET", "POST"])
        @jwt_required(refresh=True)
        def refresh():
            return {"sub": get_jwt_identity(), "where": get_jwt_request_location()}

        return app

    return made


def token_of(app, make_token=create_access_token, **options):
    with app.app_context():
        return make_token("alice", **options)


def claims_of(app, token):
    with app.app_context():
        return decode_token(token)


def cookies_of(app, put, make_token):
    response = Response()
    with app.test_request_context():
        put(response, make_token("alice"))
    return set_cookies(response)


def access_cookies(app):
    return cookies_of(app, set_access_cookies, create_access_token)


def refresh_cookies(app):
    return cookies_of(app, set_refresh_cookies, create_refresh_token)


def refused(app):
    """What the developer is told when the first token is made."""
    with pytest.raises(ConfigError) as caught:
        token_of(app)
    return caught.value


# -- all of them --------------------------------------------------------------------------------------------


def test_there_are_43_of_them():
    assert len(THEIR_DEFAULTS) == 43


def test_an_app_that_spells_out_their_defaults_runs(make):
    app = make(**THEIR_DEFAULTS)
    assert raw_client(app).get("/", headers=bearer(token_of(app))).json == {"sub": "alice", "where": "headers"}


@pytest.mark.parametrize(
    "key", sorted(THEIR_DEFAULTS.keys() - {"JWT_VERIFY_SUB", "JWT_IDENTITY_CLAIM", "JWT_COOKIE_CSRF_PROTECT"})
)
def test_none_means_that_the_key_was_left_out(make, key):
    assert token_of(make(**{key: None}))


@pytest.mark.parametrize("key", sorted(THEIR_DEFAULTS.keys() - WITHOUT_EFFECT))
@pytest.mark.parametrize("nonsense", [object(), {"a": 1}, 1.5e308, [["x"]], 7j])
def test_a_value_of_another_type_is_refused(make, key, nonsense):
    with pytest.raises(ConfigError):
        token_of(make(**{key: nonsense}))


@pytest.mark.parametrize("key", sorted(THEIR_DEFAULTS.keys() - WITHOUT_EFFECT))
def test_a_refusal_names_the_key_that_the_app_wrote(make, key):
    assert key in str(refused(make(**{key: {"a": 1}})))


@pytest.mark.parametrize("key", sorted(THEIR_DEFAULTS.keys() - WITHOUT_EFFECT - {"JWT_COOKIE_CSRF_PROTECT"}))
def test_a_refusal_never_quotes_a_secret(make, key):
    assert "s3cr3t" not in str(refused(make(**{key: {"s3cr3t": "s3cr3t"}})))


# -- times --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [60, 60.0, timedelta(minutes=1)])
def test_access_token_expires_is_in_seconds_or_a_timedelta(make, value):
    app = make(JWT_ACCESS_TOKEN_EXPIRES=value)
    claims = claims_of(app, token_of(app))
    assert claims["exp"] - claims["iat"] == 60


@pytest.mark.parametrize("value", [DAY, float(DAY), timedelta(days=1)])
def test_refresh_token_expires_is_in_seconds_or_a_timedelta(make, value):
    app = make(JWT_REFRESH_TOKEN_EXPIRES=value)
    claims = claims_of(app, token_of(app, create_refresh_token))
    assert claims["exp"] - claims["iat"] == DAY


def test_an_argument_counts_more_than_the_configuration(make):
    app = make(JWT_ACCESS_TOKEN_EXPIRES=60)
    claims = claims_of(app, token_of(app, expires_delta=timedelta(minutes=2)))
    assert claims["exp"] - claims["iat"] == 120


@pytest.mark.parametrize("key", ["JWT_ACCESS_TOKEN_EXPIRES", "JWT_REFRESH_TOKEN_EXPIRES"])
@pytest.mark.parametrize("forever", [False, True])
def test_a_token_that_never_expires_is_refused_with_the_safe_form(make, key, forever):
    error = refused(make(**{key: forever}))
    assert key in error.message
    assert "refresh token" in error.hint


@pytest.mark.parametrize("key", ["JWT_ACCESS_TOKEN_EXPIRES", "JWT_REFRESH_TOKEN_EXPIRES"])
@pytest.mark.parametrize("value", [0, -1, "3600", "", float("nan"), float("inf"), timedelta(0), timedelta(-1)])
def test_a_lifetime_that_is_none_is_refused(make, key, value):
    with pytest.raises(ConfigError):
        token_of(make(**{key: value}))


def test_an_access_token_lifetime_beyond_the_limit_says_how_to_raise_it(make):
    assert "max_lifetime" in str(refused(make(JWT_ACCESS_TOKEN_EXPIRES=timedelta(days=7))))
    app = make(JWT_ACCESS_TOKEN_EXPIRES=timedelta(days=7), JAM_ACCESS_TOKENS_MAX_LIFETIME=7 * DAY)
    assert token_of(app)


@pytest.mark.parametrize("value", [5, timedelta(seconds=5)])
def test_decode_leeway_lets_clocks_differ(make, clock, value):
    app = make(JWT_DECODE_LEEWAY=value)
    token = token_of(app, expires_delta=60)
    clock.move(64)
    assert raw_client(app).get("/", headers=bearer(token)).status_code == 200
    clock.move(1)
    assert answer(raw_client(app).get("/", headers=bearer(token))) == (401, "token_expired")


def test_jams_own_key_counts_more(make):
    app = make(JWT_ACCESS_TOKEN_EXPIRES=60, JAM_ACCESS_TOKENS_LIFETIME=120)
    claims = claims_of(app, token_of(app))
    assert claims["exp"] - claims["iat"] == 120


# -- keys and algorithms ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair():
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


def test_jwt_secret_key_signs_tokens_instead_of_secret_key(make, new_app):
    own = secrets.token_urlsafe(64)
    app, other = make(JWT_SECRET_KEY=own), make()
    token = token_of(app)
    assert claims_of(app, token)["sub"] == "alice"
    assert answer(raw_client(other).get("/", headers=bearer(token))) == (401, "token_invalid")
    assert claims_of(make(JWT_SECRET_KEY=own, SECRET_KEY=secrets.token_urlsafe(64)), token)["sub"] == "alice"


def test_jwt_secret_key_signs_refresh_tokens_too(make):
    app, other = make(JWT_SECRET_KEY=secrets.token_urlsafe(64)), make()
    token = token_of(app, create_refresh_token)
    assert raw_client(app).get("/refresh", headers=bearer(token)).status_code == 200
    assert answer(raw_client(other).get("/refresh", headers=bearer(token))) == (401, "token_invalid")


def test_jwt_secret_key_alone_is_enough(make):
    app = make(SECRET_KEY=None, JWT_SECRET_KEY=secrets.token_urlsafe(64))
    assert claims_of(app, token_of(app))["sub"] == "alice"


@pytest.mark.parametrize("weak", ["abc123", "your-secret-key", "super-secret", "jwt-secret-string"])
def test_asvs_13_3_1_a_weak_jwt_secret_key_is_refused_outside_debug_and_testing(weak, secret):
    app = Flask(__name__)
    app.config.update(SECRET_KEY=secret, JWT_SECRET_KEY=weak)
    JWTExtension(Jam(), app)
    error = refused(app)
    assert "secrets.token_urlsafe" in error.hint
    assert weak not in str(error)


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_algorithm_is_that_of_the_secret(make, algorithm):
    app = make(JWT_ALGORITHM=algorithm)
    with app.app_context():
        assert get_unverified_jwt_headers(create_access_token("alice"))["alg"] == algorithm


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", "hs256", "RS256", "ES256", "HS1", "x" * 300])
def test_an_algorithm_that_no_secret_can_have_is_refused(make, algorithm):
    with pytest.raises(ConfigError):
        token_of(make(JWT_ALGORITHM=algorithm))


@pytest.mark.parametrize("form", [str, str.encode])
def test_a_private_key_signs_and_its_public_half_verifies(make, pair, form):
    private, public = pair
    app = make(JWT_ALGORITHM="ES256", JWT_PRIVATE_KEY=form(private), JWT_PUBLIC_KEY=form(public))
    token = token_of(app)
    assert claims_of(app, token)["sub"] == "alice"
    assert claims_of(make(JWT_ALGORITHM="ES256", JWT_PUBLIC_KEY=form(public)), token)["sub"] == "alice"


def test_an_app_with_a_public_key_alone_makes_no_tokens(make, pair):
    app = make(JWT_ALGORITHM="ES256", JWT_PUBLIC_KEY=pair[1])
    with pytest.raises(ConfigError, match="only verify"):
        token_of(app)


def test_the_public_key_is_no_hmac_secret(make, pair):
    """RFC 8725 2.1: a token signed with the public key as if it were a secret."""
    private, public = pair
    forger = make(SECRET_KEY=public, JWT_SECRET_KEY=public)
    verifier = make(JWT_ALGORITHM="ES256", JWT_PRIVATE_KEY=private)
    assert answer(raw_client(verifier).get("/", headers=bearer(token_of(forger)))) == (401, "token_invalid")


@pytest.mark.parametrize("key", ["JWT_PRIVATE_KEY", "JWT_PUBLIC_KEY"])
@pytest.mark.parametrize("value", ["garbage", b"garbage", b"\xff\xfe", "-----BEGIN PRIVATE KEY-----\nx\n"])
def test_what_is_no_key_is_refused(make, key, value):
    with pytest.raises(ConfigError):
        token_of(make(JWT_ALGORITHM="ES256", **{key: value}))


@pytest.mark.parametrize("algorithms", [["HS256"], ("HS256",), {"HS256"}])
def test_decode_algorithms_may_name_the_one_there_is(make, algorithms):
    assert token_of(make(JWT_DECODE_ALGORITHMS=algorithms))


@pytest.mark.parametrize(
    "algorithms", [[], ["none"], ["HS256", "none"], ["HS256", "RS256"], ["RS256"], "HS256", ["hs256"]]
)
def test_decode_algorithms_cannot_widen_what_is_accepted(make, algorithms):
    error = refused(make(JWT_DECODE_ALGORITHMS=algorithms))
    assert "JWT_DECODE_ALGORITHMS" in error.message
    assert "JAM_ACCESS_TOKENS_PUBLIC_KEYS" in error.hint


def test_the_apps_own_list_is_not_changed(make):
    algorithms = ["HS256"]
    token_of(make(JWT_DECODE_ALGORITHMS=algorithms))
    assert algorithms == ["HS256"]


# -- names in tokens ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "side"),
    [("iss", "ENCODE_ISSUER"), ("iss", "DECODE_ISSUER"), ("aud", "ENCODE_AUDIENCE"), ("aud", "DECODE_AUDIENCE")],
)
def test_issuer_and_audience_may_be_named_on_either_side(make, claim, side):
    app = make(**{f"JWT_{side}": "shop"})
    assert claims_of(app, token_of(app))[claim] == "shop"


@pytest.mark.parametrize("name", ["ISSUER", "AUDIENCE"])
def test_a_token_for_another_name_is_refused(make, name):
    app, other = make(**{f"JWT_ENCODE_{name}": "shop"}), make(**{f"JWT_DECODE_{name}": "bakery"})
    assert answer(raw_client(other).get("/", headers=bearer(token_of(app)))) == (401, "token_invalid")


@pytest.mark.parametrize("name", ["ISSUER", "AUDIENCE"])
def test_both_sides_must_agree(make, name):
    assert token_of(make(**{f"JWT_ENCODE_{name}": "shop", f"JWT_DECODE_{name}": ["shop"]}))
    error = refused(make(**{f"JWT_ENCODE_{name}": "shop", f"JWT_DECODE_{name}": "bakery"}))
    assert f"JWT_ENCODE_{name}" in error.message
    assert f"JWT_DECODE_{name}" in error.message


@pytest.mark.parametrize("value", [["a", "b"], [], "", [""], [7]])
def test_an_audience_is_one_name(make, value):
    with pytest.raises(ConfigError):
        token_of(make(JWT_DECODE_AUDIENCE=value))


@pytest.mark.parametrize("wanted", [True, False])
def test_encode_nbf_says_whether_tokens_have_it(make, wanted):
    app = make(JWT_ENCODE_NBF=wanted)
    assert ("nbf" in claims_of(app, token_of(app))) is wanted


@pytest.mark.parametrize("value", [False, 0, "no"])
def test_verify_sub_cannot_be_switched_off(make, value):
    error = refused(make(JWT_VERIFY_SUB=value))
    assert "JWT_VERIFY_SUB" in error.message
    assert "str(user.id)" in error.hint


@pytest.mark.parametrize("value", ["identity", "user_id", "SUB", ""])
def test_the_subject_is_in_sub(make, value):
    error = refused(make(JWT_IDENTITY_CLAIM=value))
    assert "JWT_IDENTITY_CLAIM" in error.message
    assert "additional_claims" in error.hint


def test_the_error_message_key_has_no_effect_and_says_so_once(make, caplog, monkeypatch):
    monkeypatch.setattr(flask_settings, "_mentioned", set())
    with caplog.at_level(logging.WARNING):
        apps = [make(JWT_ERROR_MESSAGE_KEY="msg") for _ in range(2)]
        bodies = [raw_client(app).get("/").json for app in apps]
    assert [set(body) for body in bodies] == [{"error", "message", "code"}] * 2
    assert len([record for record in caplog.records if "JWT_ERROR_MESSAGE_KEY" in record.getMessage()]) == 1


# -- where tokens are ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["cookies", ["cookies"], ("cookies",), {"cookies"}, frozenset(("cookies",))])
def test_token_location_is_a_name_or_a_collection_of_names(make, value):
    app = make(JWT_TOKEN_LOCATION=value)
    token = token_of(app)
    client = raw_client(app)
    assert client.get("/", headers=cookies(("access_token_cookie", token))).json["where"] == "cookies"
    assert answer(client.get("/", headers=bearer(token))) == NOBODY


@pytest.mark.parametrize("value", [[], (), "", "header", ["headers", "body"], ["Headers"], [None]])
def test_a_location_that_does_not_exist_is_refused(make, value):
    assert "JWT_TOKEN_LOCATION" in str(refused(make(JWT_TOKEN_LOCATION=value)))


def test_header_name_and_type(make):
    app = make(JWT_HEADER_NAME="X-Api-Token", JWT_HEADER_TYPE="JWT")
    token, client = token_of(app), raw_client(app)
    assert client.get("/", headers={"X-Api-Token": f"jwt {token}"}).status_code == 200
    assert answer(client.get("/", headers=bearer(token))) == NOBODY
    assert answer(client.get("/", headers={"X-Api-Token": f"Bearer {token}"})) == NOBODY
    assert client.get("/").headers["WWW-Authenticate"].startswith("JWT realm=")
    assert "X-Api-Token" in client.get("/", headers={"X-Api-Token": f"JWT {token}"}).headers["Vary"]


def test_header_name_and_type_hold_for_refresh_tokens_too(make):
    app = make(JWT_HEADER_NAME="X-Api-Token", JWT_HEADER_TYPE="JWT")
    token = token_of(app, create_refresh_token)
    assert raw_client(app).get("/refresh", headers={"X-Api-Token": f"JWT {token}"}).status_code == 200
    assert answer(raw_client(app).get("/refresh", headers=bearer(token))) == NOBODY


def test_an_empty_header_type_means_nothing_but_the_token(make):
    app = make(JWT_HEADER_TYPE="")
    token = token_of(app)
    assert raw_client(app).get("/", headers={"Authorization": token}).status_code == 200
    assert raw_client(app).get("/", headers=bearer(token)).status_code == 401


def test_query_string_name_and_prefix(make):
    app = make(JWT_TOKEN_LOCATION="query_string", JWT_QUERY_STRING_NAME="t", JWT_QUERY_STRING_VALUE_PREFIX="v1:")
    token, client = token_of(app), raw_client(app)
    assert client.get("/", query_string={"t": f"v1:{token}"}).json["where"] == "query_string"
    assert answer(client.get("/", query_string={"t": token})) == NOBODY
    assert answer(client.get("/", query_string={"jwt": f"v1:{token}"})) == NOBODY


def test_json_keys(make):
    app = make(JWT_TOKEN_LOCATION="json", JWT_JSON_KEY="a", JWT_REFRESH_JSON_KEY="r")
    access, refresh, client = token_of(app), token_of(app, create_refresh_token), raw_client(app)
    assert client.post("/", json={"a": access, "r": refresh}).json["where"] == "json"
    assert client.post("/refresh", json={"a": access, "r": refresh}).json["where"] == "json"
    assert answer(client.post("/", json={"access_token": access})) == NOBODY


# -- cookies ------------------------------------------------------------------------------------------------


def test_cookie_names_and_paths(make):
    app = make(
        JWT_TOKEN_LOCATION="cookies",
        JWT_ACCESS_COOKIE_NAME="a",
        JWT_ACCESS_COOKIE_PATH="/api",
        JWT_REFRESH_COOKIE_NAME="r",
        JWT_REFRESH_COOKIE_PATH="/auth",
    )
    assert "path=/api" in access_cookies(app)["a"][1]
    assert "path=/auth" in refresh_cookies(app)["r"][1]
    assert raw_client(app).get("/", headers=cookies(("a", token_of(app)))).status_code == 200
    assert (
        raw_client(app).get("/refresh", headers=cookies(("r", token_of(app, create_refresh_token)))).status_code == 200
    )


def test_the_extensions_own_cookie_name_counts_where_the_configuration_says_none(new_app, jam, token):
    app = new_app()
    JWTExtension(jam, app, cookie_name="own")
    app.get("/")(jwt_required()(lambda: "in"))
    assert raw_client(app).get("/", headers=cookies(("own", token))).text == "in"
    assert list(access_cookies(app)) == ["own"]


def test_cookie_domain_samesite_and_secure(make):
    config = {"JWT_COOKIE_DOMAIN": "example.com", "JWT_COOKIE_SAMESITE": "Strict", "JWT_COOKIE_SECURE": True}
    app = make(JWT_TOKEN_LOCATION="cookies", JWT_CSRF_IN_COOKIES=True, **config)
    for value, attributes in (*access_cookies(app).values(), *refresh_cookies(app).values()):
        assert value
        assert {"domain=example.com", "samesite=strict", "secure"} <= attributes


@pytest.mark.parametrize("value", ["Strict", "strict", "STRICT"])
def test_samesite_is_compared_without_regard_to_case(make, value):
    app = make(JWT_TOKEN_LOCATION="cookies", JWT_COOKIE_SAMESITE=value)
    assert "samesite=strict" in access_cookies(app)["access_token_cookie"][1]


@pytest.mark.parametrize("value", ["", "Foo", "Lax; Secure", False, True])
def test_samesite_is_one_of_three(make, value):
    assert "JWT_COOKIE_SAMESITE" in str(refused(make(JWT_COOKIE_SAMESITE=value)))


def test_samesite_none_needs_https(make):
    assert "SameSite=None" in str(refused(make(JWT_COOKIE_SAMESITE="None")))
    assert token_of(make(JWT_COOKIE_SAMESITE="None", JAM_HTTPS=True))


def test_cookies_cannot_be_sent_in_the_clear_where_there_is_https(make):
    error = refused(make(JWT_COOKIE_SECURE=False, JAM_HTTPS=True))
    assert "JWT_COOKIE_SECURE" in error.message
    assert "JAM_HTTPS = False" in error.hint


def test_session_cookie_says_whether_cookies_end_with_the_browsers_session(make):
    lasting = {"JWT_TOKEN_LOCATION": "cookies", "JWT_SESSION_COOKIE": False, "JWT_CSRF_IN_COOKIES": True}
    assert not any(
        one.startswith("max-age")
        for one in access_cookies(make(JWT_TOKEN_LOCATION="cookies"))["access_token_cookie"][1]
    )
    assert all("max-age=900" in attributes for _, attributes in access_cookies(make(**lasting)).values())
    assert all(f"max-age={30 * DAY}" in attributes for _, attributes in refresh_cookies(make(**lasting)).values())


@pytest.mark.parametrize(
    "key",
    [
        "JWT_HEADER_NAME",
        "JWT_ACCESS_COOKIE_NAME",
        "JWT_REFRESH_COOKIE_NAME",
        "JWT_ACCESS_CSRF_COOKIE_NAME",
        "JWT_REFRESH_CSRF_COOKIE_NAME",
        "JWT_ACCESS_CSRF_HEADER_NAME",
        "JWT_REFRESH_CSRF_HEADER_NAME",
    ],
)
@pytest.mark.parametrize("name", ["", "a b", "a;b", "é", "a\r\nb"])
def test_what_cannot_be_the_name_of_a_header_or_cookie_is_refused(make, key, name):
    assert key in str(refused(make(**{key: name})))


@pytest.mark.parametrize("domain", ["", "a b", "a;b", "a\r\nb", "example.com; Path=/"])
def test_what_cannot_be_a_domain_is_refused(make, domain):
    assert "JWT_COOKIE_DOMAIN" in str(refused(make(JWT_COOKIE_DOMAIN=domain)))


@pytest.mark.parametrize(
    "key",
    [
        "JWT_ACCESS_COOKIE_PATH",
        "JWT_REFRESH_COOKIE_PATH",
        "JWT_ACCESS_CSRF_COOKIE_PATH",
        "JWT_REFRESH_CSRF_COOKIE_PATH",
    ],
)
@pytest.mark.parametrize("path", ["", "api", "a b"])
def test_a_cookies_path_begins_at_the_root(make, key, path):
    """RFC 6265 5.2.4: a browser takes any other for none at all."""
    assert key in str(refused(make(**{key: path})))


# -- forgery ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [False, 0, "no"])
def test_csrf_protection_cannot_be_switched_off(make, value):
    error = refused(make(JWT_COOKIE_CSRF_PROTECT=value))
    assert "JWT_COOKIE_CSRF_PROTECT" in error.message
    assert "JAM_CSRF_TRUSTED_ORIGINS" in error.hint


@pytest.mark.parametrize("value", [["post", "Put", "PATCH", "DELETE"], {"POST", "PUT", "PATCH", "DELETE"}])
def test_csrf_methods_may_name_what_is_guarded_anyway(make, value):
    assert token_of(make(JWT_CSRF_METHODS=value))


@pytest.mark.parametrize(
    "value", [[], ["POST"], "POST", ["POST", "PUT", "PATCH"], ["GET", "POST", "PUT", "PATCH", "DELETE"]]
)
def test_csrf_methods_can_name_no_others(make, value):
    assert "JWT_CSRF_METHODS" in str(refused(make(JWT_CSRF_METHODS=value)))


@pytest.mark.parametrize("wanted", [True, False])
def test_csrf_in_cookies_says_whether_a_double_submit_value_comes_along(make, wanted):
    app = make(JWT_TOKEN_LOCATION="cookies", JWT_CSRF_IN_COOKIES=wanted)
    assert ("csrf_access_token" in access_cookies(app)) is wanted
    assert ("csrf_refresh_token" in refresh_cookies(app)) is wanted


def test_csrf_cookie_names_and_paths(make):
    app = make(
        JWT_TOKEN_LOCATION="cookies",
        JWT_CSRF_IN_COOKIES=True,
        JWT_ACCESS_CSRF_COOKIE_NAME="ca",
        JWT_ACCESS_CSRF_COOKIE_PATH="/a",
        JWT_REFRESH_CSRF_COOKIE_NAME="cr",
        JWT_REFRESH_CSRF_COOKIE_PATH="/r",
    )
    assert "path=/a" in access_cookies(app)["ca"][1]
    assert "path=/r" in refresh_cookies(app)["cr"][1]


DOUBLE_SUBMIT = {
    "JWT_TOKEN_LOCATION": "cookies",
    "JWT_CSRF_IN_COOKIES": True,
    "JWT_CSRF_CHECK_FORM": True,
    "JWT_ACCESS_CSRF_HEADER_NAME": "X-Access",
    "JWT_ACCESS_CSRF_FIELD_NAME": "access_field",
    "JWT_REFRESH_CSRF_HEADER_NAME": "X-Refresh",
    "JWT_REFRESH_CSRF_FIELD_NAME": "refresh_field",
}


def double_submit(app, which, **config):
    """The Cookie header and the value that a page of the site would send back."""
    found = access_cookies(app) if which == "access" else refresh_cookies(app)
    token = found[f"{which}_token_cookie"][0]
    return cookies((f"{which}_token_cookie", token)), found[f"csrf_{which}_token"][0]


@pytest.mark.parametrize(
    ("which", "path", "header"), [("access", "/", "X-Access"), ("refresh", "/refresh", "X-Refresh")]
)
def test_the_double_submit_value_may_come_back_in_the_header_of_that_name(make, which, path, header):
    """It proves the site's own pages to who sends neither Sec-Fetch-Site nor Origin."""
    app = make(**DOUBLE_SUBMIT)
    headers, value = double_submit(app, which)
    assert raw_client(app).post(path, headers={**headers, header: value}).status_code == 200
    assert answer(raw_client(app).post(path, headers={**headers, header: value[::-1]})) == (403, "csrf_failed")


@pytest.mark.parametrize(
    ("which", "path", "field"), [("access", "/", "access_field"), ("refresh", "/refresh", "refresh_field")]
)
def test_the_double_submit_value_may_come_back_in_the_form_field_of_that_name(make, which, path, field):
    app = make(**DOUBLE_SUBMIT)
    headers, value = double_submit(app, which)
    assert raw_client(app).post(path, headers=headers, data={field: value}).status_code == 200
    assert answer(raw_client(app).post(path, headers=headers, data={field: value[::-1]})) == (403, "csrf_failed")


def test_pages_of_the_site_need_no_double_submit(make):
    app = make(**DOUBLE_SUBMIT)
    headers, _ = double_submit(app, "access")
    assert raw_client(app).post("/", headers={**headers, **SAME_ORIGIN}).status_code == 200


# -- several apps -------------------------------------------------------------------------------------------


def test_apps_of_one_jam_may_look_in_different_places(new_app, jam, token):
    extension = JWTExtension(jam)
    apps = [new_app(JWT_TOKEN_LOCATION=one) for one in ("headers", "query_string")]
    for app in apps:
        extension.init_app(app)
        app.get("/")(jwt_required()(get_jwt_request_location))
    assert raw_client(apps[0]).get("/", headers=bearer(token)).text == "headers"
    assert raw_client(apps[1]).get("/", query_string={"jwt": token}).text == "query_string"
    assert answer(raw_client(apps[0]).get("/", query_string={"jwt": token})) == NOBODY


@pytest.mark.parametrize("key", ["JWT_ACCESS_TOKEN_EXPIRES", "JWT_REFRESH_TOKEN_EXPIRES"])
def test_apps_of_one_jam_agree_on_what_is_the_jams(new_app, key):
    extension = JWTExtension(Jam())
    one, other = new_app(**{key: 60}), new_app(**{key: 120})
    for app in (one, other):
        extension.init_app(app)
    assert "do not agree" in str(refused(one))


def test_configuration_that_is_set_after_init_app_counts(new_app):
    app = new_app()
    JWTExtension(Jam(), app)
    app.config["JWT_ACCESS_TOKEN_EXPIRES"] = 60
    claims = claims_of(app, token_of(app))
    assert claims["exp"] - claims["iat"] == 60
