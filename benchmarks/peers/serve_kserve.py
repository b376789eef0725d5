"""KServe's Python server. It has no batcher (that is a sidecar): it gets the plain one."""

import sys
from concurrent.futures import ThreadPoolExecutor

from kserve import InferOutput, InferResponse, Model, ModelServer
from microbatch import MicroBatcher
from null_model import infer


class Null(Model):
    """Open Inference Protocol."""

    def __init__(self):
        super().__init__("null")
        self.ready = True
        self._batcher = MicroBatcher(infer, ThreadPoolExecutor(1))

    async def predict(self, request, headers=None, response_headers=None):  # noqa: ARG002
        given = request.inputs[0]
        raw = getattr(given, "raw_data", None)  # depends on the release
        pcm = given.as_numpy().tobytes() if raw is None else raw
        output = InferOutput("p", [1, 9], "FP32")
        output.set_data_from_numpy((await self._batcher(pcm))[None], binary_data=True)
        return InferResponse(request.id or "", "null", [output])


if __name__ == "__main__":
    port = int(sys.argv[1])
    ModelServer(
        grpc_port=port, http_port=port + 1, workers=1, enable_docs_url=False, access_log_format=None
    ).start([Null()])
