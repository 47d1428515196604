# ruff: noqa: N806, PIE804, RUF012 - as the seeds write it
"""The programs the project began with, written out so that they run. ``docs/seeds.md`` says which is shown where."""

import io
import logging
from datetime import timedelta

import flask_restful
import pytest
from flask import (
    Blueprint,
    Flask,
    abort,
    current_app,
    flash,
    g,
    get_flashed_messages,
    jsonify,
    make_response,
    redirect,
    render_template,
    render_template_string,
    request,
    session,
    url_for,
)
from flask_sqlalchemy import SQLAlchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jinja2 import DictLoader
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import HTTP_STATUS_CODES, parse_accept_header
from werkzeug.utils import secure_filename

from jam import Jam
from jam.errors import ConfigError
from jam.ext.flask import (
    Authenticated,
    JamExtension,
    JWTExtension,
    SessionCheckpoint,
    SessionExtension,
    UserMixin,
    checkpoint,
    create_access_token,
    create_refresh_token,
    get_jwt_identity,
    jwt_required,
    lazy_url_for,
    login_required,
    login_user,
    logout_user,
)


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def in_testing(app):
    """Seeds use secrets that everybody knows; Jam takes these in debug and testing only."""
    app.testing = True
    return app


# == seed 000: the three extensions =========================================================================


def test_000_jam_is_reached_through_current_app():
    app, jam = in_testing(Flask(__name__)), Jam()
    JamExtension(jam).init_app(app)

    @app.route("/login/<some_param>")
    def login(some_param):
        jam = current_app.extensions["jam"]
        payload = jam.make_payload(user=some_param)
        token = jam.gen_jwt_token(payload)
        return jsonify(token=token)

    token = app.test_client().get("/login/alice").json["token"]
    assert jam.verify_jwt_token(token)["user"] == "alice"


def test_000_jam_extension_in_an_app_factory():
    jam = Jam()

    def create_app() -> Flask:
        app = Flask(__name__)
        jam_ext = JamExtension(jam)
        jam_ext.init_app(app)
        return app

    assert create_app().extensions["jam"] is jam
    assert create_app().extensions["jam"] is jam


def test_000_jam_extension_is_used_together_with_another(clock):
    app, jam = in_testing(Flask(__name__)), Jam()
    JamExtension(jam, app)
    JWTExtension(jam, app)

    @app.route("/login")
    def login():
        return current_app.extensions["jam"].gen_jwt_token({"user": 1})

    @app.route("/me")
    def me():
        return jsonify(g.payload["user"])

    client = app.test_client()
    assert client.get("/me", headers=bearer(client.get("/login").text)).json == 1


def test_000_setting_up_jwt_extension():
    app = Flask(__name__)
    jam = Jam()

    jwt_ext = JWTExtension(jam, header_name="Authorization", cookie_name=None)
    jwt_ext.init_app(app)
    assert app.extensions["jam"] is jam


@pytest.fixture
def jwt_program():
    app = in_testing(Flask(__name__))
    jam = Jam()

    jwt_ext = JWTExtension(jam, header_name="Authorization", cookie_name=None)
    jwt_ext.init_app(app)

    @app.route("/login/<username>/<password>")
    def login(username, password):
        # some logic
        payload = jam.make_payload(**{"user": 1})
        token = jam.gen_jwt_token(payload)
        return app.response_class(token)

    @app.route("/get_user")
    def get_user():
        payload = g.payload
        if not payload:
            abort(403)
        return jsonify(payload)

    return app


def test_000_jwt_extension_writes_the_payload_to_the_context(jwt_program):
    client = jwt_program.test_client()
    token = client.get("/login/alice/pw").text
    payload = client.get("/get_user", headers=bearer(token)).json
    assert payload["user"] == 1
    assert {"iat", "exp", "jti"} <= set(payload)


@pytest.mark.parametrize("headers", [{}, bearer("junk"), {"Authorization": "junk"}])
def test_000_jwt_extension_writes_nothing_for_a_missing_or_bad_token(jwt_program, headers):
    assert jwt_program.test_client().get("/get_user", headers=headers).status_code == 403


def test_000_jwt_extension_may_read_a_cookie_instead(jwt_program):
    app, jam = in_testing(Flask(__name__)), Jam()
    JWTExtension(jam, app, header_name=None, cookie_name="token")
    app.get("/get_user")(lambda: jsonify(g.payload))
    client = app.test_client()
    token = jam.gen_jwt_token({"user": 1})
    assert client.get("/get_user", headers=bearer(token)).json is None
    client.set_cookie("token", token)
    assert client.get("/get_user").json["user"] == 1


