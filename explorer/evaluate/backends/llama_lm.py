"""lm-eval's requests answered by llama.cpp, with log-probabilities from its logits.

The choices of one question share its tokens, which are computed once and belong to the sequences
of all choices. One call holds many questions, and logits are made only where tokens are scored.
The torch model's tokenizer makes the tokens, so a quantised model and its teacher get the
same ones.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from lm_eval import utils
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    has_bos_prefix,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from transformers import PreTrainedTokenizerBase

from explorer.errors import BadInput
from explorer.evaluate import response_cache
from explorer.evaluate.backends.request_progress import ProgressCounter, RequestProgress
from explorer.latency.runtimes.llamacpp import BATCH_TOKENS, BatchToken, LlamaCppRuntime

NAME = "explorer-llama-cpp"
"""The backend's name in lm-eval's results files."""
VERSION = 1
"""Bump it to invalidate cached answers."""
Answer = TypeVar("Answer", float, str)
Request = tuple[Any, list[int], list[int]]
"""The text, the context's tokens and the continuation's tokens."""
Pack = list[tuple[tuple[int, ...], list[int]]]
"""Contexts, each with the requests that continue it."""
MAX_SEQUENCES = 64
"""Maximum number of choices in one call."""
MAX_GENERATED = 256
"""Maximum tokens of a generated answer if the task sets none (lm-eval's default)."""


class LlamaLM(TemplateLM):
    """A GGUF file in llama.cpp that answers lm-eval's requests."""

    shares_prefixes = True

    def __init__(
        self,
        runtime: LlamaCppRuntime,
        tokenizer: PreTrainedTokenizerBase,
        *,
        on_progress: Callable[[RequestProgress], None] | None = None,
    ) -> None:
        """Wrap a loaded runtime.

        Args:
            runtime: The loaded file.
            tokenizer: The torch model's.
            on_progress: Called after each llama.cpp call.
        """
        super().__init__()
        self.runtime, self.tokenizer = runtime, tokenizer
        self._on_progress = on_progress
        self.max_length = min(runtime.context_tokens or 2048, BATCH_TOKENS)

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """The token before a text that has no context."""
        first = self.tokenizer.bos_token_id
        return int(self.eot_token_id if first is None else first)

    @property
    def tokenizer_name(self) -> str:
        """The key in lm-eval's cache of rendered chats."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **options: Any
    ) -> list[int]:
        """The tokens, as the stock Hugging Face backend encodes them."""
        special = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        starts = has_bos_prefix(string, self.tokenizer.decode(self.prefix_token_id))
        if add_special_tokens is None and starts:
            special = {"add_special_tokens": False}
        return list(self.tokenizer.encode(string, **special))

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A chat as the text that the model was trained on."""
        text = self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return str(text)

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Log-probability of each continuation, and whether greedy decoding gives it."""
        scores: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return scores

    def _loglikelihood_tokens(
        self, requests: list[Request], **options: Any
    ) -> list[tuple[float, bool]]:
        return self._scores(requests, self._on_progress)

    def _scores(
        self, requests: list[Request], on_progress: Callable[[RequestProgress], None] | None
    ) -> list[tuple[float, bool]]:
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        questions: dict[tuple[int, ...], list[int]] = {}
        for index, (_, context, continuation) in enumerate(requests):
            # A text beyond the context loses its beginning, as in the stock backend.
            context = (context + continuation)[-(self.max_length + 1) :][: -len(continuation)]
            questions.setdefault(tuple(context), []).append(index)
        packs = self._packs(questions, requests)
        sizes = [
            sum(
                len(context) + sum(len(requests[i][2]) - 1 for i in group)
                for context, group in pack
            )
            for pack in packs
        ]
        count = ProgressCounter(len(requests), sum(sizes), on_progress)
        for pack, num_tokens in zip(packs, sizes, strict=True):
            indices = [index for _, group in pack for index in group]
            texts = [requests[index][0] for index in indices]
            cached = response_cache.cached_answers(self.cache_hook, "loglikelihood", texts)
            scores = cached
            if scores is None:
                by_index = self._score_pack(pack, requests)
                scores = [by_index[index] for index in indices]
                response_cache.cache_answers(self.cache_hook, "loglikelihood", texts, scores)
            for index, (value, greedy) in zip(indices, scores, strict=True):
                answers[index] = value, greedy
            count.add(len(indices), num_tokens, known=cached is not None)
        count.close()
        return answers

    def _packs(
        self, questions: dict[tuple[int, ...], list[int]], requests: list[Request]
    ) -> list[Pack]:
        """Group questions and their choices into packs, each for one llama.cpp call.

        A question whose choices do not fit together is computed again with the remaining ones.
        """
        packs: list[Pack] = [[]]
        tokens = sequences = 0
        for context, indices in questions.items():
            context_is_in_pack = False
            for index in indices:
                more = len(requests[index][2]) - 1
                needed = more if context_is_in_pack else more + len(context)
                if tokens + needed > BATCH_TOKENS or sequences == MAX_SEQUENCES:
                    packs.append([])
                    tokens = sequences = 0
                    context_is_in_pack, needed = False, more + len(context)
                if not context_is_in_pack:
                    packs[-1].append((context, []))
                packs[-1][-1][1].append(index)
                context_is_in_pack = True
                tokens, sequences = tokens + needed, sequences + 1
        return packs

    def _score_pack(self, pack: Pack, requests: list[Request]) -> dict[int, tuple[float, bool]]:
        rows: list[BatchToken] = []
        scored: list[list[tuple[int, int]]] = []
        """For each position with logits: the requests and the token each scores there."""
        sequence = 0
        for context, indices in pack:
            group = range(sequence, sequence + len(indices))
            sequence += len(indices)
            last = len(context) - 1
            rows += [(token, i, group, i == last) for i, token in enumerate(context)]
            scored.append([(i, requests[i][2][0]) for i in indices])
            for index, choice in zip(indices, group, strict=True):
                continuation = requests[index][2]
                for offset in range(len(continuation) - 1):
                    rows.append((continuation[offset], len(context) + offset, (choice,), True))
                    scored.append([(index, continuation[offset + 1])])
        self.runtime.prepare(MAX_SEQUENCES, -(-BATCH_TOKENS // MAX_SEQUENCES))
        self.runtime.clear_cache()
        total: dict[int, float] = {}
        greedy: dict[int, bool] = {}
        for logits_V, wanted in zip(self.runtime.decode(rows), scored, strict=True):
            best = int(logits_V.argmax())
            top = logits_V[best]
            normaliser = float(top) + float(np.log(np.exp(logits_V - top).sum(dtype=np.float64)))
            for index, token in wanted:
                total[index] = total.get(index, 0.0) + float(logits_V[token]) - normaliser
                greedy[index] = greedy.get(index, True) and token == best
        return {index: (total[index], greedy[index]) for index in total}

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-probability of each whole text, in windows of the context's length."""
        texts = [self.tok_encode(request.args[0]) for request in requests]

        def score(i: int) -> float:
            windows = utils.get_rolling_token_windows(
                token_list=texts[i],
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            pairs: list[Request] = [
                (None, *utils.make_disjoint_window(window)) for window in windows
            ]
            return sum(score for score, _ in self._scores(pairs, None))

        lengths = [len(text) for text in texts]
        return self._one_by_one("loglikelihood_rolling", requests, lengths, score)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The text that the model generates after each prompt, greedy, up to a stop sequence.

        Raises:
            BadInput: The task samples its answers.
        """
        end = self.tokenizer.decode([self.eot_token_id])

        def generate(i: int) -> str:
            prompt, settings = requests[i].args
            options = normalize_gen_kwargs(settings, MAX_GENERATED)
            if options.get("do_sample") and options.get("temperature"):
                raise BadInput("GGUF models answer greedily, but this task samples its answers.")
            stops = handle_stop_sequences(options["until"], eos=end)
            text = self._continue(prompt, options["max_gen_toks"], stops)
            return str(postprocess_generated_text(text, stops, None))

        lengths = [len(self.tok_encode(request.args[0])) for request in requests]
        return self._one_by_one("generate_until", requests, lengths, generate)

    def _one_by_one(
        self,
        attr: str,
        requests: list[Instance],
        lengths: list[int],
        answer: Callable[[int], Answer],
    ) -> list[Answer]:
        """The answers to requests that share nothing; cached ones are not computed again."""
        count = ProgressCounter(len(requests), sum(lengths), self._on_progress)
        answers: list[Answer] = []
        for i, request in enumerate(requests):
            cached = response_cache.cached_answers(self.cache_hook, attr, [request.args])
            if cached is None:
                answers.append(answer(i))
                response_cache.cache_answers(self.cache_hook, attr, [request.args], answers[-1:])
            else:
                answers += cached
            count.add(1, lengths[i], known=cached is not None)
        count.close()
        return answers

    def _continue(self, prompt: str, num_tokens: int, stops: list[str]) -> str:
        tokens = self.tok_encode(prompt)[-(self.max_length - num_tokens) :]
        generated: list[int] = []
        text = ""
        for (token,) in self.runtime.answer(tokens, num_tokens):
            if token == self.eot_token_id:
                break
            generated.append(token)
            text = str(self.tokenizer.decode(generated, skip_special_tokens=True))
            if any(stop in text for stop in stops if stop):
                break
        return text
