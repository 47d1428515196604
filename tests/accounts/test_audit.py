"""The audit log: nothing that is acknowledged is lost, nothing hostile gets out of its line, nothing secret gets in."""

import contextlib
import json
import multiprocessing
import os
import re
import secrets
import sqlite3
import stat
import subprocess
import sys
import threading
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jam import events as vocabulary
from jam.accounts import audit
from jam.accounts.audit import (
    COUNT_FOR,
    MAX_DETAILS,
    Entry,
    JSONLinesAuditLog,
    open_audit_log,
    record,
)
from jam.accounts.sql_audit import SQLAuditLog, audit_table
from jam.errors import ConfigError, InvalidValue, JamError, StoreUnavailable
from jam.events import AccessRefused, Event, Events, SessionConflict, SessionStarted, SignedIn, SignInFailed

NOW = 1_800_000_000.0
PATIENCE = 60
ENGINES = ["lines", "SQLite", "PostgreSQL", "MariaDB"]
SERVERS = {"PostgreSQL": "postgresql_url", "MariaDB": "mysql_url"}
HOSTILE = '\r\n\x1b[2J\x1b]0;owned\x07\x9b31m\u2028\u2029\u202e\x7f\x00\ud800\' OR 1=1 -- "}{"'


@pytest.fixture
def opener(request, tmp_path):
    """Opens a log of the engine under test, as often as it is called; all of them are closed in the end."""
    engine, table, opened = request.param, f"audit_{secrets.token_hex(6)}", []

    def opener():
        if engine == "lines":
            log = JSONLinesAuditLog(tmp_path / "audit.jsonl")
        elif engine == "SQLite":
            log = SQLAuditLog(f"sqlite:///{tmp_path}/audit.db")
        else:
            log = SQLAuditLog(url, table)
        opened.append(log)
        return log

    url = request.getfixturevalue(SERVERS[engine]) if engine in SERVERS else None
    opener.engine = engine
    yield opener
    for log in opened:
        log.close()


@pytest.fixture
def log(opener):
    return opener()


def on(*engines):
    return pytest.mark.parametrize("opener", engines, indirect=True)


on_all = on(*ENGINES)
on_databases = on(*ENGINES[1:])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


@pytest.fixture
def lines(path):
    return JSONLinesAuditLog(path)


@pytest.fixture
def sqlite_log(tmp_path):
    with contextlib.closing(SQLAuditLog(f"sqlite:///{tmp_path}/audit.db")) as log:
        yield log


@pytest.fixture
def stream():
    return Events()


def entry(number=0, **changes):
    return Entry(**{"at": NOW + number, "event": "SignedIn", "subject": "alice", "address": "192.0.2.1", **changes})


def kept(entries):
    """The entries as they were appended, whatever their places."""
    return [
        Entry(**{name: getattr(one, name) for name in Entry.__struct_fields__ if name != "cursor"}) for one in entries
    ]


def pages(log, limit, **asked):
    before = None
    while page := log.search(limit=limit, before=before, **asked):
        yield page
        before = page[-1].cursor


def everything(log):
    return [one for page in pages(log, 1000) for one in page]


def run_processes(work, count):
    """Fork so many children at once; their exit codes."""
    children = [multiprocessing.get_context("fork").Process(target=work, args=(number,)) for number in range(count)]
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # later Pythons warn of a fork beside threads: that is the test
        for child in children:
            child.start()
    try:
        for child in children:
            child.join(PATIENCE)
        return [child.exitcode for child in children]
    finally:
        for child in children:
            child.kill()
            child.join()
            child.close()


# -- what every log promises


@on_all
def test_what_was_appended_is_found(log):
    one = entry(details={"amr": ["pwd"], "failures": 2, "none": None, "deep": {"x": [1.5, True]}}, count=3)
    log.append(one)
    assert kept(log.search()) == [one]


@on_all
def test_an_entry_of_nobody_from_nowhere_is_found(log):
    one = entry(subject=None, address=None)
    log.append(one)
    assert kept(log.search()) == [one]


@on_all
def test_an_empty_log_has_no_entries(log):
    assert list(log.search()) == []


@on_all
def test_the_last_appended_comes_first_even_if_the_clock_went_back(log):
    for number in (1, 3, 2):
        log.append(entry(number))
    assert [one.at - NOW for one in log.search()] == [2, 3, 1]


