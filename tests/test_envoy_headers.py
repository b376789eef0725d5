"""What one caller sends in his headers costs nobody else a call: replicas share connections."""

import asyncio
import struct

import grpc
import pytest
import pytest_asyncio
from fleets import running, visit
from speechemotion.v1.emotion_service_pb2 import AnalyzeRequest
from speechemotion.v1.emotion_service_pb2_grpc import EmotionServiceStub

from fleet.compose import HTTP, SHORT, compose, find

pytestmark = [pytest.mark.envoy, pytest.mark.asyncio(loop_scope="module")]

PATH = "/speechemotion.v1.EmotionService/Analyze"
ANSWERED = b"angry"  # what the model of these replicas always says
REPEATED = 6  # enough for every connection to every replica

# What gRPC parses with a type, with a value that it cannot parse, and names that it does not have.
REFUSED = [
    ("grpc-timeout", "10"),
    ("grpc-timeout", "NaN"),
    ("grpc-timeout", "-5m"),
    ("grpc-timeout", ""),
    ("grpc-timeout", "123456789S"),
    ("grpc-encoding", "zzz"),
]
IGNORED = [
    ("grpc-status", "abc"),
    ("grpc-retry-pushback-ms", "abc"),
    ("grpc-previous-rpc-attempts", "abc"),
    ("grpc-internal-encoding-request", "zzz"),
    ("grpc-accept-encoding", "zzz"),
    ("grpc-message", "%ZZ"),
    ("grpc-trace-bin", "!!!"),
    ("lb-cost-bin", "AA"),
    ("endpoint-load-metrics-bin", "!!!"),
    ("x-foo-bin", "!!!"),
    ("x-odd!", "1"),
    ("x-request-id", "\u00e9"),
]

UNPARSED = [("grpc-timeout", "NaN"), ("grpc-encoding", "zzz"), ("grpc-trace-bin", "!!!")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory):
    async with running(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


@pytest_asyncio.fixture(loop_scope="module")
async def http(fleet):
    async with visit(f"http://127.0.0.1:{fleet.ports.door}") as session:
        yield session


@pytest.fixture
def message(tone) -> AnalyzeRequest:
    return AnalyzeRequest(audio_data=tone(0.2))


def framed(message: AnalyzeRequest) -> bytes:
    return struct.pack(">BI", 0, message.ByteSize()) + message.SerializeToString()


async def by_grpc(http, message: AnalyzeRequest, name: str, value: str) -> tuple[str, str]:
    """Status and message of a gRPC call that no gRPC library would make; Envoy takes HTTP/1.1."""
    headers = {"content-type": "application/grpc", "te": "trailers", name: value}
    answer = await http.post(PATH, data=framed(message), headers=headers)
    await answer.read()
    return answer.headers.get("grpc-status", "0"), answer.headers.get("grpc-message", "")


async def assert_nobody_noticed(fleet, message: AnalyzeRequest) -> None:
    """Deadlines, compressions and ids of all kinds, so that every header is sent anew."""
    kinds = [grpc.Compression.NoCompression, grpc.Compression.Gzip, grpc.Compression.Deflate]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{fleet.ports.door}") as channel:
        client = EmotionServiceStub(channel)
        calls = [
            client.Analyze(
                message,
                timeout=20 + n / 7,
                compression=kinds[n % 3],
                metadata=[("x-request-id", f"good-{n}"), ("grpc-trace-bin", b"good")],
            )
            for n in range(30)
        ]
        codes = {await call.code() for call in calls}
    assert codes == {grpc.StatusCode.OK}


@pytest.mark.parametrize(("name", "value"), REFUSED)
async def test_a_header_that_cannot_be_parsed_is_its_callers_mistake_alone(
    fleet, http, message, name, value
):
    for _ in range(REPEATED):
        upload = {"data": message.audio_data, "headers": {name: value}}
        answer = await http.post("/api/v1/analyze:upload", **upload)
        error = await answer.json()
        status, text = await by_grpc(http, message, name, value)

        assert (answer.status, error["code"]) == (400, 3)
        assert error["message"].startswith(name)
        assert status == {"grpc-timeout": "3", "grpc-encoding": "12"}[name]
        assert text.startswith(name)

    await assert_nobody_noticed(fleet, message)


@pytest.mark.parametrize(("name", "value"), IGNORED)
async def test_a_header_that_no_caller_has_to_send_changes_nothing(
    fleet, http, message, name, value
):
    for _ in range(REPEATED):
        upload = {"data": message.audio_data, "headers": {name: value}}
        answer = await http.post("/api/v1/analyze:upload", **upload)

        assert answer.status == 200
        assert await by_grpc(http, message, name, value) == ("0", "")

    await assert_nobody_noticed(fleet, message)


async def test_a_call_without_te_is_answered_and_ejects_no_replica(fleet, http, message):
    headers = {"content-type": "application/grpc"}

    answers = [await http.post(PATH, data=framed(message), headers=headers) for _ in range(12)]

    assert [ANSWERED in await one.read() for one in answers] == [True] * len(answers)
    await assert_nobody_noticed(fleet, message)


async def test_behind_a_proxy_that_removes_nothing_a_header_spoils_its_own_call_only(
    tmp_path, message
):
    config = compose([])
    del find(config, HTTP)["early_header_mutation_extensions"]
    routes = find(config, f"{SHORT['HOST']}/routes")
    routes[:] = [one for one in routes if one["name"] not in {"bad-deadline", "bad-encoding"}]

    async with running(tmp_path, config) as fleet:
        async with visit(f"http://127.0.0.1:{fleet.ports.door}") as http:
            for name, value in UNPARSED:
                answers = [await by_grpc(http, message, name, value) for _ in range(REPEATED)]
                assert {status for status, _ in answers} == {"13"}

        await assert_nobody_noticed(fleet, message)


async def test_trailers_spoil_nothing_either(fleet, message):
    for _ in range(REPEATED):
        assert ANSWERED in await with_trailer(fleet.ports.door, message, "grpc-timeout", "NaN")

    await assert_nobody_noticed(fleet, message)


async def with_trailer(port: int, message: AnalyzeRequest, name: str, value: str) -> bytes:
    """What comes back for a gRPC call over HTTP/2 whose request ends with a trailer (RFC 9113)."""

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        head = struct.pack(">I", len(payload))[1:] + bytes([kind, flags])
        return head + struct.pack(">I", stream) + payload

    def fields(*pairs: tuple[str, str]) -> bytes:  # literals that are not indexed, RFC 7541 6.2.2
        return b"".join(
            b"\0" + bytes([len(key)]) + key.encode() + bytes([len(text)]) + text.encode()
            for key, text in pairs
        )

    head = fields(
        *((":method", "POST"), (":scheme", "http"), (":path", PATH), (":authority", "x")),
        *(("content-type", "application/grpc"), ("te", "trailers")),
    )
    body = framed(message)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 4, 1, head))
    writer.write(frame(0, 0, 1, body) + frame(1, 5, 1, fields((name, value))))
    answer = b""
    try:
        async with asyncio.timeout(10):
            while ANSWERED not in answer and (more := await reader.read(65536)):
                answer += more
    finally:
        writer.close()
    return answer


