"""The API of the seeds, request by request: a real client, a real server of several processes, a model of the app's own.

Seed 003 trades credentials for a JWT at ``/auth/api``; seed 004 has tokens for HTTP Basic, and users as hypermedia.
"""

import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.ext.flask.accounts.served_blog import CAT, password_hash_of
from tests.ext.flask.accounts.serving import blog_served
from tests.services import POSTGRESQL, fresh_database

PASSWORD = "correct horse battery"
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
PATIENCE = 20


class Api:
    """A client of the blog's."""

    def __init__(self, address, app):
        self.address, self.app = address, app

    def call(self, method, path, **options):
        return requests.request(method, self.address + path, timeout=PATIENCE, **options)

    def get(self, path, **options):
        return self.call("GET", path, **options)

    def post(self, path, given=None, **options):
        return self.call("POST", path, json=given, **options)

    def bearer(self, name="susan", password=CAT):
        pair = self.post("/auth/api", {"username": name, "password": password}).json()
        return {"Authorization": f"Bearer {pair['access_token']}"}


@pytest.fixture(scope="module", params=["SQLite", "PostgreSQL"])
def database_url(request):
    if request.param == "SQLite":
        yield None
    else:
        yield from fresh_database("PostgreSQL", POSTGRESQL)


@pytest.fixture(scope="module")
def api(database_url, secret, tmp_path_factory):
    """One that everybody may register at."""
    with blog_served(secret, tmp_path_factory.mktemp("blog"), database_url, SERVED_OPEN="1") as (address, app):
        yield Api(address, app)


@pytest.fixture(scope="module")
def closed_api(secret, tmp_path_factory):
    with blog_served(secret, tmp_path_factory.mktemp("closed")) as (address, app):
        yield Api(address, app)


# -- seed 003 -----------------------------------------------------------------------------------------------


def test_seed_003_credentials_are_traded_for_a_token(api):
    answered = api.post("/auth/api", {"username": "susan", "password": CAT})
    assert (answered.status_code, answered.headers["Content-Type"]) == (200, "application/json")
    assert answered.headers["Cache-Control"] == "no-store"
    token = answered.json()["access_token"]
    me = api.get("/auth/me", headers={"Authorization": f"Bearer {token}"})
    assert (me.status_code, me.json()["username"]) == (200, "susan")


def test_seed_003_what_is_missing_is_named(api):
    for given, missing in (
        ({}, ["username", "password"]),
        ({"username": "susan"}, ["password"]),
        ({"password": CAT}, ["username"]),
    ):
        answered = api.post("/auth/api", given)
        assert (answered.status_code, answered.json()["code"]) == (400, "body_invalid")
        assert list(answered.json()["fields"]) == missing
        assert all(name in answered.json()["message"] for name in missing)


def test_seed_003_bad_credentials_are_a_401(api):
    for given in ({"username": "susan", "password": "dog"}, {"username": "nobody", "password": CAT}):
        answered = api.post("/auth/api", given)
        assert (answered.status_code, answered.json()["code"]) == (401, "bad_credentials")
        assert "Bearer" in answered.headers["WWW-Authenticate"]


def test_seed_003_a_hash_from_before_is_renewed_at_the_first_sign_in(api):
    api.bearer("david")
    assert password_hash_of(api.app, "david").startswith("$argon2id$")
    assert api.bearer("david")


# -- seed 004: tokens ---------------------------------------------------------------------------------------


def test_seed_004_a_token_is_fetched_with_basic_used_and_revoked(api):
    made = api.post("/api/tokens", auth=("susan", CAT))
    assert made.status_code == 200
    assert made.json()["token"].startswith("jam_")
    headers = {"Authorization": f"Bearer {made.json()['token']}"}
    assert api.get("/api/users/1", headers=headers).status_code == 200
    revoked = api.call("DELETE", "/api/tokens", headers=headers)
    assert (revoked.status_code, revoked.content) == (204, b"")
    for _ in range(6):  # whichever worker answers
        assert api.get("/api/users/1", headers=headers).status_code == 401


def test_seed_004_without_credentials_basic_is_asked_for(api):
    answered = api.post("/api/tokens")
    assert (answered.status_code, answered.json()["error"]) == (401, "Unauthorized")
    assert 'Basic realm="jam"' in answered.headers["WWW-Authenticate"]
    assert api.post("/api/tokens", auth=("susan", "dog")).json()["code"] == "bad_credentials"


def test_seed_004_nothing_but_a_token_revokes_a_token(api):
    assert api.call("DELETE", "/api/tokens").status_code == 401
    assert api.call("DELETE", "/api/tokens", auth=("susan", CAT)).status_code == 401
    assert api.call("DELETE", "/api/tokens", headers=api.bearer()).status_code == 401


