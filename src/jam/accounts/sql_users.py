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
import difflib
import logging
import math
import os
import re
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from datetime import time as time_of_day
from decimal import Decimal
from types import MappingProxyType
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.pool import SingletonThreadPool, StaticPool

from jam.accounts.names import email_address, email_key, username_key
from jam.accounts.users import CHANGEABLE, Account
from jam.errors import ConfigError, EmailTaken, InvalidValue, JamError, StoreUnavailable, UsernameTaken
from jam.stores.forks import around_forks

__all__ = ["SQLUsers", "jam_user_model", "open_users"]

logger = logging.getLogger("jam.accounts")

T = TypeVar("T")

# What the attributes are usually called, and may be left out of a model.
_USUAL = {
    "username_key": ("username_key",),
    "email_key": ("email_key",),
    "email_verified": ("email_verified", "email_verified_at", "confirmed_at"),
    "is_active": ("is_active", "active"),
    "roles": ("roles",),
    "scopes": ("scopes",),
    "created_at": ("created_at",),
}
_KINDS: Mapping[str, tuple[type, ...]] = {
    "username": (str,),
    "email": (str,),
    "password_hash": (str,),
    "username_key": (str,),
    "email_key": (str,),
    "email_verified": (bool, datetime),
    "is_active": (bool,),
    "created_at": (datetime, float, int),
}
_COLUMN_TO_ADD = {
    "email": "sa.Column(sa.String(254), unique=True)",
    "email_verified": "sa.Column(sa.Boolean, nullable=False, default=False)",
    "is_active": "sa.Column(sa.Boolean, nullable=False, default=True)",
    "roles": "sa.Column(sa.JSON, nullable=False, default=list)",
    "scopes": "sa.Column(sa.JSON, nullable=False, default=list)",
}
_WRITABLE_KINDS = (str, bool, int, float, datetime)
_LONGEST_HASH = 102  # characters: argon2id with the largest parameters that jam.config allows
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}", re.ASCII)
_MAX_TEXT = 1024  # characters of a name that is looked up
_MAX_SUBJECT = 255
_MAX_LIST = 1000
_MAX_OFFSET = 2**63 - 1
_MAX_ATTEMPTS = 8
_WAIT_FOR_A_WHILE = sa.text(
    "SELECT set_config('lock_timeout', '5s', true) WHERE current_setting('lock_timeout') IN ('0', '0ms')"
)
# What an engine says when two writers were in each other's way and one may simply try again.
_TRY_AGAIN = frozenset((1213, 1020, "40001", "40P01"))


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
        self._new_session, self._scoped = _session_factory(sessions)
        self._model: _Model = _Model(model, names, profile, writable, clock)
        self.changeable: frozenset[str] = self._model.changeable()
        self.profile: Sequence[str] = self._model.profile
        self.writable: frozenset[str] = self._model.writable
        self.is_numbered: bool = _kind(self._model.key_column) is int

    # -- reading --------------------------------------------------------------------------------------------

    def get(self, subject: str) -> Account | None:
        """See ``UserStore.get``."""

        def read(session: orm.Session) -> Account | None:
            user = self._one(session, subject)
            return None if user is None else self._model.account(user)

        return self._find(read)

    def find(self, name: str) -> Account | None:
        """See ``UserStore.find``. One query."""
        if not _is_text(name) or not 0 < len(name) <= _MAX_TEXT:
            return None
        wanted = self._model.wanted(name)
        if wanted is None:
            return None
        column, value, is_the_same = wanted
        query = sa.select(self._model.user_class).options(*self._model.lists_at_once()).where(column == value).limit(2)

        def read(session: orm.Session) -> Account | None:
            found = [user for user in session.scalars(query).unique() if is_the_same(user)]
            if len(found) > 1:  # nobody can tell who is meant
                logger.error("Two users go by one name; make %s unique in the database.", column)
            return self._model.account(found[0]) if len(found) == 1 else None

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

        return self._run(read)

    def load(self, subject: str) -> Any:
        """See ``UserStore.load``.

        The object is the app's scoped session's, if there is one (``db.session``); else it is detached: what it has not
        loaded cannot be loaded any more.
        """
        if self._scoped is None:
            account = self.get(subject)
            return None if account is None else account.user
        with contextlib.suppress(InvalidValue), _jam_errors_only(_cannot_be_stored):
            return self._one(self._scoped(), subject)
        return None

    def account_of(self, user: Any) -> Account:
        """See ``UserStore.account_of``.

        Raises:
            ConfigError: If it is none of the model's.
            StoreUnavailable: If what it has not loaded yet cannot be loaded.
        """
        if not isinstance(user, self._model.user_class):
            raise ConfigError(f"A user is a {self._model.user_class.__name__}, not a {type(user).__name__}.")
        with _jam_errors_only(_cannot_be_stored):
            return self._model.account(user)

    # -- writing --------------------------------------------------------------------------------------------

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

        return self._run(add, writes=True, refused=lambda: self._why_refused(values))

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
            with session.no_autoflush:
                for name, members in lists.items():
                    model.assign(user, {model.attribute(name): model.list_value(session, user, name, members)})
                model.assign(user, values)
            session.flush()
            session.refresh(user)
            return model.account(user)

        return self._run(change, writes=True, refused=lambda: self._why_refused(values, but=subject))

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

        return self._run(remove, writes=True, refused=_is_referred_to)

    def close(self) -> None:
        """Let go of the connections, if the engine is Jam's own. It may be used again afterwards."""

    # -- transactions ---------------------------------------------------------------------------------------

    def _session(self) -> orm.Session:
        session = self._new_session()
        session.expire_on_commit = False  # an account's user is read when its session is over
        return session

    def _find(self, read: Callable[[orm.Session], Account | None]) -> Account | None:
        with contextlib.suppress(InvalidValue):  # what the database cannot even compare is nobody's
            return self._run(read)
        return None

    def _run(
        self,
        act: Callable[[orm.Session], T],
        *,
        writes: bool = False,
        refused: Callable[[], JamError] | None = None,
    ) -> T:
        """Act within a transaction of its own; again if writers got in each other's way.

        Args:
            act: What to do.
            writes: Whether others must wait until it is done.
            refused: What to raise if the database's constraints forbid it.
        """
        with _jam_errors_only(refused or _cannot_be_stored):
            for attempt in range(_MAX_ATTEMPTS):
                try:
                    with self._session() as session, session.begin():
                        connection = self._connection(session)
                        if writes:
                            self._make_others_wait(connection)
                        return act(session)
                except sa.exc.DBAPIError as error:
                    if attempt + 1 == _MAX_ATTEMPTS or not _may_try_again(error):
                        raise
                    time.sleep(0.002 * 2**attempt)
        raise AssertionError("unreachable")  # pragma: no cover

    def _connection(self, session: orm.Session) -> sa.Connection:
        connection = session.connection(bind_arguments={"mapper": self._model.mapper})
        raw: Any = connection.connection.dbapi_connection
        is_lent = isinstance(session.get_bind(self._model.mapper), sa.Engine)  # not the app's, which it made join in
        is_shared = isinstance(connection.engine.pool, (StaticPool, SingletonThreadPool))
        if is_lent and is_shared and raw.isolation_level is not None and raw.in_transaction:
            raise ConfigError(
                "Something on the one connection that everybody shares is not committed yet.",
                hint="Commit before you call Jam, or use a file instead of a database in memory.",
            )
        return connection

    def _make_others_wait(self, connection: sa.Connection) -> None:
        """Begin to write. SQLite knows no locks of rows: writers wait for each other from here on."""
        raw: Any = connection.connection.dbapi_connection
        if connection.dialect.name == "sqlite":
            column = self._model.key_column
            connection.execute(sa.update(column.table).where(sa.false()).values({column: column}))
            autocommit = not raw.in_transaction
        else:
            if connection.dialect.name == "postgresql":  # which else waits for ever
                connection.execute(_WAIT_FOR_A_WHILE)
            ask = getattr(raw, "get_autocommit", None)
            autocommit = (ask() if ask is not None else getattr(raw, "autocommit", False)) is True
        if autocommit:
            raise ConfigError(
                "The engine commits every statement by itself (AUTOCOMMIT), and Jam's changes take several.",
                hint='Give Jam one that does not: engine.execution_options(isolation_level="READ COMMITTED").',
            )

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
        return self._run(lambda session: self._taken(session, values, but)) or _cannot_be_stored()


