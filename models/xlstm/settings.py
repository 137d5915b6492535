"""What a block is made from: one set of settings for both kinds, filled by the backbones."""

from dataclasses import dataclass
from enum import Enum

import torch

from models.xlstm.triton.available import too_wide


class BlockType(str, Enum):
    """Which cells a stage is made of."""

    mlstm = "mlstm"
    slstm = "slstm"
    mixed = "mixed"


class BiasInit(str, Enum):
    """Where the sLSTM gate biases start (NX-AI's names)."""

    powerlaw_blockdependent = "powerlaw_blockdependent"
    small_init = "small_init"
    zeros = "zeros"
    standard = "standard"


class Activation(str, Enum):
    """Nonlinearity of the gated feed-forward (NX-AI's names; ``relu2`` is their ``relu^2``)."""

    gelu = "gelu"
    relu = "relu"
    relu2 = "relu2"
    sigmoid = "sigmoid"
    swish = "swish"
    selu = "selu"


@dataclass(frozen=True, kw_only=True)
class BlockSettings:
    """Settings of one residual block."""

    width: int
    """D, features of a token."""
    directions: int = 1
    """P: 1, or 2 for forward and backward weights side by side."""
    dropout: float = 0.0
    """On the branch, before it is added."""
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
    """Width of the feed-forward over D, then rounded up to a multiple of 64."""
    ff_act_fn: Activation = Activation.gelu
    """Nonlinearity of the feed-forward."""
    chunk_size: int = 64
    """Longest chunk of the chunkwise mLSTM."""
    override_gate_bias: tuple[float, float, float] | None = None
    """Input-gate bias, first and last forget-gate bias of an mLSTM; None: N(0, 0.1), 3, 6."""
    gate_soft_cap: float | None = 15.0
    """Bound of the mLSTM gate pre-activations; None for none."""
    norm_eps: float = 1e-6
    """Added to the variance in every norm."""
    kernels: str = "auto"
    """Backend of the cells."""
    recompute_inner: bool = False
    """Compute q, k, v and the convolution of an mLSTM again in the backward pass; of effect with our Triton kernels."""
    index: int = 0
    """Place of the block in its residual chain; sLSTM forget biases depend on it."""
    blocks: int = 1
    """Length of the residual chain; the output projections start smaller in a long one."""

    @property
    def mlstm_inner(self) -> int:
        """Inner width of an mLSTM block."""
        return rounded_up(self.width * self.mlstm_proj_factor)

    @property
    def ff_inner(self) -> int:
        """Inner width of the feed-forward."""
        return rounded_up(self.width * self.ff_proj_factor)

    def mistakes(self, kind: BlockType) -> list[str]:
        """What does not divide or fit, one text each; empty where a block of this kind can be built."""
        wrong = []
        if kind is not BlockType.slstm:
            inner = self.mlstm_inner
            for name, parts in (
                ("mlstm_num_heads", self.mlstm_num_heads),
                ("mlstm_qkv_proj_blocksize", self.mlstm_qkv_proj_blocksize),
            ):
                if parts < 1 or inner % parts:
                    wrong.append(f"{name} = {parts}: must divide the inner width {inner} (proj factor × {self.width}, up to 64s)")
        return wrong if kind is BlockType.mlstm else wrong + self._slstm_mistakes()

    def _slstm_mistakes(self) -> list[str]:
        if self.slstm_num_heads < 1 or self.width % self.slstm_num_heads:
            return [f"slstm_num_heads = {self.slstm_num_heads}: must divide the width {self.width}"]
        reason = too_wide(self.width // self.slstm_num_heads, torch.bfloat16)
        return [f"kernels = 'triton': {reason}"] if self.kernels == "triton" and reason is not None else []


def rounded_up(width: float, multiple: int = 64) -> int:
    """The next multiple of 64 from ``width`` upwards."""
    return -int(-width // multiple) * multiple
