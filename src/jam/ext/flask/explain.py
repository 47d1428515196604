"""Why a caller was refused: what was looked for and found, which checkpoint said no, and what to do about it.

Never a secret: of a credential it tells the kind and the public name. Users see none of this outside debug mode; it is
for the log (at INFO), for the developer's browser, and for ``flask jam explain``.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

import msgspec
from flask import Request

from jam.checkpoints import Checkpoint, Step
from jam.crypto.handles import split_handle
from jam.crypto.jws import read_header
from jam.errors import JamError, TokenInvalid
from jam.ext.flask.carriers import Carrier, HeaderCarrier, cookie_values, header_key
from jam.ext.flask.request import JamState
from jam.ext.flask.resolved import Places, Resolved, Wanted

__all__ = ["Explanation", "Look", "explain", "request_id"]

_ID = "_jam_request_id"
_GIVEN_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}", re.ASCII)
_NAMES = {
    "headers": "header", "cookies": "cookie", "query_string": "query parameter", "json": "JSON member",
}  # fmt: skip
_KINDS = {
    "at+jwt": "an access token", "jwt": "a JWT", "refresh+jwt": "a refresh token",
    "remember-me+jwt": "a token that remembers a browser",
}  # fmt: skip

_SCHEMES = frozenset(("apikey", "basic", "bearer", "digest", "dpop", "jwt", "negotiate", "ntlm", "token"))

# What decides about each refusal, and what a developer can do where the error itself gives no hint.
_SETTINGS: dict[str, tuple[str, str]] = {
    "authentication_required": (
        "the extensions of the app (JWT_TOKEN_LOCATION, header_name, cookie_name)",
        "Send a credential where the app looks for one, or mark the view with @public.",
    ),
    "token_invalid": (
        "the keys, access_tokens.issuer and access_tokens.audience",
        "Make the token with this app's keys and name; sign in again after a change of the secret.",
    ),
    "token_expired": ("access_tokens.lifetime (JWT_ACCESS_TOKEN_EXPIRES)", ""),
    "token_not_yet_valid": ("access_tokens.leeway", ""),
    "token_revoked": ("the store", "Sign in again."),
    "refresh_token_reused": ("refresh_tokens.overlap", ""),
    "claims_refused": ("the app's token_verification_loader", "See what it asks of a token."),
    "session_invalid": (
        "sessions.idle_for and sessions.lifetime",
        "Sign in again. If that does not last: do all workers share one store, and does the cookie reach the browser?",
    ),
    "user_unknown": ("the app's user_loader", "It gave None for this subject: is that user still there?"),
    "user_inactive": ("the user's is_active", "Activate the user."),
    "csrf_failed": ("csrf.trusted_origins (JAM_CSRF_TRUSTED_ORIGINS)", ""),
    "insufficient_user_authentication": ("the guard's Fresh, or fresh=True", ""),
    "method_required": ("the guard's Method or methods=", "Use one of the credentials it names."),
    "credentials_mixed": ("the guards", "Send the credentials of one person."),
    "role_required": ("the credential's roles, or the app's get_user_roles", "Give the user the role."),
    "insufficient_scope": ("the credential's scopes", "Ask for a token with that scope."),
    "claim_required": ("the credential's claims, or flask.session", "See which value the checkpoint demands."),
    "invalid_request": ("JWT_TOKEN_LOCATION", ""),
    "store_unavailable": ("store (JAM_STORE)", "See that the engine runs; flask jam doctor asks it."),
    "api_key_invalid": ("the key that the checkpoint was given", "Send that key."),
    "access_denied": ("the guard", "See which checkpoint said no."),
}


class Look(msgspec.Struct, frozen=True):
    """One place where a credential was looked for.

    Attributes:
        place: The header, cookie, parameter or member.
        held: What was there, in words; empty for nothing.
        outcome: Why it did not count; ``"counted"`` if it did; empty if nobody came so far.
    """

    place: str
    held: str = ""
    outcome: str = ""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why a guard answered as it did.

    Attributes:
        request_id: What the request is called in the log: its ``X-Request-ID``, or made up.
        method: The HTTP method.
        path: The path.
        caller: Who is calling, as far as anybody knows.
        looked: The carriers, in the order in which they are tried.
        checkpoints: The checkpoints that were asked, in order; the last one said no.
        status: The status of the answer; ``None`` if the caller was let in.
        code: The stable code of the refusal.
        message: What the caller is told.
        setting: What decided.
        advice: What to do.
    """

    request_id: str
    method: str
    path: str
    caller: str
    looked: tuple[Look, ...]
    checkpoints: tuple[Step, ...]
    status: int | None = None
    code: str | None = None
    message: str = ""
    setting: str = ""
    advice: str = ""

    def line(self) -> str:
        """All of it in one line, of printable ASCII."""
        looked = ", ".join(" ".join(filter(None, (look.place, look.held and f"held {look.held}", look.outcome)))
                           for look in self.looked)  # fmt: skip
        asked = ", ".join(f"{step.checkpoint} {'passed' if step.allowed else 'refused'}" for step in self.checkpoints)
        parts = [
            f"{self.status} {self.code}", f"caller: {self.caller}", f"looked in: {looked or 'nothing'}",
            f"asked: {asked or 'nothing'}", self.setting and f"decided by: {self.setting}", self.advice,
        ]  # fmt: skip
        return "".join(one if " " <= one <= "~" else "?" for one in "; ".join(filter(None, parts)))


