"""A forgotten password: who gets a link, what it is good for, and what ends with the old password."""

import logging

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jam.accounts.outbox import KIND as LETTER
from jam.accounts.outbox import SUBJECT as LETTERS
from jam.accounts.recover import reset_state
from jam.errors import (
    Busy,
    ConfigError,
    JamError,
    OneTimeTokenInvalid,
    PasswordRefused,
    SignInIncomplete,
    TooManyAttempts,
)
from jam.events import OneTimeTokenIssued, OneTimeTokenUsed, PasswordChanged, SignedIn, SubjectRevoked
from jam.stores.memory import MemoryStore
from tests.accounts.conftest import (
    EVERYTHING,
    HERE,
    OTHER_PASSWORD,
    PASSWORD,
    Counting,
    Credentials,
    Interrupted,
    WithoutVerification,
    refused,
    together,
    winners,
)

HALF_AN_HOUR = 1800
RACERS = 16


# -- asking -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["username", "email"])
def test_whoever_forgot_their_password_is_sent_a_link_and_sets_another(site, clock, by):
    alice = site.person()
    site.accounts.recovery.forgot(getattr(alice, by).upper(), address=HERE)
    assert site.mail().to == alice.email
    account = site.accounts.recovery.reset(site.token(), OTHER_PASSWORD, address=HERE)
    assert account.subject == alice.subject
    assert PasswordChanged(at=clock.now, subject=alice.subject, address=HERE, by="reset") in site.heard
    assert not site.knows(alice, PASSWORD)
    assert site.knows(alice, OTHER_PASSWORD)


def test_asking_changes_nothing(site):
    alice = site.person()
    held = Credentials(site, alice)
    site.reset_token(alice)
    assert held.living() == EVERYTHING
    assert site.knows(alice, PASSWORD)


def test_asvs_6_3_8_asking_costs_the_same_and_says_the_same_whoever_it_is(make_site):
    site = make_site(store=Counting(MemoryStore()), wrap=Counting)
    names = {
        "known": site.person().email, "unknown": "nobody@example.org", "unknown name": "nobody-at-all",
        "inactive": site.person(is_active=False).email, "no address": site.person(email=None).username,
        "no password": site.person(password_hash=None).email, "unverified": site.person(email_verified=False).email,
    }  # fmt: skip
    site.accounts.recovery.forgot("first@example.org")
    costs = {}
    for case, name in names.items():
        site.mails()
        del site.jam.store.calls[:], site.users.calls[:]
        heard = len(site.heard)
        assert site.accounts.recovery.forgot(name, address=HERE) is None
        costs[case] = (list(site.jam.store.calls), list(site.users.calls), site.heard[heard:])
    assert costs == dict.fromkeys(names, costs["known"])


def test_asvs_6_3_8_mail_goes_to_those_alone_who_have_an_active_account(site):
    wanted = [site.person(), site.person(password_hash=None), site.person(email_verified=False)]
    for name in ("nobody@example.org", site.person(is_active=False).email, *(one.email for one in wanted)):
        site.accounts.recovery.forgot(name)
    site.accounts.recovery.forgot(site.person(email=None).username)
    assert sorted(mail.to for mail in site.mails()) == sorted(one.email for one in wanted)


def test_mails_are_counted_for_known_and_unknown_names_alike(make_site):
    site = make_site(config={"throttling": {"mails": 2}})
    for name in (site.person().email, "nobody@example.org"):
        for spelling in (name, name.upper()):
            site.accounts.recovery.forgot(spelling, address=HERE)
        refused(TooManyAttempts, site.accounts.recovery.forgot, name, address=HERE)


