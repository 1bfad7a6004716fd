"""Which windows an explanation is written from."""

from dataclasses import replace

from explaining_windows import context, planted_feature


def test_a_window_kept_twice_is_shown_once_and_parts_of_a_document_are_told_apart() -> None:
    drawn = context([" a", " b"], [0.0, 1.0], split="explain", document="book", start=0)
    strongest = replace(drawn, sample="top")
    # Another part of the book begins at its own place 0.
    other = replace(drawn, tokens=[" c", " d"], token_ids=[7, 8])
    evidence = replace(planted_feature(), contexts=[drawn, strongest, other])
    shown = evidence.to_explain()
    assert sorted(one.token_ids for one in shown) == [[0, 1], [7, 8]]
