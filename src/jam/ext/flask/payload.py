"""``g.payload``: the claims of the caller's token or the data of their session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask.globals import request_ctx

from jam.ext.flask.request import resolve

__all__ = ["globals_class"]


class _Payload:
    """``g.payload``. A non-data descriptor, so that an app may put something else there."""

    def __get__(self, instance: object, owner: type) -> Any:
        if instance is None:
            return self
        return _payload()


def _payload() -> Mapping[str, Any] | None:
    if not request_ctx:
        return None
    try:
        return resolve().payload
    except AttributeError as error:
        # An AttributeError would make g look as if nobody were calling.
        raise RuntimeError(f"The caller could not be identified: {error}") from error


def globals_class(base: type[Any]) -> type[Any]:
    """``base`` (what ``flask.g`` is of) with a ``payload`` in it.

    It is absent for the anonymous in ``in`` and ``get``, so that ``"payload" in g`` is safe as a check.
    """
    if getattr(base, "payload", None).__class__ is _Payload:
        return base

    class JamGlobals(base):  # type: ignore[misc]
        payload = _Payload()

        def get(self, name: str, default: Any = None) -> Any:
            if name == "payload" and name not in self.__dict__:
                payload = _payload()
                return default if payload is None else payload
            return super().get(name, default)

        def __contains__(self, item: str) -> bool:
            if item == "payload" and item not in self.__dict__:
                return _payload() is not None
            return bool(super().__contains__(item))

        def setdefault(self, name: str, default: Any = None) -> Any:
            if name == "payload" and name not in self.__dict__ and (payload := _payload()) is not None:
                return payload
            return super().setdefault(name, default)

    return JamGlobals
