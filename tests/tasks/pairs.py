"""The documents of `tiny_pairs`: which of two short strings is likelier."""

from typing import Any

import datasets


def load(**_: Any) -> dict[str, datasets.Dataset]:
    """Twelve pairs, in one split."""
    rows = [{"good": f"item {i} is fine", "bad": f"is fine item {i} of"} for i in range(12)]
    return {"test": datasets.Dataset.from_list(rows)}
