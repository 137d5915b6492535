"""On a CUDA device: pickers and classifiers train without host synchronisation and compute what they compute on the CPU."""

import pytest
import torch
from composing import composed
from gpu_steps import batch, steps_without_synchronisation

from dataloaders.batch import PICK_CLASSES, DataSpec, Target
from evaluation.picker import Picker
from tasks import build
from tasks.module import WaveModule

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

AUGMENT = ["task.augment.rotate=true", "task.augment.flip=true", "task.augment.vertical=0.3", "task.augment.noise=0.3"]
CLASSES = ("foreshock", "Visso", "aftershock")
PICKERS = [
    (["experiment=phase_picking/fine_tune_xlstm_ethz_seislm"], "bf16"),
    (["experiment=xlstm/fast", *AUGMENT], "bf16"),
    (["experiment=baseline/phasenet", *AUGMENT], "float32"),
    (["experiment=baseline/eqtransformer"], "float32"),
]


def picker_on(device: str, *overrides: str) -> WaveModule:
    torch.manual_seed(0)
    spec = DataSpec(samples=2048, target=Target.picks, classes=PICK_CLASSES)
    return build.build_module(composed(*overrides), spec).to(device)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning")
@pytest.mark.parametrize(("overrides", "precision"), PICKERS, ids=lambda value: value if isinstance(value, str) else value[0])
def test_a_step_of_each_picker_without_host_synchronisation(overrides, precision):
    steps_without_synchronisation(picker_on("cuda", *overrides), torch.bfloat16 if precision == "bf16" else torch.float32)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning")
def test_a_step_of_the_foreshock_classifier_without_host_synchronisation():
    torch.manual_seed(0)
    spec = DataSpec(samples=2048, target=Target.event_class, classes=CLASSES)
    config = composed("experiment=fore_aftershock/finetune_xlstm_unet", "dataset=foreshock_synthetic")
    steps_without_synchronisation(build.build_module(config, spec).to("cuda"), torch.bfloat16, classes=len(CLASSES))


@pytest.mark.parametrize("experiment", ["xlstm/fast", "quickstart_finetune", "baseline/phasenet"])
def test_a_picker_gives_the_same_probabilities_on_both_devices(experiment):
    pickers = [Picker(picker_on("cpu", f"experiment={experiment}"), device) for device in ("cpu", "cuda")]
    pickers[1].module.load_state_dict(picker_on("cpu", f"experiment={experiment}").state_dict())
    cpu, gpu = (picker(batch(4, 2048, "cpu")).cpu() for picker in pickers)
    torch.testing.assert_close(gpu, cpu, atol=2e-3, rtol=0)
