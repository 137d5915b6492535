"""The parts of a run that have weights, and how fast each of their parameters learns."""

from torch import nn

from models.network import Network
from tasks.contracts import Task
from utils.initial import InitConfig, PartName

PREFIXES = {
    PartName.encoder: "network.encoder",
    PartName.backbone: "network.backbone",
    PartName.decoder: "network.decoder",
    PartName.task: "task",
}
"""Where a part's weights are in a module's, and so in a checkpoint's."""


def parts_of(network: Network, task: Task) -> dict[PartName, nn.Module]:
    """Parts by name."""
    return {
        PartName.encoder: network.encoder,
        PartName.backbone: network.backbone,
        PartName.decoder: network.decoder,
        PartName.task: task,
    }


def lr_factors(network: Network, task: Task, init: InitConfig) -> dict[nn.Parameter, float]:
    """Factor of the learning rate of every parameter: its part's, times that of its depth.

    Of n layers of the backbone, layer j from the input (0 … n − 1) has layer_decay ** (n − j), the encoder
    layer_decay ** (n + 1), decoder and task 1 (Clark et al. 2020, ELECTRA, table 6; Bao et al. 2022, BEiT, appendix H).
    """
    found: dict[nn.Parameter, float] = {}
    for name, part in parts_of(network, task).items():
        found |= dict.fromkeys(part.parameters(), float(getattr(init.lr_factors, name.value)))
    layers = [layer for layer in network.backbone.by_depth() if layer]
    for power, layer in enumerate([*reversed(layers), list(network.encoder.parameters())], 1):
        for parameter in layer:
            found[parameter] *= init.layer_decay**power
    return found
