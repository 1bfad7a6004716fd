"""A study: a folder with `safesail.toml` and the results made from it."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from safesail.errors import ConfigurationError, InputError, StudyConflictError

CONFIGURATION_FILE = "safesail.toml"
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


class Configuration(Section):
    """Everything that `safesail.toml` may hold."""

    model: ModelSettings
    candidates: CandidateSettings
    concepts: ConceptSettings
    corpus: CorpusSettings
    ranking: RankingSettings = RankingSettings()
    collection: CollectionSettings = CollectionSettings()
    judge: JudgeSettings = JudgeSettings()

    @model_validator(mode="after")
    def _possible(self) -> Configuration:
        if self.ranking.sample_tokens > self.corpus.max_tokens:
            raise ValueError(
                f"ranking.sample_tokens ({self.ranking.sample_tokens:,}) is more than "
                f"corpus.max_tokens ({self.corpus.max_tokens:,}): raise the second"
            )
        return self

    @classmethod
    def from_toml(cls, text: str, where: str) -> Configuration:
        """Parse and check `safesail.toml`.

        Raises:
            ConfigurationError: not TOML, unknown key, wrong type, impossible combination; each
                fault is named with its key path.
        """
        try:
            return cls.model_validate(tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(f"{where} is not valid TOML: {error}") from error
        except ValidationError as error:
            faults = "; ".join(_describe(fault) for fault in error.errors())
            raise ConfigurationError(f"{where}: {faults}") from error

    def to_toml(self) -> str:
        """The configuration as commented TOML, every key with its meaning."""
        return "\n".join(_render_section(self)) + "\n"


class Study:
    """A study folder: its configuration and where its results lie.

    Attributes:
        folder: absolute path of the study.
        configuration: the checked content of `safesail.toml`.
    """

    def __init__(self, folder: Path, configuration: Configuration) -> None:
        self.folder = folder
        self.configuration = configuration

    @classmethod
    def open(cls, folder: str | Path = ".") -> Study:
        """Open a study.

        Raises:
            ConfigurationError: no `safesail.toml` there, or a faulty one.
        """
        path = Path(folder).resolve() / CONFIGURATION_FILE
        try:
            text = path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            raise ConfigurationError(
                f"no {CONFIGURATION_FILE} in {path.parent}: run `safesail init` there, "
                "or name the study's folder with --study"
            ) from None
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{path} is not UTF-8: {error.reason}") from error
        except OSError as error:
            raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
        return cls(path.parent, Configuration.from_toml(text, str(path)))

    def with_judge(self, **changes: Any) -> Study:
        """The same study with other judge settings.

        Args:
            changes: by name of the setting; None leaves the configured one.

        Raises:
            ConfigurationError: a value is none that the setting takes.
        """
        given = {key: value for key, value in changes.items() if value is not None}
        settings = self.configuration.judge.model_dump() | given
        try:
            judge = JudgeSettings.model_validate(settings)
        except ValidationError as error:
            faults = "; ".join(_describe(fault) for fault in error.errors())
            raise ConfigurationError(f"judge: {faults}") from error
        return Study(self.folder, self.configuration.model_copy(update={"judge": judge}))

    @property
    def rankings(self) -> Path:
        """Table of the ranking, one row per SAE and concept."""
        return self.folder / "rankings.parquet"

    @property
    def saes(self) -> Path:
        """Folder of the SAEs that `safesail train-saes` made."""
        return self.folder / "saes"

    @property
    def training(self) -> Path:
        """Table of the SAEs that `safesail train-saes` made."""
        return self.folder / "training.parquet"

    @property
    def judge_cache(self) -> Path:
        """SQLite file with every answer a judge gave."""
        return self.folder / "judge.sqlite"

    def features(self, sae: str) -> Path:
        """Table of an SAE's chosen features."""
        return self.folder / "features" / f"{sae}.parquet"

    def contexts(self, sae: str) -> Path:
        """Folder of an SAE's context shards."""
        return self.folder / "contexts" / sae

    @property
    def collection(self) -> Path:
        """Folder of collections that are under way: plans, checkpoints, finished shards."""
        return self.folder / "collection"

    def explanations(self, sae: str) -> Path:
        """Table of an SAE's explanations."""
        return self.folder / "explanations" / f"{sae}.parquet"

    def resolve(self, reference: str) -> Path:
        """A path of the configuration, relative to the study's folder."""
        return (self.folder / Path(reference).expanduser()).resolve()


def require_same(stored: dict[str, Any], present: dict[str, Any], where: Path) -> None:
    """Refuse to mix results of different settings.

    Args:
        stored: settings that made the results that lie in `where`.
        present: settings of this run, same keys.
        where: the file, for the message.

    Raises:
        StudyConflictError: some setting differs; each is named with its old and new value.
    """
    keys = sorted(stored.keys() | present.keys())
    changed = [
        f"{key} was {_short(stored.get(key))}, is {_short(present.get(key))}"
        for key in keys
        if stored.get(key) != present.get(key)
    ]
    if changed:
        raise StudyConflictError(
            f"{where} was made with other settings: {'; '.join(changed)}. "
            "Go back to the old settings, use another study folder, or add --overwrite"
        )


def _short(value: Any) -> str:
    # TOML has dates, which JSON has not.
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _describe(fault: Any) -> str:
    path = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = sorted(_known_keys(Configuration, fault["loc"][:-1]))
        close = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
        hint = f"did you mean `{close[0]}`?" if close else f"known here: {', '.join(known)}"
        return f"`{path}` is an unknown key ({hint})"
    if fault["type"] == "missing":
        return f"`{path}` is missing"
    message = fault["msg"].removeprefix("Value error, ")
    if not path:
        return message
    return f"`{path}`: {message[0].lower()}{message[1:]} (found {_short(fault['input'])})"


def _known_keys(section: type[BaseModel], path: tuple[int | str, ...]) -> set[str]:
    """Keys that a section knows, for the path of an unknown one."""
    for part in path:
        if isinstance(part, int):
            continue
        annotation = section.model_fields[part].annotation
        nested = [a for a in (annotation, *getattr(annotation, "__args__", ())) if _is_section(a)]
        if not nested:
            return set()
        section = nested[0]
    return set(section.model_fields)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _render_section(configuration: Configuration) -> Iterator[str]:
    for name in type(configuration).model_fields:
        section = getattr(configuration, name)
        yield f"# {(type(section).__doc__ or '').splitlines()[0]}"
        yield f"[{name}]"
        yield from _render_keys(section)
        for source in getattr(section, "sources", []):
            yield ""
            yield f"# {(type(source).__doc__ or '').splitlines()[0]}"
            yield f"[[{name}.sources]]"
            yield from _render_keys(source)
        yield ""


def _render_keys(section: Section) -> Iterator[str]:
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if key == "sources":
            continue
        yield f"# {field.description}"
        # TOML has no null: an absent value is shown as a comment that can be filled in.
        yield f'# {key} = ""' if value is None else f"{key} = {_toml_value(value)}"


def _toml_value(value: Any) -> str:
    if isinstance(value, list) and len(value) > 1:
        return "[\n" + "".join(f"  {_toml_value(item)},\n" for item in value) + "]"
    # JSON's strings, numbers and booleans are TOML's, but for the delete character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
