import pytest

from trainers.baselines import longest_title_match

TITLES = ["York", "New York", "New York City", "Art", "C++", "C", "Mercury (planet)", "Mercury", "Hubble's law", "É"]


def match(query, k=10):
    return longest_title_match([query], TITLES, k)[0]


def test_longest_title_comes_first_and_shorter_ones_inside_it_follow():
    assert match("Who is the mayor of new YORK  city?") == ["New York City", "New York", "York"]


def test_k_cuts_the_ranking():
    assert match("New York City", k=2) == ["New York City", "New York"]


def test_titles_stand_at_word_boundaries_only():
    assert match("The earth, Yorkshire and Artistic") == []


def test_punctuation_in_titles_is_matched_literally():
    assert match("Who wrote C++?") == ["C++", "C"]
    assert match("Is Mercury (planet) hot?") == ["Mercury (planet)", "Mercury"]
    assert match("Is the planet Mercury hot?") == ["Mercury"]
    assert match("hubble's law, please") == ["Hubble's law"]


def test_letter_case_is_ignored_beyond_ascii():
    assert match("is é a letter") == ["É"]


def test_titles_of_equal_length_keep_the_order_of_the_query():
    assert longest_title_match(["Bern or Rome?", "Rome or Bern?"], ["Rome", "Bern"], 5) == [
        ["Bern", "Rome"],
        ["Rome", "Bern"],
    ]


def test_equal_titles_count_once_and_titles_of_equal_words_stay_apart():
    assert longest_title_match(["what is us"], ["US", "us", "US"], 5) == [["US", "us"]]


def test_empty_titles_and_queries_match_nothing():
    assert longest_title_match(["", "a query"], ["", "  "], 5) == [[], []]


def test_every_query_has_a_ranking():
    assert longest_title_match([], TITLES, 1) == []
    assert longest_title_match(["nothing here", "York"], TITLES, 1) == [[], ["York"]]


def test_k_below_one_is_refused():
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        longest_title_match(["York"], TITLES, 0)
