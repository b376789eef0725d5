"""The transport: options, TLS, the port. Knows nothing of what is served."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import grpc

from server.config import MIB, PortTaken, Settings, SettingsError

TRANSPORT_SLACK = 4 * MIB  # our own size limit, which explains itself, must be met first

UNHEARD = 8_000
"""Calls that may wait for the event loop to hear of them, each with up to 64 KiB: what it hears in
some seconds. gRPC would reset some of 1,000 and all of 3,000, as CANCELLED without a word; ours
says why and when to come back."""


class BadCertificate(SettingsError):
    """The files for TLS cannot be used; the text says which."""


def make_server(settings: Settings) -> grpc.aio.Server:
    return grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", settings.max_audio_bytes + TRANSPORT_SLACK),
            ("grpc.max_send_message_length", -1),
            # Unless asked for, a second server on the port is a mistake, not a helper.
            ("grpc.so_reuseport", int(settings.share_port)),
            ("grpc.server.max_pending_requests", UNHEARD),
            ("grpc.server.max_pending_requests_hard_limit", UNHEARD),
            ("grpc.http2.max_ping_strikes", 0),  # a proxy's pings are no reason for a GOAWAY
            *_connection_age(settings),
            *_shared_connections(settings),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.enable_channelz", int(settings.channelz)),
        ]
    )


def listen(
    settings: Settings, server: grpc.aio.Server, credentials: grpc.ServerCredentials | None
) -> int:
    """Returns the port. Raises PortTaken."""
    address = f"{settings.host}:{settings.port}"
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise PortTaken(f"Cannot listen on {address}; is another server there?") from error


def _connection_age(settings: Settings) -> Iterator[tuple[str, int]]:
    if settings.max_connection_age_seconds:
        yield "grpc.max_connection_age_ms", round(1000 * settings.max_connection_age_seconds)
        yield "grpc.max_connection_age_grace_ms", round(1000 * settings.drain_grace_seconds)


def _shared_connections(settings: Settings) -> Iterator[tuple[str, int]]:
    """Without a table of earlier headers (HPACK) where callers share connections: behind a proxy.

    gRPC keeps a header there that it could not parse, and then refuses every call whose header of
    that name refers to it. Only there: a client that ignores the setting, as grpc-java's for
    Android does (grpc/grpc-java#12818), would lose its connection.
    """
    if settings.trust_proxy:
        yield "grpc.http2.hpack_table_size.decoder", 0


def credentials_of(settings: Settings) -> grpc.ServerCredentials | None:
    """Reads the files for TLS, now and whenever they are replaced. Raises BadCertificate."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    certificates = Certificates(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    return grpc.dynamic_ssl_server_credentials(
        certificates.read(),
        certificates.renewed,  # type: ignore[arg-type]  # None is documented: no change
        settings.tls_client_ca is not None,
    )


class Certificates:
    """The three files. gRPC asks `renewed` at each handshake, from a thread of its own."""

    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        self._cert = cert
        self._key = key
        self._client_ca = client_ca
        self._seen = 0

    def read(self) -> grpc.ServerCertificateConfiguration:
        """Raises BadCertificate if a file cannot be read, or they do not belong together."""
        try:
            version = self._version()
            self._check()
            pair = self._key.read_bytes(), self._cert.read_bytes()
            roots = self._client_ca.read_bytes() if self._client_ca else None
        except OSError as error:
            raise BadCertificate(f"TLS: {error}") from error
        self._seen = version
        return grpc.ssl_server_certificate_configuration([pair], roots)

    def renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """What to use from now on; None for what is in use."""
        try:
            return None if self._version() == self._seen else self.read()
        except (OSError, BadCertificate):
            return None  # in the middle of a replacement

    def _check(self) -> None:
        """What is wrong with them gRPC does not say."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # An encrypted key would have its password asked for.
            context.load_cert_chain(self._cert, self._key, password=lambda: b"")
        except ssl.SSLError as error:
            text = f"TLS: {self._cert} and {self._key} are no PEM, or do not belong together"
            raise BadCertificate(text) from error
        if self._client_ca is None:
            return
        try:
            context.load_verify_locations(self._client_ca)
        except ssl.SSLError as error:
            raise BadCertificate(f"TLS: {self._client_ca} has no certificate (PEM)") from error

    def _version(self) -> int:
        return max(file.stat().st_mtime_ns for file in (self._cert, self._key))
