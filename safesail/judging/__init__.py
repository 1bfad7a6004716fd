"""A judge answers typed questions: any endpoint that speaks the OpenAI chat protocol."""

from safesail.judging._judge import Judge
from safesail.judging._models import list_models
from safesail.judging._questions import Answer, Prompt, Question, prompt_version, render

__all__ = ["Answer", "Judge", "Prompt", "Question", "list_models", "prompt_version", "render"]
