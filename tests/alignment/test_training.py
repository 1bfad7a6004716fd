"""Training: what is learnt, how it goes on after a kill, and how it stops."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import models
import pandas as pd
import pytest
import tiny_alignment as tiny
import torch

from safesail.alignment import (
    Example,
    TrainingOptions,
    fit,
    load_adapter,
    make_adapter,
    make_plain_adapter,
    provenance_of,
    train_adapter,
)
from safesail.alignment._provenance import base_checksum
from safesail.alignment._trainer import check_device, last_checkpoint
from safesail.errors import AlignmentError

EXAMPLES = [
    Example(f"how do I {verb} the boat?", f"I will not {verb} it.")
    for verb in ("sink", "burn", "steal", "paint", "sail", "hide", "break", "row", "sell", "buy")
]
OPTIONS = TrainingOptions(steps=12, batch_size=4, learning_rate=5e-3, checkpoint_every=5, seed=3)
KILLED = """
import os, signal, sys
from pathlib import Path
import test_training as here
from safesail.alignment import train_adapter

def watch(point, steps):
    if point.step == 8:
        os.kill(os.getpid(), signal.SIGKILL)

base, folder = map(Path, sys.argv[1:])
train_adapter(
    here.adapter(base), here.models.byte_tokenizer(), here.EXAMPLES, folder,
    options=here.OPTIONS, watch=watch,
)
"""

FULL_DISK = """
import resource, sys
from pathlib import Path
import test_training as here
from safesail.alignment import fit
from safesail.errors import StorageError

base, work, what, most = sys.argv[1:]
model = here.adapter(Path(base)) if what == "adapter" else here.tiny.load(Path(base))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(most), int(most)))
try:
    fit(model, here.models.byte_tokenizer(), here.EXAMPLES, Path(work), options=here.OPTIONS)
