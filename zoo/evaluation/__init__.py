"""Evaluate models under protocols that anybody can repeat.

    result = zoo.evaluate("dimo/kangaroo", "dimo-views", truth="truth")
    print(text_table(result))
    result.save("metrics.json")

    protocol     protocols, files with a hash
    tasks        what they run: dimo, between, mvvdm, animate
    scores       the metrics that they name (formulas: `zoo.metrics`); bootstrap: intervals
    controls     videos of known quality, and whether a metric ranks them as it should
    result       results, files with a hash; table, sheet: their text and picture
    store        results in a registry and beside the weights of models; leaderboard: all of them on one page

Names are imported on first use.
"""

from typing import TYPE_CHECKING

from zoo.lazy import lazy_names

if TYPE_CHECKING:
    from zoo.evaluation.api import evaluate
    from zoo.evaluation.errors import EvaluationError, TruthError
    from zoo.evaluation.protocol import Protocol, open_protocol, protocols
    from zoo.evaluation.result import Result, read_result
    from zoo.evaluation.table import text_table

__all__ = [
    "EvaluationError",
    "Protocol",
    "Result",
    "TruthError",
    "evaluate",
    "open_protocol",
    "protocols",
    "read_result",
    "text_table",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "EvaluationError": "zoo.evaluation.errors",
            "Protocol": "zoo.evaluation.protocol",
            "Result": "zoo.evaluation.result",
            "TruthError": "zoo.evaluation.errors",
            "evaluate": "zoo.evaluation.api",
            "open_protocol": "zoo.evaluation.protocol",
            "protocols": "zoo.evaluation.protocol",
            "read_result": "zoo.evaluation.result",
            "text_table": "zoo.evaluation.table",
        },
    )
