"""Checkpoints: what a route demands of an identity, as values that combine.

``Authenticated() & (HasRole("admin") | HasScope("users:write"))``. Evaluating one gives a ``Decision`` that
keeps every step, so that "why was I refused?" always has an answer. These know nothing of HTTP; a framework
adds checkpoints that look at its request.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import msgspec

from jam.errors import (
    AccessDenied,
    AuthenticationRequired,
    ClaimRequired,
    ConfigError,
    CSRFFailed,
    FreshnessRequired,
    JamError,
    MethodRequired,
    RoleRequired,
    ScopeRequired,
)
from jam.identity import ANONYMOUS, Identity

__all__ = [
    "Action",
    "ActionCheckpoint",
    "Authenticated",
    "Checkpoint",
    "Claim",
    "Decision",
    "Fresh",
    "HasRole",
    "HasScope",
    "Method",
    "Step",
]

Target = str | Callable[[], Any]


class Step(msgspec.Struct, frozen=True):
    """One checkpoint that was asked, in order.

    Attributes:
        checkpoint: As it is written in code.
        allowed: What it answered.
        reason: Why not; empty if it was content.
    """

    checkpoint: str
    allowed: bool
    reason: str = ""


class Decision(msgspec.Struct, frozen=True):
    """Whether the caller may pass, and why not.

    Attributes:
        allowed: The answer.
        error: Makes the error of the first checkpoint that decided against the caller.
        steps: Everything that was asked. Never holds a secret.
    """

    allowed: bool
    error: Callable[[], JamError] = AccessDenied
    steps: tuple[Step, ...] = ()

    @property
    def code(self) -> str | None:
        """The stable code of the refusal, or ``None``."""
        return None if self.allowed else self.error().code

    def __bool__(self) -> bool:
        return self.allowed


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """What the framework answers instead of its default refusal; see ``Checkpoint.action``."""

    fail_url: Target | None = None
    fail_json: Mapping[str, Any] | None = None
    fail_response: Callable[[], Any] | None = None
    fail_status: int = 403
    pass_url: Target | None = None
    message: str | None = None
    message_category: str = "message"
    disable_default_fail: bool = False
    fail_endpoint: str | None = None
    pass_endpoint: str | None = None


class Checkpoint(ABC):
    """A demand on the caller. Subclasses answer ``refusal``; ``&``, ``|`` and ``~`` combine them.

    Attributes:
        challenge: What a 401 of this checkpoint says of how to authenticate (RFC 9110 11.6.1), ``{realm}`` being
            filled in; ``None`` leaves that to the framework.
        judges_caller: Whether it asks who is calling, and not only how.
    """

    challenge: str | None = None
    judges_caller: bool = True

    @abstractmethod
    def refusal(self, identity: Identity, now: float) -> JamError | None:
        """The error that keeps this caller out, or ``None`` to let them pass.

        Args:
            identity: The caller; ``ANONYMOUS`` for nobody.
            now: Seconds since the epoch.
        """

    def evaluate(self, identity: Identity, now: float) -> Decision:
        """Ask, and keep the answer with its reason."""
        refusal = self.refusal(identity, now)
        if refusal is None:
            return Decision(allowed=True, steps=(Step(repr(self), allowed=True),))
        return Decision(allowed=False, error=lambda: refusal, steps=(Step(repr(self), False, refusal.message),))

    def protects(self) -> bool:
        """Whether it keeps an anonymous caller out; what does not is no protection of a route."""
        return not self.evaluate(ANONYMOUS, 0.0).allowed

    def leaves(self) -> Iterator[Checkpoint]:
        """The checkpoints it is combined of."""
        yield self

    def action(  # noqa: PLR0917 - the order of these is known from flask-imp
        self,
        fail_url: Target | None = None,
        fail_json: Mapping[str, Any] | None = None,
        fail_response: Callable[[], Any] | None = None,
        fail_status: int = 403,
        pass_url: Target | None = None,
        message: str | None = None,
        message_category: str = "message",
        disable_default_fail: bool = False,
        *,
        fail_endpoint: str | None = None,
        pass_endpoint: str | None = None,
    ) -> ActionCheckpoint:
        """The same checkpoint with an answer of the app's own.

        Args:
            fail_url: Where who fails is redirected; a string, or a function such as ``lazy_url_for`` makes.
            fail_json: What who fails is answered, with ``fail_status``; switches the pass target off.
            fail_response: Makes the answer to who fails; may be async.
            fail_status: Of the default refusal and of ``fail_json``.
            pass_url: Where who passes is redirected instead of seeing the view.
            message: Flashed at the redirect.
            message_category: Its category.
            disable_default_fail: Who fails sees the view, for "you are signed in already" redirects. Needs a
                pass target, and is never counted as protection.
            fail_endpoint: As ``fail_url``, by the endpoint's name.
            pass_endpoint: As ``pass_url``, by the endpoint's name.

        Raises:
            ConfigError: If these contradict each other.
        """
        for url, endpoint, what in ((fail_url, fail_endpoint, "fail"), (pass_url, pass_endpoint, "pass")):
            if url is not None and endpoint is not None:
                raise ConfigError(f"{what}_url and {what}_endpoint exclude each other.")
        passing = pass_url is not None or pass_endpoint is not None
        if disable_default_fail and (not passing or fail_json is not None):
            raise ConfigError(
                "disable_default_fail would only switch the checkpoint off: it needs a pass_url or pass_endpoint, "
                "and no fail_json."
            )
        if not 400 <= fail_status <= 599:  # noqa: PLR2004
            raise ConfigError("fail_status is an error's status, 400 to 599.")
        return ActionCheckpoint(self, Action(
            fail_url=fail_url, fail_json=fail_json, fail_response=fail_response, fail_status=fail_status,
            pass_url=pass_url, message=message, message_category=message_category,
            disable_default_fail=disable_default_fail, fail_endpoint=fail_endpoint, pass_endpoint=pass_endpoint,
        ))  # fmt: skip

    def __and__(self, other: Checkpoint) -> Checkpoint:
        return _All(self, other)

    def __or__(self, other: Checkpoint) -> Checkpoint:
        return _Any(self, other)

    def __invert__(self) -> Checkpoint:
        return _Not(self)

    def __bool__(self) -> bool:
        raise ConfigError(f"{self!r} is neither true nor false.", hint="Combine checkpoints with &, | and ~.")


class Authenticated(Checkpoint):
    """The caller is somebody."""

    def refusal(self, identity: Identity, now: float) -> JamError | None:  # noqa: ARG002
        return None if identity.subject is not None else AuthenticationRequired()

    def __repr__(self) -> str:
        return "Authenticated()"


class HasRole(Checkpoint):
    """The caller has at least one of the roles."""

    def __init__(self, *roles: str) -> None:
        self.roles = frozenset(_names("HasRole", roles))

    def refusal(self, identity: Identity, now: float) -> JamError | None:  # noqa: ARG002
        if identity.roles & self.roles:
            return None
        return RoleRequired(f"A role is required: {_listed(self.roles)}.")

    def __repr__(self) -> str:
        return f"HasRole({_listed(self.roles)})"


class HasScope(Checkpoint):
    """The credential has all of the scopes, each compared whole and exactly (RFC 6749 3.3)."""

    def __init__(self, *scopes: str) -> None:
        self.scopes = frozenset(_names("HasScope", scopes))

    def refusal(self, identity: Identity, now: float) -> JamError | None:  # noqa: ARG002
        if self.scopes <= identity.scopes:
            return None
        error = ScopeRequired(f"A scope is required: {_listed(self.scopes)}.")
        error.scopes = " ".join(sorted(self.scopes))
        return error

    def __repr__(self) -> str:
        return f"HasScope({_listed(self.scopes)})"


class Claim(Checkpoint):
    """The payload has the claim, with one of the values. ``True`` is not ``1`` and ``"1"`` neither."""

    def __init__(self, name: str, *values: Any) -> None:
        (self.name,) = _names("Claim", (name,))
        if not values:
            raise ConfigError("Claim needs the values it allows.", hint='Write Claim("tenant", "a").')
        self.values = values

    def refusal(self, identity: Identity, now: float) -> JamError | None:  # noqa: ARG002
        payload = identity.payload
        if self.name in payload and same_as_any(payload[self.name], self.values):
            return None
        return ClaimRequired(f"The claim {self.name} does not have the value it needs.")

    def __repr__(self) -> str:
        return f"Claim({', '.join(map(repr, (self.name, *self.values)))})"


class Fresh(Checkpoint):
    """The person proved who they are no longer than ``max_age`` seconds ago (RFC 9470, ASVS 7.5.1)."""

    def __init__(self, max_age: float) -> None:
        if not 0 < max_age < float("inf"):
            raise ConfigError("Fresh needs a positive number of seconds.")
        self.max_age = max_age

    def refusal(self, identity: Identity, now: float) -> JamError | None:
        if identity.subject is None:
            return AuthenticationRequired()
        if identity.authenticated_at is not None and 0 <= now - identity.authenticated_at + 1 <= self.max_age + 1:
            return None
        error = FreshnessRequired()
        error.max_age = self.max_age
        return error

    def __repr__(self) -> str:
        return f"Fresh({self.max_age:g})"


class Method(Checkpoint):
    """The caller was proved by one of these kinds of credential: ``"session"``, ``"jwt"``."""

    def __init__(self, *methods: str) -> None:
        self.methods = frozenset(_names("Method", methods))

    def refusal(self, identity: Identity, now: float) -> JamError | None:  # noqa: ARG002
        if identity.method in self.methods:
            return None
        if identity.subject is None:
            return AuthenticationRequired()
        return MethodRequired()

    def __repr__(self) -> str:
        return f"Method({_listed(self.methods)})"


class ActionCheckpoint(Checkpoint):
    """A checkpoint with its own answer. It stands alone: stack guards to demand several.

    Attributes:
        inner: The checkpoint.
        answer: What to answer.
    """

    def __init__(self, inner: Checkpoint, answer: Action) -> None:
        (self.inner,) = _parts((inner,))
        self.answer = answer

    def refusal(self, identity: Identity, now: float) -> JamError | None:
        return self.inner.refusal(identity, now)

    def evaluate(self, identity: Identity, now: float) -> Decision:
        return self.inner.evaluate(identity, now)

    def protects(self) -> bool:
        return not self.answer.disable_default_fail and self.inner.protects()

    def leaves(self) -> Iterator[Checkpoint]:
        return self.inner.leaves()

    def _alone(self, *_: object) -> NoReturn:
        raise _cannot_be_combined()

    __and__ = __or__ = __invert__ = _alone

    def __repr__(self) -> str:
        return f"{self.inner!r}.action({'disable_default_fail=True' if self.answer.disable_default_fail else '...'})"


class _All(Checkpoint):
    """Every one of them; the first that is not content decides."""

    def __init__(self, *parts: Checkpoint) -> None:
        self.parts = _parts(parts)

    def refusal(self, identity: Identity, now: float) -> JamError | None:
        for part in self.parts:
            if (refusal := part.refusal(identity, now)) is not None:
                return refusal
        return None

    def evaluate(self, identity: Identity, now: float) -> Decision:
        steps: tuple[Step, ...] = ()
        for part in self.parts:
            decision = part.evaluate(identity, now)
            steps += decision.steps
            if not decision.allowed:
                return Decision(allowed=False, error=decision.error, steps=steps)
        return Decision(allowed=True, steps=steps)

    def protects(self) -> bool:
        return any(part.protects() for part in self.parts)

    def leaves(self) -> Iterator[Checkpoint]:
        for part in self.parts:
            yield from part.leaves()

    def __repr__(self) -> str:
        return f"({' & '.join(map(repr, self.parts))})"


class _Any(Checkpoint):
    """At least one of them; if none is content, the first one's reason is given, or that the request is forged."""

    def __init__(self, *parts: Checkpoint) -> None:
        self.parts = _parts(parts)

    def refusal(self, identity: Identity, now: float) -> JamError | None:
        refusals: list[JamError] = []
        for part in self.parts:
            refusal = part.refusal(identity, now)
            if refusal is None:
                return None
            refusals.append(refusal)
        return _most_telling(refusals)

    def evaluate(self, identity: Identity, now: float) -> Decision:
        steps: tuple[Step, ...] = ()
        refusals: list[JamError] = []
        for part in self.parts:
            decision = part.evaluate(identity, now)
            steps += decision.steps
            if decision.allowed:
                return Decision(allowed=True, steps=steps)
            refusals.append(decision.error())
        refusal = _most_telling(refusals)
        return Decision(allowed=False, error=lambda: refusal, steps=steps)

    def protects(self) -> bool:
        return all(part.protects() for part in self.parts)

    def leaves(self) -> Iterator[Checkpoint]:
        for part in self.parts:
            yield from part.leaves()

    def __repr__(self) -> str:
        return f"({' | '.join(map(repr, self.parts))})"


