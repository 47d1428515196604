"""``flask jam users``, ``sessions``, ``tokens``, ``audit`` and ``mail``: an administrator at a shell."""

import contextlib
import json
import os
import pty
import select
import subprocess
import sys
import textwrap
import time

import pytest
import sqlalchemy as sa
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jam import Jam
from jam.accounts.accounts import Accounts
from jam.accounts.audit import Entry
from jam.accounts.mail import MailNotSent
from jam.accounts.outbox import Outbox
from jam.accounts.sql_audit import SQLAuditLog
from jam.accounts.sql_users import SQLUsers, open_users
from jam.credentials.api_tokens import is_api_token
from jam.errors import BadCredentials, CredentialError
from jam.events import Deactivated, Deleted, PasswordChanged, Reactivated, Registered, RolesChanged
from jam.ext.flask import JWTExtension, SessionExtension
from jam.ext.flask.account_commands import MAILS, PAGE
from jam.ext.flask.accounts import AccountsExtension
from jam.ext.flask.cli import jam_cli
from tests.ext.flask.callers import UNREACHABLE

PASSWORD = "correct horse battery staple"
PATIENCE = 30
ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\n\u202egnp.exe\x7f"


class Post:
    """A mailer that keeps what it is given, unless it is told to fail."""

    def __init__(self):
        self.mails, self.failure = [], None

    def send(self, mail):
        if self.failure is not None:
            raise self.failure
        self.mails.append(mail)


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


def is_one_line(text):
    return text.startswith("Error: ") and text.endswith("\n") and text.count("\n") == 1


def is_harmless(text):
    """Nothing in it that a terminal would do, instead of show."""
    return all(one.isprintable() or one == "\n" for one in text)


def events(jam, kind):
    heard = []
    jam.events.subscribe(lambda event: heard.append(event) if isinstance(event, kind) else None)
    return heard


# -- an app without accounts --------------------------------------------------------------------------------


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


# -- who ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [["alice"], ["ALICE"], ["alice@example.com"], ["Alice@Example.com"], ["--id", "1"]])
def test_people_are_named_by_user_name_address_or_subject(shown, alice, named):
    assert shown("users", "show", *named)["username"] == "alice"


@pytest.mark.parametrize("named", [[], ["alice", "--id", "1"], [""], ["--id", ""]])
@pytest.mark.parametrize("command", [["users", "show"], ["sessions", "list"], ["tokens", "revoke", "--all", "--yes"]])
def test_naming_nobody_or_twice_is_wrong_usage(run, alice, command, named):
    assert "Name one person" in run(*command, *named, code=2).stderr


@pytest.mark.parametrize("named", [["bob"], ["bob@example.com"], ["--id", "99"], ["--id", "x"], ["b" * 5000]])
def test_somebody_who_is_not_there_is_one_line_and_1(run, alice, named):
    done = run("users", "show", *named, code=1)
    assert is_one_line(done.stderr)
    assert "flask jam users list" in done.stderr


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_characters="\0"), max_size=40))
@pytest.mark.parametrize("command", [["users", "show"], ["users", "delete", "--yes"], ["tokens", "list"]])
def test_no_name_breaks_a_command(app, command, text):
    for named in (["--", text], [f"--id={text}"]):
        done = app.test_cli_runner().invoke(args=["jam", *command, *named])
        assert done.exit_code in (0, 1, 2)
        assert done.exception is None or isinstance(done.exception, SystemExit)
        assert is_harmless(done.output)


# -- users create -------------------------------------------------------------------------------------------


def test_a_user_is_made_with_a_password_from_stdin(run, flows, app):
    made = run("users", "create", "alice", "--email", "alice@example.com", "--password-stdin", sent=f"{PASSWORD}\n")
    assert "alice@example.com" in made.stdout
    assert flows.sign_in.start("alice", PASSWORD).account.subject == "1"


def test_the_first_administrator_is_made_with_their_roles(run, flows, jam):
    heard = events(jam, (Registered, RolesChanged))
    run("users", "create", "root", "--role", "admin", "--role", "editor", "--password-stdin", sent=PASSWORD)
    assert flows.users.find("root").roles == {"admin", "editor"}
    assert [type(event) for event in heard] == [Registered, RolesChanged]


@pytest.mark.parametrize("sent", [PASSWORD, f"{PASSWORD}\n", f"{PASSWORD}\r\n"])
def test_the_end_of_its_line_is_no_part_of_a_password(run, flows, sent):
    run("users", "create", "alice", "--password-stdin", sent=sent.encode())
    assert flows.sign_in.start("alice", PASSWORD).account.subject == "1"


def test_spaces_around_a_password_are_part_of_it(run, flows):
    run("users", "create", "alice", "--password-stdin", sent=f" {PASSWORD} \n")
    with pytest.raises(BadCredentials):
        flows.sign_in.start("alice", PASSWORD)
    assert flows.sign_in.start("alice", f" {PASSWORD} ").account.subject == "1"


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"", "empty"),
        (b"short\n", "15"),
        (b"\xff" * 20, "UTF-8"),
        (f"{PASSWORD}\nsecond line\n".encode(), "one line"),
        (b"x" * 20_000, "longer than any"),
    ],
)
def test_asvs_6_2_1_what_is_no_good_password_makes_no_account(run, users, sent, why):
    done = run("users", "create", "alice", "--password-stdin", sent=sent, code=1)
    assert is_one_line(done.stderr)
    assert why in done.stderr
    assert users.find("alice") is None


