"""E-mail addresses: verified, changed by a link or at once, and who is told."""

import logging

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jam.accounts.mail import MailNotSent
from jam.errors import (
    ConfigError,
    EmailRefused,
    EmailTaken,
    OneTimeTokenInvalid,
    TooManyAttempts,
    UserNotFound,
)
from jam.events import EmailChanged, EmailVerified, OneTimeTokenIssued, OneTimeTokenUsed
from tests.accounts.conftest import (
    HERE,
    OTHER_PASSWORD,
    PASSWORD,
    Interrupted,
    WithoutVerification,
    refused,
    together,
    winners,
)

DAY = 86400
NEW = "alice.new@example.org"
BAD = ["", "alice", "alice@", "a@b@c.org", "a@example.org\r\nBcc: b@example.org", "x" * 300 + "@example.org", None, 7]


def verification_token(site, account):
    site.accounts.emails.send_verification(account)
    return site.token()


# -- verifying ----------------------------------------------------------------------------------------------


def test_an_address_is_verified_by_the_link_that_reaches_it(site, clock):
    alice = site.person(email_verified=False)
    token = verification_token(site, alice)
    assert site.mail().to == alice.email
    assert site.accounts.emails.verify(token, address=HERE).email_verified
    assert site.now(alice).email_verified
    assert site.heard[-1] == EmailVerified(at=clock.now, subject=alice.subject, address=HERE)
    refused(OneTimeTokenInvalid, site.accounts.emails.verify, token)


def test_a_verified_address_is_sent_nothing(site):
    site.accounts.emails.send_verification(site.person())
    site.accounts.emails.send_verification(site.person(email=None, email_verified=False))
    assert site.mails() == []


def test_a_link_that_verifies_is_good_for_three_days(site, clock):
    early, late = (verification_token(site, site.person(email_verified=False)) for _ in range(2))
    clock.move(3 * DAY - 1)
    site.accounts.emails.verify(early)
    clock.move(1)
    refused(OneTimeTokenInvalid, site.accounts.emails.verify, late)


@pytest.mark.parametrize("change", ["email", "deactivated", "deleted", "everything ended"])
def test_a_link_that_verifies_dies_with(site, change):
    alice = site.person(email_verified=False)
    token = verification_token(site, alice)
    if change == "email":
        site.users.update(alice.subject, {"email": NEW})
    elif change == "deactivated":
        site.users.update(alice.subject, {"is_active": False})
    elif change == "deleted":
        site.accounts.management.delete(alice.subject)
    else:
        site.jam.revoke_all(alice.subject)
    refused(OneTimeTokenInvalid, site.accounts.emails.verify, token)
    assert change == "deleted" or not site.now(alice).email_verified


def test_an_address_that_changes_while_its_link_is_used_is_not_verified(make_site):
    site = make_site(wrap=Interrupted)
    alice = site.person(email_verified=False)
    token = verification_token(site, alice)
    site.users.then, site.users.after = lambda: site.users.update(alice.subject, {"email": NEW}), 1
    refused(OneTimeTokenInvalid, site.accounts.emails.verify, token)
    assert not site.users._users.get(alice.subject).email_verified


def test_where_nobody_can_note_it_no_address_is_verified_and_all_else_goes_on(make_site):
    site = make_site(wrap=WithoutVerification)
    alice = site.person(email_verified=False)
    refused(ConfigError, site.accounts.emails.send_verification, alice)
    assert site.accounts.emails.confirm_change(site.change_token(alice, NEW)).email == NEW
    assert site.accounts.emails.set(alice.subject, "third@example.org").email == "third@example.org"
    assert sorted(mail.to for mail in site.mails()) == sorted([NEW, alice.email, NEW])


def test_verifications_are_not_sent_without_end(make_site):
    site = make_site(config={"throttling": {"mails": 2}})
    alice = site.person(email_verified=False)
    for _ in range(2):
        site.accounts.emails.send_verification(alice)
    refused(TooManyAttempts, site.accounts.emails.send_verification, alice)


def test_asvs_15_4_2_a_link_that_is_used_at_once_verifies_once(shared):
    alice = shared.person(email_verified=False)
    token = verification_token(shared, alice)
    outcomes = together(*[lambda: shared.accounts.emails.verify(token)] * 6)
    assert len(winners(outcomes)) == 1
    assert shared.kinds(EmailVerified) == [EmailVerified]


# -- changing by a link -------------------------------------------------------------------------------------


def test_a_new_address_counts_when_its_link_has_come_back(site, clock):
    alice = site.person()
    site.accounts.emails.request_change(alice.subject, "Alice.New@Example.org", address=HERE)
    assert (site.mail().to, site.now(alice).email) == ("Alice.New@example.org", alice.email)
    changed = site.accounts.emails.confirm_change(site.token(), address=HERE)
    assert (changed.email, changed.email_verified) == ("Alice.New@example.org", True)
    assert EmailChanged(at=clock.now, subject=alice.subject, address=HERE) in site.heard
    assert site.accounts.sign_in.start(NEW, PASSWORD).account.subject == alice.subject
    assert site.users.find(alice.email) is None


