"""An app's accounts for the tests of the flows: real people, real stores, and a mailbox."""

import contextlib
import multiprocessing
import re
import secrets
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest

from jam import Jam
from jam.accounts.accounts import Accounts
from jam.accounts.sql_users import open_users
from jam.config import PasswordSettings
from jam.crypto.passwords import Passwords
from jam.errors import ConfigError, JamError
from tests.services import MYSQL, POSTGRESQL, fresh_database

PASSWORD = "correct horse battery"
OTHER_PASSWORD = "purple lantern gravel"
HERE = "203.0.113.5"
BASE_URL = "https://app.example"
PATIENCE = 60


class Mailbox:
    """A mailer that keeps what it is given."""

    def __init__(self):
        self.mails = []

    def send(self, mail):
        self.mails.append(mail)


class Site:
    """An app with accounts; what happens is in ``heard``.

    Its people are made without ceremony, with one hash for all of them: a hash takes longer than most tests.
    """

    def __init__(self, jam, users, hashed, **options):
        self.jam, self.users, self.box, self.heard = jam, users, Mailbox(), []
        self.accounts = Accounts(jam, users, **{"mailer": self.box, **options})
        self._hashed = hashed
        jam.events.subscribe(self.heard.append)

    def person(self, **changes):
        """Somebody new, who has PASSWORD."""
        name = f"alice-{secrets.token_hex(6)}"
        account = self.users.create(username=name, email=f"{name}@example.org", password_hash=self._hashed)
        return self.users.update(account.subject, {"email_verified": True, **changes})

    def now(self, account):
        """Somebody as they are now."""
        return self.users.get(account.subject)

    def mails(self):
        """What was sent so far."""
        assert self.accounts.outbox.join(PATIENCE)
        return self.box.mails

    def mail(self):
        """What was sent last."""
        return self.mails()[-1]

    def token(self):
        """That of the link in the last mail."""
        return re.search(r"[?&]token=(\S+)", self.mail().text)[1]

    def reset_token(self, account):
        self.accounts.recovery.forgot(account.email)
        return self.token()

    def change_token(self, account, email=None):
        self.accounts.emails.request_change(account.subject, email or f"new-{secrets.token_hex(4)}@example.org")
        return self.token()

    def registration_token(self, username=None, email=None, password=PASSWORD, **options):
        username = username or f"bob-{secrets.token_hex(6)}"
        self.accounts.registration.start(username, email or f"{username}@example.org", password, **options)
        return self.token()

    def session(self, account):
        return self.jam.sessions.create(account.subject)

    def knows(self, account, password):
        """Whether somebody can sign in with that password."""
        try:
            return self.accounts.sign_in.start(account.username, password).account.subject == account.subject
        except JamError:
            return False

    def close(self):
        with contextlib.suppress(ConfigError):  # then nothing was opened
            self.mails()

    def kinds(self, *kinds):
        """The events so far: their classes; or those of the given ones."""
        return [type(event) for event in self.heard if not kinds or isinstance(event, kinds)]


class Credentials:
    """One credential of every kind that a person can hold."""

    def __init__(self, site, account):
        jam, subject = site.jam, account.subject
        self.jam, self.subject = jam, subject
        remembered, family = jam.logins.remember(subject)
        self.held = {
            "session": jam.sessions.create(subject, family_id=family),
            "remember_me": remembered,
            "access_token": jam.access_tokens.issue(subject),
            "refresh_token": jam.refresh_tokens.issue(subject),
            "api_token": jam.api_tokens.create(subject, "a script"),
            "one_time_token": jam.one_time_tokens.issue("test", subject, lifetime=3600),
        }

    def living(self):
        """The kinds of those that are still good."""
        uses = {
            "session": self.jam.sessions.verify,
            "remember_me": self.jam.remember_me.verify,
            "access_token": self.jam.access_tokens.verify,
            "refresh_token": self.jam.refresh_tokens.verify,
            "api_token": self.jam.api_tokens.verify,
            "one_time_token": lambda token: self.jam.one_time_tokens.peek(token, "test"),
        }
        living = set()
        for kind, credential in self.held.items():
            with contextlib.suppress(JamError):
                uses[kind](credential)
                living.add(kind)
        return living


EVERYTHING = {"session", "remember_me", "access_token", "refresh_token", "api_token", "one_time_token"}


class Interrupted:
    """The same people; ``then`` happens once, just after somebody was looked up for the nth time."""

    def __init__(self, users):
        self._users, self.then, self.after = users, None, 1

    def __getattr__(self, name):
        return getattr(self._users, name)

    def _interrupted(self, account):
        if self.then is not None:
            self.after -= 1
            if self.after == 0:
                then, self.then = self.then, None
                then()
        return account

    def get(self, subject):
        return self._interrupted(self._users.get(subject))

    def find(self, name):
        return self._interrupted(self._users.find(name))


