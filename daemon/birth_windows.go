package daemon

import (
	"fmt"

	"golang.org/x/sys/windows"
)

// birth tells a living process from another that gets its id later: by when it was created. It is
// empty for one that is dead.
func birth(pid int) string {
	h, err := windows.OpenProcess(windows.PROCESS_QUERY_LIMITED_INFORMATION, false, uint32(pid))
	if err != nil {
		return ""
	}
	defer func() { _ = windows.CloseHandle(h) }()
	var created, exited, kernel, user windows.Filetime
	if err := windows.GetProcessTimes(h, &created, &exited, &kernel, &user); err != nil || exited.Nanoseconds() > created.Nanoseconds() {
		return ""
	}
	return fmt.Sprint(created.Nanoseconds() / 100)
}