# -- seed 004: users ----------------------------------------------------------------------------------------


def test_seed_004_a_user_is_shown_with_links(api):
    shown = api.get("/api/users/1", headers=api.bearer()).json()
    assert set(shown) >= {"id", "username", "email", "about_me", "last_seen", "_links"}
    assert (shown["id"], shown["username"], shown["email"]) == (1, "susan", "susan@example.com")
    assert shown["_links"] == {"self": "/api/users/1", "avatar": "https://avatars.example/1"}
    assert ISO.fullmatch(shown["last_seen"])


def test_seed_004_the_email_address_is_shown_to_its_owner_alone(api):
    shown = api.get("/api/users/2", headers=api.bearer()).json()
    assert "email" not in shown
    assert shown["username"] == "david"


def test_seed_004_users_come_in_pages(api):
    page = api.get("/api/users?page=1&per_page=1", headers=api.bearer()).json()
    assert set(page) == {"items", "_meta", "_links"}
    assert [item["username"] for item in page["items"]] == ["susan"]
    assert page["_meta"]["per_page"] == 1
    assert page["_meta"]["total_pages"] == page["_meta"]["total_items"]
    assert page["_links"] == {
        "self": "/api/users?page=1&per_page=1",
        "next": "/api/users?page=2&per_page=1",
        "prev": None,
    }
    assert api.get("/api/users?per_page=1000", headers=api.bearer()).json()["_meta"]["per_page"] == 100


def test_seed_004_nobody_sees_users_without_a_token(api):
    for path in ("/api/users", "/api/users/1"):
        answered = api.get(path)
        assert (answered.status_code, answered.json()["error"]) == (401, "Unauthorized")


def test_seed_004_who_does_not_exist_is_a_404(api):
    answered = api.get("/api/users/4711", headers=api.bearer())
    assert (answered.status_code, answered.json()["error"]) == (404, "Not Found")


def test_seed_004_a_user_is_made_and_said_where(api):
    given = {
        "username": "alice",
        "email": "alice@example.com",
        "password": PASSWORD,
        "about_me": "Hello, my name is Alice!",
    }
    made = api.post("/api/users", given)
    assert made.status_code == 201
    assert made.headers["Location"] == made.json()["_links"]["self"]
    assert (made.json()["about_me"], "email" in made.json()) == ("Hello, my name is Alice!", False)
    headers = api.bearer("alice", PASSWORD)
    shown = api.get(made.headers["Location"], headers=headers).json()
    assert (shown["email"], shown["about_me"]) == ("alice@example.com", "Hello, my name is Alice!")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"username": "susan"}, "Please use a different username."),
        ({"email": "susan@example.com"}, "Please use a different email address."),
        ({"username": None}, "'username': Expected 'str', got 'null'."),
        ({"id": 1}, "'id': cannot be set here."),
        ({"last_seen": "2018-01-01T00:00:00Z"}, "'last_seen': cannot be set here."),
    ],
)
def test_seed_004_a_user_who_cannot_be_made_is_a_400_that_says_why(api, change, message):
    answered = api.post("/api/users", {"username": "new", "email": "new@example.com", "password": PASSWORD, **change})
    assert (answered.status_code, answered.json()["message"]) == (400, message)


def test_seed_004_what_a_new_user_needs_is_named(api):
    answered = api.post("/api/users", {})
    assert (answered.status_code, answered.json()["message"]) == (
        400,
        "must include username, email and password fields",
    )


def test_seed_004_people_change_themselves_and_nobody_else(api):
    headers = api.bearer()
    changed = api.call("PUT", "/api/users/1", json={"about_me": "Hi, I am Susan"}, headers=headers)
    assert (changed.status_code, changed.json()["about_me"]) == (200, "Hi, I am Susan")
    assert api.call("PUT", "/api/users/2", json={"about_me": "Hi"}, headers=headers).status_code == 403
    assert api.get("/api/users/2", headers=headers).json()["about_me"] is None
    taken = api.call("PUT", "/api/users/1", json={"username": "david"}, headers=headers)
    assert (taken.status_code, taken.json()["message"]) == (400, "Please use a different username.")


@pytest.mark.parametrize(
    ("accept", "kind"), [("text/html", "text/html"), ("application/json", "application/json"), ("*/*", "application/json"),
                     ("application/problem+json", "application/problem+json")]
)  # fmt: skip
def test_seed_004_errors_come_as_json_or_a_page(api, accept, kind):
    answered = api.get("/api/users/1", headers={"Accept": accept})
    assert (answered.status_code, answered.headers["Content-Type"].partition(";")[0]) == (401, kind)


