"""What becomes of an account: a new password, another name, other roles, an end.

Each change that takes something away ends what was handed out before it, at once and on every host: the credentials of
a person are revoked together with the change, not when they expire.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from jam.accounts.audit import Entry
from jam.accounts.flow import Flow
from jam.accounts.names import valid_username
from jam.accounts.users import Account
from jam.credentials.access_tokens import checked_names, checked_scopes
from jam.credentials.api_tokens import APIToken
from jam.credentials.refresh_tokens import Family
from jam.errors import BadCredentials, ConcurrentUpdate, InvalidValue, SessionInvalid, UserNotFound
from jam.events import (
    DataExported,
    Deactivated,
    Deleted,
    Event,
    PasswordChanged,
    Reactivated,
    RolesChanged,
    ScopesChanged,
    UsernameChanged,
)

__all__ = ["REVOCATIONS", "Management", "iso_time"]

_LOGINS = ("session", "remember_me")
_BESIDES_LOGINS = ("access_token", "refresh_token", "one_time_token")
_PAGE = 1000
REVOCATIONS = 2  #: of each kind of token, that a change of the password makes
_MAX_ATTEMPTS = 20

_Listed = TypeVar("_Listed", APIToken, Family)


class Management(Flow):
    """Changes accounts, and ends them."""

    # -- by the person themselves ---------------------------------------------------------------------------

    def change_password(
        self,
        subject: str,
        current: str,
        new: str,
        *,
        handle: str | None = None,
        address: str | None = None,
        end_api_tokens: bool = False,
    ) -> tuple[str, str | None] | None:
        """Set a new password, for whoever knows the present one (ASVS 6.2.3), and end every other login (7.4.3).

        Args:
            subject: Whose.
            current: The present password.
            new: The new one.
            handle: The caller's own session, which goes on under a new handle; left out, every login ends.
            address: Where the request comes from, if it is one.
            end_api_tokens: Whether their API tokens end as well.

        Returns:
            The new handle, and the first token of a new family if the browser is remembered; ``None`` without one.

        Raises:
            BadCredentials: If the present password is wrong, or was changed this very moment.
            PasswordRefused: If the policy does not take the new one.
            TooManyAttempts, Busy: If it cannot be looked at now.
            SessionInvalid: If there is no such session of theirs, and then nothing was changed; or if it ended this
                very moment: then every login has ended, and the password may be the new one.
            StoreUnavailable: If it could not be done.
        """
        if handle is not None and self._jam.sessions.verify(handle).subject != subject:
            raise SessionInvalid
        account = self._check.prove_again(subject, current, address=address).account
        self._policy.check(new, username=account.username, email=account.email, subject=subject)
        hashed = self._passwords.hash(new)
        kinds = (*_BESIDES_LOGINS, "api_token") if end_api_tokens else _BESIDES_LOGINS
        # Before the change: should the store fail after it, nobody stays in by the old password.
        self._jam.revoke(subject, kinds)
        gone_on = self._end_logins(subject, handle)
        changed = self._users.update(subject, {"password_hash": hashed}, {"password_hash": account.password_hash})
        if changed is None:
            raise BadCredentials
        self._events.emit(PasswordChanged(at=self._clock(), subject=subject, address=address, by="change"))
        try:
            # And after it: who signed in by the old one in between. A caller who has just proved it goes on.
            self._jam.revoke(subject, kinds)
            self._forget_addresses(account.username, account.email)
            return self._end_logins(subject, None if gone_on is None else gone_on[0])
        finally:
            self._notify("password_changed", changed, changed.email)

    def update_profile(self, subject: str, values: Mapping[str, Any], *, username: str | None = None) -> Account:
        """Change what a person says of themselves.

        Args:
            subject: Whose.
            values: The app's own fields, those of ``UserStore.writable``.
            username: Another user name.

        Raises:
            InvalidValue: If a field is not the person's own to change (ASVS 8.2.3), naming it.
            UsernameRefused, UsernameTaken: If the name cannot be theirs.
            UserNotFound: If there is no such account.
            StoreUnavailable: If it could not be done.
        """
        before = self._get(subject)
        changes = self.profile_changes(before, values, username=username)
        if not changes:
            return before
        changed = self._users.update(subject, changes)
        if changed is None:
            raise UserNotFound
        if changed.username != before.username:
            self._forget_addresses(before.username, changed.username)
            self._events.emit(UsernameChanged(at=self._clock(), subject=subject))
        return changed

    def profile_changes(
        self, account: Account, values: Mapping[str, Any], *, username: str | None = None
    ) -> dict[str, Any]:
        """What ``update_profile`` would change, checked as it does; for what is changed together with it.

        Raises:
            InvalidValue: If a field is not the person's own to change (ASVS 8.2.3), naming it.
            UsernameRefused: If the name cannot be theirs.
        """
        for name in values:
            if name not in self._users.writable:
                raise InvalidValue(f"{name!r} cannot be changed.")
        changes = dict(values)
        if username is not None and username != account.username:
            changes["username"] = valid_username(username)
        return changes

    def export(self, subject: str) -> dict[str, Any]:
        """What is kept about a person, for themselves: nothing secret, and nothing about others.

        Raises:
            UserNotFound: If there is no such account.
            StoreUnavailable: If nobody can tell.
        """
        account = self._get(subject)
        jam, now = self._jam, self._clock()
        events = self._events_of(subject)
        self._events.emit(DataExported(at=now, subject=subject))
        return {
            "exported_at": iso_time(now),
            "account": {
                **account.profile,
                "id": account.subject, "username": account.username, "email": account.email,
                "email_verified": account.email_verified, "is_active": account.is_active,
                "roles": sorted(account.roles), "scopes": sorted(account.scopes),
                "created_at": iso_time(account.created_at),
            },
            "logins": [
                {
                    "id": one.id, "device": dict(one.device), "signed_in_at": iso_time(one.signed_in_at),
                    "last_seen_at": iso_time(one.last_seen_at), "ends_at": iso_time(one.ends_at),
                    "remembered": one.remembered,
                }
                for one in jam.logins.list(subject)
            ],
            "api_tokens": [
                {
                    "id": one.id, "name": one.name, "scopes": sorted(one.scopes),
                    "created_at": iso_time(one.created_at), "last_used_at": iso_time(one.last_used_at),
                    "ends_at": iso_time(one.ends_at),
                }
                for one in _every(lambda after: jam.api_tokens.list(subject, after, _PAGE))
            ],
            "refresh_tokens": [
                {
                    "id": one.id, "device": dict(one.details), "signed_in_at": iso_time(one.authenticated_at),
                    "created_at": iso_time(one.created_at), "last_used_at": iso_time(one.rotated_at),
                    "ends_at": iso_time(one.ends_at),
                }
                for one in _every(lambda after: jam.refresh_tokens.list(subject, after, _PAGE))
            ],
            "events": [
                {"at": iso_time(one.at), "event": one.event, "address": one.address, **one.details} for one in events
            ],
        }  # fmt: skip

    def sign_out_everywhere(self, subject: str, *, api_tokens: bool = False) -> None:
        """End every login and token of a subject; API tokens if that is asked for.

        Raises:
            StoreUnavailable: If it could not be done.
        """
        self._jam.revoke(subject, (*_LOGINS, *_BESIDES_LOGINS, *(("api_token",) if api_tokens else ())))

    # -- by the person, or by somebody who may --------------------------------------------------------------

    def set_roles(self, subject: str, roles: Collection[str]) -> Account:
        """Give an account these roles, and no others; what it holds already is good for them from the next request on
        if the app says so (``get_user_roles``), and from the next sign-in on otherwise.

        Raises:
            InvalidValue: If they are no names, or the app knows no such role.
            UserNotFound: If there is no such account.
            ConfigError: If the app's model has no place for roles.
            StoreUnavailable: If it could not be done.
        """
        wanted = frozenset(checked_names("roles", roles))
        return self._change_names(subject, "roles", lambda _: wanted)

    def change_roles(self, subject: str, *, add: Collection[str] = (), remove: Collection[str] = ()) -> Account:
        """Give an account more roles, and take others away; what somebody else changes at the same time is kept.

        Raises:
            InvalidValue, UserNotFound, ConfigError, StoreUnavailable: As ``set_roles``.
            ConcurrentUpdate: If others kept changing them, and nothing was changed.
        """
        more, less = frozenset(checked_names("add", add)), frozenset(checked_names("remove", remove))
        return self._change_names(subject, "roles", lambda roles: (roles | more) - less)

    def set_scopes(self, subject: str, scopes: Collection[str]) -> Account:
        """Say which scopes an account's credentials may have at most; those that have others lose them at once.

        Raises:
            InvalidValue: If they are no scopes (RFC 6749 3.3).
            UserNotFound, ConfigError, StoreUnavailable: As ``set_roles``.
        """
        wanted = frozenset(checked_scopes(scopes))
        return self._change_names(subject, "scopes", lambda _: wanted)

    def change_scopes(self, subject: str, *, add: Collection[str] = (), remove: Collection[str] = ()) -> Account:
        """As ``change_roles``, for scopes."""
        more, less = frozenset(checked_scopes(add)), frozenset(checked_scopes(remove))
        return self._change_names(subject, "scopes", lambda scopes: (scopes | more) - less)

    def _change_names(self, subject: str, kind: str, change: Callable[[frozenset[str]], frozenset[str]]) -> Account:
        for _ in range(_MAX_ATTEMPTS):
            before: frozenset[str] = getattr(self._get(subject), kind)
            after = change(before)
            changed = self._users.update(subject, {kind: after}, {kind: before})
            if changed is None:  # somebody was faster, or it was deleted
                continue
            names = tuple(sorted(after))
            at = self._clock()
            self._events.emit(
                RolesChanged(at=at, subject=subject, roles=names)
                if kind == "roles"
                else ScopesChanged(at=at, subject=subject, scopes=names)
            )
            return changed
        raise ConcurrentUpdate

    def deactivate(self, subject: str, *, address: str | None = None) -> Account:
        """Let nobody use an account any more, and end all that was handed out to it (ASVS 7.4.2).

        Raises:
            UserNotFound: If there is no such account.
            ConfigError: If the app's model has no place for it.
            StoreUnavailable: If it could not be done.
        """
        return self._set_active(subject, Deactivated(at=self._clock(), subject=subject, address=address), active=False)

    def reactivate(self, subject: str) -> Account:
        """Let an account be used again. What it held before stays dead.

        Raises:
            UserNotFound, ConfigError, StoreUnavailable: As ``deactivate``.
        """
        return self._set_active(subject, Reactivated(at=self._clock(), subject=subject), active=True)

    def delete(self, subject: str, *, address: str | None = None) -> None:
        """Delete an account, and end all that was handed out to it.

        Its subject's mark outlives it: should the database give the same id to somebody else, nothing of the former
        owner's is good for them.

        Raises:
            UserNotFound: If there is no such account.
            InvalidValue: If other data of the app forbids it.
            StoreUnavailable: If it could not be done.
        """
        account = self._get(subject)
        self._jam.revoke_all(subject)
        if not self._users.delete(subject):
            raise UserNotFound
        self._events.emit(Deleted(at=self._clock(), subject=subject, address=address))
        self._jam.revoke_all(subject)  # who signed in in between
        self._notify("account_deleted", account, account.email)

    def _end_logins(self, subject: str, handle: str | None) -> tuple[str, str | None] | None:
        """End every login but that of the handle, if there is one."""
        if handle is None:
            self._jam.logins.end_all(subject)
            return None
        try:
            return self._jam.logins.end_others(handle)
        except SessionInvalid:  # the caller's own ended this very moment, and then the others were not ended
            self._jam.logins.end_all(subject)
            raise

    def _set_active(self, subject: str, event: Event, *, active: bool) -> Account:
        if active:  # before anybody can use what an interrupted deactivation has left
            self._get(subject)
            self._jam.revoke_all(subject)
        changed = self._update(subject, {"is_active": active})
        self._events.emit(event)
        self._jam.revoke_all(subject)
        return changed

    def _update(self, subject: str, changes: Mapping[str, Any]) -> Account:
        changed = self._users.update(subject, changes)
        if changed is None:
            raise UserNotFound
        return changed

    def _events_of(self, subject: str) -> Sequence[Entry]:
        if self._audit is None:
            return []
        found = page = self._audit.search(subject=subject, limit=_PAGE)
        while len(page) == _PAGE and page[-1].cursor is not None:
            page = self._audit.search(subject=subject, limit=_PAGE, before=page[-1].cursor)
            found = [*found, *page]
        return found

    def _get(self, subject: str) -> Account:
        account = self._users.get(subject)
        if account is None:
            raise UserNotFound
        return account


def _every(page: Callable[[str], Sequence[_Listed]]) -> Iterator[_Listed]:
    """What is on all pages, of which each begins after the last id of the one before."""
    after = ""
    while found := page(after):
        yield from found
        after = found[-1].id


def iso_time(at: float | None) -> str | None:
    """A time as ISO 8601 has it, in UTC with a ``Z``; ``None`` for one that is not known."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