@on_all
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"subject": "alice"}, [3, 1, 0]),
        ({"subject": "Alice"}, [2]),
        ({"subject": "álice"}, []),
        ({"subject": "alice "}, []),
        ({"event": "SignInFailed"}, [3, 1]),
        ({"address": "2001:db8::1"}, [3, 2]),
        ({"since": NOW + 2}, [3, 2]),
        ({"until": NOW + 2}, [1, 0]),
        ({"since": NOW + 1, "until": NOW + 2}, [1]),
        ({"subject": "alice", "event": "SignInFailed", "address": "2001:db8::1", "since": NOW, "until": NOW + 9}, [3]),
        ({"subject": "' OR 1=1 --"}, []),
        ({"limit": 2}, [3, 2]),
    ],
)
def test_a_search_finds_what_everything_asked_for_is_true_of(log, asked, expected):
    log.append(entry(0))
    log.append(entry(1, event="SignInFailed"))
    log.append(entry(2, subject="Alice", address="2001:db8::1"))
    log.append(entry(3, event="SignInFailed", address="2001:db8::1"))
    assert [one.at - NOW for one in log.search(**asked)] == expected


@on_all
def test_pages_hold_every_entry_once_though_others_are_appended_meanwhile(log):
    for number in range(10):
        log.append(entry(number, subject="alice" if number % 2 else "bob"))
    seen = []
    for page in pages(log, 2, subject="alice"):
        seen += [one.at - NOW for one in page]
        log.append(entry(100, subject="alice"))
    assert seen == [9, 7, 5, 3, 1]


@on_all
@pytest.mark.parametrize("limit", [0, -1, 1001, True, "1", 1.0, None])
def test_a_page_that_cannot_be_is_refused(log, limit):
    with pytest.raises(InvalidValue):
        log.search(limit=limit)


@on_all
@pytest.mark.parametrize("before", ["", "x", "-1", "1\n", "1-", "٣", "0", "9" * 40, "1" * 18 + "-" + "1" * 40, 7, b"1"])
def test_a_cursor_that_cannot_be_is_refused(log, before):
    log.append(entry())
    with pytest.raises(InvalidValue):
        log.search(before=before)


@on_all
@pytest.mark.parametrize("asked", [{"since": float("nan")}, {"until": float("inf")}, {"since": "1"}, {"until": True}])
def test_a_time_that_cannot_be_is_refused(log, asked):
    with pytest.raises(InvalidValue):
        log.search(**asked)


@on_all
@pytest.mark.parametrize("asked", [{"subject": 7}, {"event": b"x"}, {"address": ["x"]}])
def test_a_search_for_what_is_no_text_is_refused(log, asked):
    with pytest.raises(InvalidValue):
        log.search(**asked)


def nested(depth):
    value = {}
    for _ in range(depth):
        value = {"x": value}
    return value


@on_all
@pytest.mark.parametrize(
    "changes",
    [
        {"at": float("nan")},
        {"at": float("inf")},
        {"at": "now"},
        {"count": 0},
        {"count": True},
        {"count": 2**63},
        {"event": 7},
        {"subject": 7},
        {"details": {"x": float("nan")}},
        {"details": {"x": object()}},
        {"details": {"x": "a" * MAX_DETAILS}},
        {"details": nested(100_000)},
        {"details": [1]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_an_entry_that_cannot_be_kept_is_refused_and_leaves_nothing(log, changes):
    with pytest.raises(InvalidValue):
        log.append(entry(**changes))
    assert list(log.search()) == []


@on_all
def test_details_as_large_as_they_may_be_are_kept(log):
    one = entry(details={"x": "a" * (MAX_DETAILS - len('{"x":""}'))})
    log.append(one)
    log.append(entry(1))
    assert kept(log.search())[1] == one


@on_all
def test_a_text_that_is_too_long_is_cut_where_everybody_sees_it_and_is_still_found(log):
    long = "é" * 300
    log.append(entry(subject=long, address=long, event=long))
    (found,) = log.search(subject=long, address=long, event=long)
    assert found.subject == found.address == found.event == "é" * 254 + "…"
    log.append(entry(subject="𝄞" * 255))
    assert log.search(subject="𝄞" * 255)[0].subject == "𝄞" * 255


@on_all
def test_asvs_16_4_1_hostile_names_are_kept_and_found(log):
    log.append(entry(subject=HOSTILE, address=HOSTILE, event=HOSTILE, details={HOSTILE: HOSTILE}))
    (found,) = log.search(subject=HOSTILE, address=HOSTILE, event=HOSTILE)
    assert found.details == {HOSTILE: HOSTILE}
    assert found.subject == HOSTILE.replace("\x00", "\\x00").replace("\ud800", "\\ud800")


any_text = st.text(st.characters() | st.characters(codec=None, categories=["Cs", "Cc"]), max_size=300)
any_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@on_all
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.tuples(any_text, any_text, any_text), details=st.dictionaries(st.text(), any_json, max_size=3))
def test_whatever_people_write_comes_back_as_one_entry(log, texts, details):
    subject, address, event = texts
    log.append(entry(subject=subject, address=address, event=event, details=details))
    newest = log.search(subject=subject, address=address, event=event, limit=1)[0]
    assert kept([newest]) == kept(log.search(limit=1))
    assert newest.details == details
    if len(subject) < 256 and "\0" not in subject and not re.search("[\ud800-\udfff]", subject):
        assert newest.subject == subject


# -- threads, processes and forks


@on_all
def test_threads_that_append_at_once_lose_nothing(log):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: log.append(entry(number)), range(100)))
    assert sorted(one.at - NOW for one in everything(log)) == list(range(100))


