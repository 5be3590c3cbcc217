"""lm-eval on a model that is loaded already; torch room."""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, Final

from fedit_client.evaluation.metrics import missing
from fedit_client.training.process import Json
from fedit_protocol.errors import EvaluationError

_DRAWS: Final = 1000
"""Bootstrap draws of the harness for the standard error of metrics that have no formula."""


def scores_of(model: Any, tokenizer: Any, message: Json) -> dict[str, dict[str, float]]:
    """Return task → metric → value of the model as it stands; raises EvaluationError V003, V005."""
    try:
        from lm_eval.evaluator import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise missing("lm-eval", "a public benchmark") from error
    tasks = TaskManager(include_path=message["folder"])
    _check_names(message["tasks"], tasks)
    try:
        found = simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=message["batch_size"]),
            tasks=message["tasks"],
            num_fewshot=message["shots"],
            limit=message["rows"],
            bootstrap_iters=_DRAWS,
            log_samples=False,
            apply_chat_template=message["chat"],
            task_manager=tasks,
            random_seed=message["seed"],
            numpy_random_seed=message["seed"],
            torch_random_seed=message["seed"],
            fewshot_random_seed=message["seed"],
        )
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise EvaluationError(
            f"the benchmark could not be run: {reason[0][:200] if reason else type(error).__name__}",
            code="V005",
            where=", ".join(message["tasks"]),
            fix="are the task's rows on this machine, or is the hub within reach?",
        ) from error
    return {task: _numbers(metrics) for task, metrics in (found or {})["results"].items()}


def _check_names(names: Sequence[str], tasks: Any) -> None:
    absent = [name for name in names if not tasks.match_tasks([name])]
    if absent:
        raise EvaluationError(f"the harness has no task called {', '.join(absent)}", code="V005",
                              fix="lm-eval ls tasks, or --folder DIR for tasks of your own")  # fmt: skip


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Only numbers; the harness writes `acc,none` for acc without a filter."""
    return {
        name.removesuffix(",none"): float(value)
        for name, value in metrics.items()
        if isinstance(value, Real) and not isinstance(value, bool)
    }
