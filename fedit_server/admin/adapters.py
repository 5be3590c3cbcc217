"""Versions of the global adapter: listing them, their files, going back to one."""

from fedit_server.adapters.collecting import Collector
from fedit_server.admin.lineage import sign_version
from fedit_server.admin.models.adapters import (
    AdapterDetail,
    AdapterFile,
    AdapterPage,
    AdapterVersion,
    Pruned,
    Pruning,
    RolledBack,
)
from fedit_server.admin.models.common import FileReply, Page
from fedit_server.admin.operations import Admin
from fedit_server.problems import NotFoundError
from fedit_server.storage.opening import open_blobs, open_spool


async def list_adapters(admin: Admin, task_id: str, page: Page) -> AdapterPage:
    """Return versions, newest first; raises ConfigError U025."""
    task = await admin.task(task_id)
    rows = await admin.store.readings.adapter_lines(task.task_id, page.limit + 1, page.after)
    shown = rows[: page.limit]
    more = len(rows) > page.limit
    listed = tuple(AdapterVersion(**admin.adapter_data(row)) for row in shown)
    return AdapterPage(adapters=listed, next=shown[-1].version if more else None)


async def show_adapter(admin: Admin, task_id: str, version: int) -> AdapterDetail:
    """Return a version with the files of its folder, signed; raises ConfigError U025."""
    task = await admin.task(task_id)
    found = await admin.version(task.task_id, version)
    folder = await sign_version(admin, task, found)
    files = tuple(
        AdapterFile(name=path.name, size=path.stat().st_size) for path in sorted(folder.iterdir()) if path.is_file()
    )
    return AdapterDetail(**admin.adapter_data(found), files=files, pin=admin.identity.pin)


async def adapter_file(admin: Admin, task_id: str, version: int, name: str) -> FileReply:
    """Return a file of a version's folder; raises ConfigError U025, NotFoundError U025."""
    task = await admin.task(task_id)
    path = await admin.folder(task, await admin.version(task.task_id, version)) / name
    if not path.is_file():
        raise NotFoundError(f"version {version} has no file {name}", fix="fedit-server adapter list")
    return FileReply(path, name)


async def roll_back(admin: Admin, task_id: str, version: int) -> RolledBack:
    """Make an earlier version's content the newest; raises ConfigError U025."""
    return RolledBack(**await admin.roll_back(task_id, version))


async def prune(admin: Admin, wanted: Pruning) -> Pruned:
    """Remove what retention does not keep, and blobs that nothing mentions, or say what would go."""
    blobs, spool = open_blobs(admin.config, admin.home), open_spool(admin.config, admin.home)
    collector = Collector(admin.store, blobs, spool, admin.home.adapters)
    found = (await collector.look(admin.clock())).as_data()
    if wanted.dry_run:
        return Pruned(removed=False, **found)
    async with admin.change("adapter.prune", "") as change:
        change.after = found["versions"]
    # Removing may take long: it is no part of a transaction that keeps all others from writing.
    return Pruned(removed=True, **(await collector.collect(admin.clock())).as_data())
