// @neondatabase/serverless against a branch: queries over HTTP, and sessions over a WebSocket.
import { Client, Pool, neon, neonConfig } from "@neondatabase/serverless";
import ws from "ws";

const [url, http] = process.argv.slice(2);
neonConfig.fetchEndpoint = () => `${http}/sql`;
neonConfig.wsProxy = (host) => `${http.slice("http://".length)}/v2?address=${host}`;
neonConfig.useSecureWebSocket = false;
neonConfig.webSocketConstructor = ws;

const out = {};
const sql = neon(url);
out.rows = await sql`SELECT ${7}::int AS n, ${"ä"}::text AS t, ${null}::text AS nothing, now() AS at`;
out.at = out.rows[0].at instanceof Date;
out.full = await neon(url, { fullResults: true, arrayMode: true })`SELECT 1 AS a, 2 AS b`;
out.batch = await sql.transaction([sql`SELECT 1 AS one`, sql`SELECT current_setting('transaction_isolation') AS level`],
                                  { isolationLevel: "Serializable", readOnly: true });
out.error = await sql`SELECT nothing`.then(() => null, (e) => ({ name: e.constructor.name, code: e.code, position: e.position }));

for (const pipeline of ["password", false]) {
    neonConfig.pipelineConnect = pipeline;
    const client = new Client(url);
    await client.connect();
    const label = pipeline ? "pipelined" : "plain";
    out[label] = (await client.query("SELECT current_user AS who, $1::int AS n", [5])).rows;
    const big = "x".repeat(3_000_000);
    out[label + "Big"] = (await client.query("SELECT length($1::text) AS up, repeat('y', 3000000) AS down", [big])).rows
        .map((r) => [r.up, r.down.length])[0];
    await client.query("BEGIN");
    await client.query("CREATE TEMP TABLE t (n int)");
    await client.query("INSERT INTO t SELECT generate_series(1, 1000)");
    out[label + "Rows"] = (await client.query("SELECT * FROM t")).rowCount;
    await client.query("ROLLBACK");
    await client.end();
}
const pool = new Pool({ connectionString: url, max: 8 });
out.pool = (await Promise.all([...Array(24).keys()].map((i) => pool.query("SELECT $1::int AS i", [i])))).map((r) => r.rows[0].i);
await pool.end();
const wrong = new Client(url.replace(/:[^:@/]+@/, ":wrong@"));
wrong.on("error", () => {});
out.wrong = await wrong.connect().then(() => null, (e) => ({ code: e.code, message: e.message }));
console.log(JSON.stringify(out));