@pytest.mark.parametrize("extension", [JWTExtension, SessionExtension])
def test_000_an_extension_needs_a_header_or_a_cookie(extension):
    with pytest.raises(ConfigError):
        extension(Jam(), header_name=None, cookie_name=None)


def test_000_setting_up_session_extension():
    app = Flask(__name__)
    jam = Jam()

    session_ext = SessionExtension(jam, header_name=None, cookie_name="sessionId")
    session_ext.init_app(app)
    assert app.extensions["jam"] is jam


@pytest.fixture
def session_program():
    app = in_testing(Flask(__name__))
    jam = Jam()

    session_ext = SessionExtension(jam, header_name=None, cookie_name="sessionId")
    session_ext.init_app(app)

    @app.route("/login/<username>/<password>")
    def login(username, password):
        # some logic
        session_id = jam.create_session("usern", {"user": 1})
        response = app.response_class(session_id)
        response.set_cookie("sessionId", session_id)
        return response

    @app.route("/get_user")
    def get_user():
        payload = g.payload
        if not payload:
            abort(403)
        return jsonify(payload)

    return app


def test_000_session_extension_writes_the_payload_to_the_context(session_program):
    client = session_program.test_client()
    client.get("/login/alice/pw")
    assert client.get("/get_user").json == {"user": 1}


def test_000_session_extension_writes_nothing_for_a_missing_or_bad_id(session_program):
    client = session_program.test_client()
    assert client.get("/get_user").status_code == 403
    client.set_cookie("sessionId", "junk")
    assert client.get("/get_user").status_code == 403


def test_000_session_extension_may_read_a_header_instead():
    app, jam = in_testing(Flask(__name__)), Jam()
    SessionExtension(jam, app, header_name="Authorization", cookie_name=None)
    app.get("/get_user")(lambda: jsonify(g.payload))
    session_id = jam.create_session("usern", {"user": 1})
    assert app.test_client().get("/get_user", headers=bearer(session_id)).json == {"user": 1}


# == seed 001: a tour of Flask, beside Jam ==================================================================


@pytest.fixture
def app():
    """The tour's app: with its secret, and with Jam set up beside whatever the program does."""
    app = in_testing(Flask(__name__))
    app.secret_key = "abcd12345678"
    JWTExtension(Jam(), app)
    return app


def test_001_what_needs_no_protection_runs_as_ever(app, tmp_path):
    app.config["UPLOAD_FOLDER"] = str(tmp_path)
    app.route("/flask")(lambda: "Hello Flask")
    app.route("/strs/<name>", endpoint="strs")(lambda name: f"Hello {name}")
    app.route("/ints/<int:version>", endpoint="ints")(lambda version: f"整数为 {version}")
    app.route("/floats/<float:version>", endpoint="floats")(lambda version: str(version))
    app.route("/admin", endpoint="get_admin")(lambda: "Hello Admin")
    app.route("/guest/<guest>", endpoint="get_guest")(lambda guest: f"Hello {guest} as Guest")

    @app.route("/user/<name>")
    def hello_user(name):
        if name == "admin":
            return redirect(url_for("get_admin"))
        return redirect(url_for("get_guest", guest=name))

    @app.route("/method", methods=["GET", "POST", "DELETE", "PUT"])
    def method():
        return f"{request.method}请求"

    @app.route("/result", methods=["POST"])
    def result():
        return render_template_string("{% for k, v in r.items() %}{{ k }}={{ v }};{% endfor %}", r=request.form)

    @app.route("/uploader", methods=["POST"])
    def upload_file():
        f = request.files["file"]
        f.save(tmp_path / secure_filename(f.filename))
        return "文件上传成功"

    client = app.test_client()
    assert client.get("/flask").text == "Hello Flask"
    assert client.get("/strs/a").text == "Hello a"
    assert client.get("/ints/7").text == "整数为 7"
    assert client.get("/ints/x").status_code == 404
    assert client.get("/floats/1.5").text == "1.5"
    assert client.get("/user/admin", follow_redirects=True).text == "Hello Admin"
    assert client.get("/user/bob", follow_redirects=True).text == "Hello bob as Guest"
    assert [client.open("/method", method=m).text for m in ("GET", "POST", "DELETE", "PUT")] == [
        "GET请求",
        "POST请求",
        "DELETE请求",
        "PUT请求",
    ]
    assert client.post("/result", data={"姓名": "a", "物理": "1"}).text == "姓名=a;物理=1;"
    assert client.post("/uploader", data={"file": (io.BytesIO(b"x"), "../x.txt")}).text == "文件上传成功"
    assert (tmp_path / "x.txt").read_bytes() == b"x"


