"""Claims about the code, as tests."""

import ast
import re
import runpy
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from gateway.edge import openapi
from gateway.errors import GatewayError
from gateway.methods import all_servers, api_documents, audit, keys, one_server, servers, tool_lock, toolsets
from gateway.methods import imports as import_methods
from gateway.methods.table import METHODS
from gateway.observability.metrics import Metrics
from gateway.protocol.versions import CLIENT_METHODS
from gateway.settings import Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.rst").read_text()
SOURCES = sorted((ROOT / "gateway").rglob("*.py"))


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_the_floors_hold() -> None:
    run = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_starlette_is_a_toolbox(path: Path) -> None:
    assert not imports(path) & {"starlette.applications", "starlette.routing", "starlette.middleware"}


@pytest.mark.parametrize("path", sorted((ROOT / "gateway").glob("*/__init__.py")), ids=lambda path: path.parent.name)
def test_a_folder_says_what_it_is_for_what_it_must_not_know_and_where_to_start(path: Path) -> None:
    text = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split())
    assert "ust not know" in text or "ust know nothing" in text or "Pure:" in text or "nothing of the gateway" in text
    assert "Start with" in text


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_file_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", [path for path in SOURCES if path.parent.name in ("protocol", "model")], ids=str)
def test_floors_one_and_two_never_await(path: Path) -> None:
    awaiting = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    assert not [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, awaiting)]


def test_the_reference_is_what_the_code_says() -> None:
    """`make reference` writes it."""
    made = runpy.run_path(str(ROOT / "docs" / "generate.py"), run_name="generate")
    assert (ROOT / "docs" / "reference.rst").read_text() == made["reference"]()


def test_the_reference_has_every_setting_error_and_figure() -> None:
    """Not by the way it is made: what the code has stands there."""
    text = (ROOT / "docs" / "reference.rst").read_text()
    names = [name for each in fields(Settings) for name in each.metadata["names"]]
    figures = re.findall(r"^# HELP (\w+) ", Metrics("r").exposition().decode(), re.MULTILINE)
    ours = [name for name in figures if not name.endswith("_created")]  # the library adds those
    methods = [*all_servers.METHODS, *servers.METHODS, *toolsets.METHODS, *keys.METHODS, *audit.METHODS]
    assert [name for name in (*names, *ours, *methods) if f"``{name}``" not in text] == []
    assert [code for code in codes() if f"* - {code}\n" not in text] == []
    assert [path for path in openapi.document("")["paths"] if path not in text] == []


def test_the_page_of_keys_says_which_role_each_address_needs() -> None:
    """An address whose operations need one stands in that role's row, and in no other's."""
    page = (ROOT / "docs" / "keys.rst").read_text()
    rows = dict(zip(("user", "operator", "admin"), re.split(r"\n``(?:operator|admin)`` ", page)[:3], strict=True))
    rows["admin"] = rows["admin"].partition("\n====")[0]
    for path, operations in openapi.document("")["paths"].items():
        roles = {each.get("x-role") for name, each in operations.items() if name != "parameters"} - {None}
        named = "/keys" if path.startswith("/keys") else path.removeprefix("/mcp/servers/{name}/")
        assert {role for role in ("operator", "admin") if f"``{named}``" in rows[role]} == roles, path


@pytest.mark.parametrize("target", ["run", "ha", "validate", "conformance", "test", "lint", "types", "bench", "docs"])
def test_every_command_is_documented(target: str) -> None:
    assert f"make {target}" in README
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def codes() -> list[int]:
    """The JSON-RPC code of every error that we raise."""

    def below(kind: type[GatewayError]) -> set[int]:
        return {kind.code}.union(*(below(each) for each in kind.__subclasses__()))

    return sorted(below(GatewayError))


def test_a_code_of_our_own_means_one_thing() -> None:
    """But for those of the JSON-RPC specification, and a server's share beside a caller's."""

    def below(kind: type[GatewayError]) -> list[type[GatewayError]]:
        return [each for child in kind.__subclasses__() for each in (child, *below(child))]

    own = [each for each in below(GatewayError) if "code" in each.__dict__ and -32099 <= each.code <= -32000]
    twice = {each.code for each in own if sum(other.code == each.code for other in own) > 1}
    assert twice == {-32059}


def test_the_tables_of_methods_and_revisions_agree() -> None:
    assert set(all_servers.METHODS) == set(one_server.METHODS) == set(CLIENT_METHODS)
    modules = (servers, api_documents, tool_lock, import_methods, toolsets, keys, audit)
    own = {name for module in modules for name in module.METHODS}
    assert set(METHODS["rpc"]) == set(all_servers.METHODS) | own | {name.replace(".", "/") for name in own}


def test_importing_the_package_costs_nothing() -> None:
    code = "import sys, gateway; print(sorted(m for m in sys.modules if m.split('.')[0] in ('httpx', 'psycopg')))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
