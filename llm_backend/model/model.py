"""A language model as engines take it: tokenizer, network, chat format, attention to run on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from treeshare.llm_backend.api import whole_number
from treeshare.llm_backend.chat.format import ChatFormat

from .attention import BACKENDS, AttentionBackend, make_backend
from .device import AUTO, gpu_of
from .loading import BUILT_IN, EMBEDDED, load_pretrained
from .network import OWN_ATTENTION, Network
from .tokenizer import Tokenizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Model:
    """A tokenizer and a network.

    Args:
        tokenizer: turns text into token ids and back.
        network: weights and forward.
        attention: the attention backend that the tree engine makes: one of `attention.BACKENDS`,
            or `auto`: `deft` on a GPU that runs our kernels, if the network runs on it, else
            `torch`.
        chat: the format in which conversations are asked; None reads every prompt as plain text.

    Raises:
        ValueError: there is no such attention backend.
    """

    tokenizer: Tokenizer
    network: Network
    attention: str = "torch"
    chat: ChatFormat | None = None

    def __post_init__(self) -> None:
        if self.attention not in (AUTO, *BACKENDS):
            known = ", ".join((AUTO, *BACKENDS))
            raise ValueError(f"model.attention={self.attention!r} is not one of {known}")

    def make_attention(self) -> AttentionBackend:
        """Make the attention backend, on which the network then has been checked.

        Raises:
            ValueError: the attention does not run on the network's device, or the network not on
                the attention.
        """
        gpu = gpu_of(self.network.device)
        if self.attention != AUTO:
            if self.attention == "torch" and gpu is not None and gpu.runs_kernels:
                logger.warning(
                    "attention=torch plans every forward on the host and has no CUDA graphs; on a "
                    "GPU model.attention=deft is faster"
                )
            return self._checked(self.attention)
        if gpu is not None and gpu.runs_kernels:
            try:
                return self._checked("deft")
            except ValueError as error:
                logger.warning("attention=auto is torch, as deft cannot serve the model: %s", error)
        return self._checked("torch")

    def _checked(self, attention: str) -> AttentionBackend:
        backend = make_backend(attention, self.network.device)
        self.network.check(backend)
        return backend

    @classmethod
    def of(
        cls,
        network: Any,
        tokenizer: Any,
        attention: str = "torch",
        fused: bool | str = False,
        context: int | None = None,
    ) -> Model:
        """Make a model of what Hugging Face's classes load.

        Args:
            network: a causal language model, loaded with `attn_implementation="eager"`.
            tokenizer: its tokenizer.
            attention: see `Model`.
            fused: see `Network`.
            context: tokens that a text may have; None is the network's `max_position_embeddings`.

        Raises:
            ValueError: there is no such attention backend or context.
        """
        ours = Network(network, tokenizer, fused, context)
        return cls(Tokenizer(tokenizer, ours.vocabulary_size), ours, attention)


def load_model(
    name: str = EMBEDDED,
    dtype: str = "float32",
    device: str = "cpu",
    attention: str = "torch",
    fused: bool | str = False,
    num_layers: int | None = None,
    context: int | None = None,
    trust_remote_code: bool = False,
    chat: str = "auto",
    chat_template_args: Mapping[str, Any] | None = None,
    system: str | None = None,
    chat_date: str = "2026-01-01",
) -> Model:
    """Load a model.

    Args:
        name: `embedded`, `smollm2`, a directory in Hugging Face's format, or an id on the Hugging
            Face hub.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`: float32 on a CPU; on a GPU that of the
            weights, and 16 bits for weights in float32 (`device.choose_dtype`).
        device: a device of PyTorch, such as `cpu` or `cuda`, or `auto`: a GPU if there is one.
        attention: one of `attention.BACKENDS`, for the tree engine, or `auto` (`Model`).
        fused: run the layers with merged and compiled parts (`fused_layers.FusedDecoder`), or
            `auto` (`Network`).
        num_layers: keep only the first layers, this many; the final norm and the head follow (early
            exit). An untrained exit is a weak model, but one of the same vocabulary. None keeps
            all.
        context: tokens that a text may have; None is what the network states. It also chooses
            rotary factors that depend on the length (`rotary.fix_rotary`).
        trust_remote_code: run the code that the model's directory holds.
        chat: `flat` reads prompts as plain text; `template` asks in turns, by the chat template of
            the tokenizer; a file with a template asks by that one. `auto` is `template` if the
            tokenizer has a template, except for `embedded` and `smollm2`, which are asked in plain
            text.
        chat_template_args: variables for the template, such as `enable_thinking`.
        system: the system prompt; None leaves it to the template.
        chat_date: what the template shows as today's date, so that a run is the same on any day.

    Raises:
        ValueError: no such model, dtype, device, attention, context or template, more layers than
            there are, or the chat template cannot be used as it is asked for.
    """
    network, tokenizer = load_pretrained(
        "model",
        "AutoModelForCausalLM",
        name,
        dtype,
        device,
        trust_remote_code,
        attn_implementation=OWN_ATTENTION,
    )
    if num_layers is not None:
        _truncate(network, num_layers)
    if chat == "auto":
        chat = "template" if tokenizer.chat_template and name not in BUILT_IN else "flat"
    model = Model.of(network, tokenizer, attention, fused, context)
    if chat != "flat":
        return _in_chat_format(model, chat, chat_template_args, system, chat_date)
    for key, value in (("chat_template_args", chat_template_args), ("system", system)):
        if value is not None and value != {}:
            raise ValueError(
                f"model.{key}={value!r} needs model.chat=template: {name} is asked in plain text"
            )
    return model


def _in_chat_format(
    model: Model, chat: str, options: Mapping[str, Any] | None, system: str | None, date: str
) -> Model:
    """Return the model with the chat format of its own template (`template`) or of a file."""
    template = None
    if chat != "template":
        try:
            template = Path(chat).read_text(encoding="utf-8")
        except (OSError, TypeError, ValueError) as error:
            raise ValueError(
                f"model.chat={chat!r} must be auto, flat, template or a file with a chat template: "
                f"{error}"
            ) from error
    made = ChatFormat(model.tokenizer, template, options, system, date)
    network = model.network
    if made.end_tokens and network.end_tokens.isdisjoint(made.end_tokens):
        logger.warning(
            "turns of the chat template end with a token that does not end the model's texts: if "
            "this is a base model, model.chat=flat asks it in plain text"
        )
    network.end_tokens |= made.end_tokens
    logger.info("prompts are asked by the chat %s", made)
    return replace(model, chat=made)


def _truncate(network: Any, num_layers: int) -> None:
    """Drop the layers from `num_layers` on."""
    layers = network.get_decoder().layers
    whole_number("model.num_layers", num_layers, 1, len(layers))
    del layers[num_layers:]
    config = network.config.get_text_config()
    config.num_hidden_layers = num_layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:num_layers]
