"""Rows, budgets and the one table that shows them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

_WIDTHS = (58, 11, 40, 9, 7)
_HEADINGS = ("", "µs", "beside", "budget", "")


@dataclasses.dataclass(frozen=True)
class Check:
    """A measured figure, what it is a figure of, and its limit if it has one.

    Attributes:
        measured: The figure.
        of: Its unit: ``× floor``, ``µs added``.
        limit: The budget; ``None`` if the figure is only shown.
        at_least: Whether the limit is a lower one.
    """

    measured: float
    of: str
    limit: float | None = None
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the budget holds; ``None`` without one."""
        if self.limit is None:
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    def cells(self) -> tuple[str, str, str]:
        """Figure, budget and verdict."""
        verdict = {None: "", True: "met", False: "MISSED"}[self.met]
        limit = "" if self.limit is None else f"{'≥' if self.at_least else '≤'} {self.limit:g}"
        # Next to the limit a third decimal shows on which side of it the figure lies.
        close = self.limit is not None and abs(self.measured - self.limit) < 0.01
        figure = f"{self.measured:.3f}" if close else _figure(self.measured)
        return f"{figure} {self.of}", limit, verdict


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: Who did what.
        amount: How much it took; ``None`` if it could not be measured, which ``note`` then explains.
        checks: What it is held against.
        unit: Of the amount.
        note: Stands where the checks would.
    """

    name: str
    amount: float | None
    checks: tuple[Check, ...] = ()
    unit: str = "µs"
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Group:
    """Rows that were measured in the same rounds."""

    title: str
    rows: tuple[Row, ...]


def at_most(measured: float, limit: float | None, of: str) -> Check:
    """A figure with an upper limit, if any."""
    return Check(measured, of, limit)


def at_least(measured: float, limit: float | None, of: str) -> Check:
    """A figure with a lower limit, if any."""
    return Check(measured, of, limit, at_least=True)


def render(groups: Sequence[Group]) -> str:
    """The table."""
    rule = "-" * (sum(_WIDTHS) + len(_WIDTHS) - 1)
    lines = [_line(_HEADINGS), rule]
    for group in groups:
        lines.append(group.title)
        for row in group.rows:
            lines.extend(_row_lines(row))
        lines.append("")
    missed = [(group, row, check) for group in groups for row in group.rows for check in row.checks if not _ok(check)]
    checked = sum(check.met is not None for group in groups for row in group.rows for check in row.checks)
    lines += [rule, f"{checked - len(missed)} of {checked} budgets met."]
    lines += [
        f"  MISSED  {group.title}: {row.name.strip()}: {' '.join(check.cells()[:2])}" for group, row, check in missed
    ]
    return "\n".join(lines)


def as_json(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The same for machines."""
    return [
        {
            "title": group.title,
            "rows": [
                {
                    "name": row.name,
                    "amount": row.amount,
                    "unit": row.unit,
                    "note": row.note,
                    "checks": [{**dataclasses.asdict(check), "met": check.met} for check in row.checks],
                }
                for row in group.rows
            ],
        }
        for group in groups
    ]


def _ok(check: Check) -> bool:
    return check.met is not False


def _row_lines(row: Row) -> list[str]:
    amount = "" if row.amount is None else _figure(row.amount) + ("" if row.unit == "µs" else f" {row.unit}")
    checks = [check.cells() for check in row.checks] or [(row.note, "", "")]
    lines = [_line(("  " + row.name, amount, *checks[0]))]
    return lines + [_line(("", "", *cells)) for cells in checks[1:]]


def _line(cells: Sequence[str]) -> str:
    name, amount, *rest = cells
    padded = [name.ljust(_WIDTHS[0]), amount.rjust(_WIDTHS[1])]
    padded += ["  " + cell.ljust(width - 1) for cell, width in zip(rest, _WIDTHS[2:], strict=True)]
    return "".join(padded).rstrip()


def _figure(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 20 else f"{value:.2f}"
