import pytest

from jam.stores import open_store
from jam.testing.stores import StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def opener(self):
        store = open_store("memory://")
        return lambda: store
