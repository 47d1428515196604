"""Jam's verbs with a thousand, a hundred thousand and a million sessions, on each engine, beside Flask-Session.

    python benchmarks/scale.py [--engines sqlite,...] [--sizes 1e3,...] [--json FILE] [--plot FILE] [--markdown]

All sizes of an engine are filled first and then measured in the same rounds, so that what slows the machine slows
them all. Up to a hundred thousand records go in by the store's own ``add``; more are loaded many at a time in the
form ``add`` gives them, and a sample is read back through the store. The table goes to stdout, progress to stderr.
A missed budget is shown, not punished: the exit status is 0.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import importlib.metadata
import itertools
import json
import os
import platform
import random
import signal
import statistics
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from interleaved import Contestant, measure
from scale_engines import ENGINES, DoesNotAnswer, Place
from scale_report import JAM, PEER, PEER_VERBS, Figures, as_markdown, as_text, judge, load_pyplot, plot
from table import as_json

from jam.crypto.handles import bucket_of, new_handle
from jam.stores import Record, Store

_SIZES = (1_000, 100_000, 1_000_000)
_PLOT = Path(__file__).resolve().parent.parent / "docs" / "performance_scale.svg"
_PACKAGES = ("Flask", "Flask-Session", "SQLAlchemy", "psycopg", "PyMySQL", "redis", "msgspec")
_PER_SUBJECT = 10
_SAMPLE = 5_000  # sessions that are asked for, picked at random among all
_READ_BACK = 1_000  # of these, before anything is measured
_ADD_UP_TO = 100_000  # Jam's sessions that go in one by one
_SAVE_UP_TO = 1_000  # the same of Flask-Session's
_MOST = 200  # operations in a slice whose traces have to be removed afterwards
_DEAD = 5  # how many times as many dead there are as a purge may remove
_DAY = 86_400.0
_NOW = time.time()
# What a session takes to fill in, roughly, in microseconds: Jam's added, Jam's loaded, Flask-Session's loaded.
_FILLING = {"sqlite": (80, 40, 15), "postgresql": (200, 40, 30), "mariadb": (400, 90, 40), "redis": (130, 55, 15)}


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much is done.

    Attributes:
        seconds: For how long the verbs are measured that leave nothing behind.
        rounds: How often the others are: ``advance`` and ``purge``.
        crowd: How many sessions an ``advance`` of many kills.
        purged: How many a ``purge`` removes.
    """

    seconds: float = 40.0
    rounds: int = 9
    crowd: int = 10_000
    purged: int = 1_000


@dataclasses.dataclass
class Filled:
    """A place with sessions in it.

    Attributes:
        size: How many.
        place: Where.
        sample: Some of them, in no order.
        bytes_each: What each takes.
        peer: Flask-Session with as many of its own; ``None`` if it is left out.
        peer_sample: Some of those: ids and data.
        peer_bytes_each: What each of those takes.
    """

    size: int
    place: Place
    sample: list[Record]
    bytes_each: float
    peer: Any = None
    peer_sample: list[tuple[str, dict[str, Any]]] = dataclasses.field(default_factory=list)
    peer_bytes_each: float = 0.0


def main() -> None:
    """Measure what was asked for, or read what was measured, and show it."""
    options = _options()
    if options.read:
        document = json.loads(options.read.read_text("utf-8"))
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that databases and servers go with us
        document = _measure_all(options)
    figures = [Figures(**one) for one in document["figures"]]
    for name, value in document["environment"].items():
        print(f"{'- ' if options.markdown else ''}{name}: {value}")
    if figures:
        print("", as_markdown(figures) if options.markdown else as_text(figures), sep="\n")
    if figures and options.plot:
        plot(figures, options.plot)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Jam's verbs by the number of sessions, beside Flask-Session's.")
    engines = ",".join(ENGINES)
    parser.add_argument("--engines", default=engines, metavar="NAMES", help=f"of {engines}; all if left out")
    parser.add_argument("--sizes", type=_sizes, default=_SIZES, help="how many sessions; 1e3,1e5,1e6 if left out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, for machines and --read")
    parser.add_argument("--plot", type=Path, metavar="FILE", help=f"draw it there; a full run: docs/{_PLOT.name}")
    parser.add_argument("--markdown", action="store_true", help="tables as docs/performance.md has them")
    parser.add_argument("--read", type=Path, metavar="FILE", help="show what --json wrote, measure nothing")
    options = parser.parse_args()
    options.engines = options.engines.split(",")
    if unknown := set(options.engines) - set(ENGINES):
        parser.error(f"no engine {min(unknown)!r}: choose from {engines}")
    options.full = not options.read and (options.engines, options.sizes) == (list(ENGINES), _SIZES)
    if options.plot or options.full:
        try:
            load_pyplot()  # now rather than after the measuring
        except ImportError:
            parser.error("matplotlib, which draws the plot, is not installed")
    return options


