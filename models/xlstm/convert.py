"""Weights of NX-AI's ``xlstm`` 2.0.6 blocks as ours, one direction each.

The numbers are equal with ``gate_soft_cap=None, norm_eps=1e-5``, which is what xlstm computes. Differences in what is stored:
their norm gains are held minus one, their sLSTM layer feeds its ``fgate`` to the input gate and its ``igate`` to the forget
gate, and their vanilla sLSTM cell holds (gate, out, in) where ours holds (in, gate, out).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from utils.errors import CheckpointError

_MLSTM = {
    "norm.weight": "xlstm_norm.weight",
    "up.weight": "xlstm.proj_up.weight",
    "conv.weight": "xlstm.conv1d.conv.weight",
    "conv.bias": "xlstm.conv1d.conv.bias",
    "q.weight": "xlstm.q_proj.weight",
    "k.weight": "xlstm.k_proj.weight",
    "v.weight": "xlstm.v_proj.weight",
    "head_gain": "xlstm.mlstm_cell.outnorm.weight",
    "skip": "xlstm.learnable_skip",
    "down.weight": "xlstm.proj_down.weight",
}
_SLSTM = {
    "norm.weight": "xlstm_norm.weight",
    "i.weight": "xlstm.fgate.weight",
    "f.weight": "xlstm.igate.weight",
    "z.weight": "xlstm.zgate.weight",
    "o.weight": "xlstm.ogate.weight",
    "head_gain": "xlstm.group_norm.weight",
    "ff_norm.weight": "ffn_norm.weight",
    "ff_up.weight": "ffn.proj_up.weight",
    "ff_down.weight": "ffn.proj_down.weight",
}
_GAINS = ("norm.weight", "head_gain", "ff_norm.weight")
_CELL = "xlstm.slstm_cell."


def mlstm_block(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of an ``xlstm`` mLSTM block to one for :class:`models.xlstm.block.MLSTMBlock` with one direction.

    Raises:
        CheckpointError: a tensor is missing, or there is one with no place here.
    """
    gates = [f"xlstm.mlstm_cell.{gate}.{kind}" for kind in ("weight", "bias") for gate in ("igate", "fgate")]
    _complete(theirs, [*_MLSTM.values(), *gates])
    ours = _renamed(theirs, _MLSTM)
    ours["conv.weight"] = theirs["xlstm.conv1d.conv.weight"][None, :, 0]
    ours["gate_weight"] = torch.cat([theirs[name] for name in gates[:2]])[None]
    ours["gate_bias"] = torch.cat([theirs[name] for name in gates[2:]])[None]
    return ours


def slstm_block(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict of an ``xlstm`` sLSTM block (vanilla backend) to one for :class:`models.xlstm.slstm_block.SLSTMBlock`.

    Raises:
        CheckpointError: a tensor is missing, or there is one with no place here.
    """
    conv = ["xlstm.conv1d.conv.weight", "xlstm.conv1d.conv.bias"] if "xlstm.conv1d.conv.weight" in theirs else []
    _complete(theirs, [*_SLSTM.values(), *conv, f"{_CELL}_recurrent_kernel_", f"{_CELL}_bias_"])
    ours = _renamed(theirs, _SLSTM)
    if conv:
        ours["conv.weight"], ours["conv.bias"] = theirs[conv[0]][None, :, 0], theirs[conv[1]][None]
    kernel = theirs[f"{_CELL}_recurrent_kernel_"]
    H, _, D = kernel.shape
    ours["recurrent"] = kernel.view(1, H, 4, D, D).permute(0, 1, 4, 2, 3)
    ours["gate_bias"] = theirs[f"{_CELL}_bias_"].view(4, H, D).transpose(0, 1)[None]
    return {name: value.contiguous() for name, value in ours.items()}


def _renamed(theirs: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """With a direction in front; gains are theirs plus one."""
    return {ours: theirs[name][None] + (1.0 if ours in _GAINS else 0.0) for ours, name in names.items()}


def _complete(theirs: Mapping[str, Tensor], expected: list[str]) -> None:
    missing, foreign = sorted(set(expected) - set(theirs)), sorted(set(theirs) - set(expected))
    if missing or foreign:
        raise CheckpointError(
            f"not an xlstm 2.0.6 block: missing {missing or 'nothing'}, without a place here {foreign or 'nothing'}"
        )