def test_asvs_6_3_7_the_former_address_is_told(site):
    alice = site.person()
    site.accounts.emails.confirm_change(site.change_token(alice, NEW))
    assert (site.mail().to, site.mail().subject) == (alice.email, "Your e-mail address at jam was changed")
    assert NEW not in site.mail().text
    assert "token=" not in site.mail().text


def test_who_had_no_address_is_not_told(site):
    alice = site.person(email=None, email_verified=False)
    site.accounts.emails.confirm_change(site.change_token(alice, NEW))
    assert [mail.to for mail in site.mails()] == [NEW]


def test_asvs_6_5_1_a_link_that_changes_is_good_once(site):
    alice = site.person()
    token = site.change_token(alice, NEW)
    site.accounts.emails.confirm_change(token)
    site.accounts.emails.set(alice.subject, "third@example.org")
    refused(OneTimeTokenInvalid, site.accounts.emails.confirm_change, token)


@pytest.mark.parametrize(
    "change", ["password", "app's password", "email", "deactivated", "deleted", "signed out", "sibling", "time"]
)
def test_a_link_that_changes_dies_with(site, clock, change):
    alice = site.person()
    token = site.change_token(alice, NEW)
    management = site.accounts.management
    if change == "password":
        management.change_password(alice.subject, PASSWORD, OTHER_PASSWORD)
    elif change == "app's password":
        site.users.update(alice.subject, {"password_hash": "another"})
    elif change == "email":
        site.users.update(alice.subject, {"email": "other@example.org"})
    elif change == "deactivated":
        site.users.update(alice.subject, {"is_active": False})
    elif change == "deleted":
        management.delete(alice.subject)
    elif change == "signed out":
        management.sign_out_everywhere(alice.subject)
    elif change == "sibling":
        site.accounts.emails.confirm_change(site.change_token(alice))
    else:
        clock.move(3 * DAY)
    refused(OneTimeTokenInvalid, site.accounts.emails.confirm_change, token)
    assert site.users.find(NEW) is None


def test_a_password_that_changes_while_the_link_is_used_keeps_the_address(make_site):
    site = make_site(wrap=Interrupted)
    alice = site.person()
    token = site.change_token(alice, NEW)
    site.users.then = lambda: site.users.update(alice.subject, {"password_hash": "another"})
    refused(OneTimeTokenInvalid, site.accounts.emails.confirm_change, token)
    assert site.users.find(NEW) is None


class Broken:
    """A mail server that is down until it is mended."""

    def __init__(self):
        self.is_down, self.mails = True, []

    def send(self, mail):
        if self.is_down:
            raise MailNotSent("It is down.")
        self.mails.append(mail)


@pytest.mark.parametrize("end", ["reset", "password", "signed out", "reactivated"])
def test_asvs_7_4_3_a_change_asked_for_before_everything_ended_gets_no_link_afterwards(make_site, clock, end):
    server = Broken()
    site = make_site(mailer=server)
    alice = site.person()
    site.accounts.emails.request_change(alice.subject, "mallory@example.org")  # from a session that somebody stole
    assert site.accounts.outbox.join(60)
    management = site.accounts.management
    if end == "reset":
        token = site.jam.one_time_tokens.issue(
            "reset_password", alice.subject, lifetime=60, state=(alice.password_hash, alice.email)
        )
        site.accounts.recovery.reset(token, OTHER_PASSWORD)
    elif end == "password":
        management.change_password(alice.subject, PASSWORD, OTHER_PASSWORD)
    elif end == "signed out":
        management.sign_out_everywhere(alice.subject)
    else:
        management.deactivate(alice.subject)
        management.reactivate(alice.subject)
    server.is_down = False
    clock.move(3600)
    site.accounts.outbox.join(60)
    site.accounts.outbox.deliver()
    assert "mallory@example.org" not in [mail.to for mail in server.mails]


@pytest.mark.parametrize("email", BAD)
def test_what_is_no_address_is_refused(site, email):
    alice = site.person()
    refused(EmailRefused, site.accounts.emails.request_change, alice.subject, email)
    refused(EmailRefused, site.accounts.emails.set, alice.subject, email)
    assert (site.mails(), site.now(alice).email) == ([], alice.email)


@pytest.mark.parametrize("subject", ["4711", "", "1 OR 1=1", "\0", "é" * 300])
def test_nobodys_address_cannot_be_changed(site, subject):
    refused(UserNotFound, site.accounts.emails.request_change, subject, NEW)
    refused(UserNotFound, site.accounts.emails.set, subject, NEW)


def test_without_mail_no_address_is_changed_by_a_link(make_site):
    site = make_site(mailer=None)
    alice = site.person(email_verified=False)
    refused(ConfigError, site.accounts.emails.request_change, alice.subject, NEW)
    refused(ConfigError, site.accounts.emails.send_verification, alice)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(token=st.text(max_size=60) | st.sampled_from([None, 7, b"x", ".", "é.é"]))
