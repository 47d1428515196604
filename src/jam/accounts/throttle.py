"""Throttling: how often somebody may try a password, or have a mail sent (ASVS 6.1.1, 6.3.1, NIST SP 800-63B-4 3.2.2).

An attempt is counted before the password is looked at, so that parallel guesses cannot slip through:

- by address, under all names, in a window: one machine that tries one password at many names;
- by name and address, in the same window: one machine that tries many passwords at one name;
- by name, all addresses together, in a day: many machines that try many passwords at one name.

The last of these alone would let strangers lock a person out. So an address from which somebody signed in under a name
is *known* for that name, and known addresses have a day's count of their own, which no stranger can use up. Under one
name at most ``attempts_per_account`` guesses from unknown addresses and as many from known ones are looked at in a day:
100 by default from any mix of addresses, known ones among them or not, unless the person signs in in between. A day
begins with its first count, so that a day by the clock may touch two. Who has two names (a user name, an e-mail
address) has these counts twice: a shared one would tell that both names are one person's.

What is counted are guesses that were looked at and have not turned out well: an attempt that succeeds is taken back, so
that of many colleagues behind one address none is in another's way. An attempt that is refused stays in the count that
refused it and is taken back from those that had let it pass: who hammers at one name does not use up the address.

Nothing in the store can be read: names and addresses are in it as HMAC-SHA256 with a key of the app's alone, because
people type passwords into user-name fields. What is known of an address is a record of nobody's real subject but of the
hashed name, since the subject is not known before the password is; it dies by itself, ``known_for`` after the last use,
and says nothing to whoever finds it after the account is gone. If the store cannot be asked, nobody may try.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from jam.config import YEAR, ThrottlingSettings
from jam.crypto.handles import id_for
from jam.errors import GenerationOutdated, InvalidKey, InvalidValue, RecordExists, TooManyAttempts
from jam.events import Events, Throttled
from jam.stores.base import Record, Store, check_subject

__all__ = ["KNOWN_ADDRESS", "Attempt", "Throttle", "address_key"]

KNOWN_ADDRESS = "known_address"  #: the kind of record that says that an address is known for a name
_UNKNOWN = "unknown"
_DAY = 86400.0
_HOUR = 3600.0
_MIN_KEY = 32  # bytes
_MAX_NAME = 4096  # characters
_NAT64 = IPv6Network("64:ff9b::/96")


def address_key(address: str) -> str:
    """What counts as one address: who has one of these has them all.

    An IPv4 address stands for itself. An IPv6 address stands for its /64 network, within which a host chooses addresses
    at will (RFC 4291 2.5.1, RFC 8981). Where an IPv4 address is within an IPv6 one, it is that: mapped (RFC 4291
    2.5.5.2), 6to4 (RFC 3056; a /48 for each IPv4 address), Teredo (RFC 4380; all clients of a server share a /64) and
    the well-known prefix of NAT64 (RFC 6052; the whole of IPv4 in one /64). A prefix that a network chose itself for
    NAT64 cannot be told from any other. Zone ids are left out.

    Args:
        address: As the server tells it, such as Flask's ``request.remote_addr``.

    Returns:
        An IPv4 address, an IPv6 network, or ``"unknown"`` for whatever is neither: all of these together are one.
    """
    try:
        parsed = ip_address(address) if isinstance(address, str) else None
    except ValueError:
        parsed = None
    if parsed is None:
        return _UNKNOWN
    inner = parsed if isinstance(parsed, IPv4Address) else _ipv4_within(parsed)
    if inner is not None:
        return str(inner)
    return str(IPv6Network((int(parsed), 64), strict=False))


def _ipv4_within(address: IPv6Address) -> IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]  # the client; the other one is its server
    return IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None


class Attempt:
    """A sign-in that may be tried. As long as nothing is said of it, it has failed. Made by ``Throttle.sign_in``."""

    def __init__(
        self, succeed: Callable[[], int], take_back: Callable[[], None], forget_address: Callable[[], None]
    ) -> None:
        self._succeed = succeed
        self._take_back = take_back
        self._forget_address = forget_address
        self._goes_on = False
        self._failures: int | None = None
        self._is_withdrawn = False

    def succeeded(self, subject: str) -> int:
        """The person proved who they are: the counts of their name begin anew, and their address is known from now on.

        The second time it changes nothing.

        Args:
            subject: Who they are.

        Returns:
            How many attempts under this name had failed before in this day, from all addresses (ASVS 6.3.5).

        Raises:
            InvalidValue: If the subject is none, or the attempt was withdrawn.
            StoreUnavailable: If the store cannot be asked.
        """
        check_subject(subject)
        if not subject or self._is_withdrawn:
            raise InvalidValue("An attempt succeeds as somebody, and once it was withdrawn never.")
        if self._failures is None:
            self._failures = self._succeed()
        return self._failures

    def goes_on(self) -> None:
        """The password was right, and another step is needed: what comes of it is another attempt.

        This one stays counted under its name until a later one succeeds, so that nobody who knows the password can
        guess at the next step for ever. It is taken back from the address alone, which has tried no names by it.

        Raises:
            StoreUnavailable: If the store cannot be asked.
        """
        if self._failures is None and not self._goes_on and not self._is_withdrawn:
            self._goes_on = True
            self._forget_address()

    def withdraw(self) -> None:
        """The password was not looked at, because the process was busy, for example: nothing was tried.

        Not for a wrong password, nor for one that was right without being enough.

        Raises:
            StoreUnavailable: If the store cannot be asked.
        """
        if self._failures is None:
            self._is_withdrawn = True
            self._take_back()


class _Counts:
    """The counts that have let one request pass so far.

    Args:
        store: Where the counts are.
        clock: Seconds since the epoch.
        exceeded: Called when a count refuses for the first time in its window.
    """

    def __init__(self, store: Store, clock: Callable[[], float], exceeded: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._exceeded = exceeded
        self._names: list[str] = []

    def up(self, name: str, window: float, limit: int) -> int:
        """Count the request under one more name; returns how many there were before it."""
        counted = self._store.count_up(name, window, limit, self._clock())
        if counted.allowed:
            self._names.append(name)
            return counted.count - 1
        self.take_back()
        if counted.count == limit + 1:
            self._exceeded()
        raise TooManyAttempts(counted.retry_after)

    def take_back(self) -> None:
        """Nothing was tried. The second time it changes nothing.

        Never from the count that refused: a count may have begun anew meanwhile, and whoever was never let pass would
        take away from it what is another's.
        """
        while self._names:
            self._store.count_back(self._names.pop(), self._clock())


class Throttle:
    """Counts what is tried and refuses what is too much.

    Args:
        store: Where the counts and the known addresses are.
        key: At least 32 random bytes, used for nothing else.
        settings: The limits.
        clock: Seconds since the epoch.
        events: Hears of a count that is exceeded, when it is, and not of all that is refused until its window ends: a
            flood of attempts is no flood of events.

    Raises:
        InvalidKey: If the key is too short.
    """

    def __init__(
        self, store: Store, key: bytes, settings: ThrottlingSettings, *, clock: Callable[[], float], events: Events
    ) -> None:
        if len(key) < _MIN_KEY:
            raise InvalidKey(f"The key for throttling has at least {_MIN_KEY} bytes.")
        self._store = store
        self._key = key
        self._settings = settings
        self._clock = clock
        self._events = events

    # -- sign-in --------------------------------------------------------------------------------------------

    def sign_in(self, name: str, address: str | None) -> Attempt:
        """Count an attempt to sign in, before the password is looked at.

        The same happens for a name that nobody has.

        Args:
            name: What was given as user name or e-mail address, folded as the app compares it. Of more than 4096
                characters only the first ones are told apart.
            address: Where the request came from, or ``None`` if it was no request: then the day's count of unknown
                addresses alone decides.

        Returns:
            What to tell how it turned out.

        Raises:
            TooManyAttempts: If this one is too many; the password must not be looked at, right or wrong.
            StoreUnavailable: If the store cannot be asked.
        """
        settings = self._settings
        counts = self._counts("sign_in", address)
        place = None if address is None else address_key(address)
        if place is not None:
            # By address first: who tries many names is refused without leaving a trace of each name in the store.
            counts.up(self._hash("sign-in address", place), settings.window, settings.attempts_per_address)
            counts.up(self._hash("sign-in", name, place), settings.window, settings.attempts)
        is_known = place is not None and self._is_known(name, place)
        failures = counts.up(self._account(name, is_known=is_known), _DAY, settings.attempts_per_account)
        return Attempt(
            partial(self._succeed, name, place, is_known=is_known, failures=failures),
            counts.take_back,
            partial(self._forget_address, place),
        )

    def forgive(self, name: str, address: str | None = None) -> None:
        """Forget the failures under a name, for somebody who showed by mail that it is theirs.

        Args:
            name: As for ``sign_in``.
            address: Where they are: what failed from there under this name is forgotten, too.

        Raises:
            StoreUnavailable: If the store cannot be asked.
        """
        self.forget_addresses(name)
        for is_known in (False, True):
            self._store.count_reset(self._account(name, is_known=is_known))
        if address is not None:
            self._store.count_reset(self._hash("sign-in", name, address_key(address)))

    def forget_addresses(self, name: str) -> None:
        """No address is known for a name any more: it is somebody else's now, or a stranger had its password.

        Args:
            name: As for ``sign_in``.

        Raises:
            StoreUnavailable: If the store cannot be asked.
        """
        self._store.advance(self._hash("known", name), (KNOWN_ADDRESS,), self._clock())

    def _succeed(self, name: str, place: str | None, *, is_known: bool, failures: int) -> int:
        """Returns the failures under this name, those counted elsewhere included."""
        now = self._clock()
        limit = self._settings.attempts_per_account
        elsewhere = self._store.count_up(self._account(name, is_known=not is_known), _DAY, limit, now).count - 1
        elsewhere = min(elsewhere, limit)  # what was refused did not fail
        for each in (False, True):
            self._store.count_reset(self._account(name, is_known=each))
        if place is not None:
            self._store.count_reset(self._hash("sign-in", name, place))
            self._note(name, place, now)
        # Last, since it alone would count twice if a store that failed in between were asked once more.
        self._forget_address(place)
        return failures + elsewhere

    def _forget_address(self, place: str | None) -> None:
        if place is not None:
            self._store.count_back(self._hash("sign-in address", place), self._clock())

    def _account(self, name: str, *, is_known: bool) -> str:
        return self._hash("sign-in known" if is_known else "sign-in unknown", name)

    # -- known addresses ------------------------------------------------------------------------------------

    def _is_known(self, name: str, place: str) -> bool:
        return self._store.get(KNOWN_ADDRESS, self._known_id(name, place), self._clock()) is not None

    def _note(self, name: str, place: str, now: float) -> None:
        """Note that somebody signed in from there. What cannot be told from other addresses never becomes known."""
        if place == _UNKNOWN:
            return
        record_id = self._known_id(name, place)
        if self._store.get(KNOWN_ADDRESS, record_id, now, 0.0) is not None:
            return
        owner = self._hash("known", name)
        record = Record(
            kind=KNOWN_ADDRESS, id=record_id, subject=owner,
            generation=self._store.marks(owner, "", now).generation(KNOWN_ADDRESS),
            created_at=now, touched_at=now, idle_for=self._settings.known_for, ends_at=now + 10 * YEAR,
        )  # fmt: skip
        try:
            self._store.add(record, now)
        except (RecordExists, GenerationOutdated):
            return  # somebody noted it at the same moment; or all known addresses were revoked, and this is one of them

    def _known_id(self, name: str, place: str) -> str:
        return id_for(self._hash("known", name), self._hash("known", name, place))

    # -- mail -----------------------------------------------------------------------------------------------

    def mail(self, to: str, address: str | None) -> None:
        """Count a mail before it is sent, so that nobody's mailbox is flooded by others (ASVS 6.3.1).

        Args:
            to: Whom it goes to, folded as the app compares addresses; an account or not.
            address: Where the request came from that asked for it, or ``None`` if it was no request.

        Raises:
            TooManyAttempts: If it is too many: it must not be sent.
            StoreUnavailable: If the store cannot be asked.
        """
        counts = self._counts("mail", address)
        if address is not None:
            counts.up(self._hash("mail address", address_key(address)), _HOUR, self._settings.mails_per_address)
        counts.up(self._hash("mail", to), _HOUR, self._settings.mails)

    def registration(self, address: str | None) -> None:
        """Count an account that is made at once, where everybody may: as many as mails, from one address.

        Args:
            address: Where the request comes from, or ``None`` if it is no request.

        Raises:
            TooManyAttempts: If it is too many.
            StoreUnavailable: If the store cannot be asked.
        """
        if address is not None:
            counts = self._counts("registration", address)
            counts.up(self._hash("registration", address_key(address)), _HOUR, self._settings.mails_per_address)

    # -- counts ---------------------------------------------------------------------------------------------

    def _counts(self, what: str, address: str | None) -> _Counts:
        return _Counts(self._store, self._clock, partial(self._tell, what, address))

    def _tell(self, what: str, address: str | None) -> None:
        self._events.emit(Throttled(at=self._clock(), subject=None, address=address, what=what))

    def _hash(self, purpose: str, *parts: str) -> str:
        """What the store knows of names and addresses. Each part comes after its length: ``ab, c`` is not ``a, bc``."""
        encoded = [part[:_MAX_NAME].encode("utf-8", "surrogatepass") for part in (purpose, *parts)]
        text = b"".join(len(part).to_bytes(4, "big") + part for part in encoded)
        return hmac.digest(self._key, text, "sha256").hex()
