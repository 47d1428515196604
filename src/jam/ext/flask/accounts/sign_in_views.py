"""Signing in and out over HTTP: for tokens, for a session, and once more for what asks for a fresh identity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Response, request
from msgspec import UNSET

from jam.accounts.password_check import Proof
from jam.accounts.users import Account
from jam.errors import (
    BadCredentials,
    BodyInvalid,
    Busy,
    ConfigError,
    CredentialError,
    CSRFFailed,
    GenerationOutdated,
    InvalidRequest,
    InvalidValue,
    MethodRequired,
    OneTimeTokenInvalid,
    RefreshTokenReused,
    SignInIncomplete,
    TokenExpired,
    TokenRevoked,
    TooManyAttempts,
    UserUnknown,
)
from jam.ext.flask.accounts.bodies import (
    Credentials,
    JSONWebKeys,
    LoginCredentials,
    NextLoginStep,
    NextStep,
    NextTokenStep,
    PasswordProof,
    Refresh,
    Resend,
    Revocation,
    SignOut,
    TokenPair,
    User,
)
from jam.ext.flask.accounts.context import PEOPLE, accounts, address, caller, extension, interactive
from jam.ext.flask.accounts.endpoints import Endpoints, answer
from jam.ext.flask.callbacks import call
from jam.ext.flask.guards import Guard, login_required
from jam.ext.flask.login import changeable, confirm_login, end_other_logins, logout_user, refuse_forged, start_login
from jam.ext.flask.request import JamState, prepared_state
from jam.ext.flask.resolved import Wanted
from jam.ext.flask.token_cookies import set_access_cookies, set_refresh_cookies
from jam.ext.flask.tokens import (
    TokenRequired,
    create_access_token,
    create_refresh_token,
    end_token,
    rotate_refresh_token,
)

__all__ = [
    "changeable_session",
    "drop_cookies",
    "sign_in_endpoints",
    "tokens_for",
    "well_known_endpoints",
]

sign_in_endpoints = Endpoints("jam_sign_in")
well_known_endpoints = Endpoints("jam_well_known")

_FAILURES = (BadCredentials, SignInIncomplete, TooManyAttempts, Busy, CSRFFailed)
_NO_STEP = (OneTimeTokenInvalid, InvalidValue)
_refresh_token = Guard(
    (TokenRequired(refresh=True),), Wanted(frozenset(("refresh_token",)), frozenset(("headers", "cookies", "json")))
)


def _unsupported() -> InvalidRequest:
    return InvalidRequest(
        "Access tokens cannot be revoked here: they end by themselves.", code="unsupported_token_type"
    )  # RFC 7009 2.2.1


@sign_in_endpoints.add("POST", "/api", body=Credentials, answers={200: TokenPair}, errors=_FAILURES)
def sign_in_for_tokens(body: Credentials) -> Response:
    """Sign in for tokens: an access token for requests, and a refresh token for the next one."""
    if body.cookies:
        _refuse_cookies()
    proof = accounts().sign_in.start(body.username, body.password, address=address())
    return _tokens(proof, in_cookies=body.cookies)


@sign_in_endpoints.add(
    "POST", "/api/continue", body=NextTokenStep, answers={200: TokenPair}, errors=(*_FAILURES, *_NO_STEP)
)
def continue_for_tokens(body: NextTokenStep) -> Response:
    """Take the next step of a sign-in for tokens."""
    if body.cookies:
        _refuse_cookies()
    return _tokens(_resumed(body), in_cookies=body.cookies)


@sign_in_endpoints.add("POST", "/sign-in", body=LoginCredentials, answers={200: User}, errors=_FAILURES)
def sign_in(body: LoginCredentials) -> Response:
    """Sign a browser in: it gets a session's cookie, and another one if it is to be remembered."""
    changeable()
    return _session(accounts().sign_in.start(body.username, body.password, address=address()), remember=body.remember)


