"""A file that can be decoded only when all of it is there waits on the disk until then.

As a Pipe for those who bring bytes and take blocks. How large it may be is up to who brings them.
"""

from tempfile import TemporaryFile

from av.container import InputContainer

from server.audio.pipe import Pipe, open_input

_BUFFER_BYTES = 2**15


class Spool(Pipe):
    """Has a file without a name: it is gone with the decoding thread, or with the process."""

    def __init__(self) -> None:
        """Raises OSError if no file can be made."""
        super().__init__()
        self._hungry = True  # whatever has come; until the end
        self._file = TemporaryFile(buffering=0)  # noqa: SIM115 - closed by `leave`

    def write(self, data: bytes) -> None:
        """Raises OSError if the disk is full."""
        left = memoryview(data)
        with self._changed:
            while left and not self._closed:
                left = left[self._file.write(left) :]

    def open(self, container: str) -> InputContainer:
        """When all has come."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended)
        self._file.seek(0)
        return open_input(self._file, container, _BUFFER_BYTES, {})

    def leave(self, error: Exception | None) -> None:
        with self._changed:
            self._file.close()
        super().leave(error)
