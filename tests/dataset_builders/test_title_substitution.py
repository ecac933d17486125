"""Queries that name their article are made to ask the same of related ones, and teach nothing but to find these."""

import pytest
from datasets import Dataset

from dataset_builders.features import COLLECTION_FEATURES, SAMPLE_FEATURES, new_sample
from dataset_builders.title_substitution import ask_of_others, substitute_titles
from modeling_mint.tasks_mint import training_examples

MERCURY = ["Mercury (planet)", "Mercury (element)"]
TITLES = ["Bamboo", "Whisky", "Korea", "North Korea", *MERCURY, "Venus (planet)", "Jazz"]


def collection(related):
    """Documents that link to others by title; what links to none has BM25 neighbours."""
    documents = [
        {"title": title, "text": f"{title} is a thing.", "related": related.get(title, ["Whisky"]), "metadata": "{}"}
        for title in TITLES
    ]
    return Dataset.from_list(documents, features=COLLECTION_FEATURES)


def sample(query, *titles, source="labelled", **fields):
    fields = {"id": "q1", "answers": ["SUPPORTS"], **fields}
    rows = [TITLES.index(title) for title in titles]
    return new_sample(query=query, docids=list(titles), rows=rows, source=source, **fields)


def queries(samples, related, copies=1):
    return substitute_titles(samples, collection(related), copies, seed=0)["query"][:]


def test_related_title_takes_the_place_of_the_one_that_is_named():
    bamboo = sample("Bamboo grows taller than bamboo shoots.", "Bamboo", task="fact_verification")
    made = substitute_titles([bamboo], collection({"Bamboo": ["Whisky"]}), 1, seed=0)
    (one,) = made
    assert made.features == SAMPLE_FEATURES
    assert one["query"] == "Whisky grows taller than whisky shoots."
    assert (one["docids"], one["rows"], one["provenance"]) == (["Whisky"], [1], [["Whisky"]])
    assert (one["source"], one["id"], one["task"]) == ("substituted", "q1-1", "fact_verification")


@pytest.mark.parametrize(
    ("query", "substituted"),
    [
        ("does bamboo grow?", "does north korea grow?"),  # all is written small
        ("Does bamboo grow?", "Does North Korea grow?"),  # a proper name keeps its capitals
    ],
)
def test_letter_case_is_that_of_what_stood_there_as_far_as_the_title_allows(query, substituted):
    assert queries([sample(query, "Bamboo")], {"Bamboo": ["North Korea"]}) == [substituted]


def test_brackets_of_a_title_need_not_stand_in_the_query_and_are_not_put_there():
    venus = "Venus (planet)"
    assert queries([sample("How hot is Venus?", venus)], {venus: ["Jazz"]}) == ["How hot is Jazz?"]
    assert queries([sample("How hot is Jazz?", "Jazz")], {"Jazz": [venus]}) == ["How hot is Venus?"]


def test_plural_gives_way_to_a_plural_and_last_word_to_a_last_word():
    newton, tesla = "Isaac Newton", "Nikola Tesla"
    titles = ["Drum", "Trumpet", newton, tesla, "Water"]
    found = {"Drum": ["Trumpet", tesla, "Water"], newton: ["Water", tesla]}
    documents = [
        {"title": title, "text": "A thing.", "related": found.get(title, ["Drum"]), "metadata": "{}"}
        for title in titles
    ]
    samples = [
        new_sample(id="a", query="Drums purify water.", docids=["Drum"], rows=[0], source="labelled"),
        new_sample(id="b", query="what did newton invent?", docids=[newton], rows=[2], source="labelled"),
    ]
    made = substitute_titles(samples, Dataset.from_list(documents, features=COLLECTION_FEATURES), 5, seed=0)
    assert made["query"][:] == ["Trumpets purify water.", "what did tesla invent?"]
    assert made["docids"][:] == [["Trumpet"], [tesla]]


def test_name_that_two_articles_share_is_not_put_anywhere():
    assert queries([sample("How hot is jazz?", "Jazz")], {"Jazz": MERCURY}) == []


def test_name_inside_a_longer_title_is_not_the_one_asked_about():
    assert queries([sample("Is North Korea a state?", "Korea")], {"Korea": ["Jazz"]}) == []
    assert queries([sample("Is North Korea in Korea?", "Korea")], {"Korea": ["Jazz"]}) == ["Is North Korea in Jazz?"]