def test_001_cookies(app):
    @app.route("/set_cookie")
    def set_cookie():
        res = make_response("set success")
        res.set_cookie("username", "zhouzhiwengang", max_age=3600)
        return res

    @app.route("/get_cookie")
    def get_cookie():
        return request.cookies.get("username") or "none"

    @app.route("/del_cookie")
    def del_cookie():
        res = make_response("del success")
        res.delete_cookie("username")
        return res

    client = app.test_client()
    assert client.get("/get_cookie").text == "none"
    client.get("/set_cookie")
    assert client.get_cookie("username").max_age == 3600
    assert client.get("/get_cookie").text == "zhouzhiwengang"
    client.get("/del_cookie")
    assert client.get("/get_cookie").text == "none"


@pytest.fixture
def session_tour(app):
    """Sections 8 and 9: a login kept in Flask's session; and one page more, which Jam guards."""

    @app.route("/")
    def index():
        if "username" in session:
            return "登录用户名是:" + session["username"]
        return "您暂未登录"

    @app.route("/login", methods=["GET", "POST"])
    def login():
        if request.method == "POST":
            user = request.form["username"]
            password = request.form["password"]
            if user == "admin" and password == "123456":
                session["username"] = request.form["username"]
                return redirect(url_for("index"))
            abort(401)
        return "用户名: 密码:"

    @app.route("/logout")
    def logout():
        session.pop("username", None)
        return redirect(url_for("index"))

    @app.route("/account")
    @checkpoint(SessionCheckpoint("username", "admin").action(lazy_url_for("login"), message="请登录"))
    def account():
        return "Hello Admin"

    @app.route("/api/account")
    @checkpoint(SessionCheckpoint("username", "admin"))
    def api_account():
        return {"hello": "admin"}

    return app


GOOD, BAD = {"username": "admin", "password": "123456"}, {"username": "admin", "password": "wrong"}


def test_001_a_login_kept_in_flasks_session(session_tour):
    client = session_tour.test_client()
    assert client.get("/").text == "您暂未登录"
    assert client.post("/login", data=GOOD, follow_redirects=True).text == "登录用户名是:admin"
    assert client.get("/logout", follow_redirects=True).text == "您暂未登录"


def test_001_a_wrong_password_is_401(session_tour):
    assert session_tour.test_client().post("/login", data=BAD).status_code == 401


def test_001_a_session_checkpoint_guards_what_that_login_opens(session_tour):
    client = session_tour.test_client()
    assert client.get("/account").headers["Location"] == "/login"
    assert client.get("/api/account").status_code == 401
    client.post("/login", data=GOOD)
    assert client.get("/account").text == "Hello Admin"
    assert client.get("/api/account").json == {"hello": "admin"}
    client.get("/logout")
    assert client.get("/account").status_code == 302


@pytest.mark.parametrize("code", [400, 401, 403, 404, 406, 415, 429])
def test_001_error_codes_of_abort_stay_flasks_own(app, code):
    app.get("/")(lambda: abort(code))
    response = app.test_client().get("/")
    assert (response.status_code, response.mimetype) == (code, "text/html")


def test_001_the_apps_error_page_is_used_for_jams_refusals_too(app):
    app.register_error_handler(401, lambda error: ("请先登录", 401))
    app.get("/abort", endpoint="a")(lambda: abort(401))
    app.get("/guarded", endpoint="b")(login_required(lambda: "in"))
    client = app.test_client()
    assert client.get("/abort").text == client.get("/guarded").text == "请先登录"


