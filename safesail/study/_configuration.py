"""What `safesail.toml` may hold as a whole: read, checked, and written with comments."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError, model_validator

from safesail.errors import ConfigurationError
from safesail.study._settings import (
    CandidateSettings,
    CollectionSettings,
    ConceptSettings,
    CorpusSettings,
    JudgeSettings,
    ModelSettings,
    RankingSettings,
    Section,
)


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
            raise ConfigurationError(f"{where}: {faults_of(error)}") from error

    def to_toml(self) -> str:
        """The configuration as commented TOML, every key with its meaning."""
        return "\n".join(_render_section(self)) + "\n"


def short(value: Any) -> str:
    """A value for a message, cut where it is long."""
    # TOML has dates, which JSON has not.
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def faults_of(error: ValidationError) -> str:
    """What was wrong, each fault with its key path."""
    return "; ".join(_describe(fault) for fault in error.errors())


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
    return f"`{path}`: {message[0].lower()}{message[1:]} (found {short(fault['input'])})"


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
