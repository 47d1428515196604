"""What goes in and comes out of the endpoints. Times are ISO 8601 in UTC, lifetimes in seconds."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType, field

__all__ = [
    "APITokenChange",
    "APITokenCreated",
    "APITokenList",
    "APITokenRequest",
    "APITokenShown",
    "Collection",
    "Confirmation",
    "Credentials",
    "EmailChange",
    "Forgotten",
    "JSONWebKeys",
    "Link",
    "LoginCredentials",
    "LoginList",
    "LoginShown",
    "NextLoginStep",
    "NextStep",
    "NextTokenStep",
    "Page",
    "Paging",
    "PasswordChange",
    "PasswordProof",
    "PasswordReset",
    "Refresh",
    "RegistrationRequest",
    "Resend",
    "Revocation",
    "SignOut",
    "TokenPair",
    "User",
    "UserChange",
]

Name = Annotated[str, Meta(max_length=1024, description="A user name or an e-mail address.")]
Username = Annotated[str, Meta(max_length=1024)]
Email = Annotated[str, Meta(max_length=1024)]
Password = Annotated[str, Meta(max_length=65536)]
Token = Annotated[str, Meta(max_length=4096)]
Time = Annotated[str, Meta(description="ISO 8601, in UTC.", examples=["2030-01-31T12:00:00Z"])]


# -- signing in ---------------------------------------------------------------------------------------------


class Credentials(Struct, kw_only=True):
    """Who wants to be signed in. With ``cookies`` the tokens come in cookies instead of the body."""

    username: Name
    password: Password
    cookies: bool = False


class LoginCredentials(Struct, kw_only=True):
    """Who wants to be signed in, and whether the browser is to be remembered."""

    username: Name
    password: Password
    remember: bool = False


class NextStep(Struct, kw_only=True):
    """The next step of a sign-in that takes several."""

    sign_in_token: Token
    step: Annotated[str, Meta(max_length=64)]
    answer: dict[str, Any] = {}


class NextTokenStep(NextStep, kw_only=True):
    """The next step of a sign-in for tokens."""

    cookies: bool = False


class NextLoginStep(NextStep, kw_only=True):
    """The next step of a browser's sign-in."""

    remember: bool = False


class Resend(Struct, kw_only=True):
    """The mail or code of the present step did not come."""

    sign_in_token: Token


class TokenPair(Struct, kw_only=True):
    """Tokens (RFC 6749 5.1). Those that went into cookies are not in it, nor is a refresh token that did not change."""

    access_token: str | UnsetType = UNSET
    refresh_token: str | UnsetType = UNSET
    token_type: str
    expires_in: int


class Refresh(Struct, kw_only=True):
    """A refresh token, unless it comes in its cookie or in the header."""

    refresh_token: Token | UnsetType = UNSET


class Revocation(Struct, kw_only=True):
    """A token to be ended (RFC 7009 2.1)."""

    token: Annotated[str, Meta(max_length=16384)]
    token_type_hint: Annotated[str, Meta(max_length=255)] | UnsetType = UNSET
    client_id: Annotated[str, Meta(max_length=255)] | UnsetType = UNSET


class PasswordProof(Struct, kw_only=True):
    """The caller's password once more."""

    password: Password


class SignOut(Struct, kw_only=True):
    """Whether API tokens end as well."""

    api_tokens: bool = False


# -- accounts -----------------------------------------------------------------------------------------------


class RegistrationRequest(Struct, kw_only=True):
    """An account that is asked for; further fields are the app's own."""

    username: Username
    email: Email
    password: Password
    more: dict[str, Any] = {}


class Confirmation(Struct, kw_only=True):
    """The token of a registration's link, and the password that was chosen; another name if the first one is taken."""

    token: Token
    password: Password
    username: Username | UnsetType = UNSET


class Link(Struct, kw_only=True):
    """The token of a link that came by mail."""

    token: Token


class Forgotten(Struct, kw_only=True):
    """Who forgot their password."""

    email: Name


class PasswordReset(Struct, kw_only=True):
    """A new password for a forgotten one."""

    token: Token
    password: Password


class PasswordChange(Struct, kw_only=True):
    """A new password for the present one."""

    current_password: Password
    new_password: Password
    end_api_tokens: bool = False


class EmailChange(Struct, kw_only=True):
    """A new e-mail address."""

    email: Email


class LoginShown(Struct, kw_only=True):
    """A login of the caller's: a browser or app that is signed in."""

    id: str
    user_agent: str
    address: str
    signed_in_at: Time
    last_seen_at: Time
    ends_at: Time
    remembered: bool
    current: bool


class LoginList(Struct, kw_only=True):
    """The caller's logins."""

    items: list[LoginShown]


# -- the API ------------------------------------------------------------------------------------------------


class User(Struct, kw_only=True):
    """A person, with the app's own fields beside these. The last four are shown to themselves alone."""

    id: int | str
    username: str
    created_at: Time | UnsetType | None = UNSET
    email: str | UnsetType | None = UNSET
    email_verified: bool | UnsetType = UNSET
    roles: list[str] | UnsetType = UNSET
    scopes: list[str] | UnsetType = UNSET
    links: dict[str, str] = field(name="_links")


class Page(Struct, kw_only=True):
    """Where in a collection this is."""

    page: int
    per_page: int
    total_pages: int
    total_items: int


class Paging(Struct, kw_only=True):
    """Which page of a collection is wanted."""

    page: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    per_page: Annotated[int, Meta(ge=1, le=1_000_000, description="More than 100 counts as 100.")] = 10


class Collection(Struct, kw_only=True):
    """A page of a collection, with the way to its neighbours."""

    items: list[User]
    meta: Page = field(name="_meta")
    links: dict[str, str | None] = field(name="_links")


class UserChange(Struct, kw_only=True):
    """What is to be changed; further fields are the app's own."""

    username: Username | UnsetType = UNSET
    email: Email | UnsetType = UNSET
    more: dict[str, Any] = {}


class APITokenRequest(Struct, kw_only=True):
    """An API token that is wanted. Without ``scopes`` it has all that its maker has."""

    name: Annotated[str, Meta(max_length=1024)] = "api"
    scopes: Annotated[list[Annotated[str, Meta(max_length=255)]], Meta(max_length=100)] | UnsetType = UNSET
    lifetime: Annotated[float, Meta(ge=1, le=1e10, description="Seconds.")] | UnsetType = UNSET


class APITokenShown(Struct, kw_only=True):
    """What may be shown of an API token."""

    id: str
    name: str
    scopes: list[str]
    created_at: Time
    last_used_at: Time | None
    ends_at: Time
    links: dict[str, str] = field(name="_links")


class APITokenCreated(Struct, kw_only=True):
    """A new API token. It is shown this once."""

    token: str
    id: str
    name: str
    scopes: list[str]
    ends_at: Time


class APITokenList(Struct, kw_only=True):
    """The caller's API tokens."""

    items: list[APITokenShown]


class APITokenChange(Struct, kw_only=True):
    """Another name."""

    name: Annotated[str, Meta(max_length=1024)]


class JSONWebKeys(Struct, kw_only=True):
    """The keys that verify access tokens (RFC 7517 5); none of a secret."""

    keys: list[dict[str, Any]]