def test_001_flashed_messages(app):
    app.secret_key = "abcde"

    @app.route("/")
    def index():
        return render_template_string(
            "{% with messages = get_flashed_messages() %}{% for m in messages %}{{ m }};{% endfor %}{% endwith %}Welcome!"
        )

    @app.route("/login", methods=["GET", "POST"])
    def login():
        error = None
        if request.method == "POST":
            if request.form["user"] == "admin" and request.form["password"] == "123456":
                flash("登入成功")
                return redirect(url_for("index"))
            error = "非法用户名或密码,请重新登入"
        return render_template_string("{% if error %}错误信息: {{ error }}{% endif %}", error=error)

    client = app.test_client()
    good = client.post("/login", data={"user": "admin", "password": "123456"}, follow_redirects=True)
    assert good.text == "登入成功;Welcome!"
    assert client.get("/").text == "Welcome!"
    assert (
        client.post("/login", data={"user": "admin", "password": "x"}).text == "错误信息: 非法用户名或密码,请重新登入"
    )


def test_001_the_seeds_secret_warns_in_testing_and_is_refused_in_earnest(app, caplog):
    app.get("/")(login_required(lambda: "in"))
    app.test_client().get("/")
    assert [record for record in caplog.records if record.levelno == logging.WARNING]
    real = Flask(__name__)
    real.secret_key = "abcd12345678"
    JWTExtension(Jam(), real)
    real.get("/")(login_required(lambda: "in"))
    assert real.test_client().get("/").status_code == 500


@pytest.fixture
def restful(app):
    """The flask_restful section: houses to read for everyone, to write for those who are signed in."""
    api = flask_restful.Api(app)
    houses = {"1": {"id": "1", "projectName": "a"}}

    class UserAPI(flask_restful.Resource):
        method_decorators = {"post": [checkpoint(Authenticated())], "delete": [checkpoint(Authenticated())]}

        def get(self, user_id):
            house = houses.get(user_id)
            if house:
                return house
            return {"message": "House not found"}, 404

        def post(self):
            data = request.get_json()
            houses[data["id"]] = data
            return {"message": "创建成功"}, 201

        def delete(self, user_id):
            if houses.pop(user_id, None):
                return {"message": "删除成功"}
            return {"message": "记录未找到"}, 404

    api.add_resource(UserAPI, "/user", "/user/<user_id>")
    return app


def test_001_flask_restful_guarded_by_method(restful):
    client = restful.test_client()
    new = {"id": "2", "projectName": "b"}
    assert client.get("/user/1").json["projectName"] == "a"
    assert client.get("/user/9").status_code == 404
    refused = client.post("/user", json=new)
    assert (refused.status_code, refused.json["error"]) == (401, "Unauthorized")
    assert client.delete("/user/1").status_code == 401
    headers = bearer(restful.extensions["jam"].access_tokens.issue("alice"))
    assert client.post("/user", json=new, headers=headers).status_code == 201
    assert client.get("/user/2").json == new
    assert client.delete("/user/2", headers=headers).json == {"message": "删除成功"}
    assert client.delete("/user/2", headers=headers).status_code == 404


# == seed 002: SessionCheckpoint ============================================================================


@pytest.fixture
def imp():
    """An app with a blueprint, whose pages say what was flashed."""
    app = in_testing(Flask(__name__))
    app.secret_key = "abcde"
    JamExtension(Jam(), app)
    bp = Blueprint("blueprint", __name__)

    def says(name):
        return lambda: {"page": name, "flashed": get_flashed_messages(with_categories=True)}

    bp.get("/index", endpoint="index")(says("index"))
    app.get("/login-page", endpoint="login_page")(says("login"))
    return app, bp, says


def client_of(imp, **values):
    app, bp, _ = imp
    app.register_blueprint(bp)
    client = app.test_client()
    with client.session_transaction() as stored:
        stored.update(values)
    return client


def test_002_a_page_that_needs_a_login(imp):
    _, bp, _ = imp
    LOG_IN_REQ = SessionCheckpoint("logged_in", True).action(
        lazy_url_for("login_page"), message="Login required for this page!"
    )

    @bp.route("/admin", methods=["GET"])
    @checkpoint(LOG_IN_REQ)
    def admin_page():
        return "admin"

    client = client_of(imp)
    assert client.get("/admin", follow_redirects=True).json == {
        "page": "login",
        "flashed": [["message", "Login required for this page!"]],
    }
    with client.session_transaction() as stored:
        stored["logged_in"] = True
    assert client.get("/admin").text == "admin"