def _sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(sorted({int(float(size)) for size in text.split(",")}))
    if sizes[0] < _PER_SUBJECT or any(size % _PER_SUBJECT for size in sizes):
        raise argparse.ArgumentTypeError(f"sizes are multiples of {_PER_SUBJECT}")
    return sizes


def _measure_all(options: argparse.Namespace) -> dict[str, Any]:
    """Measure one engine after the other; returns what ``--json`` writes."""
    environment = {
        "Python": f"{platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores",
        "packages": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES),
        "seconds": "0",
    }
    figures: list[Figures] = []
    _say(f"this takes about {estimate(options.engines, options.sizes, Effort()) / 60:.0f} min")
    start = time.perf_counter()
    for engine in options.engines:
        title, opener = ENGINES[engine]
        try:
            version, measured = measure_engine(title, opener, options.sizes, Effort())
        except DoesNotAnswer as error:
            environment[title] = f"SKIPPED: {error}"
            _say(f"{title} is SKIPPED: {error}")
            continue
        environment[title] = version
        environment["seconds"] = f"{time.perf_counter() - start:.0f}"
        figures += measured
        if options.json:  # after each engine, lest a later one's failure loses it
            options.json.write_text(json.dumps(as_document(environment, figures), indent=2) + "\n", "utf-8")
    if options.full and {one.engine for one in figures} == {title for title, _ in ENGINES.values()}:
        options.plot = options.plot or _PLOT
    return as_document(environment, figures)


def as_document(environment: dict[str, str], figures: Sequence[Figures]) -> dict[str, Any]:
    """What ``--json`` writes and ``--read`` reads; the budgets are there for other programs."""
    return {
        "environment": environment,
        "figures": [dataclasses.asdict(one) for one in figures],
        "budgets": as_json(judge(figures)),
    }


def estimate(engines: Collection[str], sizes: Collection[int], effort: Effort) -> float:
    """Seconds that measuring these will take, roughly."""
    seconds = 0.0
    once = (effort.rounds + 1) * (effort.crowd + effort.purged)  # sessions for advance and purge
    for adding, loading, saving in map(_FILLING.__getitem__, engines):
        seconds += 1.5 * effort.seconds  # with opening, warming up and reading back
        for size in sizes:
            seconds += size * ((adding if size <= _ADD_UP_TO else loading) + saving) / 1e6 + once * loading / 1e6
    return seconds


def measure_engine(
    title: str,
    opener: Callable[[], contextlib.AbstractContextManager[Place]],
    sizes: Sequence[int],
    effort: Effort,
    *,
    beside_peer: bool = True,
) -> tuple[str, list[Figures]]:
    """Fill and measure one engine at all sizes.

    Returns:
        The engine's version, and Jam's and Flask-Session's figures.

    Raises:
        DoesNotAnswer: If the engine is not here.
    """
    with contextlib.ExitStack() as stack:
        filled = []
        for size in sizes:
            place = stack.enter_context(opener())
            filled.append(_fill(title, place, size))
            if beside_peer:
                _fill_peer(title, filled[-1])
                stack.callback(filled[-1].peer.close)
        contestants = [contestant for one in filled for contestant in (*_jam(one), *_flask_session(one))]
        timings = measure(contestants, effort.seconds, title)
        once = _measure_once(title, filled, effort)
        figures = []
        for one in filled:
            jam = {verb: timings.median(f"{JAM} {verb} {one.size}") for verb in _REPEATED}
            figures.append(Figures(title, one.size, JAM, {**jam, **once[one.size]}, one.bytes_each))
            if one.peer:
                peer = {verb: timings.median(f"{PEER} {verb} {one.size}") for verb in PEER_VERBS.values()}
                figures.append(Figures(title, one.size, PEER, peer, one.peer_bytes_each))
        return filled[0].place.version, figures


# -- filling ------------------------------------------------------------------------------------------------


def _fill(title: str, place: Place, size: int) -> Filled:
    """Put Jam's sessions in, and make sure that the store finds them."""
    place.settle()
    before = place.jam_bytes()
    sample: list[Record] = []
    records = _picking(_shown(_sessions(range(size), size), size, f"{title}, {JAM}"), size, sample)
    (place.add if size <= _ADD_UP_TO else place.load)(records, _NOW)
    place.settle()
    for record in sample[:_READ_BACK]:
        found = place.store.get("session", record.id, _NOW)
        assert found is not None
        assert found.record == record
    assert len(place.store.list(sample[0].subject, "session", _NOW)) == _PER_SUBJECT
    return Filled(size, place, sample, (place.jam_bytes() - before) / size)


