"""Signing in, free of HTTP: what proves somebody, in how many steps, and what nobody learns from a refusal."""

import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor

import argon2.low_level
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.security import generate_password_hash

from jam.config import PasswordSettings
from jam.crypto.passwords import Passwords
from jam.errors import (
    BadCredentials,
    Busy,
    GenerationOutdated,
    InvalidValue,
    JamError,
    OneTimeTokenInvalid,
    SignInIncomplete,
    TooManyAttempts,
)
from jam.events import (
    OneTimeTokenIssued,
    OneTimeTokenUsed,
    PasswordHashUnreadable,
    PasswordRehashed,
    Reauthenticated,
    SignedIn,
    SignInFailed,
)
from jam.stores.memory import MemoryStore
from tests.accounts.conftest import (
    HERE,
    OTHER_PASSWORD,
    PASSWORD,
    Counting,
    Interrupted,
    refused,
    together,
    winners,
)

YEAR = 365 * 86400
WRONG = "not the password at all"
PATIENCE = 60


class Step:
    """A step of an app's own that is passed by its code."""

    def __init__(self, name, code="123456", amr=("otp",)):
        self.name, self.code, self.amr, self.begun, self.before, self.asked = name, code, amr, [], None, 0

    def applies(self, account):
        if self.before is not None:
            self.before(account)
        return True

    def begin(self, account, address):
        self.begun.append((account.subject, address))

    def check(self, account, answer):
        self.asked += 1
        if answer.get("code") is None:
            return None
        if answer["code"] != self.code:
            raise BadCredentials
        return self.amr


def begun(site, account, password=PASSWORD, address=None):
    """What a sign-in of several steps is to be resumed with."""
    start = site.accounts.sign_in.start
    return refused(SignInIncomplete, start, account.username, password, address=address).token


@pytest.fixture
def otp():
    return Step("otp")


@pytest.fixture
def hwk():
    return Step("hwk", code="touch", amr=("hwk", "otp"))


@pytest.fixture
def stepped(make_site, otp, hwk):
    """An app that asks for two more steps."""
    return make_site(stages=[otp, hwk])


# -- by a password ------------------------------------------------------------------------------------------


def test_a_name_and_its_password_prove_who_somebody_is(site, clock):
    alice = site.person(roles=frozenset({"editor"}))
    proof = site.accounts.sign_in.start(alice.username, PASSWORD, address=HERE)
    assert (proof.account.subject, proof.account.roles) == (alice.subject, {"editor"})
    assert (proof.amr, proof.at, proof.failures) == (("pwd",), clock.now, 0)


@pytest.mark.parametrize("spelling", [str.upper, str.title, lambda name: name.replace("a", "ａ")])
def test_a_name_is_found_however_it_is_written(site, spelling):
    alice = site.person()
    for name in (alice.username, alice.email):
        if "@" in name and spelling not in (str.upper, str.title):
            continue
        assert site.accounts.sign_in.start(spelling(name), PASSWORD).account.subject == alice.subject


@pytest.mark.parametrize("password", [PASSWORD + " ", " " + PASSWORD, PASSWORD.title(), PASSWORD[:-1], "", WRONG])
def test_asvs_6_2_8_a_password_is_compared_exactly_as_it_was_typed(site, password):
    alice = site.person()
    refused(BadCredentials, site.accounts.sign_in.start, alice.username, password)


def test_asvs_6_2_10_a_password_does_not_grow_old(site, clock):
    alice = site.person()
    clock.move(2 * YEAR)
    assert site.knows(alice, PASSWORD)


def test_a_sign_in_tells_of_itself_and_of_no_secret(site, clock):
    alice = site.person()
    refused(BadCredentials, site.accounts.sign_in.start, alice.username, WRONG, address=HERE)
    site.accounts.sign_in.start(alice.username, PASSWORD, address=HERE)
    assert site.heard == [
        SignInFailed(at=clock.now, subject=alice.subject, address=HERE, reason="wrong_password"),
        SignedIn(at=clock.now, subject=alice.subject, address=HERE, amr=("pwd",), failures=1),
    ]


def test_asvs_6_3_5_who_signs_in_after_failures_learns_of_them(site):
    alice = site.person()
    for _ in range(3):
        refused(BadCredentials, site.accounts.sign_in.start, alice.username, WRONG, address="198.51.100.7")
    assert site.accounts.sign_in.start(alice.username, PASSWORD, address=HERE).failures == 3
    assert site.heard[-1].failures == 3
    assert site.accounts.sign_in.start(alice.username, PASSWORD, address=HERE).failures == 0


