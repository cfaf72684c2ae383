"""Debian's nginx as the origin of real clients: one folder of files over HTTP and TLS."""
import os
import shutil
import signal
import subprocess

from . import cases, netns

CONFIG = """
user root; daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log {dir}/access.log; default_type application/octet-stream; types {{ text/html html; application/json json; }}
    client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fcgi; uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi; absolute_redirect off;
    server {{
        listen {address}:80; listen {address}:443 ssl; server_name _;
        ssl_certificate {cert}; ssl_certificate_key {key};
        root {dir}/www; index index.html;
        location = /status/500 {{ return 500; }}
        location /redirect {{ return 302 /index.html; }}
    }}
}}
"""


def program():
    found = shutil.which("nginx") or next((p for p in ("/usr/sbin/nginx", "/sbin/nginx") if os.path.exists(p)), None)
    if not found:
        raise cases.Skip("nginx is not installed")
    return found


class Nginx:
    def __init__(self, folder, certificate, config=CONFIG):
        self.dir = folder
        os.makedirs(os.path.join(folder, "www"), exist_ok=True)
        path = os.path.join(folder, "nginx.conf")
        with open(path, "w") as f:
            f.write(config.format(dir=folder, address=netns.ORIGIN, cert=certificate[0], key=certificate[1]))
        self.process = subprocess.Popen([program(), "-c", path, "-e", os.path.join(folder, "error.log")], stdin=subprocess.DEVNULL,
                                        preexec_fn=netns.die_with_parent)
        cases.eventually(self._answers, "nginx answers", 10)

    def _answers(self):
        import socket
        try:
            socket.create_connection((netns.ORIGIN, 80), 1).close()
            return True
        except OSError:
            cases.expect(self.process.poll() is None, "nginx ended at start")
            return False

    def file(self, name, data):
        path = os.path.join(self.dir, "www", name.lstrip("/"))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())
        return path

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)
