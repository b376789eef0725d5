"""Who calls: by an API key of ours, or by the word of a trusted proxy."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import yaml

from server.config import SettingsError
from server.errors import Unauthenticated

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
MAX_LENGTH = 128  # characters of a header that names somebody or something
CLIENT_HEADER = "x-client-id"  # set by the proxy that knows who calls; it strips what clients send
KEY_HEADER = "x-api-key"
BEARER = "bearer "


class BadKeys(SettingsError):
    """The file with the keys cannot be used; the text says why, never with a key."""


class Callers:
    """Without keys everybody may call, and has a name only if `trust_proxy`."""

    def __init__(self, keys: Mapping[bytes, str] | None = None, *, trust_proxy: bool) -> None:
        """`keys`: SHA-256 of the key -> the client's name."""
        self._keys = keys
        self._trust_proxy = trust_proxy

    def name(self, context: Context) -> str:
        """Empty for somebody unknown. Raises Unauthenticated if a key is needed."""
        if self._keys is not None:
            return self._by_key(context, self._keys)
        return header(context, CLIENT_HEADER) if self._trust_proxy else ""

    def _by_key(self, context: Context, keys: Mapping[bytes, str]) -> str:
        given = header(context, KEY_HEADER)
        if not given:
            authorization = header(context, "authorization")
            if authorization.lower().startswith(BEARER):
                given = authorization[len(BEARER) :]
        if not given:
            raise Unauthenticated("API_KEY_MISSING", "Send an API key as x-api-key.")
        # Looked up by its hash: how long that takes says nothing about the keys.
        name = keys.get(digest(given))
        if name is None:
            raise Unauthenticated("API_KEY_INVALID", "This API key is not known here.")
        return name


def header(context: Context, name: str) -> str:
    """A header's text; empty if it is not there or too long to be believed."""
    for key, value in context.invocation_metadata() or ():
        if key == name and isinstance(value, str) and len(value) <= MAX_LENGTH:
            return value
    return ""


def digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def read_keys(file: Path) -> dict[bytes, str]:
    """A YAML list of {key, client}, as Envoy's `credentials`. Raises BadKeys."""
    try:
        entries = yaml.safe_load(file.read_text())
        pairs = [(str(one["key"]), str(one["client"])) for one in entries]
    except (OSError, yaml.YAMLError, TypeError, KeyError) as error:
        kind = error if isinstance(error, OSError) else "it is not a list of {key, client}"
        raise BadKeys(f"API keys: {file}: {kind}") from None
    if not pairs:
        raise BadKeys(f"API keys: {file} has none, so that nobody could call")
    for number, (key, client) in enumerate(pairs, 1):
        if not (key and client):
            raise BadKeys(f"API keys: {file}: key or client of entry {number} is empty")
    keys = {digest(key): client for key, client in pairs}
    if len(keys) < len(pairs):
        raise BadKeys(f"API keys: {file} has one key twice")
    return keys
