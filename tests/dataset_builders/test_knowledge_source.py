import json
import logging
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dataset_builders.collection import CollectionBuilder
from dataset_builders.features import COLLECTION_FEATURES, SECTION_COLLECTION_FEATURES
from dataset_builders.knowledge_source import KNOWLEDGE_SOURCE
from dataset_builders.writing import build


def anchor(href, paragraph_id, text="link"):
    return {"text": text, "href": href, "paragraph_id": paragraph_id, "start": 0, "end": len(text)}


def page(title, *text, anchors=(), **fields):
    """A page in the form of the knowledge source."""
    return {
        "_id": "290",
        "wikipedia_id": "290",
        "wikipedia_title": title,
        "text": [f"{title}\n", *text],
        "anchors": list(anchors),
        "categories": "Capitals,Cities",
        "wikidata_info": {"wikidata_id": "Q90", "description": "a city", "aliases": {"alias": ["Lutetia"]}},
        "history": {"pageid": 290, "url": "https://en.wikipedia.org/w/index.php?title=Paris&oldid=1"},
    } | fields


PARIS = page(
    "Paris",
    "Paris is a city in France.\n",
    "It lies on the Seine.\n",
    "Section::::History.\n",
    "Section::::History.:Middle Ages.\n",
    "BULLET::::- A wall was built.\n",
    "Section::::Sights.\n",
    "BULLET::::- Louvre\n",
    "BULLET::::- Eiffel Tower\n",
    "Section::::See also.\n",
    anchors=[
        anchor("France", 1),
        anchor("Paris%23History", 1),
        anchor("seine", 2),
        anchor("France%23Geography", 2),
        anchor("City%20wall", 5),
        anchor("Eiffel_Tower", 8),
    ],
)


@pytest.fixture
def build_pages(write_lines, cache_dir):
    """Builds pages (or raw lines) into a collection."""

    def make(*pages, **options):
        path = write_lines("pages.json", *pages)
        return build(CollectionBuilder(cache_dir=cache_dir, data_files=path, format="kilt", **options))["train"]

    return make


def test_a_page_is_a_row_with_its_paragraphs_and_their_headings(build_pages):
    collection = build_pages(PARIS)
    assert collection.features == COLLECTION_FEATURES
    assert collection[0] == {
        "title": "Paris",
        "text": "Paris is a city in France.\nIt lies on the Seine.\nMiddle Ages\n- A wall was built.\n"
        "Sights\n- Louvre\n- Eiffel Tower",
        "related": ["France", "Seine", "City wall", "Eiffel Tower"],
        "metadata": '{"wikipedia_id": "290", "categories": "Capitals,Cities", "wikidata_id": "Q90"}',
    }


def test_a_section_is_a_row_with_its_own_links(build_pages):
    collection = build_pages(PARIS, docid_granularity="section")
    assert collection.features == SECTION_COLLECTION_FEATURES
    assert collection["page"][:] == ["Paris"] * 3
    rows = zip(collection["title"], collection["text"], collection["related"], strict=True)
    assert list(rows) == [
        ("Paris", "Paris is a city in France.\nIt lies on the Seine.", ["France", "Seine"]),
        ("Paris, History, Middle Ages", "- A wall was built.", ["City wall"]),
        ("Paris, Sights", "- Louvre\n- Eiffel Tower", ["Eiffel Tower"]),
    ]


def test_only_the_lead_paragraphs_and_links_that_are_asked_for_are_kept(build_pages):
    (lead,) = build_pages(PARIS, max_paragraphs=2)
    assert lead["text"] == "Paris is a city in France.\nIt lies on the Seine." and lead["related"] == [
        "France",
        "Seine",
    ]
    (lead,) = build_pages(PARIS, max_related=1)
    assert lead["text"].endswith("Tower") and lead["related"] == ["France"]
    assert build_pages(PARIS, max_paragraphs=3, docid_granularity="section")["title"][1:] == [
        "Paris, History, Middle Ages"
    ]


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ('Tab\there "and" quotes', 'Tab here "and" quotes'),
        ("\u202bאייפל\u202c (מגדל)", "\u202bאייפל\u202c (מגדל)"),
        ("Smile 😀", "Smile 😀"),
        ("E\u0301mile\x00_Zola", "Émile Zola"),
    ],
)
@pytest.mark.parametrize("granularity", ["title", "section"])
def test_hostile_titles_become_docids(build_pages, title, expected, granularity):
    pages = page(title, "Text.\n", "Section::::A\tb.\n", "More\ud800\x07.\n"), page("Other", "Text.\n")
    collection = build_pages(*pages, docid_granularity=granularity)
    sections = [f"{expected}, A b"] if granularity == "section" else []
    assert collection["title"][:] == [expected, *sections, "Other"]
    assert "More." in collection["text"][len(sections)]


@pytest.mark.parametrize("granularity", ["title", "section"])
def test_a_page_without_text_keeps_its_title_and_one_without_anchors_or_facts_is_whole(build_pages, granularity):
    bare = {"wikipedia_title": "Moon", "text": ["Moon\n", "It is far.\n"]}
    empty = [page("Void", *text) for text in ((), ("Section::::History.\n",), (" \n", "BULLET::::\n"))]
    collection = build_pages(bare, *empty, docid_granularity=granularity)
    assert collection["title"][:] == ["Moon", "Void", "Void", "Void"]
    assert collection["text"][:] == ["It is far.", "Void", "Void", "Void"]
    assert collection["related"][:] == [[]] * 4
    assert collection["metadata"][0] == "{}"


