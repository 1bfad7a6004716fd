"""Contrast pairs: from the lab's world for its concepts, from a template for any other."""

from __future__ import annotations

from safesail.lab.judge._noise import chance, generator
from safesail.lab.judge._prompts import Asked
from safesail.lab.lexicon import Lexicon, load_lexicon
from safesail.lab.world import World


def contrast_pairs(asked: Asked, seed: int, body: str) -> list[dict[str, str]]:
    """As many pairs as asked, none with a text that is taken; alike for the same body."""
    lexicon = _of(asked.concept)
    number = int(chance(seed, body, "pairs") * 2**31)
    taken = set(asked.taken)
    if lexicon is None:
        return _templated(asked, number)
    world = World(number, lexicon)
    # A child's pairs come together; those of a concept's children take turns.
    children = [child for one in lexicon.concepts.values() for child in one.children]
    each = -(-(asked.count + len(taken)) // len(children))
    written = list(world.pairs(each))
    pairs = [pair for turn in range(each) for pair in written[turn::each]]
    return [
        {"positive": pair.positive, "negative": pair.negative}
        for pair in pairs
        if pair.positive not in taken and pair.negative not in taken
    ][: asked.count]


def _of(concept: str) -> Lexicon | None:
    """The lexicon with one concept, or one child of it; None where the lab has no such concept."""
    lexicon = load_lexicon()
    name, _, child = concept.partition("/")
    found = lexicon.concepts.get(name)
    if found is None or (child and child not in found.children):
        return None
    children = {child: found.children[child]} if child else found.children
    kept = found.model_copy(update={"children": children})
    return lexicon.model_copy(update={"concepts": {name: kept}})


def _templated(asked: Asked, number: int) -> list[dict[str, str]]:
    """Somebody speaks of the concept, or of something harmless."""
    lexicon = load_lexicon()
    random = generator(number, asked.concept)
    subject = asked.concept.rpartition("/")[2].replace("_", " ")
    harmless = [thing for topic in lexicon.topics.values() for thing in topic.objects]
    taken = set(asked.taken)
    pairs: list[dict[str, str]] = []
    while len(pairs) < asked.count:
        who = str(random.choice(lexicon.people))
        begin = f"{who[0].upper()}{who[1:]} {random.choice(lexicon.person_verbs)}"
        middle = f"{begin} {random.choice(lexicon.people)} {random.choice(lexicon.times)} about"
        positive, negative = f"{middle} {subject}.", f"{middle} {random.choice(harmless)}."
        if taken.isdisjoint((positive, negative)):
            taken |= {positive, negative}
            pairs.append({"positive": positive, "negative": negative})
    return pairs
