"""What a torch function is called, and what kind of call it is.

The recorder sees functions as torch hands them over (``TensorBase.__getitem__``, ``Tensor.mT.__get__``,
``aten.relu.default``). Here they get the name that the user would write, and the traits that decide how
they are recorded: whether they only read metadata, write into their arguments, draw random numbers, or
carry a value out of torch into Python. No tensor is touched here, and no shape is known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Traits", "may_draw", "traits_of", "words", "written_arguments"]


@dataclass(frozen=True, slots=True)
class Traits:
    """How calls of one function are recorded.

    Attributes
    ----------
    name : str
        The user's word: ``add`` for ``+``, ``add_`` and ``__iadd__`` alike.
    metadata : bool
        Reads shapes, types or devices: not part of the graph.
    writes : str
        Which arguments it may write into: empty, ``first``, ``flag`` (only a property of the first),
        ``data`` (swaps the memory of the first), ``schema``, ``statistics`` or ``renormalised``; see
        `written_arguments`.
    random : bool
        May draw random numbers.
    reads : str
        Why its result, which is no tensor, decides what Python does next; empty where it does not.
    data_shaped : bool
        The shape of its output depends on the data.
    exposes : bool
        Hands out the memory itself, where writes can no longer be seen.
    forbidden : bool
        Would change the user's model in a way that cannot be redirected.
    """

    name: str
    metadata: bool = False
    writes: str = ""
    random: bool = False
    reads: str = ""
    data_shaped: bool = False
    exposes: bool = False
    forbidden: bool = False


def words(text: str) -> frozenset[str]:
    """Return the words of a text as a set."""
    return frozenset(text.split())


_METADATA = words(
    """
    size dim ndimension numel nelement stride storage_offset element_size get_device data_ptr storage
    untyped_storage _typed_storage storage_type has_names __len__ __hash__ __repr__ __str__ __format__
    __dir__ sym_size sym_numel sym_stride sym_storage_offset dense_dim sparse_dim _is_view result_type
    can_cast promote_types retain_grad register_hook register_post_accumulate_grad_hook layout dim_order
    _dimI _dimV _nnz _set_grad_enabled set_grad_enabled _has_compatible_shallow_copy_type __reduce_ex__
    __reduce__ __setstate__ __torch_dispatch__ __dlpack_device__ get_default_dtype set_default_dtype
    get_default_device _get_tracing_state iinfo finfo broadcast_shapes _storage_Use_Count _assert_async
    _functional_assert_async
    """
)
_READS = {
    "__bool__": "bool", "is_nonzero": "bool", "item": "item", "__int__": "int", "__float__": "float",
    "__index__": "index", "__complex__": "complex", "tolist": "tolist", "equal": "equal",
    "allclose": "allclose", "__contains__": "in", "_local_scalar_dense": "item", "is_same_size": "",
}  # fmt: skip
_EXPOSES = frozenset({"numpy", "__array__", "__dlpack__", "__array_interface__", "__cuda_array_interface__"})
_DATA_SHAPED = words(
    """
    nonzero argwhere masked_select unique unique_consecutive _unique2 unique_dim bincount
    repeat_interleave combinations
    """
)
_RANDOM = re.compile(
    r"rand|dropout|normal(?!iz)|bernoulli|multinomial|poisson|uniform|exponential|cauchy|geometric|gamma|gumbel"
    r"|dirichlet|rrelu|fractional|kaiming|xavier|orthogonal|trunc|sample_|_sparse|attention|binomial"
)
_IN_PLACE_DUNDER = re.compile(
    r"__(setitem|delitem|i(add|sub|mul|div|truediv|floordiv|mod|pow|matmul|and|or|xor|lshift|rshift))__"
)
_FLAGS = frozenset({"requires_grad_", "detach_", "rename_", "share_memory_"})
_NAMES = {
    "truediv": "div", "true_divide": "div", "divide": "div", "multiply": "mul", "subtract": "sub",
    "invert": "bitwise_not", "rdiv": "div", "rtruediv": "div", "rsub": "sub", "radd": "add", "rmul": "mul",
    "rpow": "pow", "rmatmul": "matmul", "rfloordiv": "floor_divide", "floordiv": "floor_divide",
    "rmod": "remainder", "mod": "remainder", "concat": "cat", "concatenate": "cat",
    "multi_head_attention_forward": "multi_head_attention", "native_dropout": "dropout",
    "_softmax": "softmax", "_log_softmax": "log_softmax", "convolution": "conv", "idiv": "div",
    "iadd": "add", "isub": "sub", "imul": "mul", "itruediv": "div", "ifloordiv": "floor_divide",
    "imod": "remainder", "ipow": "pow", "iand": "bitwise_and", "ior": "bitwise_or", "ixor": "bitwise_xor",
    "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor", "lshift": "bitwise_left_shift",
    "rshift": "bitwise_right_shift",
}  # fmt: skip

_known: dict[Any, Traits] = {}


def traits_of(func: Callable[..., Any]) -> Traits:
    """Return the traits of a function that torch handed to a function mode."""
    try:
        return _known[func]
    except KeyError:
        traits = _classify(func)
        # Functions made on the fly (closures of a user's module) must not be kept alive from here.
        if getattr(func, "__closure__", None) is None:
            _known[func] = traits
        return traits
    except TypeError:  # not hashable
        return _classify(func)


def _classify(func: Callable[..., Any]) -> Traits:
    raw = str(getattr(func, "__name__", None) or type(func).__name__)
    if raw in {"__get__", "__set__", "__delete__"}:
        return _property(raw, str(getattr(getattr(func, "__self__", None), "__name__", "property")))
    raw = raw.rpartition(".")[0] if hasattr(func, "_schema") and "." in raw else raw
    if raw in _METADATA or (raw.startswith("is_") and raw not in {"is_nonzero"}):
        return Traits(raw, metadata=True)
    if raw in _EXPOSES:
        return Traits("numpy", reads="numpy", exposes=True)
    if _READS.get(raw):
        return Traits("decision", reads=_READS[raw])
    return Traits(
        _word(raw),
        writes=_writes(func, raw),
        random=bool(_RANDOM.search(raw)),
        data_shaped=raw in _DATA_SHAPED,
        forbidden=raw == "backward",
    )


def _property(access: str, name: str) -> Traits:
    if access == "__set__" and name == "data":
        return Traits("set_data", writes="data")
    if access != "__get__":
        return Traits(name, metadata=True, writes="flag")
    # Those that give a tensor (`.T`, `.data`, `.real`) are recorded; the recorder tells by the result.
    return Traits(name, metadata=name in _METADATA_PROPERTIES)


_METADATA_PROPERTIES = words(
    """
    shape dtype device ndim layout requires_grad grad_fn is_cuda is_leaf is_cpu is_sparse is_sparse_csr
    is_quantized is_meta is_mps is_xpu is_nested is_mkldnn is_complex names name _version output_nr
    itemsize nbytes retains_grad volatile is_xla is_ipu is_hpu is_vulkan is_maia is_mtia _backward_hooks
    _cdata grad _grad _base grad_dtype
    """
)


def _word(raw: str) -> str:
    word = raw.strip("_") or raw
    for family in ("fft_", "linalg_", "special_"):
        word = word.removeprefix(family)
    return _NAMES.get(raw, _NAMES.get(word, word))


def _writes(func: Callable[..., Any], raw: str) -> str:
    schema = getattr(func, "_schema", None)
    if schema is not None:
        return "schema" if any(a.alias_info and a.alias_info.is_write for a in schema.arguments) else ""
    if raw in _FLAGS:
        return "flag"
    if _IN_PLACE_DUNDER.fullmatch(raw) or (raw.endswith("_") and not raw.endswith("__")):
        return "first"
    if raw in {"batch_norm", "instance_norm"}:
        return "statistics"
    if raw in {"embedding", "embedding_bag"}:
        return "renormalised"
    return ""


def may_draw(traits: Traits, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether this call of a random function may draw: not dropout that is off."""
    if traits.name == "scaled_dot_product_attention":
        return bool(kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0))
    return not (kwargs.get("training") is False or kwargs.get("p") == 0)