def test_asvs_14_2_1_no_option_takes_a_password(run):
    for option in ("--password", "--password=", "-p"):
        assert run("users", "create", "alice", option, PASSWORD, code=2)
    assert run("users", "create", "alice", PASSWORD, code=2)


def test_without_a_terminal_no_password_is_asked_for(run, users):
    done = run("users", "create", "alice", sent=f"{PASSWORD}\n{PASSWORD}\n", code=2)
    assert "--password-stdin" in done.stderr
    assert users.find("alice") is None


def test_a_name_that_is_taken_is_refused_before_a_password_is_asked_for(run, alice):
    done = run("users", "create", "Alice", code=1)
    assert is_one_line(done.stderr)
    assert "password" not in done.stderr.lower()


@pytest.mark.parametrize("name", ["", "a@b", "al ice", "аlice", "a" * 65])
def test_a_name_that_nobody_may_have_is_one_line(run, name):
    assert is_one_line(run("users", "create", name, "--password-stdin", sent=PASSWORD, code=1).stderr)


def test_an_address_that_is_none_is_one_line(run, users):
    done = run("users", "create", "alice", "--email", "nonsense", "--password-stdin", sent=PASSWORD, code=1)
    assert is_one_line(done.stderr)
    assert users.find("alice") is None


def test_asvs_6_4_1_an_invited_person_sets_a_password_by_a_link(run, flows, post, shown):
    run("users", "create", "bob", "--email", "bob@example.com", "--invite", "--role", "editor")
    assert shown("users", "show", "bob")["has_password"] is False
    (mail,) = post.mails
    assert mail.to == "bob@example.com"
    token = mail.text.split("token=")[1].split()[0]
    flows.recovery.reset(token, PASSWORD)
    assert flows.sign_in.start("bob", PASSWORD).account.roles == {"editor"}


def test_an_invitation_shows_no_link(run, post):
    done = run("users", "create", "bob", "--email", "bob@example.com", "--invite")
    token = post.mails[0].text.split("token=")[1].split()[0]
    assert token not in done.output


@pytest.mark.parametrize(
    "options",
    [["--invite"], ["--invite", "--email", "bob@example.com", "--password-stdin"], ["--role", ""], ["--role", "a\x1b"]],
)
def test_what_makes_no_sense_together_is_wrong_usage(run, users, options):
    run("users", "create", "bob", *options, sent=PASSWORD, code=2)
    assert users.find("bob") is None


def test_nobody_is_invited_where_no_mail_can_be_sent(new_app, jam, users):
    app = new_app()
    AccountsExtension(jam, app, users=users)
    arguments = ["jam", "users", "create", "bob", "--email", "bob@example.com", "--invite"]
    done = app.test_cli_runner().invoke(args=arguments)
    assert done.exit_code == 1
    assert "mail.url" in done.stderr
    assert users.find("bob") is None


def test_an_account_whose_invitation_failed_is_there_and_that_is_said(run, users, post):
    post.failure = MailNotSent(permanent=True)
    done = run("users", "create", "bob", "--email", "bob@example.com", "--invite", code=1)
    assert is_one_line(done.stderr)
    assert "was made, but" in done.stderr
    assert users.find("bob") is not None


def test_a_new_user_is_json_for_machines(run):
    made = json.loads(run("users", "create", "alice", "--password-stdin", "--json", sent=PASSWORD).stdout)
    assert (made["id"], made["username"], made["has_password"]) == ("1", "alice", True)


def test_a_model_without_roles_gets_no_user_that_was_meant_to_have_some(new_app, jam, tmp_path):
    app = new_app()
    users = people_without_roles(tmp_path)
    AccountsExtension(jam, app, users=users)
    arguments = ["jam", "users", "create", "bob", "--role", "admin", "--password-stdin"]
    done = app.test_cli_runner().invoke(args=arguments, input=PASSWORD)
    assert done.exit_code == 1
    assert is_one_line(done.stderr)
    assert users.find("bob") is None


def people_without_roles(tmp_path):
    base = sa.orm.declarative_base()

    class User(base):
        __tablename__ = "people"
        id = sa.Column(sa.Integer, primary_key=True)
        username = sa.Column(sa.String(64), unique=True, nullable=False)
        email = sa.Column(sa.String(254), unique=True)
        password_hash = sa.Column(sa.String(255))

    engine = sa.create_engine(f"sqlite:///{tmp_path}/other.sqlite3", poolclass=sa.pool.NullPool)
    base.metadata.create_all(engine)
    return SQLUsers(User, engine)


# -- users list, show, export -------------------------------------------------------------------------------


def test_users_are_listed_in_a_table(run, alice, flows):
    flows.management.set_roles("1", ["admin"])
    head, rule, first = run("users", "list").stdout.splitlines()
    assert head.split() == ["Id", "User", "name", "E-mail", "Active", "Roles", "Created"]
    assert set(rule) == {"-", " "}
    assert first.split() == ["1", "alice", "alice@example.com", "yes", "admin", "2027-01-15T08:00:00Z"]


