"""Short captions, captions in FUTGA's timed form, search queries, and tags."""

from __future__ import annotations

import random

from retrieval.data.corpus.captions import words as w
from retrieval.data.corpus.captions.grammar import join, say, sentence, the, verb, words
from retrieval.data.corpus.facts import SectionFacts, SongFacts, tempo_word
from retrieval.data.corpus.theory import key_name
from retrieval.data.manifest import Caption, Section

SHORT_WORDS = (10, 25)
QUERY_WORDS = (5, 15)
_TRIES, _TRIES_A_QUERY = 40, 3
#: A search, and the section that it is about where it is about one moment.
_Search = tuple[str, SectionFacts | None]


def short_captions(facts: SongFacts, seed: str, count: int) -> list[Caption]:
    """Different captions of 10 to 25 words, the best first; the others are spares."""
    found: dict[str, None] = {}
    for attempt in range(_TRIES):
        text = _short(facts, random.Random(f"{seed} short {attempt}"))
        if SHORT_WORDS[0] <= words(text) <= SHORT_WORDS[1]:
            found[text] = None
        if len(found) == count:
            break
    return [Caption(text, "generated", (), "short") for text in found]


def timed_caption(facts: SongFacts, seed: str) -> Caption:
    """FUTGA's form (arXiv 2407.20445): global text, then every section after its percentages."""
    rng = random.Random(f"{seed} timed")
    tempo = w.tempo_phrase(facts.bpm, rng) if facts.bpm else "at a free pace"
    key = w.key_phrase(facts.key, rng) if facts.key else ""
    text = sentence(say(rng, "{<style> <tempo> <key>|<style> <key>, <tempo>}",
                        style=w.style_phrase(facts, rng), tempo=tempo, key=key))  # fmt: skip
    sections = []
    for number, section in enumerate(facts.sections):
        part = random.Random(f"{seed} timed {number}")
        start, end = (round(100 * s / facts.duration_s) for s in (section.start_s, section.end_s))
        body = sentence(
            say(
                part, "{<name>: <who>, <how>|<name> with <who>, <how>|<name>, <who>, <how>}",
                name=w.function_name(section, part), who=join(section.instruments),
                how=part.choice(w.LEVELS[section.level]),
            )
        )  # fmt: skip
        text += f" {start}-{end} %: {body}"
        sections.append(Section(round(section.start_s, 3), round(section.end_s, 3), body))
    return Caption(text, "generated", tuple(sections), "timed")


def queries(facts: SongFacts, seed: str, count: int) -> list[Caption]:
    """Searches as people type them: some vague, some about the whole, some about one moment.

    Those about a moment have the section in which it comes, so that training knows where.
    """
    found: dict[str, SectionFacts | None] = {}
    makers = (_vague, _moment, _arc, _facts, _moment, _who)
    for attempt in range(max(_TRIES, _TRIES_A_QUERY * count)):
        rng = random.Random(f"{seed} query {attempt}")
        text, section = makers[attempt % len(makers)](facts, rng)
        if QUERY_WORDS[0] <= words(text) <= QUERY_WORDS[1]:
            found.setdefault(text, section)
        if len(found) == count:
            break
    return [
        Caption(text, "generated", _spans(section, text), "query")
        for text, section in found.items()
    ]


def _spans(section: SectionFacts | None, text: str) -> tuple[Section, ...]:
    if section is None:
        return ()
    return (Section(round(section.start_s, 3), round(section.end_s, 3), text),)


def tags(facts: SongFacts) -> tuple[str, ...]:
    """Style, moods, tempo, mode, metre and instruments."""
    found = [facts.style, *facts.moods, tempo_word(facts.bpm) if facts.bpm else ""]
    if facts.key and facts.key[1] in ("major", "minor"):
        found.append(facts.key[1])
    found += [facts.metre, *sorted(facts.instruments), "instrumental"]
    return tuple(dict.fromkeys(tag for tag in found if tag))


def _short(facts: SongFacts, rng: random.Random) -> str:
    style = w.style_phrase(facts, rng)
    tempo = w.tempo_phrase(facts.bpm, rng) if facts.bpm else ""
    key = w.key_phrase(facts.key, rng) if facts.key else ""
    who = join(facts.instruments[: rng.choice((2, 3, 4))])
    event, _ = _moment_clause(facts, rng)
    return sentence(
        say(
            rng,
            "{<style> <tempo> with <who>|<style> <key> with <who>, <tempo>"
            "|<style> with <who>; <event>"
            "|<style> <tempo>; <event>|<who> play <style> <key>; <event>"
            "|<style> <tempo> for <who>, where <event>}",
            style=style, tempo=tempo, key=key, who=who, event=event,
        )
    )  # fmt: skip


