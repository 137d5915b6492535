"""Which ptxas turns our kernels into machine code for Hopper: never CUDA 12.8's.

That of CUDA 12.8 (12.8.93, the one Triton 3.6 calls for sm_90) loses the first write of registers that descriptors of matrix
instructions are computed from, as soon as several descriptors are a constant apart: products then read shared memory wherever
the register points. It shows as an illegal access, or as nothing at all where the register happens to hold the right number.
CUDA 12.9's, which the same wheels hold for Blackwell, does not. :func:`unset_registers` finds the fault in machine code,
without a GPU; the tests run it over every kernel.
"""

import re
from collections.abc import Iterator
from functools import cache

SOUND = (12, 9)
"""First release of CUDA whose ptxas we trust with wgmma."""
HOPPER = 9
"""Major compute capability that has wgmma."""
_LINE = re.compile(r"/\*[0-9a-f]{4,5}\*/\s+(?:@!?U?P\w+\s+)?([A-Z]\S*)\s+([^;]*);")
_NO_RESULT = (
    "ST",
    "RED.",
    "BAR",
    "BRA",
    "EXIT",
    "MEMBAR",
    "WARP",
    "BSSY",
    "BSYNC",
    "FENCE",
    "LDGSTS",
    "DEPBAR",
    "NOP",
    "CALL",
    "RET",
)


_LOW_HALVES = ("0x7610", "0x7632")
"""Selectors of PRMT that put a half of the first source into the low half of the result and keep the high one."""


def _release(version: str) -> tuple[int, ...]:
    """``12.8`` as numbers."""
    return tuple(map(int, version.split(".")))


@cache
def settle(major: int) -> None:
    """Have Triton call a ptxas we trust, in this process and those it starts; nothing changes where it does already.

    Args:
        major: compute capability of the GPU; only Hopper has what goes wrong.

    Raises:
        RuntimeError: there is none.
    """
    from triton import knobs

    if major != HOPPER or _release(knobs.nvidia.ptxas.version) >= SOUND:
        return
    newer = knobs.nvidia.ptxas_blackwell
    if _release(newer.version) < SOUND:
        raise RuntimeError(
            f"ptxas {knobs.nvidia.ptxas.version} ({knobs.nvidia.ptxas.path}) makes wrong machine code of matrix products on"
            " Hopper: set TRITON_PTXAS_PATH to the ptxas of CUDA 12.9 or later, or kernels=native"
        )
    knobs.nvidia.ptxas = newer.path


def unset_registers(code: str) -> list[str]:
    """Instructions that read a register which none before them wrote, in a listing of machine code (``cuobjdump -sass``).

    The listing is read from top to bottom, which finds no fault that only one way through a branch has. Not counted are
    instructions that set single bits or one half of a register and leave the rest: predicates and 16-bit numbers are kept so, and
    what nobody set is never asked for.
    """
    known = {"RZ", "URZ", "R1"}  # R1 is the stack pointer
    found = []
    for operation, text in _LINE.findall(code):
        words = [word.strip() for word in text.split(",")]
        results = 0 if operation.startswith(_NO_RESULT) else 1
        results += bool(results and len(words) > 2 and (_is_predicate(words[0]) or _is_predicate(words[1])))
        if not _sets_a_part(operation, words):
            read = {name for word in words[results:] for name in _read(word, words)}
            if read - known:
                found.append(f"{operation} {text.strip()}: {', '.join(sorted(read - known))}")
        known.update(name for word in words[:results] for name in _written(operation, word))
    return found


def _sets_a_part(operation: str, words: list[str]) -> bool:
    """Whether a register gets new bits, or a new half, beside those it has."""
    if operation == "PRMT":
        return words[0] == words[3] and words[2] in _LOW_HALVES
    return operation == "LOP3.LUT" and words[0] == words[1] and words[2].startswith("0x")


def _is_predicate(word: str) -> bool:
    return re.fullmatch(r"!?U?P[T\d]", word) is not None


def _read(word: str, words: list[str]) -> Iterator[str]:
    """Registers of a source; a descriptor's are two, or four where both factors lie in shared memory."""
    described = re.match(r"gdesc\[UR(\d+)\]", word)
    if described is None:
        yield from re.findall(r"\bU?R\d+\b", word)
        return
    first = int(described[1])
    one_factor = re.match(r"R\d+", words[1]) is not None and len(words) > 2 and words[2].startswith("gdesc")
    for number in range(first + 2 * one_factor, first + 4):
        yield f"UR{number}"


def _written(operation: str, word: str) -> Iterator[str]:
    """Registers of a result: as many as the operation's name says."""
    target = re.match(r"(U?R)(\d+)", word)
    if target is None:
        return
    product = re.match(r"HGMMA\.64x(\d+)x", operation)
    wide = 4 if ".128" in operation or operation.startswith(("HMMA", "LDSM")) else 1
    wide = 2 if any(part in operation for part in (".64", ".WIDE")) or operation == "CS2R" else wide
    count = int(product[1]) // 2 if product else wide
    for number in range(int(target[2]), int(target[2]) + count):
        yield f"{target[1]}{number}"
