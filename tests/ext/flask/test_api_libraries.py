# ruff: noqa: RUF012 - as these libraries' documentation writes it
"""flask-restful and flask-restx see Jam's errors as their own, and guards work in their Resources."""

import flask_restful
import flask_restx
import pytest
from flask import Blueprint, g

from jam import Jam
from jam.errors import AuthenticationRequired, JamError, TokenExpired
from jam.ext.flask import (
    Authenticated,
    HasRole,
    HasScope,
    JWTExtension,
    SessionExtension,
    checkpoint,
    current_identity,
    deny_by_default,
    login_required,
    protect,
    public,
)
from tests.ext.flask.callers import CROSS_SITE, SAME_ORIGIN, UNREACHABLE, answer, bearer, challenges, raw_client

NOBODY = (401, "authentication_required")
LIBRARIES = pytest.mark.parametrize("library", [flask_restful, flask_restx], ids=["flask-restful", "flask-restx"])
pytestmark = LIBRARIES


@pytest.fixture
def app(app, jam):
    JWTExtension(jam, app)
    return app


@pytest.fixture
def alice(jam):
    return bearer(jam.access_tokens.issue("alice"))


def add(library, app, resource, path="/posts", **options):
    api = library.Api(app, **options)
    api.add_resource(resource, path)
    return api


def guarded_class(library, guard):
    @guard
    class Posts(library.Resource):
        def get(self):
            return {"hello": g.payload["sub"]}

    return Posts


def guarded_method(library, guard):
    class Posts(library.Resource):
        @guard
        def get(self):
            return {"hello": g.payload["sub"]}

    return Posts


def method_decorators(library, guard):
    class Posts(library.Resource):
        method_decorators = [guard]

        def get(self):
            return {"hello": g.payload["sub"]}

    return Posts


SHAPES = pytest.mark.parametrize("shape", [guarded_class, guarded_method, method_decorators])
GUARDS = pytest.mark.parametrize("guard", [checkpoint(Authenticated()), login_required, login_required()])


@SHAPES
@GUARDS
def test_a_guarded_resource_lets_somebody_in_and_nobody_else(library, app, alice, shape, guard):
    add(library, app, shape(library, guard))
    client = raw_client(app)
    assert client.get("/posts", headers=alice).json == {"hello": "alice"}
    assert answer(client.get("/posts")) == NOBODY
    assert answer(client.get("/posts", headers=bearer("junk"))) == (401, "token_invalid")


@SHAPES
def test_somebody_who_may_not_is_403(library, app, alice, shape):
    add(library, app, shape(library, checkpoint(HasRole("admin"))))
    assert answer(raw_client(app).get("/posts", headers=alice)) == (403, "role_required")


@SHAPES
def test_the_body_is_jams_and_the_headers_are_there(library, app, shape):
    add(library, app, shape(library, checkpoint(Authenticated())))
    response = raw_client(app).get("/posts")
    assert response.mimetype == "application/json"
    assert response.json["error"] == "Unauthorized"
    assert response.json["message"] == "Authentication is required."
    assert challenges(response) == ['Bearer realm="jam"']
    assert response.headers["Cache-Control"] == "no-store"


def test_rfc6750_3_1_a_missing_scope_is_named(library, app, alice):
    add(library, app, guarded_method(library, checkpoint(HasScope("posts:write"))))
    (challenge,) = challenges(raw_client(app).get("/posts", headers=alice))
    assert 'scope="posts:write"' in challenge


@pytest.mark.parametrize("accept", ["text/html", "application/problem+json", "*/*", "application/json"])
def test_asvs_4_1_1_the_declared_type_is_that_of_the_body_whatever_the_client_accepts(library, app, accept):
    add(library, app, guarded_method(library, login_required))
    response = raw_client(app).get("/posts", headers={"Accept": accept})
    assert response.status_code == 401
    assert response.headers.getlist("Content-Type") == ["application/json"]
    assert response.json["code"] == "authentication_required"


