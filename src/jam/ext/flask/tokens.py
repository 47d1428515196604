"""Tokens in a view: make them, demand them, read the one that came. The names are those of Flask-JWT-Extended."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

from flask import Request, Response, current_app, request
from flask.globals import request_ctx

from jam.checkpoints import Checkpoint
from jam.credentials.refresh_tokens import is_refresh_token
from jam.crypto.jws import read_header
from jam.errors import (
    AuthenticationRequired,
    ConfigError,
    CSRFFailed,
    FreshnessRequired,
    InvalidValue,
    JamError,
    TokenExpired,
    TokenInvalid,
)
from jam.ext.flask.callbacks import call
from jam.ext.flask.csrf import csrf_token_matches, new_csrf_token
from jam.ext.flask.guards import Guard, enter
from jam.ext.flask.request import JamState, device_of, prepared_state, resolve, state_of
from jam.ext.flask.resolved import ANSWER, Wanted
from jam.ext.flask.settings import LOCATIONS, seconds
from jam.ext.flask.users import TOKEN_METHODS, roles_of, subject_of
from jam.identity import Identity

__all__ = [
    "TokenRequired",
    "create_access_token",
    "create_refresh_token",
    "decode_token",
    "get_csrf_token",
    "get_jti",
    "get_jwt",
    "get_jwt_header",
    "get_jwt_identity",
    "get_jwt_request_location",
    "get_unverified_jwt_headers",
    "jwt_required",
    "revoke_jwt",
    "rotate_refresh_token",
    "verify_jwt_in_request",
]

_OWN_CLAIMS = frozenset(("type", "fresh", "sid"))
LOGIN_ID = "_jam_login_id"


# -- making -------------------------------------------------------------------------------------------------


def create_access_token(
    identity: Any,
    fresh: bool | float | timedelta = False,
    expires_delta: timedelta | float | None = None,
    additional_claims: Mapping[str, Any] | None = None,
    additional_headers: Mapping[str, Any] | None = None,
    *,
    generation: int | None = None,
    amr: Sequence[str] = (),
) -> str:
    """An access token for an identity; see ``AccessTokens.issue``.

    Args:
        identity: A string, or a user with ``get_id()``, or what ``user_identity_loader`` makes a string of.
        fresh: Whether the person has just proved who they are; or for how long that is to count, in seconds or as a
            ``timedelta``.
        expires_delta: The token's lifetime, as a ``timedelta`` or in seconds; ``JWT_ACCESS_TOKEN_EXPIRES`` if left out.
        additional_claims: More claims, instead of those of ``additional_claims_loader``. ``roles`` (a list) and
            ``scope`` (a string) mean what ``HasRole`` and ``HasScope`` ask; registered claims cannot be among them.
        additional_headers: More JOSE headers, instead of those of ``additional_headers_loader``.
        generation: As ``jam.access_tokens.generation(subject)`` gave it *before* the password was checked, so that a
            sign-in that races a password change makes a token that is dead.
        amr: How they have just proved who they are (RFC 8176), for one that is ``fresh``.

    Raises:
        InvalidValue: If an argument cannot be what it is.
        StoreUnavailable: As an ``HTTPException`` in a request, if the subject's generation cannot be read.
    """
    state = prepared_state()
    subject = subject_of(state, identity)
    claims, headers = _additional(state, identity, additional_claims, additional_headers)
    now = state.clock()
    if isinstance(fresh, bool):
        claims["fresh"] = fresh
    else:
        claims["fresh"] = int(now + _positive("fresh", fresh))
    claims["type"] = "access"
    given_roles, scopes = claims.pop("roles", None), claims.pop("scope", "")
    if not isinstance(scopes, str):
        raise InvalidValue("The claim 'scope' is a string of scopes with spaces between them (RFC 8693 4.2).")
    caller = _caller(subject)
    signed_in_at, amr = (now, tuple(amr)) if fresh else _carried_over(caller)
    if (login_id := _login_id(caller)) is not None:
        claims["sid"] = login_id
    roles = _current_roles(state, identity, subject) if given_roles is None else given_roles
    _not_for_caches()
    with state.answering_503():
        return state.jam.access_tokens.issue(
            subject, scopes=scopes.split(), roles=roles, lifetime=_lifetime(expires_delta),
            authenticated_at=signed_in_at, amr=amr, not_before=now if state.lookup.tokens.encode_nbf else None,
            claims=claims, headers=headers,
            generation=_generation(caller, "access_token") if generation is None else generation,
        )  # fmt: skip


def create_refresh_token(
    identity: Any,
    expires_delta: timedelta | float | None = None,
    additional_claims: Mapping[str, Any] | None = None,
    additional_headers: Mapping[str, Any] | None = None,
    *,
    generation: int | None = None,
    amr: Sequence[str] = (),
) -> str:
    """The first refresh token of a new family; see ``RefreshTokens.issue``.

    Args:
        identity: As for ``create_access_token``.
        expires_delta: When the whole family ends, as a ``timedelta`` or in seconds from now;
            ``JWT_REFRESH_TOKEN_EXPIRES`` if left out, and never more than that.
        additional_claims: More claims, in every token of the family; registered ones cannot be among them.
        additional_headers: More JOSE headers, likewise.
        generation: As ``jam.refresh_tokens.generation(subject)`` gave it *before* the password was checked.
        amr: How they have just proved who they are (RFC 8176), if the caller was nobody.

    Raises:
        InvalidValue: If an argument cannot be what it is.
        GenerationOutdated: If the subject was revoked since ``generation`` was read.
        StoreUnavailable: As an ``HTTPException`` in a request, if the family cannot be kept.
    """
    state = prepared_state()
    subject = subject_of(state, identity)
    claims, headers = _additional(state, identity, additional_claims, additional_headers)
    claims["fresh"] = False
    caller = _caller(subject)
    signed_in_at, amr = (state.clock(), tuple(amr)) if caller is None or amr else _carried_over(caller)
    if (login_id := _login_id(caller, always=True)) is not None:
        claims["sid"] = login_id
    _not_for_caches()
    with state.answering_503():
        return state.jam.refresh_tokens.issue(
            subject, lifetime=_lifetime(expires_delta), claims=claims, headers=headers,
            authenticated_at=signed_in_at, amr=amr, details=device_of(request) if request_ctx else None,
            generation=_generation(caller, "refresh_token") if generation is None else generation,
        )  # fmt: skip


def rotate_refresh_token() -> str:
    """The successor of the refresh token that this request brought; for a view with ``jwt_required(refresh=True)``.

    Who presents the same token again within the overlap (``JAM_REFRESH_TOKENS_OVERLAP``, ten seconds) gets the same
    successor; later, that is a theft and ends the family.

    Raises:
        ConfigError: If the view does not demand a refresh token.
        TokenRevoked: If the family ended meanwhile; as an ``HTTPException``.
        StoreUnavailable: As an ``HTTPException``, if nobody can tell.
    """
    state = prepared_state()
    resolved = resolve()
    if resolved.identity.method != "refresh_token" or resolved.credential is None:
        raise ConfigError(
            "rotate_refresh_token() is called where no refresh token was demanded.",
            hint="Guard the view with @jwt_required(refresh=True).",
        )
    _not_for_caches()
    with state.answering_503():
        return state.jam.refresh_tokens.rotate(resolved.credential)


def revoke_jwt(encoded_token: str | None = None) -> None:
    """End a token on the server, at once; a refresh token with its whole family, an access token with the family that
    began in the same sign-in.

    Args:
        encoded_token: The token; the one this request was let in with if left out.

    Raises:
        ConfigError: If the request brought none, or ``access_tokens.stateless`` is set.
        TokenInvalid: If it is no token of this app's.
        StoreUnavailable: As an ``HTTPException`` in a request, if it could not be remembered; the token is still good.
    """
    state = prepared_state()
    if encoded_token is None:
        resolved = resolve()
        if resolved.identity.method not in TOKEN_METHODS or resolved.credential is None:
            raise ConfigError(
                "revoke_jwt() is called where no token came.", hint="Guard the view with @jwt_required()."
            )
        encoded_token = resolved.credential
    with state.answering_503():
        end_token(state, encoded_token)


def end_token(state: JamState, token: str) -> None:
    """End a token, and the refresh tokens of the same sign-in.

    Raises:
        TokenInvalid: If it is no token of this app's.
        ConfigError: If ``access_tokens.stateless`` is set and it is an access token.
        StoreUnavailable: If it could not be remembered.
    """
    if is_refresh_token(token):
        state.jam.refresh_tokens.revoke(token)
        return
    claims = state.jam.access_tokens.claims(token)
    # Also of one that has expired: who comes back to sign out wants the refresh tokens gone.
    if isinstance(login_id := claims.get("sid"), str) and isinstance(subject := claims.get("sub"), str):
        state.jam.refresh_tokens.revoke_login(subject, login_id)
    state.jam.access_tokens.revoke(token)


def _additional(
    state: JamState, identity: Any, claims: Mapping[str, Any] | None, headers: Mapping[str, Any] | None
) -> tuple[dict[str, Any], Mapping[str, Any] | None]:
    """The claims and headers that were given, or else those of the app's loaders."""
    if claims is None and (loader := state.callback("additional_claims_loader")) is not None:
        claims = call(loader, identity)
    if headers is None and (loader := state.callback("additional_headers_loader")) is not None:
        headers = call(loader, identity)
    if claims is not None and not isinstance(claims, Mapping):
        raise InvalidValue("additional_claims is a mapping.")
    if taken := _OWN_CLAIMS & (claims or {}).keys():
        raise InvalidValue(f"The claim {min(taken)!r} is not the caller's to set.")
    return dict(claims or {}), headers


