"""The tables of docs/revocation.md, taken at their word: every cell, on every engine."""

import re
import secrets
from pathlib import Path

import pytest
from flask import Flask, jsonify

from jam import Jam
from jam.accounts.accounts import Accounts
from jam.accounts.sql_users import open_users
from jam.checkpoints import HasRole
from jam.ext.flask import (
    APITokenExtension,
    JWTExtension,
    SessionExtension,
    UserMixin,
    checkpoint,
    create_access_token,
    create_refresh_token,
    current_identity,
    end_login,
    end_other_logins,
    get_jwt_identity,
    jwt_required,
    list_logins,
    login_required,
    login_user,
    logout_user,
    revoke_jwt,
)
from jam.ext.flask.accounts import AccountsExtension
from tests.ext.flask.callers import SAME_ORIGIN, bearer, cookies, set_cookies

PAGE = Path(__file__).parents[1] / "docs" / "revocation.md"
COLUMNS = ("Session", "Remembered browser", "Access token", "Refresh token", "API token")
ENDS = {
    "Session": 86400,
    "Remembered browser": 365 * 86400,
    "Access token": 900,
    "Refresh token": 30 * 86400,
    "API token": 90 * 86400,
}


def cells(title, columns=COLUMNS):
    """Every cell of the table under a heading: what happens, to which credential, and what the table says."""
    section = PAGE.read_text("utf-8").split(f"## {title}\n")[1].split("\n## ")[0]
    head, _, *rows = [re.split(r"\s*\|\s*", line.strip("| ")) for line in section.splitlines() if line[:1] == "|"]
    assert tuple(head[1:]) == columns
    return [(row[0], column, said) for row in rows for column, said in zip(columns, row[1:], strict=True)]


class User(UserMixin):
    def __init__(self, name):
        self.id = name
        self.active = True
        self.roles = {"admin"}

    @property
    def is_active(self):
        return self.active


class Site:
    """An app with every kind of credential, and one person who holds one of each."""

    def __init__(self, store, clock, secret, *, sees_users):
        self.store, self.clock, self.secret, self.sees_users = store, clock, secret, sees_users
        self.name = f"alice-{secrets.token_hex(6)}"
        self.users = {self.name: User(self.name)}
        self.start({"secret": secret})

    def start(self, options):
        """Start the app, as a new process with this configuration would."""
        jam = self.jam = Jam(options, store=self.store, clock=self.clock)
        app = self.app = Flask(__name__)
        app.testing = True
        sessions = SessionExtension(jam, app)
        JWTExtension(jam, app)
        APITokenExtension(jam, app)
        if self.sees_users:
            sessions.user_loader(self.users.get)
            sessions.get_user_roles(lambda user: user.roles)

        @app.post("/sign-in")
        def sign_in():
            if self.sees_users:
                login_user(self.users[self.name], remember=True)
            else:
                sessions.sign_in(self.name, roles=["admin"])
            roles = None if self.sees_users else {"roles": ["admin"]}
            return {
                "access": create_access_token(self.name, additional_claims=roles),
                "refresh": create_refresh_token(self.name),
            }

        @app.get("/who")
        @login_required
        def who():
            return {"who": current_identity.subject}

        @app.get("/admin")
        @checkpoint(HasRole("admin"))
        def admin():
            return {}

        @app.post("/refresh")
        @jwt_required(refresh=True)
        def refresh():
            roles = None if self.sees_users else {"roles": ["admin"]}
            return {"access": create_access_token(get_jwt_identity(), additional_claims=roles)}

        @app.post("/sign-out")
        @login_required
        def sign_out():
            logout_user()
            return {}

        @app.post("/revoke")
        @jwt_required(verify_type=False)
        def revoke():
            revoke_jwt()
            return {}

        @app.post("/end/<name>")
        @login_required
        def end(name):
            return {"ended": end_login(name)}

        @app.post("/end-others")
        @login_required
        def end_others():
            end_other_logins()
            return {}

        @app.get("/logins")
        @login_required
        def logins():
            return jsonify([login.id for login in list_logins()])

    def sign_in(self):
        """One credential of each kind, by the names of the table's columns."""
        response = self.send("POST", "/sign-in")
        assert response.status_code == 200, response.json
        held = set_cookies(response)
        if self.sees_users:
            remembered = held["remember_token"][0]
        else:
            remembered, _ = self.jam.logins.remember(self.name)
        return {
            "Session": cookies(("sessionId", held["sessionId"][0])),
            "Remembered browser": cookies(("remember_token", remembered)),
            "Access token": bearer(response.json["access"]),
            "Refresh token": bearer(response.json["refresh"]),
            "API token": bearer(self.jam.api_tokens.create(self.name, "a script", roles=["admin"])),
        }

    def send(self, method, path, headers=None):
        client = self.app.test_client(use_cookies=False)
        return client.open(path, method=method, headers={**SAME_ORIGIN, **(headers or {})})

    def works(self, kind, held, path="/who"):
        """Whether a credential is good for anything; a token that is superseded by using it is replaced."""
        if kind == "Refresh token":
            response = self.send("POST", "/refresh", held)
            return response.status_code == 200 and self.works("", bearer(response.json["access"]), path)
        response = self.send("GET", path, held)
        if kind == "Remembered browser" and response.status_code in (200, 403):
            held.update(cookies(("remember_token", set_cookies(response)["remember_token"][0])))
        assert response.status_code in (200, 401, 403), response.json
        return response.status_code == 200