def test_002_a_page_that_needs_a_login_and_a_permission(imp):
    _, bp, says = imp
    LOG_IN_REQ = SessionCheckpoint(
        session_key="logged_in",
        values_allowed=True,
    ).action(
        fail_url=lazy_url_for("blueprint.login_page"),
        message="Login needed",
    )
    ADMIN_PERM = SessionCheckpoint(
        session_key="user_type",
        values_allowed="admin",
    ).action(
        fail_url=lazy_url_for("blueprint.index"),
        message="You need to be an admin to access this page",
    )
    bp.get("/bp-login", endpoint="login_page")(says("login"))

    @bp.route("/admin", methods=["GET"])
    @checkpoint(LOG_IN_REQ)
    @checkpoint(ADMIN_PERM)
    def admin_page():
        return "admin"

    client = client_of(imp)
    for values, page, message in (
        ({}, "login", "Login needed"),
        ({"logged_in": True}, "index", "You need to be an admin to access this page"),
        ({"user_type": "guest"}, "index", "You need to be an admin to access this page"),
    ):
        with client.session_transaction() as stored:
            stored.update(values)
        assert client.get("/admin", follow_redirects=True).json == {"page": page, "flashed": [["message", message]]}
    with client.session_transaction() as stored:
        stored["user_type"] = "admin"
    assert client.get("/admin").text == "admin"


def test_002_a_login_page_that_sends_on_who_is_signed_in_already(imp):
    _, bp, says = imp
    IS_LOGGED_IN = SessionCheckpoint(
        session_key="logged_in",
        values_allowed=True,
    ).action(
        pass_endpoint="blueprint.admin_page",
        message="Already logged in",
        disable_default_fail=True,
    )
    bp.get("/admin", endpoint="admin_page")(says("admin"))

    @bp.route("/bp-login-page", methods=["GET"])
    @checkpoint(IS_LOGGED_IN)
    def login_page():
        return "please sign in"

    client = client_of(imp)
    assert client.get("/bp-login-page").text == "please sign in"
    with client.session_transaction() as stored:
        stored["logged_in"] = True
    assert client.get("/bp-login-page", follow_redirects=True).json == {
        "page": "admin",
        "flashed": [["message", "Already logged in"]],
    }


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ({"fail_url": "/index"}, 302),
        ({"fail_url": lazy_url_for("blueprint.index")}, 302),
        ({"fail_json": {"error": "no"}}, 403),
        ({"fail_json": {"error": "no"}, "fail_status": 401}, 401),
        ({"fail_json": {"error": "no"}, "pass_url": "/index"}, 403),
        ({"fail_response": lambda: make_response("made", 418)}, 418),
        ({"fail_status": 404}, 404),
        ({"message": "m", "message_category": "c"}, 403),
        ({}, 403),
        ({"pass_url": "/index", "disable_default_fail": True}, 200),
    ],
)
def test_002_every_argument_of_action(imp, arguments, status):
    _, bp, _ = imp
    bp.get("/page")(checkpoint(SessionCheckpoint("k", ["a", 1, True]).action(**arguments))(lambda: "in"))
    client = client_of(imp)
    assert client.get("/page").status_code == status
    with client.session_transaction() as stored:
        stored["k"] = 1
    redirects = "pass_url" in arguments and "fail_json" not in arguments
    assert client.get("/page").status_code == (302 if redirects else 200)


# == seed 003: tokens with an end ===========================================================================


def test_003_a_token_from_auth_api_opens_the_api_until_it_expires(clock, secret):
    app, jam = in_testing(Flask(__name__)), Jam({"secret": secret}, clock=clock)
    JWTExtension(jam, app)

    @app.post("/auth/api")
    def auth_api():
        given = request.get_json()
        if (given["username"], given["password"]) != ("alice", "correct horse"):
            abort(401)
        return jsonify(access_token=jam.access_tokens.issue(given["username"]))

    @app.get("/api/posts")
    @login_required
    def posts():
        return jsonify(author=g.payload["sub"])

    client = app.test_client()
    assert client.post("/auth/api", json={"username": "alice", "password": "x"}).status_code == 401
    token = client.post("/auth/api", json={"username": "alice", "password": "correct horse"}).json["access_token"]
    assert client.get("/api/posts", headers=bearer(token)).json == {"author": "alice"}
    clock.move(900)
    response = client.get("/api/posts", headers=bearer(token))
    assert (response.status_code, response.json["code"]) == (401, "token_expired")


# == seed 004: an API's errors ==============================================================================


