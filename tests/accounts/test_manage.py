"""What becomes of an account: passwords, names, roles, ends; and what ends with each of them."""

import json
import logging
import secrets
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest
import sqlalchemy as sa
from sqlalchemy import orm

from jam.accounts.audit import open_audit_log
from jam.accounts.manage import iso_time
from jam.accounts.sql_users import SQLUsers
from jam.crypto.passwords import Passwords
from jam.errors import (
    BadCredentials,
    ConcurrentUpdate,
    ConfigError,
    InvalidValue,
    JamError,
    PasswordRefused,
    SessionInvalid,
    TooManyAttempts,
    UsernameRefused,
    UsernameTaken,
    UserNotFound,
)
from jam.events import (
    DataExported,
    Deactivated,
    Deleted,
    OneTimeTokenIssued,
    PasswordChanged,
    Reactivated,
    RolesChanged,
    SessionStarted,
    SubjectRevoked,
    UsernameChanged,
)
from tests.accounts.conftest import (
    EVERYTHING,
    HERE,
    OTHER_PASSWORD,
    PASSWORD,
    Credentials,
    Interrupted,
    refused,
    together,
    winners,
)

NOBODIES = ["4711", "", "1 OR 1=1", "\0", "é" * 300]


class Base(orm.DeclarativeBase):
    pass


class Writer(Base):
    """An app's own model, whose ids are given again."""

    __tablename__ = "writers"
    id = orm.mapped_column(sa.Integer, primary_key=True)
    username = orm.mapped_column(sa.String(64), unique=True, nullable=False)
    email = orm.mapped_column(sa.String(120), unique=True)
    password_hash = orm.mapped_column(sa.String(255))
    about_me = orm.mapped_column(sa.String(140))
    is_admin = orm.mapped_column(sa.Boolean, nullable=False, default=False)


class Book(Base):
    __tablename__ = "books"
    id = orm.mapped_column(sa.Integer, primary_key=True)
    writer_id = orm.mapped_column(sa.ForeignKey("writers.id"), nullable=False)


