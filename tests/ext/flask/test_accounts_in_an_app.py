"""What accounts take from an app around them: its mail, its configuration's names, its doctor, its events."""

import contextlib
import logging

import flask_mail
import pytest
from click.testing import CliRunner

from jam import Jam
from jam.accounts.accounts import Accounts
from jam.accounts.mail import Mail
from jam.accounts.smtp import SMTPMailer
from jam.accounts.sql_users import SQLUsers, open_users
from jam.checkpoints import HasRole, HasScope
from jam.errors import ConfigError, InvalidValue, MailNotSent
from jam.events import AccessRefused, SignInFailed
from jam.ext.flask import (
    APITokenExtension,
    JWTExtension,
    SessionExtension,
    UserMixin,
    checkpoint,
    create_access_token,
    current_identity,
    current_user,
    login_required,
    login_user,
)
from jam.ext.flask.accounts import AccountsExtension
from jam.ext.flask.accounts.flask_mail import FlaskMailMailer
from tests.ext.flask.callers import SAME_ORIGIN, bearer

PASSWORD = "correct horse battery"
LINKS = {"JAM_ACCOUNTS_BASE_URL": "https://app.example"}


@pytest.fixture
def users(tmp_path, clock):
    users = open_users(f"sqlite:///{tmp_path}/people.db", clock=clock)
    yield users
    users.close()


@pytest.fixture
def set_up(new_app, secret, clock, users):
    """Makes an app with accounts as its configuration says."""
    made = []

    def make(before=lambda app: None, **config):
        app = new_app(**{**LINKS, **config})
        before(app)
        jam = Jam({"secret": secret}, clock=clock)
        extension = AccountsExtension(jam, app, users=users)
        made.append(extension)
        return app, extension.accounts

    yield make
    for extension in made:
        with contextlib.suppress(ConfigError):  # then there is no outbox
            extension.accounts.outbox.join(30)


REGISTRATION = {"username": "alice", "email": "alice@example.com", "password": PASSWORD}


# -- mail ---------------------------------------------------------------------------------------------------


def test_an_apps_own_flask_mail_sends(set_up):
    app, accounts = set_up(flask_mail.Mail, MAIL_DEFAULT_SENDER="no-reply@app.example", MAIL_SERVER="mail.invalid")
    with app.extensions["mail"].record_messages() as sent:
        assert app.test_client().post("/auth/register", json=REGISTRATION).status_code == 202
        assert accounts.outbox.join(30)
    (message,) = sent
    assert (message.recipients, message.sender) == (["alice@example.com"], "no-reply@app.example")
    assert "https://app.example/auth/register/confirm?token=" in message.body


def test_what_flask_mail_could_not_send_is_tried_again(new_app):
    app = new_app(TESTING=False, MAIL_SERVER="127.0.0.1", MAIL_PORT=1, MAIL_DEFAULT_SENDER="no-reply@app.example")
    flask_mail.Mail(app)
    with pytest.raises(MailNotSent) as error:
        FlaskMailMailer(app).send(Mail("alice@example.com", "Hello", "a secret link"))
    assert not error.value.permanent
    assert "secret" not in str(error.value)


def test_flask_mail_without_a_sender_is_told_as_mail_that_did_not_leave(new_app):
    app = new_app(TESTING=False, MAIL_SERVER="127.0.0.1", MAIL_PORT=1)
    flask_mail.Mail(app)
    with pytest.raises(MailNotSent):
        FlaskMailMailer(app).send(Mail("alice@example.com", "Hello", "a link"))


@pytest.mark.parametrize(
    ("config", "url", "sender"),
    [
        ({"MAIL_SERVER": "127.0.0.1"}, "smtp://127.0.0.1:25?tls=none", None),
        ({"MAIL_SERVER": "h.example", "MAIL_USE_TLS": True}, "smtp://h.example:587", None),
        ({"MAIL_SERVER": "h.example", "MAIL_USE_SSL": True, "MAIL_PORT": 2465}, "smtps://h.example:2465", None),
        (
            {"MAIL_SERVER": "h.example", "MAIL_USE_TLS": True, "MAIL_USERNAME": "a@b", "MAIL_PASSWORD": "p/w:%"},
            "smtp://a%40b:p%2Fw%3A%25@h.example:587",
            None,
        ),
        ({"MAIL_DEFAULT_SENDER": ("The App", "no-reply@app.example")}, None, "The App <no-reply@app.example>"),
        ({"MAIL_DEFAULT_SENDER": "no-reply@app.example"}, None, "no-reply@app.example"),
        ({"MAIL_SERVER": "h.example", "JAM_MAIL_URL": "console://"}, "console://", None),
        ({"MAIL_DEFAULT_SENDER": "a@app.example", "JAM_MAIL_SENDER": "b@app.example"}, None, "b@app.example"),
    ],
)
def test_flask_mails_names_say_where_mail_goes(new_app, secret, config, url, sender):
    app, jam = new_app(**config), Jam({"secret": secret})
    JWTExtension(jam, app)
    mail = jam.settings.mail
    assert (mail.url and mail.url.value.decode(), mail.sender) == (url, sender)


