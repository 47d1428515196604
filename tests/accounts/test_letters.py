"""What Jam writes to people: where links lead, what stands in a mail, and what cannot be smuggled into one."""

import inspect
import string
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jam.accounts.letters import LINKS, NOTICES, TEXTS, Letters
from jam.accounts.outbox import Letter
from jam.errors import ConfigError
from tests.accounts.conftest import BASE_URL, OTHER_PASSWORD, PASSWORD, refused

PURPOSES = {"reset_password", "register", "verify_email", "change_email"}


@pytest.fixture
def make_letters(site):
    """Makes ``Letters`` for the people of the site."""

    def make(**options):
        return Letters(site.users, site.jam.one_time_tokens, site.jam.settings, **options)

    return make


@pytest.fixture
def letters(make_letters):
    return make_letters()


def letter(template, *, to="alice@example.org", subject=None, **data):
    return Letter(template=template, to=to, subject=subject, data=data, created_at=0.0, id="x")


def links(mail):
    return [word for word in mail.text.split() if "://" in word]


# -- links --------------------------------------------------------------------------------------------------


def test_every_link_begins_with_the_configured_address(site):
    alice, bob = site.person(), site.person(email_verified=False)
    site.accounts.recovery.forgot(alice.email)
    site.accounts.emails.send_verification(bob)
    site.accounts.emails.request_change(alice.subject, "new@example.org")
    site.accounts.registration.start("carol", "carol@example.org", PASSWORD)
    site.accounts.registration.start("dave", alice.email, PASSWORD)
    found = [link for mail in site.mails() for link in links(mail)]
    assert len(found) == 5
    for link in found:
        parts = urlsplit(link)
        assert f"{parts.scheme}://{parts.netloc}" == BASE_URL
        assert list(parse_qs(parts.query)) == ["token"]


def test_the_address_may_have_a_path(make_site):
    site = make_site(config={"accounts": {"base_url": "https://app.example/people"}})
    site.reset_token(site.person())
    assert links(site.mail())[0].startswith("https://app.example/people/auth/reset?token=")


def test_a_link_can_lead_elsewhere_in_the_app(make_site):
    site = make_site(links={"reset_password": "/#/reset/{token}"})
    site.accounts.recovery.forgot(site.person().email)
    (link,) = links(site.mail())
    assert link.startswith(f"{BASE_URL}/#/reset/")
    site.accounts.recovery.reset(link.rpartition("/")[2], OTHER_PASSWORD)


@pytest.mark.parametrize(
    "path",
    [
        "", "/reset", "reset?token={token}", "https://evil.example/{token}", "/{token}/{token}", "/{token}/{username}",
        "/{token!r}", "/{token.__class__}", "/{token", "/{}", "/{0}", "/}?token={token}", "/{token}}", "/{{token}}",
        "/a b?token={token}", "/reset\n?token={token}", None, 7,
    ],
)  # fmt: skip
def test_what_is_no_link_is_refused_at_once(make_letters, path):
    refused(ConfigError, make_letters, links={"reset_password": path})


def test_a_link_for_nothing_is_refused(make_letters):
    refused(ConfigError, make_letters, links={"sign_in": "/sign-in?token={token}"})


def test_there_is_a_link_for_every_purpose():
    assert set(LINKS) == PURPOSES


def test_without_an_address_no_mail_is_promised(make_site, secret):
    site = make_site(config={"accounts": {"base_url": None}})
    error = refused(ConfigError, lambda: site.accounts.recovery)
    assert "base_url" in error.message
    assert "Host" in error.hint


# -- texts --------------------------------------------------------------------------------------------------


def test_every_text_is_whole(letters):
    for template, text in TEXTS.items():
        subject, _, body = text.partition("\n\n")
        names = {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}
        assert names <= {"app", "username", "link", "email", "hours"}
        assert ("link" in names) is (template not in NOTICES | {"email_taken"})
        assert "{app}" in subject
        assert "{username}" not in subject
        assert max(map(len, body.splitlines())) <= 100


def test_a_mail_says_for_how_long_its_link_is_good(make_site):
    for seconds, words in ((1800, "30 minutes"), (7200, "2 hours"), (3 * 86400, "3 days"), (90, "90 seconds")):
        site = make_site(config={"accounts": {"reset_lifetime": float(seconds)}})
        site.accounts.recovery.forgot(site.person().email)
        assert words in site.mail().text


