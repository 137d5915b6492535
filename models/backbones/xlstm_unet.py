"""xlstm-unet: stages of xLSTM blocks as a U-Net over T, or in a plain row (``use_unet: false``)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch.nn.functional as F
from torch import Tensor, nn

from models.contracts import BACKBONES, Backbone, BackboneConfig
from models.xlstm.block import CELL_EPS
from models.xlstm.kernels import KERNELS, kernel, mistakes, settle
from models.xlstm.probe import Case
from models.xlstm.settings import Activation, BiasInit, BlockSettings, BlockType
from models.xlstm.slstm_kernels import settle_slstm
from models.xlstm.stack import Stage, kinds_of
from utils.errors import demand


@dataclass(kw_only=True)
class XLSTMUNetConfig(BackboneConfig):
    """Settings of :class:`XLSTMUNet`."""

    d_model: int = 128
    """D, features of a token at the first stage."""
    n_layers: int = 3
    """Blocks a stage and direction; with ``use_unet: false`` the blocks of the whole model."""
    pool: list[int] = field(default_factory=lambda: [4, 4])
    """Tokens folded into one at each way down."""
    expand: int = 2
    """Growth of D at each way down."""
    dropout: float = 0.1
    """On the branch of every block, before it is added."""
    use_unet: bool = True
    """U-Net; false puts ``n_layers`` blocks in a row at full length."""
    block_type: BlockType = BlockType.mlstm
    """mlstm, slstm or mixed."""
    block_mix: list[BlockType] = field(default_factory=lambda: [BlockType.mlstm, BlockType.slstm, BlockType.mlstm])
    """With ``block_type: mixed``, the kinds of a stage's blocks, repeated."""
    bidirectional: bool = True
    """A backward block beside every forward one."""
    fuse_per_block: bool = True
    """Fuse both directions after every block; false fuses once a stage."""
    residual: bool = False
    """Add the input around each fusion. The published models have no such path."""
    mlstm_num_heads: int = 4
    """Heads of an mLSTM."""
    mlstm_conv1d_kernel_size: int = 4
    """Tokens the causal convolution of an mLSTM sees."""
    mlstm_qkv_proj_blocksize: int = 4
    """Width of the blocks of the q, k and v matrices."""
    mlstm_proj_factor: float = 2.0
    """Inner width over D, then rounded up to a multiple of 64."""
    slstm_num_heads: int = 4
    """Heads of an sLSTM."""
    slstm_conv1d_kernel_size: int = 4
    """Tokens the causal convolution of an sLSTM sees; 0 for none."""
    slstm_bias_init: BiasInit = BiasInit.powerlaw_blockdependent
    """Where the sLSTM gate biases start."""
    ff_proj_factor: float = 1.3
    """Width of the sLSTM's feed-forward over D, then rounded up to a multiple of 64."""
    ff_act_fn: Activation = Activation.gelu
    """Nonlinearity of the sLSTM's feed-forward."""
    chunk_size: int = 64
    """Longest chunk of the chunkwise mLSTM; changes speed, not numbers."""
    gradient_checkpointing: bool = False
    """Recompute blocks in the backward pass: less memory, about a third more time."""
    recompute_inner: bool = False
    """Recompute only q, k, v and the convolution of mLSTM blocks in the backward pass: a third less memory for a twentieth more
    time. With our Triton kernels; native blocks keep them."""
    override_gate_bias: list[float] | None = None
    """Input-gate bias, first and last forget-gate bias of an mLSTM; null: N(0, 0.1), 3, 6."""
    gate_soft_cap: float | None = 15.0
    """Bound of the mLSTM gate pre-activations; null for none."""
    norm_eps: float = 1e-6
    """Added to the variance in every norm; xlstm itself uses 1e-5."""
    kernels: str = "auto"
    """Backend of the mLSTM cell: auto; native, or one of its forms parallel, chunkwise, recurrent; triton; a kernel of
    mlstm_kernels as published configs name it, such as chunkwise--triton_xl_chunk, with or without mlstm_kernels: in front."""

    def __post_init__(self) -> None:
        demand(
            (self.d_model >= 1, f"d_model = {self.d_model}: must be at least 1"),
            (self.n_layers >= 1, f"n_layers = {self.n_layers}: must be at least 1"),
            (all(p >= 1 for p in self.pool), f"pool = {self.pool}: every step must be at least 1"),
            (self.expand >= 1, f"expand = {self.expand}: must be at least 1"),
            (0 <= self.dropout < 1, f"dropout = {self.dropout}: must be in [0, 1)"),
            (self.chunk_size >= 1, f"chunk_size = {self.chunk_size}: must be at least 1"),
            (
                self.mlstm_conv1d_kernel_size >= 1,
                f"mlstm_conv1d_kernel_size = {self.mlstm_conv1d_kernel_size}: must be at least 1",
            ),
            (
                self.slstm_conv1d_kernel_size >= 0,
                f"slstm_conv1d_kernel_size = {self.slstm_conv1d_kernel_size}: must be at least 0",
            ),
            (self.mlstm_proj_factor > 0, f"mlstm_proj_factor = {self.mlstm_proj_factor}: must be above 0"),
            (self.ff_proj_factor > 0, f"ff_proj_factor = {self.ff_proj_factor}: must be above 0"),
            (self.norm_eps > 0, f"norm_eps = {self.norm_eps}: must be above 0"),
            (
                self.gate_soft_cap is None or self.gate_soft_cap > 0,
                f"gate_soft_cap = {self.gate_soft_cap}: must be above 0, or null",
            ),
            (
                self.override_gate_bias is None or len(self.override_gate_bias) == 3,
                f"override_gate_bias = {self.override_gate_bias}: must be [input, first forget, last forget], or null",
            ),
            (bool(self.block_mix) and BlockType.mixed not in self.block_mix, "block_mix: must name mlstm or slstm blocks"),
        )
        wrong = [text for cfg in map(self.block, self.widths) for text in cfg.mistakes(self.block_type)]
        wrong += mistakes(self.kernels, () if wrong else self._heads, self.chunk_size)
        demand(*((False, text) for text in dict.fromkeys(wrong)))

    @property
    def widths(self) -> list[int]:
        """D on the way down: first stage to centre."""
        levels = len(self.pool) if self.use_unet else 0
        return [self.d_model * self.expand**j for j in range(levels + 1)]

    @property
    def _heads(self) -> tuple[int, ...]:
        """Widths of the heads of all mLSTM blocks, each once."""
        if BlockType.mlstm not in kinds_of(self.block_type, self.block_mix, self.n_layers):
            return ()
        return tuple(dict.fromkeys(cfg.mlstm_inner // self.mlstm_num_heads for cfg in map(self.block, self.widths)))

    def settle(self, device: str, dtype: str) -> None:
        """Find out which kernels compute the cells of a run; see :func:`models.xlstm.kernels.settle`."""
        slstm: tuple[int, ...] = ()
        if self.kernels == "triton" and BlockType.slstm in kinds_of(self.block_type, self.block_mix, self.n_layers):
            slstm = tuple(dict.fromkeys(width // self.slstm_num_heads for width in self.widths))
            settle_slstm(self.kernels, slstm, device, dtype)
        if self._heads or slstm:
            settle(self.kernels, Case(self._heads, self.chunk_size, self.gate_soft_cap, CELL_EPS, device, dtype, slstm))

    def block(self, width: int) -> BlockSettings:
        """Settings of a block at ``width``. Each is its own chain (NX-AI's stack of one block), which sets initial values"""
        bias = self.override_gate_bias
        return BlockSettings(
            width=width, directions=2 if self.bidirectional else 1, dropout=self.dropout,
            mlstm_num_heads=self.mlstm_num_heads, mlstm_conv1d_kernel_size=self.mlstm_conv1d_kernel_size,
            mlstm_qkv_proj_blocksize=self.mlstm_qkv_proj_blocksize, mlstm_proj_factor=self.mlstm_proj_factor,
            slstm_num_heads=self.slstm_num_heads, slstm_conv1d_kernel_size=self.slstm_conv1d_kernel_size,
            slstm_bias_init=self.slstm_bias_init, ff_proj_factor=self.ff_proj_factor, ff_act_fn=self.ff_act_fn,
            chunk_size=self.chunk_size, override_gate_bias=None if bias is None else (bias[0], bias[1], bias[2]),
            gate_soft_cap=self.gate_soft_cap, norm_eps=self.norm_eps, kernels=self.kernels,
            recompute_inner=self.recompute_inner,
        )  # fmt: skip


@BACKBONES.register("xlstm-unet", XLSTMUNetConfig)
@final
class XLSTMUNet(Backbone):
    """Stages at D, e·D, …, the centre, and back with skips; any length (padded to a multiple of Π pool, cropped back).

    Causal only in a row and in one direction: a U-Net's skips meet tokens that were folded with later ones.
    """

    def __init__(self, cfg: XLSTMUNetConfig) -> None:
        super().__init__()
        self.d_in = self.d_out = cfg.d_model
        self.causal = not cfg.use_unet and not cfg.bidirectional
        self.pool = list(cfg.pool) if cfg.use_unet else []
        widths = cfg.widths
        kinds = kinds_of(cfg.block_type, cfg.block_mix, cfg.n_layers)
        self.one_graph = BlockType.slstm not in kinds and cfg.kernels in KERNELS and not cfg.gradient_checkpointing

        def stage(width: int) -> Stage:
            return Stage(
                kinds,
                cfg.block(width),
                fuse_per_block=cfg.fuse_per_block,
                residual=cfg.residual,
                checkpointing=cfg.gradient_checkpointing,
            )

        self.down = nn.ModuleList([stage(width) for width in widths[:-1]])
        self.fold = nn.ModuleList([nn.Linear(p * w, cfg.expand * w) for p, w in zip(self.pool, widths, strict=False)])
        self.centre = stage(widths[-1])
        self.unfold = nn.ModuleList([nn.Linear(cfg.expand * w, p * w) for p, w in zip(self.pool, widths, strict=False)])
        self.up = nn.ModuleList([stage(width) for width in widths[:-1]])
        self.norm = nn.LayerNorm(cfg.d_model, eps=cfg.norm_eps)
        self._chosen = "triton: our Triton kernels, as asked" if cfg.kernels == "triton" else ""
        if BlockType.mlstm in kinds:
            self._chosen = kernel(cfg.kernels, chunk=cfg.chunk_size, soft_cap=cfg.gate_soft_cap, eps=CELL_EPS).chosen

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``B T D`` to context ``B T D``, any T of at least 1."""
        T = tokens.shape[1]
        x = F.pad(tokens, (0, 0, 0, -T % math.prod(self.pool)))
        skips = []
        for p, stage, fold in zip(self.pool, self.down, self.fold, strict=True):
            x = stage(x)
            skips.append(x)
            x = fold(x.reshape(x.shape[0], -1, p * x.shape[2]))
        x = self.centre(x)
        for stage, unfold, skip in zip(reversed(self.up), reversed(self.unfold), reversed(skips), strict=True):
            x = stage(unfold(x).reshape(skip.shape) + skip)
        return self.norm(x)[:, :T]

    def start(self, tokens: Tensor) -> list[Any]:
        """See :meth:`Backbone.start`."""
        self._demand_streams()
        return self.centre.start(tokens)

    def step(self, tokens: Tensor, states: Sequence[Any]) -> tuple[Tensor, list[Any]]:
        """See :meth:`Backbone.step`."""
        self._demand_streams()
        x, after = self.centre.step(tokens, states)
        return self.norm(x), after

    def by_depth(self) -> list[list[nn.Parameter]]:
        """Layer by layer along the way down, the centre and the way up; a way down belongs to the layer before it, a way up to
        the layer behind it, the last norm to the last layer."""
        down: list[Stage] = list(self.down)  # type: ignore[arg-type]
        up: list[Stage] = list(self.up)  # type: ignore[arg-type]
        layers: list[list[nn.Parameter]] = []
        for stage, fold in zip(down, self.fold, strict=True):
            layers += stage.by_depth()
            layers[-1] += fold.parameters()
        layers += self.centre.by_depth()
        for stage, unfold in zip(reversed(up), reversed(self.unfold), strict=True):
            first, *others = stage.by_depth()
            layers += [[*unfold.parameters(), *first], *others]
        layers[-1] += self.norm.parameters()
        return layers

    def describe(self) -> str:
        """Which kernels compute the cells, and why; where there is only sLSTM and only its native cell, nothing."""
        return self._chosen

    def cannot_stream(self) -> str | None:
        """See :meth:`Backbone.cannot_stream`."""
        if self.pool:
            return "a U-Net folds tokens with later ones: train it with model.use_unet=false"
        return None if self.causal else "it reads the window from its end as well: train it with model.bidirectional=false"

    def _demand_streams(self) -> None:
        reason = self.cannot_stream()
        if reason is not None:
            raise ValueError(f"xlstm-unet cannot run on a stream: {reason}")