@on_all
def test_processes_that_append_at_once_to_a_new_log_lose_nothing(opener):
    def work(number):
        with contextlib.closing(opener()) as log:
            for step in range(25):
                log.append(entry(number * 25 + step, details={"padding": "x" * 5000}))

    assert run_processes(work, 4) == [0] * 4
    assert sorted(one.at - NOW for one in everything(opener())) == list(range(100))


@on_all
def test_children_of_one_parent_do_not_talk_on_its_connections(log):
    log.append(entry(0))

    def work(number):
        for step in range(25):
            log.append(entry(1 + number * 25 + step))

    assert run_processes(work, 2) == [0] * 2
    log.append(entry(51))
    assert sorted(one.at - NOW for one in everything(log)) == list(range(52))


@on_all
def test_a_log_works_on_both_sides_of_a_fork_while_threads_append(log):
    log.append(entry())
    stop, appended = threading.Event(), []

    def append():
        while not stop.is_set():
            log.append(entry(1))
            appended.append(1)

    def work(number):
        log.append(entry(2))
        os._exit(0 if log.search(since=NOW + 2) else 1)

    threads = [threading.Thread(target=append) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        codes = [run_processes(work, 1) for _ in range(5)]
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert codes == [[0]] * 5
    assert len(everything(log)) == 1 + len(appended) + 5


@on_all
def test_a_closed_log_may_be_used_again(log):
    log.append(entry(0))
    log.close()
    log.append(entry(1))
    assert len(log.search()) == 2


# -- JSON lines


def test_asvs_16_4_1_nothing_hostile_gets_out_of_its_line(lines, path):
    lines.append(entry(subject=HOSTILE, details={HOSTILE: HOSTILE}))
    written = path.read_bytes()
    assert written.count(b"\n") == 1
    assert set(written) <= {0x0A, *range(0x20, 0x7F)}


def test_each_line_is_one_object_with_the_entrys_members(lines, path):
    lines.append(entry(details={"amr": ["pwd"]}))
    assert json.loads(path.read_text()) == {
        "at": NOW, "event": "SignedIn", "subject": "alice", "address": "192.0.2.1", "details": {"amr": ["pwd"]}, "count": 1,
    }  # fmt: skip


@pytest.mark.parametrize("make", [JSONLinesAuditLog, lambda path: SQLAuditLog(f"sqlite:///{path}")])
def test_asvs_16_4_2_only_its_owner_reads_the_file(path, make):
    mask = os.umask(0)
    try:
        make(path).append(entry())
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_log_that_is_renamed_goes_on_in_a_new_file(lines, path):
    lines.append(entry(0))
    path.rename(former := path.with_suffix(".1"))
    assert list(lines.search()) == []
    lines.append(entry(1))
    assert [one.at - NOW for one in lines.search()] == [1]
    assert len(former.read_text().splitlines()) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_cursor_into_a_file_that_was_renamed_is_refused(lines, path):
    lines.append(entry(0))
    lines.append(entry(1))
    cursor = lines.search()[0].cursor
    path.rename(path.with_suffix(".1"))
    with pytest.raises(InvalidValue, match="rotated"):
        lines.search(before=cursor)
    lines.append(entry(2))
    with pytest.raises(InvalidValue, match="rotated"):
        lines.search(before=cursor)


def test_a_cursor_into_a_file_that_was_emptied_is_refused(lines, path):
    lines.append(entry(0))
    lines.append(entry(1))
    cursor = lines.search()[0].cursor
    os.truncate(path, 0)
    with pytest.raises(InvalidValue, match="rotated"):
        lines.search(before=cursor)
    lines.append(entry(2, details={"padding": "x" * 500}))
    with pytest.raises(InvalidValue, match="rotated"):
        lines.search(before=cursor)
    assert len(lines.search()) == 1


@pytest.mark.parametrize(
    "foreign",
    [
        b"not json",
        b'{"at":1800000000.0,"event":"Sig',
        b"[]",
        b"{}",
        b"7",
        b"\xff\xfe",
        b'{"at":"now","event":"x"}',
        b'{"at":NaN,"event":"x"}',
        b'{"at":1e999,"event":"x"}',
        b'{"at":1,"event":"x","details":[]}',
        b'{"at":1,"event":null}',
        b"[" * 50_000,
        b"9" * 10_000,
        b'{"at":1,"event":"' + b"x" * 300_000 + b'"}',
    ],
)
def test_a_line_that_is_no_entry_is_passed_over_and_reported_once(lines, path, foreign, caplog):
    lines.append(entry(0))
    with path.open("ab") as file:
        file.write(foreign + b"\n" + foreign + b"\n\n")
    lines.append(entry(1))
    assert [one.at - NOW for one in lines.search()] == [1, 0]
    (told,) = caplog.records
    assert told.getMessage().startswith("2 lines")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_no_foreign_bytes_break_a_search(lines, path, foreign):
    path.write_bytes(b"")
    lines.append(entry(0))
    with path.open("ab") as file:
        file.write(foreign)
    lines.append(entry(1))
    assert {0, 1} <= {one.at - NOW for one in lines.search()}


def test_a_torn_line_does_not_take_the_next_with_it(lines, path):
    lines.append(entry(0))
    with path.open("ab") as file:
        file.write(b'{"at":1800000000.0,"event":"Sig')
    lines.append(entry(1))
    assert [one.at - NOW for one in lines.search()] == [1, 0]


def test_lines_are_found_wherever_blocks_end(lines, monkeypatch):
    for number in range(20):
        lines.append(entry(number, details={"padding": "x" * number}))
    whole = lines.search()
    for size in (1, 2, 7, 100, 150, 4096):
        monkeypatch.setattr(audit, "_BLOCK", size)
        assert lines.search() == whole
        assert [one for page in pages(lines, 3) for one in page] == whole


def test_a_large_file_is_searched_in_little_memory(path, lines):
    """A file of 40 MB, most of it one line."""
    lines.append(entry(0, subject="bob"))
    with path.open("ab") as file:
        file.write(b"x" * 32_000_000 + b"\n")
        line = json.dumps({"at": NOW, "event": "SignedIn", "subject": "alice", "details": {"padding": "x" * 10_000}})
        file.write((line.encode() + b"\n") * 800)
    tracemalloc.start()
    try:
        assert len(lines.search(subject="bob")) == 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_since_ends_a_search_before_the_file_does(lines, path, caplog):
    lines.append(entry(0))
    with path.open("ab") as file:
        file.write(b"foreign\n")
    lines.append(entry(10 * 86_400))
    lines.append(entry(20 * 86_400))
    assert len(lines.search(since=NOW + 15 * 86_400)) == 1
    assert caplog.records == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_is_reported():
    with pytest.raises(StoreUnavailable) as caught:
        JSONLinesAuditLog("/dev/full").append(entry())
    assert "No space left" in caught.value.hint
    assert caught.value.__cause__ is None


def test_an_entry_that_was_written_in_part_is_not_acknowledged(path):
    """A file that may grow by a few bytes more: the system takes the beginning of the line, and then nothing."""
    program = (
        "import resource, signal, sys\n"
        "from jam.accounts.audit import Entry, JSONLinesAuditLog\n"
        "from jam.errors import StoreUnavailable\n"
        "log = JSONLinesAuditLog(sys.argv[1])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20, resource.RLIM_INFINITY))\n"
        "for reason in ('a part', 'cannot be written'):\n"
        "    try:\n"
        "        log.append(Entry(at=1.0, event='SignedIn'))\n"
        "    except StoreUnavailable as error:\n"
        "        assert reason in error.hint, error.hint\n"
        "    else:\n"
        "        raise SystemExit('acknowledged')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    log = JSONLinesAuditLog(path)
    assert path.stat().st_size == 20
    log.append(entry(1))
    assert [one.at - NOW for one in log.search()] == [1]


def test_a_file_that_cannot_be_read_or_written_any_more_is_reported(lines, path):
    lines.append(entry())
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreUnavailable):
        lines.append(entry())
    with pytest.raises(StoreUnavailable):
        lines.search()


# -- databases


@on_databases
def test_old_entries_are_pruned_so_many_at_once(log):
    for number in range(5):
        log.append(entry(number))
    assert log.prune(NOW + 4, limit=3) == 3
    assert [one.at - NOW for one in log.search()] == [4, 3]
    assert log.prune(NOW + 4, limit=3) == 1
    assert log.prune(NOW + 4, limit=3) == 0
    assert [one.at - NOW for one in log.search()] == [4]


@on_databases
@pytest.mark.parametrize(("before", "limit"), [(float("nan"), 1), ("1", 1), (NOW, 0), (NOW, True), (NOW, 1001)])
def test_pruning_what_cannot_be_is_refused(log, before, limit):
    with pytest.raises(InvalidValue):
        log.prune(before, limit)


@on_databases
def test_a_place_in_the_log_never_comes_again(log):
    log.append(entry(0))
    cursor = log.search()[0].cursor
    log.prune(NOW + 1)
    log.append(entry(1))
    assert log.search()[0].cursor != cursor


@on_databases
def test_the_searches_by_subject_event_and_address_have_an_index(log):
    log.append(entry())
    indices = {tuple(index["column_names"]) for index in sa.inspect(log._engine).get_indexes(log._table.name)}
    assert {("subject", "id"), ("event", "id"), ("address", "id"), ("at",)} <= indices


@on_databases
def test_details_that_somebody_changed_are_shown_as_such(log):
    log.append(entry())
    log.append(entry())
    with log._engine.begin() as connection:
        for number, text in ((1, "not json"), (2, "[1]")):
            connection.execute(log._table.update().where(log._table.c.id == number).values(details=text))
    assert [one.details for one in log.search()] == [{"unreadable": True}] * 2


@on_databases
def test_a_table_that_is_gone_is_reported_without_the_drivers_error(log, caplog):
    log.append(entry())
    with log._engine.begin() as connection:
        log._table.drop(connection)
    for act in (lambda: log.append(entry(subject="mallory", details={"x": "y"})), log.search, lambda: log.prune(NOW)):
        with pytest.raises(StoreUnavailable) as caught:
            act()
        assert caught.value.__cause__ is None
    assert "mallory" not in caplog.text


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://u:hunter2@127.0.0.1:1/x", "mysql+pymysql://u:hunter2@127.0.0.1:1/x"]
)
def test_a_server_that_does_not_answer_is_reported_without_its_password(url, caplog):
    with contextlib.closing(open_audit_log(url)) as log, pytest.raises(StoreUnavailable) as caught:
        log.append(entry())
    assert "hunter2" not in f"{caught.value}{caplog.text}"


