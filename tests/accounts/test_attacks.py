"""What goes wrong in the middle: stores that fail, processes that die, many at once, and what is left behind."""

import contextlib
import io
import logging
import multiprocessing
import os
import re
import secrets
import signal
import threading
import time
import traceback

import pytest
import sqlalchemy as sa
from werkzeug.security import generate_password_hash

from jam import Jam
from jam.accounts.accounts import Accounts
from jam.accounts.sql_users import SQLUsers, jam_user_model, open_users
from jam.errors import JamError, StoreUnavailable
from jam.events import SignedIn
from jam.stores import open_store
from tests.accounts.conftest import (
    BASE_URL,
    HERE,
    OTHER_PASSWORD,
    PASSWORD,
    PATIENCE,
    Credentials,
    Mailbox,
    refused,
    together,
    winners,
)

# -- a store, or the people's database, that goes away ------------------------------------------------------


class Outage:
    """From the nth call on nobody answers, neither the store nor the people's database.

    ``is_late``: that call does its work still, and the answer is lost.
    """

    def __init__(self):
        self.begins_at, self.is_late, self.calls, self.thread = None, False, 0, threading.get_ident()

    def of(self, engine):
        return Unreliable(engine, self)

    def call(self, act):
        if self.begins_at is None or threading.get_ident() != self.thread:
            return act()
        self.calls += 1
        if self.calls < self.begins_at:
            return act()
        if self.calls == self.begins_at and self.is_late:
            act()
        raise StoreUnavailable

    def at(self, number, *, is_late):
        self.begins_at, self.is_late, self.calls = number, is_late, 0

    def end(self):
        self.begins_at = None


class Unreliable:
    def __init__(self, engine, outage):
        self._engine, self._outage = engine, outage

    def __getattr__(self, name):
        found = getattr(self._engine, name)
        if not callable(found):
            return found
        return lambda *arguments, **options: self._outage.call(lambda: found(*arguments, **options))


@pytest.fixture
def outage():
    return Outage()


@pytest.fixture
def fragile(make_site, outage):
    """An app whose store and people fail when the test says so."""
    limits = {"mails": 10_000, "attempts_per_account": 10_000, "attempts_per_address": 10_000}
    return make_site(store=outage.of(open_store("memory://")), wrap=outage.of, config={"throttling": limits})


def interrupted_everywhere(site, outage, prepare, act, check):
    """Run ``act`` with an outage at its first call, at its second, and so on, until there are no more of them."""
    number = 0
    while True:
        number += 1
        for is_late in (False, True):
            prepared = prepare()
            site.mails()
            outage.at(number, is_late=is_late)
            try:
                result = act(prepared)
            except StoreUnavailable:
                result = None
            finally:
                was_out = outage.calls >= outage.begins_at
                outage.end()
            check(prepared, result)
            site.accounts.outbox.wake()  # for what was kept without anybody's hearing of it
            site.mails()
            if not was_out:
                assert number > 1
                return


def test_a_sign_in_during_an_outage_lets_nobody_in(fragile, outage):
    def act(account):
        fragile.heard.clear()
        return fragile.accounts.sign_in.start(account.username, PASSWORD, address=HERE)

    def check(_, proof):
        assert (SignedIn in fragile.kinds()) == (proof is not None)

    interrupted_everywhere(fragile, outage, fragile.person, act, check)


def test_whenever_a_forgotten_password_was_set_anew_nothing_of_the_old_one_lives(fragile, outage):
    def prepare():
        account = fragile.person()
        return account, Credentials(fragile, account), fragile.reset_token(account)

    def check(prepared, _):
        account, held, _ = prepared
        is_new = fragile.now(account).password_hash != account.password_hash
        assert not (is_new and held.living())

    interrupted_everywhere(
        fragile, outage, prepare, lambda it: fragile.accounts.recovery.reset(it[2], OTHER_PASSWORD), check
    )


def test_whenever_an_account_is_gone_nothing_of_it_lives(fragile, outage):
    def prepare():
        account = fragile.person()
        return account, Credentials(fragile, account)

    def check(prepared, _):
        account, held = prepared
        assert fragile.now(account) is not None or not held.living()

    interrupted_everywhere(
        fragile, outage, prepare, lambda it: fragile.accounts.management.delete(it[0].subject), check
    )


