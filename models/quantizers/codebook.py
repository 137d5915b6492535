"""Settings that every quantizer with grouped codes has."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class CodebookConfig:
    """Size of the codebooks."""

    groups: int = 2
    """G, codebooks whose codes are concatenated, at least 1."""
    codes: int = 320
    """V, codes a group, at least 2."""
    width: int = 256
    """Width of the quantized vectors, a multiple of ``groups``."""

    def rules(self) -> list[tuple[bool, str]]:
        """For :func:`utils.errors.demand`, beside a quantizer's own."""
        return [
            (self.groups >= 1, f"groups = {self.groups}: must be at least 1"),
            (self.codes >= 2, f"codes = {self.codes}: must be at least 2"),
            (
                self.groups >= 1 and self.width >= 1 and self.width % self.groups == 0,
                f"width = {self.width}: must be a positive multiple of groups = {self.groups}",
            ),
        ]
