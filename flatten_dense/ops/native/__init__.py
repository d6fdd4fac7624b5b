"""Kernels in C for float32 and bfloat16 on the CPU; everything here has a form in PyTorch that needs no compiler."""
