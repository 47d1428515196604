"""A forgotten password: a link by mail, and a new one.

Who asks is answered the same whether anybody goes by that name or not. The link dies with its first use, with the
password, with the e-mail address, and after a while. It signs nobody in, and ends everything that was signed in before.
"""

from __future__ import annotations

from collections.abc import Callable

from jam.accounts.names import name_key
from jam.accounts.outbox import Outbox
from jam.accounts.password_policy import PasswordPolicy
from jam.accounts.throttle import Throttle
from jam.accounts.users import Account, UserStore
from jam.credentials.one_time_tokens import OneTimeTokens
from jam.crypto.passwords import Passwords
from jam.errors import OneTimeTokenInvalid
from jam.events import Events, PasswordChanged
from jam.jam import Jam

__all__ = ["Recovery", "reset_state"]

PURPOSE = "reset_password"
TEMPLATE = "reset_password"


def reset_state(account: Account) -> tuple[str | None, ...]:
    """What a link to set a new password is bound to."""
    return account.password_hash, account.email


class Recovery:
    """Gives people back their accounts.

    Args:
        jam: What is ended when a password is set anew.
        users: Who there is.
        passwords: What hashes.
        policy: What passwords are taken.
        throttle: How many mails are sent.
        outbox: What sends them.
        notify: Tells the owner of an address what happened: a template, the account, and the address.
        tokens: What their links carry.
        clock: Seconds since the epoch.
        events: Hears of new passwords.
    """

    def __init__(
        self,
        *,
        jam: Jam,
        users: UserStore,
        passwords: Passwords,
        policy: PasswordPolicy,
        throttle: Throttle,
        outbox: Outbox,
        notify: Callable[[str, Account, str | None], None],
        tokens: OneTimeTokens,
        clock: Callable[[], float],
        events: Events,
    ) -> None:
        self._jam = jam
        self._users = users
        self._passwords = passwords
        self._policy = policy
        self._throttle = throttle
        self._outbox = outbox
        self._notify = notify
        self._tokens = tokens
        self._clock = clock
        self._events = events

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
        known = account is not None and account.is_active and account.email is not None
        self._outbox.add(
            TEMPLATE, to=(account.email or "") if account is not None and known else "",
            subject=account.subject if account is not None and known else None,
        )  # fmt: skip

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
        changes = {"password_hash": self._passwords.hash(password)}
        if "email_verified" in self._users.changeable:  # the link came by mail
            changes["email_verified"] = True  # type: ignore[assignment]
        self._tokens.take(token, PURPOSE, reset_state(account))
        self._jam.revoke_all(account.subject)  # whatever happens then: nobody stays in by the old password
        changed = self._users.update(
            account.subject, changes, {"password_hash": account.password_hash, "email": account.email}
        )
        if changed is None:
            raise OneTimeTokenInvalid
        self._jam.revoke_all(account.subject)  # who signed in by the old one in between
        self._throttle.forgive(name_key(account.username), address)
        if account.email is not None:
            self._throttle.forgive(name_key(account.email), address)
        self._events.emit(PasswordChanged(at=self._clock(), subject=account.subject, address=address, by="reset"))
        self._notify("password_changed", changed, changed.email)
        return changed
