//! The allow-list: what a global named in a pickle means here. Nothing is ever imported or run.

use super::super::tensor::{Dtype, Element};
use super::value::Global;

/// What a global is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Meaning {
    /// `torch._utils._rebuild_tensor`, `_v2`: (storage, offset, size, stride, ...).
    RebuildTensor,
    /// `torch._utils._rebuild_tensor_v3`: (storage, offset, size, stride, requires_grad, hooks, dtype, ...).
    RebuildTensorV3,
    /// `torch._tensor._rebuild_from_type_v2`: (function, type, arguments, state).
    RebuildFromType,
    /// A builder whose first argument is the tensor: parameters and the variables of old versions.
    Wrapper,
    /// A builder of a tensor that is not read: quantised, sparse, nested.
    OtherTensor,
    /// A dictionary.
    Dict,
    /// A container that is called with its contents.
    Sequence,
    /// `copyreg._reconstructor`: (class, base, state).
    Reconstructor,
    /// A typed storage.
    Storage(Dtype, usize),
    /// `torch.UntypedStorage`, counted in bytes.
    UntypedStorage,
    /// An element type.
    Dtype(Dtype, usize),
    /// A callable that makes a value of no use here.
    Inert,
    /// Any other class: its instances are inert records.
    Class,
    /// Any other function: it may be named, never called.
    Function,
    /// A global that a model file has no business naming.
    Refused,
}

/// Modules whose functions and classes act on the machine, or call others.
const REFUSED: &[&str] = &[
    "_frozen_importlib",
    "_io",
    "_pickle",
    "_posixsubprocess",
    "_pyrepl",
    "_socket",
    "_thread",
    "asyncio",
    "bdb",
    "cgi",
    "code",
    "codeop",
    "commands",
    "ctypes",
    "doctest",
    "dill",
    "cloudpickle",
    "ftplib",
    "gc",
    "http",
    "httplib",
    "imp",
    "importlib",
    "inspect",
    "io",
    "joblib",
    "linecache",
    "logging",
    "marshal",
    "multiprocessing",
    "nt",
    "ntpath",
    "operator",
    "os",
    "pdb",
    "pickle",
    "pip",
    "pkgutil",
    "platform",
    "posix",
    "posixpath",
    "profile",
    "pty",
    "pydoc",
    "requests",
    "runpy",
    "setuptools",
    "shelve",
    "shutil",
    "site",
    "smtplib",
    "socket",
    "sqlite3",
    "ssl",
    "subprocess",
    "sys",
    "tempfile",
    "telnetlib",
    "test",
    "threading",
    "timeit",
    "trace",
    "types",
    "urllib",
    "urllib2",
    "venv",
    "webbrowser",
    "xmlrpc",
    "zipimport",
    "_operator",
    "builtins",
    "__builtin__",
    "__builtins__",
    "__main__.os",
];

/// What `global` means. Names with dots reach through modules (`torch`, `serialization.os.system`), so
/// only those of nested classes are taken.
pub(super) fn meaning(global: Global<'_>) -> Meaning {
    let Global { module, name } = global;
    let known = known(module, name);
    if known != Meaning::Class {
        return known;
    }
    let root = module.split('.').next().unwrap_or(module);
    if REFUSED.contains(&root) || REFUSED.contains(&module) || module.is_empty() || name.is_empty() {
        return Meaning::Refused;
    }
    let is_class = |part: &str| part.trim_start_matches('_').starts_with(char::is_uppercase);
    match name.contains('.') {
        true if name.split('.').all(is_class) => Meaning::Class,
        true => Meaning::Refused,
        false if is_class(name) => Meaning::Class,
        false => Meaning::Function,
    }
}

fn known(module: &str, name: &str) -> Meaning {
    match (module, name) {
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Meaning::RebuildTensor,
        ("torch._utils", "_rebuild_tensor_v3") => Meaning::RebuildTensorV3,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Meaning::Wrapper,
        ("torch._utils", builder) if builder.starts_with("_rebuild_") => Meaning::OtherTensor,
        ("torch._tensor", "_rebuild_from_type_v2" | "_rebuild_from_type") => Meaning::RebuildFromType,
        ("torch.nn.parameter", "Parameter" | "Buffer") | ("torch.autograd.variable", "Variable") => Meaning::Wrapper,
        ("collections", "OrderedDict" | "defaultdict" | "Counter") => Meaning::Dict,
        ("builtins" | "__builtin__", "dict") => Meaning::Dict,
        ("builtins" | "__builtin__", "set" | "frozenset" | "list" | "tuple") => Meaning::Sequence,
        ("torch", "Size") | ("collections", "deque") => Meaning::Sequence,
        // TorchScript's typed lists.
        ("torch.jit._pickle", "build_intlist" | "build_doublelist" | "build_boollist" | "build_tensorlist") => {
            Meaning::Sequence
        }
        (
            "builtins" | "__builtin__",
            "int" | "float" | "bool" | "str" | "complex" | "bytes" | "bytearray" | "object",
        )
        | ("builtins" | "__builtin__", "slice" | "range" | "unicode" | "long")
        | ("torch", "device" | "dtype" | "layout" | "memory_format" | "Generator" | "qscheme")
        | ("torch.serialization", "_get_layout")
        | ("functools", "partial")
        | ("_codecs", "encode")
        | ("datetime", "date" | "datetime" | "time" | "timedelta" | "timezone")
        | ("torch.jit._pickle", "restore_type_tag")
        | ("numpy", "dtype" | "ndarray")
        | ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer")
        | ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct" | "scalar") => Meaning::Inert,
        ("copyreg" | "copy_reg", "_reconstructor") => Meaning::Reconstructor,
        ("torch" | "torch.storage", "UntypedStorage") => Meaning::UntypedStorage,
        ("torch" | "torch.cuda" | "torch.storage", name) if name.ends_with("Storage") => storage(name),
        ("torch", name) => dtype(name).map_or_else(|| by_case(name), |(dtype, size)| Meaning::Dtype(dtype, size)),
        _ => Meaning::Class,
    }
}

