"""Makes tiny random models of three families, a tokenizer and parallel text, in a second."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

SENTENCES = {
    "en": [
        "The cat sleeps in the house.",
        "Anna gives Tom a red apple.",
        "Two birds sit on the old tree.",
        "It rains.",
        "The boy goes to the market in the morning.",
        "Who has the book?",
    ],
    "es": [
        "El gato duerme en la casa.",
        "Ana le da a Tom una manzana roja.",
        "Dos pájaros están en el viejo árbol.",
        "Llueve.",
        "El niño va al mercado por la mañana.",
        "¿Quién tiene el libro?",
    ],
    "hi": [
        "बिल्ली घर में सोती है।",
        "अन्ना टॉम को एक लाल सेब देती है।",
        "दो पक्षी पुराने पेड़ पर बैठे हैं।",
        "बारिश हो रही है।",
        "लड़का सुबह बाज़ार जाता है।",
        "किताब किसके पास है?",
    ],
    "sw": [
        "Paka analala nyumbani.",
        "Ana anampa Tom tufaha jekundu.",
        "Ndege wawili wako juu ya mti mzee.",
        "Mvua inanyesha.",
        "Mvulana anaenda sokoni asubuhi.",
        "Nani ana kitabu?",
    ],
}


def make_tokenizer(vocabulary: int = 400) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on the sentences above, which puts <s> before every text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((s for texts in SENTENCES.values() for s in texts), trainer)
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


TOKENS = {"vocab_size": 400, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.15,  # wide, so that steering visibly changes what a random model says
}


def tiny_llama_model(**changes: object) -> PreTrainedModel:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**TOKENS, **SIZES, "hidden_act": "relu", **changes}))


def tiny_qwen2_model(**changes: object) -> PreTrainedModel:
    torch.manual_seed(1)
    return Qwen2ForCausalLM(Qwen2Config(**{**TOKENS, **SIZES, **changes}))


def tiny_gpt2_model(**changes: object) -> PreTrainedModel:
    torch.manual_seed(2)
    sizes = {"n_embd": 32, "n_inner": 64, "n_layer": 3, "n_head": 4, "n_positions": 256}
    return GPT2LMHeadModel(GPT2Config(**{**TOKENS, **sizes, "initializer_range": 0.15, **changes}))


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA_LIKE = {**SMALL, "intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8}
MIXED = {**LLAMA_LIKE, "num_experts_per_tok": 2, "num_experts": 4, "num_local_experts": 4}
GATED = ("mlp.down_proj", "mlp.gate_proj")
FUSED = ("mlp.down_proj", "mlp.gate_up_proj")
# model type: (sizes, down-projection of layer 1, its gate); of experts, their module
FAMILIES = {
    "llama": (LLAMA_LIKE, *GATED),
    "mistral": (LLAMA_LIKE, *GATED),
    "ministral": (LLAMA_LIKE, *GATED),
    "qwen2": (LLAMA_LIKE, *GATED),
    "qwen3": (LLAMA_LIKE, *GATED),
    "qwen3_5_text": (
        {
            **LLAMA_LIKE,
            "layer_types": ["linear_attention", "full_attention"],
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
        },
        *GATED,
    ),
    "gemma": (LLAMA_LIKE, *GATED),
    "gemma2": (LLAMA_LIKE, *GATED),
    "gemma3_text": (LLAMA_LIKE, *GATED),
    "gemma4_text": (  # its upper layers share keys and have twice the neurons
        {
            **LLAMA_LIKE,
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_kv_shared_layers": 2,
            "use_double_wide_mlp": True,
            "global_head_dim": 8,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": 400,
        },
        *GATED,
    ),
    "cohere": (LLAMA_LIKE, *GATED),
    "cohere2": (LLAMA_LIKE, *GATED),
    "olmo2": (LLAMA_LIKE, *GATED),
    "olmo3": (LLAMA_LIKE, *GATED),
    "granite": ({**LLAMA_LIKE, "residual_multiplier": 0.22}, *GATED),
    "smollm3": (LLAMA_LIKE, *GATED),
    "stablelm": (LLAMA_LIKE, *GATED),
    "phi3": (LLAMA_LIKE, *FUSED),  # its attention's shapes fit too
    "glm4": (LLAMA_LIKE, *FUSED),
    "lfm2": (LLAMA_LIKE, "feed_forward.w2", "feed_forward.w1"),
    "apertus": (LLAMA_LIKE, "mlp.down_proj", None),
    "phi": (LLAMA_LIKE, "mlp.fc2", None),
    "starcoder2": (LLAMA_LIKE, "mlp.c_proj", None),
    "gpt2": ({"n_embd": 32, "n_layer": 2, "n_head": 4}, "mlp.c_proj", None),
    "gptj": ({"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4}, "mlp.fc_out", None),
    "gpt_neo": (
        {
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
        },
        "mlp.c_proj",
        None,
    ),
    "gpt_neox": ({**SMALL, "intermediate_size": 64}, "mlp.dense_4h_to_h", None),
    "bloom": ({"hidden_size": 32, "n_layer": 2, "n_head": 4}, "mlp.dense_4h_to_h", None),
    "falcon": (SMALL, "mlp.dense_4h_to_h", None),
    "mpt": ({"d_model": 32, "n_layers": 2, "n_heads": 4}, "ffn.down_proj", None),
    "opt": ({**SMALL, "ffn_dim": 64, "word_embed_proj_dim": 32}, "fc2", None),
    "xglm": ({"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 64}, "fc2", None),
    "mixtral": (MIXED, "mlp.experts", None),
    "qwen2_moe": (  # experts beside a shared one
        {
            **MIXED,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 24,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        },
        "mlp.experts",
        None,
    ),
    "qwen3_moe": (
        {**MIXED, "moe_intermediate_size": 24, "mlp_only_layers": [0]},
        "mlp.experts",
        None,
    ),
    "olmoe": (MIXED, "mlp.experts", None),
    "granitemoe": (MIXED, "block_sparse_moe.experts", None),
    "gpt_oss": (MIXED, "mlp.experts", None),  # biases, gate and up interleaved, stored transposed
    "deepseek_v3": (  # the first layer dense, then experts beside a shared one
        {
            **MIXED,
            "num_key_value_heads": 4,
            "head_dim": 4,
            "moe_intermediate_size": 16,
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "n_group": 2,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "kv_lora_rank": 8,
            "q_lora_rank": 8,
            "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 4,
            "v_head_dim": 8,
        },
        "mlp.experts",
        None,
    ),
}


def tiny_model(family: str, **changes: object) -> PreTrainedModel:
    """A random model of one of FAMILIES, of 2 layers (gemma4_text: 4)."""
    torch.manual_seed(3)
    sizes = FAMILIES[family][0]
    config = AutoConfig.for_model(
        family, **{**TOKENS, **sizes, "initializer_range": 0.1, **changes}
    )
    return AutoModelForCausalLM.from_config(config)


def windowed_model(family: str, window: int = 8) -> PreTrainedModel:
    """One that looks back `window` tokens at most, where its family can be told to."""
    known = AutoConfig.for_model(family, **FAMILIES[family][0])
    changes: dict[str, object] = {
        name: window for name in ("sliding_window", "window_size") if hasattr(known, name)
    }
    if hasattr(known, "use_sliding_window"):
        changes |= {"use_sliding_window": True, "max_window_layers": 1}
    if family == "lfm2":
        changes["layer_types"] = ["conv", "full_attention"]
    return tiny_model(family, **changes)
