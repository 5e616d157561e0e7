"""The server of openai_server.py for whole answers: chats, completions, echoed log-probabilities.

The name of the model that a request asks for says how it is answered.
"""

import json
import time
from typing import Any

import pytest

from explorer.latency.runtimes import endpoint_client
from explorer.models import endpoint
from explorer.pipeline import environment
from tests.openai_server import SECRET, Server, _Handler

THOUGHT = "They ask for a word."


class _Answering(_Handler):
    def do_POST(self) -> None:
        server = self.server
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.asked.append(asked | {"authorization": self.headers.get("Authorization")})
            number = len(server.asked)
        fault = asked["model"]
        if fault == "busy_twice" and number <= 2:
            return self._busy(429)
        if fault == "always_busy" or (fault == "dies" and number > server.dies_after):
            return self._busy(503)
        if fault == "echoes_key":
            return self._error(401, {"error": {"message": f"Incorrect API key {SECRET}"}})
        if fault == "words_only" and "return_tokens_as_token_ids" in asked:
            return self._error(400, {"error": {"message": "Unrecognized request argument"}})
        if fault == "no_echo" and asked.get("echo"):
            return self._error(400, {"error": {"message": "Only no echo is supported"}})
        if fault == "filters" and sum(asked["prompt"]) % 4 == 0:
            message = "The prompt triggered our content management policy"
            return self._error(400, {"error": {"message": message, "code": "content_filter"}})
        if fault == "filters_all":
            return self._error(400, {"error": {"message": "flagged", "code": "content_filter"}})
        if fault == "nonsense":
            return self._plain(b"<html>hello</html>")
        if fault == "hangs_up":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b'{"choices"')
            self.close_connection = True
            return None
        if fault == "stalls":
            time.sleep(server.stall_s)
        return self._error(200, {} if fault == "empty" else self._answer(asked, fault))

    def _busy(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _plain(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _answer(self, asked: dict, fault: str) -> dict:
        tokenizer = self.server.loaded.tokenizer
        if "messages" in asked:
            prompt = tokenizer.apply_chat_template(
                asked["messages"], add_generation_prompt=True, tokenize=False
            )
            ids = tokenizer(prompt, add_special_tokens=False).input_ids
        else:
            ids = asked["prompt"]
            ids = tokenizer(ids).input_ids if isinstance(ids, str) else ids
            ids = ids[0] if isinstance(ids[0], list) else ids
        written, choice = self._write(ids, asked)
        usage = {"prompt_tokens": len(ids), "completion_tokens": len(written)}
        text = tokenizer.decode(written)
        for stop in asked.get("stop") or []:
            text = text.split(stop)[0]
        if "messages" in asked:
            message = {"role": "assistant", "content": text}
            if fault == "thinks":
                message = {"role": "assistant", "content": None, "reasoning_content": THOUGHT}
                usage["completion_tokens_details"] = {"reasoning_tokens": len(written)}
            choice = {"index": 0, "message": message}
        else:
            choice |= {"index": 0, "text": text}
        if fault == "no_logprobs" or (fault == "forgets_twice" and len(self.server.asked) <= 2):
            choice.pop("logprobs", None)
        elif "logprobs" in choice:
            _spoil(choice["logprobs"], fault)
        reply = {"choices": [choice]}
        return reply if fault == "no_usage" else reply | {"usage": usage}

    def _write(self, ids: list[int], asked: dict) -> tuple[list[int], dict]:
        """Greedy tokens and, where they are asked for, the prompt's log-probabilities."""
        import torch

        tokenizer, written = self.server.loaded.tokenizer, []
        with self.server.lock, torch.inference_mode():
            for _ in range(asked["max_tokens"]):
                logits = self.server.loaded.model(torch.tensor([ids + written])).logits[0]
                written.append(int(logits[-1].argmax()))
        if not asked.get("echo"):
            return written, {}

        def word(token: int) -> str:
            as_id = asked.get("return_tokens_as_token_ids")
            return f"token_id:{token}" if as_id else tokenizer.decode([token])

        logps = torch.log_softmax(logits.float(), dim=-1)
        values, tops = [None], [None]
        for place, token in enumerate((ids + written)[1:]):
            best = logps[place].topk(asked["logprobs"]).indices.tolist()
            values.append(float(logps[place, token]))
            # As in vLLM: the text's own token first, then the likeliest.
            tops.append({word(one): float(logps[place, one]) for one in [token, *best]})
        return written, {
            "logprobs": {
                "tokens": [word(token) for token in ids + written],
                "token_logprobs": values,
                "top_logprobs": tops,
            }
        }


def _spoil(logprobs: dict, fault: str) -> None:
    """Log-probabilities of the prompt as a bad server gives them."""
    if fault == "drops_some":
        logprobs["top_logprobs"][5] = None
    if fault == "names_three":
        tops = [
            top and dict(sorted(top.items(), key=lambda one: -one[1])[:3])
            for top in logprobs["top_logprobs"]
        ]
        logprobs["top_logprobs"] = tops
    if fault == "adds_a_token":
        for values in logprobs.values():
            values.insert(0, values[0])
    if fault == "other_tokens":
        logprobs["tokens"] = [word.swapcase() for word in logprobs["tokens"]]
    if fault == "only_written":
        logprobs.update({name: values[-1:] for name, values in logprobs.items()})


class AnsweringServer(Server):
    """Serves one model's whole answers."""

    handler = _Answering
    dies_after = 5
    """Requests that the model `dies` answers."""


def fresh(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the server had just begun: nothing asked, no key known, no waiting between tries."""
    server.asked.clear()
    monkeypatch.setattr(endpoint_client, "FIRST_WAIT_S", 0.001)
    # Asking for the processor's name takes longer than the whole run.
    monkeypatch.setattr(environment, "device_name", lambda _: "a processor")
    for name in (endpoint.KEY_VARIABLE, *endpoint.PROVIDER_KEYS.values()):
        monkeypatch.delenv(name, raising=False)
