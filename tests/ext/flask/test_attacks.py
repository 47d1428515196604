"""What an attack on Jam's Flask extensions once got away with, and must not again."""

import json
import secrets
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Blueprint, jsonify, render_template_string, request, session
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.test import EnvironBuilder, run_wsgi_app

from jam.crypto.encoding import b64url_encode
from jam.errors import ConfigError, GenerationOutdated, InvalidValue, SessionInvalid, TokenRevoked
from jam.ext.flask import (
    HasRole,
    JWTExtension,
    SameOrigin,
    SessionCheckpoint,
    SessionExtension,
    UserMixin,
    checkpoint,
    confirm_login,
    create_access_token,
    create_refresh_token,
    csrf_token,
    current_identity,
    decode_token,
    end_other_logins,
    fresh_login_required,
    get_csrf_token,
    get_jwt_identity,
    jwt_required,
    login_fresh,
    login_required,
    login_user,
    logout_user,
    next_url,
    protect,
    revoke_jwt,
    rotate_refresh_token,
    set_access_cookies,
    set_refresh_cookies,
    verify_jwt_in_request,
)
from tests.ext.flask.callers import CROSS_SITE, PAGE, SAME_ORIGIN, answer, bearer, cookies, raw_client, set_cookies

COOKIE, ACCESS, REFRESH, UNSIGNED = "sessionId", "access_token_cookie", "refresh_token_cookie", "jam_csrf"
EVIL = {"Origin": "https://evil.example"}  # of a browser without Sec-Fetch-Site
FORGED = (403, "csrf_failed")
MIXED = (403, "credentials_mixed")
REVOKED = (401, "token_revoked")
STALE = (401, "insufficient_user_authentication")
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=x"


class User(UserMixin):
    def __init__(self, id, is_active=True):  # noqa: A002 - what models call it
        self.id, self.active = id, is_active

    @property
    def is_active(self):
        return self.active


def set_up(app, jam, *, flask_session=True, header_name=None):
    """An app with tokens and sessions, where anybody may sign in."""
    app.tokens = JWTExtension(jam, app)
    app.sessions = SessionExtension(jam, app, flask_session=flask_session, header_name=header_name)

    @app.post("/login/<name>")
    def login(name):
        login_user(User(name))
        return {"who": current_identity.subject}

    @app.post("/logout")
    def logout():
        return {"done": logout_user()}

    @app.get("/me")
    @login_required
    def me():
        return {"who": current_identity.subject, "method": current_identity.method}

    @app.get("/read")
    @login_required
    def read():
        return {"who": current_identity.subject, "values": dict(session)}

    @app.post("/write/<value>")
    def write(value):
        session["x"] = value
        return {"who": current_identity.subject}

    return app


@pytest.fixture
def app(new_app, jam):
    return set_up(new_app(JWT_TOKEN_LOCATION=["headers", "cookies", "json"]), jam)


@pytest.fixture
def raw(app):
    return raw_client(app)


def made(app, function, *args, **options):
    """A token as the app makes it outside of a request."""
    with app.app_context():
        return function(*args, **options)


def signed_in(app, name):
    """The session's handle of somebody who signed in by a browser of their own."""
    return set_cookies(raw_client(app).post(f"/login/{name}", headers=SAME_ORIGIN))[COOKIE][0]


def lives(app, handle):
    return raw_client(app).get("/me", headers=cookies((COOKIE, handle))).status_code == 200


# -- 1: flask.session and a user_loader that reads it -------------------------------------------------------

GONE = {"deactivated": lambda name: User(name, is_active=False), "deleted": lambda name: None}


@pytest.fixture
def tenants(app):
    """An app whose user_loader looks into flask.session, as one for several tenants does."""
    app.find = User
    app.asked_of = []

    @app.sessions.user_loader
    def load(name):
        app.asked_of.append(session.get("tenant"))
        return app.find(name)

    @app.post("/begin")
    def begin():
        session["role"], session["tenant"] = "admin", "north"
        login_user(User("alice"))
        return {}

    @app.get("/danger")
    @checkpoint(SessionCheckpoint("role", "admin"))
    def danger():
        return {"role": session["role"]}

    @app.get("/values")
    def values():
        return {"values": dict(session)}

    @app.get("/values-after")
    def values_after():
        return {"who": current_identity.subject, "values": dict(session)}

    @app.post("/change")
    def change():
        who = current_identity.subject
        session["role"] = "owner"
        return {"who": who}

    browser = app.test_client()
    assert browser.post("/begin", headers=SAME_ORIGIN).status_code == 200
    return browser


@pytest.mark.parametrize("state", GONE)
def test_asvs_7_4_2_a_session_checkpoint_refuses_a_user_who_is_gone_though_the_loader_read_the_session(
    app, tenants, state
):
    app.find = GONE[state]
    assert tenants.get("/danger").status_code in (401, 403)
    assert "north" in app.asked_of  # it did read


@pytest.mark.parametrize("state", GONE)
@pytest.mark.parametrize("path", ["/values", "/values-after"])
def test_asvs_7_4_2_a_user_who_is_gone_finds_flask_session_empty_though_the_loader_read_it(app, tenants, state, path):
    app.find = GONE[state]
    assert tenants.get(path).json["values"] == {}


@pytest.mark.parametrize("state", GONE)
def test_asvs_7_4_2_what_a_user_who_is_gone_writes_is_not_saved_though_the_loader_read_the_session(app, tenants, state):
    app.find = GONE[state]
    assert tenants.post("/change", headers=SAME_ORIGIN).json == {"who": None}
    app.find = User
    assert tenants.get("/values").json["values"] == {"role": "admin", "tenant": "north"}


