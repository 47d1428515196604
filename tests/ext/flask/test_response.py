"""The last word on a response: what it says of its caller, whoever asked and however late."""

import io
import threading

import pytest
from flask import (
    Blueprint,
    Flask,
    Response,
    after_this_request,
    copy_current_request_context,
    g,
    render_template_string,
    request_finished,
    send_file,
    send_from_directory,
    session,
    stream_template_string,
    stream_with_context,
)
from flask.sessions import SecureCookieSessionInterface

from jam import Jam
from jam.errors import ConfigError
from jam.ext.flask import JamExtension, JWTExtension, SessionExtension, current_identity, login_required, public
from tests.ext.flask.callers import (
    SAME_ORIGIN,
    UNREACHABLE,
    bearer,
    challenges,
    cookies,
    raw_client,
    set_cookies,
    vary,
)


def says_nothing_of_its_caller(response):
    return vary(response) == set() and "Cache-Control" not in response.headers


def says_that_it_depends_on_its_caller(response):
    return vary(response) == {"authorization", "cookie"} and response.headers["Cache-Control"] == "private"


# -- hooks --------------------------------------------------------------------------------------------------


def before_jam(app, set_up, hook):
    app.after_request(hook)
    set_up()


def after_jam(app, set_up, hook):
    set_up()
    app.after_request(hook)


def after_a_request(app, set_up, hook):
    """Against Flask's rules, but not against its lists."""
    set_up()
    app.register_blueprint(app.pages)
    app.test_client().get("/")
    app.after_request_funcs.setdefault(None, []).append(hook)


def at_the_very_end(app, set_up, hook):
    """Flask runs its list from the back: this hook runs after all others."""
    set_up()
    app.after_request_funcs.setdefault(None, []).insert(0, hook)


def in_the_blueprint(app, set_up, hook):
    set_up()
    app.pages.after_request(hook)


def in_the_blueprint_for_the_app(app, set_up, hook):
    set_up()
    app.pages.after_app_request(hook)


def for_this_request(app, set_up, hook):
    set_up()
    app.before_request(lambda: after_this_request(hook) and None)


def by_an_async_function(app, set_up, hook):
    async def hook_in_a_loop(response):
        return hook(response)

    set_up()
    app.after_request(hook_in_a_loop)


def when_flask_saves_its_session(app, set_up, hook):
    class Interface(SecureCookieSessionInterface):
        def save_session(self, app, session, response):
            super().save_session(app, session, response)
            hook(response)

    set_up()
    app.session_interface = Interface()


def when_the_app_has_processed_the_response(app, set_up, hook):
    class Sub(Flask):
        def process_response(self, response):
            return hook(super().process_response(response))

    app.__class__ = Sub
    set_up()


LATE = [
    before_jam,
    after_jam,
    after_a_request,
    at_the_very_end,
    in_the_blueprint,
    in_the_blueprint_for_the_app,
    for_this_request,
    by_an_async_function,
    when_flask_saves_its_session,
    when_the_app_has_processed_the_response,
]


@pytest.fixture
def late(app, jam):
    """Has a hook run after the view, where the test wants it: of a page that itself asks for nobody."""
    app.pages = Blueprint("pages", __name__)
    app.pages.route("/", methods=["GET", "POST"])(lambda: "page")

    def set_up():
        JWTExtension(jam, app)
        app.sessions = SessionExtension(jam, app)

    def ask(where, hook, **options):
        def done(response):
            hook()
            return response

        where(app, set_up, done)
        if "pages" not in app.blueprints:
            app.register_blueprint(app.pages)
        return raw_client(app).open("/", **options)

    return ask


@pytest.mark.parametrize("where", LATE)
@pytest.mark.parametrize("look", [lambda: current_identity.subject, lambda: g.payload])
def test_who_asks_first_when_the_view_is_done_makes_the_response_depend_on_the_caller(late, token, where, look):
    assert says_that_it_depends_on_its_caller(late(where, look, headers=bearer(token)))


