"""Notes -> MIDI -> sound (FluidSynth) -> Opus."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np

from retrieval.data.compose.instruments import DRUM_CHANNEL, INSTRUMENTS
from retrieval.data.compose.patterns import Note
from retrieval.data.compose.plan import Plan
from retrieval.errors import ComposeError

_TICKS = 480
_RATE_HZ = 48_000
_TAIL_S = 1.5
_PEAK = 0.89  # -1 dBFS
_SOUND_FONTS = ("/usr/share/sounds/sf2/FluidR3_GM.sf2", "/usr/share/sounds/sf2/TimGM6mb.sf2")
_CHANNELS = {"lead": 0, "chords": 1, "bass": 2, "drums": DRUM_CHANNEL}


def find_sound_font(path: str | None = None) -> str:
    """A General MIDI sound font: the given one, or one that Debian's packages install."""
    for candidate in [path] if path else _SOUND_FONTS:
        if Path(candidate).is_file():
            return candidate
    raise ComposeError(
        f"sound font: {path or 'none'} found, expected a General MIDI .sf2 file; on Debian: "
        "apt install fluidsynth fluid-soundfont-gm"
    )


def to_midi(plan: Plan, notes: list[Note]) -> bytes:
    """A piece as a Standard MIDI File."""
    import mido

    track = mido.MidiTrack()
    track.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(plan.bpm)))
    for role, name in plan.players.items():
        program = INSTRUMENTS[name].program
        track.append(mido.Message("program_change", channel=_CHANNELS[role], program=program))
    events = []
    for note in notes:
        channel = _CHANNELS[note.role]
        gain = INSTRUMENTS[plan.players[note.role]].gain
        velocity = max(1, min(127, round(note.velocity * gain)))
        start, end = round(note.start * _TICKS), round((note.start + note.length) * _TICKS)
        events.append((start, 1, channel, note.pitch, velocity))
        events.append((max(end, start + 1), 0, channel, note.pitch, 0))
    now = 0
    for tick, on, channel, pitch, velocity in sorted(events):
        kind = "note_on" if on else "note_off"
        track.append(
            mido.Message(kind, channel=channel, note=pitch, velocity=velocity, time=tick - now)
        )
        now = tick
    out = io.BytesIO()
    mido.MidiFile(ticks_per_beat=_TICKS, tracks=[track]).save(file=out)
    return out.getvalue()


def synthesize(midi: bytes, seconds: float, sound_font: str) -> np.ndarray:
    """Play a MIDI file with FluidSynth: mono float32 at 48 kHz, peak at -1 dBFS.

    Raises:
        ComposeError: FluidSynth is missing or fails.
    """
    program = shutil.which("fluidsynth")
    if program is None:
        raise ComposeError("fluidsynth: not installed; on Debian: apt install fluidsynth")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "piece.mid", Path(folder) / "piece.raw"
        source.write_bytes(midi)
        command = [program, "-ni", "-g", "0.4", "-r", str(_RATE_HZ), "-R", "0", "-C", "0", "-O",
                   "s16", "-T", "raw", "-F", str(target), sound_font, str(source)]  # fmt: skip
        done = subprocess.run(command, capture_output=True, check=False, timeout=600)
        if done.returncode or not target.exists():
            raise ComposeError(f"fluidsynth: failed ({done.stderr.decode(errors='replace')[:200]})")
        stereo = np.fromfile(target, dtype="<i2").reshape(-1, 2)
    mono = stereo.mean(axis=1, dtype=np.float32)[: round((seconds + _TAIL_S) * _RATE_HZ)]
    peak = float(np.abs(mono).max(initial=0.0))
    if not peak:
        raise ComposeError("fluidsynth: gave silence; is the sound font whole?")
    return mono * (_PEAK / peak)


def write_opus(samples: np.ndarray, path: Path, bit_rate: int = 48_000) -> None:
    """Write mono float32 samples at 48 kHz as Opus, in one step."""
    import av

    temporary = path.with_name(f".{path.name}.tmp")
    with av.open(str(temporary), "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=_RATE_HZ, layout="mono")
        stream.bit_rate = bit_rate
        for start in range(0, len(samples), 960):
            block = np.zeros((1, 960), dtype=np.float32)
            part = samples[start : start + 960]
            block[0, : len(part)] = part
            frame = av.AudioFrame.from_ndarray(block, format="flt", layout="mono")
            frame.sample_rate, frame.pts = _RATE_HZ, start
            frame.time_base = Fraction(1, _RATE_HZ)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    temporary.replace(path)
