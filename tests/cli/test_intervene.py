"""`safesail intervene` as users run it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from safesail.pipeline import load_results
from safesail.study import Study

Run = Callable[..., tuple[int, str, str]]
PROMPT = "the dog sat on the cat, he read"


def test_one_prompt(explained: Path, run: Run) -> None:
    row = load_results(Study.open(explained), "explanations").to_pylist()[0]
    common = ("--feature", row["feature"], "--sae", row["sae"], "--study", explained)
    code, out, err = run("intervene", PROMPT, *common, "--generate", 4, "--controls", 3)
    assert code == 0, err
    assert out.startswith(f"feature {row['feature']} of {row['sae']}")
    for line in ("before: ", "after: ", "control: ", "KL divergence", "their probability"):
        assert line in out
    # Any feature raises the tokens of its own direction.
    assert "rank probability" not in out
    assert "to compare with the controls, name words with --tokens" in err
    code, out, err = run(
        "intervene", PROMPT, *common, "--generate", 0, "--controls", 3, "--json",
        "--tokens", " cat, dog", "--mode", "ablate",
    )  # fmt: skip
    assert code == 0, err
    content = json.loads(out)
    assert content["targets"]
    assert all(" cat".startswith(one) or " dog".startswith(one) for one in content["targets"])
    assert (content["mode"], content["value"], content["answers"]) == ("ablate", 0, None)
    (outcome,) = content["outcomes"]
    assert len(outcome["target_controls"]) == len(content["controls"]) == 3
    assert set(outcome["up"][0]) == {"text", "token_id", "before", "after"}
    assert content["effect"]["log_change_low"] is None
    assert content["effect"]["low"] <= content["effect"]["difference"]
    code, _, err = run("intervene", PROMPT, *common, "--value", "nan")
    assert code == 1
    assert "give a number between" in err


def test_several_prompts(explained: Path, tmp_path: Path, run: Run) -> None:
    row = load_results(Study.open(explained), "explanations").to_pylist()[0]
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(f"{PROMPT}\n\nnobody sailed\nthe boat\n", encoding="utf-8")
    common = ("--feature", row["feature"], "--sae", row["sae"], "--study", explained)
    code, out, err = run(
        "intervene", *common, "--prompts", prompts, "--generate", 0, "--controls", 3,
        "--tokens", " cat, dog",
    )  # fmt: skip
    assert code == 0, err
    assert "Next token after the first of 3 prompts:" in out
    assert "more than a control " in out
    assert "rank probability" in out
    code, out, err = run("intervene", *common)
    assert code == 1
    assert "no prompt: give one" in err
    prompts.write_text("\n")
    code, _, err = run("intervene", *common, "--prompts", prompts)
    assert code == 1
    assert "holds no prompt" in err
    code, _, err = run("intervene", *common, "--prompts", tmp_path / "absent.txt")
    assert code == 1
    assert "cannot read prompts" in err
