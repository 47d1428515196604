"""``flask jam users password``: a person at a terminal changes their password."""

import json

import pytest

from jam import Jam
from jam.accounts.mail import MailNotSent
from jam.accounts.sql_users import open_users
from jam.errors import BadCredentials, CredentialError
from jam.events import PasswordChanged
from jam.ext.flask.accounts import AccountsExtension
from jam.ext.flask.user_commands import users_group
from tests.ext.flask.commands.at_a_shell import PASSWORD, at_a_terminal, events, is_one_line

NEW = "another horse battery staple"


@pytest.fixture
def change(run):
    """Changes alice's password by what comes on stdin."""

    def call(sent, *named, code=0):
        return run("users", "password", *(named or ("alice",)), "--password-stdin", sent=sent, code=code)

    return call


def test_asvs_6_2_2_who_knows_the_present_password_sets_a_new_one(change, alice, flows, jam):
    heard = events(jam, PasswordChanged)
    done = change(f"{PASSWORD}\n{NEW}\n")
    assert done.stdout == "The password of alice (id 1) is changed, and every login of theirs has ended.\n"
    assert flows.sign_in.start("alice", NEW).account.subject == "1"
    with pytest.raises(BadCredentials):
        flows.sign_in.start("alice", PASSWORD)
    assert [(event.subject, event.by) for event in heard] == [("1", "change")]


def test_people_are_named_by_address_or_subject_as_well(change, alice, flows):
    change(f"{PASSWORD}\n{NEW}\n", "alice@example.com")
    change(f"{NEW}\n{PASSWORD}\n", "--id", "1")
    assert flows.sign_in.start("alice", PASSWORD).account.subject == "1"


@pytest.mark.parametrize("present", ["wrong horse battery staple", "", f" {PASSWORD}", NEW])
def test_asvs_6_2_3_without_the_present_password_nothing_is_changed(change, alice, users, jam, present):
    handle = jam.create_session("1")
    assert is_one_line(change(f"{present}\n{NEW}\n", code=1).stderr)
    assert users.get("1").password_hash == alice.password_hash
    assert jam.get_session(handle) is not None


def test_asvs_6_3_1_guesses_are_counted_here_too(new_app, secret, tmp_path, alice, users):
    app = new_app()
    throttling = {"attempts_per_account": 3}
    jam = Jam({"secret": secret, "store": f"sqlite:///{tmp_path}/other.sqlite3", "throttling": throttling})
    AccountsExtension(jam, app, users=users)
    try:
        arguments = ["jam", "users", "password", "alice", "--password-stdin"]
        for guess in ("one", "two", "three", PASSWORD):
            done = app.test_cli_runner().invoke(args=arguments, input=f"{guess}\n{NEW}\n")
            assert done.exit_code == 1
            assert is_one_line(done.stderr)
    finally:
        jam.store.close()
    assert "Too many attempts" in done.stderr
    assert users.get("1").password_hash == alice.password_hash


@pytest.mark.parametrize("new", ["short", "", "alice@example.com", "passwordpassword"])
def test_asvs_6_2_1_what_is_no_good_password_is_not_set(change, alice, users, new):
    assert is_one_line(change(f"{PASSWORD}\n{new}\n", code=1).stderr)
    assert users.get("1").password_hash == alice.password_hash


def test_asvs_7_4_3_every_login_ends_and_api_tokens_stay(change, alice, jam):
    handle, other = jam.create_session("1"), jam.create_session("2")
    held = [
        (jam.remember_me, jam.logins.remember("1")[0]),
        (jam.refresh_tokens, jam.refresh_tokens.issue("1")),
        (jam.access_tokens, jam.access_tokens.issue("1")),
    ]
    script = jam.api_tokens.create("1", "ci")
    change(f"{PASSWORD}\n{NEW}\n")
    assert jam.get_session(handle) is None
    for tokens, token in held:
        with pytest.raises(CredentialError):
            tokens.verify(token)
    assert jam.api_tokens.verify(script).subject == "1"
    assert jam.get_session(other) is not None


def test_asvs_6_3_7_the_person_is_told_by_mail(change, alice, post):
    change(f"{PASSWORD}\n{NEW}\n")
    (mail,) = post.mails
    assert mail.to == "alice@example.com"
    assert NEW not in mail.text


def test_a_mail_that_will_never_leave_does_not_hide_that_the_password_was_changed(change, alice, post, flows):
    post.failure = MailNotSent(permanent=True)
    done = change(f"{PASSWORD}\n{NEW}\n", code=1)
    assert is_one_line(done.stderr)
    assert "The password was changed, but: The mail could not be sent" in done.stderr
    assert flows.sign_in.start("alice", NEW).account.subject == "1"