@SHAPES
def test_head_is_guarded_like_get(library, app, alice, shape):
    add(library, app, shape(library, checkpoint(Authenticated())))
    assert raw_client(app).head("/posts").status_code == 401
    assert raw_client(app).head("/posts", headers=alice).status_code == 200


@SHAPES
def test_asvs_16_5_3_a_store_that_cannot_be_reached_is_503(library, new_app, secret, shape):
    app = new_app(JAM_STORE=UNREACHABLE, PROPAGATE_EXCEPTIONS=False)
    JWTExtension(Jam(), app)
    add(library, app, shape(library, checkpoint(Authenticated())))
    token = Jam({"secret": secret}).access_tokens.issue("alice")
    response = raw_client(app).get("/posts", headers=bearer(token))
    assert answer(response) == (503, "store_unavailable")
    assert int(response.headers["Retry-After"]) > 0


def test_asvs_16_5_3_an_unguarded_resource_that_asks_who_is_calling_is_503_too(library, new_app, secret):
    app = new_app(JAM_STORE=UNREACHABLE)
    JWTExtension(Jam(), app)

    class Who(library.Resource):
        def get(self):
            return {"who": current_identity.subject}

    add(library, app, Who)
    token = Jam({"secret": secret}).access_tokens.issue("alice")
    assert answer(raw_client(app).get("/posts", headers=bearer(token))) == (503, "store_unavailable")


def signing_in(library, app, jam):
    sessions = SessionExtension(jam, app)

    class SignIn(library.Resource):
        def post(self):
            return {"who": sessions.sign_in("alice").subject}

        def delete(self):
            sessions.sign_out()
            return {"who": current_identity.subject}

    add(library, app, SignIn, "/sign-in")


def test_signing_in_and_out_works_in_a_resource(library, app, jam):
    signing_in(library, app, jam)
    client = app.test_client()
    assert client.post("/sign-in", headers=SAME_ORIGIN).json == {"who": "alice"}
    assert client.get_cookie("sessionId")
    assert client.delete("/sign-in", headers=SAME_ORIGIN).json == {"who": None}
    assert client.get_cookie("sessionId") is None


def test_asvs_3_5_1_a_forged_sign_in_is_403(library, app, jam):
    signing_in(library, app, jam)
    assert answer(raw_client(app).post("/sign-in", headers=CROSS_SITE)) == (403, "csrf_failed")


def test_a_sign_in_without_the_store_is_503(library, new_app):
    app, jam = new_app(JAM_STORE=UNREACHABLE), Jam()
    signing_in(library, app, jam)
    assert answer(raw_client(app).post("/sign-in", headers=SAME_ORIGIN)) == (503, "store_unavailable")


def test_a_jam_error_of_a_guarded_resources_own_doing_keeps_its_status(library, app, jam, alice):
    class Check(library.Resource):
        @login_required
        def get(self):
            return jam.verify_jwt_token("junk")

    add(library, app, Check)
    assert answer(raw_client(app).get("/posts", headers=alice)) == (401, "token_invalid")


def test_an_apps_handler_for_one_error_does_not_turn_the_refusal_into_a_500(library, app, jam, clock):
    app.register_error_handler(TokenExpired, lambda error: ({"handled": error.code}, 401))
    add(library, app, guarded_method(library, login_required))
    expired = jam.access_tokens.issue("alice", lifetime=1)
    clock.move(2)
    response = raw_client(app).get("/posts", headers=bearer(expired))
    assert response.status_code == 401
    assert "token_expired" in response.text


@pytest.mark.parametrize("shut", [protect, deny_by_default])
def test_protect_and_deny_by_default_shut_resources(library, app, alice, shut):
    shut(app)

    class Posts(library.Resource):
        def get(self):
            return {"hello": g.payload["sub"]}

    add(library, app, Posts)
    assert answer(raw_client(app).get("/posts")) == NOBODY
    assert raw_client(app).get("/posts", headers=alice).json == {"hello": "alice"}


