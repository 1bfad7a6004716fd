"""Answers of a causal language model to prompts, and how likely it finds a text."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safesail.alignment._data import encode_prompt
from safesail.alignment._memory import is_out_of_memory
from safesail.errors import AlignmentError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import GenerationConfig


_LEAST_ROOM = 16
"""Tokens of an answer that the longest prompt must leave room for in the model's context."""
_MOST_SCORED = 2048
"""Tokens of texts that are scored at once, padding included, unless one text alone has more: each
has a logit for every entry of the vocabulary, which for 256,000 of them makes 2 GB in float32."""


@dataclass(frozen=True)
class Reply:
    """An answer as a model wrote it.

    Attributes:
        text: without the prompt and without special tokens.
        tokens: new tokens, the end-of-text token left out.
        cut: whether it was cut off, at the most new tokens allowed or the end of the context.
    """

    text: str
    tokens: int
    cut: bool = False


@dataclass(frozen=True)
class Likelihood:
    """How likely a model finds a text.

    Attributes:
        nats: its cross-entropy, summed over the predicted tokens.
        tokens: predicted tokens: all but the first.
    """

    nats: float
    tokens: int


class ModelAnswers:
    """Generates with a causal language model of transformers, with or without a PEFT adapter.

    Prompts are padded on the left and batched by length. Each becomes a user's message in the
    tokenizer's chat template; where there is none, it is the text to go on with. Answers are greedy
    unless a temperature is given; then they depend on the seed, the prompts and the batch size.
    Of the model's own generation settings its end tokens alone count: no penalty, beam, forced or
    suppressed token is taken over, so that systems are compared by what their weights say.
    In half precision, and where two tokens are as good as equal, a greedy answer can depend on the
    batch too, for sums are rounded in another order.

    Args:
        model: left as it is, on its device; put into inference mode while it answers.
        tokenizer: the model's.
        batch_size: prompts at once, and most texts at once.
        max_new_tokens: most tokens of an answer; fewer where the longest prompt of a batch leaves
            less of the model's context.
        temperature: 0 is greedy; otherwise tokens are sampled from the whole distribution.
        seed: of sampling.

    Raises:
        AlignmentError: a batch size or number of tokens below 1, or a negative temperature.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        batch_size: int = 16,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> None:
        if batch_size < 1 or max_new_tokens < 1 or temperature < 0:
            raise AlignmentError(
                "batch size and tokens of an answer must be 1 or more, the temperature 0 or more; "
                f"found {batch_size}, {max_new_tokens} and {temperature:g}"
            )
        self._model, self._tokenizer = model, tokenizer
        self._batch_size, self._max_new_tokens = batch_size, max_new_tokens
        self._temperature, self._seed = temperature, seed

    def answer(self, prompts: Sequence[str]) -> list[Reply]:
        """Answers to prompts, in their order.

        Raises:
            AlignmentError: out of memory, the chat template refuses a prompt, or a prompt leaves no
                room for an answer.
        """
        import torch

        encoded = [encode_prompt(prompt, self._tokenizer) for prompt in prompts]
        self._check_room(prompts, encoded)
        # The longest first: what does not fit into memory is known at once.
        order = sorted(range(len(prompts)), key=lambda index: -len(encoded[index]))
        replies: dict[int, Reply] = {}
        devices = [self._model.device] if self._model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), self._inferring():
            torch.manual_seed(self._seed)
            for first in range(0, len(order), self._batch_size):
                batch = order[first : first + self._batch_size]
                with self._room(f"{self._batch_size} prompts", "allow fewer new tokens"):
                    rows = self._generate([encoded[index] for index in batch])
                replies.update(zip(batch, map(self._reply, rows), strict=True))
        return [replies[index] for index in range(len(prompts))]

    def likelihood(self, texts: Sequence[str]) -> list[Likelihood]:
        """Likelihood of texts as they are, outside the chat template, after BOS where there is one.

        Texts longer than the model's context are cut. One of fewer than two tokens has none: 0 of
        both.

        Raises:
            AlignmentError: out of memory.
        """
        found: dict[int, Likelihood] = {}
        encoded = [self._plain(text)[: self._context or None] for text in texts]
        order = sorted(range(len(texts)), key=lambda index: -len(encoded[index]))
        with self._inferring():
            while order:
                # The first is the longest, and the others are padded to it.
                longest = len(encoded[order[0]])
                size = min(self._batch_size, max(1, _MOST_SCORED // max(1, longest)))
                batch, order = order[:size], order[size:]
                with self._room(f"{len(batch)} x {longest} tokens of texts", "cut long texts"):
                    rows = self._score([encoded[index] for index in batch])
                found.update(zip(batch, rows, strict=True))
        return [found[index] for index in range(len(texts))]

    @property
    def _context(self) -> int:
        """Positions of the model; 0 where it does not say."""
        configuration = self._model.config.get_text_config()
        return int(getattr(configuration, "max_position_embeddings", 0) or 0)

    @property
    def _least_room(self) -> int:
        return min(self._max_new_tokens, _LEAST_ROOM)

    @property
    def _padding(self) -> int:
        for name in ("pad_token_id", "eos_token_id"):
            if getattr(self._tokenizer, name) is not None:
                return int(getattr(self._tokenizer, name))
        return 0

    @property
    def _ends(self) -> list[int]:
        """Tokens that end an answer: the model's and the tokenizer's."""
        configured = self._model.generation_config.eos_token_id
        ends = configured if isinstance(configured, list) else [configured]
        return sorted({int(e) for e in (*ends, self._tokenizer.eos_token_id) if e is not None})

    def _plain(self, text: str) -> list[int]:
        ids = list(self._tokenizer(text)["input_ids"])
        first = self._tokenizer.bos_token_id
        return ids if first is None or ids[:1] == [first] else [int(first), *ids]

    def _check_room(self, prompts: Sequence[str], encoded: Sequence[Sequence[int]]) -> None:
        for number, (prompt, ids) in enumerate(zip(prompts, encoded, strict=True), start=1):
            if not ids:
                raise AlignmentError(f"prompt {number} is empty: remove it")
            if self._context and len(ids) + self._least_room > self._context:
                raise AlignmentError(
                    f"prompt {number} ({prompt[:40]!r}) has {len(ids)} tokens of the model's "
                    f"{self._context}, which leaves no room for an answer: shorten it"
                )

    def _generate(self, rows: Sequence[Sequence[int]]) -> list[list[int]]:
        """New tokens of each row, ends and padding included."""
        ids, mask = self._padded(rows, left=True)
        room = self._context - ids.shape[1] if self._context else self._max_new_tokens
        settings = self._settings(min(self._max_new_tokens, room))
        with self._settled(settings):
            out = self._model.generate(
                input_ids=ids, attention_mask=mask, generation_config=settings
            )
        new: list[list[int]] = out[:, ids.shape[1] :].tolist()
        return new

    def _settings(self, most: int) -> GenerationConfig:
        """Greedy, or sampling from the whole distribution, up to `most` new tokens."""
        from transformers import GenerationConfig

        common = {
            "max_new_tokens": most,
            "pad_token_id": self._padding,
            "eos_token_id": self._ends or None,
        }
        if not self._temperature:
            return GenerationConfig(**common, do_sample=False)
        whole = {"temperature": self._temperature, "top_k": 0, "top_p": 1.0}
        return GenerationConfig(**common, do_sample=True, **whole)

    @contextlib.contextmanager
    def _settled(self, settings: GenerationConfig) -> Iterator[None]:
        """With these generation settings in the place of the model's own.

        `generate` fills whatever a given configuration leaves unset from the model's own, and some
        of it, such as a forced token, has no value that says none. PEFT hands its own on to the
        model inside, so all that have one are given this.
        """
        kept = [
            (module, module.generation_config)
            for module in self._model.modules()
            if "generation_config" in vars(module)
        ]
        for module, _ in kept:
            module.generation_config = settings
        try:
            yield
        finally:
            for module, own in kept:
                module.generation_config = own

    def _reply(self, new: Sequence[int]) -> Reply:
        ends = set(self._ends)
        length = next((place for place, token in enumerate(new) if token in ends), None)
        written = list(new if length is None else new[:length])
        text = self._tokenizer.decode(written, skip_special_tokens=True).strip()
        return Reply(text, len(written), cut=length is None)

    def _score(self, rows: Sequence[Sequence[int]]) -> list[Likelihood]:
        import torch

        ids, mask = self._padded(rows, left=False)
        if ids.shape[1] < 2:
            return [Likelihood(0.0, 0) for _ in rows]
        logits = self._model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
        losses = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), ids[:, 1:], reduction="none"
        )
        nats = (losses * mask[:, 1:]).sum(1).tolist()
        return [
            Likelihood(n, len(row) - 1 if row else 0) for n, row in zip(nats, rows, strict=True)
        ]

    def _padded(self, rows: Sequence[Sequence[int]], *, left: bool) -> tuple[Tensor, Tensor]:
        import torch

        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self._padding)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(rows):
            place = slice(width - len(row), width) if left else slice(0, len(row))
            ids[number, place] = torch.tensor(list(row), dtype=ids.dtype)
            mask[number, place] = 1
        return ids.to(self._model.device), mask.to(self._model.device)

    @contextlib.contextmanager
    def _inferring(self) -> Iterator[None]:
        import torch

        # An adapter may be in training mode around a base that is not.
        modes = [(module, module.training) for module in self._model.modules()]
        self._model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for module, training in modes:
                module.training = training

    @contextlib.contextmanager
    def _room(self, what: str, advice: str) -> Iterator[None]:
        """One clear line where memory is short, on either device."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise AlignmentError(
                f"out of memory with {what} at once on {self._model.device}: lower the batch "
                f"size, or {advice}"
            ) from error