# -- a refusal tells nothing --------------------------------------------------------------------------------


def strangers(site):
    """Names that cannot sign in with PASSWORD, each for another reason, and the reason that the log is told."""
    alice, inactive = site.person(), site.person(is_active=False)
    return {
        "unknown": "nobody-at-all", "unknown_email": "nobody@example.org", "wrong_password": alice.username,
        "inactive": inactive.username, "no_password": site.person(password_hash=None).username,
        "unreadable_hash": site.person(password_hash="$argon2id$v=19$broken").username,
        "unverified": site.person(email_verified=False).username,
    }  # fmt: skip


def test_asvs_6_3_8_whoever_cannot_sign_in_gets_one_answer(site):
    for reason, name in strangers(site).items():
        password = PASSWORD if reason == "inactive" else WRONG
        error = refused(BadCredentials, site.accounts.sign_in.start, name, password, address=HERE)
        assert (error.message, error.hint, error.details()) == (BadCredentials.message, "", {})
        assert (error.__cause__, error.__context__) == (None, None)


def test_asvs_6_3_8_whoever_cannot_sign_in_costs_the_same(make_site, clock, monkeypatch):
    site = make_site(store=Counting(MemoryStore()), wrap=Counting)
    names = strangers(site)
    refused(BadCredentials, site.accounts.sign_in.start, "first-of-all", WRONG)  # what is made once is made by now
    hashings = []
    derive = argon2.low_level.hash_secret_raw
    monkeypatch.setattr(
        argon2.low_level, "hash_secret_raw", lambda *given: hashings.append(given[2:6]) or derive(*given)
    )
    costs = {}
    for number, (reason, name) in enumerate(names.items()):
        del site.jam.store.calls[:], site.users.calls[:], hashings[:], site.heard[:]
        password = PASSWORD if reason == "inactive" else WRONG
        refused(BadCredentials, site.accounts.sign_in.start, name, password, address=f"198.51.100.{number}")
        costs[reason] = (list(site.jam.store.calls), list(site.users.calls), list(hashings))
    one = costs["unknown"]
    assert costs == dict.fromkeys(costs, one)
    assert len(one[2]) == 1


def test_asvs_16_3_1_why_somebody_could_not_sign_in_is_told_to_the_events_alone(site):
    names = strangers(site)
    for reason, name in names.items():
        refused(BadCredentials, site.accounts.sign_in.start, name, PASSWORD if reason == "inactive" else WRONG)
    failures = [event for event in site.heard if isinstance(event, SignInFailed)]
    assert [event.reason for event in failures] == [
        "unknown", "unknown", "wrong_password", "inactive", "no_password", "unreadable_hash", "wrong_password",
    ]  # fmt: skip
    assert [event.subject for event in failures[:2]] == [None, None]


@pytest.mark.parametrize(
    "stored", ["", "x", "$argon2id$", "$2b$12$short", "pbkdf2:sha256:99999999999$a$b", "scrypt:2:1:1$s$zz", "\x01", "é"]
)
def test_a_malformed_stored_hash_is_a_failed_sign_in_and_an_event(site, stored):
    alice = site.person(password_hash=stored)
    refused(BadCredentials, site.accounts.sign_in.start, alice.username, PASSWORD)
    assert site.kinds() == [PasswordHashUnreadable, SignInFailed]
    assert stored not in repr(site.heard) or not stored.strip()


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(name=st.text(max_size=40) | st.sampled_from(["a\0b", "\ud800", "@", "a@b@c", "x" * 5000, "％00@example.org"]))
def test_whatever_is_typed_as_a_name_is_refused_in_the_same_way(site, name):
    refused(BadCredentials, site.accounts.sign_in.start, name, "")
    refused(BadCredentials, site.accounts.sign_in.start_at_once, name, "\0")


@pytest.mark.parametrize("password", ["", "x" * 5000, "\0", "\ud800", "￿", "\U000e0fff" * 15])
def test_a_password_that_nobody_can_have_is_wrong(site, password):
    alice = site.person()
    refused(BadCredentials, site.accounts.sign_in.start, alice.username, password)


def test_nothing_typed_is_in_a_log_an_event_or_an_error(site, caplog):
    alice = site.person()
    with caplog.at_level(logging.DEBUG):
        error = refused(BadCredentials, site.accounts.sign_in.start, alice.username, "typed-in-secret")
        refused(BadCredentials, site.accounts.sign_in.start, "typed-in-secret", "typed-in-secret")
        proof = site.accounts.sign_in.start(alice.username, PASSWORD)
    told = f"{caplog.text}{site.heard!r}{error!r}{error}{error.hint}{proof!r}{proof.account!r}"
    assert alice.password_hash not in told
    assert "typed-in-secret" not in told
    assert PASSWORD not in told


