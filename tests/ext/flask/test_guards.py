# ruff: noqa: PLR0917, RUF012 - tables of cases; and as Flask's documentation writes it
"""Guards before views, blueprints and apps: who gets in, in every shape Flask has for a view."""

import functools
import json
import logging

import pytest
from flask import Blueprint, abort, g, render_template_string
from flask.views import MethodView, View
from werkzeug.exceptions import HTTPException, ServiceUnavailable, Unauthorized

from jam import Jam
from jam.errors import (
    AccessDenied,
    AuthenticationRequired,
    ConfigError,
    JamError,
    RoleRequired,
    StoreUnavailable,
    TokenExpired,
    TokenInvalid,
)
from jam.ext.flask import (
    Authenticated,
    Fresh,
    HasRole,
    JWTExtension,
    SessionCheckpoint,
    SessionExtension,
    checkpoint,
    current_identity,
    deny_by_default,
    login_required,
    protect,
    public,
)
from tests.ext.flask.callers import PAGE, UNREACHABLE, answer, bearer, challenges, raw_client

NOBODY = (401, "authentication_required")


@pytest.fixture
def app(app, jam):
    JWTExtension(jam, app)
    return app


@pytest.fixture
def ask(app):
    """Sends a request and gives the response; without cookies of its own."""

    def send(path="/", method="GET", headers=None, **options):
        return raw_client(app).open(path, method=method, headers=headers, **options)

    return send


@pytest.fixture
def alice(jam):
    return bearer(jam.access_tokens.issue("alice"))


@pytest.fixture
def admin(jam):
    return bearer(jam.access_tokens.issue("root", roles=["admin"]))


# -- every shape of view ------------------------------------------------------------------------------------


def sync_view(app, guard):
    app.get("/")(guard(lambda: "in"))


def async_view(app, guard):
    @app.get("/")
    @guard
    async def view():
        return "in"


def view_class(app, guard):
    @guard
    class Page(View):
        def dispatch_request(self):
            return "in"

    app.add_url_rule("/", view_func=Page.as_view("page"))


def async_view_class(app, guard):
    @guard
    class Page(View):
        async def dispatch_request(self):
            return "in"

    app.add_url_rule("/", view_func=Page.as_view("page"))


def method_view(app, guard):
    @guard
    class Page(MethodView):
        def get(self):
            return "in"

    app.add_url_rule("/", view_func=Page.as_view("page"))


def guarded_method(app, guard):
    class Page(MethodView):
        @guard
        def get(self):
            return "in"

    app.add_url_rule("/", view_func=Page.as_view("page"))


def guarded_async_method(app, guard):
    class Page(MethodView):
        @guard
        async def get(self):
            return "in"

    app.add_url_rule("/", view_func=Page.as_view("page"))


def guarded_dispatch(app, guard):
    class Page(View):
        @guard
        def dispatch_request(self):
            return "in"

    app.add_url_rule("/", view_func=Page.as_view("page"))


def decorators_attribute(app, guard):
    class Page(MethodView):
        decorators = [guard]

        def get(self):
            return "in"

    app.add_url_rule("/", view_func=Page.as_view("page"))


def guarded_as_view(app, guard):
    class Page(MethodView):
        def get(self):
            return "in"

    app.add_url_rule("/", view_func=guard(Page.as_view("page")))


def view_that_is_kept(app, guard):
    @guard
    class Page(View):
        init_every_request = False

        def dispatch_request(self):
            return "in"

    app.add_url_rule("/", view_func=Page.as_view("page"))


def view_in_a_blueprint(app, guard):
    blueprint = Blueprint("inner", __name__)
    blueprint.get("/")(guard(lambda: "in"))
    app.register_blueprint(blueprint)


SHAPES = [
    sync_view,
    async_view,
    view_class,
    async_view_class,
    method_view,
    guarded_method,
    guarded_async_method,
    guarded_dispatch,
    decorators_attribute,
    guarded_as_view,
    view_that_is_kept,
    view_in_a_blueprint,
]


@pytest.mark.parametrize("shape", SHAPES)
def test_asvs_8_2_1_nobody_is_401_somebody_is_in(app, ask, alice, shape):
    shape(app, checkpoint(Authenticated()))
    assert answer(ask()) == NOBODY
    assert ask(headers=alice).text == "in"


@pytest.mark.parametrize("shape", SHAPES)
def test_asvs_8_2_1_somebody_who_may_not_is_403(app, ask, alice, admin, shape):
    shape(app, checkpoint(HasRole("admin")))
    assert answer(ask()) == NOBODY
    assert answer(ask(headers=alice)) == (403, "role_required")
    assert ask(headers=admin).text == "in"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_asvs_8_3_1_head_is_guarded_like_get(app, ask, alice, shape, method):
    shape(app, checkpoint(Authenticated()))
    assert ask(method=method).status_code == 401
    assert ask(method=method, headers=alice).status_code == 200


