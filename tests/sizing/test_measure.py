"""Sizes of a step: those of tensors without numbers are those of real ones, and of counts done by hand."""

import pytest
import torch
from composing import composed, spec_for

from models.xlstm.mlstm import Form, mlstm
from sizing import measure as sizes
from sizing.measure import Alive, measure, product_counter
from tasks.build import build_module


def of(*overrides, precision="32-true", samples=512):
    config = composed(*overrides, f"dataset.samples={samples}", "loader.batch_size=3")
    return config, spec_for(config, samples), measure(config, spec_for(config, samples), precision=precision)


@pytest.mark.parametrize(
    ("overrides", "within"),
    [
        (["experiment=contrastive/small"], 1e-6),
        (["experiment=xlstm/fast"], 1e-6),
        (["experiment=baseline/phasenet"], 1e-6),
        (["experiment=reconstruction/small", "model=transformer"], 1e-6),
        # when the garbage of recomputation is collected is a matter of chance
        (["experiment=reconstruction/small", "model.gradient_checkpointing=true"], 0.5),
        # what an LSTM keeps is its library's affair
        (["experiment=reconstruction/small", "model=lstm"], 0.5),
    ],
)
def test_fake_tensors_give_the_sizes_of_real_ones(overrides, within):
    config, spec, fake = of(*overrides)
    module = build_module(config, spec).train()
    real = sizes._step(module, 3, spec, "32-true")
    assert fake.forward == real.forward > 0
    assert fake.training == real.training > 1.9 * real.forward
    assert fake.gradients == real.gradients == sum(p.numel() * 4 for p in module.parameters())
    assert fake.activations == pytest.approx(real.activations, rel=within)


@pytest.mark.parametrize(("tokens", "width", "chunk"), [(64, 16, 64), (512, 32, 32), (512, 128, 64)])
def test_products_inside_the_mlstm_are_counted_as_by_hand(tokens, width, chunk):
    q, k, v = (torch.randn(1, 1, tokens, width) for _ in range(3))
    with product_counter() as counter:
        mlstm(q, k, v, *torch.zeros(2, 1, 1, tokens), form=Form.chunkwise, chunk=chunk)
    chunks = max(1, tokens // chunk)
    within = 4 * (tokens // chunks) ** 2 * width
    memory = 4 * (tokens // chunks) * width**2 + 2 * chunks * width**2
    normaliser = 2 * (tokens // chunks) * width + 2 * chunks * width
    # a single chunk has no past to write or to read
    assert counter.get_total_flops() == chunks * (within + (memory + normaliser if tokens > chunk else 0))


def test_windows_of_slstm_networks_are_scaled_by_length(monkeypatch):
    small = ["experiment=xlstm/small_slstm", "model.n_layers=1", "model.pool=[4]", "dataset.margin=5"]
    config, spec, whole = of(*small, samples=128)
    monkeypatch.setattr(sizes, "SCAN_SAMPLES", 64)
    scaled = measure(config, spec, precision="32-true")
    assert scaled.training == pytest.approx(whole.training, rel=0.02)
    assert scaled.activations == pytest.approx(whole.activations, rel=0.05)


def test_bytes_are_counted_while_they_are_referred_to():
    known = torch.ones(1000)
    alive = Alive()
    alive.know([known])
    with alive:
        doubled = known * 2
        view = doubled.view(10, 100)
        known.add_(1)
        assert (alive.now, alive.peak) == (4000, 4000)
        del doubled
        assert alive.now == 4000
        del view
        assert alive.now == 0
        torch.zeros(500, dtype=torch.float64)
    assert alive.peak == 4000


def test_half_precision_halves_what_is_kept_and_not_the_weights():
    wide, narrow = (of("experiment=reconstruction/small", precision=precision)[2] for precision in ("32-true", "bf16-mixed"))
    assert narrow.weights == wide.weights
    assert narrow.gradients == wide.gradients
    assert 0.4 < narrow.activations / wide.activations < 0.9


@pytest.mark.parametrize(("optimizer", "moments"), [("adamw", 2), ("sgd", 1)])
def test_the_optimizer_holds_its_moments(optimizer, moments):
    _, _, step = of("experiment=baseline/phasenet", f"optimizer={optimizer}")
    trained = sum(part.trained for part in step.parts)
    assert step.optimizer == pytest.approx(4 * moments * trained, rel=0.01)


def test_what_is_frozen_has_no_gradient():
    frozen = ["experiment=contrastive/small", "init.freeze=[encoder]", "model.checkpoint_path=any.ckpt"]
    _, _, held = of(*frozen)
    _, _, free = of(frozen[0])
    encoder = next(part for part in held.parts if part.part == "encoder")
    assert encoder.trained == 0
    assert free.gradients - held.gradients == 4 * encoder.parameters
    assert held.optimizer < free.optimizer
    assert held.activations <= free.activations
