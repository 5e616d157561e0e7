"""Peak memory of a model on an accelerator: the allocator's peak minus what other models hold."""

from types import TracebackType
from typing import Self

from transformers import PreTrainedModel

from explorer.devices import memory
from explorer.latency.runtimes.protocol import PeakMemory
from explorer.models.quantize import stored_tensors


class AllocatorPeak(PeakMemory):
    """Measures with the allocator of a model's device.

    `num_bytes` stays None on a CPU and on a device whose allocator counts no peak.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        """Measure `model`; other tensors on the device are not counted."""
        self._model = model

    def __enter__(self) -> Self:
        """Reset the allocator's peak."""
        device = self._model.device
        if memory.counts_peak(device):
            memory.reset_peak(device)
            self._others = memory.held_bytes(device) - num_weight_bytes(self._model)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Read the peak."""
        device = self._model.device
        if memory.counts_peak(device):
            self.num_bytes = memory.peak_bytes(device) - self._others


def num_weight_bytes(model: PreTrainedModel) -> int:
    """Bytes of all parameters and buffers; shared storage counts once."""
    storages = {
        stored.untyped_storage().data_ptr(): stored.untyped_storage().nbytes()
        for tensor in (*model.parameters(), *model.buffers())
        for _, stored in stored_tensors("", tensor)
    }
    return sum(storages.values())
