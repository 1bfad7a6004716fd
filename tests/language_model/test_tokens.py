"""Tokenising, cutting and batching."""

from __future__ import annotations

import json
import random
import time
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

import models
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from safesail.builtin import builtin_path
from safesail.errors import ModelError
from safesail.language_model import LanguageModel, TokenizedText
from safesail.language_model._text import bucketed, document_key, pieces, token_spans

TEXT = "the cat sat 🙂 on the  mat; naïve café 猫猫 привет\n\nand  \t a Zebra  "


def sentencepiece_like() -> Any:
    """Unigram with spaces as word marks, as Llama-2 and Gemma have."""
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, trainers
    from tokenizers import models as token_models
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(token_models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<s>", "</s>", "<unk>"], unk_token="<unk>"
    )
    tokenizer.train_from_iterator(["the cat sat on the mat", "a naïve café by the sea"], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def lower_casing() -> Any:
    """WordPiece that lower-cases, strips accents and drops spaces."""
    from tokenizers import Tokenizer, normalizers, pre_tokenizers
    from tokenizers import models as token_models
    from transformers import PreTrainedTokenizerFast

    words = ["[UNK]", "the", "cat", "sat", "naive", "cafe", "##s", "a", "z", "##e", "##bra"]
    tokenizer = Tokenizer(
        token_models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")


@pytest.fixture(scope="module", params=["bytes", "sentencepiece", "wordpiece"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    makers = {
        "bytes": models.byte_tokenizer,
        "sentencepiece": sentencepiece_like,
        "wordpiece": lower_casing,
    }
    return makers[request.param]()


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=60), size=st.integers(1, 20))
def test_pieces_tile_any_text(tokenizer: Any, text: str, size: int) -> None:
    found = pieces(text, document="d", tokenizer=tokenizer, tokens_per_piece=size)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert [i for piece in found for i in piece.token_ids] == ids
    assert [piece.start for piece in found] == list(range(0, len(ids), size))
    assert all(len(piece.token_strings) == len(piece.token_ids) <= size for piece in found)
    joined = "".join(string for piece in found for string in piece.token_strings)
    assert joined == (text if ids else "")


def test_strings_of_bytes_that_share_a_character() -> None:
    (piece,) = pieces(
        "cat ﷽!", document="d", tokenizer=models.byte_tokenizer(), tokens_per_piece=99
    )
    assert piece.token_strings[0] == "c" or piece.token_strings[0] == "cat"
    assert "".join(piece.token_strings) == "cat ﷽!"
    assert piece.token_strings.count("") == 2  # three bytes, three tokens, one character
    assert piece.token_strings[-1] == "!"


def test_spans_give_gaps_to_the_token_after_and_the_end_to_the_last() -> None:
    assert token_spans([(0, 3), (4, 7), (8, 9)], 11) == [(0, 3), (3, 7), (7, 11)]
    assert token_spans([(0, 2), (0, 2), (2, 4)], 4) == [(0, 2), (2, 2), (2, 4)]


def test_ordinary_words_are_read_with_their_space(llama: LanguageModel) -> None:
    (piece,) = llama.tokenize("the cat sat", document="d", prepend_bos=True)
    key = document_key("d", "the cat sat")
    assert piece == TokenizedText("d", 0, piece.token_ids, ["the", " cat", " sat"], None, key)
    assert llama.tokenizer.decode(piece.token_ids) == "the cat sat"


def test_pieces_leave_room_for_bos(llama: LanguageModel) -> None:
    text = "the cat sat on the mat and the dog sat by the door " * 20
    assert llama.context_size == 64
    for context_size, prepend_bos, longest in [(None, True, 63), (None, False, 64), (10, True, 9)]:
        found = llama.tokenize(
            text, document="d", prepend_bos=prepend_bos, context_size=context_size
        )
        assert {len(piece.token_ids) for piece in found[:-1]} == {longest}
        (batch,) = llama.batches(found[:1], prepend_bos=prepend_bos)
        llama.activations(batch, ["blocks.0.hook_resid_post"])
    longer = llama.tokenize(text, document="d", prepend_bos=False, context_size=10_000)
    assert len(longer[0].token_ids) == 64


def test_a_context_too_small_for_text_is_an_error(llama: LanguageModel) -> None:
    with pytest.raises(ModelError, match="no room"):
        llama.tokenize("cat", document="d", prepend_bos=True, context_size=1)


def test_an_empty_text_gives_no_piece(llama: LanguageModel) -> None:
    assert llama.tokenize("", document="d", prepend_bos=True) == []


def test_every_piece_carries_the_key_of_id_and_whole_text(llama: LanguageModel) -> None:
    def keys(text: str, document: str) -> set[int]:
        found = llama.tokenize(text, document=document, prepend_bos=True, context_size=8)
        assert len(found) > 1
        return {piece.key for piece in found}

    (key,) = keys("the cat sat on the mat " * 5, "d")
    (end,) = keys("the cat sat on the mat " * 5 + "dog", "d")
    (name,) = keys("the cat sat on the mat " * 5, "e")
    assert len({key, end, name}) == 3
    assert 0 <= key < 2**64


def test_the_key_is_stable_and_knows_where_the_id_ends() -> None:
    assert document_key("d", "the cat sat") == 15437305558001649996
    assert document_key("a", "bc") != document_key("ab", "c")
    assert document_key("a\ud800", "\udfff") != document_key("a", "\udfff")


def test_a_document_of_one_token(llama: LanguageModel) -> None:
    (piece,) = llama.tokenize("a", document="d", prepend_bos=True)
    assert len(piece.token_ids) == 1
    (batch,) = llama.batches([piece], prepend_bos=True)
    assert batch.content_mask.tolist() == [[False, True]]


def test_a_document_of_a_million_tokens(llama: LanguageModel) -> None:
    """All in pieces, in seconds."""
    text = "the cat sat " * 400_000
    begun = time.perf_counter()
    found = llama.tokenize(text, document="d", prepend_bos=True)
    groups = list(bucketed(found, first=1, tokens_per_batch=4096))
    seconds = time.perf_counter() - begun
    assert sum(len(piece.token_ids) for group in groups for piece in group) > 1_000_000
    assert {piece.key for piece in found} == {document_key("d", text)}
    assert seconds < 60  # some 5 on two cores


@pytest.mark.parametrize("word", ["the cat sat on the mat, ", "猫"])
def test_a_long_document_is_tokenised_in_parts_and_its_strings_are_the_text(
    llama: LanguageModel, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut before a space the tokens are the same; without any, they may differ at the cuts."""
    text = word * 400
    whole = llama.tokenize(text, document="d", prepend_bos=True)
    monkeypatch.setattr("safesail.language_model._text._LONGEST_SLICE", 1000)
    cut = llama.tokenize(text, document="d", prepend_bos=True)
    assert "".join(s for piece in cut for s in piece.token_strings) == text
    assert [p.start for p in cut] == [p.start for p in whole]
    if " " in word:
        assert cut == whole


def text_of(number: int, length: int) -> TokenizedText:
    return TokenizedText(f"d{number}", 0, [5] * length, ["x"] * length)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 70), max_size=300),
    first=st.integers(0, 1),
    tokens_per_batch=st.integers(1, 200),
)
def test_every_text_is_in_one_batch_within_the_budget(
    lengths: list[int], first: int, tokens_per_batch: int
) -> None:
    texts = [text_of(number, length) for number, length in enumerate(lengths)]
    groups = list(bucketed(texts, first=first, tokens_per_batch=tokens_per_batch))
    found = [text.document for group in groups for text in group]
    assert sorted(found) == sorted(text.document for text in texts)
    for group in groups:
        longest = max(len(text.token_ids) for text in group) + first
        assert len(group) == 1 or len(group) * longest <= tokens_per_batch
    again = list(bucketed(iter(texts), first=first, tokens_per_batch=tokens_per_batch))
    assert again == groups


def padding(groups: list[list[TokenizedText]]) -> float:
    """Padding tokens per real token, BOS counted."""
    real = sum(1 + len(text.token_ids) for group in groups for text in group)
    padded = sum(len(group) * (1 + max(len(t.token_ids) for t in group)) for group in groups)
    return padded / real - 1


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 2000), min_size=1, max_size=300))
@example(lengths=[287, 311])
def test_only_tiny_groups_hold_much_padding(lengths: list[int]) -> None:
    texts = [text_of(number, length) for number, length in enumerate(lengths)]
    for group in bucketed(texts, first=1, tokens_per_batch=4096):
        without_last = sorted(len(text.token_ids) + 1 for text in group)[:-1]
        # 1 - 288 / 300 is 0.04 and a last bit.
        assert padding([group]) <= 0.04 + 1e-12 or sum(without_last) < 4096 / 16


def test_groups_depend_on_the_list_alone() -> None:
    lists = [[text_of(n, 1 + n * seed % 90) for n in range(300)] for seed in (7, 11)]
    apart = [list(bucketed(texts, first=1, tokens_per_batch=512)) for texts in lists]
    again = [list(bucketed(texts, first=1, tokens_per_batch=512)) for texts in reversed(lists)]
    assert apart == again[::-1]


@pytest.mark.parametrize("texts_of_chunk", [250, 1000, 6000])
def test_padding_stays_below_five_percent_on_lengths_with_a_long_tail(texts_of_chunk: int) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.empty(6000).log_normal_(4.5, 0.8, generator=generator).clamp(1, 1023).int()
    texts = [text_of(number, length) for number, length in enumerate(lengths.tolist())]
    groups = [
        group
        for start in range(0, len(texts), texts_of_chunk)
        for group in bucketed(texts[start : start + texts_of_chunk], first=1, tokens_per_batch=4096)
    ]
    assert padding(groups) < 0.05


def assert_little_padding(model: LanguageModel, texts: list[str]) -> None:
    """In chunks of 100,000 tokens: under 5 %, and not bought with very many batches."""
    found = [
        piece
        for number, text in enumerate(texts)
        for piece in model.tokenize(text, document=str(number), prepend_bos=True)
    ]
    ends = list(accumulate(len(piece.token_ids) + 1 for piece in found))
    chunks = [
        [piece for _, piece in group]
        for _, group in groupby(zip(ends, found, strict=True), lambda pair: pair[0] // 100_000)
    ]
    for size, least_fill in ((4096, 1 / 3), (16_384, 1 / 9)):
        groups = [g for chunk in chunks for g in bucketed(chunk, first=1, tokens_per_batch=size)]
        assert padding(groups) < 0.05
        assert len(groups) * size * least_fill < ends[-1]


@pytest.fixture(scope="module")
def lab_model() -> LanguageModel:
    return LanguageModel.load(str(builtin_path("lab", "model")), device="cpu")


def test_padding_on_the_labs_corpus(lab_model: LanguageModel) -> None:
    table = pq.read_table(builtin_path("lab", "corpus.parquet"))
    assert_little_padding(lab_model, table["text"].to_pylist())


def test_padding_on_public_texts(lab_model: LanguageModel, public_data: Path) -> None:
    texts = []
    for path in sorted(public_data.glob("*/data.jsonl")):
        rows = (json.loads(line) for line in path.open(encoding="utf-8"))
        texts += [row["text"] for row in rows if "text" in row]
    assert len(texts) > 10_000
    random.Random(0).shuffle(texts)
    assert_little_padding(lab_model, texts)


def test_the_first_batches_are_not_the_shortest_texts() -> None:
    texts = [text_of(number, 1 + number % 100) for number in range(2000)]
    groups = bucketed(texts, first=0, tokens_per_batch=1000)
    lengths = [len(text.token_ids) for _ in range(20) for text in next(groups)]
    assert max(lengths) > 80
    assert min(lengths) < 30


def test_texts_are_read_as_batches_are_taken() -> None:
    taken = 0

    def endless() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield text_of(taken, 10)

    groups = bucketed(endless(), first=0, tokens_per_batch=100)
    first = [next(groups) for _ in range(3)]
    assert sum(map(len, first)) == 30
    assert taken <= 64 * 10


def test_masks_of_a_batch(llama: LanguageModel) -> None:
    texts = [
        TokenizedText("a", 0, [5, 1, 6, 7], ["w", "x", "y", "z"]),  # 1 is EOS
        TokenizedText("b", 0, [8], ["w"]),
    ]
    (batch,) = llama.batches(texts, prepend_bos=True)
    order = [text.document for text in batch.texts]
    short, long = order.index("b"), order.index("a")
    assert batch.first == 1
    assert batch.token_ids.dtype == torch.int64
    assert batch.token_ids[long].tolist() == [0, 5, 1, 6, 7]
    assert batch.token_ids[short, :2].tolist() == [0, 8]
    assert batch.attention_mask.tolist()[long] == [True] * 5
    assert batch.attention_mask.tolist()[short] == [True, True, False, False, False]
    assert batch.content_mask.tolist()[long] == [False, True, False, True, True]
    assert batch.content_mask.tolist()[short] == [False, True, False, False, False]


def test_without_bos_texts_begin_at_once(llama: LanguageModel) -> None:
    (batch,) = llama.batches([TokenizedText("a", 0, [5, 6], ["x", "y"])], prepend_bos=False)
    assert batch.first == 0
    assert batch.token_ids.tolist() == [[5, 6]]
    assert batch.content_mask.all()


def with_tokenizer(folder: Path, tokenizer: Any) -> LanguageModel:
    """A tiny Llama with another tokenizer's files."""
    models.tiny_llama(folder)
    for file in folder.glob("*token*"):
        file.unlink()
    tokenizer.save_pretrained(folder)
    return LanguageModel.load(str(folder), device="cpu")


def test_a_tokenizer_without_bos_is_used_without_it(tmp_path: Path) -> None:
    model = with_tokenizer(tmp_path / "m", models.byte_tokenizer(bos_token=None))
    assert model.bos_token_id is None
    (piece,) = model.tokenize("the cat", document="d", prepend_bos=False)
    (batch,) = model.batches([piece], prepend_bos=False)
    assert model.activations(batch, ["blocks.0.hook_mlp_out"])
    with pytest.raises(ModelError, match="no BOS token, which is to be prepended: set `bos_token`"):
        model.tokenize("the cat", document="d", prepend_bos=True)
    with pytest.raises(ModelError, match="no BOS token"):
        next(model.batches([piece], prepend_bos=True))


def test_a_tokenizer_without_padding_token_serves(tmp_path: Path) -> None:
    model = with_tokenizer(tmp_path / "m", models.byte_tokenizer(pad_token=None))
    texts = [p for t in ("the", TEXT) for p in model.tokenize(t, document=t, prepend_bos=True)]
    (batch,) = model.batches(texts, prepend_bos=True)
    found = model.activations(batch, ["blocks.1.hook_resid_post"])["blocks.1.hook_resid_post"]
    assert found.isfinite().all()
    assert int(batch.attention_mask.sum()) == sum(len(t.token_ids) + 1 for t in texts)


def test_a_tokenizer_that_adds_bos_by_itself_does_not_double_it(tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = models.byte_tokenizer()
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", 0)]
    )
    assert tokenizer("cat")["input_ids"][0] == 0
    model = with_tokenizer(tmp_path / "m", tokenizer)
    (batch,) = model.batches(
        model.tokenize("cat", document="d", prepend_bos=True), prepend_bos=True
    )
    assert batch.token_ids[0].tolist().count(0) == 1


def test_ids_that_the_model_does_not_know_are_an_error(tmp_path: Path) -> None:
    tokenizer = models.byte_tokenizer()
    tokenizer.add_tokens([f"<extra{number}>" for number in range(models.VOCABULARY)])
    model = with_tokenizer(tmp_path / "m", tokenizer)
    assert model.tokenize("the cat", document="d", prepend_bos=True)
    with pytest.raises(ModelError, match="do not belong together: document 'd7' gives token"):
        model.tokenize("the <extra399>", document="d7", prepend_bos=True)


def test_a_tokenizer_without_fast_version_is_refused(tmp_path: Path) -> None:
    from transformers import ByT5Tokenizer

    with pytest.raises(ModelError, match="no fast version"):
        with_tokenizer(tmp_path / "m", ByT5Tokenizer())


def test_sentencepiece_tokens_keep_their_space_in_logit_lists(tmp_path: Path) -> None:
    model = with_tokenizer(tmp_path / "m", sentencepiece_like())
    shown = {token for top, bottom in model.logit_directions(torch.eye(32), 60) for token in top}
    words = {t.replace("▁", " ") for t in model.tokenizer.get_vocab() if t.startswith("▁")}
    assert words & shown
    assert all(f"{word}" in shown or word.strip() not in shown for word in words if len(word) > 3)