def end_the_connection_of(engine):
    """As a server does that is started again: the connection in the pool is dead, and nobody has told the pool."""
    other = sa.create_engine(engine.url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with other.connect() as killer:
        with engine.connect() as connection:
            function = "pg_backend_pid" if engine.name == "postgresql" else "connection_id"
            number = connection.scalar(sa.text(f"SELECT {function}()"))
        kill = f"SELECT pg_terminate_backend({number}, 5000)" if engine.name == "postgresql" else f"KILL {number}"
        killer.execute(sa.text(kill))


@on("PostgreSQL", "MariaDB")
def test_a_connection_that_the_server_has_ended_does_not_lose_an_entry(log):
    log.append(entry(0))
    end_the_connection_of(log._autocommit)
    log.append(entry(1))
    assert len(log.search()) == 2


@on("PostgreSQL", "MariaDB")
def test_an_apps_engine_keeps_entries_that_the_app_rolls_back_around(opener):
    opened = opener()
    engine = sa.create_engine(opened._engine.url)
    try:
        log = SQLAuditLog(engine, opened._table.name)
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
            log.append(entry())
            connection.rollback()
        assert len(log.search()) == 1
        log.close()
        assert engine.pool.checkedin()  # an app's engine is not ours to close
    finally:
        engine.dispose()


@on("PostgreSQL", "MariaDB")
def test_an_apps_connection_that_the_server_has_ended_does_not_lose_an_entry(opener):
    opened = opener()
    engine = sa.create_engine(opened._engine.url)
    try:
        log = SQLAuditLog(engine, opened._table.name)
        log.append(entry(0))
        end_the_connection_of(engine)
        log.append(entry(1))
        assert len(log.search()) == 2
    finally:
        engine.dispose()


def test_an_engine_with_one_connection_for_everybody_is_refused():
    with pytest.raises(ConfigError, match="StaticPool"):
        SQLAuditLog(sa.create_engine("sqlite://", poolclass=sa.StaticPool))


@pytest.mark.parametrize("source", [None, 7, object()])
def test_what_is_neither_url_nor_engine_is_refused(source):
    with pytest.raises(ConfigError, match="Engine"):
        SQLAuditLog(source)


@pytest.mark.parametrize("table", ["", "Audit", "a b", "x; DROP TABLE y", "1", "a" * 42, "ä", "audit\n"])
def test_a_table_has_a_plain_name(tmp_path, table):
    with pytest.raises(ConfigError, match="table"):
        SQLAuditLog(f"sqlite:///{tmp_path}/audit.db", table)


def test_an_apps_own_metadata_gets_the_table_once():
    metadata = sa.MetaData()
    assert audit_table(metadata) is audit_table(metadata)
    assert metadata.tables["jam_audit"] is audit_table(metadata)


def test_a_file_of_sqlite_that_is_locked_for_long_is_reported(tmp_path):
    log = SQLAuditLog(f"sqlite:///{tmp_path}/audit.db", timeout=0.05)
    log.append(entry())
    other = sqlite3.connect(tmp_path / "audit.db", isolation_level=None)
    try:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnavailable):
            log.append(entry())
    finally:
        other.close()


