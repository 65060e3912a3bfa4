"""The long caption: the whole song, then every section in order."""

from __future__ import annotations

import random
from collections.abc import Callable

from retrieval.data.corpus.captions import words as w
from retrieval.data.corpus.captions.grammar import join, say, sentence, the, verb
from retrieval.data.corpus.captions.grammar import words as count_words
from retrieval.data.corpus.facts import SectionFacts, SongFacts
from retrieval.data.corpus.theory import key_name
from retrieval.data.manifest import Caption, Section

MIN_WORDS, MAX_WORDS = 150, 400
#: Detail of songs with so many sections that each gets a few words only.
TERSE, TERSER = -1, -2
_MOST_CHORDS = 8
# Sentences beside the first that a section gets, by detail.
_DETAILS = (1, 2, 3, 4, 6)


def long_caption(facts: SongFacts, seed: str) -> Caption:
    """150 to 400 words; says more of each section where the song has few of them."""
    caption = _write(facts, seed, 1)
    for detail in (2, 3, 4):
        if count_words(caption.text) >= MIN_WORDS:
            break
        caption = _write(facts, seed, detail)
    for detail in (0, TERSE, TERSER):
        if count_words(caption.text) > MAX_WORDS:
            caption = _write(facts, seed, detail)
    return caption


def _write(facts: SongFacts, seed: str, detail: int) -> Caption:
    # Each sentence has its own source of chance, so that one changed fact changes nothing else.
    sentences = [_overall(facts, random.Random(f"{seed} overall"), detail)]
    sections = []
    clock = random.Random(f"{seed} clock").random() < 0.3
    for number, section in enumerate(facts.sections):
        rng = random.Random(f"{seed} section {number}")
        text = _section(facts, number, section, rng, detail, clock)
        sections.append(Section(round(section.start_s, 3), round(section.end_s, 3), text))
        sentences.append(text)
    return Caption(" ".join(sentences), "generated", tuple(sections), "long")


def _overall(facts: SongFacts, rng: random.Random, detail: int) -> str:
    style = w.style_phrase(facts, rng)
    tempo = w.tempo_phrase(facts.bpm, rng) if facts.bpm else ""
    key = w.key_phrase(facts.key, rng) if facts.key else ""
    who = join(facts.instruments)
    first = say(
        rng,
        "{This is <style>, <tempo> and <key>|<style> <key>, <tempo>|We hear <style> <tempo>, <key>"
        "|The track is <style>, played <tempo> <key>|Here is <style> <key>, played <tempo>"
        "|The song is <style> <key> that moves <tempo>|A listener hears <style> <tempo>, <key>"
        "|What we have here is <style> <key>, <tempo>|<style>, <tempo>, set <key>}",
        style=style, tempo=tempo or "at a free pace", key=key or "with an open tonality",
    )  # fmt: skip
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


def _section(
    facts: SongFacts, number: int, section: SectionFacts, rng: random.Random, detail: int,
    clock: bool,
) -> str:  # fmt: skip
    last = number == len(facts.sections) - 1
    event = _opening(section, facts.knows_lead, rng) if number == 0 else _event(section, rng)
    name = _ordinal(section, w.function_name(section, rng), number == 0, last)
    # The same number of draws whatever the facts are: a changed fact changes no other choice.
    level, change = rng.choice(w.LEVELS[section.level]), rng.choice(w.CHANGES[section.change])
    dynamics = change if number and rng.random() < 0.6 else level
    when = f"at {w.minutes(section.start_s)}" if clock and number else ""
    if detail < 0:
        who = join(section.instruments)
        how = section.change or section.level if number else section.level
        return sentence(say(rng, _TERSE, name=name, who=who, how=how))
    templates = _FIRST if number == 0 else _LAST if last else _MIDDLE
    text = say(
        rng, rng.choice(templates), name=name, event=event, how=dynamics,
        when=f" {when}" if when else "",
    )  # fmt: skip
    sentences = [text, *_details(facts, number, section, rng)[: _DETAILS[detail]]]
    return " ".join(sentence(s) for s in sentences)


