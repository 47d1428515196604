"""Every endpoint, and what nobody should send it: Jam's own refusal, and nothing done (ASVS 15.3.3, 15.3.5, 15.3.7)."""

import io
import json

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jam.ext.flask.accounts.account_views import account_endpoints
from jam.ext.flask.accounts.api_views import api_endpoints
from jam.ext.flask.accounts.sign_in_views import sign_in_endpoints
from tests.ext.flask.accounts.conftest import PASSWORD
from tests.ext.flask.callers import SAME_ORIGIN, answer, called

PREFIXES = {"jam_sign_in": "/auth", "jam_accounts": "/auth", "jam_api": "/api"}
WITH_BODIES = [
    (one.method, PREFIXES[group.name] + one.rule.replace("<token_id>", "x").replace("<user_id>", "1"), one)
    for group in (sign_in_endpoints, account_endpoints, api_endpoints)
    for one in group
    if one.body is not None
]
NAMES = [f"{method} {path}" for method, path, _ in WITH_BODIES]
BROKEN = {
    "an array": b"[]",
    "an array of objects": b'[{"username": "alice"}]',
    "a string": b'"alice"',
    "a number": b"1",
    "null": b"null",
    "nothing but space": b"  ",
    "a name twice": b'{"username": "alice", "username": "bob"}',
    "a name twice, spelt differently": b'{"username": "alice", "\\u0075sername": "bob"}',
    "a lone surrogate": b'{"username": "\\ud800"}',
    "invalid UTF-8": b'{"username": "\xff\xfe"}',
    "UTF-16": '{"username": "alice"}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "NaN": b'{"username": NaN}',
    "infinity": b'{"username": 1e999}',
    "two objects": b"{}{}",
    "half an object": b'{"username": "al',
    "a NUL": b"\x00",
    "deep nesting": b'{"username":' * 3000 + b"1" + b"}" * 3000,
    "deep arrays": b'{"username":' + b"[" * 20000 + b"]" * 20000 + b"}",
    "too much": b'{"username": "' + b"a" * 70_000 + b'"}',
}


@pytest.fixture
def headers(site):
    """A caller who passes every guard but those for refresh tokens."""
    alice = site.person("alice", scopes={"users:write"})
    now = site.jam.clock()
    token = site.jam.access_tokens.issue(
        alice.subject, claims={"type": "access", "fresh": True}, authenticated_at=now, scopes=["users:write"]
    )
    return {"Authorization": f"Bearer {token}", **SAME_ORIGIN}


def headers_for(site, headers, endpoint):
    """The refresh endpoint takes a refresh token instead."""
    if endpoint.name == "refresh":
        return {"Authorization": f"Bearer {site.jam.refresh_tokens.issue('1')}"}
    return headers


def still_alive(site, headers):
    return site.client().get("/auth/me", headers=headers).status_code == 200


@pytest.mark.parametrize("target", WITH_BODIES, ids=NAMES)
def test_asvs_15_3_5_a_body_that_is_no_json_object_is_refused_by_every_endpoint(site, headers, target):
    method, path, endpoint = target
    for name, body in BROKEN.items():
        response = site.client().open(
            path,
            method=method,
            data=body,
            content_type="application/json",
            headers=headers_for(site, headers, endpoint),
        )
        assert answer(response) == (400, "body_invalid"), (name, response.text)
        assert response.headers["Cache-Control"] == "no-store"
    assert still_alive(site, headers)


@pytest.mark.parametrize("target", WITH_BODIES, ids=NAMES)
@pytest.mark.parametrize(
    "content_type", ["text/plain", "multipart/form-data; boundary=x", "application/xml", "application/jsonx", ""]
)
def test_asvs_3_5_2_a_body_that_a_form_of_another_site_could_send_is_refused_by_every_endpoint(
    site, headers, target, content_type
):
    method, path, endpoint = target
    response = site.client().open(
        path, method=method, data=b"{}", content_type=content_type, headers=headers_for(site, headers, endpoint)
    )
    assert answer(response) == (400, "body_invalid"), response.text
    assert still_alive(site, headers)


@pytest.mark.parametrize("target", WITH_BODIES, ids=NAMES)
def test_asvs_15_3_3_a_field_that_nobody_declared_is_refused_by_every_endpoint_and_named(site, headers, target):
    method, path, endpoint = target
    given = {**sample(endpoint), "is_admin": True}
    response = site.client().open(path, method=method, json=given, headers=headers_for(site, headers, endpoint))
    assert answer(response) == (400, "body_invalid")
    assert response.json["fields"] == {"is_admin": "cannot be set here"}
    assert still_alive(site, headers)


