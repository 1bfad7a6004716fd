"""Columns of every result table: name, type, meaning. The one place that defines them."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Column:
    """One column: its name, Arrow type and what a reader needs to know of it."""

    name: str
    type: pa.DataType
    meaning: str


@dataclass(frozen=True)
class TableSchema:
    """A versioned table. Columns may be added under the same version, never renamed."""

    name: str
    version: int
    meaning: str
    columns: tuple[Column, ...]

    def arrow(self) -> pa.Schema:
        """The Arrow schema, with each column's meaning as field metadata."""
        return pa.schema(
            [pa.field(c.name, c.type, metadata={"meaning": c.meaning}) for c in self.columns]
        )


_STRING, _INT, _FLOAT = pa.string(), pa.int64(), pa.float64()
_STRINGS, _INTS, _FLOATS = pa.list_(pa.string()), pa.list_(pa.int64()), pa.list_(pa.float64())

_SAE = Column("sae", _STRING, "name of the candidate SAE")
_LAYER = Column("layer", _INT, "block of the language model that the SAE's hook point belongs to")
_FEATURE = Column("feature", _INT, "index of the latent in the SAE")


def _ends(name: str) -> tuple[Column, Column]:
    """The two ends of an estimate's 95 % interval."""
    return (
        Column(f"{name}_low", _FLOAT, "lower end of its 95 % interval over the pairs"),
        Column(f"{name}_high", _FLOAT, "upper end of its 95 % interval over the pairs"),
    )


