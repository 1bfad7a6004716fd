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
    saes: Sequence[SparseAutoencoder],
    texts: Sequence[TokenizedText],
    *,
    prepend_bos: bool,
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Mean hidden state and mean feature activations of each text, over its content tokens.

    An activation is given as the length of what the feature adds to the stream, activation times
    the norm of its decoder row: SAEs differ in how they share that out, and features that do the
    same count the same. Attention sinks are left out, as in the ranking. The mean over tokens is
    our choice. The model reads the texts once for all SAEs.

    Args:
        model: the language model.
        saes: checked to fit it, in memory together.
        texts: of this module.
        prepend_bos: whether they are to begin with BOS.

    Returns:
        For each SAE [texts, d_model] at its hook point, and [texts, features].

    Raises:
        AlignmentError: a text has no token that counts.
        ModelError: the model lacks a hook point.
    """
    named = [replace(text, document=str(number)) for number, text in enumerate(texts)]
    points = list(dict.fromkeys(sae.hook_point for sae in saes))
    thresholds = model.sink_thresholds(model.batches(named, prepend_bos=prepend_bos), points)
    lengths = [sae.decoder_rows.norm(dim=-1) for sae in saes]
    pools = [
        (
            np.zeros((len(named), sae.decoder_directions.shape[1]), np.float32),
            np.zeros((len(named), sae.width), np.float32),
        )
        for sae in saes
    ]
    for batch in model.batches(named, prepend_bos=prepend_bos):
        observed = model.observe(batch, points, thresholds)
        for sae, length, (hidden, activations) in zip(saes, lengths, pools, strict=True):
            found, content = observed[sae.hook_point]
            sizes = content.sum(dim=1).tolist()
            # All tokens of the batch at once, for a GPU is slow on few.
            states = found[content].float()
            encoded = sae.encode(states).float()
            parts = zip(batch.texts, states.split(sizes), encoded.split(sizes), strict=True)
            for text, state, codes in parts:
                place = int(text.document)
                if not len(state):
                    raise AlignmentError(f"text {place + 1} has no token that counts")
                hidden[place] = state.mean(0).cpu().numpy()
                activations[place] = (codes.mean(0) * length).cpu().numpy()
    return pools
