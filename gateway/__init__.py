"""A pure ASGI micro-gateway for the Model Context Protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.version import VERSION as __version__

if TYPE_CHECKING:
    from gateway.edge.app import Application, create_app
    from gateway.settings import Settings

__all__ = ["Application", "Settings", "__version__", "create_app"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import gateway` costs nothing."""
    if name in ("Application", "create_app"):
        from gateway.edge import app as asgi

        return getattr(asgi, name)
    if name == "Settings":
        from gateway.settings import Settings

        return Settings
    raise AttributeError(f"module 'gateway' has no attribute {name!r}")
