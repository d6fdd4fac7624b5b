"""Every kernel compiled for a real target, without a GPU: the interpreter lets through what a compiler does not."""

import pytest
import torch

from flatten_dense.ops.triton_kernels import attention

triton = pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget  # noqa: E402 - after the check that there is one
from triton.compiler import ASTSource  # noqa: E402

from flatten_dense.ops.inputs import Inputs  # noqa: E402
from flatten_dense.ops.triton_kernels import launch_backward, launch_forward, summing  # noqa: E402

SHARED_MEMORY = {89: 99 * 1024, 90: 227 * 1024}  # bytes that a block may have: RTX 4090, H100
POINTERS = {
    torch.float32: "*fp32",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.uint8: "*u8",
    torch.int64: "*i64",
}


def compile_for(capability, kernel, arguments, constants):
    """What triton does at a launch: 1 becomes a constant, multiples of 16 and aligned pointers are marked."""
    options = {name: constants.pop(name) for name in ("num_warps", "num_stages") if name in constants}
    signature, marks = {}, {}
    for place, (name, value) in enumerate(zip(kernel.arg_names, arguments, strict=False)):
        if isinstance(value, torch.Tensor):
            signature[name] = POINTERS[value.dtype]
            marks[(place,)] = [["tt.divisibility", 16]]
        elif value == 1:
            constants[name] = 1
        else:
            signature[name] = "i32"
            if value % 16 == 0:
                marks[(place,)] = [["tt.divisibility", 16]]
    signature = {name: signature.get(name, "constexpr") for name in kernel.arg_names}
    source = ASTSource(kernel, signature, constants, marks)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def lowered(monkeypatch, capability, dtype, channels, num_heads, masked=False, stretched=False, side=16):
    """Names of the kernels of a forward and a backward pass, with what the compiler made of each."""
    compiled = {}

    def launch(kernel, programs, arguments, **constants):
        compiled[kernel.fn.__name__] = compile_for(capability, kernel, arguments, constants)

    for module in (launch_forward, launch_backward, summing):
        monkeypatch.setattr(module, "launch", launch)
    encoding_side = side // 2 if stretched else side
    q = torch.empty(1, side**2, channels, dtype=dtype)
    scale, encoding = torch.empty(1, 1, channels), torch.empty(1, encoding_side**2, channels)
    mask = torch.zeros(1, side**2, dtype=torch.bool) if masked else None
    sizes = ((encoding_side, encoding_side), (side, side), num_heads, 3.0)
    inputs = Inputs(q, q, q, scale, encoding, mask, *sizes)
    out, context = attention.forward(inputs)
    attention.backward(out, inputs, context)
    return compiled


def check(compiled, capability):
    assert len(compiled) == 7
    too_large = {
        name: x.metadata.shared for name, x in compiled.items() if x.metadata.shared > SHARED_MEMORY[capability]
    }
    assert too_large == {}


def test_kernels_lower_and_fit(monkeypatch):
    check(lowered(monkeypatch, 90, torch.bfloat16, 96, 3, masked=True, stretched=True), 90)


@pytest.mark.slow
def test_kernels_lower_where_every_size_is_one(monkeypatch):
    check(lowered(monkeypatch, 90, torch.float32, 16, 1, masked=True, side=1), 90)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [89, 90])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(
    ("head_dim", "stretched"), [(16, True), (24, False), (64, False), (64, True), (128, False), (128, True)]
)
def test_kernels_lower_and_fit_everywhere(monkeypatch, capability, dtype, head_dim, stretched):
    if head_dim > attention.WIDE_HEAD and SHARED_MEMORY[capability] < attention.SHARED_MEMORY_FOR_WIDE_HEADS:
        pytest.skip("such heads are left to another form there")
    check(lowered(monkeypatch, capability, dtype, 3 * head_dim, 3, masked=True, stretched=stretched), capability)
