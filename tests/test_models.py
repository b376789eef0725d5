"""What a server says about its model and its limits."""

import grpc
import pytest
from speechemotion.v1.model_service_pb2 import (
    GetModelRequest,
    GetServerInfoRequest,
    ListModelsRequest,
    Model,
)

from server.engine.fake import LABELS


async def test_the_list_has_the_one_model_with_its_labels_in_order(catalogue):
    [model] = (await catalogue.ListModels(ListModelsRequest())).models

    assert tuple(model.labels) == LABELS
    assert (model.name, model.state) == ("models/fake@000000000000", Model.STATE_READY)
    assert (model.sample_rate_hz, model.frame_period_ms, model.embedding_dimension) == (
        16_000, 20, 8,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["models/fake", "models/fake@000000000000"])
async def test_a_model_is_found_with_and_without_its_version(catalogue, name):
    assert (await catalogue.GetModel(GetModelRequest(name=name))).display_name == "fake"


async def test_another_name_is_not_found(catalogue):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await catalogue.GetModel(GetModelRequest(name="models/other"))

    assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_page_token_of_somebody_else_is_invalid(catalogue):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await catalogue.ListModels(ListModelsRequest(page_token="other"))

    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_limits_are_those_of_the_settings(catalogue, settings):
    info = await catalogue.GetServerInfo(GetServerInfoRequest())

    assert info.limits.max_audio_bytes == settings.max_audio_bytes
    assert info.limits.max_audio_ms == 10_000
    assert info.limits.min_audio_ms == 25
    assert info.limits.max_batch_items == 4
    assert info.limits.max_upload_bytes == settings.max_upload_bytes
    assert info.stream_limits.max_session_ms == 1000 * settings.max_stream_seconds
    assert info.stream_limits.max_sessions == info.limits.max_concurrent_streams > 0
    assert {"wav", "flac", "mp3", "ogg/opus"} <= set(info.containers)
    assert info.api_version == "speechemotion.v1"
