"""Servers that tests need and do not start themselves: where they are, and what happens if they are not."""

import itertools
import os
import secrets

import pytest
import redis
import sqlalchemy as sa

POSTGRESQL = os.environ.get("JAM_TEST_POSTGRESQL_URL", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres")
REDIS = os.environ.get("JAM_TEST_REDIS_URL", "redis://127.0.0.1:6379/0")
MYSQL = os.environ.get("JAM_TEST_MYSQL_URL", "mysql+pymysql://root@127.0.0.1:3306/mysql")


def missing(name, error):
    """Skip, saying what is missing; with JAM_REQUIRE_SERVICES=1 fail instead."""
    reason = f"{name} does not answer: {type(error).__name__}"
    if os.environ.get("JAM_REQUIRE_SERVICES") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def fresh_database(name, url):
    """Make a database of the tests' own; yields its URL, and drops it afterwards."""
    server = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    database = f"jam_test_{secrets.token_hex(6)}"
    try:
        with server.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {database}"))
    except sa.exc.SQLAlchemyError as error:
        missing(name, error)
    try:
        yield sa.make_url(url).set(database=database).render_as_string(hide_password=False)
    finally:
        force = " WITH (FORCE)" if name == "PostgreSQL" else ""
        with server.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {database}{force}"))
        server.dispose()


def fresh_prefix():
    """Redis has no databases to make: yields a URL with a prefix of the tests' own, and removes its keys afterwards."""
    prefix = f"jam_test_{secrets.token_hex(6)}"
    with redis.Redis.from_url(REDIS) as server:
        try:
            server.ping()
        except redis.exceptions.RedisError as error:
            missing("Redis", error)
        yield f"{REDIS}?prefix={prefix}"
        ours = server.scan_iter(f"{prefix}:*", count=1000)
        while keys := list(itertools.islice(ours, 1000)):
            server.unlink(*keys)
