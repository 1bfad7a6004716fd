"""Pooling: the answer alone counts, and an SAE's split between activation and row does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import models
import numpy as np
import pytest
import tiny_alignment as tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from safesail.alignment import Example, contrast_features, encode_examples, encode_prompt
from safesail.alignment._contrast import Contrast
from safesail.alignment._data import IGNORED, answer_places, collate
from safesail.alignment._pooling import pooled, response_texts
from safesail.alignment._reduce import layer_from_features
from safesail.errors import AlignmentError
from safesail.language_model import LanguageModel
from safesail.sparse_autoencoder import SparseAutoencoder, find_candidates

EXAMPLES = [
    Example("how do I sink the boat?", "I will not."),
    Example("how do I burn it?", " No; never that "),
    Example("where is the cat?", "on the mat"),
    Example("and the dog?", "by the door."),
]
PLACE = "blocks.1.hook_resid_post"


def template(end: str, *, begin: str = "", trim: bool = True) -> str:
    """A chat template that ends turns with `end` and begins answers with `begin` when they stand.

    The begin is not part of what a model is asked to go on with, as Qwen3's empty thoughts.
    """
    content = "m.content | trim" if trim else "m.content"
    return (
        "{% for m in messages %}[{{ m.role }}] "
        "{% if m.role == 'assistant' %}" + begin + "{% endif %}{{ " + content + " }}" + end + "\n"
        "{%- endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
    )


TEMPLATES = {
    "a line's end": template("<|eos|>{{ '\\n' }}"),
    "words that are no special token": template("<|end|>{{ '\\n' }}"),
    "spaces kept": template("<|end|>{{ '\\n' }}", trim=False),
    "letters": template("at the mat"),
    "a full stop": template(".{{ '\\n' }}"),
    "thoughts before": template("<|end|>", begin="<think>{{ '\\n\\n' }}</think>{{ '\\n\\n' }}"),
    "nothing": template(""),
    "no template": "",
}


def tokenizer_with(chat_template: str) -> Any:
    tokenizer = models.byte_tokenizer()
    tokenizer.chat_template = chat_template or None
    return tokenizer


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.tiny_llama(tmp_path_factory.mktemp("base"), max_position_embeddings=128)


@pytest.fixture
def model_with(base: Path) -> Callable[[str], LanguageModel]:
    def load(chat_template: str) -> LanguageModel:
        model = LanguageModel.load(str(base), device="cpu")
        model.tokenizer.chat_template = chat_template or None
        return model

    return load


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=40, deadline=None)
@given(
    answer=st.text(st.characters(codec="ascii", min_codepoint=9), min_size=1).filter(str.strip),
    spaces=st.tuples(*[st.sampled_from(["", " ", "\n", " \n"])] * 2),
)
def test_the_tokens_that_count_are_the_fewest_that_hold_the_answer(
    name: str, answer: str, spaces: tuple[str, str]
) -> None:
    """Token by token, of a tokenizer whose tokens decode to their own text."""
    tokenizer = tokenizer_with(TEMPLATES[name])
    example = Example("why?", spaces[0] + answer + spaces[1])
    encoded = encode_examples([example], tokenizer, max_tokens=10_000).examples[0]
    closing = encoded.token_ids[encoded.answer_from :]
    texts = [tokenizer.decode([token]) for token in closing]
    places = answer_places(example, tokenizer)
    core = answer.strip()
    held = "".join(texts[place] for place in places)
    assert core in held
    # One token fewer on either side would cut the answer.
    assert core not in "".join(texts[place] for place in places[1:])
    assert core not in "".join(texts[place] for place in places[:-1])
    # It stands where the template puts it, not where the template says the same.
    before = "".join(texts[: places[0]])
    thoughts = "<think>\n\n</think>\n\n" if name == "thoughts before" else ""
    assert (before + held[: held.index(core)]).strip() == thoughts.strip()


@pytest.mark.parametrize("answer", ["at", "mat", "<|end|>", "think", "assistant", "s", "[user]"])
@pytest.mark.parametrize("name", ["words that are no special token", "letters", "thoughts before"])
def test_an_answer_in_the_templates_own_words_is_found(name: str, answer: str) -> None:
    tokenizer = tokenizer_with(TEMPLATES[name])
    example = Example("why?", answer)
    encoded = encode_examples([example], tokenizer, max_tokens=1000).examples[0]
    closing = encoded.token_ids[encoded.answer_from :]
    places = answer_places(example, tokenizer)
    begun = tokenizer.decode(closing[: places[0]])
    assert begun == ("<think>\n\n</think>\n\n" if name == "thoughts before" else "")
    assert tokenizer.decode(closing[: places[-1] + 1]).startswith(begun + answer)
    assert len(tokenizer.decode(closing[: places[-1]])) < len(begun + answer)


def test_a_token_of_the_answer_and_of_what_follows_counts() -> None:
    """`c` and `at the mat` meet in one token."""
    tokenizer = tokenizer_with(TEMPLATES["letters"])
    example = Example("what?", "the c")
    encoded = encode_examples([example], tokenizer, max_tokens=100).examples[0]
    closing = encoded.token_ids[encoded.answer_from :]
    places = answer_places(example, tokenizer)
    assert tokenizer.decode([closing[places[-1]]]) == " cat"
    assert tokenizer.decode(closing[places[-1] + 1 :]) == " the mat"


@pytest.mark.parametrize("name", TEMPLATES)
def test_training_learns_what_pooling_leaves_out(name: str) -> None:
    tokenizer = tokenizer_with(TEMPLATES[name])
    encoded = encode_examples(EXAMPLES, tokenizer, max_tokens=200).examples
    labels = collate(encoded, padding=2)["labels"]
    for row, (example, one) in enumerate(zip(EXAMPLES, encoded, strict=True)):
        learnt = labels[row][labels[row] != IGNORED].tolist()
        assert learnt == one.token_ids[len(encode_prompt(example.prompt, tokenizer)) :]
        rest = len(learnt) - len(answer_places(example, tokenizer))
        assert (rest > 0) == (name != "nothing")


@pytest.mark.parametrize("name", TEMPLATES)
def test_pooled_states_are_the_mean_over_the_answer(
    name: str, base: Path, model_with: Callable[[str], LanguageModel], tmp_path: Path
) -> None:
    """Against transformers' own hidden states of each text alone."""
    model, plain = model_with(TEMPLATES[name]), tiny.load(base)
    (candidate,) = find_candidates([str(models.random_sae(tmp_path, "standard"))], tmp_path)
    sae = SparseAutoencoder.load(candidate, device="cpu")
    texts, with_bos = response_texts(EXAMPLES, model, max_tokens=128)
    assert with_bos == (not TEMPLATES[name])
    ((hidden, _),) = pooled(model, [sae], texts, prepend_bos=with_bos)
    encoded = encode_examples(EXAMPLES, model.tokenizer, max_tokens=128).examples
    for row, (example, one) in enumerate(zip(EXAMPLES, encoded, strict=True)):
        ids = torch.tensor([one.token_ids])
        with torch.no_grad():
            states = plain(input_ids=ids, output_hidden_states=True).hidden_states[2][0]
        own = [one.answer_from + place for place in answer_places(example, model.tokenizer)]
        np.testing.assert_allclose(hidden[row], states[own].mean(0), atol=1e-4)


