"""The flows of an app's accounts, wired together."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import msgspec

from jam.accounts.audit import AuditLog, Recorder, open_audit_log
from jam.accounts.emails import Emails, EmailVerification
from jam.accounts.flow import Means
from jam.accounts.letters import Letters
from jam.accounts.mail import Mail, Mailer, open_mailer
from jam.accounts.manage import Management
from jam.accounts.outbox import Letter, Outbox
from jam.accounts.password_check import PasswordCheck
from jam.accounts.password_policy import PasswordPolicy
from jam.accounts.recover import Recovery
from jam.accounts.register import Registration
from jam.accounts.sign_in import SignIn, Stage
from jam.accounts.throttle import Throttle
from jam.accounts.users import UserStore
from jam.crypto.passwords import Passwords
from jam.errors import ConfigError
from jam.events import Event
from jam.jam import Jam

__all__ = ["Accounts"]


class Accounts:
    """Everything that people do with their accounts, free of HTTP.

    Nothing is read from the configuration, and nothing is opened, before it is first needed.

    Args:
        jam: The ``Jam``.
        users: Where the people are kept: ``SQLUsers``, or the app's own ``UserStore``.
        mailer: What sends mails; left out, what ``mail.url`` names.
        stages: More steps of signing in, after the password and the verified e-mail address.
        breached: ``breached(password) -> bool``: whether a password is known from somebody's breach; ``PwnedPasswords``
            is one that asks a service.
        refuse_when_unknown: Whether passwords are refused while that cannot be asked; if not, they are taken.
        texts: Other texts of mails; see ``jam.accounts.letters``.
        links: Other paths of the links in them.
        audit: Where the audit log is kept; left out, where ``audit.url`` says.

    Attributes:
        jam: The ``Jam``.
        users: Where the people are kept.
    """

    def __init__(
        self,
        jam: Jam,
        users: UserStore,
        *,
        mailer: Mailer | None = None,
        stages: Sequence[Stage] = (),
        breached: Callable[[str], bool] | None = None,
        refuse_when_unknown: bool = False,
        texts: Mapping[str, str] | None = None,
        links: Mapping[str, str] | None = None,
        audit: AuditLog | None = None,
    ) -> None:
        _check(users, "users", "SQLUsers(User, db), for example", ("get", "find", "create", "update", "changeable"))
        if mailer is not None:
            _check(mailer, "mailer", "an object with a method send(mail)", ("send",))
        for stage in stages:
            _check(stage, "a stage", "an object like jam.accounts.sign_in.Stage", ("name", "applies", "begin", "check"))
        if breached is not None and not callable(breached):
            raise ConfigError("What Accounts was given as breached is no function.", hint="Give it PwnedPasswords().")
        self.jam = jam
        self.users = users
        self._context: Callable[[], AbstractContextManager[object]] = nullcontext
        self._find_mailer: Callable[[], Mailer | None] = lambda: None
        self._prefix = "/auth"
        self._mailer = mailer
        self._stages = tuple(stages)
        self._breached, self._refuse_when_unknown = breached, refuse_when_unknown
        self._texts, self._links = texts, links
        self._audit = audit
        self._audit_opened = False
        self._is_recording = False
        self._flows: _Flows | None = None
        self._lock = threading.RLock()
        self._recorder: Recorder | None = None
        self._stop_hearing = jam.events.subscribe(self._hear)
        _all_accounts.add(self)

    def belong_to(
        self,
        context: Callable[[], AbstractContextManager[object]],
        find_mailer: Callable[[], Mailer | None],
        prefix: str = "/auth",
    ) -> None:
        """For extensions: what a framework has to add, before anything is used.

        Args:
            context: What mails are written in, in a thread of their own: the framework's context.
            find_mailer: What else may send mails: the framework's own way, stronger than ``mail.url``.
            prefix: Where the flows are: links in mails begin with it.
        """
        self._context, self._find_mailer, self._prefix = context, find_mailer, prefix

    @property
    def sign_in(self) -> SignIn:
        """What signs people in, and has them prove again who they are."""
        return self._wired().sign_in

    @property
    def registration(self) -> Registration:
        """What makes accounts."""
        return self._wired().registration

    @property
    def recovery(self) -> Recovery:
        """What gives people with a forgotten password their accounts back."""
        return self._wired().recovery

    @property
    def emails(self) -> Emails:
        """What verifies and changes e-mail addresses."""
        return self._wired().emails

    @property
    def management(self) -> Management:
        """What changes accounts, and ends them."""
        return self._wired().management

    @property
    def outbox(self) -> Outbox:
        """What sends mails after the response."""
        return self._wired().means.outbox

    @property
    def passwords(self) -> Passwords:
        """What hashes passwords."""
        return self._wired().means.passwords

    @property
    def policy(self) -> PasswordPolicy:
        """What passwords are taken."""
        return self._wired().means.policy

    @property
    def throttle(self) -> Throttle:
        """What counts attempts and mails."""
        return self._wired().means.throttle

    @property
    def audit(self) -> AuditLog | None:
        """Where it is kept what happened, if anywhere."""
        if not self._audit_opened:
            with self._lock:
                url = self.jam.settings.audit.url
                if not self._audit_opened and self._audit is None and url is not None:
                    self._audit = open_audit_log(url.value.decode())
                self._audit_opened = True
        return self._audit

    def _hear(self, event: Event) -> None:
        """Record what happens, from the first event on: the settings are final by then."""
        if not self._is_recording:
            with self._lock:
                if not self._is_recording:
                    self._begin_recording()
        # Not subscribed itself: who listens to the stream from now on has missed what happens this very moment.
        if self._recorder is not None:
            self._recorder.hear(event)

    def _begin_recording(self) -> None:
        log = self.audit
        if log is None:
            self._stop_hearing()
        else:
            self._recorder = Recorder(log, self.jam.clock)
            # What is counted is written at the end of the process at the latest.
            weakref.finalize(self, self._recorder.write_counts)
        self._is_recording = True

    def _wired(self) -> _Flows:
        if self._flows is None:
            with self._lock:
                if self._flows is None:
                    self._flows = self._wire()
        return self._flows

    def _wire(self) -> _Flows:
        jam, users, settings = self.jam, self.users, self.jam.settings
        clock, events = jam.clock, jam.events
        passwords = Passwords(settings.passwords)
        policy = PasswordPolicy(
            settings.passwords,
            app_name=settings.name,
            breached=self._breached,
            refuse_when_unknown=self._refuse_when_unknown,
            clock=clock,
            events=events,
        )
        key = jam.derived_keys("throttling HS256").current.sign(b"throttling")
        throttle = Throttle(jam.store, key, settings.throttling, clock=clock, events=events)
        check = PasswordCheck(users, passwords, throttle, store=jam.store, clock=clock, events=events)
        letters = Letters(
            users, jam.one_time_tokens, settings, texts=self._texts, links=self._links, prefix=self._prefix
        )
        mailer = self._mailer or self._find_mailer() or open_mailer(settings.mail)
        if mailer is not None:
            letters.check_base_url()  # now, and not when the first mail is written

        def write(letter: Letter) -> Mail | None:
            with self._context():
                return letters.write(letter)

        means = Means(
            jam=jam, users=users, passwords=passwords, check=check, policy=policy, throttle=throttle,
            outbox=Outbox(jam.store, mailer, write, clock=clock, events=events), audit=self.audit,
        )  # fmt: skip
        emails = Emails(means)
        if settings.accounts.require_verified_email and "email_verified" not in users.changeable:
            raise ConfigError(
                "accounts.require_verified_email is set, and the app's model has no place to note it.",
                hint="Add a column email_verified (Boolean) or email_verified_at (DateTime).",
            )
        first = [EmailVerification(emails)] if settings.accounts.require_verified_email else []
        return _Flows(
            means=means, emails=emails, sign_in=SignIn(means, [*first, *self._stages]),
            registration=Registration(means), recovery=Recovery(means), management=Management(means),
        )  # fmt: skip


def _check(given: object, name: str, hint: str, members: Sequence[str]) -> None:
    """Refuse what cannot be it, now and not at the first sign-in."""
    if isinstance(given, type) or not all(hasattr(given, member) for member in members):
        raise ConfigError(f"What Accounts was given as {name} is none.", hint=f"Give it {hint}.")


_all_accounts: weakref.WeakSet[Accounts] = weakref.WeakSet()


def _after_fork() -> None:
    # Another thread of the parent may have held one at the moment of the fork; here there is none.
    for accounts in list(_all_accounts):
        accounts._lock = threading.RLock()  # noqa: SLF001 - this module's own class


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class _Flows(msgspec.Struct, frozen=True, kw_only=True):
    means: Means
    emails: Emails
    sign_in: SignIn
    registration: Registration
    recovery: Recovery
    management: Management
