"""One port for every client: gRPC, gRPC-Web and REST through a real Envoy to real servers."""

import asyncio
import base64
import io
import json
import socket
import struct

import grpc
import pytest
import pytest_asyncio
from fleets import calls_of, logged, running, statistics, until, visit
from google.api.httpbody_pb2 import HttpBody
from google.protobuf import json_format
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status
from speechemotion.v1.emotion_service_pb2 import (
    AnalyzeRequest,
    AnalyzeResponse,
    AnalyzeUploadRequest,
)
from speechemotion.v1.emotion_service_pb2_grpc import EmotionServiceStub

from fleet.compose import HTTP, compose, find

pytestmark = [pytest.mark.envoy, pytest.mark.asyncio(loop_scope="module")]

VOLATILE = ("metadata",)  # ids, times and batch sizes differ from call to call


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory):
    async with running(tmp_path_factory.mktemp("fleet"), flags=["--delay-ms", "5"]) as fleet:
        yield fleet


@pytest_asyncio.fixture(loop_scope="module")
async def grpc_door(fleet):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{fleet.ports.door}") as channel:
        yield EmotionServiceStub(channel)


@pytest_asyncio.fixture(loop_scope="module")
async def direct(fleet):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{fleet.ports.replicas[0]}") as channel:
        yield EmotionServiceStub(channel)


@pytest_asyncio.fixture(loop_scope="module")
async def http(fleet):
    async with visit(f"http://127.0.0.1:{fleet.ports.door}") as session:
        yield session


def comparable(answer: AnalyzeResponse) -> AnalyzeResponse:
    copy = AnalyzeResponse()
    copy.CopyFrom(answer)
    for name in VOLATILE:
        copy.ClearField(name)
    return copy


def request(audio: bytes) -> AnalyzeRequest:
    return AnalyzeRequest(
        audio_data=audio,
        granularity=AnalyzeRequest.GRANULARITY_FRAME,
        extract_embedding=True,
    )


def as_json(audio: bytes, **fields) -> dict:
    return {"audio_data": base64.b64encode(audio).decode(), **fields}


async def web_call(http, message: AnalyzeRequest):
    """A gRPC-Web call as browsers make it: the answer, its trailers, the HTTP headers."""
    answer = await http.post(
        "/speechemotion.v1.EmotionService/Analyze",
        data=struct.pack(">BI", 0, message.ByteSize()) + message.SerializeToString(),
        headers={"content-type": "application/grpc-web+proto", "origin": "http://localhost:5173"},
    )
    body = await answer.read()
    size = struct.unpack(">I", body[1:5])[0]
    return AnalyzeResponse.FromString(body[5 : 5 + size]), body[5 + size + 5 :], answer.headers


async def test_every_door_gives_the_answer_that_the_server_gives(direct, grpc_door, http, tone):
    audio = tone(0.6)
    expected = comparable(await direct.Analyze(request(audio)))

    by_grpc = await grpc_door.Analyze(request(audio))
    body = as_json(audio, granularity="frame", extract_embedding=True)
    by_json = await (await http.post("/api/v1/analyze", json=body)).text()
    query = "?granularity=frame&extract_embedding=true"
    by_upload = await (await http.post(f"/api/v1/analyze:upload{query}", data=audio)).text()

    assert comparable(by_grpc) == expected
    assert comparable(json_format.Parse(by_json, AnalyzeResponse())) == expected
    assert comparable(json_format.Parse(by_upload, AnalyzeResponse())) == expected


async def test_a_browser_gets_the_same_by_grpc_web(direct, http, tone):
    message = request(tone(0.3))

    analysed, trailers, headers = await web_call(http, message)

    assert comparable(analysed) == comparable(await direct.Analyze(message))
    assert b"grpc-status:0" in trailers
    assert headers["access-control-allow-origin"] == "http://localhost:5173"


async def test_a_browser_is_told_what_it_may_send(http):
    headers = {"origin": "http://localhost:5173", "access-control-request-method": "POST"}

    answer = await http.options("/api/v1/analyze", headers=headers)

    assert answer.status == 200
    assert "x-grpc-web" in answer.headers["access-control-allow-headers"]


