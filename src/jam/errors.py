"""Every error Jam raises.

Each class has a stable ``code`` for programs, an HTTP ``status``, a ``message`` that is safe to show to a
client, and a ``hint`` for the developer that says what to do next. None of them ever holds a secret.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = [
    "APIKeyInvalid",
    "APITokenInvalid",
    "AccessDenied",
    "AuthenticationRequired",
    "BadCredentials",
    "BodyInvalid",
    "Busy",
    "CSRFFailed",
    "ClaimRequired",
    "ClaimsRefused",
    "ConcurrentUpdate",
    "ConfigError",
    "CredentialError",
    "CredentialsMixed",
    "EmailRefused",
    "EmailTaken",
    "FreshnessRequired",
    "GenerationOutdated",
    "InvalidKey",
    "InvalidRequest",
    "InvalidValue",
    "JamError",
    "MailNotSent",
    "MethodRequired",
    "OneTimeTokenInvalid",
    "PasswordRefused",
    "RecordExists",
    "RefreshTokenReused",
    "RoleRequired",
    "ScopeRequired",
    "SessionInvalid",
    "SessionNotSaved",
    "SignInIncomplete",
    "StoreError",
    "StoreUnavailable",
    "TokenExpired",
    "TokenInvalid",
    "TokenNotYetValid",
    "TokenRevoked",
    "TooManyAttempts",
    "UserInactive",
    "UserNotFound",
    "UserUnknown",
    "UsernameRefused",
    "UsernameTaken",
]


class JamError(Exception):
    """The root of the tree: catch this to catch everything Jam raises.

    Args:
        message: What happened, safe to show to a client. The class's own text when left out.
        hint: What the developer can do about it; goes to logs and the command line, never to a client.
        code: A more precise code than the class's own.

    Attributes:
        retry_after: When it is worth trying again, in seconds; ``None`` if that says nothing.
    """

    code: str = "jam_error"
    status: ClassVar[int] = 500
    message: str = "The request could not be authorized."
    hint: str = ""
    retry_after: int | None = None

    def __init__(self, message: str | None = None, *, hint: str | None = None, code: str | None = None) -> None:
        if message is not None:
            self.message = message
        if hint is not None:
            self.hint = hint
        if code is not None:
            self.code = code
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()

    def details(self) -> Mapping[str, Any]:
        """What a client is told besides the message, by name."""
        return {}


# -- configuration and keys: the developer's mistakes, found at start or first use ---------------------------


class ConfigError(JamError):
    """A setting is unknown, of the wrong type, nonsensical or unsafe."""

    code = "config_error"
    message = "This application's access control is misconfigured."


class InvalidKey(ConfigError):
    """A key was refused at import or asked to do what it may not (RFC 7517, RFC 7518, RFC 8725 3.5)."""

    code = "invalid_key"
    message = "The key was refused."


class InvalidValue(JamError, ValueError):
    """An argument of a call cannot be what it is, such as a subject that is not a string."""

    code = "invalid_value"
    status = 400
    message = "A value is not acceptable."


# -- credentials: 401 ---------------------------------------------------------------------------------------


class CredentialError(JamError):
    """A credential was presented and is not good."""

    code = "credential_invalid"
    status = 401
    message = "The credential is not valid."


class TokenInvalid(CredentialError):
    """The token is malformed, wrongly signed, of the wrong kind, or not meant for this app."""

    code = "token_invalid"
    message = "The token is not valid."


class TokenExpired(TokenInvalid):
    """The token was good and has reached its ``exp`` (RFC 7519 4.1.4)."""

    code = "token_expired"
    message = "The token has expired."
    hint = "Sign in again or use the refresh token."


class TokenNotYetValid(TokenInvalid):
    """The token's ``nbf`` or ``iat`` lies in the future (RFC 7519 4.1.5)."""

    code = "token_not_yet_valid"
    message = "The token is not valid yet."
    hint = "Compare the clocks of the hosts, or allow a few seconds of leeway (access_tokens.leeway)."


class TokenRevoked(TokenInvalid):
    """The token was revoked by itself, or everything of its subject was."""

    code = "token_revoked"
    message = "The token has been revoked."