@pytest.mark.parametrize("shape", SHAPES)
def test_the_options_that_flask_answers_itself_stay_as_they_are(app, ask, shape):
    shape(app, login_required)
    response = ask(method="OPTIONS")
    assert (response.status_code, response.text) == (200, "")


@pytest.mark.parametrize("shape", SHAPES)
def test_under_deny_by_default_a_guarded_view_answers_for_itself(app, ask, alice, admin, shape):
    deny_by_default(app, HasRole("nobody has this"))
    shape(app, checkpoint(HasRole("admin")))
    assert answer(ask()) == NOBODY
    assert answer(ask(headers=alice)) == (403, "role_required")
    assert ask(headers=admin).text == "in"


@pytest.mark.parametrize("guard", [login_required, login_required(), checkpoint(Authenticated())])
@pytest.mark.parametrize("shape", SHAPES)
def test_login_required_works_with_and_without_parentheses(app, ask, alice, shape, guard):
    shape(app, guard)
    assert answer(ask()) == NOBODY
    assert ask(headers=alice).text == "in"


def test_a_view_gets_its_arguments_and_keeps_its_name(app, ask, alice):
    @app.get("/posts/<int:number>")
    @login_required
    def post(number):
        """Shows a post."""
        return {"number": number}

    assert ask("/posts/7", headers=alice).json == {"number": 7}
    assert (post.__name__, post.__doc__) == ("post", "Shows a post.")
    assert "post" in app.view_functions


def test_an_explicit_options_view_is_guarded(app, ask):
    app.route("/", methods=["GET", "OPTIONS"], provide_automatic_options=False)(login_required(lambda: "in"))
    assert answer(ask(method="OPTIONS")) == NOBODY


def test_guards_of_a_base_class_hold_for_its_subclasses(app, ask):
    @login_required
    class Base(MethodView):
        pass

    class Page(Base):
        def get(self):
            return "in"

    app.add_url_rule("/", view_func=Page.as_view("page"))
    assert answer(ask()) == NOBODY


def test_a_guard_on_a_subclass_does_not_reach_its_base(app, ask):
    class Base(MethodView):
        def get(self):
            return "in"

    @login_required
    class Page(Base):
        pass

    app.add_url_rule("/base", view_func=Base.as_view("base"))
    app.add_url_rule("/page", view_func=Page.as_view("page"))
    assert ask("/base").text == "in"
    assert answer(ask("/page")) == NOBODY


def test_a_method_may_demand_more_than_its_class(app, ask, alice, admin):
    @login_required
    class Page(MethodView):
        def get(self):
            return "read"

        @checkpoint(HasRole("admin"))
        def delete(self):
            return "gone"

    app.add_url_rule("/", view_func=Page.as_view("page"))
    assert ask(headers=alice).text == "read"
    assert answer(ask(method="DELETE", headers=alice)) == (403, "role_required")
    assert ask(method="DELETE", headers=admin).text == "gone"


def test_a_guard_on_one_method_leaves_the_others_open(app, ask):
    class Page(MethodView):
        def get(self):
            return "read"

        @login_required
        def post(self):
            return "written"

    app.add_url_rule("/", view_func=Page.as_view("page"))
    assert ask().text == "read"
    assert answer(ask(method="POST")) == NOBODY


def test_a_view_may_be_guarded_twice_in_two_apps(new_app, jam, alice):
    view = login_required(lambda: "in")
    for _ in range(2):
        app = new_app()
        JWTExtension(jam, app)
        app.get("/", endpoint="x")(view)
        assert answer(raw_client(app).get("/")) == NOBODY
        assert raw_client(app).get("/", headers=alice).text == "in"


@pytest.mark.parametrize("nonsense", [HasRole, None, True, "admin", lambda: True])
def test_what_is_no_checkpoint_is_refused_where_it_is_written(nonsense):
    with pytest.raises(ConfigError, match="not a checkpoint"):
        checkpoint(nonsense)


def test_a_guard_without_a_checkpoint_is_refused():
    with pytest.raises(ConfigError, match="needs a checkpoint"):
        checkpoint()


def test_a_class_that_is_no_view_is_refused():
    with pytest.raises(ConfigError, match="class-based view"):
        login_required(type("NotAView", (), {}))


# -- stacking, and other decorators -------------------------------------------------------------------------


def test_stacked_guards_are_asked_from_the_top_down(app, ask, alice):
    app.get("/")(checkpoint(HasRole("admin"))(checkpoint(Fresh(60))(lambda: "in")))
    app.get("/other", endpoint="other")(checkpoint(Fresh(60))(checkpoint(HasRole("admin"))(lambda: "in")))
    assert answer(ask(headers=alice)) == (403, "role_required")
    assert answer(ask("/other", headers=alice)) == (401, "insufficient_user_authentication")


