"""What is in a checkpoint, told and exported; records of earlier schemas."""

import json
import sys

import pytest
import torch
from composing import composed
from finetuning import RECONSTRUCTION, module_of
from killed_writers import content
from test_checkpoint_files import Malicious, damage

from tasks import build
from utils import checkpoint, checkpoint_record, checkpoint_show, checkpoint_weights, cli
from utils.checkpoint_files import refusal, sum_file
from utils.errors import CheckpointError


def told(*arguments, monkeypatch, capsys):
    """Exit code and text of the command."""
    monkeypatch.setattr(sys, "argv", ["checkpoint_show", *arguments])
    try:
        cli.run(checkpoint_show.show, checkpoint_show.Arguments, where="checkpoint_show")
    except SystemExit as end:
        return end.code, capsys.readouterr().out
    return 0, capsys.readouterr().out


def test_shows_a_run_and_exports_what_a_run_can_start_from(pretrained, tmp_path, monkeypatch, capsys):
    folder, name = pretrained["reconstruction"], tmp_path / "models" / "small.v1"
    code, said = told(f"checkpoint={folder}", f"export={name}", monkeypatch=monkeypatch, capsys=capsys)
    said = " ".join(said.split())
    assert code == 0
    saved, raw = checkpoint.read(folder), checkpoint.read_raw(folder)
    sizes = sum(value.numel() for value in saved.state_dict.values())
    for text in (
        "last.ckpt",
        "reconstruction/small, run run",
        "step 6, epoch 0",
        "nothing: trained from scratch",
        "model xlstm-unet",
        f"{sizes:,} in all",
        "channels 3, samples 256, rate 100.0",
        "there: a run can resume",
        f"torch {torch.__version__}",
        checkpoint.commit(),
        ", ok",
        f"wrote {name}.safetensors",
    ):
        assert text in said, text

    weights = name.with_name("small.v1.safetensors")
    back = checkpoint.read(weights)
    assert (back.config, back.data_spec, back.descent) == (saved.config, saved.data_spec, saved.descent)
    assert (back.step, back.resumable) == (6, False)
    assert set(back.state_dict) == set(saved.state_dict)
    assert all(torch.equal(value, saved.state_dict[key]) for key, value in back.state_dict.items())
    about = json.loads(name.with_name("small.v1.json").read_text())
    assert about[checkpoint.KEY] == raw[checkpoint.KEY]
    assert sum_file(weights).read_text().startswith(about["sha256"])

    one, starts, _ = module_of(*RECONSTRUCTION, f"model.checkpoint_path={weights}")
    other, _, _ = module_of(*RECONSTRUCTION, f"model.checkpoint_path={folder}")
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())
    assert "small.v1.safetensors, step 6" in starts[0].source
    with pytest.raises(CheckpointError, match="holds weights without an optimizer"):
        build.check_resume(composed(*RECONSTRUCTION), str(weights))
    code, said = told(f"checkpoint={weights}", monkeypatch=monkeypatch, capsys=capsys)
    assert (code, "not there: weights only" in said) == (0, True)


def test_weights_of_every_kind_come_back_as_they_were(tmp_path):
    shared = torch.arange(6.0).reshape(2, 3)
    state = {
        "a": shared,
        "tied": shared,
        "turned": shared.T,
        "half": torch.full((2,), 0.1, dtype=torch.bfloat16),
        "steps": torch.tensor(3),
        "none": torch.zeros(0, 4),
        "mask": torch.tensor([True, False]),
    }
    file, _ = checkpoint_weights.export({**content(5), "state_dict": state}, tmp_path / "x.safetensors")
    assert file == tmp_path / "x.safetensors"
    back = checkpoint.read(file).state_dict
    assert set(back) == set(state)
    for name, value in state.items():
        assert back[name].dtype == value.dtype
        assert torch.equal(back[name], value)


def test_damaged_and_foreign_exports_are_told(tmp_path):
    file, _ = checkpoint_weights.export(content(5), tmp_path / "x")
    damage(file, 4000)
    with pytest.raises(CheckpointError, match="refused, its SHA-256"):
        checkpoint.read(file)
    sum_file(file).unlink()
    for length in (2000, 100, 4):
        file.write_bytes(file.read_bytes()[:length])
        with pytest.raises(CheckpointError, match="damaged or no safetensors file"):
            checkpoint.read(file)
    from safetensors.torch import save_file

    for about in (None, {checkpoint.KEY: "[]"}, {checkpoint.KEY: "{}"}):
        save_file({"w": torch.ones(2)}, file, metadata=about)
        with pytest.raises(CheckpointError, match="no record of a WaveXLSTM run"):
            checkpoint.read(file)


