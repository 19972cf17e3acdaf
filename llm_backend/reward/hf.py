"""A Hugging Face sequence classifier as a reward model: it scores an answer to a question.

It keeps no KV: an answer is read whole, in one forward with the others of its batch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch

from treeshare.llm_backend.api import (
    Failure,
    PromptTooLong,
    Reply,
    Reward,
    RewardReply,
    Usage,
    whole_number,
)
from treeshare.llm_backend.model.loading import load_pretrained
from treeshare.llm_backend.model.rotary import chosen_context, fix_rotary

_MARKS = ("\ue000", "\ue001")  # private-use characters, for the texts in a rendered template


class HuggingFaceRewardModel:
    """Scores answers in [0, 1]: by the sigmoid of the only output, or a label's probability.

    The model sees the question and the answer in its tokenizer's chat template, if it has one; else
    as a pair, if it has a separator token (BERT and its kin); else one below the other.

    Args:
        network: as `AutoModelForSequenceClassification` makes it.
        tokenizer: its tokenizer.
        label: index of the output for good answers; None is the only one, or the second of two.
        max_num_seqs: answers in one forward.

    Raises:
        ValueError: `label` is not an output, or not given for more than two; `max_num_seqs` is
            below 1; or the network states no length of its context.
    """

    def __init__(
        self, network: Any, tokenizer: Any, label: int | None = None, max_num_seqs: int = 32
    ) -> None:
        count = network.config.num_labels
        if label is None and count > 2:
            names = network.config.id2label
            raise ValueError(
                f"reward_model.label=null, but it must be one of {count} labels: {names}"
            )
        if label is not None:
            whole_number("reward_model.label", label, 0, count - 1)
        whole_number("reward_model.max_num_seqs", max_num_seqs)
        self._network = network.eval()
        self._tokenizer = tokenizer
        self._label = count - 1 if label is None else label
        self._max_num_seqs = max_num_seqs
        self._special = set(tokenizer.all_special_tokens)
        self._config = network.config.get_text_config()
        self.context_length = min(chosen_context(network, None), tokenizer.model_max_length)
        fix_rotary(network, self.context_length)

    def reward(self, requests: Sequence[Reward]) -> list[Reply]:
        """Score answers; see `RewardModel.reward`."""
        encoded = [self.encode(request) for request in requests]
        lengths = [len(tokens["input_ids"]) for tokens in encoded]
        replies: list[Reply] = [Failure(self._too_long(length)) for length in lengths]
        fitting = [i for i, length in enumerate(lengths) if length <= self.context_length]
        fitting.sort(key=lambda i: lengths[i])  # little padding
        for begin in range(0, len(fitting), self._max_num_seqs):
            batch = fitting[begin : begin + self._max_num_seqs]
            for i, score in zip(batch, self._scores([encoded[i] for i in batch]), strict=True):
                replies[i] = RewardReply(score, Usage(prompt_tokens=lengths[i]))
        return replies

    def encode(self, request: Reward) -> dict[str, list[int]]:
        """Return the network's inputs for a question and an answer, by name."""
        tokenizer, texts = self._tokenizer, (request.question, request.answer)
        names_special = any(name in text for name in self._special for text in texts)
        if tokenizer.chat_template:
            if names_special:
                return self._encode_around(texts)
            return dict(tokenizer.apply_chat_template(_chat(texts), return_dict=True))
        split = {"split_special_tokens": True} if names_special else {}
        if tokenizer.sep_token:
            return dict(tokenizer(*texts, **split))
        return dict(tokenizer("\n".join(texts), **split))

    def _encode_around(self, texts: tuple[str, str]) -> dict[str, list[int]]:
        """Encode a chat whose texts name special tokens; only those of the template are tokens."""
        tokenizer = self._tokenizer
        rendered = tokenizer.apply_chat_template(_chat(_MARKS), tokenize=False)
        ids: list[int] = []
        for piece in re.split(f"([{''.join(_MARKS)}])", rendered):
            is_text = piece in _MARKS
            ids += tokenizer(
                texts[_MARKS.index(piece)] if is_text else piece,
                add_special_tokens=False,
                split_special_tokens=is_text,
            )["input_ids"]
        others = {name: [0] * len(ids) for name in tokenizer.model_input_names}
        return others | {"input_ids": ids, "attention_mask": [1] * len(ids)}

    @torch.inference_mode()
    def _scores(self, batch: list[dict[str, list[int]]]) -> list[float]:
        # A decoder reads its score at the last token that is not the padding token. Padding with
        # the tokenizer's would take tokens of a text for padding (an end token, if the two are
        # one), so a batch is padded with a token that none of its texts has.
        used = {token for tokens in batch for token in tokens["input_ids"]}
        filling = None
        if len(batch) > 1:
            special = set(self._tokenizer.all_special_ids)
            ordinary = (i for i in range(self._config.vocab_size) if i not in special)
            filling = next((token for token in ordinary if token not in used), None)
            if filling is None:
                return [self._scores([tokens])[0] for tokens in batch]
        self._config.pad_token_id = filling  # of one text, the last token is read
        inputs = _padded(batch, 0 if filling is None else filling, self._network.device)
        logits = self._network(**inputs).logits.float()  # [texts, labels]
        is_single = logits.shape[1] == 1
        scores = logits.sigmoid() if is_single else logits.softmax(dim=1)
        good: list[float] = scores[:, self._label].tolist()
        return good

    def _too_long(self, length: int) -> PromptTooLong:
        return PromptTooLong(
            f"a solution of {length} tokens exceeds the reward model's context of "
            f"{self.context_length} tokens"
        )


def _chat(texts: tuple[str, str]) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]


def _padded(
    batch: list[dict[str, list[int]]], filling: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """Pad inputs on the right to [texts, longest], with an attention mask."""
    longest = max(len(tokens["input_ids"]) for tokens in batch)
    ones = ({"attention_mask": [1] * len(tokens["input_ids"])} for tokens in batch)
    rows = [more | tokens for more, tokens in zip(ones, batch, strict=True)]
    return {
        name: torch.tensor(
            [
                row[name] + [filling if name == "input_ids" else 0] * (longest - len(row[name]))
                for row in rows
            ],
            device=device,
        )
        for name in rows[0]
    }


def load_reward_model(
    name: str,
    dtype: str = "float32",
    device: str = "cpu",
    label: int | None = None,
    max_num_seqs: int = 32,
    trust_remote_code: bool = False,
) -> HuggingFaceRewardModel:
    """Load a reward model: a sequence classifier of one output or several.

    Args:
        name: a directory in Hugging Face's format, or an id on the Hugging Face hub.
        dtype: `float32`, `bfloat16` or `float16`.
        device: a device of PyTorch, such as `cpu` or `cuda`.
        label: see `HuggingFaceRewardModel`.
        max_num_seqs: answers in one forward.
        trust_remote_code: run the code that the model's directory holds.

    Raises:
        ValueError: no such model, dtype, device or label, or the model was not trained to classify.
    """
    network, tokenizer = load_pretrained(
        "reward_model",
        "AutoModelForSequenceClassification",
        name,
        dtype,
        device,
        trust_remote_code,
    )
    return HuggingFaceRewardModel(network, tokenizer, label, max_num_seqs)
