import contextlib
import decimal
import logging
import multiprocessing
import os
import stat
import threading
import traceback
import uuid
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import orm
from sqlalchemy.ext.associationproxy import association_proxy

from jam.accounts.names import username_key
from jam.accounts.sql_users import SQLUsers, jam_user_model, open_users
from jam.accounts.users import Account
from jam.errors import (
    ConfigError,
    EmailRefused,
    EmailTaken,
    InvalidValue,
    JamError,
    StoreUnavailable,
    UsernameTaken,
)
from tests.services import MYSQL, POSTGRESQL, fresh_database

RACERS = 8
HASH = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$" + "A" * 43
HOSTILE = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


class Base(orm.DeclarativeBase):
    pass


user_roles = sa.Table(
    "user_roles",
    Base.metadata,
    sa.Column("user_id", sa.ForeignKey("rich_users.id"), primary_key=True),
    sa.Column("role_id", sa.ForeignKey("roles.id"), primary_key=True),
)


class Role(Base):
    __tablename__ = "roles"
    id = orm.mapped_column(sa.Integer, primary_key=True)
    name = orm.mapped_column(sa.String(50), unique=True, nullable=False)


class RichUser(Base):
    """Everything that Jam has a use for, each under another name than the usual."""

    __tablename__ = "rich_users"
    id = orm.mapped_column(sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True)
    login = orm.mapped_column(sa.String(64), nullable=False)
    login_key = orm.mapped_column(sa.String(128), nullable=False, unique=True)
    mail = orm.mapped_column("mail_address", sa.String(254))
    mail_key = orm.mapped_column(sa.String(320), unique=True)
    confirmed_at = orm.mapped_column(sa.DateTime)
    secret = orm.mapped_column("pw", sa.String(255))
    active = orm.mapped_column(sa.Boolean, nullable=False, default=True)
    made_at = orm.mapped_column(sa.DateTime(timezone=True))
    groups = orm.relationship(Role, secondary=user_roles, lazy="joined")
    grants = orm.mapped_column(sa.Text)
    about_me = orm.mapped_column(sa.String(140))
    age = orm.mapped_column(sa.Integer)
    height = orm.mapped_column(sa.Double)
    wants_mail = orm.mapped_column(sa.Boolean)
    born_at = orm.mapped_column(sa.DateTime)
    seen_at = orm.mapped_column(sa.DateTime(timezone=True))
    birthday = orm.mapped_column(sa.Date)
    balance = orm.mapped_column(sa.Numeric(10, 2))
    is_admin = orm.mapped_column(sa.Boolean, nullable=False, default=False)
    posts = orm.relationship("Post", back_populates="author", cascade="all, delete-orphan")

    @property
    def shouted(self):
        return self.login.upper()


class Post(Base):
    __tablename__ = "posts"
    id = orm.mapped_column(sa.Integer, primary_key=True)
    user_id = orm.mapped_column(sa.ForeignKey("rich_users.id"), nullable=False)
    author = orm.relationship(RichUser, back_populates="posts")


class UUIDUser(Base):
    __tablename__ = "uuid_users"
    id = orm.mapped_column(sa.Uuid, primary_key=True, default=uuid.uuid4)
    username = orm.mapped_column(sa.String(20), unique=True, nullable=False)
    email = orm.mapped_column(sa.String(120), unique=True, nullable=False)
    password_hash = orm.mapped_column(sa.String(128))
    role_id = orm.mapped_column(sa.ForeignKey("roles.id"))
    roles = orm.relationship(Role, lazy="joined", innerjoin=False)

    @orm.validates("username")
    def no_admins(self, _, name):
        if name == "admin":
            raise ValueError("Nobody is called admin here.")
        assert name != "root"
        if name == "jam":
            raise EmailRefused
        return name


class TextKeyUser(Base):
    __tablename__ = "text_key_users"
    id = orm.mapped_column(sa.String(36), primary_key=True, default=lambda: "k" + uuid.uuid4().hex)
    username = orm.mapped_column(sa.String(20), unique=True, nullable=False)
    password_hash = orm.mapped_column(sa.String(128))
    roles = orm.mapped_column(sa.JSON)
    role_objects = orm.relationship(
        Role, primaryjoin=lambda: orm.foreign(TextKeyUser.username) == Role.name, viewonly=True
    )
    role_names = association_proxy("role_objects", "name")


class Loose(Base):
    """Nothing is unique, and nothing may be left out that Jam does not know."""

    __tablename__ = "loose_users"
    id = orm.mapped_column(sa.SmallInteger().with_variant(sa.Integer, "sqlite"), primary_key=True)
    username = orm.mapped_column(sa.String(20))
    email = orm.mapped_column(sa.String(120))
    password_hash = orm.mapped_column(sa.Text)
    is_active = orm.mapped_column(sa.Boolean)
    email_verified = orm.mapped_column(sa.Boolean)
    created_at = orm.mapped_column(sa.Integer)
    roles = orm.mapped_column(sa.String(40))


class Referred(Base):
    __tablename__ = "referring"
    id = orm.mapped_column(sa.Integer, primary_key=True)
    user_id = orm.mapped_column(sa.ForeignKey("text_key_users.id"), nullable=False)


class Demanding(Base):
    __tablename__ = "demanding_users"
    id = orm.mapped_column(sa.Integer, primary_key=True)
    username = orm.mapped_column(sa.String(20), unique=True, nullable=False)
    email = orm.mapped_column(sa.String(120), unique=True)
    password_hash = orm.mapped_column(sa.String(128))
    tenant = orm.mapped_column(sa.String(20), nullable=False)


RICH = {
    "username": "login", "username_key": "login_key", "email": "mail", "email_key": "mail_key", "password_hash": "secret",
    "roles": "groups", "scopes": "grants", "created_at": "made_at",
    "profile": ("about_me", "age", "height", "wants_mail", "born_at", "seen_at", "birthday", "balance", "is_admin", "shouted"),
    "writable": ("about_me", "age", "height", "wants_mail", "born_at", "seen_at"),
}  # fmt: skip


@pytest.fixture(scope="module", params=["SQLite", "PostgreSQL", "MariaDB"])
def url(request, tmp_path_factory):
    if request.param == "SQLite":
        yield f"sqlite:///{tmp_path_factory.mktemp('users')}/app.sqlite3"
    else:
        yield from fresh_database(request.param, {"PostgreSQL": POSTGRESQL, "MariaDB": MYSQL}[request.param])


@pytest.fixture(scope="module")
def prepared(url):
    engine = engine_of(url)
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def engine(prepared):
    with prepared.begin() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(sa.delete(table))
        connection.execute(sa.insert(Role.__table__), [{"name": "admin"}, {"name": "editor"}, {"name": "reader"}])
    return prepared


def engine_of(url):
    engine = sa.create_engine(url, pool_size=RACERS)
    if url.startswith("sqlite"):
        sa.event.listen(engine, "connect", lambda raw, _: raw.execute("PRAGMA foreign_keys = ON"))
    return engine


@pytest.fixture
def users(engine, clock):
    return SQLUsers(RichUser, engine, **RICH, clock=clock)


@pytest.fixture
def alice(users):
    return users.create(username="Alice", email="Alice@example.com", password_hash=HASH)


def refused(act, error=InvalidValue):
    """The error that is raised: exactly that, and nothing of the database in what a log would show of it."""
    with pytest.raises(JamError) as caught:
        act()
    assert type(caught.value) is error, repr(caught.value)
    shown = "".join(traceback.format_exception(caught.value))
    assert HASH not in shown
    assert "sqlalchemy.exc" not in shown
    return caught.value


def at_once(act, count=RACERS):
    """What each of so many threads got, all of them starting at once: a value or an error."""
    barrier = threading.Barrier(count)

    def run(number):
        barrier.wait(30)
        try:
            return act(number)
        except JamError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


# -- an account ---------------------------------------------------------------------------------------------


def test_an_account_is_found_by_subject_name_and_address_as_it_was_made(users, alice, clock):
    assert (alice.username, alice.email, alice.password_hash) == ("Alice", "Alice@example.com", HASH)
    assert (alice.email_verified, alice.is_active, alice.roles, alice.scopes) == (False, True, frozenset(), frozenset())
    assert alice.created_at == pytest.approx(clock.now, abs=1)
    for found in (users.get(alice.subject), users.find("Alice"), users.find("Alice@example.com")):
        assert found.subject == alice.subject
        assert found.password_hash == HASH


def test_what_is_shown_of_an_account_holds_no_hash(alice):
    assert HASH not in repr(alice)


def test_the_apps_own_object_can_be_read_when_its_session_is_over(users, alice):
    for account in (alice, users.get(alice.subject), users.find("alice"), users.update(alice.subject, {})):
        assert (account.user.login, account.user.groups, account.user.made_at is None) == ("Alice", [], False)


@pytest.mark.parametrize("name", ["alice", "ALICE", "Ａｌｉｃｅ", "aLiCe"])
def test_names_are_one_without_regard_to_case_and_width(users, alice, name):
    assert users.find(name).subject == alice.subject
    refused(lambda: users.create(username=name, email=None, password_hash=None), UsernameTaken)