def error_response(status_code, message=None):
    payload = {"error": HTTP_STATUS_CODES.get(status_code, "Unknown error")}
    if message:
        payload["message"] = message
    response = jsonify(payload)
    response.status_code = status_code
    return response


def wants_json(accepted):
    return accepted["application/json"] >= accepted["text/html"]


@pytest.fixture
def microblog():
    app = in_testing(Flask(__name__))
    JWTExtension(Jam(), app)
    bp = Blueprint("errors", __name__)

    @bp.app_errorhandler(404)
    def not_found_error(error):
        if wants_json(request.accept_mimetypes):
            return error_response(404)
        return render_template_string("<h1>404</h1>"), 404

    app.register_blueprint(bp)
    app.get("/guarded")(login_required(lambda: "in"))
    return app


ACCEPTS = [
    "application/json",
    "text/html",
    "*/*",
    "text/html,application/json",
    "text/html,application/json;q=0.9",
    "text/html;q=0.5,application/json",
    "text/html,application/xhtml+xml,*/*;q=0.8",
    "image/png",
    "text/html;q=0",
]


@pytest.mark.parametrize("accept", ACCEPTS)
def test_004_jam_chooses_between_json_and_a_page_as_the_apps_own_handler_does(microblog, accept):
    client = microblog.test_client()
    own, jams = (client.get(path, headers={"Accept": accept}) for path in ("/nowhere", "/guarded"))
    assert (own.status_code, jams.status_code) == (404, 401)
    assert own.mimetype == jams.mimetype


QUALITY = st.sampled_from(["", ";q=1", ";q=0.9", ";q=0.5", ";q=0.1", ";q=0"])
RANGES = st.sampled_from(["application/json", "text/html", "text/*", "application/*", "*/*", "image/png"])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ranges=st.lists(st.tuples(RANGES, QUALITY), min_size=1, max_size=4))
def test_004_whatever_the_client_accepts_the_choice_is_that_of_the_seed(microblog, ranges):
    accept = ", ".join(f"{name}{quality}" for name, quality in ranges)
    response = microblog.test_client().get("/guarded", headers={"Accept": accept})
    # problem+json is for who names it; a wildcard does not
    expected = "application/json" if wants_json(parse_accept_header(accept, MIMEAccept)) else "text/html"
    assert response.mimetype == expected


def test_004_jams_errors_have_the_shape_of_the_apis_own(microblog):
    client = microblog.test_client()
    own, jams = client.get("/nowhere").json, client.get("/guarded").json
    assert own == {"error": "Not Found"}
    assert jams["error"] == "Unauthorized"
    assert set(jams) == {"error", "message", "code"}


def test_004_every_refusal_can_be_given_the_apis_own_shape():
    app = in_testing(Flask(__name__))
    JWTExtension(Jam(), app)
    app.register_error_handler(401, lambda error: error_response(401))
    app.get("/guarded")(login_required(lambda: "in"))
    response = app.test_client().get("/guarded")
    assert (response.status_code, response.json) == (401, {"error": "Unauthorized"})
    assert "Bearer" in response.headers["WWW-Authenticate"]


def test_004_routes_of_an_api_blueprint_need_a_token():
    app = in_testing(Flask(__name__))
    jam = Jam()
    JWTExtension(jam, app)
    bp = Blueprint("api", __name__)

    @bp.route("/users/<int:id>", methods=["GET"])
    @login_required
    def get_user(id):  # noqa: A002 - the seed's own name
        return jsonify(id=id, asked_by=g.payload["sub"])

    @bp.route("/users", methods=["POST"])
    def create_user():
        response = jsonify(request.get_json())
        response.status_code = 201
        response.headers["Location"] = url_for("api.get_user", id=1)
        return response

    app.register_blueprint(bp, url_prefix="/api")
    client = app.test_client()
    created = client.post("/api/users", json={"username": "alice"})
    assert (created.status_code, created.headers["Location"]) == (201, "/api/users/1")
    assert client.get("/api/users/1").status_code == 401
    token = jam.access_tokens.issue("alice")
    assert client.get("/api/users/1", headers=bearer(token)).json == {"id": 1, "asked_by": "alice"}


