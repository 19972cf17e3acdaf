"""Runs are found below directories, and named by their meta.json."""

import json
import shutil

import pytest

from treeshare.experiments.reports.configurations import (
    differences,
    printable,
    read_configs,
    run_directories,
)

MOCK = ["engine=mock", "search=io", "task.limit=4", "progress=false"]


def test_runs_set_aside_are_found_by_their_own_path_alone(treeshare, tmp_path, run_directory):
    treeshare(*MOCK)
    directory = run_directory()
    treeshare(*MOCK, "overwrite=true")
    aside = directory.with_name(f"{directory.name}.earlier-1")
    assert aside.is_dir()
    assert run_directories([tmp_path]) == [directory]
    assert run_directories([aside, tmp_path]) == [directory, aside]


def test_shards_count_until_the_run_has_their_rows(treeshare, tmp_path):
    for shard in ("0/2", "1/2"):
        treeshare(*MOCK, f"++task.shard={shard}")
    found = run_directories([tmp_path])
    assert [path.name for path in found] == ["0-of-2", "1-of-2"]
    treeshare(*MOCK)
    assert run_directories([tmp_path]) == [found[0].parents[1]]
    assert run_directories([found[0]]) == [found[0]]


def test_names_come_from_meta_and_not_from_the_path(treeshare, tmp_path, run_directory):
    treeshare(*MOCK)
    run_directory().rename(tmp_path / "moved")
    shutil.rmtree(tmp_path / "outputs")
    (config,) = read_configs(run_directories([tmp_path]))
    assert (config.task, config.name, config.model, config.seed) == (
        *("game24", "io", "MockEngine", 0),
    )


@pytest.fixture
def first_layout(treeshare, tmp_path):
    """Turns the only run into one of version 0.1.0."""

    def turn(directory):
        about = json.loads((directory / "meta.json").read_text())
        kept = {key: about[key] for key in ("packages", "python", "platform", "git")}
        (directory / "meta.json").write_text(json.dumps(kept))

    return turn


def test_runs_of_version_0_1_0_are_read(treeshare, run_directory, first_layout, tmp_path):
    treeshare(*MOCK)
    first_layout(run_directory())
    (config,) = read_configs(run_directories([tmp_path]))
    assert (config.task, config.name, config.model) == ("game24", "io", "MockEngine")
    assert config.values["search._target_"].endswith("IO")


def test_versions_are_kept_apart(treeshare, run_directory, first_layout, tmp_path):
    treeshare(*MOCK)
    first_layout(run_directory())
    treeshare(*MOCK, "output_dir=new")
    names = [config.name for config in read_configs(run_directories([tmp_path]))]
    assert sorted(names) == ["io", "io (0.1.0)"]


def test_edited_code_is_another_configuration(run_with, tmp_path):
    task = {"_target_": "bare_task.Bare", "verifier": {"_target_": "bare_task.Likely"}}
    for folder in ("a", "b"):
        run_with(task=task, output_dir=folder)
    (path,) = tmp_path.glob("b/**/meta.json")
    about = json.loads(path.read_text())
    about["sources"] = dict.fromkeys(about["sources"], "another digest")
    path.write_text(json.dumps(about))
    first, second = read_configs(run_directories([tmp_path]))
    assert first.identity != second.identity
    assert [d.keys() for d in differences([first.values, second.values])] == [{"code"}, {"code"}]


def test_differences_are_short():
    configs = [
        {"search._target_": "a.b.Beam", "search.width": 3, "task.size": 1, "budget.width": 1},
        {"search._target_": "a.b.Greedy", "task.size": 1, "search.width": 4, "budget.width": 2},
        {"search._target_": "a.b.Beam", "task.size": 1, "search.width": 3},
    ]
    assert differences(configs) == [
        {"search": "Beam", "width": "3", "budget.width": "1"},
        {"search": "Greedy", "width": "4", "budget.width": "2"},
        {"search": "Beam", "width": "3"},
    ]
    assert differences(configs[:1]) == [{}]


def test_texts_are_printable_and_short():
    assert printable("a\udc80b\x07c\n") == "a\ufffdb\ufffdc\ufffd"
    assert len(printable("x" * 10**6)) == 203


def test_path_that_is_no_directory_is_named(tmp_path):
    with pytest.raises(ValueError, match="none is not a directory"):
        run_directories([tmp_path / "none"])
