"""Attacks on accounts that have to fail: races with the end of everything, links used twice, tokens that grow."""

import contextlib
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from jam import Jam
from jam.config import ThrottlingSettings
from jam.events import PasswordChanged, SignedIn
from jam.ext.flask import JWTExtension
from jam.stores import open_store
from tests.ext.flask.accounts.conftest import OTHER_PASSWORD, PASSWORD, basic
from tests.ext.flask.accounts.served_blog import CAT
from tests.ext.flask.accounts.serving import blog_served
from tests.ext.flask.callers import SAME_ORIGIN, answer, bearer

PATIENCE = 30
VICTIM = "victim@elsewhere.example"
THIEF, HOME = "203.0.113.66", "198.51.100.1"
NEW = {"username": "carol", "email": "carol@example.org", "password": OTHER_PASSWORD}


def at_once(number, ask):
    """Calls it so often at the same time."""
    ready = threading.Barrier(number)

    def go(one):
        ready.wait(PATIENCE)
        return ask(one)

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(go, range(number)))


# -- races with the end of everything -----------------------------------------------------------------------


def test_asvs_7_4_3_an_api_token_asked_for_by_basic_does_not_outlive_a_reset_that_it_races(site, client, alice):
    def end(event):
        if isinstance(event, SignedIn):  # the password has been looked at, and there is no token yet
            site.jam.revoke_all(alice.subject)

    stop = site.jam.events.subscribe(end)
    refused = client.post("/api/tokens", headers=basic("alice"))
    stop()
    assert answer(refused) == (409, "generation_outdated")
    assert not site.jam.api_tokens.list(alice.subject)


def test_asvs_7_4_3_an_api_token_asked_for_by_an_access_token_does_not_outlive_a_reset_that_it_races(new_site):
    ending = threading.Event()

    def set_up(jam, app):
        @JWTExtension(jam, app).user_lookup_loader
        def look_up(_, claims):
            if ending.is_set():  # the token was found good a moment ago
                jam.revoke_all(claims["sub"])
            return site.users.load(claims["sub"])

    site = new_site(set_up=set_up)
    alice = site.person("alice")
    fresh = site.fresh(alice)
    ending.set()
    refused = site.client().post("/api/tokens", headers=fresh)
    assert answer(refused) == (409, "generation_outdated")
    assert not site.jam.api_tokens.list(alice.subject)


def test_asvs_7_4_3_the_tokens_of_a_password_change_do_not_outlive_a_sign_out_everywhere_that_it_races(
    site, client, alice
):
    def end(event):
        if isinstance(event, PasswordChanged):  # the password is the new one, and there are no tokens yet
            site.accounts.management.sign_out_everywhere(alice.subject)

    fresh = site.fresh(alice)
    stop = site.jam.events.subscribe(end)
    change = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    refused = client.post("/auth/password", json=change, headers=fresh)
    stop()
    assert answer(refused) == (401, "bad_credentials")
    assert not site.jam.refresh_tokens.list(alice.subject)
    assert site.tokens(alice, OTHER_PASSWORD)


def credentials(response):
    """What a response hands out, as what a request needs to bring it back."""
    if response.status_code != 200:
        return []
    if not response.headers["Content-Type"].startswith("application/json"):
        return []
    given = response.json()
    found = [{"headers": bearer(given[name])} for name in ("token", "access_token") if name in given]
    return [*found, {"cookies": dict(response.cookies)}] if response.cookies else found


