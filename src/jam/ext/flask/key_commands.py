"""``flask jam keys``: make, rotate, list and remove the keys of the key directory."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import msgspec
from flask import current_app
from flask.cli import AppGroup

from jam.credentials.access_tokens import REFRESH_EVERY
from jam.errors import ConfigError
from jam.ext.flask.request import state_of
from jam.ext.flask.terminal import print_table

if TYPE_CHECKING:
    from jam.crypto.key_directory import KeyDirectory

__all__ = ["keys_group"]

_ANNOUNCED_FOR = 300.0  # seconds for which the published keys may be cached

keys_group = AppGroup("keys", help="The keys that sign access tokens, in access_tokens.key_directory.")


@keys_group.command("generate")
@click.option("--algorithm", default="ES256", show_default=True, help="ES256, ES384, ES512, EdDSA, PS256, ...")
def generate_command(algorithm: str) -> None:
    """Make the first key; or the next one, which is announced and signs after the next rotation."""
    made = _directory().generate(algorithm)
    if made.state == "current":
        click.echo(f"The {made.algorithm} key {made.kid} signs from now on.")
    else:
        click.echo(f"The {made.algorithm} key {made.kid} is announced. It signs after: flask jam keys rotate")


@keys_group.command("rotate")
def rotate_command() -> None:
    """Sign with the next key, retire the current one, and announce another next key."""
    current = _directory().rotate()
    click.echo(f"The {current.algorithm} key {current.kid} signs from now on; the former one verifies what it signed.")
    if current.since - current.created_at < _ANNOUNCED_FOR:
        click.echo(
            "It was announced less than five minutes ago: services that fetch the published keys may refuse its tokens "
            "until they fetch them again.",
            err=True,
        )


@keys_group.command("list")
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def list_command(as_json: bool) -> None:
    """Show every key with its state; no key itself."""
    entries = _directory().list()
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(entries), indent=2))
        return
    rows = [(one.kid, one.algorithm, one.state, _shown(one.since), _shown(one.created_at)) for one in entries]
    print_table(("Key", "Algorithm", "State", "Since", "Made"), rows)


@keys_group.command("prune")
@click.option(
    "--older-than", type=click.FloatRange(min=0), metavar="SECONDS",
    help="Retired for at least so long; left out, until the last token they signed has expired. 0 after a theft: what "
    "they signed is refused at once.",
)  # fmt: skip
def prune_command(older_than: float | None) -> None:
    """Remove retired keys that signed no token that is still good."""
    directory = _directory()
    if older_than is None:
        tokens = state_of(current_app).jam.settings.access_tokens
        older_than = tokens.max_lifetime + tokens.leeway + REFRESH_EVERY
    gone = directory.prune(older_than)
    for one in gone:
        click.echo(f"The {one.algorithm} key {one.kid} is removed.")
    click.echo(f"{len(gone)} keys removed.")


def _directory() -> KeyDirectory:
    directory = state_of(current_app).jam.key_directory
    if directory is None:
        raise ConfigError("No key directory is configured.", hint="Set JAM_ACCESS_TOKENS_KEY_DIRECTORY to its path.")
    return directory


def _shown(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
