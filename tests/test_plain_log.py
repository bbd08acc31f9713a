"""What a log file gets: whole lines, without the signs that move or color a terminal's cursor."""

import os
import subprocess
import sys
from pathlib import Path

from tests.helpers.command_line import TINY


def test_a_log_of_a_training_is_plain_text(tmp_path: Path, tiny_data: Path) -> None:
    command = [sys.executable, "-m", "featherweight.cli", "train", *TINY]
    flags = ["--data", str(tiny_data), "--name", "logged", "--output_dir", str(tmp_path)]
    done = subprocess.run(
        [*command, *flags], capture_output=True, check=True, env=os.environ | {"NO_COLOR": "1"}
    )
    said = done.stdout + done.stderr
    assert b"macro-F1" in said
    assert not set(said) & {0x0D, 0x1B, 0x08}
