"""``flask jam users email`` and ``verify``: an address is changed, and shown to be theirs."""

import pytest
import sqlalchemy as sa

from jam import Jam
from jam.accounts.accounts import Accounts
from jam.accounts.mail import MailNotSent
from jam.accounts.sql_users import SQLUsers
from jam.errors import CredentialError
from jam.events import EmailChanged
from jam.ext.flask.accounts import AccountsExtension
from tests.ext.flask.commands.at_a_shell import PASSWORD, events, is_one_line, people_without_roles

NEW = "alice@new.example"


def token_in(mail):
    return mail.text.split("token=")[1].split()[0]


def invoke(app, *arguments, **options):
    return app.test_cli_runner().invoke(args=["jam", *arguments], **options)


# -- users email --------------------------------------------------------------------------------------------


def test_an_address_is_changed_at_once_and_is_to_be_verified(run, alice, users, flows, jam):
    users.update("1", {"email_verified": True})
    heard = events(jam, EmailChanged)
    done = run("users", "email", "alice", NEW, "--yes")
    assert done.stdout == f"The e-mail address of alice (id 1) is {NEW} (not verified).\n"
    assert (users.get("1").email, users.get("1").email_verified) == (NEW, False)
    assert [event.subject for event in heard] == ["1"]


def test_asvs_6_3_7_the_former_address_is_told_and_the_new_one_is_asked(run, alice, flows, post, users):
    run("users", "email", "alice", NEW, "--yes")
    by_address = {mail.to: mail for mail in post.mails}
    assert by_address.keys() == {"alice@example.com", NEW}
    assert "token=" not in by_address["alice@example.com"].text
    flows.emails.verify(token_in(by_address[NEW]))
    assert users.get("1").email_verified is True


@pytest.mark.parametrize("named", [["ALICE", NEW], ["alice@example.com", NEW], ["--id", "1", NEW], [NEW, "--id=1"]])
def test_people_are_named_as_everywhere(run, alice, users, named):
    run("users", "email", *named, "--yes")
    assert users.get("1").email == NEW


@pytest.mark.parametrize(
    "named", [[], ["alice"], [NEW], ["alice", NEW, "x"], ["alice", NEW, "--id", "1"], ["--id", "1"], [NEW, "--id", ""]]
)
def test_naming_too_little_or_too_much_is_wrong_usage(run, alice, users, named):
    assert "Name one person" in run("users", "email", *named, "--yes", code=2).stderr
    assert users.get("1").email == "alice@example.com"


def test_the_change_is_asked_for_with_both_addresses(run, alice, users):
    for answer in ("n\n", "\n", ""):
        done = run("users", "email", "alice", NEW, sent=answer, code=1)
        assert f"of alice (id 1) from alice@example.com to {NEW}?" in done.stderr
    assert users.get("1").email == "alice@example.com"
    run("users", "email", "alice", NEW, sent="y\n")
    assert users.get("1").email == NEW


def test_who_had_no_address_gets_one(run, flows, users, app, post):
    flows.registration.create("bob", None, PASSWORD)
    run("users", "email", "bob", "bob@example.com", "--yes")
    assert users.find("bob").email == "bob@example.com"
    assert [mail.to for mail in post.mails] == ["bob@example.com"]


def test_the_address_that_is_theirs_already_is_no_change(run, alice, users, jam, post):
    users.update("1", {"email_verified": True})
    heard = events(jam, EmailChanged)
    assert "is the address of alice (id 1) already" in run("users", "email", "alice", "alice@EXAMPLE.com").stdout
    assert users.get("1").email_verified is True
    assert heard == post.mails == []


@pytest.mark.parametrize("new", ["nonsense", "", "a@b@c", "alice@", f"{'a' * 300}@example.com"])
def test_what_is_no_address_is_refused_before_anything_is_asked(run, alice, users, new):
    assert is_one_line(run("users", "email", "alice", new, code=1).stderr)
    assert users.get("1").email == "alice@example.com"


def test_an_address_that_somebody_else_has_is_one_line(run, alice, flows, users, post):
    flows.registration.create("bob", "bob@example.com", PASSWORD)
    assert is_one_line(run("users", "email", "alice", "Bob@Example.com", "--yes", code=1).stderr)
    assert users.get("1").email == "alice@example.com"
    assert post.mails == []


def test_who_is_not_there_is_one_line(run, alice):
    for named in (["bob"], ["--id", "99"]):
        assert "flask jam users list" in run("users", "email", *named, NEW, "--yes", code=1).stderr


def test_a_change_of_somebody_else_at_the_same_moment_is_not_overwritten(new_app, jam, users, alice, post):
    class Raced:
        """The people, of whom somebody else changes one at the last moment."""

        def __getattr__(self, name):
            return getattr(users, name)

        def update(self, subject, changes, only_if=None):
            users.update(subject, {"email": "alice@elsewhere.example"})
            return users.update(subject, changes, only_if)

    app = new_app(JAM_ACCOUNTS_BASE_URL="https://app.example")
    AccountsExtension(jam, app, accounts=Accounts(jam, Raced(), mailer=post))
    done = invoke(app, "users", "email", "alice", NEW, "--yes")
    assert done.exit_code == 1
    assert "changed by somebody else" in done.stderr
    assert users.get("1").email == "alice@elsewhere.example"
    assert post.mails == []


def test_a_mail_that_will_never_leave_does_not_hide_that_the_address_was_changed(run, alice, post, users):
    post.failure = MailNotSent(permanent=True)
    done = run("users", "email", "alice", NEW, "--yes", code=1)
    assert "The address was changed, but: The mail could not be sent" in done.stderr
    assert users.get("1").email == NEW


