"""Where credentials are looked for, in what order, and what hostile headers and cookies come to."""

import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jam.ext.flask import Authenticated, JWTExtension, SessionExtension, checkpoint, current_identity
from tests.ext.flask.callers import SAME_ORIGIN, answer, bearer, called, challenges, cookies, raw_client

GARBAGE = "eyJhbGciOiJub25lIn0.e30."


def whoami(app, headers=(), **options):
    response = raw_client(app).get("/whoami", headers=headers, **options)
    assert response.status_code == 200
    return response.json["subject"]


def expired(jam, clock):
    token = jam.access_tokens.issue("alice", lifetime=1)
    clock.move(2)
    return token


# -- order --------------------------------------------------------------------------------------------------


def test_nothing_presented_is_nobody(site):
    assert whoami(site) is None


def test_a_header_comes_before_a_cookie(site, token, handle):
    assert whoami(site, {**bearer(token), **cookies(("sessionId", handle))}) == "alice"


def test_a_header_comes_before_a_cookie_whichever_extension_was_set_up_first(app, jam, token, handle):
    SessionExtension(jam, app)
    JWTExtension(jam, app)
    app.get("/whoami")(lambda: {"subject": current_identity.subject})
    assert whoami(app, {**bearer(token), **cookies(("sessionId", handle))}) == "alice"


def test_of_two_headers_the_one_set_up_first_counts(app, jam, token, handle):
    SessionExtension(jam, app, header_name="X-Session", cookie_name=None)
    JWTExtension(jam, app)
    app.get("/whoami")(lambda: {"subject": current_identity.subject})
    assert whoami(app, {**bearer(token), "X-Session": f"Bearer {handle}"}) == "bob"


@pytest.mark.parametrize("junk", [GARBAGE, "", "a b", "Zm9v"])
def test_an_invalid_header_never_hides_a_valid_cookie(site, handle, junk):
    assert whoami(site, {"Authorization": f"Bearer {junk}", **cookies(("sessionId", handle))}) == "bob"


def test_an_expired_header_never_hides_a_valid_cookie(site, jam, clock):
    old = expired(jam, clock)
    handle = jam.create_session("bob")
    assert whoami(site, {**bearer(old), **cookies(("sessionId", handle))}) == "bob"


def test_an_invalid_cookie_never_hides_a_valid_header(site, token):
    assert whoami(site, {**bearer(token), **cookies(("sessionId", "junk"))}) == "alice"


def test_another_scheme_in_the_header_never_hides_a_valid_cookie(site, handle):
    assert whoami(site, {"Authorization": "Basic YTpi", **cookies(("sessionId", handle))}) == "bob"


def test_an_invalid_cookie_never_hides_a_valid_one_of_another_name(app, jam, token):
    SessionExtension(jam, app)
    JWTExtension(jam, app, header_name=None, cookie_name="jwt")
    app.get("/whoami")(lambda: {"subject": current_identity.subject})
    assert whoami(app, cookies(("sessionId", "junk"), ("jwt", token))) == "alice"


# -- the reason ---------------------------------------------------------------------------------------------


def test_nothing_presented_says_so(site):
    assert answer(raw_client(site).get("/members")) == (401, "authentication_required")


def test_a_bad_token_says_so(site):
    assert answer(raw_client(site).get("/members", headers=bearer(GARBAGE))) == (401, "token_invalid")


def test_an_expired_token_says_so(site, jam, clock):
    assert answer(raw_client(site).get("/members", headers=bearer(expired(jam, clock)))) == (401, "token_expired")


def test_a_revoked_token_says_so(site, jam, token):
    jam.access_tokens.revoke(token)
    assert answer(raw_client(site).get("/members", headers=bearer(token))) == (401, "token_revoked")


def test_a_token_that_is_not_valid_yet_says_so(site, jam, clock):
    token = jam.access_tokens.issue("alice", not_before=clock.now + 60)
    assert answer(raw_client(site).get("/members", headers=bearer(token))) == (401, "token_not_yet_valid")


def test_a_dead_session_says_so(site, jam, handle):
    jam.delete_session(handle)
    headers = cookies(("sessionId", handle))
    assert answer(raw_client(site).get("/members", headers=headers)) == (401, "session_invalid")


def test_the_more_telling_reason_is_kept(site, jam, clock):
    headers = {**bearer(expired(jam, clock)), **cookies(("sessionId", "junk"))}
    assert answer(raw_client(site).get("/members", headers=headers)) == (401, "token_expired")


def test_where_two_kinds_share_a_header_an_expired_token_still_says_so(app, jam, clock):
    JWTExtension(jam, app)
    SessionExtension(jam, app, header_name="Authorization", cookie_name=None)
    app.get("/members")(checkpoint(Authenticated())(lambda: "in"))
    assert answer(raw_client(app).get("/members", headers=bearer(expired(jam, clock)))) == (401, "token_expired")