class ClaimsRefused(TokenInvalid):
    """The app's own ``token_verification_loader`` said no."""

    code = "claims_refused"
    message = "The token's claims were refused."


class RefreshTokenReused(TokenRevoked):
    """A token that was superseded came back, so that it is in two hands: its whole family is dead (RFC 9700 4.14.2)."""

    code = "refresh_token_reused"
    message = "The token was used before, so that it and its successors have been ended."
    hint = "Sign in again."


class UserUnknown(CredentialError):
    """The credential is good, and the app knows no such user any more."""

    code = "user_unknown"
    message = "The credential is not valid."


class SessionInvalid(CredentialError):
    """There is no live session behind the handle: unknown, expired, ended or never made."""

    code = "session_invalid"
    message = "The session is not valid."


class APIKeyInvalid(CredentialError):
    """The route asks for its own API key or bearer token, and that was not it."""

    code = "api_key_invalid"
    message = "The API key is not valid."


class APITokenInvalid(CredentialError):
    """There is no live API token like that: mistyped, expired, revoked or never made."""

    code = "api_token_invalid"
    message = "The API token is not valid."


class OneTimeTokenInvalid(CredentialError):
    """The link or code was used before, has expired, was made for something else, or the account has changed since."""

    code = "one_time_token_invalid"
    message = "The link or code is not valid any more."
    hint = "Ask for a new one."


class BadCredentials(CredentialError):
    """Name and password do not belong together; which of the two is wrong is not said (ASVS 6.3.8)."""

    code = "bad_credentials"
    message = "The user name or password is wrong."


class SignInIncomplete(CredentialError):
    """What was shown so far is right, and more is needed before the person is signed in.

    Attributes:
        steps: The names of what comes next, in this order.
        token: What to resume the sign-in with; it proves nobody.
    """

    code = "sign_in_incomplete"
    message = "Signing in takes another step."
    hint = "Do what `steps` names, then resume with `sign_in_token`."

    def __init__(self, steps: tuple[str, ...] = (), token: str = "") -> None:
        super().__init__()
        self.steps = steps
        self.token = token

    def details(self) -> Mapping[str, Any]:
        """The steps, and what to resume with if the sign-in can be resumed."""
        return {"steps": list(self.steps), **({"sign_in_token": self.token} if self.token else {})}


class TooManyAttempts(JamError):
    """Somebody tries too often: passwords, or mails to be sent. ``retry_after`` is in seconds."""

    code = "too_many_attempts"
    status = 429
    message = "Too many attempts. Try again later."

    def __init__(self, retry_after: float = 60.0) -> None:
        super().__init__()
        self.retry_after: int | None = max(1, math.ceil(retry_after))


class Busy(JamError):
    """More passwords are waiting to be checked than this process takes on. ``retry_after`` is in seconds."""

    code = "busy"
    status = 503
    message = "The service is busy. Try again in a moment."
    retry_after = 2


# -- what people write about themselves: 400 ----------------------------------------------------------------


class UsernameRefused(InvalidValue):
    """A user name that nobody may have: the message says why."""

    code = "username_refused"
    message = "The user name is not acceptable."


class UsernameTaken(InvalidValue):
    """Somebody else has the user name, or one that looks like it."""

    code = "username_taken"
    message = "Please use a different username."


class EmailRefused(InvalidValue):
    """Not an e-mail address: the message says why."""

    code = "email_refused"
    message = "The e-mail address is not acceptable."


class EmailTaken(InvalidValue):
    """Somebody else has the e-mail address."""

    code = "email_taken"
    message = "Please use a different email address."


class PasswordRefused(InvalidValue):
    """The policy does not take the password (NIST SP 800-63B-4 3.1.1.2): the message says why."""

    code = "password_refused"
    message = "The password is not acceptable."


class UserNotFound(JamError):
    """There is no such user."""

    code = "user_not_found"
    status = 404
    message = "There is no such user."


