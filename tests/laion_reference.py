"""What the package laion-clap computes, run with the Python of its own environment.

    python tests/laion_reference.py OUT_FOLDER

For each case it writes a checkpoint as LAION's training does (``CASE.pt``) and the answers of the
package's own HTS-AT on the same weights (``CASE.answers.pt``). The network's file is imported by
path, since importing the package downloads tokenizers. Only torch, the package's files and what
these need are used: nothing of this repository.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

CASES = {
    "tiny": ("tiny", False),
    "tiny-fusion": ("tiny", True),
    "base": ("base", False),
}
TEXT_WIDTH, JOINT = 32, 24


def unused(name: str, **members: Any) -> None:
    """Stand in for a module that is imported beside the network and never called by it."""
    parts = name.split(".")
    for i in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:i]), types.ModuleType(".".join(parts[:i])))
    for key, value in members.items():
        setattr(sys.modules[name], key, value)


def plain(*args: Any, **_: Any) -> Any:
    """A decorator that leaves its function as it is, with or without arguments."""
    return args[0] if len(args) == 1 and callable(args[0]) else lambda function: function


def htsat() -> Any:
    """``laion_clap/clap_module/htsat.py`` without the packages around it."""
    unused("h5py")
    unused("torchvision.ops.misc", FrozenBatchNorm2d=object)
    unused("numba", jit=plain, guvectorize=plain, stencil=plain, vectorize=plain)
    spec = importlib.util.find_spec("laion_clap")  # finds the folder, runs nothing
    if spec is None or spec.origin is None:
        raise SystemExit("laion-clap is not installed")
    package = types.ModuleType("reference")
    package.__path__ = [str(Path(spec.origin).parent / "clap_module")]
    sys.modules["reference"] = package
    return importlib.import_module("reference.htsat")


def scatter(model: torch.nn.Module, seed: int) -> None:
    """Random numbers for all that is learned or counted over batches."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        fixed = ("spectrogram_extractor", "logmel_extractor", "attn_mask")
        if not tensor.is_floating_point() or any(part in name for part in fixed):
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            tensor.copy_(200 + 100 * noise.abs())
        elif name.endswith("running_mean"):
            tensor.copy_(10 * noise - 20)
        elif tensor.ndim == 1 and name.endswith("weight"):
            tensor.copy_(1 + 0.2 * noise)
        elif name.endswith("bias_table"):
            tensor.copy_(noise)
        else:
            tensor.copy_(noise * (tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.1))


def heads(width: int) -> dict[str, Tensor]:
    """The rest of a checkpoint: a small RoBERTa and the projections, by their names."""
    text = {
        "embeddings.position_ids": torch.arange(66)[None],
        "embeddings.word_embeddings.weight": torch.randn(50, TEXT_WIDTH),
        "embeddings.position_embeddings.weight": torch.randn(66, TEXT_WIDTH),
        "embeddings.token_type_embeddings.weight": torch.randn(1, TEXT_WIDTH),
    }
    square = ["attention.self.query", "attention.self.key", "attention.self.value",
              "attention.output.dense"]  # fmt: skip
    layer = "encoder.layer.0."
    linear = {"pooler.dense": (TEXT_WIDTH, TEXT_WIDTH),
              **{layer + name: (TEXT_WIDTH, TEXT_WIDTH) for name in square},
              layer + "intermediate.dense": (4 * TEXT_WIDTH, TEXT_WIDTH),
              layer + "output.dense": (TEXT_WIDTH, 4 * TEXT_WIDTH)}  # fmt: skip
    for name, shape in linear.items():
        text[f"{name}.weight"], text[f"{name}.bias"] = torch.randn(shape), torch.randn(shape[0])
    for name in ("embeddings", layer + "attention.output", layer + "output"):
        text[f"{name}.LayerNorm.weight"] = torch.ones(TEXT_WIDTH)
        text[f"{name}.LayerNorm.bias"] = torch.zeros(TEXT_WIDTH)
    found = {f"text_branch.{name}": tensor for name, tensor in text.items()}
    for tower, size in (("audio", 8 * width), ("text", TEXT_WIDTH)):
        found[f"{tower}_projection.0.weight"] = torch.randn(JOINT, size)
        found[f"{tower}_projection.2.weight"] = torch.randn(JOINT, JOINT)
        for part in ("projection.0", "projection.2"):
            found[f"{tower}_{part}.bias"] = torch.randn(JOINT)
        for i in (0, 3, 6):
            found[f"{tower}_transform.sequential.{i}.weight"] = torch.randn(JOINT, JOINT)
            found[f"{tower}_transform.sequential.{i}.bias"] = torch.randn(JOINT)
    return {**found, "logit_scale_a": torch.tensor(2.6), "logit_scale_t": torch.tensor(2.7)}


def sounds() -> Tensor:
    """Two clips of 10 s at 48 kHz: a chord that rises out of noise, and a sweep with a rest."""
    time = torch.arange(480_000) / 48_000
    noise = torch.randn(2, 480_000, generator=torch.Generator().manual_seed(3))
    chord = sum(torch.sin(2 * torch.pi * f * time) for f in (220.0, 277.2, 329.6)) / 3
    sweep = torch.sin(2 * torch.pi * (100 + 300 * time) * time) * (time < 7)
    return torch.stack([chord * time / 10, sweep]) + 0.003 * noise


@torch.no_grad()
def answer(model: Any, clips: Tensor, fusion: bool) -> dict[str, Tensor]:
    """Embedding, frames and log-mels of the package's network."""
    mels = model.logmel_extractor(model.spectrogram_extractor(clips))  # [n, 1, 1001, 64]
    if fusion:  # its own log-mel comes from torchaudio; any picture will do to compare networks
        batch = {"mel_fusion": mels.expand(-1, 4, -1, -1).clone(),
                 "longer": torch.zeros(len(clips), 1, dtype=torch.bool)}  # fmt: skip
    else:
        batch = {"waveform": clips}
    out = model(batch, device=torch.device("cpu"))
    frames = out["fine_grained_embedding"][:, :: model.interpolate_ratio]
    return {"mels": mels, "embedding": out["embedding"], "frames": frames, "clips": clips}


def main(folder: Path) -> None:
    """Write all cases, and what they were made with."""
    module, clips = htsat(), sounds()
    for seed, (case, (size, fusion)) in enumerate(CASES.items()):
        audio = types.SimpleNamespace(
            model_name=size, class_num=527, mel_bins=64, window_size=1024, hop_size=480,
            sample_rate=48_000, fmin=50, fmax=14_000,
        )  # fmt: skip
        kind = "aff_2d" if fusion else "None"
        model = module.create_htsat_model(audio, enable_fusion=fusion, fusion_type=kind).eval()
        torch.manual_seed(seed)
        scatter(model, seed)
        state = {f"audio_branch.{name}": tensor for name, tensor in model.state_dict().items()}
        state |= heads(model.embed_dim)
        optimizer = {"param_groups": [{"lr": np.float64(1e-4), "params": [0]}]}
        named = {f"module.{name}": tensor for name, tensor in state.items()}
        content = {"epoch": 1, "name": case, "state_dict": named, "optimizer": optimizer}
        torch.save(content, folder / f"{case}.pt")
        torch.save(answer(model, clips, fusion), folder / f"{case}.answers.pt")
    versions = {"numpy": np.__version__, "torch": torch.__version__}
    (folder / "versions.json").write_text(json.dumps(versions))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
