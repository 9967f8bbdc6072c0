"""Check the page's vendored files against npm's registry: `python3 deploy/vendored.py`.

Each file must be the one that stands in the named package, byte for byte, and the package must be the one whose digest
was noted. Needs the network and npm; a test checks the files' own digests without either.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

_FOLDER = Path(__file__).parent.parent / "gateway/edge/page/static/vendored"


def main() -> int:
    """0 if all files are what they should be."""
    wrong = 0
    for entry in json.loads((_FOLDER / "vendored.json").read_text())["files"]:
        name = f"{entry['package']}@{entry['version']}"
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                ["npm", "pack", "--silent", name], cwd=folder, capture_output=True, text=True, check=True
            )
            archive = Path(folder) / done.stdout.strip().splitlines()[-1]
            integrity = f"sha512-{base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()}"
            with tarfile.open(archive) as package:
                member = package.extractfile(f"package/{entry['path']}")
                same = member is not None and member.read() == (_FOLDER / entry["file"]).read_bytes()
        well = same and integrity == entry["integrity"]
        print(f"{entry['file']}: {'as' if well else 'NOT as'} {entry['path']} of {name}")
        wrong += not well
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
