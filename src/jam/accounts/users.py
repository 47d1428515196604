"""The people of an app, behind a small protocol.

Jam does not own them: an app's own model may keep them (``jam.accounts.sql_users``), or a directory, or anything that
answers these few questions. What Jam knows of a person is an ``Account``; the app's own object goes along in ``user``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

__all__ = ["CHANGEABLE", "Account", "UserStore"]

#: What ``UserStore.update`` can be asked to change, besides the app's own profile fields.
CHANGEABLE = frozenset(("username", "email", "email_verified", "password_hash", "is_active", "roles", "scopes"))


class Account(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What is known of a person at one moment. Never changes; ask again for a newer one.

    Attributes:
        subject: The app's own name for them, for ever: that of their sessions and tokens.
        username: As they wrote it.
        email: Where mail reaches them, if it is known.
        email_verified: Whether they have shown that it does.
        password_hash: As it is stored; ``None`` if they have no password.
        is_active: Whether they may use the app at all.
        roles: Their roles.
        scopes: What their API tokens may be allowed at most.
        created_at: When the account was made, in seconds since the epoch, if the app knows.
        profile: The app's own fields of it that are shown, and maybe changed, by the API.
        user: The app's own object, if there is one; it may be detached from its database session.
    """

    subject: str
    username: str
    email: str | None = None
    email_verified: bool = False
    password_hash: str | None = None
    is_active: bool = True
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    created_at: float | None = None
    profile: Mapping[str, Any] = {}
    user: Any = None

    def __repr__(self) -> str:
        """Its name alone: a password hash has no business in a log."""
        return f"<Account {self.subject!r}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:  # what some loggers show instead of repr
        return [("subject", self.subject)]


class UserStore(Protocol):
    """Where the people are kept.

    Every method raises ``StoreUnavailable`` if nobody can tell, and each change is there for good when it returns.

    Attributes:
        changeable: Which of ``CHANGEABLE`` there is a place for.
        profile: The app's own fields that the API shows.
        writable: Which of these are the person's own to change.
        knows: Which of ``roles`` and ``scopes`` it says of people; what it does not, their credentials say alone.
        is_numbered: Whether subjects are whole numbers, and shown as such.
    """

    changeable: frozenset[str]
    profile: Sequence[str]
    writable: frozenset[str]
    knows: frozenset[str]
    is_numbered: bool

    def get(self, subject: str) -> Account | None:
        """The account of a subject, or ``None``. A subject that cannot be one is nobody's."""
        ...

    def find(self, name: str) -> Account | None:
        """The account of whoever goes by that user name or e-mail address (which has an ``@``), or ``None``."""
        ...

    def create(
        self, *, username: str, email: str | None, password_hash: str | None, profile: Mapping[str, Any] | None = None
    ) -> Account:
        """Make an account.

        Args:
            username: As the person wrote it, checked already.
            email: Likewise.
            password_hash: To be stored.
            profile: The app's own fields.

        Raises:
            UsernameTaken, EmailTaken: If somebody has it, also if that happened this very moment.
            InvalidValue: If it cannot be stored.
        """
        ...

    def check_profile(self, values: Mapping[str, Any]) -> None:
        """Refuse what a person cannot write into their profile, before an account is made with it.

        Raises:
            InvalidValue: Naming the field that is not theirs to write (ASVS 8.2.3), or cannot hold the value.
        """
        ...

    def update(
        self, subject: str, changes: Mapping[str, Any], only_if: Mapping[str, Any] | None = None
    ) -> Account | None:
        """Change an account, in one step.

        Args:
            subject: Whose.
            changes: New values by name: those of ``CHANGEABLE``, and the app's own profile fields.
            only_if: Values that must be there still at that moment, by name.

        Returns:
            The account as it is now; ``None`` if there is none, or ``only_if`` is not so, and nothing was changed.

        Raises:
            UsernameTaken, EmailTaken: If somebody has it, also if that happened this very moment.
            InvalidValue: If it cannot be stored.
            ConfigError: If the app's model has no place for it.
        """
        ...

    def delete(self, subject: str) -> bool:
        """Delete an account; ``False`` if there was none.

        Raises:
            InvalidValue: If other data of the app forbids it.
        """
        ...

    def list(self, offset: int = 0, limit: int = 100) -> tuple[Sequence[Account], int]:
        """Some of the accounts, in the order in which they were made, and how many there are in all."""
        ...

    def load(self, subject: str) -> Any:
        """The app's own object for ``current_user``, attached to whatever session the app uses; ``None`` for nobody."""
        ...

    def account_of(self, user: Any) -> Account:
        """The account of an object that ``load`` gave."""
        ...