def _fill_peer(title: str, filled: Filled) -> None:
    """Put as many of Flask-Session's in."""
    from scale_peer import Peer  # the test environment has no Flask-Session

    size, place, peer = filled.size, filled.place, Peer(filled.place.peer_config)
    place.settle()
    before = place.peer_bytes()
    sessions = ((peer.new_id(), data) for data in map(_peer_data, range(size)))
    sessions = _picking(_shown(sessions, size, f"{title}, {PEER}"), size, filled.peer_sample)
    if size <= _SAVE_UP_TO:
        for session_id, data in sessions:
            peer.save(session_id, data)
    else:
        peer.load(sessions)
    place.settle()
    for session_id, data in filled.peer_sample[:_READ_BACK]:
        assert peer.open(session_id) == data
    filled.peer, filled.peer_bytes_each = peer, (place.peer_bytes() - before) / size


def _sessions(numbers: Iterable[int], size: int) -> Iterator[Record]:
    """Sessions as Jam makes them: each of ``size / 10`` subjects signs in once, then each a second time, and so on."""
    for number in numbers:
        yield _session(f"user-{number % (size // _PER_SUBJECT)}", number, _NOW)


def _session(subject: str, number: int, made_at: float) -> Record:
    _, session_id, check = new_handle(bucket_of(subject))
    data = {"data": _content(number), "auth_time": made_at, "roles": ["editor"]}
    return Record(
        kind="session", id=session_id, subject=subject, check=check, data=data,
        created_at=made_at, touched_at=made_at, idle_for=7200.0, ends_at=made_at + _DAY,
    )  # fmt: skip


def _peer_data(number: int) -> dict[str, Any]:
    """The same session as an app that uses Flask-Session would keep it."""
    return {"_permanent": True, "user": f"user-{number}", "auth_time": _NOW, "roles": ["editor"], **_content(number)}


def _content(number: int) -> dict[str, Any]:
    return {"theme": "dark", "cart": [number, 4711]}


def _picking(things: Iterable[Any], size: int, sample: list[Any]) -> Iterator[Any]:
    """All of them, once through, and a part of them into ``sample``."""
    picked = set(random.Random(1).sample(range(size), min(size, _SAMPLE)))
    for number, thing in enumerate(things):
        if number in picked:
            sample.append(thing)
        yield thing
    random.Random(2).shuffle(sample)


def _shown(things: Iterable[Any], size: int, what: str) -> Iterable[Any]:
    """All of them, with a progress bar."""
    try:
        from tqdm import tqdm
    except ImportError:  # as in the test environment
        return things
    return tqdm(things, f"{what} {size:,}", size, mininterval=0.5, unit="")


# -- verbs that can be repeated -----------------------------------------------------------------------------

_REPEATED = ("add", "get", "touch", "swap", "take", "marks", "list", "count_up")


def _jam(filled: Filled) -> list[Contestant]:
    """Jam's verbs; whatever one of them puts in or takes out is as before after each slice."""
    store, size = filled.place.store, filled.size
    asked, taken = _split(filled.sample)
    new = list(_sessions(range(size, size + 2 * _MOST), size))
    subjects = [record.subject for record in asked]
    kept = {record.id: record for record in asked}
    later = itertools.count(1)
    put_in: list[Record] = []
    taken_out: list[Record] = []

    def add(record: Record) -> None:
        store.add(record, _NOW)
        put_in.append(record)

    def remove_added() -> None:
        while put_in:
            store.remove("session", put_in.pop().id)

    def touch(record: Record) -> None:
        # A moment later each time, so that it is always due.
        store.get("session", record.id, _NOW + next(later) * 1e-6, 0.0)

    def swap(record: Record) -> None:
        old = kept[record.id]
        new = store.swap(old, old, _NOW)
        assert new is not None
        kept[record.id] = new

    def take(record: Record) -> None:
        found = store.take("session", record.id, _NOW)
        assert found is not None
        taken_out.append(found)

    def add_taken() -> None:
        while taken_out:
            store.add(taken_out.pop(), _NOW)

    def contestant(verb: str, act: Callable[[Any], object], arguments: Sequence[Any], **more: Any) -> Contestant:
        return Contestant(f"{JAM} {verb} {size}", act, arguments, **more)

    return [
        contestant("add", add, new, after=remove_added, most=_MOST),
        contestant("get", lambda record: store.get("session", record.id, _NOW), asked),
        contestant("touch", touch, asked),
        contestant("swap", swap, asked),
        contestant("take", take, taken, after=add_taken, most=min(_MOST, len(taken))),
        contestant("marks", lambda record: store.marks(record.subject, record.id, _NOW), asked),
        contestant("list", lambda subject: store.list(subject, "session", _NOW), subjects),
        contestant("count_up", lambda subject: store.count_up(subject, 3600.0, 5, _NOW), subjects),
    ]


