import functools
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time

import pytest

from jam.errors import ConfigError, RecordExists, StoreUnavailable
from jam.stores import open_store
from jam.stores import sqlite as sqlite_module
from jam.stores.base import COLLECT_AFTER
from jam.stores.sqlite import SQLiteStore
from jam.testing.stores import NOW, StoreContract, new_record


class TestSQLiteStore(StoreContract):
    @pytest.fixture
    def opener(self, tmp_path):
        return functools.partial(open_store, f"sqlite:///{tmp_path}/jam.sqlite3")


def record(**members):
    return new_record("alice", **members)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "jam.sqlite3"


def test_the_file_is_readable_only_by_its_owner(path):
    store = SQLiteStore(path)
    store.add(record(), NOW)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert set(modes.values()) == {0o600}
    assert f"{path.name}-wal" in modes


def test_nothing_is_opened_before_the_first_use(path):
    SQLiteStore(path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("sqlite:///jam.db", ("jam.db", "NORMAL", 5.0)),
        ("sqlite:////srv/my%20jam.db", ("/srv/my jam.db", "NORMAL", 5.0)),
        ("sqlite:///jam.db?synchronous=full&timeout=0.5", ("jam.db", "FULL", 0.5)),
    ],
)
def test_a_url_names_the_file_and_its_options(url, options, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    store = open_store(url)
    assert (store._path, store._synchronous, store._timeout) == (tmp_path / options[0], *options[1:])


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite://host/file.db",
        "sqlite:///x.db?mode=memory",
        "sqlite:///x.db?synchronous=OFF",
        "sqlite:///x.db?timeout=soon",
        "sqlite:///x.db?timeout=-1",
        "sqlite:///x.db?timeout=nan",
        "memory:///x",
        "postgres://localhost/x",
        "sqlit:///x",
        "nonsense",
        "",
    ],
)
def test_a_url_that_cannot_be_meant_is_refused(url):
    with pytest.raises(ConfigError):
        open_store(url)


def test_a_schema_of_a_newer_version_is_refused(path):
    SQLiteStore(path).add(record(), NOW)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigError, match="newer version"):
        SQLiteStore(path).get("session", record().id, NOW)


def test_somebody_elses_database_is_left_alone(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE users (id INTEGER)")
    connection.commit()
    connection.close()
    with pytest.raises(ConfigError, match="belongs to something else"):
        SQLiteStore(path).add(record(), NOW)


@pytest.mark.parametrize("prepare", [lambda path: path.mkdir(), lambda path: path.write_bytes(b"not a database" * 999)])
def test_asvs_16_5_3_a_file_that_cannot_be_used_means_unavailable(path, prepare):
    prepare(path)
    store = SQLiteStore(path)
    for verb in (
        lambda: store.add(record(), NOW),
        lambda: store.get("session", record().id, NOW),
        lambda: store.marks("alice", "", NOW),
        lambda: store.advance("alice", ("session",), NOW),
        lambda: store.count_up("x", 1, 1, NOW),
    ):
        with pytest.raises(StoreUnavailable):
            verb()


def test_a_missing_directory_means_unavailable_and_heals(tmp_path):
    store = SQLiteStore(tmp_path / "later" / "jam.sqlite3")
    with pytest.raises(StoreUnavailable):
        store.add(record(), NOW)
    (tmp_path / "later").mkdir()
    one = record()
    store.add(one, NOW)
    assert store.get("session", one.id, NOW).record == one


def test_a_writer_that_holds_the_file_too_long_means_unavailable_and_readers_go_on(path):
    store = SQLiteStore(path, timeout=0.05)
    one = record()
    store.add(one, NOW)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable):
        store.add(record(), NOW)
    with pytest.raises(StoreUnavailable):
        store.remove("session", one.id)
    assert store.get("session", one.id, NOW).record == one
    other.execute("ROLLBACK")
    other.close()
    store.remove("session", one.id)
    assert store.get("session", one.id, NOW) is None


def test_a_refused_write_leaves_nothing_behind_and_the_connection_usable(path):
    store = SQLiteStore(path)
    one = record()
    store.add(one, NOW)
    for _ in range(3):
        with pytest.raises(RecordExists):
            store.add(one, NOW)
    store.add(record(), NOW)
    assert len(store.list("alice", "session", NOW)) == 2
    assert len(store._pool) == 1


