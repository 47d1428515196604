"""The extension that brings accounts to an app: carriers for every credential, the flows as JSON, and the API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from flask import Flask, url_for

from jam.accounts.accounts import Accounts
from jam.accounts.manage import iso_time
from jam.accounts.users import Account, UserStore
from jam.errors import ConfigError, ScopeRequired, UserInactive
from jam.ext.flask.accounts.account_views import account_endpoints
from jam.ext.flask.accounts.api_views import api_endpoints
from jam.ext.flask.accounts.bodies import User
from jam.ext.flask.accounts.context import EXTENSION, anybody, may_manage
from jam.ext.flask.accounts.flask_mail import FlaskMailMailer
from jam.ext.flask.accounts.openapi import openapi_endpoints
from jam.ext.flask.accounts.sign_in_views import sign_in_endpoints, well_known_endpoints
from jam.ext.flask.api_token_extension import APITokenExtension
from jam.ext.flask.basic import BasicExtension
from jam.ext.flask.extensions import JamExtension
from jam.ext.flask.guards import enter
from jam.ext.flask.jwt_extension import JWTExtension
from jam.ext.flask.request import resolve, state_of
from jam.ext.flask.session_extension import SessionExtension
from jam.jam import Jam

__all__ = ["AccountsExtension"]

Represent = Callable[[Account, dict[str, Any]], Mapping[str, Any]]


class AccountsExtension(JamExtension):
    """Signs people in, registers them, gives them tokens, and shows them as an API.

    What looks for credentials and is not set up on the app yet is set up with its defaults: sessions in a cookie,
    access tokens and API tokens in the ``Authorization`` header, and Basic where a password is asked for. So an
    extension of the app's own comes first.

    Args:
        jam: The ``Jam``.
        app: The app to set up now, if any.
        users: Where the people are kept; or ``accounts``, with more to say.
        accounts: The flows.
        url_prefix: Where they are.
        api_prefix: Where the API is; ``None`` for none.
        admin_role: Who may change other people's accounts.
        represent: ``represent(account, data) -> data``: adds to what the API shows of a user, links for example.

    Raises:
        ConfigError: If neither or both of ``users`` and ``accounts`` are given, or a prefix is none.
    """

    def __init__(
        self,
        jam: Jam,
        app: Flask | None = None,
        *,
        users: UserStore | None = None,
        accounts: Accounts | None = None,
        url_prefix: str = "/auth",
        api_prefix: str | None = "/api",
        admin_role: str = "admin",
        represent: Represent | None = None,
    ) -> None:
        if (users is None) == (accounts is None):
            raise ConfigError("AccountsExtension takes either users= or accounts=.")
        if accounts is not None and accounts.jam is not jam:
            raise ConfigError("The accounts belong to another Jam.", hint="Give both the same.")
        self.accounts = accounts if accounts is not None else Accounts(jam, users)  # type: ignore[arg-type]
        self.url_prefix = _checked_prefix(url_prefix)
        self.api_prefix = None if api_prefix is None else _checked_prefix(api_prefix)
        self.admin_role = admin_role
        self._represent = represent
        super().__init__(jam, app=None)
        self.callbacks.register("user_loader", self._load)
        self.callbacks.register("user_identity_loader", self.subject_of)
        known = self.accounts.users
        if "roles" in known.knows:
            self.callbacks.register("get_user_roles", lambda user: known.account_of(user).roles)
        if "scopes" in known.knows:
            self.callbacks.register("get_user_scopes", lambda user: known.account_of(user).scopes)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Set up the app. Its configuration is read later, when first needed.

        Raises:
            ConfigError: If the app has another ``Jam`` already, or accounts.
        """
        if EXTENSION in app.extensions:
            raise ConfigError("This app has accounts already.")
        self._attach(app)
        state = state_of(app)
        methods = state.lookup.methods()
        if state.lookup.session_cookie is None:
            SessionExtension(self.jam, app)
        if "jwt" not in methods:
            JWTExtension(self.jam, app)
        if "api_token" not in methods:
            APITokenExtension(self.jam, app)
        if state.lookup.verify_basic is None:
            BasicExtension(self.jam, app, accounts=self.accounts)
        app.extensions[EXTENSION] = self
        self.accounts.belong_to(
            app.app_context, lambda: FlaskMailMailer(app) if "mail" in app.extensions else None, self.url_prefix
        )
        blueprints = [
            sign_in_endpoints.blueprint(self.url_prefix),
            account_endpoints.blueprint(self.url_prefix),
            openapi_endpoints.blueprint(self.url_prefix),
            well_known_endpoints.blueprint(None),
        ]
        if self.api_prefix is not None:
            blueprints.append(api_endpoints.blueprint(self.api_prefix))
        for blueprint in blueprints:
            app.register_blueprint(blueprint)

    def represent(self, account: Account, *, is_own: bool) -> dict[str, Any]:
        """What the API shows of a user.

        Args:
            account: Whom.
            is_own: Whether to themselves: then the e-mail address is among it.
        """
        shown = User(
            id=int(account.subject) if self.accounts.users.is_numbered else account.subject,
            username=account.username,
            links={} if self.api_prefix is None else {"self": self.url_of(account)},
        )
        if account.created_at is not None:
            shown.created_at = iso_time(account.created_at)
        if is_own:
            shown.email, shown.email_verified = account.email, account.email_verified
            shown.roles, shown.scopes = sorted(account.roles), sorted(account.scopes)
        data: dict[str, Any] = {**account.profile, **msgspec.to_builtins(shown)}
        return data if self._represent is None else dict(self._represent(account, data))

    def subject_of(self, identity: Any) -> Any:
        """The subject of a user of the app's own, who need not have ``get_id()``; or what is one already."""
        if isinstance(identity, str):
            return identity
        if callable(get_id := getattr(identity, "get_id", None)):
            return get_id()
        return self.accounts.users.account_of(identity).subject

    def url_of(self, account: Account) -> str:
        """Where a user is in the API."""
        return url_for("jam_api.get_user", user_id=account.subject) if self.api_prefix is not None else ""

    def demand_manager(self) -> None:
        """Demand of the caller of this request that they may manage people.

        Raises:
            HTTPException, JamError: The refusal.
        """
        enter(anybody.checkpoints, raising=True)
        if not may_manage(resolve().identity):
            error = ScopeRequired("Making users takes the scope users:write.")
            error.scopes = "users:write"
            raise error

    def _load(self, subject: str) -> Any:
        """The app's own user, if they may use the app."""
        user = self.accounts.users.load(subject)
        if user is not None and not self.accounts.users.account_of(user).is_active:
            raise UserInactive
        return user


def _checked_prefix(prefix: str) -> str:
    """What URLs begin with, without a slash at the end."""
    checked = prefix.rstrip("/")
    if checked and not checked.startswith("/"):
        raise ConfigError(f"The prefix {prefix!r} does not begin with a slash.")
    return checked
