"""Each test runs twice: on hypercorn's own protocol, and on the one in its place."""

from collections.abc import Iterator

import hypercorn.config
import pytest

from gateway.run.http1 import install


@pytest.fixture(autouse=True, params=["h11", "httptools"])
def _protocol(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(hypercorn.config, "time", lambda: 5000)
    assert install(request.param) is (request.param == "httptools")
    yield
    install("h11")
