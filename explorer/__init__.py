"""Distill Explorer: how small can this model get, and what do we save?"""

import logging

__version__ = "0.1.0"

# transformers imports torchao where it is installed; torchao then warns of each kernel for GPUs
# that this machine lacks, and torch of how torchao's types are registered.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