@pytest.mark.parametrize("path", ["/values", "/values-after"])
def test_an_active_user_finds_everything_in_flask_session_though_the_loader_read_it(tenants, path):
    assert tenants.get(path).json["values"] == {"role": "admin", "tenant": "north"}


def test_an_active_user_passes_a_session_checkpoint_though_the_loader_read_the_session(app, tenants):
    assert tenants.get("/danger").json == {"role": "admin"}
    assert app.asked_of[-1] == "north"


def test_what_an_active_user_writes_is_saved_though_the_loader_read_the_session(tenants):
    assert tenants.post("/change", headers=SAME_ORIGIN).json == {"who": "alice"}
    assert tenants.get("/values").json["values"] == {"role": "owner", "tenant": "north"}


# -- 2: guards before one view, and the credentials of different people --------------------------------------


@pytest.fixture
def wiped(app):
    """Who wiped what, in an app where admin alone may; every view there has more than one guard."""

    @app.sessions.user_loader
    def load(name):
        return User(name)

    @app.sessions.get_user_roles
    def roles(user):
        return ["admin"] if user.id == "admin" else []

    done = []
    blueprint = Blueprint("admin", __name__, url_prefix="/admin")
    protect(blueprint, HasRole("admin"))

    def wipe():
        done.append(current_identity.subject)
        return {"by": current_identity.subject}

    views = {
        "json": jwt_required(locations="json")(wipe),
        "refresh": jwt_required(refresh=True)(wipe),
        "three": jwt_required(locations="headers")(login_required(methods=["session"])(wipe)),
    }
    for name, view in views.items():
        blueprint.add_url_rule(f"/{name}", name, view, methods=["POST"])
    app.register_blueprint(blueprint)
    return done


def wipe_by(app, jam, path, of_session, of_token):
    """A request with a session's cookie and a token, each of somebody."""
    token = made(app, create_access_token, of_token, fresh=True)
    if path == "refresh":
        token = made(app, create_refresh_token, of_token)
    body = {"json": {"access_token": token}} if path == "json" else {}
    headers = {**SAME_ORIGIN, **cookies((COOKIE, jam.create_session(of_session)))}
    return raw_client(app).post(f"/admin/{path}", headers=headers if body else {**headers, **bearer(token)}, **body)


@pytest.mark.parametrize("path", ["json", "refresh"])
def test_asvs_8_2_1_admins_cookie_and_somebody_elses_token_do_not_pass_a_blueprints_guard_and_a_views(
    app, jam, wiped, path
):
    assert answer(wipe_by(app, jam, path, "admin", "mallory")) == MIXED
    assert wiped == []


def test_asvs_8_2_1_admins_token_and_somebody_elses_cookie_do_not_pass_a_blueprints_guard_and_a_views(app, jam, wiped):
    assert answer(wipe_by(app, jam, "three", "mallory", "admin")) == MIXED
    assert wiped == []


@pytest.mark.parametrize("path", ["json", "refresh", "three"])
def test_one_person_with_both_credentials_passes_a_blueprints_guard_and_a_views(app, jam, wiped, path):
    assert wipe_by(app, jam, path, "admin", "admin").json == {"by": "admin"}
    assert wiped == ["admin"]


@pytest.fixture
def stacked(app, jam):
    """Views whose first guard takes sessions alone, and the others tokens."""
    seen = []

    def view():
        seen.append(current_identity.subject)
        return {"who": current_identity.subject}

    def inside():
        verify_jwt_in_request()
        return view()

    def sign_in_between():
        login_user(User("carol"))
        verify_jwt_in_request()
        return view()

    by_session = login_required(methods=["session"])
    views = {
        "two": by_session(jwt_required()(view)),
        "three": by_session(login_required(methods=["session", "jwt"])(jwt_required()(view))),
        "three-tokens-last": by_session(jwt_required(locations="headers")(jwt_required()(view))),
        "optional": by_session(jwt_required(optional=True)(view)),
        "nobody-between": by_session(jwt_required(optional=True, locations="json")(jwt_required()(view))),
        "nobody-twice-between": by_session(
            jwt_required(optional=True, locations="json")(jwt_required(optional=True, refresh=True)(
                jwt_required(locations="headers")(view)))
        ),
        "inside": by_session(inside),
        "sign-in-between": by_session(sign_in_between),
    }  # fmt: skip
    for name, guarded in views.items():
        app.add_url_rule(f"/{name}", name, guarded, methods=["POST"])

    def ask(path, of_session, of_token):
        token = made(app, create_access_token, of_token)
        headers = {**SAME_ORIGIN, **cookies((COOKIE, jam.create_session(of_session))), **bearer(token)}
        return raw_client(app).post(f"/{path}", headers=headers)

    ask.seen = seen
    return ask


STACKED = ["two", "three", "three-tokens-last", "optional", "nobody-between", "nobody-twice-between", "inside"]


@pytest.mark.parametrize("path", STACKED)
def test_asvs_8_2_1_stacked_guards_are_not_passed_by_two_people_together(stacked, path):
    assert answer(stacked(path, "alice", "mallory")) == MIXED
    assert stacked.seen == []


@pytest.mark.parametrize("path", STACKED)
def test_stacked_guards_are_passed_by_one_person_with_two_credentials(stacked, path):
    assert stacked(path, "alice", "alice").json == {"who": "alice"}


def test_who_signs_in_between_two_guards_is_not_taken_for_two_people(stacked):
    assert stacked("sign-in-between", "alice", "carol").json == {"who": "carol"}


# -- 3: the signed value, where no browser says where a request comes from ------------------------------------


