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

__all__ = [
    "APIKeyCheckpoint",
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
    "checkpoint",
    "current_identity",
    "deny_by_default",
    "lazy_url_for",
    "login_required",
    "protect",
    "public",
]
