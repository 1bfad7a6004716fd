"""Names of hook points: TransformerLens' own, and Hugging Face module names mapped to them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from safesail.errors import ModelError

# Names that the field uses, where the bridge knows one hook by several.
_CUSTOMARY = (
    "hook_resid_pre",
    "hook_resid_mid",
    "hook_resid_post",
    "hook_mlp_out",
    "hook_attn_out",
    "attn.hook_z",
)
# The projection back to the residual stream is the last step of its module, so its output is the
# module's output.
_LAST_STEPS = {"mlp.out": "mlp", "attn.o": "attn"}


class Site(NamedTuple):
    """One side of a module of transformers' model.

    Attributes:
        module: path of the module.
        side: its input or its output.
    """

    module: str
    side: Literal["in", "out"]


class HookPoints:
    """The hook points inside the blocks of one model.

    Args:
        bridge: a TransformerBridge.
        model: the model's name, for messages.
    """

    def __init__(self, bridge: Any, model: str) -> None:
        self._model = model
        self._layers = int(bridge.cfg.n_layers)
        hooks = {
            name: hook
            for name, hook in bridge.hook_dict.items()
            if _layer(name) is not None and _fires(bridge, name)
        }
        self._names = set(hooks)
        self._customary = {
            id(hooks[f"blocks.{layer}.{name}"]): f"blocks.{layer}.{name}"
            for layer in range(self._layers)
            for name in _CUSTOMARY
            if f"blocks.{layer}.{name}" in hooks
        }
        self._hooks = hooks
        blocks = bridge.adapter.component_mapping["blocks"]
        self._blocks = blocks.name
        self._modules = {"": "", **_modules(blocks, "", "")}
        self._sites = {
            id(hooks[hook]): site
            for layer in range(self._layers)
            for hook, site in self._sites_of(layer)
            if hook in hooks
        }

    def canonical(self, name: str) -> str:
        """TransformerLens name of a hook point, from that or a Hugging Face module name.

        `model.layers.12.mlp.down_proj` gives `blocks.12.hook_mlp_out`; a block gives its output,
        `blocks.12.hook_resid_post`.

        Raises:
            ModelError: the model has no such hook point.
        """
        if name in self._names:
            return self._customary.get(id(self._hooks[name]), name)
        match = re.fullmatch(re.escape(self._blocks) + r"\.(\d+)\.?(.*)", name)
        if match and match[2] in self._modules:
            component = self._modules[match[2]]
            component = _LAST_STEPS.get(component, component)
            hook = ".".join(part for part in ("blocks", match[1], component, "hook_out") if part)
            if hook in self._names:
                return self._customary.get(id(self._hooks[hook]), hook)
        raise ModelError(self._explain_absence(name, match[1] if match else None))

    def layer_of(self, name: str) -> int:
        """Number of the block that a hook point lies in.

        Raises:
            ModelError: as `canonical`.
        """
        layer = _layer(self.canonical(name))
        assert layer is not None  # canonical names lie in a block
        return layer

    def residual(self, name: str) -> str:
        """Where the hidden state is read whose norm tells attention sinks: the point itself on
        the residual stream, else the stream after its block."""
        name = self.canonical(name)
        if name.endswith(("hook_resid_pre", "hook_resid_mid", "hook_resid_post")):
            return name
        return f"blocks.{_layer(name)}.hook_resid_post"

    def site(self, name: str) -> Site | None:
        """Where transformers' own model should show what a hook point shows.

        Args:
            name: canonical name.

        Returns:
            None where no input or output of a module is known to be it.
        """
        return self._sites.get(id(self._hooks[name]))

    def _sites_of(self, layer: int) -> Iterator[tuple[str, Site]]:
        """Hooks on the two sides of the components of a block."""
        for module, component in self._modules.items():
            path = ".".join(part for part in (self._blocks, str(layer), module) if part)
            hook = ".".join(part for part in ("blocks", str(layer), component) if part)
            yield f"{hook}.hook_in", Site(path, "in")
            yield f"{hook}.hook_out", Site(path, "out")

    def _explain_absence(self, name: str, module_layer: str | None) -> str:
        layer = _layer(name) if module_layer is None else int(module_layer)
        if layer is not None and layer >= self._layers:
            return (
                f"hook point {name!r} is above model {self._model!r}, "
                f"whose last layer is {self._layers - 1}: use an SAE of this model"
            )
        close = difflib.get_close_matches(name, sorted(self._names), n=1)
        hint = f"did you mean {close[0]!r}?" if close else "known: `blocks.0.hook_resid_post` ..."
        return f"model {self._model!r} has no hook point {name!r} inside its blocks ({hint})"


def _fires(bridge: Any, name: str) -> bool:
    """Some hooks exist but stay silent unless the bridge is told to compute their values."""
    try:
        bridge.check_hooks_to_add(name)
    except ValueError:
        return False
    return True


def _layer(name: str) -> int | None:
    match = re.match(r"blocks\.(\d+)\.", name)
    return int(match[1]) if match else None


def _modules(component: Any, path: str, hook: str) -> dict[str, str]:
    """Hugging Face path inside a block -> path of the bridge's component."""
    found = {}
    for name, child in component.submodules.items():
        child_path = ".".join(part for part in (path, child.name) if part)
        child_hook = ".".join(part for part in (hook, name) if part)
        found[child_path] = child_hook
        found |= _modules(child, child_path, child_hook)
    return found
