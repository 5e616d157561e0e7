"""The student that a spec asks for.

| kind | what it is | where |
| --- | --- | --- |
| depth | fewer layers | depth.py |
| width | narrower layers | width.py |
| both | fewer and narrower layers, for a number of parameters | size_target.py chooses the shape |
| checkpoint | an existing smaller model | vocabulary.py checks it |
| fresh | the teacher's architecture with random weights | fresh.py |
"""

import dataclasses
import logging
from collections.abc import Callable

from torch import Tensor
from transformers import PreTrainedModel

from explorer.models import size_limits
from explorer.models.families import ModelShape, count_parameters, shape_of
from explorer.models.layers import KEPT_LAYERS, layer_list
from explorer.models.loading import Loaded
from explorer.specs import (
    MAX_SHARE_PER_CUT,
    BothStudent,
    CheckpointStudent,
    DepthStudent,
    FreshStudent,
    Student,
    WidthStudent,
)
from explorer.students import layer_map
from explorer.students.depth import (
    DropOrder,
    block_influence,
    greedy_layers,
    keep_layers,
    most_influential,
    select_layer_weights,
    uniform_layers,
)
from explorer.students.fresh import create_fresh
from explorer.students.size_target import requested_shape, shape_for_size
from explorer.students.width import (
    KeptWidths,
    keep_widths,
    select_widths,
    width_importance,
)

log = logging.getLogger("explorer")

# Shape letters: B blocks, T tokens of a block.

OnProgress = Callable[[int, int, str], None]
"""Called with (done, total, unit); may raise to stop the run."""


def create_student(
    teacher: Loaded,
    start: Loaded,
    spec: Student,
    blocks_BT: Tensor,
    on_progress: OnProgress = lambda done, total, unit: None,
    order: DropOrder | None = None,
) -> Loaded:
    """Create a student; its config and the log say what was cut.

    Args:
        teacher: The model that the student will learn from.
        start: The model that becomes the student: the teacher itself, or the model that
            `spec.start` names.
        spec: The kind of student and its size.
        blocks_BT: Token ids on which importance is measured.
        on_progress: Called while importance is measured.
        order: Layers that the greedy choice dropped for a student of another size.

    Raises:
        BadInput: The sizes are impossible for this model, or its family cannot be cut this way.
    """
    if isinstance(spec, CheckpointStudent):
        log.info("The student is %s, unchanged.", start.name)
        return start
    if isinstance(spec, FreshStudent):
        return Loaded(
            f"{start.name}:{spec.slug()}", create_fresh(start.model, spec), start.tokenizer
        )
    cut = _Cut(teacher, start, blocks_BT[: spec.sample_blocks], on_progress, order)
    if isinstance(spec, DepthStudent):
        model = cut.depth(spec.num_layers, spec.choice)
    elif isinstance(spec, WidthStudent) and spec.num_parameters is None:
        model = cut.to_shape(requested_shape(start.model, spec))
    else:
        assert spec.num_parameters is not None, "a width student without widths names its size"
        min_depth = spec.min_depth if isinstance(spec, BothStudent) else 1.0
        shape = shape_for_size(
            start.model, spec.num_parameters, min_depth=min_depth, min_width=spec.min_width
        )
        _log_target(start.model, shape, spec.num_parameters)
        choice = spec.choice if isinstance(spec, BothStudent) else "uniform"
        model = cut.to_shape(shape, choice)
    _warn_of_large_cut(start, model.num_parameters())
    return Loaded(f"{teacher.name}:{spec.slug()}", model, start.tokenizer)


def importance_blocks(spec: Student, heldout: list[int], training: list[int]) -> list[int]:
    """Indices of the blocks on which importance is measured.

    Choosing by the KL or by activations on the held-out blocks would flatter the student, as it is
    evaluated there. So the last training blocks are used, which a short training never reaches.
    Block influence has always used the held-out blocks and still does.
    """
    num_blocks = getattr(spec, "sample_blocks", 0)
    if isinstance(spec, DepthStudent) and spec.choice != "greedy":
        return heldout[:num_blocks]
    return training[-num_blocks:] if num_blocks else []