def test_004_a_revoked_token_opens_nothing_any_more():
    app = in_testing(Flask(__name__))
    jam = Jam()
    JWTExtension(jam, app)

    @app.route("/tokens", methods=["DELETE"])
    @login_required
    def revoke_token():
        jam.access_tokens.revoke(request.headers["Authorization"].removeprefix("Bearer "))
        return "", 204

    client, headers = app.test_client(), bearer(jam.access_tokens.issue("alice"))
    assert client.delete("/tokens", headers=headers).status_code == 204
    assert client.delete("/tokens", headers=headers).status_code == 401


# == seed 001: a table of users, and the programs written for Flask-JWT-Extended ============================


def with_a_table_of_users(**config):
    """An app with the seed's table in it; SQLite instead of a server."""
    app = in_testing(Flask(__name__))
    app.config["JWT_SECRET_KEY"] = "abc123"
    app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite://"
    app.config.update(config)
    db = SQLAlchemy(app)

    class Table(db.Model):
        __tablename__ = "t_admin"
        id = db.Column(db.Integer, primary_key=True)
        username = db.Column(db.String(30))
        userpwd = db.Column(db.String(100))

    with app.app_context():
        db.create_all()
        db.session.add(Table(username="zzg", userpwd="123456"))
        db.session.commit()
    return app, db, Table


@pytest.fixture
def admin(clock):
    """Makes the seed's app, whose log-in gives what ``tokens(username)`` gives."""
    databases = []

    def make(tokens, **config):
        app, db, Table = with_a_table_of_users(**config)
        databases.append((app, db))
        jwt = JWTExtension(Jam(clock=clock), app)
        assert jwt.jam is app.extensions["jam"]

        @app.route("/login", methods=["GET", "POST"])
        def login():
            if request.method == "POST":
                username = request.form["username"]
                password = request.form["password"]
                user = Table.query.filter_by(username=username).first()
                if user and user.userpwd == password:
                    return jsonify(tokens(username))
            return abort(401)

        @app.route("/refresh", methods=["POST"])
        @jwt_required(refresh=True)
        def refresh():
            current_user = get_jwt_identity()
            access_token = create_access_token(identity=current_user)
            return jsonify(access_token=access_token)

        @app.route("/dashboard")
        @jwt_required()
        def dashboard():
            current_user = get_jwt_identity()
            return jsonify(logged_in_as=current_user)

        return app.test_client()

    yield make
    for app, db in databases:
        with app.app_context():
            db.session.remove()
            db.engine.dispose()


def access_token_alone(username):
    return {"access_token": create_access_token(identity=username)}


def both_tokens(username):
    return {
        "access_token": create_access_token(identity=username),
        "refresh_token": create_refresh_token(identity=username),
    }


RIGHT = {"username": "zzg", "password": "123456"}


def dashboard_with(client, token):
    return client.get("/dashboard", headers=bearer(token))


def test_001_who_logs_in_sees_the_dashboard(admin):
    client = admin(access_token_alone)
    token = client.post("/login", data=RIGHT).json["access_token"]
    assert dashboard_with(client, token).json == {"logged_in_as": "zzg"}


@pytest.mark.parametrize("wrong", [{"username": "zzg", "password": "1"}, {"username": "nobody", "password": "123456"}])
def test_001_a_wrong_name_or_password_is_401(admin, wrong):
    assert admin(access_token_alone).post("/login", data=wrong).status_code == 401


def test_001_nobody_sees_the_dashboard(admin):
    response = admin(access_token_alone).get("/dashboard")
    assert (response.status_code, response.json["code"]) == (401, "authentication_required")


def test_001_an_access_token_lives_for_a_quarter_of_an_hour(admin, clock):
    client = admin(access_token_alone)
    token = client.post("/login", data=RIGHT).json["access_token"]
    clock.move(15 * 60 - 1)
    assert dashboard_with(client, token).status_code == 200
    clock.move(1)
    assert dashboard_with(client, token).json["code"] == "token_expired"


def test_001_its_lifetime_is_configured(admin, clock):
    client = admin(access_token_alone, JWT_ACCESS_TOKEN_EXPIRES=timedelta(hours=1))
    token = client.post("/login", data=RIGHT).json["access_token"]
    clock.move(3599)
    assert dashboard_with(client, token).status_code == 200
    clock.move(1)
    assert dashboard_with(client, token).json["code"] == "token_expired"


