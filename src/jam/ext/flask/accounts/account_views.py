"""A person's own account over HTTP: registering, passwords, e-mail addresses, logins, and leaving."""

from __future__ import annotations

from flask import Response
from msgspec import UNSET

from jam.accounts.manage import REVOCATIONS, iso_time
from jam.accounts.users import Account
from jam.credentials.logins import Login
from jam.errors import (
    BadCredentials,
    Busy,
    EmailRefused,
    InvalidValue,
    OneTimeTokenInvalid,
    PasswordRefused,
    TooManyAttempts,
    UsernameRefused,
    UsernameTaken,
    UserNotFound,
)
from jam.ext.flask.accounts.bodies import (
    Confirmation,
    EmailChange,
    Forgotten,
    Link,
    LoginList,
    LoginShown,
    PasswordChange,
    PasswordReset,
    RegistrationRequest,
    TokenPair,
    User,
)
from jam.ext.flask.accounts.context import (
    PEOPLE,
    accounts,
    address,
    caller,
    caller_account,
    extension,
    interactive,
    just_proved,
)
from jam.ext.flask.accounts.endpoints import Endpoints, answer
from jam.ext.flask.accounts.sign_in_views import changeable_session, drop_cookies, tokens_for
from jam.ext.flask.login import continue_login, end_login, list_logins, own_handle

__all__ = ["account_endpoints"]

account_endpoints = Endpoints("jam_accounts", lambda: accounts().users.writable)


def _no_such_login() -> UserNotFound:
    return UserNotFound("There is no such login of yours.", code="login_not_found")


_ABOUT_PEOPLE = (UsernameRefused, EmailRefused, PasswordRefused)


@account_endpoints.add(
    "POST",
    "/register",
    body=RegistrationRequest,
    answers={202: None},
    errors=(*_ABOUT_PEOPLE, InvalidValue, TooManyAttempts, Busy),
    more=True,
)
def register(body: RegistrationRequest) -> Response:
    """Ask for an account. The answer is the same whoever exists already: the mail says what has become of it."""
    accounts().registration.start(body.username, body.email, body.password, profile=body.more, address=address())
    return answer(None, 202)


@account_endpoints.add(
    "POST",
    "/register/confirm",
    body=Confirmation,
    answers={201: User},
    errors=(OneTimeTokenInvalid, BadCredentials, UsernameRefused, UsernameTaken, InvalidValue, TooManyAttempts, Busy),
)
def confirm_registration(body: Confirmation) -> Response:
    """Make the account, with the token of the mail's link and the password that was chosen. It signs nobody in."""
    username = None if body.username is UNSET else body.username
    account = accounts().registration.confirm(body.token, body.password, username=username, address=address())
    return answer(extension().represent(account, is_own=True), 201, **_where(account))


@account_endpoints.add("POST", "/verify", body=Link, answers={204: None}, errors=(OneTimeTokenInvalid,))
def verify_email(body: Link) -> Response:
    """Verify an e-mail address, with the token of the mail's link."""
    accounts().emails.verify(body.token, address=address())
    return answer(None, 204)


@account_endpoints.add(
    "POST",
    "/verify/send",
    answers={202: None},
    errors=(TooManyAttempts,),
    guard=interactive,
    methods=PEOPLE,
)
def send_verification() -> Response:
    """Send the link that verifies the caller's e-mail address."""
    accounts().emails.send_verification(caller_account(), address=address())
    return answer(None, 202)


@account_endpoints.add("POST", "/forgot", body=Forgotten, answers={202: None}, errors=(TooManyAttempts,))
def forgot(body: Forgotten) -> Response:
    """Send a link to set a new password. The answer is the same whoever exists."""
    accounts().recovery.forgot(body.email, address=address())
    return answer(None, 202)


@account_endpoints.add(
    "POST",
    "/reset",
    body=PasswordReset,
    answers={204: None},
    errors=(OneTimeTokenInvalid, PasswordRefused, Busy),
)
def reset(body: PasswordReset) -> Response:
    """Set a new password, with the token of the mail's link. Every login and token ends; it signs nobody in."""
    accounts().recovery.reset(body.token, body.password, address=address())
    return answer(None, 204)


