"""What the kernel lets through to this process's sockets. Knows neither gRPC nor calls; Linux only.

gRPC cancels the calls that reach it after it has begun to stop. Those that it never heard its last
GOAWAY sends elsewhere: so it should stop hearing first, and cannot by itself (ADR 10).
"""

import ctypes
import os
import socket
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27  # asm-generic/socket.h

# Classic BPF (linux/filter.h) over a TCP segment, from its header on:
# instruction, jump if true, jump if false, constant.
DROP, PASS = (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF)
NO_SYN = (
    (0x30, 0, 0, 13),  # A = flags
    (0x45, 0, 1, 0x02),  # A & SYN
    DROP,
    PASS,
)
NO_DATA = (
    (0x30, 0, 0, 12),  # A = length of the header in words, in the upper four bits
    (0x54, 0, 0, 0xF0),
    (0x74, 0, 0, 2),  # A >>= 2: in bytes
    (0x07, 0, 0, 0),  # X = A
    (0x80, 0, 0, 0),  # A = length of the segment
    (0x2D, 0, 1, 0),  # A > X
    DROP,
    PASS,
)


def take_no_more(port: int) -> None:
    """Answers no new connection. Who wants one asks again after a second, and is answered if
    another process has the port by then. Raises OSError if the system cannot do that.
    """
    for one in _sockets(port, listening=True):
        _filter(one, NO_SYN)


def stop(port: int) -> None:
    """What is sent to us stays with its sender, who sends it again and again. Raises OSError."""
    for one in _sockets(port, listening=False):
        _filter(one, NO_DATA)


def go_on(port: int) -> None:
    """What was sent in between arrives after all."""
    for one in _sockets(port, listening=False):
        with suppress(OSError):  # a new one, which never had a filter
            one.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def _filter(one: socket.socket, program: Sequence[tuple[int, int, int, int]]) -> None:
    code = b"".join(struct.pack("HBBI", *step) for step in program)
    memory = ctypes.create_string_buffer(code, len(code))
    value = struct.pack("HL", len(program), ctypes.addressof(memory))
    one.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, value)


def _sockets(port: int, *, listening: bool) -> Iterator[socket.socket]:
    """This process's TCP sockets with that local port. Raises OSError where there is no /proc."""
    for name in os.listdir("/proc/self/fd"):
        one = _socket(int(name))
        if one is None:
            continue
        with one:
            inet = one.family in (socket.AF_INET, socket.AF_INET6)
            listens = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if inet and listens == listening and one.getsockname()[1] == port:
                yield one


def _socket(number: int) -> socket.socket | None:
    """A handle of its own for that file, if it is a socket and still open."""
    with suppress(OSError):
        if stat.S_ISSOCK(os.stat(number).st_mode):
            return socket.socket(fileno=os.dup(number))
    return None
