import pytest
import torch

from modeling_mint.tasks_mint import TASKS
from trainers.collator import IGNORED, MintDataCollator

PAD = 0
EXAMPLES = [
    {"prompt_ids": [5, 6, 7], "target_ids": [8, 1], "task": "grounded_answer", "component": 0, "weight": 1.0},
    {"prompt_ids": [9], "target_ids": [5, 6, 1], "task": "query_to_docid", "component": 3, "weight": 0.25},
]


def test_decoder_only_sequences_end_in_the_last_column():
    batch = MintDataCollator(PAD)(EXAMPLES)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8], [PAD, 9, 5, 6]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [0, 1, 1, 1]]
    assert batch["labels"].tolist() == [[IGNORED, 8, 1], [5, 6, 1]]
    assert "decoder_input_ids" not in batch


def test_positions_count_tokens_and_not_padding():
    positions, mask = (MintDataCollator(PAD)(EXAMPLES)[name] for name in ("position_ids", "attention_mask"))
    assert positions[0][mask[0] == 1].tolist() == [0, 1, 2, 3]
    assert positions[1][mask[1] == 1].tolist() == [0, 1, 2]


def test_encoder_decoder_keeps_prompt_and_target_apart(make_model, kind):
    if kind == "llama":
        pytest.skip("decoder-only")
    batch = MintDataCollator(PAD, make_model().prepare_decoder_input_ids_from_labels)(EXAMPLES)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [9, PAD, PAD]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[8, 1, IGNORED], [5, 6, 1]]
    assert batch["decoder_input_ids"].tolist() == [[PAD, 8, 1], [PAD, 5, 6]]


def test_component_task_and_weight_travel_with_their_target_tokens():
    batch = MintDataCollator(PAD)(EXAMPLES)
    tasks = [list(TASKS).index(example["task"]) for example in EXAMPLES]
    assert batch["component"].dtype == torch.int64 and batch["component"].tolist() == [[0] * 3, [3] * 3]
    assert batch["task"].dtype == torch.int64 and batch["task"].tolist() == [[task] * 3 for task in tasks]
    assert batch["weight"].dtype == torch.float32 and batch["weight"].tolist() == [[0.0, 1.0, 1.0], [0.25] * 3]


def test_logits_are_kept_for_the_columns_that_predict_targets():
    """The target's last token predicts nothing, so that the last columns of the input are just these."""
    batch = MintDataCollator(PAD)(EXAMPLES)
    kept = batch["input_ids"][:, -batch["logits_to_keep"] :]
    assert kept.shape == batch["labels"].shape
    assert kept.tolist() == [[6, 7, 8], [9, 5, 6]]


def test_a_padding_id_inside_a_target_is_still_learnt():
    """Many decoder-only models pad with their end token."""
    batch = MintDataCollator(pad_token_id=1)(EXAMPLES)
    assert batch["labels"].tolist() == [[IGNORED, 8, 1], [5, 6, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [0, 1, 1, 1]]
