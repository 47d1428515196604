"""Does this password belong to this name? Asked by every way in that takes one: sign-in, Basic, re-authentication.

Whoever asks learns nothing else. A name that nobody has, a wrong password, a deactivated account and a hash that cannot
be read have one answer, and cost the same (ASVS 6.3.8). Attempts are counted before anything expensive is done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import msgspec

from jam.accounts.names import name_key
from jam.accounts.throttle import Attempt, Throttle
from jam.accounts.users import Account, UserStore
from jam.crypto.passwords import Passwords
from jam.errors import BadCredentials, Busy, JamError, StoreUnavailable
from jam.events import Events, PasswordHashUnreadable, PasswordRehashed, SignInFailed
from jam.stores import Store

__all__ = ["PasswordCheck", "Proof"]

logger = logging.getLogger("jam.accounts")


class Proof(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """That a person proved who they are.

    Attributes:
        account: Who.
        amr: How (RFC 8176).
        at: When, in seconds since the epoch.
        generations: The generations of their credentials as they were *before* the proof was looked at: whatever is
            made of the proof belongs to these, so that it does not survive a password change that it raced.
        failures: How many attempts had failed just before.
    """

    account: Account
    amr: tuple[str, ...]
    at: float
    generations: Mapping[str, int]
    failures: int = 0

    def generation(self, kind: str) -> int:
        """The generation that a credential of this kind belongs to, if it is made of this proof."""
        return self.generations.get(kind, 0)


class PasswordCheck:
    """Checks passwords, counts the attempts, and moves old hashes to the present kind.

    Args:
        users: Who there is.
        passwords: What reads hashes.
        throttle: What counts attempts.
        store: Where the generations are.
        clock: Seconds since the epoch.
        events: Hears of failures.
    """

    def __init__(
        self,
        users: UserStore,
        passwords: Passwords,
        throttle: Throttle,
        *,
        store: Store,
        clock: Callable[[], float],
        events: Events,
    ) -> None:
        self._users = users
        self._passwords = passwords
        self._throttle = throttle
        self._store = store
        self._clock = clock
        self._events = events

    def prove(self, name: str, password: str, *, address: str | None = None) -> tuple[Proof, Attempt]:
        """Who goes by this name, if the password is theirs.

        Args:
            name: A user name or an e-mail address, as it was typed.
            password: As it was typed.
            address: Where the request comes from, if it is one.

        Returns:
            The proof, and the attempt: it stays counted as a failure until it is said to have succeeded.

        Raises:
            BadCredentials: If not; why is told to the events alone.
            TooManyAttempts: If too many failed before; the password was not looked at.
            Busy: If too many passwords are being checked.
            StoreUnavailable: If nobody can tell.
        """
        return self._prove(name_key(name), lambda: self._users.find(name), password, address)

    def prove_again(self, subject: str, password: str, *, address: str | None = None) -> Proof:
        """That whoever is signed in as a subject knows their password still; otherwise as ``prove``."""
        account = self._users.get(subject)
        name = name_key(account.username or account.email or "") if account is not None else ""
        proof, attempt = self._prove(name, lambda: self._users.get(subject), password, address)
        attempt.succeeded(subject)
        return proof

    def _prove(
        self, name: str, look_up: Callable[[], Account | None], password: str, address: str | None
    ) -> tuple[Proof, Attempt]:
        attempt = self._throttle.sign_in(name, address)
        try:
            known = look_up()
            subject = known.subject if known is not None else ""
            generations = dict(self._store.marks(subject, "", self._clock()).generations)
            # Once more: its password may have been changed, and everything ended, before the generations were read.
            # The proof would be of the old password, and outlive its end.
            account = look_up()
            if account is not None and account.subject != subject:
                account = None
            checked = self._passwords.check(account.password_hash if account is not None else None, password)
        except (Busy, StoreUnavailable):  # it was not looked at
            attempt.withdraw()
            raise
        now = self._clock()
        reason = _why_not(account, matches=checked.matches, readable=checked.readable)
        if account is None or reason is not None:
            if not checked.readable:
                self._events.emit(PasswordHashUnreadable(at=now, subject=subject or None, address=address))
            self._events.emit(SignInFailed(at=now, subject=subject or None, address=address, reason=reason or ""))
            raise BadCredentials
        if checked.outdated:
            account = self._rehash(account, password)
        return Proof(account=account, amr=("pwd",), at=now, generations=generations), attempt

    def _rehash(self, account: Account, password: str) -> Account:
        """Keep the same password by a present hash, unless somebody changed it this very moment."""
        try:
            changes = {"password_hash": self._passwords.hash(password)}
            changed = self._users.update(account.subject, changes, {"password_hash": account.password_hash})
        except Busy:  # the next sign-in will do
            return account
        except JamError as error:
            # A password that is right is not refused because its hash could not be renewed.
            logger.warning("A password hash could not be renewed: %s", error)
            return account
        if changed is None:
            return account
        self._events.emit(PasswordRehashed(at=self._clock(), subject=account.subject))
        return changed


def _why_not(account: Account | None, *, matches: bool, readable: bool) -> str | None:
    if account is None:
        return "unknown"
    if not readable:
        return "unreadable_hash"
    if not matches:
        return "no_password" if account.password_hash is None else "wrong_password"
    return None if account.is_active else "inactive"