RANKINGS = TableSchema(
    "rankings",
    1,
    "one row per SAE and concept",
    (
        _SAE,
        Column("source", _STRING, "where the SAE came from: release:id or folder"),
        Column("source_fingerprint", _STRING, "digest of its files, to notice a change"),
        Column("architecture", _STRING, "SAELens name of the SAE's architecture"),
        Column("hook_point", _STRING, "TransformerLens name of the activation the SAE reads"),
        _LAYER,
        Column("concept", _STRING, "concept, or `parent/child`"),
        Column("width", _INT, "number of features of the SAE"),
        Column("pairs", _INT, "contrast pairs of the concept, its children's included"),
        Column(
            "independent_pairs",
            _INT,
            "clusters of them: pairs that share a text or a template are one piece of evidence",
        ),
        Column("l0", _FLOAT, "mean number of active features per content token of the sample"),
        Column("fvu", _FLOAT, "fraction of variance unexplained at the sample's content tokens"),
        Column("dead_share", _FLOAT, "share of features silent on the whole sample"),
        Column("tokens", _INT, "content tokens of the corpus sample behind l0, fvu, dead_share"),
        Column("l0_pairs", _FLOAT, "l0 at content tokens of the pairs' texts, each text once"),
        Column("fvu_pairs", _FLOAT, "fvu at content tokens of the pairs' texts"),
        Column("dead_share_pairs", _FLOAT, "share of features silent on all the pairs' texts"),
        Column(
            "separating_features",
            _INT,
            "distinct features with an average precision of at least 0.75 at telling the concept's "
            "texts from their twins and from other concepts' texts, less those by chance",
        ),
        *_ends("separating_features"),
        Column(
            "separating_by_chance",
            _FLOAT,
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
            _FLOAT,
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
        Column("separation_top10", _FLOAT, "the same as separation_best, mean over ten features"),
        Column(
            "separation_chance",
            _FLOAT,
            "average precision of a random order: the weighted share of positives among the texts",
        ),
        Column("auroc", _FLOAT, "area under the ROC curve of the feature of separation_best"),
        *_ends("auroc"),
        Column("f1", _FLOAT, "F1 of that feature, its threshold chosen where it was picked"),
        Column(
            "probe5",
            _FLOAT,
            "average precision of a logistic regression on five features picked and fitted on one "
            "half, judged on the other: a baseline",
        ),
        Column(
            "specificity",
            _FLOAT,
            "f less the largest f on a concept outside the branch, of the feature that leads in it "
            "on one half of the pairs, judged on the other",
        ),
        Column("i_cdf", _FLOAT, "mean over all features of f, the share of pairs distinguished"),
        *_ends("i_cdf"),
        *(
            Column(f"l0_t{level}", _INT, f"number of features with f >= 0.{level // 10}")
            for level in (30, 50, 70, 90)
        ),
        *(
            Column(
                f"excess_l0_t{level}",
                _FLOAT,
                f"features that win at least 0.{level // 10} of the independent pairs, less the "
                "number expected if sides were swapped at random",
            )
            for level in (30, 50, 70, 90)
        ),
        Column("called_features", _INT, "features called at the false discovery rate"),
        Column(
            "least_callable_f",
            _FLOAT,
            "smallest share of independent pairs that one more feature would have to win to be "
            "called; missing where the pairs are too few",
        ),
        Column("rank", _INT, "place of the SAE among the candidates for this concept; 1 is best"),
        Column(
            "tied_with_best",
            pa.bool_(),
            "the difference to the first place lies inside its 95 % interval over pairs",
        ),
        Column(
            "best_probability",
            _FLOAT,
            "share of the resamples of the pairs in which the SAE comes first for this concept",
        ),
        Column("mean_rank", _FLOAT, "mean of rank over top-level concepts, equally weighted"),
        Column("health", _STRING, "`ok` or what is wrong with the SAE"),
        Column("warnings", _STRINGS, "what a reader should know before trusting the row"),
    ),
)

TRAINING = TableSchema(
    "training",
    1,
    "one row per SAE that `safesail train-saes` made",
    (
        _SAE,
        _LAYER,
        Column("hook_point", _STRING, "TransformerLens name of the activation the SAE reads"),
        Column(
            "architecture",
            _STRING,
            "as trained; batchtopk and matryoshka are saved as jumprelu, as SAELens does",
        ),
        Column(
            "sparsity",
            _FLOAT,
            "active features per token that were asked (k, or a target); for standard and gated "
            "the L1 coefficient",
        ),
        Column("width", _INT, "number of features of the SAE"),
        Column("steps", _INT, "optimiser steps"),
        Column("batch", _INT, "tokens of a step"),
        Column("learning_rate", _FLOAT, "of Adam at the start; a tenth of it at the end"),
        Column("seed", _INT, "seed of the first weights and of the order of tokens"),
        Column("tokens", _INT, "content tokens that were trained on, each once a pass"),
        Column(
            "heldout_tokens",
            _INT,
            "content tokens of documents set aside from all training (one in twenty, by hash of "
            "its id), which the figures below are taken at",
        ),
        Column(
            "loss",
            _FLOAT,
            "squared error summed over coordinates, inputs scaled to variance 1 per coordinate, "
            "plus the architecture's penalties; compare within an architecture",
        ),
        Column("l0", _FLOAT, "mean number of active features per token"),
        Column("fvu", _FLOAT, "fraction of variance unexplained"),
        Column("dead_share", _FLOAT, "share of features that never fire"),
        Column("seconds", _FLOAT, "of training, interruptions left out"),
    ),
)

FEATURES = TableSchema(
    "features",
    1,
    "one row per chosen feature and concept",
    (
        _SAE,
        _LAYER,
        _FEATURE,
        Column("concept", _STRING, "the concept the feature was chosen for"),
        Column("f", _FLOAT, "share of the concept's pairs that the feature distinguishes"),
        Column("f_low", _FLOAT, "lower end of the 95 % Wilson interval of f"),
        Column("f_high", _FLOAT, "upper end of the 95 % Wilson interval of f"),
        Column(
            "q_value",
            _FLOAT,
            "Benjamini-Hochberg adjusted p of the sign test on pairs; of pairs that share a text "
            "one counts",
        ),
        Column(
            "called",
            pa.bool_(),
            "q_value is within the false discovery rate; uncalled ones fill up to ten a concept",
        ),
        Column(
            "separation",
            _FLOAT,
            "average precision over all pairs; the largest of many is optimistic, see rankings",
        ),
        Column("specificity", _FLOAT, "f less the largest f on any concept outside the branch"),
        Column("q999", _FLOAT, "0.999 quantile of the feature's non-zero activations"),
        Column("tokens_seen", _INT, "content tokens of the collected corpus"),
        Column("fired", _INT, "content tokens at which the feature is above zero"),
        Column("density", _FLOAT, "fired / tokens_seen"),
        Column("max_activation", _FLOAT, "largest activation at a content token"),
        Column("histogram_edges", _FLOATS, "edges of the bins of positive activations"),
        Column("histogram_counts", _INTS, "tokens per bin, one fewer than the edges"),
        Column("top_logits", _STRINGS, "tokens whose logit the feature's direction raises most"),
        Column("bottom_logits", _STRINGS, "tokens whose logit it lowers most"),
        Column("nearest_features", _INTS, "features of the same SAE by decoder cosine, best first"),
        Column("status", _STRING, "`chosen`, then `collected`, `too_few_contexts` or `dead`"),
    ),
)

CONTEXTS = TableSchema(
    "contexts",
    1,
    "one row per context of a feature",
    (
        _SAE,
        _LAYER,
        _FEATURE,
        Column("split", _STRING, "`explain` or `score`, by hash of the document"),
        Column("kind", _STRING, "`active`, `silent`, or `hard_silent`: its words occur"),
        Column("level", _INT, "tenths of q999 that the peak reaches, 1 to 10; 0 is silent"),
        Column("sample", _STRING, "`top`: among the strongest; `random`: drawn from its stratum"),
        Column("document", _STRING, "id of the document"),
        Column("start", _INT, "place of the first token in the document, BOS not counted"),
        Column("tokens", _STRINGS, "token strings; joined they are the text"),
        Column("token_ids", pa.list_(pa.int32()), "token ids of the language model"),
        Column("activations", pa.list_(pa.float32()), "the feature's activation at each token"),
        Column("peak", pa.float32(), "largest activation of the window"),
        Column("peak_at", _INT, "its place in the window, 0 is the first token"),
        Column(
            "weight",
            _FLOAT,
            "inverse sampling probability in the row's stratum; NaN for `top` rows, no sample",
        ),
    ),
)

EXPLANATIONS = TableSchema(
    "explanations",
    1,
    "one row per feature, explainer, judge and language",
    (
        _SAE,
        _LAYER,
        _FEATURE,
        Column("language", _STRING, "language of the explanation, as a tag such as `en`"),
        Column("concepts", _STRINGS, "concepts the feature was chosen for, best first"),
        Column("judge_concepts", _STRINGS, "concepts that the judge assigned; null for lexical"),
        Column("explanation", _STRING, "what the feature responds to"),
        Column("explainer", _STRING, "`lexical` (no language model asked) or `judge`"),
        Column("judge_model", _STRING, "model that explained and simulated; null for lexical"),
        Column("judge_url", _STRING, "base URL it was asked at; null for lexical"),
        Column("prompt_version", _STRING, "versions of the prompts; null for lexical"),
        Column("confidence", _FLOAT, "the judge's own confidence, 0 to 1; null for lexical"),
        Column(
            "correlation",
            _FLOAT,
            "Pearson correlation of simulated and true activation over the tokens of held-out "
            "windows, weighted to the mixture",
        ),
        Column("correlation_low", _FLOAT, "lower end of its 95 % interval, documents as clusters"),
        Column("correlation_high", _FLOAT, "upper end of its 95 % interval"),
        Column("discrimination", _FLOAT, "AUROC of window peaks, active against silent windows"),
        Column("discrimination_low", _FLOAT, "lower end of its 95 % interval"),
        Column("discrimination_high", _FLOAT, "upper end of its 95 % interval"),
        Column("observations", _INT, "held-out windows behind the scores"),
        Column("mixture", _STRING, "kinds of windows the scores refer to, with their shares"),
        Column("item_format", _STRING, "how activations were simulated"),
        Column("calls", _INT, "requests sent for the row, cached answers not counted"),
        Column("prompt_tokens", _INT, "prompt tokens of all answers behind the row"),
        Column("completion_tokens", _INT, "completion tokens of all answers behind the row"),
        Column(
            "status",
            _STRING,
            "`scored`, `explained` (no score), `refused`, `unparseable`, `failed`, "
            "`too_few_contexts` or `dead`",
        ),
        Column("error", _STRING, "why, where the status is not `scored`"),
        Column("created_at", pa.timestamp("s", tz="UTC"), "when the row was made"),
    ),
)
