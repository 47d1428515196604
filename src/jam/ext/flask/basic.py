"""HTTP Basic (RFC 7617): a name and a password in every request, for scripts that fetch a token with them.

Each request costs as much as a sign-in, and is counted like one. So Basic counts only before views that name it
(``login_required(methods=("basic",))``), and only there is it asked for.
"""

from __future__ import annotations

import base64
import binascii
import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from flask import Flask, request

from jam.errors import BadCredentials, ConfigError
from jam.ext.flask.callbacks import call
from jam.ext.flask.extensions import F, JamExtension
from jam.ext.flask.request import prepared_state
from jam.ext.flask.users import subject_of
from jam.identity import Identity
from jam.jam import Jam

if TYPE_CHECKING:  # an app with a function of its own needs nothing of it
    from jam.accounts.accounts import Accounts
    from jam.accounts.password_check import Proof

__all__ = ["BasicExtension", "basic_credentials"]

_MAX_BASIC = 8192  # characters of base64; servers take little more in one header


class BasicExtension(JamExtension):
    """Takes a user name and a password from the ``Authorization`` header, where a guard asks for them.

    Args:
        jam: The ``Jam``.
        app: The app to set up now, if any.
        accounts: What knows the people; or the app's own function, see ``verify_password``.
    """

    method: ClassVar[str] = "basic"

    def __init__(self, jam: Jam, app: Flask | None = None, *, accounts: Accounts | None = None) -> None:
        self.accounts = accounts
        super().__init__(jam, app)

    def init_app(self, app: Flask) -> None:
        """Set up the app. Its configuration is read later, when first needed.

        Raises:
            ConfigError: If the app has another ``Jam`` already.
        """
        state = self._attach(app)
        state.lookup.verify_basic = self._verify

    def verify_password(self, function: F) -> F:
        """``function(username, password) -> user, subject or None``: whose they are, if they belong together.

        It must cost the same for a name that nobody has, and attempts are not counted: ``accounts=`` does both.
        """
        self.callbacks.register("verify_password", function)
        return function

    def _verify(self, value: str) -> Identity:
        """Whom the credentials of a header prove.

        Raises:
            BadCredentials: If nobody.
            CSRFFailed: If a browser says that another site's page has it send what it remembers (ASVS 3.5.1).
            SignInIncomplete: If a password is not enough for that account (ASVS 6.3.4).
            TooManyAttempts: If too many failed before.
        """
        _refuse_forged()
        name, password = basic_credentials(value)
        own = self.callbacks.get("verify_password")
        now = self.jam.clock()
        if own is not None:
            user = call(own, name, password) if name and password else None
            if user is None or user is False:
                raise BadCredentials
            # Flask-HTTPAuth's functions may say True for "the name that was given".
            subject = name if user is True else subject_of(prepared_state(), user)
            return Identity(subject, "basic", authenticated_at=now, amr=("pwd",))
        if self.accounts is None:
            raise ConfigError(
                "BasicExtension does not know whom to ask about passwords.",
                hint="Give it accounts=, or decorate a function with @basic.verify_password.",
            )
        proof = self.accounts.sign_in.start_at_once(name, password, address=request.remote_addr)
        account = proof.account
        return Identity(
            account.subject, "basic", roles=account.roles, scopes=account.scopes, amr=proof.amr,
            authenticated_at=proof.at, generations=_as_read(proof),
        )  # fmt: skip


def _as_read(proof: Proof) -> Mapping[str, int]:
    """The generations of the proof, also of what was never revoked: an app's own function has read none."""
    return dict.fromkeys(("api_token", "access_token", "refresh_token"), 0) | dict(proof.generations)


def _refuse_forged() -> None:
    """Refuse what another site's page asks for: browsers remember names and passwords, and send them unasked.

    Scripts say nothing of where a request comes from, and remember nothing.
    """
    if "HTTP_SEC_FETCH_SITE" in request.environ or "HTTP_ORIGIN" in request.environ:
        refusal = prepared_state().csrf_refusal(request)
        if refusal is not None:
            raise refusal


def basic_credentials(value: str) -> tuple[str, str]:
    """User name and password of a header's value, without the scheme (RFC 7617 2).

    Raises:
        BadCredentials: If it is not well formed: base64 of UTF-8, with a colon and without control characters.
    """
    try:
        if len(value) > _MAX_BASIC:
            raise BadCredentials
        text = base64.b64decode(value, validate=True).decode()
    except (binascii.Error, ValueError):
        raise BadCredentials from None
    name, colon, password = text.partition(":")
    if not colon or any(unicodedata.category(character) == "Cc" for character in text):
        raise BadCredentials
    return name, password