def _not_for_caches() -> None:
    """The response will hold a token (RFC 6749 5.1)."""
    if request_ctx and ANSWER not in request.__dict__:
        resolved = resolve()
        if _no_store not in resolved.changes:
            resolved.changes += (_no_store,)


def _no_store(response: Response) -> None:
    response.headers["Cache-Control"] = "no-store"


def _caller(subject: str) -> Identity | None:
    """The caller, if the token is for them."""
    if not request_ctx:
        return None
    identity = resolve().identity
    return identity if identity.subject == subject else None


def _carried_over(caller: Identity | None) -> tuple[float | None, tuple[str, ...]]:
    """When and how the caller signed in, if their own credential says so: a refresh changes neither."""
    return (None, ()) if caller is None else (caller.authenticated_at, caller.amr)


def _generation(caller: Identity | None, kind: str) -> int | None:
    """The generation that the caller's credential was found good in: what is made for it dies with it.

    ``None`` to read it now.
    """
    if caller is None:
        return None
    if caller.method == "jwt" and kind == "access_token":
        return caller.generation
    if caller.method == "basic":  # if it was Jam that looked at the password
        return caller.generations.get(kind)
    if caller.method == "jwt":
        return None if prepared_state().jam.settings.access_tokens.stateless else caller.generations.get(kind, 0)
    return caller.generations.get(kind, 0) if caller.method in ("refresh_token", "session") else None


