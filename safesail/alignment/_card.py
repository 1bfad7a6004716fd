"""The README.md of an adapter's folder, in the form that the Hugging Face hub reads."""

from __future__ import annotations

from safesail.alignment._names import is_hub_name
from safesail.alignment._provenance import PROVENANCE_FILE, LayerRecord, Provenance
from safesail.tables import markdown_text

_MOST_FEATURES = 10


def model_card(provenance: Provenance) -> str:
    """What an adapter is, and the features that shaped it, as Markdown."""
    p = provenance
    # The hub refuses a base that is a folder's name, and one without organisation may be that.
    named = "/" in p.model and is_hub_name(p.model)
    base = [f"base_model: {p.model}"] if named else []
    began = "plain LoRA" if p.subspace is None else f"the subspace of route `{p.route}`"
    lines = [
        "---",
        *base,
        "library_name: peft",
        "tags: [lora, safesail]",
        "---",
        "",
        f"# Adapter of {markdown_text(p.model)}",
        "",
        f"A LoRA adapter made by safesail {p.versions.get('safesail', '')}: {p.parameters:,} "
        f"parameters, {p.trainable:,} of them trained, begun with {began}. "
        f"`{PROVENANCE_FILE}` has every module, feature and setting. Load it with "
        "`peft.PeftModel.from_pretrained`, or with `safesail.alignment.load_adapter`, which also "
        "checks the base's weights and keeps a frozen basis frozen.",
        "",
        f"Blocks begun with their own bases alone: {_numbers(p.covered)}; others: "
        f"{_numbers(p.uncovered)}.",
    ]
    for layer in p.layers:
        lines += _features(layer)
    return "\n".join([*lines, ""])


def _numbers(blocks: tuple[int, ...]) -> str:
    return ", ".join(map(str, blocks)) or "none"


def _features(layer: LayerRecord) -> list[str]:
    source = f", {markdown_text(layer.sae)}" if layer.sae else ""
    lines = ["", f"## {layer.hook_point}{source}: {layer.rank} directions"]
    if layer.features:
        lines += ["", "| feature | contrast | explanation |", "| ---: | ---: | --- |"]
    lines += [
        f"| {one.feature} | {one.contrast:.3g} | {markdown_text(one.explanation or '–')} |"
        for one in layer.features[:_MOST_FEATURES]
    ]
    rest = len(layer.features) - _MOST_FEATURES
    return [*lines, "", f"And {rest} more."] if rest > 0 else lines
