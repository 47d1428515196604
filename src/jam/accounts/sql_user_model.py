"""An app's own model of its users: which attribute is which, and how an account is read from it and written to it."""

from __future__ import annotations

import contextlib
import difflib
import logging
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from jam.accounts.names import email_address, email_key, username_key
from jam.accounts.sql_columns import (
    bits_of,
    checked_names,
    checked_value,
    is_text,
    is_unique,
    kind_of,
    length_of,
    names_in,
    seconds_of,
    shown_value,
)
from jam.accounts.users import CHANGEABLE, Account
from jam.errors import ConfigError, InvalidValue, JamError

__all__ = ["UserModel"]

logger = logging.getLogger("jam.accounts")

_LISTS = ("roles", "scopes")
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
_MAX_SUBJECT = 255


class UserModel:
    """What Jam knows of an app's model.

    Args:
        model: The mapped class.
        names: What each of Jam's names is called in the model, as ``SQLUsers`` is told; ``None`` if it was not.
        profile: The attributes that the API shows.
        writable: Those of them that people may change themselves.
        clock: Seconds since the epoch.

    Attributes:
        user_class: The mapped class.
        mapper: SQLAlchemy's own knowledge of it.
        key_column: Of the primary key.
        columns: By attribute.
        profile: The attributes that the API shows.
        writable: Those of them that people may change themselves.

    Raises:
        ConfigError: If the model is not as ``SQLUsers`` describes it.
    """

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
        self.user_class: Any = model
        self.mapper: orm.Mapper[Any] = mapper
        self._clock: Callable[[], float] = clock
        # Not mapper.attrs: that needs the classes of all relationships, which may not be defined yet.
        self.columns: Mapping[str, Any] = {
            name: column for name, column in mapper.columns.items() if isinstance(column, sa.Column)
        }
        self._functions: dict[str, Callable[[Any], Iterable[str]]] = {
            name: names[name] for name in _LISTS if callable(names[name])
        }
        self._attributes: dict[str, str] = {}
        for name, given in names.items():
            attribute = None if name in self._functions else self._find_attribute(name, given)
            if attribute is not None:
                self._attributes[name] = attribute
        self._check_columns()
        self.key_column: Any = self._primary_key()
        self._key_attribute: str = mapper.get_property_by_column(self.key_column).key
        self.profile: tuple[str, ...] = tuple(profile)
        self.writable: frozenset[str] = frozenset(writable)
        self._check_profile()
        self._warn_unless_unique()

    # -- which attribute is which ---------------------------------------------------------------------------

    def _find_attribute(self, name: str, given: Any) -> str | None:
        known = list((self.mapper.all_orm_descriptors if name in _LISTS else self.columns).keys())
        if given is None and name not in ("username", "password_hash"):
            return next((usual for usual in _USUAL.get(name, ()) if usual in known), None)
        if given not in known:
            near = _nearest(given, known)
            raise ConfigError(
                f"{self.user_class.__name__} has no column for {name}: there is no {given!r}.",
                hint=f"Did you mean {name}={near!r}?" if near else "",
            )
        return str(given)

    def _check_columns(self) -> None:
        for name, attribute in self._attributes.items():
            column = self.columns.get(attribute)
            if name not in _LISTS and kind_of(column) not in _KINDS[name]:
                kinds = " or ".join(kind.__name__ for kind in _KINDS[name])
                raise ConfigError(
                    f"{self.user_class.__name__}.{attribute} cannot be its {name}, which is kept as {kinds}."
                )
        attribute = self._attributes["password_hash"]
        if (length_of(self.columns[attribute]) or _LONGEST_HASH) < _LONGEST_HASH:
            raise ConfigError(
                f"{self.user_class.__name__}.{attribute} is too short for a password hash.",
                hint=f"argon2id takes up to {_LONGEST_HASH} characters: make it a String(255).",
            )

    def _primary_key(self) -> Any:
        if len(self.mapper.primary_key) != 1:
            raise ConfigError(
                f"{self.user_class.__name__} has a primary key of several columns; a subject is one value."
            )
        (column,) = self.mapper.primary_key
        if kind_of(column) not in (int, str, uuid.UUID):
            raise ConfigError(
                f"The primary key of {self.user_class.__name__} is neither a number, nor text, nor a UUID."
            )
        return column

    def _check_profile(self) -> None:
        taken = set(self._attributes.values()) | CHANGEABLE
        for name in (*self.profile, *self.writable):
            if not isinstance(name, str) or not hasattr(self.user_class, name):
                near = _nearest(name, dir(self.user_class))
                raise ConfigError(
                    f"{self.user_class.__name__} has no attribute {name!r}.", hint=f"Did you mean {near!r}?"
                )
            if name in taken:
                raise ConfigError(f"{name!r} is Jam's own to show and to change; it is no field of a profile.")
        for name in self.writable:
            if name not in self.profile:
                raise ConfigError(f"{name!r} is writable, but not among the fields of the profile.")
            column = self.columns.get(name)
            if column is None or column.primary_key or kind_of(column) not in _WRITABLE_KINDS:
                raise ConfigError(
                    f"{name!r} cannot be writable.", hint="Columns of texts, numbers, truth values and times can."
                )

    def _warn_unless_unique(self) -> None:
        for name in ("username", "email"):
            attribute = self.compared(name)
            if attribute is not None and not is_unique(self.columns[attribute]):
                logger.warning(
                    "%s.%s is not unique: two people who register at the same moment can get the same %s. "
                    "Add unique=True, and a migration.", self.user_class.__name__, attribute, name,
                )  # fmt: skip

    def changeable(self) -> frozenset[str]:
        """Which of ``CHANGEABLE`` there is a place for."""
        attributes = self.mapper.all_orm_descriptors
        return frozenset(
            name
            for name, attribute in self._attributes.items()
            if name in CHANGEABLE and isinstance(attributes[attribute], orm.InstrumentedAttribute)  # not a proxy
        )

    def known_lists(self) -> frozenset[str]:
        """Which of roles and scopes the model, or a function beside it, says."""
        return frozenset(_LISTS) & (self._attributes.keys() | self._functions.keys())

    def _attribute(self, name: str) -> str:
        if name not in self._attributes:
            raise ConfigError(
                f"{self.user_class.__name__} has no place for {name}.",
                hint=f"Add the column {name} = {_COLUMN_TO_ADD[name]}, or say which one it is: SQLUsers({name}=...).",
            )
        return self._attributes[name]

    # -- finding --------------------------------------------------------------------------------------------

    def compared(self, name: str) -> str | None:
        """The attribute by which a user name or e-mail address is found: its key if there is one."""
        return self._attributes.get(f"{name}_key") or self._attributes.get(name)

    def sought(self, name: str) -> tuple[str, str] | None:
        """The attribute by which to find whoever goes by a name, and what it must be; ``None`` if nobody can."""
        kind, fold = ("email", email_key) if "@" in name else ("username", username_key)
        attribute = self.compared(kind)
        value = fold(name) if f"{kind}_key" in self._attributes else name
        return None if attribute is None or value is None else (attribute, value)

    def is_sought(self, user: Any, attribute: str, value: str) -> bool:
        """Whether a user whom the database found is the one.

        A database may take ``álice`` for ``alice``; the counters of failed attempts do not, and so Jam does not.
        """
        there = getattr(user, attribute)
        if attribute in (self._attributes.get("username_key"), self._attributes.get("email_key")):
            return bool(there == value)
        return username_key(there) == username_key(value)

    def lists_at_once(self) -> Sequence[Any]:
        """Read roles in the same query: else whom Jam knows would cost one more than whom it does not."""
        try:
            relationships = self.mapper.relationships
        except sa.exc.SQLAlchemyError as error:  # only now is there need of all the app's models
            raise ConfigError(f"SQLAlchemy cannot map {self.user_class.__name__}.", hint=str(error)) from None
        names = (self._attributes.get(name, "") for name in _LISTS)
        return [
            orm.joinedload(getattr(self.user_class, name))
            for name in names
            if name in relationships and relationships[name].lazy not in ("dynamic", "write_only")
        ]

    def key(self, subject: str, dialect: str) -> Any:
        """The primary key of a subject; ``None`` if it cannot be one."""
        if not is_text(subject) or not 0 < len(subject) <= _MAX_SUBJECT:
            return None
        column_type = self.key_column.type
        if isinstance(column_type, sa.Uuid):
            with contextlib.suppress(ValueError):
                parsed = uuid.UUID(subject)
                return parsed if column_type.as_uuid else str(parsed)
            return None
        if kind_of(self.key_column) is not int:
            return subject
        if not _INTEGER.fullmatch(subject):
            return None
        number = int(subject)
        # PostgreSQL would end the app's own transaction over a number that is none of its column's.
        bits = bits_of(self.key_column) if dialect == "postgresql" else 63
        return number if -(1 << bits) <= number < 1 << bits else None

    # -- reading --------------------------------------------------------------------------------------------

    def subject(self, user: Any) -> str:
        """The primary key as text."""
        return str(getattr(user, self._key_attribute))

    def account(self, user: Any) -> Account:
        """What is known of a user, while their session is open."""
        return Account(
            subject=self.subject(user), username=self._value(user, "username"), email=self._value(user, "email"),
            email_verified=bool(self._value(user, "email_verified")), password_hash=self._value(user, "password_hash"),
            is_active=self._is_active(user), roles=self._names(user, "roles"), scopes=self._names(user, "scopes"),
            created_at=seconds_of(self._value(user, "created_at")),
            profile=MappingProxyType({name: shown_value(name, getattr(user, name)) for name in self.profile}),
            user=user,
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
        return names_in(self._value(user, name) if function is None else function(user))

    def expected(self, only_if: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a change depends on, checked.

        Raises:
            InvalidValue: If there is nothing of that name.
        """
        for name in only_if:
            if name not in CHANGEABLE and name not in self.profile:
                raise _unknown_field(name)
        return {name: checked_names(name, value) if name in _LISTS else value for name, value in only_if.items()}

    def is_as_expected(self, user: Any, expected: Mapping[str, Any]) -> bool:
        """Compared here, not by the database, which may take ``A`` for ``a``."""
        if not expected:
            return True
        account = self.account(user)
        now = {**account.profile, **{name: getattr(account, name) for name in CHANGEABLE}}
        return all(now[name] == value for name, value in expected.items())

    # -- writing --------------------------------------------------------------------------------------------

    def new_values(self, fields: Mapping[str, Any], profile: Mapping[str, Any]) -> dict[str, Any]:
        """The attributes of a new user.

        Args:
            fields: Their user name, e-mail address and password hash.
            profile: The app's own fields.

        Raises:
            InvalidValue: If one cannot be stored, or is not its owner's to write.
            ConfigError: If the model has no place for one.
        """
        values: dict[str, Any] = {}
        for name, value in fields.items():
            if value is not None or name in self._attributes:
                values |= self._written(name, value)
        for name, value in profile.items():
            values |= self._written_by_its_owner(name, value)
        for name in ("is_active", "email_verified", "created_at"):
            column = self.columns.get(self._attributes.get(name, ""))
            if column is None or column.default is not None or column.server_default is not None:
                continue  # it is the app's to say
            is_time = name == "created_at"
            values[self._attributes[name]] = self._now(column) if is_time else self._truth(column, name == "is_active")
        return values

    def changed_values(self, changes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, frozenset[str]]]:
        """The attributes to change; and the lists of names, by Jam's name, of which ``change`` makes attributes.

        Raises:
            InvalidValue: If one cannot be stored, or is not its owner's to write.
            ConfigError: If the model has no place for one.
        """
        values: dict[str, Any] = {}
        lists: dict[str, frozenset[str]] = {}
        for name, value in changes.items():
            if name in _LISTS:
                self._attribute(name)
                lists[name] = checked_names(name, value)
            elif name in CHANGEABLE:
                values |= self._written(name, value)
            else:
                values |= self._written_by_its_owner(name, value)
        return values, lists

    def make(self, values: Mapping[str, Any]) -> Any:
        """A new user."""
        with _apps_refusals():
            try:
                return self.user_class(**values)
            except TypeError as error:
                raise ConfigError(
                    f"{self.user_class.__name__} cannot be made with the keyword arguments {', '.join(values)}.",
                    hint=f"{error}.",
                ) from None

    def change(
        self, session: orm.Session, user: Any, values: Mapping[str, Any], lists: Mapping[str, frozenset[str]]
    ) -> None:
        """Write what ``changed_values`` said to a user of that session."""
        with session.no_autoflush:
            kept = {self._attribute(name): self._kept_list(session, user, name, lists[name]) for name in lists}
            with _apps_refusals():
                for attribute, value in {**kept, **values}.items():
                    setattr(user, attribute, value)

    def _written(self, name: str, value: Any) -> dict[str, Any]:
        attribute = self._attribute(name)
        column = self.columns[attribute]
        if name in ("is_active", "email_verified"):
            if not isinstance(value, bool):
                raise InvalidValue(f"{name} is true or false.")
            return {attribute: self._truth(column, value)}
        written = {attribute: checked_value(column, name, value)}
        key_attribute = self._attributes.get(f"{name}_key")
        if key_attribute is not None:
            key = None if value is None else username_key(value) if name == "username" else email_address(value).key
            written[key_attribute] = checked_value(self.columns[key_attribute], f"{name}_key", key)
        return written

    def _written_by_its_owner(self, name: str, value: Any) -> dict[str, Any]:
        if name not in self.writable:
            raise _unknown_field(name)
        return {name: checked_value(self.columns[name], name, value)}

    def _truth(self, column: Any, value: bool) -> Any:
        """A truth value; or the time since when it is true."""
        if kind_of(column) is bool:
            return value
        return self._now(column) if value else None

    def _now(self, column: Any) -> Any:
        now = self._clock()
        if kind_of(column) is datetime:
            moment = datetime.fromtimestamp(now, UTC)
            return moment if column.type.timezone else moment.replace(tzinfo=None)
        return kind_of(column)(now)

    def _kept_list(self, session: orm.Session, user: Any, name: str, members: frozenset[str]) -> Any:
        """Roles or scopes as the model keeps them."""
        attribute = self._attribute(name)
        column = self.columns.get(attribute)
        if column is None:
            return self._related(session, user, name, members)
        if kind_of(column) is not str:
            return sorted(members)
        if any(names_in(member) != {member} for member in members):
            raise InvalidValue(f"{name} are single words.")
        separator = "," if "," in (getattr(user, attribute) or "") else " "
        return checked_value(column, name, separator.join(sorted(members)))

    def _related(self, session: orm.Session, user: Any, name: str, members: frozenset[str]) -> Any:
        attribute = self._attribute(name)
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


def _nearest(name: Any, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)
    return near[0] if near else ""


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
