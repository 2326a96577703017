from __future__ import annotations
import contextlib, socketserver, threading, time, itertools, sys
from pathlib import Path
from support.audits import Ledger
import pytest

ANS = {
 "500": b"HTTP/1.1 500 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
 "404": b"HTTP/1.1 404 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
 "403": b"HTTP/1.1 403 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
 "401": b"HTTP/1.1 401 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
 "401b": b"HTTP/1.1 401 X\r\nWWW-Authenticate: Bearer realm=\"http://127.0.0.1:1/t\",service=\"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
 "html": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\nConnection: close\r\n\r\n<html></html>",
 "empty": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
 "null": b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnull",
 "redirect": b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:1/x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
 "rst": b"",
 "429": b"HTTP/1.1 429 X\r\nRetry-After: 0\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
}

@contextlib.contextmanager
def answering(answer):
    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            try:
                while self.rfile.readline().strip(): pass
                self.wfile.write(answer)
            except OSError: pass
    class S(socketserver.ThreadingTCPServer):
        allow_reuse_address=True; daemon_threads=True
    with S(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}/some/copy"
        server.shutdown()

def commands(l, tmp, ref):
    pol = str(l.write_policy()); c = str(l_commit)
    D = "sha256:" + "1"*64
    H = "--plain-http"
    yield ["exists", str(tmp/"flake"), "--to", ref, H]
    yield ["inspect", ref, H]
    yield ["inspect", ref+"@"+D, H]
    yield ["diff", ref+":a", ref+":b", H]
    yield ["pull", ref+":a", str(tmp/"out"), H]
    yield ["push", l.reference, ref+":a", H]
    yield ["index", ref+":v1", ref+":a", H]
    yield ["verify", c, "--from", ref, "--policy", pol, "--no-state", H]
    yield ["verify", ref+":a", "--policy", pol, "--no-state", H]
    yield ["report", ref+":a", "--to", str(tmp/"r.html"), H]
    yield ["licences", ref+":a", H]
    yield ["sbom", ref+":a", H]
    yield ["roots", "show", ref+":a", H]
    yield ["roots", ref+":a", H]
    yield ["doctor", ref+":a", H]
    yield ["promote", c, "--from", ref, "--policy", pol, H, "--key", str(l.root/"rita.key"), "--no-state"]
    yield ["attest", ref+":a", "--key", str(l.root/"rita.key"), H]
    yield ["export", ref+":a", str(tmp/"ex"), H]
    yield ["ledger", "show", "--from", ref, H]
    yield ["monitor", "--once", "--from", ref, "--policy", pol, H]
    yield ["audit", "--from", ref, "--policy", pol, H, "--no-state"]
    yield ["outputs", "check", c, "--from", ref, "--policy", pol, H]
    yield ["outputs", "list", ref, H]
    yield ["outputs", "clean", "--from", ref, "--keep", "30d", H]
    yield ["install", c, "--from", ref, "--policy", pol, H]
    yield ["hydrate", ref+":a", H, "--root", str(tmp/"root")]
    yield ["mount", ref+":a", H, "--root", str(tmp/"mroot")]
    yield ["lock", "--from", ref, H]
    yield ["run", "--image", ref+":a", H, "--", "true"]

from support.audits import commit as mk
l_commit = mk(1)

@pytest.mark.parametrize("kind", list(ANS))
def test_it(kind, ledger: Ledger, tmp_path: Path):
    out = open("/work/tmp/G/foreign.txt", "a")
    with answering(ANS[kind]) as ref:
        for cmd in commands(ledger, tmp_path, ref):
            t = time.time()
            try:
                e = ledger.run(*cmd)
                code = e.exit_code if hasattr(e, "exit_code") else e.returncode
                text = (getattr(e, "stderr", "") or "") + (getattr(e,"output","") or getattr(e,"stdout","") or "")
            except BaseException as x:
                code, text = "EXC", repr(x)
            exc = getattr(e, "exception", None)
            out.write(f"{kind:9} {cmd[0]+' '+cmd[1][:6]:22} {code} {time.time()-t:.1f}s {exc if exc and not isinstance(exc, SystemExit) else ''} {' | '.join(text.strip().splitlines())[:260]}\n")
            out.flush()
