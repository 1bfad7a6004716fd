"""Small SAEs in the layouts that the field publishes, with what their makers' formulas give.

Each is written below `root/<owner>/<repository>/`, as the hub serves it, under a name that
SAELens' directory knows. The expected features are computed from the file's own tensors by the
formula of whoever published the layout, without SAELens.
"""

from __future__ import annotations

from pathlib import Path

from published._common import D_IN, WIDTH, Published, inputs
from published._dictionary_learning import DICTIONARIES, dictionary_learning
from published._gemma_scope import gemma_2, gemma_2_transcoder, gemma_3, gemma_3_transcoder
from published._llama_scope import llama_scope, llama_scope_r1
from published._others import mwhanna, sae_lens, sparsify
from published._single_files import deepseek, goodfire, hook_z, qwen_scope

__all__ = ["D_IN", "WIDTH", "Published", "inputs", "publish_all"]


def publish_all(root: Path) -> list[Published]:
    """Write one of each layout that is read, and of each kind within it."""
    return [
        sae_lens(root),
        gemma_2(root),
        gemma_2_transcoder(root),
        gemma_3(root),
        gemma_3_transcoder(root),
        llama_scope(root),
        llama_scope_r1(root),
        *(dictionary_learning(root, kind) for kind in DICTIONARIES),
        deepseek(root),
        qwen_scope(root),
        sparsify(root),
        mwhanna(root),
        goodfire(root),
        hook_z(root),
    ]