def test_users_are_listed_in_pages(run, shown, users, app):
    for number in range(5):
        users.create(username=f"user{number}", email=None, password_hash=None)
    assert [one["id"] for one in shown("users", "list", "--limit", "2", "--offset", "1")] == ["2", "3"]
    assert "2 of 5 people; --offset 3" in run("users", "list", "--limit", "2", "--offset", "1").stderr
    assert run("users", "list", "--limit", "9").stderr == ""
    assert shown("users", "list", "--offset", "9") == []


def test_more_users_than_one_page_are_listed(shown, users, tmp_path, app):
    users.create(username="first", email=None, password_hash=None)
    engine = sa.create_engine(f"sqlite:///{tmp_path}/people.sqlite3", poolclass=sa.pool.NullPool)
    table = sa.Table("jam_users", sa.MetaData(), autoload_with=engine)
    with engine.begin() as connection:
        row = dict(connection.execute(table.select()).mappings().one())
        rows = [
            {**row, "id": number, "username": f"user{number}", "username_key": f"user{number}"}
            for number in range(2, PAGE + 11)
        ]
        connection.execute(table.insert(), rows)
    assert len(shown("users", "list", "--limit", str(10 * PAGE))) == PAGE + 10
    assert len(shown("users", "list", "--limit", str(PAGE + 5))) == PAGE + 5


@pytest.mark.parametrize("command", [("show", "alice"), ("list",), ("export", "alice")])
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_asvs_16_2_5_no_password_hash_is_shown(run, alice, command, options):
    done = run("users", *command, *(() if command[0] == "export" else options))
    assert "argon2" not in done.output
    assert alice.password_hash not in done.output


def test_a_user_is_shown_line_by_line(run, alice):
    said = run("users", "show", "alice").stdout
    assert "E-mail:    alice@example.com (not verified)" in said
    assert "Password:  set" in said
    assert "Roles:     none" in said


def test_an_export_is_what_is_kept_about_a_person(run, alice, jam, flows):
    flows.sign_in.start("alice", PASSWORD)
    jam.create_session(alice.subject)
    jam.api_tokens.create(alice.subject, "ci")
    exported = json.loads(run("users", "export", "alice").stdout)
    assert exported["account"]["email"] == "alice@example.com"
    assert len(exported["logins"]) == len(exported["api_tokens"]) == 1
    assert "SignedIn" in {event["event"] for event in exported["events"]}


# -- users deactivate, reactivate, delete -------------------------------------------------------------------


def test_asvs_7_4_2_who_is_deactivated_loses_everything_at_once(run, alice, jam, flows):
    handle, token = jam.create_session("1"), jam.api_tokens.create("1", "ci")
    heard = events(jam, Deactivated)
    run("users", "deactivate", "alice", "--yes")
    assert jam.get_session(handle) is None
    with pytest.raises(CredentialError):
        jam.api_tokens.verify(token)
    with pytest.raises(BadCredentials):
        flows.sign_in.start("alice", PASSWORD)
    assert [event.subject for event in heard] == ["1"]


def test_who_is_reactivated_may_sign_in_again(run, alice, flows, jam):
    flows.management.deactivate("1")
    heard = events(jam, Reactivated)
    run("users", "reactivate", "alice")
    assert flows.sign_in.start("alice", PASSWORD).account.subject == "1"
    assert len(heard) == 1


def test_reactivating_who_is_active_signs_nobody_out(run, alice, jam):
    handle = jam.create_session("1")
    assert "is active" in run("users", "reactivate", "alice").stdout
    assert jam.get_session(handle) is not None


def test_who_is_deleted_is_gone_and_told(run, alice, jam, users, post):
    handle = jam.create_session("1")
    heard = events(jam, Deleted)
    run("users", "delete", "alice", "--yes")
    assert users.find("alice") is None
    assert jam.get_session(handle) is None
    assert [mail.to for mail in post.mails] == ["alice@example.com"]
    assert [event.subject for event in heard] == ["1"]


@pytest.mark.parametrize("command", ["delete", "deactivate"])
@pytest.mark.parametrize("answer", ["n\n", "\n", "", "maybe\n"])
def test_what_cannot_be_undone_is_not_done_without_a_yes(run, alice, users, command, answer):
    done = run("users", command, "alice", sent=answer, code=1)
    assert "alice (id 1)" in done.stderr
    assert users.find("alice").is_active


@pytest.mark.parametrize("command", ["delete", "deactivate"])
def test_a_yes_does_it(run, alice, users, command):
    run("users", command, "alice", sent="y\n")
    account = users.find("alice")
    assert account is None or not account.is_active


def test_a_store_of_one_process_is_warned_of_when_an_account_ends(new_app, users, secret):
    app = new_app()
    AccountsExtension(Jam({"secret": secret}), app, users=users)
    users.create(username="alice", email=None, password_hash=None)
    done = app.test_cli_runner().invoke(args=["jam", "users", "deactivate", "alice", "--yes"])
    assert done.exit_code == 0
    assert "each process's own" in done.stderr


# -- users roles --------------------------------------------------------------------------------------------


