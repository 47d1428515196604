"""An app with accounts, its people, and the callers that they are."""

import base64
import functools
import re
import secrets

import pytest
from flask import Flask

from jam import Jam
from jam.accounts.accounts import Accounts
from jam.accounts.sql_users import open_users
from jam.config import PasswordSettings
from jam.crypto.passwords import Passwords
from jam.errors import BadCredentials
from jam.ext.flask.accounts import AccountsExtension
from tests.ext.flask.callers import bearer

PASSWORD = "correct horse battery"
OTHER_PASSWORD = "purple lantern gravel"
BASE_URL = "https://app.example"
PATIENCE = 30


def basic(name, password=PASSWORD):
    """The header of HTTP Basic."""
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


class Mailbox:
    """A mailer that keeps what it is given."""

    def __init__(self):
        self.mails = []

    def send(self, mail):
        self.mails.append(mail)


class CodeByMail:
    """A second step of signing in: a code, for who has the role ``careful``."""

    name = "code"

    def __init__(self):
        self.begun = []

    def applies(self, account):
        return "careful" in account.roles

    def begin(self, account, address):
        self.begun.append(account.subject)

    def check(self, account, answer):
        if answer.get("code") != "123456":
            raise BadCredentials("The code is wrong.")
        return ("otp",)


class Site:
    """An app with accounts. Its people are made without ceremony."""

    def __init__(self, jam, users, app=None, *, stages=(), set_up=None, config=None, **options):
        self.jam, self.users, self.hashed = jam, users, hashed()
        self.box = Mailbox()
        self.heard = []
        jam.events.subscribe(self.heard.append)
        self.app = app or Flask(__name__)
        self.app.config.update({"TESTING": True, "JAM_ACCOUNTS_BASE_URL": BASE_URL, **(config or {})})
        if set_up is not None:
            set_up(jam, self.app)
        self.accounts = Accounts(jam, users, mailer=self.box, stages=stages)
        self.extension = AccountsExtension(jam, self.app, accounts=self.accounts, **options)

    def person(self, name=None, **changes):
        """Somebody new, who has PASSWORD."""
        name = name or f"alice-{secrets.token_hex(6)}"
        with self.app.app_context():  # Flask-SQLAlchemy knows its database only there
            account = self.users.create(username=name, email=f"{name}@example.org", password_hash=self.hashed)
            return self.users.update(account.subject, {"email_verified": True, **changes})

    def now(self, account):
        """Somebody as they are now."""
        with self.app.app_context():
            return self.users.get(account.subject)

    def find(self, name):
        """Whoever goes by this name now."""
        with self.app.app_context():
            return self.users.find(name)

    def client(self):
        """A script, which keeps no cookies."""
        return self.app.test_client(use_cookies=False)

    def stranger(self):
        """A browser on the site's own pages."""
        browser = self.app.test_client()
        browser.environ_base = {**browser.environ_base, "HTTP_SEC_FETCH_SITE": "same-origin"}
        return browser

    def browser(self, account, **options):
        """A browser that is signed in."""
        browser = self.stranger()
        given = {"username": account.username, "password": PASSWORD, **options}
        answer = browser.post("/auth/sign-in", json=given)
        assert answer.status_code == 200, answer.text
        return browser

    def tokens(self, account, password=PASSWORD):
        """A fresh pair of tokens."""
        answer = self.client().post("/auth/api", json={"username": account.username, "password": password})
        assert answer.status_code == 200, answer.text
        return answer.json

    def fresh(self, account):
        """The header of a fresh access token."""
        return bearer(self.tokens(account)["access_token"])

    def held(self, account, **options):
        """The header of an access token that costs no password: it is not fresh."""
        options = {"roles": account.roles, "scopes": account.scopes, **options}
        return bearer(self.jam.access_tokens.issue(account.subject, **options))

    def api_token(self, account, **options):
        """The header of an API token."""
        return bearer(self.jam.api_tokens.create(account.subject, "a script", **options))

    def mails(self):
        """What was sent so far."""
        assert self.accounts.outbox.join(PATIENCE)
        return self.box.mails

    def token(self):
        """That of the link in the last mail."""
        return re.search(r"[?&]token=(\S+)", self.mails()[-1].text)[1]


@functools.cache
def hashed():
    """One hash of PASSWORD for everybody: hashing is slow."""
    return Passwords(PasswordSettings()).hash(PASSWORD)


def making_sites(tmp_path, secret, clock):
    """Yields what makes sites as a test wants them, and ends what they began: for a fixture."""
    made = []

    def make(*args, **options):
        users = options.pop("users", None) or open_users(f"sqlite:///{tmp_path}/{secrets.token_hex(4)}.sqlite3")
        jam = options.pop("jam", None) or Jam({"secret": secret}, clock=clock)
        site = Site(jam, users, *args, **options)
        made.append(site)
        return site

    yield make
    for site in made:
        site.accounts.outbox.join(PATIENCE)
        site.users.close()


@pytest.fixture
def new_site(tmp_path, secret, clock):
    yield from making_sites(tmp_path, secret, clock)


@pytest.fixture
def site(new_site):
    return new_site()


@pytest.fixture
def code():
    return CodeByMail()


@pytest.fixture
def alice(site):
    return site.person("alice")


@pytest.fixture
def bob(site):
    return site.person("bob")


@pytest.fixture
def client(site):
    return site.client()
