"""The card of a dataset or a release: README.md, written from the data."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from safesail.tables._export import markdown_text
from safesail.tables._records import explained_by
from safesail.tables._schemas import SCHEMAS
from safesail.tables.formats._rows import Row, SaeTables
from safesail.tables.formats._text import clean, number

_TAGS = ("safesail", "safety", "interpretability", "sparse-autoencoder")
# Above these a score is counted: our choice, of no meaning beyond the counting.
_BARS = {"correlation": (0.3, 0.5, 0.7), "discrimination": (0.7, 0.8, 0.9)}
_RECIPES_SHOWN = 2
_CITATIONS = """\
Safe-SAIL, whose steps these tables follow (the formulas, thresholds and prompts are safesail's):
[arXiv 2509.18127](https://arxiv.org/abs/2509.18127), Findings of ACL 2026. SAILS:
[arXiv 2512.23260](https://arxiv.org/abs/2512.23260)."""


@dataclass(frozen=True)
class CardFacts:
    """What a card is written from.

    Attributes:
        title: name of the study.
        model: name of the language model.
        saes: what the study holds of each SAE.
        rows: rows, by name of the table.
        files: pattern of a table's files in the folder, by its name.
        corpus: names of the sources that features were observed on.
        tokens: content tokens of them that features were observed on.
        licence: identifier of the licence; None where none was given.
        included: what lies in the folder beside the tables, one line each.
    """

    title: str
    model: str
    saes: Sequence[SaeTables]
    rows: Mapping[str, int]
    files: Mapping[str, str]
    corpus: Sequence[str]
    tokens: int
    licence: str | None
    included: Sequence[str] = field(default=())


def card(facts: CardFacts) -> str:
    """The card as Markdown with YAML front matter, as the Hugging Face hub reads it."""
    sections = [
        _front_matter(facts),
        f"# {markdown_text(facts.title)}: explained safety features",
        _summary(facts),
        "\n".join(["## Tables", "", *_tables(facts)]),
        "\n".join(["## Concepts", "", *_concepts(facts.saes)]),
        "\n".join(["## Explanations and their scores", "", *_scores(facts.saes)]),
        "\n".join(["## Limits", "", *_limits(facts)]),
        "\n".join(["## Sources", "", _CITATIONS]),
    ]
    return clean("\n\n".join(sections)) + "\n"


def _front_matter(facts: CardFacts) -> str:
    languages = {row["language"].partition("-")[0] for sae in facts.saes for row in _given(sae)}
    content: dict[str, Any] = {"pretty_name": facts.title}
    if facts.licence is not None:
        content["license"] = facts.licence
    content |= {
        "language": sorted(languages),
        "tags": list(_TAGS),
        "configs": [
            {
                "config_name": table,
                "data_files": pattern,
                **({"default": True} if table == "explanations" else {}),
            }
            for table, pattern in facts.files.items()
        ],
    }
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    return f"---\n{text}---"


def _chosen(sae: SaeTables) -> list[Row]:
    """Rows of features that a concept chose, not those that were collected by number."""
    return [row for row in sae.features if row["concept"] is not None]


def _given(sae: SaeTables) -> list[Row]:
    return [row for row in sae.explanations if row["explanation"] is not None]


def _summary(facts: CardFacts) -> str:
    explained = sum(len({row["feature"] for row in _given(sae)}) for sae in facts.saes)
    others = sum(
        len({row["feature"] for row in _given(sae)} - {row["feature"] for row in _chosen(sae)})
        for sae in facts.saes
    )
    but = f", but for {others:,} that no concept chose" if others else ""
    lines = [
        f"{explained:,} explained features of sparse autoencoders (SAEs) of the language model "
        f"{markdown_text(facts.model)}, chosen as those that separate safety concepts best{but}, "
        "and what is known of how good the explanations are. Only of those that are called it is "
        "shown that they separate a concept at all. Made with safesail.",
        "",
        "| SAE | layer | reads | features chosen | called | explained | where it is from |",
        "| --- | ---: | --- | ---: | ---: | ---: | --- |",
    ]
    for sae in facts.saes:
        chosen = {row["feature"] for row in _chosen(sae)}
        called = {row["feature"] for row in sae.features if row["called"]}
        with_text = {row["feature"] for row in _given(sae)}
        cells = [
            *(markdown_text(sae.sae), str(sae.layer), markdown_text(sae.hook_point or "unknown")),
            *(f"{len(chosen):,}", f"{len(called):,}", f"{len(with_text):,}"),
            markdown_text(sae.published or "not published"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    licence = markdown_text(facts.licence) if facts.licence else "none was given: ask the author"
    lines += ["", f"Licence: {licence}."]
    if facts.included:
        lines += ["", "Beside the tables there are:", "", *(f"- {one}" for one in facts.included)]
    return "\n".join(lines)


def _tables(facts: CardFacts) -> list[str]:
    lines = ["| table | rows | files | a row |", "| --- | ---: | --- | --- |"]
    lines += [
        f"| {name} | {facts.rows.get(name, 0):,} | `{pattern}` | {SCHEMAS[name].meaning} |"
        for name, pattern in facts.files.items()
    ]
    return [
        *lines,
        "",
        "```python",
        "from datasets import load_dataset",
        'explanations = load_dataset("FOLDER OR NAME", "explanations")',
        "```",
        "",
        "Columns are described in each file's metadata and in safesail's docs/tables.md. What was "
        "not computed is null; what is undefined is NaN.",
    ]


def _concepts(saes: Iterable[SaeTables]) -> list[str]:
    found: Counter[str] = Counter()
    called: Counter[str] = Counter()
    for sae in saes:
        found.update(row["concept"] for row in _chosen(sae))
        called.update(row["concept"] for row in sae.features if row["called"])
    if not found:
        return ["No features were chosen by concept."]
    lines = ["| concept | features chosen | called |", "| --- | ---: | ---: |"]
    return lines + [f"| {markdown_text(c)} | {found[c]:,} | {called[c]:,} |" for c in sorted(found)]


def _scores(saes: Iterable[SaeTables]) -> list[str]:
    groups: dict[tuple[str, str], list[Row]] = {}
    for sae in saes:
        for row in sae.explanations:
            groups.setdefault((_explainer(row), row["language"]), []).append(row)
    lines = []
    for (by, language), rows in sorted(groups.items()):
        statuses = Counter(row["status"] for row in rows)
        counted = ", ".join(f"{count:,} {status}" for status, count in statuses.most_common())
        lines += [f"**{markdown_text(by)}**, language {markdown_text(language)}: {counted}.", ""]
        measured = [line for name in _BARS if (line := _score_line(name, rows))]
        if measured:
            lines += [
                "| score | features | median | range | at least | interval wholly above |",
                "| --- | ---: | ---: | --- | --- | --- |",
                *measured,
                "",
            ]
        lines += [*_recipe(rows), ""]
    return lines[:-1] or ["There are none."]


def _explainer(row: Row) -> str:
    if row["source"] is None:
        return explained_by(row)
    scored = f", scored by {row['judge_model']}" if row["judge_model"] else ""
    return f"imported from {row['source']}{scored}"


def _score_line(name: str, rows: Sequence[Row]) -> str | None:
    pairs = [
        (value, number(row[f"{name}_low"]))
        for row in rows
        if (value := number(row[name])) is not None
    ]
    if not pairs:
        return None
    values = [value for value, _ in pairs]
    lows = [low for _, low in pairs if low is not None]
    at_least = ", ".join(f"{bar}: {sum(v >= bar for v in values):,}" for bar in _BARS[name])
    above = ", ".join(f"{bar}: {sum(low > bar for low in lows):,}" for bar in _BARS[name])
    return (
        f"| {name} | {len(values):,} | {statistics.median(values):.2f} "
        f"| {min(values):.2f} to {max(values):.2f} | {at_least} "
        f"| {above if lows else 'no intervals'} |"
    )


def _recipe(rows: Sequence[Row]) -> list[str]:
    """What the scores of some rows refer to, and what they took."""
    lines = []
    for name, label in (("mixture", "Windows"), ("item_format", "Simulated")):
        stated = Counter(row[name] for row in rows if row[name]).most_common()
        if stated:
            shown = "; ".join(
                f"{markdown_text(s)} ({n:,} rows)" for s, n in stated[:_RECIPES_SHOWN]
            )
            more = sum(n for _, n in stated[_RECIPES_SHOWN:])
            others = f"; others, as column `{name}` has them ({more:,} rows)" if more else ""
            lines.append(f"- {label}: {shown}{others}.")
    calls = sum(row["calls"] for row in rows)
    tokens = sum(row["prompt_tokens"] + row["completion_tokens"] for row in rows)
    if tokens:
        costs = [row["cost_usd"] for row in rows if row["prompt_tokens"]]
        known = [cost for cost in costs if number(cost) is not None]
        dollars = f"{sum(known):.2f} US dollars" if len(known) == len(costs) else "price unknown"
        lines.append(f"- Cost: {calls:,} requests, {tokens:,} tokens, {dollars}.")
    masked = sum(bool(row["masked"]) for row in rows)
    nulls = sum(row["status"] == "imported" and row["explanation"] is None for row in rows)
    if masked or nulls:
        lines.append(f"- {masked:,} explanations are masked (`***`), {nulls:,} are null.")
    return lines


def _limits(facts: CardFacts) -> list[str]:
    corpus = ", ".join(map(markdown_text, facts.corpus)) or "unknown"
    return [
        f"- Features were observed on {facts.tokens:,} tokens of: {corpus}. A feature that "
        "is silent there is not known to be silent elsewhere. `contexts` quotes these texts: "
        "their licences hold for the quotations, and they can be harmful.",
        "- Correlation is Pearson's between simulated and true activation, discrimination the "
        "AUROC of what was simulated, active against silent; intervals are of 95 %, over held-out "
        "documents. Both refer to the mixture of windows stated above, not to running text, where "
        "nearly all tokens are silent and precision is lower.",
        "- Scores hold for the judge that gave them. `lexical` is word statistics, a baseline that "
        "asked no language model. What was imported stands as its file states it.",
        "- The number of features at or above a bar depends on which were explained at all.",
        "- An explanation says what a feature responds to, not what it does to the model's output.",
    ]
