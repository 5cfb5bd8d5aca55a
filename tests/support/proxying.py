"""A real nginx on a loopback port. Tests are skipped where this machine has none."""

import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from serving import PATIENCE_S, free_port
from waiting import eventually_sync

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
REPLICAS_CONF = Path(__file__).parents[2] / "deploy" / "nginx" / "replicas.conf"
_FRAME = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {content}
}}
"""


@contextmanager
def run_nginx(folder: Path, content: str) -> Iterator[str]:
    """Run nginx with this content of its `http` block, and yield its URL. `{port}` is where it must listen."""
    if NGINX is None:
        pytest.skip("NOT TESTED: the service behind a proxy needs nginx, and this machine has none")
    folder.mkdir()
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(_FRAME.format(folder=folder, content=content.replace("{port}", str(port))), encoding="utf-8")
    process = subprocess.Popen([NGINX, "-c", str(config), "-p", str(folder)], stderr=subprocess.DEVNULL)
    try:

        def listens() -> bool:
            assert process.poll() is None, (folder / "error.log").read_text(encoding="utf-8")
            with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), PATIENCE_S):
                return True
            return False

        eventually_sync(listens)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@contextmanager
def run_proxy_of_replicas(folder: Path, ports: Sequence[int]) -> Iterator[str]:
    """Run nginx with the shipped configuration in front of the services on these ports, and yield its URL."""
    servers = "".join(f"server 127.0.0.1:{port} max_fails=1 fail_timeout=1s; " for port in ports)
    upstream = f"upstream agent_runtime {{ zone agent_runtime 64k; least_conn; {servers} }}\n"
    shipped = REPLICAS_CONF.read_text(encoding="utf-8")
    assert "listen 8080;" in shipped
    with run_nginx(folder, upstream + shipped.replace("listen 8080;", "listen 127.0.0.1:{port};")) as url:
        yield url
