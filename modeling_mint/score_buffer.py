"""Scores that are `-inf` but for a few places, without filling a whole tensor at every step."""

import weakref

import torch


class ScoreBuffer:
    """
    Makes tensors that are `-inf` everywhere but at some places. On the CPU, filling 80 rows of a vocabulary of 49,152
    takes several times as long as everything else that a constrained step does, so the last tensor's memory is taken
    again, its own places set back, whenever that cannot be noticed: nobody holds the tensor or a view of it any more
    (generate keeps scores with `output_scores`), and nobody wrote to it.
    """

    def __init__(self):
        self._memory = None
        self._places = torch.empty(0, dtype=torch.long)
        self._given, self._version, self._held = None, None, None

    def prepare(self, scores: torch.Tensor) -> None:
        """Fills the memory for tensors of the shape of `scores` (float32, on the CPU), unless it is there."""
        if self._reuses(scores):
            self._fill(scores.shape)

    def put(self, shape: torch.Size, places: torch.LongTensor, values: torch.Tensor) -> torch.Tensor:
        """
        Gives a tensor that holds values at places and `-inf` elsewhere.

        Args:
            shape (`torch.Size`):
                Shape of the tensor.
            places (`torch.LongTensor` of shape `(n,)`):
                Places in the flattened tensor.
            values (`torch.Tensor` of shape `(n,)`):
                What stands there; its type and device are those of the tensor.

        Returns:
            `torch.Tensor`: A contiguous tensor.
        """
        if not self._reuses(values):
            return torch.full(shape, -torch.inf, dtype=values.dtype, device=values.device).put_(places, values)
        self._fill(shape)
        self._memory.reshape(-1)[self._places.numpy()] = -torch.inf
        # A tensor keeps the array alive that it was made from, and so does every view of the tensor.
        view = self._memory[:]
        self._held = weakref.ref(view)
        self._given = torch.from_numpy(view).put_(places, values)
        self._version = None if self._given.is_inference() else self._given._version
        self._places = places
        return self._given

    @staticmethod
    def _reuses(values: torch.Tensor) -> bool:
        return values.device.type == "cpu" and values.dtype == torch.float32

    def _fill(self, shape: torch.Size) -> None:
        """Makes memory that is `-inf` but for the places of the tensor given last."""
        if self._memory is None or self._memory.shape != shape or not self._is_untouched():
            self._memory = torch.full(shape, -torch.inf).numpy()
            self._places = torch.empty(0, dtype=torch.long)

    def _is_untouched(self) -> bool:
        """Whether the tensor given last is out of the world as it was given."""
        if self._given is None:
            return True
        unwritten = self._version is not None and self._given._version == self._version
        self._given = None
        return unwritten and self._held() is None


__all__ = ["ScoreBuffer"]
