"""MINT for Hugging Face: RAG and GAR models that retrieve by generating titles.

Importing this package registers its classes with transformers' Auto classes and the pipeline `"mint"`.
"""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from .beam_trace import BeamTrace
from .configuration_mint import MintConfig
from .custom_generate_mint import generate_docids
from .docid_search import search_docids
from .exact_search import exact_search_docids
from .generation_mint import RetrievalOutput, TextOutput
from .logits_process_mint import TitleTrieLogitsProcessor
from .modeling_mint import MintForConditionalGeneration, MintPreTrainedModel
from .pipeline_mint import MintPipeline
from .processing_mint import MintProcessor
from .strategies_mint import STRATEGIES, StrategyInference, StrategyOutput
from .tasks_mint import TASKS, TrainingExample, format_prompt, training_examples
from .title_trie import TitleTrie

AutoConfig.register(MintConfig.model_type, MintConfig)
AutoModel.register(MintConfig, MintForConditionalGeneration)
AutoModelForCausalLM.register(MintConfig, MintForConditionalGeneration)
AutoModelForSeq2SeqLM.register(MintConfig, MintForConditionalGeneration)
AutoProcessor.register(MintConfig, MintProcessor)
PIPELINE_REGISTRY.register_pipeline("mint", pipeline_class=MintPipeline, pt_model=AutoModel)

__all__ = [
    "STRATEGIES",
    "TASKS",
    "BeamTrace",
    "MintConfig",
    "MintForConditionalGeneration",
    "MintPipeline",
    "MintPreTrainedModel",
    "MintProcessor",
    "RetrievalOutput",
    "StrategyInference",
    "StrategyOutput",
    "TextOutput",
    "TitleTrie",
    "TitleTrieLogitsProcessor",
    "TrainingExample",
    "exact_search_docids",
    "format_prompt",
    "generate_docids",
    "search_docids",
    "training_examples",
]
