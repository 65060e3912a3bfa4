"""``python -m benchmarks.embed``: the shipped model on a song of three minutes, decoded already.

The limit beside it is one matrix product of the same size in the same run: the share says how far
the encoder is from what the cores can do in float32.
"""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.limits import count_flops, matrix_rate, median_s
from benchmarks.machine import print_machine
from retrieval.checkpoint import load_model
from retrieval.inference import CHUNK_CLIPS

SECONDS = 180


def main() -> None:
    """Measure and print."""
    print_machine("torch", "numpy")
    model = load_model()
    rate_hz = model.net.audio.sample_rate_hz
    samples = 0.1 * np.random.default_rng(0).standard_normal(SECONDS * rate_hz, np.float32)
    clips = torch.from_numpy(samples[: CHUNK_CLIPS * model.net.audio.clip_samples]).reshape(
        CHUNK_CLIPS, -1
    )
    features = model.net.audio.front_end(clips)
    with torch.inference_mode():
        whole = median_s(lambda: model.embed_samples(samples))
        front = median_s(lambda: model.net.audio.front_end(clips)) / CHUNK_CLIPS
        network = median_s(lambda: model.net.audio.encode(features)) / CHUNK_CLIPS
        limit = matrix_rate(torch.device("cpu"), torch.float32)
    flops = count_flops(model.net.audio, features) / CHUNK_CLIPS
    print(f"a song of {SECONDS} s, decoded: {whole:.3f} s ({SECONDS / whole:.0f} times real time)")
    print(f"a clip: front end {1e3 * front:.1f} ms, network {1e3 * network:.1f} ms")
    print(
        f"network: {flops / 1e9:.2f} GFLOP a clip, {flops / network / 1e9:.0f} GFLOP/s, "
        f"{100 * flops / network / limit:.0f} % of a float32 matrix product ({limit / 1e9:.0f})"
    )


if __name__ == "__main__":
    main()
