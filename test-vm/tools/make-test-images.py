#!/usr/bin/env python3
"""Builds the images that the lanes and benchmarks pull, from Debian's own packages, and pushes them to a real registry.
No image is fetched: every file comes from a package of this machine, and the same packages give the same digests.

needs: busybox-static procps util-linux nginx-light gcc libc6-dev skopeo docker-registry (Debian packages)
use:   make-test-images.py LAYOUTS STORAGE    OCI layouts, one directory each; storage of a registry that holds them all
"""
import contextlib, functools, gzip, hashlib, io, json, os, shutil, socket, subprocess, sys, tarfile, tempfile, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

APPLETS = subprocess.run(["busybox", "--list"], capture_output=True, text=True).stdout.split()

def sha(b): return hashlib.sha256(b).hexdigest()

class Layer:
    def __init__(self):
        self.buf = io.BytesIO(); self.tar = tarfile.open(fileobj=self.buf, mode="w", format=tarfile.PAX_FORMAT)
        self.seen = set()
    def _info(self, name, mode, uid=0, gid=0, type=tarfile.REGTYPE):
        t = tarfile.TarInfo(name); t.mode = mode; t.uid = uid; t.gid = gid; t.type = type; t.mtime = 0; return t
    def dir(self, name, mode=0o755, uid=0, gid=0):
        if name and name not in self.seen:
            if "/" in name: self.dir(name.rsplit("/", 1)[0])
            self.seen.add(name); self.tar.addfile(self._info(name, mode, uid, gid, tarfile.DIRTYPE))
        return self
    def file(self, name, data, mode=0o644, uid=0, gid=0):
        if "/" in name: self.dir(name.rsplit("/", 1)[0])
        data = data if isinstance(data, bytes) else data.encode()
        t = self._info(name, mode, uid, gid); t.size = len(data); self.tar.addfile(t, io.BytesIO(data)); return self
    def link(self, name, target):
        if "/" in name: self.dir(name.rsplit("/", 1)[0])
        t = self._info(name, 0o777, type=tarfile.SYMTYPE); t.linkname = target; self.tar.addfile(t); return self
    def hardlink(self, name, target):
        t = self._info(name, 0o755, type=tarfile.LNKTYPE); t.linkname = target; self.tar.addfile(t); return self
    def done(self):
        self.tar.close(); raw = self.buf.getvalue(); return raw, gzip.compress(raw, 6, mtime=0)