class _Model:
    """What Jam knows of an app's model: which attribute is which, and how its values are read and written."""

    user_class: Any
    mapper: orm.Mapper[Any]
    key_column: Any
    columns: Mapping[str, Any]
    _key_attribute: str
    profile: tuple[str, ...]
    writable: frozenset[str]
    _clock: Callable[[], float]

    def __init__(
        self,
        model: Any,
        names: Mapping[str, Any],
        profile: Sequence[str],
        writable: Sequence[str],
        clock: Callable[[], float],
    ) -> None:
        mapper = sa.inspect(model, raiseerr=False) if isinstance(model, type) else None
        if not isinstance(mapper, orm.Mapper):
            raise ConfigError("The users' model is no class that SQLAlchemy maps.", hint="Pass your class User.")
        self.user_class = model
        self.mapper = mapper
        self._clock = clock
        # Not mapper.attrs: that needs the classes of all relationships, which may not be defined yet.
        self.columns = {name: column for name, column in mapper.columns.items() if isinstance(column, sa.Column)}
        self._attributes: dict[str, str] = {}
        self._functions: dict[str, Callable[[Any], Iterable[str]]] = {}
        for name, given in names.items():
            self._find_attribute(name, given)
        if len(mapper.primary_key) != 1:
            raise ConfigError(f"{model.__name__} has a primary key of several columns; a subject is one value.")
        self.key_column = mapper.primary_key[0]
        self._key_attribute = mapper.get_property_by_column(self.key_column).key
        if _kind(self.key_column) not in (int, str, uuid.UUID):
            raise ConfigError(f"The primary key of {model.__name__} is neither a number, nor text, nor a UUID.")
        self.profile, self.writable = tuple(profile), frozenset(writable)
        self._check_profile()
        self._warn_unless_unique()

    # -- which attribute is which ---------------------------------------------------------------------------

    def _find_attribute(self, name: str, given: Any) -> None:
        lists = name in ("roles", "scopes")
        known = self.mapper.all_orm_descriptors if lists else self.columns
        if lists and callable(given):
            self._functions[name] = given
            return
        if given is None:
            given = next((usual for usual in _USUAL.get(name, ()) if usual in known), None)
            if given is None and name not in ("username", "password_hash"):
                return
        if given not in known:
            near = difflib.get_close_matches(str(given), list(known.keys()), n=1, cutoff=0.0)
            raise ConfigError(
                f"{self.user_class.__name__} has no column for {name}: there is no {given!r}.",
                hint=f"Did you mean {name}={near[0]!r}?" if near else "",
            )
        self._attributes[name] = given
        column = self.columns.get(given)
        if column is not None and not lists and _kind(column) not in _KINDS[name]:
            kinds = " or ".join(kind.__name__ for kind in _KINDS[name])
            raise ConfigError(f"{self.user_class.__name__}.{given} cannot be its {name}, which is kept as {kinds}.")
        if name == "password_hash" and (_length(column) or _LONGEST_HASH) < _LONGEST_HASH:
            raise ConfigError(
                f"{self.user_class.__name__}.{given} is too short for a password hash.",
                hint=f"argon2id takes up to {_LONGEST_HASH} characters: make it a String(255).",
            )

    def _check_profile(self) -> None:
        taken = set(self._attributes.values()) | CHANGEABLE
        for name in (*self.profile, *self.writable):
            if not isinstance(name, str) or not hasattr(self.user_class, name):
                near = difflib.get_close_matches(str(name), dir(self.user_class), n=1, cutoff=0.0)
                raise ConfigError(
                    f"{self.user_class.__name__} has no attribute {name!r}.", hint=f"Did you mean {near[0]!r}?"
                )
            if name in taken:
                raise ConfigError(f"{name!r} is Jam's own to show and to change; it is no field of a profile.")
        for name in self.writable:
            if name not in self.profile:
                raise ConfigError(f"{name!r} is writable, but not among the fields of the profile.")
            column = self.columns.get(name)
            if column is None or column.primary_key or _kind(column) not in _WRITABLE_KINDS:
                raise ConfigError(
                    f"{name!r} cannot be writable.", hint="Columns of texts, numbers, truth values and times can."
                )

    def _warn_unless_unique(self) -> None:
        for name in ("username", "email"):
            attribute = self.compared(name)
            if attribute is not None and not _is_unique(self.columns[attribute]):
                logger.warning(
                    "%s.%s is not unique: two people who register at the same moment can get the same %s. "
                    "Add unique=True, and a migration.", self.user_class.__name__, attribute, name,
                )  # fmt: skip

    def attribute(self, name: str) -> str:
        """How the model calls it.

        Raises:
            ConfigError: If it has no place for it.
        """
        if name not in self._attributes:
            raise ConfigError(
                f"{self.user_class.__name__} has no place for {name}.",
                hint=f"Add the column {name} = {_COLUMN_TO_ADD[name]}, or say which one it is: SQLUsers({name}=...).",
            )
        return self._attributes[name]

    def changeable(self) -> frozenset[str]:
        """What there is a place for."""
        attributes = self.mapper.all_orm_descriptors
        return frozenset(
            name
            for name, attribute in self._attributes.items()
            if name in CHANGEABLE and isinstance(attributes[attribute], orm.InstrumentedAttribute)  # not a proxy
        )

    def lists_at_once(self) -> Sequence[Any]:
        """Read roles in the same query: else whom Jam knows would cost one more than whom it does not."""
        try:
            relationships = self.mapper.relationships
        except sa.exc.SQLAlchemyError as error:  # only now is there need of all the app's models
            raise ConfigError(f"SQLAlchemy cannot map {self.user_class.__name__}.", hint=str(error)) from None
        names = (self._attributes.get(name, "") for name in ("roles", "scopes"))
        return [
            orm.joinedload(getattr(self.user_class, name))
            for name in names
            if name in relationships and relationships[name].lazy not in ("dynamic", "write_only")
        ]

    def compared(self, name: str) -> str | None:
        """The attribute by which a user name or e-mail address is found: its key if there is one."""
        return self._attributes.get(f"{name}_key") or self._attributes.get(name)

    def wanted(self, name: str) -> tuple[Any, str, Callable[[Any], bool]] | None:
        """How to find who goes by a name: the column, its value, and what makes sure that it is them.

        A database may take ``álice`` for ``alice``; the counters of failed attempts do not, and so Jam does not.
        """
        kind, fold = ("email", email_key) if "@" in name else ("username", username_key)
        attribute = self.compared(kind)
        if attribute is None:
            return None
        column = self.columns[attribute]
        if attribute != self._attributes.get(f"{kind}_key"):
            folded = username_key(name)
            return column, name, lambda user: username_key(getattr(user, attribute)) == folded
        key = fold(name)
        return None if key is None else (column, key, lambda user: getattr(user, attribute) == key)

    # -- reading --------------------------------------------------------------------------------------------

    def key(self, subject: str, dialect: str) -> Any:
        """The primary key of a subject; ``None`` if it cannot be one."""
        if not _is_text(subject) or not 0 < len(subject) <= _MAX_SUBJECT:
            return None
        column_type = self.key_column.type
        if isinstance(column_type, sa.Uuid):
            with contextlib.suppress(ValueError):
                parsed = uuid.UUID(subject)
                return parsed if column_type.as_uuid else str(parsed)
            return None
        if _kind(self.key_column) is not int:
            return subject
        if not _INTEGER.fullmatch(subject):
            return None
        number = int(subject)
        # PostgreSQL would end the app's own transaction over a number that is none of its column's.
        bits = _bits(self.key_column) if dialect == "postgresql" else 63
        return number if -(1 << bits) <= number < 1 << bits else None

    def subject(self, user: Any) -> str:
        return str(getattr(user, self._key_attribute))

    def account(self, user: Any) -> Account:
        """What is known of a user, while their session is open."""
        return Account(
            subject=self.subject(user), username=self._value(user, "username"), email=self._value(user, "email"),
            email_verified=bool(self._value(user, "email_verified")), password_hash=self._value(user, "password_hash"),
            is_active=self._is_active(user), roles=self._names(user, "roles"), scopes=self._names(user, "scopes"),
            created_at=_seconds(self._value(user, "created_at")),
            profile=MappingProxyType({name: _shown(name, getattr(user, name)) for name in self.profile}), user=user,
        )  # fmt: skip

    def _value(self, user: Any, name: str) -> Any:
        attribute = self._attributes.get(name)
        return None if attribute is None else getattr(user, attribute)

    def _is_active(self, user: Any) -> bool:
        if "is_active" in self._attributes:
            return bool(self._value(user, "is_active"))
        told = getattr(user, "is_active", True)  # a property of the app's own
        return bool(told() if callable(told) else told)

    def _names(self, user: Any, name: str) -> frozenset[str]:
        function = self._functions.get(name)
        return _names_in(self._value(user, name) if function is None else function(user))

    def expected(self, only_if: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a change depends on, checked.

        Raises:
            InvalidValue: If there is nothing of that name.
        """
        for name in only_if:
            if name not in CHANGEABLE and name not in self.profile:
                raise _unknown_field(name)
        lists = {name: _checked_names(name, only_if[name]) for name in ("roles", "scopes") if name in only_if}
        return {**only_if, **lists}

    def is_as_expected(self, user: Any, expected: Mapping[str, Any]) -> bool:
        """Compared here, not by the database, which may take ``A`` for ``a``."""
        if not expected:
            return True
        account = self.account(user)
        now = {**account.profile, **{name: getattr(account, name) for name in CHANGEABLE}}
        return all(now[name] == value for name, value in expected.items())

    # -- writing --------------------------------------------------------------------------------------------

    def new_values(self, fields: Mapping[str, Any], profile: Mapping[str, Any]) -> dict[str, Any]:
        """The attributes of a new user."""
        values: dict[str, Any] = {}
        for name, value in fields.items():
            if value is not None or name in self._attributes:
                values |= self._written(name, value)
        for name, value in profile.items():
            values |= self._written_by_its_owner(name, value)
        for name, value in (("is_active", True), ("email_verified", False), ("created_at", True)):
            attribute = self._attributes.get(name)
            if attribute is None:
                continue
            column = self.columns[attribute]
            if column.default is None and column.server_default is None:  # else it is the app's to say
                values[attribute] = self._truth(column, value)
        return values

    def changed_values(self, changes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, frozenset[str]]]:
        """The attributes to change; and the lists of names, which need a session to be looked up in."""
        values: dict[str, Any] = {}
        lists: dict[str, frozenset[str]] = {}
        for name, value in changes.items():
            if name in ("roles", "scopes"):
                self.attribute(name)
                lists[name] = _checked_names(name, value)
            elif name in CHANGEABLE:
                values |= self._written(name, value)
            else:
                values |= self._written_by_its_owner(name, value)
        return values, lists

    def _written(self, name: str, value: Any) -> dict[str, Any]:
        attribute = self.attribute(name)
        column = self.columns[attribute]
        if name in ("is_active", "email_verified"):
            if not isinstance(value, bool):
                raise InvalidValue(f"{name} is true or false.")
            return {attribute: self._truth(column, value)}
        written = {attribute: _checked(column, name, value)}
        key_attribute = self._attributes.get(f"{name}_key")
        if key_attribute is not None:
            fold = username_key if name == "username" else _key_of_an_address
            key = None if value is None else fold(value)
            written[key_attribute] = _checked(self.columns[key_attribute], f"{name}_key", key)
        return written

    def _written_by_its_owner(self, name: str, value: Any) -> dict[str, Any]:
        if name not in self.writable:
            raise _unknown_field(name)
        return {name: _checked(self.columns[name], name, value)}

    def _truth(self, column: Any, value: bool) -> Any:
        """A truth value; or the time since when it is true."""
        if _kind(column) is bool:
            return value
        return self._now(column) if value else None

    def _now(self, column: Any) -> Any:
        now = self._clock()
        if _kind(column) is datetime:
            moment = datetime.fromtimestamp(now, UTC)
            return moment if column.type.timezone else moment.replace(tzinfo=None)
        return _kind(column)(now)

    def make(self, values: Mapping[str, Any]) -> Any:
        with _apps_refusals():
            try:
                return self.user_class(**values)
            except TypeError as error:
                raise ConfigError(
                    f"{self.user_class.__name__} cannot be made with the keyword arguments {', '.join(values)}.",
                    hint=f"{error}.",
                ) from None

    def assign(self, user: Any, values: Mapping[str, Any]) -> None:
        with _apps_refusals():
            for attribute, value in values.items():
                setattr(user, attribute, value)

    def list_value(self, session: orm.Session, user: Any, name: str, members: frozenset[str]) -> Any:
        """Roles or scopes as the model keeps them."""
        attribute = self.attribute(name)
        column = self.columns.get(attribute)
        if column is None:
            return self._related(session, user, name, members)
        if _kind(column) is not str:
            return sorted(members)
        if any(_names_in(member) != {member} for member in members):
            raise InvalidValue(f"{name} are single words.")
        separator = "," if "," in (getattr(user, attribute) or "") else " "
        return _checked(column, name, separator.join(sorted(members)))

    def _related(self, session: orm.Session, user: Any, name: str, members: frozenset[str]) -> Any:
        attribute = self.attribute(name)
        relationship = self.mapper.relationships.get(attribute)
        if relationship is None or "name" not in relationship.mapper.columns:
            raise ConfigError(
                f"Jam cannot change {self.user_class.__name__}.{attribute}.",
                hint="It is to be a column, or a relationship to objects with a unique name.",
            )
        query = sa.select(relationship.mapper.class_).where(relationship.mapper.columns["name"].in_(members))
        there = {item.name: item for item in session.scalars(query).unique()}
        missing = members - there.keys()
        if missing:
            raise InvalidValue(f"There is no {min(missing)!r} among the {name}.")
        chosen = [there[member] for member in sorted(members)]
        if relationship.uselist:
            return set(chosen) if isinstance(getattr(user, attribute), set) else chosen
        if len(chosen) > 1:
            raise InvalidValue(f"There is one of {name} at most.")
        return chosen[0] if chosen else None


# -- sessions and errors ------------------------------------------------------------------------------------


def _session_factory(source: Any) -> tuple[Callable[[], orm.Session], orm.scoped_session[Any] | None]:
    """What makes sessions of Jam's own, and the app's own scoped session if there is one."""
    if not isinstance(source, (sa.Engine, orm.sessionmaker, orm.scoped_session)):
        source = getattr(source, "session", None)  # Flask-SQLAlchemy's db
    if isinstance(source, sa.Engine):
        return orm.sessionmaker(source), None
    if isinstance(source, orm.sessionmaker):
        return source, None
    if isinstance(source, orm.scoped_session):
        return source.session_factory, source
    raise ConfigError("Users are read through Flask-SQLAlchemy's db, a scoped_session, a sessionmaker or an Engine.")


@contextlib.contextmanager
def _jam_errors_only(refused: Callable[[], JamError]) -> Iterator[None]:
    """Let nothing of SQLAlchemy or a driver out: their texts quote the values of the statement, hashes too."""
    make: Callable[[], JamError] | None = None
    try:
        yield
    except JamError:
        raise
    except sa.exc.IntegrityError:
        make = refused
    except sa.exc.UnboundExecutionError:
        make = _has_no_engine
    except (sa.exc.DataError, UnicodeEncodeError, OverflowError):
        make = _cannot_be_stored
    except sa.exc.DBAPIError as error:
        make = _unavailable(error.orig, str(error.orig))
    except sa.exc.StatementError:  # a value that a column's type does not take
        make = _cannot_be_stored
    except (sa.exc.SQLAlchemyError, OSError, ValueError) as error:
        make = _unavailable(error)
    except RuntimeError as error:
        if "application context" not in str(error):
            raise
        make = _outside_of_an_app
    if make is not None:
        raise make() from None


def _unavailable(error: BaseException | None, text: str = "") -> Callable[[], JamError]:
    name = type(error).__name__
    logger.error("The users' database failed: %s: %s", name, text)
    return lambda: StoreUnavailable(hint=f"The database says: {name}.")


def _cannot_be_stored() -> JamError:
    return InvalidValue(
        "The account cannot be stored like that.",
        hint="A column of the model refuses its value, or has none and needs one.",
    )


def _is_referred_to() -> JamError:
    return InvalidValue(
        "The account cannot be deleted: other data refers to it.", hint="Delete that first, or let it cascade."
    )


def _has_no_engine() -> JamError:
    return ConfigError("The sessions have no engine.", hint="sessionmaker(engine), for example.")


def _outside_of_an_app() -> JamError:
    return ConfigError("Flask-SQLAlchemy knows its database only within an app.", hint="with app.app_context(): ...")


def _unknown_field(name: Any) -> InvalidValue:
    return InvalidValue(f"{str(name)[:64]!r} is not a field that can be changed.")


@contextlib.contextmanager
def _apps_refusals() -> Iterator[None]:
    """The words of an app's own validators are meant for who wrote the value."""
    try:
        yield
    except JamError:
        raise
    except (ValueError, AssertionError) as error:
        raise InvalidValue(str(error) or "A value is not acceptable.") from None


def _may_try_again(error: sa.exc.DBAPIError) -> bool:
    original = error.orig
    code = getattr(original, "sqlstate", None) or next(iter(getattr(original, "args", ())), None)
    return code in _TRY_AGAIN


# -- columns and values -------------------------------------------------------------------------------------


def _plain_type(column: Any) -> Any:
    return column.type.impl_instance if isinstance(column.type, sa.types.TypeDecorator) else column.type


def _kind(column: Any) -> Any:
    """The Python type of a column's values; ``object`` if it has none of its own."""
    try:
        return _plain_type(column).python_type
    except NotImplementedError:  # pragma: no cover - SQLAlchemy 2.0
        return object


def _length(column: Any) -> int | None:
    length: int | None = getattr(_plain_type(column), "length", None)
    return length


def _bits(column: Any) -> int:
    plain = _plain_type(column)
    return 15 if isinstance(plain, sa.SmallInteger) else 63 if isinstance(plain, sa.BigInteger) else 31


def _is_unique(column: Any) -> bool:
    table = column.table
    sets = [key.columns for key in table.constraints if isinstance(key, (sa.UniqueConstraint, sa.PrimaryKeyConstraint))]
    sets += [index.columns for index in table.indexes if index.unique]
    return column.unique is True or any(list(columns) == [column] for columns in sets)


def _is_text(value: Any) -> bool:
    """Whether every database could keep it."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _key_of_an_address(address: str) -> str:
    return email_address(address).key


def _checked(column: Any, name: str, value: Any) -> Any:
    """A value as it is written to a column: not each database asks for its type and length.

    Raises:
        InvalidValue: Naming the field.
    """
    if value is None:
        if not column.nullable:
            raise InvalidValue(f"{name} cannot be left out.")
        return None
    kind = _kind(column)
    if kind is str and _is_text(value):
        length = _length(column)
        if length is not None and len(value) > length:
            raise InvalidValue(f"{name} has at most {length} characters.")
        return value
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and value.__class__ is int and -(1 << _bits(column)) <= value < 1 << _bits(column):
        return value
    if kind is float and value.__class__ in (int, float):
        with contextlib.suppress(OverflowError):
            if math.isfinite(value):
                return float(value)
    if kind is datetime:
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            return _moment(value, with_timezone=column.type.timezone)
    raise InvalidValue(f"{name} is not of the right kind.")


def _moment(text: str, *, with_timezone: bool) -> datetime:
    moment = datetime.fromisoformat(text)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment if with_timezone else moment.replace(tzinfo=None)


def _seconds(value: Any) -> float | None:
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return None if value is None else float(value)


def _shown(name: str, value: Any) -> Any:
    """A value of the profile, as JSON has it."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        moment = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return moment.isoformat().replace("+00:00", "Z")
    if isinstance(value, (date, time_of_day)):
        return value.isoformat()
    if isinstance(value, (Decimal, uuid.UUID)):
        return str(value)
    raise ConfigError(f"{name!r} cannot be shown in a profile: it is no text, number, truth value or time.")


def _names_in(value: Any) -> frozenset[str]:
    """Names of roles: of a text, a list of texts, objects with a name, or one such object. Anything else is none."""
    if isinstance(value, orm.WriteOnlyCollection):
        raise ConfigError(
            "Roles are read whole.", hint='Not lazy="write_only"; or tell SQLUsers roles=lambda user: ...'
        )
    if isinstance(value, str):
        return frozenset(value.replace(",", " ").split())
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, Iterable) else (value,)
    names = (item if isinstance(item, str) else getattr(item, "name", None) for item in items)
    return frozenset(name for name in names if isinstance(name, str) and name)


