"""Forward passes up to hook points: the fast way where it is proven equal to the bridge's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from safesail.errors import ModelError
from safesail.language_model._fast_forward import Capture, FastForward
from safesail.language_model._hook_points import HookPoints, Site

# The two ways are compared on two rows of so many random tokens; in the second only the first few
# are text, so that a model whose tokens see the padding after them is found out.
_TOKENS = 12
_TEXT_OF_SECOND = 5
# Largest difference of a token, as a share of its own size or the median token's. A wrong place
# differs by some 100 %; the rest is rounding, which grows with the layers.
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}


class Forward:
    """A model's forward pass up to hook points, which are named canonically.

    What a hook point shows is what TransformerLens' bridge shows there. The plain model is used
    instead where it showed the same on a few tokens when the point was first asked for.
    """

    def __init__(self, bridge: Any, plain: Any, hook_points: HookPoints, model: str) -> None:
        """Compare nothing yet.

        Args:
            bridge: a TransformerBridge.
            plain: the same model, as transformers runs it.
            hook_points: of the bridge.
            model: its name, for messages.
        """
        self._bridge = bridge
        self._hook_points = hook_points
        self._model = model
        self._fast_sites: dict[str, Site | None] = {}
        self.fast = FastForward(plain)

    def run(self, ids: Tensor, mask: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Activations at hook points, in one pass that ends at the last of them.

        Args:
            ids: int64 [batch, position], padded on the right.
            mask: bool [batch, position]; False at padding.
            names: canonical names of hook points.

        Returns:
            float32 [batch, position, d] by name; heads are flattened into d. Values at padding are
            meaningless.

        Raises:
            ModelError: the model never computes one of them.
        """
        if not names:
            return {}
        sites = self.fast_sites(names)
        if len(sites) == len(set(names)):
            return self.fast.run(ids, sites)
        return self._run_bridge(ids, mask, names)

    def fast_sites(self, names: Sequence[str]) -> dict[str, Site]:
        """Those hook points that the plain model shows as the bridge does, and where.

        Raises:
            ModelError: as in `run`.
        """
        new = [name for name in names if name not in self._fast_sites]
        if new:
            self._fast_sites |= self._compare(new)
        sites = {name: self._fast_sites[name] for name in names}
        return {name: site for name, site in sites.items() if site is not None}

    def _compare(self, names: Sequence[str]) -> dict[str, Site | None]:
        """Where the plain model shows hook points; None where it shows something else."""
        sites = {name: self._hook_points.site(name) for name in names}
        known = {name: site for name, site in sites.items() if site is not None}
        answer: dict[str, Site | None] = dict.fromkeys(names)
        if not known:
            return answer
        ids, mask = self._few_tokens()
        expected = self._run_bridge(ids, mask, list(known))
        try:
            found = self.fast.run(ids, known)
        except Exception:  # whatever a model of transformers cannot do, the bridge may
            return answer
        tolerance = _TOLERANCE[self._bridge.cfg.dtype]
        for name, site in known.items():
            if name in found and _agree(found[name], expected[name], mask, tolerance):
                answer[name] = site
        return answer

    def _few_tokens(self) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        length = min(_TOKENS, int(self._bridge.cfg.n_ctx))
        ids = torch.randint(int(self._bridge.cfg.d_vocab), (2, length), generator=generator)
        mask = torch.ones_like(ids, dtype=torch.bool)
        mask[1, _TEXT_OF_SECOND:] = False
        device = self._bridge.cfg.device
        return ids.to(device), mask.to(device)

    @torch.inference_mode()
    def _run_bridge(self, ids: Tensor, mask: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        from transformer_lens.model_bridge.exceptions import StopAtLayerException

        capture = Capture(names, StopAtLayerException)

        def hook(name: str) -> Any:
            return lambda value, hook: capture.keep(name, value)

        with self._bridge.hooks(fwd_hooks=[(name, hook(name)) for name in names]):
            self._bridge(ids, attention_mask=mask.long(), use_cache=False, return_type=None)
        silent = [name for name in names if name not in capture.found]
        if silent:
            raise ModelError(f"model {self._model!r} never computes hook point {silent[0]!r}")
        return capture.found


def _agree(found: Tensor, expected: Tensor, mask: Tensor, tolerance: float) -> bool:
    """Whether [batch, position, d] are equal where the mask is, up to rounding."""
    if found.shape != expected.shape or found.shape[:2] != mask.shape:
        return False
    sizes = expected[mask].norm(dim=-1)
    errors = (found[mask] - expected[mask]).norm(dim=-1)
    return bool((errors <= tolerance * sizes.clamp(min=sizes.median().item())).all())
