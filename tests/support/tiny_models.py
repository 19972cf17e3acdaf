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
    torch.manual_seed(0)
    config = CONFIGS[architecture]()
    config._attn_implementation = "eager"
    network = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return _spread(network)


def make_classifier(num_labels, architecture="llama"):
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
