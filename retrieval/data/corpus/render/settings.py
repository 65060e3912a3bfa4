"""Settings of rendering as a config writes them."""

from __future__ import annotations

from collections.abc import Sequence

from retrieval.data.corpus.render.files import FORMATS
from retrieval.data.corpus.render.song import Rendering
from retrieval.data.corpus.render.synth import find_sound_fonts
from retrieval.errors import ConfigError


def make_rendering(
    sound_fonts: Sequence[str] | None = None,
    rate_hz: int = 24_000,
    format: str = "mp3",
    produced: bool = True,
    kbps: int = 0,
) -> Rendering:
    """Check the settings and find the sound fonts; see :class:`Rendering`.

    Raises:
        ConfigError: a value that cannot work.
        ComposeError: a sound font is missing; the message says what to install.
    """
    if format not in FORMATS:
        raise ConfigError(f"render.format: {format!r}, expected one of {', '.join(FORMATS)}")
    if not 8_000 <= rate_hz <= 48_000:
        raise ConfigError(f"render.rate_hz: {rate_hz}, expected 8000 to 48000")
    return Rendering(tuple(find_sound_fonts(sound_fonts)), rate_hz, format, produced, kbps)
