"""A person's own account over HTTP: registering, passwords, e-mail addresses, logins, tokens, and leaving."""

import pytest

from jam.events import Deactivated, Deleted, PasswordChanged
from tests.ext.flask.accounts.conftest import BASE_URL, OTHER_PASSWORD, PASSWORD, basic
from tests.ext.flask.callers import CROSS_SITE, answer, bearer, challenges, cookies

NEW = {"username": "carol", "email": "Carol@example.org", "password": PASSWORD}


def everything(site, account):
    """One credential of every kind, as something that says whether it is still good."""
    browser, pair, script = site.browser(account, remember=True), site.tokens(account), site.api_token(account)
    remembered = cookies(("remember_token", browser.get_cookie("remember_token").value))
    session = cookies(("sessionId", browser.get_cookie("sessionId").value))
    client = site.client()
    return {
        "session": lambda: client.get("/auth/me", headers=session).status_code,
        "remembered": lambda: client.get("/auth/me", headers=remembered).status_code,
        "access token": lambda: client.get("/auth/me", headers=bearer(pair["access_token"])).status_code,
        "refresh token": lambda: (
            client.post("/auth/refresh", json={"refresh_token": pair["refresh_token"]}).status_code
        ),
        "API token": lambda: client.get("/api/users", headers=script).status_code,
    }


def alive(held):
    return {kind for kind, ask in held.items() if ask() == 200}


# -- registering --------------------------------------------------------------------------------------------


def test_an_account_is_made_when_its_link_has_come_back(site, client):
    assert client.post("/auth/register", json=NEW).status_code == 202
    assert site.find("carol") is None
    assert site.mails()[0].to == "Carol@example.org"
    assert BASE_URL in site.mails()[0].text
    response = client.post("/auth/register/confirm", json={"token": site.token(), "password": PASSWORD})
    assert (response.status_code, response.headers["Location"]) == (201, "/api/users/1")
    assert (response.json["username"], response.json["email_verified"]) == ("carol", True)
    assert "Set-Cookie" not in response.headers
    assert site.tokens(site.find("carol"))


def test_a_link_makes_one_account(site, client):
    client.post("/auth/register", json=NEW)
    token = site.token()
    assert client.post("/auth/register/confirm", json={"token": token, "password": PASSWORD}).status_code == 201
    assert answer(client.post("/auth/register/confirm", json={"token": token, "password": PASSWORD})) == (
        401,
        "one_time_token_invalid",
    )


def test_who_finds_their_name_taken_meanwhile_takes_another_one(site, client):
    client.post("/auth/register", json=NEW)
    token = site.token()
    site.person("Carol-2", email="other@example.org")
    site.users.update("1", {"username": "CAROL"})
    assert answer(client.post("/auth/register/confirm", json={"token": token, "password": PASSWORD})) == (
        400,
        "username_taken",
    )
    taken = client.post("/auth/register/confirm", json={"token": token, "password": PASSWORD, "username": "carol3"})
    assert (taken.status_code, taken.json["username"]) == (201, "carol3")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"username": "a b"}, "username_refused"),
        ({"email": "nonsense"}, "email_refused"),
        ({"email": "a@example.org\nBcc: b@example.org"}, "email_refused"),
        ({"password": "too short"}, "password_refused"),
        ({"password": "carol" * 4}, "password_refused"),
        ({"password": "\x00" * 20}, "password_refused"),
        ({"password": "password123456789"}, "password_refused"),
    ],
)
def test_asvs_6_2_4_who_nobody_can_be_is_told_why(site, client, change, code):
    assert answer(client.post("/auth/register", json={**NEW, **change})) == (400, code)
    assert site.mails() == []


def test_the_host_that_a_request_names_is_in_no_link(site, client):
    client.post("/auth/register", json=NEW, headers={"Host": "evil.example", "X-Forwarded-Host": "evil.example"})
    assert "evil" not in site.mails()[0].text + site.mails()[0].subject


# -- a forgotten password -----------------------------------------------------------------------------------


