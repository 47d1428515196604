"""Flask-Session on the engine at hand, through its own session interface, as one request would use it.

An application context is made for each operation, as a request makes one: within it Flask-Session's SQLAlchemy
session lives, and with its end the connection goes back.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from flask import Flask
from flask_session import Session
from flask_session.redis import RedisSessionInterface
from flask_session.sqlalchemy import SqlAlchemySessionInterface
from flask_sqlalchemy import SQLAlchemy

_BATCH = 10_000

Data = dict[str, Any]


class Peer:
    """Flask-Session with its own defaults.

    Args:
        config: Says which backend and where: ``SESSION_TYPE`` and what belongs to it.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._app = Flask("flask_session")
        self._app.config.update(config)
        if config["SESSION_TYPE"] == "sqlalchemy":
            self._app.config["SESSION_SQLALCHEMY"] = SQLAlchemy(self._app)
        Session(self._app)
        self._interface: Any = self._app.session_interface

    def new_id(self) -> str:
        return self._interface._generate_sid(self._interface.sid_length)

    def open(self, session_id: str) -> Data:
        """What a request with this session's cookie reads."""
        request = self._app.request_class({"HTTP_COOKIE": f"session={session_id}"})
        with self._app.app_context():
            return self._interface.open_session(self._app, request)

    def save(self, session_id: str, data: Data) -> None:
        """What a request writes that made or changed this session; without data it deletes it."""
        session = self._interface.session_class(data, sid=session_id)
        session.modified = True
        with self._app.app_context():
            self._interface.save_session(self._app, session, self._app.response_class())

    def load(self, sessions: Iterable[tuple[str, Data]]) -> None:
        """Keep new sessions in many to a statement, as ``save`` writes them one by one."""
        interface = self._interface
        encoded = (
            (interface._get_store_id(session_id), interface.serializer.encode(interface.session_class(data)))
            for session_id, data in sessions
        )
        put = {SqlAlchemySessionInterface: self._insert, RedisSessionInterface: self._set}[type(interface)]
        while batch := list(itertools.islice(encoded, _BATCH)):
            put(batch)

    def close(self) -> None:
        if isinstance(self._interface, SqlAlchemySessionInterface):
            with self._app.app_context():
                self._interface.client.engine.dispose()

    def _insert(self, batch: list[tuple[str, bytes]]) -> None:
        expiry = datetime.utcnow() + self._app.permanent_session_lifetime  # noqa: DTZ003 - as it has it
        rows = [{"session_id": store_id, "data": data, "expiry": expiry} for store_id, data in batch]
        with self._app.app_context(), self._interface.client.engine.begin() as connection:
            connection.execute(sa.insert(self._interface.sql_session_model), rows)

    def _set(self, batch: list[tuple[str, bytes]]) -> None:
        seconds = int(self._app.permanent_session_lifetime.total_seconds())
        pipeline = self._interface.client.pipeline(transaction=False)
        for store_id, data in batch:
            pipeline.set(store_id, data, ex=seconds)
        pipeline.execute()
