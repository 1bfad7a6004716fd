"""A study: a folder with `safesail.toml` and the results made from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from safesail.errors import ConfigurationError, StudyConflictError
from safesail.study._configuration import Configuration, faults_of, short
from safesail.study._settings import JudgeSettings

CONFIGURATION_FILE = "safesail.toml"


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
            raise ConfigurationError(f"judge: {faults_of(error)}") from error
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
        f"{key} was {short(stored.get(key))}, is {short(present.get(key))}"
        for key in keys
        if stored.get(key) != present.get(key)
    ]
    if changed:
        raise StudyConflictError(
            f"{where} was made with other settings: {'; '.join(changed)}. "
            "Go back to the old settings, use another study folder, or add --overwrite"
        )
