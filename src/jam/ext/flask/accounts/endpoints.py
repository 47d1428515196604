"""Endpoints as declarations: what goes in, what comes out, what may go wrong, and who may call.

One declaration is all there is to an endpoint: by it the request's body is decoded and refused, and the OpenAPI
document is written, so that neither can say what the other does not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeVar

import msgspec
from flask import Blueprint, Response, current_app, request
from msgspec import Struct
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.wsgi import LimitedStream

from jam.crypto.encoding import json_decode_object, json_encode
from jam.errors import BodyInvalid, ConfigError, JamError, StoreUnavailable
from jam.ext.flask.guards import Guard, public
from jam.ext.flask.negotiation import to_raise
from jam.ext.flask.request import prepared_state

__all__ = ["Endpoint", "Endpoints", "answer", "read_body", "read_query"]

MAX_BODY = 65_536  #: bytes; passwords and profiles are short
_FORM = "application/x-www-form-urlencoded"

V = TypeVar("V", bound=Callable[..., Any])
S = TypeVar("S", bound=Struct)


class Endpoint(Struct, frozen=True, kw_only=True):
    """One endpoint.

    Attributes:
        method: The HTTP method.
        rule: The URL rule, below the prefix of its blueprint.
        name: The name of the view, unique in its blueprint.
        view: What answers.
        body: What the request's body holds, if it has one.
        query: What the query string may hold.
        answers: What is answered, by status; ``None`` for nothing.
        errors: What else may be: by class, or one with a code of its own.
        guard: Who may call; ``None`` for everybody.
        methods: By what credentials; empty for any.
        form: Whether the body may be a form as well (RFC 7009 2.1).
        more: Which further fields a body may have, asked at each request: the app's own.
    """

    method: str
    rule: str
    name: str
    view: Callable[..., Any]
    body: type[Struct] | None = None
    query: type[Struct] | None = None
    answers: Mapping[int, Any] = {}
    errors: tuple[JamError | type[JamError], ...] = ()
    guard: Guard | None = None
    methods: frozenset[str] = frozenset()
    form: bool = False
    more: bool = False


class Endpoints:
    """The endpoints of one blueprint.

    Args:
        name: The blueprint's.
        more: The names of the app's own fields, for endpoints that take them.
    """

    def __init__(self, name: str, more: Callable[[], Collection[str]] = lambda: ()) -> None:
        self.name = name
        self._more = more
        self._declared: list[Endpoint] = []

    def __iter__(self) -> Iterator[Endpoint]:
        """Every endpoint, as it was declared."""
        return iter(self._declared)

    def add(
        self,
        method: str,
        rule: str,
        *,
        answers: Mapping[int, Any],
        body: type[Struct] | None = None,
        query: type[Struct] | None = None,
        errors: tuple[JamError | type[JamError], ...] = (),
        guard: Guard | None = None,
        methods: Collection[str] = (),
        form: bool = False,
        more: bool = False,
    ) -> Callable[[V], V]:
        """Declare the function below it an endpoint; see ``Endpoint``.

        The function is called with the variables of its rule, and with ``body`` or ``query`` as far as it has them.
        """

        def declare(view: V) -> V:
            endpoint = Endpoint(
                method=method, rule=rule, name=view.__name__, view=view, body=body, query=query, answers=answers,
                errors=errors, guard=guard, methods=frozenset(methods), form=form, more=more,
            )  # fmt: skip
            self._declared.append(endpoint)
            return view

        return declare

    def blueprint(self, url_prefix: str | None) -> Blueprint:
        """All of them, ready to be registered."""
        blueprint = Blueprint(self.name, __name__, url_prefix=url_prefix)
        # The one thing that Flask does before the app's own before_request functions, whoever was set up first.
        blueprint.url_value_preprocessor(lambda *_: _prepare(blueprint))
        for one in self._declared:
            blueprint.add_url_rule(one.rule, one.name, self._view_of(one), methods=[one.method])
        return blueprint

    def _view_of(self, endpoint: Endpoint) -> Callable[..., Any]:
        @functools.wraps(endpoint.view)
        def view(**variables: Any) -> Response:
            try:
                if endpoint.body is not None:
                    more = self._more() if endpoint.more else None
                    variables["body"] = read_body(endpoint.body, form=endpoint.form, more=more)
                if endpoint.query is not None:
                    variables["query"] = read_query(endpoint.query)
                response: Response = endpoint.view(**variables)
            except JamError as error:
                raise for_flask(error) from error
            return response

        return public(view) if endpoint.guard is None else endpoint.guard(view)


def _prepare(blueprint: Blueprint) -> None:
    """Before anybody reads a request's body: Flask-WTF's protection, a guard, or the view.

    Raises:
        JamError, HTTPException: If the body is too long.
    """
    protection = current_app.extensions.get("csrf")
    if protection is not None:  # Flask-WTF's: these views take JSON, and Jam looks where it comes from
        protection.exempt(blueprint)
    length = request.content_length
    if length is not None and length > MAX_BODY:
        raise for_flask(_too_long())
    if length is None:  # then the server reads until the client stops: not further than this
        request.environ["wsgi.input"] = LimitedStream(request.environ["wsgi.input"], MAX_BODY + 1, is_max=True)


def for_flask(error: JamError) -> Exception:
    """A ``JamError`` as what Flask knows; a ``ConfigError`` is the developer's and stays what it is."""
    if isinstance(error, ConfigError):
        return error
    state = prepared_state()
    if isinstance(error, StoreUnavailable):
        state.note_unavailable(request, error)
    return to_raise(current_app, error, None, state.challenges)


