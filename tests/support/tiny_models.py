"""Tiny random models and classifiers; a tokenizer of one token a byte, and one like Llama 2's."""

import tokenizers
import torch
import transformers

VOCABULARY = 260  # 256 bytes, then specials
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": 257,
    "pad_token_id": None,
}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SIZES),
    "qwen3": lambda: transformers.Qwen3Config(**SIZES, head_dim=16),
    "qwen2": lambda: transformers.Qwen2Config(**SIZES),
    "mistral": lambda: transformers.MistralConfig(**SIZES, sliding_window=7),
    "gemma3": lambda: transformers.Gemma3TextConfig(
        **SIZES, head_dim=16, sliding_window=6, query_pre_attn_scalar=16, sliding_window_pattern=2
    ),
}

_ALTERNATING = ["sliding_attention", "full_attention", "sliding_attention"]
_LATENT = {  # MLA
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 6,
}
_GPT = {"vocab_size": VOCABULARY, "n_positions": 256, "n_embd": 32, "n_layer": 2, "n_head": 4}
_BART = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 256,
    "d_model": 32,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 48,
    "encoder_layers": 2,  # as many as the decoder's, whose cache is of this size
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "eos_token_id": 257,
    "pad_token_id": 258,
    "decoder_start_token_id": 257,
}


def _rope(kind, **parameters):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **parameters}}


def longrope(original=32):
    """Rotary parameters for heads of 8 whose factors change at `original` tokens."""
    factors = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 3.0, 4.0, 5.0]}
    kind = _rope("longrope", **factors, factor=8.0, original_max_position_embeddings=original)
    kind["rope_parameters"]["partial_rotary_factor"] = 1.0
    return kind | {"original_max_position_embeddings": original}


def _config(name, *parts, **fields):
    """A function that makes the configuration; of `SIZES`, and of what differs from them."""
    return lambda: getattr(transformers, f"{name}Config")(
        **{key: value for part in (*parts, fields) for key, value in part.items()}
    )


_EXPERTS = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 16,
    "n_shared_experts": 1,
}
_SHARED = {  # the last two of four layers take the KV of the two before
    "num_hidden_layers": 4,
    "num_kv_shared_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "sliding_window": 7,
    "head_dim": 16,
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size_per_layer_input": 8,
}
LATENT_OR_SHARED = {
    "deepseek_v2": _config(
        "DeepseekV2", SIZES, _LATENT, _EXPERTS, head_dim=4, first_k_dense_replace=1,
        topk_method="greedy",
    ),
    "deepseek_v3": _config(
        "DeepseekV3", SIZES, _LATENT, _EXPERTS, head_dim=4, first_k_dense_replace=1
    ),
    "glm4_moe_lite": _config("Glm4MoeLite", SIZES, _LATENT, _EXPERTS),
    "longcat_flash": _config(
        "LongcatFlash", SIZES, _LATENT, head_dim=4, num_layers=2, ffn_hidden_size=48,
        expert_ffn_hidden_size=16, n_routed_experts=4, zero_expert_num=2, moe_topk=2,
    ),
    "youtu": _config("Youtu", SIZES, _LATENT, initializer_range=0.01),
    "minicpm3": _config("MiniCPM3", SIZES, _LATENT, initializer_range=0.02),
    "gemma3n": _config(
        "Gemma3nText", SIZES, _SHARED, activation_sparsity_pattern=[0.0] * 4, laurel_rank=8,
        altup_num_inputs=2,
    ),
    "gemma4": _config("Gemma4Text", SIZES, _SHARED, global_head_dim=16),
    "gemma4 wide heads": _config(
        "Gemma4Text", SIZES, _SHARED, global_head_dim=24, use_double_wide_mlp=True
    ),
}  # fmt: skip
"""Networks whose layers give a cache other keys than attention (MLA), or none (shared KV)."""

FAMILIES = CONFIGS | LATENT_OR_SHARED | {
    "llama3 rope": _config(
        "Llama", SIZES, _rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=32),
    ),
    "yarn": _config("Llama", SIZES, _rope("yarn", factor=4.0, original_max_position_embeddings=32)),
    "dynamic": _config("Llama", SIZES, _rope("dynamic", factor=4.0)),
    "longrope": _config("Llama", SIZES, longrope()),
    "qwen2 window": _config(
        "Qwen2", SIZES, use_sliding_window=True, sliding_window=9, max_window_layers=1
    ),
    "mixtral": _config("Mixtral", SIZES, num_local_experts=4, num_experts_per_tok=2),
    "gemma": _config("Gemma", SIZES, head_dim=16),
    "gemma2": _config(
        "Gemma2", SIZES, head_dim=16, sliding_window=7, attn_logit_softcapping=5.0,
        final_logit_softcapping=3.0,
    ),
    "phi": _config("Phi", SIZES),
    "phi3": _config("Phi3", SIZES, sliding_window=7),
    "phi3 longrope": _config("Phi3", SIZES, longrope()),
    "phimoe": _config("Phimoe", SIZES, num_local_experts=2, sliding_window=None),
    "phimoe longrope": _config(
        "Phimoe", SIZES, _rope(
            "longrope", short_factor=[1.0] * 4, long_factor=[3.0] * 4, short_mscale=1.2,
            long_mscale=2.0, original_max_position_embeddings=32, factor=8.0,
        ), num_local_experts=2, sliding_window=None,
    ),
    "gpt_oss": _config(
        "GptOss", SIZES, head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=7,
        layer_types=_ALTERNATING,
    ),
    "olmo2": _config("Olmo2", SIZES),
    "olmo3": _config("Olmo3", SIZES, sliding_window=7, layer_types=_ALTERNATING),
    "granite": _config("Granite", SIZES, residual_multiplier=0.5),
    "cohere2": _config("Cohere2", SIZES, sliding_window=7, layer_types=_ALTERNATING),
    "starcoder2": _config("Starcoder2", SIZES, sliding_window=7),
    "gpt2": _config("GPT2", _GPT),
    "gpt_neox": _config("GPTNeoX", SIZES),
    "opt": _config("OPT", SIZES, ffn_dim=48, word_embed_proj_dim=32),
}  # fmt: skip
"""Networks that run on tree attention."""

