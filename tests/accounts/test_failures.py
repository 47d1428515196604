"""What breaks half-way, what is wired wrongly, and people whose data is unlike that of others."""

import os
import signal

import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import orm

from jam import Jam
from jam.accounts.accounts import Accounts
from jam.accounts.sql_users import SQLUsers, open_users
from jam.config import ThrottlingSettings
from jam.errors import BadCredentials, ConfigError, InvalidValue, SignInIncomplete, StoreUnavailable
from jam.events import Deleted, PasswordChanged
from jam.ext.flask.accounts import AccountsExtension
from jam.stores import open_store
from tests.accounts.conftest import (
    HERE,
    OTHER_PASSWORD,
    PASSWORD,
    Credentials,
    Interrupted,
    refused,
)
from tests.services import MYSQL, fresh_database

# -- a store that fails between two steps -------------------------------------------------------------------


class Breakable:
    """A store, or people, that do not answer while they are broken; ``after`` has what follows one call of a name."""

    def __init__(self, inner):
        self._inner, self.is_broken, self.after = inner, False, {}

    def __getattr__(self, name):
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def call(*arguments, **options):
            if self.is_broken:
                raise StoreUnavailable
            result = found(*arguments, **options)
            self.after.pop(name, lambda: None)()
            return result

        return call

    def break_down(self):
        self.is_broken = True


@pytest.fixture
def store():
    """In memory, and it can break; at the end it works again, so that the letters can be waited for."""
    store = Breakable(open_store("memory://"))
    yield store
    store.is_broken = False


@pytest.fixture
def breakable(make_site, store):
    """An app whose store and people break when the test says so."""
    return make_site(store=store, wrap=Breakable)


def test_a_store_that_breaks_just_after_a_password_was_changed_leaves_no_login_of_the_old_one(breakable, store):
    account = breakable.person()
    held = Credentials(breakable, account)
    breakable.users.after["update"] = store.break_down
    change = breakable.accounts.management.change_password
    refused(StoreUnavailable, change, account.subject, PASSWORD, OTHER_PASSWORD)
    store.is_broken = False
    assert breakable.knows(account, OTHER_PASSWORD)
    assert not held.living() & {"session", "remember_me", "refresh_token", "access_token"}


def test_asvs_16_3_1_a_password_that_was_changed_is_an_event_though_the_store_breaks_then(breakable, store):
    account = breakable.person()
    breakable.users.after["update"] = store.break_down
    change = breakable.accounts.management.change_password
    refused(StoreUnavailable, change, account.subject, PASSWORD, OTHER_PASSWORD)
    assert breakable.now(account).password_hash != account.password_hash
    assert breakable.kinds(PasswordChanged) == [PasswordChanged]


def test_a_password_change_that_the_store_keeps_from_beginning_changes_nothing_and_is_no_event(breakable, store):
    account = breakable.person()
    store.after["advance"] = store.break_down
    change = breakable.accounts.management.change_password
    refused(StoreUnavailable, change, account.subject, PASSWORD, OTHER_PASSWORD)
    assert breakable.now(account).password_hash == account.password_hash
    assert breakable.kinds(PasswordChanged) == []


def test_asvs_16_3_1_a_password_that_was_reset_is_an_event_though_the_store_breaks_then(breakable, store):
    account = breakable.person()
    token = breakable.reset_token(account)
    breakable.users.after["update"] = store.break_down
    refused(StoreUnavailable, breakable.accounts.recovery.reset, token, OTHER_PASSWORD)
    assert breakable.now(account).password_hash != account.password_hash
    assert breakable.kinds(PasswordChanged) == [PasswordChanged]


def test_asvs_16_3_1_a_deleted_account_is_an_event_though_the_store_breaks_then(breakable, store):
    account = breakable.person()
    breakable.users.after["delete"] = store.break_down
    refused(StoreUnavailable, breakable.accounts.management.delete, account.subject)
    assert breakable.now(account) is None
    assert breakable.kinds(Deleted) == [Deleted]


def test_an_account_is_not_opened_again_while_what_a_broken_deactivation_left_cannot_be_ended(breakable, store):
    account = breakable.person()
    held = Credentials(breakable, account)
    breakable.users.after["update"] = store.break_down
    refused(StoreUnavailable, breakable.accounts.management.deactivate, account.subject)
    refused(StoreUnavailable, breakable.accounts.management.reactivate, account.subject)
    assert not breakable.now(account).is_active
    store.is_broken = False
    assert breakable.accounts.management.reactivate(account.subject).is_active
    assert held.living() == set()