@functools.cache
def plain_busybox():
    """the dynamic busybox of Debian: its sh does not run applets from inside itself (critest masks /bin/ls and looks).
    It conflicts with busybox-static, so it is unpacked, not installed; where it is not to be had, the static one serves"""
    d = tempfile.mkdtemp()
    got = subprocess.run(["apt-get", "download", "-q", "busybox"], cwd=d, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if got.returncode:
        return shutil.which("busybox")
    subprocess.run(["dpkg-deb", "-x", next(Path(d).glob("busybox_*.deb")), d + "/x"], check=True)
    return next(f for f in (d + "/x/bin/busybox", d + "/x/usr/bin/busybox") if os.path.exists(f))

def busybox():
    l = Layer()
    for d in ("bin", "dev", "etc", "proc", "root", "sys", "var", "usr"): l.dir(d)
    l.dir("tmp", 0o1777); l.dir("home")
    l.file("bin/busybox", Path(shutil.which("busybox")).read_bytes(), 0o755)
    for a in APPLETS:  # hard links: a mask over one applet must not cover them all
        if a not in ("busybox", "sh"): l.hardlink("bin/" + a, "bin/busybox")
    with_binary(l, plain_busybox(), "bin/sh")
    for tool in ("pgrep", "ipcs"): with_binary(l, shutil.which(tool), "usr/bin/" + tool)
    l.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n")
    l.file("etc/group", "root:x:0:\ndaemon:x:1:\nwww-data:x:33:\nnogroup:x:65534:\n")
    return l

def with_binary(l, exe, dest):
    """exe and every shared library it needs"""
    l.file(dest, Path(exe).read_bytes(), 0o755)
    for line in subprocess.run(["ldd", exe], capture_output=True, text=True).stdout.splitlines():
        lib = next((w for w in line.split() if w.startswith("/")), None)
        if lib and lib not in l.seen: l.seen.add(lib); l.file(lib.lstrip("/"), Path(lib).resolve().read_bytes(), 0o755)
    return l

def nginx(port):
    l = busybox()
    with_binary(l, "/usr/sbin/nginx", "usr/sbin/nginx")
    l.dir("var/log/nginx").dir("var/lib/nginx").dir("var/run")
    l.file("usr/share/nginx/html/index.html", "<h1>Welcome to nginx!</h1>\n")
    l.file("etc/nginx/nginx.conf", f"user root;\npid /var/run/nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{ access_log /dev/stdout; server {{ listen {port}; location / {{ root /usr/share/nginx/html; }} }} }}\n")
    return l

def cc(src):
    with tempfile.TemporaryDirectory() as d:
        Path(d, "a.c").write_text(src)
        subprocess.run(["gcc", "-Os", "-static", "-s", "-o", d + "/a", d + "/a.c"], check=True)
        return Path(d, "a").read_bytes()

def image(layers, cfg):
    """(blobs, manifest descriptor)"""
    blobs, descs, diff = {}, [], []
    for l in layers:
        raw, gz = l.done(); blobs[sha(gz)] = gz; diff.append("sha256:" + sha(raw))
        descs.append({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": "sha256:" + sha(gz), "size": len(gz)})
    c = json.dumps({"architecture": "amd64", "os": "linux", "config": cfg, "rootfs": {"type": "layers", "diff_ids": diff}}).encode()
    blobs[sha(c)] = c
    m = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "sha256:" + sha(c), "size": len(c)}, "layers": descs}).encode()
    blobs[sha(m)] = m
    return blobs, {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:" + sha(m), "size": len(m)}

PATH = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
def cfg(cmd=None, **k): return {"Env": PATH, **({"Cmd": cmd} if cmd else {}), **k}

def catalogue():
    nnp = '#include <stdio.h>\n#include <unistd.h>\nint main(){printf("Effective uid: %d\\n",geteuid());return 0;}'
    pause = '#include <unistd.h>\n#include <signal.h>\n#include <sys/wait.h>\n#include <stdlib.h>\nstatic void q(int s){_exit(0);}static void r(int s){while(waitpid(-1,0,WNOHANG)>0);}int main(){signal(SIGTERM,q);signal(SIGINT,q);signal(SIGCHLD,r);for(;;)pause();}'
    k, s = "e2e-test-images/", "k8s-staging-cri-tools/"
    sh = cfg(["sh"])
    yield k + "busybox:1.29-2", [busybox()], sh
    yield "library/busybox:latest", [busybox()], sh
    yield k + "nginx:1.14-2", [nginx(80)], cfg(["nginx", "-g", "daemon off;"])
    yield k + "httpd:2.4.39-4", [busybox().file("www/index.html", "<html><body><h1>It works!</h1></body></html>\n")], cfg(["sh", "-c", "echo httpd: starting; exec httpd -f -v -p 80 -h /www"])
    yield k + "nonewprivs:1.3", [busybox().file("nnp", cc(nnp), 0o4755)], cfg(["/nnp"])
    pa = cc(pause)
    for tag in ("3.9", "3.10"): yield "pause:" + tag, [Layer().file("pause", pa, 0o755)], cfg(["/pause"], Entrypoint=["/pause"], Labels={"version": tag})
    yield s + "hostnet-nginx-amd64:latest", [nginx(12003)], cfg(["nginx", "-g", "daemon off;"])
    yield s + "test-image-user-uid:latest", [busybox()], cfg(["sh"], User="1002")
    yield s + "test-image-user-username:latest", [busybox()], cfg(["sh"], User="www-data")
    yield s + "test-image-user-uid-group:latest", [busybox()], cfg(["sh"], User="1003:users")
    yield s + "test-image-user-username-group:latest", [busybox()], cfg(["sh"], User="www-data:100")
    g = busybox().file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/false\ndefault-user:x:1000:1000::/home/default-user:/bin/sh\n")
    g.file("etc/group", "root:x:0:\ndefault-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n")
    yield s + "test-image-predefined-group:latest", [g], cfg(["sh"], User="1000")
    for n in ("latest:latest", "tag:test", "tag:all", "digest:latest", "1:latest", "2:latest", "3:latest"):
        yield s + "test-image-" + n, [busybox(), Layer().file("TEST-" + n.replace(":", "-"), n)], sh
    for t in "123": yield s + "test-image-tags:" + t, [busybox(), Layer().file("TEST-tags", "tags")], sh

@contextlib.contextmanager
def registry(storage):
    """a registry on a free port of loopback, for as long as the images are pushed"""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0)); port = s.getsockname()[1]
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as config:
        config.write(f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {storage}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n")
        config.flush()
        server = subprocess.Popen(["docker-registry", "serve", config.name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            for _ in range(500):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1): break
                if server.poll() is not None: sys.exit(f"docker-registry ended with {server.returncode}")
                time.sleep(0.02)
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate(); server.wait()

def main():
    layouts, storage = (Path(a).absolute() for a in sys.argv[1:3])
    storage.mkdir(parents=True)
    refs = []
    for ref, layers, c in catalogue():
        blobs, desc = image(layers, c)
        d = layouts / ref.replace("/", "_").replace(":", "_"); (d / "blobs/sha256").mkdir(parents=True)
        for h, b in blobs.items(): (d / "blobs/sha256" / h).write_bytes(b)
        (d / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        desc["annotations"] = {"org.opencontainers.image.ref.name": ref.rsplit(":", 1)[1]}
        (d / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [desc]}))
        refs.append((ref, d))
    with registry(storage) as address:
        def push(image):
            ref, d = image
            subprocess.run(["skopeo", "copy", "-q", "--dest-tls-verify=false", "--insecure-policy", f"oci:{d}:" + ref.rsplit(":", 1)[1], f"docker://{address}/{ref}"], check=True)
        with ThreadPoolExecutor(2) as pool: list(pool.map(push, refs))
    print(len(refs))

if __name__ == "__main__": main()
