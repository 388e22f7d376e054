# SPDX-License-Identifier: Apache-2.0
# ruby-dalli against the port in ARGV[0]; ARGV[1] is binary or meta.
require 'dalli'

def check(name, got, wanted)
  unless got == wanted
    warn "#{name}: got #{got.inspect}, wanted #{wanted.inspect}"
    exit 1
  end
  puts "OK #{name}"
end

d = Dalli::Client.new("127.0.0.1:#{ARGV[0]}", protocol: ARGV[1].to_sym, socket_timeout: 10)
check 'set', !d.set('d:s', 'v').nil?, true
check 'get', d.get('d:s'), 'v'
check 'miss', d.get('d:none'), nil
check 'add', d.add('d:s', 'w'), false
check 'replace', !d.replace('d:s', 'x').nil? && d.get('d:s'), 'x'
check 'object', (d.set('d:o', { 'a' => [1, 2] }) && d.get('d:o')), { 'a' => [1, 2] }
keys = (0...200).map { |i| "d:m#{i}" }
d.multi { keys.each { |k| d.set(k, k) } }
check 'multi get', d.get_multi(keys), keys.to_h { |k| [k, k] }
check 'incr', d.incr('d:i', 3, 100, 10), 10
check 'incr more', d.incr('d:i', 3), 13
check 'decr', d.decr('d:i', 1), 12
check 'append', d.set('d:a', 'a', 0, raw: true) && d.append('d:a', 'b') && d.get('d:a'), 'ab'
check 'touch', d.touch('d:s', 100), true
check 'gat', d.gat('d:s', 100), 'x'
check 'cas', !d.cas('d:s') { |v| v + 'y' }.nil? && d.get('d:s'), 'xy'
check 'delete', d.delete('d:s'), true
check 'big', d.set('d:big', 'x' * 500_000, 0, raw: true) && d.get('d:big').length, 500_000
check 'version', d.version.values.first.to_s.start_with?('1.6'), true
check 'flush', d.flush_all.all?, true
check 'flushed', d.get('d:i'), nil
d.close
puts 'OK all'
