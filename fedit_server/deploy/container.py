"""The container file: one layer with the wheel, a user without rights, everything but /data read-only."""

from typing import Final

USER: Final = 10001

_FILE: Final = """\
# fedit-server containerfile > Containerfile
# build:  podman build -t fedit-server .
# run:    podman run --read-only --tmpfs /tmp -v fedit:/data -p 8443:8443 \\
#             -e FEDIT_SERVER_ADVERTISE=fl.example.org fedit-server
# then:   podman exec NAME fedit-server task create /data/task.toml
#         podman exec NAME fedit-server invite create
FROM python:3.13-slim
RUN pip install --no-cache-dir "fedit[server,postgres,s3]=={version}" \\
    && useradd --uid {user} --create-home fedit \\
    && install -d -o {user} -g {user} -m 0700 /data
USER {user}
ENV FEDIT_HOME=/data \\
    HF_HOME=/data/hub \\
    PYTHONDONTWRITEBYTECODE=1 \\
    FEDIT_SERVER_DRAIN_S=5
VOLUME /data
EXPOSE 8443
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s CMD ["fedit-server", "health", "--quiet"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["fedit-server"]
CMD ["serve", "--init"]
"""


def container_file(version: str) -> str:
    """Return the file that builds an image of this version."""
    return _FILE.format(version=version, user=USER)
