"""The heavy contenders: BERT-family models, fine-tuned, frozen or as they come from the Hub."""

import logging

# They say which kernels are not here, and what they cast; nothing of it is for the user.
for _library in ("torchao", "torch.utils._pytree", "bitsandbytes"):
    logging.getLogger(_library).setLevel(logging.ERROR)