def test_stacked_guards_on_a_class_are_asked_from_the_top_down(app, ask, alice):
    @checkpoint(HasRole("admin"))
    @checkpoint(Fresh(60))
    class Page(MethodView):
        def get(self):
            return "in"

    app.add_url_rule("/", view_func=Page.as_view("page"))
    assert answer(ask(headers=alice)) == (403, "role_required")


def test_several_checkpoints_in_one_guard_are_asked_from_the_left(app, ask, alice):
    app.get("/")(checkpoint(HasRole("admin"), Fresh(60))(lambda: "in"))
    assert answer(ask(headers=alice)) == (403, "role_required")


def test_every_stacked_guard_must_be_content(app, ask, jam):
    app.get("/")(checkpoint(HasRole("a"))(checkpoint(HasRole("b"))(lambda: "in")))
    for roles, status in ((["a"], 403), (["b"], 403), (["a", "b"], 200)):
        assert ask(headers=bearer(jam.access_tokens.issue("alice", roles=roles))).status_code == status


def shouting(view):
    @functools.wraps(view)
    def louder(*args, **kwargs):
        result = view(*args, **kwargs)
        return result.upper() if isinstance(result, str) else result

    return louder


def nameless(view):
    def wrapped(*args, **kwargs):
        return view(*args, **kwargs)

    wrapped.__name__ = "wrapped"
    return wrapped


@pytest.mark.parametrize("decorate", [shouting, nameless])
def test_other_decorators_may_stand_above_and_below_a_guard(app, ask, alice, decorate):
    app.get("/above", endpoint="above")(decorate(login_required(lambda: "in")))
    app.get("/below", endpoint="below")(login_required(decorate(lambda: "in")))
    for path in ("/above", "/below"):
        assert answer(ask(path)) == NOBODY
        assert ask(path, headers=alice).text.lower() == "in"


def test_what_stands_above_a_guard_sees_the_refusal(app, ask):
    seen = []

    def watching(view):
        @functools.wraps(view)
        def watched(*args, **kwargs):
            seen.append(view(*args, **kwargs).status_code)
            return "something else"

        return watched

    app.get("/")(watching(login_required(lambda: "in")))
    ask()
    assert seen == [401]


def test_an_async_decorator_may_stand_above_the_guard_of_an_async_view(app, ask, alice):
    def timed(view):
        @functools.wraps(view)
        async def awaited(*args, **kwargs):
            return await view(*args, **kwargs)

        return awaited

    @app.get("/")
    @timed
    @login_required
    async def view():
        return "in"

    assert answer(ask()) == NOBODY
    assert ask(headers=alice).text == "in"


def test_an_async_decorator_may_stand_below_the_guard(app, ask, alice):
    def timed(view):
        @functools.wraps(view)
        async def awaited(*args, **kwargs):
            return await view(*args, **kwargs)

        return awaited

    @app.get("/")
    @login_required
    @timed
    async def view():
        return "in"

    assert answer(ask()) == NOBODY
    assert ask(headers=alice).text == "in"


def test_a_guard_above_the_route_decorator_guards_nothing_and_flask_jam_routes_shows_it(app):
    login_required(app.get("/")(lambda: "in"))
    assert "unprotected" in app.test_cli_runner().invoke(args=["jam", "routes"]).output


# -- routing ------------------------------------------------------------------------------------------------


@pytest.fixture(params=["guard", "protect", "deny_by_default"])
def shut(request, app):
    """One app with ``/`` and ``/folder/``, shut in each of the three ways."""
    guard = login_required if request.param == "guard" else (lambda view: view)
    if request.param == "protect":
        protect(app)
    if request.param == "deny_by_default":
        deny_by_default(app)
    app.route("/", methods=["GET", "POST"])(guard(lambda: "in"))
    app.get("/folder/", endpoint="folder")(guard(lambda: "in"))
    app.get("/folder/<path:rest>", endpoint="path")(guard(lambda rest: "in"))
    return app


def test_asvs_8_3_1_no_spelling_of_the_path_gets_around(shut, ask):
    for path in ("/folder/", "//folder/", "/folder//", "/folder/x/..", "/folder/%2e%2e/", "/%66older/", "/folder/;x"):
        response = ask(path)
        assert response.status_code in (401, 308, 404), path
        if response.status_code == 308:
            assert ask(response.headers["Location"]).status_code == 401


def test_asvs_8_3_1_following_the_redirect_to_the_trailing_slash_ends_at_the_guard(shut, ask):
    response = ask("/folder", follow_redirects=True)
    assert answer(response) == NOBODY
    assert len(response.history) == 1


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_asvs_8_3_1_a_method_override_header_changes_nothing(shut, ask, header):
    assert answer(ask(method="POST", headers={header: "OPTIONS"})) == NOBODY


