"""API tokens: what scripts hold, ``jam_<id>_<secret><checksum>``, made by people who are signed in.

A token is a record, so that it can be listed, renamed and revoked at any time, and it always has an end. Neither it
nor its secret part is kept: it is shown once. The form is described in ``jam.crypto.handles``.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta

import msgspec

from jam.config import APITokenSettings
from jam.credentials.access_tokens import checked_names, checked_number, checked_scopes
from jam.crypto.encoding import json_encode
from jam.crypto.handles import ID, bucket_of, matches, new_api_token, split_api_token
from jam.errors import (
    AccessDenied,
    APITokenInvalid,
    ConcurrentUpdate,
    GenerationOutdated,
    InvalidValue,
    MethodRequired,
    RoleRequired,
    ScopeRequired,
)
from jam.events import APITokenCreated, Events, Revoked, SubjectRevoked
from jam.identity import Identity
from jam.stores.base import Found, Record, Store, check_page, check_subject, touch_is_due

__all__ = ["APIToken", "APITokens", "is_api_token"]

KIND = "api_token"
_MAX_NAME = 100
_MAX_TOKENS = 100  # live ones of one subject
_NEVER = 0.0  # when a token was last used that was not
_TOUCH_AFTER = 60.0
_MAX_ATTEMPTS = 100
_MAX_PAUSE = 0.02


class APIToken(msgspec.Struct, frozen=True, kw_only=True):
    """What may be shown of an API token; the token is not in it. Times are in seconds since the epoch.

    Attributes:
        id: Its public name, for lists and logs.
        subject: Whose it is.
        name: What its owner calls it.
        scopes: The scopes it carries.
        roles: The roles it carries.
        created_at: When it was made.
        last_used_at: When it was last used, give or take a minute; ``None`` if it never was.
        ends_at: When it ends; use does not extend it.
    """

    id: str
    subject: str
    name: str
    scopes: frozenset[str]
    roles: frozenset[str]
    created_at: float
    last_used_at: float | None
    ends_at: float


class APITokens:
    """Makes, verifies, lists, renames and revokes API tokens.

    Args:
        store: Where they are kept.
        settings: How long they live.
        clock: Seconds since the epoch.
        events: Hears of what is made and revoked.
    """

    def __init__(self, store: Store, settings: APITokenSettings, *, clock: Callable[[], float], events: Events) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._events = events

    # -- making ---------------------------------------------------------------------------------------------

    def create(
        self,
        subject: str,
        name: str,
        *,
        scopes: Collection[str] = (),
        roles: Collection[str] = (),
        creator: Identity | None = None,
        lifetime: float | timedelta | None = None,
        generation: int | None = None,
    ) -> str:
        """A new token. It is not kept anywhere: show it to its owner now, nobody can later (ASVS 6.5.2).

        Args:
            subject: Whose it is.
            name: What its owner calls it: 1 to 100 printable characters.
            scopes: What it may be used for; each without spaces.
            roles: Who its holder is to the app.
            creator: The caller who asks for it, if one does: nobody gets by a token what they may not do themselves.
            lifetime: Seconds, or a ``timedelta``, until it ends; ``settings.lifetime`` if left out.
            generation: The subject's generation as read *before* the caller was authenticated. Left out, it is that in
                which the creator's session was found; or, where there is none, it is read now.

        Returns:
            The token.

        Raises:
            InvalidValue: If an argument cannot be what it is, or the subject has 100 tokens already.
            MethodRequired: If the creator was proved by an API token: it cannot make others that outlive it.
            AccessDenied: If the creator is somebody else.
            ScopeRequired: If the creator lacks a scope; its ``scopes`` names what is missing.
            RoleRequired: If the creator lacks a role.
            GenerationOutdated: If the subject was revoked since ``generation`` was read.
            StoreUnavailable: If nothing could be kept.
        """
        check_subject(subject)
        if not subject:
            raise InvalidValue("A subject is not empty.")
        if generation is not None and generation.__class__ is not int:
            raise InvalidValue("A generation is what generation() returned.")
        checked = _checked_name(name)
        its_scopes = sorted(set(checked_scopes(scopes)))
        its_roles = sorted(set(checked_names("roles", roles)))
        if creator is not None:
            _check_creator(creator, subject, scopes=its_scopes, roles=its_roles)
            if generation is None and creator.method == "session":
                generation = creator.generations.get(KIND, 0)
        now = self._clock()
        ends_at = now + self._checked_lifetime(lifetime)
        generation = self.generation(subject) if generation is None else generation
        self._check_number(subject, now)
        token, token_id, check = new_api_token(bucket_of(subject))
        record = Record(
            kind=KIND, id=token_id, subject=subject, check=check, generation=generation,
            data={"name": checked, "scopes": its_scopes, "roles": its_roles},
            created_at=now, touched_at=_NEVER, ends_at=ends_at,
        )  # fmt: skip
        self._store.add(record, now)
        self._events.emit(APITokenCreated(at=now, subject=subject, token_id=token_id, name=checked))
        return token

    def generation(self, subject: str) -> int:
        """The generation a token for ``subject`` made now belongs to; see ``Sessions.generation``."""
        check_subject(subject)
        return self._store.marks(subject, "", self._clock()).generation(KIND)

    def _checked_lifetime(self, lifetime: float | timedelta | None) -> float:
        given = self._settings.lifetime if lifetime is None else lifetime
        seconds = checked_number("lifetime", given.total_seconds() if isinstance(given, timedelta) else given)
        if not 1 <= seconds <= self._settings.max_lifetime:
            raise InvalidValue(
                f"An API token lives for 1 to {self._settings.max_lifetime:g} seconds.",
                hint="api_tokens.max_lifetime sets the limit.",
            )
        return seconds

    def _check_number(self, subject: str, now: float) -> None:
        # Callers at once may each see the last free place: then there are as many more as there were callers.
        if len(self._store.list(subject, KIND, now, limit=_MAX_TOKENS)) >= _MAX_TOKENS:
            raise InvalidValue(f"Nobody has more than {_MAX_TOKENS} API tokens: revoke those that are not needed.")

    # -- verifying ------------------------------------------------------------------------------------------

    def verify(self, token: str) -> Identity:
        """Who the token proves the caller to be. Counts as use.

        Raises:
            APITokenInvalid: If there is no live token like that.
            StoreUnavailable: If nobody can tell.
        """
        now = self._clock()
        found = self._find(token, now)
        # Only now, and seldom, is it noted as used: the id alone, which lists and logs show, does not look like use.
        if found is not None and touch_is_due(found.record, now, _TOUCH_AFTER):
            found = self._store.get(KIND, found.record.id, now, _TOUCH_AFTER)
        if found is None:
            raise APITokenInvalid
        record, data = found.record, found.record.data
        return Identity(
            record.subject, KIND, json_encode({"token_name": data["name"]}),
            roles=frozenset(data["roles"]), scopes=frozenset(data["scopes"]), expires_at=record.ends_at,
            credential_id=record.id, generation=record.generation, fresh=False, generations=found.generations,
        )  # fmt: skip

    def _find(self, token: str, now: float) -> Found | None:
        parts = split_api_token(token) if isinstance(token, str) else None
        if parts is None:
            return None
        token_id, check = parts
        found = self._store.get(KIND, token_id, now)
        return None if found is None or not matches(found.record.check, check) else found

    # -- the owner's list -----------------------------------------------------------------------------------

    def list(self, subject: str, after: str = "", limit: int = 100) -> Sequence[APIToken]:
        """A page of the subject's live tokens, ordered by id.

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
        return [_shown(record) for record in self._store.list(subject, KIND, self._clock(), after, limit)]

    def get(self, subject: str, token_id: str) -> APIToken | None:
        """One of a subject's own live tokens by its public name; ``None`` if it is not theirs (ASVS 8.2.2).

        Raises:
            StoreUnavailable: If nobody can tell.
        """
        record = self._own(subject, token_id, self._clock())
        return None if record is None else _shown(record)

    def rename(self, subject: str, token_id: str, name: str) -> APIToken | None:
        """Call one of a subject's own tokens something else; ``None`` if it is not theirs (ASVS 8.2.2).

        Args:
            subject: Whose.
            token_id: The public name of the token.
            name: As for ``create``.

        Raises:
            InvalidValue: If it cannot be called that.
            ConcurrentUpdate: If others kept changing it and nothing was written.
            StoreUnavailable: If nothing could be written.
        """
        checked = _checked_name(name)
        for attempt in range(_MAX_ATTEMPTS):
            now = self._clock()
            record = self._own(subject, token_id, now)
            if record is None:
                return None
            renamed = msgspec.structs.replace(record, data={**record.data, "name": checked})
            try:
                kept = self._store.swap(record, renamed, now)
            except GenerationOutdated:
                return None
            if kept is not None:
                return _shown(kept)
            time.sleep(random.uniform(0, min(_MAX_PAUSE, 0.001 * attempt)))  # noqa: S311 - spreads the retries
        raise ConcurrentUpdate

    def _own(self, subject: str, token_id: str, now: float) -> Record | None:
        if not isinstance(subject, str) or not subject or not isinstance(token_id, str) or not ID.fullmatch(token_id):
            return None
        found = self._store.get(KIND, token_id, now)
        return None if found is None or found.record.subject != subject else found.record

    # -- ending ---------------------------------------------------------------------------------------------

    def revoke(self, token: str) -> bool:
        """End the token at once; ``False`` if it is not a live one.

        Raises:
            StoreUnavailable: If it could not be ended.
        """
        now = self._clock()
        found = self._find(token, now)
        return found is not None and self._end(found.record, now)

    def revoke_by_id(self, subject: str, token_id: str) -> bool:
        """End one of a subject's own tokens by its public name; ``False`` if it is not theirs (ASVS 8.2.2).

        Raises:
            StoreUnavailable: If it could not be ended.
        """
        now = self._clock()
        record = self._own(subject, token_id, now)
        return record is not None and self._end(record, now)

    def _end(self, record: Record, now: float) -> bool:
        if self._store.take(KIND, record.id, now) is None:
            return False
        self._events.emit(Revoked(at=now, kind=KIND, subject=record.subject, credential_id=record.id))
        return True

    def revoke_all(self, subject: str | None) -> None:
        """End every token of a subject (``None``: of everyone).

        Raises:
            StoreUnavailable: If it could not be done.
        """
        now = self._clock()
        self._store.advance(subject, (KIND,), now)
        self._events.emit(SubjectRevoked(at=now, subject=subject, kinds=(KIND,)))


