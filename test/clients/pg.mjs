// node-postgres: what a connection says of itself. Arguments: its options, as JSON.
import fs from "node:fs";
import pg from "pg";

const options = JSON.parse(process.argv[2]);
if (options.ca) options.ssl = { ca: fs.readFileSync(options.ca, "utf8") };
const client = new pg.Client(options);
await client.connect();
const { rows } = await client.query("SELECT current_user AS who, ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
await client.end();
console.log(JSON.stringify(rows[0]));
