-- Prolongs or ends leases.
--
-- KEYS: one a limit. ARGV: 1 the time in microseconds, or 0 for the server's; 2 the member; 3 the time to live in
-- microseconds, or 0 to end the leases. Answer: how many of the leases were still held.

local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local ttl, held = tonumber(ARGV[3]), 0
for _, key in ipairs(KEYS) do
  local until_ = redis.call('ZSCORE', key, ARGV[2])
  if until_ and tonumber(until_) > now then
    held = held + 1
    if ttl > 0 then
      redis.call('ZADD', key, string.format('%.0f', now + ttl), ARGV[2])
      redis.call('PEXPIRE', key, string.format('%.0f', ttl / 1000 + 60000))
    end
  end
  if ttl == 0 then
    redis.call('ZREM', key, ARGV[2])
  end
end
return { held }