def _checked_names(field: str, value: Any) -> frozenset[str]:
    is_list = isinstance(value, Collection) and not isinstance(value, (str, Mapping))
    if not is_list or not all(_is_text(name) and name for name in value):
        raise InvalidValue(f"{field} are a list of names.")
    return frozenset(value)


# -- the ready table ----------------------------------------------------------------------------------------


def _exact(length: int) -> sa.types.TypeEngine[str]:
    """Text that equals only itself: MariaDB's own collations take ``álice`` for ``alice``."""
    return (
        sa.String(length)
        .with_variant(mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")
        .with_variant(postgresql.VARCHAR(length, collation="C"), "postgresql")
    )


def jam_user_model(metadata: sa.MetaData, table: str = "jam_users") -> Any:
    """A model of users for an app that has none, in the app's own metadata, so that its migrations see it.

    Args:
        metadata: Such as ``db.metadata`` of Flask-SQLAlchemy.
        table: What the table is called.

    Returns:
        The class, for ``SQLUsers(jam_user_model(db.metadata), db)``: always the same for the same metadata.
    """
    known = metadata.info.setdefault("jam_user_models", {})
    if table in known:
        return known[table]
    columns = sa.Table(
        table,
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("username", _exact(64), nullable=False),
        sa.Column("username_key", _exact(128), nullable=False, unique=True),
        sa.Column("email", _exact(254)),
        sa.Column("email_key", _exact(320), unique=True),
        sa.Column("email_verified", sa.Boolean, nullable=False, default=False),
        sa.Column("password_hash", _exact(255)),
        sa.Column("is_active", sa.Boolean, nullable=False, default=True),
        sa.Column("roles", sa.JSON, nullable=False, default=list),
        sa.Column("scopes", sa.JSON, nullable=False, default=list),
        sa.Column("created_at", sa.Double, nullable=False),
        sqlite_autoincrement=True,  # a deleted account's id is a subject, and nobody else's for ever
    )

    class JamUser:
        id: int

        def __init__(self, **values: Any) -> None:
            for name, value in values.items():
                setattr(self, name, value)

        def __repr__(self) -> str:
            return f"<JamUser {self.id!r}>"

    orm.registry(metadata=metadata).map_imperatively(JamUser, columns)
    known[table] = JamUser
    return JamUser


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
    if isinstance(source, sa.Engine):
        return _OwnTable(source, table, clock, owns_engine=False)
    return _OwnTable(_make_engine(source), table, clock, owns_engine=True)


class _OwnTable(SQLUsers):
    def __init__(self, engine: sa.Engine, table: str, clock: Callable[[], float], *, owns_engine: bool) -> None:
        metadata = sa.MetaData()
        super().__init__(jam_user_model(metadata, table), engine, clock=clock)
        self._engine, self._table = engine, metadata.tables[table]
        self._owns_engine = owns_engine
        self._is_made = False
        self._making = threading.Lock()

    def _session(self) -> orm.Session:
        if not self._is_made:
            with self._making:
                self._make_table()
        return super()._session()

    def close(self) -> None:
        if self._owns_engine:
            self._engine.dispose()

    def _make_table(self) -> None:
        """Make the table unless it is there; another process may do so at the same time."""
        try:
            if self._engine.dialect.name == "sqlite":
                _make_file(self._engine.url.database)
            with self._engine.begin() as connection:
                connection.execute(sa.schema.CreateTable(self._table, if_not_exists=True))
        except sa.exc.DBAPIError:
            if not sa.inspect(self._engine).has_table(self._table.name):
                raise
        self._is_made = True


def _make_file(path: str | None) -> None:
    """Make a database's file readable by its owner alone, unless it is there."""
    if path and path != ":memory:" and not path.startswith("file:"):  # an engine of the app's may have those
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _make_engine(source: str | sa.URL) -> sa.Engine:
    try:
        url = sa.make_url(source)
    except (sa.exc.ArgumentError, ValueError):
        raise ConfigError("The URL of the users' database cannot be read.") from None  # it may hold a password
    extras = {"postgresql+psycopg": "postgresql", "mysql+pymysql": "mysql", "mariadb+pymysql": "mysql"}
    if url.drivername in ("sqlite", "sqlite+pysqlite"):
        if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
            raise ConfigError("A SQLite URL is sqlite:///relative.db or sqlite:////absolute/path.db.")
        return sa.create_engine(url, poolclass=sa.NullPool)  # no connection is open when the process forks
    if url.drivername not in extras:
        raise ConfigError(
            f"There are no users at {url.drivername!r} URLs.",
            hint="Use sqlite:///..., postgresql+psycopg://... or mysql+pymysql://..., or give Jam your own engine.",
        )
    try:
        engine = sa.create_engine(url, pool_pre_ping=True)
    except ImportError:
        raise ConfigError(
            f"The driver for {url.drivername} is not installed.", hint=f"pip install jam-auth[{extras[url.drivername]}]"
        ) from None
    _own_engines.add(engine)
    return engine


def _forget_connections(engine: sa.Engine) -> None:
    engine.dispose(close=False)  # they are the parent's: the child must not say good-bye on them


_own_engines: weakref.WeakSet[sa.Engine] = weakref.WeakSet()

around_forks(
    _own_engines,
    before=lambda _: None,
    after_in_parent=lambda _: None,
    after_in_child=_forget_connections,
)