def test_a_table_that_cannot_be_made_is_reported_and_made_later(tmp_path):
    log = SQLAuditLog(f"sqlite:///{tmp_path}/audit.db", timeout=0.05)
    other = sqlite3.connect(tmp_path / "audit.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable):
            log.append(entry())
    finally:
        other.close()
    log.append(entry())
    assert len(log.search()) == 1


# -- where a log is


def test_a_file_url_opens_json_lines(tmp_path):
    log = open_audit_log(f"file://{tmp_path}/a%20log.jsonl")
    log.append(entry())
    assert (tmp_path / "a log.jsonl").read_bytes()
    assert open_audit_log(f"file:{tmp_path}/a log.jsonl").search()
    assert open_audit_log(f"file://localhost{tmp_path}/a log.jsonl").search()


def test_a_databases_url_opens_a_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_audit_log("sqlite:///audit.db").append(entry())
    monkeypatch.chdir("/")
    log = open_audit_log(f"sqlite:///{tmp_path}/audit.db")
    assert isinstance(log, SQLAuditLog)
    assert len(log.search()) == 1


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hunter2",
        "/var/log/hunter2",
        "file:hunter2",
        "file:hunter2.jsonl",
        "file://hunter2/x.jsonl",
        "file:///x?hunter2",
        "file:///x#hunter2",
        "file://[hunter2",
        "file:",
        "file:///%00hunter2",
        "File:///tmp/hunter2",
        "sqlite:hunter2",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:hunter2",
        "sqlite:///x?hunter2=1",
        "sqlite://hunter2/x",
        "postgresql://u:hunter2@h/d",
        "postgresql+asyncpg://u:hunter2@h/d",
        "postgresql+psycopg:u:hunter2@h/d",
        "postgresql+psycopg://u:hunter2@h:port/d",
        "mysql://u:hunter2@h/d",
        "oracle://u:hunter2@h/d",
        "memory://",
        "redis://:hunter2@h",
    ],
)
def test_a_url_that_names_no_log_is_refused_and_not_repeated(url):
    with pytest.raises(ConfigError) as caught:
        open_audit_log(url)
    if "%00" not in url:
        assert "hunter2" not in str(caught.value)