def test_the_dead_are_collected_while_the_living_are_added(path):
    store = SQLiteStore(path)
    for n in range(300):
        store.add(record(ends_at=NOW + n + 1), NOW + n + COLLECT_AFTER)
    rows = sqlite3.connect(path).execute("SELECT count(*) FROM records").fetchone()[0]
    assert rows < 200


@pytest.mark.parametrize(
    ("statement", "arguments"),
    [
        (sqlite_module._GET, ("session", "x", 0)),
        (sqlite_module._MARKS, ("x", "y")),
        (sqlite_module._TOUCH, {"kind": "session", "id": "x", "now": 0}),
        (sqlite_module._TAKE, ("session", "x", 0)),
        (sqlite_module._REMOVE, ("session", "x")),
        (sqlite_module._LIST, {"subject": "x", "kind": "session", "now": 0, "after": "", "limit": 1}),
        (sqlite_module._COUNT_UP, {"name": "x", "window": 1, "now": 0}),
        (sqlite_module._PURGE, (0, 1)),
        (sqlite_module._PURGE_COUNTS, (0, 1)),
    ],
)
def test_no_statement_scans_a_table(path, statement, arguments):
    store = SQLiteStore(path)
    store.purge(NOW)
    plan = sqlite3.connect(path).execute(f"EXPLAIN QUERY PLAN {statement}", arguments).fetchall()
    assert not [row[3] for row in plan if row[3].startswith("SCAN") and "CONSTANT ROW" not in row[3]]


WRITER = """
import sys
from jam.stores import open_store
from jam.testing.stores import new_record, NOW
store = open_store(sys.argv[1])
while True:
    one = new_record("alice", idle_for=None)
    store.add(one, NOW)
    print(one.id, flush=True)
"""


def test_an_acknowledged_write_survives_the_sudden_death_of_the_app(path):
    url = f"sqlite:///{path}"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True)
    acknowledged = [writer.stdout.readline().strip() for _ in range(200)]
    writer.kill()
    acknowledged += [line.strip() for line in writer.stdout if line.endswith("\n")]
    writer.wait(30)
    writer.stdout.close()
    store = open_store(url)
    assert all(store.get("session", record_id, NOW) is not None for record_id in acknowledged)


def test_a_fork_while_other_threads_write_harms_nobody(path):
    store = SQLiteStore(path)
    stop = threading.Event()

    def write():
        while not stop.is_set():
            store.add(record(), NOW)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    codes = []
    for _ in range(20):
        child = os.fork()
        if child == 0:
            try:
                one = record()
                store.add(one, NOW)
                os._exit(0 if store.get("session", one.id, NOW).record == one else 1)
            finally:
                os._exit(2)
        codes.append(os.waitpid(child, 0)[1])
    stop.set()
    for thread in threads:
        thread.join(30)
    assert codes == [0] * 20
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_store_that_is_busy_holds_no_fork_up(path):
    store = SQLiteStore(path)
    one = record()
    store.add(one, NOW)
    stop = threading.Event()

    def read():
        while not stop.is_set():
            store.get("session", one.id, NOW)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    before = time.monotonic()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                os._exit(0 if not sqlite_module._inherited else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert time.monotonic() - before < 5  # one fork alone took six seconds while readers kept their connections


OPENER = """
import sys, time
from jam.stores import open_store
from jam.testing.stores import new_record, NOW
while time.time() < float(sys.argv[2]):
    pass
for n in range(20):
    open_store(f"sqlite:///{sys.argv[1]}/{n}.db").add(new_record("alice"), NOW)
"""


def test_processes_that_make_the_file_at_the_same_moment_wait_for_each_other(tmp_path):
    start = str(time.time() + 1)
    openers = [
        subprocess.Popen([sys.executable, "-c", OPENER, str(tmp_path), start], stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    said = [opener.communicate(timeout=60)[1] for opener in openers]
    assert [opener.returncode for opener in openers] == [0] * 4, said
    assert [len(open_store(f"sqlite:///{tmp_path}/{n}.db").list("alice", "session", NOW)) for n in range(20)] == [
        4
    ] * 20
