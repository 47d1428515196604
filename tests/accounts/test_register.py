"""Registering: who gets an account, once, and what a stranger learns of it."""

import logging
import secrets
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import orm

from jam.accounts.sql_users import SQLUsers
from jam.errors import (
    BadCredentials,
    ConfigError,
    EmailRefused,
    EmailTaken,
    InvalidValue,
    JamError,
    OneTimeTokenInvalid,
    PasswordRefused,
    TooManyAttempts,
    UsernameRefused,
    UsernameTaken,
)
from jam.events import OneTimeTokenIssued, OneTimeTokenUsed, Registered
from jam.stores.memory import MemoryStore
from tests.accounts.conftest import (
    HERE,
    OTHER_PASSWORD,
    PASSWORD,
    Counting,
    refused,
    together,
    winners,
)

DAY = 86400


class Base(orm.DeclarativeBase):
    pass


class Member(Base):
    """An app's own model, with more than Jam knows of."""

    __tablename__ = "members"
    id = orm.mapped_column(sa.Integer, primary_key=True)
    username = orm.mapped_column(sa.String(64), unique=True, nullable=False)
    email = orm.mapped_column(sa.String(120), unique=True)
    password_hash = orm.mapped_column(sa.String(255))
    about_me = orm.mapped_column(sa.String(140))
    is_admin = orm.mapped_column(sa.Boolean, nullable=False, default=False)


