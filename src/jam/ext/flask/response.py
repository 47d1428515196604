"""The last word on every response: what it says of its caller, and the cookies of who signed in or out.

Jam writes it when all hooks have run and Flask has saved its session, for any of them may be the first to ask.
The headers of a streamed body leave before anybody can have asked in it: of these Jam decides beforehand.
"""

from __future__ import annotations

from inspect import isgenerator
from typing import Any

from flask import Flask, Request, Response

from jam.errors import StoreUnavailable
from jam.ext.flask.negotiation import HTTPError
from jam.ext.flask.request import JamState
from jam.ext.flask.resolved import ANSWER, RESOLVED, SENT, Resolved, current_context

__all__ = ["have_the_last_word"]


def have_the_last_word(app: Flask, state: JamState) -> None:
    """See every response of the app after everybody else.

    Not as one more ``after_request`` function: Flask runs these in an order that others can change, before it
    saves the session, and not to the end if one of them fails.
    """
    process = app.process_response

    def process_response(*arguments: Any) -> Response:  # Flask 3.2 is to put the context before it
        request = current_context().request
        known = request.__dict__
        try:
            response: Response = process(*arguments)
        except Exception:
            # If this was an error page, Flask sends it as it is; if not, an error page comes after it.
            _write(state, request, arguments[-1])
            raise
        resolved: Resolved | None = known.get(RESOLVED)
        if (resolved is None or not resolved.marked) and type(response.response) is list:
            known[ANSWER] = response  # a page that nobody asked about: it should cost nothing
        else:
            known[ANSWER] = _write(state, request, response)
        return response

    app.process_response = process_response  # type: ignore[assignment, method-assign]
    flask: Any = app
    handle = app.handle_exception

    def handle_exception(*arguments: Any) -> Response:
        *context, error = arguments
        if isinstance(error, StoreUnavailable) or (isinstance(error, HTTPError) and error.code == 503):  # noqa: PLR2004
            # Whoever asked first was a hook or an error page, and Flask makes a 500 of what these raise.
            response: Response = flask.finalize_request(
                *context, flask.handle_user_exception(*context, error), from_error_handler=True
            )
            return response
        return handle(*arguments)

    app.handle_exception = handle_exception  # type: ignore[assignment, method-assign]


def _write(state: JamState, request: Request, response: Response) -> object:
    streamed = response.is_streamed
    resolved: Resolved | None = request.__dict__.get(RESOLVED)
    if resolved is not None and resolved.marked:
        state.write(response, resolved)
        for change in resolved.changes:
            change(response)
    elif streamed:
        _decide_beforehand(state, request, response)
    return SENT if streamed else response


def _decide_beforehand(state: JamState, request: Request, response: Response) -> None:
    """Nobody has asked yet, and the body might."""
    if not state.lookup or (response.direct_passthrough and not isgenerator(response.response)):
        return  # nobody to be found; or a file, which asks for nobody
    state.lookup.write_dependence(response, private=state.lookup.carries_credentials(request))
