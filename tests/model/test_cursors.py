import base64

import pytest

from gateway.errors import InvalidParams
from gateway.model.cursors import Cursors
from gateway.model.keyring import Keyring

ONE = Cursors(Keyring([b"one" * 11]))
BOTH = Cursors(Keyring([b"two" * 11, b"one" * 11]))


@pytest.mark.parametrize("identity", ["demo__echo", "ü\0", ""])
def test_what_is_given_out_is_read_by_every_replica(identity: str) -> None:
    assert BOTH.read(ONE.after(identity)) == identity


@pytest.mark.parametrize("cursor", [None, ""])
def test_none_is_the_beginning(cursor: str | None) -> None:
    assert ONE.read(cursor) is None


@pytest.mark.parametrize("cursor", [base64.b64encode(b"demo__echo").decode(), "nonsense", 7, ["x"], "a" * 4000])
def test_what_was_not_given_out_is_refused(cursor: object) -> None:
    with pytest.raises(InvalidParams, match="not given out"):
        ONE.read(cursor)
