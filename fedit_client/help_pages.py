"""`fedit-client help TOPIC|CODE`: a short page per error code that this program can show, and a few topics."""

from typing import Final

from fedit_client.evaluation_pages import CODES as EVALUATION_CODES
from fedit_client.experiment_pages import CODES as EXPERIMENT_CODES
from fedit_client.experiment_pages import partition_lines
from fedit_protocol.errors import EXIT_CODES, LATER, TRY_LATER, ConfigError, exit_status

_POLICY: Final = (
    "Your policy says what no task may exceed and no server can loosen: how many devices, how well an update hides, "
    "clip, modules, base models, modes, epsilon and more. fedit-client policy show lists all of it, with defaults and "
    "meanings; fedit-client policy set hidden_among 5 changes one limit; fedit-client policy reset hidden_among undoes "
    "that. It is the table [limits] of client.toml."
)

_STATUSES: Final = {
    1: "a bug, or a command whose result is no",
    2: "the command line, or an answer that is missing",
    3: "a setting",
    4: "nothing is joined, or something else is",
    5: "the network, or the files of a base model",
    6: "trust: a pin, a signature, an invite",
    7: "consent is needed, or was declined",
    8: "the hardware",
    9: "the data",
    10: "paused by your own rules",
    11: "the task is refused",
    12: "a file or disk of this machine",
    13: "an evaluation, or its judge",
    14: "a fleet of virtual clients",
}

_TOPICS: Final[dict[str, str]] = {
    "levels": (
        "Level T1: an honest-but-curious server learns one weighted sum per round and nothing about a single device; a "
        "later theft of its disk learns no more. An operator who enrols fake devices is not covered. Level T0 (trusted "
        "mode: the server reads each update) is weaker; a task must ask for it, and your policy allow it. T2, which "
        "would hold against fake devices through an enrolment authority apart from the server, is a design goal and no "
        "claim: such an authority can be used, and the level shown stays T1."
    ),
    "data": (
        "Rows come from a file, folder, glob, stdin (-) or the hub (org/name[:split]): .jsonl, .json, .csv, .tsv, "
        ".parquet, .arrow or .txt, also packed as .gz. Columns: messages (role, content) | conversations (from, value) "
        "| instruction, context, response, category | instruction, input, output | prompt, completion | prompt, "
        "chosen, rejected (the chosen answer only) | question, answer | text (with --as text). Other names: --map "
        "prompt=YOURS --map response=YOURS. Rows are read where they lie, never copied, and never leave this machine. "
        "Look first: fedit-client data check PLACE"
    ),
    "settings": (
        "A setting comes from the first of these that states it: a flag; FEDIT_… in the environment (__ nests, as in "
        "FEDIT_DEVICE__THREADS=2); the file of --config, or ./fedit.toml; client.toml; what was said when joining; the "
        "task; the default. A ./fedit.toml is announced; it may set device.threads, device.max_tokens and "
        "network.*, and make limits and politeness stricter. The rest of it is left out. "
        "See: fedit-client config show --origin"
    ),
    "limits": _POLICY,
    "polite": (
        "This client is a guest on your machine. It looks every five seconds, pauses between two steps and goes on "
        "where it stopped, and fedit-client status says why. The rules are polite.*, in fedit-client config show: "
        "on_battery, gpu_busy, fullscreen, user_active, metered_network, schedule, max_hours_per_day, max_temp_c, "
        "vram_reserve_gb, max_memory_gb, max_disk_gb, max_upload_kbps, max_download_kbps, keep_awake, "
        "process_priority. fedit-client set polite.schedule='22:00-07:00 mon-fri, all sat-sun' changes one and says "
        "it back. What your system does not tell (who is there, what fills the screen) is not acted on. Your own "
        "pause: fedit-client pause 2h, resume, finish."
    ),
    "policy": _POLICY,
}

