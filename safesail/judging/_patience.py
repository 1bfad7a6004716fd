"""When an endpoint has gone silent, so that a run ends instead of failing question by question."""

from __future__ import annotations

from safesail.errors import JudgeError
from safesail.judging._responses import Response

# Before the first answer questions go one by one, each with all its retries.
_MOST_AT_FIRST = 3
# Later they are under way together, and a short outage takes all of those along.
_MOST, _ROUNDS = 20, 3
_SEE = "see whether it still runs"
_ADVICE = {429: "it limits the rate: wait, or lower judge.concurrency"}


class Patience:
    """Counts questions in a row that brought no answer, retries and all.

    Args:
        url: of the endpoint.
        concurrency: questions that may be under way at once.

    Attributes:
        contacted: whether the endpoint has answered a question.
    """

    def __init__(self, url: str, concurrency: int) -> None:
        self.contacted = False
        self._url = url
        self._most = max(_MOST, _ROUNDS * concurrency)
        self._silent = 0

    def note(self, response: Response) -> None:
        """Take note of the last response to a question.

        Raises:
            JudgeError: too many questions in a row brought none that says anything of them.
        """
        if response.usable or response.rejected:
            self.contacted, self._silent = True, 0
            return
        self._silent += 1
        if self._silent >= (self._most if self.contacted else _MOST_AT_FIRST):
            raise JudgeError(
                f"the judge at {self._url} answered none of the last {self._silent} questions "
                f"({response.summary}): {_ADVICE.get(response.status_code, _SEE)}, then run "
                "again; what it answered is kept"
            )
