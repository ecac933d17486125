import pytest

from dataset_builders.bm25 import Bm25Retriever
from dataset_builders.filters import (
    answer_is_short,
    answer_not_in_query,
    answer_stands_in_document,
    check_language,
    contains_title,
    has_length,
    has_own_words,
    is_in_language,
    is_no_copy,
    is_question,
    near_duplicates,
    returns_to_source,
    stands_alone,
    words,
)

TEXT = (
    "Gustave Eiffel was a French engineer. In 1889 his company built, for the world's fair, an iron tower that "
    "became the symbol of the city of Paris."
)


@pytest.mark.parametrize(
    ("query", "passes"),
    [
        ("Which engineer's company built the tower in Paris?", True),
        ("In which year did the company of Eiffel build the tower?", True),
        ("The engineer Gustave Eiffel built the tower.", False),
        ("The engineer Gustave Eiffel built the tower?", False),
        ("Should a tower be built in Paris?", True),
        ("Which engineer built it? Which city of Paris?", False),
        ("Which engineer built it", False),
        ("", False),
        ("?", False),
        ("\u202eمن بنى البرج؟", False),
    ],
)
def test_a_question_begins_like_one_and_ends_in_its_only_question_mark(query, passes):
    assert is_question(query) == passes


@pytest.mark.parametrize(
    ("query", "passes"),
    [
        ("Who was Eiffel?", False),
        ("Who was Gustave Eiffel?", True),
        ("Who built a tower in Paris?", False),
        ("", False),
    ],
)
def test_length_is_counted_in_words(query, passes):
    assert has_length(query, 4, 5) == passes


@pytest.mark.parametrize(
    ("query", "passes"),
    [
        ("Which tower is the highest in Paris?", True),
        ("Which tower is mentioned in the passage?", False),
        ("What was built in Paris A) iron tower B) fair?", False),
        ("Which of the following is a tower?", False),
        ("What is the tower described here made of?", False),
        ("Which part of the plant stands above the ground?", True),
        ("Who is the author of the first article of the law?", True),
        ("What is the name of the author who wrote the law?", True),
    ],
)
def test_a_question_that_speaks_of_its_passage_does_not_stand_alone(query, passes):
    assert stands_alone(query) == passes


@pytest.mark.parametrize(
    ("query", "passes"),
    [
        ("Who designed the tower in Paris?", True),
        # Foreign names do not make a question foreign.
        ("Who is Frédéric Chopin?", True),
        ("Who was Miguel de Cervantes Saavedra?", True),
        ("Who is Fela Aníkúlápó Kútì?", True),
        ("Who is Fernando Álvarez de Toledo y Pimentel?", True),
        ("Quelle est la capitale de la France ?", False),
        ("Какой город является столицей России?", False),
        ("", False),
        ("Wer baute den Eiffelturm in Paris?", False),
        ("エッフェル塔を建てたのは誰ですか?", False),
    ],
)
def test_questions_in_another_language_are_told_from_foreign_names(query, passes):
    assert is_in_language(query, "en") == passes


def test_unknown_language_is_refused_by_name():
    with pytest.raises(ValueError, match="'english'; it must be one of .*en"):
        check_language("english")


@pytest.mark.parametrize(
    ("query", "title", "holds"),
    [
        ("What is gustave eiffel known for?", "Gustave Eiffel", True),
        ("What is Mercury made of?", "Mercury (planet)", True),
        ("What is the planet nearest to the sun?", "Mercury (planet)", False),
        ("Who hunts mice with a catapult?", "Cat", False),
        ('What does "Tab\tand quote" mean?', 'Tab and "quote"', True),
        ("ما هي عاصمة مصر؟", "عاصمة مصر", True),
        ("What is it?", "🙂", False),
    ],
)
def test_a_title_in_the_query_is_found_word_for_word(query, title, holds):
    assert contains_title(query, title) == holds


