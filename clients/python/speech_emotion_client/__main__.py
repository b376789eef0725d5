"""`python -m speech_emotion_client` is the command `speech-emotion`."""

from .cli import main

main(prog_name="speech-emotion")
