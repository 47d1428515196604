"""``flask jam users``, ``sessions``, ``tokens``, ``audit`` and ``mail``: what an administrator does at a shell.

No option takes a secret: other processes and the shell's history would see it. Passwords are asked for or read from
stdin, and a new API token is all that its command writes to stdout. Names, user agents and whatever else strangers have
written never reach the terminal raw.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
import msgspec
from flask import current_app
from flask.cli import AppGroup, with_appcontext

from jam.accounts.accounts import Accounts
from jam.accounts.audit import AuditLog, Entry
from jam.accounts.manage import iso_time
from jam.accounts.names import valid_username
from jam.accounts.users import Account
from jam.credentials.api_tokens import is_api_token
from jam.errors import ConfigError, JamError, RoleRequired, ScopeRequired, UserInactive, UsernameTaken, UserNotFound
from jam.events import Event, MailFailed, SubjectRevoked
from jam.ext.flask.accounts.context import EXTENSION
from jam.ext.flask.cli import print_table, printable, say
from jam.ext.flask.request import state_of
from jam.jam import Jam

__all__ = ["audit_command", "mail_group", "sessions_group", "tokens_group", "users_group"]

C = TypeVar("C", bound=Callable[..., Any])

PAGE = 1000  #: people or entries that are read at a time
MAILS = 25  #: letters that are sent between two words of progress
_LOGINS = ("access_token", "refresh_token", "remember_me", "session")
_DAY = 86_400.0
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": _DAY, "w": 7 * _DAY}
_AGO = re.compile(r"([0-9]{1,6})([smhdw])", re.ASCII)
_MAX_CELL = 60  # characters of what strangers made long, in a table
_MAX_STDIN = 4 * 4096 + 2  # bytes of the longest password, with the end of its line

_as_json = click.option("--json", "as_json", is_flag=True, help="For machines.")
_yes = click.option("--yes", is_flag=True, help="Do not ask whether that is meant.")
_everyone = click.option("--everyone", is_flag=True, help="Those of all people.")


def _about_somebody(command: C) -> C:
    command = click.option("--id", "subject", metavar="SUBJECT", help="Whom, by their subject instead.")(command)
    return click.argument("name", metavar="[USER]", required=False)(command)


# -- users --------------------------------------------------------------------------------------------------

users_group = AppGroup("users", help="The people and their accounts. USER is a user name or an e-mail address.")


@users_group.command("create")
@click.argument("username")
@click.option("--email", help="Their e-mail address.")
@click.option("--role", "roles", multiple=True, help="A role of theirs; repeatable.")
@click.option("--invite", is_flag=True, help="Send them a link to set a password of their own.")
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin: one line.")
@_as_json
def create_user_command(
    *, username: str, email: str | None, roles: Sequence[str], invite: bool, password_stdin: bool, as_json: bool
) -> None:
    """Make an account; its password is asked for, unless an option says otherwise."""
    flows = _flows()
    if invite and password_stdin:
        raise click.UsageError("--invite leaves the password to them: drop --password-stdin.")
    if invite and email is None:
        raise click.UsageError("--invite takes --email.")
    _check_names("roles", roles)
    if invite:
        _demand_mail(flows)
    if roles and "roles" not in flows.users.changeable:
        raise ConfigError("The app's users have no place for roles.", hint="Leave --role out, or give the model one.")
    if flows.users.find(valid_username(username)) is not None:  # nobody likes to type a password for nothing
        raise UsernameTaken
    password = None if invite else _read_password() if password_stdin else _ask_for_password()
    account = flows.registration.create(username, email, password)
    try:
        if roles:
            account = flows.management.set_roles(account.subject, roles)
        if invite:
            _send_reset(flows, account)
    except (JamError, click.ClickException) as error:
        text = str(error) if isinstance(error, JamError) else error.message
        raise click.ClickException(printable(f"The account was made, but: {text}")) from None
    if as_json:
        _print_json(_user_shown(account))
    else:
        _print_user(account)


@users_group.command("list")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many.")
@click.option("--offset", type=click.IntRange(0), default=0, help="How many to skip.")
@_as_json
def list_users_command(*, limit: int, offset: int, as_json: bool) -> None:
    """Show the people, in the order in which their accounts were made."""
    found, total = _users(_flows(), offset, limit)
    if as_json:
        _print_json([_user_shown(account) for account in found])
    else:
        rows = [
            (
                account.subject, _shortened(account.username), _shortened(account.email or ""),
                "yes" if account.is_active else "no", _shortened(", ".join(sorted(account.roles))),
                iso_time(account.created_at) or "",
            )
            for account in found
        ]  # fmt: skip
        print_table(("Id", "User name", "E-mail", "Active", "Roles", "Created"), rows)
    if offset + len(found) < total:
        _remark(f"{len(found)} of {total} people; --offset {offset + len(found)} shows the next ones.")


@users_group.command("show")
@_about_somebody
@_as_json
def show_user_command(*, name: str | None, subject: str | None, as_json: bool) -> None:
    """Show an account."""
    account = _account(name, subject)
    if as_json:
        _print_json(_user_shown(account))
    else:
        _print_user(account)


@users_group.command("deactivate")
@_about_somebody
@_yes
def deactivate_user_command(*, name: str | None, subject: str | None, yes: bool) -> None:
    """Let nobody use an account; its sessions and tokens end at once, and for good."""
    account = _account(name, subject)
    _confirm(f"Deactivate {_called(account)} and end every session and token of theirs?", yes=yes)
    _flows().management.deactivate(account.subject)
    _warn_of_other_processes(_flows().jam)
    say(f"{_called(account)} is deactivated.")


@users_group.command("reactivate")
@_about_somebody
def reactivate_user_command(*, name: str | None, subject: str | None) -> None:
    """Let an account be used again; what it held before stays dead."""
    account = _account(name, subject)
    if not account.is_active:  # or it would sign them out
        _flows().management.reactivate(account.subject)
    say(f"{_called(account)} is active.")


@users_group.command("delete")
@_about_somebody
@_yes
def delete_user_command(*, name: str | None, subject: str | None, yes: bool) -> None:
    """Delete an account; its sessions and tokens end at once."""
    flows, account = _flows(), _account(name, subject)
    _confirm(f"Delete {_called(account)}? This cannot be undone.", yes=yes)
    with _sending(flows, account.subject):
        flows.management.delete(account.subject)
    _warn_of_other_processes(flows.jam)
    say(f"{_called(account)} is deleted.")


def _names_options(noun: str) -> Callable[[C], C]:
    """The options of a command that changes a list of names."""

    def add(command: C) -> C:
        for option in (
            _as_json,
            click.option("--set", "only", multiple=True, metavar=noun.upper(), help="This, and no others; repeatable."),
            click.option("--remove", "removed", multiple=True, metavar=noun.upper(), help="Not this one; repeatable."),
            click.option("--add", "added", multiple=True, metavar=noun.upper(), help="This one, too; repeatable."),
            _about_somebody,
        ):
            command = option(command)
        return command

    return add


@users_group.command("roles")
@_names_options("role")
def roles_command(**asked: Any) -> None:
    """Change somebody's roles, or show them."""
    _change_names("roles", **asked)


