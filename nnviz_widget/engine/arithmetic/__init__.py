"""How one number of a run came about, taken apart with the real tensors.

``asking`` finds the recorded operation that made the number, ``registry`` the family that knows it, and the
families (``convolution``, ``pooling``, ``products``, ``normalising``, ``elementwise``, ``attention``,
``recurrent``, ``moves``) take it apart. They read `Trace.ops`, so that a functional call is understood as a
module is. No model is run here.
"""

from nnviz_widget.engine.arithmetic.asking import activation_curve, arithmetic
from nnviz_widget.engine.arithmetic.result import Arithmetic, Curve, Operand

__all__ = ["Arithmetic", "Curve", "Operand", "activation_curve", "arithmetic"]
