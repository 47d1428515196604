"""Transactions on an app's database, apart from the app's own.

Each is short, on a session of Jam's own, so that Jam commits nothing that the app has pending, and sees nothing of it
either. Whatever goes wrong comes out as Jam's own error, and quotes no value.
"""

from __future__ import annotations

import contextlib
import logging
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.pool import SingletonThreadPool, StaticPool

from jam.errors import ConfigError, InvalidValue, JamError, StoreUnavailable
from jam.stores.engines import may_try_again
from jam.stores.forks import Gate, around_forks

__all__ = ["Transactions", "cannot_be_stored", "jam_errors_only"]

logger = logging.getLogger("jam.accounts")

T = TypeVar("T")

_MAX_ATTEMPTS = 8
_PATIENCE = 5.0  # seconds that a fork waits for whoever is within a transaction
_WAIT_FOR_A_WHILE = sa.text(
    "SELECT set_config('lock_timeout', '5s', true) WHERE current_setting('lock_timeout') IN ('0', '0ms')"
)


class Transactions:
    """What makes them, for one model.

    Args:
        sessions: Flask-SQLAlchemy's ``db``, a ``scoped_session``, a ``sessionmaker`` or an ``Engine``.
        mapper: Of the model.

    Attributes:
        scoped: The app's own scoped session, if that is what was given.

    Raises:
        ConfigError: If no sessions can be made of it.
    """

    def __init__(self, sessions: Any, mapper: orm.Mapper[Any]) -> None:
        if not isinstance(sessions, (sa.Engine, orm.sessionmaker, orm.scoped_session)):
            sessions = getattr(sessions, "session", None)  # Flask-SQLAlchemy's db
        self.scoped: orm.scoped_session[Any] | None = None
        self._new_session: Callable[[], orm.Session]
        if isinstance(sessions, sa.Engine):
            self._new_session = orm.sessionmaker(sessions)
        elif isinstance(sessions, orm.sessionmaker):
            self._new_session = sessions
        elif isinstance(sessions, orm.scoped_session):
            self.scoped = sessions
            self._new_session = sessions.session_factory
        else:
            raise ConfigError(
                "Users are read through Flask-SQLAlchemy's db, a scoped_session, a sessionmaker or an Engine."
            )
        self._mapper = mapper
        self._gate = Gate()
        _all_transactions.add(self)

    def run(
        self,
        act: Callable[[orm.Session], T],
        *,
        writes: bool = False,
        refused: Callable[[], JamError] | None = None,
    ) -> T:
        """Act within a transaction; again, up to 8 times, if writers got in each other's way.

        Args:
            act: What to do.
            writes: Whether others must wait until it is done.
            refused: What to raise if the database's constraints forbid it.

        Raises:
            InvalidValue: If a value cannot be stored.
            StoreUnavailable: If the database cannot be asked.
            ConfigError: If the app's sessions cannot do it.
        """
        with jam_errors_only(refused or cannot_be_stored):
            for attempt in range(_MAX_ATTEMPTS):
                try:
                    with self._gate, self._new_session() as session, session.begin():
                        session.expire_on_commit = False  # an account's user is read when its session is over
                        connection = self._connection(session)
                        if writes:
                            self._make_others_wait(connection)
                        return act(session)
                except sa.exc.DBAPIError as error:
                    if attempt + 1 == _MAX_ATTEMPTS or not may_try_again(error):
                        raise
                    time.sleep(0.002 * 2**attempt)
        raise AssertionError("unreachable")  # pragma: no cover

    # -- forks ----------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """See ``around_forks``. SQLite's own locks are copied as they are, and nobody in the child would open them."""
        self._gate.close(_PATIENCE)

    def after_fork_in_parent(self) -> None:
        """See ``around_forks``."""
        self._gate.open()

    def after_fork_in_child(self) -> None:
        """See ``around_forks``."""
        self._gate = Gate()

    # -- one transaction ------------------------------------------------------------------------------------

    def _connection(self, session: orm.Session) -> sa.Connection:
        connection = session.connection(bind_arguments={"mapper": self._mapper})
        raw: Any = connection.connection.dbapi_connection
        is_lent = isinstance(session.get_bind(self._mapper), sa.Engine)  # not the app's, which it made join in
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
            column = self._mapper.primary_key[0]
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


_all_transactions: weakref.WeakSet[Transactions] = weakref.WeakSet()

around_forks(
    _all_transactions,
    before=Transactions.before_fork,
    after_in_parent=Transactions.after_fork_in_parent,
    after_in_child=Transactions.after_fork_in_child,
)


@contextlib.contextmanager
def jam_errors_only(refused: Callable[[], JamError]) -> Iterator[None]:
    """Let nothing of SQLAlchemy or a driver out: their texts quote the values of the statement, hashes too.

    Args:
        refused: Makes what to raise if the database's constraints forbid it.

    Raises:
        InvalidValue: If a value cannot be stored.
        StoreUnavailable: If the database cannot be asked.
        ConfigError: If the app's sessions cannot do it.
    """
    make: Callable[[], JamError]
    try:
        yield
    except JamError:
        raise
    except sa.exc.IntegrityError:
        make = refused
    except sa.exc.UnboundExecutionError:
        make = _has_no_engine
    except (sa.exc.DataError, UnicodeEncodeError, OverflowError):
        make = cannot_be_stored
    except sa.exc.DBAPIError as error:
        make = partial(_unavailable, type(error.orig).__name__, str(error.orig))
    except sa.exc.StatementError:  # a value that a column's type does not take
        make = cannot_be_stored
    except (sa.exc.SQLAlchemyError, OSError, ValueError) as error:
        make = partial(_unavailable, type(error).__name__, "")
    except RuntimeError as error:
        if "application context" in str(error):
            make = _outside_of_an_app
        elif "SQLAlchemy' instance" in str(error):
            make = _not_set_up
        else:
            raise
    else:
        return
    raise make() from None  # out here it has no __context__ that a log could show


def cannot_be_stored() -> JamError:
    """What to raise for a value that the database does not take."""
    return InvalidValue(
        "The account cannot be stored like that.",
        hint="A column of the model refuses its value, or has none and needs one.",
    )


def _unavailable(name: str, text: str) -> JamError:
    logger.error("The users' database failed: %s: %s", name, text)
    return StoreUnavailable(hint=f"The database says: {name}.")


def _not_set_up() -> JamError:
    return ConfigError("Flask-SQLAlchemy was not set up on this app.", hint="db.init_app(app)")


def _has_no_engine() -> JamError:
    return ConfigError("The sessions have no engine.", hint="sessionmaker(engine), for example.")


def _outside_of_an_app() -> JamError:
    return ConfigError("Flask-SQLAlchemy knows its database only within an app.", hint="with app.app_context(): ...")
