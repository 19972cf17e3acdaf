"""Texts to tokens and back: borders of continuations, names of special tokens, BOS, blanks, parts
of characters; and the cut that spares encoding a prompt anew is sound."""

import random

import pytest
import tokenizers
import transformers
from tiny_models import byte_tokenizer
from tiny_tokenizers import GPT2, merging_tokenizer, sentencepiece_tokenizer
from tokenizers import pre_tokenizers

import treeshare.llm_backend.model.tokenizer as module
from treeshare.llm_backend.model.tokenizer import _WORDWISE, Tokenizer, TokenizerError

SCHEMES = ["legacy", "first", "always", "never"]


def make(tokenizer, num_ids=None):
    return Tokenizer(tokenizer, num_ids or len(tokenizer))


def plain(tokenizer, text):
    return tuple(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))


def split_rule(pattern):
    split = pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([split, level])


# Continuations.


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("prompt", ["a:", "a: ", "a 4", "a\n", "Move ("])
@pytest.mark.parametrize(
    "texts", [("4",), ("42", " 4"), ("yes", " yes"), (" 42", "2", "b 4"), ("\n4", "no", " ")]
)
def test_what_is_scored_is_the_rest_of_prompt_and_continuation(scheme, prompt, texts):
    tokenizer = sentencepiece_tokenizer(scheme)
    start, ends = make(tokenizer).encode_continuations(prompt, texts)
    wholes = [tokenizer.encode(prompt + text) for text in texts]
    assert [[*start, *end] for end in ends] == wholes
    begun = tokenizer.encode(prompt)
    assert [*start] == begun[: len(start)]
    # The start is the longest: with one token more, some text or the prompt has another.
    assert len({tuple(tokens[: len(start) + 1]) for tokens in (begun, *wholes)}) > 1


def test_all_continuations_have_one_start():
    """` 4` and `b` after `a: `: the prompt's blank is scored with both, or their scores could not
    be compared."""
    tokenizer = make(sentencepiece_tokenizer("legacy"))
    start, (four, b) = tokenizer.encode_continuations("a: ", ["4", "b"])
    assert tokenizer.decode(start[1:]) == " a:"
    assert tokenizer.decode(four) == " 4" and tokenizer.decode(b) == " b"
    (alone,) = tokenizer.encode_continuations("a: ", ["b"])[1]
    assert tokenizer.decode(alone) == "b"


def test_a_continuation_without_tokens_is_named():
    class Stripping(transformers.PreTrainedTokenizerFast):
        def __call__(self, texts, **options):
            stripped = texts.strip() if isinstance(texts, str) else [text.strip() for text in texts]
            return super().__call__(stripped, **options)

    tokenizer = make(Stripping(tokenizer_object=byte_tokenizer().backend_tokenizer))
    with pytest.raises(TokenizerError, match=r"the continuation ' ' adds no token to the prompt"):
        tokenizer.encode_continuations("a:", ["b", " "])


def test_a_prompt_whose_only_token_changes_is_refused():
    tokenizer = sentencepiece_tokenizer("never", bos=False)
    with pytest.raises(TokenizerError, match="the prompt's first token changes"):
        make(tokenizer).encode_continuations("y", ["es"])
    start, ends = make(sentencepiece_tokenizer("never")).encode_continuations("y", ["es"])
    assert (len(start), len(ends[0])) == (1, 1)  # BOS, and `yes` after it


# The cut.

PHRASES = [
    "The numbers",
    ": ",
    "4",
    "13",
    " 6",
    "\n",
    "\n\n",
    " ",
    "  ",
    "isn't",
    "we'll ",
    "'s",
    "x",
]
PHRASES += [
    "(left: 4 8)",
    "\t",
    "-- ",
    "é",
    "日 本",
    " \u0301",
    "\u00a0",
    "\u2028",
    "Verdict:",
    "<end>",
]
RULES = {
    "GPT-2": GPT2,
    **{f"rule {i}": split_rule(rule) for i, rule in enumerate(sorted(_WORDWISE))},
}
RULES["digits"] = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), GPT2])
RULES["prefix"] = pre_tokenizers.ByteLevel(add_prefix_space=True)