def test_a_urls_driver_that_is_not_tested_is_refused_with_those_that_are():
    with pytest.raises(ConfigError, match="psycopg2"):
        SQLAuditLog("postgresql+psycopg2://u:hunter2@h/d")


@pytest.mark.parametrize("scheme", ["file://", "sqlite:///"])
def test_a_directory_that_is_not_there_is_a_clear_error(tmp_path, scheme):
    with pytest.raises(ConfigError) as caught:
        open_audit_log(f"{scheme}{tmp_path}/nowhere/audit")
    assert "nowhere" in caught.value.hint


@pytest.mark.parametrize("url", ["sqlite:///x.db", "postgresql+psycopg://h/d"])
def test_without_sqlalchemy_the_extra_is_named_and_files_work_all_the_same(path, url, monkeypatch):
    monkeypatch.delitem(sys.modules, "jam.accounts.sql_audit")
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(ConfigError) as caught:
        open_audit_log(url)
    assert "jam-auth[accounts]" in caught.value.hint
    open_audit_log(f"file://{path}").append(entry())


def test_a_log_in_a_file_does_not_import_sqlalchemy():
    program = "import sys, jam.accounts.audit; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


# -- from events to entries

SAMPLES = {
    "at": NOW, "subject": "alice", "address": "192.0.2.1", "kinds": ("session", "access_token"), "amr": ("pwd",),
    "roles": ("admin",), "failures": 2, "attempts": 3, "gave_up": True, "status": 403, "anonymous": False,
}  # fmt: skip
EVENTS = [
    kind
    for kind in (getattr(vocabulary, name) for name in vocabulary.__all__)
    if isinstance(kind, type) and issubclass(kind, Event) and kind is not SessionConflict
]