def test_where_no_mail_can_be_sent_that_is_said_before_the_change(new_app, jam, users, alice):
    app = new_app()
    AccountsExtension(jam, app, users=users)
    refused = invoke(app, "users", "email", "alice", NEW, input="n\n")
    assert refused.stderr.index("no mail is sent") < refused.stderr.index("Change the e-mail address")
    assert invoke(app, "users", "email", "alice", NEW, "--yes").exit_code == 0
    assert users.get("1").email == NEW


def test_nothing_is_changed_where_the_link_would_be_good_in_this_process_only(new_app, secret, users, alice, post):
    app = new_app(JAM_ACCOUNTS_BASE_URL="https://app.example")
    AccountsExtension(jam := Jam({"secret": secret}), app, accounts=Accounts(jam, users, mailer=post))
    done = invoke(app, "users", "email", "alice", NEW, "--yes")
    assert done.exit_code == 1
    assert "JAM_STORE" in done.stderr
    assert users.get("1").email == "alice@example.com"


def test_a_model_without_addresses_is_one_line(new_app, jam, tmp_path):
    base = sa.orm.declarative_base()

    class User(base):
        __tablename__ = "people"
        id = sa.Column(sa.Integer, primary_key=True)
        username = sa.Column(sa.String(64), unique=True, nullable=False)
        password_hash = sa.Column(sa.String(255))

    engine = sa.create_engine(f"sqlite:///{tmp_path}/other.sqlite3", poolclass=sa.pool.NullPool)
    base.metadata.create_all(engine)
    users = SQLUsers(User, engine, email=None)
    users.create(username="alice", email=None, password_hash=None)
    app = new_app()
    AccountsExtension(jam, app, users=users)
    done = invoke(app, "users", "email", "alice", NEW, "--yes")
    assert done.exit_code == 1
    assert "User has no place for email" in done.stderr


# -- users verify -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [["alice"], ["alice@example.com"], ["--id", "1"]])
def test_a_link_that_verifies_the_address_is_sent_and_not_shown(run, alice, flows, post, users, named):  # noqa: PLR0917 - fixtures
    done = run("users", "verify", *named)
    assert done.stdout == "A link to verify the address is on its way to alice@example.com.\n"
    (mail,) = post.mails
    assert token_in(mail) not in done.output
    flows.emails.verify(token_in(mail))
    assert users.get("1").email_verified is True


def test_an_address_that_is_verified_already_gets_no_link(run, alice, users, post):
    users.update("1", {"email_verified": True})
    assert run("users", "verify", "alice").stdout == "alice@example.com is verified already.\n"
    assert post.mails == []


def test_no_link_is_sent_to_who_has_no_address_or_is_deactivated(run, alice, flows, post):
    flows.registration.create("bob", None, PASSWORD)
    assert "no e-mail address" in run("users", "verify", "bob", code=1).stderr
    flows.management.deactivate("1")
    assert "deactivated" in run("users", "verify", "alice", code=1).stderr
    assert post.mails == []


def test_a_link_that_verifies_an_address_is_not_good_for_another_one(run, alice, flows, post, users):
    run("users", "verify", "alice")
    run("users", "email", "alice", NEW, "--yes")
    with pytest.raises(CredentialError):
        flows.emails.verify(token_in(post.mails[0]))
    assert users.get("1").email_verified is False


def test_a_link_that_cannot_leave_now_waits_and_that_is_said(run, alice, post):
    post.failure = MailNotSent()
    assert "flask jam mail send" in run("users", "verify", "alice").stderr


def test_a_link_that_will_never_leave_is_an_error(run, alice, post):
    post.failure = MailNotSent(permanent=True)
    assert is_one_line(run("users", "verify", "alice", code=1).stderr)


def test_asvs_6_3_1_nobodys_mailbox_is_flooded_with_links(run, alice, jam, post):
    for _ in range(jam.settings.throttling.mails):
        run("users", "verify", "alice")
    assert is_one_line(run("users", "verify", "alice", code=1).stderr)
    assert len(post.mails) == jam.settings.throttling.mails


def test_where_no_mail_can_be_sent_no_link_is_promised(new_app, jam, users, alice):
    app = new_app()
    AccountsExtension(jam, app, users=users)
    done = invoke(app, "users", "verify", "alice")
    assert done.exit_code == 1
    assert "mail.url" in done.stderr


def test_no_link_is_sent_that_would_be_good_in_this_process_only(new_app, secret, users, alice, post):
    app = new_app(JAM_ACCOUNTS_BASE_URL="https://app.example")
    AccountsExtension(jam := Jam({"secret": secret}), app, accounts=Accounts(jam, users, mailer=post))
    done = invoke(app, "users", "verify", "alice")
    assert done.exit_code == 1
    assert "JAM_STORE" in done.stderr
    assert post.mails == []


def test_a_model_that_cannot_note_it_is_one_line(new_app, jam, tmp_path, post):
    users = people_without_roles(tmp_path)
    users.create(username="alice", email="alice@example.com", password_hash=None)
    app = new_app(JAM_ACCOUNTS_BASE_URL="https://app.example")
    AccountsExtension(jam, app, accounts=Accounts(jam, users, mailer=post))
    done = invoke(app, "users", "verify", "alice")
    assert done.exit_code == 1
    assert "email_verified" in done.stderr
    assert post.mails == []
