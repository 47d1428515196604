"""``flask jam``: what guards each route, and what is wrong with the set-up."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import click
import msgspec
from flask import Flask, Request, current_app
from flask.cli import AppGroup
from werkzeug.exceptions import HTTPException

from jam.crypto.weak_keys import weakness_of
from jam.errors import JamError, StoreUnavailable
from jam.ext.flask.explain import Explanation, explain
from jam.ext.flask.guards import demands_on, enter, guards_of, is_guarded, is_public, is_static
from jam.ext.flask.request import STATE, JamState, state_of
from jam.ext.flask.resolved import ASSUMED, EXPLAIN, RESOLVED, Resolved
from jam.ext.flask.settings import AppSettings
from jam.ext.flask.terminal import print_table, printable
from jam.ext.flask.users import assume

__all__ = ["Finding", "Route", "examine", "jam_cli", "routes_of"]

_GUARDS = "__jam_checkpoints__"
# Commands that not every app needs: where they are, and what they are called there.
_MORE = {
    "audit": ("jam.ext.flask.audit_commands", "audit_command"),
    "keys": ("jam.ext.flask.key_commands", "keys_group"),
    "mail": ("jam.ext.flask.mail_commands", "mail_group"),
    "sessions": ("jam.ext.flask.session_commands", "sessions_group"),
    "tokens": ("jam.ext.flask.api_token_commands", "tokens_group"),
    "users": ("jam.ext.flask.user_commands", "users_group"),
}


class _JamGroup(AppGroup):
    """Imports further commands when somebody asks for them. Every error is a line that a terminal only shows."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_MORE})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MORE:
            return super().get_command(ctx, cmd_name)
        module, name = _MORE[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except JamError as error:
            raise click.ClickException(printable(str(error))) from None
        except click.ClickException as error:  # click repeats what it was given
            error.message = printable(error.message)  # type: ignore[misc]  # its kind is still right
            raise


jam_cli = _JamGroup("jam", help="Authentication and access control.")


class Route(msgspec.Struct, frozen=True):
    """A route and what guards it.

    Attributes:
        rule: Its URL rule.
        methods: Its HTTP methods.
        endpoint: Its endpoint.
        status: ``guarded``, ``public`` (said so), ``static``, or ``unprotected``.
        guards: The checkpoints, as they are written.
    """

    rule: str
    methods: tuple[str, ...]
    endpoint: str
    status: str
    guards: tuple[str, ...]


class Finding(msgspec.Struct, frozen=True):
    """One thing ``doctor`` found.

    Attributes:
        level: ``ok``, ``warning`` or ``problem``.
        topic: What it is about.
        message: What is so.
        advice: What to do about it.
    """

    level: str
    topic: str
    message: str
    advice: str = ""


@jam_cli.command("routes")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@click.option("--fail-unprotected", is_flag=True, help="Exit with 1 if a route is neither guarded nor public.")
def routes_command(as_json: bool, fail_unprotected: bool) -> None:
    """Show every route with what guards it."""
    routes = list(routes_of(current_app))
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(routes), indent=2))
    else:
        rows = [(route.rule, ",".join(route.methods), route.status, "; ".join(route.guards)) for route in routes]
        print_table(("Route", "Methods", "Status", "Guards"), rows)
    open_routes = [route for route in routes if route.status == "unprotected"]
    if open_routes and fail_unprotected:
        click.echo(
            f"{len(open_routes)} of {len(routes)} routes are unprotected. Guard them, or mark them with @public.",
            err=True,
        )
        raise SystemExit(1)


@jam_cli.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def doctor_command(as_json: bool) -> None:
    """Examine the set-up; exit with 1 if there is a problem."""
    findings = list(examine(current_app))
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(findings), indent=2))
    else:
        marks = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "problem": ("PROBLEM", "red")}
        for finding in findings:
            word, colour = marks[finding.level]
            click.echo(f"{click.style(f'{word:8}', fg=colour)} {finding.topic}: {finding.message}")
            if finding.advice:
                click.echo(f"{'':8} → {finding.advice}")
    if any(finding.level == "problem" for finding in findings):
        raise SystemExit(1)