def test_roles_are_added_and_removed_and_both_states_are_shown(run, alice, flows, users):
    flows.management.set_roles("1", ["editor"])
    done = run("users", "roles", "alice", "--add", "admin", "--add", "author", "--remove", "editor")
    assert done.stdout == "alice: editor → admin, author\n"
    assert users.get("1").roles == {"admin", "author"}


def test_roles_are_set(run, alice, flows, users):
    flows.management.set_roles("1", ["editor"])
    assert run("users", "roles", "alice", "--set", "author").stdout == "alice: editor → author\n"
    assert run("users", "roles", "alice", "--remove", "author").stdout == "alice: author → none\n"
    assert users.get("1").roles == frozenset()


def test_roles_are_shown_where_nothing_is_to_change(run, alice, shown):
    assert run("users", "roles", "alice").stdout == "alice: none\n"
    assert shown("users", "roles", "alice") == {"id": "1", "before": [], "after": []}


def test_roles_that_somebody_has_already_are_no_change(run, alice, flows, jam):
    flows.management.set_roles("1", ["editor"])
    heard = events(jam, RolesChanged)
    assert run("users", "roles", "alice", "--add", "editor").stdout == "alice: editor → editor\n"
    assert heard == []


@pytest.mark.parametrize(
    "options",
    [["--set", "a", "--add", "b"], ["--set", "a", "--remove", "b"], ["--add", "a", "--remove", "a"], ["--add", ""]],
)
def test_roles_that_contradict_each_other_are_wrong_usage(run, alice, users, options):
    run("users", "roles", "alice", *options, code=2)
    assert users.get("1").roles == frozenset()


def test_a_model_without_roles_is_one_line(new_app, jam, tmp_path):
    app = new_app()
    users = people_without_roles(tmp_path)
    AccountsExtension(jam, app, users=users)
    users.create(username="bob", email=None, password_hash=None)
    done = app.test_cli_runner().invoke(args=["jam", "users", "roles", "bob", "--add", "admin"])
    assert done.exit_code == 1
    assert is_one_line(done.stderr)


# -- users send-reset ---------------------------------------------------------------------------------------


def test_asvs_6_4_6_an_administrator_starts_a_reset_and_does_not_choose_the_password(run, alice, flows, post, jam):
    heard = events(jam, PasswordChanged)
    done = run("users", "send-reset", "alice")
    assert heard == []
    (mail,) = post.mails
    token = mail.text.split("token=")[1].split()[0]
    assert token not in done.output
    flows.recovery.reset(token, "another horse battery staple")
    assert flows.sign_in.start("alice", "another horse battery staple").account.subject == "1"


def test_asvs_6_4_6_no_command_sets_a_password_of_an_account_that_is_there(run, alice):
    for command in ("roles", "show", "send-reset", "reactivate"):
        assert "password" not in run("users", command, "--help").stdout.partition("Options:")[2].lower()


def test_a_reset_is_sent_by_subject_too(run, alice, post):
    run("users", "send-reset", "--id", "1")
    assert [mail.to for mail in post.mails] == ["alice@example.com"]


def test_no_reset_is_sent_to_who_has_no_address_or_is_deactivated(run, alice, flows, post):
    flows.registration.create("bob", None, PASSWORD)
    assert "no e-mail address" in run("users", "send-reset", "bob", code=1).stderr
    flows.management.deactivate("1")
    assert "deactivated" in run("users", "send-reset", "alice", code=1).stderr
    assert post.mails == []


def test_no_reset_is_sent_where_somebodys_name_is_another_ones_address(new_app, jam, tmp_path, post):
    users = people_without_roles(tmp_path)
    app = new_app(JAM_ACCOUNTS_BASE_URL="https://app.example")
    AccountsExtension(jam, app, accounts=Accounts(jam, users, mailer=post))
    users.create(username="alice@example.com", email="mallory@example.com", password_hash=None)
    users.create(username="alice", email="alice@example.com", password_hash=None)
    done = app.test_cli_runner().invoke(args=["jam", "users", "send-reset", "--id", "1"])
    assert done.exit_code == 1
    assert post.mails == []


def test_a_reset_that_cannot_leave_now_waits_and_that_is_said(run, alice, post):
    post.failure = MailNotSent()
    assert "flask jam mail send" in run("users", "send-reset", "alice").stderr


def test_a_reset_that_will_never_leave_is_an_error(run, alice, post):
    post.failure = MailNotSent(permanent=True)
    assert is_one_line(run("users", "send-reset", "alice", code=1).stderr)


def test_asvs_6_3_1_an_administrator_floods_no_mailbox_either(run, alice, jam, post):
    for _ in range(jam.settings.throttling.mails):
        run("users", "send-reset", "alice")
    assert is_one_line(run("users", "send-reset", "alice", code=1).stderr)
    assert len(post.mails) == jam.settings.throttling.mails


# -- sessions -----------------------------------------------------------------------------------------------