@pytest.fixture
def forms(app):
    """An app whose pages show the value, and where a view may be called by the site's own pages alone."""

    @app.get("/value")
    def value():
        return csrf_token()

    @app.post("/clear")
    def clear():
        session.clear()
        return {}

    @app.post("/act")
    @login_required
    def act():
        return {"who": current_identity.subject}

    @app.post("/sign-in-here")
    @checkpoint(SameOrigin())
    def sign_in_here():
        login_user(User("attacker"))
        return {"who": current_identity.subject}

    return app


def value_for(app, *own):
    return raw_client(app).get("/value", headers=cookies(*own)).text


def stranger(app):
    """The cookie of a browser that nobody has signed in by, and a value for it."""
    response = raw_client(app).get("/value")
    return (UNSIGNED, set_cookies(response)[UNSIGNED][0]), response.text


def submit(app, path, own, value):
    """A form that another site's page sends by somebody's browser, in a field."""
    return raw_client(app).post(path, data={"csrf_token": value}, headers={**cookies(*own), **EVIL})


@pytest.fixture
def tossed(forms):
    """The victim's session, and the attacker's, whose cookie they planted in the victim's browser, with its value."""
    victim, attacker = signed_in(forms, "victim"), signed_in(forms, "attacker")
    return victim, attacker, value_for(forms, (COOKIE, attacker))


@pytest.mark.parametrize("planted_first", [True, False])
@pytest.mark.parametrize("path", ["/logout", "/sign-in-here", "/login/attacker"])
def test_asvs_3_5_1_a_value_of_one_of_two_cookies_of_a_name_proves_nothing(forms, tossed, path, planted_first):
    victim, attacker, value = tossed
    own = [(COOKIE, attacker), (COOKIE, victim)] if planted_first else [(COOKIE, victim), (COOKIE, attacker)]
    response = submit(forms, path, own, value)
    assert answer(response) == FORGED
    assert set_cookies(response) == {}
    assert lives(forms, victim)


@pytest.mark.parametrize("planted_first", [True, False])
def test_asvs_3_5_1_a_value_of_one_of_two_cookies_clears_nobodys_session(forms, tossed, planted_first):
    victim, attacker, value = tossed
    own = [(COOKIE, attacker), (COOKIE, victim)] if planted_first else [(COOKIE, victim), (COOKIE, attacker)]
    assert set_cookies(submit(forms, "/clear", own, value)) == {}
    assert lives(forms, victim)


@pytest.mark.parametrize("planted_first", [True, False])
def test_asvs_3_5_1_a_value_of_one_of_two_cookies_writes_nothing_into_flask_session(forms, tossed, planted_first):
    victim, attacker, value = tossed
    own = [(COOKIE, attacker), (COOKIE, victim)] if planted_first else [(COOKIE, victim), (COOKIE, attacker)]
    submit(forms, "/write/pwned", own, value)
    kept = raw_client(forms).get("/read", headers=cookies((COOKIE, victim))).json
    assert kept == {"who": "victim", "values": {}}


@pytest.mark.parametrize("path", ["/logout", "/clear", "/sign-in-here"])
def test_the_value_of_the_only_cookie_of_its_name_proves_where_a_request_comes_from(forms, tossed, path):
    _, attacker, value = tossed
    assert submit(forms, path, [(COOKIE, attacker)], value).status_code == 200
    assert not lives(forms, attacker)


@pytest.mark.parametrize("planted_first", [True, False])
@pytest.mark.parametrize("path", ["/sign-in-here", "/login/attacker"])
def test_asvs_3_5_1_a_second_cookie_of_nobodys_proves_nothing(forms, path, planted_first):
    (mine, _), (planted, value) = stranger(forms), stranger(forms)
    own = [planted, mine] if planted_first else [mine, planted]
    assert answer(submit(forms, path, own, value)) == FORGED


@pytest.mark.parametrize("path", ["/sign-in-here", "/login/attacker"])
def test_nobodys_only_cookie_proves_where_a_sign_in_comes_from(forms, path):
    mine, value = stranger(forms)
    assert submit(forms, path, [mine], value).json == {"who": "attacker"}


@pytest.mark.parametrize("path", ["/logout", "/sign-in-here", "/login/attacker"])
def test_asvs_3_5_1_nobodys_value_does_not_count_while_somebody_is_signed_in(forms, path):
    planted, value = stranger(forms)
    victim = signed_in(forms, "victim")
    assert answer(submit(forms, path, [(COOKIE, victim), planted], value)) == FORGED
    assert lives(forms, victim)


def test_asvs_3_5_1_nobodys_value_clears_and_writes_nothing_while_somebody_is_signed_in(forms):
    planted, value = stranger(forms)
    victim = signed_in(forms, "victim")
    for path in ("/write/pwned", "/clear"):
        submit(forms, path, [(COOKIE, victim), planted], value)
    assert raw_client(forms).get("/read", headers=cookies((COOKIE, victim))).json["values"] == {}


@pytest.mark.parametrize("name", [ACCESS, REFRESH])
def test_asvs_3_5_1_nobodys_value_does_not_count_beside_a_living_tokens_cookie(forms, name):
    planted, value = stranger(forms)
    token = made(forms, create_access_token if name == ACCESS else create_refresh_token, "victim")
    assert answer(submit(forms, "/sign-in-here", [(name, token), planted], value)) == FORGED


@pytest.mark.parametrize("name", [ACCESS, REFRESH])
@pytest.mark.parametrize("path", ["/logout", "/sign-in-here", "/login/attacker"])
def test_asvs_3_5_1_a_value_of_the_attackers_cookie_of_another_name_proves_nothing(forms, name, path):
    victim = signed_in(forms, "victim")
    planted = made(forms, create_access_token if name == ACCESS else create_refresh_token, "attacker")
    value = made(forms, get_csrf_token, planted)
    assert answer(submit(forms, path, [(COOKIE, victim), (name, planted)], value)) == FORGED
    assert lives(forms, victim)