def test_what_was_typed_is_kept_nowhere(site, caplog):
    with caplog.at_level(logging.DEBUG), site.accounts.outbox._changed:  # so that the letter waits
        site.accounts.recovery.forgot("typed-in-secret")
        kept = repr(site.jam.store.list(LETTERS, LETTER, site.jam.clock()))
    assert "forgot" in kept or "reset_password" in kept
    assert "typed-in-secret" not in f"{kept}{caplog.text}{site.heard!r}"


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(name=st.text(max_size=40) | st.sampled_from(["a\0b", "\ud800", "@", "a@b\r\nBcc: c@example.org", "x" * 9000]))
def test_whatever_is_typed_as_a_name_sends_no_mail_and_no_error(make_site, name):
    site = make_site()
    site.accounts.recovery.forgot(name)
    assert site.mails() == []


def test_without_mail_nobody_can_ask(make_site):
    site = make_site(mailer=None)
    refused(ConfigError, site.accounts.recovery.forgot, site.person().email)
    refused(ConfigError, site.accounts.recovery.forgot, "nobody@example.org")


# -- the link -----------------------------------------------------------------------------------------------


def test_asvs_6_5_1_a_link_is_good_once(site):
    alice = site.person()
    token = site.reset_token(alice)
    site.accounts.recovery.reset(token, OTHER_PASSWORD)
    refused(OneTimeTokenInvalid, site.accounts.recovery.reset, token, PASSWORD)
    assert site.knows(alice, OTHER_PASSWORD)


def test_asvs_6_4_1_a_link_is_good_for_half_an_hour(site, clock):
    early, late = (site.reset_token(site.person()) for _ in range(2))
    clock.move(HALF_AN_HOUR - 1)
    site.accounts.recovery.reset(early, OTHER_PASSWORD)
    clock.move(1)
    refused(OneTimeTokenInvalid, site.accounts.recovery.reset, late, OTHER_PASSWORD)


@pytest.mark.parametrize("change", ["password", "email", "deactivated", "deleted", "everything ended", "sibling"])
def test_a_link_dies_with(site, change):
    alice = site.person()
    token = site.reset_token(alice)
    management = site.accounts.management
    if change == "password":
        management.change_password(alice.subject, PASSWORD, OTHER_PASSWORD)
    elif change == "email":
        site.accounts.emails.set(alice.subject, "elsewhere@example.org")
    elif change == "deactivated":
        management.deactivate(alice.subject)
    elif change == "deleted":
        management.delete(alice.subject)
    elif change == "everything ended":
        site.jam.revoke_all(alice.subject)
    else:
        site.accounts.recovery.reset(site.reset_token(alice), OTHER_PASSWORD)
    refused(OneTimeTokenInvalid, site.accounts.recovery.reset, token, "copper meadow lighthouse")


def test_a_link_of_before_a_deactivation_stays_dead_when_the_account_is_opened_again(site):
    alice = site.person()
    token = site.reset_token(alice)
    site.accounts.management.deactivate(alice.subject)
    site.accounts.management.reactivate(alice.subject)
    refused(OneTimeTokenInvalid, site.accounts.recovery.reset, token, OTHER_PASSWORD)


@pytest.mark.parametrize("change", [{"password_hash": "another"}, {"email": "b@example.org"}, {"is_active": False}])
def test_a_link_dies_with_a_change_that_the_app_makes_by_itself(site, change):
    alice = site.person()
    token = site.reset_token(alice)
    site.users.update(alice.subject, change)
    refused(OneTimeTokenInvalid, site.accounts.recovery.reset, token, OTHER_PASSWORD)
    assert site.now(alice).password_hash == change.get("password_hash", alice.password_hash)


@pytest.mark.parametrize(
    "password", ["short", "password123456789", "", None, "x" * 2000, "\ud800" * 20, 7, "alice-in-wonderland"]
)
def test_asvs_6_2_4_a_password_that_is_refused_leaves_the_link_good_and_everything_alive(site, password):
    alice = site.users.update(site.person().subject, {"username": "alice-in-wonderland"})
    token = site.reset_token(alice)
    held = Credentials(site, alice)
    refused(PasswordRefused, site.accounts.recovery.reset, token, password)
    assert held.living() == EVERYTHING
    site.accounts.recovery.reset(token, OTHER_PASSWORD)


