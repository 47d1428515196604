"""Where people go after signing in: back to where they were, and never to another site (ASVS 3.7.2)."""

import re
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from flask import redirect, request, session
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jam.ext.flask import SessionExtension, login_required, login_url, next_url
from jam.ext.flask.next_url import is_on_this_site
from tests.ext.flask.callers import PAGE, SAME_ORIGIN

HERE = ("https", "shop.example")
SPECIAL = {"http", "https", "ws", "wss", "ftp", "file"}  # the schemes for which a backslash is a slash

# Each of them leads a browser away from https://shop.example, or runs a script.
AWAY = [
    "https://evil.example",
    "http://shop.example/",
    "HTTPS://evil.example/x",
    "http:evil.example",
    "//evil.example",
    "///evil.example",
    "////evil.example/x",
    "/\\evil.example",
    "\\/evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "/\r\n/evil.example",
    "\t//evil.example",
    " //evil.example",
    "\x00//evil.example",
    "\x1f\x01//evil.example",
    "/\t\\evil.example",
    "\\\t/evil.example",
    "//shop.example@evil.example",
    "//shop.example:443@evil.example/",
    "//evil.example#@shop.example",
    "ht\ntps://evil.example",
    "javascript:alert(1)",
    "java\tscript:alert(1)",
    " javascript:alert(1)",
    "\x01javascript:alert(1)",
    "data:text/html,x",
    "mailto:a@evil.example",
    "//[::1]/",
    "//127.0.0.1",
    "//2130706433/",
    "//evil。example",
    "//evil%E3%80%82example",
    "https://shop.example.evil.example/",
    "//shop.example:8443/",
]  # fmt: skip

PLAIN = [
    "/",
    "/x",
    "/x/y?z=1&w=%2F%2Fevil.example",
    "/x?next=//evil.example",
    "/:80",
    "/@evil.example",
    "/x//y",
    "/ü",
    "/x#y",
]


def opened(target, base=HERE):
    """Scheme and host that a browser on ``base`` opens for a link to ``target``: the URL standard, 4.4."""
    target = re.sub(r"[\t\n\r]", "", target.strip("".join(map(chr, range(0x21)))))
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", target, re.DOTALL)
    scheme, rest = (found[1].lower(), found[2]) if found else (base[0], target)
    if scheme not in SPECIAL:
        return scheme, None
    slashes = re.match(r"[/\\]*", rest)[0]
    if scheme == base[0] and len(slashes) < 2:
        return base  # relative, also "https:x" from a page by https
    authority = re.split(r"[/\\?#]", rest[len(slashes) :], maxsplit=1)[0]
    return scheme, authority.rpartition("@")[2].lower()


def stays(target):
    return opened(target) == HERE


hostile = st.lists(
    st.sampled_from([
        "/", "\\", "//", "\t", "\n", "\r", "\x00", "\x0b", "\x1f", " ", "\x7f", "\x85", "\xa0", "\u2028", "\u3000",
        "／", "。", "%2f", "%5c", "%09", "%00", ".", "..", ":", "@", "?", "#", ";", "[", "]", "https:", "http://",
        "javascript:", "evil.example", "shop.example", "x",
    ]),
    max_size=8,
).map("".join)  # fmt: skip
targets = st.one_of(hostile, st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
forgiving = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def site(app, jam):
    app.sessions = SessionExtension(jam, app)
    app.sessions.login_view = "sign_in"

    @app.route("/sign-in", methods=["GET", "POST"])
    def sign_in():
        return redirect(next_url())

    @app.route("/where", methods=["GET", "POST"])
    def where():
        return {"next": next_url("/fallback")}

    @app.get("/")
    @app.get("/<path:rest>")
    @login_required
    def page(rest=""):
        return {"rest": rest}

    return app


def asked(site, target, **config):
    """What ``next_url`` makes of a ``next`` in the query string."""
    site.config.update(config)
    with site.test_request_context("/sign-in", query_string={"next": target}):
        return next_url("/fallback")


# -- what the tests themselves rest on ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "target", ["https:x", "x", "/x", "?x", "#x", "", ".//evil.example", "/.//evil.example", "/%09/x"]
)
def test_a_browser_stays_where_the_url_standard_says_so(target):
    assert stays(target)


@pytest.mark.parametrize("target", AWAY)
def test_a_browser_leaves_where_the_url_standard_says_so(target):
    assert not stays(target)


# -- away ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", AWAY)
def test_asvs_3_7_2_what_leads_away_is_replaced_by_the_fallback(site, target):
    assert asked(site, target) == "/fallback"


@pytest.mark.parametrize("target", ["", "x", "x/y", "https:x", "https:/x", "?x=1", "#x", ".", "..", "./x"])
def test_what_is_no_path_from_the_root_is_replaced_by_the_fallback(site, target):
    assert asked(site, target) == "/fallback"


@forgiving
@given(target=targets)
@example("/\t/evil.example")
@example("/.//evil.example")
@example("/;//evil.example")
@example("/[//evil.example")
def test_asvs_3_7_2_whatever_is_asked_for_the_browser_stays_on_the_site(site, target):
    assert stays(asked(site, target))


@forgiving
@given(target=targets)
@example("/.//evil.example")
@example("/?#//[")
def test_asvs_3_7_2_whatever_is_asked_for_the_redirect_stays_on_the_site(site, target):
    with site.test_request_context("/sign-in", query_string={"next": target}):
        location = redirect(next_url()).get_wsgi_headers(request.environ)["Location"]
    assert stays(location)
    assert location.isascii()


