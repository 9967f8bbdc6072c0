import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError, InvalidRequest, ParseError
from gateway.protocol import messages
from gateway.protocol.messages import (
    Batch,
    Failure,
    Notification,
    Reply,
    Request,
    decode_answer,
    encode,
)
from gateway.protocol.messages import decode as decode_at_most


def decode(body: bytes) -> object:
    return decode_at_most(body, 100)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', Request(1, "ping")),
        (b'{"jsonrpc":"2.0","id":"a","method":"m","params":{"x":1}}', Request("a", "m", {"x": 1})),
        (b'{"jsonrpc":"2.0","id":0,"method":"m","params":null}', Request(0, "m")),
        (b'{"jsonrpc":"2.0","method":"n"}', Notification("n")),
        (b'{"jsonrpc":"2.0","id":1,"result":[]}', Reply(1, [])),
        (b'{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"no"}}', Failure(None, -1, "no")),
        (b'{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"no","data":[1]}}', Failure(1, -1, "no", [1])),
    ],
)
def test_a_message_is_recognized(body: bytes, message: object) -> None:
    assert decode(body) == message


@pytest.mark.parametrize(
    ("body", "id"),
    [
        (b"3", None),
        (b"{}", None),
        (b'{"jsonrpc":"1.0","id":4,"method":"m"}', 4),
        (b'{"jsonrpc":"2.0","id":true,"method":"m"}', None),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"m"}', None),
        (b'{"jsonrpc":"2.0","id":null,"method":"m"}', None),
        (b'{"jsonrpc":"2.0","id":5,"method":7}', 5),
        (b'{"jsonrpc":"2.0","id":6,"method":"m","params":[1]}', 6),
        (b'{"jsonrpc":"2.0","id":7,"result":1,"error":{"code":1,"message":""}}', 7),
        (b'{"jsonrpc":"2.0","id":8,"error":{"code":"1","message":""}}', 8),
        (b"[]", None),
    ],
)
def test_what_is_no_message_is_refused_with_the_id_that_could_be_read(body: bytes, id: object) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        decode(body)
    assert refusal.value.id == id


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"nonsense", b"\xff\xfe", b'"\\ud800"', b"[" * 10_000 + b"]" * 10_000, b"1e400", b"NaN",
        b"[18446744073709551616]", b"[-9223372036854775809]", b"[" + b"9" * 400 + b"]",
        b'{"a":[1,{"b":123456789012345678901234}]}',
    ],
)  # fmt: skip
def test_what_is_no_json_for_us_is_refused(body: bytes) -> None:
    with pytest.raises(ParseError):
        decode(body)


def test_what_could_not_be_written_again_is_refused() -> None:
    for depth, fits in ((200, True), (300, False)):
        body = b'{"jsonrpc":"2.0","id":1,"result":{"a":' + b"[" * depth + b"]" * depth + b"}}"
        for read in (decode, decode_answer):
            if fits:
                assert encode(read(body))  # type: ignore[arg-type]  # a reply, no batch
            else:
                with pytest.raises(ParseError, match="nested"):
                    read(body)


@pytest.mark.parametrize("number", ["18446744073709551615", "-9223372036854775808", '"18446744073709551616"', "1e22"])
def test_what_fits_into_64_bits_passes_unaltered(number: str) -> None:
    message = decode(f'{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"n":{number}}}}}'.encode())
    assert isinstance(message, Request)
    assert json.loads(encode(message))["params"]["n"] == json.loads(number)


def test_a_batch_keeps_its_order_and_says_what_is_no_message() -> None:
    batch = decode(b'[{"jsonrpc":"2.0","id":1,"method":"a"},3,{"jsonrpc":"2.0","method":"b"}]')
    assert isinstance(batch, Batch)
    assert batch.entries[0] == Request(1, "a")
    assert isinstance(batch.entries[1], InvalidRequest)
    assert batch.entries[2] == Notification("b")