def test_sessions_show_browsers_remembered_ones_and_refresh_tokens(shown, run, alice, jam):
    jam.sessions.create("1", device={"user_agent": "Firefox", "address": "192.0.2.7"})
    jam.logins.remember("1", device={"user_agent": "Safari"})
    jam.refresh_tokens.issue("1")
    found = shown("sessions", "list", "alice")
    assert {(one["kind"], one["device"].get("user_agent")) for one in found} == {
        ("session", "Firefox"),
        ("remembered", "Safari"),
        ("refresh token", None),
    }
    said = run("sessions", "list", "alice").stdout
    assert "Firefox" in said
    assert "192.0.2.7" in said
    assert "2027-01-15T08:00:00Z" in said


def test_asvs_16_2_5_a_list_of_sessions_shows_nothing_to_sign_in_with(run, alice, jam):
    handle, refresh = jam.create_session("1"), jam.refresh_tokens.issue("1")
    said = run("sessions", "list", "alice").stdout + run("sessions", "list", "alice", "--json").stdout
    assert handle not in said
    assert refresh not in said


def test_one_session_is_revoked_by_its_id(run, shown, alice, jam):
    first, second = jam.create_session("1"), jam.create_session("1")
    one = jam.sessions.get(first).login_id
    assert run("sessions", "revoke", "alice", "--session-id", one).stdout == "1 session revoked.\n"
    assert jam.get_session(first) is None
    assert jam.get_session(second) is not None


def test_a_remembered_browser_is_revoked_by_its_id(run, shown, alice, jam):
    token, _ = jam.logins.remember("1")
    run("sessions", "revoke", "alice", "--session-id", shown("sessions", "list", "alice")[0]["id"])
    with pytest.raises(CredentialError):
        jam.remember_me.verify(token)


def test_a_refresh_token_is_revoked_by_its_id(run, shown, alice, jam):
    token = jam.refresh_tokens.issue("1")
    done = run("sessions", "revoke", "alice", "--session-id", shown("sessions", "list", "alice")[0]["id"])
    assert "access token" in done.stderr
    with pytest.raises(CredentialError):
        jam.refresh_tokens.verify(token)


@pytest.mark.parametrize("session_id", ["x", "", "../..", "\x1b[2J", "é" * 400])
def test_a_session_that_is_not_there_is_one_line(run, alice, session_id):
    assert is_one_line(run("sessions", "revoke", "alice", "--session-id", session_id, code=1).stderr)


def test_somebody_elses_session_is_not_revoked(run, alice, jam):
    handle = jam.create_session("2")
    run("sessions", "revoke", "alice", "--session-id", jam.sessions.get(handle).login_id, code=1)
    assert jam.get_session(handle) is not None


def test_asvs_7_4_5_all_sessions_of_somebody_end_and_their_api_tokens_stay(run, alice, jam):
    handle, other = jam.create_session("1"), jam.create_session("2")
    remembered, refresh, access = (
        jam.logins.remember("1")[0],
        jam.refresh_tokens.issue("1"),
        jam.access_tokens.issue("1"),
    )
    script = jam.api_tokens.create("1", "ci")
    run("sessions", "revoke", "alice", "--all")
    assert jam.get_session(handle) is None
    for tokens, token in ((jam.remember_me, remembered), (jam.refresh_tokens, refresh), (jam.access_tokens, access)):
        with pytest.raises(CredentialError):
            tokens.verify(token)
    assert jam.api_tokens.verify(script).subject == "1"
    assert jam.get_session(other) is not None


def test_asvs_7_4_5_everyone_is_signed_out_after_a_yes(run, alice, jam):
    handles = [jam.create_session(subject) for subject in ("1", "2")]
    run("sessions", "revoke", "--everyone", sent="n\n", code=1)
    run("sessions", "revoke", "--everyone", sent="", code=1)
    assert all(jam.get_session(handle) is not None for handle in handles)
    run("sessions", "revoke", "--everyone", sent="y\n")
    assert all(jam.get_session(handle) is None for handle in handles)


def test_the_sessions_of_who_is_gone_are_revoked_by_subject(run, app, jam):
    handle = jam.create_session("99")
    run("sessions", "revoke", "--id", "99", "--all")
    assert jam.get_session(handle) is None


def test_stateless_access_tokens_are_not_said_to_have_ended(new_app, secret, tmp_path):
    app = new_app()
    jam = Jam({"secret": secret, "store": f"sqlite:///{tmp_path}/jam.sqlite3", "access_tokens": {"stateless": True}})
    JWTExtension(jam, app)
    done = app.test_cli_runner().invoke(args=["jam", "sessions", "revoke", "--id", "1", "--all"])
    assert "stateless" in done.stderr
    jam.store.close()


@pytest.mark.parametrize("group", ["sessions", "tokens"])
@pytest.mark.parametrize(
    "options", [["alice"], ["alice", "--everyone"], ["--everyone", "--all"], ["alice", "--all", "--everyone"], []]
)
def test_a_revocation_that_says_too_little_or_too_much_revokes_nothing(run, alice, jam, group, options):
    handle, token = jam.create_session("1"), jam.api_tokens.create("1", "ci")
    run(group, "revoke", *options, "--yes", code=2)
    assert jam.get_session(handle) is not None
    assert jam.api_tokens.verify(token).subject == "1"


# -- API tokens ---------------------------------------------------------------------------------------------


@pytest.fixture
def scoped(alice, users):
    return users.update("1", {"scopes": frozenset(("read", "write")), "roles": frozenset(("editor",))})


