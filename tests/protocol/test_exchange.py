import pytest

from gateway.protocol import exchange
from gateway.protocol.exchange import (
    Changed,
    Done,
    Emit,
    Exchange,
    HandshakeRefused,
    Ignored,
    OwnExchange,
    SendBack,
    cancelled,
    upstream_id,
)
from gateway.protocol.messages import Failure, Notification, Reply, Request

CALL = Request("mine", "tools/call", {"name": "t", "_meta": {"progressToken": "token", "other": 1}})


def progress(token: object) -> Notification:
    return Notification("notifications/progress", {"progressToken": token, "progress": 1})


def test_the_upstream_sees_our_id_and_token() -> None:
    out = Exchange(CALL, 42).outgoing()
    assert out == Request(42, "tools/call", {"name": "t", "_meta": {"progressToken": 42, "other": 1}})


def test_the_caller_gets_its_own_token_back() -> None:
    talk = Exchange(CALL, 42)
    assert talk.receive(progress(42)) == Emit(progress("token"))
    assert talk.receive(Reply(42, {"ok": 1})) == Done(Reply(42, {"ok": 1}))


def test_an_error_ends_the_talk_too() -> None:
    assert Exchange(CALL, 42).receive(Failure(42, -1, "no", {"x": 1})) == Done(Failure(42, -1, "no", {"x": 1}))


def test_params_without_token_go_out_as_they_are() -> None:
    request = Request(1, "tools/call", {"name": "t"})
    assert Exchange(request, 5).outgoing().params is request.params


def test_progress_can_be_asked_for_on_behalf_of_a_caller_without_token() -> None:
    talk = Exchange(Request("rest", "tools/call", {"name": "t"}), 5, wants_progress=True)
    assert talk.outgoing().params["_meta"] == {"progressToken": 5}
    assert talk.receive(progress(5)) == Emit(progress("rest"))


@pytest.mark.parametrize(
    "message",
    [Reply(41, {}), Reply("42", {}), Failure(None, -1, ""), progress(41), progress("token"), Notification("x")],
)
def test_what_belongs_to_nobody_is_ignored(message: Reply | Failure | Notification) -> None:
    assert isinstance(Exchange(CALL, 42).receive(message), Ignored)


def test_list_changes_ping_and_foreign_requests_have_their_place() -> None:
    talk = Exchange(CALL, 42)
    changed = "notifications/tools/list_changed"
    assert talk.receive(Notification(changed)) == Changed(Notification(changed))
    assert talk.receive(Request("p", "ping")) == SendBack(Reply("p", {}))
    refused = talk.receive(Request(9, "sampling/createMessage"))
    assert isinstance(refused, SendBack)
    assert isinstance(refused.message, Failure)
    assert refused.message.code == -32601


def test_a_cancellation_names_the_upstreams_id() -> None:
    assert cancelled(42, "why").params == {"requestId": 42, "reason": "why"}


def test_on_its_own_session_a_clients_text_has_an_id_that_no_number_has() -> None:
    assert [upstream_id(1), upstream_id("1"), upstream_id("c:1")] == [1, "c:1", "c:c:1"]
    assert OwnExchange("c:1").receive(Reply("c:1", {})) == Done(Reply("c:1", {}))
    assert isinstance(OwnExchange("c:1").receive(Reply(1, {})), Ignored)


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
