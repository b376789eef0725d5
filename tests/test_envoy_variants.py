"""Each variant of Envoy's configuration does what its file says."""

import asyncio
import base64
import json
import ssl
import time
from collections import Counter

import aiohttp
import grpc
import jwt
import pytest
import trustme
from fleets import calls_of, logged, running, sent_to_replicas, statistics, until, visit
from speechemotion.v1 import emotion_service_pb2 as pb
from speechemotion.v1.emotion_service_pb2_grpc import EmotionServiceStub

from benchmarks.load import offer
from fleet.compose import compose
from fleet.edge import equip
from fleet.plan import endpoints
from fleet.process import post

pytestmark = pytest.mark.envoy

ZONES = ("zone-a", "zone-b")
CANARY_ONLY = "/runtime_modify?routing.canary.speech=0&routing.canary.speech-canary=100"


@pytest.fixture
def config(tmp_path):
    def make(*variants: str) -> dict:
        made = compose(variants)
        equip(made, tmp_path)
        return made

    return make


@pytest.fixture
def request_(tone) -> pb.AnalyzeRequest:
    return pb.AnalyzeRequest(audio_data=tone(0.2))


def stub(fleet) -> EmotionServiceStub:
    """Closed with the event loop of the test."""
    return EmotionServiceStub(grpc.aio.insecure_channel(f"127.0.0.1:{fleet.ports.door}"))


async def served(fleet) -> list[int]:
    """Calls answered by each replica."""
    return [await calls_of(fleet, number) for number in range(len(fleet.replicas))]


async def test_orca_gives_a_replica_that_is_four_times_faster_more_calls(
    tmp_path, config, request_
):
    each = [["--delay-ms", "10"], ["--delay-ms", "40"]]
    async with running(tmp_path, config("orca"), each=each) as fleet:
        client = stub(fleet)
        await offer(lambda: client.Analyze(request_), rate=20, count=60)
        before = await served(fleet)
        tally = await offer(lambda: client.Analyze(request_), rate=20, count=60)
        fast, slow = (b - a for a, b in zip(before, await served(fleet), strict=True))

    assert tally.failed == 0
    assert fast + slow == 60
    assert fast > 2 * slow


async def test_tokens_are_checked_and_their_subject_names_the_caller(tmp_path, config, tone):
    async with running(tmp_path, config("jwt"), replicas=1) as fleet:
        key = (tmp_path / "certs" / "jwt.key").read_text()
        good = {"iss": "speechemotion", "aud": "speechemotion", "sub": "alice"}

        def token(**changes) -> str:
            claims = good | {"exp": time.time() + 60} | changes
            return jwt.encode(claims, key, algorithm="ES256", headers={"kid": "local"})

        async def status(bearer: str | None) -> int:
            headers = {"x-client-id": "bob", "x-request-id": "named"}
            if bearer:
                headers["authorization"] = f"Bearer {bearer}"
            body = {"audio_data": base64.b64encode(tone(0.2)).decode()}
            answer = await session.post("/api/v1/analyze", json=body, headers=headers)
            return answer.status

        async with visit(f"http://127.0.0.1:{fleet.ports.door}") as session:
            refused = {
                "none": await status(None),
                "expired": await status(token(exp=time.time() - 3600)),
                "other audience": await status(token(aud="other")),
                "forged": await status(token()[:-6] + "AAAAAA"),
            }
            reached = await sent_to_replicas(fleet)
            accepted = await status(token())
        line = await logged(fleet, "named")

    assert refused == {"none": 401, "expired": 401, "other audience": 403, "forged": 401}
    assert reached == 0
    assert accepted == 200
    assert line["client"] == "alice"


async def test_only_clients_with_our_certificate_get_in_and_it_names_them(tmp_path, config, tone):
    async with running(tmp_path, config("mtls"), replicas=1) as fleet:
        certs = tmp_path / "certs"
        stranger = trustme.CA().issue_cert("stranger.test")
        stranger.private_key_pem.write_to_path(str(tmp_path / "stranger.key"))
        stranger.cert_chain_pems[0].write_to_path(str(tmp_path / "stranger.pem"))

        async def status(certificate=None, key=None) -> int:
            trust = ssl.create_default_context(cafile=certs / "ca.pem")
            if certificate:
                trust.load_cert_chain(certificate, key)
            connector = aiohttp.TCPConnector(ssl=trust)
            url = f"https://127.0.0.1:{fleet.ports.door}"
            body = {"audio_data": base64.b64encode(tone(0.2)).decode()}
            headers = {"x-request-id": "named", "x-client-id": "bob"}
            async with visit(url, connector=connector) as session:
                answer = await session.post("/api/v1/analyze", json=body, headers=headers)
                return answer.status

        for pair in ((None, None), (tmp_path / "stranger.pem", tmp_path / "stranger.key")):
            with pytest.raises(aiohttp.ClientError):
                await status(*pair)
        reached = await sent_to_replicas(fleet)
        accepted = await status(certs / "client.pem", certs / "client.key")
        line = await logged(fleet, "named")
        then = await sent_to_replicas(fleet)

    assert (reached, accepted, then) == (0, 200, 1)
    assert line["client"] == "client-1.speechemotion.test"


async def test_a_canary_gets_who_asks_for_it_and_the_share_that_is_set(tmp_path, config, request_):
    async with running(tmp_path, config("canary")) as fleet:
        client = stub(fleet)
        await offer(lambda: client.Analyze(request_), rate=100, count=20)
        nobody = await served(fleet)
        asked = [("x-canary", "1")]
        await offer(lambda: client.Analyze(request_, metadata=asked), rate=100, count=20)
        who_asked = await served(fleet)
        await post("127.0.0.1", fleet.ports.admin, CANARY_ONLY)
        await offer(lambda: client.Analyze(request_), rate=100, count=20)
        everybody = await served(fleet)

    assert (nobody, who_asked, everybody) == ([20, 0], [20, 20], [20, 40])


