"""Nobody learns who has an account here: each way in answers everybody alike (ASVS 6.3.8)."""

import re

import pytest

from tests.ext.flask.accounts.conftest import OTHER_PASSWORD, PASSWORD, basic
from tests.ext.flask.callers import SAME_ORIGIN

PEOPLE = ["known", "unknown", "disabled", "unverified", "passwordless", "unreadable", "none at all"]


@pytest.fixture
def town(site):
    site.person("known")
    site.person("disabled", is_active=False)
    site.person("unverified", email_verified=False)
    site.person("passwordless", password_hash=None)
    site.person("unreadable", password_hash="$nonsense$")
    return site


def seen(response):
    """All that a client sees, but for what is different each time."""
    headers = [(name, value) for name, value in response.headers if name not in ("Date", "Set-Cookie")]
    return response.status_code, headers, response.data


def names(person):
    return {"none at all": ("", "")}.get(person, (person, f"{person}@example.org"))


def wrong_password(client, name):
    return client.post("/auth/api", json={"username": name, "password": "not the right one"})


def wrong_password_in_a_browser(client, name):
    return client.post("/auth/sign-in", json={"username": name, "password": "not the right one"}, headers=SAME_ORIGIN)


def wrong_password_by_basic(client, name):
    return client.post("/api/tokens", headers=basic(name, "not the right one"))


def empty_password(client, name):
    return client.post("/auth/api", json={"username": name, "password": ""})


def long_password(client, name):
    return client.post("/auth/api", json={"username": name, "password": "x" * 5000})


def forgotten(client, name):
    return client.post("/auth/forgot", json={"email": name})


WAYS_IN = [
    wrong_password,
    wrong_password_in_a_browser,
    wrong_password_by_basic,
    empty_password,
    long_password,
    forgotten,
]


@pytest.mark.parametrize("ask", WAYS_IN, ids=lambda ask: ask.__name__)
def test_asvs_6_3_8_everybody_is_answered_alike(town, ask):
    answers = {name: seen(ask(town.client(), name)) for person in PEOPLE for name in names(person)}
    assert {name: one for name, one in answers.items() if one != answers["unknown"]} == {}
    assert answers["unknown"][0] == (202 if ask is forgotten else 401)


@pytest.mark.parametrize("person", ["unknown", "disabled", "passwordless", "unreadable"])
@pytest.mark.parametrize("way", ["tokens", "session", "basic"])
def test_asvs_6_3_8_the_right_password_tells_nothing_about_who_may_not_sign_in(town, person, way):
    def ask(name):
        given = {"username": name, "password": PASSWORD}
        if way == "basic":
            return town.client().post("/api/tokens", headers=basic(name))
        return town.client().post("/auth/api" if way == "tokens" else "/auth/sign-in", json=given, headers=SAME_ORIGIN)

    assert seen(ask(person)) == seen(ask("nobody-at-all"))
    assert ask(person).status_code == 401


def test_asvs_6_3_8_a_wrong_password_tells_nothing_about_a_second_step(new_site, code):
    site = new_site(stages=[code], config={"JAM_ACCOUNTS_REQUIRE_VERIFIED_EMAIL": True})
    site.person("careful", roles={"careful"})
    site.person("unverified", email_verified=False)
    site.person("plain")
    for ask in WAYS_IN[:4]:
        answers = [seen(ask(site.client(), name)) for name in ("careful", "unverified", "plain", "nobody")]
        assert all(one == answers[0] for one in answers), ask
    assert (code.begun, site.mails()) == ([], [])


def test_asvs_6_3_8_registering_answers_alike_whoever_exists(town):
    answers = []
    for username, email in (
        ("fresh", "fresh@example.org"),
        ("known", "fresh2@example.org"),
        ("fresh3", "known@example.org"),
        ("KNOWN", "KNOWN@example.org"),
        ("fresh4", "disabled@example.org"),
        ("fresh5", "unverified@example.org"),
        ("fresh6", "passwordless@example.org"),
    ):
        given = {"username": username, "email": email, "password": OTHER_PASSWORD}
        answers.append(seen(town.client().post("/auth/register", json=given)))
    assert all(one == answers[0] for one in answers)
    assert answers[0][::2] == (202, b"")


def test_asvs_6_3_8_who_exists_already_is_told_by_mail_and_gets_no_second_account(town):
    given = {"username": "someone", "email": "known@example.org", "password": OTHER_PASSWORD}
    town.client().post("/auth/register", json=given)
    (mail,) = town.mails()
    assert mail.to == "known@example.org"
    for token in re.findall(r"token=(\S+)", mail.text):
        assert (
            town.client().post("/auth/register/confirm", json={"token": token, "password": PASSWORD}).status_code != 201
        )
    assert town.find("someone") is None


def test_asvs_6_3_8_a_forgotten_password_is_told_to_its_owner_alone(town):
    for person in PEOPLE:
        for name in names(person):
            town.client().post("/auth/forgot", json={"email": name})
    reached = sorted(mail.to for mail in town.mails())
    assert reached == sorted(
        2 * [f"{name}@example.org" for name in ("known", "unverified", "passwordless", "unreadable")]
    )


def test_asvs_6_3_8_who_is_throttled_is_answered_alike(new_site):
    site = new_site(config={"JAM_THROTTLING_ATTEMPTS": 2, "JAM_THROTTLING_MAILS": 2})
    site.person("known")
    site.person("disabled", is_active=False)
    for ask in (wrong_password, wrong_password_by_basic, forgotten):
        answers = []
        for name in ("known", "disabled", "unknown"):
            for _ in range(2):
                ask(site.client(), name)
            answers.append(seen(ask(site.client(), name)))
        assert answers[0][0] == 429
        assert all(one == answers[0] for one in answers)


def test_asvs_6_3_8_whether_a_password_that_is_asked_for_again_is_right_is_all_that_is_told(site, client, alice):
    right = client.post("/auth/reauthenticate", json={"password": PASSWORD}, headers=site.held(alice))
    wrong = client.post("/auth/reauthenticate", json={"password": "x"}, headers=site.held(alice))
    assert (right.status_code, wrong.json["code"]) == (200, "bad_credentials")
