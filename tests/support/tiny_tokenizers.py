"""Tokenizers of all kinds, small: SentencePiece's, and byte-level ones with merges."""

import tokenizers
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

YES = [("▁", "y"), ("▁y", "e"), ("▁ye", "s"), ("y", "e"), ("ye", "s"), ("▁", "4"), ("▁4", "2")]
GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)


def sentencepiece_tokenizer(scheme, bos=True):
    """As SentencePiece's: `legacy` (Llama 2: the normalizer puts a blank first), or Metaspace with
    prepend_scheme `first`, `always` or `never`. Drops the first blank of what it decodes."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for text in ["▁", *map(chr, range(33, 127)), "\n", *(a + b for a, b in YES)]:
        vocabulary.setdefault(text, len(vocabulary))
    for byte in range(256):
        vocabulary.setdefault(f"<0x{byte:02X}>", len(vocabulary))
    bpe = models.BPE(vocabulary, merges=YES, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    backend = tokenizers.Tokenizer(bpe)
    if scheme == "legacy":
        backend.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(
            replacement="▁", prepend_scheme=scheme, split=False
        )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 1)]
        )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def merging_tokenizer(pre_tokenizer=GPT2, added=(), **special_tokens):
    """Byte-level BPE with a few hundred merges, some of which a splitting rule keeps from."""
    text = (
        "The numbers: 4 6 13. It isn't 42, we'll  say\n\nVerdict: likely\n (left: 4 8) don't\t-- x "
    )
    backend = tokenizers.Tokenizer(models.BPE())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=420,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Learned without a rule, so that there are merges over words, which a rule must keep apart.
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.train_from_iterator([text, text.lower(), text[::-1], text.replace(" ", "\n")], trainer)
    backend.pre_tokenizer = pre_tokenizer
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([tokenizers.AddedToken(t, normalized=False) for t in added])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<end>", **special_tokens
    )
