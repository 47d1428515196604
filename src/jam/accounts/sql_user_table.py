"""The ready table of users, for an app that has no model of its own."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from jam.errors import ConfigError
from jam.stores.engines import SERVERS, checked_url, driver_of, exact_text, impatient
from jam.stores.forks import around_forks

__all__ = ["ReadyTable", "jam_user_model"]

_PATIENCE = 5  # seconds


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
        sa.Column("username", exact_text(64), nullable=False),
        sa.Column("username_key", exact_text(128), nullable=False, unique=True),
        sa.Column("email", exact_text(254)),
        sa.Column("email_key", exact_text(320), unique=True),
        sa.Column("email_verified", sa.Boolean, nullable=False, default=False),
        sa.Column("password_hash", exact_text(255)),
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

        # What login_user and templates ask of a user.
        is_authenticated = True
        is_anonymous = False

        def get_id(self) -> str:
            return str(self.id)

        def __eq__(self, other: object) -> bool:
            return self is other or (isinstance(other, JamUser) and self.id is not None and self.id == other.id)

        def __hash__(self) -> int:
            return hash(JamUser)  # an id comes with the first save, and a hash never changes

    orm.registry(metadata=metadata).map_imperatively(JamUser, columns)
    known[table] = JamUser
    return JamUser


class ReadyTable(orm.sessionmaker[orm.Session]):
    """Makes sessions, and the table before the first of them.

    Args:
        source: A URL, of which an engine is made that may cross a fork; or an ``Engine``.
        name: What the table is called.

    Attributes:
        model: The class that is mapped to it.

    Raises:
        ConfigError: If the URL cannot be used.
    """

    def __init__(self, source: str | sa.URL | sa.Engine, name: str) -> None:
        self._owns_engine = not isinstance(source, sa.Engine)
        self._engine = source if isinstance(source, sa.Engine) else _make_engine(source)
        super().__init__(self._engine)
        metadata = sa.MetaData()
        self.model = jam_user_model(metadata, name)
        self._table = metadata.tables[name]
        self._is_made = False
        self._making = threading.Lock()
        _all_tables.add(self)

    def __call__(self, **options: Any) -> orm.Session:
        """A new session."""
        if not self._is_made:
            with self._making:
                self._make()
        return super().__call__(**options)

    def close(self) -> None:
        """Let go of the connections, if the engine was made of a URL."""
        if self._owns_engine:
            self._engine.dispose()

    def _make(self) -> None:
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
    url = checked_url(source, "The users'", ("sqlite", "sqlite+pysqlite", *SERVERS))
    if url.get_backend_name() == "sqlite":
        if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
            raise ConfigError("A SQLite URL is sqlite:///relative.db or sqlite:////absolute/path.db.")
        return sa.create_engine(url, poolclass=sa.NullPool)  # no connection is open when the process forks
    with driver_of(url):
        engine = sa.create_engine(url, pool_pre_ping=True, pool_timeout=_PATIENCE, connect_args=_time_limits(url))
        if url.get_backend_name() == "postgresql":
            connect = impatient(_PATIENCE + 1)  # a server that is frozen does not give up by itself

            @sa.event.listens_for(engine, "do_connect")
            def connect_within(_: object, __: object, arguments: Sequence[Any], named: Mapping[str, Any]) -> Any:
                return connect(arguments, named)

    _own_engines.add(engine)
    return engine


def _time_limits(url: sa.URL) -> dict[str, Any]:
    """Who does not answer must not keep a request for ever; what the URL says is stronger."""
    limits: dict[str, Any] = {"connect_timeout": _PATIENCE}
    if url.get_backend_name() != "postgresql":
        limits |= {
            "read_timeout": _PATIENCE, "write_timeout": _PATIENCE,
            "init_command": f"SET SESSION innodb_lock_wait_timeout = {_PATIENCE}",
        }  # fmt: skip
    return {name: value for name, value in limits.items() if name not in url.query}


def _forget_connections(engine: sa.Engine) -> None:
    engine.dispose(close=False)  # they are the parent's: the child must not say good-bye on them


def _after_fork() -> None:
    # Another thread of the parent may have held one at the moment of the fork; here there is none.
    for table in list(_all_tables):
        table._making = threading.Lock()  # noqa: SLF001 - this module's own class


_all_tables: weakref.WeakSet[ReadyTable] = weakref.WeakSet()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

_own_engines: weakref.WeakSet[sa.Engine] = weakref.WeakSet()

around_forks(
    _own_engines,
    before=lambda _: None,
    after_in_parent=lambda _: None,
    after_in_child=_forget_connections,
)