def test_says_what_was_not_checked_and_refuses_what_is_damaged(tmp_path, monkeypatch, capsys):
    file = tmp_path / "old.ckpt"
    torch.save(content(7), file)
    code, said = told(f"checkpoint={tmp_path}", monkeypatch=monkeypatch, capsys=capsys)
    assert (code, "no old.ckpt.sha256 beside it" in said, "step 7" in said) == (0, True, True)
    checkpoint.write(content(7), file)
    damage(file, 99)
    code, _ = told(f"checkpoint={file}", monkeypatch=monkeypatch, capsys=capsys)
    assert "old.ckpt: refused, its SHA-256 is" in str(code)
    assert "delete old.ckpt.sha256" in str(code)
    canary = tmp_path / "ran"
    checkpoint.write({**content(7), "more": Malicious(canary)}, file)
    code, _ = told(f"checkpoint={file}", monkeypatch=monkeypatch, capsys=capsys)
    assert "refused by the safe loader" in str(code)
    assert not canary.exists()
    code, _ = told(f"checkpoint={file}", "export=/", monkeypatch=monkeypatch, capsys=capsys)
    assert "export = '/': must name a file" in str(code)


def test_texts_in_a_record_are_shown_as_they_are(tmp_path, monkeypatch, capsys):
    mark = {"experiment_name": "[bold red]x[/nonsense]", "run_id": 1}
    record = checkpoint.record(mark, {"classes": ["[/]"]}, ["[a]/b"])
    checkpoint.write({**content(7), checkpoint.KEY: record}, tmp_path / "x.ckpt")
    code, said = told(f"checkpoint={tmp_path}", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0
    assert "[bold red]x[/nonsense], run 1" in said
    assert "[a]/b" in said


def rename_the_encoder(content):
    """A migration as one may be: a setting and a weight get other names."""
    own = content[checkpoint.KEY]
    own["config"] = {"encoder": own["config"]["coder"]}
    content["state_dict"] = {name.replace("coder.", "encoder."): value for name, value in content["state_dict"].items()}
    return content


def count_samples(content):
    content[checkpoint.KEY]["data_spec"]["samples"] = 3072
    return content


def old(schema):
    return {
        "state_dict": {"coder.w": torch.ones(1)},
        checkpoint.KEY: {"schema": schema, "config": {"coder": {"_name_": "linear"}}, "data_spec": {}},
    }


def test_records_of_earlier_schemas_go_through_every_migration_between(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_record, "SCHEMA", 3)
    monkeypatch.setattr(checkpoint_record, "MIGRATIONS", {1: rename_the_encoder, 2: count_samples})
    for suffix, write in ((".ckpt", checkpoint.write), (".safetensors", checkpoint_weights.export)):
        write(old(1), tmp_path / f"old{suffix}")
        found = checkpoint.read(tmp_path / f"old{suffix}")
        assert found.config == {"encoder": {"_name_": "linear"}}
        assert found.data_spec == {"samples": 3072}
        assert list(found.state_dict) == ["encoder.w"]
        assert checkpoint.read_raw(tmp_path / f"old{suffix}")[checkpoint.KEY]["schema"] == 3


@pytest.mark.parametrize("schema", [0, 4, None, "1", [1]])
def test_a_schema_that_no_migration_reaches_is_told(tmp_path, monkeypatch, schema):
    monkeypatch.setattr(checkpoint_record, "SCHEMA", 3)
    monkeypatch.setattr(checkpoint_record, "MIGRATIONS", {1: rename_the_encoder, 2: count_samples})
    checkpoint.write(old(schema), tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match=r"schema .*, this version reads whole records of schema 1, 2, 3"):
        checkpoint.read(tmp_path / "x.ckpt")


def test_the_first_records_are_read_as_they_were_meant(tmp_path):
    """What the first version wrote: no lineage, no init."""
    golden = {
        "schema": 1,
        "config": {"experiment_name": "quickstart", "run_id": "1", "model": {"_name_": "xlstm-unet"}},
        "data_spec": {"channels": 3, "samples": 2048, "rate": 100.0, "target": "none", "classes": []},
        "commit": "b1a414c",
        "versions": {"torch": "2.6.0"},
    }
    checkpoint.write({**content(9), checkpoint.KEY: golden}, tmp_path / "x.ckpt")
    found = checkpoint.read(tmp_path)
    assert (found.step, found.lineage, found.descent) == (9, (), ("quickstart/1",))
    assert refusal(found.path) is None
    assert set(checkpoint_record.MIGRATIONS) == set(range(1, checkpoint_record.SCHEMA))
