"""The ptxas that forgets registers is neither used nor missed."""

import sys
from types import SimpleNamespace

import pytest

from models.xlstm.triton import assembler

SOUND = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;                                  /* 0x00000a00ff017b82 */
        /*0010*/                   S2R R9, SR_TID.X ;
        /*0020*/                   UMOV UR4, 0x400 ;
        /*0030*/                   ULDC.64 UR6, c[0x0][0x208] ;
        /*0040*/                   IMAD.WIDE R2, R9, 0x4, RZ ;
        /*0050*/              @!P0 LDG.E.128 R4, desc[UR6][R2.64] ;
        /*0060*/                   LOP3.LUT R30, R30, 0xfffffffb, RZ, 0xc0, !PT ;
        /*0070*/                   ISETP.GE.AND P0, PT, R7, 0x40, PT ;
        /*0080*/                   UIADD3 UR5, UR4, 0x20, URZ ;
        /*0090*/                   HGMMA.64x16x16.F32.BF16 R40, R4, gdesc[UR4], RZ, !UPT ;
        /*00a0*/                   FADD R47, R47, R40 ;
        /*00b0*/                   STG.E desc[UR6][R2.64], R47 ;
        /*00c0*/                   REDUX.MIN.S32 UR16, R9 ;
        /*00d0*/                   MOV R31, UR16 ;
        /*00e0*/                   RED.E.ADD.S32.STRONG.GPU desc[UR6][R2.64], R31 ;
        /*00f0*/                   EXIT ;
"""


def test_code_that_sets_what_it_reads_is_sound():
    assert assembler.unset_registers(SOUND) == []


@pytest.mark.parametrize(
    ("lost", "reader", "register"),
    [
        ("S2R R9, SR_TID.X", "IMAD.WIDE R2, R9, 0x4, RZ", "R9"),
        ("UMOV UR4, 0x400", "UIADD3 UR5, UR4, 0x20, URZ", "UR4"),
        ("IMAD.WIDE R2, R9, 0x4, RZ", "LDG.E.128 R4, desc[UR6][R2.64]", "R2"),
        ("HGMMA.64x16x16.F32.BF16 R40, R4, gdesc[UR4], RZ, !UPT", "FADD R47, R47, R40", "R40, R47"),
        ("REDUX.MIN.S32 UR16, R9", "MOV R31, UR16", "UR16"),
        ("MOV R31, UR16", "RED.E.ADD.S32.STRONG.GPU desc[UR6][R2.64], R31", "R31"),
        ("ULDC.64 UR6, c[0x0][0x208]", "HGMMA.64x16x16.F32.BF16 R40, R4, gdesc[UR4], RZ, !UPT", "UR6, UR7"),
    ],
)
def test_a_lost_write_is_found_where_the_register_is_read(lost, reader, register):
    code = "\n".join(line for line in SOUND.splitlines() if lost not in line)
    assert f"{reader}: {register}" in assembler.unset_registers(code)


def knobs(monkeypatch, mine: str, newer: str) -> SimpleNamespace:
    tools = SimpleNamespace(
        ptxas=SimpleNamespace(version=mine, path="mine"), ptxas_blackwell=SimpleNamespace(version=newer, path="newer")
    )
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(knobs=SimpleNamespace(nvidia=tools)))
    return tools


def test_on_hopper_a_newer_one_takes_the_place_of_that_of_cuda_12_8(monkeypatch):
    tools = knobs(monkeypatch, "12.8", "12.9")
    assembler.settle.__wrapped__(9)
    assert tools.ptxas == "newer"


@pytest.mark.parametrize(("mine", "major"), [("12.9", 9), ("13.0", 9), ("12.10", 9), ("12.8", 8), ("12.8", 10)])
def test_a_sound_one_and_other_gpus_are_left_alone(monkeypatch, mine, major):
    tools = knobs(monkeypatch, mine, "13.1")
    assembler.settle.__wrapped__(major)
    assert tools.ptxas.path == "mine"


def test_where_there_is_none_the_remedy_is_named(monkeypatch):
    knobs(monkeypatch, "12.8", "12.8")
    with pytest.raises(RuntimeError, match=r"ptxas 12\.8 \(mine\) .* set TRITON_PTXAS_PATH to the ptxas of CUDA 12\.9 or later"):
        assembler.settle.__wrapped__(9)