def test_flask_mails_names_are_enough_for_jams_own_mailer(set_up):
    _, accounts = set_up(MAIL_SERVER="h.example", MAIL_USE_TLS=True, MAIL_DEFAULT_SENDER="no-reply@app.example")
    assert isinstance(accounts.outbox._mailer, SMTPMailer)


def test_a_server_elsewhere_that_is_to_be_reached_in_the_clear_is_refused(set_up):
    _, accounts = set_up(MAIL_SERVER="h.example", MAIL_DEFAULT_SENDER="no-reply@app.example")
    with pytest.raises(ConfigError, match="TLS"):
        _ = accounts.outbox


def test_mail_without_a_base_url_is_refused_before_the_first_letter(set_up):
    _, accounts = set_up(JAM_MAIL_URL="console://", JAM_ACCOUNTS_BASE_URL=None)
    with pytest.raises(ConfigError, match=r"accounts\.base_url"):
        _ = accounts.recovery


# -- doctor -------------------------------------------------------------------------------------------------


def doctors_words(app):
    return app.test_cli_runner().invoke(args=["jam", "doctor"]).output


def test_doctor_says_what_accounts_lack(set_up):
    app, _ = set_up(JAM_PASSWORDS_MIN_LENGTH=8, JAM_ACCOUNTS_OPEN_REGISTRATION=True)
    words = doctors_words(app)
    for said in ("No mail can be sent", "Passwords of 8 characters", "is not kept", "POST /api/users is open"):
        assert said in words


def test_doctor_says_what_is_well(set_up, tmp_path):
    app, _ = set_up(
        JAM_MAIL_URL="console://",
        JAM_AUDIT_URL=f"file://{tmp_path}/audit.jsonl",
        JAM_PASSWORDS_MIGRATING_FROM="scrypt:32768:8:1",
    )
    words = doctors_words(app)
    for said in ("Mail can be sent", "What happens to accounts is kept", "a hash of scrypt:32768:8:1 more"):
        assert said in words
    assert "http://" not in words


def test_doctor_warns_of_links_that_can_be_read_on_the_way(set_up):
    app, _ = set_up(JAM_MAIL_URL="console://", JAM_ACCOUNTS_BASE_URL="http://app.example")
    assert "Links in mails begin with http://" in doctors_words(app)
    app, _ = set_up(JAM_MAIL_URL="console://", JAM_ACCOUNTS_BASE_URL="http://127.0.0.1:5000")
    assert "Links in mails begin with http://" not in doctors_words(app)


def test_doctor_says_nothing_of_accounts_where_there_are_none(new_app, secret):
    app = new_app()
    SessionExtension(Jam({"secret": secret}), app)
    assert "mail:" not in doctors_words(app)
    assert isinstance(app.test_cli_runner(), CliRunner)


# -- events -------------------------------------------------------------------------------------------------


def test_asvs_16_3_1_an_event_is_in_the_log_once_whether_it_is_recorded_or_not(set_up, tmp_path, caplog):
    for config in ({}, {"JAM_AUDIT_URL": f"file://{tmp_path}/audit.jsonl"}):
        _, accounts = set_up(**config)
        caplog.clear()
        with caplog.at_level(logging.INFO, "jam.events"):
            for number in range(2):
                accounts.jam.events.emit(SignInFailed(at=float(number), subject=None, reason="unknown"))
        assert len([record for record in caplog.records if record.name == "jam.events"]) == 2


@pytest.fixture
def guarded(new_app, secret, clock):
    app, jam = new_app(), Jam({"secret": secret}, clock=clock)
    JWTExtension(jam, app)
    APITokenExtension(jam, app)

    @app.get("/admin")
    @checkpoint(HasRole("admin"))
    def admin():
        return {}

    @app.get("/kind")
    @checkpoint(HasRole("admin").action(fail_status=404))
    def kind():
        return {}

    heard = []
    jam.events.subscribe(heard.append)
    return app.test_client(), jam, heard


def refusals(heard):
    return [event for event in heard if isinstance(event, AccessRefused)]