@pytest.mark.parametrize("where", LATE)
def test_signing_in_when_the_view_is_done_sets_the_cookie(app, jam, late, where):
    response = late(where, lambda: app.sessions.sign_in("alice"), method="POST", headers=SAME_ORIGIN)
    handle, _ = set_cookies(response)["sessionId"]
    assert jam.sessions.get(handle).subject == "alice"
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("where", LATE)
def test_signing_out_when_the_view_is_done_drops_the_cookie(app, jam, late, where, handle):
    headers = {**SAME_ORIGIN, **cookies(("sessionId", handle))}
    response = late(where, lambda: app.sessions.sign_out(), method="POST", headers=headers)
    assert jam.get_session(handle) is None
    value, attributes = set_cookies(response)["sessionId"]
    assert (value, "max-age=0" in attributes) == ("", True)
    assert response.headers["Clear-Site-Data"] == '"cache", "storage"'


def test_a_page_that_nobody_asks_about_says_nothing_of_its_caller(late, token):
    response = late(after_jam, lambda: None, headers=bearer(token))
    assert says_nothing_of_its_caller(response)


def test_a_response_that_a_hook_puts_in_place_of_another_says_what_that_one_would_have(site, token):
    site.after_request(lambda response: Response(response.get_data()))
    assert says_that_it_depends_on_its_caller(raw_client(site).get("/whoami", headers=bearer(token)))


def test_a_cookie_survives_a_hook_that_puts_another_response_in_place(site):
    site.after_request(lambda response: Response(response.get_data()))
    assert "sessionId" in set_cookies(raw_client(site).post("/sign-in/alice", headers=SAME_ORIGIN))


def test_a_hooks_own_cache_control_is_kept(site):
    @site.after_request
    def cache(response):
        response.headers["Cache-Control"] = "no-cache"
        return response

    assert raw_client(site).get("/whoami").headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("path", ["/sign-in/alice", "/sign-out"])
def test_asvs_14_3_2_no_hook_makes_a_sign_in_or_out_cacheable(site, path):
    @site.after_request
    def cache(response):
        response.headers["Cache-Control"] = "public, max-age=600"
        return response

    assert raw_client(site).post(path, headers=SAME_ORIGIN).headers["Cache-Control"] == "no-store"


def test_rfc9110_11_6_1_a_401_of_a_hooks_own_carries_the_challenges(site):
    site.after_request(lambda response: response if current_identity.is_authenticated else Response("who?", 401))
    site.get("/plain")(lambda: "plain")
    assert [one.partition(" ")[0] for one in challenges(raw_client(site).get("/plain"))] == ["Bearer", "Cookie"]


def test_headers_are_said_once_however_many_extensions_and_askers_there_are(site, token):
    site.after_request(lambda response: current_identity.subject and response)
    response = raw_client(site).get("/members", headers=bearer(token))
    assert response.headers.getlist("Vary") == ["Authorization, Cookie"]
    assert response.headers.getlist("Cache-Control") == ["private"]


def test_each_of_two_apps_has_the_last_word_on_its_own_responses(new_app, jam, token):
    extension, apps = JWTExtension(jam), [new_app(), new_app()]
    for app in apps:
        extension.init_app(app)
        app.get("/")(lambda: "page")
    apps[0].after_request(lambda response: current_identity.subject and response)
    assert says_that_it_depends_on_its_caller(raw_client(apps[0]).get("/", headers=bearer(token)))
    assert says_nothing_of_its_caller(raw_client(apps[1]).get("/", headers=bearer(token)))


def test_flasks_own_session_is_saved_beside_a_hook_that_asks(site, token):
    @site.after_request
    def count(response):
        session["caller"] = current_identity.subject
        return response

    site.get("/caller")(lambda: {"caller": session.get("caller")})
    client = site.test_client()
    client.get("/caller", headers=bearer(token))
    response = client.get("/caller", headers=bearer(token))
    assert response.json == {"caller": "alice"}
    assert sorted(name for line in response.headers.getlist("Vary") for name in line.split(", ")) == [
        "Authorization",
        "Cookie",
    ]