@jam_cli.command("explain")
@click.argument("method")
@click.argument("path")
@click.option(
    "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A header of the request; repeatable."
)
@click.option("--cookie", "cookies", multiple=True, metavar="NAME=VALUE", help="A cookie of the request; repeatable.")
@click.option("--as", "subject", metavar="SUBJECT", help="Take the caller to be this subject, without a credential.")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def explain_command(  # noqa: PLR0917 - one for each option
    method: str, path: str, headers: tuple[str, ...], cookies: tuple[str, ...], subject: str | None, as_json: bool
) -> None:
    """Say what a request would be answered, and why; no view is run."""
    if any(":" not in one or not one.isprintable() for one in (*headers, *(f":{one}" for one in cookies))):
        raise click.UsageError("A header is written 'Name: value', in printable characters.")
    if subject == "":
        raise click.UsageError("--as takes a subject.")
    if any("=" not in one for one in cookies):
        raise click.UsageError("A cookie is written name=value.")
    pairs = [(name.strip(), value.strip()) for name, _, value in (one.partition(":") for one in headers)]
    if cookies:
        pairs.append(("Cookie", "; ".join(cookies)))
    try:
        explanation = rehearse(current_app._get_current_object(), method.upper(), path, pairs, subject)  # type: ignore[attr-defined]  # noqa: SLF001
    except JamError as error:
        raise click.ClickException(str(error)) from None
    except HTTPException as error:
        raise click.ClickException(f"{method.upper()} {path} is answered {error.code} before any guard.") from None
    if explanation is None:
        raise click.ClickException("No guard was found before this route.")
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(explanation), indent=2))
        return
    answer = "let in" if explanation.status is None else f"{explanation.status} {explanation.code}"
    click.echo(f"{explanation.method} {explanation.path}: {answer}")
    click.echo(f"caller: {explanation.caller}")
    click.echo()
    print_table(("Looked in", "Held", "Outcome"), [(one.place, one.held, one.outcome) for one in explanation.looked])
    click.echo()
    said = [(one.checkpoint, "passed" if one.allowed else "refused", one.reason) for one in explanation.checkpoints]
    print_table(("Asked", "Answer", "Reason"), said)
    for title, text in (("Decided by", explanation.setting), ("What to do", explanation.advice)):
        if text:
            click.echo(f"\n{title}: {text}")


@jam_cli.command("purge")
def purge_command() -> None:
    """Remove dead records and ended counts; for a nightly job. Engines that are busy collect some by themselves."""
    jam = state_of(current_app).jam
    gone = 0
    try:
        while batch := jam.store.purge(jam.clock(), 1000):
            gone += batch
            click.echo(f"\r{gone} removed", nl=False, err=True)
    except JamError as error:
        raise click.ClickException(str(error)) from None
    if gone:
        click.echo(err=True)
    click.echo(f"{gone} dead records and ended counts removed.")


@jam_cli.group("db")
def db_group() -> None:
    """Jam's tables, for apps without migrations of their own."""


@db_group.command("create")
def db_create_command() -> None:
    """Make what is missing of the tables."""
    store = state_of(current_app).jam.store
    try:
        store.create_tables()
        store.check()
    except JamError as error:
        raise click.ClickException(str(error)) from None
    click.echo("The store has what it needs.")


@db_group.command("status")
def db_status_command() -> None:
    """Whether the tables are there and of this version; exit with 1 if not."""
    try:
        state_of(current_app).jam.store.check()
    except JamError as error:
        raise click.ClickException(str(error)) from None
    click.echo("The store has what it needs.")


def routes_of(app: Flask) -> Iterator[Route]:
    """Every route of an app, one entry for the methods that are guarded alike, in the order of their rules."""
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: (rule.rule, rule.endpoint)):
        methods = sorted((rule.methods or set()) - set(_implied_methods(app, rule)))
        alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for method in methods:
            alike.setdefault(_protection(app, rule.endpoint, method), []).append(method)
        for (status, guards), those in alike.items():
            yield Route(rule.rule, tuple(those), rule.endpoint, status, guards)


def _implied_methods(app: Flask, rule: Any) -> Iterator[str]:
    """The methods that need no line of their own: what Flask answers itself, and a HEAD that is the GET."""
    if getattr(rule, "provide_automatic_options", False):
        yield "OPTIONS"
    if "GET" in (rule.methods or ()) and _protection(app, rule.endpoint, "HEAD") == _protection(
        app, rule.endpoint, "GET"
    ):
        yield "HEAD"


