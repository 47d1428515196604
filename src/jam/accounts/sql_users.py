"""People in a database, through SQLAlchemy: an app's own mapped model, or a ready table for who has none.

``SQLUsers(User, db)`` learns from the model what its attributes are called, and touches no other. Jam's reads and
writes go through short sessions of their own, so that it commits nothing that the app has pending, and sees nothing
of it either. A change is one transaction that locks the row first (the whole file with SQLite): of two that expect the
same old value, one wins. What follows of it:

- A view that has written but not committed, and calls Jam, waits for itself if both want the same row, or any row with
  SQLite. That ends in ``StoreUnavailable``, after 5 seconds with SQLite and PostgreSQL (if the app has not set its own
  ``timeout`` or ``lock_timeout``), and with MariaDB after its ``innodb_lock_wait_timeout``. Commit first.
- The engine is the app's affair: its pool, its time limits, and that no connection crosses a fork.
- A connection that everybody shares (``sqlite://`` in memory) cannot keep two transactions apart: Jam refuses to touch
  it while something on it is not committed.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from jam.accounts.sql_columns import is_text, kind_of
from jam.accounts.sql_transactions import Transactions, cannot_be_stored, jam_errors_only
from jam.accounts.sql_user_model import UserModel
from jam.accounts.sql_user_table import ReadyTable, jam_user_model
from jam.accounts.users import Account
from jam.errors import ConfigError, EmailTaken, InvalidValue, JamError, UsernameTaken

__all__ = ["SQLUsers", "jam_user_model", "open_users"]

logger = logging.getLogger("jam.accounts")

_MAX_TEXT = 1024  # characters of a name that is looked up
_MAX_LIST = 1000
_MAX_OFFSET = 2**63 - 1


class SQLUsers:
    """The people of an app whose model SQLAlchemy maps. A ``jam.accounts.users.UserStore``; safe for threads.

    Names that have a *key* column are looked up by it, and are unique by it: ``Alice`` and ``alice`` are one. Without
    one, names are compared as the database compares them: with SQLite and PostgreSQL ``Alice`` and ``alice`` can be
    two people, with MariaDB's default collation they are one (and ``álice`` cannot be made beside them, but does not
    find them). Fill the keys of old rows when you add such a column (``jam.accounts.names.username_key``,
    ``email_key``): who has none is not found.

    The model's columns of names, or their keys, must be unique in the database: a look-up before the write cannot see
    what somebody else writes in that moment. If the model does not say so, the log does.

    A subject is the primary key as text. With SQLite a deleted account's key is given to the next one unless the table
    has ``sqlite_autoincrement=True``.

    Args:
        model: The mapped class. It is made with keyword arguments, as SQLAlchemy's own constructor takes them.
        sessions: Flask-SQLAlchemy's ``db``, a ``scoped_session``, a ``sessionmaker`` or an ``Engine``.
        username: How the attribute with the user name is called in the model.
        email: Likewise; ``None`` if the model has none.
        password_hash: Likewise. The column must hold at least 102 characters.
        username_key: Likewise, with the user name's key. This and what follows is found by its usual name if left out.
        email_key: With the e-mail address's key.
        email_verified: A truth value, or the time of the verification (also found as ``email_verified_at``,
            ``confirmed_at``).
        is_active: A truth value (also found as ``active``). Without such a column a property ``is_active`` is believed.
        roles: A list (JSON), a text of names with spaces or commas between, a relationship to objects with a unique
            ``name``; or a function of the user that returns their roles.
        scopes: Likewise.
        created_at: A time, or seconds since the epoch.
        profile: The attributes that the API shows: texts, numbers, truth values and times.
        writable: Those of them that people may change themselves (ASVS 8.2.3): columns.
        clock: Seconds since the epoch.

    Raises:
        ConfigError: If the model is not as described here.
    """

    def __init__(
        self,
        model: Any,
        sessions: Any,
        *,
        username: str = "username",
        email: str | None = "email",
        password_hash: str = "password_hash",  # noqa: S107 - the name of an attribute
        username_key: str | None = None,
        email_key: str | None = None,
        email_verified: str | None = None,
        is_active: str | None = None,
        roles: str | Callable[[Any], Iterable[str]] | None = None,
        scopes: str | Callable[[Any], Iterable[str]] | None = None,
        created_at: str | None = None,
        profile: Sequence[str] = (),
        writable: Sequence[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        names = {
            "username": username, "email": email, "password_hash": password_hash, "username_key": username_key,
            "email_key": email_key, "email_verified": email_verified, "is_active": is_active, "roles": roles,
            "scopes": scopes, "created_at": created_at,
        }  # fmt: skip
        self._model = UserModel(model, names, profile, writable, clock)
        self._transactions = Transactions(sessions, self._model.mapper)
        self.changeable: frozenset[str] = self._model.changeable()
        self.profile: Sequence[str] = self._model.profile
        self.writable: frozenset[str] = self._model.writable
        self.knows: frozenset[str] = self._model.known_lists()
        self.is_numbered: bool = kind_of(self._model.key_column) is int

    # -- reading --------------------------------------------------------------------------------------------

    def get(self, subject: str) -> Account | None:
        """See ``UserStore.get``."""

        def read(session: orm.Session) -> Account | None:
            user = self._one(session, subject)
            return None if user is None else self._model.account(user)

        return self._find(read)

    def find(self, name: str) -> Account | None:
        """See ``UserStore.find``. One query."""
        if not is_text(name) or not 0 < len(name) <= _MAX_TEXT:
            return None
        model = self._model
        sought = model.sought(name)
        if sought is None:
            return None
        attribute, value = sought
        column = model.columns[attribute]
        query = sa.select(model.user_class).options(*model.lists_at_once()).where(column == value).limit(2)

        def read(session: orm.Session) -> Account | None:
            found = [user for user in session.scalars(query).unique() if model.is_sought(user, attribute, value)]
            if len(found) > 1:  # nobody can tell who is meant
                logger.error("Two users go by one name; make %s unique in the database.", column)
            return model.account(found[0]) if len(found) == 1 else None

        return self._find(read)

    def list(self, offset: int = 0, limit: int = 100) -> tuple[Sequence[Account], int]:
        """See ``UserStore.list``. In the order of the primary key.

        Args:
            offset: How many to skip.
            limit: How many to return, 1 to 1000.

        Raises:
            InvalidValue: If these are no such numbers.
        """
        if offset.__class__ is not int or not 0 <= offset <= _MAX_OFFSET:
            raise InvalidValue("An offset counts from 0.")
        if limit.__class__ is not int or not 1 <= limit <= _MAX_LIST:
            raise InvalidValue(f"A page has 1 to {_MAX_LIST} entries.")
        model = self._model
        everybody = sa.select(model.user_class).options(*model.lists_at_once()).order_by(model.key_column)
        page = everybody.offset(offset).limit(limit)

        def read(session: orm.Session) -> tuple[Sequence[Account], int]:
            accounts = [model.account(user) for user in session.scalars(page).unique()]
            return accounts, session.scalar(sa.select(sa.func.count()).select_from(model.user_class)) or 0

        return self._transactions.run(read)

    def load(self, subject: str) -> Any:
        """See ``UserStore.load``.

        The object is the app's scoped session's, if there is one (``db.session``); else it is detached: what it has not
        loaded cannot be loaded any more.
        """
        scoped = self._transactions.scoped
        if scoped is None:
            account = self.get(subject)
            return None if account is None else account.user
        with contextlib.suppress(InvalidValue), jam_errors_only(cannot_be_stored):
            return self._one(scoped(), subject)
        return None

    def account_of(self, user: Any) -> Account:
        """See ``UserStore.account_of``.

        Raises:
            ConfigError: If it is none of the model's.
            StoreUnavailable: If what it has not loaded yet cannot be loaded.
        """
        if not isinstance(user, self._model.user_class):
            raise ConfigError(f"A user is a {self._model.user_class.__name__}, not a {type(user).__name__}.")
        with jam_errors_only(cannot_be_stored):
            return self._model.account(user)

    # -- writing --------------------------------------------------------------------------------------------

    def check_profile(self, values: Mapping[str, Any]) -> None:
        """See ``UserStore.check_profile``."""
        self._model.new_values({}, values)

    def create(
        self, *, username: str, email: str | None, password_hash: str | None, profile: Mapping[str, Any] | None = None
    ) -> Account:
        """See ``UserStore.create``.

        Raises:
            UsernameTaken, EmailTaken: If somebody has it, also if that happened this very moment.
            InvalidValue: If it cannot be stored.
            ConfigError: If the model has no place for the e-mail address, or takes no keyword arguments.
            StoreUnavailable: If nobody can tell.
        """
        model = self._model
        values = model.new_values({"username": username, "email": email, "password_hash": password_hash}, profile or {})

        def add(session: orm.Session) -> Account:
            self._refuse_taken(session, values)
            user = model.make(values)
            session.add(user)
            session.flush()
            session.refresh(user)
            return model.account(user)

        return self._transactions.run(add, writes=True, refused=lambda: self._why_refused(values))

    def update(
        self, subject: str, changes: Mapping[str, Any], only_if: Mapping[str, Any] | None = None
    ) -> Account | None:
        """See ``UserStore.update``.

        Raises:
            UsernameTaken, EmailTaken: If somebody has it, also if that happened this very moment.
            InvalidValue: If it cannot be stored, or is not the owner's to change.
            ConfigError: If the model has no place for it.
            StoreUnavailable: If nobody can tell.
        """
        model = self._model
        values, lists = model.changed_values(changes)
        expected = model.expected(only_if or {})

        def change(session: orm.Session) -> Account | None:
            user = self._locked(session, subject)
            if user is None or not model.is_as_expected(user, expected):
                return None
            self._refuse_taken(session, values, but=subject)
            model.change(session, user, values, lists)
            session.flush()
            session.refresh(user)
            return model.account(user)

        return self._transactions.run(change, writes=True, refused=lambda: self._why_refused(values, but=subject))

    def delete(self, subject: str) -> bool:
        """See ``UserStore.delete``. The cascades of the app's model run.

        Raises:
            InvalidValue: If other data of the app forbids it.
            StoreUnavailable: If nobody can tell.
        """

        def remove(session: orm.Session) -> bool:
            user = self._locked(session, subject)
            if user is None:
                return False
            session.delete(user)
            try:
                session.flush()
            except AssertionError:  # SQLAlchemy's word for children that cannot be without their parent
                raise _is_referred_to() from None
            return True

        return self._transactions.run(remove, writes=True, refused=_is_referred_to)

    def close(self) -> None:
        """Let go of the connections, if the engine is Jam's own. It may be used again afterwards."""

    # -- one user, and the names of all -----------------------------------------------------------------------

    def _find(self, read: Callable[[orm.Session], Account | None]) -> Account | None:
        with contextlib.suppress(InvalidValue):  # what the database cannot even compare is nobody's
            return self._transactions.run(read)
        return None

    def _one(self, session: orm.Session, subject: str) -> Any:
        key = self._model.key(subject, session.get_bind(self._model.mapper).dialect.name)
        user = None if key is None else session.get(self._model.user_class, key, options=self._model.lists_at_once())
        # A database may take "ALICE" or "alice " for "alice".
        return user if user is not None and self._model.subject(user) == subject else None

    def _locked(self, session: orm.Session, subject: str) -> Any:
        """The user, whom nobody else can change until the transaction is over."""
        column = self._model.key_column
        key = self._model.key(subject, session.get_bind(self._model.mapper).dialect.name)
        if key is None:
            return None
        # By itself: a query with the joins of the model's eager relationships cannot lock with PostgreSQL.
        session.execute(sa.select(column).where(column == key).with_for_update())
        return self._one(session, subject)

    def _refuse_taken(self, session: orm.Session, values: Mapping[str, Any], but: str | None = None) -> None:
        taken = self._taken(session, values, but)
        if taken is not None:
            raise taken

    def _taken(self, session: orm.Session, values: Mapping[str, Any], but: str | None) -> JamError | None:
        """What to raise if somebody else has one of these names."""
        model = self._model
        for name, error in (("username", UsernameTaken), ("email", EmailTaken)):
            attribute = model.compared(name)
            if attribute is None or values.get(attribute) is None:
                continue
            owners = sa.select(model.key_column).where(model.columns[attribute] == values[attribute]).limit(2)
            if any(str(key) != but for key in session.scalars(owners)):
                return error()
        return None

    def _why_refused(self, values: Mapping[str, Any], but: str | None = None) -> JamError:
        """Which of the names somebody else took in this moment, if it was that."""
        return self._transactions.run(lambda session: self._taken(session, values, but)) or cannot_be_stored()


def _is_referred_to() -> JamError:
    return InvalidValue(
        "The account cannot be deleted: other data refers to it.", hint="Delete that first, or let it cascade."
    )


def open_users(
    source: str | sa.URL | sa.Engine, table: str = "jam_users", *, clock: Callable[[], float] = time.time
) -> SQLUsers:
    """The people of an app that has no model: a table of Jam's own, made when it is first needed.

    Args:
        source: A URL (``sqlite:///people.db``, ``postgresql+psycopg://...``, ``mysql+pymysql://...``), from which an
            engine of Jam's own is made, which may cross a fork; or an ``Engine``. A SQLite store's file is the store's
            alone: take another one.
        table: What the table is called.
        clock: Seconds since the epoch.

    Raises:
        ConfigError: If the URL cannot be used.
    """
    return _ReadyUsers(ReadyTable(source, table), clock)


class _ReadyUsers(SQLUsers):
    def __init__(self, table: ReadyTable, clock: Callable[[], float]) -> None:
        super().__init__(table.model, table, clock=clock)
        self._table = table

    def close(self) -> None:
        self._table.close()
