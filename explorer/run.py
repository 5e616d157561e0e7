"""One run, stage by stage: prepare, text, targets, distil, capability, latency, record.

A stage's output is keyed by what decides it. A finished stage is never done twice and
an interrupted one continues from its checkpoint, so to resume is to run the same spec
again. A student's run first makes sure that its teacher's run is there.

    explorer run spec.yaml
"""

import hashlib
import json
import logging
import shutil
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch

from explorer import guards, store
from explorer.distill import corpus, lessons, students
from explorer.distill.lessons import Course
from explorer.distill.synthesise import synthesise
from explorer.distill.targets import Targets
from explorer.distill.train import State, num_steps, train
from explorer.errors import BadInput, ExplorerError, RunCancelled, RunFailed
from explorer.measure import capability, contamination, device, latency, task_sets
from explorer.models.facts import facts, fingerprint, tokenizer_digest
from explorer.models.loading import Loaded, load, pick_device
from explorer.progress import Listener, Progress
from explorer.records import (
    Capability,
    CorpusFacts,
    CurvePoint,
    Distillation,
    ErrorFacts,
    Latency,
    ModelFacts,
    Part,
    RunRecord,
)
from explorer.specs import DistillSpec, RunSpec

log = logging.getLogger("explorer")

PartT = TypeVar("PartT", bound=Part)


def run(spec: RunSpec, root: Path, listener: Listener | None = None) -> RunRecord:
    """Do what is missing of a run and return its record.

    Args:
        spec: What is asked.
        root: The store.
        listener: Gets every progress update, the teacher's run's included.

    Raises:
        ExplorerError: The run failed or was cancelled; its record says so too.
    """
    store.open_run(root, spec)
    progress = Progress(root, spec.run_id, listener)
    with guards.alone(root, spec.run_id, progress):
        done = _finished(root, spec.run_id)
        if done is not None:
            progress.write(state="finished", stage="record")
            return done
        log_path = store.run_folder(root, spec.run_id) / store.LOG
        with guards.logged(log_path), guards.stoppable(progress):
            return _Run(spec, root, progress).record()


def _finished(root: Path, run_id: str) -> RunRecord | None:
    """The record of a run that needs nothing more."""
    if not (store.run_folder(root, run_id) / store.RECORD).exists():
        return None
    record = store.load(root, run_id)
    return record if record.status == "finished" else None


