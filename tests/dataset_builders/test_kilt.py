import json
import logging
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from datasets import Dataset

from dataset_builders.basic import BasicBuilder
from dataset_builders.features import COLLECTION_FEATURES, SAMPLE_FEATURES
from dataset_builders.kilt import KILT_TASKS
from dataset_builders.writing import build, write_collection

PAGES = ["Eiffel Tower", "Paris", "Gustave Eiffel", "Louvre", "Paris, Texas (film)"]


def evidence(title, paragraph=1, section="Section::::Abstract.", **fields):
    """A piece of provenance with all that KILT writes into it."""
    return {
        "wikipedia_id": "9232",
        "title": title,
        "section": section,
        "start_paragraph_id": paragraph,
        "start_character": 14,
        "end_paragraph_id": paragraph,
        "end_character": 131,
        "bleu_score": 0.87,
        "meta": {"fever_page_id": "", "fever_sentence_id": -1, "annotation_id": "-1", "yes_no_answer": "NONE"},
    } | fields


def linked(left, mention, right, title):
    return {
        "id": "1094testa SOCCER:6",
        "input": f"{left} [START_ENT] {mention} [END_ENT] {right}",
        "output": [{"answer": title, "provenance": [evidence(title)]}],
        "meta": {"left_context": left, "mention": mention, "right_context": right},
    }


def slot(subject, relation, answers, templates):
    return {
        "id": "f6e1c5ab",
        "input": f"{subject} [SEP] {relation}",
        "output": [{"answer": answer, "provenance": [evidence("Eiffel Tower")]} for answer in answers],
        "meta": {
            "template_questions": templates,
            "subj_aliases": [],
            "sub_surface": [subject],
            "obj_surface": answers,
        },
    }


NO_META = {"left_context": "", "mention": "", "right_context": "", "partial_evidence": []}

# By task: a record as it stands in KILT's file; query, answers and evidence sets that it must become.
RECORDS = {
    "nq": (
        {
            "id": "-2403977209083604662",
            "input": "who built the eiffel tower",
            "output": [
                {"answer": "Gustave Eiffel", "provenance": [evidence("Eiffel Tower")]},
                {"answer": "Eiffel's company"},
                {
                    "answer": "Gustave Eiffel",
                    "provenance": [evidence("Gustave Eiffel", 3), evidence("Gustave Eiffel")],
                },
                {"provenance": [evidence("Eiffel Tower", 7, "Section::::History.:Origin.")]},
            ],
            "meta": NO_META,
        },
        "who built the eiffel tower",
        ["Gustave Eiffel", "Eiffel's company"],
        [["Eiffel Tower"], ["Gustave Eiffel"]],
    ),
    "triviaqa": (
        {
            "id": "qw_12270",
            "output": [
                {"answer": "City of Light", "meta": {"score": 1}, "provenance": [evidence("Paris")]},
                {"answer": "La Ville Lumière"},
                {"answer": "city of light"},
            ],
        },
        "By what name is Paris known?",
        ["City of Light", "La Ville Lumière", "city of light"],
        [["Paris"]],
    ),
    "hotpotqa": (
        {
            "id": "5ab92dba554299131ca422a2",
            "input": "In which city is the tower that Gustave Eiffel's company built?",
            "output": [{"answer": "Paris", "provenance": [evidence("Gustave Eiffel"), evidence("Eiffel Tower")]}],
            "meta": NO_META,
        },
        "In which city is the tower that Gustave Eiffel's company built?",
        ["Paris"],
        [["Gustave Eiffel", "Eiffel Tower"]],
    ),
    "eli5": (
        {
            "id": "1oy5tc",
            "input": "why do iron towers grow\nin summer?",
            "output": [
                {"answer": "Iron expands.\n\nHeat does it.", "meta": {"score": 9}},
                {"provenance": [evidence("Eiffel Tower", bleu_score=None)]},
            ],
            "meta": NO_META,
        },
        "why do iron towers grow in summer?",
        ["Iron expands.\n\nHeat does it."],
        [["Eiffel Tower"]],
    ),
    "wow": (
        {
            "id": "e3a1d54c",
            "input": "I was in Paris.\nOh nice!  What did you see?\nA tower.",
            "output": [{"answer": "It is 330 metres high.", "provenance": [evidence("Eiffel Tower")]}],
            "meta": NO_META | {"topic": "Paris"},
        },
        "I was in Paris. / Oh nice! What did you see? / A tower.",
        ["It is 330 metres high."],
        [["Eiffel Tower"]],
    ),
    "fever": (
        {
            "id": "33078",
            "input": "The Eiffel Tower is in Paris.",
            "output": [
                {"answer": "supports", "provenance": [evidence("Eiffel_Tower"), evidence("Paris")]},
                {"answer": "SUPPORTS", "provenance": [evidence("Paris")]},
            ],
            "meta": NO_META,
        },
        "The Eiffel Tower is in Paris.",
        ["SUPPORTS"],
        [["Eiffel Tower", "Paris"], ["Paris"]],
    ),
    "aidayago2": (
        linked("EU ministers met in", "Paris", "on Thursday .", "Paris"),
        "EU ministers met in [START_ENT] Paris [END_ENT] on Thursday .",
        ["Paris"],
        [["Paris"]],
    ),
    "wned": (
        linked("the museum", "the\nLouvre", "holds", "Louvre"),
        "the museum [START_ENT] the Louvre [END_ENT] holds",
        ["Louvre"],
        [["Louvre"]],
    ),
    "cweb": (
        linked("", "Paris, Texas", "by Wenders", "Paris,_Texas_(film)"),
        "[START_ENT] Paris, Texas [END_ENT] by Wenders",
        ["Paris, Texas (film)"],
        [["Paris, Texas (film)"]],
    ),
    "trex": (
        slot("Eiffel Tower", "located in", ["Paris", "7th arrondissement"], ["Where is Eiffel Tower?"]),
        "Eiffel Tower [SEP] located in",
        ["Paris", "7th arrondissement"],
        [["Eiffel Tower"]],
    ),
    "structured_zeroshot": (
        slot("Eiffel Tower", "structural engineer", ["Koechlin"], ["Who engineered Eiffel Tower?"]),
        "Eiffel Tower [SEP] structural engineer",
        ["Koechlin"],
        [["Eiffel Tower"]],
    ),
}


