// SPDX-License-Identifier: Apache-2.0
// ioredis with its defaults (ready check included), against the port in argv[2]. argv[3] "node": a storage node, which
// has no scripts and no streams.
'use strict';
const assert = require('assert');
const Redis = require('ioredis');

const port = Number(process.argv[2]);
const isNode = process.argv[3] === 'node';
const connect = () => new Redis({ host: '127.0.0.1', port, maxRetriesPerRequest: 0, retryStrategy: null });

const checks = {
  async strings(c) {
    assert.equal(await c.set('i:s', 'v'), 'OK');
    assert.equal(await c.get('i:s'), 'v');
    await c.del('i:i');
    assert.equal(await c.incr('i:i'), 1);
    assert.equal((await c.getBuffer('i:s')).toString(), 'v');
  },
  async manyKeys(c) {
    await c.mset('i:a', '1', 'i:b', '2', 'i:c', '3');
    assert.deepEqual(await c.mget('i:c', 'i:none', 'i:a', 'i:b'), ['3', null, '1', '2']);
    assert.equal(await c.del('i:a', 'i:b', 'i:c'), 3);
  },
  async hashes(c) {
    await c.hset('i:h', { f: '1', g: '2' });
    assert.deepEqual(await c.hgetall('i:h'), { f: '1', g: '2' });
  },
  async pipelines(c) {
    const pipeline = c.pipeline();
    for (let i = 0; i < 500; i++) pipeline.set(`i:p${i}`, i).get(`i:p${i}`);
    const replies = await pipeline.exec();
    assert.equal(replies.length, 1000);
    assert.ok(replies.every(([error, value], i) => error === null && value === (i % 2 ? `${(i - 1) / 2}` : 'OK')));
  },
  async transactions(c) {
    assert.deepEqual(await c.multi().set('i:t', '5').incr('i:t').exec(), [[null, 'OK'], [null, 6]]);
  },
  async scan(c) {
    const seen = new Set();
    for await (const keys of c.scanStream({ match: 'i:p*', count: 50 })) keys.forEach((k) => seen.add(k));
    assert.equal(seen.size, 500);
  },
  async scripts(c) {
    c.defineCommand('echoKey', { numberOfKeys: 1, lua: 'return {KEYS[1], ARGV[1]}' });
    for (let i = 0; i < 20; i++) assert.deepEqual(await c.echoKey(`i:k${i}`, 'x'), [`i:k${i}`, 'x']);
  },
  async pubSub(c) {
    const sub = connect();
    const got = new Promise((resolve) => sub.on('message', (channel, message) => resolve([channel, message])));
    await sub.subscribe('i:channel');
    assert.equal(await c.publish('i:channel', 'hello'), 1);
    assert.deepEqual(await got, ['i:channel', 'hello']);
    await sub.unsubscribe('i:channel');
    sub.disconnect();
  },
  async blocking(c) {
    const other = connect();
    const popped = other.brpop('i:list', 10);
    await c.lpush('i:list', 'x');
    assert.deepEqual(await popped, ['i:list', 'x']);
    other.disconnect();
  },
  async streams(c) {
    const id = await c.xadd('i:stream', '*', 'f', 'v');
    assert.deepEqual(await c.xrange('i:stream', '-', '+'), [[id, ['f', 'v']]]);
  },
};

(async () => {
  const c = connect();
  if (isNode) {
    delete checks.scripts;
    delete checks.streams;
  }
  for (const [name, check] of Object.entries(checks)) {
    await check(c);
    console.log(`OK ${name}`);
  }
  assert.equal(await c.quit(), 'OK');
  console.log('OK all');
})().catch((e) => { console.error(e); process.exit(1); });
