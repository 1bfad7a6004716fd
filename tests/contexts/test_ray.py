"""Work shared out by Ray, against the same work done in this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import models
import pytest
import torch
from contexts.conftest import NO_SINKS

from safesail.contexts import (
    Contexts,
    Local,
    Pass,
    RayEngine,
    SketchSettings,
    Target,
    Work,
    collect_contexts,
)
from safesail.contexts import _ray as engine_module
from safesail.contexts._cluster import cluster, import_ray, share
from safesail.corpus import Corpus
from safesail.errors import CandidateError, ConfigurationError, ModelError
from safesail.language_model import LanguageModel
from safesail.sparse_autoencoder import SparseAutoencoder, find_candidates
from safesail.study import CollectionSettings

SETTINGS = CollectionSettings(
    top=4, per_level=2, silent=6, hard_silent=6, tokens_per_batch=128, chunk_characters=600
)
FEATURES = tuple(range(32))
SAES = (("gated", "0.hook_mlp_out"), ("standard", "2.hook_resid_pre"))
TESTS = Path(__file__).parent.parent
Build = Callable[[], Pass]


def build(folder: Path, kind: type[Pass] = Pass, **given: Any) -> Pass:
    """A pass of the files in a folder, here as in a worker; more is set as attributes."""
    model = LanguageModel.load(str(folder / "model"), device="cpu")
    targets = []
    for candidate in find_candidates([str(folder / "saes" / "*")], folder):
        sae = SparseAutoencoder.load(candidate, device="cpu")
        sae.check_fits(model)
        targets.append(Target(sae, FEATURES, NO_SINKS))
    elsewhere = partial(build, folder, kind, **given)
    made = kind(model, targets, SketchSettings.of(SETTINGS), elsewhere=elsewhere)
    vars(made).update(given)
    return made


class Mortal(Pass):
    """Leaves its process number in a folder; every third chunk kills, `deaths` times in all."""

    notes: Path
    deaths: int
    seen = 0

    def see_chunk(self, *given: Any, **named: Any) -> None:
        (self.notes / f"{os.getpid()}").touch()
        self.seen += 1
        super().see_chunk(*given, **named)
        if self.seen % 3 == 0:
            for death in range(self.deaths):
                with suppress(FileExistsError):
                    (self.notes / f"death-{death}").touch(exist_ok=False)
                    os.kill(os.getpid(), signal.SIGKILL)


class Spoilt(Pass):
    """One of its SAEs is damaged."""

    def see_chunk(self, *given: Any, **named: Any) -> None:
        self.targets[-1].sae._sae.b_enc.data[3] = torch.nan
        super().see_chunk(*given, **named)


def offspring() -> set[int]:
    """Processes that this one started, and theirs."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,stat,args"], capture_output=True, text=True)
    rows = [line.split(None, 3) for line in listed.stdout.splitlines()[1:]]
    found = {os.getpid()}
    for _ in range(5):
        found |= {int(row[0]) for row in rows if int(row[1]) in found and "Z" not in row[2]}
    return {int(row[0]) for row in rows if int(row[0]) in found and "ray" in row[3]}


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A cluster on this machine, of which no process is left in the end."""
    library = import_ray(None)
    with pytest.MonkeyPatch.context() as patch:
        # Workers import this module too.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS.parent)]))
        with cluster(library, None):
            yield library
            started = offspring() - {os.getpid()}
    assert len(started) > 3
    for _ in range(100):
        left = {pid for pid in started if Path(f"/proc/{pid}").exists()}
        if not left:
            break
        time.sleep(0.1)
    assert not left


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and two SAEs."""
    made = tmp_path_factory.mktemp("ray")
    models.tiny_llama(made / "model")
    for seed, (kind, at) in enumerate(SAES):
        models.random_sae(made / "saes" / kind, kind, hook_point=f"blocks.{at}", seed=seed)
    return made


