"""The contrastive model assembled from the ``xlstm`` package as one would write it straight from the papers.

The opponent of ``benchmarks.step_cpu``: same architecture, weights and mathematics as ``contrastive/xlstm_unet_seisbench``,
no trick and no brake. Blocks are NX-AI's ``xLSTMBlockStack`` of one block with its norm, a stack a direction, with the
package's default cell (``parallel_stabilized_simple``, T² a head) and the context length of the stage. Quantizer and loss
follow the public wav2vec 2.0 code (Baevski et al. 2020): one-hot codes times codebook as a ``[B·T, G·V, d]`` product,
negatives gathered as vectors, and both for every frame, hidden or not.

B batch, L samples, C channels, T tokens, D width of a stage, F width of the features, E width of the comparison, G groups,
V codes a group, K negatives.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from xlstm import mLSTMBlockConfig, mLSTMLayerConfig, xLSTMBlockStack, xLSTMBlockStackConfig

EPS = 1e-5
"""Of every norm; xlstm's own."""


@dataclass(frozen=True)
class PeerConfig:
    """What the peer reads of a composed config, and the length it is built for (its cells hold a mask of that length)."""

    samples: int
    encoder: Mapping[str, Any]
    model: Mapping[str, Any]
    quantizer: Mapping[str, Any]
    loss: Mapping[str, Any]
    task: Mapping[str, Any]
    channels: int = 3

    def __post_init__(self) -> None:
        fold = 2 ** self.encoder["layers"] * int(np.prod(self.model["pool"]))
        if self.samples % fold:
            raise ValueError(f"samples = {self.samples}: the peer pads nothing, so it must be a multiple of {fold}")

    @classmethod
    def of(cls, config: Mapping[str, Any], samples: int) -> "PeerConfig":
        """From a composed config."""
        return cls(samples, *(config[section] for section in ("encoder", "model", "quantizer", "loss", "task")))

    @property
    def tokens(self) -> int:
        """T of the first stage."""
        return self.samples // 2 ** self.encoder["layers"]


class Encoder(nn.Module):
    """[Conv1d(k 3, stride 2) → LayerNorm → GELU] a layer, LayerNorm; a Linear to the backbone's width."""

    def __init__(self, cfg: PeerConfig) -> None:
        super().__init__()
        width = cfg.encoder["width"]
        widths = [cfg.channels] + [width] * cfg.encoder["layers"]
        self.convs = nn.ModuleList(nn.Conv1d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in widths[1:])
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, cfg.model["d_model"])

    def forward(self, wave: Tensor) -> Tensor:
        """Wave ``B L C`` to features ``B T F``."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            wave = F.gelu(norm(conv(wave.transpose(1, 2)).transpose(1, 2)))
        return self.norm(wave)


class Stage(nn.Module):
    """Layers of a forward and a backward block, each followed by its norm, fused by Linear(2D → D)."""

    def __init__(self, cfg: Mapping[str, Any], width: int, tokens: int) -> None:
        super().__init__()
        layers = range(cfg["n_layers"])
        self.forwards = nn.ModuleList(one_block(cfg, width, tokens) for _ in layers)
        self.backwards = nn.ModuleList(one_block(cfg, width, tokens) for _ in layers)
        self.fusions = nn.ModuleList(nn.Linear(2 * width, width) for _ in layers)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens ``B T D`` to the same shape."""
        for ahead, back, fusion in zip(self.forwards, self.backwards, self.fusions, strict=True):
            x = fusion(torch.cat([ahead(x), back(x.flip(1)).flip(1)], -1))
        return x


