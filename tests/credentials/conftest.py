import contextlib
import functools

import pytest

from jam.stores import open_store

SERVERS = {"PostgreSQL": "postgresql_url", "MariaDB": "mysql_url", "Redis": "redis_url"}


@pytest.fixture(scope="module")
def url(engine_url):
    return engine_url


@pytest.fixture(scope="module")
def store(engine_store):
    return engine_store


@pytest.fixture(params=["memory", "SQLite", *SERVERS])
def shared_url(request, tmp_path):
    """Each engine, the servers shared with other tests: for those whose subjects have names of their own."""
    if request.param == "memory":
        return "memory://"
    if request.param == "SQLite":
        return f"sqlite:///{tmp_path}/jam.sqlite3"
    address = request.getfixturevalue(SERVERS[request.param])
    make_tables(address)
    return address


@functools.cache
def make_tables(url):
    with contextlib.closing(open_store(url)) as store:
        store.create_tables()
