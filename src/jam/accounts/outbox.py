"""The outbox: mail leaves after the response, and a crash does not empty it.

What is to be sent is a record in the store before anybody is told that it will be sent; a thread sends it later, here
or in any other process. A *letter* says only what the mail is to be about. The mail itself, with the links in it, is
written when it is sent, so that nothing secret rests in the outbox; e-mail addresses do, and what else is in
``data``. A letter to somebody who has no account costs a request the same as any other.

Who sends a letter claims it first, by a ``swap``: of many workers at once one sends it. If that one dies before it
can say what became of the letter, another sends it when the claim has run out: a mail is sent at least once, and
twice where a process died, or the store could not be asked, just after it had left.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from jam.accounts.mail import Mail, Mailer
from jam.crypto.handles import new_id
from jam.errors import ConfigError, GenerationOutdated, InvalidValue, MailNotSent
from jam.events import Events, MailFailed
from jam.stores.base import MAX_LIST, Record, Store, check_subject
from jam.stores.forks import around_forks

__all__ = ["CLAIM", "KIND", "MAX_AGE", "MAX_ATTEMPTS", "PAUSES", "SUBJECT", "Delivered", "Letter", "Outbox"]

logger = logging.getLogger("jam.accounts")

KIND = "letter"
SUBJECT = "jam:outbox"  #: under which all letters are: a store lists what one subject has
CLAIM = 600.0  #: for how long a letter is its sender's alone, in seconds: longer than any ``mail.timeout``
PAUSES = (60.0, 300.0, 900.0, 3600.0, 21600.0)  #: after each failure, the last one again and again, in seconds
MAX_ATTEMPTS = 8
MAX_AGE = 86400.0  #: an older letter is not tried again, in seconds
_LIFETIME = 3 * 86400.0
_MAX_REST = 300.0  # seconds between two looks at the outbox at most: a clock may be set meanwhile
_TEMPLATE = re.compile(r"[a-z_]{1,64}", re.ASCII)


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """What a mail is to be about.

    Attributes:
        template: Which mail it is, such as ``reset_password``.
        to: The e-mail address as it was given, ``""`` for nobody's.
        subject: Whose account it is about, if that is known.
        data: What else the mail needs, as JSON has it; nothing secret.
        created_at: Seconds since the epoch.
        id: Its public name.
        attempts: How many times somebody began to send it.
    """

    template: str
    to: str
    subject: str | None = None
    data: dict[str, Any] = {}
    created_at: float
    id: str
    attempts: int = 0

    def __repr__(self) -> str:
        """Its name and kind alone: of somebody who registers, the data holds the hash of their password."""
        return f"<Letter {self.id!r}: {self.template}>"


class Delivered(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the letters that were due.

    Attributes:
        sent: How many mails left.
        failed: How many did not, whether they are tried again or not.
        dropped: How many letters needed no mail.
        next_at: When there is something to do again, in seconds since the epoch; ``None`` if the outbox is empty.
    """

    sent: int
    failed: int
    dropped: int
    next_at: float | None


class _Kept(msgspec.Struct, frozen=True):
    """A letter as it is in its record's data."""

    template: str
    to: str
    subject: str | None
    data: dict[str, Any]
    attempts: int
    due_at: float  # from when on it may be claimed
    pid: int  # of the process that added it


