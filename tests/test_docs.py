"""What README and docs promise: commands compose or run, links lead somewhere, tables agree with the code."""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from composing import composed, spec_for

from dataloaders import download, inspect, synthesise
from dataloaders.contracts import Split
from evaluation import pretraining
from scripts import document_configs
from tasks import build
from utils import cli
from utils.config import CONFIGS

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text()
NEW_PART = "patch-encoder"
"""The part that docs/extend.md adds; its commands are run where it was added."""


def code(page):
    """Lines of code of a page: of its shell blocks, and between backticks in its text; none that wait for the new part."""
    text = page.read_text()
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    lines = [line for block in blocks for line in block.splitlines()] + inline
    return [part.strip() for line in lines for part in line.split("&&") if NEW_PART not in part]


def words(command):
    return shlex.split(command, comments=True)


COMMANDS = {
    f"{page.name}: {line}": words(line) for page in PAGES for line in code(page) if re.match(r"\S*python3? (train\.py|-m )", line)
}
SWEEP = "-m"  # of train.py: several runs, whose settings are lists
TRAIN = {key: rest for key, (_, first, *rest) in COMMANDS.items() if first == "train.py" and SWEEP not in rest}
MODULES = {key: rest for key, (_, first, *rest) in COMMANDS.items() if first == "-m"}


def test_the_first_two_commands_are_the_agreed_ones():
    blocks = re.findall(r"```bash\n(.*?)\n```", README, re.DOTALL)
    assert blocks[0] == "python3 -m venv .venv && .venv/bin/pip install --no-compile -e . && .venv/bin/python train.py"
    assert blocks[1] == '.venv/bin/pip install --no-compile -e ".[dev]" && .venv/bin/python -m pytest'


def test_the_page_before_the_tables_is_one_screen():
    assert README.index("\n| ") < README.index("## Parts")
    assert len(README[: README.index("\n## Experiments")].splitlines()) <= 50


@pytest.mark.parametrize("key", TRAIN)
def test_every_training_command_composes_and_checks(key):
    build.check(composed(*TRAIN[key]))


@pytest.mark.parametrize("key", MODULES)
def test_every_module_that_is_run_exists(key):
    assert importlib.util.find_spec(MODULES[key][0]) is not None


TOOLS = {
    "dataloaders.synthesise": synthesise.Arguments,
    "dataloaders.download": download.Arguments,
    "dataloaders.inspect": inspect.Arguments,
    "evaluation.pretraining": pretraining.Arguments,
}


@pytest.mark.parametrize("key", [key for key, (module, *_) in MODULES.items() if module in TOOLS])
def test_arguments_of_the_tools_are_accepted(key):
    args = parsed(MODULES[key])
    if MODULES[key][0] == "dataloaders.download":
        assert [download.known(name) for name in args.names] == args.names


def parsed(command):
    module, *arguments = command
    plain = "names" if module in ("dataloaders.download", "dataloaders.inspect") else ""
    return cli.parse(TOOLS[module], arguments, where=module, words=plain)


def test_the_data_commands_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    block = next(block for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL) if "synthesise" in block)
    made, _, seen, trained = [words(line) for line in block.splitlines()]
    synthesise.write_set(parsed(made[2:]).path, 20)
    inspect.main(parsed(seen[2:]))
    assert Path(parsed(seen[2:]).plot).is_file()
    config = composed(*trained[2:], "loader.batch_size=2")
    assert len(build.build_source(config).part(Split.train)) == 12


@pytest.mark.parametrize("name", sorted(set(re.findall(r"experiment=([\w/]+)", "\n".join(page.read_text() for page in PAGES)))))
def test_every_experiment_that_is_named_exists(name):
    assert (CONFIGS / "experiment" / f"{name}.yaml").is_file()


LINKS = [
    (page, link)
    for page in PAGES
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    if not re.match(r"[a-z]+:|#", link)
]


@pytest.mark.parametrize(("page", "link"), LINKS, ids=lambda value: value.name if isinstance(value, Path) else value)
def test_every_link_leads_to_a_file(page, link):
    assert (page.parent / link.partition("#")[0]).exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_exists(page):
    """Paths in backticks that begin with a room; those that are still to come are named in one line of architecture.md."""
    rooms = r"(?:configs|models|dataloaders|tasks|evaluation|utils|tests|scripts|docs|benchmarks)"
    named = set(re.findall(rf"`({rooms}/[\w/.-]+)`", page.read_text().partition("\nNot built yet")[0]))
    missing = {path for path in named if not (ROOT / path).exists()}
    if page.name == "extend.md":
        missing -= {"models/encoders/patch.py", f"configs/encoder/{NEW_PART}.yaml"}
    assert not missing


