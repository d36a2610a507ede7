"""What runs inside Redis, each as one step that nobody else's comes between, and each harmless when it runs twice.

redis-py repeats a command whose connection was lost, and nobody knows then whether it ran: a second run under the same token changes
nothing. Times are microseconds of Redis's own clock. For each rate there are three sorted sets: ``grants`` (a token, and when its place
is free again), ``queue`` (a token, and its turn) and ``seen`` (a token, and until when it is believed to wait still).
"""

from typing import Final

RESERVE: Final = """
-- KEYS: notes; then of each rate: grants, queue, seen.
-- ARGV: token, most_wait, first, lane, grant_lease, queue_lease, beat; then of each rate: name, limit, period, gap, daily.
local moment = redis.call('TIME')
local now = moment[1] * 1000000 + moment[2]
local DAY = 86400000000
local midnight = (math.floor(now / DAY) + 1) * DAY
local function text(number) return string.format('%.0f', number) end

local token, most_wait, first, lane = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1', ARGV[4]
local grant_lease, queue_lease, beat = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local rates, turn = {}, nil
for i = 1, (#KEYS - 1) / 3 do
  local k, a = 3 * i - 1, 5 * i + 3
  local rate = {
    grants = KEYS[k], queue = KEYS[k + 1], seen = KEYS[k + 2],
    name = ARGV[a], limit = tonumber(ARGV[a + 1]), period = tonumber(ARGV[a + 2]), gap = tonumber(ARGV[a + 3]), daily = ARGV[a + 4] == '1'
  }
  rates[i] = rate
  redis.call('ZREMRANGEBYSCORE', rate.grants, '-inf', text(now))
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', rate.seen, '-inf', text(now))) do
    redis.call('ZREM', rate.queue, gone)
    redis.call('ZREM', rate.seen, gone)
  end
  if redis.call('ZSCORE', rate.grants, token) then return 0 end
  turn = turn or tonumber(redis.call('ZSCORE', rate.queue, token) or nil)
end
-- Who goes first has a turn long before everybody else's.
turn = turn or (first and now - 1000000000000000 or now)

local held_until = tonumber(redis.call('HGET', KEYS[1], 'hold:' .. lane) or 0)
local at, blocked = math.max(now, held_until), 0
for i, rate in ipairs(rates) do
  local ahead = rate.daily and 0 or redis.call('ZCOUNT', rate.queue, '-inf', '(' .. text(turn))
  local missing = redis.call('ZCARD', rate.grants) + ahead + 1 - rate.limit
  local free = now
  if missing > 0 and rate.daily then
    free = midnight
  elseif missing > 0 then
    -- Answers that are still to come are taken to come now.
    local rounds = math.floor((missing - 1) / rate.limit)
    local place = missing - 1 - rounds * rate.limit
    local entry = redis.call('ZRANGE', rate.grants, place, place, 'WITHSCORES')
    free = math.min(now + rate.period, tonumber(entry[2] or now + rate.period)) + rounds * rate.period
  end
  if rate.gap > 0 then
    local last = tonumber(redis.call('HGET', KEYS[1], 'last:' .. rate.name) or 0)
    free = math.max(free, last + rate.gap * (1 + math.min(ahead, rate.limit)))
  end
  if free > now then
    at, blocked = math.max(at, free), i
    break
  end
end

if at > now then
  local wait = math.ceil(at - now)
  for i, rate in ipairs(rates) do
    -- Who waits for his lane doesn't stand in the way of who waits for the pot alone.
    local waits_here = i <= blocked or (blocked == 0 and rate.gap == 0)
    if wait <= most_wait and not rate.daily and waits_here then
      redis.call('ZADD', rate.queue, text(turn), token)
      redis.call('ZADD', rate.seen, text(now + math.min(wait, beat) + queue_lease), token)
      redis.call('PEXPIRE', rate.queue, text((beat + queue_lease) / 500))
      redis.call('PEXPIRE', rate.seen, text((beat + queue_lease) / 500))
    else
      redis.call('ZREM', rate.queue, token)
      redis.call('ZREM', rate.seen, token)
    end
  end
  return wait
end

for _, rate in ipairs(rates) do
  redis.call('ZREM', rate.queue, token)
  redis.call('ZREM', rate.seen, token)
  -- Until its answer came, and a window more; who died is believed to wait for it a while.
  redis.call('ZADD', rate.grants, text(rate.daily and midnight or now + grant_lease + rate.period), token)
  redis.call('PEXPIRE', rate.grants, text((rate.daily and DAY or grant_lease + rate.period) / 1000))
  if rate.gap > 0 then
    redis.call('HSET', KEYS[1], 'last:' .. rate.name, text(now))
    redis.call('PEXPIRE', KEYS[1], text(DAY / 1000))
  end
end
return 0
"""

END: Final = """
-- KEYS: of each rate: grants, queue, seen. ARGV: token, counted; then of each rate: period, daily.
local moment = redis.call('TIME')
local now = moment[1] * 1000000 + moment[2]
local token, counted = ARGV[1], ARGV[2] == '1'
for i = 1, #KEYS / 3 do
  local grants, queue, seen = KEYS[3 * i - 2], KEYS[3 * i - 1], KEYS[3 * i]
  local period, daily = tonumber(ARGV[2 * i + 1]), ARGV[2 * i + 2] == '1'
  redis.call('ZREM', queue, token)
  redis.call('ZREM', seen, token)
  if not counted then
    redis.call('ZREM', grants, token)
  elseif not daily then
    -- One that is known no more was answered so late that its place was lent out: it counts for its window all the same.
    redis.call('ZADD', grants, string.format('%.0f', now + period), token)
    if redis.call('PTTL', grants) < period / 1000 then redis.call('PEXPIRE', grants, string.format('%.0f', period / 1000)) end
  end
end
return 1
"""

HOLD: Final = """
-- KEYS: notes. ARGV: lane, microseconds.
local moment = redis.call('TIME')
local hold = moment[1] * 1000000 + moment[2] + ARGV[2]
local field = 'hold:' .. ARGV[1]
if hold > tonumber(redis.call('HGET', KEYS[1], field) or 0) then
  redis.call('HSET', KEYS[1], field, string.format('%.0f', hold))
end
redis.call('PEXPIRE', KEYS[1], math.max(86400000, math.ceil(ARGV[2] / 1000)))
return 1
"""

PUBLISH: Final = """
-- KEYS: stream; then a key for each of the event's names. ARGV: token, event, seconds, most, stream_seconds.
for i = 2, #KEYS do
  local known = redis.call('GET', KEYS[i])
  if known == ARGV[1] then return 1 end
  if known then return 0 end
end
for i = 2, #KEYS do
  redis.call('SET', KEYS[i], ARGV[1], 'NX', 'EX', ARGV[3])
end
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[4], '*', 'event', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[5])
return 1
"""
