"""`enroll library create` and `enroll library list`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from enroll.cli import options
from enroll.settings import read_credentials

if TYPE_CHECKING:
    from enroll.opening import Account

_account_options = options.together(
    options.config, options.endpoint, options.credentials, options.transport
)


@click.group()
def library() -> None:
    """List the account's libraries, or make one."""


@library.command("list", cls=options.SettingsCommand)
@_account_options
def list_(**given: Any) -> int:
    """Show the account's libraries: group_id, name, model, creation time."""
    from enroll.opening import list_libraries
    from enroll.tally import Tally
    from enroll.texts import columns

    connection = _account(given).open()
    try:
        found = list_libraries(connection, Tally())
    finally:
        connection.close()
    if not found:
        click.echo("The account has no library; `enroll library create` makes one.")
        return 0
    head = ("group_id", "group_name", "model_version", "add_time")
    rows = [(one.group_id, one.group_name, one.model_version, one.add_time) for one in found]
    with options.printing():
        click.echo("\n".join(columns([head, *rows])))
    return 0


@library.command(cls=options.SettingsCommand)
@options.config
@click.option("--group-id", required=True, metavar="ID", help="The new library's group_id.")
@click.option("--name", metavar="TEXT", help="Its name, 1 to 60 characters.  [default: the ID]")
@click.option("--data", default="", metavar="TEXT", help="Its group_data, at most 128 characters.")
@click.option(
    "--model-version", default="", metavar="VERSION", help="[default: left to the service]"
)
@options.endpoint
@options.credentials
@options.transport
def create(group_id: str, name: str | None, data: str, model_version: str, **given: Any) -> int:
    """Make a new, empty library."""
    from enroll.opening import create_library

    connection = _account(given).open()
    try:
        create_library(
            connection,
            group_id=group_id,
            group_name=name or group_id,
            group_data=data,
            model_version=model_version,
        )
    finally:
        connection.close()
    click.echo(f"The library {group_id} is made at {given['endpoint']}.")
    return 0


def _account(given: dict[str, Any]) -> Account:
    from enroll.opening import Account

    credentials: Path | None = given["credentials"]
    return Account(
        endpoint=given["endpoint"],
        read_credentials=lambda: read_credentials(credentials, os.environ),
        timeout=given["timeout"],
        ca_bundle=given["ca_bundle"],
        allow_http=given["allow_http"],
    )
