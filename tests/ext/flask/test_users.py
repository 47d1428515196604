# ruff: noqa: PLR0917 - tables of cases
"""The app's own users behind credentials: how they are found, who of them counts, and what the app may answer."""

import asyncio
import functools

import pytest
from flask import g, jsonify, render_template_string

from jam.errors import ConfigError, InvalidValue, TokenInvalid
from jam.ext.flask import (
    AnonymousUserMixin,
    Authenticated,
    HasRole,
    JamExtension,
    JWTExtension,
    SessionExtension,
    UserMixin,
    checkpoint,
    create_access_token,
    create_refresh_token,
    current_identity,
    current_user,
    decode_token,
    get_current_user,
    get_jwt_identity,
    jwt_required,
    verify_jwt_in_request,
)
from tests.ext.flask.callers import SAME_ORIGIN, answer, bearer, cookies, raw_client

NOBODY = (401, "authentication_required")
GONE = (401, "user_unknown")


class User(UserMixin):
    def __init__(self, name, *, is_active=True, roles=()):
        self.id = name
        self.active = is_active
        self.roles = roles

    @property
    def is_active(self):
        return self.active


def plainly(function):
    return function


def asynchronously(function):
    @functools.wraps(function)
    async def loader(*args):
        await asyncio.sleep(0)
        return function(*args)

    return loader


BOTH = pytest.mark.parametrize("kind", [plainly, asynchronously])
VIEWS = pytest.mark.parametrize("path", ["/", "/async"])


@pytest.fixture
def users():
    return {name: User(name) for name in ("alice", "bob")}


@pytest.fixture
def extension(app, jam):
    app.config["JWT_TOKEN_LOCATION"] = ["headers", "cookies"]
    extension = JWTExtension(jam, app)

    @app.route("/", methods=["GET", "POST"])
    @jwt_required()
    def sync_view():
        return {"user": current_user.id}

    @app.get("/async")
    @jwt_required()
    async def async_view():
        return {"user": current_user.id}

    @app.get("/optional")
    @jwt_required(optional=True)
    def optional():
        return {"anonymous": current_user.is_anonymous, "subject": current_identity.subject}

    @app.get("/lazy")
    async def lazy():
        return {"user": current_user.get_id()}

    @app.get("/refresh")
    @jwt_required(refresh=True)
    def refresh():
        return {"user": current_user.id}

    @app.get("/fresh")
    @jwt_required(fresh=True)
    def fresh():
        return "in"

    @app.get("/verify")
    def verify():
        verify_jwt_in_request()
        return "in"

    @app.get("/admin")
    @checkpoint(HasRole("admin"))
    def admin():
        return "in"

    return extension


@pytest.fixture
def ask(app, extension):
    """Sends a request and gives the response; without cookies of its own."""

    def send(path="/", token=None, method="GET", headers=None):
        headers = {**(headers or {}), **({} if token is None else bearer(token))}
        return raw_client(app).open(path, method=method, headers=headers)

    return send


def calls(app, function, *args, **options):
    with app.app_context():
        return function(*args, **options)


# -- finding them -------------------------------------------------------------------------------------------


@BOTH
@VIEWS
def test_user_loader_finds_the_current_user(extension, ask, users, token, kind, path):
    extension.user_loader(kind(users.get))
    assert ask(path, token).json == {"user": "alice"}


@BOTH
@VIEWS
def test_user_lookup_loader_is_given_header_and_payload(extension, ask, users, token, kind, path):
    given = []

    @extension.user_lookup_loader
    @kind
    def lookup(header, payload):
        given.append((header["typ"], payload["sub"]))
        return users[payload["sub"]]

    assert ask(path, token).json == {"user": "alice"}
    assert given == [("at+jwt", "alice")]


@BOTH
def test_current_user_is_found_lazily_within_an_async_view(extension, ask, users, token, kind):
    extension.user_loader(kind(users.get))
    assert ask("/lazy", token).json == {"user": "alice"}
    assert ask("/lazy").json == {"user": None}


@BOTH
def test_a_refresh_token_has_a_user_too(extension, ask, users, jam, kind):
    extension.user_lookup_loader(kind(lambda header, payload: users.get(payload["sub"])))
    assert ask("/refresh", jam.refresh_tokens.issue("bob")).json == {"user": "bob"}


