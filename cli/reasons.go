package cli

import (
	"fmt"

	"github.com/shoalrun/shoal/fleet"
)

// meaning says in a clause what a reason means.
func meaning(o *fleet.Observation) string {
	switch fleet.Reason(o.Reason) {
	case fleet.ReasonUndeclaredCall:
		return fmt.Sprintf("the manifest of %s does not declare calls to %s", o.Caller, o.Callee)
	case fleet.ReasonNotAllowed:
		return fmt.Sprintf("`allow` in the manifest of %s does not let %s in", o.Callee, o.Caller)
	case fleet.ReasonUndeclaredEgress:
		return fmt.Sprintf("the manifest of %s does not declare egress to %s", o.Caller, o.Callee)
	case fleet.ReasonUnboundNeed:
		return fmt.Sprintf("shoal.work does not say where %s is", o.Callee)
	case fleet.ReasonUnknownService:
		return fmt.Sprintf("no service of this fleet is called %s", o.Callee)
	case fleet.ReasonNotRunning:
		return fmt.Sprintf("%s is not among the services that were started", o.Callee)
	case fleet.ReasonUnknownPort:
		return fmt.Sprintf("%s does not listen on that port", o.Callee)
	case fleet.ReasonNotExposed:
		return "no service is exposed for that host and path"
	case fleet.ReasonUndeclaredTopic:
		return fmt.Sprintf("the manifest of %s does not declare that for the topic %s", o.Caller, o.Topic)
	case fleet.ReasonUnknownCaller:
		return fmt.Sprintf("%s is no service of this fleet", o.Caller)
	case fleet.ReasonMalformedEvent:
		return "what was published is no CloudEvent"
	case fleet.ReasonMeshTLS:
		return fmt.Sprintf("%s is reached by plain http: the mesh encrypts", o.Callee)
	case fleet.ReasonRateLimited:
		return fmt.Sprintf("the `rate` of %s is used up, or this caller's share of it", o.Callee)
	case fleet.ReasonFaultInjected:
		return "an operator's fault ended it, and nothing is broken"
	case fleet.ReasonUDP:
		return "UDP other than DNS does not leave a service"
	}
	return fault(o)
}

// fault is meaning for what went wrong rather than what was forbidden.
func fault(o *fleet.Observation) string {
	switch fleet.Reason(o.Reason) {
	case fleet.ReasonNacked:
		return fmt.Sprintf("%s gave it back", o.Callee)
	case fleet.ReasonTakenBack:
		return "an earlier message of its ordering key failed, and it comes again after that one"
	case fleet.ReasonNoEndpoint:
		return fmt.Sprintf("no instance of %s was ready in time", o.Callee)
	case fleet.ReasonConnectFailed:
		return fmt.Sprintf("no instance of %s accepted a connection", o.Callee)
	case fleet.ReasonTimeout:
		return "its deadline passed"
	case fleet.ReasonOverloaded:
		return fmt.Sprintf("%s has as many exchanges in progress as its limit lets it", o.Callee)
	case fleet.ReasonStorageFull:
		return "a quota or the disk is full, so the event was not accepted"
	case fleet.ReasonStorageFailed:
		return "the broker cannot write, so the event was not accepted"
	case fleet.ReasonUpstreamReset:
		return fmt.Sprintf("%s closed the connection without a full answer", o.Callee)
	case fleet.ReasonUpstreamMalformed:
		return fmt.Sprintf("%s answered what is not HTTP", o.Callee)
	case fleet.ReasonMalformed:
		return "what was sent is not HTTP"
	case fleet.ReasonTooLarge:
		return "it is larger than the limit"
	case fleet.ReasonTooSlow:
		return "the caller sent its request, or took its answer, too slowly"
	case fleet.ReasonCallerGone:
		return "the caller left before the answer"
	}
	return "see the reason"
}

// remedy is the line that would change the outcome, for reasons that a manifest decides.
func remedy(o *fleet.Observation) string {
	add := func(whose, entry string) string {
		return fmt.Sprintf("Add it to %s/shoal.yaml:\n\n    %s:\n      %s\n", whose, section(o), entry)
	}
	switch fleet.Reason(o.Reason) {
	case fleet.ReasonUndeclaredCall:
		return add(o.Caller, o.Callee+": {}")
	case fleet.ReasonNotAllowed:
		return add(o.Callee, "- "+o.Caller)
	case fleet.ReasonUndeclaredEgress:
		return add(o.Caller, "- "+o.Callee)
	case fleet.ReasonUndeclaredTopic:
		return add(o.Caller, "- "+o.Topic)
	case fleet.ReasonUnboundNeed:
		return fmt.Sprintf("Add it to shoal.work:\n\n    bind:\n      %s: \"localhost:PORT\"\n", o.Callee)
	case fleet.ReasonMeshTLS:
		return fmt.Sprintf("Call it by http://%s/ instead, in the code or the configuration of %s.\n", o.Callee, o.Caller)
	}
	return ""
}

// section is the manifest key that remedy names.
func section(o *fleet.Observation) string {
	switch fleet.Reason(o.Reason) {
	case fleet.ReasonUndeclaredCall:
		return "calls"
	case fleet.ReasonNotAllowed:
		return "allow"
	case fleet.ReasonUndeclaredEgress:
		return "egress"
	case fleet.ReasonUndeclaredTopic:
		return "publishes"
	case fleet.ReasonUnboundNeed:
		return "bind"
	}
	return ""
}
