"""Redis as it is found in the field: passwords, users, TLS, clusters, and no secret told."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import redis
import trustme
from stores import Store
from structlog.testing import capture_logs

from server.config import Settings, SettingsError, read_settings
from server.service import stream_store
from server.service.stream_store import BadStore, Saved, SessionStore

SECRET = "geheim"
ALL_SLOTS = ("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
RIGHTS = ("+evalsha", "+script|load", "+hget", "+hset", "+hexists", "+hlen", "+hgetall")
RIGHTS += ("+pexpire", "+del")  # as in docs/streams.md


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for this store in a call."""
    monkeypatch.setattr(stream_store, "TIMEOUT", 30.0)


@contextmanager
def running(*flags: str) -> Iterator[Store]:
    with TemporaryDirectory() as folder:  # the path of a socket must be short
        store = Store(Path(folder), *flags)
        try:
            store.start()
            yield store
        finally:
            store.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@asynccontextmanager
async def session_store(url: str):
    store = SessionStore(url, keep=60, on_up=lambda _: None)
    yield store
    await store.close()


async def keeps(url: str) -> bool:
    """Whether one replica finds what another has saved there, and only until it is forgotten."""
    async with session_store(url) as one, session_store(url) as other:
        if await one.save("token", b"state", {0: b"final"}, 1) is not Saved.KEPT:
            return False
        found = await other.claim("token")
        elsewhere = await one.is_elsewhere("token")
        taken = await one.save("token", b"late", {}, 1)
        await other.forget("token")
        gone = await one.claim("token")
    return (found[b"state"], elsewhere, taken, gone) == (b"state", True, Saved.TAKEN, {})


async def complaint(url: str) -> str:
    """What the log says when nothing can be kept there."""
    with capture_logs() as log:
        async with session_store(url) as store:
            assert await store.save("token", b"state", {}, 0) is Saved.FAILED
            assert SECRET not in repr(store)
    assert SECRET not in str(log)
    [line] = log
    return line["reason"]


async def test_a_password_opens_the_store_and_a_wrong_one_is_named_but_not_told():
    with running("--requirepass", SECRET) as store:
        path = store.url.removeprefix("unix://")

        assert await keeps(f"unix://:{SECRET}@{path}")
        assert "invalid username-password" in await complaint(f"unix://:{SECRET}-x@{path}")
        assert "authenticat" in (await complaint(store.url)).lower()


async def test_a_user_needs_no_more_rights_than_the_page_says():
    with running(
        "--user", "emotions", "on", f">{SECRET}", "~speechemotion:stream:*", *RIGHTS
    ) as it:
        path = it.url.removeprefix("unix://")

        assert await keeps(f"unix://emotions:{SECRET}@{path}")


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def over_tls(authority, tmp_path) -> Iterator[str]:
    """The URL of a store that speaks TLS, without the authority that signed for it."""
    key, chain = tmp_path / "key.pem", tmp_path / "cert.pem"
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(key)
    certificate.cert_chain_pems[0].write_to_path(chain)
    port = free_port()
    files = ("--tls-cert-file", str(key.with_name("cert.pem")), "--tls-key-file", str(key))
    tls = ("--tls-port", str(port), *files, "--tls-auth-clients", "no")
    try:
        with running(*tls, "--requirepass", SECRET):
            yield f"rediss://:{SECRET}@127.0.0.1:{port}/0"
    except AssertionError as error:
        if "it does not start" in str(error):
            pytest.skip("this build of Redis or Valkey has no TLS")
        raise


async def test_tls_with_an_authority_of_ones_own(over_tls, authority, tmp_path):
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")

    assert await keeps(f"{over_tls}?ssl_ca_certs={tmp_path / 'ca.pem'}")


async def test_a_store_that_nobody_vouches_for_gets_no_password(over_tls):
    assert "CERTIFICATE_VERIFY_FAILED" in await complaint(over_tls)


@pytest.fixture
def cluster() -> Iterator[tuple[Store, str]]:
    """A node without slots, and where it is."""
    port, bus = free_port(), free_port()
    flags = ("--cluster-enabled", "yes", "--port", str(port), "--cluster-port", str(bus))
    with running(*flags) as store:
        yield store, f"127.0.0.1:{port}"


async def test_a_cluster_keeps_sessions(cluster):
    store, address = cluster
    with redis.Redis.from_url(store.url) as node:
        node.execute_command(*ALL_SLOTS)
        while b"cluster_state:ok" not in node.execute_command("CLUSTER", "INFO"):
            await asyncio.sleep(0.01)

    assert await keeps(f"redis+cluster://{address}")


async def test_a_cluster_that_is_taken_for_one_server_is_one_clear_line(cluster):
    _, address = cluster

    assert "redis+cluster://" in await complaint(f"redis://:@{address}/0")


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{SECRET}/{SECRET}@localhost/0",
        f"redis://:{SECRET}@localhost/0?what=1",
        f"redis+cluster://:{SECRET}@localhost?what=1",
    ],
)
async def test_a_url_that_cannot_be_used_is_refused_without_being_told(url):
    with pytest.raises(BadStore) as refused:
        SessionStore(url, keep=60, on_up=lambda _: None)

    assert SECRET not in str(refused.value)


def test_settings_do_not_tell_the_password(monkeypatch):
    assert SECRET not in repr(Settings(redis_url=f"redis://:{SECRET}@localhost"))

    monkeypatch.setenv("SPEECHEMOTION_REDIS_URL", f"redisx://:{SECRET}@localhost")
    with pytest.raises(SettingsError, match="redis_url") as refused:
        read_settings([], {})

    assert SECRET not in str(refused.value)
