"""In: token ids and schema ids. Out: gists, logits, pointer scores. Knows no Lightning, no Hydra and no data source."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from toolformer.model.configuration import ToolFormerConfig
from toolformer.model.conversion import fresh, from_qwen, load_backbone
from toolformer.model.modeling import ToolFormerMicro

AutoConfig.register(ToolFormerConfig.model_type, ToolFormerConfig, exist_ok=True)
AutoModel.register(ToolFormerConfig, ToolFormerMicro, exist_ok=True)
AutoModelForCausalLM.register(ToolFormerConfig, ToolFormerMicro, exist_ok=True)

__all__ = ["ToolFormerConfig", "ToolFormerMicro", "fresh", "from_qwen", "load_backbone"]
