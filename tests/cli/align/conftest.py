from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from aligning import WORDS, Run, aligning, write


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data to align with, and prompts to evaluate with."""
    folder = tmp_path_factory.mktemp("texts")
    safe = [
        {
            "prompt": f"the {word} sat {number}",
            "answer": "I cannot help with that.",
            "unaligned": f"the {word} ran to the {other}",
        }
        for number in range(3)
        for word, other in zip(WORDS, WORDS[1:] + WORDS[:1], strict=True)
    ]
    write(folder / "safe.jsonl", safe)
    benign = [{"prompt": f"where is the {w}", "answer": f"the {w} is here"} for w in WORDS * 3]
    write(folder / "benign.jsonl", benign)
    prompts = [
        {"prompt": f"the {word} {kind} {number}", "kind": kind}
        for number in range(2)
        for word in WORDS[:3]
        for kind in ("harmful", "look_alike")
    ]
    write(folder / "prompts.jsonl", [*prompts, {"prompt": "what", "kind": "benign", "answer": "x"}])
    write(folder / "heldout.jsonl", [{"text": "the dog sat on the cat, he read"}] * 2)
    return folder


@pytest.fixture(scope="module")
def study(explained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of the module's own; its adapters lie elsewhere."""
    import study_folder

    return study_folder.copy_study(explained, tmp_path_factory.mktemp("align") / "study")


@pytest.fixture(scope="module")
def adapter(
    study: Path, texts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Run], Path]:
    """An adapter, made once."""
    folder = tmp_path_factory.mktemp("adapters") / "sails"

    def make(run: Run) -> Path:
        if not folder.exists():
            code, _, err = run(*aligning(study, texts, "--output", folder))
            assert code == 0, err
        return folder

    return make
