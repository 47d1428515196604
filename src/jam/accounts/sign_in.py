"""Signing in: a password, and then whatever else an account needs, step by step.

The steps are an ordered list of stages. A stage says whether it applies to an account and whether an answer passes it;
e-mail verification is one, second factors are others. Between two steps nothing but a one-time token says how far
somebody has come; it proves nobody.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Protocol

import msgspec

from jam.accounts.flow import Flow, Means
from jam.accounts.names import name_key
from jam.accounts.password_check import Proof
from jam.accounts.throttle import Attempt
from jam.accounts.users import Account
from jam.errors import (
    BadCredentials,
    ConfigError,
    CredentialError,
    GenerationOutdated,
    InvalidValue,
    OneTimeTokenInvalid,
    SignInIncomplete,
)
from jam.events import Reauthenticated, SignedIn, SignInFailed

__all__ = ["SignIn", "Stage"]

PURPOSE = "sign_in"
_MAX_ANSWERS = 5  # to one sign-in; then it begins anew with the password (ASVS 6.6.3)


class Stage(Protocol):
    """A step of signing in, after the password.

    Attributes:
        name: Its name in ``SignInIncomplete.steps`` and in the API.
    """

    name: str

    def applies(self, account: Account) -> bool:
        """Whether this account has to take it, as it is now."""
        ...

    def begin(self, account: Account, address: str | None) -> None:
        """It is this one's turn: send the code, for example."""
        ...

    def check(self, account: Account, answer: Mapping[str, Any]) -> Sequence[str] | None:
        """What an answer proves, as authentication methods (RFC 8176); ``None`` if nothing can be told from it yet.

        Raises:
            CredentialError: If it is wrong.
        """
        ...


