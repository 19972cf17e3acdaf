"""Runs from the command line on the mock engine: what is on disk, printed and resumed."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor

import networkx
import pytest
from filelock import FileLock

SEARCH = ["search=tot_bfs", "search.breadth=2", "expander=choose", "expander.width=3"]
THREE = ["task.limit=3", "max_live=1", *SEARCH]
KILLED = ["engine._target_=troubled_engines.Killed", *THREE]
ROUNDS = 6  # of one search: three levels, each expanded and evaluated


def mock(*arguments):
    return ["engine=mock", *arguments]


def test_row_holds_what_the_search_found_and_spent(treeshare, read_rows):
    right, wrong = "5 * (5 - 1 / 5)", "1 + 5 + 5 + 5"
    treeshare(
        *mock(
            "search=best_of_n", "search.role=io", "search.num_samples=9", "task.limit=1", "seed=3"
        ),
        "answers=9",
        "evaluator=heuristic",
        f"engine.replies=['{right} = 24', '{wrong} = 16', 'who knows']",
    )
    (row,) = read_rows()
    assert set(row["answers"]) == {right, wrong}
    assert row["problem"] == "game24/1-5-5-5"
    assert row["num_answers"] == len(row["answers"]) == row["nodes"] - 1
    assert row["num_answers"] + row["parse_failures"] == 9 and row["parse_failures"] > 0
    assert row["correct_top1"] == (row["answers"][0] == right) and row["correct_any"]
    assert row["mean_accuracy"] == row["answers"].count(right) / row["num_answers"]
    assert row["requests"] == row["rounds"] == 1
    assert 0 < row["completion_tokens"] <= row["unique_kv_tokens"] <= row["logical_kv_tokens"]
    assert (row["seed"], row["oracle"], row["budget_hit"]) == (3, False, None)


def bare(*arguments):
    return ["task._target_=bare_task.Bare", "task.verifier._target_=bare_task.Likely", *arguments]


def test_accuracies_are_of_the_ranking(treeshare, read_rows):
    done = treeshare(
        *bare("engine=mock", "search=best_of_n", "search.num_samples=40", "search.role=io"),
        "answers=30",
        "expander=sample",
        "evaluator=logprob",
    )
    for row in read_rows():
        share = row["answers"].count("likely") / 30
        assert 0 < row["mean_accuracy"] == share < 1
        assert row["correct_any"] and row["correct_top1"] == (row["answers"][0] == "likely")
    assert "any-of-30       100.0%" in done.out


def test_unfinished_node_counts_as_wrong(treeshare, read_rows):
    treeshare(*mock(*SEARCH, "search.depth=1", "task.limit=1"))
    (row,) = read_rows()
    assert row["answers"] == [None, None]
    assert (row["num_answers"], row["mean_accuracy"], row["correct_any"]) == (0, 0.0, False)


def test_tree_is_readable(treeshare, run_directory, read_rows):
    done = treeshare(*mock(*SEARCH, "task.limit=1"))
    (path,) = (run_directory() / "trees").iterdir()
    assert path.name == "game24+1-5-5-5.json" and path.name in done.out
    graph = networkx.node_link_graph(json.loads(path.read_text()), edges="edges")
    assert len(graph) == read_rows()[0]["nodes"]


def test_trees_can_be_left_out(treeshare, run_directory):
    treeshare(*mock(*SEARCH, "task.limit=1", "save_trees=false"))
    assert {path.name for path in run_directory().iterdir()} == {
        *("config.yaml", "meta.json", "results.jsonl", "sessions.jsonl", "failures.jsonl"),
    }


def test_oracle_is_flagged_in_rows_and_table(treeshare, read_rows):
    done = treeshare(*mock(*SEARCH, "task.limit=1", "evaluator=oracle"))
    assert read_rows()[0]["oracle"] is True
    assert "the evaluator knew the answers" in done.out


def test_rerun_of_a_finished_run_says_so_and_prints_the_same_table(treeshare, run_directory):
    first = treeshare(*mock(*THREE))
    before = (run_directory() / "results.jsonl").read_bytes()
    second = treeshare(*mock(*THREE))
    assert (first.code, second.code) == (0, 0)
    title, _, table = first.out.partition("\n")
    assert second.out == f"{title}\nalready finished: nothing was run\n{table}"
    assert (run_directory() / "results.jsonl").read_bytes() == before


@pytest.mark.parametrize("more", [[], ["record=true"]], ids=["", "recorded"])
def test_killed_run_resumes(more, treeshare_process, treeshare, read_rows, run_directory):
    killed = treeshare_process(*KILLED, *more, BREAK_AT=str(ROUNDS + 4))
    assert killed.code == -signal.SIGKILL
    assert len(read_rows()) == 1
    resumed = treeshare(*KILLED, *more)
    assert resumed.code == 0 and "in 2 sessions" in resumed.out
    assert len(list((run_directory() / "trees").iterdir())) == 3
    resumed_rows = read_rows()
    requests = [session["requests"] for session in read_rows("sessions.jsonl")]

    path = run_directory()
    path.rename(path.parents[4] / "resumed")
    assert treeshare(*KILLED).code == 0
    assert resumed_rows == read_rows()
    assert requests[-1] < read_rows("sessions.jsonl")[-1]["requests"]


def test_recorded_run_asks_the_engine_for_nothing_twice(treeshare, run_directory, monkeypatch):
    monkeypatch.setenv("BREAK_AT", str(ROUNDS + 4))
    engine = "engine._target_=troubled_engines.Interrupted"
    treeshare(*THREE, engine, "record=true")
    monkeypatch.delenv("BREAK_AT")
    treeshare(*THREE, engine, "record=true")
    log = (run_directory() / "requests.jsonl").read_text().splitlines()
    keys = [json.loads(line)["key"] for line in log]
    assert len(keys) == len(set(keys))


def test_half_written_row_is_searched_again(treeshare, run_directory, read_rows):
    treeshare(*mock(*THREE))
    rows = read_rows()
    path = run_directory() / "results.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert treeshare(*mock(*THREE)).code == 0
    assert read_rows() == rows


def test_corrupt_row_is_named(treeshare, run_directory):
    treeshare(*mock(*THREE))
    path = run_directory() / "results.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], "garbage\n", lines[2]]))
    done = treeshare(*mock(*THREE))
    assert done.code == 2
    assert done.err.count("\n") == 1 and "results.jsonl:2 is not a Row" in done.err


def test_two_processes_do_not_share_a_run(treeshare_process, run_directory, treeshare):
    treeshare(*mock(*THREE))
    path = run_directory()
    results = path / "results.jsonl"
    results.write_bytes(results.read_bytes()[:-20])
    with FileLock(path.with_name(f".{path.name}.lock")):
        done = treeshare(*mock(*THREE))
    assert done.code == 2
    assert done.err.count("\n") == 1 and "another process is at work in outputs/" in done.err


def test_interruption_is_one_line_and_resumes(treeshare, monkeypatch, read_rows):
    engine = "engine._target_=troubled_engines.Interrupted"
    monkeypatch.setenv("BREAK_AT", str(ROUNDS + 2))
    done = treeshare(*THREE, engine)
    assert (done.code, done.out) == (130, "")
    assert done.err == "treeshare: interrupted; the same command resumes\n"
    monkeypatch.delenv("BREAK_AT")
    assert treeshare(*THREE, engine).code == 0
    assert len({row["problem"] for row in read_rows()}) == len(read_rows()) == 3


def test_bug_while_running_keeps_its_traceback(treeshare, monkeypatch):
    monkeypatch.setenv("BREAK_AT", "2")
    with pytest.raises(RuntimeError, match="a bug in the engine"):
        treeshare(*THREE, "engine._target_=troubled_engines.Breaking")


def test_failed_search_is_isolated_recorded_and_retried(treeshare, monkeypatch, read_rows):
    refusing = [*THREE, "engine._target_=troubled_engines.Refusing"]
    monkeypatch.setenv("REFUSED", "1 5 6 7")
    done = treeshare(*refusing)
    assert done.code == 1
    assert done.err.startswith("treeshare: 1 of 3 puzzles failed; first game24/1-5-6-7: ")
    assert "PromptTooLong: prompt of 3012 tokens + 64 > 2048 (all in outputs/" in done.err
    assert done.err.endswith("/failures.jsonl)\n") and done.err.count("\n") == 1
    assert "puzzles         2 of 3 (1 failed)" in done.out
    (failure,) = read_rows("failures.jsonl")
    assert failure["error"] == "PromptTooLong" and "Traceback" in failure["traceback"]
    assert [row["problem"] for row in read_rows()] == ["game24/1-5-5-5", "game24/1-5-7-8"]

    monkeypatch.delenv("REFUSED")
    assert treeshare(*refusing).code == 0
    assert [row["problem"] for row in read_rows()][2:] == ["game24/1-5-6-7"]
    assert read_rows("failures.jsonl") == []


def test_fail_fast_stops_at_the_first(treeshare, monkeypatch, read_rows):
    monkeypatch.setenv("REFUSED", "1 5 6 7")
    done = treeshare(*THREE, "engine._target_=troubled_engines.Refusing", "fail_fast=true")
    assert done.code == 1 and done.err.count("\n") == 1
    assert len(read_rows()) == 1


def test_multirun_ends_with_a_table_of_its_jobs(treeshare):
    command = ["-m", *mock(*SEARCH, "task.limit=3", "engine.replies=[sure]"), "search.depth=1,3"]
    for _ in range(2):  # the second time there is nothing left to search
        *_, head, _, one, three, end = treeshare(*command).out.split("\n")
        assert head.startswith("| run | top-1 | any-of-b | requests | rounds | mean batch |")
        assert one.startswith("| search.depth=1 | 0.0% | 0.0% | 12 | 2 | 6.0 |")
        assert three.startswith("| search.depth=3 |") and three.count("|") == head.count("|")
        assert end == ""


def test_multirun_leaves_a_directory_for_each_job(treeshare, tmp_path):
    done = treeshare("-m", *mock("task.limit=1", "search=io,cot", "seed=0,1"))
    assert done.code == 0
    paths = [path.relative_to(tmp_path) for path in tmp_path.glob("outputs/*/*/*/*")]
    assert len(paths) == 4 and len({path.name for path in paths}) == 4
    assert {path.parts[2] for path in paths} == {"io", "cot"}
    assert "engine=mock task.limit=1 search=cot seed=1" in done.out
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]


def test_custom_policy_from_the_working_directory(treeshare, tmp_path, read_rows):
    (tmp_path / "my_module.py").write_text(
        "class MyPolicy:\n"
        "    def __init__(self, width=1):\n"
        "        self.width = width\n"
        "    async def search(self, ctx):\n"
        "        return (await ctx.expand(ctx.root))[:self.width]\n"
    )
    custom = ["search._target_=my_module.MyPolicy", "+search.width=3"]
    done = treeshare(*mock("task.limit=1", *custom))
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("game24 MyPolicy MockEngine seed 0\n")
    assert len(read_rows()[0]["answers"]) == 3


def test_budget_that_is_spent_is_in_the_row(treeshare, read_rows):
    treeshare(*mock(*SEARCH, "task.limit=1", "budget.requests=3"))
    (row,) = read_rows()
    assert row["budget_hit"] == "requests" and row["requests"] <= 3


def test_max_live_changes_no_row(treeshare, tmp_path):
    for number in (1, "null"):
        options = [f"max_live={number}", f"output_dir=live-{number}"]
        treeshare(*mock(*SEARCH, "task.limit=4", *options))
    rows = []
    for path in tmp_path.glob("live-*/*/*/*/*/results.jsonl"):
        found = [json.loads(line) for line in path.read_text().splitlines()]
        found.sort(key=lambda row: row["problem"])
        rows.append([{key: row[key] for key in row if key != "seconds"} for row in found])
    assert len(rows) == 2 and rows[0] == rows[1]


def test_concurrent_starts_leave_one_whole_run(treeshare_process, read_rows):
    """The second process either finds the run finished or is refused."""
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: treeshare_process(*mock(*THREE)), range(2)))
    assert {done.code for done in both} <= {0, 2}, [done.err for done in both]
    assert all(done.err.count("\n") == (done.code == 2) for done in both)
    assert len({row["problem"] for row in read_rows()}) == len(read_rows()) == 3


def test_a_users_module_may_have_the_name_of_a_folder_of_the_checkout(tmp_path, treeshare_process):
    code = "from treeshare.search import IO\n\n\nclass Mine(IO):\n    pass\n"
    (tmp_path / "tasks.py").write_text(code)
    done = treeshare_process(*mock("search._target_=tasks.Mine", "task.limit=1"))
    assert done.code == 0, done.err