@pytest.mark.parametrize("address", ["alice@example.com", "ALICE@EXAMPLE.COM", "Alice@Example.Com"])
def test_addresses_are_one_without_regard_to_case(users, alice, address):
    assert users.find(address).subject == alice.subject
    refused(lambda: users.create(username="bob", email=address, password_hash=None), EmailTaken)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("straße", "STRASSE"),
        ("\u212aelvin", "kelvin"),
        ("ﬁn", "fin"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("İstanbul", "i\u0307stanbul"),
    ],
)
def test_names_that_fold_into_one_are_one(users, one, other):
    made = users.create(username=one, email=None, password_hash=None)
    assert users.find(other).subject == made.subject
    refused(lambda: users.create(username=other, email=None, password_hash=None), UsernameTaken)


@pytest.mark.parametrize(
    ("one", "other"), [("ilk", "ılk"), ("alice", "álice"), ("alice", "аlice"), ("oe", "œ"), ("a", "å")]
)
def test_names_that_only_look_alike_are_two_for_a_table_that_compares_exactly(url, one, other):
    with contextlib.closing(open_users(url, f"exact_{uuid.uuid4().hex[:8]}")) as people:
        first = people.create(username=one, email=None, password_hash=None)
        second = people.create(username=other, email=None, password_hash=None)
        assert (people.find(one).subject, people.find(other).subject) == (first.subject, second.subject)


@pytest.mark.parametrize(
    "name", ["alicia", "alice ", " alice", "alice'--", "%", "_lice", "alice\\", '" OR 1=1 --', "", "álice"]
)
def test_asvs_1_2_4_nobody_is_found_by_a_name_that_is_not_theirs(users, alice, name):
    assert users.find(name) is None


@pytest.mark.parametrize(
    "name", ["@", "alice@", "@example.com", "alice@example.com ", "x@y@z", "' OR '@'='", "alice@example.org"]
)
def test_nobody_is_found_by_an_address_that_is_not_theirs(users, alice, name):
    assert users.find(name) is None


@pytest.mark.parametrize("name", ["\0", "a\0", "\ud800", "x" * 2000, 7, None, b"alice", ["alice"], True], ids=ascii)
def test_nobody_is_called_what_is_no_name(users, alice, name):
    assert users.find(name) is None
    assert users.get(name) is None
    assert users.load(name) is None


@given(text=st.text())
@HOSTILE
def test_asvs_1_2_4_any_text_finds_somebody_or_nobody(users, text):
    for found in (users.get(text), users.find(text), users.find(text + "@" + text), users.load(text)):
        assert found is None or isinstance(found, (Account, RichUser))


@given(text=st.text(), address=st.none() | st.text() | st.emails())
@HOSTILE
def test_any_text_is_kept_as_it_is_or_refused(users, text, address):
    try:
        made = users.create(username=text, email=address, password_hash=text)
    except InvalidValue:
        return
    found = users.get(made.subject)
    assert (found.username, found.email, found.password_hash) == (text, address, text)
    assert users.delete(made.subject) is True


@pytest.mark.parametrize("name", ["Robert'); DROP TABLE rich_users;--", "\\'; SELECT 1; #", "%s%(x)s:x{0}", "${1}"])
def test_asvs_1_2_4_a_name_is_data_and_never_sql(users, alice, name):
    made = users.create(username=name, email=None, password_hash=name)
    assert users.find(name).subject == made.subject
    assert users.update(made.subject, {"about_me": name}).profile["about_me"] == name
    assert users.get(alice.subject).username == "Alice"


# -- subjects -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["0{}", "+{}", " {}", "{} ", "{}.0", "{}\n", "{}e0", "0x{}", "{}_0", "-{}"])
def test_a_subject_has_one_spelling(users, alice, form):
    assert users.get(form.format(alice.subject)) is None
    assert users.load(form.format(alice.subject)) is None
    assert users.update(form.format(alice.subject), {"is_active": False}) is None
    assert users.delete(form.format(alice.subject)) is False


def test_other_scripts_digits_are_no_subject(users, alice):
    wide = "".join(chr(ord(digit) + 0xFEE0) for digit in alice.subject)
    assert users.get(wide) is None


@pytest.mark.parametrize(
    "number", [2**15, 2**31, 2**31 - 1, 2**32, 2**63 - 1, 2**63, 2**64, 10**100, -(2**63), -(2**70)]
)
@pytest.mark.parametrize("model", [RichUser, Loose, Demanding])
def test_a_number_beyond_the_columns_range_is_nobody(engine, model, number):
    with orm.Session(engine) as session:
        people = SQLUsers(model, orm.scoped_session(lambda: session), **(RICH if model is RichUser else {}))
        for ask in (people.load, SQLUsers(model, engine, **(RICH if model is RichUser else {})).get):
            assert ask(str(number)) is None
        assert session.scalar(sa.text("SELECT 1")) == 1  # PostgreSQL would refuse everything after an error


def test_a_key_can_be_a_uuid(engine):
    people = SQLUsers(UUIDUser, engine)
    made = people.create(username="alice", email="a@example.com", password_hash=None)
    assert uuid.UUID(made.subject) == made.user.id
    assert people.get(made.subject).username == "alice"
    for other in (
        made.subject.upper(),
        made.subject.replace("-", ""),
        "{" + made.subject + "}",
        "abc",
        str(uuid.uuid4()),
    ):
        assert people.get(other) is None
    assert people.delete(made.subject) is True


def test_a_key_can_be_a_uuid_kept_as_text(url, engine):
    class Texty(orm.DeclarativeBase):
        pass

    class User(Texty):
        __tablename__ = "texty_users"
        id = orm.mapped_column(sa.Uuid(as_uuid=False), primary_key=True, default=lambda: str(uuid.uuid4()))
        username = orm.mapped_column(sa.String(20), unique=True)
        password_hash = orm.mapped_column(sa.String(128))

    Texty.metadata.create_all(engine)
    people = SQLUsers(User, engine, email=None)
    made = people.create(username="alice", email=None, password_hash=None)
    assert people.get(made.subject).username == "alice"
    assert people.get("abc") is None
    assert people.get(made.subject.upper()) is None


def test_a_key_can_be_text_and_is_compared_exactly(engine):
    people = SQLUsers(TextKeyUser, engine, email=None)
    made = people.create(username="alice", email=None, password_hash=None)
    assert people.get(made.subject).username == "alice"
    for other in (made.subject.upper(), made.subject + " ", "x" * 300, "abc", ""):
        assert people.get(other) is None
        assert people.update(other, {"password_hash": HASH}) is None
        assert people.delete(other) is False
    assert people.get(made.subject).password_hash is None


# -- taken --------------------------------------------------------------------------------------------------


def test_of_many_who_register_one_name_at_once_one_gets_it(users):
    answers = at_once(lambda n: users.create(username="Alice", email=f"a{n}@example.com", password_hash=HASH))
    assert sorted(type(answer).__name__ for answer in answers) == ["Account"] + ["UsernameTaken"] * (RACERS - 1)
    assert users.list()[1] == 1


def test_of_many_who_register_one_address_at_once_one_gets_it(users):
    answers = at_once(lambda n: users.create(username=f"a{n}", email="Alice@example.com", password_hash=HASH))
    assert sorted(type(answer).__name__ for answer in answers) == ["Account"] + ["EmailTaken"] * (RACERS - 1)


def test_of_many_who_take_one_name_at_once_one_gets_it(users):
    subjects = [users.create(username=f"u{n}", email=None, password_hash=None).subject for n in range(RACERS)]
    answers = at_once(lambda n: users.update(subjects[n], {"username": "Alice"}))
    assert sorted(type(answer).__name__ for answer in answers) == ["Account"] + ["UsernameTaken"] * (RACERS - 1)


def test_who_is_refused_while_somebody_else_commits_is_told_what_is_taken(engine, users, alice):
    """The look-up before the write sees nothing, so that the database's own refusal is what is left."""
    blind = SQLUsers(RichUser, engine, **RICH)
    blind._refuse_taken = lambda *_, **__: None
    refused(lambda: blind.create(username="alice", email=None, password_hash=HASH), UsernameTaken)
    refused(lambda: blind.create(username="bob", email="alice@example.com", password_hash=HASH), EmailTaken)
    bob = users.create(username="bob", email=None, password_hash=HASH)
    refused(lambda: blind.update(bob.subject, {"username": "ALICE"}), UsernameTaken)
    refused(lambda: blind.update(bob.subject, {"email": "alice@example.com"}), EmailTaken)
    assert users.get(bob.subject).email is None


def test_ones_own_name_is_not_taken(users, alice):
    assert users.update(alice.subject, {"username": "ALICE", "email": "alice@EXAMPLE.com"}).username == "ALICE"


def test_a_name_is_free_again_when_its_owner_has_another(users, alice):
    users.update(alice.subject, {"username": "Alicia", "email": None})
    bob = users.create(username="alice", email="alice@example.com", password_hash=None)
    assert users.find("Alice").subject == bob.subject
    assert users.find("alicia").subject == alice.subject


