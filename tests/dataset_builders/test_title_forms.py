"""Forms of a title in a query are those that it shares with no other title."""

from dataset_builders.title_forms import TitleForms


def forms(title, *others):
    return TitleForms([title, *others]).of(0)


def test_common_noun_has_a_plural_and_proper_name_a_last_word():
    assert forms("Sea otter") == {"name": "Sea otter", "plural": "Sea otters"}
    assert forms("Galley") == {"name": "Galley", "plural": "Galleys"}
    assert forms("Ludwig van Beethoven") == {"name": "Ludwig van Beethoven", "last word": "Beethoven"}


def test_plural_has_no_plural():
    assert forms("Crusades") == {"name": "Crusades"}


def test_brackets_are_no_part_of_the_name():
    assert forms("Mercury (planet)")["name"] == "Mercury"
    assert forms("(I)") == {}


def test_form_that_another_title_has_too_is_left_out():
    assert "name" not in forms("Mercury (planet)", "Mercury (element)")
    assert forms("Glass", "Glasses") == {"name": "Glass"}
    assert forms("Michael Jordan", "Jordan") == {"name": "Michael Jordan"}
    assert forms("Theodore Roosevelt", "Franklin D. Roosevelt") == {"name": "Theodore Roosevelt"}
    assert forms("Jordan", "Michael Jordan")["name"] == "Jordan"


def test_last_word_in_small_letters_is_none():
    assert forms("Berlin wall") == {"name": "Berlin wall", "plural": "Berlin walls"}
    assert forms("September 11 attacks") == {"name": "September 11 attacks"}
    assert forms("Treaty of Westphalia peace") == {"name": "Treaty of Westphalia peace"}
