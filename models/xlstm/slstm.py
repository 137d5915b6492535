"""The sLSTM cell (Beck et al. 2024, xLSTM, equations 8–18): a scan with memory mixing inside heads, gradients by hand.

    g_t = x_t + h_{t−1} R + bias, in parts i, f, z, o                    m_t = max(log σ(f_t) + m_{t−1}, i_t)
    c_t = f' c_{t−1} + i' tanh(z_t),  n_t = f' n_{t−1} + i'              h_t = σ(o_t) c_t / n_t
    with i' = exp(i_t − m_t), f' = exp(log σ(f_t) + m_{t−1} − m_t)

h does not depend on m, so m is held fixed in the gradients and they are exact. No soft cap. Shapes: T G B 4 D, where G counts
heads (of both directions, if there are two): the scan is as long for one head as for many.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.xlstm.mlstm import EMPTY


class SLSTMState(NamedTuple):
    """What the cell remembers, each ``G B D``; true c and n are times exp(m).

    Attributes:
        h, c, n, m: output, memory, normaliser, running maximum.
    """

    h: Tensor
    c: Tensor
    n: Tensor
    m: Tensor


def start_of(x: Tensor) -> SLSTMState:
    """The state before the first token of ``x`` (``T G B 4 D``)."""
    zero = x.new_zeros(*x.shape[1:3], x.shape[-1])
    return SLSTMState(zero, zero, zero, torch.full_like(zero, EMPTY))


def slstm(x: Tensor, recurrent: Tensor, bias: Tensor, state: SLSTMState | None = None) -> tuple[Tensor, SLSTMState]:
    """Run the cell over a sequence, in at least float32.

    Args:
        x: ``T G B 4 D`` gate inputs in the order i, f, z, o.
        recurrent: ``G D 4 D`` (previous output, gate, gate's feature).
        bias: ``G 4 D``.
        state: after the tokens before these; None at the start.

    Returns:
        h ``T G B D`` and the state after the last token; gradients flow through both and into ``state``.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    G, D = recurrent.shape[:2]
    with torch.autocast(x.device.type, enabled=False):
        x = (x.to(dtype) + bias.to(dtype)[:, None]).flatten(-2)
        past = start_of(x.unflatten(-1, (4, D))) if state is None else state
        h, c, n, m = _Scan.apply(x, recurrent.to(dtype).reshape(G, D, 4 * D), *past)  # pyright: ignore[reportGeneralTypeIssues]
    return h, SLSTMState(h[-1], c, n, m)


def slstm_step(x: Tensor, recurrent: Tensor, bias: Tensor, state: SLSTMState) -> tuple[Tensor, SLSTMState]:
    """One token ``G B 4 D`` by plain autograd: what the scan is checked against. Returns h ``G B D`` and the new state."""
    mixed = torch.einsum("gbd,gdke->gbke", state.h, recurrent)
    i, f, z, o = (x + mixed + bias[:, None]).unbind(2)
    a = F.logsigmoid(f) + state.m
    m = torch.maximum(a, i).detach()
    write, keep = (i - m).exp(), (a - m).exp()
    c, n = keep * state.c + write * z.tanh(), keep * state.n + write
    h = o.sigmoid() * c / n
    return h, SLSTMState(h, c, n, m)


class _Scan(torch.autograd.Function):
    """Forward over T, then backpropagation through time with everything that does not recur computed at once."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, R: Tensor, h: Tensor, c: Tensor, n: Tensor, m: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x ``T G B 4D``, R ``G D 4D``, state ``G B D``; returns h of every token, and c, n, m after the last."""
        T, G, B, _ = x.shape
        D = R.shape[1]
        raw = torch.empty_like(x)
        acts = x.new_empty(T, 2, G, B, D)
        past = x.new_empty(T + 1, 3, G, B, D)
        past[0, 0], past[0, 1], past[0, 2] = h, c, n
        for t in range(T):
            h, c, n = past[t]
            i, f, z, o = torch.baddbmm(x[t], h, R, out=raw[t]).view(G, B, 4, D).unbind(2)
            a = F.logsigmoid(f).add_(m)
            m = torch.maximum(a, i)
            write, keep = acts[t]
            torch.sub(i, m, out=write).exp_()
            torch.sub(a, m, out=keep).exp_()
            h, c_new, n_new = past[t + 1]
            torch.addcmul(keep * c, write, z.tanh(), out=c_new)
            torch.addcmul(write, keep, n, out=n_new)
            torch.div(c_new, n_new, out=h).mul_(o.sigmoid())
        ctx.save_for_backward(raw, acts, past, R)
        c, n = past[T, 1].clone(), past[T, 2].clone()
        ctx.mark_non_differentiable(m)
        return past[1:, 0].clone(), c, n, m

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, dh: Tensor, dc: Tensor, dn: Tensor, _: Tensor
    ) -> tuple[Tensor, ...]:
        """Gradients of x, R and of the state before the first token."""
        raw, acts, past, R = ctx.saved_tensors
        T, G, B, _ = raw.shape
        D = R.shape[1]
        write, keep = acts.unbind(1)
        h0, c0, n0 = past[:-1].unbind(1)
        n1, ratio = past[1:, 2], past[1:, 1] / past[1:, 2]
        _, f, z, o = raw.view(T, G, B, 4, D).unbind(3)
        z, o, closing = z.tanh(), o.sigmoid(), (-f).sigmoid()
        out_c = o / n1
        out_n = out_c * ratio
        to_o = ratio * o * (1 - o)
        to_z = write * (1 - z * z)
        to_i, c_keep, n_keep = write * z, c0 * keep, n0 * keep
        dx = torch.empty_like(raw)
        R_back = R.transpose(1, 2).contiguous()
        mixed, dc, dn = torch.zeros_like(dc), dc.clone(), dn.clone()
        dkeep = torch.zeros_like(dc)
        for t in range(T - 1, -1, -1):
            d = mixed.add_(dh[t])
            dc.addcmul_(d, out_c[t])
            dn.addcmul_(d, out_n[t], value=-1)
            di, df, dz, do = dx[t].view(G, B, 4, D).unbind(2)
            torch.addcmul(dc * to_i[t], dn, write[t], out=di)
            dkeep = torch.addcmul(dc * c_keep[t], dn, n_keep[t])
            torch.mul(dkeep, closing[t], out=df)
            torch.mul(dc, to_z[t], out=dz)
            torch.mul(d, to_o[t], out=do)
            dc.mul_(keep[t])
            dn.mul_(keep[t])
            mixed = torch.bmm(dx[t], R_back)
        rows = dx.permute(1, 0, 2, 3).reshape(G, T * B, 4 * D)
        dR = torch.bmm(h0.permute(1, 3, 0, 2).reshape(G, D, T * B), rows)
        return dx, dR, mixed, dc, dn, dkeep
