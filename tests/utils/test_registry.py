"""Registry: did-you-mean texts, all mistakes at once, types and ranges from the dataclass."""

from dataclasses import dataclass, field
from enum import Enum

import pytest

from utils.errors import ConfigError, demand
from utils.registry import Registry


class Shape(str, Enum):
    round = "round"
    square = "square"


@dataclass(kw_only=True)
class Inner:
    share: float = 0.5

    def __post_init__(self) -> None:
        demand((0 <= self.share <= 1, f"share = {self.share}: must be in 0…1"))


@dataclass(kw_only=True)
class Settings:
    width: int = 4
    pool: list[int] = field(default_factory=lambda: [2, 2])
    shape: Shape = Shape.round
    name: str | None = None
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        demand(
            (self.width >= 1, f"width = {self.width}: must be at least 1"),
            (bool(self.pool), f"pool = {self.pool}: must not be empty"),
        )


@pytest.fixture
def registry() -> Registry:
    made: Registry = Registry("encoder")

    @made.register("conv-down", Settings, aliases=("old",))
    class Part:
        def __init__(self, cfg, *, d_in=0):
            self.cfg, self.d_in = cfg, d_in

    return made


def test_builds_typed_settings_and_wiring(registry):
    part = registry.build({"_name_": "old", "width": 7, "shape": "square", "pool": [3], "inner": {"share": 1}}, d_in=3)
    assert (part.cfg.width, part.cfg.shape, part.cfg.pool, part.cfg.inner.share, part.d_in) == (7, Shape.square, [3], 1.0, 3)


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"_name_": "conv-dwon"}, ["encoder: no 'conv-dwon'. Did you mean 'conv-down'? Known: conv-down"]),
        ({"width": 3}, ["needs a mapping with '_name_'"]),
        ("linear", ["needs a mapping with '_name_'"]),
        ({"_name_": "conv-down", "widht": 3}, ["has no setting 'widht'. Did you mean 'width'? It takes: width, pool"]),
        ({"_name_": "conv-down", "width": "many"}, ["width = 'many'"]),
        ({"_name_": "conv-down", "shape": "oval"}, ["shape = 'oval'", "round"]),
        ({"_name_": "conv-down", "width": 0, "pool": [], "x": 1}, ["width = 0: must be at least 1", "pool = []", "'x'"]),
        ({"_name_": "conv-down", "inner": {"share": 2}}, ["share = 2"]),
        ({"_name_": "conv-down", "inner": {"shear": 2}}, ["shear"]),
    ],
)
def test_every_mistake_is_told(registry, node, said):
    with pytest.raises(ConfigError) as caught:
        registry.build(node)
    for text in said:
        assert text in str(caught.value)


def test_a_name_registered_twice_raises(registry):
    with pytest.raises(ValueError, match="'old' is registered twice"):
        registry.register("old", Settings)(type("Other", (), {}))


def test_settings_must_be_a_dataclass(registry):
    with pytest.raises(ValueError, match="must be a dataclass"):
        registry.register("other", dict)
