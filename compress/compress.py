"""`compress`: one method, all methods that fit, or a search within a size limit."""

from compress.all_methods import compress_all
from compress.config import CompressConfig
from compress.variant import compress_run
from featherweight.reports.reporting import quality_table
from featherweight.run import COMPRESSION


def compress(config: CompressConfig) -> str:
    """Compresses a run as the flags say.

    Returns:
        The text to print: scores of variant and origin, and whether the variant was accepted.

    Raises:
        FeatherweightError: The method does not fit the model or fails; the message says why.
    """
    if config.method == "all":
        return compress_all(config)
    if config.target_size:
        from compress.search import search  # needs the extra `search`

        run, evaluations = search(config)
    else:
        run, evaluations = compress_run(config)
    reason = run.read_json(COMPRESSION)["rejected"]
    verdict = f"rejected: {reason}" if reason else "accepted"
    return f"{quality_table(evaluations)}\n\n{verdict}\nrun: {run.path}"
