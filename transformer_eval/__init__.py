"""Transformers of the BERT family: fine-tuned, frozen, or as published on the Hub."""

import logging

# They warn at import about missing kernels and number formats, which does not concern the user.
for _library in ("torchao", "torch.utils._pytree", "bitsandbytes"):
    logging.getLogger(_library).setLevel(logging.ERROR)
