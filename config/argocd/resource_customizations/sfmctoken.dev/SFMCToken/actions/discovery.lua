local isSuspended = obj.spec.suspend == true
return {
  refresh = { disabled = isSuspended, iconClass = "fa fa-fw fa-sync" },
  suspend = { disabled = isSuspended, iconClass = "fa fa-fw fa-pause" },
  resume = { disabled = not isSuspended, iconClass = "fa fa-fw fa-play" },
}
