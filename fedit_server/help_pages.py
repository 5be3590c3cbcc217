"""`fedit-server help TOPIC|CODE`: a short page per error code that this program can show, and a few topics, offline."""

from typing import Final

from fedit_protocol.errors import EXIT_CODES, LATER, TRY_LATER, ConfigError, exit_status

_STATUSES: Final = {
    1: "a bug, or a command whose result is no",
    2: "the command line, or a request that cannot be carried out now",
    3: "a setting, a task file, or what is set up",
    4: "nothing is joined (clients only)",
    5: "the network, or the files of a base model",
    6: "trust: a signature, a pin, a token, an invite",
    7: "consent (clients only)",
    8: "the hardware (clients only)",
    9: "data (clients only)",
    10: "paused by an owner's rules (clients only)",
    11: "the task is refused",
    12: "the store: database, blobs, disk, data folder",
    13: "an evaluation, or its judge (clients only)",
    14: "a fleet of virtual clients (clients only)",
}

_TOPICS: Final[dict[str, str]] = {
    "settings": (
        "A setting comes from the first of these that states it: a flag; FEDIT_SERVER_… in the environment; the "
        "file of "
        "--config, or server.toml in the data folder; the default. A list is written with commas in the environment. A "
        "secret may be named as a file: NAME_file, FEDIT_SERVER_NAME_FILE. See: fedit-server config show --origin. "
        "The data folder itself is chosen by --home or FEDIT_HOME."
    ),
    "certificates": (
        "Without settings the server has a private authority, which invites pin, and a certificate that renews itself. "
        "cert and key name one from elsewhere; SIGHUP, or a change of the files, shows a new one to new connections. "
        "What devices trust is fixed when the federation is made: see tls_authority in fedit-server config show. "
        "fedit-server cert show says what is served, and until when."
    ),
    "proxy": (
        "Behind a proxy that ends TLS: --listen unix:PATH --advertise HOST. Behind one that opens a connection of its "
        "own: trusted_proxies = ['10.0.0.0/8'] in server.toml; only from there X-Forwarded-For is believed, and rate "
        "limits count the address that it names. A load balancer that passes TLS through needs nothing."
    ),
    "metrics": (
        "/metrics speaks the text format of Prometheus to tokens of role metrics (fedit-server token create --role "
        "metrics). fedit-server grafana prints a dashboard, fedit-server grafana --alerts the rules. /livez: the "
        "process answers; /readyz: database, blobs, migrations, disk and certificate are good, and it is not stopping."
    ),
    "stopping": (
        "SIGTERM: /readyz says 503, long polls end with Retry-After, the server answers for drain_s seconds more, then "
        "closes its port and lets open requests end for ten seconds. The open round goes on after the next start, from "
        "its journal. Nothing that was committed is lost, after kill -9 as well."
    ),
}  # fmt: skip

