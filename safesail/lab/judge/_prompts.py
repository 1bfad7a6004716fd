"""What a request asks: its task, by the system message, and what the user message quotes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from safesail.judging import render
from safesail.lab.judge._chat_reading import read_request

Entry = str | list[str]
"""A text, or the segments of a window."""

GRADED = ("segments", "items", "detection", "fuzzing")

# Values with which every template can be rendered; its system message holds none of them but for
# the language, behind which nothing is compared.
_EMPTY: Mapping[str, Mapping[str, Any]] = {
    "explain": {"concepts": [], "language": "\0", "active": [], "silent": []},
    "simulate": {"explanation": "", "windows": []},
    "segments": {"explanation": "", "windows": []},
    "items": {"explanation": "", "items": []},
    "detection": {"explanation": "", "windows": []},
    "fuzzing": {"explanation": "", "windows": []},
    "contrast_pairs": {
        "concept": "",
        "description": "",
        "language": "",
        "count": 0,
        "styles": [],
        "taken": [],
    },
    "safety_grade": {"request": "", "answer": ""},
}
_ENTRY = re.compile(r"\d+ ([\[\"].*)")
_LANGUAGE = re.compile(r'Language: "([^"]*)"')
_COUNT = re.compile(r"Write (\d+) pairs")


@dataclass(frozen=True)
class Asked:
    """A question as the judge reads it.

    Attributes:
        task: name of the template.
        repeated: an earlier answer could not be read.
        explanation: of the tasks that predict from one.
        entries: what is graded, in order.
        windows: tokens of each window to simulate.
        active: windows of the explain prompt, marks included.
        silent: windows without marks.
        concepts: the explain prompt's list.
        language: of the explanation or of the pairs.
        concept: to write contrast pairs for.
        count: of contrast pairs.
        taken: texts that they must not repeat.
        request: of the chat world, whose answer is to be graded.
        answer: that answer.
    """

    task: str
    repeated: bool
    explanation: str = ""
    entries: list[Entry] = field(default_factory=list)
    windows: list[list[str]] = field(default_factory=list)
    active: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    concepts: list[str] = field(default_factory=list)
    language: str = "en"
    concept: str = ""
    count: int = 0
    taken: list[str] = field(default_factory=list)
    request: str = ""
    answer: str = ""


def asked(body: Mapping[str, Any]) -> Asked:
    """What a chat completion's request asks.

    Raises:
        ValueError: it is none of safesail's questions, or about a request that is none of the chat
            world's.
    """
    try:
        system, user, *rest = [str(message["content"]) for message in body["messages"]]
        task = next(task for task, head in _heads().items() if system.startswith(head))
        lines = user.split("\n")
        return Asked(task, repeated=bool(rest), **_quoted(task, system, lines))
    except (KeyError, TypeError, IndexError, StopIteration, AttributeError) as error:
        raise ValueError("no question that this judge knows") from error


@cache
def _heads() -> dict[str, str]:
    """Task -> how its system message begins."""
    return {
        task: render(task, **values).messages[0]["content"].partition('"\\u0000"')[0]
        for task, values in _EMPTY.items()
    }


def _quoted(task: str, system: str, lines: list[str]) -> dict[str, Any]:
    if task == "explain":
        return _windows_to_explain(system, lines)
    head = json.loads(lines[0])
    if task == "contrast_pairs":
        count = next(int(match[1]) for line in lines if (match := _COUNT.match(line)))
        return {
            "concept": head["concept"],
            "language": head["language"],
            "count": count,
            "taken": [json.loads(line) for line in lines if line.startswith('"')],
        }
    if task == "safety_grade":
        read_request(head["request"])  # where nothing is known, nothing is graded
        return {"request": head["request"], "answer": head["answer"]}
    explanation = head["explanation"]
    if task == "simulate":
        objects = [json.loads(line) for line in lines[1:] if line.startswith("{")]
        return {"explanation": explanation, "windows": [one["tokens"] for one in objects]}
    entries = [json.loads(match[1]) for line in lines[1:] if (match := _ENTRY.fullmatch(line))]
    return {"explanation": explanation, "entries": entries}


def _windows_to_explain(system: str, lines: list[str]) -> dict[str, Any]:
    windows: dict[str, list[str]] = {"Active windows:": [], "Silent windows:": []}
    concepts: list[str] = []
    place = None
    for line in lines:
        if line.startswith("Concept list:"):
            concepts = json.loads(line.partition(":")[2])
        elif line in windows:
            place = windows[line]
        elif place is not None and line.startswith('"'):
            place.append(json.loads(line))
    match = _LANGUAGE.search(system)
    return {
        "concepts": concepts,
        "active": windows["Active windows:"],
        "silent": windows["Silent windows:"],
        "language": match[1] if match else "en",
    }