def test_what_the_app_demands_and_jam_does_not_know_is_an_invalid_value(engine):
    people = SQLUsers(Demanding, engine)
    error = refused(lambda: people.create(username="alice", email=None, password_hash=HASH))
    assert "column" in error.hint


def test_without_unique_columns_a_look_up_protects_and_the_log_warns(engine, caplog):
    people = SQLUsers(Loose, engine)
    assert [(record.levelname, "unique" in record.getMessage()) for record in caplog.records] == [("WARNING", True)] * 2
    people.create(username="alice", email="a@example.com", password_hash=None)
    refused(lambda: people.create(username="alice", email=None, password_hash=None), UsernameTaken)
    refused(lambda: people.create(username="bob", email="a@example.com", password_hash=None), EmailTaken)


def test_two_people_of_one_name_are_nobody(engine, caplog):
    people = SQLUsers(Loose, engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(Loose), [{"username": "alice"}, {"username": "alice"}])
    assert people.find("alice") is None
    assert "unique" in caplog.records[-1].getMessage()


def test_without_keys_no_name_finds_whom_another_spelling_means(engine, url):
    """MariaDB's collations take á for a; the counters of failed attempts do not."""
    people = SQLUsers(UUIDUser, engine)
    alice = people.create(username="alice", email="alice@example.com", password_hash=None)
    assert people.find("alice").subject == people.find("alice@example.com").subject == alice.subject
    for name in ("álice", "alice ", "alıce", "álice@example.com", "alice@example.com "):
        assert people.find(name) is None
    as_one = url.startswith("mysql")
    assert (people.find("ALICE") is not None, people.find("ALICE@example.com") is not None) == (as_one, as_one)


# -- update -------------------------------------------------------------------------------------------------


def test_a_change_is_there_for_good_and_alone(users, alice):
    changed = users.update(alice.subject, {"password_hash": HASH[::-1]})
    again = users.get(alice.subject)
    for account in (changed, again):
        assert account.password_hash == HASH[::-1]
        assert (account.username, account.email, account.is_active) == ("Alice", "Alice@example.com", True)


def test_an_address_is_shown_to_work_at_a_time(users, alice, clock):
    clock.move(100)
    verified = users.update(alice.subject, {"email_verified": True})
    assert verified.email_verified is True
    assert verified.user.confirmed_at.replace(tzinfo=UTC).timestamp() == pytest.approx(clock.now, abs=1)
    assert users.update(alice.subject, {"email_verified": False}).email_verified is False


def test_roles_are_those_of_a_relationship(users, alice):
    assert users.update(alice.subject, {"roles": ["admin", "editor"]}).roles == {"admin", "editor"}
    assert users.get(alice.subject).roles == {"admin", "editor"}
    assert users.update(alice.subject, {"roles": frozenset()}).roles == frozenset()


@pytest.mark.parametrize("role", ["root", "ADMIN", "admin ", "ádmin", "' OR 1=1"])
def test_a_role_that_does_not_exist_is_refused(users, alice, role):
    users.update(alice.subject, {"roles": ["editor"]})
    error = refused(lambda: users.update(alice.subject, {"roles": ["admin", role], "is_active": False}))
    assert repr(role) in error.message
    now = users.get(alice.subject)
    assert (now.roles, now.is_active) == ({"editor"}, True)


@pytest.mark.parametrize(
    "value", ["admin", None, 7, [7], [""], [None], {"admin": True}, ["a\0"], ["\ud800"]], ids=ascii
)
@pytest.mark.parametrize("name", ["roles", "scopes"])
def test_roles_and_scopes_are_lists_of_names(users, alice, name, value):
    refused(lambda: users.update(alice.subject, {name: value}))
    refused(lambda: users.update(alice.subject, {}, only_if={name: value}))


def test_scopes_can_be_words_of_a_text(users, alice, engine):
    assert users.update(alice.subject, {"scopes": ["write", "read"]}).user.grants == "read write"
    assert users.get(alice.subject).scopes == {"read", "write"}
    for word in ("a b", "a,b", " a", "a\n", " "):
        refused(lambda word=word: users.update(alice.subject, {"scopes": [word]}))
    with engine.begin() as connection:
        connection.execute(sa.update(RichUser.__table__).values(grants="read, write"))
    assert users.get(alice.subject).scopes == {"read", "write"}
    assert users.update(alice.subject, {"scopes": ["a", "b"]}).user.grants == "a,b"


def test_roles_can_be_a_list(engine):
    people = SQLUsers(TextKeyUser, engine, email=None)
    alice = people.create(username="alice", email=None, password_hash=None)
    assert alice.roles == frozenset()
    people.update(alice.subject, {"roles": {"b", "a"}})
    assert people.get(alice.subject).user.roles == ["a", "b"]
    assert people.update(alice.subject, {}, only_if={"roles": ["b", "a"]}).roles == {"a", "b"}
    assert people.update(alice.subject, {}, only_if={"roles": ["b"]}) is None


def test_whoever_has_one_role_at_most_has_one(engine):
    people = SQLUsers(UUIDUser, engine)
    alice = people.create(username="alice", email="a@example.com", password_hash=None)
    assert people.update(alice.subject, {"roles": ["admin"]}).roles == {"admin"}
    refused(lambda: people.update(alice.subject, {"roles": ["admin", "editor"]}))
    assert people.update(alice.subject, {"roles": []}).roles == frozenset()


def test_roles_can_come_of_a_function_and_are_then_not_jams_to_change(engine):
    people = SQLUsers(Demanding, engine, roles=lambda user: ["admin"] if user.tenant == "us" else [])
    with engine.begin() as connection:
        connection.execute(
            sa.insert(Demanding), [{"username": "alice", "tenant": "us"}, {"username": "bob", "tenant": "them"}]
        )
    assert (people.find("alice").roles, people.find("bob").roles) == ({"admin"}, frozenset())
    error = refused(lambda: people.update(people.find("bob").subject, {"roles": ["admin"]}), ConfigError)
    assert "roles" in error.message


def test_roles_through_a_proxy_are_read_and_not_changed(engine):
    people = SQLUsers(TextKeyUser, engine, email=None, roles="role_names")
    subject = people.create(username="admin", email=None, password_hash=None).subject
    assert people.get(subject).roles == {"admin"}
    refused(lambda: people.update(subject, {"roles": []}), ConfigError)


def test_a_change_needs_what_it_expects(users, alice):
    assert users.update(alice.subject, {"password_hash": "new"}, only_if={"password_hash": "other"}) is None
    assert users.get(alice.subject).password_hash == HASH
    assert users.update(alice.subject, {"password_hash": "new"}, only_if={"password_hash": HASH.lower()}) is None
    expected = {"password_hash": HASH, "email": "Alice@example.com", "email_verified": False, "about_me": None}
    assert users.update(alice.subject, {"password_hash": "new"}, only_if=expected).password_hash == "new"
    assert users.update(alice.subject, {}, only_if={"email": None}) is None


def test_none_expects_nothing_there(users):
    subject = users.create(username="alice", email=None, password_hash=None).subject
    assert users.update(subject, {"password_hash": HASH}, only_if={"password_hash": None, "email": None}) is not None
    assert users.update(subject, {"password_hash": "x"}, only_if={"password_hash": None}) is None


def test_what_is_expected_has_a_name(users, alice):
    refused(lambda: users.update(alice.subject, {}, only_if={"pw": HASH}))


def test_nobody_is_changed_who_is_not_there(users, alice):
    users.delete(alice.subject)
    assert users.update(alice.subject, {"is_active": False}) is None


def test_of_many_changes_from_one_old_hash_one_wins(users, alice):
    answers = at_once(
        lambda n: users.update(alice.subject, {"password_hash": f"hash {n}"}, only_if={"password_hash": HASH})
    )
    won = [answer for answer in answers if answer is not None]
    assert len(won) == 1
    assert users.get(alice.subject).password_hash == won[0].password_hash


def race_in_a_process(url, subject, number):
    engine = engine_of(url)
    people = SQLUsers(RichUser, engine, **RICH)
    try:
        people.find("alice")  # connected already
        _barrier.wait(60)
        change = people.update(subject, {"password_hash": f"hash {number}"}, only_if={"password_hash": HASH})
        try:
            people.create(username="Bob", email=None, password_hash=None)
        except UsernameTaken:
            return change is not None, False
        return change is not None, True
    finally:
        engine.dispose()


def remember_barrier(barrier):
    global _barrier
    _barrier = barrier


def test_of_many_processes_one_changes_and_one_registers(url, users, alice):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    with ProcessPoolExecutor(3, context, initializer=remember_barrier, initargs=(barrier,)) as pool:
        racing = [pool.submit(race_in_a_process, url, alice.subject, number) for number in range(3)]
        answers = [each.result(120) for each in racing]
    assert [sum(won) for won in zip(*answers, strict=True)] == [1, 1]


def test_a_change_waits_for_another_and_sees_what_it_did(engine, users, alice, url):
    if url.startswith("sqlite"):
        pytest.skip("its whole file is locked; the races above show it")
    with engine.connect() as other:
        other.execute(sa.update(RichUser.__table__).values(pw="changed by the app"))
        with ThreadPoolExecutor(1) as pool:
            late = pool.submit(users.update, alice.subject, {"is_active": False}, {"password_hash": HASH})
            other.commit()
            assert late.result(30) is None
    assert users.get(alice.subject).is_active is True


