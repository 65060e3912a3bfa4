from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from tiny import make_net, write_songs

import evaluate
import train
from retrieval.audio import load_audio
from retrieval.checkpoint import save_checkpoint
from retrieval.data.cache import CachedSong, FeatureCache
from retrieval.data.manifest import TWIN, Caption, Negative, Section, read_manifest, write_manifest
from retrieval.errors import ConfigError, ManifestError
from retrieval.evaluation import Pool, evaluate_pools, evaluate_scores, share
from retrieval.fusion import peak_span
from retrieval.inference import LongplayModel
from retrieval.report import Table, print_tables
from retrieval.scoring import embed_texts, encode_songs, score_matrix, score_own
from retrieval.suites import SUITES, Settings, Task
from retrieval.suites.common import clusters, relevance_of, spread, texts_of
from retrieval.suites.length import first_words
from retrieval.suites.moments import inside, overlap, pure_passages
from retrieval.suites.order import _twins
from retrieval.suites.robustness import CHANGES, changed_clips, low_passed

CONF = str(Path(train.__file__).parent / "conf")
FALSE = Negative("A guitar opening. It ends soft.", "instrument")
SWAPPED = Negative("It ends loud. A piano opening.", "swap")


def told_songs(folder: Path, count: int = 6) -> Path:
    """Tiny songs whose first caption has sections and false versions."""
    manifest = write_songs(folder, count, seconds=6.0)
    songs = []
    for song in read_manifest(manifest):
        told = song.captions[0]
        sections = (Section(0.0, 3.0, told.text),)
        first = replace(told, sections=sections, negatives=(FALSE, SWAPPED), form="long")
        songs.append(replace(song, captions=(first, *song.captions[1:])))
    write_manifest(songs, manifest)
    return manifest


@pytest.fixture
def task(tmp_path: Path, tower: Path) -> Task:
    net = make_net(tower)
    cache = FeatureCache(tmp_path / "cache", net)
    songs = [cache.get(song) for song in read_manifest(told_songs(tmp_path))]
    return Task(LongplayModel(net, "0" * 64), songs)


@pytest.mark.parametrize("suite", list(SUITES))
def test_every_suite_is_one_command(suite: str, tmp_path: Path, tower: Path) -> None:
    manifest = told_songs(tmp_path)
    checkpoint = save_checkpoint(make_net(tower), tmp_path / "c", {}, "")
    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = compose(
            "evaluate",
            [
                f"suite={suite}",
                f"checkpoint={checkpoint}",
                f"data.manifest=[{manifest},{manifest}]",
                f"paths.cache={tmp_path / 'cache'}",
                f"out={tmp_path / 'out'}",
                "split=all",
                "captions=long",
                "bootstrap=20",
                "songs=4",
            ],
        )
    out = evaluate.run(cfg)
    data = json.loads((out / f"{suite}.json").read_text())
    assert data["context"]["songs"] == [6, 6]
    assert data["results"]
    cfg.checkpoint = [str(checkpoint)] * 3
    with pytest.raises(ConfigError, match="folds"):
        evaluate.run(cfg)
    cfg.suite = "speed"
    with pytest.raises(ConfigError, match="robustness"):
        evaluate.run(cfg)


def test_scores_in_blocks_equal_scores_alone(task: Task) -> None:
    texts = embed_texts(task.model, ["A piano. Drums.", "slow", "A piano. Drums."])
    clips = list(encode_songs(task.model, task.songs)) * 6  # more than one block
    matrix = score_matrix(texts, clips, task.model.tau)
    assert matrix.shape == (3, 36)
    assert np.allclose(matrix[:, :6], matrix[:, 30:], atol=1e-6)
    own = score_own(texts, [1, 35, 0], clips, task.model.tau)
    assert np.allclose(own, [matrix[0, 1], matrix[1, 35], matrix[2, 0]], atol=1e-6)


