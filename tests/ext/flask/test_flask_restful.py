# ruff: noqa: RUF012 - as its documentation writes it
"""What only flask-restful has: decorators for some methods, and errors by name."""

import flask_restful
import pytest

from jam.ext.flask import Authenticated, JWTExtension, checkpoint, deny_by_default
from tests.ext.flask.callers import answer, bearer, raw_client


@pytest.fixture
def app(app, jam):
    JWTExtension(jam, app)
    return app


class Posts(flask_restful.Resource):
    method_decorators = {"post": [checkpoint(Authenticated())]}

    def get(self):
        return "read"

    def post(self):
        return "written"


def test_method_decorators_for_some_methods_guard_these_only(app, token):
    flask_restful.Api(app).add_resource(Posts, "/posts")
    client = raw_client(app)
    assert client.get("/posts").json == "read"
    assert answer(client.post("/posts")) == (401, "authentication_required")
    assert client.post("/posts", headers=bearer(token)).json == "written"


def test_under_deny_by_default_the_other_methods_are_shut(app, token):
    deny_by_default(app)
    flask_restful.Api(app).add_resource(Posts, "/posts")
    client = raw_client(app)
    assert answer(client.get("/posts")) == (401, "authentication_required")
    assert client.head("/posts").status_code == 401
    assert client.get("/posts", headers=bearer(token)).json == "read"


def test_a_head_that_flask_restful_would_not_decorate_is_shut_by_deny_by_default(app):
    """It looks for the decorators of HEAD, finds none, and runs GET."""
    deny_by_default(app)

    class Secret(flask_restful.Resource):
        method_decorators = {"get": [checkpoint(Authenticated())]}

        def get(self):
            return "secret", 200, {"X-Secret": "yes"}

    flask_restful.Api(app).add_resource(Secret, "/secret")
    response = raw_client(app).head("/secret")
    assert response.status_code == 401
    assert "X-Secret" not in response.headers


def test_flask_jam_routes_tells_the_methods_apart(app):
    flask_restful.Api(app).add_resource(Posts, "/posts")
    output = app.test_cli_runner().invoke(args=["jam", "routes"]).output
    lines = sorted(line.split()[1:3] for line in output.splitlines() if line.startswith("/posts"))
    assert lines == [["GET", "unprotected"], ["POST", "guarded"]]


def test_flask_jam_routes_does_not_hide_a_head_that_flask_restful_runs_undecorated(app):
    class Secret(flask_restful.Resource):
        method_decorators = {"get": [checkpoint(Authenticated())]}

        def get(self):
            return "secret", 200, {"X-Secret": "yes"}

    flask_restful.Api(app).add_resource(Secret, "/secret")
    assert raw_client(app).head("/secret").headers["X-Secret"] == "yes"
    assert app.test_cli_runner().invoke(args=["jam", "routes", "--fail-unprotected"]).exit_code == 1
