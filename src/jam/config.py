"""Settings: typed, checked, and named in every complaint.

They come, strongest first, from the mapping given in code, the environment (``JAM__SECTION__OPTION``), a TOML
file, and, for what is still lacking at first use, a framework's own configuration. The defaults stand here.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from jam.errors import ConfigError

__all__ = [
    "APITokenSettings",
    "AccessTokenSettings",
    "AccountSettings",
    "AuditSettings",
    "CSRFSettings",
    "MailSettings",
    "Options",
    "PasswordSettings",
    "RefreshTokenSettings",
    "RememberMeSettings",
    "Secret",
    "SessionSettings",
    "Settings",
    "ThrottlingSettings",
    "flat_options",
    "read_options",
    "settings_from",
]

YEAR = 365 * 24 * 3600

Options = dict[str, Any]
"""Checked options as they were given: option names, or section names with a dict of option names in them."""


class Secret:
    """A secret that does not show itself in logs, errors or ``repr``."""

    __slots__ = ("value",)

    def __init__(self, value: str | bytes) -> None:
        self.value = value.encode() if isinstance(value, str) else bytes(value)

    def __repr__(self) -> str:
        return "Secret(...)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)


_ORIGIN = re.compile(r"https?://[a-z0-9.\-\[\]:]+")
_BASE_URL = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+(/[A-Za-z0-9._~/-]*[A-Za-z0-9._~-])?")
_ONE_PASS_KIB = 47104
Lifetime = Annotated[float, Meta(ge=1, le=10 * YEAR)]
Name = Annotated[str, Meta(min_length=1, max_length=255)]


class AccessTokenSettings(Struct, frozen=True, kw_only=True):
    """``access_tokens``: see ``docs/access_tokens.md``. Times are in seconds.

    Attributes:
        lifetime: Of a token unless its maker says otherwise.
        max_lifetime: The longest that is issued or accepted.
        leeway: How far the clocks of hosts may disagree.
        secret: Instead of the app's one ``secret``, for access and refresh tokens.
        issuer: ``iss``; the app's ``name`` if left out.
        audience: ``aud``; the app's ``name`` if left out.
        client_id: ``client_id`` (RFC 9068); the app's ``name`` if left out.
        algorithm: Of the secret (HS256 if left out), or of ``private_key`` where that leaves a choice.
        private_key: PEM or JWK text, or the path of such a file: asymmetric signatures instead of the secret.
        public_keys: More keys that verify, each PEM or JWK text or a path: retired ones, announced ones.
        key_directory: The path of a directory of keys, made by ``flask jam keys``: instead of the secret.
        stateless: Never ask the store. Gives up revocation: a token then lives until it expires.
    """

    lifetime: Lifetime = 900.0
    max_lifetime: Lifetime = 86400.0
    leeway: Annotated[float, Meta(ge=0, le=300)] = 0.0
    secret: Secret | None = None
    issuer: Name | None = None
    audience: Name | None = None
    client_id: Name | None = None
    algorithm: Name | None = None
    private_key: Secret | None = None
    public_keys: tuple[str, ...] = ()
    key_directory: Name | None = None
    stateless: bool = False


Overlap = Annotated[float, Meta(ge=0, le=300)]


class RefreshTokenSettings(Struct, frozen=True, kw_only=True):
    """``refresh_tokens``: see ``docs/refresh_tokens.md``. Times are in seconds.

    Attributes:
        lifetime: Of a family: so long after the sign-in, no token of it is good, rotated or not.
        idle_for: Unused for so long, a family is dead; left out, it may rest until its end.
        overlap: For how long a token that was just used may come again, and gets the same successor.
    """

    lifetime: Lifetime = 30 * 86400.0
    idle_for: Lifetime | None = None
    overlap: Overlap = 10.0


class RememberMeSettings(Struct, frozen=True, kw_only=True):
    """``remember_me``: see ``docs/logins.md``. Times are in seconds.

    Attributes:
        lifetime: For how long a browser is remembered after the sign-in at most.
        idle_for: Unused for so long, it is forgotten; left out, at its end.
        overlap: For how long the tabs of a browser that is opened again may bring the same token.
    """

    lifetime: Lifetime = 365 * 86400.0
    idle_for: Lifetime | None = None
    overlap: Overlap = 60.0


class SessionSettings(Struct, frozen=True, kw_only=True):
    """``sessions``: see ``docs/sessions.md``. Times are in seconds.

    Attributes:
        idle_for: Unused for so long, a session is dead.
        lifetime: So long after sign-in it is dead in any case.
        anonymous_idle_for: Unused for so long, what was kept for somebody who has not signed in is dead.
    """

    idle_for: Lifetime = 3600.0
    lifetime: Lifetime = 86400.0
    anonymous_idle_for: Lifetime = 3600.0


class CSRFSettings(Struct, frozen=True, kw_only=True):
    """``csrf``: see ``docs/csrf.md``.

    Attributes:
        trusted_origins: Other origins (``https://app.example``) whose pages may send requests with cookies.
    """

    trusted_origins: tuple[str, ...] = ()


class APITokenSettings(Struct, frozen=True, kw_only=True):
    """``api_tokens``: see ``docs/api_tokens.md``. Times are in seconds.

    Attributes:
        lifetime: Of a token unless its maker says otherwise.
        max_lifetime: The longest that anybody may ask for.
    """

    lifetime: Lifetime = 90 * 86400.0
    max_lifetime: Lifetime = 366 * 86400.0


class PasswordSettings(Struct, frozen=True, kw_only=True):
    """``passwords``: see ``docs/passwords.md``.

    Attributes:
        min_length: Of a new password, in characters (code points).
        max_length: Of any password, in characters: longer ones are refused before they cost anything.
        memory_kib: What argon2id uses, in KiB; at least 19456.
        iterations: How often it goes over it; at least 2 (1 from 47104 KiB on).
        parallelism: On how many threads.
        concurrency: How many passwords one process hashes at once; left out, one for each processor.
        wait_for: How long a request waits for its turn before it is answered 503, in seconds.
        migrating_from: Of what kind the app's old hashes are, such as ``scrypt:32768:8:1``, ``pbkdf2:sha256:600000`` or
            ``bcrypt:12``: until it is left out again, every sign-in costs as much as one with such a hash.
        context_words: Words that no password may contain: the names of the product, the company, the town.
    """

    min_length: Annotated[int, Meta(ge=8, le=64)] = 15
    max_length: Annotated[int, Meta(ge=64, le=4096)] = 1024
    memory_kib: Annotated[int, Meta(ge=19456, le=4 * 1024 * 1024)] = 19456
    iterations: Annotated[int, Meta(ge=1, le=100)] = 2
    parallelism: Annotated[int, Meta(ge=1, le=16)] = 1
    concurrency: Annotated[int, Meta(ge=1, le=1024)] | None = None
    wait_for: Annotated[float, Meta(ge=0, le=60)] = 2.0
    migrating_from: Name | None = None
    context_words: tuple[str, ...] = ()


_Limit = Annotated[int, Meta(ge=1, le=1_000_000)]


class ThrottlingSettings(Struct, frozen=True, kw_only=True):
    """``throttling``: see ``docs/throttling.md``. Times are in seconds.

    Attributes:
        attempts: How many failed sign-ins one address may make under one name in a ``window``.
        window: How long they are counted together.
        attempts_per_account: How many failed sign-ins all unknown addresses together may make under one name in a day.
        attempts_per_address: How many failed sign-ins one address may make under all names in a ``window``.
        known_for: For how long an address from which a person signed in counts as theirs: strangers who use up
            ``attempts_per_account`` do not shut it out.
        mails: How many mails one account may be sent in an hour.
        mails_per_address: How many mails one address may have sent in an hour.
    """

    attempts: _Limit = 10
    window: Lifetime = 900.0
    attempts_per_account: _Limit = 50
    attempts_per_address: _Limit = 100
    known_for: Lifetime = 30 * 86400.0
    mails: _Limit = 5
    mails_per_address: _Limit = 20


class MailSettings(Struct, frozen=True, kw_only=True):
    """``mail``: see ``docs/mail.md``.

    Attributes:
        url: ``smtp://user:password@host:587`` (STARTTLS), ``smtps://...:465``, ``smtp://127.0.0.1:1025?tls=none`` on
            this machine alone, or ``console://``.
        sender: Who the mails are from, such as ``Jam <no-reply@app.example>``.
        timeout: How long to wait for the server, in seconds.
    """

    url: Secret | None = None
    sender: Name | None = None
    timeout: Annotated[float, Meta(ge=0.1, le=300)] = 10.0


class AccountSettings(Struct, frozen=True, kw_only=True):
    """``accounts``: see ``docs/accounts.md``. Times are in seconds.

    Attributes:
        base_url: Where browsers reach the app, such as ``https://app.example``: links in mails begin with it.
        open_registration: Whether ``POST /api/users`` is open to everybody. It tells which names exist.
        require_verified_email: Whether nobody is signed in before their e-mail address is verified.
        sign_in_lifetime: How long a sign-in of several steps may take.
        reset_lifetime: How long a link to set a new password is good.
        verify_lifetime: How long a link to verify an e-mail address is good.
        fresh_for: How long ago a person may have proved who they are to change their e-mail address, and the like.
    """

    base_url: Name | None = None
    open_registration: bool = False
    require_verified_email: bool = False
    sign_in_lifetime: Lifetime = 600.0
    reset_lifetime: Lifetime = 1800.0
    verify_lifetime: Lifetime = 3 * 86400.0
    fresh_for: Lifetime = 600.0


class AuditSettings(Struct, frozen=True, kw_only=True):
    """``audit``: see ``docs/audit.md``.

    Attributes:
        url: Where the audit log is kept: ``file:///var/log/app/audit.jsonl`` or a database's URL; left out, nowhere.
    """

    url: Secret | None = None


class Settings(Struct, frozen=True, kw_only=True):
    """Everything that can be set.

    Attributes:
        secret: At least 32 random bytes. From it every key is derived that is not configured itself.
        secret_fallbacks: Former secrets, which still verify.
        name: The app's one name: issuer, audience and client of its tokens, realm of its challenges.
        store: The store's URL; see ``jam.stores.open_store``.
        https: Whether browsers reach the app by https. Left out: yes, but for debug and testing.
        debug: Let weak secrets pass with a warning. A Flask app in debug or testing does the same.
    """

    secret: Secret | None = None
    secret_fallbacks: tuple[Secret, ...] = ()
    name: Name = "jam"
    store: Name = "memory://"
    https: bool | None = None
    debug: bool = False
    access_tokens: AccessTokenSettings = AccessTokenSettings()
    refresh_tokens: RefreshTokenSettings = RefreshTokenSettings()
    remember_me: RememberMeSettings = RememberMeSettings()
    sessions: SessionSettings = SessionSettings()
    csrf: CSRFSettings = CSRFSettings()
    api_tokens: APITokenSettings = APITokenSettings()
    passwords: PasswordSettings = PasswordSettings()
    throttling: ThrottlingSettings = ThrottlingSettings()
    mail: MailSettings = MailSettings()
    accounts: AccountSettings = AccountSettings()
    audit: AuditSettings = AuditSettings()


def _fields(struct: type[Struct], *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for field in msgspec.structs.fields(struct):
        if isinstance(field.type, type) and issubclass(field.type, Struct):
            yield from _fields(field.type, *path, field.name)
        else:
            yield (*path, field.name), field.type


_TYPES: dict[tuple[str, ...], Any] = dict(_fields(Settings))
_SECTION_TYPES: dict[str, type[Struct]] = {
    field.name: field.type
    for field in msgspec.structs.fields(Settings)
    if isinstance(field.type, type) and issubclass(field.type, Struct)
}
_SECTIONS = frozenset(_SECTION_TYPES)
_FLAT = {"_".join(path).upper(): path for path in _TYPES}
_NESTED = {"__".join(path).upper(): path for path in _TYPES}


def read_options(config: Mapping[str, Any] | str | os.PathLike[str] | None, pointer: str) -> Options:
    """The options from code or a TOML file, and from the environment.

    Args:
        config: A mapping, the path of a TOML file, or ``None`` for the environment alone.
        pointer: The dotted name of the file's table.

    Raises:
        ConfigError: Naming the option, and the nearest valid one if it is unknown.
    """
    environment = _environment_options(os.environ)
    if config is None:
        return environment
    if isinstance(config, Mapping):
        return overlay(environment, _checked(config))
    return overlay(_checked(_read_toml(Path(config), pointer)), environment)


def flat_options(config: Mapping[str, Any], prefix: str = "JAM_") -> Options:
    """The options among a framework's upper-case keys: ``JAM_SESSIONS_IDLE_FOR`` is ``sessions.idle_for``.

    Raises:
        ConfigError: If a key with the prefix names no option.
    """
    options: Options = {}
    for key, value in config.items():
        if not key.startswith(prefix):
            continue
        path = _FLAT.get(key.removeprefix(prefix))
        if path is None:
            raise _unknown(key, [prefix + name for name in _FLAT])
        if value is not None:
            _put(options, path, _convert(key, value, path))
    return options


def settings_from(options: Options) -> Settings:
    """The settings, defaults filled in, and checked against each other.

    Raises:
        ConfigError: If two of them contradict each other.
    """
    sections = {name: kind(**options.get(name, {})) for name, kind in _SECTION_TYPES.items()}
    settings = Settings(**{**options, **sections})
    tokens, sessions = settings.access_tokens, settings.sessions
    if tokens.lifetime > tokens.max_lifetime:
        raise ConfigError(
            "access_tokens.lifetime is longer than access_tokens.max_lifetime.",
            hint=f"max_lifetime is {tokens.max_lifetime:g} seconds (JAM_ACCESS_TOKENS_MAX_LIFETIME); raise it if such "
            "long-lived tokens are meant. Who should stay signed in rather gets a refresh token.",
        )
    if tokens.key_directory is not None and tokens.private_key is not None:
        raise ConfigError(
            "access_tokens.key_directory and access_tokens.private_key are both set.",
            hint="Leave one of them out; the former key's public half may stand in access_tokens.public_keys.",
        )
    if sessions.idle_for > sessions.lifetime:
        raise ConfigError("sessions.idle_for is longer than sessions.lifetime.")
    for name, families in (("refresh_tokens", settings.refresh_tokens), ("remember_me", settings.remember_me)):
        if families.idle_for is not None and families.idle_for > families.lifetime:
            raise ConfigError(f"{name}.idle_for is longer than {name}.lifetime.")
    if settings.passwords.iterations < 2 and settings.passwords.memory_kib < _ONE_PASS_KIB:  # noqa: PLR2004
        raise ConfigError(
            f"passwords.iterations is 1 with less than {_ONE_PASS_KIB} KiB of passwords.memory_kib.",
            hint="OWASP's minimum for argon2id is 2 over 19456 KiB, or 1 over 47104 KiB (ASVS 11.4.2).",
        )
    if settings.api_tokens.lifetime > settings.api_tokens.max_lifetime:
        raise ConfigError("api_tokens.lifetime is longer than api_tokens.max_lifetime.")
    base_url = settings.accounts.base_url
    if base_url is not None and not _BASE_URL.fullmatch(base_url):
        raise ConfigError(
            f"accounts.base_url is {base_url!r}, which is no place that links can begin with.",
            hint="Write https://app.example or https://app.example/path: no query, no slash at the end.",
        )
    for origin in settings.csrf.trusted_origins:
        if not _ORIGIN.fullmatch(origin):
            raise ConfigError(
                f"csrf.trusted_origins holds {origin!r}, which is no origin.",
                hint="Write https://app.example or https://app.example:8443: no path, no wildcard, lower case.",
            )
    return settings


def walk(options: Options) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every option that was given, by its path."""
    for name, value in options.items():
        if name in _SECTIONS:
            for option, inner in value.items():
                yield (name, option), inner
        else:
            yield (name,), value


def overlay(weaker: Options, stronger: Options) -> Options:
    """Both, the stronger one's word counting where both speak."""
    merged: Options = {}
    for options in (weaker, stronger):
        for path, value in walk(options):
            _put(merged, path, value)
    return merged


def _put(options: Options, path: tuple[str, ...], value: Any) -> None:
    for section in path[:-1]:
        options = options.setdefault(section, {})
    options[path[-1]] = value


def _checked(config: Mapping[str, Any], *section: str) -> Options:
    options: Options = {}
    for key, value in config.items():
        path = (*section, key)
        name = ".".join(map(str, path))
        if not section and key in _SECTIONS:
            if not isinstance(value, Mapping):
                raise ConfigError(f"{name} is a section: it holds a table of options.")
            options[key] = _checked(value, key)
        elif path in _TYPES:
            if value is not None:
                options[key] = _convert(name, value, path)
        else:
            raise _unknown(name, [".".join(known) for known in _TYPES])
    return options


def _environment_options(environ: Mapping[str, str]) -> Options:
    options: Options = {}
    for key, value in environ.items():
        if not key.startswith("JAM__"):
            continue
        path = _NESTED.get(key.removeprefix("JAM__"))
        if path is None:
            raise _unknown(key, ["JAM__" + name for name in _NESTED])
        given: Any = value
        if _is_list(path):
            given = [part.strip() for part in value.split(",") if part.strip()]
        _put(options, path, _convert(key, given, path, strict=False))
    return options


def _is_list(path: tuple[str, ...]) -> bool:
    return getattr(_TYPES[path], "__origin__", None) is tuple


def _convert(name: str, value: Any, path: tuple[str, ...], *, strict: bool = True) -> Any:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name} must be a finite number.")
    try:
        converted = msgspec.convert(value, _TYPES[path], strict=strict, dec_hook=_to_secret)
    except (msgspec.ValidationError, TypeError) as error:
        # msgspec names types and bounds, never the value: a secret in the wrong place stays unseen.
        raise ConfigError(f"{name} is not acceptable: {error}.") from None
    if isinstance(converted, float) and not math.isfinite(converted):
        raise ConfigError(f"{name} must be a finite number.")
    return converted