def test_asvs_3_5_1_a_value_of_the_attackers_token_opens_no_session_of_the_victims(forms):
    victim, planted = signed_in(forms, "victim"), made(forms, create_access_token, "attacker")
    value = made(forms, get_csrf_token, planted)
    for own in ([(COOKIE, victim), (ACCESS, planted)], [(ACCESS, planted), (COOKIE, victim)]):
        assert (submit(forms, "/act", own, value).json or {}).get("who") != "victim"
        submit(forms, "/write/pwned", own, value)
    assert raw_client(forms).get("/read", headers=cookies((COOKIE, victim))).json["values"] == {}


def test_asvs_3_5_1_a_value_of_the_attackers_session_lets_no_token_of_the_victims_in(forms):
    planted, victim = signed_in(forms, "attacker"), made(forms, create_access_token, "victim")
    value = value_for(forms, (COOKIE, planted))
    assert (submit(forms, "/act", [(COOKIE, planted), (ACCESS, victim)], value).json or {}).get("who") != "victim"


@pytest.mark.parametrize("path", ["/logout", "/sign-in-here"])
def test_a_value_of_one_of_somebodys_own_cookies_of_two_names_proves_where_a_request_comes_from(forms, path):
    session_of, token = signed_in(forms, "alice"), made(forms, create_access_token, "alice")
    value = value_for(forms, (COOKIE, session_of))
    assert submit(forms, path, [(COOKIE, session_of), (ACCESS, token)], value).status_code == 200


def test_nobodys_value_counts_again_when_the_session_has_ended(forms, jam):
    planted, value = stranger(forms)
    old = signed_in(forms, "victim")
    jam.sessions.delete(old)
    assert submit(forms, "/sign-in-here", [(COOKIE, old), planted], value).status_code == 200


# -- 4: signing out ends the refresh tokens of the same sign-in -----------------------------------------------


@pytest.fixture
def refreshing(app):
    """An app that gives both tokens at sign-in, and one whose cookie is for the refreshing route alone."""

    @app.post("/both/<name>")
    def both(name):
        login_user(User(name))
        access, refresh = create_access_token(name, fresh=True), create_refresh_token(name)
        response = jsonify(access=access, refresh=refresh)
        set_access_cookies(response, access)
        set_refresh_cookies(response, refresh)
        return response

    @app.post("/token/refresh")
    @jwt_required(refresh=True)
    def refresh():
        refresh, access = rotate_refresh_token(), create_access_token(get_jwt_identity())
        response = jsonify(access=access, refresh=refresh)
        set_access_cookies(response, access)
        set_refresh_cookies(response, refresh)
        return response

    @app.post("/revoke")
    @jwt_required()
    def revoke():
        revoke_jwt()
        return {}

    return app


def tokens_of(app, name="alice"):
    """The tokens of a sign-in by a client that keeps no cookies."""
    return raw_client(app).post(f"/both/{name}", headers=SAME_ORIGIN).json


def refreshed(app, token):
    return raw_client(app).post("/token/refresh", headers=bearer(token))


def test_asvs_7_4_1_signing_out_ends_the_refresh_token_whose_cookie_is_not_sent_there(refreshing):
    browser = refreshing.test_client()
    response = browser.post("/both/alice", headers=SAME_ORIGIN)
    stolen, attributes = set_cookies(response)[REFRESH]
    assert "path=/token/refresh" in attributes
    assert browser.post("/logout", headers=SAME_ORIGIN).status_code == 200
    assert answer(
        raw_client(refreshing).post("/token/refresh", headers={**SAME_ORIGIN, **cookies((REFRESH, stolen))})
    ) == (REVOKED)


def test_asvs_7_4_1_signing_out_with_the_access_token_in_the_header_ends_the_refresh_token(refreshing):
    tokens = tokens_of(refreshing)
    assert raw_client(refreshing).post("/logout", headers=bearer(tokens["access"])).status_code == 200
    assert answer(refreshed(refreshing, tokens["refresh"])) == REVOKED


def test_asvs_7_4_1_revoke_jwt_with_the_access_token_ends_the_refresh_token(refreshing):
    tokens = tokens_of(refreshing)
    assert raw_client(refreshing).post("/revoke", headers=bearer(tokens["access"])).status_code == 200
    assert answer(refreshed(refreshing, tokens["refresh"])) == REVOKED


@pytest.mark.parametrize("path", ["/logout", "/revoke"])
def test_asvs_7_4_1_an_access_token_that_was_refreshed_ends_the_family_too(refreshing, clock, path):
    tokens = tokens_of(refreshing)
    for _ in range(2):
        clock.move(60)
        tokens = refreshed(refreshing, tokens["refresh"]).json
    assert raw_client(refreshing).post(path, headers=bearer(tokens["access"])).status_code == 200
    assert answer(refreshed(refreshing, tokens["refresh"])) == REVOKED


def test_asvs_7_4_1_an_access_token_that_has_expired_ends_the_family_when_signing_out(refreshing, clock):
    tokens = tokens_of(refreshing)
    clock.move(7200)
    assert raw_client(refreshing).post("/logout", headers=bearer(tokens["access"])).status_code == 200
    assert answer(refreshed(refreshing, tokens["refresh"])) == REVOKED


@pytest.mark.parametrize("path", ["/logout", "/revoke"])
def test_the_refresh_tokens_of_another_sign_in_of_the_same_person_live(refreshing, path):
    here, elsewhere = tokens_of(refreshing), tokens_of(refreshing)
    raw_client(refreshing).post(path, headers=bearer(here["access"]))
    assert refreshed(refreshing, elsewhere["refresh"]).status_code == 200
    assert answer(refreshed(refreshing, here["refresh"])) == REVOKED


