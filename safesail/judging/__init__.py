"""A judge answers typed questions: any endpoint that speaks the OpenAI chat protocol."""

from safesail.judging._batch_files import BatchPace
from safesail.judging._budget import Budget
from safesail.judging._cache import AnswerCache
from safesail.judging._history import History, StoredAnswer, Totals
from safesail.judging._judge import Judge
from safesail.judging._models import list_models
from safesail.judging._prices import Price, Prices
from safesail.judging._questions import Answer, Prompt, Question, prompt_version, render

__all__ = [
    "Answer",
    "AnswerCache",
    "BatchPace",
    "Budget",
    "History",
    "Judge",
    "Price",
    "Prices",
    "Prompt",
    "Question",
    "StoredAnswer",
    "Totals",
    "list_models",
    "prompt_version",
    "render",
]