class _Run:
    """The models of one run, each loaded when first needed, and its stages."""

    def __init__(self, spec: RunSpec, root: Path, progress: Progress) -> None:
        self.spec, self.root, self.progress = spec, root, progress
        self.folder = store.run_folder(root, spec.run_id)
        self.work = root / ".work"
        self.started_at = _now()
        self.stage = "prepare"
        self.stage_seconds: dict[str, float] = {}
        self.parts: dict[str, Any] = {}

    def record(self) -> RunRecord:
        """Do the stages; whatever happens, leave a record that says what became of the run."""
        try:
            self.progress.check()
            self.progress("prepare")
            torch.set_num_threads(self.spec.threads or device.num_cpus())
            self.device = pick_device(self.spec.device)
            self.environment = device.environment(self.device, torch.get_num_threads())
            if self.spec.capability:
                task_sets.check(self.spec.capability.tasks, self.spec.capability.include_path)
            self._teacher_first()
            self._stages()
        except Exception as error:
            known = guards.as_known(error)
            if isinstance(known, RunCancelled) and not store.cancel_requested(
                self.root, self.spec.run_id
            ):
                # Told to end from outside: no record, so that running again continues.
                self.progress.write(state="interrupted", stage=self.stage, error=str(known))
                log.warning("Interrupted in %s: %s", self.stage, known)
                raise
            self._save_failure(known or error, bug=known is None)
            if known is None:
                raise
            raise known from error
        except KeyboardInterrupt:
            self.progress.write(state="interrupted", stage=self.stage, error="Interrupted by hand.")
            raise
        record = self._make_record("finished")
        store.save(self.root, record)
        self.progress.write(state="finished", stage="record")
        log.info("Finished %s", self.spec.run_id)
        return record

    def _save_failure(self, error: Exception, *, bug: bool) -> None:
        cancelled = isinstance(error, RunCancelled)
        text = traceback.format_exc() if bug else None
        log.error("%s in %s: %s", "Cancelled" if cancelled else "Failed", self.stage, text or error)
        failure = ErrorFacts(
            kind=type(error).__name__,
            message=str(error) or type(error).__name__,
            stage=self.stage,
            traceback=text,
        )
        status = "cancelled" if cancelled else "failed"
        if not hasattr(self, "environment"):
            self.environment = device.environment(torch.device("cpu"), torch.get_num_threads())
        store.save(self.root, self._make_record(status, failure))
        self.progress.write(state=status, stage=self.stage, error=failure.message)

    def _make_record(self, status: Any, error: ErrorFacts | None = None) -> RunRecord:
        teacher = self.spec.teacher_run()
        return RunRecord(
            run_id=self.spec.run_id,
            teacher_run_id=teacher.run_id if teacher else None,
            spec=self.spec,
            status=status,
            started_at=self.started_at,
            finished_at=_now(),
            environment=self.environment,
            stage_seconds=self.stage_seconds,
            error=error,
            **self.parts,
        )

    # The models -----------------------------------------------------------------------------

    @cached_property
    def teacher(self) -> Loaded:
        """The teacher on the run's device."""
        return load(
            self.spec.teacher,
            device=self.device,
            dtype=self.spec.dtype,
            trust_remote_code=self.spec.trust_remote_code,
        )

    @cached_property
    def start(self) -> Loaded:
        """The model that becomes the student: the teacher, or the one that the student names."""
        assert self.spec.student is not None, "only a student's run comes here"
        name = self.spec.student.start
        if name is None:
            return self.teacher
        return load(
            name,
            device=self.device,
            dtype=self.spec.dtype,
            trust_remote_code=self.spec.trust_remote_code,
        )

    @cached_property
    def teacher_fingerprint(self) -> str:
        """What tells this teacher apart."""
        return fingerprint(self.teacher)

    # The stages -----------------------------------------------------------------------------

    def _teacher_first(self) -> None:
        """A student is compared with its teacher, so the teacher's run comes first."""
        spec = self.spec.teacher_run()
        if spec is None or _finished(self.root, spec.run_id):
            return
        self.stage = "teacher"
        log.info("The teacher's run %s is not there yet; doing it first.", spec.run_id)

        def tell(status: dict[str, Any]) -> None:
            # The student's own status shows how far the teacher's run is.
            told = {k: status[k] for k in ("done", "total", "unit")}
            self.progress(f"teacher: {status['stage']}", **told)

        try:
            run(spec, self.root, tell)
        except RunCancelled:
            self.progress.check()
            raise
        except ExplorerError as error:
            raise RunFailed(f"The teacher's run {spec.run_id} failed: {error}") from error

    def _stages(self) -> None:
        self.stage = "prepare"
        if self.spec.student is None:
            model, load_name = self.teacher, self.spec.teacher
        else:
            folder = self._student_folder()
            load_name = str(folder)
            model = load(load_name, device=self.device, dtype=self.spec.dtype)
        name = self.spec.teacher if self.spec.student is None else f"run:{self.spec.run_id}"
        model = Loaded(name, model.model, model.tokenizer)
        self.parts["model"] = facts(model)
        if self.spec.capability:
            self.parts["capability"] = self._capability(model, self.parts["model"])
        if self.spec.latency:
            self.parts["latency"] = self._latency(model, self.parts["model"], load_name)

    def _student_folder(self) -> Path:
        """Make and teach the student, unless a run has made the same one before."""
        spec, distill = self.spec, self.spec.distill
        assert spec.student is not None, "only a student's run comes here"
        text = self._text(distill or DistillSpec())
        decides = {
            "teacher": self.teacher_fingerprint,
            "student": spec.student.decisive(),
            "distill": _decisive(distill) if distill else None,
            "corpus": text.digest,
        }
        if spec.student.start:
            decides["start"] = fingerprint(self.start)
        folder = self.work / "students" / _key(decides)
        done = folder / "student.json"
        with guards.alone(self.root, f"student-{folder.name}", self.progress):
            if not done.exists():
                taught = self._make_student(text, folder)
                store.write_text(done, json.dumps(taught.model_dump() if taught else None))
            found = json.loads(done.read_text(encoding="utf-8"))
        if found:
            taught = Distillation.model_validate(found)
            self.parts["distillation"] = self._with_overlap(taught, text)
        store.write_weights(self.root, spec.run_id, folder / "model")
        return folder / "model"

    def _make_student(self, text: corpus.Corpus, folder: Path) -> Distillation | None:
        spec, distill = self.spec, self.spec.distill or DistillSpec()
        assert spec.student is not None, "only a student's run comes here"
        tokenizer = self.teacher.tokenizer
        num_needed = distill.heldout_blocks + 1
        blocks_NT, num_tokens = corpus.pack(text, tokenizer, distill.block_tokens, num_needed)
        heldout, training = corpus.split(len(blocks_NT), distill.heldout_blocks, distill.seed)

        def measured(done: int, total: int, unit: str) -> None:
            self.progress("prepare", done, total, unit)

        if spec.student.kind == "fresh" and spec.distill and not spec.distill.train_embeddings:
            raise BadInput(
                "A fresh student's embedding is random and would stay so: write "
                "distill.train_embeddings: true."
            )
        began = time.monotonic()
        shared = True
        if spec.distill and spec.student.start:
            shared = self._share_vocabulary(self.start, required=distill.uses_distributions)
        sample = students.sample_numbers(spec.student, heldout, training)
        student = students.build(
            self.teacher, self.start, spec.student, blocks_NT[sample], measured
        )
        self.stage_seconds["prepare"] = time.monotonic() - began
        taught = None
        if spec.distill:
            targets: Targets | None = None
            if shared:
                course, targets = self._course(student, blocks_NT, text, heldout, training)
            else:
                blocks_NT, num_tokens = corpus.pack(
                    text, student.tokenizer, distill.block_tokens, num_needed
                )
                heldout, training = corpus.split(
                    len(blocks_NT), distill.heldout_blocks, distill.seed
                )
                plain = lessons.Text(blocks_NT)
                course = Course(plain, training, plain, heldout)
            state = self._distil(student, course, folder)
            taught = _distillation(state, text.facts(num_tokens), targets, heldout, student)
        student.model.save_pretrained(folder / "model.partial")
        student.tokenizer.save_pretrained(folder / "model.partial")
        shutil.rmtree(folder / "model", ignore_errors=True)
        (folder / "model.partial").replace(folder / "model")
        shutil.rmtree(folder / "checkpoint", ignore_errors=True)
        if spec.student.start:
            # Another model's training or vocabulary may have changed them: load them anew.
            for name in ("start", "teacher"):
                self.__dict__.pop(name, None)
        return taught

    def _text(self, distill: DistillSpec) -> corpus.Corpus:
        """The corpus, which the teacher writes first where the spec asks for that."""
        if distill.corpus != "teacher":
            return corpus.read(distill.corpus)
        self.stage = "text"
        num_blocks = num_steps(distill) * distill.blocks_per_step + distill.heldout_blocks + 1
        num_tokens = num_blocks * distill.block_tokens
        key = _key({"teacher": self.teacher_fingerprint, "num_tokens": num_tokens})
        path = self.work / "texts" / f"{key}.jsonl"

        def tell(done: int, total: int) -> None:
            self.progress("text", done, total, "tokens")

        with guards.alone(self.root, f"text-{path.stem}", self.progress):
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                with self._timed("text"):
                    synthesise(
                        self.teacher, path, num_tokens=num_tokens,
                        document_tokens=distill.block_tokens, progress=tell,
                    )  # fmt: skip
        return corpus.read(str(path))

    def _course(
        self,
        student: Loaded,
        blocks_NT: torch.Tensor,
        text: corpus.Corpus,
        heldout: list[int],
        training: list[int],
    ) -> tuple[Course, Targets]:
        """What the method teaches with; the held-out blocks have the teacher's targets always."""
        distill = self.spec.distill
        assert distill is not None, "only a distilled student has a course"
        plain = lessons.Text(blocks_NT)
        wanted = list(heldout)
        if distill.method == "cached":
            wanted += training[: num_steps(distill) * distill.blocks_per_step]
        targets = self._targets(blocks_NT, text, wanted)
        exam = lessons.Cached(targets)
        source: lessons.Source = plain
        if distill.method == "cached":
            source = exam
        elif distill.method == "live":
            lessons.check_head(self.teacher.model, blocks_NT[heldout[:1], :8])
            if distill.hidden_weight > 0:
                lessons.check_hidden(self.teacher.model, student.model)
            source = lessons.Live(self.teacher.model, blocks_NT, distill)
        return Course(source, training, exam, heldout), targets

    def _share_vocabulary(self, student: Loaded, *, required: bool) -> bool:
        """Cut embeddings of other lengths to the tokens they share; whether there are such.

        Raises:
            BadInput: The tokenizers differ, and the method needs the same one.
        """
        models = (self.teacher.model, student.model)
        try:
            num_tokens = students.check_same_vocabulary(self.teacher, student)
        except BadInput:
            if required:
                raise
            return False
        rows = [int(model.config.vocab_size) for model in models]
        if rows[0] != rows[1]:
            for model in models:
                students.slice_vocabulary(model, num_tokens)
            log.info(
                "The teacher's embedding has %d rows and the student's %d; both are cut to the %d "
                "tokens of their common vocabulary.", *rows, num_tokens,
            )  # fmt: skip
        return True

    def _targets(self, blocks_NT: torch.Tensor, text: corpus.Corpus, wanted: list[int]) -> Targets:
        self.stage = "targets"
        distill = self.spec.distill
        assert distill is not None, "only a distilled student needs targets"
        identity = {
            "teacher": self.teacher_fingerprint,
            "tokenizer": tokenizer_digest(self.teacher.tokenizer),
            "corpus": text.digest,
            "block_tokens": distill.block_tokens,
            "top_k": distill.top_k,
            "temperature": distill.temperature,
            "vocab_size": int(self.teacher.model.config.vocab_size),
        }
        about = {"teacher": self.spec.teacher, "corpus": text.name}
        targets = Targets(self.work / "targets", blocks_NT, identity, about)

        def tell(done: int, total: int, rate: float) -> None:
            self.progress("targets", done, total, "tokens", tokens_per_s=round(rate, 1))

        with self._timed("targets"):
            targets.fill(lambda: self.teacher, wanted, tell)
        return targets

    def _distil(self, student: Loaded, course: Course, folder: Path) -> State:
        self.stage = "distil"
        distill = self.spec.distill
        assert distill is not None, "only a distilled student comes here"
        num_logged = 0
        losses: deque[float] = deque(maxlen=120)

        def tell(state: State, total: int, loss: float, rate: float) -> None:
            nonlocal num_logged
            for point in state.curve[num_logged:]:
                log.info("step %d of %d: %s", point.step, total, _in_words(point))
            num_logged = len(state.curve)
            losses.append(round(loss, 4))
            self.progress(
                "distil", state.step, total, "steps",
                loss=round(loss, 4), tokens_per_s=round(rate, 1),
                losses=list(losses),
            )  # fmt: skip

        self.progress("distil", 0, num_steps(distill), "steps")
        with self._timed("distil"):
            return train(student.model, course, distill, folder / "checkpoint", tell)

    def _with_overlap(self, taught: Distillation, text: corpus.Corpus) -> Distillation:
        """Count which test documents share a run of 13 words with the corpus."""
        spec = self.spec.capability
        if spec is None:
            return taught
        documents = contamination.task_documents(spec.tasks, spec.include_path)
        counts = contamination.overlap(text.texts, documents)
        with_counts = taught.corpus.model_copy(update={"overlap_13grams": counts})
        return taught.model_copy(update={"corpus": with_counts})

    def _capability(self, model: Loaded, what: ModelFacts) -> Capability:
        self.stage = "capability"
        spec = self.spec.capability
        assert spec is not None, "skipped otherwise"
        with self._timed("capability"):
            scores, answers = capability.evaluate(
                model,
                spec,
                self.folder / "capability",
                self.progress,
                fingerprint=what.fingerprint,
                device=self.device,
            )
        store.write_answers(self.root, self.spec.run_id, answers)
        for score in scores.scores:
            if score.headline:
                log.info("%s: %s %.4f", score.task, score.metric, score.score)
        return scores

    def _latency(self, model: Loaded, what: ModelFacts, load_name: str) -> Latency:
        self.stage = "latency"
        spec = self.spec.latency
        assert spec is not None, "skipped otherwise"
        teacher = None if self.spec.student is None else self.teacher
        decides = {
            "model": what.fingerprint,
            "teacher": teacher and self.teacher_fingerprint,
            "spec": spec.decisive(),
            "environment": self.environment.model_dump(),
        }

        def measure() -> Latency:
            return latency.time_in_turns(model, teacher, spec, self.progress, load_name=load_name)

        return self._keyed("latency", decides, Latency, measure)

    def _keyed(
        self, name: str, decides: dict[str, Any], kind: type[PartT], make: Callable[[], PartT]
    ) -> PartT:
        """A stage's output from disk when the same was asked before, else made and kept."""
        path = self.work / "stages" / self.spec.run_id / f"{name}.json"
        key = _key(decides)
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["key"] == key:
                return kind.model_validate(kept["output"])
        with self._timed(name):
            made = make()
        store.write_text(path, json.dumps({"key": key, "output": made.model_dump(mode="json")}))
        return made

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        log.info("Stage %s begins.", name)
        yield
        self.stage_seconds[name] = round(time.monotonic() - began, 3)
        log.info("Stage %s took %.1f s.", name, self.stage_seconds[name])


