import secrets

import pytest

from jam import Jam
from jam.stores import open_store
from jam.testing import MovableClock
from tests.services import MYSQL, POSTGRESQL, fresh_database, fresh_prefix


@pytest.fixture
def clock():
    return MovableClock()


@pytest.fixture(scope="session")
def secret():
    return secrets.token_urlsafe(64)


@pytest.fixture
def jam(secret, clock):
    return Jam({"secret": secret}, clock=clock)


@pytest.fixture
def events(jam):
    heard = []
    jam.events.subscribe(heard.append)
    return heard


@pytest.fixture(scope="session")
def postgresql_url():
    yield from fresh_database("PostgreSQL", POSTGRESQL)


@pytest.fixture(scope="session")
def mysql_url():
    yield from fresh_database("MariaDB", MYSQL)


@pytest.fixture(scope="session")
def redis_url():
    yield from fresh_prefix()


ENGINES = ["memory", "SQLite", "PostgreSQL", "MariaDB", "Redis"]


@pytest.fixture(scope="module", params=ENGINES)
def engine_url(request, tmp_path_factory):
    """Where a store of each engine is that no other module of tests uses: everyone may be revoked in it."""
    if request.param == "memory":
        yield "memory://"
    elif request.param == "SQLite":
        yield f"sqlite:///{tmp_path_factory.mktemp('store')}/jam.sqlite3"
    elif request.param == "Redis":
        yield from fresh_prefix()
    else:
        yield from fresh_database(request.param, {"PostgreSQL": POSTGRESQL, "MariaDB": MYSQL}[request.param])


@pytest.fixture(scope="module")
def engine_store(engine_url):
    store = open_store(engine_url)
    store.create_tables()
    yield store
    store.close()