def test_a_site_that_is_not_open_lets_nobody_make_users(closed_api):
    given = {"username": "alice", "email": "alice@example.com", "password": PASSWORD}
    assert closed_api.post("/api/users", given).status_code == 401
    assert closed_api.post("/api/users", given, headers=closed_api.bearer()).status_code == 403
    assert closed_api.get("/api/users", headers=closed_api.bearer()).json()["_meta"]["total_items"] == 2


# -- what the seeds forget ----------------------------------------------------------------------------------


def at_once(number, ask):
    ready = threading.Barrier(number)

    def go(one):
        ready.wait(PATIENCE)
        return ask(one)

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(go, range(number)))


@pytest.mark.parametrize("what", ["username", "email"])
def test_of_many_who_register_at_once_under_one_name_one_is_made(api, what):
    def ask(number):
        given = {"username": f"racer{what}{number}", "email": f"racer{what}{number}@example.com", "password": PASSWORD}
        given[what] = "therace" if what == "username" else "therace@example.com"
        answered = api.post("/api/users", given)
        return answered.status_code, answered.json().get("code")

    assert sorted(at_once(8, ask), key=str) == [(201, None)] + 7 * [(400, f"{what}_taken")]


def test_of_many_who_take_one_name_at_once_one_gets_it(api):
    people = []
    for number in range(4):
        given = {"username": f"runner{number}", "email": f"runner{number}@example.com", "password": PASSWORD}
        where = api.post("/api/users", given).headers["Location"]
        people.append((where, api.bearer(f"runner{number}", PASSWORD)))

    def ask(number):
        where, headers = people[number]
        answered = api.call("PUT", where, json={"username": "thewinner"}, headers=headers)
        return answered.status_code, answered.json().get("code")

    assert sorted(at_once(4, ask), key=str) == [(200, None)] + 3 * [(400, "username_taken")]


def test_a_refresh_token_is_used_once_by_whichever_worker(api):
    pair = api.post("/auth/api", {"username": "susan", "password": CAT}).json()
    answers = at_once(6, lambda _: api.post("/auth/refresh", {"refresh_token": pair["refresh_token"]}))
    assert {answered.status_code for answered in answers} == {200}  # within the overlap: the same successor
    assert len({answered.json()["refresh_token"] for answered in answers}) == 1


def test_a_browser_signs_in_and_out_for_all_workers(api):
    browser = requests.Session()
    browser.headers["Sec-Fetch-Site"] = "same-origin"
    with browser:
        signed_in = browser.post(
            f"{api.address}/auth/sign-in", json={"username": "susan", "password": CAT}, timeout=PATIENCE
        )
        assert signed_in.status_code == 200
        stolen = browser.cookies.get_dict()
        for _ in range(6):
            assert api.get("/auth/me", cookies=stolen).status_code == 200
        assert browser.post(f"{api.address}/auth/sign-out", timeout=PATIENCE).status_code == 204
        assert browser.cookies.get_dict() == {}
        for _ in range(6):
            assert api.get("/auth/me", cookies=stolen).status_code == 401


def test_a_body_in_chunks_is_read_and_one_without_end_is_not(api):
    def chunks(size):
        yield b'{"username": "susan", "password": "'
        for _ in range(size):
            yield b"x" * 1000
        yield b'"}'

    headers = {"Content-Type": "application/json"}
    small = api.call("POST", "/auth/api", data=chunks(1), headers=headers)
    assert (small.status_code, small.json()["code"]) == (401, "bad_credentials")
    for path in ("/auth/api", "/auth/refresh", "/auth/revoke"):
        large = api.call("POST", path, data=chunks(80), headers=headers)
        assert large.status_code in {400, 401}
        assert large.json()["code"] in {"body_invalid", "authentication_required"}


def test_asvs_6_3_1_attempts_are_counted_by_all_workers_together(closed_api):
    answers = [closed_api.post("/auth/api", {"username": "david", "password": "dog"}) for _ in range(12)]
    codes = [answered.status_code for answered in answers]
    assert codes == 10 * [401] + 2 * [429]
    assert int(answers[-1].headers["Retry-After"]) > 0
    assert closed_api.post("/api/tokens", auth=("david", CAT)).status_code == 429
    spoofed = closed_api.post(
        "/auth/api", {"username": "david", "password": CAT}, headers={"X-Forwarded-For": "198.51.100.7"}
    )
    assert spoofed.status_code == 429
