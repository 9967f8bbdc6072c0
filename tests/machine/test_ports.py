"""A port that is taken, and by whom."""

import os
import socket

import pytest

from gateway.errors import SettingsError
from gateway.machine import ports


def test_a_taken_port_names_the_process_that_has_it() -> None:
    with ports.listen("GATEWAY_PORT", "127.0.0.1", 0, 5) as taken:
        port = taken.getsockname()[1]
        for take in (
            lambda: ports.check_free("GATEWAY_PORT", "127.0.0.1", port),
            lambda: ports.listen("GATEWAY_PORT", "127.0.0.1", port, 5),
        ):
            with pytest.raises(SettingsError) as caught:
                take()
            said = str(caught.value)
            assert said.startswith(f"GATEWAY_PORT: can't listen on 127.0.0.1:{port}: Address already in use")
            assert f"by process {os.getpid()} (" in said


def test_an_address_that_is_not_ours_is_refused_without_naming_anybody() -> None:
    with pytest.raises(SettingsError, match="Cannot assign requested address"):
        ports.listen("GATEWAY_HOST", "192.0.2.1", 0, 5)


def test_a_port_that_nobody_listens_on_has_no_owner() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert ports.owner(bound.getsockname()[1]) is None
