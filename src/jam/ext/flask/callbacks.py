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

__all__ = ["call"]


def call(function: Callable[..., Any], *args: Any) -> Any:
    """What the app's function returns, awaited if it is async.

    An exception of it is raised on, whatever it is.
    """
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