@pytest.mark.parametrize("entry", [b"1", b"{}"])
def test_a_batch_is_counted_before_anything_is_made_of_its_entries(
    entry: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    monkeypatch.setattr(messages, "_entry", made.append)
    for count, most, read in ((101, 100, decode), (1_001, 1_000, decode_answer), (1_000_000, 100, decode)):
        with pytest.raises(InvalidRequest, match=f"at most {most} messages"):
            read(b"[" + b",".join([entry] * count) + b"]")
    assert not made
    decode(b"[" + b",".join([entry] * 100) + b"]")
    assert len(made) == 100


def test_a_servers_long_message_is_a_result_and_one_too_deep_is_refused_when_it_is_written() -> None:
    long = b'"' + b"x" * (4 << 20) + b'"'
    with pytest.raises(InvalidRequest, match="no result"):
        decode_answer(b'{"jsonrpc":"2.0","method":"notifications/message","params":{"x":' + long + b"}}")
    deep = b"[" * 300 + b"]" * 300
    reply = decode_answer(b'{"jsonrpc":"2.0","result":{"x":' + long + b',"y":' + deep + b'},"id":1,"more":{}}')
    assert isinstance(reply, Reply)
    assert reply.raw is None
    with pytest.raises(GatewayError, match="nested too deeply"):
        encode(reply)
    with pytest.raises(ParseError, match="members after its result"):
        decode_answer(b'{"jsonrpc":"2.0","id":1,"result":{"x":' + long + b'},"more":{}}')


NUMBERS = st.sampled_from([
    "18446744073709551615", "18446744073709551616", "-9223372036854775808", "-9223372036854775809",
    "-18446744073709551615", "1234567890123456789", "-1234567890123456789", "99999999999999999999999",
    "0.12345678901234567890123", "123456789012345678901e3", "-12345678901234567890.5", "1e5", "7",
])  # fmt: skip
STRINGS = st.lists(NUMBERS | st.sampled_from(['"', "\\", "\\\\", " ", ",", ":", "[", "]", "}", "x", "é"])).map("".join)
SPACES = st.sampled_from(["", " ", "\n"])
TEXTS = st.recursive(
    NUMBERS | st.builds(json.dumps, STRINGS),
    lambda inner: (
        st.builds(lambda each, gap: f"[{gap}{f'{gap},{gap}'.join(each)}{gap}]", st.lists(inner), SPACES)
        | st.builds(
            lambda each, gap: "{" + ",".join(f"{gap}{json.dumps(key)}{gap}:{gap}{value}" for key, value in each) + "}",
            st.lists(st.tuples(STRINGS, inner)),
            SPACES,
        )
    ),
    max_leaves=12,
)


@given(TEXTS)
def test_an_integer_is_refused_exactly_if_64_bits_do_not_hold_it(text: str) -> None:
    found: list[int] = []
    json.loads(text, parse_int=lambda digits: found.append(int(digits)))
    body = f"[{text}]".encode()
    if all(-(1 << 63) <= number < 1 << 64 for number in found):
        messages.parse(body)
    else:
        with pytest.raises(ParseError, match="64 bits"):
            messages.parse(body)


@pytest.mark.parametrize(
    "text", ["[" + "-1234567890123456789," * 50_000 + "1]", '"' + ' 12345678901234567890123","' * 5_000 + '"']
)
def test_looking_for_large_integers_comes_to_an_end(text: str) -> None:
    with pytest.raises(ParseError, match="more than"):
        messages.parse(f"[{text}]".encode())


PYTHON = b'{"jsonrpc":"2.0","id":7,"result":{"b": 1.0,  "a":"\\u00e9"}}'
TYPESCRIPT = b'{"result":{"b": 1.0,  "a":"\\u00e9"},"jsonrpc":"2.0","id":7}'


@pytest.mark.parametrize("body", [PYTHON, TYPESCRIPT, PYTHON + b" \n", TYPESCRIPT.replace(b":", b" : ", 1)])
def test_a_reply_keeps_its_result_to_the_byte(body: bytes) -> None:
    reply = decode_answer(body)
    assert isinstance(reply, Reply)
    assert (reply.id, reply.result) == (7, {"b": 1.0, "a": "é"})
    spliced = encode(Reply("x", reply.result, reply.raw))
    assert spliced == b'{"jsonrpc":"2.0","id":"x","result":{"b": 1.0,  "a":"\\u00e9"}}'


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":1,"result":{},"id":2}',
        b'{"jsonrpc":"2.0","id":1,"result":{},"result":{"x":1}}',
        b'{"result":{},"id":9,"jsonrpc":"2.0","id":1}',
        b'{"jsonrpc":"2.0","id":1,"result":{"a":\n1}}',
        b'{"jsonrpc":"2.0","id":1,"result":[1]}',
    ],
)
def test_an_unusual_envelope_is_decoded_instead_of_cut(body: bytes) -> None:
    reply = decode_answer(body)
    assert isinstance(reply, Reply)
    assert reply.raw is None
    assert reply.id == json.loads(body)["id"]
    assert reply.result == json.loads(body)["result"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":1,"result":{}]',
        b'{"jsonrpc":"2.0","id":007,"result":{}}',
        b'{"result":{},"jsonrpc":"2.0","id":-01}',
        b'{"jsonrpc":"2.0","id":"\xff","result":{}}',
        b'{"jsonrpc":"2.0","id":1,"result":{}',
        b'{"jsonrpc":"2.0","id":1,"result":{"n":123456789012345678901234}}',
        b'{"result":{"a":1,"jsonrpc":"2.0","id":1}',
    ],
)
def test_a_malformed_answer_is_refused(body: bytes) -> None:
    with pytest.raises(ParseError):
        decode_answer(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON), st.booleans(), st.booleans())
def test_any_result_survives_the_way_through(result: dict[str, object], typescript: bool, spaced: bool) -> None:
    envelope = {"jsonrpc": "2.0", "id": 3, "result": result}
    if typescript:
        envelope = {"result": result, "jsonrpc": "2.0", "id": 3}
    body = json.dumps(envelope, ensure_ascii=spaced, separators=None if spaced else (",", ":")).encode()
    reply = decode_answer(body)
    assert isinstance(reply, Reply)
    assert json.loads(encode(Reply("other", reply.result, reply.raw))) == {
        "jsonrpc": "2.0",
        "id": "other",
        "result": result,
    }


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_message_or_a_clear_refusal(body: bytes) -> None:
    for read in (decode, decode_answer):
        try:
            read(body)
        except (ParseError, InvalidRequest):
            continue