# -- attempts are counted first -----------------------------------------------------------------------------


def test_asvs_6_3_1_too_many_attempts_are_refused_before_a_password_is_hashed(make_site, monkeypatch):
    site = make_site(config={"throttling": {"attempts": 2}})
    alice = site.person()
    for _ in range(2):
        refused(BadCredentials, site.accounts.sign_in.start, alice.username, WRONG, address=HERE)
    hashings = []
    monkeypatch.setattr(argon2.low_level, "hash_secret_raw", lambda *given: hashings.append(given))
    right = refused(TooManyAttempts, site.accounts.sign_in.start, alice.username, PASSWORD, address=HERE)
    wrong = refused(TooManyAttempts, site.accounts.sign_in.start, alice.username, WRONG, address=HERE)
    assert (right.retry_after, str(right)) == (wrong.retry_after, str(wrong))
    assert hashings == []


def test_asvs_6_3_8_unknown_names_are_throttled_like_known_ones(make_site):
    site = make_site(config={"throttling": {"attempts": 2}})
    for name in (site.person().username, "nobody-at-all"):
        for _ in range(2):
            refused(BadCredentials, site.accounts.sign_in.start, name, WRONG, address=HERE)
        refused(TooManyAttempts, site.accounts.sign_in.start, name, WRONG, address=HERE)


def test_a_name_has_one_count_however_it_is_written(make_site):
    site = make_site(config={"throttling": {"attempts": 2}})
    alice = site.person()
    for spelling in (alice.username.upper(), alice.username.title()):
        refused(BadCredentials, site.accounts.sign_in.start, spelling, WRONG, address=HERE)
    refused(TooManyAttempts, site.accounts.sign_in.start, alice.username, PASSWORD, address=HERE)


def test_proving_again_has_the_same_count_as_signing_in(make_site):
    site = make_site(config={"throttling": {"attempts": 2}})
    alice = site.person()
    for _ in range(2):
        refused(BadCredentials, site.accounts.sign_in.again, alice.subject, WRONG, address=HERE)
    refused(TooManyAttempts, site.accounts.sign_in.start, alice.username, PASSWORD, address=HERE)


def test_an_attempt_that_was_not_looked_at_does_not_count(make_site):
    site = make_site(config={"throttling": {"attempts": 2}, "passwords": {"concurrency": 1, "wait_for": 0}})
    alice = site.person()
    with site.accounts.passwords._turn():
        for _ in range(3):
            refused(Busy, site.accounts.sign_in.start, alice.username, PASSWORD, address=HERE)
    assert site.accounts.sign_in.start(alice.username, PASSWORD, address=HERE).failures == 0


# -- old hashes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["pbkdf2:sha256:1000", "scrypt:1024:8:1"])
def test_an_old_hash_becomes_a_present_one_at_the_next_sign_in(site, method):
    alice = site.person(password_hash=generate_password_hash(PASSWORD, method))
    proof = site.accounts.sign_in.start(alice.username, PASSWORD)
    assert site.now(alice).password_hash.startswith("$argon2id$")
    assert proof.account.password_hash == site.now(alice).password_hash
    assert site.kinds() == [PasswordRehashed, SignedIn]
    assert site.knows(alice, PASSWORD)


def test_a_wrong_password_changes_no_hash(site):
    old = generate_password_hash(PASSWORD, "pbkdf2:sha256:1000")
    alice = site.person(password_hash=old)
    refused(BadCredentials, site.accounts.sign_in.start, alice.username, WRONG)
    assert site.now(alice).password_hash == old


def test_a_deactivated_account_keeps_its_old_hash(site):
    old = generate_password_hash(PASSWORD, "pbkdf2:sha256:1000")
    alice = site.person(password_hash=old, is_active=False)
    refused(BadCredentials, site.accounts.sign_in.start, alice.username, PASSWORD)
    assert site.now(alice).password_hash == old


class SlowHash(Passwords):
    """Something happens while a new hash is made."""

    then = None

    def hash(self, password):
        if self.then is not None:
            self.then()
        return super().hash(password)