def test_a_new_token_is_all_that_goes_to_stdout(run, scoped, jam):
    done = run("tokens", "create", "alice", "--name", "ci", "--scope", "read", "--role", "editor", "--days", "7")
    token = done.stdout.removesuffix("\n")
    assert is_api_token(token)
    assert token not in done.stderr
    proved = jam.api_tokens.verify(token)
    assert (proved.subject, proved.scopes, proved.roles) == ("1", {"read"}, {"editor"})
    assert proved.expires_at == jam.clock() + 7 * 86400


def test_asvs_6_5_2_a_token_is_shown_once(run, scoped):
    token = run("tokens", "create", "alice", "--name", "ci").stdout.strip()
    listed = run("tokens", "list", "alice").output + run("tokens", "list", "alice", "--json").output
    assert token not in listed
    assert token.rpartition("_")[2] not in listed


def test_a_token_that_was_asked_for_without_scopes_has_none(run, scoped, jam):
    token = run("tokens", "create", "alice", "--name", "ci").stdout.strip()
    assert jam.api_tokens.verify(token).scopes == jam.api_tokens.verify(token).roles == frozenset()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--name", "ci", "--scope", "users:write"], 1),
        (["--name", "ci", "--role", "admin"], 1),
        (["--name", "ci", "--days", "3000"], 1),
        (["--name", "\x1b[2J"], 1),
        (["--name", "ci", "--days", "0"], 2),
        (["--name", "ci", "--days", "many"], 2),
        ([], 2),
    ],
)
def test_asvs_8_2_1_a_token_is_no_wider_than_its_owner_and_no_longer_than_the_limit(run, scoped, jam, options, code):
    done = run("tokens", "create", "alice", *options, code=code)
    assert done.stdout == ""
    assert code == 2 or is_one_line(done.stderr)
    assert jam.api_tokens.list("1") == []


def test_who_is_deactivated_or_unknown_gets_no_token(run, alice, flows):
    flows.management.deactivate("1")
    assert "Reactivate" in run("tokens", "create", "alice", "--name", "ci", code=1).stderr
    assert "no such user" in run("tokens", "create", "--id", "99", "--name", "ci", code=1).stderr


def test_tokens_are_listed(run, shown, scoped, jam, clock):
    token = jam.api_tokens.create("1", "ci", scopes=["write", "read"])
    jam.api_tokens.create("1", "backup")
    clock.move(3600)
    jam.api_tokens.verify(token)
    by_name = {one["name"]: one for one in shown("tokens", "list", "alice")}
    assert by_name["ci"]["scopes"] == ["read", "write"]
    assert by_name["ci"]["last_used_at"] == "2027-01-15T09:00:00Z"
    assert by_name["backup"]["last_used_at"] is None
    said = run("tokens", "list", "alice").stdout
    assert "read write" in said
    assert "never" in said


def test_one_token_is_revoked_by_its_id(run, alice, jam):
    token, other = jam.api_tokens.create("1", "ci"), jam.api_tokens.create("1", "backup")
    run("tokens", "revoke", "alice", "--token-id", jam.api_tokens.verify(token).credential_id)
    with pytest.raises(CredentialError):
        jam.api_tokens.verify(token)
    assert jam.api_tokens.verify(other).subject == "1"


def test_a_token_that_is_not_theirs_is_not_revoked(run, alice, jam):
    token = jam.api_tokens.create("2", "ci")
    done = run("tokens", "revoke", "alice", "--token-id", jam.api_tokens.verify(token).credential_id, code=1)
    assert is_one_line(done.stderr)
    assert jam.api_tokens.verify(token).subject == "2"


def test_asvs_14_2_1_a_token_itself_does_not_belong_on_a_command_line(run, alice, jam):
    token = jam.api_tokens.create("1", "ci")
    done = run("tokens", "revoke", "alice", "--token-id", token, code=2)
    assert "history" in done.stderr
    assert token not in done.output


def test_all_tokens_of_somebody_end_after_a_yes(run, alice, jam):
    token, other = jam.api_tokens.create("1", "ci"), jam.api_tokens.create("2", "ci")
    run("tokens", "revoke", "alice", "--all", sent="n\n", code=1)
    assert jam.api_tokens.verify(token).subject == "1"
    run("tokens", "revoke", "alice", "--all", sent="y\n")
    with pytest.raises(CredentialError):
        jam.api_tokens.verify(token)
    assert jam.api_tokens.verify(other).subject == "2"


def test_the_tokens_of_everyone_end_after_a_yes(run, alice, jam):
    token = jam.api_tokens.create("2", "ci")
    handle = jam.create_session("2")
    run("tokens", "revoke", "--everyone", sent="\n", code=1)
    assert jam.api_tokens.verify(token).subject == "2"
    run("tokens", "revoke", "--everyone", "--yes")
    with pytest.raises(CredentialError):
        jam.api_tokens.verify(token)
    assert jam.get_session(handle) is not None


# -- the audit log ------------------------------------------------------------------------------------------


