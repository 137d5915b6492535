"""Weights and negatives carried between :mod:`benchmarks.peer_xlstm` and our model, to prove that both compute the same."""

import torch
from torch import Tensor

from benchmarks.peer_xlstm import Peer, Stage
from dataloaders.batch import Batch
from models.xlstm.convert import mlstm_block
from tasks.contrastive import Contrastive
from tasks.masking import most_hidden, positions, span_mask, token_valid
from utils.rng import Draw


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