def _flask_session(filled: Filled) -> list[Contestant]:
    """What Flask-Session does, if it is there; as ``_jam``."""
    peer, size = filled.peer, filled.size
    if peer is None:
        return []
    asked, taken = _split(filled.peer_sample)
    new = [(peer.new_id(), _peer_data(number)) for number in range(size, size + 2 * _MOST)]
    put_in: list[str] = []
    taken_out: list[tuple[str, dict[str, Any]]] = []

    def create(session: tuple[str, dict[str, Any]]) -> None:
        peer.save(*session)
        put_in.append(session[0])

    def delete_created() -> None:
        while put_in:
            peer.save(put_in.pop(), {})

    def delete(session: tuple[str, dict[str, Any]]) -> None:
        peer.save(session[0], {})
        taken_out.append(session)

    def create_deleted() -> None:
        while taken_out:
            peer.save(*taken_out.pop())

    return [
        Contestant(f"{PEER} create {size}", create, new, after=delete_created, most=_MOST),
        Contestant(f"{PEER} open {size}", lambda session: peer.open(session[0]), asked),
        Contestant(f"{PEER} save {size}", lambda session: peer.save(*session), asked),
        Contestant(f"{PEER} delete {size}", delete, taken, after=create_deleted, most=min(_MOST, len(taken))),
    ]


def _split(sample: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """Those to ask for, and one in five to take out and put in again."""
    return sample[len(sample) // 5 :], sample[: len(sample) // 5]


# -- verbs that leave something behind ----------------------------------------------------------------------


def _measure_once(title: str, filled: Sequence[Filled], effort: Effort) -> dict[int, dict[str, float]]:
    """Microseconds of ``advance`` and ``purge`` at each size."""
    _say(f"  {title}: advance and purge")
    for one in filled:
        for number in range(effort.rounds + 1):
            one.place.load(_held_by(f"few-{number}", _PER_SUBJECT), _NOW)
            one.place.load(_held_by(f"many-{number}", effort.crowd), _NOW)
        one.place.load(_dead(_DEAD * effort.purged), _NOW - 3 * _DAY)
        one.place.settle()
    advance = {
        (one.size, f"advance_{who}"): functools.partial(_time_advance, one.place.store, who)
        for one in filled
        for who in ("few", "many")
    }
    purge = {(one.size, "purge"): functools.partial(_time_purge, one.place, effort.purged) for one in filled}
    times: dict[int, dict[str, float]] = {one.size: {} for one in filled}
    for (size, verb), microseconds in {**_in_rounds(advance, effort), **_in_rounds(purge, effort)}.items():
        times[size][verb] = microseconds
    return times


def _in_rounds(calls: dict[Any, Callable[[int], float]], effort: Effort) -> dict[Any, float]:
    """Each call once in a round, told the round's number; the medians, the first round left out."""
    order = list(calls)
    rounds: dict[Any, list[float]] = {key: [] for key in calls}
    for number in range(effort.rounds + 1):
        random.shuffle(order)
        for key in order:
            rounds[key].append(calls[key](number))
    return {key: statistics.median(each[1:]) for key, each in rounds.items()}


def _time_advance(store: Store, who: str, number: int) -> float:
    """Microseconds; each round has a subject of its own, whose sessions are alive until then."""
    subject = f"{who}-{number}"
    (alive,) = store.list(subject, "session", _NOW, limit=1)
    store.advance("somebody", ("session",), _NOW)  # a call by itself would be a cold one
    start = time.perf_counter_ns()
    store.advance(subject, ("session",), _NOW)
    end = time.perf_counter_ns()
    assert store.get("session", alive.id, _NOW) is None
    return (end - start) / 1000


def _time_purge(place: Place, limit: int, _: int) -> float:
    """Microseconds; there are always more dead than it may remove."""
    start = time.perf_counter_ns()
    gone = place.store.purge(_NOW, limit)
    end = time.perf_counter_ns()
    assert gone == limit
    place.load(_dead(limit), _NOW - 3 * _DAY)
    return (end - start) / 1000


def _held_by(subject: str, count: int) -> Iterator[Record]:
    return (_session(subject, number, _NOW) for number in range(count))


def _dead(count: int) -> Iterator[Record]:
    """Sessions that ended two days ago, so that a purge may remove them."""
    return (_session(f"gone-{number}", number, _NOW - 3 * _DAY) for number in range(count))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
