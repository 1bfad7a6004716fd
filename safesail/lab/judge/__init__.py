"""A judge with known truth: a server that knows the lab's labels and answers as a judge would.

It speaks the OpenAI protocol on loopback. It explains from a prompt's windows alone and predicts
from nothing but what the explanation names, and it grades answers of the chat world by its grammar,
with errors that can be set, so that costs, coverage and behaviour can be measured through the real
client. `python -m safesail.lab.judge` runs it in a process of its own.
"""

from safesail.lab.judge._bodies import MODEL
from safesail.lab.judge._log import ServerLog
from safesail.lab.judge._noise import QUALITIES, BatchBehaviour, Faults, Quality
from safesail.lab.judge._seeing import expected_grades
from safesail.lab.judge._server import KnownTruthJudge, RemoteJudge

__all__ = [
    "MODEL",
    "QUALITIES",
    "BatchBehaviour",
    "Faults",
    "KnownTruthJudge",
    "Quality",
    "RemoteJudge",
    "ServerLog",
    "expected_grades",
]