@pytest.mark.parametrize("rule", RULES)
def test_a_cut_changes_no_token(rule):
    hf = merging_tokenizer(RULES[rule], added=["numbers: 4", "likely", "x  ("])
    if rule != "GPT-2":
        hf.backend_tokenizer.normalizer = tokenizers.normalizers.NFC()
    tokenizer, rng, num_cut = make(hf), random.Random(0), 0
    pairs = [
        ("we'll say numbers: ", "4 6"),  # an added token over the cut
        ("we'll say numbers:", " 4 6"),
        ("we'll say numbers: 4", " 6"),
        ("The numbers: 4 6\nVerdict:", " likely"),
    ]
    for _ in range(250):
        texts = ("".join(rng.choices(PHRASES, k=rng.randint(1, 7))) for _ in range(2))
        pairs.append((next(texts), next(texts)))
    for prompt, text in pairs:
        at = tokenizer.safe_cut(prompt)
        num_cut += at > 0
        left = plain(hf, prompt[:at])
        for whole in (prompt, prompt + text):
            assert left + plain(hf, whole[at:]) == plain(hf, whole)
    assert num_cut > 100


def test_a_cut_is_near_the_end_and_outside_added_tokens():
    tokenizer = make(merging_tokenizer(added=["numbers: 4"]))
    assert tokenizer.safe_cut("Say it.\nVerdict: likely") == len("Say it.\nVerdict:")
    assert tokenizer.safe_cut("x. ") == len("x.")
    assert tokenizer.safe_cut("x: ") == 0  # `numbers: 4` may be on its way
    assert tokenizer.safe_cut("numbers: ") == tokenizer.safe_cut("numbers: 42") == 0
    assert (
        tokenizer.safe_cut("verdict") == tokenizer.safe_cut(" a") == tokenizer.safe_cut("é b") == 0
    )


@pytest.mark.parametrize(
    "change",
    [
        {"pre_tokenizer": pre_tokenizers.Whitespace()},
        {"pre_tokenizer": split_rule(r"\w+ \w+|.")},
        {"pre_tokenizer": pre_tokenizers.ByteLevel(use_regex=False)},
        {"normalizer": tokenizers.normalizers.NFKC()},
        {"normalizer": tokenizers.normalizers.Replace("x ", "y")},
        {"normalizer": tokenizers.normalizers.Sequence([tokenizers.normalizers.NFKC()])},
    ],
    ids=str,
)
def test_no_cut_where_none_is_known_to_be_sound(change):
    tokenizer = merging_tokenizer()
    for name, part in change.items():
        setattr(tokenizer.backend_tokenizer, name, part)
    assert make(tokenizer).safe_cut("a b c d") == 0
    greedy = merging_tokenizer()
    greedy.backend_tokenizer.add_tokens([tokenizers.AddedToken("<x>", rstrip=True)])
    assert make(greedy).safe_cut("a b c d") == 0
    assert make(sentencepiece_tokenizer("first")).safe_cut("a b c d") == 0


@pytest.mark.parametrize("steps", [[], [tokenizers.normalizers.NFC()]], ids=str)
def test_cut_behind_normalizers_that_join_no_blank(steps):
    """transformers before 5.23 gives SmolLM2 an empty sequence of normalizers."""
    tokenizer = merging_tokenizer()
    tokenizer.backend_tokenizer.normalizer = tokenizers.normalizers.Sequence(steps)
    assert make(tokenizer).safe_cut("a b c d") == len("a b c")


def test_models_of_ours_are_cut(smollm2):
    from treeshare.llm_backend.model.model import load_model

    for model in (smollm2, load_model("embedded")):
        assert model.tokenizer.safe_cut("Numbers: 4 6\nVerdict:") == len("Numbers: 4")


# Texts that follow others.


@pytest.mark.parametrize(
    "text", ["Step:", " 4 2", "42", "\n", "\n\na", ".", "  x", "<end> é", "</s>"]
)
@pytest.mark.parametrize("before", ["a", "a:", "a\n", "It is 4"])
@pytest.mark.parametrize("scheme", [*SCHEMES, "merging"])
def test_a_text_that_follows_another_is_encoded_without_what_begins_one(scheme, before, text):
    is_merging = scheme == "merging"
    tokenizer = make(merging_tokenizer() if is_merging else sentencepiece_tokenizer(scheme))
    tokens = tokenizer.encode_after(text)
    assert tokenizer.decode(tokens) == text
    assert tokenizer.hf.bos_token_id not in tokens and tokenizer.hf.eos_token_id not in tokens
    whole = tokenizer.encode(before) + tokens
    assert tokenizer.decode(whole).endswith(before + text)


