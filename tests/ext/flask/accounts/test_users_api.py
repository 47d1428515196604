"""Users as an API shows and changes them: what is whose to see, and whose to change."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from jam.accounts.sql_users import SQLUsers
from jam.events import EmailChanged, Registered, UsernameChanged
from tests.ext.flask.accounts.conftest import OTHER_PASSWORD, basic
from tests.ext.flask.callers import answer, challenges

NOT_THEIRS = {
    "id": 7,
    "roles": ["admin"],
    "scopes": ["users:write"],
    "is_admin": True,
    "is_active": False,
    "email_verified": True,
    "password_hash": "x",
    "password": OTHER_PASSWORD,
    "created_at": "2000-01-01T00:00:00Z",
    "last_seen": "2000-01-01T00:00:00Z",
    "more": {"about_me": "x"},
    "_links": {},
    "user": {},
    "": 1,
    "__class__": "x",
}
NEW = {"username": "carol", "email": "carol@example.org", "password": OTHER_PASSWORD}


@pytest.fixture
def blog(new_site, tmp_path):
    """An app with a model of its own, which has fields that people may write, and one that they may not."""
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path}/blog.sqlite3"
    db = SQLAlchemy(app)

    class User(db.Model):
        id = db.Column(db.Integer, primary_key=True)
        username = db.Column(db.String(64), unique=True)
        email = db.Column(db.String(120), unique=True)
        email_verified = db.Column(db.Boolean, default=False)
        password_hash = db.Column(db.String(128))
        is_active = db.Column(db.Boolean, nullable=False, default=True)
        roles = db.Column(db.JSON, nullable=False, default=list)
        scopes = db.Column(db.JSON, nullable=False, default=list)
        about_me = db.Column(db.String(140))
        last_seen = db.Column(db.DateTime)
        is_admin = db.Column(db.Boolean, default=False)

    with app.app_context():
        db.create_all()
        engine = db.engine
    users = SQLUsers(User, db, profile=("about_me", "last_seen"), writable=("about_me",))
    site = new_site(app, users=users)
    site.db, site.model = db, User
    yield site
    site.accounts.outbox.join(30)
    engine.dispose()


@pytest.fixture
def writer(blog):
    return blog.person("alice", scopes={"users:write"})


def row(site, account):
    with site.app.app_context():
        user = site.db.session.get(site.model, int(account.subject))
        return {column.name: getattr(user, column.name) for column in site.model.__table__.columns}


# -- seeing -------------------------------------------------------------------------------------------------


def test_nobody_sees_users_without_a_credential(client, alice):
    for path in ("/api/users", f"/api/users/{alice.subject}"):
        assert answer(client.get(path)) == (401, "authentication_required")


def test_the_email_address_and_the_roles_are_shown_to_their_owner_alone(site, client, alice, bob):
    own = client.get(f"/api/users/{alice.subject}", headers=site.held(alice)).json
    others = client.get(f"/api/users/{alice.subject}", headers=site.held(bob)).json
    assert own["email"] == "alice@example.org"
    assert set(own) - set(others) == {"email", "email_verified", "roles", "scopes"}
    assert others["username"] == "alice"


def test_a_manager_sees_no_email_address_of_others_neither_by_reading_nor_by_changing(site, client, alice):
    manager = site.person("manager", roles={"admin"}, scopes={"users:write"})
    path = f"/api/users/{alice.subject}"
    for response in (
        client.get(path, headers=site.held(manager)),
        client.put(path, json={}, headers=site.held(manager)),
        client.get("/api/users", headers=site.held(manager)),
        client.put(path, json={"username": "alicia"}, headers=site.held(manager)),
    ):
        assert response.status_code == 200
        assert "alice@example.org" not in response.text


def test_no_representation_holds_a_password_hash(site, client, alice):
    for path in ("/api/users", f"/api/users/{alice.subject}", "/auth/me", "/auth/export"):
        response = client.get(path, headers=site.fresh(alice))
        assert response.status_code == 200
        assert "password" not in response.text
        assert "argon2" not in response.text


def test_a_user_links_to_themselves(site, client, alice):
    response = client.get("/api/users", headers=site.held(alice))
    link = response.json["items"][0]["_links"]["self"]
    assert client.get(link, headers=site.held(alice)).json == response.json["items"][0]


def test_times_are_iso_8601_in_utc_with_a_z(blog, writer):
    with blog.app.app_context():
        from datetime import datetime

        blog.db.session.get(blog.model, 1).last_seen = datetime(2026, 1, 2, 3, 4, 5)
        blog.db.session.commit()
    shown = blog.client().get("/api/users/1", headers=blog.held(writer)).json
    assert shown["last_seen"] == "2026-01-02T03:04:05Z"


def test_the_ready_tables_users_show_when_they_were_made(site, client, alice):
    shown = client.get(f"/api/users/{alice.subject}", headers=site.held(alice)).json
    assert len(shown["created_at"]) == len("2026-01-02T03:04:05Z")
    assert shown["created_at"].endswith("Z")


def test_the_app_adds_links_of_its_own(new_site):
    site = new_site(represent=lambda account, data: {**data, "_links": {**data["_links"], "avatar": "/a.png"}})
    alice = site.person("alice")
    shown = site.client().get("/api/users/1", headers=site.held(alice)).json
    assert shown["_links"] == {"self": "/api/users/1", "avatar": "/a.png"}


# -- pages --------------------------------------------------------------------------------------------------


@pytest.fixture
def crowd(site):
    return [site.person(f"user{number}") for number in range(23)]


def test_a_page_says_where_it_is_and_links_to_its_neighbours(site, client, crowd):
    headers = site.held(crowd[0])
    second = client.get("/api/users?page=2&per_page=10", headers=headers).json
    assert [item["username"] for item in second["items"]] == [f"user{number}" for number in range(10, 20)]
    assert second["_meta"] == {"page": 2, "per_page": 10, "total_pages": 3, "total_items": 23}
    assert second["_links"] == {
        "self": "/api/users?page=2&per_page=10",
        "next": "/api/users?page=3&per_page=10",
        "prev": "/api/users?page=1&per_page=10",
    }
    last = client.get(second["_links"]["next"], headers=headers).json
    assert (len(last["items"]), last["_links"]["next"]) == (3, None)
    first = client.get(second["_links"]["prev"], headers=headers).json
    assert (len(first["items"]), first["_links"]["prev"]) == (10, None)


def test_a_page_has_ten_users_unless_more_are_asked_for_and_never_more_than_a_hundred(site, client, crowd):
    headers = site.held(crowd[0])
    assert client.get("/api/users", headers=headers).json["_meta"]["per_page"] == 10
    assert client.get("/api/users?per_page=100000", headers=headers).json["_meta"]["per_page"] == 100


def test_a_page_behind_the_last_one_is_empty(site, client, crowd):
    page = client.get("/api/users?page=1000000&per_page=100", headers=site.held(crowd[0])).json
    assert (page["items"], page["_links"]["next"], page["_meta"]["total_items"]) == ([], None, 23)


# -- changing -----------------------------------------------------------------------------------------------


def test_people_change_their_own_names_and_fields(blog, writer):
    response = blog.client().put(
        "/api/users/1", json={"username": "alicia", "about_me": "Hello."}, headers=blog.fresh(writer)
    )
    assert (response.status_code, response.json["username"], response.json["about_me"]) == (200, "alicia", "Hello.")
    assert row(blog, writer)["about_me"] == "Hello."
    assert any(isinstance(event, UsernameChanged) for event in blog.heard)


def test_a_field_of_the_apps_own_can_be_emptied(blog, writer):
    client, headers = blog.client(), blog.held(writer)
    client.put("/api/users/1", json={"about_me": "Hello."}, headers=headers)
    assert client.put("/api/users/1", json={"about_me": None}, headers=headers).json["about_me"] is None


@pytest.mark.parametrize(
    "value", [5, True, {"$ne": ""}, ["x"], "a\x00b", "x" * 141, "x" * 5000], ids=lambda v: repr(v)[:12]
)
def test_asvs_15_3_5_a_field_of_the_apps_own_is_of_its_own_kind_and_length(blog, writer, value):
    for method, path, more in (("PUT", "/api/users/1", {}), ("POST", "/api/users", NEW)):
        response = blog.client().open(path, method=method, json={**more, "about_me": value}, headers=blog.held(writer))
        assert answer(response) == (400, "invalid_value")
        assert "about_me" in response.json["message"]
    assert row(blog, writer)["about_me"] is None
    assert blog.find("carol") is None


@pytest.mark.parametrize(("name", "value"), NOT_THEIRS.items(), ids=NOT_THEIRS)
def test_asvs_8_2_3_a_field_that_is_not_theirs_is_refused_and_nothing_is_changed(blog, writer, name, value):
    before = row(blog, writer)
    response = blog.client().put("/api/users/1", json={name: value, "about_me": "changed"}, headers=blog.held(writer))
    assert answer(response) == (400, "body_invalid")
    assert response.json["fields"] == {name: "cannot be set here"}
    assert row(blog, writer) == before


@pytest.mark.parametrize(("name", "value"), [pair for pair in NOT_THEIRS.items() if pair[0] != "password"])
@pytest.mark.parametrize("path", ["/api/users", "/auth/register"])
def test_asvs_8_2_3_a_new_person_cannot_give_themselves_what_is_not_theirs(blog, path, name, value):
    writer = blog.person("manager", scopes={"users:write"})
    response = blog.client().post(path, json={**NEW, name: value}, headers=blog.held(writer))
    assert answer(response) == (400, "body_invalid")
    assert blog.find("carol") is None
    assert blog.mails() == []


def test_asvs_8_2_2_nobody_changes_somebody_else(site, client, alice, bob):
    for headers in (site.held(alice), site.fresh(alice), site.api_token(alice)):
        response = client.put(f"/api/users/{bob.subject}", json={"username": "mallory"}, headers=headers)
        assert answer(response) == (403, "access_denied")
    assert site.now(bob).username == "bob"


def test_asvs_8_2_2_somebody_else_and_nobody_are_refused_alike(site, client, alice, bob):
    headers = site.held(alice)
    someone = client.put(f"/api/users/{bob.subject}", json={"username": "x1"}, headers=headers)
    nobody = client.put("/api/users/4711", json={"username": "x1"}, headers=headers)
    assert (someone.status_code, someone.data) == (nobody.status_code, nobody.data)


@pytest.mark.parametrize("how", ["role", "scope", "scope of an API token"])
def test_who_may_manage_people_changes_others(site, client, bob, how):
    manager = site.person("manager", roles={"admin"} if how == "role" else set(), scopes={"users:write"})
    headers = {
        "role": lambda: site.held(manager, scopes=[]),
        "scope": lambda: site.held(manager),
        "scope of an API token": lambda: site.api_token(manager, scopes=["users:write"]),
    }[how]()
    response = client.put(f"/api/users/{bob.subject}", json={"username": "robert"}, headers=headers)
    assert (response.status_code, site.now(bob).username) == (200, "robert")
    assert answer(client.put("/api/users/4711", json={}, headers=headers)) == (404, "user_not_found")


@pytest.mark.parametrize("right", [{"roles": {"admin"}}, {"scopes": {"users:write"}}], ids=["a role", "a scope"])
def test_a_right_that_was_taken_away_manages_nobody_from_the_next_request_on(site, client, bob, right):
    manager = site.person("manager", **right)
    headers = site.held(manager)
    assert client.put(f"/api/users/{bob.subject}", json={}, headers=headers).status_code == 200
    site.users.update(manager.subject, {key: set() for key in right})
    assert answer(client.put(f"/api/users/{bob.subject}", json={"username": "x1"}, headers=headers)) == (
        403,
        "access_denied",
    )


def test_another_role_than_the_apps_own_for_it_manages_nobody(new_site):
    site = new_site(admin_role="staff")
    bob, admin, staff = site.person("bob"), site.person("a1", roles={"admin"}), site.person("a2", roles={"staff"})
    put = site.client().put
    assert put(f"/api/users/{bob.subject}", json={}, headers=site.held(admin)).status_code == 403
    assert put(f"/api/users/{bob.subject}", json={}, headers=site.held(staff)).status_code == 200


# -- e-mail addresses ---------------------------------------------------------------------------------------


def test_asvs_7_5_1_another_email_address_takes_a_fresh_sign_in(site, client, clock, alice):
    change = {"email": "new@example.org"}
    fresh = site.fresh(alice)
    stale = client.put("/api/users/1", json=change, headers=site.held(alice))
    assert answer(stale) == (401, "insufficient_user_authentication")
    assert any("insufficient_user_authentication" in line for line in challenges(stale))
    clock.move(601)
    assert answer(client.put("/api/users/1", json=change, headers=fresh)) == (401, "insufficient_user_authentication")
    assert site.now(alice).email == "alice@example.org"
    assert client.put("/api/users/1", json=change, headers=site.fresh(alice)).status_code == 200
    assert site.now(alice).email == "new@example.org"


def test_asvs_7_5_1_an_api_token_changes_no_email_address(site, client):
    manager = site.person("manager", roles={"admin"}, scopes={"users:write"})
    headers = site.api_token(manager, scopes=["users:write"], roles=["admin"])
    for path in ("/api/users/1", f"/api/users/{manager.subject}"):
        response = client.put(path, json={"email": "new@example.org"}, headers=headers)
        assert answer(response) == (403, "method_required")
    assert site.now(manager).email == "manager@example.org"


def test_the_same_email_address_takes_no_fresh_sign_in(site, client, alice):
    response = client.put("/api/users/1", json={"email": "alice@example.org"}, headers=site.held(alice))
    assert response.status_code == 200


def test_another_email_address_is_to_be_verified_and_the_former_one_is_told(site, client, alice):
    client.put("/api/users/1", json={"email": "new@example.org"}, headers=site.fresh(alice))
    assert site.now(alice).email_verified is False
    assert {mail.to for mail in site.mails()} == {"alice@example.org", "new@example.org"}
    assert any(isinstance(event, EmailChanged) for event in site.heard)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"username": "BOB"}, "username_taken"),
        ({"email": "BOB@example.org"}, "email_taken"),
        ({"username": "a b"}, "username_refused"),
        ({"username": ""}, "username_refused"),
        ({"email": "nonsense"}, "email_refused"),
        ({"email": "a@b\r\nBcc: c@d"}, "email_refused"),
        ({"username": "alicia", "email": "nonsense"}, "email_refused"),
    ],
)
def test_what_is_taken_or_unfit_is_a_400_that_says_so(site, client, alice, change, code):
    site.person("bob")
    response = client.put("/api/users/1", json=change, headers=site.fresh(alice))
    assert answer(response) == (400, code)
    assert (site.now(alice).username, site.now(alice).email) == ("alice", "alice@example.org")


def test_a_model_without_email_addresses_takes_none(new_site, tmp_path):
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path}/names.sqlite3"
    db = SQLAlchemy(app)

    class User(db.Model):
        id = db.Column(db.Integer, primary_key=True)
        username = db.Column(db.String(64), unique=True)
        password_hash = db.Column(db.String(128))

    with app.app_context():
        db.create_all()
        engine = db.engine
    site = new_site(app, users=SQLUsers(User, db, email=None))
    with app.app_context():
        account = site.users.create(username="alice", email=None, password_hash=site.hashed)
    response = site.client().put("/api/users/1", json={"email": "a@example.org"}, headers=site.fresh(account))
    assert answer(response) == (400, "body_invalid")
    assert response.json["fields"] == {"email": "cannot be set here"}
    engine.dispose()


# -- making -------------------------------------------------------------------------------------------------


def test_users_are_made_by_whoever_has_the_scope(site, client):
    manager = site.person("manager", scopes={"users:write"})
    response = client.post("/api/users", json=NEW, headers=site.held(manager))
    assert (response.status_code, response.headers["Location"]) == (201, "/api/users/2")
    assert response.json["username"] == "carol"
    assert "carol@example.org" not in response.text
    assert site.tokens(site.users.get("2"), OTHER_PASSWORD)
    assert any(isinstance(event, Registered) for event in site.heard)


def test_users_are_made_by_nobody_else(site, client, alice):
    assert answer(client.post("/api/users", json=NEW)) == (401, "authentication_required")
    refused = client.post("/api/users", json=NEW, headers=site.held(alice))
    assert answer(refused) == (403, "insufficient_scope")
    assert 'scope="users:write"' in challenges(refused)[0]
    assert answer(client.post("/api/users", json=NEW, headers=basic("alice"))) == (401, "authentication_required")
    assert site.users.find("carol") is None


def test_a_site_that_is_open_lets_everybody_make_a_user_without_signing_them_in(new_site):
    site = new_site(config={"JAM_ACCOUNTS_OPEN_REGISTRATION": True})
    response = site.client().post("/api/users", json=NEW)
    assert (response.status_code, response.headers["Location"]) == (201, "/api/users/1")
    assert "Set-Cookie" not in response.headers
    assert site.users.find("carol").roles == frozenset()


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"username": "ALICE"}, "username_taken", "Please use a different username."),
        ({"email": "Alice@Example.org"}, "email_taken", "Please use a different email address."),
        ({"password": "short"}, "password_refused", "The password is too short: use at least 15 characters."),
        ({"username": "a/b"}, "username_refused", None),
        ({"email": "a@"}, "email_refused", None),
    ],
)
def test_who_cannot_be_made_is_a_400_that_says_why(new_site, change, code, message):
    site = new_site(config={"JAM_ACCOUNTS_OPEN_REGISTRATION": True})
    site.person("alice")
    response = site.client().post("/api/users", json={**NEW, **change})
    assert answer(response) == (400, code)
    assert message in {None, response.json["message"]}


def test_an_open_site_does_not_make_users_without_end(new_site):
    site = new_site(config={"JAM_ACCOUNTS_OPEN_REGISTRATION": True, "JAM_THROTTLING_MAILS_PER_ADDRESS": 3})
    client = site.client()
    codes = [
        client.post("/api/users", json={**NEW, "email": f"c{n}@example.org", "password": "x"}).status_code
        for n in range(5)
    ]
    assert codes == [400, 400, 400, 429, 429]


# -- races --------------------------------------------------------------------------------------------------


def at_once(number, ask):
    """Calls it so often at the same time."""
    ready = threading.Barrier(number)

    def go(one):
        ready.wait(30)
        return ask(one)

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(go, range(number)))


def test_of_many_who_ask_for_one_address_at_once_one_gets_it(blog):
    people = [blog.person(f"user{number}") for number in range(6)]
    held = [blog.fresh(one) for one in people]

    def ask(number):
        return answer(
            blog.client().put(
                f"/api/users/{people[number].subject}", json={"email": "one@example.org"}, headers=held[number]
            )
        )

    outcomes = at_once(6, ask)
    assert outcomes.count((200, None)) == 1
    # Five may ask for one address in an hour; the sixth is not told whether somebody has it.
    assert set(outcomes) == {(200, None), (400, "email_taken"), (429, "too_many_attempts")}


def test_one_who_changes_their_address_twice_at_once_is_told_to_look_again(blog, writer):
    headers = blog.fresh(writer)

    def ask(number):
        return answer(blog.client().put("/api/users/1", json={"email": f"n{number}@example.org"}, headers=headers))

    assert set(at_once(6, ask)) <= {(200, None), (409, "concurrent_update")}
    assert row(blog, writer)["email"].startswith("n")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"username": "alicia", "email": "bob@example.org"}, "email_taken"),
        ({"username": "bob", "email": "new@example.org"}, "username_taken"),
        ({"username": "alicia", "email": "nonsense"}, "email_refused"),
        ({"username": "a b", "email": "new@example.org"}, "username_refused"),
    ],
)
def test_of_several_changes_all_are_made_or_none(site, change, code):
    alice = site.person("alice")
    site.person("bob")
    response = site.client().put("/api/users/1", json=change, headers=site.fresh(alice))
    assert answer(response) == (400, code)
    assert (site.now(alice).username, site.now(alice).email) == ("alice", "alice@example.org")
    assert site.mails() == []
    good = {"username": "alicia", "email": "new@example.org"}
    done = site.client().put("/api/users/1", json=good, headers=site.fresh(alice))
    assert (done.json["username"], done.json["email"]) == ("alicia", "new@example.org")