@pytest.mark.parametrize("target", WITH_BODIES, ids=NAMES)
@pytest.mark.parametrize("value", [{"$ne": ""}, ["a"], [], None, 1.5, {"a": {"b": []}}], ids=repr)
def test_asvs_15_3_5_a_value_of_another_type_is_refused_by_every_endpoint_and_its_field_named(
    site, headers, target, value
):
    method, path, endpoint = target
    given = dict.fromkeys(sample(endpoint), value)
    response = site.client().open(path, method=method, json=given, headers=headers_for(site, headers, endpoint))
    assert answer(response) == (400, "body_invalid")
    allowed = {"answer"} if isinstance(value, dict) else {"lifetime"} if value == 1.5 else set()
    allowed |= {"scopes"} if value in ([], ["a"]) else set()
    assert set(response.json["fields"]) == set(given) - allowed
    assert still_alive(site, headers)


def sample(endpoint):
    """A body that has every field that is needed, and each that may be."""
    values = {"answer": {}, "scopes": [], "lifetime": 60.0}
    flags = {"cookies", "remember", "end_api_tokens", "api_tokens"}
    return {
        name: values.get(name, False if name in flags else "x")
        for name in endpoint.body.__struct_encode_fields__
        if name != "more"
    }


ENDPOINTS_THAT_ASK_FOR_SOMETHING = [
    (method, path, endpoint, [field.encode_name for field in fields])
    for method, path, endpoint in WITH_BODIES
    if (fields := [one for one in msgspec.structs.fields(endpoint.body) if one.required])
]


@pytest.mark.parametrize(
    "target",
    ENDPOINTS_THAT_ASK_FOR_SOMETHING,
    ids=[f"{method} {path}" for method, path, _, _ in ENDPOINTS_THAT_ASK_FOR_SOMETHING],
)
def test_what_is_missing_is_named_by_every_endpoint(site, headers, target):
    method, path, _, needed = target
    for sent in (None, {}):
        response = site.client().open(path, method=method, json=sent, headers=headers)
        assert answer(response) == (400, "body_invalid")
        assert response.json["fields"] == dict.fromkeys(needed, "is missing")
        assert all(name in response.json["message"] for name in needed)


# -- the length of bodies -----------------------------------------------------------------------------------


def chunked(app, path, data, **environ):
    """A request without a length, as a server hands it on that has taken the chunks apart."""
    stream = io.BytesIO(data)
    given = {"CONTENT_TYPE": "application/json", **environ}
    status, body = called(
        app, REQUEST_METHOD="POST", PATH_INFO=path, **{"wsgi.input": stream, "wsgi.input_terminated": True, **given}
    )
    return status, json.loads(body or b"null"), stream.tell()


def test_a_chunked_body_is_read(site, alice):
    body = json.dumps({"username": "alice", "password": PASSWORD}).encode()
    status, answered, _ = chunked(site.app, "/auth/api", body)
    assert status == 200
    assert "access_token" in answered


@pytest.mark.parametrize("path", ["/auth/api", "/auth/refresh", "/auth/revoke", "/api/users"])
def test_a_chunked_body_is_not_read_to_its_end_if_it_is_too_long(site, path):
    body = json.dumps({"refresh_token": "x" * 3_000_000}).encode()
    status, answered, read = chunked(site.app, path, body)
    assert (status, answered["code"]) in {(400, "body_invalid"), (401, "authentication_required")}
    assert read <= 65537


def test_a_chunked_form_is_not_read_to_its_end_if_it_is_too_long(site):
    status, answered, read = chunked(
        site.app, "/auth/revoke", b"token=" + b"x" * 3_000_000, CONTENT_TYPE="application/x-www-form-urlencoded"
    )
    assert (status, answered["code"]) == (400, "body_invalid")
    assert read <= 65537


def test_a_body_that_is_announced_too_long_is_not_read_at_all(site):
    for path in ("/auth/api", "/auth/refresh", "/auth/revoke", "/api/tokens"):
        status, answered, read = chunked(site.app, path, b"{}", CONTENT_LENGTH="65537")
        assert (status, answered["code"], read) == (400, "body_invalid", 0)


def test_a_body_of_the_longest_length_is_read(site):
    start, end = b'{"username": "nobody", "password": "x', b'"}'
    body = start + b"x" * (65536 - len(start) - len(end)) + end
    assert chunked(site.app, "/auth/api", body)[:2] == chunked(site.app, "/auth/api", body, CONTENT_LENGTH="65536")[:2]
    assert chunked(site.app, "/auth/api", body)[1]["code"] == "bad_credentials"
    assert chunked(site.app, "/auth/api", body + b" ")[1]["code"] == "body_invalid"


def test_an_app_that_takes_shorter_bodies_has_them_refused_in_jams_own_words(new_site):
    site = new_site(config={"MAX_CONTENT_LENGTH": 100})
    response = site.client().post("/auth/api", json={"username": "alice", "password": "x" * 200})
    assert answer(response) == (400, "body_invalid")
    assert response.json["message"] == "The body has at most 100 bytes."


class Gone(io.RawIOBase):
    """A client that went away in the middle of its request."""

    def readable(self):
        return True

    def readinto(self, buffer):
        raise OSError("the connection was reset")


