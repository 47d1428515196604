"""Where records live. ``open_store`` picks the engine by its URL and imports only that one."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from jam.errors import ConfigError
from jam.stores.base import Counted, Found, Marks, Problem, Record, Store

__all__ = ["Counted", "Found", "Marks", "Problem", "Record", "Store", "open_store"]


def open_store(url: str) -> Store:
    """The store behind a URL.

    Args:
        url: ``memory://`` (this process only, gone with it); ``sqlite:///relative.db`` or
            ``sqlite:////absolute/path.db``, with ``?synchronous=FULL`` and ``?timeout=SECONDS`` if wanted;
            ``postgresql+psycopg://...`` or ``mysql+pymysql://...`` as SQLAlchemy has them; ``redis://...``,
            ``rediss://...`` (TLS), ``unix:///path/to/socket``, ``redis+cluster://host:7000,host:7001`` or
            ``rediss+cluster://...``, with ``?timeout=SECONDS`` and ``?prefix=jam`` if wanted.

    Raises:
        ConfigError: If the URL names no engine this version has. Nothing is connected yet: an engine that
            cannot be reached shows at the first use, as ``StoreUnavailable``.
    """
    scheme, separator, _ = url.partition("://")
    opener = _OPENERS.get(scheme) if separator else None
    if opener is None:
        near = difflib.get_close_matches(scheme, _OPENERS, n=1) or list(_OPENERS)
        raise ConfigError(
            f"There is no store for {scheme!r} URLs in this version.",
            hint="Use " + " or ".join(f"{name}://..." for name in near) + ".",
        )
    return opener(url)


def _open_memory(url: str) -> Store:
    from jam.stores.memory import MemoryStore  # noqa: PLC0415 - an engine that is not used is not imported

    if url != "memory://":
        raise ConfigError("memory:// takes no path and no options.")
    return MemoryStore()


def _open_sqlite(url: str) -> Store:
    from jam.stores.sqlite import SQLiteStore  # noqa: PLC0415 - an engine that is not used is not imported

    return SQLiteStore.from_url(url)


def _open_sql(url: str) -> Store:
    try:
        from jam.stores.sql import SQLStore  # noqa: PLC0415 - an engine that is not used is not imported
    except ImportError:
        extra = "postgresql" if url.startswith("postgresql") else "mysql"
        raise ConfigError("SQLAlchemy is not installed.", hint=f"pip install jam-auth[{extra}]") from None

    return SQLStore(url)


def _open_redis(url: str) -> Store:
    try:
        from jam.stores.redis import RedisStore  # noqa: PLC0415 - an engine that is not used is not imported
    except ImportError:
        raise ConfigError("redis-py is not installed.", hint="pip install jam-auth[redis]") from None

    return RedisStore(url)


_OPENERS: dict[str, Callable[[str], Store]] = {
    "memory": _open_memory,
    "sqlite": _open_sqlite,
    "postgresql+psycopg": _open_sql,
    "mysql+pymysql": _open_sql,
    "mariadb+pymysql": _open_sql,
    "redis": _open_redis,
    "rediss": _open_redis,
    "unix": _open_redis,
    "redis+cluster": _open_redis,
    "rediss+cluster": _open_redis,
}
