-- Counts one in all of KEYS, or, where one of them has no room, in none: see flow/quotas.py, whose law this is.
-- ARGV: the slots of a window, then limit and window in seconds of each key.
-- Returns whether it was counted, then of each key the total before, and the milliseconds until there is room or, where
-- there is, until there is more.
local slots = tonumber(ARGV[1])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local counted, seen = 1, {}

for i, key in ipairs(KEYS) do
  local limit, length = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1]) / slots
  local slot = math.floor(now / length)
  local order, counts, total = {}, {}, 0
  local fields = redis.call('HGETALL', key)
  for j = 1, #fields, 2 do
    local at, count = tonumber(fields[j]), tonumber(fields[j + 1])
    if at < slot - slots then
      redis.call('HDEL', key, fields[j])
    else
      order[#order + 1] = at
      counts[at] = count
      total = total + count
    end
  end
  table.sort(order)
  seen[i] = {slot = slot, length = length, order = order, counts = counts, total = total, limit = limit}
  if total >= limit then counted = 0 end
end

local answer = {counted}
for i, key in ipairs(KEYS) do
  local each = seen[i]
  if counted == 1 then
    redis.call('HINCRBY', key, string.format('%.0f', each.slot), 1)
    redis.call('PEXPIRE', key, math.ceil((slots + 2) * each.length * 1000))
    if each.total == 0 then each.order = {each.slot}; each.counts = {[each.slot] = 1} end
  end
  local needed, free = math.max(each.total - each.limit + 1, 1), nil
  for _, at in ipairs(each.order) do
    free = at
    needed = needed - each.counts[at]
    if needed <= 0 then break end
  end
  answer[#answer + 1] = each.total
  answer[#answer + 1] = free and math.ceil(((free + slots + 1) * each.length - now) * 1000) or 0
end
return answer
