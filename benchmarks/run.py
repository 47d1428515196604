"""Jam beside its peers and beside a hand-made floor, as ratios, each with its budget.

    python benchmarks/run.py [section ...] [--quick] [--million] [--json]

The sections are access_tokens, refresh_tokens, guards, sessions, stores and accounts; all of them if none is named.
The table goes to stdout, progress to stderr. A missed budget is shown, not punished: the exit status is 0.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import sqlite3
import sys
import time
import warnings
from typing import Any

from table import Group, as_json, render

_SECTIONS = ("access_tokens", "refresh_tokens", "guards", "sessions", "stores", "accounts")
_PACKAGES = (
    "Flask", "Werkzeug", "cryptography", "msgspec", "PyJWT", "joserfc", "Authlib", "itsdangerous",
    "Flask-JWT-Extended", "Flask-Login", "Flask-HTTPAuth", "Flask-Session", "SQLAlchemy", "flask-imp", "redis",
    "Flask-SQLAlchemy", "argon2-cffi",
)  # fmt: skip


def main() -> None:
    """Run the sections asked for and print the table."""
    options = _parser().parse_args()
    _refuse_a_foreign_jam()
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    groups: list[Group] = []
    for name in options.sections or _SECTIONS:
        print(f"{name} ({time.perf_counter() - start:.0f} s)", file=sys.stderr, flush=True)
        with warnings.catch_warnings(record=True):  # peers say of themselves that they are deprecated
            section = importlib.import_module(name)
        groups += section.run(0.15 if options.quick else 1.0, million=options.million)
    seconds = time.perf_counter() - start
    if options.json:
        print(json.dumps({"environment": _environment(), "seconds": seconds, "groups": as_json(groups)}, indent=2))
        return
    print("\n".join(f"{key}: {value}" for key, value in _environment().items()))
    print(f"{seconds:.0f} seconds, medians of interleaved rounds{', short run' if options.quick else ''}\n")
    print(render(groups))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Jam beside its peers, as ratios, each with its budget.")
    parser.add_argument("sections", nargs="*", metavar="section", help=f"of {', '.join(_SECTIONS)}; all if left out")
    parser.add_argument("--quick", action="store_true", help="a short run: the ratios are rough")
    parser.add_argument("--million", action="store_true", help="stores with a million sessions too (minutes)")
    parser.add_argument("--json", action="store_true", help="for machines")
    known_only = parser.parse_args

    def parse_args(*arguments: Any) -> argparse.Namespace:
        options = known_only(*arguments)
        unknown = set(options.sections) - set(_SECTIONS)
        if unknown:
            parser.error(f"no section {min(unknown)!r}: choose from {', '.join(_SECTIONS)}")
        return options

    parser.parse_args = parse_args  # type: ignore[method-assign]
    return parser


def _refuse_a_foreign_jam() -> None:
    owners = importlib.metadata.packages_distributions().get("jam", [])
    if any(owner != "jam-auth" for owner in owners):
        sys.exit("Another distribution in this environment owns the import name jam: the figures would not be Jam's.")


def _environment() -> dict[str, str]:
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    return {
        "Python": f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}",
        "cores": str(os.cpu_count()),
        "SQLite": sqlite3.sqlite_version,
        "packages": packages,
    }


if __name__ == "__main__":
    main()
