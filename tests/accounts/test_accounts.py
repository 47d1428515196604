"""The flows wired together: when things are opened, what an app can give, and that all that happens is recorded."""

import contextlib
import os
import signal
import threading

import pytest

from jam import Jam
from jam.accounts.accounts import Accounts
from jam.accounts.audit import open_audit_log
from jam.accounts.sql_users import open_users
from jam.errors import BadCredentials, ConfigError, PasswordRefused, StoreUnavailable
from jam.events import Reactivated, SignedIn, SignInFailed
from tests.accounts.conftest import (
    BASE_URL,
    HERE,
    OTHER_PASSWORD,
    PASSWORD,
    PATIENCE,
    Mailbox,
    WithoutVerification,
    refused,
    together,
)

PARTS = (
    "sign_in", "registration", "recovery", "emails", "management", "outbox", "passwords", "policy", "throttle",
)  # fmt: skip


@pytest.fixture
def log(tmp_path):
    log = open_audit_log(f"sqlite:///{tmp_path}/audit.db")
    with contextlib.closing(log):
        yield log


# -- wiring -------------------------------------------------------------------------------------------------


def test_nothing_is_opened_before_it_is_needed(secret, tmp_path):
    users = open_users(f"sqlite:///{tmp_path}/people.db")
    audit = {"url": f"sqlite:///{tmp_path}/audit.db"}
    Accounts(Jam({"secret": secret, "store": f"sqlite:///{tmp_path}/jam.db", "audit": audit}), users)
    assert list(tmp_path.iterdir()) == []
    users.close()


@pytest.mark.parametrize("part", PARTS)
def test_every_part_is_made_once(site, part):
    assert len(set(map(id, together(*[lambda: getattr(site.accounts, part)] * 6)))) == 1


def test_a_password_is_checked_by_the_apps_own_service_too(make_site):
    site = make_site(breached=lambda password: password == OTHER_PASSWORD)
    alice = site.person()
    change = site.accounts.management.change_password
    refused(PasswordRefused, change, alice.subject, PASSWORD, OTHER_PASSWORD)
    refused(PasswordRefused, site.accounts.registration.start, "carol", "carol@example.org", OTHER_PASSWORD)
    refused(PasswordRefused, site.accounts.recovery.reset, site.reset_token(alice), OTHER_PASSWORD)


def test_the_apps_name_is_no_password(make_site):
    site = make_site(config={"name": "Larderoni", "passwords": {"context_words": ["pantry"]}})
    for password in ("my larderoni account", "who is in the pantry"):
        refused(PasswordRefused, site.accounts.registration.create, "carol", None, password)


def test_mails_are_written_within_the_apps_own_context(make_site):
    site, entered = make_site(), []

    @contextlib.contextmanager
    def context():
        entered.append(threading.current_thread().name)
        yield

    site.accounts.belong_to(context, lambda: None)
    site.reset_token(site.person())
    assert entered == ["jam-outbox"]


def test_two_apps_with_one_secret_have_one_count(make_site, tmp_path):
    store = Jam({"store": f"sqlite:///{tmp_path}/jam.db"}).store
    users = open_users(f"sqlite:///{tmp_path}/people.db")
    first, second = (make_site(store=store, users=users, config={"throttling": {"attempts": 2}}) for _ in range(2))
    alice = first.person()
    for site in (first, second):
        refused(BadCredentials, site.accounts.sign_in.start, alice.username, "wrong", address=HERE)
    assert not second.accounts.throttle._is_known(alice.username, HERE)
    with pytest.raises(Exception, match="Too many"):
        first.accounts.sign_in.start(alice.username, PASSWORD, address=HERE)
    store.close()
    users.close()


def test_what_is_configured_wrongly_is_a_configuration_error(make_site):
    for options in ({"texts": {"nonsense": "S\n\nT"}}, {"links": {"register": "/"}}):
        site = make_site(**options)
        with pytest.raises(ConfigError):
            site.accounts.outbox


