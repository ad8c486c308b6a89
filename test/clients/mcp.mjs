// Neon's MCP server, by its standard input and output: call one tool after the other.
// Arguments: a JSON list of [tool, parameters]; "$branch" and "$project" stand for what an earlier answer named.
import { spawn } from "node:child_process";
import readline from "node:readline";

const calls = JSON.parse(process.argv[2]);
const server = spawn("node", [process.env.MCP_SERVER, "start", process.env.NEON_API_KEY, "--no-analytics"],
                     { stdio: ["pipe", "pipe", "inherit"], env: { ...process.env, SENTRY_DSN: "", ANALYTICS_WRITE_KEY: "" } });
const waiting = new Map();
readline.createInterface({ input: server.stdout }).on("line", (line) => {
    const message = JSON.parse(line);
    waiting.get(message.id)?.(message);
});
let id = 0;
function ask(method, params) {
    server.stdin.write(`${JSON.stringify({ jsonrpc: "2.0", id: ++id, method, params })}\n`);
    return new Promise((resolve) => waiting.set(id, resolve));
}
await ask("initialize", { protocolVersion: "2024-11-05", capabilities: {}, clientInfo: { name: "test", version: "1" } });
server.stdin.write(`${JSON.stringify({ jsonrpc: "2.0", method: "notifications/initialized" })}\n`);
const out = { tools: (await ask("tools/list", {})).result.tools.map((t) => t.name), answers: [] };
const known = {};
for (const [name, params] of calls) {
    const text = JSON.stringify(params).replace(/\$(project|branch)/g, (_, what) => known[what]);
    const answer = await ask("tools/call", { name, arguments: { params: JSON.parse(text) } });
    const said = answer.result ? answer.result.content.map((c) => c.text).join("\n") : JSON.stringify(answer.error);
    out.answers.push({ name, failed: Boolean(answer.error || answer.result?.isError), said });
    known.branch = said.match(/\bbr-[a-z]+-[a-z]+-[a-z0-9]+/)?.[0] ?? known.branch;
}
server.kill();
console.log(JSON.stringify(out));