def test_folds_are_ranked_in_their_own_pools() -> None:
    a = Pool(np.array([[0.9, 0.1], [0.8, 0.7]]), np.array([0, 1]))
    b = Pool(np.array([[0.1, 0.2, 0.3]]), np.array([0]))
    result = evaluate_pools([a, b], ks=(1, 2), n_bootstrap=0)["text_to_music"]
    assert result["queries"] == 3
    assert result["recall@1"]["value"] == pytest.approx(1 / 3)
    assert result["recall@2"]["value"] == pytest.approx(2 / 3)
    assert result["chance"]["recall@1"] == pytest.approx((1 / 2 + 1 / 2 + 1 / 3) / 3)
    rng = np.random.default_rng(0)
    scores, owner = rng.normal(size=(9, 5)), rng.integers(0, 5, 9)
    alone = evaluate_scores(scores, owner, seed=3)
    assert alone == evaluate_pools([Pool(scores, owner)], seed=3)


def test_the_first_songs_of_two_folds_are_two_songs() -> None:
    found = Pool(np.array([[0.9, 0.1]]), np.array([0]))
    missed = Pool(np.array([[0.1, 0.9]]), np.array([0]))
    result = evaluate_pools([found, missed], ks=(1,), n_bootstrap=200)["text_to_music"]
    assert result["recall@1"] == {"value": 0.5, "low": 0.0, "high": 1.0}


def test_shares_draw_songs_and_not_texts() -> None:
    values = np.repeat([1.0, 0.0], 50)
    two_songs = share(values, np.repeat([0, 1], 50), 500)
    assert two_songs == {"value": 0.5, "low": 0.0, "high": 1.0}
    many = share(values, np.arange(100), 500)
    assert many["low"] is not None
    assert many["low"] > 0.35
    assert clusters([[0, 1, 1], [0, 2]]).tolist() == [0, 1, 1, 2, 4]


def test_joined_texts_hold_all_that_is_said(task: Task) -> None:
    joined = texts_of(task.songs, "joined")
    assert len(joined) == 6
    for text in joined:
        assert all(c.text in text.caption.text for c in task.songs[text.song].song.captions)
    assert relevance_of(joined, task.songs, "joined").sum() == 6
    long = texts_of(task.songs, "long")  # two of the six tell the same words
    assert relevance_of(long, task.songs, "long").sum(axis=1).max() > 1
    with pytest.raises(ManifestError, match="query"):
        texts_of(task.songs, "query")
    with pytest.raises(ConfigError, match="joined"):
        Settings("poem")
    assert [s.song.id for s in spread(task.songs, 3)] == ["s0", "s2", "s5"]