def _login_id(caller: Identity | None, *, always: bool = False) -> str | None:
    """What the tokens of one sign-in have in common, so that one can end the others; ``None`` if nothing asks for it.

    Args:
        caller: The caller, if the token is for them.
        always: Also if no route of the app takes refresh tokens.
    """
    if caller is not None and caller.method in TOKEN_METHODS and isinstance(known := caller.payload.get("sid"), str):
        return known
    if not request_ctx or not (always or state_of(current_app).takes_refresh_tokens()):
        return None
    made: str = request.__dict__.setdefault(LOGIN_ID, secrets.token_urlsafe(16))
    return made


def _current_roles(state: JamState, identity: Any, subject: str) -> Collection[str]:
    """The roles of the subject as the app knows them now, if it says."""
    if state.callback("get_user_roles") is None:
        return ()
    user = identity if callable(getattr(identity, "get_id", None)) else None
    if user is None:
        loader = state.callback("user_loader")
        user = None if loader is None else call(loader, subject)
    return () if user is None else sorted(roles_of(state, user) or ())


def _lifetime(expires_delta: timedelta | float | None) -> float | None:
    if isinstance(expires_delta, bool):
        raise InvalidValue(
            "expires_delta is False: a token that never expires can never be trusted again once it has leaked.",
            hint="Give a timedelta. Who should stay signed in gets a refresh token and rotates it.",
        )
    return None if expires_delta is None else seconds(expires_delta)


