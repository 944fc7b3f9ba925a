"""`TestTimeTuner`: a language model adapted to each prompt on what was picked for it, and restored."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self, get_args

from transformers import MODEL_FOR_MASKED_LM_MAPPING

from sift_store.adapter import Progress
from sift_store.errors import InvalidInputError
from sift_store.hooks import Picks, steps_worth_taking
from sift_store.results import Hit, Hits
from sift_store_transformers.adaptation import Adaptation, Guard, Method, Recipe
from sift_store_transformers.encoding import Passage, Reach, context_length, encode
from sift_store_transformers.loading import load_causal_lm
from sift_store_transformers.lora import default_lora
from sift_store_transformers.scoring import completion, text_nats

__all__ = ["TestTimeTuner"]

_LEARNING_RATES = {"full": 5e-5, "lora": 5e-4}


class TestTimeTuner:
    """Fine-tunes a causal language model on the picks of a search, and puts it back (test-time fine-tuning).

    The recipe is that of Hübotter et al., "Efficiently Learning at Test-Time" (ICLR 2025), section 4: a fresh Adam, one
    gradient step a pick, in the order picked, a pick made twice trained on twice.

    Args:
        model: a causal language model of transformers, in any dtype, on any device; or a peft model over one.
        tokenizer: its tokenizer.
        method: "full" trains the weights that ask for gradients (of a model frozen for inference, all); "lora" trains
            fresh adapters of peft, and of a model that is a peft model already its active one.
        learning_rate: default 5e-5 for "full", as in the paper, 5e-4 for "lora".
        max_tokens: where to cut a passage's end; default: nothing is cut, and one longer than the model's context is
            an error.
        example: what to train on for a hit: a text, or a pair (prompt, answer) of which the answer alone counts;
            default `hit.text`.
        autocast: compute in bfloat16 where float32 is not needed, the weights staying as they are.
        checkpointing: keep no activations but compute them twice: a third more time, far less memory.
        loss_after: measure the loss after each step, too; a forward pass more a step.
        lora: a peft configuration; default rank 16 on all linear layers. seed: of its first weights, and of dropout.

    Raises:
        InvalidInputError: not a causal language model, or an argument out of its range.
        MissingExtraError: what method "lora" needs is not installed.

    Memory beside the model: "full", 4 times the weights (their copy, gradients, Adam's two moments), of which the copy
    stays inside the block; "lora", 4 times the adapters, about a twentieth of the weights or less. Activations come on
    top while training.
    """

    __test__: ClassVar[bool] = False  # the name does not make it one of pytest's classes

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        method: Method = "full",
        learning_rate: float | None = None,
        max_tokens: int | None = None,
        example: Callable[[Hit], Passage] | None = None,
        autocast: bool = False,
        checkpointing: bool = False,
        loss_after: bool = True,
        lora: Any = None,
        seed: int = 0,
    ) -> None:
        if method not in get_args(Method):
            raise InvalidInputError(f"method: {method!r} given, one of {', '.join(get_args(Method))} wanted")
        _check_causal(model)
        if any(parameter.is_meta for parameter in model.parameters()):
            raise InvalidInputError("model: some weights are offloaded (meta); all weights on devices wanted")
        rate = _LEARNING_RATES[method] if learning_rate is None else learning_rate
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf:
            raise InvalidInputError(f"learning_rate: {rate!r} given, a number greater than 0 wanted")
        self.model = model
        self.tokenizer = tokenizer
        self.max_tokens = _checked_length(max_tokens, context_length(model))
        self._example = example
        config = (lora or default_lora()) if method == "lora" else None
        self._recipe = Recipe(method, float(rate), autocast, checkpointing, loss_after, config, seed)

    @classmethod
    def load(
        cls, model: str | os.PathLike[str], *, dtype: str = "float32", device: str | None = None, **settings: Any
    ) -> Self:
        """A tuner for a model by name.

        Args:
            model: "smollm2" for the packaged SmolLM2-135M-Instruct, which needs no network; else a folder, or a name on
                the Hugging Face hub.
            dtype: of the weights, "float32" or "bfloat16". Steps of 5e-5 are lost in bfloat16's rounding for the most
                part: there, method "lora", whose adapters are float32. device: default CUDA, MPS or the CPU, whichever
                is there first.
            settings: the keyword arguments of the class.

        Raises:
            NotFoundError: there is no such model. InvalidInputError: it is not a causal language model.
            MissingExtraError: an optional package is not installed.
        """
        return cls(*load_causal_lm(model, dtype=dtype, device=device), **settings)

    def adapt(
        self,
        passages: Hits | Picks | Sequence[Hit] | Sequence[Passage],
        *,
        alpha: float | None = None,
        keep_if: str | Callable[[Any], float] | None = None,
        progress: Progress | None = None,
    ) -> Adaptation:
        """An adaptation to these passages; training begins when it is entered.

        Args:
            passages: the answer of a search or some of its hits, what a hook gets, or texts and pairs (prompt, answer).
            alpha: take only as many steps as the variance trace says they are worth (`steps_worth_taking`).
            keep_if: a guard: a text, cut as passages are, such as the prompt, or a function from a model to a number.
                Unless its loss fell, the weights go back at once and the block has the model as it was.
            progress: called with (done, all) after each step.

        Raises:
            InvalidInputError: no passages, a text that cannot be trained on, token ids that the model does not know,
                or no variance trace for alpha.

        Entering raises AdaptationError when another adaptation has the model, when memory is out, when the model's
        weights are quantised, when peft can make no LoRA of the configuration, or the loss is no number; whatever is
        raised, in there or in the block, the weights are as before, bit for bit.
        """
        if isinstance(passages, Hits):
            passages = Picks.of(passages)
        trained, variance = self._passages(passages)
        if not trained:
            raise InvalidInputError("passages: none given, one or more wanted; did the search find nothing?")
        if alpha is not None:
            if len(variance) != len(trained):
                raise InvalidInputError(
                    "alpha: needs the variance trace of the picks, which a search by method 'sift' gives; here is none"
                )
            trained = trained[: steps_worth_taking(variance, alpha)]
        reach = Reach.of(self.model)
        examples = [
            encode(self.tokenizer, passage, f"passage {place}", self.max_tokens, reach)
            for place, passage in enumerate(trained, start=1)
        ]
        return Adaptation(self.model, examples, self._recipe, self._guard(keep_if, reach), progress)

    def loss(self, text: str, context: str = "") -> float:
        """Mean loss of a text in nats a token, the first token left out, by the model as it is now.

        Args:
            context: what stands before it and is not scored.
        """
        nats, tokens = text_nats(self.model, self.tokenizer, text, context)
        return nats / tokens

    def bits_per_byte(self, text: str, context: str = "") -> float:
        """What the text costs in bits for each of its UTF-8 bytes, its first token free; lower is better."""
        nats, _ = text_nats(self.model, self.tokenizer, text, context)
        return nats / math.log(2) / len(text.encode())

    def complete(self, prompt: str, max_new_tokens: int = 64) -> str:
        """What the model, as it is now, writes after a prompt: greedy, and only what is new.

        Of the model's generation settings only those count that say which token ends a text.
        """
        return completion(self.model, self.tokenizer, prompt, max_new_tokens)

    def _guard(self, keep_if: str | Callable[[Any], float] | None, reach: Reach) -> Guard | None:
        if isinstance(keep_if, str):
            return encode(self.tokenizer, keep_if, "keep_if", self.max_tokens, reach)
        if keep_if is not None and not callable(keep_if):
            raise InvalidInputError(
                f"keep_if: {type(keep_if).__name__} given, a text or a function from a model to a number wanted"
            )
        return keep_if

    def _passages(self, passages: Picks | Sequence[Any]) -> tuple[list[Passage], Sequence[float]]:
        if isinstance(passages, Picks):
            made = self._example or (lambda hit: hit.text)
            return [made(hit) for hit in passages.hits], passages.variance
        if isinstance(passages, Sequence) and passages and all(isinstance(hit, Hit) for hit in passages):
            return self._passages(Picks((), tuple(passages), ()))
        if isinstance(passages, str) or not isinstance(passages, Sequence):
            raise InvalidInputError(
                f"passages: {type(passages).__name__} given, hits of a search or a list of texts wanted"
            )
        return list(passages), ()


def _check_causal(model: Any) -> None:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = getattr(base, "config", None)
    causal = (
        hasattr(base, "can_generate")
        and base.can_generate()
        and base.get_output_embeddings() is not None
        and not getattr(config, "is_encoder_decoder", False)
        and (type(config) not in MODEL_FOR_MASKED_LM_MAPPING or getattr(config, "is_decoder", False))
    )
    if not causal:
        raise InvalidInputError(
            f"model: {type(base).__name__} has no head that predicts the next token; a causal language model "
            "wanted, such as AutoModelForCausalLM loads"
        )


def _checked_length(max_tokens: int | None, context: int | None) -> int | None:
    if max_tokens is None:
        return None
    most = context or math.inf
    if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or not 2 <= max_tokens <= most:
        raise InvalidInputError(f"max_tokens: {max_tokens!r} given, 2 to {most} (the model's context) wanted")
    return max_tokens