def test_many_counters_lose_nothing(users, alice):
    """Each reads, then changes if it is still so, until it worked: no change is lost."""
    users.update(alice.subject, {"age": 0})

    def count(_):
        while True:
            age = users.get(alice.subject).profile["age"]
            if users.update(alice.subject, {"age": age + 1}, only_if={"age": age}) is not None:
                return

    at_once(count, 4)
    assert users.get(alice.subject).profile["age"] == 4


@pytest.mark.parametrize("value", [None, 1, 0, "true", "False", [], 1.0], ids=repr)
@pytest.mark.parametrize("name", ["is_active", "email_verified"])
def test_asvs_15_3_5_a_truth_value_is_one(users, alice, name, value):
    refused(lambda: users.update(alice.subject, {name: value}))


@pytest.mark.parametrize(
    "value", ["x" * 400, "\0", "\ud800", 7, b"x", ["x"], {"$ne": ""}, True], ids=lambda value: ascii(value)[:20]
)
@pytest.mark.parametrize("name", ["username", "email", "password_hash"])
def test_asvs_15_3_5_what_cannot_be_kept_is_refused_before_it_is_sent(users, alice, name, value):
    with pytest.raises(InvalidValue):
        users.update(alice.subject, {name: value})
    with pytest.raises(InvalidValue):
        users.create(**{"username": "bob", "email": None, "password_hash": None, name: value})
    assert users.list()[1] == 1


def test_a_user_name_cannot_be_left_out(users, alice):
    assert "username" in refused(lambda: users.update(alice.subject, {"username": None})).message


def test_an_address_that_is_none_is_refused(users, alice):
    with pytest.raises(EmailRefused):
        users.update(alice.subject, {"email": "not an address"})


# -- the profile --------------------------------------------------------------------------------------------


def test_a_profile_shows_what_json_has(users, alice, engine):
    assert set(alice.profile) == set(RICH["profile"])
    with engine.begin() as connection:
        connection.execute(sa.update(RichUser.__table__).values(
            about_me="hi", age=7, height=1.5, wants_mail=True, born_at=datetime(2000, 1, 2, 3, 4, 5),
            seen_at=datetime(2000, 1, 2, 3, 4, 5, tzinfo=UTC), birthday=date(2000, 1, 2), balance=decimal.Decimal("1.50"),
        ))  # fmt: skip
    profile = users.get(alice.subject).profile
    assert {**profile} == {
        "about_me": "hi", "age": 7, "height": 1.5, "wants_mail": True, "born_at": "2000-01-02T03:04:05Z",
        "seen_at": "2000-01-02T03:04:05Z", "birthday": "2000-01-02", "balance": "1.50", "is_admin": False, "shouted": "ALICE",
    }  # fmt: skip
    with pytest.raises(TypeError):
        profile["age"] = 8


def test_a_profile_is_its_owners_to_change_where_the_app_says_so(users, alice):
    changes = {
        "about_me": "hi 🙂", "age": -7, "height": 2, "wants_mail": False, "born_at": "2000-01-02T03:04:05Z",
        "seen_at": "2000-01-02T05:04:05+02:00",
    }  # fmt: skip
    users.update(alice.subject, changes)
    profile = users.get(alice.subject).profile
    shown = {**changes, "height": 2.0, "seen_at": "2000-01-02T03:04:05Z"}
    assert {name: profile[name] for name in changes} == shown
    users.update(alice.subject, dict.fromkeys(changes))
    assert {users.get(alice.subject).profile[name] for name in changes} == {None}


def test_a_profile_can_be_there_from_the_start(users):
    made = users.create(username="alice", email=None, password_hash=None, profile={"about_me": "hi"})
    assert users.get(made.subject).profile["about_me"] == "hi"


@pytest.mark.parametrize("name", [
    "is_admin", "id", "secret", "login", "mail_key", "confirmed_at", "made_at", "groups", "posts", "shouted", "balance",
    "__class__", "metadata", "_sa_instance_state", "", "x" * 9999, "'; --", None, 7,
], ids=lambda value: ascii(value)[:20])  # fmt: skip
def test_asvs_8_2_3_what_is_not_writable_is_refused_by_name(users, alice, name):
    message = refused(lambda: users.update(alice.subject, {"about_me": "hi", name: True})).message
    assert str(name)[:20] in message
    assert len(message) < 200
    refused(lambda: users.create(username="bob", email=None, password_hash=None, profile={name: True}))
    assert users.get(alice.subject).profile["about_me"] is None


@pytest.mark.parametrize("name", ["username", "password_hash", "is_active", "roles", "email_verified"])
def test_asvs_8_2_3_nobody_registers_with_roles(users, name):
    refused(lambda: users.create(username="bob", email=None, password_hash=None, profile={name: ["admin"]}))


WRONG = {
    "about_me": [7, True, ["x"], {"a": 1}, b"x", "x" * 141, "a\0", "\ud800"],
    "age": ["7", 7.0, True, 2**31, -(2**31) - 1, 10**30, [], "x"],
    "height": ["1", True, float("nan"), float("inf"), 10**400, []],
    "wants_mail": [1, 0, "true", []],
    "born_at": [7, "yesterday", "", "2000-13-01", True, [], "9" * 5000, "0001-01-01T00:00:00+14:00"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(n, v) for n in WRONG for v in WRONG[n]], ids=lambda value: ascii(value)[:20]
)
def test_asvs_15_3_5_a_field_takes_values_of_its_own_kind_alone(users, alice, name, value):
    assert name in refused(lambda: users.update(alice.subject, {name: value})).message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=5,
)  # fmt: skip


@given(changes=st.dictionaries(st.sampled_from(RICH["writable"]) | st.text(), json_values, max_size=4))
@HOSTILE
def test_asvs_8_2_3_any_json_changes_the_writable_fields_or_nothing(users, changes):
    known = users.find("alice") or users.create(username="Alice", email=None, password_hash=HASH)
    before = users.get(known.subject)
    try:
        after = users.update(known.subject, changes)
    except InvalidValue:
        after = users.get(known.subject)
        assert after.profile == before.profile
    assert set(changes) <= set(RICH["writable"]) or after.profile == before.profile
    assert (after.username, after.password_hash, after.is_active) == ("Alice", HASH, True)
    assert after.profile["is_admin"] is False


def test_the_words_of_the_apps_own_validators_are_passed_on(engine):
    people = SQLUsers(UUIDUser, engine)
    make = lambda name: people.create(username=name, email="a@example.com", password_hash=None)  # noqa: E731
    assert refused(lambda: make("admin")).message == "Nobody is called admin here."
    assert refused(lambda: make("root")).message
    refused(lambda: make("jam"), EmailRefused)
    alice = make("alice")
    assert (
        refused(lambda: people.update(alice.subject, {"username": "admin"})).message == "Nobody is called admin here."
    )


# -- lists, deletion ----------------------------------------------------------------------------------------


def test_models_that_do_not_fit_together_are_the_apps_mistake(lite):
    model = made_in(lite, plain_model(groups=orm.relationship("NobodyDefinedThis")))
    people = SQLUsers(model, lite)
    for act in (lambda: people.get("1"), lambda: people.find("alice"), people.list, lambda: people.delete("1")):
        assert "NobodyDefinedThis" in refused(act, ConfigError).hint


def test_a_list_has_pages_in_the_order_of_the_keys(users):
    names = [f"u{number}" for number in range(7)]
    for name in names:
        users.create(username=name, email=None, password_hash=None)
    everybody, count = users.list()
    assert ([account.username for account in everybody], count) == (names, 7)
    page, count = users.list(offset=2, limit=3)
    assert ([account.username for account in page], count) == (names[2:5], 7)
    assert users.list(offset=100) == ([], 7)
    assert users.list(offset=2**62)[0] == []


def test_a_page_is_full_although_its_users_have_many_roles(users):
    for number in range(3):
        subject = users.create(username=f"u{number}", email=None, password_hash=None).subject
        users.update(subject, {"roles": ["admin", "editor"]})
    assert [account.roles for account in users.list(limit=2)[0]] == [{"admin", "editor"}] * 2


@pytest.mark.parametrize(
    "page", [(-1, 1), (0, 0), (0, -1), (0, 1001), (2**63, 1), ("0", 1), (0, None), (0.0, 1), (True, 1)]
)
def test_a_page_that_is_none_is_refused(users, page):
    refused(lambda: users.list(*page))


def test_the_deleted_are_gone_with_what_was_theirs(users, alice, engine):
    with orm.Session(engine) as session:
        session.add(Post(user_id=int(alice.subject)))
        session.commit()
    users.update(alice.subject, {"roles": ["admin"]})
    assert users.delete(alice.subject) is True
    assert (users.get(alice.subject), users.find("alice"), users.list()[1]) == (None, None, 0)
    with engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(Post)) == 0
    assert users.delete(alice.subject) is False


