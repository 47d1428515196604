"""``flask jam sessions``: where people are signed in, and its end."""

import pytest

from jam import Jam
from jam.errors import CredentialError
from jam.ext.flask import JWTExtension
from tests.ext.flask.commands.at_a_shell import is_one_line


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
