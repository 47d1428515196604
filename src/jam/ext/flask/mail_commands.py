"""``flask jam mail``: the outbox is emptied and shown; and what other commands need to send mail."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import click
from flask.cli import AppGroup

from jam.accounts.accounts import Accounts
from jam.accounts.manage import iso_time
from jam.errors import ConfigError
from jam.events import Event, MailFailed
from jam.ext.flask.command_context import app_accounts, shared_jam
from jam.ext.flask.terminal import as_json_option, print_json, print_table, progress, remark, say, shortened

__all__ = ["MAILS", "demand_mail", "mail_group", "sending"]

MAILS = 25  #: letters that are sent between two words of progress

mail_group = AppGroup("mail", help="The outbox: mails that have not left yet.")


@mail_group.command("send")
@click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="At most so many.")
def send_mail_command(*, limit: int) -> None:
    """Send what is due; for a job every few minutes. Exits with 1 if a mail could not be sent."""
    flows = app_accounts()
    demand_mail(flows)
    sent = failed = dropped = 0
    while (left := limit - sent - failed - dropped) > 0:
        done = flows.outbox.deliver(min(left, MAILS))
        sent, failed, dropped = sent + done.sent, failed + done.failed, dropped + done.dropped
        if not done.sent + done.failed + done.dropped:
            break
        progress(f"{sent + failed + dropped} done")
    say(f"{sent} sent, {failed} failed, {dropped} needed no mail.")
    if failed:
        raise SystemExit(1)


@mail_group.command("list")
@as_json_option
def list_mail_command(*, as_json: bool) -> None:
    """Show what waits in the outbox."""
    shared_jam()
    letters = app_accounts().outbox.waiting()
    if as_json:
        shown = [
            {
                "id": one.id, "template": one.template, "to": one.to, "subject": one.subject,
                "created_at": iso_time(one.created_at), "attempts": one.attempts,
            }
            for one in letters
        ]  # fmt: skip
        print_json(shown)
        return
    rows = [
        (one.id, one.template, shortened(one.to), one.subject or "", iso_time(one.created_at) or "", str(one.attempts))
        for one in letters
    ]
    print_table(("Id", "Mail", "To", "Subject", "Since", "Attempts"), rows)


def demand_mail(flows: Accounts) -> None:
    """Refuse what would end in no mail, or in one whose link is good in this process only.

    Raises:
        ConfigError: If that is so.
    """
    shared_jam()
    if not flows.outbox.can_send:
        raise ConfigError(
            "No mail can be sent: there is no mail.url.",
            hint="Set mail.url to smtp://user:password@host:587 and mail.sender, or in development to console://.",
        )


@contextlib.contextmanager
def sending(flows: Accounts, subject: str, *, done: str = "") -> Iterator[None]:
    """Give the mails of a block the time to leave: the thread that sends them ends with this process.

    Args:
        flows: The app's.
        subject: Whose account the mails are about.
        done: What the block has done in any case, if something: it is said, should a mail fail.

    Raises:
        ClickException: If one will never leave.
    """
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
        failed = "The mail could not be sent, and will not be tried again."
        raise click.ClickException(f"{done}, but: {failed}" if done else failed)
    if failures or not ended:
        remark("The mail has not left yet; `flask jam mail send`, or the app, tries again.")
