// SPDX-License-Identifier: Apache-2.0
// node-redis with its defaults, against the port in argv[2]. Prints "OK name" for what worked. argv[4] "node": a storage
// node, which has no scripts and denies nothing.
'use strict';
const assert = require('assert');
const { createClient } = require('redis');

const port = Number(process.argv[2]);
const resp = Number(process.argv[3] || 3);
const isNode = process.argv[4] === 'node';

async function connect() {
  const client = createClient({ socket: { host: '127.0.0.1', port, reconnectStrategy: false }, RESP: resp });
  client.on('error', (e) => { console.error(e); process.exit(1); });
  await client.connect();
  return client;
}

const checks = {
  async strings(c) {
    assert.equal(await c.set('n:s', 'v'), 'OK');
    assert.equal(await c.get('n:s'), 'v');
    assert.equal(await c.get('n:none'), null);
    await c.del('n:i');
    assert.equal(await c.incrBy('n:i', 7), 7);
    assert.equal(await c.append('n:s', 'w'), 2);
  },
  async manyKeys(c) {
    assert.equal(await c.mSet([['n:a', '1'], ['n:b', '2'], ['n:c', '3']]), 'OK');
    assert.deepEqual(await c.mGet(['n:a', 'n:none', 'n:c', 'n:a', 'n:b']), ['1', null, '3', '1', '2']);
    assert.equal(await c.exists(['n:a', 'n:b', 'n:none']), 2);
    assert.equal(await c.del(['n:a', 'n:b', 'n:c']), 3);
  },
  async hashes(c) {
    await c.hSet('n:h', { f: '1', g: '2' });
    assert.deepEqual({ ...await c.hGetAll('n:h') }, { f: '1', g: '2' });
  },
  async sortedSets(c) {
    await c.zAdd('n:z', [{ score: 1.5, value: 'a' }, { score: 2, value: 'b' }]);
    assert.equal(await c.zScore('n:z', 'a'), 1.5);
    assert.deepEqual((await c.zRangeWithScores('n:z', 0, -1)).map((m) => m.score), [1.5, 2]);
  },
  async pipelines(c) {
    const values = await Promise.all([...Array(500).keys()].map(async (i) => {
      await c.set(`n:p${i}`, `${i}`);
      return c.get(`n:p${i}`);
    }));
    assert.deepEqual(values, [...Array(500).keys()].map(String));
  },
  async transactions(c) {
    const replies = await c.multi().set('n:t', '5').incr('n:t').get('n:t').exec();
    assert.deepEqual(replies, ['OK', 6, '6']);
  },
  async scan(c) {
    const seen = new Set();
    for await (const keys of c.scanIterator({ MATCH: 'n:p*', COUNT: 50 })) {
      for (const key of [].concat(keys)) seen.add(key);
    }
    assert.equal(seen.size, 500);
  },
  async scripts(c) {
    if (!isNode) assert.equal(await c.eval('return ARGV[1]', { keys: ['n:s'], arguments: ['x'] }), 'x');
  },
  async pubSub(c) {
    const sub = await connect();
    const got = new Promise((resolve) => sub.subscribe('n:channel', (message) => resolve(message)));
    while (await c.publish('n:channel', 'hello') === 0) await new Promise((r) => setTimeout(r, 5));
    assert.equal(await got, 'hello');
    await sub.unsubscribe('n:channel');
    await sub.close();
  },
  async blocking(c) {
    const other = await connect();
    const popped = other.blPop('n:list', 10);
    await c.rPush('n:list', 'x');
    assert.deepEqual({ ...await popped }, { key: 'n:list', element: 'x' });
    await other.close();
  },
  async errors(c) {
    await c.set('n:s', 'v');
    await assert.rejects(c.lPush('n:s', 'x'), /WRONGTYPE/);
    if (!isNode) await assert.rejects(c.sendCommand(['CONFIG', 'GET', '*']), /denied/);
    await assert.rejects(c.sendCommand(['NOSUCH']), /ERR/);
    assert.equal(await c.get('n:s'), 'v');
  },
};

(async () => {
  const c = await connect();
  for (const [name, check] of Object.entries(checks)) {
    await check(c);
    console.log(`OK ${name}`);
  }
  await c.close();
  console.log('OK all');
})().catch((e) => { console.error(e); process.exit(1); });
