"""What the demo page shows of texts that it does not trust: as HTML that holds them as text only."""

import json
import re
from html import unescape
from html.parser import HTMLParser

import pytest
from datasets import Dataset

from hub_cards.space.facts import read_topics, resident_bytes
from hub_cards.space.panels import article_link, documents_panel, marked, side_by_side
from hub_cards.space.questions import MAX_QUERY_CHARACTERS, clean_question, looks_foreign, refusal
from hub_cards.space.tree_picture import draw_tree, percent

HOSTILE = '<script>alert("1")</script><img src=x onerror=alert(1)> ${alert(1)} {{constructor}} \' " & </svg></title>'
OURS = {"ol", "li", "details", "summary", "b", "bdi", "span", "p", "mark", "a", "div", "section", "h3", "figure"}
OURS |= {"figcaption", "svg", "title", "desc", "path", "text", "tspan", "circle", "table", "thead", "tbody"}
OURS |= {"tr", "th", "td"}


class Elements(HTMLParser):
    """Collects elements and texts, and checks that elements are closed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.attributes, self.texts = [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def leaf(title, probability, rank, text=None, state="found"):
    end = {"text": text or title, "prefix": title, "probability": probability, "state": state, "rank": rank}
    return end | {"title": title, "children": []}


def tree(*titles, hidden=0):
    given_up = {"text": "Gar", "prefix": "Gar", "probability": 0.01, "state": "pruned", "rank": None, "children": []}
    found = [leaf(title, 0.5 / rank, rank) for rank, title in enumerate(titles, start=1)]
    branch = {"text": "Eiffel", "prefix": "Eiffel", "probability": 0.8, "state": "found", "children": found}
    root = {"text": "", "prefix": "", "probability": 1.0, "state": "found", "children": [branch, given_up]}
    return root | {"hidden": hidden}


@pytest.mark.parametrize(
    "html",
    [
        documents_panel([{"title": HOSTILE, "score": 0.5, "text": HOSTILE, "url": "https://x.org/?a=1&b=2"}], "alert"),
        side_by_side({"rag": {"answer": HOSTILE, "score": 1.0}}, {"gar": [{"title": HOSTILE, "score": 0.1}]}),
        draw_tree(tree(HOSTILE, "Paris"), "tree-rag", "How RAG found its titles"),
    ],
)
def test_texts_become_no_markup(html):
    elements = Elements(html)
    assert {tag for tag, _ in elements.attributes} <= OURS
    assert not [name for _, attributes in elements.attributes for name in attributes if name.startswith("on")]
    assert "<script>" in "".join(elements.texts)


def test_highlight_marks_whole_words_in_any_case_and_keeps_the_text():
    text = "EIFFEL built it. Eiffels did not; (Eiffel) did."
    html = marked(text, "Eiffel")
    assert re.findall("<mark>(.*?)</mark>", html) == ["EIFFEL", "Eiffel"]
    assert unescape(re.sub("</?mark>", "", html)) == text


@pytest.mark.parametrize("answer", ["", "C++ (a.b)*", "absent", "<b>"])
def test_highlight_takes_any_answer_as_plain_text(answer):
    text = "so <b>C++ (a.b)*</b> & it"
    html = marked(text, answer)
    assert unescape(re.sub("</?mark>", "", html)) == text
    assert ("<mark>" in html) == (answer == "C++ (a.b)*")


def test_documents_have_their_rank_bar_and_link():
    documents = [
        {"title": f"Paris {i}", "score": 0.75, "text": "A city.", "url": "https://x.org/Paris"} for i in range(3)
    ]
    elements = Elements(documents_panel(documents, ""))
    links = [attributes for tag, attributes in elements.attributes if tag == "a"]
    assert [link["href"] for link in links] == ["https://x.org/Paris"] * 3
    assert all(link["rel"] == "noopener noreferrer" for link in links)
    assert "75.0%" in elements.texts and "Paris 2" in elements.texts
    # The documents that RAG's generator reads.
    assert ["open" in attributes for tag, attributes in elements.attributes if tag == "details"] == [True, True, False]
    assert "<a" not in documents_panel([documents[0] | {"url": None}], "")
    assert documents_panel([], "") == side_by_side({}, {}) == ""


@pytest.mark.parametrize(
    ("title", "end"),
    [
        ("Eiffel Tower", "Eiffel_Tower"),
        ("AC/DC", "AC%2FDC"),
        ("São Paulo?", "S%C3%A3o_Paulo%3F"),
        ('"><b>', "%22%3E%3Cb%3E"),
    ],
)
def test_any_title_makes_an_address(title, end):
    assert article_link("https://en.wikipedia.org/wiki/{title}", title) == f"https://en.wikipedia.org/wiki/{end}"
    assert article_link(None, title) is None


def test_tree_shows_titles_probabilities_and_what_was_given_up():
    html = draw_tree(tree("Eiffel Tower", "Eiffel", hidden=7), "tree-rag", "How RAG found its titles")
    elements = Elements(html)
    edges = [attributes for tag, attributes in elements.attributes if tag == "path"]
    assert sorted(edge["class"] for edge in edges) == ["mint-edge found"] * 3 + ["mint-edge pruned"]
    widths = {edge["class"]: float(edge["stroke-width"]) for edge in edges}
    assert widths["mint-edge found"] > widths["mint-edge pruned"]
    text = "".join(elements.texts)
    assert "Eiffel Tower 50%" in text and "Gar… 1.0%" in text and "7 less probable branches" in text


def test_tree_can_be_read_without_seeing_it():
    elements = Elements(draw_tree(tree("Eiffel Tower"), "tree-gar", "How GAR found its titles"))
    ((_, svg),) = [one for one in elements.attributes if one[0] == "svg"]
    ids = {attributes["id"] for _, attributes in elements.attributes if "id" in attributes}
    assert svg["role"] == "img" and set(svg["aria-labelledby"].split()) == ids
    assert "Titles found, with their probabilities: 1. Eiffel Tower, 50%" in elements.texts
    assert sum(tag == "tr" for tag, _ in elements.attributes) == 3
    regions = [attributes for _, attributes in elements.attributes if attributes.get("role") == "region"]
    assert all(region["tabindex"] == "0" and region["aria-label"] for region in regions)


def test_every_shape_lies_inside_the_picture():
    html = draw_tree(tree("Eiffel Tower", "埃菲尔铁塔" * 5, "word " * 60), "tree-rag", "Titles")
    width, height = (float(re.search(rf'<svg[^>]* {side}="([\d.]+)"', html)[1]) for side in ("width", "height"))
    assert all(float(x) < width for x in re.findall(r' (?:x|cx)="([\d.]+)"', html))
    assert all(0 < float(y) < height for y in re.findall(r' (?:y|cy)="([\d.]+)"', html))


def test_tree_of_one_title_is_one_edge():
    root = {"text": "", "prefix": "", "probability": 1.0, "state": "found", "hidden": 0}
    assert draw_tree(root | {"children": [leaf("A", 1.0, 1)]}, "t", "T").count("<path") == 1


def test_probabilities_are_rounded_to_what_can_be_read():
    assert [percent(one) for one in (1.0, 0.954, 0.0123, 0.001, 1e-9, 0.0)] == [
        "100%", "95%", "1.2%", "0.1%", "<0.1%", "<0.1%",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("query", "clean"),
    [
        ("  who\n\tbuilt   it? ", "who built it?"),
        ("a\x00b\x1b[31mc", "a b [31mc"),
        ("\ud800who\udfff", "who"),
        ("ab\u202ecd\ufeff", "abcd"),
        ("👩\u200d🔬 who", "👩\u200d🔬 who"),
        ("谁设计了?", "谁设计了?"),
    ],
)
def test_question_keeps_its_text_and_loses_the_rest(query, clean):
    assert clean_question(query) == clean


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("", "Type a question"),
        ("?!... --", "no letter or digit"),
        ("😀🎉", "no letter or digit"),
        ("x" * (MAX_QUERY_CHARACTERS + 1), "2,001 characters"),
        ("who is " + "a" * 101, "word of 101"),
        ("who", ""),
        ("42", ""),
        ("谁" * 300, ""),
        ("من صمم برج إيفل؟", ""),
    ],
)
def test_only_questions_that_cannot_be_asked_are_refused(query, reason):
    assert reason in refusal(query) and bool(reason) == bool(refusal(query))


@pytest.mark.parametrize(
    ("query", "foreign"),
    [
        ("Who designed the Eiffel Tower?", False),
        ("Marie Curie", False),
        ("What is the Tour de France?", False),
        ("Los Angeles population", False),
        ("Wer hat den Eiffelturm entworfen?", True),
        ("Qui a conçu la tour Eiffel ?", True),
        ("谁设计了埃菲尔铁塔?", True),
        ("Кто построил башню?", True),
    ],
)
def test_other_languages_are_noticed(query, foreign):
    assert looks_foreign(query) is foreign


@pytest.mark.parametrize("name", ["topic", "metadata"])
def test_topics_are_read_from_a_column_or_from_the_metadata(name):
    topics = ["Arts", None, "Sport", "Arts", ""]
    values = topics if name == "topic" else [json.dumps({"topic": topic} if topic else {}) for topic in topics]
    collection = Dataset.from_dict({"title": list("abcde"), name: values})
    assert read_topics(collection, "topic") == {"Arts": [0, 3], "Sport": [2]}


def test_memory_of_this_process_is_told():
    assert 10**7 < resident_bytes() < 10**11