def test_the_app_is_asked_once_in_a_request(extension, app, ask, users, token):
    asked = []
    extension.user_loader(lambda subject: asked.append(subject) or users[subject])
    app.get("/often")(jwt_required()(lambda: [current_user.id, get_current_user().id, g.payload["sub"]]))
    assert ask("/often", token).json == ["alice"] * 3
    assert asked == ["alice"]


def test_the_user_of_one_request_is_not_that_of_the_next(extension, ask, users, jam, token):
    extension.user_loader(users.get)
    assert ask("/", token).json == {"user": "alice"}
    assert ask("/", jam.access_tokens.issue("bob")).json == {"user": "bob"}


def test_without_a_loader_current_user_says_what_is_missing(ask, token):
    with pytest.raises(ConfigError, match="how to find its users"):
        ask("/", token)


def test_without_a_loader_nobody_is_an_anonymous_user(ask):
    assert ask("/optional").json == {"anonymous": True, "subject": None}


def test_outside_a_request_the_user_is_anonymous():
    assert not current_user
    assert isinstance(get_current_user(), AnonymousUserMixin)


def test_templates_know_the_current_user(extension, app, ask, users, token):
    extension.user_loader(users.get)
    app.get("/page")(lambda: render_template_string("{{ current_user.id if current_user else 'nobody' }}"))
    assert ask("/page", token).text == "alice"
    assert ask("/page").text == "nobody"


@pytest.mark.parametrize("early", [True, False])
def test_loaders_count_whether_they_come_before_or_after_init_app(new_app, jam, users, token, early):
    extension, app = JWTExtension(jam), new_app()
    if early:
        extension.user_loader(users.get)
    extension.init_app(app)
    if not early:
        extension.user_loader(users.get)
    app.get("/")(jwt_required()(lambda: current_user.id))
    assert raw_client(app).get("/", headers=bearer(token)).text == "alice"


def test_a_loader_that_comes_after_the_first_request_counts_from_then_on(extension, app, ask, token):
    app.get("/subject")(jwt_required()(get_jwt_identity))
    assert ask("/subject", token).text == "alice"
    extension.user_loader(lambda subject: None)
    assert answer(ask("/subject", token)) == GONE


def test_two_apps_that_share_an_extension_share_its_loaders(new_app, jam, users, token):
    extension, apps = JWTExtension(jam), [new_app(), new_app()]
    extension.user_loader(users.get)
    for app in apps:
        extension.init_app(app)
        app.get("/")(jwt_required()(lambda: current_user.id))
    assert [raw_client(app).get("/", headers=bearer(token)).text for app in apps] == ["alice", "alice"]


def test_a_loader_of_one_app_is_not_asked_by_another(new_app, jam, token):
    one, other = new_app(), new_app()
    JWTExtension(jam, one).user_loader(lambda subject: None)
    JWTExtension(jam, other)
    for app in (one, other):
        app.get("/")(jwt_required()(lambda: "in"))
    assert answer(raw_client(one).get("/", headers=bearer(token))) == GONE
    assert raw_client(other).get("/", headers=bearer(token)).text == "in"


def test_a_user_loader_of_any_extension_serves_sessions_and_tokens(new_app, jam, users, token, handle):
    app = new_app()
    JamExtension(jam, app).user_loader(users.get)
    JWTExtension(jam, app)
    SessionExtension(jam, app)
    app.get("/")(checkpoint(Authenticated())(lambda: current_user.id))
    client = raw_client(app)
    assert client.get("/", headers=bearer(token)).text == "alice"
    assert client.get("/", headers=cookies(("sessionId", handle))).text == "bob"


@pytest.mark.parametrize("loader", [None, "users", 7])
def test_a_loader_is_a_function(extension, loader):
    with pytest.raises(ConfigError, match="takes a function"):
        extension.user_loader(loader)


# -- who counts ---------------------------------------------------------------------------------------------


@BOTH
@VIEWS
def test_asvs_7_4_2_a_deleted_users_token_opens_nothing_from_the_next_request_on(
    extension, ask, users, token, kind, path
):
    extension.user_loader(kind(users.get))
    assert ask(path, token).status_code == 200
    del users["alice"]
    assert answer(ask(path, token)) == GONE


@BOTH
@VIEWS
def test_asvs_7_4_2_a_deactivated_user_is_403(extension, ask, users, token, kind, path):
    extension.user_loader(kind(users.get))
    users["alice"].active = False
    assert answer(ask(path, token)) == (403, "user_inactive")


