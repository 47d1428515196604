"""Refresh tokens: used once each, in families that a server remembers (RFC 9700 4.14.2, RFC 6749 1.5).

A family is one record, with the number of its current token in it. Rotation moves the number on by a ``swap``, so
that of many callers at once one wins; whoever presents the same token within a short overlap (a second tab, a lost
response) is given the same successor, byte for byte. Presented later, a token that was superseded is in two
hands: the family dies. Nothing secret is in the record: a token is a JWT that names its family and number.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

import msgspec

from jam.config import RefreshTokenSettings, RememberMeSettings
from jam.credentials.access_tokens import checked_names, checked_number, encoded_payload
from jam.crypto.encoding import json_decode_object
from jam.crypto.handles import ID, new_id
from jam.crypto.jws import MAX_TOKEN_LENGTH, Signer, Verifier, read_header
from jam.crypto.keys import KeySet
from jam.errors import (
    ConcurrentUpdate,
    GenerationOutdated,
    InvalidValue,
    RefreshTokenReused,
    TokenExpired,
    TokenInvalid,
    TokenRevoked,
)
from jam.events import Event, Events, FamilyEnded, FamilyStarted, RefreshReused, RefreshRotated, SubjectRevoked
from jam.identity import Identity
from jam.stores.base import MAX_LIST, Found, Record, Store, check_page, check_subject, touch_is_due

__all__ = ["Family", "RefreshTokens", "is_refresh_token"]

REGISTERED_CLAIMS = frozenset(
    {"iss", "aud", "sub", "iat", "nbf", "exp", "jti", "client_id", "auth_time", "amr", "type"}
)
_JTI = re.compile(rf"({ID.pattern})\.([1-9][0-9]{{0,14}})", re.ASCII)
_MAX_ATTEMPTS = 100
_MAX_PAUSE = 0.02
_MAX_REMEMBERED = 32  # successors within one overlap; whoever needs more is no browser
_GROWTH = 24  # bytes by which a family's tokens grow with their number
_TOUCH_AFTER = 3600.0


class _Claims(msgspec.Struct, frozen=True):
    iss: str
    aud: str
    sub: str
    exp: float
    jti: str


_DECODE = msgspec.json.Decoder(_Claims).decode


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """What may be shown of a family of refresh tokens. Times are in seconds since the epoch.

    Attributes:
        id: Its public name, for lists and logs.
        subject: Whose it is.
        created_at: When its first token was made.
        rotated_at: When its current token was made.
        ends_at: When it ends; rotation does not extend it.
        authenticated_at: When the person proved who they are, if that was said.
        amr: How (RFC 8176).
        details: What else its maker wanted to show: a device's name, say.
        login_id: What it has in common with other tokens of the same sign-in, their claim ``sid``; if anything.
    """

    id: str
    subject: str
    created_at: float
    rotated_at: float
    ends_at: float
    authenticated_at: float | None
    amr: tuple[str, ...]
    details: Mapping[str, Any]
    login_id: str | None = None


class RefreshTokens:
    """Makes, verifies, rotates and ends families of one kind of token.

    Args:
        keys: HMAC keys for this kind alone: with them the same successor can be made again byte for byte.
        store: Where the families are.
        settings: How long they live, and the overlap.
        issuer: ``iss`` of the tokens.
        audience: ``aud`` of the tokens.
        clock: Seconds since the epoch.
        events: Hears of what happens to families.
        kind: The kind of record, and of the identity that a token proves; the ``typ`` of the tokens comes of it.
        ends_on_reuse: What else of a subject's is ended when a used token comes back: whoever has it has what came of
            it, too.
    """

    def __init__(
        self,
        keys: KeySet,
        store: Store,
        settings: RefreshTokenSettings | RememberMeSettings,
        *,
        issuer: str,
        audience: str,
        clock: Callable[[], float],
        events: Events,
        kind: str = "refresh_token",
        ends_on_reuse: Collection[str] = (),
    ) -> None:
        self.kind = kind
        self._ends_on_reuse = tuple(ends_on_reuse)
        self._section = "remember_me" if isinstance(settings, RememberMeSettings) else "refresh_tokens"
        self._store = store
        self._settings = settings
        self._issuer = issuer
        self._audience = audience
        self._clock = clock
        self._events = events
        typ = kind.removesuffix("_token").replace("_", "-") + "+jwt"
        self._signer = Signer(keys, typ)
        self._verify_signature = Verifier(keys, (typ,)).verify
        idle_for = settings.idle_for
        self._touch_after = None if idle_for is None else min(_TOUCH_AFTER, idle_for / 10)

    # -- making ---------------------------------------------------------------------------------------------

    def issue(
        self,
        subject: str,
        *,
        lifetime: float | timedelta | None = None,
        claims: Mapping[str, Any] | None = None,
        headers: Mapping[str, Any] | None = None,
        authenticated_at: float | None = None,
        amr: Sequence[str] = (),
        details: Mapping[str, Any] | None = None,
        generation: int | None = None,
    ) -> str:
        """The first token of a new family.

        Args:
            subject: Whose it is.
            lifetime: Seconds, or a ``timedelta``, until the whole family ends; ``settings.lifetime`` if left out.
            claims: More claims, in every token of the family; those Jam sets itself cannot be among them.
            headers: More JOSE headers, likewise.
            authenticated_at: When the person proved who they are, in seconds since the epoch.
            amr: How (RFC 8176).
            details: What to show of it in lists; not in the token.
            generation: The subject's generation as read *before* the caller was authenticated; read now if
                left out.

        Raises:
            InvalidValue: If an argument cannot be what it is.
            GenerationOutdated: If the subject was revoked since ``generation`` was read.
            StoreUnavailable: If nothing could be kept.
        """
        check_subject(subject)
        if not subject:
            raise InvalidValue("A subject is not empty.")
        for name, given in (("claims", claims), ("headers", headers), ("details", details)):
            if given is not None and not isinstance(given, Mapping):
                raise InvalidValue(f"{name} is a mapping.")
        if taken := REGISTERED_CLAIMS & (claims or {}).keys():
            raise InvalidValue(f"The claim {min(taken)!r} is not the caller's to set.")
        if generation is not None and generation.__class__ is not int:
            raise InvalidValue("A generation is what generation() returned.")
        now = self._clock()
        data: dict[str, Any] = {"made": [[1, now]]}
        if authenticated_at is not None:
            data["auth_time"] = int(checked_number("authenticated_at", authenticated_at))
        if details:
            encoded_payload(dict(details))  # what is nested too deeply could not be read again
        methods = checked_names("amr", amr)
        for name, value in (("amr", methods), ("claims", claims), ("headers", headers), ("details", details)):
            if value:
                data[name] = dict(value) if isinstance(value, Mapping) else value
        record = Record(
            kind=self.kind, id=new_id(subject), subject=subject,
            generation=self.generation(subject) if generation is None else generation,
            data=data, created_at=now, touched_at=now,
            idle_for=self._settings.idle_for, ends_at=float(int(now) + self._checked_lifetime(lifetime)),
        )  # fmt: skip
        token = self._token(record, 1)
        if len(token) > MAX_TOKEN_LENGTH - _GROWTH:
            raise InvalidValue(f"The token would be longer than {MAX_TOKEN_LENGTH - _GROWTH} bytes.")
        self._store.add(record, now)
        self._emit(FamilyStarted, record)
        return token

    def generation(self, subject: str) -> int:
        """The generation a family for ``subject`` made now belongs to; see ``Sessions.generation``."""
        check_subject(subject)
        return self._store.marks(subject, "", self._clock()).generation(self.kind)

    def _checked_lifetime(self, lifetime: float | timedelta | None) -> int:
        given = self._settings.lifetime if lifetime is None else lifetime
        seconds = given.total_seconds() if isinstance(given, timedelta) else given
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise InvalidValue("A lifetime is a number of seconds.")
        if not 1 <= seconds <= self._settings.lifetime:
            raise InvalidValue(
                f"A family lives for 1 to {self._settings.lifetime:g} seconds.",
                hint=f"{self._section}.lifetime sets the limit.",
            )
        return int(seconds)

    def _token(self, record: Record, number: int) -> str:
        """The family's token of that number: always the same."""
        data = record.data
        payload: dict[str, Any] = {
            "iss": self._issuer, "aud": self._audience, "sub": record.subject,
            "iat": int(_made(record)[number]), "exp": int(record.ends_at), "jti": f"{record.id}.{number}",
            "type": self.kind.removesuffix("_token"),
        }  # fmt: skip
        for name in ("auth_time", "amr"):
            if name in data:
                payload[name] = data[name]
        payload.update(data.get("claims", {}))
        return self._signer.sign(encoded_payload(payload), data.get("headers"))

    # -- verifying ------------------------------------------------------------------------------------------

    def verify(self, token: str) -> Identity:
        """Who the token proves the caller to be. Does not rotate it.

        Raises:
            TokenExpired: If the family has reached its end.
            RefreshTokenReused: If the token was superseded longer ago than the overlap; its family is dead now.
            TokenRevoked: If the family was ended, or everything of its subject was.
            TokenInvalid: In every other case.
            StoreUnavailable: If nobody can tell.
        """
        return self.standing(token)[0]

    def standing(self, token: str) -> tuple[Identity, int, int]:
        """As ``verify``; besides the identity, the token's number and the current one in its family."""
        payload, text, family_id, number = self._read(token)
        now = self._clock()
        if payload.exp <= now:
            raise TokenExpired
        found = self._standing(family_id, number, payload.sub, now)
        record, data = found.record, found.record.data
        identity = Identity(
            record.subject, self.kind, text, amr=tuple(data.get("amr", ())), authenticated_at=data.get("auth_time"),
            expires_at=record.ends_at, credential_id=record.id, generation=record.generation, fresh=False,
            generations=found.generations,
        )  # fmt: skip
        return identity, number, max(_made(record))

    def claims(self, token: str) -> dict[str, Any]:
        """The claims of a token of ours, expired, superseded or revoked or not.

        Raises:
            TokenInvalid: If it is not one of ours.
        """
        return json_decode_object(self._read(token)[1])

    def family_of(self, token: str) -> str:
        """The public name of the family of a token of ours, whatever became of it.

        Raises:
            TokenInvalid: If it is not one of ours.
        """
        return self._read(token)[2]

    def _read(self, token: str) -> tuple[_Claims, bytes, str, int]:
        """Claims, their text, family and number of a token that we signed."""
        _, _, text = self._verify_signature(token)
        try:
            claims = _DECODE(text)
        except msgspec.MsgspecError as error:
            raise TokenInvalid(hint=f"{error}.") from None
        name = _JTI.fullmatch(claims.jti)
        if name is None or claims.iss != self._issuer or claims.aud != self._audience:
            raise TokenInvalid
        return claims, text, name[1], int(name[2])

    def _standing(self, family_id: str, number: int, subject: str, now: float) -> Found:
        """The family, if its token of that number is still good for something."""
        found = self._store.get(self.kind, family_id, now)
        if found is None or found.record.subject != subject:
            raise TokenRevoked
        record = found.record
        made = _made(record)
        current = max(made)
        if number > current:  # the store was set back to an older state: nobody can tell who else has this number
            raise TokenRevoked
        if number < current and not self._overlaps(made, number, now):
            oldest = min(made)
            if len(made) > _MAX_REMEMBERED and number < oldest and self._is_recent(made[oldest], now):
                raise TokenRevoked  # so many were made at once that this one was forgotten: no proof of a theft
            if self._ends_on_reuse:  # before the family, so that a failure leaves somebody to find out again
                self._store.advance(subject, self._ends_on_reuse, now)
            if self._store.take(self.kind, family_id, now) is not None:
                self._emit(RefreshReused, record)
                if self._ends_on_reuse:
                    self._events.emit(SubjectRevoked(at=now, subject=subject, kinds=self._ends_on_reuse))
            raise RefreshTokenReused
        if touch_is_due(record, now, self._touch_after):
            self._store.get(self.kind, family_id, now, self._touch_after)
        return found

    def _overlaps(self, made: Mapping[int, float], number: int, now: float) -> bool:
        superseded_at = made.get(number + 1)
        return superseded_at is not None and self._is_recent(superseded_at, now)

    def _is_recent(self, at: float, now: float) -> bool:
        return abs(now - at) < self._settings.overlap  # a clock that lags, or goes back, gives no longer overlap

    # -- rotating -------------------------------------------------------------------------------------------

    def rotate(self, token: str) -> str:
        """The token's successor: of callers at once one makes it, and all within the overlap get the same.

        Raises:
            ConcurrentUpdate: If others kept changing the family and nothing was written.
            TokenInvalid, StoreUnavailable: As for ``verify``.
        """
        payload, _, family_id, number = self._read(token)
        for attempt in range(_MAX_ATTEMPTS):
            now = self._clock()
            if payload.exp <= now:
                raise TokenExpired
            record = self._standing(family_id, number, payload.sub, now).record
            made = _made(record)
            if number < max(made):
                return self._token(record, number + 1)
            # Of those before it are kept the ones that somebody may still be given again.
            kept = [[n, at] for n, at in made.items() if self._is_recent(at, now)]
            made_now = [*kept[-_MAX_REMEMBERED:], [number + 1, now]]
            changed = msgspec.structs.replace(record, data={**record.data, "made": made_now})
            try:
                swapped = self._store.swap(record, changed, now)
            except GenerationOutdated:
                raise TokenRevoked from None
            if swapped is not None:
                self._emit(RefreshRotated, record)
                return self._token(changed, number + 1)
            time.sleep(random.uniform(0, min(_MAX_PAUSE, 0.001 * attempt)))  # noqa: S311 - spreads the retries
        raise ConcurrentUpdate

    # -- ending ---------------------------------------------------------------------------------------------

    def revoke(self, token: str | Identity) -> bool:
        """End the family of a token, whichever of its tokens it is; ``False`` if it has ended already.

        Raises:
            TokenInvalid: If it is not one of ours.
            InvalidValue: If the identity was proved otherwise.
            StoreUnavailable: If it could not be ended.
        """
        if isinstance(token, Identity):
            if token.method != self.kind or token.credential_id is None:
                raise InvalidValue("The identity was not proved by a token of this kind.")
            family_id = token.credential_id
        else:
            _, _, family_id, _ = self._read(token)
        return self._end(family_id, None)

    def revoke_by_id(self, subject: str, family_id: str) -> bool:
        """End one of a subject's own families by its public name; ``False`` if it is not theirs (ASVS 8.2.2)."""
        if not isinstance(subject, str) or not isinstance(family_id, str) or not ID.fullmatch(family_id):
            return False
        return self._end(family_id, subject)

    def revoke_login(self, subject: str, login_id: str) -> bool:
        """End the families of a subject that began in one sign-in; ``False`` if there are none.

        Raises:
            StoreUnavailable: If one could not be ended.
        """
        after, ended = "", False
        while page := self.list(subject, after, MAX_LIST):
            for family in page:
                if family.login_id == login_id:
                    ended = self._end(family.id, subject) or ended
            after = page[-1].id
        return ended

    def _end(self, family_id: str, subject: str | None) -> bool:
        now = self._clock()
        found = self._store.get(self.kind, family_id, now)
        if found is None or (subject is not None and found.record.subject != subject):
            return False
        if self._store.take(self.kind, family_id, now) is None:
            return False
        self._emit(FamilyEnded, found.record)
        return True

    def revoke_all(self, subject: str | None) -> None:
        """End every family of a subject (``None``: of everyone).

        Raises:
            StoreUnavailable: If it could not be done.
        """
        now = self._clock()
        self._store.advance(subject, (self.kind,), now)
        self._events.emit(SubjectRevoked(at=now, subject=subject, kinds=(self.kind,)))

    def list(self, subject: str, after: str = "", limit: int = 100) -> Sequence[Family]:
        """A page of the subject's live families, ordered by id.

        Args:
            subject: Whose.
            after: The last id of the page before.
            limit: At most so many, 1 to 1000.

        Raises:
            InvalidValue: If an argument cannot be what it is.
            StoreUnavailable: If nobody can tell.
        """
        check_subject(subject)
        check_page(after, limit)
        return [
            Family(
                id=record.id, subject=record.subject, created_at=record.created_at,
                rotated_at=_made(record)[max(_made(record))], ends_at=record.ends_at,
                authenticated_at=record.data.get("auth_time"), amr=tuple(record.data.get("amr", ())),
                details=record.data.get("details", {}), login_id=record.data.get("claims", {}).get("sid"),
            )
            for record in self._store.list(subject, self.kind, self._clock(), after, limit)
        ]  # fmt: skip

    def _emit(self, event: type[Event], record: Record) -> None:
        if self._events:
            about: Any = {"at": self._clock(), "kind": self.kind, "subject": record.subject, "family_id": record.id}
            self._events.emit(event(**about))


def is_refresh_token(token: str) -> bool:
    """Whether a token says of itself that it is a refresh token; nobody has verified that."""
    try:
        typ = read_header(token).get("typ")
    except TokenInvalid:
        return False
    return isinstance(typ, str) and typ.lower().removeprefix("application/") == "refresh+jwt"


def _made(record: Record) -> dict[int, float]:
    """When the family's tokens were made, by number: the current one, and those whose successors may be asked for."""
    numbers: Collection[Any] = record.data["made"]
    return {number: at for number, at in numbers}  # noqa: C416 - a dict of typed pairs
