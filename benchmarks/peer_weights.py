"""The peer and our model on the same weights, waves, masks and negatives: both must return the same loss."""

from typing import cast

import torch
from torch import Tensor

from benchmarks.peer_xlstm import Peer, PeerConfig, Stage
from dataloaders.batch import Batch
from models.xlstm.convert import mlstm_block
from tasks.contrastive import Contrastive
from tasks.masking import most_hidden, positions, span_mask, token_valid
from tasks.module import WaveModule
from utils.rng import Draw


def losses(module: WaveModule, batch: Batch) -> tuple[float, float]:
    """Loss with penalty in evaluation mode, ours and that of a fresh peer whose weights ours gets.

    Args:
        module: of a contrastive config with ``model.gate_soft_cap=null model.norm_eps=1e-5``, which is what xlstm computes.
        batch: normalised waves ``B L C``, every sample valid.

    Raises:
        AssertionError: the weights do not map one to one.
    """
    peer = Peer(PeerConfig.of(module.config, batch.wave.shape[1])).eval()
    module.eval()
    task = cast(Contrastive, module.task)
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter += 0.02 * torch.randn_like(parameter)  # away from zeros and ones, so that none can be mixed up
        missing, foreign = module.load_state_dict(our_weights(peer), strict=False)
        if foreign or missing != ["task.quantizer.temperature"]:  # a number that evaluation does not read
            raise AssertionError(f"weights do not map one to one: missing {missing}, foreign {foreign}")
        draw = module.draw(batch, evaluating=True)
        output = task.step(module.network, batch, draw)
        count = module.config["loss"]["count"]
        hidden, negatives = our_negatives(task, batch, draw, module.network.encoder.stride, count)
        theirs = peer(batch.wave, hidden, negatives)
    return float(output.loss + output.penalty), float(theirs)


def our_weights(peer: Peer) -> dict[str, Tensor]:
    """The peer's weights under our names."""
    weights = named("network.encoder.", peer.encoder.state_dict())
    for part in ("fold", "unfold", "norm"):
        weights |= named(f"network.backbone.{part}.", getattr(peer.unet, part).state_dict())
    weights |= named("network.backbone.centre.", stage_weights(peer.unet.centre))
    for way, stages in (("down", peer.unet.down), ("up", peer.unet.up)):
        for j, stage in enumerate(stages):
            weights |= named(f"network.backbone.{way}.{j}.", stage_weights(stage))  # type: ignore[arg-type]
    for part in ("to_target", "to_context"):
        weights |= named(f"task.{part}.", getattr(peer.head, part).state_dict())
    quantizer = peer.head.quantizer
    weights |= named("task.quantizer.to_logits.", quantizer.to_logits.state_dict())
    weights["task.quantizer.vectors"] = quantizer.vectors.data.view(quantizer.groups, quantizer.codes, -1)
    weights["task.mask_token"] = peer.mask_token.data
    return weights


def stage_weights(stage: Stage) -> dict[str, Tensor]:
    """Both directions side by side, as :class:`models.xlstm.stack.Stage` holds them."""
    weights = named("fusions.", stage.fusions.state_dict())
    for j, pair in enumerate(zip(stage.forwards, stage.backwards, strict=True)):
        converted = [mlstm_block(stack.blocks[0].state_dict()) for stack in pair]  # type: ignore[union-attr]
        weights |= {f"blocks.{j}.{name}": torch.cat([one[name] for one in converted]) for name in converted[0]}
        weights[f"norms.{j}.weight"] = torch.stack([1 + stack.post_blocks_norm.weight.data for stack in pair])  # type: ignore[union-attr]
    return weights


def named(prefix: str, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same under longer names."""
    return {prefix + name: value for name, value in values.items()}


def our_negatives(task: Contrastive, batch: Batch, draw: Draw, stride: int, count: int) -> tuple[Tensor, Tensor]:
    """Hidden frames ``B T`` and negatives ``B T K`` (numbers in the flattened batch) that our task draws for a batch."""
    valid = token_valid(batch.valid, stride)
    hidden = span_mask(task.cfg.mask, valid, draw)
    B, T = hidden.shape
    at, scored = positions(hidden, most_hidden(task.cfg.mask, T))
    number = torch.arange(at.shape[1])[None, :, None]
    drawn = draw.integers("negatives", (scored.sum(1) - 1)[:, None, None], at.shape[1], count)
    drawn = drawn + (drawn >= number)
    negatives = torch.zeros(B, T, count, dtype=torch.long)
    for b in range(B):
        places = at[b][scored[b]]
        negatives[b, places] = at[b][drawn[b][scored[b]]] + b * T
    return hidden, negatives