@pytest.fixture
def engine(tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/writers.db", poolclass=sa.NullPool)
    sa.event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys = ON"))
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def writers(make_site, engine):
    return make_site(users=SQLUsers(Writer, engine, profile=("about_me", "is_admin"), writable=("about_me",)))


@pytest.fixture
def anna(writers, hashed):
    return writers.users.create(username="anna", email="anna@example.org", password_hash=hashed)


# -- another password ---------------------------------------------------------------------------------------


def test_asvs_6_2_2_a_new_password_counts_and_the_old_one_does_not(site, clock):
    alice = site.person()
    site.accounts.management.change_password(alice.subject, PASSWORD, OTHER_PASSWORD, address=HERE)
    assert PasswordChanged(at=clock.now, subject=alice.subject, address=HERE, by="change") in site.heard
    assert not site.knows(alice, PASSWORD)
    assert site.knows(alice, OTHER_PASSWORD)


@pytest.mark.parametrize("current", ["wrong", "", OTHER_PASSWORD, PASSWORD + " ", None])
def test_asvs_6_2_3_who_does_not_know_the_present_password_sets_no_other(site, current):
    alice = site.person()
    held = Credentials(site, alice)
    with pytest.raises(BadCredentials):
        site.accounts.management.change_password(alice.subject, current, OTHER_PASSWORD, handle=held.held["session"])
    assert site.now(alice).password_hash == alice.password_hash
    assert held.living() == EVERYTHING
    assert PasswordChanged not in site.kinds()


def test_asvs_6_3_1_guesses_at_the_present_password_are_counted(make_site):
    site = make_site(config={"throttling": {"attempts": 2}})
    alice = site.person()
    change = site.accounts.management.change_password
    for _ in range(2):
        refused(BadCredentials, change, alice.subject, "wrong", OTHER_PASSWORD, address=HERE)
    refused(TooManyAttempts, change, alice.subject, PASSWORD, OTHER_PASSWORD, address=HERE)


@pytest.mark.parametrize("new", ["short", "password123456789", "", None, "x" * 2000])
def test_asvs_6_2_4_a_password_that_is_refused_changes_nothing(site, new):
    alice = site.person()
    held = Credentials(site, alice)
    refused(PasswordRefused, site.accounts.management.change_password, alice.subject, PASSWORD, new)
    assert held.living() == EVERYTHING
    assert site.knows(alice, PASSWORD)


def test_asvs_7_4_3_with_a_new_password_every_other_login_ends_and_this_one_goes_on(shared):
    alice, bob = shared.person(), shared.person()
    hers, his = Credentials(shared, alice), Credentials(shared, bob)
    _, family = shared.jam.logins.remember(alice.subject)
    handle = shared.jam.sessions.create(alice.subject, {"cart": [1]}, family_id=family)
    new, remembered = shared.accounts.management.change_password(alice.subject, PASSWORD, OTHER_PASSWORD, handle=handle)
    assert hers.living() == {"api_token"}
    assert shared.jam.sessions.get(handle) is None
    assert shared.jam.sessions.get(new).data == {"cart": [1]}
    assert shared.jam.remember_me.verify(remembered).subject == alice.subject
    assert len(shared.jam.logins.list(alice.subject)) == 1
    assert his.living() == EVERYTHING


def test_asvs_7_2_4_the_login_that_goes_on_has_a_new_handle(site):
    alice = site.person()
    handle = site.session(alice)
    new, remembered = site.accounts.management.change_password(alice.subject, PASSWORD, OTHER_PASSWORD, handle=handle)
    assert new != handle
    assert remembered is None


def test_without_a_session_of_the_callers_every_login_ends(site):
    alice = site.person()
    held = Credentials(site, alice)
    assert site.accounts.management.change_password(alice.subject, PASSWORD, OTHER_PASSWORD) is None
    assert held.living() == {"api_token"}


def test_api_tokens_end_with_the_password_if_that_is_asked_for(site):
    alice = site.person()
    held = Credentials(site, alice)
    site.accounts.management.change_password(alice.subject, PASSWORD, OTHER_PASSWORD, end_api_tokens=True)
    assert held.living() == set()


@pytest.mark.parametrize("whose", ["nobody", "bob", "malformed"])
def test_a_session_that_is_not_the_persons_own_changes_nothing(site, whose):
    alice, bob = site.person(), site.person()
    hers, his = Credentials(site, alice), Credentials(site, bob)
    handle = {"nobody": site.session(alice), "bob": his.held["session"], "malformed": "x"}[whose]
    if whose == "nobody":
        site.jam.sessions.delete(handle)
    change = site.accounts.management.change_password
    refused(SessionInvalid, change, alice.subject, PASSWORD, OTHER_PASSWORD, handle=handle)
    assert site.knows(alice, PASSWORD)
    assert (hers.living(), his.living()) == (EVERYTHING, EVERYTHING)


def test_asvs_7_4_3_other_logins_end_also_if_the_callers_own_ends_this_very_moment(make_site):
    site = make_site(wrap=Interrupted)
    alice = site.person()
    held, handle = Credentials(site, alice), site.session(alice)
    # After the first look at it: the person signs out in another tab.
    site.users.then, site.users.after = lambda: site.jam.sessions.delete(handle), 2
    change = site.accounts.management.change_password
    refused(SessionInvalid, change, alice.subject, PASSWORD, OTHER_PASSWORD, handle=handle)
    assert site.knows(alice, PASSWORD)  # nothing else was done
    assert held.living() == {"api_token"}


def test_asvs_15_4_2_of_two_who_change_one_password_at_once_one_wins(shared):
    alice = shared.person()
    news = [f"purple lantern gravel {number}" for number in range(3)]
    change = shared.accounts.management.change_password
    outcomes = together(*[lambda new=new: change(alice.subject, PASSWORD, new) for new in news])
    assert outcomes.count(None) == 1
    assert {type(one) for one in outcomes if one is not None} == {BadCredentials}
    assert shared.kinds(PasswordChanged) == [PasswordChanged]
    assert shared.knows(alice, news[outcomes.index(None)])


def test_asvs_7_4_3_no_session_of_the_old_password_survives_a_change_that_it_races(shared):
    change = shared.accounts.management.change_password
    for _ in range(3):
        alice = shared.person()
        handle = shared.session(alice)

        def sign_in(name=alice.username):
            proof = shared.accounts.sign_in.start(name, PASSWORD)
            return shared.jam.sessions.create(proof.account.subject, generation=proof.generation("session"))

        outcomes = together(
            *[sign_in] * 2,
            lambda alice=alice, handle=handle: change(alice.subject, PASSWORD, OTHER_PASSWORD, handle=handle),
        )
        (own,) = shared.jam.logins.list(alice.subject, handle=outcomes[-1][0])
        assert own.current


def test_asvs_6_3_7_the_owner_is_told_of_the_new_password(site):
    alice = site.person()
    site.accounts.management.change_password(alice.subject, PASSWORD, OTHER_PASSWORD)
    assert [(mail.to, mail.subject) for mail in site.mails()] == [(alice.email, "Your password at jam was changed")]


def test_without_mail_or_an_address_a_password_is_changed_all_the_same(make_site):
    without_mail = make_site(mailer=None)
    alice = without_mail.person()
    without_mail.accounts.management.change_password(alice.subject, PASSWORD, OTHER_PASSWORD)
    site = make_site()
    bob = site.person(email=None)
    site.accounts.management.change_password(bob.subject, PASSWORD, OTHER_PASSWORD)
    assert site.mails() == []


@pytest.mark.parametrize("subject", NOBODIES)
def test_nobodys_password_cannot_be_changed(site, subject):
    refused(BadCredentials, site.accounts.management.change_password, subject, PASSWORD, OTHER_PASSWORD)


def test_a_new_password_is_in_no_event_log_or_repr(site, caplog):
    alice = site.person()
    with caplog.at_level(logging.DEBUG):
        new = site.accounts.management.change_password(
            alice.subject, PASSWORD, OTHER_PASSWORD, handle=site.session(alice)
        )[0]
    told = f"{caplog.text}{site.heard!r}{site.mails()!r}"
    for secret in (PASSWORD, OTHER_PASSWORD, site.now(alice).password_hash, new, new.partition(".")[2]):
        assert secret not in told


# -- names and the app's own fields -------------------------------------------------------------------------


def test_a_person_changes_their_name_and_what_they_say_of_themselves(writers, anna, clock):
    changed = writers.accounts.management.update_profile(anna.subject, {"about_me": "Viola"}, username="anna.b")
    assert (changed.username, changed.profile["about_me"]) == ("anna.b", "Viola")
    assert writers.heard == [UsernameChanged(at=clock.now, subject=anna.subject)]
    assert writers.knows(changed, PASSWORD)


@pytest.mark.parametrize(
    "name",
    [
        "is_admin",
        "roles",
        "scopes",
        "id",
        "subject",
        "email",
        "email_verified",
        "is_active",
        "password_hash",
        "username",
    ],
)
def test_asvs_8_2_3_what_is_not_theirs_to_change_is_refused_whole(writers, anna, name):
    values = {"about_me": "Viola", name: True}
    error = refused(InvalidValue, writers.accounts.management.update_profile, anna.subject, values, username="other")
    assert repr(name) in error.message
    assert (writers.now(anna).username, writers.now(anna).profile["about_me"]) == ("anna", None)


def test_who_changes_what_they_say_of_themselves_keeps_their_name(writers, anna):
    assert writers.accounts.management.update_profile(anna.subject, {"about_me": "Viola"}).username == "anna"
    assert writers.heard == []


def test_no_change_is_none(writers, anna):
    assert writers.accounts.management.update_profile(anna.subject, {}, username="anna").username == "anna"
    assert writers.heard == []


def test_an_account_that_is_deleted_meanwhile_is_not_changed(make_site):
    site = make_site(wrap=Interrupted)
    alice = site.person()
    site.users.then = lambda: site.users.delete(alice.subject)
    refused(UserNotFound, site.accounts.management.update_profile, alice.subject, {}, username="another")


def test_a_name_that_is_taken_or_no_name_is_refused(site):
    alice, bob = site.person(), site.person()
    update = site.accounts.management.update_profile
    refused(UsernameTaken, update, alice.subject, {}, username=bob.username.upper())
    for name in ("", "a b", "a@example.org", "x" * 65, 7):
        refused(UsernameRefused, update, alice.subject, {}, username=name)
    assert site.now(alice).username == alice.username


def test_of_many_who_take_one_name_at_once_one_gets_it(shared):
    name = f"carol-{secrets.token_hex(6)}"
    update = shared.accounts.management.update_profile
    somebody = [shared.person() for _ in range(4)]
    outcomes = together(*[lambda one=one: update(one.subject, {}, username=name) for one in somebody])
    (winner,) = winners(outcomes)
    assert {type(one) for one in outcomes if one is not winner} == {UsernameTaken}
    assert shared.users.find(name).subject == winner.subject


# -- roles --------------------------------------------------------------------------------------------------


def test_roles_are_set_and_told(site, clock):
    alice = site.person(roles=frozenset({"editor"}))
    changed = site.accounts.management.set_roles(alice.subject, ["reader", "admin", "reader"])
    assert changed.roles == {"admin", "reader"}
    assert site.heard == [RolesChanged(at=clock.now, subject=alice.subject, roles=("admin", "reader"))]
    assert site.accounts.management.set_roles(alice.subject, ()).roles == frozenset()


@pytest.mark.parametrize("roles", ["admin", [""], [None], [1, "a"], [["admin"]], b"admin", [b"admin"], None, 7])
def test_what_are_no_roles_is_refused(site, roles):
    alice = site.person(roles=frozenset({"editor"}))
    refused(InvalidValue, site.accounts.management.set_roles, alice.subject, roles)
    assert site.now(alice).roles == {"editor"}


def test_a_model_without_roles_has_none_to_set(writers, anna):
    refused(ConfigError, writers.accounts.management.set_roles, anna.subject, ["admin"])


# -- deactivated, opened again, deleted ---------------------------------------------------------------------


def test_asvs_7_4_2_with_a_deactivation_everything_ends_at_once(shared, clock):
    alice, bob = shared.person(), shared.person()
    hers, his = Credentials(shared, alice), Credentials(shared, bob)
    changed = shared.accounts.management.deactivate(alice.subject, address=HERE)
    assert not changed.is_active
    assert hers.living() == set()
    assert his.living() == EVERYTHING
    assert not shared.knows(alice, PASSWORD)
    assert Deactivated(at=clock.now, subject=alice.subject, address=HERE) in shared.heard


def test_asvs_7_4_2_what_was_held_before_stays_dead_when_an_account_is_opened_again(site, clock):
    alice = site.person()
    held = Credentials(site, alice)
    site.accounts.management.deactivate(alice.subject)
    assert site.accounts.management.reactivate(alice.subject).is_active
    assert held.living() == set()
    assert site.knows(alice, PASSWORD)
    assert Reactivated(at=clock.now, subject=alice.subject) in site.heard


def test_asvs_7_4_2_with_its_deletion_everything_of_an_account_ends(shared, clock):
    alice = shared.person()
    held = Credentials(shared, alice)
    shared.accounts.management.delete(alice.subject, address=HERE)
    assert held.living() == set()
    assert (shared.now(alice), shared.users.find(alice.email)) == (None, None)
    assert Deleted(at=clock.now, subject=alice.subject, address=HERE) in shared.heard
    assert not shared.knows(alice, PASSWORD)


def test_asvs_6_3_7_the_owner_is_told_of_the_deletion(site):
    alice = site.person()
    site.accounts.management.delete(alice.subject)
    assert [(mail.to, mail.subject) for mail in site.mails()] == [(alice.email, "Your account at jam was deleted")]


@pytest.mark.parametrize("end", ["deactivate", "delete"])
def test_asvs_7_4_2_no_session_survives_an_end_that_it_races(shared, end):
    for _ in range(3):
        alice = shared.person()

        def sign_in(name=alice.username):
            proof = shared.accounts.sign_in.start(name, PASSWORD)
            return shared.jam.sessions.create(proof.account.subject, generation=proof.generation("session"))

        together(*[sign_in] * 2, lambda alice=alice: getattr(shared.accounts.management, end)(alice.subject))
        assert shared.jam.logins.list(alice.subject) == []


def test_of_those_who_delete_one_account_at_once_one_does(shared):
    alice = shared.person()
    outcomes = together(*[lambda: shared.accounts.management.delete(alice.subject)] * 4)
    assert outcomes.count(None) == 1
    assert {type(one) for one in outcomes if one is not None} == {UserNotFound}
    assert shared.kinds(Deleted) == [Deleted]


def test_an_id_that_is_given_again_opens_nothing_of_its_former_owners(writers, anna, hashed):
    held = Credentials(writers, anna)
    reset, change = writers.reset_token(anna), writers.change_token(anna, "anna.new@example.org")
    writers.accounts.management.delete(anna.subject)
    mallory = writers.users.create(username="anna", email="anna@example.org", password_hash=hashed)
    assert mallory.subject == anna.subject
    assert held.living() == set()
    with pytest.raises(JamError):
        writers.accounts.recovery.reset(reset, OTHER_PASSWORD)
    with pytest.raises(JamError):
        writers.accounts.emails.confirm_change(change)
    assert writers.accounts.management.export(mallory.subject)["logins"] == []


def test_an_account_that_others_refer_to_cannot_be_deleted(writers, anna, engine):
    with orm.Session(engine) as session:
        session.add(Book(writer_id=int(anna.subject)))
        session.commit()
    refused(InvalidValue, writers.accounts.management.delete, anna.subject)
    assert writers.now(anna) is not None
    assert Deleted not in writers.kinds()


@pytest.mark.parametrize("subject", NOBODIES)
def test_of_nobody_nothing_can_be_changed(site, subject):
    management = site.accounts.management
    for act in (management.deactivate, management.reactivate, management.delete, management.export):
        refused(UserNotFound, act, subject)
    refused(UserNotFound, management.set_roles, subject, ["admin"])
    refused(UserNotFound, management.update_profile, subject, {})
    refused(UserNotFound, management.update_profile, subject, {}, username="somebody")
    assert site.heard == []


def test_a_model_that_knows_no_deactivation_says_so(writers, anna):
    held = Credentials(writers, anna)
    refused(ConfigError, writers.accounts.management.deactivate, anna.subject)
    assert held.living() == EVERYTHING


# -- signing out everywhere ---------------------------------------------------------------------------------


@pytest.mark.parametrize("api_tokens", [False, True])
def test_signing_out_everywhere_ends_every_login_and_token(shared, clock, api_tokens):
    alice = shared.person()
    held = Credentials(shared, alice)
    shared.accounts.management.sign_out_everywhere(alice.subject, api_tokens=api_tokens)
    assert held.living() == (set() if api_tokens else {"api_token"})
    assert shared.kinds(SubjectRevoked) == [SubjectRevoked]
    assert shared.knows(alice, PASSWORD)


# -- what is kept -------------------------------------------------------------------------------------------


@pytest.fixture
def audited(make_site, engine, tmp_path):
    """An app with an audit log, which hears of nothing but what tests append, and of what happens."""
    log = open_audit_log(f"sqlite:///{tmp_path}/audit.db")
    users = SQLUsers(Writer, engine, profile=("about_me", "is_admin"), writable=("about_me",))
    yield make_site(users=users, audit=log)
    log.close()


def test_an_export_holds_what_is_kept_about_a_person(audited, hashed, clock):
    registered = audited.users.create(
        username="anna", email="anna@example.org", password_hash=hashed, profile={"about_me": "Viola"}
    )
    jam, subject = audited.jam, registered.subject
    jam.sessions.create(subject, device={"user_agent": "Firefox"})
    jam.api_tokens.create(subject, "a script", scopes=["posts:read"])
    jam.refresh_tokens.issue(subject, details={"name": "phone"})
    export = audited.accounts.management.export(subject)
    assert export["exported_at"] == "2027-01-15T08:00:00Z"
    assert export["account"] == {
        "id": subject, "username": "anna", "email": "anna@example.org", "email_verified": False, "is_active": True,
        "roles": [], "scopes": [], "created_at": None, "about_me": "Viola", "is_admin": False,
    }  # fmt: skip
    (login,) = export["logins"]
    assert login["device"] == {"user_agent": "Firefox"}
    assert login["signed_in_at"] == "2027-01-15T08:00:00Z"
    (token,) = export["api_tokens"]
    assert (token["name"], token["scopes"], token["last_used_at"]) == ("a script", ["posts:read"], None)
    (family,) = export["refresh_tokens"]
    assert family["device"] == {"name": "phone"}
    assert {one["event"] for one in export["events"]} == {"SessionStarted", "APITokenCreated", "FamilyStarted"}
    assert audited.heard[-1] == DataExported(at=clock.now, subject=subject)
    assert json.loads(json.dumps(export)) == export


def test_an_export_is_complete_however_much_there_is(audited, hashed):
    anna = audited.users.create(username="anna", email="anna@example.org", password_hash=hashed)
    for _ in range(101):
        audited.jam.sessions.create(anna.subject)
        audited.jam.refresh_tokens.issue(anna.subject)
    for number in range(100):
        audited.jam.api_tokens.create(anna.subject, f"script {number}")
    for number in range(800):
        audited.jam.events.emit(RolesChanged(at=float(number), subject=anna.subject, roles=()))
    export = audited.accounts.management.export(anna.subject)
    assert [len(export[what]) for what in ("logins", "refresh_tokens", "api_tokens", "events")] == [101, 101, 100, 1102]


def test_an_export_holds_nothing_of_others(audited, hashed):
    anna, bob = (
        audited.users.create(username=name, email=f"{name}@example.org", password_hash=hashed)
        for name in ("anna", "bob")
    )
    Credentials(audited, bob)
    export = audited.accounts.management.export(anna.subject)
    assert (export["logins"], export["api_tokens"], export["refresh_tokens"], export["events"]) == ([], [], [], [])
    assert "bob" not in json.dumps(export)


def test_an_export_holds_nothing_secret(audited, hashed):
    anna = audited.users.create(username="anna", email="anna@example.org", password_hash=hashed)
    held = Credentials(audited, anna)
    audited.accounts.sign_in.start("anna", PASSWORD, address=HERE)
    reset = audited.reset_token(anna)
    text = json.dumps(audited.accounts.management.export(anna.subject))
    for secret in (*held.held.values(), reset):
        assert secret not in text
        assert secret[-40:] not in text
    for secret in (hashed, "argon2", PASSWORD, "password_hash", "check"):
        assert secret not in text


def test_a_field_of_the_apps_own_does_not_pass_for_another(make_site, hashed):
    class Directory(Interrupted):
        """People who are kept elsewhere, with a field that is called like one of Jam's."""

        def _interrupted(self, account):
            return type(account)(
                **{name: getattr(account, name) for name in account.__struct_fields__ if name != "profile"},
                profile={"is_active": "always", "shoe_size": 42},
            )

    site = make_site(wrap=Directory)
    exported = site.accounts.management.export(site.person().subject)["account"]
    assert (exported["is_active"], exported["shoe_size"]) == (True, 42)


def test_without_an_audit_log_there_are_no_events_to_export(site):
    alice = site.person()
    site.session(alice)
    assert site.accounts.management.export(alice.subject)["events"] == []


@pytest.mark.parametrize(("at", "text"), [(None, None), (0.0, "1970-01-01T00:00:00Z"), (1.9, "1970-01-01T00:00:01Z")])
def test_times_are_iso_8601_in_utc(at, text):
    assert iso_time(at) == text
    assert text is None or datetime.fromisoformat(text).utcoffset().total_seconds() == 0


# -- events -------------------------------------------------------------------------------------------------


def test_events_are_told_exactly(site):
    alice = site.person()
    management = site.accounts.management
    management.change_password(alice.subject, PASSWORD, OTHER_PASSWORD)
    ended = [SubjectRevoked, SubjectRevoked]  # tokens, and logins: before the change, and after it
    assert site.kinds() == [*ended, PasswordChanged, *ended]
    del site.heard[:]
    management.deactivate(alice.subject)
    management.reactivate(alice.subject)
    management.delete(alice.subject)
    assert site.kinds() == [
        Deactivated, SubjectRevoked, SubjectRevoked, Reactivated, SubjectRevoked, SubjectRevoked, Deleted, SubjectRevoked,
    ]  # fmt: skip


def test_many_people_at_once_are_in_nobodys_way(shared):
    somebody = [shared.person() for _ in range(3)]
    change = shared.accounts.management.change_password
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda one: change(one.subject, PASSWORD, OTHER_PASSWORD), somebody)) == [None] * 3
    assert shared.kinds(PasswordChanged) == [PasswordChanged] * 3
    assert shared.kinds(SessionStarted, OneTimeTokenIssued) == []
    assert all(isinstance(shared.accounts.passwords, Passwords) for _ in somebody)


