"""`compress`: a smaller variant of a run, all variants that fit, or the best within some bytes."""

from compress.all_methods import compress_all
from compress.config import CompressConfig
from compress.variant import compress_run
from featherweight.reports.reporting import quality_table
from featherweight.run import COMPRESSION


def compress(config: CompressConfig) -> str:
    """Does what the flags ask for.

    Returns:
        What a user is shown: the figures of variant and origin, and whether it was accepted.

    Raises:
        FeatherweightError: The method does not fit, or cannot be applied; the message says why.
    """
    if config.method == "all":
        return compress_all(config)
    if config.target_size:
        from compress.search import search  # needs the extra for searching

        run, evaluations = search(config)
    else:
        run, evaluations = compress_run(config)
    reason = run.read_json(COMPRESSION)["rejected"]
    verdict = f"rejected: {reason}" if reason else "accepted"
    return f"{quality_table(evaluations)}\n\n{verdict}\nrun: {run.path}"
