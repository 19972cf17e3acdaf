"""Text to token ids and back, for any Hugging Face tokenizer, with the rules that requests need.

A prompt's text is text: names of special tokens in it are read letter by letter, except in what a
chat template renders. A reply's text is what the tokens add to the text before them, with the names
of special tokens. Whatever a tokenizer raises becomes a `TokenizerError`.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Container, Sequence
from functools import cache, cached_property, lru_cache
from typing import Any, TypeVar

import tokenizers

Ids = tuple[int, ...]
"""Token ids of a text."""
_T = TypeVar("_T")

REMEMBERED = 8192
"""Texts whose tokens are kept at most; at least the latest half of them stays."""
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # a byte's token in SentencePiece's vocabularies

# Splitting rules of byte-level BPE under which a visible ASCII character and a blank after it are
# never one piece: no alternative matches both, and none looks beyond the blank.
_WORDWISE = frozenset(
    [
        # GPT-2, also written out.
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        # Llama 3 (cl100k).
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        # Qwen 2 and 3.
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        # Our own embedded model (small_llama.py).
        r" ?[0-9]{1,2}(?=(?:[0-9]{2})*(?![0-9]))| ?[A-Za-z]+:?| ?[^\sA-Za-z0-9]|\s",
    ]
)


class TokenizerError(ValueError):
    """A text that has no tokens a model could read, or tokens that have no text."""


class Tokenizer:
    """A Hugging Face tokenizer as engines use it.

    A prompt gets the special tokens that its tokenizer puts before a text (BOS), once. If there are
    any, a prompt that begins with the name of BOS has the same tokens as one without it; no other
    name of a special token is read as the token.

    Args:
        tokenizer: as `AutoTokenizer` makes it.
        num_ids: embeddings of the model, which token ids must stay below.

    Attributes:
        hf: the Hugging Face tokenizer.
    """

    def __init__(self, tokenizer: Any, num_ids: int) -> None:
        self.hf = tokenizer
        self._num_ids = num_ids
        self._known: dict[str, Ids] = {}  # by text, without special tokens; the latest last
        self._decoded = lru_cache(maxsize=REMEMBERED)(self._text)
        self._closing = cache(self._closing_tokens)

    @property
    def num_remembered(self) -> int:
        """Texts whose tokens are kept."""
        return len(self._known)

    @cached_property
    def special_tokens(self) -> dict[int, str]:
        """The special tokens with a name of more than one character, by id.

        The token for unknown characters is not among them, since a text may need it.
        """
        return self._call(self._special_tokens)

    @property
    def vocabulary(self) -> dict[str, int]:
        """Ids by token."""
        vocabulary: dict[str, int] = self.hf.get_vocab()
        return vocabulary

    def encode(self, text: str) -> Ids:
        """Return the token ids of a prompt, with the special tokens that are put before one.

        Raises:
            TokenizerError: the text cannot be encoded (a lone surrogate, for example), or an id is
                none of the model's, or the tokenizer makes a special token of its name in the text.
        """
        return self._opening + self._lookup([self._body(text)])[0]

    def encode_all(self, texts: Sequence[str]) -> list[Ids | TokenizerError]:
        """Encode several prompts as `encode` does; a fast tokenizer spreads them over the cores.

        The error of a prompt that cannot be encoded stands in its place.
        """
        try:
            bodies = self._lookup([self._body(text) for text in texts])
            return [self._opening + body for body in bodies]
        except TokenizerError:
            return [self._encode_or_error(text) for text in texts]

    def encode_continuations(self, prompt: str, texts: Sequence[str]) -> tuple[Ids, list[Ids]]:
        """Return the tokens by which texts that follow one prompt are scored.

        Returns:
            The longest start that the tokens of the prompt and of prompt + text, for every text,
            have in common; and for each text the tokens of prompt + text beyond it.

        Raises:
            TokenizerError: as of `encode`; or a text adds no token; or there is no common start.
        """
        body = self._body(prompt)
        tail = body[self.safe_cut(body) :]
        whole, begun, *ends = self._lookup([body, tail, *(tail + text for text in texts)])
        shared = min(_common_length(begun, end) for end in ends)
        for text, end in zip(texts, ends, strict=True):
            if end == begun or len(end) == shared:
                raise TokenizerError(f"the continuation {text!r} adds no token to the prompt")
        start = (self._opening + whole)[: len(self._opening) + len(whole) - len(begun) + shared]
        if not start:
            raise TokenizerError(
                "the prompt's first token changes with what follows it, so that nothing is left to "
                "score a continuation after"
            )
        return start, [end[shared:] for end in ends]

    def encode_after(self, text: str) -> Ids:
        """Return the tokens of a text that follows another one and is not joined to its end.

        It gets no tokens in front: neither BOS, nor the blank that SentencePiece puts before a
        text's first word.

        Raises:
            TokenizerError: as of `encode`.
        """
        before = "a" if text[:1].isspace() else "\n"  # no tokenizer joins these to what follows
        start, whole = self._lookup([before, before + text])
        if whole[: len(start)] == start:
            return whole[len(start) :]
        return self._lookup([text])[0]

    def encode_marked(self, text: str) -> Ids:
        """Return the tokens of a text in which each name of a special token stands for the token.

        It gets no further special tokens. The text must not be a user's.

        Raises:
            TokenizerError: the text cannot be encoded, or an id is none of the model's.
        """
        _check_characters(text)
        ids = tuple(self._call(lambda: self.hf(text, add_special_tokens=False)["input_ids"]))
        self._check_range(ids)
        return ids

    def safe_cut(self, body: str) -> int:
        """Return a place to cut a prompt so that its tokens are those of both parts.

        No token before it depends on what follows the prompt, and no token crosses it. It lies
        between a visible ASCII character and a blank (`_WORDWISE`), outside every text that is an
        added token, also one that ends in what follows the prompt.

        Args:
            body: the prompt, without the name of a BOS token at its start.

        Returns:
            The place nearest to the end that is known to be safe; 0 if none is known.
        """
        if self._wide is None:
            return 0
        at = len(body)
        while (at := body.rfind(" ", 0, at)) > 0:
            if "!" <= body[at - 1] <= "~":
                break
        if at <= 0:
            return 0
        end = body[at - 1 :]
        for name in self._wide:
            around = body[max(0, at - len(name) + 1) : at + len(name) - 1]
            if end in name or name in around:
                return 0
        return at

    def decode(self, tokens: Sequence[int], *, is_cut: bool = False) -> str:
        """Return the text that tokens add to the text before them.

        It has its first blank, which some tokenizers drop, and the names of special tokens.

        Args:
            tokens: ids.
            is_cut: whether a limit ended them. Then a character is left out if only some of its
                bytes are there; otherwise U+FFFD stands for it, as for bytes that are no text.

        Raises:
            TokenizerError: the tokenizer cannot decode them.
        """
        kept = tuple(tokens)
        num_loose = self._num_loose_bytes(kept[-4:]) if is_cut else 0
        while num_loose and num_loose >= (size := len(self._bytes(kept[-1]))):
            kept, num_loose = kept[:-1], num_loose - size
        text = self._decoded(kept)  # short replies come again and again
        return text[:-1] if num_loose else text  # U+FFFD for the end of a token that holds more

    def may_close(self, token: int, stop: tuple[str, ...]) -> bool:
        """Whether a token may complete one of the strings `stop` in the text that it ends.

        It is a fast check before decoding: False means that the token cannot complete one.
        """
        return token in self._closing(_last_characters(stop))

    # Encoding.

    @cached_property
    def _opening(self) -> Ids:
        """The special tokens that the tokenizer puts before a text."""
        whole: Ids = self._call(lambda: tuple(self.hf("a")["input_ids"]))
        (plain,) = self._plain(["a"])
        for begin in range(len(whole) - len(plain) + 1):
            if whole[begin : begin + len(plain)] == plain:
                return whole[:begin]
        raise TokenizerError("the tokenizer puts special tokens into a text, not before it")

    def _special_tokens(self) -> dict[int, str]:
        tokenizer = self.hf
        added = tokenizer.added_tokens_decoder
        named = {number: str(token) for number, token in added.items() if token.special}
        named |= zip(tokenizer.all_special_ids, map(str, tokenizer.all_special_tokens), strict=True)
        if tokenizer.unk_token_id != tokenizer.eos_token_id:
            named.pop(tokenizer.unk_token_id, None)
        return {number: name for number, name in named.items() if len(name) > 1}

    def _body(self, text: str) -> str:
        """Drop the name of BOS at a text's start, if the tokenizer puts BOS there itself."""
        opening = self._opening
        if opening and opening[0] == self.hf.bos_token_id:
            return text.removeprefix(str(self.hf.bos_token))
        return text

    def _encode_or_error(self, text: str) -> Ids | TokenizerError:
        try:
            return self.encode(text)
        except TokenizerError as error:
            return error

    def _lookup(self, texts: Sequence[str]) -> list[Ids]:
        """Return the tokens of texts, without special tokens around them."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known |= zip(new, self._plain(new), strict=True)
        encoded = [self._known[text] for text in texts]
        if len(self._known) > REMEMBERED:
            self._known = dict(list(self._known.items())[-(REMEMBERED // 2) :])
        return encoded

    def _plain(self, texts: Sequence[str]) -> list[Ids]:
        for text in texts:
            _check_characters(text)
        # With this option a tokenizer that is not fast reads no added token at all.
        names = self.special_tokens.values()
        splits = self.hf.is_fast or any(name in text for text in texts for name in names)
        return self._call(lambda: self._ids(texts, splits))

    def _ids(self, texts: Sequence[str], splits: bool) -> list[Ids]:
        rows: list[Ids] = [
            tuple(ids)
            for ids in self.hf(list(texts), add_special_tokens=False, split_special_tokens=splits)[
                "input_ids"
            ]
        ]
        for ids in rows:
            self._check_range(ids)
            if not self.special_tokens.keys().isdisjoint(ids):
                names = (self.special_tokens.get(token) for token in ids)
                name = next(filter(None, names))
                raise TokenizerError(f"the text names {name!r}, which the tokenizer cannot split")
        return rows

    def _check_range(self, ids: Ids) -> None:
        if ids and not 0 <= min(ids) <= max(ids) < self._num_ids:
            beyond = next(token for token in ids if not 0 <= token < self._num_ids)
            raise TokenizerError(
                f"token {beyond} of the text is none of the model's {self._num_ids} embeddings"
            )

    # Places to cut a prompt so that its tokens are those of both parts.

    @cached_property
    def _wide(self) -> list[str] | None:
        """Added tokens in which a blank follows a visible character; None if no cut is safe."""
        backend = getattr(self.hf, "backend_tokenizer", None)
        if not isinstance(backend, tokenizers.Tokenizer):
            return None
        normalizer, before, model = backend.normalizer, backend.pre_tokenizer, backend.model
        if not isinstance(model, tokenizers.models.BPE) or model.dropout or before is None:
            return None
        # NFC never joins a blank to what stands before it.
        if normalizer is not None and not _is_nfc(json.loads(normalizer.__getstate__())):
            return None
        if not _is_wordwise(json.loads(before.__getstate__())):
            return None
        added = backend.get_added_tokens_decoder().values()
        if any(t.lstrip or t.rstrip or t.single_word for t in added if not t.special):
            return None  # these absorb the blanks around them
        return [token.content for token in added if re.search("[!-~] ", token.content)]

    # Decoding.

    @cached_property
    def _anchor(self) -> tuple[Ids, str]:
        """Tokens, and their text, after which others are decoded.

        Tokenizers that write a blank before each word drop it before a text's first word.
        """
        (ids,) = self._plain(["a"])
        text = self._raw_text(ids)
        return (ids, text) if self._raw_text(ids + ids).startswith(text) else ((), "")

    def _text(self, tokens: Ids) -> str:
        before, text = self._anchor
        return self._raw_text(before + tokens).removeprefix(text)

    def _raw_text(self, tokens: Ids) -> str:
        # By default some tokenizers drop blanks before punctuation that the model wrote.
        return self._call(
            lambda: str(self.hf.decode(list(tokens), clean_up_tokenization_spaces=False))
        )

    def _num_loose_bytes(self, tokens: Ids) -> int:
        """Count the bytes at the end of tokens that begin a character and do not end it."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        decoder.decode(b"".join(map(self._bytes, tokens)))
        return len(decoder.getstate()[0])

    def _bytes(self, token: int) -> bytes:
        """Return the bytes that a token stands for; blanks need not be right."""
        name = self._call(lambda: self.hf.convert_ids_to_tokens(token)) or ""
        if self._is_byte_level and all(character in _BYTES for character in name):
            return bytes(_BYTES[character] for character in name)
        if byte := _BYTE.fullmatch(name):
            return bytes.fromhex(byte[1])
        return str(name).encode(errors="replace")

    @cached_property
    def _is_byte_level(self) -> bool:
        backend = getattr(self.hf, "backend_tokenizer", None)
        decoder = getattr(backend, "decoder", None)
        return decoder is not None and b'"ByteLevel"' in decoder.__getstate__()

    def _closing_tokens(self, characters: frozenset[str]) -> Container[int]:
        """Return the tokens that may complete one of the characters."""
        vocabulary = range(self._num_ids)
        if any(character.isspace() and character != "\n" for character in characters):
            return vocabulary  # tokenizers add and drop blanks as they join tokens
        highest = max(self.vocabulary.values(), default=-1)  # there may be more than tokens
        ids = range(min(self._num_ids, highest + 1))
        texts: list[str] = self._call(
            lambda: self.hf.batch_decode(
                [[token] for token in ids], clean_up_tokenization_spaces=False
            )
        )
        wanted = characters | {"\N{REPLACEMENT CHARACTER}"}  # for parts of a character
        return frozenset(
            token for token, text in zip(ids, texts, strict=True) if not wanted.isdisjoint(text)
        )

    def _call(self, work: Callable[[], _T]) -> _T:
        """Run code of the tokenizer; any failure there concerns this text alone.

        Raises:
            TokenizerError: it failed. A panic of its Rust code derives from BaseException.
        """
        try:
            return work()
        except (TokenizerError, KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except BaseException as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise TokenizerError(f"the tokenizer failed: {reason}") from error


def _check_characters(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        at = error.start
        raise TokenizerError(
            f"the text holds {text[at]!r} at {at}: half of a surrogate pair, which is no character"
        ) from error


def _is_nfc(state: dict[str, Any]) -> bool:
    """Whether a normalizer (its saved state) does nothing but NFC, or nothing at all."""
    steps = state["normalizers"] if state["type"] == "Sequence" else [state]
    return all(step["type"] == "NFC" for step in steps)


def _is_wordwise(state: dict[str, Any]) -> bool:
    """Whether a pre-tokenizer (its saved state) splits by a rule of `_WORDWISE`.

    It may split the pieces further.
    """
    steps = state["pretokenizers"] if state["type"] == "Sequence" else [state]
    has_rule = False
    for step in steps:
        if step["type"] == "Split":
            is_plain = step["behavior"] == "Isolated" and not step["invert"]
            if not is_plain or step["pattern"].get("Regex") not in _WORDWISE:
                return False
            has_rule = True
        elif step["type"] == "ByteLevel":
            has_rule = has_rule or step["use_regex"]
        elif step["type"] != "Digits":
            return False
    return has_rule


@cache
def _last_characters(texts: tuple[str, ...]) -> frozenset[str]:
    return frozenset(text[-1] for text in texts)


def _common_length(one: Ids, other: Ids) -> int:
    length = min(len(one), len(other))
    if one[:length] == other[:length]:  # as a rule
        return length
    return next(i for i in range(length) if one[i] != other[i])


def _byte_of_character() -> dict[str, int]:
    """Return the byte of each character that byte-level vocabularies write bytes with (GPT-2)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    moved = {chr(256 + i): byte for i, byte in enumerate(others)}
    return {chr(byte): byte for byte in plain} | moved


_BYTES = _byte_of_character()
