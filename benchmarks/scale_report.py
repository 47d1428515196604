"""What ``make bench-scale`` found: budgets judged, tables for the terminal and for the docs, the plot.

Everything here works on figures that are given, measured just now or read from a file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from table import Group, Row, at_most, render

JAM, PEER = "Jam", "Flask-Session"
#: What is measured of Jam, in the order of the tables.
VERBS = {
    "add": "add",
    "get": "get",
    "touch": "get with a due touch",
    "swap": "swap",
    "take": "take",
    "marks": "marks",
    "list": "list of 10",
    "advance_few": "advance, kills 10",
    "advance_many": "advance, kills 10,000",
    "count_up": "count_up",
    "purge": "purge of 1,000",
}
#: What Flask-Session does that is most like a verb.
PEER_VERBS = {"add": "create", "get": "open", "swap": "save", "take": "delete"}

_GROWTH = {"get": 3.0, "touch": 3.0, "swap": 3.0, "list": 2.0}  # from the smallest size to the largest
_PURGE_GROWTH = 3.0  # from the size before the largest
_ADVANCE = 2.0  # killing many beside killing few
_SPACE = "bytes a session"
_PLOTTED = ("add", "get", "touch", "swap", "take", "list", "advance_many")


@dataclasses.dataclass(frozen=True)
class Figures:
    """What was measured of one of the two, on one engine at one size.

    Attributes:
        engine: Its name as people write it.
        size: How many sessions there were.
        who: ``JAM`` or ``PEER``.
        microseconds: For one operation of each verb: the keys of ``VERBS``, or the values of ``PEER_VERBS``.
        bytes_each: What a session takes.
    """

    engine: str
    size: int
    who: str
    microseconds: dict[str, float]
    bytes_each: float


# -- budgets ------------------------------------------------------------------------------------------------


def judge(figures: Sequence[Figures]) -> list[Group]:
    """Hold Jam's figures against the budgets: on each engine the largest size beside a smaller one.

    Where there is one size only, the budgets for growth are left out.
    """
    return [Group(f"{engine}: budgets", tuple(_judge(_by_size(figures, engine, JAM)))) for engine in _engines(figures)]


def _judge(by_size: dict[int, Figures]) -> Iterator[Row]:
    *smaller, largest = by_size
    there = by_size[largest].microseconds

    def row(verb: str, beside: float, limit: float, of: str) -> Row:
        return Row(f"{VERBS[verb]}, at {largest:,}", there[verb], (at_most(there[verb] / beside, limit, of),))

    for verb, limit in _GROWTH.items() if smaller else ():
        yield row(verb, by_size[smaller[0]].microseconds[verb], limit, f"× at {smaller[0]:,}")
    yield row("advance_many", there["advance_few"], _ADVANCE, f"× {VERBS['advance_few']}")
    if smaller:
        yield row("purge", by_size[smaller[-1]].microseconds["purge"], _PURGE_GROWTH, f"× at {smaller[-1]:,}")


# -- tables -------------------------------------------------------------------------------------------------


def as_text(figures: Sequence[Figures]) -> str:
    """The figures and the budgets for a terminal."""
    parts = []
    for engine in _engines(figures):
        lines = _table(figures, engine)
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        parts += ["  ".join(_aligned(line, lines[0], widths)).rstrip() for line in lines] + [""]
    return "\n".join([*parts, render(judge(figures))])


def as_markdown(figures: Sequence[Figures]) -> str:
    """The figures and the budgets as docs/performance.md has them."""
    parts = []
    for engine in _engines(figures):
        heading, *lines = _table(figures, engine)
        rule = ["---:" if _is_numeric(name) else "---" for name in heading]
        parts += [_markdown_line(line) for line in (heading, rule, *lines)] + [""]
    parts += [_markdown_line(("engine", "budget", "measured", "limit", "")), _markdown_line(["---"] * 5)]
    for engine, group in zip(_engines(figures), judge(figures), strict=True):
        parts += [_markdown_line((engine, row.name, *check.cells())) for row in group.rows for check in row.checks]
    return "\n".join(parts)


def _table(figures: Sequence[Figures], engine: str) -> list[list[str]]:
    """Heading and lines of one engine: Jam's verbs at each size, and beside them what Flask-Session does."""
    jam, peer = (_by_size(figures, engine, who).values() for who in (JAM, PEER))
    lines = [[f"{engine}, µs", *(f"{JAM} {one.size:,}" for one in jam)]]
    lines += [[name, *(_number(one.microseconds[verb]) for one in jam)] for verb, name in VERBS.items()]
    lines += [[_SPACE, *(_number(one.bytes_each) for one in jam)]]
    if peer:
        lines[0] += [PEER, *(f"{one.size:,}" for one in peer)]
        for line, verb in zip(lines[1:], VERBS, strict=False):
            its = PEER_VERBS.get(verb)
            line += [its or "", *(_number(one.microseconds[its]) if its else "" for one in peer)]
        lines[-1] += [_SPACE, *(_number(one.bytes_each) for one in peer)]
    return lines


