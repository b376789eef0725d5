"""The program `speech-emotion` up to its imports, which take most of its time: knows no option."""

import os
import signal


def main() -> None:
    """Ctrl-C during the imports ends it like any program, and not with a traceback."""
    # gRPC reads it when it is imported. Its own lines repeat, less clearly, what the errors say.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from speech_emotion_client.cli import main as command

    signal.signal(signal.SIGINT, handler)
    command(prog_name="speech-emotion")
