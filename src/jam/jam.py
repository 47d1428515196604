"""The facade: settings in, wired parts out."""

from __future__ import annotations

import copy
import logging
import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from jam import config as settings_module
from jam.config import (
    Options,
    RefreshTokenSettings,
    RememberMeSettings,
    Secret,
    Settings,
    read_options,
    settings_from,
)
from jam.credentials.access_tokens import AccessTokens
from jam.credentials.api_tokens import APITokens
from jam.credentials.logins import Logins
from jam.credentials.one_time_tokens import OneTimeTokens
from jam.credentials.refresh_tokens import RefreshTokens
from jam.credentials.sessions import Sessions
from jam.crypto.keys import HMACKey, Key, KeySet, RSAKey, derive
from jam.crypto.weak_keys import weakness_of
from jam.errors import ConfigError, InvalidKey, InvalidValue
from jam.events import Events, SubjectRevoked
from jam.stores import Store, open_store
from jam.stores.rehearsal import RehearsalStore

if TYPE_CHECKING:
    from jam.crypto.key_directory import KeyDirectory

__all__ = ["Jam", "SettingsSource"]

logger = logging.getLogger("jam")

_REVOCABLE = ("access_token", "api_token", "one_time_token", "refresh_token", "remember_me", "session")
_HMAC_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
# An app answers these for itself, so that two apps of one Jam may differ in them.
_PER_APP = frozenset({("https",), ("debug",)})
_SECRET_ADVICE = 'Make one with: python -c "import secrets; print(secrets.token_urlsafe(64))"'  # noqa: S105 - no secret


class SettingsSource(Protocol):
    """Something that fills in what a ``Jam`` was not told: a Flask app's configuration, for one."""

    def options(self) -> Options:
        """The options it has, read when they are first needed."""
        ...

    def allows_weak_secrets(self) -> bool:
        """Whether it is in debug or testing."""
        ...


