"""What a long caption says of the whole song."""

from __future__ import annotations

import random

from retrieval.data.corpus.captions import words as w
from retrieval.data.corpus.captions.grammar import join, say, sentence, the, verb
from retrieval.data.corpus.facts import SectionFacts, SongFacts

#: Detail of songs with so many sections that each gets a few words only.
TERSE, TERSER = -1, -2
_FIRST = (
    "{This is <style>, <tempo> and <key>|<style> <key>, <tempo>|We hear <style> <tempo>, <key>"
    "|The track is <style>, played <tempo> <key>|Here is <style> <key>, played <tempo>"
    "|The song is <style> <key> that moves <tempo>|A listener hears <style> <tempo>, <key>"
    "|What we have here is <style> <key>, <tempo>|<style>, <tempo>, set <key>}"
)
_KEYLESS = (
    "{This is <style>, <tempo>|<style> <tempo>|We hear <style> <tempo>|Here is <style> <tempo>}"
)


def tell_whole(facts: SongFacts, rng: random.Random, detail: int) -> str:
    """Style, tempo, key, players, and with more detail metre, sound, course and form."""
    style = w.style_phrase(facts, rng)
    tempo = w.tempo_phrase(facts.bpm, rng) if facts.bpm else "at a free pace"
    key = w.key_phrase(facts.key, rng) if facts.key else ""
    first = say(rng, _FIRST if key else _KEYLESS, style=style, tempo=tempo, key=key)
    who = join(facts.instruments)
    scoring = say(
        rng,
        "{It is scored for <who>|The instruments are <who>|The sound is made of <who>"
        "|<who> make up the arrangement|In the arrangement there are <who>}"
        if len(facts.instruments) > 1
        else "{It is played by <who> alone|<who> is all there is|The only sound is <who>}",
        who=who,
    )
    sentences = [first, scoring]
    if detail < 0:
        sentences.append(_arc(facts, rng))
        sentences += [_form(facts, rng)] * (detail == TERSE)
        return " ".join(sentence(s) for s in sentences)
    if facts.metre and (facts.metre != "4/4" or rng.random() < 0.4):
        metre = rng.choice(w.METRES.get(facts.metre, (f"in {facts.metre}",)))
        sentences.append(say(rng, "{The music moves|It is|The beat is felt} <m>", m=metre))
    if facts.sound:
        sentences.append(rng.choice(w.SOUNDS[rng.choice(facts.sound)]))
    if not facts.steady and detail:
        sentences.append(say(rng, "{The tempo is not the same throughout|The tempo changes}"))
    if detail > 1 or rng.random() < 0.5:
        sentences.append(_arc(facts, rng))
    if detail > 2:
        sentences.append(_form(facts, rng))
    if detail > 3:
        sentences += _presence(facts, rng)
    return " ".join(sentence(s) for s in sentences)


def _arc(facts: SongFacts, rng: random.Random) -> str:
    """The shape of the whole: where it is loudest and softest."""
    loudest = max(facts.sections, key=lambda s: s.loudness_db)
    softest = min(facts.sections, key=lambda s: s.loudness_db)
    return say(
        rng,
        "{It lasts <len> and is loudest <loud>, quietest <soft>"
        "|Over <len> the energy peaks <loud> and is lowest <soft>"
        "|In its <len> the strongest moment comes <loud> and the softest <soft>}",
        len=f"{w.minutes(facts.duration_s)} minutes",
        loud=_place(loudest, facts), soft=_place(softest, facts),
    )  # fmt: skip


def _form(facts: SongFacts, rng: random.Random) -> str:
    """The order of the sections, by name or by how many there are."""
    names = [s.function for s in facts.sections]
    if not all(names):
        return say(rng, "{There are <n> sections|It falls into <n> sections|It has <n> parts}",
                   n=str(len(names)))  # fmt: skip
    return say(rng, "{The form is <f>|In order, the sections are <f>|It goes from <f>}",
               f=join(names))  # fmt: skip


def _presence(facts: SongFacts, rng: random.Random) -> list[str]:
    """For each instrument, whether it plays throughout or in how many sections."""
    sentences = []
    for name in facts.instruments:
        count = sum(name in s.instruments for s in facts.sections)
        here = {"who": the([name]), "play": verb([name], "play"), "be": verb([name], "be")}
        if count == len(facts.sections):
            sentences.append(say(rng, "{<who> <play> throughout|<who> <be> always there}", **here))
        else:
            part = f"{count} of the {len(facts.sections)} sections"
            sentences.append(
                say(rng, "{<who> <play> in <n>|<who> <be> heard in <n>}", n=part, **here)
            )
    return sentences


def _place(section: SectionFacts, facts: SongFacts) -> str:
    middle = (section.start_s + section.end_s) / 2 / facts.duration_s
    for limit, words in ((0.2, "near the start"), (0.42, "in the first half"),
                         (0.58, "around the middle"), (0.8, "in the second half")):  # fmt: skip
        if middle < limit:
            return words
    return "near the end"
