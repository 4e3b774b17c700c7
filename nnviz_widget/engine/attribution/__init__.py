"""Attribution: which part of an input, or of a layer, an output depends on.

One module per family of methods; ``registry`` knows them by name, ``stream`` runs them step by step on the
engine's thread, and ``task`` is what a method works with: the inputs, the target, the baselines, and the
model to run. Methods know no thread and no widget.
"""
