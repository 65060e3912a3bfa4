"""Production: what happens to a song between the players and the listener."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass

import numpy as np
from scipy import signal

Sound = np.ndarray
_BLOCK_SAMPLES = 1 << 19


@dataclass(frozen=True)
class Production:
    """One song's sampled chain; a value that does nothing means the step is left out.

    Attributes:
        font: index of the sound font.
        looseness: of the players, see :func:`retrieval.data.corpus.render.midi.to_midi`.
        reverb_s: time to -60 dB; reverb_mix: share of the wet sound.
        low_db, high_db: shelves below 200 Hz and above 3 kHz.
        ratio: of the compressor over -18 dB; 1 is none.
        width: 0 folds to mono before the chain, 1 keeps the stereo image until the end.
        noise_db: level of the noise against the peak; -120 is none.
        low_pass_hz: 0 is none.
        kbps: of the codec.
        peak_db: of the result.
    """

    font: int
    looseness: float
    reverb_s: float
    reverb_mix: float
    low_db: float
    high_db: float
    ratio: float
    width: float
    noise_db: float
    low_pass_hz: int
    kbps: int
    peak_db: float

    def audible(self) -> tuple[str, ...]:
        """What a listener notices of the chain, in the words of ``SongFacts.sound``."""
        found = []
        if 0 < self.low_pass_hz < 6000:
            found.append("muffled")
        if self.noise_db > -50:
            found.append("noisy")
        if self.reverb_mix > 0.2 and self.reverb_s > 1.5:
            found.append("roomy")
        if self.reverb_mix == 0:
            found.append("dry")
        return tuple(found)

    def summary(self) -> dict[str, float]:
        """The values, for a manifest."""
        return {name: round(float(value), 3) for name, value in asdict(self).items()}


def draw_production(seed: str, fonts: int) -> Production:
    """Draw a song's chain.

    Bandwidths follow what collections hold: most songs are whole, some end at 8-11 kHz, and one in
    ten at 4-5.5 kHz, as old recordings and low bit rates do.
    """
    rng = random.Random(f"production {seed}")
    wet = rng.random() < 0.8
    noisy = rng.random() < 0.3
    cut = rng.random()
    low_pass = (
        rng.randint(4000, 5500) if cut < 0.1 else rng.randint(7500, 11000) if cut < 0.3 else 0
    )
    return Production(
        font=rng.randrange(fonts),
        looseness=round(rng.uniform(0.1, 1.0), 2),
        reverb_s=round(rng.uniform(0.3, 2.6), 2) if wet else 0.0,
        reverb_mix=round(rng.uniform(0.05, 0.3), 2) if wet else 0.0,
        low_db=round(rng.uniform(-6, 5), 1),
        high_db=round(rng.uniform(-7, 5), 1),
        ratio=round(rng.choice((1.0, rng.uniform(1.5, 4.0))), 2),
        width=round(rng.random(), 2),
        noise_db=round(rng.uniform(-62, -42), 1) if noisy else -120.0,
        low_pass_hz=low_pass,
        kbps=rng.choice((32, 48, 64, 64, 96, 128)),
        peak_db=round(rng.uniform(-9, -0.5), 1),
    )


def produce(stereo: Sound, rate_hz: int, chain: Production, fade_s: float, seed: str) -> Sound:
    """Run the chain.

    Args:
        stereo: float32 ``[2, samples]``.
        rate_hz: sample rate.
        chain: what to do.
        fade_s: length of a fade-out at the end.
        seed: of the noise and of the room.

    Returns:
        float32 ``[samples]``, mono, its peak at ``chain.peak_db``.
    """
    rng = np.random.default_rng(hash_seed(seed))
    sound = stereo.mean(axis=0)
    # A plain fold to mono loses what differs between the channels; a delayed side keeps some.
    late = round(0.004 * rate_hz)
    sound[late:] += 0.25 * chain.width * (stereo[0] - stereo[1])[: len(sound) - late]
    del stereo  # five minutes are 58 MB
    sound = _shelves(sound, rate_hz, chain.low_db, chain.high_db)
    if chain.ratio > 1:
        _compress(sound, rate_hz, chain.ratio)
    if chain.reverb_mix:
        sound = _reverb(sound, rate_hz, chain.reverb_s, chain.reverb_mix, rng)
    if chain.low_pass_hz:
        cut = min(chain.low_pass_hz, 0.45 * rate_hz)
        sound = _filter(signal.butter(6, cut, fs=rate_hz, output="sos"), sound)
    if fade_s:
        length = min(round(fade_s * rate_hz), len(sound))
        sound[-length:] *= np.linspace(1, 0, length, dtype=np.float32) ** 2
    peak = float(np.abs(sound).max(initial=1e-9))
    if chain.noise_db > -100:
        noise = rng.standard_normal(len(sound), dtype=np.float32)
        sound += noise * np.float32(peak * 10 ** (chain.noise_db / 20) / 3)
        peak = float(np.abs(sound).max())
    sound *= np.float32(10 ** (chain.peak_db / 20) / peak)
    return sound


def hash_seed(text: str) -> int:
    """A whole number from a text, the same in every process."""
    return random.Random(text).getrandbits(63)


def _filter(sos: Sound, sound: Sound) -> Sound:
    """Filter in single precision, which halves the memory; -140 dB is far below any noise."""
    return signal.sosfilt(sos.astype(np.float32), sound)


def _shelves(sound: Sound, rate_hz: int, low_db: float, high_db: float) -> Sound:
    """First-order shelves, as sums of the sound and its low and high part."""
    low = _filter(signal.butter(1, 200, fs=rate_hz, output="sos"), sound)
    low *= np.float32(10 ** (low_db / 20) - 1)
    high = _filter(signal.butter(1, 3000, "high", fs=rate_hz, output="sos"), sound)
    high *= np.float32(10 ** (high_db / 20) - 1)
    low += high
    low += sound
    return low


def _compress(sound: Sound, rate_hz: int, ratio: float) -> None:
    """Hold back what is above -18 dB of the peak, in place.

    The level is that of 20 ms blocks, smoothed over three; the gain moves linearly between them.
    """
    block = max(1, rate_hz // 50)
    count = len(sound) // block
    blocks = sound[: count * block].reshape(count, block)
    level = np.sqrt(np.einsum("ij,ij->i", blocks, blocks) / block + 1e-12)
    level = np.convolve(np.pad(level, 1, mode="edge"), np.ones(3) / 3, mode="valid")
    over_db = np.maximum(20 * np.log10(level / (np.abs(sound).max() + 1e-9)) + 18, 0)
    gain = (10 ** (-over_db * (1 - 1 / ratio) / 20)).astype(np.float32)
    before = np.concatenate([gain[:1], gain[:-1]])
    steps = np.arange(block, dtype=np.float32) / block
    blocks *= before[:, None] + (gain - before)[:, None] * steps
    sound[count * block :] *= gain[-1] if count else 1.0


def _reverb(
    sound: Sound, rate_hz: int, seconds: float, mix: float, rng: np.random.Generator
) -> Sound:
    """Convolve with decaying, darkened noise: a room without a measured response."""
    length = round(seconds * rate_hz)
    decay = 10 ** (-3 * np.arange(length) / length)
    room = rng.standard_normal(length) * decay
    room = signal.sosfilt(signal.butter(1, 4000, fs=rate_hz, output="sos"), room)
    room = (room * (mix / np.sqrt(np.sum(room**2)))).astype(np.float32)
    produced = sound * np.float32(1 - mix)
    for start in range(0, len(sound), _BLOCK_SAMPLES):  # bounded memory for any length
        wet = signal.fftconvolve(sound[start : start + _BLOCK_SAMPLES], room)
        wet = wet[: len(sound) - start]
        produced[start : start + len(wet)] += wet
    return produced
