"""``flask jam mail``: the outbox."""

from jam import Jam
from jam.accounts.mail import MailNotSent
from jam.accounts.outbox import Outbox
from jam.ext.flask.accounts import AccountsExtension
from jam.ext.flask.mail_commands import MAILS
from tests.ext.flask.commands.at_a_shell import Post, at_a_terminal


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
