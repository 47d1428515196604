"""The tables of docs/revocation.md, taken at their word: every cell, on every engine."""

import re
import secrets
from pathlib import Path

import pytest
from flask import Flask, jsonify

from jam import Jam
from jam.checkpoints import HasRole
from jam.ext.flask import (
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
from tests.ext.flask.callers import SAME_ORIGIN, bearer, cookies, set_cookies

PAGE = Path(__file__).parents[1] / "docs" / "revocation.md"
COLUMNS = ("Session", "Remembered browser", "Access token", "Refresh token")
ENDS = {"Session": 86400, "Remembered browser": 365 * 86400, "Access token": 900, "Refresh token": 30 * 86400}


def cells(title):
    """Every cell of the table under a heading: what happens, to which credential, and what the table says."""
    section = PAGE.read_text("utf-8").split(f"## {title}\n")[1].split("\n## ")[0]
    head, _, *rows = [re.split(r"\s*\|\s*", line.strip("| ")) for line in section.splitlines() if line[:1] == "|"]
    assert tuple(head[1:]) == COLUMNS
    return [(row[0], column, said) for row in rows for column, said in zip(COLUMNS, row[1:], strict=True)]


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
    path = "/revoke" if "token" in kind else "/sign-out"
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
    "Secret changed, the old one forgotten": lambda site, kind, held: site.start({"secret": "n" + site.secret[1:]}),
    "Secret changed, the old one in `secret_fallbacks`": lambda site, kind, held: site.start(
        {"secret": "n" + site.secret[1:], "secret_fallbacks": [site.secret]}
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
