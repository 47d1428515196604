"""PostgreSQL and MariaDB, through SQLAlchemy Core.

``postgresql+psycopg://`` and ``mysql+pymysql://`` (MariaDB is what is tested), or an engine the app already has.
Every verb runs on a connection of its own in autocommit, apart from the app's ORM session: it never commits,
rolls back or waits for the app's own work. All but the following verbs are one statement:

- ``advance`` is two (raise, then read), so that its answer includes everyone's mark.
- ``add`` and ``swap`` ask once more when they were refused, to say why.
- On MariaDB and SQLite a due touch in ``get`` is a second statement, at most one a minute for a session;
  MySQL has no ``DELETE ... RETURNING``, so ``take`` there reads first, and the row count names the winner.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite

from jam.errors import ConfigError, GenerationOutdated, InvalidValue, RecordExists, StoreUnavailable
from jam.stores.base import (
    COLLECT_AFTER,
    MAX_LIST,
    REVOKED_TOKEN,
    Counted,
    Found,
    Marks,
    Problem,
    Record,
    Store,
    add_up,
    check_kinds,
    check_record,
    check_swap,
    clock_problem,
    decode_data,
    decode_marks,
    touch_is_due,
)
from jam.stores.engines import (
    SERVERS,
    checked_url,
    driver_error,
    exact_bytes,
    may_try_again,
    refuse_shared_connection,
    server_engine,
)
from jam.stores.forks import Gate, around_forks

__all__ = ["SCHEMA_VERSION", "SQLStore", "jam_tables"]

logger = logging.getLogger("jam.stores.sql")

T = TypeVar("T")

SCHEMA_VERSION = 1
_SCHEMA_COMMENT = "Jam schema {}"
_MAX_ATTEMPTS = 8
_NO_MARKS: Mapping[str, int] = {}
_COLUMNS = (
    "kind", "id", "subject", "check", "generation", "data", "created_at", "touched_at", "idle_for", "ends_at",
    "version",
)  # fmt: skip


def jam_tables(metadata: sa.MetaData) -> list[sa.Table]:
    """Put Jam's tables into an app's own metadata, so that its migrations see them.

    Args:
        metadata: Such as ``db.metadata`` of Flask-SQLAlchemy.

    Returns:
        The tables: ``jam_records``, ``jam_marks`` and ``jam_counts``.
    """
    known = [metadata.tables[name] for name in ("jam_records", "jam_marks", "jam_counts") if name in metadata.tables]
    if known:
        return known
    blob = sa.LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")
    records = sa.Table(
        "jam_records",
        metadata,
        sa.Column("kind", exact_bytes(32), primary_key=True),
        sa.Column("id", exact_bytes(24), primary_key=True),
        sa.Column("subject", exact_bytes(255, 4), nullable=False),
        sa.Column("check", sa.LargeBinary(64).with_variant(mysql.VARBINARY(64), "mysql", "mariadb"), nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("data", blob, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("touched_at", sa.Double, nullable=False),
        sa.Column("idle_for", sa.Double),
        sa.Column("ends_at", sa.Double, nullable=False),
        sa.Column("dies_at", sa.Double, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Index("ix_jam_records_subject", "subject", "kind", "id"),
        sa.Index("ix_jam_records_dies_at", "dies_at"),
        comment=_SCHEMA_COMMENT.format(SCHEMA_VERSION),
    )
    marks = sa.Table(
        "jam_marks",
        metadata,
        sa.Column("subject", exact_bytes(255, 4), primary_key=True),
        sa.Column("kind", exact_bytes(32), primary_key=True),
        sa.Column("generation", sa.BigInteger, nullable=False),
    )
    counts = sa.Table(
        "jam_counts",
        metadata,
        sa.Column("name", exact_bytes(255, 4), primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("ends_at", sa.Double, nullable=False),
        sa.Index("ix_jam_counts_ends_at", "ends_at"),
    )
    return [records, marks, counts]


class SQLStore(Store):
    """See ``jam.stores.base.Store`` for the promises of each method.

    Args:
        source: A URL; or an ``Engine``, a function that returns one, or Flask-SQLAlchemy's ``db``, all looked at
            when first needed. From a URL the store makes an engine of its own.
        timeout: How long to wait for the engine to connect, to answer and to lend a connection, in seconds. For a
            store with an engine of its own; an app's engine keeps its own times.

    Raises:
        ConfigError: If the URL names an engine or a driver Jam does not know.
    """

    def __init__(self, source: Any, *, timeout: float = 5.0) -> None:
        self._timeout = timeout
        self._source = source
        self._owned = isinstance(source, (str, sa.URL))
        if self._owned:
            checked_url(source, "The store's", SERVERS)
        self._engine: sa.Engine | None = None
        self._statements: _Statements | None = None
        self._making = threading.Lock()
        self._gate = Gate()
        _all_stores.add(self)

    # -- the verbs ------------------------------------------------------------------------------------------

    def add(self, record: Record, now: float) -> None:
        row = self._row(record, check_record(record))

        def insert(connection: sa.Connection) -> bool:
            put = functools.partial(connection.execute, self._made().add, row)
            return bool(self._on_a_free_id(connection, put, row, now).rowcount == 1)

        if not self._run(insert):
            raise GenerationOutdated

    def get(self, kind: str, record_id: str, now: float, touch_after: float | None = None) -> Found | None:
        statements = self._made()
        key = {"its_kind": self._text(kind), "its_id": self._text(record_id), "now": now}

        def read(connection: sa.Connection) -> Found | None:
            if touch_after is not None and statements.touch_and_get is not None:
                row = connection.execute(statements.touch_and_get, {**key, "before": now - touch_after}).one_or_none()
            else:
                row = connection.execute(statements.get, key).one_or_none()
            found = None if row is None else self._found(row)
            if found is None or not touch_is_due(found.record, now, touch_after):
                return found
            if statements.touch_and_get is None:
                connection.execute(statements.touch, key)
            return Found(msgspec.structs.replace(found.record, touched_at=now), found.generations)

        return self._run(read, again=True)

    def marks(self, subject: str, revocation_id: str, now: float) -> Marks:
        arguments = {"subject": self._text(subject), "id": self._text(revocation_id)}
        dies_at, subjects, everyones = self._run(
            lambda connection: connection.execute(self._made().marks, arguments).one(), again=True
        )
        return Marks(dies_at is not None and dies_at > now, _generations(subject, subjects, everyones))

    def swap(self, old: Record, new: Record, now: float) -> Record | None:
        row = self._row(new, check_swap(old, new))
        arguments = {
            **{f"new_{name}": value for name, value in row.items()},
            "old_id": self._text(old.id), "old_version": old.version, "now": now,
        }  # fmt: skip

        def update(connection: sa.Connection) -> float | None:
            put = functools.partial(self._swapped, connection, self._made(), arguments, old)
            return self._on_a_free_id(connection, put, row, now)

        touched_at = self._run(update)
        if touched_at is not None:
            return msgspec.structs.replace(
                new, touched_at=touched_at, version=old.version + 1, data=decode_data(row["data"])
            )
        found = self.get(old.kind, old.id, now)
        if (
            found is not None
            and (found.record.version, found.record.subject) == (old.version, old.subject)
            and new.generation < found.generations.get(new.kind, 0)
        ):
            raise GenerationOutdated
        return None

    def take(self, kind: str, record_id: str, now: float) -> Record | None:
        statements = self._made()
        key = {"its_kind": self._text(kind), "its_id": self._text(record_id), "now": now}

        def delete(connection: sa.Connection) -> Found | None:
            if statements.take is not None:
                row = connection.execute(statements.take, key).one_or_none()
                return None if row is None else self._found(row)
            while True:  # again if it was changed in between: that is not the same as taken
                row = connection.execute(statements.get, key).one_or_none()
                found = None if row is None else self._found(row)
                if found is None:
                    return None
                version = {"its_version": found.record.version}
                if connection.execute(statements.remove_version, {**key, **version}).rowcount:
                    return found

        found = self._run(delete)
        return None if found is None else found.record

    def remove(self, kind: str, record_id: str) -> None:
        key = {"its_kind": self._text(kind), "its_id": self._text(record_id)}
        self._run(lambda connection: connection.execute(self._made().remove, key))

    def advance(self, subject: str | None, kinds: Collection[str], now: float) -> Mapping[str, int]:
        name = check_kinds(subject, kinds)
        # In one order, so that two of them cannot wait for each other.
        rows = [{"subject": self._text(name), "kind": self._text(kind)} for kind in sorted(set(kinds))]
        if rows:
            self._run(lambda connection: connection.execute(self._made().advance(rows)))
        return self.marks(name, "", now).generations

    def list(self, subject: str, kind: str, now: float, after: str = "", limit: int = 100) -> Sequence[Record]:
        if not subject:
            return []
        arguments = {
            "subject": self._text(subject), "kind": self._text(kind), "now": now, "after": self._text(after),
            "limit": max(0, min(limit, MAX_LIST)),
        }  # fmt: skip
        rows = self._run(lambda connection: connection.execute(self._made().list, arguments).all(), again=True)
        return [self._record(row) for row in rows]

    def count_up(self, name: str, window: float, limit: int, now: float) -> Counted:
        arguments = {"name": self._text(name), "now": now, "until": now + window}

        def count(connection: sa.Connection) -> tuple[int, float]:
            statements = self._made()
            if statements.returning:
                number, ends_at = connection.execute(statements.count_up, arguments).one()
                return number, ends_at
            # The count comes back as what MySQL takes for the new row's id: no second statement that others could
            # slip in before.
            number = connection.execute(statements.count_up, arguments).lastrowid
            if number <= limit:
                return number, now
            ends_at = connection.execute(statements.count_end, {"name": arguments["name"]}).scalar()
            return number, now + window if ends_at is None else ends_at

        number, ends_at = self._run(count)
        allowed = number <= limit
        return Counted(allowed, number, 0.0 if allowed else max(0.0, ends_at - now))

    def count_back(self, name: str, now: float) -> None:
        arguments = {"its_name": self._text(name), "now": now}
        self._run(lambda connection: connection.execute(self._made().count_back, arguments))

    def count_reset(self, name: str) -> None:
        self._run(lambda connection: connection.execute(self._made().count_reset, {"name": self._text(name)}))

    def purge(self, now: float, limit: int = 1000) -> int:
        until = now - COLLECT_AFTER

        def delete(connection: sa.Connection) -> int:
            statements = self._made()
            gone: int = connection.execute(statements.purge, {"until": until, "limit": limit}).rowcount
            gone += connection.execute(statements.purge_counts, {"until": until, "limit": limit - gone}).rowcount
            return gone

        return self._run(delete)

    def close(self) -> None:
        if self._engine is not None and self._owned:
            self._engine.dispose()

    # -- the schema -----------------------------------------------------------------------------------------

    def create_tables(self) -> None:
        self._run(self._made().metadata.create_all)

    def schema_problem(self) -> str | None:
        """What is wrong with the tables, or ``None``.

        Raises:
            StoreUnavailable: If the engine cannot be reached.
        """
        return self._run(self._schema_problem)

    def _schema_problem(self, connection: sa.Connection) -> str | None:
        inspector = sa.inspect(connection)
        missing = [table.name for table in self._made().tables if not inspector.has_table(table.name)]
        if missing:
            return f"The tables {', '.join(missing)} are missing."
        if connection.dialect.supports_comments:
            comment = inspector.get_table_comment("jam_records")["text"]
            if comment != _SCHEMA_COMMENT.format(SCHEMA_VERSION):
                return f"The tables are of {comment or 'an unknown schema'!r}; this version needs {SCHEMA_VERSION}."
        for table in self._made().tables:
            there = {column["name"] for column in inspector.get_columns(table.name)}
            lacking = {column.name for column in table.columns} - there
            if lacking:
                return f"The table {table.name} lacks {', '.join(sorted(lacking))}."
        return None

    def problems(self, now: float) -> Sequence[Problem]:
        theirs = self._run(lambda connection: connection.execute(self._made().clock).scalar(), again=True)
        skew = None if theirs is None else clock_problem(float(theirs), now)
        return () if skew is None else (skew,)

    def check(self) -> None:
        problem = self.schema_problem()
        if problem is not None:
            raise ConfigError(problem, hint="Run your migrations, or: flask jam db create")

    # -- engine and rows ------------------------------------------------------------------------------------

    def _made(self) -> _Statements:
        statements = self._statements
        if statements is None:
            with self._making:  # an engine that another thread made too would never be closed
                if self._statements is None:
                    engine = self._resolve_engine()
                    self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
                    self._statements = _Statements(engine.dialect)
                statements = self._statements
        return statements

    def _resolve_engine(self) -> sa.Engine:
        if self._owned:
            return server_engine(sa.make_url(self._source), self._timeout, lambda: self._gate)
        source: Any = self._source
        if isinstance(source, sa.Engine):
            engine = source
        elif hasattr(source, "engine"):  # Flask-SQLAlchemy's db has one only within an app context
            engine = source.engine
        else:
            engine = source()
        if not isinstance(engine, sa.Engine):
            raise ConfigError("The store needs a SQLAlchemy Engine, a function that returns one, or db.")
        refuse_shared_connection(engine)
        return engine

    def _run(self, act: Callable[[sa.Connection], T], *, again: bool = False) -> T:
        """Run a verb on a connection of its own; again if writers got in each other's way.

        Args:
            act: The verb.
            again: Whether it may run twice, if the connection was lost and nobody knows whether it ran.

        Raises:
            StoreUnavailable: If the engine cannot be asked.
        """
        start = time.monotonic()
        for attempt in range(_MAX_ATTEMPTS):
            try:
                with self._connect() as connection:
                    return act(connection)
            except sa.exc.DataError as error:
                raise InvalidValue("The data is too large for the store.") from error
            except sa.exc.DBAPIError as error:
                if attempt + 1 < _MAX_ATTEMPTS and may_try_again(error):
                    time.sleep(0.002 * 2**attempt)
                    continue
                if again and error.connection_invalidated and time.monotonic() - start < self._timeout / 2:
                    again = False
                    continue
                raise _unavailable(error) from error
            except driver_error(self._engine) as error:
                # SQLAlchemy does not wrap what the driver says while a connection of the app's pool is made ready, so
                # nothing was run: it was lost at rest, and the next one will do.
                if attempt + 1 < _MAX_ATTEMPTS and time.monotonic() - start < self._timeout / 2:
                    continue
                raise _unavailable(error) from error
            except (sa.exc.SQLAlchemyError, OSError) as error:
                raise _unavailable(error) from error
        raise AssertionError("unreachable")  # pragma: no cover

    def _connect(self) -> sa.Connection:
        if self._engine is None:
            self._made()
        engine: Any = self._engine
        connection: sa.Connection = engine.connect()
        return connection

    def _text(self, text: str) -> Any:
        return text.encode() if self._made().binary_text else text

    def _row(self, record: Record, data: bytes) -> dict[str, Any]:
        text = self._text
        return {
            "kind": text(record.kind), "id": text(record.id), "subject": text(record.subject), "check": record.check,
            "generation": record.generation, "data": data, "created_at": record.created_at,
            "touched_at": record.touched_at, "idle_for": record.idle_for, "ends_at": record.ends_at,
            "dies_at": record.dies_at, "version": record.version,
        }  # fmt: skip

    def _record(self, row: Sequence[Any]) -> Record:
        kind, record_id, subject = row[:3]
        if self._made().binary_text:
            kind, record_id, subject = kind.decode(), record_id.decode(), subject.decode()
        return Record(
            kind=kind, id=record_id, subject=subject, check=bytes(row[3]), generation=row[4], data=decode_data(row[5]),
            created_at=row[6], touched_at=row[7], idle_for=row[8], ends_at=row[9], version=row[10],
        )  # fmt: skip

    def _found(self, row: Sequence[Any]) -> Found | None:
        """A row with both marks behind it, or ``None`` if its generation is over."""
        record = self._record(row)
        generations = _generations(record.subject, row[11], row[12])
        return None if record.generation < generations.get(record.kind, 0) else Found(record, generations)

    def _swapped(
        self, connection: sa.Connection, statements: _Statements, arguments: Mapping[str, Any], old: Record
    ) -> float | None:
        """When the winner's record was last used, or ``None`` for whoever lost."""
        if statements.returning:
            touched_at: float | None = connection.execute(statements.swap, arguments).scalar()
            return touched_at
        # MariaDB's UPDATE tells nothing of the row: it names the last use it knows of, and looks again if that failed.
        touched_at = old.touched_at
        while touched_at is not None:
            if connection.execute(statements.swap, {**arguments, "its_touched_at": touched_at}).rowcount:
                break
            known, touched_at = touched_at, connection.execute(statements.last_use, arguments).scalar()
            if touched_at == known:
                return None
        return touched_at

    def _on_a_free_id(self, connection: sa.Connection, put: Callable[[], T], row: Mapping[str, Any], now: float) -> T:
        """Put a record under an id, which is free again if whoever has it is dead.

        Raises:
            RecordExists: If they are not.
        """
        with contextlib.suppress(sa.exc.IntegrityError):
            return put()
        dead = {"its_kind": row["kind"], "its_id": row["id"], "now": now}
        if connection.execute(self._made().remove_dead, dead).rowcount:
            with contextlib.suppress(sa.exc.IntegrityError):  # somebody else was faster
                return put()
        raise RecordExists

    # -- forks ----------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """See ``around_forks``: a child that is born while OpenSSL makes a connection waits for ever on its locks."""
        self._gate.close(self._timeout)

    def after_fork_in_parent(self) -> None:
        """See ``around_forks``."""
        self._gate.open()

    def after_fork_in_child(self) -> None:
        """See ``around_forks``: the child must not talk on the parent's sockets, nor say good-bye on them."""
        self._making = threading.Lock()
        self._gate = Gate()
        if self._engine is not None:
            self._engine.dispose(close=False)


