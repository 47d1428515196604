"""Accounts: what an API token adds to one request, what one sign-in takes, and what two at once do to each other.

Signing in is meant to be slow, by as much as argon2 is and by no more. Whether a name is somebody's must not be told
by the time that the answer takes: the wrong password of a known person is held against an unknown name.
"""

from __future__ import annotations

import io
import json
import secrets
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import argon2
import flask_httpauth
import flask_jwt_extended
import redis
from flask import Flask, g, jsonify, request
from flask_sqlalchemy import SQLAlchemy
from in_process import bearer, requester
from interleaved import Contestant, Timings, measure
from table import Check, Group, Row, at_least, at_most
from werkzeug.security import check_password_hash, generate_password_hash
from werkzeug.test import EnvironBuilder

from jam import Jam
from jam.accounts.accounts import Accounts
from jam.accounts.sql_users import SQLUsers, open_users
from jam.config import PasswordSettings
from jam.ext.flask import Authenticated, SessionExtension, checkpoint, current_user, login_required
from jam.ext.flask.accounts import AccountsExtension
from jam.ext.flask.api_token_extension import APITokenExtension

_BARE = "bare Flask route"
_JAM_SQLITE = "Jam API token, SQLite"
_SESSION = "Jam session guard, SQLite"
_SEED = "Flask-HTTPAuth, column of a Flask-SQLAlchemy model"
_OWNER = "Jam API token, SQLite, and its owner by Flask-SQLAlchemy"
_REDIS = {"host": "127.0.0.1", "port": 6379, "socket_connect_timeout": 1, "socket_timeout": 1}
_REDIS_URL = "redis://127.0.0.1:6379/0"

_ARGON2 = "floor: argon2 alone, the same parameters"
_JAM_SIGN_IN = "Jam, SQLite"
_RIGHT, _WRONG, _UNKNOWN = "the right password", "a wrong password", "an unknown name"
_GLUE = "glue: scrypt, SQLAlchemy, FJE"
_PASSWORD = "correct horse battery staple"
_PEOPLE = 32  # of each sort: those who know their password, those who do not, and those who do not exist
_UNLIMITED = {"attempts": 1_000_000, "attempts_per_account": 1_000_000, "attempts_per_address": 1_000_000}


def run(scale: float, *, million: bool) -> list[Group]:
    """All groups of this section, ``scale`` times the full time."""
    with tempfile.TemporaryDirectory() as directory:
        return [
            _api_tokens(25 * scale, Path(directory)),
            _sign_ins(40 * scale, Path(directory)),
            _two_at_once(20 * scale, Path(directory)),
        ]


# -- API tokens ---------------------------------------------------------------------------------------------


def _api_tokens(seconds: float, directory: Path) -> Group:
    contestants = [
        _bare(),
        _jam_token("Jam API token, memory", "memory://"),
        _jam_token(_JAM_SQLITE, f"sqlite:///{directory / 'token.db'}"),
        _jam_session(f"sqlite:///{directory / 'session.db'}"),
        _httpauth_dict(),
        _jam_token_and_owner(directory),
        _httpauth_column(directory),
    ]
    with _redis_contestant() as over_redis:
        t = measure([*contestants, *over_redis], seconds, "API tokens")
    rows = [Row(f"{_BARE}: the whole request", t.median(_BARE))]
    rows += [Row(name, t.added(name, _BARE), tuple(_token_checks(t, name))) for name in t.rounds if name != _BARE]
    if not over_redis:
        rows.append(Row("Jam API token, Redis", None, note="skipped: no Redis at 127.0.0.1:6379"))
    return Group("One request with an API token: µs it adds to a bare one", tuple(rows))


def _token_checks(t: Timings, name: str) -> Iterator[Check]:
    added = t.added(name, _BARE)
    if name == _JAM_SQLITE:
        yield at_most(added / t.added(_SESSION, _BARE), 1.2, "× a session guard")
    if name == _OWNER:
        yield at_most(added / t.added(_SEED, _BARE), None, "× Flask-HTTPAuth with a column")