@pytest.fixture
def members(make_site, tmp_path):
    """An app whose people have fields of their own, one of which they may set."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/members.db", poolclass=sa.NullPool)
    Base.metadata.create_all(engine)
    yield make_site(users=SQLUsers(Member, engine, profile=("about_me", "is_admin"), writable=("about_me",)))
    engine.dispose()


def how_many(site):
    return site.users.list()[1]


# -- the link -----------------------------------------------------------------------------------------------


def test_an_account_is_made_when_its_link_comes_back(site, clock):
    token = site.registration_token("bob", "Bob@Example.org")
    assert (site.mail().to, how_many(site)) == ("Bob@example.org", 0)
    account = site.accounts.registration.confirm(token, PASSWORD)
    assert (account.username, account.email, account.email_verified) == ("bob", "Bob@example.org", True)
    assert (account.roles, account.scopes, account.is_active) == (frozenset(), frozenset(), True)
    assert site.knows(account, PASSWORD)
    assert site.heard[:3] == [
        OneTimeTokenIssued(at=clock.now, subject=None, purpose="register"),
        OneTimeTokenUsed(at=clock.now, subject=None, purpose="register"),
        Registered(at=clock.now, subject=account.subject),
    ]


def test_registering_signs_nobody_in(site):
    account = site.accounts.registration.confirm(site.registration_token(), PASSWORD)
    assert site.jam.logins.list(account.subject) == []


def test_asvs_6_4_1_the_link_is_good_once(site):
    token = site.registration_token()
    site.accounts.registration.confirm(token, PASSWORD)
    refused(OneTimeTokenInvalid, site.accounts.registration.confirm, token, PASSWORD)
    refused(OneTimeTokenInvalid, site.accounts.registration.confirm, token, PASSWORD, username="another")
    assert how_many(site) == 1


def test_asvs_6_4_1_the_link_is_good_for_three_days(site, clock):
    early, late = site.registration_token(), site.registration_token()
    clock.move(3 * DAY - 1)
    site.accounts.registration.confirm(early, PASSWORD)
    clock.move(1)
    refused(OneTimeTokenInvalid, site.accounts.registration.confirm, late, PASSWORD)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(token=st.text(max_size=60) | st.sampled_from([None, 7, b"x", ".", "é.é"]))
def test_nothing_else_makes_an_account(site, token):
    refused(OneTimeTokenInvalid, site.accounts.registration.confirm, token, PASSWORD)
    assert how_many(site) == 0


def test_who_registers_twice_gets_two_links_of_which_one_is_good(site):
    first = site.registration_token("bob", "bob@example.org")
    second = site.registration_token("robert", "bob@example.org", OTHER_PASSWORD)
    account = site.accounts.registration.confirm(second, OTHER_PASSWORD)
    assert site.knows(account, OTHER_PASSWORD)
    refused(OneTimeTokenInvalid, site.accounts.registration.confirm, first, PASSWORD)
    assert how_many(site) == 1


# -- names that are taken -----------------------------------------------------------------------------------


def test_a_name_taken_meanwhile_is_told_to_the_owner_of_the_link_who_takes_another(site):
    token = site.registration_token("bob", "bob@example.org")
    site.registration_token("bob", "other-bob@example.org")
    site.accounts.registration.confirm(site.token(), PASSWORD)
    refused(UsernameTaken, site.accounts.registration.confirm, token, PASSWORD)
    refused(UsernameTaken, site.accounts.registration.confirm, token, PASSWORD, username="BOB")
    refused(UsernameRefused, site.accounts.registration.confirm, token, PASSWORD, username="bob@example.org")
    refused(UsernameRefused, site.accounts.registration.confirm, token, PASSWORD, username="")
    account = site.accounts.registration.confirm(token, PASSWORD, username="bobby")
    assert (account.username, account.email) == ("bobby", "bob@example.org")
    assert site.knows(account, PASSWORD)


def test_an_address_taken_meanwhile_makes_the_link_invalid(site):
    token = site.registration_token("bob", "bob@example.org")
    site.accounts.registration.create("robert", "BOB@example.org", OTHER_PASSWORD)
    refused(OneTimeTokenInvalid, site.accounts.registration.confirm, token, PASSWORD)
    refused(OneTimeTokenInvalid, site.accounts.registration.confirm, token, PASSWORD, username="bobby")
    assert how_many(site) == 1


# -- nothing is revealed ------------------------------------------------------------------------------------


def test_asvs_6_3_8_registering_costs_the_same_whoever_exists(make_site):
    site = make_site(store=Counting(MemoryStore()), wrap=Counting)
    alice, inactive = site.person(), site.person(is_active=False)
    cases = {
        "new": ("carol", "carol@example.org"),
        "name taken": (alice.username, "dave@example.org"),
        "address taken": ("erin", alice.email),
        "both taken": (alice.username, alice.email.upper()),
        "inactive": (inactive.username, inactive.email),
    }
    site.accounts.registration.start("first", "first-of-all@example.org", PASSWORD)
    costs = {}
    for case, (username, email) in cases.items():
        site.mails()
        del site.jam.store.calls[:], site.users.calls[:], site.heard[:]
        assert site.accounts.registration.start(username, email, PASSWORD, address=HERE) is None
        costs[case] = (list(site.jam.store.calls), list(site.users.calls))
    assert costs == dict.fromkeys(cases, costs["new"])
    assert costs["new"][1] == ["check_profile"]  # nobody is looked up


def test_asvs_6_3_8_who_has_an_account_is_told_by_mail_alone(site):
    alice = site.person()
    site.accounts.registration.start("mallory", alice.email, OTHER_PASSWORD)
    assert (site.mail().to, "already" in site.mail().subject) == (alice.email, True)
    assert alice.username in site.mail().text
    assert "mallory" not in site.mail().text
    refused(OneTimeTokenInvalid, site.accounts.registration.confirm, site.token(), PASSWORD)
    site.accounts.recovery.reset(site.token(), OTHER_PASSWORD)
    assert site.knows(alice, OTHER_PASSWORD)
    assert how_many(site) == 1


def test_a_deactivated_account_is_sent_nothing(site):
    site.accounts.registration.start("mallory", site.person(is_active=False).email, OTHER_PASSWORD)
    assert site.mails() == []


def test_mails_are_counted_for_known_and_unknown_addresses_alike(make_site):
    site = make_site(config={"throttling": {"mails": 2}})
    for email in (site.person().email, "nobody@example.org"):
        for spelling in (email, email.upper()):
            site.accounts.registration.start("carol", spelling, PASSWORD, address=HERE)
        refused(TooManyAttempts, site.accounts.registration.start, "carol", email, PASSWORD, address=HERE)


def test_one_address_has_so_many_mails_sent(make_site):
    site = make_site(config={"throttling": {"mails_per_address": 2}})
    for number in range(2):
        site.accounts.registration.start("carol", f"carol{number}@example.org", PASSWORD, address=HERE)
    refused(TooManyAttempts, site.accounts.registration.start, "carol", "carol@example.org", PASSWORD, address=HERE)


# -- what cannot be -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "username", "email", "password"),
    [
        (UsernameRefused, "", "bob@example.org", PASSWORD),
        (UsernameRefused, "bob@example.org", "bob@example.org", PASSWORD),
        (UsernameRefused, "b\nBcc: x", "bob@example.org", PASSWORD),
        (UsernameRefused, None, "bob@example.org", PASSWORD),
        (EmailRefused, "bob", "bob", PASSWORD),
        (EmailRefused, "bob", "bob@example.org\nBcc: mallory@example.org", PASSWORD),
        (EmailRefused, "bob", None, PASSWORD),
        (PasswordRefused, "bob", "bob@example.org", "short"),
        (PasswordRefused, "bob", "bob@example.org", "password123456789"),
        (PasswordRefused, "carolina", "bob@example.org", "my name is carolina"),
        (PasswordRefused, "bob", "bob@example.org", None),
    ],
)  # fmt: skip
def test_asvs_6_2_4_what_nobody_could_have_is_refused_at_once(site, kind, username, email, password):
    refused(kind, site.accounts.registration.start, username, email, password)
    refused(kind, site.accounts.registration.create, username, "" if email is None else email, password or "")
    assert (site.mails(), how_many(site)) == ([], 0)


@pytest.mark.parametrize(
    "name", ["is_admin", "roles", "scopes", "id", "email_verified", "is_active", "password_hash", "nonsense", ""]
)
def test_asvs_8_2_3_what_is_not_the_persons_to_set_is_refused(members, name):
    for act in (members.accounts.registration.start, members.accounts.registration.create):
        error = refused(InvalidValue, act, "bob", "bob@example.org", PASSWORD, profile={"about_me": "", name: True})
        assert repr(name) in error.message
    assert (members.mails(), how_many(members)) == ([], 0)


def test_what_is_the_persons_to_set_is_in_their_account(members):
    token = members.registration_token(profile={"about_me": "Plays the viola."})
    account = members.accounts.registration.confirm(token, PASSWORD)
    assert account.profile == {"about_me": "Plays the viola.", "is_admin": False}
    assert account.email_verified is False  # this model has no place for it


def test_a_profile_that_is_no_json_is_refused(members):
    about = {"about_me": datetime.now(UTC)}
    refused(InvalidValue, members.accounts.registration.start, "bob", "bob@example.org", PASSWORD, profile=about)


def test_where_no_address_can_be_kept_nobody_can_register_by_a_link(make_site):
    class WithoutPlace(Counting):
        changeable = frozenset({"username", "password_hash"})

    site = make_site(wrap=WithoutPlace)
    refused(ConfigError, site.accounts.registration.start, "bob", "bob@example.org", PASSWORD)
    assert site.accounts.registration.create("bob", None, PASSWORD).username == "bob"


def test_without_mail_nobody_can_register_by_a_link(make_site):
    site = make_site(mailer=None)
    refused(ConfigError, site.accounts.registration.start, "bob", "bob@example.org", PASSWORD)


# -- at once ------------------------------------------------------------------------------------------------


def test_asvs_15_4_2_a_link_that_is_used_at_once_makes_one_account(shared):
    for _ in range(2):
        token = shared.registration_token()
        outcomes = together(*[lambda token=token: shared.accounts.registration.confirm(token, PASSWORD)] * 5)
        (account,) = winners(outcomes)
        assert [type(one) for one in outcomes if one is not account] == [OneTimeTokenInvalid] * 4
        assert shared.now(account).email_verified
    assert shared.kinds(Registered) == [Registered] * 2


def test_asvs_15_4_2_a_link_that_is_used_at_once_under_several_names_makes_one_account(shared):
    token = shared.registration_token()
    names = [f"carol-{secrets.token_hex(6)}" for _ in range(4)]
    acts = [lambda name=name: shared.accounts.registration.confirm(token, PASSWORD, username=name) for name in names]
    (account,) = winners(together(*acts))
    assert [name for name in names if shared.users.find(name) is not None] == [account.username]


class WithoutAddresses(Counting):
    """People who have names alone: no address keeps two of one link apart."""

    def create(self, *, username, email, **rest):
        return self._counted.create(username=username, email=None, **rest)


def test_asvs_6_5_1_a_link_makes_one_account_also_where_no_address_is_kept(make_site):
    site = make_site(wrap=WithoutAddresses)
    for _ in range(4):
        token = site.registration_token()
        names = [f"carol-{secrets.token_hex(6)}" for _ in range(4)]
        acts = [
            lambda name=name, token=token: site.accounts.registration.confirm(token, PASSWORD, username=name)
            for name in names
        ]
        outcomes = together(*acts)
        assert len(winners(outcomes)) == 1
        assert {type(one) for one in outcomes if isinstance(one, JamError)} == {OneTimeTokenInvalid}
        assert [name for name in names if site.users.find(name)] == [one.username for one in winners(outcomes)]


def _confirm(accounts, token):
    return accounts.registration.confirm(token, PASSWORD).subject


def test_asvs_15_4_2_processes_that_use_a_link_at_once_make_one_account(shared, in_processes):
    tokens = [shared.registration_token() for _ in range(4)]
    for both in in_processes(_confirm, tokens):
        (subject,) = [each for each in both if each != "OneTimeTokenInvalid"]
        assert shared.users.get(subject).email_verified


# -- at once and without a link -----------------------------------------------------------------------------


def test_an_account_can_be_made_at_once(site, clock):
    account = site.accounts.registration.create("bob", "bob@example.org", PASSWORD)
    assert (account.username, account.email, account.email_verified) == ("bob", "bob@example.org", False)
    assert site.knows(account, PASSWORD)
    assert site.heard[0] == Registered(at=clock.now, subject=account.subject)
    assert site.mails() == []


def test_what_is_made_at_once_tells_what_is_taken(site):
    site.accounts.registration.create("bob", "bob@example.org", PASSWORD)
    refused(UsernameTaken, site.accounts.registration.create, "BOB", "other@example.org", PASSWORD)
    refused(EmailTaken, site.accounts.registration.create, "robert", "Bob@Example.ORG", PASSWORD)


def test_asvs_6_4_6_an_account_made_without_a_password_is_opened_by_a_link(site):
    account = site.accounts.registration.create("bob", "bob@example.org", None)
    assert not site.knows(account, "")
    site.accounts.recovery.reset(site.reset_token(account), PASSWORD)
    assert site.knows(account, PASSWORD)
    assert site.now(account).email_verified


# -- secrets ------------------------------------------------------------------------------------------------


def test_no_event_log_or_repr_holds_a_secret(site, caplog):
    with caplog.at_level(logging.DEBUG):
        token = site.registration_token("bob", "bob@example.org")
        asked = site.jam.one_time_tokens.peek(token, "register")
        account = site.accounts.registration.confirm(token, PASSWORD)
    told = f"{caplog.text}{site.heard!r}{account!r}{asked!r}"
    for secret in (token, token.partition(".")[2], PASSWORD, account.password_hash):
        assert secret not in told


# -- somebody else's mailbox --------------------------------------------------------------------------------


def test_who_opens_the_mail_of_a_registration_that_somebody_else_began_makes_no_account_of_it(site):
    token = site.registration_token("mallory", "alice@example.org", OTHER_PASSWORD)
    refused(BadCredentials, site.accounts.registration.confirm, token, PASSWORD, address=HERE)
    assert site.users.find("alice@example.org") is None
    account = site.accounts.registration.confirm(token, OTHER_PASSWORD, address=HERE)  # the link was still good
    assert account.username == "mallory"


def test_asvs_6_3_1_passwords_are_not_tried_out_on_a_link_without_end(make_site):
    site = make_site(config={"throttling": {"attempts": 3}})
    token = site.registration_token("alice", "alice@example.org")
    for _ in range(3):
        refused(BadCredentials, site.accounts.registration.confirm, token, OTHER_PASSWORD, address=HERE)
    refused(TooManyAttempts, site.accounts.registration.confirm, token, PASSWORD, address=HERE)
