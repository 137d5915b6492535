"""How many traces the sets of SeisBench have, for plans alone: a run counts its own."""

from collections.abc import Mapping

TRACES = {
    "ETHZ": 36_743,
    "GEOFON": 275_000,
    "InstanceCounts": 1_200_000,
    "Iquique": 13_400,
    "MLAAPDE": 1_900_000,
    "OBST2024": 60_000,
    "PNW": 190_000,
    "STEAD": 1_200_000,
}
"""As published: SeisBench's documentation (benchmark datasets); PNW from Ni et al. 2023 (Seismica 2, 1), STEAD from Mousavi et
al. 2019 (IEEE Access 7). All but ETHZ and Iquique are rounded there; of MLAAPDE it is the number of labelled phases."""

TRAIN_SHARE = 0.6
"""Share of the training split where nothing else is known: that of sets without a split of their own."""


def training_traces(names: list[str], weights: Mapping[str, float]) -> tuple[int | None, str]:
    """(Windows an epoch of these sets together, where the number is from); None where one of them is not listed."""
    unknown = [name for name in names if name not in TRACES]
    if unknown:
        return None, f"not known of {', '.join(unknown)}: give plan.traces"
    total = sum(TRACES[name] for name in names)
    weighted = sum(TRACES[name] * weights.get(name, 1.0) for name in names)
    origin = f"{TRAIN_SHARE:.0%} of some {total:,} published{', weighted' * bool(weights)}; plan.traces=… where you know better"
    return round(TRAIN_SHARE * weighted), origin