@pytest.mark.parametrize(
    ("query", "title", "number"),
    [
        ("What is Rigel?", "Rigel", 0),
        ("Who was Mary Shelley?", "Mary Shelley", 0),
        ("What is the name of the planet called Mercury?", "Mercury (planet)", 0),
        ("What did Mary Shelley write?", "Mary Shelley", 1),
        ("In which year was Rigel, the star, found? In which year?", "Rigel", 3),
        ("", "Rigel", 0),
    ],
)
def test_own_words_are_what_a_query_asks_for_beside_its_title(query, title, number):
    assert has_own_words(query, title, number)
    assert not has_own_words(query, title, number + 1)


def test_a_run_of_more_words_than_allowed_is_a_copy():
    query = "What iron tower that became the symbol of the city of Paris is French?"
    assert not is_no_copy(query, TEXT, 9)
    assert is_no_copy(query, TEXT, 12)
    assert is_no_copy("Short?", TEXT, 9)


def test_answers_are_short_stand_in_the_document_and_not_in_the_query():
    assert (
        answer_is_short("Gustave Eiffel", 12) and not answer_is_short("word " * 13, 12) and not answer_is_short("", 1)
    )
    assert answer_stands_in_document("gustave EIFFEL", TEXT) and not answer_stands_in_document("ngineer", TEXT)
    assert answer_stands_in_document("the French engineer", TEXT)  # KILT's scores know no articles either
    assert not answer_not_in_query("Which French engineer built it?", "the engineer")
    assert not any(answer_stands_in_document(answer, TEXT) for answer in ("the", "", "🙂"))
    assert answer_not_in_query("Who built it?", "Eiffel")
    assert not answer_not_in_query("Which engineer was Gustave Eiffel of Paris?", "gustave eiffel")


def test_the_round_trip_asks_for_the_source_among_the_first_ranks():
    retriever = Bm25Retriever(
        ["Cat", "Dog", "Sun"], ["Cats hunt mice and mice.", "Dogs hunt mice.", "The sun is hot."]
    )
    queries, rows = ["which pet hunts mice?"] * 3, [0, 1, 2]
    assert returns_to_source(queries, rows, retriever, 1) == [True, False, False]
    assert returns_to_source(queries, rows, retriever, 2) == [True, True, False]
    assert returns_to_source([], [], retriever, 2) == []


def test_of_questions_that_say_the_same_the_first_stays():
    queries = [
        "What is the capital of Kenya?",
        "What is the capital of Ghana?",
        "Which is the capital of Kenya?",
        "what capital is that of kenya",
        "Who is it?",
        "Who is it, who?",
    ]
    assert near_duplicates(queries, 0.8) == [False, False, True, True, False, True]


def test_similarity_decides_what_a_duplicate_is():
    queries = ["Who built the iron tower of Paris?", "Who built the great iron tower of Paris?"]
    assert near_duplicates(queries, 0.8) == [False, True]  # 4 of 5 content words
    assert near_duplicates(queries, 0.9) == [False, False]


def test_a_query_like_a_dropped_duplicate_only_is_kept():
    """Similarity is no chain: what is compared with is what stays."""
    queries = ["Who saw a1 b1 c1 d1 e1?", "Who saw b1 c1 d1 e1 f1?", "Who saw c1 d1 e1 f1 g1?"]
    assert near_duplicates(queries, 0.7) == [False, True, False]  # 6 of 8 words each, 5 of 9 the first and the last


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Where was Gustave Eiffel born?", "When was Gustave Eiffel born?"),
        ("Who ruled Spain before Philip?", "Who ruled Spain after Philip?"),
        ("What is the most common white blood cell?", "What is the most common red blood cell?"),
    ],
)
def test_one_word_that_changes_the_question_makes_no_duplicate(one, other):
    assert near_duplicates([one, other], 0.9) == [False, False]


def test_chinese_and_japanese_characters_are_words():
    assert words("Eiffel建造了铁塔。トム") == ["eiffel", "建", "造", "了", "铁", "塔", "ト", "ム"]
    assert contains_title("谁建造了埃菲尔铁塔?", "埃菲尔铁塔")
    assert answer_stands_in_document("埃菲尔", "这座塔由古斯塔夫·埃菲尔建造。")
