import pytest

from trainers.task_sampling import TaskSampling

AVAILABLE = {"query_to_docid": 100, "grounded_answer": 400, "document_to_query": 1}
TASKS = [task for task, number in AVAILABLE.items() for _ in range(number)]


def taken(sampling, seed=0, tasks=TASKS):
    """Copies of each example, by task."""
    copies = {}
    for task, number in zip(tasks, sampling.copies(tasks, seed), strict=True):
        copies.setdefault(task, []).append(number)
    return copies


def test_proportional_takes_every_example_once():
    assert TaskSampling().wanted(AVAILABLE) == AVAILABLE
    assert TaskSampling().copies(TASKS, seed=0) == [1] * 501


def test_a_temperature_takes_tasks_by_the_root_of_their_size_and_leaves_the_total():
    """Of 501 examples the shares 10 : 20 : 1 are 161.6, 323.2 and 16.2."""
    wanted = TaskSampling("temperature", 2.0).wanted(AVAILABLE)
    assert wanted == {"query_to_docid": 162, "grounded_answer": 323, "document_to_query": 16}
    assert sum(wanted.values()) == 501


def test_temperature_1_is_proportional_and_an_endless_one_even():
    assert TaskSampling("temperature", 1.0).wanted(AVAILABLE) == AVAILABLE
    assert set(TaskSampling("temperature", float("inf")).wanted(AVAILABLE).values()) == {167}


def test_a_small_task_is_repeated_whole_before_any_example_is_taken_once_more():
    copies = taken(TaskSampling("temperature", 2.0))
    assert copies["document_to_query"] == [16]
    assert sorted(copies["query_to_docid"]) == [1] * 38 + [2] * 62
    assert sorted(copies["grounded_answer"]) == [0] * 77 + [1] * 323


def test_rates_are_exact_and_tasks_without_one_stay():
    sampling = TaskSampling("explicit", rates={"query_to_docid": 2.5, "grounded_answer": 0.5})
    copies = taken(sampling)
    assert sorted(copies["query_to_docid"]) == [2] * 50 + [3] * 50
    assert sorted(copies["grounded_answer"]) == [0] * 200 + [1] * 200
    assert copies["document_to_query"] == [1]
    assert taken(TaskSampling("explicit", rates={"grounded_answer": 0}))["grounded_answer"] == [0] * 400


def test_rates_alone_mean_explicit():
    rates = {"query_to_docid": 3, "query_answer_to_docid": 0.1}
    assert TaskSampling(rates=rates).copies(TASKS, 5) == TaskSampling("explicit", rates=rates).copies(TASKS, 5)


def test_the_seed_decides_what_is_drawn_and_other_tasks_do_not():
    half = TaskSampling(rates={"grounded_answer": 0.5})
    assert half.copies(TASKS, 1) == half.copies(TASKS, 1)
    assert half.copies(TASKS, 1) != half.copies(TASKS, 2)
    alone = taken(half, 1, [task for task in TASKS if task == "grounded_answer"])
    assert alone["grounded_answer"] == taken(half, 1)["grounded_answer"]


@pytest.mark.parametrize("mode", ["proportional", "temperature"])
def test_no_examples_give_none(mode):
    assert TaskSampling(mode).copies([], seed=0) == []


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"mode": "even"}, "`task_sampling` is 'even'"),
        ({"temperature": 0.5}, "`sampling_temperature` is 0.5"),
        ({"temperature": float("nan")}, "`sampling_temperature` is nan"),
        ({"mode": "temperature", "rates": {"query_to_docid": 3}}, "`task_rates` are given"),
        ({"mode": "explicit"}, "there are no `task_rates`"),
        ({"rates": {"query_to_title": 3}}, "the task 'query_to_title'; the tasks are query_to_docid, "),
        ({"rates": {"query_to_docid": -1}}, "'query_to_docid' the rate -1"),
        ({"rates": {"query_to_docid": "3"}}, "'query_to_docid' the rate '3'"),
    ],
)
def test_what_cannot_be_sampled_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        TaskSampling(**wrong)
