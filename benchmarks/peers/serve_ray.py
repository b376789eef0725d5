"""Ray Serve over HTTP."""

import asyncio
import os
import sys
import time

import ray
from null_model import MAX_BATCH, MAX_WAIT, infer
from ray import serve
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(max_ongoing_requests=512, ray_actor_options={"num_cpus": 0.1})
class Null:
    """Raw samples in, raw float32 out."""

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=MAX_WAIT)
    async def run(self, pcm: list):
        return await asyncio.get_running_loop().run_in_executor(None, infer, pcm)

    async def __call__(self, request: Request):
        answer = await self.run(await request.body())
        return Response(answer.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    os.environ["PYTHONPATH"] = here  # Ray's workers are new processes
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=200 * 2**20,
        _node_ip_address="127.0.0.1",
    )
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Null.bind(), name="null", route_prefix="/")
    while True:
        time.sleep(1)