_CODES: Final[dict[str, str]] = {
    "C001": "A setting has a value that it cannot have, or there is none of this name; the message says where it "
    "stands. See: fedit-server config show --origin",
    "C002": "A settings file is missing, not TOML, or not UTF-8; or the file that a secret was put in cannot be read.",
    "C010": "The task file cannot be read, or is too large to be one. It is TOML: fedit-server task schema",
    "C011": "The task file is not valid TOML; the message names the line.",
    "C012": "The base model was named as a folder, and there is none at that place.",
    "C013": "A key of the task file is unknown or has a value that it cannot have. fedit-server task schema lists all.",
    "C014": "The modules that the task adapts are not in this base model; the message lists those that are.",
    "C015": "What people agreed to must not change under its number. Raise version in the task file.",
    "C016": "The change would make the adapter, or its privacy budget, another one, or leave a part of what was "
    "learned behind. Give the task a new id; adapter export and task create --start let it begin where this one is.",
    "C017": "The address cannot be listened on: another program has it, or this machine has no such address.",
    "C020": "The task's cohort rules contradict each other: fewer devices than its own thresholds need.",
    "C021": "Weights, bits and cohort do not fit into the words of the sum. Lower max_weight, value_bits or the "
    "cohort.",
    "C023": "The method needs an adapter of LoRA pairs, and a sketch_rank no larger than any layer's outputs, or its "
    "shorter side. Lower method.sketch_rank, or leave the narrow layer out of target_modules.",
    "C024": "The noise is too coarse for the rounding. Lower encoding.clip_norm, or raise encoding.value_bits.",
    "C025": "A task with noise needs the accountant: pip install 'fedit[dp]'",
    "C026": "With so much or so little noise the result is of no use, or protects nobody.",
    "D048": "A task goes on from an adapter only if that is plain LoRA of the task's rank, alpha and modules, and the "
    "very one that the task names. Set [adapter] in the task file as the adapter has it.",
    "C030": "This data folder holds no server yet. fedit-server up makes one; or name the right folder with --home.",
    "C031": "There is nothing to train. Name a model or a task file: fedit-server up --model ORG/NAME --name TEXT",
    "C032": "The card of the enrolment authority cannot be read as one.",
    "C033": "A federation keeps the authority it began with: its keys are in every invite.",
    "C034": "Server and authority each have a data folder of their own; this one belongs to the other.",
    "C035": "No enrolment authority was set up in this folder: fedit-server authority init",
    "C036": "The authority has to meet its server once: fedit-server authority run --server 'https://…#sha256:…'",
    "C037": "Trusted mode lets this server see every update. It has to be allowed when the federation is made, and by "
    "each device's owner.",
    "C038": "The devices of this federation have pinned masked rounds only. Begin another federation for trusted ones.",
    "C039": "There is an authority in this folder already, of another federation.",
    "C040": "Commands of the server need more packages: pip install 'fedit[server]'",
    "C041": "The method turns the adapter's factors, so each layer needs at least as many inputs as the adapter has "
    "rank. Lower adapter.rank, or leave the narrow layer out of target_modules.",
    "C050": "The adapter is built between bases as wide as its rank, so no layer may be narrower. Lower adapter.rank.",
    "C090": "The setting database is empty for SQLite in the data folder, or postgresql://USER@HOST/NAME.",
    "C091": "PostgreSQL needs its driver: pip install 'fedit[postgres]'",
    "C093": "A trusted task needs the key of its rounds, which lies on one machine: no replicas, or no trusted mode.",
    "C094": "Settings of a replica do not go together; the message says which. OPERATING.md lists what replicas share.",
    "C096": "The replica key is not the one that the federation's keys were sealed with, or is no key at all.",
    "C092": "A database is moved into an empty one only, so that nothing is mixed or overwritten.",
    "C100": "Blobs in an S3-compatible store need more packages: pip install 'fedit[s3]'",
    "C101": "The setting blobs, or its credentials file, cannot be used as it is; the message says what is wrong.",
    "C102": "The file with the passphrase of a backup cannot be read.",
    "C103": "The table [retention] of a task file has a key that does not exist, or a value that cannot be.",
    "C110": "A server elsewhere wants a token: --token-file FILE, or FEDIT_TOKEN. On its machine: "
    "fedit-server token create --role operator",
    "C120": "The file describes another task than the one that is edited; the id of a task stays.",
    "C121": "The folder has no lineage.json with its lineage.sig: it was not exported by a server that signs them.",
    "C130": "The certificate or key file is not PEM: the chain has the server's own certificate first, then "
    "those above "
    "it; the key has no passphrase.",
    "C131": "Certificate and key are not a pair. Perhaps one of the two files was renewed and the other was not.",
    "C132": "The certificate has ended, or begins later than now. If the dates look right, look at this "
    "machine's clock.",
    "C133": "Devices check that the certificate is for the name they call. Get one for that name, or say with "
    "--advertise which name devices shall call.",
    "C134": "Invites of this federation name a private authority, and devices connect to nothing else. A "
    "certificate of "
    "that authority may be given; one from elsewhere only to a new federation.",
    "C135": "These settings of TLS contradict each other; the message says which.",
    "C136": "This federation began with a certificate from elsewhere, so devices trust no authority of this "
    "server. Give "
    "the certificate again, or let a proxy have it: --listen unix:PATH",
    "M001": "The base model is not on this machine, and the hub does not give it: no such name or folder, no network, "
    "a login that is needed, or HF_HUB_OFFLINE. The server needs its digests and shapes alone; --base names a copy.",
    "M002": "The base model's files are not those whose digest the task pins. Fetch that revision, or correct "
    "the task.",
    "M003": "The folder or hub entry holds no base model: a configuration, a tokenizer and safetensors are needed.",
    "M024": "No client runs code of a model, opens pickle, or loads what transformers does not know by itself.",
    "N020": "The server does not answer now. An authority tries again by itself; a command can be repeated.",
    "N021": "Something else answers at the server's address: a portal, a proxy, or another server. Nothing was sent.",
    "N130": "No server answers for this data folder. Is it started? fedit-server serve, and its log, say more.",
    "N131": "The server answered, but not with what was asked for: perhaps the token is over, or of another role.",
    "S001": "A file of the data folder cannot be read or written; `fix` shows what to look at.",
    "S002": "One server at a time works on a data folder. The message names the process.",
    "S003": "Program and database are of different versions. SQLite is migrated when the server starts; PostgreSQL by "
    "fedit-server db upgrade. A database of a newer program is left as it is: install that program again.",
    "S004": "The disk is full. Nothing was half taken; clients come again. Make room: no restart is needed.",
    "S005": "Keys and descriptor are not of one federation, or one is missing. Restore both from one backup.",
    "S006": "A stored adapter is not what its digest says. Restore the blobs from a backup.",
    "S007": "The database holds a task of an older protocol, from before the first release. Its devices speak that "
    "protocol too; serve it with the program that made it, and begin a new federation with this one.",
    "S090": "The PostgreSQL server cannot be reached; the message has its own words.",
    "S091": "PostgreSQL is set to confirm before its disk has the data. A committed round must survive a power cut.",
    "S092": "Another process held the database for longer than a write may wait.",
    "S093": "Another replica owns the task now, because this one was silent for longer than its lease. Nothing is "
    "lost: the other one goes on from the journal. See: fedit-server replica list",
    "S094": "The database, or a copy of it, is damaged; the message names the table.",
    "S095": "Two servers on one database need a replica_address each; a server without one works alone.",
    "S096": "This folder's keys are not those of the other replicas. Restart replicas after keys rotate; start a new "
    "one with an empty folder.",
    "S097": "Replicas share their blobs: one S3-compatible store, or one shared folder mounted as blobs/ of each.",
    "S100": "The object store does not answer. The server tries again by itself; nothing was half taken.",
    "S101": "The bucket does not exist. Create it, or correct the setting blobs.",
    "S102": "The credentials are wrong, or may not list, read, write and delete below the prefix.",
    "S103": "The backup is cut off, or not what its manifest lists. Take an older one, and verify each that you make.",
    "S110": "A line of the audit log was changed or taken out. Somebody with access to the database did it, or "
    "the disk.",
    "T004": "The invite has expired. Make another one: fedit-server invite create --expires 7d",
    "T005": "The invite has admitted as many devices as it may. Make another one: fedit-server invite create --uses 40",
    "T006": "The invite is not known here, or was revoked.",
    "T007": "The clocks of a device, or of the authority, and of this server disagree by more than five minutes. "
    "Correct the one that is wrong.",
    "T008": "Who asks is not enrolled, or no longer.",
    "T010": "A message broke the protocol's rules, or came where it could not be used. If both sides are current, this "
    "is a bug.",
    "T011": "A signature, key or context did not fit. An honest device, server or authority never sends such a thing.",
    "T020": "A sealed update, or the sum of a round, is none that the rules allow: not finite, too long, or "
    "with a weight or a figure out of range. It was not used.",
    "T021": "Too many wrong codes came from one address; it has to wait a minute.",
    "T022": "Too many requests came from one device or address. Behind a proxy: fedit-server help proxy",
    "T024": "The server shows another log of devices than its authority keeps. Find out why before anything else.",
    "T025": "Another server answers than the one that this authority has met. Nothing was sent.",
    "T026": "The server refused what its authority said; the message has the reason.",
    "T110": "The token is not known here. fedit-server token list shows those that are; secrets are shown once.",
    "T111": "The token's role may not do this. OPERATING.md has the table of roles and rights.",
    "T112": "The token or link is over: expired, used or revoked. Make another one: fedit-server token create",
    "T113": "The page that asked for the change is not one of this session. Load it again.",
    "T115": "Another server answers than the pin names. Nothing was sent. Ask for its pin: fedit-server status",
    "T116": "The certificate is private and no pin was given. Compare the fingerprint with fedit-server status there.",
    "T117": "The device waits until the operator lets it in: fedit-server clients list --waiting, clients approve CODE",
    "T118": "As many devices are enrolled as the setting most_devices allows.",
    "T120": "The record of a task's changes is signed line by line, each bound to the one before. One of them does not "
    "hold: the database was changed, or keys and database are not of one server. Restore both from one backup.",
    "T121": "An exported adapter, or its lineage, is not as its server signed it; the message names the first thing "
    "that does not fit. Do not use it.",
    "T122": "The folder was signed by another federation than the one that --pin names, or this server's, or by an "
    "older key that nothing here leads to. Have it exported anew, and compare the pin.",
    "U001": "The command line is not understood. fedit-server COMMAND --help lists what there is.",
    "U024": "A length of time is a number with s, m, h, d or w behind it: 7d, 12h, 30m.",
    "U025": "There is no such task, round, version, device, invite or token; the list command of each shows them.",
    "U027": "There is something at that place already, and nothing is overwritten.",
    "U028": "The key cannot be changed now; the message says what has to end first.",
    "U029": "The old key is still there, so it can vouch for the new one: fedit-server keys rotate, without --lost",
    "U030": "What was asked for does not fit the state that the thing is in; the message says which.",
    "U031": "This federation's authority lives apart and makes the invites: fedit-server authority invite",
    "U034": "The authority needs the server's address and pin, as fedit-server up prints them.",
    "U100": "A backup's passphrase guards every key of the federation: take four or five random words.",
    "U101": "The passphrase is another one, or somebody without it has changed the backup.",
    "U102": "There is a file of that name already, and backups are never written over.",
    "U103": "The database is PostgreSQL: run pg_dump first, and give its file with --dump.",
    "U104": "A backup is restored into an empty folder only. Name another one with --home.",
    "U105": "Nobody is here to be asked for the passphrase: --passphrase-file FILE, or FEDIT_BACKUP_PASSPHRASE.",
    "U106": "The task's retention has let the content of that version go; its digest stays. A backup may have it.",
    "U110": "The file is no export of an audit log: fedit-server audit export --out FILE writes one.",
    "U111": "A field of the request is missing, unknown, or has a value that it cannot have; the answer names it.",
    "U112": "The body of the request is not JSON.",
    "U113": "The request takes no answer of the kind that there is; leave the Accept header out.",
    "U114": "The body of the request is of another kind than application/json.",
    "U115": "A quota is reached; the message says which, and how to make room.",
    "U120": "The task's state, or a round that is open or held, does not allow this now. States and what leads from "
    "one to the next: fedit-server task list",
    "U121": "There is a task with this id. Give the new one another id, or change that one: fedit-server task edit",
    "U122": "Without a file, task edit opens the editor that VISUAL or EDITOR names, on a terminal.",
    "U124": "The round is not open, or its stage cannot end yet with the devices that came; or no server runs it.",
    "U125": "The file says what is published already, so nobody has to be asked about anything.",
    "U116": "The request is larger than any that is taken.",
    "U118": "The command needs the data folder, so it works on the server's own machine only.",
    "U130": "The file with the token cannot be read.",
    "U131": "The certificate comes from elsewhere, and is renewed there; the server takes up the new files by itself.",
    "U132": "config edit needs a person at a terminal. Others write the file, or use the environment.",
    "U133": "No editor could be used. Name one in VISUAL or EDITOR.",
    "U134": "There is no page of that name. fedit-server help lists them.",
    "U135": "There is a file at that place already, and nothing is overwritten.",
    "U136": "The private authority cannot be changed now, or is not this server's; the message says which.",
    "U150": "The request has a Content-Encoding such as gzip. No body is unpacked here; send it as it is.",
    "X001": "A bug. fedit-server bugreport gathers, redacted, what helps to find it; nothing is sent.",
}


