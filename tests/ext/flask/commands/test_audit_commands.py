"""``flask jam audit``: what happened."""

import contextlib
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jam.accounts.audit import Entry
from jam.errors import BadCredentials
from jam.ext.flask.accounts import AccountsExtension
from jam.ext.flask.command_context import PAGE
from tests.ext.flask.commands.at_a_shell import PASSWORD, is_harmless


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