class Jam:
    """One configured system of credentials, used by any number of apps.

    Nothing is opened and no key is read before it is first needed. All parts are safe to use from many
    threads and after a fork.

    Args:
        config: A mapping of options, which is stronger than the environment (``JAM__SECTION__OPTION``); or the path of
            a TOML file, which is weaker; or ``None``. ``docs/configuration.md`` lists the options.
        pointer: The dotted name of the TOML file's table.
        store: A store to use instead of the one that ``store`` in the configuration names.
        keys: Keys for access tokens instead of those the configuration leads to.
        clock: Seconds since the epoch; tests move it.

    Raises:
        ConfigError: If an option is unknown, of the wrong type or nonsense.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | str | os.PathLike[str] | None = None,
        *,
        pointer: str = "jam",
        store: Store | None = None,
        keys: KeySet | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.clock = clock
        self.events = Events()
        self._own = read_options(config, pointer)
        settings_from(self._own)  # what contradicts itself already now should not wait for the first request
        self._sources: list[Callable[[], SettingsSource | None]] = []
        self._lock = threading.RLock()
        self._settings: Settings | None = None
        self._given: Options = {}
        self._warned: set[str] = set()
        self._store = store
        self._keys = keys
        self._refresh_keys: Callable[[], KeySet] | None = None
        self._access_tokens: AccessTokens | None = None
        self._api_tokens: APITokens | None = None
        self._refresh_tokens: RefreshTokens | None = None
        self._remember_me: RefreshTokens | None = None
        self._logins: Logins | None = None
        self._one_time_tokens: OneTimeTokens | None = None
        self._made_up_secret: Secret | None = None
        self._sessions: Sessions | None = None
        _all_jams.add(self)

    def rehearsing(self) -> Jam:
        """The same Jam over a store that changes nothing and with nobody listening; for ``flask jam explain``."""
        other = copy.copy(self)
        other.events = Events()
        for part in (
            "_access_tokens",
            "_api_tokens",
            "_refresh_tokens",
            "_remember_me",
            "_sessions",
            "_logins",
            "_one_time_tokens",
        ):
            setattr(other, part, None)  # to be made anew over the store
        other._store = RehearsalStore(self.store)  # noqa: SLF001 - this class's own
        return other

    # -- settings -------------------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The settings, final from the first use on.

        Raises:
            ConfigError: If they are contradictory, or the secret is weak outside debug and testing.
        """
        return self._settings if self._settings is not None else self._settle()

    def fill_from(self, source: Callable[[], SettingsSource | None]) -> None:
        """For extensions: fill what this Jam lacks from a source at first use; a function, since an app may go away."""
        with self._lock:
            self._sources = [known for known in self._sources if known() is not None]
            self._sources.append(source)

    def agree_with(self, source: SettingsSource) -> None:
        """Refuse a source that comes after the settings are final and would have made them different. For extensions.

        Raises:
            ConfigError: Naming the option.
        """
        settled = self.settings
        own = dict(settings_module.walk(self._own))
        given = dict(settings_module.walk(self._given))
        for path, value in settings_module.walk(source.options()):
            if path not in own and path not in _PER_APP and given.get(path) != value:
                raise _disagreement(path)
        self._check_secrets(settled, lenient=settled.debug or source.allows_weak_secrets())

    def _settle(self) -> Settings:
        with self._lock:
            if self._settings is not None:
                return self._settings
            own = dict(settings_module.walk(self._own))
            sources = [source for reference in self._sources if (source := reference()) is not None]
            given: Options = {}
            for source in sources:
                options = source.options()
                known = dict(settings_module.walk(given))
                for path, value in settings_module.walk(options):
                    if path not in own and path not in _PER_APP and known.get(path, value) != value:
                        raise _disagreement(path)
                given = settings_module.overlay(given, options)
            for path in _PER_APP:
                given.pop(path[0], None)
            settings = settings_from(settings_module.overlay(given, self._own))
            lenient = settings.debug or (bool(sources) and all(source.allows_weak_secrets() for source in sources))
            self._check_secrets(settings, lenient=lenient)
            self._given = given
            self._settings = settings
            return settings

    def _check_secrets(self, settings: Settings, *, lenient: bool) -> None:
        named = (
            ("secret", settings.secret),
            ("access_tokens.secret", settings.access_tokens.secret),
            *(("secret_fallbacks", one) for one in settings.secret_fallbacks),
        )
        for name, secret in named:
            weakness = None if secret is None else weakness_of(secret.value)
            if weakness is None:
                continue
            message = f"The configured {name} {weakness}."
            if not lenient:
                raise ConfigError(message, hint=_SECRET_ADVICE)
            if message not in self._warned:
                self._warned.add(message)
                logger.warning("%s This is accepted only in debug and testing. %s", message, _SECRET_ADVICE)

    # -- parts ----------------------------------------------------------------------------------------------

    @property
    def store(self) -> Store:
        """Where records live."""
        if self._store is None:
            with self._lock:
                if self._store is None:
                    self._store = open_store(self.settings.store)
        return self._store

    @property
    def keys(self) -> KeySet:
        """What signs and verifies access tokens, as it is now: the keys of a directory may change.

        Raises:
            InvalidKey: If a configured key is not fit.
            ConfigError: If the key directory cannot be read.
        """
        if self._keys is None:
            with self._lock:
                if self._keys is None:
                    self._keys = self._keys_of_directory() or _configured_keys(self.settings)
                    if self._keys is None:
                        algorithm = self.settings.access_tokens.algorithm or "HS256"
                        self._keys = self.derived_keys(f"access tokens {algorithm}", algorithm, for_tokens=True)
        return self._keys if self._refresh_keys is None else self._refresh_keys()

    @property
    def key_directory(self) -> KeyDirectory | None:
        """The directory of keys, if one is configured: what makes, lists and rotates them.

        Raises:
            ConfigError: If this system has not what it needs.
        """
        path = self.settings.access_tokens.key_directory
        if path is None:
            return None
        try:
            from jam.crypto.key_directory import KeyDirectory  # noqa: PLC0415 - only for who asks for one
        except ImportError:
            raise ConfigError(
                "access_tokens.key_directory needs the file permissions and locks of a POSIX system.",
                hint="Set access_tokens.private_key instead.",
            ) from None
        return KeyDirectory(path, clock=self.clock)

    def _keys_of_directory(self) -> KeySet | None:
        directory = self.key_directory
        if directory is None:
            return None
        from jam.crypto.key_directory import RefreshedKeys  # noqa: PLC0415 - as above

        refreshed = RefreshedKeys(directory, _configured_public_keys(self.settings), clock=self.clock)
        self._refresh_keys = refreshed.newest
        return refreshed.newest()

    def derived_keys(self, purpose: str, algorithm: str = "HS256", *, for_tokens: bool = False) -> KeySet:
        """HMAC keys for one purpose alone, derived from the secret; those of former secrets verify still.

        Args:
            purpose: A name that nothing else is derived under.
            algorithm: HS256, HS384 or HS512.
            for_tokens: From ``access_tokens.secret``, if there is one.

        Raises:
            InvalidKey: If there is no such algorithm.
        """
        length = _HMAC_BYTES.get(algorithm)
        if length is None:
            raise InvalidKey(
                f"access_tokens.algorithm {algorithm!r} cannot be used with a secret.",
                hint="Set access_tokens.private_key, or use HS256, HS384 or HS512.",
            )
        settings = self.settings
        current = (settings.access_tokens.secret if for_tokens else None) or settings.secret or self._secret_for_now()
        secrets_ = dict.fromkeys((current, *settings.secret_fallbacks))
        return KeySet(*(HMACKey(derive(secret.value, purpose, length), algorithm) for secret in secrets_))

    def _secret_for_now(self) -> Secret:
        with self._lock:
            if self._made_up_secret is None:
                logger.warning(
                    "No secret is configured: keys are made for the life of this process, so that every token ends "
                    "with it and other processes accept none of them. Set SECRET_KEY (or JAM__SECRET). %s",
                    _SECRET_ADVICE,
                )
                self._made_up_secret = Secret(secrets.token_bytes(32))
        return self._made_up_secret

    @property
    def access_tokens(self) -> AccessTokens:
        """What issues, verifies and revokes access tokens."""
        if self._access_tokens is None:
            with self._lock:
                if self._access_tokens is None:
                    settings = self.settings
                    self._access_tokens = AccessTokens(
                        self.keys, self.store, settings.access_tokens,
                        name=settings.name, clock=self.clock, events=self.events, refresh=self._refresh_keys,
                    )  # fmt: skip
        return self._access_tokens

    @property
    def api_tokens(self) -> APITokens:
        """What makes, verifies, lists and revokes API tokens."""
        if self._api_tokens is None:
            with self._lock:
                if self._api_tokens is None:
                    settings = self.settings.api_tokens
                    self._api_tokens = APITokens(self.store, settings, clock=self.clock, events=self.events)
        return self._api_tokens

    @property
    def refresh_tokens(self) -> RefreshTokens:
        """What issues, verifies, rotates and revokes refresh tokens."""
        if self._refresh_tokens is None:
            with self._lock:
                if self._refresh_tokens is None:
                    keys = self.derived_keys("refresh tokens HS256", for_tokens=True)
                    self._refresh_tokens = self._families(keys, self.settings.refresh_tokens, "refresh_token")
        return self._refresh_tokens

    @property
    def remember_me(self) -> RefreshTokens:
        """What remembers browsers beyond the end of a session: refresh tokens of a kind of their own."""
        if self._remember_me is None:
            with self._lock:
                if self._remember_me is None:
                    keys = self.derived_keys("remember me HS256")
                    self._remember_me = self._families(keys, self.settings.remember_me, "remember_me")
        return self._remember_me

    @property
    def logins(self) -> Logins:
        """What lists and ends sessions together with the browsers that remember them."""
        if self._logins is None:
            with self._lock:
                if self._logins is None:
                    self._logins = Logins(
                        self.sessions, self.remember_me, self.derived_keys("restored sessions HS512", "HS512").current,
                        store=self.store, clock=self.clock, events=self.events,
                    )  # fmt: skip
        return self._logins

    @property
    def one_time_tokens(self) -> OneTimeTokens:
        """What makes and uses up what a link in a mail carries."""
        if self._one_time_tokens is None:
            with self._lock:
                if self._one_time_tokens is None:
                    self._one_time_tokens = OneTimeTokens(self.store, clock=self.clock, events=self.events)
        return self._one_time_tokens

    def _families(self, keys: KeySet, settings: RefreshTokenSettings | RememberMeSettings, kind: str) -> RefreshTokens:
        tokens, name = self.settings.access_tokens, self.settings.name
        return RefreshTokens(
            keys, self.store, settings, issuer=tokens.issuer or name, audience=tokens.audience or name,
            clock=self.clock, events=self.events, kind=kind,
            ends_on_reuse=("access_token",) if kind == "refresh_token" else (),
        )  # fmt: skip

    @property
    def sessions(self) -> Sessions:
        """What makes, finds, changes and ends sessions."""
        if self._sessions is None:
            with self._lock:
                if self._sessions is None:
                    self._sessions = Sessions(self.store, self.settings.sessions, clock=self.clock, events=self.events)
        return self._sessions

    def revoke_all(self, subject: str | None) -> None:
        """End everything that a subject (``None``: everyone) holds: sessions, access tokens, refresh tokens, API
        tokens, and the browsers that remember them. With ``access_tokens.stateless`` access tokens live on until they
        expire.

        Raises:
            StoreUnavailable: If it could not be done.
        """
        self.revoke(subject, _REVOCABLE)

    def revoke(self, subject: str | None, kinds: tuple[str, ...]) -> None:
        """End what a subject (``None``: everyone) holds of these kinds: ``"session"``, ``"remember_me"``,
        ``"access_token"``, ``"refresh_token"``, ``"api_token"``, ``"one_time_token"``.

        Raises:
            InvalidValue: If there is no such kind.
            StoreUnavailable: If it could not be done.
        """
        if unknown := set(kinds) - set(_REVOCABLE):
            raise InvalidValue(f"There are no credentials of the kind {min(unknown)!r}.")
        now = self.clock()
        self.store.advance(subject, kinds, now)
        self.events.emit(SubjectRevoked(at=now, subject=subject, kinds=kinds))

    # -- short ways -----------------------------------------------------------------------------------------

    def make_payload(self, exp: float | timedelta | None = None, **data: Any) -> dict[str, Any]:
        """A token payload with ``iat``, ``exp`` and ``jti`` filled in.

        Args:
            exp: Seconds from now (or a ``timedelta``) until it expires; the configured lifetime if left out.
            data: The app's own claims.

        Raises:
            InvalidValue: If ``exp`` is not a sensible number of seconds.
        """
        return self.access_tokens.payload(exp, **data)

    def gen_jwt_token(self, payload: Mapping[str, Any]) -> str:
        """A signed token (``typ: JWT``) for ``payload``, with what it lacks of ``iat``, ``exp``, ``jti``, ``iss``
        and ``aud``.

        Raises:
            InvalidValue: If the payload could never be accepted back.
        """
        return self.access_tokens.sign(payload)

    def verify_jwt_token(self, token: str) -> dict[str, Any]:
        """The payload of a good token.

        Raises:
            TokenInvalid: If it is not good; the subclasses say why.
            StoreUnavailable: If revocation cannot be asked about.
        """
        return dict(self.access_tokens.verify(token).payload)

    def create_session(self, session_key: str, data: Mapping[str, Any] | None = None) -> str:
        """Start a session for the subject ``session_key``; returns its handle, which only the client keeps.

        Raises:
            InvalidValue: If the data is not JSON or the subject no string.
        """
        return self.sessions.create(session_key, data)

    def get_session(self, session_id: str) -> dict[str, Any] | None:
        """The data of a live session, or ``None``."""
        session = self.sessions.get(session_id)
        return None if session is None else dict(session.data)

    def update_session(self, session_id: str, data: Mapping[str, Any]) -> None:
        """Merge ``data`` into a session's, key by key.

        Raises:
            SessionInvalid: If there is no live session.
        """
        self.sessions.update(session_id, data)

    def delete_session(self, session_id: str) -> None:
        """End a session; no matter if there is none."""
        self.sessions.delete(session_id)

    def clear_sessions(self, session_key: str) -> None:
        """End every session of the subject ``session_key``."""
        self.sessions.clear(session_key)

    def rework_session(self, session_id: str) -> str:
        """A new handle for a session; the old one is dead from then on.

        Raises:
            SessionInvalid: If there is no live session.
        """
        return self.sessions.rework(session_id)