@pytest.mark.parametrize("length", [{}, {"CONTENT_LENGTH": "20"}], ids=["chunked", "with a length"])
def test_a_client_that_goes_away_in_the_middle_is_no_error_of_the_server(site, length):
    status, body = called(
        site.app, REQUEST_METHOD="POST", PATH_INFO="/auth/api", CONTENT_TYPE="application/json",
        **{"wsgi.input": Gone(), "wsgi.input_terminated": True, **length},
    )  # fmt: skip
    assert (status, json.loads(body)["code"]) == (400, "body_invalid")


# -- forms and queries --------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["token=a&token=b", "token=a&tok%65n=b", "a=1&a=2&token=x"])
def test_asvs_15_3_7_a_field_of_a_form_that_comes_twice_is_refused(client, form):
    response = client.post("/auth/revoke", data=form, content_type="application/x-www-form-urlencoded")
    assert answer(response) == (400, "body_invalid")


@pytest.mark.parametrize("query", ["page=1&page=2", "page=1&pag%65=1", "per_page=1&page=1&per_page=1"])
def test_asvs_15_3_7_a_parameter_that_comes_twice_is_refused(site, client, alice, query):
    response = client.get(f"/api/users?{query}", headers=site.held(alice))
    assert answer(response) == (400, "body_invalid")
    assert list(response.json["fields"].values()) == ["is given twice"]


@pytest.mark.parametrize("page", ["0", "-1", "a", "", "1.5", "%D9%A1", "true", "null", "1%00", "9" * 40, "%FF", "[]"])
@pytest.mark.parametrize("name", ["page", "per_page"])
def test_a_page_that_is_no_number_from_1_is_refused(site, client, alice, name, page):
    response = client.get(f"/api/users?{name}={page}", headers=site.held(alice))
    assert answer(response) == (400, "body_invalid")
    assert list(response.json["fields"]) == [name]


def test_asvs_15_3_7_a_query_string_says_nothing_where_a_body_is_asked_for(site, client, alice):
    response = client.post(f"/auth/api?username=alice&password={PASSWORD.replace(' ', '+')}", json={})
    assert answer(response) == (400, "body_invalid")
    assert answer(client.post("/auth/api?cookies=true", json={"username": "alice", "password": "x"})) == (
        401,
        "bad_credentials",
    )


@pytest.mark.parametrize(
    "subject",
    ["%00", "1%00", "%ED%A0%80", "%FF", "-1", "01", "1%20", "%0A1", "%F0%9F%92%A9", "9" * 400, "1.0", "%EF%BC%91"],
)
def test_a_subject_that_cannot_be_one_is_nobody(site, client, alice, subject):
    site.users.update(alice.subject, {"roles": {"admin"}})
    headers = site.held(alice)
    for response in (
        client.get(f"/api/users/{subject}", headers=headers),
        client.put(f"/api/users/{subject}", json={"username": "mallory"}, headers=headers),
    ):
        assert answer(response) == (404, "user_not_found")
    assert site.now(alice).username == "alice"


@pytest.mark.parametrize("token_id", ["%00", "%ED%A0%80", "x", "9" * 400, "%F0%9F%92%A9", "a%0Ab"])
def test_the_id_of_a_token_or_login_that_cannot_be_one_is_nobodys(site, client, alice, token_id):
    headers = site.fresh(alice)
    for method, path, sent in (
        ("GET", f"/api/tokens/{token_id}", None),
        ("PATCH", f"/api/tokens/{token_id}", {"name": "x"}),
        ("DELETE", f"/api/tokens/{token_id}", None),
        ("DELETE", f"/auth/sessions/{token_id}", None),
    ):
        response = client.open(path, method=method, json=sent, headers=headers)
        assert response.status_code == 404, (method, path)
        assert response.json["code"] in {"api_token_not_found", "login_not_found"}


# -- anything -----------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_no_json_object_makes_an_endpoint_fail(site, data):
    site.app.testing = False  # so that an exception would be a 500, as it is for a client
    method, path, endpoint = data.draw(st.sampled_from(WITH_BODIES))
    fields = [name for name in endpoint.body.__struct_encode_fields__ if name != "more"]
    given = data.draw(st.dictionaries(st.sampled_from([*fields, "id", "roles"]), VALUES | st.text(max_size=2000)))
    body = json.dumps(given, ensure_ascii=True).encode()
    headers = {**SAME_ORIGIN, "Authorization": f"Bearer {site.jam.access_tokens.issue('1', claims={'fresh': True})}"}
    response = site.client().open(path, method=method, data=body, content_type="application/json", headers=headers)
    assert response.status_code < 500, (path, given, response.text)
    if response.status_code >= 400:
        assert response.json["code"]
        assert response.json["message"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200), kind=st.sampled_from(["application/json", "application/x-www-form-urlencoded"]))
def test_no_bytes_make_an_endpoint_fail(site, body, kind):
    response = site.client().post("/auth/revoke", data=body, content_type=kind)
    assert answer(response) in {(200, None), (400, "body_invalid")}
