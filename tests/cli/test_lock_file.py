"""Lock files: written as a whole, read with care, compared by part."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.lock_file import Drift, Unreadable, compare, read, write

ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64
SERVERS = {"docs": {"search": {"description": ONE, "inputSchema": TWO}}, "crm": {}}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / "tools.lock"
    write(file, SERVERS)
    assert read(file) == SERVERS
    assert file.read_text().endswith("}\n")
    assert [each.name for each in tmp_path.iterdir()] == ["tools.lock"]
    write(file, {})
    assert read(file) == {}


def test_differences_are_named_by_tool_and_part() -> None:
    now = {
        "docs": {"search": {"description": TWO, "inputSchema": TWO, "annotations": ONE}, "find": {"inputSchema": ONE}},
        "other": {},
    }
    assert compare(SERVERS, now) == [
        Drift("crm", None, "gone"),
        Drift("docs", "find", "new"),
        Drift("docs", "search", "changed", ("annotations", "description")),
        Drift("other", None, "new"),
    ]
    assert compare(SERVERS, SERVERS) == []


WHOLE = json.dumps({"format": "mcp-gateway tool lock", "version": 1, "servers": SERVERS})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (WHOLE[:-40], "cut off"),
        ("", "cut off"),
        ("<<<<<<< HEAD\n" + WHOLE, "cut off"),
        ("[" * 100_000, "cut off"),
        (WHOLE.replace('"version": 1', '"version": 2'), "is of version 2"),
        (WHOLE.replace('"version": 1', '"version": true'), "is of version true"),
        (WHOLE.replace('"version": 1', '"version": "1"'), 'is of version "1"'),
        (WHOLE.replace('"version": 1, ', ""), "is of version null"),
        (WHOLE.replace('"crm": {}', '"docs": {}'), "has 'docs' twice"),
        (WHOLE.replace('"inputSchema"', '"description"'), "has 'description' twice"),
        (WHOLE.replace('"version": 1', '"version": 1, "version": 1'), "has 'version' twice"),
        ("{}", "is no lock file"),
        ("[]", "is no lock file"),
        ("null", "is no lock file"),
        (WHOLE.replace(ONE, "sha256:1"), "something else than digests"),
        (WHOLE.replace(f'"{ONE}"', "1"), "something else than digests"),
        (WHOLE.replace('"crm": {}', '"crm": []'), "'crm' is no object"),
        (WHOLE.replace('"servers"', '"server"'), "'servers' is no object"),
    ],
)
def test_what_is_no_lock_file_is_refused_with_what_to_do(tmp_path: Path, text: str, said: Any) -> None:
    file = tmp_path / "tools.lock"
    file.write_text(text)
    with pytest.raises(Unreadable) as error:
        read(file)
    assert said in str(error.value)
    assert str(file) in str(error.value)


def test_files_that_can_not_be_read_or_written_are_named(tmp_path: Path) -> None:
    for file in (tmp_path / "nothing.lock", tmp_path):
        with pytest.raises(Unreadable, match=str(file)):
            read(file)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(Unreadable, match="UTF-8"):
        read(tmp_path / "binary")
    with pytest.raises(Unreadable, match="can't be written"):
        write(tmp_path / "nowhere" / "tools.lock", {})
    for folder in (tmp_path, Path("/"), tmp_path / ".."):
        with pytest.raises(Unreadable, match="can't be written"):
            write(folder, {})


def test_a_link_is_followed_and_the_files_mode_kept(tmp_path: Path) -> None:
    file, link = tmp_path / "tools.lock", tmp_path / "link.lock"
    write(file, {})
    file.chmod(0o600)
    link.symlink_to(file)
    write(link, SERVERS)
    assert link.is_symlink()
    assert (read(file), file.stat().st_mode & 0o777) == (SERVERS, 0o600)


def test_a_byte_order_mark_is_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "tools.lock"
    file.write_text("\ufeff" + WHOLE, encoding="utf-8")
    assert read(file) == SERVERS
