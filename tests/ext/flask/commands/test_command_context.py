"""What the commands about people share: an app with accounts or without, and its store."""

import json
import subprocess
import sys
import textwrap

import pytest
from flask import Flask

from jam import Jam
from jam.credentials.api_tokens import is_api_token
from jam.ext.flask import SessionExtension
from jam.ext.flask.accounts import AccountsExtension
from jam.ext.flask.cli import jam_cli
from tests.ext.flask.callers import UNREACHABLE
from tests.ext.flask.commands.at_a_shell import PASSWORD, is_one_line


@pytest.fixture
def bare(new_app, jam, run):
    app = new_app()
    SessionExtension(jam, app)

    def call(*arguments, code=0):
        done = app.test_cli_runner().invoke(args=["jam", *arguments])
        assert done.exit_code == code, (done.output, done.exception)
        return done

    return call


@pytest.mark.parametrize(
    "arguments",
    [
        ("users", "list"),
        ("users", "create", "alice"),
        ("users", "show", "alice"),
        ("users", "deactivate", "alice"),
        ("audit",),
        ("mail", "list"),
        ("mail", "send"),
        ("sessions", "list", "alice"),
        ("tokens", "list", "alice"),
    ],
)
def test_an_app_without_accounts_is_told_what_to_set_up(bare, arguments):
    done = bare(*arguments, code=1)
    assert is_one_line(done.stderr)
    assert "AccountsExtension(jam, app, users=...)" in done.stderr


def test_sessions_and_tokens_of_a_subject_need_no_accounts(bare, jam):
    handle = jam.create_session("7")
    token = bare("tokens", "create", "--id", "7", "--name", "ci", "--scope", "read").stdout.strip()
    assert jam.api_tokens.verify(token).scopes == {"read"}
    assert "session" in bare("sessions", "list", "--id", "7").stdout
    assert "ci" in bare("tokens", "list", "--id", "7").stdout
    bare("sessions", "revoke", "--id", "7", "--all")
    assert jam.get_session(handle) is None
    assert jam.api_tokens.verify(token).subject == "7"


def test_an_app_without_jam_is_told_so():
    app = Flask("empty")
    app.cli.add_command(jam_cli)
    done = app.test_cli_runner().invoke(args=["jam", "sessions", "list", "--id", "7"])
    assert done.exit_code == 1
    assert is_one_line(done.stderr)


def test_an_app_without_accounts_imports_nothing_of_them(tmp_path, secret):
    program = f"""
        import sys
        from flask import Flask
        from jam import Jam
        from jam.ext.flask import SessionExtension
        app = Flask("small")
        app.config["SECRET_KEY"] = {secret!r}
        SessionExtension(Jam(), app)
        assert app.test_cli_runner().invoke(args=["jam", "routes"]).exit_code == 0
        print([name for name in sys.modules if name.startswith("jam.accounts") or "account" in name])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout == "[]\n"


def test_the_help_names_every_group(run):
    listed = run("--help").stdout
    for name in ("audit", "doctor", "keys", "mail", "purge", "routes", "sessions", "tokens", "users"):
        assert f"\n  {name} " in listed


def test_a_command_that_nobody_knows_is_wrong_usage(run):
    assert "No such command" in run("userz", code=2).stderr


@pytest.mark.parametrize(
    "arguments",
    [("sessions", "list", "--id", "7"), ("tokens", "list", "--id", "7"), ("mail", "list"), ("mail", "send")],
)
def test_a_store_of_one_process_is_refused_where_a_command_would_see_and_end_nothing(new_app, users, secret, arguments):
    app = new_app()
    AccountsExtension(Jam({"secret": secret}), app, users=users)
    done = app.test_cli_runner().invoke(args=["jam", *arguments])
    assert done.exit_code == 1
    assert "JAM_STORE" in done.stderr


def test_a_store_that_is_away_is_one_line(new_app, users, secret):
    app = new_app(JAM_STORE=UNREACHABLE)
    AccountsExtension(Jam({"secret": secret}), app, users=users)
    done = app.test_cli_runner().invoke(args=["jam", "sessions", "list", "--id", "7"])
    assert done.exit_code == 1
    assert is_one_line(done.stderr)


def test_the_commands_work_from_a_shell_one_after_the_other(flask):
    flask("users", "create", "alice", "--email", "alice@example.com", "--password-stdin", sent=f"{PASSWORD}\n")
    token = flask("tokens", "create", "alice", "--name", "ci").stdout
    assert is_api_token(token.strip())
    (listed,) = json.loads(flask("tokens", "list", "alice", "--json").stdout)
    assert listed["name"] == "ci"
    sent = flask("users", "send-reset", "alice@example.com")
    assert "https://app.example/auth/reset?token=" in sent.stderr  # where console:// sends it
    assert json.loads(flask("mail", "list", "--json").stdout) == []
    flask("users", "delete", "alice", code=1)  # nobody is there to say yes
    flask("users", "delete", "alice", "--yes")
    happened = [json.loads(line)["event"] for line in flask("audit", "--json").stdout.splitlines()]
    assert {"Registered", "APITokenCreated", "Deleted"} <= set(happened)
