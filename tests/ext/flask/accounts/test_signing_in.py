"""Signing in and out over HTTP: for tokens and for a session, in one step or several."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from jam.errors import BadCredentials
from jam.events import APITokenCreated, Reauthenticated, SignedIn, SignInFailed, SubjectRevoked
from jam.ext.flask import SessionExtension
from tests.ext.flask.accounts.conftest import OTHER_PASSWORD, PASSWORD, basic
from tests.ext.flask.callers import CROSS_SITE, SAME_ORIGIN, answer, bearer, challenges, cookies, set_cookies

RIGHT = {"username": "alice", "password": PASSWORD}
IN_COOKIES = {"JWT_TOKEN_LOCATION": ["headers", "cookies"]}


def handle_of(browser):
    cookie = browser.get_cookie("sessionId")
    return None if cookie is None else cookie.value


def is_alive(site, handle):
    return site.client().get("/auth/me", headers=cookies(("sessionId", handle))).status_code == 200


# -- for tokens ---------------------------------------------------------------------------------------------


def test_a_name_and_a_password_are_traded_for_tokens(site, client, alice):
    response = client.post("/auth/api", json=RIGHT)
    assert response.status_code == 200
    assert set(response.json) == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert response.json["token_type"] == "Bearer"
    assert client.get("/auth/me", headers=bearer(response.json["access_token"])).json["username"] == "alice"
    assert [event.subject for event in site.heard if isinstance(event, SignedIn)] == [alice.subject]


def test_an_email_address_does_as_well_in_any_case(client, alice):
    assert client.post("/auth/api", json={**RIGHT, "username": "ALICE@Example.ORG"}).status_code == 200


def test_signing_in_for_tokens_sets_no_cookie(client, alice):
    assert "Set-Cookie" not in client.post("/auth/api", json=RIGHT).headers


def test_asvs_14_3_2_no_answer_that_holds_a_token_is_kept_by_anybody(site, client, alice):
    pair = client.post("/auth/api", json=RIGHT)
    for response in (
        pair,
        client.post("/auth/refresh", json={"refresh_token": pair.json["refresh_token"]}),
        client.post("/auth/reauthenticate", json={"password": PASSWORD}, headers=bearer(pair.json["access_token"])),
        client.post("/api/tokens", headers=basic("alice")),
        client.get("/api/tokens", headers=bearer(pair.json["access_token"])),
        client.get("/auth/me", headers=bearer(pair.json["access_token"])),
        client.get("/auth/export", headers=bearer(pair.json["access_token"])),
        client.post("/auth/sign-in", json=RIGHT, headers=SAME_ORIGIN),
        client.post("/auth/api", json={**RIGHT, "password": "wrong"}),
        client.post("/auth/forgot", json={"email": "alice@example.org"}),
        client.get("/api/users", headers=bearer(pair.json["access_token"])),
    ):
        assert "no-store" in response.headers["Cache-Control"], response.request.path


def test_a_refresh_token_is_traded_for_a_new_pair_and_is_used_up(site, client, clock, alice):
    first = site.tokens(alice)["refresh_token"]
    second = client.post("/auth/refresh", json={"refresh_token": first}).json["refresh_token"]
    clock.move(11)
    assert answer(client.post("/auth/refresh", json={"refresh_token": first})) == (401, "refresh_token_reused")
    assert answer(client.post("/auth/refresh", json={"refresh_token": second})) == (401, "token_revoked")


def test_a_refresh_token_may_come_in_the_header(site, client, alice):
    assert client.post("/auth/refresh", headers=bearer(site.tokens(alice)["refresh_token"])).status_code == 200


def test_a_refresh_token_that_comes_twice_is_a_bad_request(site, client, alice):
    token = site.tokens(alice)["refresh_token"]
    response = client.post("/auth/refresh", json={"refresh_token": token}, headers=bearer(token))
    assert answer(response) == (400, "invalid_request")


def test_a_refreshed_token_is_no_fresher_than_the_sign_in_and_knows_the_roles_of_now(site, client, clock, alice):
    pair = site.tokens(alice)
    clock.move(601)
    site.users.update(alice.subject, {"roles": {"editor"}})
    again = client.post("/auth/refresh", json={"refresh_token": pair["refresh_token"]}).json
    assert client.get("/auth/me", headers=bearer(again["access_token"])).json["roles"] == ["editor"]
    stale = client.get("/auth/export", headers=bearer(again["access_token"]))
    assert answer(stale) == (401, "insufficient_user_authentication")


@pytest.mark.parametrize("what", ["access_token", "refresh_token"])
@pytest.mark.parametrize("as_form", [False, True])
def test_a_token_is_revoked_as_rfc_7009_has_it(site, client, alice, what, as_form):
    pair = site.tokens(alice)
    given = {"token": pair[what], "token_type_hint": what}
    response = client.post("/auth/revoke", **({"data": given} if as_form else {"json": given}))
    assert (response.status_code, response.data) == (200, b"")
    assert answer(client.post("/auth/refresh", json={"refresh_token": pair["refresh_token"]})) == (401, "token_revoked")
    dead = client.get("/auth/me", headers=bearer(pair["access_token"]))
    assert (dead.status_code == 401) == (what == "access_token")


def test_an_api_token_is_revoked_as_rfc_7009_has_it(site, client, alice):
    token = site.jam.api_tokens.create(alice.subject, "a script")
    assert client.post("/auth/revoke", data={"token": token}).status_code == 200
    assert answer(client.get("/api/users", headers=bearer(token))) == (401, "api_token_invalid")


def test_of_a_token_that_is_none_nothing_is_said(client):
    for token in ("", "x", "jam_x", "a.b.c", "x" * 5000):
        response = client.post("/auth/revoke", json={"token": token})
        assert (response.status_code, response.data) == (200, b"")


def test_stateless_access_tokens_cannot_be_revoked_and_that_is_said(new_site):
    site = new_site(config={"JAM_ACCESS_TOKENS_STATELESS": True})
    alice = site.person("alice")
    response = site.client().post("/auth/revoke", json={"token": site.tokens(alice)["access_token"]})
    assert answer(response) == (400, "unsupported_token_type")


# -- tokens in cookies --------------------------------------------------------------------------------------


@pytest.fixture
def cookie_site(new_site):
    site = new_site(config=IN_COOKIES)
    site.person("alice")
    return site


def test_asvs_3_3_4_tokens_in_cookies_are_in_no_body(cookie_site):
    response = cookie_site.client().post("/auth/api", json={**RIGHT, "cookies": True}, headers=SAME_ORIGIN)
    assert set(response.json) == {"token_type", "expires_in"}
    found = set_cookies(response)
    assert set(found) == {"access_token_cookie", "refresh_token_cookie"}
    for value, attributes in found.values():
        assert value not in response.text
        assert {"httponly", "samesite=lax"} <= attributes
    assert "path=/auth/refresh" in found["refresh_token_cookie"][1]


def test_asvs_3_5_1_a_refresh_token_in_a_cookie_is_used_for_no_other_site(cookie_site):
    browser = cookie_site.stranger()
    browser.post("/auth/api", json={**RIGHT, "cookies": True})
    old = browser.get_cookie("refresh_token_cookie", path="/auth/refresh").value
    del browser.environ_base["HTTP_SEC_FETCH_SITE"]
    assert answer(browser.post("/auth/refresh", headers=CROSS_SITE)) == (403, "csrf_failed")
    assert answer(browser.post("/auth/refresh")) == (403, "csrf_failed")
    response = browser.post("/auth/refresh", headers=SAME_ORIGIN)
    assert response.status_code == 200
    assert "token" not in response.json.keys() - {"token_type"}
    assert browser.get_cookie("refresh_token_cookie", path="/auth/refresh").value != old


def test_asvs_3_5_1_another_site_puts_no_tokens_into_cookies(cookie_site):
    for path, given in (
        ("/auth/api", {**RIGHT, "cookies": True}),
        ("/auth/api/continue", {"sign_in_token": "x", "step": "x", "cookies": True}),
    ):
        response = cookie_site.client().post(path, json=given, headers=CROSS_SITE)
        assert answer(response) == (403, "csrf_failed")
        assert "Set-Cookie" not in response.headers


def test_an_app_that_takes_no_tokens_from_cookies_puts_none_there(client, alice):
    for given in (RIGHT, {**RIGHT, "password": "wrong"}):
        response = client.post("/auth/api", json={**given, "cookies": True}, headers=SAME_ORIGIN)
        assert answer(response) == (400, "body_invalid")
        assert list(response.json["fields"]) == ["cookies"]


def test_who_has_tokens_in_cookies_gets_the_new_ones_there_as_well(cookie_site):
    browser = cookie_site.stranger()
    browser.post("/auth/api", json={**RIGHT, "cookies": True})
    again = browser.post("/auth/reauthenticate", json={"password": PASSWORD})
    assert set(again.json) == {"token_type", "expires_in"}
    assert set(set_cookies(again)) == {"access_token_cookie"}
    changed = browser.post("/auth/password", json={"current_password": PASSWORD, "new_password": OTHER_PASSWORD})
    assert set(changed.json) == {"token_type", "expires_in"}
    assert browser.get("/auth/me").json["username"] == "alice"


def test_signing_out_drops_tokens_in_cookies_and_ends_them(cookie_site):
    browser = cookie_site.stranger()
    browser.post("/auth/api", json={**RIGHT, "cookies": True})
    token = browser.get_cookie("access_token_cookie").value
    assert browser.post("/auth/sign-out").status_code == 204
    assert browser.get_cookie("access_token_cookie") is None
    assert answer(cookie_site.client().get("/auth/me", headers=bearer(token))) == (401, "token_revoked")


# -- for a session ------------------------------------------------------------------------------------------


def test_a_browser_is_signed_in_by_a_cookie_that_scripts_cannot_read(site, client, alice):
    response = client.post("/auth/sign-in", json=RIGHT, headers=SAME_ORIGIN)
    assert (response.status_code, response.json["username"]) == (200, "alice")
    value, attributes = set_cookies(response)["sessionId"]
    assert {"httponly", "samesite=lax", "path=/"} <= attributes
    assert value not in response.text
    assert "remember_token" not in set_cookies(response)


def test_asvs_3_3_1_by_https_the_cookies_have_the_prefix_that_keeps_them_to_the_host(new_site):
    site = new_site(config={"JAM_HTTPS": True}, set_up=lambda jam, app: None)
    site.person("alice")
    response = site.client().post("/auth/sign-in", json={**RIGHT, "remember": True}, headers=SAME_ORIGIN)
    found = set_cookies(response)
    assert "__Host-remember_token" in found
    assert all("secure" in attributes for _, attributes in found.values())


@pytest.mark.parametrize(
    "headers", [CROSS_SITE, {}, {"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "same-site"}]
)
@pytest.mark.parametrize("path", ["/auth/sign-in", "/auth/sign-in/continue"])
def test_asvs_3_5_1_no_other_site_signs_a_browser_in(site, client, alice, headers, path):
    given = RIGHT if path == "/auth/sign-in" else {"sign_in_token": "x", "step": "x"}
    response = client.post(path, json=given, headers=headers)
    assert answer(response) == (403, "csrf_failed")
    assert "Set-Cookie" not in response.headers
    assert site.heard == []


def test_the_sites_own_origin_signs_a_browser_in_that_is_too_old_to_say_more(client, alice):
    assert client.post("/auth/sign-in", json=RIGHT, headers={"Origin": "http://localhost"}).status_code == 200


def test_asvs_7_2_4_every_sign_in_makes_a_new_handle_and_ends_the_old_one(site, alice):
    browser = site.browser(alice)
    first = handle_of(browser)
    browser.post("/auth/sign-in", json=RIGHT)
    assert handle_of(browser) != first
    assert not is_alive(site, first)


def test_asvs_7_2_4_a_handle_that_somebody_planted_is_not_kept(site, client, alice, bob):
    planted = handle_of(site.browser(bob))
    for value in (planted, "x" * 40, ""):
        response = client.post("/auth/sign-in", json=RIGHT, headers={**SAME_ORIGIN, **cookies(("sessionId", value))})
        assert set_cookies(response)["sessionId"][0] != value
    assert not is_alive(site, planted)


def test_asvs_7_2_4_proving_it_once_more_makes_a_new_handle(site, clock, alice):
    browser = site.browser(alice)
    clock.move(601)
    assert answer(browser.get("/auth/export")) == (401, "insufficient_user_authentication")
    first = handle_of(browser)
    assert browser.post("/auth/reauthenticate", json={"password": PASSWORD}).status_code == 204
    assert handle_of(browser) != first
    assert not is_alive(site, first)
    assert browser.get("/auth/export").status_code == 200
    assert any(isinstance(event, Reauthenticated) for event in site.heard)


def test_a_wrong_password_proves_nothing_once_more(site, client, alice):
    browser = site.browser(alice)
    first = handle_of(browser)
    assert answer(browser.post("/auth/reauthenticate", json={"password": "wrong"})) == (401, "bad_credentials")
    assert (handle_of(browser), is_alive(site, first)) == (first, True)


def test_a_program_that_proves_it_once_more_gets_a_fresh_access_token_and_no_other(site, client, alice):
    response = client.post("/auth/reauthenticate", json={"password": PASSWORD}, headers=site.held(alice))
    assert set(response.json) == {"access_token", "token_type", "expires_in"}
    assert client.get("/auth/export", headers=bearer(response.json["access_token"])).status_code == 200


def test_asvs_7_5_1_neither_an_api_token_nor_basic_proves_it_once_more(site, client, alice):
    for path in ("/auth/reauthenticate", "/auth/password", "/auth/email", "/auth/sign-out/everywhere"):
        given = {"password": PASSWORD} if path.endswith("cate") else {}
        by_token = client.post(path, json=given, headers=site.api_token(alice))
        assert answer(by_token) == (403, "method_required"), path
        assert answer(client.post(path, json=given, headers=basic("alice"))) == (401, "authentication_required"), path


def test_a_browser_is_remembered_if_it_asks_for_that(site, alice):
    browser = site.browser(alice, remember=True)
    browser.delete_cookie("sessionId")
    assert browser.get("/auth/me").json["username"] == "alice"
    assert answer(browser.get("/auth/export")) == (401, "insufficient_user_authentication")


# -- signing out --------------------------------------------------------------------------------------------


def test_signing_out_ends_this_login_and_no_other(site, alice):
    browser, other = site.browser(alice, remember=True), site.browser(alice)
    first, remembered = handle_of(browser), browser.get_cookie("remember_token").value
    response = browser.post("/auth/sign-out")
    assert response.status_code == 204
    assert response.headers["Clear-Site-Data"] == '"cache", "storage"'
    assert not is_alive(site, first)
    assert site.client().get("/auth/me", headers=cookies(("remember_token", remembered))).status_code == 401
    assert other.get("/auth/me").status_code == 200


def test_signing_out_ends_the_token_that_came_in_the_header(site, client, alice):
    pair = site.tokens(alice)
    assert client.post("/auth/sign-out", headers=bearer(pair["access_token"])).status_code == 204
    assert answer(client.get("/auth/me", headers=bearer(pair["access_token"]))) == (401, "token_revoked")
    assert answer(client.post("/auth/refresh", json={"refresh_token": pair["refresh_token"]})) == (401, "token_revoked")


def test_asvs_3_5_1_no_other_site_signs_a_browser_out(site, alice):
    browser = site.browser(alice)
    for path in ("/auth/sign-out", "/auth/sign-out/others", "/auth/sign-out/everywhere"):
        assert answer(browser.post(path, headers=CROSS_SITE)) == (403, "csrf_failed")
    assert browser.get("/auth/me").status_code == 200


def test_asvs_3_5_3_no_state_is_changed_by_reading(site, alice):
    browser = site.browser(alice)
    for path in ("/auth/sign-out", "/auth/deactivate", "/auth/verify?token=x", "/auth/revoke", "/auth/email/confirm"):
        assert browser.get(path).status_code == 405
    assert browser.get("/auth/me").status_code == 200


def test_asvs_7_4_3_signing_out_elsewhere_leaves_this_browser_and_the_api_tokens(site, client, alice):
    browser, other = site.browser(alice, remember=True), site.browser(alice)
    pair, script, first = site.tokens(alice), site.api_token(alice), handle_of(browser)
    assert browser.post("/auth/sign-out/others").status_code == 204
    assert browser.get("/auth/me").status_code == 200
    assert handle_of(browser) != first
    assert not is_alive(site, first)
    assert other.get("/auth/me").status_code == 401
    assert client.get("/auth/me", headers=bearer(pair["access_token"])).status_code == 401
    assert client.post("/auth/refresh", json={"refresh_token": pair["refresh_token"]}).status_code == 401
    assert client.get("/api/users", headers=script).status_code == 200
    browser.delete_cookie("sessionId")
    assert browser.get("/auth/me").status_code == 200  # it is still remembered


@pytest.mark.parametrize("api_tokens", [False, True])
def test_signing_out_everywhere_ends_everything(site, client, alice, api_tokens):
    browser, other, pair, script = site.browser(alice), site.browser(alice), site.tokens(alice), site.api_token(alice)
    assert browser.post("/auth/sign-out/everywhere", json={"api_tokens": api_tokens}).status_code == 204
    assert handle_of(browser) is None
    assert {browser.get("/auth/me").status_code, other.get("/auth/me").status_code} == {401}
    assert client.get("/auth/me", headers=bearer(pair["access_token"])).status_code == 401
    assert client.get("/api/users", headers=script).status_code == (401 if api_tokens else 200)
    assert any(isinstance(event, SubjectRevoked) for event in site.heard)


@pytest.mark.parametrize(
    ("path", "method"),
    [("/auth/sign-out/everywhere", "POST"), ("/auth/deactivate", "POST"), ("/auth/account", "DELETE")],
)
def test_a_script_whose_request_has_some_cookie_is_told_the_truth_about_what_was_done(
    site, client, alice, path, method
):
    headers = {**site.fresh(alice), **cookies(("theme", "dark"))}
    assert client.open(path, method=method, headers=headers).status_code == 204
    assert client.get("/auth/me", headers=headers).status_code == 401


# -- several steps ------------------------------------------------------------------------------------------


@pytest.fixture
def careful(new_site, code):
    site = new_site(stages=[code], config=IN_COOKIES)
    site.person("alice", roles={"careful"})
    return site


def begun(site, path="/auth/api"):
    response = site.client().post(path, json=RIGHT, headers=SAME_ORIGIN)
    assert answer(response) == (401, "sign_in_incomplete")
    assert "Set-Cookie" not in response.headers
    return response.json


def test_asvs_6_3_4_a_second_step_is_named_and_proves_nobody_before_it_is_taken(careful, code):
    told = begun(careful)
    assert told["steps"] == ["code"]
    assert code.begun == ["1"]
    for use in (
        lambda client: client.get("/auth/me", headers=bearer(told["sign_in_token"])),
        lambda client: client.get("/api/users", headers=bearer(told["sign_in_token"])),
        lambda client: client.post("/auth/refresh", json={"refresh_token": told["sign_in_token"]}),
        lambda client: client.post("/auth/reset", json={"token": told["sign_in_token"], "password": OTHER_PASSWORD}),
    ):
        assert use(careful.client()).status_code == 401


def test_a_wrong_password_does_not_tell_that_there_is_a_second_step(careful):
    response = careful.client().post("/auth/api", json={**RIGHT, "password": "wrong"})
    assert answer(response) == (401, "bad_credentials")
    assert "steps" not in response.json


def test_the_second_step_ends_in_tokens_that_say_how_it_was_proved(careful):
    told = begun(careful)
    given = {"sign_in_token": told["sign_in_token"], "step": "code", "answer": {"code": "123456"}}
    response = careful.client().post("/auth/api/continue", json=given)
    assert response.status_code == 200
    assert careful.jam.access_tokens.verify(response.json["access_token"]).amr == ("pwd", "otp")
    assert answer(careful.client().post("/auth/api/continue", json=given)) == (401, "one_time_token_invalid")


def test_the_second_step_ends_in_a_session(careful):
    browser = careful.stranger()
    told = browser.post("/auth/sign-in", json=RIGHT).json
    assert handle_of(browser) is None
    given = {"sign_in_token": told["sign_in_token"], "step": "code", "answer": {"code": "123456"}, "remember": True}
    response = browser.post("/auth/sign-in/continue", json=given)
    assert (response.status_code, response.json["username"]) == (200, "alice")
    assert set(set_cookies(response)) == {"sessionId", "remember_token"}
    assert browser.get("/auth/me").status_code == 200


def test_the_second_step_ends_in_tokens_in_cookies(careful):
    told = begun(careful)
    given = {"sign_in_token": told["sign_in_token"], "step": "code", "answer": {"code": "123456"}, "cookies": True}
    response = careful.client().post("/auth/api/continue", json=given, headers=SAME_ORIGIN)
    assert set(set_cookies(response)) == {"access_token_cookie", "refresh_token_cookie"}
    assert set(response.json) == {"token_type", "expires_in"}


def test_a_wrong_answer_can_be_given_again_but_not_for_ever(careful):
    told = begun(careful)
    given = {"sign_in_token": told["sign_in_token"], "step": "code", "answer": {"code": "000000"}}
    client = careful.client()
    codes = [client.post("/auth/api/continue", json=given).json["code"] for _ in range(6)]
    assert codes == 5 * ["bad_credentials"] + ["one_time_token_invalid"]
    given["answer"] = {"code": "123456"}
    assert answer(client.post("/auth/api/continue", json=given)) == (401, "one_time_token_invalid")
    assert [event.reason for event in careful.heard if isinstance(event, SignInFailed)][-1] == "too_many_answers"


@pytest.mark.parametrize(
    "change", [{"step": "nonsense"}, {"sign_in_token": "x"}, {"sign_in_token": ""}, {"sign_in_token": "é\x00"}]
)
def test_a_step_or_token_that_is_none_is_refused(careful, change):
    told = begun(careful)
    given = {"sign_in_token": told["sign_in_token"], "step": "code", "answer": {}, **change}
    for path in ("/auth/api/continue", "/auth/sign-in/continue"):
        response = careful.client().post(path, json=given, headers=SAME_ORIGIN)
        assert answer(response) in {(400, "invalid_value"), (401, "one_time_token_invalid")}


def test_the_step_that_is_due_can_be_begun_again_but_not_for_ever(careful, code):
    told = begun(careful)
    client, given = careful.client(), {"sign_in_token": told["sign_in_token"]}
    codes = [client.post("/auth/sign-in/resend", json=given).status_code for _ in range(6)]
    assert codes == 5 * [202] + [401]
    assert code.begun == 6 * ["1"]


def test_asvs_6_3_4_basic_is_no_way_around_the_second_step(careful):
    response = careful.client().post("/api/tokens", headers=basic("alice"))
    assert answer(response) == (401, "sign_in_incomplete")
    assert response.json["steps"] == ["code"]
    assert "sign_in_token" not in response.json
    assert careful.jam.api_tokens.list("1") == []


def test_a_step_that_was_begun_before_a_password_change_leads_nowhere(careful):
    told = begun(careful)
    careful.users.update("1", {"password_hash": careful.accounts.passwords.hash(OTHER_PASSWORD)})
    given = {"sign_in_token": told["sign_in_token"], "step": "code", "answer": {"code": "123456"}}
    assert answer(careful.client().post("/auth/api/continue", json=given)) == (401, "one_time_token_invalid")


@pytest.fixture
def verifying(new_site):
    site = new_site(config={"JAM_ACCOUNTS_REQUIRE_VERIFIED_EMAIL": True})
    site.person("alice", email_verified=False)
    return site


def test_nobody_is_signed_in_before_their_email_address_is_verified(verifying):
    told = begun(verifying)
    assert told["steps"] == ["verify_email"]
    given = {"sign_in_token": told["sign_in_token"], "step": "verify_email"}
    client = verifying.client()
    again = client.post("/auth/api/continue", json=given)
    assert answer(again) == (401, "sign_in_incomplete")
    assert client.post("/auth/verify", json={"token": verifying.token()}).status_code == 204
    assert (
        client.post("/auth/api/continue", json={**given, "sign_in_token": again.json["sign_in_token"]}).status_code
        == 200
    )


def test_asvs_6_3_4_neither_basic_nor_a_reset_signs_in_an_unverified_account(verifying):
    response = verifying.client().post("/api/tokens", headers=basic("alice"))
    assert (answer(response), response.json["steps"]) == ((401, "sign_in_incomplete"), ["verify_email"])


def test_the_link_to_verify_an_address_is_sent_again(verifying):
    told = begun(verifying)
    assert (
        verifying.client().post("/auth/sign-in/resend", json={"sign_in_token": told["sign_in_token"]}).status_code
        == 202
    )
    assert len(verifying.mails()) == 2
    token = verifying.token()
    assert verifying.client().post("/auth/verify", json={"token": token}).status_code == 204
    assert answer(verifying.client().post("/auth/verify", json={"token": token})) == (401, "one_time_token_invalid")


class Broken:
    """A step that the app wrote, which refuses everything."""

    name = "broken"

    def applies(self, account):
        return True

    def begin(self, account, address):
        pass

    def check(self, account, answer):
        raise BadCredentials("Never.")


def test_a_step_of_the_apps_own_refuses_in_its_own_words(new_site):
    site = new_site(stages=[Broken()])
    site.person("alice")
    told = begun(site)
    given = {"sign_in_token": told["sign_in_token"], "step": "broken"}
    response = site.client().post("/auth/api/continue", json=given)
    assert (answer(response), response.json["message"]) == ((401, "bad_credentials"), "Never.")


# -- challenges and forms of errors -------------------------------------------------------------------------


def test_a_401_says_how_one_may_prove_oneself_here(client, alice):
    assert challenges(client.get("/auth/me")) == ['Bearer realm="jam"', 'Cookie realm="jam", cookie-name="sessionId"']
    asked = challenges(client.post("/api/tokens"))
    assert 'Basic realm="jam", charset="UTF-8"' in asked
    assert not any(
        line.startswith("Basic") for line in challenges(client.post("/auth/api", json={**RIGHT, "password": "x"}))
    )


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html; charset=utf-8"),
        ("application/problem+json", "application/problem+json"),
        ("image/png", "application/json"),
        ("text/html;q=0.5, application/json;q=0.5", "application/json"),
        ("\x00garbage;q=", "application/json"),
    ],
)
@pytest.mark.parametrize(("given", "status"), [({}, 400), ({"username": "a", "password": "b"}, 401)])
def test_an_error_comes_in_the_form_that_was_asked_for(client, accept, kind, given, status):
    response = client.post("/auth/api", json=given, headers={} if accept is None else {"Accept": accept})
    assert (response.status_code, response.headers["Content-Type"]) == (status, kind)


def test_a_problem_has_the_members_of_rfc_9457_and_what_else_there_is_to_tell(client):
    response = client.post("/auth/api", json={}, headers={"Accept": "application/problem+json"})
    assert response.json == {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "detail": "must include username and password fields",
        "code": "body_invalid",
        "fields": {"username": "is missing", "password": "is missing"},
    }


def test_a_page_about_an_error_shows_no_markup_that_came_with_the_request(client):
    response = client.post(
        "/auth/api",
        json={"<script>alert(1)</script>": 1, "username": "a", "password": "b"},
        headers={"Accept": "text/html"},
    )
    assert response.status_code == 400
    assert "<script>" not in response.text


def test_the_public_keys_are_for_everybody_and_may_be_kept(client):
    response = client.get("/.well-known/jwks.json")
    assert response.json == {"keys": []}
    assert response.headers["Cache-Control"] == "public, max-age=300"


# -- what is written down, and what is too much -------------------------------------------------------------


def test_asvs_16_2_5_no_password_token_or_cookie_is_logged_or_told_to_anybody(site, client, alice, caplog):
    caplog.set_level("DEBUG")
    typed = {"username": "Tr0ub4dor-typed-here", "password": "another-Tr0ub4dor"}
    client.post("/auth/api", json=typed)
    client.post("/api/tokens", headers=basic("alice", "Tr0ub4dor-again"))
    pair = site.tokens(alice)
    browser = site.browser(alice, remember=True)
    script = browser.post("/api/tokens").json["token"]
    client.get("/auth/me", headers=bearer(pair["access_token"] + "x"))
    client.get("/api/users", headers=bearer(script[:-1]))
    client.post("/auth/forgot", json={"email": "alice@example.org"})
    held = [
        PASSWORD,
        *typed.values(),
        "Tr0ub4dor-again",
        pair["access_token"],
        pair["refresh_token"],
        script,
        site.token(),
    ]
    held += [browser.get_cookie(name).value for name in ("sessionId", "remember_token")]
    written = caplog.text + repr(site.heard)
    assert "wrong_password" in written
    assert [value for value in held if value in written] == []


def test_asvs_16_4_1_what_was_typed_as_a_name_begins_no_line_of_its_own_in_a_log(site, client, caplog):
    caplog.set_level("DEBUG")
    client.post("/auth/api", json={"username": "x\r\nFORGED line", "password": "x"})
    client.get("/api/users", headers={"Authorization": "Bearer x", "Accept": "text/html"})
    assert not [record for record in caplog.records if "FORGED" in record.getMessage()]


def test_more_passwords_at_once_than_a_process_takes_on_are_a_503(new_site):
    site = new_site(config={"JAM_PASSWORDS_CONCURRENCY": 1, "JAM_PASSWORDS_WAIT_FOR": 0.0})
    site.person("alice")
    site.client().post("/auth/api", json=RIGHT)  # so that everything is opened

    def ask(number):
        if number % 2:
            return site.client().post("/api/tokens", headers=basic("alice"))
        return site.client().post("/auth/api", json=RIGHT)

    refused = []
    with ThreadPoolExecutor(6) as pool:
        for _ in range(20):
            answers = list(pool.map(ask, range(6)))
            assert {answer(response) for response in answers} <= {(200, None), (503, "busy")}
            refused += [response for response in answers if response.status_code == 503]
            if {response.request.path for response in refused} == {"/auth/api", "/api/tokens"}:
                break
    assert {response.request.path for response in refused} == {"/auth/api", "/api/tokens"}
    assert all(int(response.headers["Retry-After"]) > 0 for response in refused)
    assert site.client().post("/auth/api", json=RIGHT).status_code == 200  # it was no attempt


# -- in the same moment -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/auth/api", "/auth/sign-in"])
def test_a_sign_in_that_races_the_end_of_everything_loses(site, alice, path):
    """Whoever changes their password while somebody signs in with the old one is alone afterwards."""
    site.jam.events.subscribe(lambda event: isinstance(event, SignedIn) and site.jam.revoke_all(alice.subject))
    response = site.client().post(path, json=RIGHT, headers=SAME_ORIGIN)
    assert answer(response) == (401, "bad_credentials")
    assert "Set-Cookie" not in response.headers


def test_a_token_that_is_revoked_while_it_is_made_is_not_handed_out(site, client, alice):
    site.jam.events.subscribe(
        lambda event: isinstance(event, APITokenCreated) and site.jam.api_tokens.revoke_all(alice.subject)
    )
    response = client.post("/api/tokens", headers=basic("alice"))
    assert answer(response) == (401, "api_token_invalid")
    assert "jam_" not in response.text


@pytest.mark.parametrize("by", ["basic", "jwt", "session"])
@pytest.mark.parametrize("before", [False, True], ids=["for the first time", "once more"])
def test_no_api_token_is_made_by_what_is_revoked_in_the_same_moment(new_site, by, before):
    site = new_site(set_up=lambda jam, app: SessionExtension(jam, app).user_loader(lambda subject: meanwhile()))

    def meanwhile():
        site.jam.revoke_all(alice.subject)
        return alice.user

    alice = site.person("alice")
    if before:
        site.jam.revoke_all(alice.subject)
    client = site.client()
    if by == "basic":
        headers = basic("alice")
    elif by == "jwt":
        claims = {"type": "access", "fresh": True}
        token = site.jam.access_tokens.issue(alice.subject, claims=claims, authenticated_at=site.jam.clock())
        headers = bearer(token)
    else:
        headers = {**SAME_ORIGIN, **cookies(("sessionId", site.jam.sessions.create(alice.subject)))}
    assert answer(client.post("/api/tokens", headers=headers)) == (409, "generation_outdated")
    assert site.jam.api_tokens.list(alice.subject) == []
