"""The engines of ``make bench-scale``: a place of its own for the sessions of one size, gone when the run ends.

A place is a SQLite file, a new database on the server whose URL the tests use too, or a Redis server started for it.
Nothing that somebody else keeps is touched, and what the sessions take can be measured.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import secrets
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import redis
import sqlalchemy as sa

from jam.errors import JamError
from jam.stores import Record, open_store, sqlite
from jam.stores import redis as jam_redis
from jam.stores.base import check_record

POSTGRESQL = os.environ.get("JAM_TEST_POSTGRESQL_URL", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres")
MYSQL = os.environ.get("JAM_TEST_MYSQL_URL", "mysql+pymysql://root@127.0.0.1:3306/mysql")

_BATCH = 5_000
_PATIENCE = 15.0  # seconds for a server to start or to end


class DoesNotAnswer(Exception):
    """The engine is not here; says why."""


class Place(ABC):
    """Where the sessions of one size are: Jam's in ``store``, Flask-Session's where ``peer_config`` says."""

    version: str
    adders = 1  # threads that fill it quickest

    def __init__(self, store_url: str, peer_config: dict[str, Any]) -> None:
        try:
            self.store = open_store(store_url)
            self.store.create_tables()
        except JamError as error:
            raise DoesNotAnswer(f"{error} {error.hint or ''}".strip()) from error
        self.peer_config = peer_config

    def add(self, records: Iterable[Record], now: float) -> None:
        """Keep new records by the store's own ``add``."""
        each(self.adders, records, lambda record: self.store.add(record, now))

    @abstractmethod
    def load(self, records: Iterable[Record], now: float) -> None:
        """Keep new records as ``add`` would, faster if there is a way."""

    @abstractmethod
    def settle(self) -> None:
        """Finish what filling left to do, as the engine itself would do it in time."""

    @abstractmethod
    def jam_bytes(self) -> int:
        """The space that Jam's records take, with everything around them."""

    @abstractmethod
    def peer_bytes(self) -> int:
        """The same of Flask-Session's."""

    def close(self) -> None:
        self.store.close()


def each(threads: int, things: Iterable[Any], act: Callable[[Any], object]) -> None:
    """Do it with every one of them, in several threads; the first error or Ctrl-C stops all."""
    source, turn, stopped = iter(things), threading.Lock(), threading.Event()

    def work() -> None:
        while not stopped.is_set():
            with turn:
                thing = next(source, None)
            if thing is None:
                return
            act(thing)

    if threads == 1:
        work()
        return
    with ThreadPoolExecutor(threads) as pool:
        working = [pool.submit(work) for _ in range(threads)]
        try:
            done, _ = wait(working, return_when=FIRST_EXCEPTION)
        finally:
            stopped.set()
    for one in done:
        one.result()


# -- SQLite -------------------------------------------------------------------------------------------------


class SQLitePlace(Place):
    """Two files, because Jam wants one of its own."""

    version = f"SQLite {sqlite3.sqlite_version}"

    def __init__(self, directory: Path) -> None:
        self._jam, self._peer = directory / "jam.db", directory / "flask_session.db"
        uri = f"sqlite:///{self._peer}"
        super().__init__(f"sqlite:///{self._jam}", {"SESSION_TYPE": "sqlalchemy", "SQLALCHEMY_DATABASE_URI": uri})
        self.store.purge(0.0)  # the first verb makes the tables

    def load(self, records: Iterable[Record], now: float) -> None:
        connection = sqlite3.connect(self._jam)
        connection.execute("PRAGMA cache_size = -400000")  # of this connection; the file is the same
        with connection:
            connection.executemany(sqlite._PUT, (sqlite._row(record, check_record(record)) for record in records))
        connection.close()

    def settle(self) -> None:
        for path in (self._jam, self._peer):
            connection = sqlite3.connect(path)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.close()

    def jam_bytes(self) -> int:
        return self._jam.stat().st_size

    def peer_bytes(self) -> int:
        return self._peer.stat().st_size


# -- PostgreSQL and MariaDB ---------------------------------------------------------------------------------


class SQLPlace(Place):
    """A database; its tables are Jam's and, beside them, Flask-Session's."""

    adders = 5  # what the store's pool keeps open

    def __init__(self, url: sa.URL) -> None:
        self._engine = sa.create_engine(url)
        uri = url.render_as_string(hide_password=False)
        super().__init__(uri, {"SESSION_TYPE": "sqlalchemy", "SQLALCHEMY_DATABASE_URI": uri})

    def load(self, records: Iterable[Record], now: float) -> None:
        table, row = self.store._made().tables[0], self.store._row
        rows = (row(record, check_record(record)) for record in records)
        while batch := list(itertools.islice(rows, _BATCH)):
            with self._engine.begin() as connection:
                connection.execute(sa.insert(table), batch)

    def jam_bytes(self) -> int:
        return sum(self._table_bytes(table.name) for table in self.store._made().tables)

    def peer_bytes(self) -> int:
        return self._table_bytes("sessions")

    def close(self) -> None:
        super().close()
        self._engine.dispose()

    @abstractmethod
    def _table_bytes(self, table: str) -> int: ...

    def _ask(self, query: str, **arguments: Any) -> Any:
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            result = connection.execute(sa.text(query), arguments)
            return result.scalar() if result.returns_rows else None


class PostgreSQLPlace(SQLPlace):
    def __init__(self, url: sa.URL) -> None:
        super().__init__(url)
        self.version = (
            f"PostgreSQL {self._ask('SHOW server_version')} (shared_buffers {self._ask('SHOW shared_buffers')}, "
            f"synchronous_commit {self._ask('SHOW synchronous_commit')}, autovacuum {self._ask('SHOW autovacuum')})"
        )

    def settle(self) -> None:
        self._ask("VACUUM ANALYZE")  # of this database; autovacuum would do it in its own time
        with contextlib.suppress(sa.exc.DBAPIError):  # not everybody may
            self._ask("CHECKPOINT")

    def _table_bytes(self, table: str) -> int:
        return self._ask("SELECT pg_total_relation_size(CAST(:name AS text)::regclass)", name=table)


