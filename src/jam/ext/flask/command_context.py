"""What the commands about people share: the app's accounts and its store, and whom a command is about."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import click
from flask import current_app

from jam.accounts.accounts import Accounts
from jam.accounts.users import Account
from jam.errors import ConfigError, UserNotFound
from jam.ext.flask.accounts.context import EXTENSION
from jam.ext.flask.request import state_of
from jam.ext.flask.terminal import printable, remark
from jam.jam import Jam

__all__ = [
    "PAGE",
    "about_somebody",
    "account_named",
    "app_accounts",
    "called",
    "check_one_of",
    "every_page",
    "everyone_option",
    "shared_jam",
    "subject_named",
    "warn_of_other_processes",
]

C = TypeVar("C", bound=Callable[..., Any])

PAGE = 1000  #: people, tokens or entries that are read at a time

everyone_option = click.option("--everyone", is_flag=True, help="Those of all people.")


def about_somebody(command: C) -> C:
    """The argument and the option that name a person: ``name`` and ``subject``."""
    command = click.option("--id", "subject", metavar="SUBJECT", help="Whom, by their subject instead.")(command)
    return click.argument("name", metavar="[USER]", required=False)(command)


def app_accounts() -> Accounts:
    """The flows of the app's accounts.

    Raises:
        ConfigError: If it has none.
    """
    extension = current_app.extensions.get(EXTENSION)
    if extension is None:
        raise ConfigError(
            "This app has no accounts.",
            hint="Set up AccountsExtension(jam, app, users=...), which knows where its people are kept.",
        )
    flows: Accounts = extension.accounts
    return flows


def shared_jam() -> Jam:
    """The app's ``Jam``, if a command can see and end what the app's workers hold.

    Raises:
        ConfigError: If each process has a store of its own.
    """
    jam = state_of(current_app).jam
    if not jam.store.shared:
        raise ConfigError(
            "The store is each process's own, so that no command sees what the app's workers hold.",
            hint="Set JAM_STORE, for example to sqlite:///jam.sqlite3.",
        )
    return jam


def warn_of_other_processes(jam: Jam) -> None:
    """Say so, where an end that a command made is not seen everywhere."""
    if not jam.store.shared:
        remark("The store is each process's own: what they hold in others is only refused where the user is looked up.")


def account_named(name: str | None, subject: str | None) -> Account:
    """Who was named.

    Args:
        name: A user name or an e-mail address, if it was that.
        subject: Their subject, if it was that.

    Raises:
        UsageError: If it was not exactly one of the two.
        UserNotFound: If nobody is called so.
        ConfigError: If the app has no accounts.
    """
    _check_somebody(name, subject)
    users = app_accounts().users
    account = users.find(name) if name is not None else users.get(subject or "")
    if account is None:
        raise UserNotFound(hint="`flask jam users list` shows who there is.")
    return account


def subject_named(name: str | None, subject: str | None) -> str:
    """Whose subject was named; one that was given itself may be of somebody who is gone.

    Raises:
        UsageError, UserNotFound, ConfigError: As ``account_named``; by their subject, people need no accounts.
    """
    _check_somebody(name, subject)
    if not name:
        return subject or ""
    if EXTENSION not in current_app.extensions:
        raise ConfigError(
            "People have names only in an app that has accounts.",
            hint="Name them by --id SUBJECT, or set up AccountsExtension(jam, app, users=...).",
        )
    return account_named(name, None).subject


def _check_somebody(name: str | None, subject: str | None) -> None:
    if bool(name) == bool(subject):
        raise click.UsageError("Name one person: by user name, by e-mail address, or by --id SUBJECT.")


def check_one_of(name: str | None, subject: str | None, *, everyone: bool, **others: bool) -> None:
    """Refuse a revocation that does not say exactly what it is about.

    Raises:
        UsageError: If it names nothing, or more than one of ``--everyone`` and the others.
    """
    if [everyone, *others.values()].count(True) != 1:
        options = ", ".join(f"--{other.replace('_', '-')}" for other in others)
        raise click.UsageError(f"Say what is to end, by one of {options}, --everyone.")
    if everyone and (name or subject):
        raise click.UsageError("--everyone is not about one person.")


def every_page(page: Callable[..., Sequence[Any]]) -> Iterator[Any]:
    """What is on all pages of a list, of which each begins after the last id of the one before."""
    after = ""
    while found := page(after, PAGE):
        yield from found
        after = found[-1].id


def called(account: Account) -> str:
    """How a person is spoken of: by name, and by what cannot be mistaken for somebody else's."""
    return printable(f"{account.username} (id {account.subject})")
