"""The profile `edge`: who may call, as whom, how often; all over TLS."""

import asyncio
import base64
import io
import ssl
from collections import Counter
from contextlib import asynccontextmanager

import aiohttp
import grpc
import pytest
import pytest_asyncio
import yaml
from fleets import logged, running, sent_to_replicas, visit
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from speech_emotion_client import AsyncClient, FixedWindow, Unauthenticated
from speechemotion.v1.emotion_service_pb2 import AnalyzeRequest
from speechemotion.v1.emotion_service_pb2_grpc import EmotionServiceStub

from fleet.compose import compose
from fleet.edge import equip

pytestmark = [pytest.mark.envoy, pytest.mark.asyncio(loop_scope="module")]

KEYS = {
    "alice": "a-secret",
    "bob": "b-secret",
    "carol": "c-secret",
    "dave": "d-secret",
    "gold": "g-secret",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("edge")
    keys = [{"key": key, "client": client} for client, key in KEYS.items()]
    (folder / "keys.yaml").write_text(yaml.safe_dump(keys))
    config = compose(["edge"])
    equip(config, folder)
    async with running(folder, config, replicas=1) as fleet:
        yield fleet


@pytest.fixture
def http(fleet):
    """Sessions from addresses of one's choice: on loopback all of 127.0.0.0/8 is ours."""
    trust = ssl.create_default_context(cafile=fleet.folder / "certs" / "ca.pem")

    @asynccontextmanager
    async def session(address: str):
        connector = aiohttp.TCPConnector(ssl=trust, local_addr=(address, 0))
        url = f"https://127.0.0.1:{fleet.ports.door}"
        async with visit(url, connector=connector) as session:
            yield session

    return session


@pytest.fixture
def body(tone) -> dict:
    return {"audio_data": base64.b64encode(tone(0.2)).decode()}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-api-key": "wrong"},
        {"authorization": "Bearer wrong"},
        {"x-client-id": "alice"},
        {"x-api-key": "", "x-client-id": "alice"},
    ],
)
async def test_without_a_key_of_ours_nothing_reaches_a_replica(fleet, http, body, headers):
    before = await sent_to_replicas(fleet)

    async with http("127.0.1.1") as session:
        answer = await session.post("/api/v1/analyze", json=body, headers=headers)
        error = await answer.json()

    assert (answer.status, error["code"]) == (401, 16)
    assert await sent_to_replicas(fleet) == before


@pytest.mark.parametrize(
    "headers", [{"x-api-key": "a-secret"}, {"authorization": "Bearer a-secret"}]
)
async def test_a_key_gives_a_call_its_name_whatever_the_caller_says(fleet, http, body, headers):
    mark = {"x-request-id": f"named-{next(iter(headers))}", "x-client-id": "bob", "x-cost": "0"}

    async with http("127.0.1.2") as session:
        answer = await session.post("/api/v1/analyze", json=body, headers=headers | mark)

    assert answer.status == 200
    assert (await logged(fleet, mark["x-request-id"]))["client"] == "alice"


async def test_grpc_callers_get_the_same_treatment(fleet, tone):
    trust = grpc.ssl_channel_credentials((fleet.folder / "certs" / "ca.pem").read_bytes())
    async with grpc.aio.secure_channel(f"localhost:{fleet.ports.door}", trust) as channel:
        client = EmotionServiceStub(channel)
        request = AnalyzeRequest(audio_data=tone(0.2))

        named = await client.Analyze(request, metadata=[("x-api-key", "a-secret")])
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await client.Analyze(request)

    assert named.emotion
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_without_a_key_nobody_reads_the_schema(fleet):
    trust = grpc.ssl_channel_credentials((fleet.folder / "certs" / "ca.pem").read_bytes())
    question = [ServerReflectionRequest(list_services="")]
    async with grpc.aio.secure_channel(f"localhost:{fleet.ports.door}", trust) as channel:
        ask = ServerReflectionStub(channel).ServerReflectionInfo

        refused = await ask().code()  # it says nothing: grpc.aio may fail to write to an ended call
        answers = [one async for one in ask(iter(question), metadata=[("x-api-key", "g-secret")])]

    assert refused is grpc.StatusCode.UNAUTHENTICATED
    assert answers[0].list_services_response.service


