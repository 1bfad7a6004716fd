"""Texts as messages in a chat template: which tokens count, and what cannot be put into one."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from safesail.concepts import ConceptSet, ContrastPair
from safesail.errors import ModelError
from safesail.language_model import LanguageModel
from safesail.ranking._design import PairDesign
from safesail.ranking._texts import tokenize_pairs
from safesail.study import RankingSettings

TEXT = "the cat sat 🙂 on the  mat; naïve café 猫猫 привет\n\nand  \t a Zebra  "
TEMPLATE = (
    "{{ bos_token }}system: be kind to the cat<|eos|>{% for message in messages %}"
    "{{ message['role'] }}: {{ message['content'] | trim }}<|eos|>{% endfor %}"
)


@pytest.fixture
def chatty(llama: LanguageModel) -> LanguageModel:
    """The tiny Llama with a chat template that trims, as Llama 3's does."""
    model = copy.copy(llama)
    model.tokenizer = copy.deepcopy(llama.tokenizer)
    model.tokenizer.chat_template = TEMPLATE
    return model


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("text", ["the cat", "system: be kind to the cat", TEXT, "user", " a  "])
def test_the_text_alone_is_content(chatty: LanguageModel, text: str, bos: bool) -> None:
    """Also where the template's own words are those of the text."""
    found = chatty.tokenize(text, document="d", prepend_bos=bos, chat=True)
    assert "".join(string for piece in found for string in piece.token_strings) == (
        f"system: be kind to the cat<|eos|>user: {text.strip()}<|eos|>"
    )
    counted = "".join(
        string
        for piece in found
        for string, counts in zip(piece.token_strings, piece.counted or [], strict=True)
        if counts
    )
    # A token may reach over the space before the text.
    assert counted.strip() == text.strip()
    for batch in chatty.batches(found, prepend_bos=bos):
        for row, piece in enumerate(batch.texts):
            expected = [False] * batch.first + (piece.counted or [])
            expected += [False] * (batch.content_mask.shape[1] - len(expected))
            assert batch.content_mask[row].tolist() == expected
            assert (batch.token_ids[row, batch.first :] != chatty.bos_token_id).all()


def test_the_pairs_are_read_as_messages(chatty: LanguageModel) -> None:
    """Pooled over the same tokens, other activations than those of the raw text."""
    design = PairDesign.of(ConceptSet([ContrastPair("a", "the cat sat", "a dog sat")]), seed=0)
    settings = RankingSettings(chat_template=True)
    (raw, _), (message, _) = (
        tokenize_pairs(chatty, design, True, RankingSettings(chat_template=chat))
        for chat in (False, settings.chat_template)
    )
    assert message.counted is not None
    kept = np.flatnonzero(message.counted)
    assert [message.token_strings[n] for n in kept][-2:] == raw.token_strings[-2:]
    hidden = []
    for text in (raw, message):
        (batch,) = chatty.batches([text], prepend_bos=True)
        name = "blocks.1.hook_resid_post"
        hidden.append(chatty.activations(batch, [name])[name][0][batch.content_mask[0]])
    assert not torch.allclose(hidden[0][-2:], hidden[1][-2:])


def test_a_long_message_is_cut_and_the_template_left_out(chatty: LanguageModel) -> None:
    found = chatty.tokenize("the cat " * 60, document="d", prepend_bos=True, chat=True)
    assert len(found) > 1
    assert all(piece.counted and any(piece.counted) for piece in found)


def test_an_empty_message_has_no_tokens(chatty: LanguageModel) -> None:
    assert chatty.tokenize("", document="d", prepend_bos=True, chat=True) == []
    assert chatty.tokenize("  ", document="d", prepend_bos=True, chat=True) == []


def test_a_model_without_a_template_is_named(llama: LanguageModel) -> None:
    with pytest.raises(ModelError, match=r"no chat template: set ranking\.chat_template = false"):
        llama.tokenize("the cat", document="d", prepend_bos=True, chat=True)


def test_a_template_that_changes_texts_is_refused(chatty: LanguageModel) -> None:
    chatty.tokenizer.chat_template = "{{ messages[0]['content'] | upper }}"
    with pytest.raises(ModelError, match="changes the text 'the cat'"):
        chatty.tokenize("the cat", document="d", prepend_bos=True, chat=True)
