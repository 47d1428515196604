"""Guards: what protecting a route adds to one request, beside a bare route measured in the same rounds.

Every figure is the difference to the bare route. Apps have no handlers of their own for errors, and nothing is
logged. "New tokens" are twice as many as Jam remembers, one after the other: none is ever found in its cache.
"""

from __future__ import annotations

import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flask_httpauth
import flask_imp.security
import flask_jwt_extended
import redis
from access_tokens import hand_made_verifier
from flask import Flask, request
from in_process import bearer, requester
from interleaved import Contestant, Timings, measure
from table import Check, Group, Row, at_least, at_most

from jam import Jam
from jam.crypto.keys import Key, KeySet
from jam.ext.flask import Authenticated, JWTExtension, SessionExtension, checkpoint, deny_by_default, public

_UNSEEN = 2048  # twice what AccessTokens remembers
_REDIS = {"host": "127.0.0.1", "port": 6379, "socket_connect_timeout": 1, "socket_timeout": 1}
_BARE = "bare Flask route"
_FJE, _FJE_REDIS = "Flask-JWT-Extended", "Flask-JWT-Extended, blocklist in Redis"
_STORES = {"stateless": (_FJE, 12), "memory": (_FJE, 12), "SQLite": (_FJE_REDIS, 6), "Redis": (_FJE_REDIS, 2)}


def run(scale: float, *, million: bool) -> list[Group]:
    """All groups of this section, ``scale`` times the full time."""
    with tempfile.TemporaryDirectory() as directory:
        return [_guards(40 * scale, Path(directory)), _public(20 * scale), *_verifying(12 * scale)]


# -- guarded routes -----------------------------------------------------------------------------------------


def _guards(seconds: float, directory: Path) -> Group:
    contestants = [_bare()]
    for store in ("stateless", "memory", "SQLite"):
        contestants += _jam_jwt(store, directory)
    contestants += [*_jam_refusals(), _by_hand(), _fje(), _httpauth(), _imp_bearer()]
    with _redis_contestant() as over_redis:
        t = measure([*contestants, *over_redis], seconds, "guarded routes")
    rows = [Row(f"{_BARE}: the whole request", t.median(_BARE))]
    rows += [_row(t, name) for name in t.rounds if name != _BARE]
    if _FJE_REDIS not in t.rounds:
        rows.append(Row(_FJE_REDIS, None, note="skipped: no Redis at 127.0.0.1:6379"))
    return Group("One request to a guarded route: µs it adds to a bare one", tuple(rows))


def _row(t: Timings, name: str) -> Row:
    added = t.added(name, _BARE)
    return Row(name, added, (*_jwt_checks(t, name, added), *_refusal_checks(name, added)))


def _jwt_checks(t: Timings, name: str, added: float) -> Iterator[Check]:
    for store, (peer, limit) in _STORES.items():
        if name.startswith(f"Jam JWT, {store},") and peer in t.rounds:
            yield at_least(
                t.added(peer, _BARE) / added, limit, "× less than " + peer.replace("Flask-JWT-Extended", "FJE")
            )


def _refusal_checks(name: str, added: float) -> Iterator[Check]:
    if name.startswith("Jam refuses"):
        yield at_most(added, 10, "µs added")


def _bare() -> Contestant:
    app = Flask("bare")
    app.get("/")(_view)
    return Contestant(_BARE, requester(app), [{}])


def _jam_jwt(store: str, directory: Path) -> list[Contestant]:
    again, anew = (_jam_app(_config(store, directory / f"{use}.db")) for use in ("again", "anew"))
    return [
        Contestant(f"Jam JWT, {store}, the same token again", requester(again[1]), bearer(_tokens(again[0], 1))),
        Contestant(f"Jam JWT, {store}, a new token each time", requester(anew[1]), bearer(_tokens(anew[0], _UNSEEN))),
    ]


def _config(store: str, path: Path) -> dict[str, Any]:
    urls = {"SQLite": f"sqlite:///{path}", "Redis": "redis://127.0.0.1:6379/0"}
    url = urls.get(store, "memory://")
    return {"access_tokens": {"stateless": store == "stateless"}, "store": url}


def _jam_refusals() -> list[Contestant]:
    jam, app = _jam_app({"access_tokens": {"stateless": True}})
    signed, _, signature = jam.access_tokens.issue("user-1").rpartition(".")
    forged = f"{signed}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"
    cases = {"no credential": [{}], "a garbage token": bearer(["x.y.z"]), "a wrongly signed token": bearer([forged])}
    return [Contestant(f"Jam refuses {name}", requester(app, 401), sent) for name, sent in cases.items()]


def _jam_app(config: dict[str, Any], keys: KeySet | None = None) -> tuple[Jam, Flask]:
    jam = Jam({"secret": secrets.token_urlsafe(64), **config}, keys=keys)
    app = Flask("jam")
    JWTExtension(jam, app)
    app.get("/")(checkpoint(Authenticated())(_view))
    return jam, app


def _tokens(jam: Jam, count: int) -> list[str]:
    return [jam.access_tokens.issue(f"user-{n}", claims={"role": "editor"}) for n in range(count)]


