"""The network: three parts in a row."""

from typing import final

from torch import Tensor, nn

from models.contracts import Backbone, Decoder, Encoder


@final
class Network(nn.Module):
    """encoder → backbone → decoder. Tasks that work on tokens call the parts themselves."""

    def __init__(self, encoder: Encoder, backbone: Backbone, decoder: Decoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.backbone = backbone
        self.decoder = decoder

    @property
    def causal(self) -> bool:
        """No output depends on a later sample than its own token's last."""
        return self.encoder.causal and self.backbone.causal and self.decoder.causal

    def forward(self, wave: Tensor, valid: Tensor | None = None) -> Tensor:
        """Wave ``B L C`` (and which of its samples exist, ``B L``) to the decoder's prediction ``B L d_out`` or ``B d_out``."""
        return self.decoder(self.backbone(self.encoder(wave)), wave, valid)
