"""What a caller sent is freed when his call ends, not when Python next looks for cycles."""

import asyncio
import gc
from collections import Counter, deque
from contextlib import suppress

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody
from speechemotion.v1 import emotion_service_pb2 as pb
from streams import PCM, WINDOWS, HeldEngine, Talk, pcm

OF_A_CALL = ("_ServicerContext", "Received", "Utterance", "Query")
AUDIO = pcm(1)
UNLUCKY = 7_777  # samples


class Picky(HeldEngine):
    """Cannot stand one length of audio."""

    def _work(self, batch) -> None:
        super()._work(batch)
        if any(len(one.samples) == UNLUCKY for one in batch):
            raise RuntimeError("this one again")


@pytest.fixture
def engine() -> Picky:
    return Picky()


@pytest.fixture
def reports():
    """Keeps none: they have the causes of failures, and those their frames."""
    return deque(maxlen=0)


def alive() -> Counter[str]:
    names = (type(one).__name__ for one in gc.get_objects())
    return Counter(name for name in names if name in OF_A_CALL)


@pytest.fixture
def nothing_is_left():
    """Waits until all of it is gone, without a collection; but not for what was there before."""
    gc.collect()
    gc.disable()
    before = alive()

    async def check(kinds=OF_A_CALL) -> None:
        def more():
            return {kind: count for kind, count in (alive() - before).items() if kind in kinds}

        for _ in range(200):
            if not more():
                break
            await asyncio.sleep(0.05)
        assert not more()

    yield check
    gc.enable()


async def code_of(call) -> str:
    with suppress(grpc.aio.AioRpcError):
        await call
    return (await call.code()).name


@pytest.mark.parametrize(
    ("code", "request_"),
    [
        ("OK", {"audio_data": AUDIO, "audio_format": PCM}),
        ("INVALID_ARGUMENT", {"audio_data": pcm(11), "audio_format": PCM}),
        ("INVALID_ARGUMENT", {"audio_data": b"RIFFxxxxWAVE" + AUDIO}),
        ("NOT_FOUND", {"audio_data": AUDIO, "audio_format": PCM, "model": "nobody's"}),
        ("INTERNAL", {"audio_data": AUDIO[: 2 * UNLUCKY], "audio_format": PCM}),
    ],
    ids=["answered", "too long", "no audio", "no model", "engine failed"],
)
async def test_a_unary_call_leaves_nothing_behind(client, nothing_is_left, code, request_):
    assert await code_of(client.Analyze(pb.AnalyzeRequest(**request_))) == code

    await nothing_is_left()


async def test_a_call_whose_caller_left_leaves_nothing_behind(client, nothing_is_left, engine):
    engine.hold()
    call = client.Analyze(pb.AnalyzeRequest(audio_data=AUDIO, audio_format=PCM))
    while not engine.samples:
        await asyncio.sleep(0.01)
    call.cancel()
    engine.release()

    await nothing_is_left()


async def test_a_batch_of_good_and_bad_items_leaves_nothing_behind(client, nothing_is_left):
    bodies = AUDIO, AUDIO[: 2 * UNLUCKY], AUDIO[:-1], pcm(11)
    requests = [pb.AnalyzeRequest(audio_data=one, audio_format=PCM) for one in bodies]

    answer = await client.BatchAnalyze(pb.BatchAnalyzeRequest(requests=requests))

    assert [bool(item.error.code) for item in answer.items] == [False, True, True, True]
    del answer
    await nothing_is_left()


@pytest.mark.parametrize(("code", "body"), [("OK", AUDIO), ("INVALID_ARGUMENT", AUDIO[:-1])])
async def test_an_upload_leaves_nothing_behind(client, nothing_is_left, code, body):
    async def pieces():
        yield pb.AnalyzeUploadRequest(audio_format=PCM)
        yield pb.AnalyzeUploadRequest(audio=HttpBody(data=body))

    assert await code_of(client.AnalyzeUpload(pieces())) == code
    await nothing_is_left()


async def test_a_stream_leaves_nothing_behind(client, nothing_is_left):
    talk = Talk(client, fixed_window=WINDOWS)
    await talk.whole(AUDIO)
    assert await talk.call.code() is grpc.StatusCode.OK

    await nothing_is_left()


async def test_a_refused_stream_leaves_nothing_behind(client, nothing_is_left):
    talk = Talk(client, fixed_window=WINDOWS)
    await talk.open()
    await talk.audio(AUDIO, first_sample=1_000)
    await talk.rest()
    assert await talk.call.code() is grpc.StatusCode.INVALID_ARGUMENT

    await nothing_is_left()


async def test_of_a_stream_that_breaks_off_only_the_session_is_kept(client, nothing_is_left):
    talk = Talk(client, fixed_window=WINDOWS)
    await talk.open()
    await talk.audio(AUDIO)
    await talk.until("segment")
    talk.call.cancel()

    await nothing_is_left(["_ServicerContext"])
