"""A whole document compiled: its tools, their plans, and what was left out, with the reason for each.

Runs as a process of its own (`python -m gateway.openapi.compiler`, see `runner`): a line of JSON (`Job`) and the
document come in, JSON (`Compiled`, or `{"error": …}`) goes out.
"""

from __future__ import annotations

import resource
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit

import orjson

from gateway.model.schema_check import SchemaCheck, UncheckableSchema
from gateway.openapi.document import Unresolved, followed, read_document
from gateway.openapi.job import BadDocument, Compiled, Job
from gateway.openapi.operations import VERBS, Compiler, Fixed, LeftOut, Operation, first_url
from gateway.openapi.plan import Plan
from gateway.openapi.swagger2 import lifted

MAX_OPERATIONS = 1_000
MANY_OPERATIONS = 128
_MAX_TOOLS_BYTES = 12 << 20
_MAX_TEXT = 4_000
_MEMORY = 2 << 30
_CPU_SECONDS = 15
_VERSIONS = "2.0, 3.0 and 3.1"

_Named = tuple[str, Operation]


def compile_document(data: bytes, job: Job) -> Compiled:
    """Make tools of a document's text. Raises BadDocument."""
    document = read_document(data)
    format, document = _of_version(document)
    operations = list(_operations(document))
    if not operations:
        raise BadDocument("The document has no operations: nothing stands in its `paths`.")
    said = _server(document, operations)
    base_url = _base_url(said, job)
    named = _named(operations)
    wanted, excluded = _chosen(named, job)
    if len(wanted) > MAX_OPERATIONS:
        raise BadDocument(
            f"The document has {len(wanted)} operations; at most {MAX_OPERATIONS} become tools. "
            "Name those that you want with `include` (names, `tag:NAME`, `GET /path*`)."
        )
    fixed = Fixed(frozenset(job.headers), frozenset(name for name, _ in parse_qsl(urlsplit(base_url).query, True)))
    bases = frozenset({base_url.rstrip("/"), said.rstrip("/")})
    compiler = Compiler(document, fixed, bases)
    found = _result(document, format, base_url)
    found.excluded.extend(excluded)
    found.warnings.extend(_unmatched(named, job))
    plans: dict[str, Plan] = {}
    for name, operation in wanted:
        try:
            tool, plan = compiler.tool(operation, name)
            plans[name] = _checked(tool, plan)
        except LeftOut as error:
            found.left_out.append(_left_out(name, operation, str(error)))
            continue
        found.tools.append(tool)
    if _size(found.tools) > _MAX_TOOLS_BYTES:
        plans = {tool["name"]: _without_output(tool, plans[tool["name"]]) for tool in found.tools}
        found.warnings.append("The shapes of the answers are left out: with them the tools would take too much.")
    if (size := _size(found.tools)) > _MAX_TOOLS_BYTES:
        raise BadDocument(
            f"The document's tools have {size >> 20} MiB; at most {_MAX_TOOLS_BYTES >> 20} are taken. "
            "Name those that you want with `include`."
        )
    found.plans.update({name: plan.to_json() for name, plan in plans.items()})
    if len(found.tools) > MANY_OPERATIONS:
        found.warnings.append(
            f"{len(found.tools)} tools are more than a model reads well: name those that you want with `include`, or "
            "have clients search them (`?tools=search`)."
        )
    return found