def test_whom_other_data_needs_is_not_deleted(engine):
    people = SQLUsers(TextKeyUser, engine, email=None)
    alice = people.create(username="alice", email=None, password_hash=HASH)
    with engine.begin() as connection:
        connection.execute(sa.insert(Referred), {"user_id": alice.subject})
    assert "other data" in refused(lambda: people.delete(alice.subject)).message
    assert people.get(alice.subject) is not None


def test_whom_sqlalchemy_does_not_delete_is_not_deleted(engine):
    class Apart(orm.DeclarativeBase):
        pass

    class User(Apart):
        __tablename__ = "apart_users"
        id = orm.mapped_column(sa.Integer, primary_key=True)
        username = orm.mapped_column(sa.String(20), unique=True)
        password_hash = orm.mapped_column(sa.String(128))
        details = orm.relationship("Details")

    class Details(Apart):
        __tablename__ = "apart_details"
        user_id = orm.mapped_column(sa.ForeignKey(User.id), primary_key=True)

    Apart.metadata.create_all(engine)
    people = SQLUsers(User, engine, email=None)
    alice = people.create(username="alice", email=None, password_hash=HASH)
    with engine.begin() as connection:
        connection.execute(sa.insert(Details), {"user_id": int(alice.subject)})
    refused(lambda: people.delete(alice.subject))
    assert people.get(alice.subject) is not None


def test_of_many_who_delete_one_does(users, alice):
    assert sorted(at_once(lambda _: users.delete(alice.subject))) == [False] * (RACERS - 1) + [True]


# -- defaults of the app's model ----------------------------------------------------------------------------


def test_columns_without_a_default_begin_as_they_should(engine, clock):
    made = SQLUsers(Loose, engine, clock=clock).create(username="alice", email=None, password_hash=None)
    assert (made.is_active, made.email_verified, made.created_at) == (True, False, float(int(clock.now)))


def test_who_is_not_said_to_be_active_is_not(engine):
    with engine.begin() as connection:
        connection.execute(sa.insert(Loose), {"username": "alice", "is_active": None})
    assert SQLUsers(Loose, engine).find("alice").is_active is False


def plain_model(**extra):
    class Apart(orm.DeclarativeBase):
        pass

    columns = {
        "__tablename__": "plain_users", "id": orm.mapped_column(sa.Integer, primary_key=True),
        "username": orm.mapped_column(sa.String(20), unique=True), "email": orm.mapped_column(sa.String(99), unique=True),
        "password_hash": orm.mapped_column(sa.String(128)),
    }  # fmt: skip
    return type("User", (Apart,), {**columns, **extra})


@pytest.fixture
def lite(tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/plain.sqlite3")
    yield engine
    engine.dispose()


def made_in(engine, model):
    model.metadata.create_all(engine)
    return model


def test_the_apps_own_defaults_are_the_apps(lite):
    """An app whose new users wait for somebody's approval."""
    model = made_in(lite, plain_model(
        is_active=orm.mapped_column(sa.Boolean, default=False),
        created_at=orm.mapped_column(sa.DateTime, server_default=sa.text("'2000-01-01 00:00:00'")),
    ))  # fmt: skip
    made = SQLUsers(model, lite).create(username="alice", email=None, password_hash=None)
    assert made.is_active is False
    assert made.created_at == datetime(2000, 1, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("told", [property(lambda _: False), lambda _: False], ids=["property", "method"])
def test_a_property_that_says_who_is_active_is_believed_and_cannot_be_changed(lite, told):
    people = SQLUsers(made_in(lite, plain_model(is_active=told)), lite)
    made = people.create(username="alice", email=None, password_hash=None)
    assert made.is_active is False
    error = refused(lambda: people.update(made.subject, {"is_active": True}), ConfigError)
    assert "is_active = sa.Column(sa.Boolean" in error.hint


@pytest.mark.parametrize("name", ["email_verified", "is_active", "roles", "scopes"])
def test_what_the_model_has_no_place_for_says_which_column_to_add(lite, name):
    people = SQLUsers(made_in(lite, plain_model()), lite)
    made = people.create(username="alice", email=None, password_hash=None)
    error = refused(lambda: people.update(made.subject, {name: True}), ConfigError)
    assert f"Add the column {name} = sa.Column(" in error.hint
    assert (made.is_active, made.email_verified, made.roles, made.created_at) == (True, False, frozenset(), None)


def test_a_model_without_addresses_finds_nobody_by_one_and_keeps_none(lite):
    people = SQLUsers(made_in(lite, plain_model(email=None)), lite, email=None)
    people.create(username="alice", email=None, password_hash=None)
    assert people.find("alice@example.com") is None
    refused(lambda: people.create(username="bob", email="b@example.com", password_hash=None), ConfigError)


class PlainText(sa.types.TypeDecorator):
    impl = sa.String(10)
    cache_ok = True

    def process_bind_param(self, value, dialect):
        if value == "bad":
            raise ValueError(value)
        return value


class Pair(sa.types.UserDefinedType):
    cache_ok = True

    def get_col_spec(self, **_):
        return "VARCHAR(10)"


def test_a_type_of_the_apps_own_has_the_length_of_what_it_is_made_of(lite):
    model = made_in(lite, plain_model(username=orm.mapped_column(PlainText, unique=True)))
    people = SQLUsers(model, lite)
    assert people.create(username="alice", email=None, password_hash=None).username == "alice"
    refused(lambda: people.create(username="x" * 11, email=None, password_hash=None))
    refused(lambda: people.create(username="bad", email=None, password_hash=None))
    assert people.find("bad") is None
    keyed = made_in(lite, plain_model(__tablename__="keyed", id=orm.mapped_column(PlainText, primary_key=True)))
    sessions = orm.scoped_session(orm.sessionmaker(lite))
    assert (SQLUsers(keyed, sessions).load("bad"), SQLUsers(keyed, sessions).get("bad")) == (None, None)
    sessions.remove()


@pytest.mark.parametrize("kind", [sa.Float, sa.Integer])
def test_the_time_of_the_verification_can_be_a_datetime_alone(lite, kind):
    refused(lambda: SQLUsers(plain_model(email_verified_at=orm.mapped_column(kind)), lite), ConfigError)


def test_roles_in_a_set_or_by_name_are_read(lite):
    class Apart(orm.DeclarativeBase):
        pass

    class Group(Apart):
        __tablename__ = "groups"
        id = orm.mapped_column(sa.Integer, primary_key=True)
        name = orm.mapped_column(sa.String(20), unique=True)
        user_id = orm.mapped_column(sa.ForeignKey("users.id"))

    class User(Apart):
        __tablename__ = "users"
        id = orm.mapped_column(sa.Integer, primary_key=True)
        username = orm.mapped_column(sa.String(20), unique=True)
        password_hash = orm.mapped_column(sa.String(128))
        roles = orm.relationship(Group, collection_class=set)
        scopes = orm.relationship(Group, collection_class=orm.attribute_keyed_dict("name"), viewonly=True)

    made_in(lite, User)
    with lite.begin() as connection:
        connection.execute(sa.insert(Group), [{"name": "a"}, {"name": "b"}])
    people = SQLUsers(User, lite, email=None)
    made = people.create(username="alice", email=None, password_hash=None)
    assert people.update(made.subject, {"roles": ["a"]}).roles == {"a"}
    assert people.get(made.subject).scopes == {"a"}


@pytest.mark.parametrize(("kept", "roles"), [
    (None, set()), ({"admin": True}, set()), ([1, None, ["x"], "", "a"], {"a"}), ("a b", {"a", "b"}), (7, set()), (True, set()),
], ids=repr)  # fmt: skip
def test_roles_that_are_no_names_are_none(lite, kept, roles):
    model = made_in(lite, plain_model(roles=orm.mapped_column(sa.JSON)))
    with lite.begin() as connection:
        connection.execute(sa.insert(model), {"username": "alice", "roles": kept})
    assert SQLUsers(model, lite).find("alice").roles == roles


class Counted:
    """How many queries an engine is asked within a block."""

    def __init__(self, engine):
        self.engine, self.statements = engine, []

    def __enter__(self):
        sa.event.listen(self.engine, "before_cursor_execute", self.note)
        return self.statements

    def __exit__(self, *_):
        sa.event.remove(self.engine, "before_cursor_execute", self.note)

    def note(self, connection, cursor, statement, *_):
        self.statements.append(statement)


@pytest.mark.parametrize("lazy", ["select", "joined", "selectin", "raise"])
def test_asvs_6_3_8_whom_jam_knows_costs_as_many_queries_as_whom_it_does_not(lite, lazy):
    class Apart(orm.DeclarativeBase):
        pass

    class Group(Apart):
        __tablename__ = "groups"
        id = orm.mapped_column(sa.Integer, primary_key=True)
        name = orm.mapped_column(sa.String(20), unique=True)
        user_id = orm.mapped_column(sa.ForeignKey("users.id"))

    class User(Apart):
        __tablename__ = "users"
        id = orm.mapped_column(sa.Integer, primary_key=True)
        username = orm.mapped_column(sa.String(20), unique=True)
        email = orm.mapped_column(sa.String(99), unique=True)
        password_hash = orm.mapped_column(sa.String(128))
        roles = orm.relationship(Group, lazy=lazy)

    made_in(lite, User)
    with lite.begin() as connection:
        connection.execute(sa.insert(User), {"username": "alice", "email": "a@example.com"})
        connection.execute(sa.insert(Group), [{"name": "admin", "user_id": 1}, {"name": "editor", "user_id": 1}])
    people = SQLUsers(User, lite)
    for name in ("alice", "bob", "a@example.com", "b@example.com"):
        with Counted(lite) as statements:
            found = people.find(name)
        assert len(statements) == 1
        assert (found is not None) == name.startswith("a")
        assert found is None or found.roles == {"admin", "editor"}


def test_roles_in_a_dynamic_relationship_are_read_and_write_only_ones_are_told(lite):
    class Apart(orm.DeclarativeBase):
        pass

    class Group(Apart):
        __tablename__ = "groups"
        id = orm.mapped_column(sa.Integer, primary_key=True)
        name = orm.mapped_column(sa.String(20), unique=True)
        user_id = orm.mapped_column(sa.ForeignKey("users.id"))

    class User(Apart):
        __tablename__ = "users"
        id = orm.mapped_column(sa.Integer, primary_key=True)
        username = orm.mapped_column(sa.String(20), unique=True)
        password_hash = orm.mapped_column(sa.String(128))
        roles = orm.relationship(Group, lazy="dynamic")
        scopes = orm.relationship(Group, lazy="write_only", viewonly=True)

    made_in(lite, User)
    people = SQLUsers(User, lite, email=None, scopes=lambda _: [])
    subject = people.create(username="alice", email=None, password_hash=None).subject
    with lite.begin() as connection:
        connection.execute(sa.insert(Group), {"name": "admin", "user_id": int(subject)})
    assert people.get(subject).roles == {"admin"}
    assert people.update(subject, {"roles": []}).roles == frozenset()
    refused(lambda: SQLUsers(User, lite, email=None).get(subject), ConfigError)


def test_a_store_says_what_it_has_a_place_for(lite, users):
    everything = {"username", "email", "email_verified", "password_hash", "is_active", "roles", "scopes"}
    assert users.changeable == everything
    assert (users.profile, users.writable, users.is_numbered) == (RICH["profile"], set(RICH["writable"]), True)
    plain = SQLUsers(plain_model(), lite, roles=lambda _: ["admin"])
    assert (plain.changeable, plain.profile) == ({"username", "email", "password_hash"}, ())
    assert SQLUsers(UUIDUser, lite).is_numbered is False
    proxied = SQLUsers(TextKeyUser, lite, email=None, roles="role_names")
    assert proxied.changeable == {"username", "password_hash"}


def test_a_table_that_lags_behind_its_model_refuses_what_does_not_fit(engine, url):
    model = plain_model(__tablename__="lagging")
    older = plain_model(
        __tablename__="lagging", username=orm.mapped_column(sa.String(5)),
        __table_args__=(sa.CheckConstraint("length(username) < 6"),),
    )  # fmt: skip
    made_in(engine, older)
    people = SQLUsers(model, engine)
    refused(lambda: people.create(username="far too long", email=None, password_hash=HASH))
    assert people.find("far too long") is None


# -- a model that does not fit ------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "near"), [
    ({"username": "user_name"}, "username"), ({"email": "e_mail"}, "email"), ({"password_hash": "password"}, "password_hash"),
    ({"is_active": "is_activ"}, "is_active="), ({"roles": "usernames"}, "username"), ({"profile": ["about"]}, ""),
    ({"profile": ["usernam"]}, "username"), ({"username_key": "username_kye"}, "username"), ({"profile": [7]}, ""),
    ({"email_verified": "metadata"}, ""),
], ids=str)  # fmt: skip
def test_a_wrong_name_is_told_at_once_with_the_nearest(lite, options, near):
    error = refused(lambda: SQLUsers(plain_model(), lite, **options), ConfigError)
    (wrong,) = options.values()
    assert (wrong if isinstance(wrong, str) else str(wrong[0])) in error.message
    assert near in error.hint
    assert error.hint