def _positive(name: str, given: float | timedelta) -> float:
    value = seconds(given) if isinstance(given, (int, float, timedelta)) else -1.0
    if not 0 < value < 1e12:  # noqa: PLR2004 - whoever asks for more means something else
        raise InvalidValue(f"{name} is a positive number of seconds or a timedelta.")
    return value


# -- demanding ----------------------------------------------------------------------------------------------


class TokenRequired(Checkpoint):
    """The caller was proved by a token; for ``jwt_required``, which also says which tokens count.

    Args:
        optional: Let the anonymous pass, too.
        fresh: The token was made with ``fresh``.
        refresh: It is a refresh token.
        verify_type: It is of the one kind and not of the other.
    """

    def __init__(
        self, *, optional: bool = False, fresh: bool = False, refresh: bool = False, verify_type: bool = True
    ) -> None:
        self.optional = optional
        self.fresh = fresh
        self.refresh = refresh
        self.verify_type = verify_type

    def takes_refresh_tokens(self) -> bool:
        """Whether a refresh token may pass."""
        return self.refresh or not self.verify_type

    def refusal(self, identity: Identity, now: float) -> JamError | None:
        """Why not, or ``None``."""
        due = TOKEN_METHODS if not self.verify_type else ("refresh_token" if self.refresh else "jwt",)
        if identity.subject is not None and identity.method in TOKEN_METHODS and identity.method not in due:
            return TokenInvalid(hint="It is a token of the other kind.")
        if identity.subject is None or identity.method not in due:
            return None if self.optional else AuthenticationRequired()
        if self.fresh:
            until = identity.payload.get("fresh")
            if until is not True and (isinstance(until, bool) or not isinstance(until, (int, float)) or until <= now):
                return FreshnessRequired()
        return None

    def protects(self) -> bool:
        """Not if anonymous callers pass."""
        return not self.optional

    def __repr__(self) -> str:
        said = [name for name in ("optional", "fresh", "refresh") if getattr(self, name)]
        told = [f"{name}=True" for name in said] + ([] if self.verify_type else ["verify_type=False"])
        return f"jwt_required({', '.join(told)})"


def jwt_required(
    optional: bool = False,
    fresh: bool = False,
    refresh: bool = False,
    locations: str | Collection[str] | None = None,
    verify_type: bool = True,
) -> Guard:
    """Guard a view: the caller must bring an access token. Written with its parentheses: ``@jwt_required()``.

    Args:
        optional: Let callers without a good token in, as anonymous ones.
        fresh: Demand that the token was made with ``fresh``.
        refresh: Demand a refresh token instead.
        locations: Where to look here, of headers, cookies, query_string and json; everywhere the app looks if left out.
        verify_type: ``False`` takes both kinds, for a view that revokes whatever it is shown.

    Raises:
        ConfigError: If ``locations`` names none of these, or a view was passed.
    """
    return Guard(*_demand(optional, fresh, refresh, locations, verify_type))