def rows(section):
    """Cells of the table in a section of the README, without its head."""
    body = README.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines() if line.startswith("|")][2:]


def test_the_table_of_experiments_is_complete_and_its_sizes_are_true():
    told = {re.match(r"`([^`]+)`", name)[1]: parameters for name, _, parameters, _ in rows("Experiments")}
    there = {str(path.relative_to(CONFIGS / "experiment").with_suffix("")) for path in (CONFIGS / "experiment").rglob("*.yaml")}
    assert set(told) == there
    for experiment, parameters in told.items():
        with torch.device("meta"):
            config = composed(f"experiment={experiment}")
            module = build.build_module(config, spec_for(config))
        count = sum(p.numel() for p in module.parameters())
        assert parameters in (f"{count / 1e6:.1f} M", f"{count / 1e3:.0f} k"), (experiment, count)


def test_the_table_of_parts_is_complete():
    for group, names, where in rows("Parts"):
        registry = build.REGISTRIES[group.strip("`")]
        assert set(registry.names) <= set(re.findall(r"`([^`]+)`", names)), group
        assert (ROOT / where.strip("`").partition("`")[0]).exists()


def test_settings_are_documented_as_they_are():
    assert document_configs.main(["--check"]) == 0


def test_stale_settings_are_noticed(tmp_path, monkeypatch, capsys):
    stale = tmp_path / "configs.md"
    stale.write_text(document_configs.document() + "more")
    monkeypatch.setattr(document_configs, "TARGET", stale)
    assert document_configs.main(["--check"]) == 1
    assert "python -m scripts.document_configs" in capsys.readouterr().err
    assert document_configs.main([]) == 0
    assert document_configs.main(["--check"]) == 0


def test_the_citation_file_has_what_its_format_demands():
    told = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(told)
    assert told["cff-version"] == "1.2.0"
    assert told["license"] == "MIT"
    assert f'version = "{told["version"]}"' in (ROOT / "pyproject.toml").read_text()
    for work in [told, *told["references"]]:
        assert work["title"]
        assert all("name" in author or {"family-names", "given-names"} <= set(author) for author in work["authors"])


def test_commit_hooks_run_what_is_installed():
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local"
    assert [hook["entry"].split()[0] for hook in repo["hooks"]] == ["ruff", "ruff", "pyright"]
    assert all(hook["language"] == "system" for hook in repo["hooks"])


FOLLOWED = """
import shlex
from composing import composed
from tasks.build import ENCODERS
from train import train


def test_patch_trains():
    overrides = shlex.split({command!r})
    train(composed(*overrides), overrides)


def test_patch_mistakes_are_told():
    assert {said!r} in ENCODERS.mistakes({{"_name_": "patch-encoder", "strid": 8}})[0]
"""
"""What a reader does at the end of docs/extend.md, in one process: importing torch is what takes time here."""


def test_the_worked_example_of_a_new_encoder_works_as_written(tmp_path):
    """Follows docs/extend.md in a copy of the tree."""
    for name in ("configs", "models", "dataloaders", "tasks", "evaluation", "sizing", "utils", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    text = (ROOT / "docs" / "extend.md").read_text()
    part, line = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (settings,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "models" / "encoders" / "patch.py").write_text(part)
    (tmp_path / "configs" / "encoder" / f"{NEW_PART}.yaml").write_text(settings)
    suite = tmp_path / "tests" / "models" / "test_encoders.py"
    suite.write_text(suite.read_text().replace("NODES = {\n", "NODES = {\n" + line, 1))

    command = next(line for line in text.splitlines() if line.startswith("python train.py") and "max_steps=2" in line)
    cheap = "dataset.samples=512 model.d_model=16 loader.num_workers=0 loader.batch_size=2 trainer.accelerator=cpu"
    quiet = "pictures.enabled=false logger.tensorboard=false trainer.num_sanity_val_steps=0"
    command = f"{command.removeprefix('python train.py ')} {cheap} {quiet}"
    (said,) = re.findall(r"`(encoder 'patch-encoder' has no setting[^`]+)`", text)
    (tmp_path / "tests" / "test_followed.py").write_text(FOLLOWED.format(command=command, said=" ".join(said.split())))
    suites = ["tests/models/test_encoders.py", "tests/test_followed.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *suites, "-k", "patch"], cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
    assert list(tmp_path.glob("runs/quickstart/*/checkpoints/last.ckpt"))
