"""Concepts with contrast pairs, and the lab's model, autoencoders and texts."""
