"""Conversations in a chat template: which tokens count, and what cannot be put into one."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safesail.concepts import ConceptSet, ContrastPair
from safesail.corpus import Message
from safesail.errors import ModelError
from safesail.language_model import LanguageModel, TokenizedText
from safesail.language_model._chat import as_conversation
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
    (raw, _), (message, _) = (
        tokenize_pairs(chatty, design, True, RankingSettings(chat_template=chat))
        for chat in (False, True)
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


# Templates as published models have them, shortened: what they do with contents is kept.
GEMMA2 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}"
)
GEMMA3 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{% set prefix = messages[0]['content'] + '\n\n' %}{% set loop_messages = messages[1:] %}"
    "{% else %}{% set prefix = '' %}{% set loop_messages = messages %}{% endif %}"
    "{% for message in loop_messages %}{{ '<start_of_turn>' + message['role'] + '\n' }}"
    "{{ prefix if loop.first else '' }}{{ message['content'] | trim }}{{ '<end_of_turn>\n' }}"
    "{% endfor %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system = false %}{% endif %}{% for message in loop_messages %}"
    "{% if loop.index0 == 0 and system %}"
    "{% set content = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
MISTRAL = (  # the system message goes into the last user's turn, behind what came before
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{% set system = messages[0]['content'] %}{% set loop_messages = messages[1:] %}"
    "{% else %}{% set loop_messages = messages %}{% endif %}{% for message in loop_messages %}"
    "{% if message['role'] == 'user' %}{% if loop.last and system is defined %}"
    "{{ '[INST] ' + system + '\n\n' + message['content'] + '[/INST]' }}{% else %}"
    "{{ '[INST] ' + message['content'] + '[/INST]' }}{% endif %}{% else %}"
    "{{ ' ' + message['content'] | trim + eos_token }}{% endif %}{% endfor %}"
)
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' "
    "+ message['content'] + '<|im_end|>\n' }}{% endfor %}"
)
BARE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
BARE_TRIMMED = BARE.replace(" }}", " | trim }}")
CONVERSATIONS = {
    "words of the template": [
        ("user", "user"),
        ("assistant", "model assistant\n<start_of_turn>user\n [INST] user"),
        ("user", "assistant: [/INST] <|im_end|>\n<|im_start|>user\n"),
    ],
    "spaces": [("user", "\n\n the cat \t"), ("assistant", "  a  dog\n\n"), ("user", "\nx ")],
    "equal": [("user", "a"), ("assistant", "a"), ("user", "a"), ("assistant", "a")],
    "blank": [("user", "the cat"), ("assistant", " \n "), ("user", "a"), ("assistant", "")],
    "stand-ins": [("user", "safesail1text"), ("assistant", "safesail0text safesail1text")],
    "system": [("system", " be\n kind "), ("user", " the cat "), ("assistant", "sat")],
    "system last": [("system", "be kind"), ("user", "a"), ("assistant", "b"), ("user", "the cat")],
}


def counted_text(found: list[TokenizedText]) -> str:
    """What counts, a space between runs."""
    runs, last = "", False
    for piece in found:
        for string, counts in zip(piece.token_strings, piece.counted or [], strict=True):
            runs += string if counts else " " if last else ""
            last = counts
    return runs


NOT_TAKEN = {
    (GEMMA2, "system"): r"refuses document 'd' \(System role not supported\)",
    (GEMMA2, "system last"): r"refuses document 'd' \(System role not supported\)",
    (MISTRAL, "system"): r"changes the text ' be.* or leaves it out",  # the user is not last
}


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("template", [GEMMA2, GEMMA3, LLAMA2, MISTRAL, CHATML, TEMPLATE])
def test_the_contents_alone_are_content(chatty: LanguageModel, template: str, name: str) -> None:
    """In the order of the template, whatever it trims and moves."""
    messages = CONVERSATIONS[name]
    chatty.tokenizer.chat_template = template
    if (template, name) in NOT_TAKEN:
        with pytest.raises(ModelError, match=NOT_TAKEN[template, name]):
            chatty.tokenize("x", document="d", prepend_bos=True, messages=messages)
        return
    found = chatty.tokenize("x", document="d", prepend_bos=True, messages=messages)
    if (template, name) == (MISTRAL, "system last"):
        messages = [messages[n] for n in (1, 2, 0, 3)]
    expected = " ".join(content for _, content in messages).split()
    assert counted_text(found).split() == expected
    assert all(piece.document == "d" for piece in found)


def test_special_tokens_and_roles_do_not_count(chatty: LanguageModel) -> None:
    messages = [Message("user", "the cat"), Message("assistant", "a<|eos|>dog")]
    found = chatty.tokenize("x", document="d", prepend_bos=True, messages=messages)
    (batch,) = chatty.batches(found, prepend_bos=True)
    (piece,) = batch.texts
    content = batch.content_mask[0, 1:].tolist()
    kept = [s for s, counts in zip(piece.token_strings, content, strict=True) if counts]
    assert "".join(kept).split() == ["the", "cat", "adog"]
    assert "<|eos|>" in piece.token_strings


def test_long_conversations_are_cut_and_blank_ones_give_nothing(chatty: LanguageModel) -> None:
    messages = [("user", "the cat sat " * 30), ("assistant", "on the mat " * 30)] * 20
    found = chatty.tokenize("x", document="d", prepend_bos=True, messages=messages)
    expected = "".join(content for _, content in messages).split()
    assert counted_text(found).split() == expected
    assert len({piece.key for piece in found}) == 1
    assert all(any(piece.counted or []) for piece in found)
    assert chatty.tokenize("", document="d", prepend_bos=True, messages=[("user", " ")]) == []
    assert chatty.tokenize("", document="d", prepend_bos=True, messages=[]) == []


REFUSED = {
    "changes": ("{% for m in messages %}{{ m['content'] | upper }};{% endfor %}", "the cat"),
    "changes within": (
        "{% for m in messages %}{{ m['content'] | replace('a', 'b') }};{% endfor %}", "the cat"
    ),
    "drops what it does not know": (
        "{% for m in messages if m['role'] != 'tool' %}{{ m['content'] }};{% endfor %}", "result"
    ),
    "drops thoughts": (
        "{% for m in messages %}{{ m['content'].split('</think>')[-1] }};{% endfor %}", "thus</thi"
    ),
    "repeats": ("{{ messages[0]['content'] }}{% for m in messages %}{{ m['content'] }}{% endfor %}",
                "the cat"),
    "adds": ("{% for m in messages %}{{ m['content'] }}{% endfor %}"
             "{{ '!' if 'thus' in messages[-1]['content'] }}", "thus</thi"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_templates_that_lose_a_content_are_refused(chatty: LanguageModel, name: str) -> None:
    chatty.tokenizer.chat_template, text = REFUSED[name]
    messages = [("user", "the cat"), ("tool", "result"), ("assistant", "thus</think> sat")]
    with pytest.raises(ModelError, match=f"changes the text '{text}.* of document 'd7'") as caught:
        chatty.tokenize("x", document="d7", prepend_bos=True, messages=messages)
    assert "set corpus.sources.chat_template = false" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_conversations_need_a_template(llama: LanguageModel) -> None:
    with pytest.raises(ModelError, match=r"no chat template: set corpus\.sources\.chat_template"):
        llama.tokenize("a", document="d", prepend_bos=True, messages=[("user", "a")])


def test_a_template_that_fails_is_one_line(chatty: LanguageModel) -> None:
    chatty.tokenizer.chat_template = "{{ messages[0]['content'] + 3 }}"
    with pytest.raises(ModelError, match="refuses document 'd'") as caught:
        chatty.tokenize("a", document="d", prepend_bos=True, messages=[("user", "a")])
    assert "\n" not in str(caught.value)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    contents=st.lists(st.text("a \n\t[]/INST<>\x85", max_size=6), min_size=1, max_size=5),
    template=st.sampled_from([GEMMA3, LLAMA2, MISTRAL, CHATML, TEMPLATE, BARE, BARE_TRIMMED]),
)
def test_any_contents_are_found(chatty: LanguageModel, contents: list[str], template: str) -> None:
    chatty.tokenizer.chat_template = template
    messages = [(("user", "assistant")[n % 2], content) for n, content in enumerate(contents)]
    whole, spans = as_conversation(
        messages, chatty.tokenizer, name="m", document="d", section="corpus.sources"
    )
    filled = [content for content in contents if content.strip()]
    for (start, end), content in zip(spans, filled, strict=True):
        assert whole[start:end] == content.strip()