def test_a_link_is_still_good_when_the_service_was_busy(make_site):
    site = make_site(config={"passwords": {"concurrency": 1, "wait_for": 0}})
    alice = site.person()
    token = site.reset_token(alice)
    with site.accounts.passwords._turn():
        refused(Busy, site.accounts.recovery.reset, token, OTHER_PASSWORD)
    site.accounts.recovery.reset(token, OTHER_PASSWORD)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(token=st.text(max_size=60) | st.sampled_from([None, 7, b"x", ".", "é.é", "a" * 24 + "." + "b" * 43]))
def test_nothing_else_sets_a_password(site, token):
    refused(OneTimeTokenInvalid, site.accounts.recovery.reset, token, OTHER_PASSWORD)


# -- what ends ----------------------------------------------------------------------------------------------


def test_asvs_7_4_3_a_reset_ends_everything_that_was_signed_in_before(shared):
    alice, bob = shared.person(), shared.person()
    token = shared.reset_token(alice)
    hers, his = Credentials(shared, alice), Credentials(shared, bob)
    shared.accounts.recovery.reset(token, OTHER_PASSWORD)
    assert hers.living() == set()
    assert his.living() == EVERYTHING


def test_asvs_6_4_3_a_reset_signs_nobody_in(site):
    alice = site.person()
    assert site.accounts.recovery.reset(site.reset_token(alice), OTHER_PASSWORD).subject == alice.subject
    assert site.jam.logins.list(alice.subject) == []
    assert SignedIn not in site.kinds()


def test_asvs_6_4_3_after_a_reset_the_second_step_is_asked_for_as_before(make_site):
    class Otp:
        name = "otp"

        def applies(self, account):
            return True

        def begin(self, account, address):
            pass

        def check(self, account, answer):
            return ("otp",)

    site = make_site(stages=[Otp()])
    alice = site.person()
    site.accounts.recovery.reset(site.reset_token(alice), OTHER_PASSWORD)
    assert refused(SignInIncomplete, site.accounts.sign_in.start, alice.username, OTHER_PASSWORD).steps == ("otp",)


def test_a_link_that_came_by_mail_verifies_the_address(site):
    alice = site.person(email_verified=False)
    assert site.accounts.recovery.reset(site.reset_token(alice), OTHER_PASSWORD).email_verified


def test_where_nobody_can_note_it_a_password_is_set_all_the_same(make_site):
    site = make_site(wrap=WithoutVerification)
    alice = site.person(email_verified=False)
    site.accounts.recovery.reset(site.reset_token(alice), OTHER_PASSWORD)
    assert site.knows(alice, OTHER_PASSWORD)


def test_a_link_that_an_administrator_hands_over_is_good_without_an_address(site):
    alice = site.person(email=None, email_verified=False)
    token = site.jam.one_time_tokens.issue("reset_password", alice.subject, lifetime=60, state=reset_state(alice))
    site.accounts.recovery.reset(token, OTHER_PASSWORD)
    assert site.knows(alice, OTHER_PASSWORD)
    assert site.mails() == []


@pytest.mark.parametrize("change", ["password", "email"])
def test_a_password_or_address_that_changes_while_a_link_is_used_is_not_overwritten(make_site, change):
    site = make_site(wrap=Interrupted)
    alice = site.person()
    token = site.reset_token(alice)
    changes = {"password": {"password_hash": "another"}, "email": {"email": "new@example.org"}}[change]
    site.users.then, site.users.after = lambda: site.users.update(alice.subject, changes), 1
    refused(OneTimeTokenInvalid, site.accounts.recovery.reset, token, OTHER_PASSWORD)
    assert not site.knows(alice, OTHER_PASSWORD)
    assert PasswordChanged not in site.kinds()


