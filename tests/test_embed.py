"""Many songs at once: the same numbers as one by one, each content once, whatever is killed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from broken_audio import write_good_file
from fake_embedder import FakeEmbedder

from index import Library
from retrieval.data.scan import find_songs
from retrieval.embed import main
from retrieval.embedder import SongEmbedding
from retrieval.errors import AudioError, ConfigError, EmbeddingsError
from retrieval.inference import LongplayModel
from retrieval.pipeline.options import EmbedOptions
from retrieval.pipeline.plain import OneByOne
from retrieval.pipeline.run import EmbedReport, embed_all
from retrieval.pipeline.shards import read_clips, read_rows, verify
from retrieval.pipeline.writer import ShardWriter

FACTS = {"model": FakeEmbedder.digest, "precision": "float32"}


def some_songs(folder: Path) -> list[Path]:
    """Shorter than a clip, one clip, several chunks of clips, and one that is no song."""
    folder.mkdir(exist_ok=True)
    lengths = {"a.wav": 0.7, "b.flac": 2.0, "c.wav": 33.3, "d.wav": 5.0, "f.wav": 17.0}
    paths = [
        write_good_file(folder / name, lengths[name], seed=i) for i, name in enumerate(lengths)
    ]
    bad = folder / "e.mp3"
    bad.write_text("no song")
    return sorted([*paths, bad])


def embed(model: Any, paths: list[Path], **options: Any) -> dict[str, Any]:
    with closing(model.pipeline(EmbedOptions(workers=2, **options))) as stages:
        found = list(stages.embed(paths, lambda path: path))
    assert [path for path, _ in found] == paths  # in order
    return {path.name: outcome for path, outcome in found}


def test_the_pipeline_gives_the_bits_of_embed_song(tmp_path: Path, model: LongplayModel) -> None:
    paths = some_songs(tmp_path / "songs")
    found = embed(model, [*paths, paths[2]])
    for path in paths:
        outcome = found[path.name]
        if path.suffix == ".mp3":
            assert isinstance(outcome, AudioError)
            assert "e.mp3" in str(outcome)
            continue
        alone = model.embed_song(path)
        assert np.array_equal(outcome.clip_emb, alone.clip_emb), path.name
        assert np.array_equal(outcome.clip_times, alone.clip_times)
        assert outcome.duration_s == alone.duration_s


def test_batches_of_several_songs_give_the_same_numbers(
    tmp_path: Path, model: LongplayModel
) -> None:
    paths = [path for path in some_songs(tmp_path / "songs") if path.suffix != ".mp3"]
    for together in (3, 16, 100):
        found = embed(model, paths, together=together)
        for path in paths:
            alone = model.embed_song(path).clip_emb
            assert np.allclose(found[path.name].clip_emb, alone, atol=2e-6), (path.name, together)


def test_bfloat16_is_close(tmp_path: Path, model: LongplayModel) -> None:
    paths = some_songs(tmp_path / "songs")[:4]
    found = embed(model, paths, precision="bfloat16")
    for path in paths:
        alone = model.embed_song(path).clip_emb
        assert not np.array_equal(found[path.name].clip_emb, alone)
        assert (found[path.name].clip_emb * alone).sum(axis=1).min() >= 0.999


def test_options_that_cannot_work_are_refused() -> None:
    for name, value in (("workers", -1), ("precision", "float8"), ("together", -2)):
        with pytest.raises(ConfigError, match=name):
            EmbedOptions(**{name: value})


# -- a folder of embeddings ---------------------------------------------------------------


def run(folder: Path, songs: Path, embedder: Any = None) -> EmbedReport:
    writer = ShardWriter(folder, FACTS)
    try:
        stages: Any = embedder or OneByOne(FakeEmbedder())
        return embed_all(find_songs([songs]), writer, stages)
    finally:
        writer.close()


def check_whole(folder: Path, songs: Path) -> None:
    """Every file once, every content embedded once, all numbers as of the model."""
    rows = read_rows(folder)
    good = [p.path for p in find_songs([songs]) if not p.path.read_bytes().startswith(b"BAD")]
    assert sorted(row.path for row in rows) == sorted(map(str, good))
    places = {(row.shard, row.start): row.sha256 for row in rows}
    assert len(places) == len({row.sha256 for row in rows}) == len(set(places.values()))
    clips = 0
    for row in {row.sha256: row for row in rows}.values():
        expected = FakeEmbedder().embed_song(row.path)
        assert np.array_equal(read_clips(folder, row), expected.clip_emb)
        assert np.allclose(row.clip_times, expected.clip_times)
        assert (row.duration_s, row.model) == (expected.duration_s, FakeEmbedder.digest)
        clips += len(row.clip_times)
    assert clips == stored_clips(folder)
    verify(folder)


def stored_clips(folder: Path) -> int:
    from safetensors import safe_open

    count = 0
    for path in folder.glob("clips-*.safetensors"):
        with safe_open(path, "numpy") as file:
            count += file.get_slice("clip_emb").get_shape()[0]
    return count


def test_each_content_is_embedded_once(tmp_path: Path, music: Path) -> None:
    out = tmp_path / "out"
    (music / "copy.mp3").write_bytes((music / "00.mp3").read_bytes())
    (music / "bad.mp3").write_bytes(b"BAD")
    (music / "worse.mp3").write_bytes(b"BAD")
    report = run(out, music)
    assert (report.embedded, report.same, report.unchanged) == (12, 1, 0)
    assert len(report.skipped) == 2
    assert "worse.mp3" in (out / "skipped.jsonl").read_text()
    check_whole(out, music)
    assert run(out, music).unchanged == 13
    # A file that moved is of a known content; one that changed is new.
    (music / "00.mp3").rename(music / "moved.mp3")
    (music / "02.mp3").write_bytes(b"something else")
    report = run(out, music)
    assert (report.embedded, report.same, report.unchanged) == (1, 1, 11)
    rows = {Path(row.path).name: row for row in read_rows(out)}
    assert rows["moved.mp3"].start == rows["copy.mp3"].start
    fresh = FakeEmbedder().embed_song(music / "02.mp3").clip_emb
    assert np.array_equal(read_clips(out, rows["02.mp3"]), fresh)


def test_a_content_that_is_on_its_way_is_not_embedded_again(tmp_path: Path, music: Path) -> None:
    (music / "copy.mp3").write_bytes((music / "00.mp3").read_bytes())
    asked = []

    class LookingAhead:
        def embed(self, items: Any, path_of: Callable[[Any], Path | None]) -> Iterator[Any]:
            plans = list(items)  # all of them before the first is done
            asked.extend(path_of(plan) for plan in plans)
            yield from OneByOne(FakeEmbedder()).embed(plans, path_of)

    report = run(tmp_path / "out", music, LookingAhead())
    assert (report.embedded, report.same) == (12, 1)
    assert sum(path is not None for path in asked) == 12
    check_whole(tmp_path / "out", music)


@dataclass
class Stopping:
    """Stages that stop as Ctrl-C does, after some files."""

    after: int

    def embed(self, items: Iterable[Any], path_of: Callable[[Any], Path | None]) -> Iterator[Any]:
        for number, pair in enumerate(OneByOne(FakeEmbedder()).embed(items, path_of)):
            if number == self.after:
                raise KeyboardInterrupt
            yield pair


def test_what_is_finished_is_written_when_stopped(tmp_path: Path, music: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", music, Stopping(5))
    assert len(read_rows(tmp_path / "out")) == 5
    assert run(tmp_path / "out", music).embedded == 7
    check_whole(tmp_path / "out", music)


def test_killed_again_and_again_nothing_is_lost_or_repeated(tmp_path: Path, monkeypatch) -> None:
    music, out = tmp_path / "music", tmp_path / "out"
    music.mkdir()
    for i in range(300):
        (music / f"{i:03d}.mp3").write_bytes(b"song %d" % (i // 2))  # every content twice
    monkeypatch.setattr("retrieval.pipeline.run.SHARD_SONGS", 5)
    rng, killed, kept = random.Random(0), 0, 0
    for _ in range(40):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                run(out, music)
                status = 0
            finally:
                os._exit(status)
        time.sleep(rng.uniform(0.005, 0.1))
        os.kill(child, signal.SIGKILL)
        killed += os.waitpid(child, 0)[1] == signal.SIGKILL
        if (out / "run.json").exists():
            assert len(read_rows(out)) >= kept
            kept = len(read_rows(out))
    assert killed > 3
    run(out, music)
    check_whole(out, music)
    assert len({row.sha256 for row in read_rows(out)}) == 150


def test_damage_and_other_settings_are_refused(tmp_path: Path, music: Path) -> None:
    out = tmp_path / "out"
    run(out, music)
    with pytest.raises(EmbeddingsError, match="precision 'float32', got 'bfloat16'"):
        ShardWriter(out, {**FACTS, "precision": "bfloat16"})
    writer = ShardWriter(out, FACTS)
    with pytest.raises(EmbeddingsError, match="another process"):
        ShardWriter(out, FACTS)
    writer.close()
    shard = out / "clips-000000.safetensors"
    good = shard.read_bytes()
    shard.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(EmbeddingsError, match="checksum"):
        verify(out)
    shard.unlink()
    with pytest.raises(EmbeddingsError, match="missing"):
        verify(out)
    (out / "index-000000.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(EmbeddingsError, match="line 1"):
        read_rows(out)
    with pytest.raises(EmbeddingsError, match=r"run\.json"):
        read_rows(music)


def test_command_line(tmp_path: Path, model: LongplayModel, monkeypatch, capsys) -> None:
    monkeypatch.setattr("retrieval.checkpoint.load_model", lambda path, device: model)
    songs, out = tmp_path / "songs", tmp_path / "out"
    paths = some_songs(songs)
    assert main([str(songs), str(out)]) == 1
    printed = capsys.readouterr()
    assert "5 songs embedded" in printed.out
    assert "e.mp3: NotAudioError" in printed.out
    assert printed.err == ""  # no bar where there is no terminal
    rows = {row.path: row for row in read_rows(out)}
    for path in paths[:4]:
        assert np.array_equal(read_clips(out, rows[str(path)]), model.embed_song(path).clip_emb)
    line = json.loads((out / "index-000000.jsonl").read_text().splitlines()[0])
    assert line["model"] == model.digest
    assert main([str(songs), str(out), "--precision", "bfloat16"]) == 2
    assert "precision" in capsys.readouterr().err
    (songs / "e.mp3").unlink()
    assert main([str(songs), str(out)]) == 0
    assert "0 songs embedded, 0 of a known content, 5 there already" in capsys.readouterr().out
    assert main([str(songs), str(out), "--workers", "-1"]) == 2


# -- a library ------------------------------------------------------------------------------


class WithoutStages:
    """The same model, which the library can only ask song by song."""

    def __init__(self, model: LongplayModel):
        self._model = model
        self.dim, self.tau, self.clip_s = model.dim, model.tau, model.clip_s
        self.digest = model.digest

    def embed_song(self, path: str | Path) -> SongEmbedding:
        return self._model.embed_song(path)


def test_a_library_is_the_same_with_and_without_the_pipeline(
    tmp_path: Path, model: LongplayModel
) -> None:
    songs = tmp_path / "songs"
    paths = some_songs(songs)
    shutil.copy(paths[2], songs / "copy.wav")  # of a song that is still on its way
    libraries = []
    for name, made in (("fast", model), ("slow", WithoutStages(model))):
        library = Library.create(tmp_path / name, made)  # type: ignore[arg-type]
        seen: list[tuple[str, int, int]] = []
        report = library.add([songs], lambda *told, seen=seen: seen.append(told))
        libraries.append((report, seen, [library.song(song.id) for song in library.songs()]))
    (report, seen, fast), (expected, told, slow) = libraries
    assert report == expected
    assert seen == told
    assert [p.rsplit("/", 1)[1] for p in report.duplicates] == ["copy.wav"]
    for ours, theirs in zip(fast, slow, strict=True):
        assert ours.record.path == theirs.record.path
        assert np.array_equal(ours.clip_emb, theirs.clip_emb)


def test_a_file_that_takes_the_place_of_another(tmp_path: Path, model: LongplayModel) -> None:
    songs = tmp_path / "songs"
    songs.mkdir()
    first, second = songs / "1.wav", songs / "2.wav"
    write_good_file(first, 3.0, seed=1)
    library = Library.create(tmp_path / "m.lp", model)
    library.add([songs])
    first.rename(second)  # its old content is known only until the new file 1 replaces it
    write_good_file(first, 4.0, seed=2)
    report = library.add([songs])
    assert (report.replaced, report.added) == ([str(first)], [str(second)])
    assert len(library) == 2
