"""Paraphrasing: what is kept, what is refused, and both kinds of model."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from retrieval.data.corpus.captions.make import make_texts
from retrieval.data.corpus.compose.plan import make_plan
from retrieval.data.corpus.compose.write import compose
from retrieval.data.corpus.facts import read_facts
from retrieval.data.corpus.paraphrase.__main__ import main
from retrieval.data.corpus.paraphrase.captions import Paraphraser
from retrieval.data.corpus.paraphrase.check import find_lost_facts
from retrieval.data.corpus.paraphrase.writers import LocalModel
from retrieval.data.manifest import Caption, Song, read_manifest, write_manifest
from retrieval.errors import ConfigError

TEXT = (
    "The piano opens at 92 BPM in A minor; strings join at 1:05, louder. The chords are Am7 and F."
)


@pytest.mark.parametrize(
    ("paraphrase", "lost"),
    [
        ("At 92 BPM a piano begins in A minor, strings enter at 1:05 louder, over Am7 and F.", []),
        ("At 95 BPM a piano begins in A minor, strings enter at 1:05 louder, over Am7 and F.",
         ["numbers"]),
        ("At 92 BPM strings begin in A minor, a piano enters at 1:05 louder, over Am7 and F.",
         ["instruments or their order"]),
        ("At 92 BPM a piano begins in A minor, a cello enters at 1:05 louder, over Am7 and F.",
         ["instruments or their order"]),
        ("At 92 BPM a piano begins in A major, strings enter at 1:05 louder, over Am7 and F.",
         ["keys"]),
        ("At 92 BPM a piano begins in A minor, strings enter at 1:05 louder, over Dm7 and F.",
         ["chords"]),
        ("At 92 BPM a piano begins in A minor, strings enter at 1:05 softer, over Am7 and F.",
         ["louder or softer, faster, higher or lower"]),
    ],
)  # fmt: skip
def test_a_changed_fact_is_found(paraphrase: str, lost: list[str]) -> None:
    assert find_lost_facts(TEXT, paraphrase) == lost
    assert find_lost_facts(TEXT, TEXT) == []


def test_who_enters_does_not_leave() -> None:
    text = "In the chorus the strings drop out, leaving piano."
    assert find_lost_facts(text, "The strings fall silent in the chorus and piano is left.") == []
    assert find_lost_facts(text, "In the chorus the strings come in on top of the piano.") == [
        "who enters or leaves"
    ]


class Echo:
    """Changes a word that carries no fact; for some texts a number as well."""

    def write(self, text: str, attempt: int) -> str:
        other = f"Well: {text}"
        return other.replace("BPM", "BPM or 77") if attempt == 0 else f'"{other}"'


def corpus(folder: Path) -> Path:
    texts = make_texts(read_facts(compose(make_plan(3), "x")), "x")
    captions = (*texts.fixed, texts.shorts[0], Caption("People wrote this."))
    write_manifest([Song("x", folder / "x.mp3", captions)], folder / "m.jsonl")
    return folder / "m.jsonl"


def test_sections_keep_their_order_and_times(tmp_path: Path) -> None:
    (song,) = read_manifest(corpus(tmp_path))
    paraphraser = Paraphraser(Echo())
    long, timed, short, human = (paraphraser.caption(c) for c in song.captions)
    before = song.captions[0]
    assert [(s.start_s, s.end_s) for s in long.sections] == [
        (s.start_s, s.end_s) for s in before.sections
    ]
    rest = long.text
    for section, old in zip(long.sections, before.sections, strict=True):
        assert section.text == f"Well: {old.text}"
        rest = rest.split(section.text, 1)[1]
    assert long.negatives == ()
    assert short.text.startswith("Well: ")
    assert timed == song.captions[1]
    assert human == song.captions[3]
    assert (paraphraser.kept, paraphraser.changed) == (0, len(long.sections) + 2)


def test_a_text_whose_facts_are_lost_stays_as_it_is() -> None:
    class Liar:
        def write(self, text: str, attempt: int) -> str:
            return "A harp plays 5 notes."

    paraphraser = Paraphraser(Liar(), attempts=2)
    assert paraphraser.say(TEXT) == TEXT
    assert paraphraser.kept == 1


@pytest.fixture
def server():
    asked: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            row = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append({"path": self.path, "auth": self.headers["Authorization"], **row})
            text = row["messages"][0]["content"].split("\n\n", 1)[1]
            answer = {"choices": [{"message": {"content": f"Well: {text}"}}]}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *args: object) -> None:
            pass

    http = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}/v1", asked
    http.shutdown()
    thread.join()
    http.server_close()


def test_an_endpoint_is_asked_once_a_text(
    server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    url, asked = server
    monkeypatch.setenv("LONGPLAY_API_KEY", "secret")
    manifest, out = corpus(tmp_path), tmp_path / "out.jsonl"
    arguments = [str(manifest), str(out), "--endpoint", url, "--name", "m"]
    assert main(arguments) == 0
    assert asked[0]["path"] == "/v1/chat/completions"
    assert (asked[0]["auth"], asked[0]["model"]) == ("Bearer secret", "m")
    assert read_manifest(out)[0].captions[0].text.startswith("Well: ")
    count = len(asked)
    with (tmp_path / "out.paraphrases.jsonl").open("a") as log:
        log.write('{"text": "cut')  # a killed run
    assert main(arguments) == 0
    assert len(asked) == count  # an earlier run's answers are used
    assert "in other words" in capsys.readouterr().out
    assert main([str(manifest), str(out), "--endpoint", "ftp://x"]) == 2
    assert main([str(manifest), str(out)]) == 2
    assert "expected one of the two" in capsys.readouterr().err


def test_a_local_model_answers_the_same_each_time(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    words = {w: i for i, w in enumerate(["<unk>", "<end>", "piano", "strings", "the", "again"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>")
    fast.save_pretrained(tmp_path)
    config = GPT2Config(vocab_size=6, n_positions=256, n_embd=16, n_layer=1, n_head=2,
                        bos_token_id=1, eos_token_id=1)  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    model = LocalModel(str(tmp_path), max_new_tokens=12)
    answers = [model.write("the piano", attempt) for attempt in (0, 0, 1, 2, 3)]
    assert answers[0] == answers[1]
    assert len(set(answers)) > 1
    with pytest.raises(ConfigError, match="cannot be loaded"):
        LocalModel(str(tmp_path / "none"))