@pytest.fixture
def site(engine_store, clock, secret):
    return lambda **options: Site(engine_store, clock, secret, **options)


# -- what happens -------------------------------------------------------------------------------------------


def signed_out(site, kind, held):
    path = "/revoke" if kind in ("Access token", "Refresh token") else "/sign-out"
    assert site.send("POST", path, held).status_code == 200


def one_login_ended(site, kind, held):
    for login in site.jam.logins.list(site.name):
        assert site.jam.logins.end(site.name, login.id)


def the_others_ended(site, kind, held):
    elsewhere = site.sign_in()
    assert site.send("POST", "/end-others", elsewhere["Session"]).status_code == 200


def a_used_refresh_token_came_back(site, kind, held):
    token = held["Refresh token"]["Authorization"].removeprefix("Bearer ")
    held["Refresh token"] = bearer(site.jam.refresh_tokens.rotate(token))
    site.clock.move(11)
    assert site.send("POST", "/refresh", bearer(token)).json["code"] == "refresh_token_reused"


def a_used_remembering_token_came_back(site, kind, held):
    used = dict(held["Remembered browser"])
    response = site.send("GET", "/who", held["Remembered browser"])
    held["Session"] = cookies(("sessionId", set_cookies(response)["sessionId"][0]))
    held["Remembered browser"] = cookies(("remember_token", set_cookies(response)["remember_token"][0]))
    site.clock.move(61)
    assert site.send("GET", "/who", used).json["code"] == "refresh_token_reused"


def deactivated(site, kind, held):
    site.users[site.name].active = False


def roles_changed(site, kind, held):
    site.users[site.name].roles = set()


HAPPENINGS = {
    "Signed out: `logout_user()`, `revoke_jwt()`": signed_out,
    "One login ended: `end_login(id)`": one_login_ended,
    "The other logins ended: `end_other_logins()` elsewhere": the_others_ended,
    "Signed out everywhere: `jam.revoke_all(subject)`": lambda site, kind, held: site.jam.revoke_all(site.name),
    "Everyone signed out: `jam.revoke_all(None)`": lambda site, kind, held: site.jam.revoke_all(None),
    "Password changed, and `jam.revoke_all(subject)`": lambda site, kind, held: site.jam.revoke_all(site.name),
    "Roles changed, with `get_user_roles`": roles_changed,
    "Deactivated (`is_active`), with a `user_loader`": deactivated,
    "Deleted, with a `user_loader`": lambda site, kind, held: site.users.clear(),
    "A used refresh token came back": a_used_refresh_token_came_back,
    "A used token of a remembered browser came back": a_used_remembering_token_came_back,
    "Secret changed, the old one forgotten": lambda site, kind, held: site.start({"secret": f"new {site.secret}"}),
    "Secret changed, the old one in `secret_fallbacks`": lambda site, kind, held: site.start(
        {"secret": f"new {site.secret}", "secret_fallbacks": [site.secret]}
    ),
    # Behind Jam's back: in a database that it does not look into.
    "Password changed": lambda site, kind, held: None,
    "Roles changed": roles_changed,
    "Deactivated": deactivated,
    "Deleted": lambda site, kind, held: site.users.clear(),
}