def test_a_forgotten_password_is_set_anew_and_ends_everything(site, client, alice):
    held = everything(site, alice)
    assert client.post("/auth/forgot", json={"email": "ALICE@example.org"}).status_code == 202
    token = site.token()
    assert answer(client.post("/auth/reset", json={"token": token, "password": "short"})) == (400, "password_refused")
    assert alive(held) == set(held)
    response = client.post("/auth/reset", json={"token": token, "password": OTHER_PASSWORD})
    assert (response.status_code, "Set-Cookie" in response.headers) == (204, False)
    assert alive(held) == set()
    assert site.tokens(alice, OTHER_PASSWORD)
    again = client.post("/auth/reset", json={"token": token, "password": PASSWORD})
    assert answer(again) == (401, "one_time_token_invalid")
    assert [event.by for event in site.heard if isinstance(event, PasswordChanged)] == ["reset"]


def test_a_link_for_one_purpose_is_good_for_no_other(site, client, alice):
    client.post("/auth/forgot", json={"email": "alice@example.org"})
    token = site.token()
    for path in ("/auth/verify", "/auth/email/confirm", "/auth/register/confirm", "/auth/sign-in/resend"):
        name = "sign_in_token" if path.endswith("resend") else "token"
        more = {"password": PASSWORD} if path.endswith("register/confirm") else {}
        assert answer(client.post(path, json={name: token, **more})) == (401, "one_time_token_invalid")
    assert client.post("/auth/reset", json={"token": token, "password": OTHER_PASSWORD}).status_code == 204


@pytest.mark.parametrize("token", ["", "x", "é", "a\x00b", "../../etc/passwd", "x" * 4096])
@pytest.mark.parametrize("path", ["/auth/reset", "/auth/verify", "/auth/email/confirm", "/auth/register/confirm"])
def test_a_link_that_nobody_sent_is_good_for_nothing(client, path, token):
    takes_password = path in ("/auth/reset", "/auth/register/confirm")
    given = {"token": token, **({"password": OTHER_PASSWORD} if takes_password else {})}
    assert answer(client.post(path, json=given)) == (401, "one_time_token_invalid")


# -- another password ---------------------------------------------------------------------------------------


def test_asvs_7_2_4_another_password_gives_the_browser_a_new_handle_and_ends_what_else_there_is(site, alice):
    held, browser = everything(site, alice), site.browser(alice, remember=True)
    before = browser.get_cookie("sessionId").value
    given = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    assert browser.post("/auth/password", json=given).status_code == 204
    assert browser.get_cookie("sessionId").value != before
    assert browser.get("/auth/me").status_code == 200
    assert site.client().get("/auth/me", headers=cookies(("sessionId", before))).status_code == 401
    assert alive(held) == {"API token"}
    browser.delete_cookie("sessionId")
    assert browser.get("/auth/me").status_code == 200


def test_api_tokens_end_with_the_password_if_that_is_asked_for(site, alice):
    held, browser = everything(site, alice), site.browser(alice)
    given = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD, "end_api_tokens": True}
    assert browser.post("/auth/password", json=given).status_code == 204
    assert alive(held) == set()


def test_a_program_that_changes_the_password_goes_on_with_new_tokens(site, client, alice):
    old = site.fresh(alice)
    response = client.post(
        "/auth/password", json={"current_password": PASSWORD, "new_password": OTHER_PASSWORD}, headers=old
    )
    assert set(response.json) == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert client.get("/auth/me", headers=old).status_code == 401
    assert client.get("/auth/me", headers=bearer(response.json["access_token"])).status_code == 200
    assert client.post("/auth/refresh", json={"refresh_token": response.json["refresh_token"]}).status_code == 200


@pytest.mark.parametrize(
    ("change", "code", "status"),
    [
        ({"current_password": "wrong"}, "bad_credentials", 401),
        ({"new_password": "too short"}, "password_refused", 400),
        ({"new_password": "alice-alice-alice"}, "password_refused", 400),
        ({"new_password": "x" * 5000}, "password_refused", 400),
    ],
)
def test_a_password_that_is_wrong_or_unfit_changes_nothing(site, alice, change, code, status):
    browser = site.browser(alice)
    given = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD, **change}
    assert answer(browser.post("/auth/password", json=given)) == (status, code)
    assert browser.get("/auth/me").status_code == 200
    assert site.tokens(alice)