@sign_in_endpoints.add(
    "POST", "/sign-in/continue", body=NextLoginStep, answers={200: User}, errors=(*_FAILURES, *_NO_STEP)
)
def continue_sign_in(body: NextLoginStep) -> Response:
    """Take the next step of a browser's sign-in."""
    changeable()
    return _session(_resumed(body), remember=body.remember)


@sign_in_endpoints.add(
    "POST",
    "/sign-in/resend",
    body=Resend,
    answers={202: None},
    errors=(OneTimeTokenInvalid, TooManyAttempts),
)
def resend_step(body: Resend) -> Response:
    """Send the mail or code of the present step again."""
    accounts().sign_in.send_again(body.sign_in_token, address=address())
    return answer(None, 202)


@sign_in_endpoints.add(
    "POST",
    "/refresh",
    body=Refresh,
    answers={200: TokenPair},
    errors=(InvalidRequest, TokenExpired, TokenRevoked, RefreshTokenReused),
    guard=_refresh_token,
    methods=("refresh_token",),
)
def refresh(body: Refresh) -> Response:  # noqa: ARG001 - the guard has read it
    """Trade a refresh token for a new pair. It comes in the body, in the header or in its cookie."""
    resolved = caller()
    subject = resolved.identity.subject or ""
    in_cookies = resolved.location == "cookies"
    account = accounts().users.get(subject)
    if account is None:
        raise UserUnknown
    claims, successor = _claims(account), rotate_refresh_token()
    access_token = create_access_token(_identity(account), additional_claims=claims)
    return _pair(access_token, successor, in_cookies=in_cookies)


@sign_in_endpoints.add("POST", "/revoke", body=Revocation, answers={200: None}, errors=(_unsupported(),), form=True)
def revoke(body: Revocation) -> Response:
    """End an access token, a refresh token or an API token (RFC 7009). Of one that is none, nothing is said."""
    state = prepared_state()
    if not state.jam.api_tokens.revoke(body.token):
        try:
            end_token(state, body.token)
        except ConfigError:
            raise _unsupported() from None
        except CredentialError:
            pass
    return answer(None, 200)


@sign_in_endpoints.add(
    "POST",
    "/reauthenticate",
    body=PasswordProof,
    answers={200: TokenPair, 204: None},
    errors=(BadCredentials, TooManyAttempts, Busy),
    guard=interactive,
    methods=PEOPLE,
)
def reauthenticate(body: PasswordProof) -> Response:
    """Prove once more who is calling: the session gets a new handle, or the program a fresh access token."""
    resolved = caller()
    if resolved.identity.method == "session":
        changeable_session()
    proof = accounts().sign_in.again(resolved.identity.subject or "", body.password, address=address())
    if resolved.identity.method == "session":
        confirm_login()
        return answer(None, 204)
    return _pair(_access_token(proof), None, in_cookies=resolved.location == "cookies")


@sign_in_endpoints.add("POST", "/sign-out", answers={204: None}, errors=(CSRFFailed,))
def sign_out() -> Response:
    """Sign out here: whatever login this request brought is ended on the server."""
    logout_user()
    return answer(None, 204)


@sign_in_endpoints.add(
    "POST",
    "/sign-out/others",
    answers={204: None},
    errors=(MethodRequired,),
    guard=login_required(methods=("session",)),
    methods=("session",),
)
def sign_out_others() -> Response:
    """Sign out everywhere else: this session goes on under a new handle, everything but API tokens ends."""
    changeable_session()
    jam, subject = accounts().jam, caller().identity.subject or ""
    end_other_logins()
    jam.revoke(subject, ("access_token", "refresh_token"))
    return answer(None, 204)


@sign_in_endpoints.add(
    "POST",
    "/sign-out/everywhere",
    body=SignOut,
    answers={204: None},
    guard=interactive,
    methods=PEOPLE,
)
def sign_out_everywhere(body: SignOut) -> Response:
    """Sign out everywhere, here as well; API tokens end if that is asked for."""
    accounts().management.sign_out_everywhere(caller().identity.subject or "", api_tokens=body.api_tokens)
    drop_cookies()
    return answer(None, 204)


