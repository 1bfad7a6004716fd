"""Concepts, their contrast pairs, and the tree that fine-grained children form."""

from safesail.concepts._concepts import ConceptSet, ContrastPair
from safesail.concepts._files import load_concepts

__all__ = ["ConceptSet", "ContrastPair", "load_concepts"]
