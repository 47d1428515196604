"""A forgotten password: a link by mail, and a new one.

Who asks is answered the same whether anybody goes by that name or not. The link dies with its first use, with the
password, with the e-mail address, and after a while. It signs nobody in, and ends everything that was signed in before.
"""

from __future__ import annotations

from typing import Any

from jam.accounts.flow import Flow
from jam.accounts.names import name_key
from jam.accounts.users import Account
from jam.errors import OneTimeTokenInvalid
from jam.events import PasswordChanged

__all__ = ["Recovery", "reset_state"]

PURPOSE = "reset_password"
TEMPLATE = "reset_password"


def reset_state(account: Account) -> tuple[str | None, ...]:
    """What a link to set a new password is bound to."""
    return account.password_hash, account.email


class Recovery(Flow):
    """Gives people back their accounts."""

    def forgot(self, name: str, *, address: str | None = None) -> None:
        """Send whoever goes by this name a link to set a new password.

        Args:
            name: A user name or an e-mail address, as it was typed.
            address: Where the request comes from, if it is one.

        Raises:
            TooManyAttempts: If that was asked for too often, whether there is such a person or not.
            ConfigError: If no mail can be sent.
            StoreUnavailable: If it could not be kept.
        """
        self._throttle.mail(name_key(name), address)
        account = self._users.find(name)
        # For nobody there is a letter as well, which is dropped instead of written: it costs the same until then.
        # What was typed is not kept: people type passwords into such fields.
        if account is not None and account.is_active and account.email is not None:
            self._outbox.add(TEMPLATE, to=account.email, subject=account.subject)
        else:
            self._outbox.add(TEMPLATE, to="")

    def reset(self, token: str, password: str, *, address: str | None = None) -> Account:
        """Set a new password, and end everything that was signed in by the old one: also API tokens.

        Args:
            token: That of the link.
            password: The new password.
            address: Where the request comes from, if it is one.

        Raises:
            OneTimeTokenInvalid: If the link is not good, or was used, or the account has changed since.
            PasswordRefused: If the policy does not take the password; the link is still good.
            Busy: If too many passwords are being hashed; the link is still good.
            StoreUnavailable: If it could not be done.
        """
        account = self._users.get(self._tokens.peek(token, PURPOSE).subject)
        if account is None or not account.is_active:
            raise OneTimeTokenInvalid
        self._tokens.check_state(token, PURPOSE, reset_state(account))
        self._policy.check(password, username=account.username, email=account.email, subject=account.subject)
        changes: dict[str, Any] = {"password_hash": self._passwords.hash(password)}
        if "email_verified" in self._users.changeable:  # the link came by mail
            changes["email_verified"] = True
        self._tokens.take(token, PURPOSE, reset_state(account))
        self._jam.revoke_all(account.subject)  # whatever happens then: nobody stays in by the old password
        changed = self._users.update(
            account.subject, changes, {"password_hash": account.password_hash, "email": account.email}
        )
        if changed is None:
            raise OneTimeTokenInvalid
        self._events.emit(PasswordChanged(at=self._clock(), subject=account.subject, address=address, by="reset"))
        self._jam.revoke_all(account.subject)  # who signed in by the old one in between
        self._notify("password_changed", changed, changed.email)
        for name in filter(None, (account.username, account.email)):
            self._throttle.forgive(name_key(name), address)
        return changed