def _ordinal(section: SectionFacts, name: str, first: bool, last: bool) -> str:
    if not section.function:
        where = "first" if first else "last" if last else "next"
        return f"returning {name}" if section.returns and not last else f"{where} {name}"
    if section.times == 0:
        return name
    return f"{('second', 'third', 'fourth', 'fifth')[min(section.times, 4) - 1]} {name}"


def _opening(section: SectionFacts, knows_lead: bool, rng: random.Random) -> str:
    names = section.instruments
    if len(names) == 1:
        return say(rng, "{<x> alone|only <x>|solo <x>}", x=names[0])
    if section.lead:
        rest = [n for n in names if n != section.lead]
        return say(
            rng, "{<lead> over <rest>|<lead>, accompanied by <rest>|a tune on <lead> with <rest>}",
            lead=section.lead, rest=join(rest),
        )  # fmt: skip
    bare = "<x> without a melody on top" if knows_lead else "<x> all at once"
    return say(rng, "{<x>|<x> together|" + bare + "}", x=join(names))


def _event(section: SectionFacts, rng: random.Random) -> str:
    """Who plays now, told as a change: all players are named, and of the others those that stop."""
    enters, leaves = section.enters, section.leaves
    stays = tuple(n for n in section.instruments if n not in enters)
    if not stays:
        return say(
            rng, "{<new> <take> over|<new> <take> the place of everything before"
            "|now <new> <be> heard}",
            new=the(enters), take=verb(enters, "take"), be=verb(enters, "be"),
        )  # fmt: skip
    slots = {
        "new": join(enters), "the_new": the(enters) if enters else "", "old": join(leaves),
        "the_old": the(leaves) if leaves else "", "rest": join(stays), "the_rest": the(stays),
    }  # fmt: skip
    slots |= {f"old_{v}": verb(leaves, v) if leaves else "" for v in ("drop", "stop", "give")}
    slots |= {f"new_{v}": verb(enters, v) if enters else "" for v in ("join", "come", "replace")}
    slots |= {f"rest_{v}": verb(stays, v) for v in ("be", "remain", "go", "stay", "play")}
    return say(rng, _EVENTS[bool(enters), bool(leaves)], **slots)


_FIRST = (
    "It {opens|begins|starts} with <event>, <how>",
    "The <name> {is for|features} <event>, <how>",
    "{At first|To begin with}, in the <name>, we hear <event>, <how>",
)
_MIDDLE = (
    "{In|For|With} the <name><when>, <event>, <how>",
    "{Then comes|Next comes|After that comes} the <name><when>: <event>, <how>",
    "The <name> {follows|comes next}<when>; <event>, <how>",
    "<event> {in|for} the <name><when>, <how>",
)
_LAST = (
    "{It ends with|It closes with|The song ends on} the <name><when>: <event>, <how>",
    "{At the end|To finish|In the end}<when>, in the <name>, <event>, <how>",
    "The <name> {closes the piece|brings it to an end}<when>; <event>, <how>",
)
_TERSE = "{<name>: <who>, <how>|<name> with <who>, <how>|the <name>, <how>: <who>}"
_EVENTS = {
    (False, False): "{<the_rest> <rest_go> on|<the_rest> <rest_play> on unchanged"
                    "|nothing enters or leaves, and <rest> <rest_stay>}",
    (True, False): "{<the_new> <new_join> <rest>|<the_new> <new_come> in on top of <rest>"
                   "|<the_rest> <rest_be> joined by <new>"
                   "|<the_new> <new_come> in, with <rest> below}",
    (False, True): "{<the_old> <old_drop> out, leaving <rest>|<the_old> <old_stop> and only <rest>"
                   " <rest_remain>|without <old>, <rest> <rest_be> left"
                   "|the texture thins out to <rest>}",
    (True, True): "{<the_old> <old_give> way to <new>, while <rest> <rest_stay>"
                  "|<the_new> <new_replace> <old> next to <rest>"
                  "|<the_old> <old_drop> out and <the_new> <new_come> in, over <rest>}",
}  # fmt: skip