@pytest.mark.parametrize("gone", [True, False])
def test_where_a_token_is_optional_such_a_caller_is_anonymous(extension, ask, users, token, gone):
    extension.user_loader(users.get)
    if gone:
        del users["alice"]
    else:
        users["alice"].active = False
    assert ask("/optional", token).json == {"anonymous": True, "subject": None}


def test_the_answer_to_a_deleted_users_token_does_not_say_who_that_was(extension, ask, token):
    extension.user_loader(lambda subject: None)
    assert "alice" not in ask("/", token).text


def test_the_user_of_a_deleted_users_refresh_token_gets_no_new_one(extension, ask, users, jam):
    extension.user_loader(users.get)
    refresh_token = jam.refresh_tokens.issue("alice")
    del users["alice"]
    assert answer(ask("/refresh", refresh_token)) == GONE


def test_a_deleted_users_cookie_does_not_hide_somebody_elses_bearer_token(extension, ask, users, jam, token):
    extension.user_loader(users.get)
    headers = {**cookies(("access_token_cookie", jam.access_tokens.issue("gone"))), **SAME_ORIGIN}
    assert ask("/", token, headers=headers).json == {"user": "alice"}


def test_a_deleted_users_bearer_token_does_not_hide_a_good_cookie(extension, ask, users, jam, token):
    extension.user_loader(users.get)
    headers = cookies(("access_token_cookie", token))
    assert ask("/", jam.access_tokens.issue("gone"), headers=headers).json == {"user": "alice"}


def test_a_user_without_is_active_is_active(extension, app, ask, token):
    extension.user_loader(lambda subject: {"name": subject})
    app.get("/name")(jwt_required()(lambda: current_user["name"]))
    assert ask("/name", token).text == "alice"


def test_a_user_that_is_false_as_a_truth_value_is_a_user(extension, app, ask, token):
    class Empty(User):
        def __len__(self):
            return 0

    extension.user_loader(Empty)
    assert ask("/", token).json == {"user": "alice"}


def test_a_token_without_a_subject_has_no_user(extension, ask, jam):
    asked = []
    extension.user_loader(asked.append)
    assert answer(ask("/", jam.gen_jwt_token({"cart": 7}))) == NOBODY
    assert asked == []


# -- loaders that fail, and loaders that ask ----------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    "name", ["user_loader", "user_lookup_loader", "token_in_blocklist_loader", "token_verification_loader"]
)
def test_a_loader_that_raises_lets_nobody_in(extension, app, ask, token, kind, name):
    def failing(*args):
        raise LookupError("the database is gone")

    app.config["PROPAGATE_EXCEPTIONS"] = False
    getattr(extension, name)(kind(failing))
    for path in ("/", "/async", "/optional", "/lazy"):
        assert ask(path, token).status_code == 500


@BOTH
def test_an_error_page_may_ask_for_the_user_whose_loader_failed(extension, app, ask, token, kind):
    def failing(subject):
        raise LookupError("the database is gone")

    extension.user_loader(kind(failing))
    app.errorhandler(LookupError)(lambda error: ({"anonymous": current_user.is_anonymous}, 500))
    assert ask("/", token).json == {"anonymous": True}


def test_a_loader_may_refuse_with_an_error_of_jams(extension, ask, token):
    def strict(subject):
        raise TokenInvalid

    extension.user_loader(strict)
    assert answer(ask("/", token)) == (401, "token_invalid")
    assert ask("/optional", token).json["subject"] is None


@BOTH
@VIEWS
def test_a_loader_that_asks_for_the_caller_sees_nobody_yet(extension, ask, users, token, kind, path):
    seen = []

    def curious(subject):
        seen.append((current_user.is_anonymous, current_identity.subject, get_jwt_identity(), "payload" in g))
        return users[subject]

    extension.user_loader(kind(curious))
    assert ask(path, token).json == {"user": "alice"}
    assert seen == [(True, None, None, False)]


@pytest.mark.parametrize("refresh", [True, False])
def test_a_loader_that_demands_a_token_itself_does_not_go_round_in_circles(extension, ask, users, jam, refresh):
    def curious(subject):
        verify_jwt_in_request(refresh=refresh)
        return users[subject]

    extension.user_loader(curious)
    token = jam.refresh_tokens.issue("alice") if refresh else jam.access_tokens.issue("alice")
    assert ask("/refresh" if refresh else "/", token).status_code == 401


