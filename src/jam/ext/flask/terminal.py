"""What a terminal is shown and asked by the commands of ``flask jam``.

Names, user agents and whatever else strangers have written never reach the terminal raw (ASVS 16.4.1). Passwords are
asked for or read from stdin: on the command line other processes and the shell's history would see them (ASVS 14.2.1).
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import click
import msgspec

__all__ = [
    "as_json_option",
    "ask_for_password",
    "confirm",
    "listed",
    "print_json",
    "print_table",
    "printable",
    "progress",
    "read_passwords",
    "remark",
    "say",
    "shortened",
    "yes_option",
]

_MAX_CELL = 60  # characters of what strangers made long, in a table
_MAX_PASSWORD = 4 * 4096 + 2  # bytes of the longest password, with the end of its line

as_json_option = click.option("--json", "as_json", is_flag=True, help="For machines.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask whether that is meant.")


# -- shown --------------------------------------------------------------------------------------------------


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table for people to read; what could steer their terminal is made visible.

    Args:
        head: The titles of its columns.
        rows: Its rows, each as long as the head.
    """
    cells = [[printable(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    for row in (cells[0], ["-" * width for width in widths], *cells[1:]):
        padded = (cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True))
        say("  ".join(padded).rstrip())


def print_json(value: Any, indent: int | None = 2) -> None:
    """Print JSON in printable ASCII, so that a terminal takes no part of it for a command.

    Args:
        value: Anything; what JSON does not have is written as text.
        indent: Spaces of each level; ``None`` for one line.
    """
    click.echo(json.dumps(msgspec.to_builtins(value, enc_hook=str), indent=indent))


def say(text: str) -> None:
    """Print a line to stdout; characters that its encoding lacks are written out, too."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding))


def remark(text: str) -> None:
    """Print a line to stderr, beside what the command is asked for."""
    click.echo(printable(text), err=True)


def progress(text: str) -> None:
    """Say how far something is, to whoever watches: a nightly job has no use for it."""
    if sys.stderr.isatty():
        click.echo(f"\r{text}", err=True)


def printable(text: str) -> str:
    """A text in one line that a terminal only shows: control characters, escapes and marks of direction are written
    out, so that nobody's name moves the cursor or hides what stands beside it (ASVS 16.4.1).
    """
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def shortened(text: str, length: int = _MAX_CELL) -> str:
    """A text for a table, of so many characters at most."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def listed(names: Iterable[str]) -> str:
    """Names in one line, in the order of the alphabet."""
    return ", ".join(sorted(names)) or "none"


def _width(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text
    )


# -- asked --------------------------------------------------------------------------------------------------


def confirm(question: str, *, yes: bool) -> None:
    """Ask whether that is meant, unless ``--yes`` has answered.

    Raises:
        Abort: If it is not, or nobody is there to ask.
    """
    if not yes:
        click.confirm(printable(question), abort=True, err=True)


def ask_for_password(title: str = "Password", *, twice: bool = True, instead: str = "--password-stdin") -> str:
    """Ask for a password, which is not shown while it is typed.

    Args:
        title: What it is called.
        twice: Whether it is asked for once more, as a new one is.
        instead: Which options there are for who has no terminal.

    Raises:
        UsageError: If there is no terminal.
    """
    if not sys.stdin.isatty():  # or it would be read from wherever stdin comes from, and shown
        raise click.UsageError(f"There is no terminal to ask for a password at: use {instead}.")
    password: str = click.prompt(title, hide_input=True, confirmation_prompt=twice, err=True)
    return password


def read_passwords(number: int = 1) -> list[str]:
    """The passwords on stdin: one a line, without the ends of the lines, and exactly so many.

    Raises:
        ClickException: If that is not what is there.
    """
    data = sys.stdin.buffer.read(number * _MAX_PASSWORD + 1)
    if len(data) > number * _MAX_PASSWORD:
        raise click.ClickException("What came by stdin is longer than any password.")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise click.ClickException("The password on stdin is not UTF-8.") from None
    lines = text.removesuffix("\n").split("\n")
    if len(lines) != number:
        wanted = "The password on stdin is one line" if number == 1 else f"The passwords on stdin are {number} lines"
        raise click.ClickException(f"{wanted}.")
    return [line.removesuffix("\r") for line in lines]
