"""Who is calling: ``current_identity`` and ``g.payload``, found once, kept for this request and no longer."""

import threading

import pytest
from flask import Flask, copy_current_request_context, g, render_template_string, request
from flask.ctx import _AppCtxGlobals

from jam import ANONYMOUS, Jam
from jam.ext.flask import Authenticated, JWTExtension, SessionExtension, checkpoint, current_identity, login_required
from jam.stores.memory import MemoryStore
from tests.ext.flask.callers import SAME_ORIGIN, UNREACHABLE, answer, bearer, cookies, raw_client, vary


class CountingStore(MemoryStore):
    """Counts how often it is asked."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def marks(self, *arguments):
        self.asked += 1
        return super().marks(*arguments)


class BrokenStore(MemoryStore):
    """A store with a bug of the most misleading kind."""

    def marks(self, *arguments):
        return None.generation


@pytest.fixture
def seen(app, jam, token):
    """What a view of the app makes of ``g`` when somebody or nobody calls."""
    JWTExtension(jam, app)

    def ask(look, headers=None):
        with app.test_request_context(headers=headers):
            return look()

    return ask


# -- the identity -------------------------------------------------------------------------------------------


def test_current_identity_is_the_caller(seen, token):
    assert seen(lambda: (current_identity.subject, current_identity.method), bearer(token)) == ("alice", "jwt")


def test_current_identity_is_anonymous_for_nobody(seen):
    assert seen(lambda: current_identity == ANONYMOUS)
    assert seen(lambda: current_identity.is_authenticated) is False


def test_current_identity_has_no_meaning_outside_a_request(seen, app):
    with pytest.raises(RuntimeError, match="request"):
        current_identity.subject
    with app.app_context(), pytest.raises(RuntimeError, match="request"):
        current_identity.subject


def test_current_identity_cannot_be_changed(seen, token):
    def change():
        current_identity.subject = "root"

    with pytest.raises(AttributeError):
        seen(change, bearer(token))


def test_roles_scopes_and_times_come_from_the_credential(seen, jam, clock):
    token = jam.access_tokens.issue(
        "alice", roles=["admin"], scopes=["a", "b"], authenticated_at=clock.now, amr=["pwd"]
    )
    identity = seen(current_identity._get_current_object, bearer(token))
    assert (identity.roles, identity.scopes, identity.amr) == ({"admin"}, {"a", "b"}, ("pwd",))
    assert (identity.authenticated_at, identity.expires_at) == (clock.now, clock.now + 900)


# -- g.payload ----------------------------------------------------------------------------------------------


def test_payload_holds_the_claims_of_a_token(seen, jam):
    token = jam.gen_jwt_token(jam.make_payload(user=1))
    assert seen(lambda: g.payload, bearer(token))["user"] == 1


def test_payload_holds_the_data_of_a_session(app, jam, handle):
    SessionExtension(jam, app)
    with app.test_request_context(headers=cookies(("sessionId", handle))):
        assert g.payload == {"colour": "plum"}


def test_payload_of_an_empty_session_is_not_none(app, jam):
    SessionExtension(jam, app)
    with app.test_request_context(headers=cookies(("sessionId", jam.create_session("bob")))):
        assert g.payload == {}
        assert "payload" in g


def test_payload_of_a_token_without_sub_is_there(seen, jam):
    assert seen(lambda: g.payload, bearer(jam.gen_jwt_token({"user": 1})))["user"] == 1


def test_payload_is_none_for_nobody(seen):
    assert seen(lambda: g.payload) is None


def test_payload_is_none_for_a_bad_credential(seen):
    assert seen(lambda: g.payload, bearer("junk")) is None


def test_payload_is_absent_for_nobody(seen):
    assert seen(lambda: "payload" in g) is False
    assert seen(lambda: g.get("payload", "absent")) == "absent"
    assert seen(lambda: g.get("payload")) is None


def test_payload_is_there_for_somebody(seen, token):
    assert seen(lambda: "payload" in g, bearer(token)) is True
    assert seen(lambda: g.get("payload")["sub"], bearer(token)) == "alice"


def test_setdefault_keeps_the_payload_of_somebody(seen, token):
    assert seen(lambda: g.setdefault("payload", {"sub": "nobody"})["sub"], bearer(token)) == "alice"


def test_payload_outside_a_request_is_none(seen, app):
    with app.app_context():
        assert g.payload is None
        assert "payload" not in g
        assert g.get("payload", "absent") == "absent"


def test_payload_is_the_same_dict_throughout_a_request(seen, token):
    assert seen(lambda: g.payload is g.payload, bearer(token))


def test_an_app_may_put_its_own_payload_into_g(seen, token):
    def own():
        g.payload = {"mine": True}
        return g.payload, g.get("payload"), "payload" in g

    assert seen(own, bearer(token)) == ({"mine": True}, {"mine": True}, True)
    assert seen(own) == ({"mine": True}, {"mine": True}, True)


def test_an_app_may_take_its_own_payload_away_again(seen, token):
    def own():
        g.payload = "mine"
        taken = g.pop("payload")
        return taken, g.payload["sub"]

    assert seen(own, bearer(token)) == ("mine", "alice")


def test_other_attributes_of_g_behave_as_ever(seen):
    def look():
        g.x = 1
        return g.x, g.get("y", 2), "x" in g, "y" in g, g.pop("x"), g.setdefault("z", 3), sorted(g)

    assert seen(look) == (1, 2, True, False, 1, 3, ["z"])
    with pytest.raises(AttributeError):
        seen(lambda: g.nothing)


def test_a_globals_class_of_the_apps_own_is_kept(new_app, jam, token):
    class Globals(_AppCtxGlobals):
        colour = "plum"

    app = new_app()
    app.app_ctx_globals_class = Globals
    JWTExtension(jam, app)
    with app.test_request_context(headers=bearer(token)):
        assert (g.colour, g.payload["sub"]) == ("plum", "alice")


def test_payload_works_in_templates(app, jam, token):
    JWTExtension(jam, app)

    @app.get("/")
    def page():
        return render_template_string("{% if g.payload %}Hello {{ g.payload.sub }}{% else %}Hello stranger{% endif %}")

    assert raw_client(app).get("/", headers=bearer(token)).text == "Hello alice"
    assert raw_client(app).get("/").text == "Hello stranger"


@pytest.mark.parametrize(
    "look",
    [
        lambda: g.payload,
        lambda: g.get("payload"),
        lambda: "payload" in g,
        lambda: getattr(g, "payload", None),
        lambda: hasattr(g, "payload"),
    ],
)
def test_asvs_16_5_3_a_bug_below_never_passes_for_nobody(app, secret, clock, token, look):
    JWTExtension(Jam({"secret": secret}, store=BrokenStore(), clock=clock), app)
    app.get("/")(lambda: {"seen": look()})
    with pytest.raises(RuntimeError, match="could not be identified"):
        raw_client(app).get("/", headers=bearer(token))


# -- lazily, once, and never again --------------------------------------------------------------------------


@pytest.fixture
def counted(app, secret):
    """An app whose store counts, and a token that was made before the counting began."""
    store = CountingStore()
    jam = Jam({"secret": secret}, store=store)
    JWTExtension(jam, app)
    token = jam.access_tokens.issue("alice")
    store.asked = 0
    return store, bearer(token)


def test_nothing_happens_for_a_route_that_never_asks(app, counted):
    store, headers = counted
    app.get("/")(lambda: "hello")
    response = raw_client(app).get("/", headers=headers)
    assert store.asked == 0
    assert "Vary" not in response.headers
    assert "Cache-Control" not in response.headers


def test_a_caller_is_looked_up_once_in_a_request(app, counted):
    store, headers = counted

    @app.get("/")
    @login_required
    @checkpoint(Authenticated())
    def view():
        return {"who": [current_identity.subject, g.payload["sub"], g.get("payload")["sub"], "payload" in g]}

    assert raw_client(app).get("/", headers=headers).json == {"who": ["alice", "alice", "alice", True]}
    assert store.asked == 1


def test_asvs_7_4_1_every_request_asks_anew(app, jam, token):
    JWTExtension(jam, app)
    app.get("/")(lambda: {"who": current_identity.subject})
    client = raw_client(app)
    assert client.get("/", headers=bearer(token)).json == {"who": "alice"}
    jam.access_tokens.revoke(token)
    assert client.get("/", headers=bearer(token)).json == {"who": None}


def test_under_a_pushed_app_context_the_next_caller_inherits_nothing(site, token):
    with site.app_context():
        first = raw_client(site).get("/whoami", headers=bearer(token))
        second = raw_client(site).get("/whoami")
    assert first.json["subject"] == "alice"
    assert second.json == {"subject": None, "method": "anonymous", "payload": None}


def test_under_one_app_context_nested_requests_keep_to_themselves(app, jam, token):
    JWTExtension(jam, app)
    with app.app_context():
        with app.test_request_context(headers=bearer(token)):
            assert g.payload["sub"] == "alice"
            with app.test_request_context():
                assert g.payload is None
                assert current_identity.subject is None
            assert g.payload["sub"] == "alice"
        assert g.payload is None


def test_what_a_view_does_to_the_payload_ends_with_the_request(app, jam, token):
    JWTExtension(jam, app)

    @app.get("/")
    def view():
        before = g.payload.get("roles")
        g.payload["roles"] = ["admin"]
        g.payload["sub"] = "root"
        return {"before": before, "who": current_identity.subject, "roles": sorted(current_identity.roles)}

    for _ in range(3):
        response = raw_client(app).get("/", headers=bearer(token))
        assert response.json == {"before": None, "who": "alice", "roles": []}


def test_what_a_view_does_to_the_payload_is_not_written_into_the_session(app, jam, handle):
    SessionExtension(jam, app)

    @app.get("/")
    def view():
        g.payload["colour"] = "red"
        return ""

    raw_client(app).get("/", headers=cookies(("sessionId", handle)))
    assert jam.get_session(handle) == {"colour": "plum"}


def test_parallel_requests_do_not_see_each_other(site, jam):
    names = [f"user{n}" for n in range(8)]
    seen = {}
    barrier = threading.Barrier(len(names))

    def ask(name):
        headers = bearer(jam.access_tokens.issue(name))
        barrier.wait(10)
        seen[name] = [raw_client(site).get("/whoami", headers=headers).json["subject"] for _ in range(5)]

    threads = [threading.Thread(target=ask, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert seen == {name: [name] * 5 for name in names}


def test_a_thread_with_a_copied_request_context_sees_the_same_caller(app, jam, token):
    JWTExtension(jam, app)

    @app.get("/")
    def view():
        seen = []
        work = copy_current_request_context(lambda: seen.append(current_identity.subject))
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(10)
        return seen

    assert raw_client(app).get("/", headers=bearer(token)).json == ["alice"]


def test_an_async_view_sees_the_caller(app, jam, token):
    JWTExtension(jam, app)

    @app.get("/")
    async def view():
        return {"who": current_identity.subject, "payload": g.payload["sub"]}

    assert raw_client(app).get("/", headers=bearer(token)).json == {"who": "alice", "payload": "alice"}


def test_a_before_request_function_may_ask_too(app, jam, token):
    JWTExtension(jam, app)
    asked = []
    app.before_request(lambda: asked.append(current_identity.subject))
    app.get("/")(lambda: "")
    raw_client(app).get("/", headers=bearer(token))
    assert asked == ["alice"]


def test_an_after_request_function_may_ask_even_if_nobody_did_before(app, jam, token):
    JWTExtension(jam, app)

    @app.after_request
    def note(response):
        response.headers["X-Caller"] = str(current_identity.subject)
        return response

    app.get("/")(lambda: "")
    assert raw_client(app).get("/", headers=bearer(token)).headers["X-Caller"] == "alice"


def test_signing_in_replaces_the_caller_of_this_request(app, jam, token):
    JWTExtension(jam, app)
    sessions = SessionExtension(jam, app)

    @app.post("/")
    def view():
        before = current_identity.subject
        sessions.sign_in("bob", {"colour": "plum"})
        return {"before": before, "after": current_identity.subject, "payload": g.payload}

    response = raw_client(app).post("/", headers={**SAME_ORIGIN, **bearer(token)})
    assert response.json == {"before": "alice", "after": "bob", "payload": {"colour": "plum"}}


def test_signing_out_makes_the_caller_of_this_request_nobody(app, jam, handle):
    sessions = SessionExtension(jam, app)

    @app.post("/")
    def view():
        before = g.payload
        sessions.sign_out()
        return {"before": before, "after": current_identity.subject, "payload": g.payload, "there": "payload" in g}

    response = raw_client(app).post("/", headers={**SAME_ORIGIN, **cookies(("sessionId", handle))})
    assert response.json == {"before": {"colour": "plum"}, "after": None, "payload": None, "there": False}


def test_two_apps_with_jams_of_their_own_keep_their_callers_apart(new_app, secret):
    jams = [Jam({"secret": secret, "name": name}) for name in ("shop", "bank")]
    apps = [new_app(), new_app()]
    for jam, app in zip(jams, apps, strict=True):
        JWTExtension(jam, app)
    headers = bearer(jams[0].access_tokens.issue("alice"))
    with apps[0].test_request_context(headers=headers):
        assert current_identity.subject == "alice"
        with apps[1].test_request_context(headers=headers):
            assert current_identity.subject is None
        assert current_identity.subject == "alice"


# -- what the response says of it ---------------------------------------------------------------------------


def test_a_response_that_depends_on_the_caller_says_so(site, token):
    for headers in ({}, bearer(token)):
        response = raw_client(site).get("/whoami", headers=headers)
        assert vary(response) >= {"authorization", "cookie"}
        assert response.headers["Cache-Control"] == "private"


def test_a_views_own_cache_control_is_kept(app, jam):
    JWTExtension(jam, app)
    app.get("/")(lambda: (str(current_identity.subject), {"Cache-Control": "no-cache"}))
    assert raw_client(app).get("/").headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    "own",
    [
        [("Vary", "Accept-Encoding")],
        [("Vary", "Accept"), ("Vary", "Accept-Encoding")],
        [("Vary", "authorization, cookie, accept-encoding")],
        [("Vary", "X-Cookie-Choice, X-Authorization-Mode")],
        [("Vary", "Accept"), ("Vary", "Authorization, Cookie")],
    ],
)
def test_a_views_own_vary_is_added_to(app, jam, own):
    JWTExtension(jam, app)
    app.get("/")(lambda: (str(current_identity.subject), own))
    named = {name.strip().lower() for _, value in own for name in value.split(",")}
    assert vary(raw_client(app).get("/")) == named | {"authorization", "cookie"}


def test_vary_names_the_header_in_which_the_app_looks(app, jam):
    JWTExtension(jam, app, header_name="X-Access-Token")
    app.get("/")(lambda: str(current_identity.subject))
    assert "x-access-token" in vary(raw_client(app).get("/"))


# -- when nobody can tell -----------------------------------------------------------------------------------


@pytest.fixture
def cut_off(new_app, secret):
    """An app whose store cannot be reached, and a token that would be good."""
    app = new_app(JAM_STORE=UNREACHABLE)
    JWTExtension(Jam(), app)
    return app, bearer(Jam({"secret": secret}).access_tokens.issue("alice"))


@pytest.mark.parametrize(
    "look", [lambda: g.payload, lambda: g.get("payload"), lambda: "payload" in g, lambda: current_identity.subject]
)
def test_asvs_16_5_3_a_store_that_cannot_be_reached_is_503_with_retry_after(cut_off, look):
    app, headers = cut_off
    app.get("/")(lambda: {"seen": look()})
    response = raw_client(app).get("/", headers=headers)
    assert answer(response) == (503, "store_unavailable")
    assert int(response.headers["Retry-After"]) > 0


def test_asvs_16_5_2_a_route_that_does_not_ask_works_without_the_store(cut_off):
    app, headers = cut_off
    app.get("/health")(lambda: "well")
    assert raw_client(app).get("/health", headers=headers).text == "well"


def test_asvs_16_5_2_nobody_is_told_nothing_by_a_store_that_is_not_asked(cut_off):
    app, _ = cut_off
    app.get("/")(lambda: {"seen": current_identity.subject})
    assert raw_client(app).get("/").json == {"seen": None}


def test_the_failure_is_raised_once_and_the_error_page_renders(cut_off):
    app, headers = cut_off
    app.get("/")(checkpoint(Authenticated())(lambda: "in"))

    @app.errorhandler(503)
    def page(error):
        return render_template_string("{{ g.payload }} {{ who.subject }}: try later", who=current_identity), 503

    response = raw_client(app).get("/", headers=headers)
    assert (response.status_code, response.text) == (503, "None None: try later")


def test_an_app_may_go_on_without_knowing_the_caller(cut_off):
    app, headers = cut_off

    @app.get("/")
    def view():
        try:
            current_identity.subject
        except Exception as error:
            failed = error.code
        return {"failed": failed, "then": current_identity.subject}

    assert raw_client(app).get("/", headers=headers).json == {"failed": 503, "then": None}


def test_stateless_tokens_work_without_the_store(new_app):
    app = new_app(JAM_STORE=UNREACHABLE, JAM_ACCESS_TOKENS_STATELESS=True)
    jam = Jam()
    JWTExtension(jam, app)
    app.get("/")(lambda: {"seen": current_identity.subject})
    assert raw_client(app).get("/", headers=bearer(jam.access_tokens.issue("alice"))).json == {"seen": "alice"}


def test_the_identity_is_kept_on_the_request_and_not_on_g(app, jam, token):
    JWTExtension(jam, app)
    with app.test_request_context(headers=bearer(token)):
        current_identity.subject
        assert list(g) == []
        assert any("jam" in name for name in vars(request._get_current_object()))


def test_flasks_own_test_requests_can_be_asked(secret):
    app = Flask(__name__)
    app.secret_key = secret
    jam = Jam()
    JWTExtension(jam, app)
    with app.test_client() as client:
        client.get("/", headers=bearer(jam.access_tokens.issue("alice")))
        assert current_identity.subject == "alice"
