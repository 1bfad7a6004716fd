"""An explanation in words, of which `named` reads the same names again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from safesail.lab.judge._knowledge import Reading
from safesail.lab.judge._names import ALL_PARTS, Named, Term
from safesail.lab.judge._words import KINDS, Part, phrases

_EXAMPLES = 4


@dataclass(frozen=True)
class _Language:
    """How terms are said; `{about}` are names, `{words}` quoted words."""

    quote: str
    comma: str
    either: str
    begin: str
    join: str
    end: str
    nothing: str
    clause: dict[frozenset[Part], str]
    act: dict[frozenset[Part], str]
    object: dict[frozenset[Part], str]
    word: dict[str, str]
    kind: str
    harmless: str


_ACT: frozenset[Part] = frozenset({"act"})
_BETWEEN: frozenset[Part] = frozenset({"between"})
_OBJECT: frozenset[Part] = frozenset({"object"})
_REST: frozenset[Part] = frozenset({"rest"})

_ENGLISH = _Language(
    quote='"{}"',
    comma=", ",
    either=" or ",
    begin="Active ",
    join="; also ",
    end="; silent elsewhere.",
    nothing="Nothing that the windows have in common.",
    clause={
        ALL_PARTS: "in clauses about {about}, throughout, from words such as {words} on",
        _ACT | _BETWEEN | _OBJECT: "in clauses about {about}, at words such as {words}",
        _OBJECT | _REST: "in clauses about {about}, at and after the object, such as {words}",
        _OBJECT: "in clauses about {about}, at the object, such as {words}",
        _REST: "in clauses about {about}, after the object, once {words} and the like are read",
    },
    act={
        _ACT: "at the act words of {about}, such as {words}, whatever follows",
        _BETWEEN: "right after the act words of {about}, such as {words}, whatever follows",
        _ACT | _BETWEEN: "at and right after the act words of {about}, such as {words}",
    },
    object={
        _OBJECT: "at the object words of {about}, such as {words}, whatever is done to them",
        _OBJECT | _REST: "at and after the object words of {about}, such as {words}",
    },
    word={
        "at": "at the words {words}",
        "next": "at the word right after {words}",
        "on": "at and after the words {words}, until the clause ends",
    },
    kind="at words for {about}",
    harmless='; silent where "{word}" stands with harmless objects.',
)
_CHINESE = _Language(
    quote="“{}”",
    comma="、",
    either=" 或 ",
    begin="",
    join="；另见于",
    end="；其他处不激活。",
    nothing="没有共同之处。",
    clause={
        ALL_PARTS: "在关于 {about} 的分句中，从{words}等词起全句激活",
        _ACT | _BETWEEN | _OBJECT: "在关于 {about} 的分句中，动作与宾语，如{words}",
        _OBJECT | _REST: "在关于 {about} 的分句中，宾语及其后，如{words}",
        _OBJECT: "在关于 {about} 的分句中，宾语处，如{words}",
        _REST: "在关于 {about} 的分句中，宾语之后，此前有{words}等词",
    },
    act={
        _ACT: "在 {about} 的动词的动作处，如{words}",
        _BETWEEN: "在 {about} 的动词的动作之后，如{words}",
        _ACT | _BETWEEN: "在 {about} 的动词的动作及其后，如{words}",
    },
    object={
        _OBJECT: "在 {about} 的宾语词的宾语处，如{words}",
        _OBJECT | _REST: "在 {about} 的宾语词的宾语及其后，如{words}",
    },
    word={"at": "在{words}处", "next": "在紧随{words}的词处", "on": "在{words}及其后直到句末"},
    kind="在表示 {about} 的词处",
    harmless="；“{word}”与无害宾语同现时不激活。",
)


def sentence(names: Named, readings: Sequence[Reading], language: str) -> str:
    """The explanation of some names, with words from the windows that they were found in.

    Args:
        names: to be said.
        readings: of the windows.
        language: a tag; Chinese for `zh` and its like, else English.
    """
    say = _CHINESE if language.lower().startswith("zh") else _ENGLISH
    if not names.terms:
        return say.nothing
    said = [_said(term, readings, say) for term in names.terms]
    clauses = [term for term in names.terms if term.kind == "clause"]
    acts = [act for term in clauses for act in _seen(term, readings)[0] if _ambiguous(act)]
    end = say.harmless.format(word=acts[0]) if acts else say.end
    return f"{say.begin}{say.join.join(said)}{end}"


def spelled(names: Collection[str]) -> list[str]:
    """Names in a fixed order; all children of a concept are the concept's own name."""
    found: list[str] = []
    for path in phrases().children:
        parent = path.partition("/")[0]
        whole = {one for one in phrases().children if one.startswith(f"{parent}/")}
        if path in names:
            found.append(parent if whole <= set(names) else path)
    found += [name for name in (*phrases().topics, *KINDS) if name in names]
    return list(dict.fromkeys(found))


def _said(term: Term, readings: Sequence[Reading], say: _Language) -> str:
    if term.kind == "word":
        return say.word[term.where].format(words=_quoted(sorted(term.names), say))
    about = say.either.join(spelled(term.names))
    if term.kind == "class":
        return say.kind.format(about=f"{say.either}words for ".join(spelled(term.names)))
    acts, objects = _seen(term, readings)
    half = _EXAMPLES // 2
    examples = {
        "clause": [*acts[:half], *objects[:half]],
        "act": acts[:_EXAMPLES],
        "object": objects[:_EXAMPLES],
    }[term.kind]
    template = {"clause": say.clause, "act": say.act, "object": say.object}[term.kind][term.parts]
    return template.format(about=about, words=_quoted(examples, say))


def _quoted(words: Sequence[str], say: _Language) -> str:
    return say.comma.join(say.quote.format(word) for word in words)


def _seen(term: Term, readings: Sequence[Reading]) -> tuple[list[str], list[str]]:
    """Verbs and objects of the clauses in question, the commonest first.

    They are read off the windows; where these show none, the lexicon gives them.
    """
    acts: Counter[str] = Counter()
    objects: Counter[str] = Counter()
    for reading in readings:
        last = {place.clause: place for place in reading.places}
        for place in last.values():
            verb, thing = place.verb, place.object
            if term.kind == "clause" and term.names.isdisjoint(place.evidence):
                continue
            if verb is not None and (
                term.kind == "clause" or any(verb.act_of(name) for name in term.names)
            ):
                acts[verb.phrase] += 1
            if thing is not None and (
                term.kind == "clause" or any(thing.object_of(name) for name in term.names)
            ):
                objects[thing.phrase] += 1
    if not acts:
        acts.update(p for p, e in phrases().entries.items() if e.acts & term.names)
    if not objects:
        objects.update(p for p, e in phrases().entries.items() if e.targets & term.names)
    return [w for w, _ in acts.most_common()], [w for w, _ in objects.most_common()]


def _ambiguous(act: str) -> bool:
    entry = phrases().entries[act]
    return bool(entry.acts or entry.aftermaths)
