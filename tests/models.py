"""Tiny language models and SAEs with random weights, saved as their libraries save them."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from safesail.language_model import LanguageModel, TokenBatch

VOCABULARY = 400
LAYERS = 3
D_MODEL = 32
_SENTENCES = [
    "the cat sat on the mat and the dog sat by the door",
    "a small boat sailed over the cold sea to the north",
    "she wrote a letter, he read it twice; nobody answered",
    "naïve café 猫 привет 🙂 numbers 1234 and [brackets]",
]


def tiny_llama(folder: Path, **settings: Any) -> Path:
    """Llama: RMS norms, no biases, gated MLP."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return _save(folder, LlamaForCausalLM, LlamaConfig, {**_shape(), **settings})


def tiny_qwen2(folder: Path, **settings: Any) -> Path:
    """Qwen2: as Llama, with biases in attention."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return _save(folder, Qwen2ForCausalLM, Qwen2Config, {**_shape(), **settings})


def tiny_gemma2(folder: Path, **settings: Any) -> Path:
    """Gemma-2: norms after attention and MLP too, whose weight is 1 plus the stored one."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    shape = {**_shape(), "head_dim": 8, "hidden_act": "gelu"}
    return _save(folder, Gemma2ForCausalLM, Gemma2Config, {**shape, **settings})


def tiny_qwen3(folder: Path, **settings: Any) -> Path:
    """Qwen3: as Llama, with norms of queries and keys."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return _save(folder, Qwen3ForCausalLM, Qwen3Config, {**_shape(), "head_dim": 8, **settings})


def tiny_gemma3(folder: Path, **settings: Any) -> Path:
    """Gemma-3: as Gemma-2 without soft caps; some layers see a window of tokens only."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    shape = {
        **_shape(),
        "head_dim": 8,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    }
    return _save(folder, Gemma3ForCausalLM, Gemma3TextConfig, {**shape, **settings})


def tiny_gptj(folder: Path, **settings: Any) -> Path:
    """GPT-J: attention and MLP side by side, attention chosen when the model is made."""
    from transformers import GPTJConfig, GPTJForCausalLM

    shape = {"n_embd": D_MODEL, "n_layer": LAYERS, "n_head": 4, "n_positions": 64, "rotary_dim": 4}
    return _save(folder, GPTJForCausalLM, GPTJConfig, {**shape, **settings})


def tiny_gpt2(folder: Path, **settings: Any) -> Path:
    """GPT-2: layer norms, learned positions."""
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = {"n_embd": D_MODEL, "n_layer": LAYERS, "n_head": 4, "n_positions": 64}
    return _save(folder, GPT2LMHeadModel, GPT2Config, {**shape, **settings})


def tiny_gpt_neox(folder: Path, **settings: Any) -> Path:
    """GPT-NeoX (Pythia): attention and MLP side by side."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    shape = _shape()
    del shape["num_key_value_heads"]
    return _save(folder, GPTNeoXForCausalLM, GPTNeoXConfig, {**shape, **settings})


OTHER_KINDS: dict[str, dict[str, Any]] = {
    "olmo2": {},  # norms after attention and MLP alone
    "phi3": {},  # one module for queries, keys and values, one for gate and up
    "mixtral": {"num_local_experts": 2},
    "qwen3_moe": {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16},
    "starcoder2": {},  # layer norms, an MLP without a gate
    "smollm3": {},
    "granite": {"residual_multiplier": 0.5},
}
"""Settings of further kinds, by transformers' `model_type`."""


def tiny_of(kind: str, folder: Path, **settings: Any) -> Path:
    """A model of any kind that shares Llama's names of its shape."""
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {**_shape(), **OTHER_KINDS.get(kind, {}), **settings}
    return _save(
        folder, AutoModelForCausalLM.from_config, partial(AutoConfig.for_model, kind), shape
    )


def batch_of(model: LanguageModel, texts: list[str], prepend_bos: bool = True) -> TokenBatch:
    """Texts as one batch of a model."""
    tokenized = [
        piece
        for number, text in enumerate(texts)
        for piece in model.tokenize(text, document=str(number), prepend_bos=prepend_bos)
    ]
    (batch,) = model.batches(tokenized, prepend_bos=prepend_bos)
    return batch


def byte_tokenizer(**settings: Any) -> Any:
    """Byte-level BPE tokenizer of transformers, trained on a few sentences."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    settings = {
        "bos_token": "<|bos|>",
        "eos_token": "<|eos|>",
        "pad_token": "<|pad|>",
        "model_max_length": 64,
        **settings,
    }
    tokenizer = Tokenizer.from_str(_byte_level_bpe())
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **settings)


def random_sae(
    folder: Path,
    architecture: str,
    d_in: int = D_MODEL,
    hook_point: str = "blocks.1.hook_resid_post",
    *,
    width: int = 96,
    seed: int = 0,
    metadata: dict[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """An SAE with random weights and biases, about a fifth of its features active, on disk.

    Args:
        folder: where cfg.json and sae_weights.safetensors go.
        architecture: SAELens' name: standard, jumprelu, gated, topk ...
        d_in: size of what it reads.
        hook_point: what it reads.
        width: number of features.
        seed: of the weights.
        metadata: over model_name, hook_name, prepend_bos and context_size.
        settings: further fields of its SAELens configuration.
    """
    from sae_lens.registry import get_sae_class
    from sae_lens.saes.sae import SAEMetadata

    about = {
        "model_name": "tiny",
        "hook_name": hook_point,
        "prepend_bos": True,
        "context_size": 64,
        **(metadata or {}),
    }
    if architecture in ("topk", "abstopk"):
        settings.setdefault("k", 8)
    sae_class, config_class = get_sae_class(architecture)
    config = config_class(d_in=d_in, d_sae=width, metadata=SAEMetadata(**about), **settings)
    generator = torch.Generator().manual_seed(seed)
    sae = sae_class(config)
    for name, value in sae.state_dict().items():
        noise = torch.randn(value.shape, generator=generator)
        if name in ("W_enc", "W_dec"):
            value.copy_(noise / d_in**0.5)
        elif name == "threshold":
            value.copy_(noise.abs())
        elif name in ("b_enc", "b_gate"):
            value.copy_(noise * 0.3 - 0.8)
        else:
            value.copy_(noise * 0.3)
    sae.save_model(folder)
    return folder


def _shape() -> dict[str, Any]:
    return {
        "hidden_size": D_MODEL,
        "intermediate_size": 48,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    }


def _save(folder: Path, model_class: Any, config_class: Any, settings: dict[str, Any]) -> Path:
    torch.manual_seed(settings.pop("seed", 0))
    config = config_class(
        **{"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
        | settings
    )
    model = model_class(config)
    with torch.no_grad():
        # As initialised, norms are 1, biases 0 and the rest so small that layers hardly differ.
        for name, value in model.named_parameters():
            value.add_(torch.randn_like(value) * (0.3 if value.ndim == 1 else 0.1))
            assert value.isfinite().all(), name
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@cache
def _byte_level_bpe() -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|bos|>", "<|eos|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_SENTENCES, trainer)
    serialised: str = tokenizer.to_str()
    return serialised
