"""What `deploy/` holds and can be run here: TLS in front of the stack."""

import os
import re
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest
import trustme

from gateway.run.embedded import nginx_binary
from tests.fix_stack import KEY, Running, free_ports

pytestmark = pytest.mark.system
DEPLOY = Path(__file__).parent.parent.parent / "deploy"


def test_the_tls_example_serves_the_stack_and_leads_to_it(stack: Running, tmp_path: Path) -> None:
    """The server block of nginx-tls.conf in the place of the one of nginx.conf, over HTTP/1.1 and unbuffered."""
    authority = trustme.CA()
    certificate = authority.issue_cert("mcp.example.org")
    (tmp_path / "chain.pem").write_bytes(b"".join(part.bytes() for part in certificate.cert_chain_pems))
    (tmp_path / "key.pem").write_bytes(certificate.private_key_pem.bytes())
    plain, secure = free_ports(2)
    tls = (DEPLOY / "nginx-tls.conf").read_text()
    for old, new in (
        ("listen 80;", f"listen 127.0.0.1:{plain};"),
        ("listen 443 ssl;", f"listen 127.0.0.1:{secure} ssl;"),
        ("/etc/ssl/mcp.example.org/fullchain.pem", str(tmp_path / "chain.pem")),
        ("/etc/ssl/mcp.example.org/privkey.pem", str(tmp_path / "key.pem")),
    ):
        assert tls.count(old) == 1
        tls = tls.replace(old, new)
    text = (DEPLOY / "nginx.conf").read_text()
    before, found, _ = text.partition("    server {\n        listen 127.0.0.1:8080;")
    assert found
    for number, url in zip((4000, 4001), stack.replicas, strict=True):
        before = before.replace(f"127.0.0.1:{number} ", f"127.0.0.1:{url.rpartition(':')[2]} ")
    (tmp_path / "nginx.conf").write_text(f"{before}{tls}}}\n")
    for name in ("body", "proxy", "fastcgi", "uwsgi", "scgi", "logs"):
        (tmp_path / name).mkdir()
    command = [str(nginx_binary()), "-p", f"{tmp_path}/", "-c", str(tmp_path / "nginx.conf"), "-e", "stderr", "-g"]
    process = subprocess.Popen([*command, "daemon off;" + (" user root;" if os.geteuid() == 0 else "")])
    try:
        trusted = ssl.create_default_context()
        authority.configure_trust(trusted)
        transport = httpx.HTTPTransport(verify=trusted, retries=10)
        headers = {"authorization": f"Bearer {KEY}", "host": "localhost"}
        with httpx.Client(transport=transport, headers=headers, timeout=10) as client:
            url = f"https://127.0.0.1:{secure}"
            sni = {"sni_hostname": "mcp.example.org"}
            answer = client.get(f"{url}/openapi.json", extensions=sni)
            assert answer.json()["servers"] == [{"url": "https://localhost"}]
            assert "max-age" in answer.headers["strict-transport-security"]
            stream = {"accept": "text/event-stream"}
            with client.stream("GET", f"{url}/mcp/servers", headers=stream, extensions=sni) as events:
                assert next(events.iter_lines()) == "event: servers"
        moved = httpx.get(f"http://127.0.0.1:{plain}/mcp/tools?q=x", headers={"host": "mcp.example.org"}, timeout=10)
        assert (moved.status_code, moved.headers["location"]) == (308, "https://mcp.example.org/mcp/tools?q=x")
    finally:
        process.terminate()
        process.wait(10)


def test_every_file_of_deploy_is_in_its_readme() -> None:
    text = (DEPLOY / "README.rst").read_text()
    for path in DEPLOY.iterdir():
        name = path.name
        if name not in ("README.rst", "__pycache__", "secrets") and not name.endswith((".in", ".dockerignore")):
            assert re.search(rf"``{re.escape(name)}/?``", text) or "requirements-build" in name, name


def test_the_locked_packages_are_those_that_are_asked_for() -> None:
    setup = (DEPLOY.parent / "setup.cfg").read_text()
    [block] = re.findall(r"install_requires =\n((?:    .*\n)+)", setup)
    wanted = {re.split(r"[\[<>=;]", line.strip(), maxsplit=1)[0].lower() for line in block.splitlines()}
    locked = set(re.findall(r"^([a-z0-9-]+)==", (DEPLOY / "requirements.txt").read_text(), re.MULTILINE))
    assert wanted <= locked, wanted - locked
