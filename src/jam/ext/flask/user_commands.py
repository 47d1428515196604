"""``flask jam users``: the people, what they may do, and how they sign in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from flask.cli import AppGroup

from jam.accounts.accounts import Accounts
from jam.accounts.manage import iso_time
from jam.accounts.names import email_address, valid_username
from jam.accounts.users import Account
from jam.errors import ConcurrentUpdate, ConfigError, JamError, OneTimeTokenInvalid, UsernameTaken
from jam.ext.flask.command_context import (
    PAGE,
    about_somebody,
    account_named,
    app_accounts,
    called,
    shared_jam,
    warn_of_other_processes,
)
from jam.ext.flask.mail_commands import demand_mail, sending
from jam.ext.flask.terminal import (
    as_json_option,
    ask_for_password,
    confirm,
    listed,
    print_json,
    print_table,
    printable,
    progress,
    read_passwords,
    remark,
    say,
    shortened,
    yes_option,
)

__all__ = ["users_group"]

C = TypeVar("C", bound=Callable[..., Any])

users_group = AppGroup("users", help="The people and their accounts. USER is a user name or an e-mail address.")


@users_group.command("create")
@click.argument("username")
@click.option("--email", help="Their e-mail address.")
@click.option("--role", "roles", multiple=True, help="A role of theirs; repeatable.")
@click.option("--invite", is_flag=True, help="Send them a link to set a password of their own.")
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin: one line.")
@as_json_option
def create_user_command(
    *, username: str, email: str | None, roles: Sequence[str], invite: bool, password_stdin: bool, as_json: bool
) -> None:
    """Make an account; its password is asked for, unless an option says otherwise."""
    flows = app_accounts()
    if invite and password_stdin:
        raise click.UsageError("--invite leaves the password to them: drop --password-stdin.")
    if invite and email is None:
        raise click.UsageError("--invite takes --email.")
    _check_names("roles", roles)
    if invite:
        demand_mail(flows)
    if roles and "roles" not in flows.users.changeable:
        raise ConfigError("The app's users have no place for roles.", hint="Leave --role out, or give the model one.")
    if flows.users.find(valid_username(username)) is not None:  # nobody likes to type a password for nothing
        raise UsernameTaken
    password = None
    if password_stdin:
        (password,) = read_passwords()
    elif not invite:
        password = ask_for_password(instead="--password-stdin, or --invite")
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
        print_json(_user_shown(account))
    else:
        _print_user(account)


@users_group.command("list")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many.")
@click.option("--offset", type=click.IntRange(0), default=0, help="How many to skip.")
@as_json_option
def list_users_command(*, limit: int, offset: int, as_json: bool) -> None:
    """Show the people, in the order in which their accounts were made."""
    found, total = _users(app_accounts(), offset, limit)
    if as_json:
        print_json([_user_shown(account) for account in found])
    else:
        rows = [
            (
                account.subject, shortened(account.username), shortened(account.email or ""),
                "yes" if account.is_active else "no", shortened(", ".join(sorted(account.roles))),
                iso_time(account.created_at) or "",
            )
            for account in found
        ]  # fmt: skip
        print_table(("Id", "User name", "E-mail", "Active", "Roles", "Created"), rows)
    if offset + len(found) < total:
        remark(f"{len(found)} of {total} people; --offset {offset + len(found)} shows the next ones.")


@users_group.command("show")
@about_somebody
@as_json_option
def show_user_command(*, name: str | None, subject: str | None, as_json: bool) -> None:
    """Show an account."""
    account = account_named(name, subject)
    if as_json:
        print_json(_user_shown(account))
    else:
        _print_user(account)


@users_group.command("deactivate")
@about_somebody
@yes_option
def deactivate_user_command(*, name: str | None, subject: str | None, yes: bool) -> None:
    """Let nobody use an account; its sessions and tokens end at once, and for good."""
    account = account_named(name, subject)
    confirm(f"Deactivate {called(account)} and end every session and token of theirs?", yes=yes)
    app_accounts().management.deactivate(account.subject)
    warn_of_other_processes(app_accounts().jam)
    say(f"{called(account)} is deactivated.")


@users_group.command("reactivate")
@about_somebody
def reactivate_user_command(*, name: str | None, subject: str | None) -> None:
    """Let an account be used again; what it held before stays dead."""
    account = account_named(name, subject)
    if not account.is_active:  # or it would sign them out
        app_accounts().management.reactivate(account.subject)
    say(f"{called(account)} is active.")


@users_group.command("delete")
@about_somebody
@yes_option
def delete_user_command(*, name: str | None, subject: str | None, yes: bool) -> None:
    """Delete an account; its sessions and tokens end at once."""
    flows, account = app_accounts(), account_named(name, subject)
    confirm(f"Delete {called(account)}? This cannot be undone.", yes=yes)
    with sending(flows, account.subject):
        flows.management.delete(account.subject)
    warn_of_other_processes(flows.jam)
    say(f"{called(account)} is deleted.")


def _names_options(noun: str) -> Callable[[C], C]:
    """The options of a command that changes a list of names."""

    def add(command: C) -> C:
        for option in (
            as_json_option,
            click.option("--set", "only", multiple=True, metavar=noun.upper(), help="This, and no others; repeatable."),
            click.option("--remove", "removed", multiple=True, metavar=noun.upper(), help="Not this one; repeatable."),
            click.option("--add", "added", multiple=True, metavar=noun.upper(), help="This one, too; repeatable."),
            about_somebody,
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
    account, manage = account_named(name, subject), app_accounts().management
    before: frozenset[str] = getattr(account, kind)
    after = before
    if only and frozenset(only) != before:
        changed = getattr(manage, f"set_{kind}")(account.subject, only)
        after = getattr(changed, kind)
    elif (before | set(added)) - set(removed) != before:
        changed = getattr(manage, f"change_{kind}")(account.subject, add=added, remove=removed)
        after = getattr(changed, kind)
    if as_json:
        print_json({"id": account.subject, "before": sorted(before), "after": sorted(after)})
    elif added or removed or only:
        say(printable(f"{account.username}: {listed(before)} → {listed(after)}"))
    else:
        say(printable(f"{account.username}: {listed(before)}"))


@users_group.command("export")
@about_somebody
def export_user_command(*, name: str | None, subject: str | None) -> None:
    """Write what is kept about a person to stdout, as JSON: for themselves."""
    print_json(app_accounts().management.export(account_named(name, subject).subject))


@users_group.command("send-reset")
@about_somebody
def send_reset_command(*, name: str | None, subject: str | None) -> None:
    """Send somebody a link to set a new password; nobody else chooses it (ASVS 6.4.6)."""
    flows, account = app_accounts(), account_named(name, subject)
    demand_mail(flows)
    _send_reset(flows, account)
    say(printable(f"A link to set a new password is on its way to {account.email}."))


@users_group.command("password")
@about_somebody
@click.option("--password-stdin", is_flag=True, help="Read the present password and the new one from stdin: two lines.")
def password_command(*, name: str | None, subject: str | None, password_stdin: bool) -> None:
    """Change a password, for whoever knows the present one (ASVS 6.2.3); every login of theirs ends."""
    flows, account = app_accounts(), account_named(name, subject)
    shared_jam()  # or their logins would live on in the app's workers
    _check_active(account)
    if account.password_hash is None:
        raise click.ClickException(
            f"{called(account)} has no password: `flask jam users send-reset` lets them set one."
        )
    if password_stdin:
        present, new = read_passwords(2)
    else:
        present, new = ask_for_password("Present password", twice=False), ask_for_password("New password")
    with sending(flows, account.subject, done="The password was changed"):
        flows.management.change_password(account.subject, present, new)
    say(f"The password of {called(account)} is changed, and every login of theirs has ended.")


@users_group.command("email")
@click.argument("words", metavar="[USER] NEW", nargs=-1)
@click.option("--id", "subject", metavar="SUBJECT", help="Whom, by their subject instead.")
@yes_option
def email_command(*, words: Sequence[str], subject: str | None, yes: bool) -> None:
    """Change somebody's e-mail address at once, to be verified; the former one is told (ASVS 6.3.7)."""
    if len(words) != (1 if subject else 2):
        raise click.UsageError("Name one person (--id SUBJECT, or a user name or address first), and the new address.")
    *names, new = words
    flows, account = app_accounts(), account_named(names[0] if names else None, subject)
    email = email_address(new).address
    if email == account.email:
        say(printable(f"{email} is the address of {called(account)} already."))
        return
    if flows.outbox.can_send:
        shared_jam()  # or the link that verifies it would be good in this process only
    else:
        remark("There is no mail.url: no mail is sent, neither to the former address nor to the new one.")
    confirm(f"Change the e-mail address of {called(account)} from {account.email or 'none'} to {email}?", yes=yes)
    try:
        with sending(flows, account.subject, done="The address was changed"):
            changed = flows.emails.set(account.subject, email)
    except OneTimeTokenInvalid:  # there is no link here: somebody else changed it this very moment
        raise ConcurrentUpdate from None
    say(printable(f"The e-mail address of {called(account)} is {_email_shown(changed)}."))


