import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_builders.collection import CollectionBuilder, docids_of_several_pages
from dataset_builders.features import SECTION_COLLECTION_FEATURES
from dataset_builders.writing import build, collection_fingerprint


def test_jsonl_documents_keep_links_and_put_other_fields_into_metadata(write_lines, cache_dir):
    path = write_lines(
        "documents.jsonl",
        {"title": "Eiffel_Tower", "text": "A tower.\x00", "related": ["Paris_"], "topic": "Arts"},
        {"title": "Paris", "text": "A city."},
    )
    collection = build(CollectionBuilder(cache_dir=cache_dir, data_files=path))["train"]
    assert collection[0] == {
        "title": "Eiffel Tower",
        "text": "A tower.",
        "related": ["Paris"],
        "metadata": '{"topic": "Arts"}',
    }
    assert collection[1]["related"] == [] and collection[1]["metadata"] == "{}"


def test_parquet_and_article_json_give_the_same_collection(tmp_path, cache_dir):
    pq.write_table(
        pa.table({"title": ["A", "B"], "text": ["a", "b"], "description": ["x", "y"]}), tmp_path / "d.parquet"
    )
    articles = {
        "A": {"title": "A", "extract": "a", "description": "x"},
        "B": {"title": "B", "extract": "b", "description": "y"},
    }
    (tmp_path / "d.json").write_text(json.dumps(articles))
    parquet, article_json = (
        build(CollectionBuilder(cache_dir=cache_dir, data_files=str(tmp_path / name)))["train"].to_list()
        for name in ("d.parquet", "d.json")
    )
    assert parquet == article_json
    assert parquet[1] == {"title": "B", "text": "b", "related": [], "metadata": '{"description": "y"}'}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"title": "B", "text": ', r"documents\.jsonl, line 2: not valid JSON .* Mend or delete"),
        ('["B", "b"]', r"documents\.jsonl, line 2: expected a JSON object"),
        ('{"text": "b"}', r"documents\.jsonl, line 2: .*'title' as a string, it is missing"),
        ('{"title": "B"}', r"documents\.jsonl, line 2: .*'text' as a string, it is missing"),
        ('{"title": 7, "text": "b"}', r"documents\.jsonl, line 2: .*found int"),
        ('{"title": " _ ", "text": "b"}', r"documents\.jsonl, line 2: 'title' is empty"),
        ('{"title": "B", "text": "\\u0000"}', r"documents\.jsonl, line 2: 'text' is empty"),
        ('{"title": "B", "text": "b", "related": "A"}', r"documents\.jsonl, line 2: 'related' must be a list"),
    ],
)
def test_a_bad_document_is_named_by_file_and_line(write_lines, cache_dir, line, message):
    path = write_lines("documents.jsonl", {"title": "A", "text": "a"}, line)
    with pytest.raises(ValueError, match=message):
        build(CollectionBuilder(cache_dir=cache_dir, data_files=path))


def test_malformed_documents_up_to_the_limit_are_left_out_and_their_places_logged(write_lines, cache_dir, caplog):
    lines = [{"title": "A", "text": "a"}, '{"title": ', {"title": "B"}, {"title": "C", "text": "c"}]
    path = write_lines("documents.jsonl", *lines)
    collection = build(CollectionBuilder(cache_dir=cache_dir, data_files=path, max_malformed=2))["train"]
    assert collection["title"][:] == ["A", "C"]
    assert "2 malformed records left out" in caplog.text
    assert "documents.jsonl, line 2; " in caplog.text and "documents.jsonl, line 3" in caplog.text
    with pytest.raises(ValueError, match=r"More than 1 malformed records: .*line 2; .*line 3\. .*'text' as a string"):
        build(CollectionBuilder(cache_dir=cache_dir, data_files=path, max_malformed=1))


def test_a_page_with_a_malformed_section_is_left_out_whole(write_lines, cache_dir):
    bad = {"title": "P", "text": "p", "sections": [{"title": "A", "text": "a"}, {"title": "B", "text": ""}]}
    path = write_lines("pages.jsonl", bad, {"title": "Q", "text": "q"})
    options = {"data_files": path, "docid_granularity": "section", "max_malformed": 1}
    assert build(CollectionBuilder(cache_dir=cache_dir, **options))["train"]["title"][:] == ["Q"]


def test_processes_share_files_and_keep_their_order(write_lines, tmp_path):
    paths = [
        write_lines(f"{name}.jsonl", *({"title": f"{name}{number}", "text": "text"} for number in range(1500)))
        for name in "abc"
    ]
    one, two = (
        build(CollectionBuilder(cache_dir=str(tmp_path / f"cache-{num_proc}"), data_files=paths), num_proc)["train"]
        for num_proc in (1, 2)
    )
    assert len(two.cache_files) == 2
    assert one["title"][:] == [f"{name}{number}" for name in "abc" for number in range(1500)]
    assert two.to_list() == one.to_list()


def test_an_empty_collection_is_refused(write_lines, cache_dir):
    with pytest.raises(ValueError, match="empty: no document in .*none.jsonl"):
        build(CollectionBuilder(cache_dir=cache_dir, data_files=write_lines("none.jsonl")))


def test_the_builder_cache_notices_new_content_under_an_old_path(write_lines, cache_dir):
    path = write_lines("documents.jsonl", {"title": "A", "text": "a"})
    first = CollectionBuilder(cache_dir=cache_dir, data_files=path)
    write_lines("documents.jsonl", {"title": "A", "text": "b"})
    second = CollectionBuilder(cache_dir=cache_dir, data_files=path)
    assert first.config_id != second.config_id
    assert build(second)["train"][0]["text"] == "b"


