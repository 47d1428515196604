"""Columns of an app's model: what each takes, and how its values are read, shown and written."""

from __future__ import annotations

import contextlib
import math
import uuid
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, date, datetime
from datetime import time as time_of_day
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from jam.errors import ConfigError, InvalidValue

__all__ = [
    "bits_of", "checked_names", "checked_value", "is_text", "is_unique", "kind_of", "length_of", "names_in",
    "seconds_of", "shown_value",
]  # fmt: skip


# -- a column -----------------------------------------------------------------------------------------------


def kind_of(column: Any) -> Any:
    """The Python type of a column's values; ``object`` if it has none of its own."""
    try:
        return _plain_type(column).python_type
    except NotImplementedError:  # pragma: no cover - SQLAlchemy 2.0
        return object


def length_of(column: Any) -> int | None:
    """How many characters it takes, if that is limited."""
    length: int | None = getattr(_plain_type(column), "length", None)
    return length


def bits_of(column: Any) -> int:
    """The bits of an integer column, its sign aside."""
    plain = _plain_type(column)
    return 15 if isinstance(plain, sa.SmallInteger) else 63 if isinstance(plain, sa.BigInteger) else 31


def is_unique(column: Any) -> bool:
    """Whether the model says, in whatever way, that a value is there once at most."""
    table = column.table
    sets = [key.columns for key in table.constraints if isinstance(key, (sa.UniqueConstraint, sa.PrimaryKeyConstraint))]
    sets += [index.columns for index in table.indexes if index.unique]
    return column.unique is True or any(list(columns) == [column] for columns in sets)


def _plain_type(column: Any) -> Any:
    return column.type.impl_instance if isinstance(column.type, sa.types.TypeDecorator) else column.type


# -- its values ---------------------------------------------------------------------------------------------


def is_text(value: Any) -> bool:
    """Whether every database could keep it."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def checked_value(column: Any, name: str, value: Any) -> Any:
    """A value as it is written to a column: not each database asks for its type and length.

    Args:
        column: Of texts, truth values, numbers or times.
        name: Of the field, for the message.
        value: As JSON has it; a time is a text (ISO 8601), in UTC if it does not say.

    Raises:
        InvalidValue: Naming the field.
    """
    if value is None:
        if not column.nullable:
            raise InvalidValue(f"{name} cannot be left out.")
        return None
    kind = kind_of(column)
    if kind is str and is_text(value):
        length = length_of(column)
        if length is not None and len(value) > length:
            raise InvalidValue(f"{name} has at most {length} characters.")
        return value
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and value.__class__ is int and -(1 << bits_of(column)) <= value < 1 << bits_of(column):
        return value
    if kind is float and value.__class__ in (int, float):
        with contextlib.suppress(OverflowError):
            if math.isfinite(value):
                return float(value)
    if kind is datetime:
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            moment = _in_utc(datetime.fromisoformat(value))
            return moment if column.type.timezone else moment.replace(tzinfo=None)
    raise InvalidValue(f"{name} is not of the right kind.")


def shown_value(name: str, value: Any) -> Any:
    """A field's value as JSON has it; times are in UTC.

    Raises:
        ConfigError: If JSON has none such.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return _in_utc(value).isoformat().replace("+00:00", "Z")
    if isinstance(value, (date, time_of_day)):
        return value.isoformat()
    if isinstance(value, (Decimal, uuid.UUID)):
        return str(value)
    raise ConfigError(f"{name!r} cannot be shown in a profile: it is no text, number, truth value or time.")


def seconds_of(value: Any) -> float | None:
    """A time, or a number of seconds, as seconds since the epoch."""
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return None if value is None else float(value)


def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


# -- lists of names -----------------------------------------------------------------------------------------


def names_in(value: Any) -> frozenset[str]:
    """Names of roles: of a text, a list of texts, objects with a name, or one such object. Anything else is none.

    Raises:
        ConfigError: If it is a relationship that cannot be read whole.
    """
    if isinstance(value, orm.WriteOnlyCollection):
        raise ConfigError(
            "Roles are read whole.", hint='Not lazy="write_only"; or tell SQLUsers roles=lambda user: ...'
        )
    if isinstance(value, str):
        return frozenset(value.replace(",", " ").split())
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, Iterable) else (value,)
    names = (item if isinstance(item, str) else getattr(item, "name", None) for item in items)
    return frozenset(name for name in names if isinstance(name, str) and name)


def checked_names(field: str, value: Any) -> frozenset[str]:
    """Names of roles or scopes that somebody wants to be written.

    Raises:
        InvalidValue: If they are no list of names.
    """
    is_list = isinstance(value, Collection) and not isinstance(value, (str, Mapping))
    if not is_list or not all(is_text(name) and name for name in value):
        raise InvalidValue(f"{field} are a list of names.")
    return frozenset(value)