def _to_secret(kind: type, value: object) -> Secret:
    if kind is Secret and isinstance(value, (str, bytes)) and value:
        with contextlib.suppress(UnicodeEncodeError):
            return Secret(value)
    raise TypeError("Expected a non-empty string or bytes")


def _unknown(name: str, known: list[str]) -> ConfigError:
    last = name.rpartition(".")[2]
    # The right option in the wrong section, or else a slip of the pen.
    near = [option for option in known if option.rpartition(".")[2] == last]
    sections = _SECTIONS if "." not in name and not name.startswith("JAM_") else ()
    near = near or difflib.get_close_matches(name, [*known, *sections], n=1, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else "The options are listed in docs/configuration.md."
    return ConfigError(f"There is no option {name}.", hint=hint)


def _read_toml(path: Path, pointer: str) -> Mapping[str, Any]:
    try:
        table: Any = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"The configuration file {path} cannot be read.", hint=str(error.strerror)) from None
    except ValueError as error:
        raise ConfigError(f"The configuration file {path} is not TOML.", hint=str(error)) from None
    for name in pointer.split("."):
        table = table.get(name) if isinstance(table, Mapping) else None
    if not isinstance(table, Mapping):
        raise ConfigError(f"The configuration file {path} has no table [{pointer}].", hint="pointer= names another.")
    return table
