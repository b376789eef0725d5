"""The server without a proxy in front: TLS, client certificates, API keys, trusted names."""

import shutil

import grpc
import pytest
import trustme
from speechemotion.v1.emotion_service_pb2 import AnalyzeRequest
from speechemotion.v1.emotion_service_pb2_grpc import EmotionServiceStub

from server.app import serving
from server.config import SettingsError, read_settings
from server.listening import BadCertificate
from server.service.callers import BadKeys, read_keys


@pytest.fixture
def analyze(settings, engine, reports, tone):
    """One call to a server with these settings."""

    async def call(credentials=None, metadata=(), **changes):
        chosen = settings.model_copy(update=changes)
        async with serving(chosen, lambda: engine, reports.append) as server:
            address = f"localhost:{server.port}"
            if credentials:
                channel = grpc.aio.secure_channel(address, credentials)
            else:
                channel = grpc.aio.insecure_channel(address)
            async with channel:
                request = AnalyzeRequest(audio_data=tone(0.2))
                stub = EmotionServiceStub(channel)
                return await stub.Analyze(request, metadata=metadata, timeout=10)

    return call


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


async def refusal(call) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code()


class TestKeys:
    @pytest.fixture
    def keys(self, tmp_path):
        file = tmp_path / "keys.yaml"
        file.write_text("- {key: a-secret, client: alice}\n- {key: b-secret, client: bob}\n")
        return file

    @pytest.mark.parametrize(
        "metadata", [[("x-api-key", "a-secret")], [("authorization", "Bearer a-secret")]]
    )
    async def test_a_key_names_its_caller(self, analyze, keys, reports, metadata):
        claim = ("x-client-id", "bob")

        await analyze(metadata=[*metadata, claim], api_keys_file=keys, trust_proxy=True)

        assert [report.client for report in reports] == ["alice"]

    @pytest.mark.parametrize(
        ("metadata", "reason"),
        [
            ([], "API_KEY_MISSING"),
            ([("x-api-key", "wrong")], "API_KEY_INVALID"),
            ([("x-api-key", "a" * 200)], "API_KEY_MISSING"),
            ([("authorization", "Basic a-secret")], "API_KEY_MISSING"),
        ],
    )
    async def test_without_one_of_ours_nothing_is_done(
        self, analyze, keys, engine, reports, metadata, reason
    ):
        code = await refusal(analyze(metadata=metadata, api_keys_file=keys))

        assert code is grpc.StatusCode.UNAUTHENTICATED
        assert [report.reason for report in reports] == [reason]
        assert not engine.batches

    @pytest.mark.parametrize("text", ["", "{}", "a: b", "[1]", "- {key: x}", "{"])
    def test_a_file_without_keys_is_refused_and_never_quoted(self, tmp_path, text):
        file = tmp_path / "keys.yaml"
        file.write_text(text)

        with pytest.raises(BadKeys, match=r"keys\.yaml"):
            read_keys(file)

    @pytest.mark.parametrize(
        ("text", "mistake"),
        [
            ("[{key: '', client: a}]", "entry 1 is empty"),
            ("[{key: secret, client: a}, {key: b, client: ''}]", "entry 2 is empty"),
            ("[{key: secret, client: a}, {key: secret, client: b}]", "one key twice"),
        ],
    )
    def test_a_key_belongs_to_one_client_and_is_not_empty(self, tmp_path, text, mistake):
        file = tmp_path / "keys.yaml"
        file.write_text(text)

        with pytest.raises(BadKeys, match=mistake) as refused:
            read_keys(file)

        assert "secret" not in str(refused.value)


class TestNames:
    async def test_a_trusted_proxy_names_the_caller(self, analyze, reports):
        await analyze(metadata=[("x-client-id", "alice")], trust_proxy=True)

        assert reports[0].client == "alice"

    async def test_nobody_else_does(self, analyze, reports):
        await analyze(metadata=[("x-client-id", "alice")])

        assert reports[0].client == ""


class TestTls:
    @pytest.fixture
    def files(self, authority, tmp_path):
        """Settings of a server with a certificate."""
        certificate = authority.issue_cert("localhost")
        certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
        certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        return {"tls_cert": tmp_path / "cert.pem", "tls_key": tmp_path / "key.pem"}

    def credentials(self, authority, client=None):
        roots = authority.cert_pem.bytes()
        if client is None:
            return grpc.ssl_channel_credentials(roots)
        chain = client.cert_chain_pems[0].bytes()
        return grpc.ssl_channel_credentials(roots, client.private_key_pem.bytes(), chain)

    async def test_a_call_over_tls_is_answered_and_a_plain_one_is_not(
        self, analyze, authority, files
    ):
        answer = await analyze(self.credentials(authority), **files)

        assert answer.emotion
        assert await refusal(analyze(**files)) is grpc.StatusCode.UNAVAILABLE

    async def test_only_clients_with_a_certificate_get_in_where_one_is_asked_for(
        self, analyze, authority, files, tmp_path
    ):
        files["tls_client_ca"] = tmp_path / "ca.pem"
        known = authority.issue_cert("client.test")
        stranger = trustme.CA().issue_cert("client.test")

        answer = await analyze(self.credentials(authority, known), **files)

        assert answer.emotion
        for other in (None, stranger):
            code = await refusal(analyze(self.credentials(authority, other), **files))
            assert code is grpc.StatusCode.UNAVAILABLE

    async def test_a_replaced_certificate_is_used_from_the_next_connection_on(
        self, settings, engine, authority, files, tone, tmp_path
    ):
        other = trustme.CA()
        fresh = other.issue_cert("localhost")

        async def call(port: int, roots: trustme.CA):
            channel = grpc.aio.secure_channel(f"localhost:{port}", self.credentials(roots))
            async with channel:
                stub = EmotionServiceStub(channel)
                return await stub.Analyze(AnalyzeRequest(audio_data=tone(0.2)), timeout=10)

        async with serving(settings.model_copy(update=files), lambda: engine) as server:
            before = await call(server.port, authority)
            fresh.private_key_pem.write_to_path(str(tmp_path / "new.key"))
            fresh.cert_chain_pems[0].write_to_path(str(tmp_path / "new.pem"))
            shutil.move(tmp_path / "new.key", files["tls_key"])
            shutil.move(tmp_path / "new.pem", files["tls_cert"])
            after = await call(server.port, other)

        assert before.emotion
        assert after.emotion

    async def test_a_certificate_that_is_not_there_is_one_clear_error(self, analyze, tmp_path):
        with pytest.raises(SettingsError, match=r"nowhere\.pem"):
            await analyze(tls_cert=tmp_path / "nowhere.pem", tls_key=tmp_path / "nowhere.key")

    @pytest.mark.parametrize("name", ["tls_cert", "tls_key", "tls_client_ca"])
    async def test_a_file_that_is_no_pem_is_named(self, analyze, files, name, tmp_path):
        files["tls_client_ca"] = tmp_path / "ca.pem"
        files[name].write_text("no certificate")

        with pytest.raises(BadCertificate, match=files[name].name):
            await analyze(**files)

    async def test_a_key_of_another_certificate_is_one_clear_error(self, analyze, authority, files):
        other = authority.issue_cert("localhost")
        other.private_key_pem.write_to_path(str(files["tls_key"]))

        with pytest.raises(BadCertificate, match="belong together"):
            await analyze(**files)

    @pytest.mark.parametrize("flag", ["--tls-cert", "--tls-key", "--tls-client-ca"])
    def test_half_of_tls_is_a_mistake(self, flag):
        with pytest.raises(SettingsError, match="tls_cert"):
            read_settings([flag, "x.pem"], {})
