"""`safesail collect --engine ray`, as users run it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from study_folder import change_setting, statuses

from safesail.pipeline import load_results
from safesail.study import Study

Copy = Callable[[Path], Path]
Run = Callable[..., tuple[int, str, str]]


@pytest.mark.proof
def test_ray_and_this_process_write_the_same_tables(
    fresh: Path, copy: Copy, tmp_path: Path, run: Run
) -> None:
    """On a cluster that is started for the while."""
    folder = copy(fresh)
    change_setting(folder, "top = 3", "top = 3\nchunk_characters = 2000")
    assert run("rank-saes", "--study", folder)[0] == 0
    threads = torch.get_num_threads()
    tables, shown = [], []
    for options in (("--engine", "ray", "--workers", 2), ("--engine", "local")):
        torch.set_num_threads(1)  # as each worker
        code, out, err = run("collect", "--study", folder, "--json", *options)
        torch.set_num_threads(threads)
        assert code == 0, err
        assert ("Ray: 2 workers of 1 thread" in err) == ("ray" in options)
        (sae,) = (path.name for path in (folder / "contexts").iterdir())
        rows = load_results(Study.open(folder), "contexts").to_pylist()
        tables.append([{k: str(v) for k, v in row.items()} for row in rows])
        shown.append(out)
        assert "collected" in statuses(folder, sae).values()
        for path in (folder / "contexts" / sae).iterdir():
            path.unlink()
    assert len(tables[0]) > 50
    assert tables[0] == tables[1]
    assert shown[0] == shown[1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--engine", "nonsense"), "nonsense"),
        (("--workers", 2), "--engine ray"),
        (("--ray-address", "here:1"), "--engine ray"),
        (("--engine", "ray", "--shard", "1/2"), "--shard"),
        (("--engine", "ray", "--workers", 0), "--workers"),
    ],
)
def test_options_that_make_no_sense_are_wrong_usage(
    fresh: Path, run: Run, options: tuple[str, ...], said: str
) -> None:
    code, _, err = run("collect", "--study", fresh, *options)
    assert code == 2
    assert said in err
