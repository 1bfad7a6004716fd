"""`safesail train-saes` as a user runs it: swept, killed, run again; wrong options."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from safesail.pipeline import Sweep, start_study, train_saes
from safesail.study import Study

Run = Callable[..., tuple[int, str, str]]
OPTIONS = {
    "--layers": "1-2",
    "--sparsities": "8,16,32",
    "--tokens": "8000",
    "--steps": "60",
    "--batch": "256",
}
NAMES = [f"layer{layer}-resid-topk{k}" for layer in (1, 2) for k in (8, 16, 32)]


def command(study: Path) -> list[str]:
    options = [word for option in OPTIONS.items() for word in option]
    safesail = Path(sys.executable).with_name("safesail")
    return [str(safesail), "train-saes", "-s", str(study), *options, "--checkpoint-every", "10"]


def start(folder: Path) -> Study:
    return start_study(folder, model="builtin:lab", saes=[], concepts=[], corpus=[]).study


def weights(study: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(study / "saes" / name / "sae_weights.safetensors")


@pytest.mark.proof
def test_a_killed_sweep_ends_as_an_unkilled_one_and_saelens_loads_it(
    tmp_path: Path, run: Run
) -> None:
    from sae_lens import SAE

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    start(killed)
    process = subprocess.Popen(command(killed), stderr=subprocess.PIPE, text=True)
    # In the middle of the third of six.
    begun = time.monotonic()
    while not list((killed / "training" / NAMES[2]).glob("step-*")):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() - begun < 200
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {path.name for path in (killed / "saes").iterdir()}
    assert set(NAMES[:2]) <= finished < set(NAMES)
    before = {name: weights(killed, name) for name in finished}

    code, out, err = run(*command(killed)[1:], "--json")
    assert code == 0, err
    rows = json.loads(out)
    assert [row["sae"] for row in rows] == NAMES
    assert [row["sparsity"] for row in rows] == [8, 16, 32] * 2
    assert not (killed / "training").exists()
    resumed = {path.name for path in (killed / "saes").iterdir()}
    assert resumed == set(NAMES)

    sweep = Sweep(layers=(1, 2), sparsities=(8, 16, 32), tokens=8_000, steps=60, batch=256)
    train_saes(start(whole), sweep)
    for name in NAMES:
        sae: Any = SAE.load_from_disk(killed / "saes" / name, device="cpu")
        k = int(name.rpartition("topk")[2])
        with torch.inference_mode():
            codes = sae.encode(torch.randn(5, 128))
        assert int((codes > 0).sum(1).max()) <= k
        one, two = weights(killed, name), weights(whole, name)
        for part, values in one.items():
            assert torch.allclose(values, two[part], rtol=1e-3, atol=1e-4), (name, part)
            if name in before:
                assert torch.equal(values, before[name][part])


def test_the_table_is_printed_with_what_it_is_taken_at(fresh: Path, copy: Any, run: Run) -> None:
    folder = copy(fresh)
    sweep = ("--layers", "1", "--sites", "resid_post,mlp_out", "--sparsities", "4", "--steps", "20")
    code, out, err = run("train-saes", "--study", folder, *sweep, "--batch", "64")
    assert code == 0, err
    header, _, first, second = out.rstrip().splitlines()
    assert header.split()[:3] == ["SAE", "hook", "point"]
    assert first.split()[:2] == ["layer1-resid-topk4", "blocks.1.hook_resid_post"]
    assert first.split()[2:5] == ["topk", "4", "20"]
    assert second.split()[:2] == ["layer1-mlp-topk4", "blocks.1.hook_mlp_out"]
    lines = err.splitlines()
    assert lines[0].startswith("2 SAEs to train; activations of 4,000 tokens at 2 hook points")
    assert lines[1].startswith("1/2 layer1-resid-topk4: L0 4.0, FVU ")
    assert any("set aside from all training" in line for line in lines)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--layers", "7"), 1, "error: model 'model' has no layer 7: its layers are 0 to 2"),
        (("--sites", "hook_z"), 1, "error: unknown site 'hook_z'"),
        (("--architectures", "relu"), 1, "error: unknown architecture 'relu'"),
        (("--sparsities", "9999"), 1, "error: sparsity 9999 of topk is above the width 256"),
        (("--layers", "3-1"), 2, "'3-1' ends before it begins"),
        (("--layers", "-1"), 2, "'-1' is no list of layers"),
        (("--layers", "all"), 2, "'all' is no list of layers"),
        (("--sparsities", "few"), 2, "'few' is no list of numbers"),
        (("--sites", ","), 2, "',' names nothing"),
    ],
)
def test_wrong_options_are_one_line(
    fresh: Path, run: Run, options: tuple[str, ...], code: int, message: str
) -> None:
    found, out, err = run("train-saes", "--study", fresh, f"{options[0]}={options[1]}")
    assert (found, out) == (code, "")
    assert message in err
    if code == 1:
        assert err.count("\n") == 1


def test_a_missing_corpus_is_one_line(fresh: Path, copy: Any, run: Run) -> None:
    folder = copy(fresh)
    (folder / "corpus.jsonl").unlink()
    code, _, err = run("train-saes", "--study", folder)
    assert code == 1
    assert err.startswith("error: corpus file ")
    assert err.count("\n") == 1