@users_group.command("scopes")
@_names_options("scope")
def scopes_command(**asked: Any) -> None:
    """Change the scopes that somebody's credentials may have at most, or show them."""
    _change_names("scopes", **asked)


def _change_names(
    kind: str,
    *,
    name: str | None,
    subject: str | None,
    added: Sequence[str],
    removed: Sequence[str],
    only: Sequence[str],
    as_json: bool,
) -> None:
    _check_names(kind, (*added, *removed, *only))
    if only and (added or removed):
        raise click.UsageError(f"--set names all {kind}: drop --add and --remove.")
    if set(added) & set(removed):
        raise click.UsageError(f"{kind.capitalize()} are either added or removed.")
    account, manage = _account(name, subject), _flows().management
    before: frozenset[str] = getattr(account, kind)
    after = before
    if only and frozenset(only) != before:
        changed = getattr(manage, f"set_{kind}")(account.subject, only)
        after = getattr(changed, kind)
    elif (before | set(added)) - set(removed) != before:
        changed = getattr(manage, f"change_{kind}")(account.subject, add=added, remove=removed)
        after = getattr(changed, kind)
    if as_json:
        _print_json({"id": account.subject, "before": sorted(before), "after": sorted(after)})
    elif added or removed or only:
        say(printable(f"{account.username}: {_listed(before)} → {_listed(after)}"))
    else:
        say(printable(f"{account.username}: {_listed(before)}"))


