"""Where this app looks for tokens, and the app's own functions about them: those of Flask-JWT-Extended, by name."""

from __future__ import annotations

from typing import Any

from flask import Flask, current_app, request

from jam.errors import (
    AuthenticationRequired,
    ClaimsRefused,
    FreshnessRequired,
    InvalidRequest,
    JamError,
    TokenExpired,
    TokenInvalid,
    TokenRevoked,
    UserUnknown,
)
from jam.ext.flask.callbacks import call
from jam.ext.flask.extensions import CredentialExtension, F
from jam.ext.flask.request import state_of
from jam.ext.flask.tokens import refused_token
from jam.jam import Jam

__all__ = ["JWTExtension"]

# Which of the app's functions answers which refusal: the first that fits.
_ANSWERS: tuple[tuple[type[JamError], str], ...] = (
    (TokenExpired, "expired_token_loader"),
    (TokenRevoked, "revoked_token_loader"),
    (ClaimsRefused, "token_verification_failed_loader"),
    (UserUnknown, "user_lookup_error_loader"),
    (TokenInvalid, "invalid_token_loader"),
    (InvalidRequest, "invalid_token_loader"),
    (FreshnessRequired, "needs_fresh_token_loader"),
    (AuthenticationRequired, "unauthorized_loader"),
)


class JWTExtension(CredentialExtension):
    """Looks for an access token.

    Args:
        jam: The ``Jam``.
        app: The app to set up now, if any.
        header_name: A header of the form ``Bearer <token>``, or ``None`` not to look in one.
        cookie_name: A cookie, or ``None`` not to look in one.

    Raises:
        ConfigError: If both are ``None``.
    """

    method = "jwt"

    def __init__(
        self,
        jam: Jam,
        app: Flask | None = None,
        header_name: str | None = "Authorization",
        cookie_name: str | None = None,
    ) -> None:
        super().__init__(jam, app, header_name, cookie_name)
        self.callbacks.answer = self._answer

    # -- about people --

    def user_identity_loader(self, function: F) -> F:
        """``function(identity) -> subject``: what ``create_access_token`` was given, as a string."""
        self.callbacks.register("user_identity_loader", function)
        return function

    def user_lookup_loader(self, function: F) -> F:
        """``function(header, payload) -> user or None``: as ``user_loader``, for tokens."""
        self.callbacks.register("user_lookup_loader", function)
        return function

    # -- about tokens --

    def additional_claims_loader(self, function: F) -> F:
        """``function(identity) -> dict``: more claims for a token whose maker names none."""
        self.callbacks.register("additional_claims_loader", function)
        return function

    def additional_headers_loader(self, function: F) -> F:
        """``function(identity) -> dict``: more JOSE headers for a token whose maker names none."""
        self.callbacks.register("additional_headers_loader", function)
        return function

    def token_in_blocklist_loader(self, function: F) -> F:
        """``function(header, payload) -> bool``: whether the app's own list has the token; Jam keeps one already."""
        self.callbacks.register("token_in_blocklist_loader", function)
        return function

    def token_verification_loader(self, function: F) -> F:
        """``function(header, payload) -> bool``: whether a token that is good otherwise is to count."""
        self.callbacks.register("token_verification_loader", function)
        return function

    # -- about refusals --

    def unauthorized_loader(self, function: F) -> F:
        """``function(message) -> response``: the answer where a token is demanded and none came."""
        self.callbacks.register("unauthorized_loader", function)
        return function

    def invalid_token_loader(self, function: F) -> F:
        """``function(message) -> response``: the answer to a token that is not good."""
        self.callbacks.register("invalid_token_loader", function)
        return function

    def expired_token_loader(self, function: F) -> F:
        """``function(header, payload) -> response``: the answer to a token that was good once."""
        self.callbacks.register("expired_token_loader", function)
        return function

    def revoked_token_loader(self, function: F) -> F:
        """``function(header, payload) -> response``: the answer to a token that was revoked, or used twice."""
        self.callbacks.register("revoked_token_loader", function)
        return function

    def needs_fresh_token_loader(self, function: F) -> F:
        """``function(header, payload) -> response``: the answer to a token that is not fresh where that is demanded."""
        self.callbacks.register("needs_fresh_token_loader", function)
        return function

    def token_verification_failed_loader(self, function: F) -> F:
        """``function(header, payload) -> response``: the answer where ``token_verification_loader`` said no."""
        self.callbacks.register("token_verification_failed_loader", function)
        return function

    def user_lookup_error_loader(self, function: F) -> F:
        """``function(header, payload) -> response``: the answer to a good token whose user is gone."""
        self.callbacks.register("user_lookup_error_loader", function)
        return function

    def _answer(self, error: JamError) -> Any:
        """The app's own answer to a refusal, or ``None`` for Jam's."""
        for kinds, name in _ANSWERS:
            if isinstance(error, kinds):
                function = self.callbacks.get(name)
                if function is None:
                    return None
                if name in ("unauthorized_loader", "invalid_token_loader"):
                    return call(function, error.message)
                return call(function, *refused_token(state_of(current_app), request))
        return None
