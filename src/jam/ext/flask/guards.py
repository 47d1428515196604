"""Guards: checkpoints put before a view, a blueprint or an app.

``@checkpoint(...)`` guards one view (sync, async or class-based). ``protect(blueprint, ...)`` guards everything
in it besides. ``deny_by_default(app)`` shuts every route that nobody said anything about.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar, overload

from flask import Blueprint, Flask, Request, Response, current_app
from flask.ctx import RequestContext
from flask.typing import ResponseReturnValue
from flask.views import MethodView, View
from werkzeug.exceptions import HTTPException

from jam.checkpoints import ActionCheckpoint, Authenticated, Checkpoint
from jam.errors import (
    AccessDenied,
    AuthenticationRequired,
    ConfigError,
    CredentialsMixed,
    CSRFFailed,
    FreshnessRequired,
    InvalidRequest,
    JamError,
    StoreUnavailable,
)
from jam.events import AccessRefused
from jam.ext.flask.checkpoints import answer_failure, answer_success
from jam.ext.flask.explain import Explanation, explain
from jam.ext.flask.negotiation import (
    error_response,
    explanation_section,
    has_handlers,
    is_api_resource,
    is_error_page,
    to_raise,
    with_reason,
)
from jam.ext.flask.request import JamState, state_of
from jam.ext.flask.resolved import EXPLAIN, NOBODY, RESOLVED, Resolved, Wanted, current_context

__all__ = ["Guard", "checkpoint", "deny_by_default", "guards_of", "login_required", "protect", "public"]

logger = logging.getLogger("jam.flask")

V = TypeVar("V", bound=Callable[..., Any])
_GUARDS = "__jam_checkpoints__"
_PUBLIC = "__jam_public__"
_ASYNC = "__jam_async__"
_DEMANDS = "__jam_demands__"
_METHODS = frozenset(("api_token", "basic", "jwt", "session"))


class Guard:
    """A decorator that lets a view run only for callers who satisfy all its checkpoints.

    Args:
        checkpoints: The checkpoints.
        wanted: Which credentials count here, if not all that the app looks for.
    """

    def __init__(self, checkpoints: tuple[Any, ...], wanted: Wanted | None = None) -> None:
        if not checkpoints:
            raise ConfigError("A guard needs a checkpoint.", hint="Write @checkpoint(Authenticated()).")
        for one in checkpoints:
            if not isinstance(one, Checkpoint):
                raise ConfigError(f"{one!r} is not a checkpoint.", hint="Write @checkpoint(HasRole('admin')).")
        self.checkpoints: tuple[Checkpoint, ...] = checkpoints
        self.wanted = wanted

    def __call__(self, view: V) -> V:
        """Guard a view function, or every method of a class-based view."""
        if isinstance(view, type):
            guarded_class: V = self._guard_class(view)
            return guarded_class
        checkpoints, wanted = self.checkpoints, self.wanted
        is_async = inspect.iscoroutinefunction(view)
        leads_to_async = is_async or getattr(view, _ASYNC, False)

        # Sync even around an async view: the caller is identified before an event loop starts. Only where a
        # decorator between Flask and this guard runs one already is the call awaited.
        @functools.wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if leads_to_async and _in_event_loop():
                return guarded_in_loop(*args, **kwargs)
            refused = enter(checkpoints, wanted)
            if refused is not None:
                return refused
            try:
                return current_app.ensure_sync(view)(*args, **kwargs) if is_async else view(*args, **kwargs)
            except JamError as error:
                raise _for_flask(error) from error

        async def guarded_in_loop(*args: Any, **kwargs: Any) -> Any:
            from asgiref.sync import sync_to_async  # noqa: PLC0415 - an async view needs it anyway

            # In a thread with this context, so that the app's own async callbacks can run in this loop.
            refused = await sync_to_async(enter)(checkpoints, wanted)
            if refused is not None:
                return refused
            try:
                return await view(*args, **kwargs)
            except JamError as error:
                raise _for_flask(error) from error

        setattr(guarded, _ASYNC, leads_to_async)
        setattr(guarded, _DEMANDS, ((checkpoints, wanted), *getattr(view, _DEMANDS, ())))
        setattr(guarded, _GUARDS, (*checkpoints, *getattr(view, _GUARDS, ())))
        return guarded  # type: ignore[return-value]  # as functools.wraps: it looks like the view

    def _guard_class(self, view: Any) -> Any:
        if not issubclass(view, View):
            raise ConfigError(f"{view.__name__} is not a class-based view.", hint="Derive it from flask.views.View.")
        # Flask applies a view class's decorators to the function it makes; the last one is the outermost.
        view.decorators = [*view.decorators, self]
        return view


def checkpoint(*checkpoints: Checkpoint) -> Guard:
    """Guard a view.

    Who fails a checkpoint is answered 401 if they are nobody and 403 if they are somebody, in the form they
    asked for; a checkpoint with ``.action()`` answers as that says. Stacked guards are asked from the top down.

    Args:
        checkpoints: All must be satisfied; the first that is not decides the answer.

    Raises:
        ConfigError: If there is none, or one is not a checkpoint.
    """
    return Guard(checkpoints)


@overload
def login_required(view: V) -> V: ...
@overload
def login_required(*, methods: Collection[str] | None = None) -> Guard: ...
def login_required(view: V | None = None, *, methods: Collection[str] | None = None) -> V | Guard:
    """Guard a view: the caller must be somebody. With or without parentheses.

    Args:
        view: The view.
        methods: Which kinds of credential count here: ``"session"``, ``"jwt"``, ``"api_token"``, ``"basic"``; all that
            the app looks for if left out, but ``"basic"``, which counts only where it is named.

    Raises:
        ConfigError: If ``methods`` names none of these.
    """
    wanted = None
    if methods is not None:
        named = frozenset((methods,) if isinstance(methods, str) else methods)
        if not named or named - _METHODS:
            raise ConfigError(f"methods lists some of {', '.join(sorted(_METHODS))}.")
        wanted = Wanted(named)
    guard = Guard((Authenticated(),), wanted)
    return guard if view is None else guard(view)


def public(view: V) -> V:
    """Say that a view is meant for everyone: ``protect`` and ``deny_by_default`` leave it alone."""
    setattr(view, _PUBLIC, True)
    return view


def protect(scope: Flask | Blueprint, *checkpoints: Checkpoint, exempt: Collection[str] = ()) -> None:
    """Demand something of every request to a blueprint or an app, besides what each view demands itself.

    Args:
        scope: The blueprint (before it is registered) or the app.
        checkpoints: What is demanded; ``Authenticated()`` if left out.
        exempt: Endpoints that are left alone; in a blueprint their own names or the full ones.
    """
    guard = Guard(checkpoints or (Authenticated(),))
    prefix = f"{scope.name}." if isinstance(scope, Blueprint) else ""
    left_alone = frozenset(exempt)

    def applies_to(app: Flask, request: Request) -> bool:
        endpoint = _endpoint(request)
        if endpoint is None or endpoint in left_alone or endpoint.removeprefix(prefix) in left_alone:
            return False
        return not is_public(app.view_functions[endpoint], request.method)

    def protected() -> ResponseReturnValue | None:
        context = current_context()
        return enter(guard.checkpoints) if applies_to(context.app, context.request) else None

    protected.applies_to = applies_to  # type: ignore[attr-defined]

    setattr(protected, _GUARDS, guard.checkpoints)
    protected.exempts = lambda endpoint: (  # type: ignore[attr-defined]  # read by `flask jam routes`
        endpoint in left_alone or endpoint.removeprefix(prefix) in left_alone
    )
    scope.before_request(protected)


def deny_by_default(app: Flask, *checkpoints: Checkpoint, exempt: Collection[str] = ()) -> None:
    """Shut every route that has no guard of its own and is not ``public``.

    Routing errors, static files and the OPTIONS that Flask answers itself stay as they are. A view with a guard
    of its own answers for itself: this adds nothing to it.

    Args:
        app: The app.
        checkpoints: What an unmarked route demands; ``Authenticated()`` if left out.
        exempt: Endpoints that are open, for views you cannot decorate.
    """
    guard = Guard(checkpoints or (Authenticated(),))
    left_alone = frozenset(exempt)

    def applies_to(app: Flask, request: Request) -> bool:
        endpoint = _endpoint(request)
        if endpoint is None or endpoint in left_alone:
            return False
        view, method = app.view_functions[endpoint], request.method
        return not (is_public(view, method) or is_guarded(view, method) or is_static(app, endpoint))

    def denied() -> ResponseReturnValue | None:
        request = current_context().request
        rule = request.url_rule
        if rule is not None and getattr(app.view_functions[rule.endpoint], _PUBLIC, False):
            return None  # as applies_to would find, but at once: a public route should cost nothing
        return enter(guard.checkpoints) if applies_to(app, request) else None

    denied.applies_to = applies_to  # type: ignore[attr-defined]

    setattr(denied, _GUARDS, guard.checkpoints)
    denied.exempts = lambda endpoint: endpoint in left_alone  # type: ignore[attr-defined]
    denied.is_default = True  # type: ignore[attr-defined]
    app.before_request(denied)


# -- what a view says of itself -----------------------------------------------------------------------------


def guards_of(view: Any, method: str = "GET") -> tuple[Checkpoint, ...]:
    """The checkpoints that guard a view for an HTTP method, those of its class's method included."""
    found: tuple[Checkpoint, ...] = getattr(view, _GUARDS, ())
    view_class = getattr(view, "view_class", None)
    if view_class is None:
        return found
    found += getattr(_handler(view_class, method), _GUARDS, ())
    if is_api_resource(view_class):  # only these libraries look at method_decorators
        inner = getattr(view_class, "method_decorators", ())
        if isinstance(inner, Mapping):
            inner = inner.get(method.lower(), ())
        for decorator in inner:
            if isinstance(decorator, Guard):
                found += decorator.checkpoints
            elif decorator is login_required:
                found += (Authenticated(),)
    return found


