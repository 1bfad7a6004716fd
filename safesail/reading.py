"""A corpus as texts of a language model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from safesail.corpus import Document
from safesail.language_model import LanguageModel, TokenizedText

# Where an SAE does not state the length of its training texts. The time of attention grows with
# the square of the length, and models today allow for 100,000 tokens and more.
_USUAL_CONTEXT = 1024


@dataclass(frozen=True)
class Reading:
    """How documents become texts.

    Attributes:
        prepend_bos: whether each text begins with BOS.
        context_size: most tokens of a text, BOS included; longer documents are cut.
    """

    prepend_bos: bool
    context_size: int

    @classmethod
    def of(cls, model: LanguageModel, *, prepend_bos: bool, context_size: int | None) -> Reading:
        """As an SAE was trained, within what the model takes.

        Args:
            model: the language model.
            prepend_bos: whether the SAE's training texts began with BOS.
            context_size: tokens of its training texts; None where that is not known.
        """
        return cls(prepend_bos, min(context_size or _USUAL_CONTEXT, model.context_size))

    def texts(
        self, model: LanguageModel, documents: Iterable[Document], tokens: int
    ) -> Iterator[TokenizedText]:
        """Texts of documents, until so many tokens are read (BOS not counted).

        The last text may reach beyond. Documents are read as they are needed.

        Raises:
            ModelError: see `LanguageModel.tokenize`.
        """
        seen = 0
        for document in documents:
            for text in model.tokenize(
                document.text,
                document=document.id,
                messages=document.messages,
                prepend_bos=self.prepend_bos,
                context_size=self.context_size,
            ):
                yield text
                seen += len(text.token_ids)
                if seen >= tokens:
                    return
