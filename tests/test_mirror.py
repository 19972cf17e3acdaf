"""Each module of the package has a test file of its name, or a line in the table below."""

import ast
from functools import cache

from places import ROOT

FOLDERS = ["experiments", "kernels", "llm_backend", "search", "tasks", "treeshare"]

ELSEWHERE = {  # module -> (the test file that covers it, why)
    "experiments/bench/attention/case.py": (
        "tests/experiments/bench/attention/test_main.py",
        "a case is made, checked and timed by the command",
    ),
    "experiments/bench/attention/tables.py": (
        "tests/experiments/bench/attention/test_main.py",
        "the tables are what the command prints",
    ),
    "experiments/bench/decode/case.py": (
        "tests/experiments/bench/decode/test_main.py",
        "a case is made and timed by the command",
    ),
    "experiments/bench/decode/engine_comparison.py": (
        "tests/experiments/bench/decode/test_main.py",
        "the command compares the engines on two puzzles",
    ),
    "experiments/bench/decode/game24_log.py": (
        "tests/experiments/bench/decode/test_workloads.py",
        "it is one of the workloads",
    ),
    "experiments/bench/decode/options.py": (
        "tests/experiments/bench/decode/test_main.py",
        "the options are the keys of the command",
    ),
    "experiments/bench/decode/tables.py": (
        "tests/experiments/bench/decode/test_main.py",
        "the tables are what the command prints",
    ),
    "experiments/bench/templates.py": (
        "tests/experiments/bench/attention/test_workloads.py",
        "templates become workloads",
    ),
    "experiments/bench/text_workloads.py": (
        "tests/experiments/bench/test_speculative.py",
        "the benchmark of speculative decoding is what uses the prompts",
    ),
    "experiments/reports/reference_results.py": (
        "tests/experiments/reports/test_writers.py",
        "the published figures stand in the tables",
    ),
    "experiments/reports/tables.py": (
        "tests/experiments/reports/test_writers.py",
        "the tables are compared with what is written of them",
    ),
    "experiments/viewer/page.py": (
        "tests/experiments/viewer/test_viewer.py",
        "a browser shows the page",
    ),
    "experiments/results/rows.py": (
        "tests/experiments/results/test_totals.py",
        "totals are sums over rows",
    ),
    "experiments/results/summary.py": (
        "tests/experiments/results/test_totals.py",
        "the summary prints the totals",
    ),
    "experiments/results/markdown.py": (
        "tests/experiments/reports/test_report.py",
        "the tables of the report are compared with their text",
    ),
    "experiments/runs/command.py": (
        "tests/experiments/test_run.py",
        "the command's frame: jobs, exit codes, errors in one line",
    ),
    "experiments/runs/config.py": (
        "tests/experiments/runs/test_configs.py",
        "each configuration makes its objects",
    ),
    "experiments/results/config_file.py": (
        "tests/experiments/results/test_hostile_runs.py",
        "files of hostile runs are read in bounded time",
    ),
    "experiments/runs/failures.py": (
        "tests/experiments/runs/test_puzzle_failures.py",
        "the failures of puzzles are kept",
    ),
    "experiments/runs/marking.py": (
        "tests/experiments/runs/test_puzzle_failures.py",
        "marking is one of the places where a puzzle can fail",
    ),
    "experiments/loggers/metrics.py": (
        "tests/experiments/loggers/test_wandb_logger.py",
        "every metric is compared with the rows on disk",
    ),
    "experiments/results/comparison.py": (
        "tests/experiments/test_run.py",
        "a multirun ends with the comparison of its jobs",
    ),
    "experiments/runs/launch.py": (
        "tests/experiments/test_run.py",
        "the command launches its jobs",
    ),
    "experiments/runs/resumable_run.py": (
        "tests/experiments/test_run.py",
        "runs are interrupted and resumed by the command",
    ),
    "experiments/soak/ties.py": (
        "tests/experiments/soak/test_main.py",
        "ties explain replies that differ in the soak",
    ),
    "experiments/soak/uneven_requests.py": (
        "tests/experiments/soak/test_main.py",
        "the requests of the soak",
    ),
    "experiments/export/step_finder.py": (
        "tests/experiments/export/test_replay.py",
        "the steps of every tree are found when it is read again",
    ),
    "experiments/training/batches.py": (
        "tests/experiments/training/test_main.py",
        "a short training packs its examples",
    ),
    "experiments/training/check.py": (
        "tests/experiments/training/test_main.py",
        "a short training ends with the check",
    ),
    "kernels/attention/naive.py": (
        "tests/kernels/attention/test_torch_attention.py",
        "the reference that other implementations are compared with",
    ),
    "kernels/attention/triton_kernels.py": (
        "tests/kernels/attention/test_tree_attention.py",
        "the kernels are run through their launcher",
    ),
    "kernels/layers/decoder_layer_reference.py": (
        "tests/kernels/layers/test_decoder_layer.py",
        "the reference that the kernels are compared with",
    ),
    "kernels/planning/attention_spec.py": (
        "tests/kernels/planning/test_tree_plan.py",
        "each plan is made for a specification",
    ),
    "kernels/planning/device_forest.py": (
        "tests/kernels/planning/test_device_plan.py",
        "the first part of planning on the device",
    ),
    "kernels/planning/plan_buffers.py": (
        "tests/kernels/attention/test_tree_attention.py",
        "the kernels read each plan through its buffers",
    ),
    "kernels/planning/segments.py": (
        "tests/kernels/planning/test_work_list.py",
        "work lists are made of segments",
    ),
    "llm_backend/api.py": (
        "tests/llm_backend/engines/test_requests.py",
        "requests that break a bound are refused",
    ),
    "llm_backend/engines/collect.py": (
        "tests/llm_backend/engines/test_failures.py",
        "failed requests end, are tried again, and leave no KV behind",
    ),
    "llm_backend/engines/draft_model.py": (
        "tests/llm_backend/speculative/test_drafters.py",
        "both drafters have the same tests",
    ),
    "llm_backend/engines/mock.py": (
        "tests/llm_backend/engines/test_replay.py",
        "recorded, and replayed to the same replies",
    ),
    "llm_backend/engines/schedule.py": (
        "tests/llm_backend/engines/test_tree.py",
        "what a forward computes is seen in the engine's replies and counters",
    ),
    "llm_backend/engines/serve.py": (
        "tests/experiments/bench/decode/test_main.py",
        "the benchmarks send their requests with it",
    ),
    "llm_backend/model/attention.py": (
        "tests/llm_backend/model/test_compatibility.py",
        "each backend must give the logits of the model's own attention",
    ),
    "llm_backend/model/network.py": (
        "tests/llm_backend/model/test_compatibility.py",
        "the logits of a network are compared with its own attention's",
    ),
    "llm_backend/runtime/batch.py": (
        "tests/llm_backend/runtime/test_cuda_graphs.py",
        "the same batches are run eagerly and as graphs",
    ),
    "llm_backend/runtime/eager.py": (
        "tests/llm_backend/runtime/test_cuda_graphs.py",
        "graphs must give what the eager runner gives",
    ),
    "llm_backend/runtime/packing.py": (
        "tests/llm_backend/runtime/test_multi_step.py",
        "the packed forests of several steps",
    ),
    "llm_backend/runtime/runner.py": (
        "tests/llm_backend/runtime/test_cuda_graphs.py",
        "an engine on captured attention uses the graphs",
    ),
    "llm_backend/runtime/sequence.py": (
        "tests/llm_backend/engines/test_tree.py",
        "sequences are observed through the engine's replies",
    ),
    "llm_backend/sampling/batch_sampler.py": (
        "tests/llm_backend/runtime/test_multi_step.py",
        "its draws must be those of plain sampling",
    ),
    "llm_backend/speculative/ngram.py": (
        "tests/llm_backend/speculative/test_drafters.py",
        "both drafters have the same tests",
    ),
    "search/checks.py": (
        "tests/search/test_misbehaviour.py",
        "what misbehaving parts return is refused",
    ),
    "search/policies/beam.py": (
        "tests/search/policies/test_golden.py",
        "its trees are drawn and compared",
    ),
    "search/policies/best_first.py": (
        "tests/search/policies/test_golden.py",
        "its trees are drawn and compared",
    ),
    "search/policies/tot.py": (
        "tests/search/policies/test_golden.py",
        "its trees are drawn and compared, and the GPT-4 log gives the same states",
    ),
    "search/watchdog.py": (
        "tests/search/test_limits.py",
        "code that runs too long is one of the limits",
    ),
    "tasks/arithmetic/task.py": (
        "tests/tasks/arithmetic/test_countdown.py",
        "the base of Countdown and of the Game of 24",
    ),
    "tasks/arithmetic/templates.py": (
        "tests/tasks/arithmetic/test_game24_prompts.py",
        "the prompts are made of the templates",
    ),
    "tasks/blocksworld/rules.py": (
        "tests/tasks/blocksworld/test_task.py",
        "the task plays by the rules",
    ),
    "tasks/generator.py": (
        "tests/tasks/arithmetic/test_countdown.py",
        "the generated problems of a seed stay the same",
    ),
    "tasks/graph_of_thoughts/set_intersection.py": (
        "tests/tasks/graph_of_thoughts/test_merging.py",
        "both tasks that are solved in parts have the same tests",
    ),
    "tasks/graph_of_thoughts/sorting.py": (
        "tests/tasks/graph_of_thoughts/test_merging.py",
        "both tasks that are solved in parts have the same tests",
    ),
    "tasks/math/latex.py": (
        "tests/tasks/math/test_answers.py",
        "the set of 893 replies passes through the whole reader",
    ),
    "tasks/math/numbers.py": (
        "tests/tasks/math/test_answers.py",
        "the set of 893 replies passes through the whole reader",
    ),
    "tasks/math/replies.py": (
        "tests/tasks/math/test_answers.py",
        "the set of 893 replies passes through the whole reader",
    ),
    "tasks/math/structure.py": (
        "tests/tasks/math/test_answers.py",
        "the set of 893 replies passes through the whole reader",
    ),
    "tasks/math/units.py": (
        "tests/tasks/math/test_answers.py",
        "the set of 893 replies passes through the whole reader",
    ),
    "tasks/replies.py": (
        "tests/tasks/test_verdicts.py",
        "verdicts are what most replies are read for",
    ),
    "tasks/sandbox/child.py": (
        "tests/tasks/sandbox/test_parent.py",
        "the child runs only below its parent",
    ),
    "tasks/task.py": (
        "tests/experiments/runs/test_tasks.py",
        "every task is held to the protocols",
    ),
    "tasks/votes.py": (
        "tests/tasks/test_verdicts.py",
        "votes are read as verdicts are",
    ),
    "treeshare/results.py": (
        "tests/treeshare/test_api.py",
        "the results of `solve` and of `load_runs`",
    ),
}

