"""Jam in Flask.

Extensions say where credentials are looked for; guards say what a route demands; ``current_identity`` and
``g.payload`` say who is calling. See ``docs/flask.md``.
"""

from jam.checkpoints import Authenticated, Checkpoint, Claim, Fresh, HasRole, HasScope, Method
from jam.ext.flask.api_token_extension import APITokenExtension
from jam.ext.flask.basic import BasicExtension
from jam.ext.flask.checkpoints import (
    APIKeyCheckpoint,
    BearerCheckpoint,
    FlaskCheckpoint,
    SameOrigin,
    SessionCheckpoint,
    lazy_url_for,
)
from jam.ext.flask.csrf_token import csrf_token
from jam.ext.flask.extensions import JamExtension
from jam.ext.flask.guards import checkpoint, deny_by_default, login_required, protect, public
from jam.ext.flask.jwt_extension import JWTExtension
from jam.ext.flask.login import (
    FreshLogin,
    confirm_login,
    end_login,
    end_other_logins,
    fresh_login_required,
    list_logins,
    login_fresh,
    login_remembered,
    login_user,
    logout_user,
)
from jam.ext.flask.next_url import login_url, next_url
from jam.ext.flask.request import current_identity
from jam.ext.flask.session_extension import SessionExtension
from jam.ext.flask.token_cookies import (
    set_access_cookies,
    set_refresh_cookies,
    unset_access_cookies,
    unset_jwt_cookies,
    unset_refresh_cookies,
)
from jam.ext.flask.tokens import (
    create_access_token,
    create_refresh_token,
    decode_token,
    get_csrf_token,
    get_jti,
    get_jwt,
    get_jwt_header,
    get_jwt_identity,
    get_jwt_request_location,
    get_unverified_jwt_headers,
    jwt_required,
    revoke_jwt,
    rotate_refresh_token,
    verify_jwt_in_request,
)
from jam.ext.flask.users import AnonymousUserMixin, UserMixin, current_user, get_current_user

__all__ = [
    "APIKeyCheckpoint",
    "APITokenExtension",
    "AnonymousUserMixin",
    "Authenticated",
    "BasicExtension",
    "BearerCheckpoint",
    "Checkpoint",
    "Claim",
    "FlaskCheckpoint",
    "Fresh",
    "FreshLogin",
    "HasRole",
    "HasScope",
    "JWTExtension",
    "JamExtension",
    "Method",
    "SameOrigin",
    "SessionCheckpoint",
    "SessionExtension",
    "UserMixin",
    "checkpoint",
    "confirm_login",
    "create_access_token",
    "create_refresh_token",
    "csrf_token",
    "current_identity",
    "current_user",
    "decode_token",
    "deny_by_default",
    "end_login",
    "end_other_logins",
    "fresh_login_required",
    "get_csrf_token",
    "get_current_user",
    "get_jti",
    "get_jwt",
    "get_jwt_header",
    "get_jwt_identity",
    "get_jwt_request_location",
    "get_unverified_jwt_headers",
    "jwt_required",
    "lazy_url_for",
    "list_logins",
    "login_fresh",
    "login_remembered",
    "login_required",
    "login_url",
    "login_user",
    "logout_user",
    "next_url",
    "protect",
    "public",
    "revoke_jwt",
    "rotate_refresh_token",
    "set_access_cookies",
    "set_refresh_cookies",
    "unset_access_cookies",
    "unset_jwt_cookies",
    "unset_refresh_cookies",
    "verify_jwt_in_request",
]