@users_group.command("export")
@_about_somebody
def export_user_command(*, name: str | None, subject: str | None) -> None:
    """Write what is kept about a person to stdout, as JSON: for themselves."""
    _print_json(_flows().management.export(_account(name, subject).subject))


@users_group.command("send-reset")
@_about_somebody
def send_reset_command(*, name: str | None, subject: str | None) -> None:
    """Send somebody a link to set a new password; nobody else chooses it (ASVS 6.4.6)."""
    flows, account = _flows(), _account(name, subject)
    _demand_mail(flows)
    _send_reset(flows, account)
    say(printable(f"A link to set a new password is on its way to {account.email}."))


def _users(flows: Accounts, offset: int, limit: int) -> tuple[Sequence[Account], int]:
    """Some of the people, however many, and how many there are in all."""
    found: list[Account] = []
    while True:
        page, total = flows.users.list(offset + len(found), min(PAGE, limit - len(found)))
        found += page
        if not page or len(found) >= min(limit, total - offset):
            return found, total
        _progress(f"{len(found)} of {min(limit, total - offset)} people read")


def _send_reset(flows: Accounts, account: Account) -> None:
    if not account.is_active or account.email is None:
        raise click.ClickException(
            f"{_called(account)} is deactivated: reactivate the account first." if not account.is_active
            else f"{_called(account)} has no e-mail address."
        )  # fmt: skip
    found = flows.users.find(account.username)
    if found is None or found.subject != account.subject:  # what somebody is called may be another one's address
        raise click.ClickException(f"{_called(account)} is not found by their user name, so no link can be sent.")
    with _sending(flows, account.subject):
        flows.recovery.forgot(account.username)


def _read_password() -> str:
    """The password on stdin, without the end of its line."""
    data = sys.stdin.buffer.read(_MAX_STDIN + 1)
    if len(data) > _MAX_STDIN:
        raise click.ClickException("What came by stdin is longer than any password.")
    try:
        password = data.decode()
    except UnicodeDecodeError:
        raise click.ClickException("The password on stdin is not UTF-8.") from None
    password = password.removesuffix("\n").removesuffix("\r")
    if "\n" in password:
        raise click.ClickException("The password on stdin is one line.")
    return password


def _ask_for_password() -> str:
    if not sys.stdin.isatty():  # or it would be read from wherever stdin comes from, and shown
        raise click.UsageError("There is no terminal to ask for a password at: use --password-stdin, or --invite.")
    password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return password


def _check_names(kind: str, names: Sequence[str]) -> None:
    if not all(name and name.isprintable() for name in names):
        raise click.UsageError(f"{kind.capitalize()} have one or more printable characters.")


def _user_shown(account: Account) -> dict[str, Any]:
    return {
        **account.profile, "id": account.subject, "username": account.username, "email": account.email,
        "email_verified": account.email_verified, "has_password": account.password_hash is not None,
        "is_active": account.is_active, "roles": sorted(account.roles), "scopes": sorted(account.scopes),
        "created_at": iso_time(account.created_at),
    }  # fmt: skip


def _print_user(account: Account) -> None:
    verified = "verified" if account.email_verified else "not verified"
    lines = {
        "Id": account.subject,
        "User name": account.username,
        "E-mail": f"{account.email} ({verified})" if account.email else "none",
        "Password": "none" if account.password_hash is None else "set",
        "Active": "yes" if account.is_active else "no",
        "Roles": _listed(account.roles),
        "Scopes": _listed(account.scopes),
        "Created": iso_time(account.created_at) or "unknown",
        **{name: str(value) for name, value in account.profile.items()},
    }
    for title, text in lines.items():
        say(printable(f"{title + ':':10} {text}"))


# -- sessions -----------------------------------------------------------------------------------------------

sessions_group = AppGroup("sessions", help="Where people are signed in: browsers, and whatever holds refresh tokens.")


