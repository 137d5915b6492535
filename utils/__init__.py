"""The leaf room: registry, config schema, checkpoints, optimisation, randomness. Imports none of the other rooms."""
