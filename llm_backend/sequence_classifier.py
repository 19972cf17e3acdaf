"""A Hugging Face sequence classifier as a reward model: a question and an answer in, a score out.

It keeps no KV and shares none: an answer is read whole in one forward with the others of its batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .api import Classify, ClassifyReply, Failure, PromptTooLong, Reply, Usage
from .pretrained import load_pretrained


class SequenceClassifier:
    """Scores in [0, 1]: the sigmoid of the only output, or the probability of the good label.

    The model sees the question and the answer in its tokenizer's chat template, if it has one; else
    as a pair, if it has a separator token (BERT and its kin); else one below the other.

    Args:
        network: as `AutoModelForSequenceClassification` makes it.
        tokenizer: its tokenizer. Without a padding token each answer has a forward of its own.
        label: index of the output that means good; None is the only one, or the second of two.
        max_batch: answers in one forward.

    Raises:
        ValueError: `label` is none of the outputs, or not given for more than two; or `max_batch`
            is below 1.
    """

    def __init__(
        self, network: Any, tokenizer: Any, label: int | None = None, max_batch: int = 32
    ) -> None:
        count = network.config.num_labels
        if label is None and count > 2:
            names = network.config.id2label
            raise ValueError(
                f"classifier.label=null, but it must be one of {count} labels: {names}"
            )
        if label is not None and not 0 <= label < count:
            raise ValueError(f"classifier.label={label} must be from 0 to {count - 1}")
        if max_batch < 1:
            raise ValueError(f"classifier.max_batch={max_batch} must be at least 1")
        self._network = network.eval()
        self._tokenizer = tokenizer
        self._label = count - 1 if label is None else label
        self._max_batch = 1 if tokenizer.pad_token_id is None else max_batch
        network.config.pad_token_id = tokenizer.pad_token_id  # where the network finds the end
        positions = network.config.get_text_config().max_position_embeddings
        self.context_length: int = min(positions, tokenizer.model_max_length)

    def classify(self, requests: Sequence[Classify]) -> list[Reply]:
        encoded = [self._encode(request) for request in requests]
        lengths = [len(tokens["input_ids"]) for tokens in encoded]
        replies: list[Reply] = [Failure(self._too_long(length)) for length in lengths]
        fitting = [i for i, length in enumerate(lengths) if length <= self.context_length]
        fitting.sort(key=lambda i: lengths[i])  # little padding
        for begin in range(0, len(fitting), self._max_batch):
            batch = fitting[begin : begin + self._max_batch]
            for i, score in zip(batch, self._scores([encoded[i] for i in batch]), strict=True):
                replies[i] = ClassifyReply(score, Usage(prompt_tokens=lengths[i]))
        return replies

    def _encode(self, request: Classify) -> dict[str, list[int]]:
        tokenizer = self._tokenizer
        if tokenizer.chat_template:
            turns = [("user", request.question), ("assistant", request.answer)]
            chat = [{"role": role, "content": content} for role, content in turns]
            return dict(tokenizer.apply_chat_template(chat, tokenize=True, return_dict=True))
        if tokenizer.sep_token:
            return dict(tokenizer(request.question, request.answer))
        return dict(tokenizer(f"{request.question}\n{request.answer}"))

    @torch.inference_mode()
    def _scores(self, batch: list[dict[str, list[int]]]) -> list[float]:
        if len(batch) > 1:
            padded = self._tokenizer.pad(batch, padding_side="right", return_tensors="pt")
        else:
            padded = {name: torch.tensor([ids]) for name, ids in batch[0].items()}
        inputs = {name: ids.to(self._network.device) for name, ids in padded.items()}
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


def load_classifier(
    name: str,
    dtype: str = "float32",
    device: str = "cpu",
    label: int | None = None,
    max_batch: int = 32,
) -> SequenceClassifier:
    """Load a reward model: a sequence classifier of one output or several.

    Args:
        name: a directory in Hugging Face's format, or an id on the Hugging Face hub.
        dtype: `float32`, `bfloat16` or `float16`.
        device: as PyTorch names it.
        label: see `SequenceClassifier`.
        max_batch: answers in one forward.

    Raises:
        ValueError: no such model, dtype, device or label, or the model was not trained to classify.
    """
    network, tokenizer = load_pretrained(
        "classifier", "AutoModelForSequenceClassification", name, dtype, device
    )
    return SequenceClassifier(network, tokenizer, label, max_batch)
