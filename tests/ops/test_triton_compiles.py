"""Compiles the Triton kernels for GPUs that this machine need not have: Triton ships the assembler."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

FP32 = ("table_ptr", "pad_ptr", "scale_ptr", "lse_ptr", "delta_ptr", "grad_bias_ptr", "grad_pad_ptr", "grad_scale_ptr")
"""Pointers to fp32 in every case; the others have the dtype of qkv."""
SHARED_MEMORY = 99 * 1024
"""Bytes that a program can have on the smallest GPU supported, sm_86; sm_80 and sm_90 have more."""

# Dtype, window, channels of a head, V2
CASES = {
    "bf16, one tile": (torch.bfloat16, (7, 7), 32, False),
    "bf16, one tile, V2, 64 channels": (torch.bfloat16, (8, 8), 64, True),
    "bf16, several tiles, V2": (torch.bfloat16, (16, 16), 32, True),
    "fp32, one tile": (torch.float32, (7, 7), 32, False),
    "fp32, several tiles": (torch.float32, (12, 12), 32, False),
}


def compiled(kernel, dtype, window, head_dim, cosine, capability):
    """Compiles a kernel as it is launched, with pointers and sizes of unknown values."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from swin_lab.ops import triton_kernels
    from swin_lab.ops.triton_launch import constants, options

    values = constants(window, (window[0] // 2, 0), head_dim, cosine=cosine, pad_value=True, tf32=False)
    forward = kernel is triton_kernels.forward_kernel
    chosen = options(forward, dtype, values["BLOCK_T"], values["BLOCK_D"], cosine)
    element = {torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.float32: "*fp32"}[dtype]
    signature, alignment = {}, {}
    for i, name in enumerate(kernel.arg_names):
        if name.endswith("_ptr"):
            signature[name] = "*fp32" if name in FP32 else element
            alignment[i,] = [["tt.divisibility", 16]]
        else:
            signature[name] = "constexpr" if name in values else "i32"
    fixed = {(i,): values[name] for i, name in enumerate(kernel.arg_names) if name in values}
    warps = {"num_warps": chosen.num_warps, "num_stages": chosen.num_stages}
    return compile(ASTSource(kernel, signature, fixed, alignment), GPUTarget("cuda", capability, 32), warps)


def compile_all(cases=CASES, capabilities=(80, 90)):
    """Compiles the kernels of every case; prints registers, spilled bytes (stack) and shared memory."""
    from swin_lab.ops import triton_kernels as kernels
    from swin_lab.ops import triton_tiled_backward as tiled

    several = (tiled.backward_queries_kernel, tiled.backward_keys_kernel, tiled.backward_bias_kernel)
    for name, (dtype, window, head_dim, cosine) in cases.items():
        backward = several if window[0] * window[1] > 64 else (kernels.backward_kernel,)
        for kernel in (kernels.forward_kernel, *backward):
            for capability in capabilities:
                result = compiled(kernel, dtype, window, head_dim, cosine, capability)
                assert result.metadata.shared <= SHARED_MEMORY, (name, kernel.fn.__name__)
                print(f"{name:32s} {kernel.fn.__name__:24s} sm_{capability} {resources(result)}", flush=True)


def resources(result):
    """Returns what cuobjdump, which Triton ships, says about a compiled kernel."""
    import tempfile

    import triton

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(result.asm["cubin"])
        file.flush()
        tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
        printed = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True).stdout
    usage = dict(part.split(":", 1) for part in printed.split() if part.startswith(("REG:", "STACK:")))
    warps, shared = result.metadata.num_warps, result.metadata.shared
    return f"warps {warps:2d}, registers {usage['REG']:>3s}, stack {usage['STACK']:>4s} B, shared {shared // 1024:2d} KiB"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Triton compiles on Linux only")
def test_all_kernels_compile_for_hopper(tmp_path):
    """In a process of its own, because the tests of the interpreter import Triton in another mode; about 12 s of one core."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run([sys.executable, __file__, "90"], capture_output=True, text=True, env=environment, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("registers") == 14


if __name__ == "__main__":
    compile_all(capabilities=[int(number) for number in sys.argv[1:]] or (80, 90))