@sessions_group.command("list")
@_about_somebody
@_as_json
def list_sessions_command(*, name: str | None, subject: str | None, as_json: bool) -> None:
    """Show where somebody is signed in."""
    jam = _shared_jam()
    found = _sessions(jam, _subject(name, subject))
    if as_json:
        _print_json(found)
        return
    rows = [
        (
            one["id"], one["kind"], _shortened(str(one["device"].get("user_agent", ""))),
            _shortened(str(one["device"].get("address", ""))), one["signed_in_at"], one["last_seen_at"], one["ends_at"],
        )
        for one in found
    ]  # fmt: skip
    print_table(("Id", "Kind", "Browser", "Address", "Signed in", "Last seen", "Ends"), rows)


@sessions_group.command("revoke")
@_about_somebody
@click.option("--session-id", metavar="ID", help="The one that `list` shows under this id.")
@click.option("--all", "every", is_flag=True, help="All of theirs, and their access tokens.")
@_everyone
@_yes
def revoke_sessions_command(
    *, name: str | None, subject: str | None, session_id: str | None, every: bool, everyone: bool, yes: bool
) -> None:
    """Sign somebody out, or everyone; API tokens stay (ASVS 7.4.5)."""
    _check_one_of(name, subject, everyone=everyone, session_id=session_id is not None, all=every)
    jam = _shared_jam()
    if everyone:
        _confirm("Sign everyone out?", yes=yes)
        _end_logins(jam, None)
        say("Everyone is signed out.")
        return
    whose = _subject(name, subject)
    if session_id is None:
        _end_logins(jam, whose)
        say(printable(f"{name or whose} is signed out everywhere."))
        return
    ended = jam.logins.end(whose, session_id)
    if jam.refresh_tokens.revoke_by_id(whose, session_id):
        ended = True
        _remark("An access token that it made lives on until it expires; --all ends these, too.")
    if not ended:
        raise click.ClickException("They have no such session.")
    say("1 session revoked.")


def _end_logins(jam: Jam, subject: str | None) -> None:
    """End every session, remembered browser, refresh token and access token of somebody, or of everyone (``None``)."""
    now = jam.clock()
    jam.store.advance(subject, _LOGINS, now)
    jam.events.emit(SubjectRevoked(at=now, subject=subject, kinds=_LOGINS))
    if jam.settings.access_tokens.stateless:
        _remark("Access tokens live on until they expire: access_tokens.stateless is set.")


def _sessions(jam: Jam, subject: str) -> list[dict[str, Any]]:
    logins = [
        {
            "id": one.id, "kind": "remembered" if one.remembered else "session", "device": dict(one.device),
            "signed_in_at": iso_time(one.signed_in_at), "last_seen_at": iso_time(one.last_seen_at),
            "ends_at": iso_time(one.ends_at),
        }
        for one in jam.logins.list(subject)
    ]  # fmt: skip
    families = [
        {
            "id": one.id, "kind": "refresh token", "device": dict(one.details),
            "signed_in_at": iso_time(one.authenticated_at or one.created_at),
            "last_seen_at": iso_time(one.rotated_at), "ends_at": iso_time(one.ends_at),
        }
        for one in _every_page(functools.partial(jam.refresh_tokens.list, subject))
    ]  # fmt: skip
    return logins + families


# -- API tokens ---------------------------------------------------------------------------------------------

tokens_group = AppGroup("tokens", help="API tokens: what scripts hold.")


@tokens_group.command("create")
@_about_somebody
@click.option("--name", "title", required=True, help="What it is called in lists.")
@click.option("--scope", "scopes", multiple=True, help="What it may be used for; repeatable.")
@click.option("--role", "roles", multiple=True, help="A role that it carries; repeatable.")
@click.option("--days", type=click.IntRange(1, 36_600), help="When it ends; api_tokens.lifetime if left out.")
def create_token_command(
    *,
    name: str | None,
    subject: str | None,
    title: str,
    scopes: Sequence[str],
    roles: Sequence[str],
    days: int | None,
) -> None:
    """Make an API token and write it, and nothing else, to stdout: this once."""
    jam = _shared_jam()
    whose = _subject(name, subject)
    if EXTENSION in current_app.extensions:
        _check_token(_account(None, whose), scopes, roles)
    lifetime = None if days is None else days * _DAY
    token = jam.api_tokens.create(whose, title, scopes=scopes, roles=roles, lifetime=lifetime)
    _remark("Keep it now: it is not shown again.")
    click.echo(token)


