import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import SessionNotFound
from gateway.model.keyring import Keyring, SealBroken
from gateway.model.principals import Principal
from gateway.model.session_ids import SessionIds

OLD, NEW = b"o" * 32, b"n" * 32
ADMIN = Principal("master", "master", role="admin")


@given(st.binary(max_size=300))
def test_what_is_sealed_opens(text: bytes) -> None:
    keys = Keyring([NEW])
    assert keys.open("p", keys.seal("p", text, "c"), "c") == text


def test_every_bit_counts() -> None:
    keys = Keyring([NEW])
    sealed = keys.seal("p", b"text")
    for at in range(len(sealed)):
        broken = bytearray(sealed)
        broken[at] ^= 1
        with pytest.raises(SealBroken):
            keys.open("p", bytes(broken))


def test_purpose_and_context_bind() -> None:
    keys = Keyring([NEW])
    for purpose, context in (("q", "c"), ("p", "d")):
        with pytest.raises(SealBroken):
            keys.open(purpose, keys.seal("p", b"text", "c"), context)


def test_a_new_secret_seals_and_the_old_one_still_opens() -> None:
    sealed = Keyring([OLD]).seal("p", b"text")
    assert Keyring([NEW, OLD]).open("p", sealed) == b"text"
    with pytest.raises(SealBroken):
        Keyring([NEW]).open("p", sealed)


def test_a_session_is_read_by_every_worker_with_the_secret() -> None:
    session = SessionIds(Keyring([NEW]), 60).mint(ADMIN, "/mcp", "2025-06-18", now=1000)
    read = SessionIds(Keyring([NEW]), 60).read(session.text, ADMIN, "/mcp", now=1059)
    assert (read.version, read.expires) == ("2025-06-18", 1060)
    assert session.text.isascii()
    assert session.text.isprintable()


def test_whatever_is_wrong_with_a_session_looks_alike() -> None:
    sessions = SessionIds(Keyring([NEW]), 60)
    session = sessions.mint(ADMIN, "/mcp", "2025-06-18", now=1000)
    other = Principal("other", "other")
    foreign = SessionIds(Keyring([OLD]), 60).mint(ADMIN, "/mcp", "2025-06-18", now=1000)
    attempts = [
        (session.text, other, "/mcp", 1000),
        (session.text, ADMIN, "/mcp/servers/a/mcp", 1000),
        (session.text, ADMIN, "/mcp", 1060),
        (session.text[:-2], ADMIN, "/mcp", 1000),
        ("B" + session.text[1:], ADMIN, "/mcp", 1000),
        (session.text[:-1] + chr(ord(session.text[-1]) + 1), ADMIN, "/mcp", 1000),
        (session.text + "=", ADMIN, "/mcp", 1000),
        (foreign.text, ADMIN, "/mcp", 1000),
        ("", ADMIN, "/mcp", 1000),
        ("ü", ADMIN, "/mcp", 1000),
    ]
    said = set()
    for id, principal, address, now in attempts:
        with pytest.raises(SessionNotFound) as refusal:
            sessions.read(id, principal, address, now)
        said.add(refusal.value.detail)
    assert len(said) == 1
