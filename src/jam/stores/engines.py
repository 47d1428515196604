"""SQLAlchemy's engines as Jam needs them: which there are, how they are made, and what they say when they fail.

For whatever keeps something in a SQL database: the store, the audit log, and the people.
"""

from __future__ import annotations

import contextlib
import math
import select
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.pool import StaticPool

from jam.errors import ConfigError
from jam.stores.forks import Gate

__all__ = [
    "SERVERS",
    "checked_url",
    "driver_error",
    "driver_of",
    "exact_bytes",
    "exact_text",
    "impatient",
    "may_try_again",
    "refuse_shared_connection",
    "server_engine",
]  # fmt: skip

#: Drivers of database servers that Jam makes engines for, and the extra that installs each.
SERVERS = {"postgresql+psycopg": "postgresql", "mysql+pymysql": "mysql", "mariadb+pymysql": "mysql"}
# What an engine says when two writers were in each other's way and one may simply try again.
_TRY_AGAIN = frozenset((1213, 1020, "40001", "40P01"))


# -- columns ------------------------------------------------------------------------------------------------


def exact_bytes(length: int, bytes_each: int = 1) -> sa.types.TypeEngine[str]:
    """Text that equals only itself; with MySQL and MariaDB it is written and read as bytes of UTF-8.

    Their own collations take ``alice`` for ``Alice`` and for ``álice``.
    """
    return (
        sa.String(length)
        .with_variant(mysql.VARBINARY(length * bytes_each), "mysql", "mariadb")
        .with_variant(postgresql.VARCHAR(length, collation="C"), "postgresql")
    )


def exact_text(length: int) -> sa.types.TypeEngine[str]:
    """As ``exact_bytes``, and a string everywhere; MySQL and MariaDB disregard spaces at its end."""
    return (
        sa.String(length)
        .with_variant(mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")
        .with_variant(postgresql.VARCHAR(length, collation="C"), "postgresql")
    )


# -- making engines -----------------------------------------------------------------------------------------


def checked_url(source: str | sa.URL, whose: str, drivers: Collection[str]) -> sa.URL:
    """A database's URL.

    Args:
        source: What was configured.
        whose: Who is to be kept there, for the message: ``The store's``.
        drivers: Those that it may name.

    Raises:
        ConfigError: If it is none, or names another driver. Its password is not repeated.
    """
    try:
        url = sa.make_url(source)
    except (sa.exc.ArgumentError, ValueError):
        raise ConfigError(f"{whose} URL cannot be read.") from None
    if url.drivername not in drivers:
        raise ConfigError(
            f"{whose} URL cannot be one of {url.drivername!r}.",
            hint=f"Use {', '.join(f'{driver}://...' for driver in drivers)}, or give Jam your own engine.",
        )
    return url


@contextlib.contextmanager
def driver_of(url: sa.URL) -> Iterator[None]:
    """While a server's engine is made: a driver that is not installed is told by its extra."""
    try:
        yield
    except ImportError as error:
        raise ConfigError(
            f"The driver for {url.drivername} is not installed.",
            hint=f"pip install jam-auth[{SERVERS[url.drivername]}]",
        ) from error


def refuse_shared_connection(engine: sa.Engine) -> None:
    """Refuse an app's engine whose one connection everybody shares.

    Raises:
        ConfigError: If it is one.
    """
    if isinstance(engine.pool, StaticPool):
        raise ConfigError(
            "The engine has one connection for everybody (StaticPool), so Jam's writes would end the app's own "
            "transactions.", hint="For SQLite give Jam a file of its own: sqlite:///jam.sqlite3.",
        )  # fmt: skip


def server_engine(url: sa.URL, timeout: float, gate: Callable[[], Gate]) -> sa.Engine:
    """A server's engine of Jam's own: in autocommit from the start, and never waiting for ever.

    Args:
        url: Of the database.
        timeout: How long to wait, in seconds.
        gate: The one that connections are made within.
    """
    whole = max(1, math.ceil(timeout))
    is_postgresql = url.get_backend_name() == "postgresql"
    arguments: dict[str, Any] = {"connect_timeout": whole}
    if not is_postgresql:
        arguments |= {"read_timeout": whole, "write_timeout": whole}
    arguments = {name: value for name, value in arguments.items() if name not in url.query}
    if is_postgresql:  # what the URL says comes last, and so wins
        arguments["options"] = f"-c statement_timeout={int(timeout * 1000)} {_text_of(url.query.get('options'))}"
    with driver_of(url):
        engine = sa.create_engine(
            url, isolation_level="AUTOCOMMIT", connect_args=arguments, pool_timeout=timeout, pool_reset_on_return=None,
            pool_use_lifo=True,
        )  # fmt: skip
        connect = impatient(timeout + 1) if is_postgresql else _in_autocommit  # by then the server gave up by itself

    @sa.event.listens_for(engine, "do_connect")
    def connect_within(_: object, __: object, arguments: Sequence[Any], named: Mapping[str, Any]) -> Any:
        with gate():
            return connect(arguments, named)

    sa.event.listen(engine, "checkout", _refuse_a_dead_connection)
    if not is_postgresql:

        @sa.event.listens_for(engine, "connect")
        def prepare(connection: Any, _: object) -> None:
            with connection.cursor() as cursor:
                # Its default would lock the gaps between rows and show a retried statement an old version.
                cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
                cursor.execute(f"SET SESSION innodb_lock_wait_timeout = {whole}")

    return engine


def _text_of(option: Any) -> str:
    """An option of a URL's query, which may be there several times."""
    return " ".join(option) if isinstance(option, tuple) else option or ""


def impatient(patience: float) -> Callable[..., Any]:
    """What connects to PostgreSQL and gives up on a server that has not answered for so many seconds."""
    from jam.stores.postgresql import ImpatientConnection  # noqa: PLC0415 - psycopg may not be installed

    def connect(arguments: Sequence[Any], named: Mapping[str, Any]) -> Any:
        connection = ImpatientConnection.connect(*arguments, **named)
        connection.patience = patience
        return connection

    return connect


def _in_autocommit(arguments: Sequence[Any], named: Mapping[str, Any]) -> Any:
    from jam.stores.mysql import AutocommitConnection  # noqa: PLC0415 - PyMySQL may not be installed

    return AutocommitConnection(*arguments, **named)


def _refuse_a_dead_connection(connection: Any, *_: object) -> None:
    """An idle connection has nothing to say: if there is something to read, it is that the server hung up."""
    if connection.closed:
        raise sa.exc.DisconnectionError
    descriptor = connection.fileno()
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        spoke = bool(poll.poll(0))
    else:  # Windows; select itself takes only small descriptors elsewhere
        spoke = bool(select.select([descriptor], [], [], 0)[0])
    if spoke:
        raise sa.exc.DisconnectionError


# -- what they say when they fail ---------------------------------------------------------------------------


def driver_error(engine: sa.Engine | None) -> type[Exception]:
    """What the driver itself raises: SQLAlchemy does not wrap it while a connection is made ready."""
    driver: Any = None if engine is None else engine.dialect.loaded_dbapi
    error: type[Exception] = sa.exc.SQLAlchemyError if driver is None else driver.Error
    return error


def may_try_again(error: sa.exc.DBAPIError) -> bool:
    """Whether nothing is wrong but that two writers were in each other's way."""
    original = error.orig
    code = getattr(original, "sqlstate", None) or next(iter(getattr(original, "args", ())), None)
    return code in _TRY_AGAIN