def _bare() -> Contestant:
    app = Flask("bare")
    app.get("/")(_view)
    return Contestant(_BARE, requester(app), [{}])


def _jam_token(name: str, store: str) -> Contestant:
    jam = _jam(store)
    return _with_token(name, jam, jam.api_tokens.create("user-1", "benchmark"))


def _with_token(name: str, jam: Jam, token: str) -> Contestant:
    app = Flask("jam_token")
    APITokenExtension(jam, app)
    app.get("/")(checkpoint(Authenticated())(_view))
    return Contestant(name, requester(app), bearer([token]))


def _jam_token_and_owner(directory: Path) -> Contestant:
    """As the column below, for who wants to know whose token it is: the user is loaded, and used."""
    app, db, model = _app_with_users("jam_owner", directory)
    jam = _jam(f"sqlite:///{directory / 'owner_token.db'}")
    AccountsExtension(jam, app, users=SQLUsers(model, db))
    app.get("/")(login_required(methods=("api_token",))(lambda: current_user.username))
    with app.app_context():
        token = jam.api_tokens.create(str(_added(db, model(username="alice")).id), "benchmark")
    return Contestant(_OWNER, requester(app), bearer([token]))


def _jam_session(store: str) -> Contestant:
    jam, app = _jam(store), Flask("jam_session")
    SessionExtension(jam, app)
    app.get("/")(checkpoint(Authenticated())(_view))
    handle = jam.sessions.create("user-1")
    return Contestant(_SESSION, requester(app, headers={"Cookie": f"sessionId={handle}"}), [{}])


def _httpauth_dict() -> Contestant:
    app, auth, token = Flask("httpauth_dict"), flask_httpauth.HTTPTokenAuth(), secrets.token_urlsafe(32)
    auth.verify_token({token: "user-1"}.get)
    app.get("/")(auth.login_required(_view))
    return Contestant("Flask-HTTPAuth, token looked up in a dict", requester(app), bearer([token]))


def _httpauth_column(directory: Path) -> Contestant:
    """The token stands in the clear in a column of its owner's row, with the time when it ends."""
    app, db, model = _app_with_users("httpauth_column", directory)
    auth, token = flask_httpauth.HTTPTokenAuth(), secrets.token_urlsafe(24)

    @auth.verify_token
    def verify_token(given: str) -> bool:
        user = model.query.filter_by(token=given).first()
        g.current_user = None if user is None or user.token_expiration < _utcnow() else user
        return g.current_user is not None

    app.get("/")(auth.login_required(lambda: g.current_user.username))
    with app.app_context():
        _added(db, model(username="alice", token=token, token_expiration=_utcnow() + timedelta(days=1)))
    return Contestant(_SEED, requester(app), bearer([token]))


@contextmanager
def _redis_contestant() -> Iterator[list[Contestant]]:
    with redis.Redis(**_REDIS) as client:
        try:
            client.ping()
        except redis.RedisError:
            print("  no Redis at 127.0.0.1:6379: its row is left out", file=sys.stderr)
            yield []
            return
    jam = _jam(_REDIS_URL)
    token = jam.api_tokens.create(f"jam-bench:{secrets.token_hex(4)}", "benchmark")
    try:
        yield [_with_token("Jam API token, Redis", jam, token)]
    finally:
        jam.api_tokens.revoke(token)  # else it would be there for months
        jam.store.close()


# -- signing in ---------------------------------------------------------------------------------------------


def _sign_ins(seconds: float, directory: Path) -> Group:
    t = measure(
        [
            Contestant(_ARGON2, _argon2_alone()),
            *_jam_sign_ins(_JAM_SIGN_IN, f"sqlite:///{directory / 'sign_in.db'}", directory),
            *_jam_sign_ins("Jam, memory", "memory://", directory),
            *_glue_sign_ins(directory),
        ],
        seconds,
        "sign-ins",
    )
    rows = tuple(Row(name, t.median(name) / 1000, tuple(_sign_in_checks(t, name)), unit="ms") for name in t.rounds)
    return Group("One sign-in, POST with a name and a password, in ms", rows)


