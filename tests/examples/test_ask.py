import re

from tests.examples.conftest import DOCUMENTS


def test_ask_prints_an_answer_with_its_confidence_and_documents_of_the_collection(finished, command, run):
    words = [*command("ask", finished[0]), "--question=who founded Paris?", "--strategy=cascade", "--top_k=3"]
    ended = run(words)
    assert ended.returncode == 0, ended.stderr
    answer, *documents = ended.stdout.rstrip("\n").split("\n")
    assert re.search(r"  confidence [01]\.\d\d$", answer)
    shown = [re.fullmatch(r"  [01]\.\d\d  (.+?): \1 stands here\..*", line)[1] for line in documents]
    assert len(set(shown)) == 3 and set(shown) <= {document["title"] for document in DOCUMENTS}


def test_ask_without_a_run_says_what_to_do(command, run, tmp_path):
    ended = run([*command("ask", tmp_path / "nowhere"), "--question=why?"])
    assert ended.returncode == 2
    assert "nowhere/mint-rag is missing: run examples/run_mint.py first" in ended.stderr
    assert "Traceback" not in ended.stderr
