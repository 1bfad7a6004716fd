"""Columns of what ranking finds of each SAE."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from safesail.tables._schemas._columns import (
    FLOAT,
    INT,
    LAYER,
    SAE,
    STRING,
    STRINGS,
    Column,
    TableSchema,
)


def _ends(name: str) -> tuple[Column, Column]:
    """The two ends of an estimate's 95 % interval."""
    return (
        Column(f"{name}_low", FLOAT, "lower end of its 95 % interval over the pairs"),
        Column(f"{name}_high", FLOAT, "upper end of its 95 % interval over the pairs"),
    )


RANKINGS = TableSchema(
    "rankings",
    1,
    "one row per SAE and concept",
    (
        SAE,
        Column("source", STRING, "where the SAE came from: release:id or folder", nullable=False),
        Column(
            "source_fingerprint", STRING, "digest of its files, to notice a change", nullable=False
        ),
        Column("architecture", STRING, "SAELens name of the SAE's architecture"),
        Column("hook_point", STRING, "TransformerLens name of the activation the SAE reads"),
        replace(LAYER, nullable=True),  # unknown of some that were refused
        Column("concept", STRING, "concept, or `parent/child`", nullable=False),
        Column("width", INT, "number of features of the SAE"),
        Column("pairs", INT, "contrast pairs of the concept, its children's included"),
        Column(
            "independent_pairs",
            INT,
            "clusters of them: pairs that share a text or a template are one piece of evidence",
        ),
        Column("l0", FLOAT, "mean number of active features per content token of the sample"),
        Column("fvu", FLOAT, "fraction of variance unexplained at the sample's content tokens"),
        Column("dead_share", FLOAT, "share of features silent on the whole sample"),
        Column("tokens", INT, "content tokens of the corpus sample behind l0, fvu, dead_share"),
        Column(
            "sink_threshold",
            FLOAT,
            "hidden norm above which a token is an attention sink, not content: 8 times the median "
            "of the sample at the SAE's layer",
        ),
        Column("l0_pairs", FLOAT, "l0 at content tokens of the pairs' texts, each text once"),
        Column("fvu_pairs", FLOAT, "fvu at content tokens of the pairs' texts"),
        Column("dead_share_pairs", FLOAT, "share of features silent on all the pairs' texts"),
        Column(
            "separating_features",
            INT,
            "distinct features with an average precision of at least 0.75 at telling the concept's "
            "texts from their twins and from other concepts' texts, less those by chance",
        ),
        *_ends("separating_features"),
        Column(
            "separating_by_chance",
            FLOAT,
            "such features with the sides of the pairs swapped at random, mean of 20 swaps; taken "
            "off separating_features, rounded",
        ),
        Column(
            "separating_resamples",
            pa.list_(pa.float32()),
            "separating_features under each resample of the pairs, the same resamples for every "
            "SAE: two SAEs are compared by the difference",
        ),
        Column(
            "separation_best",
            FLOAT,
            "average precision of the best feature, chosen on one half of the pairs and judged "
            "on the other, mean of both ways and of four splits; concept texts against twins and "
            "other concepts",
        ),
        *_ends("separation_best"),
        Column(
            "separation_resamples",
            pa.list_(pa.float32()),
            "separation_best under each resample of the pairs",
        ),
        Column("separation_top10", FLOAT, "the same as separation_best, mean over ten features"),
        Column(
            "separation_chance",
            FLOAT,
            "average precision of a random order: the weighted share of positives among the texts",
        ),
        Column("auroc", FLOAT, "area under the ROC curve of the feature of separation_best"),
        *_ends("auroc"),
        Column("f1", FLOAT, "F1 of that feature, its threshold chosen where it was picked"),
        Column(
            "probe5",
            FLOAT,
            "average precision of a logistic regression on five features picked and fitted on one "
            "half, judged on the other: a baseline",
        ),
        Column(
            "specificity",
            FLOAT,
            "f less the largest f on a concept outside the branch, of the feature that leads in it "
            "on one half of the pairs, judged on the other",
        ),
        Column("i_cdf", FLOAT, "mean over all features of f, the share of pairs distinguished"),
        *_ends("i_cdf"),
        *(
            Column(f"l0_t{level}", INT, f"number of features with f >= 0.{level // 10}")
            for level in (30, 50, 70, 90)
        ),
        *(
            Column(
                f"excess_l0_t{level}",
                FLOAT,
                f"features that win at least 0.{level // 10} of the independent pairs, less the "
                "number expected if sides were swapped at random",
            )
            for level in (30, 50, 70, 90)
        ),
        Column("called_features", INT, "features called at the false discovery rate"),
        Column(
            "least_callable_f",
            FLOAT,
            "smallest share of independent pairs that one more feature would have to win to be "
            "called; missing where the pairs are too few",
        ),
        Column("rank", INT, "place of the SAE among the candidates for this concept; 1 is best"),
        Column(
            "tied_with_best",
            pa.bool_(),
            "the difference to the first place lies inside its 95 % interval over pairs",
        ),
        Column(
            "best_probability",
            FLOAT,
            "share of the resamples of the pairs in which the SAE comes first for this concept",
        ),
        Column("mean_rank", FLOAT, "mean of rank over top-level concepts, equally weighted"),
        Column("health", STRING, "`ok` or what is wrong with the SAE", nullable=False),
        Column(
            "warnings", STRINGS, "what a reader should know before trusting the row", nullable=False
        ),
    ),
)
