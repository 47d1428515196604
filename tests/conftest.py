import secrets

import pytest

from jam import Jam
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