def test_a_deactivation_that_was_interrupted_can_be_done_again(fragile, outage):
    def prepare():
        account = fragile.person()
        return account, Credentials(fragile, account)

    def check(prepared, _):
        account, held = prepared
        fragile.accounts.management.deactivate(account.subject)
        assert not fragile.now(account).is_active
        assert held.living() == set()

    interrupted_everywhere(
        fragile, outage, prepare, lambda it: fragile.accounts.management.deactivate(it[0].subject), check
    )


def test_an_acknowledged_password_change_during_an_outage_is_whole(fragile, outage):
    def prepare():
        account = fragile.person()
        return account, Credentials(fragile, account)

    def act(prepared):
        account, _ = prepared
        fragile.accounts.management.change_password(account.subject, PASSWORD, OTHER_PASSWORD)
        return True

    def check(prepared, is_acknowledged):
        account, held = prepared
        if is_acknowledged:
            assert fragile.now(account).password_hash != account.password_hash
            assert held.living() <= {"api_token"}

    interrupted_everywhere(fragile, outage, prepare, act, check)


def test_a_letter_that_was_acknowledged_during_an_outage_is_sent(fragile, outage):
    def prepare():
        return fragile.person()

    def check(account, _):
        fragile.accounts.outbox.wake()
        is_sent = any(mail.to == account.email for mail in fragile.mails())
        assert is_sent or not acknowledged.pop(account.subject, False)

    acknowledged = {}

    def act(account):
        fragile.accounts.recovery.forgot(account.email)
        acknowledged[account.subject] = True

    interrupted_everywhere(fragile, outage, prepare, act, check)


def test_who_has_an_old_hash_signs_in_while_the_database_is_read_only(tmp_path, make_site):
    people = open_users(f"sqlite:///{tmp_path}/people.db")
    old = generate_password_hash(PASSWORD)
    people.create(username="alice", email="alice@example.org", password_hash=old)
    people.close()
    engine = sa.create_engine(f"sqlite:///file:{tmp_path}/people.db?mode=ro&uri=true", poolclass=sa.NullPool)
    site = make_site(users=SQLUsers(jam_user_model(sa.MetaData()), engine))
    assert site.accounts.sign_in.start("alice", PASSWORD).account.password_hash == old
    refused(StoreUnavailable, site.accounts.management.change_password, "1", PASSWORD, OTHER_PASSWORD)


def test_an_audit_log_on_a_full_disk_keeps_nobody_out_and_says_so(make_site, caplog):
    site = make_site(config={"audit": {"url": "file:///dev/full"}})
    account = site.person()
    assert site.accounts.sign_in.start(account.username, PASSWORD).account.subject == account.subject
    assert "The audit log did not take an event SignedIn" in caplog.text


# -- many at once -------------------------------------------------------------------------------------------


def test_of_changes_and_resets_at_once_one_password_wins_and_it_is_what_was_acknowledged(shared):
    account, recovery = shared.person(), shared.accounts.recovery
    token = shared.reset_token(account)

    def change(password):
        shared.accounts.management.change_password(account.subject, PASSWORD, password)
        return password

    def reset(password):
        recovery.reset(token, password)
        return password

    def other():
        shared.users.update(account.subject, {"roles": frozenset([secrets.token_hex(4)])})
        shared.accounts.sign_in.start(account.username, PASSWORD)

    acts = []
    for number in range(5):
        acts += [
            lambda number=number: change(f"purple lantern gravel {number}"),
            lambda number=number: reset(f"yellow marble fountain {number}"),
            other,
        ]
    won = [outcome for outcome in winners(together(*acts)) if outcome is not None]
    assert len(won) == 1
    assert shared.knows(account, won[0])
    assert not shared.knows(account, PASSWORD)


# -- a process that is killed --------------------------------------------------------------------------------


