"""spec/openapi.yaml as an oracle. Knows as much of JSON Schema as the specification uses."""
import functools
import os
import re

import yaml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
METHODS = ("get", "post", "put", "patch", "delete")
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool}
FORMATS = {"date-time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)",
           "uuid": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"}
LIMITS = {"minimum": lambda v, n: v >= n, "maximum": lambda v, n: v <= n,
          "minLength": lambda v, n: len(v) >= n, "maxLength": lambda v, n: len(v) <= n,
          "minItems": lambda v, n: len(v) >= n, "maxItems": lambda v, n: len(v) <= n,
          "maxProperties": lambda v, n: len(v) <= n}
PLAIN = {"type", "properties", "required", "additionalProperties", "items", "enum", "format",
         "pattern", "allOf",
         "oneOf", "nullable", "description", "default", *LIMITS}


class Spec:
    known, known_formats = PLAIN, frozenset()

    def __init__(self, path=os.path.join(ROOT, "spec/openapi.yaml")):
        with open(path, encoding="utf-8") as f:
            self.root = yaml.load(f, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        self.operations = {}
        for template, item in self.root["paths"].items():
            for method in METHODS:
                if method in item:
                    self.operations[method.upper(), template] = item[method]

    def resolve(self, node):
        while "$ref" in node:
            at = self.root
            for part in node["$ref"].removeprefix("#/").split("/"):
                at = at[part]
            node = at
        return node

    def find(self, method, path):
        """The operation that a path below the prefix means; without parameters first."""
        path = path.split("?")[0]
        for key in sorted(self.operations, key=lambda k: k[1].count("{")):
            pattern = re.sub(r"\\?{[^}]*\\?}", "[^/]+",
                             re.escape(key[1]).replace(r"\{", "{").replace(r"\}", "}"))
            if key[0] == method and re.fullmatch(pattern, path):
                return key
        return None

    def check_answer(self, key, status, body, stream=False):
        """Raise AssertionError where the specification does not have this answer."""
        where = f"{key[0]} {key[1]} {status}"
        responses = self.operations[key]["responses"]
        if str(status) in responses:
            response = self.resolve(responses[str(status)])
        else:
            response = self.resolve(responses["default"])
            assert status in response["x-statuses"], \
                f"{where}: this status is not in the specification"
        content = response.get("content")
        if content is None:
            assert body is None, f"{where}: there must be no body, not {body!r}"
            return
        media = "application/x-ndjson" if stream else "application/json"
        self.check(body, content[media]["schema"], where)

    def check_request(self, key, body):
        schema = self.operations[key].get("requestBody", {}).get("content",
                                                                 {}).get("application/json", {})
        self.check(body, schema.get("schema", {"type": "object", "maxProperties": 0}),
                   f"request of {key}")

    def check(self, value, schema, where):
        schema = self.resolve(schema)
        unknown = {k for k in schema if not k.startswith("x-")} - self.known
        unknown |= {schema.get("format")} - {None} - FORMATS.keys() - self.known_formats
        assert not unknown, f"{where}: this validator does not know {unknown}"
        if value is None and schema.get("nullable"):
            return
        for part in schema.get("allOf", []):
            self.check(value, part, where)
        if "oneOf" in schema:
            assert sum(self._fits(value, s, where) for s in schema["oneOf"]) == 1, \
                f"{where}: not one of: {value!r}"
        self._check_plain(value, schema, where)
        if isinstance(value, dict):
            self._check_object(value, schema, where)
        if isinstance(value, list) and "items" in schema:
            for i, item in enumerate(value):
                self.check(item, schema["items"], f"{where}[{i}]")

    def _fits(self, value, schema, where):
        try:
            self.check(value, schema, where)
            return True
        except AssertionError:
            return False

    @staticmethod
    def _check_plain(value, schema, where):
        kind = schema.get("type")
        if kind in ("integer", "number"):
            wanted = int if kind == "integer" else (int, float)
            assert isinstance(value, wanted) and not isinstance(value, bool), \
                f"{where}: no {kind}: {value!r}"
        elif kind:
            assert isinstance(value, TYPES[kind]), f"{where}: no {kind}: {value!r}"
        if "enum" in schema:
            assert value in schema["enum"], f"{where}: {value!r} is not one of {schema['enum']}"
        if schema.get("format") in FORMATS:
            assert re.fullmatch(FORMATS[schema["format"]], value), \
                f"{where}: no {schema['format']}: {value!r}"
        if "pattern" in schema:
            assert re.search(schema["pattern"], value), \
                f"{where}: {value!r} does not match {schema['pattern']}"
        for limit, holds in LIMITS.items():
            if limit in schema:
                assert holds(value, schema[limit]), \
                    f"{where}: {value!r} breaks {limit} {schema[limit]}"

    def _check_object(self, value, schema, where):
        known = schema.get("properties", {})
        missing = [k for k in schema.get("required", []) if k not in value]
        assert not missing, f"{where}: {missing} missing in {value!r}"
        others = schema.get("additionalProperties", True)
        for name, member in value.items():
            if name in known:
                self.check(member, known[name], f"{where}.{name}")
            elif isinstance(others, dict):
                self.check(member, others, f"{where}.{name}")
            else:
                assert others, f"{where}: \"{name}\" is not in the specification"


class Official(Spec):
    """Neon's own specification: what its clients are made from. It says less of errors than ours."""
    known = PLAIN | {"example", "deprecated", "discriminator", "title"}
    known_formats = frozenset({"int", "int32", "int64", "uint64", "double", "email", "uri", "binary"})

    def check_known(self, method, path, status, body):
        """Hold an answer against it; routes and methods that are ours alone are not in it."""
        key = self.find(method, path)
        if not key or "if_exists=" in path:
            return
        responses = {str(k): v for k, v in self.operations[key]["responses"].items()}
        response = self.resolve(responses.get(str(status)) or responses["default"])
        content = response.get("content")
        if content:
            self.check(body, content["application/json"]["schema"], f"Neon's {method} {key[1]} {status}")


@functools.cache
def official():
    """The specification that Neon publishes on npm (package.json), or None where that is not installed."""
    path = os.path.join(ROOT, "node_modules/@neondatabase/api-client/public-v2-for-users.gen.yaml")
    return Official(path) if os.path.exists(path) else None


def router_routes():
    """What src/server/router.c has: (method, path with {} for each parameter)."""
    with open(os.path.join(ROOT, "src/server/router.c"), encoding="utf-8") as f:
        text = f.read()
    macros = dict(re.findall(r"#define ([PB]) (.+)", text))
    def spelt(pattern):
        parts = re.findall(r'"([^"]*)"|\b([PB])\b', pattern)
        return "".join(literal or spelt(macros[macro]) for literal, macro in parts)
    return [(m, spelt(p)) for m,
            p in re.findall(r"^    \{(GET|POST|PUT|PATCH|DELETE), (.*?), api_", text, re.M)]


def anonymous(template):
    return re.sub(r"\{[^}]*\}", "{}", template)
