// Loaded before a client: names below localhost are this machine, whatever the system's resolver says.
import dns from "node:dns";

const real = dns.lookup;
function lookup(name, options, callback) {
    if (typeof options === "function") [callback, options] = [options, {}];
    if (!/(^|\.)localhost$/.test(name)) return real(name, options, callback);
    const found = { address: "127.0.0.1", family: 4 };
    if (options?.all) process.nextTick(callback, null, [found]);
    else process.nextTick(callback, null, found.address, found.family);
}
dns.lookup = lookup;
const realPromise = dns.promises.lookup;
dns.promises.lookup = (name, options) => /(^|\.)localhost$/.test(name)
    ? new Promise((resolve) => lookup(name, options, (_, found, family) => resolve(options?.all ? found : { address: found, family })))
    : realPromise(name, options);

// The SQL tools of Neon's MCP server ask https://api.DOMAIN/sql, and nothing can tell them otherwise: here, what a proxy
// for that name would do.
if (process.env.BOUGH_MAP_SQL) {
    const fetch = globalThis.fetch;
    globalThis.fetch = (resource, init) => {
        const url = String(resource?.url ?? resource);
        return /^https:\/\/api\.[^/]+\/sql$/.test(url) ? fetch(`${process.env.BOUGH_HTTP}/sql`, init) : fetch(resource, init);
    };
}