def test_the_right_order_wins_where_the_model_hears_it(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = {c.text for s in task.songs for c in s.song.captions}
    asked: list[str] = []
    embed = task.model.embed_text
    monkeypatch.setattr(task.model, "embed_text", lambda t: asked.append(t) or embed(t))

    owners = []

    def own(texts: object, owner: list[int], *rest: object) -> np.ndarray:
        owners.append(owner)
        return np.array([1.0, 0.0] * (len(owner) // 2), np.float32)

    monkeypatch.setattr("retrieval.suites.order.score_own", own)
    figures = SUITES["order"]([task], Settings("long", bootstrap=0)).figures
    assert figures["attention"]["swap"]["value"] == 1
    assert owners[0] == owners[1] == owners[2]
    assert all(a != b for a, b in zip(owners[0], owners[3], strict=True))  # beside another song
    monkeypatch.setattr("retrieval.suites.order.score_own", lambda t, o, *r: np.zeros(len(o)))
    figures = SUITES["order"]([task], Settings("long", bootstrap=0)).figures
    assert figures["attention"]["swap"]["value"] == figures["mean"]["others"]["value"] == 0.5
    assert set(asked) <= truth | {FALSE.text, SWAPPED.text}


def test_a_liking_for_a_text_chooses_between_twins_by_chance(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, *others = task.songs
    twin = replace(second, song=replace(second.song, id=first.song.id + TWIN))
    task = Task(task.model, [*others, twin, first])
    assert _twins(task.songs, "long")[0][0] == (first, twin)
    monkeypatch.setattr("retrieval.suites.order.embed_texts", lambda model, texts, _: texts)
    monkeypatch.setattr(
        "retrieval.suites.order.score_own",
        lambda texts, *rest: np.array([sum(map(ord, text)) for text in texts], np.float32),
    )
    figures = SUITES["order"]([task], Settings("long", bootstrap=0)).figures
    assert figures["attention"]["twin"]["value"] == 0.5


def test_without_places_the_order_of_clips_says_nothing(task: Task) -> None:
    song = task.songs[0]
    place = torch.zeros(len(song.times), 2)
    flipped = song.prepared().flip(0)
    a = task.model.encode_prepared(song.prepared(), song.filled, place, ordered=False).clip_emb
    b = task.model.encode_prepared(flipped, song.filled, place, ordered=False).clip_emb
    assert torch.allclose(a, b.flip(1), atol=1e-5)


def test_shortened_songs_and_texts(task: Task) -> None:
    figures = SUITES["length"]([task], Settings("long", bootstrap=0)).figures
    # All songs are shorter than 10 s, and all texts than 10 words.
    assert len({str(v) for v in figures["audio_s"].values()}) == 1
    assert len({str(v) for v in figures["words"].values()}) == 1
    assert first_words("a  b\nc d", 3) == "a b c"


def test_mass_and_overlap_by_hand() -> None:
    times = np.array([[0.0, 10], [10, 20], [15, 25]])
    weight = np.array([0.5, 0.3, 0.2])
    assert inside(weight, times, 0, 15) == pytest.approx(0.5 + 0.15)
    assert inside(weight, times, 5, 15) == pytest.approx(0.25 + 0.15)
    assert overlap((0, 10), (5, 15)) == pytest.approx(1 / 3)
    assert overlap((0, 10), (20, 30)) == 0
    assert peak_span(weight, times) == (0, 20)
    assert peak_span(np.array([0.1, 0.2, 0.7]), times) == (15, 25)


def test_only_passages_about_one_section_are_asked(tower: Path) -> None:
    net = make_net(tower)
    text = "A slow piano. The drums are loud again. Strings."
    caption = Caption(
        text,
        sections=(Section(0, 10, "A slow piano."), Section(10, 30, "The drums are loud again.")),
    )
    passages = net.split(text)
    found = pure_passages(caption, net.split)
    for p, span in found:
        word = "piano" if span == (0, 10) else "drums"
        assert word in passages[p].text
    mixed = replace(caption, sections=(Section(0, 10, "A slow"), Section(10, 30, "piano. The")))
    assert pure_passages(mixed, net.split) == []


def test_changed_songs_are_still_songs(task: Task) -> None:
    song: CachedSong = task.songs[0]
    heard = changed_clips(task.model, song)
    assert set(heard) == set(CHANGES)
    for name, clips in heard.items():
        assert np.allclose(np.linalg.norm(clips, axis=1), 1, atol=1e-5), name
        assert abs(len(clips) - len(heard["as it is"])) <= 1
    assert not np.allclose(heard["-12 dB"], heard["as it is"])
    samples = load_audio(song.song.audio, 24_000)
    mp3 = CHANGES["MP3 at 64 kbit/s"](samples, 24_000)
    assert abs(len(mp3) - len(samples)) < 24_000 // 10
    power = np.abs(np.fft.rfft(low_passed(samples, 24_000)[4096:12288])) ** 2
    cut = len(power) * 5000 // 12_000
    assert power[cut:].sum() < 1e-2 * power[:cut].sum()


def test_tables_are_whole_where_they_are_piped(capsys: pytest.CaptureFixture[str]) -> None:
    cells = [f"{n}.5 [{n} to {n + 1}, of a hundred]" for n in range(10, 15)]
    print_tables([Table("Scores", ("score", *"abcde"), [("attention by passage", *cells)], "note")])
    printed = capsys.readouterr().out
    assert all(cell in printed for cell in cells)
    assert "…" not in printed