class _Statements:
    """All statements for one dialect, made once."""

    def __init__(self, dialect: sa.Dialect) -> None:
        self.metadata = sa.MetaData()
        self.tables = jam_tables(self.metadata)
        self.binary_text = dialect.name in ("mysql", "mariadb")
        self.returning = not self.binary_text
        records, marks, counts = self.tables
        self._records, self._marks_table, self._dialect = records, marks, dialect.name
        aggregate = {"postgresql": sa.func.json_object_agg, "sqlite": sa.func.json_group_object}.get(
            dialect.name, sa.func.json_objectagg
        )
        p = sa.bindparam

        def mark(subject: Any, kind: Any) -> Any:
            chosen = marks.alias()
            generation = sa.select(chosen.c.generation).where(chosen.c.subject == subject, chosen.c.kind == kind)
            return sa.func.coalesce(generation.scalar_subquery(), 0)

        def current(subject: Any, kind: Any) -> Any:
            """The generation that counts for a subject's records of a kind."""
            nobody = self._literal("")
            return mark(subject, kind) + sa.case((subject == nobody, 0), else_=mark(nobody, kind))

        def all_marks(subject: Any) -> Any:
            chosen = marks.alias()
            kind = sa.cast(chosen.c.kind, sa.CHAR(32)) if self.binary_text else chosen.c.kind
            return sa.cast(
                sa.select(aggregate(kind, chosen.c.generation)).where(chosen.c.subject == subject).scalar_subquery(),
                sa.Text if not self.binary_text else sa.CHAR,
            )

        columns = [records.c[name] for name in _COLUMNS]
        with_marks = [*columns, all_marks(records.c.subject), all_marks(self._literal(""))]
        # In an UPDATE the plain names of columns are reserved for its SET.
        key = sa.and_(records.c.kind == p("its_kind"), records.c.id == p("its_id"))
        alive = records.c.dies_at > p("now")

        new_values = [p(column.name, type_=column.type) for column in records.columns]
        young_enough = p("generation", type_=sa.BigInteger) >= current(
            p("subject", type_=records.c.subject.type), p("kind", type_=records.c.kind.type)
        )
        self.add = (
            sa.insert(records)
            .from_select([column.name for column in records.columns], sa.select(*new_values).where(young_enough))
            .execution_options(preserve_rowcount=True)
        )
        self.remove_dead = sa.delete(records).where(
            key, sa.or_(~alive, records.c.generation < current(records.c.subject, records.c.kind))
        )
        self.get = sa.select(*with_marks).where(key, alive)
        # A touch moves the death of the record too, but never past its end.
        touched = {
            "touched_at": p("now", type_=sa.Double),
            "dies_at": sa.case(
                (records.c.idle_for.is_(None), records.c.ends_at),
                (p("now", type_=sa.Double) + records.c.idle_for < records.c.ends_at,
                 p("now", type_=sa.Double) + records.c.idle_for),
                else_=records.c.ends_at,
            ),
        }  # fmt: skip
        self.touch = sa.update(records).where(key, alive, records.c.touched_at < p("now")).values(touched)
        self.touch_and_get = None
        if dialect.name == "postgresql":
            touch = (
                sa.update(records)
                .where(key, alive, records.c.touched_at < p("before", type_=sa.Double))
                .values(touched)
                .returning(records.c.id)
                .cte("touched")
            )
            self.touch_and_get = sa.select(*with_marks).where(key, alive).add_cte(touch)
        self.take = None if self.binary_text else sa.delete(records).where(key, alive).returning(*with_marks)
        self.remove = sa.delete(records).where(key)
        self.remove_version = sa.delete(records).where(key, alive, records.c.version == p("its_version"))
        self.marks = sa.select(
            sa.select(records.c.dies_at)
            .where(records.c.kind == self._literal(REVOKED_TOKEN), records.c.id == p("id"))
            .scalar_subquery(),
            all_marks(p("subject", type_=marks.c.subject.type)),
            all_marks(self._literal("")),
        )
        self.swap = self._swap(p, current)
        self.last_use = sa.select(records.c.touched_at).where(
            records.c.kind == p("new_kind"), records.c.id == p("old_id"), records.c.version == p("old_version")
        )
        self.list = (
            sa.select(*columns)
            .where(
                records.c.subject == p("subject"), records.c.kind == p("kind"), records.c.id > p("after"), alive,
                records.c.generation >= current(
                    p("subject", type_=records.c.subject.type), p("kind", type_=records.c.kind.type)
                ),
            )
            .order_by(records.c.id)
            .limit(p("limit"))
        )  # fmt: skip
        self.count_up = self._count_up(counts, p)
        self.count_end = sa.select(counts.c.ends_at).where(counts.c.name == p("name"))
        self.count_back = (
            sa.update(counts)
            .where(counts.c.name == p("its_name"), counts.c.ends_at > p("now", type_=sa.Double), counts.c.count > 0)
            .values(count=counts.c.count - 1)
        )
        self.count_reset = sa.delete(counts).where(counts.c.name == p("name"))
        self.clock = sa.text({
            "postgresql": "SELECT extract(epoch FROM clock_timestamp())", "sqlite": "SELECT NULL",  # it has this host's
        }.get(dialect.name, "SELECT unix_timestamp(now(6))"))  # fmt: skip
        self.purge = self._purge(records, [records.c.kind, records.c.id], records.c.dies_at)
        self.purge_counts = self._purge(counts, [counts.c.name], counts.c.ends_at)

    def advance(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        """Raise these marks by one, making those that are not there."""
        marks = self._marks_table
        values = [{**row, "generation": 1} for row in rows]
        if self._dialect == "postgresql":
            statement = postgresql.insert(marks).values(values)
            return statement.on_conflict_do_update(
                index_elements=["subject", "kind"], set_={"generation": marks.c.generation + 1}
            )
        if self._dialect == "sqlite":
            lite = sqlite.insert(marks).values(values)
            return lite.on_conflict_do_update(
                index_elements=["subject", "kind"], set_={"generation": marks.c.generation + 1}
            )
        return mysql.insert(marks).values(values).on_duplicate_key_update(generation=marks.c.generation + 1)

    def _swap(self, p: Any, current: Any) -> Any:
        records = self._records
        idle, ends_at = p("new_idle_for", type_=sa.Double), p("new_ends_at", type_=sa.Double)
        if self._dialect == "postgresql":  # which cannot guess the type of a NULL
            idle = sa.cast(idle, sa.Double)
        statement = (
            sa.update(records)
            .where(
                records.c.kind == p("new_kind"),
                records.c.id == p("old_id"),
                records.c.subject == p("new_subject"),
                records.c.version == p("old_version"),
                records.c.dies_at > p("now"),
                records.c.generation >= current(records.c.subject, records.c.kind),
                p("new_generation", type_=sa.BigInteger) >= current(records.c.subject, records.c.kind),
            )
            .values({
                "id": p("new_id"), "check": p("new_check"), "generation": p("new_generation"), "data": p("new_data"),
                "created_at": p("new_created_at"), "idle_for": idle, "ends_at": ends_at,
                "dies_at": sa.case(
                    (idle.is_(None), ends_at),
                    (records.c.touched_at + idle < ends_at, records.c.touched_at + idle),
                    else_=ends_at,
                ),
                "version": records.c.version + 1,
            })
        )  # fmt: skip
        if self.returning:
            return statement.returning(records.c.touched_at)
        return statement.where(records.c.touched_at == p("its_touched_at", type_=sa.Double))

    def _count_up(self, counts: sa.Table, p: Any) -> Any:
        over = counts.c.ends_at <= p("now", type_=sa.Double)
        until = p("until", type_=sa.Double)
        count = sa.case((over, 1), else_=counts.c.count + 1)
        ends_at = sa.case((over, until), (counts.c.ends_at < until, counts.c.ends_at), else_=until)
        values = {"name": p("name"), "ends_at": until}
        if self._dialect == "postgresql":
            return (
                postgresql.insert(counts)
                .values(**values, count=1)
                .on_conflict_do_update(index_elements=["name"], set_={"count": count, "ends_at": ends_at})
                .returning(counts.c.count, counts.c.ends_at)
            )
        if self._dialect == "sqlite":
            return (
                sqlite.insert(counts)
                .values(**values, count=1)
                .on_conflict_do_update(index_elements=["name"], set_={"count": count, "ends_at": ends_at})
                .returning(counts.c.count, counts.c.ends_at)
            )
        # MySQL assigns from left to right: the count must be judged before the end of the window is moved.
        return (
            mysql.insert(counts)
            .values(**values, count=sa.func.last_insert_id(1))
            .on_duplicate_key_update([("count", sa.func.last_insert_id(count)), ("ends_at", ends_at)])
        )

    def _purge(self, table: sa.Table, key: Sequence[sa.Column[Any]], death: sa.Column[Any]) -> Any:
        until = sa.bindparam("until", type_=sa.Double)
        limit = sa.bindparam("limit", type_=sa.Integer)
        if self.binary_text:  # it has no LIMIT within IN, and one of its own instead
            order = f"DELETE FROM {table.name} WHERE {death.name} <= :until ORDER BY {death.name} LIMIT :limit"  # noqa: S608
            return sa.text(order).bindparams(limit)
        chosen = sa.select(*key).where(death <= until).order_by(death).limit(limit)
        if self._dialect == "postgresql":
            chosen = chosen.with_for_update(skip_locked=True)  # two purges share the work instead of waiting
        return sa.delete(table).where(sa.tuple_(*key).in_(chosen))

    def _literal(self, text: str) -> Any:
        return sa.literal(text.encode() if self.binary_text else text, type_=self._records.c.kind.type)


def _generations(subject: str, subjects: Any, everyones: Any) -> Mapping[str, int]:
    if subjects is None and everyones is None:
        return _NO_MARKS
    if not subject:
        return _NO_MARKS if everyones is None else decode_marks(everyones)
    return add_up(
        _NO_MARKS if subjects is None else decode_marks(subjects),
        _NO_MARKS if everyones is None else decode_marks(everyones),
    )


def _unavailable(error: Exception) -> StoreUnavailable:
    cause = getattr(error, "orig", None) or error
    logger.error("The SQL store failed: %s: %s", type(cause).__name__, cause)
    return StoreUnavailable(hint=f"The database says: {type(cause).__name__}.")


_all_stores: weakref.WeakSet[SQLStore] = weakref.WeakSet()

around_forks(
    _all_stores,
    before=SQLStore.before_fork,
    after_in_parent=SQLStore.after_fork_in_parent,
    after_in_child=SQLStore.after_fork_in_child,
)
