"""The long caption: the whole song, then every section in order."""

from __future__ import annotations

import random

from retrieval.data.corpus.captions import words as w
from retrieval.data.corpus.captions.details import tell_details
from retrieval.data.corpus.captions.grammar import join, say, sentence, the, verb
from retrieval.data.corpus.captions.grammar import words as count_words
from retrieval.data.corpus.captions.whole import TERSE, TERSER, tell_whole
from retrieval.data.corpus.facts import SectionFacts, SongFacts
from retrieval.data.manifest import Caption, Section

MIN_WORDS, MAX_WORDS = 150, 400
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
    sentences = [tell_whole(facts, random.Random(f"{seed} overall"), detail)]
    sections = []
    clock = random.Random(f"{seed} clock").random() < 0.3
    for number, section in enumerate(facts.sections):
        rng = random.Random(f"{seed} section {number}")
        text = _section(facts, number, section, rng, detail, clock)
        sections.append(Section(round(section.start_s, 3), round(section.end_s, 3), text))
        sentences.append(text)
    return Caption(" ".join(sentences), "generated", tuple(sections), "long")


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
    sentences = [text, *tell_details(facts, number, section, rng)[: _DETAILS[detail]]]
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
