"""Studies to diagnose: a tiny one with two explained SAEs, and one of the lab."""

from __future__ import annotations

from pathlib import Path

import pytest

LAB_SAE = "layer2-resid-topk16"


@pytest.fixture(scope="session")
def two_layers(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small study, explained at two layers; their SAEs cut texts at 64 and 32 tokens."""
    import study_folder

    from safesail.pipeline import Selection, explain
    from safesail.study import Study

    folder = study_folder.copy_study(fresh, tmp_path_factory.mktemp("study") / "two")
    for sae in ("first", "upper"):
        explain(Study.open(folder), Selection(sae=sae, limit=6))
    return folder


@pytest.fixture(scope="session")
def lab_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab, with the chosen features of one SAE explained on a short corpus."""
    from safesail.pipeline import Selection, explain, start_study
    from safesail.study import Study

    folder = tmp_path_factory.mktemp("study") / "lab"
    start_study(folder, model="builtin:lab", saes=[], concepts=[], corpus=[])
    path = folder / "safesail.toml"
    text = path.read_text(encoding="utf-8")
    for old, new in (
        ("sample_tokens = 200000", "sample_tokens = 8000"),
        ("max_tokens = 200000", "max_tokens = 24000"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    explain(Study.open(folder), Selection(sae=LAB_SAE, limit=64))
    return folder
