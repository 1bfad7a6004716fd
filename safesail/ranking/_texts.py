"""The texts of the contrast pairs, as tokens."""

from __future__ import annotations

from safesail.errors import InputError
from safesail.language_model import LanguageModel, TokenizedText
from safesail.ranking._design import PairDesign
from safesail.study import RankingSettings


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