def test_asvs_3_5_1_no_other_site_does_anything_for_a_browser_that_is_signed_in(site, alice):
    browser = site.browser(alice)
    for method, path, given in (
        ("POST", "/auth/password", {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}),
        ("POST", "/auth/email", {"email": "evil@example.org"}),
        ("POST", "/auth/verify/send", None),
        ("POST", "/auth/deactivate", None),
        ("DELETE", "/auth/account", None),
        ("POST", "/api/tokens", None),
        ("PUT", "/api/users/1", {"username": "mallory"}),
    ):
        refused = browser.open(path, method=method, json=given, headers=CROSS_SITE)
        assert answer(refused) == (403, "csrf_failed"), path
    assert site.now(alice).username == "alice"
    assert site.tokens(alice)


# -- another e-mail address ---------------------------------------------------------------------------------


def test_another_address_counts_when_its_link_has_come_back(site, client, alice):
    assert client.post("/auth/email", json={"email": "new@example.org"}, headers=site.fresh(alice)).status_code == 202
    token = site.token()
    assert (site.mails()[-1].to, site.now(alice).email) == ("new@example.org", "alice@example.org")
    assert client.post("/auth/email/confirm", json={"token": token}).status_code == 204
    assert (site.now(alice).email, site.now(alice).email_verified) == ("new@example.org", True)
    assert site.mails()[-1].to == "alice@example.org"
    assert answer(client.post("/auth/email/confirm", json={"token": token})) == (401, "one_time_token_invalid")


def test_asvs_7_5_1_another_address_takes_a_fresh_sign_in_and_no_api_token(site, client, clock, alice):
    change = {"email": "new@example.org"}
    refused = client.post("/auth/email", json=change, headers=site.held(alice))
    assert answer(refused) == (401, "insufficient_user_authentication")
    assert any("insufficient_user_authentication" in line for line in challenges(refused))
    assert answer(client.post("/auth/email", json=change, headers=site.api_token(alice))) == (403, "method_required")
    assert answer(client.post("/auth/email", json=change, headers=basic("alice"))) == (401, "authentication_required")
    assert site.mails() == []


def test_whether_somebody_else_has_an_address_is_told_by_mail_alone(site, client, alice, bob):
    headers = site.fresh(alice)
    free = client.post("/auth/email", json={"email": "free@example.org"}, headers=headers)
    taken = client.post("/auth/email", json={"email": "bob@example.org"}, headers=headers)
    assert (free.status_code, free.data) == (taken.status_code, taken.data) == (202, b"")


def test_an_address_is_verified_by_its_link(site, client):
    carol = site.person("carol", email_verified=False)
    assert client.post("/auth/verify/send", headers=site.held(carol)).status_code == 202
    assert client.post("/auth/verify", json={"token": site.token()}).status_code == 204
    assert site.now(carol).email_verified


# -- logins -------------------------------------------------------------------------------------------------


def test_people_see_their_own_logins_and_which_one_this_is(site, client, alice, bob):
    site.browser(bob)
    browser = site.browser(alice, remember=True)
    site.browser(alice)
    items = browser.get("/auth/sessions").json["items"]
    assert sorted(item["current"] for item in items) == [False, True]
    assert sorted(item["remembered"] for item in items) == [False, True]
    assert all(item["signed_in_at"].endswith("Z") and item["address"] == "127.0.0.1" for item in items)
    handle = browser.get_cookie("sessionId").value
    assert handle not in str(items)
    assert len(client.get("/auth/sessions", headers=site.held(alice)).json["items"]) == 2


def test_people_end_their_own_logins(site, alice):
    browser, other = site.browser(alice), site.browser(alice)
    (lost,) = [item for item in browser.get("/auth/sessions").json["items"] if not item["current"]]
    assert browser.delete(f"/auth/sessions/{lost['id']}").status_code == 204
    assert other.get("/auth/me").status_code == 401
    assert answer(browser.delete(f"/auth/sessions/{lost['id']}")) == (404, "login_not_found")


def test_asvs_7_5_2_ending_a_login_takes_a_fresh_sign_in_and_no_api_token(site, client, alice):
    lost = site.browser(alice)
    (item,) = lost.get("/auth/sessions").json["items"]
    path = f"/auth/sessions/{item['id']}"
    assert answer(client.delete(path, headers=site.held(alice))) == (401, "insufficient_user_authentication")
    assert answer(client.delete(path, headers=site.api_token(alice))) == (403, "method_required")
    assert lost.get("/auth/me").status_code == 200


