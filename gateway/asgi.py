"""Where ASGI servers and hosts find the application: `hypercorn gateway.asgi:app`."""

from gateway.edge.app import Application, app, create_app

__all__ = ["Application", "app", "create_app"]