def test_a_text_can_be_another(make_site):
    site = make_site(
        config={"name": "Larder"},
        texts={"reset_password": "{app}: Passwort\n\nHallo {username}:\n{link}\n{email} {hours}\n"},
    )
    alice = site.person()
    site.accounts.recovery.forgot(alice.email)
    mail = site.mail()
    assert mail.subject == "Larder: Passwort"
    assert mail.text.splitlines()[0] == f"Hallo {alice.username}:"
    assert mail.text.splitlines()[2] == f"{alice.email} 30 minutes"


@pytest.mark.parametrize(
    "text",
    [
        "", "Subject alone", "Subject\nText", "\n\nText", "Subject\n\n", "S\n\n{secret}", "S\n\n{username.secret}", "S\n\n{",
        "S\n\n{}", "S\n\n{0}", "S\n\n}", "S\n\n{link[x]}", "S {nonsense}\n\nText", "S\n\n{link:%Y}", None, 7,
        "S\n\n{username.__class__}", "S\n\n{app.__class__.__mro__}", "S\n\n{link!x}",
    ],
)  # fmt: skip
def test_what_is_no_text_is_refused_at_once(make_letters, text):
    refused(ConfigError, make_letters, texts={"reset_password": text})


def test_a_text_for_no_mail_is_refused(make_letters):
    assert "reset_password" in refused(ConfigError, make_letters, texts={"welcome": "S\n\nText"}).hint


# -- nothing is smuggled in ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["{link}", "{0}", "{app.__class__}", "{", "}", "%s", "{{username}}", "${link}", "$link"]
)
def test_a_name_is_text_and_no_template(letters, name):
    mail = letters.write(letter("password_changed", username=name))
    assert f"Hello {name}," in mail.text


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(name=st.text(max_size=40))
def test_no_name_changes_what_else_stands_in_a_mail(make_letters, name):
    mail = make_letters().write(letter("email_changed", username=name))
    plain = make_letters().write(letter("email_changed", username="alice"))
    assert mail.text == plain.text.replace("Hello alice,", f"Hello {name},")
    assert (mail.to, mail.subject) == (plain.to, plain.subject)


def test_a_token_is_whole_in_its_link(site):
    for _ in range(5):
        token = site.reset_token(site.person())
        assert parse_qs(urlsplit(links(site.mail())[0]).query)["token"] == [token]


# -- who is written to --------------------------------------------------------------------------------------


def test_nobody_is_written_to_of_whom_nothing_is_known(letters):
    assert letters.write(letter("reset_password", to="", subject=None)) is None
    assert letters.write(letter("reset_password", subject="4711")) is None
    assert letters.write(letter("verify_email", subject="4711")) is None


@pytest.mark.parametrize("template", ["reset_password", "verify_email", "change_email"])
def test_a_deactivated_account_gets_no_link(site, letters, template):
    alice = site.person(is_active=False, email_verified=False)
    data = {"email": alice.email, "generation": site.jam.one_time_tokens.generation(alice.subject)}
    assert letters.write(letter(template, to=alice.email, subject=alice.subject, **data)) is None
    assert site.heard == []


def test_an_address_that_is_verified_or_another_by_now_gets_no_link(site, letters):
    alice = site.person()
    assert letters.write(letter("verify_email", to=alice.email, subject=alice.subject)) is None
    bob = site.person(email_verified=False)
    assert letters.write(letter("verify_email", to="former@example.org", subject=bob.subject)) is None
    assert letters.write(letter("verify_email", to=bob.email, subject=bob.subject)).to == bob.email


def test_a_link_to_set_a_password_goes_to_the_address_of_now(site, letters):
    alice = site.person()
    assert letters.write(letter("reset_password", to="former@example.org", subject=alice.subject)).to == alice.email


def test_a_letter_of_before_everything_ended_gets_no_link_to_change_an_address(site, letters):
    alice = site.person()
    data = {"email": "new@example.org", "generation": site.jam.one_time_tokens.generation(alice.subject)}
    late = letter("change_email", to="new@example.org", subject=alice.subject, **data)
    assert letters.write(late).to == "new@example.org"
    site.jam.revoke_all(alice.subject)
    assert letters.write(late) is None


def test_nothing_is_read_from_a_request():
    import jam.accounts.letters as module

    source = inspect.getsource(module)
    assert "flask" not in source
    assert "request." not in source