def test_asvs_7_4_3_nothing_that_the_old_password_opened_survives_its_change_on_a_real_server(
    secret, postgresql_url, tmp_path
):
    with blog_served(secret, tmp_path, postgresql_url) as (address, _):
        for name in ("susan", "david"):
            fresh = post(address, "/auth/api", {"username": name, "password": CAT}).json()["access_token"]
            old = {"username": name, "password": CAT}
            asked = [
                lambda old=old: post(address, "/auth/api", old),
                lambda old=old: post(address, "/auth/sign-in", {**old, "remember": True}, headers=SAME_ORIGIN),
                lambda name=name: post(address, "/api/tokens", headers=basic(name, CAT)),
                lambda fresh=fresh: post(address, "/api/tokens", headers=bearer(fresh)),
            ]
            change = {"current_password": CAT, "new_password": OTHER_PASSWORD, "end_api_tokens": True}

            def ask(number, asked=asked, change=change, fresh=fresh):
                if number == 8:  # in the middle of the others, which take as long as a hash does
                    time.sleep(0.02)
                    return post(address, "/auth/password", change, headers=bearer(fresh))
                return asked[number % len(asked)]()

            *others, changed = at_once(9, ask)
            assert changed.status_code == 200, changed.text
            handed_out = [one for other in others for one in credentials(other)]
            handed_out.append({"headers": bearer(fresh)})
            for one in handed_out:
                assert requests.get(f"{address}/api/users", timeout=PATIENCE, **one).status_code == 401
            kept = bearer(changed.json()["access_token"])
            assert requests.get(f"{address}/api/users", timeout=PATIENCE, headers=kept).status_code == 200


def post(address, path, given=None, **options):
    return requests.post(address + path, json=given, timeout=PATIENCE, **options)


# -- links that are used more than once ---------------------------------------------------------------------


def test_asvs_6_5_1_a_confirmed_registration_is_one_account_however_many_names_are_asked_for_at_once(site, client):
    assert client.post("/auth/register", json=NEW).status_code == 202
    token = site.token()

    def ask(number):
        return site.client().post(
            "/auth/register/confirm", json={"token": token, "password": NEW["password"], "username": f"carol{number}"}
        )

    assert sorted(answer(response) for response in at_once(8, ask)) == [
        (201, None),
        *7 * [(401, "one_time_token_invalid")],
    ]
    assert site.users.list()[1] == 1


def test_asvs_6_5_1_a_link_sets_one_password_however_often_it_is_used_at_once(site, client, alice):
    client.post("/auth/forgot", json={"email": alice.email})
    token = site.token()
    passwords = [f"{OTHER_PASSWORD} {number}" for number in range(6)]

    def ask(number):
        return site.client().post("/auth/reset", json={"token": token, "password": passwords[number]}).status_code

    codes = at_once(6, ask)
    assert sorted(codes) == [204, *5 * [401]]
    assert site.tokens(alice, passwords[codes.index(204)])


# -- tokens that would grow ---------------------------------------------------------------------------------


def test_asvs_8_2_1_a_token_gets_nothing_that_its_owner_is_given_later(site, client, alice, bob):
    token = client.post("/api/tokens", json={"scopes": []}, headers=basic("alice")).json["token"]
    site.users.update(alice.subject, {"roles": frozenset({"admin"}), "scopes": frozenset({"users:write"})})
    refused = client.put(f"/api/users/{bob.subject}", json={"username": "robert"}, headers=bearer(token))
    assert answer(refused) == (403, "access_denied")


@pytest.mark.parametrize(
    "forge",
    [
        lambda token: token[:-1] + ("a" if token[-1] != "a" else "b"),
        lambda token: token.swapcase(),
        lambda token: token + "=",
        lambda token: token.replace("jam_", "JAM_"),
        lambda token: token.replace("jam_", "jam_0"),
        lambda token: token.rpartition("_")[0] + "_" + "0" * len(token.rpartition("_")[2]),
    ],
    ids=["checksum", "case", "padding", "prefix", "longer", "secret"],
)
def test_an_api_token_that_is_changed_anywhere_is_none(site, client, alice, forge):
    token = client.post("/api/tokens", headers=basic("alice")).json["token"]
    assert client.get("/api/users", headers=bearer(token)).status_code == 200
    assert client.get("/api/users", headers=bearer(forge(token))).status_code == 401


# -- names that look like others ----------------------------------------------------------------------------


@pytest.mark.parametrize("email", ["i@xn--bcher-kva.example", "I@BÜCHER.example", "i@bu\u0308cher.EXAMPLE"])
def test_one_email_address_in_another_spelling_makes_no_second_account(new_site, email):
    client = new_site(config={"JAM_ACCOUNTS_OPEN_REGISTRATION": True}).client()
    assert client.post("/api/users", json={**NEW, "email": "i@bücher.example"}).status_code == 201
    second = client.post("/api/users", json={**NEW, "username": "dave", "email": email})
    assert answer(second) == (400, "email_taken")