def test_the_refresh_tokens_of_another_person_live(refreshing):
    here, elsewhere = tokens_of(refreshing), tokens_of(refreshing, "bob")
    raw_client(refreshing).post("/logout", headers=bearer(here["access"]))
    assert refreshed(refreshing, elsewhere["refresh"]).status_code == 200


@pytest.mark.parametrize("make", [create_access_token, create_refresh_token])
def test_no_caller_sets_what_the_tokens_of_a_sign_in_have_in_common(refreshing, make):
    with refreshing.test_request_context(), pytest.raises(InvalidValue, match="sid"):
        make("alice", additional_claims={"sid": "of-somebody-else"})


@pytest.mark.parametrize("make", [create_access_token, create_refresh_token])
def test_no_loader_sets_what_the_tokens_of_a_sign_in_have_in_common(refreshing, make):
    refreshing.tokens.additional_claims_loader(lambda identity: {"sid": "of-somebody-else"})
    with refreshing.test_request_context(), pytest.raises(InvalidValue, match="sid"):
        make("alice")


def test_the_tokens_of_a_sign_in_have_a_name_in_common_and_those_of_another_one_have_another(refreshing):
    here, elsewhere = tokens_of(refreshing), tokens_of(refreshing)
    names = [made(refreshing, decode_token, token)["sid"] for token in (*here.values(), *elsewhere.values())]
    assert names[0] == names[1] != names[2] == names[3]


def test_where_no_route_takes_refresh_tokens_an_access_token_has_no_such_name(new_app, jam):
    app = new_app()
    JWTExtension(jam, app)
    with app.test_request_context():
        assert "sid" not in decode_token(create_access_token("alice"))


# -- 5: revoked between the verification of a credential and what is made for it -------------------------------


@pytest.fixture
def racing(app, jam):
    """An app where somebody revokes alice while her own request is under way."""

    def access():
        jam.revoke_all("alice")
        return {"token": create_access_token("alice", fresh=request.args.get("fresh") == "yes")}

    def refresh():
        jam.revoke_all("alice")
        try:
            return {"token": create_refresh_token("alice")}
        except GenerationOutdated:
            return {"token": None}

    for name, view in (("access", access), ("refresh", refresh)):
        app.add_url_rule(f"/by-refresh/{name}", f"r{name}", jwt_required(refresh=True)(view), methods=["POST"])
        app.add_url_rule(f"/by-access/{name}", f"a{name}", jwt_required()(view), methods=["POST"])
        app.add_url_rule(f"/by-session/{name}", f"s{name}", login_required(view), methods=["POST"])
    return app


def credential(app, jam, kind):
    if kind == "session":
        return {**SAME_ORIGIN, **cookies((COOKIE, jam.create_session("alice")))}
    return bearer(made(app, create_refresh_token if kind == "refresh" else create_access_token, "alice"))


@pytest.mark.parametrize("fresh", ["yes", "no"])
@pytest.mark.parametrize("kind", ["refresh", "session", "access"])
def test_asvs_7_4_3_an_access_token_made_for_a_caller_who_was_revoked_meanwhile_is_dead(racing, jam, kind, fresh):
    response = raw_client(racing).post(f"/by-{kind}/access?fresh={fresh}", headers=credential(racing, jam, kind))
    assert response.status_code == 200
    with pytest.raises(TokenRevoked):
        jam.access_tokens.verify(response.json["token"])


@pytest.mark.parametrize("kind", ["refresh", "session", "access"])
def test_asvs_7_4_3_no_refresh_token_is_made_for_a_caller_who_was_revoked_meanwhile(racing, jam, kind):
    response = raw_client(racing).post(f"/by-{kind}/refresh", headers=credential(racing, jam, kind))
    assert response.json == {"token": None}
    assert list(jam.refresh_tokens.list("alice")) == []


@pytest.mark.parametrize("kind", ["refresh", "session", "access"])
def test_what_is_made_for_a_caller_whom_nobody_revoked_is_good(app, jam, kind):
    @app.post("/make")
    @jwt_required(optional=True, verify_type=False) if kind != "session" else login_required
    def make():
        return {"access": create_access_token("alice"), "refresh": create_refresh_token("alice")}

    jam.revoke_all("alice")  # the numbers to be compared are not all nought
    found = raw_client(app).post("/make", headers=credential(app, jam, kind)).json
    assert jam.access_tokens.verify(found["access"]).subject == "alice"
    assert jam.refresh_tokens.verify(found["refresh"]).subject == "alice"


def test_asvs_7_4_3_an_access_token_of_a_generation_read_before_the_password_was_changed_is_dead(app, jam):
    with app.test_request_context():
        before = jam.access_tokens.generation("alice")
        jam.revoke_all("alice")
        late = create_access_token("alice", generation=before)
        good = create_access_token("alice", generation=jam.access_tokens.generation("alice"))
    with pytest.raises(TokenRevoked):
        jam.access_tokens.verify(late)
    assert jam.access_tokens.verify(good).subject == "alice"


def test_asvs_7_4_3_a_refresh_token_of_a_generation_read_before_the_password_was_changed_is_not_made(app, jam):
    with app.test_request_context():
        before = jam.refresh_tokens.generation("alice")
        jam.revoke_all("alice")
        with pytest.raises(GenerationOutdated):
            create_refresh_token("alice", generation=before)
        good = create_refresh_token("alice", generation=jam.refresh_tokens.generation("alice"))
    assert jam.refresh_tokens.verify(good).subject == "alice"


# -- 6: what a refresh token proves ----------------------------------------------------------------------------


