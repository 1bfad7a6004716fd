"""Collect where chosen features fire: statistics and contexts over a corpus."""

from safesail.contexts._collect import Contexts, Engine, Local, collect_contexts
from safesail.contexts._pass import Pass, Target, reading_of
from safesail.contexts._ray import RayEngine
from safesail.contexts._sketch import Sketch, SketchSettings
from safesail.contexts._windows import WINDOW_TOKENS, split_of
from safesail.contexts._work import Checkpoints, Work, shard_name

__all__ = [
    "WINDOW_TOKENS",
    "Checkpoints",
    "Contexts",
    "Engine",
    "Local",
    "Pass",
    "RayEngine",
    "Sketch",
    "SketchSettings",
    "Target",
    "Work",
    "collect_contexts",
    "reading_of",
    "shard_name",
    "split_of",
]
