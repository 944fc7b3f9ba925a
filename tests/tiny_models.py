"""Language models small enough for a test, with random weights and a tokenizer of bytes; and how two states compare."""

import hashlib
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

__all__ = ["CONTEXT", "EOS", "TEXTS", "adapters", "byte_tokenizer", "described", "gpt2", "llama", "randomness", "save"]

CONTEXT = 128
EOS = 256
TEXTS = ["the cat sat on the mat", "a ship sailed out to sea", "the cat sat on the rug"]


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte of UTF-8, no special tokens of its own."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={char: place for place, char in enumerate(alphabet)} | {"<eos>": EOS}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>")


def llama(seed: int = 0, *, tied: bool = False, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    """Without dropout, in evaluation mode."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=EOS + 1,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=tied,
        bos_token_id=EOS,
        eos_token_id=EOS,
    )
    return LlamaForCausalLM(config).to(dtype).eval()


def gpt2(seed: int = 0) -> GPT2LMHeadModel:
    """With dropout and tied weights, in evaluation mode."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=EOS + 1,
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=CONTEXT,
        bos_token_id=EOS,
        eos_token_id=EOS,
    )
    return GPT2LMHeadModel(config).eval()


def adapters(model: Any, *, trainable: bool = True, seed: int = 3) -> Any:
    """A model of peft over it, its adapters trained once already, so to say: none of their weights is zero."""
    torch.manual_seed(seed)
    made = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], inference_mode=not trainable))
    for name, parameter in made.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.2)
            parameter.requires_grad_(trainable)
    return made.eval()


def save(folder: Path, model: Any) -> str:
    """The model and its tokenizer in a folder."""
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


def described(model: Any) -> dict[str, Any]:
    """All of a model that has to be as it was, as plain values: which object, where in memory, which bits."""
    tensors = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    return {
        "keys": list(model.state_dict()),
        "tensors": {name: (id(t), t.data_ptr(), t.requires_grad, *_bits(t)) for name, t in tensors.items()},
        "gradients": {name: (id(t.grad), *_bits(t.grad)) for name, t in tensors.items() if t.grad is not None},
        "modules": {name: (id(module), _attributes(module)) for name, module in model.named_modules()},
        "config": (id(model.config), model.config.to_dict()),
        "generation": (id(model.generation_config), model.generation_config.to_dict()),
    }


def randomness() -> tuple[str, str, str]:
    """Where the generators of torch, numpy and Python stand."""
    return (
        _digest(torch.get_rng_state().numpy().tobytes()),
        _digest(repr(np.random.get_state()[1:]).encode() + np.random.get_state()[1].tobytes()),  # type: ignore[index]
        _digest(repr(random.getstate()).encode()),
    )


def _bits(tensor: torch.Tensor) -> tuple[str, tuple[int, ...], str]:
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    return str(tensor.dtype), tuple(tensor.shape), _digest(flat.numpy().tobytes())


def _attributes(module: torch.nn.Module) -> dict[str, Any]:
    """Plain values, modes among them, as they are; containers by what they hold; other objects by which they are."""
    told: dict[str, Any] = {}
    for name, value in vars(module).items():
        if isinstance(value, dict):
            told[name] = [(key, id(held)) for key, held in value.items()]
        elif value is None or isinstance(value, bool | int | float | str):
            told[name] = value
        else:
            told[name] = id(value)
    return told


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:16]