def _engines(figures: Iterable[Figures]) -> list[str]:
    return list(dict.fromkeys(one.engine for one in figures))


def _by_size(figures: Iterable[Figures], engine: str, who: str) -> dict[int, Figures]:
    chosen = (one for one in figures if (one.engine, one.who) == (engine, who))
    return {one.size: one for one in sorted(chosen, key=lambda one: one.size)}


def _aligned(line: Sequence[str], heading: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for cell, name, width in zip(line, heading, widths, strict=True):
        yield cell.rjust(width) if _is_numeric(name) else cell.ljust(width)


def _is_numeric(heading: str) -> bool:
    """Whether figures stand below it: it ends with a size then."""
    return heading[-1].isdigit()


def _markdown_line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


# -- the plot -----------------------------------------------------------------------------------------------


def load_pyplot() -> Any:
    """What draws the plot, into files only.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    # The same figures make the same file, and its text stays text.
    mpl.rcParams.update({"svg.hashsalt": "jam", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot as plt

    return plt


def plot(figures: Sequence[Figures], file: Path) -> None:
    """Draw time by size for each engine, and space; Jam's are lines, Flask-Session's dashed in the same colours."""
    plt = load_pyplot()
    engines = _engines(figures)
    rows = len(engines) // 2 + 1
    page, axes = plt.subplots(rows, 2, figsize=(10, 3.3 * rows), layout="constrained")
    for panel in axes.flat[len(engines) + 1 :]:
        panel.set_axis_off()
    *times, space = axes.flat[: len(engines) + 1]
    labels: dict[str, Any] = {}
    for engine, panel in zip(engines, times, strict=True):
        panel.set(title=f"{engine}: µs", yscale="log")
        panel.yaxis.set_major_locator(plt.LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter("{x:,.0f}")
        for color, verb in enumerate(_PLOTTED):
            jam, peer = _by_size(figures, engine, JAM), _by_size(figures, engine, PEER)
            labels[VERBS[verb]] = _line(panel, color, JAM, {n: one.microseconds[verb] for n, one in jam.items()})
            if (its := PEER_VERBS.get(verb)) and peer:
                points = {n: one.microseconds[its] for n, one in peer.items()}
                labels[f"{PEER}: {its}"] = _line(panel, color, PEER, points)
    space.set_title(f"{_SPACE}: {JAM}'s lines, {PEER}'s dashed")
    for color, engine in enumerate(engines):
        for who in (JAM, PEER):
            points = {n: one.bytes_each for n, one in _by_size(figures, engine, who).items()}
            _line(space, color, who, points).set_label(engine if who == JAM else None)
    space.set_ylim(bottom=0)
    space.legend(loc="lower left", ncols=2)
    for panel in (*times, space):
        panel.set_xscale("log")
        panel.set_xticks(sorted({one.size for one in figures}))
        panel.xaxis.set_major_formatter("{x:,.0f}")
        panel.minorticks_off()
    page.legend(labels.values(), labels, loc="outside lower center", ncols=4)
    page.savefig(file, metadata={"Date": None})
    plt.close(page)


def _line(panel: Any, color: int, who: str, points: dict[int, float]) -> Any:
    style = {JAM: {"ls": "-", "marker": "o", "ms": 3}, PEER: {"ls": "--", "marker": "x", "ms": 4, "lw": 1}}[who]
    (line,) = panel.plot(list(points), list(points.values()), color=f"C{color}", **style)
    return line
