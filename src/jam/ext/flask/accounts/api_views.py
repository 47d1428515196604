"""The API: users as hypermedia, and the API tokens of scripts. The routes are those of the seeds."""

from __future__ import annotations

import math

from flask import Response, url_for
from msgspec import UNSET

from jam.accounts.manage import iso_time
from jam.accounts.names import email_address
from jam.credentials.api_tokens import APIToken
from jam.crypto.handles import split_api_token
from jam.errors import (
    AccessDenied,
    APITokenInvalid,
    BadCredentials,
    BodyInvalid,
    Busy,
    ConcurrentUpdate,
    EmailRefused,
    EmailTaken,
    FreshnessRequired,
    GenerationOutdated,
    InvalidValue,
    MethodRequired,
    OneTimeTokenInvalid,
    PasswordRefused,
    RoleRequired,
    ScopeRequired,
    SignInIncomplete,
    TooManyAttempts,
    UsernameRefused,
    UsernameTaken,
    UserNotFound,
)
from jam.ext.flask.accounts.bodies import (
    APITokenChange,
    APITokenCreated,
    APITokenList,
    APITokenRequest,
    APITokenShown,
    Collection,
    Page,
    Paging,
    RegistrationRequest,
    User,
    UserChange,
)
from jam.ext.flask.accounts.context import (
    PEOPLE,
    JustProved,
    accounts,
    address,
    anybody,
    caller,
    extension,
    interactive,
    refuse_others,
)
from jam.ext.flask.accounts.endpoints import Endpoints, answer
from jam.ext.flask.guards import Guard, login_required
from jam.ext.flask.resolved import Wanted
from jam.identity import Identity

__all__ = ["api_endpoints"]

api_endpoints = Endpoints("jam_api", lambda: accounts().users.writable)

MAX_PER_PAGE = 100
_ABOUT_PEOPLE = (UsernameRefused, UsernameTaken, EmailRefused, EmailTaken, InvalidValue)
_NO_TOKEN = (
    BadCredentials, SignInIncomplete, ScopeRequired, RoleRequired, InvalidValue, GenerationOutdated, TooManyAttempts,
    Busy,
)  # fmt: skip
_just_proved = Guard((JustProved(),), Wanted(frozenset((*PEOPLE, "basic", "api_token"))))


def _no_such_token() -> UserNotFound:
    return UserNotFound("There is no such token of yours.", code="api_token_not_found")


# -- API tokens ---------------------------------------------------------------------------------------------


@api_endpoints.add(
    "POST",
    "/tokens",
    body=APITokenRequest,
    answers={200: APITokenCreated},
    guard=_just_proved,
    methods=(*PEOPLE, "basic"),
    errors=_NO_TOKEN,
)
def create_token(body: APITokenRequest) -> Response:
    """Make an API token, by user name and password (Basic) or soon after signing in. An API token makes no other."""
    identity, tokens = caller().identity, accounts().jam.api_tokens
    subject = identity.subject or ""
    token = tokens.create(
        subject, body.name, scopes=identity.scopes if body.scopes is UNSET else body.scopes,
        # Who names scopes wants a token that can do no more: its maker's roles are not for it.
        roles=identity.roles if body.scopes is UNSET else (),
        creator=identity, lifetime=None if body.lifetime is UNSET else body.lifetime,
        generation=_generation(identity),
    )  # fmt: skip
    token_id, _ = split_api_token(token) or ("", b"")
    made = tokens.get(subject, token_id)
    if made is None:  # revoked this very moment
        raise APITokenInvalid
    return answer(
        APITokenCreated(
            token=token, id=made.id, name=made.name, scopes=sorted(made.scopes), ends_at=iso_time(made.ends_at) or ""
        )
    )


def _generation(identity: Identity) -> int | None:
    """That in which the caller was found good: the token dies with what let them in. ``None`` if nobody looked."""
    stateless = accounts().jam.settings.access_tokens.stateless
    has_looked = identity.method == "session" or (identity.method == "jwt" and not stateless)
    return identity.generations.get("api_token", 0 if has_looked else None)


@api_endpoints.add(
    "DELETE",
    "/tokens",
    answers={204: None},
    guard=login_required(methods=("api_token",)),
    methods=("api_token",),
)
def revoke_token() -> Response:
    """End the API token that this request brought."""
    identity = caller().identity
    accounts().jam.api_tokens.revoke_by_id(identity.subject or "", identity.credential_id or "")
    return answer(None, 204)


@api_endpoints.add("GET", "/tokens", answers={200: APITokenList}, guard=anybody)
def list_tokens() -> Response:
    """The caller's API tokens; none of them is shown itself."""
    found = accounts().jam.api_tokens.list(caller().identity.subject or "")
    return answer(APITokenList(items=[_token_shown(one) for one in found]))


@api_endpoints.add("GET", "/tokens/<token_id>", answers={200: APITokenShown}, errors=(_no_such_token(),), guard=anybody)
def get_token(token_id: str) -> Response:
    """One of the caller's API tokens."""
    found = accounts().jam.api_tokens.get(caller().identity.subject or "", token_id)
    if found is None:
        raise _no_such_token()
    return answer(_token_shown(found))


