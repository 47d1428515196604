"""What a Flask app's configuration says to Jam: ``JAM_*``, ``SECRET_KEY``, and the names known from other libraries.

What all apps of one ``Jam`` must agree on goes to the ``Jam`` (``AppSettings``); where tokens are in a request and
what their cookies look like is each app's own affair (``TokenOptions``). Values that would switch safety off are
refused, with the safe way to get what was wanted.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal
from urllib.parse import quote

import msgspec
from flask import Flask
from msgspec import Meta, Struct

from jam.config import Options, flat_options
from jam.errors import ConfigError

__all__ = ["LOCATIONS", "AppSettings", "LoginOptions", "TokenOptions", "login_options", "seconds", "token_options"]

logger = logging.getLogger("jam.flask")

LOCATIONS = ("headers", "cookies", "query_string", "json")
Location = Literal["headers", "cookies", "query_string", "json"]
_Text = Annotated[str, Meta(min_length=1, max_length=255)]
# What a header and a cookie can be named (RFC 9110 5.6.2), and what a cookie's attributes can hold (RFC 6265 4.1.1).
_Token = Annotated[str, Meta(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,255}\Z")]
_Path = Annotated[str, Meta(pattern=r"^/[\x20-\x3a\x3c-\x7e]{0,1023}\Z")]
_Domain = Annotated[str, Meta(pattern=r"^\.?[0-9A-Za-z]([0-9A-Za-z.-]{0,252}[0-9A-Za-z])?\Z")]
_Scheme = Annotated[str, Meta(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{0,64}\Z")]

# Two names where one side could disagree with the other: Jam's tokens come back to the app that made them.
_SAME = {
    "JAM_ACCESS_TOKENS_ISSUER": ("JWT_ENCODE_ISSUER", "JWT_DECODE_ISSUER"),
    "JAM_ACCESS_TOKENS_AUDIENCE": ("JWT_ENCODE_AUDIENCE", "JWT_DECODE_AUDIENCE"),
}
_RENAMED = {
    "JWT_ACCESS_TOKEN_EXPIRES": "JAM_ACCESS_TOKENS_LIFETIME",
    "JWT_REFRESH_TOKEN_EXPIRES": "JAM_REFRESH_TOKENS_LIFETIME",
    "JWT_ALGORITHM": "JAM_ACCESS_TOKENS_ALGORITHM",
    "JWT_PRIVATE_KEY": "JAM_ACCESS_TOKENS_PRIVATE_KEY",
    "JWT_DECODE_LEEWAY": "JAM_ACCESS_TOKENS_LEEWAY",
    "REMEMBER_COOKIE_DURATION": "JAM_REMEMBER_ME_LIFETIME",
}
_WITHOUT_EFFECT = {
    "JWT_ERROR_MESSAGE_KEY": "Jam's errors are {'error', 'message', 'code'}; see docs/errors.md.",
    "JWT_CSRF_CHECK_FORM": "the value may come back in a form in any case.",
    "SESSION_PROTECTION": "addresses change and browsers lie; sessions are listed, and ended, by their owners.",
    "REMEMBER_COOKIE_REFRESH_EACH_REQUEST": "a remembered browser gets a new token when it uses the old one.",
}
_PAIR = 2  # a sender's name and address
_UNSAFE_METHODS = {"POST", "PUT", "PATCH", "DELETE"}


class AppSettings:
    """What one Flask app's configuration has to say to its ``Jam``."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    def options(self) -> Options:
        """``JAM_*``, and where these are silent, what the app says by the names of other libraries.

        Raises:
            ConfigError: If a value is unfit or unsafe, naming the key.
        """
        config = {key: value for key, value in self._app.config.items() if value is not None}
        _refuse_unsafe(config)
        return flat_options({**_known_elsewhere(config), **config})

    def allows_weak_secrets(self) -> bool:
        """In debug and testing."""
        return bool(self._app.debug or self._app.testing or self._app.config.get("JAM_DEBUG") is True)


