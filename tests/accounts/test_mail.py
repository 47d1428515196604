"""Mails: what one is, and how it is printed."""

import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jam.accounts.mail import ConsoleMailer, Mail, open_mailer
from jam.config import MailSettings, Secret
from jam.errors import InvalidValue, MailNotSent

LINK = "https://app.example/reset#Zm9vYmFy"
MAIL = Mail(to="alice@example.org", subject="Set a new password", text=f"Hello,\n\n{LINK}\n")


# -- what a mail is -----------------------------------------------------------------------------------------


def test_a_mail_does_not_show_its_text():
    mail = Mail(to="alice@example.org", subject="Hi", text=LINK, html=f"<a href='{LINK}'>")
    assert LINK not in f"{mail!r} {mail} {list(mail.__rich_repr__())}"
    assert "alice@example.org" in repr(mail)


@pytest.mark.parametrize(
    "address",
    [
        "alice@example.org\r\nBcc: mallory@example.org", "alice@example.org\n", "a@x.org, b@x.org", "a@x.org b@x.org",
        "a@x.org;b@x.org", "Alice <alice@example.org>", "<alice@example.org>", "alice", "@example.org", "alice@", "",
        "a@b@c.org", '"a b"@x.org', "a@[127.0.0.1]", "a(comment)@x.org", "a\0@x.org", "a\x85@x.org", "a\u2028@x.org",
        "a\u202e@x.org", "\ud800@x.org", "a" * 250 + "@x.org", "a..b@x.org>", None, 7, b"a@x.org",
    ],
    ids=ascii,
)  # fmt: skip
def test_what_is_not_exactly_one_address_is_no_recipient(address):
    with pytest.raises(InvalidValue) as caught:
        Mail(to=address, subject="Hi", text="Hi")
    assert "mallory" not in str(caught.value)


@pytest.mark.parametrize(
    "end", ["\r\n", "\n", "\r", "\0", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\ud800"]
)
def test_a_subject_is_one_line(end):
    with pytest.raises(InvalidValue):
        Mail(to="alice@example.org", subject=f"Hi{end}Bcc: mallory@example.org", text="Hi")


def test_a_subject_is_not_endless():
    Mail(to="alice@example.org", subject="x" * 255, text="Hi")
    with pytest.raises(InvalidValue):
        Mail(to="alice@example.org", subject="x" * 256, text="Hi")


@pytest.mark.parametrize("part", ["text", "html"])
def test_a_text_that_is_not_unicode_is_refused(part):
    with pytest.raises(InvalidValue):
        Mail(**{"to": "alice@example.org", "subject": "Hi", "text": "Hi", part: "\ud800"})


# -- the console --------------------------------------------------------------------------------------------


def test_a_mail_is_printed():
    stream = io.StringIO()
    ConsoleMailer(stream).send(MAIL)
    printed = stream.getvalue()
    for part in (MAIL.to, MAIL.subject, LINK):
        assert part in printed


def test_without_a_stream_it_is_standard_error(capsys):
    ConsoleMailer().send(MAIL)
    assert LINK in capsys.readouterr().err


@given(st.text(alphabet=st.characters(categories=["Cc", "Cf", "Zl", "Zp", "L"])))
@example("\x1b]0;owned\x07\x1b[2J\r\x9b31m\u202e")
def test_asvs_16_4_1_nothing_that_steers_a_terminal_is_printed(text):
    stream = io.StringIO()
    ConsoleMailer(stream).send(Mail(to="alice@example.org", subject="Grüße", text=text))
    printed = stream.getvalue().replace("\n", "").replace("\t", "")
    assert printed.isprintable()
    assert "Grüße" in printed


def test_a_console_that_takes_nothing_is_an_error(monkeypatch):
    closed = io.StringIO()
    closed.close()
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    mail = Mail(to="alice@example.org", subject="Grüße", text="Hi")
    monkeypatch.setattr("sys.stderr", None)
    for mailer in (ConsoleMailer(closed), ConsoleMailer(narrow), ConsoleMailer()):
        with pytest.raises(MailNotSent) as caught:
            mailer.send(mail)
        error = caught.value
        assert mail.to not in f"{error} {error!r} {error.hint}"
        assert error.__suppress_context__
        assert (error.status, error.code, error.permanent) == (503, "mail_not_sent", False)


# -- settings -----------------------------------------------------------------------------------------------


def test_without_a_url_there_is_no_mailer():
    assert open_mailer(MailSettings()) is None


def test_mails_may_go_to_the_console_without_a_sender():
    assert isinstance(open_mailer(MailSettings(url=Secret("console://"))), ConsoleMailer)