class Outbox:
    """Keeps letters and sends them.

    Args:
        store: Where the letters are.
        mailer: Who sends; ``None`` if mail is not configured.
        write: Makes the mail of a letter, with fresh links; ``None`` if there is nothing to send: the address is
            nobody's, say. Called in the thread that delivers, once for each attempt.
        clock: Seconds since the epoch.
        events: Hears of what could not be sent.
        background: Deliver in a thread of this process, which begins when a letter is added and ends when none is left.
            Without it somebody calls ``deliver`` now and then.
    """

    def __init__(
        self,
        store: Store,
        mailer: Mailer | None,
        write: Callable[[Letter], Mail | None],
        *,
        clock: Callable[[], float],
        events: Events,
        background: bool = True,
    ) -> None:
        self._store = store
        self._mailer = mailer
        self._write = write
        self._clock = clock
        self._events = events
        self._background = background
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._woken = False
        self._ending = False
        _all_outboxes.add(self)

    @property
    def can_send(self) -> bool:
        """Whether mail is configured."""
        return self._mailer is not None

    # -- adding ---------------------------------------------------------------------------------------------

    def add(self, template: str, *, to: str, subject: str | None = None, data: Mapping[str, Any] | None = None) -> None:
        """Keep a letter; when this returns it will be sent, whatever becomes of this process.

        Args:
            template: Which mail it is: a-z and underscore.
            to: An e-mail address, or ``""`` for nobody: a letter that ``write`` will drop, and that costs the
                caller the same. Whether mail can be sent to it shows later: what an app kept for years is no error.
            subject: Whose account it is about, if that is known.
            data: What else the mail needs, as JSON has it. It rests in the store as it is: nothing secret.

        Raises:
            ConfigError: If mail is not configured.
            InvalidValue: If an argument cannot be what it is.
            StoreUnavailable: If it could not be kept.
        """
        self._configured_mailer()
        if not isinstance(template, str) or not _TEMPLATE.fullmatch(template):
            raise InvalidValue("A mail's template has a name of 1 to 64 characters of a-z and underscore.")
        if not isinstance(to, str):
            raise InvalidValue("A letter goes to an e-mail address.")
        if subject is not None:
            check_subject(subject)
        if data is not None and not isinstance(data, Mapping):
            raise InvalidValue("data is a mapping.")
        now = self._clock()
        kept = _Kept(template, to, subject, dict(data or {}), attempts=0, due_at=now, pid=os.getpid())
        generation = self._store.marks(SUBJECT, "", now).generation(KIND)
        record = Record(
            kind=KIND, id=new_id(SUBJECT), subject=SUBJECT, generation=generation, data=msgspec.structs.asdict(kept),
            created_at=now, touched_at=now, ends_at=now + _LIFETIME,
        )  # fmt: skip
        self._store.add(record, now)
        if self._background:
            self.wake()

    def _configured_mailer(self) -> Mailer:
        if self._mailer is None:
            raise ConfigError(
                "No mail can be sent: there is no mail.url.",
                hint="Set mail.url to smtp://user:password@host:587 and mail.sender, or in development mail.url to "
                "console://.",
            )
        return self._mailer

    # -- delivering -----------------------------------------------------------------------------------------

    def deliver(self, limit: int = 100) -> Delivered:
        """Send what is due, the oldest first. Any number of threads, processes and hosts may do so at once.

        Args:
            limit: At most so many letters.

        Raises:
            ConfigError: If mail is not configured.
            InvalidValue: If the limit is no positive number.
            StoreUnavailable: If the letters cannot be read, or it could not be noted what became of one.
        """
        mailer = self._configured_mailer()
        if limit.__class__ is not int or limit < 1:
            raise InvalidValue("At least one letter is delivered at a time.")
        now = self._clock()
        letters = list(self._letters(now))
        waiting = [kept.due_at for _, kept in letters if kept.due_at > now]
        due = [(record, kept) for record, kept in letters if kept.due_at <= now]
        due.sort(key=lambda letter: letter[0].created_at)
        results = [self._deliver(record, kept, mailer) for record, kept in due[:limit]]
        waiting += [at for _, at in results if at is not None] + [kept.due_at for _, kept in due[limit:]]
        outcomes = [outcome for outcome, _ in results]
        return Delivered(
            sent=outcomes.count("sent"), failed=outcomes.count("failed"), dropped=outcomes.count("dropped"),
            next_at=min(waiting, default=None),
        )  # fmt: skip

    def waiting(self) -> list[Letter]:
        """What has not been sent yet, the oldest first.

        Raises:
            StoreUnavailable: If nobody can tell.
        """
        letters = [_letter(record, kept) for record, kept in self._letters(self._clock())]
        return sorted(letters, key=lambda letter: letter.created_at)

    def _letters(self, now: float) -> Iterator[tuple[Record, _Kept]]:
        after = ""
        while page := self._store.list(SUBJECT, KIND, now, after, MAX_LIST):
            for record in page:
                kept = _read(record)
                # Where a fork copied the letters with all else, the child's are its parent's to send.
                if kept is not None and (self._store.shared or kept.pid == os.getpid()):
                    yield record, kept
            after = page[-1].id

    def _deliver(self, record: Record, kept: _Kept, mailer: Mailer) -> tuple[str, float | None]:
        """What became of a letter, and when it needs another look."""
        now = self._clock()
        # An attempt counts from its beginning: a letter that kills whoever writes it must come to an end, too.
        kept = msgspec.structs.replace(kept, attempts=kept.attempts + 1, due_at=now + CLAIM)
        claimed = self._keep(record, kept, now)
        if claimed is None:
            return "others", kept.due_at
        if kept.attempts > MAX_ATTEMPTS:
            return self._failed(claimed, kept, gave_up=True)
        try:
            mail = self._write(_letter(record, kept))
            if mail is not None:
                mailer.send(mail)
        except MailNotSent as error:
            logger.warning("The mail %s could not be sent: %s", kept.template, error.hint)
            return self._failed(claimed, kept, gave_up=error.permanent)
        except Exception as error:  # noqa: BLE001 - the app's own code may raise anything
            # Without its text or traceback: what was being written is secret.
            logger.error("The mail %s could not be written: %s", kept.template, type(error).__name__)  # noqa: TRY400
            return self._failed(claimed, kept)
        self._store.remove(KIND, record.id)
        return ("dropped" if mail is None else "sent"), None

    def _failed(self, record: Record, kept: _Kept, *, gave_up: bool = False) -> tuple[str, float | None]:
        now = self._clock()
        due_at = now + PAUSES[min(kept.attempts, len(PAUSES)) - 1]
        gave_up = gave_up or kept.attempts >= MAX_ATTEMPTS or now - record.created_at >= MAX_AGE
        if gave_up:
            self._store.remove(KIND, record.id)
        elif self._keep(record, msgspec.structs.replace(kept, due_at=due_at), now) is None:
            return "failed", now + CLAIM  # it took so long that somebody else has claimed it
        self._events.emit(
            MailFailed(
                at=now, subject=kept.subject, template=kept.template,
                attempts=min(kept.attempts, MAX_ATTEMPTS), gave_up=gave_up,
            )
        )  # fmt: skip
        return "failed", None if gave_up else due_at

    def _keep(self, record: Record, kept: _Kept, now: float) -> Record | None:
        with contextlib.suppress(GenerationOutdated):  # the outbox was emptied
            changed = msgspec.structs.replace(record, data=msgspec.structs.asdict(kept))
            return self._store.swap(record, changed, now)
        return None

    # -- the thread -----------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Look now whether there is something to send, in this process's thread: what others have left behind, say."""
        with self._changed:
            self._woken = True
            if self._thread is not None and self._thread.is_alive():
                self._changed.notify_all()
                return
            self._ending = False
            self._thread = threading.Thread(target=self._work, name="jam-outbox", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the letter is safe: whoever looks next sends it
                self._thread = None
                logger.warning("No thread could be started to send mail; it is sent later.")

    def join(self, timeout: float | None = None) -> bool:
        """Let this process's thread send what is due now, and end it: what fails waits for whoever delivers next.

        Args:
            timeout: How long to wait for it, in seconds; ``None`` for ever.

        Returns:
            Whether it has ended.
        """
        with self._changed:
            thread = self._thread
            self._ending = True
            self._changed.notify_all()
        if thread is None:
            return True
        thread.join(timeout)
        return not thread.is_alive()

    def _work(self) -> None:
        next_at: float | None = None
        while self._has_work(next_at):
            try:
                next_at = self.deliver().next_at
            except Exception as error:  # noqa: BLE001 - whatever it was, the letters are still there
                logger.error("The outbox could not be emptied: %s", type(error).__name__)  # noqa: TRY400
                next_at = self._clock() + PAUSES[0]

    def _has_work(self, next_at: float | None) -> bool:
        """Rest until there is something to do again; without it, or when told to end, this was all."""
        with self._changed:
            wait = None if next_at is None else max(0.0, min(next_at - self._clock(), _MAX_REST))
            if wait:
                self._changed.wait_for(lambda: self._woken or self._ending, wait)
            if self._woken or (wait is not None and not (wait and self._ending)):
                self._woken = False
                return True
            self._thread = None
            return False

    # -- forks ----------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """See ``around_forks``."""
        self._changed.acquire()

    def after_fork_in_parent(self) -> None:
        """See ``around_forks``."""
        self._changed.release()

    def after_fork_in_child(self) -> None:
        """See ``around_forks``: the thread is the parent's, and so is what it was doing."""
        self._changed = threading.Condition()
        self._thread = None
        self._woken = False
        self._ending = False


def _read(record: Record) -> _Kept | None:
    try:
        return msgspec.convert(record.data, _Kept)
    except msgspec.ValidationError:  # one letter that nobody can read must not keep all others
        logger.error("A letter in the outbox cannot be read and is left there: %s", record.id)  # noqa: TRY400
        return None


def _letter(record: Record, kept: _Kept) -> Letter:
    return Letter(
        template=kept.template, to=kept.to, subject=kept.subject, data=kept.data, created_at=record.created_at,
        id=record.id, attempts=kept.attempts,
    )  # fmt: skip


_all_outboxes: weakref.WeakSet[Outbox] = weakref.WeakSet()

around_forks(
    _all_outboxes,
    before=Outbox.before_fork,
    after_in_parent=Outbox.after_fork_in_parent,
    after_in_child=Outbox.after_fork_in_child,
)
