<?php
// SPDX-License-Identifier: Apache-2.0
// php-memcached against the port in argv[1]; argv[2] is text or binary.
function check($name, $got, $wanted)
{
    if ($got !== $wanted) {
        fwrite(STDERR, "$name: got " . var_export($got, true) . ", wanted " . var_export($wanted, true) . "\n");
        exit(1);
    }
    echo "OK $name\n";
}

$m = new Memcached();
$m->setOption(Memcached::OPT_BINARY_PROTOCOL, $argv[2] === 'binary');
$m->addServer('127.0.0.1', (int)$argv[1]);
check('set', $m->set('p:s', 'v'), true);
check('get', $m->get('p:s'), 'v');
check('miss', $m->get('p:none'), false);
check('miss code', $m->getResultCode(), Memcached::RES_NOTFOUND);
check('add', $m->add('p:s', 'w'), false);
check('replace', $m->replace('p:s', 'x'), true);
check('array', $m->set('p:array', [1, 2, 3]) && $m->get('p:array') === [1, 2, 3], true);
$values = [];
for ($i = 0; $i < 200; $i++)
    $values["p:m$i"] = "value$i";
check('setMulti', $m->setMulti($values), true);
check('getMulti', $m->getMulti(array_keys($values)) == $values, true);
check('counter', $m->set('p:i', '5') && $m->increment('p:i', 3) === 8 && $m->decrement('p:i', 1) === 7, true);
check('touch', $m->touch('p:s', 100), true);
$got = $m->get('p:s', null, Memcached::GET_EXTENDED);
check('cas', $m->cas($got['cas'], 'p:s', 'y'), true);
check('cas twice', $m->cas($got['cas'], 'p:s', 'z'), false);
check('big', $m->set('p:big', str_repeat('x', 500000)) && strlen($m->get('p:big')) === 500000, true);
check('delete', $m->delete('p:s'), true);
check('deleteMulti', $m->deleteMulti(array_keys($values))['p:m7'], true);
check('flush', $m->flush(), true);
check('flushed', $m->get('p:i'), false);
check('all', true, true);
