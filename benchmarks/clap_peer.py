"""A CLAP of HTSAT-base size with random weights, and three ways to embed songs with it."""

from __future__ import annotations

import json
import subprocess
import wave
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrieval.audio import clip_starts, load_audio, split_clips
from retrieval.encoders import build_audio_encoder
from retrieval.inference import LongplayModel
from retrieval.model import SongState

RATE_HZ, CLIP_SAMPLES = 48_000, 480_000


def save_clap(folder: Path, small: bool = False) -> Path:
    """Save it as transformers does.

    The audio side is that of ``laion/larger_clap_general``: 128 channels after the patches, 2, 2,
    12 and 2 blocks. The text side, which nothing here uses, is as small as can be.

    Args:
        folder: to be made.
        small: a twentieth of the size, to try the benchmark out.
    """
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    torch.manual_seed(0)
    width, depths = (24, [1, 1, 1, 1]) if small else (128, [2, 2, 12, 2])
    audio = {
        "patch_embeds_hidden_size": width,
        "hidden_size": 8 * width,
        "depths": depths,
        "num_attention_heads": [4, 4, 4, 4] if small else [4, 8, 16, 32],
        "enable_fusion": False,
        "projection_dim": 512,
    }
    text = {"num_hidden_layers": 1, "vocab_size": 64, "hidden_size": 64, "intermediate_size": 64,
            "num_attention_heads": 2, "projection_dim": 512}  # fmt: skip
    config = ClapConfig(audio_config=audio, text_config=text, projection_dim=512)
    ClapModel(config).eval().save_pretrained(folder)
    ClapFeatureExtractor(truncation="rand_trunc", padding="repeatpad").save_pretrained(folder)
    return folder


class PooledClap(nn.Module):
    """CLAP's own head on our encoder, where a Longplay model has its attention and context."""

    def __init__(self, folder: Path):
        from transformers import ClapModel

        super().__init__()
        self.audio = build_audio_encoder({"name": "clap", "weights": str(folder)})
        self.project = ClapModel.from_pretrained(folder).audio_projection
        self.config = SimpleNamespace(dim=512, joint_dim=512)
        self.log_tau = nn.Parameter(torch.zeros(()))
        self.tau = self.log_tau

    def pool_frames(self, frames: Tensor, filled: Tensor) -> Tensor:
        """Frames ``[n, frames, d_audio]`` -> CLAP's audio embedding ``[n, 512]``."""
        return self.project(frames.mean(dim=1))

    def contextualise(
        self, vectors: Tensor, clip_mask: Tensor, position: Tensor, place: Tensor
    ) -> SongState:
        """Unit vectors, every clip by itself."""
        return SongState(vectors[None], F.normalize(vectors, dim=-1)[None], clip_mask)


def ours(folder: Path) -> LongplayModel:
    """The model that the pipeline runs."""
    return LongplayModel(PooledClap(folder), "0" * 64)  # type: ignore[arg-type]


class UsualScript:
    """What people write: librosa, the extractor that ``ClapProcessor`` calls, clip by clip."""

    def __init__(self, folder: Path):
        from transformers import ClapFeatureExtractor, ClapModel

        self._model = ClapModel.from_pretrained(folder).eval()
        self._extractor = ClapFeatureExtractor.from_pretrained(folder)

    @torch.no_grad()
    def embed(self, path: Path) -> np.ndarray:
        """Unit vectors of a song's clips, ``[clips, 512]``."""
        import librosa

        samples, _ = librosa.load(path, sr=RATE_HZ)
        found = []
        for start in clip_starts(len(samples), CLIP_SAMPLES):
            clip = samples[start : start + CLIP_SAMPLES]
            inputs = self._extractor(clip, sampling_rate=RATE_HZ, return_tensors="pt")
            out = self._model.get_audio_features(**inputs)
            vector = getattr(out, "pooler_output", out)  # an object since transformers 5
            found.append(F.normalize(vector, dim=-1)[0].numpy())
        return np.stack(found)


class LaionFileLists:
    """laion_clap's own call in the Python of another environment (``benchmarks/laion_files.py``).

    It hears 10 s of each file, so that a song is the list of its clips, a WAV file each.

    Args:
        python: of an environment with laion-clap, pillow, ``numpy<2`` and ``transformers<5``.
        paths: the songs.
        folder: to be made, for the files.
    """

    def __init__(self, python: Path, paths: Sequence[Path], folder: Path):
        self._lists = [
            [str(file) for file in clip_files(path, folder / str(number))]
            for number, path in enumerate(paths)
        ]
        script = Path(__file__).with_name("laion_files.py")
        self._process = subprocess.Popen(
            [str(python), "-W", "ignore", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def embed_all(self) -> None:
        """All songs, one after another."""
        assert self._process.stdin is not None
        for files in self._lists:
            self._process.stdin.write(json.dumps(files) + "\n")
            self._process.stdin.flush()
            self._answer()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def _answer(self) -> None:
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise RuntimeError("laion_files.py ended; what it said stands above")


def clip_files(path: Path, folder: Path) -> list[Path]:
    """The clips of a song as WAV files of 16 bits."""
    folder.mkdir(parents=True)
    clips, _ = split_clips(load_audio(path, RATE_HZ), CLIP_SAMPLES)
    files = [folder / f"{number:03d}.wav" for number in range(len(clips))]
    for file, clip in zip(files, clips, strict=True):
        with wave.open(str(file), "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(RATE_HZ)
            out.writeframes((32767 * clip.clip(-1, 1)).astype("<i2").tobytes())
    return files