def test_001_its_lifetime_is_an_argument(admin, clock):
    def tokens(username):
        access_token = create_access_token(identity=username, expires_delta=timedelta(minutes=30))
        return {"access_token": access_token}

    client = admin(tokens, JWT_ACCESS_TOKEN_EXPIRES=timedelta(hours=1))
    token = client.post("/login", data=RIGHT).json["access_token"]
    clock.move(1799)
    assert dashboard_with(client, token).status_code == 200
    clock.move(1)
    assert dashboard_with(client, token).json["code"] == "token_expired"


def test_001_a_refresh_token_gets_a_new_access_token(admin, clock):
    client = admin(both_tokens)
    tokens = client.post("/login", data=RIGHT).json
    clock.move(3600)
    assert dashboard_with(client, tokens["access_token"]).status_code == 401
    renewed = client.post("/refresh", headers=bearer(tokens["refresh_token"])).json["access_token"]
    assert dashboard_with(client, renewed).json == {"logged_in_as": "zzg"}


def test_001_a_refresh_token_lives_for_thirty_days(admin, clock):
    client = admin(both_tokens)
    token = client.post("/login", data=RIGHT).json["refresh_token"]
    clock.move(30 * 86400 - 1)
    assert client.post("/refresh", headers=bearer(token)).status_code == 200
    clock.move(1)
    assert client.post("/refresh", headers=bearer(token)).json["code"] == "token_expired"


def test_001_neither_token_does_the_others_work(admin):
    client = admin(both_tokens)
    tokens = client.post("/login", data=RIGHT).json
    assert dashboard_with(client, tokens["refresh_token"]).json["code"] == "token_invalid"
    assert client.post("/refresh", headers=bearer(tokens["access_token"])).json["code"] == "token_invalid"


@pytest.mark.parametrize("known", ["abc123", "your-secret-key"])
def test_001_the_seeds_secrets_are_refused_outside_debug_and_testing(known):
    app = Flask(__name__)
    app.config["JWT_SECRET_KEY"] = known
    JWTExtension(Jam(), app)
    with app.app_context(), pytest.raises(ConfigError, match="secret"):
        create_access_token(identity="zzg")


# == seed 001: the program written for Flask-Login =========================================================


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.LegacyAPIWarning")  # as the seed asks: Query.get
def test_001_flask_login_with_flask_sqlalchemy(tmp_path):
    app = in_testing(Flask(__name__))
    app.secret_key = "abcde1234"
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path}/house.sqlite3"
    app.jinja_loader = DictLoader(
        {"auth_login.html": "please sign in", "dashboard.html": "{{ current_user.username }}"}
    )
    db = SQLAlchemy(app)
    login_manager = SessionExtension(Jam())
    login_manager.init_app(app)

    class Table(UserMixin, db.Model):
        __tablename__ = "t_admin"
        id = db.Column(db.Integer, primary_key=True)
        username = db.Column(db.String(30))
        userpwd = db.Column(db.String(100))

    @login_manager.user_loader
    def load_user(user_id):
        return Table.query.get(int(user_id))

    @app.route("/login", methods=["GET", "POST"])
    def login():
        if request.method == "POST":
            username = request.form["username"]
            password = request.form["password"]
            user = Table.query.filter_by(username=username).first()
            if user and user.userpwd == password:
                login_user(user)
                return redirect(url_for("dashboard"))
        return render_template("auth_login.html")

    @app.route("/dashboard")
    @login_required
    def dashboard():
        return render_template("dashboard.html")

    @app.route("/logout")
    @login_required
    def logout():
        logout_user()
        return redirect(url_for("login"))

    with app.app_context():
        db.create_all()
        db.session.add(Table(username="alice", userpwd="correct horse"))
        db.session.commit()
    client = app.test_client()
    client.environ_base["HTTP_SEC_FETCH_SITE"] = "same-origin"  # as a browser sends it
    assert client.get("/dashboard").status_code == 401
    assert client.get("/login").text == "please sign in"
    wrong, right = ({"username": "alice", "password": password} for password in ("x", "correct horse"))
    assert client.post("/login", data=wrong).text == "please sign in"
    assert client.get("/dashboard").status_code == 401
    assert client.post("/login", data=right, follow_redirects=True).text == "alice"
    assert client.get("/dashboard").text == "alice"
    handle = client.get_cookie("sessionId").value
    assert client.get("/logout", follow_redirects=True).text == "please sign in"
    assert client.get("/dashboard").status_code == 401
    client.set_cookie("sessionId", handle)
    assert client.get("/dashboard").status_code == 401
    with app.app_context():
        db.engine.dispose()
