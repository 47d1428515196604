"""What a terminal is shown, whatever strangers wrote."""

import contextlib

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jam.accounts.audit import Entry
from tests.ext.flask.commands.at_a_shell import PASSWORD, is_harmless

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\n\u202egnp.exe\x7f"


@pytest.fixture
def hostile(users, jam, audit, clock, waiting, tmp_path):  # noqa: PLR0917 - fixtures
    """An account that somebody changed behind Jam's back, and what strangers wrote elsewhere."""
    users.create(username="mallory", email="m@example.com", password_hash=None)
    users.update("2", {"roles": frozenset((f"role{ESCAPES}",))})
    engine = sa.create_engine(f"sqlite:///{tmp_path}/people.sqlite3", poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        names = {"name": f"mallory{ESCAPES}", "email": f"m{ESCAPES}@example.com"}
        connection.execute(sa.text("UPDATE jam_users SET username = :name, email = :email WHERE id = 2"), names)
    jam.sessions.create("2", device={"user_agent": f"Firefox{ESCAPES}", "address": ESCAPES})
    audit.append(Entry(at=clock(), event=f"E{ESCAPES}", subject=ESCAPES, address=ESCAPES, details={ESCAPES: ESCAPES}))
    waiting(1, to=f"m{ESCAPES}@example.com")


@pytest.mark.parametrize(
    "command",
    [
        ("users", "list"),
        ("users", "show", "--id", "2"),
        ("users", "roles", "--id", "2"),
        ("users", "roles", "--id", "2", "--add", "x"),
        ("users", "send-reset", "--id", "2"),
        ("users", "deactivate", "--id", "2", "--yes"),
        ("users", "delete", "--id", "2", "--yes"),
        ("users", "delete", "--id", "2"),
        ("users", "export", "--id", "2"),
        ("users", "verify", "--id", "2"),
        ("users", "password", "--id", "2", "--password-stdin"),
        ("users", "email", "--id", "2", "new@example.com", "--yes"),
        ("users", "email", "--id", "2", "new@example.com"),
        ("users", "email", "--id", "2", ESCAPES),
        ("users", "email", ESCAPES, "new@example.com"),
        ("users", "show", "--id", ESCAPES),
        ("users", "show", ESCAPES),
        ("users", "list", ESCAPES),
        ("users", "list", f"--{ESCAPES}"),
        ("users", "list", "--limit", ESCAPES),
        ("users", ESCAPES),
        (ESCAPES,),
        ("sessions", "list", "--id", "2"),
        ("sessions", "revoke", "--id", ESCAPES, "--all"),
        ("tokens", "create", "--id", "2", "--name", "x", "--scope", ESCAPES),
        ("tokens", "revoke", "--id", ESCAPES, "--all"),
        ("tokens", "list", "--id", ESCAPES),
        ("audit",),
        ("mail", "list"),
        ("mail", "send"),
    ],
    ids=repr,
)
def test_asvs_16_4_1_nothing_that_strangers_wrote_reaches_the_terminal_raw(app, hostile, command):
    for options in (["--json"], []):
        done = app.test_cli_runner().invoke(args=["jam", *command, *options])
        assert done.exception is None or isinstance(done.exception, SystemExit)
        assert is_harmless(done.output)


def test_asvs_16_4_1_hostile_names_are_shown_written_out(run, shown, hostile):
    assert r"mallory\x1b]0;owned\x07" in run("users", "list").stdout
    assert shown("users", "list")[1]["username"] == f"mallory{ESCAPES}"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=80))
def test_asvs_16_4_1_no_user_agent_breaks_the_table(app, jam, text):
    jam.sessions.clear("3")
    with contextlib.suppress(ValueError):  # what no store keeps
        jam.sessions.create("3", device={"user_agent": text})
    done = app.test_cli_runner().invoke(args=["jam", "sessions", "list", "--id", "3"])
    assert done.exit_code == 0
    assert is_harmless(done.stdout)
    assert len(done.stdout.splitlines()) <= 3


def test_wide_letters_keep_the_columns(run, users, app):
    users.create(username="中文", email=None, password_hash=None)
    users.create(username="ab", email=None, password_hash=None)
    _, _, wide, narrow = run("users", "list").stdout.splitlines()
    assert wide.index("yes") == narrow.index("yes") - 2


def test_a_terminal_without_unicode_is_no_reason_to_fail(flask):
    flask("users", "create", "中文", "--password-stdin", sent=PASSWORD)
    said = flask("users", "roles", "中文", "--add", "x", PYTHONIOENCODING="ascii").stdout
    assert said == "\\u4e2d\\u6587: none \\u2192 x\n"
