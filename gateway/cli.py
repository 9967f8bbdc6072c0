"""The command line: `serve` and `migrate`; `run` and `ha` for trying it out; the rest asks a running gateway."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import psycopg
import typer

from gateway import commands, version
from gateway.embedded import Stores
from gateway.errors import SettingsError, StoreUnavailable
from gateway.settings import Settings
from gateway.stack import Stack
from gateway.store import Store
from gateway.supervise import Supervisor

cli = typer.Typer(name="mcp-gateway", no_args_is_help=True, help="A micro-gateway for the Model Context Protocol.")
cli.add_typer(commands.servers, name="servers")
cli.add_typer(commands.tools, name="tools")
cli.command(name="check")(commands.check)


@cli.command()
def serve() -> None:
    """Serve one replica until SIGTERM; runs stores of its own where DATABASE_URL or REDIS_URL is unset."""
    settings = Settings.from_environment(os.environ)
    if settings.master_key is None:
        raise SettingsError("GATEWAY_MASTER_KEY: not set; it is the key that clients send.")
    environment = dict(os.environ)
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
        _check_database(environment["DATABASE_URL"])
        _say(f"{settings.workers} workers on http://{settings.host}:{settings.port}")
        code = supervisor.run()
        _say("stopped")
        sys.exit(code)


def _check_database(url: str) -> None:
    """Refuse a URL that is none; say why a database does not answer, and leave the waiting to the workers."""
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.ProgrammingError as error:
        raise SettingsError(f"DATABASE_URL: {str(error).strip().splitlines()[0]}") from None
    except psycopg.Error as error:
        logging.getLogger("gateway").warning("DATABASE_URL: %s; trying on", str(error).strip().splitlines()[0])


@cli.command()
def migrate() -> None:
    """Bring the database's schema up to date."""
    settings = Settings.from_environment(os.environ)
    if settings.database_url is None:
        raise SettingsError("DATABASE_URL: not set; there is nothing to migrate.")

    async def work(url: str) -> list[str]:
        store = Store(url)
        try:
            await store.open(settings.secret)
            return store.migrated
        finally:
            await store.close()

    applied = asyncio.run(work(settings.database_url))
    _say(f"applied {', '.join(applied)}" if applied else "the schema is up to date")


@cli.command()
def run() -> None:
    """Try it: a gateway with stores of its own, and a stub server registered."""
    with Stack(Settings.from_environment(os.environ), os.environ, replicas=1) as stack:
        stack.wait_ready()
        stack.register_stub()
        _say(stack.what_next())
        sys.exit(stack.wait())


@cli.command()
def ha(
    nginx_conf: Annotated[Path, typer.Option(help="the load balancer's configuration")] = Path("deploy/nginx.conf"),
) -> None:
    """The whole stack on one machine: two replicas, nginx, Postgres, Redis, the stub."""
    with Stack(Settings.from_environment(os.environ), os.environ, replicas=2, nginx_conf=nginx_conf) as stack:
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