async def test_a_shadow_hears_everything_and_is_not_heard(tmp_path, config, request_):
    # The shadow is too slow to answer in time: nobody may wait for it.
    each = [[], ["--delay-ms", "3000"]]
    async with running(tmp_path, config("shadow"), each=each) as fleet:
        client = stub(fleet)
        await post("127.0.0.1", fleet.ports.admin, "/runtime_modify?routing.shadow=100")
        tally = await offer(lambda: client.Analyze(request_, timeout=2), rate=20, count=10)
        copies = await statistics(fleet, "cluster.speech-canary.upstream_rq_total$")
        answered = await calls_of(fleet, 0)

    assert tally.failed == 0, tally
    assert answered == 10
    assert list(copies.values()) == [10]


async def test_calls_stay_in_their_zone_until_it_has_nobody(tmp_path, config, request_):
    async with running(tmp_path, config("zones")) as fleet:
        _put_into_zones(fleet)
        client = stub(fleet)
        await until(lambda: _zones(fleet, 2))
        home = await offer(lambda: client.Analyze(request_), rate=100, count=40)
        at_home = await served(fleet)
        _put_into_zones(fleet, draining=fleet.ports.replicas[:1])
        await until(lambda: _zones(fleet, 1))
        away = await offer(lambda: client.Analyze(request_), rate=100, count=40)
        everywhere = await served(fleet)

    assert home.failed + away.failed == 0
    assert (at_home, everywhere) == ([40, 0], [40, 40])


async def test_zones_get_shares_by_their_weights(tmp_path, config, request_):
    async with running(tmp_path, config("weights")) as fleet:
        _put_into_zones(fleet, weights=(3, 1))
        client = stub(fleet)
        await until(lambda: _read_again(fleet))
        tally = await offer(lambda: client.Analyze(request_), rate=100, count=80)
        large, small = await served(fleet)

    assert tally.failed == 0, tally
    assert (large, small) == (60, 20)


async def test_a_replica_gets_calls_in_the_measure_of_its_weight(tmp_path, request_):
    async with running(tmp_path) as fleet:
        document = json.loads(endpoints(fleet.ports.replicas))
        for one, weight in zip(
            document["resources"][0]["endpoints"][0]["lb_endpoints"], (3, 1), strict=True
        ):
            one["load_balancing_weight"] = weight
        fleet._replace("replicas.json", json.dumps(document))
        await until(lambda: _read_again(fleet))
        client = stub(fleet)
        tally = await offer(lambda: client.Analyze(request_), rate=60, count=60)
        large, small = await served(fleet)

    assert tally.failed == 0, tally
    assert large + small == 60
    assert large > 2 * small


async def _read_again(fleet) -> bool:
    found = await statistics(fleet, "cluster.speech.update_success$")
    return sum(found.values()) >= 2


def _put_into_zones(fleet, draining=(), weights=()) -> None:
    """One replica in each of two zones."""
    document = None
    for zone, port in zip(ZONES, fleet.ports.replicas, strict=True):
        one = json.loads(endpoints([port], draining=draining))
        [group] = one["resources"][0]["endpoints"]
        group["locality"] = {"region": "local", "zone": zone}
        if weights:
            group["load_balancing_weight"] = dict(zip(ZONES, weights, strict=True))[zone]
        if document is None:
            document = one
        else:
            document["resources"][0]["endpoints"].append(group)
    fleet._replace("replicas.json", json.dumps(document))


async def _zones(fleet, healthy: int) -> bool:
    found = await statistics(fleet, "cluster.speech.(membership_healthy|lb_zone.*size)$")
    return found.get("cluster.speech.membership_healthy") == healthy


async def test_a_slow_call_is_given_to_a_second_replica_too(tmp_path, config, request_):
    each = [["--delay-ms", "4000"], []]
    async with running(tmp_path, config("hedge"), each=each) as fleet:
        client = stub(fleet)
        tally = await offer(lambda: client.Analyze(request_, timeout=30), rate=10, count=10)
        found = await statistics(fleet, "cluster.speech.upstream_rq_total$")

    assert tally.failed == 0, tally
    assert sum(found.values()) > 10


async def test_a_session_that_is_named_always_comes_to_the_same_replica(tmp_path, tone):
    config = pb.StreamConfig(fixed_window=pb.FixedWindow(window_ms=1000, hop_ms=1000))
    messages = [
        pb.AnalyzeStreamRequest(config=config),
        pb.AnalyzeStreamRequest(audio=pb.AudioChunk(data=tone(1.0))),
        pb.AnalyzeStreamRequest(control=pb.StreamControl(finish=pb.Finish())),
    ]
    async with running(tmp_path, replicas=3) as fleet:
        client = stub(fleet)

        async def talk(session: str) -> list[str | None]:
            call = client.AnalyzeStream(iter(messages), metadata=[("x-session-id", session)])
            return [event.WhichOneof("event") async for event in call]

        ends = Counter([(await talk("the-same"))[-1] for _ in range(6)])
        one = await served(fleet)
        others = await asyncio.gather(*(talk(f"session-{n}") for n in range(24)))
        all_ = await served(fleet)

    assert ends == {"summary": 6}
    assert sorted(one) == [0, 0, 6]
    assert {events[-1] for events in others} == {"summary"}
    assert all(after > before for before, after in zip(one, all_, strict=True))
