"""Sessions: what a session guard and ``flask.session`` add to one request, beside a bare route in the same rounds.

Guards read a session and do not change it: the ordinary request of somebody who is signed in.
"""

from __future__ import annotations

import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import flask_imp.security
import flask_login
import redis
from flask import Flask, session
from flask_session import Session
from flask_sqlalchemy import SQLAlchemy
from in_process import requester
from interleaved import Contestant, measure
from table import Check, Group, Row, at_least, at_most

from jam import Jam
from jam.ext.flask import Authenticated, SessionExtension, UserMixin, checkpoint, login_required

_BARE = "bare Flask route"
_FLASK_SESSION = "Flask-Session, SQLAlchemy on SQLite, reading only"
_JAM_SQLITE = "Jam session guard, SQLite"
_GET = "floor: a bare redis-py GET"
_JAM_REDIS = "Jam session guard, Redis"
_STOCK_UNUSED = "Flask with SECRET_KEY, its cookie sent, session not used"
_UNTOUCHED = "Jam's flask.session, its cookie sent, not used"
_LOGIN = "Flask-Login + Flask-Session, Redis, reading only"
_REDIS = {"host": "127.0.0.1", "port": 6379, "socket_connect_timeout": 1, "socket_timeout": 1}


def run(scale: float, *, million: bool) -> list[Group]:
    """All groups of this section, ``scale`` times the full time."""
    with tempfile.TemporaryDirectory() as directory:
        groups = [_guards(25 * scale, Path(directory)), _flask_sessions(25 * scale, Path(directory))]
        with _redis() as client:
            if client is not None:
                groups.append(_over_redis(25 * scale, client))
        return groups


def _guards(seconds: float, directory: Path) -> Group:
    t = measure(
        [
            _bare(),
            _jam(_JAM_SQLITE, f"sqlite:///{directory / 'jam.db'}"),
            _jam("Jam session guard, memory", "memory://"),
            _flask_session(directory),
            _flask_login(),
            _imp_session(),
            _stock(_STOCK_UNUSED, used=False),
            _stock("Flask with SECRET_KEY, its cookie sent, session read", used=True),
        ],
        seconds,
        "session guards",
    )
    rows = [Row(f"{_BARE}: the whole request", t.median(_BARE))]
    for name in t.rounds:
        if name != _BARE:
            added = t.added(name, _BARE)
            less = at_least(t.added(_FLASK_SESSION, _BARE) / added, 10, "× less than Flask-Session")
            rows.append(Row(name, added, (less,) if name == _JAM_SQLITE else ()))
    return Group("One request with a session: µs it adds to a bare one", tuple(rows))


def _flask_sessions(seconds: float, directory: Path) -> Group:
    sqlite = f"sqlite:///{directory / 'jam_session.db'}"
    t = measure(
        [
            _bare(),
            _jam_session(_UNTOUCHED, sqlite, _view),
            _jam_session("Jam's flask.session, SQLite, read", f"{sqlite}.read", _reading_view),
            _jam_session("Jam's flask.session, SQLite, one key written", f"{sqlite}.write", _writing_view),
            _flask_session(directory, "read.db"),
            _flask_session(directory, "write.db", _writing_view),
            _stock(_STOCK_UNUSED, used=False),
            _stock("Flask with SECRET_KEY, its cookie sent, session read", used=True),
        ],
        seconds,
        "flask.session",
    )
    rows = [Row(f"{_BARE}: the whole request", t.median(_BARE))]
    for name in t.rounds:
        if name != _BARE:
            added = t.added(name, _BARE)
            rows.append(Row(name, added, (at_most(added, 2, "µs added"),) if name == _UNTOUCHED else ()))
    return Group("One request with flask.session: µs it adds to a bare one", tuple(rows))


@contextmanager
def _redis() -> Iterator[redis.Redis | None]:
    with redis.Redis(**_REDIS) as client:
        try:
            client.ping()
        except redis.RedisError:
            print("  no Redis at 127.0.0.1:6379: its group is left out", file=sys.stderr)
            yield None
        else:
            yield client


def _over_redis(seconds: float, client: redis.Redis) -> Group:
    prefix = f"jam-bench:{secrets.token_hex(4)}:"
    url = "redis://127.0.0.1:6379/0"
    client.set(f"{prefix}get", b"x" * 247)
    try:
        t = measure(
            [
                _bare(),
                Contestant(_GET, lambda _: client.get(f"{prefix}get"), [{}]),
                _jam(_JAM_REDIS, url),
                _jam_login("Jam login_required with a user_loader, Redis", url),
                _jam_session("Jam's flask.session, Redis, read", url, _reading_view),
                _jam_session("Jam's flask.session, Redis, one key written", url, _writing_view),
                _flask_session_redis("Flask-Session, Redis, reading only", client, prefix, _reading_view),
                _flask_session_redis("Flask-Session, Redis, one key written", client, prefix, _writing_view),
                _flask_login_redis(client, prefix),
            ],
            seconds,
            "sessions over Redis",
        )
    finally:
        for key in client.scan_iter(f"{prefix}*"):
            client.delete(key)
    rows = [Row(f"{_BARE}: the whole request", t.median(_BARE)), Row(_GET, t.median(_GET))]
    for name in t.rounds:
        if name not in (_BARE, _GET):
            added = t.added(name, _BARE)
            checks: tuple[Check, ...] = ()
            if name == _JAM_REDIS:
                checks = (at_most(added / t.median(_GET), 1.25, "× a bare GET"),)
            rows.append(Row(name, added, checks))
    return Group("One request with a session in Redis: µs it adds to a bare one", tuple(rows))


