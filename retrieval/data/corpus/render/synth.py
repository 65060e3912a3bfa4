"""MIDI -> stereo sound, by FluidSynth."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retrieval.errors import ComposeError

#: Debian's packages fluid-soundfont-gm (FluidR3, MIT) and timgm6mb-soundfont (GPL-2).
SOUND_FONTS = ("/usr/share/sounds/sf2/FluidR3_GM.sf2", "/usr/share/sounds/sf2/TimGM6mb.sf2")
_INSTALL = "on Debian: apt install fluidsynth fluid-soundfont-gm timgm6mb-soundfont"
_TIMEOUT_S = 600


def find_synth() -> str:
    """Path of the FluidSynth program.

    Raises:
        ComposeError: it is not installed; the message says which packages to install.
    """
    program = shutil.which("fluidsynth")
    if program is None:
        raise ComposeError(f"fluidsynth: not installed; {_INSTALL}")
    return program


def find_sound_fonts(paths: Sequence[str | Path] | None = None) -> list[Path]:
    """The sound fonts to draw from: the given ones, or those that Debian's packages install.

    Raises:
        ComposeError: a given one is missing, or none is installed.
    """
    given = [Path(p).expanduser() for p in paths or ()]
    for path in given:
        if not path.is_file():
            raise ComposeError(f"sound font: {path} not found, expected an .sf2 or .sf3 file")
    fonts = given or [Path(p) for p in SOUND_FONTS if Path(p).is_file()]
    if not fonts:
        raise ComposeError(f"sound font: none found; {_INSTALL}, or name one in render.sound_fonts")
    return fonts


def synthesize(midi: bytes, seconds: float, sound_font: Path, rate_hz: int) -> np.ndarray:
    """Play a MIDI file.

    Args:
        midi: a Standard MIDI File.
        seconds: length of the result.
        sound_font: SF2 or SF3.
        rate_hz: sample rate; FluidSynth takes 8,000 to 96,000.

    Returns:
        float32 ``[2, samples]``, dry, not normalised.

    Raises:
        ComposeError: FluidSynth is missing, fails, or gives silence.
    """
    program = find_synth()
    with tempfile.TemporaryDirectory(prefix="longplay-") as folder:
        source, target = Path(folder) / "piece.mid", Path(folder) / "piece.raw"
        source.write_bytes(midi)
        command = [program, "-ni", "-g", "0.35", "-r", str(rate_hz), "-R", "0", "-C", "0", "-O",
                   "s16", "-T", "raw", "-F", str(target), str(sound_font), str(source)]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, check=False, timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise ComposeError(f"fluidsynth: no end after {_TIMEOUT_S} s") from error
        if done.returncode or not target.exists():
            raise ComposeError(f"fluidsynth: failed ({done.stderr.decode(errors='replace')[:200]})")
        frames = np.fromfile(target, dtype="<i2").reshape(-1, 2)[: round(seconds * rate_hz)]
    sound = np.zeros((2, round(seconds * rate_hz)), dtype=np.float32)
    sound[:, : len(frames)] = frames.T
    sound /= 32768
    if not np.abs(sound).max(initial=0.0):
        raise ComposeError(f"fluidsynth: silence from {sound_font}; is the sound font whole?")
    return sound