def _of_version(document: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The document's version, and the document as 3.0 or 3.1 has it. Raises BadDocument."""
    if str(document.get("swagger")) == "2.0":
        return "2.0", lifted(document)
    version = document.get("openapi")
    if isinstance(version, str) and version.startswith(("3.0", "3.1")):
        return version[:16], document
    said = document.get("openapi", document.get("swagger"))
    if said is None:
        raise BadDocument("The document says neither `openapi` nor `swagger`: it is no OpenAPI document.")
    raise BadDocument(f"The document is of version {str(said)[:32]!r}; {_VERSIONS} are read.")


def _server(document: Mapping[str, Any], operations: list[Operation]) -> str:
    """The URL that the document gives for all, or else for most of its operations; it may be a relative one."""
    of_all = first_url(document.get("servers"))
    if of_all not in ("", "/"):
        return of_all
    own = Counter(url for each in operations if (url := each.server))
    return own.most_common(1)[0][0] if own else of_all or "/"


def _base_url(url: str, job: Job) -> str:
    """Where the API is. Raises BadDocument where nothing says it."""
    if job.base_url:
        return job.base_url
    try:
        url = urljoin(job.spec_url or "", url)
        urlsplit(url)
    except ValueError:
        raise BadDocument(f"The URL of the document's server is none ({url[:100]!r}): send `base_url`.") from None
    if not url.startswith(("http://", "https://")) or "{" in url:
        raise BadDocument(f"The document does not say where the API is ({url[:100]!r}): send `base_url`.")
    return url


def _operations(document: Mapping[str, Any]) -> Iterator[Operation]:
    paths = document.get("paths")
    if not isinstance(paths, dict):
        raise BadDocument("The document has no `paths`: there is nothing to call.")
    for path, item in paths.items():
        try:
            item = followed(document, item)
        except Unresolved as error:
            raise BadDocument(
                f"The path {path[:200]!r} can't be read: {error}. Bundle all into one document."
            ) from None
        if not isinstance(item, dict):
            raise BadDocument(f"The path {path[:200]!r} is no object.")
        if path.startswith("x-"):
            continue
        for verb in VERBS:
            if verb in item:
                yield Operation(path, verb, item, item[verb])


def _named(operations: list[Operation]) -> list[_Named]:
    """Each operation with its tool's name: the same whichever of them are wanted, so that a name stays one thing."""
    found: dict[str, Operation] = {}
    for operation in operations:
        wanted = name = operation.name()
        number = 2
        while name in found:
            name, number = f"{wanted}_{number}", number + 1
        found[name] = operation
    return list(found.items())


def _chosen(named: list[_Named], job: Job) -> tuple[list[_Named], list[dict[str, Any]]]:
    """The operations that are wanted, and why the others are not."""
    wanted, excluded = [], []
    for name, operation in named:
        if job.include and not _matches(name, operation, job.include):
            excluded.append(_left_out(name, operation, "`include` does not name it"))
        elif by := _matches(name, operation, job.exclude):
            excluded.append(_left_out(name, operation, f"`exclude` names it ({by})"))
        else:
            wanted.append((name, operation))
    return wanted, excluded


def _matches(name: str, operation: Operation, patterns: tuple[str, ...]) -> str | None:
    """The first pattern that an operation fits: of its name, `tag:NAME`, or `METHOD /path`."""
    for pattern in patterns:
        if pattern.startswith("tag:"):
            subjects = list(operation.tags)
            globbed = pattern[4:]
        elif " " in pattern:
            subjects = [operation.place]
            verb, _, path = pattern.partition(" ")
            globbed = f"{verb.upper()} {path.strip()}"
        else:
            subjects, globbed = [name, *([operation.id] if operation.id else ())], pattern
        if any(fnmatchcase(subject, globbed.replace("[", "[[]")) for subject in subjects):
            return pattern
    return None


def _unmatched(named: list[_Named], job: Job) -> Iterator[str]:
    for field in ("include", "exclude"):
        for pattern in getattr(job, field):
            if not any(_matches(name, operation, (pattern,)) for name, operation in named):
                yield f"`{field}`: {pattern[:100]!r} fits no operation."


def _checked(tool: dict[str, Any], plan: Plan) -> Plan:
    """Take what could not be checked from a tool's schemas. Raises LeftOut where its input is none even then."""
    try:
        SchemaCheck(tool["inputSchema"])
    except UncheckableSchema:
        tool["inputSchema"] = _without_patterns(tool["inputSchema"])
        try:
            SchemaCheck(tool["inputSchema"])
        except UncheckableSchema as error:
            raise LeftOut(f"its arguments make no JSON Schema: {error}") from None
    if "outputSchema" in tool:
        try:
            SchemaCheck(tool["outputSchema"])
        except UncheckableSchema:
            return _without_output(tool, plan)
    return plan


def _without_output(tool: dict[str, Any], plan: Plan) -> Plan:
    tool.pop("outputSchema", None)
    return replace(plan, output=None)


def _without_patterns(schema: Any) -> Any:
    """The same schema without regular expressions: documents write them in many dialects."""
    if isinstance(schema, dict):
        return {
            name: _without_patterns(each)
            for name, each in schema.items()
            if not (name == "patternProperties" or (name == "pattern" and isinstance(each, str)))
        }
    return [_without_patterns(each) for each in schema] if isinstance(schema, list) else schema


def _size(tools: list[dict[str, Any]]) -> int:
    return len(orjson.dumps(tools))


def _left_out(name: str, operation: Operation, reason: str) -> dict[str, Any]:
    return {"operation": operation.place[:300], "name": name, "reason": reason[:300]}


def _result(document: Mapping[str, Any], format: str, base_url: str) -> Compiled:
    info = document.get("info")
    info = info if isinstance(info, dict) else {}
    return Compiled(
        title=_text(info.get("title"), 200) or "An API",
        version=_text(info.get("version"), 100) or "unknown",
        format=format,
        description=_text(info.get("description"), _MAX_TEXT),
        base_url=base_url,
        security=list(_security(document)),
    )


def _security(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """How the API wants to be authenticated to, for who registers it."""
    components = document.get("components")
    schemes = components.get("securitySchemes") if isinstance(components, dict) else None
    for each in list(schemes.values())[:20] if isinstance(schemes, dict) else ():
        try:
            scheme = followed(document, each)
        except Unresolved:
            continue
        if isinstance(scheme, dict):
            found = {name: _text(scheme.get(name), 200) for name in ("type", "in", "name", "scheme")}
            yield {name: value for name, value in found.items() if value}


def _text(value: Any, limit: int) -> str:
    return "" if value is None or isinstance(value, dict | list) else str(value).strip()[:limit]


def main() -> None:
    """Read a job and a document from the standard input, and write what it gives."""
    _bound(resource.RLIMIT_AS, _MEMORY)
    _bound(resource.RLIMIT_CPU, _CPU_SECONDS)
    line, _, data = sys.stdin.buffer.read().partition(b"\n")
    try:
        found: dict[str, Any] = asdict(compile_document(data, Job.from_json(orjson.loads(line))))
    except BadDocument as error:
        found = {"error": str(error)}
    sys.stdout.buffer.write(orjson.dumps(found))


def _bound(what: int, most: int) -> None:
    """Let the system end this process rather than let it have more."""
    try:
        resource.setrlimit(what, (most, most))
    except (ValueError, OSError):
        pass  # a lower one holds already, or the system has none of this kind


if __name__ == "__main__":
    main()