@dataclasses.dataclass(frozen=True)
class _Cut:
    """One cut of one model."""

    teacher: Loaded
    start: Loaded
    sample_BT: Tensor
    on_progress: OnProgress
    order: DropOrder | None

    @property
    def second_step(self) -> bool:
        """Whether `start` was itself cut before."""
        return self.start is not self.teacher

    def depth(self, num_layers: int, choice: str) -> PreTrainedModel:
        """The model with fewer layers."""
        _, all_layers = layer_list(self.start.model)
        whose = self.start.name if self.second_step else f"the teacher {self.start.name}"
        size_limits.check_num_layers(num_layers, len(all_layers), whose)
        layers = self._layers(num_layers, choice)
        student = keep_layers(self.start.model, layers)
        layer_map.write_kept_map(student, self.start.model, layers, second_step=self.second_step)
        log.info("The student keeps the layers %s.", getattr(student.config, KEPT_LAYERS))
        return student

    def to_shape(self, shape: ModelShape, choice: str = "uniform") -> PreTrainedModel:
        """The model in another shape; all importance is measured before anything is cut."""
        whole = shape_of(self.start.model)
        importance = width_importance(self.start.model, self.sample_BT, self._report("blocks"))
        widths = select_widths(shape, whole, importance)
        layers = self._layers(shape.num_layers, choice)
        shallow = keep_layers(self.start.model, layers)
        widths_of_layers = KeptWidths(
            widths.hidden,
            *([rows[i] for i in layers] for rows in (widths.channels, widths.heads, widths.groups)),
        )
        prefix, _ = layer_list(self.start.model)
        student = keep_widths(
            shallow, widths_of_layers, select_layer_weights(importance.squares, prefix, layers)
        )
        layer_map.write_kept_map(
            student, self.start.model, layers, widths_of_layers, second_step=self.second_step
        )
        log.info(
            "The student keeps %d of %d layers (%s), %d of %d hidden dimensions, %d of %d MLP "
            "channels, %d of %d query heads and %d of %d key-value heads; its config maps each.",
            shape.num_layers,
            whole.num_layers,
            layers,
            shape.hidden_size,
            whole.hidden_size,
            shape.intermediate_size,
            whole.intermediate_size,
            shape.num_attention_heads,
            whole.num_attention_heads,
            shape.num_key_value_heads,
            whole.num_key_value_heads,
        )
        return student

    def _layers(self, num_layers: int, choice: str) -> list[int]:
        """Indices of the layers to keep."""
        _, layers = layer_list(self.start.model)
        total = len(layers)
        if choice == "uniform" or num_layers == total:
            return uniform_layers(total, num_layers)
        if choice == "block_influence":
            influence = block_influence(self.start.model, self.sample_BT, self._report("blocks"))
            return most_influential(influence, num_layers)

        def on_try(done: int, total: int) -> None:
            self.on_progress(done, total, "students")

        return greedy_layers(
            self.start, self.teacher, num_layers, self.sample_BT, on_try, self.order
        )

    def _report(self, unit: str) -> Callable[[int], None]:
        return lambda done: self.on_progress(done, len(self.sample_BT), unit)


def _log_target(model: PreTrainedModel, shape: ModelShape, target: int) -> None:
    num_parameters = count_parameters(model, [shape])[0]
    log.info(
        "Target %s parameters; the closest balanced shape has %s (%+.2f %%).",
        f"{target:,}",
        f"{num_parameters:,}",
        100 * (num_parameters - target) / target,
    )


def _warn_of_large_cut(start: Loaded, num_parameters: int) -> None:
    whole = start.model.num_parameters()
    cut = 1 - num_parameters / whole
    if cut > MAX_SHARE_PER_CUT:
        log.warning(
            "This removes %.0f %% of the parameters of %s at once; a student rarely recovers from "
            "more than half. Better in two steps: train a student of about %s parameters first, "
            "then this one with start_from: run:ITS_RUN_ID.",
            100 * cut,
            start.name,
            f"{round((whole * num_parameters) ** 0.5, -3):,.0f}",
        )
