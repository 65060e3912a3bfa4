"""How many files are embedded: settings of decoding and of the network."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field

from retrieval.audio import AudioLimits
from retrieval.errors import ConfigError

PRECISIONS = ("float32", "auto", "bfloat16")


@dataclass(frozen=True)
class DecodeLimits:
    """What decoding one file may take.

    Attributes:
        audio: length, channels and sample rate.
        time_s: seconds from the request to the last sample.
        memory_bytes: address space of a worker; Python, NumPy and FFmpeg take 0.3 GB of it.
    """

    audio: AudioLimits = field(default_factory=AudioLimits)
    time_s: float = 120.0
    memory_bytes: int = 2 << 30

    def __post_init__(self) -> None:
        if self.time_s <= 0:
            raise ConfigError(f"time_s: got {self.time_s}, expected above 0 seconds")
        if self.memory_bytes < 1 << 29:
            raise ConfigError(
                f"memory_bytes: got {self.memory_bytes}, expected at least {1 << 29}: the "
                "libraries take most of that"
            )


@dataclass(frozen=True)
class EmbedOptions:
    """How songs are embedded; the numbers depend on ``precision``, and else in the last bits only.

    Attributes:
        workers: processes that decode; 0 for one a core, at most 8 where a CPU encodes and 64
            where a GPU does.
        precision: ``float32``, ``bfloat16``, or ``auto``: bfloat16 where the device has
            instructions for it. The temporal encoder computes in float32 in any case.
        compiled: run the audio encoder through ``torch.compile``, which takes a minute or more
            at the start.
        together: clips of several songs that go through the network in one batch; 0 for chunks
            that are counted from each song's start, which alone have the bits of ``embed_song``;
            None for 0 on CPUs and 64 on GPUs, which one song does not fill.
        limits: what decoding a file may take.
    """

    workers: int = 0
    precision: str = "float32"
    compiled: bool = False
    together: int | None = None
    limits: DecodeLimits = field(default_factory=DecodeLimits)

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ConfigError(f"workers: got {self.workers}, expected 0 (chosen) or a count")
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"precision: got {self.precision!r}, expected one of {', '.join(PRECISIONS)}"
            )
        if self.together is not None and self.together < 0:
            raise ConfigError(f"together: got {self.together}, expected 0 or a number of clips")


def embed_options(args: argparse.Namespace) -> EmbedOptions:
    """From a command line that has the arguments of :func:`add_options`.

    Raises:
        ConfigError: one of them is out of range.
    """
    audio = AudioLimits(max_duration_s=60 * args.max_minutes)
    limits = DecodeLimits(audio, args.time_limit, round(args.memory_limit * 2**30))
    return EmbedOptions(args.workers, args.precision, args.compile, args.together, limits)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The arguments that :func:`embed_options` reads."""
    group = parser.add_argument_group("embedding")
    group.add_argument("--workers", type=int, default=0,
                       help="processes that decode (one a core, at most 8 beside a CPU that "
                       "encodes)")  # fmt: skip
    group.add_argument("--precision", default="float32", choices=PRECISIONS,
                       help="auto is bfloat16 where the device has instructions for it; only "
                       "float32 gives the same numbers everywhere (float32)")  # fmt: skip
    group.add_argument("--compile", action="store_true",
                       help="run the encoder through torch.compile (slow to start)")  # fmt: skip
    group.add_argument("--together", type=int, metavar="CLIPS",
                       help="clips of several songs in a batch; 0: each song by itself, as "
                       "searching does it, to the last bit (0 on CPUs, 64 on GPUs)")  # fmt: skip
    group.add_argument("--max-minutes", type=float, default=30.0,
                       help="longest song; longer ones are skipped (30)")  # fmt: skip
    group.add_argument("--time-limit", type=float, default=120.0, metavar="SECONDS",
                       help="that decoding one file may take (120)")  # fmt: skip
    group.add_argument("--memory-limit", type=float, default=2.0, metavar="GB",
                       help="that decoding one file may take (2)")  # fmt: skip