def _known_elsewhere(config: Mapping[str, Any]) -> dict[str, Any]:
    """The ``JAM_*`` options that other names stand for."""
    found: dict[str, Any] = {}
    for known, name in _RENAMED.items():
        if known in config and name not in config:
            found[name] = _checked(known, config[known], name)
    for name, both in _SAME.items():
        values = {_only(key, config[key]) for key in both if config.get(key) is not None}
        if len(values) > 1:
            raise ConfigError(
                f"{both[0]} and {both[1]} differ, and Jam's tokens come back to the app that makes them.",
                hint="Set one of them; a token for another service is made with jam.gen_jwt_token({..., 'aud': ...}).",
            )
        found.update((name, value) for value in values)
    if (public := config.get("JWT_PUBLIC_KEY")) is not None and config.get("JWT_PRIVATE_KEY") is None:
        # Beside a private key it is that one's other half, which Jam derives.
        text = public.decode("ascii", "replace") if isinstance(public, bytes) else public
        found["JAM_ACCESS_TOKENS_PUBLIC_KEYS"] = _checked("JWT_PUBLIC_KEY", (text,), "JAM_ACCESS_TOKENS_PUBLIC_KEYS")
    own, everyones = config.get("JWT_SECRET_KEY"), config.get("JAM_SECRET") or config.get("SECRET_KEY")
    if own is not None:
        _checked("JWT_SECRET_KEY", own, "JAM_SECRET")
    if everyones or own:
        found["JAM_SECRET"] = everyones or own
    if own and everyones and own != everyones:
        found["JAM_ACCESS_TOKENS_SECRET"] = own
    found.update(_mail_options(config))
    if config.get("SECRET_KEY_FALLBACKS"):
        found["JAM_SECRET_FALLBACKS"] = tuple(config["SECRET_KEY_FALLBACKS"])
    return found


def _mail_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of ``mail`` that Flask-Mail's names stand for."""
    found: dict[str, Any] = {}
    if (server := config.get("MAIL_SERVER")) is not None and "JAM_MAIL_URL" not in config:
        implicit, starttls = config.get("MAIL_USE_SSL"), config.get("MAIL_USE_TLS")
        user, password = config.get("MAIL_USERNAME"), config.get("MAIL_PASSWORD")
        login = "" if user is None else f"{quote(str(user), safe='')}:{quote(str(password or ''), safe='')}@"
        port = config.get("MAIL_PORT", 465 if implicit else 587 if starttls else 25)
        plain = "" if implicit or starttls else "?tls=none"
        found["JAM_MAIL_URL"] = f"{'smtps' if implicit else 'smtp'}://{login}{server}:{port}{plain}"
    if (sender := config.get("MAIL_DEFAULT_SENDER")) is not None and "JAM_MAIL_SENDER" not in config:
        name, address = sender if isinstance(sender, (tuple, list)) and len(sender) == _PAIR else (None, sender)
        found["JAM_MAIL_SENDER"] = f"{name} <{address}>" if name else str(address)
    return found


def _checked(key: str, value: Any, name: str) -> Any:
    """The value of an option that has another name elsewhere: what is wrong with it is told under that name."""
    try:
        flat_options({name: value})
    except ConfigError as error:
        raise ConfigError(error.message.replace(name, key), hint=error.hint) from None
    return value


def _only(key: str, value: Any) -> str:
    """The one name in a value that elsewhere may be a list."""
    names = [value] if isinstance(value, str) else value
    if isinstance(names, (list, tuple, set)) and len(names) == 1 and isinstance(name := next(iter(names)), str):
        return name
    raise ConfigError(f"{key} is one name.", hint="Every app has one name of its own; set it as JAM_NAME.")


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple, set, frozenset)) and all(isinstance(one, str) for one in value)