def written_arguments(
    func: Callable[..., Any], traits: Traits, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[Any]:
    """Yield the arguments that this call writes into: tensors, or lists of them."""
    if "out" in kwargs and kwargs["out"] is not None:
        yield kwargs["out"]
    if traits.writes in {"first", "data"} or kwargs.get("inplace") is True:
        yield args[0] if args else kwargs.get("input", kwargs.get("tensor", kwargs.get("self")))
    elif traits.writes == "schema":
        for place, argument in enumerate(func._schema.arguments):  # type: ignore[attr-defined]
            if argument.alias_info and argument.alias_info.is_write:
                yield args[place] if place < len(args) else kwargs.get(argument.name)
    elif traits.writes == "statistics":
        # (input, running_mean, running_var, ...): written while normalising with the batch's own statistics.
        if kwargs.get("training") or kwargs.get("use_input_stats") or (len(args) > 5 and args[5] is True):
            # torch.batch_norm(input, weight, bias, mean, var, training, ...) but F.batch_norm(input, mean,
            # var, ...)
            first = 1 if isinstance(func, FunctionType) else 3
            yield _argument(args, kwargs, first, "running_mean")
            yield _argument(args, kwargs, first + 1, "running_var")
    elif traits.writes == "renormalised" and (kwargs.get("max_norm") is not None):
        yield _argument(args, kwargs, 1, "weight")


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], place: int, name: str) -> Any:
    return args[place] if place < len(args) else kwargs.get(name)