def check(site, what, kind, said):
    held = site.sign_in()
    path = (
        "/admin" if what.startswith("Roles changed") and (site.sees_users or kind != "Remembered browser") else "/who"
    )
    began = site.clock.now
    assert site.works(kind, held[kind], path)
    HAPPENINGS[what](site, kind, held if what not in ALONE else held[kind])
    if said == "at once":
        assert not site.works(kind, held[kind], path)
        return
    assert site.works(kind, held[kind], path)
    if said == "at its end":
        if kind == "Session":  # used now and then, or it would end sooner
            for _ in range(47):
                site.clock.move(1799)
                assert site.works(kind, held[kind], path)
        site.clock.now = began + ENDS[kind] - 2
        assert kind == "Session" or site.works(kind, held[kind], path)
        site.clock.now = began + ENDS[kind] + 1
        assert not site.works(kind, held[kind], path)
    else:
        assert said == "not affected"


ALONE = {"Signed out: `logout_user()`, `revoke_jwt()`"}


@pytest.mark.parametrize(("what", "kind", "said"), cells("Done through Jam"))
def test_asvs_7_4_1_what_is_done_through_jam_takes_effect_when_the_table_says(site, what, kind, said):
    check(site(sees_users=True), what, kind, said)


@pytest.mark.parametrize(("what", "kind", "said"), cells("Done behind Jam's back"))
def test_what_is_done_behind_jams_back_takes_effect_when_the_table_says(site, what, kind, said):
    check(site(sees_users=False), what, kind, said)


@pytest.mark.parametrize("title", ["Done through Jam", "Done behind Jam's back"])
def test_every_row_of_the_tables_is_tried(title):
    assert {what for what, _, _ in cells(title)} <= HAPPENINGS.keys()


# -- with accounts ------------------------------------------------------------------------------------------

PASSWORD, NEW_PASSWORD = "correct horse battery", "another horse battery"


class Post:
    """A mailer that keeps what it is given."""

    def __init__(self):
        self.mails = []

    def send(self, mail):
        self.mails.append(mail)


class AccountSite:
    """An app with accounts, and one person who holds one credential of each kind."""

    def __init__(self, store, clock, secret, folder):
        self.clock = clock
        self.jam = Jam(
            {"secret": secret, "accounts": {"base_url": "https://app.example"}, "passwords": {"min_length": 8}},
            store=store, clock=clock,
        )  # fmt: skip
        self.post = Post()
        users = open_users(f"sqlite:///{folder}/{secrets.token_hex(6)}.db", clock=clock)
        self.accounts = Accounts(self.jam, users, mailer=self.post)
        self.app = Flask(__name__)
        self.app.testing = True
        AccountsExtension(self.jam, self.app, accounts=self.accounts)

        @self.app.get("/admin")
        @checkpoint(HasRole("admin"))
        def admin():
            return {}

        # Records of everybody are in one store: what one test ends for "1" must not end what another one tries.
        self.person = self.accounts.registration.create(f"a{secrets.token_hex(8)}", self.email(), PASSWORD)
        store.advance(self.person.subject, ("session",), clock())
        self.accounts.management.set_roles(self.person.subject, ["admin"])

    def email(self):
        return f"{secrets.token_hex(8)}@example.com"

    def send(self, method, path, headers=None, body=None):
        client = self.app.test_client(use_cookies=False)
        return client.open(path, method=method, headers={**SAME_ORIGIN, **(headers or {})}, json=body or {})

    def signed_in(self):
        """A second login of the same person, which just proved who it is."""
        answer = self.send("POST", "/auth/sign-in", body={"username": self.person.username, "password": PASSWORD})
        return cookies(("sessionId", set_cookies(answer)["sessionId"][0]))

    def hold(self):
        who = {"username": self.person.username, "password": PASSWORD}
        held = set_cookies(self.send("POST", "/auth/sign-in", body={**who, "remember": True}))
        tokens = self.send("POST", "/auth/api", body=who).json
        browser = self.signed_in()
        self.send("POST", "/auth/forgot", body={"email": self.person.username})
        return {
            "Session": self.signed_in(),  # in another browser: one that is remembered gets a new session
            "Remembered browser": cookies(("remember_token", held["remember_token"][0])),
            "Access token": bearer(tokens["access_token"]),
            "Refresh token": tokens["refresh_token"],
            "API token": bearer(self.send("POST", "/api/tokens", browser).json["token"]),
            "Link by mail": self.last_link(),
        }

    def last_link(self):
        assert self.accounts.outbox.join(10)
        return self.post.mails[-1].text.split("token=")[1].split()[0]

    def works(self, kind, held, path="/api/users"):
        if kind == "Link by mail":  # a password that is too short does not use it up
            answer = self.send("POST", "/auth/reset", body={"token": held[kind], "password": "short"})
            assert answer.json["code"] in ("password_refused", "one_time_token_invalid")
            return answer.json["code"] == "password_refused"
        if kind == "Refresh token":
            answer = self.send("POST", "/auth/refresh", body={"refresh_token": held[kind]})
            if answer.status_code == 200:
                held[kind] = answer.json["refresh_token"]
            return answer.status_code == 200 and self.reached(bearer(answer.json["access_token"]), path)
        answer = self.send("GET", path, held[kind])
        if kind == "Remembered browser" and "remember_token" in set_cookies(answer):
            held[kind] = cookies(("remember_token", set_cookies(answer)["remember_token"][0]))
        assert answer.status_code in (200, 401, 403), answer.json
        return answer.status_code == 200

    def reached(self, headers, path):
        return self.send("GET", path, headers).status_code == 200