def test_asvs_6_3_7_the_owner_is_told_of_the_new_password(site):
    alice = site.person()
    site.accounts.recovery.reset(site.reset_token(alice), OTHER_PASSWORD)
    assert (site.mail().to, site.mail().subject) == (alice.email, "Your password at jam was changed")
    assert "token=" not in site.mail().text


def test_who_has_tried_too_often_can_sign_in_by_the_new_password(make_site):
    site = make_site(config={"throttling": {"attempts": 2, "attempts_per_account": 3}})
    alice = site.person()
    for address in (HERE, HERE, "198.51.100.1"):
        with pytest.raises(JamError):
            site.accounts.sign_in.start(alice.username, "wrong", address=address)
    refused(TooManyAttempts, site.accounts.sign_in.start, alice.username, PASSWORD, address=HERE)
    site.accounts.recovery.reset(site.reset_token(alice), OTHER_PASSWORD, address=HERE)
    assert site.accounts.sign_in.start(alice.username, OTHER_PASSWORD, address=HERE).failures == 0


def test_a_reset_tells_of_itself_exactly(site):
    alice = site.person()
    site.accounts.recovery.reset(site.reset_token(alice), OTHER_PASSWORD)
    assert site.kinds() == [OneTimeTokenIssued, OneTimeTokenUsed, SubjectRevoked, PasswordChanged, SubjectRevoked]


def test_no_event_log_or_repr_holds_a_secret(site, caplog):
    alice = site.person()
    with caplog.at_level(logging.DEBUG):
        token = site.reset_token(alice)
        changed = site.accounts.recovery.reset(token, OTHER_PASSWORD)
        error = refused(OneTimeTokenInvalid, site.accounts.recovery.reset, token, OTHER_PASSWORD)
    told = f"{caplog.text}{site.heard!r}{changed!r}{error!r}{error}{site.mails()!r}"
    for secret in (token, token.partition(".")[2], OTHER_PASSWORD, alice.password_hash, changed.password_hash):
        assert secret not in told


# -- at once ------------------------------------------------------------------------------------------------


def test_asvs_15_4_2_of_many_who_use_a_link_at_once_one_wins(shared):
    alice = shared.person()
    token = shared.reset_token(alice)
    passwords = [f"purple lantern gravel {number}" for number in range(RACERS)]
    outcomes = together(*[lambda new=new: shared.accounts.recovery.reset(token, new) for new in passwords])
    (changed,) = winners(outcomes)
    assert {type(one) for one in outcomes if one is not changed} == {OneTimeTokenInvalid}
    assert shared.now(alice).password_hash == changed.password_hash
    assert shared.kinds(PasswordChanged) == [PasswordChanged]
    assert shared.knows(alice, passwords[outcomes.index(changed)])


def test_asvs_15_4_2_of_two_links_that_are_used_at_once_one_wins(shared):
    alice = shared.person()
    tokens = [shared.reset_token(alice) for _ in range(3)]
    outcomes = together(
        *[
            lambda token=token, number=number: shared.accounts.recovery.reset(token, f"purple lantern gravel {number}")
            for number, token in enumerate(tokens)
        ]
    )
    assert len(winners(outcomes)) <= 1
    assert shared.kinds(PasswordChanged) == [PasswordChanged] * len(winners(outcomes))
    for number, outcome in enumerate(outcomes):
        assert shared.knows(alice, f"purple lantern gravel {number}") is not isinstance(outcome, JamError)
    assert shared.knows(alice, PASSWORD) is not bool(winners(outcomes))


def _reset(accounts, token):
    return accounts.recovery.reset(token, OTHER_PASSWORD).password_hash


def test_asvs_15_4_2_of_processes_that_use_a_link_at_once_one_wins(shared, in_processes):
    somebody = [shared.person() for _ in range(3)]
    tokens = [shared.reset_token(one) for one in somebody]
    for one, both in zip(somebody, in_processes(_reset, tokens), strict=True):
        (changed,) = [each for each in both if each != "OneTimeTokenInvalid"]
        assert shared.now(one).password_hash == changed
