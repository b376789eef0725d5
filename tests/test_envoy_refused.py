"""What one replica refuses another one answers; what has begun to be answered stays where it is."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager

import grpc
import pytest
import pytest_asyncio
from fleets import running, statistics, until
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from speechemotion.v1 import emotion_service_pb2 as pb
from speechemotion.v1.emotion_service_pb2_grpc import (
    EmotionServiceServicer,
    EmotionServiceStub,
    add_EmotionServiceServicer_to_server,
)

pytestmark = [pytest.mark.envoy, pytest.mark.asyncio(loop_scope="module")]

NO_RETRIES = [("grpc.enable_retries", 0)]
SESSIONS = 12  # so many that some come to each of two replicas
WINDOWS = pb.FixedWindow(window_ms=1000, hop_ms=1000)
CONFIG = pb.AnalyzeStreamRequest(config=pb.StreamConfig(fixed_window=WINDOWS))
FULL, DRAINING, STOPPING = (
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,  # gRPC's servers say so to what arrives while they stop
)


class Refusing(EmotionServiceServicer):
    """A replica that is healthy and ends every call with `code`; remembers how many there were."""

    def __init__(self) -> None:
        self.code = FULL
        self.begins = False  # to answer a stream first
        self.asked = 0

    async def Analyze(self, _request, context):
        await self._refuse(context)

    async def AnalyzeStream(self, _requests, context):
        await context.read()
        if self.begins:
            await context.write(pb.AnalyzeStreamResponse(session_started=pb.SessionStarted()))
        await self._refuse(context)

    async def _refuse(self, context) -> None:
        self.asked += 1
        await context.abort(self.code, "not here")


@asynccontextmanager
async def listening(replica: Refusing):
    """Its port."""
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    add_EmotionServiceServicer_to_server(replica, server)
    status = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    for service in ("", "speechemotion.v1.EmotionService"):
        await status.set(service, health_pb2.HealthCheckResponse.SERVING)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def refusing(tmp_path_factory):
    """A replica that refuses beside one that answers, and the door of both."""
    replica = Refusing()
    folder = tmp_path_factory.mktemp("fleet")
    async with listening(replica) as port, running(folder, replicas=1) as fleet:
        fleet.announce([*fleet.ports.replicas, port])

        async def both_are_healthy() -> bool:
            healthy = await statistics(fleet, "cluster.speech.*membership_healthy$")
            return set(healthy.values()) == {2}

        await until(both_are_healthy)
        replica.door = f"127.0.0.1:{fleet.ports.door}"
        yield replica


@pytest_asyncio.fixture(loop_scope="module")
async def client(refusing):
    """It never tries again."""
    refusing.asked, refusing.begins = 0, False
    async with grpc.aio.insecure_channel(refusing.door, options=NO_RETRIES) as channel:
        yield EmotionServiceStub(channel)


async def opened(client, session: str) -> str:
    """What a stream of this name hears first: an event, or the status it ended with."""
    call = client.AnalyzeStream(metadata=[("x-session-id", session)], timeout=20)
    await call.write(CONFIG)
    try:
        return (await call.read()).WhichOneof("event")
    except grpc.aio.AioRpcError as error:
        return error.code().name
    finally:
        call.cancel()


@pytest.mark.parametrize("code", [FULL, DRAINING, STOPPING], ids=lambda code: code.name)
async def test_a_session_that_its_replica_refuses_opens_on_another_one(refusing, client, code):
    refusing.code = code

    heard = {await opened(client, f"session-{n}") for n in range(SESSIONS)}

    assert refusing.asked > 0
    assert heard == {"session_started"}


@pytest.mark.parametrize("code", [FULL, DRAINING, STOPPING], ids=lambda code: code.name)
async def test_a_call_that_a_replica_refuses_is_answered_by_another_one(
    refusing, client, code, tone
):
    refusing.code = code
    request = pb.AnalyzeRequest(audio_data=tone(0.2))

    answers = await asyncio.gather(*(client.Analyze(request, timeout=20) for _ in range(20)))

    assert refusing.asked > 0
    assert all(answer.emotion for answer in answers)


async def test_a_stream_that_has_begun_to_be_answered_is_not_begun_again(refusing, client):
    refusing.code, refusing.begins = DRAINING, True

    calls = [
        client.AnalyzeStream(metadata=[("x-session-id", f"session-{n}")]) for n in range(SESSIONS)
    ]
    for call in calls:
        await call.write(CONFIG)
    heard = [(await call.read()).WhichOneof("event") for call in calls]
    await until(lambda: _ended(calls, refusing.asked))
    for call in calls:
        call.cancel()
    codes = Counter([await call.code() for call in calls])

    assert heard == ["session_started"] * SESSIONS
    assert codes[DRAINING] == refusing.asked > 0


async def _ended(calls, count: int) -> bool:
    return sum(call.done() for call in calls) == count
