"""Malformed HTTP/1, HTTP/2, gRPC and JSON for the door of the fleet."""

import asyncio
import base64
import random
from collections import Counter

import aiohttp

from benchmarks.load import offer
from benchmarks.stage import fleet_of, say, short_caller
from fleet.plan import HOST


async def fuzz(count: int) -> None:
    """Malformed HTTP/1, HTTP/2, gRPC and JSON; afterwards everybody must still be there."""
    dice = random.Random(7)
    async with fleet_of([[]] * 2) as fleet:
        pids = [process.pid for process in fleet.processes]
        seen: Counter[str] = Counter()
        for _ in range(count // 50):
            throws = (_throw(fleet.ports.door, _malformed(dice)) for _ in range(50))
            seen.update(await asyncio.gather(*throws))
        async with short_caller(fleet.ports.door) as call:
            tally = await offer(call, rate=50, count=100)
        async with aiohttp.ClientSession() as session:
            url = f"http://{HOST}:{fleet.ports.admin}/stats?filter=ejections_enforced_total"
            ejected = (await (await session.get(url)).text()).split()
        alive = pids == [process.pid for process in fleet.processes]
        how = f"{dict(seen)}; all alive: {alive}; {ejected}"
        say(f"calls after {count} malformed requests", how, tally)


async def _throw(port: int, request: bytes) -> str:
    """One malformed request; the first digit of its status, or how the connection ended."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(request)
        await writer.drain()
        try:
            answer = await asyncio.wait_for(reader.read(4096), 1)
        except TimeoutError:
            return "waits for the rest"  # until request_headers_timeout or stream_idle_timeout
    except (OSError, TimeoutError) as error:
        return type(error).__name__
    finally:
        writer.close()
    if b"grpc-status" in answer:
        return "gRPC error" if b"grpc-status: 0" not in answer else "gRPC OK"
    if answer.startswith(b"HTTP/1.1 "):
        return f"{chr(answer[9])}xx"
    return "http/2 frames" if answer else "closed"


def _malformed(dice: random.Random) -> bytes:
    junk = dice.randbytes(dice.randrange(1, 2000))
    path = dice.choice(["/api/v1/analyze", "/api/v1/analyze:batch", "/api/v1/analyze:upload",
                        "/speechemotion.v1.EmotionService/Analyze"])  # fmt: skip
    kind = dice.choice(["application/json", "application/grpc", "application/grpc-web+proto"])
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\n"
    texts = [b'{"audio_data":', b'{"audio_data":"%%%"}', b"[[[[", b'{"granularity":9e999}', b"nul",
             b'{"audio_data":"' + base64.b64encode(junk) + b'"}', junk]  # fmt: skip
    body = dice.choice(texts)
    odd = dice.choice([b"grpc-timeout: NaN", b"grpc-timeout: 10", b"grpc-encoding: zzz",
                       b"grpc-status: abc", b"grpc-retry-pushback-ms: x", b"x-foo-bin: !!!",
                       b"grpc-previous-rpc-attempts: x", b"lb-cost-bin: A", b"x!: 1"])  # fmt: skip
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    return dice.choice(
        [
            head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body,
            head.encode() + odd + f"\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body,
            head.encode() + b"transfer-encoding: chunked\r\n\r\n" + junk,
            head.encode() + b"content-length: 5\r\ncontent-length: 6\r\n\r\n" + body,
            preface + junk,
            preface + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)) + junk,
            junk + b"\r\n\r\n",
        ]
    )
