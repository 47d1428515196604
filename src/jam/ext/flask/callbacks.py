"""The app's own functions: who a user is, what a token says besides, how a refusal looks. Sync or async.

An async one works from sync and async views alike, also where a lazy property cannot await: it then runs in a thread
of its own, with this context.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jam.errors import ConfigError, JamError

__all__ = ["Callbacks", "call"]


class Callbacks:
    """The app's own functions, by the names of the decorators that register them.

    Args:
        method: What the credentials of the extension prove that they were given to.

    Attributes:
        vets: Whether one of them has a say in who is calling.
        answer: The app's own answer to a refusal, or ``None`` for Jam's.
    """

    _VETTING = frozenset((
        "user_loader", "user_lookup_loader", "token_in_blocklist_loader", "token_verification_loader",
    ))  # fmt: skip

    def __init__(self, method: str = "") -> None:
        self.methods = frozenset((method, "refresh_token") if method == "jwt" else (method,))
        self.answer: Callable[[JamError], Any] | None = None
        self._functions: dict[str, Callable[..., Any]] = {}
        self.get = self._functions.get
        self.vets = False

    def register(self, name: str, function: Callable[..., Any]) -> None:
        """Keep a function under a name; the last one counts.

        Raises:
            ConfigError: If it is none.
        """
        if not callable(function):
            raise ConfigError(f"{name} takes a function.", hint=f"Write @extension.{name} above it, without ().")
        self._functions[name] = function
        self.vets = self.vets or name in self._VETTING


def call(function: Callable[..., Any], *args: Any) -> Any:
    """What the app's function returns, awaited if it is async.

    An exception of it is raised on, but for ``AttributeError``, which becomes a ``RuntimeError``.
    """
    try:
        return _called(function, *args)
    except AttributeError as error:
        # In a lazy attribute it would look as if there were nobody: templates take it for "undefined".
        raise RuntimeError(f"{getattr(function, '__name__', function)} raised AttributeError: {error}") from error


def _called(function: Callable[..., Any], *args: Any) -> Any:
    result = function(*args)
    if not inspect.isawaitable(result):
        return result

    async def awaited() -> Any:
        return await result

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(awaited())
    return _in_a_thread(awaited())


def _in_a_thread(coroutine: Coroutine[Any, Any, Any]) -> Any:
    with ThreadPoolExecutor(1, thread_name_prefix="jam-callback") as thread:
        return thread.submit(contextvars.copy_context().run, asyncio.run, coroutine).result()