def _changed(facts: SongFacts) -> list[SectionFacts]:
    return [s for s in facts.sections[1:] if s.enters or s.leaves]


def _moment_clause(facts: SongFacts, rng: random.Random) -> _Search:
    """One change of who plays, and where in the song it comes."""
    options = _changed(facts)
    if not options:
        always = "{<x> from start to end|always with <x>}"
        return say(rng, always, x=join(facts.instruments[:3])), None
    section = rng.choice(options)
    share = section.start_s / facts.duration_s
    where = "early on" if share < 0.3 else "halfway" if share < 0.6 else "late in the song"
    if section.leaves and (not section.enters or rng.random() < 0.5):
        names = section.leaves[-2:]
        drop = verb(names, "drop")
        text = say(rng, "{<x> <drop> out <where>|<where> <x> <drop> out}", x=the(names), drop=drop,
                   where=where)  # fmt: skip
        return text, section
    names = section.enters[:2]
    come = verb(names, "come")
    text = say(rng, "{<x> <come> in <where>|<where> <x> <come> in}", x=the(names), come=come,
               where=where)  # fmt: skip
    return text, section


def _vague(facts: SongFacts, rng: random.Random) -> _Search:
    mood = rng.choice(facts.moods) if facts.moods else ""
    text = say(
        rng,
        "{something <mood> with <x>|<mood> music with <x>, <tempo>"
        "|<tempo> <style> that feels <mood>"
        "|a <mood> track with some <x>}"
        if mood
        else "{something <tempo> with <x> in it|<tempo> instrumental music with <x>}",
        mood=mood, x=rng.choice(facts.instruments), style=facts.style or "instrumental",
        tempo=tempo_word(facts.bpm) if facts.bpm else "free",
    )  # fmt: skip
    return text, None


def _moment(facts: SongFacts, rng: random.Random) -> _Search:
    clause, section = _moment_clause(facts, rng)
    text = say(rng, "{where <c>|the part where <c>|<style> where <c>|the moment when <c>}",
               c=clause, style=facts.style or "music")  # fmt: skip
    return text, section


def _arc(facts: SongFacts, rng: random.Random) -> _Search:
    first, last = facts.sections[0], facts.sections[-1]
    text = say(
        rng,
        "{starts with <a> and ends with <b>|opens with <a>, <c> at the loudest point"
        "|begins <how> with <a>, closes on <b>|<a> intro then <c>}",
        a=join(first.instruments[:2]), b=join(last.instruments[:2]), how=_how(first),
        c=join(max(facts.sections, key=lambda s: s.loudness_db).instruments[:3]),
    )  # fmt: skip
    return text, None


def _how(section: SectionFacts) -> str:
    return {"loud": "loud", "medium": "moderately loud", "soft": "quietly"}[section.level]


def _facts(facts: SongFacts, rng: random.Random) -> _Search:
    bpm = str(round(facts.bpm)) if facts.bpm else ""
    text = say(
        rng,
        "{<style> <bpm> bpm in <key>|<key> <style> with <x>, <bpm> bpm|<style> in <mode> with <x>}"
        if bpm and facts.key
        else "{<tempo> piece with <x> and <y>|instrumental with <x> and <y>}",
        style=facts.style or "instrumental", bpm=bpm,
        key=key_name(*facts.key) if facts.key else "", mode=facts.key[1] if facts.key else "",
        x=rng.choice(facts.instruments), y=rng.choice(facts.instruments),
        tempo=tempo_word(facts.bpm) if facts.bpm else "free",
    )  # fmt: skip
    return text, None


def _who(facts: SongFacts, rng: random.Random) -> _Search:
    names = list(facts.instruments)
    rng.shuffle(names)
    text = say(rng, "{<style> with <x>|<tempo> <style> with <x>|instrumental <style>, <x>}",
               style=facts.style or "music", x=join(names[:3]),
               tempo=tempo_word(facts.bpm) if facts.bpm else "free")  # fmt: skip
    return text, None
