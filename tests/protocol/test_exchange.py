import pytest

from gateway.protocol import exchange
from gateway.protocol.exchange import (
    Ask,
    Changed,
    Emit,
    HandshakeRefused,
    Ignored,
    SendBack,
    cancelled,
    outgoing,
    read_own,
    read_shared,
    upstream_id,
)
from gateway.protocol.messages import Failure, Notification, Reply, Request

CALL = Request("mine", "tools/call", {"name": "t", "_meta": {"progressToken": "token", "other": 1}})


def progress(token: object) -> Notification:
    return Notification("notifications/progress", {"progressToken": token, "progress": 1})


def test_the_upstream_sees_our_id_and_token() -> None:
    out = outgoing(CALL, 42)
    assert out == Request(42, "tools/call", {"name": "t", "_meta": {"progressToken": 42, "other": 1}})


def test_the_caller_gets_its_own_token_back() -> None:
    assert read_shared(progress(42), CALL, 42) == Emit(progress("token"))


@pytest.mark.parametrize("params", [{"name": "t"}, {"name": "t", "_meta": {"other": 1}}, {"_meta": {}}])
def test_params_without_token_go_out_as_they_are(params: dict[str, object]) -> None:
    assert outgoing(Request(1, "tools/call", params), 5).params is params


def test_progress_can_be_asked_for_on_behalf_of_a_caller_without_token() -> None:
    request = Request("rest", "tools/call", {"name": "t"})
    assert outgoing(request, 5, wants_progress=True).params["_meta"] == {"progressToken": 5}
    assert read_shared(progress(5), request, 5, wants_progress=True) == Emit(progress("rest"))
    assert isinstance(read_shared(progress(5), request, 5), Ignored)


@pytest.mark.parametrize("message", [progress(41), progress("token"), Notification("x")])
def test_what_belongs_to_nobody_is_ignored(message: Notification) -> None:
    assert isinstance(read_shared(message, CALL, 42), Ignored)


def test_list_changes_ping_and_foreign_requests_have_their_place() -> None:
    changed = Notification("notifications/tools/list_changed")
    assert read_shared(changed, CALL, 42) == Changed(changed)
    assert read_shared(Request("p", "ping"), CALL, 42) == SendBack(Reply("p", {}))
    refused = read_shared(Request(9, "sampling/createMessage"), CALL, 42)
    assert isinstance(refused, SendBack)
    assert isinstance(refused.message, Failure)
    assert refused.message.code == -32601


def test_on_a_clients_own_session_everything_is_the_clients() -> None:
    asked, changed = Request(9, "sampling/createMessage"), Notification("notifications/tools/list_changed")
    assert read_own(asked) == Ask(asked)
    assert read_own(Request("p", "ping")) == SendBack(Reply("p", {}))
    assert read_own(changed) == Changed(changed, passes=True)
    assert read_own(progress("token")) == Emit(progress("token"))
    assert isinstance(read_own(Notification("notifications/of_no_revision")), Ignored)


def test_a_cancellation_names_the_upstreams_id() -> None:
    assert cancelled(42, "why").params == {"requestId": 42, "reason": "why"}


def test_on_its_own_session_a_clients_text_has_an_id_that_no_number_has() -> None:
    assert [upstream_id(1), upstream_id("1"), upstream_id("c:1")] == [1, "c:1", "c:c:1"]


def test_a_handshake_is_read() -> None:
    result = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "s"}}
    shaken = exchange.accept(Reply(0, result))
    assert (shaken.version, shaken.capabilities, shaken.server_info) == ("2025-06-18", {"tools": {}}, {"name": "s"})


@pytest.mark.parametrize(
    "answer",
    [
        Failure(0, -32601, "no such method"),
        Reply(0, {}),
        Reply(0, {"protocolVersion": "1999-01-01", "capabilities": {}}),
        Reply(0, {"protocolVersion": 3, "capabilities": {}}),
        Reply(0, []),
    ],
)
def test_a_handshake_that_leads_nowhere_is_refused(answer: Reply | Failure) -> None:
    with pytest.raises(HandshakeRefused):
        exchange.accept(answer)