@forgiving
@given(target=targets)
def test_asvs_3_7_2_what_is_said_to_be_on_this_site_is_there_from_http_too(target):
    if is_on_this_site(target):
        assert opened(target, ("http", "shop.example")) == ("http", "shop.example")


@pytest.mark.parametrize("target", AWAY)
def test_asvs_3_7_2_a_hostile_target_in_the_form_is_replaced_too(site, target):
    answer = site.test_client().post("/where", data={"next": target}, headers=SAME_ORIGIN)
    assert answer.json == {"next": "/fallback"}


@pytest.mark.parametrize("target", AWAY)
def test_asvs_3_7_2_a_hostile_target_in_the_session_is_replaced_too(site, target):
    site.config["USE_SESSION_FOR_NEXT"] = True
    with site.test_request_context("/sign-in"):
        session["next"] = target
        assert next_url("/fallback") == "/fallback"


@pytest.mark.parametrize("first", ["/x", "//evil.example"])
def test_of_several_targets_none_slips_through(site, first):
    with site.test_request_context(f"/sign-in?next={quote(first)}&next=//evil.example"):
        assert next_url("/fallback") == ("/x" if first == "/x" else "/fallback")


@pytest.mark.parametrize(
    "raw", ["%ff%fe", "%c0%af%c0%afevil.example", "%2F%2Fevil.example", "%5C%5Cevil.example", "%00"]
)
def test_asvs_3_7_2_bytes_that_are_no_text_lead_nowhere(site, raw):
    with site.test_request_context(f"/sign-in?next={raw}"):
        assert next_url("/fallback") == "/fallback"


# -- back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", PLAIN)
def test_a_path_of_this_site_is_where_people_go(site, target):
    assert asked(site, target) == target


def test_without_a_target_people_go_to_the_fallback(site):
    with site.test_request_context("/sign-in"):
        assert (next_url(), next_url("/home")) == ("/", "/home")


def test_the_parameter_may_have_another_name(site):
    with site.test_request_context("/sign-in?back=/x&next=/y"):
        assert next_url(next_field="back") == "/x"
        assert login_url("sign_in", "/z", next_field="back") == "/sign-in?back=%2Fz"


def test_a_login_url_keeps_the_query_of_the_login_view(site):
    with site.test_request_context("/"):
        assert login_url("/sign-in?lang=de", "/x?y=1") == "/sign-in?lang=de&next=%2Fx%3Fy%3D1"


def test_a_login_url_without_a_way_back_is_the_login_view(site):
    with site.test_request_context("/"):
        assert (login_url("sign_in"), login_url("https://sso.example/in")) == ("/sign-in", "https://sso.example/in")


@forgiving
@given(target=targets)
def test_asvs_3_7_2_a_login_url_carries_no_other_host(site, target):
    with site.test_request_context("/"):
        try:
            url = login_url("sign_in", target)
        except ValueError:  # no URL at all, for Python
            return
    (back,) = parse_qs(urlsplit(url).query, keep_blank_values=True)["next"]
    assert asked(site, back) in {back, "/fallback"}
    assert stays(asked(site, back))


def back_to(site, path):
    """Path and query where somebody ends who is sent to sign in from ``path``, as the app sees them."""
    client = site.test_client()
    sent = client.get(path, headers=PAGE)
    assert sent.status_code == 302
    return_to = client.get(sent.headers["Location"], headers=PAGE).headers["Location"]
    with site.test_request_context(return_to):
        return request.path, request.query_string


@pytest.mark.parametrize(
    "path",
    ["/my%20page", "/my%20page?x=1", "/a%3Fb", "/a%23b?c", "/100%25", "/a%2541", "/%C3%BC", "/a%5Cb", "/%5Cevil.example",
     "/p?q=a%20b+c&d=%2F%23", "/p?", "/a:b", "/p?q=a%5Cb", "/p?q=http://evil.example", "/%7Ex", "/a;b=c"],
)  # fmt: skip
def test_who_had_to_sign_in_comes_back_to_the_very_page(site, path):
    with site.test_request_context(path):
        wanted = request.path, request.query_string
    assert back_to(site, path) == wanted


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    # No control characters: a route's <path:...> does not match a line break.
    path=st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/."), min_size=1, max_size=12),
    query=st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
def test_whatever_the_page_is_called_people_come_back_to_it(site, path, query):
    asked_for = f"/{quote(path, safe='')}" + (f"?q={quote(query, safe='')}" if query else "")
    assert back_to(site, asked_for) == ("/" + path, f"q={quote(query, safe='')}".encode() if query else b"")


def test_a_page_below_a_mount_point_is_come_back_to(site):
    client = site.test_client()
    sent = client.get("/page?x=1", headers=PAGE, environ_overrides={"SCRIPT_NAME": "/shop"})
    assert sent.headers["Location"] == "/shop/sign-in?next=%2Fshop%2Fpage%3Fx%3D1"


def test_a_page_of_another_host_header_is_come_back_to_by_its_path_alone(site):
    sent = site.test_client().get("/x", headers=PAGE, base_url="http://evil.example")
    assert sent.headers["Location"] == "/sign-in?next=%2Fx"


def test_the_way_back_may_be_kept_in_the_session(site):
    site.config["USE_SESSION_FOR_NEXT"] = True
    client = site.test_client()
    sent = client.get("/x?y=1", headers=PAGE)
    assert sent.headers["Location"] == "/sign-in"
    assert client.get("/where").json == {"next": "/x?y=1"}
    assert client.get("/where").json == {"next": "/fallback"}