@pytest.mark.parametrize("options", [
    {"profile": ["password_hash"]}, {"profile": ["username"]}, {"profile": ["roles"]}, {"writable": ["id"]},
    {"profile": ["id"], "writable": ["id"]}, {"profile": ["posts"], "writable": ["posts"]}, {"username": "id"},
    {"profile": ["pair"], "writable": ["pair"]}, {"is_active": "username"}, {"created_at": "username"}, {"username": None},
    {"username": "pair"}, {"password_hash": None},
], ids=str)  # fmt: skip
def test_what_cannot_be_is_told_at_once(lite, options):
    model = plain_model(posts=property(lambda _: 7), pair=orm.mapped_column(Pair), roles=orm.mapped_column(sa.JSON))
    refused(lambda: SQLUsers(model, lite, **options), ConfigError)


def test_asvs_8_2_3_no_name_of_jams_own_is_a_profile_field_even_under_another_name(lite):
    model = plain_model(pw=orm.mapped_column(sa.String(128)))
    refused(lambda: SQLUsers(model, lite, password_hash="pw", profile=["pw"]), ConfigError)


@pytest.mark.parametrize("length", [60, 64, 101])
def test_asvs_11_4_2_a_column_too_short_for_a_hash_is_told_at_once(lite, length):
    model = plain_model(password_hash=orm.mapped_column(sa.String(length)))
    assert "String(255)" in refused(lambda: SQLUsers(model, lite), ConfigError).hint


@pytest.mark.parametrize("keys", [
    {"id": orm.mapped_column(sa.Integer, primary_key=True), "tenant": orm.mapped_column(sa.Integer, primary_key=True)},
    {"id": orm.mapped_column(sa.Date, primary_key=True)}, {"id": orm.mapped_column(Pair, primary_key=True)},
], ids=["composite", "date", "unknown"])  # fmt: skip
def test_a_primary_key_is_one_number_text_or_uuid(lite, keys):
    refused(lambda: SQLUsers(plain_model(**keys), lite), ConfigError)


@pytest.mark.parametrize("model", [int, object(), None, "User", Account, Base.metadata], ids=str)
def test_a_model_is_a_mapped_class(lite, model):
    refused(lambda: SQLUsers(model, lite), ConfigError)


@pytest.mark.parametrize("sessions", [None, 7, "sqlite://", object(), orm.Session], ids=str)
def test_sessions_are_made_by_something_known(sessions):
    refused(lambda: SQLUsers(plain_model(), sessions), ConfigError)


def test_a_profile_value_that_json_has_not_is_told(lite):
    people = SQLUsers(made_in(lite, plain_model(posts=property(lambda _: []))), lite, profile=["posts"])
    refused(lambda: people.create(username="alice", email=None, password_hash=None), ConfigError)


def test_a_profile_shows_no_number_that_json_has_not(lite):
    people = SQLUsers(made_in(lite, plain_model(ratio=property(lambda _: float("nan")))), lite, profile=["ratio"])
    assert people.create(username="alice", email=None, password_hash=None).profile["ratio"] is None


def test_a_profile_shows_times_of_the_app_in_utc(lite):
    east = timezone(timedelta(hours=2))
    model = plain_model(
        at=property(lambda _: datetime(2000, 1, 1, 2, 0, tzinfo=east)), of=property(lambda _: uuid.UUID(int=7))
    )
    people = SQLUsers(made_in(lite, model), lite, profile=["at", "of"])
    made = people.create(username="alice", email=None, password_hash=None)
    assert {**made.profile} == {"at": "2000-01-01T00:00:00Z", "of": str(uuid.UUID(int=7))}


def test_a_model_is_made_with_keyword_arguments(lite):
    def only_names(self, name):
        raise AssertionError

    people = SQLUsers(made_in(lite, plain_model(__init__=only_names)), lite)
    error = refused(lambda: people.create(username="alice", email=None, password_hash=None), ConfigError)
    assert "keyword" in error.message


def test_a_model_may_be_read_before_its_neighbours_are_defined(lite):
    class Apart(orm.DeclarativeBase):
        pass

    class User(Apart):
        __tablename__ = "users"
        id = orm.mapped_column(sa.Integer, primary_key=True)
        username = orm.mapped_column(sa.String(20), unique=True)
        password_hash = orm.mapped_column(sa.String(128))
        roles = orm.relationship("Group")

    people = SQLUsers(User, lite, email=None)

    class Group(Apart):
        __tablename__ = "groups"
        id = orm.mapped_column(sa.Integer, primary_key=True)
        user_id = orm.mapped_column(sa.ForeignKey(User.id))

    made_in(lite, User)
    made = people.create(username="alice", email=None, password_hash=None)
    assert made.roles == frozenset()
    refused(lambda: people.update(made.subject, {"roles": ["a"]}), ConfigError)  # a Group has no name


