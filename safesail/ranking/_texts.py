"""The texts that candidates are observed on, as tokens."""

from __future__ import annotations

from safesail.corpus import Corpus
from safesail.errors import InputError
from safesail.language_model import LanguageModel, TokenizedText
from safesail.ranking._design import PairDesign
from safesail.sparse_autoencoder import SparseAutoencoder
from safesail.study import RankingSettings

# Where an SAE does not state the length of its training texts. The time of attention grows with
# the square of the length, and models today allow for 100,000 tokens and more.
_USUAL_CONTEXT = 1024


def context_size(model: LanguageModel, sae: SparseAutoencoder) -> int:
    """Most tokens of a corpus text: as in the SAE's training, within what the model takes."""
    return min(sae.context_size or _USUAL_CONTEXT, model.context_size)


def tokenize_corpus(
    model: LanguageModel, corpus: Corpus, tokens: int, sae: SparseAutoencoder
) -> list[TokenizedText]:
    """The first documents of the corpus, tokenised, until `tokens` tokens are read.

    Args:
        model: the language model.
        corpus: read from its start.
        tokens: how many, BOS not counted; the last text may reach beyond.
        sae: its BOS rule and context size hold.

    Raises:
        InputError: the corpus is empty.
    """
    texts: list[TokenizedText] = []
    seen = 0
    size = context_size(model, sae)
    for document in corpus:
        for piece in model.tokenize(
            document.text, document=document.id, prepend_bos=sae.prepend_bos, context_size=size
        ):
            texts.append(piece)
            seen += len(piece.token_ids)
            if seen >= tokens:
                return texts
    return texts


def tokenize_pairs(
    model: LanguageModel, design: PairDesign, prepend_bos: bool, settings: RankingSettings
) -> list[TokenizedText]:
    """The pairs' texts; `document` is the text's number in the design.

    A text that is longer than the model's context comes in several pieces; where only its last
    token counts, the last one.

    Raises:
        InputError: a text has no tokens; its row is named.
    """
    texts = []
    for number, text in enumerate(design.texts):
        pieces = model.tokenize(
            text, document=str(number), prepend_bos=prepend_bos, chat=settings.chat_template
        )
        if not pieces:
            where = next(p.where for p in design.concepts.pairs if text in (p.positive, p.negative))
            raise InputError(f"{where}: the text {text[:40]!r} has no tokens; write one")
        texts += pieces[-1:] if settings.pooling == "last" else pieces
    return texts