def verify_jwt_in_request(
    optional: bool = False,
    fresh: bool = False,
    refresh: bool = False,
    locations: str | Collection[str] | None = None,
    verify_type: bool = True,
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Demand a token of the current request, as ``jwt_required`` does.

    Returns:
        The token's header and payload; ``None`` for an anonymous caller.

    Raises:
        HTTPException: The refusal.
        ConfigError: As for ``jwt_required``.
    """
    checkpoints, wanted = _demand(optional, fresh, refresh, locations, verify_type)
    enter(checkpoints, wanted, raising=True)
    resolved = resolve()
    if resolved.identity.subject is None or resolved.credential is None:
        return None
    return read_header(resolved.credential), resolved.identity.payload


def _demand(
    optional: object, fresh: bool, refresh: bool, locations: str | Collection[str] | None, verify_type: bool
) -> tuple[tuple[TokenRequired], Wanted]:
    if not isinstance(optional, bool):
        raise ConfigError("jwt_required is written with parentheses.", hint="Write @jwt_required() above the view.")
    named = None
    if locations is not None:
        listed = [locations] if isinstance(locations, str) else locations
        if not isinstance(listed, (list, tuple, set, frozenset)) or not all(one in LOCATIONS for one in listed):
            listed = ()
        named = frozenset(listed)
        if not named:
            raise ConfigError(f"locations lists some of {', '.join(LOCATIONS)}.")
    methods = TOKEN_METHODS if not verify_type else frozenset(("refresh_token" if refresh else "jwt",))
    demanded = TokenRequired(optional=optional, fresh=fresh, refresh=refresh, verify_type=verify_type)
    return (demanded,), Wanted(methods, named)


# -- reading ------------------------------------------------------------------------------------------------


def get_jwt() -> dict[str, Any]:
    """The claims of the token that this request was let in with; empty for a caller without."""
    identity = resolve().identity
    return identity.payload if identity.method in TOKEN_METHODS else {}


def get_jwt_header() -> dict[str, Any]:
    """The JOSE header of that token; empty for a caller without."""
    resolved = resolve()
    if resolved.identity.method not in TOKEN_METHODS or resolved.credential is None:
        return {}
    return read_header(resolved.credential)


def get_jwt_identity() -> str | None:
    """The subject of that token; ``None`` for a caller without."""
    identity = resolve().identity
    return identity.subject if identity.method in TOKEN_METHODS else None


def get_jwt_request_location() -> str | None:
    """Where that token was: headers, cookies, query_string or json; ``None`` for a caller without."""
    resolved = resolve()
    return resolved.location if resolved.identity.method in TOKEN_METHODS else None


def decode_token(encoded_token: str, csrf_value: str | None = None, allow_expired: bool = False) -> dict[str, Any]:
    """The claims of a good access or refresh token of this app.

    Args:
        encoded_token: The token.
        csrf_value: The double-submit value that must belong to it, if any is to be checked.
        allow_expired: Take one that has expired, too; whether it was revoked is not asked of such.

    Raises:
        TokenInvalid: If it is not good; the subclasses say why.
        CSRFFailed: If the value does not belong to it.
        StoreUnavailable: If revocation cannot be asked about.
    """
    jam = prepared_state().jam
    source = jam.refresh_tokens if is_refresh_token(encoded_token) else jam.access_tokens
    try:
        claims = source.verify(encoded_token).payload
    except TokenExpired:
        if not allow_expired:
            raise
        claims = source.claims(encoded_token)
    if csrf_value is not None and not csrf_token_matches(prepared_state().csrf_keys(), encoded_token, csrf_value):
        raise CSRFFailed("The double-submit value does not belong to the token.")
    return claims


def get_jti(encoded_token: str) -> str | None:
    """The token's name: its ``jti``, be it expired or not.

    Raises:
        TokenInvalid: If it is none of this app's.
    """
    name: str | None = claims_of(prepared_state(), encoded_token).get("jti")
    return name


def get_csrf_token(encoded_token: str) -> str:
    """A double-submit value for a token that is kept in a cookie: a new one each time, all of them good.

    Raises:
        TokenInvalid: If it is no token of this app's.
    """
    state = prepared_state()
    claims_of(state, encoded_token)
    return new_csrf_token(state.csrf_keys(), encoded_token)


def get_unverified_jwt_headers(encoded_token: str) -> dict[str, Any]:
    """The token's JOSE header, whoever wrote it.

    Raises:
        TokenInvalid: If it has none.
    """
    return read_header(encoded_token)


def claims_of(state: JamState, token: str) -> dict[str, Any]:
    """The claims of an access or refresh token of this app, be it expired, revoked or not.

    Raises:
        TokenInvalid: If it is none.
    """
    source = state.jam.refresh_tokens if is_refresh_token(token) else state.jam.access_tokens
    return source.claims(token)


def refused_token(state: JamState, request: Request) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of the token that this request was refused with, for the app's own answers.

    Both are empty if there is none of ours.
    """
    resolved = state.resolve(request)
    try:
        token = resolved.credential or ""
        return read_header(token), claims_of(state, token)
    except TokenInvalid:
        return {}, {}