class FileBox:
    """A mailer that keeps addresses in a file, for many processes."""

    def __init__(self, path):
        self._path = path

    def send(self, mail):
        with self._path.open("a") as file:
            file.write(f"{mail.to}\n")

    def sent(self):
        return self._path.read_text().split() if self._path.exists() else []


def change_passwords(folder, config, acknowledged):
    """In another process, until it is killed: sign in, change the password, add a letter, again and again."""
    users = open_users(f"sqlite:///{folder}/people.db")
    jam = Jam(config)
    accounts = Accounts(jam, users, mailer=FileBox(folder / "sent"))
    (account,), _ = users.list()
    present, following = PASSWORD, OTHER_PASSWORD
    if not accounts.passwords.check(account.password_hash, present).matches:
        present, following = following, present
    while True:
        handle = jam.sessions.create(account.subject)
        accounts.management.change_password(account.subject, present, following)
        present, following = following, present
        to = f"{secrets.token_hex(8)}@example.org"
        accounts.outbox.add("account_deleted", to=to, data={"username": "alice"})
        acknowledged.send((present, handle, to))


def test_what_was_acknowledged_to_somebody_is_so_after_the_process_was_killed(tmp_path, secret, hashed):
    limits = {"attempts_per_account": 10_000, "mails": 10_000}
    config = {
        "secret": secret, "store": f"sqlite:///{tmp_path}/store.db", "accounts": {"base_url": BASE_URL},
        "throttling": limits,
    }  # fmt: skip
    with contextlib.closing(open_users(f"sqlite:///{tmp_path}/people.db")) as users:
        account = users.create(username="alice", email="alice@example.org", password_hash=hashed)
        jam = Jam(config)
        jam.store.create_tables()
        accounts = Accounts(jam, users, mailer=FileBox(tmp_path / "sent"))
        context = multiprocessing.get_context("spawn")
        heard, told = [], context.Pipe(duplex=False)
        for _ in range(2):
            child = context.Process(target=change_passwords, args=(tmp_path, config, told[1]))
            child.start()
            try:
                for _ in range(3):
                    assert told[0].poll(PATIENCE)
                    heard.append(told[0].recv())
                time.sleep(secrets.randbelow(50) / 1000)
            finally:
                child.kill()
                child.join(PATIENCE)
            while told[0].poll(0):
                heard.append(told[0].recv())
            # one more change may have been under way
            known = [password for password in (PASSWORD, OTHER_PASSWORD) if _is_of(accounts, account, password)]
            assert len(known) == 1
        for _, handle, _ in heard:
            with pytest.raises(JamError):
                jam.sessions.verify(handle)
        accounts.outbox.wake()
        assert accounts.outbox.join(PATIENCE)
        still_claimed = {letter.to for letter in accounts.outbox.waiting()}
        assert {to for _, _, to in heard} <= set(FileBox(tmp_path / "sent").sent()) | still_claimed
        jam.store.close()


def _is_of(accounts, account, password):
    return accounts.passwords.check(accounts.users.get(account.subject).password_hash, password).matches


# -- a process that forks while its threads are busy ---------------------------------------------------------