@tokens_group.command("list")
@_about_somebody
@_as_json
def list_tokens_command(*, name: str | None, subject: str | None, as_json: bool) -> None:
    """Show somebody's API tokens; none of them is shown itself."""
    jam = _shared_jam()
    tokens = list(_every_page(functools.partial(jam.api_tokens.list, _subject(name, subject))))
    if as_json:
        shown = [
            {
                "id": one.id, "name": one.name, "scopes": sorted(one.scopes), "roles": sorted(one.roles),
                "created_at": iso_time(one.created_at), "last_used_at": iso_time(one.last_used_at),
                "ends_at": iso_time(one.ends_at),
            }
            for one in tokens
        ]  # fmt: skip
        _print_json(shown)
        return
    rows = [
        (
            one.id, one.name, " ".join(sorted(one.scopes)), ", ".join(sorted(one.roles)),
            iso_time(one.created_at) or "", iso_time(one.last_used_at) or "never", iso_time(one.ends_at) or "",
        )
        for one in tokens
    ]  # fmt: skip
    print_table(("Id", "Name", "Scopes", "Roles", "Created", "Last used", "Ends"), rows)


@tokens_group.command("revoke")
@_about_somebody
@click.option("--token-id", metavar="ID", help="The one that `list` shows under this id.")
@click.option("--all", "every", is_flag=True, help="All of theirs.")
@_everyone
@_yes
def revoke_tokens_command(
    *, name: str | None, subject: str | None, token_id: str | None, every: bool, everyone: bool, yes: bool
) -> None:
    """End one of somebody's API tokens, all of theirs, or everyone's."""
    _check_one_of(name, subject, everyone=everyone, token_id=token_id is not None, all=every)
    jam = _shared_jam()
    if everyone:
        _confirm("End the API tokens of everyone?", yes=yes)
        jam.api_tokens.revoke_all(None)
        say("Every API token is revoked.")
        return
    whose = _subject(name, subject)
    if token_id is None:
        _confirm(f"End every API token of {name or whose}?", yes=yes)
        jam.api_tokens.revoke_all(whose)
        say(printable(f"Every API token of {name or whose} is revoked."))
        return
    if is_api_token(token_id):
        raise click.UsageError("--token-id takes the id that `list` shows: the token itself is in your history now.")
    if not jam.api_tokens.revoke_by_id(whose, token_id):
        raise click.ClickException("They have no such API token.")
    say("1 API token revoked.")


def _check_token(account: Account, scopes: Sequence[str], roles: Sequence[str]) -> None:
    """Refuse a token that nobody could use, or that is wider than its owner."""
    if not account.is_active:
        raise UserInactive(f"{_called(account)} is deactivated.", hint="Reactivate the account first.")
    if missing := set(scopes) - account.scopes:
        raise ScopeRequired(f"{_called(account)} does not have {_listed(missing)} among their scopes.")
    if missing := set(roles) - account.roles:
        raise RoleRequired(f"{_called(account)} does not have {_listed(missing)} among their roles.")


# -- the audit log ------------------------------------------------------------------------------------------