def _protection(app: Flask, endpoint: str, method: str) -> tuple[str, tuple[str, ...]]:
    view = app.view_functions.get(endpoint)
    if view is None:
        return "unprotected", ()
    guards = [repr(one) for one in guards_of(view, method)]
    guarded = is_guarded(view, method)
    open_to_all = is_public(view, method)
    for hook in _hooks(app, endpoint):
        default = getattr(hook, "is_default", False)
        if open_to_all or hook.exempts(endpoint) or (default and (guarded or is_static(app, endpoint))):
            continue
        guards += [repr(one) for one in getattr(hook, _GUARDS)]
        guarded = guarded or any(one.protects() for one in getattr(hook, _GUARDS))
    if guarded:
        return "guarded", tuple(guards)
    if is_static(app, endpoint):
        return "static", tuple(guards)
    return ("public" if open_to_all or _exempted(app, endpoint) else "unprotected"), tuple(guards)


def _hooks(app: Flask, endpoint: str) -> Iterator[Any]:
    """What ``protect`` and ``deny_by_default`` put before an endpoint."""
    names: list[str | None] = [None]
    blueprint = endpoint.rpartition(".")[0]
    while blueprint:
        names.append(blueprint)
        blueprint = blueprint.rpartition(".")[0]
    for name in names:
        for hook in app.before_request_funcs.get(name, ()):
            if hasattr(hook, _GUARDS):
                yield hook


def _exempted(app: Flask, endpoint: str) -> bool:
    return any(hook.exempts(endpoint) for hook in _hooks(app, endpoint))


def rehearse(
    app: Flask, method: str, path: str, headers: Sequence[tuple[str, str]], subject: str | None
) -> Explanation | None:
    """What the guards of a route would say to a request; ``None`` if there are none. No view is run.

    Args:
        app: The app.
        method: The HTTP method.
        path: The path, with a query string if any.
        headers: The request's headers.
        subject: Take the caller to be this one; ``None`` to see what the headers prove.

    Raises:
        HTTPException: If the request does not reach a route.
        JamError: If the set-up is wrong, or the store cannot be asked.
    """
    state = app.extensions[STATE]
    app.extensions[STATE] = rehearsed = state_of(app).rehearsing()
    try:
        rehearsed.prepare()
        scheme = "https" if rehearsed.https else "http"
        with app.test_request_context(path, method=method, headers=list(headers), url_scheme=scheme) as context:
            return _rehearse(app, rehearsed, context.request, subject)
    finally:
        app.extensions[STATE] = state


def _rehearse(app: Flask, state: JamState, request: Request, subject: str | None) -> Explanation | None:
    if request.routing_exception is not None:
        raise request.routing_exception
    request.__dict__[EXPLAIN] = True
    if subject is not None:
        request.__dict__[ASSUMED] = True
        assume(state, request, subject)
    rule = request.url_rule
    view = app.view_functions[rule.endpoint if rule is not None else ""]
    explanation = None
    for checkpoints, wanted in demands_on(app, view, request):
        if subject is not None and wanted is not None:
            assume(state, request, subject, method=min(wanted.methods))
        try:
            refused = enter(checkpoints, wanted) is not None
        except (HTTPException, StoreUnavailable):
            refused = True
        resolved: Resolved = request.__dict__[RESOLVED]
        if refused and isinstance(resolved.explanation, Explanation):
            return resolved.explanation
        now, identity = state.clock(), resolved.identity
        asked = [(one, one.refusal(identity, now)) for one in checkpoints]
        explanation = explain(state, request, resolved, asked, wanted, None)
    return explanation


def examine(app: Flask) -> Iterator[Finding]:
    """What is right and wrong with an app's set-up."""
    yield from _examine_owner()
    try:
        state = state_of(app)
        state.prepare()
        settings = state.jam.settings
    except JamError as error:
        topic = "store" if isinstance(error, StoreUnavailable) else "configuration"
        yield Finding("problem", topic, error.message, error.hint)
        return
    relaxed = AppSettings(app).allows_weak_secrets()
    yield from _examine_secret(settings)
    yield from _examine_keys(state.jam)
    yield from _examine_https(state.https, relaxed=relaxed)
    yield from _examine_store(state.jam, relaxed=relaxed)
    if settings.access_tokens.stateless:
        yield Finding(
            "warning", "tokens", "access_tokens.stateless is set: no token can be revoked before it expires.",
            "Leave it off unless a measurement asks for it.",
        )  # fmt: skip
    if "jam.accounts" in app.extensions:
        from jam.ext.flask.accounts.doctor import examine_accounts  # noqa: PLC0415 - most apps have none

        yield from examine_accounts()
    yield from _examine_routes(app)


