local os = require("os")
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
-- Any new value asks for a token that was issued after it.
obj.metadata.annotations["sfmctoken.dev/refresh-requested-at"] = os.date("!%Y-%m-%dT%XZ")
return obj
