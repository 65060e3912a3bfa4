from __future__ import annotations

import subprocess
import sys


def test_importing_is_light_and_needs_no_home(tmp_path) -> None:
    code = (
        "import sys, retrieval, index, retrieval.audio, retrieval.text, index.search, index.store\n"
        "import retrieval.embed, retrieval.pipeline.decoder, retrieval.pipeline.pool\n"
        "heavy = {'lightning', 'hydra', 'laion_clap', 'torch', 'transformers', 'faiss'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    environment = {"HOME": str(tmp_path / "none"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.stdout.strip() == "[]", done.stderr
    assert not (tmp_path / "none").exists()


def test_inference_imports_neither_lightning_nor_hydra() -> None:
    code = (
        "import sys, retrieval.checkpoint, index.library\n"
        "print(sorted({'lightning', 'hydra', 'laion_clap'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
