"""Which routes of an app take refresh tokens, as their guards say."""

from __future__ import annotations

from flask import Flask

from jam.ext.flask.guards import guards_of
from jam.ext.flask.tokens import TokenRequired

__all__ = ["refresh_path"]


def refresh_path(app: Flask) -> str | None:
    """What the paths of the routes that take refresh tokens have in common, by their guards; ``None`` without such."""
    found: list[list[str]] = []
    for rule in app.url_map.iter_rules():
        view = app.view_functions.get(rule.endpoint)
        guards = [one for method in rule.methods or () for one in guards_of(view, method)]
        if any(isinstance(one, TokenRequired) and one.takes_refresh_tokens() for one in guards):
            fixed, variable, _ = rule.rule.partition("<")
            found.append(fixed.rpartition("/")[0].split("/") if variable else fixed.rstrip("/").split("/"))
    if not found:
        return None
    shared: list[str] = []
    for parts in zip(*found, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "/".join(shared) or "/"