@pytest.mark.parametrize("name", ["CAROL", "\uff43\uff41\uff52\uff4f\uff4c", "\uff23arol"])
def test_one_name_in_another_spelling_makes_no_second_account(new_site, name):
    client = new_site(config={"JAM_ACCOUNTS_OPEN_REGISTRATION": True}).client()
    assert client.post("/api/users", json=NEW).status_code == 201
    second = client.post("/api/users", json={**NEW, "username": name, "email": "dave@example.org"})
    assert answer(second) == (400, "username_taken")


# -- what a thief of the database finds ---------------------------------------------------------------------


def test_asvs_11_4_2_who_reads_the_store_and_the_users_finds_nothing_that_opens_anything(new_site, secret, tmp_path):
    where = f"sqlite:///{tmp_path}/store.sqlite3"
    with contextlib.closing(open_store(where)) as store:
        store.create_tables()
    jam = Jam({"secret": secret, "store": where})
    try:
        site = new_site(jam=jam)
        alice, client = site.person("alice"), site.client()
        browser = site.browser(alice, remember=True)
        pair = site.tokens(alice)
        api_token = client.post("/api/tokens", headers=basic("alice")).json["token"]
        client.post("/auth/register", json={**NEW, "password": "yellow lantern pebble"})
        link = site.token()
        client.post("/auth/api", json={"username": "my password, typed in the wrong field", "password": "x"})
        secrets = {
            "password": PASSWORD,
            "password of a registration": "yellow lantern pebble",
            "session": browser.get_cookie("sessionId").value.partition(".")[2],
            "remember": browser.get_cookie("remember_token").value,
            "access token": pair["access_token"],
            "refresh token": pair["refresh_token"],
            "API token": api_token.rpartition("_")[2],
            "link": link.partition(".")[2],
            "typed as a name": "typed in the wrong field",
        }
        kept = contents(tmp_path)
        assert "alice" in kept
        assert all(len(text) > 10 for text in secrets.values())
        assert [name for name, text in secrets.items() if text in kept] == []
    finally:
        jam.store.close()


def contents(folder):
    """All that the databases of a folder hold, as SQL."""
    found = []
    for path in folder.glob("*.sqlite3"):
        connection = sqlite3.connect(path)
        try:
            found += connection.iterdump()
        finally:
            connection.close()
    return "\n".join(found)


# -- mails to somebody who did not ask for them ---------------------------------------------------------------


def mails_to(site, address):
    return [mail for mail in site.mails() if mail.to == address]


def test_asvs_6_3_1_nobody_is_flooded_with_notices_by_who_takes_their_address_and_leaves_it_again(site, client, alice):
    fresh = site.fresh(alice)
    for _ in range(20):
        for email in (VICTIM, alice.email):
            client.put(f"/api/users/{alice.subject}", json={"email": email}, headers=fresh)
    assert 1 <= len(mails_to(site, VICTIM)) <= 2 * ThrottlingSettings().mails  # those to verify it, and the notices


def test_asvs_6_3_1_nobody_is_flooded_with_notices_of_another_persons_password(site, client, alice):
    token = site.tokens(alice)["access_token"]
    client.put(f"/api/users/{alice.subject}", json={"email": VICTIM}, headers=bearer(token))
    passwords = [PASSWORD, OTHER_PASSWORD]
    for _ in range(14):
        given = {"current_password": passwords[0], "new_password": passwords[1]}
        token = client.post("/auth/password", json=given, headers=bearer(token)).json["access_token"]
        passwords.reverse()
    assert 1 <= len(mails_to(site, VICTIM)) <= 2 * ThrottlingSettings().mails


def test_a_mail_to_an_address_that_nobody_has_shown_to_be_theirs_holds_no_link_of_a_strangers(site, client):
    client.post("/auth/register", json={**NEW, "username": "www.evil.example", "email": VICTIM})
    assert not any("evil.example" in mail.subject + mail.text for mail in site.mails())


# -- tries without end ----------------------------------------------------------------------------------------


