"""Judging while training: the model retrieves and answers on dev samples whenever Trainer evaluates."""

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from torch.distributed.tensor import DTensor

from modeling_mint import MintProcessor

from .evaluation import METRICS, predict_role, score_role


class DevJudge:
    """
    Scores a model in training by what it is trained for: it retrieves under the title trie and answers, by the
    strategy of its role. Given to [`joint_trainer`] as `judge`, its scores are metrics of every evaluation
    (`eval_r_precision`, `eval_kilt_em`, ...), so that `metric_for_best_model`, early stopping and `report_to` know
    them.

    On several processes each predicts its share, and all of them score everything.

    Args:
        samples (`datasets.Dataset`):
            Labelled samples in the common schema.
        processor ([`MintProcessor`]):
            Processor with title trie and collection.
        **options:
            As for [`StrategyInference`], such as `num_beams` and `batch_size`.

    Raises:
        ValueError: if there is no sample.

    Example:

    ```python
    judge = DevJudge(validation.select(range(200)), processor, num_beams=10)
    arguments |= {
        "eval_strategy": "steps",
        "eval_steps": 100,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_r_precision",
    }
    joint_trainer(model, arguments, examples, processor, eval_dataset=eval_examples, judge=judge).train()
    ```
    """

    def __init__(self, samples: Dataset, processor: MintProcessor, **options):
        if len(samples) == 0:
            raise ValueError("There is no dev sample to judge by: give some, or train without a judge.")
        self.samples = samples
        self.processor = processor
        self.options = options

    def __call__(self, model: torch.nn.Module) -> dict[str, float]:
        """
        Args:
            model ([`MintForConditionalGeneration`] or a `PeftModel` around one):
                The model, in any precision. It is left in the mode, training or eval, that it came in.

        Returns:
            `dict[str, float]`: `METRICS` over all samples.

        Raises:
            ValueError: if the model's weights are spread over processes (FSDP, ZeRO-3): those processes must take
                every step together, and a search does not take equally many on each.
        """
        if any(isinstance(weight, DTensor) or weight.numel() == 0 for weight in model.parameters()):
            raise ValueError(
                "A model whose weights are spread over processes (FSDP, DeepSpeed ZeRO-3) cannot be judged while it "
                "trains: train without a judge, and evaluate the model that was saved."
            )
        was_training = model.training
        model.eval()
        with PartialState().split_between_processes(list(range(len(self.samples)))) as share:
            share = predict_role(self.samples.select(share), self.processor, model, **self.options)
        model.train(was_training)
        scores = score_role(self.samples, gather_object(share), self.processor)
        return {name: scores[name] for name in METRICS}
