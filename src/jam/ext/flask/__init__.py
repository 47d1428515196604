"""Jam in Flask.

Extensions say where credentials are looked for; guards say what a route demands; ``current_identity`` and
``g.payload`` say who is calling. See ``docs/flask.md``.
"""

from jam.checkpoints import Authenticated, Checkpoint, Claim, Fresh, HasRole, HasScope, Method
from jam.ext.flask.checkpoints import (
    APIKeyCheckpoint,
    BearerCheckpoint,
    FlaskCheckpoint,
    SameOrigin,
    SessionCheckpoint,
    lazy_url_for,
)
from jam.ext.flask.extensions import JamExtension, JWTExtension, SessionExtension
from jam.ext.flask.guards import checkpoint, deny_by_default, login_required, protect, public
from jam.ext.flask.request import current_identity
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
    rotate_refresh_token,
    verify_jwt_in_request,
)
from jam.ext.flask.users import AnonymousUserMixin, UserMixin, current_user, get_current_user

__all__ = [
    "APIKeyCheckpoint",
    "AnonymousUserMixin",
    "Authenticated",
    "BearerCheckpoint",
    "Checkpoint",
    "Claim",
    "FlaskCheckpoint",
    "Fresh",
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
    "create_access_token",
    "create_refresh_token",
    "current_identity",
    "current_user",
    "decode_token",
    "deny_by_default",
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
    "login_required",
    "protect",
    "public",
    "rotate_refresh_token",
    "set_access_cookies",
    "set_refresh_cookies",
    "unset_access_cookies",
    "unset_jwt_cookies",
    "unset_refresh_cookies",
    "verify_jwt_in_request",
]
