local hs = { status = "Progressing", message = "Waiting for sfmctoken-operator" }
if obj.metadata.deletionTimestamp ~= nil then
  hs.message = "SFMCAccessGrant is being deleted"
  return hs
end
if obj.status == nil or obj.status.conditions == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return hs
end
for _, condition in ipairs(obj.status.conditions) do
  if condition.type == "Ready" then
    hs.status = condition.status == "True" and "Healthy" or "Degraded"
    hs.message = condition.message
  end
end
return hs
