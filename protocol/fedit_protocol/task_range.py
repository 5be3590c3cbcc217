"""How far one round can move a coordinate of the update, where a task does not state it."""

from typing import TYPE_CHECKING

from fedit_protocol.state_layout import value_range_of
from fedit_protocol.task_tables import MethodName
from fedit_protocol.task_training import Schedule

if TYPE_CHECKING:
    from fedit_protocol.task import Task


def usual_range(task: "Task") -> float:
    """Return what AdamW can move a coordinate by in one round, with 5 % to spare; other methods say it otherwise."""
    if (own := value_range_of(task)) is not None:
        return own
    if task.optimizer.fednova:
        return 1.05 * task.training.learning_rate  # what one step at the peak rate moves it by
    steps = task.training.most_steps
    # Linear and cosine decay from the peak at the first step towards 0 both sum to (steps + 1) / 2 of it.
    effective = steps if task.training.schedule is Schedule.CONSTANT else (steps + 1) / 2
    # RAVAN's cores move by their scales' steps too, SCAFFOLD's coordinates by the control variates.
    spare = {MethodName.RAVAN: 1.3, MethodName.SCAFFOLD: 2.1}.get(task.method.name, 1.05)
    return spare * task.training.learning_rate * effective
