"""Readers of published sets, on small files that imitate their layouts."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from retrieval.data.convert import main
from retrieval.data.corpus.render.files import write_sound
from retrieval.data.manifest import Song, read_manifest
from retrieval.data.readers import READERS
from retrieval.data.readers.musiccaps import literal_list
from retrieval.data.readers.tables import AudioFiles
from retrieval.data.readers.timed import read_labels, timed_text
from retrieval.errors import ManifestError


def sound(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"not decoded by a reader")
    return path


def table(path: Path, header: str, *rows: tuple[str, ...], delimiter: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, delimiter=delimiter)
        writer.writerow(header.split(","))
        writer.writerows(rows)


def read(name: str, folder: Path, audio: Path | None = None) -> dict[str, Song]:
    songs = READERS[name].read(folder, audio or folder)
    return {song.id: song for song in songs}


def test_musiccaps(tmp_path: Path) -> None:
    header = "ytid,start_s,end_s,audioset_positive_labels,aspect_list,caption,author_id,"
    table(
        tmp_path / "musiccaps-public.csv", header + "is_balanced_subset,is_audioset_eval",
        ("-0Gj8-vB1q4", "30", "40", "/m/1", "['sad', 'piano']", "A piano.", "4", "False", "True"),
        ("abc_DEF-123", "0", "10", "/m/1", "['loud']", 'A "hello",\nloud.', "4", "True", "False"),
        ("missing1234", "0", "10", "/m/1", "[]", "Has no audio.", "4", "True", "False"),
    )  # fmt: skip
    for name in ("-0Gj8-vB1q4.wav", "[abc_DEF-123]-[0-10].mp3", "stranger.wav"):
        sound(tmp_path / "wav" / name)
    songs = read("musiccaps", tmp_path, tmp_path / "wav")
    assert {k: s.split for k, s in songs.items()} == {"-0Gj8-vB1q4": "test", "abc_DEF-123": "train"}
    first, second = songs.values()
    assert first.captions[0].kind == "human"
    assert first.tags == ("sad", "piano")
    assert (first.meta["balanced"], second.meta["balanced"]) == (False, True)


def test_lp_musiccaps(tmp_path: Path) -> None:
    texts = "caption_writing,caption_summary,caption_paraphrase,caption_attribute_prediction"
    table(
        tmp_path / "LP-MusicCaps-MC.csv",
        f"ytid,aspect_list,is_audioset_eval,caption_ground_truth,{texts}",
        ("aaaaaaaaaaa", "['x']", "True", "People wrote this.", "W.", "S.", "W.", "Never taken."),
    )
    table(
        tmp_path / "LP-MusicCaps-MTT-valid.csv", f"track_id,title,{texts},tag_top50",
        ("77", "Song", "Written.", "Summed.", "Said again.", "Never taken.", "['flute']"),
    )  # fmt: skip
    sound(tmp_path / "aaaaaaaaaaa.mp3")
    sound(tmp_path / "77.mp3")
    songs = read("lp-musiccaps", tmp_path)
    assert [c.text for c in songs["aaaaaaaaaaa"].captions] == ["People wrote this.", "W.", "S."]
    assert [c.kind for c in songs["aaaaaaaaaaa"].captions] == ["human", "generated", "generated"]
    assert (songs["aaaaaaaaaaa"].split, songs["77"].split) == ("test", "val")
    assert songs["77"].tags == ("flute",)


def test_song_describer(tmp_path: Path) -> None:
    table(
        tmp_path / "song_describer.csv",
        "caption_id,track_id,caption,is_valid_subset,familiarity,artist_id,album_id,path,duration",
        ("1", "1004034", "Electronic, steady.", "True", "0", "1", "1", "34/1004034.mp3", "202.5"),
        ("2", "1004034", "Not checked.", "False", "0", "1", "1", "34/1004034.mp3", "202.5"),
        ("3", "1007274", "Only in the full set.", "False", "1", "1", "1", "74/1007274.mp3", "140"),
        ("4", "5", "Path tricks.", "True", "1", "1", "1", "../../outside.mp3", "140"),
    )
    for name in ("34/1004034.2min.mp3", "74/1007274.2min.mp3"):
        sound(tmp_path / "audio" / name)
    sound(tmp_path.parent / "outside.mp3")
    full = read("song-describer", tmp_path, tmp_path / "audio")
    assert {k: len(s.captions) for k, s in full.items()} == {
        "jamendo-1004034": 2, "jamendo-1007274": 1,
    }  # fmt: skip
    assert {s.split for s in full.values()} == {"test"}
    assert [s.meta["valid"] for s in full.values()] == [True, False]
    valid = read("song-describer-valid", tmp_path, tmp_path / "audio")
    assert [c.text for c in valid["jamendo-1004034"].captions] == ["Electronic, steady."]
    assert len(valid) == 1


def test_jamendo_with_its_split(tmp_path: Path) -> None:
    header = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS"
    rows = {
        "train": "track_0000214\tartist_14\talbum_3\t14/214.mp3\t12\tgenre---punkrock\tgenre---pop",
        "validation": "track_0000215\tartist_9\talbum_1\t15/215.mp3\t151\tinstrument---guitar",
        "test": "track_0000216\tartist_8\talbum_2\t16/216.mp3\t234.9\tmood/theme---happy",
    }
    for split, row in rows.items():
        (tmp_path / f"autotagging-{split}.tsv").write_text(f"{header}\n{row}\n")
    for name in ("14/214.mp3", "15/215.low.mp3", "16/216.mp3"):
        sound(tmp_path / "audio" / name)
    songs = read("jamendo", tmp_path, tmp_path / "audio")
    assert [s.split for s in songs.values()] == ["train", "val", "test"]
    assert [s.captions[0].text for s in songs.values()] == [
        "Punkrock and pop music.",
        "With guitar.",
        "Happy in mood or theme.",
    ]
    assert songs["track_0000214"].tags == ("punkrock", "pop")
    assert songs["track_0000214"].meta["group"] == "artist_14"


def test_futga_times_become_sections(tmp_path: Path) -> None:
    text = (
        "A calm song. [0:00 - 0:27] A piano opens softly. [0:27 - 1:05] Strings join; in 4-4 time "
        "with 2-3 voices. (65 - 80) It fades."
    )
    table(tmp_path / "SongDescriber.csv", "id,caption", ("1004034", text))
    sound(tmp_path / "1004034.2min.mp3")
    (song,) = read("futga", tmp_path).values()
    (caption,) = song.captions
    assert [(s.start_s, s.end_s) for s in caption.sections] == [(0, 27), (27, 65), (65, 80)]
    assert caption.sections[0].text == "A piano opens softly."
    assert all(s.text in caption.text for s in caption.sections)
    assert timed_text("No times, 2 to 3 voices.").sections == ()


def test_harmonix_and_salami_forms_become_text(tmp_path: Path) -> None:
    table(
        tmp_path / "h" / "metadata.csv", "File,Title,Artist,Release,Duration,BPM,Genre",
        ("0001_12step", "12 Step", "Someone", "R", "100", "112", "Hip-Hop"),
    )  # fmt: skip
    (tmp_path / "h" / "segments").mkdir()
    labels = "0.0 intro\n12.5\tverse\n40.25 chorus\n71 end\n"
    (tmp_path / "h" / "segments" / "0001_12step.txt").write_text(labels)
    sound(tmp_path / "h" / "audio" / "0001_12step.mp3")
    song = read("harmonix", tmp_path / "h")["0001_12step"]
    assert song.meta["bpm"] == 112
    assert [s.text for s in song.captions[0].sections] == [
        "It opens with the intro at 0:00.",
        "Then comes the verse at 0:12.",
        "It ends with the chorus at 0:40.",
    ]
    parsed = tmp_path / "s" / "annotations" / "10" / "parsed"
    parsed.mkdir(parents=True)
    for number in (1, 2):
        (parsed / f"textfile{number}_functions.txt").write_text(
            f"0.0\tSilence\n0.5\tIntro\n{9 + number}.0\tVerse\n30\tSilence\n33\tEnd\n"
        )
    sound(tmp_path / "s" / "audio" / "10.mp3")
    song = read("salami", tmp_path / "s", tmp_path / "s" / "audio")["salami-10"]
    assert len(song.captions) == 2
    assert [(s.start_s, s.end_s) for s in song.captions[0].sections] == [(0.5, 10), (10, 30)]


def test_midicaps_finds_what_the_corpus_rendered(tmp_path: Path) -> None:
    rows = [
        {"location": "lmd_full/1/1abc.mid", "caption": "A bright pop song.", "genre": ["pop"],
         "mood": ["happy"], "key": "C major", "tempo": 120, "time_signature": "4/4",
         "instrument_summary": ["Piano"], "test_set": True},
        {"location": "lmd_full/2/2def.mid", "caption": "Dark.", "test_set": False},
    ]  # fmt: skip
    (tmp_path / "train.json").write_text("\n".join(map(json.dumps, rows)))
    sound(tmp_path / "audio" / "lmd_full.1.1abc.mp3")
    sound(tmp_path / "audio" / "2def.mp3")
    songs = read("midicaps", tmp_path, tmp_path / "audio")
    assert [s.split for s in songs.values()] == ["test", "train"]
    assert songs["midicaps-1abc"].tags == ("pop", "happy", "Piano")
    assert songs["midicaps-1abc"].meta["tempo"] == 120


def test_audioset(tmp_path: Path) -> None:
    table(
        tmp_path / "class_labels_indices.csv", "index,mid,display_name",
        ("0", "/m/04szw", "Musical instrument"), ("1", "/m/05r5c", "Piano"),
    )  # fmt: skip
    head = "# Segments csv\n# num_ytids=1\n# YTID, start_seconds, end_seconds, positive_labels\n"
    (tmp_path / "eval_segments.csv").write_text(
        head + '--4gqARaEJE, 0.000, 10.000, "/m/04szw,/m/05r5c,/m/unknown"\n'
    )
    (tmp_path / "balanced_train_segments.csv").write_text(
        head + '#-xyz567890, 20.0, 30.0, "/m/05r5c"\nABCDEFGHIJK, 5.0, 15.0, "/m/05r5c"\n'
    )
    for name in ("--4gqARaEJE_0.wav", "ABCDEFGHIJK.wav"):
        sound(tmp_path / name)
    songs = read("audioset", tmp_path)
    assert {k: s.split for k, s in songs.items()} == {"--4gqARaEJE": "test", "ABCDEFGHIJK": "train"}
    assert songs["--4gqARaEJE"].captions[0].text == "Musical instrument and piano."


def test_a_plain_folder(tmp_path: Path) -> None:
    import mutagen

    tone = (0.1 * np.sin(np.arange(24_000) * 0.1)).astype(np.float32)
    for name in ("tagged.mp3", "deep/text.flac", "both.mp3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_sound(tone, tmp_path / name, 24_000, 64)
    file = mutagen.File(tmp_path / "tagged.mp3", easy=True)
    file["title"], file["artist"], file["genre"] = "Dawn", "Somebody", "Ambient"
    file.save()
    (tmp_path / "deep" / "text.txt").write_text("A long description.\n")
    (tmp_path / "both.json").write_text(
        json.dumps({"caption": "From JSON.", "tags": ["loud"], "split": "test", "title": "B"})
    )
    songs = {s.title: s for s in READERS["folder"].read(tmp_path, tmp_path)}
    assert songs["Dawn"].captions[0].text == "Ambient music."
    assert songs["Dawn"].captions[0].kind == "generated"
    assert songs["Dawn"].meta == {"artist": "Somebody", "genre": "Ambient"}
    assert songs["text"].captions[0].text == "A long description."
    assert songs["text"].captions[0].kind == "human"
    assert (songs["B"].captions[0].text, songs["B"].tags, songs["B"].split) == (
        "From JSON.", ("loud",), "test",
    )  # fmt: skip
    (tmp_path / "both.json").write_text('{"mood": "happy"}')
    with pytest.raises(ManifestError, match=r"both.json: unknown field 'mood'"):
        READERS["folder"].read(tmp_path, tmp_path)


def test_broken_tables_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"none of musiccaps-public.csv"):
        read("musiccaps", tmp_path)
    table(tmp_path / "musiccaps.csv", "ytid,caption", ("a", "b"))
    with pytest.raises(ManifestError, match="lacks the column 'aspect_list'"):
        read("musiccaps", tmp_path)
    (tmp_path / "train.json").write_text('{"location": "x"}')
    with pytest.raises(ManifestError, match="line 1: lacks caption"):
        read("midicaps", tmp_path)
    (tmp_path / "labels.txt").write_text("zero intro\n")
    with pytest.raises(ManifestError, match="expected lines of seconds and label"):
        read_labels(tmp_path / "labels.txt")
    with pytest.raises(ManifestError, match="is no folder"):
        read("folder", tmp_path / "none")


def test_lists_in_tables_are_never_code() -> None:
    assert literal_list("['a', 'b', 'a']") == ("a", "b")
    for text in ("__import__('os').getpid()", "[" * 5000, "[__import__('os')]", "{}", ""):
        assert literal_list(text) == ()


def test_audio_outside_the_folder_is_not_found(tmp_path: Path) -> None:
    sound(tmp_path / "secret.mp3")
    sound(tmp_path / "in" / "a.mp3")
    files = AudioFiles(tmp_path / "in")
    assert files.at("a.mp3") is not None
    assert files.at("../secret.mp3") is None
    assert files.at(str(tmp_path / "secret.mp3")) is None


def test_the_command_writes_a_manifest_and_says_what_is_missing(tmp_path: Path, capsys) -> None:
    table(
        tmp_path / "musiccaps.csv", "ytid,caption,aspect_list,is_audioset_eval,is_balanced_subset",
        ("aaaaaaaaaaa", "Loud.", "[]", "True", "False"),
    )  # fmt: skip
    out = tmp_path / "m.jsonl"
    assert main(["musiccaps", str(tmp_path), str(out)]) == 2
    assert "no song of the set has its audio" in capsys.readouterr().err
    sound(tmp_path / "aaaaaaaaaaa.wav")
    assert main(["musiccaps", str(tmp_path), str(out)]) == 0
    assert read_manifest(out)[0].split == "test"
    assert "1 songs with 1 captions, 1 test" in capsys.readouterr().out


def test_musiccaps_as_published(shared_data: Path, tmp_path: Path) -> None:
    """The real table; a few clips are given audio."""
    names = ("-0Gj8-vB1q4", "-0SdAVK79lg", "-1UWSisR2zo")
    for name in names:
        sound(tmp_path / f"{name}.wav")
    songs = READERS["musiccaps"].read(shared_data / "text", tmp_path)
    assert {s.id for s in songs} == set(names)