class SignIn(Flow):
    """Signs people in, in as many steps as it takes.

    Args:
        means: What it does its work with.
        stages: What comes after the password, in this order.
    """

    def __init__(self, means: Means, stages: Sequence[Stage]) -> None:
        super().__init__(means)
        self._stages = tuple(stages)
        if len(set(_names(self._stages))) < len(self._stages):  # by its name it is known which of them was taken
            raise ConfigError(
                "Two stages of signing in have one name.", hint=f"They are called {', '.join(_names(self._stages))}."
            )
        self._store = means.jam.store
        self._lifetime = means.jam.settings.accounts.sign_in_lifetime

    def start(self, name: str, password: str, *, address: str | None = None) -> Proof:
        """Sign somebody in by name and password.

        Args:
            name: A user name or an e-mail address.
            password: The password.
            address: Where the request comes from, if it is one.

        Returns:
            Who it is. Nothing is handed out yet: that is for whoever asks, with ``Proof.generation``.

        Raises:
            SignInIncomplete: If more is needed; it says what, and what to resume with.
            BadCredentials: If name and password do not belong together, or the account is not active.
            TooManyAttempts: If too many failed before.
            Busy: If too many passwords are being checked.
            StoreUnavailable: If nobody can tell.
        """
        proof, attempt = self._check.prove(name, password, address=address)
        due = self._due(proof.account, ())
        if not due:
            return self._finished(proof, attempt, address)
        attempt.goes_on()
        data = {
            "attempt": secrets.token_hex(16), "name": name_key(name), "done": [], "amr": list(proof.amr),
            "at": proof.at, "generations": dict(proof.generations),
        }  # fmt: skip
        try:
            token = self._tokens.issue(
                PURPOSE, proof.account.subject, lifetime=self._lifetime, state=(proof.account.password_hash,),
                data=data, generation=proof.generation("one_time_token"),
            )  # fmt: skip
        except GenerationOutdated:  # everything of theirs was ended while the password was checked
            raise BadCredentials from None
        due[0].begin(proof.account, address)
        raise SignInIncomplete(_names(due), token)

    def start_at_once(self, name: str, password: str, *, address: str | None = None) -> Proof:
        """As ``start``, for those who can take no second step, such as HTTP Basic: then a password is not enough.

        Raises:
            SignInIncomplete: If more is needed, without anything to resume (ASVS 6.3.4).
            BadCredentials, TooManyAttempts, Busy, StoreUnavailable: As ``start``.
        """
        proof, attempt = self._check.prove(name, password, address=address)
        if due := self._due(proof.account, ()):
            self._failed(proof.account.subject, "incomplete", address)
            raise SignInIncomplete(_names(due))
        return self._finished(proof, attempt, address)

    def resume(self, token: str, step: str, answer: Mapping[str, Any], *, address: str | None = None) -> Proof:
        """Take the next step.

        Args:
            token: That of ``SignInIncomplete``.
            step: Which step is taken.
            answer: What it asks for.
            address: Where the request comes from, if it is one.

        Returns:
            Who it is, if that was the last one.

        Raises:
            SignInIncomplete: If more is needed; the token to resume with may be another.
            OneTimeTokenInvalid: If the sign-in has ended, or the account has changed since: begin anew.
            InvalidValue: If there is no such step.
            CredentialError: If the answer is wrong.
            TooManyAttempts: If too many failed under this name before; the answer was not looked at.
            StoreUnavailable: If nobody can tell.
        """
        if step not in _names(self._stages):
            raise InvalidValue("There is no such step.", hint="Take the first of `steps`.")
        data = dict(self._tokens.peek(token, PURPOSE).data)
        account = self._account_of(token)
        due, steps = self._due(account, data["done"]), 1 + len(data["done"])
        attempt = self._throttle.sign_in(data["name"], address)  # an answer is guessed like a password
        if due and due[0].name == step:
            self._count_answer(token, data["attempt"], account.subject, address)
            amr = self._answered(due[0], account, answer, address)
            if amr is None:
                self._take_answer_back(data["attempt"])
            else:
                data |= {"done": [*data["done"], step], "amr": list(dict.fromkeys([*data["amr"], *amr]))}
                due = due[1:]
                if due:
                    attempt.goes_on()
                    token = self._tokens.replace(token, PURPOSE, data)
                    due[0].begin(account, address)
                    raise SignInIncomplete(_names(due), token)
        if due:  # nothing was guessed: it is not this one's turn, or there is nothing to be answered yet
            attempt.withdraw()
            raise SignInIncomplete(_names(due), token)
        self._tokens.take(token, PURPOSE, (account.password_hash,))
        proof = Proof(account=account, amr=tuple(data["amr"]), at=data["at"], generations=data["generations"])
        return self._finished(proof, attempt, address, steps)

    def send_again(self, token: str, *, address: str | None = None) -> None:
        """Begin the step that is due once more: the mail or code did not come.

        Raises:
            OneTimeTokenInvalid: If the sign-in has ended.
            TooManyAttempts: If that was asked for too often.
            StoreUnavailable: If nobody can tell.
        """
        data = self._tokens.peek(token, PURPOSE).data
        account = self._account_of(token)
        for stage in self._due(account, data["done"])[:1]:
            self._count_answer(token, data["attempt"], account.subject, address)
            stage.begin(account, address)

    def again(self, subject: str, password: str, *, address: str | None = None) -> Proof:
        """Have somebody who is signed in prove once more who they are, for what asks for a fresh identity.

        Raises:
            BadCredentials: If the password is not theirs.
            TooManyAttempts: If too many failed before.
            Busy: If too many passwords are being checked.
            StoreUnavailable: If nobody can tell.
        """
        proof = self._check.prove_again(subject, password, address=address)
        self._events.emit(Reauthenticated(at=self._clock(), subject=subject, address=address))
        return proof

    def _finished(self, proof: Proof, attempt: Attempt, address: str | None, steps: int = 0) -> Proof:
        """Somebody has signed in, after so many steps that were counted and have not failed."""
        subject = proof.account.subject
        failures = max(0, attempt.succeeded(subject) - steps)
        self._events.emit(
            SignedIn(at=self._clock(), subject=subject, address=address, amr=proof.amr, failures=failures)
        )
        return msgspec.structs.replace(proof, failures=failures)

    def _due(self, account: Account, done: Sequence[str]) -> list[Stage]:
        return [stage for stage in self._stages if stage.name not in done and stage.applies(account)]

    def _account_of(self, token: str) -> Account:
        """Whose sign-in this is, if their account is as it was at the first step."""
        account = self._users.get(self._tokens.peek(token, PURPOSE).subject)
        if account is None or not account.is_active:
            raise OneTimeTokenInvalid
        self._tokens.check_state(token, PURPOSE, (account.password_hash,))
        return account

    def _answered(
        self, stage: Stage, account: Account, answer: Mapping[str, Any], address: str | None
    ) -> Sequence[str] | None:
        try:
            amr = stage.check(account, answer)
        except CredentialError:
            self._failed(account.subject, "wrong_answer", address)
            raise
        if amr is None or (isinstance(amr, (tuple, list)) and all(isinstance(one, str) for one in amr)):
            return amr
        raise ConfigError(
            f"The stage {stage.name!r} returned neither a list of authentication methods nor None.",
            hint='Return ("otp",), for example; raise a CredentialError if the answer is wrong.',
        )

    def _failed(self, subject: str, reason: str, address: str | None) -> None:
        self._events.emit(SignInFailed(at=self._clock(), subject=subject, address=address, reason=reason))

    def _take_answer_back(self, attempt: str) -> None:
        self._store.count_back(_name_of(attempt), self._clock())

    def _count_answer(self, token: str, attempt: str, subject: str, address: str | None) -> None:
        if not self._store.count_up(_name_of(attempt), self._lifetime, _MAX_ANSWERS, self._clock()).allowed:
            self._tokens.discard(token)
            self._failed(subject, "too_many_answers", address)
            raise OneTimeTokenInvalid(hint="There were too many answers: begin with the password.")


def _name_of(attempt: str) -> str:
    return sha256(f"sign-in answer {attempt}".encode()).hexdigest()  # a random name: nothing to be guessed from it


def _names(stages: Sequence[Stage]) -> tuple[str, ...]:
    return tuple(stage.name for stage in stages)