def test_asvs_7_3_1_a_session_dies_unused_and_lives_on_used(site, jam, clock):
    headers = cookies(("sessionId", jam.create_session("bob")))
    for _ in range(3):
        clock.move(3500)
        assert whoami(site, headers) == "bob"
    clock.move(3601)
    assert answer(raw_client(site).get("/members", headers=headers)) == (401, "session_invalid")


def test_asvs_7_3_2_a_session_that_is_always_used_dies_at_its_absolute_end(site, jam, clock):
    headers = cookies(("sessionId", jam.create_session("bob")))
    for _ in range(24):
        assert whoami(site, headers) == "bob"
        clock.move(3600 - 1)
    assert whoami(site, headers) == "bob"
    clock.move(24)
    assert whoami(site, headers) is None


# -- the header ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_rfc6750_2_1_the_scheme_may_have_any_case(site, token, scheme):
    assert whoami(site, {"Authorization": f"{scheme} {token}"}) == "alice"


def test_rfc6750_2_1_more_than_one_space_may_stand_before_the_token(site, token):
    assert whoami(site, {"Authorization": f"Bearer   {token}"}) == "alice"


@pytest.mark.parametrize(
    "header",
    [
        "{token}",
        "Bearer{token}",
        "Bearer={token}",
        "Bearer:{token}",
        "Token {token}",
        "JWT {token}",
        "Basic {token}",
        "BearerX {token}",
        "Bearer {token} {token}",
        "Bearer {token},Bearer {token}",
        "Bearer {token}, Basic YTpi",
        "Basic YTpi, Bearer {token}",
        'Bearer "{token}"',
        "Bearer token={token}",
        "Bearer {token};",
        "Bearer {token}=",
        "Bearer Bearer {token}",
        "Bearer \x00{token}",
        "Bearer {token}\x00",
        "\x00Bearer {token}",
        "Bearer\x00{token}",
        "Bearer \xa0{token}\xa0",
        "Bearer \x85{token}",
        "Bearer {token}\x1f",
        "Bearer\xa0{token}",
    ],
)
def test_rfc6750_2_1_nothing_but_the_scheme_and_one_token_is_a_bearer_header(site, token, header):
    status, _ = called(site, PATH_INFO="/members", HTTP_AUTHORIZATION=header.format(token=token))
    assert status == 401


@pytest.mark.parametrize("header", ["Bearer", "bearer", "Bearer ", "Bearer    ", "", " ", "Bearer \t"])
def test_a_scheme_without_a_token_is_answered_401(site, header):
    assert called(site, PATH_INFO="/members", HTTP_AUTHORIZATION=header)[0] == 401


def test_the_same_header_sent_twice_is_not_a_token(site, token):
    """Servers join duplicated headers with a comma (RFC 9110 5.3)."""
    client = raw_client(site)
    response = client.get("/members", headers=[("Authorization", f"Bearer {token}"), ("Authorization", "Bearer x")])
    assert response.status_code == 401


@pytest.mark.parametrize("name", ["authorization", "AUTHORIZATION", "AuThOrIzAtIoN"])
def test_the_headers_name_may_have_any_case(site, token, name):
    assert whoami(site, {name: f"Bearer {token}"}) == "alice"


@pytest.mark.parametrize("configured", ["X-Access-Token", "x-access-token", "X-ACCESS-TOKEN"])
def test_a_header_of_the_apps_own_is_read(app, jam, token, configured):
    JWTExtension(jam, app, header_name=configured)
    app.get("/whoami")(lambda: {"subject": current_identity.subject})
    assert whoami(app, {"X-Access-Token": f"Bearer {token}"}) == "alice"
    assert whoami(app, {"Authorization": f"Bearer {token}"}) is None


def test_without_a_header_name_no_header_is_read(app, jam, token):
    JWTExtension(jam, app, header_name=None, cookie_name="jwt")
    app.get("/whoami")(lambda: {"subject": current_identity.subject})
    assert whoami(app, bearer(token)) is None
    assert whoami(app, cookies(("jwt", token))) == "alice"


@pytest.mark.parametrize(
    "place", ["access_token={token}", "token={token}", "jwt={token}", "Authorization=Bearer+{token}"]
)
def test_asvs_14_2_1_tokens_are_not_taken_from_the_url(site, token, place):
    assert whoami(site, query_string=place.format(token=token)) is None


def test_tokens_are_not_taken_from_the_body(site, token):
    response = raw_client(site).post("/members", data={"access_token": token}, headers=SAME_ORIGIN)
    assert response.status_code == 401