def _sign_in_checks(t: Timings, name: str) -> Iterator[Check]:
    if name.startswith("Jam") and name.endswith(_RIGHT):
        yield at_most(t.added(name, _ARGON2) / 1000, 5, "ms more than argon2 alone")
    if name.endswith(_WRONG):
        ratio = _ratio(t, name, name.removesuffix(_WRONG) + _UNKNOWN)
        is_jam = name.startswith("Jam")
        yield at_most(ratio, 1.1 if is_jam else None, f"× {_UNKNOWN}")
        if is_jam:
            yield at_least(ratio, 0.9, f"× {_UNKNOWN}")


def _ratio(t: Timings, name: str, base: str) -> float:
    """How many times as long it takes, as the median over the rounds."""
    return statistics.median(one / other for one, other in zip(t.rounds[name], t.rounds[base], strict=True))


def _argon2_alone() -> Callable[[Any], object]:
    settings = PasswordSettings()
    hasher = argon2.PasswordHasher(settings.iterations, settings.memory_kib, settings.parallelism)
    stored = hasher.hash(_PASSWORD)
    return lambda _: hasher.verify(stored, _PASSWORD)


def _jam_sign_ins(name: str, store: str, directory: Path) -> Iterator[Contestant]:
    yield from _three(name, *_jam_app(store, directory / f"{name}.users.db"))


def _three(name: str, app: Flask, path: str) -> Iterator[Contestant]:
    wrong = _PASSWORD[::-1]
    yield Contestant(f"{name}: {_RIGHT}", _poster(app, path, 200), _credentials("right", _PASSWORD))
    yield Contestant(f"{name}: {_WRONG}", _poster(app, path, 401), _credentials("wrong", wrong))
    yield Contestant(f"{name}: {_UNKNOWN}", _poster(app, path, 401), _credentials("unknown", wrong))


def _jam_app(store: str, users_path: Path) -> tuple[Flask, str]:
    jam, app = _jam(store), Flask("jam_sign_in")
    accounts = Accounts(jam, open_users(f"sqlite:///{users_path}"))
    AccountsExtension(jam, app, accounts=accounts)
    password_hash = accounts.passwords.hash(_PASSWORD)
    for username in _known_people():
        accounts.users.create(username=username, email=None, password_hash=password_hash)
    return app, "/auth/api"


def _glue_sign_ins(directory: Path) -> Iterator[Contestant]:
    """What people write by hand: nothing is counted, nothing is revocable, and an unknown name is answered at once."""
    app, db, model = _app_with_users("glue", directory)
    app.config["JWT_SECRET_KEY"] = secrets.token_urlsafe(64)
    flask_jwt_extended.JWTManager(app)

    @app.post("/login")
    def login() -> Any:
        sent = request.get_json()
        user = model.query.filter_by(username=sent["username"]).first()
        if user is None or not check_password_hash(user.password_hash, sent["password"]):
            return jsonify(error="bad credentials"), 401
        return jsonify(access_token=flask_jwt_extended.create_access_token(str(user.id)))

    password_hash = generate_password_hash(_PASSWORD)
    with app.app_context():
        for username in _known_people():
            _added(db, model(username=username, password_hash=password_hash))
    yield from _three(_GLUE, app, "/login")


def _known_people() -> Iterable[str]:
    return [f"{sort}-{number}" for sort in ("right", "wrong") for number in range(_PEOPLE)]


def _credentials(sort: str, password: str) -> list[bytes]:
    return [json.dumps({"username": f"{sort}-{number}", "password": password}).encode() for number in range(_PEOPLE)]


