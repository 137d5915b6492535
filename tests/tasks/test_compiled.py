"""A training step is one graph for torch.compile: nothing breaks it in two, and it computes what the step does without."""

import pytest
import torch
from composing import composed
from gpu_steps import batch
from torch._dynamo.testing import CompileCounterWithBackend

from dataloaders.batch import DataSpec, Target
from tasks.build import build_module
from utils.errors import ConfigError

PICKS = DataSpec(samples=512, target=Target.picks, classes=("P", "S", "N"))
CLASSES = DataSpec(samples=512, target=Target.event_class, classes=("FEQ", "AEQ"))
WAVES = DataSpec(samples=512)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # of the compiler's own
@pytest.mark.parametrize(
    ("experiment", "spec", "extra"),
    [
        ("contrastive/fast", WAVES, []),
        ("reconstruction/fast", WAVES, []),
        pytest.param("contrastive/xlstm_unet_seisbench", WAVES, ["model.n_layers=1", "model.d_model=16"], marks=pytest.mark.slow),
        ("quickstart_finetune", PICKS, ["task.augment.rotate=true", "task.augment.flip=true", "task.augment.noise=0.3"]),
        pytest.param(
            "fore_aftershock/finetune_xlstm_unet",
            CLASSES,
            ["init=scratch", "model.d_model=16", "model.n_layers=1"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_step_is_one_graph_with_the_same_loss_and_gradients(experiment, spec, extra):
    torch._dynamo.reset()
    module = build_module(composed(f"experiment={experiment}", *extra), spec).train()
    graphs = CompileCounterWithBackend("aot_eager")
    batches = [batch(4, spec.samples, "cpu", classes=len(spec.classes))._replace(epoch=torch.full((4,), n)) for n in range(3)]

    def steps():
        found = []
        for raw in batches:
            torch.manual_seed(7)
            output, values, _ = module._step(raw, evaluating=False)
            gradients = torch.autograd.grad(output.loss + output.penalty, list(module.network.parameters()), allow_unused=True)
            found.append([output.loss, *values.values(), *(g for g in gradients if g is not None)])
        return found

    plain = steps()
    assert module.network.backbone.one_graph  # what trainer.compile=auto goes by
    module.compile_step(backend=graphs)
    for eager, compiled in zip(plain, steps(), strict=True):
        for a, b in zip(eager, compiled, strict=True):
            torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5)
    assert graphs.frame_count == 1


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # of the compiler's own
def test_a_compiler_that_fails_is_told_with_the_way_out():
    torch._dynamo.reset()
    module = build_module(composed("experiment=contrastive/fast"), WAVES).train()

    def broken(graph, inputs):
        raise OSError("no C compiler was found")

    module.compile_step(backend=broken)
    raw = batch(4, WAVES.samples, "cpu")
    with pytest.raises(ConfigError, match=r"(?s)no C compiler was found.*trainer\.compile=false trains without"):
        module._step(raw, evaluating=False)
    torch._dynamo.reset()
    module.compile_step(backend=broken, must=False)
    with pytest.warns(UserWarning, match=r"(?s)no C compiler was found.*and so does this run"):
        module._step(raw, evaluating=False)
    torch.manual_seed(7)
    after = module._step(raw, evaluating=False)[0].loss
    torch.manual_seed(7)
    module._compiled = None
    assert torch.equal(after, module._step(raw, evaluating=False)[0].loss)