def answer(value: Struct | Mapping[str, Any] | None, status: int = 200, **headers: str) -> Response:
    """A JSON response that nobody keeps (ASVS 14.3.2); an empty one for ``None``."""
    body = b"" if value is None else json_encode(msgspec.to_builtins(value))
    response = Response(body, status, mimetype="application/json" if value is not None else None)
    if value is None:
        response.headers.pop("Content-Type", None)
    response.headers["Cache-Control"] = "no-store"
    for name, text in headers.items():
        response.headers[name.replace("_", "-")] = text
    return response


def read_body(kind: type[S], *, form: bool = False, more: Collection[str] | None = None) -> S:
    """The request's body as a struct.

    Args:
        kind: The struct.
        form: Whether it may be a form as well.
        more: The names of further fields, which go into the struct's ``more``.

    Raises:
        BodyInvalid: If it is not that, naming every field that is wrong.
    """
    return _converted(kind, _form_body() if form and request.mimetype == _FORM else _json_body(), more)


def read_query(kind: type[S]) -> S:
    """The query string as a struct: numbers are read, and what the struct does not name is left alone.

    Raises:
        BodyInvalid: If a value is not what it must be, or comes twice (ASVS 15.3.7).
    """
    given: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        values = request.args.getlist(field.encode_name)
        if len(values) > 1:
            raise BodyInvalid(f"{field.encode_name} is given twice.", {field.encode_name: "is given twice"})
        given.update((field.encode_name, value) for value in values)
    return _converted(kind, given, None, strict=False)


def _json_body() -> dict[str, Any]:
    data = _body()
    if not data:
        return {}
    if request.mimetype != "application/json":
        raise BodyInvalid("The body is JSON, with Content-Type: application/json.")
    try:
        return json_decode_object(data)
    except ValueError:
        raise BodyInvalid("The body is one JSON object, in UTF-8, without a name twice.") from None


def _form_body() -> dict[str, Any]:
    _body()  # what the form is made of
    try:
        form = request.form
    except HTTPException:  # more fields, or longer ones, than werkzeug reads
        raise _too_long() from None
    if any(len(values) > 1 for values in form.listvalues()):
        raise BodyInvalid("A field of the form is given twice.")
    return form.to_dict()


def _body() -> bytes:
    try:
        data = request.get_data()
    except RequestEntityTooLarge:
        raise _too_long() from None
    except (HTTPException, OSError):  # the client has gone, or the server cannot make sense of it
        raise BodyInvalid("The body cannot be read.") from None
    if len(data) > MAX_BODY:
        raise _too_long()
    return data


def _too_long() -> BodyInvalid:
    limit = min(MAX_BODY, request.max_content_length or MAX_BODY)
    return BodyInvalid(f"The body has at most {limit} bytes.")


def _converted(kind: type[S], given: dict[str, Any], more: Collection[str] | None, *, strict: bool = True) -> S:
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind) if field.name != "more"}
    missing = [name for name, field in fields.items() if field.required and name not in given]
    if missing:
        noun = "field" if len(missing) == 1 else "fields"
        raise BodyInvalid(f"must include {_listed(missing)} {noun}", dict.fromkeys(missing, "is missing"))
    values: dict[str, Any] = {}
    others: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    for name, value in given.items():
        field = fields.get(name)
        if field is not None:
            try:
                values[field.name] = msgspec.convert(value, field.type, strict=strict)
            except msgspec.ValidationError as error:  # it names types and bounds, never the value
                wrong[name] = str(error).replace("`", "'")
        elif more is not None and name in more:
            others[name] = value
        else:
            wrong[name[:64]] = "cannot be set here"
    if wrong:
        raise BodyInvalid("; ".join(f"{name!r}: {why}" for name, why in wrong.items()) + ".", wrong)
    return kind(**values, **({"more": others} if more is not None else {}))


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
