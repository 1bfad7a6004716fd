"""No explanation is scored on a near-copy of what it was written from."""

from __future__ import annotations

from safesail.contexts import split_of


def test_twins_of_a_pair_share_a_split_and_pairs_do_not_all() -> None:
    positive = [split_of(f"concept-pair:{number}~positive") for number in range(200)]
    negative = [split_of(f"concept-pair:{number}~negative") for number in range(200)]
    assert positive == negative
    assert 60 < positive.count("explain") < 140


def test_a_tilde_in_another_name_groups_nothing() -> None:
    splits = {split_of(f"backup~2.jsonl:{number}") for number in range(50)}
    assert splits == {"explain", "score"}
