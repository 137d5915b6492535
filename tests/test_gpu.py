"""On a CUDA device: the large experiments in bf16, no host synchronisation in a step, the same numbers as on the CPU."""

import pytest
import torch
from composing import composed
from gpu_steps import batch, step, steps_without_synchronisation

from dataloaders.batch import DataSpec
from dataloaders.normalise import PrepareConfig, prepare
from models.xlstm.mlstm import Form, mlstm
from tasks import build
from utils.rng import Draw

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

LARGE = [
    ("contrastive/xlstm_unet_seisbench", 8),
    ("contrastive/xlstm_unet_seisbench_large", 4),
    ("xlstm_large/mlstm_11m_unet", 4),
    ("xlstm_large/pure_mlstm_sequential_12m_foundation", 8),
]


def module_on(device, *overrides, samples=4096):
    torch.manual_seed(0)
    return build.build_module(composed(*overrides), DataSpec(samples=samples)).to(device)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning")
@pytest.mark.parametrize(("experiment", "size"), LARGE)
def test_a_step_of_each_large_experiment_in_bf16_without_host_synchronisation(experiment, size):
    module = module_on("cuda", f"experiment={experiment}")
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    steps_without_synchronisation(module, torch.bfloat16, size=size, samples=4096)
    moved = [name for name, value in module.named_parameters() if not torch.equal(value, before[name])]
    assert len(moved) > 0.9 * len(before)


@pytest.mark.parametrize("experiment", ["contrastive/small", "reconstruction/small"])
def test_cpu_and_gpu_agree_in_float32(experiment):
    extra = ["quantizer=nearest", "quantizer.revive_below=0"] if "contrastive" in experiment else []
    own = [f"experiment={experiment}", *extra]
    cpu, gpu = (module_on(device, *own, samples=1024).eval() for device in ("cpu", "cuda"))
    gpu.load_state_dict(cpu.state_dict())
    outputs = [step(module, batch(4, 1024, device)) for module, device in ((cpu, "cpu"), (gpu, "cuda"))]
    for module, output in zip((cpu, gpu), outputs, strict=True):
        (output.loss + output.penalty).backward()
        assert output.count == outputs[0].count.to(output.count.device), module
    assert outputs[1].loss.item() == pytest.approx(outputs[0].loss.item(), rel=1e-3)
    ours, theirs = (torch.cat([p.grad.flatten().cpu() for p in m.parameters() if p.grad is not None]) for m in (cpu, gpu))
    assert (ours - theirs).norm() <= 2e-2 * ours.norm()


def test_random_numbers_and_preparation_are_the_same_on_both_devices():
    keys = torch.tensor([0, 3, 7]), torch.tensor([5, 2**40, 1])
    cpu, gpu = (Draw(9, *(key.to(device) for key in keys)) for device in ("cpu", "cuda"))
    assert torch.equal(cpu.uniform("a", 50), gpu.uniform("a", 50).cpu())
    assert torch.equal(cpu.integers("b", 100, 50), gpu.integers("b", 100, 50).cpu())
    (one, _), (other, _) = (prepare(batch(3, 512, device), PrepareConfig()) for device in ("cpu", "cuda"))
    assert torch.allclose(one.wave, other.wave.cpu(), atol=1e-4)
    assert torch.equal(one.valid, other.valid.cpu())


@pytest.mark.parametrize("width", [64, 96])
@pytest.mark.parametrize("length", [64, 200, 1024])
def test_the_cell_in_bf16_stays_near_float64(length, width):
    torch.manual_seed(1)
    q, k, v = (torch.randn(2, 4, length, width, device="cuda") for _ in range(3))
    i, f = torch.randn(2, 4, length, device="cuda"), torch.randn(2, 4, length, device="cuda") + 3
    exact = mlstm(q.double(), k.double(), v.double(), i.double(), f.double(), form=Form.quadratic)
    norm = torch.nn.functional.layer_norm
    for form in (Form.quadratic, Form.chunkwise):
        with torch.autocast("cuda", torch.bfloat16):
            rough = mlstm(q.bfloat16(), k.bfloat16(), v.bfloat16(), i, f, form=form)
        difference = norm(rough.double(), (width,), eps=1e-6) - norm(exact, (width,), eps=1e-6)
        assert difference.norm() <= 2e-2 * norm(exact, (width,), eps=1e-6).norm()
