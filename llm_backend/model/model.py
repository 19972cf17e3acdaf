"""A language model as engines take it: its tokenizer, its network, and the attention to run on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .attention import BACKENDS
from .loading import EMBEDDED, load_pretrained
from .network import OWN_ATTENTION, Network
from .tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Model:
    """A tokenizer and a network.

    Args:
        tokenizer: turns text into token ids and back.
        network: weights and forward.
        attention: the attention backend that the tree engine makes (`attention.BACKENDS`).

    Raises:
        ValueError: there is no such attention backend.
    """

    tokenizer: Tokenizer
    network: Network
    attention: str = "torch"

    def __post_init__(self) -> None:
        if self.attention not in BACKENDS:
            raise ValueError(f"attention={self.attention!r} is not one of {', '.join(BACKENDS)}")

    @classmethod
    def of(
        cls,
        network: Any,
        tokenizer: Any,
        attention: str = "torch",
        fused: bool = False,
        context: int | None = None,
    ) -> Model:
        """Make a model of what Hugging Face's classes load.

        Args:
            network: a causal language model, loaded with `attn_implementation="eager"`.
            tokenizer: its tokenizer.
            attention: one of `attention.BACKENDS`.
            fused: run the layers with merged and compiled parts (`fused_layers.FusedDecoder`).
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
    fused: bool = False,
    num_layers: int | None = None,
    context: int | None = None,
    trust_remote_code: bool = False,
) -> Model:
    """Load a model.

    Args:
        name: `embedded`, `smollm2`, a directory in Hugging Face's format, or an id on the Hugging
            Face hub.
        dtype: `float32`, `bfloat16` or `float16`.
        device: a device of PyTorch, such as `cpu` or `cuda`.
        attention: one of `attention.BACKENDS`, for the tree engine.
        fused: run the layers with merged and compiled parts (`fused_layers.FusedDecoder`).
        num_layers: keep only the first layers, this many; the final norm and the head follow (early
            exit). An untrained exit is a weak model, but one of the same vocabulary. None keeps
            all.
        context: tokens that a text may have; None is what the network states. It also chooses
            rotary factors that depend on the length (`rotary.fix_rotary`).
        trust_remote_code: run the code that the model's directory holds.

    Raises:
        ValueError: no such model, dtype, device, attention or context, or more layers than there
            are.
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
    return Model.of(network, tokenizer, attention, fused, context)


def _truncate(network: Any, num_layers: int) -> None:
    """Drop the layers from `num_layers` on."""
    layers = network.get_decoder().layers
    if not 1 <= num_layers <= len(layers):
        raise ValueError(f"model.num_layers={num_layers} must be from 1 to {len(layers)}")
    del layers[num_layers:]
    config = network.config.get_text_config()
    config.num_hidden_layers = num_layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:num_layers]
