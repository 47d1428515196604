"""The OpenAPI 3.1 document, written from the declarations by which the endpoints decode and answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from flask import Response
from msgspec import Struct

from jam.checkpoints import Method
from jam.errors import (
    APITokenInvalid,
    AuthenticationRequired,
    BadCredentials,
    BodyInvalid,
    CSRFFailed,
    FreshnessRequired,
    JamError,
    MethodRequired,
    SessionInvalid,
    StoreUnavailable,
    TokenInvalid,
    UserInactive,
    UserUnknown,
)
from jam.ext.flask.accounts.account_views import account_endpoints
from jam.ext.flask.accounts.api_views import api_endpoints
from jam.ext.flask.accounts.bodies import Collection, User
from jam.ext.flask.accounts.context import JustProved, accounts, extension
from jam.ext.flask.accounts.endpoints import Endpoint, Endpoints, answer
from jam.ext.flask.accounts.sign_in_views import sign_in_endpoints, well_known_endpoints
from jam.ext.flask.request import prepared_state

__all__ = ["document", "openapi_endpoints"]

openapi_endpoints = Endpoints("jam_openapi")

_VARIABLE = re.compile(r"<(?:[a-z]+:)?([a-z_]+)>")
_SCHEMA = "#/components/schemas/{name}"
_SECURITY = {
    "session": "session", "jwt": "bearer", "api_token": "bearer", "basic": "basic", "refresh_token": "refresh_token"
}  # fmt: skip
_ANY_CREDENTIAL = frozenset(("session", "jwt", "api_token"))
_NO_GOOD: Mapping[str, type[JamError]] = {
    "session": SessionInvalid, "jwt": TokenInvalid, "api_token": APITokenInvalid, "basic": BadCredentials,
    "refresh_token": TokenInvalid,
}  # fmt: skip
_DETAILS = {
    "code": {"type": "string", "description": "What is wrong, for programs: it never changes."},
    "fields": {
        "type": "object", "additionalProperties": {"type": "string"}, "description": "What is wrong, by field."
    },
    "steps": {
        "type": "array", "items": {"type": "string"}, "description": "What a sign-in takes besides, in this order."
    },
    "sign_in_token": {"type": "string", "description": "What to resume the sign-in with."},
}  # fmt: skip
_ERROR = {
    "type": "object",
    "required": ["error", "message", "code"],
    "properties": {
        "error": {"type": "string", "description": "The name of the status."},
        "message": {"type": "string", "description": "What is wrong, for people."},
        **_DETAILS,
    },
}
_PROBLEM = {  # RFC 9457, for who asks for it
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string", "description": "The name of the status."},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong, for people."},
        **_DETAILS,
    },
}


@openapi_endpoints.add("GET", "/openapi.json", answers={200: dict})
def openapi() -> Response:
    """This document."""
    return answer(document())


def document() -> dict[str, Any]:
    """The OpenAPI document of the current app."""
    own = extension()
    groups: list[tuple[str, str, Endpoints]] = [
        ("Signing in", own.url_prefix, sign_in_endpoints),
        ("Account", own.url_prefix, account_endpoints),
        ("Keys", "", well_known_endpoints),
        ("This document", own.url_prefix, openapi_endpoints),
    ]
    if own.api_prefix is not None:
        groups.insert(2, ("API", own.api_prefix, api_endpoints))
    endpoints = [(tag, prefix, one) for tag, prefix, declared in groups for one in declared]
    schemas = _schemas(one for _, _, one in endpoints)
    paths: dict[str, dict[str, Any]] = {}
    for tag, prefix, one in endpoints:
        path = _VARIABLE.sub(r"{\1}", prefix + one.rule)
        paths.setdefault(path, {})[one.method.lower()] = _operation(one, tag)
    settings = accounts().jam.settings
    state = prepared_state()
    return {
        "openapi": "3.1.0",
        "info": {"title": settings.name, "version": "1"},
        "servers": [{"url": settings.accounts.base_url or "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas | {"Error": _ERROR, "Problem": _PROBLEM},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An access token or an API token."},
                "session": {"type": "apiKey", "in": "cookie", "name": state.lookup.session_cookie or "sessionId"},
                "basic": {"type": "http", "scheme": "basic"},
                "refresh_token": {
                    "type": "http", "scheme": "bearer", "description": "A refresh token, if the body holds none."
                },
            },
        },
    }  # fmt: skip


def _schemas(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """The schemas of everything that goes in or comes out."""
    bodies: dict[type[Struct], bool] = {}
    shown: dict[type[Struct], None] = {}
    for one in endpoints:
        if one.body is not None:
            bodies[one.body] = one.more
        shown.update((kind, None) for kind in one.answers.values() if _is_struct(kind))
    _, schemas = msgspec.json.schema_components((*bodies, *shown), ref_template=_SCHEMA)
    profile, writable = accounts().users.profile, accounts().users.writable
    for body, more in bodies.items():
        schema = schemas[body.__name__]
        schema["additionalProperties"] = False
        if more:
            del schema["properties"]["more"]
            schema["properties"].update((name, {}) for name in sorted(writable))
    for kind in (User, Collection):
        schemas.setdefault(kind.__name__, {})
    schemas[User.__name__]["properties"].update((name, {}) for name in profile)
    return schemas


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)


def _operation(one: Endpoint, tag: str) -> dict[str, Any]:
    summary, _, rest = (one.view.__doc__ or "").strip().partition("\n\n")
    operation: dict[str, Any] = {
        "operationId": one.name,
        "tags": [tag],
        "summary": " ".join(summary.split()),
        "responses": dict(_responses(one)),
        "security": _security(one),
    }
    if rest:
        operation["description"] = " ".join(rest.split())
    if parameters := list(_parameters(one)):
        operation["parameters"] = parameters
    if one.body is not None:
        content = {"schema": {"$ref": _SCHEMA.format(name=one.body.__name__)}}
        kinds = ["application/json", *(["application/x-www-form-urlencoded"] if one.form else [])]
        needed = any(field.required for field in msgspec.structs.fields(one.body))
        operation["requestBody"] = {"required": needed, "content": dict.fromkeys(kinds, content)}
    return operation


def _security(one: Endpoint) -> list[dict[str, list[str]]]:
    """By what credentials the endpoint may be called: one of these; an empty one stands for none at all."""
    names = dict.fromkeys(_SECURITY[method] for method in sorted(_methods(one)))
    without: list[dict[str, list[str]]] = [{}] if names and (one.guard is None or "refresh_token" in names) else []
    return without + [{name: []} for name in names]


def _methods(one: Endpoint) -> frozenset[str]:
    return one.methods or (frozenset() if one.guard is None else _ANY_CREDENTIAL)


def _parameters(one: Endpoint) -> Iterator[dict[str, Any]]:
    for name in _VARIABLE.findall(one.rule):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
    if one.query is not None:
        schema = msgspec.json.schema(one.query)
        for name, kind in schema["$defs"][one.query.__name__]["properties"].items():
            yield {"name": name, "in": "query", "required": False, "schema": kind}


def _responses(one: Endpoint) -> Iterator[tuple[str, dict[str, Any]]]:
    for status, kind in one.answers.items():
        response: dict[str, Any] = {"description": HTTPStatus(status).phrase}
        if kind is not None:
            schema = {"$ref": _SCHEMA.format(name=kind.__name__)} if _is_struct(kind) else {"type": "object"}
            response["content"] = {"application/json": {"schema": schema}}
        if status == HTTPStatus.CREATED:
            response["headers"] = {"Location": {"schema": {"type": "string"}}}
        yield str(status), response
    by_status: dict[int, list[JamError | type[JamError]]] = {}
    for error in (*one.errors, *_usual_errors(one)):
        by_status.setdefault(error.status, []).append(error)
    for status, errors in sorted(by_status.items()):
        codes = ", ".join(f"`{error.code}`" for error in dict.fromkeys(errors))
        yield str(status), _error(f"{HTTPStatus(status).phrase}: {codes}")
    yield "default", _error("What else may be wrong")


def _usual_errors(one: Endpoint) -> Iterator[type[JamError]]:
    if one.body is not None or one.query is not None:
        yield BodyInvalid
    if methods := _methods(one):
        yield AuthenticationRequired
        for method in sorted(methods):
            yield _NO_GOOD[method]
        yield UserUnknown
        yield UserInactive
        if one.method != "GET":  # with a cookie, or with Basic
            yield CSRFFailed
    checkpoints = () if one.guard is None else one.guard.checkpoints
    if any(isinstance(checkpoint, JustProved) for checkpoint in checkpoints):
        yield FreshnessRequired
    if any(isinstance(checkpoint, (JustProved, Method)) for checkpoint in checkpoints):
        yield MethodRequired
    yield StoreUnavailable


def _error(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {
            "application/json": {"schema": {"$ref": _SCHEMA.format(name="Error")}},
            "application/problem+json": {"schema": {"$ref": _SCHEMA.format(name="Problem")}},
        },
    }