async def test_one_address_gets_its_burst_and_its_neighbours_lose_nothing(http, body):
    async def ask(session) -> tuple[int, str]:
        headers = {"x-api-key": "g-secret"}
        answer = await session.post("/api/v1/analyze", json=body, headers=headers)
        return answer.status, answer.headers.get("retry-after", "")

    async with http("127.0.2.1") as greedy, http("127.0.2.2") as modest:
        answers = await asyncio.gather(*(ask(greedy) for _ in range(60)))
        neighbour = await ask(modest)

    statuses = Counter(status for status, _ in answers)
    assert set(statuses) == {200, 429}
    assert 20 <= statuses[200] < 40  # 20 at once, and 10 for each second that the calls took
    assert all(int(wait) >= 1 for status, wait in answers if status == 429)
    assert neighbour[0] == 200


async def test_a_refused_grpc_caller_is_told_resource_exhausted(fleet):
    trust = grpc.ssl_channel_credentials((fleet.folder / "certs" / "ca.pem").read_bytes())
    metadata = [("x-api-key", "g-secret")]
    async with grpc.aio.secure_channel(f"localhost:{fleet.ports.door}", trust) as channel:
        client = EmotionServiceStub(channel)
        calls = [client.Analyze(AnalyzeRequest(), metadata=metadata) for _ in range(60)]
        codes = Counter([await call.code() for call in calls])

    assert set(codes) == {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}


async def test_each_key_has_a_quota_of_its_own(http, body):
    async def ask(key: str, number: int) -> int:
        async with http(f"127.0.3.{number}") as session:
            headers = {"x-api-key": key}
            return (await session.post("/api/v1/analyze", json=body, headers=headers)).status

    bob = await asyncio.gather(*(ask("b-secret", number) for number in range(1, 120)))
    gold = await asyncio.gather(*(ask("g-secret", number) for number in range(120, 240)))

    assert 50 <= bob.count(200) < 119
    assert bob.count(200) + bob.count(429) == 119
    assert gold.count(200) == 120


async def test_a_batch_takes_more_of_the_quota_and_nobody_can_choose_how_much(http, body):
    headers = {"x-api-key": "c-secret", "x-cost": "0"}

    async with http("127.0.4.1") as session:
        batch = {"requests": [body]}
        answers = [
            await session.post("/api/v1/analyze:batch", json=batch, headers=headers)
            for _ in range(2)
        ]

    left = [int(answer.headers["x-ratelimit-remaining"]) for answer in answers]
    assert [answer.status for answer in answers] == [200, 200]
    assert left[0] <= 50 - 8


async def test_a_large_upload_takes_more_of_the_quota(http):
    too_large = io.BytesIO(bytes(101 * 2**20))  # refused by its length, after it was paid for

    async with http("127.0.4.2") as session:
        headers = {"x-api-key": "d-secret"}
        answer = await session.post("/api/v1/analyze:upload", data=too_large, headers=headers)

    assert answer.status == 413
    assert int(answer.headers["x-ratelimit-remaining"]) < 50 - 8


async def test_health_and_the_description_of_the_api_need_no_key(http):
    async with http("127.0.5.1") as session:
        answers = [await session.get(path) for path in ("/health", "/ready", "/openapi.json")]

    assert [answer.status for answer in answers] == [200, 200, 200]
    assert "strict-transport-security" in answers[0].headers


async def test_a_stream_without_a_key_always_says_so(fleet):
    """grpc.aio does not hear what is refused at once if it is just writing."""
    trust = grpc.ssl_channel_credentials((fleet.folder / "certs" / "ca.pem").read_bytes())
    async with AsyncClient(f"localhost:{fleet.ports.door}", tls=trust) as client:
        for _ in range(12):  # below the burst of an address
            with pytest.raises(Unauthenticated):
                await client.stream(sample_rate=16_000, segmentation=FixedWindow()).__aenter__()


async def test_who_does_not_speak_tls_is_not_heard(fleet):
    async with visit() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"http://127.0.0.1:{fleet.ports.door}/health")


async def test_a_new_certificate_is_used_without_a_restart(fleet):
    from fleet.edge import make_certificates

    async def serial() -> str:
        plain = ssl.create_default_context()
        plain.check_hostname, plain.verify_mode = False, ssl.CERT_NONE
        _, writer = await asyncio.open_connection("127.0.0.1", fleet.ports.door, ssl=plain)
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return certificate

    from fleets import until

    before = await serial()
    fresh = fleet.folder / "fresh"
    make_certificates(fresh)
    for name in ("gateway.key", "gateway.pem"):
        (fresh / name).rename(fleet.folder / "certs" / name)

    async def renewed() -> bool:
        return await serial() != before

    await until(renewed)