class WithoutVerification(Interrupted):
    """People of whom nobody can note that an address is theirs."""

    def __init__(self, users):
        super().__init__(users)
        self.changeable = users.changeable - {"email_verified"}


class Counting:
    """Something whose calls from this thread are in ``calls``, by name."""

    def __init__(self, counted):
        self._counted, self._thread, self.calls = counted, threading.get_ident(), []

    def __getattr__(self, name):
        found = getattr(self._counted, name)
        if not callable(found):
            return found

        def call(*arguments, **options):
            if threading.get_ident() == self._thread:
                self.calls.append(name)
            return found(*arguments, **options)

        return call


def refused(kind, act, *arguments, **options):
    """The error of exactly that kind that an act raises."""
    with pytest.raises(JamError) as caught:
        act(*arguments, **options)
    assert type(caught.value) is kind
    return caught.value


def together(*acts):
    """What the acts, begun at the same moment in as many threads, return or raise."""
    barrier = threading.Barrier(len(acts))

    def run(act):
        barrier.wait(PATIENCE)
        try:
            return act()
        except JamError as error:
            return error

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # with the usual 5 ms a store in memory is done before anybody else runs
    try:
        with ThreadPoolExecutor(len(acts)) as pool:
            return list(pool.map(run, acts))
    finally:
        sys.setswitchinterval(interval)


_barrier = []


def _remember(barrier):
    _barrier[:] = [barrier]


def _act_elsewhere(act, config, people_url, now, tokens):
    """In another process: what comes of each token, or why nothing does."""
    users = open_users(people_url)
    jam = Jam(config, clock=lambda: now)
    accounts = Accounts(jam, users, mailer=Mailbox())
    accounts.outbox, jam.store.marks("x", "", now), users.get("1")  # how they are opened is not what is raced for
    outcomes = []
    for token in tokens:
        _barrier[0].wait(PATIENCE)
        try:
            outcomes.append(act(accounts, token))
        except JamError as error:
            outcomes.append(type(error).__name__)
    accounts.outbox.join(PATIENCE)
    users.close()
    jam.store.close()
    return outcomes


def winners(outcomes):
    return [one for one in outcomes if not isinstance(one, JamError)]


@pytest.fixture(scope="session")
def hashed():
    """PASSWORD, as it is kept."""
    return Passwords(PasswordSettings()).hash(PASSWORD)


@pytest.fixture
def make_site(tmp_path, secret, clock, hashed):
    """Makes a ``Site``; sections of the configuration by name, all else as ``Accounts`` has it."""
    with contextlib.ExitStack() as made:

        def make(*, config=None, store=None, users=None, wrap=lambda users: users, **options):
            given = {"secret": secret, **(config or {})}
            given["accounts"] = {"base_url": BASE_URL, **given.get("accounts", {})}
            given["passwords"] = {"wait_for": PATIENCE, **given.get("passwords", {})}
            if users is None:
                users = open_users(f"sqlite:///{tmp_path}/people-{secrets.token_hex(4)}.db", clock=clock)
                made.callback(users.close)
            jam = Jam(given, store=store, clock=clock)
            site = Site(jam, wrap(users), hashed, **options)
            made.callback(site.close)
            return site

        yield make


@pytest.fixture
def site(make_site):
    """An app whose people are in SQLite and whose store is in memory."""
    return make_site()


@pytest.fixture(scope="module")
def people_url(engine_url, tmp_path_factory):
    """Where people are kept beside a store of each engine."""
    if engine_url.startswith("mysql"):
        yield from fresh_database("MariaDB", MYSQL)
    elif engine_url.startswith(("postgresql", "redis")):
        yield from fresh_database("PostgreSQL", POSTGRESQL)
    else:
        yield f"sqlite:///{tmp_path_factory.mktemp('people')}/people.db"


@pytest.fixture(scope="module")
def people(people_url):
    users = open_users(people_url)
    yield users
    users.close()


@pytest.fixture
def shared(make_site, engine_store, people):
    """An app on each engine. Its people share it with those of other tests, and have names of their own."""
    return make_site(store=engine_store, users=people)


@pytest.fixture
def in_processes(engine_url, engine_store, people_url, secret, clock):
    """What ``act(accounts, token)`` returns for each token in two processes of the shared app at once."""
    if not engine_store.shared:
        pytest.skip("no other process sees a store in memory")
    config = {
        "secret": secret, "store": engine_url, "accounts": {"base_url": BASE_URL}, "passwords": {"wait_for": PATIENCE},
    }  # fmt: skip

    def in_processes(act, tokens):
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(2, context, initializer=_remember, initargs=(context.Barrier(2),)) as pool:
            racing = [pool.submit(_act_elsewhere, act, config, people_url, clock.now, tokens) for _ in range(2)]
            return list(zip(*(future.result(PATIENCE) for future in racing), strict=True))

    return in_processes
