"""Registering: an account is made when its e-mail address has answered, and nobody else learns whether it was.

What was asked for travels in the link, in a one-time token: so there is nothing to see, no name that is held by
somebody who never came back, and no account under an address that is not the person's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jam.accounts.flow import Flow
from jam.accounts.names import email_address, name_key, valid_username
from jam.accounts.users import Account
from jam.errors import BadCredentials, Busy, ConfigError, EmailTaken, OneTimeTokenInvalid, UsernameTaken
from jam.events import Registered

__all__ = ["Registration"]

PURPOSE = "register"
TEMPLATE = "confirm_registration"


class Registration(Flow):
    """Makes accounts."""

    def start(
        self,
        username: str,
        email: str,
        password: str,
        *,
        profile: Mapping[str, Any] | None = None,
        address: str | None = None,
    ) -> None:
        """Ask for an account. What becomes of it is told by mail alone, to the address that was given.

        Args:
            username: What the person wants to be called.
            email: Their address.
            password: Their password.
            profile: The app's own fields of an account.
            address: Where the request comes from, if it is one.

        Raises:
            UsernameRefused, EmailRefused, PasswordRefused, InvalidValue: If nobody could have an account like that.
            TooManyAttempts: If too many mails were asked for.
            ConfigError: If no mail can be sent, or the app's model has no place for an e-mail address.
            Busy: If too many passwords are being hashed.
            StoreUnavailable: If it could not be kept.
        """
        if "email" not in self._users.changeable:  # now, and not when the link comes back
            raise ConfigError(
                "The app's model has no place for the e-mail address that registering asks for.",
                hint="Add a column email, or say which one it is: SQLUsers(email=...).",
            )
        shown, mail = valid_username(username), email_address(email)
        values = self._checked_profile(profile or {})
        self._policy.check(password, username=shown, email=mail.address)
        self._throttle.mail(mail.key, address)
        data = {"username": shown, "password_hash": self._passwords.hash(password), "profile": values}
        self._outbox.add(TEMPLATE, to=mail.address, data=data)

    def confirm(self, token: str, password: str, *, username: str | None = None, address: str | None = None) -> Account:
        """Make the account, now that its link has come back.

        Args:
            token: That of the link.
            password: The one that was chosen: whoever opens the mail of a registration that somebody else began, in
                their name and with another password, makes nothing of it.
            username: Another user name, if somebody else took the first one meanwhile.
            address: Where the request comes from, if it is one.

        Raises:
            OneTimeTokenInvalid: If the link is not good, or was used.
            BadCredentials: If the password is another one; the link is still good.
            UsernameTaken: If somebody has the name: the link is still good, for another one.
            UsernameRefused: If nobody may have it.
            TooManyAttempts, Busy: If the password cannot be looked at now.
            StoreUnavailable: If the account could not be made.
        """
        asked = self._tokens.peek(token, PURPOSE)
        shown = asked.data["username"] if username is None else valid_username(username)
        email = asked.data["email"]
        attempt = self._throttle.sign_in(name_key(email), address)
        try:
            checked = self._passwords.check(asked.data["password_hash"], password)
        except Busy:  # it was not looked at
            attempt.withdraw()
            raise
        if not checked.matches:
            raise BadCredentials
        account = self._create_once(token, shown, asked.data)
        attempt.succeeded(account.subject)
        if "email_verified" in self._users.changeable:
            account = self._users.update(account.subject, {"email_verified": True}) or account
        self._events.emit(Registered(at=self._clock(), subject=account.subject, address=address))
        return account

    def _create_once(self, token: str, username: str, asked: Mapping[str, Any]) -> Account:
        """The account that a link is good for; of two who come with it at once, one makes it."""
        email = asked["email"]
        try:
            # The token is used up afterwards: it is still needed if the name is taken.
            account = self._users.create(
                username=username, email=email, password_hash=asked["password_hash"], profile=asked["profile"]
            )
        except (EmailTaken, UsernameTaken) as error:
            # Whoever has the address may have it by this very link, which came twice at once: it is theirs to use up.
            if isinstance(error, EmailTaken) or self._users.find(email) is not None:
                raise OneTimeTokenInvalid from None
            raise
        self._forget_addresses(username, email)  # known for whoever went by these before
        try:
            self._tokens.take(token, PURPOSE)
        except OneTimeTokenInvalid:  # it came twice at once, under two names, and no address kept these apart
            self._users.delete(account.subject)
            raise
        return account

    def create(
        self, username: str, email: str | None, password: str | None, *, profile: Mapping[str, Any] | None = None
    ) -> Account:
        """Make an account at once: for administrators, and where everybody may know which names exist.

        Args:
            username: What the person is called.
            email: Their address, if they have one.
            password: Their password; ``None`` for somebody who sets it by a link.
            profile: The app's own fields of an account.

        Raises:
            UsernameRefused, EmailRefused, PasswordRefused, InvalidValue: If nobody could have an account like that.
            UsernameTaken, EmailTaken: If somebody has the name or address.
            Busy: If too many passwords are being hashed.
            StoreUnavailable: If it could not be made.
        """
        shown = valid_username(username)
        mail = None if email is None else email_address(email).address
        values = self._checked_profile(profile or {})
        hashed = None
        if password is not None:
            self._policy.check(password, username=shown, email=mail)
            hashed = self._passwords.hash(password)
        account = self._users.create(username=shown, email=mail, password_hash=hashed, profile=values)
        self._forget_addresses(shown, mail)
        self._events.emit(Registered(at=self._clock(), subject=account.subject))
        return account

    def _checked_profile(self, profile: Mapping[str, Any]) -> dict[str, Any]:
        self._users.check_profile(profile)  # now, and not when the link comes back
        return dict(profile)
