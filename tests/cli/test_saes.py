"""Commands about SAEs that need no study: list-saes with its filters, convert-sae."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from models import random_sae

from safesail.sparse_autoencoder import directory

Run = Callable[..., tuple[int, str, str]]


def listed(run: Run, *arguments: str) -> list[dict]:
    code, out, err = run("list-saes", "--json", *arguments)
    assert code == 0, err
    return json.loads(out)


def test_filters_hold_together(run: Run) -> None:
    found = listed(
        run, "--model", "gemma-2-2b", "--layers", "3,10-11", "--width", "16k-65k", "--l0", "50-100"
    )  # fmt: skip
    assert {entry["layer"] for entry in found} == {3, 10, 11}
    assert {entry["width"] for entry in found} == {16_384, 65_536}
    assert all(50 <= entry["l0"] <= 100 for entry in found)
    expected = [
        entry
        for entry in directory("gemma-2-2b")
        if entry.layer in (3, 10, 11)
        and entry.width in (16_384, 32_768, 65_536)
        and entry.l0 is not None
        and 50 <= entry.l0 <= 100
    ]
    assert len(found) == len(expected) > 10


@pytest.mark.parametrize(
    ("width", "widths"),
    [("16k", {16_384}), ("65k", {65_536}), ("64k", {65_536}), ("1m", {1_048_576}),
     ("16384", {16_384}), ("524k-1m", {524_288, 1_048_576})],
)  # fmt: skip
def test_widths_as_the_field_writes_them(run: Run, width: str, widths: set[int]) -> None:
    found = listed(run, "--release", "gemma-scope-2b-pt-res", "--width", width)
    assert {entry["width"] for entry in found} == widths


def test_one_layer_by_either_name(run: Run) -> None:
    one = listed(run, "--model", "gpt2", "--layer", "8")
    assert one == listed(run, "--model", "gpt2", "--layers", "8")
    assert {entry["layer"] for entry in one} == {8}


def test_ids_by_pattern(run: Run) -> None:
    found = listed(run, "--sae", "gpt2-small-res-jb*:blocks.8.*_24576")
    assert [entry["sae_id"] for entry in found] == ["blocks.8.hook_resid_pre_24576"]
    code, out, _ = run("list-saes", "--sae", "gpt2-small-res-jb*:blocks.8.*_24576")
    assert code == 0
    assert "24,576" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--layers", "10-"], "layers '10-': write numbers and ranges, such as 10-14,20"),
        (["--l0", "a"], "L0 'a': write numbers"),
        (["--width", "16k-4k"], "width '16k-4k': the range 16k-4k runs downwards"),
        (["--layers", "1-2-3"], "layers '1-2-3'"),
        (["--model", "gpt2", "--layers", "99"], "none has layer 99"),
    ],
)
def test_filters_that_find_nothing_exit_1(run: Run, arguments: list[str], said: str) -> None:
    code, out, err = run("list-saes", *arguments)
    assert (code, out) == (1, "")
    assert said in err
    assert err.count("\n") == 1


def test_convert_and_refuse(tmp_path: Path, run: Run) -> None:
    source = random_sae(tmp_path / "source", "topk")
    code, out, err = run("convert-sae", source, tmp_path / "out", "--model", "gpt2")
    assert (code, out) == (0, "")
    assert err == f"written: {tmp_path}/out; list it in candidates.saes of safesail.toml\n"
    assert (
        json.loads((tmp_path / "out" / "cfg.json").read_text())["metadata"]["model_name"] == "gpt2"
    )
    code, _, err = run("convert-sae", source, tmp_path / "out")
    assert code == 1
    assert err == f"error: {tmp_path}/out exists: add --overwrite to replace it\n"
    assert run("convert-sae", source, tmp_path / "out", "--overwrite")[0] == 0
    code, _, err = run("convert-sae", tmp_path / "none", tmp_path / "new")
    assert (code, "does not exist" in err) == (1, True)
    assert run("convert-sae", source)[0] == 2