class MariaDBPlace(SQLPlace):
    def __init__(self, url: sa.URL) -> None:
        super().__init__(url)
        buffer_pool = self._ask("SELECT @@innodb_buffer_pool_size") // 2**20
        flush = self._ask("SELECT @@innodb_flush_log_at_trx_commit")
        self.version = (
            f"MariaDB {self._ask('SELECT version()')} (innodb_buffer_pool_size {buffer_pool} MiB, "
            f"innodb_flush_log_at_trx_commit {flush})"
        )

    def settle(self) -> None:
        for table in sa.inspect(self._engine).get_table_names():
            self._ask(f"ANALYZE TABLE {table}")

    def _table_bytes(self, table: str) -> int:
        self._ask(f"ANALYZE TABLE {table}")  # the sizes are of its last look
        query = "SELECT data_length + index_length FROM information_schema.tables WHERE {} AND table_name = :name"
        return int(self._ask(query.format("table_schema = DATABASE()"), name=table))


# -- Redis --------------------------------------------------------------------------------------------------


class RedisPlace(Place):
    """A server of its own: what it uses is what the sessions use, and Jam is the only one on it."""

    adders = 4

    def __init__(self, port: int) -> None:
        self._client = redis.Redis(port=port)
        self.version = f"Redis {self._client.info('server')['redis_version']}"
        peer = {"SESSION_TYPE": "redis", "SESSION_REDIS": redis.Redis(port=port, db=1)}
        super().__init__(f"redis://127.0.0.1:{port}/0", peer)

    def load(self, records: Iterable[Record], now: float) -> None:
        """By the script of ``add`` itself, many to a trip; without its collecting of the dead along the way."""
        script = jam_redis._add
        self._client.script_load(script.text)
        source = iter(records)
        while batch := list(itertools.islice(source, _BATCH)):
            pipeline = self._client.pipeline(transaction=False)
            for record in batch:
                keys = self.store._keys(jam_redis._bucket_of_id(record.id), record.kind, record.id)
                value = jam_redis._encode(record, check_record(record))
                pipeline.evalsha(script.sha, len(keys), *keys, record.kind, record.id, value, repr(now))
            assert not any(pipeline.execute())

    def settle(self) -> None:
        """Nothing: Redis is done when it answers."""

    def jam_bytes(self) -> int:
        return int(self._client.info("memory")["used_memory"])

    peer_bytes = jam_bytes  # one after the other is filled, and the difference counts

    def close(self) -> None:
        super().close()
        self._client.close()
        self.peer_config["SESSION_REDIS"].close()


# -- opening them -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_sqlite() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="jam_scale_") as directory:
        yield from _closing(SQLitePlace(Path(directory)))


@contextlib.contextmanager
def open_postgresql() -> Iterator[Place]:
    with _new_database(POSTGRESQL, " WITH (FORCE)") as url:
        yield from _closing(PostgreSQLPlace(url))


@contextlib.contextmanager
def open_mariadb() -> Iterator[Place]:
    with _new_database(MYSQL) as url:
        yield from _closing(MariaDBPlace(url))


@contextlib.contextmanager
def open_redis() -> Iterator[Place]:
    with _redis_server() as port:
        yield from _closing(RedisPlace(port))


ENGINES: dict[str, tuple[str, Callable[[], contextlib.AbstractContextManager[Place]]]] = {
    "sqlite": ("SQLite", open_sqlite),
    "postgresql": ("PostgreSQL", open_postgresql),
    "mariadb": ("MariaDB", open_mariadb),
    "redis": ("Redis", open_redis),
}


def _closing(place: Place) -> Iterator[Place]:
    try:
        yield place
    finally:
        place.close()


@contextlib.contextmanager
def _new_database(server_url: str, force: str = "") -> Iterator[sa.URL]:
    """A database with a name nobody has, dropped afterwards."""
    server = sa.create_engine(server_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    database = f"jam_scale_{secrets.token_hex(6)}"
    try:
        with server.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {database}"))
    except sa.exc.SQLAlchemyError as error:
        raise DoesNotAnswer(f"{type(error).__name__} at {sa.make_url(server_url)}") from error
    try:
        yield sa.make_url(server_url).set(database=database)
    finally:
        with server.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {database}{force}"))


@contextlib.contextmanager
def _redis_server() -> Iterator[int]:
    """A server that keeps nothing on disk, ended afterwards; yields its port."""
    with tempfile.TemporaryDirectory(prefix="jam_scale_") as directory:
        port = _free_port()
        arguments = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", directory]
        try:
            process = subprocess.Popen(
                [*arguments, "--save", "", "--appendonly", "no"],
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us; we end it when we are done with it
            )
        except FileNotFoundError as error:
            raise DoesNotAnswer("there is no program redis-server") from error
        try:
            _wait_for_redis(port, process)
            yield port
        finally:
            process.terminate()
            process.wait(_PATIENCE)


def _wait_for_redis(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _PATIENCE
    with redis.Redis(port=port) as client:
        while time.monotonic() < until and process.poll() is None:
            with contextlib.suppress(redis.ConnectionError):
                client.ping()
                return
            time.sleep(0.05)
    raise DoesNotAnswer("redis-server does not start")


def _free_port() -> int:
    """A port nobody listens on, below those the system gives to outgoing connections."""
    while True:
        port = random.randrange(10240, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
