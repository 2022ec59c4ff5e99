// A program that uses the API as any user of the published documents would: types by openapi-typescript, calls by openapi-fetch,
// OAuth by ten lines. It ends with status 0 only when the server does what the types say.
import assert from "node:assert/strict";
import createClient, { type Middleware } from "openapi-fetch";
import type { components, paths } from "./maas.js";
import type { paths as ingotPaths } from "./ingot.js";

type Machine = components["schemas"]["Machine"];

// OAuth 1.0a, PLAINTEXT: the API key is consumer:token:secret.
function oauth(key: string): Middleware {
  const [consumer, token, secret] = key.split(":").map(encodeURIComponent);
  return {
    onRequest({ request }) {
      const now = Math.floor(Date.now() / 1000);
      request.headers.set("Authorization", `OAuth oauth_version="1.0", oauth_signature_method="PLAINTEXT", oauth_nonce="${crypto.randomUUID()}", ` +
        `oauth_timestamp="${now}", oauth_consumer_key="${consumer}", oauth_token="${token}", oauth_signature="%26${secret}"`);
      return request;
    },
  };
}

// A form, with a key for each element of a list.
function form(body: unknown): URLSearchParams {
  const out = new URLSearchParams();
  for (const [k, v] of Object.entries(body as Record<string, unknown>)) {
    for (const x of Array.isArray(v) ? v : [v]) {
      if (x !== undefined) out.append(k, String(x));
    }
  }
  return out;
}

const [url, adminKey, userKey] = process.argv.slice(2);
assert(url && adminKey && userKey, "usage: program URL ADMIN_KEY USER_KEY");

function connect(key?: string) {
  const c = createClient<paths>({
    baseUrl: url + "/MAAS/api/2.0",
    bodySerializer: form,
    headers: { "Content-Type": "application/x-www-form-urlencoded" },
  });
  if (key) c.use(oauth(key));
  return c;
}
const nobody = connect(), admin = connect(adminKey), user = connect(userKey);

function ok<T>(answer: { data?: T; error?: unknown; response: Response }): T {
  assert(answer.data !== undefined, `${answer.response.url}: ${answer.response.status} ${JSON.stringify(answer.error)}`);
  return answer.data;
}

const version = ok(await nobody.GET("/version/"));
assert(version.capabilities.includes("authenticate-api"));
const me = ok(await user.GET("/users/op-whoami"));
assert.equal(me.username, "user");
assert.equal((await nobody.GET("/users/op-whoami", { parseAs: "text" })).response.status, 401);

// A machine, with lists, booleans and numbers.
const made = ok(await admin.POST("/machines/", {
  body: { architecture: "amd64/generic", mac_addresses: ["52:54:00:00:00:01", "52:54:00:00:00:02"], hostname: "typed", power_type: "manual", commission: false },
}));
assert("interface_set" in made, "the answer is the one for callers without login");
const machine: Machine = made;
assert.equal(machine.status_name, "New");
assert.deepEqual(machine.interface_set.map((i) => i.mac_address), ["52:54:00:00:00:01", "52:54:00:00:00:02"]);
const path = { system_id: machine.system_id };
const changed = ok(await admin.PUT("/machines/{system_id}/", { params: { path }, body: { description: "from TypeScript", swap_size: "4096" } }));
assert.equal(changed.description, "from TypeScript");
assert.equal(changed.swap_size, 4096);
const list = ok(await admin.GET("/machines/", { params: { query: { mac_address: ["52:54:00:00:00:02"], hostname: ["typed", "other"] } } }));
assert.deepEqual(list.map((m) => m.system_id), [machine.system_id]);

// The network's objects refer to each other.
const subnet = ok(await admin.POST("/subnets/", { body: { cidr: "10.9.0.0/24", gateway_ip: "10.9.0.1", dns_servers: ["10.9.0.2", "10.9.0.3"] } }));
assert.deepEqual(subnet.dns_servers, ["10.9.0.2", "10.9.0.3"]);
const vlan = ok(await admin.GET("/fabrics/{fabric_id}/vlans/{path_vid}/", { params: { path: { fabric_id: String(subnet.vlan.fabric_id), path_vid: String(subnet.vlan.vid) } } }));
assert.equal(vlan.id, subnet.vlan.id);

// Refusals are typed as well, or texts.
const bad = await admin.POST("/zones/", { body: { name: "default" } });
assert.equal(bad.response.status, 400);
assert.match(JSON.stringify(bad.error), /already exists/);
const none = await user.POST("/machines/op-allocate", { body: { mem: [1024], tags: [] }, parseAs: "text" });
assert.equal(none.response.status, 409);
assert.match(String(none.error), /^No available machine matches constraints: \[\('mem', \['1024'\]\)\]/);
assert.equal((await user.DELETE("/machines/{system_id}/", { params: { path }, parseAs: "text" })).response.status, 403);
assert.equal((await admin.GET("/machines/{system_id}/", { params: { path: { system_id: "nosuch" } }, parseAs: "text" })).response.status, 404);

// What is ours, beside it.
const ingot = createClient<ingotPaths>({ baseUrl: url + "/ingot/v1" });
ingot.use(oauth(adminKey));
const changes = ok(await ingot.GET("/changes", { params: { query: { since: 0, wait: 0 } } }));
assert(changes.revision > 0);
assert.deepEqual(ok(await ingot.GET("/machines/{system_id}/timeline", { params: { path } })), []);

// Mistakes do not compile.
async function mistakes() {
  // @ts-expect-error no such path
  await admin.GET("/machine/");
  // @ts-expect-error no such field
  void machine.hostnames;
  // @ts-expect-error a list of texts, not a text
  await admin.POST("/machines/", { body: { architecture: "amd64", mac_addresses: "52:54:00:00:00:03" } });
  // @ts-expect-error the path needs its parameter
  await admin.POST("/machines/{system_id}/op-deploy", { body: {} });
}
void mistakes;

console.log(machine.system_id);
