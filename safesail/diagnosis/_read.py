"""Read a text once and see which explained features fire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from safesail.diagnosis._diagnosis import (
    DiagnosedToken,
    Diagnosis,
    LayerDiagnosis,
    Part,
)
from safesail.diagnosis._features import ExplainedFeature
from safesail.errors import CandidateError, InputError
from safesail.language_model import (
    FullForward,
    LanguageModel,
    TokenBatch,
    TokenizedText,
    cut,
    whole_text,
    with_answer,
)
from safesail.reading import Reading
from safesail.sparse_autoencoder import SparseAutoencoder

_TOKENS_PER_BATCH = 2048
_DOCUMENT = "the text"


@dataclass(frozen=True)
class ExplainedSae:
    """An SAE whose explained features are looked at.

    Attributes:
        sae: checked to fit the model.
        features: by index ascending; at least one.
        left_out: explained features without q999.
        sink_threshold: hidden norm above which a token is an attention sink, as in the ranking.
    """

    sae: SparseAutoencoder
    features: tuple[ExplainedFeature, ...]
    left_out: tuple[int, ...]
    sink_threshold: float


@dataclass(frozen=True)
class Answering:
    """How the model answers before the text is diagnosed.

    Attributes:
        tokens: most tokens of the answer.
        temperature: 0 takes the likeliest token each time.
        seed: of the draws, above temperature 0.
    """

    tokens: int
    temperature: float = 0.0
    seed: int = 0


def diagnose_text(
    model: LanguageModel,
    saes: Sequence[ExplainedSae],
    text: str,
    *,
    concepts: Sequence[str],
    chat: bool = False,
    answering: Answering | None = None,
) -> Diagnosis:
    """What fires on each token of a text, for all SAEs that read texts alike in one pass.

    Args:
        model: the language model.
        saes: at least one.
        text: longer than an SAE's texts it is cut in pieces, as in collection; halves of surrogate
            pairs become U+FFFD.
        concepts: whose trajectories are asked for.
        chat: put it into the model's chat template as a user's message.
        answering: let the model answer first; its tokens are diagnosed too, as they are.

    Raises:
        InputError: the text has no words, or leaves no room for an answer.
        ModelError: the chat template does not take it.
        CandidateError: an SAE gives activations that are not finite.
    """
    text = repaired(text)
    first = reading_of(saes[0].sae, model)
    whole = whole_text(model, text, document=_DOCUMENT, chat=chat, answered=answering is not None)
    if not text.strip() or whole is None:
        raise InputError("the text is empty: give some words to diagnose")
    asked = len(whole.token_ids)
    ended = None
    if answering is not None:
        whole, ended = _answered(model, whole, first, answering)
    layers = _read(model, saes, whole)
    special = set(model.tokenizer.all_special_ids)
    tokens = []
    for place, (token_id, string) in enumerate(
        zip(whole.token_ids, whole.token_strings, strict=True)
    ):
        part: Part = "prompt" if place < asked else "answer"
        own = whole.counted is None or whole.counted[place]
        tokens.append(DiagnosedToken(string, token_id, part, own and token_id not in special))
    order = sorted(range(len(saes)), key=lambda number: saes[number].sae.layer)
    return Diagnosis(
        model=model.name,
        tokens=tuple(tokens),
        layers=tuple(layers[number] for number in order),
        concepts=tuple(concepts),
        chat=chat,
        answer_ended=ended,
    )


def reading_of(sae: SparseAutoencoder, model: LanguageModel) -> Reading:
    """How an SAE reads texts."""
    return Reading.of(model, prepend_bos=sae.prepend_bos, context_size=sae.context_size)


def repaired(text: str) -> str:
    """Text whose halves of surrogate pairs, which no tokenizer takes, are U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _answered(
    model: LanguageModel, text: TokenizedText, reading: Reading, answering: Answering
) -> tuple[TokenizedText, bool]:
    """The text with the model's answer, and whether the model ended it."""
    ids = list(text.token_ids)
    if reading.prepend_bos and model.bos_token_id is not None:
        ids.insert(0, model.bos_token_id)
    if len(ids) >= model.context_size:
        raise InputError(
            f"the text has {len(ids):,} tokens, the model's context {model.context_size:,}: there "
            "is no room for an answer; shorten the text, or diagnose it without --generate"
        )
    answer = FullForward(model).answer(
        ids, answering.tokens, temperature=answering.temperature, seed=answering.seed
    )
    return with_answer(text, answer.token_ids, model), answer.ended


def _read(
    model: LanguageModel, saes: Sequence[ExplainedSae], text: TokenizedText
) -> list[LayerDiagnosis]:
    """What each SAE's features do, in the order given."""
    by_reading: dict[Reading, list[int]] = {}
    for number, one in enumerate(saes):
        by_reading.setdefault(reading_of(one.sae, model), []).append(number)
    gathered = [_Gathered(one, len(text.token_ids)) for one in saes]
    for reading, numbers in by_reading.items():
        together = [gathered[number] for number in numbers]
        thresholds = {one.sae.hook_point: one.threshold for one in together}
        texts = cut(text, reading.context_size - reading.prepend_bos)
        for batch in model.batches(
            texts, prepend_bos=reading.prepend_bos, tokens_per_batch=_TOKENS_PER_BATCH
        ):
            found = model.observe(batch, list(thresholds), thresholds)
            for each in together:
                each.add(batch, *found[each.sae.hook_point])
    return [one.result() for one in gathered]


class _Gathered:
    """Firings of one SAE's features, batch by batch."""

    def __init__(self, explained: ExplainedSae, tokens: int) -> None:
        self.sae, self.threshold = explained.sae, explained.sink_threshold
        self._explained = explained
        self._columns = torch.tensor([feature.feature for feature in explained.features])
        self._content = np.zeros(tokens, dtype=bool)
        # Places of tokens, columns, activations; of each batch.
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, batch: TokenBatch, activations: Tensor, content: Tensor) -> None:
        encoded = self.sae.encode_features(activations[content], self._columns)
        if not encoded.isfinite().all():
            raise CandidateError(
                f"SAE {self.sae.name} (layer {self.sae.layer}) gives activations that are not "
                "finite: its weights are damaged, or it belongs to another model"
            )
        rows, positions = (index.cpu().numpy() for index in content.nonzero(as_tuple=True))
        starts = np.array([text.start for text in batch.texts], dtype=np.int64)
        places = starts[rows] + positions - batch.first
        self._content[places] = True
        values = encoded.cpu().numpy()
        hits, columns = np.nonzero(values > 0)
        self._parts.append((places[hits], columns, values[hits, columns]))

    def result(self) -> LayerDiagnosis:
        parts = self._parts or [(np.zeros(0), np.zeros(0), np.zeros(0))]
        tokens, columns, activations = (np.concatenate(part) for part in zip(*parts, strict=True))
        tokens, columns = tokens.astype(np.int64), columns.astype(np.int64)
        q999 = np.array([feature.q999 for feature in self._explained.features])
        order = np.lexsort((columns, tokens))
        tokens, columns, activations = tokens[order], columns[order], activations[order]
        return LayerDiagnosis(
            sae=self.sae.name,
            layer=self.sae.layer,
            hook_point=self.sae.hook_point,
            features=self._explained.features,
            left_out=self._explained.left_out,
            content=self._content,
            tokens=tokens,
            columns=columns,
            activations=activations.astype(np.float32),
            strengths=(activations / q999[columns]).astype(np.float32),
        )