class BodyInvalid(JamError):
    """A request's body is not what the endpoint takes.

    Attributes:
        fields: What is wrong, by the name of the field; ``""`` stands for the body as a whole.
    """

    code = "body_invalid"
    status = 400
    message = "The request's body is not acceptable."

    def __init__(self, message: str | None = None, fields: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.fields = dict(fields or {})

    def details(self) -> Mapping[str, Any]:
        """The fields."""
        return {"fields": self.fields} if self.fields else {}


class InvalidRequest(JamError):
    """The request carries credentials in a way no client should (RFC 6750 2, 3.1)."""

    code = "invalid_request"
    status = 400
    message = "The request carries the same kind of credential more than once."
    hint = "Send a token in one place: the Authorization header, or the body, or the query string."


# -- checkpoints: 401 for the unknown, 403 for the known ----------------------------------------------------


class AuthenticationRequired(JamError):
    """The caller presented no credential and the route demands one."""

    code = "authentication_required"
    status = 401
    message = "Authentication is required."


class FreshnessRequired(AuthenticationRequired):
    """The caller is known but signed in too long ago (RFC 9470)."""

    code = "insufficient_user_authentication"
    message = "A more recent sign-in is required."
    hint = "Ask the user to sign in again, then repeat the request."
    max_age: float | None = None  #: seconds; what the route demands


class AccessDenied(JamError):
    """The caller may not do this."""

    code = "access_denied"
    status = 403
    message = "You are not allowed to do this."


class UserInactive(AccessDenied):
    """The user is known and was deactivated by the app (``is_active`` is false)."""

    code = "user_inactive"
    message = "This account is not active."


class RoleRequired(AccessDenied):
    """The identity lacks a role."""

    code = "role_required"


class ScopeRequired(AccessDenied):
    """The identity lacks a scope (RFC 6750 3.1)."""

    code = "insufficient_scope"
    scopes: str = ""  #: space-delimited; what the route demands


class ClaimRequired(AccessDenied):
    """A claim or session key has not the value the route demands."""

    code = "claim_required"


class MethodRequired(AccessDenied):
    """The route does not take this kind of credential."""

    code = "method_required"
    message = "This kind of credential is not accepted here."


class CredentialsMixed(AccessDenied):
    """The guards before a view were passed by credentials of different people, and nobody may pass as both."""

    code = "credentials_mixed"
    message = "The request carries the credentials of different people."


class CSRFFailed(AccessDenied):
    """An unsafe request did not prove that it comes from this site's own pages, so no cookie was opened."""

    code = "csrf_failed"
    message = "The request does not come from this site's own pages."
    hint = (
        "Browsers prove it with Sec-Fetch-Site or Origin. A script that uses a cookie sends an Origin header, "
        "or better a bearer token; another site of yours belongs in csrf.trusted_origins."
    )


class SessionNotSaved(JamError):
    """``flask.session`` holds what cannot be kept: the app's mistake, told to its log and not to its users."""

    code = "session_not_saved"
    message = "The request could not be completed."


# -- stores -------------------------------------------------------------------------------------------------


class StoreError(JamError):
    """The base of what a store may raise."""

    code = "store_error"


class StoreUnavailable(StoreError):
    """The store could not be asked, so nobody may pass. ``retry_after`` is in seconds."""

    code = "store_unavailable"
    status = 503
    message = "The service is temporarily unavailable."
    retry_after = 5


class RecordExists(StoreError):
    """``add`` found a live record of this kind and id."""

    code = "record_exists"
    status = 409
    message = "The record exists already."


class GenerationOutdated(StoreError):
    """The record was made before its subject was revoked, so it may not enter the store any more."""

    code = "generation_outdated"
    status = 409
    message = "Everything of this subject was revoked meanwhile."
    hint = "Sign in again."


class ConcurrentUpdate(StoreError):
    """Others kept changing the record and the bounded retries are used up; nothing was written."""

    code = "concurrent_update"
    status = 409
    message = "The data was changed by somebody else at the same time; nothing was saved."
    hint = "Try again."


# -- mail ---------------------------------------------------------------------------------------------------


class MailNotSent(JamError):
    """The mail did not leave.

    Attributes:
        permanent: Whether trying again is of no use: the server refused this recipient or this mail for good.
    """

    code = "mail_not_sent"
    status = 503
    message = "The mail could not be sent."

    def __init__(self, message: str | None = None, *, hint: str | None = None, permanent: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.permanent = permanent
