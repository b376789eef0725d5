"""BentoML. It batches only across services, so raw bodies take the documented pair of services."""

from typing import Annotated

import bentoml
from bentoml.validators import ContentType
from null_model import MAX_BATCH, infer

OPTIONS = {"workers": 1, "traffic": {"timeout": 20, "max_concurrency": 1024}}


@bentoml.service(**OPTIONS)
class Model:
    """Batches."""

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=10_000)
    def infer_batch(self, pcm: list[bytes]) -> list[list[float]]:
        return [answer.tolist() for answer in infer(pcm)]


@bentoml.service(**OPTIONS)
class Front:
    """Takes HTTP."""

    model = bentoml.depends(Model)

    @bentoml.api(route="/inference")
    async def inference(
        self, pcm: Annotated[bytes, ContentType("application/octet-stream")], /
    ) -> list[float]:
        answers = await self.model.to_async.infer_batch([pcm])
        return answers[0]