_all_jams: weakref.WeakSet[Jam] = weakref.WeakSet()


def _after_fork() -> None:
    # Another thread of the parent may have held one at the moment of the fork; here there is none.
    for jam in list(_all_jams):
        jam._lock = threading.RLock()  # noqa: SLF001 - this module's own class


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _disagreement(path: tuple[str, ...]) -> ConfigError:
    name = ".".join(path)
    return ConfigError(
        f"The apps that share this Jam do not agree on {name}, or it was in use before the app set it.",
        hint=f"Give {name} to Jam(...) itself, or make one Jam for each app.",
    )


def _configured_keys(settings: Settings) -> KeySet | None:
    tokens = settings.access_tokens
    public = _configured_public_keys(settings)
    if tokens.private_key is not None:
        return KeySet(_read_key(tokens.private_key.value.decode("utf-8", "replace"), tokens.algorithm), *public)
    if public:
        return KeySet(*public)
    return None


def _configured_public_keys(settings: Settings) -> list[Key]:
    tokens = settings.access_tokens
    return [_read_public_key(text, tokens.algorithm) for text in tokens.public_keys]


def _read_public_key(text: str, algorithm: str | None) -> Key:
    """A key that only verifies. An RSA key in PEM leaves the algorithm open: then it is that of the signing key."""
    key = _read_key(text, None)
    if isinstance(key, RSAKey) and algorithm is not None and algorithm[:2] in ("RS", "PS") and "{" not in text:
        return _read_key(text, algorithm)
    return key


def _read_key(text: str, algorithm: str | None) -> Key:
    """A key from PEM or JWK text, or from the file at that path."""
    source = text.strip()
    if not source.startswith(("-----BEGIN", "{")):
        try:
            source = Path(source).read_text("utf-8").strip()
        except (OSError, ValueError):
            # The text may be a mangled key: it is not repeated.
            raise ConfigError(
                "A configured key is neither PEM, nor JWK, nor the path of a file that can be read."
            ) from None
    return Key.from_jwk(source, algorithm) if source.startswith("{") else Key.from_pem(source, algorithm)