def test_a_new_hash_does_not_overwrite_a_password_changed_meanwhile(make_site, hashed):
    site = make_site()
    alice = site.person(password_hash=generate_password_hash(OTHER_PASSWORD, "pbkdf2:sha256:1000"))
    slow = SlowHash(PasswordSettings())
    slow.then = lambda: site.users.update(alice.subject, {"password_hash": hashed})
    site.accounts.sign_in._check._passwords = slow
    site.accounts.sign_in.start(alice.username, OTHER_PASSWORD)
    assert site.now(alice).password_hash == hashed
    assert PasswordRehashed not in site.kinds()


def test_a_hash_that_nobody_has_time_to_renew_keeps_nobody_out(site):
    old = generate_password_hash(PASSWORD, "pbkdf2:sha256:1000")
    alice = site.person(password_hash=old)
    slow = SlowHash(PasswordSettings(concurrency=1, wait_for=0))
    site.accounts.sign_in._check._passwords = slow

    def be_busy():
        slow._turns.take(0)

    slow.then = be_busy
    assert site.accounts.sign_in.start(alice.username, PASSWORD).account.password_hash == old
    slow._turns.give_back()
    slow.then = None
    assert site.accounts.sign_in.start(alice.username, PASSWORD).account.password_hash != old


def test_of_sign_ins_that_renew_one_hash_at_once_all_succeed(shared):
    alice = shared.person(password_hash=generate_password_hash(PASSWORD, "pbkdf2:sha256:1000"))
    outcomes = together(*[lambda: shared.accounts.sign_in.start(alice.username, PASSWORD)] * 3)
    assert len(winners(outcomes)) == 3
    assert shared.kinds(PasswordRehashed) == [PasswordRehashed]
    assert shared.knows(alice, PASSWORD)


def test_a_hash_that_cannot_be_renewed_keeps_nobody_out(make_site):
    class ReadOnly(Counting):
        def update(self, *_):
            raise InvalidValue("This directory is read-only.")

    site = make_site()
    alice = site.person(password_hash=generate_password_hash(PASSWORD, "pbkdf2:sha256:1000"))
    read_only = make_site(users=ReadOnly(site.users))
    assert read_only.accounts.sign_in.start(alice.username, PASSWORD).account.subject == alice.subject


# -- a proof does not outlive what ended everything ---------------------------------------------------------


def login(site, proof):
    """What a view does with a proof: a session, if nothing was ended meanwhile."""
    return site.jam.sessions.create(proof.account.subject, generation=proof.generation("session"))


def test_a_proof_is_good_for_credentials_of_every_kind(site):
    proof = site.accounts.sign_in.start(site.person().username, PASSWORD)
    assert site.jam.sessions.verify(login(site, proof)).subject == proof.account.subject


def test_a_proof_of_before_everything_ended_is_good_for_nothing(site):
    alice = site.person()
    site.jam.revoke_all(alice.subject)  # so that the generation is not the first one
    proof = site.accounts.sign_in.start(alice.username, PASSWORD)
    site.jam.revoke_all(alice.subject)
    refused(GenerationOutdated, login, site, proof)
    with pytest.raises(GenerationOutdated):
        site.jam.refresh_tokens.issue(alice.subject, generation=proof.generation("refresh_token"))


def signs_in(site, account, by):
    """Whether somebody gets a session by PASSWORD."""
    try:
        proof = getattr(site.accounts.sign_in, by)(account.username if by == "start" else account.subject, PASSWORD)
        return bool(login(site, proof))
    except (BadCredentials, GenerationOutdated):
        return False


@pytest.mark.parametrize("by", ["start", "again"])
def test_asvs_7_4_3_a_password_that_was_changed_while_it_was_looked_up_lets_nobody_in(make_site, by):
    site = make_site(wrap=Interrupted)
    changed = Passwords(PasswordSettings()).hash(OTHER_PASSWORD)
    happened = 0
    for number in (1, 2, 3):
        alice = site.person()

        def change(alice=alice):
            site.users.update(alice.subject, {"password_hash": changed})
            site.jam.revoke_all(alice.subject)

        site.users.then, site.users.after = change, number
        is_in = signs_in(site, alice, by)
        assert is_in is (site.users.then is not None)
        happened += not is_in
    assert happened >= 2


@pytest.mark.parametrize("by", ["start", "again"])
def test_asvs_7_4_2_an_account_that_was_deactivated_while_it_was_looked_up_is_not_let_in(make_site, by):
    site = make_site(wrap=Interrupted)
    users = site.users._users
    for number in (1, 2):
        alice = site.person()

        def deactivate(alice=alice):
            users.update(alice.subject, {"is_active": False})
            site.jam.revoke_all(alice.subject)

        site.users.then, site.users.after = deactivate, number
        assert not signs_in(site, alice, by)
        assert site.users.then is None