@pytest.mark.parametrize("value", ["é" * 20, "\xff\xfe", "ключ".encode().decode("latin-1"), "\x00", "\x7f", "\r\n"])
def test_odd_characters_are_answered_401_not_500(site, value):
    for header in (value, f"Bearer {value}", f"{value} x"):
        assert called(site, PATH_INFO="/members", HTTP_AUTHORIZATION=header)[0] == 401
    assert called(site, PATH_INFO="/members", HTTP_COOKIE=f"sessionId={value}")[0] == 401


@pytest.mark.parametrize("filler", ["a", ".", "a.", "=", " ", "Bearer ", "\xff", "eyJ", "{"])
def test_rfc8725bis_3_13_a_hundred_kilobytes_of_header_are_refused_at_once(site, filler):
    header = "Bearer " + (filler * 100_000)[:100_000]
    called(site, PATH_INFO="/members")
    started = time.perf_counter()
    assert called(site, PATH_INFO="/members", HTTP_AUTHORIZATION=header)[0] == 401
    assert time.perf_counter() - started < 0.2


@pytest.mark.parametrize("filler", ["sessionId=x; ", "sessionId; ", "a=b; ", ";", "=", "sessionId", "sessionId=", " ;"])
def test_a_hundred_kilobytes_of_cookies_are_refused_at_once(site, filler):
    called(site, PATH_INFO="/members")
    started = time.perf_counter()
    assert called(site, PATH_INFO="/members", HTTP_COOKIE=(filler * 100_000)[:100_000])[0] == 401
    assert time.perf_counter() - started < 0.2


# -- cookies ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sessionid", "SESSIONID", "SessionId", "sessionId2", "xsessionId", "session"])
def test_rfc6265bis_cookie_names_are_compared_exactly(site, handle, name):
    assert whoami(site, cookies((name, handle))) is None


def test_several_cookies_of_one_name_are_all_tried(site, jam, handle):
    """A browser sends one for each path and domain, and a neighbouring subdomain may have planted the first."""
    ended = jam.create_session("mallory")
    jam.delete_session(ended)
    assert whoami(site, cookies(("sessionId", "junk"), ("sessionId", ended), ("sessionId", handle))) == "bob"


def test_of_several_good_cookies_of_one_name_the_first_counts(site, jam, handle):
    other = jam.create_session("carol")
    assert whoami(site, cookies(("sessionId", handle), ("sessionId", other))) == "bob"


def test_other_cookies_do_no_harm(site, handle):
    assert whoami(site, cookies(("a", "1"), ("b", '"; '), ("sessionId", handle), ("c", "sessionId=x"))) == "bob"


@pytest.mark.parametrize("separator", [";", "; ", " ; ", ";  ", ";\t"])
def test_the_separator_may_have_white_space_or_none(site, handle, separator):
    assert whoami(site, {"Cookie": f"a=1{separator}sessionId={handle}{separator}b=2"}) == "bob"


@pytest.mark.parametrize(
    "header",
    [
        "={name}={handle}",
        "=={name}={handle}",
        "x={name}={handle}",
        "{name}",
        "{name}=",
        "{name};{handle}",
        '{name}="{handle}',
        "{name}={handle}x",
        "{name}=x{handle}",
        "{name}={handle},{name}={handle}",
        "$Version=1,{name}={handle}",
    ],
)
def test_rfc6265bis_a_nameless_or_mangled_cookie_is_not_a_session(app, jam, handle, header):
    """A nameless cookie ``=__Host-sid=x`` is what browsers that do not know better let a subdomain set."""
    app.config["JAM_HTTPS"] = True
    SessionExtension(jam, app, cookie_name="__Host-sid")
    app.get("/whoami")(lambda: {"subject": current_identity.subject})
    assert whoami(app, {"Cookie": header.format(name="__Host-sid", handle=handle)}) is None


@pytest.mark.parametrize("space", ["\x85", "\xa0", "\x1c", "\x1d", "\x1e", "\x1f", "\x0b", "\x0c", "\u2000", "\u3000"])
def test_rfc6265bis_no_other_white_space_hides_a_cookies_prefix_from_the_browser(app, jam, handle, space):
    """A browser lets any subdomain set a cookie whose name only begins with the prefix after such a character."""
    app.config["JAM_HTTPS"] = True
    SessionExtension(jam, app, cookie_name="__Host-sid")
    app.get("/whoami")(lambda: {"subject": current_identity.subject})
    hidden = f"{space}__Host-sid".encode() if ord(space) > 255 else f"{space}__Host-sid".encode("latin-1")
    header = f"{hidden.decode('latin-1')}={handle}"
    assert b'"subject":null' in called(app, PATH_INFO="/whoami", HTTP_COOKIE=header)[1].replace(b" ", b"")


