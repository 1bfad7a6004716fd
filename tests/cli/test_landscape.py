"""`safesail landscape` as users run it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from safesail.pipeline import landscape
from safesail.study import Study

Run = Callable[..., tuple[int, str, str]]


def test_tables_picture_and_json(explained: Path, tmp_path: Path, run: Run) -> None:
    picture = tmp_path / "landscape.png"
    code, out, err = run("landscape", "--study", explained, "--output", picture)
    assert code == 0, err
    assert out.startswith("Explained features by SAE and concept (explained by: lexical):")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert f"written: {picture}" in err
    found = landscape(Study.open(explained))
    for one in found.counts:
        if one.concept in found.top_level:
            assert one.concept in out
    code, out, _ = run("landscape", "--study", explained, "--output", picture, "--json")
    assert code == 0
    assert json.loads(out) == json.loads(json.dumps(found.to_json()))


def test_a_study_without_explanations(fresh: Path, run: Run) -> None:
    code, out, err = run("landscape", "--study", fresh)
    assert (code, out) == (1, "")
    assert "run `safesail explain` first" in err
