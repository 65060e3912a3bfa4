"""A picture of what was heard where: passages against clips."""

from __future__ import annotations

import textwrap
from pathlib import Path

from index.exact import attention_weights
from index.library import Library
from index.render import clock


def draw_attention(library: Library, id: int, text: str, path: Path) -> None:
    """Draw the attention of a text's passages over a song's clips as a PNG.

    Args:
        library: holds the song.
        id: of the song.
        text: any text.
        path: file to write.

    Raises:
        LibraryError: the id is unknown. TextError: the text is empty.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    song, query = library.song(id), library.model.embed_text(text)
    weight = attention_weights(query.passage_emb, song.clip_emb, library.model.tau)
    count = len(query.passages)
    figure = Figure(figsize=(11, 1.6 + 0.62 * count), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    image = axis.imshow(weight, aspect="auto", cmap="viridis", vmin=0)
    labels = [textwrap.fill(passage, 52, max_lines=2) for passage in query.passages]
    axis.set_yticks(range(count), labels, fontsize=9)
    step = max(1, len(song.clip_times) // 12)
    shown = range(0, len(song.clip_times), step)
    axis.set_xticks(shown, [clock(song.clip_times[i, 0]) for i in shown])
    axis.set_xlabel("start of clip (min:s)")
    axis.set_title(song.record.title or Path(song.record.path).stem, loc="left")
    figure.colorbar(image, ax=axis, label="attention", pad=0.01)
    figure.savefig(path, dpi=130)
