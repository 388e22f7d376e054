<?php
// SPDX-License-Identifier: Apache-2.0
// php-redis against the port in argv[1]. argv[2] "node": a storage node, which has no scripts and denies nothing.
function check($name, $got, $wanted)
{
    if ($got !== $wanted) {
        fwrite(STDERR, "$name: got " . var_export($got, true) . ", wanted " . var_export($wanted, true) . "\n");
        exit(1);
    }
    echo "OK $name\n";
}

$r = new Redis();
$r->connect('127.0.0.1', (int)$argv[1], 10);
check('ping', $r->ping(), true);
check('set', $r->set('p:s', 'v'), true);
check('get', $r->get('p:s'), 'v');
check('miss', $r->get('p:none'), false);
check('setex', $r->setex('p:e', 100, 'v'), true);
$ttl = $r->ttl('p:e');
check('ttl', 0 < $ttl && $ttl <= 100, true);
check('mset', $r->mSet(['p:a' => '1', 'p:b' => '2', 'p:c' => '3']), true);
check('mget', $r->mGet(['p:c', 'p:none', 'p:a', 'p:b']), ['3', false, '1', '2']);
check('del', $r->del('p:a', 'p:b', 'p:c'), 3);
check('incr', $r->incrBy('p:i', 5), 5);
check('hset', $r->hMSet('p:h', ['f' => '1', 'g' => '2']), true);
check('hgetall', $r->hGetAll('p:h'), ['f' => '1', 'g' => '2']);
check('zadd', $r->zAdd('p:z', 1.5, 'a', 2, 'b'), 2);
check('zrange', $r->zRange('p:z', 0, -1, true), ['a' => 1.5, 'b' => 2.0]);
$pipe = $r->pipeline();
for ($i = 0; $i < 300; $i++)
    $pipe->set("p:p$i", (string)$i)->get("p:p$i");
$replies = $pipe->exec();
check('pipeline', count($replies) === 600 && $replies[599] === '299', true);
check('multi', $r->multi()->set('p:t', '5')->incr('p:t')->exec(), [true, 6]);
if (($argv[2] ?? '') !== 'node')
    check('eval', $r->eval('return {KEYS[1],ARGV[1]}', ['p:k', 'x'], 1), ['p:k', 'x']);
$it = null;
$seen = [];
$r->setOption(Redis::OPT_SCAN, Redis::SCAN_RETRY);
while (($keys = $r->scan($it, 'p:p*', 50)) !== false)
    foreach ($keys as $key)
        $seen[$key] = true;
check('scan', count($seen), 300);
check('info', strpos($r->info()['redis_version'], '7.') === 0, true);
check('select', $r->select(0), true);
if (($argv[2] ?? '') !== 'node') {
    check('error', $r->rawCommand('CONFIG', 'GET', '*'), false);
    check('last error', strpos($r->getLastError(), 'denied') !== false, true);
}
check('wrong type', $r->lPush('p:s', 'x'), false);
check('its text', strpos($r->getLastError(), 'WRONGTYPE') === 0, true);
check('unknown', $r->rawCommand('NOSUCH'), false);
check('after errors', $r->get('p:s'), 'v');
check('close', $r->close(), true);
check('all', true, true);
