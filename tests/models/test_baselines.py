"""PhaseNet and EQTransformer behind our contracts: the numbers of SeisBench's own, any length, gradients."""

import ast
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from seisbench_sets import seisbench_quiet

from models.backbones.eqtransformer import EQTransformer
from models.backbones.phasenet import PhaseNet, fitting
from models.contracts import BACKBONES, DECODERS, ENCODERS
from utils.errors import ConfigError
from utils.registry import import_parts

import_parts("models.decoders")
import_parts("models.encoders")
ROOT = Path(__file__).parents[2]
BASELINES = {"phasenet": PhaseNet, "eqtransformer": EQTransformer}


@pytest.fixture(scope="module")
def theirs():
    """SeisBench's models."""
    with seisbench_quiet():
        import seisbench.models as models

        yield models


def build(name, **given_):
    """A backbone with weights and running statistics far from where they start, in evaluation mode."""
    torch.manual_seed(0)
    made = BACKBONES.build({"_name_": name, **given_})
    for value in made.parameters():
        value.data += 0.05 * torch.randn_like(value)
    for value in made.buffers():
        value.data += (0.3 * torch.rand(value.shape)).to(value.dtype)
    return made.eval()


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_its_yaml_is_complete_and_builds(name):
    node = OmegaConf.to_container(OmegaConf.load(ROOT / "configs" / "model" / f"{name}.yaml"))
    assert set(node) == {"_name_", *BACKBONES.config(name).__dataclass_fields__}
    with torch.device("meta"):
        assert type(BACKBONES.build(node)) is BASELINES[name]


def test_as_many_parameters_as_seisbench_has(theirs):
    for name, other, count in (("phasenet", theirs.PhaseNet(), 268_443), ("eqtransformer", theirs.EQTransformer(), 376_935)):
        ours = sum(p.numel() for p in build(name).parameters())
        assert ours == sum(p.numel() for p in other.parameters()) == count