def is_api_token(text: str) -> bool:
    """Whether a text has the form of an API token, its checksum included; nobody has verified it."""
    return isinstance(text, str) and split_api_token(text) is not None


def _shown(record: Record) -> APIToken:
    data = record.data
    return APIToken(
        id=record.id, subject=record.subject, name=data["name"],
        scopes=frozenset(data["scopes"]), roles=frozenset(data["roles"]), created_at=record.created_at,
        last_used_at=None if record.touched_at == _NEVER else record.touched_at, ends_at=record.ends_at,
    )  # fmt: skip


def _checked_name(name: str) -> str:
    trimmed = name.strip() if isinstance(name, str) else ""
    if not 1 <= len(trimmed) <= _MAX_NAME or not trimmed.isprintable():
        raise InvalidValue(f"An API token's name has 1 to {_MAX_NAME} printable characters.")
    return trimmed


def _check_creator(creator: Identity, subject: str, *, scopes: Collection[str], roles: Collection[str]) -> None:
    """Refuse a token that is wider than whoever asks for it."""
    if creator.method == KIND:
        raise MethodRequired("An API token cannot make API tokens.", hint="Whoever makes one has to sign in.")
    if creator.subject != subject:
        raise AccessDenied(hint="An API token is made by whoever it is for.")
    if missing := sorted(set(scopes) - creator.scopes):
        error = ScopeRequired("An API token has no scopes that its maker does not have.")
        error.scopes = " ".join(missing)
        raise error
    if missing := sorted(set(roles) - creator.roles):
        raise RoleRequired(
            "An API token has no roles that its maker does not have.", hint=f"Missing: {', '.join(map(repr, missing))}."
        )
