"""The documentation tells the truth: its examples run, its links lead somewhere, its tables match the code.

``<!-- file: NAME -->`` before a fence writes the fence to that file in the page's own working directory, so
that the Python blocks after it can use it.
"""

import importlib
import os
import pkgutil
import re
import runpy
import socket
import sys
import types
from pathlib import Path

import msgspec
import pytest

import jam
from jam import config, errors, events, stores
from jam.config import flat_options, read_options
from jam.ext.flask.accounts.account_views import account_endpoints
from jam.ext.flask.accounts.api_views import api_endpoints
from jam.ext.flask.accounts.openapi import openapi_endpoints
from jam.ext.flask.accounts.sign_in_views import sign_in_endpoints, well_known_endpoints

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
PAPERS = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
ROWS = runpy.run_path(str(DOCS / "security_rows.py"))

_FENCE = re.compile(
    r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>[^\n`]*)\n(?P<body>.*?)^(?P=indent)(?P=ticks)[ ]*$",
    re.MULTILINE | re.DOTALL,
)
_FILE = re.compile(r"<!-- file: (\S+) -->\s*\Z")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


def named(page):
    return page.relative_to(ROOT).as_posix()


# -- the examples -------------------------------------------------------------------------------------------


def fences(text):
    """``(language, body, line of the body, file)`` of every fence, in order."""
    for match in _FENCE.finditer(text):
        file = _FILE.search(text, 0, match.start())
        line = text.count("\n", 0, match.start("body")) + 1
        yield match["language"].strip(), match["body"], line, file[1] if file else None


@pytest.fixture
def quiet_place(tmp_path, monkeypatch):
    """An empty directory, no settings from outside, no network."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith(("JAM_", "FLASK_")):
            monkeypatch.delenv(name)

    def refuse(*_):
        raise AssertionError("An example reaches for the network.")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tmp_path


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=named)
def test_every_python_block_of_a_page_runs_in_order(page, quiet_place, monkeypatch):
    module = types.ModuleType("app")
    module.__file__ = str(quiet_place / "app.py")
    monkeypatch.setitem(sys.modules, "app", module)
    for language, body, line, file in fences(page.read_text("utf-8")):
        if file is not None:
            (quiet_place / file).write_text(body, "utf-8")
        elif language == "python":
            exec(compile("\n" * (line - 1) + body, str(page), "exec"), module.__dict__)


@pytest.mark.parametrize("page", [*PAPERS, *PAGES], ids=named)
def test_every_fence_is_closed_and_names_its_language(page):
    text = page.read_text("utf-8")
    known = {"python", "pycon", "console", "toml", "text", "html", "http", "json", "{toctree}", "{eval-rst}"}
    assert {language for language, *_ in fences(text)} <= known
    assert len(re.findall(r"^ *`{3,}", text, re.MULTILINE)) == 2 * len(list(fences(text)))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_page_that_makes_an_app_says_where_the_secret_is_set(page):
    code = "".join(body for language, body, *_ in fences(page.read_text("utf-8")) if language == "python")
    if "Flask(" in code:
        assert "token_urlsafe(64)" in code


# -- links --------------------------------------------------------------------------------------------------


def prose(text):
    return re.sub(r"`[^`\n]*`", "", _FENCE.sub("", text))


def anchors(text):
    """The anchors of a page's headings, as GitHub and MyST make them."""
    headings = _HEADING.findall(_FENCE.sub("", text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAPERS, *PAGES], ids=named)
def test_internal_links_lead_somewhere(page):
    for target in _LINK.findall(prose(page.read_text("utf-8"))):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        goal = (page.parent / path).resolve() if path else page
        assert goal.is_file(), f"{named(page)} links to {target}"
        if anchor:
            assert anchor in anchors(goal.read_text("utf-8")), f"{named(page)} links to {target}"


def test_every_page_is_in_the_table_of_contents():
    index = (DOCS / "index.md").read_text("utf-8")
    listed = [line for language, body, *_ in fences(index) if language == "{toctree}" for line in body.splitlines()]
    pages = {line.strip() for line in listed if line.strip() and not line.startswith(":")}
    assert {page.stem for page in PAGES} <= pages | {"index"}


def test_every_page_the_code_names_exists():
    for source in (ROOT / "src").rglob("*.py"):
        for page in re.findall(r"docs/\w+\.md", source.read_text("utf-8")):
            assert (ROOT / page).is_file(), f"{source} names {page}"


# -- tables -------------------------------------------------------------------------------------------------


def rows(page, heading):
    """The cells of the first table under a heading, without its head; backquotes taken off."""
    text = (DOCS / page).read_text("utf-8")
    _, found, section = text.partition(f"\n{heading}\n")
    assert found, f"{page} has no heading {heading!r}"
    lines = re.split(r"\n#{1,6} ", section)[0].splitlines()
    table = [line for line in lines if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table[2:]]


def subclasses(of):
    for one in of.__subclasses__():
        if one.__module__.startswith("jam."):
            yield one
            yield from subclasses(one)


def all_of_jam():
    """Import every module, so that every subclass is known; an engine whose driver is not here is left out."""
    for module in pkgutil.walk_packages(jam.__path__, "jam."):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("jam"):
                raise


def test_the_catalogue_of_errors_is_the_tree_of_errors():
    all_of_jam()
    tree = {(one.code, one.__name__, str(one.status)) for one in public_errors()}
    catalogue = [tuple(row[:3]) for row in rows("errors.md", "## The catalogue")]
    assert set(catalogue) == tree
    assert len(catalogue) == len(tree)


def test_every_error_is_public():
    all_of_jam()
    assert {one.__name__ for one in public_errors()} == set(errors.__all__)


def defaults(struct=config.Settings, *path):
    for field in msgspec.structs.fields(struct):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from defaults(field.type, *path, field.name)
        else:
            yield (*path, field.name), field.default


def shown(value):
    """A default as the table shows it."""
    if value is None or value == ():
        return "none"
    return (
        str(value).lower() if isinstance(value, bool) else f"{value:.12g}" if isinstance(value, float) else str(value)
    )


def test_the_table_of_options_is_the_options():
    table = {row[0]: row[1:4] for row in rows("configuration.md", "## The options")}
    options = {
        ".".join(path): [shown(default), "JAM_" + "_".join(path).upper(), "JAM__" + "__".join(path).upper()]
        for path, default in defaults()
    }
    assert table == options
    assert list(table) == list(options)


@pytest.mark.parametrize("row", rows("configuration.md", "## The options"), ids=lambda row: row[0])
def test_every_name_of_an_option_is_understood(row, monkeypatch):
    def value_under(name, flat):
        options = flat_options({name: given}) if flat else read_options(None, "jam")
        for part in path:
            options = options[part]
        return options

    path = row[0].split(".")
    by_type = {"text": "x" * 64, "secret": "x" * 64, "seconds": 60, "yes or no": True, "list of texts": ("x",),
               "list of secrets": ("x" * 64,)}  # fmt: skip
    kind, _, bounds = row[4].partition(", ")
    given = int(bounds.partition(" ")[0]) if kind == "number" else by_type[kind]
    flat = value_under(row[2], flat=True)
    monkeypatch.setenv(row[3], given[0] if isinstance(given, tuple) else str(given).lower())
    assert value_under(row[3], flat=False) == flat


def public_errors():
    """Those that leave the room they are raised in."""
    return [one for one in (errors.JamError, *subclasses(errors.JamError)) if one.__name__[0] != "_"]


def test_the_table_of_events_is_the_events():
    all_of_jam()
    table = {row[0]: {name.strip(" `") for name in row[1].split(",")} for row in rows("events.md", "## The events")}
    classes = {
        one.__name__: {*one.__struct_fields__} - {"at"} for one in subclasses(events.Event) if one.__name__[0] != "_"
    }
    assert table == classes


def endpoints():
    """Every endpoint of the accounts and its path, as an app has it that sets no prefixes."""
    prefixes = {
        sign_in_endpoints: "/auth",
        account_endpoints: "/auth",
        openapi_endpoints: "/auth",
        api_endpoints: "/api",
    }
    for declared in (sign_in_endpoints, account_endpoints, openapi_endpoints, well_known_endpoints, api_endpoints):
        for one in declared:
            yield prefixes.get(declared, "") + one.rule, one


def body_of(one):
    """The fields of an endpoint's body, as the table shows them."""
    fields = [] if one.body is None else [field for field in msgspec.structs.fields(one.body) if field.name != "more"]
    shown = [f"`{field.encode_name}`" if field.required else f"`[{field.encode_name}]`" for field in fields]
    return ", ".join([*shown, *(["`…`"] if one.more else [])]).strip("`")


def test_asvs_6_1_3_the_table_of_endpoints_is_the_endpoints():
    table = {(row[0], row[1]): row[3] for row in rows("api.md", "## Every endpoint")}
    assert table == {(one.method, path): body_of(one) for path, one in endpoints()}


def test_asvs_6_1_3_the_table_of_endpoints_says_which_ones_are_open_to_everybody():
    table = {(row[0], row[1]) for row in rows("api.md", "## Every endpoint") if row[2].startswith("everybody")}
    assert table == {(one.method, path) for path, one in endpoints() if one.guard is None}


@pytest.mark.parametrize("row", rows("api.md", "## Every endpoint"), ids=lambda row: f"{row[0]} {row[1]}")
def test_the_table_of_endpoints_says_what_is_answered(row):
    statuses = {int(status) for status in re.findall(r"\b\d{3}\b", row[4])}
    assert statuses == {*next(one for path, one in endpoints() if (one.method, path) == (row[0], row[1])).answers}


def test_the_table_of_engines_is_the_engines():
    table = {scheme for row in rows("stores.md", "## Engines") for scheme in re.findall(r"([\w+]+)://", row[0])}
    assert table == set(stores._OPENERS)


# -- security -----------------------------------------------------------------------------------------------


def test_the_table_of_requirements_is_the_tests_that_show_them():
    page = (DOCS / "security.md").read_text("utf-8")
    if page != ROWS["with_rows"](page):
        pytest.fail("docs/security.md and the names of the tests differ: python docs/security_rows.py", pytrace=False)


def test_every_requirement_in_the_table_has_its_words():
    found = ROWS["ids_of_tests"]()
    missing = {one: found[one] for one in found.keys() - ROWS["REQUIREMENTS"].keys()}
    if missing:
        pytest.fail(f"No words in docs/security_rows.py for {missing}", pytrace=False)


def test_every_test_that_a_page_names_exists():
    tests = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    named_in_seeds = set(re.findall(r"`(test_\w*[a-z]\w*)`", (DOCS / "seeds.md").read_text("utf-8")))
    assert named_in_seeds <= tests


def test_a_test_says_in_its_name_which_requirements_it_shows():
    ids = ROWS["ids_in"]
    assert ids("test_asvs_7_2_3_a_secret_has_256_random_bits") == ["asvs_7_2_3"]
    assert ids("test_rfc7515_4_1_11_crit_is_refused") == ["rfc7515_4_1_11"]
    assert ids("test_asvs_9_1_1_and_rfc8725_3_3_nothing_is_read_before") == ["asvs_9_1_1", "rfc8725_3_3"]
    assert ids("test_rfc9457_problems") == ["rfc9457"]
    assert ids("test_rfc8725bis_3_14_no_braces") == ["rfc8725bis_3_14"]
    assert ids("test_nothing_of_the_kind") == []
