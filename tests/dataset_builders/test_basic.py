import logging

import pytest
from datasets import Dataset

from dataset_builders.basic import BasicBuilder, split_parts
from dataset_builders.features import COLLECTION_FEATURES
from dataset_builders.json_lines import read_json_lines
from dataset_builders.writing import build, write_collection


def record(number, *titles, answer="a", split=None):
    output = [{"answer": answer, "provenance": [{"title": title}]} for title in titles]
    return {"id": str(number), "input": f"question {number}?", "output": output, "meta": {"split": split or "train"}}


def test_answers_and_evidence_sets_keep_their_order_and_come_once(write_lines, cache_dir, collection_folder):
    output = [
        {"answer": "Eiffel", "provenance": [{"title": "Gustave_Eiffel"}, {"title": "Paris"}]},
        {"answer": "Eiffel"},
        {"answer": "G. Eiffel", "provenance": [{"title": "Eiffel Tower"}]},
        {"provenance": [{"title": "Eiffel Tower"}]},
    ]
    path = write_lines("q.jsonl", {"id": 5, "input": " who? ", "output": output})
    sample = build(BasicBuilder(cache_dir=cache_dir, data_files=path, collection=collection_folder))["train"][0]
    assert sample["id"] == "5" and sample["query"] == "who?" and sample["source"] == "labelled"
    assert sample["answers"] == ["Eiffel", "G. Eiffel"]
    assert sample["provenance"] == [["Gustave Eiffel", "Paris"], ["Eiffel Tower"]]
    assert sample["docids"] == ["Gustave Eiffel", "Paris", "Eiffel Tower"] and sample["rows"] == [2, 1, 0]


def test_splits_come_from_the_records_or_from_the_files(write_lines, cache_dir, collection_folder):
    splits = ["train", "test", "validation", "train"]
    one = write_lines("all.jsonl", *(record(i, "Cat", split=split) for i, split in enumerate(splits)))
    built = build(BasicBuilder(cache_dir=cache_dir, data_files=one, collection=collection_folder))
    assert {split: samples["id"][:] for split, samples in built.items()} == {
        "train": ["0", "3"],
        "validation": ["2"],
        "test": ["1"],
    }
    files = {split: write_lines(f"{split}.jsonl", {"id": split, "input": "q"}) for split in ("train", "test")}
    built = build(BasicBuilder(cache_dir=cache_dir, data_files=files, collection=collection_folder))
    assert {split: samples["id"][:] for split, samples in built.items()} == {"train": ["train"], "test": ["test"]}


def test_a_provenance_title_outside_the_collection_is_an_error_or_dropped(write_lines, cache_dir, collection_folder):
    path = write_lines("q.jsonl", record(1, "Cat"), record(2, "Dog", "Cat"), record(3, "Dog"))
    options = {"cache_dir": cache_dir, "data_files": path, "collection": collection_folder}
    with pytest.raises(ValueError, match=r"q\.jsonl, line 2: provenance title 'Dog' is not in .*drop"):
        build(BasicBuilder(**options))
    samples = build(BasicBuilder(**options, on_missing_provenance="drop"))["train"]
    assert samples["id"][:] == ["1", "2"] and samples[1]["provenance"] == [["Cat"]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"q\.jsonl, line 2: not valid JSON"),
        ('{"id": "2"}', r"q\.jsonl, line 2: .*'input'"),
        ('{"id": "1", "input": "q"}', r"q\.jsonl, line 2: id '1' was taken at .*line 1"),
        ('{"id": "2", "input": "q", "output": "a"}', r"q\.jsonl, line 2: 'output' must be a list"),
        ('{"id": "2", "input": "q", "output": [{"provenance": [{}]}]}', r"q\.jsonl, line 2: .*'title'"),
        ('{"id": "2", "input": "q", "meta": {"split": "dev"}}', r"q\.jsonl, line 2: split 'dev'"),
    ],
)
def test_a_bad_record_is_named_by_file_and_line(write_lines, cache_dir, collection_folder, line, message):
    path = write_lines("q.jsonl", record(1, "Cat"), line)
    with pytest.raises(ValueError, match=message):
        build(BasicBuilder(cache_dir=cache_dir, data_files=path, collection=collection_folder))