def test_asvs_6_3_8_who_is_signed_in_does_not_find_out_who_has_which_address_without_end(site, client, alice, bob):
    fresh, own = site.fresh(alice), f"/api/users/{alice.subject}"
    codes = [client.put(own, json={"email": bob.email}, headers=fresh).status_code for _ in range(40)]
    assert 429 in codes


def test_asvs_6_3_1_who_found_a_session_gets_no_more_guesses_by_renaming_its_owner(site, client, alice):
    found, codes = site.held(alice), []
    for number in range(3):
        for _ in range(ThrottlingSettings().attempts + 1):
            guess = client.post("/auth/reauthenticate", json={"password": "a guess"}, headers=found)
            codes.append(guess.status_code)
        client.put(f"/api/users/{alice.subject}", json={"username": f"alice{number}"}, headers=found)
    assert 1 <= codes.count(401) <= ThrottlingSettings().attempts


@pytest.mark.parametrize("kind", ["held", "api_token"])
def test_asvs_7_5_1_the_name_that_one_signs_in_with_is_changed_by_a_fresh_sign_in_alone(site, client, alice, kind):
    headers = getattr(site, kind)(alice)
    refused = client.put(f"/api/users/{alice.subject}", json={"username": "elsewhere"}, headers=headers)
    assert refused.status_code in {401, 403}
    assert site.now(alice).username == "alice"


# -- addresses that would stay known --------------------------------------------------------------------------


def signing_in(site, name, address, password=PASSWORD):
    """How that is answered."""
    given = {"username": name, "password": password}
    return site.client().post("/auth/api", json=given, environ_overrides={"REMOTE_ADDR": address}).status_code


def guess_for_a_day(site, clock, name, address):
    """More often than anybody may in a day."""
    limits = ThrottlingSettings()
    for _ in range(limits.attempts_per_account // limits.attempts + 1):
        codes = [signing_in(site, name, address, "a guess") for _ in range(limits.attempts)]
        clock.move(limits.window + 1)
    assert codes[-1] == 429


def test_asvs_6_3_1_a_thief_whom_a_reset_turned_out_does_not_lock_the_owner_out(site, client, clock, alice):
    for address in (THIEF, HOME):
        assert signing_in(site, "alice", address) == 200
    client.post("/auth/forgot", json={"email": "alice"})
    given = {"token": site.token(), "password": OTHER_PASSWORD}
    reset = client.post("/auth/reset", json=given, environ_overrides={"REMOTE_ADDR": HOME})
    assert reset.status_code == 204
    assert signing_in(site, "alice", HOME, OTHER_PASSWORD) == 200
    guess_for_a_day(site, clock, "alice", THIEF)
    assert signing_in(site, "alice", HOME, OTHER_PASSWORD) == 200


def test_asvs_6_3_1_who_had_an_email_address_before_its_owner_does_not_lock_the_owner_out(site, client, clock, alice):
    fresh, own = site.fresh(alice), f"/api/users/{alice.subject}"
    assert client.put(own, json={"email": VICTIM}, headers=fresh).status_code == 200
    assert signing_in(site, VICTIM, THIEF) == 200
    assert client.put(own, json={"email": alice.email}, headers=fresh).status_code == 200
    site.users.create(username="owner", email=VICTIM, password_hash=site.hashed)
    assert signing_in(site, VICTIM, HOME) == 200
    guess_for_a_day(site, clock, VICTIM, THIEF)
    assert signing_in(site, VICTIM, HOME) == 200


# -- an account that somebody else asked for ------------------------------------------------------------------


@pytest.mark.parametrize("given", [{}, {"password": OTHER_PASSWORD}], ids=["no password", "their own password"])
def test_who_opens_the_link_of_an_account_that_somebody_else_asked_for_makes_none_that_the_other_can_use(
    site, client, given
):
    client.post("/auth/register", json={**NEW, "email": VICTIM, "password": "chosen by a stranger"})
    refused = client.post("/auth/register/confirm", json={"token": site.token(), **given})
    assert refused.status_code in {400, 401}
    assert site.find(VICTIM) is None
    assert signing_in(site, VICTIM, HOME, "chosen by a stranger") == 401