def lines(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_asvs_16_3_1_what_happened_is_found_the_latest_first(run, alice, flows):
    with contextlib.suppress(BadCredentials):
        flows.sign_in.start("alice", "wrong", address="192.0.2.7")
    flows.sign_in.start("alice", PASSWORD, address="192.0.2.8")
    found = lines(run("audit", "--json"))
    assert [one["event"] for one in found][:2] == ["SignedIn", "SignInFailed"]
    assert found[-1]["event"] == "Registered"
    said = run("audit").stdout
    assert said.index("SignedIn") < said.index("SignInFailed")
    assert "192.0.2.7" in said


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--event", "SignedIn"], ["c"]),
        (["--subject", "1"], ["c", "a"]),
        (["--id", "1"], ["c", "a"]),
        (["alice"], ["c", "a"]),
        (["--address", "192.0.2.8"], ["b"]),
        (["--limit", "1"], ["c"]),
        (["--since", "2h"], ["c"]),
        (["--since", "3h"], ["c", "b"]),
        (["--until", "1d"], ["a"]),
        (["--since", "1w", "--until", "90m"], ["b", "a"]),
        (["--since", "2027-01-15T05:00:00Z"], ["c", "b"]),
        (["--since", "2027-01-15T05:00:01"], ["c"]),
        (["--since", "2027-01-15T06:00:01+01:00"], ["c"]),
        (["--since", "2027-01-14", "--until", "2027-01-15"], []),
        (["--since", "20s"], []),
        (["--subject", "99"], []),
    ],
)
def test_the_audit_log_is_searched(run, alice, audit, clock, options, expected):  # noqa: PLR0917 - fixtures
    audit.prune(clock() + 1)
    now = clock()
    audit.append(Entry(at=now - 2 * 86400, event="Deactivated", subject="1", details={"name": "a"}))
    audit.append(Entry(at=now - 3 * 3600, event="Throttled", address="192.0.2.8", details={"name": "b"}))
    audit.append(Entry(at=now - 3600, event="SignedIn", subject="1", details={"name": "c"}))
    assert [one["details"]["name"] for one in lines(run("audit", *options, "--json"))] == expected


@pytest.mark.parametrize("given_time", ["", "yesterday", "2x", "-1h", "9999999h", "2027-13-01", "٣d", "1e3", "\x1b[2J"])
def test_a_time_that_is_none_is_wrong_usage(run, app, given_time):
    done = run("audit", f"--since={given_time}", code=2)
    assert "--since takes" in done.stderr
    assert is_harmless(done.output)


def test_the_ends_of_the_calendar_are_times_or_wrong_usage(app):
    for text in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        assert app.test_cli_runner().invoke(args=["jam", "audit", "--since", text]).exit_code in (0, 2)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=30) | st.datetimes().map(str) | st.from_regex(r"[0-9]{1,9}[smhdwy]", fullmatch=True))
def test_no_time_breaks_the_search(app, text):
    done = app.test_cli_runner().invoke(args=["jam", "audit", f"--until={text}"])
    assert done.exit_code in (0, 2)
    assert isinstance(done.exception, (SystemExit, type(None)))


def test_more_entries_than_one_page_are_found(run, app, audit, clock):
    for number in range(PAGE + 5):
        audit.append(Entry(at=clock(), event="Throttled", details={"number": number}))
    found = lines(run("audit", "--limit", str(2 * PAGE), "--json"))
    assert [one["details"]["number"] for one in found] == list(reversed(range(PAGE + 5)))
    assert len(lines(run("audit", "--limit", str(PAGE), "--json"))) == PAGE


def test_an_entry_that_counts_for_many_says_so(run, app, audit, clock):
    audit.append(Entry(at=clock(), event="AccessRefused", details={"code": "authentication_required"}, count=12))
    said = run("audit").stdout
    assert '12 times code="authentication_required"' in said
    assert lines(run("audit", "--json"))[0]["count"] == 12


def test_a_time_that_no_calendar_has_is_shown_as_a_number(run, app, audit):
    audit.append(Entry(at=1e300, event="Throttled"))
    assert "1e+300" in run("audit").stdout
    assert lines(run("audit", "--json"))[0]["at"] == "1e+300"


def test_an_app_without_an_audit_log_is_told_what_to_set(new_app, jam, users):
    app = new_app()
    AccountsExtension(jam, app, users=users)
    done = app.test_cli_runner().invoke(args=["jam", "audit"])
    assert done.exit_code == 1
    assert "audit.url" in done.stderr


def test_what_the_commands_do_is_in_the_audit_log(run, alice):
    run("users", "roles", "alice", "--add", "admin")
    run("users", "deactivate", "alice", "--yes")
    run("users", "reactivate", "alice")
    run("tokens", "create", "alice", "--name", "ci")
    run("sessions", "revoke", "--everyone", "--yes")
    happened = {one["event"] for one in lines(run("audit", "--json"))}
    assert {"RolesChanged", "Deactivated", "Reactivated", "APITokenCreated", "SubjectRevoked"} <= happened


# -- mail ---------------------------------------------------------------------------------------------------


@pytest.fixture
def waiting(jam, app, flows, alice, post):
    """Puts letters into the outbox that the thread of nobody sends."""
    outbox = Outbox(jam.store, post, lambda letter: None, clock=jam.clock, events=jam.events, background=False)

    def add(number, template="password_changed", to="alice@example.com"):
        for _ in range(number):
            outbox.add(template, to=to, subject="1", data={"username": "alice", "secret_of_mine": "s3cret"})

    return add


