import pytest
from flask import Flask, g

from jam.ext.flask import Authenticated, JWTExtension, SessionExtension, checkpoint, current_identity


@pytest.fixture
def new_app(secret):
    """Makes apps as a test wants them: in testing mode and with a good secret, unless it says otherwise."""

    def make(**config):
        app = Flask(__name__)
        app.config.update({"TESTING": True, "SECRET_KEY": secret, **config})
        return app

    return make


@pytest.fixture
def app(new_app):
    return new_app()


@pytest.fixture
def client(app):
    return app.test_client()


@pytest.fixture
def site(app, jam):
    """An app that takes a token in the header and a session in the cookie ``sessionId``."""
    JWTExtension(jam, app)
    app.sessions = SessionExtension(jam, app)

    @app.route("/whoami", methods=["GET", "POST"])
    def whoami():
        return {"subject": current_identity.subject, "method": current_identity.method, "payload": g.payload}

    @app.route("/members", methods=["GET", "POST"])
    @checkpoint(Authenticated())
    def members():
        return {"hello": current_identity.subject}

    @app.post("/sign-in/<name>")
    def sign_in(name):
        return {"subject": app.sessions.sign_in(name, {"colour": "plum"}).subject}

    @app.post("/sign-out")
    def sign_out():
        app.sessions.sign_out()
        return {"subject": current_identity.subject}

    return app


@pytest.fixture
def token(jam):
    return jam.access_tokens.issue("alice")


@pytest.fixture
def handle(jam):
    return jam.create_session("bob", {"colour": "plum"})