def test_title_that_stands_in_the_query_already_is_not_put_there_again():
    assert queries([sample("Is whisky made of bamboo?", "Bamboo")], {"Bamboo": ["Whisky"]}) == []


def test_copies_of_a_query_ask_about_different_articles_and_are_as_many_as_there_are_at_most():
    related = {"Bamboo": ["Whisky", "Korea", "Jazz"]}
    made = queries([sample("Bamboo grows.", "Bamboo")], related, copies=2)
    assert len(set(made)) == 2
    made = queries([sample("Bamboo grows.", "Bamboo")], related, copies=9)
    assert sorted(made) == ["Jazz grows.", "Korea grows.", "Whisky grows."]


def test_queries_about_one_article_are_made_to_ask_about_all_its_related_ones_alike():
    asked = [sample(f"Is bamboo {number} feet tall?", "Bamboo", id=f"q{number}") for number in range(6)]
    made = substitute_titles(asked, collection({"Bamboo": ["Whisky", "Jazz", "Korea"]}), 1, seed=0)
    assert sorted(made["docids"][:]) == sorted([["Whisky"], ["Jazz"], ["Korea"]] * 2)


def test_query_that_does_not_name_its_article_or_has_several_makes_none():
    no_one, several = sample("What grows?", "Bamboo"), sample("Bamboo and jazz", "Bamboo", "Jazz")
    assert queries([no_one, several, sample("Bamboo?", "Bamboo", source="llm")], {}) == []


def test_first_docid_of_a_models_ranking_gives_way_and_its_weight_stays():
    written = sample("Bamboo grows.", "Bamboo", "Korea", source="gar", iteration=2, confidence={"score": 0.5})
    (one,) = substitute_titles([written], collection({}), 1, seed=0)
    assert (one["query"], one["docids"], one["iteration"]) == ("Whisky grows.", ["Whisky"], 2)
    assert one["confidence"]["score"] == 0.5


def test_same_seed_draws_the_same():
    related = {"Bamboo": TITLES[1:4] + TITLES[7:]}
    draws = {tuple(queries([sample("Bamboo grows.", "Bamboo")], related)) for _ in range(3)}
    assert len(draws) == 1


@pytest.mark.parametrize(("role", "task"), [("rag", "query_to_docid"), ("gar", "query_answer_to_docid")])
@pytest.mark.parametrize(("iteration", "component"), [(0, "retrieval"), (1, "exchange")])
def test_substituted_sample_teaches_retrieval_only(role, task, iteration, component):
    source = "gar" if iteration else "labelled"
    (one,) = substitute_titles(
        [sample("Bamboo grows.", "Bamboo", source=source, iteration=iteration)], collection({}), 1, seed=0
    )
    (example,) = training_examples(one, role, lambda row: (TITLES[row], "text"))
    assert (example.task, example.component, example.target) == (task, component, ("Whisky",))


def test_no_copies_are_refused():
    with pytest.raises(ValueError, match="`copies` is 0"):
        substitute_titles([], collection({}), 0)


def test_labelled_queries_are_asked_of_the_unlabelled_documents_that_they_suit():
    labelled = Dataset.from_list(
        [sample("Does bamboo grow?", "Bamboo", id="q1"), sample("Is jazz loud?", "Jazz", id="q2")],
        features=SAMPLE_FEATURES,
    )
    related = collection({"Bamboo": ["Whisky", "Korea"], "Jazz": ["North Korea", "Venus (planet)"]})
    asked = ask_of_others(labelled, related, [1, 3], 5, seed=0)
    assert asked == {1: "Does whisky grow?", 3: "Is North Korea loud?"}
    assert ask_of_others(labelled, related, range(8), 2, seed=0).items() <= asked.items() | {
        (2, "Does korea grow?"),
        (6, "Is venus loud?"),
    }
    assert len(ask_of_others(labelled, related, range(8), 2, seed=0)) == 2


def test_labelled_queries_that_suit_no_document_are_refused():
    labelled = Dataset.from_list([sample("Does it grow?", "Bamboo")], features=SAMPLE_FEATURES)
    with pytest.raises(ValueError, match="None of 1 labelled queries can be asked of another document"):
        ask_of_others(labelled, collection({}), [1, 2], 5)
