"""Students: cut from their teacher, taken as they are, or made anew.

| kind | what it is | where |
| --- | --- | --- |
| depth | fewer layers | depth.py |
| width | narrower layers | width.py |
| both | fewer and narrower layers, to a number of parameters | target.py chooses |
| checkpoint | a smaller model that exists | vocabulary.py checks it |
| fresh | the teacher's architecture with random weights | fresh.py |

maps.py keeps the map of what was cut with the student.
"""

import dataclasses
import logging
from collections.abc import Callable

from torch import Tensor
from transformers import PreTrainedModel

from explorer.models import sizes
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
"""Called with (done, total, unit); may raise to stop."""


def create_student(
    teacher: Loaded,
    start: Loaded,
    spec: Student,
    blocks_BT: Tensor,
    on_progress: OnProgress = lambda done, total, unit: None,
    order: DropOrder | None = None,
) -> Loaded:
    """Make a student; the map of what was cut is in its config, and in the log in words.

    Args:
        teacher: The model that the student will learn from.
        start: The model that becomes the student: the teacher itself, or another that
            `spec.start` names.
        spec: What is asked.
        blocks_BT: Token ids on which importance is measured.
        on_progress: Hears how far the measuring is.
        order: Layers that the greedy choice has dropped for another size of student.

    Raises:
        BadInput: The sizes are impossible for this model, or its family cannot be cut so.
    """
    if isinstance(spec, CheckpointStudent):
        log.info("The student is %s as it is: nothing is cut.", start.name)
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
        _say_target(start.model, shape, spec.num_parameters)
        choice = spec.choice if isinstance(spec, BothStudent) else "uniform"
        model = cut.to_shape(shape, choice)
    _warn_of_a_large_step(start, model.num_parameters())
    return Loaded(f"{teacher.name}:{spec.slug()}", model, start.tokenizer)


def importance_blocks(spec: Student, heldout: list[int], training: list[int]) -> list[int]:
    """Blocks on which importance is measured.

    Choosing by the KL, or by activations, on the blocks that the student is judged on would
    flatter it, so training blocks serve, the last ones: a short training never sees them.
    Block influence has always looked at the held-out blocks and keeps doing so.
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
        """Whether the model was itself cut before."""
        return self.start is not self.teacher

    def depth(self, num_layers: int, choice: str) -> PreTrainedModel:
        """The model with fewer layers."""
        _, layers = layer_list(self.start.model)
        whose = self.start.name if self.second_step else f"the teacher {self.start.name}"
        sizes.check_num_layers(num_layers, len(layers), whose)
        kept = self._layers(num_layers, choice)
        student = keep_layers(self.start.model, kept)
        layer_map.write_kept_map(student, self.start.model, kept, second_step=self.second_step)
        log.info("The student keeps the layers %s.", getattr(student.config, KEPT_LAYERS))
        return student

    def to_shape(self, shape: ModelShape, choice: str = "uniform") -> PreTrainedModel:
        """The model in another shape: importance of all is measured before anything is cut."""
        whole = shape_of(self.start.model)
        seen = width_importance(self.start.model, self.sample_BT, self._told("blocks"))
        kept = select_widths(shape, whole, seen)
        layers = self._layers(shape.num_layers, choice)
        shallow = keep_layers(self.start.model, layers)
        stay = KeptWidths(
            kept.hidden,
            *([rows[i] for i in layers] for rows in (kept.channels, kept.heads, kept.groups)),
        )
        prefix, _ = layer_list(self.start.model)
        student = keep_widths(shallow, stay, select_layer_weights(seen.squares, prefix, layers))
        layer_map.write_kept_map(
            student, self.start.model, layers, stay, second_step=self.second_step
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
        """Which layers of the model stay."""
        _, layers = layer_list(self.start.model)
        total = len(layers)
        if choice == "uniform" or num_layers == total:
            return uniform_layers(total, num_layers)
        if choice == "block_influence":
            influence = block_influence(self.start.model, self.sample_BT, self._told("blocks"))
            return most_influential(influence, num_layers)

        def tried(done: int, of: int) -> None:
            self.on_progress(done, of, "students")

        return greedy_layers(
            self.start, self.teacher, num_layers, self.sample_BT, tried, self.order
        )

    def _told(self, unit: str) -> Callable[[int], None]:
        return lambda done: self.on_progress(done, len(self.sample_BT), unit)


def _say_target(model: PreTrainedModel, shape: ModelShape, asked: int) -> None:
    found = count_parameters(model, [shape])[0]
    log.info(
        "Asked for %s parameters; the closest even shape has %s (%+.2f %%).",
        f"{asked:,}",
        f"{found:,}",
        100 * (found - asked) / asked,
    )


def _warn_of_a_large_step(start: Loaded, num_parameters: int) -> None:
    whole = start.model.num_parameters()
    cut = 1 - num_parameters / whole
    if cut > MAX_SHARE_PER_CUT:
        log.warning(
            "This cuts %.0f %% of the parameters of %s in one step; a student rarely recovers from "
            "more than half. Two steps: first a student of about %s parameters, taught, then this "
            "one with start_from: run:ITS_RUN_ID.",
            100 * cut,
            start.name,
            f"{round((whole * num_parameters) ** 0.5, -3):,.0f}",
        )
