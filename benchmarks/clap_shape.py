"""Vectors shaped like CLAP's: 512 dimensions, in a much narrower cone than the shipped model's.

``python -m benchmarks.clap_shape AUDIO_FOLDER ... --captions musiccaps.csv --out clap.npz`` fits
the model of :mod:`benchmarks.embeddings` to what a CLAP of published size (HTSAT-tiny, a RoBERTa of
base size, both projections) with random weights makes of real songs and captions; then ``python -m
benchmarks.search --embeddings clap.npz`` measures how deep the certificate goes. Random weights say
nothing about which songs fit, but all about the shape that is hard for a bound: similarities that
differ by thousandths.
"""

from __future__ import annotations

import argparse
import tempfile
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.clap_peer import CLIP_SAMPLES, RATE_HZ, PooledClap
from benchmarks.embeddings import EmbeddingModel, fit, read_songs, read_texts
from retrieval.audio import load_audio, split_clips
from retrieval.text import split_sentences

_TAU = 0.07  # of CLIP at the start (arXiv 2103.00020, 2.5); CLAP scores no songs by attention
_VOCABULARY = 50_265  # of RoBERTa
_TOGETHER = 8  # clips
_MOST_WORDS = 60  # of a passage; CLAP's own limit is 77 tokens


def save_random_clap(folder: Path) -> None:
    """Save a CLAP of the size of ``laion/clap-htsat-unfused``, transformers' default."""
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    torch.manual_seed(0)
    config = ClapConfig(audio_config={"enable_fusion": False})
    ClapModel(config).eval().save_pretrained(folder)
    ClapFeatureExtractor(truncation="rand_trunc", padding="repeatpad").save_pretrained(folder)


class RandomListener:
    """The audio side, every clip by itself."""

    def __init__(self, folder: Path):
        self._net = PooledClap(folder).eval()

    @torch.inference_mode()
    def __call__(self, path: Path) -> SimpleNamespace:
        """``clip_emb``, unit rows ``[clips, 512]``."""
        clips, _ = split_clips(load_audio(path, RATE_HZ), CLIP_SAMPLES)
        found = []
        for start in range(0, len(clips), _TOGETHER):
            part = torch.from_numpy(np.ascontiguousarray(clips[start : start + _TOGETHER]))
            frames = self._net.audio(self._net.audio.prepare(part))
            vectors = self._net.pool_frames(frames, torch.ones(len(part)))
            found.append(F.normalize(vectors, dim=-1).numpy())
        return SimpleNamespace(clip_emb=np.concatenate(found))


class RandomReader:
    """The text side; words are numbered by their checksum, for there is no tokenizer offline."""

    def __init__(self, folder: Path):
        from transformers import ClapModel

        self._model = ClapModel.from_pretrained(folder).eval()

    @torch.inference_mode()
    def __call__(self, text: str) -> SimpleNamespace:
        """``passage_emb``, unit rows ``[sentences, 512]``."""
        found = []
        for start, end in split_sentences(text):
            words = text[start:end].lower().split()[:_MOST_WORDS]
            ids = [0, *(3 + zlib.crc32(w.encode()) % (_VOCABULARY - 3) for w in words), 2]
            out = self._model.get_text_features(input_ids=torch.tensor([ids]))
            vector = getattr(out, "pooler_output", out)  # an object since transformers 5
            found.append(F.normalize(vector, dim=-1)[0].numpy())
        return SimpleNamespace(passage_emb=np.stack(found))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Fit the model of embeddings to a random CLAP.")
    parser.add_argument("audio", nargs="+", type=Path, help="folders of songs")
    parser.add_argument("--captions", type=Path, required=True, help="musiccaps.csv")
    parser.add_argument("--out", type=Path, required=True, help="file to write, .npz")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_random_clap(folder)
        songs = read_songs(args.audio, RandomListener(folder))
        texts = read_texts(args.captions, RandomReader(folder))
    np.savez_compressed(args.out, **fit(songs, texts, _TAU))
    print(f"{len(songs)} songs, {sum(map(len, songs))} clips")
    drawn = EmbeddingModel(args.out)
    drawn.print_fit(drawn.songs(np.random.default_rng(0), 2000, 30))


if __name__ == "__main__":
    main()