@pytest.mark.parametrize("header", ["X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Prefix", "X-Forwarded-For"])
def test_asvs_4_1_3_a_proxys_header_from_a_client_changes_nothing(shut, ask, header):
    assert answer(ask(headers={header: "/static/x"})) == NOBODY


def test_asvs_4_1_4_a_method_that_the_route_has_not_is_405(shut, ask):
    for method in ("DELETE", "PATCH", "FOO"):
        response = ask(method=method)
        assert response.status_code == 405
        assert "Allow" in response.headers


def test_a_path_that_is_not_there_is_404(shut, ask):
    assert ask("/nowhere").status_code == 404


def test_options_is_answered_by_flask_without_the_view(shut, ask):
    response = ask(method="OPTIONS")
    assert response.status_code == 200
    assert "GET" in response.headers["Allow"]
    assert response.text == ""


def test_every_guarded_method_is_guarded(shut, ask, alice):
    for method in ("GET", "HEAD", "POST"):
        assert ask(method=method).status_code == 401
        assert ask(method=method, headers=alice).status_code == 200


@pytest.fixture
def with_static(new_app, jam, tmp_path):
    (tmp_path / "style.css").write_text("b{}")
    app = new_app()
    app.static_folder = str(tmp_path)
    JWTExtension(jam, app)
    blueprint = Blueprint("part", __name__, static_folder=str(tmp_path), static_url_path="/part-static")
    app.register_blueprint(blueprint)
    return app


@pytest.mark.parametrize("path", ["/static/style.css", "/part-static/style.css"])
def test_deny_by_default_leaves_static_files_alone(with_static, path):
    deny_by_default(with_static)
    with raw_client(with_static).get(path) as response:
        assert response.text == "b{}"


@pytest.mark.parametrize("path", ["/static/style.css", "/part-static/style.css"])
def test_protect_on_an_app_covers_static_files_too(with_static, path):
    protect(with_static)
    assert raw_client(with_static).get(path).status_code == 401


def test_a_view_that_calls_itself_static_is_not_static(new_app, jam):
    app = new_app()
    app = type(app)(__name__, static_folder=None)
    app.config.update(TESTING=True)
    JWTExtension(jam, app)
    deny_by_default(app)
    app.get("/secret", endpoint="static")(lambda: "in")
    assert answer(raw_client(app).get("/secret")) == NOBODY


# -- protect ------------------------------------------------------------------------------------------------


def test_protect_guards_everything_in_a_blueprint_and_nothing_else(app, ask, alice):
    admin = Blueprint("admin", __name__, url_prefix="/admin")
    protect(admin)
    admin.get("/")(lambda: "in")
    admin.post("/post", endpoint="post")(lambda: "in")
    app.register_blueprint(admin)
    app.get("/", endpoint="index")(lambda: "open")
    assert answer(ask("/admin/")) == NOBODY
    assert answer(ask("/admin/post", method="POST")) == NOBODY
    assert ask("/admin/", headers=alice).text == "in"
    assert ask("/").text == "open"


def test_protect_reaches_nested_blueprints(app, ask, alice):
    outer, inner = Blueprint("outer", __name__, url_prefix="/outer"), Blueprint("inner", __name__)
    protect(outer)
    inner.get("/in")(lambda: "in")
    outer.register_blueprint(inner)
    app.register_blueprint(outer)
    assert answer(ask("/outer/in")) == NOBODY
    assert ask("/outer/in", headers=alice).text == "in"


def test_protect_holds_under_every_name_a_blueprint_is_registered_with(app, ask):
    part = Blueprint("part", __name__)
    protect(part)
    part.get("/in")(lambda: "in")
    app.register_blueprint(part, url_prefix="/a")
    app.register_blueprint(part, url_prefix="/b", name="again")
    assert answer(ask("/a/in")) == answer(ask("/b/in")) == NOBODY


def test_protect_comes_besides_what_a_view_demands(app, ask, alice, admin, jam):
    part = Blueprint("part", __name__)
    protect(part, HasRole("admin"))
    part.get("/")(checkpoint(HasRole("writer"))(lambda: "in"))
    app.register_blueprint(part)
    assert ask(headers=alice).status_code == 403
    assert ask(headers=admin).status_code == 403
    assert ask(headers=bearer(jam.access_tokens.issue("x", roles=["writer"]))).status_code == 403
    assert ask(headers=bearer(jam.access_tokens.issue("x", roles=["writer", "admin"]))).text == "in"


@pytest.mark.parametrize("exempt", ["sign_in", "part.sign_in"])
def test_protect_leaves_exempt_endpoints_alone(app, ask, exempt):
    part = Blueprint("part", __name__)
    protect(part, exempt=[exempt])
    part.get("/sign-in", endpoint="sign_in")(lambda: "open")
    part.get("/in", endpoint="in")(lambda: "in")
    app.register_blueprint(part)
    assert ask("/sign-in").text == "open"
    assert answer(ask("/in")) == NOBODY