def test_asvs_8_2_2_nobody_ends_the_logins_of_somebody_else(site, client, alice, bob):
    theirs = site.browser(bob)
    (item,) = theirs.get("/auth/sessions").json["items"]
    manager = site.person("manager", roles={"admin"}, scopes={"users:write"})
    for headers in (site.fresh(alice), site.fresh(manager)):
        assert answer(client.delete(f"/auth/sessions/{item['id']}", headers=headers)) == (404, "login_not_found")
    assert theirs.get("/auth/me").status_code == 200


# -- API tokens ---------------------------------------------------------------------------------------------


def test_a_token_is_made_with_basic_used_and_revoked_by_itself(site, client, alice):
    made = client.post("/api/tokens", headers=basic("alice"))
    assert (made.status_code, made.json["name"]) == (200, "api")
    headers = bearer(made.json["token"])
    assert client.get("/api/users/1", headers=headers).json["email"] == "alice@example.org"
    assert client.delete("/api/tokens", headers=headers).status_code == 204
    assert answer(client.get("/api/users/1", headers=headers)) == (401, "api_token_invalid")
    assert answer(client.delete("/api/tokens", headers=headers)) == (401, "api_token_invalid")


def test_a_token_has_the_name_the_scopes_and_the_lifetime_that_were_asked_for(site, client, clock):
    carol = site.person("carol", scopes={"read", "write"})
    given = {"name": "nightly", "scopes": ["read"], "lifetime": 3600}
    made = client.post("/api/tokens", json=given, headers=site.fresh(carol)).json
    assert (made["name"], made["scopes"]) == ("nightly", ["read"])
    assert client.get("/api/users", headers=bearer(made["token"])).status_code == 200
    clock.move(3601)
    assert client.get("/api/users", headers=bearer(made["token"])).status_code == 401


def test_a_token_has_all_scopes_of_its_maker_unless_it_is_told_otherwise(site, client):
    carol = site.person("carol", scopes={"read", "write"})
    assert client.post("/api/tokens", headers=basic("carol")).json["scopes"] == ["read", "write"]
    assert client.post("/api/tokens", json={"scopes": []}, headers=site.fresh(carol)).json["scopes"] == []


def test_asvs_8_2_1_a_token_has_no_scopes_that_its_maker_has_not(site, client):
    carol = site.person("carol", scopes={"read"})
    refused = client.post("/api/tokens", json={"scopes": ["read", "users:write"]}, headers=site.fresh(carol))
    assert answer(refused) == (403, "insufficient_scope")
    assert site.jam.api_tokens.list(carol.subject) == []


@pytest.mark.parametrize(
    "given",
    [
        {"lifetime": 1e9},
        {"lifetime": 0.5},
        {"lifetime": -1},
        {"name": ""},
        {"name": "a\nb"},
        {"name": "x" * 101},
        {"scopes": ["a b"]},
        {"scopes": [""]},
        {"scopes": "read"},
        {"scopes": ["read"] * 101},
    ],
)
def test_a_token_that_cannot_be_is_refused(site, client, given):
    carol = site.person("carol", scopes={"read"})
    status, code = answer(client.post("/api/tokens", json=given, headers=site.fresh(carol)))
    assert (status, code) in {(400, "invalid_value"), (400, "body_invalid")}
    assert site.jam.api_tokens.list(carol.subject) == []


def test_asvs_7_5_1_a_token_takes_a_fresh_sign_in_and_makes_no_other(site, client, alice):
    assert answer(client.post("/api/tokens", headers=site.held(alice))) == (401, "insufficient_user_authentication")
    assert answer(client.post("/api/tokens", headers=site.api_token(alice))) == (403, "method_required")
    assert len(site.jam.api_tokens.list(alice.subject)) == 1


def test_tokens_are_listed_without_being_shown(site, client, alice):
    token = site.jam.api_tokens.create(alice.subject, "a script")
    response = client.get("/api/tokens", headers=site.held(alice))
    (item,) = response.json["items"]
    assert (item["name"], item["last_used_at"]) == ("a script", None)
    assert token.rpartition("_")[2] not in response.text
    assert client.get(item["_links"]["self"], headers=site.held(alice)).json == item