def test_of_equal_titles_the_first_document_is_meant(write_lines, cache_dir, tmp_path):
    documents = [
        {"title": t, "text": str(i), "related": [], "metadata": "{}"} for i, t in enumerate(["X", "Cat", "Cat"])
    ]
    write_collection(Dataset.from_list(documents, features=COLLECTION_FEATURES), tmp_path / "doubles")
    path = write_lines("q.jsonl", record(1, "Cat"))
    sample = build(BasicBuilder(cache_dir=cache_dir, data_files=path, collection=str(tmp_path / "doubles")))["train"][
        0
    ]
    assert sample["rows"] == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "data_files=.*nq, triviaqa.*collection="),
        ({"config_name": "nq"}, "collection="),
        ({"config_name": "squad"}, "'squad' not found. Available: .*'nq'"),
        ({"on_missing_provenance": "ignore"}, "on_missing_provenance must be 'error' or 'drop', not 'ignore'"),
        ({"config_name": "nq", "on_missing_provenance": "ignore"}, "on_missing_provenance"),
        ({"task": "qa"}, "task is 'qa'; it must be one of open_qa, "),
        ({"max_query_chars": 0}, "max_query_chars is 0"),
        ({"max_malformed": -1}, "max_malformed -1"),
    ],
)
def test_settings_that_are_missing_or_wrong_are_named(cache_dir, options, message):
    with pytest.raises(ValueError, match=message):
        BasicBuilder(cache_dir=cache_dir, **options)


def test_files_of_an_unknown_split_are_refused(write_lines, cache_dir, collection_folder):
    with pytest.raises(ValueError, match="data_files has split 'dev'; splits are train, validation, test"):
        files = {"dev": write_lines("q.jsonl", record(1, "Cat"))}
        BasicBuilder(cache_dir=cache_dir, data_files=files, collection=collection_folder)


def test_files_without_a_record_are_refused(write_lines, cache_dir, collection_folder):
    path = write_lines("q.jsonl", "", " ")
    with pytest.raises(ValueError, match=r"No record in .*q\.jsonl"):
        build(BasicBuilder(cache_dir=cache_dir, data_files=path, collection=collection_folder))


def test_parts_of_one_file_hold_each_line_once_under_its_split(write_lines):
    lines = [record(1, "Cat", split="test"), "", record(2, "Cat", split="test"), {"id": "3", "input": 'a "split"?'}]
    lines += ["{", record(4, "Cat", split="dev"), record(5, "Cat", split="validation"), '{"meta": {"split": "test"']
    parts = list(split_parts(write_lines("q.jsonl", *lines), "train"))
    assert [(split, part.first_line) for split, part in parts] == [
        ("test", 1),
        ("train", 4),
        ("validation", 7),
        ("train", 8),
    ]
    assert [id["id"] for _, part in parts[:1] for _, id in read_json_lines(part.path, part=part)] == ["1", "2"]
    assert all(one.stop == other.start for (_, one), (_, other) in zip(parts, parts[1:], strict=False))


def test_malformed_records_up_to_the_limit_are_left_out_and_their_lines_logged_once(
    write_lines, cache_dir, collection_folder, caplog
):
    lines = [
        record(1, "Cat"),
        "{",
        record(2, "Cat", split="test"),
        {"id": "3"},
        record(1, "Paris"),
        record(4, "Paris"),
    ]
    options = {"data_files": write_lines("q.jsonl", *lines), "collection": collection_folder}
    with caplog.at_level(logging.WARNING):
        built = build(BasicBuilder(cache_dir=cache_dir, **options, max_malformed=3))
    assert {split: samples["id"][:] for split, samples in built.items()} == {"train": ["1", "4"], "test": ["2"]}
    (message,) = [text for text in caplog.messages if "malformed" in text]
    assert message.startswith("default, train: 3 malformed")
    assert [f"q.jsonl, line {number}" in message for number in range(1, 7)] == [False, True, False, True, True, False]
    with pytest.raises(ValueError, match=r"More than 2 malformed .*line 2; .*line 4; .*line 5\. .*id '1' was taken"):
        build(BasicBuilder(cache_dir=cache_dir, **options, max_malformed=2))


def test_a_split_of_which_nothing_is_left_is_refused(write_lines, cache_dir, collection_folder):
    path = write_lines("q.jsonl", record(1, "Dog"), "{", record(2, "Wolf"), record(3, "Cat", split="test"))
    options = {"data_files": path, "collection": collection_folder, "on_missing_provenance": "drop"}
    with pytest.raises(ValueError, match="split 'train' is left: 1 are malformed, and of 2 the collection lacks"):
        build(BasicBuilder(cache_dir=cache_dir, **options, max_malformed=1))


def test_more_records_than_a_batch_keep_their_order(write_lines, cache_dir, collection_folder):
    path = write_lines("q.jsonl", *(record(number, "Cat") for number in range(2001)))
    samples = build(BasicBuilder(cache_dir=cache_dir, data_files=path, collection=collection_folder))["train"]
    assert samples["id"][:] == [str(number) for number in range(2001)]


def test_provenance_is_found_under_the_title_that_its_alias_redirects_to(write_lines, cache_dir, collection_folder):
    options = {"data_files": write_lines("q.jsonl", record(1, "La_Tour Eiffel")), "collection": collection_folder}
    options["redirects"] = write_lines("redirects.json", {"La Tour_Eiffel": "The Tower", "The Tower": "Eiffel_Tower"})
    samples = build(BasicBuilder(cache_dir=cache_dir, **options))["train"]
    assert samples["docids"][:] == [["Eiffel Tower"]] and samples["rows"][:] == [[0]]
    write_lines("redirects.json", {"La Tour Eiffel": "Paris"})
    assert build(BasicBuilder(cache_dir=cache_dir, **options))["train"]["docids"][:] == [["Paris"]]