def test_nor_where_sessions_are_looked_for_too(extension, app, ask, users, jam, token):
    def curious(subject):
        verify_jwt_in_request()
        return users[subject]

    SessionExtension(jam, app)
    extension.user_loader(curious)
    assert ask("/", token).status_code == 401


# -- roles --------------------------------------------------------------------------------------------------


@BOTH
def test_roles_are_what_the_app_says_now(extension, ask, users, jam, kind):
    extension.user_loader(users.get)
    extension.get_user_roles(kind(lambda user: user.roles))
    token = jam.access_tokens.issue("alice", roles=["admin"])
    assert answer(ask("/admin", token)) == (403, "role_required")
    users["alice"].roles = ["admin"]
    assert ask("/admin", token).text == "in"


@pytest.mark.parametrize("roles", ["admin", ["admin"], {"admin"}, ("admin", "admin"), {"admin": 1}])
def test_roles_may_be_one_name_or_a_collection(extension, ask, users, token, roles):
    extension.user_loader(users.get)
    extension.get_user_roles(lambda user: roles)
    assert ask("/admin", token).text == "in"


@pytest.mark.parametrize("roles", [None, (), []])
def test_no_roles_are_no_roles(extension, ask, users, jam, roles):
    extension.user_loader(users.get)
    extension.get_user_roles(lambda user: roles)
    assert answer(ask("/admin", jam.access_tokens.issue("alice", roles=["admin"]))) == (403, "role_required")


@pytest.mark.parametrize("roles", [7, [7], [None], [""], ["admin", ["x"]], object(), True, b"admin"])
def test_roles_of_other_types_are_the_developers_mistake(extension, ask, users, token, roles):
    extension.user_loader(users.get)
    extension.get_user_roles(lambda user: roles)
    with pytest.raises(ConfigError, match="get_user_roles"):
        ask("/admin", token)


def test_a_new_token_carries_the_users_roles_of_now(extension, app, users):
    users["alice"].roles = ["b", "a"]
    extension.user_loader(users.get)
    extension.get_user_roles(lambda user: user.roles)
    token = calls(app, create_access_token, "alice")
    assert calls(app, create_access_token, users["alice"]) != token
    assert app.extensions["jam"].verify_jwt_token(token)["roles"] == ["a", "b"]


def test_a_token_that_is_asked_for_without_roles_has_none(extension, app, users):
    users["alice"].roles = ["admin"]
    extension.user_loader(users.get)
    extension.get_user_roles(lambda user: user.roles)
    token = calls(app, create_access_token, "alice", additional_claims={"roles": []})
    assert app.extensions["jam"].verify_jwt_token(token).get("roles", []) == []


# -- the app's own list and its own verdict -----------------------------------------------------------------


@BOTH
@VIEWS
@pytest.mark.parametrize("blocked", [True, False])
def test_the_apps_blocklist_is_asked(extension, ask, users, token, kind, path, blocked):
    extension.user_loader(users.get)
    extension.token_in_blocklist_loader(kind(lambda header, payload: blocked))
    expected = (401, "token_revoked") if blocked else (200, None)
    assert answer(ask(path, token)) == expected


@BOTH
@VIEWS
@pytest.mark.parametrize("good", [True, False])
def test_the_apps_verdict_is_asked(extension, ask, users, token, kind, path, good):
    extension.user_loader(users.get)
    extension.token_verification_loader(kind(lambda header, payload: good))
    expected = (200, None) if good else (401, "claims_refused")
    assert answer(ask(path, token)) == expected


@pytest.mark.parametrize("name", ["token_in_blocklist_loader", "token_verification_loader"])
@pytest.mark.parametrize("verdict", [None, "no", [], object(), 0.0])
def test_what_is_neither_yes_nor_no_lets_nobody_in(extension, ask, token, name, verdict):
    getattr(extension, name)(lambda header, payload: verdict)
    with pytest.raises(ConfigError, match=name):
        ask("/", token)


def test_the_blocklist_is_asked_about_refresh_tokens_too(extension, ask, jam):
    extension.token_in_blocklist_loader(lambda header, payload: payload["type"] == "refresh")
    assert answer(ask("/refresh", jam.refresh_tokens.issue("alice"))) == (401, "token_revoked")