def test_a_token_is_renamed_and_revoked_by_its_owner(site, client, alice):
    script, headers = site.api_token(alice), site.held(alice)
    path = client.get("/api/tokens", headers=headers).json["items"][0]["_links"]["self"]
    assert client.patch(path, json={"name": "backup"}, headers=headers).json["name"] == "backup"
    assert answer(client.patch(path, json={"name": "a\nb"}, headers=headers)) == (400, "invalid_value")
    assert client.delete(path, headers=headers).status_code == 204
    assert client.get("/api/users", headers=script).status_code == 401
    assert answer(client.delete(path, headers=headers)) == (404, "api_token_not_found")


def test_asvs_8_2_2_nobody_sees_renames_or_revokes_somebody_elses_token(site, client, alice, bob):
    script = site.api_token(bob)
    path = client.get("/api/tokens", headers=site.held(bob)).json["items"][0]["_links"]["self"]
    manager = site.person("manager", roles={"admin"}, scopes={"users:write"})
    for headers in (site.held(alice), site.held(manager)):
        for method, given in (("GET", None), ("PATCH", {"name": "mine"}), ("DELETE", None)):
            refused = client.open(path, method=method, json=given, headers=headers)
            assert answer(refused) == (404, "api_token_not_found")
        assert client.get("/api/tokens", headers=headers).json == {"items": []}
    assert client.get("/api/users", headers=script).status_code == 200


def test_an_api_token_neither_renames_nor_revokes_another_one(site, client, alice):
    first, second = site.api_token(alice), site.api_token(alice)
    path = client.get("/api/tokens", headers=first).json["items"][0]["_links"]["self"]
    for headers in (first, second):
        assert answer(client.delete(path, headers=headers)) == (403, "method_required")
        assert answer(client.patch(path, json={"name": "x"}, headers=headers)) == (403, "method_required")


# -- leaving ------------------------------------------------------------------------------------------------


def test_people_get_what_is_kept_about_them(site, client, alice):
    browser, pair, script = site.browser(alice, remember=True), site.tokens(alice), site.api_token(alice)
    response = client.get("/auth/export", headers=bearer(pair["access_token"]))
    assert response.headers["Content-Disposition"] == 'attachment; filename="account.json"'
    assert response.json["account"]["username"] == "alice"
    assert [len(response.json[kind]) for kind in ("logins", "refresh_tokens", "api_tokens")] == [1, 1, 1]
    held = [*pair.values(), script["Authorization"].removeprefix("Bearer "), site.hashed]
    held += [browser.get_cookie(name).value for name in ("sessionId", "remember_token")]
    assert not [value for value in held if isinstance(value, str) and len(value) > 20 and value in response.text]


@pytest.mark.parametrize("way", [("POST", "/auth/deactivate", Deactivated), ("DELETE", "/auth/account", Deleted)])
def test_asvs_7_4_2_whoever_leaves_ends_everything(site, client, alice, way):
    method, path, event = way
    held, browser = everything(site, alice), site.browser(alice, remember=True)
    assert browser.open(path, method=method).status_code == 204
    assert (browser.get_cookie("sessionId"), browser.get_cookie("remember_token")) == (None, None)
    assert alive(held) == set()
    assert answer(client.post("/auth/api", json={"username": "alice", "password": PASSWORD})) == (
        401,
        "bad_credentials",
    )
    assert [one.subject for one in site.heard if isinstance(one, event)] == [alice.subject]


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/auth/deactivate"), ("DELETE", "/auth/account"), ("GET", "/auth/export")]
)
def test_leaving_takes_a_fresh_sign_in_and_no_api_token(site, client, alice, method, path):
    refused = client.open(path, method=method, headers=site.held(alice))
    assert answer(refused) == (401, "insufficient_user_authentication")
    assert answer(client.open(path, method=method, headers=site.api_token(alice))) == (403, "method_required")
    assert site.now(alice).is_active


def test_asvs_7_4_2_who_was_deactivated_in_the_database_is_refused_at_the_next_request(site, client, alice):
    held = everything(site, alice)
    site.users.update(alice.subject, {"is_active": False})
    for kind, ask in held.items():
        assert ask() in {401, 403}, kind


def test_who_was_deleted_from_the_database_is_refused_at_the_next_request(site, client, alice):
    held = everything(site, alice)
    site.users.delete(alice.subject)
    assert {kind: ask() for kind, ask in held.items()} == dict.fromkeys(held, 401)