@pytest.mark.parametrize("name", ["__host-sid", "__HOST-sid", "__Host-SID", "__Host-sid "[:-1] + "x"])
def test_rfc6265bis_a_prefixed_cookie_in_another_spelling_is_another_cookie(app, jam, handle, name):
    app.config["JAM_HTTPS"] = True
    SessionExtension(jam, app, cookie_name="__Host-sid")
    app.get("/whoami")(lambda: {"subject": current_identity.subject})
    assert whoami(app, cookies((name, handle))) is None


def test_only_the_configured_name_is_read_not_its_prefixed_twin(site, handle):
    assert whoami(site, cookies(("__Host-sessionId", handle), ("__Secure-sessionId", handle))) is None


@pytest.mark.parametrize(
    "tamper", [lambda h: h[:-1], lambda h: h + "A", lambda h: h.swapcase(), lambda h: h.split(".")[0]]
)
def test_asvs_7_2_1_an_altered_handle_is_nobody(site, handle, tamper):
    assert whoami(site, cookies(("sessionId", tamper(handle)))) is None


def test_asvs_7_2_1_one_sessions_secret_does_not_open_another(site, jam, handle):
    other = jam.create_session("carol")
    mixed = f"{handle.split('.')[0]}.{other.split('.')[1]}"
    assert whoami(site, cookies(("sessionId", mixed))) is None


def test_asvs_9_2_2_a_token_is_no_session_and_a_session_no_token(site, token, handle):
    assert whoami(site, bearer(handle)) is None
    assert whoami(site, cookies(("sessionId", token))) is None


def test_a_token_in_a_cookie_of_its_own(app, jam, token):
    JWTExtension(jam, app, header_name=None, cookie_name="access_token")
    app.get("/whoami")(lambda: {"subject": current_identity.subject})
    assert whoami(app, cookies(("access_token", token))) == "alice"


def test_a_token_without_sub_is_nobody_by_name(site, jam):
    headers = bearer(jam.gen_jwt_token({"user": 1}))
    assert whoami(site, headers) is None
    assert answer(raw_client(site).get("/members", headers=headers)) == (401, "authentication_required")


# -- fuzzing ------------------------------------------------------------------------------------------------

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LATIN = st.text(st.characters(max_codepoint=255), max_size=200)
PIECES = st.lists(
    st.sampled_from(
        ["Bearer", "bearer ", " ", "a", ".", "eyJ9", "=", ",", ";", "\x00", "\xff", '"', "\\", "{", "sessionId="]
    )
    | st.text(st.characters(max_codepoint=255), max_size=5),
    max_size=12,
).map("".join)


@FUZZ
@given(header=LATIN | PIECES | LATIN.map("Bearer {}".format))
@example("Bearer " + "." * 5)
@example("Bearer \x00")
def test_asvs_16_5_1_no_authorization_header_is_an_internal_error(site, header):
    assert called(site, PATH_INFO="/whoami", HTTP_AUTHORIZATION=header)[0] == 200
    assert called(site, PATH_INFO="/members", HTTP_AUTHORIZATION=header)[0] == 401


@FUZZ
@given(header=LATIN | PIECES | LATIN.map("sessionId={}".format))
@example("sessionId")
@example('sessionId="\\')
def test_asvs_16_5_1_no_cookie_header_is_an_internal_error(site, header):
    assert called(site, PATH_INFO="/whoami", HTTP_COOKIE=header)[0] == 200
    assert called(site, PATH_INFO="/members", HTTP_COOKIE=header)[0] == 401


@FUZZ
@given(data=st.data())
def test_asvs_9_1_1_no_change_of_a_token_leaves_it_good(site, token, data):
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters(max_codepoint=255).filter(lambda c: c != token[at]))
    changed = token[:at] + other + token[at + 1 :]
    assert called(site, PATH_INFO="/members", HTTP_AUTHORIZATION=f"Bearer {changed}")[0] == 401


@FUZZ
@given(data=st.data())
def test_asvs_7_2_1_no_change_of_a_handle_leaves_it_good(site, handle, data):
    at = data.draw(st.integers(0, len(handle) - 1))
    other = data.draw(st.characters(max_codepoint=255).filter(lambda c: c != handle[at]))
    changed = handle[:at] + other + handle[at + 1 :]
    assert called(site, PATH_INFO="/members", HTTP_COOKIE=f"sessionId={changed}")[0] == 401


def test_rfc9110_11_6_1_every_carrier_is_named_in_the_challenge(site):
    said = " ".join(challenges(raw_client(site).get("/members")))
    assert "Bearer" in said
    assert "Cookie" in said
    assert "sessionId" in said