def example(kind, **changes):
    fields = {name: SAMPLES.get(name, f"the {name}") for name in kind.__struct_fields__}
    return kind(**{**fields, **changes})


def refusal(**changes):
    return AccessRefused(
        **{
            "at": NOW, "subject": None, "code": "authentication_required", "status": 401, "method": "GET", "path": "/x",
            "address": "192.0.2.1", "anonymous": True, **changes,
        }
    )  # fmt: skip


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
def test_asvs_16_3_1_every_event_is_an_entry_with_exactly_its_fields(stream, lines, clock, kind):
    record(stream, lines, clock=clock)
    event = example(kind)
    stream.emit(event)
    (found,) = lines.search()
    assert (found.event, found.at, found.count) == (kind.__name__, NOW, 1)
    assert found.subject == getattr(event, "subject", None)
    assert found.address == getattr(event, "address", None)
    fields = {name: getattr(event, name) for name in kind.__struct_fields__ if name not in ("at", "subject", "address")}
    assert found.details == json.loads(json.dumps(fields))


def test_asvs_16_2_5_no_event_has_a_field_for_a_secret():
    names = {name for kind in EVENTS for name in kind.__struct_fields__}
    assert not {name for name in names if re.search("password|secret|handle|cookie|hash|link|url|token$", name)}


@on_all
def test_a_sign_in_is_in_the_log(stream, log, clock):
    record(stream, log, clock=clock)
    stream.emit(SignedIn(at=NOW, subject="alice", address="192.0.2.1", amr=("pwd",), failures=2))
    assert kept(log.search()) == [entry(details={"amr": ["pwd"], "failures": 2})]


def test_what_says_nothing_about_access_is_left_out(stream, lines, clock):
    record(stream, lines, clock=clock)
    stream.emit(example(SessionConflict))
    assert list(lines.search()) == []


def test_an_app_may_leave_out_what_it_likes(stream, lines, clock):
    record(stream, lines, clock=clock, leave_out=[SessionStarted, AccessRefused])
    for event in (example(SessionStarted), refusal(), refusal(anonymous=False), example(SessionConflict)):
        stream.emit(event)
    clock.move(COUNT_FOR)
    stream.emit(refusal())
    assert [one.event for one in lines.search()] == ["SessionConflict"]


def test_nothing_is_recorded_after_the_end(stream, lines, clock):
    stop = record(stream, lines, clock=clock)
    stream.emit(example(SignedIn))
    stop()
    stop()
    stream.emit(example(SignedIn))
    assert len(lines.search()) == 1
    assert not stream


def test_a_strangers_long_field_is_cut_and_does_not_crowd_out_the_others(stream, lines, clock):
    record(stream, lines, clock=clock)
    stream.emit(refusal(subject="alice", anonymous=False, path="/" + "\x1b" * 100_000))
    (found,) = lines.search()
    assert found.details["code"] == "authentication_required"
    assert found.details["path"].startswith('"/\\u001b')
    assert found.details["path"].endswith("…")
    assert len(found.details["path"]) <= 2048


def test_a_field_that_json_does_not_know_is_named_by_its_type(stream, lines, clock):
    class Odd(Event, frozen=True, kw_only=True):
        thing: object

    class Thing:
        def __repr__(self):
            return "hunter2"

    record(stream, lines, clock=clock)
    stream.emit(Odd(at=NOW, thing=Thing()))
    assert lines.search()[0].details == {"thing": "<Thing>"}


# -- refusals


def test_asvs_16_3_2_the_refusal_of_a_known_caller_is_an_entry(stream, lines, clock):
    record(stream, lines, clock=clock)
    stream.emit(refusal(subject="alice", anonymous=False, code="role_required", status=403))
    (found,) = lines.search(subject="alice", event="AccessRefused")
    assert found.details == {"code": "role_required", "status": 403, "method": "GET", "path": "/x", "anonymous": False}


def test_refusals_of_anonymous_callers_are_counted_and_written_after_a_minute_by_code(stream, lines, clock):
    record(stream, lines, clock=clock)
    for _ in range(50):
        stream.emit(refusal())
    stream.emit(refusal(code="csrf_failed"))
    clock.move(COUNT_FOR - 1)
    stream.emit(refusal())
    assert list(lines.search()) == []
    clock.move(1)
    stream.emit(example(SignedIn))
    signed_in, *counted = lines.search()
    assert signed_in.event == "SignedIn"
    assert {(one.event, one.details["code"], one.count, one.at) for one in counted} == {
        ("AccessRefused", "authentication_required", 51, clock()),
        ("AccessRefused", "csrf_failed", 1, clock()),
    }
    assert {one.details["since"] for one in counted} == {NOW}


