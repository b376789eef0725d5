"""mosec: HTTP/1.1 by a Rust front, a Python worker."""

import sys

from mosec import Server, Worker
from null_model import MAX_BATCH, MAX_WAIT, infer


class Null(Worker):
    """Raw samples in, raw float32 out."""

    def deserialize(self, data):
        return data

    def serialize(self, data):
        return data.tobytes()

    def forward(self, data):
        return infer(data)


if __name__ == "__main__":
    port = sys.argv[1]
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", port, "--timeout", "20000"]
    sys.argv += ["--log-level", "warning"]
    server = Server()
    server.append_worker(Null, num=1, max_batch_size=MAX_BATCH, max_wait_time=int(1000 * MAX_WAIT))
    server.run()
