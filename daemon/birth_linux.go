package daemon

import (
	"fmt"
	"os"
	"strings"
)

// birth tells a living process from another that gets its id later: by when it started, in clock
// ticks since the machine did (proc(5), field 22 of stat). It is empty for one that is dead or a zombie.
func birth(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, after, _ := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ") // a name may hold anything
	fields := strings.Fields(after)
	const state, started = 0, 22 - 3 // the state is field 3
	if len(fields) <= started || fields[state] == "Z" || fields[state] == "X" {
		return ""
	}
	return fields[started]
}