def _bare() -> Contestant:
    app = Flask("bare")
    app.get("/")(_view)
    return Contestant(_BARE, requester(app), [{}])


def _jam(name: str, store: str) -> Contestant:
    jam, app = Jam({"store": store, "https": False}), Flask("jam")
    SessionExtension(jam, app)
    app.get("/")(checkpoint(Authenticated())(_view))
    handle = jam.sessions.create("user-1", {"theme": "dark"})
    return Contestant(name, requester(app, headers={"Cookie": f"sessionId={handle}"}), [{}])


def _jam_login(name: str, store: str) -> Contestant:
    jam, app = Jam({"store": store, "https": False}), Flask("jam_login")
    sessions = SessionExtension(jam, app)
    users = {"user-1": UserMixin()}
    users["user-1"].id = "user-1"
    sessions.user_loader(users.get)
    app.get("/")(login_required(_view))
    handle = jam.sessions.create("user-1")
    return Contestant(name, requester(app, headers={"Cookie": f"sessionId={handle}"}), [{}])


def _jam_session(name: str, store: str, view: Callable[[], str]) -> Contestant:
    jam, app = Jam({"store": store, "https": False}), Flask("jam_session")
    SessionExtension(jam, app, flask_session=True)
    app.get("/sign-in")(_sign_in)
    app.get("/")(view)
    return _with_cookie(name, app, "sessionId")


def _flask_session_redis(
    name: str, client: redis.Redis, prefix: str, view: Callable[[], str], *, login: bool = False
) -> Contestant:
    app = Flask("flask_session_redis")
    app.config.update(
        SESSION_TYPE="redis", SESSION_REDIS=client, SESSION_KEY_PREFIX=prefix, SESSION_REFRESH_EACH_REQUEST=False
    )
    Session(app)
    if login:
        app.secret_key = secrets.token_urlsafe(64)
        users = {"user-1": flask_login.UserMixin()}
        users["user-1"].id = "user-1"
        flask_login.LoginManager(app).user_loader(users.get)
        app.get("/sign-in")(lambda: str(flask_login.login_user(users["user-1"])))
        app.get("/")(flask_login.login_required(view))
    else:
        app.get("/sign-in")(_sign_in)
        app.get("/")(view)
    return _with_cookie(name, app)


def _flask_login_redis(client: redis.Redis, prefix: str) -> Contestant:
    return _flask_session_redis(_LOGIN, client, prefix, _view, login=True)


def _flask_session(
    directory: Path, file: str = "flask_session.db", view: Callable[[], str] | None = None
) -> Contestant:
    app = Flask("flask_session")
    app.config.update(
        SQLALCHEMY_DATABASE_URI=f"sqlite:///{directory / file}",
        SESSION_TYPE="sqlalchemy",
        SESSION_REFRESH_EACH_REQUEST=False,
    )
    app.config["SESSION_SQLALCHEMY"] = SQLAlchemy(app)
    Session(app)
    if view is None:
        return _signed_in(_FLASK_SESSION, app)
    app.get("/sign-in")(_sign_in)
    app.get("/")(view)
    return _with_cookie("Flask-Session, SQLAlchemy on SQLite, one key written", app)


def _flask_login() -> Contestant:
    app = Flask("flask_login")
    app.secret_key = secrets.token_urlsafe(64)
    users = {"user-1": flask_login.UserMixin()}
    users["user-1"].id = "user-1"
    flask_login.LoginManager(app).user_loader(users.get)
    app.get("/")(flask_login.login_required(_view))
    app.get("/sign-in")(lambda: str(flask_login.login_user(users["user-1"])))
    return _with_cookie("Flask-Login, signed cookie, users in a dict", app)


def _imp_session() -> Contestant:
    app = Flask("flask_imp")
    app.secret_key = secrets.token_urlsafe(64)
    app.get("/sign-in")(_sign_in)
    guard = flask_imp.security.SessionCheckpoint("user", "user-1").action(fail_json={"error": "no"})
    app.get("/")(flask_imp.security.checkpoint(guard)(_view))
    return _with_cookie("flask-imp SessionCheckpoint, signed cookie", app)


def _stock(name: str, *, used: bool) -> Contestant:
    app = Flask("stock")
    app.secret_key = secrets.token_urlsafe(64)
    if used:
        return _signed_in(name, app)
    app.get("/sign-in")(_sign_in)
    app.get("/")(_view)
    return _with_cookie(name, app)


def _signed_in(name: str, app: Flask) -> Contestant:
    app.get("/sign-in")(_sign_in)
    app.get("/")(_reading_view)
    return _with_cookie(name, app)


def _with_cookie(name: str, app: Flask, cookie_name: str = "session") -> Contestant:
    """A contestant that sends the session cookie which /sign-in sets."""
    client = app.test_client()
    assert client.get("/sign-in").status_code == 200
    cookie = client.get_cookie(cookie_name)
    assert cookie is not None
    return Contestant(name, requester(app, headers={"Cookie": f"{cookie_name}={cookie.value}"}), [{}])


def _sign_in() -> str:
    session["user"] = "user-1"
    session["theme"] = "dark"
    return "ok"


def _reading_view() -> str:
    assert session["user"] == "user-1"
    return "ok"


def _writing_view() -> str:
    session["seen"] = next(_numbers)
    return "ok"


_numbers = count()


def _view() -> str:
    return "ok"