BY_COMMAND = {  # its test runs it in a process of its own and does not import it
    "experiments/runs/command.py",
    "experiments/results/comparison.py",
    "experiments/runs/launch.py",
    "experiments/runs/marking.py",
    "experiments/runs/resumable_run.py",
    "tasks/sandbox/child.py",
}


def modules():
    """The modules of the package, but those that only name a package or start its command."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            is_linked = any(parent.is_symlink() for parent in path.parents)
            if not is_linked and path.name not in ("__init__.py", "__main__.py"):
                yield path.relative_to(ROOT).as_posix()


MODULES = list(modules())


def namesake(module):
    """The test file that mirrors a module: `search/graph.py` -> `tests/search/test_graph.py`."""
    room, _, name = module.rpartition("/")
    return f"tests/{room}/test_{name}"


@cache
def imported(path):
    """The modules of the package that a file imports, as paths from the root."""
    package = path.removeprefix("treeshare/").split("/")[:-1]
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = ["treeshare", *package[: len(package) - node.level + 1]] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    ours = {name.removeprefix("treeshare.") for name in names if name.startswith("treeshare")}
    paths = {name.replace(".", "/") for name in ours}
    paths |= {f"treeshare/{path}" for path in paths}  # the import root has modules of its own
    files = {f"{p}.py" for p in paths} | {f"{p}/__init__.py" for p in paths}
    return {file for file in files if (ROOT / file).is_file()}


@cache
def reached(path):
    """The modules that a file imports, itself or through other modules of the package."""
    found, stack = set(), [path]
    while stack:
        for module in imported(stack.pop()):
            if module not in found:
                found.add(module)
                stack.append(module)
    return found


def test_modules_have_a_test_of_their_name_or_a_line_in_the_table():
    without = [m for m in MODULES if m not in ELSEWHERE and not (ROOT / namesake(m)).exists()]
    assert not without, "write a test of their name, or a line in ELSEWHERE"


def test_lines_of_the_table_are_needed():
    assert ELSEWHERE.keys() <= set(MODULES), "remove the lines of modules that are gone"
    doubled = [module for module in ELSEWHERE if (ROOT / namesake(module)).exists()]
    assert not doubled, "remove the lines of modules that have a test of their name"


def test_lines_of_the_table_are_true():
    for module, (test, reason) in ELSEWHERE.items():
        assert (ROOT / test).exists(), f"{module}: {test} does not exist"
        is_imported = module in reached(test)
        assert is_imported != (module in BY_COMMAND), f"does {test} import {module}?"
        assert reason


def test_test_files_are_in_a_folder_of_the_package_or_at_the_top():
    for path in (ROOT / "tests").rglob("test_*.py"):
        folder = path.relative_to(ROOT / "tests").parts[0]
        assert folder in FOLDERS or folder.startswith("test_"), f"{path} mirrors no folder"