def _by_hand() -> Contestant:
    """The floor: the hand-made verifier called in the view, no library at all."""
    secret = secrets.token_bytes(32)
    tokens = Jam({"access_tokens": {"stateless": True}}, keys=KeySet(Key.from_secret(secret))).access_tokens
    token = tokens.issue("user-1", claims={"role": "editor"})
    verify = hand_made_verifier(secret, token)
    app = Flask("by_hand")

    @app.get("/")
    def view() -> str:
        verify(request.environ["HTTP_AUTHORIZATION"].removeprefix("Bearer "))
        return "ok"

    return Contestant("floor: hand-made verifier in the view", requester(app), bearer([token]))


def _fje(blocklist: redis.Redis | None = None) -> Contestant:
    app = Flask("flask_jwt_extended")
    app.config["JWT_SECRET_KEY"] = secrets.token_urlsafe(64)
    manager = flask_jwt_extended.JWTManager(app)
    if blocklist is not None:
        prefix = f"jam-bench:{secrets.token_hex(4)}:"  # nothing is written: no token of a benchmark is revoked
        manager.token_in_blocklist_loader(lambda _, payload: blocklist.get(prefix + payload["jti"]) is not None)
    app.get("/")(flask_jwt_extended.jwt_required()(_view))
    with app.app_context():
        tokens = [flask_jwt_extended.create_access_token(f"user-{n}") for n in range(64)]
    return Contestant(_FJE if blocklist is None else _FJE_REDIS, requester(app), bearer(tokens))


@contextmanager
def _redis_contestant() -> Iterator[list[Contestant]]:
    with redis.Redis(**_REDIS) as client:
        try:
            client.ping()
        except redis.RedisError:
            print("  no Redis at 127.0.0.1:6379: its row is left out", file=sys.stderr)
            yield []
        else:
            yield [_fje(client), *_jam_jwt("Redis", Path())]


def _httpauth() -> Contestant:
    app = Flask("flask_httpauth")
    auth = flask_httpauth.HTTPTokenAuth()
    token = secrets.token_urlsafe(32)
    auth.verify_token({token: "user-1"}.get)
    app.get("/")(auth.login_required(_view))
    return Contestant("Flask-HTTPAuth, token looked up in a dict", requester(app), bearer([token]))


def _imp_bearer() -> Contestant:
    app = Flask("flask_imp")
    token = secrets.token_urlsafe(32)
    guard = flask_imp.security.BearerCheckpoint(token).action(fail_json={"error": "no"})
    app.get("/")(flask_imp.security.checkpoint(guard)(_view))
    return Contestant("flask-imp BearerCheckpoint, one token", requester(app), bearer([token]))


def _view() -> str:
    return "ok"


# -- public routes ------------------------------------------------------------------------------------------


def _public(seconds: float) -> Group:
    open_, shut = "Jam's extensions, a public route", "Jam's deny_by_default, a route marked public"
    t = measure(
        [
            _bare(),
            _jam_public(open_, shut=False),
            _jam_public(shut, shut=True),
            _stock("Flask with SECRET_KEY, session not used"),
        ],
        seconds,
        "public routes",
    )
    rows = [Row(f"{_BARE}: the whole request", t.median(_BARE))]
    for name in t.rounds:
        if name != _BARE:
            limit = {open_: 1.0, shut: 2.0}.get(name)
            added = t.added(name, _BARE)
            rows.append(Row(name, added, () if limit is None else (at_most(added, limit, "µs added"),)))
    return Group("One request to a public route: µs it adds to a bare one", tuple(rows))


def _jam_public(name: str, *, shut: bool) -> Contestant:
    jam, app = Jam({"secret": secrets.token_urlsafe(64)}), Flask("jam_public")
    JWTExtension(jam, app)
    SessionExtension(jam, app)
    if shut:
        deny_by_default(app)
    app.get("/")(public(lambda: "ok") if shut else _view)
    return Contestant(name, requester(app), [{}])


def _stock(name: str) -> Contestant:
    app = Flask("stock")
    app.secret_key = secrets.token_urlsafe(64)
    app.get("/")(_view)
    return Contestant(name, requester(app), [{}])


# -- what verifying costs inside a request ------------------------------------------------------------------


def _verifying(seconds: float) -> list[Group]:
    """Why verified tokens are remembered: the same verification, in a tight loop and between the work of requests."""
    return [_in_and_out(algorithm, seconds / 3) for algorithm in ("HS256", "ES256", "EdDSA")]


def _in_and_out(algorithm: str, seconds: float) -> Group:
    keys = KeySet(Key.generate(algorithm))
    config = {"access_tokens": {"stateless": True}}
    # An app and a cache for each: the new tokens of one would push out the one token of the other.
    (jam, anew), (_, again), (outside, _), (outside_again, _) = (_jam_app(config, keys) for _ in range(4))
    tokens = _tokens(jam, _UNSEEN)
    t = measure(
        [
            Contestant("loop, new", outside.access_tokens.verify, tokens),
            Contestant("loop, again", outside_again.access_tokens.verify, tokens[:1]),
            Contestant("request, new", requester(anew), bearer(tokens)),
            Contestant("request, again", requester(again), bearer(tokens[:1])),
        ],
        seconds,
        f"{algorithm} inside a request",
    )
    in_loop, inside = t.added("loop, new", "loop, again"), t.added("request, new", "request, again")
    rows = (
        Row("in a tight loop", in_loop),
        Row("inside a request", inside, (at_most(inside / in_loop, None, "× the tight loop"),)),
    )
    return Group(f"{algorithm}: µs that a new token costs more than one seen before", rows)
