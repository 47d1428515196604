"""Keys at rest: a directory of JWK files (RFC 7517), each ``next``, ``current`` or ``retired``.

A key's file, ``<kid>.jwk.json``, is written once and never changed. ``states.json`` says which key is in which state,
and every change is one new ``states.json`` that takes the place of the old one: readers see all of a rotation or
nothing of it, whenever it is interrupted. Needs a POSIX system: permissions, and ``flock``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import math
import os
import re
import secrets
import stat
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from jam.crypto.encoding import json_encode
from jam.crypto.keys import Key, KeySet
from jam.errors import ConcurrentUpdate, ConfigError, InvalidKey, InvalidValue

__all__ = ["KeyDirectory", "KeyEntry", "RefreshedKeys"]

logger = logging.getLogger("jam.keys")

_STATES = "states.json"
_LOCK = ".lock"
_SUFFIX = ".jwk.json"
_UNFINISHED = ".new-"
_GENERATE = "Make the first key with: flask jam keys generate"
_MAX_BYTES = 64 * 1024  # of one file
_MAX_KEYS = 64
_RETRY_AFTER = 10.0  # seconds
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a named pipe must not keep us waiting

_Kid = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{43}\Z")]  # an RFC 7638 thumbprint, and nothing else, names a file
_KEY_FILE = re.compile(r"([A-Za-z0-9_-]{43})\.jwk\.json", re.ASCII)
_Time = Annotated[float, Meta(ge=0, lt=253402300800)]  # the end of the year 9999: dates go no further
_Signature = tuple[int, ...]


class KeyEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key of the directory, without the key.

    Attributes:
        kid: Its name, the RFC 7638 thumbprint.
        algorithm: Its ``alg``.
        state: ``next`` (announced, signs after the next rotation), ``current`` (signs) or ``retired`` (verifies what it
            signed).
        created_at: When it was made, in seconds since the epoch.
        since: When it came into its state, in seconds since the epoch.
    """

    kid: _Kid
    algorithm: str
    state: Literal["next", "current", "retired"]
    created_at: _Time
    since: _Time


class _States(Struct, frozen=True, forbid_unknown_fields=True):
    keys: tuple[KeyEntry, ...] = ()


_DECODE = msgspec.json.Decoder(_States).decode
_ORDER = {"next": 0, "current": 1, "retired": 2}


