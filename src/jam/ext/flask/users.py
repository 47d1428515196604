"""The app's own user behind an identity: ``current_user``, the callbacks that find it, and the mix-ins for models.

Jam knows subjects; the app knows users. Where the app says how to find them (``user_loader``), a credential whose user
is gone or not active proves nobody: deleting somebody takes effect with the next request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from flask import Request
from flask.globals import request_ctx
from werkzeug.local import LocalProxy

from jam.crypto.jws import read_header
from jam.errors import ClaimsRefused, ConfigError, InvalidValue, TokenRevoked, UserInactive, UserUnknown
from jam.ext.flask.callbacks import call
from jam.ext.flask.request import JamState, resolve, state_of
from jam.ext.flask.resolved import RESOLVED, Resolved, current_context
from jam.identity import ANONYMOUS, Identity

__all__ = ["AnonymousUserMixin", "UserMixin", "current_user", "get_current_user", "subject_of", "vet"]

TOKEN_METHODS = frozenset(("jwt", "refresh_token"))


class UserMixin:
    """What Jam asks of an app's user, for models that have an ``id``.

    ``is_active`` may be a column or a property of the model's own; a user who is not active is answered 403.
    """

    __hash__ = object.__hash__

    @property
    def is_active(self) -> bool:
        """Whether the person may use the app at all."""
        return True

    @property
    def is_authenticated(self) -> bool:
        """``True``: this is somebody."""
        return True

    @property
    def is_anonymous(self) -> bool:
        """``False``: this is somebody."""
        return False

    def get_id(self) -> str:
        """The subject of this user's credentials.

        Raises:
            InvalidValue: If the model has no ``id``.
        """
        own_id: object = getattr(self, "id", None)
        if own_id is None:
            raise InvalidValue("A user without an id cannot sign in.", hint="Save it first, or define get_id().")
        return str(own_id)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, UserMixin):
            return NotImplemented
        if getattr(self, "id", None) is None and type(self).get_id is UserMixin.get_id:
            return self is other  # not saved yet
        return self.get_id() == other.get_id()


class AnonymousUserMixin:
    """The user of an anonymous request; false as a truth value."""

    @property
    def is_active(self) -> bool:
        """``False``."""
        return False

    @property
    def is_authenticated(self) -> bool:
        """``False``."""
        return False

    @property
    def is_anonymous(self) -> bool:
        """``True``."""
        return True

    def get_id(self) -> None:
        """``None``: nobody has no id."""
        return

    def __bool__(self) -> bool:
        return False


def subject_of(state: JamState, identity: Any) -> str:
    """The subject that an identity given by the app stands for: a string, or a user.

    Raises:
        InvalidValue: If it is neither.
    """
    loader = state.callback("user_identity_loader")
    if loader is not None:
        identity = call(loader, identity)
    elif not isinstance(identity, str) and callable(get_id := getattr(identity, "get_id", None)):
        identity = get_id()
    if not isinstance(identity, str) or not identity:
        raise InvalidValue(
            f"An identity is a non-empty string or a user with get_id(), not {type(identity).__name__}.",
            hint="Pass str(user.id), or define a user_identity_loader.",
        )
    return identity


def vet(state: JamState, resolved: Resolved) -> None:
    """Ask the app about a caller whose credential is good: is it blocked, is there such a user, which roles?

    Raises:
        TokenRevoked, ClaimsRefused, UserUnknown, UserInactive: If the app says no.
        ConfigError: If one of its functions does not say yes or no.
    """
    identity = resolved.identity
    is_token = identity.method in TOKEN_METHODS
    lookup = state.callback("user_lookup_loader") if is_token else None
    if is_token:
        blocked, good = state.callback("token_in_blocklist_loader"), state.callback("token_verification_loader")
        if blocked is not None and _yes_or_no("token_in_blocklist_loader", call(blocked, *_token_parts(resolved))):
            raise TokenRevoked
        if good is not None and not _yes_or_no("token_verification_loader", call(good, *_token_parts(resolved))):
            raise ClaimsRefused
    if identity.subject is None:
        return
    loader = state.callback("user_loader")
    if lookup is not None:
        user = call(lookup, *_token_parts(resolved))
    elif loader is not None:
        user = call(loader, identity.subject)
    else:
        return
    admit(state, resolved, user)


def admit(state: JamState, resolved: Resolved, user: Any) -> None:
    """Let a caller be this user, with the roles that the app gives it now.

    Raises:
        UserUnknown, UserInactive: If there is none, or the app does not want it.
    """
    if user is None or user is False:
        raise UserUnknown
    if not says(user, "is_active"):
        raise UserInactive
    if not says(user, "is_authenticated"):
        raise UserUnknown
    resolved.user = user
    resolved.identity = with_roles(state, resolved.identity, user)


def assume(state: JamState, request: Request, subject: str, method: str = "session") -> None:
    """Take the caller of a request to be a subject, with the user and roles that the app knows for it."""
    resolved = Resolved(Identity(subject, method, b'{"fresh":true}', authenticated_at=state.clock()))
    loader = state.callback("user_loader")
    if loader is not None:
        try:
            admit(state, resolved, call(loader, subject))
        except (UserUnknown, UserInactive) as error:
            resolved = Resolved(ANONYMOUS, error)
    setattr(request, RESOLVED, resolved)


def says(user: Any, name: str) -> bool:
    """What a user says of itself, be it by an attribute or by a method; true if it says nothing."""
    try:
        answer = getattr(user, name)
        return bool(answer() if callable(answer) else answer)
    except AttributeError as error:
        if not hasattr(type(user), name) and name not in getattr(user, "__dict__", ()):
            return True
        raise RuntimeError(f"{type(user).__name__}.{name} raised AttributeError: {error}") from error


def with_roles(state: JamState, identity: Identity, user: Any) -> Identity:
    """The identity with the roles and scopes that the app gives this user now, if it says (ASVS 8.3.2).

    Scopes are only lost by that, never gained, and an API token gains no roles either.
    """
    scopes = scopes_of(state, user)
    if scopes is not None and not identity.scopes <= scopes:
        identity = msgspec.structs.replace(identity, scopes=identity.scopes & scopes)
    roles = roles_of(state, user)
    if roles is None:
        return identity
    return msgspec.structs.replace(identity, roles=roles & identity.roles if identity.method == "api_token" else roles)


def roles_of(state: JamState, user: Any) -> frozenset[str] | None:
    """What the app's ``get_user_roles`` says; ``None`` if there is none.

    Raises:
        ConfigError: If it does not give a collection of names.
    """
    return _names_from(state, "get_user_roles", user)


def scopes_of(state: JamState, user: Any) -> frozenset[str] | None:
    """What the app's ``get_user_scopes`` says; ``None`` if there is none.

    Raises:
        ConfigError: If it does not give a collection of names.
    """
    return _names_from(state, "get_user_scopes", user)


def _names_from(state: JamState, name: str, user: Any) -> frozenset[str] | None:
    function = state.callback(name)
    if function is None:
        return None
    found = call(function, user)
    try:
        names = frozenset((found,) if isinstance(found, str) else (found or ()))
    except TypeError:
        names = None
    if names is None or not all(isinstance(one, str) and one for one in names):
        raise ConfigError(f"{name} gives a collection of non-empty names.")
    return names


def _token_parts(resolved: Resolved) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Header and payload of the token that was verified, each a new dict."""
    return read_header(resolved.credential or ""), resolved.identity.payload


