"""PyTriton: Triton's front, the model in this process."""

import sys

import numpy as np
from null_model import MAX_BATCH, MAX_WAIT, infer
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


@batch
def _infer(pcm):
    return [np.stack(infer(list(pcm)))]


if __name__ == "__main__":
    port = int(sys.argv[1])
    config = TritonConfig(
        grpc_port=port,
        http_port=port + 1,
        metrics_port=port + 2,
        http_address="127.0.0.1",
        grpc_address="127.0.0.1",
    )
    with Triton(config=config) as server:
        server.bind(
            model_name="null",
            infer_func=_infer,
            inputs=[Tensor(name="pcm", dtype=np.int16, shape=(-1,))],
            outputs=[Tensor(name="p", dtype=np.float32, shape=(9,))],
            config=ModelConfig(
                max_batch_size=MAX_BATCH,
                batcher=DynamicBatcher(max_queue_delay_microseconds=int(1e6 * MAX_WAIT)),
            ),
        )
        server.serve()
