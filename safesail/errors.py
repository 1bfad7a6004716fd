"""Every error that safesail raises on purpose.

The message is one line: what is wrong, where (file, key path, row), what to do. The command line
prints it and exits with 1; anything else that escapes is a defect of safesail.

    SafesailError
    ├── ConfigurationError   safesail.toml: unknown key, wrong type, impossible combination
    ├── StudyConflictError   results made by other settings lie in the study folder
    ├── InputError           a file the user gave: concepts, corpus; malformed, empty, unreadable
    ├── ModelError           a language model: missing, gated, unusable, hook point absent
    ├── CandidateError       a sparse autoencoder: missing, corrupted, wired to something else
    ├── JudgeError           a judge: no key, unreachable, refuses the request
    ├── AlignmentError       an adapter: cannot be made, trained or read
    └── StorageError         writing a result failed: disk full, no permission
"""


class SafesailError(Exception):
    """Base of all errors that safesail raises on purpose; the message is one line."""


class ConfigurationError(SafesailError):
    """`safesail.toml` has an unknown key, a wrong type or an impossible combination."""


class StudyConflictError(SafesailError):
    """The study folder holds results made by other settings than the present ones."""


class InputError(SafesailError):
    """A file the user gave is missing, empty, malformed or holds nothing usable."""


class ModelError(SafesailError):
    """A language model cannot be loaded or lacks what a candidate reads."""


class CandidateError(SafesailError):
    """A sparse autoencoder cannot be loaded or does not fit the model."""


class JudgeError(SafesailError):
    """A judge cannot be asked at all (single unanswered questions are statuses, not errors)."""


class AlignmentError(SafesailError):
    """An adapter cannot be made on a model, its training went wrong, or it cannot be read."""


class StorageError(SafesailError):
    """A result could not be written; what was there before is intact."""
