import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError, HeaderMismatch, InvalidRequest, UnsupportedVersion
from gateway.protocol.headers import Headers
from gateway.protocol.messages import Message, Notification, Request
from gateway.protocol.placement import Placed, place

INITIALIZE = Request(1, "initialize", {"protocolVersion": "2025-11-25"})
LIST = Request(2, "tools/list")
MODERN = Request(3, "tools/list", {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}})


def headers(*pairs: tuple[str, str]) -> Headers:
    return Headers([(name.encode(), value.encode()) for name, value in pairs])


@pytest.mark.parametrize(
    ("sent", "messages", "expected"),
    [
        ((), [INITIALIZE], (None, None, True)),
        ((("mcp-session-id", "old"),), [INITIALIZE], (None, None, True)),
        ((("mcp-session-id", "s"),), [LIST], (None, "s", False)),
        ((("mcp-session-id", "s"), ("mcp-protocol-version", "2025-06-18")), [LIST], ("2025-06-18", "s", False)),
        ((), [Notification("notifications/initialized")], (None, None, False)),
    ],
)
def test_a_message_of_a_handshake_revision_is_placed(
    sent: tuple[tuple[str, str], ...], messages: list[Message], expected: Placed
) -> None:
    assert place(headers(*sent), messages) == expected


@pytest.mark.parametrize(
    ("sent", "messages", "error"),
    [
        ((("mcp-protocol-version", "2026-07-28"),), [MODERN], UnsupportedVersion),
        ((("mcp-protocol-version", "2026-07-28"),), [LIST], UnsupportedVersion),
        ((("mcp-protocol-version", "1999-01-01"),), [LIST], UnsupportedVersion),
        ((("mcp-protocol-version", "2025-11-25"),), [MODERN], UnsupportedVersion),
        ((), [MODERN], HeaderMismatch),
        ((("mcp-session-id", "a"), ("mcp-session-id", "b")), [LIST], HeaderMismatch),
        ((("mcp-protocol-version", "2025-11-25"),) * 2, [LIST], HeaderMismatch),
        ((), [INITIALIZE, LIST], InvalidRequest),
    ],
)
def test_what_may_not_come_in_is_refused_with_400(
    sent: tuple[tuple[str, str], ...], messages: list[Message], error: type[GatewayError]
) -> None:
    with pytest.raises(error) as refusal:
        place(headers(*sent), messages)
    assert refusal.value.status == 400


def test_an_unsupported_version_is_told_what_we_support() -> None:
    with pytest.raises(UnsupportedVersion) as refusal:
        place(headers(("mcp-protocol-version", "2026-07-28")), [MODERN])
    assert refusal.value.data == {
        "supported": ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"], "requested": "2026-07-28"
    }  # fmt: skip


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["mcp-protocol-version", "mcp-session-id", "mcp-method", "x-other"]),
            st.sampled_from(["2025-11-25", "2026-07-28", "", "x"]) | st.text(st.characters(max_codepoint=255)),
        ),
        max_size=4,
    ),
    st.lists(st.sampled_from([INITIALIZE, LIST, MODERN, Notification("n")]), max_size=3),
)
def test_anything_is_placed_or_refused(sent: list[tuple[str, str]], messages: list[Message]) -> None:
    with contextlib.suppress(HeaderMismatch, UnsupportedVersion, InvalidRequest):
        version, _, _ = place(Headers(raw=[(name.encode(), value.encode("latin-1")) for name, value in sent]), messages)
        assert version in (None, "2025-11-25")
        assert MODERN not in messages
