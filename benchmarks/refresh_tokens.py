"""Refresh tokens: to make, check and rotate one, beside Flask-JWT-Extended, which remembers nothing and rotates nothing.

A rotation in Jam reads the family and swaps it: two trips to the store. Two rotations of one family are further
apart than the overlap, as they are in life.
"""

from __future__ import annotations

import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import flask_jwt_extended
import redis
from flask import Flask
from interleaved import Contestant, measure
from table import Group, Row

from jam import Jam

_REDIS_URL = "redis://127.0.0.1:6379/0"


def run(scale: float, *, million: bool) -> list[Group]:
    """All groups of this section, ``scale`` times the full time."""
    with tempfile.TemporaryDirectory() as directory:
        stores = {"memory": "memory://", "SQLite": f"sqlite:///{Path(directory) / 'jam.db'}"}
        if _redis_answers():
            stores["Redis"] = _REDIS_URL
        contestants = [one for name, url in stores.items() for one in _jam(name, url)]
        t = measure([*contestants, *_fje()], 20 * scale, "refresh tokens")
    return [Group("Refresh tokens: µs for one", tuple(Row(name, t.median(name)) for name in t.rounds))]


def _redis_answers() -> bool:
    with redis.Redis(host="127.0.0.1", port=6379, socket_connect_timeout=1, socket_timeout=1) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            print("  no Redis at 127.0.0.1:6379: its rows are left out", file=sys.stderr)
            return False


def _jam(store: str, url: str) -> list[Contestant]:
    now = [time.time()]
    jam = Jam({"secret": secrets.token_urlsafe(64), "store": url}, clock=lambda: now[0])
    tokens = jam.refresh_tokens
    checked = tokens.issue("user-1")
    newest = [tokens.issue("user-1", lifetime=30 * 86400)]

    def rotate(_: Any) -> None:
        newest[0] = tokens.rotate(newest[0])
        now[0] += 11
        if now[0] - started > 20 * 86400:  # the family would end
            newest[0], now[0] = tokens.issue("user-1"), time.time()

    started = now[0]
    return [
        Contestant(f"Jam, {store}: issue", lambda _: tokens.issue("user-1"), [None]),
        Contestant(f"Jam, {store}: verify", lambda _: tokens.verify(checked), [None]),
        Contestant(f"Jam, {store}: rotate", rotate, [None]),
    ]


def _fje() -> list[Contestant]:
    app = Flask("flask_jwt_extended")
    app.config["JWT_SECRET_KEY"] = secrets.token_urlsafe(64)
    flask_jwt_extended.JWTManager(app)
    app.app_context().push()
    token = flask_jwt_extended.create_refresh_token("user-1")
    return [
        Contestant(
            "Flask-JWT-Extended: create_refresh_token",
            lambda _: flask_jwt_extended.create_refresh_token("user-1"),
            [None],
        ),
        Contestant("Flask-JWT-Extended: decode_token", lambda _: flask_jwt_extended.decode_token(token), [None]),
    ]