@well_known_endpoints.add("GET", "/.well-known/jwks.json", answers={200: JSONWebKeys})
def jwks() -> Response:
    """The public keys that verify access tokens, for other services (RFC 7517)."""
    response = answer(accounts().jam.keys.to_jwks())
    response.headers["Cache-Control"] = "public, max-age=300"
    return response


def _refuse_cookies() -> None:
    """Refuse to put tokens into cookies where nobody looks for them, or for another site's page."""
    state = prepared_state()
    if not state.lookup.looks_in_cookies():
        raise BodyInvalid("'cookies': no tokens are taken from cookies here.", {"cookies": "cannot be had here"})
    refuse_forged(state)


def _resumed(body: NextStep) -> Proof:
    return accounts().sign_in.resume(body.sign_in_token, body.step, body.answer, address=address())


def tokens_for(account: Account, generations: Mapping[str, int], *, in_cookies: bool) -> Response:
    """A new pair of tokens, of these generations, for whoever has just changed their password."""
    proof = Proof(account=account, amr=("pwd",), at=accounts().jam.clock(), generations=generations)
    return _tokens(proof, in_cookies=in_cookies)


def changeable_session() -> tuple[JamState, str]:
    """As ``changeable``, for who goes on with the session that they came with.

    Raises:
        MethodRequired: If it came in a header, where no new handle can be set.
    """
    if caller().location == "headers":
        raise MethodRequired("This takes a session in a cookie.")
    return changeable()


def drop_cookies() -> None:
    """Have the caller's browser forget what has been ended on the server.

    A script's request that proved itself by a header may say nothing of where it comes from: it has no cookies of ours.
    """
    if caller().location == "cookies" or prepared_state().csrf_refusal(request) is None:
        logout_user()


def _session(proof: Proof, *, remember: bool) -> Response:
    """A session for whoever has proved who they are."""
    state, cookie_name = changeable()
    account = proof.account
    try:
        start_login(
            state, cookie_name, account.subject, roles=account.roles, scopes=account.scopes, amr=proof.amr,
            generation=proof.generation("session"), remember=remember,
        )  # fmt: skip
    except GenerationOutdated:  # everything of theirs was revoked while the password was checked
        raise BadCredentials from None
    return answer(extension().represent(account, is_own=True))


def _tokens(proof: Proof, *, in_cookies: bool) -> Response:
    try:
        refresh_token = create_refresh_token(
            _identity(proof.account), generation=proof.generation("refresh_token"), amr=proof.amr
        )
    except GenerationOutdated:
        raise BadCredentials from None
    return _pair(_access_token(proof), refresh_token, in_cookies=in_cookies)


def _access_token(proof: Proof) -> str:
    account = proof.account
    return create_access_token(
        _identity(account), fresh=True, generation=proof.generation("access_token"), amr=proof.amr,
        additional_claims=_claims(account),
    )  # fmt: skip


def _identity(account: Account) -> Any:
    """What a token is made for: a ``user_identity_loader`` of the app's own is called with the app's own user."""
    loader = prepared_state().callback("user_identity_loader")
    return account.subject if loader == extension().subject_of else account.user


def _claims(account: Account) -> dict[str, object]:
    """The claims of an access token: those of the app's own loader, and what the account is granted."""
    loader = prepared_state().callback("additional_claims_loader")
    own = {} if loader is None else dict(call(loader, account.subject))
    return {**own, "roles": sorted(account.roles), "scope": " ".join(sorted(account.scopes))}


def _pair(access_token: str, refresh_token: str | None, *, in_cookies: bool) -> Response:
    pair = TokenPair(
        token_type="Bearer",  # noqa: S106 - its name
        expires_in=int(accounts().jam.settings.access_tokens.lifetime),
    )
    if in_cookies:  # then no script is to see them (ASVS 3.3.4)
        response = answer(pair)
        set_access_cookies(response, access_token)
        if refresh_token is not None:
            set_refresh_cookies(response, refresh_token)
        return response
    pair.access_token = access_token
    pair.refresh_token = UNSET if refresh_token is None else refresh_token
    return answer(pair)