def test_nothing_else_verifies_or_changes_an_address(site, token):
    refused(OneTimeTokenInvalid, site.accounts.emails.verify, token)
    refused(OneTimeTokenInvalid, site.accounts.emails.confirm_change, token)


# -- addresses that are taken -------------------------------------------------------------------------------


def test_asvs_6_3_8_who_asks_for_a_taken_address_learns_nothing_and_its_owner_is_told(site):
    alice, bob = site.person(), site.person()
    assert site.accounts.emails.request_change(alice.subject, bob.email.upper()) is None
    mail = site.mail()
    assert mail.to.lower() == bob.email
    assert (bob.username in mail.text, alice.username in mail.text, "token=" in mail.text) == (True, False, False)
    assert site.now(alice).email == alice.email


def test_an_address_taken_meanwhile_makes_the_link_invalid(site):
    alice, bob = site.person(), site.person()
    token = site.change_token(alice, NEW)
    site.users.update(bob.subject, {"email": NEW.upper()})
    refused(OneTimeTokenInvalid, site.accounts.emails.confirm_change, token)
    assert (site.now(alice).email, site.now(bob).email) == (alice.email, NEW.upper())
    assert EmailChanged not in site.kinds()


def test_asvs_15_4_2_of_two_who_take_one_address_at_once_one_gets_it(shared):
    alice, bob = shared.person(), shared.person()
    email = f"new-{alice.username}@example.org"
    tokens = [shared.change_token(one, email) for one in (alice, bob)]
    outcomes = together(*[lambda token=token: shared.accounts.emails.confirm_change(token) for token in tokens])
    (winner,) = winners(outcomes)
    assert {type(one) for one in outcomes if one is not winner} == {OneTimeTokenInvalid}
    assert shared.users.find(email).subject == winner.subject


# -- changing at once ---------------------------------------------------------------------------------------


def test_an_address_set_at_once_is_to_be_verified(site, clock):
    alice = site.person()
    changed = site.accounts.emails.set(alice.subject, NEW, address=HERE)
    assert (changed.email, changed.email_verified) == (NEW, False)
    assert EmailChanged(at=clock.now, subject=alice.subject, address=HERE) in site.heard
    assert sorted(mail.to for mail in site.mails()) == sorted([alice.email, NEW])
    (link,) = [mail for mail in site.mails() if mail.to == NEW]
    assert site.accounts.emails.verify(link.text.split("token=")[1].split()[0]).email_verified


def test_the_same_address_set_again_changes_nothing(site):
    alice = site.person()
    assert site.accounts.emails.set(alice.subject, alice.email).email_verified
    assert (site.mails(), site.heard) == ([], [])


def test_a_taken_address_cannot_be_set(site):
    alice, bob = site.person(), site.person()
    refused(EmailTaken, site.accounts.emails.set, alice.subject, bob.email.upper())
    assert (site.now(alice).email, site.mails()) == (alice.email, [])


def test_without_mail_an_address_can_be_set(make_site):
    site = make_site(mailer=None)
    alice = site.person()
    assert site.accounts.emails.set(alice.subject, NEW).email == NEW


def test_asvs_6_3_8_who_sets_too_many_addresses_is_not_told_which_are_taken(make_site):
    site = make_site(config={"throttling": {"mails": 1}})
    alice = site.person()
    site.accounts.recovery.forgot(NEW)
    refused(TooManyAttempts, site.accounts.emails.set, alice.subject, NEW)
    assert site.now(alice).email == alice.email


def test_of_two_who_set_one_accounts_address_at_once_none_overwrites_the_other_unawares(make_site):
    site = make_site(wrap=Interrupted)
    alice = site.person()
    site.users.then = lambda: site.users.update(alice.subject, {"email": "other@example.org"})
    refused(OneTimeTokenInvalid, site.accounts.emails.set, alice.subject, NEW)
    assert site.now(alice).email == "other@example.org"


def test_no_event_log_or_repr_holds_a_link(site, caplog):
    alice = site.person(email_verified=False)
    with caplog.at_level(logging.DEBUG):
        tokens = [verification_token(site, alice), site.change_token(alice, NEW)]
        changed = site.accounts.emails.confirm_change(tokens[1])
    told = f"{caplog.text}{site.heard!r}{changed!r}{site.mails()!r}"
    assert not any(token in told or token.partition(".")[2] in told for token in tokens)
    assert site.kinds() == [OneTimeTokenIssued, OneTimeTokenIssued, OneTimeTokenUsed, EmailChanged]


def test_an_address_is_known_for_no_name_that_was_changed_together_with_the_email_address(site):
    alice = site.person()
    throttle = site.accounts.throttle
    throttle.sign_in(alice.username, HERE).succeeded(alice.subject)
    assert throttle._is_known(alice.username, HERE)
    site.accounts.emails.set(alice.subject, NEW, besides={"username": "another"})
    assert not throttle._is_known(alice.username, HERE)
