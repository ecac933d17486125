import pytest
import torch

from modeling_mint.score_buffer import ScoreBuffer

SHAPE = torch.Size((3, 5))


def put(buffer, *places, dtype=torch.float32, shape=SHAPE):
    """A tensor with ones at some places, checked for them."""
    tensor = buffer.put(shape, torch.tensor(places), torch.ones(len(places), dtype=dtype))
    expected = torch.full(shape, -torch.inf, dtype=dtype)
    expected.view(-1)[list(places)] = 1
    assert torch.equal(tensor, expected) and tensor.dtype == dtype
    return tensor


def test_memory_is_taken_again_and_holds_nothing_of_before():
    buffer = ScoreBuffer()
    first = put(buffer, 0, 7).data_ptr()
    assert put(buffer, 3).data_ptr() == first
    assert put(buffer, 14, 0).data_ptr() == first


@pytest.mark.parametrize("hold", [lambda t: t, lambda t: t[1:], lambda t: t.view(-1), lambda t: t.numpy()])
def test_memory_that_somebody_holds_or_sees_is_left_alone(hold):
    buffer = ScoreBuffer()
    held = hold(put(buffer, 0, 7))
    before = held.copy() if not isinstance(held, torch.Tensor) else held.clone()
    put(buffer, 3)
    assert (held == before).all()
    del held
    put(buffer, 4)


@pytest.mark.parametrize("write", [lambda t: t.fill_(0), lambda t: t[1:].mul_(0), lambda t: t.view(-1)[2:].zero_()])
def test_memory_that_somebody_wrote_to_is_filled_anew(write):
    buffer = ScoreBuffer()
    write(put(buffer, 0, 7))
    put(buffer, 3)


def test_other_shapes_types_and_inference_mode_are_served_too():
    buffer = ScoreBuffer()
    put(buffer, 0, 7)
    put(buffer, 0, 7, dtype=torch.bfloat16)
    put(buffer, 8, shape=torch.Size((2, 5)))
    with torch.inference_mode():
        put(buffer, 1)
        put(buffer, 2).fill_(0)
        put(buffer, 3)
    put(buffer, 4)


def test_prepared_memory_is_that_of_the_next_tensor():
    buffer = ScoreBuffer()
    buffer.prepare(torch.zeros(SHAPE))
    memory = buffer._memory.ctypes.data
    assert put(buffer, 5).data_ptr() == memory
    buffer.prepare(torch.zeros(SHAPE))
    put(buffer, 6)