def test_a_text_in_which_names_are_tokens_gets_no_others():
    tokenizer = make(sentencepiece_tokenizer("first"))
    assert tokenizer.special_tokens == {1: "<s>", 2: "</s>"}
    tokens = tokenizer.encode_marked("<s>a</s>b")
    assert tokens[0] == 1 and tokens.count(1) == tokens.count(2) == 1
    assert 1 not in tokenizer.encode_marked("a")
    with pytest.raises(TokenizerError, match="half of a surrogate pair"):
        tokenizer.encode_marked("\ud83d")
    with pytest.raises(TokenizerError, match="token 257 of the text is none of the model's 256"):
        make(byte_tokenizer(), 256).encode_marked("a<end>")


# Special tokens.


@pytest.mark.parametrize("name", ["<end>", "<sep>", "<pad>"])
def test_names_of_special_tokens_are_text(name):
    tokenizer = make(byte_tokenizer(additional_special_tokens=["<sep>"], pad_token="<pad>"), 260)
    tokens = tokenizer.encode(f"What does {name} mean?{name}")
    assert max(tokens) < 256 and tokenizer.decode(tokens) == f"What does {name} mean?{name}"
    _, (end,) = tokenizer.encode_continuations("It is ", [name])
    assert max(end) < 256


@pytest.mark.parametrize("scheme", SCHEMES)
def test_names_are_text_to_sentencepiece_and_bos_comes_once(scheme):
    tokenizer = make(sentencepiece_tokenizer(scheme))
    tokens = tokenizer.encode("a </s> b <s> c")
    assert tokens[0] == 1 and not {1, 2} & {*tokens[1:]}
    assert tokenizer.encode("<s>a </s> b <s> c") == tokens
    assert tokenizer.encode("<s>") == tokenizer.encode("") == (1,)
    twice = tokenizer.encode("<s><s>a")
    assert twice[0] == 1 and 1 not in twice[1:] and len(twice) > 3
    start, ends = tokenizer.encode_continuations("<s>a:", [" b", " c"])
    assert (start, ends) == tokenizer.encode_continuations("a:", [" b", " c"])
    spelled, _ = tokenizer.encode_continuations("<", ["s>a"])  # BOS neither, over the border
    assert 1 not in spelled[1:]


def test_bos_is_text_where_the_tokenizer_puts_none():
    tokenizer = make(sentencepiece_tokenizer("first", bos=False))
    assert 1 not in tokenizer.encode("<s>a")


def test_what_a_tokenizer_puts_after_a_text_does_not_end_a_prompt():
    hf = sentencepiece_tokenizer("first")
    hf.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    assert make(hf).encode("a b") == make(sentencepiece_tokenizer("first")).encode("a b")