def test_a_name_that_goes_to_somebody_else_while_it_is_looked_up_lets_nobody_in(make_site):
    site = make_site(wrap=Interrupted)
    alice, bob = site.person(), site.person()

    def swap():
        site.users.update(alice.subject, {"username": "formerly-alice"})
        site.users.update(bob.subject, {"username": alice.username})

    site.users.then = swap
    refused(BadCredentials, site.accounts.sign_in.start, alice.username, PASSWORD)


def test_asvs_7_4_3_no_session_of_the_old_password_survives_a_reset_that_it_races(shared):
    for _ in range(4):
        alice = shared.person()
        token = shared.reset_token(alice)
        outcomes = together(
            *[lambda name=alice.username: login(shared, shared.accounts.sign_in.start(name, PASSWORD))] * 3,
            lambda token=token: shared.accounts.recovery.reset(token, OTHER_PASSWORD),
        )
        assert not isinstance(outcomes[-1], JamError)
        handles = [one for one in outcomes if isinstance(one, str)]
        assert [shared.jam.sessions.get(handle) for handle in handles] == [None] * len(handles)
        assert shared.jam.logins.list(alice.subject) == []


# -- several steps ------------------------------------------------------------------------------------------


def test_asvs_6_6_3_a_sign_in_of_three_steps(stepped, otp, hwk, clock):
    alice = stepped.person()
    started_at = clock.now
    first = refused(SignInIncomplete, stepped.accounts.sign_in.start, alice.username, PASSWORD, address=HERE)
    assert first.steps == ("otp", "hwk")
    assert (otp.begun, hwk.begun) == ([(alice.subject, HERE)], [])
    clock.move(5)
    second = refused(SignInIncomplete, stepped.accounts.sign_in.resume, first.token, "otp", {"code": "123456"})
    assert second.steps == ("hwk",)
    assert second.token != first.token
    assert hwk.begun == [(alice.subject, None)]
    proof = stepped.accounts.sign_in.resume(second.token, "hwk", {"code": "touch"}, address=HERE)
    assert (proof.account.subject, proof.amr, proof.at) == (alice.subject, ("pwd", "otp", "hwk"), started_at)
    assert stepped.heard[-1] == SignedIn(
        at=clock.now, subject=alice.subject, address=HERE, amr=("pwd", "otp", "hwk"), failures=0
    )
    assert stepped.kinds() == [OneTimeTokenIssued, OneTimeTokenUsed, SignedIn]


def test_what_several_steps_prove_is_good_for_credentials_of_the_present_generation(stepped):
    alice = stepped.person()
    stepped.jam.revoke_all(alice.subject)
    token = refused(
        SignInIncomplete, stepped.accounts.sign_in.resume, begun(stepped, alice), "otp", {"code": "123456"}
    ).token
    proof = stepped.accounts.sign_in.resume(token, "hwk", {"code": "touch"})
    assert stepped.jam.sessions.verify(login(stepped, proof)).subject == alice.subject


def test_failures_before_the_first_step_are_told_after_the_last(stepped):
    alice = stepped.person()
    refused(BadCredentials, stepped.accounts.sign_in.start, alice.username, WRONG)
    token = begun(stepped, alice)
    token = refused(SignInIncomplete, stepped.accounts.sign_in.resume, token, "otp", {"code": "123456"}).token
    assert stepped.accounts.sign_in.resume(token, "hwk", {"code": "touch"}).failures == 1


def test_asvs_6_3_4_no_step_is_skipped(stepped):
    token = begun(stepped, stepped.person())
    error = refused(SignInIncomplete, stepped.accounts.sign_in.resume, token, "hwk", {"code": "touch"})
    assert (error.steps, error.token) == (("otp", "hwk"), token)


def test_a_step_that_was_taken_is_not_asked_for_again(stepped, otp):
    token = begun(stepped, stepped.person())
    token = refused(SignInIncomplete, stepped.accounts.sign_in.resume, token, "otp", {"code": "123456"}).token
    error = refused(SignInIncomplete, stepped.accounts.sign_in.resume, token, "otp", {"code": "wrong"})
    assert (error.steps, error.token) == (("hwk",), token)


def test_a_step_that_does_not_exist_is_refused_by_name(stepped):
    refused(InvalidValue, stepped.accounts.sign_in.resume, begun(stepped, stepped.person()), "sms", {})


