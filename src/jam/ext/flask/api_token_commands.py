"""``flask jam tokens``: API tokens are made, listed and ended. A new one is all that its command writes to stdout."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import click
from flask import current_app
from flask.cli import AppGroup

from jam.accounts.manage import iso_time
from jam.accounts.users import Account
from jam.credentials.api_tokens import is_api_token
from jam.errors import RoleRequired, ScopeRequired, UserInactive
from jam.ext.flask.accounts.context import EXTENSION
from jam.ext.flask.command_context import (
    about_somebody,
    account_named,
    called,
    check_one_of,
    every_page,
    everyone_option,
    shared_jam,
    subject_named,
)
from jam.ext.flask.terminal import (
    as_json_option,
    confirm,
    listed,
    print_json,
    print_table,
    printable,
    remark,
    say,
    yes_option,
)

__all__ = ["tokens_group"]

_DAY = 86_400.0

tokens_group = AppGroup("tokens", help="API tokens: what scripts hold.")


@tokens_group.command("create")
@about_somebody
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
    jam = shared_jam()
    whose = subject_named(name, subject)
    if EXTENSION in current_app.extensions:
        _check_token(account_named(None, whose), scopes, roles)
    lifetime = None if days is None else days * _DAY
    token = jam.api_tokens.create(whose, title, scopes=scopes, roles=roles, lifetime=lifetime)
    remark("Keep it now: it is not shown again.")
    click.echo(token)


@tokens_group.command("list")
@about_somebody
@as_json_option
def list_tokens_command(*, name: str | None, subject: str | None, as_json: bool) -> None:
    """Show somebody's API tokens; none of them is shown itself."""
    jam = shared_jam()
    tokens = list(every_page(functools.partial(jam.api_tokens.list, subject_named(name, subject))))
    if as_json:
        shown = [
            {
                "id": one.id, "name": one.name, "scopes": sorted(one.scopes), "roles": sorted(one.roles),
                "created_at": iso_time(one.created_at), "last_used_at": iso_time(one.last_used_at),
                "ends_at": iso_time(one.ends_at),
            }
            for one in tokens
        ]  # fmt: skip
        print_json(shown)
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
@about_somebody
@click.option("--token-id", metavar="ID", help="The one that `list` shows under this id.")
@click.option("--all", "every", is_flag=True, help="All of theirs.")
@everyone_option
@yes_option
def revoke_tokens_command(
    *, name: str | None, subject: str | None, token_id: str | None, every: bool, everyone: bool, yes: bool
) -> None:
    """End one of somebody's API tokens, all of theirs, or everyone's."""
    check_one_of(name, subject, everyone=everyone, token_id=token_id is not None, all=every)
    jam = shared_jam()
    if everyone:
        confirm("End the API tokens of everyone?", yes=yes)
        jam.api_tokens.revoke_all(None)
        say("Every API token is revoked.")
        return
    whose = subject_named(name, subject)
    if token_id is None:
        confirm(f"End every API token of {name or whose}?", yes=yes)
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
        raise UserInactive(f"{called(account)} is deactivated.", hint="Reactivate the account first.")
    if missing := set(scopes) - account.scopes:
        raise ScopeRequired(f"{called(account)} does not have {listed(missing)} among their scopes.")
    if missing := set(roles) - account.roles:
        raise RoleRequired(f"{called(account)} does not have {listed(missing)} among their roles.")
