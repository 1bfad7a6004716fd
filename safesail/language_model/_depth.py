"""How many blocks a model has, without loading its weights."""

from __future__ import annotations

from pathlib import Path

from safesail.language_model._files import model_folder


def count_layers(reference: str, *, folder: Path | None = None) -> int | None:
    """Number of blocks by the model's configuration; the network is not asked.

    Args:
        reference: a folder saved by transformers, or a name on the Hugging Face hub.
        folder: base of relative paths; the working directory by default.

    Returns:
        None where the configuration is not at hand.
    """
    from transformers import AutoConfig

    found = model_folder(reference, folder)
    try:
        config = AutoConfig.from_pretrained(found or reference, local_files_only=True)
    except (OSError, ValueError):
        return None
    return int(config.get_text_config().num_hidden_layers)
