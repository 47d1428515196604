"""What the views of accounts share: the extension of the current app, the caller, and who may do what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import current_app, request

from jam.accounts.accounts import Accounts
from jam.accounts.users import Account
from jam.checkpoints import Authenticated, Checkpoint, Fresh, Method
from jam.errors import AccessDenied, AuthenticationRequired, FreshnessRequired, JamError, MethodRequired, UserUnknown
from jam.ext.flask.guards import Guard
from jam.ext.flask.request import resolve
from jam.ext.flask.resolved import Resolved
from jam.identity import Identity

if TYPE_CHECKING:  # which imports the views
    from jam.ext.flask.accounts.extension import AccountsExtension

__all__ = [
    "EXTENSION",
    "PEOPLE",
    "JustProved",
    "accounts",
    "address",
    "anybody",
    "caller",
    "caller_account",
    "extension",
    "interactive",
    "just_proved",
    "may_manage",
    "refuse_others",
]

EXTENSION = "jam.accounts"
PEOPLE = ("session", "jwt")  # whom somebody sits behind, as far as anybody can tell


class JustProved(Checkpoint):
    """The person proved who they are within ``accounts.fresh_for``, themselves: no API token does (ASVS 7.5.1)."""

    def refusal(self, identity: Identity, now: float) -> JamError | None:
        """Why not, or ``None``."""
        if identity.subject is None:
            return AuthenticationRequired()
        if identity.method == "api_token":
            return MethodRequired()
        if not identity.fresh:
            return FreshnessRequired()
        return Fresh(accounts().jam.settings.accounts.fresh_for).refusal(identity, now)

    def __repr__(self) -> str:
        return "JustProved()"


anybody = Guard((Authenticated(),))  #: by whatever credential the app looks for
interactive = Guard((Method(*PEOPLE),))  #: by a session or an access token
just_proved = Guard((JustProved(),))


def extension() -> AccountsExtension:
    """The extension of the current app."""
    found: AccountsExtension = current_app.extensions[EXTENSION]
    return found


def accounts() -> Accounts:
    """The flows of the current app."""
    return extension().accounts


def address() -> str | None:
    """Where the request comes from: what the server says, or the proxies that ``ProxyFix`` was told of, and nobody else
    (ASVS 4.1.3).
    """
    return request.remote_addr


def caller() -> Resolved:
    """What the request turned out to be, after a guard."""
    return resolve()


def caller_account() -> Account:
    """The caller's account.

    Raises:
        UserUnknown: If it is gone.
    """
    account = accounts().users.get(caller().identity.subject or "")
    if account is None:
        raise UserUnknown
    return account


def may_manage(identity: Identity) -> bool:
    """Whether somebody may change other people's accounts: by role, or by scope."""
    return extension().admin_role in identity.roles or "users:write" in identity.scopes


def refuse_others(subject: str) -> None:
    """Refuse to touch somebody else's account (ASVS 8.2.2).

    Raises:
        AccessDenied: If the caller is somebody else, and may not manage people.
    """
    identity = caller().identity
    if identity.subject != subject and not may_manage(identity):
        raise AccessDenied