def test_people_who_cannot_be_asked_about_are_no_failed_attempts(breakable):
    account = breakable.person()
    breakable.users.is_broken = True
    for _ in range(2 * ThrottlingSettings().attempts):
        refused(StoreUnavailable, breakable.accounts.sign_in.start, account.username, PASSWORD, address=HERE)
    breakable.users.is_broken = False
    proof = breakable.accounts.sign_in.start(account.username, PASSWORD, address=HERE)
    assert proof.account.subject == account.subject


def test_asvs_7_4_2_the_tokens_of_a_password_change_do_not_outlive_a_deactivation_that_it_races(make_site):
    site = make_site(wrap=Interrupted)
    app = Flask(__name__)
    app.testing = True
    AccountsExtension(site.jam, app, accounts=site.accounts)
    account, client = site.person(), app.test_client()
    fresh = client.post("/auth/api", json={"username": account.username, "password": PASSWORD}).json["access_token"]
    ended = []

    def end_after_the_next_look(event):
        if isinstance(event, PasswordChanged):  # the password is the new one, and there are no tokens yet
            site.users.after = 1
            site.users.then = lambda: ended.append(site.accounts.management.deactivate(account.subject))

    site.jam.events.subscribe(end_after_the_next_look)
    change = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    answer = client.post("/auth/password", json=change, headers={"Authorization": f"Bearer {fresh}"})
    assert len(ended) == 1
    assert (answer.status_code, answer.json["code"]) == (401, "bad_credentials")
    assert not site.jam.refresh_tokens.list(account.subject)


# -- stages -------------------------------------------------------------------------------------------------


class Code:
    """A step of signing in that asks everybody for ``123456``."""

    def __init__(self, *, name="code", result=("otp",)):
        self.name, self._result = name, result

    def applies(self, account):
        return True

    def begin(self, account, address):
        pass

    def check(self, account, answer):
        if answer.get("code") != "123456":
            raise BadCredentials
        return self._result


def test_asvs_6_3_4_two_stages_of_one_name_are_refused(make_site):
    site = make_site(stages=[Code(), Code()])
    refused(ConfigError, lambda: site.accounts.sign_in)


def test_asvs_6_3_4_a_stage_called_as_one_of_jams_own_is_refused(make_site):
    site = make_site(config={"accounts": {"require_verified_email": True}}, stages=[Code(name="verify_email")])
    refused(ConfigError, lambda: site.accounts.sign_in)


@pytest.mark.parametrize("result", [True, False, "otp", 5, [1]])
def test_a_stage_that_returns_no_methods_is_told_and_lets_nobody_in(make_site, result):
    site = make_site(stages=[Code(result=result)])
    token = refused(SignInIncomplete, site.accounts.sign_in.start, site.person().username, PASSWORD).token
    refused(ConfigError, site.accounts.sign_in.resume, token, "code", {"code": "123456"})


# -- what is wired wrongly ----------------------------------------------------------------------------------


@pytest.mark.parametrize("users", [None, dict, SQLUsers, object(), "users"])
def test_what_is_no_user_store_is_refused_when_accounts_are_made(jam, users):
    refused(ConfigError, Accounts, jam, users)


@pytest.mark.parametrize(
    "options", [{"mailer": "smtp://mail.example"}, {"stages": [Code]}, {"stages": [object()]}, {"breached": "yes"}]
)
def test_what_is_no_mailer_stage_or_breach_list_is_refused_when_accounts_are_made(jam, site, options):
    refused(ConfigError, Accounts, jam, site.users, **options)


def test_accounts_of_another_jam_are_refused_by_an_extension(site, secret):
    refused(ConfigError, AccountsExtension, Jam({"secret": secret}), Flask(__name__), accounts=site.accounts)


def test_a_flask_sqlalchemy_that_the_app_did_not_set_up_is_told():
    db = SQLAlchemy()

    class User(db.Model):
        id = db.Column(db.Integer, primary_key=True)
        username = db.Column(db.String(64), unique=True)
        email = db.Column(db.String(254), unique=True)
        password_hash = db.Column(db.String(255))

    with Flask(__name__).app_context():
        refused(ConfigError, SQLUsers(User, db).find, "alice")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_is_forked_while_the_ready_table_is_made_can_make_it(tmp_path):
    users = open_users(f"sqlite:///{tmp_path}/people.db")
    try:
        with users._table._making:  # as another thread holds it while the database is slow
            child = os.fork()
            if not child:
                signal.alarm(10)  # rather than wait for ever
                code = 1
                try:
                    code = 0 if users.find("alice") is None else 2
                finally:
                    os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        users.close()


# -- people who are unlike others ---------------------------------------------------------------------------


class Base(orm.DeclarativeBase):
    pass


