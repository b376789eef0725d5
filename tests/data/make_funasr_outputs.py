"""Stores what FunASR says of fixed clips with a fixed random model: funasr_outputs.npz.

Run from the repository's root, where funasr 1.4.16 is installed:
    PYTHONPATH=.:tests python tests/data/make_funasr_outputs.py
"""

import tempfile
from pathlib import Path

import numpy as np
from checkpoints import checksum, config, random_weights, speech_like, write

SECONDS_16K = (48_000, 66_080, 80_000, 60_320, 8_000, 40_016, 78_400, 16_000)
EDGES = (400, 719, 720, 721, 1039, 1040, 1041)  # around the first, second and third frame
LENGTHS = SECONDS_16K + EDGES
WITH_FRAMES = (2, 4, 8, 12)  # of LENGTHS
OUTPUTS = Path(__file__).with_name("funasr_outputs.npz")


def clips() -> list[np.ndarray]:
    """Of LENGTHS; the last long one so quiet that the norm's epsilon counts."""
    made = [speech_like(samples, seed) for seed, samples in enumerate(LENGTHS)]
    made[7] = made[7] * np.float32(2**-10)
    return made


def funasr_outputs(folder: Path) -> dict[str, np.ndarray]:
    """Scores (15, 9), embeddings (15, 64) and some frames (T, 64), one `generate` for each clip."""
    from funasr import AutoModel

    model = AutoModel(model=str(folder), disable_update=True, disable_pbar=True, ncpu=2)
    outputs = {}
    utterances = [model.generate(clip, granularity="utterance")[0] for clip in clips()]
    outputs["scores"] = np.array([u["scores"] for u in utterances], np.float32)
    outputs["embeddings"] = np.stack([u["feats"] for u in utterances])
    for i in WITH_FRAMES:
        outputs[f"frames_{i}"] = model.generate(clips()[i], granularity="frame")[0]["feats"]
    return outputs


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        outputs = funasr_outputs(write(Path(folder) / "tiny"))
    weights = np.array(checksum(random_weights(config())))
    np.savez_compressed(OUTPUTS, weights=weights, **outputs)
    print(OUTPUTS, OUTPUTS.stat().st_size, "bytes; top labels", outputs["scores"].argmax(1))
    print(outputs["scores"].max(1))


if __name__ == "__main__":
    main()