PARIS = {
    "title": "Paris_",
    "text": "Paris is a city.\n== Geography ==\nIt lies on the Seine.",
    "related": ["France"],
    "topic": "Cities",
    "sections": [
        {
            "title": " History",
            "text": "Paris is old.",
            "sections": [{"title": "Middle_Ages", "text": "A wall was built.", "century": 12}],
        },
        {"title": "Texas", "text": "A town has the same name.", "related": ["Texas"]},
    ],
}


def test_every_section_is_a_row_that_knows_its_page(build_sections):
    collection = build_sections(PARIS, {"title": "Moon", "text": "It is far."})
    assert collection.features == SECTION_COLLECTION_FEATURES
    assert list(zip(collection["title"], collection["text"], collection["page"], strict=True)) == [
        # Headings inside a text are text.
        ("Paris", "Paris is a city.\n== Geography ==\nIt lies on the Seine.", "Paris"),
        ("Paris, History", "Paris is old.", "Paris"),
        ("Paris, History, Middle Ages", "A wall was built.", "Paris"),
        ("Paris, Texas", "A town has the same name.", "Paris"),
        ("Moon", "It is far.", "Moon"),
    ]


def test_section_takes_from_its_page_what_it_does_not_say_itself(build_sections):
    collection = build_sections(PARIS)
    assert collection["related"][:] == [["France"], ["France"], ["France"], ["Texas"]]
    assert [json.loads(one) for one in collection["metadata"]] == [
        {"topic": "Cities"},
        {"topic": "Cities"},
        {"topic": "Cities", "century": 12},
        {"topic": "Cities"},
    ]


def test_untitled_section_is_the_lead_and_what_has_sections_needs_no_text(build_sections):
    history = {"title": "History", "text": " ", "sections": [{"title": "Rome", "text": "Romans came."}]}
    collection = build_sections({"title": "Paris", "sections": [{"title": "", "text": "A city."}, history]})
    assert list(zip(collection["title"], collection["text"], strict=True)) == [
        ("Paris", "A city."),
        ("Paris, History, Rome", "Romans came."),
    ]


def test_parquet_holds_sections_of_sections_too(tmp_path, cache_dir, build_sections):
    table = pa.Table.from_pylist([PARIS, {"title": "Moon", "text": "It is far."}])
    pq.write_table(table, tmp_path / "pages.parquet")
    options = {"data_files": str(tmp_path / "pages.parquet"), "docid_granularity": "section"}
    collection = build(CollectionBuilder(cache_dir=cache_dir, **options))["train"]
    expected = build_sections(PARIS, {"title": "Moon", "text": "It is far."})
    for column in ("title", "text", "page"):
        assert collection[column][:] == expected[column][:]


def test_pages_leave_their_sections_in_the_metadata(write_lines, cache_dir):
    path = write_lines("documents.jsonl", PARIS)
    (page,) = build(CollectionBuilder(cache_dir=cache_dir, data_files=path))["train"]
    assert set(page) == {"title", "text", "related", "metadata"}
    assert page["text"] == PARIS["text"]
    assert json.loads(page["metadata"]) == {"topic": "Cities", "sections": PARIS["sections"]}


def test_sections_of_two_pages_under_one_docid_stay_two_rows_and_are_named(build_sections):
    collection = build_sections(
        PARIS, {"title": "Paris, Texas", "text": "A film."}, {"title": "Paris", "text": "Two."}
    )
    assert [row for row, title in enumerate(collection["title"]) if title == "Paris, Texas"] == [3, 4]
    assert collection["page"][3:5] == ["Paris", "Paris, Texas"]
    # Two pages of one title share a docid at any granularity; that is not counted here.
    assert docids_of_several_pages(collection) == ["Paris, Texas"]


def test_fingerprint_of_sections_counts_their_pages(build_sections):
    collection = build_sections(PARIS)
    other = collection.map(lambda document: {"page": "Paris (city)"})
    assert collection_fingerprint(collection) != collection_fingerprint(other)
    bare = collection.remove_columns("page")
    assert collection_fingerprint(bare) == collection_fingerprint(other.remove_columns("page"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sections": "History"}, r"line 1: 'sections' must be a list of objects"),
        ({"sections": [{"title": "History"}]}, r"line 1: 'sections' must be a list .*'title' and 'text' as strings"),
        ({"sections": [{"title": "History", "text": ""}]}, r"line 1, section 'P, History': 'text' is empty"),
        (
            {"sections": [{"title": "A", "text": "a", "sections": [7]}]},
            r"line 1, section 'P, A': 'sections' must be a list of objects",
        ),
        ({"sections": []}, r"line 1: every document needs 'text' as a string, it is missing"),
        ({"text": 7, "sections": [{"title": "A", "text": "a"}]}, r"line 1: .*'text' as a string, found int"),
    ],
)
def test_bad_sections_are_named_by_file_line_and_section(build_sections, fields, message):
    with pytest.raises(ValueError, match=rf"pages\.jsonl, {message}"):
        build_sections({"title": "P"} | fields)


def test_unknown_granularity_is_refused(write_lines, cache_dir):
    path = write_lines("documents.jsonl", PARIS)
    with pytest.raises(ValueError, match="docid_granularity is 'page'; it must be one of title, section"):
        CollectionBuilder(cache_dir=cache_dir, data_files=path, docid_granularity="page")
