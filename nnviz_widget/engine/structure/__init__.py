"""Which elements of an operation's inputs can reach which elements of its outputs, whatever their values.

One rule for each operation, in one registry. A rule is given masks of the outputs and yields masks of the
inputs; a mask is a boolean tensor with as many axes as the value, an axis of size 1 standing for "all alike
along here", so that a convolution that mixes all channels leaves one channel of mask. Values play no part:
all positions in a pooling window count, not only the largest, and a weight of zero is a connection like any
other.

To add an operation, write one decorated generator beside its like: ``sets`` (element by element, norms,
reductions), ``windows`` (convolutions, pools), ``products`` (matrix products, attention), ``moves``
(operations that only move data, and need no rule of their own). Walking from a unit to the input is
``receptive``'s work.
"""

from nnviz_widget.engine.structure import moves, products, sets, windows  # noqa: F401  they fill the registry
from nnviz_widget.engine.structure.registry import Call, UnknownStructureError, fit, reach

__all__ = ["Call", "UnknownStructureError", "fit", "reach"]