@pytest.fixture
def secret_page(app):
    @app.get("/secret")
    @jwt_required(verify_type=False)
    @fresh_login_required
    def secret():
        return {"fresh": login_fresh()}

    @app.get("/fresh")
    @jwt_required(verify_type=False)
    def fresh():
        return {"fresh": login_fresh()}

    return app


def test_asvs_7_5_1_a_refresh_token_does_not_pass_as_a_fresh_login(secret_page, raw):
    token = made(secret_page, create_refresh_token, "alice")
    assert answer(raw.get("/secret", headers=bearer(token))) == STALE


def test_asvs_7_5_1_login_fresh_says_no_of_a_refresh_token(secret_page, raw):
    token = made(secret_page, create_refresh_token, "alice")
    assert raw.get("/fresh", headers=bearer(token)).json == {"fresh": False}


def test_a_fresh_access_token_passes_as_a_fresh_login(secret_page, raw):
    token = made(secret_page, create_access_token, "alice", fresh=True)
    assert raw.get("/secret", headers=bearer(token)).json == {"fresh": True}


# -- 7: the way back from the sign-in --------------------------------------------------------------------------


@pytest.fixture
def pages(new_app, jam):
    def make(**config):
        app = set_up(new_app(JWT_TOKEN_LOCATION=["headers", "query_string"], **config), jam, flask_session=False)
        app.sessions.login_view = "/sign-in"

        @app.get("/sign-in")
        def sign_in():
            return {"next": next_url("/fallback")}

        @app.get("/page")
        @login_required
        def page():
            return {}

        @app.get("/stale")
        @fresh_login_required
        def stale():
            return {}

        app.sessions.refresh_view = "/sign-in"
        return app

    return make


def way_back(app, query, path="/page"):
    """Where the sign-in would lead to, as its page says it; and the whole of what the first answer held."""
    browser = app.test_client()
    response = browser.get(f"{path}?{query}", headers=PAGE)
    assert response.status_code == 302
    location = response.headers["Location"]
    return browser.get(location).json["next"], location + response.text


def credentials_of_any_kind(app, jam):
    jose = b64url_encode(json.dumps({"alg": "HS256"}).encode()).decode()
    return {
        "access": made(app, create_access_token, "alice"),
        "refresh": made(app, create_refresh_token, "alice"),
        "session": jam.create_session("alice"),
        "foreign": f"{jose}.{'e' * 40}.{secrets.token_urlsafe(32)}",
    }


@pytest.mark.parametrize("in_session", [False, True])
@pytest.mark.parametrize("kind", ["access", "refresh", "session", "foreign"])
@pytest.mark.parametrize("name", ["jwt", "token", "state", "%6Awt", "a%20b"])
def test_asvs_14_2_1_the_way_back_carries_no_credential(pages, jam, in_session, kind, name):
    app = pages(USE_SESSION_FOR_NEXT=in_session)
    held = credentials_of_any_kind(app, jam)[kind]
    jam.revoke_all("alice")  # so that it lets nobody in
    back, told = way_back(app, f"a=1&{name}={held}&b=2")
    assert back == "/page?a=1&b=2"
    assert held not in told


@pytest.mark.parametrize("in_session", [False, True])
@pytest.mark.parametrize("written", ["Token%20", "Token+", "%54oken%20"])
@pytest.mark.parametrize("name", ["t", "other"])
def test_asvs_14_2_1_the_way_back_carries_no_credential_with_a_prefix(pages, jam, in_session, written, name):
    app = pages(
        USE_SESSION_FOR_NEXT=in_session, JWT_QUERY_STRING_NAME="t", JWT_QUERY_STRING_VALUE_PREFIX="Token "
    )  # fmt: skip
    held = made(app, create_access_token, "alice")
    jam.revoke_all("alice")
    back, told = way_back(app, f"{name}={written}{held}&b=2")
    assert back == "/page?b=2"
    assert held not in told


@pytest.mark.parametrize("name", ["jwt", "%6Awt"])
def test_asvs_14_2_1_the_way_back_carries_nothing_of_the_parameter_for_tokens_whatever_it_holds(pages, name):
    back, _ = way_back(pages(), f"{name}=half.a.token&b=2")
    assert back == "/page?b=2"


def test_asvs_14_2_1_the_way_back_of_a_good_but_stale_token_does_not_carry_it(pages):
    app = pages()
    held = made(app, create_access_token, "alice")
    back, told = way_back(app, f"jwt={held}&b=2", path="/stale")
    assert back == "/stale?b=2"
    assert held not in told


def test_asvs_14_2_1_the_way_back_carries_no_credential_that_has_no_name(pages, jam):
    app = pages()
    held = made(app, create_access_token, "alice")
    _, told = way_back(app, f"{held}&b=2")
    assert held not in told


@pytest.mark.parametrize("in_session", [False, True])
@pytest.mark.parametrize(
    "query",
    ["q=a%20b+c&q=%2F%3f", "empty=&bare&&x==y", "v=1.2.3&w=a.b.c", "x=%C3%A9&y=%ff&z=%e9", "next=/there?a=b", "a;b=c"],
)
def test_the_other_parameters_of_the_way_back_stay_as_they_were_written(pages, in_session, query):
    app = pages(USE_SESSION_FOR_NEXT=in_session)
    assert way_back(app, query)[0] == f"/page?{query}"
    if not in_session:
        held = made(app, create_access_token, "nobody", expires_delta=1)
        location = raw_client(app).get(f"/stale?{query}&jwt={held}", headers=PAGE).headers["Location"]
        assert parse_qs(urlsplit(location).query)["next"] == [f"/stale?{query}"]


# -- 8: one person's session in a header, another's in the cookie ----------------------------------------------


