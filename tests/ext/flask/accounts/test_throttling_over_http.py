"""Too many attempts over HTTP: 429, whatever the password is, and by the address that really asks."""

import pytest
from werkzeug.middleware.proxy_fix import ProxyFix

from jam.events import Throttled
from tests.ext.flask.accounts.conftest import PASSWORD, basic
from tests.ext.flask.callers import SAME_ORIGIN, answer

FEW = {"JAM_THROTTLING_ATTEMPTS": 3, "JAM_THROTTLING_ATTEMPTS_PER_ADDRESS": 8, "JAM_THROTTLING_MAILS": 2}


@pytest.fixture
def few(new_site):
    site = new_site(config=FEW)
    site.person("alice")
    site.person("bob")
    return site


def tried(site, password, name="alice", **options):
    return site.client().post("/auth/api", json={"username": name, "password": password}, **options)


def tried_out(site, name="alice"):
    for _ in range(3):
        assert tried(site, "wrong", name).status_code == 401


def test_asvs_6_3_1_too_many_attempts_are_a_429_that_says_when_to_come_back(few, clock):
    tried_out(few)
    response = tried(few, "wrong")
    assert answer(response) == (429, "too_many_attempts")
    wait = int(response.headers["Retry-After"])
    assert 0 < wait <= 900
    assert tried(few, PASSWORD).status_code == 429
    clock.move(wait + 1)
    assert tried(few, PASSWORD).status_code == 200
    assert any(isinstance(event, Throttled) for event in few.heard)


def test_asvs_6_3_1_the_right_password_is_answered_as_a_wrong_one_while_there_are_too_many(few):
    tried_out(few)
    right, wrong = tried(few, PASSWORD), tried(few, "wrong")
    assert (right.status_code, right.data, list(right.headers)) == (wrong.status_code, wrong.data, list(wrong.headers))


def test_asvs_6_3_4_every_way_in_is_counted_together(few):
    client, headers = few.client(), few.held(few.find("alice"))
    assert (
        client.post("/auth/sign-in", json={"username": "alice", "password": "x"}, headers=SAME_ORIGIN).status_code
        == 401
    )
    assert client.post("/api/tokens", headers=basic("alice", "x")).status_code == 401
    assert client.post("/auth/reauthenticate", json={"password": "x"}, headers=headers).status_code == 401
    for response in (
        tried(few, PASSWORD),
        tried(few, PASSWORD, "ALICE"),
        client.post("/auth/sign-in", json={"username": "alice", "password": PASSWORD}, headers=SAME_ORIGIN),
        client.post("/api/tokens", headers=basic("alice")),
        client.post("/auth/reauthenticate", json={"password": PASSWORD}, headers=headers),
        client.post("/auth/password", json={"current_password": PASSWORD, "new_password": "x" * 20}, headers=headers),
    ):
        assert answer(response) == (429, "too_many_attempts"), response.request.path
        assert "Retry-After" in response.headers


def test_somebody_else_is_not_in_the_way(few):
    tried_out(few)
    assert tried(few, PASSWORD, "bob").status_code == 200


def test_one_address_does_not_try_everybody(few):
    codes = [tried(few, "wrong", f"nobody{number}").status_code for number in range(10)]
    assert codes == 8 * [401] + 2 * [429]
    assert tried(few, PASSWORD, "bob").status_code == 429
    assert tried(few, PASSWORD, "bob", environ_base={"REMOTE_ADDR": "198.51.100.7"}).status_code == 200


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "X-Real-IP", "Forwarded", "Client-IP", "X-Client-IP", "CF-Connecting-IP"]
)
def test_asvs_4_1_3_a_header_that_anybody_can_send_makes_no_other_address(few, header):
    for number in range(3):
        tried(few, "wrong", headers={header: f"198.51.100.{number}"})
    assert tried(few, PASSWORD, headers={header: "198.51.100.9"}).status_code == 429


def test_asvs_4_1_3_behind_a_proxy_that_the_app_knows_the_address_is_the_clients(few):
    few.app.wsgi_app = ProxyFix(few.app.wsgi_app, x_for=1)
    for _ in range(3):
        tried(few, "wrong", headers={"X-Forwarded-For": "203.0.113.1, 198.51.100.1"})
    assert tried(few, PASSWORD, headers={"X-Forwarded-For": "203.0.113.2, 198.51.100.1"}).status_code == 429
    assert tried(few, PASSWORD, headers={"X-Forwarded-For": "203.0.113.1, 198.51.100.2"}).status_code == 200


@pytest.mark.parametrize("address", ["", "unix:", "nonsense", "::1%eth0"])
def test_an_address_that_is_none_is_one_as_well(few, address):
    for _ in range(3):
        assert tried(few, "wrong", environ_base={"REMOTE_ADDR": address}).status_code == 401
    assert tried(few, PASSWORD, environ_base={"REMOTE_ADDR": address}).status_code == 429


def test_whoever_signed_in_from_an_address_is_not_locked_out_by_strangers(new_site):
    site = new_site(config={"JAM_THROTTLING_ATTEMPTS": 100, "JAM_THROTTLING_ATTEMPTS_PER_ACCOUNT": 5})
    site.person("alice")
    home = {"environ_base": {"REMOTE_ADDR": "192.0.2.1"}}
    assert tried(site, PASSWORD, **home).status_code == 200
    codes = [tried(site, "x", environ_base={"REMOTE_ADDR": f"198.51.100.{n}"}).status_code for n in range(7)]
    assert codes == 5 * [401] + 2 * [429]
    assert tried(site, PASSWORD, **home).status_code == 200


def test_mails_are_counted_for_whoever_they_are(few):
    for path, given in (
        ("/auth/forgot", {"email": "alice@example.org"}),
        ("/auth/forgot", {"email": "nobody@example.org"}),
        ("/auth/register", {"username": "carol", "email": "carol@example.org", "password": PASSWORD}),
    ):
        codes = [few.client().post(path, json=given) for _ in range(3)]
        assert [response.status_code for response in codes] == [202, 202, 429]
        assert int(codes[-1].headers["Retry-After"]) > 0
    assert len(few.mails()) == 4


def test_mails_that_the_caller_asks_for_are_counted(few):
    carol = few.person("carol", email_verified=False)
    client = few.client()
    assert [client.post("/auth/verify/send", headers=few.held(carol)).status_code for _ in range(3)] == [202, 202, 429]
    fresh = few.fresh(carol)
    given = {"email": "new@example.org"}
    assert [client.post("/auth/email", json=given, headers=fresh).status_code for _ in range(3)] == [202, 202, 429]


def test_a_429_comes_in_the_form_that_was_asked_for(few):
    tried_out(few)
    for accept, kind in (
        ("text/html", "text/html; charset=utf-8"),
        ("application/problem+json", "application/problem+json"),
    ):
        response = tried(few, "x", headers={"Accept": accept})
        assert (response.status_code, response.headers["Content-Type"]) == (429, kind)
        assert "Retry-After" in response.headers