def test_protect_leaves_public_views_alone(app, ask):
    protect(app)
    app.get("/")(public(lambda: "open"))
    assert ask().text == "open"


def test_protect_does_not_take_another_blueprints_endpoint_for_an_exempt_one(app, ask):
    part, other = Blueprint("part", __name__), Blueprint("other", __name__)
    protect(app, exempt=["part.sign_in"])
    part.get("/part", endpoint="sign_in")(lambda: "open")
    other.get("/other", endpoint="sign_in")(lambda: "in")
    app.register_blueprint(part)
    app.register_blueprint(other)
    assert ask("/part").text == "open"
    assert answer(ask("/other")) == NOBODY


def test_protect_with_an_action_redirects(new_app, jam):
    app = new_app()
    SessionExtension(jam, app)
    protect(app, SessionCheckpoint("user", "alice").action("/login"), exempt=["login"])
    app.get("/")(lambda: "in")
    app.get("/login", endpoint="login")(lambda: "please")
    assert raw_client(app).get("/").headers["Location"] == "/login"
    assert raw_client(app).get("/login").text == "please"


# -- deny by default ----------------------------------------------------------------------------------------


def test_asvs_8_2_1_deny_by_default_shuts_what_nobody_spoke_of(app, ask, alice):
    deny_by_default(app)
    app.get("/")(lambda: "in")
    assert answer(ask()) == NOBODY
    assert ask(headers=alice).text == "in"


def test_deny_by_default_may_demand_more(app, ask, alice, admin):
    deny_by_default(app, HasRole("admin"))
    app.get("/")(lambda: "in")
    assert answer(ask(headers=alice)) == (403, "role_required")
    assert ask(headers=admin).text == "in"


def test_deny_by_default_reaches_routes_that_come_later(app, ask):
    deny_by_default(app)
    part = Blueprint("part", __name__)
    part.get("/part")(lambda: "in")
    app.register_blueprint(part)
    assert answer(ask("/part")) == NOBODY


@pytest.mark.parametrize("order", [lambda view: public(shouting(view)), lambda view: shouting(public(view))])
def test_public_views_stay_open(app, ask, order):
    deny_by_default(app)
    app.get("/")(order(lambda: "in"))
    assert ask().text == "IN"


def test_public_works_on_class_based_views(app, ask):
    deny_by_default(app)

    @public
    class Page(MethodView):
        def get(self):
            return "open"

    app.add_url_rule("/", view_func=Page.as_view("page"))
    assert ask().text == "open"


def test_a_subclass_of_a_public_view_is_not_public(app, ask):
    deny_by_default(app)

    @public
    class Page(MethodView):
        def get(self):
            return "open"

    class Admin(Page):
        def get(self):
            return "in"

    app.add_url_rule("/", view_func=Admin.as_view("admin"))
    assert answer(ask()) == NOBODY


def test_public_may_stand_on_one_method_of_a_view_class(app, ask):
    deny_by_default(app)

    class Page(MethodView):
        @public
        def get(self):
            return "open"

        def post(self):
            return "in"

    app.add_url_rule("/", view_func=Page.as_view("page"))
    assert ask().text == "open"
    assert answer(ask(method="POST")) == NOBODY


def test_exempt_endpoints_stay_open(app, ask):
    deny_by_default(app, exempt=["index"])
    app.get("/", endpoint="index")(lambda: "open")
    app.get("/other", endpoint="other")(lambda: "in")
    assert ask().text == "open"
    assert answer(ask("/other")) == NOBODY


def test_the_unguarded_methods_of_a_view_class_stay_shut(app, ask, alice):
    deny_by_default(app)

    class Page(MethodView):
        @checkpoint(HasRole("admin"))
        def get(self):
            return "in"

        def post(self):
            return "in"

        def head(self):
            return "in"

    app.add_url_rule("/", view_func=Page.as_view("page"))
    assert answer(ask(method="POST")) == NOBODY
    assert ask(method="HEAD").status_code == 401
    assert ask(method="POST", headers=alice).text == "in"


def test_a_guard_whose_failure_shows_the_view_is_no_protection(app, ask):
    deny_by_default(app)
    redirecting = SessionCheckpoint("logged_in", True).action(pass_url="/home", disable_default_fail=True)
    app.get("/")(checkpoint(redirecting)(lambda: "in"))
    assert answer(ask()) == NOBODY


def test_a_guard_that_lets_nobody_pass_as_well_is_no_protection(app, ask):
    deny_by_default(app)
    app.get("/")(checkpoint(~HasRole("guest"))(lambda: "in"))
    assert answer(ask()) == NOBODY


def test_a_list_that_plain_flask_does_not_read_is_no_protection(app, ask):
    """``method_decorators`` means something to flask-restful, and nothing to Flask's own MethodView."""
    deny_by_default(app)

    class Page(MethodView):
        method_decorators = [checkpoint(Authenticated())]

        def get(self):
            return "in"

    app.add_url_rule("/", view_func=Page.as_view("page"))
    assert answer(ask()) == NOBODY


