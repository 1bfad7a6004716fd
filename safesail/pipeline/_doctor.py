"""Check that everything a study names can be used, before hours are spent on it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from typing import TYPE_CHECKING, Literal

from safesail.builtin import PREFIX
from safesail.errors import SafesailError
from safesail.pipeline._workspace import Workspace, no_progress
from safesail.study import Study

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

_LIBRARIES = ("torch", "transformers", "transformer-lens", "sae-lens", "openai")
_GIGABYTE = 1e9
_DOCUMENTS_READ = 100


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        subject: what was looked at.
        outcome: `ok`, `warning` (can be used, but read this) or `failed`.
        finding: what was found, and what to do where it failed.
    """

    subject: str
    outcome: Literal["ok", "warning", "failed"]
    finding: str


def check_setup(study: Study) -> list[Check]:
    """Look at installation, machine, model, candidates, concepts, corpus and judge.

    Loads a model that lies on this machine; one on the hub is only asked for, not downloaded.
    Nothing raises: each failure is a check.
    """
    workspace = Workspace(study, overwrite=False, progress=no_progress)
    checks = [_installation(), _machine(study)]
    model = _check("model", lambda: _model(workspace))
    checks += model
    usable = all(check.outcome != "failed" for check in model)
    checks += _check("candidates", lambda: _candidates(workspace, model_loads=usable))
    checks += _check("concepts", lambda: _concepts(workspace))
    checks += _check("corpus", lambda: _corpus(workspace))
    checks += _check("judge", lambda: _judge(study))
    return checks


def _check(subject: str, look: Callable[[], Iterator[Check]]) -> list[Check]:
    checks: list[Check] = []
    try:
        checks.extend(look())
    except SafesailError as error:
        checks.append(Check(subject, "failed", str(error)))
    return checks


def _installation() -> Check:
    found = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    return Check("installed", "ok", f"Python {platform.python_version()}, {found}")


def _machine(study: Study) -> Check:
    import torch

    devices = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIGABYTE
    disk = shutil.disk_usage(study.folder).free / _GIGABYTE
    finding = (
        f"{os.cpu_count()} CPU cores, {memory:.0f} GB memory, {disk:.0f} GB disk free, "
        f"{', '.join(devices) or 'no GPU found'}"
    )
    return Check("machine", "ok", finding)


def _model(workspace: Workspace) -> Iterator[Check]:
    name = workspace.settings.model.name
    if not name.startswith(PREFIX) and not workspace.study.resolve(name).is_dir():
        hub = _hub_model(name)
        if hub is not None:
            yield hub
            return
    model = workspace.model
    yield Check(
        "model",
        "ok",
        f"{name}: {model.layers} layers, width {model.d_model}, context {model.context_size} "
        f"tokens, on {model.device}",
    )
    if model.bos_token_id is None:
        yield Check("model", "warning", "its tokenizer has no BOS token: SAEs that need one fail")


def _hub_model(name: str) -> Check | None:
    """What the hub says of a model that is not downloaded; None where it is on this machine."""
    from huggingface_hub import try_to_load_from_cache

    if name.count("/") > 1 or name.startswith((".", "/", "~")):
        return None  # a folder that is missing: loading it says so
    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return None
    information = _ask_hub(name, "model")
    if isinstance(information, Check):
        return information
    files = information.siblings or []
    size = sum(file.size or 0 for file in files if file.rfilename.endswith(".safetensors"))
    needs = f"{size / _GIGABYTE:.1f} GB to download"
    if information.safetensors is not None:
        # Everything runs in float32: four bytes a parameter.
        needs += f", {4 * information.safetensors.total / _GIGABYTE:.1f} GB of memory"
    if information.gated:
        finding = f"{name} is gated: accept its licence on the hub, then `hf auth login`; {needs}"
        return Check("model", "warning", finding)
    return Check("model", "warning", f"{name}: not here yet, {needs}")


def _ask_hub(name: str, subject: str) -> ModelInfo | Check:
    """What the hub says of a repository, or why it says nothing."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        return HfApi().model_info(name, files_metadata=True, timeout=20)
    except GatedRepoError:
        finding = f"{name} is gated: accept its licence on the hub, then `hf auth login`"
    except RepositoryNotFoundError:
        finding = f"the hub has no {name}, and there is no such folder here"
    except Exception as error:  # huggingface_hub lets errors of its HTTP client through
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        finding = f"{name}: the hub cannot be reached: {reason}"
    return Check(subject, "failed", finding)


def _candidates(workspace: Workspace, *, model_loads: bool) -> Iterator[Check]:
    from safesail.sparse_autoencoder import directory

    candidates = workspace.candidates
    local = [candidate for candidate in candidates if candidate.folder is not None]
    published = [candidate for candidate in candidates if candidate.folder is None]
    repositories = {
        entry.repository: None
        for entry in directory()
        if entry.release in {candidate.release for candidate in published}
    }
    answers = [_ask_hub(repository, "candidates") for repository in repositories]
    yield from (answer for answer in answers if isinstance(answer, Check))
    if published and not any(isinstance(answer, Check) for answer in answers):
        yield Check("candidates", "ok", f"{len(published)} published SAEs, fetched when ranked")
    if not local:
        return
    if not model_loads or "model" not in workspace.__dict__:
        yield Check("candidates", "warning", f"{len(local)} local SAEs, not tried without a model")
        return
    fitting = 0
    for candidate in local:
        try:
            workspace.load_sae(candidate.name)
            fitting += 1
        except SafesailError as error:
            yield Check("candidates", "failed", str(error))
    if fitting:
        yield Check("candidates", "ok", f"{fitting} local SAEs load and fit the model")


def _concepts(workspace: Workspace) -> Iterator[Check]:
    concepts = workspace.concepts
    counts = {name: len(concepts.pair_numbers(name)) for name in concepts.top_level}
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    yield Check("concepts", "ok", f"{len(concepts.pairs)} contrast pairs: {listed}")
    few = [name for name, count in counts.items() if count < 20]
    if few:
        finding = f"fewer than 20 pairs, intervals will be wide: {', '.join(few)}"
        yield Check("concepts", "warning", finding)


def _corpus(workspace: Workspace) -> Iterator[Check]:
    documents = list(islice(workspace.corpus, _DOCUMENTS_READ))
    characters = sum(len(document.text) for document in documents)
    yield Check(
        "corpus",
        "ok",
        f"the first {len(documents)} documents hold {characters:,} characters of text",
    )


def _judge(study: Study) -> Iterator[Check]:
    settings = study.configuration.judge
    if settings.model is None:
        yield Check("judge", "ok", "none set: the lexical baseline explains")
        return
    from safesail.judging import list_models

    models = list_models(settings.url, settings.key_variable)
    if models and settings.model not in models:
        shown = ", ".join(models[:5])
        finding = f"{settings.url} does not list {settings.model!r}; it lists {shown}"
        yield Check("judge", "warning", finding)
    else:
        yield Check("judge", "ok", f"{settings.url} answers, model {settings.model}")