@pytest.fixture
def headers_too(new_app, jam):
    app = set_up(new_app(PROPAGATE_EXCEPTIONS=True), jam, header_name="X-Session")

    @app.post("/confirm")
    @login_required
    def confirm():
        session["cart"] = "full"
        confirm_login()
        return {}

    @app.post("/others")
    @login_required
    def others():
        session["cart"] = "full"
        end_other_logins()
        return {}

    return app


@pytest.mark.parametrize(("path", "instead"), [("/confirm", "sessions.rework"), ("/others", "logins.end_others")])
def test_asvs_7_2_4_a_session_in_a_header_gets_no_new_handle_in_a_cookie(headers_too, jam, path, instead):
    in_header, in_cookie = jam.create_session("bob"), jam.create_session("alice")
    headers = {**SAME_ORIGIN, "X-Session": f"Bearer {in_header}"}
    for one in (headers, {**headers, **cookies((COOKIE, in_cookie))}):
        with pytest.raises(ConfigError, match=instead):
            raw_client(headers_too).post(path, headers=one)


@pytest.mark.parametrize("path", ["/confirm", "/others"])
def test_of_two_peoples_sessions_in_one_request_nothing_is_mixed(headers_too, jam, path):
    headers_too.config["PROPAGATE_EXCEPTIONS"] = False
    in_header, in_cookie, elsewhere = (jam.create_session(name) for name in ("bob", "alice", "bob"))
    headers = {**SAME_ORIGIN, "X-Session": f"Bearer {in_header}", **cookies((COOKIE, in_cookie))}
    response = raw_client(headers_too).post(path, headers=headers)
    assert response.status_code == 500
    assert set_cookies(response) == {}
    found = {handle: jam.sessions.get(handle) for handle in (in_header, in_cookie, elsewhere)}
    assert [found[handle].subject for handle in found] == ["bob", "alice", "bob"]
    assert not any(one.values for one in (found[in_header], found[elsewhere]))


@pytest.mark.parametrize("path", ["/confirm", "/others"])
def test_the_session_in_the_cookie_alone_gets_its_new_handle(headers_too, jam, path):
    old = jam.create_session("alice")
    response = raw_client(headers_too).post(path, headers={**SAME_ORIGIN, **cookies((COOKIE, old))})
    new = set_cookies(response)[COOKIE][0]
    assert jam.sessions.verify(new).subject == "alice"
    with pytest.raises(SessionInvalid):
        jam.sessions.verify(old)


# -- 9: more cookies of a name than are read --------------------------------------------------------------------


@pytest.mark.parametrize("planted", [4, 5, 50])
def test_asvs_7_4_1_cookies_planted_before_the_real_one_do_not_save_it_from_a_sign_out(app, raw, planted):
    real = signed_in(app, "alice")
    own = [(COOKIE, "x")] * planted + [(COOKIE, real)]
    assert raw.post("/logout", headers={**SAME_ORIGIN, **cookies(*own)}).status_code == 200
    assert not lives(app, real)


def test_asvs_7_4_1_planted_remember_cookies_do_not_save_the_real_one_from_a_sign_out(app, raw, jam):
    token, _ = jam.logins.remember("alice")
    own = [("remember_token", "x")] * 4 + [("remember_token", token)]
    raw.post("/logout", headers={**SAME_ORIGIN, **cookies(*own)})
    assert list(jam.remember_me.list("alice")) == []


def test_asvs_7_4_1_planted_access_cookies_do_not_save_the_real_one_from_a_sign_out(app, raw, jam):
    token = made(app, create_access_token, "alice")
    own = [(ACCESS, "x")] * 4 + [(ACCESS, token)]
    raw.post("/logout", headers={**SAME_ORIGIN, **cookies(*own)})
    with pytest.raises(TokenRevoked):
        jam.access_tokens.verify(token)


# -- 10: bodies that cannot be read -----------------------------------------------------------------------------


class Broken:
    """The body of a client that has hung up."""

    def read(self, *_):
        raise OSError("the client is gone")

    readline = readinto = read


@pytest.fixture
def posting(new_app, jam):
    app = set_up(
        new_app(
            JWT_TOKEN_LOCATION=["headers", "cookies", "json"], MAX_CONTENT_LENGTH=100, PROPAGATE_EXCEPTIONS=False
        ),
        jam,
    )  # fmt: skip

    @app.route("/guarded", methods=["GET", "POST"])
    @login_required
    def guarded():
        return {}

    @app.post("/own")
    def own():
        return {"body": len(request.get_data()), "who": current_identity.subject}

    @app.post("/form")
    def form():
        return {"fields": len(request.form)}

    @app.errorhandler(413)
    def too_large(error):
        assert isinstance(error, RequestEntityTooLarge)
        return {"code": "too_large", "who": current_identity.subject}, 413

    return app


@pytest.mark.parametrize("content", ["application/json", FORM, MULTIPART])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("signed", [True, False])
def test_asvs_16_5_3_a_body_that_cannot_be_read_is_an_ordinary_refusal(posting, jam, content, method, signed):
    handle = jam.create_session("alice") if signed else "x"
    builder = EnvironBuilder(
        path="/guarded", method=method, headers={"Content-Type": content, **cookies((COOKIE, handle))}
    )  # fmt: skip
    environ = {**builder.get_environ(), "wsgi.input": Broken(), "wsgi.input_terminated": True}
    _, status, _ = run_wsgi_app(posting, environ)
    expected = {("GET", True): 200, ("GET", False): 401, ("POST", True): 403, ("POST", False): 403}
    assert int(status[:3]) == expected[method, signed]