Demand = tuple[tuple[Checkpoint, ...], Wanted | None]


def demands_on(app: Flask, view: Any, request: Request) -> Iterator[Demand]:
    """What is demanded of a request, guard by guard, in the order in which they are asked."""
    if _endpoint(request) is None:
        return
    for scope in (None, *reversed(request.blueprints)):
        for hook in app.before_request_funcs.get(scope, ()):
            applies = getattr(hook, "applies_to", None)
            if applies is not None and applies(app, request):
                yield getattr(hook, _GUARDS), None
    yield from getattr(view, _DEMANDS, ())
    view_class = getattr(view, "view_class", None)
    if view_class is not None:
        yield from getattr(_handler(view_class, request.method), _DEMANDS, ())
        if is_api_resource(view_class):
            inner = getattr(view_class, "method_decorators", ())
            chosen = inner.get(request.method.lower(), ()) if isinstance(inner, Mapping) else inner
            for decorator in reversed(list(chosen)):
                if isinstance(decorator, Guard):
                    yield decorator.checkpoints, decorator.wanted
                elif decorator is login_required:
                    yield (Authenticated(),), None


def _handler(view_class: Any, method: str) -> Any:
    """What runs in a view class for an HTTP method."""
    if not issubclass(view_class, MethodView):
        return view_class.dispatch_request
    handler = getattr(view_class, method.lower(), None)
    return getattr(view_class, "get", None) if handler is None and method == "HEAD" else handler