def test_a_store_that_is_down_lets_nobody_in(make_site, tmp_path, hashed):
    site = make_site(config={"store": "redis://127.0.0.1:1/0"})
    alice = site.person()
    refused(StoreUnavailable, site.accounts.sign_in.start, alice.username, PASSWORD, address=HERE)
    refused(StoreUnavailable, site.accounts.sign_in.start, "nobody", PASSWORD, address=HERE)
    refused(StoreUnavailable, site.accounts.recovery.forgot, alice.email)
    refused(StoreUnavailable, site.accounts.registration.start, "carol", "carol@example.org", PASSWORD)
    refused(StoreUnavailable, site.accounts.management.change_password, alice.subject, PASSWORD, OTHER_PASSWORD)
    assert site.now(alice).password_hash == hashed


def test_who_forks_while_another_thread_opens_something_leaves_the_child_everything(make_site):
    site, is_held, may_go = make_site(), threading.Event(), threading.Event()

    def hold():
        with site.accounts._lock:
            is_held.set()
            may_go.wait(PATIENCE)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert is_held.wait(PATIENCE)
        child = os.fork()
        if not child:
            signal.alarm(10)  # rather than wait for ever
            code = 1
            try:
                code = 0 if site.accounts.policy is site.accounts.policy else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        may_go.set()
        thread.join()


def test_a_model_that_cannot_note_it_cannot_ask_for_a_verified_address(make_site):
    site = make_site(config={"accounts": {"require_verified_email": True}}, wrap=WithoutVerification)
    assert "email_verified" in refused(ConfigError, lambda: site.accounts.sign_in).hint


# -- the audit log ------------------------------------------------------------------------------------------


def names(log):
    return [entry.event for entry in reversed(log.search())]


def test_asvs_16_3_1_what_happens_is_recorded_from_the_first_event_on(make_site, log):
    site = make_site(audit=log)
    alice = site.person()
    refused(BadCredentials, site.accounts.sign_in.start, alice.username, "wrong", address=HERE)
    assert names(log) == ["SignInFailed"]
    site.accounts.sign_in.start(alice.username, PASSWORD, address=HERE)
    assert names(log) == ["SignInFailed", "SignedIn"]


def test_asvs_16_3_1_each_of_many_first_events_is_recorded_once(make_site, log, clock):
    site = make_site(audit=log)
    together(*[lambda n=n: site.jam.events.emit(Reactivated(at=clock(), subject=str(n))) for n in range(6)])
    assert sorted(entry.subject for entry in log.search()) == list("012345")


def test_the_log_is_where_the_configuration_says(make_site, tmp_path):
    site = make_site(config={"audit": {"url": f"sqlite:///{tmp_path}/audit.db"}})
    site.accounts.sign_in.start(site.person().username, PASSWORD)
    assert names(site.accounts.audit) == ["SignedIn"]
    assert site.accounts.audit is site.accounts.audit
    site.accounts.audit.close()


def test_what_happens_without_accounts_being_used_is_recorded_too(make_site, log):
    site = make_site(audit=log)
    site.jam.sessions.create("alice")
    assert names(log) == ["SessionStarted"]


def test_without_an_audit_log_nobody_listens(secret, tmp_path):
    jam = Jam({"secret": secret, "accounts": {"base_url": BASE_URL}})
    users = open_users(f"sqlite:///{tmp_path}/people.db")
    accounts = Accounts(jam, users, mailer=Mailbox())
    assert accounts.audit is None
    jam.events.emit(SignedIn(at=0.0, subject="alice"))
    assert not jam.events
    users.close()


def test_a_log_that_cannot_be_opened_is_told_each_time_and_disturbs_nobody_else(make_site, caplog):
    site = make_site(config={"audit": {"url": "ftp://user:pass-word@nowhere"}})
    for _ in range(2):
        site.jam.events.emit(SignInFailed(at=0.0, subject=None, reason="unknown"))
    assert site.kinds() == [SignInFailed] * 2
    assert caplog.text.count("An event listener failed on SignInFailed") == 2
    assert "pass-word" not in caplog.text
    with pytest.raises(ConfigError):
        site.accounts.management
