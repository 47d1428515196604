"""Fixtures for an app's own tests: ``pytest_plugins = ["jam.testing.plugin"]`` in ``conftest.py``.

They take the app from a fixture of yours that is named ``app``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

from jam.testing.apps import CapturedEvents, JamClient
from jam.testing.clock import MovableClock

__all__ = ["jam_client", "jam_clock", "jam_events"]


@pytest.fixture
def jam_clock() -> MovableClock:
    """A clock to give to ``Jam(clock=jam_clock)`` and to move instead of sleeping."""
    return MovableClock()


@pytest.fixture
def jam_client(app: Flask) -> JamClient:
    """A client of the app that can ``login_as(user)``."""
    return JamClient(app, app.response_class, use_cookies=True)


@pytest.fixture
def jam_events(app: Flask) -> Iterator[CapturedEvents]:
    """The events of the app's ``Jam`` from now on."""
    heard = CapturedEvents()
    forget = app.extensions["jam"].events.subscribe(heard.append)
    yield heard
    forget()