def test_an_answer_that_says_nothing_yet_leaves_the_step_due(stepped):
    token = begun(stepped, stepped.person())
    error = refused(SignInIncomplete, stepped.accounts.sign_in.resume, token, "otp", {})
    assert (error.steps, error.token) == (("otp", "hwk"), token)


def test_asvs_6_5_1_the_token_of_a_step_that_was_taken_is_dead(stepped):
    first = begun(stepped, stepped.person())
    second = refused(SignInIncomplete, stepped.accounts.sign_in.resume, first, "otp", {"code": "123456"}).token
    refused(OneTimeTokenInvalid, stepped.accounts.sign_in.resume, first, "otp", {"code": "123456"})
    stepped.accounts.sign_in.resume(second, "hwk", {"code": "touch"})
    for token in (first, second):
        refused(OneTimeTokenInvalid, stepped.accounts.sign_in.resume, token, "hwk", {"code": "touch"})


def test_asvs_6_6_2_a_code_belongs_to_the_sign_in_whose_token_comes_with_it(stepped):
    alice, bob = stepped.person(), stepped.person()
    token = begun(stepped, bob)
    begun(stepped, alice)
    token = refused(SignInIncomplete, stepped.accounts.sign_in.resume, token, "otp", {"code": "123456"}).token
    assert stepped.accounts.sign_in.resume(token, "hwk", {"code": "touch"}).account.subject == bob.subject


def test_asvs_6_6_3_the_sixth_answer_ends_a_sign_in(stepped):
    alice = stepped.person()
    token = begun(stepped, alice)
    for _ in range(5):
        refused(BadCredentials, stepped.accounts.sign_in.resume, token, "otp", {"code": "000000"})
    refused(OneTimeTokenInvalid, stepped.accounts.sign_in.resume, token, "otp", {"code": "123456"})
    refused(OneTimeTokenInvalid, stepped.jam.one_time_tokens.peek, token, "sign_in")
    assert SignedIn not in stepped.kinds()
    refused(SignInIncomplete, stepped.accounts.sign_in.resume, begun(stepped, alice), "otp", {"code": "123456"})


def test_asvs_6_6_3_the_answers_of_all_steps_are_counted_together(stepped):
    token = begun(stepped, stepped.person())
    for _ in range(4):
        refused(BadCredentials, stepped.accounts.sign_in.resume, token, "otp", {"code": "000000"})
    token = refused(SignInIncomplete, stepped.accounts.sign_in.resume, token, "otp", {"code": "123456"}).token
    refused(OneTimeTokenInvalid, stepped.accounts.sign_in.resume, token, "hwk", {"code": "touch"})


def test_asvs_6_6_3_answers_that_come_at_once_are_counted_each(make_site, engine_store, people, otp, hwk):
    site = make_site(store=engine_store, users=people, stages=[otp, hwk])
    token = begun(site, site.person())
    guesses = together(*[lambda: site.accounts.sign_in.resume(token, "otp", {"code": "000000"})] * 12)
    assert [type(one) for one in guesses].count(BadCredentials) == 5
    assert [type(one) for one in guesses].count(OneTimeTokenInvalid) == 7


def test_asvs_16_3_1_a_wrong_answer_is_told(stepped, clock):
    alice = stepped.person()
    token = begun(stepped, alice)
    del stepped.heard[:]
    for _ in range(6):
        with pytest.raises(JamError):
            stepped.accounts.sign_in.resume(token, "otp", {"code": "000000"}, address=HERE)
    failed = SignInFailed(at=clock.now, subject=alice.subject, address=HERE, reason="wrong_answer")
    ended = SignInFailed(at=clock.now, subject=alice.subject, address=HERE, reason="too_many_answers")
    assert stepped.heard == [failed] * 5 + [ended]


def test_asvs_15_4_2_of_two_who_finish_one_sign_in_one_wins(make_site, engine_store, people, otp):
    site = make_site(store=engine_store, users=people, stages=[otp])
    for _ in range(3):
        token = begun(site, site.person())
        outcomes = together(*[lambda token=token: site.accounts.sign_in.resume(token, "otp", {"code": "123456"})] * 4)
        assert len(winners(outcomes)) == 1
        assert {type(one) for one in outcomes if isinstance(one, JamError)} == {OneTimeTokenInvalid}


def test_asvs_15_4_2_of_two_who_take_a_step_at_once_one_goes_on(stepped):
    token = begun(stepped, stepped.person())
    outcomes = together(*[lambda: stepped.accounts.sign_in.resume(token, "otp", {"code": "123456"})] * 4)
    assert [type(one) for one in outcomes].count(SignInIncomplete) == 1
    assert [type(one) for one in outcomes].count(OneTimeTokenInvalid) == 3


