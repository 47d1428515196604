"""Access tokens: signed JWTs for a short life (RFC 7519, RFC 9068), revocable all the same.

Two kinds pass: ``at+jwt``, which ``issue`` makes with everything RFC 9068 asks for, and plain ``JWT``, made
by ``sign`` from a payload of the app's own. No other ``typ`` does, so that no token made for another purpose
can be used as an access token (RFC 8725 3.11, 3.12).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType

from jam.config import AccessTokenSettings
from jam.crypto.encoding import json_decode_object, json_encode_exactly
from jam.crypto.handles import id_for, new_id
from jam.crypto.jws import MAX_TOKEN_LENGTH, Signer, Verifier
from jam.crypto.keys import KeySet
from jam.errors import (
    ConfigError,
    InvalidKey,
    InvalidValue,
    RecordExists,
    TokenExpired,
    TokenInvalid,
    TokenNotYetValid,
    TokenRevoked,
)
from jam.events import Events, Revoked, SubjectRevoked, TokenIssued
from jam.identity import Identity
from jam.stores.base import REVOKED_TOKEN, Record, Store, check_subject

__all__ = ["REFRESH_EVERY", "AccessTokens"]

REFRESH_EVERY = 10.0  #: seconds after which keys that may change are looked at again
KIND = "access_token"
GENERATION_CLAIM = "jam_gen"  # Jam's one private claim (RFC 7519 4.3); left out while it is 0
_MAX_SEEN = 512  # in each of two halves
_NOBODYS: frozenset[str] = frozenset()
# An identity, when it expires, when it begins, and the id of its revocation.
_Verified = tuple[Identity, float, float, str]
# Set by issue and sign; a caller's extra claims cannot override them.
_OWN_CLAIMS = frozenset({
    "iss", "aud", "sub", "client_id", "iat", "nbf", "exp", "jti",
    "scope", "roles", "auth_time", "amr", GENERATION_CLAIM,
})  # fmt: skip


_Time = Annotated[float, Meta(gt=-1e15, lt=1e15)]  # beyond it arithmetic fails
_NonEmpty = Annotated[str, Meta(min_length=1)]


class _Claims(msgspec.Struct, frozen=True):
    """What Jam reads of a payload, each claim of the type its standard gives it (RFC 7519 4.1, RFC 9068 2.2)."""

    exp: _Time
    iat: _Time
    iss: str
    jti: _NonEmpty
    aud: str | Annotated[tuple[str, ...], Meta(min_length=1)]
    nbf: _Time = 0.0
    sub: Annotated[str, Meta(min_length=1, max_length=255)] | UnsetType = UNSET
    client_id: _NonEmpty | UnsetType = UNSET
    jam_gen: Annotated[int, Meta(ge=0)] = 0
    scope: str = ""
    roles: frozenset[str] = _NOBODYS
    amr: tuple[str, ...] = ()
    auth_time: _Time | UnsetType = UNSET
    type: str = "access"


_DECODE = msgspec.json.Decoder(_Claims).decode


def _read(text: bytes) -> _Claims:
    """The claims of a payload that is strict JSON already.

    Raises:
        TokenInvalid: Naming the claim in its hint.
    """
    try:
        claims = _DECODE(text)
    except msgspec.MsgspecError as error:  # it names types and places, never values
        raise TokenInvalid(hint=f"{error}.") from None
    if claims.sub is not UNSET and "\0" in claims.sub:
        raise TokenInvalid(hint="sub holds NUL.")
    return claims


def encoded_payload(payload: dict[str, Any]) -> bytes:
    """Claims as JSON that every verifier takes.

    Raises:
        InvalidValue: If they are no JSON, or nested too deeply.
    """
    try:
        text = json_encode_exactly(payload)
        json_decode_object(text)  # refuses what is nested too deeply
    except ValueError as error:
        raise InvalidValue("The claims cannot be written as JSON.", hint=f"{error}.") from None
    return text


class AccessTokens:
    """Issues, verifies and revokes access tokens.

    Args:
        keys: What signs and verifies.
        store: Remembers revocations; not asked if ``settings.stateless``.
        settings: Lifetimes, leeway and names.
        name: Stands in for issuer, audience and client id that are not set.
        clock: Seconds since the epoch.
        events: Hears of what is issued and revoked.
        refresh: Gives the keys as they are now, the same object while they are the same. It is asked every
            ``REFRESH_EVERY`` seconds, and before a token is refused that the keys known so far did not sign.
    """

    def __init__(
        self,
        keys: KeySet,
        store: Store,
        settings: AccessTokenSettings,
        *,
        name: str,
        clock: Callable[[], float],
        events: Events,
        refresh: Callable[[], KeySet] | None = None,
    ) -> None:
        self.issuer = settings.issuer or name
        self.audience = settings.audience or name
        self.client_id = settings.client_id or name
        self._settings = settings
        self._store = store
        self._clock = clock
        self._events = events
        self._tools = _tools_of(keys)
        self._refresh = refresh
        self._refresh_at = math.inf if refresh is None else -math.inf
        self._leeway = settings.leeway
        self._max_lifetime = settings.max_lifetime
        self._stateless = settings.stateless
        self._seen: dict[str, _Verified] = {}
        self._seen_before: dict[str, _Verified] = {}

    @property
    def keys(self) -> KeySet:
        """What signs and verifies."""
        return self._tools.keys

    def _look_at_keys(self, now: float) -> _Tools:
        """Take the keys as they are now."""
        tools = self._tools
        if self._refresh is None:
            return tools
        keys = self._refresh()
        if keys is not tools.keys:
            self._tools = tools = _tools_of(keys)
        # Last of all: whoever sees the new time verifies with the new keys.
        self._refresh_at = now + REFRESH_EVERY
        return tools

    def _look_at_keys_in_time(self, now: float) -> None:
        # Both bounds, in case the clock was set back.
        if self._refresh is not None and not now < self._refresh_at <= now + REFRESH_EVERY:
            self._look_at_keys(now)

    # -- making ---------------------------------------------------------------------------------------------

    def issue(
        self,
        subject: str,
        *,
        scopes: Collection[str] = (),
        roles: Collection[str] = (),
        lifetime: float | timedelta | None = None,
        authenticated_at: float | None = None,
        amr: Sequence[str] = (),
        not_before: float | None = None,
        claims: Mapping[str, Any] | None = None,
        headers: Mapping[str, Any] | None = None,
        generation: int | None = None,
    ) -> str:
        """A token of type ``at+jwt`` for ``subject`` (RFC 9068 2.2).

        Args:
            subject: The person or program, by the app's own name for it.
            scopes: What it may be used for; each without spaces.
            roles: Who the subject is to the app.
            lifetime: Seconds or a ``timedelta``; ``settings.lifetime`` if left out.
            authenticated_at: When the person signed in, in seconds since the epoch.
            amr: How (RFC 8176).
            not_before: When it begins to be valid, in seconds since the epoch.
            claims: More claims; those Jam sets itself cannot be among them.
            headers: More JOSE headers; registered ones cannot be among them.
            generation: The subject's generation as read *before* the caller was authenticated; read now if
                left out.

        Raises:
            InvalidValue: If an argument cannot be what it is.
            InvalidKey: If the keys can only verify.
            StoreUnavailable: If the subject's generation cannot be read.
        """
        check_subject(subject)
        if not subject:
            raise InvalidValue("A subject is not empty.")
        if claims is not None and not isinstance(claims, Mapping):
            raise InvalidValue("claims is a mapping.")
        if claims and (taken := _OWN_CLAIMS & claims.keys()):
            raise InvalidValue(f"The claim {min(taken)!r} has an argument of its own.")
        now = int(self._clock())
        payload: dict[str, Any] = {
            "iss": self.issuer, "aud": self.audience, "sub": subject, "client_id": self.client_id,
            "iat": now, "exp": now + self._checked_lifetime(lifetime), "jti": new_id(subject),
        }  # fmt: skip
        generation = self.generation(subject) if generation is None else generation
        if generation.__class__ is not int or generation < 0:
            raise InvalidValue("A generation is what generation() returned.")
        if generation:
            payload[GENERATION_CLAIM] = generation
        if not_before is not None:
            payload["nbf"] = int(checked_number("not_before", not_before))
        if listed := checked_scopes(scopes):
            payload["scope"] = " ".join(listed)
        if listed := checked_names("roles", roles):
            payload["roles"] = listed
        if authenticated_at is not None:
            payload["auth_time"] = int(checked_number("authenticated_at", authenticated_at))
        if listed := checked_names("amr", amr):
            payload["amr"] = listed
        if claims:
            payload.update(claims)
        return self._sign(self._signing_tools(now).at_jwt, payload, headers)

    def payload(self, lifetime: float | timedelta | None = None, /, **data: Any) -> dict[str, Any]:
        """A payload with ``iat``, ``exp`` and ``jti`` filled in, for ``sign``.

        Args:
            lifetime: Seconds from now, or a ``timedelta``; ``settings.lifetime`` if left out.
            data: The app's own claims.
        """
        now = int(self._clock())
        subject = data.get("sub")
        jti = new_id(subject if isinstance(subject, str) else "")
        return {"iat": now, "exp": now + self._checked_lifetime(lifetime), "jti": jti, **data}

    def sign(self, payload: Mapping[str, Any]) -> str:
        """A token of type ``JWT`` for a payload of the app's own; fills in what is missing of ``iat``, ``exp``,
        ``jti``, ``iss`` and ``aud``. What the payload says itself is kept: another audience, say, or an ``exp`` in
        the past.

        Raises:
            InvalidValue: If the payload is not JSON, or a claim has not the type its standard gives it.
            StoreUnavailable: If the subject's generation cannot be read.
        """
        if not isinstance(payload, Mapping) or not all(isinstance(name, str) for name in payload):
            raise InvalidValue("A payload is a mapping whose keys are strings.")
        now = int(self._clock())
        subject = payload.get("sub", "")
        check_subject(subject)
        if "sub" in payload and not subject:
            raise InvalidValue("A subject is not empty.")
        if GENERATION_CLAIM in payload:
            raise InvalidValue(f"The claim {GENERATION_CLAIM} is Jam's own.")
        filled = {**payload}
        filled.setdefault("iat", now)
        filled.setdefault("exp", now + self._checked_lifetime(None))
        filled.setdefault("jti", new_id(subject))
        filled.setdefault("iss", self.issuer)
        filled.setdefault("aud", self.audience)
        if generation := self.generation(subject):
            filled[GENERATION_CLAIM] = generation
        try:
            claims = _read(encoded_payload(filled))
        except TokenInvalid as error:
            raise InvalidValue("A claim has not the type its standard gives it.", hint=error.hint) from None
        if claims.type != "access":
            raise InvalidValue(
                "The claim 'type' says that the token is no access token.",
                hint="Leave it out, or give it another name; a one-time link is no access token.",
            )
        if claims.exp - claims.iat > self._max_lifetime:
            raise InvalidValue(
                "The token would live longer than access_tokens.max_lifetime.",
                hint=f"That is {self._max_lifetime:g} seconds; raise it if such long-lived tokens are meant.",
            )
        return self._sign(self._signing_tools(now).plain_jwt, filled)

    def generation(self, subject: str) -> int:
        """The generation a token for ``subject`` made now belongs to.

        Read it before a password is checked and hand it to ``issue`` afterwards: if the subject is revoked in
        between (by a password change, say), the token is born dead.
        """
        if self._stateless:
            return 0
        check_subject(subject)
        # No token has this id, so that only the subject's mark is asked for.
        return self._store.marks(subject, "", self._clock()).generation(KIND)

    def _signing_tools(self, now: float) -> _Tools:
        self._look_at_keys_in_time(now)
        return self._tools

    def _sign(self, signer: Signer | None, payload: dict[str, Any], headers: Mapping[str, Any] | None = None) -> str:
        if signer is None:
            raise InvalidKey("The configured keys can only verify tokens.", hint="Set access_tokens.private_key.")
        token = signer.sign(encoded_payload(payload), headers)
        if len(token) > MAX_TOKEN_LENGTH:
            raise InvalidValue(f"The token would be longer than {MAX_TOKEN_LENGTH} bytes, which no verifier takes.")
        if self._events:
            self._events.emit(TokenIssued(at=self._clock(), subject=payload.get("sub"), token_id=payload["jti"]))
        return token

    def _checked_lifetime(self, lifetime: float | timedelta | None) -> int:
        if lifetime is None:
            return int(self._settings.lifetime)
        given = lifetime.total_seconds() if isinstance(lifetime, timedelta) else lifetime
        seconds = int(checked_number("lifetime", given))
        if not 1 <= seconds <= self._max_lifetime:
            raise InvalidValue(
                f"A lifetime is 1 to {self._max_lifetime:g} seconds.", hint="access_tokens.max_lifetime sets the limit."
            )
        return seconds

    # -- verifying ------------------------------------------------------------------------------------------

    def verify(self, token: str) -> Identity:
        """Who the token proves the caller to be.

        Raises:
            TokenExpired: If it was good once.
            TokenNotYetValid: If it will be.
            TokenRevoked: If it, or everything of its subject, was revoked.
            TokenInvalid: In every other case.
            StoreUnavailable: If revocation cannot be asked about.
        """
        if not isinstance(token, str):
            raise TokenInvalid
        now = self._clock()
        seen = self._seen.get(token) or self._seen_before.get(token)
        if seen is None:
            self._look_at_keys_in_time(now)
            good_until = self._refresh_at  # asked before the keys are: a removed one is trusted no longer than that
            verified = self._verify_unseen(token)
        else:
            verified = seen
        identity, expires_at, not_before, revocation_id = verified
        # RFC 7519 4.1.4: on or after exp it must not be accepted.
        if expires_at <= now:
            if seen is not None and self._refresh is not None:
                self._forget(token)  # it was remembered until the keys are looked at again, and no longer
                return self.verify(token)
            raise TokenExpired
        if not_before > now:
            raise TokenNotYetValid
        if not self._stateless:
            marks = self._store.marks(identity.subject or "", revocation_id, now)
            if marks.revoked or (marks.generations and identity.generation < marks.generation(KIND)):
                raise TokenRevoked
        if seen is None:
            self._remember(token, verified, good_until)
        if not self._stateless and marks.generations:
            return msgspec.structs.replace(identity, generations=marks.generations)
        return identity

    def claims(self, token: str) -> dict[str, Any]:
        """The claims of a token of ours, expired or revoked or not.

        Raises:
            TokenInvalid: If it is not one of ours.
        """
        return self._ours(token)[0].payload

    def _verify_unseen(self, token: str) -> _Verified:
        """Everything about a token that stays true as long as it is the same token and its key one of ours."""
        identity, claims = self._ours(token)
        if claims.exp - claims.iat > self._max_lifetime:
            raise TokenInvalid(hint="It lives longer than access_tokens.max_lifetime.")
        begins_at = max(claims.nbf, claims.iat)
        revocation_id = "" if self._stateless else id_for(identity.subject or "", claims.jti)
        return identity, claims.exp + self._leeway, begins_at - self._leeway, revocation_id

    def _ours(self, token: str) -> tuple[Identity, _Claims]:
        """The identity and claims of a well-formed token of this app, whatever its times."""
        tools = self._tools
        try:
            typ, _, text = tools.verify(token)
        except TokenInvalid:
            newest = self._look_at_keys(self._clock())
            if newest is tools:
                raise
            typ, _, text = newest.verify(token)
        claims = _read(text)
        if claims.iss != self.issuer:
            raise TokenInvalid(hint="Its iss is another.")
        audience = claims.aud
        if audience != self.audience and (isinstance(audience, str) or self.audience not in audience):
            raise TokenInvalid(hint="Its aud is another.")
        subject = None if claims.sub is UNSET else claims.sub
        client_id = None if claims.client_id is UNSET else claims.client_id
        if claims.type != "access":  # what other libraries say in a claim, Jam says in typ
            raise TokenInvalid(hint="Its type is another: it was made for another purpose.")
        if typ == "at+jwt" and (subject is None or client_id is None):
            raise TokenInvalid(hint="RFC 9068 asks for sub and client_id.")
        scopes = _NOBODYS if claims.scope == "" else frozenset(claims.scope.split(" ")) - {""}
        signed_in_at = None if claims.auth_time is UNSET else claims.auth_time
        identity = Identity(
            subject, "jwt", text, claims.roles, scopes, claims.amr, signed_in_at, claims.exp, claims.jti, client_id,
            claims.jam_gen,
        )  # fmt: skip
        return identity, claims

    def _remember(self, token: str, verified: _Verified, good_until: float) -> None:
        """Skip the cryptography until then; time and revocation are asked about every time all the same."""
        if len(self._seen) >= _MAX_SEEN:
            self._seen, self._seen_before = {}, self._seen
        identity, expires_at, not_before, revocation_id = verified
        self._seen[token] = (identity, min(expires_at, good_until), not_before, revocation_id)

    def _forget(self, token: str) -> None:
        self._seen.pop(token, None)
        self._seen_before.pop(token, None)

    # -- ending ---------------------------------------------------------------------------------------------

    def revoke(self, token: str | Identity) -> None:
        """End one token at once, on every host that shares the store. An expired one is left in peace.

        Args:
            token: The token, or the identity it proved.

        Raises:
            TokenInvalid: If it is not one of ours.
            ConfigError: If ``stateless`` is set: then nobody would ask.
            StoreUnavailable: If it could not be remembered; the token is still good.
        """
        if self._stateless:
            raise ConfigError("With access_tokens.stateless no token can be revoked.", hint="Leave stateless off.")
        if not isinstance(token, Identity):
            token, _ = self._ours(token)
        if token.method != "jwt" or token.credential_id is None or token.expires_at is None:
            raise InvalidValue("The identity was not proved by a token.")
        now = self._clock()
        ends_at = token.expires_at + self._leeway
        if ends_at <= now:
            return
        subject = token.subject or ""
        record = Record(
            kind=REVOKED_TOKEN, id=id_for(subject, token.credential_id), subject=subject,
            created_at=now, touched_at=now, ends_at=ends_at,
        )  # fmt: skip
        try:
            self._store.add(record, now)
        except RecordExists:
            return
        self._events.emit(Revoked(at=now, kind=KIND, subject=token.subject, credential_id=token.credential_id))

    def revoke_all(self, subject: str | None) -> None:
        """End every token of a subject (``None``: of everyone) made so far.

        Raises:
            ConfigError: If ``stateless`` is set.
            StoreUnavailable: If it could not be remembered.
        """
        if self._stateless:
            raise ConfigError("With access_tokens.stateless no token can be revoked.", hint="Leave stateless off.")
        now = self._clock()
        self._store.advance(subject, (KIND,), now)
        self._events.emit(SubjectRevoked(at=now, subject=subject, kinds=(KIND,)))


class _Tools(NamedTuple):
    """What is made of one key set, in one piece: threads take all of it or nothing."""

    keys: KeySet
    at_jwt: Signer | None
    plain_jwt: Signer | None
    verify: Callable[[str], tuple[str, dict[str, Any], bytes]]


def _tools_of(keys: KeySet) -> _Tools:
    signs = keys.current.can_sign
    return _Tools(
        keys,
        Signer(keys, "at+jwt") if signs else None,
        Signer(keys, "JWT") if signs else None,
        Verifier(keys, ("at+jwt", "JWT")).verify,
    )


_NUMBER = (int, float)  # compared by class, because True is an int
_FAR = 1e15  # seconds; beyond it, and for NaN, arithmetic fails
_SCOPE = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")


def _is_time(value: Any) -> bool:
    return value.__class__ in _NUMBER and -_FAR < value < _FAR


def checked_number(name: str, value: float) -> float:
    """A time in seconds.

    Raises:
        InvalidValue: If it is none.
    """
    if not _is_time(value):
        raise InvalidValue(f"{name} is a finite number of seconds.")
    return value


def checked_names(argument: str, names: Collection[str]) -> list[str]:
    """A collection of names as a list.

    Raises:
        InvalidValue: If it is none.
    """
    if not isinstance(names, (str, bytes)) and isinstance(names, Iterable):
        listed = list(names)
        if all(isinstance(name, str) and name for name in listed):
            return listed
    raise InvalidValue(f"{argument} is a collection of non-empty strings.")


def checked_scopes(scopes: Collection[str]) -> list[str]:
    """A collection of scopes as a list.

    Raises:
        InvalidValue: If it is none, or a scope has a character that it must not have (RFC 6749 3.3).
    """
    listed = checked_names("scopes", scopes)
    if not all(_SCOPE.fullmatch(scope) for scope in listed):
        raise InvalidValue("A scope has no space, quotation mark, backslash or exotic character (RFC 6749 3.3).")
    return listed