except StorageError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.tiny_llama(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It has dropout, whose random numbers must go on too."""
    return models.tiny_gpt2(tmp_path_factory.mktemp("gpt2"))


def adapter(base: Path, **settings: Any) -> Any:
    return make_adapter(tiny.load(base), tiny.subspace(1, 2), rank=4, **settings)


def stop_at(step: int) -> Callable[[Any, int], None]:
    def watch(point: Any, steps: int) -> None:
        if point.step == step:
            raise KeyboardInterrupt

    return watch


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if "lora_" in n}


def test_the_adapter_learns_and_the_base_stays(base: Path, tmp_path: Path) -> None:
    model = adapter(base)
    checksum = base_checksum(model)
    seen = []
    options = TrainingOptions(steps=40, batch_size=5, learning_rate=1e-2)
    trained = train_adapter(
        model,
        models.byte_tokenizer(),
        EXAMPLES,
        tmp_path / "adapter",
        options=options,
        about={"data": "made up"},
        watch=lambda point, steps: seen.append((point.step, steps)),
    )
    assert trained.loss[-1].loss < 0.8 * trained.loss[0].loss
    assert seen == [(step, 40) for step in range(1, 41)]
    assert base_checksum(model) == checksum
    assert not model.training
    table = pd.read_csv(tmp_path / "adapter" / "loss.csv")
    assert [*table] == ["step", "loss", "learning_rate", "gradient_norm"]
    assert table["loss"].tolist() == pytest.approx([point.loss for point in trained.loss])
    assert (tmp_path / "adapter" / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    loaded = load_adapter(tiny.load(base), tmp_path / "adapter")
    assert torch.equal(tiny.logits(loaded), tiny.logits(model))
    record = provenance_of(loaded).training
    assert record is not None
    assert (record["steps"], record["examples"], record["data"]) == (40, 10, "made up")


def test_the_first_loss_is_that_of_the_answers_alone(base: Path, tmp_path: Path) -> None:
    """Against the cross-entropy of each answer's tokens, text by text."""
    tokenizer, model = models.byte_tokenizer(), tiny.load(base)
    total, count = 0.0, 0
    for example in EXAMPLES:
        prompt = [0, *tokenizer.encode(example.prompt)]
        answer = [*tokenizer.encode(example.answer), 1]
        logits = tiny.logits(model, torch.tensor([prompt + answer]))[0].double()
        losses = -logits.log_softmax(-1)[range(len(prompt) - 1, len(logits) - 1), answer]
        total, count = total + float(losses.sum()), count + len(answer)
    options = TrainingOptions(steps=1, batch_size=5, accumulate=2)
    trained = fit(adapter(base), tokenizer, EXAMPLES, tmp_path, options=options)
    assert trained.loss[0].loss == pytest.approx(total / count, rel=1e-4)


@pytest.mark.parametrize(
    ("kind", "basis"), [("base", "trainable"), ("base", "frozen"), ("gpt2", "trainable")]
)
def test_an_interrupted_training_ends_with_the_same_weights(
    kind: str, basis: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    base, tokenizer = request.getfixturevalue(kind), models.byte_tokenizer()
    straight = adapter(base, basis=basis)
    began = weights(straight)
    whole = fit(straight, tokenizer, EXAMPLES, tmp_path / "a", options=OPTIONS)
    folder = tmp_path / "b"
    # Killed before any checkpoint, then between two.
    for step in (3, 8):
        with pytest.raises(KeyboardInterrupt):
            train_adapter(
                adapter(base, basis=basis), tokenizer, EXAMPLES, folder, options=OPTIONS,
                watch=stop_at(step),
            )  # fmt: skip
        assert not folder.exists()
    seen: list[int] = []
    resumed = adapter(base, basis=basis)
    again = train_adapter(
        resumed, tokenizer, EXAMPLES, folder, options=OPTIONS,
        watch=lambda point, _: seen.append(point.step),
    )  # fmt: skip
    assert seen == [*range(6, 13)]
    expected, found = weights(straight), weights(resumed)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0)
    assert [point.loss for point in again.loss] == [point.loss for point in whole.loss]
    frozen = {one.module: one.frozen for one in provenance_of(resumed).modules if one.frozen}
    assert bool(frozen) == (basis == "frozen")
    for module, factor in frozen.items():
        name = f"base_model.model.{module}.{factor}.default.weight"
        assert torch.equal(found[name], began[name])


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_process_is_gone_on_from_to_the_same_weights(base: Path, tmp_path: Path) -> None:
    folder, tests = tmp_path / "adapter", Path(__file__).parent
    paths = f"import sys; sys.path[:0] = {[str(tests), str(tests.parent)]}"
    killed = subprocess.run(
        [sys.executable, "-c", paths + KILLED, str(base), str(folder)],
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not folder.exists()
    seen: list[int] = []
    resumed, straight = adapter(base), adapter(base)
    train_adapter(
        resumed, models.byte_tokenizer(), EXAMPLES, folder, options=OPTIONS,
        watch=lambda point, _: seen.append(point.step),
    )  # fmt: skip
    assert seen == [*range(6, 13)]
    fit(straight, models.byte_tokenizer(), EXAMPLES, tmp_path / "straight", options=OPTIONS)
    expected, found = weights(straight), weights(resumed)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0)


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of a process")
@pytest.mark.parametrize(
    ("what", "most", "said"),
    [
        ("adapter", 5_000, "File too large"),  # the card, by Python
        ("adapter", 30_000, "a checkpoint broke off"),  # the optimiser's state, by torch
        ("model", 20_000, "File too large"),  # the weights, by safetensors
    ],
)
def test_a_full_disk_at_a_checkpoint_is_one_line(
    base: Path, tmp_path: Path, what: str, most: int, said: str
) -> None:
    tests, work = Path(__file__).parent, tmp_path / "work"
    paths = f"import sys; sys.path[:0] = {[str(tests), str(tests.parent)]}"
    child = subprocess.run(
        [sys.executable, "-c", paths + FULL_DISK, str(base), str(work), what, str(most)],
        capture_output=True,
        text=True,
    )
    assert child.returncode == 0, child.stderr
    (line,) = child.stdout.splitlines()
    assert line.startswith(f"could not write {work}: ")
    assert said in line
    assert line.endswith("training goes on from its last checkpoint")
    # What is there of it is no checkpoint.
    assert last_checkpoint(work) is None


def test_a_half_written_checkpoint_is_passed_over(base: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(
            adapter(base), models.byte_tokenizer(), EXAMPLES, tmp_path / "work", options=OPTIONS,
            watch=stop_at(8),
        )  # fmt: skip
    half = tmp_path / "work" / "checkpoint-10"
    half.mkdir()
    (half / "trainer_state.json").write_text('{"global_')
    seen: list[int] = []
    fit(
        adapter(base), models.byte_tokenizer(), EXAMPLES, tmp_path / "work", options=OPTIONS,
        watch=lambda point, _: seen.append(point.step),
    )  # fmt: skip
    assert seen[0] == 6


def test_the_seed_decides(base: Path, tmp_path: Path) -> None:
    losses = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        options = TrainingOptions(steps=4, batch_size=3, seed=seed)
        model = adapter(base)
        trained = fit(model, models.byte_tokenizer(), EXAMPLES, tmp_path / name, options=options)
        losses[name] = [point.loss for point in trained.loss]
    assert losses["a"] == losses["b"] != losses["c"]


def test_other_settings_ask_before_they_replace(base: Path, tmp_path: Path) -> None:
    tokenizer, folder = models.byte_tokenizer(), tmp_path / "adapter"
    with pytest.raises(KeyboardInterrupt):
        train_adapter(adapter(base), tokenizer, EXAMPLES, folder, options=OPTIONS, watch=stop_at(7))
    other = TrainingOptions(**{**vars(OPTIONS), "learning_rate": 1e-3})
    with pytest.raises(AlignmentError, match=r"other settings \(learning_rate\) was interrupted"):
        train_adapter(adapter(base), tokenizer, EXAMPLES, folder, options=other)
    with pytest.raises(AlignmentError, match=r"\(adapter, examples\)"):
        train_adapter(
            adapter(base, basis="frozen"), tokenizer, EXAMPLES[1:], folder, options=OPTIONS
        )
    train_adapter(adapter(base), tokenizer, EXAMPLES, folder, options=other, overwrite=True)
    with pytest.raises(AlignmentError, match="exists already"):
        train_adapter(adapter(base), tokenizer, EXAMPLES, folder, options=other)


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_loss_that_is_no_number_stops_with_the_last_good_checkpoint(
    base: Path, tmp_path: Path, broken: str
) -> None:
    model = adapter(base)
    forward = model.base_model.model.forward
    calls = 0

    def fails(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        output = forward(*args, **kwargs)
        if calls == (8 if broken == "loss" else 10):
            if broken == "loss":
                output.loss = output.loss * float("nan")
            else:
                # Finite itself, but its gradient is not: seen at the checkpoint of step 10.
                output.loss.register_hook(lambda gradient: gradient * float("nan"))
        return output

    model.base_model.model.forward = fails
    with pytest.raises(AlignmentError) as caught:
        train_adapter(
            model, models.byte_tokenizer(), EXAMPLES, tmp_path / "adapter", options=OPTIONS
        )
    message = str(caught.value)
    assert "\n" not in message
    assert "lower the learning rate, 0.005" in message
    if broken == "loss":
        assert "the loss is nan at step 8" in message
    else:
        assert "is no longer finite after step 10" in message
    kept = tmp_path / ".adapter.training" / "checkpoint-5"
    assert str(kept) in message
    assert not (tmp_path / "adapter").exists()
    # It is an adapter of its own, and good.
    good = load_adapter(tiny.load(base), kept)
    assert tiny.logits(good).isfinite().all()
    expected = adapter(base)
    with pytest.raises(KeyboardInterrupt):
        fit(
            expected, models.byte_tokenizer(), EXAMPLES, tmp_path / "again", options=OPTIONS,
            watch=stop_at(6),
        )  # fmt: skip
    again = load_adapter(tiny.load(base), tmp_path / "again" / "checkpoint-5")
    assert torch.equal(tiny.logits(good), tiny.logits(again))


def test_following_the_message_of_a_training_that_diverged(base: Path, tmp_path: Path) -> None:
    """At a rate that really does: another one alone is refused, with --overwrite it begins anew."""
    tokenizer, folder = models.byte_tokenizer(), tmp_path / "adapter"
    high = replace(OPTIONS, learning_rate=1e30, checkpoint_every=1)
    with pytest.raises(AlignmentError) as caught:
        train_adapter(adapter(base), tokenizer, EXAMPLES, folder, options=high)
    assert "lower the learning rate, 1e+30, and begin anew with --overwrite" in str(caught.value)
    with pytest.raises(AlignmentError, match=r"\(checkpoint_every, learning_rate\).*--overwrite"):
        train_adapter(adapter(base), tokenizer, EXAMPLES, folder, options=OPTIONS)
    model, fresh = adapter(base), adapter(base)
    trained = train_adapter(model, tokenizer, EXAMPLES, folder, options=OPTIONS, overwrite=True)
    assert [point.step for point in trained.loss] == [*range(1, 13)]
    fit(fresh, tokenizer, EXAMPLES, tmp_path / "fresh", options=OPTIONS)
    expected, found = weights(fresh), weights(model)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0)


def test_a_base_in_float16_is_refused(base: Path, tmp_path: Path) -> None:
    """A small gradient there is 0, though what is trained is in float32."""
    model = make_adapter(tiny.load(base).half(), tiny.subspace(1, 2), rank=4)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    with pytest.raises(AlignmentError, match=r"is in float16.*load it in bfloat16 or float32"):
        train_adapter(model, models.byte_tokenizer(), EXAMPLES, tmp_path / "a", options=OPTIONS)
    assert not any(tmp_path.iterdir())


def test_an_adapter_on_a_bfloat16_base_is_trained_in_float32(base: Path, tmp_path: Path) -> None:
    model = make_adapter(tiny.load(base).bfloat16(), tiny.subspace(1, 2), rank=4)
    checksum = base_checksum(model)
    trained = train_adapter(
        model, models.byte_tokenizer(), EXAMPLES, tmp_path / "a",
        options=TrainingOptions(steps=30, batch_size=5, learning_rate=1e-2),
    )  # fmt: skip
    assert trained.loss[-1].loss < 0.9 * trained.loss[0].loss
    assert {value.dtype for value in weights(model).values()} == {torch.float32}
    assert base_checksum(model) == checksum


def test_a_whole_model_in_bfloat16_is_refused(base: Path, tmp_path: Path) -> None:
    model = tiny.load(base).bfloat16()
    with pytest.raises(AlignmentError, match=r"trained in bfloat16.*load the model in float32"):
        fit(model, models.byte_tokenizer(), EXAMPLES, tmp_path, options=OPTIONS)
    assert not any(tmp_path.iterdir())


def test_other_gpus_than_the_first_are_refused() -> None:
    """Trainer would move the model to the first."""
    for fit_for in ("cpu", "cuda", "cuda:0", "mps"):
        check_device(torch.device(fit_for))
    with pytest.raises(AlignmentError, match=r"on cuda:3, .*CUDA_VISIBLE_DEVICES"):
        check_device(torch.device("cuda:3"))


def test_running_out_of_memory_names_the_batch_size(base: Path, tmp_path: Path) -> None:
    model = adapter(base)

    def fails(*args: Any, **kwargs: Any) -> Any:
        return torch.empty(2**55)

    model.base_model.model.forward = fails
    with pytest.raises(AlignmentError, match="out of memory at a batch size of 4 and 512 tokens"):
        fit(model, models.byte_tokenizer(), EXAMPLES, tmp_path, options=OPTIONS)


def test_a_whole_model_is_trained_too(base: Path, tmp_path: Path) -> None:
    model = tiny.load(base)
    before = base_checksum(model)
    trained = fit(model, models.byte_tokenizer(), EXAMPLES, tmp_path, options=OPTIONS)
    assert len(trained.loss) == 12
    assert base_checksum(model) != before
    assert not model.training


def test_plain_lora_is_trained_alike(base: Path, tmp_path: Path) -> None:
    model = make_plain_adapter(tiny.load(base), rank=4)
    train_adapter(model, models.byte_tokenizer(), EXAMPLES, tmp_path / "lora", options=OPTIONS)
    assert provenance_of(load_adapter(tiny.load(base), tmp_path / "lora")).route == "lora"