def tables(run: Pass, work: Work) -> dict[str, tuple[list[dict[str, Any]], dict[int, Any]]]:
    """Rows of the contexts table and statistics, by SAE."""
    found = {}
    for target in run.targets:
        made = Contexts.of(target, work.sketches[target.sae.name], SETTINGS, run.model)
        rows = [{k: str(v) for k, v in row.items()} for row in made.table().to_pylist()]  # NaN
        found[target.sae.name] = rows, made.statistics
    return found


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """As in each worker: sums have the same last digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def local(one_thread: None, folder: Path, corpus: Corpus) -> dict[str, Any]:
    run = build(folder)
    work = collect_contexts(run, corpus, SETTINGS, max_tokens=10**9)
    assert work.chunks > 15
    found = tables(run, work)
    assert all(len(rows) > 50 for rows, _ in found.values())
    return found


def collect(run: Pass, corpus: Corpus, workers: int = 2, **given: Any) -> Work:
    engine = RayEngine(workers, **given)
    return collect_contexts(run, corpus, SETTINGS, max_tokens=10**9, engine=engine)


def test_two_workers_find_what_one_process_finds(
    ray: Any, local: dict[str, Any], folder: Path, corpus: Corpus
) -> None:
    """Row by row, of results that Ray's tasks merged; saved once, in the end."""
    saved: list[set[int]] = []
    lines: list[str] = []
    run = build(folder)

    def noted(passing: Pass, chunks: Any, work: Work, *, save: Any) -> None:
        engine = RayEngine(2, tell=lines.append)
        engine(passing, chunks, work, save=lambda work: saved.append(set(work.done)))

    work = collect_contexts(run, corpus, SETTINGS, max_tokens=10**9, engine=noted)
    assert tables(run, work) == local
    assert saved == [set(range(work.chunks))]
    assert lines[0] == "Ray: 2 workers of 1 threads on 1 machines"


def test_what_was_begun_is_finished_and_what_dies_or_is_lost_is_seen_again(
    ray: Any,
    local: dict[str, Any],
    folder: Path,
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """This process stopped amid a chunk; then a worker is killed, and a result vanishes."""
    take, lost = engine_module._Run.take, []

    def vanished() -> None:
        raise ray.exceptions.ObjectLostError("0" * 56, None, "")

    def with_loss(run: Any) -> bool:
        if not lost:
            pieces, _, numbers = run._seen[0]
            lost.extend(numbers)
            run._seen[0] = (pieces, ray.remote(num_cpus=0)(vanished).remote(), numbers)
        return take(run)

    def stop(work: Work) -> None:
        if len(work.done) > 3 and work.batches > 1:
            raise KeyboardInterrupt

    def two_engines(passing: Pass, chunks: Any, work: Work, *, save: Any) -> None:
        with suppress(KeyboardInterrupt):
            Local(0)(passing, chunks, work, save=stop)
        assert work.chunk >= 0
        assert work.done
        RayEngine(2, save_every=0)(passing, chunks, work, save=save)

    monkeypatch.setattr(engine_module._Run, "take", with_loss)
    run = build(folder, Mortal, notes=tmp_path, deaths=1)
    work = collect_contexts(run, corpus, SETTINGS, max_tokens=10**9, engine=two_engines)
    assert lost
    assert len(list(tmp_path.glob("death-*"))) == 1
    # This process, two workers, and the one that took a dead one's place.
    assert len(list(tmp_path.glob("[0-9]*"))) == 4
    assert tables(run, work) == local


def test_a_workers_error_is_the_one_that_it_would_be_here(
    ray: Any, folder: Path, corpus: Corpus
) -> None:
    with pytest.raises(CandidateError) as caught:
        collect(build(folder, Spoilt), corpus, 1)
    assert type(caught.value) is CandidateError
    assert "gives activations that are not finite in batch 1 of chunk 0" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.proof
def test_workers_that_die_again_and_again_are_given_up(
    ray: Any, folder: Path, corpus: Corpus, tmp_path: Path
) -> None:
    run = build(folder, Mortal, notes=tmp_path, deaths=10**6)
    with pytest.raises(ModelError, match=r"^Ray's workers die at chunk \d+ [^\n]*$"):
        collect(run, corpus, 1)


def test_workers_that_cannot_start_say_why(
    ray: Any, folder: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a machine of the cluster lacks what this one has."""
    here = types.ModuleType("only_here")
    monkeypatch.setitem(sys.modules, "only_here", here)
    exec("def build(folder): pass", vars(here))
    run = build(folder)
    run.elsewhere = partial(here.build, folder)
    with pytest.raises(ConfigurationError, match=r"start \(\w+: No module named 'only_here'\)"):
        collect(run, corpus, 1)


def test_without_ray_installed_one_line_says_how_to_install_it(
    folder: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'safesail\[ray\]'"):
        collect(build(folder), corpus)


@pytest.mark.parametrize(
    ("units", "workers", "each"),
    [
        ((16,), 4, 4),
        ((2,), 2, 1),
        ((8, 8), 3, 4),  # two on one machine, one on the other
        ((4, 4, 4), 2, 4),
        ((1,), 3, 0.3333),
        ((1, 1), 3, 0.5),
        ((0, 0), 3, 0),
        ((), 1, 0),
    ],
)
def test_what_machines_have_is_shared_out(
    units: tuple[int, ...], workers: int, each: float
) -> None:
    assert share(units, workers) == each