@pytest.mark.parametrize("name", ["token_in_blocklist_loader", "token_verification_loader", "user_lookup_loader"])
def test_no_function_of_the_app_ever_sees_an_unverified_token(extension, ask, token, name):
    seen = []
    getattr(extension, name)(lambda header, payload: seen.append(payload))
    header, payload, signature = token.split(".")
    for bad in (f"{header}.{payload}.{signature[::-1]}", f"{header}.{payload}.", "a.b.c", "garbage"):
        assert answer(ask("/", bad)) == (401, "token_invalid")
    assert seen == []


def test_a_session_is_not_asked_about_as_a_token(app, jam, extension, handle):
    SessionExtension(jam, app)
    extension.token_in_blocklist_loader(lambda header, payload: True)
    app.get("/known")(checkpoint(Authenticated())(lambda: current_identity.subject))
    assert raw_client(app).get("/known", headers=cookies(("sessionId", handle))).text == "bob"


# -- subjects -----------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("make", [create_access_token, create_refresh_token])
def test_user_identity_loader_makes_a_subject_of_what_was_given(extension, app, kind, make):
    extension.user_identity_loader(kind(lambda user: f"user-{user['no']}"))
    token = calls(app, make, {"no": 7})
    assert calls(app, decode_token, token)["sub"] == "user-7"


@pytest.mark.parametrize("subject", [None, "", 7, b"x", ["x"]])
def test_user_identity_loader_gives_a_string(extension, app, subject):
    extension.user_identity_loader(lambda user: subject)
    with pytest.raises(InvalidValue, match="identity"):
        calls(app, create_access_token, "alice")


def test_a_user_is_an_identity(extension, app, users):
    assert app.extensions["jam"].verify_jwt_token(calls(app, create_access_token, users["bob"]))["sub"] == "bob"


def test_a_user_with_a_number_for_an_id_has_it_as_a_string(extension, app):
    assert app.extensions["jam"].verify_jwt_token(calls(app, create_access_token, User(7)))["sub"] == "7"


@BOTH
def test_the_claims_loader_is_given_what_the_maker_was_given(extension, app, users, kind):
    extension.additional_claims_loader(kind(lambda user: {"plan": user.id * 2}))
    token = calls(app, create_access_token, users["bob"])
    assert app.extensions["jam"].verify_jwt_token(token)["plan"] == "bobbob"


# -- UserMixin ----------------------------------------------------------------------------------------------


def test_a_user_of_the_mixin_is_somebody_active():
    user = type("Plain", (UserMixin,), {"id": 7})()
    assert (user.is_active, user.is_authenticated, user.is_anonymous, user.get_id()) == (True, True, False, "7")


def test_nobody_is_neither():
    nobody = AnonymousUserMixin()
    assert (nobody.is_active, nobody.is_authenticated, nobody.is_anonymous) == (False, False, True)
    assert nobody.get_id() is None
    assert not nobody


def test_two_objects_of_one_user_are_equal_and_of_two_are_not():
    assert User(7) == User(7)
    assert User(7) != User(8)
    assert User(7) != "7"


def test_users_that_are_not_saved_yet_can_be_compared():
    one, other = User(None), User(None)
    assert one == one  # noqa: PLR0124 - that is the question
    assert one != other
    assert one != User(7)


def test_a_user_that_is_not_saved_yet_cannot_sign_in(extension, app):
    with pytest.raises(InvalidValue, match="without an id"):
        calls(app, create_access_token, User(None))


def test_the_current_user_equals_the_apps_own_object(extension, app, ask, users, token):
    extension.user_loader(users.get)
    app.get("/same")(jwt_required()(lambda: [current_user == users["alice"], users["alice"] == current_user]))
    assert ask("/same", token).json == [True, True]


# -- the app's own answers ----------------------------------------------------------------------------------


def own(*args):
    return jsonify(given=[*args]), 418


def own_of(header, payload):
    return jsonify(typ=header.get("typ"), sub=payload.get("sub")), 418


ABOUT_A_TOKEN = {"typ": "at+jwt", "sub": "alice"}


@BOTH
@pytest.mark.parametrize("path", ["/", "/async", "/verify"])
def test_unauthorized_loader_answers_where_no_token_came(extension, ask, kind, path):
    extension.unauthorized_loader(kind(own))
    response = ask(path)
    assert (response.status_code, response.json) == (418, {"given": ["Authentication is required."]})