def test_a_sign_in_ends_after_ten_minutes_whatever_was_taken(stepped, clock):
    token = begun(stepped, stepped.person())
    clock.move(599)
    token = refused(SignInIncomplete, stepped.accounts.sign_in.resume, token, "otp", {"code": "123456"}).token
    clock.move(1)
    refused(OneTimeTokenInvalid, stepped.accounts.sign_in.resume, token, "hwk", {"code": "touch"})


@pytest.mark.parametrize("change", ["password", "deactivated", "deleted", "everything ended"])
def test_a_sign_in_ends_when_its_account_changes_between_two_steps(stepped, change):
    alice = stepped.person()
    token = begun(stepped, alice)
    management = stepped.accounts.management
    if change == "password":
        stepped.users.update(alice.subject, {"password_hash": "another"})
    elif change == "deactivated":
        stepped.users.update(alice.subject, {"is_active": False})
    elif change == "deleted":
        management.delete(alice.subject)
    else:
        management.sign_out_everywhere(alice.subject)
    refused(OneTimeTokenInvalid, stepped.accounts.sign_in.resume, token, "otp", {"code": "123456"})
    refused(OneTimeTokenInvalid, stepped.accounts.sign_in.send_again, token)


def test_a_sign_in_of_several_steps_whose_account_is_revoked_meanwhile_does_not_begin(stepped, otp):
    alice = stepped.person()
    otp.before = lambda account: stepped.jam.revoke_all(account.subject)
    refused(BadCredentials, stepped.accounts.sign_in.start, alice.username, PASSWORD)
    assert otp.begun == []


def test_what_several_steps_prove_does_not_outlive_what_ended_everything_since_the_first(make_site, otp):
    site = make_site(stages=[otp])
    alice = site.person()
    token = begun(site, alice)
    site.jam.sessions.clear(alice.subject)  # sessions alone: the sign-in itself goes on
    proof = site.accounts.sign_in.resume(token, "otp", {"code": "123456"})
    refused(GenerationOutdated, login, site, proof)


def test_a_token_of_a_sign_in_is_in_no_event_log_or_repr(stepped, caplog):
    with caplog.at_level(logging.DEBUG):
        error = refused(SignInIncomplete, stepped.accounts.sign_in.start, stepped.person().username, PASSWORD)
    assert error.token not in f"{caplog.text}{stepped.heard!r}{error!r}{error}"
    assert error.details() == {"steps": ["otp", "hwk"], "sign_in_token": error.token}


def test_the_step_that_is_due_can_be_begun_again_but_not_for_ever(stepped, otp):
    token = begun(stepped, stepped.person())
    for _ in range(5):
        stepped.accounts.sign_in.send_again(token, address=HERE)
    assert len(otp.begun) == 6
    refused(OneTimeTokenInvalid, stepped.accounts.sign_in.send_again, token)
    assert len(otp.begun) == 6


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(token=st.text(max_size=80) | st.sampled_from(["", ".", "a.b", "é", "\0", None, 7, b"x", ["x"]]))
def test_a_sign_in_is_resumed_by_its_own_token_alone(stepped, token):
    refused(OneTimeTokenInvalid, stepped.accounts.sign_in.resume, token, "otp", {"code": "123456"})
    refused(OneTimeTokenInvalid, stepped.accounts.sign_in.send_again, token)


# -- where no second step can be taken ----------------------------------------------------------------------


def test_asvs_6_3_4_where_no_second_step_can_be_taken_a_password_is_not_enough(stepped, otp):
    alice = stepped.person()
    error = refused(SignInIncomplete, stepped.accounts.sign_in.start_at_once, alice.username, PASSWORD, address=HERE)
    assert (error.steps, error.token, error.details()) == (("otp", "hwk"), "", {"steps": ["otp", "hwk"]})
    assert otp.begun == []
    assert SignedIn not in stepped.kinds()


def test_without_more_steps_a_password_is_enough_at_once(site):
    alice = site.person()
    assert site.accounts.sign_in.start_at_once(alice.username, PASSWORD).account.subject == alice.subject
    assert site.kinds() == [SignedIn]


# -- the step that asks for a verified address --------------------------------------------------------------


@pytest.fixture
def verifying(make_site):
    return make_site(config={"accounts": {"require_verified_email": True}})


