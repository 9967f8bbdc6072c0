"""Which texts of rules fit nothing that is registered: shown to who wrote them, since a name may be a mistake. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.model.grants import Globs, Grants
from gateway.model.kinds import KINDS
from gateway.model.server import Server

_MAX_COMPARED = 1_000_000  # names with texts: it holds the loop, and what was found so far says enough


def unmatched(registered: Iterable[Server], rules: Grants, toolsets: Iterable[str] = ()) -> list[str]:
    """The texts of rules that fit nothing, as `field: text`."""
    servers = list(registered)
    names = [server.name for server in servers]
    tags = [tag for server in servers for tag in server.spec.tags]
    there = {"servers": names, "tags": tags, "toolsets": list(toolsets)}
    for kind in ("tools", "prompts", "resources"):
        there[kind] = [item[KINDS[kind].identity] for each in servers for item in each.listed(kind)]
    there["resources"] += [item["uriTemplate"] for each in servers for item in each.offers.templates]
    found: dict[str, None] = {}
    left = _MAX_COMPARED
    for rule in (*rules.allow, *rules.deny):
        for field, texts in there.items():
            globs: Globs | None = getattr(rule, field)
            for text in () if globs is None else globs.texts:
                alone = Globs((text,), of_uris=field == "resources")
                left -= len(texts)
                if left < 0:
                    return list(found)
                if not any(map(alone.match, texts)):
                    found[f"{field}: {text}"] = None
    return list(found)
