"""The mLSTM cell as our own Triton kernels, forward and backward.

Only :mod:`available` may be imported on a machine without Triton. Reading order: op, launch, parts, gate_kernels,
forward_kernel, backward_kernels; resources compiles them without a GPU.
"""