def test_the_next_minute_is_counted_anew(stream, lines, clock):
    record(stream, lines, clock=clock)
    for _ in range(3):
        stream.emit(refusal())
        clock.move(COUNT_FOR)
        stream.emit(refusal())
    assert [one.count for one in lines.search()] == [2, 2, 2]


def test_what_is_counted_is_written_at_the_end(stream, lines, clock):
    stop = record(stream, lines, clock=clock)
    stream.emit(refusal())
    stop()
    stop()
    assert [one.count for one in lines.search()] == [1]


def test_a_clock_that_is_set_back_does_not_keep_counts_for_ever(stream, lines, clock):
    record(stream, lines, clock=clock)
    stream.emit(refusal())
    clock.move(-86_400)
    stream.emit(refusal())
    assert [one.count for one in lines.search()] == [2]


def test_threads_that_are_refused_at_once_are_all_counted(stream, lines, clock):
    stop = record(stream, lines, clock=clock)

    def work(_):
        for _ in range(200):
            stream.emit(refusal())
            clock.move(0.3)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    stop()
    assert sum(one.count for one in lines.search()) == 800


def test_a_child_does_not_write_what_its_parent_has_counted(stream, lines, clock):
    stop = record(stream, lines, clock=clock)
    stream.emit(refusal())

    def work(number):
        stream.emit(refusal(code="csrf_failed"))
        stop()

    assert run_processes(work, 1) == [0]
    stop()
    assert sorted((one.details["code"], one.count) for one in lines.search()) == [
        ("authentication_required", 1),
        ("csrf_failed", 1),
    ]


# -- a log that fails


class BrokenLog:
    """A log that an app wrote, and that fails as long as it is told to."""

    def __init__(self, error):
        self.error = error
        self.entries = []

    def append(self, one):
        if self.error:
            raise self.error
        self.entries.append(one)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_disturbs_nobody_and_is_told_by_the_events_name_alone(stream, clock, caplog):
    heard = []
    record(stream, JSONLinesAuditLog("/dev/full"), clock=clock)
    stream.subscribe(heard.append)
    stream.emit(SignInFailed(at=NOW, subject="mallory", reason="the reason"))
    assert len(heard) == 1
    (told,) = caplog.records
    assert (told.name, told.levelname) == ("jam.accounts.audit", "ERROR")
    assert "SignInFailed" in told.getMessage()
    assert "No space left" in told.getMessage()
    assert not re.search("mallory|the reason|Traceback", caplog.text)


def test_what_an_apps_own_log_raises_is_told_by_its_type_alone(stream, clock, caplog):
    record(stream, BrokenLog(RuntimeError("hunter2")), clock=clock)
    stream.emit(example(SignedIn))
    (told,) = caplog.records
    assert told.getMessage() == "The audit log did not take an event SignedIn: RuntimeError."
    assert "hunter2" not in caplog.text


def test_an_event_that_cannot_be_kept_disturbs_nobody(stream, lines, clock, caplog):
    record(stream, lines, clock=clock)
    stream.emit(example(SignedIn, at=float("nan")))
    stream.emit(example(SignedIn, failures=float("nan")))
    stream.emit(example(SignedIn, subject=7))
    stream.emit(example(SignedIn))
    assert len(lines.search()) == 1
    assert len(caplog.records) == 3


def test_counts_that_the_log_did_not_take_are_kept_and_tried_again_after_a_minute(stream, clock, caplog):
    log = BrokenLog(StoreUnavailable())
    record(stream, log, clock=clock)
    stream.emit(refusal())
    clock.move(COUNT_FOR)
    stream.emit(refusal())
    assert len(caplog.records) == 1
    log.error = None
    stream.emit(refusal())
    assert log.entries == []
    clock.move(COUNT_FOR)
    stream.emit(refusal())
    assert [(one.count, one.details["since"]) for one in log.entries] == [(4, NOW)]


@on_all
def test_hostile_input_gets_no_error_but_jams_own(log):
    for act in (
        lambda: log.append(entry(details=None)),
        lambda: log.append(entry(details={("a",): 1})),
        lambda: log.append(entry(at=10**400)),
        lambda: log.search(since=10**400),
        lambda: log.search(before="1\x00"),
    ):
        with pytest.raises(JamError):
            act()