def is_guarded(view: Any, method: str) -> bool:
    """Whether a guard keeps somebody out; one that lets everybody see the view is none."""
    return any(one.protects() for one in guards_of(view, method))


def is_public(view: Any, method: str) -> bool:
    """Whether the view, or its class, or the class's method, was marked ``public``."""
    if getattr(view, _PUBLIC, False):
        return True
    view_class = getattr(view, "view_class", None)
    if view_class is None:
        return False
    # Not what its class inherited: a subclass of a public view is somebody's new view.
    return bool(vars(view_class).get(_PUBLIC, False) or getattr(_handler(view_class, method), _PUBLIC, False))


def is_static(app: Flask, endpoint: str) -> bool:
    """Whether the endpoint serves an app's or a blueprint's static files."""
    if endpoint == "static":
        return app.has_static_folder
    name, _, last = endpoint.rpartition(".")
    return last == "static" and name in app.blueprints and app.blueprints[name].has_static_folder


def _endpoint(request: Request) -> str | None:
    """The endpoint the request reached; ``None`` for a routing error and for OPTIONS that Flask answers itself."""
    rule = request.url_rule
    if rule is None or (request.method == "OPTIONS" and getattr(rule, "provide_automatic_options", False)):
        return None
    endpoint: str = rule.endpoint
    return endpoint


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _for_flask(error: JamError) -> Exception:
    """A view's own ``JamError`` as what Flask knows; a ``ConfigError`` is the developer's and stays what it is."""
    if isinstance(error, StoreUnavailable):
        context = current_context()
        state_of(context.app).note_unavailable(context.request, error)
    return error if isinstance(error, ConfigError) else to_raise(current_app, error)


