"""Finding and verifying published weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from retrieval.errors import EncoderError

#: Tables that are counted rather than learned, which older files leave out.
_COUNTED = (
    "position_ids", "token_type_ids", "relative_position_index", "num_batches_tracked",
)  # fmt: skip


#: Files that hold a vocabulary; without any, transformers makes a tokenizer of five signs up.
_VOCABULARIES = (
    "tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model",
    "tokenizer.model",
)  # fmt: skip


def load_pretrained(kind: Any, weights: str, argument: str, **options: Any) -> Any:
    """Call ``kind.from_pretrained`` on a local folder, or on a hub name.

    A folder is never looked up on the hub. Pickled weights are only read by transformers with
    ``weights_only=True``.

    Args:
        kind: a transformers class.
        weights: folder or hub name.
        argument: what the caller calls this setting, for messages.
        options: further arguments of ``from_pretrained``.

    Raises:
        EncoderError: the folder or name cannot be loaded.
    """
    folder = Path(weights).expanduser()
    looks_like_path = weights.startswith((".", "/", "~")) or weights.count("/") > 1
    if looks_like_path and not folder.is_dir():
        raise EncoderError(f"{argument}: got {weights!r}, expected an existing folder")
    if kind.__name__ == "AutoTokenizer" and folder.is_dir():
        _check_vocabulary(folder, argument)
    try:
        with _no_progress_bar():
            if folder.is_dir():
                return kind.from_pretrained(folder, local_files_only=True, **options)
            return kind.from_pretrained(weights, **options)
    except Exception as error:  # a foreign or damaged folder fails in any of its libraries
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise EncoderError(
            f"{argument}: {weights!r} cannot be loaded as {kind.__name__}; expected a folder "
            f"written by save_pretrained, or a hub name and a network ({reason})"
        ) from error


def _check_vocabulary(folder: Path, argument: str) -> None:
    if not any((folder / name).is_file() for name in _VOCABULARIES):
        raise EncoderError(
            f"{argument}: {str(folder)!r} has no tokenizer, expected one of "
            f"{', '.join(_VOCABULARIES)}; copy the files of the model's tokenizer there"
        )


def load_whole(
    kind: Any, weights: str, argument: str, spare: tuple[str, ...] = (), **options: Any
) -> Any:
    """As :func:`load_pretrained`, and refuse weights that transformers would draw at random.

    Args:
        kind: a transformers class of networks.
        weights: folder or hub name.
        argument: what the caller calls this setting, for messages.
        spare: parts that nothing reads; where their weights are missing they are set to None, so
            that no chance is left in the network.
        options: more arguments of ``from_pretrained``, such as ``subfolder``.

    Raises:
        EncoderError: it cannot be loaded, or weights are missing.
    """
    with _errors_only():
        network, report = load_pretrained(
            kind, weights, argument, output_loading_info=True, **options
        )
    missing = {name for name in report["missing_keys"] if not name.endswith(_COUNTED)}
    for part in spare:
        lost = {name for name in missing if name.startswith(f"{part}.")}
        if lost:
            setattr(network, part, None)
            missing -= lost
    if missing:
        raise EncoderError(
            f"{argument}: {weights!r} lacks {len(missing)} of the weights of a {kind.__name__}, "
            f"among them {min(missing)!r}; expected a whole model, and would get random numbers"
        )
    return network


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Keep transformers' bar for reading a local file off the terminal, and put it back."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def _errors_only() -> Iterator[None]:
    """Keep transformers' table of weights that were not asked for off the terminal."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def module_digest(module: nn.Module) -> str:
    """SHA-256 over names, shapes and values of a module's state, in hex."""
    return state_digest(module.state_dict())


def state_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and values of tensors, in hex; their order does not count."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
