"""Check that treeshare runs a model rightly: `treeshare-check-model NAME`.

It loads the model, prints what was chosen for it, compares a tree engine's replies with forwards of
the model's own, one text at a time, and shows one reply. Exit codes: 0 equal, 1 not equal, 2 the
model cannot be loaded or is refused.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping
from typing import Any

import transformers

from treeshare.experiments.runs.command import print_error
from treeshare.llm_backend.api import Chat, Failure, Generate, GenerateReply, Sampling
from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.model.model import Model, load_model

from .equality import compare

_PROGRAM = "treeshare-check-model"
_QUESTION = "What is 3 plus 4?"
_OPTIONS = ("dtype", "device", "attention", "fused", "context", "trust_remote_code")


def main() -> int:
    """Run the console command.

    Returns:
        0 if the replies equal the model's own; 1 if they do not; 2 if the model cannot be served.
    """
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.ERROR)
    options = {name: getattr(arguments, name) for name in _OPTIONS}
    options["fused"] = {"true": True, "false": False}.get(options["fused"], options["fused"])
    try:
        found = check(arguments.name, options)
    except (ValueError, MemoryError) as error:
        return print_error(_PROGRAM, str(error), 2)
    except ArithmeticError as error:
        return print_error(_PROGRAM, str(error), 1)
    print(json.dumps(found) if arguments.json else _table(found))
    return 0 if found["equal"] else 1


def check(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Load a model and compare it with its own forwards.

    Args:
        name: as `load_model` takes it.
        options: other arguments of `load_model`.

    Returns:
        What was chosen and found, by name, as JSON takes it.

    Raises:
        ValueError: the model cannot be loaded, or tree attention cannot serve it.
        ArithmeticError: its logits are NaN.
    """
    model = load_model(name, **options)
    equality, engine = compare(model)
    network = model.network
    hf = network.hf
    return {
        "model": name,
        "family": hf.config.get_text_config().model_type,
        "class": type(hf).__name__,
        "chat": "none: prompts are plain text" if model.chat is None else str(model.chat),
        **{key: engine.resources[key] for key in ("device", "dtype", "attention", "fused")},
        "weight_bytes": sum(weight.nbytes for weight in hf.parameters()),
        "kv_bytes_per_token": network.dtype.itemsize
        * sum(heads * (key + value) for heads, key, value in network.layers),
        "equal": equality.is_equal,
        "logprobs": equality.logprobs,
        "largest_difference": equality.difference,
        "allowed_difference": equality.allowed,
        "greedy_tokens": equality.greedy,
        "other_greedy_tokens": equality.other_greedy,
        "evicted_kv_tokens": equality.evicted,
        "sample": _sample(model),
        "transformers": transformers.__version__,
    }


def _sample(model: Model) -> str:
    """Return the greedy reply to a question."""
    engine = TreeEngine(model, kv_tokens=1024)
    chat = Chat((("user", _QUESTION),))
    request = Generate((_QUESTION,), sampling=Sampling(max_tokens=32, temperature=0.0), chat=chat)
    reply = engine.execute({0: request})[0]
    engine.close()
    if isinstance(reply, Failure):
        return f"none: {reply.error}"
    assert isinstance(reply, GenerateReply)
    return reply.completions[0].text


def _table(found: Mapping[str, Any]) -> str:
    """Return what was found as lines of a name and a value."""
    verdict = "equal to" if found["equal"] else "NOT EQUAL to"
    right = found["greedy_tokens"] - found["other_greedy_tokens"]
    lines = {
        "model": found["model"],
        "family": f"{found['family']}, {found['class']}",
        "chat": found["chat"],
        "runs on": f"{found['device']}, {found['dtype']}, attention {found['attention']}, "
        f"layers {'merged' if found['fused'] else 'not merged'}",
        "memory": f"weights {found['weight_bytes'] / 2**30:.2f} GiB, "
        f"{found['kv_bytes_per_token'] / 2**10:.1f} KiB a KV token",
        "replies": f"{verdict} those of its own forwards: {found['logprobs']} log-probabilities "
        f"within {found['largest_difference']:.2g} nats (allowed {found['allowed_difference']}), "
        f"{right} of {found['greedy_tokens']} greedy tokens, "
        f"{found['evicted_kv_tokens']} KV tokens evicted",
        "sample": f"{_QUESTION} {found['sample']!r}",
    }
    return "\n".join(f"{name:9}{value}" for name, value in lines.items())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=_PROGRAM, description=(__doc__ or "").strip())
    parser.add_argument("name", help="a directory, a GGUF file or an id on the Hugging Face hub")
    for option in _OPTIONS[:4]:
        parser.add_argument(f"--{option}", default="auto", help=f"as model.{option}; default: auto")
    parser.add_argument("--context", type=int, help="as model.context")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code of the model's")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    parser.add_argument("--verbose", action="store_true", help="show what is being done")
    return parser


if __name__ == "__main__":
    sys.exit(main())
