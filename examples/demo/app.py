"""The demo: a sign-in form, a page behind it, and an API behind a JWT. ``make demo`` serves it.

Everything it remembers is in one folder (``.demo`` unless DEMO_FOLDER says otherwise), so that a restart signs
nobody out: the store, the app's secret, and the demo user's password, the last two readable only by their owner.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import socket
import sys
from pathlib import Path

from flask import Flask, flash, g, redirect, render_template, request
from flask.typing import ResponseReturnValue
from werkzeug.serving import make_server

from jam import Jam
from jam.ext.flask import (
    Authenticated,
    HasScope,
    JamExtension,
    JWTExtension,
    SameOrigin,
    SessionExtension,
    checkpoint,
    current_identity,
    deny_by_default,
    public,
)

HOST = "127.0.0.1"
USER = "demo"
ATTEMPTS, WINDOW = 10, 300  # failed sign-ins allowed, and for how many seconds they are counted


def create_app(folder: Path | None = None) -> Flask:
    """The demo app, keeping what it remembers in ``folder``."""
    folder = folder if folder is not None else demo_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY=kept_secret(folder / "secret.txt", 64),
        JAM_NAME="jam-demo",
        JAM_STORE=os.environ.get("STORE") or f"sqlite:///{folder.resolve()}/jam.sqlite3",
        JAM_HTTPS=False,  # it is only reached on this machine, by plain http
    )
    jam = Jam()
    JamExtension(jam, app)
    with app.app_context():
        jam.store.create_tables()  # an engine with tables; the embedded one makes its own
    door = Door(jam, kept_secret(folder / "password.txt", 12))
    JWTExtension(jam, app)
    deny_by_default(app)
    add_pages(app, jam, door)
    add_api(app, jam, door)
    return app


class Door:
    """Knows the one user's password."""

    def __init__(self, jam: Jam, password: str) -> None:
        self.jam = jam
        self.password = password.encode()

    def opens(self, name: str, given: str) -> bool:
        """Whether that is right. Counted before it is looked at, so that many guesses at once gain nothing."""
        counter = "demo " + hmac.digest(self.password, name.encode("utf-8", "replace"), hashlib.sha256).hex()
        if not self.jam.store.count_up(counter, WINDOW, ATTEMPTS, self.jam.clock()).allowed:
            return False
        if name != USER or not hmac.compare_digest(given.encode("utf-8", "replace"), self.password):
            return False
        self.jam.store.count_reset(counter)
        return True


def add_pages(app: Flask, jam: Jam, door: Door) -> None:
    """The sign-in form and the page behind it."""
    sessions = SessionExtension(jam, app)

    @app.get("/")
    @public
    def index() -> str:
        return render_template("index.html", base=request.host_url.rstrip("/"))

    @app.get("/sign-in")
    @public
    def sign_in_form() -> str:
        return render_template("sign_in.html")

    @app.post("/sign-in")
    @public
    @checkpoint(SameOrigin())
    def sign_in() -> ResponseReturnValue:
        name, given = request.form.get("username", ""), request.form.get("password", "")
        generation = jam.sessions.generation(USER)
        if not door.opens(name, given):
            flash("That is not right, or it was tried too often.")
            return render_template("sign_in.html"), 401
        sessions.sign_in(USER, {"colour": "plum"}, roles=["member"], amr=["pwd"], generation=generation)
        return redirect("/page")

    @app.post("/sign-out")
    @checkpoint(Authenticated())
    def sign_out() -> ResponseReturnValue:
        sessions.sign_out()
        return redirect("/")

    @app.get("/page")
    @checkpoint(Authenticated())
    def page() -> str:
        listed = jam.sessions.list(USER)
        return render_template("page.html", sessions=listed, here=current_identity.credential_id)


def add_api(app: Flask, jam: Jam, door: Door) -> None:
    """The API behind a token."""

    @app.post("/api/token")
    @public
    def token() -> ResponseReturnValue:
        given = request.get_json(silent=True)
        fields = given if isinstance(given, dict) else {}
        name, guess = fields.get("username"), fields.get("password")
        if not isinstance(name, str) or not isinstance(guess, str):
            return {"error": "Bad Request", "message": "Send username and password as JSON."}, 400
        generation = jam.access_tokens.generation(USER)
        if not door.opens(name, guess):
            return {"error": "Unauthorized", "message": "That is not right, or it was tried too often."}, 401
        issued = jam.access_tokens.issue(USER, scopes=["notes:read"], generation=generation)
        answer = app.json.response(access_token=issued, token_type="Bearer")  # noqa: S106 - no password
        answer.headers["Cache-Control"] = "no-store"
        return answer

    @app.get("/api/notes")
    @checkpoint(HasScope("notes:read"))
    def notes() -> ResponseReturnValue:
        return {"for": g.payload["sub"], "notes": ["Buy plums", "Make jam"]}

    @app.post("/api/revoke")
    @checkpoint(HasScope("notes:read"))
    def revoke() -> ResponseReturnValue:
        jam.access_tokens.revoke(current_identity)
        return "", 204


def demo_folder() -> Path:
    """Where the demo keeps what it remembers."""
    return Path(os.environ.get("DEMO_FOLDER", ".demo"))


def kept_secret(path: Path, size: int) -> str:
    """The secret in the file; made of ``size`` random bytes on the first run, readable only by its owner."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text("utf-8").strip()
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(secrets.token_urlsafe(size) + "\n")
    return path.read_text("utf-8").strip()


def free_port(wanted: int) -> int:
    """``wanted``, or the next port nobody listens on."""
    for port in range(wanted, min(wanted + 100, 65536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise SystemExit(f"No free port from {wanted} on. Choose another with PORT=.")


def main() -> None:
    """Serve until interrupted."""
    try:
        wanted = int(os.environ.get("PORT", "5000"))
    except ValueError:
        raise SystemExit("PORT is a number.") from None
    folder = demo_folder()
    app = create_app(folder)
    port = free_port(wanted)
    if port != wanted:
        print(f"Port {wanted} is taken; using {port}.")
    password = (folder / "password.txt").read_text("utf-8").strip()
    url = f"http://{HOST}:{port}"
    print(
        f"\nThe demo is at {url}\n\n"
        f"  user      {USER}\n  password  {password}      (kept in {folder / 'password.txt'})\n\n"
        "Try with curl:\n\n"
        f"  curl -i {url}/api/notes                          # 401: nobody\n"
        f"  TOKEN=$(curl -s {url}/api/token -H 'Content-Type: application/json' \\\n"
        f'    -d \'{{"username": "{USER}", "password": "{password}"}}\' \\\n'
        '    | sed \'s/.*"access_token":"\\([^"]*\\).*/\\1/\')\n'
        f'  curl -i {url}/api/notes -H "Authorization: Bearer $TOKEN"    # 200\n'
        f'  curl -i -X POST {url}/api/revoke -H "Authorization: Bearer $TOKEN"    # 204: and then it is over\n'
        f'  curl -i {url}/api/notes -H "Authorization: Bearer $TOKEN"    # 401: token_revoked\n'
        f"  curl -i {url}/page -H 'Accept: text/html'                    # 401, as a page\n\n"
        "What guards each route:   .venv-demo/bin/flask --app examples/demo/app.py jam routes\n"
        "What is wrong with it:    .venv-demo/bin/flask --app examples/demo/app.py jam doctor\n\n"
        "Stop with Ctrl-C; what it remembers stays.\n"
    )
    sys.stdout.flush()
    with make_server(HOST, port, app, threaded=True) as server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("\nGood-bye.")


if __name__ == "__main__":
    main()