@pytest.mark.parametrize("samples", [3001, 4096])
def test_phasenet_gives_what_seisbench_gives_for_the_same_weights(theirs, samples):
    ours, other = build("phasenet"), theirs.PhaseNet(phases="NPS").eval()
    weights = ours.net.state_dict()
    order = [ours.net.labels.index(phase) for phase in other.labels]
    weights |= {name: weights[name][order] for name in ("out.weight", "out.bias")}
    other.load_state_dict(weights)
    wave = torch.randn(2, samples, 3)
    with torch.inference_mode():
        expected = other(wave.transpose(1, 2)).transpose(1, 2)
        noise, p, s = expected.unbind(-1)
        torch.testing.assert_close(ours(wave).softmax(-1), torch.stack([p, s, noise], -1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("samples", [6000, 4096, 517])
def test_eqtransformer_has_the_heads_of_seisbench_for_the_same_weights(theirs, samples):
    ours, other = build("eqtransformer"), theirs.EQTransformer(in_samples=samples).eval()
    other.load_state_dict(ours.net.state_dict())
    wave = torch.randn(2, samples, 3)
    with torch.inference_mode():
        detection, p, s = other(wave.transpose(1, 2))
        scores = ours(wave)
        torch.testing.assert_close(scores[..., 2].sigmoid(), detection, rtol=0, atol=1e-6)
        torch.testing.assert_close((scores[..., 0] - scores[..., 2]).sigmoid(), p, rtol=0, atol=1e-6)
        torch.testing.assert_close((scores[..., 1] - scores[..., 2]).sigmoid(), s, rtol=0, atol=1e-6)
        exclusive = torch.stack([p * (1 - s), s * (1 - p), (1 - p) * (1 - s)], -1)
        expected = exclusive / exclusive.sum(-1, keepdim=True)
        torch.testing.assert_close(scores.softmax(-1), expected, rtol=0, atol=1e-6)


def test_eqtransformer_goes_back_to_an_earlier_length():
    made = build("eqtransformer")
    wave = torch.randn(1, 301, 3)
    with torch.inference_mode():
        first = made(wave)
        made(torch.randn(1, 256, 3))
        torch.testing.assert_close(made(wave), first, rtol=0, atol=0)


@given(samples=st.integers(1, 1500))
@settings(deadline=None, max_examples=12)
def test_any_length(samples):
    for name in BASELINES:
        with torch.inference_mode():
            assert build_once(name)(torch.randn(1, samples, 3)).shape == (1, samples, 3)


_made = {}


def build_once(name):
    if name not in _made:
        _made[name] = build(name)
    return _made[name]


def test_phasenets_lengths_are_those_its_network_can_compute():
    net = build_once("phasenet").net
    wave = torch.randn(1, 3, 520)

    def works(samples):
        try:
            return net(wave[..., :samples], logits=True).shape[-1] == samples
        except RuntimeError:
            return False

    with torch.inference_mode():
        fit = [samples for samples in range(1, 521) if works(samples)]
    assert [fitting(samples) for samples in range(1, 401)] == [min(f for f in fit if f >= s) for s in range(1, 401)]
    assert fitting(3001) == 3001
    assert fitting(4096) == 4096


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_neither_is_causal_and_every_trainable_parameter_matters(name):
    made = build(name).train()
    wave = torch.randn(2, 512, 3, requires_grad=True)
    scores = made(wave)
    earlier = torch.autograd.grad(scores[:, 200].square().sum(), wave, retain_graph=True)[0].abs().sum((0, 2))
    assert not made.causal
    assert earlier[201:].any()
    scores.square().mean().backward()
    for key, p in made.named_parameters():
        assert p.grad is not None and p.grad.any() if p.requires_grad else key.endswith(".ba"), key


@pytest.mark.parametrize(("name", "bound"), [("phasenet", 0.05), ("eqtransformer", 1e-6)])
def test_bfloat16_autocast_runs_and_is_close(name, bound):
    made = build_once(name)
    wave = torch.randn(2, 512, 3)
    with torch.inference_mode():
        expected = made(wave)
        with torch.autocast("cpu", torch.bfloat16):
            scores = made(wave)
    assert scores.dtype == torch.float32
    assert ((scores - expected).norm(dim=-1) / expected.norm(dim=-1)).median() < bound


def test_without_detection_its_head_rests():
    made = build("eqtransformer", detection=False)
    scores = made(torch.randn(1, 256, 3))
    assert not scores[..., 2].any()
    frozen = {key.split(".")[1] for key, p in made.named_parameters() if not p.requires_grad and not key.endswith(".ba")}
    assert frozen == {"decoder_d", "conv_d"}


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_one_component(name):
    made = build(name, channels=1)
    assert made.d_in == 1
    assert made(torch.randn(2, 256, 1)).shape == (2, 256, 3)


def test_the_identity_decoder_passes_predictions_on_and_refuses_what_is_none():
    decoder = DECODERS.build({"_name_": "identity"}, d_in=3, d_out=3, stride=1, d_wave=3)
    context = torch.randn(2, 9, 3)
    assert decoder(context, context) is context
    for d_in, stride in ((8, 1), (3, 4)):
        with pytest.raises(ConfigError, match="model=phasenet"):
            DECODERS.build({"_name_": "identity"}, d_in=d_in, d_out=3, stride=stride, d_wave=3)


@pytest.mark.parametrize("name", BASELINES)
def test_of_data_with_one_component_the_error_names_the_setting_that_keeps_the_network_as_published(name):
    with pytest.raises(ConfigError, match=r"set model\.channels=1"):
        ENCODERS.build({"_name_": "identity"}, d_in=1, d_out=build(name).d_in)


def test_seisbench_is_imported_only_where_a_part_of_it_is_built():
    """No file that training imports does so at its top."""
    for room in ("models", "tasks", "utils", "dataloaders"):
        for path in (ROOT / room).rglob("*.py"):
            body = ast.parse(path.read_text()).body
            plain = [alias.name for node in body if isinstance(node, ast.Import) for alias in node.names]
            names = plain + [node.module or "" for node in body if isinstance(node, ast.ImportFrom)]
            assert "seisbench" not in {name.split(".")[0] for name in names}, path


@pytest.mark.parametrize(
    ("name", "given_", "text"),
    [
        ("phasenet", {"channels": 2}, r"channels = 2: must be 3 \(ZNE\) or 1 \(Z\)"),
        ("phasenet", {"filter_factor": 0}, "filter_factor = 0: must be at least 1"),
        ("eqtransformer", {"dropout": 1.0}, "dropout = 1.0: must be in"),
        ("eqtransformer", {"lstm_blocks": 0}, "lstm_blocks = 0: must be at least 1"),
    ],
)
def test_mistakes_are_told(name, given_, text):
    with pytest.raises(ConfigError, match=text):
        BACKBONES.build({"_name_": name, **given_})
