"""Logins: a person's sessions and the browsers that remember them, as one thing to list and to end.

A remembered browser gets a new session when its old one has ended, for a token of a family in ``Jam.remember_me``
(see ``refresh_tokens``). So whoever ends a login ends both, or the browser would be back with its next request.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import msgspec

from jam.credentials.refresh_tokens import Family, RefreshTokens
from jam.credentials.sessions import Session, Sessions
from jam.crypto.handles import ID, MATERIAL_BYTES, bucket_of, handle_from
from jam.crypto.keys import Key
from jam.errors import (
    CredentialError,
    GenerationOutdated,
    RecordExists,
    RefreshTokenReused,
    SessionInvalid,
    UserInactive,
)
from jam.events import Events, SubjectRevoked
from jam.identity import Identity
from jam.stores.base import Store

__all__ = ["Login", "Logins"]

KINDS = ("remember_me", "session")
_PAGE = 1000


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """One browser in which a person is signed in, or would be with its next request. Times are in seconds since the
    epoch.

    Attributes:
        id: Its public name, for ``end``.
        subject: Whose it is.
        device: What its browser said of itself when it signed in, and its address: for people to recognise.
        signed_in_at: When the person proved who they are.
        last_seen_at: When it was last used, give or take a minute.
        ends_at: When it ends in any case.
        remembered: Whether the browser will sign in by itself again.
        current: Whether it is the caller's own.
    """

    id: str
    subject: str
    device: Mapping[str, Any]
    signed_in_at: float
    last_seen_at: float
    ends_at: float
    remembered: bool
    current: bool = False


class Logins:
    """Begins, restores, lists and ends logins.

    Args:
        sessions: The sessions.
        remember_me: The families of remembered browsers.
        key: What the handles of restored sessions are made with: the tabs of a browser that is opened again all get
            the same one.
        store: Where both are kept.
        clock: Seconds since the epoch.
        events: Hears of what is ended.
    """

    def __init__(
        self,
        sessions: Sessions,
        remember_me: RefreshTokens,
        key: Key,
        *,
        store: Store,
        clock: Callable[[], float],
        events: Events,
    ) -> None:
        self._sessions = sessions
        self._remember_me = remember_me
        self._key = key
        self._store = store
        self._clock = clock
        self._events = events

    def remember(
        self,
        subject: str,
        *,
        lifetime: float | timedelta | None = None,
        authenticated_at: float | None = None,
        amr: Sequence[str] = (),
        device: Mapping[str, Any] | None = None,
        generation: int | None = None,
    ) -> tuple[str, str]:
        """The first token of a browser that is to be remembered, and its family's id for the session.

        Args:
            subject: Who is to be remembered.
            lifetime: For how long, in seconds or as a ``timedelta``; ``remember_me.lifetime`` if left out.
            authenticated_at: When the person proved who they are; now if left out.
            amr: How.
            device: What to show of the browser in lists.
            generation: That of the subject's remembered browsers, as it was before the person was authenticated; read
                now if left out.

        Raises:
            InvalidValue: If an argument cannot be what it is.
            GenerationOutdated: If the subject was revoked since ``generation`` was read.
            StoreUnavailable: If it could not be kept.
        """
        token = self._remember_me.issue(
            subject, lifetime=lifetime, amr=amr, details=device, generation=generation,
            authenticated_at=self._clock() if authenticated_at is None else authenticated_at,
        )  # fmt: skip
        return token, self._remember_me.family_of(token)

    def restore(
        self,
        token: str,
        *,
        device: Mapping[str, str] | None = None,
        agree: Callable[[str, Identity], object] | None = None,
    ) -> tuple[str, str, Identity]:
        """A session for a remembered browser: its handle, the token's successor, and whom it proves.

        Of tabs that bring the same token at once, all get the same session and the same successor. The session is not
        fresh: nobody proved anything in it. The token is used up only when all else has succeeded, so that a browser
        that got an error can come again.

        Args:
            token: What the browser brought.
            device: What to show of the browser in lists.
            agree: Called with the handle and the identity. Whatever it raises is raised on; ``CredentialError`` and
                ``UserInactive`` end the session.

        Raises:
            RefreshTokenReused: If the token was superseded longer ago than the overlap; everything of its family is
                dead now.
            SessionInvalid: If a tab comes late: the session that it would get has ended, or has a new handle.
            TokenInvalid: If it is not good; the subclasses say why.
            StoreUnavailable: If nobody can tell.
        """
        # Read before anything is judged, so that a session that races a revocation is not made.
        generation = self._sessions.generation(self._remember_me.claims(token)["sub"])
        try:
            known, number, current = self._remember_me.standing(token)
        except RefreshTokenReused:  # the thief may have a session by now
            self._end_sessions(self._remember_me.claims(token)["sub"], (self._remember_me.family_of(token),))
            raise
        subject, family_id = known.subject or "", known.credential_id or ""
        material = self._key.sign(f"{family_id}.{number + 1}".encode())[:MATERIAL_BYTES]
        if number < current:
            return self._join(token, subject, material, agree, is_last=number + 1 == current)
        older = [one.id for one in self._of(subject) if one.family_id == family_id]
        try:
            handle = self._sessions.create(
                subject, amr=known.amr, authenticated_at=known.authenticated_at, fresh=False, device=device,
                family_id=family_id, ends_at=known.expires_at, material=material, generation=generation,
            )  # fmt: skip
        except RecordExists:  # another tab was faster
            handle, is_ours = handle_from(bucket_of(subject), material)[0], False
        except GenerationOutdated:
            raise SessionInvalid from None
        else:
            is_ours = True
        try:
            identity = self._sessions.verify(handle)
            if agree is not None:
                agree(handle, identity)
            successor = self._remember_me.rotate(token)
            # Whoever ended the family in between may have looked for its sessions before there was this one.
            self._remember_me.verify(successor)
        except (CredentialError, UserInactive):
            # Not after anything else: the browser may come again, or another tab may have come.
            if is_ours:
                self._sessions.delete(handle)
            raise
        if is_ours:  # the browser has lost the handle of the session before, or it would have brought it
            for session_id in older:
                self._sessions.delete_by_id(subject, session_id)
        return handle, successor, identity

    def _join(
        self,
        token: str,
        subject: str,
        material: bytes,
        agree: Callable[[str, Identity], object] | None,
        *,
        is_last: bool,
    ) -> tuple[str, str, Identity]:
        """The session that another tab has just begun with the same token."""
        handle, _, _ = handle_from(bucket_of(subject), material)
        identity = self._sessions.verify(handle)
        if not is_last:  # what it would get is superseded itself
            raise SessionInvalid
        if agree is not None:
            agree(handle, identity)
        return handle, self._remember_me.rotate(token), identity

    def list(self, subject: str, *, handle: str | None = None) -> Sequence[Login]:
        """A subject's logins, the one that was used last first.

        Args:
            subject: Whose.
            handle: The caller's own session, to be marked as current.

        Raises:
            StoreUnavailable: If nobody can tell.
        """
        mine = None if handle is None else self._sessions.get(handle)
        families = {family.id: family for family in self._families(subject)}
        sessions = self._of(subject)
        found = [
            Login(
                id=session.login_id, subject=subject, device=session.device, last_seen_at=session.last_seen_at,
                signed_in_at=session.authenticated_at or session.created_at, ends_at=_end_of(session, families),
                remembered=(session.family_id or "") in families, current=mine is not None and mine.id == session.id,
            )
            for session in sessions
        ]  # fmt: skip
        at_rest = families.keys() - {session.family_id for session in sessions}
        found += [
            Login(
                id=family.id, subject=subject, device=family.details, last_seen_at=family.rotated_at,
                signed_in_at=family.authenticated_at or family.created_at, ends_at=family.ends_at, remembered=True,
            )
            for family in families.values() if family.id in at_rest
        ]  # fmt: skip
        return sorted(found, key=lambda login: (-login.last_seen_at, login.id))

    def end(self, subject: str, login_id: str) -> bool:
        """End one of a subject's own logins by its public name; ``False`` if it is not theirs (ASVS 8.2.2).

        Raises:
            StoreUnavailable: If it could not be ended.
        """
        if not isinstance(login_id, str) or not ID.fullmatch(login_id):
            return False
        known = [one for one in self._of(subject) if login_id in (one.login_id, one.id, one.family_id)]
        names = {login_id, *(one.login_id for one in known), *(one.family_id for one in known if one.family_id)}
        ended = self._end_sessions(subject, names)
        for name in names:
            ended = self._remember_me.revoke_by_id(subject, name) or ended
        return self._end_sessions(subject, names) or ended

    def end_own(self, handles: Iterable[str], tokens: Iterable[str]) -> Sequence[Session]:
        """End what the caller's browser brought: its sessions, and the families that remember it.

        Args:
            handles: Handles of sessions.
            tokens: Tokens of remembered browsers.

        Returns:
            The sessions, as far as they were live: as they were at the end.

        Raises:
            StoreUnavailable: If something could not be ended.
        """
        ended: list[Session] = []
        for handle in handles:
            known = self._sessions.get(handle)
            if known is None:
                continue
            session = self._sessions.take(handle)
            ended.append(session or known)
            if known.subject:
                self._end_sessions(known.subject, (known.login_id,))
                self._end_family(known.subject, known.family_id)
        for token in tokens:
            try:
                subject, family_id = self._remember_me.claims(token)["sub"], self._remember_me.family_of(token)
            except CredentialError:
                continue
            self._end_family(subject, family_id)
        return ended

    def _end_family(self, subject: str, family_id: str | None) -> bool:
        """End a family and every session that came of it, also one that was restored this very moment."""
        if family_id is None or not self._remember_me.revoke_by_id(subject, family_id):
            return False
        self._end_sessions(subject, (family_id,))
        return True

    def _end_sessions(self, subject: str, names: Collection[str]) -> bool:
        """End every session of the logins or families of these names, also one that is just getting a new handle."""
        for name in names:
            self._sessions.note_ended(subject, name)
        ended = False
        for session in self._of(subject):
            if session.login_id in names or session.family_id in names or session.id in names:
                if session.login_id not in names:
                    self._sessions.note_ended(subject, session.login_id)
                ended = self._sessions.delete_by_id(subject, session.id) or ended
                if session.family_id is not None:  # of a name that nobody knew a moment ago, maybe
                    ended = self._remember_me.revoke_by_id(subject, session.family_id) or ended
        return ended

    def end_all(self, subject: str | None) -> None:
        """End every login of a subject (``None``: of everyone).

        Raises:
            StoreUnavailable: If it could not be done.
        """
        now = self._clock()
        self._store.advance(subject, KINDS, now)
        self._events.emit(SubjectRevoked(at=now, subject=subject, kinds=KINDS))

    def end_others(self, handle: str) -> tuple[str, str | None]:
        """End every login of the caller's but their own, which goes on under a new handle.

        Args:
            handle: The caller's session.

        Returns:
            The new handle; and the first token of a new family, if the browser is remembered.

        Raises:
            SessionInvalid: If there is no live session.
            StoreUnavailable: If it could not be done; whatever was not ended is still good.
        """
        opened = self._sessions.open(handle)
        identity, session = opened or (None, None)
        if identity is None or session is None:
            raise SessionInvalid
        now = self._clock()
        family = next((one for one in self._families(session.subject) if one.id == session.family_id), None)
        won = self._sessions.take(handle)
        if won is None:  # signed out, or under a new handle by now
            raise SessionInvalid
        generations = self._store.advance(session.subject, KINDS, now)
        self._events.emit(SubjectRevoked(at=now, subject=session.subject, kinds=KINDS))
        if generations["session"] != identity.generation + 1:  # everything was revoked meanwhile, this one too
            raise SessionInvalid
        try:
            token, family_id = None, None
            if family is not None and family.ends_at - now >= 1:
                token, family_id = self.remember(
                    won.subject, lifetime=family.ends_at - now, amr=won.amr, device=family.details,
                    authenticated_at=won.authenticated_at, generation=generations["remember_me"],
                )  # fmt: skip
            new = self._sessions.create(
                won.subject, won.data, roles=won.roles, scopes=won.scopes, amr=won.amr,
                authenticated_at=won.authenticated_at, fresh=won.fresh, device=won.device,
                family_id=family_id, ends_at=won.ends_at, values=won.values, generation=generations["session"],
                login_id=won.login_id,
            )  # fmt: skip
            self._sessions.refuse_ended(won.subject, won.login_id, new.partition(".")[0])
        except GenerationOutdated:
            raise SessionInvalid from None
        except SessionInvalid:
            if family_id is not None:
                self._remember_me.revoke_by_id(won.subject, family_id)
            raise
        return new, token

    def _of(self, subject: str) -> Sequence[Session]:
        return _all(lambda after: self._sessions.list(subject, after, _PAGE))

    def _families(self, subject: str) -> Sequence[Family]:
        return _all(lambda after: self._remember_me.list(subject, after, _PAGE))


def _all(page: Callable[[str], Sequence[Any]]) -> Sequence[Any]:
    """Every page, one after the other."""
    found: list[Any] = []
    while True:
        more = page(found[-1].id if found else "")
        found += more
        if len(more) < _PAGE:
            return found


def _end_of(session: Session, families: Mapping[str, Family]) -> float:
    family = families.get(session.family_id or "")
    return session.ends_at if family is None else max(session.ends_at, family.ends_at)
