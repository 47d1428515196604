"""``make bench-scale``: what it measures and how it judges, with a handful of sessions. No times are tested."""

import contextlib
import importlib
import json
import sqlite3
import sys
from pathlib import Path

import pytest

from jam.errors import StoreUnavailable
from jam.testing.stores import NOW, new_record
from tests.services import missing

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
ENGINES = ("sqlite", "postgresql", "mariadb", "redis")


@pytest.fixture(scope="module")
def scale():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))  # they import each other as scripts do
        yield importlib.import_module("scale")


@pytest.fixture(scope="module")
def report(scale):
    return importlib.import_module("scale_report")


@pytest.fixture(scope="module")
def engines(scale):
    return importlib.import_module("scale_engines")


@contextlib.contextmanager
def a_place(engines, name):
    title, opener = engines.ENGINES[name]
    with contextlib.ExitStack() as stack:
        try:
            place = stack.enter_context(opener())
        except engines.DoesNotAnswer as error:
            missing(title, error)
        yield place


# -- measuring ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_run(scale, engines):
    """A version and figures; Flask-Session is not in the test environment."""
    effort = scale.Effort(seconds=0.01, rounds=1, crowd=30, purged=10)
    return scale.measure_engine("SQLite", engines.open_sqlite, (50, 100), effort, beside_peer=False)


def test_every_verb_is_in_the_json_at_every_size(scale, report, small_run):
    version, figures = small_run
    document = json.loads(json.dumps(scale.as_document({"SQLite": version}, figures)))
    assert [(one["engine"], one["size"], one["who"]) for one in document["figures"]] == [
        ("SQLite", 50, "Jam"),
        ("SQLite", 100, "Jam"),
    ]
    for one in document["figures"]:
        assert one["microseconds"].keys() == report.VERBS.keys()
        assert min(one["microseconds"].values()) > 0
        assert one["bytes_each"] > 0
    assert [group["title"] for group in document["budgets"]] == ["SQLite: budgets"]
    assert sqlite3.sqlite_version in document["environment"]["SQLite"]


def test_what_was_written_as_json_can_be_shown_again(scale, small_run, tmp_path, monkeypatch, capsys):
    version, figures = small_run
    file = tmp_path / "figures.json"
    file.write_text(json.dumps(scale.as_document({"SQLite": version}, figures)))
    monkeypatch.setattr(sys, "argv", ["scale.py", "--read", str(file), "--markdown"])
    scale.main()
    assert scale.as_markdown(figures) in capsys.readouterr().out


def test_an_engine_that_does_not_answer_is_said_and_left_out(scale, engines, monkeypatch, capsys):
    monkeypatch.setattr(engines, "POSTGRESQL", "postgresql+psycopg://nobody@127.0.0.1:1/none")
    monkeypatch.setattr(scale, "_PACKAGES", ("Flask",))
    monkeypatch.setattr(sys, "argv", ["scale.py", "--engines", "postgresql"])
    scale.main()
    said = capsys.readouterr()
    assert "PostgreSQL: SKIPPED" in said.out
    assert "PostgreSQL is SKIPPED" in said.err


@pytest.mark.parametrize("name", ENGINES)
def test_what_is_loaded_is_as_if_it_had_been_added(engines, name):
    records = [new_record("alice", data={"data": {"n": n, "ü": [1.5, None]}}) for n in range(3)]
    with a_place(engines, name) as place:
        place.load(records, NOW)
        place.settle()
        assert list(place.store.list("alice", "session", NOW)) == sorted(records, key=lambda record: record.id)
        assert place.store.swap(records[0], records[0], NOW).version == 2
        assert place.store.take("session", records[1].id, NOW) == records[1]
        assert place.store.purge(NOW + 10 * 86_400) == 2
        assert place.jam_bytes() > 0


@pytest.mark.parametrize("name", ENGINES)
def test_a_place_is_gone_afterwards_whatever_happened_in_it(engines, name):
    with contextlib.suppress(KeyboardInterrupt), a_place(engines, name) as place:
        place.add([new_record("alice")], NOW)
        raise KeyboardInterrupt
    with pytest.raises(StoreUnavailable):
        place.store.list("alice", "session", NOW)


@pytest.mark.parametrize("threads", [1, 4])
def test_the_first_error_stops_all_threads(engines, threads):
    with pytest.raises(ZeroDivisionError):
        engines.each(threads, range(-10, 10**12), lambda number: 1 / number)


# -- judging ------------------------------------------------------------------------------------------------


def a_figure(report, size, **microseconds):
    times = dict.fromkeys(report.VERBS, 10.0) | {"advance_few": 5.0} | microseconds
    return report.Figures("Engine", size, report.JAM, times, 400.0)


@pytest.fixture
def figures(report):
    """Of one engine at three sizes: each budget holds, and nothing may be slower."""
    slowest = {"get": 30.0, "touch": 30.0, "swap": 30.0, "list": 20.0, "purge": 30.0}
    peers = {"create": 40.0, "open": 41.0, "save": 42.0, "delete": 4321.0}
    return [
        a_figure(report, 1_000_000, **slowest),  # sizes in any order
        a_figure(report, 1_000, purge=1.0),  # which the purge is not held against
        a_figure(report, 100_000),
        *(report.Figures("Engine", size, report.PEER, peers, 300.0) for size in (1_000, 100_000, 1_000_000)),
    ]


def verdicts(report, figures):
    (group,) = report.judge(figures)
    return {row.name.partition(", at ")[0]: row.checks[0] for row in group.rows}


def test_a_budget_that_is_just_reached_is_met(report, figures):
    judged = verdicts(report, figures)
    assert {name: check.measured for name, check in judged.items()} == {
        "get": 3, "get with a due touch": 3, "swap": 3, "list of 10": 2, "advance, kills 10,000": 2, "purge of 1,000": 3,
    }  # fmt: skip
    assert all(check.met for check in judged.values())


@pytest.mark.parametrize(
    ("verb", "slower"),
    [("get", 30.1), ("touch", 30.1), ("swap", 30.1), ("list", 20.1), ("advance_many", 10.1), ("purge", 30.1)],
)
def test_a_budget_that_is_exceeded_is_missed_and_no_other(report, figures, verb, slower):
    figures[0].microseconds[verb] = slower
    assert [name for name, check in verdicts(report, figures).items() if not check.met] == [report.VERBS[verb]]
    assert "MISSED" in report.as_text(figures)
    assert report.as_markdown(figures).count("MISSED") == 1


def test_one_size_has_no_growth_to_judge(report):
    assert list(verdicts(report, [a_figure(report, 1_000)])) == ["advance, kills 10,000"]


# -- showing ------------------------------------------------------------------------------------------------


def test_the_markdown_has_both_beside_each_other(report, figures):
    lines = report.as_markdown(figures).splitlines()
    table = lines[: lines.index("")]
    assert len({line.count("|") for line in table}) == 1
    assert table[0].split(" | ")[1:5] == ["Jam 1,000", "Jam 100,000", "Jam 1,000,000", "Flask-Session"]
    assert "| take | 10.0 | 10.0 | 10.0 | delete | 4,321 | 4,321 | 4,321 |" in table
    assert table[-1].startswith("| bytes a session | 400 |")
    assert table[-1].endswith("| bytes a session | 300 | 300 | 300 |")


def test_the_plot_shows_every_engine(report, figures, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is in the bench environment only")
    report.plot(figures, tmp_path / "plot.svg")
    drawn = (tmp_path / "plot.svg").read_text()
    assert "Engine: µs" in drawn
    report.plot(figures, tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text() == drawn
