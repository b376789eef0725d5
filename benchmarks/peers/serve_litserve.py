"""LitServe. It knows JSON and forms only, so its request handler is patched to take raw bytes."""

import sys

import litserve
from litserve.server import BaseRequestHandler
from null_model import MAX_BATCH, MAX_WAIT, infer


class Null(litserve.LitAPI):
    """Raw samples in, JSON out."""

    def setup(self, device):
        pass

    def decode_request(self, request):
        return request

    def batch(self, inputs):
        return inputs

    def predict(self, x):
        return infer(x)

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return {"p": output.tolist()}


async def _raw_body(_self, request, _request_type):
    return await request.body()


if __name__ == "__main__":
    BaseRequestHandler._prepare_request = _raw_body
    server = litserve.LitServer(
        Null(max_batch_size=MAX_BATCH, batch_timeout=MAX_WAIT),
        accelerator="cpu",
        workers_per_device=1,
        timeout=20,
    )
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False
    )