@pytest.mark.parametrize("value", ["1500m", "20S", "99999999H"])
async def test_a_deadline_is_heard_by_rest(http, message, value):
    upload = {"data": message.audio_data, "headers": {"grpc-timeout": value}}

    assert (await http.post("/api/v1/analyze:upload", **upload)).status == 200


async def test_a_deadline_that_has_passed_is_said_by_rest(http, message):
    upload = {"data": message.audio_data, "headers": {"grpc-timeout": "1n"}}

    assert (await http.post("/api/v1/analyze:upload", **upload)).status == 504


async def test_headers_that_are_too_large_are_called_so(http, message):
    upload = {"data": message.audio_data, "headers": {"x-large": "a" * 7000}}
    answer = await http.post("/api/v1/analyze:upload", **upload)

    assert answer.status == 431
    assert await answer.json() == {
        "code": 3,
        "message": "The headers are larger than 6 KiB.",
        "details": [],
    }


async def test_by_grpc_as_well_and_what_the_server_takes_passes(fleet, message):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{fleet.ports.door}") as channel:
        client = EmotionServiceStub(channel)
        passes = await client.Analyze(message, metadata=[("x-large", "a" * 6000)])
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.Analyze(message, metadata=[("x-large", "a" * 7000)])

    assert passes.emotion
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.value.details() == "The headers are larger than 6 KiB."


async def test_a_path_that_leads_out_is_refused_with_a_word(fleet):
    reader, writer = await asyncio.open_connection("127.0.0.1", fleet.ports.door)
    writer.write(b"GET /api/v1/models/%2e%2e%2fetc HTTP/1.1\r\nhost: x\r\n\r\n")
    answer = await reader.readuntil(b"}")
    writer.close()

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"message":"The path has an escaped slash' in answer
