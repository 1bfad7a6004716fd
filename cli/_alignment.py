"""A subspace, an alignment and an adapter read back, as they are printed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._output import note, number, print_table, printable, say

if TYPE_CHECKING:
    from safesail.alignment import AdapterReading
    from safesail.pipeline import Alignment

_SHOWN = 8
"""Features shown of each state."""


def print_subspace(found: Alignment) -> None:
    """What the subspace is made of, and which route the data speak for."""
    for layer in found.subspace.layers:
        say(
            f"stream {layer.stream} ({layer.hook_point}), "
            f"{f'SAE {layer.sae}' if layer.sae else found.subspace.route}: rank {layer.rank}"
            + (f" from {len(layer.features)} features" if layer.features else "")
        )
        if layer.features:
            print_table(
                ("feature", "contrast", "weight", "concepts", "explanation"),
                [
                    (
                        str(one.feature),
                        number(one.contrast, 3),
                        number(one.weight, 3),
                        ", ".join(one.concepts) or "–",
                        one.explanation or "–",
                    )
                    for one in layer.features[:_SHOWN]
                ],
                numbers=(0, 1, 2),
            )
            if len(layer.features) > _SHOWN:
                say(f"... and {len(layer.features) - _SHOWN} more (--json has them all)")
            unread = [str(one.feature) for one in layer.features if one.explanation is None]
            if unread:
                note(
                    f"{len(unread)} of {len(layer.features)} have no explanation; to read them: "
                    f"safesail explain --sae {layer.sae} --features {','.join(unread)}"
                )
    for pooled in found.layers:
        if pooled.advice is None:
            continue  # why, was told
        trust = "" if pooled.advice.reliable else " (weakly)"
        say(f"advice for {pooled.sae}{trust}: --route {pooled.advice.route}")
        for reason in pooled.advice.reasons:
            say(f"  {reason}")


def print_reading(found: AdapterReading) -> None:
    """A line a module and SAE with its best feature; a module that no SAE reads has one too."""
    rows = []
    for module in found.modules:
        for reading in module.saes or (None,):
            best = reading.top[0] if reading and reading.top else None
            rows.append(
                (
                    str(module.block),
                    module.module.rpartition(".")[2],
                    number(module.norm, 3),
                    "–" if module.basis is None else number(module.basis.share, 3),
                    "–" if module.basis is None else number(module.basis.chance, 3),
                    "–" if best is None else str(best.feature),
                    "–" if best is None else number(best.share, 3),
                    "–" if reading is None else number(reading.chance_best, 3),
                    "–" if best is None else best.explanation or "–",
                )
            )
    say(f"{printable(found.adapter)}: route {found.route}")
    print_table(
        ("block", "module", "norm", "in basis", "chance", "best", "share", "chance", "explanation"),
        rows,
        numbers=(0, 2, 3, 4, 5, 6, 7),
    )
    if found.unread:
        note(f"changed too, but not read: {', '.join(found.unread)}")
    unseen = sum(not module.saes for module in found.modules)
    if unseen:
        note(
            f"{unseen} of {len(found.modules)} modules read or write a stream at which no SAE is: "
            "name one with --sae"
        )
    note(
        "norm: Frobenius norm of the change\n"
        "in basis: share of it in the basis that it began with, else that of the stream that it "
        "reads or writes\n"
        "share: along the feature that holds most of it; chance: of random directions instead\n"
        "more than chance is no sign that features had a part: compare with a plain LoRA or a "
        "random-basis adapter trained alike"
    )


def alignment_json(found: Alignment) -> dict[str, Any]:
    """What `--json` prints."""
    from dataclasses import asdict

    trained = found.trained
    return {
        "route": found.subspace.route,
        "fingerprint": found.subspace.fingerprint,
        "layers": [
            {
                "stream": layer.stream,
                "hook_point": layer.hook_point,
                "sae": layer.sae,
                "rank": layer.rank,
                "features": [asdict(feature) for feature in layer.features],
            }
            for layer in found.subspace.layers
        ],
        "advice": {
            pooled.sae: None if pooled.advice is None else asdict(pooled.advice)
            for pooled in found.layers
        },
        "folder": None if found.folder is None else str(found.folder),
        "examples": None if trained is None else trained.examples,
        "cut": None if trained is None else trained.cut,
        "left_out": None if trained is None else trained.left_out,
        "loss": None if trained is None else [point._asdict() for point in trained.loss],
        "seconds": None if trained is None else trained.seconds,
    }
