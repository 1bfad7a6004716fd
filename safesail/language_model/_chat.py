"""Conversations in the model's chat template, and where in it their own words stand."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from jinja2.exceptions import TemplateError

from safesail.errors import ModelError

# Stand in for the contents, to see what the template puts around them.
_STAND_IN = re.compile(r"safesail(\d+)text")
_SOLID = re.compile(r"\S")


def as_conversation(
    messages: Sequence[tuple[str, str]], tokenizer: Any, *, name: str, document: str, section: str
) -> tuple[str, list[tuple[int, int]]]:
    """Messages as the chat template writes them, without BOS, and where their contents stand.

    Args:
        messages: role and content each; templates may trim contents and move them (a system
            message into a user's), but not change them. Blank contents stand nowhere.
        tokenizer: of transformers.
        name: of the model, for errors.
        document: its id, for errors.
        section: of safesail.toml that has the setting `chat_template`, for errors.

    Returns:
        The conversation, and start and end of each content in it, without the spaces around it,
        in characters, ascending.

    Raises:
        ModelError: the tokenizer has no chat template, or it refuses the messages, or changes,
            repeats or leaves out a content.
    """
    remedy = f"set {section}.chat_template = false"
    if not tokenizer.chat_template:
        raise ModelError(f"the tokenizer of {name!r} has no chat template: {remedy}")
    if not any(content.strip() for _, content in messages):
        return "", []
    try:
        whole = _rendered(messages, tokenizer)
        skeleton = _rendered(
            [
                (role, f"safesail{number}text" if content.strip() else content)
                for number, (role, content) in enumerate(messages)
            ],
            tokenizer,
        )
    # What a template does with roles in an order it does not know is not foreseen by all.
    except (TemplateError, TypeError) as error:
        raise ModelError(
            f"the chat template of {name!r} refuses document {document!r} "
            f"({' '.join(str(error).split())}): leave it out, or {remedy}"
        ) from error
    contents = [content for _, content in messages]
    spans, changed = _spans(contents, skeleton, whole)
    if changed is not None:
        raise ModelError(
            f"the chat template of {name!r} changes the text {contents[changed][:40]!r} of "
            f"document {document!r}, or leaves it out: leave the document out, or {remedy}"
        )
    return whole, spans


def _rendered(messages: Sequence[tuple[str, str]], tokenizer: Any) -> str:
    dictionaries = [{"role": role, "content": content} for role, content in messages]
    rendered: str = tokenizer.apply_chat_template(dictionaries, tokenize=False)
    return rendered.removeprefix(tokenizer.bos_token or "")


def _spans(
    contents: Sequence[str], skeleton: str, whole: str
) -> tuple[list[tuple[int, int]], int | None]:
    """Where the contents stand, and the number of the first that does not stand as it should."""
    # The template's own words, and between these the number of the content that follows.
    own, order = _STAND_IN.split(skeleton)[::2], _STAND_IN.findall(skeleton)
    times = Counter(map(int, order))
    for number, content in enumerate(contents):
        if times[number] != bool(content.strip()):
            return [], number
    spans: list[tuple[int, int]] = []
    place = len(own[0])
    for number, after in zip(map(int, order), own[1:], strict=True):
        found = _found(contents[number], after, whole, place)
        if found is None:
            return [], number
        span, end = found
        spans.append(span)
        place = end + len(after)
    if not (whole.startswith(own[0]) and place == len(whole)):
        return [], int(order[-1])
    return spans, None


def _found(content: str, after: str, whole: str, place: int) -> tuple[tuple[int, int], int] | None:
    """Where a content, perhaps trimmed, stands that begins here and has `after` behind it.

    Returns:
        Its start and end without the spaces around it, and its end with them.
    """
    core = content.strip()
    inner = content.index(core)
    before, behind = content[:inner], content[inner + len(core) :]
    solid = _SOLID.search(whole, place)
    if solid is None or not before.endswith(whole[place : solid.start()]):
        return None
    start = solid.start()
    if not whole.startswith(core, start):
        return None
    for kept in range(len(behind), -1, -1):
        end = start + len(core) + kept
        if whole.startswith(after, end) and whole.endswith(behind[:kept], start, end):
            return (start, start + len(core)), end
    return None