# -- the moment of truth ------------------------------------------------------------------------------------


def enter(
    checkpoints: tuple[Checkpoint, ...], wanted: Wanted | None = None, *, raising: bool = False
) -> ResponseReturnValue | None:
    """Ask the checkpoints about the current request: ``None`` to go on, or the answer to the caller.

    Args:
        checkpoints: The checkpoints.
        wanted: Which credentials count, if not all that the app looks for.
        raising: Raise a refusal in any case.

    Raises:
        HTTPException, JamError: The refusal, where the app or a library wants to see errors.
        StoreUnavailable: As one of these, if nobody can tell who is calling.
    """
    context = current_context()
    state = state_of(context.app)
    try:
        resolved = state.resolve(context.request, wanted)
    except (HTTPException, StoreUnavailable):
        _Case(context, state, wanted, raising=raising).explain_outage()
        raise
    identity, now = resolved.identity, state.clock()
    if resolved.error is not None and isinstance(resolved.error, InvalidRequest):
        return _Case(context, state, wanted, resolved, raising=raising).refuse(checkpoints[0], resolved.error)
    if resolved.passed_as is not None and identity.subject not in (None, resolved.passed_as):
        return _Case(context, state, wanted, resolved, raising=raising).refuse(checkpoints[0], CredentialsMixed())
    let_pass: dict[int, JamError] = {}
    for number, one in enumerate(checkpoints):
        refusal = one.refusal(identity, now)
        answer = one.answer if isinstance(one, ActionCheckpoint) else None
        if refusal is None:
            passed = None if answer is None else answer_success(answer)
            if passed is not None:
                state.mark_response(context.request, resolved)
                return passed
            continue
        asked = [*((before, let_pass.get(at)) for at, before in enumerate(checkpoints[:number])), (one, refusal)]
        case = _Case(context, state, wanted, resolved, asked, raising=raising)
        if answer is None:
            return case.refuse(one, _for_caller(refusal, resolved))
        if isinstance(refusal, CSRFFailed):  # the reason, and no flash message in a session that is not to be opened
            return case.refuse(one, refusal)
        failed = answer_failure(answer)
        if failed is not None:
            case.explain(one, refusal, answer.fail_status)
            state.mark_response(context.request, resolved)
            return failed
        if not answer.disable_default_fail:
            return case.refuse(one, refusal, answer.fail_status)
        let_pass[number] = refusal
    resolved.passed = True
    state.mark_response(context.request, resolved)
    return None


def _for_caller(refusal: JamError, resolved: Resolved) -> JamError:
    """Nobody is told 401 and why their credential did not count; somebody is told 403 and what they lack."""
    if resolved.identity.subject is None:
        if isinstance(refusal, CSRFFailed) or not isinstance(refusal, (AccessDenied, AuthenticationRequired)):
            return refusal
        return resolved.error if resolved.error is not None else AuthenticationRequired()
    if refusal.status == HTTPStatus.UNAUTHORIZED and not isinstance(refusal, FreshnessRequired):
        return AccessDenied(refusal.message, code=refusal.code)
    return refusal


