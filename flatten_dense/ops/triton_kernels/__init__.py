"""Kernels for CUDA in Triton. Nothing here is imported before a tensor on a GPU asks for it: Triton may be missing."""