@pytest.fixture
def pages_folder(tmp_path):
    documents = [{"title": title, "text": "A page.", "related": [], "metadata": "{}"} for title in PAGES]
    write_collection(Dataset.from_list(documents, features=COLLECTION_FEATURES), tmp_path / "pages")
    return str(tmp_path / "pages")


@pytest.fixture
def write_task(write_lines, tmp_path):
    """Writes a task's files under their official names, into the folder that is returned."""

    def write(name):
        record = RECORDS[name][0]
        for split, file_name in KILT_TASKS[name].files.items():
            write_lines(file_name, {field: record[field] for field in record if split != "test" or field != "output"})
        return str(tmp_path)

    return write


@pytest.fixture
def trivia_questions(tmp_path):
    path = tmp_path / "wikipedia-train.json"
    question = {"Question": RECORDS["triviaqa"][1], "QuestionId": "qw_12270", "Answer": {"Value": "City of Light"}}
    path.write_text(json.dumps({"Data": [question], "Domain": "Wikipedia", "Version": 1.0}), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", RECORDS)
def test_each_task_is_read_from_local_copies_of_its_files(name, write_task, pages_folder, cache_dir, trivia_questions):
    record, query, answers, evidence_sets = RECORDS[name]
    questions = {"questions_file": trivia_questions} if name == "triviaqa" else {}
    builder = BasicBuilder(
        cache_dir=cache_dir, config_name=name, data_dir=write_task(name), collection=pages_folder, **questions
    )
    built = build(builder)
    assert list(built) == [split for split in ("train", "validation", "test") if split in KILT_TASKS[name].files]
    for split, samples in built.items():
        (sample,) = samples
        assert samples.features == SAMPLE_FEATURES
        assert sample["id"] == record["id"] and sample["split"] == split and sample["source"] == "labelled"
        assert sample["task"] == KILT_TASKS[name].type and sample["query"] == query
        assert json.loads(sample["metadata"]) == record.get("meta", {})
        assert sample["answers"] == (answers if split != "test" else [])
        assert sample["provenance"] == (evidence_sets if split != "test" else [])
        assert sample["docids"] == list(dict.fromkeys(title for titles in sample["provenance"] for title in titles))
        assert [PAGES[row] for row in sample["rows"]] == sample["docids"]


def test_the_table_has_the_eleven_tasks_under_their_official_file_names():
    assert list(KILT_TASKS) == list(RECORDS)
    assert KILT_TASKS["nq"].files == {
        "train": "nq-train-kilt.jsonl",
        "validation": "nq-dev-kilt.jsonl",
        "test": "nq-test_without_answers-kilt.jsonl",
    }
    assert KILT_TASKS["triviaqa"].files["test"] == "triviaqa-test_id_without_answers-kilt.jsonl"
    assert [name for name, task in KILT_TASKS.items() if "train" not in task.files] == ["wned", "cweb"]


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        self.server.requested.append(self.path)


@pytest.fixture
def mirror(tmp_path):
    """A server that hands out `tmp_path` and keeps what was asked for in `requested`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path)) as server:
        server.requested = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_official_files_are_downloaded_but_not_to_name_the_config(write_task, pages_folder, cache_dir, mirror):
    write_task("nq")
    url = f"http://127.0.0.1:{mirror.server_port}"
    options = {"config_name": "nq", "base_url": url, "collection": pages_folder}
    builder = BasicBuilder(cache_dir=cache_dir, **options)
    assert mirror.requested == []
    built = build(builder)
    assert {path.strip("/") for path in mirror.requested} >= set(KILT_TASKS["nq"].files.values())
    assert built["train"]["docids"][:] == [["Eiffel Tower", "Gustave Eiffel"]] and built["test"]["answers"][:] == [[]]
    mirror.requested.clear()
    assert build(BasicBuilder(cache_dir=cache_dir, **options))["train"].to_list() == built["train"].to_list()
    assert mirror.requested == []


def test_a_file_that_the_server_lacks_is_named(pages_folder, cache_dir, mirror):
    url = f"http://127.0.0.1:{mirror.server_port}/"
    builder = BasicBuilder(cache_dir=cache_dir, config_name="fever", base_url=url, collection=pages_folder)
    with pytest.raises(FileNotFoundError, match="fever-train-kilt.jsonl"):
        build(builder)


def test_of_local_copies_those_that_miss_are_left_out(write_task, pages_folder, cache_dir, tmp_path, caplog):
    options = {"config_name": "wow", "data_dir": write_task("wow"), "collection": pages_folder}
    (tmp_path / "wow-train-kilt.jsonl").unlink()
    with caplog.at_level(logging.WARNING):
        assert list(build(BasicBuilder(cache_dir=cache_dir, **options))) == ["validation", "test"]
    assert "wow: left out" in caplog.text and "wow-train-kilt.jsonl" in caplog.text
    with pytest.raises(ValueError, match="looked for eli5-train-kilt.jsonl, eli5-dev-kilt.jsonl, eli5-test"):
        BasicBuilder(cache_dir=cache_dir, **options | {"config_name": "eli5"})


def test_changed_local_copies_are_read_again(write_task, write_lines, pages_folder, cache_dir):
    options = {"config_name": "nq", "data_dir": write_task("nq"), "collection": pages_folder}
    build(BasicBuilder(cache_dir=cache_dir, **options))
    write_lines("nq-train-kilt.jsonl", {"id": "new", "input": "who?"})
    assert build(BasicBuilder(cache_dir=cache_dir, **options))["train"]["id"][:] == ["new"]


def test_questions_come_from_several_files_of_either_form(
    write_task, write_lines, pages_folder, cache_dir, trivia_questions
):
    folder = write_task("triviaqa")
    write_lines("triviaqa-dev_id-kilt.jsonl", {"id": "tc_1", "input": ""}, {"id": "tc_2", "input": "own question?"})
    more = write_lines("questions.jsonl", {"id": "tc_1", "input": "joined question?"})
    builder = BasicBuilder(
        cache_dir=cache_dir,
        config_name="triviaqa",
        data_dir=folder,
        collection=pages_folder,
        questions_file=[trivia_questions, more],
    )
    built = build(builder)
    assert built["train"]["query"][:] == ["By what name is Paris known?"]
    assert built["validation"]["query"][:] == ["joined question?", "own question?"]


def test_ids_without_question_are_named_and_counted_up_to_the_limit(
    write_task, write_lines, pages_folder, cache_dir, trivia_questions, caplog
):
    options = {"config_name": "triviaqa", "data_dir": write_task("triviaqa"), "collection": pages_folder}
    records = [{"id": "qw_12270"}, {"id": "qb_1"}, {"id": "qb_2"}]
    write_lines("triviaqa-train_id-kilt.jsonl", *records)
    with pytest.raises(ValueError, match="line 2 .no question for id 'qb_1'.: .*questions_file"):
        build(BasicBuilder(cache_dir=cache_dir, **options, questions_file=trivia_questions))
    with caplog.at_level(logging.WARNING):
        built = build(BasicBuilder(cache_dir=cache_dir, **options, questions_file=trivia_questions, max_malformed=2))
    assert built["train"]["id"][:] == ["qw_12270"]
    assert "triviaqa, train: 2 malformed" in caplog.text and "'qb_1'" in caplog.text and "'qb_2'" in caplog.text


def test_triviaqa_without_questions_says_what_to_pass(write_task, pages_folder, cache_dir):
    with pytest.raises(ValueError, match="ids without questions. Pass questions_file="):
        BasicBuilder(
            cache_dir=cache_dir, config_name="triviaqa", data_dir=write_task("triviaqa"), collection=pages_folder
        )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("q.json", "{", r"q\.json: expected TriviaQA"),
        ("q.json", '{"Data": [{"QuestionId": "1"}]}', r"q\.json: expected TriviaQA.*'Question'"),
        ("q.json", '[{"id": "1", "input": "q"}]', r"q\.json: expected TriviaQA.*\.jsonl"),
        ("q.jsonl", '{"id": "1", "input": "q"}\n{"id": "2"}', r"q\.jsonl, line 2: a question needs 'id' and 'input'"),
    ],
)
def test_malformed_questions_are_refused(name, text, message, write_task, pages_folder, cache_dir, tmp_path):
    (tmp_path / name).write_text(text)
    options = {"config_name": "triviaqa", "data_dir": write_task("triviaqa"), "collection": pages_folder}
    with pytest.raises(ValueError, match=message):
        build(BasicBuilder(cache_dir=cache_dir, **options, questions_file=str(tmp_path / name)))
