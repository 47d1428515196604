"""``flask jam tokens``: made, listed, ended."""

import pytest

from jam.credentials.api_tokens import is_api_token
from jam.errors import CredentialError
from tests.ext.flask.commands.at_a_shell import is_one_line


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