def _details(facts: SongFacts, number: int, section: SectionFacts, rng: random.Random) -> list[str]:
    """What else can be said, the most striking first."""
    before = facts.sections[number - 1] if number else None
    found = [rng.choice(w.MARKS[mark]) for mark in sorted(section.marks) if mark in w.MARKS]
    if before and before.key != section.key and section.key:
        found.append(f"The key changes to {key_name(*section.key)}")
    if before and section.bpm and before.bpm and section.bpm != before.bpm:
        faster = "picks up" if section.bpm > before.bpm else "drops"
        found.append(f"The tempo {faster} to {round(section.bpm)} BPM")
    rest: list[Callable[[], str]] = [
        lambda: _melody(section, number, rng) if facts.knows_lead else "",
        lambda: _harmony(section, rng), lambda: _motion(section, before, rng),
        lambda: _register(section, before, rng), lambda: _manner(facts, section, rng),
    ]  # fmt: skip
    rng.shuffle(rest)
    return found + [text for make in rest if (text := make())]


def _motion(section: SectionFacts, before: SectionFacts | None, rng: random.Random) -> str:
    """How the notes move, where that is new."""
    if not section.motion or (before and before.motion == section.motion):
        return ""
    return rng.choice(w.MOTIONS[section.motion])


def _manner(facts: SongFacts, section: SectionFacts, rng: random.Random) -> str:
    """What one of the accompanying players does."""
    names = [name for name in section.instruments if facts.manners.get(name) in w.MANNERS]
    if not names:
        return ""
    name = rng.choice(names)
    return say(
        rng, "{The <name> <play> <how>|The <name> <keep> up <how>|The <name> <lay> down <how>}",
        name=name, how=rng.choice(w.MANNERS[facts.manners[name]]), play=verb([name], "play"),
        keep=verb([name], "keep"), lay=verb([name], "lay"),
    )  # fmt: skip


def _melody(section: SectionFacts, number: int, rng: random.Random) -> str:
    if not section.lead and not number:
        return ""
    if not section.lead:
        return say(rng, "{There is no lead melody here|No tune is played on top}")
    tune = (
        "{a tune heard earlier|the tune from before|the familiar melody}"
        if section.returns
        else "{the melody|a new tune|the lead line}"
    )
    return say(
        rng, "{The <lead> <play> " + tune + "|The melody is on <lead>}",
        lead=section.lead, play=verb([section.lead], "play"),
    )  # fmt: skip


def _harmony(section: SectionFacts, rng: random.Random) -> str:
    chords = tuple(
        name for i, name in enumerate(section.chords) if not i or section.chords[i - 1] != name
    )
    if not chords:
        return ""
    if len(chords) == 1:
        return say(rng, "{The harmony stays on <c>|It rests on a single chord, <c>}", c=chords[0])
    if len(chords) > _MOST_CHORDS:
        return say(rng, "{The harmony takes a path of <n> chords|It moves through <n> chords}",
                   n=str(len(chords)))  # fmt: skip
    return say(
        rng, "{The chords are <c>|The harmony {circles through|moves through|goes round} <c>"
        "|Underneath, the chords {run|go} <c>}", c=join(chords),
    )  # fmt: skip


def _register(section: SectionFacts, before: SectionFacts | None, rng: random.Random) -> str:
    if not before or not before.pitch or not section.pitch or abs(section.pitch - before.pitch) < 5:
        return ""
    higher = section.pitch > before.pitch
    where = "{higher|in a higher register|further up}" if higher else "{lower|in a lower register}"
    return say(rng, "{The notes lie|Everything sits|The playing is} " + where + " than before")