@account_endpoints.add(
    "POST",
    "/password",
    body=PasswordChange,
    answers={204: None, 200: TokenPair},
    errors=(BadCredentials, PasswordRefused, TooManyAttempts, Busy),
    guard=interactive,
    methods=PEOPLE,
)
def change_password(body: PasswordChange) -> Response:
    """Set a new password. Every other login and token ends; the caller goes on with a new handle, or new tokens."""
    resolved = caller()
    subject = resolved.identity.subject or ""
    is_session = resolved.identity.method == "session"
    state, cookie_name = changeable_session() if is_session else (None, "")
    jam = accounts().jam
    before = jam.store.marks(subject, "", jam.clock())
    gone_on = accounts().management.change_password(
        subject, body.current_password, body.new_password, address=address(), end_api_tokens=body.end_api_tokens,
        handle=own_handle(resolved) if is_session else None,
    )  # fmt: skip
    if state is None or gone_on is None:
        # Of the generation that the change has begun: what ended everything since then ends these as well.
        generations = {kind: before.generation(kind) + REVOCATIONS for kind in ("access_token", "refresh_token")}
        return tokens_for(caller_account(), generations, in_cookies=resolved.location == "cookies")
    continue_login(state, cookie_name, *gone_on)
    return answer(None, 204)


@account_endpoints.add(
    "POST",
    "/email",
    body=EmailChange,
    answers={202: None},
    errors=(EmailRefused, UserNotFound, TooManyAttempts),
    guard=just_proved,
    methods=PEOPLE,
)
def change_email(body: EmailChange) -> Response:
    """Send a link to a new e-mail address; with it the address becomes the caller's."""
    accounts().emails.request_change(caller().identity.subject or "", body.email, address=address())
    return answer(None, 202)


@account_endpoints.add("POST", "/email/confirm", body=Link, answers={204: None}, errors=(OneTimeTokenInvalid,))
def confirm_email(body: Link) -> Response:
    """Make a new e-mail address the account's, with the token of the mail's link."""
    accounts().emails.confirm_change(body.token, address=address())
    return answer(None, 204)


@account_endpoints.add("GET", "/me", answers={200: User}, guard=interactive, methods=PEOPLE)
def show_me() -> Response:
    """The caller's own account."""
    return answer(extension().represent(caller_account(), is_own=True))


@account_endpoints.add("GET", "/sessions", answers={200: LoginList}, guard=interactive, methods=PEOPLE)
def show_sessions() -> Response:
    """The caller's logins: browsers that are signed in, or remembered."""
    return answer(LoginList(items=[_shown(one) for one in list_logins()]))


@account_endpoints.add(
    "DELETE",
    "/sessions/<login_id>",
    answers={204: None},
    errors=(_no_such_login(),),
    guard=just_proved,
    methods=PEOPLE,
)
def end_session(login_id: str) -> Response:
    """End one of the caller's logins."""
    if not end_login(login_id):
        raise _no_such_login()
    return answer(None, 204)


@account_endpoints.add(
    "GET",
    "/export",
    answers={200: dict},
    errors=(UserNotFound,),
    guard=just_proved,
    methods=PEOPLE,
)
def export() -> Response:
    """What is kept about the caller."""
    found = accounts().management.export(caller().identity.subject or "")
    return answer(found, 200, Content_Disposition='attachment; filename="account.json"')


@account_endpoints.add(
    "POST",
    "/deactivate",
    answers={204: None},
    errors=(UserNotFound,),
    guard=just_proved,
    methods=PEOPLE,
)
def deactivate() -> Response:
    """Close the caller's account, so that an administrator can open it again. Everything of theirs ends."""
    accounts().management.deactivate(caller().identity.subject or "", address=address())
    drop_cookies()
    return answer(None, 204)


@account_endpoints.add(
    "DELETE",
    "/account",
    answers={204: None},
    errors=(UserNotFound, InvalidValue),
    guard=just_proved,
    methods=PEOPLE,
)
def delete_account() -> Response:
    """Delete the caller's account. Everything of theirs ends."""
    accounts().management.delete(caller().identity.subject or "", address=address())
    drop_cookies()
    return answer(None, 204)


def _where(account: Account) -> dict[str, str]:
    url = extension().url_of(account)
    return {"Location": url} if url else {}


def _shown(login: Login) -> LoginShown:
    return LoginShown(
        id=login.id, user_agent=str(login.device.get("user_agent", "")), address=str(login.device.get("address", "")),
        signed_in_at=iso_time(login.signed_in_at) or "", last_seen_at=iso_time(login.last_seen_at) or "",
        ends_at=iso_time(login.ends_at) or "", remembered=login.remembered, current=login.current,
    )  # fmt: skip