@api_endpoints.add(
    "PATCH",
    "/tokens/<token_id>",
    body=APITokenChange,
    answers={200: APITokenShown},
    errors=(InvalidValue, _no_such_token(), ConcurrentUpdate),
    guard=interactive,
    methods=PEOPLE,
)
def rename_token(token_id: str, body: APITokenChange) -> Response:
    """Give an API token another name."""
    found = accounts().jam.api_tokens.rename(caller().identity.subject or "", token_id, body.name)
    if found is None:
        raise _no_such_token()
    return answer(_token_shown(found))


@api_endpoints.add(
    "DELETE",
    "/tokens/<token_id>",
    answers={204: None},
    errors=(_no_such_token(),),
    guard=interactive,
    methods=PEOPLE,
)
def revoke_token_by_id(token_id: str) -> Response:
    """End one of the caller's API tokens."""
    if not accounts().jam.api_tokens.revoke_by_id(caller().identity.subject or "", token_id):
        raise _no_such_token()
    return answer(None, 204)


def _token_shown(token: APIToken) -> APITokenShown:
    return APITokenShown(
        id=token.id, name=token.name, scopes=sorted(token.scopes), created_at=iso_time(token.created_at) or "",
        last_used_at=iso_time(token.last_used_at), ends_at=iso_time(token.ends_at) or "",
        links={"self": url_for("jam_api.get_token", token_id=token.id)},
    )  # fmt: skip


# -- users --------------------------------------------------------------------------------------------------


@api_endpoints.add("GET", "/users/<user_id>", answers={200: User}, errors=(UserNotFound,), guard=anybody)
def get_user(user_id: str) -> Response:
    """A user. The e-mail address is shown to its owner alone."""
    account = accounts().users.get(user_id)
    if account is None:
        raise UserNotFound
    return answer(extension().represent(account, is_own=caller().identity.subject == account.subject))


@api_endpoints.add("GET", "/users", query=Paging, answers={200: Collection}, guard=anybody)
def get_users(query: Paging) -> Response:
    """A page of the users."""
    per_page = min(query.per_page, MAX_PER_PAGE)
    found, total = accounts().users.list((query.page - 1) * per_page, per_page)
    pages = math.ceil(total / per_page)
    own = caller().identity.subject

    def link(page: int) -> str:
        return url_for("jam_api.get_users", page=page, per_page=per_page)

    return answer(
        {
            "items": [extension().represent(one, is_own=one.subject == own) for one in found],
            "_meta": Page(page=query.page, per_page=per_page, total_pages=pages, total_items=total),
            "_links": {
                "self": link(query.page),
                "next": link(query.page + 1) if query.page < pages else None,
                "prev": link(query.page - 1) if query.page > 1 else None,
            },
        }
    )


@api_endpoints.add(
    "POST",
    "/users",
    body=RegistrationRequest,
    answers={201: User},
    more=True,
    methods=(*PEOPLE, "api_token"),
    errors=(*_ABOUT_PEOPLE, PasswordRefused, ScopeRequired, TooManyAttempts, Busy),
)
def create_user(body: RegistrationRequest) -> Response:
    """Make a user. It tells which names are taken, so it takes the scope ``users:write``, or the setting
    ``accounts.open_registration``.
    """
    flows = accounts()
    if flows.jam.settings.accounts.open_registration:
        flows.throttle.registration(address())
    else:
        extension().demand_manager()
    account = flows.registration.create(body.username, body.email, body.password, profile=body.more)
    is_own = caller().identity.subject == account.subject
    return answer(extension().represent(account, is_own=is_own), 201, Location=extension().url_of(account))


@api_endpoints.add(
    "PUT",
    "/users/<user_id>",
    body=UserChange,
    answers={200: User},
    more=True,
    guard=anybody,
    errors=(
        *_ABOUT_PEOPLE,
        AccessDenied,
        MethodRequired,
        FreshnessRequired,
        UserNotFound,
        ConcurrentUpdate,
        TooManyAttempts,
    ),
)
def update_user(user_id: str, body: UserChange) -> Response:
    """Change a user: one's own, unless a role or scope says otherwise. Another e-mail address takes a fresh sign-in."""
    flows, identity = accounts(), caller().identity
    refuse_others(user_id)
    account = flows.users.get(user_id)
    if account is None:
        raise UserNotFound
    if body.email is not UNSET and "email" not in flows.users.changeable:
        raise BodyInvalid("'email': cannot be set here.", {"email": "cannot be set here"})
    new_email = account.email if body.email is UNSET else email_address(body.email).address
    username = None if body.username is UNSET else body.username
    if username not in (None, account.username) and identity.subject == account.subject:
        # It is what one signs in with (ASVS 7.5.1), and what guesses at the password are counted by.
        refusal = JustProved().refusal(identity, flows.jam.clock())
        if refusal is not None:
            raise refusal
    if new_email is None or account.email in (new_email, body.email):
        account = flows.management.update_profile(user_id, body.more, username=username)
    else:
        refusal = JustProved().refusal(identity, flows.jam.clock())
        if refusal is not None:
            raise refusal
        changes = flows.management.profile_changes(account, body.more, username=username)
        try:
            account = flows.emails.set(user_id, new_email, besides=changes, address=address())
        except OneTimeTokenInvalid:
            raise ConcurrentUpdate from None
    return answer(extension().represent(account, is_own=identity.subject == account.subject))
