"""A simulator of local and regional seismograms: 100 Hz, ZNE, counts, with the onsets of P and S.

Reading order: ``settings`` what may be chosen; ``draw`` which event, path and station trace ``i`` has; ``travel_times`` when its
waves arrive; ``source`` what leaves the fault; ``path`` what is left of it, and what is scattered; ``station`` what the ground
below the sensor and the sensor do; ``noise`` what is there without earthquakes; ``faults`` what goes wrong with instruments;
``engine`` all of it together, for a batch of traces at once.

A trace is a function of (seed, index) alone: no state, no order, no dependence on the other traces of its batch.
"""

from dataloaders.simulator.engine import PHASES, Simulator, Traces
from dataloaders.simulator.settings import RATE, SimulatorConfig

__all__ = ["PHASES", "RATE", "Simulator", "SimulatorConfig", "Traces"]