def test_mail_that_waits_is_sent(run, waiting, post):
    waiting(3)
    assert run("mail", "send").stdout == "3 sent, 0 failed, 0 needed no mail.\n"
    assert [mail.to for mail in post.mails] == 3 * ["alice@example.com"]
    assert run("mail", "send").stdout == "0 sent, 0 failed, 0 needed no mail.\n"


def test_more_mail_than_is_sent_at_a_time_is_sent_up_to_the_limit(run, waiting, post, shown):
    waiting(2 * MAILS + 5)
    run("mail", "send", "--limit", str(MAILS + 2))
    assert len(post.mails) == MAILS + 2
    run("mail", "send")
    assert len(post.mails) == 2 * MAILS + 5


def test_mail_that_cannot_be_sent_ends_with_1_and_waits_on(run, waiting, post, shown):
    waiting(2)
    post.failure = MailNotSent()
    assert run("mail", "send", code=1).stdout == "0 sent, 2 failed, 0 needed no mail.\n"
    assert [one["attempts"] for one in shown("mail", "list")] == [1, 1]


def test_a_job_that_sends_mail_writes_nothing_to_stderr(run, waiting):
    waiting(1)
    assert run("mail", "send").stderr == ""


def test_mail_that_waits_is_listed_without_what_is_in_it(run, waiting, shown):
    waiting(1)
    (letter,) = shown("mail", "list")
    assert letter == {
        "id": letter["id"], "template": "password_changed", "to": "alice@example.com", "subject": "1",
        "created_at": "2027-01-15T08:00:00Z", "attempts": 0,
    }  # fmt: skip
    said = run("mail", "list").stdout
    assert "password_changed" in said
    assert "s3cret" not in said


def test_without_a_mailer_no_mail_is_sent(new_app, jam, users):
    app = new_app()
    AccountsExtension(jam, app, users=users)
    done = app.test_cli_runner().invoke(args=["jam", "mail", "send"])
    assert done.exit_code == 1
    assert "mail.url" in done.stderr


# -- hostile text -------------------------------------------------------------------------------------------


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


# -- the real program ---------------------------------------------------------------------------------------

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


def test_a_terminal_without_unicode_is_no_reason_to_fail(flask):
    flask("users", "create", "中文", "--password-stdin", sent=PASSWORD)
    said = flask("users", "roles", "中文", "--add", "x", PYTHONIOENCODING="ascii").stdout
    assert said == "\\u4e2d\\u6587: none \\u2192 x\n"


def at_a_terminal(shell, arguments, answers):
    """What a terminal shows while a person types answers into it; and the exit status."""
    places, command = shell
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [*command, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, **places
        )
        os.close(theirs)
        return _typed(process, ours, list(answers)), process.wait(PATIENCE)
    finally:
        os.close(ours)
        if process.poll() is None:
            process.kill()
            process.wait(PATIENCE)


def _typed(process, terminal, answers):
    seen, asked, until = "", "", time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                text = os.read(terminal, 4096).decode()
            except OSError:  # the other end is closed
                return seen
            seen, asked = seen + text, asked + text
        elif process.poll() is not None:
            return seen
        if answers and answers[0][0] in asked:
            asked = ""
            os.write(terminal, answers.pop(0)[1].encode())
    raise AssertionError(f"The program waits for something: {seen}")


def test_asvs_6_2_1_a_password_is_asked_for_twice_and_not_shown(shell, flask):
    answers = [("Password:", f"{PASSWORD}\n"), ("Repeat for confirmation:", f"{PASSWORD}\n")]
    seen, code = at_a_terminal(shell, ["users", "create", "alice"], answers)
    assert code == 0, seen
    assert PASSWORD not in seen
    assert json.loads(flask("users", "show", "alice", "--json").stdout)["has_password"] is True


def test_progress_is_shown_to_who_watches(shell, tmp_path, secret):
    jam = Jam({"secret": secret, "store": f"sqlite:///{tmp_path}/jam.sqlite3"})
    outbox = Outbox(jam.store, Post(), lambda _: None, clock=jam.clock, events=jam.events, background=False)
    for _ in range(MAILS + 1):
        outbox.add("reset_password", to="")
    jam.store.close()
    seen, code = at_a_terminal(shell, ["mail", "send"], [])
    assert code == 0, seen
    assert f"{MAILS} done" in seen
    assert f"{MAILS + 1} needed no mail" in seen


# -- users scopes -------------------------------------------------------------------------------------------


def test_scopes_are_given_taken_and_shown_like_roles(run, shown, alice):
    given = run("users", "scopes", "alice", "--add", "posts:read", "--add", "posts:write").stdout
    assert given.rstrip().endswith("→ posts:read, posts:write")
    assert run("users", "scopes", "alice", "--remove", "posts:write").stdout.rstrip().endswith("→ posts:read")
    assert shown("users", "scopes", "alice") == {"id": "1", "before": ["posts:read"], "after": ["posts:read"]}


def test_what_is_no_scope_is_refused(run, alice):
    assert "RFC 6749" in run("users", "scopes", "alice", "--add", "a b", code=1).stderr