@pytest.mark.parametrize("args", [
    lambda: (sa.UniqueConstraint("username"), sa.Index("i1", "email", unique=True)),
    lambda: (sa.Index("i2", sa.text("lower(username)"), unique=True), sa.UniqueConstraint("username"), sa.UniqueConstraint("email")),
])  # fmt: skip
def test_unique_is_what_the_table_says_in_whatever_way(lite, caplog, args):
    plain = {"username": orm.mapped_column(sa.String(20)), "email": orm.mapped_column(sa.String(99))}
    SQLUsers(plain_model(**plain, __table_args__=args()), lite)
    assert caplog.records == []


def test_unique_together_is_not_unique(lite, caplog):
    plain = {"username": orm.mapped_column(sa.String(20)), "tenant": orm.mapped_column(sa.String(99))}
    SQLUsers(plain_model(**plain, __table_args__=(sa.UniqueConstraint("username", "tenant"),)), lite)
    assert [record.name for record in caplog.records] == ["jam.accounts"]


# -- the app's own sessions ---------------------------------------------------------------------------------


@pytest.fixture
def app(url, engine):
    """The app of a well-known tutorial, shortened."""
    app = Flask("microblog")
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    db = SQLAlchemy(app)

    class User(db.Model):
        id = db.Column(db.Integer, primary_key=True)
        username = db.Column(db.String(64), index=True, unique=True)
        email = db.Column(db.String(120), index=True, unique=True)
        password_hash = db.Column(db.String(128))
        about_me = db.Column(db.String(140))
        last_seen = db.Column(db.DateTime, default=lambda: datetime(2018, 1, 1))
        posts = db.relationship("Post", backref="author", lazy="dynamic")

        @property
        def is_active(self):
            return True

    class Post(db.Model):
        id = db.Column(db.Integer, primary_key=True)
        user_id = db.Column(db.Integer, db.ForeignKey("user.id"))

    app.db, app.model = db, User
    with app.app_context():
        db.drop_all()
        db.create_all()
    app.users = SQLUsers(User, db, profile=("about_me", "last_seen"), writable=("about_me",))
    yield app
    with app.app_context():
        db.drop_all()
        db.engine.dispose()


def test_seed_004_its_model_serves_as_it_is(app):
    with app.app_context():
        susan = app.users.create(username="susan", email="susan@example.com", password_hash=HASH)
        assert susan.profile == {"about_me": None, "last_seen": "2018-01-01T00:00:00Z"}
        assert app.users.find("susan@example.com").subject == app.users.find("susan").subject == susan.subject
        assert app.users.update(susan.subject, {"about_me": "Hi"}).profile["about_me"] == "Hi"
        assert app.model.query.filter_by(username="susan").one().about_me == "Hi"
        refused(lambda: app.users.create(username="susan", email=None, password_hash=HASH), UsernameTaken)
        assert app.users.delete(susan.subject) is True


def test_the_current_user_belongs_to_the_apps_session(app):
    with app.app_context():
        susan = app.users.create(username="susan", email=None, password_hash=HASH)
        user = app.users.load(susan.subject)
        assert user in app.db.session
        assert susan.user not in app.db.session
        assert user.posts.count() == 0
        user.about_me = "changed by a view"
        app.db.session.commit()
        assert app.users.get(susan.subject).profile["about_me"] == "changed by a view"


def test_the_account_of_the_current_user_is_what_they_are_now(app):
    with app.app_context():
        susan = app.users.create(username="susan", email=None, password_hash=HASH)
        user = app.users.load(susan.subject)
        account = app.users.account_of(user)
        assert (account.subject, account.username, account.is_active) == (susan.subject, "susan", True)
        user.about_me = "changed, not committed"
        assert app.users.account_of(user).profile["about_me"] == "changed, not committed"
        app.db.session.expire(user)
        app.db.session.expunge(user)
        refused(lambda: app.users.account_of(user), StoreUnavailable)
    for other in (None, object(), susan):
        refused(lambda other=other: app.users.account_of(other), ConfigError)


def test_jam_commits_nothing_that_the_app_has_pending(app):
    with app.app_context():
        app.db.session.add(app.model(username="pending"))
        susan = app.users.create(username="susan", email=None, password_hash=HASH)
        app.users.update(susan.subject, {"about_me": "Hi"})
        assert app.users.find("pending") is None
        app.db.session.rollback()
        assert [account.username for account in app.users.list()[0]] == ["susan"]


def test_outside_of_an_app_the_mistake_has_a_name(app):
    for act in (lambda: app.users.get("1"), lambda: app.users.load("1"), lambda: app.users.delete("1")):
        assert "app_context" in refused(act, ConfigError).hint


def test_another_runtime_error_is_the_apps_own(lite):
    def fail(_):
        raise RuntimeError("mine")

    people = SQLUsers(made_in(lite, plain_model(is_active=property(fail))), lite)
    with pytest.raises(RuntimeError, match="mine"):
        people.create(username="alice", email=None, password_hash=None)


@pytest.mark.parametrize("kind", ["engine", "sessionmaker", "scoped_session"])
def test_each_way_to_make_sessions_does(engine, kind):
    maker = orm.sessionmaker(engine, autobegin=kind == "engine")
    sessions = {
        "engine": engine,
        "sessionmaker": maker,
        "scoped_session": orm.scoped_session(orm.sessionmaker(engine)),
    }[kind]
    people = SQLUsers(RichUser, sessions, **RICH)
    alice = people.create(username="alice", email=None, password_hash=HASH)
    assert people.load(alice.subject).login == "alice"
    assert people.load("999999") is None
    if kind == "scoped_session":
        assert people.load(alice.subject) in sessions
        sessions.remove()


def test_sessions_without_an_engine_are_the_apps_mistake():
    refused(lambda: SQLUsers(plain_model(), orm.sessionmaker()).get("1"), ConfigError)


IMPATIENT = {
    "sqlite": {"timeout": 0.2},
    "postgresql": {"options": "-c lock_timeout=200"},
    "mysql": {"init_command": "SET innodb_lock_wait_timeout = 1"},
}


def test_a_view_that_waits_for_itself_is_told_so_in_the_end(engine, users, alice, url):
    impatient = sa.create_engine(url, connect_args=IMPATIENT[sa.make_url(url).get_backend_name()])
    try:
        waiting = SQLUsers(RichUser, impatient, **RICH)
        with engine.connect() as view:
            view.execute(sa.update(RichUser.__table__).values(about_me="pending"))
            refused(lambda: waiting.update(alice.subject, {"is_active": False}), StoreUnavailable)
            assert users.get(alice.subject).is_active is True
        assert waiting.update(alice.subject, {"is_active": False}).is_active is False
    finally:
        impatient.dispose()


def test_postgresql_waits_for_five_seconds_unless_the_app_says_otherwise(engine, users, url):
    if not url.startswith("postgresql"):
        return
    ask = lambda session: session.scalar(sa.text("SHOW lock_timeout"))  # noqa: E731
    assert (users._transactions.run(ask, writes=True), users._transactions.run(ask)) == ("5s", "0")
    with contextlib.closing(open_users(url + "?options=-c%20lock_timeout%3D200")) as others:
        assert others._transactions.run(ask, writes=True) == "200ms"


def test_an_engine_that_commits_every_statement_is_refused(engine):
    people = SQLUsers(RichUser, engine.execution_options(isolation_level="AUTOCOMMIT"), **RICH)
    refused(lambda: people.create(username="alice", email=None, password_hash=None), ConfigError)
    assert people.list() == ([], 0)


def test_stricter_isolation_of_the_apps_engine_changes_no_answer(engine, clock):
    people = SQLUsers(RichUser, engine.execution_options(isolation_level="SERIALIZABLE"), **RICH, clock=clock)
    answers = at_once(lambda n: people.create(username="Alice", email=f"a{n}@example.com", password_hash=HASH), 4)
    assert sorted(type(answer).__name__ for answer in answers) == ["Account"] + ["UsernameTaken"] * 3
    alice = people.find("alice")
    answers = at_once(lambda n: people.update(alice.subject, {"age": n}, only_if={"age": None}), 4)
    assert len([answer for answer in answers if answer]) == 1


def test_one_connection_for_everybody_is_used_only_while_nothing_on_it_is_pending():
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
    try:
        model = made_in(engine, plain_model())
        people = SQLUsers(model, engine)
        alice = people.create(username="alice", email=None, password_hash=None)
        with orm.Session(engine) as session:
            session.add(model(username="bob"))
            session.flush()
            refused(lambda: people.get(alice.subject), ConfigError)
        assert people.get(alice.subject).username == "alice"
    finally:
        engine.dispose()


def test_a_test_that_rolls_everything_back_in_the_end_can_do_so(lite):
    model = made_in(lite, plain_model())
    with lite.connect() as connection, connection.begin() as transaction:
        connection.execute(sa.insert(model), {"username": "bob"})
        people = SQLUsers(model, orm.sessionmaker(connection, join_transaction_mode="create_savepoint"))
        people.create(username="alice", email=None, password_hash=None)
        assert people.list()[1] == 2
        transaction.rollback()
    assert SQLUsers(model, lite).list()[1] == 0


