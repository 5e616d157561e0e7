"""The sizes of a model that decide how much memory and disk a run needs."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class ModelSize:
    """A model's size, known before it is in memory."""

    num_parameters: int
    num_layers: int
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    kv_values_per_layer: int | None = None
    """Keys and values that a layer keeps for each token; None is taken as one for every head."""

    @property
    def kv_values(self) -> int:
        """Keys and values that a layer keeps for each token, or an upper bound."""
        stated = self.kv_values_per_layer
        return 2 * self.hidden_size if stated is None else stated

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the embedding, which is taken as tied to the head."""
        return self.vocab_size * self.hidden_size

    @property
    def per_layer(self) -> float:
        """Parameters of a layer."""
        return (self.num_parameters - self.embedding_parameters) / self.num_layers

    def with_layers(self, num_layers: int) -> "ModelSize":
        """The size of the same model with fewer layers."""
        removed = (self.num_layers - num_layers) * self.per_layer
        size = int(self.num_parameters - removed)
        return dataclasses.replace(self, num_layers=num_layers, num_parameters=size)


NO_MODEL = ModelSize(
    num_parameters=0, num_layers=1, hidden_size=0, intermediate_size=0, vocab_size=0
)
"""A model behind an endpoint, which takes no memory here."""