def test_a_name_that_cannot_be_split_is_refused():
    """Unigram finds names in its vocabulary, whatever is split before."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((chr(i), -5.0) for i in range(32, 127))]
    backend = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=0))
    hf = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", unk_token="<unk>"
    )
    tokenizer = make(hf)
    with pytest.raises(TokenizerError, match=r"the text names '</s>'"):
        tokenizer.encode("a </s> b")
    good, bad = tokenizer.encode_all(["a b é", "</s>"])
    assert good[-1] == 0 and isinstance(bad, TokenizerError)


# Bad texts.


@pytest.mark.parametrize("text", ["bad \ud800 text", "\udfff", "a\ud83d"])
def test_half_a_surrogate_pair_is_named(text):
    tokenizer = make(byte_tokenizer(), 260)
    with pytest.raises(
        TokenizerError, match=r"the text holds '\\ud.{3}' at \d: half of a surrogate"
    ):
        tokenizer.encode(text)
    with pytest.raises(TokenizerError, match="half of a surrogate"):
        tokenizer.encode_continuations("a", ["b", text])
    first, second, third = tokenizer.encode_all(["a", text, "b"])
    assert (first, third) == (tokenizer.encode("a"), tokenizer.encode("b"))
    assert isinstance(second, TokenizerError)


def test_ids_beyond_the_embedding_are_named():
    hf = byte_tokenizer()
    hf.add_tokens(["<1>", "<2>", "<3>", "<4>", "<far>"])
    with pytest.raises(TokenizerError, match=r"token 26\d .* none of the model's 260 embeddings"):
        make(hf, 260).encode("a <far> b")


@pytest.mark.parametrize("error", [RuntimeError("a\nb"), TypeError("c"), BaseException("a panic")])
def test_what_a_tokenizer_raises_is_of_its_text_alone(error):
    class Raising(transformers.PreTrainedTokenizerFast):
        def __call__(self, texts, **options):
            if "!" in str(texts):
                raise error
            return super().__call__(texts, **options)

        def decode(self, tokens, **options):
            if 3 in tokens:
                raise error
            return super().decode(tokens, **options)

    tokenizer = make(Raising(tokenizer_object=byte_tokenizer().backend_tokenizer), 260)
    first, second = tokenizer.encode_all(["a", "b!"])
    assert len(first) == 1 and "the tokenizer failed" in str(second) and "\n" not in str(second)
    with pytest.raises(TokenizerError, match="the tokenizer failed"):
        tokenizer.decode([3])


def test_an_interrupt_is_no_failure_of_a_text():
    class Interrupted(transformers.PreTrainedTokenizerFast):
        def __call__(self, texts, **options):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(Interrupted(tokenizer_object=byte_tokenizer().backend_tokenizer)).encode("a")


# Decoding.


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_reply_keeps_its_first_blank(scheme):
    hf = sentencepiece_tokenizer(scheme)
    tokenizer = make(hf)
    _, (end,) = tokenizer.encode_continuations("a:", [" yes 42 b"])
    assert hf.decode(end) == "yes 42 b"
    assert tokenizer.decode(end) == " yes 42 b"
    assert tokenizer.decode([]) == ""


def test_special_tokens_are_written_out_and_join_no_text():
    tokenizer = make(byte_tokenizer(additional_special_tokens=["<sep>"]), 260)
    hi = tokenizer.encode("hi")
    assert tokenizer.decode([*hi, 259, *hi]) == "hi<sep>hi"
    half, rest = tokenizer.encode("é")
    assert tokenizer.decode([half, 259, rest]) == "\ufffd<sep>\ufffd"
    assert tokenizer.may_close(259, ("<sep>",))


def test_spaces_that_a_tokenizer_would_drop_are_kept():
    hf = byte_tokenizer()
    hf.clean_up_tokenization_spaces = True
    assert make(hf, 260).decode(make(hf, 260).encode("a . b 's")) == "a . b 's"


BOTH = [byte_tokenizer, lambda: sentencepiece_tokenizer("first"), merging_tokenizer]


@pytest.mark.parametrize("kind", BOTH, ids=["bytes", "byte fallback", "merges"])
@pytest.mark.parametrize(
    "text", ["hi 🛑", "🛑🛑", "é", "日本", " \ufffd", "a\ufffd\ufffd", "x🛑\ufffd"]
)
def test_a_character_that_is_cut_is_left_out(kind, text):
    """At every token: the whole characters, and U+FFFD only where it was written."""
    tokenizer = make(kind(), 1000)
    tokens = tokenizer.encode_continuations("a", [text])[1][0]
    wholes = {"".join(text[:count]) for count in range(len(text) + 1)}
    for count in range(1, len(tokens) + 1):
        decoded = tokenizer.decode(tokens[:count], is_cut=True)
        assert decoded in wholes
    assert decoded == text


def test_a_token_that_ends_within_a_character_keeps_the_rest():
    vocabulary = {char: i for i, char in enumerate(sorted(GPT2.alphabet()))}
    vocabulary["Ġð"] = 256  # a blank, and the first byte of four
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [("Ġ", "ð")]))
    backend.pre_tokenizer, backend.decoder = GPT2, tokenizers.decoders.ByteLevel()
    tokenizer = make(transformers.PreTrainedTokenizerFast(tokenizer_object=backend))
    tokens = tokenizer.encode("hi 🛑")
    assert tokens[2] == 256
    assert [tokenizer.decode(tokens[:n], is_cut=True) for n in range(2, 7)] == [
        *("hi", "hi ", "hi ", "hi ", "hi 🛑")
    ]


def test_few_texts_are_remembered_and_encoded_alike(monkeypatch):
    monkeypatch.setattr(module, "REMEMBERED", 4)
    tokenizer = make(byte_tokenizer(), 260)
    texts = ["ab", "", "c", "ab", "dcba", "e", "f", "g"]
    encoded = tokenizer.encode_all(texts)
    assert encoded == [tuple(byte_tokenizer().encode(text)) for text in texts]
    assert [tokenizer.encode(text) for text in texts] == encoded
    assert tokenizer.num_remembered <= 4
    assert tokenizer.encode_all([]) == []