def _poster(app: Flask, path: str, status: int) -> Callable[[bytes], None]:
    """A function that posts a JSON body, all of them from one address; see ``in_process.requester``."""
    base = EnvironBuilder(path, method="POST", content_type="application/json").get_environ()
    base["REMOTE_ADDR"] = "192.0.2.1"
    wsgi = app.wsgi_app
    expected = str(status)

    def start_response(line: str, _headers: list[tuple[str, str]], _info: Any = None) -> None:
        assert line.startswith(expected), f"{app.name} answered {line}, not {status}"

    def post(body: bytes) -> None:
        sent = {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        answer = wsgi({**base, **sent}, start_response)
        b"".join(answer)
        answer.close()

    return post


# -- two at once --------------------------------------------------------------------------------------------


def _two_at_once(seconds: float, directory: Path) -> Group:
    """Twice the time of one by the time of two together: 2 if neither waits for the other, 1 if each does."""
    app, path = _jam_app(f"sqlite:///{directory / 'threads.db'}", directory / "threads.users.db")
    post, bodies = _poster(app, path, 200), _credentials("right", _PASSWORD)
    with ThreadPoolExecutor(2) as pool:
        contestants = [
            *_one_and_two(_ARGON2, pool, _argon2_alone(), bodies),
            *_one_and_two(_JAM_SIGN_IN, pool, post, bodies),
        ]
        t = measure(contestants, seconds, "two sign-ins at once")
    rows = []
    # The floor says how much of a second core this machine has to give: on a busy one it is nothing.
    for name, limit in ((_ARGON2, None), (_JAM_SIGN_IN, 1.6)):
        one, two = f"{name}, one", f"{name}, two"
        times = at_least(2 * _ratio(t, one, two), limit, "× the throughput of one")
        rows += [Row(one, t.median(one) / 1000, unit="ms"), Row(two, t.median(two) / 1000, (times,), unit="ms")]
    return Group("Two sign-ins at once, in threads of one process, in ms for all of it", tuple(rows))


def _one_and_two(
    name: str, pool: ThreadPoolExecutor, act: Callable[[Any], object], arguments: list[Any]
) -> Iterator[Contestant]:
    singles = [(argument,) for argument in arguments]
    pairs = list(zip(arguments[::2], arguments[1::2], strict=True))
    yield Contestant(f"{name}, one", _in_threads(pool, act), singles)
    yield Contestant(f"{name}, two", _in_threads(pool, act), pairs)


def _in_threads(pool: ThreadPoolExecutor, act: Callable[[Any], object]) -> Callable[[Iterable[Any]], None]:
    def act_on_each(arguments: Iterable[Any]) -> None:
        for _ in pool.map(act, arguments):
            pass

    return act_on_each


# -- what they share ----------------------------------------------------------------------------------------


def _jam(store: str) -> Jam:
    config = {"secret": secrets.token_urlsafe(64), "store": store, "https": False, "throttling": _UNLIMITED}
    return Jam(config)


def _app_with_users(name: str, directory: Path) -> tuple[Flask, SQLAlchemy, Any]:
    """An app with a model as people write it, and its table in a SQLite file."""
    app, db = Flask(name), SQLAlchemy()
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{directory / name}.db"
    db.init_app(app)

    class User(db.Model):
        id = db.Column(db.Integer, primary_key=True)
        username = db.Column(db.String(64), index=True, unique=True, nullable=False)
        email = db.Column(db.String(254), unique=True)
        password_hash = db.Column(db.String(255))
        token = db.Column(db.String(32), index=True, unique=True)
        token_expiration = db.Column(db.DateTime)

    with app.app_context():
        db.create_all()
    return app, db, User


def _added(db: SQLAlchemy, user: Any) -> Any:
    db.session.add(user)
    db.session.commit()
    return user


def _utcnow() -> datetime:
    return datetime.utcnow()  # noqa: DTZ003 - as the column of such a model has it: without a zone


def _view() -> str:
    return "ok"