def _yes_or_no(name: str, answer: object) -> bool:
    if not isinstance(answer, (bool, int)):
        raise ConfigError(f"{name} gave {type(answer).__name__}, which is neither True nor False.")
    return bool(answer)


def get_current_user() -> Any:
    """The user of the current request: the app's own object, or an anonymous one.

    Raises:
        ConfigError: If somebody is calling and the app has not said how to find its users.
    """
    if not request_ctx:
        return AnonymousUserMixin()
    resolved = resolve()
    user = resolved.user
    if user is not None:
        return user
    context = current_context()
    state = state_of(context.app)
    identity = resolved.identity
    if identity.subject is None:
        user = (state.callback("anonymous_user") or AnonymousUserMixin)()
    else:
        lookup = state.callback("user_lookup_loader") if resolved.credential and identity.method == "jwt" else None
        loader = state.callback("user_loader")
        if lookup is None and loader is None:
            raise ConfigError(
                "current_user is asked for and the app has not said how to find its users.",
                hint="Decorate a function with @extension.user_loader; current_identity.subject needs none.",
            )
        user = call(lookup, *_token_parts(resolved)) if lookup is not None else call(loader, identity.subject)  # type: ignore[arg-type]
        if user is None:
            user = (state.callback("anonymous_user") or AnonymousUserMixin)()
    resolved.user = user
    return user


current_user: Any = LocalProxy(get_current_user)
"""The user of the current request; the anonymous one for nobody."""
