import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.sse import EventTooLarge, ServerSentEvent, SseDecoder, encode_event

WIRE = (
    b"\xef\xbb\xbf: hello\r\n\r\nevent: tools\rid: 7\rdata: one\rdata:two\r\rretry: 1500\ndata\n\n"
    b"id: 8\nignored: x\ndata: caf\xc3\xa9\n\nid: 9\ndata: \r\n\r\n"
)
EVENTS = [
    ServerSentEvent(b"one\ntwo", "tools", "7"),
    ServerSentEvent(b"", "message", "7", 1500),
    ServerSentEvent("café".encode(), "message", "8"),
    ServerSentEvent(b"", "message", "9"),
]


@pytest.mark.parametrize("cut", range(1, len(WIRE)))
def test_events_survive_any_cut(cut: int) -> None:
    decoder = SseDecoder()
    assert [*decoder.feed(WIRE[:cut]), *decoder.feed(WIRE[cut:])] == EVENTS


def test_events_survive_byte_by_byte() -> None:
    decoder = SseDecoder()
    assert [event for byte in WIRE for event in decoder.feed(bytes([byte]))] == EVENTS


def test_an_unfinished_event_is_not_dispatched() -> None:
    assert SseDecoder().feed(b"data: half\n") == []


@pytest.mark.parametrize("wire", [b"data: " + b"x" * 200, b"data: xxxxxxxxxx\n" * 20, b"x" * 200, b"data:\n" * 200])
def test_an_endless_event_is_refused(wire: bytes) -> None:
    decoder = SseDecoder(limit=100)
    with pytest.raises(EventTooLarge):
        [decoder.feed(bytes([byte])) for byte in wire]


@given(
    st.binary(max_size=60).filter(lambda data: b"\r" not in data),
    st.none() | st.text("abc", min_size=1),
    st.none() | st.integers(0, 10**9),
)
def test_what_is_encoded_is_decoded(data: bytes, name: str | None, id: int | None) -> None:
    wire = encode_event(data, name=name, id=id)
    [event] = SseDecoder().feed(wire)
    assert event == ServerSentEvent(data, name or "message", None if id is None else str(id))


@given(st.binary(max_size=300), st.integers(1, 50))
def test_arbitrary_bytes_never_break_the_decoder(data: bytes, size: int) -> None:
    whole, cut = SseDecoder(), SseDecoder()
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert whole.feed(data) == [event for piece in pieces for event in cut.feed(piece)]
