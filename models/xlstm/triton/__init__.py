"""The mLSTM and sLSTM cells as our own Triton kernels, forward and backward.

Only :mod:`available` may be imported on a machine without Triton. Reading order: op, launch, parts, gate_kernels,
forward_kernel, backward_kernels; inner_op, inner_launch, inner_parts, inner_kernels, exit_kernels for all of an mLSTM block
between its projections; slstm_op, slstm_launch, slstm_parts, slstm_forward, slstm_backward; resources compiles all of them
without a GPU.
"""
