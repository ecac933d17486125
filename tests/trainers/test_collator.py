import pytest
import torch

from trainers.collator import IGNORED, MintDataCollator

PAD = 0
EXAMPLES = [
    {"prompt_ids": [5, 6, 7], "target_ids": [8, 1], "component": 0, "weight": 1.0},
    {"prompt_ids": [9], "target_ids": [5, 6, 1], "component": 3, "weight": 0.25},
]


def test_decoder_only_pads_prompts_left_and_targets_right():
    batch = MintDataCollator(PAD)(EXAMPLES)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 1, PAD], [PAD, PAD, 9, 5, 6, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 1]]
    assert batch["labels"].tolist() == [[8, 1, IGNORED], [5, 6, 1]]
    assert "decoder_input_ids" not in batch


def test_positions_count_tokens_and_not_padding():
    positions, mask = (MintDataCollator(PAD)(EXAMPLES)[name] for name in ("position_ids", "attention_mask"))
    assert positions[0][mask[0] == 1].tolist() == [0, 1, 2, 3, 4]
    assert positions[1][mask[1] == 1].tolist() == [0, 1, 2, 3]


def test_encoder_decoder_keeps_prompt_and_target_apart(make_model, kind):
    if kind == "llama":
        pytest.skip("decoder-only")
    batch = MintDataCollator(PAD, make_model().prepare_decoder_input_ids_from_labels)(EXAMPLES)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [9, PAD, PAD]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[8, 1, IGNORED], [5, 6, 1]]
    assert batch["decoder_input_ids"].tolist() == [[PAD, 8, 1], [PAD, 5, 6]]


def test_component_and_weight_travel_with_their_row():
    batch = MintDataCollator(PAD)(EXAMPLES)
    assert batch["component"].dtype == torch.int64 and batch["component"].tolist() == [0, 3]
    assert batch["weight"].dtype == torch.float32 and batch["weight"].tolist() == [1.0, 0.25]


def test_a_padding_id_inside_a_target_is_still_learnt():
    """Many decoder-only models pad with their end token."""
    batch = MintDataCollator(pad_token_id=1)(EXAMPLES)
    assert batch["labels"].tolist() == [[8, 1, IGNORED], [5, 6, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 1]]
