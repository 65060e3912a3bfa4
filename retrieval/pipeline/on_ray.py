"""The same work on a Ray cluster: a pool of decoders on CPUs, actors that encode (docs/embed.md).

Ray runs a task again when the node that it was on is lost, so a song may be computed twice; it is
written once, since the caller writes and knows what it has.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval import errors
from retrieval.embedder import SongEmbedding
from retrieval.errors import AudioError, ConfigError
from retrieval.pipeline.options import EmbedOptions
from retrieval.pipeline.plain import checked
from retrieval.pipeline.run import Plan

if TYPE_CHECKING:
    from retrieval.inference import LongplayModel

Row = dict[str, Any]
_MAX_BLOCKS = 10_000


class RayStages:
    """What :class:`retrieval.pipeline.stream.Pipeline` does, by Ray Data.

    Args:
        model: loaded from a folder that every node sees, or the shipped one.
        options: as for one machine; ``workers`` 0 lets Ray use all free cores.
        address: ``local`` starts Ray on this machine; otherwise a cluster's address, or ``auto``.
        encoders: actors that encode; with a model on a GPU each takes one GPU of the cluster.

    Raises:
        ConfigError: Ray is not installed, or ``encoders`` is below 1.
    """

    def __init__(
        self,
        model: LongplayModel,
        options: EmbedOptions,
        address: str = "local",
        encoders: int = 1,
    ):
        if encoders < 1:
            raise ConfigError(f"encoders: got {encoders}, expected at least 1")
        if model.path is None:
            raise ConfigError("model: was not loaded from a checkpoint, so no node can load it")
        # Ray reports its use to its makers unless told not to.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray.data
        except ImportError as error:
            raise ConfigError(
                "ray: is not installed; pip install 'longplay[scale]', or leave --ray out"
            ) from error
        self._started = not ray.is_initialized()
        if self._started:
            ray.init(address=address, log_to_driver=False, configure_logging=False)
        self._model, self._device = str(model.path.absolute()), str(model.device)
        self._rate_hz = int(model.net.audio.sample_rate_hz)
        self._options, self._encoders = options, encoders

    def close(self) -> None:
        """Leave the cluster, or stop the local one."""
        import ray

        if self._started:
            ray.shutdown()

    def embed(
        self, items: Iterable[Plan], path_of: Callable[[Plan], Path | None]
    ) -> Iterator[tuple[Plan, SongEmbedding | AudioError | None]]:
        """Every item once: first those that need no embedding, the others as they are done."""
        plans: list[Plan] = []
        for plan in items:
            if path_of(plan) is None:
                yield plan, None
            else:
                plans.append(plan)
        if not plans:
            return
        for row in self._rows([str(path_of(plan)) for plan in plans]):
            plan = plans[row["number"]]
            yield plan, _outcome(plan.path, row)

    def _rows(self, paths: list[str]) -> Iterator[Row]:
        import ray.data
        from ray.data import ActorPoolStrategy

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        on_gpu = self._device.startswith("cuda")
        workers = self._options.workers
        decoders = ActorPoolStrategy(size=workers) if workers else ActorPoolStrategy(min_size=1)
        rows = [{"number": number, "path": path} for number, path in enumerate(paths)]
        # A song a block, where they are not very many: a lost node costs what it had, no more.
        blocks = min(len(rows), _MAX_BLOCKS)
        decode: Any = DecodeSong  # Ray takes classes as well, which its types do not say
        embed: Any = EmbedSong
        decoded = ray.data.from_items(rows, override_num_blocks=blocks).map(
            decode,
            fn_constructor_args=(self._rate_hz, self._options),
            compute=decoders,
            num_cpus=1,
        )
        embedded = decoded.map(
            embed,
            fn_constructor_args=(self._model, self._device, self._options),
            compute=ActorPoolStrategy(size=self._encoders),
            num_cpus=0 if on_gpu else 1,
            num_gpus=1 if on_gpu else 0,
        )
        yield from embedded.iter_rows()


class DecodeSong:
    """Row with a path -> row with samples or an error; the file meets the limits of one machine."""

    def __init__(self, rate_hz: int, options: EmbedOptions):
        from retrieval.pipeline.pool import Decoder

        self._rate_hz = rate_hz
        self._decoder = Decoder(options.limits)

    def __call__(self, row: Row) -> Row:
        """Decode."""
        try:
            samples, error = self._decoder.decode(row["path"], self._rate_hz), ""
        except AudioError as found:
            samples = np.zeros(0, np.float32)
            error = json.dumps([type(found).__name__, str(found)])
        return {"number": row["number"], "samples": samples.tobytes(), "error": error}


class EmbedSong:
    """Row with samples -> row with an embedding, by the same function as on one machine."""

    def __init__(self, model: str, device: str, options: EmbedOptions):
        from retrieval.checkpoint import load_model
        from retrieval.pipeline.encode import SongEncoder

        # Ray hands over one song at a time.
        options = replace(options, together=options.together or 0)
        self._encoder = SongEncoder(load_model(model, device), options)

    def __call__(self, row: Row) -> Row:
        """Embed."""
        found = {"number": row["number"], "error": row["error"], "duration_s": 0.0}
        if row["error"]:
            return {**found, "clip_emb": b"", "clip_times": b""}
        features = self._encoder.features(np.frombuffer(row["samples"], np.float32))
        (song,) = self._encoder.embed([features])
        parts = {"clip_emb": song.clip_emb.tobytes(), "clip_times": song.clip_times.tobytes()}
        return {**found, "duration_s": song.duration_s, **parts}


def _outcome(path: Path, row: Row) -> SongEmbedding | AudioError:
    if row["error"]:
        name, message = json.loads(row["error"])
        return getattr(errors, name, AudioError)(message)
    times = np.frombuffer(row["clip_times"], np.float64).reshape(-1, 2)
    clips = np.frombuffer(row["clip_emb"], np.float32).reshape(len(times), -1)
    try:
        return checked(path, SongEmbedding(clips, times, row["duration_s"]))
    except AudioError as error:
        return error