def test_a_linked_entity_is_the_title_that_it_redirects_to(write_lines, cache_dir, collection_folder):
    output = [{"answer": "Tour_Eiffel", "provenance": [{"title": "Tour Eiffel"}]}]
    path = write_lines("q.jsonl", {"id": "1", "input": "the [START_ENT] tower [END_ENT]", "output": output})
    redirects = write_lines("redirects.jsonl", {"title": "Tour Eiffel", "redirect": "Eiffel Tower"})
    options = {"data_files": path, "collection": collection_folder, "redirects": redirects}
    for own in ({"config_name": "wned"}, {"task": "entity_linking"}):
        (sample,) = build(BasicBuilder(cache_dir=cache_dir, **options, **own))["train"]
        assert sample["answers"] == sample["docids"] == ["Eiffel Tower"] and sample["task"] == "entity_linking"


@pytest.fixture
def label_sections(build_sections, write_lines, cache_dir, tmp_path):
    """Labelled samples over sections, one per list of provenances."""
    collection = build_sections(
        {"title": "Paris, Texas", "text": "A film.", "sections": [{"title": "Plot", "text": "A man walks."}]},
        {
            "title": "Paris",
            "sections": [
                {"title": "Texas", "text": "A town has the same name."},
                {"title": "History", "text": "Old.", "sections": [{"title": "Middle Ages", "text": "A wall."}]},
                {"title": "", "text": "A city."},
            ],
        },
        {"title": "Tale", "sections": [{"title": "Beginning", "text": "Once."}, {"title": "End", "text": "So."}]},
    )
    write_collection(collection, tmp_path / "sections")

    def label(*provenances, **options):
        records = (
            {"id": str(i), "input": f"q {i}?", "output": [{"answer": "a", "provenance": provenance}]}
            for i, provenance in enumerate(provenances)
        )
        path = write_lines("q.jsonl", *records)
        options |= {"cache_dir": cache_dir, "data_files": path, "collection": str(tmp_path / "sections")}
        return build(BasicBuilder(**options))["train"]

    return label


def test_provenance_means_the_section_that_it_names_and_else_the_lead(label_sections):
    samples = label_sections(
        [{"title": "Paris", "section": "Section::::History."}],
        [
            {"title": "Paris", "section": "Section::::History.:Middle Ages.\n"},
            {"title": "Paris", "section": "History"},
        ],
        [{"title": "Paris"}],
        [{"title": "Paris", "section": "Section::::Abstract."}, {"title": "Paris", "section": None}],
        # Without a lead, the first section stands for the page.
        [{"title": "Tale"}],
    )
    assert samples["docids"][:] == [
        ["Paris, History"],
        ["Paris, History, Middle Ages", "Paris, History"],
        ["Paris"],
        ["Paris"],
        ["Tale, Beginning"],
    ]
    assert samples["rows"][:] == [[3], [4, 3], [5], [5], [6]]
    assert samples["provenance"][:] == [[docids] for docids in samples["docids"]]


def test_sections_under_one_docid_are_told_apart_by_their_pages(label_sections):
    samples = label_sections(
        [{"title": "Paris", "section": "Section::::Texas."}],
        [{"title": "Paris, Texas"}],
        [{"title": "Paris, Texas"}, {"title": "Paris", "section": "Texas"}],
    )
    assert samples["rows"][:] == [[2], [0], [0, 2]]
    assert samples["docids"][:] == [["Paris, Texas"], ["Paris, Texas"], ["Paris, Texas", "Paris, Texas"]]


def test_a_section_that_the_page_lacks_is_an_error_or_dropped(label_sections):
    provenances = [{"title": "Paris", "section": "Section::::Nightlife."}], [{"title": "Paris", "section": "Texas"}]
    with pytest.raises(ValueError, match=r"q\.jsonl, line 1: provenance title 'Paris, Nightlife' is not in .*drop"):
        label_sections(*provenances)
    assert label_sections(*provenances, on_missing_provenance="drop")["id"][:] == ["1"]


def test_sections_do_not_count_where_documents_are_pages(write_lines, cache_dir, collection_folder):
    output = [{"answer": "a", "provenance": [{"title": "Paris", "section": "Section::::Nightlife."}]}]
    path = write_lines("q.jsonl", {"id": "1", "input": "q?", "output": output})
    sample = build(BasicBuilder(cache_dir=cache_dir, data_files=path, collection=collection_folder))["train"][0]
    assert sample["docids"] == ["Paris"] and sample["rows"] == [1]
