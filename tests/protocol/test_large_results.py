"""Large results: passed on as they came if they are JSON, read only when somebody asks."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import GatewayError, ParseError
from gateway.protocol.exchange import HandshakeRefused, accept
from gateway.protocol.large_results import LARGE, checked
from gateway.protocol.messages import Reply, decode_answer, encode

TEXT = "the quick brown fox € \\n " * (LARGE // 20)
PIECES = [
    b'"', b"\\", b"\\u00e9", b"\\ud800", b"\\ud83d\\ude00", b"\xff", b"\xed\xa0\x80", b"\xc3\xa9", b"\xe2\x82", b"\x00",
    b"{", b"}", b"[", b"]", b",", b":", b"1", b"-", b"0", b".5", b"1e5", b"1e999", b"true", b"null", b"NaN", b" ",
    b"\t", b'"isError"', b'"a":', b'"a":1',
]  # fmt: skip
BEFORE, AFTER = (b"", b'"a":', b'"a":"', b'"isError":', b'"a":['), (b"", b'"', b',"b":1', b"]")


def answer(result: str, *, id: str = "7", typescript: bool = False) -> bytes:
    if typescript:
        return f'{{"result":{result},"jsonrpc":"2.0","id":{id}}}'.encode()
    return f'{{"jsonrpc":"2.0","id":{id},"result":{result}}}'.encode()


def read(body: bytes) -> Reply:
    found = decode_answer(body)
    assert isinstance(found, Reply)
    return found


@pytest.mark.parametrize("typescript", [False, True])
def test_the_answer_to_the_same_request_is_what_came(typescript: bool) -> None:
    body = answer(f'{{"content":[{{"type":"text","text":"{TEXT}"}}]}}', typescript=typescript)
    reply = read(body)
    assert reply.large is not None
    assert encode(reply) is body
    assert (reply.id, reply.is_tool_error, reply.large.may_link) == (7, False, False)


def test_another_request_has_the_same_result_under_its_own_id() -> None:
    result = f'{{"structuredContent":{{"b": 1.0,  "a":"{TEXT}"}}}}'
    reply = read(answer(result)).under("x")
    assert encode(reply) == answer(result, id='"x"')
    assert reply.result == json.loads(result)


def test_values_are_there_for_who_asks() -> None:
    reply = read(answer(f'{{"content":[{{"type":"text","text":"{TEXT}"}}],"isError":true}}'))
    assert reply.is_tool_error
    assert reply.result["content"][0]["text"] == json.loads(f'"{TEXT}"')
    with pytest.raises(AttributeError):
        _ = reply.resolt  # type: ignore[attr-defined]


def test_a_result_with_a_link_says_so() -> None:
    link = '{"type":"resource_link","uri":"file:///a","name":"a"}'
    large = read(answer(f'{{"content":[{{"type":"text","text":"{TEXT}"}},{link}]}}')).large
    assert large is not None
    assert large.may_link


@pytest.mark.parametrize(
    "body",
    [
        answer(f'{{"text":"{TEXT}"}}').replace(b'"id":7', b'"id":7,"id":8'),
        answer(f'{{"text":"{TEXT}"}},"result":{{}}'),
        answer(f'{{"text":"{TEXT}"}},"more":1'),
        answer(f'{{"text":"{TEXT}"}}').replace(b'"jsonrpc":', b'\n"jsonrpc":'),
        answer(f'{{"text":"{TEXT}"}}').replace(b'"text":', b'"text":\n'),
    ],
)
def test_an_unusual_one_is_read(body: bytes) -> None:
    """Two readers could take such a message for different ones; or it is not one line."""
    reply = read(body)
    assert reply.large is None
    again = json.loads(encode(reply))
    assert again == {name: json.loads(body)[name] for name in again}


@pytest.mark.parametrize(
    "bad",
    ["tru", '"\\x"', '"\x01"', "[1,]", "123456789012345678901234", '{"a":1', "\udcff", '"\udcff"', '"\\ud800"'],
)
def test_a_malformed_one_is_refused(bad: str) -> None:
    body = b'{"jsonrpc":"2.0","id":1,"result":{"a":"%b","b":%b}}'
    with pytest.raises(ParseError):
        decode_answer(body % (TEXT.encode(), bad.encode(errors="surrogateescape")))


def test_a_character_may_stand_at_the_edge_of_what_is_looked_at_together() -> None:
    for shift in range(4):
        text = "a" * shift + "€" * (LARGE // 3)
        assert read(answer(f'{{"text":"{text}"}}')).large is not None


@pytest.mark.parametrize("byte", [bytes([each]) for each in range(256)])
def test_what_stands_between_the_words_of_an_envelope_is_json(byte: bytes) -> None:
    for body in (
        b'{%b"jsonrpc"%b:%b"2.0"%b,"id":7,%b"result"%b:%b{}%b}%b',
        b'{%b"result"%b:%b{}%b,%b"jsonrpc"%b:"2.0","id"%b:7%b}%b',
    ):
        found = body % ((byte,) * 9)
        try:
            reply = decode_answer(found)
        except ParseError:
            with pytest.raises(json.JSONDecodeError):
                json.loads(found.decode("latin-1"))
        else:
            assert isinstance(reply, Reply)
            assert json.loads(encode(reply)) == {"jsonrpc": "2.0", "id": 7, "result": {}}


def test_a_number_that_nobody_can_read_is_told_of_the_server() -> None:
    reply = read(answer(f'{{"n":1e99999,"text":"{TEXT}"}}'))
    assert b"1e99999" in encode(reply)
    with pytest.raises(GatewayError, match="The server's result can't be read") as caught:
        _ = reply.result
    assert not isinstance(caught.value, ParseError)
    with pytest.raises(HandshakeRefused):
        accept(reply)


def test_what_is_nested_too_deeply_passes_on_and_is_not_read() -> None:
    reply = read(answer(f'{{"deep":{"[" * 600}{"]" * 600},"text":"{TEXT}"}}'))
    if reply.large is not None:
        with pytest.raises(GatewayError, match="nested too deeply"):
            encode(Reply(1, reply.result))
    with pytest.raises(ParseError):
        decode_answer(answer(f'{{"deep":{"[" * 100_000}{"]" * 100_000},"text":"{TEXT}"}}'))


@given(
    st.sampled_from(BEFORE),
    st.lists(st.sampled_from(PIECES) | st.binary(max_size=3), max_size=4).map(b"".join),
    st.sampled_from(AFTER),
)
@example(b'"isError":"', b"true", b'"')
@example(b'"a":"', b"\xe2\x82", b'"')
def test_what_passes_is_what_a_reader_reads(before: bytes, inner: bytes, after: bytes) -> None:
    """Whatever is passed on unread can be read, and says the same of an error."""
    data = b"{%b%b%b}" % (before, inner, after)
    large = checked(memoryview(data))
    if large is None:
        with pytest.raises(orjson.JSONDecodeError):
            orjson.loads(data)
    else:
        assert large.is_error is (json.loads(data).get("isError") is True)  # orjson refuses 1e999, which is JSON