@BOTH
@pytest.mark.parametrize("path", ["/", "/async", "/verify", "/refresh"])
def test_invalid_token_loader_answers_to_what_is_no_good_token(extension, ask, kind, path):
    extension.invalid_token_loader(kind(own))
    response = ask(path, "garbage")
    assert (response.status_code, response.json) == (418, {"given": ["The token is not valid."]})


@BOTH
@pytest.mark.parametrize("path", ["/", "/async", "/verify"])
def test_expired_token_loader_is_given_the_expired_token(extension, ask, token, clock, kind, path):
    extension.expired_token_loader(kind(own_of))
    clock.move(86401)
    response = ask(path, token)
    assert (response.status_code, response.json) == (418, ABOUT_A_TOKEN)


def test_expired_token_loader_answers_to_a_refresh_token_too(extension, ask, jam, clock):
    extension.expired_token_loader(own_of)
    token = jam.refresh_tokens.issue("alice")
    clock.move(31 * 86400)
    response = ask("/refresh", token)
    assert (response.status_code, response.json) == (418, {"typ": "refresh+jwt", "sub": "alice"})


@pytest.mark.parametrize("cookie", ["garbage", "expired"])
def test_expired_token_loader_is_given_the_token_whose_expiry_it_is(extension, ask, jam, clock, cookie):
    """Not the one that was looked at last."""
    extension.expired_token_loader(own_of)
    token, other = jam.access_tokens.issue("alice"), jam.access_tokens.issue("bob")
    clock.move(86401)
    value = "garbage" if cookie == "garbage" else other
    assert ask("/", token, headers=cookies(("access_token_cookie", value))).json == ABOUT_A_TOKEN


@BOTH
def test_revoked_token_loader_is_given_the_revoked_token(extension, ask, token, jam, kind):
    extension.revoked_token_loader(kind(own_of))
    jam.access_tokens.revoke(token)
    assert ask("/", token).json == ABOUT_A_TOKEN


def test_revoked_token_loader_answers_to_a_refresh_token_that_was_used_twice(extension, ask, jam, clock):
    extension.revoked_token_loader(own_of)
    token = jam.refresh_tokens.issue("alice")
    jam.refresh_tokens.rotate(token)
    clock.move(301)
    assert ask("/refresh", token).json == {"typ": "refresh+jwt", "sub": "alice"}


@BOTH
def test_needs_fresh_token_loader_is_given_the_stale_token(extension, ask, token, kind):
    extension.needs_fresh_token_loader(kind(own_of))
    assert ask("/fresh", token).json == ABOUT_A_TOKEN


@BOTH
def test_token_verification_failed_loader_is_given_the_refused_token(extension, ask, token, kind):
    extension.token_verification_loader(lambda header, payload: False)
    extension.token_verification_failed_loader(kind(own_of))
    assert ask("/", token).json == ABOUT_A_TOKEN


@BOTH
def test_user_lookup_error_loader_is_given_the_token_whose_user_is_gone(extension, ask, token, kind):
    extension.user_loader(lambda subject: None)
    extension.user_lookup_error_loader(kind(own_of))
    assert ask("/", token).json == ABOUT_A_TOKEN


def test_one_loader_does_not_answer_for_another(extension, ask, token, clock):
    extension.invalid_token_loader(own)
    clock.move(86401)
    assert answer(ask("/", token)) == (401, "token_expired")


def test_a_loader_that_gives_none_leaves_the_answer_to_jam(extension, ask):
    extension.unauthorized_loader(lambda message: None)
    assert answer(ask()) == NOBODY


def test_an_own_401_still_says_how_to_authenticate(extension, ask):
    extension.unauthorized_loader(lambda message: ({"msg": message}, 401))
    assert ask().headers["WWW-Authenticate"].startswith("Bearer")


def test_where_a_token_is_optional_no_own_answer_is_asked_for(extension, ask, token, clock):
    extension.expired_token_loader(own_of)
    clock.move(86401)
    assert ask("/optional", token).status_code == 200


def test_own_answers_come_before_the_apps_error_handlers(extension, app, ask):
    extension.unauthorized_loader(lambda message: ("mine", 401))
    app.register_error_handler(401, lambda error: ("handler", 401))
    assert ask().text == "mine"
    assert ask("/", "garbage").text == "handler"