def test_a_guard_on_something_that_never_runs_is_no_protection(app, ask):
    deny_by_default(app)

    class Page(View):
        methods = ["GET"]

        @login_required
        def get(self):
            return "never called: View has one dispatch_request"

        def dispatch_request(self):
            return "in"

    app.add_url_rule("/", view_func=Page.as_view("page"))
    assert answer(ask()) == NOBODY


def test_a_guard_hidden_by_a_nameless_decorator_leaves_the_route_shut_all_the_same(app, ask, alice):
    deny_by_default(app)
    app.get("/")(nameless(login_required(lambda: "in")))
    assert answer(ask()) == NOBODY
    assert ask(headers=alice).text == "in"


def test_deny_by_default_and_protect_may_both_stand(app, ask, alice, admin):
    deny_by_default(app)
    part = Blueprint("part", __name__)
    protect(part, HasRole("admin"))
    part.get("/part")(lambda: "in")
    app.register_blueprint(part)
    assert answer(ask("/part")) == NOBODY
    assert ask("/part", headers=alice).status_code == 403
    assert ask("/part", headers=admin).text == "in"


# -- 401 and 403 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("demand", "nobody", "somebody"),
    [
        (Authenticated(), 401, 200),
        (HasRole("admin"), 401, 403),
        (~Authenticated(), 200, 403),
        (Fresh(60), 401, 401),
        (Authenticated() & HasRole("admin"), 401, 403),
        (HasRole("admin") | Authenticated(), 401, 200),
    ],
)
def test_401_is_for_nobody_and_403_for_somebody(app, ask, alice, demand, nobody, somebody):
    app.get("/")(checkpoint(demand)(lambda: "in"))
    assert ask().status_code == nobody
    assert ask(headers=alice).status_code == somebody


def test_a_bad_credential_on_an_open_route_is_nobody(app, ask):
    app.get("/")(lambda: {"who": current_identity.subject})
    assert ask(headers=bearer("junk")).json == {"who": None}


def test_asvs_7_5_1_a_stale_sign_in_does_not_pass_a_fresh_guard(app, ask, jam, clock):
    app.get("/")(checkpoint(Fresh(600))(lambda: "in"))
    headers = bearer(jam.access_tokens.issue("alice", authenticated_at=clock.now))
    clock.move(600)
    assert ask(headers=headers).text == "in"
    clock.move(2)
    assert answer(ask(headers=headers)) == (401, "insufficient_user_authentication")


# -- handlers -----------------------------------------------------------------------------------------------

HANDLED = [
    (401, "authentication_required"),
    (Unauthorized, "authentication_required"),
    (HTTPException, "authentication_required"),
    (Exception, "authentication_required"),
    (JamError, "authentication_required"),
    (AuthenticationRequired, "authentication_required"),
]


def code_of(error):
    return error.code if isinstance(error, JamError) else error.error.code


@pytest.mark.parametrize(("key", "code"), HANDLED)
@pytest.mark.parametrize("place", ["app", "blueprint"])
@pytest.mark.parametrize("when", ["before Jam", "after Jam"])
def test_the_apps_own_error_handler_sees_the_refusal(new_app, jam, key, code, place, when):
    app = new_app()
    part = Blueprint("part", __name__)
    scope = part if place == "blueprint" else app
    if when == "after Jam":
        JWTExtension(jam, app)
    scope.register_error_handler(key, lambda error: ({"handled": code_of(error)}, 418))
    part.get("/")(login_required(lambda: "in"))
    app.register_blueprint(part)
    if when == "before Jam":
        JWTExtension(jam, app)
    response = raw_client(app).get("/")
    assert (response.status_code, response.json) == (418, {"handled": code})


@pytest.mark.parametrize("place", ["app", "blueprint"])
def test_a_handler_for_everything_sees_an_http_exception_as_it_would_from_abort(app, ask, place):
    """``if isinstance(error, HTTPException): return error`` stands in many of them."""
    part = Blueprint("part", __name__)

    def catch_all(error):
        return error if isinstance(error, HTTPException) else ("we broke", 500)

    (part if place == "blueprint" else app).register_error_handler(Exception, catch_all)
    part.get("/")(login_required(lambda: "in"))
    app.register_blueprint(part)
    assert answer(ask()) == NOBODY


@pytest.mark.parametrize("key", [403, AccessDenied, RoleRequired])
def test_a_handler_may_be_for_one_refusal_only(app, ask, alice, key):
    app.register_error_handler(key, lambda error: ({"handled": code_of(error)}, 418))
    app.get("/")(checkpoint(HasRole("admin"))(lambda: "in"))
    assert ask(headers=alice).json == {"handled": "role_required"}
    assert answer(ask()) == NOBODY


