"""The model run to its end: what token comes next, and an answer, perhaps with a change inside."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from safesail.errors import ModelError
from safesail.language_model._hook_points import Site

if TYPE_CHECKING:
    from safesail.language_model._model import LanguageModel

Change = Callable[[Tensor, int], Tensor]
"""Given what is read, float32 [batch, position, d], and the place of the first position in the
text (BOS is place 0): what is added where it is written, [batch, position, d_out]."""

# Where everything that the model goes on with passes through. The stream between attention and MLP
# is seen at the input of a norm, and goes past it too: a change there would be half a change.
_WRITABLE = re.compile(
    r"blocks\.\d+\.(?:hook_resid_pre|hook_resid_post|hook_attn_out|hook_mlp_out|attn\.hook_z)"
)


@dataclass(frozen=True)
class Answer:
    """What a model went on with.

    Attributes:
        token_ids: of the answer; what ends a text is left out.
        ended: whether the model ended it; else it was cut at the length asked for, or at the end
            of the model's context.
    """

    token_ids: tuple[int, ...]
    ended: bool


class FullForward:
    """A language model up to its logits, and a hook point at which it can be changed.

    The plain model of transformers is used, with its cache of keys and values, where it shows the
    hook points as TransformerLens' bridge does; else the bridge, which reads the whole text again
    for every token.
    """

    def __init__(self, model: LanguageModel, *, reads: str = "", writes: str = "") -> None:
        """Nothing is run yet.

        Args:
            model: the language model.
            reads: hook point that changes are computed from; none where nothing is changed.
            writes: hook point that they are added to: the same, or above it.

        Raises:
            ModelError: the model has no such hook point, or cannot be changed there.
        """
        self._model = model
        self._plain = model._forward.fast._model
        self._bridge = model._bridge
        self._reads, self._writes = (name and model.hook_point(name) for name in (reads, writes))
        if writes and not _WRITABLE.fullmatch(self._writes):
            raise ModelError(
                f"{self._writes} cannot be changed: use an SAE that writes to the residual stream "
                "before or after a block, to the output of attention or to that of the MLP"
            )
        names = {self._reads, self._writes} - {""}
        self._sites = model._forward.fast_sites(sorted(names))
        self.uses_bridge = len(self._sites) < len(names)
        known = min(model._vocabulary, len(model.tokenizer))
        self._known = slice(known)
        parameters = inspect.signature(self._plain.forward).parameters
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}

    @torch.inference_mode()
    def next_logits(self, token_ids: Tensor, change: Change | None = None) -> Tensor:
        """Logits of the token after each text.

        Args:
            token_ids: int64 [batch, position], texts of one length, BOS first where they have one.
            change: what is added inside.

        Returns:
            float32 [batch, token], for the tokens that the tokenizer knows.
        """
        ids = token_ids.to(self._model.device)
        if self.uses_bridge:
            return self._run_bridge(ids, change)
        with self._changed(change, 0):
            output = self._plain(ids, use_cache=False, **self._last_only)
        return self._last(output.logits)

    @torch.inference_mode()
    def answer(
        self,
        token_ids: Sequence[int],
        most: int,
        *,
        change: Change | None = None,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Answer:
        """Go on with a text.

        Args:
            token_ids: of the text, BOS first where it has one.
            most: most tokens of the answer; fewer fit where the model's context is full.
            change: what is added inside, at the text's tokens and at the answer's.
            temperature: 0 takes the likeliest token each time; else tokens are drawn from the
                model's distribution at that temperature.
            seed: of the draws.
        """
        generator = torch.Generator().manual_seed(seed)
        ends = self._ends()
        device = self._model.device
        ids = torch.tensor([list(token_ids)], dtype=torch.int64, device=device)
        most = min(most, self._model.context_size - ids.shape[1])
        answer: list[int] = []
        waiting, first, cache = ids, 0, None
        while len(answer) < most:
            if self.uses_bridge:
                logits = self._run_bridge(ids, change)
            else:
                with self._changed(change, first):
                    output = self._plain(
                        waiting, past_key_values=cache, use_cache=True, **self._last_only
                    )
                logits, cache = self._last(output.logits), output.past_key_values
            token = _pick(logits[0], temperature, generator)
            if token in ends:
                return Answer(tuple(answer), ended=True)
            answer.append(token)
            first += waiting.shape[1]
            waiting = torch.tensor([[token]], dtype=torch.int64, device=device)
            ids = torch.cat([ids, waiting], dim=1)
        return Answer(tuple(answer), ended=False)

    def _last(self, logits: Tensor) -> Tensor:
        return logits[:, -1, self._known].float()

    def _ends(self) -> set[int]:
        """Tokens that end a text, by the model's configurations and its tokenizer."""
        generation = getattr(self._plain, "generation_config", None)
        stated = [
            getattr(generation, "eos_token_id", None),
            getattr(self._plain.config.get_text_config(), "eos_token_id", None),
            self._model.tokenizer.eos_token_id,
        ]
        listed = (ids if isinstance(ids, list | tuple) else [ids] for ids in stated)
        return {token for ids in listed for token in ids if token is not None}

    @contextmanager
    def _changed(self, change: Change | None, first: int) -> Iterator[None]:
        """The plain model, changed until the block ends."""
        with ExitStack() as stack:
            if change is not None:
                through = _Through(change, first)
                if self._reads != self._writes:
                    self._attach(stack, self._sites[self._reads], through.read)
                    self._attach(stack, self._sites[self._writes], through.add)
                else:
                    self._attach(stack, self._sites[self._writes], through.read_and_add)
            yield

    def _attach(self, stack: ExitStack, site: Site, step: Callable[[Tensor], Tensor]) -> None:
        module = self._plain.get_submodule(site.module)
        if site.side == "in":
            handle = module.register_forward_pre_hook(_before(step), with_kwargs=True)
        else:
            handle = module.register_forward_hook(_after(step))
        stack.callback(handle.remove)

    def _run_bridge(self, ids: Tensor, change: Change | None) -> Tensor:
        hooks: list[tuple[str, Any]] = []
        if change is not None:
            through = _Through(change, 0)
            if self._reads != self._writes:
                hooks = [
                    (self._reads, lambda value, hook: through.read(value)),
                    (self._writes, lambda value, hook: through.add(value)),
                ]
            else:
                hooks = [(self._writes, lambda value, hook: through.read_and_add(value))]
        mask = torch.ones_like(ids)
        with self._bridge.hooks(fwd_hooks=hooks):
            logits = self._bridge(ids, attention_mask=mask, use_cache=False, return_type="logits")
        return self._last(logits)


class _Through:
    """What passes the hook points on its way."""

    def __init__(self, change: Change, first: int) -> None:
        self._change, self._first = change, first
        self._seen: Tensor | None = None

    def read(self, value: Tensor) -> Tensor:
        self._seen = value.flatten(2).float()
        return value

    def add(self, value: Tensor) -> Tensor:
        assert self._seen is not None  # what is read lies before what is written
        added = self._change(self._seen, self._first).reshape(value.shape)
        # In half precision the sum is rounded once.
        return (value.float() + added).to(value.dtype)

    def read_and_add(self, value: Tensor) -> Tensor:
        return self.add(self.read(value))


def _before(step: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (step(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": step(kwargs["hidden_states"])}

    return hook


def _after(step: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    def hook(_: Any, __: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (step(output[0]), *output[1:])
        return step(output)

    return hook


def _pick(logits: Tensor, temperature: float, generator: torch.Generator) -> int:
    if temperature <= 0:
        return int(logits.argmax())
    # On the processor, so that a seed means the same draws whatever the model runs on.
    probabilities = (logits.double().cpu() / temperature).softmax(-1)
    return int(torch.multinomial(probabilities, 1, generator=generator))