_CODES: Final[dict[str, str]] = {
    "A001": "Nobody could be asked. Read the task once on a terminal; then pass --accept TASK@N, which is your yes "
    "to it.",
    "A002": "You declined. Nothing was sent; join again if you change your mind.",
    "A003": "The task is another one than you agreed to, so nothing is trained until you say yes to it. "
    "fedit-client consent diff shows what changed, old and new, and asks; a client that runs goes on by itself then.",
    "A004": "Training on the CPU instead of a GPU was declined. Repair the GPU's driver or torch, or pass --device "
    "cpu.",
    "A005": "You took your consent back with fedit-client consent withdraw. fedit-client consent diff shows the task "
    "and asks again; fedit-client leave leaves the federation.",
    "A006": "There is no GPU that can train here, and training on the CPU, which takes much longer, needs your yes: "
    "fedit-client join --device cpu",
    "C001": "A setting has a value that it cannot have, or there is none of this name; the message says where it "
    "stands. Sources, the first one wins: a flag, FEDIT_… in the environment, --config FILE or ./fedit.toml, "
    "client.toml. See: fedit-client config show --origin",
    "C002": "A settings file is missing, not TOML, or not UTF-8. Correct it with fedit-client config edit.",
    "C004": "No editor could be used. Name one in VISUAL or EDITOR, or change single settings: fedit-client set",
    "C005": "identity.store asks for the system's keyring, and none works here: the message says why. With auto or "
    "file the key is kept in a file that only you can read.",
    "C006": "A service starts without the environment of this shell, so a setting that only stands there would be "
    "lost, and with it perhaps a limit. Put it into client.toml or a file of --config, and unset it here.",
    "C020": "The task's cohort rules contradict each other; its operator has to change them.",
    "C021": "The task's weights and bits do not fit into 32-bit words; its operator has to lower one of them.",
    "C023": "The method needs an adapter of LoRA pairs, and a sketch_rank no larger than any layer's outputs, or its "
    "shorter side; the task's operator has to change one of them.",
    "D001": "The data file is missing, a folder, or not readable by you.",
    "D002": "The data file has no row.",
    "D003": "Only .jsonl, .json, .csv, .tsv, .parquet, .arrow and .txt are read, each also packed as .gz.",
    "D004": "No known set of columns was found, or a column is missing. --map says which column is which; see: "
    "fedit-client help data",
    "D005": "A line cannot be read. Correct it, or leave such rows out with --on-error skip.",
    "D006": "Two sets of columns fit equally well, or two columns could be meant. Nothing is guessed: the fix shows a "
    "line for each, to paste one of them.",
    "D007": "A column holds a number or a list where text belongs.",
    "D008": "A text that is needed is empty.",
    "D009": "User and assistant must take turns, the user first; a system message may come before.",
    "D010": 'Parquet and arrow need pyarrow: pip install "fedit[train]"',
    "D011": "Not one row can be used; the message shows why for the first.",
    "D012": "After cutting at the task's token limit no row keeps an answer to learn from. Use shorter rows.",
    "D014": "A conversation must end with the assistant, for the last answer is what is learned.",
    "D015": "The task's template takes one question and one answer; rows with several turns do not fit it.",
    "D016": "The chat template of the task's base model refuses one of the conversations, such as one with a system "
    "message. The message says why; leave out such rows.",
    "D017": "--map has our name of a column first, then yours: --map prompt=question --map response=answer.",
    "D018": "Plain text is trained on from its first word to its last, whatever it says. If that is what you want, say "
    "so with --as text.",
    "D019": 'Data sets of the hub need the package datasets: pip install "fedit[hub]"',
    "D020": "No rows were given. fedit-client data add PLACE; the place is remembered, the rows are never copied.",
    "D021": "Too few rows to share among three clients and to hold some out. Give the demo more rows.",
    "D022": "This place is not among the data that was added. fedit-client data list shows what is.",
    "D023": "The data set of the hub cannot be fetched: its name is wrong, it needs a login (hf auth login), or there "
    "is no network. With HF_HUB_OFFLINE=1 only what was fetched before is used. Data sets that are code never run.",
    "D024": "The data set has no such split, or several and none called train. Name one: org/name:split",
    "D025": "Plain text has no turns, so it cannot become messages.",
    "D030": "A row has the very words of an earlier one. It counts twice in training; remove it if that is no intent.",
    "D031": "A row has the words of an earlier one, but for case and blanks.",
    "D032": "A row is longer than the task's limit. Its end is cut off when training; fedit-client data preview shows "
    "where. Split such rows, or leave them.",
    "D033": "A row looks as if it held a key or password, by the formats that issuers have published. A model can "
    "learn such a text by heart, and everybody who gets the model can try to draw it out. Remove it from the row, and "
    "revoke the key. It may be a false alarm.",
    "D034": "A row looks as if it held a mail address, a phone, card or account number, or a computer's address. "
    "Rows never leave this machine, but a model can learn words by heart. Remove what nobody should read again. It may "
    "be a false alarm, and names of people are not found.",
    "D035": "The limit of tokens is reached before the answer begins, so nothing can be learned from such a row.",
    "D036": "The search for personal data ended unexpectedly; `where` has its last words. Everything else was checked "
    "before; an installation of its own for it may help.",
    "D070": "The public canary rows of the task keep no answer after cutting at canary.tokens, on every device alike. "
    "Only the organiser can change that.",
    "H001": "There is a GPU that cannot be used: an old driver, a CPU build of torch, or a build that has dropped the "
    "card. fedit-client setup --backend cuda (or rocm, xpu, mps) brings the right build; --device cpu says that the "
    "CPU will do, which takes much longer.",
    "H002": "You asked for a GPU and none can be used; the message says why. --device cpu trains without it.",
    "H003": "Too little free memory, also with everything given up that the task lets a device give up. Close other "
    "programs, then look: fedit-client fit",
    "H004": "The training process ended unexpectedly, three times in one round; twice it went on from its last "
    "checkpoint. Its last words stand behind `where`.",
    "H005": "This installation cannot train. fedit-client setup adds torch and its friends in a folder of its own; "
    'pip install "fedit[train]" adds them here.',
    "H012": "device.processes asks for more processes than there are GPUs of the same kind with enough free memory. "
    "Each process needs a GPU of its own: fedit-client set device.processes=1",
    "H011": "The page's chat has one model, which answers one question at a time. Wait, or stop that answer.",
    "H007": "The interpreter that device.python names is not there, does not start, or has another version of FedIT "
    "than this one. fedit-client setup makes a new one; fedit-client config reset device.python goes back to this one.",
    "H008": "Too little disk for the training environment; PyTorch with its libraries is large.",
    "H009": "Setting up the training environment failed; the message has the installer's last line.",
    "H010": "Training diverged: NaN, infinity, or a loss that stayed far above where it began; nothing was uploaded. "
    "The learning rate may be too high.",
    "H070": "device.base_class names a way to hold the base that the task does not list, or your policy does not "
    "allow. auto takes the first of the task's classes that runs here.",
    "H071": "The base class that this device joined with needs more than is free, or does not run any more; another "
    "one of the task's would. It computes a little differently, so it is taken after your yes only: the command in "
    "the fix.",
    "H072": "A trainer of a program's own said that it scores canary rows and gave no loss. The other devices of its "
    "base class count on it, so the device left the round.",
    "H030": "The service manager of this system (systemd, launchd, Task Scheduler) is missing or refused; its own "
    "words stand in the message. --dry-run prints the file and the commands, for a manager of your own.",
    "J001": "This device has not joined anything yet; join with an invite link.",
    "J002": "This folder belongs to another federation. Leave it first, or use --home for a second one.",
    "J003": "Another fedit-client runs on the same folder. Stop it, or use --home for a second client.",
    "J004": "The adapter is not on this device: fedit-client adapters list shows what is, fedit-client adapters pull "
    "fetches the newest one, and each round that you take part in brings one.",
    "J007": "The server does not have this version of the adapter. Without a number, fedit-client adapters pull "
    "fetches the newest one.",
    "J005": "Only devices that the organiser has named with `fedit-server evaluator add` may evaluate adapters.",
    "J006": "`finish` is for a client that runs: it completes its round and then stops. None runs on this folder, so "
    "nothing was remembered; the next run is not stopped by it. fedit-client pause is remembered.",
    "C024": "The noise of the task is too coarse for its rounding; its operator has to lower encoding.clip_norm or "
    "encoding.value_bits, or raise encoding.value_range.",
    "C025": "The task adds noise to protect you, and the library that computes what this bounds is not installed: "
    'pip install "fedit[dp]".',
    "C026": "The task's noise bounds nothing that people mean, or drowns what is learned; its operator has to change "
    "privacy.noise_multiplier, or to state privacy.accept_weak = true.",
    "C007": "polite.keep_awake asks the system not to sleep while it trains, through the package wakepy: "
    'pip install "fedit[awake]". Or let the machine sleep: training goes on afterwards from its last step.',
    "C070": "The task asks for losses by domain, this device said that it has rows of one, and after cutting none of "
    "them keeps an answer to measure. It leaves the round: the others' sum of that domain opens by all who have it or "
    "not at all. Leave these rows out, or ask the organiser for a larger prompt.cutoff_tokens.",
    "C072": "Only tasks whose method is fedsa or ditto keep an adapter of this device alone. In all others the newest "
    "version is the adapter: leave out --personal.",
    "C073": "With the method fedalt this device's own adapter is mixed with that of all others anew for each token. "
    "What comes of it is no adapter that chat, export or other programs could load; training and its figures use it.",
    "C080": "A service starts in another folder, so it would run without the ./fedit.toml that lies here, perhaps with "
    "looser limits. The fix puts its settings into your own; then install again.",
    "T120": "A server keeps a signed record of every change to a task, each line bound to the one before. One of them "
    "does not hold: it was changed, or the whole comes from another server. Ask the organiser; trust nothing of it.",
    "F001": "A fleet has a row at least for each client, and three clients at least: a masked round with fewer hides "
    "nobody. To a server of its own nobody else comes, so there it has as many as a round of its task begins with.",
    "F002": "--availability says when virtual clients are online: always; diurnal, one stretch of every period, around "
    "the same time for most; bernoulli, anew in every slot. Drawn from --seed.",
    "F003": "--speeds says how much slower than this machine virtual clients are: same, or lognormal:SIGMA.",
    "F004": "A results folder holds one fleet, which --resume goes on with as it was begun: seed, partition, clients "
    "stand in its fleet.toml. Another fleet wants another --out.",
    "F005": "Each virtual client enrols as a device of its own, so the fleet needs an invite with as many uses: "
    "fedit-server invite create --uses N. Clients that have enrolled need it no more.",
    "F006": "Each training process holds one base, however many clients take turns at it, and each client of a round a "
    "few vectors of the adapter's size; this machine has not the memory for all of it together.",
    "F007": "A task file is TOML, as fedit-server task show prints it.",
    "F008": "The clients of this folder belong to another federation, or have agreed to another task, than the server "
    "has now. Their results would not be one experiment.",
    "F009": "--server local starts a server beside the fleet, from the extra server of this package; it did not start, "
    "or refuses the task. Its own words stand in the message. A task in trusted mode needs no further option: the "
    "server is yours, as all clients are.",
    "F010": "No round opens in a task that is paused, a draft or over. A server of the fleet's own pauses it after "
    "twenty failed rounds: fewer dropouts, or a smaller round.cohort_min in the task, help.",
    "F011": "Ray trains a fleet on several machines or GPUs; without it --processes does on this one.",
    "F012": "Ray keeps cores, or one GPU, free for each training process, and the cluster has not that many.",
    "F013": "A fleet is said in three options: --server local or an invite link, --clients, and --data.",
    "F014": "A virtual client is out for good when its rows cannot be trained on, or its training diverges. Nobody "
    "else comes to the fleet's own server, so with fewer clients than a round needs it would wait for ever.",
    "F015": "--baselines says what the federation is set beside when it has ended: local, each of up to ten clients "
    "alone; central, all rows in one place. Both are measured on the rows that --test-rows keeps from all clients.",
    "F016": "Baselines are trained as plain LoRA, as many steps as the rounds have. A method that trains something "
    "else than two factors has nothing like it, and a fleet without a committed round nothing to compare.",
    "F017": "A series runs one fleet for each seed, each on a server of its own that begins at the first round; the "
    "task of another's server has its rounds once. Run one fleet there.",
    "K001": "The task exceeds a limit of yours, which the message names. No server can change your limits; you can, "
    "with fedit-client policy set. See: fedit-client policy show",
    "K002": "The task holds a setting that this client does not know, and tasks never carry code. Is the client "
    "too old?",
    "K003": "The task would train embeddings or the output layer, which reveals single words. It is always refused.",
    "K004": "The task contradicts itself; its operator has to correct it.",
    "K005": "The model's chat template hides where answers begin, so nothing can be learned from answers only.",
    "K006": "The adapter's layout does not fit the base model; its operator has to correct the task.",
    "K007": "The server has no such task. Ask its organiser for the name, and pass it with --task.",
    "K010": "The task adds noise, but so little or so much of it that it is of no use, and does not say so. "
    "Nothing was sent; its operator has to change [privacy].",
    "K011": "The task is in trusted mode, which is weaker: the server sees every update of this device by itself, and "
    "an update can reveal rows that it was trained on. Your limits allow masked rounds only, which is the default; no "
    "server can change that. If you would trust this operator with your rows: "
    "fedit-client policy set modes masked,trusted",
    "K009": "The task's method sums sketches of products too, which say more of each update; with fewer than eight "
    "survivors it would say too much. Its operator has to ask for a larger cohort, or for the method fedavg.",
    "K012": "The chat template that comes with the base model breaks the rules for templates: it is rendered in a "
    "sandbox, within seconds and to a bounded length. Such a base is not for training here.",
    "M001": "The base model is not on this machine and cannot be fetched. Give its folder with --model.",
    "M002": "The files of the base model differ from those that the task pins, so the sums would not fit together.",
    "M003": "The folder does not hold a language model with a tokenizer that can be trained here, or a weights file "
    "says something else than it holds.",
    "M004": "The adapter's files are damaged or belong to another base.",
    "M005": "Too little disk for the base model.",
    "M007": "The base model comes with pickled weights, or its configuration asks for code of its own. Either could do "
    "anything on this machine, so neither is ever opened. Ask the operator for a base in safetensors that transformers "
    "loads by itself.",
    "M008": "The base model is larger than this device allows: fedit-client policy show names max_base_gib. If one "
    "file is far larger than such a file should be, it is damaged or hostile.",
    "M010": "GGUF is written for the families that the message names. Export with --to merged; the tools of llama.cpp "
    "know many more families.",
    "M011": "The base's numbers cannot be written in the form that was asked for; the message says which can.",
    "M012": "llama.cpp cuts text into tokens by rules of its own. The base's rule is not one of those that this "
    "program knows, and a wrong one would change answers without a word. Export with --to merged.",
    "M013": "A Modelfile describes conversations in a simpler language than the base's chat template. Export with "
    "--to gguf: llama.cpp and others read the template from that file.",
    "M009": "The base model has no layers that the task's adapter could be put on.",
    "M006": "Fetching or converting the base model failed; the last line says why.",
    "N001": "Nothing answers at this address. Is the server running, is the port right, does a firewall sit in "
    "between?",
    "N002": "There is no route to the server's network. Are you in the same network, or connected to its VPN?",
    "N003": "The host name is unknown to this machine's resolver. Check its spelling.",
    "N004": "The server did not answer in time. It may be overloaded, or a firewall drops the packets.",
    "N005": "What answers does not speak TLS as a FedIT server does. Is it another program?",
    "N006": "The server failed inside. This client tries again; the organiser's log says more.",
    "N007": "A proxy or a security program on this network opens encrypted connections and closes them again with a "
    "certificate of its own. The federation's own certificate does not arrive, so nothing is sent. Leave this server "
    "out of the proxy (fedit-client set network.no_proxy=HOST), or ask who runs the network.",
    "N009": "Too many requests from here in a short time. This client waits by itself.",
    "N010": "The server's disk is full. Nothing is lost: this client keeps its upload and tries again.",
    "N012": "This federation's enrolment authority is another machine than the server, and nobody has started it. The "
    "server keeps your request for a week. Run the same command later: the same invite gives the same certificate.",
    "N011": "The server holds more or less of an upload than this client thought. It asks again and goes on there.",
    "P001": "A pause of yours, or a rule under [polite], holds at this moment, and --no-wait asked not to wait for it. "
    "The message says which; where names the setting.",
    "P002": "A pause of yours, or a rule under [polite], lasted so long that this device could not have been ready in "
    "time. It told the server and left the round, so that nobody waited for it; it takes part again afterwards. "
    "fedit-client status says what holds it.",
    "P003": "This machine has the memory, but your settings keep it from training: polite.vram_reserve_gb is GPU "
    "memory for other programs, polite.max_memory_gb the most main memory. The fix changes what stands in the way.",
    "P004": "The base model would take more of the disk than you allow this client: polite.max_disk_gb. Allow more, or "
    "give the folder of a base that is here already with --model.",
    "P005": "A base model is gigabytes, and this connection is metered. Use another one, fetch it elsewhere and give "
    "its folder with --model, or allow it with polite.metered_network=ignore.",
    "S001": "A file of this program cannot be written or read; the message names it.",
    "S010": "A file cannot be written or read; the message names it and why.",
    "S011": "The disk is full. Nothing was changed; free some space and run the command again.",
    "S020": "An export needs more room than the disk has; nothing was written. Free some, or name a folder on another "
    "disk with --out.",
    "S012": "Other users can read the identity key. Close it with chmod 600.",
    "S013": "A file of this client is damaged. With a backup restore it, else leave with --erase and join again.",
    "S014": "The round journal is damaged, so it is not sure which rounds this device took part in; it must not guess.",
    "S015": "The file with the last seen list of devices is damaged. It protects from a server that shows different "
    "lists; only if you know why it is damaged, remove it.",
    "S016": "A newer fedit-client has used this home, and an older one might misread what it wrote. Upgrade this one, "
    "or give it a home of its own with --home.",
    "S017": "A file of the outbox, your own copy of an upload, is damaged. Nothing else depends on it: remove it.",
    "S018": "A line of the history is not what this program writes: the file was changed by hand, or the disk damaged "
    "it. Nothing else depends on it; put the file aside and a new one begins.",
    "S019": "The history is signed line by line, and each line names the one before. A line was changed, removed or "
    "put in after it was written, by somebody with access to this machine or by a restored backup. Rounds go on; what "
    "the line said can no longer be shown.",
    "S021": "This device's key was put into the system's keyring, which is locked, gone, or has lost it. Unlock it. On "
    "a machine without a desktop keep it in a file, once it is unlocked: fedit-client identity --move file.",
    "T001": "The server shows another identity than this device or its invite pins, and the old key does not vouch for "
    "the new one. Nothing was sent. A key that is changed in time is signed by the old one, and this client follows by "
    "itself; so the key was lost, the server was reinstalled, or someone sits in between. Ask the organiser, not over "
    "this server, for a new invite, and join with it: membership, rows and adapters stay.",
    "T002": "The TLS certificate does not come from this federation's authority. A proxy may open connections.",
    "T003": "A private authority without a pin: compare the fingerprint with the organiser's, then pass --pin.",
    "T004": "The invite has expired. Ask for a new one.",
    "T005": "The invite was used as often as it may be. Ask for a new one.",
    "T006": "The server does not know this invite code, or its organiser revoked it or excluded this device. Copy the "
    "whole link again; if that does not help, ask the organiser for a new invite.",
    "T007": "The clocks of this machine and the server disagree by more than five minutes. Correct this machine's "
    "clock.",
    "T008": "The server does not know this device, or has been told to forget it. Join again with a new invite.",
    "T010": "A message broke the protocol's rules. If both sides are current, this is a bug.",
    "T011": "A signature, key or context did not fit. An honest server never sends such a thing.",
    "T012": "Bytes arrived that differ from their digest. Nothing of them was used.",
    "T014": "The federation's log of devices does not continue the one this device saw before: it was shortened, "
    "changed or forked. Nothing was sent. Ask the organiser: if an old backup of the server was restored, leave with "
    "--erase and join again; otherwise somebody shows different devices different members.",
    "T020": "The update cannot be encoded: not finite, wrong length, or a weight out of range. Nothing was uploaded.",
    "U001": "The command line is not understood; --help shows what is.",
    "U002": "An answer was missing and nobody was there to give it. The message names the option that gives it.",
    "U003": "An invite link looks like fedit://host:8443/j/K7QF-2M9D-XT4B-W8HC#sha256:… (64 digits). Put it in quotes.",
    "U004": "An address looks like https://fl.example.org:8443; a pin like sha256: and 64 digits. There is no "
    "plain HTTP.",
    "U005": "To enrol, the server wants an invite code. Ask the organiser for an invite link.",
    "T121": "An exported adapter, or its lineage, is not as its server signed it; the message names the first thing "
    "that does not fit. Do not use it.",
    "T122": "The folder was signed by another federation than the one you trust, or by an older key that nothing here "
    "leads to. Ask for it to be exported anew, and compare the pin.",
    "U006": "The server has several tasks; choose one with --task.",
    "U127": "The folder has no lineage.json with its lineage.sig, so nobody has signed for it. A server makes such "
    "folders with: fedit-server adapter export --out FOLDER",
    "U007": "There is no help page of this name.",
    "U013": "The page could not have the port that was asked for. Without --port it takes a free one.",
    "U012": "--show takes the code of a finding that the same check has listed.",
    "U008": "The demo keeps its files in an empty or new folder, so that nothing of yours is overwritten.",
    "U011": "A time is written 2h, 90m, 1h30m, 45s or 2d, or as the clock shows it: 18:30.",
    "U009": "The outbox holds the newest uploads only; fedit-client outbox list shows which. fedit-client history "
    "keeps a signed line about each for good.",
    "U010": "An export never replaces what is there. Name another folder with --out, or remove the old one.",
    "U080": "export writes peft (an adapter for PEFT), merged (a folder for transformers and vLLM), gguf (a file for "
    "llama.cpp), gguf-lora (an adapter for llama.cpp) or ollama.",
    "X001": "A bug in FedIT. Run the command again with -v and report what it prints.",
    "X002": "A program of the demo ended too early; its last words stand behind `where`.",
    **EVALUATION_CODES,
    **EXPERIMENT_CODES,
}


def help_lines(topic: str) -> list[str]:
    """Return one page, or the list of pages; raises ConfigError U007 for a page that is not there."""
    wanted = topic.strip().upper().removeprefix("FEDIT-")
    if not wanted:
        codes = " ".join(sorted(_CODES))
        return ["fedit-client help CODE explains an error, fedit-client COMMAND --help a command", "",
                f"topics: exit-codes json partition {' '.join(sorted(_TOPICS))}", f"codes: {codes}"]  # fmt: skip
    if wanted in _CODES:
        return [f"FEDIT-{wanted} (exit {exit_status(wanted)})", _CODES[wanted]]
    if wanted.lower() in _TOPICS:
        return [_TOPICS[wanted.lower()]]
    if wanted == "EXIT-CODES":
        return exit_code_lines()
    if wanted == "PARTITION":
        return partition_lines()
    if wanted == "JSON":
        from fedit_client.commands.json_output import schema_lines

        return schema_lines()
    raise ConfigError(f"there is no page called {topic}", code="U007", fix="fedit-client help")


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