def test_sqlite_by_the_book_of_sqlalchemy_does_as_well(lite):
    """Its documentation has BEGIN sent by an event, because the driver does so too late."""
    sa.event.listen(lite, "connect", lambda raw, _: setattr(raw, "isolation_level", None))
    sa.event.listen(lite, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    people = SQLUsers(made_in(lite, plain_model()), lite)
    answers = at_once(lambda _: people.create(username="alice", email=None, password_hash=None))
    assert sorted(type(answer).__name__ for answer in answers) == ["Account"] + ["UsernameTaken"] * (RACERS - 1)


# -- nobody can tell ----------------------------------------------------------------------------------------


def test_asvs_16_5_3_a_database_that_cannot_be_asked_lets_nobody_pass(tmp_path, caplog):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/no/such/folder/app.db")
    people = SQLUsers(plain_model(), engine)
    scoped = SQLUsers(plain_model(), orm.scoped_session(orm.sessionmaker(engine)))
    for act in (
        lambda: people.get("1"), lambda: people.find("alice"), lambda: people.find("a@example.com"), people.list,
        lambda: people.load("1"), lambda: scoped.load("1"), lambda: people.update("1", {"password_hash": HASH}),
        lambda: people.delete("1"), lambda: people.create(username="alice", email=None, password_hash=HASH),
    ):  # fmt: skip
        refused(act, StoreUnavailable)
    assert "OperationalError" in caplog.text
    assert HASH not in caplog.text
    engine.dispose()


def test_a_missing_table_is_told_to_the_log_without_the_values(engine, caplog):
    people = SQLUsers(plain_model(__tablename__="nowhere"), engine)
    refused(lambda: people.create(username="alice", email=None, password_hash=HASH), StoreUnavailable)
    assert "nowhere" in caplog.text
    assert HASH not in caplog.text


def test_asvs_16_2_5_no_hash_gets_into_the_log(engine, caplog):
    caplog.set_level(logging.INFO)
    people = SQLUsers(Demanding, engine)
    refused(lambda: people.create(username="alice", email=None, password_hash=HASH))
    blind = SQLUsers(RichUser, engine, **RICH)
    blind._refuse_taken = lambda *_, **__: None
    blind.create(username="alice", email=None, password_hash=HASH)
    refused(lambda: blind.create(username="alice", email=None, password_hash=HASH), UsernameTaken)
    assert HASH not in caplog.text


def test_a_row_that_cannot_be_read_is_not_nobodys(lite, caplog):
    model = made_in(lite, plain_model(roles=orm.mapped_column(sa.JSON)))
    with lite.begin() as connection:
        connection.exec_driver_sql("INSERT INTO plain_users (username, roles) VALUES ('alice', '{not json')")
    refused(lambda: SQLUsers(model, lite).find("alice"), StoreUnavailable)
    assert "not json" not in caplog.text


def test_writers_in_each_others_way_try_again_and_give_up_in_the_end(engine, users, alice, url):
    """Two transactions lock two rows in opposite order: the database ends one of them, and that is tried again."""
    if url.startswith("sqlite"):
        pytest.skip("one writes at a time")
    bob = users.create(username="bob", email=None, password_hash=None)
    turns = threading.Barrier(2, timeout=30)
    tries = []

    def crosswise(first, second):
        def act(session):
            tries.append(first)
            users._locked(session, first)
            with contextlib.suppress(threading.BrokenBarrierError):
                if len(tries) <= 2:
                    turns.wait()
            return users._locked(session, second).login

        return users._transactions.run(act, writes=True)

    with ThreadPoolExecutor(2) as pool:
        answers = [
            pool.submit(crosswise, *pair) for pair in ((alice.subject, bob.subject), (bob.subject, alice.subject))
        ]
        assert sorted(answer.result(60) for answer in answers) == ["Alice", "bob"]
    assert len(tries) > 2

    def never(session):
        tries.append("never")
        raise sa.exc.OperationalError("", {}, DeadlockError(1213))

    tries.clear()
    refused(lambda: users._transactions.run(never, writes=True), StoreUnavailable)
    assert tries == ["never"] * 8


class DeadlockError(Exception):
    """As the drivers have it."""


# -- the ready table ----------------------------------------------------------------------------------------


@pytest.fixture
def ready(url, clock):
    table = f"people_{uuid.uuid4().hex[:8]}"
    people = open_users(url, table, clock=clock)
    yield people
    people.close()


def test_who_has_no_model_has_a_table_that_makes_itself(ready, clock):
    assert ready.find("alice") is None
    alice = ready.create(username="Alice", email="Alice@example.com", password_hash=HASH)
    assert (alice.created_at, alice.is_active, alice.email_verified) == (clock.now, True, False)
    changes = {"roles": {"admin"}, "scopes": {"read"}, "email_verified": True, "is_active": False, "username": "Alicia"}
    changed = ready.update(alice.subject, changes, only_if={"password_hash": HASH})
    assert changed.roles == {"admin"}
    found = ready.find("ALICE@example.com")
    assert (found.username, found.roles, found.scopes, found.email_verified, found.is_active) == (
        "Alicia", {"admin"}, {"read"}, True, False,
    )  # fmt: skip
    assert found.user.username == "Alicia"
    assert HASH not in repr(found.user)
    assert ready.load(alice.subject).id == found.user.id
    assert ready.delete(alice.subject) is True


def test_a_deleted_accounts_subject_is_never_anybodys_again(ready):
    first = ready.create(username="alice", email=None, password_hash=None).subject
    ready.delete(first)
    assert ready.create(username="alice", email=None, password_hash=None).subject != first


def test_of_many_who_need_the_table_at_once_all_get_it(url):
    table = f"people_{uuid.uuid4().hex[:8]}"
    several = [open_users(url, table) for _ in range(RACERS)]
    try:
        answers = at_once(lambda n: several[n].create(username=f"u{n}", email=None, password_hash=None))
        assert [type(answer) for answer in answers] == [Account] * RACERS
        assert several[0].list()[1] == RACERS
    finally:
        for people in several:
            people.close()


def test_the_ready_table_serves_on_an_engine_of_the_apps(engine):
    people = open_users(engine, f"people_{uuid.uuid4().hex[:8]}")
    people.create(username="alice", email=None, password_hash=None)
    people.close()
    assert people.find("alice") is not None


def test_migrations_see_the_table_in_the_apps_own_metadata(app):
    model = jam_user_model(app.db.metadata)
    assert jam_user_model(app.db.metadata) is model
    assert jam_user_model(app.db.metadata, "others") is not model
    assert {"jam_users", "others"} <= set(app.db.metadata.tables)
    with app.app_context():
        app.db.create_all()
        people = SQLUsers(model, app.db)
        alice = people.create(username="Alice", email="a@example.com", password_hash=HASH)
        assert people.load(alice.subject) in app.db.session


def test_a_database_that_cannot_have_the_table_is_unavailable(tmp_path, clock):
    for folder in ("missing/people.db", "."):
        people = open_users(f"sqlite:///{tmp_path}/{folder}", clock=clock)
        refused(lambda people=people: people.get("1"), StoreUnavailable)


def test_a_database_that_is_not_to_be_changed_is_unavailable(tmp_path):
    sa.create_engine(f"sqlite:///{tmp_path}/empty.db", poolclass=sa.NullPool).connect().close()
    engine = sa.create_engine(f"sqlite:///file:{tmp_path}/empty.db?mode=ro&uri=true", poolclass=sa.NullPool)
    refused(lambda: open_users(engine).get("1"), StoreUnavailable)


def test_asvs_13_3_2_only_the_owner_of_the_process_reads_the_file(tmp_path):
    people = open_users(f"sqlite:///{tmp_path}/people.db")
    people.create(username="alice", email=None, password_hash=HASH)
    assert stat.S_IMODE((tmp_path / "people.db").stat().st_mode) == 0o600
    assert open_users(f"sqlite:///{tmp_path}/people.db").find("alice") is not None


@pytest.mark.parametrize("url", [
    "sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true", "oracle://u:hunter2@h/x", "postgresql://u:hunter2@h/x", "mysql://u:hunter2@h/x",
    "hunter2", "", "postgresql+psycopg://u:hunter2@h:port/x",
])  # fmt: skip
def test_a_url_that_serves_not_is_told_without_its_password(url):
    assert "hunter2" not in str(refused(lambda: open_users(url), ConfigError))


def test_a_driver_that_is_missing_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pymysql", None)
    assert "jam-auth[mysql]" in refused(lambda: open_users("mysql+pymysql://root@127.0.0.1/x"), ConfigError).hint


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_does_not_speak_on_its_parents_connections(ready):
    alice = ready.create(username="alice", email=None, password_hash=HASH)
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)

    def child():
        sending.send([ready.get(alice.subject).username for _ in range(3)])

    process = context.Process(target=child)
    process.start()
    assert [ready.get(alice.subject).username for _ in range(3)] == ["alice"] * 3
    assert receiving.poll(30)
    assert receiving.recv() == ["alice"] * 3
    process.join(30)
    assert process.exitcode == 0
    assert ready.get(alice.subject).username == "alice"
    receiving.close()
    sending.close()


def test_keys_are_those_by_which_names_are_looked_up(ready):
    made = ready.create(username="Straße", email="A@EXAMPLE.com", password_hash=None)
    assert made.user.username_key == username_key("STRASSE")
    assert made.user.email_key == "a@example.com"