async def test_both_spellings_of_names_and_choices_are_understood(http, tone):
    body = as_json(tone(0.2))
    spellings = [
        {"granularity": "utterance", "extract_embedding": False},
        {"granularity": "GRANULARITY_UTTERANCE", "extractEmbedding": False},
    ]

    answers = [await http.post("/api/v1/analyze", json=body | one) for one in spellings]

    assert [answer.status for answer in answers] == [200, 200]


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "reason"),
    [
        ("/api/v1/analyze", {"audio_data": ""}, 400, 3, "AUDIO_EMPTY"),
        ("/api/v1/analyze", {"audio_data": "AAAA"}, 400, 3, "FORMAT_REQUIRED"),
        ("/api/v1/analyze", {"audio_data": "AAAA", "model": "x"}, 404, 5, "MODEL_NOT_FOUND"),
        ("/api/v1/analyze", {"granularity": "word"}, 400, 3, None),
        ("/api/v1/analyze", {"audio_data": "no base64!"}, 400, 3, None),
        ("/api/v1/analyze?granularty=frame", {}, 400, 3, None),
        ("/api/v1/analyze", {"audio_data": "AAAA", "granularty": "frame"}, 400, 3, None),
        ("/api/v1/analyze:batch", {"requests": [{"audio": "AAAA"}]}, 400, 3, None),
        ("/api/v1/analyze", {"options": {"frame_strides": 2}}, 400, 3, None),
        ("/api/v1/analyze", {"frame_stride": 2}, 400, 3, None),
        ("/api/v1/analyze", {"options": {"granularity": "frame"}}, 400, 3, None),
        ("/api/v1/analyze:batch", {"requests": [{}, {"requests": []}]}, 400, 3, None),
        ("/api/v1/analyze:stream", [{"config": {}}, {"audio": {"dat": ""}}], 400, 3, None),
        ("/api/v1/analyse", {}, 404, 5, None),
        ("/api/v1/analyze:batch", {"requests": []}, 400, 3, "BATCH_SIZE_OUT_OF_RANGE"),
    ],
)
async def test_rest_errors_are_json_with_the_right_status(http, path, body, status, code, reason):
    answer = await http.post(path, json=body)
    error = await answer.json()

    assert (answer.status, error["code"]) == (status, code)
    assert error["message"][0] not in "{["  # text for people, not an error in an error
    assert reason is None or error["details"][0]["reason"] == reason


@pytest.mark.parametrize(
    "name", ['a "quoted\\" name": 1', "back\\slash\\", '{"x": 1}', "\\u0022 x: y"]
)
async def test_what_a_value_says_is_no_name(http, tone, name):
    answer = await http.post("/api/v1/analyze", json=as_json(tone(0.2), request_id=name))

    assert (await answer.json())["metadata"]["request_id"] == name


async def test_what_is_not_json_is_refused_as_json(http):
    answer = await http.post("/api/v1/analyze", data=b"{", headers={"content-type": "text/json"})

    assert (answer.status, (await answer.json())["code"]) == (400, 3)


async def test_a_body_over_the_limit_is_refused_with_the_way_out(http):
    answer = await http.post("/api/v1/analyze", data=io.BytesIO(bytes(25 * 2**20)))

    assert answer.status == 413
    assert "analyze:upload" in (await answer.json())["message"]


async def test_a_stream_over_rest_is_an_event_a_line(http, tone):
    messages = [
        {"config": {"pacing": "PACING_BULK"}},
        {"audio": {"data": base64.b64encode(tone(3.0)).decode()}},
        {"control": {"finish": {}}},
    ]

    answer = await http.post("/api/v1/analyze:stream", json=messages)
    events = [json.loads(line) for line in (await answer.text()).splitlines()]

    assert [next(iter(set(one) - {"sequence", "cursors"})) for one in events] == [
        "session_started", "segment", "segment", "summary",
    ]  # fmt: skip


async def test_a_file_that_is_too_long_for_analyze_comes_back_in_windows(http, direct, tone):
    audio = tone(70.0)

    async def in_pieces():
        for at in range(0, len(audio), 50_000):
            yield audio[at : at + 50_000]

    by_rest = await (await http.post("/api/v1/analyze:upload", data=in_pieces())).text()
    answer = json_format.Parse(by_rest, AnalyzeResponse())
    by_grpc = await direct.AnalyzeUpload(iter([AnalyzeUploadRequest(audio=HttpBody(data=audio))]))

    assert answer.windowed.window_count == 69
    assert answer.scores == pytest.approx(by_grpc.scores)


async def test_an_upload_over_the_limit_is_refused(http):
    file = io.BytesIO(bytes(101 * 2**20))

    answer = await http.post("/api/v1/analyze:upload", data=file)

    assert (answer.status, (await answer.json())["code"]) == (413, 3)


async def test_the_door_lets_in_the_files_that_the_server_says_it_takes(http):
    limit = f"{HTTP}/http_filters/upload_size_limit/typed_config/max_request_bytes"

    info = await (await http.get("/api/v1/info")).json()

    assert int(info["limits"]["max_upload_bytes"]) == find(compose([]), limit) > 0


async def test_grpc_errors_keep_their_details(grpc_door):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await grpc_door.Analyze(AnalyzeRequest())

    info = ErrorInfo()
    details = rpc_status.from_call(error.value).details
    assert details[0].Unpack(info)
    assert (error.value.code(), info.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "AUDIO_EMPTY",
    )


