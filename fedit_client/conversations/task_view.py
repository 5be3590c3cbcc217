"""By which rules rows are looked at before training: the joined task's, or those of a named base. No network."""

from dataclasses import dataclass
from pathlib import Path

from fedit_client.base.model import is_hub_id, local_base
from fedit_client.config import ClientConfig
from fedit_client.membership.joined import load_membership
from fedit_protocol.errors import ModelError
from fedit_protocol.task import PromptSpec, TrainingSpec

_ASSUMED = PromptSpec(cutoff_tokens=1024)


@dataclass(frozen=True)
class TaskView:
    """A prompt section, and where it comes from in words; without a base on this machine nothing counts tokens."""

    prompt: PromptSpec
    training: TrainingSpec | None
    model: str | None
    base: Path | None
    words: str
    fetch: str = "fedit-client prefetch"
    """The command that fetches the base."""

    def require_base(self) -> Path:
        """Return the base's folder; raises ModelError M001 with the command that fetches it."""
        if self.base is not None:
            return self.base
        if self.model is None:
            raise ModelError(
                "without a task that was joined, the base has to be named whose template and tokens shall be shown",
                code="M001",
                fix="fedit-client data preview rows.jsonl --model FOLDER",
            )
        if not is_hub_id(self.model):
            raise ModelError(
                f"there is no folder {self.model}, and it is no hub id (org/name)",
                code="M001",
                where=self.model,
                fix="fedit-client data preview rows.jsonl --model FOLDER",
            )
        raise ModelError(
            f"the base model {self.model} is not on this machine, and this command fetches nothing",
            code="M001",
            where=self.model,
            fix=self.fetch,
        )


def task_view(config: ClientConfig, model: str | None = None) -> TaskView:
    """Return the rules of the joined task; `model` names another base, and is enough where nothing was joined."""
    joined = load_membership(config.paths.membership_file)
    if joined is None:
        named = model or config.model
        base = local_base(named, "", config.paths.cache) if named else None
        words = f"no task was joined: the base's chat template and {_ASSUMED.cutoff_tokens:,} tokens assumed"
        return TaskView(_ASSUMED, None, named, base, words, f"fedit-client prefetch --model {named}")
    task = joined.task_document.task
    named = model or config.model or joined.model or task.base.model
    base = local_base(named, task.base.revision, config.paths.cache)
    words = f"as {task.label} trains them: template {task.prompt.template}, {task.prompt.cutoff_tokens:,} tokens"
    # `prefetch` holds what it fetches against the task's digest: another base is fetched beside it.
    fetch = f"hf download {named}" if model and model != task.base.model else "fedit-client prefetch"
    return TaskView(task.prompt, task.training, named, base, words, fetch)