class _Not(Checkpoint):
    """The opposite. Note that ``~HasRole("guest")`` lets the anonymous pass: say ``Authenticated() &`` too."""

    def __init__(self, part: Checkpoint) -> None:
        (self.part,) = _parts((part,))

    def refusal(self, identity: Identity, now: float) -> JamError | None:
        refusal = self.part.refusal(identity, now)
        if isinstance(refusal, CSRFFailed):  # the cookie was not opened, so that nobody can say what is in it
            return refusal
        return AccessDenied() if refusal is None else None

    def protects(self) -> bool:
        return all(leaf.judges_caller for leaf in self.leaves()) and not self.part.protects()

    def leaves(self) -> Iterator[Checkpoint]:
        return self.part.leaves()

    def __repr__(self) -> str:
        return f"~{self.part!r}"


def same_as_any(value: object, allowed: tuple[Any, ...]) -> bool:
    """Whether a value equals one of those allowed and is of the same type."""
    return any(type(value) is type(one) and value == one for one in allowed)


def _parts(parts: tuple[Any, ...]) -> tuple[Checkpoint, ...]:
    for part in parts:
        if not isinstance(part, Checkpoint):
            raise ConfigError(f"{part!r} is not a checkpoint.", hint="Write HasRole('admin'), with its parentheses.")
        if isinstance(part, ActionCheckpoint):
            raise _cannot_be_combined()
    return parts


def _most_telling(refusals: list[JamError]) -> JamError:
    """A forged request is told so: what its cookie would have shown, nobody looked at."""
    return next((refusal for refusal in refusals if isinstance(refusal, CSRFFailed)), refusals[0])


def _cannot_be_combined() -> ConfigError:
    return ConfigError(
        "A checkpoint with .action() cannot be combined: which answer should be given?",
        hint="Combine first, (A & B).action(...), or decorate the view once for each action.",
    )


def _names(what: str, names: tuple[Any, ...]) -> tuple[str, ...]:
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ConfigError(f"{what} needs one or more non-empty names.")
    return names


def _listed(names: frozenset[str]) -> str:
    return ", ".join(map(repr, sorted(names)))
