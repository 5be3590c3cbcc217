"""Where things lie on this machine: one portable folder, or the places that the operating system has for them."""

import re
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import platformdirs

from fedit_protocol.errors import ConfigError

_APP = "fedit-client"
_APP_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)


@dataclass(frozen=True)
class Paths:
    """The client's folders; nothing is created by asking."""

    config: Path
    data: Path
    state: Path
    cache: Path
    log: Path

    @classmethod
    def under(cls, home: Path) -> "Paths":
        """Everything in one folder (`--home DIR`, `FEDIT_HOME`)."""
        home = home.expanduser().absolute()
        return cls(config=home, data=home, state=home, cache=home / "cache", log=home / "log")

    @classmethod
    def of_platform(cls) -> "Paths":
        """The folders that this operating system gives to programs."""
        return cls(
            config=platformdirs.user_config_path(_APP, appauthor=False),
            data=platformdirs.user_data_path(_APP, appauthor=False),
            state=platformdirs.user_state_path(_APP, appauthor=False),
            cache=platformdirs.user_cache_path(_APP, appauthor=False),
            log=platformdirs.user_log_path(_APP, appauthor=False),
        )

    @classmethod
    def find(cls, home: Path | None) -> "Paths":
        """The portable folder if one is given, else the platform's."""
        return cls.under(home) if home else cls.of_platform()

    @property
    def settings_file(self) -> Path:
        """`client.toml`, the owner's settings."""
        return self.config / "client.toml"

    @property
    def identity_file(self) -> Path:
        """The device's private key; readable by its owner only."""
        return self.state / "identity.key"

    @property
    def identity_note(self) -> Path:
        """Says that the private key is in the system's keyring; there is no such file otherwise."""
        return self.state / "identity.json"

    @property
    def membership_file(self) -> Path:
        """What was joined, on which terms."""
        return self.state / "membership.json"

    @property
    def left_file(self) -> Path:
        """The task that was left last, as long as adapters of it are here: what chat and export need to know of it."""
        return self.state / "left.json"

    @property
    def sources_file(self) -> Path:
        """Which data this device trains on: names and what was said about them, no rows."""
        return self.state / "sources.json"

    @property
    def home_file(self) -> Path:
        """Which format these folders have."""
        return self.state / "home.json"

    @property
    def consents(self) -> Path:
        """Every yes and every taking back, one file each."""
        return self.state / "consents"

    @property
    def outbox(self) -> Path:
        """What was uploaded, as it was before masking."""
        return self.state / "outbox"

    @property
    def history(self) -> Path:
        """Signed lines about every round taken part in."""
        return self.state / "history"

    @property
    def contacts_file(self) -> Path:
        """Which hosts were contacted, why and when last."""
        return self.cache / "contacts.json"

    @property
    def journal(self) -> Path:
        """What was sent in which round."""
        return self.state / "journal"

    @property
    def key_log(self) -> Path:
        """`FEDERATION.json`: the newest head of each federation's log of devices that was seen here."""
        return self.state / "key-log"

    @property
    def checkpoints(self) -> Path:
        """Training that runs right now, so that a pause or a crash of it costs nothing; empty between rounds."""
        return self.state / "checkpoints"

    @property
    def lock_file(self) -> Path:
        """Held while a client runs on these folders."""
        return self.state / "client.lock"

    @property
    def control_file(self) -> Path:
        """What the owner wishes of the running client: a pause, a finish (`control`)."""
        return self.state / "control.json"

    @property
    def now_file(self) -> Path:
        """What the running client does at this moment (`control`)."""
        return self.state / "now.json"

    @property
    def machine_file(self) -> Path:
        """How fast this machine trained, and in how much memory."""
        return self.state / "machine.json"

    @property
    def settings_draft(self) -> Path:
        """What `config edit` was given and has not accepted yet."""
        return self.config / "client.toml.draft"

    @property
    def page_way(self) -> Path:
        """What shows a browser the way to the page, while `ui` runs."""
        return self.state / "open-page.html"

    @property
    def runtime(self) -> Path:
        """The training environment that `setup` makes."""
        return self.data / "runtime"

    @property
    def pace_file(self) -> Path:
        """How long each stage takes on this machine (`pace`)."""
        return self.state / "pace.json"

    @property
    def log_file(self) -> Path:
        """What commands did and why they failed, with tracebacks; the newest megabyte, three older ones beside it."""
        return self.log / "client.log"

    @property
    def adapters(self) -> Path:
        """`TASK/VERSION/`, each a PEFT folder."""
        return self.data / "adapters"

    @property
    def exports(self) -> Path:
        """Where `export` puts what it makes, unless told otherwise."""
        return self.data / "exports"

    @property
    def models(self) -> Path:
        """Base models that had to be converted before use."""
        return self.cache / "models"

    def everything(self) -> dict[str, Path]:
        """Every file and folder that this program may have made here, by name: what erasing removes.

        Base models that were downloaded lie in the Hugging Face cache, which other programs share.
        """
        return {
            "membership": self.membership_file,
            "task of the adapters": self.left_file,
            "data": self.sources_file,
            "identity": self.identity_file,
            "identity note": self.identity_note,
            "consents": self.consents,
            "journal": self.journal,
            "outbox": self.outbox,
            "history": self.history,
            "key log": self.key_log,
            "control": self.control_file,
            "activity": self.now_file,
            "pace": self.pace_file,
            "machine": self.machine_file,
            "checkpoints": self.checkpoints,
            "home format": self.home_file,
            "adapters": self.adapters,
            "exports": self.exports,
            "runtime": self.runtime,
            "cache": self.cache,
            "settings": self.settings_file,
            "settings draft": self.settings_draft,
            "page address": self.page_way,
            "log": self.log,
        }

    def labelled(self) -> dict[str, Path]:
        """Every place with its name, for `fedit-client paths`."""
        return {
            "settings": self.settings_file,
            "identity": self.identity_file,
            "membership": self.membership_file,
            "data": self.sources_file,
            "consents": self.consents,
            "journal": self.journal,
            "outbox": self.outbox,
            "history": self.history,
            "contacts": self.contacts_file,
            "key log": self.key_log,
            "checkpoints": self.checkpoints,
            "adapters": self.adapters,
            "exports": self.exports,
            "models": self.models,
            "log": self.log_file,
        }


def app_home(app: str | None, data_dir: Path | None) -> Path | None:
    """Return the home of a client inside another program; None for neither, which is the person's own client.

    It is a folder of its own, so that erasing it takes nothing of the program along. Raises ConfigError C001 for an
    `app` that is no plain name.
    """
    if app is not None and not _APP_NAME.fullmatch(app):
        raise ConfigError(f"{app!r} is no name of a program: letters, digits, dot, dash and underscore", code="C001",
                          where="Client.open(app=…)", fix='Client.open(invite, app="notes-app")')  # fmt: skip
    if data_dir is not None:
        return data_dir / "fedit"
    return platformdirs.user_data_path(_APP, appauthor=False) / "apps" / app if app else None


def free_name(taken: Path) -> Path:
    """Return a name beside one that is taken, `notes-2.jsonl` for `notes.jsonl`: the first that is free."""
    names = (taken.with_name(f"{taken.stem}-{number}{taken.suffix}") for number in count(2))
    return next(name for name in names if not name.exists())
