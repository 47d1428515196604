"""What every flow has at hand."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import msgspec

from jam.accounts.audit import AuditLog
from jam.accounts.names import name_key
from jam.accounts.outbox import Outbox
from jam.accounts.password_check import PasswordCheck
from jam.accounts.password_policy import PasswordPolicy
from jam.accounts.throttle import Throttle
from jam.accounts.users import Account, UserStore
from jam.crypto.passwords import Passwords
from jam.errors import TooManyAttempts
from jam.jam import Jam

__all__ = ["Flow", "Means"]


class Means(msgspec.Struct, frozen=True, kw_only=True):
    """What flows do their work with.

    Attributes:
        jam: What people hold: sessions, tokens, and the one-time tokens of links.
        users: Who there is.
        passwords: What hashes.
        check: What asks for a password.
        policy: What passwords are taken.
        throttle: How often somebody may try, and how many mails are sent.
        outbox: What sends them.
        audit: Where it is kept what happened, if anywhere.
    """

    jam: Jam
    users: UserStore
    passwords: Passwords
    check: PasswordCheck
    policy: PasswordPolicy
    throttle: Throttle
    outbox: Outbox
    audit: AuditLog | None = None


class Flow:
    """The base of the flows.

    Args:
        means: What they do their work with.
    """

    def __init__(self, means: Means) -> None:
        self._jam = means.jam
        self._users = means.users
        self._passwords = means.passwords
        self._check = means.check
        self._policy = means.policy
        self._throttle = means.throttle
        self._outbox = means.outbox
        self._audit = means.audit
        self._tokens = means.jam.one_time_tokens
        self._clock: Callable[[], float] = means.jam.clock
        self._events = means.jam.events

    def _forget_addresses(self, *names: str | None) -> None:
        """No address is known for these names any more; see ``Throttle.forget_addresses``."""
        for name in names:
            if name is not None:
                self._throttle.forget_addresses(name_key(name))

    def _notify(self, template: str, account: Account, to: str | None) -> None:
        """Tell the owner of an address what happened, if mail can be sent at all."""
        if not self._outbox.can_send or not to:
            return
        # Counted apart from the mails that strangers can ask for, so that these cannot keep a warning back.
        with suppress(TooManyAttempts):
            self._throttle.mail(f"notice {name_key(to)}", None)
            self._outbox.add(template, to=to, subject=account.subject, data={"username": account.username})
