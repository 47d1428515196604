"""Requests to a Flask app in this process: what a server does with one, without the server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flask import Flask
from werkzeug.test import EnvironBuilder

Environ = dict[str, Any]


def environ_of(path: str, headers: Mapping[str, str] | None = None) -> Environ:
    """The WSGI environment of a GET."""
    return EnvironBuilder(path, headers=dict(headers or {})).get_environ()


def bearer(tokens: Iterable[str]) -> list[Environ]:
    """What the Authorization header of each token adds to an environment."""
    return [{"HTTP_AUTHORIZATION": f"Bearer {token}"} for token in tokens]


def requester(app: Flask, status: int = 200, headers: Mapping[str, str] | None = None) -> Callable[[Environ], None]:
    """A function that makes one GET of ``/`` with ``headers`` and with what its argument adds to the environment.

    The environment is made anew for each request, as servers do: one that was made long ago would have to come
    from memory, and that would be counted.

    Args:
        app: The app.
        status: Which every request must be answered with.
        headers: Sent with every request.
    """
    base = environ_of("/", headers)
    wsgi = app.wsgi_app
    expected = str(status)

    def start_response(line: str, _headers: list[tuple[str, str]], _info: Any = None) -> None:
        # Else a benchmark would time something else than it says.
        assert line.startswith(expected), f"{app.name} answered {line}, not {status}"

    def request(added: Environ) -> None:
        body = wsgi({**base, **added}, start_response)
        b"".join(body)
        body.close()

    return request
