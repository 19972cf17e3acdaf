"""The visits that mctx (github.com/google-deepmind/mctx) gives the nodes of a complete tree.

Needs mctx and jax; imports them when called.
"""

import itertools
import random


class Table:
    """A complete tree: logits of the steps of each state and a value of each state, by number.

    As a task, a state is a tuple of step numbers. States at `depth` are terminal.
    """

    name = "table"
    sampling = {}  # noqa: RUF012

    def __init__(self, logits, values, depth):
        self.logits = logits  # state to the logits of its steps
        self.values = values  # state to its value
        self.depth = depth

    @classmethod
    def bandit(cls, logits, values, root_value):
        return cls({(): logits}, {(): root_value} | {(i,): v for i, v in enumerate(values)}, 1)

    @classmethod
    def drawn(cls, seed, steps, depth):
        """Logits in [-1.5, 1.5], values in [0, 1]."""
        draw = random.Random(seed)
        states = [s for d in range(depth + 1) for s in itertools.product(range(steps), repeat=d)]
        logits = {s: [3 * draw.random() - 1.5 for _ in range(steps)] for s in states}
        return cls(logits, {s: draw.random() for s in states}, depth)

    @property
    def num_steps(self):
        return len(self.logits[()])

    def root(self, problem):
        return ()

    def prompt(self, role, state):
        return (" ".join(map(str, state)),)

    def is_terminal(self, state):
        return len(state) == self.depth

    def moves(self, state):
        from treeshare.tasks.task import Step

        return [Step(str(i), (*state, i)) for i in range(self.num_steps)]

    def heuristic(self, state):
        return self.values[state]

    def score(self, prompt, text):
        """A logit as the log-probability of a step; priors are a softmax of these."""
        return self.logits[tuple(map(int, prompt.split()))][int(text)] - 10


def mctx_visits(tables, simulations, *, noise=None, **parameters):
    """For each table (all of one shape) the visits by state of `gumbel_muzero_policy` with its row
    of `noise` at the root or, without noise, of `muzero_policy`. The parameters are mctx's."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp
    import mctx

    steps, depth = tables[0].num_steps, tables[0].depth
    states = [s for d in range(depth + 1) for s in itertools.product(range(steps), repeat=d)]
    number = {state: i for i, state in enumerate(states)}
    beyond = len(states)  # below the terminal states
    num_inner = len(states) - steps**depth
    child = [[number[(*s, a)] for a in range(steps)] for s in states[:num_inner]]
    children = jnp.array(child + [[beyond] * steps] * (beyond - num_inner + 1))
    flat = [[0.0] * steps] * (beyond - num_inner + 1)
    values = jnp.array([[table.values[s] for s in states] + [0.0] for table in tables])
    logits = jnp.array([[table.logits[s] for s in states[:num_inner]] + flat for table in tables])
    row = jnp.arange(len(tables))

    def step(params, key, action, at):
        to = children[at, action]
        ends = to >= num_inner
        output = mctx.RecurrentFnOutput(
            reward=jnp.where(ends, values[row, to], 0.0),
            discount=jnp.where(ends, 0.0, 1.0),
            prior_logits=logits[row, to],
            value=values[row, to],
        )
        return output, to

    root = mctx.RootFnOutput(
        prior_logits=logits[:, 0], value=values[:, 0], embedding=jnp.zeros_like(row)
    )
    key = jax.random.PRNGKey(0)
    if noise is None:
        output = mctx.muzero_policy(
            None, key, root, step, simulations, dirichlet_fraction=0.0, **parameters
        )
    else:
        draw = jax.random.gumbel
        jax.random.gumbel = lambda key, shape, dtype=None: jnp.array(noise).reshape(shape)
        try:
            output = mctx.gumbel_muzero_policy(None, key, root, step, simulations, **parameters)
        finally:
            jax.random.gumbel = draw
    visits = output.search_tree.node_visits.tolist()
    below = output.search_tree.children_index.tolist()

    def collect(i, node, state):
        found = {state: visits[i][node]}
        for a in range(steps):
            if below[i][node][a] >= 0 and len(state) < depth:
                found |= collect(i, below[i][node][a], (*state, a))
        return found

    return [collect(i, 0, ()) for i in range(len(tables))]


def raw_values(tree, node):
    """For `muzero_policy(qtransform=...)`: the Q-values as they are, 0 where not visited."""
    return tree.qvalues(node)
