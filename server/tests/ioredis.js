// Pipelines and transactions as programs for Redis use them, against nodes on the ports that are given.
//
// Run by cluster_libraries.rs. Ends with "all well", or with an exception.

const assert = require("node:assert");
const Redis = require("ioredis");

const ports = process.argv.slice(2).map(Number);

function client(port) {
  const redis = new Redis({ host: "127.0.0.1", port, commandTimeout: 10_000, maxRetriesPerRequest: 1 });
  redis.on("error", (error) => console.error(`port ${port}: ${error}`));
  return redis;
}

// The results of exec: pairs of error and result.
const results = (pairs) => pairs.map(([error, result]) => (error ? String(error) : result));

async function conversation(r, other, tag) {
  const key = (name) => `{${tag}}${name}`;

  // Values are binary safe, and options are words.
  const bytes = Buffer.from([0, 13, 10, 255]);
  await r.set(key("bytes"), bytes);
  assert.deepStrictEqual(await r.getBuffer(key("bytes")), bytes);
  assert.strictEqual(await r.set(key("nx"), "1", "EX", 100, "NX"), "OK");
  assert.strictEqual(await r.set(key("nx"), "2", "EX", 100, "NX"), null);
  const ttl = await r.ttl(key("nx"));
  assert.ok(ttl > 90 && ttl <= 100, `ttl ${ttl}`);

  // A pipeline over all groups, answered in its order.
  const pipe = r.pipeline();
  for (let n = 0; n < 500; n += 1) pipe.set(`${tag}-${n}`, n).get(`${tag}-${n}`);
  const piped = results(await pipe.exec());
  assert.deepStrictEqual(piped.filter((_, at) => at % 2 === 1), Array.from({ length: 500 }, (_, n) => String(n)));
  assert.deepStrictEqual(await r.mget(`${tag}-1`, `${tag}-none`, `${tag}-499`), ["1", null, "499"]);

  // MULTI as one pipeline, and as single commands.
  const multi = await r.multi().set(key("a"), "1").incr(key("a")).mget(key("a"), key("none")).exec();
  assert.deepStrictEqual(results(multi), ["OK", 2, ["2", null]]);
  await r.multi({ pipeline: false });
  assert.strictEqual(await r.set(key("a"), "3"), "QUEUED");
  assert.strictEqual(await r.get(key("a")), "QUEUED");
  assert.deepStrictEqual(results(await r.exec()), ["OK", "3"]);

  // One that fails by itself, and one that cannot be queued.
  const text = results(await r.multi().set(key("t"), "x").incr(key("t")).set(key("t"), "y").exec());
  assert.ok(text[0] === "OK" && text[1].includes("not an integer") && text[2] === "OK", text);
  await assert.rejects(r.multi().set(key("a"), "4").call("SET", key("a")).exec(), /EXECABORT/);
  assert.strictEqual(await r.get(key("a")), "3");
  await assert.rejects(r.multi().set("a", "1").set("b", "1").exec(), /CROSSSLOT/);

  // WATCH: a change by another client, and none.
  await r.watch(key("a"));
  await other.set(key("a"), "7");
  assert.strictEqual(await r.multi().set(key("a"), "8").exec(), null);
  assert.strictEqual(await r.get(key("a")), "7");
  await r.watch(key("a"));
  assert.deepStrictEqual(results(await r.multi().set(key("a"), "8").exec()), ["OK"]);

  // What is not Redis.
  const token = await r.set(key("lock"), "me", "NX", "PX", 60_000, "REV");
  assert.strictEqual(await r.call("PUT", key("f"), "new", "FENCE", token), "OK");
  await assert.rejects(other.call("PUT", key("f"), "old", "FENCE", token - 1), /^ReplyError: FENCED token=/);
  assert.strictEqual(await r.get(key("f")), "new");
  await r.del(...["bytes", "nx", "a", "t", "lock", "f"].map(key));
}

// Every client adds a hundred under an optimistic lock; none is lost.
async function counters(clients) {
  const [key, each] = ["{counted}", 100];
  await clients[0].del(key);
  await Promise.all(clients.map(async (r) => {
    for (let done = 0; done < each; ) {
      await r.watch(key);
      const value = Number((await r.get(key)) ?? 0);
      if (await r.multi().set(key, value + 1).exec()) done += 1;
    }
  }));
  assert.strictEqual(await clients[0].get(key), String(each * clients.length));
}

// A client that computes slots and goes to their leaders; with redirects and without.
async function cluster(redirect, tag) {
  const r = new Redis.Cluster([{ host: "127.0.0.1", port: ports[0] }], {
    redisOptions: { commandTimeout: 10_000 },
    slotsRefreshTimeout: 5_000,
  });
  r.on("error", (error) => console.error(`cluster: ${error}`));
  r.on("+node", (node) => {
    if (redirect) node.once("ready", () => node.call("CLIENT", "REDIRECT", "ON").catch(() => {}));
  });
  await new Promise((resolve) => r.once("ready", resolve));
  const found = r.nodes("all").map((node) => node.options.port).sort();
  assert.deepStrictEqual(found, [...ports].sort());
  const keys = Array.from({ length: 300 }, (_, n) => `${tag}:${n}`);
  assert.deepStrictEqual(await Promise.all(keys.map((key, n) => r.set(key, n))), keys.map(() => "OK"));
  assert.deepStrictEqual(await Promise.all(keys.map((key) => r.get(key))), keys.map((_, n) => String(n)));
  const tagged = (name) => `{${tag}}${name}`;
  const pipe = r.pipeline().set(tagged("a"), "1").incr(tagged("a")).mget(tagged("a"), tagged("none"));
  assert.deepStrictEqual(results(await pipe.exec()), ["OK", 2, ["2", null]]);
  const multi = r.multi().incr(tagged("a")).get(tagged("a"));
  assert.deepStrictEqual(results(await multi.exec()), [3, "3"]);
  assert.strictEqual(await r.del(tagged("a")), 1);
  await Promise.all(keys.map((key) => r.del(key)));
  await r.quit();
}

async function main() {
  await cluster(false, "jc1");
  await cluster(true, "jc2");
  const clients = ports.map(client);
  for (const [index, r] of clients.entries()) {
    await conversation(r, clients[(index + 1) % clients.length], `js${index}`);
  }
  await counters(clients);
  await Promise.all(clients.map((r) => r.quit()));
  console.log(`ioredis ${require("ioredis/package.json").version}: ${clients.length} nodes`);
  console.log("all well");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
