"""Health and reflection: what load balancers, orchestrators and people with a terminal ask."""

import asyncio
import base64
import json
import shutil
import sys
from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from server.app import serving

SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING
SERVICES = ("", "speechemotion.v1.EmotionService", "speechemotion.v1.ModelService")


@pytest.mark.parametrize("service", SERVICES)
async def test_every_service_and_the_whole_are_serving(channel, service):
    answer = await HealthStub(channel).Check(HealthCheckRequest(service=service))

    assert answer.status == SERVING


async def test_a_service_that_is_not_ours_is_not_found(channel):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await HealthStub(channel).Check(HealthCheckRequest(service="other.Service"))

    assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_watcher_hears_of_the_end_and_does_not_hold_it_up(settings, engine):
    seen = []

    async with serving(settings, lambda: engine) as server:
        channel = grpc.aio.insecure_channel(f"localhost:{server.port}")
        watch = HealthStub(channel).Watch(HealthCheckRequest())
        seen.append((await watch.read()).status)

        async def keep_watching():
            seen.append((await watch.read()).status)

        watcher = asyncio.create_task(keep_watching())
    await watcher
    await channel.close()

    assert seen == [SERVING, NOT_SERVING]


class TestBufCurl:
    """`buf curl` against the running server, with no proto file at hand."""

    @pytest.fixture
    def curl(self, buf):
        """Calls a method with JSON; answers with what is printed."""

        async def call(*arguments: str, body: str = "") -> str:
            command = [buf, "curl", "--protocol", "grpc", "--http2-prior-knowledge", *arguments]
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
            output, _ = await process.communicate(body.encode())
            assert process.returncode == 0
            return output.decode()

        return call

    @pytest.fixture
    def buf(self) -> str:
        found = shutil.which("buf", path=str(Path(sys.executable).parent))
        assert found, "buf comes with the extra 'dev'"
        return found

    @pytest.fixture
    def url(self, server_address) -> str:
        return f"http://{server_address}"

    @pytest.fixture
    async def server_address(self, settings, engine):
        async with serving(settings, lambda: engine) as server:
            yield f"localhost:{server.port}"

    @pytest.mark.parametrize("protocol", ["grpc-v1", "grpc-v1alpha"])
    async def test_lists_our_services_in_both_versions_of_reflection(self, curl, url, protocol):
        listed = await curl("--reflect-protocol", protocol, "--list-services", url)

        assert set(listed.split()) >= {*SERVICES[1:], "grpc.health.v1.Health"}

    async def test_analyses_a_file_by_the_rest_spelling_of_the_fields(self, curl, url, tone):
        body = {"audio_data": base64.b64encode(tone(0.5)).decode(), "granularity": "frame"}

        answer = await curl(
            "-d", "@-", f"{url}/speechemotion.v1.EmotionService/Analyze", body=json.dumps(body)
        )

        assert json.loads(answer)["frames"]["frameCount"] == 24

    async def test_asks_for_health(self, curl, url):
        answer = await curl("-d", "{}", f"{url}/grpc.health.v1.Health/Check")

        assert json.loads(answer) == {"status": "SERVING"}