def _examine_owner() -> Iterator[Finding]:
    others = set(importlib.metadata.packages_distributions().get("jam", ())) - {"jam-auth"}
    if others:
        names = ", ".join(sorted(others))
        yield Finding(
            "problem", "installation", f"Another distribution installs a package named jam too: {names}.",
            f"Uninstall both and install jam-auth again: pip uninstall {' '.join(sorted(others))} jam-auth",
        )  # fmt: skip
    else:
        yield Finding("ok", "installation", "No other distribution installs a package named jam.")


def _examine_secret(settings: Any) -> Iterator[Finding]:
    if settings.secret is None and settings.access_tokens.private_key is None:
        yield Finding(
            "problem", "secret", "No secret is configured: keys are made anew for each process.",
            'Set SECRET_KEY to the output of: python -c "import secrets; print(secrets.token_urlsafe(64))"',
        )  # fmt: skip
        return
    given = [("secret", settings.secret), *(("fallback", one) for one in settings.secret_fallbacks)]
    weak = [f"{name} {why}" for name, one in given if one is not None and (why := weakness_of(one.value))]
    if weak:
        yield Finding(
            "problem", "secret", f"The {weak[0]}; outside debug and testing it is refused.",
            'Set SECRET_KEY to the output of: python -c "import secrets; print(secrets.token_urlsafe(64))"',
        )  # fmt: skip
        return
    yield Finding("ok", "secret", "Keys come from configured, strong secrets.")


def _examine_keys(jam: Any) -> Iterator[Finding]:
    try:
        directory = jam.key_directory
        if directory is None:
            return
        jam.keys  # noqa: B018 - reads every one of them
        entries = directory.list()
    except JamError as error:
        yield Finding("problem", "keys", error.message, error.hint)
        return
    if any(entry.state == "next" for entry in entries):
        yield Finding("ok", "keys", "The key directory is sound, and the next key is announced.")
    else:
        yield Finding(
            "warning", "keys", "No next key is announced: after a rotation, services that fetch the published keys may "
            "refuse tokens until they fetch them again.", "Run: flask jam keys generate",
        )  # fmt: skip


def _examine_https(https: bool, *, relaxed: bool) -> Iterator[Finding]:
    if https:
        yield Finding("ok", "https", "Cookies are set with Secure; browsers must reach the app by https.")
    else:
        message = "Cookies are set without Secure, so that anybody on the way can read them."
        level = "warning" if relaxed else "problem"
        yield Finding(level, "https", message, "Serve the app by https and set JAM_HTTPS = True.")


def _examine_store(jam: Any, *, relaxed: bool) -> Iterator[Finding]:
    try:
        store = jam.store
        store.check()
        store.marks("", "", jam.clock())
        problems = store.problems(jam.clock())
    except JamError as error:
        yield Finding("problem", "store", error.message, error.hint)
        return
    for problem in problems:
        yield Finding("problem", "store", problem.message, problem.advice)
    workers = _number_of_workers()
    if workers > 1 and not store.shared:
        yield Finding(
            "problem", "store",
            f"WEB_CONCURRENCY asks for {workers} workers, and each has sessions and revocations of its own: who signs "
            "out in one is still signed in in the others.", "Set JAM_STORE, for example to sqlite:///jam.sqlite3.",
        )  # fmt: skip
    elif not (store.shared and store.durable):
        yield Finding(
            "warning" if relaxed else "problem", "store",
            "Sessions and revocations live in this process only: they end with it, and other workers do not see them.",
            "Set JAM_STORE, for example to sqlite:///jam.sqlite3.",
        )  # fmt: skip
    elif not problems:
        yield Finding("ok", "store", f"{type(store).__name__} answers and is shared by all workers.")


def _number_of_workers() -> int:
    """What the environment tells gunicorn and uvicorn, and with them us; 1 if it says nothing."""
    said = os.environ.get("WEB_CONCURRENCY", "")
    return int(said) if said.isascii() and said.isdigit() else 1


def _examine_routes(app: Flask) -> Iterator[Finding]:
    open_routes = [route.rule for route in routes_of(app) if route.status == "unprotected"]
    if open_routes:
        yield Finding(
            "warning", "routes", f"{len(open_routes)} routes are neither guarded nor marked public.",
            "flask jam routes shows them.",
        )  # fmt: skip
    else:
        yield Finding("ok", "routes", "Every route is guarded or marked public.")