class _Case:
    """One request before one guard.

    Attributes:
        resolved: What the request turned out to be.
        asked: The checkpoints that were asked, and what they answered.
    """

    __slots__ = ("_app", "_raising", "_request", "_state", "_wanted", "asked", "resolved")

    def __init__(
        self,
        context: RequestContext,
        state: JamState,
        wanted: Wanted | None,
        resolved: Resolved = NOBODY,
        asked: Sequence[tuple[Checkpoint, JamError | None]] = (),
        *,
        raising: bool,
    ) -> None:
        self._app = context.app
        self._request = context.request
        self._state = state
        self._wanted = wanted
        self._raising = raising
        self.resolved = resolved
        self.asked = asked

    def refuse(self, one: Checkpoint, error: JamError, status: int | None = None) -> Response:
        """The answer to the caller.

        Raises:
            HTTPException, JamError: Instead, where the app or a library wants to see errors.
        """
        app, request, state, resolved = self._app, self._request, self._state, self.resolved
        challenges = _challenges(state, one, self._wanted, request)
        self.explain(one, error, status)
        own = None if status is not None else own_answer(app, state, error, self._wanted)
        if own is None and not self._raising and not has_handlers(app):
            return error_response(error, status, challenges)
        resolved.challenges = tuple(with_reason(challenge, error) for challenge in challenges)
        state.mark_response(request, resolved)
        if own is None:
            raise to_raise(app, error, status, challenges)
        if self._raising:  # Flask hands this one to no error handler
            raise HTTPException(response=own)
        return own

    def _tell(self, error: JamError, status: int | None) -> None:
        request, resolved = self._request, self.resolved
        refused = AccessRefused(
            at=self._state.clock(), subject=resolved.identity.subject, code=error.code, status=status or error.status,
            method=request.method, path=request.path, address=request.remote_addr,
            anonymous=resolved.identity.subject is None and not resolved.tried,
        )  # fmt: skip
        self._state.jam.events.emit(refused)

    def explain_outage(self) -> None:
        """The store is away: nobody can tell who is calling."""
        resolved = self._request.__dict__.get(RESOLVED)
        if resolved is not None and isinstance(resolved.error, StoreUnavailable):
            self.resolved = resolved
            self.explain(None, resolved.error)

    def explain(self, one: Checkpoint | None, error: JamError, status: int | None = None) -> None:
        """Say why, if somebody listens: events, the log, the developer, or who only wants to know."""
        app, request, resolved = self._app, self._request, self.resolved
        rehearsed = EXPLAIN in request.__dict__
        if self._state.jam.events and not rehearsed and not isinstance(error, StoreUnavailable):
            self._tell(error, status)
        if not (rehearsed or app.debug or logger.isEnabledFor(logging.INFO)):
            return
        own_key = one is not None and one.challenge is not None
        explanation = explain(self._state, request, resolved, self.asked, self._wanted, error, status, own_key=own_key)
        resolved.explanation = explanation
        if rehearsed:
            return
        name, line = explanation.request_id, explanation.line()
        logger.info("Refused %s %r (request %s): %s", request.method, request.path, name, line)
        if app.debug:
            resolved.changes += (partial(_show, explanation),)
            self._state.mark_response(request, resolved)


def _show(explanation: Explanation, response: Response) -> None:
    """Tell the developer, in debug mode: in a header, and on the error page if that is Jam's."""
    response.headers["X-Request-ID"] = explanation.request_id
    response.headers["Jam-Explanation"] = explanation.line()[:2000]
    if response.mimetype == "text/html" and not response.is_streamed:
        page = response.get_data(as_text=True)
        if is_error_page(page):
            response.set_data(page + explanation_section(explanation))


def own_answer(app: Flask, state: JamState, error: JamError, wanted: Wanted | None) -> Response | None:
    """The app's own answer to a refusal, if it gave one to an extension whose credentials count here."""
    for functions in state.callbacks:
        if functions.answer is not None and (wanted is None or functions.methods & wanted.methods):
            answered = functions.answer(error)
            if answered is not None:
                return app.make_response(answered)
    return None


def _challenges(state: JamState, one: Checkpoint, wanted: Wanted | None, request: Request) -> tuple[str, ...]:
    """The ways to authenticate that this checkpoint takes: its own, or else the app's."""
    found: dict[str, None] = {}
    apps = state.challenges
    if wanted is not None and "basic" in wanted.methods:
        # A browser that is told of Basic opens a dialog of its own: not for what a page's script fetches.
        is_fetched = request.environ.get("HTTP_SEC_FETCH_MODE", "navigate") != "navigate"
        scheme = "xBasic" if is_fetched else "Basic"
        basic = f'{scheme} realm={state.realm}, charset="UTF-8"'
        apps = (basic,) if wanted.methods == {"basic"} else (*apps, basic)
    for leaf in one.leaves():
        own = apps if leaf.challenge is None else (leaf.challenge.replace("{realm}", state.realm),)
        found.update(dict.fromkeys(own))
    return tuple(found)