class KeyDirectory:
    """A directory of keys that sign access tokens.

    As ``sshd`` does, it refuses a directory that others can write to, and a file that others can read. Every change is
    on disk when its method returns; of two at once, one is refused.

    Args:
        path: The directory. ``generate`` makes it, but not its parents.
        clock: Seconds since the epoch.

    Raises:
        ConfigError: If there can be no such path.
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Callable[[], float] = time.time) -> None:
        self.path = Path(path)
        self._clock = clock
        try:
            usable = b"\0" not in os.fsencode(self.path)
        except UnicodeEncodeError:
            usable = False
        if not usable:
            raise ConfigError("The path of the key directory cannot be one.")

    # -- reading --------------------------------------------------------------------------------------------

    def list(self) -> tuple[KeyEntry, ...]:
        """Every key's entry: the next one, the current one, and the retired ones, the latest first.

        Raises:
            ConfigError: If the directory cannot be read or is not sound.
        """
        with self._opened() as directory:
            entries, _ = self._read_states(directory)
        return tuple(sorted(entries, key=lambda entry: (_ORDER[entry.state], -entry.since)))

    def keys(self, *others: Key) -> KeySet:
        """The current key, which signs, and the others, which verify.

        Args:
            others: More keys that verify.

        Raises:
            ConfigError: If the directory cannot be read, is not sound or has no current key, or a file is not a sound
                key or can be read by others; it names the file and nothing that is in it.
        """
        return self.load(*others)[0]

    def load(self, *others: Key) -> tuple[KeySet, _Signature]:
        """As ``keys``, and with the signature the directory had then."""
        with self._opened() as directory:
            entries, signature = self._read_states(directory)
            while True:
                try:
                    return self._key_set(directory, entries, others), signature
                except FileNotFoundError as error:
                    # A key may have been removed in between, and then no longer be named.
                    known, (entries, signature) = entries, self._read_states(directory)
                    if entries == known:
                        raise self._unfit(error.filename, "is missing") from None

    def signature(self) -> _Signature | None:
        """What is another whenever the keys are others; costs one look at the file system.

        Returns:
            Numbers to compare; ``None`` if there is nothing to read.
        """
        try:
            return _signature(os.stat(self.path / _STATES))  # noqa: PTH116 - Path.stat costs as much again
        except OSError:
            return None

    def _key_set(self, directory: int, entries: Iterable[KeyEntry], others: Iterable[Key]) -> KeySet:
        keys = {entry: self._read_key(directory, entry) for entry in entries}
        current = [key for entry, key in keys.items() if entry.state == "current"]
        if not current:
            raise ConfigError(f"The key directory {self.path} has no current key.", hint=_GENERATE)
        # Only the key that signs stays in memory with its private half.
        public = [Key.from_jwk(key.to_jwk()) for entry, key in keys.items() if entry.state != "current"]
        return KeySet(*current, *public, *others)

    def _read_key(self, directory: int, entry: KeyEntry) -> Key:
        name = entry.kid + _SUFFIX
        text, _ = self._read(directory, name)
        try:
            key = Key.from_jwk(text)
        except InvalidKey:  # the cause is dropped: it may quote what is in the file
            raise self._unfit(name, "does not hold a sound key") from None
        if (key.kid, key.thumbprint(), key.algorithm) != (entry.kid, entry.kid, entry.algorithm) or not key.can_sign:
            raise self._unfit(name, f"does not hold the key that {_STATES} names")
        return key

    def _read_states(self, directory: int) -> tuple[tuple[KeyEntry, ...], _Signature]:
        try:
            text, status = self._read(directory, _STATES)
        except FileNotFoundError:
            raise ConfigError(f"The key directory {self.path} has no {_STATES}.", hint=_GENERATE) from None
        try:
            entries = _DECODE(text).keys
        except msgspec.MsgspecError:
            raise self._unfit(_STATES, "is not sound") from None
        states, kids = [entry.state for entry in entries], {entry.kid for entry in entries}
        if max(states.count("next"), states.count("current")) > 1 or len(kids) < len(entries):
            raise self._unfit(_STATES, "is not sound")
        return entries, _signature(status)

    def _read(self, directory: int, name: str) -> tuple[bytes, os.stat_result]:
        """A file's content, and what it was like when it was read.

        Raises:
            FileNotFoundError: If there is none of that name.
            ConfigError: If it is none that Jam would have made.
        """
        try:
            with open(name, "rb", opener=lambda name, _: os.open(name, _OPEN, dir_fd=directory)) as file:
                status = os.fstat(file.fileno())
                self._check_file(name, status)
                return file.read(_MAX_BYTES), status
        except FileNotFoundError:
            raise
        except OSError as error:
            why = "is a symbolic link" if error.errno == errno.ELOOP else f"cannot be read: {error.strerror}"
            raise self._unfit(name, why) from None

    def _check_file(self, name: str, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise self._unfit(name, "is not a regular file")
        if stat.S_IMODE(status.st_mode) & ~0o600:
            raise self._unfit(name, "has other permissions than 0600", hint=f"Run: chmod 600 {self.path / name}")
        if status.st_size > _MAX_BYTES:
            raise self._unfit(name, "is too long")

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        """A descriptor of the directory, so that all files are looked for in the same one."""
        try:
            directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ConfigError(f"There is no key directory {self.path}.", hint=_GENERATE) from None
        except OSError as error:
            raise ConfigError(f"The key directory {self.path} cannot be read: {error.strerror}.") from None
        try:
            self._check(os.fstat(directory))
            yield directory
        finally:
            os.close(directory)

    def _check(self, status: os.stat_result) -> None:
        if stat.S_IMODE(status.st_mode) & 0o022:
            raise ConfigError(
                f"The key directory {self.path} can be changed by others.", hint=f"Run: chmod 700 {self.path}"
            )
        if os.geteuid() and status.st_uid not in (0, os.geteuid()):
            raise ConfigError(
                f"The key directory {self.path} belongs to another user.", hint="Run the app as the user it belongs to."
            )

    def _unfit(self, name: str, why: str, *, hint: str | None = None) -> ConfigError:
        return ConfigError(f"{self.path / name} {why}.", hint=hint)

    # -- changing -------------------------------------------------------------------------------------------

    def generate(self, algorithm: str = "ES256") -> KeyEntry:
        """Make a key: the current one if there is none, or else the next one.

        A next key that is there already gives way: it has not signed anything.

        Args:
            algorithm: An asymmetric one; see ``Key.generate``.

        Returns:
            The new key's entry.

        Raises:
            InvalidKey: If there is no such algorithm, or it is for shared secrets.
            ConcurrentUpdate: If somebody else is changing the keys.
            ConfigError: If the directory cannot be changed or is not sound.
        """
        key = _new_key(algorithm)
        if self.signature() is None:
            self._begin()
        with self._changing() as (directory, entries):
            has_current = any(entry.state == "current" for entry in entries)
            made = self._entry(key, "next" if has_current else "current")
            self._commit(directory, [made, *(entry for entry in entries if entry.state != made.state)], key)
        return made

    def rotate(self) -> KeyEntry:
        """Sign with the next key and retire the current one; then announce another next key of the same algorithm.

        Without a next key, one is made and signs at once: processes that share the directory learn of it when they see
        its first token, but those that fetch the published keys may have to fetch them again.

        Returns:
            The entry of the key that signs from now on.

        Raises:
            ConcurrentUpdate: If somebody else is changing the keys.
            ConfigError: If there is no current key, or the directory cannot be changed or is not sound.
        """
        with self._changing() as (directory, entries):
            by_state = {entry.state: entry for entry in entries}
            current = by_state.get("current")
            if current is None:
                raise ConfigError(f"The key directory {self.path} has no current key.", hint=_GENERATE)
            new = []
            following = by_state.get("next")
            if following is None:
                new.append(_new_key(current.algorithm))
                following = self._entry(new[0], "next")
            new.append(_new_key(following.algorithm))
            promoted = self._moved(following, "current")
            retired = [entry for entry in entries if entry.state == "retired"]
            self._commit(
                directory, [self._entry(new[-1], "next"), promoted, self._moved(current, "retired"), *retired], *new
            )
        return promoted

    def prune(self, older_than: float) -> tuple[KeyEntry, ...]:
        """Remove the keys that were retired some time ago: what they signed is refused from then on.

        Args:
            older_than: In seconds; ``access_tokens.max_lifetime``, and what processes take to see a rotation, lets the
                last token of a key expire first. 0 removes every retired key.

        Returns:
            The entries of the removed keys.

        Raises:
            InvalidValue: If that is no such time.
            ConcurrentUpdate: If somebody else is changing the keys.
            ConfigError: If the directory cannot be changed or is not sound.
        """
        if not 0 <= older_than < math.inf:
            raise InvalidValue("older_than is a number of seconds, 0 or more.")
        now = self._clock()
        with self._changing() as (directory, entries):
            gone = tuple(e for e in entries if e.state == "retired" and now - e.since >= older_than)
            kept = [entry for entry in entries if entry not in gone]
            if gone:
                self._commit(directory, kept)
            else:
                self._sweep(directory, kept)
        return gone

    def _entry(self, key: Key, state: Literal["next", "current"]) -> KeyEntry:
        now = self._clock()
        return KeyEntry(kid=key.kid, algorithm=key.algorithm, state=state, created_at=now, since=now)

    def _moved(self, entry: KeyEntry, state: Literal["current", "retired"]) -> KeyEntry:
        return msgspec.structs.replace(entry, state=state, since=self._clock())

    def _begin(self) -> None:
        """Make the directory and a ``states.json`` that names no key.

        Raises:
            ConfigError: If there are keys whose states are lost: they would be swept away.
        """
        try:
            with contextlib.suppress(FileExistsError):
                self.path.mkdir(0o700)
        except OSError as error:
            raise ConfigError(f"The key directory {self.path} cannot be made: {error.strerror}.") from None
        with self._locked() as directory:
            names = os.listdir(directory)  # noqa: PTH208 - a descriptor, not a path
            if any(_KEY_FILE.fullmatch(name) for name in names):
                raise ConfigError(
                    f"The key directory {self.path} holds keys and no {_STATES}.",
                    hint=f"Restore {_STATES}, or move the keys away.",
                )
            if _STATES not in names:
                self._write(directory, _STATES, json_encode(_States()))

    @contextlib.contextmanager
    def _changing(self) -> Iterator[tuple[int, tuple[KeyEntry, ...]]]:
        with self._locked() as directory:
            yield directory, self._read_states(directory)[0]

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        with self._opened() as directory:
            try:
                with self._lock(directory):
                    yield directory
            except OSError as error:
                raise ConfigError(
                    f"The key directory {self.path} cannot be changed: {error.strerror}.",
                    hint="Run the command as the user that the directory belongs to.",
                ) from None

    @contextlib.contextmanager
    def _lock(self, directory: int) -> Iterator[None]:
        descriptor = self._create(directory, _LOCK, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise ConcurrentUpdate(
                f"Somebody else is changing the keys in {self.path}; nothing was changed.",
                hint="See what flask jam keys list says before you try again.",
            ) from None
        finally:
            os.close(descriptor)

    def _commit(self, directory: int, entries: Iterable[KeyEntry], *new: Key) -> None:
        """Make this the state of the directory; new keys' files come first, so that whoever reads of one finds it."""
        entries = tuple(entries)
        if len(entries) > _MAX_KEYS:
            raise ConfigError(
                f"The key directory {self.path} would hold more than {_MAX_KEYS} keys.",
                hint="Run: flask jam keys prune",
            )
        for key in new:
            self._write(directory, key.kid + _SUFFIX, json_encode(key.to_jwk(private=True)))
        self._write(directory, _STATES, json_encode(_States(entries)))
        self._sweep(directory, entries)

    def _sweep(self, directory: int, entries: Iterable[KeyEntry]) -> None:
        """Remove the keys that are not in any state, and what an interrupted change has left behind."""
        kids = {entry.kid for entry in entries}
        for name in os.listdir(directory):
            match = _KEY_FILE.fullmatch(name)
            if name.startswith(_UNFINISHED) or (match and match[1] not in kids):
                os.unlink(name, dir_fd=directory)
        os.fsync(directory)

    def _write(self, directory: int, name: str, text: bytes) -> None:
        """Write a file that is there whole or not at all, also after a power cut."""
        unfinished = _UNFINISHED + secrets.token_hex(8)
        with open(self._create(directory, unfinished, os.O_WRONLY | os.O_EXCL), "wb") as file:  # noqa: PTH123
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)

    def _create(self, directory: int, name: str, flags: int) -> int:
        descriptor = os.open(name, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
        if os.geteuid() == 0:
            # What root makes for the app must be the app's to read.
            owner = os.fstat(directory)
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        return descriptor


class RefreshedKeys:
    """The keys of a directory as a process holds them: read again when they have changed.

    When they cannot be read any more, the former ones stay and the log says why; reading is tried again ten seconds
    later. Safe to use from many threads and after a fork.

    Args:
        directory: The directory.
        others: More keys that verify.
        clock: Seconds since the epoch.

    Raises:
        ConfigError: If the keys cannot be read now.
    """

    def __init__(self, directory: KeyDirectory, others: Iterable[Key] = (), *, clock: Callable[[], float]) -> None:
        self._directory = directory
        self._others = tuple(others)
        self._clock = clock
        self._lock = threading.Lock()
        self._failed_at = -math.inf
        self._known = directory.load(*self._others)
        _all.add(self)

    def newest(self) -> KeySet:
        """The keys as they are now; the same object as long as they are the same."""
        keys, signature = self._known
        if self._directory.signature() == signature:
            return keys
        with self._lock:
            keys, signature = self._known
            if self._directory.signature() == signature or 0 <= self._clock() - self._failed_at < _RETRY_AFTER:
                return keys
            try:
                self._known = self._directory.load(*self._others)
            except ConfigError as error:
                self._failed_at = self._clock()
                logger.error("The keys have changed and the new ones cannot be used: %s", error)  # noqa: TRY400 - all is said
        return self._known[0]


_all: weakref.WeakSet[RefreshedKeys] = weakref.WeakSet()


def _after_fork() -> None:
    # Another thread of the parent may have held one at the moment of the fork; here there is none.
    for keys in list(_all):
        keys._lock = threading.Lock()  # noqa: SLF001 - this module's own class


os.register_at_fork(after_in_child=_after_fork)


def _signature(status: os.stat_result) -> _Signature:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _new_key(algorithm: str) -> Key:
    if algorithm.startswith("HS"):
        raise InvalidKey(
            "A key directory is for asymmetric keys.",
            hint="Use ES256 or EdDSA; a shared secret is configured as access_tokens.secret.",
        )
    return Key.generate(algorithm)
