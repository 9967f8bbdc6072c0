"""The command line: `serve` and `migrate`; `run` and `ha` for trying it out; the rest asks a running gateway.

A command imports what it needs by itself: who asks for a list does not wait for Postgres' and Redis' clients to load.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from gateway import version
from gateway.cli import (
    apply_commands,
    audit_commands,
    import_commands,
    item_commands,
    key_commands,
    lock_commands,
    override_commands,
    server_commands,
    toolset_commands,
    top,
)
from gateway.cli.terminal import DEFAULT_URL, AsJson, Key, Options, Url, asking, print_json, print_table, set_options
from gateway.errors import SettingsError, StoreUnavailable
from gateway.settings import Settings, with_secrets

_DATABASE_SECONDS = 5.0

cli = typer.Typer(name="mcp-gateway", no_args_is_help=True, help="A micro-gateway for the Model Context Protocol.")
cli.add_typer(server_commands.servers, name="servers")
server_commands.servers.command("changes")(lock_commands.list_changes)
server_commands.servers.command("approve")(lock_commands.approve_changes)
cli.add_typer(toolset_commands.toolsets, name="toolsets")
cli.add_typer(override_commands.overrides, name="overrides")
cli.add_typer(lock_commands.lock, name="lock")
cli.command("import")(import_commands.import_servers)
cli.command("apply")(apply_commands.apply)
cli.command("export")(import_commands.export_servers)
cli.command("client-config")(import_commands.client_config)
cli.add_typer(key_commands.keys, name="keys")
cli.add_typer(audit_commands.audit, name="audit")
cli.command("top")(top.top)
cli.command("whoami")(key_commands.whoami)
cli.add_typer(item_commands.tools, name="tools")
cli.add_typer(item_commands.resources, name="resources")
cli.add_typer(item_commands.prompts, name="prompts")
secrets = typer.Typer(no_args_is_help=True, help="What servers' secrets are sealed with.")
cli.add_typer(secrets, name="secrets")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(version.VERSION)
        raise typer.Exit


@cli.callback()
def options(
    url: Annotated[str, typer.Option("--url", envvar="GATEWAY_URL", help="where the gateway is")] = DEFAULT_URL,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            envvar=["GATEWAY_KEY", "GATEWAY_MASTER_KEY", "LITELLM_MASTER_KEY"],
            help="the key to ask with",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    show: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """A micro-gateway for the Model Context Protocol."""
    if key is None:  # in a container it stands in a file
        known = with_secrets(os.environ)
        key = known.get("GATEWAY_MASTER_KEY") or known.get("LITELLM_MASTER_KEY")
    set_options(Options(url, key, as_json))


@cli.command()
def check(url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Check the gateway, its stores, its servers and the way through the load balancer; says what to fix."""
    from gateway.cli import check as checks

    with asking(url, key, as_json) as to:
        findings = list(checks.run(to.remote, os.environ))
        if to.as_json:
            print_json(
                [{"what": each.what, "well": each.well, "said": each.said, "fix": each.fix} for each in findings]
            )
        else:
            table = Table("", "what", "found", "what to do", title=f"Check of {to.remote.url}")
            for each in findings:
                mark = "[green]ok[/]" if each.well else "[red]no[/]"
                table.add_row(mark, escape(each.what), escape(each.said), escape(each.fix))
            print_table(table)
    if wrong := [each.code for each in findings if not each.well]:
        raise typer.Exit(max(wrong))


@cli.command()
def serve() -> None:
    """Serve one replica until SIGTERM; runs stores of its own where DATABASE_URL or REDIS_URL is unset."""
    from gateway.run.embedded import Stores
    from gateway.run.supervisor import Supervisor

    settings = Settings.from_environment(os.environ)
    if settings.master_key is None:
        raise SettingsError("GATEWAY_MASTER_KEY: not set; it is the key that clients send.")
    environment = with_secrets(os.environ)
    with ExitStack() as stack:
        if settings.database_url is None or settings.redis_url is None:
            stores = Stores(
                settings.data_dir, postgres=settings.database_url is None, valkey=settings.redis_url is None
            )
            stack.callback(stores.stop)
            urls = stores.start()
            environment["DATABASE_URL"] = settings.database_url or urls.database_url
            environment["REDIS_URL"] = settings.redis_url or urls.redis_url
            wanted = [
                name
                for name, url in (("Postgres", settings.database_url), ("Redis", settings.redis_url))
                if url is None
            ]
            whose = "own" if stores.owned else "another gateway's"
            _say(f"{whose} {' and '.join(wanted)} in {settings.data_dir.absolute()}")
        supervisor = Supervisor(settings, environment)
        supervisor.bind()
        if settings.database_url is not None:
            _check_database(settings.database_url)
        if settings.lets_any_host_in:
            logging.getLogger("gateway").warning(
                "GATEWAY_HOST=%s without names: any Host header is let in, so that a browser's page can reach the "
                "gateway under a name of its own. Set GATEWAY_PUBLIC_URL=https://NAME or GATEWAY_ALLOWED_HOSTS=NAME,…",
                settings.host,
            )
        for line in Settings.misspelled(os.environ):
            logging.getLogger("gateway").warning("%s", line)
        _say(f"{settings.workers} workers on http://{settings.host}:{settings.port}")
        code = supervisor.run()
        _say("stopped")
        sys.exit(code)