def test_who_has_not_verified_their_address_is_sent_the_link_and_not_let_in(verifying):
    alice = verifying.person(email_verified=False)
    error = refused(SignInIncomplete, verifying.accounts.sign_in.start, alice.username, PASSWORD)
    assert error.steps == ("verify_email",)
    assert verifying.mail().to == alice.email
    still = refused(SignInIncomplete, verifying.accounts.sign_in.resume, error.token, "verify_email", {})
    assert still.steps == ("verify_email",)
    verifying.accounts.emails.verify(verifying.token())
    proof = verifying.accounts.sign_in.resume(error.token, "verify_email", {})
    assert (proof.account.email_verified, proof.amr) == (True, ("pwd",))


def test_who_has_verified_their_address_signs_in_at_once(verifying):
    assert verifying.knows(verifying.person(), PASSWORD)
    assert verifying.mails() == []


def test_asvs_6_3_6_no_answer_takes_the_place_of_the_link(verifying):
    token = begun(verifying, verifying.person(email_verified=False))
    for answer in ({"code": "123456"}, {"email_verified": True}, {"token": token}):
        refused(SignInIncomplete, verifying.accounts.sign_in.resume, token, "verify_email", answer)


def test_too_many_sign_ins_send_no_more_mails_and_go_on(make_site):
    site = make_site(config={"accounts": {"require_verified_email": True}, "throttling": {"mails": 2}})
    alice = site.person(email_verified=False)
    for _ in range(3):
        begun(site, alice)
    assert len(site.mails()) == 2


# -- once more ----------------------------------------------------------------------------------------------


def test_who_is_signed_in_can_prove_again_who_they_are(site, clock):
    alice = site.person()
    clock.move(7)
    proof = site.accounts.sign_in.again(alice.subject, PASSWORD, address=HERE)
    assert (proof.account.subject, proof.at, proof.amr) == (alice.subject, clock.now, ("pwd",))
    assert site.heard == [Reauthenticated(at=clock.now, subject=alice.subject, address=HERE)]


@pytest.mark.parametrize("who", ["wrong password", "nobody", "hostile", "inactive"])
def test_nobody_else_can(site, who):
    alice = site.person(is_active=who != "inactive")
    subject = {"nobody": "4711", "hostile": "1 OR 1=1"}.get(who, alice.subject)
    refused(BadCredentials, site.accounts.sign_in.again, subject, WRONG if who == "wrong password" else PASSWORD)
    assert Reauthenticated not in site.kinds()


def test_many_sign_in_at_once(shared):
    names = [shared.person().username for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        proofs = list(pool.map(lambda name: shared.accounts.sign_in.start(name, PASSWORD), names))
    assert [proof.account.username for proof in proofs] == names


# -- guessing at the later steps ----------------------------------------------------------------------------


def test_asvs_6_6_3_who_knows_the_password_cannot_guess_at_the_next_step_for_ever(make_site, otp, clock):
    site = make_site(config={"throttling": {"attempts": 6, "attempts_per_account": 12}}, stages=[otp])
    alice = site.person()
    for _ in range(5):  # windows
        for _ in range(10):  # sign-ins
            try:
                site.accounts.sign_in.start(alice.username, PASSWORD, address=HERE)
            except TooManyAttempts:
                break
            except SignInIncomplete as incomplete:
                for _ in range(3):  # guesses
                    with contextlib.suppress(TooManyAttempts), pytest.raises(BadCredentials):
                        site.accounts.sign_in.resume(incomplete.token, "otp", {"code": "guess"}, address=HERE)
        clock.move(901)
    assert 0 < otp.asked <= 12
    refused(TooManyAttempts, site.accounts.sign_in.start, alice.username, PASSWORD, address=HERE)


def test_asvs_6_3_1_a_sign_in_of_several_steps_leaves_no_count_behind(stepped):
    alice = stepped.person()
    for _ in range(120):  # more than an address may fail, and more than a name
        token = begun(stepped, alice, address=HERE)
        token = refused(
            SignInIncomplete, stepped.accounts.sign_in.resume, token, "otp", {"code": "123456"}, address=HERE
        ).token
        stepped.accounts.sign_in.resume(token, "hwk", {"code": "touch"}, address=HERE)


def test_asking_whether_a_step_is_done_by_now_is_no_attempt(make_site):
    site = make_site(config={"accounts": {"require_verified_email": True}})
    alice = site.person(email_verified=False)
    token = begun(site, alice, address=HERE)
    for _ in range(30):
        refused(SignInIncomplete, site.accounts.sign_in.resume, token, "verify_email", {}, address=HERE)