def _refuse_unsafe(config: Mapping[str, Any]) -> None:
    """Refuse what would switch safety off, with the safe form of it.

    Raises:
        ConfigError: Naming the key.
    """
    for key in ("JWT_ACCESS_TOKEN_EXPIRES", "JWT_REFRESH_TOKEN_EXPIRES"):
        if isinstance(config.get(key), bool):
            raise ConfigError(
                f"{key} is False: a token that never expires can never be trusted again once it has leaked.",
                hint="Set seconds or a timedelta. Who should stay signed in gets a refresh token and rotates it.",
            )
    if config.get("JWT_VERIFY_SUB", True) is not True:
        raise ConfigError(
            "JWT_VERIFY_SUB is False: a subject that is no string is not unique to one person.",
            hint="Leave it out and make identities strings: create_access_token(str(user.id)), or a "
            "user_identity_loader that returns one.",
        )
    if config.get("JWT_IDENTITY_CLAIM", "sub") != "sub":
        raise ConfigError(
            "JWT_IDENTITY_CLAIM is not 'sub', which is where a token names its subject (RFC 7519 4.1.2, RFC 9068 2.2).",
            hint="Leave it out; what clients read elsewhere can be added with additional_claims.",
        )
    algorithms = config.get("JWT_DECODE_ALGORITHMS")
    own = config.get("JWT_ALGORITHM") or "HS256"
    if algorithms is not None and (not _is_list(algorithms) or set(algorithms) != {own}):
        raise ConfigError(
            f"JWT_DECODE_ALGORITHMS is not [{own!r}]: each key is for one algorithm (RFC 8725 3.1), so that a list of "
            "others can only add ways to be deceived.",
            hint="Leave it out. Keys that only verify, of whatever algorithm, go into JAM_ACCESS_TOKENS_PUBLIC_KEYS.",
        )
    if config.get("JWT_COOKIE_CSRF_PROTECT", True) is not True:
        raise ConfigError(
            "JWT_COOKIE_CSRF_PROTECT is False: then every site could act in the name of whoever is signed in here.",
            hint="Leave it out: browsers say where a request comes from, and pages need no token. Other sites of yours "
            "go into JAM_CSRF_TRUSTED_ORIGINS.",
        )
    methods = config.get("JWT_CSRF_METHODS")
    if methods is not None and (
        not _is_list(methods) or {str(method).upper() for method in methods} != _UNSAFE_METHODS
    ):
        raise ConfigError(
            "JWT_CSRF_METHODS is not POST, PUT, PATCH and DELETE.",
            hint="Leave it out: every method but GET, HEAD, OPTIONS and TRACE is guarded.",
        )
    for key, reason in _WITHOUT_EFFECT.items():
        if config.get(key) and key not in _mentioned:
            _mentioned.add(key)
            logger.warning("%s has no effect: %s", key, reason)


_mentioned: set[str] = set()


class TokenOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where tokens are in this app's requests, and what their cookies look like.

    Attributes:
        locations: Where to look, of ``LOCATIONS``; ``None``: where the extension was told to.
        header_name: The header; ``None``: the extension's.
        header_type: The scheme in it; empty: the header holds nothing but the token.
        query_string_name: The query parameter.
        query_string_value_prefix: What stands before the token in it.
        json_key: The member of a JSON body that holds an access token.
        refresh_json_key: The one that holds a refresh token.
        access_cookie_name: The cookie of access tokens; ``None``: the extension's, or Jam's own.
        access_cookie_path: Its path.
        refresh_cookie_name: The cookie of refresh tokens; ``None``: Jam's own.
        refresh_cookie_path: Its path; ``None``: what the routes that demand a refresh token have in common.
        cookie_domain: The domain of both; ``None``: this host alone.
        cookie_samesite: ``SameSite`` of both.
        cookie_secure: Whether both are for https alone; ``None``: as ``JAM_HTTPS`` says.
        session_cookie: Whether both end with the browser's session, or with the token.
        encode_nbf: Whether access tokens say ``nbf`` besides ``iat``.
        csrf_in_cookies: Whether a cookie that scripts can read comes with each, for the double submit.
        access_csrf_cookie_name: That cookie's name.
        access_csrf_cookie_path: Its path.
        access_csrf_header_name: The header its value comes back in.
        access_csrf_field_name: The form field.
        refresh_csrf_cookie_name: The same for refresh tokens.
        refresh_csrf_cookie_path: Its path.
        refresh_csrf_header_name: The header its value comes back in.
        refresh_csrf_field_name: The form field.
    """

    locations: tuple[Location, ...] | None = None
    header_name: _Token | None = None
    header_type: _Scheme = "Bearer"
    query_string_name: _Text = "jwt"
    query_string_value_prefix: str = ""
    json_key: _Text = "access_token"
    refresh_json_key: _Text = "refresh_token"
    access_cookie_name: _Token | None = None
    access_cookie_path: _Path = "/"
    refresh_cookie_name: _Token | None = None
    refresh_cookie_path: _Path | None = None
    cookie_domain: _Domain | None = None
    cookie_samesite: Literal["Lax", "Strict", "None"] = "Lax"
    cookie_secure: bool | None = None
    session_cookie: bool = True
    encode_nbf: bool = True
    csrf_in_cookies: bool = False
    access_csrf_cookie_name: _Token = "csrf_access_token"
    access_csrf_cookie_path: _Path = "/"
    access_csrf_header_name: _Token = "X-CSRF-TOKEN"
    access_csrf_field_name: _Text = "csrf_token"
    refresh_csrf_cookie_name: _Token = "csrf_refresh_token"
    refresh_csrf_cookie_path: _Path = "/"
    refresh_csrf_header_name: _Token = "X-CSRF-TOKEN"
    refresh_csrf_field_name: _Text = "csrf_token"


_FIELDS = {field.name: field for field in msgspec.structs.fields(TokenOptions)}


def token_options(config: Mapping[str, Any], *, https: bool) -> TokenOptions:
    """The app's options, checked.

    Args:
        config: ``app.config``.
        https: Whether browsers reach the app by https.

    Raises:
        ConfigError: Naming the key that is unfit.
    """
    given: dict[str, Any] = {}
    for name, field in _FIELDS.items():
        key = f"JWT_{name.upper()}" if name != "locations" else "JWT_TOKEN_LOCATION"
        value = config.get(key)
        if value is None:
            continue
        if name == "locations" and isinstance(value, str):
            value = (value,)
        if name == "cookie_samesite" and isinstance(value, str):
            value = value.capitalize()
        try:
            given[name] = msgspec.convert(value, field.type)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{key} is not acceptable: {error}.") from None
    options = TokenOptions(**given)
    if options.locations is not None and not options.locations:
        raise ConfigError("JWT_TOKEN_LOCATION is empty.", hint=f"It lists some of {', '.join(LOCATIONS)}.")
    _check_cookie("JWT_COOKIE_SECURE", options.cookie_secure, options.cookie_samesite, https=https)
    return options


class LoginOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the cookie of a remembered browser looks like, and where people are sent after signing in.

    Attributes:
        name: The cookie's name; ``None``: Jam's own.
        path: Its path.
        domain: The domain it is for; ``None``: this host alone.
        samesite: Which requests from other sites it goes with.
        secure: Whether it is for https alone; ``None``: as ``JAM_HTTPS`` says.
        session_for_next: Keep where to come back to in ``flask.session`` and not in the URL.
    """

    name: _Token | None = None
    path: _Path = "/"
    domain: _Domain | None = None
    samesite: Literal["Lax", "Strict", "None"] = "Lax"
    secure: bool | None = None
    session_for_next: bool = False


