"""``flask jam audit``: what happened."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import click
from flask.cli import with_appcontext

from jam.accounts.audit import AuditLog, Entry
from jam.accounts.manage import iso_time
from jam.errors import ConfigError
from jam.ext.flask.command_context import PAGE, app_accounts, subject_named
from jam.ext.flask.terminal import print_json, print_table, shortened

__all__ = ["audit_command"]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 7 * 86_400.0}
_AGO = re.compile(r"([0-9]{1,6})([smhdw])", re.ASCII)
_MAX_DETAILS = 120  # characters, in a table


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
    flows = app_accounts()
    now = flows.jam.clock()
    whose = None if name is None and subject is None else subject_named(name, subject)
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
            print_json(_entry_shown(entry), indent=None)
        return
    rows = [
        (
            _when(entry.at), shortened(entry.event), shortened(entry.subject or ""),
            shortened(entry.address or ""), shortened(_details(entry), _MAX_DETAILS),
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
