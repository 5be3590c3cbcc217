"""The training process: `python -m fedit_client.training.worker`, one request on stdin, started by WorkerTrainer."""

from dataclasses import asdict
from pathlib import Path

from fedit_client.data import Record
from fedit_client.hardware.device import DevicePlan
from fedit_client.training.channel import WIRE_FLOAT, Channel, Json
from fedit_client.training.request import TrainingProgress, TrainingRequest
from fedit_client.training.room import plan_of, run
from fedit_protocol.encoding import from_base64url
from fedit_protocol.task import TaskDocument


def train(channel: Channel, message: Json, plan: DevicePlan) -> None:
    """Train as asked; the update goes back through the pipe as little-endian float32."""
    from fedit_client.training.checkpoint import CheckpointFile
    from fedit_client.training.followers import following, leading
    from fedit_client.training.keeping import WorkerKeeper
    from fedit_client.training.local import load, train_here

    request = request_of(message, plan)

    def tell(progress: TrainingProgress) -> None:
        channel.send("progress", **asdict(progress))

    file = CheckpointFile(Path(message["checkpoint"])) if message["checkpoint"] else None
    if message.get("share"):
        shared = following(channel, message, plan, file)
    else:
        keeper_here = WorkerKeeper(channel, file, message["every_s"], message["speed"])
        shared = leading(channel, message, plan, keeper_here)
    with shared as (group, keeper):
        tell(TrainingProgress("load", 0, 1))
        loaded = load(request.document, request.base, plan)
        tell(TrainingProgress("load", 1, 1))
        result = train_here(loaded, request, tell, keeper, group)
    if group.leads:
        told = {name: value for name, value in vars(result).items() if name != "update"}
        channel.send_with(result.update.astype(WIRE_FLOAT).tobytes(), "result", **told)


def request_of(message: Json, plan: DevicePlan) -> TrainingRequest:
    """Return the request that crossed the pipe, under the plan of the process that serves it."""
    return TrainingRequest(
        document=TaskDocument.model_validate(message["document"]),
        base=Path(message["base"]),
        global_adapter=Path(message["global_adapter"]),
        records=[Record.from_json(record) for record in message["records"]],
        seed=from_base64url(message["seed"]),
        plan=plan.serving(plan_of(message["plan"])),
        split_seed=from_base64url(message["split_seed"]),
        canary=message.get("canary", False),
        version=message["version"],
        public=Path(message["public"]) if message["public"] else None,
        own=Path(message["own"]) if message["own"] else None,
    )


if __name__ == "__main__":
    run(train)