def help_lines(topic: str) -> list[str]:
    """Return one page, or the list of pages; raises ConfigError U134 for a page that is not there."""
    wanted = topic.strip().upper().removeprefix("FEDIT-")
    if not wanted:
        topics = " ".join(["exit-codes", "json", *sorted(_TOPICS)])
        return ["fedit-server help CODE explains an error, fedit-server COMMAND --help a command", "",
                f"topics: {topics}", f"codes: {' '.join(sorted(_CODES))}"]  # fmt: skip
    if wanted in _CODES:
        return [f"FEDIT-{wanted} (exit {exit_status(wanted)})", _CODES[wanted]]
    if wanted.lower() in _TOPICS:
        return [_TOPICS[wanted.lower()]]
    if wanted == "EXIT-CODES":
        return exit_code_lines()
    if wanted == "JSON":
        from fedit_server.commands.json_output import schema_lines

        return schema_lines()
    raise ConfigError(f"there is no page called {topic}", code="U134", fix="fedit-server help")


def exit_code_lines() -> list[str]:
    """Return what each exit status means, with the letters of the error codes that end with it."""
    letters: dict[int, str] = {}
    for letter, status in EXIT_CODES.items():
        letters[status] = ", ".join(filter(None, (letters.get(status), f"{letter}…")))
    table = [f"{status:<4} {_STATUSES[status]} ({letters[status]})" for status in sorted(letters)]
    later = f"{LATER:<4} try the same again later: nothing is wrong here ({', '.join(sorted(TRY_LATER))})"
    return ["0    ok", *table, later, "130  interrupted"]


def documented_codes() -> frozenset[str]:
    """Return every code that has a page, for the test that compares them with the code."""
    return frozenset(_CODES)
