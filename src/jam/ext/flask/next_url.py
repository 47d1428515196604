"""Where people sign in, and where they go on afterwards: never to another site."""

from __future__ import annotations

import re
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from flask import request, session, url_for

from jam.ext.flask.request import prepared_state

__all__ = ["is_on_this_site", "login_url", "next_url"]

_LEAVES_NOTHING_OUT = re.compile(r"/(?![/\\])[^\\\x00-\x20\x7f]*")


def login_url(login_view: str, next_url: str | None = None, next_field: str = "next") -> str:
    """The URL of a login view that knows where to come back to.

    Args:
        login_view: An endpoint, or a URL.
        next_url: Where to come back to; only its path and query are kept.
        next_field: The parameter's name.
    """
    base = login_view if login_view.startswith(("https://", "http://", "/")) else url_for(login_view)
    if next_url is None:
        return base
    parts = urlsplit(base)
    target = urlsplit(next_url)
    back = urlunsplit(("", "", target.path, target.query, ""))
    query = "&".join(filter(None, (parts.query, urlencode({next_field: back}, quote_via=quote, safe=""))))
    return urlunsplit(parts._replace(query=query))


def next_url(fallback: str = "/", next_field: str = "next") -> str:
    """Where to go after signing in: what the request asks for, if that is on this site.

    Args:
        fallback: Where to go otherwise.
        next_field: The parameter's name, in the query string or in the form.
    """
    wanted = request.values.get(next_field) or ""
    if prepared_state().lookup.login.session_for_next:
        wanted = session.pop("next", "") or wanted
    return wanted if isinstance(wanted, str) and is_on_this_site(wanted) else fallback


def is_on_this_site(target: str) -> bool:
    """Whether a browser that is sent to ``target`` stays on this site: a path, and nothing that it would mistake."""
    return _LEAVES_NOTHING_OUT.fullmatch(target) is not None