_LOGIN_KEYS = {
    "name": "REMEMBER_COOKIE_NAME",
    "path": "REMEMBER_COOKIE_PATH",
    "domain": "REMEMBER_COOKIE_DOMAIN",
    "samesite": "REMEMBER_COOKIE_SAMESITE",
    "secure": "REMEMBER_COOKIE_SECURE",
    "session_for_next": "USE_SESSION_FOR_NEXT",
}


def login_options(config: Mapping[str, Any], *, https: bool) -> LoginOptions:
    """The app's options, checked.

    Args:
        config: ``app.config``.
        https: Whether browsers reach the app by https.

    Raises:
        ConfigError: Naming the key that is unfit or unsafe.
    """
    given: dict[str, Any] = {}
    fields = {field.name: field for field in msgspec.structs.fields(LoginOptions)}
    for name, key in _LOGIN_KEYS.items():
        if config.get(key) is not None:
            try:
                value = config[key]
                value = value.capitalize() if name == "samesite" and isinstance(value, str) else value
                given[name] = msgspec.convert(value, fields[name].type)
            except msgspec.ValidationError as error:
                raise ConfigError(f"{key} is not acceptable: {error}.") from None
    if config.get("LOGIN_DISABLED"):
        raise ConfigError(
            "LOGIN_DISABLED opens every guarded view to everybody.",
            hint="Leave it out; tests sign in with jam.testing's client, client.login_as(user).",
        )
    if config.get("REMEMBER_COOKIE_HTTPONLY", True) is not True:
        raise ConfigError(
            "REMEMBER_COOKIE_HTTPONLY is False: scripts on a page could read who is remembered.",
            hint="Leave it out.",
        )
    options = LoginOptions(**given)
    _check_cookie("REMEMBER_COOKIE_SECURE", options.secure, options.samesite, https=https)
    return options


def _check_cookie(key: str, secure: bool | None, samesite: str, *, https: bool) -> None:
    """Refuse a cookie that whoever listens could read, and one that browsers would not take."""
    if secure is False and https:
        raise ConfigError(
            f"{key} is False and browsers reach the app by https: whoever listens could read what the cookie holds.",
            hint="Leave it out. For local work by plain http set JAM_HTTPS = False.",
        )
    if samesite == "None" and not (https or secure):
        raise ConfigError("Browsers take a cookie with SameSite=None only by https.", hint="Set JAM_HTTPS, or Lax.")


def seconds(value: float | timedelta) -> float:
    """A time that elsewhere is given in seconds or as a ``timedelta``."""
    return value.total_seconds() if isinstance(value, timedelta) else value