def test_asvs_16_3_2_a_guard_that_refuses_says_so(guarded, clock):
    client, jam, heard = guarded
    client.get("/admin?token=secret", headers=bearer(jam.access_tokens.issue("alice")))
    assert refusals(heard) == [
        AccessRefused(
            at=clock.now, subject="alice", code="role_required", status=403, method="GET", path="/admin",
            address="127.0.0.1", anonymous=False,
        )
    ]  # fmt: skip


def test_a_refusal_without_any_credential_is_told_apart(guarded):
    client, _, heard = guarded
    client.get("/admin")
    client.get("/admin", headers=bearer("nonsense"))
    client.get("/kind")
    told = [(event.code, event.status, event.anonymous) for event in refusals(heard)]
    assert told[:2] == [("authentication_required", 401, True), ("token_invalid", 401, False)]
    assert told[2][2] is True


def test_who_is_let_in_is_no_event(guarded):
    client, jam, heard = guarded
    token = jam.access_tokens.issue("alice", roles=["admin"])
    heard.clear()
    assert client.get("/admin", headers=bearer(token)).status_code == 200
    assert heard == []


def test_asvs_16_3_1_16_4_1_what_concerns_an_account_is_in_the_log_in_one_line_of_ascii(guarded, caplog):
    _, jam, _ = guarded
    with caplog.at_level(logging.INFO, "jam.events"):
        jam.events.emit(SignInFailed(at=1.0, subject="al\r\nice\u2028é", address="::1", reason="wrong_password"))
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.isascii()
    assert line.isprintable()
    assert line.startswith("SignInFailed ")


# -- roles and scopes as they are now -----------------------------------------------------------------------


class Person(UserMixin):
    def __init__(self, name, roles=(), scopes=()):
        self.id, self.roles, self.scopes = name, set(roles), set(scopes)


@pytest.fixture
def granting(new_app, secret, clock):
    """An app that says which roles and scopes its people have."""
    app, jam = new_app(), Jam({"secret": secret}, clock=clock)
    sessions = SessionExtension(jam, app)
    JWTExtension(jam, app)
    APITokenExtension(jam, app)
    people = {"alice": Person("alice", ["admin", "editor"], ["posts:read", "posts:write"])}
    sessions.user_loader(people.get)
    sessions.get_user_roles(lambda user: user.roles)
    sessions.get_user_scopes(lambda user: user.scopes)

    @app.get("/granted")
    @login_required
    def granted():
        return {"roles": sorted(current_identity.roles), "scopes": sorted(current_identity.scopes)}

    @app.get("/write")
    @checkpoint(HasScope("posts:write"))
    def write():
        return {}

    @app.post("/sign-in")
    def sign_in():
        return {"in": login_user("alice"), "who": current_user.get_id()}

    @app.post("/sign-in-nobody")
    def sign_in_nobody():
        return {"in": login_user("nobody")}

    return app, jam, people["alice"]


def test_asvs_8_3_2_scopes_that_were_taken_away_are_lost_with_the_next_request(granting):
    app, jam, alice = granting
    client, headers = app.test_client(), bearer(jam.access_tokens.issue("alice", scopes=["posts:write", "other"]))
    assert client.get("/granted", headers=headers).json["scopes"] == ["posts:write"]  # and none is gained
    alice.scopes = {"posts:read"}
    assert client.get("/granted", headers=headers).json["scopes"] == []
    assert client.get("/write", headers=headers).status_code == 403


def test_an_api_token_gains_no_role_that_its_owner_got_later(granting):
    app, jam, alice = granting
    headers = bearer(jam.api_tokens.create("alice", "ci", roles=["editor", "former"], scopes=["posts:read"]))
    alice.roles |= {"boss"}
    assert app.test_client().get("/granted", headers=headers).json == {"roles": ["editor"], "scopes": ["posts:read"]}


def test_scopes_that_are_no_names_are_a_mistake_of_the_apps(granting):
    app, jam, alice = granting
    alice.scopes = 7
    with pytest.raises(ConfigError, match="get_user_scopes"):
        app.test_client().get("/granted", headers=bearer(jam.access_tokens.issue("alice")))


def test_a_subject_is_signed_in_as_the_apps_own_user(granting):
    app, _, _ = granting
    assert app.test_client().post("/sign-in", headers=SAME_ORIGIN).json == {"in": True, "who": "alice"}
    assert app.test_client().post("/sign-in-nobody", headers=SAME_ORIGIN).json == {"in": False}