TOO_LARGE = {
    "json": {"json": {"access_token": "b" * 200}},
    "form": {"data": {"csrf_token": "b" * 200}},
    "multipart": {"data": {"csrf_token": "b" * 200}, "content_type": "multipart/form-data"},
}


@pytest.mark.parametrize("body", TOO_LARGE)
@pytest.mark.parametrize("own", [[], [(COOKIE, "x")]])
def test_asvs_16_5_3_a_body_that_is_too_large_is_no_error_before_a_guard(posting, body, own):
    response = raw_client(posting).post("/guarded", headers=cookies(*own), **TOO_LARGE[body])
    assert response.status_code in (401, 403, 413)


@pytest.mark.parametrize("body", TOO_LARGE)
@pytest.mark.parametrize("own", [[], [(COOKIE, "x")]])
def test_asvs_16_5_3_the_page_about_a_body_that_is_too_large_may_ask_who_is_calling(posting, body, own):
    path = "/own" if body == "json" else "/form"
    response = raw_client(posting).post(path, headers=cookies(*own), **TOO_LARGE[body])
    assert (response.status_code, response.json) == (413, {"code": "too_large", "who": None})


def test_the_page_about_a_body_that_is_too_large_knows_who_is_calling(posting, jam):
    own = {**SAME_ORIGIN, **cookies((COOKIE, jam.create_session("alice")))}
    response = raw_client(posting).post("/form", headers=own, data={"a": "b" * 200})
    assert (response.status_code, response.json["who"]) == (413, "alice")


# -- 11: signing out without a browser --------------------------------------------------------------------------


def test_asvs_7_4_1_a_client_with_a_token_and_no_cookies_may_sign_out(app, raw, jam):
    token = made(app, create_access_token, "alice")
    assert raw.post("/logout", headers=bearer(token)).json == {"done": True}
    with pytest.raises(TokenRevoked):
        jam.access_tokens.verify(token)


@pytest.mark.parametrize("own", [("theme", "dark"), (COOKIE, "x"), ("", "")])
@pytest.mark.parametrize("said", [{}, EVIL, CROSS_SITE])
def test_asvs_3_5_1_with_any_cookie_a_sign_out_must_say_where_it_comes_from(app, raw, jam, own, said):
    token = made(app, create_access_token, "alice")
    assert answer(raw.post("/logout", headers={**bearer(token), **cookies(own), **said})) == FORGED
    assert jam.access_tokens.verify(token).subject == "alice"


@pytest.mark.parametrize("said", [{}, EVIL, CROSS_SITE])
def test_asvs_3_5_1_without_cookies_too_a_sign_in_must_say_where_it_comes_from(app, raw, said):
    token = made(app, create_access_token, "alice")
    response = raw.post("/login/mallory", headers={**bearer(token), **said})
    assert answer(response) == FORGED
    assert set_cookies(response) == {}


# -- 12: an error in the app's own functions is an error ----------------------------------------------------------


@pytest.fixture
def templated(app):
    @app.get("/page")
    def page():
        return render_template_string("{% if current_user.is_authenticated %}in{% else %}out{% endif %}")

    @app.get("/public")
    def public():
        return {"who": current_identity.subject}

    return app


@pytest.fixture(params=["sync", "async"])
def broken(templated, request):
    """An app whose user_loader has a mistake in it."""

    def find_by_name(name):
        return None.query(name)

    async def find_by_name_later(name):
        return None.query(name)

    function = find_by_name if request.param == "sync" else find_by_name_later
    templated.sessions.user_loader(function)
    templated.function = function.__name__
    return templated


@pytest.mark.parametrize("path", ["/page", "/public", "/me"])
def test_an_attribute_error_in_the_user_loader_is_an_error_that_names_it(broken, raw, jam, path):
    own = cookies((COOKIE, jam.create_session("alice")))
    with pytest.raises(RuntimeError, match=f"{broken.function} raised AttributeError"):
        raw.get(path, headers=own)


@pytest.mark.parametrize("path", ["/page", "/public", "/me"])
def test_asvs_16_5_3_an_attribute_error_in_the_user_loader_does_not_make_anybody_anonymous(broken, raw, jam, path):
    broken.config["PROPAGATE_EXCEPTIONS"] = False
    own = cookies((COOKIE, jam.create_session("alice")))
    assert raw.get(path, headers=own).status_code == 500


def test_a_caller_without_a_credential_does_not_meet_the_mistake(broken, raw):
    assert raw.get("/page").text == "out"


class Paying(UserMixin):
    """A model whose property has a mistake in it."""

    id = "alice"

    @property
    def is_active(self):
        return self.subscription.paid


class PayingByMethod(UserMixin):
    """And one that has it in a method."""

    id = "alice"

    def is_active(self):
        return self.subscription.paid


@pytest.mark.parametrize("model", [Paying, PayingByMethod])
@pytest.mark.parametrize("path", ["/me", "/page"])
def test_asvs_16_5_3_an_attribute_error_in_is_active_is_an_error(templated, raw, jam, model, path):
    templated.config["PROPAGATE_EXCEPTIONS"] = False
    templated.sessions.user_loader(lambda name: model())
    assert raw.get(path, headers=cookies((COOKIE, jam.create_session("alice")))).status_code == 500


@pytest.mark.parametrize("path", ["/me", "/page"])
@pytest.mark.parametrize("name", ["user_lookup_loader", "token_in_blocklist_loader", "token_verification_loader"])
def test_asvs_16_5_3_an_attribute_error_in_what_is_asked_of_tokens_is_an_error(templated, raw, name, path):
    templated.config["PROPAGATE_EXCEPTIONS"] = False
    getattr(templated.tokens, name)(lambda header, payload: None.query(payload))
    token = made(templated, create_access_token, "alice")
    assert raw.get(path, headers=bearer(token)).status_code == 500
