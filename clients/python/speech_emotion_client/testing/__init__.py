"""A server without a model, for tests of programs that use the client: real sockets, a script.

Example:

    with FakeServer() as server, Client(server.target) as client:
        client.analyze(b"...")
        assert server.requests[0].audio_data == b"..."
"""

from .answers import DIMENSION, FRAMES, MODEL, SCORES, Request, Response, happy
from .refusal import Refusal
from .server import FakeServer
from .streams import FakeStreams

__all__ = [
    "DIMENSION",
    "FRAMES",
    "MODEL",
    "SCORES",
    "FakeServer",
    "FakeStreams",
    "Refusal",
    "Request",
    "Response",
    "happy",
]