class Person(Base):
    """A model that asks little of its people: also for what Jam would not take today."""

    __tablename__ = "person"

    id = sa.Column(sa.Integer, primary_key=True)
    username = sa.Column(sa.String(64), unique=True)
    email = sa.Column(sa.String(254), unique=True)
    email_verified = sa.Column(sa.Boolean, default=False)
    password_hash = sa.Column(sa.String(255))
    age = sa.Column(sa.Integer)


@pytest.fixture
def engine(tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/own.db", poolclass=sa.NullPool)
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def own_people(engine):
    return SQLUsers(Person, engine, profile=["age"], writable=["age"])


@pytest.fixture
def add(engine, hashed):
    """Adds somebody with PASSWORD past all of Jam's checks, as an older version of the app did."""

    def add(**columns):
        with orm.Session(engine) as session:
            person = Person(password_hash=hashed, **columns)
            session.add(person)
            session.commit()
            return str(person.id)

    return add


@pytest.mark.parametrize("email", ["admin@localhost", "", "root@intranet.local", "x@example.test"])
def test_who_has_an_address_that_cannot_be_written_to_is_told_that_it_is_to_be_verified(
    make_site, own_people, add, email
):
    site = make_site(users=own_people, config={"accounts": {"require_verified_email": True}})
    add(username="alice", email=email)
    error = refused(SignInIncomplete, site.accounts.sign_in.start, "alice", PASSWORD)
    assert error.details()["steps"] == ["verify_email"]


def test_who_has_no_user_name_sets_a_forgotten_password(make_site, own_people, add):
    site = make_site(users=own_people)
    subject = add(username=None, email="alice@example.org")
    site.accounts.recovery.forgot("alice@example.org")
    site.accounts.recovery.reset(site.token(), OTHER_PASSWORD)
    assert site.accounts.sign_in.start("alice@example.org", OTHER_PASSWORD).account.subject == subject


def test_who_has_no_user_name_changes_their_password(make_site, own_people, add):
    site = make_site(users=own_people)
    subject = add(username=None, email="alice@example.org")
    site.accounts.management.change_password(subject, PASSWORD, OTHER_PASSWORD)
    assert site.accounts.sign_in.start("alice@example.org", OTHER_PASSWORD).account.subject == subject


def test_a_profile_that_the_columns_cannot_hold_is_refused_before_a_link_is_sent(make_site, own_people):
    site = make_site(users=own_people)
    start = site.accounts.registration.start
    refused(InvalidValue, start, "bob", "bob@example.org", PASSWORD, profile={"age": "old"})
    assert site.mails() == []


@pytest.fixture
def without_emoji():
    """A database whose tables have no characters beyond the first 65,536 unless they say so."""
    yield from fresh_database("MariaDB", MYSQL)


def test_a_text_that_the_database_has_no_characters_for_is_refused_and_not_logged(without_emoji, caplog):
    class Older(orm.DeclarativeBase):
        pass

    class User(Older):
        __tablename__ = "user"
        __table_args__ = {"mysql_charset": "utf8mb3"}  # noqa: RUF012 - as SQLAlchemy has it

        id = sa.Column(sa.Integer, primary_key=True)
        username = sa.Column(sa.String(64), unique=True)
        email = sa.Column(sa.String(190), unique=True)
        password_hash = sa.Column(sa.String(255))
        bio = sa.Column(sa.String(99))

    engine = sa.create_engine(without_emoji)
    try:
        Older.metadata.create_all(engine)
        users = SQLUsers(User, engine, profile=["bio"], writable=["bio"])
        given = {"username": "alice", "email": "alice@example.org", "password_hash": None}
        refused(InvalidValue, users.create, **given, profile={"bio": "hush \U0001f600"})
        assert users.find("alice") is None
    finally:
        engine.dispose()
    assert "hush" not in caplog.text
    assert "F0" not in caplog.text  # the first byte of what it is, as the driver tells it


# -- what is shown to developers ----------------------------------------------------------------------------


def test_asvs_16_2_5_an_account_shows_no_hash_to_loggers_that_ask_for_its_fields(site):
    assert "argon2" not in repr(list(site.person().__rich_repr__()))


def test_asvs_16_2_5_a_proof_shows_no_hash_to_loggers_that_ask_for_its_fields(site):
    proof = site.accounts.sign_in.start(site.person().username, PASSWORD)
    assert "argon2" not in repr(list(proof.__rich_repr__()))


def test_asvs_16_2_5_a_one_time_token_shows_no_data_to_loggers_that_ask_for_its_fields(jam):
    token = jam.one_time_tokens.issue("test", "", lifetime=9, data={"password_hash": "$argon2id$"})
    assert "argon2" not in repr(list(jam.one_time_tokens.peek(token, "test").__rich_repr__()))