def test_a_public_resource_stays_open(library, app):
    deny_by_default(app)

    @public
    class Posts(library.Resource):
        def get(self):
            return {"hello": "world"}

    add(library, app, Posts)
    assert raw_client(app).get("/posts").json == {"hello": "world"}


@SHAPES
def test_under_deny_by_default_a_guarded_resource_answers_for_itself(library, app, jam, shape):
    deny_by_default(app, HasRole("nobody has this"))
    add(library, app, shape(library, checkpoint(HasRole("admin"))))
    headers = bearer(jam.access_tokens.issue("root", roles=["admin"]))
    assert raw_client(app).get("/posts", headers=headers).json == {"hello": "root"}


@SHAPES
@GUARDS
def test_flask_jam_routes_sees_the_guards_of_a_resource(library, app, shape, guard):
    add(library, app, shape(library, guard))
    output = app.test_cli_runner().invoke(args=["jam", "routes"]).output
    (line,) = [line for line in output.splitlines() if line.startswith("/posts")]
    assert " guarded " in line
    assert "Authenticated()" in line


def test_an_api_on_a_blueprint(library, app, alice):
    part = Blueprint("part", __name__, url_prefix="/api")
    add(library, part, guarded_method(library, login_required))
    app.register_blueprint(part)
    assert answer(raw_client(app).get("/api/posts")) == NOBODY
    assert raw_client(app).get("/api/posts", headers=alice).json == {"hello": "alice"}


def test_an_api_on_a_protected_blueprint(library, app, alice):
    part = Blueprint("part", __name__, url_prefix="/api")
    protect(part)

    class Posts(library.Resource):
        def get(self):
            return {"hello": g.payload["sub"]}

    add(library, part, Posts)
    app.register_blueprint(part)
    assert answer(raw_client(app).get("/api/posts")) == NOBODY
    assert raw_client(app).get("/api/posts", headers=alice).json == {"hello": "alice"}


def test_jam_may_be_set_up_after_the_api(library, new_app, jam, alice):
    app = new_app()
    add(library, app, guarded_method(library, login_required))
    JWTExtension(jam, app)
    assert answer(raw_client(app).get("/posts")) == NOBODY
    assert raw_client(app).get("/posts", headers=alice).json == {"hello": "alice"}


def test_plain_routes_beside_an_api_answer_as_ever(library, app):
    add(library, app, guarded_method(library, login_required))
    app.get("/page")(login_required(lambda: "in"))
    response = raw_client(app).get("/page", headers={"Accept": "text/html"})
    assert (response.status_code, response.mimetype) == (401, "text/html")


# -- and in earnest: outside testing these libraries make a 500 of what is no HTTPException -------------------


@pytest.fixture
def in_earnest(new_app, secret, clock):
    jam = Jam({"secret": secret, "https": False}, clock=clock)
    app = new_app(TESTING=False)
    app.jam = jam
    JWTExtension(jam, app)
    return app


@pytest.mark.parametrize("key", [JamError, AuthenticationRequired, Exception])
def test_outside_testing_an_apps_handler_does_not_turn_a_refusal_into_a_500(library, in_earnest, key):
    in_earnest.register_error_handler(key, lambda error: ({"handled": True}, 401))
    add(library, in_earnest, guarded_method(library, login_required))
    assert raw_client(in_earnest).get("/posts").status_code == 401


def test_outside_testing_a_sign_in_without_the_store_is_503(library, new_app, secret):
    app = new_app(TESTING=False, JAM_STORE=UNREACHABLE, JAM_HTTPS=False)
    signing_in(library, app, Jam())
    assert answer(raw_client(app).post("/sign-in", headers=SAME_ORIGIN)) == (503, "store_unavailable")


def test_outside_testing_a_refusal_is_the_same(library, in_earnest):
    add(library, in_earnest, guarded_method(library, login_required))
    response = raw_client(in_earnest).get("/posts")
    assert answer(response) == NOBODY
    assert challenges(response) == ['Bearer realm="jam"']
