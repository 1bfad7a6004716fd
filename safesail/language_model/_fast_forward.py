"""A plain model of transformers run up to hook points.

It computes nothing that is not asked for, so it is faster than TransformerLens' bridge, which
names and keeps every step inside the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from safesail.language_model._hook_points import Site


class Reached(Exception):  # noqa: N818 (it is not an error)
    """The last of the hook points is computed: what lies above would be computed for nothing."""


class Capture:
    """What hook points show during one forward pass.

    Attributes:
        found: by hook point, float32 [batch, position, d]; heads are flattened into d.
    """

    def __init__(self, names: Sequence[str], stop: Callable[[Tensor], Exception]) -> None:
        """Nothing is seen yet; `stop` makes what is raised at the last of the names."""
        self._missing = set(names)
        self._stop = stop
        self.found: dict[str, Tensor] = {}

    def keep(self, name: str, value: Tensor) -> None:
        """Keep a value; raises what `stop` makes once every name has one."""
        self._missing.discard(name)
        # Later steps of some models add to a value in place.
        kept = value.to(torch.float32, copy=bool(self._missing))
        self.found[name] = kept.flatten(2)
        if not self._missing:
            raise self._stop(value)


class FastForward:
    """A causal model of transformers, stopped at the last hook point asked for.

    Attributes:
        attention: how it computes attention: `sdpa` or `eager`.
    """

    def __init__(self, model: Any) -> None:
        """Wrap a model that is in evaluation mode."""
        self._model = model
        self.attention = str(model.config._attn_implementation)

    @torch.inference_mode()
    def run(self, ids: Tensor, sites: Mapping[str, Site]) -> dict[str, Tensor]:
        """Activations of texts padded on the right.

        No attention mask is given: attention is causal, so no token sees the padding after it,
        and attention without a mask is faster.

        Args:
            ids: int64 [batch, position].
            sites: where each hook point's values are seen.

        Returns:
            By hook point, float32 [batch, position, d]; meaningless at padding. Hook points whose
            site showed no values are left out.
        """
        capture = Capture(list(sites), lambda _: Reached())
        handles = []
        try:
            for name, site in sites.items():
                module = self._model.get_submodule(site.module)
                if site.side == "in":
                    hook = _input_hook(capture, name)
                    handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
                else:
                    handles.append(module.register_forward_hook(_output_hook(capture, name)))
            self._model(ids, use_cache=False)
        except Reached:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return capture.found


def _input_hook(capture: Capture, name: str) -> Callable[..., None]:
    def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        value = args[0] if args else kwargs.get("hidden_states")
        if isinstance(value, Tensor):
            capture.keep(name, value)

    return hook


def _output_hook(capture: Capture, name: str) -> Callable[..., None]:
    def hook(_: Any, __: Any, output: Any) -> None:
        value = output[0] if isinstance(output, tuple) else output
        if isinstance(value, Tensor):
            capture.keep(name, value)

    return hook
