"""The unit of systemd for a server: an account of its own that systemd makes, and nothing of the machine writable."""

from typing import Final

ETC: Final = "/etc/fedit-server/server.toml"

_UNIT: Final = """\
# fedit-server systemd > /etc/systemd/system/fedit-server.service
# then: touch {etc}; systemctl daemon-reload; systemctl enable --now fedit-server
# A token, as root:  fedit-server --home /var/lib/fedit-server token create --role admin
# then from anywhere: fedit-server --server 'https://HOST:8443#sha256:PIN' --token-file FILE task create task.toml
# (what root writes there itself, the server's own account could not read)
[Unit]
Description=FedIT aggregation server
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
DynamicUser=yes
StateDirectory=fedit-server
StateDirectoryMode=0700
ConfigurationDirectory=fedit-server
CacheDirectory=fedit-server
Environment=FEDIT_HOME=%S/fedit-server
Environment=HF_HOME=%C/fedit-server
ExecStart={program} serve --init --config {etc}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=2
TimeoutStopSec=35
UMask=0077
LimitNOFILE=65536

AmbientCapabilities=CAP_NET_BIND_SERVICE
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
LockPersonality=yes
NoNewPrivileges=yes
PrivateDevices=yes
PrivateTmp=yes
ProcSubset=pid
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources

[Install]
WantedBy=multi-user.target
"""


def unit(program: str, settings: str = ETC) -> str:
    """Return the unit that starts `program` with a settings file; both are absolute paths."""
    return _UNIT.format(program=program, etc=settings)