def test_who_asks_when_the_request_is_finished_makes_the_response_depend_on_the_caller(site, token):
    site.get("/plain")(lambda: "plain")

    def sign(app, response):
        response.headers["X-Caller"] = str(current_identity.subject)

    with request_finished.connected_to(sign, site):
        response = raw_client(site).get("/plain", headers=bearer(token))
    assert response.headers["X-Caller"] == "alice"
    assert says_that_it_depends_on_its_caller(response)


def test_an_error_page_says_that_it_depends_on_its_caller_even_if_a_hook_fails(new_app, jam, token):
    app = new_app(TESTING=False)
    JWTExtension(jam, app)
    app.get("/")(lambda: "page")
    app.after_request(lambda response: response.not_there)

    @app.errorhandler(500)
    def page(error):
        return render_template_string("Sorry, {{ g.payload.sub }}")

    response = raw_client(app).get("/", headers=bearer(token))
    assert response.text == "Sorry, alice"
    assert says_that_it_depends_on_its_caller(response)


def test_an_error_page_after_a_failed_hook_can_sign_out(new_app, jam, handle):
    app = new_app(TESTING=False)
    sessions = SessionExtension(jam, app)
    app.post("/")(lambda: "page")
    app.after_request(lambda response: response.not_there)
    app.errorhandler(500)(lambda error: sessions.sign_out() or ("Sorry", 500))
    response = raw_client(app).post("/", headers={**SAME_ORIGIN, **cookies(("sessionId", handle))})
    assert set_cookies(response)["sessionId"][0] == ""


def in_a_thread(act):
    """Run it under a copy of the request's context, as a view does that shares its work out."""
    thread = threading.Thread(target=copy_current_request_context(act))
    thread.start()
    thread.join()


def test_a_thread_that_asks_first_makes_the_response_depend_on_the_caller(app, jam, token):
    JWTExtension(jam, app)
    seen = []

    @app.get("/")
    def view():
        in_a_thread(lambda: seen.append(current_identity.subject))
        return seen

    response = raw_client(app).get("/", headers=bearer(token))
    assert response.json == ["alice"]
    assert says_that_it_depends_on_its_caller(response)


def test_a_thread_that_signs_in_sets_the_cookie(app, jam):
    sessions = SessionExtension(jam, app)

    @app.post("/")
    def view():
        in_a_thread(lambda: sessions.sign_in("alice"))
        return ""

    assert "sessionId" in set_cookies(raw_client(app).post("/", headers=SAME_ORIGIN))


def test_a_teardown_function_may_ask(site, token):
    seen = []
    site.teardown_request(lambda error: seen.append(current_identity.subject))
    site.get("/plain")(lambda: "plain")
    assert raw_client(site).get("/plain", headers=bearer(token)).text == "plain"
    assert seen == ["alice"]


def test_signing_in_when_the_headers_have_left_is_an_error_and_starts_no_session(site, jam):
    failed = []

    @site.teardown_request
    def too_late(error):
        with pytest.raises(ConfigError, match="no cookie") as raised:
            site.sessions.sign_in("alice")
        failed.append(raised.value)

    site.post("/plain")(lambda: "plain")
    assert set_cookies(raw_client(site).post("/plain", headers=SAME_ORIGIN)) == {}
    assert len(failed) == 1
    assert list(jam.sessions.list("alice")) == []


# -- streamed bodies ----------------------------------------------------------------------------------------


def greeting():
    yield "hello "
    yield str(current_identity.subject)


def by_generator():
    return Response(stream_with_context(greeting()))


def by_return():
    return stream_with_context(greeting())


def by_template():
    return stream_template_string("hello {{ who.subject }}", who=current_identity)


def by_passing_through():
    return Response((part.encode() for part in stream_with_context(greeting())), direct_passthrough=True)


def by_wrapping():
    """As a library does that compresses or counts what it sends on."""
    return Response(iter_again(stream_with_context(greeting())))