REFUSED = {
    "bart": (_config("Bart", _BART), "gives other logits on tree attention"),
    "mbart": (_config("MBart", _BART), "gives other logits on tree attention"),
    "marian": (_config("Marian", _BART), "gives other logits on tree attention"),
    "phimoe window": (
        _config("Phimoe", SIZES, num_local_experts=2, sliding_window=30),
        "its mask has a window of 30 tokens that it does not pass to its attention",
    ),
    "phimoe long window": (
        _config("Phimoe", SIZES, num_local_experts=2, sliding_window=200),
        "its mask has a window of 200 tokens that it does not pass to its attention",
    ),
    "gemma3 bidirectional": (
        _config("Gemma3Text", SIZES, head_dim=16, use_bidirectional_attention=True),
        "gives other logits on tree attention",
    ),
    "llama4": (
        _config("Llama4Text", SIZES, head_dim=8, attention_chunk_size=16, num_local_experts=2),
        "layers attend within chunks (chunked_attention); engine=hf runs it",
    ),
    "diffllama": (_config("DiffLlama", SIZES), "layer 0 attends more than once in a forward"),
    "mamba": (
        _config("Mamba", SIZES, state_size=8),
        "3 of its 3 layers keep states of linear attention or of a state space",
    ),
    "mamba without a length": (
        _config("Mamba", vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=8),
        "states no max_position_embeddings",
    ),
    "rwkv": (
        _config("Rwkv", SIZES, context_length=256, attention_hidden_size=32),
        "it keeps recurrent states, not keys and values alone",
    ),
    "lfm2": (
        _config("Lfm2", SIZES, layer_types=["conv", "full_attention", "conv"]),
        "2 of its 3 layers keep states of a convolution (conv); engine=hf runs it",
    ),
    "falcon": (
        _config("Falcon", SIZES),
        "3 of its 3 layers do not use transformers.AttentionInterface",
    ),
    "falcon ALiBi": (
        _config("Falcon", SIZES, alibi=True),
        "3 of its 3 layers do not use transformers.AttentionInterface",
    ),
    "bloom": (
        _config("Bloom", vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4),
        "states no max_position_embeddings",
    ),
    "gptj": (
        _config("GPTJ", _GPT, rotary_dim=4),
        "2 of its 2 layers do not use transformers.AttentionInterface",
    ),
    "stablelm": (
        _config("StableLm", SIZES),
        "StableLmAttention does not pass keyword arguments on to its attention",
    ),
    "short context": (
        _config("Llama", SIZES | {"max_position_embeddings": 5}),
        "has a context of 5 tokens; 6 are needed",
    ),
}
"""Networks that do not, each with what the refusal says."""


def byte_tokenizer(**special_tokens):
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {char: i for i, char in enumerate(alphabet)} | {
        "<end>": 257,
        "<pad>": 258,
        "<sep>": 259,
    }
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges=[]))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<end>", **special_tokens
    )


def metaspace_tokenizer():
    """As Llama 2's: a space is part of the token that follows it, and ` 4` and ` 42` are tokens."""
    characters = ["▁", "\n", *map(chr, range(33, 127))]
    merges = [("▁", "4"), ("▁4", "2")]
    vocabulary = {text: i for i, text in enumerate([*characters, *map("".join, merges)])}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary | {"<end>": 257}, merges))
    backend.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
    )
    backend.decoder = tokenizers.decoders.Sequence(
        [tokenizers.decoders.Replace("▁", " "), tokenizers.decoders.Fuse()]
    )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")


def make_network(architecture):
    return network_of(FAMILIES[architecture]())


def network_of(config):
    torch.manual_seed(0)
    config._attn_implementation = "eager"
    network = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return _spread(network)


def make_reward_model(num_labels, architecture="llama"):
    torch.manual_seed(0)
    make = {"llama": transformers.LlamaConfig, "bert": transformers.BertConfig}[architecture]
    config = make(**SIZES | {"pad_token_id": 258}, num_labels=num_labels)
    return _spread(transformers.AutoModelForSequenceClassification.from_config(config))


def _spread(network):
    """Random weights give nearly flat logits; spread them so that greedy is decisive."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6.0)
    return network
