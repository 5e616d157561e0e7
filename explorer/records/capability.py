"""What a record says about capability: a score per task and metric, tokens that an API counted."""

from explorer.records.base import Amount, Count, Name, Number, RecordPart, Spread


class Usage(RecordPart):
    """Tokens that an API counted, summed over the replies that say how many they took."""

    num_replies: Count = 0
    prompt_tokens: Count = 0
    output_tokens: Count = 0
    reasoning_tokens: Count | None = None
    """Output tokens spent on reasoning, which the answer does not show. None if no reply says."""
    num_uncounted: Count = 0
    """Replies that do not say how many tokens they took."""

    def __add__(self, other: "Usage") -> "Usage":
        """The sum; a number that only one side knows is the sum's."""
        sums = {}
        for name in Usage.model_fields:
            known = [n for n in (getattr(self, name), getattr(other, name)) if n is not None]
            sums[name] = sum(known) if known else None
        return Usage.model_validate(sums)


class TaskScore(RecordPart):
    """One metric of one lm-eval task."""

    task: Name
    metric: Name
    """lm-eval's key, as in `acc_norm` or `exact_match,strict-match`; without the filter `none`."""
    filter: Name | None = None
    """lm-eval's filter of the answers. None in records older than this field, whose metrics have
    it in their names only where a task has several."""
    score: Number
    stderr: Spread | None = None
    chance: Number | None = None
    """Expected score of random guessing; None if unknown."""
    higher_is_better: bool = True
    headline: bool = True
    """Whether this metric stands for the task in the suite's mean."""
    num_documents: Count
    """Documents that were evaluated."""
    num_documents_total: Count | None
    """Documents that the task has; None if an imported file does not say."""
    num_fewshot: Count | None
    """Examples before each question; None if an imported file does not say."""
    task_version: Name | None = None
    task_hash: Name | None = None
    seconds: Amount | None = None


class RefusedPrompt(RecordPart):
    """A document whose prompt an endpoint refused for good; it is in no score."""

    task: Name
    doc_id: Count
    """Its position in the task's data."""
    reason: str
    """What the server said."""


class Capability(RecordPart):
    """All scores of a run."""

    lm_eval_version: Name | None
    """None if an imported file does not say."""
    scores: list[TaskScore]
    seconds: Amount | None
    """Time of the whole evaluation, in seconds; None if that of any task is unknown."""
    usage: Usage | None = None
    """Tokens that the API counted, repeated requests included. None if the model ran here."""
    refused: list[RefusedPrompt] = []
    """Documents that no score includes, because the endpoint refused their prompts."""
    request_changes: list[str] = []
    """Fields that the endpoint did not take and what was sent instead, and answers without text
    because their reasoning took all tokens; a sentence each."""

    def refused_in_words(self) -> list[str]:
        """How many prompts of each task the endpoint refused, and its first reason."""
        scored = {score.task: score.num_documents for score in self.scores}
        sentences = []
        for task in dict.fromkeys(prompt.task for prompt in self.refused):
            reasons = [prompt.reason for prompt in self.refused if prompt.task == task]
            total = len(reasons) + scored.get(task, 0)
            sentences.append(
                f"The endpoint refused {len(reasons)} of {total} prompts of {task}; they are in no "
                f"score. Its first reason: {reasons[0]}"
            )
        return sentences
