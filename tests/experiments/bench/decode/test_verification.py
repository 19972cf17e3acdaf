"""Verifying token trees below a prompt that grows: what a dense forward of each path says."""

import numpy as np
import pytest
import torch
from tiny_models import byte_tokenizer, make_network

from treeshare.experiments.bench.decode.verification import Verification, Verifier
from treeshare.kernels.planning.forest import Forest
from treeshare.llm_backend.model.model import Model

PROMPT = 5
#                  prompt, model's own token, two below it, one below the first of them
PARENT = np.array([-1, 0, 1, 1, 2])
TREE = Forest.packed(PARENT, np.array([PROMPT, 1, 1, 1, 1]), np.array([0, 1, 1, 1, 1]))
PATHS = [[0], [0, 1], [0, 2], [0, 1, 3]]  # of each tree token, as rows


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning")
def test_each_step_is_a_dense_forward_of_each_path():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = Model.of(make_network("llama").to(device), byte_tokenizer(), "deft")
    verification = Verification(TREE, accepted=(3, 1, 2), tokens=6)
    verifier = Verifier(model, verification)
    drawn = []
    for _ in range(2):  # the second time from the start, in the same memory
        verifier.prefill()
        prompt = verifier.prompt_tokens()
        for path in verification.steps():
            tree = verifier.tree_tokens()
            drawn.append((list(prompt), tree, verifier.step(path)))
            prompt += [tree[node - 1] for node in path]
        assert verifier.num_entries == PROMPT + 3 + 1 + 4
    model.network.use_attention("eager")
    for prompt, tree, said in drawn:
        for rows, token in zip(PATHS, said, strict=True):
            ids = torch.tensor([[*prompt, *(tree[row] for row in rows)]], device=device)
            with torch.inference_mode():
                assert int(model.network.hf(ids).logits[0, -1].argmax()) == token


def test_paths_are_the_first_that_are_long_enough():
    steps = Verification(TREE, accepted=(1, 2, 9), tokens=10).steps()
    assert steps == [[1], [1, 2], [1, 2, 4], [1], [1, 2], [1, 2, 4]][: len(steps)]
    assert sum(map(len, steps)) == 12
