"""Fresh students: the teacher's architecture at other sizes, with random weights.

The baseline that shows what a cut is worth, since it inherits nothing. Its embedding is random
too, so it has to be trained (`distill.train_embeddings: true`).
"""

import copy
import dataclasses
import logging
from typing import Any

import torch
from transformers import PreTrainedModel

from explorer.models import families, size_limits
from explorer.models.families import shape_of
from explorer.models.layers import KEPT_LAYERS, KEPT_WIDTHS
from explorer.specs import FreshStudent
from explorer.students.depth import uniform_layers
from explorer.students.layer_config import keep_config_layers
from explorer.students.size_target import MIN_SHARE, requested_shape, shape_for_size

log = logging.getLogger("explorer")


def create_fresh(teacher: PreTrainedModel, spec: FreshStudent) -> PreTrainedModel:
    """A model with the teacher's architecture at the spec's sizes.

    The same seed gives the same weights.

    Raises:
        BadInput: A size is larger than the teacher's, or no shape has so few parameters.
    """
    whole = shape_of(teacher)
    if spec.num_parameters is not None:
        shape = shape_for_size(
            teacher, spec.num_parameters, min_depth=MIN_SHARE, min_width=MIN_SHARE
        )
    else:
        num_layers = spec.num_layers or whole.num_layers
        size_limits.check_num_layers(num_layers, whole.num_layers, "the teacher", allow_equal=True)
        shape = dataclasses.replace(requested_shape(teacher, spec), num_layers=num_layers)
    config = families.resized_config(teacher, shape)
    keep_config_layers(config, uniform_layers(whole.num_layers, shape.num_layers))
    for key in (KEPT_LAYERS, KEPT_WIDTHS):
        if hasattr(config, key):
            delattr(config, key)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        student: Any = type(teacher)._from_config(config, dtype=teacher.dtype)
        embedding = student.get_input_embeddings()
        if embedding.padding_idx is not None:
            # transformers zeroes this row, and many models pad with the end-of-document token:
            # a norm over zeros multiplies the gradient by hundreds in every layer.
            with torch.no_grad():
                embedding.weight[embedding.padding_idx].normal_(std=config.initializer_range)
    student.generation_config = copy.deepcopy(teacher.generation_config)
    log.info(
        "The student has random weights: %d layers, hidden size %d, %d MLP channels, %d heads, "
        "%s parameters.",
        shape.num_layers,
        shape.hidden_size,
        shape.intermediate_size,
        shape.num_attention_heads,
        f"{student.num_parameters():,}",
    )
    placed: PreTrainedModel = student.to(teacher.device).eval()
    return placed
