"""An app with accounts, and an administrator at its shell."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

from jam import Jam
from jam.accounts.accounts import Accounts
from jam.accounts.outbox import Outbox
from jam.accounts.sql_audit import SQLAuditLog
from jam.accounts.sql_users import open_users
from jam.ext.flask.accounts import AccountsExtension
from tests.ext.flask.commands.at_a_shell import PASSWORD, PATIENCE, Post


@pytest.fixture
def post():
    return Post()


@pytest.fixture
def jam(secret, clock, tmp_path):
    jam = Jam({"secret": secret, "store": f"sqlite:///{tmp_path}/jam.sqlite3"}, clock=clock)
    yield jam
    jam.store.close()


@pytest.fixture
def users(tmp_path, clock):
    return open_users(f"sqlite:///{tmp_path}/people.sqlite3", clock=clock)


@pytest.fixture
def audit(tmp_path):
    log = SQLAuditLog(f"sqlite:///{tmp_path}/audit.sqlite3")
    yield log
    log.close()


@pytest.fixture
def flows(jam, users, post, audit):
    flows = Accounts(jam, users, mailer=post, audit=audit)
    yield flows
    flows.outbox.join(PATIENCE)


@pytest.fixture
def app(new_app, jam, flows):
    app = new_app(JAM_ACCOUNTS_BASE_URL="https://app.example")
    AccountsExtension(jam, app, accounts=flows)
    return app


@pytest.fixture
def alice(flows, app):
    return flows.registration.create("alice", "alice@example.com", PASSWORD)


@pytest.fixture
def run(app):
    def call(*arguments, sent=None, code=0):
        done = app.test_cli_runner().invoke(args=["jam", *arguments], input=sent)
        assert done.exit_code == code, (done.output, done.exception)
        assert done.exception is None or isinstance(done.exception, SystemExit)
        return done

    return call


@pytest.fixture
def shown(run):
    def call(*arguments):
        return json.loads(run(*arguments, "--json").stdout)

    return call


@pytest.fixture
def waiting(jam, app, flows, alice, post):
    """Puts letters into the outbox that the thread of nobody sends."""
    outbox = Outbox(jam.store, post, lambda letter: None, clock=jam.clock, events=jam.events, background=False)

    def add(number, template="password_changed", to="alice@example.com"):
        for _ in range(number):
            outbox.add(template, to=to, subject="1", data={"username": "alice", "secret_of_mine": "s3cret"})

    return add


PROGRAM = """
from flask import Flask
from jam import Jam
from jam.accounts.sql_users import open_users
from jam.ext.flask.accounts import AccountsExtension

def create_app():
    app = Flask(__name__)
    app.config.from_prefixed_env()
    AccountsExtension(Jam(), app, users=open_users("sqlite:///people.sqlite3"))
    return app
"""


@pytest.fixture
def shell(tmp_path, secret):
    (tmp_path / "shop.py").write_text(textwrap.dedent(PROGRAM))
    environment = {
        **os.environ,
        "FLASK_SECRET_KEY": secret,
        "FLASK_JAM_STORE": "sqlite:///jam.sqlite3",
        "FLASK_JAM_AUDIT_URL": "sqlite:///audit.sqlite3",
        "FLASK_JAM_MAIL_URL": "console://",
        "FLASK_JAM_ACCOUNTS_BASE_URL": "https://app.example",
    }
    command = [sys.executable, "-W", "error", "-m", "flask", "--app", "shop", "jam"]
    return {"cwd": tmp_path, "env": environment}, command


@pytest.fixture
def flask(shell):
    places, command = shell

    def call(*arguments, sent="", code=0, **environment):
        done = subprocess.run(
            [*command, *arguments], cwd=places["cwd"], env={**places["env"], **environment}, input=sent,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return call