def one_block(cfg: Mapping[str, Any], width: int, tokens: int) -> xLSTMBlockStack:
    """NX-AI's stack of one mLSTM block and its norm, for sequences of ``tokens``."""
    layer = mLSTMLayerConfig(
        conv1d_kernel_size=cfg["mlstm_conv1d_kernel_size"],
        qkv_proj_blocksize=cfg["mlstm_qkv_proj_blocksize"],
        num_heads=cfg["mlstm_num_heads"],
        proj_factor=cfg["mlstm_proj_factor"],
    )
    settings = xLSTMBlockStackConfig(
        mlstm_block=mLSTMBlockConfig(mlstm=layer),
        context_length=tokens,
        num_blocks=1,
        embedding_dim=width,
        dropout=cfg["dropout"],
    )
    return xLSTMBlockStack(settings)


class UNet(nn.Module):
    """Stages at D, e·D, …, the centre, and back with skips; T must be a multiple of Π pool."""

    def __init__(self, cfg: PeerConfig) -> None:
        super().__init__()
        model, tokens = cfg.model, cfg.tokens
        pool, expand = model["pool"], model["expand"]
        widths = [model["d_model"] * expand**j for j in range(len(pool) + 1)]
        lengths = [tokens // int(np.prod(pool[:j])) for j in range(len(pool) + 1)]
        levels = list(zip(widths, lengths, strict=True))
        self.pool = pool
        self.down = nn.ModuleList(Stage(model, width, length) for width, length in levels[:-1])
        self.fold = nn.ModuleList(nn.Linear(p * w, expand * w) for p, w in zip(pool, widths, strict=False))
        self.centre = Stage(model, *levels[-1])
        self.unfold = nn.ModuleList(nn.Linear(expand * w, p * w) for p, w in zip(pool, widths, strict=False))
        self.up = nn.ModuleList(Stage(model, width, length) for width, length in levels[:-1])
        self.norm = nn.LayerNorm(model["d_model"], eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens ``B T D`` to context ``B T D``."""
        skips = []
        for p, stage, fold in zip(self.pool, self.down, self.fold, strict=True):
            x = stage(x)
            skips.append(x)
            x = fold(x.reshape(x.shape[0], x.shape[1] // p, -1))
        x = self.centre(x)
        for j in reversed(range(len(self.pool))):
            x = self.up[j](self.unfold[j](x).reshape(skips[j].shape) + skips[j])
        return self.norm(x)


class Quantizer(nn.Module):
    """Hard Gumbel-softmax codes (argmax in evaluation), looked up as one-hot times codebook, as wav2vec 2.0's code does."""

    def __init__(self, cfg: PeerConfig) -> None:
        super().__init__()
        settings, features = cfg.quantizer, cfg.encoder["width"]
        self.groups, self.codes, self.width = settings["groups"], settings["codes"], settings["width"]
        self.temperature = settings["temperature_start"]
        self.scale = features**-0.5 if settings["scale_logits_in_quantization"] else 1.0
        self.to_logits = nn.Linear(features, self.groups * self.codes)
        self.vectors = nn.Parameter(torch.rand(1, self.groups * self.codes, self.width // self.groups))
        nn.init.normal_(self.to_logits.weight)
        nn.init.zeros_(self.to_logits.bias)

    def forward(self, features: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``B T F``, hidden ``B T`` to vectors ``B T width`` and the perplexity over hidden frames, a scalar."""
        B, T, _ = features.shape
        logits = (self.to_logits(features) * self.scale).view(B * T * self.groups, -1)
        if self.training:
            choice = F.gumbel_softmax(logits, tau=self.temperature, hard=True)
        else:
            choice = F.one_hot(logits.argmax(-1), self.codes).type_as(logits)
        soft = logits.view(B * T, self.groups, -1).softmax(-1)
        share = torch.where(hidden.flatten()[:, None, None], soft, 0.0).sum(0) / hidden.sum()
        perplexity = torch.exp(-torch.xlogy(share, share).sum(-1)).sum()
        product = choice.view(B * T, -1, 1) * self.vectors  # B·T G·V d
        vectors = product.view(B * T, self.groups, self.codes, -1).sum(-2)
        return vectors.view(B, T, -1), perplexity


class Head(nn.Module):
    """Quantizer, projections and InfoNCE; negatives are gathered as vectors for every frame."""

    def __init__(self, cfg: PeerConfig) -> None:
        super().__init__()
        self.quantizer = Quantizer(cfg)
        self.to_target = nn.Linear(cfg.quantizer["width"], cfg.task["width"])
        self.to_context = nn.Linear(cfg.model["d_model"], cfg.task["width"])
        self.diversity = cfg.task["diversity"]
        self.temperature = cfg.loss["temperature"]

    def forward(self, features: Tensor, context: Tensor, hidden: Tensor, negatives: Tensor) -> Tensor:
        """The loss, mean over hidden frames, with the diversity penalty.

        Args:
            features: ``B T F``, clean.
            context: ``B T D``.
            hidden: ``B T`` bool.
            negatives: ``B T K`` int64, numbers of frames in the flattened batch.
        """
        vectors, perplexity = self.quantizer(features, hidden)
        target, context = self.to_target(vectors), self.to_context(context)
        wrong = target.flatten(0, 1)[negatives.flatten()].view(*negatives.shape, -1).permute(2, 0, 1, 3)  # K B T E
        logits = torch.cosine_similarity(context, torch.cat([target[None], wrong]), dim=-1) / self.temperature  # K+1 B T
        same = (target == wrong).all(-1)
        logits = torch.cat([logits[:1], logits[1:].masked_fill(same, -torch.inf)])
        label = torch.where(hidden, 0, -100)  # −100: not scored
        loss = F.cross_entropy(logits.permute(1, 2, 0).flatten(0, 1), label.flatten())
        size = self.quantizer.groups * self.quantizer.codes
        return loss + self.diversity * (size - perplexity) / size


class Peer(nn.Module):
    """Encoder, U-Net and head."""

    def __init__(self, cfg: PeerConfig) -> None:
        super().__init__()
        self.encoder = Encoder(cfg)
        self.unet = UNet(cfg)
        self.head = Head(cfg)
        self.mask_token = nn.Parameter(torch.rand(cfg.model["d_model"]))

    def context(self, wave: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Wave ``B L C``, hidden ``B T`` to clean features ``B T F`` and context ``B T D``."""
        features = self.encoder(wave)
        tokens = self.encoder.projection(features)
        return features, self.unet(torch.where(hidden[..., None], self.mask_token, tokens))

    def forward(self, wave: Tensor, hidden: Tensor, negatives: Tensor) -> Tensor:
        """The loss, a scalar; arguments as in :meth:`context` and :meth:`Head.forward`."""
        features, context = self.context(wave, hidden)
        return self.head(features, context, hidden, negatives)


def draw_mask(batch: int, tokens: int, mask: Mapping[str, Any], rng: np.random.Generator) -> np.ndarray:
    """wav2vec 2.0's overlapping spans, trace by trace: ``B T`` bool, True where hidden."""
    hidden = np.zeros((batch, tokens), dtype=bool)
    for row in hidden:
        count = int(mask["ratio"] * tokens / mask["span"] + rng.random())
        for start in rng.choice(tokens - mask["span"] + 1, count, replace=False):
            row[start : start + mask["span"]] = True
    return hidden


def draw_negatives(hidden: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """For each hidden frame ``count`` other hidden frames of its trace, as numbers in the flattened batch: ``B T K``.

    Frames that are not hidden get frame 0 of their trace; they are not scored.
    """
    batch, tokens = hidden.shape
    chosen = np.zeros((batch, tokens, count), dtype=np.int64)
    for b in range(batch):
        places = np.flatnonzero(hidden[b])
        drawn = rng.integers(0, len(places) - 1, (len(places), count))
        drawn += drawn >= np.arange(len(places))[:, None]  # never the frame itself
        chosen[b, places] = places[drawn]
        chosen[b] += b * tokens
    return chosen
