"""The API's own description: sound, complete, and true of what the app does with everything that is sent to it."""

import re
import secrets

import pytest
import schemathesis.core
import schemathesis.openapi
from hypothesis import HealthCheck, Phase, given, settings
from openapi_spec_validator import validate
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from jam import Jam
from jam.accounts.sql_users import open_users
from jam.crypto.handles import split_api_token
from jam.errors import JamError
from tests.ext.flask.accounts.conftest import OTHER_PASSWORD, PASSWORD, Site, basic
from tests.ext.flask.callers import CROSS_SITE, SAME_ORIGIN, bearer


def code_conformance(context, response, case):
    """The code of an error is one of those that the description of its status names."""
    if response.status_code >= 400:
        described = case.operation.definition.raw["responses"][str(response.status_code)]["description"]
        assert f"`{response.json()['code']}`" in described, f"{response.json()['code']} is not among {described}"


CHECKS = [
    code_conformance,
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
BOUNDED = settings(
    max_examples=4, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None
)
MUCH = {
    f"JAM_THROTTLING_{name}": 1_000_000
    for name in ("ATTEMPTS", "ATTEMPTS_PER_ADDRESS", "ATTEMPTS_PER_ACCOUNT", "MAILS", "MAILS_PER_ADDRESS")
}


def document(site):
    return site.client().get("/auth/openapi.json").json


def operations(found):
    for path, by_method in found["paths"].items():
        for method, operation in by_method.items():
            yield method.upper(), path, operation


def own_routes(app):
    """What the app has of accounts, as OpenAPI writes it."""
    for rule in app.url_map.iter_rules():
        if rule.endpoint.startswith("jam_"):
            for method in rule.methods - {"HEAD", "OPTIONS"}:
                yield method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)


# -- what it says -------------------------------------------------------------------------------------------


def test_the_description_is_sound(site):
    found = document(site)
    validate(found)
    assert found["openapi"].startswith("3.1")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"url_prefix": "/account", "api_prefix": "/v1"},
        {"api_prefix": None},
        {"url_prefix": "/", "api_prefix": "/v1/"},
    ],
)
def test_every_route_is_described_and_nothing_else(new_site, options):
    site = new_site(**options)
    found = site.client().get(f"{options.get('url_prefix', '/auth').rstrip('/')}/openapi.json").json
    validate(found)
    assert sorted((method, path) for method, path, _ in operations(found)) == sorted(own_routes(site.app))


def test_every_route_says_what_it_is_about_and_what_it_answers(site):
    names = set()
    for _, path, operation in operations(document(site)):
        assert operation["summary"], path
        assert operation["tags"], path
        assert any(status.startswith("2") for status in operation["responses"]), path
        names.add(operation["operationId"])
    assert len(names) == len(list(own_routes(site.app)))


def test_what_is_described_as_guarded_is_guarded_and_the_rest_is_open(site):
    for method, path, operation in operations(document(site)):
        is_open = operation["security"] == [] or {} in operation["security"]
        response = site.client().open(re.sub(r"\{\w+\}", "x", path), method=method)
        refused = response.status_code == 401 and response.json["code"] == "authentication_required"
        if path in ("/auth/refresh", "/api/users") and method == "POST":
            continue  # see below
        assert refused != is_open, (method, path)


def test_a_refresh_token_may_come_in_the_body(site):
    operation = document(site)["paths"]["/auth/refresh"]["post"]
    assert operation["security"] == [{}, {"refresh_token": []}]


def test_making_users_may_take_a_credential(site):
    operation = document(site)["paths"]["/api/users"]["post"]
    assert operation["security"] == [{}, {"bearer": []}, {"session": []}]
    assert {"401", "403"} <= set(operation["responses"])


def test_every_code_that_a_description_names_belongs_to_its_status(site):
    def everything(error):
        return {error, *(one for each in error.__subclasses__() for one in everything(each))}

    status_of = {one.code: str(one.status) for one in everything(JamError)}
    status_of |= {"api_token_not_found": "404", "login_not_found": "404", "unsupported_token_type": "400"}
    for _, path, operation in operations(document(site)):
        for status, response in operation["responses"].items():
            for code in re.findall(r"`(\w+)`", response["description"]):
                assert status_of[code] == status, (path, code)


def test_the_apps_own_fields_are_described(new_site, tmp_path):
    class Users:
        def __init__(self, users):
            self._users = users
            self.profile, self.writable = ("about_me", "last_seen"), frozenset({"about_me"})

        def __getattr__(self, name):
            return getattr(self._users, name)

    site = new_site(users=Users(open_users(f"sqlite:///{tmp_path}/people.sqlite3")))
    schemas = document(site)["components"]["schemas"]
    assert {"about_me", "last_seen"} <= set(schemas["User"]["properties"])
    for name in ("UserChange", "RegistrationRequest"):
        assert "about_me" in schemas[name]["properties"]
        assert not {"last_seen", "more", "roles", "id"} & set(schemas[name]["properties"])
        assert schemas[name]["additionalProperties"] is False


def test_the_description_names_no_secret_and_is_for_everybody(site):
    response = site.client().get("/auth/openapi.json")
    assert response.status_code == 200
    assert site.jam.settings.secret.value.decode() not in response.text


