"""The sections of `safesail.toml`: every key with its meaning and its default."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from safesail.errors import InputError

# The form of BCP 47, without its registry: a language, then script, region and so on.
_LANGUAGE_TAG = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")


def language_tag(tag: str) -> str:
    """A language tag in the form that is compared: the language itself in small letters.

    Raises:
        InputError: it is none.
    """
    try:
        return _language(tag)
    except ValueError as error:
        raise InputError(f"language {tag!r} {error}") from None


def _language(tag: str) -> str:
    if not _LANGUAGE_TAG.fullmatch(tag):
        raise ValueError("must be a language tag such as en, zh or pt-BR")
    language, hyphen, rest = tag.partition("-")
    return f"{language.lower()}{hyphen}{rest}"


class Section(BaseModel):
    """A part of `safesail.toml`; unknown keys are refused, docstrings become comments."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class ModelSettings(Section):
    """The language model whose activations the SAEs read."""

    name: str
    """Folder saved by transformers (relative to this file), or a name on the Hugging Face hub."""

    device: str = "auto"
    """`auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`, `mps`."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision it runs in: `auto` is float32, on a CUDA GPU the half precision it is stored in."""


class CandidateSettings(Section):
    """The SAEs to choose from."""

    saes: list[str] = []
    """Local SAEs or `release:sae_id`, `*` allowed; what train-saes made in saes/ joins them."""


class ConceptSettings(Section):
    """The safety concepts and their contrast pairs."""

    files: list[str] = Field(min_length=1)
    """JSONL, CSV or TOML files with concept, positive, negative; or `builtin:starter`."""


class CorpusSource(Section):
    """One source of documents: local files or a dataset on the Hugging Face hub."""

    path: str | None = None
    """File (.jsonl, .jsonl.gz, .parquet, .csv, .txt), `*` allowed, or folder of save_to_disk."""

    hub: str | None = None
    """Name of a dataset on the Hugging Face hub, streamed."""

    configuration: str | None = None
    """Configuration of the hub dataset, where it has several."""

    split: str = "train"
    """Split of the hub dataset or of the folder."""

    text_column: str = "text"
    """Column that holds the text, or with chat_template a list of messages."""

    id_column: str | None = None
    """Column whose value is the document's id; by default ids are file name and row."""

    chat_template: bool = False
    """Read each text as a user's message, and messages as such, in the model's chat template."""

    weight: float = Field(default=1.0, gt=0)
    """Share of the text read, against the weights of the other sources."""

    @model_validator(mode="after")
    def _one_place(self) -> CorpusSource:
        if (self.path is None) == (self.hub is None):
            raise ValueError("give exactly one of `path` and `hub`")
        return self


class CorpusSettings(Section):
    """The documents that features are observed on."""

    sources: list[CorpusSource] = Field(min_length=1)
    """Sources, mixed by their weights until `max_tokens` are read."""

    concept_texts: bool = False
    """Read the concepts' own texts as a further source of weight 1, so that their features fire."""

    max_tokens: int = Field(default=1_000_000, ge=1_000)
    """Tokens collected in all; what the sources hold beyond is not read."""


class RankingSettings(Section):
    """How candidates are compared. The formulas are in docs/ranking.md."""

    sample_tokens: int = Field(default=200_000, ge=1_000)
    """Tokens at the corpus' start for q999 and health; below 200,000 q999 is rough."""

    margin: float = Field(default=0.5, ge=0)
    """A feature distinguishes a pair when it exceeds the twin by this share of its q999."""

    pooling: Literal["max", "mean", "last"] = "max"
    """A feature's activation on a text: over its content tokens, the max, mean or last."""

    chat_template: bool = False
    """Read each pair's text as a user's message in the model's chat template."""

    false_discovery_rate: float = Field(default=0.05, gt=0, lt=1)
    """Features are called at this expected share of false calls (Benjamini-Hochberg)."""

    features_per_concept: int = Field(default=200, ge=1)
    """At most so many called features are chosen for each concept and SAE."""

    seed: int = Field(default=0, ge=0)
    """Seed of the halves that features are picked and judged on, and of the bootstrap."""


class CollectionSettings(Section):
    """How many contexts of each feature are kept, per split."""

    top: int = Field(default=10, ge=1)
    """Strongest windows, for the explainer."""

    per_level: int = Field(default=5, ge=1)
    """Windows drawn from each of the ten activation levels."""

    silent: int = Field(default=25, ge=1)
    """Windows drawn where the feature is zero on every token."""

    hard_silent: int = Field(default=25, ge=1)
    """Windows drawn where the feature is silent though its typical words occur."""

    seed: int = 0
    """Seed of the draws."""

    tokens_per_batch: int | None = Field(default=None, ge=1)
    """Most tokens that go through the model at once; measured at the start where not set."""

    chunk_characters: int = Field(default=262_144, ge=1)
    """Characters of text that are one piece of work: what shards and workers share out."""

    checkpoint_seconds: float = Field(default=60.0, ge=0)
    """Seconds between two checkpoints; what a killed run has done since the last is done again."""


class JudgeSettings(Section):
    """The language model that explains features. Without `model`, the lexical baseline does."""

    url: str = "https://api.openai.com/v1"
    """Base URL of any endpoint that speaks the OpenAI chat protocol."""

    model: str | None = None
    """Name of the model at that endpoint."""

    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; the key itself never stands in a file."""

    concurrency: int = Field(default=8, ge=1, le=128)
    """Most requests under way at once; fewer while the endpoint limits the rate."""

    timeout: float = Field(default=180.0, ge=1, le=3600)
    """Seconds that one request may take; it is asked once more after that."""

    reasoning_effort: str | None = None
    """How hard a reasoning model should think, such as `low`; by default the endpoint decides."""

    fallback_model: str | None = None
    """Model that is asked what the judge refuses."""

    fallback_url: str | None = None
    """Base URL of that model; by default the judge's."""

    fallback_key_variable: str | None = None
    """Environment variable that holds the key for that URL; by default the judge's."""

    prices: str | None = None
    """TOML file with your prices, relative to this file; they go before those of docs/judge.md."""

    language: str = "en"
    """Language of the explanations, as a tag such as `en` or `zh`."""

    scorer: Literal["items", "segments", "tokens", "detection", "fuzzing"] = "items"
    """How explanations are scored; `items` stops when it is precise. See docs/scoring.md."""

    precision: float = Field(default=0.10, gt=0, lt=0.5)
    """Half-width of discrimination's 95 % interval at which `items` stops."""

    @field_validator("language")
    @classmethod
    def _is_tag(cls, tag: str) -> str:
        return _language(tag)
