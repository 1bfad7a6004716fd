"""Change a feature while the model runs, and see what it says instead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from safesail.diagnosis._intervention import (
    Answers,
    Intervention,
    PromptOutcome,
    TokenProbability,
    effect_of,
)
from safesail.diagnosis._read import reading_of, repaired
from safesail.diagnosis._shift import FeatureEdit, TextChange, feature_shift
from safesail.errors import CandidateError, InputError
from safesail.language_model import (
    FullForward,
    LanguageModel,
    TokenizedText,
    token_strings,
    token_text,
    whole_text,
    word_token,
)
from safesail.sparse_autoencoder import SparseAutoencoder

_TOKENS_SHOWN = 10
# Tokens that go through the model at once: rows of one prompt.
_TOKENS_AT_ONCE = 2048


class FeatureIntervention:
    """One feature of an SAE, and others that stand in for it.

    Attributes:
        edit: what becomes of the feature.
        controls: features along whose decoder directions the activations are shifted instead, at
            each token as far as the feature shifts them.
    """

    def __init__(
        self,
        model: LanguageModel,
        sae: SparseAutoencoder,
        edit: FeatureEdit,
        *,
        sink_threshold: float,
        controls: Sequence[int] = (),
        chat: bool = False,
    ) -> None:
        """Check that the model can be changed where the SAE writes.

        Args:
            model: the language model.
            sae: checked to fit it.
            edit: what becomes of the feature.
            sink_threshold: hidden norm above which a token is an attention sink.
            controls: features of the same SAE.
            chat: put prompts into the chat template as a user's message, to be answered.

        Raises:
            ModelError: the model cannot be changed there.
            CandidateError: the SAE has no such feature.
        """
        if not 0 <= edit.feature < sae.width:
            raise CandidateError(
                f"SAE {sae.name} has no feature {edit.feature}: its features are 0 to "
                f"{sae.width - 1}"
            )
        self.edit, self.controls = edit, tuple(controls)
        self._model, self._sae, self._chat = model, sae, chat
        self._reading = reading_of(sae, model)
        self._thresholds = {sae.hook_point: sink_threshold}
        self._forward = FullForward(model, reads=sae.hook_point, writes=sae.output_hook_point)

    def run(
        self,
        prompts: Sequence[str],
        targets: Sequence[int],
        *,
        generate: int,
        compare: bool = True,
    ) -> Intervention:
        """Measure the intervention on prompts.

        Args:
            prompts: at least one.
            targets: ids of the tokens whose total probability is measured; at least one.
            generate: most tokens of the answers to the first prompt; 0 for none.
            compare: whether the effect on the targets is compared with the controls', which says
                nothing where the targets were taken from the feature's own direction.

        Raises:
            InputError: a prompt has no words, or is longer than the model's context.
            ModelError: the chat template does not take a prompt.
        """
        texts = [self._text(prompt) for prompt in prompts]
        outcomes = tuple(self._outcome(text, targets) for text in texts)
        sae, edit, tokenizer = self._sae, self.edit, self._model.tokenizer
        return Intervention(
            model=self._model.name,
            sae=sae.name,
            layer=sae.layer,
            hook_point=sae.output_hook_point,
            feature=edit.feature,
            q999=edit.q999,
            mode=edit.mode,
            value=edit.value if edit.mode != "ablate" else 0.0,
            targets=tuple(token_text(target, tokenizer) for target in targets),
            controls=self.controls,
            outcomes=outcomes,
            answers=self._answers(texts[0], generate) if generate else None,
            effect=effect_of(outcomes) if compare else None,
        )

    def _text(self, prompt: str) -> TokenizedText:
        text = whole_text(
            self._model, repaired(prompt), document="the prompt", chat=self._chat, answered=True
        )
        if not prompt.strip() or text is None:
            raise InputError("a prompt is empty: give some words")
        tokens = len(text.token_ids) + self._reading.prepend_bos
        if tokens > self._model.context_size:
            raise InputError(
                f"a prompt has {tokens:,} tokens, the model's context {self._model.context_size:,}"
                f": shorten {prompt[:40]!r} ..."
            )
        return text

    def _look(self, text: TokenizedText) -> tuple[Tensor, Tensor, Tensor]:
        """Ids [position] with BOS, which of them are content, and activations [position, d]."""
        (batch,) = self._model.batches([text], prepend_bos=self._reading.prepend_bos)
        found = self._model.observe(batch, list(self._thresholds), self._thresholds)
        activations, content = found[self._sae.hook_point]
        return batch.token_ids[0], content[0], activations[0]

    def _outcome(self, text: TokenizedText, targets: Sequence[int]) -> PromptOutcome:
        ids, content, x = self._look(text)
        shift, _ = feature_shift(self._sae, x[content], self.edit)
        feature = torch.tensor([self.edit.feature])
        strength = self._sae.encode_features(x[content], feature) / self.edit.q999
        before = self._forward.next_logits(ids[None])[0].double().log_softmax(-1)
        after = self._after(ids, content)
        own, others = after[0], after[1:]
        change = own.exp() - before.exp()
        order = change.argsort(descending=True, stable=True)
        wanted = torch.tensor(list(targets), device=before.device)

        def probability(log: Tensor) -> float:
            return float(log[wanted].logsumexp(-1).exp())

        def shown(places: Tensor) -> tuple[TokenProbability, ...]:
            return tuple(
                TokenProbability(
                    token_text(i, self._model.tokenizer),
                    i,
                    float(before[i].exp()),
                    float(own[i].exp()),
                )
                for i in places.tolist()
            )

        return PromptOutcome(
            prompt="".join(text.token_strings),
            tokens=int(content.sum()),
            strength=float(strength.max()) if len(strength) else 0.0,
            shift=float((shift.norm(dim=-1) / x[content].norm(dim=-1)).mean())
            if len(shift)
            else 0.0,
            kl=_divergence(before, own),
            kl_controls=tuple(_divergence(before, one) for one in others),
            up=shown(order[:_TOKENS_SHOWN]),
            down=shown(order.flip(0)[:_TOKENS_SHOWN]),
            target_before=probability(before),
            target_after=probability(own),
            target_controls=tuple(probability(one) for one in others),
        )

    def _after(self, ids: Tensor, content: Tensor) -> Tensor:
        """Log probabilities of the next token, [1 + controls, token]: the feature's first."""
        rows: list[int | None] = [None, *self.controls]
        at_once = max(1, _TOKENS_AT_ONCE // len(ids))
        found = []
        for begin in range(0, len(rows), at_once):
            part = rows[begin : begin + at_once]
            change = TextChange(self._sae, self.edit, content, part)
            logits = self._forward.next_logits(ids.expand(len(part), -1), change)
            found.append(logits.double().log_softmax(-1))
        return torch.cat(found)

    def _answers(self, text: TokenizedText, most: int) -> Answers:
        ids, content, _ = self._look(text)

        def answer(rows: Sequence[int | None] | None) -> str:
            change = None
            if rows is not None:
                change = TextChange(self._sae, self.edit, content, rows)
            tokens = self._forward.answer(ids.tolist(), most, change=change).token_ids
            strings = token_strings(tokens, before=text.token_ids, tokenizer=self._model.tokenizer)
            return "".join(strings)

        control = answer(self.controls[:1]) if self.controls else None
        return Answers("".join(text.token_strings), answer(None), answer([None]), control)


def _divergence(before: Tensor, after: Tensor) -> float:
    """Kullback-Leibler divergence in nats, from log probabilities."""
    # Rounding may make it less than 0.
    return max(0.0, float((before.exp() * (before - after)).sum()))


def alive_features(
    model: LanguageModel,
    sae: SparseAutoencoder,
    texts: Iterable[TokenizedText],
    *,
    sink_threshold: float,
    tokens: int,
) -> list[int]:
    """Features that fire on at least one content token of the first texts.

    Args:
        model: the language model.
        sae: checked to fit it.
        texts: as the SAE reads them; read until there are tokens enough.
        sink_threshold: hidden norm above which a token is an attention sink.
        tokens: content tokens that are looked at; the last batch may reach beyond.
    """
    reading = reading_of(sae, model)
    thresholds = {sae.hook_point: sink_threshold}
    fires = torch.zeros(sae.width, dtype=torch.bool)
    seen = 0
    for batch in model.batches(
        texts, prepend_bos=reading.prepend_bos, tokens_per_batch=_TOKENS_AT_ONCE
    ):
        activations, content = model.observe(batch, list(thresholds), thresholds)[sae.hook_point]
        fires |= (sae.encode(activations[content]) > 0).any(0).cpu()
        seen += int(content.sum())
        if seen >= tokens:
            break
    return [int(feature) for feature in fires.nonzero().flatten()]


def draw_controls(alive: Sequence[int], feature: int, count: int, seed: int) -> tuple[int, ...]:
    """Other features, drawn without repetition.

    Raises:
        InputError: there are not so many.
    """
    others = [one for one in alive if one != feature]
    if len(others) < count:
        raise InputError(
            f"only {len(others)} other features fire on the corpus' beginning: ask for at most so "
            "many --controls"
        )
    drawn = np.random.default_rng(seed).choice(len(others), size=count, replace=False)
    return tuple(others[place] for place in drawn)


def target_tokens(words: Sequence[str], model: LanguageModel) -> list[int]:
    """The tokens that words begin with, each once.

    Raises:
        InputError: no word begins with a token of its own.
    """
    found = [word_token(word, model.tokenizer) for word in words]
    tokens = list(dict.fromkeys(token for token in found if token is not None))
    if not tokens:
        raise InputError(
            "no token to measure: name some with --tokens, such as --tokens ' gun, knife'"
        )
    return tokens
