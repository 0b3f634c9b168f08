package cli

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/fleet"
)

// filterFlags are the flags by which `tap` chooses.
func filterFlags(cmd *cobra.Command, f *fleet.Filter) {
	flags := cmd.Flags()
	flags.StringVar(&f.From, "from", "", "only what `SERVICE` calls")
	flags.StringVar(&f.To, "to", "", "only calls to `SERVICE`")
	flags.BoolVar(&f.Failures, "failures", false, "only what was refused or failed")
	flags.Var((*statusFlag)(&f.Status), "status", "only answers of this `STATUS`: 404, or 5xx; several with commas")
	flags.Var((*grpcFlag)(&f.GRPCStatus), "grpc-status", "only gRPC calls of this `STATUS`: 14 or UNAVAILABLE; several with commas")
	flags.StringVar(&f.Path, "path", "", "only `PATH`s that begin so, or that match where it has a *")
	flags.DurationVar(&f.MinLatency, "min-latency", 0, "only what took this `TIME` or longer, such as 200ms")
}

// statusFlag takes HTTP statuses and classes of them.
type statusFlag []string

var statusPattern = regexp.MustCompile(`^[1-5](xx|[0-9][0-9])$`)

func (f *statusFlag) String() string { return strings.Join(*f, ",") }
func (f *statusFlag) Type() string   { return "status" }

// Set adds to what was said before.
func (f *statusFlag) Set(text string) error {
	for s := range strings.SplitSeq(strings.ToLower(text), ",") {
		if !statusPattern.MatchString(s) {
			return fmt.Errorf("%q is no status: write one such as 404, or a class such as 5xx", s)
		}
		*f = append(*f, s)
	}
	return nil
}

// grpcFlag takes gRPC's status codes, by number or by name.
type grpcFlag []int

// grpcNames are in the order of their codes (google.golang.org/grpc/codes).
var grpcNames = [...]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
	"UNAUTHENTICATED",
}

func (f *grpcFlag) String() string {
	var all []string
	for _, code := range *f {
		all = append(all, strconv.Itoa(code))
	}
	return strings.Join(all, ",")
}

func (f *grpcFlag) Type() string { return "status" }

// Set adds to what was said before.
func (f *grpcFlag) Set(text string) error {
	for s := range strings.SplitSeq(text, ",") {
		code := slices.Index(grpcNames[:], strings.ToUpper(s))
		if n, err := strconv.Atoi(s); err == nil && n >= 0 && n < len(grpcNames) {
			code = n
		}
		if code < 0 {
			return fmt.Errorf("%q is no gRPC status: write a number from 0 to 16, or a name such as UNAVAILABLE", s)
		}
		*f = append(*f, code)
	}
	return nil
}
