import pytest
from datasets import Dataset

from dataset_builders.basic import BasicBuilder
from dataset_builders.features import COLLECTION_FEATURES
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


def test_missing_settings_are_named(cache_dir):
    with pytest.raises(ValueError, match="data_files=.*collection="):
        BasicBuilder(cache_dir=cache_dir)
    with pytest.raises(ValueError, match="on_missing_provenance"):
        BasicBuilder(cache_dir=cache_dir, on_missing_provenance="ignore")


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