def test_links_go_where_they_are_redirected_and_the_table_counts_for_the_cache(build_pages, tmp_path):
    table = tmp_path / "redirects.json"
    table.write_text('{"La Seine": "Seine", "City of Light": "Paris"}', encoding="utf-8")
    paris = page(
        "Paris", "A city.\n", anchors=[anchor("la%20Seine", 1), anchor("City_of_Light", 1), anchor("Seine", 1)]
    )
    assert build_pages(paris, redirects=str(table))["related"][:] == [["Seine"]]
    table.write_text('{"La Seine": "Seine (river)"}', encoding="utf-8")
    assert build_pages(paris, redirects=str(table))["related"][:] == [["Seine (river)", "City of Light", "Seine"]]


def test_links_with_broken_quoting_do_no_harm(build_pages):
    hrefs = ["100%25", "50%", "%zz", "%ff%fe", "", "%23Top", "%00", "C%C3%A9zanne", "%F0%9F%98%80"]
    (row,) = build_pages(page("Art", "Text.\n", anchors=[anchor(href, 1) for href in hrefs]))
    assert row["related"] == ["100%", "50%", "%zz", "\ufffd\ufffd", "Cézanne", "😀"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"wikipedia_title": None}, "line 2: 'wikipedia_title' must be a title"),
        ({"wikipedia_title": " _ "}, "line 2: 'wikipedia_title' must be a title"),
        ({"text": "Paris"}, "line 2: 'text' must be a list of paragraphs"),
        ({"text": ["Paris", 7]}, "line 2: 'text' must be a list of paragraphs"),
        ({"anchors": [{"text": "France"}]}, "line 2: 'anchors' must be a list of objects with 'href'"),
        ({"anchors": {"France": 1}}, "line 2: 'anchors' must be a list of objects"),
    ],
)
def test_a_malformed_page_is_named_by_its_line(build_pages, fields, message):
    with pytest.raises(ValueError, match=message):
        build_pages(page("Moon", "It is far.\n"), PARIS | fields)


MALFORMED = [
    json.dumps(PARIS),
    '{"wikipedia_title": ',
    "7",
    json.dumps(PARIS | {"text": None}),
    json.dumps(page("Rome")),
]


def test_malformed_pages_up_to_the_limit_are_left_out_and_their_lines_logged(build_pages, caplog):
    with caplog.at_level(logging.WARNING):
        collection = build_pages(*MALFORMED, max_malformed=3)
    assert collection["title"][:] == ["Paris", "Rome"]
    (message,) = [text for text in caplog.messages if "malformed" in text]
    assert "3 malformed records left out" in message
    assert [f"pages.json, line {number}" in message for number in range(1, 6)] == [False, True, True, True, False]


def test_more_malformed_pages_than_the_limit_are_refused(build_pages):
    with pytest.raises(ValueError, match=r"More than 2 malformed .*line 2; .*line 3; .*line 4\. .*'text' must be"):
        build_pages(*MALFORMED, max_malformed=2)


@pytest.fixture(scope="module")
def pages_of_several_parts(tmp_path_factory):
    """A file that two processes can share."""
    path = tmp_path_factory.mktemp("pages") / "pages.json"
    sentence = "The tower stands in Paris. " * 4000
    pages = (page(f"Page {number}", f"{number}: {sentence}\n") for number in range(90))
    path.write_text("\n".join(map(json.dumps, pages)) + "\n")
    return path


def test_two_processes_build_the_same_rows_in_the_same_order(pages_of_several_parts, tmp_path):
    one, two = (
        build(
            CollectionBuilder(
                cache_dir=str(tmp_path / str(num_proc)), data_files=str(pages_of_several_parts), format="kilt"
            ),
            num_proc=num_proc,
        )["train"]
        for num_proc in (1, 2)
    )
    assert len(one.cache_files) == 1 and len(two.cache_files) == 2  # that there were two
    assert one["title"][:] == [f"Page {number}" for number in range(90)]
    assert two.to_list() == one.to_list()


def test_another_process_names_file_and_line_too(pages_of_several_parts, tmp_path):
    path = tmp_path / "pages.json"
    lines = pages_of_several_parts.read_text().splitlines()
    path.write_text("\n".join([*lines[:80], '{"wikipedia_title": 7}', *lines[81:]]))
    builder = CollectionBuilder(cache_dir=str(tmp_path / "cache"), data_files=str(path), format="kilt")
    with pytest.raises(ValueError, match=r"pages\.json, line 81: 'wikipedia_title' must be a title"):
        build(builder, num_proc=2)


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_without_files_the_knowledge_source_is_downloaded(write_lines, tmp_path, cache_dir):
    write_lines(KNOWLEDGE_SOURCE, PARIS)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=tmp_path)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/"
        collection = build(CollectionBuilder(cache_dir=cache_dir, format="kilt", base_url=url))["train"]
        server.shutdown()
        thread.join()
    assert collection["title"][:] == ["Paris"]


def test_unknown_format_is_refused(write_lines, cache_dir):
    with pytest.raises(ValueError, match="format is 'wiki'; it must be one of documents, kilt"):
        CollectionBuilder(cache_dir=cache_dir, data_files=write_lines("pages.json", PARIS), format="wiki")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"max_malformed": -1}, "max_malformed is -1; it must be at least 0"),
        ({"max_paragraphs": 0}, "max_paragraphs is 0; it must be at least 1"),
        ({"max_related": -1}, "max_related is -1; it must be at least 0"),
    ],
)
def test_limits_that_make_no_sense_are_refused(build_pages, option, message):
    with pytest.raises(ValueError, match=message):
        build_pages(PARIS, **option)
