"""What a model and an SAE make of whole texts: means over the tokens that count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from safesail.alignment._data import Example, answer_places, encode_examples
from safesail.errors import AlignmentError
from safesail.language_model import TokenizedText, whole_text

if TYPE_CHECKING:
    from safesail.language_model import LanguageModel
    from safesail.sparse_autoencoder import SparseAutoencoder

Over = Literal["response", "prompt"]


def response_texts(
    examples: Sequence[Example], model: LanguageModel, *, max_tokens: int
) -> tuple[list[TokenizedText], bool]:
    """Prompts with their answers, of which the answers' own tokens alone count.

    What ends an answer (the chat template's words, EOS) does not count: it is the same on both
    sides and no content; see `answer_places`.

    Args:
        examples: prompts and answers.
        model: the language model.
        max_tokens: of a text.

    Returns:
        One text an example, and whether they are to begin with BOS.

    Raises:
        AlignmentError: the chat template refuses an example, or changes its answer; or one has no
            room for its answer, so that pairs would not stay together.
    """
    encoded = encode_examples(examples, model.tokenizer, max_tokens=max_tokens)
    if encoded.left_out:
        raise AlignmentError(
            f"{encoded.left_out} prompts leave no room for an answer within {max_tokens} tokens: "
            "shorten them or leave them out"
        )
    bos = model.tokenizer.bos_token_id
    with_bos = bos is not None and all(one.token_ids[0] == bos for one in encoded.examples)
    texts = []
    for number, (example, one) in enumerate(zip(examples, encoded.examples, strict=True)):
        ids = one.token_ids[with_bos:]
        own = answer_places(example, model.tokenizer)
        counted = [place + with_bos - one.answer_from in own for place in range(len(ids))]
        if not any(counted):
            raise AlignmentError(
                f"no token of answer {number + 1}, {example.answer[:40]!r}, is left to count: it "
                f"is blank, or the chat template changes it, or it begins after {max_tokens} "
                "tokens; mend it or leave it out"
            )
        texts.append(TokenizedText(str(number), 0, ids, [""] * len(ids), counted))
    return texts, with_bos


def plain_texts(texts: Sequence[str], model: LanguageModel, *, chat: bool) -> list[TokenizedText]:
    """Texts without answers, of which all content counts.

    Args:
        texts: prompts, or sides of contrast pairs.
        model: the language model.
        chat: put them into the chat template, whose own words do not count.

    Raises:
        AlignmentError: a text is empty, or longer than the model's context.
        ModelError: the chat template refuses a text.
    """
    found = []
    for number, text in enumerate(texts):
        whole = whole_text(model, text, document=str(number), chat=chat, answered=True)
        if whole is None or len(whole.token_ids) >= model.context_size:
            raise AlignmentError(
                f"text {number + 1}, {text[:40]!r}, is empty or longer than the model's context of "
                f"{model.context_size:,} tokens: mend it or leave it out"
            )
        found.append(whole)
    return found


def pooled(
    model: LanguageModel,
    sae: SparseAutoencoder,
    texts: Sequence[TokenizedText],
    *,
    prepend_bos: bool,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean hidden state and mean feature activations of each text, over its content tokens.

    An activation is given as the length of what the feature adds to the stream, activation times
    the norm of its decoder row: SAEs differ in how they share that out, and features that do the
    same count the same. Attention sinks are left out, as in the ranking. The mean over tokens is
    our choice.

    Args:
        model: the language model.
        sae: checked to fit it.
        texts: of this module.
        prepend_bos: whether they are to begin with BOS.

    Returns:
        [texts, d_model] at the SAE's hook point, and [texts, features].

    Raises:
        AlignmentError: a text has no token that counts.
        ModelError: the model lacks the hook point.
    """
    named = [replace(text, document=str(number)) for number, text in enumerate(texts)]

    def batches() -> list:
        return list(model.batches(named, prepend_bos=prepend_bos))

    point = sae.hook_point
    thresholds = model.sink_thresholds(batches(), [point])
    lengths = sae.decoder_rows.norm(dim=-1)
    hidden = np.zeros((len(named), sae.decoder_directions.shape[1]), np.float32)
    activations = np.zeros((len(named), sae.width), np.float32)
    for batch in batches():
        found, content = model.observe(batch, [point], thresholds)[point]
        for row, text in enumerate(batch.texts):
            x = found[row][content[row]].float()
            if not len(x):
                raise AlignmentError(f"text {int(text.document) + 1} has no token that counts")
            place = int(text.document)
            hidden[place] = x.mean(0).cpu().numpy()
            activations[place] = (sae.encode(x).float().mean(0) * lengths).cpu().numpy()
    return hidden, activations
