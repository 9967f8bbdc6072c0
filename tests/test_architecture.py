"""Claims about the code, as tests."""

import ast
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from gateway.edge import openapi
from gateway.errors import GatewayError
from gateway.methods import all_servers as aggregate
from gateway.methods import one_server
from gateway.methods import servers as administration
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


@pytest.mark.parametrize("name", [name for each in fields(Settings) for name in each.metadata["names"]])
def test_every_setting_is_documented(name: str) -> None:
    assert f"``{name}``" in README


@pytest.mark.parametrize("name", sorted(set(aggregate.METHODS) | set(administration.METHODS)))
def test_every_method_is_documented(name: str) -> None:
    assert f"``{name}``" in README


@pytest.mark.parametrize("target", ["run", "ha", "validate", "conformance", "test", "lint", "types", "bench"])
def test_every_command_is_documented(target: str) -> None:
    assert f"make {target}" in README
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def codes() -> list[int]:
    """The JSON-RPC code of every error that we raise."""

    def below(kind: type[GatewayError]) -> set[int]:
        return {kind.code}.union(*(below(each) for each in kind.__subclasses__()))

    return sorted(below(GatewayError))


@pytest.mark.parametrize("code", codes())
def test_every_error_code_is_documented(code: int) -> None:
    assert re.search(rf"^{code}  ", README, re.MULTILINE)


def test_every_metric_is_documented() -> None:
    text = Metrics("r").exposition().decode()
    names = set(re.findall(r"^# HELP (\w+) ", text, re.MULTILINE))
    assert names
    ours = [name for name in names if not name.endswith("_created")]  # the library adds those
    assert [name for name in ours if f"``{name}``" not in README] == []


def test_every_address_of_the_openapi_document_is_documented() -> None:
    for path in openapi.document("")["paths"]:
        assert path in README, path


def test_the_tables_of_methods_and_revisions_agree() -> None:
    assert set(aggregate.METHODS) == set(one_server.METHODS) == set(CLIENT_METHODS)
    own = set(administration.METHODS)
    assert set(METHODS["rpc"]) == set(aggregate.METHODS) | own | {name.replace(".", "/") for name in own}


def test_importing_the_package_costs_nothing() -> None:
    code = "import sys, gateway; print(sorted(m for m in sys.modules if m.split('.')[0] in ('httpx', 'psycopg')))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
