"""laion_clap's own call on lists of files, with the Python of an environment that has the package.

    python benchmarks/laion_files.py < lists    # a JSON list of paths a line; seconds come back

The package asks the hub for tokenizers and text models where it is imported. Speed does not depend
on what they say, so nothing is asked: stand-ins take their place, and the audio side, of
HTSAT-base's size, has random weights. torchvision is imported beside it and not used.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
import time
import types


class Anything(types.ModuleType):
    """A module that has whatever is imported from it."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return object


def without_torchvision() -> None:
    """What is imported of torchvision and never called, where it is not installed."""
    if importlib.util.find_spec("torchvision") is not None:
        return
    names = ("torchvision", "torchvision.ops", "torchvision.ops.misc", "torchvision.transforms",
             "torchvision.datasets")  # fmt: skip
    for name in names:
        sys.modules[name] = Anything(name)
        owner, _, child = name.rpartition(".")
        if owner:
            setattr(sys.modules[owner], child, sys.modules[name])


def without_downloads() -> None:
    """No tokenizers, and a text model of one layer."""
    import transformers

    config = transformers.RobertaConfig(num_hidden_layers=1, vocab_size=64)
    for kind in ("Bert", "Roberta", "Bart"):
        getattr(transformers, f"{kind}Tokenizer").from_pretrained = lambda *_, **__: None
        getattr(transformers, f"{kind}Model").from_pretrained = lambda *_, **__: (
            transformers.RobertaModel(config)
        )


def main() -> None:
    """Answer each line with the seconds that the call took."""
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        without_downloads()
        without_torchvision()  # after transformers, which looks for it
        import laion_clap

        module = laion_clap.CLAP_Module(enable_fusion=False, amodel="HTSAT-base")
        print("ready", file=answers, flush=True)
        for line in sys.stdin:
            start = time.perf_counter()
            module.get_audio_embedding_from_filelist(json.loads(line))
            print(time.perf_counter() - start, file=answers, flush=True)


if __name__ == "__main__":
    main()