def _distillation(
    state: State, text: CorpusFacts, targets: Targets | None, heldout: list[int], student: Loaded
) -> Distillation:
    first, last = state.curve[0], state.curve[-1]
    trained = sum(p.numel() for p in student.model.parameters() if p.requires_grad)
    return Distillation(
        corpus=text,
        targets=targets.facts(heldout) if targets else None,
        scored_tokens=state.scored_tokens,
        steps=state.step,
        seconds=round(state.seconds, 3),
        device_hours=state.seconds / 3600,
        num_trained_parameters=trained,
        kl_before=first.heldout_kl,
        kl_after=last.heldout_kl,
        top1_before=first.heldout_top1,
        top1_after=last.heldout_top1,
        curve=state.curve,
        num_resumes=state.num_resumes,
    )


def _in_words(point: CurvePoint) -> str:
    """A point of the curve for the log: what was measured, in the order of the record."""
    said = [f"loss {point.loss:.4f}"]
    for name in (
        "kd_loss", "label_loss", "hidden_loss", "heldout_kl", "heldout_top1", "heldout_label_loss",
    ):  # fmt: skip
        value = getattr(point, name)
        if value is not None:
            said.append(f"{name.replace('_', ' ')} {value:.4f}")
    return ", ".join(said)


def _decisive(distill: DistillSpec) -> dict[str, Any]:
    """What decides the student's weights: everything but how often its state is saved."""
    return {k: v for k, v in distill.decisive().items() if k != "checkpoint_every_s"}


def _key(decides: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