def password_changed(site, held, **more):
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD, **more}
    assert site.send("POST", "/auth/password", site.signed_in(), body).status_code == 204


def password_set_anew(site, held):
    site.send("POST", "/auth/forgot", body={"email": site.person.username})
    body = {"token": site.last_link(), "password": NEW_PASSWORD}
    assert site.send("POST", "/auth/reset", body=body).status_code == 204


def email_changed(site, held):
    assert site.send("POST", "/auth/email", site.signed_in(), {"email": site.email()}).status_code == 202
    assert site.send("POST", "/auth/email/confirm", body={"token": site.last_link()}).status_code == 204


def deactivated_and_activated(site, held):
    site.accounts.management.deactivate(site.person.subject)
    site.accounts.management.reactivate(site.person.subject)


def of_a_browser(method, path):
    def happen(site, held):
        assert site.send(method, path, site.signed_in()).status_code == 204

    return happen


WITH_ACCOUNTS = {
    "Password changed elsewhere: `POST /auth/password`": password_changed,
    "The same, with `end_api_tokens`": lambda site, held: password_changed(site, held, end_api_tokens=True),
    "Password set anew: `POST /auth/reset`": password_set_anew,
    "E-mail address changed: `POST /auth/email` and its link": email_changed,
    "Signed out elsewhere: `POST /auth/sign-out/others`": of_a_browser("POST", "/auth/sign-out/others"),
    "Signed out everywhere: `POST /auth/sign-out/everywhere`": of_a_browser("POST", "/auth/sign-out/everywhere"),
    "Roles taken away: `flask jam users roles`": lambda site, held: site.accounts.management.set_roles(
        site.person.subject, []
    ),
    "An API token revoked: `DELETE /api/tokens`": lambda site, held: site.send(
        "DELETE", "/api/tokens", held["API token"]
    ),
    "Deactivated: `POST /auth/deactivate`": of_a_browser("POST", "/auth/deactivate"),
    "Deactivated, and activated again": deactivated_and_activated,
    "Deleted: `DELETE /auth/account`": of_a_browser("DELETE", "/auth/account"),
}


@pytest.fixture
def account_site(engine_store, clock, secret, tmp_path):
    site = AccountSite(engine_store, clock, secret, tmp_path)
    yield site
    site.accounts.outbox.join(10)


def rows(title):
    """Every row of the table, with what it says of each kind of credential."""
    found = {}
    for what, kind, said in cells(title, (*COLUMNS, "Link by mail")):
        found.setdefault(what, {})[kind] = said
    return list(found.items())


@pytest.mark.parametrize(("what", "said"), rows("Done with accounts"))
def test_asvs_7_4_1_7_4_2_7_4_3_what_is_done_with_accounts_takes_effect_when_the_table_says(account_site, what, said):
    held = account_site.hold()
    path = "/admin" if what.startswith("Roles") else "/api/users"
    assert {kind: account_site.works(kind, held, path) for kind in said} == dict.fromkeys(said, True)
    WITH_ACCOUNTS[what](account_site, held)
    assert set(said.values()) <= {"at once", "not affected"}
    expected = {kind: text == "not affected" for kind, text in said.items()}
    assert {kind: account_site.works(kind, held, path) for kind in said} == expected


def test_every_row_of_the_table_of_accounts_is_tried():
    assert {what for what, _ in rows("Done with accounts")} == WITH_ACCOUNTS.keys()
