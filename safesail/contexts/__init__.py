"""Collect where chosen features fire: statistics and contexts over a corpus."""

from safesail.contexts._collect import Contexts, collect_contexts
from safesail.contexts._windows import WINDOW_TOKENS, split_of

__all__ = ["WINDOW_TOKENS", "Contexts", "collect_contexts", "split_of"]
