"""`python -m server`: hears signals from its first moment, reads the settings, chooses what to be.

What takes long to import is imported where it is needed, so a supervisor has no torch and no gRPC.
"""

import os
import signal
import sys


def main() -> None:
    """Exit status: 0 after a signal, 1 if serving failed, 2 if the settings make no sense."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)  # until there is a server to drain
    from server.config import SettingsError, read_settings
    from server.telemetry.logs import configure

    try:
        settings = read_settings(sys.argv[1:], os.environ)
    except SettingsError as error:
        print(f"speech-emotion-server: {error}", file=sys.stderr)
        sys.exit(2)
    configure(level=settings.log_level, style=settings.log_format)
    from server.workers import is_zygote, supervise

    if settings.workers > 1 and not is_zygote():
        sys.exit(supervise(settings))
    from server.process import serve

    serve(settings)


def _leave(*_: object) -> None:
    os.write(2, b"speech-emotion-server: stopped before it served\n")
    os._exit(0)  # whoever is in the middle of an import would be told by an exception


if __name__ == "__main__":
    main()
