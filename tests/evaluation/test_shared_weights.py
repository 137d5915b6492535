"""A picker's weights as safetensors, shared without its checkpoint: the same picks, and one text for whatever is wrong."""

import json
import shutil

import numpy as np
import pytest
import torch
from composing import composed
from impulse_picker import SAMPLES, save_checkpoint
from obspy import Stream, Trace
from safetensors.torch import load_file, save_file
from seisbench_sets import seisbench_quiet

import wavexlstm
from dataloaders.batch import PICK_CLASSES, DataSpec, Target
from tasks import build
from utils import checkpoint, checkpoint_weights
from utils.checkpoint_files import sum_file
from utils.errors import CheckpointError

with seisbench_quiet():
    from evaluation import export


@pytest.fixture(scope="module")
def picker(tmp_path_factory):
    """A folder with a checkpoint of a small xLSTM picker, and its weights in a folder of their own."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("picker")
    spec = DataSpec(samples=SAMPLES, target=Target.picks, classes=PICK_CLASSES)
    module = build.build_module(composed("experiment=quickstart_finetune", f"dataset.samples={SAMPLES}"), spec)
    file = save_checkpoint(module, folder / "run.ckpt")
    (folder / "shared").mkdir()
    checkpoint_weights.export(checkpoint.read_raw(file), folder / "shared" / "net.v2")
    return folder


@pytest.fixture
def shared(picker, tmp_path):
    """A copy of the weights and their JSON, as another person gets them: without the sum file."""
    for suffix in ("safetensors", "json"):
        shutil.copy(picker / "shared" / f"net.v2.{suffix}", tmp_path)
    return tmp_path / "net.v2.safetensors"


def records():
    rng = np.random.default_rng(0)
    header = {"network": "XX", "station": "ABC", "sampling_rate": 100.0}
    return Stream([Trace(rng.normal(size=5 * SAMPLES) * 500, {**header, "channel": f"HH{letter}"}) for letter in "ZNE"])


def test_the_picks_are_those_of_the_checkpoint_bit_for_bit(picker, shared):
    stream, low = records(), {"P_threshold": 0.05, "S_threshold": 0.05}
    whole = wavexlstm.seisbench_model(str(picker / "run.ckpt"))
    wanted, curves = whole.classify(stream, **low).picks, whole.annotate(stream)
    assert len(wanted) > 0
    ways = (shared, shared.with_suffix(".json"), shared.with_suffix(""), shared.parent)
    for way in ways:
        model = wavexlstm.seisbench_model(str(way))
        assert all(np.array_equal(one.data, other.data) for one, other in zip(model.annotate(stream), curves, strict=True))
        assert [vars(pick) for pick in model.classify(stream, **low).picks] == [vars(pick) for pick in wanted]
    shared.with_suffix(".json").unlink()  # the file says itself what it is
    alone = wavexlstm.seisbench_model(str(shared))
    assert np.array_equal(alone.annotate(stream)[0].data, curves[0].data)


@pytest.mark.parametrize("name", ["net", "net_v2"])
def test_a_seisbench_model_can_be_made_of_them_beside_them(shared, name):
    weights, about = (path.rename(path.with_name(f"net_v2{path.suffix}")) for path in (shared, shared.with_suffix(".json")))
    export.export(export.Arguments(checkpoint=str(weights), output=str(weights.parent), name=name, p_threshold=0.4))
    for way in (weights.parent, weights.parent / name, weights.parent / f"{name}.json.v1", weights.parent / f"{name}.pt.v1"):
        assert wavexlstm.seisbench_model(str(way)).default_args == {"P_threshold": 0.4, "S_threshold": 0.3}
    for way in (weights, about):
        assert wavexlstm.seisbench_model(str(way)).default_args == {}


def test_weights_without_json_and_without_record_are_told(shared):
    save_file(load_file(shared), shared)  # as other programs write them: without the header's record
    shared.with_suffix(".json").unlink()
    with pytest.raises(CheckpointError, match="no record of a WaveXLSTM run in it"):
        wavexlstm.seisbench_model(str(shared))


def test_weights_of_another_task_are_told(tmp_path):
    module = build.build_module(composed("experiment=contrastive/small"), DataSpec())
    file = save_checkpoint(module, tmp_path / "run.ckpt")
    weights, _ = checkpoint_weights.export(checkpoint.read_raw(file), tmp_path / "net")
    with pytest.raises(CheckpointError, match="trained for task 'contrastive', it picks no phases"):
        wavexlstm.seisbench_model(str(weights))


def test_the_json_of_another_export_is_told(shared):
    about = shared.with_suffix(".json")
    about.write_text(json.dumps({**json.loads(about.read_text()), "sha256": "0" * 64}))
    with pytest.raises(
        CheckpointError, match=r"not 0{12}… as net\.v2\.json beside it says: one of the two is damaged, or of another"
    ):
        wavexlstm.seisbench_model(str(shared))
    about.write_text(about.read_text()[:100])
    with pytest.raises(CheckpointError, match=r"net\.v2\.json: damaged .* Copy it again, or delete it"):
        wavexlstm.seisbench_model(str(shared))
    about.write_text('{"title": "of another program"}')
    wavexlstm.seisbench_model(str(shared))


@pytest.mark.parametrize("place", [3, 300, -5])
def test_a_flipped_byte_is_told(shared, place):
    content = bytearray(shared.read_bytes())
    content[place] ^= 0x40
    shared.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        wavexlstm.seisbench_model(str(shared))


def test_a_cut_file_is_told_with_and_without_its_json(shared):
    shared.write_bytes(shared.read_bytes()[:-100])
    for _ in range(2):
        with pytest.raises(CheckpointError, match="damaged or no safetensors file"):
            wavexlstm.seisbench_model(str(shared))
        shared.with_suffix(".json").unlink(missing_ok=True)


def test_what_is_missing_and_what_is_ambiguous_is_told(shared):
    with pytest.raises(CheckpointError, match="no such file"):
        wavexlstm.seisbench_model(str(shared.with_name("other.safetensors")))
    shutil.copy(shared, shared.with_name("second.safetensors"))
    with pytest.raises(CheckpointError, match=r"holds 2 files of weights \(net\.v2\.safetensors, second\.safetensors\)"):
        wavexlstm.seisbench_model(str(shared.parent))
    shared.unlink()
    with pytest.raises(CheckpointError, match=r"its weights, net\.v2\.safetensors or net\.v2\.pt, are not beside it"):
        wavexlstm.seisbench_model(str(shared.with_suffix(".json")))


def test_the_sum_file_is_still_the_first_to_speak(picker, tmp_path):
    file = picker / "shared" / "net.v2.safetensors"
    for each in (file, sum_file(file)):
        shutil.copy(each, tmp_path)
    copy = tmp_path / file.name
    copy.write_bytes(copy.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="refused, its SHA-256"):
        wavexlstm.seisbench_model(str(copy))