@pytest.mark.parametrize("key", [TokenExpired, TokenInvalid, JamError, 401])
def test_a_handler_for_expired_tokens_sees_them(app, ask, jam, clock, key):
    app.register_error_handler(key, lambda error: ({"handled": code_of(error)}, 401))
    app.get("/")(login_required(lambda: "in"))
    headers = bearer(jam.access_tokens.issue("alice", lifetime=1))
    clock.move(5)
    assert ask(headers=headers).json == {"handled": "token_expired"}


def test_of_several_handlers_the_nearest_counts(app, ask):
    part = Blueprint("part", __name__)
    app.register_error_handler(401, lambda error: ("app", 401))
    part.register_error_handler(401, lambda error: ("blueprint", 401))
    part.get("/part")(login_required(lambda: "in"))
    app.register_blueprint(part)
    app.get("/")(login_required(lambda: "in"))
    assert (ask("/part").text, ask("/").text) == ("blueprint", "app")


def test_a_handler_may_answer_with_what_jam_would_have_said(app, ask):
    app.register_error_handler(401, lambda error: error)
    app.get("/")(login_required(lambda: "in"))
    assert answer(ask()) == NOBODY
    assert challenges(ask())


def test_handlers_see_refusals_of_protect_and_deny_by_default(app, ask):
    deny_by_default(app)
    app.register_error_handler(401, lambda error: ("mine", 401))
    app.get("/")(lambda: "in")
    assert ask().text == "mine"


def test_a_handler_for_other_errors_changes_nothing(app, ask):
    app.register_error_handler(404, lambda error: ("mine", 404))
    app.get("/")(login_required(lambda: "in"))
    assert answer(ask()) == NOBODY
    assert ask("/nowhere").text == "mine"


def test_rfc9110_11_6_1_a_handlers_own_401_still_carries_the_challenge(app, ask):
    app.register_error_handler(401, lambda error: ({"msg": "no"}, 401))
    app.get("/")(login_required(lambda: "in"))
    response = ask()
    assert response.json == {"msg": "no"}
    assert challenges(response) == ['Bearer realm="jam"']


def test_rfc6750_3_1_a_handlers_own_401_still_says_why_the_token_did_not_count(app, ask):
    app.register_error_handler(401, lambda error: ({"msg": "no"}, 401))
    app.get("/")(login_required(lambda: "in"))
    (challenge,) = challenges(ask(headers=bearer("junk")))
    assert 'error="invalid_token"' in challenge


def test_rfc9470_a_handlers_own_401_still_says_how_fresh_the_sign_in_must_be(app, ask, alice):
    app.register_error_handler(401, lambda error: ({"msg": "no"}, 401))
    app.get("/")(checkpoint(Fresh(60))(lambda: "in"))
    (challenge,) = challenges(ask(headers=alice))
    assert 'error="insufficient_user_authentication"' in challenge


def test_a_challenge_of_the_handlers_own_is_kept(app, ask):
    app.register_error_handler(401, lambda error: ("no", 401, {"WWW-Authenticate": "Mine"}))
    app.get("/")(login_required(lambda: "in"))
    assert challenges(ask()) == ["Mine"]


def test_a_jam_error_that_a_view_raises_is_answered_with_its_status(app, ask, jam):
    app.get("/")(lambda: jam.verify_jwt_token("junk"))
    response = ask()
    assert answer(response) == (401, "token_invalid")


def test_rfc9110_11_6_1_a_jam_error_that_an_unguarded_view_raises_carries_a_challenge(app, ask, jam):
    app.get("/")(lambda: jam.verify_jwt_token("junk"))
    assert challenges(ask())


def test_rfc9110_11_6_1_a_views_own_401_carries_a_challenge_if_it_asked_who_is_calling(app, ask):
    @app.get("/")
    def view():
        if current_identity.subject is None:
            abort(401)
        return "in"

    assert challenges(ask()) == ['Bearer realm="jam"']


def test_somebody_elses_errors_are_none_of_jams_business(app, ask, alice):
    app.get("/")(login_required(lambda: abort(409)))
    response = ask(headers=alice)
    assert response.status_code == 409
    assert response.mimetype == "text/html"


def test_an_exception_of_the_view_comes_through_a_guard_as_it_is(app, ask, alice):
    app.get("/")(login_required(lambda: 1 / 0))
    with pytest.raises(ZeroDivisionError):
        ask(headers=alice)


# -- the store is unavailable -------------------------------------------------------------------------------


@pytest.fixture
def cut_off(new_app, secret):
    app = new_app(JAM_STORE=UNREACHABLE)
    JWTExtension(Jam(), app)
    return app, bearer(Jam({"secret": secret}).access_tokens.issue("alice"))