class iter_again:  # noqa: N801 - a function, to its user
    def __init__(self, body):
        self.body = iter(body)

    def __iter__(self):
        return self.body


STREAMS = [by_generator, by_return, by_template, by_passing_through, by_wrapping]


@pytest.mark.parametrize("stream", STREAMS)
def test_a_streamed_body_that_asks_first_is_for_its_caller_only(site, token, stream):
    site.get("/stream")(stream)
    response = raw_client(site).get("/stream", headers=bearer(token))
    assert response.text == "hello alice"
    assert says_that_it_depends_on_its_caller(response)


@pytest.mark.parametrize("stream", STREAMS)
def test_a_streamed_body_for_nobody_may_be_kept_for_others_without_credentials(site, stream):
    site.get("/stream")(stream)
    response = raw_client(site).get("/stream")
    assert response.text == "hello None"
    assert vary(response) == {"authorization", "cookie"}
    assert "Cache-Control" not in response.headers


@pytest.mark.parametrize("sent", ["header", "cookie", "a header of the app's own", "a cookie that is no good"])
def test_a_streamed_body_is_private_if_the_request_carried_a_credential(site, jam, token, handle, sent):
    JWTExtension(jam, site, header_name="X-Access-Token")
    site.get("/stream")(by_generator)
    headers = {
        "header": bearer(token),
        "cookie": cookies(("sessionId", handle)),
        "a header of the app's own": {"X-Access-Token": f"Bearer {token}"},
        "a cookie that is no good": cookies(("sessionId", "junk")),
    }[sent]
    response = raw_client(site).get("/stream", headers=headers)
    assert response.headers["Cache-Control"] == "private"
    assert vary(response) == {"authorization", "x-access-token", "cookie"}


def test_a_streamed_bodys_own_cache_control_is_kept(site, token):
    site.get("/stream")(lambda: Response(stream_with_context(greeting()), headers={"Cache-Control": "no-cache"}))
    response = raw_client(site).get("/stream", headers=bearer(token))
    assert response.headers["Cache-Control"] == "no-cache"
    assert vary(response) == {"authorization", "cookie"}


def test_a_streamed_body_whose_view_asked_is_private_like_any_other(site):
    site.get("/stream")(lambda: current_identity.is_authenticated or by_generator())
    assert says_that_it_depends_on_its_caller(raw_client(site).get("/stream"))


def test_a_guarded_stream_is_private(site, token):
    site.get("/stream")(login_required(by_generator))
    assert says_that_it_depends_on_its_caller(raw_client(site).get("/stream", headers=bearer(token)))


def test_a_streamed_error_page_is_for_its_caller_only(site, token):
    site.errorhandler(404)(lambda error: (stream_with_context(greeting()), 404))
    response = raw_client(site).get("/not-there", headers=bearer(token))
    assert response.text == "hello alice"
    assert says_that_it_depends_on_its_caller(response)


def test_head_has_the_headers_of_the_stream_it_stands_for(site, token):
    site.get("/stream")(by_generator)
    assert says_that_it_depends_on_its_caller(raw_client(site).head("/stream", headers=bearer(token)))


def test_asvs_16_5_2_a_stream_that_asks_for_nobody_works_without_the_store(new_app, token):
    app = new_app(JAM_STORE=UNREACHABLE)
    JWTExtension(Jam(), app)
    app.get("/stream")(lambda: (part for part in ("a", "b")))
    assert raw_client(app).get("/stream", headers=bearer(token)).text == "ab"


def test_the_streams_of_an_app_that_looks_for_no_credential_are_left_alone(app, jam, token):
    JamExtension(jam, app)
    app.get("/stream")(by_generator)
    response = raw_client(app).get("/stream", headers=bearer(token))
    assert response.text == "hello None"
    assert says_nothing_of_its_caller(response)


