"""The widget: traits and wiring over the engine and the wire, nothing else."""