# -- roles and scopes that several people change ------------------------------------------------------------


@pytest.mark.parametrize("kind", ["roles", "scopes"])
def test_asvs_15_4_2_of_many_who_add_and_remove_at_once_no_change_is_lost(shared, kind):
    alice, manage = shared.person(), shared.accounts.management
    getattr(manage, f"set_{kind}")(alice.subject, ["old"])
    change = getattr(manage, f"change_{kind}")
    acts = [lambda number=number: change(alice.subject, add=[f"new{number}"]) for number in range(5)]
    outcomes = together(*acts, lambda: change(alice.subject, remove=["old"]))
    assert not [one for one in outcomes if isinstance(one, Exception)]
    assert getattr(shared.now(alice), kind) == {f"new{number}" for number in range(5)}


def test_who_cannot_change_roles_because_others_keep_changing_them_is_told(make_site):
    site = make_site(wrap=Interrupted)
    alice = site.person()

    def meddle():
        site.users.update(alice.subject, {"roles": frozenset((secrets.token_hex(4),))})
        site.users.then, site.users.after = meddle, 1

    site.users.then, site.users.after = meddle, 1
    refused(ConcurrentUpdate, site.accounts.management.change_roles, alice.subject, add=["editor"])
    assert "editor" not in site.now(alice).roles
