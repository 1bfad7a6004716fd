"""The judge that a study's settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from safesail.study import JudgeSettings, Study

if TYPE_CHECKING:
    from safesail.judging import Judge, Price, Prices


def judge_of(study: Study, *, budget: str | None = None, batch: bool = False) -> Judge | None:
    """The judge with its fallback; None where the study names no model.

    Args:
        study: the study.
        budget: what its answers may cost, such as `5usd` or `2e6tokens`.
        batch: ask through the Batch API.

    Raises:
        ConfigurationError: the budget or the price list is malformed, or a price is missing.
        JudgeError: the URL is malformed, or there is no key.
    """
    settings = study.configuration.judge
    if settings.model is None:
        return None
    from safesail.judging import Budget, Judge

    common: dict[str, Any] = {
        "cache": study.judge_cache,
        "concurrency": settings.concurrency,
        "timeout": settings.timeout,
        "prices": _prices(study),
        "batch": batch,
    }
    fallback = None
    if settings.fallback_model is not None:
        fallback = Judge(
            settings.fallback_url or settings.url,
            settings.fallback_model,
            key_variable=settings.fallback_key_variable or settings.key_variable,
            **common,
        )
    return Judge(
        settings.url,
        settings.model,
        key_variable=settings.key_variable,
        reasoning_effort=settings.reasoning_effort,
        budget=None if budget is None else Budget.parse(budget),
        fallback=fallback,
        **common,
    )


def price_of(study: Study) -> Price | None:
    """Price of the study's judge; None without one, or on this machine."""
    settings: JudgeSettings = study.configuration.judge
    if settings.model is None:
        return None
    return _prices(study).at(settings.url).find(settings.model)


def _prices(study: Study) -> Prices:
    from safesail.judging import Prices

    path = study.configuration.judge.prices
    return Prices.load(study.resolve(path) if path else None)
