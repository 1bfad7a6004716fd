"""A text as a user's message in the model's chat template."""

from __future__ import annotations

from typing import Any

from safesail.errors import ModelError

# Stands in for the text, to see what the template puts before and after it.
_STAND_IN = "safesail"


def as_message(text: str, tokenizer: Any, name: str) -> tuple[str, tuple[int, int]]:
    """A conversation of this one message, without BOS, and where in it the text stands.

    Args:
        text: any text; templates may trim it.
        tokenizer: of transformers.
        name: of the model, for errors.

    Returns:
        The conversation, and start and end of the text in it in characters.

    Raises:
        ModelError: the tokenizer has no chat template, or it changes the text.
    """
    if not tokenizer.chat_template:
        raise ModelError(
            f"the tokenizer of {name!r} has no chat template: set ranking.chat_template = false"
        )
    before, _, after = _rendered(_STAND_IN, tokenizer).partition(_STAND_IN)
    whole = _rendered(text, tokenizer)
    start, end = len(before), len(whole) - len(after)
    if not (whole.startswith(before) and whole.endswith(after)) or (
        whole[start:end].strip() != text.strip()
    ):
        raise ModelError(
            f"the chat template of {name!r} changes the text {text[:40]!r}: "
            "set ranking.chat_template = false"
        )
    return whole, (start, end)


def _rendered(text: str, tokenizer: Any) -> str:
    messages = [{"role": "user", "content": text}]
    rendered: str = tokenizer.apply_chat_template(messages, tokenize=False)
    return rendered.removeprefix(tokenizer.bos_token or "")