@users_group.command("verify")
@about_somebody
def verify_command(*, name: str | None, subject: str | None) -> None:
    """Send somebody the link that verifies their e-mail address, unless it is verified."""
    flows, account = app_accounts(), account_named(name, subject)
    email = _reachable_at(account)
    if account.email_verified:
        say(printable(f"{email} is verified already."))
        return
    demand_mail(flows)
    with sending(flows, account.subject):
        flows.emails.send_verification(account)
    say(printable(f"A link to verify the address is on its way to {email}."))


def _users(flows: Accounts, offset: int, limit: int) -> tuple[Sequence[Account], int]:
    """Some of the people, however many, and how many there are in all."""
    found: list[Account] = []
    while True:
        page, total = flows.users.list(offset + len(found), min(PAGE, limit - len(found)))
        found += page
        if not page or len(found) >= min(limit, total - offset):
            return found, total
        progress(f"{len(found)} of {min(limit, total - offset)} people read")


def _send_reset(flows: Accounts, account: Account) -> None:
    _reachable_at(account)
    found = flows.users.find(account.username)
    if found is None or found.subject != account.subject:  # what somebody is called may be another one's address
        raise click.ClickException(f"{called(account)} is not found by their user name, so no link can be sent.")
    with sending(flows, account.subject):
        flows.recovery.forgot(account.username)


def _reachable_at(account: Account) -> str:
    """The address that a link for somebody goes to."""
    _check_active(account)
    if account.email is None:
        raise click.ClickException(f"{called(account)} has no e-mail address.")
    return account.email


def _check_active(account: Account) -> None:
    if not account.is_active:
        raise click.ClickException(f"{called(account)} is deactivated: reactivate the account first.")


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
    lines = {
        "Id": account.subject,
        "User name": account.username,
        "E-mail": _email_shown(account),
        "Password": "none" if account.password_hash is None else "set",
        "Active": "yes" if account.is_active else "no",
        "Roles": listed(account.roles),
        "Scopes": listed(account.scopes),
        "Created": iso_time(account.created_at) or "unknown",
        **{name: str(value) for name, value in account.profile.items()},
    }
    for title, text in lines.items():
        say(printable(f"{title + ':':10} {text}"))


def _email_shown(account: Account) -> str:
    if not account.email:
        return "none"
    return f"{account.email} ({'verified' if account.email_verified else 'not verified'})"