def test_jams_own_users_can_be_signed_in(set_up):
    app, accounts = set_up()
    alice = accounts.registration.create("alice", "alice@example.com", PASSWORD)

    @app.post("/as/<subject>")
    def sign_in_as(subject):
        user = accounts.users.load(subject)
        return {"in": login_user(user), "same": user == accounts.users.load(subject), "hash": hash(user) == hash(user)}

    @app.post("/by/<subject>")
    def sign_in_by(subject):
        return {"in": login_user(subject)}

    client = app.test_client()
    assert client.post(f"/as/{alice.subject}", headers=SAME_ORIGIN).json == {"in": True, "same": True, "hash": True}
    assert client.get("/auth/me").json["username"] == "alice"
    accounts.management.deactivate(alice.subject)
    assert client.post(f"/by/{alice.subject}", headers=SAME_ORIGIN).json == {"in": False}


def test_roles_and_scopes_that_a_model_does_not_know_stay_as_the_credential_says(new_app, secret, clock, tmp_path):
    import sqlalchemy as sa
    from sqlalchemy import orm

    class Base(orm.DeclarativeBase):
        pass

    class Plain(Base):
        __tablename__ = "plain"
        id = orm.mapped_column(sa.Integer, primary_key=True)
        username = orm.mapped_column(sa.String(64), unique=True)
        email = orm.mapped_column(sa.String(254), unique=True)
        password_hash = orm.mapped_column(sa.String(255))

    engine = sa.create_engine(f"sqlite:///{tmp_path}/plain.db")
    try:
        Base.metadata.create_all(engine)
        app, jam = new_app(), Jam({"secret": secret}, clock=clock)
        accounts = Accounts(jam, SQLUsers(Plain, engine))
        AccountsExtension(jam, app, accounts=accounts)
        alice = accounts.registration.create("alice", "alice@example.com", PASSWORD)

        @app.get("/granted")
        @login_required
        def granted():
            return {"roles": sorted(current_identity.roles), "scopes": sorted(current_identity.scopes)}

        with app.test_request_context():
            claims = {"roles": ["admin"], "scope": "posts:read"}
            token = create_access_token(alice.subject, additional_claims=claims)
        found = app.test_client().get("/granted", headers=bearer(token)).json
        assert found == {"roles": ["admin"], "scopes": ["posts:read"]}
    finally:
        engine.dispose()


def test_only_kinds_that_there_are_can_be_revoked(secret):
    with pytest.raises(InvalidValue, match="sesion"):
        Jam({"secret": secret}).revoke("alice", ("sesion",))


# -- what an app says otherwise -----------------------------------------------------------------------------


def test_links_lead_to_where_the_flows_are(new_app, secret, clock, users):
    app = new_app(JAM_MAIL_SENDER="no-reply@app.example", **LINKS)
    sent = []

    class Post:
        def send(self, mail):
            sent.append(mail.text)

    jam = Jam({"secret": secret}, clock=clock)
    accounts = Accounts(jam, users, mailer=Post())
    AccountsExtension(jam, app, accounts=accounts, url_prefix="/people/")
    assert app.test_client().post("/people/register", json=REGISTRATION).status_code == 202
    assert accounts.outbox.join(30)
    assert "https://app.example/people/register/confirm?token=" in sent[0]


def test_the_apps_own_claims_are_in_the_tokens_of_a_sign_in(new_app, secret, clock, users):
    app, jam = new_app(), Jam({"secret": secret}, clock=clock)
    tokens = JWTExtension(jam, app)
    tokens.additional_claims_loader(lambda subject: {"tenant": f"of {subject}", "roles": ["not", "these"]})
    accounts = Accounts(jam, users)
    AccountsExtension(jam, app, accounts=accounts)
    alice = accounts.registration.create("alice", "alice@example.com", PASSWORD)
    accounts.management.set_roles(alice.subject, ["editor"])
    client = app.test_client()
    pair = client.post("/auth/api", json={"username": "alice", "password": PASSWORD}).json
    for token in (
        pair["access_token"],
        client.post("/auth/refresh", json={"refresh_token": pair["refresh_token"]}).json["access_token"],
    ):
        claims = jam.access_tokens.verify(token).payload
        assert (claims["tenant"], claims["roles"]) == (f"of {alice.subject}", ["editor"])


def test_asvs_2_4_1_making_accounts_where_everybody_may_is_counted_by_address_and_takes_nobodys_mails(set_up):
    app, accounts = set_up(JAM_ACCOUNTS_OPEN_REGISTRATION=True, JAM_THROTTLING_MAILS_PER_ADDRESS=2)
    client = app.test_client()

    def make(name, address="192.0.2.1"):
        body = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
        return client.post("/api/users", json=body, environ_base={"REMOTE_ADDR": address}).status_code

    assert [make("alice"), make("bob"), make("carol")] == [201, 201, 429]
    assert make("dave", "192.0.2.2") == 201
    accounts.throttle.mail("alice@example.com", None)  # hers are all there still
