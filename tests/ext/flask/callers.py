"""How the callers in these tests present themselves, and how they are answered."""

import sys
from wsgiref.util import setup_testing_defaults

from flask.testing import FlaskClient

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
CROSS_SITE = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
PAGE = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
# Nobody can make a folder there, so that this store really cannot be reached.
UNREACHABLE = "sqlite:////dev/null/jam.sqlite3"


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def cookies(*pairs):
    """A Cookie header as a browser writes it; for clients that keep no cookies themselves."""
    return {"Cookie": "; ".join(f"{name}={value}" for name, value in pairs)}


def answer(response):
    """Status and code: what a client goes by."""
    return response.status_code, (response.json or {}).get("code")


def challenges(response):
    return response.headers.getlist("WWW-Authenticate")


def vary(response):
    return {name.strip().lower() for line in response.headers.getlist("Vary") for name in line.split(",")}


def set_cookies(response):
    """The cookies a response sets, each as its value and its attributes in lower case."""
    found = {}
    for line in response.headers.getlist("Set-Cookie"):
        pair, *attributes = line.split("; ")
        name, _, value = pair.partition("=")
        found[name] = (value, {attribute.lower() for attribute in attributes})
    return found


def called(app, **environ):
    """A bare WSGI call, for what no HTTP client would send. Gives the status and the body."""
    setup_testing_defaults(environ)
    environ["wsgi.errors"] = sys.stderr
    seen = []
    body = app.wsgi_app(environ, lambda status, headers, exc_info=None: seen.append(status))
    try:
        return int(seen[0][:3]), b"".join(body)
    finally:
        body.close()


def raw_client(app) -> FlaskClient:
    """A client that keeps no cookies, so that a test may send any Cookie header."""
    return app.test_client(use_cookies=False)