/// `torch.foo` is a function, `torch.Foo` a class; the caller settles everything else.
fn by_case(name: &str) -> Meaning {
    if name.starts_with(char::is_lowercase) && !name.contains('.') { Meaning::Function } else { Meaning::Class }
}

fn storage(name: &str) -> Meaning {
    let (dtype, size) = match name {
        "HalfStorage" => (Dtype::Readable(Element::F16), 2),
        "BFloat16Storage" => (Dtype::Readable(Element::Bf16), 2),
        "FloatStorage" => (Dtype::Readable(Element::F32), 4),
        "DoubleStorage" => (Dtype::Readable(Element::F64), 8),
        "CharStorage" => (Dtype::Readable(Element::I8), 1),
        "ByteStorage" => (Dtype::Readable(Element::U8), 1),
        "BoolStorage" | "QInt8Storage" | "QUInt8Storage" | "QUInt4x2Storage" | "QUInt2x4Storage" => (other(name), 1),
        "ShortStorage" => (other(name), 2),
        "IntStorage" | "QInt32Storage" => (other(name), 4),
        "LongStorage" | "ComplexFloatStorage" => (other(name), 8),
        "ComplexDoubleStorage" => (other(name), 16),
        _ => return Meaning::Class,
    };
    Meaning::Storage(dtype, size)
}

fn dtype(name: &str) -> Option<(Dtype, usize)> {
    Some(match name {
        "float16" | "half" => (Dtype::Readable(Element::F16), 2),
        "bfloat16" => (Dtype::Readable(Element::Bf16), 2),
        "float32" | "float" => (Dtype::Readable(Element::F32), 4),
        "float64" | "double" => (Dtype::Readable(Element::F64), 8),
        "int8" => (Dtype::Readable(Element::I8), 1),
        "uint8" => (Dtype::Readable(Element::U8), 1),
        "bool" | "qint8" | "quint8" => (other(name), 1),
        "int16" | "uint16" | "short" => (other(name), 2),
        "int32" | "uint32" | "int" | "qint32" | "complex32" => (other(name), 4),
        "int64" | "uint64" | "long" | "complex64" => (other(name), 8),
        "complex128" => (other(name), 16),
        _ if name.starts_with("float8_") || name.starts_with("float4_") => (Dtype::UnreadableFloat(name.to_owned()), 1),
        _ => return None,
    })
}

fn other(name: &str) -> Dtype {
    Dtype::Other(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(module: &str, name: &str) -> Meaning {
        meaning(Global { module, name })
    }

    #[test]
    fn what_acts_on_the_machine_is_refused() {
        for (module, name) in [
            ("os", "system"),
            ("posix", "system"),
            ("nt", "system"),
            ("builtins", "eval"),
            ("__builtin__", "getattr"),
            ("subprocess", "Popen"),
            ("importlib.util", "find_spec"),
            ("torch", "serialization.os.system"),
            ("torch.nn", "Module.__init__"),
            ("", "X"),
        ] {
            assert_eq!(of(module, name), Meaning::Refused, "{module}.{name}");
        }
    }

    #[test]
    fn functions_are_told_from_classes() {
        assert_eq!(of("torch.nn.functional", "relu"), Meaning::Function);
        assert_eq!(of("torch", "load"), Meaning::Function);
        assert_eq!(of("torch.storage", "_load_from_bytes"), Meaning::Function);
        assert_eq!(of("torch.hub", "load"), Meaning::Function);
        assert_eq!(of("torch.nn.modules.conv", "Conv2d"), Meaning::Class);
        assert_eq!(of("mine", "Outer._Inner"), Meaning::Class);
        assert_eq!(of("torch", "FloatStorage"), Meaning::Storage(Dtype::Readable(Element::F32), 4));
        assert_eq!(of("torch", "bfloat16"), Meaning::Dtype(Dtype::Readable(Element::Bf16), 2));
    }
}
