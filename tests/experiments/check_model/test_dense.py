"""Dense forwards, against the network's own calls."""

import pytest
import torch
from tiny_models import make_network

from treeshare.experiments.check_model.dense import Dense


def test_greedy_and_logprobs_are_those_of_generate():
    network = make_network("llama").eval()
    dense = Dense(network, frozenset({257}))
    prompt = [5, 6, 7]
    output = network.generate(
        torch.tensor([prompt]), max_new_tokens=5, do_sample=False, pad_token_id=258,
        return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    tokens = output.sequences[0, 3:].tolist()
    assert dense.greedy(prompt, 5) == tokens
    expected = torch.stack(output.logits)[:, 0].log_softmax(-1).amax(-1).sum().item()
    assert dense.logprob(prompt, tokens) == pytest.approx(expected, abs=1e-4)


def test_greedy_ends_at_an_end_token():
    network = make_network("llama").eval()
    first = Dense(network, frozenset()).greedy([5, 6, 7], 4)[0]
    assert Dense(network, frozenset({first})).greedy([5, 6, 7], 4) == [first]
