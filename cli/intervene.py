"""`safesail intervene`: change a feature while the model runs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._options import DebugOption, JsonOption, StudyOption
from ._output import interval, note, number, print_json, print_table, printable, say

if TYPE_CHECKING:
    from safesail.diagnosis import Intervention, PromptOutcome


class Mode(StrEnum):
    """What becomes of the feature's activation."""

    CLAMP = "clamp"
    SCALE = "scale"
    ABLATE = "ablate"


def intervene(
    feature: Annotated[int, typer.Option("--feature", "-f", help="Index of the feature.", min=0)],
    prompt: Annotated[str | None, typer.Argument(help="Text that the model goes on with.")] = None,
    sae: Annotated[
        str | None,
        typer.Option("--sae", help="Name of the SAE; needed once several have contexts."),
    ] = None,
    mode: Annotated[
        Mode,
        typer.Option(
            "--mode", help="clamp to --value times q999, scale by --value, or ablate to 0."
        ),
    ] = Mode.CLAMP,
    value: Annotated[float, typer.Option("--value", help="See --mode.")] = 1.0,
    generate: Annotated[
        int, typer.Option("--generate", help="Most tokens of the answers; 0 for none.", min=0)
    ] = 40,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", help="File with one prompt on each line.")
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            "--tokens",
            help="Words whose probability is measured, separated by commas, with the spaces "
            "before them; by default the tokens that the feature raises most.",
        ),
    ] = None,
    controls: Annotated[
        int,
        typer.Option("--controls", help="Random features at shifts of equal norm.", min=0),
    ] = 20,
    chat: Annotated[
        bool,
        typer.Option("--chat", help="Put prompts into the chat template as a user's message."),
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw of controls.", min=0)] = 0,
    study: StudyOption = Path(),
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Clamp, scale or ablate a feature while the model runs, and see what it says instead.

    Other features, drawn at random and moved as far, tell what any change of that size would do.

    \b
    Examples:
      safesail intervene "The clerk wrote to" --feature 265
      safesail intervene "The clerk wrote to" --feature 265 --mode ablate --generate 0
      safesail intervene --prompts prompts.txt --feature 265 --tokens " stole, forged" --json
    """
    from safesail.pipeline import intervene
    from safesail.study import Study

    found = intervene(
        Study.open(study),
        [*([] if prompt is None else [prompt]), *(_lines(prompts) if prompts else [])],
        feature,
        sae=sae,
        mode=mode.value,
        value=value,
        generate=generate,
        targets=[word for word in (tokens or "").split(",") if word.strip()],
        controls=controls,
        chat=chat,
        seed=seed,
    )
    if json:
        print_json(found.to_json())
    else:
        _print(found)


def _lines(path: Path) -> list[str]:
    from safesail.errors import InputError

    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read prompts from {path}: {error}") from error
    found = [line for line in lines if line.strip()]
    if not found:
        raise InputError(f"{path} holds no prompt: write one on each line")
    return found


def _print(found: Intervention) -> None:
    change = {
        "clamp": f"clamped to {found.value:g} q999 ({found.value * found.q999:.3g})",
        "scale": f"scaled by {found.value:g}",
        "ablate": "ablated",
    }[found.mode]
    say(f"feature {found.feature} of {found.sae} (layer {found.layer}), {change}")
    if found.answers:
        say(f"prompt:  {printable(found.answers.prompt)}")
        say(f"before:  {printable(found.answers.before)}")
        say(f"after:   {printable(found.answers.after)}")
        if found.answers.control is not None:
            say(f"control: {printable(found.answers.control)} (feature {found.controls[0]})")
    say()
    first = found.outcomes[0]
    if len(found.outcomes) > 1:
        say(f"Next token after the first of {len(found.outcomes)} prompts:")
    else:
        say("Next token:")
    _print_tokens(first)
    controls = f", controls {number(_mean(first.kl_controls))}" if first.kl_controls else ""
    say(f"KL divergence {number(first.kl)} nats{controls}")
    say(
        f"changed at {first.tokens} tokens, by {first.shift:.2f} of the activation's norm; "
        f"strength before {number(first.strength)}"
    )
    say()
    _print_target(found)


def _print_tokens(outcome: PromptOutcome) -> None:
    rows = [
        [up.text, f"{up.before:.4f}", f"{up.after:.4f}", down.text, f"{down.before:.4f}",
         f"{down.after:.4f}"]
        for up, down in zip(outcome.up, outcome.down, strict=True)
    ]  # fmt: skip
    headers = ["up", "before", "after", "down", "before", "after"]
    print_table(headers, rows, numbers=(1, 2, 4, 5))


def _print_target(found: Intervention) -> None:
    say("target tokens: " + ", ".join(f'"{printable(token)}"' for token in found.targets))
    first, effect = found.outcomes[0], found.effect
    if len(found.outcomes) == 1:
        say(f"their probability {first.target_before:.4f}, after {first.target_after:.4f}")
    if effect is None:
        if found.controls:
            note(
                "these are the tokens that the feature's direction raises by construction; to "
                "compare with the controls, name words with --tokens"
            )
        return
    over = f"mean of {effect.prompts} prompts" if effect.prompts > 1 else "one prompt"
    own = number(effect.log_change)
    if effect.log_change_low is not None:
        own = interval(effect.log_change, effect.log_change_low, effect.log_change_high)
    say(
        f"ln of its change {own} ({over}), "
        f"of {effect.controls} controls {effect.log_change_controls:+.2f}"
    )
    say(f"more than a control {interval(effect.difference, effect.low, effect.high)}")
    say(f"rank probability {effect.rank_probability:.3f}")
    note(
        "ln of its change: with its 95 % interval over prompts; one prompt has none\n"
        "controls: random features of the same SAE, shifted as far at each token\n"
        "more than a control: than the controls' mean, with the 95 % interval of the difference "
        "to one more control\n"
        "rank probability: of ranking so high, by size, if the feature were one of the controls"
    )


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values)