def test_a_view_that_streams_may_sign_in_before(site):
    site.post("/stream")(lambda: site.sessions.sign_in("alice") and by_generator())
    response = raw_client(site).post("/stream", headers=SAME_ORIGIN)
    assert response.text == "hello alice"
    assert "sessionId" in set_cookies(response)
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("act", ["sign_in", "sign_out"])
def test_signing_in_or_out_in_a_streamed_body_is_an_error_and_changes_nothing(site, jam, act):
    before = jam.create_session("alice")

    @site.post("/stream")
    def stream():
        def body():
            yield "so far"
            site.sessions.sign_in("alice") if act == "sign_in" else site.sessions.sign_out()

        return stream_with_context(body())

    with pytest.raises(ConfigError, match="no cookie"):
        assert raw_client(site).post("/stream", headers={**SAME_ORIGIN, **cookies(("sessionId", before))}).text
    assert [one.id for one in jam.sessions.list("alice")] == [jam.sessions.get(before).id]


# -- files --------------------------------------------------------------------------------------------------


@pytest.fixture
def files(secret, jam, tmp_path):
    (tmp_path / "page.css").write_text("body { color: plum }")
    app = Flask(__name__, static_folder=str(tmp_path), static_url_path="/static")
    app.config.update(TESTING=True, SECRET_KEY=secret)
    JWTExtension(jam, app)
    SessionExtension(jam, app)
    sent = {
        "/sent": lambda: send_file(tmp_path / "page.css"),
        "/from-memory": lambda: send_file(io.BytesIO(b"body"), download_name="page.css"),
        "/from-directory": lambda: send_from_directory(tmp_path, "page.css"),
        "/public": public(lambda: send_file(tmp_path / "page.css")),
        "/members-only": login_required(lambda: send_file(tmp_path / "page.css")),
    }
    for path, view in sent.items():
        app.get(path, endpoint=path)(view)
    return app


@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=0-3"}], ids=["whole", "a part"])
@pytest.mark.parametrize("path", ["/static/page.css", "/sent", "/from-memory", "/from-directory", "/public"])
def test_a_file_is_as_cacheable_as_without_jam(files, token, handle, path, headers):
    sent = {**headers, **bearer(token), **cookies(("sessionId", handle))}
    response = raw_client(files).get(path, headers=sent, buffered=True)
    assert response.status_code in (200, 206)
    assert vary(response) == set()
    assert response.headers["Cache-Control"] == "no-cache"  # Flask's own


def test_a_file_whose_view_is_guarded_depends_on_the_caller(files, token):
    response = raw_client(files).get("/members-only", headers=bearer(token), buffered=True)
    assert vary(response) == {"authorization", "cookie"}


def test_a_file_may_be_sent_while_a_teardown_function_asks(files, token):
    seen = []
    files.teardown_request(lambda error: seen.append(current_identity.subject))
    response = raw_client(files).get("/static/page.css", headers=bearer(token), buffered=True)
    assert response.text == "body { color: plum }"
    assert seen == ["alice"]


# -- streams that are public --------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", STREAMS)
def test_asvs_14_3_2_a_public_stream_whose_body_asks_is_for_its_caller_only(site, token, stream):
    site.get("/stream")(public(stream))
    response = raw_client(site).get("/stream", headers=bearer(token))
    assert response.text == "hello alice"
    assert says_that_it_depends_on_its_caller(response)


def test_a_stream_that_says_itself_who_may_keep_it_is_left_its_word(site, token):
    site.get("/stream")(public(lambda: (iter(("a", "b")), {"Cache-Control": "public, max-age=60"})))
    response = raw_client(site).get("/stream", headers=bearer(token))
    assert response.text == "ab"
    assert response.headers["Cache-Control"] == "public, max-age=60"
    assert vary(response) >= {"authorization"}


@pytest.mark.parametrize("context", [stream_with_context, iter])
def test_who_notes_down_the_caller_of_a_public_stream_gets_an_answer(site, token, context):
    seen = set()

    def note(app, response):
        seen.add(("finished", current_identity.subject))

    site.get("/stream")(public(lambda: context(iter(("a", "b")))))
    with request_finished.connected_to(note, site):
        assert raw_client(site).get("/stream", headers=bearer(token)).text == "ab"
    assert seen == {("finished", "alice")}
