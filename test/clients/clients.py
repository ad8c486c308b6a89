"""Running foreign clients against a server of the tests.

Endpoints are called ep-x.localhost. Where that does not resolve, each client is told the address in its own way;
nothing of the system is changed.
"""
import json
import os
import urllib.parse

import harness as h

HERE = os.path.dirname(os.path.abspath(__file__))
MODULES = os.path.join(HERE, "node_modules")
NEONCTL = {"5.0.1": os.path.join(MODULES, "neonctl/bin/cli.js"), "2.22.0": os.path.join(MODULES, "neonctl-2/cli.js")}


class Guest:
    """Whoever uses a project from outside."""

    def __init__(self, shop):
        self.shop, self.api, self.server = shop, shop.api, shop.api.server
        self.dir = os.path.join(self.server.dir, "guest")
        os.makedirs(self.dir, exist_ok=True)
        self.ca = os.path.join(self.dir, "ca.crt")
        with open(self.ca, "w", encoding="ascii") as f:
            f.write(self.server.bough("ca").stdout)
        self.url = f"http://127.0.0.1:{self.server.port}/api/v2"
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "BOUGH_", "NEON"))} | {
            "HOME": self.dir, "NO_COLOR": "1", "PGHOSTADDR": "127.0.0.1",
            "BOUGH_HTTP": f"http://127.0.0.1:{self.server.port}",
            "NODE_OPTIONS": f"--import file://{HERE}/names.mjs", "NODE_EXTRA_CA_CERTS": self.ca,
            "NEON_API_HOST": self.url, "NEON_API_KEY": self.api.key}

    def node(self, script, *args, **kw):
        """Run a script of this directory; returns the JSON that it prints."""
        done = h.run(["node", os.path.join(HERE, script), *args], env=self.env, cwd=self.dir, **kw)
        return json.loads(done.stdout)

    def neonctl(self, version, *args, check=True, plain=False):
        """Returns what it prints, parsed as JSON; with `plain` as it is."""
        flags = ["--no-analytics", "--no-color", "--config-dir", os.path.join(self.dir, "config")]
        more = [] if plain else ["-o", "json"]
        at = args.index("--") if "--" in args else len(args)
        argv = ["node", NEONCTL[version], *args[:at], *flags, *more, *args[at:]]
        done = h.run(argv, check=check, env=self.env, cwd=self.dir)
        if not check:
            return done
        return done.stdout if plain else json.loads(done.stdout)

    def sleep(self, endpoint=None):
        """Suspend, so that the next connection is one that wakes."""
        path = f"{self.shop.path}/endpoints/{endpoint or self.shop.endpoint}"
        self.api("POST", f"{path}/suspend")
        assert self.api("GET", path)["endpoint"]["current_state"] == "idle"

    def is_awake(self, endpoint=None):
        path = f"{self.shop.path}/endpoints/{endpoint or self.shop.endpoint}"
        return self.api("GET", path)["endpoint"]["current_state"] == "active"

    def login(self):
        """Host name, port, role, password and database of the project's default branch."""
        path = f"{self.shop.main_path}/roles/neondb_owner/reveal_password"
        host, port = self.api("GET", f"{self.shop.path}/endpoints/{self.shop.endpoint}")["endpoint"]["host"].split(":")
        return {"host": host, "port": int(port), "user": "neondb_owner", "dbname": "neondb",
                "password": self.api("GET", path)["password"]}

    def uri(self, tls, **options):
        """With TLS by name and channel binding, or in clear by the option."""
        w = self.login()
        more = {"sslmode": "verify-full", "sslrootcert": self.ca, "channel_binding": "require"} if tls else \
            {"sslmode": "disable", "options": f"endpoint={self.shop.endpoint}"}
        query = urllib.parse.urlencode(more | options, quote_via=urllib.parse.quote)
        return f"postgresql://{w['user']}:{w['password']}@{w['host']}:{w['port']}/{w['dbname']}?{query}"
