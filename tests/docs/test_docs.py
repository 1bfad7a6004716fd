"""The documentation says what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from safesail.tables import describe_tables

ROOT = Path(__file__).resolve().parents[2]


def test_tables_page_is_the_schemas() -> None:
    assert (ROOT / "docs" / "tables.md").read_text(encoding="utf-8") == describe_tables()


def test_python_page_runs(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) >= 6
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    assert "best: layer2-" in done.stdout
    # The dry run of a judge that nobody runs has asked nothing, and says what it would ask.
    assert "prompt_tokens=" in done.stdout
    assert not (tmp_path / "lab-study" / "judge.sqlite").exists()


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{n}.md" for n in ("ranking", "lab"))])
def test_linked_files_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", text) if not t.startswith("http")]
    folder = (ROOT / page).parent
    assert [t for t in targets if not (folder / t).exists()] == []


def test_readme_names_only_real_commands_and_options() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    # Between fences, every second part is a block; its first line may name a language.
    blocks = "\n".join(text.split("```")[1::2])
    # These are groups: their commands have names of two words; `align` is a command, too.
    name = r"(?:judge|concepts) [a-z-]+|align (?:inspect|compare)|[a-z-]+"
    commands = re.findall(rf"^safesail ({name})(.*?)(?:#.*)?$", blocks, flags=re.MULTILINE)
    assert {"rank-saes", "explain", "show", "export", "init", "doctor", "list-saes"} <= {
        name for name, _ in commands
    }
    safesail = Path(sys.executable).with_name("safesail")
    helps: dict[str, str] = {}
    for name, rest in commands:
        if name not in helps:
            command = [safesail, *name.split(), "--help"]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, f"safesail {name}: {done.stderr}"
            helps[name] = done.stdout
        for option in re.findall(r"(--[a-z-]+)", rest):
            assert option in helps[name], f"safesail {name} has no {option}"
