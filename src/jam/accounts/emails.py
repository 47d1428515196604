"""E-mail addresses: verified, and changed, by a link that came by mail.

A new address counts when its link has come back; the former one is told, so that nobody is moved out of their own
account unawares (ASVS 6.3.7).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from jam.accounts.flow import Flow
from jam.accounts.names import email_address, name_key
from jam.accounts.users import Account
from jam.errors import ConfigError, EmailTaken, OneTimeTokenInvalid, TooManyAttempts, UserNotFound
from jam.events import EmailChanged, EmailVerified, UsernameChanged

__all__ = ["EmailVerification", "Emails", "change_state", "verify_state"]

VERIFY = "verify_email"
CHANGE = "change_email"


def verify_state(account: Account) -> tuple[str | None, ...]:
    """What a link to verify an address is bound to."""
    return (account.email,)


def change_state(account: Account) -> tuple[str | None, ...]:
    """What a link to change an address is bound to."""
    return account.email, account.password_hash


class Emails(Flow):
    """Verifies and changes people's e-mail addresses."""

    def send_verification(self, account: Account, *, address: str | None = None) -> None:
        """Send the link that verifies an account's address; nothing if it is verified, or there is none.

        Raises:
            TooManyAttempts: If too many mails were asked for.
            ConfigError: If no mail can be sent, or the app's model has no place to note that an address is verified.
            StoreUnavailable: If it could not be kept.
        """
        if not account.email or account.email_verified:
            return
        if "email_verified" not in self._users.changeable:  # now, and not when the link comes back
            raise ConfigError(
                "The app's model has no place to note that an e-mail address is verified.",
                hint="Add a column email_verified (Boolean) or email_verified_at (DateTime).",
            )
        self._throttle.mail(name_key(account.email), address)  # what an app kept for years may be no address
        self._outbox.add(VERIFY, to=account.email, subject=account.subject)

    def verify(self, token: str, *, address: str | None = None) -> Account:
        """Note that mail to an address reaches its owner, now that the link has come back.

        Raises:
            OneTimeTokenInvalid: If the link is not good, was used, or the address is another by now.
            StoreUnavailable: If it could not be noted.
        """
        account = self._account_of(token, VERIFY)
        self._tokens.take(token, VERIFY, verify_state(account))
        changed = self._users.update(account.subject, {"email_verified": True}, {"email": account.email})
        if changed is None:
            raise OneTimeTokenInvalid
        self._events.emit(EmailVerified(at=self._clock(), subject=account.subject, address=address))
        return changed

    def request_change(self, subject: str, email: str, *, address: str | None = None) -> None:
        """Send a link to a new address, by which it becomes the account's. Whether it is taken is not told here.

        Args:
            subject: Whose address is to change.
            email: The new one.
            address: Where the request comes from, if it is one.

        Raises:
            EmailRefused: If it is none.
            UserNotFound: If there is no such account.
            TooManyAttempts: If too many mails were asked for.
            ConfigError: If no mail can be sent.
            StoreUnavailable: If it could not be kept.
        """
        new = email_address(email)
        account = self._users.get(subject)
        if account is None:
            raise UserNotFound
        self._throttle.mail(new.key, address)
        # The link is made when the letter leaves, maybe hours later: it must be of now, so that what ends everything of
        # the account in between ends it, too.
        data = {"email": new.address, "generation": self._tokens.generation(subject)}
        self._outbox.add(CHANGE, to=new.address, subject=subject, data=data)

    def confirm_change(self, token: str, *, address: str | None = None) -> Account:
        """Make a new address the account's, now that its link has come back.

        Raises:
            OneTimeTokenInvalid: If the link is not good, was used, the account has changed, or somebody else has the
                address by now.
            StoreUnavailable: If it could not be done.
        """
        new = self._tokens.peek(token, CHANGE).data["email"]
        account = self._account_of(token, CHANGE)
        self._tokens.take(token, CHANGE, change_state(account))
        try:
            before = {"email": account.email, "password_hash": account.password_hash}
            changed = self._change(account, new, before, verified=True, address=address)
        except EmailTaken:
            raise OneTimeTokenInvalid from None
        return changed

    def set(
        self, subject: str, email: str, *, besides: Mapping[str, Any] | None = None, address: str | None = None
    ) -> Account:
        """Change an address at once, to be verified afterwards; for APIs that may tell which addresses are taken.

        Args:
            subject: Whose address is to change.
            email: The new one.
            besides: What else changes with it, see ``Management.profile_changes``: all of it, or nothing.
            address: Where the request comes from, if it is one.

        Raises:
            EmailRefused, EmailTaken, UsernameTaken, InvalidValue: If it cannot be.
            UserNotFound: If there is no such account.
            TooManyAttempts: If too many mails were asked for: then it is not told either whether somebody has it.
            OneTimeTokenInvalid: If somebody else changed it this very moment.
            StoreUnavailable: If it could not be done.
        """
        new = email_address(email)
        account = self._users.get(subject)
        if account is None:
            raise UserNotFound
        if new.address == account.email and not besides:
            return account
        # Before it is told whether somebody has it, and before the former address is told: neither without end.
        self._throttle.mail(new.key, address)
        before = {"email": account.email}
        changed = self._change(account, new.address, before, verified=False, besides=besides or {}, address=address)
        if self._outbox.can_send and "email_verified" in self._users.changeable:
            self._outbox.add(VERIFY, to=new.address, subject=subject)
        return changed

    def _change(
        self,
        account: Account,
        email: str,
        before: Mapping[str, Any],
        *,
        verified: bool,
        besides: Mapping[str, Any] | None = None,
        address: str | None,
    ) -> Account:
        changes: dict[str, Any] = {**(besides or {}), "email": email}
        if "email_verified" in self._users.changeable:
            changes["email_verified"] = verified
        changed = self._users.update(account.subject, changes, before)
        if changed is None:
            raise OneTimeTokenInvalid
        # Whoever signs in by them from now on is somebody else.
        self._forget_addresses(account.email, email)
        self._events.emit(EmailChanged(at=self._clock(), subject=account.subject, address=address))
        if changed.username != account.username:
            self._forget_addresses(account.username, changed.username)
            self._events.emit(UsernameChanged(at=self._clock(), subject=account.subject))
        self._notify("email_changed", changed, account.email)
        return changed

    def _account_of(self, token: str, purpose: str) -> Account:
        account = self._users.get(self._tokens.peek(token, purpose).subject)
        if account is None or not account.is_active:
            raise OneTimeTokenInvalid
        return account


class EmailVerification:
    """The step of signing in that asks for a verified e-mail address; see ``jam.accounts.sign_in.Stage``.

    Args:
        emails: What sends the link.
    """

    name = "verify_email"

    def __init__(self, emails: Emails) -> None:
        self._emails = emails

    def applies(self, account: Account) -> bool:
        """Whether the address is not verified yet: it is, as soon as the link has come back."""
        return not account.email_verified

    def begin(self, account: Account, address: str | None) -> None:
        """Send the link, unless that was asked for too often."""
        with suppress(TooManyAttempts):
            self._emails.send_verification(account, address=address)

    def check(self, account: Account, answer: Mapping[str, Any]) -> Sequence[str] | None:  # noqa: ARG002 - a protocol
        """``None``: no answer passes it, only the link does, and then it applies no more."""
        return None