async def test_nobody_can_throw_replicas_out_by_what_he_sends(fleet, grpc_door, tone):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{fleet.ports.door}") as channel:
        raw = channel.unary_unary("/speechemotion.v1.EmotionService/Analyze")
        codes = {await raw(b"\xff\xff", timeout=10).code() for _ in range(60)}
    await asyncio.sleep(1.1)  # until outlier detection has looked

    ejected = await statistics(fleet, "outlier_detection.ejections_enforced_total$")
    assert grpc.StatusCode.OK not in codes
    assert set(ejected.values()) == {0}
    assert (await grpc_door.Analyze(request(tone(0.2)))).emotion


async def test_a_message_that_ends_too_early_is_refused_at_once(http, tone):
    audio = request(tone(0.2)).SerializeToString()
    half = struct.pack(">BI", 0, len(audio)) + audio[: len(audio) // 2]
    headers = {"content-type": "application/grpc", "te": "trailers"}

    answer = await http.post("/speechemotion.v1.EmotionService/Analyze", data=half, headers=headers)

    assert answer.headers["grpc-status"] == "3"
    assert "no message of this method" in answer.headers["grpc-message"]


async def test_load_reports_are_for_envoy_only(http, tone):
    trailers = (await web_call(http, request(tone(0.2))))[1]

    assert b"grpc-status:0" in trailers
    assert b"endpoint-load-metrics" not in trailers


async def test_an_id_is_the_same_in_the_answer_and_in_the_logs(fleet, http, tone):
    answer = await http.post(
        "/api/v1/analyze", json=as_json(tone(0.2)), headers={"x-request-id": "mine-7"}
    )

    assert answer.headers["x-request-id"] == "mine-7"
    assert (await answer.json())["metadata"]["request_id"] == "mine-7"
    assert (await logged(fleet, "mine-7"))["event"] == "call"


async def test_the_log_of_the_door_says_what_the_caller_was_told(fleet, http, grpc_door):
    async def written() -> bool:
        lines = {line.get("request_id"): line for line in fleet.log.of("envoy")}
        seen.update({name: lines[name] for name in ("by-rest", "by-grpc") if name in lines})
        return len(seen) == 2

    seen: dict[str, dict] = {}
    no_audio = base64.b64encode(b"x").decode()

    await http.post(
        "/api/v1/analyze", json={"audio_data": no_audio}, headers={"x-request-id": "by-rest"}
    )
    with pytest.raises(grpc.aio.AioRpcError):
        await grpc_door.Analyze(
            AnalyzeRequest(audio_data=b"x"), metadata=(("x-request-id", "by-grpc"),)
        )
    await until(written)

    assert (seen["by-rest"]["status"], seen["by-rest"].get("grpc_status")) == (400, None)
    assert seen["by-grpc"]["grpc_status"] == "3"  # INVALID_ARGUMENT


async def test_nobody_names_himself(fleet, http, tone):
    headers = {"x-client-id": "somebody-else", "x-request-id": "spoof-1"}
    answer = await http.post("/api/v1/analyze", json=as_json(tone(0.2)), headers=headers)

    assert answer.status == 200
    assert "client" not in await logged(fleet, "spoof-1")


@pytest.mark.parametrize("path", ["/health", "/ready", "/openapi.json"])
async def test_what_needs_no_call_is_answered_at_the_door(http, path):
    assert (await http.get(path)).status == 200


async def test_the_description_of_the_api_describes_what_is_served(http, tone):
    description = await (await http.get("/openapi.json")).json()
    schema = description["components"]["schemas"]["AnalyzeResponse"]
    answer = await (await http.post("/api/v1/analyze", json=as_json(tone(0.2)))).json()

    assert set(answer) <= set(schema["properties"])
    assert {"/api/v1/analyze", "/api/v1/analyze:upload"} <= set(description["paths"])


async def test_admin_and_metrics_listen_on_loopback_only(fleet):
    for port in (fleet.ports.door, fleet.ports.admin, fleet.ports.metrics):
        with socket.socket() as other:
            other.bind(("127.0.0.2", port))  # free, so nobody listens on all addresses


async def test_the_metrics_port_shows_nothing_but_metrics(fleet):
    async with visit(f"http://127.0.0.1:{fleet.ports.metrics}") as session:
        metrics = await session.get("/metrics")
        others = [await session.post("/quitquitquit"), await session.get("/config_dump")]

    assert "envoy_cluster_upstream_rq_total" in await metrics.text()
    assert [answer.status for answer in others] == [404, 404]


async def test_calls_go_to_all_replicas(fleet, grpc_door, tone):
    audio = tone(0.2)
    await asyncio.gather(*(grpc_door.Analyze(request(audio)) for _ in range(20)))

    served = [await calls_of(fleet, number) for number in (0, 1)]
    assert all(served)
    healthy = await statistics(fleet, "cluster.speech.membership_healthy")
    assert list(healthy.values()) == [2]
