"""Sessions: what a session guard adds to one request, beside a bare route measured in the same rounds.

Sessions are read and not changed: the ordinary request of somebody who is signed in.
"""

from __future__ import annotations

import secrets
import tempfile
from pathlib import Path

import flask_imp.security
import flask_login
from flask import Flask, session
from flask_session import Session
from flask_sqlalchemy import SQLAlchemy
from in_process import requester
from interleaved import Contestant, measure
from table import Group, Row, at_least

from jam import Jam
from jam.ext.flask import Authenticated, SessionExtension, checkpoint

_BARE = "bare Flask route"
_FLASK_SESSION = "Flask-Session, SQLAlchemy on SQLite, reading only"
_JAM_SQLITE = "Jam session guard, SQLite"


def run(scale: float, *, million: bool) -> list[Group]:
    """All groups of this section, ``scale`` times the full time."""
    with tempfile.TemporaryDirectory() as directory:
        return [_guards(25 * scale, Path(directory))]


def _guards(seconds: float, directory: Path) -> Group:
    t = measure(
        [
            _bare(),
            _jam(_JAM_SQLITE, f"sqlite:///{directory / 'jam.db'}"),
            _jam("Jam session guard, memory", "memory://"),
            _flask_session(directory),
            _flask_login(),
            _imp_session(),
            _stock("Flask with SECRET_KEY, its cookie sent, session not used", used=False),
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


def _flask_session(directory: Path) -> Contestant:
    app = Flask("flask_session")
    app.config.update(
        SQLALCHEMY_DATABASE_URI=f"sqlite:///{directory / 'flask_session.db'}",
        SESSION_TYPE="sqlalchemy",
        SESSION_REFRESH_EACH_REQUEST=False,
    )
    app.config["SESSION_SQLALCHEMY"] = SQLAlchemy(app)
    Session(app)
    return _signed_in(_FLASK_SESSION, app)


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


def _with_cookie(name: str, app: Flask) -> Contestant:
    """A contestant that sends the session cookie which /sign-in sets."""
    client = app.test_client()
    assert client.get("/sign-in").status_code == 200
    cookie = client.get_cookie("session")
    assert cookie is not None
    return Contestant(name, requester(app, headers={"Cookie": f"session={cookie.value}"}), [{}])


def _sign_in() -> str:
    session["user"] = "user-1"
    session["theme"] = "dark"
    return "ok"


def _reading_view() -> str:
    assert session["user"] == "user-1"
    return "ok"


def _view() -> str:
    return "ok"