def _check_database(url: str) -> None:
    """Wait a little for a database that starts, and say why one can't be used. Raises SettingsError."""
    import psycopg

    deadline = time.monotonic() + _DATABASE_SECONDS
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
            return
        except psycopg.OperationalError as error:
            is_starting = error.sqlstate == "57P03" or "Connection refused" in str(error)
            if is_starting and time.monotonic() < deadline:
                time.sleep(0.5)
                continue
            raise SettingsError(f"DATABASE_URL: {_cause(error)}. Nothing was started.") from None
        except psycopg.Error:  # its words hold the URL, and so a password
            raise SettingsError(
                "DATABASE_URL: it is no URL of a database (postgresql://user:password@host/name is one; special "
                "characters in the password are percent-encoded). Nothing was started."
            ) from None


def _cause(error: Exception) -> str:
    """The line that says what is wrong; libpq's last one says it best."""
    lines = [line.strip().removeprefix("- ") for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300].rstrip(".")


@cli.command()
def migrate() -> None:
    """Bring the database's schema up to date."""
    from gateway.stores.postgres import Postgres

    settings = Settings.from_environment(os.environ)
    if settings.database_url is None:
        raise SettingsError("DATABASE_URL: not set; there is nothing to migrate.")

    _check_database(settings.database_url)

    async def work(url: str) -> list[str]:
        postgres = Postgres(url)
        try:
            await postgres.open()
            return postgres.migrated
        finally:
            await postgres.close()

    applied = asyncio.run(work(settings.database_url))
    _say(f"applied {', '.join(applied)}" if applied else "the schema is up to date")


@secrets.command()
def rotate() -> None:
    """Seal anew, with the newest of GATEWAY_SECRET, what older ones sealed; replicas may run meanwhile."""
    from gateway.model.keyring import Keyring
    from gateway.registry.servers import ServerTable
    from gateway.stores.postgres import Postgres

    settings = Settings.from_environment(with_secrets(os.environ))
    if settings.database_url is None:
        raise SettingsError("DATABASE_URL: not set; it is where the servers are.")
    if not settings.secret:
        raise SettingsError("GATEWAY_SECRET: not set; give the new secret first and the old one after it (new,old).")
    _check_database(settings.database_url)

    async def work(url: str) -> tuple[int, list[str]]:
        postgres = Postgres(url)
        try:
            await postgres.open()
            secrets = [secret.encode() for secret in settings.secret]
            keyring = Keyring([*secrets, *await postgres.stored_secrets()])
            return await ServerTable(postgres, keyring).seal_anew()
        finally:
            await postgres.close()

    count, closed = asyncio.run(work(settings.database_url))
    _say(f"sealed {count} server{'' if count == 1 else 's'} anew")
    if closed:
        raise SettingsError(
            f"GATEWAY_SECRET: none of its secrets opens {', '.join(closed)}; add theirs, or PUT them again."
        )


@cli.command()
def run() -> None:
    """Try it: a gateway with stores of its own, and a stub server registered."""
    from gateway.run.stack import Stack

    environment = with_secrets(os.environ)
    settings = Settings.from_environment(environment)
    if settings.database_url is not None:
        _check_database(settings.database_url)
    with Stack(settings, environment, replicas=1) as stack:
        stack.wait_ready()
        stack.register_stub()
        _say(stack.what_next())
        sys.exit(stack.wait())


@cli.command()
def ha(
    nginx_conf: Annotated[Path, typer.Option(help="the load balancer's configuration")] = Path("deploy/nginx.conf"),
) -> None:
    """The whole stack on one machine: two replicas, nginx, Postgres, Redis, the stub."""
    from gateway.run.stack import Stack

    environment = with_secrets(os.environ)
    settings = Settings.from_environment(environment)
    if settings.database_url is not None:
        _check_database(settings.database_url)
    with Stack(settings, environment, replicas=2, nginx_conf=nginx_conf) as stack:
        stack.wait_ready()
        _say(stack.what_next())
        sys.exit(stack.wait())


@cli.command(name="version")
def show_version() -> None:
    """Print the version."""
    typer.echo(version.VERSION)


def _say(text: str) -> None:
    typer.echo(f"mcp-gateway: {text}" if "\n" not in text else text)
    sys.stdout.flush()


def main() -> None:
    """The entry point; a setting that is wrong ends in one line and exit code 2."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for quiet in ("httpx", "httpcore"):
        logging.getLogger(quiet).setLevel(logging.WARNING)
    try:
        cli()
    except SettingsError as error:
        typer.echo(f"mcp-gateway: {error}", err=True)
        sys.exit(2)
    except StoreUnavailable as error:
        typer.echo(f"mcp-gateway: DATABASE_URL: {error}", err=True)
        sys.exit(1)
