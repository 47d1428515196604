"""One-time tokens: what a link in a mail carries, and what holds a sign-in of several steps together.

Each is a record: it is bound to one purpose, to one person, and to the state that their account was in when it was
made, so that a link to set a new password dies when the password is changed by any other way. Whoever uses it first is
the only one.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

import msgspec

from jam.credentials.access_tokens import checked_number
from jam.crypto.handles import bucket_of, bucket_of_id, matches, new_handle, split_handle
from jam.errors import GenerationOutdated, OneTimeTokenInvalid
from jam.events import Events, OneTimeTokenIssued, OneTimeTokenUsed, SubjectRevoked
from jam.stores.base import Found, Record, Store, check_subject

__all__ = ["OneTimeToken", "OneTimeTokens"]

KIND = "one_time_token"


class OneTimeToken(msgspec.Struct, frozen=True, kw_only=True):
    """What a token that was not used yet stands for.

    Attributes:
        id: Its public name.
        purpose: What it was made for.
        subject: Whose it is; ``""`` for somebody who has no account yet.
        data: What was put into it.
        created_at: When it was made, in seconds since the epoch.
        ends_at: When it is dead in any case, in seconds since the epoch.
    """

    id: str
    purpose: str
    subject: str
    data: Mapping[str, Any]
    created_at: float
    ends_at: float

    def __repr__(self) -> str:
        """Its name and purpose alone: of somebody who registers, the data holds the hash of their password."""
        return f"<OneTimeToken {self.id!r} for {self.purpose!r}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:  # what some loggers show instead of repr
        return [("id", self.id), ("purpose", self.purpose)]


class OneTimeTokens:
    """Makes, reads and uses up one-time tokens.

    Args:
        store: Where they are kept.
        clock: Seconds since the epoch.
        events: Hears of each one that is made or used.
    """

    def __init__(self, store: Store, *, clock: Callable[[], float], events: Events) -> None:
        self._store = store
        self._clock = clock
        self._events = events

    def issue(
        self,
        purpose: str,
        subject: str,
        *,
        lifetime: float,
        state: tuple[str | None, ...] = (),
        data: Mapping[str, Any] | None = None,
        generation: int | None = None,
    ) -> str:
        """A new token.

        Args:
            purpose: What it is good for, and nothing else.
            subject: Whose it is; ``""`` for somebody who has no account yet.
            lifetime: In seconds.
            state: What must be so still when it is used, such as the password's hash and the e-mail address.
            data: Anything JSON can hold; nothing secret, for it rests in the store.
            generation: As ``generation`` gave it before; read now if left out.

        Returns:
            The token. It is not kept anywhere.

        Raises:
            InvalidValue: If an argument cannot be what it is.
            GenerationOutdated: If everything of the subject was revoked since ``generation`` was read.
            StoreUnavailable: If it could not be kept.
        """
        now = self._clock()
        check_subject(subject)
        token, token_id, check = new_handle(bucket_of(subject))
        content = {"purpose": purpose, "state": _digest(state), "data": dict(data or {})}
        self._store.add(
            Record(
                kind=KIND, id=token_id, subject=subject, check=check, data=content, created_at=now, touched_at=now,
                ends_at=now + checked_number("lifetime", lifetime),
                generation=self.generation(subject) if generation is None else generation,
            ),
            now,
        )  # fmt: skip
        self._events.emit(OneTimeTokenIssued(at=now, subject=subject or None, purpose=purpose))
        return token

    def generation(self, subject: str) -> int:
        """The generation that a token made now belongs to."""
        return self._store.marks(subject, "", self._clock()).generation(KIND)

    def peek(self, token: str, purpose: str) -> OneTimeToken:
        """What a token stands for; it is not used up, so that a page can show what it is about.

        Raises:
            OneTimeTokenInvalid: If it is not good, or for another purpose.
            StoreUnavailable: If nobody can tell.
        """
        return _shown(self._find(token, purpose).record)

    def check_state(self, token: str, purpose: str, state: tuple[str | None, ...]) -> None:
        """Refuse a token whose account has changed since it was made.

        Raises:
            OneTimeTokenInvalid: If it has, or the token is not good.
            StoreUnavailable: If nobody can tell.
        """
        if not hmac.compare_digest(self._find(token, purpose).record.data["state"], _digest(state)):
            raise OneTimeTokenInvalid

    def take(self, token: str, purpose: str, state: tuple[str | None, ...] = ()) -> OneTimeToken:
        """Use a token up: of several who try at once, one succeeds (ASVS 6.5.1, 15.4.2).

        Args:
            token: The token.
            purpose: What it must be for.
            state: What it must have been made with.

        Raises:
            OneTimeTokenInvalid: If it is not good, or not for this, or the account has changed since.
            StoreUnavailable: If nobody can tell.
        """
        self.check_state(token, purpose, state)
        now = self._clock()
        record = self._store.take(KIND, token.partition(".")[0], now)
        if record is None:
            raise OneTimeTokenInvalid
        self._events.emit(OneTimeTokenUsed(at=now, subject=record.subject or None, purpose=purpose))
        return _shown(record)

    def replace(self, token: str, purpose: str, data: Mapping[str, Any]) -> str:
        """A successor with other data; the old one is dead in the same step. Purpose, state and end stay.

        Raises:
            OneTimeTokenInvalid: If it is not good, or was used or replaced this very moment.
            InvalidValue: If the data is not JSON.
            StoreUnavailable: If nobody can tell.
        """
        record = self._find(token, purpose).record
        successor, new_id, check = new_handle(bucket_of_id(record.id))
        new = msgspec.structs.replace(record, id=new_id, check=check, data={**record.data, "data": dict(data)})
        try:
            kept = self._store.swap(record, new, self._clock())
        except GenerationOutdated:
            kept = None
        if kept is None:
            raise OneTimeTokenInvalid
        return successor

    def discard(self, token: str) -> None:
        """End a token that is not to be used any more; no matter if there is none."""
        parts = split_handle(token) if isinstance(token, str) else None
        if parts is not None:
            found = self._store.get(KIND, parts[0], self._clock())
            if found is not None and matches(found.record.check, parts[1]):
                self._store.remove(KIND, parts[0])

    def revoke_all(self, subject: str | None) -> None:
        """End every token of a subject (``None``: of everyone)."""
        now = self._clock()
        self._store.advance(subject, (KIND,), now)
        self._events.emit(SubjectRevoked(at=now, subject=subject, kinds=(KIND,)))

    def _find(self, token: str, purpose: str) -> Found:
        parts = split_handle(token) if isinstance(token, str) else None
        if parts is None:
            raise OneTimeTokenInvalid
        found = self._store.get(KIND, parts[0], self._clock())
        if found is None or not matches(found.record.check, parts[1]):
            raise OneTimeTokenInvalid
        if found.record.data["purpose"] != purpose:
            raise OneTimeTokenInvalid
        return found


def _shown(record: Record) -> OneTimeToken:
    return OneTimeToken(
        id=record.id, purpose=record.data["purpose"], subject=record.subject, data=record.data["data"],
        created_at=record.created_at, ends_at=record.ends_at,
    )  # fmt: skip


def _digest(state: tuple[str | None, ...]) -> str:
    """One text for one state: each part goes in with its length, and nothing is told from an empty text."""
    digest = sha256()
    for part in state:
        encoded = b"" if part is None else part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % (-1 if part is None else len(encoded)))
        digest.update(encoded)
    return digest.hexdigest()
