"""``flask jam sessions``: where people are signed in, and its end."""

from __future__ import annotations

import functools
from typing import Any

import click
from flask.cli import AppGroup

from jam.accounts.manage import iso_time
from jam.ext.flask.command_context import (
    about_somebody,
    check_one_of,
    every_page,
    everyone_option,
    shared_jam,
    subject_named,
)
from jam.ext.flask.terminal import (
    as_json_option,
    confirm,
    print_json,
    print_table,
    printable,
    remark,
    say,
    shortened,
    yes_option,
)
from jam.jam import Jam

__all__ = ["sessions_group"]

_LOGINS = ("access_token", "refresh_token", "remember_me", "session")

sessions_group = AppGroup("sessions", help="Where people are signed in: browsers, and whatever holds refresh tokens.")


@sessions_group.command("list")
@about_somebody
@as_json_option
def list_sessions_command(*, name: str | None, subject: str | None, as_json: bool) -> None:
    """Show where somebody is signed in."""
    jam = shared_jam()
    found = _sessions(jam, subject_named(name, subject))
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["id"], one["kind"], shortened(str(one["device"].get("user_agent", ""))),
            shortened(str(one["device"].get("address", ""))), one["signed_in_at"], one["last_seen_at"], one["ends_at"],
        )
        for one in found
    ]  # fmt: skip
    print_table(("Id", "Kind", "Browser", "Address", "Signed in", "Last seen", "Ends"), rows)


@sessions_group.command("revoke")
@about_somebody
@click.option("--session-id", metavar="ID", help="The one that `list` shows under this id.")
@click.option("--all", "every", is_flag=True, help="All of theirs, and their access tokens.")
@everyone_option
@yes_option
def revoke_sessions_command(
    *, name: str | None, subject: str | None, session_id: str | None, every: bool, everyone: bool, yes: bool
) -> None:
    """Sign somebody out, or everyone; API tokens stay (ASVS 7.4.5)."""
    check_one_of(name, subject, everyone=everyone, session_id=session_id is not None, all=every)
    jam = shared_jam()
    if everyone:
        confirm("Sign everyone out?", yes=yes)
        _end_logins(jam, None)
        say("Everyone is signed out.")
        return
    whose = subject_named(name, subject)
    if session_id is None:
        _end_logins(jam, whose)
        say(printable(f"{name or whose} is signed out everywhere."))
        return
    ended = jam.logins.end(whose, session_id)
    if jam.refresh_tokens.revoke_by_id(whose, session_id):
        ended = True
        remark("An access token that it made lives on until it expires; --all ends these, too.")
    if not ended:
        raise click.ClickException("They have no such session.")
    say("1 session revoked.")


def _end_logins(jam: Jam, subject: str | None) -> None:
    """End every session, remembered browser, refresh token and access token of somebody, or of everyone (``None``)."""
    jam.revoke(subject, _LOGINS)
    if jam.settings.access_tokens.stateless:
        remark("Access tokens live on until they expire: access_tokens.stateless is set.")


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
        for one in every_page(functools.partial(jam.refresh_tokens.list, subject))
    ]  # fmt: skip
    return logins + families