def request_id(request: Request) -> str:
    """What a request is called in the log: its ``X-Request-ID`` if that is sound, or else made up once."""
    known: str | None = request.__dict__.get(_ID)
    if known is None:
        given = request.environ.get("HTTP_X_REQUEST_ID", "")
        known = request.__dict__[_ID] = given if _GIVEN_ID.fullmatch(given) else secrets.token_hex(8)
    return known


def explain(  # noqa: PLR0917 - all that an answer comes of
    state: JamState,
    request: Request,
    resolved: Resolved,
    asked: Sequence[tuple[Checkpoint, JamError | None]],
    wanted: Wanted | None,
    error: JamError | None,
    status: int | None = None,
    *,
    own_key: bool = False,
) -> Explanation:
    """Explain what a guard answered.

    Args:
        state: The app's state.
        request: The request.
        resolved: What it turned out to be.
        asked: The checkpoints that were asked, and what they answered.
        wanted: Which credentials count there.
        error: The refusal, or ``None`` if it let the caller in.
        status: The status of the answer, if it is not the error's own.
        own_key: Whether the checkpoint that refused looks for a credential of its own.
    """
    steps: list[Step] = []
    for one, refusal in asked:
        if list(one.leaves()) == [one]:
            steps.append(Step(repr(one), refusal is None, "" if refusal is None else refusal.message))
        else:  # which of its parts was it?
            steps += one.evaluate(resolved.identity, state.clock()).steps
    setting, advice = ("", "")
    if error is not None:
        setting, advice = _SETTINGS.get(error.code, ("the guard", ""))
        if own_key and error.code == "authentication_required":
            setting, advice = _SETTINGS["api_key_invalid"]
    identity = resolved.identity
    caller = "anonymous" if identity.subject is None else f"{identity.subject!r} by {identity.method}"
    places = state.lookup.places if wanted is None else state.lookup.narrowed(wanted)
    return Explanation(
        request_id=request_id(request), method=request.method, path=request.path, caller=caller,
        looked=tuple(_looks(state, request, resolved, places)), checkpoints=tuple(steps),
        status=None if error is None else status or error.status, code=None if error is None else error.code,
        message="" if error is None else error.message, setting=setting,
        advice="" if error is None else error.hint or _hint_of(resolved) or advice,
    )  # fmt: skip


def _hint_of(resolved: Resolved) -> str:
    return next((error.hint for _, _, error in resolved.tried if error.hint), "")


def _looks(state: JamState, request: Request, resolved: Resolved, places: Places) -> list[Look]:
    looks: list[Look] = []
    proved = resolved.credential if resolved.identity.method != "anonymous" else None
    environ = request.environ
    for carrier in (*places.headers, *places.cookies, *places.bodies):
        place = f"{_NAMES[carrier.location]} {carrier.name}"
        refused = [(value, error) for one, value, error in resolved.tried if _same(one, carrier)]
        if refused:
            looks += [Look(place, describe(value), f"{error.code}: {error.hint or error.message}")
                      for value, error in refused]  # fmt: skip
        elif proved is not None and carrier is resolved.carrier:
            looks.append(Look(place, describe(proved), "counted"))
        else:
            looks.append(Look(place, _other_scheme(carrier, request)))
    if places.remembers:
        place = f"cookie {state.lookup.remember_cookie}"
        for value in cookie_values(environ, state.lookup.remember_cookie):
            why = [f"{error.code}: {error.hint or error.message}" for _, one, error in resolved.tried if one == value]
            outcome = why[0] if why else ""
            looks.append(Look(place, describe(value), outcome or ("counted" if resolved.handle else "")))
    return looks


def _other_scheme(carrier: Carrier, request: Request) -> str:
    """What is in a header that is not of the form that the app looks for, without what may be a secret."""
    if not isinstance(carrier, HeaderCarrier):
        return ""
    scheme, separator, _ = request.environ.get(header_key(carrier.name), "").partition(" ")
    if not scheme or scheme.lower() == carrier.scheme.lower():
        return ""
    if not separator:
        return f"something of {len(scheme)} characters"
    known = scheme.lower() in _SCHEMES  # what is not may be a secret
    return f"another scheme, {scheme.title()}" if known else "another scheme"


def _same(one: Carrier, other: Carrier) -> bool:
    return (one.location, one.name, one.verify) == (other.location, other.name, other.verify)


def describe(value: str) -> str:
    """What a credential is, without its secret: its kind and its public name."""
    handle = split_handle(value)
    if handle is not None:
        return f"a session's handle, id {handle[0]}"
    if value.count(".") == 2:  # noqa: PLR2004 - the parts of a compact JWS
        try:
            typ = str(read_header(value).get("typ", ""))
        except TokenInvalid:
            return f"something of {len(value)} characters that is no token"
        return _KINDS.get(typ.lower().removeprefix("application/"), f"a token of typ {_safe(typ)!r}")
    return f"something of {len(value)} characters"


def is_credential(value: str) -> bool:
    """Whether a value has the form of a session's handle or of a token."""
    if split_handle(value) is not None:
        return True
    try:
        return value.count(".") == 2 and "alg" in read_header(value)  # noqa: PLR2004 - the parts of a compact JWS
    except TokenInvalid:
        return False


def _safe(text: str) -> str:
    return "".join(one if " " <= one <= "~" else "?" for one in text[:20])
