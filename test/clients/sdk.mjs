// @neon/sdk (generated from Neon's specification, polls operations) and the older api-client.
import { createNeonClient } from "@neon/sdk";
import { createApiClient } from "@neondatabase/api-client";

const baseUrl = process.env.NEON_API_HOST, apiKey = process.env.NEON_API_KEY;
const out = {};

const neon = createNeonClient({ apiKey, baseUrl, throwOnError: true, waitForReadiness: true });
const made = await neon.projects.createAndConnect({ name: "by the sdk", pg_version: 15, pooled: false });
const projectId = made.project.id;
out.uri = made.connectionString;
out.name = (await neon.projects.get({ projectId })).name;
const branch = await neon.branches.create({ projectId, name: "from the sdk" });
out.branch = branch.branch?.name ?? branch.name;
const branchId = branch.branch?.id ?? branch.id;
out.missing = await createNeonClient({ apiKey, baseUrl }).branches.get({ projectId, branchId: "br-none" })
    .then((r) => ({ status: r.error?.status, message: r.error?.message }));
out.refused = await createNeonClient({ apiKey: "wrong", baseUrl }).projects.get({ projectId }).then((r) => r.error?.status);
await neon.branches.delete({ projectId, branchId });

const old = createApiClient({ apiKey, baseURL: baseUrl });
out.branches = (await old.listProjectBranches({ projectId })).data.branches.map((b) => b.name);
const second = (await old.createProjectBranch(projectId, { branch: { name: "second" }, endpoints: [{ type: "read_write" }] })).data;
out.endpoints = second.endpoints.length;
out.schema = (await old.getProjectBranchSchema({ projectId, branchId: second.branch.id, db_name: "neondb" })).data.sql.length > 0;
out.operations = (await old.listProjectOperations({ projectId })).data.operations.map((o) => o.status);
out.databases = (await old.listProjectBranchDatabases(projectId, second.branch.id)).data.databases.map((d) => d.name);
await old.deleteProjectBranch({ projectId, branchId: second.branch.id });
out.deleted = (await old.deleteProject(projectId)).data.project.id === projectId;
console.log(JSON.stringify(out));
