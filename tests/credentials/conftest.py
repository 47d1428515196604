import pytest


@pytest.fixture(scope="module")
def url(engine_url):
    return engine_url


@pytest.fixture(scope="module")
def store(engine_store):
    return engine_store
