"""Arguments of the joint-loss trainers."""

from dataclasses import dataclass, field

from transformers import Seq2SeqTrainingArguments
from trl import SFTConfig


@dataclass
class JointLossArguments:
    """
    Weights of the joint loss `L = lambda_1 L_GR + lambda_2 L_G + lambda_3 L_AUX` (`mint.md`, Stage 1) and of the
    exchange loss (Stage 2).

    Args:
        lambda_retrieval (`float`, *optional*, defaults to 1.0): lambda_1, of the retrieval loss L_GR.
        lambda_generation (`float`, *optional*, defaults to 1.0): lambda_2, of the generation loss L_G.
        lambda_auxiliary (`float`, *optional*, defaults to 1.0): lambda_3, of the auxiliary loss L_AUX.
        lambda_exchange (`float`, *optional*, defaults to 1.0): of the loss on the partner's kept samples.
    """

    lambda_retrieval: float = field(default=1.0, metadata={"help": "Weight of the retrieval loss L_GR (lambda 1)."})
    lambda_generation: float = field(default=1.0, metadata={"help": "Weight of the generation loss L_G (lambda 2)."})
    lambda_auxiliary: float = field(default=1.0, metadata={"help": "Weight of the auxiliary loss L_AUX (lambda 3)."})
    lambda_exchange: float = field(default=1.0, metadata={"help": "Weight of the loss on the partner's samples."})

    @property
    def lambdas(self) -> list[float]:
        """The weights in the order of `tasks_mint.COMPONENTS`."""
        return [self.lambda_retrieval, self.lambda_generation, self.lambda_auxiliary, self.lambda_exchange]


@dataclass
class MintSeq2SeqArguments(JointLossArguments, Seq2SeqTrainingArguments):
    """Arguments of [`MintSeq2SeqTrainer`]: those of `Seq2SeqTrainer` and of the joint loss."""


@dataclass
class MintSFTConfig(JointLossArguments, SFTConfig):
    """Arguments of [`MintSFTTrainer`]: those of `SFTTrainer` and of the joint loss."""
