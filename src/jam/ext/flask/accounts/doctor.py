"""What ``flask jam doctor`` says about accounts."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from flask import current_app

from jam.ext.flask.accounts.context import EXTENSION, accounts
from jam.ext.flask.cli import Finding

__all__ = ["examine_accounts"]

_SINGLE_FACTOR_LENGTH = 15  # characters, of a password that is all there is (NIST SP 800-63B-4 3.1.1.2)
_LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))


def examine_accounts() -> Iterator[Finding]:
    """What is right and wrong with the accounts of the current app, if it has any.

    Raises:
        ConfigError: If their configuration cannot be used at all.
    """
    if EXTENSION not in current_app.extensions:
        return
    flows = accounts()
    settings = flows.jam.settings
    if not flows.outbox.can_send:
        yield Finding(
            "warning", "mail", "No mail can be sent: nobody can register or set a forgotten password anew.",
            "Set JAM_MAIL_URL, JAM_MAIL_SENDER and JAM_ACCOUNTS_BASE_URL; see docs/mail.md.",
        )  # fmt: skip
    else:
        yield Finding("ok", "mail", "Mail can be sent.")
        base_url = urlsplit(settings.accounts.base_url or "")
        if base_url.scheme != "https" and base_url.hostname not in _LOOPBACK:
            yield Finding(
                "problem", "mail", "Links in mails begin with http://, so that their tokens can be read on the way.",
                "Serve the app by https and set JAM_ACCOUNTS_BASE_URL to https://...",
            )  # fmt: skip
    if settings.passwords.min_length < _SINGLE_FACTOR_LENGTH:
        yield Finding(
            "warning", "passwords", f"Passwords of {settings.passwords.min_length} characters are taken.",
            "A password that is all there is should have 15: leave JAM_PASSWORDS_MIN_LENGTH out.",
        )  # fmt: skip
    if settings.passwords.migrating_from is not None:
        yield Finding(
            "ok", "passwords",
            f"Each sign-in costs a hash of {settings.passwords.migrating_from} more, until no account has one.",
            "Leave JAM_PASSWORDS_MIGRATING_FROM out then.",
        )  # fmt: skip
    if flows.audit is None:
        yield Finding(
            "warning", "audit", "What happens to accounts is not kept: the log has it at level INFO, and nothing else.",
            "Set JAM_AUDIT_URL, for example to file:///var/log/app/audit.jsonl; see docs/audit.md.",
        )  # fmt: skip
    else:
        yield Finding("ok", "audit", "What happens to accounts is kept.")
    if settings.accounts.open_registration:
        yield Finding(
            "warning", "registration", "POST /api/users is open to everybody and tells which names exist.",
            "POST /auth/register does not; see docs/api.md.",
        )  # fmt: skip
