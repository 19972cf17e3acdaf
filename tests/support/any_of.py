"""A small ask/tell algorithm of the shape of treequest's."""

import random
from dataclasses import dataclass

import numpy as np


@dataclass
class Trial:
    trial_id: str
    action: str
    parent_state: object


class AnyOf:
    """Asks for children of states drawn from all it knows, by both global generators."""

    def init_tree(self):
        return {"known": [None], "running": {}, "results": []}

    def ask_batch(self, state, batch_size, actions):
        trials = []
        for _ in range(batch_size):
            parent = state["known"][int(random.random() * len(state["known"]))]
            trial_id = str(len(state["running"]))
            trials.append(Trial(trial_id, actions[np.random.randint(len(actions))], parent))
            state["running"][trial_id] = trials[-1]
        return state, trials

    def tell(self, state, trial_id, result):
        state["results"].append((state["running"][trial_id].parent_state, *result))
        state["known"].append(result[0])
        return state
