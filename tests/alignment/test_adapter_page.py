"""The adapter's page says what the code does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import models
import tiny_alignment as tiny

PAGE = Path(__file__).parents[2] / "docs" / "adapter.md"


def test_the_page_runs(tmp_path: Path) -> None:
    models.tiny_llama(tmp_path / "my-model")
    tiny.subspace(1, 2, rank=6).save(tmp_path / "my-subspace")
    for name in ("safe_answers", "benign"):
        rows = [{"prompt": f"{name} {n}?", "answer": f"{name} {n}."} for n in range(20)]
        lines = "\n".join(map(json.dumps, rows))
        (tmp_path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    printed = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in printed] == [
        "model.layers.0.self_attn.o_proj",
        *(f"model.layers.1.self_attn.{role}_proj" for role in "qkvo"),
        *(f"model.layers.2.self_attn.{role}_proj" for role in "qkv"),
    ]
    # More than chance, and less than all: the basis was free to move.
    assert all(0.19 == round(float(line[3]), 2) < float(line[1]) < 1 for line in printed)