def forked(act):
    """The id of a child that acts, and ends with 0 if it came to the end of it in time."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        signal.alarm(PATIENCE)  # rather than wait for ever
        act()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_children_of_a_busy_process_sign_in_and_send_mail(tmp_path, make_site):
    box = FileBox(tmp_path / "sent")
    limits = {"mails": 10_000, "mails_per_address": 10_000, "attempts_per_account": 10_000}
    config = {"throttling": limits, "audit": {"url": f"sqlite:///{tmp_path}/audit.db"}}
    with contextlib.closing(open_store(f"sqlite:///{tmp_path}/store.db")) as store:
        store.create_tables()
        site = make_site(config=config, store=store, mailer=box)
        forking, *busy = [site.person() for _ in range(3)]
        stop, failed = threading.Event(), []

        def use(account):
            site.accounts.sign_in.start(account.username, PASSWORD)
            site.accounts.recovery.forgot(account.username)

        def use_until_the_end(account):
            try:
                while not stop.is_set():
                    use(account)
            except JamError as error:
                failed.append(error)

        def use_and_wait():
            use(forking)
            assert site.accounts.outbox.join(PATIENCE)

        threads = [threading.Thread(target=use_until_the_end, args=(account,)) for account in busy]
        children = []
        for thread in threads:
            thread.start()
        try:
            for _ in range(6):
                time.sleep(0.02)  # each at another moment of what the threads do
                children.append(forked(use_and_wait))
        finally:
            codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
            stop.set()
            for thread in threads:
                thread.join(PATIENCE)
        assert site.accounts.outbox.join(PATIENCE)
        assert failed == []
        assert codes == [0] * 6
        assert box.sent().count(forking.email) == 6
        with contextlib.closing(site.accounts.audit) as audit:
            assert len(audit.search(event="SignedIn", subject=forking.subject)) == 6


# -- secrets ------------------------------------------------------------------------------------------------


class SullenMailbox(Mailbox):
    """Refuses mails with their text in the error, once it is told to."""

    is_sullen = False

    def send(self, mail):
        if self.is_sullen:
            raise RuntimeError(mail.text)
        super().send(mail)


def test_no_flow_leaves_a_password_or_token_in_a_log_an_error_an_event_the_store_or_the_audit_log(
    tmp_path, make_site, caplog
):
    caplog.set_level(logging.DEBUG)
    store = open_store(f"sqlite:///{tmp_path}/store.db")
    store.create_tables()
    box = SullenMailbox()
    site = make_site(store=store, config={"audit": {"url": f"file://{tmp_path}/audit.jsonl"}}, mailer=box)
    site.box = box
    jam, accounts, errors = site.jam, site.accounts, io.StringIO()

    def fail(act, *arguments):
        try:
            act(*arguments)
        except JamError:
            traceback.print_exc(file=errors)
        else:
            pytest.fail("it did not fail")

    def token():
        assert accounts.outbox.join(PATIENCE)
        return [found[1] for mail in box.mails if (found := re.search(r"token=(\S+)", mail.text))][-1]

    wrong, short = "mistyped donkey stapler", "short pw"
    register = site.registration_token("alice", "alice@example.org")
    account = accounts.registration.confirm(register, PASSWORD)
    fail(accounts.registration.confirm, register, PASSWORD)
    fail(accounts.sign_in.start, "alice", wrong)
    fail(accounts.sign_in.start, wrong, wrong)
    handle = jam.sessions.create(account.subject)
    api_token = jam.api_tokens.create(account.subject, "a script")
    fail(jam.api_tokens.verify, api_token[:-1])
    fail(accounts.management.change_password, account.subject, wrong, OTHER_PASSWORD)
    fail(accounts.management.change_password, account.subject, PASSWORD, short)
    renewed, _ = accounts.management.change_password(account.subject, PASSWORD, OTHER_PASSWORD, handle=handle)
    accounts.recovery.forgot(wrong)
    accounts.recovery.forgot("alice")
    reset = token()
    accounts.recovery.reset(reset, PASSWORD)
    fail(accounts.recovery.reset, reset, PASSWORD)
    accounts.emails.request_change(account.subject, "alice2@example.org")
    change = token()
    accounts.emails.confirm_change(change)
    box.is_sullen = True
    accounts.recovery.forgot("alice")
    accounts.registration.start("bob", "bob@example.org", OTHER_PASSWORD)
    assert accounts.outbox.join(PATIENCE)
    hashed = site.now(account).password_hash
    waiting = repr(accounts.outbox.waiting())
    accounts.management.delete(account.subject)
    store.close()

    kept = b"".join(path.read_bytes() for path in sorted(tmp_path.glob("store.db*"))).decode("latin-1")
    said = [caplog.text, errors.getvalue(), repr(site.heard), (tmp_path / "audit.jsonl").read_text(), waiting]
    given = [handle, renewed, register, reset, change]
    halves = [secret.partition(".")[2] for secret in given] + [api_token.rpartition("_")[2]]
    for secret in (PASSWORD, OTHER_PASSWORD, wrong, short, hashed, "$argon2id$", *halves):
        assert not any(secret in text for text in said)
    for secret in (PASSWORD, OTHER_PASSWORD, wrong, short, *halves):
        assert secret not in kept
