local hs = { status = "Progressing", message = "Waiting for sfmctoken-operator" }
if obj.metadata.deletionTimestamp ~= nil then
  hs.message = "SFMCToken is being deleted"
  return hs
end
if obj.spec.suspend == true then
  hs.status = "Suspended"
  hs.message = "spec.suspend is true: no token is asked for until it is false"
  return hs
end
if obj.status == nil or obj.status.conditions == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return hs
end
local conditions = {}
for _, condition in ipairs(obj.status.conditions) do
  conditions[condition.type] = condition
end
-- A person must act: a token that may still be valid won't be replaced.
if conditions.Stalled ~= nil and conditions.Stalled.status == "True" then
  hs.status = "Degraded"
  hs.message = conditions.Stalled.reason .. ": " .. conditions.Stalled.message
  return hs
end
if conditions.Ready ~= nil then
  hs.message = conditions.Ready.message
  if conditions.Ready.status == "True" then
    hs.status = "Healthy" -- whatever passes by itself
  end
end
return hs
