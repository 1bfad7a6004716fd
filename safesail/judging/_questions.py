"""Questions with the type of their answers, and the templates that they are rendered from."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any, Literal

from jinja2 import Environment, FunctionLoader, StrictUndefined
from pydantic import BaseModel

Message = dict[str, str]
Status = Literal["answered", "refused", "unparseable", "failed", "budget"]

_VERSION = re.compile(r"\{# version: (?P<version>\S+) #\}")


@dataclass(frozen=True)
class Prompt:
    """A rendered template: its task, its version and the chat messages."""

    task: str
    version: str
    messages: list[Message]


@dataclass(frozen=True)
class Question:
    """Something to ask a judge.

    Attributes:
        task: name of the template, such as `explain`.
        version: version of the template, such as `explain/1`.
        messages: chat messages with `role` and `content`.
        answer_type: pydantic model that the answer must fit. Its JSON schema goes to the endpoint;
            objects there must forbid additional properties (strict schemas demand it).
        max_tokens: limit of completion tokens.
        validation_context: handed to the validators of `answer_type`; not part of the request.
    """

    task: str
    version: str
    messages: list[Message]
    answer_type: type[BaseModel]
    max_tokens: int
    validation_context: dict[str, Any] | None = None


@dataclass(frozen=True)
class Answer:
    """What came of a question.

    Attributes:
        value: the parsed answer; None unless `status` is `answered`.
        status: `answered`; `refused` by the judge or its filter, and by the fallback where there
            is one; `unparseable` twice; `failed` (no usable response, after all retries);
            `budget` (not asked, or not to the end: the budget is spent).
        error: one line that says why, unless answered.
        prompt_tokens: as the endpoint counted them, cached responses included.
        completion_tokens: likewise, hidden reasoning included.
        reasoning_tokens: of these, the hidden ones.
        cost_usd: US dollars by the price list, cached responses included at what they cost when
            they were paid for; None where the model has no price or tokens were not counted.
        calls: requests sent now, retries included; cached responses count nothing.
        cached: nothing was sent.
        model: who was asked last: the judge's model or, where that refused, the fallback's; empty
            where the budget left nobody to ask.
        by_fallback: the fallback was asked last, which may bear the judge's name.
    """

    value: BaseModel | None
    status: Status
    error: str | None
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cost_usd: float | None
    calls: int
    cached: bool
    model: str
    by_fallback: bool = False

    def after(self, earlier: Answer) -> Answer:
        """This answer with what an earlier one to the same question cost added."""
        costs = (earlier.cost_usd, self.cost_usd)
        return replace(
            self,
            prompt_tokens=earlier.prompt_tokens + self.prompt_tokens,
            completion_tokens=earlier.completion_tokens + self.completion_tokens,
            reasoning_tokens=earlier.reasoning_tokens + self.reasoning_tokens,
            cost_usd=None if None in costs else sum(cost for cost in costs if cost),
            calls=earlier.calls + self.calls,
            cached=earlier.cached and self.cached,
        )


def render(task: str, **values: Any) -> Prompt:
    """Render the template `<task>.j2` of `safesail.prompts`.

    The template's first line is `{# version: <task>/<number> #}`; its blocks `system` and `user`
    become messages, each where there is one. Texts that others wrote go through the filter
    `json`, which fences them: quotes and line breaks are escaped, and so is `<`, with which chat
    templates and markup begin their control strings.

    Raises:
        jinja2.UndefinedError: a value that the template needs is not given.
        ValueError: the template names no version.
    """
    template = _environment().get_template(f"{task}.j2")
    context = template.new_context(values)
    messages = [
        {"role": role, "content": "".join(template.blocks[role](context)).strip()}
        for role in ("system", "user")
        if role in template.blocks
    ]
    return Prompt(task, prompt_version(task), messages)


@cache
def prompt_version(task: str) -> str:
    """Version of a template, such as `explain/1`.

    Raises:
        ValueError: the template names no version.
    """
    first_line = _source(f"{task}.j2").partition("\n")[0]
    match = _VERSION.fullmatch(first_line)
    if match is None:
        raise ValueError(f"prompts/{task}.j2: the first line names no version")
    return match["version"]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_source),
        undefined=StrictUndefined,
        autoescape=False,  # prompts are not HTML; the json filter fences what others wrote
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["json"] = _fenced_json
    return environment


def _source(name: str) -> str:
    return resources.files("safesail.prompts").joinpath(name).read_text(encoding="utf-8")


def _fenced_json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False).replace("<", "\\u003c")
    # Half a surrogate pair is no character: it could not be sent.
    return text.encode("utf-8", "replace").decode("utf-8")