def test_where_no_mail_can_be_sent_passwords_are_changed_all_the_same(new_app, jam, users, flows, alice):
    app = new_app()
    AccountsExtension(jam, app, users=users)
    arguments = ["jam", "users", "password", "alice", "--password-stdin"]
    assert app.test_cli_runner().invoke(args=arguments, input=f"{PASSWORD}\n{NEW}\n").exit_code == 0
    assert flows.sign_in.start("alice", NEW).account.subject == "1"


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"", "2 lines"),
        (f"{PASSWORD}\n".encode(), "2 lines"),
        (f"{PASSWORD}\n{NEW}\n{NEW}\n".encode(), "2 lines"),
        (PASSWORD.encode() + b"\n" + b"\xff" * 20, "UTF-8"),
        (b"x" * 40_000, "longer than any"),
    ],
)
def test_what_is_not_two_passwords_changes_none(change, alice, users, sent, why):
    done = change(sent, code=1)
    assert is_one_line(done.stderr)
    assert why in done.stderr
    assert users.get("1").password_hash == alice.password_hash


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "\n", "\r\n"])
def test_the_ends_of_lines_are_no_part_of_the_passwords(change, alice, flows, end, last):
    change(f"{PASSWORD}{end}{NEW}{last}".encode())
    assert flows.sign_in.start("alice", NEW).account.subject == "1"


def test_asvs_16_2_5_neither_password_is_shown(change, alice):
    for sent, code in ((f"x{PASSWORD}\n{NEW}\n", 1), (f"{PASSWORD}\n{NEW}\t\n", 1), (f"{PASSWORD}\n{NEW}\n", 0)):
        done = change(sent, code=code)
        assert PASSWORD not in done.output
        assert NEW not in done.output


def test_asvs_14_2_1_no_argument_or_option_takes_a_password(run, alice, users):
    run("users", "password", "alice", PASSWORD, NEW, code=2)
    run("users", "password", "alice", "--password", NEW, code=2)
    assert users.get("1").password_hash == alice.password_hash


def test_without_a_terminal_no_password_is_asked_for(run, alice, users):
    done = run("users", "password", "alice", sent=f"{PASSWORD}\n{NEW}\n{NEW}\n", code=2)
    assert "use --password-stdin." in done.stderr
    assert users.get("1").password_hash == alice.password_hash


def test_who_has_no_password_is_told_of_the_link_before_one_is_asked_for(run, flows, app):
    flows.registration.create("bob", "bob@example.com", None)
    done = run("users", "password", "bob", code=1)
    assert is_one_line(done.stderr)
    assert "send-reset" in done.stderr


def test_who_is_deactivated_is_told_so_before_a_password_is_asked_for(run, alice, flows):
    flows.management.deactivate("1")
    done = run("users", "password", "alice", code=1)
    assert is_one_line(done.stderr)
    assert "deactivated" in done.stderr


def test_who_is_not_there_is_one_line(change, app):
    assert "flask jam users list" in change(f"{PASSWORD}\n{NEW}\n", "bob", code=1).stderr


def test_nothing_is_changed_where_the_logins_of_other_processes_would_live_on(new_app, secret, flows, alice, users):
    app = new_app()
    AccountsExtension(Jam({"secret": secret}), app, users=users)
    arguments = ["jam", "users", "password", "alice", "--password-stdin"]
    done = app.test_cli_runner().invoke(args=arguments, input=f"{PASSWORD}\n{NEW}\n")
    assert done.exit_code == 1
    assert "JAM_STORE" in done.stderr
    assert users.get("1").password_hash == alice.password_hash


def test_asvs_6_4_6_no_other_command_sets_a_password_of_an_account_that_is_there(run, alice):
    for command in users_group.commands.keys() - {"create", "password"}:
        assert "password" not in run("users", command, "--help").stdout.partition("Options:")[2].lower()


def test_asvs_6_2_3_at_a_terminal_both_are_asked_for_and_not_shown(shell, flask, tmp_path):
    flask("users", "create", "alice", "--password-stdin", sent=PASSWORD)
    before = open_users(f"sqlite:///{tmp_path}/people.sqlite3").get("1").password_hash
    answers = [
        ("Present password:", f"{PASSWORD}\n"),
        ("New password:", f"{NEW}\n"),
        ("Repeat for confirmation:", f"{NEW}\n"),
    ]
    seen, code = at_a_terminal(shell, ["users", "password", "alice"], answers)
    assert code == 0, seen
    assert PASSWORD not in seen
    assert NEW not in seen
    assert open_users(f"sqlite:///{tmp_path}/people.sqlite3").get("1").password_hash != before
    happened = [json.loads(line)["event"] for line in flask("audit", "--json").stdout.splitlines()]
    assert "PasswordChanged" in happened