@pytest.mark.parametrize("shape", SHAPES)
def test_asvs_16_5_3_a_store_that_cannot_be_reached_is_503_and_never_a_pass(cut_off, shape):
    app, headers = cut_off
    shape(app, login_required)
    response = raw_client(app).get("/", headers=headers)
    assert answer(response) == (503, "store_unavailable")
    assert int(response.headers["Retry-After"]) > 0
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("shut", [protect, deny_by_default])
def test_asvs_16_5_3_protect_and_deny_by_default_answer_503_too(cut_off, shut):
    app, headers = cut_off
    shut(app)
    app.get("/")(lambda: "in")
    assert answer(raw_client(app).get("/", headers=headers)) == (503, "store_unavailable")


@pytest.mark.parametrize("demand", [~Authenticated(), ~HasRole("banned"), Authenticated() | ~Authenticated()])
def test_asvs_16_5_3_a_checkpoint_that_lets_nobody_pass_does_not_let_the_unknown_pass(cut_off, demand):
    app, headers = cut_off
    app.get("/")(checkpoint(demand)(lambda: "in"))
    assert answer(raw_client(app).get("/", headers=headers)) == (503, "store_unavailable")


@pytest.mark.parametrize("key", [503, ServiceUnavailable, StoreUnavailable, JamError])
def test_a_handler_sees_that_the_store_is_unavailable(cut_off, key):
    app, headers = cut_off
    app.register_error_handler(key, lambda error: (f"handled {g.payload} {current_identity.subject}", 503))
    app.get("/")(login_required(lambda: "in"))
    response = raw_client(app).get("/", headers=headers)
    assert (response.status_code, response.text) == (503, "handled None None")


def test_an_error_page_that_greets_the_caller_renders(cut_off):
    app, headers = cut_off
    layout = "{% if g.payload %}Hello{% else %}Sign in{% endif %}: {{ message }}"
    app.register_error_handler(503, lambda error: (render_template_string(layout, message="later"), 503))
    app.get("/")(login_required(lambda: "in"))
    assert raw_client(app).get("/", headers={**headers, **PAGE}).text == "Sign in: later"


def test_asvs_16_5_2_a_public_view_works_without_the_store(cut_off):
    app, headers = cut_off
    deny_by_default(app)
    app.get("/")(public(lambda: "open"))
    assert raw_client(app).get("/", headers=headers).text == "open"


# -- what is recorded ---------------------------------------------------------------------------------------


def test_asvs_16_3_2_a_refusal_is_logged_with_its_reason(app, ask, alice, caplog):
    caplog.set_level(logging.INFO, "jam.flask")
    app.get("/reports")(checkpoint(HasRole("admin"))(lambda: "in"))
    ask("/reports", headers=alice)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "jam.flask"]
    for part in ("GET", "/reports", "alice", "role_required", "HasRole('admin')"):
        assert part in line


def test_flasks_own_recipe_for_json_errors_works_with_jams(app, ask):
    """As the chapter "Handling Application Errors" of Flask's documentation has it."""

    @app.errorhandler(HTTPException)
    def as_json(error):
        response = error.get_response()
        response.data = json.dumps({"code": error.code, "name": error.name, "description": error.description})
        response.content_type = "application/json"
        return response

    app.get("/")(login_required(lambda: "in"))
    response = ask(headers=PAGE)
    assert response.json == {"code": 401, "name": "Unauthorized", "description": "Authentication is required."}
    assert int(response.headers["Content-Length"]) == len(response.data)
    assert challenges(response) == ['Bearer realm="jam"']


def test_a_dispatch_of_the_apps_own_does_not_make_flask_read_method_decorators(app, ask):
    deny_by_default(app)

    class Timed(MethodView):
        def dispatch_request(self, **values):
            return super().dispatch_request(**values)

    class Page(Timed):
        method_decorators = [checkpoint(Authenticated())]

        def get(self):
            return "in"

    app.add_url_rule("/", view_func=Page.as_view("page"))
    assert answer(ask()) == NOBODY


def test_a_public_method_does_not_open_the_others_to_head_or_options(app, ask):
    deny_by_default(app)

    class Page(MethodView):
        @public
        def post(self):
            return "open"

        def get(self):
            return "in"

        def head(self):
            return "in"

    app.add_url_rule("/", view_func=Page.as_view("page"))
    assert ask(method="POST").text == "open"
    assert ask().status_code == ask(method="HEAD").status_code == 401


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer junk"}])
def test_an_async_fail_response_works_where_an_async_decorator_stands_above(app, ask, headers):
    async def sorry():
        return "sorry", 418

    def timed(view):
        @functools.wraps(view)
        async def awaited(*args, **kwargs):
            return await view(*args, **kwargs)

        return awaited

    @app.get("/")
    @timed
    @checkpoint(Authenticated().action(fail_response=sorry))
    async def view():
        return "in"

    response = ask(headers=headers)
    assert (response.status_code, response.text) == (418, "sorry")
