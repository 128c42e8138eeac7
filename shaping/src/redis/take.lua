-- Takes from all limits of one decision, or from none. All times are microseconds, by the server's clock unless
-- the caller gives one.
--
-- KEYS: one a limit.
-- ARGV: 1 the time, or 0; then for each limit seven values:
--   kind: 'r' rate, 'd' calendar day, 'l' lease
--   r: ticks of one decision, tolerance, decisions to take, 1 if the key may have been used up unseen, room
--   d: cap, zone in seconds, decisions wanted at most, cost, 0
--   l: most, time to live, 0, 0, 0
--   the lease's member name
-- Answer: 1 and for each limit the decisions taken; or 0, the place of the limit that binds, and the time to wait.

local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

local function arg(limit, place)
  return ARGV[1 + (limit - 1) * 7 + place]
end
local function number(limit, place)
  return tonumber(arg(limit, place))
end

local states, worst, longest = {}, 0, -1
local function refuse(limit, wait)
  if wait > longest then
    worst, longest = limit, wait
  end
end

for i, key in ipairs(KEYS) do
  local kind = arg(i, 1)
  if kind == 'r' then
    local tat = tonumber(redis.call('GET', key) or '0')
    if number(i, 5) == 1 then
      tat = math.max(tat, now + number(i, 6))
    end
    local earliest = tat - number(i, 3)
    if now < earliest then
      refuse(i, earliest - now)
    end
    states[i] = math.max(tat, now)
  elseif kind == 'd' then
    local day = math.floor((now / 1000000 + number(i, 3)) / 86400)
    local stored = redis.call('HMGET', key, 'day', 'count')
    local count = 0
    if tonumber(stored[1] or '-1') == day then
      count = tonumber(stored[2])
    end
    if count + number(i, 5) > number(i, 2) then
      refuse(i, ((day + 1) * 86400 - number(i, 3)) * 1000000 - now)
    end
    states[i] = { day, count }
  else
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    if redis.call('ZCARD', key) >= number(i, 2) then
      local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
      refuse(i, math.max(1000, (tonumber(first[2] or '0')) - now))
    end
  end
end
if worst > 0 then
  return { 0, worst, longest }
end

local answer = { 1 }
for i, key in ipairs(KEYS) do
  local kind = arg(i, 1)
  if kind == 'r' then
    -- A batch is taken ahead of its time: that is what a window may hold more than its limit.
    local ticks, taken = number(i, 2), number(i, 4)
    local tat = states[i] + taken * ticks
    redis.call('SET', key, string.format('%.0f', tat), 'PX', string.format('%.0f', (tat - now) / 1000 + 1000))
    answer[i + 1] = taken
  elseif kind == 'd' then
    local cap, most, cost = number(i, 2), number(i, 4), number(i, 5)
    local day, count = states[i][1], states[i][2]
    local taken = math.max(1, math.min(most, math.floor((cap - count) / cost)))
    redis.call('HSET', key, 'day', string.format('%.0f', day), 'count', string.format('%.0f', count + taken * cost))
    redis.call('PEXPIRE', key, 172800000)
    answer[i + 1] = taken
  else
    local ttl = number(i, 3)
    redis.call('ZADD', key, string.format('%.0f', now + ttl), arg(i, 7))
    -- The key outlives its last lease.
    redis.call('PEXPIRE', key, string.format('%.0f', ttl / 1000 + 60000))
    answer[i + 1] = 1
  end
end
return answer
