"""The package laion-clap's own HTS-AT, in an environment of its own, against the conversion."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import torch
from laion_state import BASE, TINY, audio_shapes

from retrieval.encoders import build_audio_encoder
from retrieval.encoders.laion_checkpoint import read_checkpoint
from retrieval.encoders.laion_keys import rename
from retrieval.encoders.laion_model import model_name, whole_model

ROOT = Path(__file__).resolve().parents[1]
#: The package needs NumPy 1; numba, torchvision and h5py are imported beside its network but not
#: used by it, so that the script stands in for them.
NEEDED = ("laion-clap==1.1.7", "torchlibrosa==0.1.0", "numpy==1.26.4", "librosa==0.11.0")
ALSO = (
    "joblib", "lazy-loader", "decorator", "msgpack", "pooch", "requests", "urllib3", "idna",
    "certifi", "charset-normalizer", "platformdirs", "packaging",
)  # fmt: skip
SIZES = {"tiny": (TINY, False), "tiny-fusion": (TINY, True), "base": (BASE, False)}


def environment() -> Path:
    """The Python of an environment with the package, made on the first call.

    Torch and SciPy are this environment's own, found through a ``.pth`` file that comes after
    what is installed there, NumPy 1 above all.
    """
    folder = ROOT / ".cache" / "laion-reference"
    python, ready = folder / "bin" / "python", folder / "ready"
    pins = (ROOT / "constraints.txt").read_text()
    also = [re.search(rf"(?m)^{name}==.*$", pins)[0] for name in ALSO]  # type: ignore[index]
    wanted = "\n".join([*NEEDED, *also])
    if ready.is_file() and ready.read_text() == wanted:
        return python
    venv.create(folder, clear=True, with_pip=False)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps",
         "--no-compile", "--disable-pip-version-check", *NEEDED, *also],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"pip cannot make the reference environment: {done.stderr.strip()[-300:]}")
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "project.pth").write_text(f"{Path(torch.__file__).resolve().parents[1]}\n")
    ready.write_text(wanted)
    return python


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("laion-reference")
    script = ROOT / "tests" / "laion_reference.py"
    done = subprocess.run(
        [str(environment()), str(script), str(folder)], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((folder / "versions.json").read_text())["numpy"].startswith("1.")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("case", list(SIZES))
def test_converted_weights_hear_what_the_package_hears(reference: Path, case: str) -> None:
    checkpoint = reference / f"{case}.pt"
    answers = torch.load(reference / f"{case}.answers.pt", weights_only=True)
    encoder = build_audio_encoder({"name": "laion_clap", "weights": str(checkpoint)})
    size, fusion = SIZES[case]

    weights = read_checkpoint(checkpoint)
    assert model_name(weights) == f"HTSAT-{case.split('-')[0]}"
    found = {n: tuple(t.shape) for n, t in weights.items() if n.startswith("audio_branch.")}
    assert found == audio_shapes(*size, fusion=fusion)  # the names that the fast tests rely on
    assert set(rename(weights)) < set(whole_model(weights).state_dict())

    from_mels = encoder.encode(answers["mels"]).detach()
    assert cosine(from_mels, answers["frames"]) > 0.99999
    assert cosine(from_mels.mean(dim=1), answers["embedding"]) > 0.99999
    if fusion:
        return  # its log-mel is torchaudio's, which is no part of HTS-AT
    mels = encoder.front_end(answers["clips"])
    assert (mels - answers["mels"]).abs().max() < 0.05  # both in float32
    frames = encoder.prepare(answers["clips"])
    assert cosine(frames, answers["frames"]) > 0.99999
    assert cosine(frames.mean(dim=1), answers["embedding"]) > 0.99999


def cosine(found: torch.Tensor, wanted: torch.Tensor) -> float:
    assert found.shape == wanted.shape
    assert wanted.std() > 0.1  # neither is a constant
    return float(torch.cosine_similarity(found, wanted, dim=-1).min())