def test_how_turns_end_changes_nothing(
    model_with: Callable[[str], LanguageModel], tmp_path: Path
) -> None:
    """What comes after an answer is not seen by it, and was the same on both sides."""
    (candidate,) = find_candidates([str(models.random_sae(tmp_path, "standard"))], tmp_path)
    sae = SparseAutoencoder.load(candidate, device="cpu")
    found = []
    asked = "{% if m.role == 'user' %}<|eos|>{% else %}"
    for end in ("", "<|end|>{{ '\\n' }}", "<|eos|>"):
        model = model_with(template(asked + end + "{% endif %}"))
        texts, with_bos = response_texts(EXAMPLES, model, max_tokens=128)
        found += pooled(model, [sae], texts, prepend_bos=with_bos)
    for hidden, activations in found[1:]:
        np.testing.assert_allclose(hidden, found[0][0], atol=1e-5)
        np.testing.assert_allclose(activations, found[0][1], atol=1e-5)


def test_the_model_reads_once_for_all_saes(
    model_with: Callable[[str], LanguageModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_with(TEMPLATES["a line's end"])
    saes = []
    for number, architecture in enumerate(("standard", "jumprelu", "topk")):
        folder = models.random_sae(tmp_path / str(number), architecture)
        (candidate,) = find_candidates([str(folder)], tmp_path)
        saes.append(SparseAutoencoder.load(candidate, device="cpu"))
    texts, with_bos = response_texts(EXAMPLES, model, max_tokens=128)
    alone = [pooled(model, [sae], texts, prepend_bos=with_bos)[0] for sae in saes]
    read: list[int] = []
    observe = model.observe
    monkeypatch.setattr(model, "observe", lambda *given: (read.append(1), observe(*given))[1])
    together = pooled(model, saes, texts, prepend_bos=with_bos)
    assert len(read) == len(list(model.batches(texts, prepend_bos=with_bos)))
    for one, other in zip(together, alone, strict=True):
        for found, expected in zip(one, other, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_answers_of_which_nothing_is_left_are_refused(
    model_with: Callable[[str], LanguageModel],
) -> None:
    upper = "{% for m in messages %}{{ m.content | upper }}\n{% endfor %}"
    model = model_with(upper)
    with pytest.raises(AlignmentError, match=r"no token of answer 1, 'I will not\.', is left to"):
        response_texts(EXAMPLES, model, max_tokens=128)
    model = model_with(TEMPLATES["spaces kept"])
    with pytest.raises(AlignmentError, match=r"no token of answer 2, ' \\n', is left to count"):
        response_texts([EXAMPLES[0], Example("why?", " \n")], model, max_tokens=128)
    # The template's own words fill what there is.
    model = model_with(TEMPLATES["thoughts before"])
    most = len(encode_prompt(EXAMPLES[0].prompt, model.tokenizer)) + 3
    with pytest.raises(AlignmentError, match=f"or it begins after {most} tokens"):
        response_texts(EXAMPLES[:1], model, max_tokens=most)


def rescaled(folder: Path, into: Path) -> Path:
    """The same SAE with other lengths of its rows, powers of two, so that nothing is rounded."""
    into.mkdir()
    (into / "cfg.json").write_bytes((folder / "cfg.json").read_bytes())
    tensors = load_file(folder / "sae_weights.safetensors")
    width = len(tensors["W_dec"])
    factors = 2.0 ** torch.randint(-4, 5, (width,), generator=torch.Generator().manual_seed(1))
    for name, value in tensors.items():
        if name == "W_dec":
            tensors[name] = value * factors[:, None]
        elif name in ("W_enc", "b_enc", "threshold", "b_gate", "b_mag"):
            tensors[name] = value / factors
        else:
            assert name in ("b_dec", "r_mag"), name
    save_file(tensors, into / "sae_weights.safetensors")
    return into


@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "gated"])
def test_how_activation_and_row_share_a_features_length_changes_nothing(
    architecture: str, model_with: Callable[[str], LanguageModel], tmp_path: Path
) -> None:
    model = model_with(TEMPLATES["a line's end"])
    folder = models.random_sae(tmp_path / "sae", architecture)
    tensors = load_file(folder / "sae_weights.safetensors")
    if "threshold" in tensors:  # too high for the states of so small a model
        save_file(
            {**tensors, "threshold": tensors["threshold"] / 20, "b_enc": tensors["b_enc"] / 20},
            folder / "sae_weights.safetensors",
        )
    folders = [folder, rescaled(folder, tmp_path / "rescaled")]
    sides = [EXAMPLES[:2], EXAMPLES[2:]]
    found = []
    for one in folders:
        (candidate,) = find_candidates([str(one)], tmp_path)
        sae = SparseAutoencoder.load(candidate, device="cpu")
        assert sae.hook_point == PLACE
        texts = [response_texts(side, model, max_tokens=128) for side in sides]
        aligned, unaligned = (
            pooled(model, [sae], side, prepend_bos=with_bos)[0][1] for side, with_bos in texts
        )
        found.append((sae, aligned, unaligned))
    (first, *activations), (second, *again) = found
    # The SAEs do differ.
    assert not torch.allclose(first.decoder_rows, second.decoder_rows)
    assert (activations[0] > 0).sum() > 20
    for one, two in zip(activations, again, strict=True):
        np.testing.assert_array_equal(one, two)
    for contrast in get_args(Contrast):
        values = [contrast_features(*two, contrast=contrast) for two in (activations, again)]
        assert values[0].order().tolist() == values[1].order().tolist()
        layers = [
            layer_from_features(
                sae.decoder_directions.numpy(), value, 3, stream=2, hook_point=PLACE, sae="sae"
            )[0]
            for sae, value in zip((first, second), values, strict=True)
        ]
        assert layers[0].features == layers[1].features
        np.testing.assert_allclose(layers[0].basis, layers[1].basis, atol=1e-6)