@click.command("audit")
@click.argument("name", metavar="[USER]", required=False)
@click.option("--subject", "--id", help="Whose account it was about.")
@click.option("--event", help="What happened: SignInFailed, for example.")
@click.option("--address", help="Where the request came from.")
@click.option("--since", metavar="TIME", help="Not before: 2h or 3d ago, or ISO 8601 (UTC unless it says otherwise).")
@click.option("--until", metavar="TIME", help="Only before.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="For machines: one object a line.")
@with_appcontext
def audit_command(
    *,
    name: str | None,
    subject: str | None,
    event: str | None,
    address: str | None,
    since: str | None,
    until: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Search the audit log, the latest entries first."""
    flows = _flows()
    now = flows.jam.clock()
    whose = None if name is None and subject is None else _subject(name, subject)
    asked = {
        "subject": whose, "event": event, "address": address,
        "since": _time(since, "--since", now), "until": _time(until, "--until", now),
    }  # fmt: skip
    log = flows.audit
    if log is None:
        raise ConfigError(
            "Nothing is written down: there is no audit.url.",
            hint="Set audit.url, for example to file:///var/log/app/audit.jsonl.",
        )
    entries = _entries(log, limit, asked)
    if as_json:
        for entry in entries:
            _print_json(_entry_shown(entry), indent=None)
        return
    rows = [
        (
            _when(entry.at), _shortened(entry.event), _shortened(entry.subject or ""),
            _shortened(entry.address or ""), _shortened(_details(entry), 2 * _MAX_CELL),
        )
        for entry in entries
    ]  # fmt: skip
    print_table(("Time", "Event", "Subject", "Address", "Details"), rows)


def _entries(log: AuditLog, limit: int, asked: Mapping[str, Any]) -> Iterator[Entry]:
    before: str | None = None
    while limit > 0:
        page = log.search(limit=min(limit, PAGE), before=before, **asked)
        yield from page
        limit -= len(page)
        before = page[-1].cursor if len(page) == PAGE else None
        if before is None:
            return


def _time(text: str | None, option: str, now: float) -> float | None:
    """A time as people write it: so long ago, or a date, maybe with a time."""
    if text is None:
        return None
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now - int(ago[1]) * _UNITS[ago[2]]
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise click.UsageError(f"{option} takes 30m, 2h, 3d, 1w, or ISO 8601 such as 2027-01-15T08:00Z.") from None


def _entry_shown(entry: Entry) -> dict[str, Any]:
    return {
        "at": _when(entry.at), "event": entry.event, "subject": entry.subject, "address": entry.address,
        "details": dict(entry.details), "count": entry.count,
    }  # fmt: skip


def _when(at: float) -> str:
    """A time that anybody may have written into the log."""
    try:
        return iso_time(at) or ""
    except (ValueError, OverflowError, OSError):
        return f"{at:g}"


def _details(entry: Entry) -> str:
    said = [f"{name}={json.dumps(value)}" for name, value in entry.details.items()]
    return " ".join((f"{entry.count} times", *said) if entry.count > 1 else said)


# -- mail ---------------------------------------------------------------------------------------------------

mail_group = AppGroup("mail", help="The outbox: mails that have not left yet.")


@mail_group.command("send")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="At most so many.")
def send_mail_command(*, limit: int) -> None:
    """Send what is due; for a job every few minutes. Exits with 1 if a mail could not be sent."""
    flows = _flows()
    _demand_mail(flows)
    sent = failed = dropped = 0
    while (left := limit - sent - failed - dropped) > 0:
        done = flows.outbox.deliver(min(left, MAILS))
        sent, failed, dropped = sent + done.sent, failed + done.failed, dropped + done.dropped
        if not done.sent + done.failed + done.dropped:
            break
        _progress(f"{sent + failed + dropped} done")
    say(f"{sent} sent, {failed} failed, {dropped} needed no mail.")
    if failed:
        raise SystemExit(1)


@mail_group.command("list")
@_as_json
def list_mail_command(*, as_json: bool) -> None:
    """Show what waits in the outbox."""
    _shared_jam()
    letters = _flows().outbox.waiting()
    if as_json:
        shown = [
            {
                "id": one.id, "template": one.template, "to": one.to, "subject": one.subject,
                "created_at": iso_time(one.created_at), "attempts": one.attempts,
            }
            for one in letters
        ]  # fmt: skip
        _print_json(shown)
        return
    rows = [
        (one.id, one.template, _shortened(one.to), one.subject or "", iso_time(one.created_at) or "", str(one.attempts))
        for one in letters
    ]
    print_table(("Id", "Mail", "To", "Subject", "Since", "Attempts"), rows)


def _demand_mail(flows: Accounts) -> None:
    """Refuse what would end in no mail, or in one whose link is good in this process only."""
    _shared_jam()
    if not flows.outbox.can_send:
        raise ConfigError(
            "No mail can be sent: there is no mail.url.",
            hint="Set mail.url to smtp://user:password@host:587 and mail.sender, or in development to console://.",
        )


@contextlib.contextmanager
def _sending(flows: Accounts, subject: str) -> Iterator[None]:
    """Give the mails of a block the time to leave: the thread that sends them ends with this process."""
    failures: list[MailFailed] = []

    def hear(event: Event) -> None:
        if isinstance(event, MailFailed) and event.subject == subject:
            failures.append(event)

    unsubscribe = flows.jam.events.subscribe(hear)
    try:
        yield
        ended = flows.outbox.join(2 * flows.jam.settings.mail.timeout)
    finally:
        unsubscribe()
    if any(failure.gave_up for failure in failures):
        raise click.ClickException("The mail could not be sent, and will not be tried again.")
    if failures or not ended:
        _remark("The mail has not left yet; `flask jam mail send`, or the app, tries again.")


# -- who, and what is said ----------------------------------------------------------------------------------


def _flows() -> Accounts:
    extension = current_app.extensions.get(EXTENSION)
    if extension is None:
        raise ConfigError(
            "This app has no accounts.",
            hint="Set up AccountsExtension(jam, app, users=...), which knows where its people are kept.",
        )
    flows: Accounts = extension.accounts
    return flows


def _shared_jam() -> Jam:
    """The app's ``Jam``, if a command can see and end what the app's workers hold."""
    jam = state_of(current_app).jam
    if not jam.store.shared:
        raise ConfigError(
            "The store is each process's own, so that no command sees what the app's workers hold.",
            hint="Set JAM_STORE, for example to sqlite:///jam.sqlite3.",
        )
    return jam


def _warn_of_other_processes(jam: Jam) -> None:
    if not jam.store.shared:
        _remark(
            "The store is each process's own: what they hold in others is only refused where the user is looked up."
        )


def _account(name: str | None, subject: str | None) -> Account:
    """Who was named.

    Raises:
        UserNotFound: If nobody is called so.
    """
    _check_somebody(name, subject)
    users = _flows().users
    account = users.find(name) if name is not None else users.get(subject or "")
    if account is None:
        raise UserNotFound(hint="`flask jam users list` shows who there is.")
    return account


def _subject(name: str | None, subject: str | None) -> str:
    """Whose subject was named; one that was given itself may be of somebody who is gone."""
    _check_somebody(name, subject)
    if not name:
        return subject or ""
    if EXTENSION not in current_app.extensions:
        raise ConfigError(
            "People have names only in an app that has accounts.",
            hint="Name them by --id SUBJECT, or set up AccountsExtension(jam, app, users=...).",
        )
    return _account(name, None).subject


def _check_somebody(name: str | None, subject: str | None) -> None:
    if bool(name) == bool(subject):
        raise click.UsageError("Name one person: by user name, by e-mail address, or by --id SUBJECT.")


def _check_one_of(name: str | None, subject: str | None, *, everyone: bool, **others: bool) -> None:
    """Refuse a revocation that does not say exactly what it is about."""
    if [everyone, *others.values()].count(True) != 1:
        options = ", ".join(f"--{other.replace('_', '-')}" for other in others)
        raise click.UsageError(f"Say what is to end, by one of {options}, --everyone.")
    if everyone and (name or subject):
        raise click.UsageError("--everyone is not about one person.")


def _confirm(question: str, *, yes: bool) -> None:
    if not yes:
        click.confirm(printable(question), abort=True, err=True)


def _every_page(page: Callable[..., Sequence[Any]]) -> Iterator[Any]:
    after = ""
    while found := page(after, PAGE):
        yield from found
        after = found[-1].id


def _called(account: Account) -> str:
    return printable(f"{account.username} (id {account.subject})")


def _listed(names: frozenset[str] | set[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _shortened(text: str, length: int = _MAX_CELL) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _print_json(value: Any, indent: int | None = 2) -> None:
    """Print JSON in printable ASCII, so that a terminal takes no part of it for a command."""
    click.echo(json.dumps(msgspec.to_builtins(value, enc_hook=str), indent=indent))


def _remark(text: str) -> None:
    click.echo(printable(text), err=True)


def _progress(text: str) -> None:
    """Say how far something is, to whoever watches: a nightly job has no use for it."""
    if sys.stderr.isatty():
        click.echo(f"\r{text}", err=True)