# -- whether it is true -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def described(tmp_path_factory, secret):
    """One app for all of this, with a manager, and its description without what would excuse everything."""
    folder = tmp_path_factory.mktemp("described")
    site = Site(
        Jam({"secret": secret}),
        open_users(f"sqlite:///{folder}/people.sqlite3"),
        config={"JAM_ACCOUNTS_OPEN_REGISTRATION": True, "JAM_ACCOUNTS_BASE_URL": "http://localhost", **MUCH},
    )
    site.manager = site.person("manager", roles={"admin"}, scopes={"users:write"})
    site.gone = site.person("gone", is_active=False)
    found = document(site)
    for _, _, operation in operations(found):
        del operation["responses"]["default"]
    site.schema = schemathesis.openapi.from_dict(found)
    site.schema.app = site.app
    yield site
    site.accounts.outbox.join(30)
    site.users.close()


def nobody(site):
    return {}, {}


def a_manager(site):
    token = site.jam.access_tokens.issue(
        site.manager.subject, claims={"type": "access", "fresh": True}, authenticated_at=site.jam.clock()
    )
    return bearer(token), {}


def a_browser(site):
    return SAME_ORIGIN, {"sessionId": site.jam.sessions.create(site.manager.subject)}


def a_forged_browser(site):
    return CROSS_SITE, {"sessionId": site.jam.sessions.create(site.manager.subject)}


def an_api_token(site):
    token = site.jam.api_tokens.create(site.manager.subject, "a script", scopes=["users:write"], lifetime=3600)
    return bearer(token), {}


def a_password(site):
    return basic("manager"), {}


def nonsense(site):
    return bearer("nonsense"), {"sessionId": "nonsense"}


def somebody_inactive(site):
    return bearer(site.jam.access_tokens.issue(site.gone.subject)), {}


CALLERS = [nobody, somebody_inactive, a_manager, a_browser, a_forged_browser, an_api_token, a_password, nonsense]


def restore(site):
    """The manager, as they were: some requests deactivate or delete them."""
    with site.app.app_context():
        account = site.users.get(site.manager.subject)
        if account is None:
            site.manager = site.person("manager", email="manager@example.org", roles={"admin"}, scopes={"users:write"})
        else:
            rights = {"roles": {"admin"}, "scopes": {"users:write"}, "is_active": True, "password_hash": site.hashed}
            site.users.update(account.subject, rights)
    for token in site.jam.api_tokens.list(site.manager.subject):
        site.jam.api_tokens.revoke_by_id(site.manager.subject, token.id)


@pytest.mark.parametrize("caller", CALLERS, ids=lambda caller: caller.__name__)
def test_the_app_does_what_its_description_says_with_everything(described, caller):
    for found in described.schema.get_all_operations():
        operation = found.ok()
        wrong = [GenerationMode.NEGATIVE] if operation.body or operation.query else []  # if anything can be wrong
        for mode in [GenerationMode.POSITIVE, *wrong]:

            @BOUNDED
            @given(case=operation.as_strategy(generation_mode=mode))
            def call(case):
                restore(described)
                headers, cookies = caller(described)
                case.call_and_validate(headers=headers, cookies=cookies, checks=CHECKS)

            call()


def test_what_every_operation_answers_if_all_is_well_is_as_it_is_described(described):
    succeeded = set()
    for caller in CALLERS:
        for method, path, operation in operations(document(described)):
            restore(described)
            headers, cookies = caller(described)
            known = described.schema[path][method]
            subject = described.manager.subject
            script, _ = split_api_token(described.jam.api_tokens.create(subject, "another script"))
            described.jam.sessions.create(subject)
            login = described.jam.logins.list(subject)[0].id
            variables = {"user_id": subject, "token_id": script, "login_id": login}
            case = known.Case(
                path_parameters={name: variables[name] for name in re.findall(r"\{(\w+)\}", path)},
                body=sample(described, operation) if known.body else schemathesis.core.NOT_SET,
                media_type="application/json" if known.body else None,
            )
            response = case.call_and_validate(headers=headers, cookies=cookies, checks=CHECKS)
            if response.status_code < 300:
                succeeded.add(known.label)
    everything = {found.ok().label for found in described.schema.get_all_operations()}
    assert everything - succeeded == ONLY_BY_A_LINK


ONLY_BY_A_LINK = {
    "POST /auth/api/continue",
    "POST /auth/sign-in/continue",
    "POST /auth/sign-in/resend",
    "POST /auth/register/confirm",
    "POST /auth/verify",
    "POST /auth/email/confirm",
    "POST /auth/reset",
}


def sample(site, operation):
    """A body with all that is needed, and right as far as it can be without a link from a mail."""
    name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    values = {
        "username": f"user{secrets.token_hex(4)}" if name == "RegistrationRequest" else "manager",
        "email": f"{secrets.token_hex(4)}@example.org",
        "password": PASSWORD,
        "current_password": PASSWORD,
        "new_password": OTHER_PASSWORD,
    }
    schema = document(site)["components"]["schemas"][name]
    given = {field: values.get(field, "x" * 20) for field in schema.get("required", [])}
    if name == "Refresh":
        given["refresh_token"] = site.jam.refresh_tokens.issue(site.manager.subject)
    return given
