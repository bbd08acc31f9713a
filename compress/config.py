"""What a compression can be told; the type of a config picks the method."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class HalfConfig:
    """Which half precision."""

    dtype: Literal["fp16", "bf16"] = "fp16"
    """fp16 keeps more digits, bf16 the range of fp32."""


@dataclass(frozen=True)
class CompressConfig:
    """What to compress, and how."""

    weights: Path | None = None
    """Run directory; without it: the newest run."""
    method: Literal["fp16", "bf16"] = "fp16"
    """Number format of the stored weights."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes CUDA if there is any."""
    overwrite: bool = False
    """Replace an existing variant."""
    output_dir: Path = Path("outputs")
    """Folder in which the newest run is looked for."""
