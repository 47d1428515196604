"""``flask jam users``: people at an administrator's hands."""

import json

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jam import Jam
from jam.accounts.accounts import Accounts
from jam.accounts.mail import MailNotSent
from jam.errors import BadCredentials, CredentialError
from jam.events import Deactivated, Deleted, PasswordChanged, Reactivated, Registered, RolesChanged
from jam.ext.flask.accounts import AccountsExtension
from jam.ext.flask.command_context import PAGE
from tests.ext.flask.commands.at_a_shell import (
    PASSWORD,
    at_a_terminal,
    events,
    is_harmless,
    is_one_line,
    people_without_roles,
)

# -- who ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [["alice"], ["ALICE"], ["alice@example.com"], ["Alice@Example.com"], ["--id", "1"]])
def test_people_are_named_by_user_name_address_or_subject(shown, alice, named):
    assert shown("users", "show", *named)["username"] == "alice"


@pytest.mark.parametrize("named", [[], ["alice", "--id", "1"], [""], ["--id", ""]])
@pytest.mark.parametrize(
    "command",
    [
        ["users", "show"],
        ["users", "password"],
        ["users", "verify"],
        ["sessions", "list"],
        ["tokens", "revoke", "--all", "--yes"],
    ],
)
def test_naming_nobody_or_twice_is_wrong_usage(run, alice, command, named):
    assert "Name one person" in run(*command, *named, code=2).stderr


@pytest.mark.parametrize("named", [["bob"], ["bob@example.com"], ["--id", "99"], ["--id", "x"], ["b" * 5000]])
def test_somebody_who_is_not_there_is_one_line_and_1(run, alice, named):
    done = run("users", "show", *named, code=1)
    assert is_one_line(done.stderr)
    assert "flask jam users list" in done.stderr


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_characters="\0"), max_size=40))
@pytest.mark.parametrize(
    "command", [["users", "show"], ["users", "delete", "--yes"], ["users", "verify"], ["tokens", "list"]]
)
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


# -- users scopes -------------------------------------------------------------------------------------------


def test_scopes_are_given_taken_and_shown_like_roles(run, shown, alice):
    given = run("users", "scopes", "alice", "--add", "posts:read", "--add", "posts:write").stdout
    assert given.rstrip().endswith("→ posts:read, posts:write")
    assert run("users", "scopes", "alice", "--remove", "posts:write").stdout.rstrip().endswith("→ posts:read")
    assert shown("users", "scopes", "alice") == {"id": "1", "before": ["posts:read"], "after": ["posts:read"]}


def test_what_is_no_scope_is_refused(run, alice):
    assert "RFC 6749" in run("users", "scopes", "alice", "--add", "a b", code=1).stderr


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


def test_asvs_6_2_1_a_password_is_asked_for_twice_and_not_shown(shell, flask):
    answers = [("Password:", f"{PASSWORD}\n"), ("Repeat for confirmation:", f"{PASSWORD}\n")]
    seen, code = at_a_terminal(shell, ["users", "create", "alice"], answers)
    assert code == 0, seen
    assert PASSWORD not in seen
    assert json.loads(flask("users", "show", "alice", "--json").stdout)["has_password"] is True
