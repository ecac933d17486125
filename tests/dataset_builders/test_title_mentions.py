"""Titles are found where they stand word for word in a text."""

from dataset_builders.title_mentions import Mention, TitleMentions


def test_mentions_have_the_characters_that_they_take_and_the_longest_comes_first():
    text = "Is  NORTH\tKorea a state?"
    assert TitleMentions(["Korea", "North Korea", "State"]).find(text) == [
        Mention(4, 15, ["North Korea"]),
        Mention(10, 15, ["Korea"]),
        Mention(18, 23, ["State"]),
    ]


def test_titles_that_differ_in_case_only_are_found_together_and_equal_ones_once():
    assert TitleMentions(["Go", "GO", "Go"]).find("to go") == [Mention(3, 5, ["Go", "GO"])]


def test_part_of_a_word_is_no_mention_and_punctuation_counts():
    find = TitleMentions(["Art", "Mercury (planet)", "AC/DC", "?"]).find
    assert find("Is the earth near Mercury?") == [Mention(25, 26, ["?"])]
    assert find("Mercury (planet), acdc, AC/DC") == [
        Mention(0, 16, ["Mercury (planet)"]),
        Mention(24, 29, ["AC/DC"]),
    ]


def test_title_that_goes_on_where_the_text_ends_is_no_mention():
    assert TitleMentions(["North Korea"]).find("Where is north") == []


def test_empty_text_and_empty_title_have_no_mention():
    assert TitleMentions([""]).find("") == [] and TitleMentions([]).find("word") == []
