"""A host application with the gateway below a prefix, served by plain hypercorn."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import Mount

from gateway import create_app

gateway = create_app()


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with gateway.lifespan():
        yield


app = Starlette(routes=[Mount("/tools/gateway", app=gateway)], lifespan=lifespan)
