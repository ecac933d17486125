import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataset_builders.collection import CollectionBuilder
from dataset_builders.writing import build


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
